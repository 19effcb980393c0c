"""What travels between the local side and the venue during a run: two FIFO queues, and the log of executions.

Belongs here: ring buffers and logs as arrays, pushed and popped by kernels. Latency itself is the loop's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]

# kinds of answer
ACK: Final = 1
REJECT: Final = 2  # post-only would have crossed, or no room
GONE: Final = 3  # cancelled, or the remainder of a taker expired
CANCEL_REJECT: Final = 4  # nothing to cancel: a fill is on its way
FILL: Final = 5


class Queue(NamedTuple):
    """A FIFO ring. `head[0]` oldest, `head[1]` number waiting, `head[2]` arrival of the last one pushed (FIFO: nothing overtakes it)."""

    head: Int64s
    ts: Int64s
    kind: Int64s
    id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    extra: Int64s  # requests: time in force; answers: leaves
    maker: Int64s
    mid_half_ticks: Int64s
    purpose: Int64s


def new_queue(capacity: int = 4096) -> Queue:
    """An empty queue; a run whose queue overflows ends with a status."""
    return Queue(np.zeros(3, dtype=np.int64), *(np.zeros(capacity, dtype=np.int64) for _ in range(10)))


@kernel
def push(
    q: Queue, ts: int, kind: int, order_id: int, side: int, price_ticks: int, lots: int, extra: int, maker: int, mid_half_ticks: int, purpose: int
) -> int:
    """Append a message that wants to arrive at `ts`; it arrives no earlier than the one before it. Returns 0, or 1 when full."""
    capacity = q.ts.shape[0]
    if q.head[1] >= capacity:
        return 1
    arrival = max(ts, q.head[2])
    q.head[2] = arrival
    at = (q.head[0] + q.head[1]) % capacity
    q.ts[at] = arrival
    q.kind[at] = kind
    q.id[at] = order_id
    q.side[at] = side
    q.price_ticks[at] = price_ticks
    q.lots[at] = lots
    q.extra[at] = extra
    q.maker[at] = maker
    q.mid_half_ticks[at] = mid_half_ticks
    q.purpose[at] = purpose
    q.head[1] += 1
    return 0


@kernel
def pop(q: Queue) -> int:
    """Place of the oldest message, which leaves the queue (its fields stay readable until the next push)."""
    at = q.head[0]
    q.head[0] = (at + 1) % q.ts.shape[0]
    q.head[1] -= 1
    return at


class FillLog(NamedTuple):
    """Executions of ours in venue order; `n[0]` rows are valid."""

    n: Int64s
    exch_ts: Int64s
    local_ts: Int64s
    id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    leaves_lots: Int64s
    maker: Int64s
    purpose: Int64s
    mid_half_ticks: Int64s
    fee_nano: Int64s
    position_lots: Int64s


def new_fill_log(capacity: int) -> FillLog:
    """Room for `capacity` executions; a run that needs more ends with a status and is repeated with more room."""
    return FillLog(np.zeros(1, dtype=np.int64), *(np.zeros(capacity, dtype=np.int64) for _ in range(12)))
