"""Speed of the replay: one set, 16 and 256 sets of "glft1" over one tape, beside hftbacktest in the same call where its interpreter is given.

    python benchmarks/replay.py --tape day.npy --json --peer /path/to/python-with-hftbacktest

What is timed, on both sides: from the structured array in RAM (hftbacktest's layout) to the fills in memory, everything included. One run of each kind
goes before, untimed (its time is reported apart: compiling, or loading what was compiled); then the sides take turns, `--repeats` times. A ratio is the
peer's median over ours; its spread is that of the ratios turn by turn. Sweeps use two threads here and two processes there, which are forked, with tape and
compiled code, before the clock starts; 256 points are held against 16 times the peer's 16. CPU seconds that others took of the machine meanwhile are
reported as `foreign_cores`.

All fills of the single run are compared (time, side, price, quantity, position after it, order id), and the counts of steps, orders, cancels and fills of every
point of the sweeps. Peak memory is that of a process of its own, less the bytes of the array. `benchmarks/peer_hftbacktest.py` has the strategy in words.

Without `--tape` a simulated day is written in that layout and used; without `--peer` there are our own times alone.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.decode.hftbacktest import check_rows, tape_columns
from mm_platform.kernels.exchange import GTX, MARKET
from mm_platform.kernels.orders import HEDGE, LIVE
from mm_platform.kernels.venue import CANCEL, PLACE
from mm_platform.replay.latency import ConstantLatency
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import RunOptions, ScheduledParameters, SetInput, VenueInput, replay_many
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.strategy import (
    ASK_TICKS,
    BID_TICKS,
    ID,
    KIND,
    LOTS,
    ORDER_ID,
    ORDER_PRICE_TICKS,
    ORDER_TYPE,
    ORDER_VENUE,
    ORDERS_USED,
    PRICE_TICKS,
    PURPOSE,
    SIDE,
    STATUS,
    TIF,
    VENUE,
    VENUE_AT,
    UserStrategy,
)
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import COLUMNS, LAST, Kind, Tape
from mm_platform.tape.messages import Columns

NS_PER_MS = 1_000_000
STEP_NS = 100 * NS_PER_MS
ORDER_QTY = 0.1
MAX_UNITS = 10
HEDGE_UNITS = 2.0
FUNDING_INTERVAL_S = 28_800
SAMPLE_NS = 60_000 * NS_PER_MS
MAKER_FEE, TAKER_FEE = -0.00005, 0.0005
SINGLE = (0.05, 0.6)
# a smaller and a denser grid over the same ranges of risk aversion and intensity decay
GRID_16 = [(gamma, kappa) for gamma in (0.02, 0.05, 0.1, 0.2) for kappa in (0.3, 0.6, 0.9, 1.2)]
GRID_256 = [(float(gamma), float(kappa)) for gamma in np.geomspace(0.02, 0.2, 16) for kappa in np.linspace(0.3, 1.2, 16)]
LATENCIES_MS = [2.0 + 1.5 * i for i in range(16)]
WARM_ROWS = 20_000
PEER = Path(__file__).with_name("peer_hftbacktest.py")


@dataclass(frozen=True)
class Point:
    """One set: parameters, and latency to the venue and back [ns]."""

    gamma: float
    kappa: float
    entry_ns: int
    response_ns: int


@dataclass(frozen=True)
class Job:
    """What both sides run on."""

    tape: Path
    tick: str
    lot: str
    latency_ns: int
    threads: int

    def points(self, grid: Sequence[tuple[float, float]]) -> list[Point]:
        return [Point(gamma, kappa, self.latency_ns, self.latency_ns) for gamma, kappa in grid]

    def own_latencies(self) -> list[Point]:
        return [Point(gamma, kappa, round(ms * NS_PER_MS), round(ms * NS_PER_MS)) for (gamma, kappa), ms in zip(GRID_16, LATENCIES_MS, strict=True)]


# -- measuring ---------------------------------------------------------------------------------------------------------------------------


def machine_cpu_s() -> float | None:
    """CPU seconds that all processes have used so far; None where the system does not say."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except FileNotFoundError:
        return None
    used = [int(word) for word in words]
    return (sum(used) - used[3] - used[4]) / os.sysconf("SC_CLK_TCK")


