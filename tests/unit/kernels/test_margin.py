"""Margin: the sheet's numbers, the definition of liquidation, both contracts, both twins."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError
from mm_platform.kernels.accounting import ledger_fill, ledger_mark, new_ledger
from mm_platform.kernels.margin import BELOW_INITIAL, ENOUGH, LIQUIDATED, ledger_margin, liquidation_price, margin_params, margin_step
from mm_platform.kernels.money import Money

LINEAR = Money(0.001, 0.1, 0.0, 0.0)
INVERSE = Money(0.0, 0.1, 0.0, 0.0, 100.0, 1e-12)
FIVE = margin_params(10_000.0, 5.0, 0.005)


@pytest.mark.parametrize(("lots", "price", "move"), [(-1000, 59_701.4925, 0.19403), (1000, 40_201.0050, 0.19598)])
def test_the_sheets_linear_example(lots: int, price: float, move: float) -> None:
    """1 BTC at 50,000 on 10,000 of margin, maintenance 0.5 %."""
    margin = margin_step(FIVE, LINEAR, lots, 10_000.0, 50_000.0)
    assert margin.liquidation_price == pytest.approx(price, abs=5e-5)
    assert margin.distance_frac == pytest.approx(move, abs=5e-6)
    assert (margin.initial, margin.maintenance, margin.status) == (10_000.0, 250.0, ENOUGH)
    assert margin_step(FIVE, LINEAR, lots, 9_999.0, 50_000.0).status == BELOW_INITIAL
    assert margin_step(FIVE, LINEAR, lots, 250.0, 50_000.0).status == LIQUIDATED


def test_an_inverse_long_is_liquidated_and_a_covered_short_never() -> None:
    """500 contracts of 100 USD at 50,000 are 1 BTC. A long on 0.2 BTC: 0.2 + 1 = 50,000 (1 + m) / x. A short on 1 BTC of its own owes dollars it has."""
    long = margin_step(FIVE, INVERSE, 500, 0.2, 50_000.0)
    assert long.liquidation_price == pytest.approx(50_000.0 * 1.005 / 1.2)
    assert (long.initial, long.maintenance) == (pytest.approx(0.2), pytest.approx(0.005))
    short = margin_step(FIVE, INVERSE, -500, 0.2, 50_000.0)
    assert short.liquidation_price == pytest.approx(50_000.0 * 0.995 / 0.8)
    covered = margin_step(FIVE, INVERSE, -500, 1.0, 50_000.0)
    assert math.isnan(covered.liquidation_price)
    assert (covered.distance_frac, covered.status) == (math.inf, ENOUGH)


def test_a_linear_long_that_is_paid_in_full_is_never_liquidated() -> None:
    margin = margin_step(FIVE, LINEAR, 1000, 50_000.0, 50_000.0)
    assert math.isnan(margin.liquidation_price)
    assert margin.distance_frac == math.inf


@given(
    inverse=st.booleans(),
    lots=st.integers(-2000, 2000).filter(bool),
    price=st.floats(1_000.0, 100_000.0),
    cushion=st.floats(0.006, 3.0),
    rate=st.floats(0.0, 0.05),
)
def test_at_the_liquidation_price_equity_is_the_maintenance_requirement(inverse: bool, lots: int, price: float, cushion: float, rate: float) -> None:
    """The definition, from the profit formulas of the two contracts and nothing else."""
    money = INVERSE if inverse else LINEAR
    size = abs(lots) * (money.lot_quote / price if inverse else money.lot_base * price)
    equity = size * (rate + cushion)
    at = liquidation_price(money, rate, lots, equity, price)
    assert at == pytest.approx(liquidation_price.compiled(money, rate, lots, equity, price), nan_ok=True, abs=0.0, rel=0.0)
    if math.isnan(at):
        assert cushion + rate >= 1.0 - rate - 1e-9
        return
    if inverse:
        left = equity + lots * money.lot_quote * (1.0 / price - 1.0 / at)
        needed = rate * abs(lots) * money.lot_quote / at
    else:
        left = equity + lots * money.lot_base * (at - price)
        needed = rate * abs(lots) * money.lot_base * at
    assert left == pytest.approx(needed, abs=1e-9 * (size + equity) * max(1.0, at / price))
    assert (price - at) * lots > 0.0
    assert margin_step(FIVE._replace(maintenance_frac=rate), money, lots, equity, price) == margin_step.compiled(
        FIVE._replace(maintenance_frac=rate), money, lots, equity, price
    )


@given(
    inverse=st.booleans(), lots=st.integers(-2000, 2000), price=st.floats(1_000.0, 100_000.0), equity=st.floats(-2.0, 2.0), rate=st.floats(0.0, 0.05)
)
def test_status_and_distance_tell_the_same(inverse: bool, lots: int, price: float, equity: float, rate: float) -> None:
    money = INVERSE if inverse else LINEAR
    scale = abs(lots) * (money.lot_quote / price if inverse else money.lot_base * price) or 1.0
    margin = margin_step(FIVE._replace(maintenance_frac=rate), money, lots, equity * scale, price)
    assert (margin.status == LIQUIDATED) == (margin.distance_frac <= 0.0) or margin.distance_frac == pytest.approx(0.0, abs=1e-12)
    assert (margin.status == LIQUIDATED) == (lots != 0 and margin.equity <= margin.maintenance)


def test_the_account_of_a_ledger() -> None:
    ledger = new_ledger()
    flat = ledger_margin(FIVE, LINEAR, ledger)
    assert (flat.equity, flat.maintenance, flat.distance_frac, flat.status) == (10_000.0, 0.0, math.inf, ENOUGH)
    ledger_fill(ledger, LINEAR, 1, 500_000, 1000, 1, 1_000_000)
    ledger_mark(ledger, LINEAR, 900_000)
    margin = ledger_margin(FIVE, LINEAR, ledger)
    assert margin.equity == pytest.approx(5_000.0)
    assert margin.liquidation_price == pytest.approx(40_201.0050, abs=5e-5)
    assert margin.status == BELOW_INITIAL
    ledger_mark(ledger, LINEAR, 804_000)
    assert ledger_margin(FIVE, LINEAR, ledger).status == LIQUIDATED


@pytest.mark.parametrize("wrong", [(0.0, 5.0, 0.005), (1.0, 0.0, 0.005), (1.0, 5.0, 1.0), (1.0, 5.0, -0.1), (1.0, 20.0, 0.06), (math.nan, 5.0, 0.0)])
def test_wrong_parameters_are_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        margin_params(*wrong)
