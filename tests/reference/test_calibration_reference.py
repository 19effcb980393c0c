"""Estimators and statistics against published or independently computed numbers.

The numbers stand here; where ../shared is beside the project they are compared with its reference.json too.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mm_platform.calibration.bootstrap import optimal_block_length
from mm_platform.calibration.exposure import fit_exposure
from mm_platform.calibration.intensity import arrival_rate, bias_corrected, decay_continuous, decay_on_ticks, exceedance_regression
from mm_platform.calibration.statistics import (
    SharpeMoments,
    deflated_sharpe,
    expected_max_normal,
    expected_max_sharpe,
    lo_annualisation,
    min_track_record,
    probabilistic_sharpe,
)
from mm_platform.calibration.volatility import (
    bipower_variation,
    med_realized_variance,
    noise_variance,
    noise_variance_autocovariance,
    realized_kernel,
    realized_variance,
    two_scale_variance,
)
from mm_platform.core.errors import CalibrationError

DEPTHS = np.array([0.6, 0.9, 1.4, 2.0, 3.1, 5.0, 8.2, 0.7, 1.1, 2.6])
HALF_SPREAD, SECONDS = 0.5, 10.0
LOG_PRICES = np.log([100, 100.02, 99.99, 100.03, 100.05, 100.01, 100.04, 100.02, 100.08, 100.05, 100.07])


def rate(k: float) -> float:
    return arrival_rate(len(DEPTHS), k, np.array([SECONDS]), np.array([HALF_SPREAD]))


def test_intensity_from_depths() -> None:
    continuous = decay_continuous(DEPTHS - HALF_SPREAD)
    assert continuous.k == pytest.approx(0.4854368932, abs=1e-10)
    assert rate(continuous.k) == pytest.approx(1.2747096747, abs=1e-10)
    # depths in whole ticks: floor of (d - h), exact in tenths
    ticks = decay_on_ticks((np.round(DEPTHS * 10).astype(np.int64) - 5) // 10)
    assert ticks.k == pytest.approx(0.4855078158, abs=1e-10)
    assert rate(ticks.k) == pytest.approx(1.2747548784, abs=1e-10)
    censored = decay_continuous(DEPTHS - HALF_SPREAD, 5.0 - HALF_SPREAD)
    assert censored.k == pytest.approx(0.4597701149, abs=1e-10)
    assert rate(censored.k) == pytest.approx(1.2584553516, abs=1e-10)


def test_intensity_by_regression_as_other_tools_do_it() -> None:
    a, k = exceedance_regression(DEPTHS, np.arange(0.5, 7.0), SECONDS)
    assert a == pytest.approx(1.0048434167, abs=1e-10)
    assert k == pytest.approx(0.3864206530, abs=1e-10)
    with pytest.raises(CalibrationError, match="never reached"):
        exceedance_regression(DEPTHS, np.array([0.5, 9.0]), SECONDS)


def test_intensity_from_own_orders() -> None:
    fit = fit_exposure(
        np.array([1, 0, 1, 1, 0, 0, 1, 0], dtype=bool),
        np.array([0.4, 2.0, 1.1, 0.3, 2.0, 2.0, 1.7, 2.0]),
        np.array([0.5, 2.0, 1.0, 0.5, 4.0, 4.0, 2.0, 2.0]),
    )
    assert fit.a == pytest.approx(7.0220635899, abs=1e-9)
    assert fit.k == pytest.approx(1.8913932595, abs=1e-9)
    assert fit.stderr_k == pytest.approx(0.8113214946, abs=1e-9)


def test_tick_estimator_in_the_published_design() -> None:
    """A = 1.5/s, k = .30/tick, h = .5, T = 600 s: bias +.06 %, rmse .0109 (the Cramer-Rao bound is .0108)."""
    rng = np.random.default_rng(17)
    estimates, corrected, rates = [], [], []
    for _ in range(1500):
        n = rng.poisson(1.5 * math.exp(-0.15) * 600)
        decay = decay_on_ticks(np.floor(rng.exponential(1 / 0.3, n)).astype(np.int64))
        estimates.append(decay.k)
        corrected.append(bias_corrected(decay))
        rates.append(arrival_rate(n, corrected[-1], np.array([600.0]), np.array([0.5])))
    error = np.sqrt(np.mean((np.array(estimates) - 0.3) ** 2))
    assert error == pytest.approx(0.0109, abs=0.0006)
    assert np.mean(estimates) / 0.3 - 1.0 == pytest.approx(0.001, abs=0.003)
    assert np.mean(corrected) / 0.3 - 1.0 == pytest.approx(0.0, abs=0.003)
    assert np.mean(rates) == pytest.approx(1.5, rel=0.005)


def test_volatility_measures_on_ten_returns() -> None:
    assert realized_variance(LOG_PRICES) == pytest.approx(1.109229558867e-6, rel=1e-11)
    assert two_scale_variance(LOG_PRICES, 3, adjusted=False) == pytest.approx(6.059397960e-8, rel=1e-9)
    assert two_scale_variance(LOG_PRICES, 3) == pytest.approx(1.136137118e-7, rel=1e-9)
    assert realized_kernel(LOG_PRICES, 3) == pytest.approx(2.466981847e-7, rel=1e-9)
    assert bipower_variation(LOG_PRICES) == pytest.approx(1.534843276e-6, rel=1e-9)
    assert med_realized_variance(LOG_PRICES) == pytest.approx(1.400759983e-6, rel=1e-9)
    assert noise_variance(LOG_PRICES) == pytest.approx(5.546147794e-8, rel=1e-9)
    assert noise_variance_autocovariance(LOG_PRICES) == pytest.approx(7.994226478e-8, rel=1e-9)


def test_probabilistic_sharpe_and_track_record() -> None:
    """Bailey and Lopez de Prado (2012): 24 months, skew -2.448, kurtosis 10.164."""
    skewed = SharpeMoments(0.458, 24, -2.448, 10.164)
    assert probabilistic_sharpe(skewed) == pytest.approx(0.913361083860933, abs=1e-12)
    assert probabilistic_sharpe(SharpeMoments(0.458, 24, 0.0, 3.0)) == pytest.approx(0.9816749190910771, abs=1e-12)
    assert min_track_record(skewed) == pytest.approx(34.5575, abs=5e-5)
    assert min_track_record(SharpeMoments(0.458, 24, 0.0, 3.0)) == pytest.approx(15.2508, abs=5e-5)


@pytest.mark.parametrize(("per_year", "years"), [(250, 2.731187801728176), (52, 2.828833586945237), (12, 3.239800696444647)])
def test_track_record_of_sharpe_two_against_one(per_year: int, years: float) -> None:
    root = math.sqrt(per_year)
    assert min_track_record(SharpeMoments(2.0 / root, 1, 0.0, 3.0), 1.0 / root) / per_year == pytest.approx(years, rel=1e-10)


def test_deflated_sharpe_of_the_paper() -> None:
    """Annual Sharpe 2.5 on 1,250 days, variance of trials 1/2 a year: .9004 with 100 trials, .9505 with 46; .9505 with 88 if normal."""
    daily, variance = 2.5 / math.sqrt(250), 0.5 / 250
    heavy = SharpeMoments(daily, 1250, -3.0, 10.0)
    assert expected_max_sharpe(100, variance) == pytest.approx(0.11317200186513214, abs=1e-12)
    assert deflated_sharpe(heavy, 100, variance) == pytest.approx(0.9003968344493903, abs=1e-12)
    assert deflated_sharpe(heavy, 46, variance) == pytest.approx(0.9505017068755787, abs=1e-12)
    assert deflated_sharpe(SharpeMoments(daily, 1250, 0.0, 3.0), 88, variance) == pytest.approx(0.9504908166760139, abs=1e-12)


@pytest.mark.parametrize(("n", "value"), [(5, 1.192594), (10, 1.574598), (50, 2.276303), (100, 2.530603), (1000, 3.255122)])
def test_expected_maximum(n: int, value: float) -> None:
    assert expected_max_normal(n) == pytest.approx(value, abs=1e-6)


def test_lo_annualisation() -> None:
    assert lo_annualisation(365, [0.1]) == pytest.approx(17.4444, abs=5e-5)
    assert lo_annualisation(365, [-0.1]) == pytest.approx(21.3527, abs=5e-5)


def test_block_length_of_an_independent_implementation() -> None:
    """arch 8.0.0 on the same AR(1) series."""
    e = np.random.default_rng(12345).standard_normal(1000)
    x = np.empty(1000)
    x[0] = e[0]
    for t in range(1, 1000):
        x[t] = 0.5 * x[t - 1] + e[t]
    lengths = optimal_block_length(x)
    assert lengths.stationary == pytest.approx(10.033315, abs=1e-6)
    assert lengths.circular == pytest.approx(11.485278, abs=1e-6)


@pytest.mark.shared
def test_numbers_here_are_those_of_the_shared_file(shared: Path) -> None:
    reference = json.loads((shared / "spec" / "reference.json").read_text())
    vol, dsr = reference["vol_vector"], reference["dsr"]
    log_prices = np.log(vol["prices"])
    assert realized_variance(log_prices) == pytest.approx(vol["RV"], rel=1e-12)
    assert two_scale_variance(log_prices, 3) == pytest.approx(vol["TSRV_K3_adj"], rel=1e-10)
    assert realized_kernel(log_prices, 3) == pytest.approx(vol["RK_parzen_H3"], rel=1e-10)
    assert bipower_variation(log_prices) == pytest.approx(vol["BV"], rel=1e-12)
    assert med_realized_variance(log_prices) == pytest.approx(vol["medRV"], rel=1e-12)
    assert expected_max_sharpe(100, 0.5 / 250) == pytest.approx(dsr["SR0"], rel=1e-12)
    assert probabilistic_sharpe(SharpeMoments(0.458, 24, -2.448, 10.164)) == pytest.approx(dsr["PSR"], rel=1e-12)
