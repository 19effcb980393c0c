"""What travels between the local sides and the venues during a run: FIFO queues in one pool, and the logs of executions and requests.

Belongs here: queues and logs as arrays, pushed and popped by kernels. Latency itself is `replay.latency`'s, what a message does the loop's.

Each set has four queues: requests to and answers from each of two venues. All share one pool of nodes, so a thousand sets need no thousand buffers
of the worst case; the loop stops before an event that could exhaust it, and the session makes it larger.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.jit import kernel
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.order_table import NEVER_NS, OrderTable

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

FOREVER: Final = 2**62

# kinds of answer
ACK: Final = 1
REJECT: Final = 2  # post-only would have crossed, no room, no funds
GONE: Final = 3  # cancelled, or the remainder of a taker expired
CANCEL_REJECT: Final = 4  # nothing to cancel: a fill is on its way
FILL: Final = 5
MODIFIED: Final = 6
MODIFY_REJECT: Final = 7
LOST: Final = 8  # the request never reached the venue

# queues of a set: requests to venue 0 and 1, answers of venue 0 and 1
REQUESTS: Final = 0
ANSWERS: Final = 2
QUEUES: Final = 4

# places of a queue
HEAD: Final = 0
TAIL: Final = 1
LAST_NS: Final = 2  # arrival of the last one pushed: nothing overtakes it
HEAD_NS: Final = 3  # arrival of the oldest, FOREVER when empty
QUEUE_SIZE: Final = 4

# places of a message
NEXT: Final = 0
ARRIVES_NS: Final = 1
WHAT: Final = 2  # request or kind of answer
ID: Final = 3
SIDE: Final = 4
PRICE_TICKS: Final = 5
LOTS: Final = 6
EXTRA: Final = 7  # requests: time in force; fills: leaves
MODE: Final = 8  # requests: order type; fills: maker; lost: the request
PURPOSE: Final = 9
MID_HALF: Final = 10  # requests: the venue's mid at the decision; fills: just before the execution
SENT_NS: Final = 11
MESSAGE_SIZE: Final = 12

# places of Mailbox.free
FREE_HEAD: Final = 0
FREE_LEFT: Final = 1


class Mailbox(NamedTuple):
    """Queues of all sets: `queues` (sets, QUEUES, QUEUE_SIZE), `pool` (nodes, MESSAGE_SIZE), and the list of free nodes."""

    queues: Int64s
    pool: Int64s
    free: Int64s


def new_mailbox(n_sets: int, nodes: int) -> Mailbox:
    """Empty queues with room for `nodes` messages under way."""
    queues = np.zeros((n_sets, QUEUES, QUEUE_SIZE), dtype=np.int64)
    queues[:, :, HEAD] = queues[:, :, TAIL] = -1
    queues[:, :, LAST_NS] = -FOREVER
    queues[:, :, HEAD_NS] = FOREVER
    pool = np.zeros((nodes, MESSAGE_SIZE), dtype=np.int64)
    pool[:, NEXT] = np.arange(1, nodes + 1)
    return Mailbox(queues, pool, np.array([0, nodes], dtype=np.int64))


def with_nodes(box: Mailbox, nodes: int) -> Mailbox:
    """The same queues with a pool of `nodes`, at least as many as before."""
    before = len(box.pool)
    pool = np.zeros((nodes, MESSAGE_SIZE), dtype=np.int64)
    pool[:before] = box.pool
    pool[before:, NEXT] = np.arange(before + 1, nodes + 1)
    # the new nodes go in front of the free list
    pool[nodes - 1, NEXT] = box.free[FREE_HEAD]
    return box._replace(pool=pool, free=np.array([before, box.free[FREE_LEFT] + nodes - before], dtype=np.int64))


@kernel
def push(box: Mailbox, set_index: int, queue: int, arrives_ns: int) -> int:
    """Append a message that wants to arrive at `arrives_ns`, no earlier than the one before it; returns its node, to be filled in by the caller."""
    q = box.queues[set_index, queue]
    node = box.free[FREE_HEAD]
    box.free[FREE_HEAD] = box.pool[node, NEXT]
    box.free[FREE_LEFT] -= 1
    arrival = max(arrives_ns, q[LAST_NS])
    q[LAST_NS] = arrival
    box.pool[node, NEXT] = -1
    box.pool[node, ARRIVES_NS] = arrival
    if q[HEAD] < 0:
        q[HEAD] = node
        q[HEAD_NS] = arrival
    else:
        box.pool[q[TAIL], NEXT] = node
    q[TAIL] = node
    return node


@kernel
def pop(box: Mailbox, set_index: int, queue: int) -> int:
    """Take the oldest message; its fields stay readable until the next push."""
    q = box.queues[set_index, queue]
    node = q[HEAD]
    after = box.pool[node, NEXT]
    q[HEAD] = after
    if after < 0:
        q[TAIL] = -1
        q[HEAD_NS] = FOREVER
    else:
        q[HEAD_NS] = box.pool[after, ARRIVES_NS]
    box.pool[node, NEXT] = box.free[FREE_HEAD]
    box.free[FREE_HEAD] = node
    box.free[FREE_LEFT] += 1
    return node


# -- logs ------------------------------------------------------------------------------------------------------------------------------------

# rows of FillLog.i
F_SET: Final = 0
F_VENUE: Final = 1
F_EXCH_NS: Final = 2
F_LOCAL_NS: Final = 3
F_ID: Final = 4
F_SIDE: Final = 5
F_PRICE_TICKS: Final = 6
F_LOTS: Final = 7
F_LEAVES_LOTS: Final = 8
F_MAKER: Final = 9
F_PURPOSE: Final = 10
F_MID_HALF: Final = 11
F_FEE_NANO: Final = 12
F_POSITION_LOTS: Final = 13
F_ARRIVED_NS: Final = 14
F_DECIDED_MID_HALF: Final = 15
FILL_ROWS: Final = 16

# rows of OrderLog.i
O_SET: Final = 0
O_VENUE: Final = 1
O_ID: Final = 2
O_ACTION: Final = 3
O_SIDE: Final = 4
O_PRICE_TICKS: Final = 5
O_LOTS: Final = 6
O_TIF: Final = 7
O_TYPE: Final = 8
O_PURPOSE: Final = 9
O_SENT_NS: Final = 10
O_ARRIVED_NS: Final = 11
O_ANSWERED_NS: Final = 12
O_OUTCOME: Final = 13
ORDER_LOG_ROWS: Final = 14

# outcomes, places in `order_table.OUTCOMES`
PENDING: Final = 0
RESTED: Final = 1
FILLED_WHOLE: Final = 2
HAS_EXPIRED: Final = 3
CANCELLED: Final = 4
WAS_MODIFIED: Final = 5
REJECTED_BY_VENUE: Final = 6
NEVER_ARRIVED: Final = 7


class FillLog(NamedTuple):
    """Executions of all sets in venue order; `n[0]` columns are valid. `front` (2, capacity): lots ahead at arrival and just before the fill."""

    n: Int64s
    i: Int64s
    front: Float64s


class OrderLog(NamedTuple):
    """Requests in the order they reached the venue (or were lost); `n[0]` columns are valid. No columns: nothing is logged."""

    n: Int64s
    i: Int64s


def new_fill_log(capacity: int) -> FillLog:
    """Room for `capacity` executions until the log is drained."""
    return FillLog(np.zeros(1, dtype=np.int64), np.zeros((FILL_ROWS, capacity), dtype=np.int64), np.zeros((2, capacity)))


def new_order_log(capacity: int) -> OrderLog:
    """Room for `capacity` requests until the log is drained."""
    return OrderLog(np.zeros(1, dtype=np.int64), np.zeros((ORDER_LOG_ROWS, capacity), dtype=np.int64))


def fill_table(log: FillLog, first_set: int) -> FillTable:
    """A copy of the valid rows; `first_set` is the number of the log's set 0 in the run."""
    n = int(log.n[0])
    i = log.i[:, :n].copy()
    front = log.front[:, :n].copy()
    return FillTable(
        set_no=i[F_SET] + first_set,
        venue_no=i[F_VENUE],
        exch_ts=i[F_EXCH_NS],
        local_ts=i[F_LOCAL_NS],
        order_id=i[F_ID],
        side=i[F_SIDE],
        price_ticks=i[F_PRICE_TICKS],
        lots=i[F_LOTS],
        leaves_lots=i[F_LEAVES_LOTS],
        maker=i[F_MAKER],
        purpose=i[F_PURPOSE],
        mid_half_ticks=i[F_MID_HALF],
        fee_nano=i[F_FEE_NANO],
        position_lots=i[F_POSITION_LOTS],
        arrived_ns=i[F_ARRIVED_NS],
        front_arrival_lots=front[0],
        front_fill_lots=front[1],
        decided_mid_half_ticks=i[F_DECIDED_MID_HALF],
    )


