"""How fast a sweep's results go into the lake: synthetic fills and samples of many sets through `workflow.replay_store`.

    python benchmarks/replay_store.py --rows 56000000 --sets 1000

Prints one JSON object: rows per second (wall and processor), growth of the resident set, bytes per row on disk, and how long DuckDB takes to
sum the fills up again. The rows look like a sweep's: about twenty sets fill at the same instant and price.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import numpy as np

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_S
from mm_platform.lake.catalog import connect
from mm_platform.lake.store import Lake
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.sample_table import SampleTable
from mm_platform.workflow.replay_store import ReplayStore, RunRow, run_id

SPEC = InstrumentSpec(
    instrument="sim:BTC-USDT-PERP",
    tick_size="0.1",
    lot_size="0.001",
    contract="linear",
    maker_fee=0.0001,
    taker_fee=0.0004,
    funding_interval_s=28_800,
)
START_NS = 1_767_225_600 * NS_PER_S
DAY_S = 86_000
SETS_PER_EVENT = 20
SAMPLES_PER_SET = 1_440


def piece(rng: np.random.Generator, rows: int, sets: int, number: int, pieces: int) -> FillTable:
    """Fills of one stretch of the day, in order of time."""
    events = rows // SETS_PER_EVENT
    span_ns = DAY_S * NS_PER_S // pieces

    def each(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return np.repeat(values, SETS_PER_EVENT)

    ts = each(np.sort(rng.integers(0, span_ns, events)) + START_NS + number * span_ns)
    n = len(ts)
    mid = each(1_200_000 + np.cumsum(rng.integers(-2, 3, events)))
    side = each(rng.choice(np.array([-1, 1]), events))
    front = np.repeat(np.round(rng.exponential(500.0, events)), SETS_PER_EVENT)
    zero = np.zeros(n, dtype=np.int64)
    return FillTable(
        set_no=np.sort(rng.integers(0, sets, (events, SETS_PER_EVENT)), axis=1).ravel(),
        venue_no=zero,
        exch_ts=ts,
        local_ts=ts + 10_000_000,
        order_id=rng.integers(0, 100, n) + number * 8_640,
        side=side,
        price_ticks=mid // 2 - side,
        lots=zero + 10,
        leaves_lots=zero,
        maker=zero + 1,
        purpose=zero,
        mid_half_ticks=mid,
        fee_nano=mid * 37,
        position_lots=rng.integers(-100, 100, n) * 10,
        arrived_ns=ts - rng.integers(0, 600, n) * 100_000_000 - 90_000_000,
        front_arrival_lots=front,
        front_fill_lots=np.full(n, -1.0),
        decided_mid_half_ticks=mid + rng.integers(-3, 4, n),
    )


def row(set_no: int) -> RunRow:
    """A row of zeros."""
    nothing: dict[str, object] = {"int": 0, "float": 0.0, "str": "", "bool": False}
    given = {f.name: nothing[str(f.type)] for f in fields(RunRow) if f.type in nothing}
    given |= {"set_no": set_no, "parameters": {}, "settings": {}, "from_ns": START_NS, "through_ns": START_NS + DAY_S * NS_PER_S}
    return RunRow(**given)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--sets", type=int, default=1_000)
    parser.add_argument("--piece-rows", type=int, default=1_000_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pieces = max(1, options.rows // options.piece_rows)
    made = [piece(rng, min(options.rows, options.piece_rows), options.sets, k, pieces) for k in range(min(4, pieces))]
    ts = START_NS + np.arange(SAMPLES_PER_SET) * 60 * NS_PER_S
    flat = np.zeros(SAMPLES_PER_SET, dtype=np.int64)
    equity = np.cumsum(rng.normal(size=SAMPLES_PER_SET))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(Path(folder) / "lake")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, processor = time.perf_counter(), time.process_time()
        with ReplayStore(lake, SPEC, run_id("benchmark")) as store:
            for k in range(pieces):
                store.write_fills(made[k % len(made)])
            for set_no in range(options.sets):
                store.write_samples(SampleTable.of_one_set(ts, equity, flat, flat + 1_200_000, set_no=set_no))
            files = store.finish([row(set_no) for set_no in range(options.sets)])
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        rows = store.fills
        read = time.perf_counter()
        counted = connect(lake.root).sql("SELECT count(*), sum(qty_lots) FROM replay_fills").fetchall()[0]
        read = time.perf_counter() - read
        assert counted[0] == rows, (counted, rows)
        report = {
            "fill_rows": rows,
            "sample_rows": options.sets * SAMPLES_PER_SET,
            "wall_s": round(wall, 2),
            "processor_s": round(processor, 2),
            "fill_rows_per_s": round(rows / wall),
            "rss_growth_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
            "bytes_per_fill_row": round(sum(f.stat().st_size for f in files if "replay_fills" in f.parts) / rows, 1),
            "sum_in_duckdb_s": round(read, 2),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
