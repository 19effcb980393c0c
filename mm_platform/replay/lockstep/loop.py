"""The lockstep loop: all sets of a group decide at the same instants, and orders that share their fate are kept once.

Belongs here: what happens between two decisions, the decisions, and the state they work on. Does not belong here: where rows come from
(`lockstep.market`), what strategies look like (`lockstep.strategy`), memory and results (`lockstep.group`).

Under the reference rule own orders neither move the book nor queue behind one another, so what becomes of an order depends on its side, its tick and
the instant it arrived, and on nothing else. Orders of any number of sets that agree in these are members of one *node*, which has the queue
position. Members are not listed: a slot knows the tick and the step of its order, and a node looks for its members when it fills, which is rare. A
node without members is dropped when the market touches it, and by a sweep now and then; its *witness* is the first block of sets in which
members may still be.

With constant latencies a message queue is not needed. The loop plays rows up to the instant at which the requests of step m arrive, then decides step
m, which may see only fills that are older than its own time less the way back, then applies the requests. The log of fills, read with a second pointer,
is the queue of answers. If a request and its answer take longer than a step, slots also know from which step on they may be touched again.

All numbers of a set are rows of one flat float64 array whose columns are sets, so that the compiler sees at once what overlaps and works on
eight sets at a time. Whole numbers in it are exact.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.accounting import Money, fee_nano, worth_quanta
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.queue import RISK_ADVERSE, USER_MODEL, ExchangeParams, queue_after_depth
from mm_platform.replay.lockstep.market import DROP, IMPROVES, N_LOCAL, N_ROWS, N_VENUE, PRINT, Market
from mm_platform.replay.lockstep.strategy import (
    ASK_TICKS,
    BID_TICKS,
    BLOCK,
    COLUMNS,
    GOING,
    LAST_ID,
    MOST_SETS,
    MOST_SLOTS,
    NOW_S,
    ORDER_ID,
    POSITION,
    QUOTED,
    READY,
    SET_ROWS,
    STEP_S,
    STEP_SENT,
    TARGETS,
    VIEW_SIZE,
)

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# places in Group.c
ROW: Final = 0  # next row of the chunk
STEP: Final = 1  # next step
VENUE_AT: Final = 2  # entry of the venue touch that holds at ROW
LOCAL_AT: Final = 3  # entry of the local touch that holds at the step, counted from the tape's first; -1 = none yet
SEEN: Final = 4  # events of the log that the sets know
N_EVENTS: Final = 5
N_FILLS: Final = 6
N_SAMPLES: Final = 7
DECIDING: Final = 8  # 1: a step's rows and answers are done, its decisions are not
SET: Final = 9  # set whose function runs
N_OFF: Final = 10
N_FREE: Final = 11
BIDS_LIVE: Final = 12  # entries of the list of nodes, per side
ASKS_LIVE: Final = 13
NEAR_BID: Final = 14  # offset of the bid node nearest to the market, or nearer; -1 = none
NEAR_ASK: Final = 15
DECIDED: Final = 16  # steps with a decision (both sides of the touch known)
GROUP_C_SIZE: Final = 17

# rows of Group.ledger
CASH: Final = 0  # quanta (`kernels.accounting`)
FEES: Final = 1  # nano, + = paid
SPREAD: Final = 2  # quanta
FILLS: Final = 3
LOTS: Final = 4
EXPIRED: Final = 5  # post-only orders that would have crossed
LOST_CANCELS: Final = 6  # cancels that found the order filled
LEFT_TO_FILL: Final = 7  # fills of orders for which no cancel was sent
STATUS: Final = 8
STOPPED_AT: Final = 9  # step
LEDGER_ROWS: Final = 10

# status of a set
RUNNING: Final = 0
NOT_FINITE: Final = 1
NOT_WHOLE: Final = 2
NEGATIVE: Final = 3
BEYOND_WINDOW: Final = 4
RAISED: Final = 5

# rows of Group.node_i
TICK: Final = 0  # offset in the window
NEXT: Final = 1  # node + 1 that follows at the tick, 0 = none
WITNESS_SLOT: Final = 2
WITNESS_BLOCK: Final = 3
LINKED: Final = 4
NODE_I_ROWS: Final = 5
# rows of Group.node_f
PRICE: Final = 0  # ticks
SENT: Final = 1  # step
FRONT: Final = 2
TRADED: Final = 3
FRONT_ARRIVAL: Final = 4
NODE_F_ROWS: Final = 5

# rows of Group.event_i
EVENT_NS: Final = 0
EVENT_SIDE: Final = 1
EVENT_PRICE: Final = 2  # ticks
EVENT_MID_HALF: Final = 3  # venue mid before the row, half ticks, 0 = none
EVENT_STEP: Final = 4  # step at which its orders were sent
EVENT_FIRST: Final = 5  # first of its fills
EVENT_END: Final = 6
EVENT_I_ROWS: Final = 7
# rows of Group.event_f
EVENT_FRONT_ARRIVAL: Final = 0
EVENT_FRONT: Final = 1
EVENT_F_ROWS: Final = 2
# rows of Group.fills
FILL_PLACE: Final = 0  # slot * COLUMNS + set
FILL_ID: Final = 1
FILL_POSITION: Final = 2  # lots after it
FILL_ROWS: Final = 3
# rows of Group.samples
SAMPLE_POSITION: Final = 0
SAMPLE_CASH: Final = 1
SAMPLE_FEES: Final = 2
SAMPLE_ROWS: Final = 3

# answers of `play_chunk`
CHUNK_DONE: Final = 0
LOG_FULL: Final = 1
SAMPLES_FULL: Final = 2
FEATURES_SHORT: Final = 3

_NO_ASK: Final = 2**31 - 1
_SWEEP_STEPS: Final = 32
_NEAR_TICKS: Final = 62.0  # distances that one bit mask holds
# A decrease of a level that prints explain leaves a remainder of rounding. It is no cancel: without this half of all updates would take logarithms to
# move an order by less than any lot.
_NOTHING_LEFT: Final = 1e-12


class Clock(NamedTuple):
    """When things happen, and what the group is.

    first_ns : time of step 0. step_ns, entry_ns, response_ns : between steps, to the venue, back. lag_steps : steps until a request is answered, >= 1.
    until_ns : steps before it are decided in this call, `horizon_ns` : requests must arrive before it. n_sets, n_columns, slots_per_side : sets,
    columns computed, slots. by_set : which function decides. sample_every : steps between two samples, 0 = none.
    """

    first_ns: int
    step_ns: int
    entry_ns: int
    response_ns: int
    lag_steps: int
    n_sets: int
    n_columns: int
    slots_per_side: int
    by_set: int
    sample_every: int
    base: int
    ticks: int


class Group(NamedTuple):
    """The state of a group of sets.

    sets, rows : the matrix of sets, flat, and as the strategy sees it (the same memory). params, state, targets : for a strategy by set. order_lots : per slot and set.
    book, head : quantity and first node + 1 of each level, bids then asks. live, free : nodes in use per side, and free ones.
    off : columns that do not quote (stopped sets, and those beyond the last). masks : distances from the touch at which new orders stand, per slot.
    """

    sets: Float64s
    rows: Float64s
    params: Float64s
    state: Float64s
    targets: Float64s
    order_lots: Int64s
    ledger: Int64s
    book: Float64s
    head: Int32s
    node_i: Int32s
    node_f: Float64s
    live: Int32s
    free: Int32s
    off: Int32s
    masks: Int64s
    view: Float64s
    event_i: Int64s
    event_f: Float64s
    fills: Int32s
    sample_ns: Int64s
    sample_mid_half: Int64s
    samples: Int64s
    c: Int64s


def new_group(
    n_sets: int, slots_per_side: int, n_params: int, state_size: int, n_features: int, ticks: int, fills_room: int, samples_room: int
) -> Group:
    """State of a group that has not begun: no orders, no book, all sets running."""
    assert 1 <= n_sets <= MOST_SETS
    slots = 2 * slots_per_side
    assert slots <= MOST_SLOTS
    nodes = 2 * slots * n_sets + 64
    columns = -(-n_sets // BLOCK) * BLOCK
    sets = np.zeros(SET_ROWS * COLUMNS)
    c = np.zeros(GROUP_C_SIZE, dtype=np.int64)
    c[LOCAL_AT] = -1
    c[NEAR_BID] = -1
    c[NEAR_ASK] = _NO_ASK
    c[N_FREE] = nodes
    c[N_OFF] = columns - n_sets
    off = np.zeros(COLUMNS, dtype=np.int32)
    off[: columns - n_sets] = np.arange(n_sets, columns)
    rows = sets.reshape(SET_ROWS, COLUMNS)
    rows[STEP_SENT : STEP_SENT + slots] = -1.0
    events_room = fills_room // 2 + slots * n_sets
    return Group(
        sets=sets,
        rows=rows,
        params=np.zeros((n_sets, n_params)),
        state=np.zeros((n_sets, state_size)),
        targets=np.zeros((n_sets, slots)),
        order_lots=np.zeros((slots, COLUMNS), dtype=np.int64),
        ledger=np.zeros((LEDGER_ROWS, COLUMNS), dtype=np.int64),
        book=np.zeros(2 * ticks),
        head=np.zeros(2 * ticks, dtype=np.int32),
        node_i=np.zeros((NODE_I_ROWS, nodes), dtype=np.int32),
        node_f=np.zeros((NODE_F_ROWS, nodes)),
        live=np.zeros((2, nodes), dtype=np.int32),
        free=np.arange(nodes, dtype=np.int32),
        off=off,
        masks=np.zeros(slots, dtype=np.int64),
        view=np.zeros(VIEW_SIZE + n_features),
        event_i=np.zeros((EVENT_I_ROWS, events_room), dtype=np.int64),
        event_f=np.zeros((EVENT_F_ROWS, events_room)),
        fills=np.zeros((FILL_ROWS, fills_room), dtype=np.int32),
        sample_ns=np.zeros(samples_room, dtype=np.int64),
        sample_mid_half=np.zeros(samples_room, dtype=np.int64),
        samples=np.zeros((SAMPLE_ROWS, samples_room, n_sets), dtype=np.int64),
        c=c,
    )


# -- nodes -------------------------------------------------------------------------------------------------------------------------------


@kernel
def has_members(k: Clock, g: Group, node: int, side: int) -> bool:
    """Whether any slot's live order is of this node; moves the witness to the first block of sets that has one.

    Members only ever leave, so the blocks before the witness need no second look.
    """
    sets = g.sets
    price = g.node_f[PRICE, node]
    sent = g.node_f[SENT, node]
    slot = int(g.node_i[WITNESS_SLOT, node])
    block = int(g.node_i[WITNESS_BLOCK, node])
    end = (side + 1) * k.slots_per_side
    while slot < end:
        quoted = (QUOTED + slot) * COLUMNS
        steps = (STEP_SENT + slot) * COLUMNS
        while block < k.n_columns:
            found = 0
            for j in range(BLOCK):
                found |= (1 if sets[quoted + block + j] == price else 0) & (1 if sets[steps + block + j] == sent else 0)
            if found != 0:
                g.node_i[WITNESS_SLOT, node] = slot
                g.node_i[WITNESS_BLOCK, node] = block
                return True
            block += BLOCK
        slot += 1
        block = 0
    return False


@kernel
def unlink_node(k: Clock, g: Group, node: int, side: int) -> None:
    """Take a node out of its level; the next sweep frees it."""
    place = side * k.ticks + g.node_i[TICK, node]
    after = g.node_i[NEXT, node]
    at = int(g.head[place]) - 1
    if at == node:
        g.head[place] = after
    else:
        while g.node_i[NEXT, at] != node + 1:
            at = int(g.node_i[NEXT, at]) - 1
        g.node_i[NEXT, at] = after
    g.node_i[LINKED, node] = 0


@kernel
def sweep_nodes(k: Clock, g: Group, side: int) -> None:
    """Free the nodes without members, and look again which of the others is nearest to the market."""
    c = g.c
    n = c[BIDS_LIVE + side]
    kept = 0
    near = -1 if side == 0 else _NO_ASK
    for j in range(n):
        node = int(g.live[side, j])
        if g.node_i[LINKED, node] != 0 and not has_members(k, g, node, side):
            unlink_node(k, g, node, side)
        if g.node_i[LINKED, node] == 0:
            g.free[c[N_FREE]] = node
            c[N_FREE] += 1
            continue
        g.live[side, kept] = node
        kept += 1
        tick = int(g.node_i[TICK, node])
        near = max(near, tick) if side == 0 else min(near, tick)
    c[BIDS_LIVE + side] = kept
    c[NEAR_BID + side] = near


@kernel
def expire_orders(k: Clock, g: Group, side: int, price: float) -> None:
    """Post-only orders of this step that would cross on arrival."""
    sets = g.sets
    step = float(g.c[STEP])
    for slot in range(side * k.slots_per_side, (side + 1) * k.slots_per_side):
        for s in range(k.n_sets):
            if sets[(QUOTED + slot) * COLUMNS + s] == price and sets[(STEP_SENT + slot) * COLUMNS + s] == step:
                sets[(STEP_SENT + slot) * COLUMNS + s] = -1.0
                sets[(QUOTED + slot) * COLUMNS + s] = 0.0 if k.lag_steps == 1 else GOING
                g.ledger[EXPIRED, s] += 1


@kernel
def arrive(k: Clock, g: Group, side: int, price: float, bid: int, ask: int) -> None:
    """Orders of this step at one side and tick arrive at the venue, whose touch is `bid`, `ask`: they expire, or join the level's end."""
    if (side == 0 and ask > 0 and price >= ask) or (side == 1 and price <= bid):
        expire_orders(k, g, side, price)
        return
    c = g.c
    tick = int(price) - k.base
    place = side * k.ticks + tick
    step = float(c[STEP])
    # walk to the level's end, which keeps its nodes in order of arrival, and clean up on the way
    last = -1
    at = int(g.head[place]) - 1
    while at >= 0:
        after = int(g.node_i[NEXT, at]) - 1
        if g.node_f[SENT, at] == step:
            return
        if has_members(k, g, at, side):
            last = at
        else:
            if last < 0:
                g.head[place] = after + 1
            else:
                g.node_i[NEXT, last] = after + 1
            g.node_i[LINKED, at] = 0
        at = after
    if c[N_FREE] == 0:
        sweep_nodes(k, g, 0)
        sweep_nodes(k, g, 1)
    c[N_FREE] -= 1
    node = int(g.free[c[N_FREE]])
    g.live[side, c[BIDS_LIVE + side]] = node
    c[BIDS_LIVE + side] += 1
    g.node_i[TICK, node] = tick
    g.node_i[NEXT, node] = 0
    g.node_i[WITNESS_SLOT, node] = side * k.slots_per_side
    g.node_i[WITNESS_BLOCK, node] = 0
    g.node_i[LINKED, node] = 1
    g.node_f[PRICE, node] = price
    g.node_f[SENT, node] = step
    g.node_f[FRONT, node] = g.book[place]
    g.node_f[FRONT_ARRIVAL, node] = g.book[place]
    g.node_f[TRADED, node] = 0.0
    if last < 0:
        g.head[place] = node + 1
    else:
        g.node_i[NEXT, last] = node + 1
    if side == 0:
        if tick > c[NEAR_BID]:
            c[NEAR_BID] = tick
    elif tick < c[NEAR_ASK]:
        c[NEAR_ASK] = tick


