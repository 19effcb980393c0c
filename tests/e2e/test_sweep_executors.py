"""A real sweep over a simulated day: the same results wherever it runs, nothing computed twice after a kill, days and instruments as partitions."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from e2e_mm import clean_environment

from assets.model import model__sweep
from assets.partitions import partition_key, register
from assets.resources import SettingsResource
from mm_platform.config import Settings, load_settings
from mm_platform.core.instrument import InstrumentId
from mm_platform.lake.store import Lake, Partition
from mm_platform.workflow.data import ingest_days
from mm_platform.workflow.record import load_chosen
from mm_platform.workflow.sweep import Swept, choose

PERP, OTHER = "sim:BTC-USDT-PERP", "sim:BTC-USDT"
FIRST = date(2026, 1, 5)
SECOND = FIRST + timedelta(days=1)
GRID = "[sweep]\nrisk_aversions = [0.1, 0.4]\nhedge_thresholds_units = [3.0, 'never']\nworkers = {workers}\n{more}"
POINTS, REPLAYS = 4, 8

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sweep_executors")]


def place(home: Path, *, workers: int = 2, more: str = "", instrument: str = PERP) -> Settings:
    """Settings in a folder of their own."""
    home.mkdir(exist_ok=True)
    file = home / "mm.toml"
    file.write_text(f"instrument = '{instrument}'\n" + GRID.format(workers=workers, more=more))
    return load_settings(file, {}, environ={})


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with two days of the perpetual and of the spot market."""
    home = tmp_path_factory.mktemp("market")
    ingest_days(place(home), [FIRST, SECOND])
    return home / ".mm" / "lake"


def over(market: Path, home: Path, **how: Any) -> Settings:
    """Settings over a lake of their own with the same market in it."""
    made = place(home, **how)
    shutil.copytree(market, made.lake)
    return made


def rows(settings: Settings, through: date = FIRST, instrument: str = PERP) -> list[dict[str, Any]]:
    found = Lake(settings.lake).read("sweep_points", instrument=InstrumentId.parse(instrument), dates=[through]).to_pylist()
    return sorted(found, key=lambda row: (row["sweep_id"], row["segment"], row["risk_aversion"], row["hedge_threshold_units"] or 0.0))


@pytest.fixture(scope="module")
def alone(market: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Swept]:
    """The sweep in this process."""
    settings = over(market, tmp_path_factory.mktemp("alone"), workers=1)
    return settings, choose(settings, FIRST)


def test_one_process_fills_the_table(alone: tuple[Settings, Swept]) -> None:
    settings, swept = alone
    assert (swept.points, swept.computed) == (POINTS, REPLAYS)
    found = rows(settings)
    assert len(found) == REPLAYS
    assert sum(row["maker_fills"] for row in found) > 0
    assert sum(row["chosen"] for row in found) == 2, "the chosen point, on both parts"


@pytest.mark.parametrize("more", ["", '[execution]\nbackend = "ray"'], ids=["two processes", "ray"])
def test_the_results_are_the_same_wherever_it_runs(market: Path, tmp_path: Path, alone: tuple[Settings, Swept], more: str) -> None:
    settings = over(market, tmp_path / "there", more=more)
    swept = choose(settings, FIRST)
    assert swept.chosen == alone[1].chosen
    assert rows(settings) == rows(alone[0])


KILLED = """
    import os, signal, sys
    from datetime import date
    from pathlib import Path
    from mm_platform.config import load_settings
    from mm_platform.workflow.sweep import choose

    def killed_on_the_way(step, done, total):
        if step == "sweep" and done:
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        choose(load_settings(Path("mm.toml"), {}, environ={}), date.fromisoformat(sys.argv[1]), progress=killed_on_the_way)
"""


def test_a_killed_sweep_goes_on_where_it_was(market: Path, tmp_path: Path, alone: tuple[Settings, Swept]) -> None:
    settings = over(market, tmp_path / "there")
    script = tmp_path / "there" / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    known = 0
    for _ in range(2):
        done = subprocess.run([sys.executable, script.name, FIRST.isoformat()], cwd=script.parent, env=clean_environment(), check=False)
        assert done.returncode == -signal.SIGKILL
        kept = rows(settings)
        assert known < len(kept) < REPLAYS
        assert not any(row["chosen"] for row in kept), "nothing is chosen before all is known"
        known = len(kept)
    swept = choose(settings, FIRST)
    assert swept.computed == REPLAYS - known
    assert swept.chosen == alone[1].chosen
    assert rows(settings) == rows(alone[0])
    assert choose(settings, FIRST).computed == 0


def test_days_and_instruments_are_partitions_and_configuration_says_where_they_run(
    market: Path, tmp_path: Path, alone: tuple[Settings, Swept]
) -> None:
    settings = over(market, tmp_path / "there", more='[execution]\nbackend = "ray"')
    resource = SettingsResource(config_path=str(tmp_path / "there" / "mm.toml"))
    instance = dg.DagsterInstance.ephemeral()
    for instrument in (PERP, OTHER):
        register(instance, instrument)
    for instrument, day in ((PERP, FIRST), (OTHER, FIRST), (PERP, SECOND)):
        result = dg.materialize(
            [model__sweep],
            partition_key=str(partition_key(instrument, day)),
            instance=instance,
            resources={"settings": resource},
            selection=[model__sweep],
        )
        assert result.success
        [event] = result.get_asset_materialization_events()
        assert event.partition == str(partition_key(instrument, day))
        assert event.materialization.metadata["replays computed"].value == REPLAYS
    assert instance.get_materialized_partitions(model__sweep.key) == {
        str(partition_key(*key)) for key in ((PERP, FIRST), (OTHER, FIRST), (PERP, SECOND))
    }
    stored = Lake(settings.lake).partitions("sweep_points")
    assert stored == sorted(Partition.of(InstrumentId.parse(i), d) for i, d in ((PERP, FIRST), (OTHER, FIRST), (PERP, SECOND)))
    assert rows(settings) == rows(alone[0]), "as without Dagster and without Ray"
    sweeps = {load_chosen(settings, FIRST).sweep_id, load_chosen(settings, SECOND).sweep_id, rows(settings, FIRST, OTHER)[0]["sweep_id"]}
    assert len(sweeps) == 3
