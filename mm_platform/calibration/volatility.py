r"""Volatility from mids that carry noise: realised measures, their choice, and sigma with its error.

Belongs here: realised variance, two-scale and kernel estimators, jump-robust measures, noise variance, the EWMA, and the fit of sigma.
Does not belong here: the short-horizon volatility that a decision reads (`kernels.signals`), or how mids are sampled (`tape.features`).

Measures take log prices and return integrated variance of the stretch (relative, not annualised). Sampled each second, plain realised
variance reads a mid with 1 bp of noise as .94 where sigma is .5: noise adds 2 n times its variance, whatever the length.

References
----------
Zhang, Mykland, Ait-Sahalia (2005), "A Tale of Two Time Scales", JASA 100. Ait-Sahalia, Mykland, Zhang (2011) for the small-sample
adjustment. Barndorff-Nielsen, Hansen, Lunde, Shephard (2009), "Realized kernels in practice", Econometrics Journal 12, for bandwidth.
Andersen, Dobrev, Schaumburg (2012) for MedRV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.calibration.bootstrap import optimal_block_length, stationary_weights
from mm_platform.calibration.fit import Fit
from mm_platform.core.errors import CalibrationError
from mm_platform.core.units import NS_PER_S, SECONDS_PER_YEAR
from mm_platform.kernels.jit import kernel

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_PARZEN_BANDWIDTH: Final = 3.5134  # c* of the Parzen kernel, Barndorff-Nielsen et al. (2009), table 1


def _log_prices(x: Float64s, least: int, what: str) -> Float64s:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 1 or len(x) < least or not np.all(np.isfinite(x)):
        raise CalibrationError(f"{what}: got shape {x.shape}, {int(np.sum(~np.isfinite(x)))} non-finite; expected at least {least} finite log prices")
    return x


def realized_variance(log_price: Float64s) -> float:
    """Sum of squared returns; biased upwards by 2 n times the noise variance."""
    return float(np.sum(np.diff(_log_prices(log_price, 2, "realised variance")) ** 2))


def subsampled_variance(log_price: Float64s, step: int) -> float:
    """Sum of squared `step`-observation returns, averaged over the `step` possible starts and scaled to the whole stretch.

    The sparse measure (five minutes by habit): nearly free of noise, and imprecise.
    """
    x = _log_prices(log_price, 2, "sub-sampled variance")
    n = len(x) - 1
    if not 1 <= step <= n:
        raise CalibrationError(f"sub-sampled variance: step of {step} observations, expected between 1 and {n}")
    return float(np.sum((x[step:] - x[:-step]) ** 2)) / step * n / (n - step + 1)


def two_scale_variance(log_price: Float64s, scale: int, *, adjusted: bool = True) -> float:
    """Two-scale realised variance: `scale`-step returns on all sub-grids, less the noise read off one-step returns.

    Parameters
    ----------
    log_price : array, shape (n + 1,)
        Log mids, equal time apart.
    scale : int
        Steps K of the slow scale, 2 <= K <= n.
    adjusted : bool
        Multiply by n / ((K - 1) n_bar), which removes a downward bias of 2 % at K = 60 and 9 % at K = 300.

    Returns
    -------
    float
        Integrated variance; may be negative in tiny samples.

    References
    ----------
    Zhang, Mykland, Ait-Sahalia (2005), equation 55; Ait-Sahalia, Mykland, Zhang (2011), equation 4.22.
    """
    x = _log_prices(log_price, 3, "two-scale variance")
    n = len(x) - 1
    if not 2 <= scale <= n:
        raise CalibrationError(f"two-scale variance: scale {scale}, expected between 2 and {n}")
    slow = float(np.sum((x[scale:] - x[:-scale]) ** 2)) / scale
    n_bar = (n - scale + 1) / scale
    raw = slow - n_bar / n * realized_variance(x)
    return raw * n / ((scale - 1) * n_bar) if adjusted else raw


def parzen(x: float) -> float:
    """Parzen weight, 1 at 0 and 0 from 1 on."""
    if x <= 0.5:
        return 1.0 - 6.0 * x * x + 6.0 * x**3
    return 2.0 * (1.0 - x) ** 3 if x <= 1.0 else 0.0


def realized_kernel(log_price: Float64s, bandwidth: int, *, adjusted: bool = False) -> float:
    """Realised kernel with Parzen weights: gamma_0 + 2 sum_l k(l / (H + 1)) gamma_l over `bandwidth` = H realised autocovariances.

    May come out negative in tiny samples. Bandwidth 0 is realised variance.

    With `adjusted` the share of the noise that the kernel lets through is taken off. A flat-topped kernel keeps c = 1 - k(1 / (H + 1)) of it,
    so that RK = IV + 2 n c w and RV = IV + 2 n w for noise variance w; the two are solved for IV. It matters where stretches are summed:
    their errors average out, this bias (5 % at 1 bp of noise, 10 min of 1 s mids) does not.
    """
    x = _log_prices(log_price, 2, "realised kernel")
    r = np.diff(x)
    if not 0 <= bandwidth < len(r):
        raise CalibrationError(f"realised kernel: bandwidth {bandwidth}, expected between 0 and {len(r) - 1}")
    total = float(np.dot(r, r))
    for lag in range(1, bandwidth + 1):
        total += 2.0 * parzen(lag / (bandwidth + 1)) * float(np.dot(r[lag:], r[:-lag]))
    if not adjusted or bandwidth == 0:
        return total
    passed = 1.0 - parzen(1.0 / (bandwidth + 1))
    return (total - passed * float(np.dot(r, r))) / (1.0 - passed)


def bipower_variation(log_price: Float64s) -> float:
    """Bipower variation pi/2 n/(n - 1) sum |r_i| |r_(i-1)|: integrated variance without rare jumps."""
    r = np.abs(np.diff(_log_prices(log_price, 3, "bipower variation")))
    return math.pi / 2.0 * len(r) / (len(r) - 1) * float(np.sum(r[1:] * r[:-1]))


def med_realized_variance(log_price: Float64s) -> float:
    """MedRV: squared medians of three neighbouring absolute returns, scaled; robust to jumps and to zero returns."""
    r = np.abs(np.diff(_log_prices(log_price, 4, "MedRV")))
    n = len(r)
    medians = np.median(np.stack((r[:-2], r[1:-1], r[2:])), axis=0)
    return math.pi / (6.0 - 4.0 * math.sqrt(3.0) + math.pi) * n / (n - 2) * float(np.sum(medians**2))


def noise_variance(log_price: Float64s) -> float:
    """Upper estimate of the noise variance per mid: realised variance over 2 n (exact where noise dominates)."""
    return realized_variance(log_price) / (2.0 * (len(log_price) - 1))


def noise_variance_autocovariance(log_price: Float64s) -> float:
    """Noise variance as minus the first autocovariance of returns (divided by n - 1 products); negative where returns trend."""
    r = np.diff(_log_prices(log_price, 3, "noise variance"))
    return -float(np.dot(r[1:], r[:-1])) / (len(r) - 1)


@kernel
def ewma_variance_path(ts_ns: Int64s, log_price: Float64s, tau_s: float, spacing_s: float, out: Float64s) -> int:
    """Exponentially weighted variance rate [1/s] after each row into `out`; returns the number of returns used.

    Rows closer than `spacing_s` to the last one used are skipped. nan until the first return.
    """
    last = -1
    v = math.nan
    used = 0
    for i in range(ts_ns.shape[0]):
        if math.isfinite(log_price[i]):
            if last < 0:
                last = i
            else:
                dt = (ts_ns[i] - ts_ns[last]) / 1e9
                if dt > 0.0 and dt >= spacing_s:
                    r = log_price[i] - log_price[last]
                    rate = r * r / dt
                    keep = math.exp(-dt / tau_s)
                    v = rate if used == 0 else keep * v + (1.0 - keep) * rate
                    last = i
                    used += 1
        out[i] = v
    return used


def ewma_sigma(ts_ns: Int64s, mid: Float64s, half_life_s: float, *, spacing_s: float = 1.0) -> Float64s:
    """Annualised EWMA volatility after each row, shape (n,), 1/sqrt(year); nan until there is a return.

    Irregular sampling: the weight of the past after a gap of dt is exp(-dt / tau), tau = half life / ln 2. `spacing_s` should be no
    finer than the noise (see a signature plot). A lambda of .94 per step is a half life of 11.20 steps.
    """
    if not half_life_s > 0.0 or spacing_s < 0.0:
        raise CalibrationError(f"EWMA: half life {half_life_s} s and spacing {spacing_s} s, expected > 0 and >= 0")
    out = np.full(len(ts_ns), np.nan)
    log_mid = np.log(np.where(mid > 0.0, mid, np.nan))
    ewma_variance_path.compiled(ts_ns, log_mid, half_life_s / math.log(2.0), spacing_s, out)
    sigma: Float64s = np.sqrt(out * SECONDS_PER_YEAR)
    return sigma


# ---------------------------------------------------------------------------------------------------------------------------------
# The fit


@dataclass(frozen=True, slots=True)
class VolatilitySettings:
    """How sigma is fitted.

    Parameters
    ----------
    sub_interval_s : float
        Longest stretch measured at once; the error comes from resampling stretches. Short data use shorter ones (a twentieth, >= 30 s).
    min_sub_intervals : int
        Stretches needed for an error to mean anything.
    min_returns : int
        Returns needed in each stretch, and in a stretch at all for it to count.
    sparse_s : float
        Step of the sub-sampled measure that sets the floor.
    floor_frac : float
        Least share of the sub-sampled variance that an estimate may have.
    replicates : int
        Bootstrap samples.
    """

    sub_interval_s: float = 600.0
    min_sub_intervals: int = 8
    min_returns: int = 30
    sparse_s: float = 300.0
    floor_frac: float = 0.25
    replicates: int = 400

    def __post_init__(self) -> None:
        if (
            self.sub_interval_s < 60.0
            or self.min_sub_intervals < 3
            or self.min_returns < 10
            or not 0.0 <= self.floor_frac < 1.0
            or not self.sparse_s > 0.0
        ):
            raise CalibrationError(
                f"volatility settings: {self}; expected sub_interval_s >= 60, min_sub_intervals >= 3, min_returns >= 10, floor in [0, 1), sparse_s > 0"
            )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Log mids without a hole, equal time apart."""

    log_mid: Float64s
    seconds: float