# -- rows at the venue -------------------------------------------------------------------------------------------------------------------


@kernel
def fill_node(k: Clock, m: Market, g: Group, node: int, side: int) -> None:
    """All orders of a node are filled by the row at hand: one event, and a fill per member. `has_members` was asked just before."""
    c = g.c
    row = c[ROW]
    while c[VENUE_AT] + 1 < m.n[N_VENUE] and m.venue_row[c[VENUE_AT] + 1] <= row:
        c[VENUE_AT] += 1
    bid = m.venue_bid[c[VENUE_AT]]
    ask = m.venue_ask[c[VENUE_AT]]
    price = g.node_f[PRICE, node]
    sent = g.node_f[SENT, node]
    event = c[N_EVENTS]
    n = c[N_FILLS]
    g.event_i[EVENT_NS, event] = m.exch_ns[row]
    g.event_i[EVENT_SIDE, event] = 1 - 2 * side
    g.event_i[EVENT_PRICE, event] = int(price)
    g.event_i[EVENT_MID_HALF, event] = bid + ask if bid > 0 and ask > 0 else 0
    g.event_i[EVENT_STEP, event] = int(sent)
    g.event_i[EVENT_FIRST, event] = n
    g.event_f[EVENT_FRONT_ARRIVAL, event] = g.node_f[FRONT_ARRIVAL, node]
    g.event_f[EVENT_FRONT, event] = g.node_f[FRONT, node]
    sets = g.sets
    slot = int(g.node_i[WITNESS_SLOT, node])
    block = int(g.node_i[WITNESS_BLOCK, node])
    while slot < (side + 1) * k.slots_per_side:
        quoted = (QUOTED + slot) * COLUMNS
        steps = (STEP_SENT + slot) * COLUMNS
        while block < k.n_columns:
            found = 0
            for j in range(BLOCK):
                found |= (1 if sets[quoted + block + j] == price else 0) & (1 if sets[steps + block + j] == sent else 0)
            if found != 0:
                for s in range(block, block + BLOCK):
                    if sets[quoted + s] == price and sets[steps + s] == sent:
                        sets[steps + s] = -1.0
                        g.fills[FILL_PLACE, n] = slot * COLUMNS + s
                        g.fills[FILL_ID, n] = int(sets[(ORDER_ID + slot) * COLUMNS + s])
                        n += 1
            block += BLOCK
        slot += 1
        block = 0
    c[N_FILLS] = n
    g.event_i[EVENT_END, event] = n
    c[N_EVENTS] = event + 1


