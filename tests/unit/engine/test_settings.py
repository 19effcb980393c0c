"""From a parameter set under limits to the kernels' parameters: lots of every contract, and the venue that hedges."""

from __future__ import annotations

import msgspec
import pytest
from builders import SPEC
from parameter_sets import parameter_set

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.engine.settings import EngineLimits, decision_params, hedge_venue_params
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.hedging import BLIND_KEEP, BLIND_PULL, BLIND_WITHIN_THRESHOLD, NO_HEDGE_VENUE, HedgeVenue

PRICE = 50_000.0
LIMITS = EngineLimits(max_order_notional=5_000.0, max_position_notional=20_000.0, slippage_frac=0.001)
ELSEWHERE = InstrumentSpec(
    instrument="other:BTC-USDT-PERP",
    tick_size="0.5",
    lot_size="0.01",
    contract="linear",
    maker_fee=0.0,
    taker_fee=0.0004,
    min_notional=700.0,
)
INVERSE = InstrumentSpec(
    instrument="sim:BTC-USD-PERP", tick_size="0.1", lot_size="1", multiplier="100", contract="inverse", maker_fee=0.0, taker_fee=0.0005
)


def test_the_hedge_venue_in_its_own_units() -> None:
    venue = hedge_venue_params(parameter_set(SPEC, PRICE), ELSEWHERE, LIMITS)
    assert venue == HedgeVenue(
        present=1,
        money=money_of(ELSEWHERE),
        min_lots=1,
        min_notional=700.0,
        max_order_lots=10,
        max_position_lots=40,
        slippage_ticks=100,
        interval_ns=1_000_000_000,
        blind=BLIND_WITHIN_THRESHOLD,
    )
    params = decision_params(parameter_set(SPEC, PRICE), SPEC, LIMITS, venue)
    assert params.hedge_venue is venue
    assert params.risk.max_order_lots == 100


def test_without_one_hedges_cross_where_we_quote() -> None:
    assert decision_params(parameter_set(SPEC, PRICE), SPEC, LIMITS).hedge_venue == NO_HEDGE_VENUE


@pytest.mark.parametrize(("name", "policy"), [("pull", BLIND_PULL), ("within_threshold", BLIND_WITHIN_THRESHOLD), ("keep", BLIND_KEEP)])
def test_what_quotes_do_without_its_market(name: str, policy: int) -> None:
    assert hedge_venue_params(parameter_set(SPEC, PRICE), ELSEWHERE, LIMITS, blind=name).blind == policy


def test_a_hedge_venue_that_could_never_hedge_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"smallest hedge, 2 lots of 0\.01 at 50000"):
        hedge_venue_params(parameter_set(SPEC, PRICE), ELSEWHERE, msgspec.structs.replace(LIMITS, max_order_notional=999.0))
    with pytest.raises(ConfigError, match="'never', expected one of pull, within_threshold, keep"):
        hedge_venue_params(parameter_set(SPEC, PRICE), ELSEWHERE, LIMITS, blind="never")


def test_an_inverse_contract_is_sized_in_quote() -> None:
    """1,000 quote an order are ten contracts of 100, whatever base that is; limits alike."""
    # the set's amounts are base: fixed on a linear instrument of the same price
    pset = msgspec.structs.replace(parameter_set(SPEC, PRICE, order_notional=1_000.0), instrument=INVERSE.instrument)
    params = decision_params(pset, INVERSE, LIMITS)
    assert params.orders.order_lots == 10
    assert (params.risk.max_order_lots, params.risk.max_position_lots) == (50, 200)
    assert params.money.lot_quote == 100.0
    assert hedge_venue_params(parameter_set(SPEC, PRICE), INVERSE, LIMITS).max_position_lots == 200
