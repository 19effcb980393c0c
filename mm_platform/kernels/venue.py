"""The simulated venue's two doors: a recorded row happens, a request of ours arrives. Shared by the replay loops and the runner's sim mode.

Belongs here: dispatch of one row or request to the matching kernels, and the venue's own mid. Does not belong here: when things arrive
(`replay.loop`, `replay.venue`), whose money it is: ledgers belong to the sets (`kernels.accounting`), so funding and mark rows are the loop's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.kernels.exchange import (
    ASKS,
    BIDS,
    FAR_ASK,
    FAR_BID,
    MOST_EXECUTIONS,
    NEAR_ASK,
    NEAR_BID,
    TAKEN,
    TAKEN_ASK,
    TAKEN_BID,
    Cancels,
    Executions,
    OwnBook,
    exchange_cancel,
    exchange_modify,
    exchange_on_depth,
    exchange_on_trade,
    exchange_place,
    new_cancels,
    new_executions,
    new_own_book,
    taken_release,
    widened_own,
)
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.levels import (
    BEST_ASK,
    BEST_BID,
    CONSERVATIVE,
    LO_TICK,
    OK,
    OUTER_ASK,
    OUTER_BID,
    OUTSIDE_WINDOW,
    Levels,
    level_fits,
    level_set,
    level_set_top,
    levels_clear,
    new_levels,
    widened,
)
from mm_platform.kernels.queue import ExchangeParams

Int8s = npt.NDArray[np.int8]
Int16s = npt.NDArray[np.int16]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# tape kinds and flags as plain numbers (mm_platform.tape.layout lies above this room; a test keeps them equal)
DEPTH: Final = 1
TRADE: Final = 2
CLEAR: Final = 3
SNAPSHOT: Final = 4
TOP: Final = 5
FLAG_LAST: Final = 1
FLAG_NOT_MARKET: Final = 2

# places in VenueState.i
MID_HALF: Final = 0  # twice the mid in ticks, 0 = none yet
DEPTH_SEQ: Final = 1  # newest update id of depth
STATUS: Final = 2  # of the last `venue_on_rows`
VENUE_I_SIZE: Final = 3

# what a request asks for
PLACE: Final = 1
CANCEL: Final = 2
MODIFY: Final = 3


class VenueState(NamedTuple):
    """The venue side of a run: its book, the resting orders of all sets, what the event at hand did to them, its mid and sequence."""

    levels: Levels
    own: OwnBook
    executions: Executions
    cancels: Cancels
    i: Int64s


def new_venue(n_sets: int, slots: int, lo_tick: int, hi_tick: int, executions: int = MOST_EXECUTIONS) -> VenueState:
    """A venue without a book or orders.

    Parameters
    ----------
    n_sets, slots : int
        Parameter sets of the run, and the orders each can have resting.
    lo_tick, hi_tick : int
        Window of prices, both included (`tape.book_path.window_of`).
    executions : int
        Room for the executions of one event.

    Raises
    ------
    DataError
        No sets or slots, or a window that is empty or wider than `kernels.levels.MOST_TICKS`.
    """
    if n_sets < 1 or slots < 1 or executions < 1:
        raise DataError(f"a venue for {n_sets} sets of {slots} orders and {executions} executions an event; expected at least one of each")
    levels = new_levels(lo_tick, hi_tick)
    own = new_own_book(n_sets, slots, len(levels.bid))
    return VenueState(levels, own, new_executions(executions), new_cancels(slots), np.zeros(VENUE_I_SIZE, dtype=np.int64))


def widened_venue(venue: VenueState, lo_tick: int, hi_tick: int) -> VenueState:
    """The same venue over a wider window; the present state must not be used any further."""
    shift = int(venue.levels.i[LO_TICK]) - lo_tick
    levels = widened(venue.levels, lo_tick, hi_tick)
    return venue._replace(levels=levels, own=widened_own(venue.own, shift, len(levels.bid)))


def load_venue_book(x: ExchangeParams, venue: VenueState, state: BookState, lot_base: float) -> None:
    """Put a book at rest into an empty venue: levels, sequence and mid. Levels beyond the window are left out.

    Raises `DataError` when the best of a side lies beyond the window, or the book is crossed.
    """
    bid = int(state.bid_ticks[0]) if len(state.bid_ticks) else 0
    ask = int(state.ask_ticks[0]) if len(state.ask_ticks) else 0
    if bid and ask and bid >= ask:
        raise DataError(f"the book to start from is crossed: best bid {bid} ticks, best ask {ask} ticks")
    per_lot = 1.0 if x.rule == CONSERVATIVE else lot_base
    for side, ticks, lots in ((1, state.bid_ticks, state.bid_lots), (-1, state.ask_ticks, state.ask_lots)):
        for tick, n in zip(ticks.tolist(), lots.tolist(), strict=True):
            if exchange_on_depth(x, venue.levels, venue.own, venue.executions, side, tick, n * per_lot, 0) != OK:
                lo = int(venue.levels.i[LO_TICK])
                raise DataError(f"the book to start from has {tick} ticks as its best, outside the window {lo} to {lo + len(venue.levels.bid) - 1}")
    venue.i[DEPTH_SEQ] = state.seq
    refresh_mid(venue.levels, venue.i)


def venue_book(x: ExchangeParams, venue: VenueState) -> BookState:
    """The book at rest (copies, best first, whole lots); levels that a reference book keeps beyond its best are left out."""
    lo = int(venue.levels.i[LO_TICK])
    bid, ask = int(venue.levels.i[BEST_BID]), int(venue.levels.i[BEST_ASK])
    bids = np.flatnonzero(venue.levels.bid[: bid - lo + 1] if bid else venue.levels.bid[:0])[::-1]
    first_ask = ask - lo if ask else len(venue.levels.ask)
    asks = np.flatnonzero(venue.levels.ask[first_ask:]) + first_ask
    return BookState(
        (bids + lo).astype(np.int64),
        np.floor(venue.levels.bid[bids] / x.unit + 0.5).astype(np.int64),
        (asks + lo).astype(np.int64),
        np.floor(venue.levels.ask[asks] / x.unit + 0.5).astype(np.int64),
        int(venue.i[DEPTH_SEQ]),
    )


@kernel
def venue_on_row(x: ExchangeParams, venue: VenueState, kind: int, side: int, flags: int, price_ticks: int, qty: float, seq: int) -> int:
    """One recorded row at the venue; what it executed stands in `venue.executions`.

    `qty` in book units. Returns `OK` or `OUTSIDE_WINDOW`. The mid that executions are measured against is the one before the row; it moves only
    when a message is complete (`venue_after_row`).
    """
    venue.executions.n[0] = 0
    venue.cancels.n[0] = 0
    status = 0
    if kind == DEPTH or kind == SNAPSHOT:
        status = exchange_on_depth(x, venue.levels, venue.own, venue.executions, side, price_ticks, qty, 0)
        if seq > venue.i[DEPTH_SEQ]:
            venue.i[DEPTH_SEQ] = seq
    elif kind == TRADE:
        if flags & FLAG_NOT_MARKET == 0:
            status = exchange_on_trade(x, venue.levels, venue.own, venue.executions, side, price_ticks, qty)
    elif kind == TOP:
        # the reference engine ignores best-quote rows; an older one than the depth already applied says nothing new
        # a price of 0 is how venues say that a side has no quote
        if x.rule == CONSERVATIVE and price_ticks > 0 and (seq < 0 or seq > venue.i[DEPTH_SEQ]):
            status = exchange_on_depth(x, venue.levels, venue.own, venue.executions, side, price_ticks, qty, 1)
    elif kind == CLEAR:
        status = venue_clear(venue, side, price_ticks)
    return status


@kernel
def book_on_row(levels: Levels, i: Int64s, rule: int, half_lot: float, kind: int, side: int, price_ticks: int, qty: float, seq: int) -> int:
    """What a recorded row does to the book alone, `i` as in `VenueState`. Returns `OK` or `OUTSIDE_WINDOW`."""
    if kind == CLEAR:
        return levels_clear(levels, side, price_ticks)
    if kind == TRADE:
        at = price_ticks - levels.i[LO_TICK]
        return OK if at >= 0 and at < levels.bid.shape[0] else OUTSIDE_WINDOW
    if kind == DEPTH or kind == SNAPSHOT:
        if seq > i[DEPTH_SEQ]:
            i[DEPTH_SEQ] = seq
        fits = level_fits(levels, half_lot, side, price_ticks, qty)
        if fits != 1:
            return OK if fits == 0 else OUTSIDE_WINDOW
        return level_set(levels, rule, half_lot, side, price_ticks, qty)
    if kind == TOP and rule == CONSERVATIVE and price_ticks > 0 and (seq < 0 or seq > i[DEPTH_SEQ]):
        fits = level_fits(levels, half_lot, side, price_ticks, qty)
        if fits != 1:
            return OK if fits == 0 else OUTSIDE_WINDOW
        return level_set_top(levels, half_lot, side, price_ticks, qty)
    return OK


@kernel
def refresh_mid(levels: Levels, i: Int64s) -> None:
    """Take the mid from the book where both sides stand uncrossed; else the last one stays."""
    bid = levels.i[BEST_BID]
    ask = levels.i[BEST_ASK]
    if bid > 0 and ask > bid:
        i[MID_HALF] = bid + ask


@kernel
def venue_on_rows(
    x: ExchangeParams,
    venue: VenueState,
    kind: Int8s,
    side: Int8s,
    flags: Int16s,
    price_ticks: Int64s,
    qty: Float64s,
    seq: Int64s,
    begin: int,
    end: int,
) -> int:
    """Rows `begin` to `end` (exclusive) at the venue, until there is something for the caller to do.

    The same as `venue_on_row` and `venue_after_row` for each, at a few nanoseconds where none of our orders is near: then a row touches the book
    only, and no tuple of arrays is handed on.

    Parameters
    ----------
    kind, side, flags, price_ticks, qty, seq : arrays
        Columns of the tape; `qty` in book units.

    Returns
    -------
    int
        `end`: all are done and closed. Else the row that stopped: `venue.i[STATUS]` is not `OK`; or it executed orders of ours; or it is
        of a kind beyond `TOP`, which is the caller's. In the last two cases call `venue_after_row` for it and go on with the next.
    """
    levels = venue.levels
    i = levels.i
    o = venue.own.i
    ticks = venue.own.ticks
    bids = levels.bid
    asks = levels.ask
    half = 0.5 * x.unit
    lo = i[LO_TICK]
    size = bids.shape[0]
    venue.executions.n[0] = 0
    venue.cancels.n[0] = 0
    venue.i[STATUS] = OK
    for r in range(begin, end):
        k = kind[r]
        if k > TOP:
            return r
        tick = price_ticks[r]
        at = tick - lo
        s = side[r]
        q = qty[r]
        if k == TRADE:
            # a print of which none of our orders learns changes nothing at the venue
            reached = at < 0 or at >= size or ((o[BIDS] != 0 and tick <= o[NEAR_BID]) if s < 0 else (o[ASKS] != 0 and tick >= o[NEAR_ASK]))
            if reached:
                venue.i[STATUS] = venue_on_row(x, venue, int(k), int(s), int(flags[r]), tick, q, seq[r])
                if venue.i[STATUS] != OK or venue.executions.n[0] > 0:
                    return r
            continue
        # a row at which one of our orders stands, or which reaches one of the other side, or which restates what a taker of ours consumed
        near = k == CLEAR
        if s > 0:
            best = max(i[BEST_BID], tick) if k == TOP else tick
            near = near or (o[BIDS] != 0 and tick <= o[NEAR_BID] and best >= o[FAR_BID]) or (o[ASKS] != 0 and tick >= o[NEAR_ASK])
            if o[TAKEN] != 0 and not near:
                near = k == TOP or at < 0 or at >= size or ticks[TAKEN_BID, at] != 0 or (i[BEST_ASK] != 0 and tick >= i[BEST_ASK])
            if not near and k != TOP and at >= 0 and at < size:
                # most rows: no best price moves
                if q >= half:
                    if tick <= i[BEST_BID] and tick >= i[OUTER_BID]:
                        bids[at] = q
                        if seq[r] > venue.i[DEPTH_SEQ]:
                            venue.i[DEPTH_SEQ] = seq[r]
                        if flags[r] & FLAG_LAST != 0:
                            refresh_mid(levels, venue.i)
                        continue
        else:
            best = min(i[BEST_ASK], tick) if k == TOP and i[BEST_ASK] != 0 else tick
            near = near or (o[ASKS] != 0 and tick >= o[NEAR_ASK] and best <= o[FAR_ASK]) or (o[BIDS] != 0 and tick <= o[NEAR_BID])
            if o[TAKEN] != 0 and not near:
                near = k == TOP or at < 0 or at >= size or ticks[TAKEN_ASK, at] != 0 or tick <= i[BEST_BID]
            if not near and k != TOP and at >= 0 and at < size:
                if q >= half:
                    if i[BEST_ASK] != 0 and tick >= i[BEST_ASK] and tick <= i[OUTER_ASK]:
                        asks[at] = q
                        if seq[r] > venue.i[DEPTH_SEQ]:
                            venue.i[DEPTH_SEQ] = seq[r]
                        if flags[r] & FLAG_LAST != 0:
                            refresh_mid(levels, venue.i)
                        continue
        if near:
            venue.i[STATUS] = venue_on_row(x, venue, int(k), int(s), int(flags[r]), tick, q, seq[r])
        else:
            venue.i[STATUS] = book_on_row(levels, venue.i, x.rule, half, int(k), int(s), tick, q, seq[r])
        if venue.i[STATUS] != OK or venue.executions.n[0] > 0:
            return r
        if k != CLEAR and flags[r] & FLAG_LAST != 0:
            refresh_mid(levels, venue.i)
    return end


@kernel
def venue_clear(venue: VenueState, side: int, price_ticks: int) -> int:
    """A clear row. What takers consumed of the cleared levels is forgotten; queue positions stay until a depth row restates the level."""
    bid = venue.levels.i[BEST_BID]
    ask = venue.levels.i[BEST_ASK]
    if side >= 0 and bid > 0:
        taken_release(venue.levels, venue.own, 1, price_ticks if side > 0 else 0, bid)
    if side <= 0 and ask > 0:
        taken_release(venue.levels, venue.own, -1, ask, price_ticks if side < 0 and price_ticks > 0 else 2**62)
    return levels_clear(venue.levels, side, price_ticks)


@kernel
def venue_after_row(venue: VenueState, kind: int, flags: int) -> None:
    """Close a row: to be called after its executions were read."""
    if (kind == DEPTH or kind == SNAPSHOT or kind == TOP) and flags & FLAG_LAST != 0:
        refresh_mid(venue.levels, venue.i)


@kernel
def venue_on_request(
    x: ExchangeParams,
    venue: VenueState,
    now_ns: int,
    row_number: int,
    set_index: int,
    what: int,
    order_id: int,
    side: int,
    price_ticks: int,
    lots: int,
    tif: int,
    order_type: int,
    purpose: int,
) -> int:
    """One request of a set at the venue.

    Parameters
    ----------
    now_ns, row_number : int
        Arrival, and the rows processed at this venue until now: orders of one row number and level share their queue position.
    what : int
        `PLACE`; `CANCEL` reads `order_id` only; `MODIFY` reads `order_id`, `price_ticks`, `lots` and keeps side, time in force and purpose.

    Returns
    -------
    int
        Cancelling: the lots that were left, -1 when the order is not there. Else an answer of `kernels.exchange`: RESTING, EXPIRED,
        FILLED, NO_ROOM, REJECTED, TAKEN_FULL. Executions and self-trade cancels stand in the state.
    """
    venue.executions.n[0] = 0
    venue.cancels.n[0] = 0
    if what == CANCEL:
        return exchange_cancel(venue.levels, venue.own, set_index, order_id)
    if what == MODIFY:
        return exchange_modify(
            x, venue.levels, venue.own, venue.executions, venue.cancels, now_ns, row_number, set_index, order_id, price_ticks, lots
        )
    return exchange_place(
        x,
        venue.levels,
        venue.own,
        venue.executions,
        venue.cancels,
        now_ns,
        row_number,
        set_index,
        order_id,
        side,
        price_ticks,
        lots,
        tif,
        order_type,
        purpose,
    )
