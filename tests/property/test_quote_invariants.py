"""What must hold for every quote, whatever the parameters."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from mm_platform.kernels.quoting import (
    CLAMP_INVENTORY_ASK,
    CLAMP_INVENTORY_BID,
    CLAMP_MAX_SPREAD,
    CLAMP_MIN_SPREAD,
    CLAMP_SKEW,
    FIXED,
    OK,
    RELAXATION,
    ROLLING,
    Market,
    QuoteParams,
    indicative_prices,
    quote_step,
    round_step,
)

params = st.builds(
    QuoteParams,
    gamma=st.floats(1e-3, 10.0),
    sigma=st.floats(0.01, 3.0),
    tau_years=st.floats(1e-6, 1.0),
    horizon=st.sampled_from([FIXED, ROLLING, RELAXATION]),
    A_bid=st.floats(1e-4, 10.0),
    A_ask=st.floats(1e-4, 10.0),
    k_bid=st.floats(100.0, 1e5),
    k_ask=st.floats(100.0, 1e5),
    inventory_unit=st.floats(1e-3, 1e3),
    target_inventory=st.floats(-5.0, 5.0),
    max_inventory=st.floats(0.1, 1e3),
    order_units=st.floats(0.1, 5.0),
    min_spread=st.floats(1e-5, 1e-3),
    max_spread=st.floats(1e-3, 0.05),
    maker_fee=st.floats(-1e-4, 1e-3),
    adverse_selection=st.floats(0.0, 1e-3),
    coef_ofi=st.floats(-1e-3, 1e-3),
    coef_kyle=st.floats(0.0, 2.0),
    coef_short_volatility=st.floats(0.0, 1.0),
)
signal = st.one_of(st.just(math.nan), st.floats(0.0, 1.0))
markets = st.builds(
    Market, st.floats(1e-4, 1e5), st.just(math.nan), st.one_of(st.just(math.nan), st.floats(-1.0, 1.0)), signal, signal, st.floats(0.0, 2.0)
)
inventories = st.floats(-2e3, 2e3)


@given(params, markets, inventories)
def test_spread_and_distance_stay_in_their_bounds(p: QuoteParams, m: Market, inventory: float) -> None:
    q = quote_step(p, m, inventory)
    assert q.status == OK
    bid, ask = indicative_prices(q)
    tolerance = 1e-12
    assert 0.0 < bid < ask
    assert p.min_spread * (1 - 1e-9) - tolerance <= (ask - bid) / q.fair <= p.max_spread * (1 + 1e-9) + tolerance
    assert bid >= q.fair * (1.0 - p.max_spread) * (1 - tolerance)
    assert ask <= q.fair * (1.0 + p.max_spread) * (1 + tolerance)
    assert not q.clamps & CLAMP_MIN_SPREAD or not q.clamps & CLAMP_MAX_SPREAD


@given(params, markets, inventories, inventories)
def test_more_inventory_never_raises_a_price(p: QuoteParams, m: Market, one: float, other: float) -> None:
    low, high = sorted((one, other))
    less, more = indicative_prices(quote_step(p, m, low)), indicative_prices(quote_step(p, m, high))
    assert more[0] <= less[0] * (1 + 1e-12)
    assert more[1] <= less[1] * (1 + 1e-12)


@given(params, markets, inventories, st.floats(1.01, 10.0))
def test_more_risk_aversion_skews_more(p: QuoteParams, m: Market, inventory: float, factor: float) -> None:
    assume(p.horizon != RELAXATION)
    timid, bold = quote_step(p._replace(gamma=p.gamma * factor), m, inventory), quote_step(p, m, inventory)
    assume(not (timid.clamps | bold.clamps) & CLAMP_SKEW)
    assert abs(timid.reservation / timid.fair - 1.0) >= abs(bold.reservation / bold.fair - 1.0) - 1e-15


@given(params, markets, inventories, st.floats(1.01, 10.0))
def test_skew_grows_with_risk_aversion_also_while_inventory_relaxes(p: QuoteParams, m: Market, inventory: float, factor: float) -> None:
    p = p._replace(horizon=RELAXATION)
    timid, bold = quote_step(p._replace(gamma=p.gamma * factor), m, inventory), quote_step(p, m, inventory)
    assume(not (timid.clamps | bold.clamps) & CLAMP_SKEW)
    assert timid.tau_years <= bold.tau_years * (1 + 1e-12)
    assert abs(timid.reservation / timid.fair - 1.0) >= abs(bold.reservation / bold.fair - 1.0) - 1e-15


@given(params, markets, inventories)
def test_only_the_side_that_adds_beyond_the_limit_is_missing(p: QuoteParams, m: Market, inventory: float) -> None:
    q = quote_step(p, m, inventory)
    deviation = inventory - p.target_inventory
    assume(abs(abs(deviation) - p.max_inventory) > 1e-6 * p.max_inventory)
    assert math.isnan(q.bid) == (deviation > p.max_inventory) == bool(q.clamps & CLAMP_INVENTORY_BID)
    assert math.isnan(q.ask) == (deviation < -p.max_inventory) == bool(q.clamps & CLAMP_INVENTORY_ASK)


@given(params, st.floats(1e-3, 1e3), st.floats(-50.0, 50.0), st.floats(1e-3, 1e3))
def test_quotes_do_not_depend_on_the_unit_of_price_or_amount(p: QuoteParams, price_scale: float, inventory: float, amount_scale: float) -> None:
    m = Market(100.0, math.nan, math.nan, math.nan, math.nan, 0.0)
    here = quote_step(p, m, inventory)
    there = quote_step(
        p._replace(
            inventory_unit=p.inventory_unit * amount_scale,
            target_inventory=p.target_inventory * amount_scale,
            max_inventory=p.max_inventory * amount_scale,
        ),
        m._replace(mid=100.0 * price_scale),
        inventory * amount_scale,
    )
    assert math.isclose(here.reservation / here.fair, there.reservation / there.fair, rel_tol=1e-9)
    assert math.isclose(here.half_spread_bid, there.half_spread_bid, rel_tol=1e-9)
    assert math.isclose(here.half_spread_ask, there.half_spread_ask, rel_tol=1e-9)


@given(params, markets, inventories, st.integers(2, 10**7), st.integers(1, 50), st.sampled_from([1e-5, 0.01, 0.1, 0.5, 1.0]))
def test_rounded_quotes_are_passive_and_never_better_than_asked(
    p: QuoteParams, m: Market, inventory: float, best_bid: int, width: int, tick: float
) -> None:
    best_ask = best_bid + width
    m = m._replace(mid=0.5 * (best_bid + best_ask) * tick)
    q = quote_step(p, m, inventory)
    bid, ask, clamps = round_step(q, tick, best_bid, best_ask)
    assert clamps & q.clamps == q.clamps
    assert bid < best_ask
    if bid > 0:
        assert bid * tick <= q.bid + 2e-6 * tick
        assert bid >= min(math.floor(q.bid / tick + 1e-9), best_ask - 1) - 1
    if ask > 0:
        assert ask > best_bid
        assert ask * tick >= q.ask - 2e-6 * tick
        assert ask <= max(math.ceil(q.ask / tick - 1e-9), best_bid + 1) + 1
    if bid > 0 and ask > 0:
        assert bid < ask