def _stretches(ts_ns: Int64s, mid: Float64s, step_ns: int, length_s: float, min_returns: int) -> list[_Stretch]:
    """Cut into pieces of `length_s` by the clock, each without a hole; a piece that has one gives its longest part without."""
    usable = np.isfinite(mid) & (mid > 0.0)
    piece = (ts_ns - ts_ns[0]) // int(length_s * NS_PER_S)
    log_mid = np.log(np.where(usable, mid, 1.0))
    broken = np.concatenate(([True], ~usable[1:] | ~usable[:-1] | (np.diff(ts_ns) > step_ns + step_ns // 2)))
    found: list[_Stretch] = []
    # a piece shares its last row with the next one's first, so that no return is lost
    edges = np.flatnonzero(np.concatenate(([True], np.diff(piece) > 0)))
    for begin, end in zip(edges, [*edges[1:], len(ts_ns) - 1], strict=True):
        cuts = np.flatnonzero(broken[begin + 1 : end + 1]) + begin + 1
        firsts, lasts = np.concatenate(([begin], cuts)), np.concatenate((cuts, [end + 1]))
        longest = int(np.argmax(lasts - firsts))
        a, b = int(firsts[longest]), int(lasts[longest])
        if b - a >= min_returns + 1 and usable[a]:
            found.append(_Stretch(log_mid[a:b], float(ts_ns[b - 1] - ts_ns[a]) / NS_PER_S))
    return found


def _bandwidth(noise: float, variance: float, n: int) -> int:
    """Parzen bandwidth c xi^(4/5) n^(3/5), xi^2 = noise over integrated variance of the stretch; at most a fifth of the returns."""
    xi_squared = noise / variance if variance > 0.0 else 0.0
    return min(math.ceil(_PARZEN_BANDWIDTH * math.pow(xi_squared, 0.4) * math.pow(n, 0.6)), n // 5)


def _scale(noise: float, variance: float, n: int) -> int:
    """Slow scale of the two-scale measure, (12 noise^2 / IV^2)^(1/3) n^(2/3), between 2 and a fifth of the returns."""
    ratio = noise / variance if variance > 0.0 else 0.0
    return max(2, min(math.ceil(math.pow(12.0 * ratio * ratio, 1.0 / 3.0) * math.pow(n, 2.0 / 3.0)), n // 5))


def fit_sigma(
    grid_ts_ns: Int64s,
    mid: Float64s,
    from_ns: int,
    through_ns: int,
    rng: np.random.Generator,
    settings: VolatilitySettings | None = None,
) -> Fit:
    """Fit sigma, relative and per square root of a year of 365 days.

    Parameters
    ----------
    grid_ts_ns : array of int64, shape (n,)
        Local times of the mids, equal steps, ascending.
    mid : array, shape (n,)
        Mid [price]; nan where the book was not known.
    from_ns, through_ns : int
        Window, both ends included; nothing outside is read.
    rng : numpy.random.Generator
        For the block bootstrap over stretches.
    settings : VolatilitySettings, optional

    Returns
    -------
    Fit
        `method` names the measure. The realised kernel is used; where it falls below the floor (tiny samples can make it negative) the
        two-scale measure, and where that falls below too, the floor itself. `gof` is the measure over the sub-sampled one: about 1
        where noise was removed neither too little nor too much.
    """
    settings = settings or VolatilitySettings()
    if len(grid_ts_ns) != len(mid):
        raise CalibrationError(f"sigma: {len(grid_ts_ns)} times and {len(mid)} mids, expected equal lengths")
    lo, hi = np.searchsorted(grid_ts_ns, from_ns, side="left"), np.searchsorted(grid_ts_ns, through_ns, side="right")
    ts, px = grid_ts_ns[lo:hi], np.asarray(mid[lo:hi], dtype=np.float64)
    used_from, used_through = (int(ts[0]), int(ts[-1])) if len(ts) else (from_ns, from_ns)
    needed = settings.min_sub_intervals * settings.min_returns

    def refused(n: int, reason: str) -> Fit:
        return Fit("sigma", math.nan, "1/sqrt(year)", math.nan, n, needed, "no estimate", "both", None, False, reason, used_from, used_through, True)

    if len(ts) < 3:
        return refused(len(ts), f"sigma: {len(ts)} mids in the window, {needed} returns needed; record longer")
    step_ns = int(np.median(np.diff(ts)))
    span_s = (used_through - used_from) / NS_PER_S
    length_s = min(settings.sub_interval_s, max(30.0, span_s / 20.0))
    length_s = max(length_s, (settings.min_returns + 1) * step_ns / NS_PER_S)
    stretches = _stretches(ts, px, step_ns, length_s, settings.min_returns)
    counts = np.array([len(s.log_mid) - 1 for s in stretches], dtype=np.int64)
    n = int(np.sum(counts))
    if len(stretches) < settings.min_sub_intervals:
        return refused(
            n,
            f"sigma: {len(stretches)} stretches of {length_s:.0f} s without a hole in {span_s / 60.0:.1f} min, {settings.min_sub_intervals} needed; record longer",
        )
    seconds = np.array([s.seconds for s in stretches])
    plain = np.array([realized_variance(s.log_mid) for s in stretches])
    if not float(np.sum(plain)) > 0.0:
        return refused(n, f"sigma: the mid did not move in {n} returns; nothing can be said, record a longer stretch")
    sparse_step = max(1, round(settings.sparse_s * NS_PER_S / step_ns))
    sparse = np.array([subsampled_variance(s.log_mid, min(sparse_step, max(1, (len(s.log_mid) - 1) // 4))) for s in stretches])
    # one noise level and one variance rate for the tuning: a stretch by itself is too short to choose well
    noise = float(np.sum(plain)) / (2.0 * n)
    typical_n = int(np.median(counts))
    typical_variance = float(np.sum(sparse)) / len(stretches)
    h, scale = _bandwidth(noise, typical_variance, typical_n), _scale(noise, typical_variance, typical_n)
    floor = settings.floor_frac * float(np.sum(sparse))
    measured = np.array([realized_kernel(s.log_mid, min(h, len(s.log_mid) - 2), adjusted=True) for s in stretches])
    method = f"realised kernel, Parzen, adjusted, H={h}"
    if float(np.sum(measured)) <= floor:
        measured = np.array([two_scale_variance(s.log_mid, min(scale, len(s.log_mid) - 1)) for s in stretches])
        method = f"two-scale realised variance, K={scale}"
    if float(np.sum(measured)) <= floor:
        measured = settings.floor_frac * sparse
        method = f"floor: {settings.floor_frac:g} of sub-sampled variance"
    rate = float(np.sum(measured)) / float(np.sum(seconds))
    if not rate > 0.0:
        return refused(n, f"sigma: variance came out as {rate:g} per s from {n} returns, expected > 0; record a longer stretch")
    block = optimal_block_length(measured / seconds).stationary
    weights = stationary_weights(len(stretches), block, settings.replicates, rng)
    rates = np.maximum((weights @ measured) / (weights @ seconds), 0.0)
    return Fit(
        name="sigma",
        value=math.sqrt(rate * SECONDS_PER_YEAR),
        unit="1/sqrt(year)",
        stderr=float(np.std(np.sqrt(rates * SECONDS_PER_YEAR), ddof=1)),
        n=n,
        n_needed=needed,
        method=f"{method}, step {step_ns / NS_PER_S:g} s; stationary bootstrap over {len(stretches)} stretches, mean block {block:.1f}",
        side="both",
        gof=float(np.sum(measured) / np.sum(sparse)),
        accepted=True,
        reason="",
        fitted_from_ns=used_from,
        fitted_through_ns=used_through,
    )
