"""Intensity from quotes' own lives: own or virtual orders that were filled, or withdrawn unfilled.

Belongs here: the censored likelihood of fills. Does not belong here: intensity from prints (`intensity`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError

Float64s = npt.NDArray[np.float64]


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
