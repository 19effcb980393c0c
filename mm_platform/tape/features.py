"""Signals on a decision grid: what a trader at the local side knows at each decision, from one pass over a tape.

Belongs here: the local view of the book (depth, snapshots, clears, and fused best quotes, in order of `local_ts`) and the signal state along
it. Does not belong here: the signals' formulas (`kernels.signals`), the venue's own book (`tape.book_path`).

No value at a grid time uses a row whose `local_ts` is later. Depth rows count once their message is complete (`LAST`); a best-quote row
older than the depth already applied says nothing new; prints that fill nobody (`NOT_MARKET`) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.kernels.book import Book, book_apply_top, book_clear, book_set, book_top, load_book
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.signals import (
    ASK_TICKS,
    BID_TICKS,
    SignalParams,
    SignalState,
    new_signal_state,
    signal_on_top,
    signal_on_trade,
    signal_read,
)
from mm_platform.tape.layout import LAST, NOT_MARKET, Kind, Tape

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

BOOK_CAPACITY: Final = 65_536

# kinds as plain numbers for compiled code
_DEPTH: Final = int(Kind.DEPTH)
_TRADE: Final = int(Kind.TRADE)
_CLEAR: Final = int(Kind.CLEAR)
_SNAPSHOT: Final = int(Kind.SNAPSHOT)
_TOP: Final = int(Kind.TOP)


@dataclass(frozen=True, slots=True)
class Features:
    """Equal-length columns on a decision grid; nan or 0 ticks = not known at that time.

    grid_ts : ns, ascending. bid_ticks, ask_ticks : the local, fused touch. mid, microprice : quote per base. queue_imbalance,
    order_flow_imbalance : -1 to 1. kyle_lambda : quote/base per base. short_volatility : relative per sqrt(year). spread_bps : of the mid.
    valid : the touch is two-sided and uncrossed.
    """

    grid_ts: Int64s
    bid_ticks: Int64s
    ask_ticks: Int64s
    mid: Float64s
    microprice: Float64s
    queue_imbalance: Float64s
    order_flow_imbalance: Float64s
    kyle_lambda: Float64s
    short_volatility: Float64s
    spread_bps: Float64s
    valid: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.grid_ts)

    def columns(self) -> dict[str, npt.NDArray[np.generic]]:
        """Name to array, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def between(self, start_ns: int, end_ns: int) -> Features:
        """The decisions with start <= grid_ts < end (views, no copies)."""
        lo, hi = np.searchsorted(self.grid_ts, (start_ns, end_ns), side="left")
        return Features(**{name: column[lo:hi] for name, column in self.columns().items()})  # type: ignore[arg-type]


class TapeRows(NamedTuple):
    """The columns that the local view needs, in venue order, and the local order of the rows."""

    order: Int64s
    local_ts: Int64s
    kind: npt.NDArray[np.int8]
    side: npt.NDArray[np.int8]
    flags: npt.NDArray[np.int16]
    price_ticks: Int64s
    qty_lots: Int64s
    seq: Int64s


class FeatureColumns(NamedTuple):
    """Output arrays of `features_path`, one value per grid time."""

    bid_ticks: Int64s
    ask_ticks: Int64s
    microprice_ticks: Float64s
    queue_imbalance: Float64s
    order_flow_imbalance: Float64s
    kyle_lambda: Float64s
    short_volatility: Float64s
    spread_bps: Float64s
    valid: npt.NDArray[np.int8]


def new_feature_columns(n: int) -> FeatureColumns:
    """Room for `n` grid times."""
    nothing = np.zeros(n, dtype=np.int64)
    unknown = np.full(n, np.nan)
    return FeatureColumns(
        nothing, nothing.copy(), unknown, unknown.copy(), unknown.copy(), unknown.copy(), unknown.copy(), unknown.copy(), np.zeros(n, dtype=np.int8)
    )


class LocalBook(NamedTuple):
    """The book as the local side sees it; `depth_seq[0]` is the newest update id of its depth rows."""

    book: Book
    depth_seq: Int64s


@kernel
def local_book_row(local: LocalBook, kind: int, side: int, price_ticks: int, lots: int, seq: int) -> int:
    """Apply one row to the local book. Returns 0 or the book's `FULL`."""
    if kind == _DEPTH or kind == _SNAPSHOT:
        if seq > local.depth_seq[0]:
            local.depth_seq[0] = seq
        return book_set(local.book, side, price_ticks, lots)
    if kind == _TOP:
        if seq < 0 or seq > local.depth_seq[0]:
            return book_apply_top(local.book, side, price_ticks, lots)
    elif kind == _CLEAR:
        book_clear(local.book, side)
    return 0


@kernel
def local_row(
    local: LocalBook, state: SignalState, p: SignalParams, ts_ns: int, kind: int, side: int, flags: int, price: int, lots: int, seq: int
) -> int:
    """One row as the local side learns of it: book and signals. Returns 0 or the book's `FULL`."""
    if kind == _TRADE:
        if flags & NOT_MARKET == 0:
            signal_on_trade(state, p, ts_ns, side, price, lots)
        return 0
    if kind != _DEPTH and kind != _SNAPSHOT and kind != _TOP and kind != _CLEAR:
        return 0
    status = local_book_row(local, kind, side, price, lots, seq)
    if flags & LAST != 0:
        bid_ticks, bid_lots, ask_ticks, ask_lots = book_top(local.book)
        signal_on_top(state, p, ts_ns, bid_ticks, bid_lots, ask_ticks, ask_lots)
    return status


