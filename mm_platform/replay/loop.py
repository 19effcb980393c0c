"""The event loop: recorded rows at the venues, decisions of many sets on the local grid, requests and answers travelling between them.

Belongs here: the order in which things happen, and whose money moves. Does not belong here: what happens at a venue (`kernels.venue`), in a
decision (`kernels.decision`) or to a latency (`replay.latency`); building the state and presenting results (`replay.session`, `replay.result`).

Two clocks on one axis. A row acts at its venue at its `exch_ts`; a decision at grid time t sees rows with `local_ts <= t` (they are in the
features) and answers that arrived by t. A request sent at t arrives at t + entry latency, FIFO per venue; an answer leaves at the venue's time and
arrives after the response latency, FIFO. At one instant: local data, answers, rows at the venues, arriving requests, then decisions (an order that
arrives at t is not filled by a print at t; a cancel that arrives at t loses to it).

Rows outer, sets inner. Rows are shared; what is due next for a set (parameters, an arriving request, a decision, its end) is kept per set and,
as a minimum, per block of sets, so rows run undisturbed until the next time at which any set has something to do. Answers change nothing but their
set's local side, so they wait in their queue until that set decides. Sets do not touch each other: each has its orders, messages and ledgers.

All state is in arrays. `replay_span` returns before an event that a log or the message pool could not hold, and goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.accounting import (
    CASH,
    FEES,
    POSITION,
    TRAILING_VOLUME,
    FeeTiers,
    ledger_equity_quote,
    ledger_fill,
    ledger_funding,
    ledger_mark,
    money_at,
)
from mm_platform.kernels.decision import (
    ACT_PLACE,
    F_SIZE,
    I_SIZE,
    NEXT_ID,
    NO_VIEW,
    Actions,
    LocalState,
    MarketView,
    decide_step,
    local_on_ack,
    local_on_fill,
    local_on_funding,
    local_on_gone,
    local_on_reject,
)
from mm_platform.kernels.exchange import (
    ASKS,
    BIDS,
    EXPIRED,
    FILLED,
    GTX,
    LIMIT,
    MARKET,
    MOST_TAKEN,
    NO_ROOM,
    RESTING,
    TAKEN,
    TAKEN_ASK,
    TAKEN_BID,
    TAKEN_FULL,
    TAKEN_N,
    TAKEN_SIDE,
    TAKEN_TICKS,
    Executions,
    best_for_set,
    order_remove,
)
from mm_platform.kernels.exchange import (
    ID as SLOT_ID,
)
from mm_platform.kernels.exchange import (
    LEAVES_LOTS as SLOT_LEAVES_LOTS,
)
from mm_platform.kernels.exchange import (
    PRICE_TICKS as SLOT_PRICE_TICKS,
)
from mm_platform.kernels.exchange import (
    SIDE as SLOT_SIDE,
)
from mm_platform.kernels.hedge_pnl import PairUnits, pair_fill, pair_mark
from mm_platform.kernels.jit import Kernel, kernel
from mm_platform.kernels.levels import LO_TICK
from mm_platform.kernels.margin import LIQUIDATED, MarginParams, ledger_margin
from mm_platform.kernels.money import Money
from mm_platform.kernels.orders import FLATTEN, HEDGE, LIVE, PENDING_CANCEL, LocalOrders, local_add, local_find, local_free
from mm_platform.kernels.queue import ExchangeParams
from mm_platform.kernels.venue import (
    CANCEL,
    MID_HALF,
    MODIFY,
    PLACE,
    STATUS,
    VenueState,
    venue_after_row,
    venue_on_request,
    venue_on_rows,
)
from mm_platform.replay import messages, strategy
from mm_platform.replay.latency import Latencies, entry_latency_ns, response_latency_ns
from mm_platform.replay.messages import (
    ACK,
    ANSWERS,
    CANCEL_REJECT,
    FILL,
    FOREVER,
    FREE_LEFT,
    GONE,
    HEAD_NS,
    LOST,
    MODIFIED,
    MODIFY_REJECT,
    REJECT,
    REQUESTS,
    FillLog,
    Mailbox,
    OrderLog,
    log_order,
    pop,
    push,
)
from mm_platform.replay.strategy_rows import unpack_money, unpack_params

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Int16s = npt.NDArray[np.int16]
Float64s = npt.NDArray[np.float64]

P = ParamSpec("P")
R = TypeVar("R")


def inlined(step: Kernel[P, R]) -> Kernel[P, R]:
    """The same kernel, compiled into its caller.

    A compiled call hands over its tuples of arrays word by word, hundreds of words for the state of a run, and that cost six times the work itself.
    For the steps of every decision only: each use is a copy.
    """
    made = Kernel(step.py, allocates=False)
    made.numba_options = {**made.numba_options, "forceinline": True}
    return made


# status of a span
DONE: Final = 0
FILL_LOG_FULL: Final = 1
ORDER_LOG_FULL: Final = 2
POOL_LOW: Final = 3
OUTSIDE_WINDOW: Final = 4
EXECUTIONS_FULL: Final = 5
STAMPS_FULL: Final = 6

# status of a set
WAITING: Final = 0  # not started
RUNNING: Final = 1
ENDED: Final = 2
RAISED: Final = 3  # the user's function raised
NOT_A_NUMBER: Final = 4  # the user's function returned nan
BAD_ACTION: Final = 5  # the user's function asked for something that makes no sense
WAS_LIQUIDATED: Final = 6
TAKEN_TOO_MUCH: Final = 7  # takers consumed more levels than the venue keeps

# kinds and flags as plain numbers (mm_platform.tape.layout; a test keeps them equal)
MARK_ROW: Final = 6
FUNDING_ROW: Final = 8

# places in a set's row of Sets.ints: what decisions remember, when, counts
LATCHES_AT: Final = 0
CLOCK_AT: Final = LATCHES_AT + I_SIZE
C_STATUS: Final = CLOCK_AT
C_GRID: Final = CLOCK_AT + 1  # next decision
C_ENTRY: Final = CLOCK_AT + 2  # row of Sets.params that holds now; -1: none yet
C_NEXT_ENTRY: Final = CLOCK_AT + 3
C_LAST_ENTRY: Final = CLOCK_AT + 4  # one past the set's last
C_END_NS: Final = CLOCK_AT + 5  # exclusive
C_STAMP: Final = CLOCK_AT + 6  # funding stamps of venue 0 and 1 seen by the local side
C_START_NS: Final = CLOCK_AT + 8
C_STOPPED_NS: Final = CLOCK_AT + 9
C_LAST_MID: Final = CLOCK_AT + 10  # twice the first venue's mid when the set ended
USED_AT: Final = CLOCK_AT + 11  # columns of the order table in use
COUNTERS_AT: Final = USED_AT + 1
# places in a set's row of Sets.floats
MEMORY_AT: Final = 0  # what the platform's decisions remember
MONEY_AT: Final = MEMORY_AT + F_SIZE  # what an account is charged, venue 0 and 1
MONEY_SIZE: Final = 6
LAST_EQUITY: Final = MONEY_AT + 2 * MONEY_SIZE
LAST_DISTANCE: Final = LAST_EQUITY + 1
FLOATS_SIZE: Final = LAST_DISTANCE + 1

# places of a venue in Wires.venue_i
V_ROW: Final = 0
V_ROWS_BEFORE: Final = 1  # rows of the pieces before this one
V_STAMPS: Final = 2
V_BALANCE_LOTS: Final = 3  # -1: not limited
V_FUNDING_ROW: Final = 4  # next of VenueSide.funding_row
VENUE_I_SIZE: Final = 5
# places of a venue in Wires.venue_f
V_MARK_PRICE: Final = 0  # of the last mark row, nan before the first
V_BALANCE_QUOTE: Final = 1
V_COLLATERAL: Final = 2  # 0: margin is not tracked
V_MAX_LEVERAGE: Final = 3
V_MAINTENANCE_FRAC: Final = 4
VENUE_F_SIZE: Final = 5

MOST_STAMPS: Final = 256

# places in Wires.run_i
R_RUNNING_SET: Final = 0  # the set whose user function is being called, -1 = none
R_BAD_VENUE: Final = 1
RUN_I_SIZE: Final = 2

# columns of a grid
G_VALID: Final = 0
G_BID_TICKS: Final = 1
G_ASK_TICKS: Final = 2
GRID_SIZE: Final = 7

# counters
C_DECISIONS: Final = 0
C_VALID: Final = 1
C_QUOTED_SIDES: Final = 2  # sides with a wanted price, over all decisions
C_ORDERS: Final = 3
C_CANCELS: Final = 4
C_REJECTS: Final = 5
C_CANCEL_REJECTS: Final = 6
C_HEDGES: Final = 7
C_FLATTENS: Final = 8
C_ABS_POSITION: Final = 9  # lots, summed over valid decisions
C_QUOTES_SENT: Final = 10
C_LOST: Final = 11  # requests that never reached a venue
C_CLAMP0: Final = 16  # one per clamp bit
C_REASON0: Final = 32  # one per risk reason bit
COUNTERS_SIZE: Final = 48
INTS_SIZE: Final = COUNTERS_AT + COUNTERS_SIZE

# sets whose next times are kept as one minimum
BLOCK: Final = 32


class Rows(NamedTuple):
    """The tape's columns that the venue needs, in venue order; `qty` in book units."""

    exch_ts: Int64s
    local_ts: Int64s
    kind: Int8s
    side: Int8s
    flags: Int16s
    price_ticks: Int64s
    qty: Float64s
    seq: Int64s
    value: Float64s
    aux: Float64s