def order_table(log: OrderLog, first_set: int) -> OrderTable:
    """A copy of the valid rows."""
    i = log.i[:, : int(log.n[0])].copy()
    i[O_SET] += first_set
    return OrderTable(*i)


def pending_requests(box: Mailbox, set_index: int) -> list[list[int]]:
    """Rows of an order log for a set's requests that are still on their way."""
    rows = []
    for venue in (0, 1):
        node = int(box.queues[set_index, REQUESTS + venue, HEAD])
        while node >= 0:
            m = box.pool[node].tolist()
            row = [0] * ORDER_LOG_ROWS
            row[O_SET], row[O_VENUE], row[O_ID], row[O_ACTION], row[O_SIDE] = set_index, venue, m[ID], m[WHAT], m[SIDE]
            row[O_PRICE_TICKS], row[O_LOTS], row[O_TIF], row[O_TYPE], row[O_PURPOSE] = m[PRICE_TICKS], m[LOTS], m[EXTRA], m[MODE], m[PURPOSE]
            row[O_SENT_NS], row[O_ARRIVED_NS], row[O_ANSWERED_NS], row[O_OUTCOME] = m[SENT_NS], NEVER_NS, NEVER_NS, PENDING
            rows.append(row)
            node = m[NEXT]
    return rows


@kernel
def log_order(
    log: OrderLog,
    set_index: int,
    venue: int,
    order_id: int,
    action: int,
    side: int,
    price_ticks: int,
    lots: int,
    tif: int,
    order_type: int,
    purpose: int,
    sent_ns: int,
    arrived_ns: int,
    answered_ns: int,
    outcome: int,
) -> None:
    """Append one request; nothing when the log has no room for any."""
    if log.i.shape[1] == 0:
        return
    n = log.n[0]
    row = log.i
    row[O_SET, n] = set_index
    row[O_VENUE, n] = venue
    row[O_ID, n] = order_id
    row[O_ACTION, n] = action
    row[O_SIDE, n] = side
    row[O_PRICE_TICKS, n] = price_ticks
    row[O_LOTS, n] = lots
    row[O_TIF, n] = tif
    row[O_TYPE, n] = order_type
    row[O_PURPOSE, n] = purpose
    row[O_SENT_NS, n] = sent_ns
    row[O_ARRIVED_NS, n] = arrived_ns
    row[O_ANSWERED_NS, n] = answered_ns
    row[O_OUTCOME, n] = outcome
    log.n[0] = n + 1
