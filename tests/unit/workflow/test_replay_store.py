"""Replays in the lake: what was written is what is read, all of it or nothing, in bounded memory."""

from __future__ import annotations

import errno
import json
import math
from dataclasses import fields, replace

import duckdb
import numpy as np
import pytest
from builders import SPEC, T0, decision_params, random_tape

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import MAKER_LOTS, TAKER_LOTS
from mm_platform.lake.catalog import connect
from mm_platform.lake.store import Lake
from mm_platform.lake.writer import TableWriter
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.order_table import ACTIONS, OUTCOMES, OrderTable
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import RunOptions, ScheduledParameters, SetInput, VenueInput, replay, replay_many
from mm_platform.replay.sample_table import SampleTable
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import mid_path
from mm_platform.tape.features import compute_features
from mm_platform.workflow import replay_store
from mm_platform.workflow.replay_store import ReplayStore, RunRow, keep_run, keep_sweep, run_id, run_row

RUN = run_id("a test")
MIDNIGHT = T0 // NS_PER_DAY * NS_PER_DAY + NS_PER_DAY


@pytest.fixture
def lake(tmp_path):
    return Lake.open(tmp_path / "lake")


@pytest.fixture(scope="module")
def tape():
    return random_tape(20_000, 3)


@pytest.fixture(scope="module")
def result(tape) -> ReplayResult:
    features = compute_features(tape, NS_PER_S)
    entry = ScheduledParameters(int(features.grid_ts[0]), decision_params(threshold=0.02))
    return replay(tape, features, [entry], ReplaySettings(sample_every=5))


def some_fills(sets: int, each: int, *, from_ns: int = T0, step_ns: int = NS_PER_MS, seed: int = 0) -> FillTable:
    """Executions of `sets` sets, interleaved in time; sizes and queues at random."""
    rng = np.random.default_rng(seed)
    n = sets * each
    ts = from_ns + np.arange(n) * step_ns
    side = rng.choice([-1, 1], n)
    front = np.where(rng.random(n) < 0.2, math.nan, rng.exponential(50.0, n))
    columns = {
        "set_no": np.arange(n) % sets,
        "venue_no": np.zeros(n),
        "exch_ts": ts,
        "local_ts": ts + 10 * NS_PER_MS,
        "order_id": np.arange(n) // sets + 1,
        "side": side,
        "price_ticks": 500_000 + rng.integers(-50, 50, n),
        "lots": rng.integers(1, 30, n),
        "leaves_lots": np.zeros(n),
        "maker": rng.integers(0, 2, n),
        "purpose": rng.integers(0, 3, n),
        "mid_half_ticks": 1_000_000 + rng.integers(-99, 99, n),
        "fee_nano": rng.integers(-(10**9), 10**9, n),
        "position_lots": rng.integers(-100, 100, n),
        "arrived_ns": ts - rng.integers(1, 10**9, n),
        "decided_mid_half_ticks": 1_000_000 + rng.integers(-99, 99, n),
    }
    return FillTable(front_arrival_lots=front, front_fill_lots=front / 3, **{name: column.astype(np.int64) for name, column in columns.items()})


def some_row(set_no: int = 0, **changes) -> RunRow:
    words: dict[str, object] = {"int": 0, "float": 0.0, "str": "", "bool": False}
    values = {f.name: words[f.type] for f in fields(RunRow) if f.type in words}
    values |= {"set_no": set_no, "parameters": {"gamma": 0.1 + set_no}, "settings": {}, "from_ns": T0, "through_ns": T0 + NS_PER_S, **changes}
    return RunRow(**values)


