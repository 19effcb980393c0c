"""The venue's matching of our orders against recorded market data: queue position, partial fills, post-only, takers.

Belongs here: what happens at the venue when a row or one of our orders arrives. Does not belong here: latency and message order
(`replay.loop`, `replay.venue`), decisions (`kernels.decision`), money (`kernels.accounting`).

Two rules (CONTRACTS, Two replay modes). `REFERENCE` answers as the field's reference engine does: every own order sees the whole
printed volume, a print or a level beyond our price fills us whole. `CONSERVATIVE`: fills are partial, own orders share the printed
volume, a crossing level fills us at most by its quantity, and our takers consume the levels they hit until the feed restates them.

Quantities ahead (`front`) are floats in lots since the probabilistic queue models give fractions; everything filled is whole lots.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.book import Book, book_lots, book_set, book_top
from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

REFERENCE: Final = 0
CONSERVATIVE: Final = 1

RISK_ADVERSE: Final = 0
LOG_PROB: Final = 1
LOG_PROB2: Final = 2
POWER_PROB: Final = 3
POWER_PROB2: Final = 4
POWER_PROB3: Final = 5
QUEUE_MODELS: Final = {
    "risk_adverse": RISK_ADVERSE,
    "log_prob": LOG_PROB,
    "log_prob2": LOG_PROB2,
    "power_prob": POWER_PROB,
    "power_prob2": POWER_PROB2,
    "power_prob3": POWER_PROB3,
}

# time in force
GTC: Final = 0
GTX: Final = 1  # post-only
IOC: Final = 2
FOK: Final = 3

# answers of the venue to an arriving order
RESTING: Final = 1
EXPIRED: Final = 2
FILLED: Final = 3
NO_ROOM: Final = 4


# of one event: a taker that flattens walks as many levels as lie within its slippage, thin ones by the hundred
MOST_EXECUTIONS: Final = 4096


class ExchangeParams(NamedTuple):
    """How the venue is modelled: rule, queue model and its exponent, whether fills may be partial (REFERENCE only; CONSERVATIVE always),
    base per lot."""

    rule: int
    queue_model: int
    power: float
    partial: int
    lot_size: float


class OwnOrders(NamedTuple):
    """Our orders at the venue, one slot each; `id` 0 marks a free slot. `rank` is the arrival order."""

    id: Int64s
    side: Int64s
    price_ticks: Int64s
    leaves_lots: Int64s
    rank: Int64s
    front_lots: Float64s
    traded_lots: Float64s
    counters: Int64s  # [0] orders resting, [1] next rank


class Executions(NamedTuple):
    """Executions of the event being processed; the caller empties it (`n[0] = 0`) after reading."""

    n: Int64s
    id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    leaves_lots: Int64s
    maker: Int64s


def new_own_orders(capacity: int = 32) -> OwnOrders:
    """Room for `capacity` resting orders of ours."""
    order_id, side, price, leaves, rank = (np.zeros(capacity, dtype=np.int64) for _ in range(5))
    return OwnOrders(order_id, side, price, leaves, rank, np.zeros(capacity), np.zeros(capacity), np.zeros(2, dtype=np.int64))


def new_executions(capacity: int = MOST_EXECUTIONS) -> Executions:
    """Room for the executions of one event."""
    return Executions(np.zeros(1, dtype=np.int64), *(np.zeros(capacity, dtype=np.int64) for _ in range(6)))


@kernel
def round_half_away(x: float) -> float:
    """Nearest whole number, ties away from zero (the rounding of lots in the reference)."""
    if x >= 0.0:
        return math.floor(x + 0.5)
    return -math.floor(-x + 0.5)


@kernel
def log1p_or_nan(x: float) -> float:
    """ln(1 + x), nan where it is not defined (numba and Python agree on that)."""
    return math.log(1.0 + x) if x > -1.0 else math.nan


@kernel
def power_or_nan(x: float, n: float) -> float:
    """x ** n for real results, else nan."""
    if x < 0.0 and n != math.floor(n):
        return math.nan
    return x**n


@kernel
def behind_probability(model: int, power: float, front: float, back: float) -> float:
    """Chance that a decrease of the level happened behind us, given the quantities (base) in front and behind; nan = undefined."""
    num = 0.0
    den = 0.0
    if model == LOG_PROB:
        num = log1p_or_nan(back)
        den = num + log1p_or_nan(front)
    elif model == LOG_PROB2:
        num = log1p_or_nan(back)
        den = log1p_or_nan(back + front)
    elif model == POWER_PROB:
        num = power_or_nan(back, power)
        den = num + power_or_nan(front, power)
    elif model == POWER_PROB2:
        num = power_or_nan(back, power)
        den = power_or_nan(back + front, power)
    elif model == POWER_PROB3:
        den = front + back
        if den == 0.0:
            return math.nan
        return 1.0 - power_or_nan(front / den, power)
    if den == 0.0:
        # the reference turns an infinite chance into certainty, 0/0 stays undefined
        return 1.0 if num > 0.0 else math.nan
    return num / den


@kernel
def queue_after_depth(params: ExchangeParams, front: float, traded: float, before_lots: float, after_lots: float) -> float:
    """Quantity ahead of us after our level went from `before_lots` to `after_lots`, `traded` of which was already seen as prints."""
    if params.queue_model == RISK_ADVERSE:
        return min(front, after_lots)
    decrease = before_lots - after_lots - traded
    if decrease < 0.0:
        return min(front, after_lots)
    back = before_lots - front
    # the logarithmic models are not invariant to the unit: they mean quantities in base
    p = behind_probability(params.queue_model, params.power, front * params.lot_size, back * params.lot_size)
    moved = front - (1.0 - p) * decrease + min(back - p * decrease, 0.0)
    if math.isnan(moved):
        return after_lots
    return min(moved, after_lots)


@kernel
def emit(executions: Executions, order_id: int, side: int, price_ticks: int, lots: int, leaves_lots: int, maker: int) -> None:
    """Append one execution."""
    i = executions.n[0]
    if i < executions.id.shape[0]:
        executions.id[i] = order_id
        executions.side[i] = side
        executions.price_ticks[i] = price_ticks
        executions.lots[i] = lots
        executions.leaves_lots[i] = leaves_lots
        executions.maker[i] = maker
    # counted even when it does not fit: the caller compares n with the capacity and fails loudly
    executions.n[0] = i + 1


@kernel
def release(orders: OwnOrders, slot: int) -> None:
    """Free a slot."""
    orders.id[slot] = 0
    orders.counters[0] -= 1


@kernel
def find_order(orders: OwnOrders, order_id: int) -> int:
    """Slot of one of our resting orders, -1 when it is not at the venue."""
    for slot in range(orders.id.shape[0]):
        if orders.id[slot] == order_id:
            return slot
    return -1


@kernel
def fill_maker(orders: OwnOrders, executions: Executions, slot: int, lots: int) -> None:
    """Fill a resting order by whole lots at its own price."""
    orders.leaves_lots[slot] -= lots
    emit(executions, orders.id[slot], orders.side[slot], orders.price_ticks[slot], lots, orders.leaves_lots[slot], 1)
    if orders.leaves_lots[slot] <= 0:
        release(orders, slot)


@kernel
def next_in_priority(orders: OwnOrders, side: int, limit_ticks: int, after_price: int, after_rank: int) -> int:
    """Next own order of a side, best price then earliest arrival, among those at `limit_ticks` or better and after the given place; -1 = none.

    Start with `after_rank = -1`. Walking by (price, rank) instead of sorting keeps the step free of allocation.
    """
    best = -1
    for slot in range(orders.id.shape[0]):
        if orders.id[slot] == 0 or orders.side[slot] != side or (orders.price_ticks[slot] - limit_ticks) * side < 0:
            continue
        if after_rank >= 0:
            worse = (after_price - orders.price_ticks[slot]) * side
            if worse < 0 or (worse == 0 and orders.rank[slot] <= after_rank):
                continue
        if best < 0:
            best = slot
            continue
        better = (orders.price_ticks[slot] - orders.price_ticks[best]) * side
        if better > 0 or (better == 0 and orders.rank[slot] < orders.rank[best]):
            best = slot
    return best


@kernel
def exchange_on_trade(params: ExchangeParams, orders: OwnOrders, executions: Executions, aggressor: int, price_ticks: int, lots: int) -> None:
    """A print by `aggressor` (+1 bought): our resting orders on the other side at its price queue, those priced better are traded through."""
    if orders.counters[0] == 0 or aggressor == 0:
        return
    side = -aggressor
    used = 0
    after_price = 0
    after_rank = -1
    while True:
        slot = next_in_priority(orders, side, price_ticks, after_price, after_rank)
        if slot < 0:
            return
        after_price = orders.price_ticks[slot]
        after_rank = orders.rank[slot]
        through = orders.price_ticks[slot] != price_ticks
        if params.rule == REFERENCE:
            if through:
                fill_maker(orders, executions, slot, orders.leaves_lots[slot])
                continue
            orders.front_lots[slot] -= lots
            if params.queue_model != RISK_ADVERSE:
                orders.traded_lots[slot] += lots
            reached = round_half_away(-orders.front_lots[slot])
            if reached > 0.0:
                orders.front_lots[slot] = 0.0
                fill = orders.leaves_lots[slot]
                if params.partial == 1 and reached < fill:
                    fill = int(reached)
                fill_maker(orders, executions, slot, fill)
        else:
            if through:
                fill = min(orders.leaves_lots[slot], lots - used)
                if fill > 0:
                    used += fill
                    fill_maker(orders, executions, slot, fill)
                continue
            if params.queue_model != RISK_ADVERSE:
                orders.traded_lots[slot] += lots
            # what is left of the print once the queue ahead and our better orders took theirs; a queue model that has moved us beyond the
            # front (the logarithmic and power ones can) gives no more than the print
            ahead = max(orders.front_lots[slot], 0.0)
            reached = math.floor(lots - used - ahead)
            orders.front_lots[slot] = max(ahead - lots, 0.0)
            if reached > 0.0:
                fill = min(orders.leaves_lots[slot], int(reached))
                used += fill
                fill_maker(orders, executions, slot, fill)


@kernel
def exchange_on_level(
    params: ExchangeParams, orders: OwnOrders, executions: Executions, side: int, price_ticks: int, before_lots: int, after_lots: int, improves: int
) -> None:
    """A level of the venue's book changed: queues at it advance; if it is a new best that crosses our opposite orders, they fill.

    Call after the book was updated; `improves` is 1 when the level is now the best of its side and was not before.
    """
    if orders.counters[0] == 0:
        return
    for slot in range(orders.id.shape[0]):
        if orders.id[slot] != 0 and orders.side[slot] == side and orders.price_ticks[slot] == price_ticks:
            orders.front_lots[slot] = queue_after_depth(
                params, orders.front_lots[slot], orders.traded_lots[slot], float(before_lots), float(after_lots)
            )
            orders.traded_lots[slot] = 0.0
    if improves == 0 or after_lots <= 0:
        return
    used = 0
    after_price = 0
    after_rank = -1
    while True:
        slot = next_in_priority(orders, -side, price_ticks, after_price, after_rank)
        if slot < 0:
            return
        after_price = orders.price_ticks[slot]
        after_rank = orders.rank[slot]
        fill = orders.leaves_lots[slot]
        if params.rule == CONSERVATIVE:
            fill = min(fill, after_lots - used)
            if fill <= 0:
                return
            used += fill
        fill_maker(orders, executions, slot, fill)


@kernel
def exchange_take(
    params: ExchangeParams, book: Book, executions: Executions, order_id: int, side: int, limit_ticks: int, lots: int, walk: int
) -> int:
    """Take liquidity up to a limit price; returns the lots left. With `walk` 0 everything fills at the best price (reference, no partial fills)."""
    bids = book.bid_ticks
    left = lots
    if side > 0:
        at = book.n[1] - 1
        while left > 0 and at >= 0 and book.ask_ticks[at] <= limit_ticks:
            have = left if walk == 0 else min(left, book.ask_lots[at])
            left -= have
            emit(executions, order_id, side, book.ask_ticks[at], have, left, 0)
            if params.rule == CONSERVATIVE:
                book_set(book, -1, book.ask_ticks[at], book.ask_lots[at] - have)
            at -= 1
    else:
        at = book.n[0] - 1
        while left > 0 and at >= 0 and bids[at] >= limit_ticks:
            have = left if walk == 0 else min(left, book.bid_lots[at])
            left -= have
            emit(executions, order_id, side, bids[at], have, left, 0)
            if params.rule == CONSERVATIVE:
                book_set(book, 1, bids[at], book.bid_lots[at] - have)
            at -= 1
    return left


@kernel
def depth_within(book: Book, side: int, limit_ticks: int) -> int:
    """Lots a taker of `side` finds up to its limit price."""
    total = 0
    if side > 0:
        at = book.n[1] - 1
        while at >= 0 and book.ask_ticks[at] <= limit_ticks:
            total += book.ask_lots[at]
            at -= 1
    else:
        at = book.n[0] - 1
        while at >= 0 and book.bid_ticks[at] >= limit_ticks:
            total += book.bid_lots[at]
            at -= 1
    return total


@kernel
def exchange_arrive(
    params: ExchangeParams, book: Book, orders: OwnOrders, executions: Executions, order_id: int, side: int, price_ticks: int, lots: int, tif: int
) -> int:
    """One of our orders reaches the venue. Returns RESTING, EXPIRED, FILLED or NO_ROOM; executions as they happen.

    A post-only order that would cross expires. IOC remainders expire; FOK fills whole or not at all; a GTC remainder rests.
    """
    bid, _, ask, _ = book_top(book)
    crosses = ask > 0 and price_ticks >= ask
    if side < 0:
        crosses = bid > 0 and price_ticks <= bid
    if crosses:
        if tif == GTX:
            return EXPIRED
        walk = 1 if params.rule == CONSERVATIVE or params.partial == 1 else 0
        if tif == FOK and walk == 1 and depth_within(book, side, price_ticks) < lots:
            return EXPIRED
        left = exchange_take(params, book, executions, order_id, side, price_ticks, lots, walk)
        if left == 0:
            return FILLED
        if tif == IOC:
            return EXPIRED
        lots = left
    elif tif == IOC or tif == FOK:
        return EXPIRED
    for slot in range(orders.id.shape[0]):
        if orders.id[slot] == 0:
            orders.id[slot] = order_id
            orders.side[slot] = side
            orders.price_ticks[slot] = price_ticks
            orders.leaves_lots[slot] = lots
            orders.rank[slot] = orders.counters[1]
            orders.front_lots[slot] = float(book_lots(book, side, price_ticks))
            orders.traded_lots[slot] = 0.0
            orders.counters[0] += 1
            orders.counters[1] += 1
            return RESTING
    return NO_ROOM


@kernel
def exchange_cancel(orders: OwnOrders, order_id: int) -> int:
    """Cancel by id: returns the lots that were left, or -1 when the order is not at the venue (already gone)."""
    slot = find_order(orders, order_id)
    if slot < 0:
        return -1
    left = orders.leaves_lots[slot]
    release(orders, slot)
    return left


@kernel
def exchange_on_depth(
    params: ExchangeParams, book: Book, orders: OwnOrders, executions: Executions, side: int, price_ticks: int, lots: int, top: int
) -> int:
    """A depth row (`top` 0) or a best-quote row (`top` 1) at the venue: update its book, advance queues, fill what it crosses.

    Levels of the other side that a new best crosses are dropped: they are stale. Returns 0 or the book's `FULL`.
    """
    bid, _, ask, _ = book_top(book)
    before = book_lots(book, side, price_ticks)
    improves = 0
    if lots > 0 and ((side > 0 and price_ticks > bid) or (side < 0 and (ask == 0 or price_ticks < ask))):
        improves = 1
    if top == 1:
        # better levels of this side are gone: queues standing there are now empty
        if side > 0:
            while book.n[0] > 0 and book.bid_ticks[book.n[0] - 1] > price_ticks:
                gone = book.bid_ticks[book.n[0] - 1]
                gone_lots = book.bid_lots[book.n[0] - 1]
                book.n[0] -= 1
                exchange_on_level(params, orders, executions, side, gone, gone_lots, 0, 0)
        else:
            while book.n[1] > 0 and book.ask_ticks[book.n[1] - 1] < price_ticks:
                gone = book.ask_ticks[book.n[1] - 1]
                gone_lots = book.ask_lots[book.n[1] - 1]
                book.n[1] -= 1
                exchange_on_level(params, orders, executions, side, gone, gone_lots, 0, 0)
    status = book_set(book, side, price_ticks, lots)
    if improves == 1:
        if side > 0:
            while book.n[1] > 0 and book.ask_ticks[book.n[1] - 1] <= price_ticks:
                book.n[1] -= 1
        else:
            while book.n[0] > 0 and book.bid_ticks[book.n[0] - 1] >= price_ticks:
                book.n[0] -= 1
    exchange_on_level(params, orders, executions, side, price_ticks, before, lots, improves)
    return status