@kernel
def fill_through(k: Clock, m: Market, g: Group, side: int, tick: int, at_tick: int) -> None:
    """Orders of a side priced better than offset `tick`, with `at_tick` = 1 also those at it, are filled, the best priced first."""
    c = g.c
    while True:
        near = -1 if side == 0 else _NO_ASK
        for j in range(c[BIDS_LIVE + side]):
            node = int(g.live[side, j])
            if g.node_i[LINKED, node] != 0:
                near = max(near, int(g.node_i[TICK, node])) if side == 0 else min(near, int(g.node_i[TICK, node]))
        c[NEAR_BID + side] = near
        beyond = near - tick if side == 0 else tick - near
        if beyond < 1 - at_tick or near == -1 or near == _NO_ASK:
            return
        place = side * k.ticks + near
        at = int(g.head[place]) - 1
        while at >= 0:
            if has_members(k, g, at, side):
                fill_node(k, m, g, at, side)
            g.node_i[LINKED, at] = 0
            at = int(g.node_i[NEXT, at]) - 1
        g.head[place] = 0


@kernel
def print_at(k: Clock, x: ExchangeParams, m: Market, g: Group, side: int, tick: int, qty: float) -> None:
    """A trade hits a side at offset `tick`: better priced orders are traded through, those at the price move up and fill past the front."""
    c = g.c
    if (side == 0 and c[NEAR_BID] > tick) or (side == 1 and c[NEAR_ASK] < tick):
        fill_through(k, m, g, side, tick, 0)
    at = int(g.head[side * k.ticks + tick]) - 1
    while at >= 0:
        after = int(g.node_i[NEXT, at]) - 1
        if has_members(k, g, at, side):
            front = g.node_f[FRONT, at] - qty
            g.node_f[FRONT, at] = front
            if x.queue_model != RISK_ADVERSE:
                g.node_f[TRADED, at] += qty
            # the quantity past the front, in whole lots rounded half away from zero, is not none
            if -front / x.unit >= 0.5:
                fill_node(k, m, g, at, side)
                unlink_node(k, g, at, side)
        else:
            unlink_node(k, g, at, side)
        at = after