@dataclass
class Timed:
    """Repetitions of one measurement."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    foreign_cores: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.wall_s)

    def add(self, run: Callable[[], tuple[float, float, Any]]) -> Any:
        """`run` gives the wall and CPU seconds that count, and a result."""
        before, began = machine_cpu_s(), time.perf_counter()
        wall_s, cpu_s, result = run()
        after, took_s = machine_cpu_s(), time.perf_counter() - began
        self.wall_s.append(wall_s)
        self.cpu_s.append(cpu_s)
        if before is not None and after is not None:
            self.foreign_cores.append(max(0.0, (after - before - cpu_s) / took_s))
        return result

    def report(self, name: str) -> dict[str, Any]:
        return {
            f"{name}_s": round(self.median_s, 4),
            f"{name}_all_s": [round(s, 4) for s in self.wall_s],
            f"{name}_cpu_s": round(statistics.median(self.cpu_s), 4),
            f"{name}_foreign_cores": round(max(self.foreign_cores, default=0.0), 2),
        }


def ratio(name: str, peer: Timed, ours: Timed, points: float = 1.0) -> dict[str, Any]:
    """Peer over ours, `points` times the peer's (256 points against 16 times its 16)."""
    by_turn = [points * a / b for a, b in zip(peer.wall_s, ours.wall_s, strict=False)]
    return {name: round(points * peer.median_s / ours.median_s, 2), f"{name}_spread": [round(min(by_turn), 2), round(max(by_turn), 2)]}


def peak_mib() -> float:
    """Largest resident memory of this process since it began its program (what a parent had before is not counted)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory can be measured on Linux only")


# -- the peer ----------------------------------------------------------------------------------------------------------------------------


class Peer:
    """hftbacktest in its own interpreter, on command."""

    def __init__(self, python: Path, job: Job, prices: tuple[float, float]) -> None:
        self._process = subprocess.Popen([str(python), str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self._ask(
            {
                "tape": str(job.tape),
                "warm_rows": WARM_ROWS,
                "point": _peer_point(job.points([SINGLE])[0]),
                "processes": job.threads,
                "maker_fee": MAKER_FEE,
                "taker_fee": TAKER_FEE,
                "tick_size": float(job.tick),
                "lot_size": float(job.lot),
                "low": prices[0],
                "high": prices[1],
                "order_qty": ORDER_QTY,
                "step_ns": STEP_NS,
            }
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def single(self, point: Point, fills_to: Path | None = None) -> tuple[float, float, Any]:
        got = self._ask({"do": "run", "point": _peer_point(point), "fills_to": str(fills_to) if fills_to else None})
        return got["wall_s"], got["cpu_s"], got

    def sweep(self, points: Sequence[Point], hedge_units: float = 0.0) -> tuple[float, float, Any]:
        got = self._ask({"do": "sweep", "points": [_peer_point(p, hedge_units) for p in points]})
        return got["wall_s"], got["cpu_s"], got["results"]

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer stopped with exit code {self._process.wait()}; its own message stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _peer_point(point: Point, hedge_units: float = 0.0) -> list[float]:
    return [point.gamma, point.kappa, point.entry_ns, point.response_ns, hedge_units]


def prices_of(tape: Path, rows: np.ndarray[Any, Any], tick: float) -> tuple[float, float]:
    """Price range for the peer's book: 60.0 beyond the best prices that the tape's maker noted beside it, else beyond all prices of trades."""
    noted = tape.with_suffix(".json")
    margin = 600 * tick
    if noted.exists():
        facts = json.loads(noted.read_text())
        if "low" in facts and "high" in facts:
            return round(facts["low"] - margin, 10), round(facts["high"] + margin, 10)
    traded = rows["px"][(rows["ev"] & 0xFF) == 2]
    priced = traded if len(traded) else rows["px"][np.isfinite(rows["px"])]
    return max(tick, round(float(priced.min()) - 5 * margin, 10)), round(float(priced.max()) + 5 * margin, 10)


# -- our side ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What one of our runs gave: counts per set, and all fills where they were kept."""

    counts: list[dict[str, int]]
    fills: np.ndarray[Any, Any] | None = None
    position_lots: np.ndarray[Any, Any] | None = None