def test_a_run_reads_back_as_it_was(lake, tape, result):
    mids = mid_path(tape)
    row = run_row(result, parameters={"gamma": 0.1, "threshold": math.inf}, capital_quote=1e5, mids=mids, tape=tape)
    files = keep_run(lake, result, row, RUN)
    assert sorted(f.name for f in files) == [f"part-{RUN}.parquet"] * 3
    assert len(result.fills) > 20
    con = connect(lake.root)
    n, lots, fees, buys = con.sql(
        f"SELECT count(*), sum(qty_lots), sum(fee_nano), sum(side * qty_lots) FROM replay_fills WHERE run_id = '{RUN}'"
    ).fetchall()[0]
    runs = con.sql("SELECT * FROM replay_runs")
    told = dict(zip(runs.columns, runs.fetchall()[0], strict=True))
    assert n == told["maker_fills"] + told["taker_fills"] == len(result.fills)
    assert lots == told["filled_lots"] == result.ledger[MAKER_LOTS] + result.ledger[TAKER_LOTS]
    assert fees * 1e-9 == pytest.approx(told["fees"], abs=1e-9)
    assert buys * SPEC.lot_base == pytest.approx(told["final_inventory"])
    assert told["total_pnl"] == result.attribution.total_pnl
    assert told["total_pnl"] == pytest.approx(told["spread_pnl"] + told["hedge_pnl"] + told["inventory_pnl"] - told["fees"] + told["funding"])
    last = con.sql("SELECT equity, position_lots FROM replay_equity ORDER BY ts_ns DESC LIMIT 1").fetchall()[0]
    assert last[0] == pytest.approx(told["total_pnl"])
    assert last[1] * SPEC.lot_base == pytest.approx(told["final_inventory"])
    assert con.sql("SELECT max(ts) FROM replay_equity").fetchall()[0][0] >= con.sql("SELECT max(ts) FROM replay_fills").fetchall()[0][0]
    statistics = json.loads(told["statistics_json"])
    assert sum(b["maker_quanta"] + b["taker_quanta"] for b in statistics["inventory_buckets"]) == result.ledger[4]
    assert json.loads(told["parameters_json"]) == {"gamma": 0.1, "threshold": None}
    assert json.loads(told["assumptions_json"])["venues"][0]["queue_model"] == "risk_adverse" == told["queue_model"]


def test_every_fill_column_comes_back(lake):
    fills = some_fills(3, 500)
    with ReplayStore(lake, SPEC, RUN) as store:
        for lo in range(0, len(fills), 170):  # pieces cut anywhere
            store.write_fills(FillTable(**{name: column[lo : lo + 170] for name, column in fills.columns().items()}))
        store.finish([some_row()])
    read = connect(lake.root).sql("SELECT * FROM replay_fills").fetchnumpy()
    for name, column in fills.columns().items():
        stored = read["qty_lots" if name == "lots" else name]
        if name.startswith("front_"):
            queued = np.where(fills.maker == 1, column, math.nan)  # takers have no queue
            assert np.array_equal(np.ma.filled(stored, math.nan), queued, equal_nan=True), name
        else:
            assert np.array_equal(stored, column), name


def test_buffers_may_be_filled_again_at_once(lake):
    fills = some_fills(1, 1_000)
    buffer = FillTable(**{name: column.copy() for name, column in fills.columns().items()})
    with ReplayStore(lake, SPEC, RUN) as store:
        store.write_fills(buffer)
        for column in buffer.columns().values():
            column[:] = 0
        store.finish([some_row()])
    assert connect(lake.root).sql("SELECT sum(qty_lots) FROM replay_fills").fetchall()[0] == (int(fills.lots.sum()),)


def test_a_day_ends_at_midnight_of_the_local_clock(lake):
    fills = some_fills(1, 100, from_ns=MIDNIGHT - 50 * NS_PER_MS)  # local times run 10 ms behind the venue's
    n = 10
    ts = MIDNIGHT - 5 * NS_PER_S + np.arange(n) * NS_PER_S
    samples = SampleTable.of_one_set(ts, np.arange(n) * 1.0, np.arange(n), np.full(n, 7))
    with ReplayStore(lake, SPEC, RUN) as store:
        store.write_fills(fills)
        store.write_samples(samples)
        files = store.finish([some_row(through_ns=MIDNIGHT + NS_PER_S)])
    assert len(files) == 5
    con = connect(lake.root)
    assert con.sql("SELECT count(*) FROM replay_fills GROUP BY date ORDER BY date").fetchall() == [(40,), (60,)]
    assert con.sql("SELECT count(*) FROM replay_equity GROUP BY date ORDER BY date").fetchall() == [(5,), (5,)]
    assert con.sql("SELECT count(*) FROM replay_runs").fetchall()[0] == (1,)