@kernel
def level_at(k: Clock, x: ExchangeParams, g: Group, side: int, place: int, before: float, after: float) -> None:
    """A level with orders of ours is restated: queue positions move by what prints do not explain."""
    at = int(g.head[place]) - 1
    while at >= 0:
        following = int(g.node_i[NEXT, at]) - 1
        if not has_members(k, g, at, side):
            unlink_node(k, g, at, side)
            at = following
            continue
        front = g.node_f[FRONT, at]
        traded = g.node_f[TRADED, at]
        # at the very front, or nothing left to explain: no model moves us, so none is asked. A user's model may.
        if x.queue_model != USER_MODEL and (front == 0.0 or before - after - traded <= _NOTHING_LEFT * before):
            front = min(front, after)
        else:
            front = queue_after_depth(x, front, traded, before, after)
            if front != front:
                front = after
        g.node_f[FRONT, at] = front
        g.node_f[TRADED, at] = 0.0
        at = following


@kernel
def play_rows(k: Clock, x: ExchangeParams, m: Market, g: Group, until_ns: int) -> None:
    """Rows at the venue up to `until_ns` included."""
    c = g.c
    row = c[ROW]
    end = m.n[N_ROWS]
    head = g.head
    book = g.book
    while row < end and m.exch_ns[row] <= until_ns:
        code = int(m.code[row])
        side = code & 1
        kind = code >> 1
        tick = int(m.tick[row])
        qty = m.qty[row]
        place = side * k.ticks + tick
        if kind <= IMPROVES:
            if head[place] != 0:
                level_at(k, x, g, side, place, book[place], qty)
            book[place] = qty
            if kind == IMPROVES:
                if (side == 1 and c[NEAR_BID] >= tick) or (side == 0 and c[NEAR_ASK] <= tick):
                    c[ROW] = row
                    fill_through(k, m, g, 1 - side, tick, 1)
        elif kind == PRINT:
            if (side == 0 and c[NEAR_BID] >= tick) or (side == 1 and c[NEAR_ASK] <= tick):
                c[ROW] = row
                print_at(k, x, m, g, side, tick, qty)
        elif kind == DROP:
            # queue positions stay: the next row of a level caps them
            for j in range(place, side * k.ticks + int(qty) + 1):
                book[j] = 0.0
        else:
            if head[place] != 0:
                level_at(k, x, g, side, place, book[place], qty)
            book[place] = 0.0
        row += 1
    c[ROW] = row


