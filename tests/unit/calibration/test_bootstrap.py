from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.calibration.bootstrap import (
    autocovariances,
    effective_sample_size,
    long_run_variance,
    mean_interval,
    optimal_block_length,
    stationary_indices,
    stationary_weights,
)
from mm_platform.core.errors import CalibrationError


def ar1(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    e = rng.standard_normal(n)
    x = np.empty(n)
    x[0] = e[0] / math.sqrt(1.0 - rho * rho)
    for t in range(1, n):
        x[t] = rho * x[t - 1] + e[t]
    return x


def test_autocovariances_by_hand() -> None:
    r = autocovariances(np.array([1.0, 2.0, 4.0, 1.0]), 5)
    # mean 2, deviations -1 0 2 -1
    assert r.tolist() == [6 / 4, (0 + 0 - 2) / 4, (-2 + 0) / 4, 1 / 4, 0.0, 0.0]


def test_block_length_grows_with_memory_and_stays_within_bounds() -> None:
    rng = np.random.default_rng(3)
    white = optimal_block_length(rng.standard_normal(2000)).stationary
    slow = optimal_block_length(ar1(0.8, 2000, rng)).stationary
    assert 1.0 <= white < 6.0
    # the theoretical optimum for AR(1): (2 rho / (1 - rho^2))^(2/3) n^(1/3) = 34.1
    assert 20.0 < slow < 55.0
    assert optimal_block_length(np.cumsum(rng.standard_normal(60))).stationary <= math.ceil(min(3 * math.sqrt(60), 20))
    assert optimal_block_length(np.ones(50)).stationary == 1.0


def test_blocks_are_consecutive_circular_and_of_the_asked_mean_length() -> None:
    rows = stationary_indices(50, 5.0, 400, np.random.default_rng(0))
    assert rows.shape == (400, 50)
    assert rows.min() == 0
    assert rows.max() == 49
    continues = (rows[:, 1:] - rows[:, :-1]) % 50 == 1
    # restarts with chance 1/5, one in fifty of which happens to continue
    assert np.mean(~continues) == pytest.approx(0.2 * 0.98, abs=0.01)
    assert np.all(
        stationary_indices(7, 1e9, 3, np.random.default_rng(1)) == (np.arange(7) + stationary_indices(7, 1e9, 3, np.random.default_rng(1))[:, :1]) % 7
    )


def test_weights_count_the_rows_of_the_same_draws() -> None:
    rows = stationary_indices(20, 3.0, 5, np.random.default_rng(9))
    weights = stationary_weights(20, 3.0, 5, np.random.default_rng(9))
    assert np.all(weights.sum(axis=1) == 20)
    assert weights[2].tolist() == np.bincount(rows[2], minlength=20).tolist()


def test_interval_of_a_dependent_mean_covers_where_iid_does_not() -> None:
    rng = np.random.default_rng(11)
    covered = {"auto": 0, "iid": 0}
    runs = 100
    for _ in range(runs):
        x = ar1(0.5, 500, rng)
        auto = mean_interval(x, rng, replicates=300)
        iid = mean_interval(x, rng, replicates=300, block_length=1.0)
        covered["auto"] += auto.low <= 0.0 <= auto.high
        covered["iid"] += iid.low <= 0.0 <= iid.high
    # 91 % and 72 % in a large simulation; three to four standard errors of 100 runs
    assert covered["auto"] / runs > 0.82
    assert covered["iid"] / runs < 0.86
    assert covered["auto"] > covered["iid"] + 10


def test_effective_sample_size() -> None:
    rng = np.random.default_rng(5)
    assert effective_sample_size(rng.standard_normal(3000)) > 2400
    # AR(1): n (1 - rho) / (1 + rho) = n / 3 at rho = .5
    assert effective_sample_size(ar1(0.5, 6000, rng)) == pytest.approx(2000, rel=0.25)
    # no credit for negative autocorrelation
    assert effective_sample_size(ar1(-0.5, 6000, rng)) == 6000.0
    assert effective_sample_size(np.array([1.0, 2.0, 3.0])) == 3.0
    assert long_run_variance(ar1(0.5, 6000, rng)) == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("bad", [np.array([1.0, np.nan] * 10), np.ones((3, 3)), np.ones(1)])
def test_unusable_series_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="expected"):
        mean_interval(bad, np.random.default_rng(0))
    with pytest.raises(CalibrationError, match="expected"):
        optimal_block_length(bad)


def test_equal_generators_give_equal_intervals() -> None:
    x = np.random.default_rng(1).standard_normal(100)
    assert mean_interval(x, np.random.default_rng(2)) == mean_interval(x, np.random.default_rng(2))
    with pytest.raises(CalibrationError, match="mean block"):
        stationary_indices(5, 0.5, 3, np.random.default_rng(0))