def test_nothing_is_seen_of_a_run_that_broke_off(lake):
    def broken_off() -> None:
        with ReplayStore(lake, SPEC, RUN) as store:
            store.write_fills(some_fills(2, 100))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    con = connect(lake.root)
    assert con.sql("SELECT count(*) FROM replay_fills").fetchall()[0] == (0,)
    assert [p for p in lake.root.rglob("*.tmp") if p.is_file()] == []


def test_what_the_writing_thread_refuses_is_raised(lake, monkeypatch):
    fills = some_fills(1, 10)
    with ReplayStore(lake, SPEC, RUN) as store, pytest.raises(DataError, match="column side: values from -1 to 300 do not fit int8"):
        store.write_fills(replace(fills, side=np.where(np.arange(10) == 3, 300, fills.side)))

    def full(writer: TableWriter, data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TableWriter, "write", full)
    with ReplayStore(lake, SPEC, RUN) as store:
        store.write_fills(fills)  # the thread's failure is ours at the next call
        with pytest.raises(OSError, match="No space left"):
            store.finish([some_row()])
    assert lake.partitions("replay_fills") == []


def test_a_run_again_replaces_itself_and_leaves_others(lake):
    other = run_id("another")
    for run, n in ((RUN, 10), (other, 20), (RUN, 30)):
        with ReplayStore(lake, SPEC, run) as store:
            store.write_fills(some_fills(1, n))
            store.finish([some_row(total_pnl=float(n))])
    con = connect(lake.root)
    assert con.sql("SELECT run_id, total_pnl FROM replay_runs ORDER BY total_pnl").fetchall() == [(other, 20.0), (RUN, 30.0)]
    assert con.sql(f"SELECT count(*) FROM replay_fills WHERE run_id = '{RUN}'").fetchall()[0] == (30,)


def test_a_sweep_streams_its_fills_and_orders(lake, tape):
    """What the sinks got is what the sets report, with one thread and with two."""
    features = compute_features(tape, NS_PER_S)
    start = int(features.grid_ts[0])
    sets = [SetInput([ScheduledParameters(start, decision_params(gamma=gamma, threshold=0.02))]) for gamma in (0.05, 0.1, 0.15)]
    venue = VenueInput(tape, features, ReplaySettings(sample_every=5, order_log=True))
    whole = replay_many([venue], sets)
    for threads in (1, 2):
        run = run_id("sweep", str(threads))
        with ReplayStore(lake, SPEC, run) as store:
            options = RunOptions(threads=threads, fill_sink=store.write_fills, order_sink=store.write_orders)
            results = replay_many([venue], sets, options=options)
            assert not any(r.has_fills for r in results)
            keep_sweep(store, results, [run_row(r, parameters={}, capital_quote=1e5) for r in results])
        con = connect(lake.root)
        told = con.sql(f"SELECT set_no, maker_fills + taker_fills, filled_lots, volume, total_pnl FROM replay_runs WHERE run_id = '{run}' ORDER BY 1")
        found = con.sql(f"SELECT set_no, count(*), sum(qty_lots) FROM replay_fills WHERE run_id = '{run}' GROUP BY 1 ORDER BY 1").fetchall()
        asked = con.sql(f"SELECT count(*) FROM replay_orders WHERE run_id = '{run}' GROUP BY set_no ORDER BY set_no").fetchall()
        for one, (set_no, fills, lots, volume, pnl), (_, rows, summed), (requests,) in zip(whole, told.fetchall(), found, asked, strict=True):
            assert set_no == one.set_no
            assert len(one.fills) == fills == rows > 10
            assert lots == summed == int(one.fills.lots.sum())
            assert volume == pytest.approx(one.volume_quote(), rel=1e-9)
            assert pnl == one.total_pnl
            assert requests == len(one.orders)


