"""The runner as the command line starts it: simulated market, lake, journal and lock on a real disk; and killed at a random moment."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from parameter_sets import parameter_set
from runner_world import MemoryLog, MemoryRegistry, published, write_public_key

from mm_platform.config import Settings, load_settings
from mm_platform.core.errors import ConfigError, ConnectivityError, DataError, RegistryError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import NS_PER_S, day_start_ns
from mm_platform.lake.catalog import connect
from mm_platform.lake.store import Lake
from mm_platform.live.disk import sole_runner
from mm_platform.live.journal import read_journal, replay_journal
from mm_platform.tape.book_path import book_at
from mm_platform.tape.layout import Kind
from mm_platform.tape.simulate import SIM_PERP, SIM_SPOT
from mm_platform.workflow.ingest import ingest_simulated
from mm_platform.workflow.live import depth_book, journal_path, run_live
from mm_platform.workflow.tapes import load_tape

SCRIPT = Path(__file__).parents[1] / "run_sim.py"
PERP = InstrumentId.parse(SIM_PERP.instrument)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load_settings(None, {"state_dir": tmp_path / "state", "lake": tmp_path / "lake"}, environ={}, cwd=tmp_path)
    write_public_key(found.public_key)
    return found


def champion(settings: Settings, **changes: object) -> MemoryRegistry:
    start = day_start_ns(settings.simulate.start)
    defaults: dict[str, object] = {"k": 20_000.0, "order_notional": 500.0, "min_spread": 0.0001, "hedge_threshold_notional": 700.0}
    pset = parameter_set(SIM_PERP, 74_000.0, fitted_through_ns=start - 3_600 * NS_PER_S, **(defaults | changes))  # type: ignore[arg-type]
    return MemoryRegistry(published(pset))


def test_fills_land_in_the_lake_and_the_journal_proves_the_run(settings: Settings) -> None:
    summary = run_live(settings, duration_s=900.0, run_id="a", parameters=champion(settings), log=MemoryLog())
    assert summary.decisions == 900
    assert summary.maker_fills > 20
    assert summary.taker_fills > 0
    rows = (
        connect(settings.lake)
        .execute("SELECT count(*), sum(fee_quote), count(markout_1s_bps), min(mode) FROM live_fills WHERE run_id = 'a'")
        .fetchone()
    )
    assert rows is not None
    assert rows[0] == summary.fills
    assert rows[1] == pytest.approx(summary.pnl.fees, abs=1e-9)
    assert rows[2] > 0.9 * summary.fills
    assert rows[3] == "sim"
    assert summary.markouts_bps[5] is not None
    assert summary.markouts_bps[5] < 0.0  # the simulated market's informed flow, as in life
    replayed = replay_journal(Path(summary.journal))
    assert replayed.differs_at == -1
    assert "P&L" in summary.text()


def test_a_second_run_adds_to_the_same_day(settings: Settings) -> None:
    a = run_live(settings, duration_s=300.0, run_id="a", parameters=champion(settings), log=MemoryLog())
    b = run_live(settings, duration_s=300.0, run_id="b", parameters=champion(settings), log=MemoryLog())
    assert (a.fills, a.total_pnl) == (b.fills, b.total_pnl)
    counted = connect(settings.lake).execute("SELECT run_id, count(*) FROM live_fills GROUP BY ALL ORDER BY ALL").fetchall()
    assert counted == [("a", a.fills), ("b", b.fills)]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"mode": "live"}, "mode 'live' is not available; choose sim"),
        ({"source": "yesterday"}, "simulated or tape"),
        ({"clock": "sundial"}, "fast or real"),
        ({"duration_s": 0.0}, "duration"),
        ({"instrument": "binance:BTC-USDT"}, "not in the simulated market"),
        ({"run_id": "no good"}, "letters, digits"),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments: dict[str, object], what: str, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=what):
        run_live(settings, parameters=champion(settings), log=MemoryLog(), **arguments)  # type: ignore[arg-type]


def test_no_registry_yet(settings: Settings) -> None:
    with pytest.raises(RegistryError, match="nothing was published there yet"):
        run_live(settings, log=MemoryLog())


def test_no_public_key(tmp_path: Path) -> None:
    bare = load_settings(None, {"state_dir": tmp_path / "state", "lake": tmp_path / "lake"}, environ={}, cwd=tmp_path)
    with pytest.raises(RegistryError, match="no public key"):
        run_live(bare, parameters=champion(bare), log=MemoryLog())


def test_no_tape(settings: Settings) -> None:
    with pytest.raises(DataError, match="no complete day in the lake"):
        run_live(settings, source="tape", parameters=champion(settings), log=MemoryLog())


@pytest.fixture(scope="module")
def lake_with_a_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One day of the simulated market, ingested."""
    root = tmp_path_factory.mktemp("lake")
    found = load_settings(None, {"state_dir": root / "state", "lake": root / "lake"}, environ={}, cwd=root)
    ingest_simulated(Lake.open(found.lake), 1, found.seed, found.simulate.start)
    return root / "lake"


