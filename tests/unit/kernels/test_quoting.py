"""The quoting step against THEORY's numbers, its order of operations, and its two twins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.kernels.quoting import (
    BAD_INVENTORY,
    BAD_MID,
    BAD_PARAMETERS,
    BAD_SIGMA,
    CLAMP_INVENTORY_ASK,
    CLAMP_INVENTORY_BID,
    CLAMP_MAX_SPREAD,
    CLAMP_MIN_SPREAD,
    CLAMP_NAMES,
    CLAMP_SKEW,
    FIXED,
    OK,
    POST_ONLY_ASK,
    POST_ONLY_BID,
    RELAXATION,
    ROLLING,
    ROUNDED_ASK,
    ROUNDED_BID,
    Market,
    QuoteParams,
    indicative_prices,
    quote_step,
    relaxation_rate,
    rest_at_mid,
    round_step,
)

SECONDS_PER_YEAR = 31_536_000.0
FREE = QuoteParams(
    gamma=0.1,
    sigma=0.5,
    tau_years=1.0 / 365.0,
    horizon=ROLLING,
    A_bid=1.0,
    A_ask=1.0,
    k_bid=5000.0,
    k_ask=5000.0,
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


def market(
    mid: float = 50_000.0, micro: float = math.nan, ofi: float = math.nan, kyle: float = math.nan, short: float = math.nan, elapsed: float = 0.0
) -> Market:
    return Market(mid, micro, ofi, kyle, short, elapsed)


def shift_bp(p: QuoteParams, m: Market, inventory: float) -> float:
    q = quote_step(p, m, inventory)
    return (q.reservation / q.fair - 1.0) * 1e4


@pytest.mark.parametrize(("mid", "lot"), [(50_000.0, 0.01), (2_500.0, 0.2), (1.0, 500.0), (1e-5, 5e7)])
def test_scale_invariance(mid: float, lot: float) -> None:
    q = quote_step(FREE._replace(inventory_unit=lot), market(mid), 3.0 * lot)
    assert (q.reservation - mid) / mid * 1e4 == pytest.approx(-2.054794521, abs=1e-9)
    assert (q.ask - q.bid) / mid * 1e4 == pytest.approx(4.684891507, abs=1e-9)


@pytest.mark.parametrize(
    ("gamma", "tau_years", "skew_bp"),
    [
        (0.01, 1.0, 25.0),
        (0.1, 30 / 365, 20.55),
        (0.1, 1 / 365, 0.685),
        (0.5, 1 / 1095, 1.142),
        (1.0, 1 / 8760, 0.285),
        (1.0, 300 / SECONDS_PER_YEAR, 0.0238),
    ],
)
def test_skew_per_unit_of_the_horizon_table(gamma: float, tau_years: float, skew_bp: float) -> None:
    p = FREE._replace(gamma=gamma, tau_years=tau_years)
    assert -shift_bp(p, market(), 1.0) == pytest.approx(skew_bp, rel=2.5e-3)
    q = quote_step(p, market(), 0.0)
    assert (q.half_spread_bid + q.half_spread_ask) * 1e4 == pytest.approx(-shift_bp(p, market(), 1.0) + 4.0, rel=1e-3)


@pytest.mark.parametrize(
    ("rate_per_s", "gamma", "relaxation_s", "slope_bp"),
    [(1.0, 0.1, 585.6, 0.004642), (0.01, 0.1, 5855.8, 0.046421), (0.01, 1.0, 1851.8, 0.146803), (0.1, 10.0, 185.3, 0.146869)],
)
def test_relaxation_horizon(rate_per_s: float, gamma: float, relaxation_s: float, slope_bp: float) -> None:
    p = FREE._replace(horizon=RELAXATION, gamma=gamma, A_bid=rate_per_s, A_ask=rate_per_s)
    assert quote_step(p, market(), 0.0).tau_years * SECONDS_PER_YEAR == pytest.approx(relaxation_s, abs=0.06)
    assert -shift_bp(p, market(), 1.0) == pytest.approx(slope_bp, abs=6e-7)


def test_relaxation_rate_matches_the_reference_to_all_digits() -> None:
    assert relaxation_rate(FREE, 0.5) == pytest.approx(53854.735269230325, rel=1e-12)


def test_relaxation_slope_with_order_size_is_gueants_closed_form() -> None:
    # Gueant (2017): slope = sigma c2 with c2 = sqrt(gamma/(2 A Delta k) (1 + gamma Delta/k)^(k/(gamma Delta) + 1)), here A per year, k relative
    gamma, k, size, rate = 0.3, 4000.0, 5.0, 0.02
    p = FREE._replace(horizon=RELAXATION, gamma=gamma, k_bid=k, k_ask=k, A_bid=rate, A_ask=rate, order_units=size, tau_years=1.0)
    x = gamma * size / k
    c2 = math.sqrt(gamma / (2 * rate * SECONDS_PER_YEAR * size * k) * (1 + x) ** (1 / x + 1))
    assert -shift_bp(p, market(), 1.0) == pytest.approx(0.5 * c2 * 1e4, rel=1e-9)
    q = quote_step(p, market(), 0.0)
    assert q.half_spread_bid == pytest.approx(math.log1p(x) / (gamma * size) + 0.5 * size * 0.5 * c2, rel=1e-9)


def test_relaxation_never_exceeds_the_terminal_time() -> None:
    p = FREE._replace(horizon=RELAXATION, A_bid=1e-9, A_ask=1e-9)
    assert quote_step(p, market(), 0.0).tau_years == FREE.tau_years
    assert quote_step(p._replace(A_bid=0.0, A_ask=0.0), market(), 0.0).tau_years == FREE.tau_years
    # 1/omega is 585.6 s here: the shorter one holds on either side of it
    for tau_s, used_s in ((500.0, 500.0), (700.0, 585.5752487)):
        p = FREE._replace(horizon=RELAXATION, tau_years=tau_s / SECONDS_PER_YEAR)
        assert quote_step(p, market(), 0.0).tau_years * SECONDS_PER_YEAR == pytest.approx(used_s)


def test_fixed_horizon_runs_down_to_no_skew() -> None:
    p = FREE._replace(horizon=FIXED)
    assert quote_step(p, market(elapsed=0.25 / 365), 0.0).tau_years == pytest.approx(0.75 / 365)
    late = quote_step(p, market(elapsed=2 / 365), 5.0)
    assert late.tau_years == 0.0
    assert late.reservation == late.fair


def test_risk_neutral_maker_quotes_one_over_k() -> None:
    q = quote_step(FREE._replace(gamma=0.0, k_bid=4000.0), market(), 7.0)
    assert (q.half_spread_bid, q.half_spread_ask, q.reservation) == (1 / 4000.0, 1 / 5000.0, 50_000.0)


def test_microprice_is_the_fair_price_and_nan_means_mid() -> None:
    assert quote_step(FREE, market(micro=49_990.0), 0.0).fair == 49_990.0
    assert quote_step(FREE, market(), 0.0).fair == 50_000.0


def test_signals_act_through_their_coefficients_only() -> None:
    loud = market(ofi=0.5, kyle=0.2, short=0.8)
    assert quote_step(FREE, loud, 2.0) == quote_step(FREE, market(), 2.0)
    assert quote_step(FREE._replace(coef_ofi=1e-4), loud, 0.0).fair == pytest.approx(50_000.0 * (1 + 0.5e-4))
    wider = quote_step(FREE._replace(coef_kyle=0.5), loud, 0.0)
    assert wider.half_spread_bid - quote_step(FREE, loud, 0.0).half_spread_bid == pytest.approx(0.5 * 0.2 * 1.0 / 50_000.0)
    # variance, not volatility, is mixed: 0.75 x 0.25 + 0.25 x 0.64
    assert shift_bp(FREE._replace(coef_short_volatility=0.25), loud, 1.0) == pytest.approx(
        shift_bp(FREE._replace(sigma=math.sqrt(0.3475)), market(), 1.0)
    )
    unknown = FREE._replace(coef_ofi=1e-4, coef_kyle=0.5, coef_short_volatility=0.25)
    assert quote_step(unknown, market(), 2.0) == quote_step(FREE, market(), 2.0)


def test_costs_are_added_to_each_half_spread_before_the_bounds() -> None:
    base = quote_step(FREE, market(), 0.0)
    q = quote_step(FREE._replace(maker_fee=2e-4, adverse_selection=1e-4), market(), 0.0)
    assert q.half_spread_bid - base.half_spread_bid == pytest.approx(3e-4)
    bounded = quote_step(FREE._replace(maker_fee=2e-4, max_spread=3e-4), market(), 0.0)
    assert bounded.half_spread_bid + bounded.half_spread_ask == pytest.approx(3e-4)
    assert bounded.clamps == CLAMP_MAX_SPREAD


def test_min_spread_widens_both_sides_equally() -> None:
    q = quote_step(FREE._replace(min_spread=1e-2, max_spread=2e-2, k_bid=4000.0), market(), 0.0)
    free = quote_step(FREE._replace(k_bid=4000.0), market(), 0.0)
    assert q.clamps == CLAMP_MIN_SPREAD
    assert (q.ask - q.bid) / q.fair == pytest.approx(1e-2)
    assert q.half_spread_bid - q.half_spread_ask == pytest.approx(free.half_spread_bid - free.half_spread_ask)


def test_long_horizon_keeps_both_quotes_within_max_spread_of_fair() -> None:
    p = FREE._replace(tau_years=1.0, min_spread=1e-4, max_spread=1e-2)
    long = quote_step(p, market(), 3.0)
    assert long.clamps == CLAMP_MAX_SPREAD | CLAMP_SKEW
    assert (long.bid / 50_000.0, long.ask / 50_000.0) == (pytest.approx(0.99005), pytest.approx(1.00005))
    short = quote_step(p, market(), -3.0)
    assert (short.bid / 50_000.0, short.ask / 50_000.0) == (pytest.approx(0.99995), pytest.approx(1.00995))


def test_inventory_limits_leave_one_side() -> None:
    p = FREE._replace(max_inventory=1.0, target_inventory=0.5)
    full = quote_step(p, market(), 1.5)
    assert math.isnan(full.bid)
    assert full.ask > 0.0
    assert full.clamps == CLAMP_INVENTORY_BID
    assert indicative_prices(full)[0] < full.ask
    assert quote_step(p, market(), -0.5).clamps == CLAMP_INVENTORY_ASK
    assert quote_step(p, market(), 1.4).clamps == 0
    # ten lots of 0.1 sum to 0.9999999999999999 and are the limit all the same
    assert quote_step(p._replace(target_inventory=0.0), market(), sum([0.1] * 10)).clamps == CLAMP_INVENTORY_BID


@pytest.mark.parametrize(
    ("p", "m", "inventory", "status"),
    [
        (FREE, market(mid=math.nan), 0.0, BAD_MID),
        (FREE, market(mid=-1.0), 0.0, BAD_MID),
        (FREE, market(mid=math.inf), 0.0, BAD_MID),
        (FREE._replace(sigma=math.nan), market(), 0.0, BAD_SIGMA),
        (FREE._replace(sigma=-0.1), market(), 0.0, BAD_SIGMA),
        (FREE, market(), math.nan, BAD_INVENTORY),
        (FREE._replace(gamma=-1.0), market(), 0.0, BAD_PARAMETERS),
        (FREE._replace(k_ask=0.0), market(), 0.0, BAD_PARAMETERS),
        (FREE._replace(min_spread=0.2, max_spread=0.1), market(), 0.0, BAD_PARAMETERS),
    ],
)
def test_nothing_is_quoted_outside_the_domain(p: QuoteParams, m: Market, inventory: float, status: int) -> None:
    q = quote_step(p, m, inventory)
    assert q.status == status
    assert math.isnan(q.bid)
    assert math.isnan(q.ask)
    assert round_step(q, 0.1, 10, 11) == (0, 0, 0)
    assert quote_step.compiled(p, m, inventory).status == status


def quote_at(bid: float, ask: float) -> object:
    return quote_step(FREE, market(), 0.0)._replace(bid=bid, ask=ask)


@pytest.mark.parametrize(
    ("bid", "ask", "touch", "expected"),
    [
        (49_999.97, 50_000.53, (0, 0), (499_999, 500_006, ROUNDED_BID | ROUNDED_ASK)),
        # products of floats such as 0.1 x 499999 lie beside their grid point and stay on it
        (0.1 * 499_999, 0.1 * 500_003, (0, 0), (499_999, 500_003, 0)),
        (49_999.9 + 1e-9, 50_000.3 - 1e-9, (0, 0), (499_999, 500_003, 0)),
        (50_001.0, 50_002.0, (499_990, 500_003), (500_002, 500_020, POST_ONLY_BID)),
        (49_990.0, 49_998.0, (499_990, 500_003), (499_900, 499_991, POST_ONLY_ASK)),
        # between the best quotes any grid point is passive
        (49_999.2, 50_000.2, (499_990, 500_003), (499_992, 500_002, 0)),
        (50_000.3, 50_001.0, (499_990, 500_003), (500_002, 500_010, POST_ONLY_BID)),
        (math.nan, 50_001.0, (499_990, 500_003), (0, 500_010, 0)),
        (0.05, 50_001.0, (0, 0), (0, 500_010, ROUNDED_BID)),
        (50_000.0, 50_000.0, (0, 0), (499_999, 500_000, 0)),
    ],
)
def test_post_only_then_rounding_away_from_the_other_side(bid: float, ask: float, touch: tuple[int, int], expected: tuple[int, int, int]) -> None:
    q = quote_at(bid, ask)
    assert round_step(q, 0.1, *touch) == expected
    assert round_step.compiled(q, 0.1, *touch) == expected


def test_without_a_touch_quotes_stay_on_their_side_of_the_mid() -> None:
    assert rest_at_mid(101.0, 102.0, 100.0) == (100.0, 102.0, POST_ONLY_BID)
    assert rest_at_mid(98.0, 99.0, 100.0) == (98.0, 100.0, POST_ONLY_ASK)
    assert rest_at_mid(99.0, 101.0, 100.0) == (99.0, 101.0, 0)


def test_every_clamp_is_one_bit_with_a_name() -> None:
    assert list(CLAMP_NAMES) == sorted(CLAMP_NAMES, key=lambda bit: bit)
    assert all(bit & (bit - 1) == 0 and bit < 1 << 16 for bit in CLAMP_NAMES)
    assert len(set(CLAMP_NAMES.values())) == len(CLAMP_NAMES)


def test_twins_agree_bit_for_bit() -> None:
    rng = np.random.default_rng(5)
    for horizon in (FIXED, ROLLING, RELAXATION):
        for _ in range(300):
            u = rng.random(16)
            p = FREE._replace(
                gamma=float(10 ** (4 * u[0] - 3)),
                sigma=float(u[1]),
                tau_years=float(10 ** (-5 * u[2])),
                horizon=horizon,
                A_bid=float(10 ** (-3 * u[3])),
                k_ask=float(10 ** (1 + 4 * u[4])),
                order_units=float(0.1 + u[5]),
                max_inventory=float(10 * u[6]),
                min_spread=float(1e-4 * u[7]),
                max_spread=float(2e-4 + 1e-2 * u[8]),
                maker_fee=float(4e-4 * (u[9] - 0.5)),
                coef_ofi=float(1e-4 * u[10]),
                coef_kyle=float(u[11]),
                coef_short_volatility=float(u[12]),
            )
            m = market(float(10 ** (8 * u[13] - 4)), math.nan, float(2 * u[14] - 1), float(u[15]), float(u[0]), float(1e-3 * u[1]))
            inventory = float(20 * (rng.random() - 0.5))
            plain, fast = quote_step(p, m, inventory), quote_step.compiled(p, m, inventory)
            assert plain.status == OK
            np.testing.assert_array_equal(np.array(plain), np.array(fast))
            assert round_step(plain, 1e-5, 0, 0) == round_step.compiled(fast, 1e-5, 0, 0)
