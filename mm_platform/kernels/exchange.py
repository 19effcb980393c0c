"""The venue's matching of our orders against recorded market data: resting, filling, taking, modifying, for many sets at once.

Belongs here: what happens at the venue when a row or one of our orders arrives. Does not belong here: the book (`kernels.levels`), how an order
moves up in a queue (`kernels.queue`), dispatch of rows and requests (`kernels.venue`), latency and message order (`replay.loop`,
`replay.venue`), decisions (`kernels.decision`), money (`kernels.accounting`).

Two rules (CONTRACTS, Two replay modes). `REFERENCE` answers as the field's reference engine does: every own order sees the whole
printed volume, a print or a level beyond our price fills us whole. `CONSERVATIVE`: fills are partial, the orders of a set share the printed
volume, a crossing level fills a set at most by its quantity, and takers consume the levels they hit until the feed restates them.

Many sets, one book. No set's orders move the shared book. Orders that rest at the same side and tick since the same row stand in one *queue
node*: what is ahead of them evolves once for all of them. What a set's takers consumed is kept beside the book, for that set only; it limits
what this set can take and where its orders cross, and never its place in a queue (our own taking does not shorten the queue we then join).
A set's fills do not depend on which other sets are in the run.

Self-trade prevention (`CONSERVATIVE`). Own orders of the other side that an arriving order would match are cancelled first and listed in
`Cancels`; a post-only order that would match one expires instead.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.jit import kernel
from mm_platform.kernels.levels import (
    BEST_ASK,
    BEST_BID,
    CONSERVATIVE,
    LO_TICK,
    OK,
    OUTSIDE_WINDOW,
    REFERENCE,
    Levels,
    level_at,
    level_fits,
    level_set,
    next_level,
)
from mm_platform.kernels.queue import RISK_ADVERSE, ExchangeParams, queue_after_depth, round_half_away

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# time in force
GTC: Final = 0
GTX: Final = 1  # post-only
IOC: Final = 2
FOK: Final = 3

# order types
LIMIT: Final = 0
MARKET: Final = 1

# answers of the venue to an order that arrives or is modified
RESTING: Final = 1
EXPIRED: Final = 2
FILLED: Final = 3
NO_ROOM: Final = 4  # the set has no free order slot
REJECTED: Final = 5  # unknown id, id in use, no quantity, or a price that cannot be held
TAKEN_FULL: Final = 6  # the set's list of consumed levels is full: the run of this set cannot go on

# of one event, all sets together: a taker walks as many levels as lie within its limit, and one print can fill every set
MOST_EXECUTIONS: Final = 4096
# levels a set's takers have consumed and the feed has not restated yet
MOST_TAKEN: Final = 1024

# the reference's market orders look at so many ticks from the best
_MARKET_TICKS_BUY: Final = 100
_MARKET_TICKS_SELL: Final = 101

# places in OwnBook.i
BIDS: Final = 0  # orders resting, all sets
ASKS: Final = 1
NEAR_BID: Final = 2  # no own bid is priced better than this ...
FAR_BID: Final = 3  # ... or worse than this (loose bounds)
NEAR_ASK: Final = 4
FAR_ASK: Final = 5
FREE_NODE: Final = 6
EVENT: Final = 7  # number of the event at hand, for what is counted per set and event
TAKEN: Final = 8  # consumed levels, all sets
UNDEFINED: Final = 9  # queue positions a user's model left undefined
OWN_I_SIZE: Final = 10


# rows of OwnBook.orders, one column per order slot (set * slots + k)
ID: Final = 0  # 0 = the slot is free
SIDE: Final = 1
PRICE_TICKS: Final = 2
LEAVES_LOTS: Final = 3
TIF: Final = 4
ORDER_TYPE: Final = 5
PURPOSE: Final = 6
ARRIVED_NS: Final = 7
NODE: Final = 8  # -1: beyond the window on the far side, where nothing can fill it while prices stay inside
NEXT: Final = 9  # orders of a node in order of arrival; -1 ends, the first one's PREV is the last
PREV: Final = 10
ORDER_ROWS: Final = 11

# rows of OwnBook.nodes
ROW_NUMBER: Final = 0  # rows processed when the node was made
FIRST_ORDER: Final = 1
NEXT_NODE: Final = 2  # nodes of a level in order of arrival, linked as orders are; also the list of free nodes
PREV_NODE: Final = 3
NODE_ROWS: Final = 4

# rows of OwnBook.fronts, book units
FRONT_ARRIVAL: Final = 0  # of an order
FRONT: Final = 1  # of a node: what stands ahead of its orders
TRADED: Final = 2  # of a node: prints since the last depth row at its level
FRONT_ROWS: Final = 3

# rows of OwnBook.ticks, one column per tick of the window
FIRST_BID: Final = 0  # first node + 1, 0 = none
FIRST_ASK: Final = 1
TAKEN_BID: Final = 2  # sets that consumed from this level
TAKEN_ASK: Final = 3
TICK_ROWS: Final = 4

# rows of OwnBook.sets
RESTING_ORDERS: Final = 0
USED_EVENT: Final = 1  # the event that the next belongs to
USED_LOTS: Final = 2  # lots of the event that the set's better orders took
TAKEN_N: Final = 3
SET_ROWS: Final = 4

# rows of OwnBook.taken, columns set * MOST_TAKEN + k
TAKEN_SIDE: Final = 0
TAKEN_TICKS: Final = 1
TAKEN_LOTS: Final = 2
TAKEN_ROWS: Final = 3


class OwnBook(NamedTuple):
    """Our resting orders of all sets at one venue; rows by the names above.

    Few arrays on purpose: compiled code hands a tuple of arrays from function to function word by word.
    """

    orders: Int64s
    nodes: Int64s
    fronts: Float64s
    ticks: Int32s
    sets: Int64s
    taken: Int64s
    i: Int64s


class Executions(NamedTuple):
    """Executions of the event being processed; `n[0]` of them, more than there is room for when the event was too large for the buffers.

    `front_arrival`, `front_fill`: quantity ahead in book units when the order arrived and just before the event that filled it (0 for takers).
    """

    n: Int64s
    set: Int64s
    id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    leaves_lots: Int64s
    maker: Int64s
    purpose: Int64s
    arrived_ns: Int64s
    front_arrival: Float64s
    front_fill: Float64s


class Cancels(NamedTuple):
    """Orders that self-trade prevention cancelled in the event being processed: their owner must be told. Before the event's executions."""

    n: Int64s
    set: Int64s
    id: Int64s
    leaves_lots: Int64s


