"""How much of what was sent was filled, and how long messages took: read-outs of fill and order tables.

Belongs here: fill ratios and latencies. Does not belong here: queues (`queue_statistics`), prices after fills (`markouts`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mm_platform.core.units import NS_PER_MS
from mm_platform.kernels.orders import PURPOSES
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.order_table import ACTIONS, NEVER_NS, OrderTable
from mm_platform.replay.quantiles import Quantiles


@dataclass(frozen=True, slots=True)
class FillRatio:
    """What became of the orders of one purpose.

    orders, lots : sent and asked for. filled_orders : with at least one execution. filled_lots : executed.
    """

    purpose: str
    orders: int
    filled_orders: int
    lots: int
    filled_lots: int

    @property
    def per_order(self) -> float:
        """Share of orders with at least one execution; nan when none was sent."""
        return self.filled_orders / self.orders if self.orders else math.nan

    @property
    def per_lot(self) -> float:
        """Share of the quantity asked for that was executed; nan when none was."""
        return self.filled_lots / self.lots if self.lots else math.nan


def fill_ratios(fills: FillTable, orders: OrderTable) -> tuple[FillRatio, ...]:
    """Fill ratios by purpose, of one venue's tables of one or more sets; purposes that nothing was sent for are left out.

    A modification does not count as an order; the quantity it asks for replaces the one asked for before.
    """
    ratios = []
    for code, purpose in enumerate(PURPOSES):
        placed = (orders.purpose == code) & (orders.action == ACTIONS.index("place"))
        if not placed.any():
            continue
        executed = fills.purpose == code
        keys = np.stack((fills.set_no[executed], fills.order_id[executed]))
        ratios.append(
            FillRatio(
                purpose,
                int(np.count_nonzero(placed)),
                int(np.unique(keys, axis=1).shape[1]) if keys.size else 0,
                _lots_asked_for(orders, code),
                int(np.sum(fills.lots[executed])),
            )
        )
    return tuple(ratios)


def _lots_asked_for(orders: OrderTable, purpose: int) -> int:
    asks = (orders.purpose == purpose) & (orders.action != ACTIONS.index("cancel"))
    if not asks.any():
        return 0
    set_no, order_id, lots = orders.set_no[asks], orders.order_id[asks], orders.lots[asks]
    by_order = np.lexsort((order_id, set_no))  # stable: requests of one order stay in the order sent
    set_no, order_id, lots = set_no[by_order], order_id[by_order], lots[by_order]
    last = np.ones(len(lots), dtype=np.bool_)
    last[:-1] = (set_no[1:] != set_no[:-1]) | (order_id[1:] != order_id[:-1])
    return int(np.sum(lots[last]))


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long messages took, ms.

    request_to_ack : from sending a request to its answer; empty without an order log. fill_to_known : from an execution at the venue to
    our knowing of it.
    """

    request_to_ack_ms: Quantiles
    fill_to_known_ms: Quantiles


def latencies(fills: FillTable, orders: OrderTable | None) -> Latencies:
    """Message times as they were in the run: with messages first in, first out, a slow one holds up those behind it."""
    if orders is None:
        round_trips = np.empty(0)
    else:
        answered = orders.answered_ns != NEVER_NS
        round_trips = (orders.answered_ns[answered] - orders.sent_ns[answered]) / NS_PER_MS
    return Latencies(Quantiles.of(round_trips), Quantiles.of((fills.local_ts - fills.exch_ts) / NS_PER_MS))
