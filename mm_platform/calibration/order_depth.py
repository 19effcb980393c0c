"""Market orders and how deep they went, measured from the decision whose quote they could have met.

Belongs here: joining prints to orders, the grid of decisions, depth behind the touch with the time quotes were exposed. Does not belong here:
estimators (`intensity`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import CalibrationError, DataError
from mm_platform.core.units import NS_PER_S

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
QuoteSide = Literal["bid", "ask"]


@dataclass(frozen=True, slots=True)
class DecisionGrid:
    """When quotes could be decided and the touch then seen; equal-length columns, `ts_ns` (local time) ascending.

    `bid_ticks`, `ask_ticks`: best prices by local time `ts_ns`. `valid`: whether the book was known. The mid is their mean.
    """

    ts_ns: Int64s
    bid_ticks: Int64s
    ask_ticks: Int64s
    valid: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        lengths = {len(self.ts_ns), len(self.bid_ticks), len(self.ask_ticks), len(self.valid)}
        if len(lengths) != 1:
            raise DataError(f"decision grid: columns of lengths {sorted(lengths)}, expected one length")
        if len(self.ts_ns) > 1 and np.any(np.diff(self.ts_ns) <= 0):
            i = int(np.argmax(np.diff(self.ts_ns) <= 0)) + 1
            raise DataError(f"decision grid: time {self.ts_ns[i]} at row {i} does not lie after {self.ts_ns[i - 1]}")
        crossed = self.valid & ((self.bid_ticks <= 0) | (self.ask_ticks <= self.bid_ticks))
        if np.any(crossed):
            i = int(np.argmax(crossed))
            raise DataError(
                f"decision grid: row {i} is marked valid with bid {self.bid_ticks[i]} and ask {self.ask_ticks[i]} ticks; expected 0 < bid < ask"
            )

    def through(self, from_ns: int, through_ns: int) -> DecisionGrid:
        """Decisions with from_ns <= ts <= through_ns."""
        lo = int(np.searchsorted(self.ts_ns, from_ns, side="left"))
        hi = int(np.searchsorted(self.ts_ns, through_ns, side="right"))
        return DecisionGrid(self.ts_ns[lo:hi], self.bid_ticks[lo:hi], self.ask_ticks[lo:hi], self.valid[lo:hi])

    def mid_ticks(self) -> Float64s:
        """Mid in ticks; nan where the book was not known."""
        return np.where(self.valid, (self.bid_ticks + self.ask_ticks) / 2.0, np.nan)

    def step_ns(self) -> int:
        """The usual distance of two decisions (median), ns; 0 with fewer than two."""
        return int(np.median(np.diff(self.ts_ns))) if len(self.ts_ns) > 1 else 0


@dataclass(frozen=True, slots=True)
class MarketOrders:
    """Prints joined to the orders that caused them; columns in venue order.

    `exch_ts`: venue time, ns. `known_ns`: local time of the order's last print. `side`: the aggressor's, +1 bought. `worst_ticks`: deepest price.
    """

    exch_ts: Int64s
    known_ns: Int64s
    side: npt.NDArray[np.int8]
    worst_ticks: Int64s
    lots: Int64s

    def __len__(self) -> int:
        return len(self.exch_ts)


def market_orders(exch_ts: Int64s, local_ts: Int64s, side: npt.NDArray[np.int8], price_ticks: Int64s, qty_lots: Int64s) -> MarketOrders:
    """Join prints with one venue time and one aggressor side to one market order.

    Parameters
    ----------
    exch_ts : array of int64, shape (n,)
        Venue time, ns, ascending.
    local_ts : array of int64
        Local time, ns. To look no further than some time, drop later prints before joining.
    side : array of int8
        Aggressor: +1 bought, -1 sold.
    price_ticks, qty_lots : array of int64
        Price and size of each print.

    Returns
    -------
    MarketOrders
        Ordered by time, sells before buys at one time. Two orders within one tick of the venue's clock are joined too (millisecond
        clocks): the count is then a count of clock ticks with flow, which is what one resting quote can meet.

    Raises
    ------
    DataError
        On a side that is neither +1 nor -1, or times that run backwards.
    """
    if len(exch_ts) == 0:
        empty = np.empty(0, dtype=np.int64)
        return MarketOrders(empty, empty, np.empty(0, dtype=np.int8), empty, empty)
    if np.any(np.abs(side) != 1):
        i = int(np.argmax(np.abs(side) != 1))
        raise DataError(f"print {i} has aggressor side {side[i]}, expected +1 or -1")
    if np.any(np.diff(exch_ts) < 0):
        i = int(np.argmax(np.diff(exch_ts) < 0)) + 1
        raise DataError(f"print {i} at {exch_ts[i]} lies before the one above ({exch_ts[i - 1]}); sort by venue time first")
    order = np.lexsort((side, exch_ts))
    ts, sd = exch_ts[order], side[order]
    starts = np.flatnonzero(np.concatenate(([True], (np.diff(ts) != 0) | (np.diff(sd) != 0))))
    signed = price_ticks[order] * sd  # deepest print = highest for buys, lowest for sells
    return MarketOrders(
        ts[starts],
        np.maximum.reduceat(local_ts[order], starts),
        sd[starts],
        np.maximum.reduceat(signed, starts) * sd[starts].astype(np.int64),
        np.add.reduceat(qty_lots[order], starts),
    )


@dataclass(frozen=True, slots=True)
class Penetration:
    """How far the orders of one side went behind the touch that a quote's decision saw.

    `excess_ticks` (>= 0) and `order_ts_ns` (venue time): one per order that reached the touch, in venue order. `start_ns`, `exposure_s`,
    `half_spread_half_ticks`: one per decision interval during which quotes could rest. `mean_mid_ticks`: time-weighted over them.
    """

    excess_ticks: Int64s
    order_ts_ns: Int64s
    start_ns: Int64s
    exposure_s: Float64s
    half_spread_half_ticks: Int64s
    mean_mid_ticks: float

    @property
    def total_s(self) -> float:
        return float(np.sum(self.exposure_s))


def penetration(orders: MarketOrders, grid: DecisionGrid, side: QuoteSide, latency_ns: int, through_ns: int) -> Penetration:
    """Measure orders against the touch at the last decision that could have put a quote in their way.

    A quote decided at `t` rests at the venue from `t + latency` until the next decision's quote arrives. An order at venue time `x`
    therefore meets the quote of the last decision with `t + latency <= x`, and its depth counts from *that* decision's mid.

    Parameters
    ----------
    orders : MarketOrders
        Of both sides; the side that hits `side` is selected.
    grid : DecisionGrid
        Decisions; intervals longer than twice the usual step (holes) and those with an unknown book are no exposure.
    side : {"bid", "ask"}
        Whose quotes are hit: `ask` by buys, `bid` by sells.
    latency_ns : int
        From decision to the quote resting at the venue, >= 0.
    through_ns : int
        Intervals that end after this time are left out: not all of their orders can be known yet.
    """
    if latency_ns < 0:
        raise CalibrationError(f"latency {latency_ns} ns, expected >= 0")
    if len(grid.ts_ns) < 2:
        nothing = np.empty(0, dtype=np.int64)
        return Penetration(nothing, nothing, nothing, np.empty(0), nothing, math.nan)
    resting_from = grid.ts_ns + latency_ns
    length_ns = np.diff(grid.ts_ns)
    usable = grid.valid[:-1] & (length_ns <= 2 * grid.step_ns()) & (resting_from[1:] <= through_ns)
    aggressor = 1 if side == "ask" else -1
    chosen = orders.side == aggressor
    order_ts, worst = orders.exch_ts[chosen], orders.worst_ticks[chosen]
    interval = np.searchsorted(resting_from, order_ts, side="right") - 1
    inside = (interval >= 0) & (interval < len(length_ns))
    inside[inside] = usable[interval[inside]]
    touch = grid.ask_ticks if side == "ask" else grid.bid_ticks
    excess = aggressor * (worst[inside] - touch[interval[inside]])
    reached = excess >= 0
    exposure_s = length_ns[usable] / NS_PER_S
    mids = (grid.bid_ticks[:-1][usable] + grid.ask_ticks[:-1][usable]) / 2.0
    return Penetration(
        excess_ticks=excess[reached],
        order_ts_ns=order_ts[inside][reached],
        start_ns=resting_from[:-1][usable],
        exposure_s=exposure_s,
        half_spread_half_ticks=(grid.ask_ticks - grid.bid_ticks)[:-1][usable],
        mean_mid_ticks=float(np.average(mids, weights=exposure_s)) if len(mids) else math.nan,
    )
