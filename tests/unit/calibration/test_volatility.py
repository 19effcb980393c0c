from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.calibration.fit import Fit
from mm_platform.calibration.volatility import (
    VolatilitySettings,
    bipower_variation,
    ewma_sigma,
    ewma_variance_path,
    fit_sigma,
    med_realized_variance,
    noise_variance,
    parzen,
    realized_kernel,
    realized_variance,
    subsampled_variance,
    two_scale_variance,
)
from mm_platform.core.errors import CalibrationError
from mm_platform.core.units import NS_PER_S, SECONDS_PER_YEAR

from .flow import T0, noisy_log_mids

SIGMA = 0.5


def fit_of(log_mid: np.ndarray, step_s: float = 1.0, seed: int = 0, settings: VolatilitySettings | None = None) -> Fit:
    ts = T0 + (np.arange(len(log_mid)) * step_s * NS_PER_S).astype(np.int64)
    return fit_sigma(ts, np.exp(log_mid), int(ts[0]), int(ts[-1]), np.random.default_rng(seed), settings)


def test_noise_inflates_plain_variance_and_not_the_others() -> None:
    """One hour of 1 s mids with 1 bp of noise: plain realised variance is 3.5 times too large."""
    rng = np.random.default_rng(1)
    iv = SIGMA**2 * 3600 / SECONDS_PER_YEAR
    paths = [noisy_log_mids(SIGMA, 1.0, 3600, 1e-4, rng) for _ in range(200)]
    assert np.mean([realized_variance(x) for x in paths]) / iv == pytest.approx(3.52, abs=0.03)
    assert np.mean([two_scale_variance(x, 60) for x in paths]) / iv == pytest.approx(0.994, abs=0.04)
    assert np.mean([realized_kernel(x, 30) for x in paths]) / iv == pytest.approx(1.012, abs=0.03)
    assert np.mean([subsampled_variance(x, 60) for x in paths]) / iv == pytest.approx(1.019, abs=0.04)
    assert np.mean([noise_variance(x) for x in paths]) == pytest.approx(1e-8 + iv / 7200, rel=0.02)
    # without the adjustment two-scale variance is low by 9 % at K = 300
    raw, adjusted = (np.mean([two_scale_variance(x, 300, adjusted=a) for x in paths]) / iv for a in (False, True))
    assert raw / adjusted == pytest.approx(0.914, abs=0.005)


def test_jumps_leave_the_robust_measures_alone() -> None:
    rng = np.random.default_rng(2)
    x = noisy_log_mids(SIGMA, 60.0, 1440, 0.0, rng)
    jump = x + np.where(np.arange(len(x)) > 700, 0.01, 0.0)
    iv = SIGMA**2 / 365
    assert (realized_variance(jump) - realized_variance(x)) / iv == pytest.approx(0.146, abs=0.03)
    assert abs(bipower_variation(jump) - bipower_variation(x)) / iv < 0.04
    assert abs(med_realized_variance(jump) - med_realized_variance(x)) / iv < 0.01


def test_measures_by_hand() -> None:
    x = np.array([0.0, 1.0, 0.0, 2.0])
    assert realized_variance(x) == 6.0
    assert subsampled_variance(x, 1) == 6.0
    # two-step returns 0 and 1: (0 + 1) / 2, scaled by 3 / 2
    assert subsampled_variance(x, 2) == 0.75
    # K = 2: 0.5 - (2 / 2) / 3 * 6
    assert two_scale_variance(x, 2, adjusted=False) == pytest.approx(0.5 - 2.0)
    assert realized_kernel(x, 0) == 6.0
    assert realized_kernel(x, 1) == pytest.approx(6.0 + 2.0 * parzen(0.5) * (-1.0 - 2.0))
    assert (parzen(0.0), parzen(0.5), parzen(1.0), parzen(1.5)) == (1.0, 0.25, 0.0, 0.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: realized_variance(np.array([1.0])),
        lambda: realized_variance(np.array([1.0, np.nan])),
        lambda: two_scale_variance(np.zeros(5), 1),
        lambda: two_scale_variance(np.zeros(5), 5),
        lambda: realized_kernel(np.zeros(5), 4),
        lambda: subsampled_variance(np.zeros(5), 0),
        lambda: ewma_sigma(np.zeros(2, dtype=np.int64), np.ones(2), 0.0),
        lambda: VolatilitySettings(sub_interval_s=1.0),
        lambda: fit_sigma(np.zeros(2, dtype=np.int64), np.ones(3), 0, 1, np.random.default_rng(0)),
    ],
)
def test_unusable_input_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CalibrationError, match="expected"):
        call()