def new_own_book(n_sets: int, slots: int, ticks: int) -> OwnBook:
    """Room for `slots` resting orders of each set over a window of `ticks`."""
    n = n_sets * slots
    orders = np.zeros((ORDER_ROWS, n), dtype=np.int64)
    orders[NODE:] = -1
    nodes = np.full((NODE_ROWS, n), -1, dtype=np.int64)
    nodes[NEXT_NODE, :-1] = np.arange(1, n)
    return OwnBook(
        orders,
        nodes,
        np.zeros((FRONT_ROWS, n)),
        np.zeros((TICK_ROWS, ticks), dtype=np.int32),
        np.zeros((SET_ROWS, n_sets), dtype=np.int64),
        np.zeros((TAKEN_ROWS, n_sets * MOST_TAKEN), dtype=np.int64),
        np.zeros(OWN_I_SIZE, dtype=np.int64),
    )


def widened_own(own: OwnBook, shift: int, ticks: int) -> OwnBook:
    """The same orders over a window of `ticks` whose first tick lies `shift` below the present one's."""
    wider = np.zeros((TICK_ROWS, ticks), dtype=np.int32)
    wider[:, shift : shift + own.ticks.shape[1]] = own.ticks
    return own._replace(ticks=wider)


def new_executions(capacity: int = MOST_EXECUTIONS) -> Executions:
    """Room for the executions of one event."""

    def ints() -> Int64s:
        return np.zeros(capacity, dtype=np.int64)

    return Executions(
        np.zeros(1, dtype=np.int64), ints(), ints(), ints(), ints(), ints(), ints(), ints(), ints(), ints(), np.zeros(capacity), np.zeros(capacity)
    )


def new_cancels(slots: int) -> Cancels:
    """Room for the self-trade cancels of one event: it is one order of one set that causes them."""
    return Cancels(np.zeros(1, dtype=np.int64), *(np.zeros(slots, dtype=np.int64) for _ in range(3)))


# -- orders and nodes ------------------------------------------------------------------------------------------------------------------------


@kernel
def find_order(own: OwnBook, set_index: int, order_id: int) -> int:
    """Slot of a set's resting order, -1 when it is not at the venue."""
    slots = own.orders.shape[1] // own.sets.shape[1]
    for slot in range(set_index * slots, (set_index + 1) * slots):
        if own.orders[ID, slot] == order_id:
            return slot
    return -1


@kernel
def begin_event(own: OwnBook) -> None:
    """What is counted per set and event starts anew."""
    own.i[EVENT] += 1


@kernel
def touch_set(own: OwnBook, set_index: int) -> None:
    """First contact of an event with a set: reset its counts."""
    if own.sets[USED_EVENT, set_index] != own.i[EVENT]:
        own.sets[USED_EVENT, set_index] = own.i[EVENT]
        own.sets[USED_LOTS, set_index] = 0


