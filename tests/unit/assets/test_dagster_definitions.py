"""What Dagster is shown: the exact set of names, the graph, and that loading it is quiet and light."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

from assets.definitions import build_defs, defs
from assets.partitions import INSTRUMENT_DAY
from assets.resources import SettingsResource
from mm_platform.lake.fields import TABLES

pytestmark = pytest.mark.filterwarnings("ignore:Asset job .* materializes assets with varying BackfillPolicies")
GRAPH = {
    "market__tape": set(),
    "market__signals": {"market__tape"},
    "model__fits": {"market__tape", "market__signals"},
    "model__sweep": {"model__fits"},
    "model__backtest": {"model__sweep"},
    "model__candidate": {"model__backtest"},
    "model__challenger": {"model__candidate"},
    "funding__history": set(),
    "funding__opportunities": {"funding__history", "market__tape"},
}
CHECKS = {"market__tape:quality", "market__signals:no_look_ahead", "model__backtest:pnl_identity", "model__candidate:gate"}


@pytest.fixture(scope="module")
def graph() -> dg.AssetGraph:
    return defs.resolve_asset_graph()


def test_exact_names(graph: dg.AssetGraph) -> None:
    # a misspelt dependency would not fail to load: it would become an external asset
    assert {k.to_user_string() for k in graph.get_all_asset_keys()} == set(GRAPH)
    assert {f"{c.asset_key.to_user_string()}:{c.name}" for c in graph.asset_check_keys} == CHECKS
    jobs = {job.name for job in defs.resolve_all_job_defs()} - {"__ASSET_JOB"}
    assert jobs == {"ingest_and_signal", "calibrate_and_publish", "funding_scan", "register_instrument", "prune_runs"}
    assert {s.name for s in defs.schedules} == {"daily_calibration", "hourly_funding_scan", "weekly_prune"}  # type: ignore[union-attr]
    assert {s.name for s in defs.sensors} == {"known_instruments"}  # type: ignore[union-attr]
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize("name", GRAPH)
def test_each_asset_says_what_it_is(graph: dg.AssetGraph, name: str) -> None:
    node = graph.get(dg.AssetKey(name))
    assert {k.to_user_string() for k in node.parent_keys} == GRAPH[name]
    assert node.group_name == name.split("__")[0]
    assert len(node.description or "") > 40
    assert node.owners
    assert node.kinds
    assert node.partitions_def == (None if name.startswith("funding") else INSTRUMENT_DAY)
    schema = node.metadata.get("dagster/column_schema")
    if schema is not None:
        table = TABLES[node.metadata["dagster/table_name"]]
        assert [c.name for c in schema.columns] == list(table.names)
        assert all(c.description.startswith(f"[{f.unit}] ") for c, f in zip(schema.columns, table.fields, strict=True))


def test_every_check_blocks_and_those_of_models_speak_of_one_day() -> None:
    specs = {f"{spec.asset_key.to_user_string()}:{spec.name}": spec for asset in defs.assets for spec in asset.check_specs}  # type: ignore[union-attr]
    assert set(specs) == CHECKS
    assert all(spec.blocking for spec in specs.values())
    assert {name for name, spec in specs.items() if spec.partitions_def == INSTRUMENT_DAY} == {
        "model__backtest:pnl_identity",
        "model__candidate:gate",
    }


def test_market_data_is_backfilled_in_one_run_and_models_day_by_day(graph: dg.AssetGraph) -> None:
    policies = {name: graph.get(dg.AssetKey(name)).backfill_policy for name in GRAPH}
    assert {name for name, policy in policies.items() if policy is not None} == {"market__tape", "market__signals"}
    assert all(policy.max_partitions_per_run is None for policy in policies.values() if policy is not None)


def test_only_the_sensor_is_on_by_default() -> None:
    assert all(s.default_status is dg.DefaultScheduleStatus.STOPPED for s in defs.schedules)  # type: ignore[union-attr]
    assert all(s.default_status is dg.DefaultSensorStatus.RUNNING for s in defs.sensors)  # type: ignore[union-attr]


def test_overrides_replace_the_world() -> None:
    other = SettingsResource(lake="elsewhere")
    assert build_defs({"settings": other}).resources["settings"] is other  # type: ignore[index]


def test_loading_warns_of_nothing_and_leaves_heavy_libraries_alone() -> None:
    code = (
        "import sys, assets.definitions as d; d.defs.resolve_all_job_defs();"
        "print([m for m in ('matplotlib', 'plotly', 'mlflow', 'ccxt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == "[]\n"