def test_sigma_is_unbiased_and_its_error_honest_on_noisy_mids() -> None:
    rng = np.random.default_rng(3)
    fits = [fit_of(noisy_log_mids(SIGMA, 1.0, 4 * 3600, 1e-4, rng)) for _ in range(60)]
    assert all(f.accepted for f in fits)
    values = np.array([f.value for f in fits])
    assert np.mean(values) == pytest.approx(SIGMA, rel=0.02)
    covered = sum(abs(f.value - SIGMA) <= 1.96 * f.stderr for f in fits)
    assert covered >= 51  # 95 % nominal, 60 runs
    assert np.mean([f.stderr for f in fits]) == pytest.approx(np.std(values), rel=0.35)
    assert "realised kernel" in fits[0].method
    assert fits[0].gof == pytest.approx(1.0, abs=0.15)


def test_clean_mids_need_no_long_kernel() -> None:
    clean = fit_of(noisy_log_mids(SIGMA, 1.0, 4 * 3600, 0.0, np.random.default_rng(4)))
    noisy = fit_of(noisy_log_mids(SIGMA, 1.0, 4 * 3600, 3e-4, np.random.default_rng(4)))
    bandwidth = [int(f.method.split("H=")[1].split(",")[0]) for f in (clean, noisy)]
    assert bandwidth[0] < bandwidth[1]
    assert clean.value == pytest.approx(SIGMA, rel=0.05)
    assert clean.unit == "1/sqrt(year)"


def test_changing_volatility_widens_the_error() -> None:
    rng = np.random.default_rng(5)
    calm = noisy_log_mids(0.3, 1.0, 7200, 0.0, rng)
    wild = noisy_log_mids(0.9, 1.0, 7200, 0.0, rng)
    mixed = fit_of(np.concatenate((calm, calm[-1] + wild[1:] - wild[0])))
    steady = fit_of(noisy_log_mids(math.sqrt((0.09 + 0.81) / 2), 1.0, 4 * 3600, 0.0, rng))
    assert mixed.value == pytest.approx(math.sqrt((0.09 + 0.81) / 2), rel=0.06)
    assert mixed.stderr > 3.0 * steady.stderr


def test_holes_are_left_out_not_bridged() -> None:
    rng = np.random.default_rng(6)
    x = noisy_log_mids(SIGMA, 1.0, 4 * 3600, 0.0, rng)
    ts = T0 + np.arange(len(x)) * NS_PER_S
    mid = np.exp(x)
    whole = fit_sigma(ts, mid, int(ts[0]), int(ts[-1]), np.random.default_rng(0))
    broken = mid.copy()
    broken[5000:5200] = np.nan
    broken[5200:] *= 1.2  # the price comes back elsewhere
    holed = fit_sigma(ts, broken, int(ts[0]), int(ts[-1]), np.random.default_rng(0))
    assert holed.value == pytest.approx(whole.value, rel=0.05)
    keep = (np.arange(len(x)) < 5000) | (np.arange(len(x)) >= 5200)
    missing = fit_sigma(ts[keep], broken[keep], int(ts[0]), int(ts[-1]), np.random.default_rng(0))
    assert missing.value == pytest.approx(whole.value, rel=0.05)
    assert holed.n < whole.n == len(x) - 1


