"""Publishing: what a version carries, and that only a pass moves the alias."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.parameters import canonical_json, decode_parameter_set
from mm_platform.registry.mlflow_store import MlflowStore, alias_version, get_version, versions
from mm_platform.registry.publish import make_challenger, publish, register

from .conftest import CHECKS, MODEL, PERP, candidate, parameter_set


def test_a_version_carries_set_metrics_files_and_verdict(store: MlflowStore, tmp_path: Path) -> None:
    sweep, page = tmp_path / "points.parquet", tmp_path / "page.html"
    sweep.write_bytes(b"PAR1")
    page.write_text("<html>")
    given = candidate(artifacts={"sweep.parquet": sweep, "report/index.html": page})
    published = publish(store, given)
    assert (published.version, published.alias, published.created) == ("1", "challenger", True)
    record = get_version(store, MODEL, "1")
    assert record is not None
    assert record.run_id == published.run_id
    assert decode_parameter_set(record.tags["params_json"]) == given.parameters
    assert record.tags["sha256"] == published.sha256 == given.parameters.sha256()
    assert {
        "schema": "1",
        "code_version": "0.1.0",
        "dataset_sha256": "ab" * 32,
        "gate_verdict": "pass",
        "gate_checks": CHECKS,
    }.items() <= record.tags.items()
    assert record.tags["fitted_through_ns"] == str(given.parameters.fitted_through_ns)
    run = store.client.get_run(published.run_id)
    assert run.info.status == "FINISHED"
    assert store.client.get_experiment(run.info.experiment_id).name == f"mm/{PERP}"
    # an infinite number is not a metric; it is told apart instead of being turned into the largest float
    assert run.data.metrics == {"in_sample.sharpe": 3.0, "out_of_sample.net_quote": 12.5}
    assert run.data.tags["not_finite.out_of_sample.sharpe"] == "inf"
    assert run.data.params == {"grid": "8 x 6", "seed": "7"}
    local = Path(store.client.download_artifacts(published.run_id, "", str(tmp_path)))
    assert (local / "params.json").read_bytes() == canonical_json(given.parameters)
    assert (local / "report" / "index.html").read_text() == "<html>"
    assert (local / "sweep.parquet").read_bytes() == b"PAR1"
    assert json.loads((local / "gate.json").read_text()) == {"verdict": "pass", "checks": json.loads(CHECKS)}
    assert json.loads((local / "manifest.json").read_text())["files"][0]["path"] == "tape"


@pytest.mark.parametrize("verdict", ["fail", "insufficient_evidence"])
def test_what_did_not_pass_is_registered_without_alias(store: MlflowStore, verdict: str) -> None:
    published = publish(store, candidate(verdict=verdict))
    assert published.alias is None
    assert published.gate_verdict == verdict
    assert alias_version(store, MODEL, "challenger") is None
    assert [v.tags["gate_verdict"] for v in versions(store, MODEL)] == [verdict]


def test_a_refused_candidate_leaves_the_challenger_where_it_was(store: MlflowStore) -> None:
    publish(store, candidate(0.1))
    publish(store, candidate(0.2, verdict="fail"))
    held = alias_version(store, MODEL, "challenger")
    assert held is not None
    assert held.version == "1"


def test_registering_moves_no_alias_until_the_challenger_is_made(store: MlflowStore) -> None:
    version = register(store, candidate())
    assert version.alias is None
    assert alias_version(store, MODEL, "challenger") is None
    assert make_challenger(store, version).alias == "challenger"
    refused = register(store, candidate(0.2, verdict="fail"))
    assert make_challenger(store, refused).alias is None
    held = alias_version(store, MODEL, "challenger")
    assert held is not None
    assert held.version == version.version


def test_publishing_the_same_again_is_the_same_version(store: MlflowStore) -> None:
    first, again, other = publish(store, candidate(0.1)), publish(store, candidate(0.1)), publish(store, candidate(0.2))
    assert (again.version, again.created) == (first.version, False)
    assert (other.version, other.created) == ("2", True)
    # the same set judged differently is another candidate
    assert publish(store, candidate(0.1, verdict="fail")).version == "3"


def test_a_missing_file_stops_before_anything_is_written(store: MlflowStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*absent\.png"):
        publish(store, candidate(artifacts={"equity.png": tmp_path / "absent.png"}))
    assert versions(store, MODEL) == []
    assert store.client.get_experiment_by_name(f"mm/{PERP}") is None


def test_a_failure_half_way_registers_no_version_and_marks_the_run(store: MlflowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.client, "log_artifacts", disk_full)
    with pytest.raises(OSError, match="No space left"):
        publish(store, candidate())
    assert versions(store, MODEL) == []
    experiment = store.client.get_experiment_by_name(f"mm/{PERP}")
    assert experiment is not None
    assert [run.info.status for run in store.client.search_runs([experiment.experiment_id])] == ["FAILED"]


def test_long_checks_keep_their_names_and_outcomes_in_the_tag(store: MlflowStore) -> None:
    checks = json.dumps([{"name": f"check_{i}", "outcome": "pass", "message": "x" * 500} for i in range(20)])
    publish(store, candidate(checks=checks))
    record = get_version(store, MODEL, "1")
    assert record is not None
    assert len(record.tags["gate_checks"]) < 5000
    assert [c["name"] for c in json.loads(record.tags["gate_checks"])] == [f"check_{i}" for i in range(20)]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"verdict": "maybe"}, "gate verdict 'maybe'"),
        ({"checks": '[{"name": "a", "outcome": "fail"}]'}, "'pass' although these checks did not pass: a"),
        ({"checks": "[]"}, "at least one check"),
        ({"checks": "nonsense"}, "not JSON"),
        ({"checks": '[{"name": "a", "outcome": "great"}]'}, "outcome of pass, fail, insufficient"),
        ({"manifest_json": "[]"}, "manifest"),
        ({"artifacts": {"../x": Path("x")}}, "relative path inside the run"),
        ({"artifacts": {"params.json": Path("x")}}, "relative path inside the run"),
    ],
)
def test_a_malformed_candidate_is_refused_when_it_is_made(changed: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        candidate(**changed)  # type: ignore[arg-type]


def test_a_set_with_a_missing_unit_is_no_candidate() -> None:
    good = parameter_set()
    bad = msgspec.structs.replace(good, values={**good.values, "sigma": msgspec.structs.replace(good.values["sigma"], unit="")})
    with pytest.raises(ConfigError, match="sigma has unit ''"):
        candidate(parameters=bad)
