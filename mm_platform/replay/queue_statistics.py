"""Where our orders stood in their queues, and what brought them to the front: read-outs of a fill table.

Belongs here: queue position at arrival and at the fill, time to fill, what moved the queue. Only orders that were filled are seen: an order
that stood behind a long queue and was cancelled leaves no row, so the figures describe fills, not chances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.units import NS_PER_S
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.quantiles import Quantiles
from mm_platform.tape.layout import NOT_MARKET, Kind, Tape

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# lower ends of the classes of queue position at arrival, in lots
CLASSES_LOTS: Final = (0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0)


@dataclass(frozen=True, slots=True)
class QueueClass:
    """Maker fills of orders that arrived behind `from_lots` <= quantity < `below_lots`; time to fill is the median, nan when there are none."""

    from_lots: float
    below_lots: float
    fills: int
    lots: int
    time_to_fill_p50_s: float


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Queues of maker fills.

    fills : maker fills with a queue. front_arrival_lots : quantity ahead on arrival. time_to_fill_s : arrival to execution.
    advanced_lots : by how much queues moved up, summed over fills. advanced_by_prints_lots : the part that prints at the order's own price
    account for; the rest went by cancels, as the queue model assumes them. nan where the tape was not at hand.
    """

    fills: int
    front_arrival_lots: Quantiles
    time_to_fill_s: Quantiles
    advanced_lots: float
    advanced_by_prints_lots: float
    by_front: tuple[QueueClass, ...]

    @property
    def advanced_by_prints_frac(self) -> float:
        """Share of the way to the front that prints made; nan when no queue moved or the tape was not at hand."""
        return self.advanced_by_prints_lots / self.advanced_lots if self.advanced_lots > 0.0 else math.nan


def queue_statistics(fills: FillTable, tape: Tape | None = None) -> QueueStatistics:
    """Queue statistics of the maker fills of one venue.

    Parameters
    ----------
    fills : FillTable
        One venue's; of one or more sets.
    tape : Tape, optional
        The rows the run was on, to tell prints from cancels.
    """
    queued = fills.where((fills.maker == 1) & ~np.isnan(fills.front_arrival_lots))
    front = queued.front_arrival_lots
    waited_s = (queued.exch_ts - queued.arrived_ns) / NS_PER_S
    # a model may push the front below zero, and the fill itself brings it there: nothing is ahead then
    advanced = np.maximum(front - np.maximum(np.nan_to_num(queued.front_fill_lots), 0.0), 0.0)
    by_prints = math.nan if tape is None else float(np.sum(np.minimum(printed_lots(queued, tape), advanced)))
    classes = []
    for k, low in enumerate(CLASSES_LOTS):
        high = CLASSES_LOTS[k + 1] if k + 1 < len(CLASSES_LOTS) else math.inf
        inside = (front >= low) & (front < high)
        if inside.any():
            classes.append(
                QueueClass(low, high, int(np.count_nonzero(inside)), int(np.sum(queued.lots[inside])), float(Quantiles.of(waited_s[inside]).p50))
            )
    return QueueStatistics(len(queued), Quantiles.of(front), Quantiles.of(waited_s), float(np.sum(advanced)), by_prints, tuple(classes))


def printed_lots(fills: FillTable, tape: Tape) -> Float64s:
    """Per fill: lots printed at the order's own price against its side after it arrived and up to the instant of the fill (inclusive).

    At one instant rows at the venue come before arriving requests, so prints at the instant of arrival were over.
    """
    prints = np.flatnonzero((tape.kind == Kind.TRADE) & (tape.flags & NOT_MARKET == 0) & (tape.side != 0))
    if not len(prints) or not len(fills):
        return np.zeros(len(fills))
    ts = tape.exch_ts[prints]
    # a buy of ours is hit by sellers: the level's key is (price, our side)
    level = tape.price_ticks[prints] * 2 + (tape.side[prints] == -1)
    wanted = fills.price_ticks * 2 + (fills.side == 1)
    levels, of_print = np.unique(level, return_inverse=True)
    place = np.minimum(np.searchsorted(levels, wanted), len(levels) - 1)
    known = levels[place] == wanted
    # prints ordered by level, then time; a (level, number of prints by then) pair is one whole number
    order = np.lexsort((np.arange(len(prints)), of_print))
    key = of_print[order] * (len(prints) + 1) + order
    volume = np.concatenate(([0], np.cumsum(tape.qty_lots[prints][order])))

    def up_to(at_ns: Int64s) -> Int64s:
        seen = np.searchsorted(ts, at_ns, side="right")
        return volume[np.searchsorted(key, place * (len(prints) + 1) + seen, side="left")]

    return np.where(known, up_to(fills.exch_ts) - up_to(fills.arrived_ns), 0).astype(np.float64)
