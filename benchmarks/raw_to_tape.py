"""Speed and memory of the ingest: raw captures to tape, one core, gzip in, Parquet out, book rebuilt and checked. Prints one JSON object.

    python benchmarks/raw_to_tape.py CAPTURES [...] [--runs 3]     lines per second of CPU and wall time (kernels compiled before)
    python benchmarks/raw_to_tape.py --day-rows 20000000           peak memory of a generated day with at least so many tape rows

Both run in a process of their own, pinned to one core where the system allows it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mm_platform.core.units import NS_PER_MS, NS_PER_S, SECONDS_PER_DAY, day_start_ns
from mm_platform.lake.store import Lake
from mm_platform.workflow.ingest import ingest

DAY = date(2024, 7, 19)
LEVELS = 12
# rows per generated update: its levels, and a best quote of two
ROWS_PER_UPDATE = LEVELS + 2


def pin() -> None:
    """Run on one core only."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def parse_only(paths: list[Path]) -> float:
    """Baseline: CPU seconds in which the standard library unpacks and parses the same lines and does nothing with them."""
    cpu = time.process_time()
    for path in paths:
        with gzip.open(path, "rb") as file:
            for line in file:
                json.loads(line.partition(b" ")[2])
    return time.process_time() - cpu


def speed(paths: list[Path], runs: int) -> dict[str, Any]:
    """Ingest all files into an empty lake, `runs` times after one that compiles; the best and all of them."""
    pin()
    timed = []
    quality: list[Any] = []
    for run in range(runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            lake = Lake.open(Path(folder) / "lake")
            wall, cpu = time.perf_counter(), time.process_time()
            quality = ingest(lake, paths, None).partitions
            if run:
                timed.append((time.process_time() - cpu, time.perf_counter() - wall))
    baseline = parse_only(paths)
    lines = sum(p.lines for p in quality)
    cpu_s, wall_s = min(timed)
    compared = sum(p.top_of_book_compared for p in quality)
    equal = sum(round((p.top_of_book_match_frac or 0.0) * p.top_of_book_compared) for p in quality)
    return {
        "lines": lines,
        "tape_rows": sum(p.rows for p in quality),
        "lines_per_cpu_s": round(lines / cpu_s),
        "lines_per_wall_s": round(lines / wall_s),
        "stdlib_parse_only_cpu_s": round(baseline, 3),
        "cpu_over_stdlib_parse_only": round(cpu_s / baseline, 2),
        "cpu_s": [round(c, 3) for c, _ in timed],
        "wall_s": [round(w, 3) for _, w in timed],
        "bad_lines": sum(p.bad_lines for p in quality),
        "sequence_breaks": sum(p.sequence_breaks for p in quality),
        "crossed_books": sum(p.crossed_books for p in quality),
        "top_of_book_equal": equal,
        "top_of_book_compared": compared,
        "peak_mib": round(peak_mib(), 1),
    }


def generated_day(rows: int) -> Iterator[bytes]:
    """Lines of a USD-M capture of one day with at least `rows` tape rows: a random walk with depth, best quotes and a trade now and then."""
    rng = np.random.default_rng(1)
    updates = -(-rows // ROWS_PER_UPDATE)
    start_ns, step_ns = day_start_ns(DAY) + NS_PER_S, (SECONDS_PER_DAY - 10) * NS_PER_S // updates
    mid = 640_000
    levels = (
        ",".join(f'["{(mid - 1 - i) / 10:.1f}","1.000"]' for i in range(1000)),
        ",".join(f'["{(mid + 1 + i) / 10:.1f}","1.000"]' for i in range(1000)),
    )
    ms = start_ns // NS_PER_MS
    yield f'{start_ns} {{"lastUpdateId":1,"E":{ms},"T":{ms},"bids":[{levels[0]}],"asks":[{levels[1]}]}}\n'.encode()
    far = np.arange(1, LEVELS // 2)
    for i in range(updates):
        at_ns = start_ns + (i + 1) * step_ns
        ms = at_ns // NS_PER_MS
        move = int(rng.integers(-1, 2))
        bid_qty, ask_qty = rng.integers(1, 9_999, 2)
        bids = [f'["{(mid + move - 1) / 10:.1f}","{bid_qty / 1000:.3f}"]'] + [
            f'["{(mid + move - 1 - d) / 10:.1f}","{(bid_qty + d) / 1000:.3f}"]' for d in far
        ]
        asks = [f'["{(mid + move + 1) / 10:.1f}","{ask_qty / 1000:.3f}"]'] + [
            f'["{(mid + move + 1 + d) / 10:.1f}","{(ask_qty + d) / 1000:.3f}"]' for d in far
        ]
        # the levels the mid has moved past are gone
        if move > 0:
            asks[-1] = f'["{(mid + 1) / 10:.1f}","0.000"]'
        elif move < 0:
            bids[-1] = f'["{(mid - 1) / 10:.1f}","0.000"]'
        mid += move
        stamp = f'"E":{ms},"T":{ms},"s":"BTCUSDT"'
        got = at_ns + 8 * NS_PER_MS
        yield (
            f'{got} {{"stream":"btcusdt@depth@0ms","data":{{"e":"depthUpdate",{stamp},"U":{i + 2},"u":{i + 2},"pu":{i + 1},"b":[{",".join(bids)}],"a":[{",".join(asks)}]}}}}\n'
            f'{got + 1000} {{"stream":"btcusdt@bookTicker","data":{{"e":"bookTicker",{stamp},"u":{i + 2},"b":"{(mid - 1) / 10:.1f}","B":"{bid_qty / 1000:.3f}",'
            f'"a":"{(mid + 1) / 10:.1f}","A":"{ask_qty / 1000:.3f}"}}}}\n'
        ).encode()
        if i % 8 == 0:
            yield f'{got + 2000} {{"stream":"btcusdt@trade","data":{{"e":"trade",{stamp},"t":{i // 8 + 1},"p":"{(mid + 1) / 10:.1f}","q":"0.010","X":"MARKET","m":false}}}}\n'.encode()


def memory(rows: int, folder: str) -> dict[str, Any]:
    """Peak memory of ingesting the day that `folder` holds."""
    pin()
    before = peak_mib()
    lake = Lake.open(Path(folder) / "lake")
    wall = time.perf_counter()
    (quality,) = ingest(lake, [Path(folder) / "day.gz"], None).partitions
    return {
        "tape_rows": quality.rows,
        "asked_rows": rows,
        "lines": quality.lines,
        "peak_mib": round(peak_mib(), 1),
        "before_mib": round(before, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "top_of_book_match_frac": quality.top_of_book_match_frac,
        "verdict": quality.verdict,
    }


def apart(fn: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Run a function in a fresh process, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(fn, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--day-rows", type=int, default=0)
    args = parser.parse_args()
    if not args.captures and not args.day_rows:
        parser.error("give captures, or --day-rows")
    result: dict[str, Any] = {}
    if args.captures:
        result["speed"] = apart(speed, args.captures, args.runs)
    if args.day_rows:
        with tempfile.TemporaryDirectory() as folder:
            with gzip.open(Path(folder) / "day.gz", "wb", compresslevel=1) as out:
                for line in generated_day(args.day_rows):
                    out.write(line)
            result["memory"] = apart(memory, args.day_rows, folder)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
