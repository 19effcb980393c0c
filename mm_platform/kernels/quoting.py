"""The quoting step: market state and inventory in, two prices out. Backtest, sweeps and runner all quote through it.

Belongs here: fair price, inventory shift, half spreads, the clamps on them, post-only and rounding to the tick grid. Does not belong here:
fitting sigma, A and k (`calibration`), whether a side may trade at all beyond its inventory limit (`kernels.risk`), orders (`kernels.orders`).

Everything is relative to the fair price and annualised, so that no price, tick or lot enters the model:

    q       = (inventory - target) / inventory_unit
    shift   = -q gamma sigma^2 tau
    spread  = a gamma sigma^2 tau + (1/(a gamma)) [ln(1 + a gamma/k_bid) + ln(1 + a gamma/k_ask)]

with gamma per unit of inventory, a the order size in units, k per relative distance, tau in years. tau is the time left (fixed), constant
(rolling), or the shorter of that constant and the time in which optimal quotes let an inventory relax (relaxation).

References: Avellaneda & Stoikov (2008) eqs 29-30; Gueant, Lehalle & Fernandez-Tapia (2013) closed form of the stationary quotes;
Gueant (2017) eqs 4.6-4.7 (order size).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from mm_platform.core.units import SECONDS_PER_YEAR
from mm_platform.kernels.jit import kernel

# horizons
FIXED: Final = 0
ROLLING: Final = 1
RELAXATION: Final = 2
HORIZONS: Final = {"fixed": FIXED, "rolling": ROLLING, "relaxation": RELAXATION}

# status of a quote
OK: Final = 0
BAD_MID: Final = 1
BAD_SIGMA: Final = 2
BAD_INVENTORY: Final = 3
BAD_PARAMETERS: Final = 4
STATUS_NAMES: Final = {
    OK: "ok",
    BAD_MID: "mid is not a positive number",
    BAD_SIGMA: "volatility is not a number >= 0",
    BAD_INVENTORY: "inventory is not a finite number",
    BAD_PARAMETERS: "parameters outside their domain: gamma >= 0, k > 0, order_units > 0, inventory_unit > 0, 0 <= min_spread <= max_spread, tau >= 0",
}

# what bound a quote, a bit mask
CLAMP_MIN_SPREAD: Final = 1
CLAMP_MAX_SPREAD: Final = 2
CLAMP_INVENTORY_BID: Final = 4
CLAMP_INVENTORY_ASK: Final = 8
POST_ONLY_BID: Final = 16
POST_ONLY_ASK: Final = 32
ROUNDED_BID: Final = 64
ROUNDED_ASK: Final = 128
CLAMP_SKEW: Final = 256
CLAMP_NAMES: Final = {
    CLAMP_MIN_SPREAD: "min_spread",
    CLAMP_MAX_SPREAD: "max_spread",
    CLAMP_INVENTORY_BID: "inventory_bid",
    CLAMP_INVENTORY_ASK: "inventory_ask",
    POST_ONLY_BID: "post_only_bid",
    POST_ONLY_ASK: "post_only_ask",
    ROUNDED_BID: "rounded_bid",
    ROUNDED_ASK: "rounded_ask",
    CLAMP_SKEW: "skew",
}

# a price this close to a grid point, in ticks, is on it: far above float noise, far below anything a venue can see
GRID_TOLERANCE_TICKS: Final = 1e-6
# a limit reached up to float noise is reached
LIMIT_TOLERANCE_FRAC: Final = 1e-9
# a gamma/k below which the risk-neutral limit is exact to float precision
NEGLIGIBLE: Final = 1e-12


class QuoteParams(NamedTuple):
    """Parameters of the quoting step.

    gamma : risk aversion per inventory unit, dimensionless (0: risk neutral, half spreads 1/k).
    sigma : volatility, relative per sqrt(year).
    tau_years, horizon : `FIXED` counts down from tau_years, `ROLLING` keeps it, `RELAXATION` takes min(tau_years, 1/omega).
    A_bid, A_ask : fills per second of a unit quote at distance 0; k_bid, k_ask : decay of that rate per relative distance.
    inventory_unit, target_inventory, max_inventory : base; max_inventory is the largest |inventory - target| that is still added to.
    order_units : order size in inventory units.
    min_spread, max_spread : relative, ask minus bid; neither quote stands further than max_spread - min_spread/2 from fair.
    maker_fee : fraction of notional, negative = rebate. adverse_selection : expected relative move against a fill; both added per side.
    coef_ofi : relative change of the fair price at order flow imbalance 1.
    coef_kyle : dimensionless; widens each side by coef_kyle x the relative impact of an order of our size (kyle_lambda x base / fair).
    coef_short_volatility : weight of the short-horizon variance in the variance, 0 to 1.
    """

    gamma: float
    sigma: float
    tau_years: float
    horizon: int
    A_bid: float
    A_ask: float
    k_bid: float
    k_ask: float
    inventory_unit: float
    target_inventory: float
    max_inventory: float
    order_units: float
    min_spread: float
    max_spread: float
    maker_fee: float
    adverse_selection: float
    coef_ofi: float
    coef_kyle: float
    coef_short_volatility: float


class Market(NamedTuple):
    """What is known at the decision.

    mid, microprice : quote per base (microprice nan: use the mid). order_flow_imbalance : -1 to 1. kyle_lambda : quote/base per base.
    short_volatility : relative per sqrt(year). The three signals may be nan = unknown. elapsed_years : since the start (fixed horizon).
    """

    mid: float
    microprice: float
    order_flow_imbalance: float
    kyle_lambda: float
    short_volatility: float
    elapsed_years: float


class Quote(NamedTuple):
    """A quote before post-only and rounding.

    status : 0, or one of `STATUS_NAMES` (then no price). bid, ask : quote per base, nan on a side that is not quoted. fair, reservation :
    quote per base. half_spread_bid, half_spread_ask : from the reservation price, relative to fair. tau_years : horizon used. clamps : bits.
    """

    status: int
    bid: float
    ask: float
    fair: float
    reservation: float
    half_spread_bid: float
    half_spread_ask: float
    tau_years: float
    clamps: int


@kernel
def log_relaxation_cost(x: float) -> float:
    """ln C = (1 + 1/x) ln(1 + x) for x = a gamma/k >= 0; tends to 1 for a risk-neutral maker (C = e)."""
    if x < NEGLIGIBLE:
        return 1.0
    return (1.0 + 1.0 / x) * math.log1p(x)


@kernel
def relaxation_rate(p: QuoteParams, sigma: float) -> float:
    """Rate omega [1/year] at which the stationary optimal quotes bring an inventory back.

    omega = sigma sqrt(gamma a sum_sides A k / C), C = (1 + a gamma/k)^(1 + k/(a gamma)), A per year. With equal sides this is THEORY's
    sigma sqrt(2 gamma k A / C); with unequal ones the two curvatures of the Hamiltonian add up. 0 when nothing relaxes.

    References: Gueant (2017) section 4; Barzykin, Bergault & Gueant (2023), relaxation of the inventory.
    """
    size = p.order_units * p.gamma
    if size <= 0.0:
        return 0.0
    curvature = p.A_bid * p.k_bid * math.exp(-log_relaxation_cost(size / p.k_bid))
    curvature += p.A_ask * p.k_ask * math.exp(-log_relaxation_cost(size / p.k_ask))
    return sigma * math.sqrt(size * curvature * SECONDS_PER_YEAR)


@kernel
def horizon_years(p: QuoteParams, sigma: float, elapsed_years: float) -> float:
    """The tau of the formulas, in years (>= 0)."""
    if p.horizon == FIXED:
        return max(p.tau_years - elapsed_years, 0.0)
    if p.horizon == RELAXATION:
        omega = relaxation_rate(p, sigma)
        if omega * p.tau_years > 1.0:
            return 1.0 / omega
    return p.tau_years


@kernel
def fill_premium(size_gamma: float, k: float) -> float:
    """Half spread that pays for waiting: ln(1 + a gamma/k) / (a gamma), 1/k for a risk-neutral maker. Relative."""
    if size_gamma < NEGLIGIBLE * k:
        return 1.0 / k
    return math.log1p(size_gamma / k) / size_gamma


@kernel
def no_quote(status: int) -> Quote:
    """The answer where no price can be trusted."""
    return Quote(status, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0)


@kernel
def quote_status(p: QuoteParams, m: Market, inventory_base: float) -> int:
    """Check of domains; comparisons are written so that nan fails them."""
    if not (m.mid > 0.0 and m.mid < math.inf):
        return BAD_MID
    if not (p.sigma >= 0.0 and p.sigma < math.inf):
        return BAD_SIGMA
    if not (abs(inventory_base) < math.inf):
        return BAD_INVENTORY
    model = p.gamma >= 0.0 and p.gamma < math.inf and p.k_bid > 0.0 and p.k_ask > 0.0 and p.A_bid >= 0.0 and p.A_ask >= 0.0 and p.tau_years >= 0.0
    units = p.order_units > 0.0 and p.inventory_unit > 0.0 and p.max_inventory >= 0.0 and abs(p.target_inventory) < math.inf
    bounds = p.min_spread >= 0.0 and p.max_spread >= p.min_spread
    if not (model and units and bounds):
        return BAD_PARAMETERS
    return OK


@kernel
def quote_step(p: QuoteParams, m: Market, inventory_base: float) -> Quote:
    """Both quotes at one moment, before post-only and rounding (`round_step`).

    In this order: fair price; inventory shift; half spreads; fees and adverse selection; spread bounds; inventory limits.

    Parameters
    ----------
    p, m
        Parameters and market state.
    inventory_base : float
        Signed inventory in base.

    Returns
    -------
    Quote
        With `clamps` saying which bound was binding; no prices where `status` is not 0.
    """
    status = quote_status(p, m, inventory_base)
    if status != OK:
        return no_quote(status)

    # 1 fair price
    fair = m.mid
    if m.microprice > 0.0 and m.microprice < math.inf:
        fair = m.microprice
    if p.coef_ofi != 0.0 and abs(m.order_flow_imbalance) <= 1.0:
        fair = fair * (1.0 + p.coef_ofi * m.order_flow_imbalance)

    # 2 inventory shift
    variance = p.sigma * p.sigma
    if p.coef_short_volatility > 0.0 and m.short_volatility > 0.0 and m.short_volatility < math.inf:
        variance = (1.0 - p.coef_short_volatility) * variance + p.coef_short_volatility * m.short_volatility * m.short_volatility
    tau = horizon_years(p, math.sqrt(variance), m.elapsed_years)
    risk = p.gamma * variance * tau
    deviation = inventory_base - p.target_inventory
    shift = -(deviation / p.inventory_unit) * risk

    # 3 half spreads
    size_gamma = p.order_units * p.gamma
    half_bid = 0.5 * p.order_units * risk + fill_premium(size_gamma, p.k_bid)
    half_ask = 0.5 * p.order_units * risk + fill_premium(size_gamma, p.k_ask)

    # 4 costs
    cost = p.adverse_selection + p.maker_fee
    if p.coef_kyle != 0.0 and abs(m.kyle_lambda) < math.inf:
        cost += p.coef_kyle * m.kyle_lambda * p.order_units * p.inventory_unit / fair
    half_bid += cost
    half_ask += cost

    # 5 spread bounds; then the shift (a long horizon asks for any number): at max_spread the nearer quote keeps half of min_spread to fair
    clamps = 0
    spread = half_bid + half_ask
    if spread < p.min_spread:
        half_bid += 0.5 * (p.min_spread - spread)
        half_ask += 0.5 * (p.min_spread - spread)
        clamps |= CLAMP_MIN_SPREAD
    elif spread > p.max_spread:
        half_bid *= p.max_spread / spread
        half_ask *= p.max_spread / spread
        clamps |= CLAMP_MAX_SPREAD
    reach = p.max_spread - 0.5 * p.min_spread
    if shift < half_bid - reach:
        shift = half_bid - reach
        clamps |= CLAMP_SKEW
    elif shift > reach - half_ask:
        shift = reach - half_ask
        clamps |= CLAMP_SKEW
    bid = fair * (1.0 + shift - half_bid)
    ask = fair * (1.0 + shift + half_ask)

    # 6 one-sided at the inventory limits
    limit = p.max_inventory * (1.0 - LIMIT_TOLERANCE_FRAC)
    if deviation >= limit:
        bid = math.nan
        clamps |= CLAMP_INVENTORY_BID
    if deviation <= -limit:
        ask = math.nan
        clamps |= CLAMP_INVENTORY_ASK
    return Quote(OK, bid, ask, fair, fair * (1.0 + shift), half_bid, half_ask, tau, clamps)


@kernel
def indicative_prices(q: Quote) -> tuple[float, float]:
    """(bid, ask) of the model on both sides, also where an inventory limit forbids to quote one; nan where `status` is not 0."""
    return q.reservation - q.fair * q.half_spread_bid, q.reservation + q.fair * q.half_spread_ask


@kernel
def rest_at_mid(bid: float, ask: float, mid: float) -> tuple[float, float, int]:
    """Post-only where the touch is not known: each price stays on its own side of the mid. (bid, ask, clamp bits); nan stays nan."""
    clamps = 0
    if bid > mid:
        bid = mid
        clamps |= POST_ONLY_BID
    if ask < mid:
        ask = mid
        clamps |= POST_ONLY_ASK
    return bid, ask, clamps


@kernel
def ticks_below(price: float, tick_size: float) -> tuple[int, int]:
    """(largest grid point not above the price in ticks, 1 when the price was off the grid)."""
    x = price / tick_size
    nearest = math.floor(x + 0.5)
    if abs(x - nearest) <= GRID_TOLERANCE_TICKS:
        return int(nearest), 0
    return int(math.floor(x)), 1


@kernel
def ticks_above(price: float, tick_size: float) -> tuple[int, int]:
    """(smallest grid point not below the price in ticks, 1 when the price was off the grid)."""
    x = price / tick_size
    nearest = math.floor(x + 0.5)
    if abs(x - nearest) <= GRID_TOLERANCE_TICKS:
        return int(nearest), 0
    return int(math.ceil(x)), 1


@kernel
def round_step(q: Quote, tick_size: float, best_bid_ticks: int, best_ask_ticks: int) -> tuple[int, int, int]:
    """Post-only, then rounding away from the other side.

    Parameters
    ----------
    q
        From `quote_step`.
    tick_size : float
        Quote per tick.
    best_bid_ticks, best_ask_ticks : int
        The touch; 0 = that side of the book is empty or not known, then nothing is clamped against it.

    Returns
    -------
    tuple of int
        (bid ticks, ask ticks, clamp bits of `q` and of this step); 0 ticks = no order on that side.
    """
    clamps = q.clamps
    bid_ticks = 0
    ask_ticks = 0
    # a price beyond the touch is set to the last passive grid point, so rounding does not bind there
    if q.status == OK and q.bid > 0.0:
        bid_ticks, off_grid = ticks_below(q.bid, tick_size)
        if best_ask_ticks > 0 and bid_ticks >= best_ask_ticks:
            bid_ticks = best_ask_ticks - 1
            clamps |= POST_ONLY_BID
        elif off_grid == 1:
            clamps |= ROUNDED_BID
    if q.status == OK and q.ask > 0.0:
        ask_ticks, off_grid = ticks_above(q.ask, tick_size)
        if best_bid_ticks > 0 and ask_ticks <= best_bid_ticks:
            ask_ticks = best_bid_ticks + 1
            clamps |= POST_ONLY_ASK
        elif off_grid == 1:
            clamps |= ROUNDED_ASK
    if ask_ticks > 0 and bid_ticks >= ask_ticks:
        # a zero spread on the grid would trade with itself
        bid_ticks = ask_ticks - 1
    return max(bid_ticks, 0), max(ask_ticks, 0), clamps
