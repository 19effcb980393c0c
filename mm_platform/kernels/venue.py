"""The simulated venue's two doors: a recorded row happens, a request of ours arrives. Shared by the replay loop and the runner's sim mode.

Belongs here: dispatch of one row or request to the matching kernels, the venue's own mid, its ledger of our account (the truth; the local
side learns of it by messages). Does not belong here: when things arrive (`replay.loop`, `replay.venue`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.accounting import POSITION, Money, ledger_fill, ledger_funding, ledger_mark
from mm_platform.kernels.book import Book, book_clear, book_top
from mm_platform.kernels.exchange import (
    CONSERVATIVE,
    ExchangeParams,
    Executions,
    OwnOrders,
    exchange_arrive,
    exchange_cancel,
    exchange_on_depth,
    exchange_on_trade,
)
from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]

# tape kinds and flags as plain numbers (mm_platform.tape.layout lies above this room; a test keeps them equal)
DEPTH: Final = 1
TRADE: Final = 2
CLEAR: Final = 3
SNAPSHOT: Final = 4
TOP: Final = 5
FUNDING: Final = 7 + 1
FLAG_LAST: Final = 1
FLAG_NOT_MARKET: Final = 2

# places in VenueState.i
MID_HALF: Final = 0
DEPTH_SEQ: Final = 1
VENUE_I_SIZE: Final = 2

REQUEST_PLACE: Final = 1
REQUEST_CANCEL: Final = 2


class VenueState(NamedTuple):
    """The venue side of a run: its book, our resting orders, executions of the event at hand, its mid and sequence, our true ledger."""

    book: Book
    orders: OwnOrders
    executions: Executions
    i: Int64s
    ledger: Int64s


@kernel
def venue_refresh_mid(venue: VenueState) -> None:
    """Take the mid from the book where both sides stand uncrossed; else the last one stays."""
    bid, _, ask, _ = book_top(venue.book)
    if bid > 0 and ask > bid:
        venue.i[MID_HALF] = bid + ask


@kernel
def venue_on_row(
    params: ExchangeParams,
    money: Money,
    venue: VenueState,
    kind: int,
    side: int,
    flags: int,
    price_ticks: int,
    lots: int,
    seq: int,
    value: float,
    aux: float,
) -> int:
    """One recorded row at the venue. Executions it causes stand in `venue.executions`. Returns 0 or the book's `FULL`.

    The mid that executions are measured against is the one before the row; it moves only when a message is complete (`LAST`).
    """
    venue.executions.n[0] = 0
    status = 0
    if kind == DEPTH or kind == SNAPSHOT:
        status = exchange_on_depth(params, venue.book, venue.orders, venue.executions, side, price_ticks, lots, 0)
        if seq > venue.i[DEPTH_SEQ]:
            venue.i[DEPTH_SEQ] = seq
    elif kind == TRADE:
        if flags & FLAG_NOT_MARKET == 0:
            exchange_on_trade(params, venue.orders, venue.executions, side, price_ticks, lots)
    elif kind == TOP:
        # the reference engine ignores best-quote rows; an older one than the depth already applied says nothing new
        # a price of 0 is how venues say that a side has no quote
        if params.rule == CONSERVATIVE and price_ticks > 0 and (seq < 0 or seq > venue.i[DEPTH_SEQ]):
            status = exchange_on_depth(params, venue.book, venue.orders, venue.executions, side, price_ticks, lots, 1)
    elif kind == CLEAR:
        book_clear(venue.book, side)
    elif kind == FUNDING:
        if venue.ledger[POSITION] != 0:
            if venue.i[MID_HALF] != 0:
                # the newest mark, should the stamp bring none
                ledger_mark(venue.ledger, venue.i[MID_HALF])
            ledger_funding(venue.ledger, money, value, aux)
    return status


@kernel
def venue_after_row(venue: VenueState, kind: int, flags: int) -> None:
    """Close a row: to be called after its executions were read."""
    if (kind == DEPTH or kind == SNAPSHOT or kind == TOP) and flags & FLAG_LAST != 0:
        venue_refresh_mid(venue)


@kernel
def venue_on_request(params: ExchangeParams, venue: VenueState, what: int, order_id: int, side: int, price_ticks: int, lots: int, tif: int) -> int:
    """One request of ours at the venue. Placing returns RESTING, EXPIRED, FILLED or NO_ROOM; cancelling the lots that were left or -1."""
    venue.executions.n[0] = 0
    if what == REQUEST_CANCEL:
        return exchange_cancel(venue.orders, order_id)
    return exchange_arrive(params, venue.book, venue.orders, venue.executions, order_id, side, price_ticks, lots, tif)


@kernel
def venue_reduce_only(venue: VenueState, side: int, lots: int) -> int:
    """What is left of a reduce-only order when it reaches the venue: no more than the position against it, 0 = it expires."""
    return min(lots, max(-side * venue.ledger[POSITION], 0))


@kernel
def venue_book_execution(money: Money, venue: VenueState, at: int) -> int:
    """Book execution `at` of the event at hand in the true ledger; returns the fee in nano quote."""
    e = venue.executions
    mid_half = venue.i[MID_HALF]
    if mid_half == 0:
        mid_half = 2 * e.price_ticks[at]
    return ledger_fill(venue.ledger, money, e.side[at], e.price_ticks[at], e.lots[at], e.maker[at], mid_half)