class VenueSide(NamedTuple):
    """A venue of a run: model, book and orders of all sets, rows, and which of these are funding stamps."""

    x: ExchangeParams
    venue: VenueState
    rows: Rows
    funding_row: Int64s
    funding_ns: Int64s


class Sets(NamedTuple):
    """State of all sets, one row each by the places above.

    local, truth (2, sets, LEDGER_SIZE) : ledgers at both venues as the local side knows them, and the venues' own; `pair` the joint sums of the latter.
    orders (sets, 7, 32) : what the local sides know of them. params, entry_ns : the schedules, one after the other. memory : a user's strategy's.
    """

    ints: Int64s
    floats: Float64s
    local: Int64s
    truth: Int64s
    pair: Int64s
    orders: Int64s
    due: Int64s
    block_due: Int64s
    params: Float64s
    entry_ns: Int64s
    memory: Float64s


class Wires(NamedTuple):
    """What sets and venues have in common, few arrays on purpose: compiled code hands a tuple of arrays on word by word.

    stamp_ns (2, MOST_STAMPS), stamps (2, 2, MOST_STAMPS) : funding stamps that happened, when the local sides learn of them; rate and price.
    tiers_i (2, n), tiers_f (2, 2, n) : fee tiers of both venues.
    """

    sets: Sets
    box: Mailbox
    latencies: Latencies
    fills: FillLog
    requests: OrderLog
    venue_i: Int64s
    venue_f: Float64s
    stamp_ns: Int64s
    stamps: Float64s
    tiers_i: Int64s
    tiers_f: Float64s
    run_i: Int64s


class Facts(NamedTuple):
    """What holds for the whole run: two venues or one, the common unit of their lots, the second's currency in the first's, room for one event."""

    two: int
    units: PairUnits
    hedge_rate: float
    room: int


class Desk(NamedTuple):
    """What decisions are made on and with: grid times, views (venues, decisions, GRID_SIZE), the user's features (decisions, k), room for actions,
    what a user's function is shown."""

    grid_ts: Int64s
    grid: Float64s
    extra: Float64s
    n_actions: Int64s
    actions: Int64s
    shown: Float64s
    position_lots: Int64s


class Samples(NamedTuple):
    """Accounts on the venue's truth at chosen decisions: `at[g]` is the column of grid time g, -1 = none.

    i : (3, sets, columns) positions at both venues in lots, twice the first venue's mid. f : (2, sets, columns) equity in quote, liquidation distance.
    """

    at: Int64s
    i: Int64s
    f: Float64s


# -- a set's parts -----------------------------------------------------------------------------------------------------------------------------


@kernel
def money_row(sets: Sets, v: int, s: int) -> Money:
    """What a set is charged at a venue, before tiers."""
    return unpack_money(sets.floats[s], MONEY_AT + v * MONEY_SIZE)


@kernel
def charged(w: Wires, v: int, s: int, ledger: Int64s) -> Money:
    """What a set is charged at a venue, at the tier that a ledger has reached."""
    return money_at(money_row(w.sets, v, s), FeeTiers(w.tiers_i[v], w.tiers_f[v, 0], w.tiers_f[v, 1]), ledger[TRAILING_VOLUME])


@kernel
def local_state(sets: Sets, s: int) -> LocalState:
    """The local state of one set: views of its rows."""
    row = sets.ints[s]
    o = sets.orders[s]
    return LocalState(
        row[LATCHES_AT : LATCHES_AT + I_SIZE],
        sets.floats[s][MEMORY_AT : MEMORY_AT + F_SIZE],
        sets.local[0, s],
        sets.local[1, s],
        LocalOrders(o[0], o[1], o[2], o[3], o[4], o[5], o[6], row[USED_AT : USED_AT + 1]),
    )


# -- when --------------------------------------------------------------------------------------------------------------------------------------


@kernel
def set_due(sets: Sets, box: Mailbox, grid_ts: Int64s, s: int) -> None:
    """Note when a set has something to do next."""
    clock = sets.ints[s]
    due = FOREVER
    if clock[C_STATUS] <= RUNNING:
        if clock[C_NEXT_ENTRY] < clock[C_LAST_ENTRY]:
            due = sets.entry_ns[clock[C_NEXT_ENTRY]]
        due = min(due, clock[C_END_NS] - 1)
        if clock[C_STATUS] == RUNNING:
            due = min(due, min(box.queues[s, REQUESTS, HEAD_NS], box.queues[s, REQUESTS + 1, HEAD_NS]))
            g = clock[C_GRID]
            if g < grid_ts.shape[0]:
                due = min(due, grid_ts[g])
    sets.due[s] = due