def test_rows_are_one_per_set(lake):
    with ReplayStore(lake, SPEC, RUN) as store:
        with pytest.raises(ConfigError, match=r"got 2 row\(s\) of 1 set\(s\)"):
            store.finish([some_row(1), some_row(1)])
        with pytest.raises(ConfigError, match=r"got 0 row\(s\)"):
            store.finish([])
        store.write_fills(some_fills(2, 5))
        store.finish([some_row(0), some_row(1)])
    joined = "SELECT r.set_no, count(*) FROM replay_runs r JOIN replay_fills f USING (run_id, set_no) GROUP BY ALL ORDER BY ALL"
    assert connect(lake.root).sql(joined).fetchall() == [(0, 5), (1, 5)]


def test_orders_are_numbered_within_their_set(lake):
    n = 12
    sets = np.arange(n) % 2
    zero = np.zeros(n, dtype=np.int64)
    sent = T0 + np.arange(n) * NS_PER_MS
    orders = OrderTable(
        set_no=sets,
        venue_no=zero,
        order_id=np.arange(n) // 4 + 1,
        action=np.where(np.arange(n) % 4 < 2, ACTIONS.index("place"), ACTIONS.index("cancel")),
        side=zero + 1,
        price_ticks=zero + 500,
        lots=zero + 3,
        tif=zero + 1,
        order_type=zero,
        purpose=zero,
        sent_ns=sent,
        arrived_ns=sent + 5 * NS_PER_MS,
        answered_ns=np.where(np.arange(n) == n - 1, -1, sent + 10 * NS_PER_MS),
        outcome=zero + OUTCOMES.index("resting"),
    )
    with ReplayStore(lake, SPEC, RUN) as store:
        for half in (slice(0, 5), slice(5, n)):
            store.write_orders(OrderTable(**{name: column[half] for name, column in orders.columns().items()}))
        store.finish([some_row(orders_logged=True)])
    rows = connect(lake.root).sql("SELECT set_no, request_no, answered_ns < 0 FROM replay_orders ORDER BY sent_ns").fetchall()
    assert rows == [(k % 2, k // 2, k == n - 1) for k in range(n)]


def test_memory_does_not_grow_with_the_run(lake, monkeypatch):
    most = 0
    fills = some_fills(4, 2_500)

    class Watched(ReplayStore):
        def _encode(self, table, day, columns):
            nonlocal most
            super()._encode(table, day, columns)
            most = max(most, len(self._waiting))

    monkeypatch.setattr(replay_store, "_PIECE_ROWS", 1_000)
    with Watched(lake, SPEC, RUN) as store:
        for _ in range(20):
            store.write_fills(fills)
        store.finish([some_row()])
    assert most <= 2
    assert connect(lake.root).sql("SELECT count(*) FROM replay_fills").fetchall()[0] == (200_000,)


def test_a_name_tells_everything_that_decides_a_result(monkeypatch):
    assert run_id("a", "b") == run_id("a", b"b")
    assert len({run_id("a", "b"), run_id("ab"), run_id("a", "b", ""), run_id("b", "a")}) == 4
    before = run_id("a")
    monkeypatch.setattr(replay_store, "code_version", lambda: "other code")
    assert run_id("a") != before


def test_views_say_what_columns_mean(lake):
    con: duckdb.DuckDBPyConnection = connect(lake.root)
    (comment,) = con.sql("SELECT comment FROM duckdb_columns() WHERE table_name = 'replay_fills' AND column_name = 'front_arrival_lots'").fetchall()[
        0
    ]
    assert comment.endswith("[lot]")
