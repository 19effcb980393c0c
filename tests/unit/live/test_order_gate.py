"""The last look: every limit holds back the order that breaks it and lets pass the one just inside."""

from __future__ import annotations

import msgspec
import pytest
from builders import SPEC
from parameter_sets import parameter_set

from mm_platform.core.commands import Place
from mm_platform.core.errors import ConfigError
from mm_platform.core.events import Fill, OrderReject, OrderUpdate
from mm_platform.core.units import NS_PER_S
from mm_platform.engine.settings import EngineLimits
from mm_platform.live.limits import RunnerLimits
from mm_platform.live.order_gate import OrderGate

NAME = SPEC.instrument
# one lot is 50 quote: 40 lots an order, 100 lots of position
LIMITS = RunnerLimits(engine=EngineLimits(max_order_notional=2_000.0, max_position_notional=5_000.0, max_orders_per_10s=5), price_band_frac=0.01)
MID = 1_000_000


@pytest.fixture
def gate() -> OrderGate:
    gate = OrderGate(SPEC, LIMITS)
    gate.parameters(parameter_set(SPEC, 50_000.0))
    return gate


def order(number: int = 1, side: int = 1, lots: int = 10, ticks: int = 500_000, ts: int = 0, purpose: str = "quote") -> Place:
    return Place(
        instrument=NAME,
        ts=ts,
        client_id=f"as-t-{number}",
        side=side,
        price_ticks=ticks,
        qty_lots=lots,
        tif="GTX",
        purpose=purpose,  # type: ignore[arg-type]
    )


def fill(number: int, side: int, lots: int, leaves: int) -> Fill:
    return Fill(
        instrument=NAME,
        exch_ts=0,
        local_ts=0,
        client_id=f"as-t-{number}",
        trade_id="x",
        side=side,
        price_ticks=500_000,
        qty_lots=lots,
        maker=True,
        fee_quote=0.0,
        leaves_lots=leaves,
    )


def test_size(gate: OrderGate) -> None:
    assert gate.refusal(order(lots=40), MID) == ""
    assert "allowed are 40" in gate.refusal(order(lots=41), MID)
    assert "not an order" in gate.refusal(order(lots=0), MID)


def test_band(gate: OrderGate) -> None:
    assert gate.refusal(order(ticks=495_000), MID) == ""
    assert "from the mid" in gate.refusal(order(ticks=494_999), MID)
    assert "from the mid" in gate.refusal(order(side=-1, ticks=505_001), MID)
    assert "no mid" in gate.refusal(order(), 0)


def test_position_counts_what_is_open(gate: OrderGate) -> None:
    for n in (1, 2):
        gate.sent(order(n, lots=40))
    assert gate.refusal(order(3, lots=20), MID) == ""
    assert "would be 101 lots" in gate.refusal(order(3, lots=21), MID)
    assert gate.refusal(order(3, side=-1, lots=40), MID) == ""
    gate.on_event(OrderUpdate(instrument=NAME, exch_ts=0, local_ts=0, client_id="as-t-2", status="cancelled", leaves_lots=40))
    gate.on_event(fill(1, 1, 30, 10))
    assert gate.refusal(order(3, lots=40), MID) == ""
    gate.sent(order(3, lots=40))
    assert gate.refusal(order(4, lots=20), MID) == ""
    assert "would be 101 lots" in gate.refusal(order(4, lots=21), MID)
    gate.on_event(OrderReject(instrument=NAME, exch_ts=0, local_ts=0, client_id="as-t-3", code="cancel_rejected", reason=""))
    assert "would be 101 lots" in gate.refusal(order(4, lots=21), MID)
    gate.on_event(OrderReject(instrument=NAME, exch_ts=0, local_ts=0, client_id="as-t-3", code="no_free_slot", reason=""))
    assert gate.refusal(order(4, lots=21), MID) == ""


def test_rate_is_per_window(gate: OrderGate) -> None:
    for n in range(5):
        gate.sent(order(n, lots=1, ts=n * NS_PER_S))
    assert "5 orders in the last 10 s" in gate.refusal(order(9, lots=1, ts=9 * NS_PER_S), MID)
    assert gate.refusal(order(9, lots=1, ts=10 * NS_PER_S), MID) == ""


def test_a_client_id_is_used_once(gate: OrderGate) -> None:
    gate.sent(order(1))
    assert "in use" in gate.refusal(order(1), MID)


def test_price_drift_stops_new_risk_but_not_its_end(gate: OrderGate) -> None:
    gate.sent(order(1, lots=40))
    gate.on_event(fill(1, 1, 40, 0))
    far = 1_310_000
    assert "moved by 0.310" in gate.refusal(order(2, side=1, ticks=655_000), far)
    assert gate.refusal(order(2, side=-1, ticks=655_000), far) == ""


def test_flattening_is_not_held_back_by_size_and_rate(gate: OrderGate) -> None:
    for n in range(3):
        gate.sent(order(n, lots=30))
        gate.on_event(fill(n, 1, 30, 0))
    for n in range(3, 9):
        gate.sent(order(n, lots=1))
    assert gate.refusal(order(20, side=-1, lots=90, purpose="flatten"), MID) == ""
    # more than is held would turn the position over
    assert gate.refusal(order(20, side=-1, lots=91, purpose="flatten"), MID) != ""
    assert gate.refusal(order(20, side=1, lots=41, purpose="flatten"), MID) != ""


def test_limits_refuse_nonsense() -> None:
    with pytest.raises(ConfigError, match="price_band_frac"):
        msgspec.structs.replace(LIMITS, price_band_frac=float("inf"))
    with pytest.raises(ConfigError, match="expected low <= high"):
        msgspec.structs.replace(LIMITS, parameter_bounds={"sigma": (2.0, 1.0)})
