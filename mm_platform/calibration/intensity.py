r"""How often market orders reach a quote: the intensity A exp(-k d) per side, fitted to prints or to quotes' own lives.

Belongs here: aggregation of prints to market orders, depth measured from the mid a quote could have been placed at, maximum-likelihood
estimators with their errors, goodness of fit. Does not belong here: volatility, the choice of fitting windows (`walk_forward`), queue
position (the replay's business: a print at a price reaches that price, not necessarily the end of its queue).

The estimator. Orders that go at least `d` beyond the mid arrive at rate A exp(-k d). Orders that stay inside the touch of the decision reach
no quote at or behind it, so depth is left-truncated at the half spread h, which varies from decision to decision. On the tick grid let J be
the whole ticks by which the worst print lies behind the touch. Given that an order reaches the touch, P(J >= j) = exp(-k j tick) whatever h was, so

    k = ln(1 + n / sum J) / tick          (right-censored at c ticks: n counts orders with J < c, J is cut at c)

is the conditional maximum-likelihood estimator: geometric, not exponential, which is what removes the half-tick bias of 17 %. With decision
intervals of length t_i and half spreads h_i the count then gives

    A = n / sum_i t_i exp(-k h_i)         (= (n / T) exp(k h) when h is constant)

Where to start. On liquid books most orders stop at the touch and few of the rest stop soon after, so no single exponential describes all of them;
what a quote needs is the decay where it rests. Because the geometric has no memory, the same estimator holds from `start` ticks behind the
touch on (J counts from there, h becomes h + start). The smallest start of a ladder at which the decay passes as exponential is used, and
named in the fit's method: the choice of a threshold in extreme-value practice.

Conditioning on h keeps k free of the way arrival rates and spreads move together (both rise with volatility); the full likelihood would read
that as decay in depth.

References
----------
Avellaneda, Stoikov (2008), section 2.4 for the intensity. Guéant, Lehalle, Fernandez-Tapia (2013). Meeker, Escobar (1998) for truncated and censored likelihoods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mm_platform.calibration.bootstrap import optimal_block_length, stationary_weights
from mm_platform.calibration.fit import Fit
from mm_platform.core.errors import CalibrationError, DataError
from mm_platform.core.units import NS_PER_S

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
QuoteSide = Literal["bid", "ask"]

_GOF_SHARES: Final = (0.5, 0.2, 0.05)  # exceedance is compared where the fit says so many orders still reach


# ---------------------------------------------------------------------------------------------------------------------------------
# What is observed


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


# ---------------------------------------------------------------------------------------------------------------------------------
# Estimators on plain numbers (THEORY 3.1)


@dataclass(frozen=True, slots=True)
class Decay:
    """Decay `k` [1 / unit of depth] with its likelihood standard error, orders used, and how many of them were not censored."""

    k: float
    stderr: float
    n: int
    n_uncensored: int


def decay_continuous(excess: Float64s, limit: float = math.inf) -> Decay:
    """Maximum likelihood for exponential depth beyond the truncation point, right-censored at `limit`.

    Parameters
    ----------
    excess : array, shape (n,)
        Depth less the truncation point, >= 0, any unit.
    limit : float
        Depths beyond it count as "at least this deep".

    Returns
    -------
    Decay
        `k = n_uncensored / sum(min(excess, limit))`, not corrected for its bias of about 1 / n; inf where nothing exceeds 0.
    """
    cut = np.minimum(excess, limit)
    total, uncensored = float(np.sum(cut)), int(np.sum(excess < limit))
    k = uncensored / total if total > 0.0 else math.inf
    return Decay(k, k / math.sqrt(uncensored) if uncensored else math.nan, len(excess), uncensored)


def decay_on_ticks(excess_ticks: Int64s, limit_ticks: int | None = None) -> Decay:
    """Maximum likelihood for depth that is only known in whole ticks behind the truncation point; `k` per tick.

    Parameters
    ----------
    excess_ticks : array of int, shape (n,)
        Whole ticks behind the touch, >= 0.
    limit_ticks : int, optional
        Orders that reach it count as "at least this deep" (book window, or only where one quotes).

    Returns
    -------
    Decay
        `k = ln(1 + n_uncensored / sum J)`. Standard error `2 sinh(k/2) / sqrt(n_uncensored)`, the delta method on the geometric's.
        inf where no order went behind the touch.
    """
    if len(excess_ticks) and int(np.min(excess_ticks)) < 0:
        raise CalibrationError(f"depth of {int(np.min(excess_ticks))} ticks behind the touch; expected >= 0, drop orders that did not reach it")
    cut = excess_ticks if limit_ticks is None else np.minimum(excess_ticks, limit_ticks)
    uncensored = len(excess_ticks) if limit_ticks is None else int(np.sum(excess_ticks < limit_ticks))
    return _geometric(len(excess_ticks), uncensored, int(np.sum(cut)))


def _geometric(n: int, uncensored: int, total_ticks: int) -> Decay:
    if total_ticks == 0:
        return Decay(math.inf, math.nan, n, uncensored)
    k = math.log1p(uncensored / total_ticks)
    return Decay(k, 2.0 * math.sinh(k / 2.0) / math.sqrt(uncensored) if uncensored else math.nan, n, uncensored)


def exceedance_regression(depth: Float64s, levels: Float64s, seconds: float) -> tuple[float, float]:
    """A [1/s] and k by least squares of the log rate of orders that go at least to each level: for comparison only.

    This is how the field's tools commonly do it. Counts at nested levels are not independent, so it has no valid standard error, and it is
    the likelihood's inferior (25 % to 270 % more error, by the choice of levels). No fit here uses it.

    Raises
    ------
    CalibrationError
        A level that no order reached: its logarithm does not exist, and dropping it would bias k.
    """
    rates = np.array([float(np.sum(depth >= level)) for level in levels]) / seconds
    if len(levels) < 2 or np.any(rates <= 0.0):
        raise CalibrationError(
            f"exceedance regression: {len(levels)} levels, {int(np.sum(rates <= 0.0))} of them never reached; expected >= 2, all reached"
        )
    slope, intercept = np.polyfit(levels, np.log(rates), 1)
    return math.exp(float(intercept)), -float(slope)


def bias_corrected(decay: Decay) -> float:
    """`k` per tick less its bias to second order, sinh(k) / n (which is k / n for fine ticks: the (n - 1) / sum of the textbook)."""
    return decay.k - math.sinh(decay.k) / decay.n_uncensored


def arrival_rate(n: int, k: float, exposure_s: Float64s, half_spread: Float64s) -> float:
    """A = n / sum(t exp(-k h)) in 1/s, with half spreads in the unit whose inverse `k` has."""
    return n / float(np.sum(exposure_s * np.exp(-k * half_spread)))


@dataclass(frozen=True, slots=True)
class ExposureFit:
    """Intensity from quotes' own lives: A [1 / unit of time], k [1 / unit of depth], standard errors, and the covariance of (ln A, k)."""

    a: float
    k: float
    stderr_a: float
    stderr_k: float
    cov_log_a_k: float
    fills: int
    orders: int
    iterations: int
    converged: bool
    reason: str