@kernel
def begin_piece(sets: Sets, box: Mailbox, grid_ts: Int64s) -> None:
    """New rows and decisions were put in: grids start anew, next times are looked up."""
    sets.block_due[:] = FOREVER
    for s in range(sets.due.shape[0]):
        sets.ints[s, C_GRID] = 0
        set_due(sets, box, grid_ts, s)
        sets.block_due[s // BLOCK] = min(sets.block_due[s // BLOCK], sets.due[s])


# -- at the venue ------------------------------------------------------------------------------------------------------------------------------


@kernel
def answer(w: Wires, v: int, s: int, now_ns: int, kind: int, order_id: int, price_ticks: int, lots: int, mode: int) -> int:
    """Send an answer that is no execution; returns when it arrives."""
    node = push(w.box, s, ANSWERS + v, now_ns + response_latency_ns(w.latencies, v, s, now_ns))
    m = w.box.pool[node]
    m[messages.WHAT] = kind
    m[messages.ID] = order_id
    m[messages.PRICE_TICKS] = price_ticks
    m[messages.LOTS] = lots
    m[messages.MODE] = mode
    return m[messages.ARRIVES_NS]


@kernel
def mark_set(sets: Sets, facts: Facts, s: int, mid_half: int, hedge_mid_half: int) -> None:
    """Mark a set's true ledgers at the venues' mids of this instant (half ticks, 0 = not known)."""
    money = money_row(sets, 0, s)
    if facts.two == 1:
        pair_mark(
            sets.pair[s], facts.units, sets.truth[0, s], money, mid_half, sets.truth[1, s], money_row(sets, 1, s), hedge_mid_half
        )  # fmt: skip
    elif mid_half != 0:
        ledger_mark(sets.truth[0, s], money, mid_half)


@kernel
def book_execution(w: Wires, facts: Facts, e: Executions, k: int, v: int, now_ns: int, mid_half: int, other_mid_half: int, unit: float) -> int:
    """Execution `k` of the event at hand: the set's true ledgers, the log, the answer on its way; returns when it arrives."""
    s = e.set[k]
    price_ticks = e.price_ticks[k]
    side = e.side[k]
    lots = e.lots[k]
    maker = e.maker[k]
    if mid_half == 0:
        mid_half = 2 * price_ticks
    # what the decision saw travels with the purpose, for the venue hands that back
    purpose = e.purpose[k] & 3
    decided = e.purpose[k] >> 2
    ledger = w.sets.truth[v, s]
    money = charged(w, v, s, ledger)
    if facts.two == 1:
        other = money_row(w.sets, 1 - v, s)
        first = w.sets.truth[0, s]
        second = w.sets.truth[1, s]
        fee = pair_fill(
            w.sets.pair[s],
            facts.units,
            first,
            money if v == 0 else other,
            mid_half if v == 0 else other_mid_half,
            second,
            other if v == 0 else money,
            other_mid_half if v == 0 else mid_half,
            v,
            side,
            price_ticks,
            lots,
            maker,
            decided,
        )
    else:
        fee = ledger_fill(ledger, money, side, price_ticks, lots, maker, mid_half)
    node = push(w.box, s, ANSWERS + v, now_ns + response_latency_ns(w.latencies, v, s, now_ns))
    m = w.box.pool[node]
    m[messages.WHAT] = FILL
    m[messages.ID] = e.id[k]
    m[messages.SIDE] = side
    m[messages.PRICE_TICKS] = price_ticks
    m[messages.LOTS] = lots
    m[messages.EXTRA] = e.leaves_lots[k]
    m[messages.MODE] = maker
    m[messages.MID_HALF] = mid_half
    n = w.fills.n[0]
    row = w.fills.i
    row[messages.F_SET, n] = s
    row[messages.F_VENUE, n] = v
    row[messages.F_EXCH_NS, n] = now_ns
    row[messages.F_LOCAL_NS, n] = m[messages.ARRIVES_NS]
    row[messages.F_ID, n] = e.id[k]
    row[messages.F_SIDE, n] = side
    row[messages.F_PRICE_TICKS, n] = price_ticks
    row[messages.F_LOTS, n] = lots
    row[messages.F_LEAVES_LOTS, n] = e.leaves_lots[k]
    row[messages.F_MAKER, n] = maker
    row[messages.F_PURPOSE, n] = purpose
    row[messages.F_MID_HALF, n] = mid_half
    row[messages.F_FEE_NANO, n] = fee
    row[messages.F_POSITION_LOTS, n] = ledger[POSITION]
    row[messages.F_ARRIVED_NS, n] = e.arrived_ns[k]
    row[messages.F_DECIDED_MID_HALF, n] = decided
    w.fills.front[0, n] = e.front_arrival[k] / unit if maker == 1 else math.nan
    w.fills.front[1, n] = e.front_fill[k] / unit if maker == 1 else math.nan
    w.fills.n[0] = n + 1
    return m[messages.ARRIVES_NS]


@kernel
def on_funding(w: Wires, facts: Facts, v: int, local_ts: int, rate: float, price: float, mid_half: int, hedge_mid_half: int) -> int:
    """A funding stamp: every set pays or receives on what it holds, on the venue's own mark; the local sides learn of it later."""
    sets = w.sets
    n = w.venue_i[v, V_STAMPS]
    for s in range(sets.due.shape[0]):
        if sets.ints[s, C_STATUS] == RUNNING and n - sets.ints[s, C_STAMP + v] >= MOST_STAMPS:
            return STAMPS_FULL
    if not price > 0.0:
        price = w.venue_f[v, V_MARK_PRICE]
    # kept in order of local time: stamps of one venue are hours apart, so this moves nothing as a rule
    at = n
    while at > 0 and at > n - MOST_STAMPS + 1 and w.stamp_ns[v, (at - 1) % MOST_STAMPS] > local_ts:
        w.stamp_ns[v, at % MOST_STAMPS] = w.stamp_ns[v, (at - 1) % MOST_STAMPS]
        w.stamps[v, 0, at % MOST_STAMPS] = w.stamps[v, 0, (at - 1) % MOST_STAMPS]
        w.stamps[v, 1, at % MOST_STAMPS] = w.stamps[v, 1, (at - 1) % MOST_STAMPS]
        at -= 1
    w.stamp_ns[v, at % MOST_STAMPS] = local_ts
    w.stamps[v, 0, at % MOST_STAMPS] = rate
    w.stamps[v, 1, at % MOST_STAMPS] = price
    w.venue_i[v, V_STAMPS] = n + 1
    for s in range(sets.due.shape[0]):
        if sets.ints[s, C_STATUS] != RUNNING:
            # a set that has not started holds nothing
            sets.ints[s, C_STAMP + v] = n + 1
            continue
        ledger = sets.truth[v, s]
        if ledger[POSITION] != 0:
            # the newest mid, should the venue have published no mark
            mark_set(sets, facts, s, mid_half, hedge_mid_half)
            ledger_funding(ledger, money_row(sets, v, s), rate, price)
    return DONE


@inlined
@kernel
def next_rows(w: Wires, facts: Facts, side: VenueSide, v: int, last_ns: int) -> tuple[int, int]:
    """Rows of a venue with `exch_ts <= last_ns`, until one of them has something for the sets: (status, that row or -1 when all are done).

    Mark rows are read on the way. The row that stopped is open: `close_row` goes on behind it.
    """
    rows = side.rows
    n = rows.exch_ts.shape[0]
    begin = w.venue_i[v, V_ROW]
    end = begin
    while end < n and rows.exch_ts[end] <= last_ns:
        end += 1
    while begin < end:
        if w.fills.n[0] + facts.room > w.fills.i.shape[1]:
            return FILL_LOG_FULL, -1
        if w.box.free[FREE_LEFT] < facts.room:
            return POOL_LOW, -1
        at = venue_on_rows(side.x, side.venue, rows.kind, rows.side, rows.flags, rows.price_ticks, rows.qty, rows.seq, begin, end)
        w.venue_i[v, V_ROW] = at
        if at == end:
            return DONE, -1
        if side.venue.i[STATUS] != 0:
            w.run_i[R_BAD_VENUE] = v
            return OUTSIDE_WINDOW, -1
        if side.venue.executions.n[0] > facts.room:
            return EXECUTIONS_FULL, -1
        if side.venue.executions.n[0] > 0 or rows.kind[at] == FUNDING_ROW:
            return DONE, at
        if rows.kind[at] == MARK_ROW:
            w.venue_f[v, V_MARK_PRICE] = rows.value[at]
        begin = at + 1
        w.venue_i[v, V_ROW] = begin
    return DONE, -1


@inlined
@kernel
def close_row(w: Wires, facts: Facts, side: VenueSide, v: int, at: int, other_mid_half: int) -> int:
    """What an open row did to the sets, at the other venue's mid of its instant; returns a status."""
    rows = side.rows
    mid_half = side.venue.i[MID_HALF]
    if rows.kind[at] == FUNDING_ROW:
        first = mid_half if v == 0 else other_mid_half
        second = other_mid_half if v == 0 else mid_half
        status = on_funding(w, facts, v, rows.local_ts[at], rows.value[at], rows.aux[at], first, second)
        if status != DONE:
            return status
    for k in range(side.venue.executions.n[0]):
        book_execution(w, facts, side.venue.executions, k, v, rows.exch_ts[at], mid_half, other_mid_half, side.x.unit)
    venue_after_row(side.venue, int(rows.kind[at]), int(rows.flags[at]))
    w.venue_i[v, V_ROW] = at + 1
    return DONE


@inlined
@kernel
def rows_until(w: Wires, facts: Facts, a: VenueSide, last_ns: int) -> int:
    """Rows of the only venue with `exch_ts <= last_ns`; returns a status."""
    while True:
        status, at = next_rows(w, facts, a, 0, last_ns)
        if status != DONE or at < 0:
            return status
        status = close_row(w, facts, a, 0, at, 0)
        if status != DONE:
            return status


@kernel
def is_quiet(w: Wires, b: VenueSide, last_ns: int) -> int:
    """1 when no row of the hedge venue up to a time can have anything for the sets: none of their orders rests there, no funding is due."""
    if b.venue.own.i[BIDS] != 0 or b.venue.own.i[ASKS] != 0:
        return 0
    n = w.venue_i[1, V_FUNDING_ROW]
    while n < b.funding_ns.shape[0] and b.funding_ns[n] <= last_ns:
        if b.funding_row[n] >= w.venue_i[1, V_ROW]:
            w.venue_i[1, V_FUNDING_ROW] = n
            return 0
        n += 1
    w.venue_i[1, V_FUNDING_ROW] = n
    return 1


@kernel
def rows_of_both(w: Wires, facts: Facts, a: VenueSide, b: VenueSide, last_ns: int) -> int:
    """Rows of two venues in order of time, the first venue's first: what happens on one is measured against the other's mid of that instant.

    While the hedge venue has nothing for the sets, its rows are only caught up with where the first venue's have.
    """
    if is_quiet(w, b, last_ns) == 1:
        while True:
            status, at = next_rows(w, facts, a, 0, last_ns)
            if status != DONE:
                return status
            # this cannot stop half way: the room that the first venue's row found is still there, and nothing fills here
            status, _ = next_rows(w, facts, b, 1, a.rows.exch_ts[at] - 1 if at >= 0 else last_ns)
            if status == DONE and at >= 0:
                status = close_row(w, facts, a, 0, at, b.venue.i[MID_HALF])
            if status != DONE or at < 0:
                return status
    while True:
        i = w.venue_i[0, V_ROW]
        j = w.venue_i[1, V_ROW]
        next_a = a.rows.exch_ts[i] if i < a.rows.exch_ts.shape[0] else FOREVER
        next_b = b.rows.exch_ts[j] if j < b.rows.exch_ts.shape[0] else FOREVER
        if min(next_a, next_b) > last_ns:
            return DONE
        if next_a <= next_b:
            status, at = next_rows(w, facts, a, 0, min(last_ns, next_b))
            if status == DONE and at >= 0:
                status = close_row(w, facts, a, 0, at, b.venue.i[MID_HALF])
        else:
            status, at = next_rows(w, facts, b, 1, min(last_ns, next_a - 1))
            if status == DONE and at >= 0:
                status = close_row(w, facts, b, 1, at, a.venue.i[MID_HALF])
        if status != DONE:
            return status


@kernel
def lacks_funds(
    w: Wires, x: ExchangeParams, venue: VenueState, v: int, s: int, order_id: int, order_side: int, price_ticks: int, lots: int, order_type: int
) -> int:
    """1 when a spot account does not cover an order, what its resting orders may still use being kept aside (the order's own old terms are not).

    A market order is counted at the best price it finds.
    """
    own = venue.own
    money = money_row(w.sets, v, s)
    ledger = w.sets.truth[v, s]
    lot_quote = money.tick_size * money.lot_base
    dearer = 1.0 + max(max(money.maker_fee, money.taker_fee), 0.0)
    slots = own.orders.shape[1] // own.sets.shape[1]
    lots_aside = 0
    quote_aside = 0.0
    for slot in range(s * slots, (s + 1) * slots):
        if own.orders[SLOT_ID, slot] == 0 or own.orders[SLOT_ID, slot] == order_id or own.orders[SLOT_SIDE, slot] != order_side:
            continue
        lots_aside += own.orders[SLOT_LEAVES_LOTS, slot]
        quote_aside += own.orders[SLOT_PRICE_TICKS, slot] * own.orders[SLOT_LEAVES_LOTS, slot] * lot_quote * dearer
    if order_side < 0:
        return 1 if lots > w.venue_i[v, V_BALANCE_LOTS] + ledger[POSITION] - lots_aside else 0
    if order_type == MARKET:
        price_ticks = best_for_set(x, venue.levels, own, s, -1)
    quote = w.venue_f[v, V_BALANCE_QUOTE] + 0.5 * lot_quote * ledger[CASH] - ledger[FEES] * 1e-9 - quote_aside
    # a two-hundredth of a lot's tick for float noise
    return 1 if price_ticks * lots * lot_quote * dearer > quote + 0.005 * lot_quote else 0


@inlined
@kernel
def on_request(w: Wires, facts: Facts, x: ExchangeParams, venue: VenueState, v: int, s: int, other_mid_half: int) -> int:
    """The oldest request of a set reaches a venue, which answers."""
    m = w.box.pool[pop(w.box, s, REQUESTS + v)]
    now = m[messages.ARRIVES_NS]
    what = m[messages.WHAT]
    order_id = m[messages.ID]
    order_side = m[messages.SIDE]
    price_ticks = m[messages.PRICE_TICKS]
    wanted = m[messages.LOTS]
    tif = m[messages.EXTRA]
    order_type = m[messages.MODE]
    purpose = m[messages.PURPOSE]
    decided = m[messages.MID_HALF]
    sent = m[messages.SENT_NS]
    lots = wanted
    kind = 0
    outcome = messages.REJECTED_BY_VENUE
    if what == PLACE and purpose == FLATTEN:
        # a quote may have filled while the order travelled: flattening never builds a position
        lots = min(lots, max(-order_side * w.sets.truth[v, s, POSITION], 0))
        if lots == 0:
            kind = GONE
            outcome = messages.HAS_EXPIRED
    if what != CANCEL and kind == 0 and w.venue_i[v, V_BALANCE_LOTS] >= 0:
        # a modification names no side: that of the order it modifies
        buys = order_side if what == PLACE else side_of(venue, s, order_id)
        if buys != 0 and lacks_funds(w, x, venue, v, s, order_id, buys, price_ticks, lots, order_type) == 1:
            kind = REJECT if what == PLACE else MODIFY_REJECT
    answered = 0
    if kind == 0:
        got = venue_on_request(
            x,
            venue,
            now,
            w.venue_i[v, V_ROWS_BEFORE] + w.venue_i[v, V_ROW],
            s,
            what,
            order_id,
            order_side,
            price_ticks,
            lots,
            tif,
            order_type,
            purpose | decided << 2,
        )
        if what == CANCEL:
            kind = GONE if got >= 0 else CANCEL_REJECT
            if got >= 0:
                outcome = messages.CANCELLED
        else:
            # orders that self-trade prevention cancelled, then what executed, then what became of the order itself
            for k in range(venue.cancels.n[0]):
                answer(w, v, s, now, GONE, venue.cancels.id[k], 0, 0, 0)
            if venue.executions.n[0] > facts.room:
                return EXECUTIONS_FULL
            for k in range(venue.executions.n[0]):
                answered = book_execution(w, facts, venue.executions, k, v, now, venue.i[MID_HALF], other_mid_half, x.unit)
            if got == RESTING:
                kind = ACK if what == PLACE else MODIFIED
                outcome = messages.RESTED if what == PLACE else messages.WAS_MODIFIED
            elif got == EXPIRED:
                kind = REJECT if tif == GTX and order_type == LIMIT and what == PLACE else GONE
                outcome = messages.HAS_EXPIRED
            elif got == FILLED:
                outcome = messages.FILLED_WHOLE
            elif got == TAKEN_FULL:
                w.sets.ints[s, C_STATUS] = TAKEN_TOO_MUCH
                kind = GONE
            else:
                kind = REJECT if what == PLACE or got == NO_ROOM else MODIFY_REJECT
    if kind != 0:
        if kind == MODIFIED:
            # a modification that traded first leaves less than it asked for
            lots = leaves_of(venue, s, order_id)
        answered = answer(w, v, s, now, kind, order_id, price_ticks, lots, what)
    log_order(
        w.requests, s, v, order_id, what, order_side, price_ticks, wanted, tif, order_type, purpose, sent, now, answered, outcome
    )  # fmt: skip
    return DONE


@kernel
def slot_of(venue: VenueState, s: int, order_id: int) -> int:
    """Slot of a set's resting order, -1 when it is not at the venue."""
    own = venue.own
    slots = own.orders.shape[1] // own.sets.shape[1]
    for slot in range(s * slots, (s + 1) * slots):
        if own.orders[SLOT_ID, slot] == order_id:
            return slot
    return -1


@kernel
def side_of(venue: VenueState, s: int, order_id: int) -> int:
    """Side of a resting order, 0 when it is not at the venue."""
    slot = slot_of(venue, s, order_id)
    return venue.own.orders[SLOT_SIDE, slot] if slot >= 0 else 0


@kernel
def leaves_of(venue: VenueState, s: int, order_id: int) -> int:
    """Lots left of a resting order."""
    slot = slot_of(venue, s, order_id)
    return venue.own.orders[SLOT_LEAVES_LOTS, slot] if slot >= 0 else 0


@kernel
def leave_venue(venue: VenueState, s: int) -> None:
    """Take a set's orders and what it consumed out of a venue: it has stopped."""
    own = venue.own
    slots = own.orders.shape[1] // own.sets.shape[1]
    for slot in range(s * slots, (s + 1) * slots):
        if own.orders[SLOT_ID, slot] != 0:
            order_remove(venue.levels, own, slot)
    for k in range(s * MOST_TAKEN, s * MOST_TAKEN + own.sets[TAKEN_N, s]):
        marks = own.ticks[TAKEN_BID if own.taken[TAKEN_SIDE, k] > 0 else TAKEN_ASK]
        marks[own.taken[TAKEN_TICKS, k] - venue.levels.i[LO_TICK]] -= 1
        own.i[TAKEN] -= 1
    own.sets[TAKEN_N, s] = 0


# -- at the local side -------------------------------------------------------------------------------------------------------------------------


@kernel
def local_modified(state: LocalState, order_id: int, price_ticks: int, lots: int) -> None:
    """The venue modified the order."""
    at = local_find(state.orders, order_id)
    if at >= 0:
        state.orders.price_ticks[at] = price_ticks
        state.orders.leaves_lots[at] = lots
        local_live_again(state, order_id)


@kernel
def local_left(state: LocalState, order_id: int, leaves_lots: int) -> None:
    """An execution left so much of the order."""
    at = local_find(state.orders, order_id)
    if at >= 0:
        state.orders.leaves_lots[at] = leaves_lots
        if leaves_lots <= 0:
            local_free(state.orders, at)


@kernel
def local_live_again(state: LocalState, order_id: int) -> None:
    """A request that would have changed or ended the order did not: it stands as it was."""
    at = local_find(state.orders, order_id)
    if at >= 0 and (state.orders.status[at] == PENDING_CANCEL or state.orders.status[at] == strategy.PENDING_MODIFY):
        state.orders.status[at] = LIVE


@inlined
@kernel
def on_answer(w: Wires, v: int, s: int, custom: int) -> None:
    """The oldest answer of a venue reaches a set."""
    m = w.box.pool[pop(w.box, s, ANSWERS + v)]
    state = local_state(w.sets, s)
    counters = w.sets.ints[s][COUNTERS_AT:]
    kind = m[messages.WHAT]
    order_id = m[messages.ID]
    if kind == ACK:
        local_on_ack(state, order_id)
    elif kind == FILL:
        ledger = w.sets.local[v, s]
        money = charged(w, v, s, ledger)
        if custom == 1:
            ledger_fill(ledger, money, m[messages.SIDE], m[messages.PRICE_TICKS], m[messages.LOTS], m[messages.MODE], m[messages.MID_HALF])
            local_left(state, order_id, m[messages.EXTRA])
        else:
            local_on_fill(
                unpack_params(w.sets.params[w.sets.ints[s, C_ENTRY]]),
                state,
                money,
                v,
                order_id,
                m[messages.SIDE],
                m[messages.PRICE_TICKS],
                m[messages.LOTS],
                m[messages.EXTRA],
                m[messages.MODE],
                m[messages.MID_HALF],
                m[messages.ARRIVES_NS],
            )
    elif kind == GONE:
        local_on_gone(state, order_id)
    elif kind == REJECT:
        counters[C_REJECTS] += 1
        if custom == 1:
            local_on_gone(state, order_id)
        else:
            local_on_reject(state, unpack_params(w.sets.params[w.sets.ints[s, C_ENTRY]]).orders, order_id, m[messages.ARRIVES_NS])
    elif kind == CANCEL_REJECT:
        # nothing to cancel: what ended the order is on its way, or came before
        counters[C_CANCEL_REJECTS] += 1
    elif kind == MODIFIED:
        local_modified(state, order_id, m[messages.PRICE_TICKS], m[messages.LOTS])
    elif kind == MODIFY_REJECT:
        counters[C_REJECTS] += 1
        local_live_again(state, order_id)
    elif kind == LOST:
        counters[C_LOST] += 1
        if m[messages.MODE] == PLACE:
            local_on_gone(state, order_id)
        else:
            local_live_again(state, order_id)


@kernel
def on_stamp(w: Wires, v: int, s: int) -> None:
    """A set learns of a funding stamp."""
    n = w.sets.ints[s, C_STAMP + v]
    w.sets.ints[s, C_STAMP + v] = n + 1
    at = n % MOST_STAMPS
    local_on_funding(local_state(w.sets, s), money_row(w.sets, v, s), v, w.stamps[v, 0, at], w.stamps[v, 1, at])


@inlined
@kernel
def learn(w: Wires, s: int, last_ns: int, custom: int) -> None:
    """Everything that reaches a set's local side up to a time, in order: funding before answers, the first venue before the second."""
    queues = w.box.queues[s]
    clock = w.sets.ints[s]
    while True:
        t = last_ns + 1
        funding = 0
        v = -1
        for k in range(2):
            n = clock[C_STAMP + k]
            if n < w.venue_i[k, V_STAMPS] and w.stamp_ns[k, n % MOST_STAMPS] < t:
                t = w.stamp_ns[k, n % MOST_STAMPS]
                funding = 1
                v = k
        for k in range(2):
            if queues[ANSWERS + k, HEAD_NS] < t:
                t = queues[ANSWERS + k, HEAD_NS]
                funding = 0
                v = k
        if v < 0:
            return
        if funding == 1:
            on_stamp(w, v, s)
        else:
            on_answer(w, v, s, custom)


@kernel
def view_at(grid: Float64s, g: int) -> MarketView:
    """What is known of a venue at a decision."""
    row = grid[g]
    return MarketView(int(row[G_VALID]), int(row[G_BID_TICKS]), int(row[G_ASK_TICKS]), row[3], row[4], row[5], row[6])


decide_step_here = inlined(decide_step)


@inlined
@kernel
def decide_platform(sets: Sets, facts: Facts, desk: Desk, s: int, g: int, now_ns: int) -> int:
    """The platform's own decision; returns the number of actions."""
    t = desk.actions
    actions = Actions(desk.n_actions, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8])
    view = view_at(desk.grid[0], g)
    hedge_view = NO_VIEW
    if facts.two == 1:
        hedge_view = view_at(desk.grid[1], g)
    trace = decide_step_here(unpack_params(sets.params[sets.ints[s, C_ENTRY]]), view, hedge_view, local_state(sets, s), actions, now_ns)
    c = sets.ints[s][COUNTERS_AT:]
    bits = trace.clamps
    at = C_CLAMP0
    while bits != 0:
        c[at] += bits & 1
        bits >>= 1
        at += 1
    bits = trace.reasons
    at = C_REASON0
    while bits != 0:
        c[at] += bits & 1
        bits >>= 1
        at += 1
    if view.valid != 0:
        c[C_QUOTES_SENT] += trace.quoted
        if trace.wanted_bid_ticks > 0:
            c[C_QUOTED_SIDES] += 1
        if trace.wanted_ask_ticks > 0:
            c[C_QUOTED_SIDES] += 1
    return desk.n_actions[0]


