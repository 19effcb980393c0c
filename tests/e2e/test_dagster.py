"""The Dagster graph over the simulated market, in this process, without a daemon: what materialises, what the gate holds back, what it lets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import build_defs
from assets.partitions import partition_key, register
from assets.resources import SettingsResource
from mm_platform.config import Settings
from mm_platform.core.instrument import InstrumentId
from mm_platform.registry.mlflow_store import alias_version, get_version, open_store
from mm_platform.workflow.record import load_record

PERP = "sim:BTC-USDT-PERP"
FIRST = date(2026, 1, 5)
MODEL = InstrumentId.parse(PERP).model_name
BEFORE_THE_GATE = ["market__tape", "market__signals", "model__fits", "model__sweep", "model__backtest"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dagster"),
    pytest.mark.filterwarnings("ignore:Asset job .* materializes assets with varying BackfillPolicies"),
]


@dataclass
class World:
    """A project folder with its settings, a Dagster instance, and the definitions over both."""

    home: Path
    instance: dg.DagsterInstance
    defs: dg.Definitions
    settings: Settings

    def run(self, job: str, day: date, *, through: date | None = None, only: Sequence[str] | None = None) -> dg.ExecuteInProcessResult:
        """One run of a job for a day, or for the days from it to `through`."""
        ends = (str(partition_key(PERP, day)), str(partition_key(PERP, through or day)))
        span = {"dagster/asset_partition_range_start": ends[0], "dagster/asset_partition_range_end": ends[1]}
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            partition_key=ends[0] if through is None else None,
            tags=span if through is not None else None,
            asset_selection=[dg.AssetKey(name) for name in only] if only is not None else None,
        )


def world(home: Path, lines: str = "", *, lake: Path | None = None) -> World:
    """A world with a grid of two points."""
    home.mkdir(exist_ok=True)
    config = home / "mm.toml"
    place = f'lake = "{lake}"\n' if lake is not None else ""
    config.write_text(f"{place}[sweep]\nrisk_aversions = [0.1, 0.4]\nhedge_thresholds_units = ['never']\nworkers = 1\n{lines}")
    resource = SettingsResource(config_path=str(config))
    instance = dg.DagsterInstance.ephemeral()
    register(instance, PERP)
    return World(home, instance, build_defs({"settings": resource}), resource.load(PERP))


def materialised(result: dg.ExecuteInProcessResult) -> list[str]:
    return [e.asset_key.to_user_string() for e in result.get_asset_materialization_events() if e.asset_key is not None]


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, object]:
    [event] = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return {name: value.value for name, value in event.materialization.metadata.items()}


@pytest.fixture(scope="module")
def one_day(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dg.ExecuteInProcessResult]:
    """The whole chain over one simulated day."""
    made = world(tmp_path_factory.mktemp("one_day"))
    return made, made.run("calibrate_and_publish", FIRST)


def test_one_day_materialises_up_to_the_candidate(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    _, result = one_day
    assert materialised(result) == [*BEFORE_THE_GATE, "model__candidate"]
    assert checks(result) == {"quality": True, "no_look_ahead": True, "pnl_identity": True, "gate": False}
    # the gate's refusal is the run's failure, as it is exit code 1 on the command line
    assert not result.success


def test_the_gate_says_what_is_missing(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    made, result = one_day
    [gate] = [e for e in result.get_asset_check_evaluations() if e.check_name == "gate"]
    recorded = load_record(made.settings, FIRST).gate
    assert recorded.verdict == "insufficient_evidence"
    assert gate.metadata["verdict"].value == "insufficient evidence"
    assert gate.metadata["independent blocks seen"].value == recorded.blocks_seen
    assert gate.metadata["independent blocks needed"].value == made.settings.gate.min_blocks
    assert (gate.description or "").startswith(f"insufficient evidence: {recorded.blocks_seen} independent blocks seen")
    assert gate.partition == str(partition_key(PERP, FIRST))


def test_the_version_is_registered_without_an_alias(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    made, result = one_day
    store = open_store(made.settings.registry_uri, made.settings.artifacts)
    version = get_version(store, MODEL, str(metadata(result, "model__candidate")["version"]))
    assert version is not None
    assert version.tags["gate_verdict"] == "insufficient_evidence"
    assert alias_version(store, MODEL, "challenger") is None
    assert alias_version(store, MODEL, "champion") is None


def test_results_are_shown_with_tables_pictures_and_files(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    _, result = one_day
    assert int(str(metadata(result, "market__tape")["dagster/row_count"])) > 100_000
    assert metadata(result, "market__signals")["dagster/row_count"] == 86_400
    fits = metadata(result, "model__fits")
    assert fits["accepted"] is True
    assert "| sigma |" in str(fits["fits"])
    assert float(str(fits["sigma [1/sqrt(year)]"])) > 0
    assert str(metadata(result, "model__sweep")["P&L over the grid"]).startswith("![plot](data:image/png;base64,")
    backtest = metadata(result, "model__backtest")
    assert str(backtest["equity and inventory"]).startswith("![plot](data:image/png;base64,")
    assert "| total |" in str(backtest["P&L attribution"])
    assert Path(str(backtest["report"])).stat().st_size > 10_000
    assert "| risk_aversion |" in str(metadata(result, "model__candidate")["parameters"])


def test_the_alias_cannot_be_had_by_materialising_it_alone(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    made, _ = one_day
    result = made.run("calibrate_and_publish", FIRST, only=["model__challenger"])
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure]
    assert "gets no alias: gate insufficient evidence" in str(failure.step_failure_data.user_failure_data)
    assert alias_version(open_store(made.settings.registry_uri, made.settings.artifacts), MODEL, "challenger") is None


def test_materialising_again_makes_no_second_version_and_no_second_replay(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    made, first = one_day
    again = made.run("calibrate_and_publish", FIRST, only=["model__sweep", "model__backtest", "model__candidate"])
    assert metadata(again, "model__sweep")["replays computed"] == 0
    assert metadata(again, "model__candidate")["version"] == metadata(first, "model__candidate")["version"]


def test_refused_fits_fail_the_gate_with_their_reason_and_register_nothing(one_day: tuple[World, dg.ExecuteInProcessResult], tmp_path: Path) -> None:
    made, _ = one_day
    strict = world(tmp_path / "strict", "[calibration]\nmin_trades = 10000000\n", lake=made.settings.lake)
    result = strict.run(
        "calibrate_and_publish", FIRST, only=["model__fits", "model__sweep", "model__backtest", "model__candidate", "model__challenger"]
    )
    assert materialised(result) == ["model__fits", "model__sweep", "model__backtest"]
    [gate] = [e for e in result.get_asset_check_evaluations() if e.check_name == "gate"]
    assert not gate.passed
    assert "no parameter set to register" in (gate.description or "")
    assert not any(e.is_step_failure and e.step_key != "model__candidate" for e in result.all_events)


def test_a_day_that_was_never_ingested_says_what_to_do(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    made, _ = one_day
    result = made.run("calibrate_and_publish", date(2026, 2, 1), only=["model__fits"])
    [failure] = [e for e in result.all_events if e.is_step_failure]
    said = failure.step_failure_data.user_failure_data
    assert said is not None
    assert "2026-02-01" in (said.description or "")


def test_a_real_instrument_without_a_folder_says_what_to_set(tmp_path: Path) -> None:
    made = world(tmp_path / "empty")
    register(made.instance, "binanceusdm:BTC-USDT-PERP")
    key = partition_key("binanceusdm:BTC-USDT-PERP", date(2024, 7, 19))
    result = made.defs.resolve_job_def("ingest_and_signal").execute_in_process(instance=made.instance, raise_on_error=False, partition_key=key)
    [failure] = [e for e in result.all_events if e.is_step_failure]
    said = failure.step_failure_data.user_failure_data
    assert said is not None
    assert "MM_RAW_DIR" in (said.description or "")


def test_the_funding_scan_reads_the_tapes_rates(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    made, _ = one_day
    result = made.defs.resolve_job_def("funding_scan").execute_in_process(instance=made.instance)
    shown = metadata(result, "funding__opportunities")
    assert shown["perpetuals"] == 1
    assert "| sim:BTC-USDT-PERP | 3 |" in str(shown["rates"])


def test_a_lake_without_rates_is_no_failure(tmp_path: Path) -> None:
    made = world(tmp_path / "empty")
    result = made.defs.resolve_job_def("funding_scan").execute_in_process(instance=made.instance)
    shown = metadata(result, "funding__opportunities")
    assert shown["perpetuals"] == 0
    assert "history files below raw_dir" in str(shown["note"])


def test_days_enough_pass_the_gate_and_move_the_challenger(one_day: tuple[World, dg.ExecuteInProcessResult]) -> None:
    """The gate as it is by default; the simulated market's edge and the number of days are what pass it."""
    made, _ = one_day
    last = FIRST + timedelta(days=4)
    assert made.run("ingest_and_signal", FIRST + timedelta(days=1), through=last).success
    result = made.run("calibrate_and_publish", last, only=["model__fits", "model__sweep", "model__backtest", "model__candidate", "model__challenger"])
    assert result.success, [(e.description, str(e.metadata["checks"])) for e in result.get_asset_check_evaluations() if not e.passed]
    assert checks(result) == {"pnl_identity": True, "gate": True}
    shown = metadata(result, "model__challenger")
    assert shown["alias"] == "challenger"
    held = alias_version(open_store(made.settings.registry_uri, made.settings.artifacts), MODEL, "challenger")
    assert held is not None
    assert (held.version, held.tags["gate_verdict"]) == (shown["version"], "pass")
    assert alias_version(open_store(made.settings.registry_uri, made.settings.artifacts), MODEL, "champion") is None