def fit_exposure(
    filled: npt.NDArray[np.bool_], life_s: Float64s, depth: Float64s, *, max_iterations: int = 50, tolerance: float = 1e-6
) -> ExposureFit:
    """Maximum likelihood for quotes that were filled or withdrawn: every quote counts for as long as it was exposed.

    Log-likelihood sum n_i (ln A - k d_i) - A exp(-k d_i) t_i, a Poisson regression with exposure, concave in (ln A, k), solved by Newton
    steps with halving. The mean waiting time of filled quotes alone, which ignores those withdrawn, is off by a factor of four.

    Parameters
    ----------
    filled : array of bool, shape (n,)
        Whether the quote was filled (then `life_s` ends at the fill).
    life_s : array, shape (n,)
        Time at the venue, s, > 0.
    depth : array, shape (n,)
        Distance from the mid at the decision, any unit.
    max_iterations : int
        Newton steps allowed.
    tolerance : float
        Stop when the next step is shorter than this, in standard errors; it is still taken, and converges quadratically.

    Returns
    -------
    ExposureFit
        `converged=False` with a reason where the data cannot tell k: no fills, or fills no shallower or deeper on average than can be.

    Raises
    ------
    DataError
        On different lengths, non-finite numbers or lives <= 0.
    """
    n = np.asarray(filled, dtype=np.float64)
    t = np.asarray(life_s, dtype=np.float64)
    d = np.asarray(depth, dtype=np.float64)
    if not (len(n) == len(t) == len(d)):
        raise DataError(f"exposure fit: {len(n)} outcomes, {len(t)} lives, {len(d)} depths; expected equal lengths")
    if not (np.all(np.isfinite(t)) and np.all(np.isfinite(d)) and np.all(t > 0.0)):
        raise DataError("exposure fit: lives must be finite and > 0 s, depths finite; drop quotes that never rested")
    fills = int(np.sum(n))

    def refused(reason: str, iterations: int = 0) -> ExposureFit:
        return ExposureFit(math.nan, math.nan, math.nan, math.nan, math.nan, fills, len(n), iterations, False, reason)

    if fills == 0:
        return refused(f"0 of {len(n)} quotes were filled; at least 1 is needed for A and 2 depths for k")
    spread = float(np.std(d))
    mean_filled = float(np.sum(n * d)) / fills
    if spread == 0.0 or not float(np.min(d)) < mean_filled < float(np.max(d)):
        return refused(
            f"quotes rested between {float(np.min(d)):g} and {float(np.max(d)):g}, fills at {mean_filled:g} on average: k is not identified; quote at more depths"
        )
    centre = float(np.mean(d))
    z = (d - centre) / spread  # Newton in scaled depth: relative depths of 1e-4 would make the Hessian singular in floating point
    filled_z = float(np.sum(n * z))

    def log_likelihood(log_a: float, kappa: float) -> float:
        return fills * log_a - kappa * filled_z - float(np.sum(np.exp(log_a - kappa * z) * t))

    log_a, kappa = math.log(fills / float(np.sum(t))), 0.0
    value = log_likelihood(log_a, kappa)
    iterations, converged = 0, False
    while iterations < max_iterations and not converged:
        iterations += 1
        expected = np.exp(log_a - kappa * z) * t
        s0, s1, s2 = float(np.sum(expected)), float(np.sum(expected * z)), float(np.sum(expected * z * z))
        grad_a, grad_k = fills - s0, s1 - filled_z
        # information matrix of (ln A, kappa): [[s0, -s1], [-s1, s2]]
        det = s0 * s2 - s1 * s1
        if not det > 0.0:
            return refused("the information matrix is singular: fills come from one depth only; quote at more depths", iterations)
        step_a, step_k = (s2 * grad_a + s1 * grad_k) / det, (s1 * grad_a + s0 * grad_k) / det
        scale = 1.0
        # so close to the maximum that the likelihood differs in its last digits only, the full step is the better one
        converged = grad_a * step_a + grad_k * step_k <= tolerance * tolerance
        while not converged and scale > 1e-10 and not log_likelihood(log_a + scale * step_a, kappa + scale * step_k) >= value:
            scale *= 0.5
        log_a, kappa = log_a + scale * step_a, kappa + scale * step_k
        value = log_likelihood(log_a, kappa)
    if not converged:
        return refused(f"Newton did not settle in {max_iterations} steps (last change {step_a:g}, {step_k:g})", iterations)
    expected = np.exp(log_a - kappa * z) * t
    s0, s1, s2 = float(np.sum(expected)), float(np.sum(expected * z)), float(np.sum(expected * z * z))
    det = s0 * s2 - s1 * s1
    var_a, var_kappa, cov = s2 / det, s0 / det, s1 / det
    k, shift = kappa / spread, centre / spread
    a = math.exp(log_a + kappa * shift)
    # ln A = log_a + kappa * centre / spread
    var_log_a = var_a + shift * shift * var_kappa + 2.0 * shift * cov
    cov_log_a_k = (cov + shift * var_kappa) / spread
    return ExposureFit(a, k, a * math.sqrt(var_log_a), math.sqrt(var_kappa) / spread, cov_log_a_k, fills, len(n), iterations, True, "")