@kernel
def features_path(rows: TapeRows, local: LocalBook, state: SignalState, p: SignalParams, grid_ts: Int64s, out: FeatureColumns) -> int:
    """Fill `out` for all grid times. Returns 0, or the book's `FULL`."""
    n_rows = rows.order.shape[0]
    at = 0
    for g in range(grid_ts.shape[0]):
        now = grid_ts[g]
        while at < n_rows:
            r = rows.order[at]
            if rows.local_ts[r] > now:
                break
            status = local_row(
                local,
                state,
                p,
                rows.local_ts[r],
                int(rows.kind[r]),
                int(rows.side[r]),
                int(rows.flags[r]),
                rows.price_ticks[r],
                rows.qty_lots[r],
                rows.seq[r],
            )
            if status != 0:
                return status
            at += 1
        s = signal_read(state, p, now)
        out.valid[g] = s.valid
        # a one-sided or crossed touch is shown as it is; `valid` says not to trust it
        out.bid_ticks[g] = state.i[BID_TICKS]
        out.ask_ticks[g] = state.i[ASK_TICKS]
        out.microprice_ticks[g] = s.microprice_ticks
        out.queue_imbalance[g] = s.queue_imbalance
        out.order_flow_imbalance[g] = s.order_flow_imbalance
        out.kyle_lambda[g] = s.kyle_lambda
        out.short_volatility[g] = s.short_volatility
        out.spread_bps[g] = s.spread_bps
    return 0


def decision_grid(tape: Tape, step_ns: int, start_ns: int | None = None, end_ns: int | None = None) -> Int64s:
    """Multiples of `step_ns` from `start_ns` to before `end_ns` (default: from the first local time to past the last one).

    Aligned to the epoch, so that neighbouring days continue one grid. Raises `ConfigError` for a step that is not positive.
    """
    if step_ns <= 0:
        raise ConfigError(f"decision step is {step_ns} ns, expected a positive number of nanoseconds")
    if len(tape) == 0:
        return np.empty(0, dtype=np.int64)
    start = int(tape.local_ts.min()) if start_ns is None else start_ns
    end = int(tape.local_ts.max()) + step_ns if end_ns is None else end_ns
    first = -(-start // step_ns) * step_ns
    return np.arange(first, end, step_ns, dtype=np.int64)


def compute_features(
    tape: Tape,
    step_ns: int,
    start_ns: int | None = None,
    end_ns: int | None = None,
    params: SignalParams = SignalParams(),  # noqa: B008 - an immutable tuple
) -> Features:
    """Signals of a tape on its decision grid, in one compiled pass.

    Parameters
    ----------
    tape
        Rows of one instrument; rows before `start_ns` warm the signals up.
    step_ns : int
        Time between decisions.
    start_ns, end_ns : int, optional
        Bounds of the grid, see `decision_grid`.
    params
        Time constants; tick size and lot size are taken from the tape.

    Raises
    ------
    ConfigError
        A step, spacing or time constant that is not positive.
    DataError
        The book outgrows its room.
    """
    check_signal_params(params)
    tick = float(tape.spec.tick)
    p = params._replace(tick_size=tick, lot_base=tape.spec.lot_base)
    grid = decision_grid(tape, step_ns, start_ns, end_ns)
    n = len(grid)
    out = new_feature_columns(n)
    rows = TapeRows(tape.local_order(), tape.local_ts, tape.kind, tape.side, tape.flags, tape.price_ticks, tape.qty_lots, tape.seq)
    local = new_local_book(tape)
    state = new_signal_state()
    if tape.initial_book.seq >= 0 or len(tape.initial_book.bid_ticks) or len(tape.initial_book.ask_ticks):
        # the book before the first row is known when the tape starts
        signal_on_top(state, p, int(tape.local_ts.min()) if len(tape) else 0, *(int(x) for x in book_top(local.book)))
    if features_path.compiled(rows, local, state, p, grid, out) != 0:
        raise DataError(f"{tape.spec.instrument}: the book outgrew {BOOK_CAPACITY} levels on one side")
    mid = np.where(out.valid == 1, 0.5 * (out.bid_ticks + out.ask_ticks) * tick, np.nan)
    return Features(
        grid_ts=grid,
        bid_ticks=out.bid_ticks,
        ask_ticks=out.ask_ticks,
        mid=mid,
        microprice=out.microprice_ticks * tick,
        queue_imbalance=out.queue_imbalance,
        order_flow_imbalance=out.order_flow_imbalance,
        kyle_lambda=out.kyle_lambda,
        short_volatility=out.short_volatility,
        spread_bps=out.spread_bps,
        valid=out.valid == 1,
    )


def new_local_book(tape: Tape) -> LocalBook:
    """The local book at the start of a tape."""
    return LocalBook(load_book(tape.initial_book, BOOK_CAPACITY), np.array([tape.initial_book.seq], dtype=np.int64))


def check_signal_params(p: SignalParams) -> None:
    """Raises `ConfigError` naming the first time constant that cannot be used."""
    for name in ("tick_size", "lot_base", "ofi_half_life_s", "vol_spacing_ns", "vol_tau_s", "kyle_bucket_ns", "kyle_tau_s"):
        value = getattr(p, name)
        if not 0 < value < float("inf"):
            raise ConfigError(f"signal parameter {name} is {value}, expected a positive number")
