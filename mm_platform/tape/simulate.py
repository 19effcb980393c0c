"""The simulated market as tapes: a day, a stretch of time, or a stream of short pieces.

Belongs here: putting latent paths and order flow together, one tape per instrument. Does not belong here: what the market is made of
(`simulate_settings`), how it moves (`simulate_path`, `simulate_flow`), files (`lake`).

Everything is a function of (seed, UTC day, settings): a day has the same bytes whether or not other days were made, whole or in pieces,
compiled or not. Each day opens with a snapshot; price, drift, basis and regime run through midnight without a seam. docs/simulated_market.md has
the model and what it measures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import BPS, NS_PER_DAY, NS_PER_MS, NS_PER_S, SECONDS_PER_DAY, day_start_ns, utc_date
from mm_platform.tape.layout import COLUMNS, Tape
from mm_platform.tape.simulate_flow import (
    BEST_ASK,
    FAR_ASK,
    RING,
    ROWS_PER_EVENT,
    SEQ,
    STARTED,
    FlowParams,
    FlowState,
    Latent,
    RowBuffer,
    advance_flow,
    new_row_buffer,
    new_state,
    row_columns,
)
from mm_platform.tape.simulate_path import FUNDING_INTERVAL_S, SLOT_S, STEP_S, LatentDay, day_number, flow_seed, latent_day
from mm_platform.tape.simulate_settings import SIM_PERP, SIM_SPOT, FlowSettings, MarketSettings

__all__ = ["SIM_PERP", "SIM_SPOT", "MarketSettings", "SimulatedMarket", "simulate", "simulate_day", "stream_market"]

Columns = dict[str, npt.NDArray[np.generic]]
Advance = Callable[[FlowParams, Latent, FlowState, RowBuffer, float], int]

# Nothing happens in the last moments of a day, so that every row is also *seen* on its day (the lake files by local time).
_QUIET_S: Final = 0.1
# Update and trade ids increase across days without knowing how many the days before used.
_IDS_PER_DAY: Final = 100_000_000
_BUFFER_ROWS: Final = 65_536
_CENT: Final = 2  # venues state mark and index with two decimals


@dataclass(frozen=True, slots=True)
class SimulatedMarket:
    """The perpetual (`SIM_PERP`) and the spot (`SIM_SPOT`) of one underlying over the same stretch of time."""

    perp: Tape
    spot: Tape


def _params(settings: MarketSettings, flow: FlowSettings, start_ns: int) -> FlowParams:
    return FlowParams(
        day_start_ns=start_ns,
        base_rate_per_s=flow.market_orders_per_s * (1.0 - flow.branching_ratio),
        branching_same=flow.branching_same,
        branching_cross=flow.branching_cross,
        decay_per_s=flow.excitation_decay_per_s,
        reach=1.0 / flow.reach_decay,
        information=flow.information,
        eagerness=flow.eagerness,
        sniping=flow.sniping_per_bp / BPS,
        half_gap=flow.half_gap,
        cell_ticks=flow.cell_ticks,
        levels=flow.levels,
        level_lots=flow.level_lots,
        depth_growth=flow.depth_growth,
        lean=flow.lean,
        refresh_s=flow.refresh_s,
        response_s=flow.response_s,
        refill_frac=flow.refill_frac,
        maker_lag_s=flow.maker_lag_s,
        latency_min_ns=settings.latency_min_ms * NS_PER_MS,
        latency_range_ns=(settings.latency_max_ms - settings.latency_min_ms) * NS_PER_MS,
        step_s=STEP_S,
        slot_s=float(SLOT_S),
        end_s=SECONDS_PER_DAY - _QUIET_S,
        mark_every_s=settings.mark_every_s,
        marks_per_minute=60 // settings.mark_every_s,
        marks_per_stamp=FUNDING_INTERVAL_S // settings.mark_every_s,
    )


class _InstrumentDay:
    """One instrument on one day: its flow's state, moved forward piece by piece."""

    def __init__(
        self, spec: InstrumentSpec, settings: MarketSettings, flow: FlowSettings, seed: int, day: date, latent: LatentDay, number: int
    ) -> None:
        first_id = day_number(day) * _IDS_PER_DAY
        price = latent.spot_price if spec.contract == "spot" else latent.perp_price
        nothing = np.empty(0)
        every = int(settings.mark_every_s / STEP_S)
        has_marks = spec.contract != "spot"
        self.spec = spec
        self.params = _params(settings, flow, day_start_ns(day))
        self.latent = Latent(
            fair_ticks=price / float(spec.tick),
            drift_z=latent.drift_z,
            volatility=latent.volatility,
            activity=latent.activity,
            mark_price=np.round(latent.perp_price[:-1:every], _CENT) if has_marks else nothing,
            index_price=np.round(latent.spot_price[:-1:every], _CENT) if has_marks else nothing,
            predicted_rate=latent.predicted_rate if has_marks else nothing,
            funding_rate=latent.funding_rate if has_marks else nothing,
        )
        self.state = new_state(flow_seed(seed, day, number), first_id, first_id)

    def rows_until(self, until_s: float, advance: Advance, buffer: RowBuffer) -> Columns:
        """Columns of all rows before `until_s` that were not given out yet."""
        pieces: list[Columns] = []
        while True:
            n = advance(self.params, self.latent, self.state, buffer, until_s)
            pieces.append(row_columns(buffer, n))
            if n == 0:
                return {name: np.concatenate([piece[name] for piece in pieces]) for name in COLUMNS}

    def book(self) -> BookState:
        """The book as it stands."""
        if self.state.i[STARTED] == 0:
            return BookState.empty()
        bid_ticks, bid_lots = self._levels(1)
        ask_ticks, ask_lots = self._levels(0)
        return BookState(bid_ticks, bid_lots, ask_ticks, ask_lots, int(self.state.i[SEQ]))

    def _levels(self, book_side: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        slots = np.arange(self.state.i[BEST_ASK + book_side], self.state.i[FAR_ASK + book_side] + 1) % RING
        slots = slots[self.state.lots[book_side, slots] > 0]
        return self.state.ticks[book_side, slots], self.state.lots[book_side, slots]


def _instruments(seed: int, day: date, settings: MarketSettings) -> tuple[_InstrumentDay, _InstrumentDay]:
    latent = latent_day(seed, day, settings)
    return (
        _InstrumentDay(SIM_PERP, settings, settings.perp, seed, day, latent, 0),
        _InstrumentDay(SIM_SPOT, settings, settings.spot, seed, day, latent, 1),
    )


def _sha256(spec: InstrumentSpec, columns: Columns) -> str:
    digest = hashlib.sha256(spec.instrument.encode())
    for name in COLUMNS:
        digest.update(columns[name].tobytes())
    return digest.hexdigest()


def _tape(spec: InstrumentSpec, columns: Columns, initial_book: BookState) -> Tape:
    return Tape.from_columns(spec, columns, initial_book=initial_book, sha256=_sha256(spec, columns))


def simulate_day(seed: int, day: date, settings: MarketSettings | None = None, *, advance: Advance | None = None) -> SimulatedMarket:
    """One UTC day of both instruments.

    Parameters
    ----------
    seed : int
        0 or more; the same seed on another day is the same market, continued.
    day : datetime.date
        From 1972-01-01 on.
    settings : MarketSettings, optional
        The documented market by default.
    advance : callable, optional
        The twin of `advance_flow` to run: its compiled one by default (needs numba); `advance_flow` itself is plain Python, same bytes.

    Returns
    -------
    SimulatedMarket
        Tapes that open with a snapshot at midnight (their `initial_book` is empty), with `sha256` of the columns.

    Raises
    ------
    ConfigError
        For a negative seed or a day before 1972.
    """
    settings = settings or MarketSettings()
    run = advance or advance_flow.compiled
    buffer = new_row_buffer(_BUFFER_ROWS)
    perp, spot = (_tape(part.spec, part.rows_until(SECONDS_PER_DAY, run, buffer), BookState.empty()) for part in _instruments(seed, day, settings))
    return SimulatedMarket(perp, spot)


def stream_market(
    seed: int, day: date, settings: MarketSettings | None = None, *, chunk_s: float = 60.0, advance: Advance = advance_flow
) -> Iterator[SimulatedMarket]:
    """The market from a day's midnight on, in pieces, without end: the same rows as `simulate_day`, day after day.

    Parameters
    ----------
    seed, day, settings
        As in `simulate_day`.
    chunk_s : float
        Length of a piece [s]; the last one of a day is cut at midnight.
    advance : callable
        The twin of `advance_flow` to run; plain Python by default, so that nothing beyond numpy is needed.

    Yields
    ------
    SimulatedMarket
        Rows with chunk start <= exch_ts < chunk end; `initial_book` is the book before them; `sha256` is left empty.

    Raises
    ------
    ConfigError
        For a length that is not positive, a negative seed, a day before 1972.
    """
    if not chunk_s > 0.0:
        raise ConfigError(f"simulated market: chunk_s is {chunk_s}, expected a positive number of seconds")
    return _stream(seed, day, settings or MarketSettings(), chunk_s, advance)


def _stream(seed: int, day: date, settings: MarketSettings, chunk_s: float, advance: Advance) -> Iterator[SimulatedMarket]:
    buffer = new_row_buffer(4 * ROWS_PER_EVENT)
    while True:
        parts = _instruments(seed, day, settings)
        chunk = 0
        while chunk * chunk_s < SECONDS_PER_DAY:
            chunk += 1
            tapes = []
            for part in parts:
                book = part.book()
                tapes.append(Tape.from_columns(part.spec, part.rows_until(chunk * chunk_s, advance, buffer), initial_book=book))
            yield SimulatedMarket(*tapes)
        day += timedelta(days=1)


def simulate(settings: MarketSettings, seed: int, start_ns: int, duration_s: float, *, advance: Advance | None = None) -> SimulatedMarket:
    """Both instruments from a time on, for some time: the rows that the days hold, cut at both ends.

    Parameters
    ----------
    settings, seed
        As in `simulate_day`.
    start_ns : int
        First instant, UTC ns since the epoch (venue time). Made from that day's midnight on, so a late start costs the hours before it.
    duration_s : float
        Length [s]; may run over several days.
    advance : callable, optional
        As in `simulate_day`.

    Returns
    -------
    SimulatedMarket
        Rows with start <= exch_ts < start + duration; `initial_book` is the book just before them (empty at midnight).

    Raises
    ------
    ConfigError
        For a length that is not positive, a negative seed, a day before 1972.
    """
    if not duration_s > 0.0:
        raise ConfigError(f"simulated market: duration_s is {duration_s}, expected a positive number of seconds")
    run = advance or advance_flow.compiled
    end_ns = start_ns + round(duration_s * NS_PER_S)
    buffer = new_row_buffer(_BUFFER_ROWS)
    rows: tuple[list[Columns], list[Columns]] = ([], [])
    books: list[BookState] = []
    day = utc_date(start_ns)
    while (midnight_ns := day_start_ns(day)) < end_ns:
        until_s = min(end_ns - midnight_ns, NS_PER_DAY) / NS_PER_S
        for part, made in zip(_instruments(seed, day, settings), rows, strict=True):
            if midnight_ns < start_ns:
                part.rows_until((start_ns - midnight_ns) / NS_PER_S, run, buffer)
            if len(books) < len(rows):
                books.append(part.book())
            made.append(part.rows_until(until_s, run, buffer))
        day += timedelta(days=1)
    perp, spot = (
        _tape(spec, {name: np.concatenate([piece[name] for piece in made]) for name in COLUMNS}, book)
        for spec, made, book in zip((SIM_PERP, SIM_SPOT), rows, books, strict=True)
    )
    return SimulatedMarket(perp, spot)
