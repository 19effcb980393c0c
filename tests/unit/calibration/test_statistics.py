from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.calibration.statistics import (
    SharpeMoments,
    deflated_sharpe,
    expected_max_normal,
    expected_max_sharpe,
    lo_annualisation,
    max_drawdown,
    min_track_record,
    moments,
    probabilistic_sharpe,
    sharpe,
)
from mm_platform.core.errors import CalibrationError


def test_sharpe_per_observation_and_per_year() -> None:
    x = np.array([1.0, 2.0, 3.0])
    assert sharpe(x) == 2.0
    # hourly returns: 8,760 hours of 365 days
    assert math.isnan(sharpe(np.array([1.0])))
    assert math.isnan(sharpe(np.array([1.0, 1.0])))


def test_moments_of_a_skewed_series() -> None:
    m = moments(np.array([0.0, 0.0, 0.0, 4.0]))
    # deviations -1 -1 -1 3: variance 3, third moment 6, fourth 21
    assert m.skew == pytest.approx(6 / 3**1.5)
    assert m.kurtosis == pytest.approx(21 / 9)
    assert m.n == 4.0
    assert moments(np.array([0.0, 0.0, 0.0, 4.0]), 2.5).n == 2.5
    assert math.isnan(moments(np.ones(5)).sharpe)


def test_track_record_and_probability_agree() -> None:
    m = SharpeMoments(0.3, 1.0, -0.5, 5.0)
    n = min_track_record(m, 0.1, 0.95)
    assert probabilistic_sharpe(SharpeMoments(0.3, n, -0.5, 5.0), 0.1) == pytest.approx(0.95)
    assert min_track_record(m, 0.3) == math.inf
    assert math.isnan(probabilistic_sharpe(SharpeMoments(math.nan, 10.0, 0.0, 3.0)))


def test_luck_of_many_trials() -> None:
    assert expected_max_normal(1.0) == 0.0
    assert expected_max_sharpe(1.0, 0.3) == 0.0
    values = [expected_max_normal(float(n)) for n in (1, 2, 3, 5, 10, 100)]
    assert values == sorted(values)
    m = SharpeMoments(0.3, 60.0, 0.0, 3.0)
    assert deflated_sharpe(m, 1, 0.02) == probabilistic_sharpe(m)
    assert deflated_sharpe(m, 48, 0.02) < deflated_sharpe(m, 10, 0.02) < probabilistic_sharpe(m)
    with pytest.raises(CalibrationError, match="trials"):
        expected_max_normal(0.5)


def test_false_discoveries_of_the_best_of_many_are_rare() -> None:
    """The best of 20 worthless strategies, judged by its own in-sample record: PSR is fooled, DSR is not."""
    rng = np.random.default_rng(8)
    fooled_psr = fooled_dsr = 0
    for _ in range(200):
        trials = rng.standard_normal((20, 100))
        ratios = trials.mean(axis=1) / trials.std(axis=1, ddof=1)
        best = moments(trials[int(np.argmax(ratios))])
        fooled_psr += probabilistic_sharpe(best) >= 0.95
        fooled_dsr += deflated_sharpe(best, 20, float(np.var(ratios, ddof=1))) >= 0.95
    assert fooled_psr > 100
    assert fooled_dsr <= 10


def test_lo_factor_without_autocorrelation_is_the_square_root() -> None:
    assert lo_annualisation(365, []) == pytest.approx(math.sqrt(365))
    with pytest.raises(CalibrationError, match="fewer autocorrelations"):
        lo_annualisation(2, [0.1, 0.1])
    with pytest.raises(CalibrationError, match="stationary"):
        lo_annualisation(3, [-1.0, -1.0])


def test_drawdown_counts_from_the_start() -> None:
    assert max_drawdown(np.array([-3.0, 1.0, 4.0, -2.0, -1.0, 9.0])) == 3.0
    assert max_drawdown(np.array([1.0, 5.0, -2.0, -4.0])) == 6.0
    assert max_drawdown(np.array([1.0, 2.0])) == 0.0
    assert max_drawdown(np.empty(0)) == 0.0
