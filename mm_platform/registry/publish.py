"""Publishing a candidate: one MLflow run and one registered version, whatever the gate said.

Belongs here: what a version carries and under which names. Does not belong here: the verdict itself (`calibration.gate`), the champion
(`registry.promote`). The gate blocks only the alias: a candidate that did not pass is registered all the same, as evidence.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from mm_platform.core.approval import GATE_VERDICTS, GateVerdict, text_sha256
from mm_platform.core.errors import ConfigError, DataError, RegistryError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.parameters import ParameterSet, canonical_json, validate
from mm_platform.core.units import iso_utc
from mm_platform.registry.mlflow_store import MlflowStore, VersionRecord, alias_version, translated, versions
from mm_platform.registry.source import TAG_PARAMETERS, TAG_SHA256

CHALLENGER: Final = "challenger"
TAG_VERDICT: Final = "gate_verdict"
TAG_CHECKS: Final = "gate_checks"
TAG_CHECKS_SHA256: Final = "gate_checks_sha256"
TAG_CANDIDATE: Final = "candidate_sha256"
_OUTCOMES: Final = ("pass", "fail", "insufficient")
# the lowest limit among MLflow's stores for a version tag; longer texts are cut to their essentials, the artifact has them whole
_MAX_TAG_CHARS: Final = 5000
_RESERVED: Final = ("params.json", "manifest.json", "gate.json")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Everything that is published about one parameter set.

    Parameters
    ----------
    parameters : ParameterSet
        The set.
    gate_verdict : {"pass", "fail", "insufficient_evidence"}
        The gate's word.
    checks_json : str
        JSON array of the gate's checks, each an object with at least `name` and `outcome` (pass, fail, insufficient).
    manifest_json : str
        JSON object: the dataset's files with checksums.
    metrics : mapping of str to float
        Names such as `in_sample.sharpe`, `out_of_sample.net_quote`.
    run_params : mapping of str to str
        How it was made: grids, windows, latencies, seed.
    artifacts : mapping of str to Path
        File name in the run (may have folders, `report/index.html`) to the local file.
    description : str
        One paragraph for people.

    Raises
    ------
    ConfigError
        An unknown verdict, malformed JSON, a verdict that its own checks contradict, or an artifact name that leaves the run.
    """

    parameters: ParameterSet
    gate_verdict: GateVerdict
    checks_json: str
    manifest_json: str
    metrics: Mapping[str, float]
    run_params: Mapping[str, str]
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        if self.gate_verdict not in GATE_VERDICTS:
            raise ConfigError(f"gate verdict {self.gate_verdict!r}; expected {', '.join(GATE_VERDICTS)}")
        validate(self.parameters)
        failing = failing_checks(self.checks_json)
        if self.gate_verdict == "pass" and failing:
            raise ConfigError(f"gate verdict 'pass' although these checks did not pass: {', '.join(failing)}")
        if not isinstance(_parsed("manifest", self.manifest_json), dict):
            raise ConfigError("the manifest is not a JSON object of the dataset's files")
        for name in self.artifacts:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts or name in _RESERVED:
                raise ConfigError(f"artifact name {name!r}: expected a relative path inside the run, none of {', '.join(_RESERVED)}")

    @property
    def instrument(self) -> InstrumentId:
        """Whose parameters these are."""
        return InstrumentId.parse(self.parameters.instrument)

    def sha256(self) -> str:
        """Identity of the content, artifacts aside: the same set, judged the same on the same data, is the same candidate."""
        parts = (
            canonical_json(self.parameters).decode(),
            self.gate_verdict,
            self.checks_json,
            self.manifest_json,
            repr(sorted((name, float(value)) for name, value in self.metrics.items())),
            repr(sorted((name, str(value)) for name, value in self.run_params.items())),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A registered version. `alias` is None when the gate did not pass; `created` is False when this very candidate was there already."""

    model_name: str
    version: str
    alias: str | None
    run_id: str
    sha256: str
    gate_verdict: GateVerdict
    created: bool


def _parsed(what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as err:
        raise ConfigError(f"{what} is not JSON: {err}") from None


def failing_checks(checks_json: str) -> tuple[str, ...]:
    """Names of the checks that did not pass, in the gate's order; raises `ConfigError` when the text is not a list of checks."""
    checks = _parsed("gate checks", checks_json)
    if not isinstance(checks, list) or not checks:
        raise ConfigError("gate checks: expected a JSON array with at least one check; a verdict without checks proves nothing")
    failing = []
    for check in checks:
        if not isinstance(check, dict) or not isinstance(check.get("name"), str) or check.get("outcome") not in _OUTCOMES:
            raise ConfigError(f"gate check {check!r}: expected an object with a name and an outcome of {', '.join(_OUTCOMES)}")
        if check["outcome"] != "pass":
            failing.append(check["name"])
    return tuple(failing)


def register(store: MlflowStore, candidate: Candidate) -> PublishedVersion:
    """Register a candidate, whatever the gate said; no alias moves.

    Parameters
    ----------
    store : MlflowStore
        From `mlflow_store.open_store`.
    candidate : Candidate
        What to publish.

    Returns
    -------
    PublishedVersion
        Registering the same candidate again (a retried run) returns the version that is there. `alias` is None.

    Raises
    ------
    DataError
        An artifact's file is missing; nothing was written then.
    RegistryError, ConnectivityError
        The store refused or is away. A version appears only after its run is complete.
    """
    missing = [str(path) for path in candidate.artifacts.values() if not path.is_file()]
    if missing:
        raise DataError(f"cannot publish {candidate.instrument}: no such file: {', '.join(missing)}")
    model_name = candidate.instrument.model_name
    parameters_json = canonical_json(candidate.parameters).decode()
    if len(parameters_json) > _MAX_TAG_CHARS:
        raise RegistryError(f"the parameter set of {candidate.instrument} is {len(parameters_json)} characters, a version tag holds {_MAX_TAG_CHARS}")
    candidate_sha256 = candidate.sha256()
    there = next(iter(versions(store, model_name, tag=(TAG_CANDIDATE, candidate_sha256))), None)
    version = there or _register(store, candidate, model_name, parameters_json, candidate_sha256)
    return PublishedVersion(
        model_name=model_name,
        version=version.version,
        alias=None,
        run_id=version.run_id,
        sha256=candidate.parameters.sha256(),
        gate_verdict=candidate.gate_verdict,
        created=there is None,
    )


def make_challenger(store: MlflowStore, version: PublishedVersion) -> PublishedVersion:
    """Let `challenger` point to a registered version if its gate passed; the version comes back with the alias it holds, or None."""
    if version.gate_verdict != "pass":
        return version
    held = alias_version(store, version.model_name, CHALLENGER)
    if held is None or held.version != version.version:
        with translated(store.registry_uri):
            store.client.set_registered_model_alias(version.model_name, CHALLENGER, version.version)
    return replace(version, alias=CHALLENGER)


def publish(store: MlflowStore, candidate: Candidate) -> PublishedVersion:
    """Register a candidate and, if the gate passed, let `challenger` point to it (`register`, then `make_challenger`)."""
    return make_challenger(store, register(store, candidate))


def _register(store: MlflowStore, candidate: Candidate, model_name: str, parameters_json: str, candidate_sha256: str) -> VersionRecord:
    pset = candidate.parameters
    with translated(store.registry_uri):
        client = store.client
        run_id = client.create_run(
            _experiment(store, candidate.instrument),
            run_name=f"{candidate.instrument.symbol} through {iso_utc(pset.fitted_through_ns)}",
            tags={"instrument": pset.instrument, "sha256": pset.sha256(), TAG_VERDICT: candidate.gate_verdict, TAG_CANDIDATE: candidate_sha256},
        ).info.run_id
        ended = "FAILED"
        try:
            _log_run(store, run_id, candidate, parameters_json)
            _ensure_model(store, model_name, candidate.instrument)
            version = client.create_model_version(
                model_name,
                source=f"runs:/{run_id}/params.json",
                run_id=run_id,
                tags=_version_tags(candidate, parameters_json, candidate_sha256),
                description=candidate.description or f"Gate: {candidate.gate_verdict}. Fitted through {iso_utc(pset.fitted_through_ns)}.",
                await_creation_for=None,
            )
            ended = "FINISHED"
        finally:
            client.set_terminated(run_id, status=ended)
    return VersionRecord(model_name, str(version.version), {}, run_id)


def _version_tags(candidate: Candidate, parameters_json: str, candidate_sha256: str) -> dict[str, str]:
    pset = candidate.parameters
    checks = candidate.checks_json
    if len(checks) > _MAX_TAG_CHARS:
        checks = json.dumps([{"name": c["name"], "outcome": c["outcome"]} for c in json.loads(checks)], separators=(",", ":"))
    return {
        TAG_PARAMETERS: parameters_json,
        TAG_SHA256: pset.sha256(),
        "schema": str(pset.schema),
        "code_version": pset.code_version,
        "dataset_sha256": pset.dataset_sha256,
        "fitted_through_ns": str(pset.fitted_through_ns),
        TAG_VERDICT: candidate.gate_verdict,
        TAG_CHECKS: checks,
        TAG_CHECKS_SHA256: text_sha256(checks),
        TAG_CANDIDATE: candidate_sha256,
    }


def _log_run(store: MlflowStore, run_id: str, candidate: Candidate, parameters_json: str) -> None:
    from mlflow.entities import Metric, Param, RunTag

    client = store.client
    stamp_ms = candidate.parameters.fitted_through_ns // 1_000_000
    finite = [Metric(name, float(value), stamp_ms, 0) for name, value in candidate.metrics.items() if math.isfinite(value)]
    # MLflow would store an infinite metric as the largest float; say what it was instead
    other = [RunTag(f"not_finite.{name}", str(value)) for name, value in candidate.metrics.items() if not math.isfinite(value)]
    params = [Param(name, str(value)) for name, value in candidate.run_params.items()]
    for at in range(0, max(len(finite), len(params), len(other)), 100):
        client.log_batch(run_id, metrics=finite[at : at + 100], params=params[at : at + 100], tags=other[at : at + 100])
    with tempfile.TemporaryDirectory(prefix="mm-publish-") as folder:
        staged = Path(folder)
        (staged / "params.json").write_text(parameters_json)
        (staged / "manifest.json").write_text(candidate.manifest_json)
        gate = {"verdict": candidate.gate_verdict, "checks": json.loads(candidate.checks_json)}
        (staged / "gate.json").write_text(json.dumps(gate, indent=1))
        for name, path in candidate.artifacts.items():
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        client.log_artifacts(run_id, str(staged))


def _experiment(store: MlflowStore, instrument: InstrumentId) -> str:
    from mlflow.exceptions import MlflowException

    name = f"mm/{instrument}"
    found = store.client.get_experiment_by_name(name)
    if found is None:
        location = None if store.artifacts is None else (store.artifacts / instrument.model_name).as_uri()
        try:
            return str(store.client.create_experiment(name, artifact_location=location))
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = store.client.get_experiment_by_name(name)  # another process was first
    if found is None or found.lifecycle_stage != "active":
        raise RegistryError(f"the MLflow experiment {name} is deleted; restore it (mlflow experiments restore) or remove it for good")
    return str(found.experiment_id)


def _ensure_model(store: MlflowStore, model_name: str, instrument: InstrumentId) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(
            model_name, description=f"Quoting and hedging parameters of {instrument}; the JSON is in the version's tags."
        )
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