# ---------------------------------------------------------------------------------------------------------------------------------
# The fit of one side


@dataclass(frozen=True, slots=True)
class IntensitySettings:
    """How intensities are fitted.

    Parameters
    ----------
    latency_ns : int
        Decision to quote resting at the venue.
    min_orders : int
        Orders that must reach the touch, per side: 100 put the standard error of k at 10 %.
    min_behind_touch : int
        Orders that must go behind it; below, a tick is too coarse to see decay.
    depth_limit_ticks : int or None
        Right-censor at this many ticks behind the touch, to fit only where one quotes.
    start_ladder_ticks : tuple of int
        Ticks behind the touch from which decay may be fitted, ascending; the first that passes as exponential is used.
    max_exceedance_gap : float
        Largest difference of observed and fitted exceedance (at three depths) that still passes as exponential; three binomial standard
        errors always pass.
    bin_s, max_bins : float, int
        Resolution at which arrivals are resampled for the error of A: at least `bin_s`, coarser so that there are at most `max_bins`.
    replicates : int
        Bootstrap samples.
    """

    latency_ns: int = 20_000_000
    min_orders: int = 100
    min_behind_touch: int = 20
    depth_limit_ticks: int | None = None
    start_ladder_ticks: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64)
    max_exceedance_gap: float = 0.10
    bin_s: float = 1.0
    max_bins: int = 2_000
    replicates: int = 400

    def __post_init__(self) -> None:
        if self.latency_ns < 0:
            raise CalibrationError(f"intensity settings: latency {self.latency_ns} ns, expected >= 0")
        if self.depth_limit_ticks is not None and self.depth_limit_ticks < 1:
            raise CalibrationError(f"intensity settings: depth limit {self.depth_limit_ticks} ticks, expected >= 1 or None")
        if not self.start_ladder_ticks or self.start_ladder_ticks[0] < 0 or list(self.start_ladder_ticks) != sorted(set(self.start_ladder_ticks)):
            raise CalibrationError(f"intensity settings: start ladder {self.start_ladder_ticks}, expected ascending ticks >= 0")
        if self.min_orders < 2 or self.min_behind_touch < 2 or self.replicates < 2 or self.max_bins < 2 or not self.bin_s > 0.0:
            raise CalibrationError(f"intensity settings: {self}; expected minima, replicates and bins >= 2 and bin_s > 0")


