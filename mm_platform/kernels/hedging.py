"""The hedging step: inventory and time in, an amount to trade out.

Belongs here: when an inventory is hedged, how much of it, and whether to wait. Does not belong here: where the threshold comes from
(`calibration`), how the order crosses the spread (`kernels.decision`).

The excess is the whole deviation from the target: a hedge ratio of 0.8 trades 80 % of |inventory - target| once that exceeds the threshold.
With `to_boundary` the excess is only what lies beyond the threshold (the optimal policy under proportional costs: trade back to the edge of
the band, not to its centre). Costs of the two: Whalley & Wilmott (1997); Barzykin, Bergault & Gueant (2023).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mm_platform.kernels.jit import kernel

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
