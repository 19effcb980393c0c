"""Our orders as the local side knows them, and the order step: keep, place, cancel or replace.

Belongs here: the local order table and what venue answers do to it, the refresh rule, the order-rate budget. Does not belong here: the
venue's own view (`kernels.exchange`), what price we want (`kernels.quoting`).

Life of an entry: PENDING_NEW -> LIVE -> PENDING_CANCEL -> gone; any of the three may end by a fill or a reject. An entry counts towards
exposure until the venue has said that it is gone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

PENDING_NEW: Final = 1
LIVE: Final = 2
PENDING_CANCEL: Final = 3

QUOTE: Final = 0
HEDGE: Final = 1
FLATTEN: Final = 2
PURPOSES: Final = ("quote", "hedge", "flatten")

KEEP: Final = 0
PLACE: Final = 1
CANCEL: Final = 2
REPLACE: Final = 3


class OrderPolicy(NamedTuple):
    """How quotes and takers are sent.

    order_lots : size of a quote. refresh_ns : quotes are re-priced at most this often. tolerance_ticks : an order this close to the
    wanted price keeps its place in the queue. backoff_ns : wait on a side after a post-only reject. orders_per_s, burst : budget of new
    orders (cancels are free: they always go out). hedge_interval_ns : takers at most this often. slippage_ticks : how far beyond the
    touch a taker may go. min_lots : smallest order the venue takes; quotes and hedges below it are not sent.
    """

    order_lots: int
    refresh_ns: int
    tolerance_ticks: int
    backoff_ns: int
    orders_per_s: float
    burst: float
    hedge_interval_ns: int
    slippage_ticks: int
    min_lots: int = 1


class LocalOrders(NamedTuple):
    """Entries of our working orders at all venues; `status` 0 marks a free place.

    `venue` is 0 where we quote and 1 where we hedge. `used[0]` is one past the last place in use: whoever walks the table stops there, so
    entries are freed by `local_free` only.
    """

    id: Int64s
    side: Int64s
    price_ticks: Int64s
    leaves_lots: Int64s
    status: Int64s
    purpose: Int64s
    venue: Int64s
    used: Int64s


def new_local_orders(capacity: int = 32) -> LocalOrders:
    """Room for `capacity` orders of ours that are not yet known to be gone."""
    order_id, side, price, leaves, status, purpose, venue = (np.zeros(capacity, dtype=np.int64) for _ in range(7))
    return LocalOrders(order_id, side, price, leaves, status, purpose, venue, used=np.zeros(1, dtype=np.int64))


@kernel
def local_find(orders: LocalOrders, order_id: int) -> int:
    """Place of an order in the table, -1 when unknown."""
    for i in range(orders.used[0]):
        if orders.id[i] == order_id and orders.status[i] != 0:
            return i
    return -1


@kernel
def local_add(orders: LocalOrders, order_id: int, venue: int, side: int, price_ticks: int, lots: int, purpose: int) -> int:
    """Enter an order as it is sent (PENDING_NEW); returns its place or -1 when the table is full."""
    used = orders.used[0]
    at = 0
    while at < used and orders.status[at] != 0:
        at += 1
    if at == orders.id.shape[0]:
        return -1
    orders.id[at] = order_id
    orders.side[at] = side
    orders.price_ticks[at] = price_ticks
    orders.leaves_lots[at] = lots
    orders.status[at] = PENDING_NEW
    orders.purpose[at] = purpose
    orders.venue[at] = venue
    if at == used:
        orders.used[0] = used + 1
    return at


@kernel
def local_free(orders: LocalOrders, at: int) -> None:
    """Forget the order at a place: it is known to be gone."""
    orders.status[at] = 0
    used = orders.used[0]
    while used > 0 and orders.status[used - 1] == 0:
        used -= 1
    orders.used[0] = used


@kernel
def working_quote(orders: LocalOrders, side: int) -> int:
    """Place of the side's quote that is not being cancelled, -1 when there is none."""
    for i in range(orders.used[0]):
        if (orders.status[i] == PENDING_NEW or orders.status[i] == LIVE) and orders.side[i] == side and orders.purpose[i] == QUOTE:
            return i
    return -1


@kernel
def open_lots(orders: LocalOrders, venue: int, side: int) -> int:
    """Lots of a side at a venue that may still fill: everything not known to be gone, cancels in flight included."""
    total = 0
    for i in range(orders.used[0]):
        if orders.status[i] != 0 and orders.side[i] == side and orders.venue[i] == venue:
            total += orders.leaves_lots[i]
    return total


@kernel
def taker_in_flight(orders: LocalOrders, venue: int) -> int:
    """Side (+1, -1) of the hedge or flattening order at a venue that has not been answered in full, 0 when there is none."""
    for i in range(orders.used[0]):
        if orders.status[i] != 0 and orders.purpose[i] != QUOTE and orders.venue[i] == venue:
            return orders.side[i]
    return 0


@kernel
def order_step(wanted_ticks: int, allowed: int, working_ticks: int, has_working: int, due: int, tolerance_ticks: int) -> int:
    """What to do with one side.

    Not allowed (or no wanted price): cancel what stands, at once. Nothing stands: place. Something stands: leave it while it is
    within tolerance or the refresh is not due, else replace.
    """
    if allowed == 0 or wanted_ticks <= 0:
        return CANCEL if has_working == 1 else KEEP
    if has_working == 0:
        return PLACE
    if abs(wanted_ticks - working_ticks) <= tolerance_ticks or due == 0:
        return KEEP
    return REPLACE


@kernel
def budget_step(tokens: float, last_ns: int, now_ns: int, per_s: float, burst: float) -> float:
    """Refill of the token bucket for new orders."""
    filled = tokens + (now_ns - last_ns) * 1e-9 * per_s
    return min(filled, burst)
