"""Run the champion: the wiring of the runner from the settings. Mode sim only; venues bring the others.

Belongs here: choosing market, clock, files and registry reader, and handing them to `live.runner`. Does not belong here: the loop itself.
Nothing here imports more than the base dependencies: a machine that trades carries no research packages.
"""

from __future__ import annotations

import secrets
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from mm_platform.config import Settings
from mm_platform.core.book_state import BookState
from mm_platform.core.errors import ConfigError, DataError, RegistryError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.ports import ParameterSource
from mm_platform.core.units import NS_PER_MS, NS_PER_S, day_start_ns, iso_utc, utc_date
from mm_platform.engine.engine import Engine
from mm_platform.engine.settings import EngineSettings
from mm_platform.kernels.accounting import money_of
from mm_platform.lake.layout import Partition
from mm_platform.lake.store import Lake
from mm_platform.live.clock import FastClock, RealClock, RunnerClock
from mm_platform.live.disk import LocalDisk, sole_runner
from mm_platform.live.journal import JournalHeader, JournalWriter
from mm_platform.live.limits import RunnerLimits
from mm_platform.live.order_gate import OrderGate
from mm_platform.live.parameters import CHAMPION, BackgroundPolling, ParameterWatcher, PollingSchedule
from mm_platform.live.runner import DRAIN_S, Log, Polling, Runner, RunSummary
from mm_platform.registry.signing import load_public_key
from mm_platform.registry.source import open_source
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.venue import SimulatedVenue, VenueStart, tape_chunks
from mm_platform.tape.layout import Kind, Tape
from mm_platform.tape.simulate import SIM_PERP, SIM_SPOT, stream_market
from mm_platform.workflow.code_version import code_version
from mm_platform.workflow.from_settings import engine_limits, signal_params
from mm_platform.workflow.tapes import load_tape

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MODES: Final = ("sim",)
SOURCES: Final = ("simulated", "tape")
CLOCKS: Final = ("fast", "real")
STRATEGY: Final = "as"
# recorded market before the first decision, so that signals are warm
WARM_UP_S: Final = 900.0
# pieces of the simulated market: small enough that a real clock never waits for one
CHUNK_S: Final = 10.0
# a registry that answers nothing for this many polls is reported
HANG_POLLS: Final = 3


@dataclass(frozen=True, slots=True)
class _Market:
    """Rows to run on: `at_ns` not after the first row's local time, `start_ns` the first decision, `end_ns` None = the rows' own end."""

    spec: InstrumentSpec
    chunks: Iterable[Tape]
    book: BookState
    at_ns: int
    start_ns: int
    end_ns: int | None


class LakeFills:
    """`live_fills` in the lake: rows of a day merged by run, order and trade."""

    def __init__(self, lake: Lake, spec: InstrumentSpec) -> None:
        self._lake = lake
        self._instrument = spec.id
        self._facts = {"tick_size": spec.tick_size, "lot_size": spec.lot_size}

    def write(self, day: date, columns: dict[str, Sequence[Any]]) -> None:
        self._lake.upsert("live_fills", Partition.of(self._instrument, day), columns, metadata=self._facts)


def runner_limits(settings: Settings, *, allow_seen: bool = False) -> RunnerLimits:
    """The runner's limits from the settings; `allow_seen` for recorded markets only, see `RunnerLimits`."""
    r = settings.risk
    return RunnerLimits(
        engine=engine_limits(settings),
        parameter_bounds=dict(r.parameter_bounds),
        max_parameter_age_s=r.max_parameter_age_s,
        price_band_frac=r.price_band_frac,
        max_price_drift_frac=r.max_price_drift_frac,
        allow_seen=allow_seen,
    )