# -- the local side ----------------------------------------------------------------------------------------------------------------------


@kernel
def see_fills(k: Clock, money: Money, g: Group, now_ns: int) -> None:
    """Fills whose answer has arrived by `now_ns`: positions, money, and slots that are free again."""
    c = g.c
    sets = g.sets
    ledger = g.ledger
    event = c[SEEN]
    while event < c[N_EVENTS] and g.event_i[EVENT_NS, event] + k.response_ns <= now_ns:
        side = g.event_i[EVENT_SIDE, event]
        price = g.event_i[EVENT_PRICE, event]
        mid_half = g.event_i[EVENT_MID_HALF, event]
        paid = worth_quanta(money, 2 * price)
        edge = side * (worth_quanta(money, mid_half) - paid) if mid_half > 0 else 0
        fee_lots = 0
        fee = 0
        for f in range(g.event_i[EVENT_FIRST, event], g.event_i[EVENT_END, event]):
            place = int(g.fills[FILL_PLACE, f])
            slot = place // COLUMNS
            s = place - slot * COLUMNS
            lots = g.order_lots[slot, s]
            if lots != fee_lots:
                fee_lots = lots
                fee = fee_nano(money, price, lots, 1)
            position = int(sets[POSITION * COLUMNS + s]) + side * lots
            sets[POSITION * COLUMNS + s] = float(position)
            g.fills[FILL_POSITION, f] = position
            ledger[CASH, s] -= side * lots * paid
            ledger[SPREAD, s] += lots * edge
            ledger[FEES, s] += fee
            ledger[FILLS, s] += 1
            ledger[LOTS, s] += lots
            quoted = (QUOTED + slot) * COLUMNS + s
            newest = sets[(ORDER_ID + slot) * COLUMNS + s] == g.fills[FILL_ID, f]
            if newest and sets[quoted] > 0.0:
                ledger[LEFT_TO_FILL, s] += 1
            else:
                ledger[LOST_CANCELS, s] += 1
            if newest:
                sets[quoted] = 0.0
                sets[(READY + slot) * COLUMNS + s] = 0.0
        event += 1
    c[SEEN] = event