@inlined
@kernel
def show(sets: Sets, facts: Facts, desk: Desk, s: int, g: int, now_ns: int) -> None:
    """Fill in what a user's function is shown."""
    shown = desk.shown
    shown[strategy.NOW_S] = (now_ns - sets.ints[s, C_START_NS]) * 1e-9
    shown[strategy.ORDERS_USED] = sets.ints[s, USED_AT]
    equity = 0.0
    for v in range(facts.two + 1):
        view = view_at(desk.grid[v], g)
        money = money_row(sets, v, s)
        ledger = sets.local[v, s]
        desk.position_lots[v] = ledger[POSITION]
        at = strategy.VENUE_AT + v * strategy.VENUE_SIZE
        usable = view.valid != 0 and view.bid_ticks > 0 and view.ask_ticks > view.bid_ticks
        if usable:
            ledger_mark(ledger, money, view.bid_ticks + view.ask_ticks)
        equity += ledger_equity_quote(ledger, money) * (1.0 if v == 0 else facts.hedge_rate)
        shown[at + strategy.VALID] = 1.0 if usable else 0.0
        shown[at + strategy.BID_TICKS] = view.bid_ticks
        shown[at + strategy.ASK_TICKS] = view.ask_ticks
        shown[at + strategy.MICROPRICE] = view.microprice
        shown[at + strategy.ORDER_FLOW_IMBALANCE] = view.order_flow_imbalance
        shown[at + strategy.KYLE_LAMBDA] = view.kyle_lambda
        shown[at + strategy.SHORT_VOLATILITY] = view.short_volatility
    shown[strategy.EQUITY_QUOTE] = equity
    for k in range(desk.extra.shape[1]):
        shown[strategy.EXTRA_AT + k] = desk.extra[g, k]


