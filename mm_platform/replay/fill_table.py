"""Executions of ours as columns: what a run logs, what a sink receives in pieces, what a result keeps.

Belongs here: the columns and how they are cut. Does not belong here: what they say about a strategy (`queue_statistics`,
`execution_statistics`, `markouts`), how they are stored (`workflow.replay_store`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FillTable:
    """Executions in venue order; equal-length columns, int64 unless named.

    set_no : which parameter set of the run. venue_no : 0 the venue quoted on, 1 the one hedged on.
    exch_ts, local_ts : when it happened and when we knew, ns. order_id : ours, counted per set.
    side : +1 we bought, -1 we sold. price_ticks, lots : of the execution. leaves_lots : of the order afterwards.
    maker : 1 our resting order was hit, 0 we took. purpose : `kernels.orders.PURPOSES`.
    mid_half_ticks : twice the venue's mid just before, ticks. fee_nano : fee in 1e-9 of the money the fee is in, rebates negative.
    position_lots : of the set at that venue afterwards.
    arrived_ns : when the order reached the venue, ns.
    front_arrival_lots, front_fill_lots : float64, quantity ahead of the order in its queue when it arrived and just before it was filled,
    in lots; they say nothing where there was no queue (takers).
    decided_mid_half_ticks : twice the mid the decision saw when it sent the order; 0 where there was none.
    """

    set_no: Int64s
    venue_no: Int64s
    exch_ts: Int64s
    local_ts: Int64s
    order_id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    leaves_lots: Int64s
    maker: Int64s
    purpose: Int64s
    mid_half_ticks: Int64s
    fee_nano: Int64s
    position_lots: Int64s
    arrived_ns: Int64s
    front_arrival_lots: Float64s
    front_fill_lots: Float64s
    decided_mid_half_ticks: Int64s

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns().values()}
        if len(lengths) > 1:
            raise DataError(f"columns of a fill table differ in length: { {name: len(c) for name, c in self.columns().items()} }")

    def __len__(self) -> int:
        return len(self.exch_ts)

    @classmethod
    def empty(cls) -> FillTable:
        """No executions."""
        columns: dict[str, Any] = {name: np.empty(0, dtype=np.float64 if name.startswith("front_") else np.int64) for name in FILL_COLUMNS}
        return cls(**columns)

    @classmethod
    def concatenate(cls, parts: list[FillTable]) -> FillTable:
        """One table of several, in their order."""
        if not parts:
            return cls.empty()
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in FILL_COLUMNS})

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name, not copied."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def where(self, mask: Bools) -> FillTable:
        """The rows a mask chooses."""
        return FillTable(**{name: column[mask] for name, column in self.columns().items()})

    def of_set(self, set_no: int) -> FillTable:
        """One parameter set's executions."""
        return self.where(self.set_no == set_no)

    def of_venue(self, venue_no: int) -> FillTable:
        """One venue's executions."""
        return self.where(self.venue_no == venue_no)


FILL_COLUMNS = tuple(f.name for f in fields(FillTable))