@kernel
def hold_slots(k: Clock, g: Group) -> None:
    """Where answers take longer than a step: slots with a request in flight keep their target, and those asked for something get their date."""
    sets = g.sets
    step = float(g.c[STEP])
    for slot in range(2 * k.slots_per_side):
        target = (TARGETS + slot) * COLUMNS
        quoted = (QUOTED + slot) * COLUMNS
        ready = (READY + slot) * COLUMNS
        for s in range(k.n_columns):
            if step < sets[ready + s]:
                sets[target + s] = sets[quoted + s]
                continue
            if sets[quoted + s] == GOING:
                sets[quoted + s] = 0.0
            if sets[target + s] != sets[quoted + s]:
                sets[ready + s] = step + k.lag_steps
                if sets[target + s] == 0.0:
                    sets[target + s] = GOING


@kernel
def send_slot(sets: Float64s, slot: int, n: int, step: float, touch: float, sign: float, masks: Int64s) -> int:
    """Requests of one slot for all sets: where the target is another, the order is cancelled and a new one sent. 1 = some target wants a closer look.

    New orders within `_NEAR_TICKS` of the touch are noted as bits of `masks[slot]`, the bit being the distance in ticks.
    """
    target = (TARGETS + slot) * COLUMNS
    quoted = (QUOTED + slot) * COLUMNS
    steps = (STEP_SENT + slot) * COLUMNS
    ids = (ORDER_ID + slot) * COLUMNS
    last = LAST_ID * COLUMNS
    mask = 0
    odd = 0
    for block in range(0, n, BLOCK):
        for j in range(BLOCK):
            s = block + j
            t = sets[target + s]
            changed = t != sets[quoted + s]
            sent = changed & (t > 0.0)
            newest = sets[last + s] + (1.0 if sent else 0.0)
            sets[last + s] = newest
            sets[ids + s] = newest if sent else sets[ids + s]
            at = step if sent else -1.0
            sets[steps + s] = at if changed else sets[steps + s]
            sets[quoted + s] = t
            away = (touch - t) * sign
            near = (away >= 0.0) & (away < _NEAR_TICKS) & (away == math.floor(away))
            mask |= (1 << int(away if near else 0.0)) if sent & near else 0
            odd |= 1 if changed & (t != 0.0) & (t != GOING) & (not near) else 0
    masks[slot] = mask
    return odd