@inlined
@kernel
def makes_sense(a: Int64s, k: int, two: int) -> int:
    """1 when an action of a user's function is one."""
    kind = a[strategy.KIND, k]
    if kind == CANCEL or kind == MODIFY:
        if a[strategy.ID, k] <= 0 or (kind == MODIFY and (a[strategy.PRICE_TICKS, k] <= 0 or a[strategy.LOTS, k] <= 0)):
            return 0
        return 1
    if kind != PLACE or a[strategy.VENUE, k] < 0 or a[strategy.VENUE, k] > two or abs(a[strategy.SIDE, k]) != 1 or a[strategy.LOTS, k] <= 0:
        return 0
    if a[strategy.TIF, k] < 0 or a[strategy.TIF, k] > 3 or a[strategy.PURPOSE, k] < 0 or a[strategy.PURPOSE, k] > 2:
        return 0
    if a[strategy.ORDER_TYPE, k] == MARKET:
        return 1
    return 1 if a[strategy.ORDER_TYPE, k] == LIMIT and a[strategy.PRICE_TICKS, k] > 0 else 0


@inlined
@kernel
def enter_actions(sets: Sets, facts: Facts, desk: Desk, s: int, g: int, n_float: float) -> int:
    """A user's actions into the set's order table; returns how many are to be sent, or -1 when the set has stopped."""
    a = desk.actions
    if n_float != n_float:
        sets.ints[s, C_STATUS] = NOT_A_NUMBER
        return -1
    if n_float < 0.0 or n_float > a.shape[1]:
        sets.ints[s, C_STATUS] = BAD_ACTION
        return -1
    n = int(n_float)
    desk.n_actions[0] = n
    for k in range(n):
        if makes_sense(a, k, facts.two) == 0:
            sets.ints[s, C_STATUS] = BAD_ACTION
            return -1
    state = local_state(sets, s)
    kept = 0
    for k in range(n):
        kind = a[strategy.KIND, k]
        if kind == PLACE:
            v = a[strategy.VENUE, k]
            order_id = state.i[NEXT_ID]
            price_ticks = a[strategy.PRICE_TICKS, k]
            if local_add(state.orders, order_id, v, a[strategy.SIDE, k], price_ticks, a[strategy.LOTS, k], a[strategy.PURPOSE, k]) < 0:
                # more orders under way than the table holds: as if the venue had refused it
                sets.ints[s, COUNTERS_AT + C_REJECTS] += 1
                continue
            state.i[NEXT_ID] = order_id + 1
            a[strategy.ID, k] = order_id
            view = view_at(desk.grid[v], g)
            a[strategy.DECIDED_MID_HALF, k] = view.bid_ticks + view.ask_ticks if view.bid_ticks > 0 and view.ask_ticks > view.bid_ticks else 0
        else:
            at = local_find(state.orders, a[strategy.ID, k])
            if at < 0:
                # known to be gone: nothing to send
                continue
            a[strategy.VENUE, k] = state.orders.venue[at]
            a[strategy.SIDE, k] = state.orders.side[at]
            state.orders.status[at] = PENDING_CANCEL if kind == CANCEL else strategy.PENDING_MODIFY
        if kept != k:
            for f in range(a.shape[0]):
                a[f, kept] = a[f, k]
        kept += 1
    return kept


