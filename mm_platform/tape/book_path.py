"""The venue's book along a tape: the window of prices it needs, where it stands at a time, and the path of its mid.

Belongs here: passes over the rows without any order of ours. They use the venue's book step itself, so that a mark-out and a replay agree on
what the mid was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.levels import CONSERVATIVE, LO_TICK, MOST_TICKS, OK, Levels
from mm_platform.kernels.queue import RISK_ADVERSE, exchange_params
from mm_platform.kernels.venue import (
    CLEAR,
    DEPTH,
    FLAG_LAST,
    MID_HALF,
    SNAPSHOT,
    TOP,
    TRADE,
    VenueState,
    book_on_row,
    load_venue_book,
    new_venue,
    refresh_mid,
    venue_book,
)
from mm_platform.tape.layout import BookState, Tape

Int64s = npt.NDArray[np.int64]

_NO_ORDERS: Final = exchange_params(CONSERVATIVE, RISK_ADVERSE, 1.0, 1.0)
# room for orders of ours that rest a little beyond all recorded prices
_MARGIN_TICKS: Final = 1024


@dataclass(frozen=True, slots=True)
class MidPath:
    """The venue's mid wherever it changed: `exch_ts` [ns, ascending], `half_ticks` (twice the mid in ticks)."""

    exch_ts: Int64s
    half_ticks: Int64s


def window_of(tape: Tape, margin_ticks: int = _MARGIN_TICKS) -> tuple[int, int]:
    """The window of ticks in which a tape can be replayed.

    Parameters
    ----------
    tape : Tape
        Its prints, levels and best quotes, and the book before its first row.
    margin_ticks : int
        Ticks kept free on both sides.

    Returns
    -------
    (int, int)
        First and last tick. All recorded prices where they fit into `kernels.levels.MOST_TICKS`; else that many ticks around the prints, the best
        quotes and the touch of the first book: levels beyond cannot come to the touch while prices stay there, and are ignored.

    Raises
    ------
    DataError
        The prints and quotes alone span more.
    """
    book = tape.initial_book
    quantity_there = tape.qty_lots > 0
    levels = tape.price_ticks[np.isin(tape.kind, (DEPTH, SNAPSHOT)) & quantity_there]
    touched = tape.price_ticks[np.isin(tape.kind, (TRADE, TOP)) & (tape.price_ticks > 0)]
    far = np.concatenate((levels, touched, book.bid_ticks, book.ask_ticks))
    if len(far) == 0:
        return 1, 1 + 2 * margin_ticks
    lo, hi = max(int(far.min()) - margin_ticks, 1), int(far.max()) + margin_ticks
    if hi - lo < MOST_TICKS:
        return lo, hi
    near = np.concatenate((touched, book.bid_ticks[:1], book.ask_ticks[:1]))
    if len(near) == 0:
        # nothing traded and no book to start from: the bulk of the levels is where the touch is
        near = np.quantile(levels, (0.25, 0.75)).astype(np.int64)
    first, last = int(near.min()), int(near.max())
    spare = MOST_TICKS - (last - first + 1)
    if spare < 2 * margin_ticks:
        raise DataError(
            f"{tape.spec.instrument}: prints and quotes from {first} to {last} ticks do not fit a window of {MOST_TICKS} ticks; "
            "look for misprints, cut the tape, or take a larger tick"
        )
    lo = max(first - spare // 2, lo)
    return lo, min(lo + MOST_TICKS - 1, hi)


def venue_of(tape: Tape, *, n_sets: int = 1, slots: int = 1) -> VenueState:
    """A conservative venue at rest with the book before the tape's first row."""
    lo, hi = window_of(tape)
    venue = new_venue(n_sets, slots, lo, hi)
    load_venue_book(_NO_ORDERS, venue, tape.initial_book, 1.0)
    return venue


@kernel
def book_path(
    levels: Levels,
    i: Int64s,
    exch_ts: Int64s,
    kind: npt.NDArray[np.int8],
    side: npt.NDArray[np.int8],
    flags: npt.NDArray[np.int16],
    price_ticks: Int64s,
    qty_lots: Int64s,
    seq: Int64s,
    out_ts: Int64s,
    out_half: Int64s,
) -> int:
    """Apply rows to a book of whole lots; write every change of mid. Returns the number written, or -1 - row when that row leaves the window."""
    n = 0
    last = i[MID_HALF]
    for r in range(exch_ts.shape[0]):
        k = int(kind[r])
        if book_on_row(levels, i, CONSERVATIVE, 0.5, k, int(side[r]), price_ticks[r], float(qty_lots[r]), seq[r]) != OK:
            return -1 - r
        if (k == DEPTH or k == SNAPSHOT or k == TOP) and flags[r] & FLAG_LAST != 0:
            refresh_mid(levels, i)
        if i[MID_HALF] != last:
            last = i[MID_HALF]
            if n > 0 and out_ts[n - 1] == exch_ts[r]:
                n -= 1
            out_ts[n] = exch_ts[r]
            out_half[n] = last
            n += 1
    return n


def _run(tape: Tape, stop: int) -> tuple[VenueState, MidPath]:
    venue = venue_of(tape)
    out_ts = np.empty(stop, dtype=np.int64)
    out_half = np.empty(stop, dtype=np.int64)
    n = book_path.compiled(
        venue.levels,
        venue.i,
        tape.exch_ts[:stop],
        tape.kind[:stop],
        tape.side[:stop],
        tape.flags[:stop],
        tape.price_ticks[:stop],
        tape.qty_lots[:stop],
        tape.seq[:stop],
        out_ts,
        out_half,
    )
    if n < 0:
        raise outside_window(tape, -1 - n, venue)
    return venue, MidPath(out_ts[:n].copy(), out_half[:n].copy())


def outside_window(tape: Tape, row: int, venue: VenueState) -> DataError:
    """The error for a row that takes the best price, or a print, out of the venue's window."""
    lo = int(venue.levels.i[LO_TICK])
    hi = lo + len(venue.levels.bid) - 1
    what = {DEPTH: "level", SNAPSHOT: "level", TOP: "best quote", TRADE: "print", CLEAR: "clear"}.get(int(tape.kind[row]), "row")
    return DataError(
        f"{tape.spec.instrument}: row {row} at {int(tape.exch_ts[row])} ns: a {what} of {int(tape.price_ticks[row])} ticks takes the touch out of the "
        f"window {lo} to {hi} that the tape's prints and quotes were given; look for a misprint or a unit that changed"
    )


def book_at(tape: Tape, at_ns: int) -> BookState:
    """The venue's book from all rows with `exch_ts < at_ns`."""
    stop = int(np.searchsorted(tape.exch_ts, at_ns, side="left"))
    venue, _ = _run(tape, stop)
    return venue_book(_NO_ORDERS, venue)


def mid_path(tape: Tape) -> MidPath:
    """Every change of the venue's mid over the whole tape (venue time)."""
    return _run(tape, len(tape))[1]