@kernel
def target_status(k: Clock, target: float) -> int:
    """What is wrong with a target, if anything."""
    if target == 0.0 or target == GOING:
        return RUNNING
    if target - target != 0.0:  # infinities and nan
        return NOT_FINITE
    if target != math.floor(target):
        return NOT_WHOLE
    if target < 0.0:
        return NEGATIVE
    if target < k.base or target >= k.base + k.ticks:
        return BEYOND_WINDOW
    return RUNNING


@kernel
def stop_set(k: Clock, g: Group, s: int, status: int) -> None:
    """A set ends at this step: what it asked for at the step is void, and its orders are cancelled."""
    sets = g.sets
    step = float(g.c[STEP])
    for slot in range(2 * k.slots_per_side):
        if sets[(STEP_SENT + slot) * COLUMNS + s] == step:
            sets[LAST_ID * COLUMNS + s] -= 1.0
        sets[(STEP_SENT + slot) * COLUMNS + s] = -1.0
        sets[(QUOTED + slot) * COLUMNS + s] = 0.0 if k.lag_steps == 1 else GOING
        sets[(READY + slot) * COLUMNS + s] = step + k.lag_steps
        sets[(TARGETS + slot) * COLUMNS + s] = 0.0
    g.ledger[STATUS, s] = status
    g.ledger[STOPPED_AT, s] = g.c[STEP]
    g.off[g.c[N_OFF]] = s
    g.c[N_OFF] += 1


@kernel
def send_requests(k: Clock, m: Market, g: Group, local_bid: int, local_ask: int) -> None:
    """The step's targets become requests, and these arrive."""
    c = g.c
    sets = g.sets
    slots = 2 * k.slots_per_side
    for j in range(c[N_OFF]):
        s = int(g.off[j])
        for slot in range(slots):
            sets[(TARGETS + slot) * COLUMNS + s] = 0.0
    if k.lag_steps > 1:
        hold_slots(k, g)
    odd = 0
    step = float(c[STEP])
    for slot in range(slots):
        if slot < k.slots_per_side:
            odd |= send_slot(sets, slot, k.n_columns, step, float(local_bid), 1.0, g.masks)
        else:
            odd |= send_slot(sets, slot, k.n_columns, step, float(local_ask), -1.0, g.masks)
    if odd != 0:
        for s in range(k.n_sets):
            for slot in range(slots):
                status = target_status(k, sets[(TARGETS + slot) * COLUMNS + s])
                if status != RUNNING and g.ledger[STATUS, s] == RUNNING:
                    stop_set(k, g, s, status)
    while c[VENUE_AT] + 1 < m.n[N_VENUE] and m.venue_row[c[VENUE_AT] + 1] <= c[ROW]:
        c[VENUE_AT] += 1
    bid = m.venue_bid[c[VENUE_AT]]
    ask = m.venue_ask[c[VENUE_AT]]
    for slot in range(slots):
        side = 0 if slot < k.slots_per_side else 1
        mask = g.masks[slot]
        price = float(local_bid) if side == 0 else float(local_ask)
        away = -1.0 if side == 0 else 1.0
        while mask != 0:
            if mask & 1 != 0:
                arrive(k, g, side, price, bid, ask)
            mask >>= 1
            price += away
    if odd != 0:
        for slot in range(slots):
            side = 0 if slot < k.slots_per_side else 1
            for s in range(k.n_sets):
                if sets[(STEP_SENT + slot) * COLUMNS + s] == step:
                    arrive(k, g, side, sets[(QUOTED + slot) * COLUMNS + s], bid, ask)


@kernel
def take_sample(k: Clock, g: Group, now_ns: int, bid: int, ask: int) -> None:
    """Position, cash and fees of every set as they are known here."""
    j = g.c[N_SAMPLES]
    g.sample_ns[j] = now_ns
    g.sample_mid_half[j] = bid + ask if bid > 0 and ask > 0 else 0
    for s in range(k.n_sets):
        g.samples[SAMPLE_POSITION, j, s] = int(g.sets[POSITION * COLUMNS + s])
        g.samples[SAMPLE_CASH, j, s] = g.ledger[CASH, s]
        g.samples[SAMPLE_FEES, j, s] = g.ledger[FEES, s]
    g.c[N_SAMPLES] = j + 1


