from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from mm_platform.calibration.intensity import (
    IntensityFit,
    IntensitySettings,
    arrival_rate,
    bias_corrected,
    decay_continuous,
    decay_on_ticks,
    exceedances,
    fit_intensity,
)
from mm_platform.calibration.order_depth import DecisionGrid, MarketOrders
from mm_platform.core.errors import CalibrationError
from mm_platform.core.units import NS_PER_S

from .flow import MID_HALF, T0, grid_of, hawkes_times, one_sided, orders_of, poisson_times

A, K = 1.5, 0.30  # 1/s, 1/tick
MID_TICKS = MID_HALF / 2
FAST = IntensitySettings(latency_ns=0, replicates=200)


def fit(orders: MarketOrders, grid: DecisionGrid, settings: IntensitySettings = FAST, side: str = "ask", seed: int = 0) -> IntensityFit:
    return fit_intensity(orders, grid, side, 0.1, int(grid.ts_ns[0]), int(grid.ts_ns[-1]), np.random.default_rng(seed), settings)  # type: ignore[arg-type]


# -- estimators ------------------------------------------------------------------------------------------------------------------------


def test_estimators_are_the_maximum_of_their_likelihoods() -> None:
    """Against a numerical maximum, written from the model and not from the formula."""
    rng = np.random.default_rng(2)
    excess = rng.exponential(4.0, 500)
    limit = 6.0

    def censored(k: float) -> float:
        inside = excess < limit
        return -(float(np.sum(inside)) * math.log(k) - k * float(np.sum(np.minimum(excess, limit))))

    k = minimize(lambda x: censored(float(x[0])), [0.1], bounds=[(1e-6, None)]).x[0]
    assert decay_continuous(excess, limit).k == pytest.approx(k, rel=1e-4)
    ticks = np.floor(excess).astype(np.int64)

    def geometric(k: float) -> float:
        cut = np.minimum(ticks, 6)
        return -float(np.sum(-k * cut + np.where(ticks < 6, math.log(1.0 - math.exp(-k)), 0.0)))

    k = minimize(lambda x: geometric(float(x[0])), [0.1], bounds=[(1e-6, None)]).x[0]
    assert decay_on_ticks(ticks, 6).k == pytest.approx(k, rel=1e-4)


def test_standard_error_and_bias_of_the_tick_estimator() -> None:
    """2,000 samples of 40 orders on a coarse grid, where the (n - 1)/n correction would not do."""
    rng = np.random.default_rng(4)
    k, n = 1.2, 40
    samples = rng.geometric(1.0 - math.exp(-k), size=(2000, n)) - 1
    decays = [decay_on_ticks(row) for row in samples]
    raw = np.array([d.k for d in decays])
    corrected = np.array([bias_corrected(d) for d in decays])
    error = 4.0 * np.std(raw) / math.sqrt(len(raw))
    assert np.mean(raw) - k == pytest.approx(math.sinh(k) / n, abs=error)
    assert abs(np.mean(corrected) - k) < error
    assert np.mean([d.stderr for d in decays]) == pytest.approx(np.std(raw), rel=0.08)


def test_half_tick_error_is_absent() -> None:
    """Whole ticks taken for continuous depth inflate k by 17 %; counted as ticks they do not."""
    rng = np.random.default_rng(6)
    n = 1500
    excess = np.floor(rng.exponential(1.0 / K, (300, n))).astype(np.int64)
    naive = np.mean([decay_continuous(row.astype(np.float64)).k for row in excess])
    ours = np.mean([bias_corrected(decay_on_ticks(row)) for row in excess])
    assert naive / K == pytest.approx(1.17, abs=0.01)
    assert ours / K == pytest.approx(1.0, abs=0.005)


def test_no_depth_is_no_decay() -> None:
    assert decay_on_ticks(np.zeros(10, dtype=np.int64)).k == math.inf
    assert decay_continuous(np.zeros(10)).k == math.inf
    with pytest.raises(CalibrationError, match="-1 ticks behind the touch"):
        decay_on_ticks(np.array([-1]))


def test_exceedance_is_compared_at_three_depths() -> None:
    ticks = np.array([0] * 50 + [1] * 25 + [2] * 13 + [3] * 12)
    shares = exceedances(ticks, math.log(2.0))
    assert [e.depth_ticks for e in shares] == [1, 2, 4]
    assert [e.observed_frac for e in shares] == [0.5, 0.25, 0.0]
    assert [e.fitted_frac for e in shares] == pytest.approx([0.5, 0.25, 0.0625])
    assert shares[0].stderr_frac == pytest.approx(0.05)
    assert [e.depth_ticks for e in exceedances(ticks, math.log(2.0), 2)] == [1, 2]


# -- the fit of one side ---------------------------------------------------------------------------------------------------------------


