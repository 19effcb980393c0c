"""The loop on recorded data, up to the gate: what eight minutes and what a day can and cannot say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mm_platform.config import Settings, load_settings
from mm_platform.lake.store import Lake
from mm_platform.registry.mlflow_store import alias_version, open_store
from mm_platform.workflow.data import ingest_files
from mm_platform.workflow.fits import calibrate
from mm_platform.workflow.judge import judge_chosen
from mm_platform.workflow.publish import publish_last_sweep
from mm_platform.workflow.sweep import choose

pytestmark = pytest.mark.slow

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def recorded(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeSettings:
    """A lake with the captures of 2024; gives settings for an instrument in it, with a small grid."""
    home = tmp_path_factory.mktemp("recorded")
    captures = shared / "data" / "binance_ws"
    made = load_settings(None, {}, cwd=home, environ={})
    ingest_files(made, [*sorted((captures / "usdm").glob("*2024*")), *sorted((captures / "spot").glob("nexo*"))])

    def settings(instrument: str) -> Settings:
        grid = {"sweep.risk_aversions": [0.1, 1.0], "sweep.hedge_thresholds_units": [2.0, "never"], "sweep.workers": 1}
        return load_settings(None, {"instrument": instrument, **grid}, cwd=home, environ={})

    return settings


@pytest.mark.parametrize("instrument", ["binanceusdm:BTC-USDT-PERP", "binanceusdm:ETH-USDT-PERP"])
def test_eight_minutes_are_insufficient_evidence_with_the_numbers(recorded: MakeSettings, instrument: str) -> None:
    settings = recorded(instrument)
    assert calibrate(settings).signals.valid_frac > 0.99
    swept = choose(settings)
    judged = judge_chosen(settings, swept.through)
    assert judged.verdict == "insufficient_evidence"
    assert (judged.gate.blocks_seen, judged.gate.blocks_needed) == (0, 24)
    assert judged.gate.days_to_record > 1.0
    blocks = next(c for c in judged.gate.checks if c.name == "independent_blocks")
    assert blocks.outcome == "insufficient"
    published = publish_last_sweep(settings)
    assert published.alias is None
    assert any(line.startswith("insufficient: independent_blocks") for line in published.failing)
    assert alias_version(open_store(settings.registry_uri, settings.artifacts), settings.id.model_name, "champion") is None


def test_a_day_of_a_thin_coin_goes_all_the_way_to_the_gate_and_no_further(recorded: MakeSettings) -> None:
    settings = recorded("binance:NEXO-USDT")
    calibrate(settings)
    swept = choose(settings)
    assert swept.computed == 2 * 4
    points = Lake.open(settings.lake).read("sweep_points", instrument=settings.id, dates=[swept.through]).to_pylist()
    assert {p["hedge_threshold_units"] for p in points} == {2.0, None}
    assert all(p["maker_fills"] > 0 for p in points)
    judged = judge_chosen(settings, swept.through)
    assert judged.verdict in ("fail", "insufficient_evidence")
    assert judged.maker_fills > 0
    assert judged.residual_quanta == 0
    assert judged.report.stat().st_size > 100_000
    assert publish_last_sweep(settings).alias is None
