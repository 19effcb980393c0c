"""Samples of the sets' accounts on an even grid of time, as columns.

Belongs here: the columns. Equity is what the venue's mid says at that instant, fees and funding in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SampleTable:
    """One row per set and sample; equal-length columns.

    set_no : which parameter set. ts_ns : when. equity : float64, profit since the start in the account's currency.
    position_lots, hedge_position_lots : on the first and second venue, each in its own lots (0 without a second).
    mid_half_ticks : twice the first venue's mid. liquidation_distance_frac : float64, how far
    the price may move against the set until it is liquidated, a fraction of the mid; nan where margin is not tracked or the set is flat.
    """

    set_no: Int64s
    ts_ns: Int64s
    equity: Float64s
    position_lots: Int64s
    hedge_position_lots: Int64s
    mid_half_ticks: Int64s
    liquidation_distance_frac: Float64s

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns().items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns of a sample table differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.ts_ns)

    @classmethod
    def of_one_set(
        cls,
        ts_ns: Int64s,
        equity: Float64s,
        position_lots: Int64s,
        mid_half_ticks: Int64s,
        *,
        set_no: int = 0,
        hedge_position_lots: Int64s | None = None,
        liquidation_distance_frac: Float64s | None = None,
    ) -> SampleTable:
        """The samples of one set from its own series."""
        n = len(ts_ns)
        return cls(
            np.full(n, set_no, dtype=np.int64),
            ts_ns,
            equity,
            position_lots,
            np.zeros(n, dtype=np.int64) if hedge_position_lots is None else hedge_position_lots,
            mid_half_ticks,
            np.full(n, np.nan) if liquidation_distance_frac is None else liquidation_distance_frac,
        )

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name, not copied."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