def test_too_short_is_a_value_with_its_numbers() -> None:
    short = fit_of(noisy_log_mids(SIGMA, 1.0, 200, 0.0, np.random.default_rng(7)))
    assert not short.accepted
    assert short.short_of_data
    assert math.isnan(short.value)
    assert "8 needed" in short.reason
    still = fit_of(np.zeros(3600))
    assert not still.accepted
    assert "did not move" in still.reason
    empty = fit_sigma(np.empty(0, dtype=np.int64), np.empty(0), T0, T0 + 1, np.random.default_rng(0))
    assert empty.n == 0
    assert empty.short_of_data


def test_eight_minutes_are_enough_for_a_rough_sigma() -> None:
    fit = fit_of(noisy_log_mids(SIGMA, 1.0, 480, 0.0, np.random.default_rng(8)))
    assert fit.accepted
    assert fit.value == pytest.approx(SIGMA, abs=4 * fit.stderr)
    assert fit.stderr > 0.02


def test_floor_holds_where_noise_swallows_the_price() -> None:
    """Mids that are noise and nothing else: both measures fall below the floor, which keeps sigma above 0 and says so."""
    noise = math.log(100.0) + 1e-3 * np.random.default_rng(4).standard_normal(4000)
    fit = fit_of(noise, settings=VolatilitySettings(sparse_s=25.0))
    assert fit.accepted
    assert fit.method.startswith("floor: 0.25 of sub-sampled variance")
    assert fit.gof == pytest.approx(0.25)
    # independent noise of variance w: a 25 s return has variance 2 w, whatever the length
    assert fit.value == pytest.approx(math.sqrt(0.25 * 2e-6 / 25 * SECONDS_PER_YEAR), rel=0.05)


def test_adjustment_takes_the_noise_off_that_the_kernel_lets_through() -> None:
    rng = np.random.default_rng(12)
    iv = SIGMA**2 * 600 / SECONDS_PER_YEAR
    paths = [noisy_log_mids(SIGMA, 1.0, 600, 1e-4, rng) for _ in range(800)]
    plain, adjusted = (np.array([realized_kernel(x, 16, adjusted=a) for x in paths]) / iv for a in (False, True))
    error = 4.0 * np.std(adjusted) / math.sqrt(len(paths))
    assert abs(np.mean(adjusted) - 1.0) < error < 0.06
    # 2 n w (1 - k(1/17)) / IV = 5 %
    assert np.mean(plain - adjusted) == pytest.approx(2 * 600 * 1e-8 * (1 - parzen(1 / 17)) / iv, rel=0.15)


def test_ewma_twins_agree_and_forget_by_time() -> None:
    rng = np.random.default_rng(9)
    ts = T0 + np.cumsum(rng.integers(1, 3 * NS_PER_S, 500))
    x = noisy_log_mids(SIGMA, 1.0, 499, 0.0, rng)
    x[100] = np.nan
    plain, compiled = np.full(500, np.nan), np.full(500, np.nan)
    used = ewma_variance_path(ts, x, 60.0, 1.0, plain)
    assert ewma_variance_path.compiled(ts, x, 60.0, 1.0, compiled) == used
    assert 100 < used < 499
    np.testing.assert_array_equal(plain, compiled)
    assert math.isnan(plain[0])
    # after one half life without moves the variance has halved
    quiet = ewma_sigma(T0 + np.array([0, 1, 2, 32]) * NS_PER_S, np.array([100.0, 101.0, 101.0, 101.0]), 30.0)
    assert (quiet[3] / quiet[2]) ** 2 == pytest.approx(0.5)
    # lambda = .94 a step is a half life of 11.20 steps
    steps = ewma_sigma(T0 + np.arange(3) * NS_PER_S, np.array([100.0, 101.0, 101.0]), 11.2023)
    assert (steps[2] / steps[1]) ** 2 == pytest.approx(0.94, abs=1e-4)
