"""Killed at a random moment, the lake opens, every query answers, and a rerun completes. Five times here; MM_TEST_KILLS=20 for more."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from e2e_mm import MM, clean_environment, run_mm

from mm_platform.lake.catalog import connect
from mm_platform.lake.fields import TABLES

KILLS = int(os.environ.get("MM_TEST_KILLS", "5"))

pytestmark = pytest.mark.slow


def kill_at(home: Path, seconds: float, *arguments: str) -> bool:
    """Start `mm`, kill it with all its workers after some seconds; True when it was still running."""
    process = subprocess.Popen(
        [*MM, *arguments], cwd=home, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def seconds(home: Path, code: int, *arguments: str) -> float:
    """How long a whole run takes; it must end as the first one did."""
    home.mkdir(exist_ok=True)
    started = time.monotonic()
    done = run_mm(home, *arguments, check=False)
    assert done.returncode == code, done.stderr
    return time.monotonic() - started


def every_view_answers(lake: Path) -> None:
    con = connect(lake)
    for name in TABLES:
        con.sql(f"select count(*) from {name}").fetchall()
    # whole or absent: a day that is shown has its tape, and the tape has the rows its quality row counts
    mixed = con.sql(
        "select q.date, q.rows, t.n from data_quality q left join (select venue, symbol, date, count(*) as n from tape group by all) t using (venue, symbol, date) "
        "where q.rows is distinct from t.n"
    ).fetchall()
    assert mixed == []
    con.close()


@pytest.mark.parametrize("arguments", [("demo", "--small"), ("ingest", "--simulate", "2")], ids=["demo", "ingest"])
def test_killed_anywhere(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    # the first run may compile; the ones after it say how long a run in a fresh folder takes, and one over what is there
    first = run_mm(tmp_path, *arguments, check=False)
    assert first.returncode in (0, 1), first.stderr
    fresh_s = seconds(tmp_path / "timed", first.returncode, *arguments)
    repeated_s = seconds(tmp_path / "timed", first.returncode, *arguments)
    rng = random.Random(1)
    hit = 0
    for n in range(KILLS):
        home = tmp_path if n % 2 else tmp_path / f"fresh{n}"
        home.mkdir(exist_ok=True)
        hit += kill_at(home, rng.uniform(0.15, 0.9) * (repeated_s if n % 2 else fresh_s), *arguments)
        if (home / ".mm" / "lake").exists():
            every_view_answers(home / ".mm" / "lake")
        repeated_s = seconds(home, first.returncode, *arguments)
        every_view_answers(home / ".mm" / "lake")
    # a run that ended before its kill proves nothing
    assert hit >= max(1, KILLS // 3)
