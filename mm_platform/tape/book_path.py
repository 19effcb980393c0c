"""The venue's book along a tape: where it stands at a time, and the path of its mid.

Belongs here: passes over the rows without any order of ours. They use the venue step itself, so that a mark-out and a replay agree on
what the mid was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.kernels.accounting import Money, new_ledger
from mm_platform.kernels.book import book_state, load_book
from mm_platform.kernels.exchange import CONSERVATIVE, RISK_ADVERSE, ExchangeParams, new_executions, new_own_orders
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.venue import DEPTH_SEQ, MID_HALF, VENUE_I_SIZE, VenueState, venue_after_row, venue_on_row
from mm_platform.tape.layout import BookState, Tape

Int64s = npt.NDArray[np.int64]

BOOK_CAPACITY: Final = 65_536
_NO_ORDERS: Final = ExchangeParams(CONSERVATIVE, RISK_ADVERSE, 1.0, 1, 1.0)
_NO_MONEY: Final = Money(1.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class MidPath:
    """The venue's mid wherever it changed: `exch_ts` [ns, ascending], `half_ticks` (twice the mid in ticks)."""

    exch_ts: Int64s
    half_ticks: Int64s


@kernel
def venue_path(
    params: ExchangeParams,
    money: Money,
    venue: VenueState,
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
    """Apply rows to the venue's book; write every change of mid. Returns the number written, or -1 when the book is full."""
    n = 0
    last = venue.i[MID_HALF]
    for i in range(exch_ts.shape[0]):
        k = int(kind[i])
        f = int(flags[i])
        if venue_on_row(params, money, venue, k, int(side[i]), f, price_ticks[i], qty_lots[i], seq[i], 0.0, 0.0) != 0:
            return -1
        venue_after_row(venue, k, f)
        if venue.i[MID_HALF] != last:
            last = venue.i[MID_HALF]
            if n > 0 and out_ts[n - 1] == exch_ts[i]:
                n -= 1
            out_ts[n] = exch_ts[i]
            out_half[n] = last
            n += 1
    return n


def _run(tape: Tape, stop: int) -> tuple[VenueState, MidPath]:
    venue = VenueState(
        load_book(tape.initial_book, BOOK_CAPACITY), new_own_orders(1), new_executions(1), np.zeros(VENUE_I_SIZE, dtype=np.int64), new_ledger()
    )
    venue.i[DEPTH_SEQ] = tape.initial_book.seq
    out_ts = np.empty(stop, dtype=np.int64)
    out_half = np.empty(stop, dtype=np.int64)
    n = venue_path.compiled(
        _NO_ORDERS,
        _NO_MONEY,
        venue,
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
        raise DataError(f"{tape.spec.instrument}: the book outgrew {BOOK_CAPACITY} levels on one side")
    return venue, MidPath(out_ts[:n].copy(), out_half[:n].copy())


def book_at(tape: Tape, at_ns: int) -> BookState:
    """The venue's book from all rows with `exch_ts < at_ns`."""
    stop = int(np.searchsorted(tape.exch_ts, at_ns, side="left"))
    venue, _ = _run(tape, stop)
    return book_state(venue.book, int(venue.i[DEPTH_SEQ]))


def mid_path(tape: Tape) -> MidPath:
    """Every change of the venue's mid over the whole tape (venue time)."""
    return _run(tape, len(tape))[1]
