"""Statistics of a profit series that say how far a back-test can be believed.

Belongs here: Sharpe ratio and its corrections for length, tails, autocorrelation and the number of trials; drawdown. Does not belong here:
thresholds and verdicts (`gate`), resampling (`bootstrap`).

Every Sharpe ratio in this module is *per observation* unless the name says annual: mixing an annual ratio with a count of observations is
the classic unit error of the deflated Sharpe ratio.

References
----------
Bailey, Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier"; (2014), "The Deflated Sharpe Ratio". Lo (2002), "The Statistics of
Sharpe Ratios", Financial Analysts Journal 58.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from mm_platform.core.errors import CalibrationError

Float64s = npt.NDArray[np.float64]

EULER_GAMMA: Final = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class SharpeMoments:
    """Sharpe ratio per observation with what its sampling error depends on: `n`, skewness, and raw kurtosis (normal: 3)."""

    sharpe: float
    n: float
    skew: float
    kurtosis: float


def sharpe(returns: Float64s) -> float:
    """Mean over standard deviation (n - 1) of equal-time returns or P&L, per observation; nan when they do not vary or are fewer than two."""
    if len(returns) < 2:
        return math.nan
    deviation = float(np.std(returns, ddof=1))
    return float(np.mean(returns)) / deviation if deviation > 0.0 else math.nan


def moments(returns: Float64s, n_effective: float | None = None) -> SharpeMoments:
    """Sharpe ratio and moments of a series; `n_effective` replaces the count where observations are not independent."""
    x = np.asarray(returns, dtype=np.float64)
    centred = x - np.mean(x) if len(x) else x
    variance = float(np.mean(centred**2)) if len(x) else 0.0
    n = float(len(x)) if n_effective is None else n_effective
    if len(x) < 2 or variance <= 0.0:
        return SharpeMoments(math.nan, n, 0.0, 3.0)
    return SharpeMoments(sharpe(x), n, float(np.mean(centred**3)) / variance**1.5, float(np.mean(centred**4)) / variance**2)


def _sampling_factor(m: SharpeMoments) -> float:
    """Variance of the Sharpe estimate times n - 1: 1 - skew SR + (kurtosis - 1) SR^2 / 4."""
    factor = 1.0 - m.skew * m.sharpe + (m.kurtosis - 1.0) * m.sharpe**2 / 4.0
    if not factor > 0.0:
        raise CalibrationError(f"Sharpe sampling variance is {factor} at {m}; kurtosis must be at least 1 + skew^2: check the moments")
    return factor


def probabilistic_sharpe(m: SharpeMoments, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark` (per observation); nan where there is no Sharpe ratio.

    References
    ----------
    Bailey, Lopez de Prado (2012), equation for PSR(SR*).
    """
    if math.isnan(m.sharpe) or m.n <= 1.0:
        return math.nan
    return float(norm.cdf((m.sharpe - benchmark) * math.sqrt(m.n - 1.0) / math.sqrt(_sampling_factor(m))))


def min_track_record(m: SharpeMoments, benchmark: float = 0.0, confidence: float = 0.95) -> float:
    """Observations needed for the probabilistic Sharpe ratio to reach `confidence`; inf when the ratio does not exceed the benchmark."""
    if math.isnan(m.sharpe) or m.sharpe <= benchmark:
        return math.inf
    return 1.0 + _sampling_factor(m) * (float(norm.ppf(confidence)) / (m.sharpe - benchmark)) ** 2


def expected_max_normal(trials: float) -> float:
    """Expected maximum of `trials` independent standard normals (extreme-value approximation); 0 for one trial.

    Exact to 1-3 % from five trials on. `trials` may be an effective, fractional number.
    """
    if not trials >= 1.0:
        raise CalibrationError(f"expected maximum: {trials} trials, expected >= 1")
    if trials == 1.0:
        return 0.0
    high = (1.0 - EULER_GAMMA) * float(norm.ppf(1.0 - 1.0 / trials)) + EULER_GAMMA * float(norm.ppf(1.0 - 1.0 / (trials * math.e)))
    return max(high, 0.0)


def expected_max_sharpe(trials: float, trial_variance: float) -> float:
    """Sharpe ratio the best of `trials` worthless strategies is expected to show; `trial_variance` across trials, per observation."""
    if not trial_variance >= 0.0:
        raise CalibrationError(f"expected maximum Sharpe: variance {trial_variance} across trials, expected >= 0")
    return math.sqrt(trial_variance) * expected_max_normal(trials)


def deflated_sharpe(m: SharpeMoments, trials: float, trial_variance: float) -> float:
    """Probabilistic Sharpe ratio against the best of `trials` tries by luck.

    Parameters
    ----------
    m : SharpeMoments
        Of the chosen strategy, per observation.
    trials : float
        All trials made, not only those reported.
    trial_variance : float
        Variance of the trials' Sharpe ratios, per observation (the same one).

    References
    ----------
    Bailey, Lopez de Prado (2014).
    """
    return probabilistic_sharpe(m, expected_max_sharpe(trials, trial_variance))


def lo_annualisation(periods: int, autocorrelations: Sequence[float]) -> float:
    """Factor from the Sharpe ratio per period to that of `periods` periods under autocorrelation; sqrt(periods) when there is none.

    References
    ----------
    Lo (2002): q / sqrt(q + 2 sum_k (q - k) rho_k).
    """
    if periods < 1 or len(autocorrelations) >= periods:
        raise CalibrationError(
            f"Lo factor: {periods} periods and {len(autocorrelations)} autocorrelations, expected fewer autocorrelations than periods"
        )
    inner = periods + 2.0 * sum((periods - k) * rho for k, rho in enumerate(autocorrelations, start=1))
    if not inner > 0.0:
        raise CalibrationError(f"Lo factor: variance of {periods} summed periods is {inner}; these autocorrelations belong to no stationary series")
    return periods / math.sqrt(inner)


def max_drawdown(pnl_quote: Float64s) -> float:
    """Largest fall of cumulative profit from its running peak (start included), quote, >= 0. Input: profit per period, shape (n,)."""
    if len(pnl_quote) == 0:
        return 0.0
    path = np.concatenate(([0.0], np.cumsum(pnl_quote)))
    return float(np.max(np.maximum.accumulate(path) - path))
