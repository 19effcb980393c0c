"""The hedging step: inventory and time in, an amount to trade out.

Belongs here: when an inventory is hedged, how much of it, whether to wait, and what a hedge venue takes of it. Does not belong here: where
the threshold comes from (`calibration`), how the order crosses the spread (`kernels.decision`).

The excess is the whole deviation from the target: a hedge ratio of 0.8 trades 80 % of |inventory - target| once that exceeds the threshold.
With `to_boundary` the excess is only what lies beyond the threshold (the optimal policy under proportional costs: trade back to the edge of
the band, not to its centre). Costs of the two: Whalley & Wilmott (1997); Barzykin, Bergault & Gueant (2023).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from mm_platform.kernels.jit import kernel
from mm_platform.kernels.money import Money, base_per_lot, notional_quote

NONE: Final = 0
OPPORTUNISTIC: Final = 1
FORCED: Final = 2


class HedgeParams(NamedTuple):
    """Parameters of the hedging step.

    threshold : base, hedge when |inventory - target| exceeds it (inf: never). target : base. ratio : share of the excess that is traded.
    min_size : base, smaller hedges are not sent. max_latency_s : seconds a breach may wait for a favourable moment (0: none).
    to_boundary : 0 the excess is the whole deviation, 1 only the part beyond the threshold.
    """

    threshold: float
    target: float
    ratio: float
    min_size: float
    max_latency_s: float
    to_boundary: int = 0


# what quotes do while the hedge venue's market is not known
BLIND_PULL: Final = 0
BLIND_WITHIN_THRESHOLD: Final = 1
BLIND_KEEP: Final = 2
BLIND_NAMES: Final = {"pull": BLIND_PULL, "within_threshold": BLIND_WITHIN_THRESHOLD, "keep": BLIND_KEEP}
# float noise when base amounts are counted in lots
LOT_TOLERANCE: Final = 1e-9


class HedgeVenue(NamedTuple):
    """A second venue where inventory is hedged; `present` 0: there is none and hedges cross on the venue that is quoted.

    Parameters
    ----------
    present : int
        1 when hedges go to this venue.
    money : Money
        Its lot, tick and fees.
    min_lots : int
        Smallest order it takes.
    min_notional : float
        Smallest order it takes, quote.
    max_order_lots, max_position_lots : int
        The runner's limits there; what a limit cuts off stays part of the net inventory and is hedged later.
    slippage_ticks : int
        How far beyond its touch a hedge may go.
    interval_ns : int
        Hedges at most this often.
    blind : int
        What quotes do while this venue's market is not known (no book, crossed, stale): `BLIND_PULL` all are cancelled;
        `BLIND_WITHIN_THRESHOLD` a side is quoted only while its fill would leave the net inventory inside the hedge threshold, so nothing is
        taken on that would have to be hedged; `BLIND_KEEP` as if nothing were wrong.
    """

    present: int
    money: Money
    min_lots: int = 1
    min_notional: float = 0.0
    max_order_lots: int = 0
    max_position_lots: int = 0
    slippage_ticks: int = 0
    interval_ns: int = 0
    blind: int = BLIND_WITHIN_THRESHOLD


NO_HEDGE_VENUE: Final = HedgeVenue(0, Money(0.0, 0.0, 0.0, 0.0))


@kernel
def hedge_lots(venue: HedgeVenue, base: float, position_lots: int, price: float) -> int:
    """Signed lots of a hedge at a venue: whole lots of `base` (signed) within its limits, 0 when that is less than it takes.

    Parameters
    ----------
    venue
        Where the hedge goes.
    base : float
        Signed base to trade.
    position_lots : int
        Position held there.
    price : float
        Mid of that venue, quote per base.
    """
    side = 1 if base > 0.0 else -1
    lots = int(math.floor(abs(base) / base_per_lot(venue.money, price) + LOT_TOLERANCE))
    room = venue.max_position_lots - side * position_lots
    lots = min(lots, min(venue.max_order_lots, room))
    if lots < venue.min_lots or lots <= 0 or notional_quote(venue.money, lots, price) < venue.min_notional:
        return 0
    return side * lots


@kernel
def hedge_size(p: HedgeParams, inventory_base: float) -> float:
    """Signed base amount that brings the inventory back (+ buys), 0 inside the band or below `min_size`; never beyond the target."""
    deviation = inventory_base - p.target
    distance = abs(deviation)
    if not distance > p.threshold:
        return 0.0
    excess = distance - p.threshold if p.to_boundary == 1 else distance
    size = min(p.ratio * excess, distance)
    if size <= 0.0 or size < p.min_size:
        return 0.0
    return -size if deviation > 0.0 else size


@kernel
def is_favourable(signed_size: float, mid: float, microprice: float) -> int:
    """1 when crossing now beats waiting: selling above the microprice, buying below it. Without a microprice nothing is known: 0."""
    if signed_size < 0.0:
        return 1 if microprice < mid else 0
    if signed_size > 0.0:
        return 1 if microprice > mid else 0
    return 0


@kernel
def hedge_step(p: HedgeParams, inventory_base: float, breach_since_ns: int, now_ns: int, mid: float, microprice: float) -> tuple[float, int, int]:
    """What to hedge now.

    Parameters
    ----------
    p
        Parameters.
    inventory_base : float
        Signed inventory in base.
    breach_since_ns : int
        Since when the threshold has been exceeded, 0 = it was not; the third value of the last call.
    now_ns : int
        Time of the decision.
    mid, microprice : float
        Quote per base; microprice nan = unknown.

    Returns
    -------
    tuple
        (signed base to trade now, 0 = nothing; urgency `NONE`, `OPPORTUNISTIC` or `FORCED`; breach_since_ns). An urgency with size 0 means:
        in breach, waiting for a better moment. A breach whose hedge is below `min_size` has no urgency but keeps its clock.
    """
    if not abs(inventory_base - p.target) > p.threshold:
        return 0.0, NONE, 0
    since = breach_since_ns if breach_since_ns > 0 else now_ns
    size = hedge_size(p, inventory_base)
    if size == 0.0:
        return 0.0, NONE, since
    if (now_ns - since) * 1e-9 >= p.max_latency_s:
        return size, FORCED, since
    if is_favourable(size, mid, microprice) == 1:
        return size, OPPORTUNISTIC, since
    return 0.0, OPPORTUNISTIC, since


@kernel
def limit_price(signed_size: float, mid: float, microprice: float, crosses: int, max_slippage: float) -> float:
    """Worst price of a hedge, in quote per base.

    One that crosses may pay up to `max_slippage` (fraction) beyond the mid; one that waits rests at the better of mid and microprice.
    """
    if crosses == 1:
        return mid * (1.0 + max_slippage) if signed_size > 0.0 else mid * (1.0 - max_slippage)
    if signed_size > 0.0:
        return microprice if microprice < mid else mid
    return microprice if microprice > mid else mid