def coverage(arrivals, runs: int, seconds: int, wide_frac: float) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(21)
    in_a = in_k = 0
    poisson_ratio = []
    for _ in range(runs):
        grid = grid_of(seconds, rng, wide_frac=wide_frac)
        result = fit(orders_of(arrivals(rng), K, grid, rng), grid)
        assert result.a.accepted, result.a.reason
        in_a += abs(result.a.value - A) <= 1.96 * result.a.stderr
        in_k += abs(result.k.value / MID_TICKS - K) <= 1.96 * result.k.stderr / MID_TICKS
        poisson_ratio.append(result.a.relative_stderr * math.sqrt(result.a.n))
    return in_a / runs, in_k / runs, float(np.median(poisson_ratio))


def test_errors_are_honest_on_poisson_flow_and_varying_spreads() -> None:
    cover_a, cover_k, inflation = coverage(lambda rng: poisson_times(A, 600.0, rng), 120, 600, 0.5)
    assert cover_a >= 0.88
    assert cover_k >= 0.89
    assert 0.8 < inflation < 1.4


def test_errors_of_a_are_honest_on_clustered_flow() -> None:
    cover_a, cover_k, inflation = coverage(lambda rng: hawkes_times(A, 0.7, 1.0, 1800.0, rng), 100, 1800, 0.0)
    assert cover_a >= 0.85
    assert cover_k >= 0.88
    # 1 / (1 - .7) = 3.3 in long records; a Poisson error would cover about 45 %
    assert 2.3 < inflation < 4.0


def test_spread_that_moves_with_the_flow_does_not_bend_k() -> None:
    """Arrivals three times as frequent while the spread is wide: the conditional estimator does not read that as decay."""
    rng = np.random.default_rng(30)
    grid = grid_of(6000, rng, wide_frac=0.5)
    wide = (grid.ask_ticks - grid.bid_ticks) == 3
    times = poisson_times(3 * A, 6000.0, rng)
    busy = wide[np.searchsorted(grid.ts_ns, T0 + (times * NS_PER_S).astype(np.int64), side="right") - 1]
    times = times[busy | (rng.random(len(times)) < 1 / 3)]
    result = fit(orders_of(times, K, grid, rng), grid)
    assert result.k.value / MID_TICKS == pytest.approx(K, abs=3.5 * result.k.stderr / MID_TICKS)
    assert result.k.stderr / result.k.value < 0.03


def test_both_sides_are_mirror_images() -> None:
    rng = np.random.default_rng(31)
    grid = grid_of(600, rng)
    times = poisson_times(A, 600.0, rng)
    ask = fit(orders_of(times, K, grid, np.random.default_rng(1)), grid)
    bid = fit(orders_of(times, K, grid, np.random.default_rng(1), side=-1), grid, side="bid")
    assert bid.k.value == ask.k.value
    assert bid.a.value == ask.a.value
    assert bid.k.name == "k_bid"
    assert ask.k.unit == "1/relative"
    assert ask.a.unit == "1/s"
    # and the flow of one side is nobody else's
    assert not fit(orders_of(times, K, grid, rng), grid, side="bid").a.accepted


def test_units_scale_with_the_tick_but_not_with_its_price() -> None:
    rng = np.random.default_rng(32)
    grid = grid_of(600, rng)
    orders = orders_of(poisson_times(A, 600.0, rng), K, grid, rng)
    fine = fit_intensity(orders, grid, "ask", 0.1, T0, int(grid.ts_ns[-1]), np.random.default_rng(0), FAST)
    dear = fit_intensity(orders, grid, "ask", 7.0, T0, int(grid.ts_ns[-1]), np.random.default_rng(0), FAST)
    assert dear.k.value == fine.k.value
    assert dear.mean_mid == pytest.approx(70.0 * fine.mean_mid)


def test_orders_that_mostly_stop_at_the_touch_are_fitted_behind_it() -> None:
    rng = np.random.default_rng(33)
    grid = grid_of(3000, rng)
    times = poisson_times(A, 3000.0, rng)
    orders = orders_of(times, 0.05, grid, rng)
    stops = rng.random(len(orders)) < 0.8
    mixed = replace(orders, worst_ticks=np.where(stops, grid.ask_ticks[0], orders.worst_ticks))
    result = fit(mixed, grid)
    assert result.a.accepted
    assert result.start_ticks == 1
    assert "from 1 ticks behind the touch" in result.k.method
    assert result.k.value / MID_TICKS == pytest.approx(0.05, abs=3.5 * result.k.stderr / MID_TICKS)
    # what the fit says one tick behind the touch is what arrives there
    reached = float(np.sum(mixed.worst_ticks >= grid.ask_ticks[0] + 1)) / result.exposure_s
    assert result.a.value * math.exp(-result.k.value / MID_TICKS * 1.5) == pytest.approx(reached, rel=1e-3)
    assert max(abs(e.observed_frac - e.fitted_frac) for e in result.exceedances) == result.k.gof


