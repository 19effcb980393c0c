"""Funding arithmetic: rates, premiums, payments, break-even and liquidation (THEORY section 6).

Belongs here: formulas over scalars and arrays. Does not belong here: which venue uses which rule (`FundingRule` is handed in), decisions
(`funding_arbitrage`), or where rates come from.

Signs. A positive rate means longs pay shorts; a position's side is +1 long, -1 short. Rates are fractions of notional per interval.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.units import HOURS_PER_YEAR, SECONDS_PER_DAY, SECONDS_PER_YEAR
from mm_platform.kernels.jit import kernel

INTEREST_8H: Final = 0.0001
CLAMP_8H: Final = 0.0005
_YEAR_S: Final = float(SECONDS_PER_YEAR)
_YEAR_H: Final = float(HOURS_PER_YEAR)
_DAY_H: Final = SECONDS_PER_DAY / 3600.0

Float64s = npt.NDArray[np.float64]


class FundingRule(NamedTuple):
    """How a venue makes its rate from the average premium.

    Parameters
    ----------
    interval_h : float
        Hours between settlements.
    interest_8h : float
        Interest component per 8 hours.
    clamp_8h : float
        Bound on interest minus premium, per 8 hours.
    floor, cap : float
        Bounds of the rate per interval; infinities where the venue states none. Read them from the venue, they differ per symbol.
    """

    interval_h: float = 8.0
    interest_8h: float = INTEREST_8H
    clamp_8h: float = CLAMP_8H
    floor: float = -math.inf
    cap: float = math.inf


@kernel
def clamp(value: float, low: float, high: float) -> float:
    """`value` moved into [low, high]."""
    if value < low:
        return low
    if value > high:
        return high
    return value


@kernel
def apr_step(rate: float, interval_h: float) -> float:
    """Rate per year without compounding, `rate * 8760 / interval_h`: what a position earns, for payments are not reinvested."""
    return rate * _YEAR_H / interval_h


@kernel
def apy_step(rate: float, interval_h: float) -> float:
    """Rate per year if every payment were reinvested, `(1 + rate) ** (8760 / interval_h) - 1`. For display only."""
    if rate <= -1.0:
        return -1.0
    return math.expm1(_YEAR_H / interval_h * math.log1p(rate))


@kernel
def rate_8h_step(rate: float, interval_h: float) -> float:
    """The rate per 8 hours: the common interval on which venues compare."""
    return rate * 8.0 / interval_h


@kernel
def premium_index(impact_bid: float, impact_ask: float, index_price: float) -> float:
    """Premium of the perp over the index, a fraction: 0 while the index lies between impact bid and impact ask."""
    above = impact_bid - index_price
    below = index_price - impact_ask
    return ((above if above > 0.0 else 0.0) - (below if below > 0.0 else 0.0)) / index_price


@kernel
def funding_rate_8h(average_premium: float, interest_8h: float, clamp_8h: float) -> float:
    """The 8-hour rate F8: average premium plus the clamped distance to the interest rate.

    With the usual 0.01 % and 0.05 % the rate equals the interest for premiums from -0.04 % to +0.06 %.
    """
    return average_premium + clamp(interest_8h - average_premium, -clamp_8h, clamp_8h)


@kernel
def funding_rate_step(average_premium: float, rule: FundingRule) -> float:
    """The rate of one interval: F8 divided by the intervals in 8 hours, within the venue's floor and cap."""
    return clamp(funding_rate_8h(average_premium, rule.interest_8h, rule.clamp_8h) * rule.interval_h / 8.0, rule.floor, rule.cap)


@kernel
def weighted_premium(samples: Float64s, linear: bool) -> float:
    """Average of premium samples, oldest first: plain, or with weights 1, 2, 3, ... (later samples count more). NaN without samples."""
    total = 0.0
    weights = 0.0
    for i in range(samples.shape[0]):
        weight = i + 1.0 if linear else 1.0
        total += weight * samples[i]
        weights += weight
    if weights == 0.0:
        return math.nan
    return total / weights