def test_the_lakes_tape_is_run_and_said_to_prove_nothing(lake_with_a_day: Path, tmp_path: Path) -> None:
    settings = load_settings(None, {"state_dir": tmp_path / "state", "lake": lake_with_a_day}, environ={}, cwd=tmp_path)
    write_public_key(settings.public_key)
    midnight = day_start_ns(settings.simulate.start)
    seen = parameter_set(SIM_PERP, 74_000.0, k=20_000.0, order_notional=500.0, min_spread=0.0001, fitted_through_ns=midnight + 86_400 * NS_PER_S)
    registry = MemoryRegistry(published(seen))
    last = run_live(settings, source="tape", duration_s=600.0, run_id="last", parameters=registry, log=MemoryLog())
    assert last.decisions in (599, 600)
    assert last.seen_by_fit
    assert "proves nothing" in last.text()
    assert last.maker_fills > 0
    given = midnight + 7 * 3_600 * NS_PER_S
    some = run_live(settings, source="tape", duration_s=600.0, start_ns=given, run_id="some", parameters=registry, log=MemoryLog())
    assert some.started_at_ns == given
    assert some.decisions == 600
    assert some.stopped == "duration"
    with pytest.raises(DataError, match="lies on no complete day"):
        run_live(settings, source="tape", start_ns=midnight - NS_PER_S, parameters=registry, log=MemoryLog())
    # a simulated run goes on where the lake ends
    fresh = run_live(settings, duration_s=30.0, run_id="next", parameters=registry, log=MemoryLog())
    assert fresh.started_at_ns == midnight + 86_401 * NS_PER_S
    assert not fresh.seen_by_fit


def test_the_book_at_the_start_of_a_stretch_is_the_venues(lake_with_a_day: Path) -> None:
    tape = load_tape(Lake.open(lake_with_a_day), PERP)
    # where no best quote runs ahead of the depth both ways of getting there agree to the last level
    calm = dataclasses.replace(tape, kind=np.where(tape.kind == Kind.TOP, Kind.STATUS, tape.kind).astype(np.int8))
    for rows in (5_000, 100_000, len(tape) - 10):
        while calm.exch_ts[rows] == calm.exch_ts[rows - 1]:
            rows += 1
        quick, walked = depth_book(calm, rows), book_at(calm, int(calm.exch_ts[rows]))
        for name in ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots"):
            assert getattr(quick, name).tolist() == getattr(walked, name).tolist()
        assert quick.seq == walked.seq


def test_registry_gone_between_runs(settings: Settings) -> None:
    run_live(settings, duration_s=5.0, parameters=champion(settings), log=MemoryLog())
    again = run_live(settings, duration_s=60.0, parameters=MemoryRegistry(ConnectivityError("connection refused")), log=MemoryLog())
    assert again.decisions == 60


def test_second_runner_refused(settings: Settings) -> None:
    with (
        sole_runner(settings.state_dir / "live" / f"{PERP.venue}.{PERP.symbol}.lock", str(PERP)),
        pytest.raises(ConfigError, match="already at work"),
    ):
        run_live(settings, duration_s=5.0, parameters=champion(settings), log=MemoryLog())


def test_spot_runs_too(settings: Settings) -> None:
    start = day_start_ns(settings.simulate.start)
    pset = parameter_set(SIM_SPOT, 74_000.0, k=20_000.0, order_notional=500.0, min_spread=0.0002, fitted_through_ns=start - 3_600 * NS_PER_S)
    summary = run_live(settings, SIM_SPOT.instrument, duration_s=120.0, parameters=MemoryRegistry(published(pset)), log=MemoryLog())
    assert summary.decisions == 120
    assert summary.orders > 0


def test_real_clock_stops_on_request(settings: Settings) -> None:
    stop = threading.Event()
    threading.Timer(2.0, stop.set).start()
    summary = run_live(settings, duration_s=3_600.0, clock="real", parameters=champion(settings), log=MemoryLog(), stop=stop)
    assert summary.stopped == "interrupted"
    assert 0 < summary.decisions < 30
    assert summary.orders_left == 0


def _start(root: Path, run_id: str, duration_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(root), str(duration_s), run_id], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _grown(path: Path, size: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size >= size:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    pytest.fail(f"journal {path} did not reach {size} bytes in 60 s")


def test_killed_at_a_random_moment(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    for n in range(3):
        path = journal_path(settings, PERP, f"k{n}")
        process = _start(tmp_path, f"k{n}", 80_000.0)
        try:
            _grown(path, int(rng.integers(20_000, 3_000_000)), process)
            # the lock is held by that process: this one is refused
            if n == 0:
                with pytest.raises(ConfigError, match=f"process {process.pid}"):
                    run_live(settings, duration_s=5.0, parameters=champion(settings), log=MemoryLog())
        finally:
            process.kill()
            process.communicate()
        journal = read_journal(path)
        assert len(journal.steps) > 50
        assert replay_journal(path).differs_at == -1
        Lake.open(settings.lake)
        counted = connect(settings.lake).execute("SELECT count(*) FROM live_fills").fetchone()
        assert counted is not None
        assert counted[0] >= 0
    after = run_live(settings, duration_s=60.0, run_id="after", parameters=champion(settings), log=MemoryLog())
    assert after.decisions == 60


def test_interrupt_ends_cleanly(settings: Settings, tmp_path: Path) -> None:
    process = _start(tmp_path, "int", 80_000.0)
    _grown(journal_path(settings, PERP, "int"), 200_000, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert '"fills"' in out
    path = journal_path(settings, PERP, "int")
    assert read_journal(path).torn_bytes == 0
    assert replay_journal(path).differs_at == -1