def test_depth_that_is_not_exponential_is_refused_with_both_numbers() -> None:
    rng = np.random.default_rng(34)
    grid = grid_of(3000, rng)
    orders = orders_of(poisson_times(A, 3000.0, rng), K, grid, rng)
    comb = replace(orders, worst_ticks=grid.ask_ticks[0] + np.where(rng.random(len(orders)) < 0.5, 0, 40))
    result = fit(comb, grid, replace(FAST, start_ladder_ticks=(0, 1, 2, 4)))
    assert not result.a.accepted
    assert not result.k.accepted
    assert not result.k.short_of_data
    assert math.isfinite(result.k.value)
    assert "not exponential" in result.k.reason
    assert "the fit says" in result.k.reason


def test_too_little_data_is_a_value_with_its_numbers() -> None:
    rng = np.random.default_rng(35)
    grid = grid_of(60, rng)
    few = fit(orders_of(poisson_times(A, 30.0, rng), K, grid, rng), grid)
    assert not few.a.accepted
    assert few.a.short_of_data
    assert math.isnan(few.a.value)
    assert few.a.n < few.a.n_needed == 100
    assert f"{few.a.n} market orders reached the touch" in few.a.reason
    assert "100 needed" in few.a.reason
    empty = fit(one_sided([]), grid)
    assert empty.k.n == 0
    assert empty.k.short_of_data
    shallow_grid = grid_of(600, rng)
    shallow = fit(orders_of(poisson_times(A, 600.0, rng), 30.0, shallow_grid, rng), shallow_grid)
    assert not shallow.k.accepted
    nothing = DecisionGrid(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=bool))
    assert fit_intensity(one_sided([]), nothing, "ask", 0.1, T0, T0 + 1, rng, FAST).a.short_of_data


def test_a_burst_of_seconds_tells_nothing_about_a_rate() -> None:
    rng = np.random.default_rng(38)
    grid = grid_of(10, rng)
    burst = fit(orders_of(np.sort(rng.uniform(0.0, 10.0, 500)), K, grid, rng), grid)
    assert burst.a.short_of_data
    assert "20 s needed" in burst.a.reason


def test_clockwork_flow_has_no_error_of_its_rate_but_one_of_its_decay() -> None:
    grid = grid_of(600, np.random.default_rng(0))
    orders = one_sided([(s + 0.5, 1, 10_001 + (0, 1, 2, 7)[s % 4]) for s in range(600)])
    steady = fit(orders, grid)
    assert steady.a.accepted
    assert steady.effective_n == 600.0
    assert steady.a.relative_stderr < 0.01
    assert steady.k.relative_stderr == pytest.approx(1 / math.sqrt(600), rel=0.05)


def test_a_tick_too_coarse_for_decay_is_said() -> None:
    rng = np.random.default_rng(36)
    grid = grid_of(600, rng)
    orders = orders_of(poisson_times(A, 600.0, rng), K, grid, rng)
    flat = fit(replace(orders, worst_ticks=np.full(len(orders), grid.ask_ticks[0])), grid)
    assert not flat.k.accepted
    assert "0 of" in flat.k.reason
    assert "went behind the touch" in flat.k.reason


def test_depth_limit_fits_only_where_one_quotes() -> None:
    rng = np.random.default_rng(37)
    grid = grid_of(3000, rng)
    orders = orders_of(poisson_times(A, 3000.0, rng), K, grid, rng)
    # a few sweeps go very deep: they bend the full fit, not the one near the touch
    deep = replace(orders, worst_ticks=np.where(rng.random(len(orders)) < 0.02, grid.ask_ticks[0] + 400, orders.worst_ticks))
    limited = fit(deep, grid, replace(FAST, depth_limit_ticks=8))
    assert limited.k.value / MID_TICKS == pytest.approx(K, rel=0.12)
    assert "censored at 8" in limited.k.method
    assert fit(deep, grid, replace(FAST, max_exceedance_gap=0.5)).k.value / MID_TICKS < 0.15


def test_orders_known_later_than_the_window_are_refused() -> None:
    grid = grid_of(60, np.random.default_rng(0))
    with pytest.raises(CalibrationError, match="drop later prints"):
        fit_intensity(one_sided([(50.0, 1, 10_001)]), grid, "ask", 0.1, T0, T0 + 40 * NS_PER_S, np.random.default_rng(0), FAST)


@pytest.mark.parametrize(
    "bad",
    [
        {"latency_ns": -1},
        {"depth_limit_ticks": 0},
        {"min_orders": 1},
        {"start_ladder_ticks": (1, 0)},
        {"start_ladder_ticks": ()},
        {"bin_s": 0.0},
        {"max_bins": 19},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match="intensity settings"):
        IntensitySettings(**bad)  # type: ignore[arg-type]


def test_arrival_rate_with_one_spread_is_the_textbook() -> None:
    assert arrival_rate(77, K, np.array([20.0, 40.0]), np.array([0.5, 0.5])) == pytest.approx(77 / 60 * math.exp(K * 0.5))
