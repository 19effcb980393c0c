"""The engine as a table: feed this, expect that."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from builders import SPEC
from parameter_sets import parameter_set
from runner_world import cheap

from mm_platform.core.commands import AnyCommand, Cancel, CancelAll, Halt, Note, Place, Query, SetTimer
from mm_platform.core.errors import ConfigError, InvariantError
from mm_platform.core.events import (
    AnyEvent,
    Balance,
    BookDelta,
    BookSnapshot,
    BookTop,
    Control,
    Disconnected,
    Fill,
    Funding,
    InstrumentStatus,
    MarkPrice,
    OrderAck,
    OrderReject,
    OrderUnknown,
    OrderUpdate,
    ParametersChanged,
    Position,
    Timer,
    Trade,
)
from mm_platform.core.parameters import ParameterSet, canonical_json
from mm_platform.core.units import NS_PER_S
from mm_platform.engine.engine import CANCEL_REJECTED, Engine
from mm_platform.engine.settings import EngineLimits, EngineSettings
from mm_platform.kernels.accounting import FEES, FUNDING, POSITION
from mm_platform.kernels.signals import SignalParams

CHEAP = cheap(SPEC)
NAME = CHEAP.instrument
T = 1_700_000_000 * NS_PER_S
LIMITS = EngineLimits(max_order_notional=5_000.0, max_position_notional=10_000.0)
SETTINGS = EngineSettings(spec=CHEAP, strategy="as", run_id="t", start_ns=T, step_ns=NS_PER_S, limits=LIMITS, signals=SignalParams())


def maker(**changes: object) -> ParameterSet:
    return parameter_set(CHEAP, 50_000.0, **({"k": 2_000_000.0, "sigma": 0.2} | changes))  # type: ignore[arg-type]


class Script:
    """An engine and the time; `say` feeds an event built at the current time."""

    def __init__(self, settings: EngineSettings = SETTINGS) -> None:
        self.engine = Engine(settings)
        self.now = T - NS_PER_S

    def say(self, kind: Callable[..., AnyEvent], **fields: object) -> tuple[AnyCommand, ...]:
        return self.engine.handle(kind(instrument=NAME, exch_ts=self.now, local_ts=self.now, **fields))

    def parameters(self, pset: ParameterSet | None = None, version: str = "1") -> tuple[AnyCommand, ...]:
        pset = pset or maker()
        return self.say(ParametersChanged, version=version, sha256=pset.sha256(), parameters=canonical_json(pset).decode())

    def book(self, bid: int = 500_000, ask: int = 500_002) -> None:
        self.say(BookSnapshot, bids=tuple((bid - d, 10) for d in range(5)), asks=tuple((ask + d, 10) for d in range(5)), seq=1)

    def decide(self, seconds: float = 1.0) -> tuple[AnyCommand, ...]:
        self.now += round(seconds * NS_PER_S)
        return self.say(Timer, name="decision")

    def quoting(self) -> tuple[Place, Place]:
        """Parameters, a book, one decision: both quotes are out and acknowledged."""
        self.parameters()
        self.book()
        bid, ask = places(self.decide())
        for order in (bid, ask):
            self.say(OrderAck, client_id=order.client_id)
        return bid, ask

    def fill(self, order: Place, lots: int, leaves: int | None = None, **changes: object) -> tuple[AnyCommand, ...]:
        fields: dict[str, object] = {
            "client_id": order.client_id,
            "trade_id": "x",
            "side": order.side,
            "price_ticks": order.price_ticks,
            "qty_lots": lots,
            "maker": True,
            "fee_quote": 0.25,
            "leaves_lots": order.qty_lots - lots if leaves is None else leaves,
            "mid_half_ticks": 1_000_002,
        }
        return self.say(Fill, **(fields | changes))


def places(commands: tuple[AnyCommand, ...]) -> list[Place]:
    return [c for c in commands if isinstance(c, Place)]


def cancels(commands: tuple[AnyCommand, ...]) -> set[str]:
    return {c.client_id for c in commands if isinstance(c, Cancel)}


# -- decisions ---------------------------------------------------------------------------------------------------------------------------


def test_first_parameters_ask_for_the_first_decision() -> None:
    note, timer = Script().parameters()
    assert isinstance(note, Note)
    assert isinstance(timer, SetTimer)
    assert timer == SetTimer(instrument=NAME, ts=T - NS_PER_S, name="decision", at_ns=T)


def test_a_decision_quotes_both_sides_says_why_and_asks_for_the_next() -> None:
    s = Script()
    s.parameters()
    s.book()
    commands = s.decide()
    bid, ask = places(commands)
    assert (bid.side, ask.side) == (1, -1)
    assert bid.price_ticks <= 500_000 < 500_002 <= ask.price_ticks
    assert {bid.tif, ask.tif} == {"GTX"}
    assert {bid.qty_lots, ask.qty_lots} == {20}
    assert (bid.client_id, ask.client_id) == ("as-t-1", "as-t-2")
    note, timer = commands[-2:]
    assert isinstance(note, Note)
    assert note.data["parameter_version"] == "1"
    assert note.data["mid_half_ticks"] == 1_000_002
    assert isinstance(timer, SetTimer)
    assert timer.at_ns == s.now + NS_PER_S
    assert places(s.decide()) == []


def test_decisions_are_a_function_of_the_events() -> None:
    def play() -> bytes:
        s = Script()
        out = [*s.parameters()]
        s.book()
        for n in range(20):
            out += s.decide()
            s.say(BookDelta, levels=((1, 500_000 - n % 3, 10 + n), (-1, 500_002 + n % 4, 5)), seq=2 + n)
            s.say(Trade, price_ticks=500_001, qty_lots=3, side=1 if n % 2 else -1)
        return msgspec.json.encode(out)

    assert play() == play()


def test_no_book_no_quotes() -> None:
    s = Script()
    s.parameters()
    assert places(s.decide()) == []
    s.say(BookTop, bid_ticks=500_000, bid_lots=5, ask_ticks=0, ask_lots=0)
    assert places(s.decide()) == []
    s.say(BookTop, bid_ticks=500_000, bid_lots=5, ask_ticks=500_003, ask_lots=4)
    assert len(places(s.decide())) == 2


def test_old_book_tops_say_nothing_new() -> None:
    s = Script()
    s.parameters()
    s.book()
    s.say(BookDelta, levels=((1, 500_001, 7),), seq=9)
    s.say(BookTop, bid_ticks=499_990, bid_lots=5, ask_ticks=499_995, ask_lots=4, seq=8)
    assert s.engine.mid_half_ticks == 1_000_003
    s.say(BookTop, bid_ticks=499_990, bid_lots=5, ask_ticks=499_995, ask_lots=4, seq=10)
    assert s.engine.mid_half_ticks == 999_985


def test_prints_that_fill_nobody_move_no_signal() -> None:
    a, b = Script(), Script()
    for s in (a, b):
        s.parameters()
        s.book()
    b.say(Trade, price_ticks=400_000, qty_lots=10_000, side=-1, market=False)
    a.say(MarkPrice, mark_price=1.0, index_price=1.0)
    a.say(InstrumentStatus, status="1")
    a.say(Balance, asset="USDT", total=1.0)
    assert a.decide() == b.decide()


def test_stale_market_pulls_quotes() -> None:
    s = Script(msgspec.structs.replace(SETTINGS, limits=msgspec.structs.replace(LIMITS, max_book_age_s=3.0)))
    bid, ask = s.quoting()
    assert cancels(s.decide(1.9)) == set()
    assert cancels(s.decide(1.0)) == {bid.client_id, ask.client_id}


# -- our orders --------------------------------------------------------------------------------------------------------------------------


def test_fill_moves_position_and_books_what_the_venue_charged() -> None:
    s = Script()
    bid, _ = s.quoting()
    s.fill(bid, 8)
    ledger = s.engine.ledger()
    assert ledger[POSITION] == 8 == s.engine.position_lots
    assert ledger[FEES] == 250_000_000
    s.fill(bid, 12, 0)
    assert s.engine.position_lots == 20
    assert s.engine.orders_working == 1


def test_funding_is_paid_on_the_position() -> None:
    s = Script()
    bid, _ = s.quoting()
    s.fill(bid, 20)
    s.say(Funding, rate=0.0001, mark_price=50_000.0)
    assert s.engine.ledger()[FUNDING] == -round(20 * 0.001 * 50_000.0 * 0.0001 * 1e9)


def test_reject_backs_off_and_cancel_reject_does_not_free_the_order() -> None:
    s = Script()
    s.parameters()
    s.book()
    bid, ask = places(s.decide())
    s.say(OrderReject, client_id=bid.client_id, code="post_only_would_cross", reason="")
    s.say(OrderAck, client_id=ask.client_id)
    assert s.engine.orders_working == 1
    s.say(OrderReject, client_id=ask.client_id, code=CANCEL_REJECTED, reason="")
    assert s.engine.orders_working == 1
    assert [o.side for o in places(s.decide(0.5))] == []
    assert [o.side for o in places(s.decide(0.6))] == [1]


@pytest.mark.parametrize("status", ["cancelled", "expired", "rejected"])
def test_an_order_that_is_gone_is_replaced(status: str) -> None:
    s = Script()
    bid, _ = s.quoting()
    s.say(OrderUpdate, client_id=bid.client_id, status=status, leaves_lots=0)
    assert [o.side for o in places(s.decide(1.5))] == [1]


def test_unknown_outcome_blocks_the_slot_and_counts_as_exposure_until_resolved() -> None:
    s = Script(msgspec.structs.replace(SETTINGS, limits=msgspec.structs.replace(LIMITS, max_position_notional=1_000.0)))
    s.parameters()
    s.book()
    bid, ask = places(s.decide())
    s.say(OrderAck, client_id=ask.client_id)
    (query,) = s.say(OrderUnknown, client_id=bid.client_id, reason="timeout")
    assert query == Query(instrument=NAME, ts=s.now, what="order", client_id=bid.client_id)
    # the market moves away: the order is to be replaced, but it may be alive, so no second one takes its place
    s.book(500_100, 500_102)
    commands = s.decide(2.0)
    assert bid.client_id in cancels(commands)
    assert [o.side for o in places(commands)] != [1]
    assert all(o.side != 1 for o in places(s.decide(2.0)))
    s.say(OrderUpdate, client_id=bid.client_id, status="rejected", leaves_lots=0)
    assert [o.side for o in places(s.decide(2.0))].count(1) == 1


def test_filled_without_fills_is_asked_for() -> None:
    s = Script()
    bid, _ = s.quoting()
    (query,) = s.say(OrderUpdate, client_id=bid.client_id, status="filled", leaves_lots=0)
    assert isinstance(query, Query)
    assert query.what == "fills"
    s.fill(bid, 20, 0)
    assert s.say(OrderUpdate, client_id=bid.client_id, status="filled", leaves_lots=0) == ()


# -- parameters and control --------------------------------------------------------------------------------------------------------------


def test_swap_keeps_orders_and_position() -> None:
    s = Script()
    bid, ask = s.quoting()
    s.fill(bid, 5)
    before = s.engine.orders_working
    (note,) = s.parameters(maker(order_notional=2_000.0), "2")
    assert isinstance(note, Note)
    assert s.engine.parameter_version == "2"
    assert s.engine.orders_working == before
    assert s.engine.position_lots == 5
    s.say(OrderUpdate, client_id=ask.client_id, status="expired", leaves_lots=0)
    assert {o.qty_lots for o in places(s.decide(1.5)) if o.side < 0} == {40}


def test_halt_cancels_everything_flattens_and_stays_halted_until_resumed() -> None:
    s = Script()
    bid, _ = s.quoting()
    s.fill(bid, 20)
    cancel_all, halt = s.say(Control, action="halt", reason="operator")
    assert isinstance(cancel_all, CancelAll)
    assert isinstance(halt, Halt)
    s.say(OrderUpdate, client_id="as-t-2", status="cancelled", leaves_lots=20)
    (flat,) = places(s.decide())
    assert (flat.side, flat.qty_lots, flat.tif, flat.purpose, flat.reduce_only) == (-1, 20, "IOC", "flatten", True)
    s.fill(flat, 20, 0, maker=False)
    assert places(s.decide()) == []
    s.say(Control, action="resume", reason="operator")
    assert len(places(s.decide(2.0))) == 2


def test_reduce_quotes_only_towards_flat() -> None:
    s = Script()
    bid, ask = s.quoting()
    s.fill(bid, 15)
    pulled = s.say(Control, action="reduce", reason="old parameters")
    assert cancels(pulled) == {bid.client_id, ask.client_id}
    for order in (bid, ask):
        s.say(OrderUpdate, client_id=order.client_id, status="cancelled", leaves_lots=5)
    orders = places(s.decide(1.5))
    assert [(o.side, o.qty_lots) for o in orders] == [(-1, 15)]


def test_disconnected_pulls_and_waits_for_a_snapshot() -> None:
    s = Script()
    bid, ask = s.quoting()
    assert cancels(s.say(Disconnected, stream="depth", reason="gap")) == {bid.client_id, ask.client_id}
    for order in (bid, ask):
        s.say(OrderUpdate, client_id=order.client_id, status="cancelled", leaves_lots=20)
    s.say(BookDelta, levels=((1, 500_050, 7),), seq=7)
    s.say(BookTop, bid_ticks=500_060, bid_lots=5, ask_ticks=500_070, ask_lots=4)
    assert s.engine.mid_half_ticks == 1_000_002
    assert places(s.decide(1.5)) == []
    s.book()
    assert len(places(s.decide(1.5))) == 2


def test_a_position_that_differs_stops_quoting_and_trading() -> None:
    s = Script()
    bid, ask = s.quoting()
    assert s.say(Position, lots=7) == ()  # orders are out: a fill may be on its way
    for order in (bid, ask):
        s.say(OrderUpdate, client_id=order.client_id, status="cancelled", leaves_lots=20)
    assert isinstance(s.say(Position, lots=7)[-1], Halt)
    assert places(s.decide(1.5)) == []
    s.say(Position, lots=0)
    assert len(places(s.decide(1.5))) == 2


# -- what cannot be ----------------------------------------------------------------------------------------------------------------------


def test_illegal_events_are_our_bug() -> None:
    s = Script()
    with pytest.raises(InvariantError, match="before parameters"):
        s.say(Timer, name="decision")
    bid, ask = s.quoting()
    with pytest.raises(InvariantError, match="never asked for"):
        s.say(Timer, name="tea")
    for foreign in ("as-t-99", "as-other-1", "xx", "as-t-", "as-t-0", "as-t--1"):
        with pytest.raises(InvariantError, match="never sent"):
            s.say(OrderAck, client_id=foreign)
    with pytest.raises(InvariantError, match="do not fit"):
        s.fill(bid, 21, 0)
    with pytest.raises(InvariantError, match="do not fit"):
        s.fill(bid, 5, side=-1)
    with pytest.raises(InvariantError, match="0 lots"):
        s.fill(bid, 0)
    s.fill(bid, 20, 0)
    with pytest.raises(InvariantError, match="called gone"):
        s.fill(bid, 1, 0)
    with pytest.raises(InvariantError, match="open with 21 lots"):
        s.say(OrderUpdate, client_id=ask.client_id, status="open", leaves_lots=21)
    with pytest.raises(InvariantError, match="an event of binance"):
        s.engine.handle(Timer(instrument="binance:BTC-USDT", exch_ts=s.now, local_ts=s.now, name="decision"))
    with pytest.raises(InvariantError, match="came after"):
        s.engine.handle(Timer(instrument=NAME, exch_ts=T, local_ts=T - 5 * NS_PER_S, name="decision"))
    with pytest.raises(InvariantError, match="the event says"):
        s.say(ParametersChanged, version="2", sha256="0" * 64, parameters=canonical_json(maker()).decode())


# -- settings ----------------------------------------------------------------------------------------------------------------------------


def test_settings_survive_the_journal_and_refuse_nonsense() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SETTINGS), type=EngineSettings) == SETTINGS
    assert SETTINGS.client_id(17) == "as-t-17"
    assert SETTINGS.order_number("as-t-17") == 17
    for changes in ({"run_id": "a-b"}, {"run_id": ""}, {"run_id": "x" * 40}, {"step_ns": 0}):
        with pytest.raises(ConfigError):
            msgspec.structs.replace(SETTINGS, **changes)
    for bad in ({"max_order_notional": 0.0}, {"stop_loss_frac": float("nan")}, {"max_orders_per_10s": 1}, {"cooldown_s": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            msgspec.structs.replace(LIMITS, **bad)


def test_order_budget_fits_any_window() -> None:
    s = Script(msgspec.structs.replace(SETTINGS, step_ns=NS_PER_S // 10, limits=msgspec.structs.replace(LIMITS, max_orders_per_10s=20)))
    s.parameters(maker(refresh_s=0.1))
    sent: list[int] = []
    for n in range(400):
        mid = 500_000 + 40 * (n % 2)
        s.book(mid, mid + 2)
        commands = s.decide(0.1)
        sent += [o.ts for o in places(commands)]
        for c in commands:
            if isinstance(c, Cancel):
                s.say(OrderUpdate, client_id=c.client_id, status="cancelled", leaves_lots=0)
    assert len(sent) > 40
    for first in sent:
        assert sum(1 for ts in sent if first <= ts < first + 10 * NS_PER_S) <= 20
