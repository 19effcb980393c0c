"""The funding door: the guide's numbers, every bound from both sides, money in and out."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError
from mm_platform.funding_arbitrage import CarryCost, FundingArbitrage, FundingRate

HOUR_NS = 3_600_000_000_000
FREE = CarryCost(spot_fee=0.0, perp_fee=0.0, spot_half_spread=0.0, perp_half_spread=0.0, spot_borrow_apr=0.0)


def door(**kwargs) -> FundingArbitrage:
    return FundingArbitrage(**({"clock": lambda: 1_000} | kwargs))


def test_the_guides_example() -> None:
    arb = door(min_funding_rate=0.0001, min_apr_threshold=0.05, max_basis_risk=0.002)
    opp = arb.evaluate_perp_spot_opportunity(perp_price=50100.0, spot_price=50000.0, funding_rate=0.0005, predicted_funding=0.0004)
    assert opp is not None
    assert arb.last_refusal is None
    assert opp.direction == "long_spot_short_perp"
    assert opp.basis_frac == 0.002  # on the bound, which is inclusive
    assert opp["apr"] == opp.apr == pytest.approx(0.5475)
    assert opp.expected_rate == 0.0004
    assert opp.cost_frac == pytest.approx(0.0034)
    assert opp.break_even_settlements == 9  # 34 bp at 4 bp each is 8.5
    assert opp.break_even_hours == 72.0
    assert opp.net_apr == pytest.approx((21 * 0.0004 - 0.0034) * 8760 / 168)
    assert opp.evaluated_at_ns == 1_000
    assert arb.open_position(opp, position_size=10000.0) == "FA-000001"


@pytest.mark.parametrize(("hours", "apr"), [(None, 0.5475), (4.0, 1.095), (1.0, 4.38)])
def test_apr_of_a_rate(hours: float | None, apr: float) -> None:
    assert door().calculate_funding_apr(0.0005, hours) == pytest.approx(apr)


def test_a_rate_that_knows_its_interval_is_annualised_by_it() -> None:
    rate = FundingRate(0.0005, interval_hours=4.0)
    assert door().calculate_funding_apr(rate) == pytest.approx(1.095)
    assert door().calculate_funding_apr(rate, 8.0) == pytest.approx(0.5475)
    opp = door().evaluate_perp_spot_opportunity(100.0, 100.0, rate)
    assert opp is not None
    assert opp.interval_hours == 4.0
    again = pickle.loads(pickle.dumps(FundingRate(0.0002, 4.0, 7, False, 9.0)))
    assert (again, again.interval_hours, again.stamp_ns, again.is_predicted, again.mark_price) == (0.0002, 4.0, 7, False, 9.0)


def test_without_prediction_seven_settlements_pay_thirty_four_basis_points() -> None:
    opp = door().evaluate_perp_spot_opportunity(50000.0, 50000.0, 0.0005)
    assert opp is not None
    assert opp.break_even_settlements == 7
    assert opp.break_even_hours == 56.0
    assert opp.net_apr == pytest.approx(0.370, abs=5e-4)


@pytest.mark.parametrize(
    ("bounds", "market", "code"),
    [
        ({"max_basis_risk": 0.002}, (50100.1, 50000.0, 0.0005), "basis"),
        ({"max_basis_risk": 0.002}, (49899.9, 50000.0, 0.0005), "basis"),
        ({"min_funding_rate": 0.0005}, (100.0, 100.0, 0.000499), "rate"),
        ({"min_funding_rate": 0.0}, (100.0, 100.0, 0.0), "rate"),
        ({}, (100.0, 100.0, 0.0001), "net_apr"),
        ({}, (100.0, 100.0, 0.0005, -0.0005), "predicted_sign"),
        ({"min_funding_rate": 0.0002}, (100.0, 100.0, 0.0005, 0.0001), "rate"),
    ],
)
def test_refusals_say_why(bounds: dict, market: tuple, code: str) -> None:
    arb = door(**bounds)
    assert arb.evaluate_perp_spot_opportunity(*market) is None
    assert arb.last_refusal is not None
    assert arb.last_refusal.code == code
    assert any(character.isdigit() for character in arb.last_refusal.reason)


def test_bounds_are_inclusive() -> None:
    arb = door(min_funding_rate=0.0005, min_apr_threshold=0.0, max_basis_risk=0.01, cost=FREE)
    assert arb.evaluate_perp_spot_opportunity(101.0, 100.0, 0.0005) is not None
    assert arb.evaluate_perp_spot_opportunity(99.0, 100.0, -0.0005) is not None


def test_costs_decide_not_the_raw_rate() -> None:
    market = (100.0, 100.0, 0.0002)
    assert door(cost=FREE).evaluate_perp_spot_opportunity(*market) is not None
    dear = door(cost=CarryCost(spot_fee=0.002, perp_fee=0.001))
    assert dear.evaluate_perp_spot_opportunity(*market) is None
    assert dear.last_refusal is not None
    assert dear.last_refusal.code == "net_apr"


def test_a_negative_rate_turns_the_trade_and_pays_for_the_borrow() -> None:
    arb = door()
    opp = arb.evaluate_perp_spot_opportunity(100.0, 100.0, -0.0005)
    assert opp is not None
    assert opp.direction == "short_spot_long_perp"
    assert opp.cost_frac == pytest.approx(0.0034 + 0.05 * 168 / 8760)
    positive = arb.evaluate_perp_spot_opportunity(100.0, 100.0, 0.0005)
    assert positive is not None
    assert opp.net_apr == pytest.approx(positive.net_apr - 0.05)
    assert door(cost=CarryCost(spot_borrow_apr=0.6)).assess(100.0, 100.0, -0.0005)[0].break_even_settlements is None


@given(st.floats(0.99, 1.01), st.floats(-0.003, 0.003), st.floats(-0.003, 0.003))
def test_an_opportunity_passes_every_bound_and_a_refusal_fails_one(ratio: float, rate: float, predicted: float) -> None:
    arb = door()
    opp, refusal = arb.assess(100.0 * ratio, 100.0, rate, predicted)
    passes = (
        abs(opp.basis_frac) <= arb.max_basis_risk
        and rate * predicted >= 0.0
        and min(abs(rate), abs(predicted)) >= arb.min_funding_rate
        and opp.net_apr >= arb.min_apr_threshold
    )
    assert (refusal is None) == passes
    assert (arb.evaluate_perp_spot_opportunity(100.0 * ratio, 100.0, rate, predicted) is not None) == passes


def test_a_position_from_open_to_close() -> None:
    arb = door()
    opp = arb.evaluate_perp_spot_opportunity(50100.0, 50000.0, 0.0005)
    assert opp is not None
    pos = arb.open_position(opp, 10_000.0, now_ns=0)
    assert arb.apply_funding(pos, 0.0005, 50_000.0, 8 * HOUR_NS) == pytest.approx(0.2 * 50_000 * 0.0005)
    assert arb.apply_funding(pos, 0.0005, 50_000.0, 8 * HOUR_NS) == 0.0  # the same stamp again
    assert arb.apply_funding(pos, -0.0001, 50_000.0, 16 * HOUR_NS) == pytest.approx(-1.0)
    (held,) = arb.get_positions()
    assert (held.position_id, held.qty, held.settlements, held.funding_received) == (pos, 0.2, 2, pytest.approx(4.0))
    closed = arb.close_position(pos, perp_price=51_000.0, spot_price=51_000.0)
    assert closed.basis_pnl == pytest.approx(0.2 * 100.0)  # short the perp 100 above spot, out at no basis
    assert closed.costs == pytest.approx(0.2 * (0.0006 * (50_100 + 51_000) + 0.0011 * (50_000 + 51_000)))
    assert closed.total_pnl == pytest.approx(closed.basis_pnl + 4.0 - closed.costs)
    assert arb.get_positions() == ()
    with pytest.raises(ConfigError, match="no open position"):
        arb.close_position(pos, 1.0, 1.0)


def test_only_stamps_held_are_paid() -> None:
    arb = door(cost=FREE)
    opp = arb.evaluate_perp_spot_opportunity(100.0, 100.0, 0.001)
    assert opp is not None
    pos = arb.open_position(opp, 100.0, now_ns=10)
    assert arb.apply_funding(pos, 0.001, 100.0, 9) == 0.0
    assert arb.apply_funding(pos, 0.001, 100.0, 10) == pytest.approx(0.1)


def test_a_short_spot_leg_pays_interest_by_the_hour() -> None:
    arb = door(cost=CarryCost(0.0, 0.0, 0.0, 0.0, spot_borrow_apr=0.0876))
    opp = arb.evaluate_perp_spot_opportunity(100.0, 100.0, -0.001)
    assert opp is not None
    pos = arb.open_position(opp, 1_000.0, now_ns=0)
    assert arb.close_position(pos, 100.0, 100.0, now_ns=100 * HOUR_NS).costs == pytest.approx(1_000.0 * 0.0876 * 100 / 8760)


def test_ids_count_per_object() -> None:
    arb = door()
    opp = arb.evaluate_perp_spot_opportunity(100.0, 100.0, 0.0005)
    assert opp is not None
    assert [arb.open_position(opp, 1.0) for _ in range(3)] == ["FA-000001", "FA-000002", "FA-000003"]
    assert door().open_position(opp, 1.0) == "FA-000001"


def test_dict_style_reading() -> None:
    opp = door().evaluate_perp_spot_opportunity(100.0, 100.0, 0.0005)
    assert opp is not None
    assert dict(opp)["net_apr"] == opp.net_apr
    with pytest.raises(KeyError, match="it has direction"):
        opp["nothing"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: door(min_funding_rate=-0.1),
        lambda: door(interval_hours=0.0),
        lambda: door(max_basis_risk=math.nan),
        lambda: door(holding_hours=4.0),
        lambda: door(cost=CarryCost(spot_half_spread=-0.1)),
        lambda: door().evaluate_perp_spot_opportunity(0.0, 100.0, 0.0005),
        lambda: door().evaluate_perp_spot_opportunity(100.0, math.nan, 0.0005),
        lambda: door().evaluate_perp_spot_opportunity(100.0, 100.0, math.inf),
        lambda: door().calculate_funding_apr(math.nan),
        lambda: door().calculate_funding_apr(0.0001, 0.0),
        lambda: door().open_position(None, 1.0),
    ],
)
def test_wrong_arguments_are_refused(call) -> None:
    with pytest.raises(ConfigError, match=r"expected|wants|shorter"):
        call()


def test_percent_instead_of_fractions_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="5 % per year is 0.05"):
        door(min_apr_threshold=5.0)
