"""Risk step and order step: each limit both ways, and the twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.kernels.orders import (
    CANCEL,
    HEDGE,
    KEEP,
    LIVE,
    PENDING_CANCEL,
    PLACE,
    QUOTE,
    REPLACE,
    budget_step,
    local_add,
    local_find,
    local_free,
    new_local_orders,
    open_lots,
    order_step,
    taker_in_flight,
    working_quote,
)
from mm_platform.kernels.risk import (
    COOLDOWN,
    HALTED,
    POSITION_TIMEOUT,
    STOP_LOSS,
    TOXIC_ASK,
    TOXIC_BID,
    VOLATILITY,
    RiskDecision,
    RiskParams,
    risk_step,
)

LIMITS = RiskParams(10, 100, 0.01, 1000, 500, 3.0, 0.8, 50.0)


def look(**changes: float) -> RiskDecision:
    state: dict[str, float] = {
        "now": 10_000,
        "position": 5,
        "exposure": 5.0,
        "entry": 2000.0,
        "mid": 2000,
        "since": 9_500,
        "short": 0.5,
        "sigma": 0.5,
        "ofi": 0.0,
        "equity": 0.0,
        "cooldown": 0,
        "halted": 0,
    } | changes
    return risk_step(LIMITS, *state.values())  # type: ignore[arg-type]


def test_nothing_wrong_allows_both_sides() -> None:
    assert look() == RiskDecision(1, 1, 0, 0, 0, 0)


@pytest.mark.parametrize(("position", "mid"), [(5, 1979), (-5, 2021)])
def test_stop_loss_flattens_on_the_adverse_side_only(position: int, mid: int) -> None:
    hit = look(position=position, exposure=position, mid=mid)
    assert (hit.allow_bid, hit.allow_ask, hit.flatten_lots) == (0, 0, -position)
    assert hit.reasons & STOP_LOSS
    assert hit.reasons & COOLDOWN
    assert hit.cooldown_until_ns == 10_500
    assert look(position=-position, exposure=-position, mid=mid).reasons == 0


def test_timeout_counts_from_the_last_time_flat() -> None:
    assert look(since=9_001).reasons == 0
    hit = look(since=9_000)
    assert hit.reasons & POSITION_TIMEOUT
    assert hit.flatten_lots == -5
    assert look(since=0, position=0, exposure=0.0).reasons == 0


def test_stops_look_at_the_exposure_and_flatten_the_position() -> None:
    """With two venues a position that is hedged elsewhere neither stops out nor times out; a net that is exposed flattens what stands here."""
    assert look(position=50, exposure=0.0, mid=1000, since=0).reasons == 0
    hit = look(position=-3, exposure=0.25, mid=1979)
    assert (hit.flatten_lots, hit.reasons & STOP_LOSS) == (3, STOP_LOSS)
    assert look(position=-3, exposure=-0.25, mid=1979).reasons == 0


def test_volatility_pulls_both_sides_without_flattening() -> None:
    hit = look(short=1.6)
    assert (hit.allow_bid, hit.allow_ask, hit.flatten_lots, hit.reasons) == (0, 0, 0, VOLATILITY)
    assert look(short=1.5).reasons == 0


def test_flow_pulls_the_side_it_runs_into() -> None:
    assert look(ofi=0.8) == RiskDecision(1, 0, 0, TOXIC_ASK, 0, 0)
    assert look(ofi=-0.8) == RiskDecision(0, 1, 0, TOXIC_BID, 0, 0)
    assert look(ofi=0.79).reasons == 0


def test_a_loss_halts_for_good() -> None:
    hit = look(equity=-50.0)
    assert hit.halted == 1
    assert hit.reasons & HALTED
    assert hit.flatten_lots == -5
    assert look(equity=+10.0, halted=1).halted == 1
    assert look(equity=-49.0).halted == 0


def test_cooling_down_quotes_nothing() -> None:
    hit = look(cooldown=10_001)
    assert (hit.allow_bid, hit.allow_ask, hit.flatten_lots, hit.reasons) == (0, 0, 0, COOLDOWN)
    assert look(cooldown=10_000).reasons == 0


@given(
    st.tuples(
        st.integers(0, 20_000),
        st.integers(-50, 50),
        st.floats(-50.0, 50.0),
        st.floats(0.0, 4000.0),
        st.integers(2, 4000),
        st.integers(0, 20_000),
        st.floats(0.0, 3.0),
        st.floats(0.1, 1.0),
        st.floats(-1.0, 1.0),
        st.floats(-100.0, 100.0),
        st.integers(0, 20_000),
        st.integers(0, 1),
    )
)
def test_risk_twins_agree(state: tuple[float, ...]) -> None:
    assert risk_step(LIMITS, *state) == risk_step.compiled(LIMITS, *state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "allowed", "working", "has", "due", "what"),
    [
        (0, 1, 100, 1, 1, CANCEL),
        (100, 0, 100, 1, 0, CANCEL),
        (100, 0, 0, 0, 1, KEEP),
        (100, 1, 0, 0, 0, PLACE),
        (102, 1, 100, 1, 1, KEEP),
        (103, 1, 100, 1, 1, REPLACE),
        (97, 1, 100, 1, 1, REPLACE),
        (103, 1, 100, 1, 0, KEEP),
    ],
)
def test_order_step(wanted: int, allowed: int, working: int, has: int, due: int, what: int) -> None:
    assert order_step(wanted, allowed, working, has, due, 2) == what
    assert order_step.compiled(wanted, allowed, working, has, due, 2) == what


def test_exposure_counts_until_the_venue_says_gone() -> None:
    orders = new_local_orders(5)
    rows = ((0, 1, 5, QUOTE), (0, 1, 3, QUOTE), (0, -1, 7, HEDGE), (1, 1, 9, HEDGE))
    for n, (venue, side, lots, purpose) in enumerate(rows, start=1):
        assert local_add(orders, n, venue, side, 100, lots, purpose) == n - 1
    orders.status[0] = PENDING_CANCEL
    orders.status[1] = LIVE
    assert open_lots(orders, 0, 1) == 8
    assert open_lots(orders, 1, 1) == 9
    assert open_lots(orders, 1, -1) == 0
    assert working_quote(orders, 1) == 1
    assert working_quote(orders, -1) == -1
    assert (taker_in_flight(orders, 0), taker_in_flight(orders, 1)) == (-1, 1)
    assert local_add(orders, 5, 0, 1, 100, 1, QUOTE) == 4
    assert local_add(orders, 6, 0, 1, 100, 1, QUOTE) == -1
    local_free(orders, 2)
    assert taker_in_flight(orders, 0) == 0
    assert local_add(orders, 7, 0, -1, 100, 1, QUOTE) == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from([1, -1]), st.integers(0, 1), st.integers(1, 9)), max_size=80))
def test_the_order_table_is_a_plain_set_of_orders(steps: list[tuple[bool, int, int, int, int]]) -> None:
    """Whatever is added and freed in whatever order: the bounded walk finds what a dict finds, first free place first; both twins."""
    one, two = new_local_orders(6), new_local_orders(6)
    known: dict[int, tuple[int, int, int]] = {}
    next_id = 1
    for add, pick, side, venue, lots in steps:
        if add:
            free = [at for at in range(6) if one.status[at] == 0]
            at = local_add(one, next_id, venue, side, 100, lots, QUOTE)
            assert at == local_add.compiled(two, next_id, venue, side, 100, lots, QUOTE)
            assert at == (free[0] if free else -1)
            if at >= 0:
                known[next_id] = (venue, side, lots)
            next_id += 1
        elif known:
            gone = sorted(known)[pick % len(known)]
            at = local_find(one, gone)
            assert at == local_find.compiled(two, gone)
            assert one.id[at] == gone
            local_free(one, at)
            local_free.compiled(two, at)
            del known[gone]
            assert local_find(one, gone) == -1
        for where in (0, 1):
            for way in (1, -1):
                assert open_lots(one, where, way) == sum(q for v, s, q in known.values() if (v, s) == (where, way))
        assert one.used[0] <= 6
        assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


def test_budget_refills_up_to_its_burst() -> None:
    assert budget_step(0.0, 0, 1_000_000_000, 2.0, 10.0) == 2.0
    assert budget_step(9.5, 0, 10**12, 2.0, 10.0) == 10.0
    assert not math.isnan(budget_step(0.0, 5, 5, 2.0, 10.0))
    assert np.isclose(budget_step.compiled(1.0, 0, 500_000_000, 1.0, 10.0), 1.5)
