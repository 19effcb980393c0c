"""The ledger's identities (THEORY section 9), exactly."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.accounting import (
    FEES,
    FUNDING,
    HEDGE,
    INVENTORY,
    LEDGER_SIZE,
    POSITION,
    SPREAD,
    TRAILING_VOLUME,
    Attribution,
    FeeTiers,
    attribution,
    fee_tiers,
    identity_residual_quanta,
    in_quote,
    ledger_equity,
    ledger_equity_quote,
    ledger_fill,
    ledger_funding,
    ledger_mark,
    markouts_path,
    money_at,
    money_of,
    new_ledger,
    quantum_of,
    worth_path,
)
from mm_platform.kernels.money import Money, lots_to_base, notional_quote, worth_quanta

SPEC = InstrumentSpec(instrument="sim:BTC-USDT-PERP", tick_size="0.01", lot_size="1", contract="linear", maker_fee=0.0, taker_fee=0.0)


def test_the_sheets_vector() -> None:
    """Start mid 100: two buys and a sell as maker, funding, a hedge; spread .04, hedge -.02, inventory .01, funding -.01, q = 0."""
    ledger, money = new_ledger(), Money(1.0, 0.01, 0.0, 0.0)
    ledger_mark(ledger, money, 20_000)
    ledger_fill(ledger, money, 1, 9_999, 2, 1, 20_000)
    ledger_mark(ledger, money, 19_996)
    ledger_fill(ledger, money, -1, 10_000, 1, 1, 19_996)
    ledger_funding(ledger, money, 1e-4, 100.0)
    ledger_mark(ledger, money, 20_006)
    ledger_fill(ledger, money, -1, 10_001, 1, 0, 20_006)
    ledger_mark(ledger, money, 20_010)
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


@pytest.mark.parametrize("money", [Money(0.001, 0.1, 0.0002, 0.0005), Money(0.0, 0.1, -0.0002, 0.0005, 100.0, 1e-12)], ids=["linear", "inverse"])
@given(tape=fills)
def test_twins_agree(money: Money, tape: list[tuple[int, int, int, int, int, int]]) -> None:
    one, two = new_ledger(), new_ledger()
    for side, price, lots, maker, mid_half, rate in tape:
        assert ledger_fill(one, money, side, price, lots, maker, mid_half) == ledger_fill.compiled(two, money, side, price, lots, maker, mid_half)
        assert ledger_funding(one, money, rate * 1e-4, price * 0.1) == ledger_funding.compiled(two, money, rate * 1e-4, price * 0.1)
        assert ledger_equity_quote(one, money) == ledger_equity_quote.compiled(two, money)
    assert one.tobytes() == two.tobytes()


def test_inventory_is_earned_between_marks_only() -> None:
    ledger, money = new_ledger(), Money(1.0, 1.0, 0.0, 0.0)
    ledger_fill(ledger, money, 1, 100, 3, 1, 200)
    assert (ledger[SPREAD], ledger[HEDGE], ledger[INVENTORY]) == (0, 0, 0)
    ledger_mark(ledger, money, 204)
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


# -- inverse contracts -------------------------------------------------------------------------------------------------------------------

INVERSE = InstrumentSpec(
    instrument="sim:BTC-USD-PERP", tick_size="0.1", lot_size="1", multiplier="100", contract="inverse", maker_fee=-0.0001, taker_fee=0.0005
)


def test_an_inverse_contract_pays_in_base() -> None:
    """A hundred contracts of 100 USD bought at 50,000 and sold at 62,500 earn 0.2 - 0.16 BTC; the same trip short loses it."""
    money = money_of(INVERSE)
    for side, profit in ((1, 0.04), (-1, -0.04)):
        ledger = new_ledger()
        ledger_fill(ledger, money, side, 500_000, 100, 1, 1_000_000)
        ledger_fill(ledger, money, -side, 625_000, 100, 0, 1_250_000)
        parts = attribution(ledger, INVERSE)
        assert (parts.currency, parts.residual_quanta, ledger[POSITION]) == ("BTC", 0, 0)
        assert parts.inventory_pnl == pytest.approx(profit, abs=1e-12)
        assert (parts.spread_pnl, parts.hedge_pnl) == (0.0, 0.0)
        # a rebate on 0.2 BTC, a fee on 0.16 BTC
        assert parts.fees == pytest.approx(-0.2 * 0.0001 + 0.16 * 0.0005, abs=1e-15)
        assert ledger_equity(ledger, money) == pytest.approx(parts.total_pnl, abs=1e-12)
        assert ledger_equity_quote(ledger, money) == pytest.approx(parts.total_pnl * 62_500, abs=1e-7)
        shown = in_quote(parts, INVERSE)
        assert (shown.currency, shown.total_pnl) == ("USD", pytest.approx(parts.total_pnl * 62_500, abs=1e-7))


def test_inverse_funding_follows_the_example_of_the_exchange() -> None:
    """10,000 contracts of 1 USD at a mark of 5,000 and a rate of 0.025 %: a long pays 0.0005 base, a short receives it."""
    spec = msgspec.structs.replace(INVERSE, multiplier="1")
    money = money_of(spec)
    for side in (1, -1):
        ledger = new_ledger()
        ledger_fill(ledger, money, side, 50_000, 10_000, 1, 100_000)
        assert ledger_funding(ledger, money, 0.00025, 5_000.0) == -side * 500_000
        # a stamp without a price is paid at the last mark
        assert ledger_funding(ledger, money, 0.00025, math.nan) == -side * 500_000


def test_a_stamp_pays_nothing_on_nothing() -> None:
    money = money_of(INVERSE)
    ledger = new_ledger()
    assert ledger_funding(ledger, money, 0.01, math.nan) == 0
    assert ledger_funding(ledger, money, 0.01, 50_000.0) == 0
    assert not ledger.any()


def test_a_quote_currency_result_is_shown_as_it_is() -> None:
    parts = attribution(new_ledger(), SPEC)
    assert in_quote(parts, SPEC) is parts
    assert (parts.currency, math.isnan(parts.mark_price)) == ("USDT", True)
    # callers that know no contract still build one by its parts
    assert Attribution(1.0, 2.0, 3.0, 4.0, 5.0, 0).total_pnl == 7.0


@pytest.mark.parametrize(
    ("tick", "multiplier", "price", "quantum"),
    [("0.1", "100", 50_000, Fraction(1, 10**12)), ("0.01", "10", 3_000, Fraction(1, 10**12)), ("0.00001", "10", 0.1, Fraction(1, 10**9))],
)
def test_the_inverse_quantum_is_a_power_of_ten_that_resolves_a_tick_and_holds_a_fortune(
    tick: str, multiplier: str, price: float, quantum: Fraction
) -> None:
    spec = msgspec.structs.replace(INVERSE, tick_size=tick, multiplier=multiplier)
    assert quantum_of(spec) == quantum
    money = money_of(spec)
    half = round(2 * price / float(tick))
    worth = worth_quanta(money, half)
    # half a tick is at least five quanta, a position of ten million dollars fits fifty times over
    assert worth_quanta(money, half + 1) - worth >= 5
    assert abs(worth) * 1e7 / float(multiplier) * 50 < 2**63
    assert worth == pytest.approx(-float(multiplier) / price / float(quantum), abs=0.5000001)


def test_worth_rises_with_the_price_for_every_contract() -> None:
    half = np.arange(900_000, 900_200, dtype=np.int64)
    for money in (money_of(SPEC), money_of(INVERSE)):
        out, compiled = np.empty_like(half), np.empty_like(half)
        worth_path(money, half, out)
        worth_path.compiled(money, half, compiled)
        assert (np.diff(out) > 0).all()
        assert out.tolist() == compiled.tolist() == [worth_quanta(money, int(h)) for h in half]


def test_exposure_and_notional() -> None:
    linear, inverse = Money(0.001, 0.1, 0.0, 0.0), money_of(INVERSE)
    assert lots_to_base(linear, -7, math.nan) == -7 * 0.001
    assert lots_to_base(inverse, -7, 50_000.0) == -0.014
    assert notional_quote(linear, 7, 50_000.0) == pytest.approx(350.0)
    assert notional_quote(inverse, 7, math.nan) == 700.0


# -- fee tiers ---------------------------------------------------------------------------------------------------------------------------


def test_fees_follow_the_trailing_volume() -> None:
    """VIP 0 until a million, then cheaper; the execution that crosses the bound still pays the tier it found."""
    tiers = fee_tiers(((0.0, 0.0002, 0.0005), (1e6, 0.00016, 0.0004), (5e6, -0.00005, 0.0003)))
    money = Money(1.0, 1.0, 9.9, 9.9)
    ledger = new_ledger(trailing_volume_quote=999_900.0)
    paid = []
    for _ in range(3):
        paid.append(ledger_fill(ledger, money_at(money, tiers, ledger[TRAILING_VOLUME]), 1, 100, 1, 1, 200))
    assert paid == [20_000_000, 16_000_000, 16_000_000]
    assert ledger[TRAILING_VOLUME] == 1_000_200 * 10**6
    ledger[TRAILING_VOLUME] = 5 * 10**12
    rebate = money_at(money, tiers, ledger[TRAILING_VOLUME])
    assert (rebate.maker_fee, rebate.taker_fee) == (-0.00005, 0.0003)
    assert money_at.compiled(money, tiers, ledger[TRAILING_VOLUME]) == rebate
    # inverse contracts are counted in quote too
    inverse = new_ledger()
    ledger_fill(inverse, money_of(INVERSE), -1, 500_000, 3, 0, 1_000_000)
    assert inverse[TRAILING_VOLUME] == 300 * 10**6


def test_no_tiers_leave_the_fees_alone() -> None:
    money = Money(1.0, 1.0, 0.1, 0.2)
    assert money_at(money, fee_tiers(), 10**15) == money
    assert isinstance(fee_tiers(), FeeTiers)


@pytest.mark.parametrize(
    "rows", [((1.0, 0.0, 0.0),), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), ((0.0, math.nan, 0.0),), ((0.0, 0.0, 0.0), (math.inf, 0.0, 0.0))]
)
def test_wrong_tiers_are_refused(rows: tuple[tuple[float, float, float], ...]) -> None:
    with pytest.raises(ConfigError, match="fee tiers"):
        fee_tiers(rows)