@kernel
def decide_by_set(k: Clock, g: Group, quote: Any) -> None:
    """One call per set, from `c[SET]` on: a set whose function raised is passed over when the loop is called again."""
    c = g.c
    slots = 2 * k.slots_per_side
    sets = g.sets
    while c[SET] < k.n_sets:
        s = c[SET]
        if g.ledger[STATUS, s] == RUNNING:
            for slot in range(slots):
                g.targets[s, slot] = 0.0
            quote(g.view, g.params[s], g.state[s], sets[POSITION * COLUMNS + s], g.targets[s])
            for slot in range(slots):
                sets[(TARGETS + slot) * COLUMNS + s] = g.targets[s, slot]
        c[SET] = s + 1


@kernel
def play_chunk(
    k: Clock,
    x: ExchangeParams,
    money: Money,
    m: Market,
    local_first: int,
    horizon_ns: int,
    end_ns: int,
    features: Float64s,
    g: Group,
    decide: Any,
    quote: Any,
) -> int:
    """All steps that a chunk allows.

    Parameters
    ----------
    k, x, money : the group's facts.
    m : Market
        The chunk; the loop goes on at `g.c[ROW]`, which the caller sets to 0 (and `VENUE_AT` too) with a new chunk.
    local_first : int
        Number of the first entry of the local touch, counted from the tape's first.
    horizon_ns : int
        A step is decided if its requests arrive before: then no row that matters is missing. The last chunk has none (2**63 - 1).
    end_ns : int
        Steps from here on are not decided, and rows after it are not played; at the latest the time of the tape's last event.
    features : float64, shape (n_steps, k)
        The caller's own numbers per step; no columns = none.
    g : Group
    decide, quote : functions at the signatures of `lockstep.strategy`

    Returns
    -------
    int
        `CHUNK_DONE`; `LOG_FULL`, `SAMPLES_FULL`: make room and call again; `FEATURES_SHORT`: no numbers for the step `g.c[STEP]`.
    """
    c = g.c
    most_fills = 2 * k.slots_per_side * k.n_sets
    while True:
        now_ns = k.first_ns + c[STEP] * k.step_ns
        if now_ns >= end_ns or now_ns + k.entry_ns >= horizon_ns:
            break
        if c[DECIDING] == 0:
            if c[N_FILLS] + most_fills > g.fills.shape[1] or c[N_EVENTS] + most_fills > g.event_i.shape[1]:
                return LOG_FULL
            if c[N_SAMPLES] == g.sample_ns.shape[0] and k.sample_every > 0:
                return SAMPLES_FULL
            play_rows(k, x, m, g, min(now_ns + k.entry_ns, end_ns))
            if c[SEEN] < c[N_EVENTS]:
                see_fills(k, money, g, now_ns)
            at = c[LOCAL_AT]
            while at + 1 - local_first < m.n[N_LOCAL] and m.local_ns[at + 1 - local_first] <= now_ns:
                at += 1
            c[LOCAL_AT] = at
            c[SET] = 0
            c[DECIDING] = 1
        at = c[LOCAL_AT]
        bid = m.local_bid[at - local_first] if at >= 0 else 0
        ask = m.local_ask[at - local_first] if at >= 0 else 0
        if bid > 0 and ask > 0:
            g.view[NOW_S] = (now_ns - k.first_ns) * 1e-9
            g.view[BID_TICKS] = bid
            g.view[ASK_TICKS] = ask
            g.view[STEP_S] = k.step_ns / 1e9
            if features.shape[1] > 0:
                if c[STEP] >= features.shape[0]:
                    return FEATURES_SHORT
                for j in range(features.shape[1]):
                    g.view[VIEW_SIZE + j] = features[c[STEP], j]
            if k.by_set == 1:
                decide_by_set(k, g, quote)
            else:
                decide(g.view, g.rows, k.n_columns)
            send_requests(k, m, g, bid, ask)
            c[DECIDED] += 1
        if k.sample_every > 0 and (c[STEP] + 1) % k.sample_every == 0:
            take_sample(k, g, now_ns, bid, ask)
        c[STEP] += 1
        c[DECIDING] = 0
        if c[STEP] % _SWEEP_STEPS == 0:
            sweep_nodes(k, g, 0)
            sweep_nodes(k, g, 1)
    if c[N_FILLS] + most_fills > g.fills.shape[1] or c[N_EVENTS] + most_fills > g.event_i.shape[1]:
        return LOG_FULL
    play_rows(k, x, m, g, end_ns)
    return CHUNK_DONE


@kernel
def finish_group(k: Clock, money: Money, g: Group) -> None:
    """After the last row: everything that happened becomes known."""
    see_fills(k, money, g, 2**63 - 1 - k.response_ns)