def run_live(
    settings: Settings,
    instrument: str | None = None,
    *,
    mode: str = "sim",
    source: str = "simulated",
    duration_s: float = 1800.0,
    clock: str = "fast",
    start_ns: int | None = None,
    run_id: str | None = None,
    parameters: ParameterSource | None = None,
    log: Log | None = None,
    stop: threading.Event | None = None,
) -> RunSummary:
    """Quote with the champion for some market time.

    Parameters
    ----------
    settings : Settings
        Lake, registry, state folder, limits, latencies.
    instrument : str, optional
        Default: the settings' own.
    mode : {"sim"}
        Fills by the replay's exchange step; no keys.
    source : {"simulated", "tape"}
        The simulated market on the first day the lake does not hold, or the lake's own tape.
    duration_s : float
        Market seconds from the first decision.
    clock : {"fast", "real"}
        Jump from event to event, or let market time pass at wall speed.
    start_ns : int, optional
        First decision on a tape (UTC ns); default `duration_s` before its end.
    run_id : str, optional
        Names the journal and is part of every client id; default: time and four random hex digits.
    parameters : ParameterSource, optional
        Default: the reader that the registry URI asks for.
    log : Log, optional
        Default: structlog to stderr, fills included when the clock is real.
    stop : threading.Event, optional
        Set it to stop cleanly; SIGINT and SIGTERM do so by themselves.

    Returns
    -------
    RunSummary
        Fills are in the lake's `live_fills`, everything in the journal.

    Raises
    ------
    ConfigError
        An unknown mode, source or clock; a second runner of the instrument.
    RegistryError, ConnectivityError
        No parameters to quote with.
    DataError
        No tape to run on, or a broken one.
    """
    for name, value, known in (("mode", mode, MODES), ("source", source, SOURCES), ("clock", clock, CLOCKS)):
        if value not in known:
            hint = "; paper, testnet and live come with the venue connectors" if name == "mode" else ""
            raise ConfigError(f"{name} {value!r} is not available; choose {' or '.join(known)}{hint}")
    if not 0 < duration_s < float("inf"):
        raise ConfigError(f"duration is {duration_s} s, expected a finite number above 0")
    iid = settings.id if instrument is None else InstrumentId.parse(instrument)
    lake = Lake.open(settings.lake)
    step_ns = round(settings.signals.step_s * NS_PER_S)
    market = _simulated(settings, lake, iid, step_ns, duration_s) if source == "simulated" else _recorded(lake, iid, step_ns, duration_s, start_ns)
    state = settings.state_dir / "live"
    name = f"{iid.venue}.{iid.symbol}"
    disk = LocalDisk()
    limits = runner_limits(settings, allow_seen=source == "tape")
    run = run_id or f"{datetime.now(tz=UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(2)}"
    stop = stop or threading.Event()
    log = log or stderr_log(verbose=clock == "real")
    with sole_runner(state / f"{name}.lock", str(iid)):
        parameters = parameters or open_source(settings.registry_uri, timeout_s=settings.live.registry_timeout_s)
        watcher = ParameterWatcher(
            parameters,
            _trusted_key(settings.public_key, parameters, iid),
            market.spec,
            limits,
            disk,
            state / f"{name}.last_good.json",
        )
        first, trouble = watcher.first(market.start_ns)
        engine = Engine(
            EngineSettings(
                spec=market.spec,
                strategy=STRATEGY,
                run_id=run,
                start_ns=market.start_ns,
                step_ns=step_ns,
                limits=limits.engine,
                signals=signal_params(settings),
            )
        )
        header = JournalHeader(
            run_id=run, instrument=str(iid), mode=mode, code_version=code_version(), started_at_ns=market.at_ns, engine=engine.settings
        )
        venue_model = ReplaySettings(
            entry_latency_ns=round(settings.latency.entry_ms * NS_PER_MS), response_latency_ns=round(settings.latency.response_ms * NS_PER_MS)
        )
        venue = SimulatedVenue(
            market.spec, market.chunks, venue_model, money_of(market.spec), VenueStart(market.book, market.at_ns), end_ns=market.end_ns
        )
        runner_clock, polling = _time(settings, clock, watcher, market.at_ns)
        journal = JournalWriter(disk, journal_path(settings, iid, run), header, fsync="close")
        runner = Runner(
            engine,
            venue,
            runner_clock,
            watcher,
            polling,
            OrderGate(market.spec, limits),
            journal,
            LakeFills(lake, market.spec),
            log,
            mode=mode,
            stop=stop,
        )
        with _signals(stop):
            return runner.run(first, trouble, market.at_ns, duration_s)


def journal_path(settings: Settings, instrument: InstrumentId, run_id: str) -> Path:
    """Where a run's journal lies."""
    return settings.state_dir / "live" / "journal" / f"{instrument.venue}.{instrument.symbol}" / f"{run_id}.jsonl"


def _trusted_key(path: Path, source: ParameterSource, iid: InstrumentId) -> Ed25519PublicKey:
    try:
        return load_public_key(path)
    except RegistryError:
        # before the first promotion there is no key and no champion: the latter is what a user wants to hear of
        source.fetch(iid.model_name, CHAMPION)
        raise


def _time(settings: Settings, clock: str, watcher: ParameterWatcher, origin_ns: int) -> tuple[RunnerClock, Polling]:
    poll_s = settings.live.poll_s
    if clock == "fast":
        return FastClock(), PollingSchedule(watcher, round(poll_s * NS_PER_S))
    return RealClock(origin_ns), BackgroundPolling(watcher, poll_s, HANG_POLLS * poll_s + settings.live.registry_timeout_s)


