"""The quoting step against Avellaneda & Stoikov (2008): closed forms, and the simulation of their section 3.3.

The paper works in price units: sigma in price/sqrt(time), k in 1/price, gamma in 1/money, lots of one unit. At a mid m the kernel's relative
units are sigma/m, k m and gamma m, exactly. Published rows: profit, its standard deviation, final inventory, its standard deviation, from
1,000 paths; `PRECISE` holds an independent reproduction with 100,000 paths.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.core.units import SECONDS_PER_YEAR
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.quoting import FIXED, RELAXATION, Market, QuoteParams, quote_step

A, K, SIGMA, T, DT = 140.0, 1.5, 2.0, 1.0, 0.005
PATHS = 4000
STEPS = round(T / DT)

PUBLISHED = {
    (0.1, 1): (65.0, 6.6, 0.08, 2.9),
    (0.1, 0): (68.4, 12.7, 0.26, 8.4),
    (0.01, 1): (68.6, 8.7, 0.12, 5.1),
    (0.01, 0): (68.8, 12.8, 0.09, 8.7),
    (1.0, 1): (31.4, 5.0, 0.02, 1.7),
    (1.0, 0): (44.0, 11.0, 0.0, 5.1),
}
PRECISE = {
    (0.1, 1): (64.877, 6.566, 2.928),
    (0.1, 0): (68.261, 13.464, 8.392),
    (0.01, 1): (68.392, 8.958, 5.212),
    (0.01, 0): (68.700, 13.650, 8.697),
    (1.0, 1): (31.435, 4.819, 1.646),
    (1.0, 0): (43.909, 10.777, 5.165),
}


def price_units(gamma: float, sigma: float, k: float, tau: float, mid: float) -> QuoteParams:
    return QuoteParams(
        gamma=gamma * mid,
        sigma=sigma / mid,
        tau_years=tau,
        horizon=FIXED,
        A_bid=1.0,
        A_ask=1.0,
        k_bid=k * mid,
        k_ask=k * mid,
        inventory_unit=1.0,
        target_inventory=0.0,
        max_inventory=math.inf,
        order_units=1.0,
        min_spread=0.0,
        max_spread=math.inf,
        maker_fee=0.0,
        adverse_selection=0.0,
        coef_ofi=0.0,
        coef_kyle=0.0,
        coef_short_volatility=0.0,
    )


def at(mid: float) -> Market:
    return Market(mid, math.nan, math.nan, math.nan, math.nan, 0.0)


@pytest.mark.parametrize(
    ("q", "tau", "reservation", "spread", "bid", "ask"),
    [
        (0, 1.0, 100.0, 1.690770, 99.154615, 100.845385),
        (0, 0.5, 100.0, 1.490770, 99.254615, 100.745385),
        (0, 0.0, 100.0, 1.290770, 99.354615, 100.645385),
        (1, 1.0, 99.6, 1.690770, 98.754615, 100.445385),
        (3, 1.0, 98.8, 1.690770, 97.954615, 99.645385),
        (-2, 0.5, 100.4, 1.490770, 99.654615, 101.145385),
    ],
)
def test_quotes_of_the_paper(q: int, tau: float, reservation: float, spread: float, bid: float, ask: float) -> None:
    quote = quote_step(price_units(0.1, 2.0, 1.5, tau, 100.0), at(100.0), float(q))
    assert quote.reservation == pytest.approx(reservation, abs=1e-9)
    assert quote.ask - quote.bid == pytest.approx(spread, abs=5e-7)
    assert (quote.bid, quote.ask) == (pytest.approx(bid, abs=5e-7), pytest.approx(ask, abs=5e-7))
    assert quote.clamps == 0


@pytest.mark.parametrize("q", [-2, 0, 1, 3])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_equations_29_and_30(q: int, tau: float) -> None:
    quote = quote_step(price_units(0.1, 2.0, 1.5, tau, 100.0), at(100.0), float(q))
    assert quote.reservation == pytest.approx(100.0 - q * 0.1 * 4.0 * tau, rel=1e-12)
    assert quote.ask - quote.bid == pytest.approx(0.1 * 4.0 * tau + 20.0 * math.log(1.0 + 0.1 / 1.5), rel=1e-9)


@pytest.mark.parametrize(
    ("gamma", "average", "constant"), [(0.01, 1.3489, 1.3289), (0.1, 1.4908, 1.2908), (0.5, 2.1507, 1.1507), (1.0, 3.0217, 1.0217)]
)
def test_average_and_constant_spreads(gamma: float, average: float, constant: float) -> None:
    def spread(tau: float) -> float:
        quote = quote_step(price_units(gamma, SIGMA, K, tau, 100.0), at(100.0), 0.0)
        return quote.ask - quote.bid

    assert spread(0.5) == pytest.approx(average, abs=6e-5)
    assert spread(0.0) == pytest.approx(constant, abs=6e-5)


@kernel
def simulate(
    gamma: float, follows_inventory: int, up: np.ndarray, u_bid: np.ndarray, u_ask: np.ndarray, profit: np.ndarray, inventory: np.ndarray
) -> None:
    """Section 3.3: mid +- sigma sqrt(dt), fills with probability min(A exp(-k delta) dt, 1), quotes renewed every step."""
    steps = up.shape[1]
    for path in range(up.shape[0]):
        mid = 100.0
        cash = 0.0
        q = 0.0
        for n in range(steps):
            tau = T - n * DT if follows_inventory == 1 else 0.5 * T
            p = QuoteParams(
                gamma * mid, SIGMA / mid, tau, FIXED, 1.0, 1.0, K * mid, K * mid, 1.0, 0.0, math.inf, 1.0, 0.0, math.inf, 0.0, 0.0, 0.0, 0.0, 0.0
            )
            quote = quote_step(p, Market(mid, math.nan, math.nan, math.nan, math.nan, 0.0), q if follows_inventory == 1 else 0.0)
            buys = u_bid[path, n] < A * math.exp(-K * (mid - quote.bid)) * DT
            sells = u_ask[path, n] < A * math.exp(-K * (quote.ask - mid)) * DT
            if buys:
                cash -= quote.bid
                q += 1.0
            if sells:
                cash += quote.ask
                q -= 1.0
            mid += SIGMA * math.sqrt(DT) * up[path, n]
        profit[path] = cash + q * mid
        inventory[path] = q


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(20080308)
    shape = (PATHS, STEPS)
    return rng.choice(np.array([-1.0, 1.0]), shape), rng.random(shape), rng.random(shape)


@pytest.mark.parametrize(("gamma", "follows_inventory"), list(PUBLISHED))
def test_published_simulation(gamma: float, follows_inventory: int, draws: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    profit, inventory = np.empty(PATHS), np.empty(PATHS)
    simulate.compiled(gamma, follows_inventory, *draws, profit, inventory)
    mean, sd, mean_q, sd_q = profit.mean(), profit.std(), inventory.mean(), inventory.std()
    # standard error of a sd: sd sqrt((kurtosis - 1)/(4 n))
    kurtosis = np.mean(((profit - mean) / sd) ** 4)
    se_mean, se_sd = sd / math.sqrt(PATHS), sd * math.sqrt((kurtosis - 1) / (4 * PATHS))
    se_sd_q = sd_q / math.sqrt(2 * PATHS)
    precise = PRECISE[gamma, follows_inventory]
    assert abs(mean - precise[0]) < 4 * se_mean + 0.045
    assert abs(sd - precise[1]) < 4 * se_sd + 0.03
    assert abs(sd_q - precise[2]) < 4 * se_sd_q + 0.02
    assert abs(mean_q) < 4 * sd_q / math.sqrt(PATHS)
    # the paper's own figures come from 1,000 paths and are printed to one decimal
    published = PUBLISHED[gamma, follows_inventory]
    wide = math.sqrt(PATHS / 1000 + 1)
    assert abs(mean - published[0]) < 3 * wide * se_mean + 0.05
    assert abs(sd - published[1]) < 3 * wide * se_sd + 0.05
    assert abs(mean_q - published[2]) < 3 * wide * sd_q / math.sqrt(PATHS) + 0.005
    assert abs(sd_q - published[3]) < 3 * wide * se_sd_q + 0.05


def test_simulation_twin_is_the_same_run(draws: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    few = tuple(d[:5] for d in draws)
    runs = []
    for run in (simulate, simulate.compiled):
        profit, inventory = np.empty(5), np.empty(5)
        run(0.1, 1, *few, profit, inventory)
        runs.append((profit.tobytes(), inventory.tobytes()))
    assert runs[0] == runs[1]


def test_capping_the_horizon_at_the_relaxation_time_recovers_the_optimum_slope() -> None:
    """THEORY 2.4: in the paper's world 1/omega is .403, .129, .0613, .0462 for gamma .01, .1, .5, 1."""
    for gamma, relaxation in ((0.01, 0.403), (0.1, 0.129), (0.5, 0.0613), (1.0, 0.0462)):
        # the paper's time unit stands for the year; arrivals are given per second
        p = price_units(gamma, SIGMA, K, 1.0, 100.0)._replace(horizon=RELAXATION, A_bid=A / SECONDS_PER_YEAR, A_ask=A / SECONDS_PER_YEAR)
        assert quote_step(p, at(100.0), 0.0).tau_years == pytest.approx(relaxation, abs=6e-4)