@kernel
def order_rest(levels: Levels, own: OwnBook, slot: int, row_number: int) -> None:
    """Put a filled-in slot at the end of its level's queue: into the newest node when no row came since that was made, else into a new one."""
    i = own.i
    side = own.orders[SIDE, slot]
    tick = own.orders[PRICE_TICKS, slot]
    own.sets[RESTING_ORDERS, slot // (own.orders.shape[1] // own.sets.shape[1])] += 1
    heads = own.ticks[FIRST_BID if side > 0 else FIRST_ASK]
    count = BIDS if side > 0 else ASKS
    near = NEAR_BID if side > 0 else NEAR_ASK
    far = FAR_BID if side > 0 else FAR_ASK
    front = level_at(levels, side, tick)
    own.fronts[FRONT_ARRIVAL, slot] = front
    at = tick - levels.i[LO_TICK]
    if at < 0 or at >= heads.shape[0]:
        own.orders[NODE, slot] = -1
        return
    if i[count] == 0:
        i[near] = tick
        i[far] = tick
    elif (tick - i[near]) * side > 0:
        i[near] = tick
    elif (tick - i[far]) * side < 0:
        i[far] = tick
    i[count] += 1
    first = int(heads[at]) - 1
    node = -1
    if first >= 0:
        node = own.nodes[PREV_NODE, first]
    if node >= 0 and own.nodes[ROW_NUMBER, node] == row_number:
        head = own.nodes[FIRST_ORDER, node]
        tail = own.orders[PREV, head]
        own.orders[NEXT, tail] = slot
        own.orders[PREV, slot] = tail
        own.orders[PREV, head] = slot
    else:
        tail = node
        node = i[FREE_NODE]
        i[FREE_NODE] = own.nodes[NEXT_NODE, node]
        own.fronts[FRONT, node] = front
        own.fronts[TRADED, node] = 0.0
        own.nodes[ROW_NUMBER, node] = row_number
        own.nodes[FIRST_ORDER, node] = slot
        own.nodes[NEXT_NODE, node] = -1
        if first >= 0:
            own.nodes[NEXT_NODE, tail] = node
            own.nodes[PREV_NODE, node] = tail
            own.nodes[PREV_NODE, first] = node
        else:
            own.nodes[PREV_NODE, node] = node
            heads[at] = node + 1
        own.orders[PREV, slot] = slot
    own.orders[NEXT, slot] = -1
    own.orders[NODE, slot] = node


@kernel
def order_remove(levels: Levels, own: OwnBook, slot: int) -> None:
    """Take an order off its queue and free its slot (its other fields stay readable until the slot is used again)."""
    own.orders[ID, slot] = 0
    own.sets[RESTING_ORDERS, slot // (own.orders.shape[1] // own.sets.shape[1])] -= 1
    node = own.orders[NODE, slot]
    if node < 0:
        return
    side = own.orders[SIDE, slot]
    own.i[BIDS if side > 0 else ASKS] -= 1
    head = own.nodes[FIRST_ORDER, node]
    before = own.orders[PREV, slot]
    after = own.orders[NEXT, slot]
    if head == slot:
        if after >= 0:
            own.nodes[FIRST_ORDER, node] = after
            own.orders[PREV, after] = before
            return
    else:
        own.orders[NEXT, before] = after
        if after >= 0:
            own.orders[PREV, after] = before
        else:
            own.orders[PREV, head] = before
        return
    # the node is empty
    heads = own.ticks[FIRST_BID if side > 0 else FIRST_ASK]
    at = own.orders[PRICE_TICKS, slot] - levels.i[LO_TICK]
    first = int(heads[at]) - 1
    before = own.nodes[PREV_NODE, node]
    after = own.nodes[NEXT_NODE, node]
    if first == node:
        heads[at] = after + 1
        if after >= 0:
            own.nodes[PREV_NODE, after] = before
    else:
        own.nodes[NEXT_NODE, before] = after
        if after >= 0:
            own.nodes[PREV_NODE, after] = before
        else:
            own.nodes[PREV_NODE, first] = before
    own.nodes[NEXT_NODE, node] = own.i[FREE_NODE]
    own.i[FREE_NODE] = node


@kernel
def nearest_own(levels: Levels, own: OwnBook, side: int, limit_ticks: int) -> int:
    """Best own price of a side that is `limit_ticks` or better, 0 when there is none; tightens the bound on the way."""
    i = own.i
    lo = levels.i[LO_TICK]
    if side > 0:
        if i[BIDS] == 0:
            return 0
        end = max(limit_ticks, i[FAR_BID]) - lo
        at = i[NEAR_BID] - lo
        while at >= end:
            if own.ticks[FIRST_BID, at] != 0:
                i[NEAR_BID] = at + lo
                return at + lo
            at -= 1
        i[NEAR_BID] = min(i[NEAR_BID], at + lo)
        return 0
    if i[ASKS] == 0:
        return 0
    end = min(limit_ticks, i[FAR_ASK]) - lo
    at = i[NEAR_ASK] - lo
    while at <= end:
        if own.ticks[FIRST_ASK, at] != 0:
            i[NEAR_ASK] = at + lo
            return at + lo
        at += 1
    i[NEAR_ASK] = max(i[NEAR_ASK], at + lo)
    return 0


# -- executions ------------------------------------------------------------------------------------------------------------------------------


@kernel
def emit_taker(
    executions: Executions, now_ns: int, set_index: int, order_id: int, side: int, price_ticks: int, lots: int, leaves_lots: int, purpose: int
) -> None:
    """Append one execution of an arriving order."""
    n = executions.n[0]
    if n < executions.id.shape[0]:
        executions.set[n] = set_index
        executions.id[n] = order_id
        executions.side[n] = side
        executions.price_ticks[n] = price_ticks
        executions.lots[n] = lots
        executions.leaves_lots[n] = leaves_lots
        executions.maker[n] = 0
        executions.purpose[n] = purpose
        executions.arrived_ns[n] = now_ns
        executions.front_arrival[n] = 0.0
        executions.front_fill[n] = 0.0
    # counted even when it does not fit: the caller compares n with the capacity and fails loudly
    executions.n[0] = n + 1


@kernel
def fill_maker(levels: Levels, own: OwnBook, executions: Executions, slot: int, lots: int, front: float) -> None:
    """Fill a resting order by whole lots at its own price; `front` stood ahead of it before the event."""
    own.orders[LEAVES_LOTS, slot] -= lots
    n = executions.n[0]
    if n < executions.id.shape[0]:
        executions.set[n] = slot // (own.orders.shape[1] // own.sets.shape[1])
        executions.id[n] = own.orders[ID, slot]
        executions.side[n] = own.orders[SIDE, slot]
        executions.price_ticks[n] = own.orders[PRICE_TICKS, slot]
        executions.lots[n] = lots
        executions.leaves_lots[n] = own.orders[LEAVES_LOTS, slot]
        executions.maker[n] = 1
        executions.purpose[n] = own.orders[PURPOSE, slot]
        executions.arrived_ns[n] = own.orders[ARRIVED_NS, slot]
        executions.front_arrival[n] = own.fronts[FRONT_ARRIVAL, slot]
        executions.front_fill[n] = front
    executions.n[0] = n + 1
    if own.orders[LEAVES_LOTS, slot] <= 0:
        order_remove(levels, own, slot)


# -- what a set's takers consumed (CONSERVATIVE) ---------------------------------------------------------------------------------------------


@kernel
def taken_at(own: OwnBook, set_index: int, side: int, price_ticks: int) -> int:
    """Lots that a set consumed of a level of the book's `side` and the feed has not restated."""
    base = set_index * MOST_TAKEN
    for k in range(base, base + own.sets[TAKEN_N, set_index]):
        if own.taken[TAKEN_TICKS, k] == price_ticks and own.taken[TAKEN_SIDE, k] == side:
            return own.taken[TAKEN_LOTS, k]
    return 0


@kernel
def taken_add(levels: Levels, own: OwnBook, set_index: int, side: int, price_ticks: int, lots: int) -> int:
    """Consume lots of a level for one set. Returns 0, or 1 when the set's list is full."""
    base = set_index * MOST_TAKEN
    n = own.sets[TAKEN_N, set_index]
    for k in range(base, base + n):
        if own.taken[TAKEN_TICKS, k] == price_ticks and own.taken[TAKEN_SIDE, k] == side:
            own.taken[TAKEN_LOTS, k] += lots
            return 0
    if n >= MOST_TAKEN:
        return 1
    own.taken[TAKEN_SIDE, base + n] = side
    own.taken[TAKEN_TICKS, base + n] = price_ticks
    own.taken[TAKEN_LOTS, base + n] = lots
    own.sets[TAKEN_N, set_index] = n + 1
    own.i[TAKEN] += 1
    marks = own.ticks[TAKEN_BID if side > 0 else TAKEN_ASK]
    marks[price_ticks - levels.i[LO_TICK]] += 1
    return 0


@kernel
def taken_release(levels: Levels, own: OwnBook, side: int, from_ticks: int, to_ticks: int) -> None:
    """The feed restated or removed the levels of a side between two ticks (both included): nothing of them is consumed any more."""
    if own.i[TAKEN] == 0:
        return
    marks = own.ticks[TAKEN_BID if side > 0 else TAKEN_ASK]
    lo = levels.i[LO_TICK]
    if from_ticks == to_ticks:
        at = from_ticks - lo
        if at < 0 or at >= marks.shape[0] or marks[at] == 0:
            return
    for s in range(own.sets.shape[1]):
        base = s * MOST_TAKEN
        k = base
        while k < base + own.sets[TAKEN_N, s]:
            tick = own.taken[TAKEN_TICKS, k]
            if own.taken[TAKEN_SIDE, k] == side and from_ticks <= tick and tick <= to_ticks:
                last = base + own.sets[TAKEN_N, s] - 1
                own.taken[TAKEN_SIDE, k] = own.taken[TAKEN_SIDE, last]
                own.taken[TAKEN_TICKS, k] = own.taken[TAKEN_TICKS, last]
                own.taken[TAKEN_LOTS, k] = own.taken[TAKEN_LOTS, last]
                own.sets[TAKEN_N, s] -= 1
                own.i[TAKEN] -= 1
                marks[tick - lo] -= 1
            else:
                k += 1


@kernel
def lots_at(x: ExchangeParams, levels: Levels, own: OwnBook, set_index: int, side: int, price_ticks: int) -> int:
    """Whole lots of a level that a set can take."""
    lots = int(round_half_away(level_at(levels, side, price_ticks) / x.unit))
    if own.sets[TAKEN_N, set_index] > 0:
        lots -= taken_at(own, set_index, side, price_ticks)
    return max(lots, 0)


@kernel
def best_for_set(x: ExchangeParams, levels: Levels, own: OwnBook, set_index: int, side: int) -> int:
    """Best price of the book's `side` as a set finds it, 0 = none: what the set consumed is not there for it."""
    tick = levels.i[BEST_BID] if side > 0 else levels.i[BEST_ASK]
    if own.sets[TAKEN_N, set_index] > 0:
        while tick != 0 and lots_at(x, levels, own, set_index, side, tick) == 0:
            tick = next_level(levels, side, tick)
    return tick


# -- rows ------------------------------------------------------------------------------------------------------------------------------------


@kernel
def reference_trade(x: ExchangeParams, levels: Levels, own: OwnBook, executions: Executions, side: int, price_ticks: int, qty: float) -> None:
    """A print reaches our orders of `side` under the reference rule: those priced better fill whole, those at its price by their queue."""
    heads = own.ticks[FIRST_BID if side > 0 else FIRST_ASK]
    lo = levels.i[LO_TICK]
    tick = nearest_own(levels, own, side, price_ticks)
    while tick != 0 and (tick - price_ticks) * side >= 0:
        node = int(heads[tick - lo]) - 1
        while node >= 0:
            after_node = own.nodes[NEXT_NODE, node]
            slot = own.nodes[FIRST_ORDER, node]
            front = own.fronts[FRONT, node]
            reached = math.inf
            if tick == price_ticks:
                own.fronts[FRONT, node] -= qty
                if x.queue_model != RISK_ADVERSE:
                    own.fronts[TRADED, node] += qty
                reached = round_half_away(-own.fronts[FRONT, node] / x.unit)
                if reached > 0.0:
                    own.fronts[FRONT, node] = 0.0
                else:
                    slot = -1
            while slot >= 0:
                after = own.orders[NEXT, slot]
                fill = own.orders[LEAVES_LOTS, slot]
                if x.partial == 1 and reached < fill:
                    fill = int(reached)
                fill_maker(levels, own, executions, slot, fill, front)
                slot = after
            node = after_node
        tick -= side
        at = tick - lo
        while (tick - price_ticks) * side >= 0 and heads[at] == 0:
            tick -= side
            at -= side


@kernel
def conservative_trade(x: ExchangeParams, levels: Levels, own: OwnBook, executions: Executions, side: int, price_ticks: int, qty: float) -> None:
    """A print reaches our orders of `side` under the conservative rule: a set's orders get no more than the print, best price and arrival first."""
    slots = own.orders.shape[1] // own.sets.shape[1]
    heads = own.ticks[FIRST_BID if side > 0 else FIRST_ASK]
    lo = levels.i[LO_TICK]
    lots = int(qty)
    tick = nearest_own(levels, own, side, price_ticks)
    while tick != 0 and (tick - price_ticks) * side >= 0:
        node = int(heads[tick - lo]) - 1
        while node >= 0:
            after_node = own.nodes[NEXT_NODE, node]
            slot = own.nodes[FIRST_ORDER, node]
            front = own.fronts[FRONT, node]
            reached = lots
            if tick == price_ticks:
                if x.queue_model != RISK_ADVERSE:
                    own.fronts[TRADED, node] += qty
                # a queue model that has moved us beyond the front (the logarithmic and power ones can) gives no more than the print; fronts
                # are fractions of lots under those models, and a lot that is not wholly ours is not filled
                ahead = max(front, 0.0)
                reached = max(int(math.floor(qty - ahead)), 0)
                own.fronts[FRONT, node] = max(ahead - qty, 0.0)
            while slot >= 0:
                after = own.orders[NEXT, slot]
                owner = slot // slots
                touch_set(own, owner)
                fill = min(own.orders[LEAVES_LOTS, slot], reached - own.sets[USED_LOTS, owner])
                if fill > 0:
                    own.sets[USED_LOTS, owner] += fill
                    fill_maker(levels, own, executions, slot, fill, front)
                slot = after
            node = after_node
        tick -= side
        at = tick - lo
        while (tick - price_ticks) * side >= 0 and heads[at] == 0:
            tick -= side
            at -= side


@kernel
def exchange_on_trade(x: ExchangeParams, levels: Levels, own: OwnBook, executions: Executions, aggressor: int, price_ticks: int, qty: float) -> int:
    """A print by `aggressor` (+1 bought): our resting orders on the other side at its price queue, those priced better are traded through.

    Returns `OK`, or `OUTSIDE_WINDOW` for a print beyond the window.
    """
    at = price_ticks - levels.i[LO_TICK]
    if at < 0 or at >= levels.bid.shape[0]:
        return OUTSIDE_WINDOW
    if aggressor == 0:
        return OK
    if aggressor < 0:
        if own.i[BIDS] == 0 or price_ticks > own.i[NEAR_BID]:
            return OK
    elif own.i[ASKS] == 0 or price_ticks < own.i[NEAR_ASK]:
        return OK
    begin_event(own)
    if x.rule == REFERENCE:
        reference_trade(x, levels, own, executions, -aggressor, price_ticks, qty)
    else:
        conservative_trade(x, levels, own, executions, -aggressor, price_ticks, qty)
    return OK


@kernel
def queues_at(x: ExchangeParams, levels: Levels, own: OwnBook, side: int, price_ticks: int, before: float, after: float) -> None:
    """A level was restated: the queues at it advance."""
    i = own.i
    if side > 0:
        if i[BIDS] == 0 or price_ticks > i[NEAR_BID] or price_ticks < i[FAR_BID]:
            return
    elif i[ASKS] == 0 or price_ticks < i[NEAR_ASK] or price_ticks > i[FAR_ASK]:
        return
    heads = own.ticks[FIRST_BID if side > 0 else FIRST_ASK]
    node = int(heads[price_ticks - levels.i[LO_TICK]]) - 1
    while node >= 0:
        front = queue_after_depth(x, own.fronts[FRONT, node], own.fronts[TRADED, node], before, after)
        if front != front:
            front = after
            i[UNDEFINED] += 1
        own.fronts[FRONT, node] = front
        own.fronts[TRADED, node] = 0.0
        node = own.nodes[NEXT_NODE, node]


@kernel
def fill_crossed(x: ExchangeParams, levels: Levels, own: OwnBook, executions: Executions, side: int, price_ticks: int, qty: float, best: int) -> None:
    """A level of `side` stands at or beyond our opposite orders: those for whose set it is a new best fill at their own price.

    Call before the book holds the level; `best` is the side's best until now. For a set that consumed levels it is its own best that counts.
    """
    slots = own.orders.shape[1] // own.sets.shape[1]
    heads = own.ticks[FIRST_ASK if side > 0 else FIRST_BID]
    lo = levels.i[LO_TICK]
    lots = int(round_half_away(qty / x.unit))
    improves = best == 0 or (price_ticks - best) * side > 0
    begin_event(own)
    tick = nearest_own(levels, own, -side, price_ticks)
    while tick != 0 and (price_ticks - tick) * side >= 0:
        node = int(heads[tick - lo]) - 1
        while node >= 0:
            after_node = own.nodes[NEXT_NODE, node]
            front = own.fronts[FRONT, node]
            slot = own.nodes[FIRST_ORDER, node]
            while slot >= 0:
                after = own.orders[NEXT, slot]
                owner = slot // slots
                fill = own.orders[LEAVES_LOTS, slot]
                if x.rule == CONSERVATIVE:
                    touch_set(own, owner)
                    fill = min(fill, lots - own.sets[USED_LOTS, owner])
                    if not improves:
                        seen = best_for_set(x, levels, own, owner, side)
                        if seen != 0 and (price_ticks - seen) * side <= 0:
                            fill = 0
                    own.sets[USED_LOTS, owner] += max(fill, 0)
                elif not improves:
                    fill = 0
                if fill > 0:
                    fill_maker(levels, own, executions, slot, fill, front)
                slot = after
            node = after_node
        tick += side
        at = tick - lo
        while (price_ticks - tick) * side >= 0 and heads[at] == 0:
            tick += side
            at += side


@kernel
def exchange_on_depth(
    x: ExchangeParams, levels: Levels, own: OwnBook, executions: Executions, side: int, price_ticks: int, qty: float, top: int
) -> int:
    """A depth row (`top` 0) or a best-quote row (`top` 1) at the venue: fill what it crosses, update the book, advance the queues.

    Returns `OK` or `OUTSIDE_WINDOW` (`kernels.levels`).
    """
    half = 0.5 * x.unit
    fits = level_fits(levels, half, side, price_ticks, qty)
    if fits != 1:
        return OK if fits == 0 else OUTSIDE_WINDOW
    i = levels.i
    at = price_ticks - i[LO_TICK]
    before = levels.bid[at] if side > 0 else levels.ask[at]
    best = i[BEST_BID] if side > 0 else i[BEST_ASK]
    other = i[BEST_ASK] if side > 0 else i[BEST_BID]
    if top == 1 and best != 0 and (best - price_ticks) * side > 0:
        # better levels of this side are gone: queues standing there are now empty
        hold = levels.bid if side > 0 else levels.ask
        while best != 0 and (best - price_ticks) * side > 0:
            worse = next_level(levels, side, best)
            gone = hold[best - i[LO_TICK]]
            hold[best - i[LO_TICK]] = 0.0
            queues_at(x, levels, own, side, best, gone, 0.0)
            taken_release(levels, own, side, best, best)
            best = worse
        i[BEST_BID if side > 0 else BEST_ASK] = best
    if qty >= half:
        crosses = (own.i[ASKS] > 0 and price_ticks >= own.i[NEAR_ASK]) if side > 0 else (own.i[BIDS] > 0 and price_ticks <= own.i[NEAR_BID])
        if crosses:
            fill_crossed(x, levels, own, executions, side, price_ticks, qty, best)
    status = level_set(levels, x.rule, half, side, price_ticks, qty)
    if status != OK:
        return status
    if own.i[TAKEN] > 0:
        taken_release(levels, own, side, price_ticks, price_ticks)
        if qty >= half and other != 0 and (price_ticks - other) * side >= 0:
            # the levels of the other side that this one crosses were dropped
            if side > 0:
                taken_release(levels, own, -1, other, price_ticks)
            else:
                taken_release(levels, own, 1, price_ticks, other)
    queues_at(x, levels, own, side, price_ticks, before, qty)
    return OK


# -- our orders arrive -----------------------------------------------------------------------------------------------------------------------


@kernel
def depth_within(x: ExchangeParams, levels: Levels, own: OwnBook, set_index: int, side: int, limit_ticks: int, enough: int) -> int:
    """Lots that a taker of `side` of a set finds up to its limit price, counted no further than `enough`."""
    total = 0
    tick = levels.i[BEST_ASK] if side > 0 else levels.i[BEST_BID]
    while tick != 0 and (limit_ticks - tick) * side >= 0 and total < enough:
        total += lots_at(x, levels, own, set_index, -side, tick)
        tick = next_level(levels, -side, tick)
    return total


@kernel
def own_match(x: ExchangeParams, levels: Levels, own: OwnBook, set_index: int, side: int, limit_ticks: int, lots: int, after: int) -> int:
    """Slot after `after` of an own resting order that an arriving order of `side` would match, -1 = none.

    It does when more is left of it than what stands at better prices and ahead of us at our price.
    """
    slots = own.orders.shape[1] // own.sets.shape[1]
    for slot in range(max(after + 1, set_index * slots), (set_index + 1) * slots):
        if (
            own.orders[ID, slot] == 0
            or own.orders[SIDE, slot] != -side
            or own.orders[NODE, slot] < 0
            or (limit_ticks - own.orders[PRICE_TICKS, slot]) * side < 0
        ):
            continue
        ahead = depth_within(x, levels, own, set_index, side, own.orders[PRICE_TICKS, slot] - side, lots)
        if lots > ahead + max(own.fronts[FRONT, own.orders[NODE, slot]], 0.0) / x.unit:
            return slot
    return -1


@kernel
def exchange_take(
    x: ExchangeParams,
    levels: Levels,
    own: OwnBook,
    executions: Executions,
    now_ns: int,
    set_index: int,
    order_id: int,
    side: int,
    limit_ticks: int,
    lots: int,
    purpose: int,
) -> int:
    """Take liquidity up to a limit price, level by level; returns the lots left, or -1 when the set's list of consumed levels is full."""
    left = lots
    tick = levels.i[BEST_ASK] if side > 0 else levels.i[BEST_BID]
    while left > 0 and tick != 0 and (limit_ticks - tick) * side >= 0:
        have = min(left, lots_at(x, levels, own, set_index, -side, tick))
        if have > 0:
            left -= have
            emit_taker(executions, now_ns, set_index, order_id, side, tick, have, left, purpose)
            if x.rule == CONSERVATIVE and taken_add(levels, own, set_index, -side, tick, have) != 0:
                return -1
        tick = next_level(levels, -side, tick)
    return left


@kernel
def exchange_arrive(
    x: ExchangeParams,
    levels: Levels,
    own: OwnBook,
    executions: Executions,
    cancels: Cancels,
    now_ns: int,
    row_number: int,
    set_index: int,
    order_id: int,
    side: int,
    price_ticks: int,
    lots: int,
    tif: int,
    order_type: int,
    purpose: int,
) -> int:
    """One of our orders reaches the venue: what it matches it takes, then it rests, expires or is filled; executions as they happen.

    A post-only order that would cross expires. IOC and market remainders expire; FOK fills whole or not at all; a GTC remainder rests, or, as the
    reference does with partial fills, fills at its limit. A market order finds nothing on an empty side and expires (the reference fills
    it at the largest integer).
    """
    lo = levels.i[LO_TICK]
    hi = lo + levels.bid.shape[0] - 1
    best = best_for_set(x, levels, own, set_index, -side)
    market = order_type == MARKET
    limit = price_ticks
    if market:
        limit = hi if side > 0 else lo
        if x.rule == REFERENCE and best != 0:
            limit = best + _MARKET_TICKS_BUY - 1 if side > 0 else best - _MARKET_TICKS_SELL + 1
    elif (tif == GTC or tif == GTX) and (price_ticks > hi if side > 0 else price_ticks < lo):
        # it could not be held where the next rows would fill it
        return REJECTED
    crosses = best != 0 and (market or (limit - best) * side >= 0)
    if x.rule == CONSERVATIVE:
        near = (own.i[ASKS] > 0 and limit >= own.i[NEAR_ASK]) if side > 0 else (own.i[BIDS] > 0 and limit <= own.i[NEAR_BID])
        if near and own.sets[RESTING_ORDERS, set_index] > 0:
            fills_whole = tif != FOK or market or depth_within(x, levels, own, set_index, side, limit, lots) >= lots
            slot = own_match(x, levels, own, set_index, side, limit, lots, -1) if fills_whole else -1
            if slot >= 0 and tif == GTX and not market:
                return EXPIRED
            while slot >= 0:
                n = cancels.n[0]
                cancels.set[n] = set_index
                cancels.id[n] = own.orders[ID, slot]
                cancels.leaves_lots[n] = own.orders[LEAVES_LOTS, slot]
                cancels.n[0] = n + 1
                order_remove(levels, own, slot)
                slot = own_match(x, levels, own, set_index, side, limit, lots, slot)
    if crosses:
        if tif == GTX and not market:
            return EXPIRED
        if x.rule == REFERENCE and x.partial == 0:
            emit_taker(executions, now_ns, set_index, order_id, side, best, lots, 0, purpose)
            return FILLED
        if tif == FOK and not market and depth_within(x, levels, own, set_index, side, limit, lots) < lots:
            return EXPIRED
        forced = x.rule == REFERENCE and tif == GTC and not market
        # the reference fills at the limit whatever a GTC order did not find in the book; a buy of its does not even look at the limit's level
        reach = limit - 1 if forced and side > 0 else limit
        left = exchange_take(x, levels, own, executions, now_ns, set_index, order_id, side, reach, lots, purpose)
        if left < 0:
            return TAKEN_FULL
        if left == 0:
            return FILLED
        if market or tif == IOC:
            return EXPIRED
        if forced:
            emit_taker(executions, now_ns, set_index, order_id, side, limit, left, 0, purpose)
            return FILLED
        lots = left
    elif market or tif == IOC or tif == FOK:
        return EXPIRED
    slot = find_order(own, set_index, 0)
    if slot < 0:
        return NO_ROOM
    own.orders[ID, slot] = order_id
    own.orders[SIDE, slot] = side
    own.orders[PRICE_TICKS, slot] = price_ticks
    own.orders[LEAVES_LOTS, slot] = lots
    own.orders[TIF, slot] = tif
    own.orders[ORDER_TYPE, slot] = order_type
    own.orders[PURPOSE, slot] = purpose
    own.orders[ARRIVED_NS, slot] = now_ns
    order_rest(levels, own, slot, row_number)
    return RESTING


@kernel
def exchange_place(
    x: ExchangeParams,
    levels: Levels,
    own: OwnBook,
    executions: Executions,
    cancels: Cancels,
    now_ns: int,
    row_number: int,
    set_index: int,
    order_id: int,
    side: int,
    price_ticks: int,
    lots: int,
    tif: int,
    order_type: int,
    purpose: int,
) -> int:
    """A new order; `REJECTED` for no quantity, a price that is none, or an id that the set has at the venue already."""
    if lots <= 0 or order_id <= 0 or (price_ticks <= 0 and order_type != MARKET) or find_order(own, set_index, order_id) >= 0:
        return REJECTED
    return exchange_arrive(
        x, levels, own, executions, cancels, now_ns, row_number, set_index, order_id, side, price_ticks, lots, tif, order_type, purpose
    )


@kernel
def exchange_cancel(levels: Levels, own: OwnBook, set_index: int, order_id: int) -> int:
    """Cancel by id: returns the lots that were left, or -1 when the order is not at the venue (already gone)."""
    slot = find_order(own, set_index, order_id)
    if slot < 0 or order_id == 0:
        return -1
    order_remove(levels, own, slot)
    return own.orders[LEAVES_LOTS, slot]


@kernel
def exchange_modify(
    x: ExchangeParams,
    levels: Levels,
    own: OwnBook,
    executions: Executions,
    cancels: Cancels,
    now_ns: int,
    row_number: int,
    set_index: int,
    order_id: int,
    price_ticks: int,
    lots: int,
) -> int:
    """Change a resting order's price and what is left of it.

    Fewer lots at the same price keep the place in the queue. A new price or more lots lose it: the order leaves and arrives anew with
    the new price and quantity (it may take, and it may expire). `REJECTED` when it is not at the venue, or the new terms cannot be held: then it stays
    as it was.
    """
    slot = find_order(own, set_index, order_id)
    if slot < 0 or order_id <= 0 or lots <= 0 or price_ticks <= 0:
        return REJECTED
    if price_ticks == own.orders[PRICE_TICKS, slot] and lots <= own.orders[LEAVES_LOTS, slot]:
        own.orders[LEAVES_LOTS, slot] = lots
        return RESTING
    side = own.orders[SIDE, slot]
    lo = levels.i[LO_TICK]
    if price_ticks >= lo + levels.bid.shape[0] if side > 0 else price_ticks < lo:
        return REJECTED
    order_remove(levels, own, slot)
    return exchange_arrive(
        x,
        levels,
        own,
        executions,
        cancels,
        now_ns,
        row_number,
        set_index,
        order_id,
        side,
        price_ticks,
        lots,
        own.orders[TIF, slot],
        own.orders[ORDER_TYPE, slot],
        own.orders[PURPOSE, slot],
    )
