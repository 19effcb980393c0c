"""Resampling that keeps serial dependence: the stationary bootstrap, its block length, and intervals of a mean.

Belongs here: index draws, block-length choice, long-run variance, effective sample size. Does not belong here: what is resampled (`intensity`,
`volatility`) or what is concluded (`gate`). Random numbers come from the generator that is passed in.

References
----------
Politis, Romano (1994), "The Stationary Bootstrap", JASA 89. Politis, White (2004), "Automatic Block-Length Selection for the Dependent
Bootstrap", Econometric Reviews 23, with the correction of Patton, Politis, White (2009).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import CalibrationError

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BlockLengths:
    """Mean block length of the stationary bootstrap and fixed length of the circular one, in observations (not rounded)."""

    stationary: float
    circular: float


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """Mean, its bootstrap standard error and two-sided interval, in the unit of the data; `block_length` in observations."""

    mean: float
    stderr: float
    low: float
    high: float
    level: float
    block_length: float


def _finite(x: Float64s, least: int, what: str) -> Float64s:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 1 or len(x) < least or not np.all(np.isfinite(x)):
        raise CalibrationError(
            f"{what}: got shape {x.shape} with {int(np.sum(~np.isfinite(x)))} non-finite values, expected >= {least} finite values in one row"
        )
    return x


def autocovariances(x: Float64s, lags: int) -> Float64s:
    """Autocovariances R(0) ... R(lags) about the sample mean, divided by n (so that the sequence is positive semi-definite)."""
    x = _finite(x, 1, "autocovariances")
    centred = x - np.mean(x)
    n = len(centred)
    return np.array([float(np.dot(centred[lag:], centred[: n - lag])) / n if lag < n else 0.0 for lag in range(lags + 1)])


def _flat_top(x: Float64s) -> tuple[Float64s, Float64s]:
    """Autocovariances R(1..M) and R(0) in front, with the trapezoidal lag window, at the bandwidth of Politis and White's rule.

    The bandwidth is twice the first lag that opens a run of autocorrelations inside the noise band 2 sqrt(log10 n / n).
    """
    n = len(x)
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(math.ceil(math.sqrt(n)) + run, n - 1)
    r = autocovariances(x, longest)
    if r[0] <= 0.0:
        return r[:1], np.ones(1)
    quiet = np.abs(r[1:] / r[0]) < 2.0 * math.sqrt(math.log10(n) / n)
    first_quiet_lag = longest
    for lag in range(1, longest - run + 2):
        if np.all(quiet[lag - 1 : lag - 1 + run]):  # quiet[0] is lag 1
            first_quiet_lag = lag
            break
    bandwidth = min(2 * first_quiet_lag, longest)
    share = np.arange(bandwidth + 1) / bandwidth
    window = np.where(share <= 0.5, 1.0, 2.0 * (1.0 - share))
    return r[: bandwidth + 1], window


def optimal_block_length(x: Float64s) -> BlockLengths:
    """Block lengths that minimise the mean squared error of the bootstrap variance of the mean.

    Parameters
    ----------
    x : array, shape (n,), n >= 8
        A stationary series.

    Returns
    -------
    BlockLengths
        At least 1 and at most min(3 sqrt(n), n / 3) observations.

    References
    ----------
    Politis, White (2004), section 3; Patton, Politis, White (2009) for the corrected constants.
    """
    x = _finite(x, 8, "block length")
    n = len(x)
    r, window = _flat_top(x)
    lags = np.arange(len(r))
    spectral = float(r[0] + 2.0 * np.sum(window[1:] * r[1:]))
    slope = float(2.0 * np.sum(window[1:] * lags[1:] * r[1:]))
    limit = max(1.0, math.ceil(min(3.0 * math.sqrt(n), n / 3.0)))
    if spectral <= 0.0 or slope == 0.0:
        # nothing to resample in blocks: constant, or so negatively correlated that the long-run variance vanishes
        return BlockLengths(1.0, 1.0)
    # b = (2 G^2 / D)^(1/3) n^(1/3), D = 2 g(0)^2 (stationary) and 4/3 g(0)^2 (circular)
    stationary = (slope * slope / spectral**2 * n) ** (1.0 / 3.0)
    circular = (1.5 * slope * slope / spectral**2 * n) ** (1.0 / 3.0)
    return BlockLengths(min(max(stationary, 1.0), limit), min(max(circular, 1.0), limit))


def long_run_variance(x: Float64s) -> float:
    """Variance of sqrt(n) times the mean of a dependent series, by the flat-top window; never below 0."""
    x = _finite(x, 8, "long-run variance")
    r, window = _flat_top(x)
    return max(float(r[0] + 2.0 * np.sum(window[1:] * r[1:])), 0.0)


def effective_sample_size(x: Float64s) -> float:
    """How many independent observations carry as much about the mean as these: n R(0) / long-run variance, at most n.

    Negative autocorrelation is given no credit. Fewer than 8 observations are taken as they are: their autocorrelation cannot be told.
    """
    n = len(x)
    if n < 8:
        return float(n)
    variance = float(np.var(x))
    if variance <= 0.0:
        return float(n)
    return float(n) * min(1.0, variance / max(long_run_variance(x), variance * 1e-12))


def stationary_indices(n: int, mean_block: float, replicates: int, rng: np.random.Generator) -> Int64s:
    """Row numbers of `replicates` stationary-bootstrap samples, shape (replicates, n).

    Blocks start anywhere with equal chance, their lengths are geometric with mean `mean_block` observations, and the series is a circle.
    """
    if n < 1 or replicates < 1 or not mean_block >= 1.0:
        raise CalibrationError(f"stationary bootstrap: n={n}, replicates={replicates}, mean block {mean_block}; expected each >= 1")
    position = np.arange(n)
    restart = rng.random((replicates, n)) < 1.0 / mean_block
    restart[:, 0] = True
    starts = rng.integers(0, n, size=(replicates, n))
    block_begins = np.maximum.accumulate(np.where(restart, position, 0), axis=1)
    return (np.take_along_axis(starts, block_begins, axis=1) + position - block_begins) % n


def stationary_weights(n: int, mean_block: float, replicates: int, rng: np.random.Generator) -> Int64s:
    """How often each of `n` rows occurs in each sample, shape (replicates, n): enough for statistics that are sums over rows."""
    indices = stationary_indices(n, mean_block, replicates, rng)
    flat = (indices + n * np.arange(replicates)[:, None]).ravel()
    return np.bincount(flat, minlength=replicates * n).reshape(replicates, n)


def mean_interval(
    x: Float64s, rng: np.random.Generator, *, level: float = 0.95, replicates: int = 1000, block_length: float | None = None
) -> MeanInterval:
    """Percentile interval of the mean by the stationary bootstrap.

    Parameters
    ----------
    x : array, shape (n,), n >= 2
        The series, equal time apart.
    rng : numpy.random.Generator
        Source of randomness.
    level : float
        Two-sided coverage.
    replicates : int
        Bootstrap samples.
    block_length : float, optional
        Mean block in observations; default: Politis and White's choice (1 below 8 observations).

    Returns
    -------
    MeanInterval

    Notes
    -----
    Nominal 95 % covers about 91 % of the time for AR(1) 0.5 and n = 500, where an iid bootstrap covers 72 %.
    """
    x = _finite(x, 2, "interval of the mean")
    if not 0.0 < level < 1.0:
        raise CalibrationError(f"interval of the mean: level {level}, expected inside (0, 1)")
    block = block_length if block_length is not None else (optimal_block_length(x).stationary if len(x) >= 8 else 1.0)
    means = stationary_weights(len(x), block, replicates, rng) @ x / len(x)
    low, high = np.quantile(means, (0.5 - level / 2.0, 0.5 + level / 2.0))
    return MeanInterval(float(np.mean(x)), float(np.std(means, ddof=1)), float(low), float(high), level, block)