@dataclass(frozen=True, slots=True)
class Exceedance:
    """Share of the fitted orders that go at least `depth_ticks` beyond the start: observed, by the fit, and the binomial error of the latter."""

    depth_ticks: int
    observed_frac: float
    fitted_frac: float
    stderr_frac: float


@dataclass(frozen=True, slots=True)
class IntensityFit:
    """A and k of one side, how well exponential decay describes the orders, and how clustered arrivals were.

    `effective_n`: independent arrivals that would tell A as well. `block_s`: mean bootstrap block. `exposure_s`: time quotes could rest.
    `mean_mid`: price at which k was turned from 1/price to 1/relative. `start_ticks`: how far behind the touch the fit begins; quotes nearer
    meet more orders than it says. `deepest_ticks`: the deepest order used, behind the touch.
    """

    a: Fit
    k: Fit
    exceedances: tuple[Exceedance, ...]
    effective_n: float
    block_s: float
    exposure_s: float
    mean_mid: float
    start_ticks: int
    deepest_ticks: int


def exceedances(excess_ticks: Int64s, k_per_tick: float, limit_ticks: int | None = None) -> tuple[Exceedance, ...]:
    """Observed against fitted exceedance at the three depths where the fit expects 50, 20 and 5 % of orders (whole ticks, distinct, within the limit)."""
    depths: list[int] = []
    for share in _GOF_SHARES:
        depth = max(1, round(-math.log(share) / k_per_tick), depths[-1] + 1 if depths else 1)
        depth = depth if limit_ticks is None else min(depth, limit_ticks)
        if depth not in depths:
            depths.append(depth)
    n = len(excess_ticks)
    found = []
    for depth in depths:
        fitted = math.exp(-k_per_tick * depth)
        found.append(Exceedance(depth, float(np.mean(excess_ticks >= depth)), fitted, math.sqrt(fitted * (1.0 - fitted) / n)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Tail:
    """Orders from `start` ticks behind the touch on, the decay fitted to them, and the depth at which it fits worst."""

    start: int
    orders: Penetration
    limit: int | None
    decay: Decay
    k: float
    shares: tuple[Exceedance, ...]

    @property
    def worst(self) -> Exceedance:
        return max(self.shares, key=lambda e: abs(e.observed_frac - e.fitted_frac))

    @property
    def gap(self) -> float:
        return abs(self.worst.observed_frac - self.worst.fitted_frac)

    def is_exponential(self, max_gap: float) -> bool:
        return all(abs(e.observed_frac - e.fitted_frac) <= max(max_gap, 3.0 * e.stderr_frac) for e in self.shares)


def _tail(seen: Penetration, start: int, settings: IntensitySettings) -> _Tail | str:
    """Fit the decay from `start` on, or say what is too little."""
    reached = seen.excess_ticks >= start
    excess = seen.excess_ticks[reached] - start
    limit = None if settings.depth_limit_ticks is None else settings.depth_limit_ticks - start
    where = "the touch" if start == 0 else f"{start} ticks behind the touch"
    minutes, least = seen.total_s / 60.0, settings.min_behind_touch
    if len(excess) < settings.min_orders:
        return f"{len(excess)} market orders reached {where} in {minutes:.1f} min, {settings.min_orders} needed; record longer"
    behind = int(np.sum(excess > 0))
    if behind < least:
        return f"{behind} of {len(excess)} market orders went behind {where} in {minutes:.1f} min, {least} needed to see depth decay; record longer or decide less often"
    decay = decay_on_ticks(excess, limit)
    if decay.n_uncensored < least:
        return f"{decay.n_uncensored} of {len(excess)} market orders stayed within {limit} ticks of {where}, {least} needed; raise the depth limit"
    k = bias_corrected(decay)
    orders = replace(seen, excess_ticks=excess, order_ts_ns=seen.order_ts_ns[reached], half_spread_half_ticks=seen.half_spread_half_ticks + 2 * start)
    return _Tail(start, orders, limit, decay, k, exceedances(excess, k, limit))


@dataclass(frozen=True, slots=True)
class _Resampled:
    """Bootstrap spread of ln A and of ln k, the mean block used, s, and the count whose Poisson error equals the resampled count's."""

    sd_log_a: float
    sd_log_k: float
    block_s: float
    effective_n: float


def _resample(tail: _Tail, settings: IntensitySettings, rng: np.random.Generator) -> _Resampled:
    """Stationary bootstrap of (A, k) over time bins: orders cluster and depths depend on the hour, so single orders must not be drawn."""
    seen, k, limit = tail.orders, tail.k, tail.limit
    bin_s = max(settings.bin_s, seen.total_s / settings.max_bins)
    # bins of exposure, not of the clock: holes in the data take no part
    ends_s = np.cumsum(seen.exposure_s)
    bins = max(int(math.ceil(ends_s[-1] / bin_s - 1e-9)), 1)
    bin_of_interval = np.minimum(((ends_s - seen.exposure_s) / bin_s).astype(np.int64), bins - 1)
    interval_of_order = np.searchsorted(seen.start_ns, seen.order_ts_ns, side="right") - 1
    bin_of_order = bin_of_interval[interval_of_order]
    cut = seen.excess_ticks if limit is None else np.minimum(seen.excess_ticks, limit)
    open_ended = np.ones(len(cut)) if limit is None else (seen.excess_ticks < limit).astype(np.float64)
    count = np.bincount(bin_of_order, minlength=bins).astype(np.float64)
    uncensored = np.bincount(bin_of_order, weights=open_ended, minlength=bins)
    ticks = np.bincount(bin_of_order, weights=cut, minlength=bins)
    half = seen.half_spread_half_ticks / 2.0
    discounted = seen.exposure_s * np.exp(-k * half)
    exposure = np.bincount(bin_of_interval, weights=discounted, minlength=bins)
    # d ln(exposure) / dk = minus the exposure-weighted half spread: enough, k moves by its own small error only
    leverage = np.bincount(bin_of_interval, weights=discounted * half, minlength=bins)
    block = optimal_block_length(count).stationary if bins >= 8 else 1.0
    weights = stationary_weights(bins, block, settings.replicates, rng).astype(np.float64)
    n_star, unc_star, ticks_star = weights @ count, weights @ uncensored, weights @ ticks
    exposure_star, leverage_star = weights @ exposure, weights @ leverage
    usable = (n_star > 0) & (unc_star > 0) & (ticks_star > 0)
    k_star = np.log1p(unc_star[usable] / ticks_star[usable])
    log_a = np.log(n_star[usable] / exposure_star[usable]) + (k_star - k) * leverage_star[usable] / exposure_star[usable]
    return _Resampled(
        float(np.std(log_a, ddof=1)),
        float(np.std(np.log(k_star), ddof=1)),
        block * bin_s,
        min(1.0 / float(np.var(np.log(n_star[usable]), ddof=1)), float(len(cut))),
    )


def fit_intensity(
    orders: MarketOrders,
    grid: DecisionGrid,
    side: QuoteSide,
    tick_size: float,
    from_ns: int,
    through_ns: int,
    rng: np.random.Generator,
    settings: IntensitySettings | None = None,
) -> IntensityFit:
    """Fit A [1/s] and k [1/relative distance] of one side.

    Parameters
    ----------
    orders : MarketOrders
        Market orders known by `through_ns`.
    grid : DecisionGrid
        Decisions; only those in [from_ns, through_ns] are used.
    side : {"bid", "ask"}
        Whose quotes are hit.
    tick_size : float
        Quote currency per tick. It cancels against the mid; only `mean_mid` carries it.
    from_ns, through_ns : int
        Window of local time, both ends included.
    rng : numpy.random.Generator
        For the block bootstrap.
    settings : IntensitySettings, optional

    Returns
    -------
    IntensityFit
        With `accepted=False` and a reason where there is too little data, no decay to be seen, or decay that is not exponential.

    Notes
    -----
    The error of A is the block bootstrap's, because arrivals cluster (a Hawkes branching ratio of 0.7 makes the Poisson error 3.3 times
    too small). The error of k is the likelihood's or the bootstrap's, whichever is larger: clustering alone leaves it as it is, but
    depth that differs between regimes does not.
    """
    settings = settings or IntensitySettings()
    window = grid.through(from_ns, through_ns)
    seen = penetration(orders, window, side, settings.latency_ns, through_ns)
    used_from = int(window.ts_ns[0]) if len(window.ts_ns) else from_ns
    used_through = max(int(window.ts_ns[-1]) if len(window.ts_ns) else from_ns, int(np.max(orders.known_ns)) if len(orders) else from_ns)
    if used_through > through_ns:
        raise CalibrationError(
            f"intensity: orders known at {used_through} ns, the fit may look through {through_ns} ns; drop later prints before joining them"
        )
    mean_mid = seen.mean_mid_ticks * tick_size
    deepest = int(np.max(seen.excess_ticks)) if len(seen.excess_ticks) else 0

    def one(name: str, unit: str, value: float, stderr: float, n: int, method: str, gof: float | None, reason: str) -> Fit:
        return Fit(
            name=f"{name}_{side}", value=value, unit=unit, stderr=stderr, n=n, n_needed=settings.min_orders, method=method, side=side, gof=gof,
            accepted=not reason, reason=reason, fitted_from_ns=used_from, fitted_through_ns=used_through, short_of_data=math.isnan(value),
        )  # fmt: skip

    fitted: list[_Tail] = []
    for start in settings.start_ladder_ticks:
        if settings.depth_limit_ticks is not None and start >= settings.depth_limit_ticks:
            break
        tail = _tail(seen, start, settings)
        if isinstance(tail, str):
            if not fitted:
                n = len(seen.excess_ticks)
                a = one("A", "1/s", math.nan, math.nan, n, "no estimate", None, f"{side}: {tail}")
                k = one("k", "1/relative", math.nan, math.nan, n, "no estimate", None, f"{side}: {tail}")
                return IntensityFit(a, k, (), float(n), math.nan, seen.total_s, mean_mid, start, deepest)
            break
        fitted.append(tail)
        if tail.is_exponential(settings.max_exceedance_gap):
            break
    best = min(fitted, key=lambda t: (not t.is_exponential(settings.max_exceedance_gap), t.gap))
    reason = ""
    if not best.is_exponential(settings.max_exceedance_gap):
        reason = (
            f"{side}: depth of orders is not exponential from any of {len(fitted)} starts; at best, from {best.start} ticks behind the touch, "
            f"{best.worst.observed_frac:.1%} of {best.decay.n} orders go {best.worst.depth_ticks} ticks further where the fit says {best.worst.fitted_frac:.1%}, "
            f"at most {settings.max_exceedance_gap:.0%} apart expected; record longer, or set a depth limit near where you quote"
        )
    rate = arrival_rate(best.decay.n, best.k, best.orders.exposure_s, best.orders.half_spread_half_ticks / 2.0)
    spread = _resample(best, settings, rng)
    method = f"truncated geometric MLE from {best.start} ticks behind the touch"
    if settings.depth_limit_ticks is not None:
        method += f", censored at {settings.depth_limit_ticks}"
    stderr_k = max(best.decay.stderr, best.k * spread.sd_log_k) * seen.mean_mid_ticks
    n, how_a, how_k = (
        best.decay.n,
        f"{method}; stationary bootstrap, mean block {spread.block_s:.3g} s",
        f"{method}; larger of likelihood and bootstrap error",
    )
    return IntensityFit(
        a=one("A", "1/s", rate, rate * spread.sd_log_a, n, how_a, best.gap, reason),
        k=one("k", "1/relative", best.k * seen.mean_mid_ticks, stderr_k, n, how_k, best.gap, reason),
        exceedances=best.shares,
        effective_n=spread.effective_n,
        block_s=spread.block_s,
        exposure_s=seen.total_s,
        mean_mid=mean_mid,
        start_ticks=best.start,
        deepest_ticks=deepest,
    )