def _simulated(settings: Settings, lake: Lake, iid: InstrumentId, step_ns: int, duration_s: float) -> _Market:
    """The simulated market from midnight of the first day that the lake does not hold: nobody has seen it."""
    specs = {spec.instrument: spec for spec in (SIM_PERP, SIM_SPOT)}
    spec = specs.get(str(iid))
    if spec is None:
        raise ConfigError(f"{iid} is not in the simulated market, which has {' and '.join(specs)}; run recorded data with source 'tape'")
    known = lake.complete_partitions(iid)
    day = max(p.date for p in known) + timedelta(days=1) if known else settings.simulate.start
    at_ns = day_start_ns(day)
    start_ns = at_ns + step_ns

    def chunks() -> Iterator[Tape]:
        for piece in stream_market(settings.seed, day, chunk_s=CHUNK_S):
            yield piece.spot if spec is SIM_SPOT else piece.perp

    end_ns = start_ns + round((duration_s + 2 * DRAIN_S) * NS_PER_S)
    return _Market(spec, chunks(), BookState.empty(), at_ns, start_ns, end_ns)


def _recorded(lake: Lake, iid: InstrumentId, step_ns: int, duration_s: float, start_ns: int | None) -> _Market:
    """The lake's tape: warm-up, then the stretch asked for."""
    days = sorted(p.date for p in lake.complete_partitions(iid))
    if not days:
        raise DataError(f"{iid}: no complete day in the lake {lake.root}; run mm ingest first, or use source 'simulated'")
    if start_ns is None:
        newest = load_tape(lake, iid, [days[-1]])
        first_seen, last_seen = int(newest.local_ts.min()), int(newest.local_ts.max())
        start_ns = max(last_seen - round(duration_s * NS_PER_S), first_seen)
    first_ns = start_ns - round(WARM_UP_S * NS_PER_S)
    until_ns = start_ns + round((duration_s + 2 * DRAIN_S) * NS_PER_S)
    wanted = [d for d in days if utc_date(first_ns) <= d <= utc_date(until_ns)]
    if utc_date(start_ns) not in wanted:
        raise DataError(f"{iid}: {iso_utc(start_ns)} lies on no complete day of the lake, which has {days[0]} to {days[-1]}")
    tape = load_tape(lake, iid, wanted)
    lo, hi = (int(n) for n in np.searchsorted(tape.exch_ts, (first_ns, until_ns), side="left"))
    if lo == hi:
        raise DataError(f"{iid}: the lake has no rows between {iso_utc(first_ns)} and {iso_utc(until_ns)}")
    cut = tape.slice_exch(first_ns, until_ns, tape.initial_book if lo == 0 else depth_book(tape, lo))
    at_ns = int(cut.local_ts.min())
    first_decision = -(-max(start_ns, at_ns) // step_ns) * step_ns
    return _Market(cut.spec, tape_chunks(cut), cut.initial_book, at_ns, first_decision, None)


def depth_book(tape: Tape, rows: int) -> BookState:
    """The book that the depth of the first `rows` rows states, by whole columns: the last word on each price since the last clear.

    Best quotes are left out (they only run ahead of the depth); the warm-up brings them back.
    """
    kind, side = tape.kind[:rows], tape.side[:rows]
    cleared = np.flatnonzero(kind == Kind.CLEAR)
    stated = np.isin(kind, (Kind.DEPTH, Kind.SNAPSHOT))
    found: dict[int, tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]] = {}
    for s, before in ((1, tape.initial_book.bid_ticks), (-1, tape.initial_book.ask_ticks)):
        mine = cleared[(side[cleared] == s) | (side[cleared] == 0)]
        since = int(mine[-1]) + 1 if len(mine) else 0
        at = since + np.flatnonzero(stated[since:] & (side[since:] == s))
        ticks, lots = tape.price_ticks[at], tape.qty_lots[at]
        if since == 0:
            ticks = np.concatenate([before, ticks])
            lots = np.concatenate([tape.initial_book.bid_lots if s > 0 else tape.initial_book.ask_lots, lots])
        # the first of the reversed rows is the last word
        prices, last = np.unique(ticks[::-1], return_index=True)
        quantities = lots[::-1][last]
        order = slice(None, None, -1) if s > 0 else slice(None)
        there = (quantities > 0)[order]
        found[s] = prices[order][there], quantities[order][there]
    depth_seq = tape.seq[:rows][stated]
    seq = max(tape.initial_book.seq, int(depth_seq.max()) if len(depth_seq) else -1)
    return BookState(*found[1], *found[-1], seq)


def stderr_log(*, verbose: bool) -> Log:
    """Structured lines on stderr, wall time in UTC: text for a person at a terminal, else one JSON object each. `verbose` adds every fill."""
    import logging

    import structlog

    form: tuple[Any, ...]
    if sys.stderr.isatty():
        form = (structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=True), structlog.dev.ConsoleRenderer(pad_event_to=12, sort_keys=False))
    else:
        form = (
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=lambda event, **_: msgspec.json.encode(event).decode()),
        )
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[structlog.processors.add_log_level, *form],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
    )
    return log


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; a second one ends the process as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
