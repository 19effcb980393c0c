"""Publish and promote: a judged calibration becomes a version in MLflow; a person makes it champion."""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from mm_platform.config import Settings
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.parameters import canonical_json, decode_parameter_set
from mm_platform.core.units import utc_date
from mm_platform.lake.columns import table_of_rows
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Lake, Partition
from mm_platform.registry.mlflow_store import alias_version, open_store
from mm_platform.registry.promote import GateRefusal, promote
from mm_platform.registry.publish import Candidate, make_challenger, register
from mm_platform.workflow.record import CalibrationRecord, folder, load_record, newest_day

_ARTIFACTS = ("report.html", "sweep.png", "equity.png", "attribution.png", "sweep.parquet")


@dataclass(frozen=True, slots=True)
class Published:
    """A registered version; `alias` is None where the gate held it back, then `failing` says which checks did.

    `version`, `run_id` and `sha256` are None where the fits were refused: there was no parameter set to register.
    """

    instrument: str
    version: str | None
    verdict: str
    alias: str | None
    run_id: str | None
    sha256: str | None
    failing: tuple[str, ...]

    def text(self) -> str:
        verdict = self.verdict.replace("_", " ")
        if self.alias is not None:
            return f"{self.instrument}: version {self.version} registered, gate {verdict}, alias {self.alias}; mm promote makes it champion"
        held = "\n".join(f"  {line}" for line in self.failing)
        if self.version is None:
            return f"{self.instrument}: nothing registered, the fits gave no parameter set; gate {verdict}\n{held}"
        return f"{self.instrument}: version {self.version} registered, gate {verdict}: no alias\n{held}"


@dataclass(frozen=True, slots=True)
class Promoted:
    """The outcome of a promotion; `alias` None = refused for `reason`."""

    instrument: str
    version: str
    alias: str | None
    approver: str
    reason: str
    changed: bool

    def text(self) -> str:
        if self.alias is None:
            return f"{self.instrument}: version {self.version} was not promoted: {self.reason}"
        verb = "is now" if self.changed else "already was"
        return f"{self.instrument}: version {self.version} {verb} {self.alias}, signed by {self.approver}: {self.reason}"


def _candidate(settings: Settings, day: date, record: CalibrationRecord) -> Candidate:
    place = folder(settings, day)
    artifacts: dict[str, Path] = {name: place / name for name in _ARTIFACTS if (place / name).exists()}
    return Candidate(
        parameters=decode_parameter_set((place / "params.json").read_bytes()),
        gate_verdict=record.gate.verdict,  # type: ignore[arg-type]
        checks_json=msgspec.json.encode(record.gate.checks).decode(),
        manifest_json=record.manifest_json,
        metrics=record.metrics,
        run_params=record.run_params,
        artifacts=artifacts,
        description=f"Gate: {record.gate.verdict}; {record.gate.blocks_seen} independent blocks seen, {record.gate.blocks_needed} needed.",
    )


def _failing(record: CalibrationRecord) -> tuple[str, ...]:
    return tuple(f"{c.outcome}: {c.name}: seen {c.seen}, needed {c.needed}. {c.message}" for c in record.gate.checks if c.outcome != "pass")


def register_candidate(settings: Settings, day: date) -> Published:
    """Register the day's judged calibration, whatever the verdict; no alias moves. Registering it again returns the version that is there."""
    return _publish(settings, day, move_alias=False)


def challenge(settings: Settings, day: date) -> Published:
    """Let `challenger` point to the day's version if its gate passed."""
    return _publish(settings, day, move_alias=True)


def _publish(settings: Settings, day: date, *, move_alias: bool) -> Published:
    record = load_record(settings, day)
    failing = _failing(record)
    if not record.has_parameters:
        return Published(settings.instrument, None, record.gate.verdict, None, None, None, failing)
    candidate = _candidate(settings, day, record)
    store = open_store(settings.registry_uri, settings.artifacts)
    version = register(store, candidate)
    if move_alias:
        version = make_challenger(store, version)
    if version.created or version.alias is not None:
        champion = alias_version(store, version.model_name, "champion")
        standing = "champion" if champion is not None and champion.version == version.version else version.alias
        _write_version(settings, candidate, version.version, standing)
    return Published(settings.instrument, version.version, record.gate.verdict, version.alias, version.run_id, version.sha256, failing)


def publish_last_sweep(settings: Settings) -> Published:
    """Register the newest judged calibration and, if its gate passed, make it challenger."""
    return challenge(settings, newest_day(settings))


def promote_version(settings: Settings, version: str | None, approver: str | None, reason: str) -> Promoted:
    """Sign a version that passed and move `champion` to it (default: the challenger)."""
    instrument = InstrumentId.parse(settings.instrument)
    store = open_store(settings.registry_uri, settings.artifacts)
    outcome = promote(
        store,
        instrument,
        version or "challenger",
        approver=approver or getpass.getuser(),
        reason=reason,
        now_ns=time.time_ns(),
        state_dir=settings.state_dir,
        bounds=settings.risk.parameter_bounds,
    )
    if isinstance(outcome, GateRefusal):
        return Promoted(settings.instrument, outcome.version, None, approver or getpass.getuser(), outcome.message, False)
    _move_alias(settings, instrument, outcome.version, "champion")
    return Promoted(settings.instrument, outcome.version, "champion", outcome.approver, outcome.reason, outcome.changed)


def _move_alias(settings: Settings, instrument: InstrumentId, version: str, alias: str) -> None:
    """Show in the lake which version holds the alias now; the one that held it becomes `previous`."""
    lake = Lake.open(settings.lake)
    for partition in lake.partitions("parameter_sets"):
        if (partition.venue, partition.symbol) != (instrument.venue, instrument.symbol):
            continue
        rows = lake.read("parameter_sets", instrument=instrument, dates=[partition.date]).to_pylist()
        moved = [
            {**row, "alias": alias if row["version"] == version else "previous" if row["alias"] == alias else row["alias"]}
            for row in rows
            if row["version"] == version or row["alias"] == alias
        ]
        if moved:
            _upsert_versions(lake, partition, moved)


def _upsert_versions(lake: Lake, partition: Partition, rows: list[dict[str, Any]]) -> None:
    schema = TABLES["parameter_sets"]
    lake.upsert("parameter_sets", partition, table_of_rows(schema, [{name: row[name] for name in schema.names} for row in rows]))


def _write_version(settings: Settings, candidate: Candidate, version: str, alias: str | None) -> None:
    """The version in the lake, for analysts."""
    p = candidate.parameters
    row = {
        "version": version,
        "sha256": p.sha256(),
        "parameters_json": canonical_json(p).decode(),
        "valid_from_ns": p.valid_from_ns,
        "fitted_through_ns": p.fitted_through_ns,
        "verdict": candidate.gate_verdict,
        "alias": alias,
        "published_at_ns": time.time_ns(),
    }
    iid = candidate.instrument
    _upsert_versions(Lake.open(settings.lake), Partition(iid.venue, iid.symbol, utc_date(p.fitted_through_ns)), [row])
