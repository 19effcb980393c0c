from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.calibration.exposure import fit_exposure
from mm_platform.core.errors import DataError

A, K = 1.5, 0.30  # 1/s, 1/tick

# -- exposure --------------------------------------------------------------------------------------------------------------------------


def test_exposure_fit_recovers_the_truth_with_honest_errors() -> None:
    rng = np.random.default_rng(10)
    within = {"a": 0, "k": 0}
    for _ in range(200):
        depth = rng.choice([0.5, 1.0, 2.0, 4.0], 400)
        wait = rng.exponential(1.0 / (A * np.exp(-K * depth)))
        result = fit_exposure(wait < 2.0, np.minimum(wait, 2.0), depth)
        assert result.converged
        within["a"] += abs(math.log(result.a / A)) <= 1.96 * result.stderr_a / result.a
        within["k"] += abs(result.k - K) <= 1.96 * result.stderr_k
    assert 180 <= within["a"] <= 199
    assert 180 <= within["k"] <= 199


def test_exposure_fit_in_relative_depth_is_the_same_fit() -> None:
    rng = np.random.default_rng(12)
    depth = rng.choice([1.0, 2.0, 3.0], 300)
    wait = rng.exponential(1.0 / (A * np.exp(-K * depth)))
    ticks = fit_exposure(wait < 5.0, np.minimum(wait, 5.0), depth)
    relative = fit_exposure(wait < 5.0, np.minimum(wait, 5.0), depth * 1e-5)
    assert relative.k == pytest.approx(ticks.k * 1e5, rel=1e-9)
    assert relative.stderr_k == pytest.approx(ticks.stderr_k * 1e5, rel=1e-9)
    assert relative.a == pytest.approx(ticks.a, rel=1e-9)
    assert relative.stderr_a == pytest.approx(ticks.stderr_a, rel=1e-9)


def test_exposure_fit_says_what_it_cannot_tell() -> None:
    life, depth = np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    none = fit_exposure(np.array([False] * 3), life, depth)
    assert not none.converged
    assert "0 of 3 quotes were filled" in none.reason
    same = fit_exposure(np.array([True, False, True]), life, np.ones(3))
    assert "k is not identified" in same.reason
    edge = fit_exposure(np.array([True, False, False]), life, depth)
    assert "k is not identified" in edge.reason
    with pytest.raises(DataError, match="> 0 s"):
        fit_exposure(np.array([True]), np.array([0.0]), np.array([1.0]))
    with pytest.raises(DataError, match="equal lengths"):
        fit_exposure(np.array([True]), life, depth)
