"""The router over local ports: plans, bounds, and what happens to every leg."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError, ConnectivityError, DataError, UnknownOutcome, VenueRejected
from mm_platform.smart_order_router import RoutingPlan, SmartOrderRouter, VenueLimits


@dataclass
class Port:
    """A venue with a fixed book; `outcome` is what an order meets: None fills it, an exception is raised, a dict is returned."""

    asks: list[list[float]]
    bids: list[list[float]] = field(default_factory=lambda: [[90.0, 1000.0]])
    taker: float = 0.0
    free: dict[str, float] = field(default_factory=lambda: {"USDT": 1e9, "BTC": 1e9})
    outcome: Any = None
    read_error: Exception | None = None
    sent: list[tuple[Any, ...]] = field(default_factory=list)

    def get_orderbook(self, symbol: str, limit: int = 20) -> dict[str, Any]:
        if self.read_error is not None:
            raise self.read_error
        return {"bids": self.bids[:limit], "asks": self.asks[:limit]}

    def get_fees(self, symbol: str) -> dict[str, float]:
        return {"maker": 0.0, "taker": self.taker}

    def get_balance(self) -> dict[str, float]:
        return self.free

    def place_order(self, symbol: str, side: str, amount: float, price: float | None, order_type: str, client_id: str) -> dict[str, Any]:
        self.sent.append((symbol, side, amount, price, order_type, client_id))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome or {"id": f"v{len(self.sent)}", "status": "closed", "filled": amount, "average": price}


@dataclass
class LimitedPort(Port):
    limits: VenueLimits = field(default_factory=VenueLimits)

    def get_limits(self, symbol: str) -> VenueLimits:
        return self.limits


@dataclass
class Venues:
    ports: dict[str, Any]

    def venues(self) -> dict[str, Any]:
        return self.ports


def theory() -> dict[str, Port]:
    return {
        "A": Port([[100.00, 3], [100.02, 5], [100.05, 10]], taker=5e-4),
        "B": Port([[100.01, 4], [100.03, 4], [100.06, 10]], taker=2e-4),
        "C": Port([[99.99, 2], [100.04, 6], [100.05, 8]], taker=1e-3),
    }


def router(ports: dict[str, Any], **kwargs: Any) -> SmartOrderRouter:
    return SmartOrderRouter(Venues(ports), **kwargs)


def amounts(plan: RoutingPlan) -> dict[str, float]:
    return {leg.venue: leg.amount for leg in plan.legs}


@pytest.mark.parametrize(
    ("amount", "legs", "cost"),
    [
        (5.0, {"A": 1, "B": 4}, 500.170008),
        (12.0, {"A": 4, "B": 8}, 1200.540042),
        (20.0, {"A": 8, "B": 12}, 2001.140130),
        (30.0, {"A": 10, "B": 18, "C": 2}, 3002.000232),
    ],
)
def test_min_cost_is_the_theory_optimum(amount: float, legs: dict[str, float], cost: float) -> None:
    plan = router(theory()).route_order("BTC/USDT", "buy", amount, "min_cost")
    assert amounts(plan) == pytest.approx(legs)
    assert plan.cost_quote == pytest.approx(cost, abs=5e-7)
    assert plan.complete
    assert plan.effective_price == pytest.approx(cost / amount)
    assert plan.cost_quote == pytest.approx(math.fsum(leg.amount * leg.average_price + leg.fee_quote for leg in plan.legs))


def test_best_price_ignores_fees_and_pays_for_it() -> None:
    plan = router(theory()).route_order("BTC/USDT", "buy", 12.0, "best_price")
    assert plan.cost_quote == pytest.approx(1200.660018, abs=5e-7)
    assert amounts(plan) == pytest.approx({"A": 6, "B": 4, "C": 2})


def test_split_is_in_proportion_to_depth() -> None:
    plan = router({"A": Port([[100.0, 30.0]]), "B": Port([[101.0, 10.0]])}).route_order("BTC/USDT", "buy", 8.0, "split")
    assert amounts(plan) == {"A": 6.0, "B": 2.0}


def test_a_sale_takes_the_bids_that_leave_most() -> None:
    ports = {"A": Port([[200.0, 1]], [[100.0, 1], [99.0, 5]], taker=0.001), "B": Port([[200.0, 1]], [[99.95, 2], [98.0, 5]], taker=0.0)}
    plan = router(ports).route_order("BTC/USDT", "sell", 3.0)
    assert amounts(plan) == {"A": 1.0, "B": 2.0}
    assert plan.cost_quote == pytest.approx(-(99.9 + 2 * 99.95))
    assert {leg.venue: leg.limit_price for leg in plan.legs} == {"A": 100.0, "B": 99.95}


def test_fixed_costs_and_minimum_sizes_are_searched_over_subsets() -> None:
    fixed = router(theory(), fixed_cost={"A": 0.05, "B": 0.05, "C": 0.05}).route_order("BTC/USDT", "buy", 8.0)
    assert amounts(fixed) == {"B": 8.0}
    assert fixed.cost_quote == pytest.approx(800.370032, abs=5e-7)
    limited = router(theory(), limits={"A": VenueLimits(min_notional=201.0)}).route_order("BTC/USDT", "buy", 5.0)
    assert amounts(limited) == {"B": 5.0}  # one unit of A, which the free optimum would take, is worth 100
    assert "below its smallest order of 2.01" in {s.venue: s.reason for s in limited.skipped}["A"]


def test_latency_makes_a_slow_venue_dearer() -> None:
    ports = {"slow": Port([[50_000.0, 1.0]]), "fast": Port([[50_000.3, 1.0]])}
    assert amounts(router(ports).route_order("BTC/USDT", "buy", 1.0)) == {"slow": 1.0}
    plan = router(ports, sigma=0.5, latency_s={"slow": 0.080}).route_order("BTC/USDT", "buy", 1.0)
    assert amounts(plan) == {"fast": 1.0}


def test_what_cannot_be_filled_is_said() -> None:
    plan = router(theory()).route_order("BTC/USDT", "buy", 100.0)
    assert plan.planned == 18 + 18 + 16
    assert plan.unfilled == 48.0
    assert not plan.complete
    assert "A shows 18; B shows 18; C shows 16" in plan.unfilled_reason
    assert "unfilled 48" in plan.explain()


@pytest.mark.parametrize(
    ("side", "free", "planned", "asset"),
    [("buy", {"USDT": 250.5}, 2.5, "USDT"), ("sell", {"BTC": 1.25}, 1.25, "BTC"), ("buy", {"BTC": 9.0}, 0.0, "USDT")],
)
def test_balances_bound_the_plan(side: str, free: dict[str, float], planned: float, asset: str) -> None:
    port = Port([[100.0, 10]], [[99.0, 10]], taker=0.002, free=free)
    plan = router({"A": port}).route_order("BTC/USDT", side, 5.0)
    assert plan.planned == pytest.approx(planned)
    assert plan.unfilled == pytest.approx(5.0 - planned)
    assert f"free {asset}" in plan.explain()
    whole = router({"A": port}, check_balances=False).route_order("BTC/USDT", side, 5.0)
    assert whole.planned == 5.0


def test_margin_reserves_quote_on_both_sides() -> None:
    port = LimitedPort([[100.0, 50]], [[100.0 - 0.01, 50]], free={"USDT": 100.0}, limits=VenueLimits(margin_rate=0.1))
    assert router({"A": port}).route_order("BTC/USDT:USDT", "sell", 20.0).planned == pytest.approx(10.001, abs=1e-3)
    assert router({"A": port}).route_order("BTC/USDT:USDT", "buy", 20.0).planned == pytest.approx(10.0)


def test_amounts_are_whole_steps_and_the_rest_is_said() -> None:
    ports = {"A": LimitedPort([[100.0, 0.35], [101.0, 9]], limits=VenueLimits(amount_step="0.1")), "B": Port([[100.5, 0.2]])}
    plan = router(ports).route_order("BTC/USDT", "buy", 1.0)
    assert amounts(plan) == {"A": 0.8, "B": 0.2}
    coarse = router({"A": LimitedPort([[100.0, 9]], limits=VenueLimits(amount_step="0.3"))}).route_order("BTC/USDT", "buy", 1.0)
    assert coarse.planned == 0.9
    assert coarse.unfilled == pytest.approx(0.1)
    assert "steps of 0.3" in coarse.unfilled_reason


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        (Port([[100.0, 1]], read_error=ConnectivityError("away")), "away"),
        (Port([[100.0, 1]], read_error=DataError("broken")), "broken"),
        (Port([[100.0, 1]], bids=[[100.0, 1]]), "crossed"),
        (Port([[100.0, 1], [99.0, 1]]), "not sorted"),
        (Port([[math.nan, 1]]), "price nan"),
        (Port([[100.0, -1]]), "size -1"),
        (Port([]), "no asks"),
    ],
)
def test_a_venue_that_cannot_be_trusted_is_left_out_with_the_reason(port: Port, reason: str) -> None:
    plan = router({"bad": port, "good": Port([[105.0, 10]])}).route_order("BTC/USDT", "buy", 1.0)
    assert amounts(plan) == {"good": 1.0}
    assert reason in {s.venue: s.reason for s in plan.skipped}["bad"]
    alone = router({"bad": port}).route_order("BTC/USDT", "buy", 1.0)
    assert alone.legs == ()
    assert alone.unfilled == 1.0


BOOK = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=3)


@given(st.lists(st.tuples(BOOK, st.integers(0, 9)), min_size=1, max_size=3), st.integers(1, 9))
def test_no_split_of_whole_units_is_cheaper(venues, amount: int) -> None:
    ports = {}
    for number, (gaps, fee) in enumerate(venues):
        prices = list(itertools.accumulate(gap for gap, _ in gaps))
        ports[f"v{number}"] = Port([[100.0 + p / 100, float(s)] for p, (_, s) in zip(prices, gaps, strict=True)], taker=fee * 1e-4)
    plan = router(ports).route_order("BTC/USDT", "buy", float(amount))
    units = sorted(price * (1 + port.taker) for port in ports.values() for price, size in port.asks for _ in range(int(size)))
    assert plan.planned == min(amount, len(units))
    assert plan.cost_quote == pytest.approx(math.fsum(units[:amount]))


# -- sending ------------------------------------------------------------------------------------------------------------------------------


def test_legs_are_sent_once_at_their_limit() -> None:
    ports = theory()
    sor = router(ports, run_id="run7")
    plan = sor.route_order("BTC/USDT", "buy", 12.0)
    results = sor.execute_routing_plan("BTC/USDT", "buy", plan, order_type="limit")
    assert ports["A"].sent == [("BTC/USDT", "buy", 4.0, 100.02, "limit", "run7-1-1")]
    assert ports["B"].sent == [("BTC/USDT", "buy", 8.0, 100.03, "limit", "run7-1-2")]
    assert ports["C"].sent == []
    assert results.complete
    assert results.filled == 12.0
    assert [leg.status for leg in results] == ["filled", "filled"]
    with pytest.raises(ConfigError, match="sent before"):
        sor.execute_routing_plan("BTC/USDT", "buy", plan)
    assert len(ports["A"].sent) == 1


def test_a_market_order_has_no_price() -> None:
    ports = theory()
    sor = router(ports)
    sor.execute_routing_plan("BTC/USDT", "buy", sor.route_order("BTC/USDT", "buy", 1.0), order_type="market")
    assert ports["B"].sent[0][3] is None


@pytest.mark.parametrize(
    ("outcome", "status", "filled"),
    [
        (UnknownOutcome("timed out"), "unknown", None),
        (ConnectivityError("cut off"), "unknown", None),
        (VenueRejected("too small"), "rejected", 0.0),
        (DataError("off the grid"), "rejected", 0.0),
        ({"status": "closed", "filled": 1.0}, "unknown", None),
        ({"id": "x", "status": "open", "filled": 1.0}, "open", 1.0),
        ({"id": "x", "status": "expired", "filled": 1.0}, "partial", 1.0),
        ({"id": "x", "status": "rejected", "filled": 0.0}, "rejected", 0.0),
        ({"id": "x", "status": None, "filled": None}, "open", None),
    ],
)
def test_every_outcome_is_reported_and_none_retried(outcome: Any, status: str, filled: float | None) -> None:
    ports = theory()
    ports["A"].outcome = outcome
    sor = router(ports)
    results = sor.execute_routing_plan("BTC/USDT", "buy", sor.route_order("BTC/USDT", "buy", 12.0))
    first, second = results.legs
    assert (first.status, first.filled) == (status, filled)
    assert len(ports["A"].sent) == 1
    assert second.status == "filled"  # the other leg is its own order of its own size
    assert results.filled == 8.0 + (filled or 0.0)
    assert (first in results.unresolved) == (status == "unknown" or filled is None)
    assert not results.complete
    if status == "unknown":
        assert first.client_id in first.reason


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.route_order("BTC/USDT", "long", 1.0),
        lambda s: s.route_order("BTC/USDT", "buy", 0.0),
        lambda s: s.route_order("BTC/USDT", "buy", math.nan),
        lambda s: s.route_order("BTC/USDT", "buy", 1.0, "cheap"),
        lambda s: s.execute_routing_plan("ETH/USDT", "buy", s.route_order("BTC/USDT", "buy", 1.0)),
        lambda s: s.execute_routing_plan("BTC/USDT", "sell", s.route_order("BTC/USDT", "buy", 1.0)),
        lambda s: s.execute_routing_plan("BTC/USDT", "buy", s.route_order("BTC/USDT", "buy", 1.0), "stop"),
        lambda s: s.execute_routing_plan("BTC/USDT", "buy", router(theory()).route_order("BTC/USDT", "buy", 1.0)),
        lambda s: SmartOrderRouter(Venues({})).route_order("BTC/USDT", "buy", 1.0),
        lambda s: SmartOrderRouter(Venues({f"v{i}": Port([[1.0, 1]]) for i in range(13)})).route_order("BTC/USDT", "buy", 1.0),
        lambda s: router(theory(), sigma=-1.0),
    ],
)
def test_wrong_arguments_are_refused(call) -> None:
    ports = theory()
    with pytest.raises(ConfigError):
        call(router(ports))
    assert not any(port.sent for port in ports.values())


def test_an_empty_plan_is_not_sent() -> None:
    sor = router({"A": Port([])})
    with pytest.raises(ConfigError, match="no legs"):
        sor.execute_routing_plan("BTC/USDT", "buy", sor.route_order("BTC/USDT", "buy", 1.0))


STEPS = st.sampled_from(["0", "0.1", "0.25", "1"])


@given(
    st.lists(st.tuples(BOOK, STEPS, st.sampled_from([0.0, 50.0, 150.0]), st.floats(0.0, 500.0)), min_size=1, max_size=3),
    st.floats(0.05, 9.0),
    st.sampled_from(["buy", "sell"]),
    st.sampled_from(["min_cost", "best_price", "split"]),
)
def test_every_plan_can_be_sent(venues, amount: float, side: str, strategy: str) -> None:
    sign = 1.0 if side == "buy" else -1.0
    ports = {}
    for number, (gaps, step, min_notional, free) in enumerate(venues):
        levels = [[100.0 + sign * p / 100, float(s)] for p, (_, s) in zip(itertools.accumulate(gap for gap, _ in gaps), gaps, strict=True)]
        far = [[100.0 - sign * 50.0, 1.0]]
        asks, bids = (levels, far) if side == "buy" else (far, levels)
        limits = VenueLimits(min_notional=min_notional, amount_step=step)
        ports[f"v{number}"] = LimitedPort(asks, bids, taker=0.001, free={"USDT": free, "BTC": free / 100.0}, limits=limits)
    plan = router(ports).route_order("BTC/USDT", side, amount, strategy)
    assert plan.planned + plan.unfilled == pytest.approx(amount)
    assert plan.planned <= amount * (1 + 1e-12)
    assert (plan.unfilled > 0.0) == bool(plan.unfilled_reason)
    for leg in plan.legs:
        port = ports[leg.venue]
        step = float(port.limits.amount_step)
        assert leg.amount * leg.limit_price >= port.limits.min_notional * (1 - 1e-9)
        if step:
            assert abs(leg.amount / step - round(leg.amount / step)) < 1e-9
        if side == "buy":
            assert leg.amount * leg.limit_price * 1.001 <= port.free["USDT"] * (1 + 1e-9)
        else:
            assert leg.amount <= port.free["BTC"] * (1 + 1e-9)
    assert {leg.venue for leg in plan.legs} | {s.venue for s in plan.skipped} == set(ports)