@kernel
def projected_premium(samples: Float64s, samples_per_interval: int, linear: bool) -> float:
    """The interval's average premium if the last sample stood until the stamp, under the venue's weights. NaN without samples.

    Parameters
    ----------
    samples : array, shape (n,)
        Premiums of the running interval so far, equally spaced, oldest first; n <= samples_per_interval.
    samples_per_interval : int
        Samples of a whole interval.
    linear : bool
        Weights 1, 2, 3, ... instead of equal ones.
    """
    n = samples.shape[0]
    if n == 0:
        return math.nan
    total = 0.0
    weights = 0.0
    for i in range(max(n, samples_per_interval)):
        weight = i + 1.0 if linear else 1.0
        total += weight * (samples[i] if i < n else samples[n - 1])
        weights += weight
    return total / weights


@kernel
def funding_payment(side: float, qty: float, price: float, rate: float) -> float:
    """Quote received at a stamp by a linear position (negative = paid): `-side * qty * price * rate`.

    Parameters
    ----------
    side : float
        +1 long, -1 short.
    qty : float
        Size in base.
    price : float
        The venue's reference price at the stamp (mark; oracle on Hyperliquid and dYdX), quote per base.
    rate : float
        Settled rate per interval.
    """
    return -side * qty * price * rate


@kernel
def inverse_funding_payment(side: float, notional: float, price: float, rate: float) -> float:
    """Base received at a stamp by an inverse position of `notional` quote (negative = paid): `-side * notional / price * rate`."""
    return -side * notional / price * rate


@kernel
def break_even_settlements(cost_frac: float, rate: float) -> float:
    """Settlements until funding has paid the costs, not rounded: `cost_frac / rate`; infinity when the rate pays nothing.

    Only a position held at the stamp is paid, so whoever plans needs the next whole number.
    """
    if rate <= 0.0:
        return math.inf if cost_frac > 0.0 else 0.0
    return cost_frac / rate


@kernel
def settlements_within(holding_h: float, interval_h: float) -> int:
    """Whole intervals in a holding time: the stamps that are surely met, whenever within an interval it begins."""
    # a holding of exactly n intervals meets n stamps; the nudge absorbs the rounding of the division
    return int(math.floor(holding_h / interval_h + 1e-9))


@kernel
def net_apr_step(rate: float, interval_h: float, cost_frac: float, holding_h: float) -> float:
    """Per year on notional, after costs, if the rate stays for the holding time: `(n * rate - cost_frac) * 8760 / holding_h`."""
    return (settlements_within(holding_h, interval_h) * rate - cost_frac) * _YEAR_H / holding_h


@kernel
def spread_per_day(rate_short: float, interval_short_h: float, rate_long: float, interval_long_h: float) -> float:
    """Funding received per day by being short one perp and long another, a fraction of the notional of one leg."""
    return _DAY_H / interval_short_h * rate_short - _DAY_H / interval_long_h * rate_long


@kernel
def liquidation_price(side: float, entry_price: float, qty: float, margin: float, maintenance_rate: float) -> float:
    """Price at which an isolated linear position falls to its maintenance margin, before the venue's liquidation fee.

    Parameters
    ----------
    side : float
        +1 long, -1 short.
    entry_price : float
        Quote per base.
    qty : float
        Size in base, > 0.
    margin : float
        Margin of the position in quote.
    maintenance_rate : float
        Maintenance margin as a fraction of notional.

    Returns
    -------
    float
        Quote per base; 0 for a long that no fall liquidates.
    """
    if side > 0.0:
        price = (qty * entry_price - margin) / (qty * (1.0 - maintenance_rate))
        return price if price > 0.0 else 0.0
    return (margin + qty * entry_price) / (qty * (1.0 + maintenance_rate))


@kernel
def touch_probability(price: float, barrier: float, sigma: float, horizon_s: float) -> float:
    """Probability that a driftless log price touches a barrier within a time: `2 * Phi(-|ln(barrier / price)| / (sigma * sqrt(T)))`.

    Parameters
    ----------
    price, barrier : float
        Quote per base, > 0.
    sigma : float
        Relative volatility per sqrt(year).
    horizon_s : float
        Seconds.
    """
    deviation = sigma * math.sqrt(horizon_s / _YEAR_S)
    if deviation <= 0.0:
        return 1.0 if price == barrier else 0.0
    return math.erfc(abs(math.log(barrier / price)) / deviation / math.sqrt(2.0))
