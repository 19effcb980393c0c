"""What the mid did after our fills: mark-outs at fixed horizons, and the split of inventory profit into stretches after the fills.

Belongs here: read-outs of fills against a path of mids (THEORY section 9, I2 and I3). The mid at a time is the one at or before it; mark-outs of
fills close in time overlap and are not independent.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import markouts_path, money_of, worth_path
from mm_platform.replay.fill_table import FillTable
from mm_platform.tape.book_path import MidPath

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

MARKOUT_HORIZONS_S: Final = (1, 5, 30, 60, 300)


def markouts_frac(fills: FillTable, mids: MidPath, horizon_s: float) -> Float64s:
    """Per fill of one venue: relative move of the mid in our favour from just before it to `horizon_s` later (nan: beyond the path)."""
    out = np.empty(len(fills))
    markouts_path.compiled(fills.exch_ts, fills.side, mids.exch_ts, mids.half_ticks, fills.mid_half_ticks, int(horizon_s * NS_PER_S), out)
    return out


def mean_maker_markouts_bps(fills: FillTable, mids: MidPath) -> dict[float, float]:
    """Mean mark-out of maker fills by horizon [s], in bps, weighted by lots (nan: no fill with that future)."""
    result: dict[float, float] = {}
    for horizon in MARKOUT_HORIZONS_S:
        values = markouts_frac(fills, mids, horizon)
        known = (fills.maker == 1) & ~np.isnan(values)
        weight = fills.lots[known].astype(np.float64)
        result[float(horizon)] = float(np.average(values[known], weights=weight)) * 1e4 if known.any() else math.nan
    return result


@dataclass(frozen=True, slots=True)
class InventoryBucket:
    """Inventory profit that was made between two ages of the positions that fills opened.

    from_s, below_s : age in s (inf: to the end of the run). maker_quanta, taker_quanta : of maker and taker fills, in quanta of the ledger
    (`kernels.accounting.quantum_of` says what one is worth).
    """

    from_s: float
    below_s: float
    maker_quanta: int
    taker_quanta: int


def inventory_buckets(fills: FillTable, mids: MidPath, spec: InstrumentSpec, final_half_ticks: int) -> tuple[InventoryBucket, ...]:
    """Split the inventory profit of one set at one venue by the age of its fills, exactly.

    Every fill is a position from then to the end (I2); its profit is cut at the mark-out horizons (I3), and what lies beyond the end of the run is
    zero. The sum over all buckets and both kinds of fill is the ledger's inventory profit to the last quantum, for every kind of contract, of a
    run that began flat.

    Parameters
    ----------
    fills : FillTable
        In venue order.
    mids : MidPath
        The venue's mids.
    spec : InstrumentSpec
        What a move of the mid is worth.
    final_half_ticks : int
        The ledger's last mark: what the position is worth at the end.
    """
    money = money_of(spec)

    def worth(half_ticks: Int64s) -> Int64s:
        out = np.empty(len(half_ticks), dtype=np.int64)
        worth_path.compiled(money, half_ticks, out)
        return out

    size = fills.side * fills.lots
    maker = fills.maker == 1
    before = worth(fills.mid_half_ticks)
    edges = (0.0, *map(float, MARKOUT_HORIZONS_S), math.inf)
    buckets = []
    for low, high in itertools.pairwise(edges):
        if math.isinf(high):
            after = worth(np.full(len(fills), final_half_ticks, dtype=np.int64))
        else:
            after = worth(_mids_at(mids, fills.exch_ts + int(high * NS_PER_S), final_half_ticks))
        profit = size * (after - before)
        buckets.append(InventoryBucket(low, high, int(np.sum(profit[maker])), int(np.sum(profit[~maker]))))
        before = after
    return tuple(buckets)


def _mids_at(mids: MidPath, at_ns: Int64s, final_half_ticks: int) -> Int64s:
    place = np.searchsorted(mids.exch_ts, at_ns, side="right") - 1
    if not len(mids.exch_ts):
        return np.full(len(at_ns), final_half_ticks, dtype=np.int64)
    known = (place >= 0) & (at_ns <= mids.exch_ts[-1])
    return np.where(known, mids.half_ticks[np.maximum(place, 0)], final_half_ticks)