def test_glft_closed_form_of_figure_one() -> None:
    """GLFT's stationary closed form (sigma .3, A .9, k .3, gamma .01): bid 3.652244, ask 2.973586 at q = 5."""
    p = price_units(0.01, 0.3, 0.3, 1e6, 100.0)._replace(horizon=RELAXATION, A_bid=0.9 / SECONDS_PER_YEAR, A_ask=0.9 / SECONDS_PER_YEAR)
    quote = quote_step(p, at(100.0), 5.0)
    assert 100.0 - quote.bid == pytest.approx(3.652244361218958, rel=1e-9)
    assert quote.ask - 100.0 == pytest.approx(2.97358603591012, rel=1e-9)


def test_hftbacktests_glft_tutorial() -> None:
    """Half spread and skew per lot of hftbacktest's tutorial, computed there independently."""
    rate = 2.986162360812285 / SECONDS_PER_YEAR
    mid = 1e6
    p = price_units(0.05, 10.69, 0.04235741115084049, 1e9, mid)._replace(horizon=RELAXATION, A_bid=rate, A_ask=rate)
    flat, long = quote_step(p, at(mid), 0.0), quote_step(p, at(mid), 1.0)
    assert mid - flat.bid == pytest.approx(20.47208533844371, rel=1e-7)
    assert mid - long.reservation == pytest.approx(9.76326865029227, rel=1e-7)