@inlined
@kernel
def send(w: Wires, a: Int64s, s: int, k: int, now_ns: int) -> None:
    """Put action `k` on its way."""
    c = w.sets.ints[s][COUNTERS_AT:]
    kind = a[strategy.KIND, k]
    v = a[strategy.VENUE, k]
    purpose = a[strategy.PURPOSE, k]
    if kind == ACT_PLACE:
        c[C_ORDERS] += 1
        if purpose == HEDGE:
            c[C_HEDGES] += 1
        elif purpose == FLATTEN:
            c[C_FLATTENS] += 1
    elif kind == CANCEL:
        c[C_CANCELS] += 1
    latency, back = entry_latency_ns(w.latencies, v, s, now_ns)
    if latency < 0:
        node = push(w.box, s, ANSWERS + v, now_ns + back)
        m = w.box.pool[node]
        m[messages.WHAT] = LOST
        m[messages.ID] = a[strategy.ID, k]
        m[messages.MODE] = kind
        log_order(
            w.requests, s, v, a[strategy.ID, k], kind, a[strategy.SIDE, k], a[strategy.PRICE_TICKS, k], a[strategy.LOTS, k], a[strategy.TIF, k],
            a[strategy.ORDER_TYPE, k], purpose, now_ns, -1, m[messages.ARRIVES_NS], messages.NEVER_ARRIVED,
        )  # fmt: skip
        return
    node = push(w.box, s, REQUESTS + v, now_ns + latency)
    m = w.box.pool[node]
    m[messages.WHAT] = kind
    m[messages.ID] = a[strategy.ID, k]
    m[messages.SIDE] = a[strategy.SIDE, k]
    m[messages.PRICE_TICKS] = a[strategy.PRICE_TICKS, k]
    m[messages.LOTS] = a[strategy.LOTS, k]
    m[messages.EXTRA] = a[strategy.TIF, k]
    m[messages.MODE] = a[strategy.ORDER_TYPE, k]
    m[messages.PURPOSE] = purpose
    m[messages.MID_HALF] = a[strategy.DECIDED_MID_HALF, k]
    m[messages.SENT_NS] = now_ns