def constants(point: Point) -> tuple[float, float]:
    """c1 and c2 of the strategy (its half spread, and its skew per unit of volatility), in ticks."""
    gamma, kappa = point.gamma, point.kappa
    c1 = (1.0 / gamma) * math.log(1.0 + gamma / kappa)
    c2 = math.sqrt(gamma / (2.0 * kappa) * (1.0 + gamma / kappa) ** (kappa / gamma + 1.0))
    return c1, c2


class Events:
    """The event loop (`replay.run`), which has every feature; "glft1" as a user's strategy of full control.

    It replays our tape: what comes before the clock starts is the conversion of the array; what comes after it, the decision grid and the run.
    """

    def __init__(self, job: Job, rows: np.ndarray[Any, Any]) -> None:
        self.job = job
        self.spec = InstrumentSpec(
            instrument="bench:TAPE-QUOTE-PERP",
            tick_size=job.tick,
            lot_size=job.lot,
            contract="linear",
            maker_fee=MAKER_FEE,
            taker_fee=TAKER_FEE,
            funding_interval_s=FUNDING_INTERVAL_S,
        )
        check = check_rows(rows, self.spec, str(job.tape))
        parts = list(tape_columns(rows, self.spec, check))
        self.columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        self.strategy = UserStrategy(glft1_decides, state_size=6, name="glft1")

    def tape(self, name: str, *, funding: bool) -> Tape:
        """The rows under a name, with funding stamps of their own mid where asked for."""
        columns = self.columns
        if funding:
            columns = _with_funding(columns, float(self.job.tick))
        return Tape.from_columns(replace_spec(self.spec, instrument=f"{name}:TAPE-QUOTE-PERP"), columns)

    def run(self, points: Sequence[Point], *, hedge_units: float = 0.0) -> Callable[[], Outcome]:
        """A run ready to be timed."""
        names = ("quoted", "hedged")[: 2 if hedge_units else 1]
        tapes = [self.tape(name, funding=bool(hedge_units)) for name in names]
        order_lots = round(ORDER_QTY / float(self.job.lot))

        def timed() -> Outcome:
            first_ns = int(tapes[0].exch_ts[0])
            last_ns = max(int(tapes[0].exch_ts[-1]), int(tapes[0].local_ts.max()))
            features = compute_features(tapes[0], STEP_NS, first_ns + STEP_NS, last_ns + 1)
            settings = ReplaySettings(mode="reference", queue_model="log_prob2", partial_fills=False, sample_step_ns=SAMPLE_NS)
            sets = [
                SetInput(
                    [ScheduledParameters(int(features.grid_ts[0]), [*constants(p), order_lots, MAX_UNITS * order_lots, hedge_units * order_lots])],
                    latencies=[ConstantLatency(p.entry_ns, p.response_ns)] * len(tapes),
                )
                for p in points
            ]
            results = replay_many(
                [VenueInput(tape, features, settings) for tape in tapes], sets, strategy=self.strategy, options=RunOptions(threads=self.job.threads)
            )
            return _outcome(results)

        return timed


def replace_spec(spec: InstrumentSpec, **changed: Any) -> InstrumentSpec:
    return InstrumentSpec(**({name: getattr(spec, name) for name in spec.__struct_fields__} | changed))


