"""Market assets over a world without data: what a bad day blocks, and what a backfill over several days reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import market
from assets.definitions import build_defs
from assets.partitions import partition_key, register
from assets.resources import SettingsResource
from mm_platform.config import Settings
from mm_platform.workflow.partition_sink import PartitionQuality
from mm_platform.workflow.signals import LookAheadProof, SignalsBuilt

PERP = "sim:BTC-USDT-PERP"
DAYS = [date(2026, 1, d) for d in (5, 6, 7)]
pytestmark = pytest.mark.filterwarnings("ignore:Asset job .* materializes assets with varying BackfillPolicies")


def quality(day: date, verdict: str) -> PartitionQuality:
    blank: dict[str, Any] = {f.name: {"int": 0, "float": 0.0, "bool": False, "str": ""}.get(str(f.type)) for f in fields(PartitionQuality)}
    reason = "" if verdict == "ok" else "3 crossed books"
    return PartitionQuality(**blank | {"date": day, "rows": day.day, "verdict": verdict, "reason": reason, "sources": "[]"})


class World:
    """Stands in for the steps: `bad` days are suspect, `leaky` days look into the future; `calls` says which days were asked for."""

    def __init__(self, bad: Sequence[date] = (), leaky: Sequence[date] = ()) -> None:
        self.bad, self.leaky = bad, leaky
        self.ingested: list[list[date]] = []
        self.built: list[date] = []

    def ingest_days(self, settings: Settings, days: Sequence[date], progress: object) -> list[PartitionQuality]:
        self.ingested.append(list(days))
        return [quality(day, "suspect" if day in self.bad else "ok") for day in days]

    def build_signals(self, settings: Settings, days: Sequence[date], progress: object) -> SignalsBuilt:
        self.built += days
        return SignalsBuilt(settings.instrument, tuple(map(str, days)), 100 + days[0].day, 1.0, ())

    def look_ahead_check(self, settings: Settings, day: date) -> LookAheadProof:
        return LookAheadProof("noon", 10, day not in self.leaky)


def run(world: World, keys: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dg.DagsterInstance, dg.ExecuteInProcessResult]:
    for step in ("ingest_days", "build_signals", "look_ahead_check"):
        monkeypatch.setattr(market, step, getattr(world, step))
    (tmp_path / "mm.toml").write_text("")
    defs = build_defs({"settings": SettingsResource(config_path=str(tmp_path / "mm.toml"))})
    instance = dg.DagsterInstance.ephemeral()
    register(instance, PERP)
    span = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    result = defs.resolve_job_def("ingest_and_signal").execute_in_process(
        instance=instance,
        raise_on_error=False,
        partition_key=keys[0] if len(keys) == 1 else None,
        tags=span if len(keys) > 1 else None,
    )
    return instance, result


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def test_a_good_day_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    _, result = run(world, [partition_key(PERP, DAYS[0])], tmp_path, monkeypatch)
    assert result.success
    assert checks(result) == {"quality": True, "no_look_ahead": True}


def test_a_suspect_day_blocks_what_comes_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(bad=[DAYS[0]])
    _, result = run(world, [partition_key(PERP, DAYS[0])], tmp_path, monkeypatch)
    assert not result.success
    assert checks(result) == {"quality": False}
    assert world.built == []
    [evaluation] = result.get_asset_check_evaluations()
    assert evaluation.description == "sim:BTC-USDT-PERP 2026-01-05: suspect (3 crossed books)"


def test_one_suspect_day_of_a_backfill_stops_the_run_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(bad=[DAYS[1]])
    _, result = run(world, [partition_key(PERP, day) for day in DAYS], tmp_path, monkeypatch)
    assert not result.success
    assert world.built == []
    [evaluation] = result.get_asset_check_evaluations()
    assert evaluation.description == "sim:BTC-USDT-PERP 2026-01-06: suspect (3 crossed books)"


def test_signals_that_see_the_future_fail_their_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, result = run(World(leaky=[DAYS[0]]), [partition_key(PERP, DAYS[0])], tmp_path, monkeypatch)
    assert not result.success
    assert checks(result) == {"quality": True, "no_look_ahead": False}


def test_a_backfill_reads_once_and_reports_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    instance, result = run(world, [partition_key(PERP, day) for day in DAYS], tmp_path, monkeypatch)
    assert result.success
    assert world.ingested == [DAYS]
    assert world.built == DAYS
    assert [e.description for e in result.get_asset_check_evaluations()] == [
        "ok: sim:BTC-USDT-PERP 2026-01-05 to 2026-01-07",
        "equal: sim:BTC-USDT-PERP 2026-01-05 to 2026-01-07",
    ]
    for name, offset in (("market__tape", 0), ("market__signals", 100)):
        events = instance.fetch_materializations(dg.AssetKey(name), limit=10).records
        rows = {e.partition_key: e.asset_materialization.metadata["dagster/row_count"].value for e in events}  # type: ignore[union-attr]
        assert rows == {str(partition_key(PERP, day)): offset + day.day for day in DAYS}
