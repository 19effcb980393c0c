r"""How often market orders reach a quote: the intensity A exp(-k d) per side, fitted to prints.

Belongs here: maximum-likelihood estimators of decay and rate with their errors, goodness of fit. Does not belong here: how depth is measured
(`order_depth`), fits to quotes' own lives (`exposure`), fitting windows (`walk_forward`), queue position (the replay's business: a print at a
price reaches that price, not necessarily the end of its queue).

The estimator. Orders that go at least `d` beyond the mid arrive at rate A exp(-k d). Orders that stay inside the touch of the decision reach
no quote at or behind it, so depth is left-truncated at the half spread h, which varies from decision to decision. On the tick grid let J be
the whole ticks by which the worst print lies behind the touch. Given that an order reaches the touch, P(J >= j) = exp(-k j tick) whatever h was, so

    k = ln(1 + n / sum J) / tick          (right-censored at c ticks: n counts orders with J < c, J is cut at c)

is the conditional maximum-likelihood estimator: geometric, not exponential, which is what removes the half-tick bias of 17 %. With decision
intervals of length t_i and half spreads h_i the count then gives

    A = n / sum_i t_i exp(-k h_i)         (= (n / T) exp(k h) when h is constant)

Where to start. On liquid books most orders stop at the touch while the rest go many ticks deeper, so no single exponential describes them all;
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
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.calibration.bootstrap import optimal_block_length, stationary_weights
from mm_platform.calibration.fit import Fit
from mm_platform.calibration.order_depth import DecisionGrid, MarketOrders, Penetration, QuoteSide, penetration
from mm_platform.core.errors import CalibrationError

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

__all__ = [
    "Decay",
    "DecisionGrid",
    "Exceedance",
    "IntensityFit",
    "IntensitySettings",
    "arrival_rate",
    "bias_corrected",
    "decay_continuous",
    "decay_on_ticks",
    "exceedance_regression",
    "exceedances",
    "fit_intensity",
]

_FEWEST_BINS: Final = 20  # of time, to resample arrivals from
_GOF_SHARES: Final = (0.5, 0.2, 0.05)  # exceedance is compared where the fit says so many orders still reach


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
        if self.min_orders < 2 or self.min_behind_touch < 2 or self.replicates < 2 or self.max_bins < _FEWEST_BINS or not self.bin_s > 0.0:
            raise CalibrationError(f"intensity settings: {self}; expected minima and replicates >= 2, at least {_FEWEST_BINS} bins, and bin_s > 0")


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
    if seen.total_s < _FEWEST_BINS * settings.bin_s:
        return f"quotes could rest for {seen.total_s:.3g} s, {_FEWEST_BINS * settings.bin_s:g} s needed to see how arrivals vary; record longer"
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
    block = optimal_block_length(count).stationary
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
        len(cut) / max(len(cut) * float(np.var(np.log(n_star[usable]), ddof=1)), 1.0),
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