def _with_funding(columns: Columns, tick: float) -> Columns:
    """A stamp every interval: the venue pays or takes a hundredth of a percent of the position at the price last traded."""
    exch, trades = columns["exch_ts"], np.flatnonzero(columns["kind"] == Kind.TRADE)
    interval = FUNDING_INTERVAL_S * 1_000_000_000
    stamps = np.arange(-(-int(exch[0]) // interval) * interval, int(exch[-1]), interval)
    at = np.searchsorted(exch, stamps)
    stamps, at = stamps[at > trades[0]], at[at > trades[0]]
    added = {name: np.zeros(len(stamps), dtype=dtype) for name, dtype in COLUMNS.items()}
    added["exch_ts"], added["local_ts"], added["seq"] = stamps, np.maximum(stamps, columns["local_ts"][at - 1]), stamps
    added["kind"][:], added["flags"][:], added["value"][:] = Kind.FUNDING, LAST, 1e-4
    added["aux"] = columns["price_ticks"][trades[np.searchsorted(trades, at) - 1]] * tick
    return {name: np.insert(columns[name], at, added[name]) for name in COLUMNS}


def _outcome(results: Sequence[ReplayResult]) -> Outcome:
    counts = []
    for result in results:
        if result.status != "done":
            raise SystemExit(f"set {result.set_no} ended with: {result.status}")
        c = result.counters
        counts.append(
            {
                "steps": c.decisions,
                "sent": c.orders - c.hedges,
                "cancels": c.cancels,
                "fills": int(np.count_nonzero(result.fills.venue_no == 0)),
                "hedges": c.hedges,
            }
        )
    f = results[0].fills.of_venue(0)
    return Outcome(counts, *_in_order(np.column_stack((f.exch_ts, f.side, f.price_ticks, f.order_id, f.lots)), f.position_lots))


def _in_order(fills: np.ndarray[Any, Any], position_lots: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Fills by time and id, with the position after each.

    Fills of one instant have no order of their own (the peer's changes from run to run): the positions within are the running sum, the one after them
    all is the engine's.
    """
    ordered = fills[np.lexsort((fills[:, 3], fills[:, 0]))]
    position = np.cumsum(ordered[:, 1] * ordered[:, 4])
    ends = np.flatnonzero(np.append(np.diff(ordered[:, 0]) != 0, True))[: len(ordered)]
    position[ends] = position_lots[ends]
    return ordered, position


def glft1_decides(view: Any, params: Any, state: Any, position_lots: Any, orders: Any, actions: Any) -> float:
    """ "glft1" over the event loop's state; see `peer_hftbacktest`. State: variance, last mid, 1 once there is one, orders sent, last bid's id, last ask's."""
    if view[VENUE_AT + BID_TICKS] <= 0.0 or view[VENUE_AT + ASK_TICKS] <= 0.0:
        return 0.0
    bid = view[VENUE_AT + BID_TICKS]
    ask = view[VENUE_AT + ASK_TICKS]
    mid = (bid + ask) * 0.5
    if state[2] == 0.0:
        state[0] = 4.0
    else:
        change = mid - state[1]
        state[0] = state[0] + (0.1 / 60.0) * (change * change / 0.1 - state[0])
    state[1] = mid
    state[2] = 1.0
    position = position_lots[0] + position_lots[1]
    skew = params[1] * math.sqrt(state[0])
    half = params[0] + 0.5 * skew
    reservation = mid - skew * (position / params[2])
    n = 0
    hedging = False
    for side in (1, -1):
        if side > 0:
            target = min(math.floor(reservation - half), bid)
            wanted = position < params[3] - 0.5
            last = state[4]
        else:
            target = max(math.ceil(reservation + half), ask)
            wanted = position > -params[3] + 0.5
            last = state[5]
        send = wanted
        for k in range(int(view[ORDERS_USED])):
            if orders[STATUS, k] == 0:
                continue
            if orders[ORDER_VENUE, k] == 1:
                hedging = True
            elif orders[ORDER_ID, k] == last:
                if orders[STATUS, k] != LIVE or (wanted and orders[ORDER_PRICE_TICKS, k] == target):
                    send = False
                else:
                    actions[KIND, n] = CANCEL
                    actions[ID, n] = orders[ORDER_ID, k]
                    n += 1
        if send:
            state[3] += 1.0
            if side > 0:
                state[4] = state[3]
            else:
                state[5] = state[3]
            actions[KIND, n] = PLACE
            actions[SIDE, n] = side
            actions[PRICE_TICKS, n] = int(target)
            actions[LOTS, n] = int(params[2])
            actions[TIF, n] = GTX
            n += 1
    if params[4] > 0.0 and not hedging and abs(position) > params[4] - 0.5:
        state[3] += 1.0
        actions[KIND, n] = PLACE
        actions[VENUE, n] = 1
        actions[SIDE, n] = -1 if position > 0 else 1
        actions[PRICE_TICKS, n] = int(bid) if position > 0 else int(ask)
        actions[LOTS, n] = abs(position)
        actions[ORDER_TYPE, n] = MARKET
        actions[PURPOSE, n] = HEDGE
        n += 1
    return float(n)


# -- comparing ---------------------------------------------------------------------------------------------------------------------------


def first_difference(ours: Outcome, peers: np.ndarray[Any, Any], qty_lots: int) -> str | None:
    """Where the fills of a single run part, in words; None when all are equal.

    Parameters
    ----------
    ours : Outcome
        `fills` by time and order id: time [ns], side, price [ticks], order id, quantity [lots].
    peers : ndarray of int64, shape (n, 4)
        The same but the quantity, which is always the order's.
    qty_lots : int
    """
    assert ours.fills is not None
    assert ours.position_lots is not None
    theirs = np.column_stack((peers, np.full(len(peers), qty_lots), np.cumsum(peers[:, 1]) * qty_lots))
    mine = np.column_stack((ours.fills, ours.position_lots))
    n = min(len(mine), len(theirs))
    apart = np.flatnonzero(np.any(mine[:n] != theirs[:n], axis=1))
    if len(apart):
        i = int(apart[0])
        return f"fill {i} (time, side, ticks, id, lots, position): ours {mine[i].tolist()}, the peer's {theirs[i].tolist()}"
    if len(mine) != len(theirs):
        return f"{len(mine)} fills of ours, {len(theirs)} of the peer's; the first {n} are equal"
    return None


def first_count_apart(ours: Outcome, peers: Sequence[dict[str, Any]], points: Sequence[Point]) -> str | None:
    """The first point of a sweep whose counts differ; None when all are equal."""
    for point, mine, theirs in zip(points, ours.counts, peers, strict=True):
        theirs = {name: theirs[name] for name in mine}
        if mine != theirs:
            return f"{point}: ours {mine}, the peer's {theirs}"
    return None


# -- rounds ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One thing that is measured.

    name : of its figures. points : the sets. against : the peer's case it is held against, itself unless it has none of its own there. peer_runs : how
    many of the peer's make up as many points as ours. hedge_units : position that is hedged at a second venue, 0 = no such venue.
    """

    name: str
    points: list[Point]
    ratio: str
    against: str
    peer_runs: float = 1.0
    hedge_units: float = 0.0


def cases(job: Job) -> list[Case]:
    sixteen = job.points(GRID_16)
    return [
        Case("single", job.points([SINGLE]), "single_ratio", "single"),
        Case("sweep16", sixteen, "sweep16_ratio_per_point", "sweep16"),
        Case("sweep256", job.points(GRID_256), "sweep256_ratio_per_point", "sweep16", peer_runs=16.0),
        Case("user_strategy16", sixteen, "user_strategy16_ratio_per_point", "sweep16"),
        Case("own_latency16", job.own_latencies(), "own_latency_ratio_per_point", "own_latency16"),
        Case("hedge16", sixteen, "hedge16_ratio_per_point", "hedge16", hedge_units=HEDGE_UNITS),
    ]


class Rounds:
    """Cases measured in turns, and what was found equal."""

    def __init__(self, job: Job, peer: Peer | None, folder: Path) -> None:
        self._job = job
        self._peer = peer
        self._peer_fills = folder / "peer_fills.npy"
        self._ours: dict[str, Timed] = {}
        self._peers: dict[str, Timed] = {}
        self._first: dict[str, Outcome] = {}
        self._peer_first: dict[str, Any] = {}
        self._first_run_s: dict[str, float] = {}
        self._measured: list[Case] = []
        self._differences: dict[str, str] = {}

    def measure(self, measured: Sequence[Case], runs: Sequence[Callable[[], Outcome]], repeats: int) -> None:
        """One untimed run of each case on each side, then `repeats` rounds in which the sides take turns."""
        self._measured = list(measured)
        named = {case.name for case in measured}
        for turn in range(repeats + 1):
            for case, run in zip(measured, runs, strict=True):
                # what a case is held against is run in the same round, once for all that are
                if self._peer is not None and (case.against == case.name or (case.against not in named and turn == 0)):
                    self._peer_turn(case, timed=turn > 0)
                if turn:
                    self._ours.setdefault(case.name, Timed()).add(lambda run=run: cpu_timed(run))
                    continue
                self._first_run_s[case.name], _, self._first[case.name] = cpu_timed(run)
                if self._peer is not None:
                    self._compare(case)

    def _peer_turn(self, case: Case, *, timed: bool) -> None:
        peer = self._peer
        assert peer is not None

        def run() -> tuple[float, float, Any]:
            if len(case.points) == 1:
                return peer.single(case.points[0], None if timed else self._peer_fills)
            return peer.sweep(case.points, case.hedge_units)

        if timed:
            self._peers.setdefault(case.against, Timed()).add(run)
        else:
            self._peer_first[case.against] = run()[2]

    def _compare(self, case: Case) -> None:
        if case.peer_runs != 1.0:
            # other points than the peer's
            return
        ours, theirs = self._first[case.name], self._peer_first[case.against]
        apart = None
        if len(case.points) == 1:
            apart, theirs = first_difference(ours, np.load(self._peer_fills), round(ORDER_QTY / float(self._job.lot))), [theirs]
        apart = apart or first_count_apart(ours, theirs, case.points)
        if apart:
            self._differences[case.name] = apart

    def report(self) -> dict[str, Any]:
        """Ratios first, then seconds."""
        out: dict[str, Any] = {}
        if self._peer is not None:
            out["fills_equal"] = not self._differences
            out["differences"] = self._differences
            for case in self._measured:
                if case.against in self._peers:
                    out |= ratio(case.ratio, self._peers[case.against], self._ours[case.name], case.peer_runs)
        for case in self._measured:
            out |= self._ours[case.name].report(case.name)
            out[f"{case.name}_fills"] = sum(count["fills"] for count in self._first[case.name].counts)
            # compiling or loading machine code, and the run
            out[f"{case.name}_first_run_s"] = round(self._first_run_s[case.name], 3)
        for name, timed in self._peers.items():
            out |= timed.report(f"peer_{name}")
        return out


def cpu_timed(run: Callable[[], Outcome]) -> tuple[float, float, Outcome]:
    """Wall and CPU seconds of one run, and what it gave."""
    began, cpu = time.perf_counter(), time.process_time()
    outcome = run()
    return time.perf_counter() - began, time.process_time() - cpu, outcome


# -- processes of their own --------------------------------------------------------------------------------------------------------------


def apart(fn: Callable[..., Any], *args: Any) -> Any:
    """Run a function in a fresh process, so that its memory and its start are its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(fn, args)


def peak_of_sweep(job: Job, engine: str) -> float:
    """Peak memory of 256 sets, fills handed on as they come, less the array [MiB]."""
    rows = np.load(job.tape)
    case = next(c for c in cases(job) if c.name == "sweep256")
    prepared(engine, job, rows)(case)()
    return peak_mib() - rows.nbytes / 2**20


def second_start_s(job: Job, engine: str) -> float:
    """Seconds from starting an interpreter to the fills of a short tape, machine code coming from the disk: built-in and a user's strategy."""
    command = [sys.executable, __file__, "--tape", str(job.tape), "--tick", job.tick, "--lot", job.lot, "--engine", engine, "--start-only"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