@kernel
def account(w: Wires, facts: Facts, s: int, mid_half: int, hedge_mid_half: int) -> tuple[float, float, int]:
    """A set's equity on the venue's truth now (quote), its liquidation distance (nan: flat or not tracked), and 1 when it is liquidated."""
    sets = w.sets
    mark_set(sets, facts, s, mid_half, hedge_mid_half)
    equity = 0.0
    distance = math.nan
    liquidated = 0
    for v in range(facts.two + 1):
        ledger = sets.truth[v, s]
        money = money_row(sets, v, s)
        equity += ledger_equity_quote(ledger, money) * (1.0 if v == 0 else facts.hedge_rate)
        row = w.venue_f[v]
        if row[V_COLLATERAL] > 0.0:
            margin = ledger_margin(MarginParams(row[V_COLLATERAL], row[V_MAX_LEVERAGE], row[V_MAINTENANCE_FRAC]), money, ledger)
            if ledger[POSITION] != 0 and not margin.distance_frac >= distance:
                distance = margin.distance_frac
            if margin.status == LIQUIDATED:
                liquidated = 1
    return equity, distance, liquidated


@kernel
def sample(w: Wires, facts: Facts, samples: Samples, s: int, column: int, mid_half: int, hedge_mid_half: int) -> None:
    """Note a set's account; ends the set when it is liquidated."""
    equity, distance, liquidated = account(w, facts, s, mid_half, hedge_mid_half)
    samples.i[0, s, column] = w.sets.truth[0, s, POSITION]
    samples.i[1, s, column] = w.sets.truth[1, s, POSITION]
    samples.i[2, s, column] = mid_half
    samples.f[0, s, column] = equity
    samples.f[1, s, column] = distance
    if liquidated == 1:
        w.sets.ints[s, C_STATUS] = WAS_LIQUIDATED


