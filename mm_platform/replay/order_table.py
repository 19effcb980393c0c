"""Requests of ours as columns: every order, cancel and modification that was sent, when it arrived, and what became of it.

Belongs here: the columns and their codes. A run keeps them on demand only: a set sends ten to a hundred requests per fill.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError

Int64s = npt.NDArray[np.int64]

NEVER_NS: Final = -1

ACTIONS: Final = ("", "place", "cancel", "modify")
OUTCOMES: Final = ("pending", "resting", "filled", "expired", "cancelled", "modified", "rejected", "lost")


@dataclass(frozen=True, slots=True)
class OrderTable:
    """Requests in the order they were sent; equal-length int64 columns.

    set_no, venue_no, order_id : whose, where, which order.
    action : place of the word in `ACTIONS`. side : +1 buy, -1 sell. price_ticks, lots : asked for. tif : `kernels.exchange` (GTC, GTX, IOC,
    FOK). order_type : 0 limit, 1 market. purpose : `kernels.orders.PURPOSES`.
    sent_ns : when we sent it. arrived_ns : when the venue had it (-1: it never arrived). answered_ns : when we had its answer (-1: not by the
    end of the run). outcome : place of the word in `OUTCOMES`, as the venue answered on arrival.
    """

    set_no: Int64s
    venue_no: Int64s
    order_id: Int64s
    action: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    tif: Int64s
    order_type: Int64s
    purpose: Int64s
    sent_ns: Int64s
    arrived_ns: Int64s
    answered_ns: Int64s
    outcome: Int64s

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns().items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns of an order table differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.sent_ns)

    @classmethod
    def empty(cls) -> OrderTable:
        """No requests."""
        return cls(*(np.empty(0, dtype=np.int64) for _ in fields(cls)))

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name, not copied."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def of_set(self, set_no: int) -> OrderTable:
        """One parameter set's requests."""
        mask = self.set_no == set_no
        return OrderTable(**{name: column[mask] for name, column in self.columns().items()})


ORDER_COLUMNS = tuple(f.name for f in fields(OrderTable))
