"""The ledger's identities (THEORY section 9), exactly."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.accounting import (
    FEES,
    FUNDING,
    HEDGE,
    INVENTORY,
    LEDGER_SIZE,
    POSITION,
    SPREAD,
    Money,
    attribution,
    identity_residual_quanta,
    ledger_equity_quote,
    ledger_fill,
    ledger_funding,
    ledger_mark,
    markouts_path,
    money_of,
    new_ledger,
)

SPEC = InstrumentSpec(instrument="sim:BTC-USDT-PERP", tick_size="0.01", lot_size="1", contract="linear", maker_fee=0.0, taker_fee=0.0)


def test_the_sheets_vector() -> None:
    """Start mid 100: two buys and a sell as maker, funding, a hedge; spread .04, hedge -.02, inventory .01, funding -.01, q = 0."""
    ledger, money = new_ledger(), Money(1.0, 0.01, 0.0, 0.0)
    ledger_mark(ledger, 20_000)
    ledger_fill(ledger, money, 1, 9_999, 2, 1, 20_000)
    ledger_mark(ledger, 19_996)
    ledger_fill(ledger, money, -1, 10_000, 1, 1, 19_996)
    ledger_funding(ledger, money, 1e-4, 100.0)
    ledger_mark(ledger, 20_006)
    ledger_fill(ledger, money, -1, 10_001, 1, 0, 20_006)
    ledger_mark(ledger, 20_010)
    parts = attribution(ledger, SPEC)
    assert (parts.spread_pnl, parts.hedge_pnl, parts.inventory_pnl, parts.funding) == (0.04, -0.02, 0.01, -0.01)
    assert ledger[POSITION] == 0
    assert parts.residual_quanta == 0
    # the sheet's fees of .08 are lump sums; with them the total is -.06
    assert parts.total_pnl - 0.08 == pytest.approx(-0.06, abs=1e-15)


def test_fees_are_rounded_once_per_fill_and_rebates_are_negative() -> None:
    ledger, money = new_ledger(), Money(0.001, 0.1, -0.0001, 0.0005)
    ledger_fill(ledger, money, 1, 640_000, 10, 1, 1_280_001)
    assert ledger[FEES] == -round(Decimal("64000") * Decimal("0.01") * Decimal("0.0001") * 10**9)
    ledger_fill(ledger, money, -1, 640_000, 10, 0, 1_280_001)
    assert ledger[FEES] == round(Decimal("640") * Decimal("0.0004") * 10**9)


fills = st.lists(
    st.tuples(
        st.sampled_from([1, -1]), st.integers(1, 10_000), st.integers(1, 50), st.sampled_from([0, 1]), st.integers(2, 20_000), st.integers(-5, 5)
    ),
    max_size=60,
)


@given(fills)
def test_parts_sum_to_an_independent_total(tape: list[tuple[int, int, int, int, int, int]]) -> None:
    """Cash plus marked position, kept apart from the attribution, equals its parts in integers."""
    ledger, money = new_ledger(), Money(1.0, 0.01, 0.0002, 0.0005)
    for side, price, lots, maker, mid_half, rate in tape:
        ledger_fill(ledger, money, side, price, lots, maker, mid_half)
        ledger_funding(ledger, money, rate * 1e-4, price * 0.01)
    assert identity_residual_quanta(ledger) == 0
    parts = attribution(ledger, SPEC)
    named = (parts.spread_pnl, parts.hedge_pnl, parts.inventory_pnl, -parts.fees, parts.funding)
    assert math.fsum(named) == parts.total_pnl
    assert ledger_equity_quote(ledger, money) == pytest.approx(parts.total_pnl, abs=1e-6)


@given(fills)
def test_twins_agree(tape: list[tuple[int, int, int, int, int, int]]) -> None:
    money = Money(0.001, 0.1, 0.0002, 0.0005)
    one, two = new_ledger(), new_ledger()
    for side, price, lots, maker, mid_half, rate in tape:
        assert ledger_fill(one, money, side, price, lots, maker, mid_half) == ledger_fill.compiled(two, money, side, price, lots, maker, mid_half)
        assert ledger_funding(one, money, rate * 1e-4, price * 0.1) == ledger_funding.compiled(two, money, rate * 1e-4, price * 0.1)
    assert one.tobytes() == two.tobytes()


def test_inventory_is_earned_between_marks_only() -> None:
    ledger, money = new_ledger(), Money(1.0, 1.0, 0.0, 0.0)
    ledger_fill(ledger, money, 1, 100, 3, 1, 200)
    assert (ledger[SPREAD], ledger[HEDGE], ledger[INVENTORY]) == (0, 0, 0)
    ledger_mark(ledger, 204)
    assert ledger[INVENTORY] == 12
    assert ledger[FUNDING] == 0
    assert len(ledger) == LEDGER_SIZE


def test_markouts_use_the_mid_at_or_before_the_horizon_and_say_nothing_beyond_the_tape() -> None:
    mid_ts = np.array([0, 10, 20, 30], dtype=np.int64)
    mid = np.array([200, 202, 198, 210], dtype=np.int64)
    fill_ts = np.array([0, 5, 25], dtype=np.int64)
    side = np.array([1, -1, 1], dtype=np.int64)
    at_fill = np.array([200, 200, 198], dtype=np.int64)
    out = np.empty(3)
    markouts_path(fill_ts, side, mid_ts, mid, at_fill, 19, out)
    assert out[0] == pytest.approx(2 / 200)
    assert out[1] == pytest.approx(2 / 200)  # 24 is after 20: mid 198, and we sold
    assert math.isnan(out[2])
    compiled = np.empty(3)
    markouts_path.compiled(fill_ts, side, mid_ts, mid, at_fill, 19, compiled)
    assert np.array_equal(out, compiled, equal_nan=True)


def test_money_of_an_instrument_takes_its_fees_unless_told() -> None:
    assert money_of(SPEC) == Money(1.0, 0.01, 0.0, 0.0)
    assert money_of(SPEC, maker_fee=-0.0001).maker_fee == -0.0001