@kernel
def put_money(row: Float64s, at: int, money: Money) -> None:
    """Write what an account is charged."""
    row[at] = money.lot_base
    row[at + 1] = money.tick_size
    row[at + 2] = money.maker_fee
    row[at + 3] = money.taker_fee
    row[at + 4] = money.lot_quote
    row[at + 5] = money.quantum_base


@kernel
def on_parameters(w: Wires, facts: Facts, grid_ts: Int64s, s: int, now_ns: int, custom: int) -> None:
    """The next entry of a set's schedule comes into force; what the local side learned before happened under the one before."""
    clock = w.sets.ints[s]
    if clock[C_STATUS] == RUNNING:
        learn(w, s, now_ns - 1, custom)
    else:
        clock[C_STATUS] = RUNNING
        g = clock[C_GRID]
        while g < grid_ts.shape[0] and grid_ts[g] < now_ns:
            g += 1
        clock[C_GRID] = g
    clock[C_ENTRY] = clock[C_NEXT_ENTRY]
    clock[C_NEXT_ENTRY] += 1
    if custom == 0:
        p = unpack_params(w.sets.params[clock[C_ENTRY]])
        put_money(w.sets.floats[s], MONEY_AT, p.money)
        if facts.two == 1:
            put_money(w.sets.floats[s], MONEY_AT + MONEY_SIZE, p.hedge_venue.money)


@kernel
def stop_set(w: Wires, facts: Facts, s: int, now_ns: int, mid_half: int, hedge_mid_half: int, custom: int) -> None:
    """A set has ended or was stopped: its account is marked, nothing of it moves any more; its orders are the caller's to take out."""
    clock = w.sets.ints[s]
    equity, distance, _ = account(w, facts, s, mid_half, hedge_mid_half)
    w.sets.floats[s, LAST_EQUITY] = equity
    w.sets.floats[s, LAST_DISTANCE] = distance
    clock[C_LAST_MID] = mid_half
    if clock[C_STATUS] <= ENDED:
        # what reached the local side before the end is counted
        if clock[C_STATUS] == RUNNING:
            learn(w, s, now_ns, custom)
        clock[C_STATUS] = ENDED
    clock[C_STOPPED_NS] = now_ns
    w.sets.due[s] = FOREVER


@kernel
def replay_span(
    w: Wires,
    facts: Facts,
    a: VenueSide,
    b: VenueSide | None,
    desk: Desk,
    samples: Samples,
    decide: Callable[..., float] | None,
    until_ns: int,
) -> int:
    """Everything that happens before `until_ns` (exclusive); returns a status, and goes on where it stopped when called again.

    Parameters
    ----------
    w, facts
        State of the run.
    a, b
        The venue that is quoted, the one that hedges or None.
    desk, samples
        Of the piece of the market at hand.
    decide
        A user's strategy at its fixed signature; None: the platform's decides.
    """
    sets = w.sets
    custom = 0
    if decide is not None:
        custom = 1
    while True:
        t = until_ns
        for block in range(sets.block_due.shape[0]):
            t = min(t, sets.block_due[block])
        last = t if t < until_ns else until_ns - 1
        status = rows_until(w, facts, a, last) if b is None else rows_of_both(w, facts, a, b, last)
        if status != DONE:
            return status
        if t >= until_ns:
            return DONE
        mid_half = a.venue.i[MID_HALF]
        hedge_mid_half = 0
        if b is not None:
            hedge_mid_half = b.venue.i[MID_HALF]
        for block in range(sets.block_due.shape[0]):
            if sets.block_due[block] > t:
                continue
            block_due = FOREVER
            for s in range(block * BLOCK, min((block + 1) * BLOCK, sets.due.shape[0])):
                clock = sets.ints[s]
                while sets.due[s] <= t:
                    # one event a time, each only when logs and pool can hold it
                    if w.box.free[FREE_LEFT] < facts.room + desk.actions.shape[1] + strategy.MOST_ORDERS:
                        return POOL_LOW
                    if w.requests.i.shape[1] > 0 and w.requests.n[0] + desk.actions.shape[1] > w.requests.i.shape[1]:
                        return ORDER_LOG_FULL
                    if w.fills.n[0] + facts.room > w.fills.i.shape[1]:
                        return FILL_LOG_FULL
                    running = clock[C_STATUS] == RUNNING
                    ends = False
                    if clock[C_NEXT_ENTRY] < clock[C_LAST_ENTRY] and sets.entry_ns[clock[C_NEXT_ENTRY]] <= t:
                        on_parameters(w, facts, desk.grid_ts, s, t, custom)
                    elif running and w.box.queues[s, REQUESTS, HEAD_NS] <= t:
                        status = on_request(w, facts, a.x, a.venue, 0, s, hedge_mid_half)
                        if status != DONE:
                            return status
                    elif running and w.box.queues[s, REQUESTS + 1, HEAD_NS] <= t:
                        if b is not None:
                            status = on_request(w, facts, b.x, b.venue, 1, s, mid_half)
                            if status != DONE:
                                return status
                    elif running and clock[C_GRID] < desk.grid_ts.shape[0] and desk.grid_ts[clock[C_GRID]] <= t:
                        g = clock[C_GRID]
                        learn(w, s, t, custom)
                        # a user's function that raises has had its turn
                        clock[C_GRID] = g + 1
                        clock[COUNTERS_AT + C_DECISIONS] += 1
                        if desk.grid[0, g, G_VALID] != 0.0:
                            clock[COUNTERS_AT + C_VALID] += 1
                            clock[COUNTERS_AT + C_ABS_POSITION] += abs(sets.local[0, s, POSITION])
                        if decide is None:
                            n = decide_platform(sets, facts, desk, s, g, t)
                        else:
                            show(sets, facts, desk, s, g, t)
                            # what the last call asked for goes; nothing else was written
                            for f in range(desk.actions.shape[0]):
                                for k in range(desk.n_actions[0]):
                                    desk.actions[f, k] = 0
                            desk.n_actions[0] = desk.actions.shape[1]
                            w.run_i[R_RUNNING_SET] = s
                            wanted = decide(desk.shown, sets.params[clock[C_ENTRY]], sets.memory[s], desk.position_lots, sets.orders[s], desk.actions)
                            w.run_i[R_RUNNING_SET] = -1
                            n = enter_actions(sets, facts, desk, s, g, wanted)
                        for k in range(n):
                            send(w, desk.actions, s, k, t)
                        if samples.at[g] >= 0:
                            sample(w, facts, samples, s, samples.at[g], mid_half, hedge_mid_half)
                    else:
                        ends = True
                    if ends or clock[C_STATUS] > ENDED:
                        stop_set(w, facts, s, t, mid_half, hedge_mid_half, custom)
                        leave_venue(a.venue, s)
                        if b is not None:
                            leave_venue(b.venue, s)
                    else:
                        set_due(sets, w.box, desk.grid_ts, s)
                block_due = min(block_due, sets.due[s])
            sets.block_due[block] = block_due
