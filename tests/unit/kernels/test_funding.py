"""Funding arithmetic against THEORY section 6, both twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.kernels import funding as f

RATES = st.floats(-0.05, 0.05)


def both(kernel, *args):
    """The Python result, after checking that the compiled twin gives the same bits."""
    python, compiled = kernel(*args), kernel.compiled(*args)
    assert python == compiled or (math.isnan(python) and math.isnan(compiled))
    return python


@pytest.mark.parametrize(
    ("rate", "hours", "apr", "apy"),
    [
        (0.0005, 8.0, 0.5475, 0.7286887456140088),
        (0.0001, 8.0, 0.1095, 0.115714),
        (0.0000125, 1.0, 0.1095, 0.115719),
        (0.0001, 4.0, 0.219, 0.244818),
        (0.0001, 1.0, 0.876, 1.40117),
    ],
)
def test_annualisation(rate: float, hours: float, apr: float, apy: float) -> None:
    assert both(f.apr_step, rate, hours) == pytest.approx(apr, rel=1e-12)
    assert both(f.apy_step, rate, hours) == pytest.approx(apy, rel=3e-6)


def test_apy_agrees_with_the_reference_to_its_last_digits() -> None:
    assert f.apy_step(0.0005, 8.0) == pytest.approx(0.7286887456140088, rel=1e-12)


@pytest.mark.parametrize(("premium", "rate"), [(0.0002, 0.0001), (0.0008, 0.0003), (-0.001, -0.0005), (0.0006, 0.0001), (-0.0004, 0.0001)])
def test_eight_hour_rate(premium: float, rate: float) -> None:
    assert both(f.funding_rate_8h, premium, f.INTEREST_8H, f.CLAMP_8H) == pytest.approx(rate, abs=1e-18)


@given(st.floats(-0.0004, 0.0006))
def test_the_rate_is_the_interest_while_the_premium_is_small(premium: float) -> None:
    assert f.funding_rate_8h(premium, f.INTEREST_8H, f.CLAMP_8H) == pytest.approx(0.0001, abs=1e-18)


def test_rate_per_interval_divides_and_caps() -> None:
    assert both(f.funding_rate_step, 0.001, f.FundingRule(interval_h=1.0)) == pytest.approx(0.0000625, rel=1e-12)  # OKX's example
    assert both(f.funding_rate_step, 0.01, f.FundingRule(interval_h=1.0, floor=-0.04, cap=0.04)) == pytest.approx(
        0.0011875, rel=1e-12
    )  # Hyperliquid's
    assert both(f.funding_rate_step, 5.0, f.FundingRule(interval_h=1.0, floor=-0.04, cap=0.04)) == 0.04
    assert both(f.funding_rate_step, -5.0, f.FundingRule(interval_h=1.0, floor=-0.04, cap=0.04)) == -0.04


@pytest.mark.parametrize(("bid", "ask", "premium"), [(50040.0, 50060.0, 0.0008), (49960.0, 49980.0, -0.0004), (49990.0, 50010.0, 0.0)])
def test_premium_index(bid: float, ask: float, premium: float) -> None:
    assert both(f.premium_index, bid, ask, 50000.0) == pytest.approx(premium, abs=1e-18)


def test_weighted_premium() -> None:
    samples = np.array([0.0, 1e-4, 3e-4, 2e-4])
    assert both(f.weighted_premium, samples, True) == pytest.approx(1.9e-4, rel=1e-12)
    assert both(f.weighted_premium, samples, False) == pytest.approx(1.5e-4, rel=1e-12)
    assert math.isnan(both(f.weighted_premium, np.empty(0), True))


def test_predicted_premium_carries_the_last_sample_forward() -> None:
    so_far = np.concatenate([np.full(180, 2e-4), np.full(60, 6e-4)])
    assert both(f.weighted_premium, so_far, True) == pytest.approx(3.74689e-4, rel=1e-5)
    projected = both(f.projected_premium, so_far, 480, True)
    assert projected == pytest.approx(5.43555e-4, rel=1e-5)
    assert f.funding_rate_step(projected, f.FundingRule()) == pytest.approx(1e-4, rel=1e-12)
    whole = np.full(480, 3e-4)
    assert both(f.projected_premium, whole, 480, True) == pytest.approx(f.weighted_premium(whole, True), rel=1e-15)
    assert math.isnan(both(f.projected_premium, np.empty(0), 480, True))


def test_payments() -> None:
    # Hyperliquid's example: long 10 BTC at an oracle price of 10,000
    assert both(f.funding_payment, 1.0, 10.0, 10_000.0, 0.0011875) == pytest.approx(-118.75, rel=1e-12)
    # KuCoin's inverse example
    assert both(f.inverse_funding_payment, -1.0, 10_000.0, 5_000.0, 0.00025) == pytest.approx(0.0005, rel=1e-12)


@given(RATES, st.floats(0.001, 100.0), st.floats(0.01, 1e5))
def test_funding_only_moves_money(rate: float, qty: float, price: float) -> None:
    assert f.funding_payment(1.0, qty, price, rate) == -f.funding_payment(-1.0, qty, price, rate)
    assert f.funding_payment(-1.0, qty, price, rate) * rate >= 0.0  # a positive rate pays shorts


def test_break_even_and_net_apr() -> None:
    cost = 2 * (0.0010 + 0.0005 + 0.0001 + 0.0001)
    assert both(f.break_even_settlements, cost, 0.0005) == pytest.approx(6.8, rel=1e-12)
    assert both(f.break_even_settlements, cost, 0.0) == math.inf
    assert both(f.break_even_settlements, cost, -0.0005) == math.inf
    for days, on_notional, on_capital in ((3, 0.134, 0.112), (7, 0.370, 0.309), (30, 0.506, 0.422)):
        net = both(f.net_apr_step, 0.0005, 8.0, cost, days * 24.0)
        assert net == pytest.approx(on_notional, abs=5e-4)
        assert net / 1.2 == pytest.approx(on_capital, abs=5e-4)


@pytest.mark.parametrize(("held", "interval", "stamps"), [(7.99, 8.0, 0), (8.0, 8.0, 1), (15.9, 8.0, 1), (168.0, 8.0, 21), (24.0, 1.0, 24)])
def test_only_whole_intervals_are_paid(held: float, interval: float, stamps: int) -> None:
    assert both(f.settlements_within, held, interval) == stamps


def test_cross_venue_spread_per_day() -> None:
    per_day = both(f.spread_per_day, 3e-4, 8.0, 2e-5, 1.0)
    assert per_day == pytest.approx(4.2e-4, rel=1e-12)
    assert per_day * 365 == pytest.approx(0.1533, rel=1e-12)


def test_liquidation_prices_and_touch_probability() -> None:
    short = both(f.liquidation_price, -1.0, 50_000.0, 1.0, 10_000.0, 0.005)
    assert short == pytest.approx(59701.4925, abs=5e-5)
    assert both(f.liquidation_price, 1.0, 50_000.0, 1.0, 10_000.0, 0.005) == pytest.approx(40201.0050, abs=5e-5)
    assert both(f.liquidation_price, 1.0, 50_000.0, 1.0, 60_000.0, 0.005) == 0.0
    assert both(f.touch_probability, 50_000.0, short, 0.5, 30 * 86400.0) == pytest.approx(0.2160, abs=5e-5)
    assert both(f.touch_probability, 50_000.0, short, 0.0, 30 * 86400.0) == 0.0


@given(RATES, st.sampled_from([1.0, 2.0, 4.0, 8.0]))
def test_rates_compare_on_eight_hours(rate: float, hours: float) -> None:
    assert both(f.apr_step, both(f.rate_8h_step, rate, hours), 8.0) == pytest.approx(f.apr_step(rate, hours), rel=1e-12, abs=1e-300)
