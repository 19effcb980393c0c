"""`python -m mm_platform.replay.conformance FILE...`: golden cases of the field's reference engine against ours, one JSON line per file.

A shell: it reads files and prints, and nothing imports it but its tests. Belongs here: the file format, a client that trades through a two-clock
backtest as the reference's does, and the comparison. Does not belong here: matching (`kernels.exchange`).

Each run of a file (a queue model, whole or partial fills, latencies) is played through the venue's kernels under the reference rule and compared
in every fill (order, side, status, price, quantity, what is left, maker, venue time, when the client saw it, position after) and in the final
account. What comes out per run:

- equal. A run whose only difference is that the reference's client booked a fill twice (its defect 4) is equal in every fill and counted here, and
  the difference is listed among the deviations.
- deviation: it differs, and with named defects of the reference put into the client it is equal. Ours does the right thing; the line says what
  the reference did, what ours does, and which defects explain it.
- differing: none of that. The line shows the first difference; the exit status is 1.
- skipped, with the reason: unstable in the reference itself, aborted by it, or not about a book of levels.

Runs with partial fills are compared at the exchange level: the reference's client learns of its last chunk only, so what its account says is
compared under that defect, and what ours says is right beside it.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from mm_platform.core.errors import DataError
from mm_platform.kernels.exchange import (
    EXPIRED,
    FILLED,
    FOK,
    GTC,
    GTX,
    IOC,
    LEAVES_LOTS,
    LIMIT,
    MARKET,
    ORDER_TYPE,
    PRICE_TICKS,
    PURPOSE,
    REJECTED,
    RESTING,
    SIDE,
    TIF,
    find_order,
)
from mm_platform.kernels.levels import (
    BEST_ASK,
    BEST_BID,
    OK,
    OUTER_ASK,
    OUTER_BID,
    REFERENCE,
    Levels,
    level_set,
    levels_clear,
    new_levels,
    next_level,
)
from mm_platform.kernels.queue import LOG_PROB, LOG_PROB2, POWER_PROB, POWER_PROB2, POWER_PROB3, RISK_ADVERSE, exchange_params, round_half_away
from mm_platform.kernels.venue import CANCEL, CLEAR, DEPTH, FLAG_LAST, MODIFY, PLACE, SNAPSHOT, TRADE, new_venue, venue_on_request, venue_on_row

# the reference's defects that the client can be given (the numbers of the list in the project's notes on hftbacktest 2.4.4)
LAST_CHUNK_ONLY: Final = "the client's account learns of an order's last execution only (1, 3)"
FILL_BOOKED_TWICE: Final = "a rejected cancel or modify of an order known as filled books its fill again (4)"
MODIFY_KEEPS_QUANTITY: Final = "a modified order that loses its place executes the quantity it had before (5)"
CLEAR_ONE_TOO_FAR: Final = "after a clear of one side the next best is looked for one tick too far (6)"
EMPTY_SIDE_FILLS: Final = "a market order into an empty side fills at the largest price there is (8)"
_CLIENT_DEFECTS: Final = (FILL_BOOKED_TWICE, MODIFY_KEEPS_QUANTITY, CLEAR_ONE_TOO_FAR, EMPTY_SIDE_FILLS)

_STEP_NS: Final = 100_000  # the recorder looked at its orders every 0.1 ms
_FAR_TICKS: Final = {1: 2**63 - 1, -1: -(2**63)}
_NEVER: Final = 2**62
_KINDS: Final = {"depth": DEPTH, "trade": TRADE, "clear": CLEAR, "snapshot": SNAPSHOT}
_SIDES: Final = {"buy": 1, "sell": -1}
_TIFS: Final = {"GTC": GTC, "GTX": GTX, "IOC": IOC, "FOK": FOK}
_TYPES: Final = {"LIMIT": LIMIT, "MARKET": MARKET}
_MODELS: Final = {
    "RiskAdverse": RISK_ADVERSE,
    "LogProb": LOG_PROB,
    "LogProb2": LOG_PROB2,
    "PowerProb": POWER_PROB,
    "PowerProb2": POWER_PROB2,
    "PowerProb3": POWER_PROB3,
}
_CODES: Final = {"OK": 0, "OrderIdExist": 10, "OrderRequestInProcess": 11, "OrderNotFound": 12}


# -- the file --------------------------------------------------------------------------------------------------------------------------------


class Event(msgspec.Struct):
    """A row of the market; `where` is None for a row that both clocks see."""

    kind: str
    exch_ms: float
    local_ms: float
    side: str | None = None
    px: float | None = None
    qty: float | None = None
    order_id: int | None = None
    where: str | None = None


class Action(msgspec.Struct):
    """What the client does when."""

    at_ms: float
    op: str
    order_id: int
    side: str | None = None
    px: float = 0.0
    qty: float = 0.0
    tif: str | None = None
    type: str | None = None


class Config(msgspec.Struct):
    """Fees as fractions of notional, and the contract."""

    maker_fee: float = 0.0
    taker_fee: float = 0.0
    contract_size: float = 1.0
    inverse: bool = False


class ExpectedFill(msgspec.Struct):
    """An execution as the recorder saw it."""

    order_id: int
    side: str
    status: str
    price: float
    qty: float
    leaves_after: float
    maker: bool
    exch_ts_ms: float
    local_seen_ms: float
    position_after: float


class Call(msgspec.Struct):
    """How the client's call returned."""

    at_ms: float
    op: str
    order_id: int
    rc: str | int


class Run(msgspec.Struct):
    """One run of the scenario in the reference."""

    queue_model: str
    exchange: str
    entry_latency_ms: float
    resp_latency_ms: float
    stable: bool
    fills: list[ExpectedFill]
    calls: list[Call] = []
    final: dict[str, Any] | None = None
    error: str | None = None


class Scenario(msgspec.Struct):
    """A golden case."""

    name: str
    tick_size: float
    lot_size: float
    end_ms: float
    events: list[Event]
    schedule: list[Action]
    runs: list[Run]
    config: Config = msgspec.field(default_factory=Config)


def read_scenario(path: Path) -> Scenario:
    """A golden case file, plain or gzipped; raises `DataError` when it is none."""
    raw = path.read_bytes()
    try:
        return msgspec.json.decode(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw, type=Scenario)
    except (msgspec.DecodeError, gzip.BadGzipFile, EOFError) as err:
        raise DataError(f"{path}: not a golden case ({err}); expected a JSON object with events, schedule and runs, plain or gzipped") from err


# -- the client ------------------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Order:
    """An order as one side knows it, and as it travels. Prices in ticks, quantities in lots, times in ns after the start."""

    id: int
    side: int
    price_ticks: int
    lots: int
    leaves_lots: int
    tif: int
    type: int
    sent_ns: int
    request: Literal["none", "new", "cancel", "modify", "rejected"] = "none"
    status: Literal["NONE", "NEW", "EXPIRED", "FILLED", "CANCELED", "PARTIALLY_FILLED"] = "NONE"
    exec_ticks: int = 0
    exec_lots: int = 0
    maker: bool = False
    exch_ns: int = 0


def _copy(order: Order, **changes: Any) -> Order:
    values = {name: getattr(order, name) for name in Order.__slots__}
    return Order(**{**values, **changes})


@dataclass(slots=True)
class Account:
    """What the client's account says: money as the reference counts it."""

    config: Config
    tick_size: float
    lot_size: float
    position: float = 0.0
    balance: float = 0.0
    fee: float = 0.0
    num_trades: int = 0
    trading_volume: float = 0.0
    trading_value: float = 0.0

    def book(self, side: int, price_ticks: int, lots: int, maker: bool) -> None:
        """One execution."""
        qty = lots * self.lot_size
        price = price_ticks * self.tick_size
        notional = self.config.contract_size * (qty / price if self.config.inverse else qty * price)
        self.position += side * qty
        self.balance -= side * notional
        self.fee += notional * (self.config.maker_fee if maker else self.config.taker_fee)
        self.num_trades += 1
        self.trading_volume += qty
        self.trading_value += notional


@dataclass(frozen=True, slots=True)
class SeenFill:
    """A fill as the client saw it at one look at its orders."""

    order_id: int
    side: int
    status: str
    price_ticks: int
    lots: int
    leaves_lots: int
    maker: bool
    exch_ns: int
    seen_ns: int
    position: float


@dataclass(slots=True)
class Played:
    """What a run of ours gave. `executions`: (order id, venue time, price ticks, lots, leaves, maker), every one, in order."""

    fills: list[SeenFill] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    executions: list[tuple[int, int, int, int, int, bool]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)


def _ns(ms: float) -> int:
    return round(ms * 1e6)


class _Play:
    """One run: the market's rows, the venue, the client, and the messages between them.

    At one instant: local rows, answers, rows at the venue, requests that arrive. The client looks every 0.1 ms and then acts.
    """

    def __init__(self, scenario: Scenario, run: Run, defects: frozenset[str]) -> None:
        self.s, self.run, self.defects = scenario, run, defects
        name, _, exponent = run.queue_model.partition("(n=")
        power = float(exponent.rstrip(")")) if exponent else 1.0
        self.x = exchange_params(REFERENCE, _MODELS[name], power, scenario.lot_size, partial=run.exchange == "PartialFill")
        self.entry_ns, self.response_ns = _ns(run.entry_latency_ms), _ns(run.resp_latency_ms)
        ticks = [self.ticks(e.px) for e in scenario.events if e.px is not None] + [self.ticks(a.px) for a in scenario.schedule]
        lo, hi = max(min((t for t in ticks if t > 0), default=1) - 8, 1), max(ticks, default=1) + 8
        self.venue = new_venue(1, max(len(scenario.schedule), 1), lo, hi, executions=4 * len(scenario.schedule) + 256)
        self.local: Levels = new_levels(lo, hi)
        self.local_rows = [(_ns(e.local_ms), e) for e in scenario.events if e.where != "exch"]
        self.exch_rows = [(_ns(e.exch_ms), e) for e in scenario.events if e.where != "local"]
        self.local_at = self.exch_at = 0
        self.requests: deque[tuple[int, Order]] = deque()
        self.answers: deque[tuple[int, Order]] = deque()
        self.orders: dict[int, Order] = {}
        self.at_venue: dict[int, Order] = {}
        self.account = Account(scenario.config, scenario.tick_size, scenario.lot_size)
        self.latency: list[float] | None = None
        self.out = Played()

    def ticks(self, price: float) -> int:
        return int(round_half_away(price / self.s.tick_size))

    def lots(self, qty: float) -> int:
        return int(round_half_away(qty / self.s.lot_size))

    # -- time

    def play(self) -> Played:
        actions = deque(sorted(self.s.schedule, key=lambda a: a.at_ms))
        seen: dict[int, tuple[str, int, int]] = {}
        end = _ns(self.s.end_ms) - _STEP_NS
        now = 0
        while True:
            due = _ns(actions[0].at_ms) if actions else _NEVER
            wake = min(self.next_ns(), due)
            if wake >= _NEVER:
                break
            # the next look: on the grid, after the last one, not before something happens
            now = max(now + _STEP_NS, -(-wake // _STEP_NS) * _STEP_NS)
            if now > end:
                break
            self.run_until(now)
            for order in self.orders.values():
                state = (order.status, order.exch_ns, order.leaves_lots)
                if order.status in ("FILLED", "PARTIALLY_FILLED") and seen.get(order.id) != state:
                    seen[order.id] = state
                    self.out.fills.append(
                        SeenFill(
                            order.id,
                            order.side,
                            order.status,
                            order.exec_ticks,
                            order.exec_lots,
                            order.leaves_lots,
                            order.maker,
                            order.exch_ns,
                            now,
                            self.account.position,
                        )
                    )
            while actions and _ns(actions[0].at_ms) <= now:
                self.act(actions.popleft(), now)
        a = self.account
        self.out.final = {
            "position": a.position,
            "balance": a.balance,
            "fee": a.fee,
            "num_trades": a.num_trades,
            "trading_volume": a.trading_volume,
            "trading_value": a.trading_value,
            "best_bid_tick": int(self.local.i[BEST_BID]),
            "best_ask_tick": int(self.local.i[BEST_ASK]),
            "order_latency_ms": self.latency,
        }
        return self.out

    def next_ns(self) -> int:
        return min(
            self.local_rows[self.local_at][0] if self.local_at < len(self.local_rows) else _NEVER,
            self.answers[0][0] if self.answers else _NEVER,
            self.exch_rows[self.exch_at][0] if self.exch_at < len(self.exch_rows) else _NEVER,
            self.requests[0][0] if self.requests else _NEVER,
        )

    def run_until(self, until_ns: int) -> None:
        while (t := self.next_ns()) <= until_ns:
            if self.local_at < len(self.local_rows) and self.local_rows[self.local_at][0] == t:
                self.on_local_row(self.local_rows[self.local_at][1])
                self.local_at += 1
            elif self.answers and self.answers[0][0] == t:
                self.on_answer(*self.answers.popleft())
            elif self.exch_at < len(self.exch_rows) and self.exch_rows[self.exch_at][0] == t:
                self.on_exch_row(*self.exch_rows[self.exch_at])
                self.exch_at += 1
            else:
                self.on_request(*self.requests.popleft())

    # -- the market

    def row(self, e: Event) -> tuple[int, int, int, float]:
        return _KINDS[e.kind], _SIDES.get(e.side or "", 0), self.ticks(e.px) if e.px is not None else 0, e.qty or 0.0

    def after_clear(self, levels: Levels, kind: int, side: int, price_ticks: int) -> None:
        if kind == CLEAR and side != 0 and price_ticks != 0 and CLEAR_ONE_TOO_FAR in self.defects:
            best = next_level(levels, side, price_ticks - side)
            levels.i[BEST_BID if side > 0 else BEST_ASK] = best
            if best == 0:
                # it also forgets how far out the side's levels lie
                levels.i[OUTER_BID if side > 0 else OUTER_ASK] = 2**62 if side > 0 else 0

    def on_local_row(self, e: Event) -> None:
        kind, side, price_ticks, qty = self.row(e)
        if kind in (DEPTH, SNAPSHOT):
            status = level_set(self.local, REFERENCE, 0.5 * self.s.lot_size, side, price_ticks, qty)
        else:
            status = levels_clear(self.local, side, price_ticks) if kind == CLEAR else OK
        if status != OK:
            raise DataError(f"{self.s.name}: the local book left its window at {e.local_ms} ms")
        self.after_clear(self.local, kind, side, price_ticks)

    def on_exch_row(self, now_ns: int, e: Event) -> None:
        kind, side, price_ticks, qty = self.row(e)
        if venue_on_row(self.x, self.venue, kind, side, FLAG_LAST, price_ticks, qty, -1) != OK:
            raise DataError(f"{self.s.name}: the venue's book left its window at {e.exch_ms} ms")
        self.after_clear(self.venue.levels, kind, side, price_ticks)
        for order in self.executed(now_ns):
            self.answer(now_ns, order)

    # -- the venue's side of our orders

    def executed(self, now_ns: int) -> Iterator[Order]:
        """Orders as the venue knows them after each execution of the event at hand."""
        e = self.venue.executions
        if e.n[0] > len(e.id):
            raise DataError(f"{self.s.name}: one event executed more ({int(e.n[0])}) than the buffers hold")
        for k in range(int(e.n[0])):
            order = self.at_venue[int(e.id[k])]
            order.exec_ticks, order.exec_lots, order.leaves_lots = int(e.price_ticks[k]), int(e.lots[k]), int(e.leaves_lots[k])
            order.maker, order.exch_ns = bool(e.maker[k]), now_ns
            order.status = "FILLED" if order.leaves_lots == 0 else "PARTIALLY_FILLED"
            if order.leaves_lots == 0:
                del self.at_venue[order.id]
            self.out.executions.append((order.id, now_ns, order.exec_ticks, order.exec_lots, order.leaves_lots, order.maker))
            yield order

    def answer(self, now_ns: int, order: Order) -> None:
        at = max(now_ns + self.response_ns, self.answers[-1][0] if self.answers else 0)
        self.answers.append((at, _copy(order)))

    def on_request(self, now_ns: int, request: Order) -> None:
        what, request.request = request.request, "none"
        request.exch_ns = now_ns
        if what == "new":
            self.at_venue[request.id] = request
            self.arrived(now_ns, request, self.ask(now_ns, PLACE, request, request.lots))
        elif request.id not in self.at_venue:
            request.request = "rejected"
            self.answer(now_ns, request)
        elif what == "cancel":
            self.ask(now_ns, CANCEL, request, 0)
            order = self.at_venue.pop(request.id)
            order.status, order.exch_ns = "CANCELED", now_ns
            self.answer(now_ns, order)
        else:
            self.modify(now_ns, request)

    def ask(self, now_ns: int, what: int, order: Order, lots: int, price_ticks: int | None = None) -> int:
        price = order.price_ticks if price_ticks is None else price_ticks
        return int(venue_on_request(self.x, self.venue, now_ns, self.exch_at, 0, what, order.id, order.side, price, lots, order.tif, order.type, 0))

    def arrived(self, now_ns: int, order: Order, result: int) -> None:
        """The venue's answer to an order that arrived: with each of its executions, or, as the reference, once with the last."""
        for after in self.executed(now_ns):
            if LAST_CHUNK_ONLY not in self.defects and after.leaves_lots > 0:
                self.answer(now_ns, after)
        if result == RESTING:
            order.status = "NEW"
        elif result == EXPIRED:
            order.status = "EXPIRED"
            if order.type == MARKET and EMPTY_SIDE_FILLS in self.defects and self.x.partial == 0:
                order.status, order.exec_ticks, order.exec_lots, order.leaves_lots = "FILLED", _FAR_TICKS[order.side], order.lots, 0
            del self.at_venue[order.id]
        elif result != FILLED:
            raise DataError(f"{self.s.name}: the venue refused order {order.id} ({'rejected' if result == REJECTED else result})")
        self.answer(now_ns, order)

    def modify(self, now_ns: int, request: Order) -> None:
        order = self.at_venue[request.id]
        own = self.venue.own.orders
        slot = find_order(self.venue.own, 0, request.id)
        keeps_place = own[PRICE_TICKS, slot] == request.price_ticks and request.lots <= own[LEAVES_LOTS, slot]
        order.price_ticks, order.lots, order.sent_ns, order.exch_ns = request.price_ticks, request.lots, request.sent_ns, now_ns
        if keeps_place or MODIFY_KEEPS_QUANTITY not in self.defects:
            order.leaves_lots = request.lots
            result = self.ask(now_ns, MODIFY, request, request.lots)
        else:
            # what the client thought was left is what it executes
            order.leaves_lots = request.leaves_lots
            side, tif, kind, purpose = (int(own[row, slot]) for row in (SIDE, TIF, ORDER_TYPE, PURPOSE))
            self.ask(now_ns, CANCEL, request, 0)
            result = int(
                venue_on_request(
                    self.x, self.venue, now_ns, self.exch_at, 0, PLACE, order.id, side, order.price_ticks, order.leaves_lots, tif, kind, purpose
                )
            )
        self.arrived(now_ns, order, result)

    # -- the client's side

    def on_answer(self, now_ns: int, answer: Order) -> None:
        self.latency = [answer.sent_ns / 1e6, answer.exch_ns / 1e6, now_ns / 1e6]
        rejected = answer.request == "rejected"
        executed = answer.status == "FILLED" or (answer.status == "PARTIALLY_FILLED" and LAST_CHUNK_ONLY not in self.defects)
        if executed and (not rejected or FILL_BOOKED_TWICE in self.defects):
            self.account.book(answer.side, answer.exec_ticks, answer.exec_lots, answer.maker)
        known = self.orders[answer.id]
        if not rejected:
            self.orders[answer.id] = _copy(answer, sent_ns=known.sent_ns)
        elif answer.sent_ns == known.sent_ns:
            known.request = "none"

    def act(self, action: Action, now_ns: int) -> None:
        """A call of the client's: its return code is recorded, a request is sent when that is 0."""
        known = self.orders.get(action.order_id)
        if action.op == "submit":
            code = 0 if known is None else 10
            if known is None:
                lots = self.lots(action.qty)
                known = Order(
                    action.order_id,
                    _SIDES[action.side or ""],
                    self.ticks(action.px),
                    lots,
                    lots,
                    _TIFS[action.tif or "GTC"],
                    _TYPES[action.type or "LIMIT"],
                    now_ns,
                    "new",
                )
                self.orders[known.id] = known
        elif known is None:
            code = 12
        elif known.request != "none":
            code = 11
        else:
            code = 0
            known.sent_ns = now_ns
            known.request = "cancel"
            if action.op == "modify":
                known.request, known.price_ticks, known.lots = "modify", self.ticks(action.px), self.lots(action.qty)
        self.out.calls.append(code)
        if code == 0 and known is not None:
            at = max(now_ns + self.entry_ns, self.requests[-1][0] if self.requests else 0)
            self.requests.append((at, _copy(known)))


def play(scenario: Scenario, run: Run, defects: Iterable[str] = ()) -> Played:
    """Play one run of a scenario through the venue's kernels (plain Python), with the client's defects that are named.

    Raises `DataError` when the scenario cannot be played.
    """
    return _Play(scenario, run, frozenset(defects)).play()


# -- the comparison --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that is not equal."""

    field: str
    expected: Any
    got: Any


def _close(expected: Any, got: Any, step: float) -> bool:
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)) and not isinstance(expected, bool):
        return abs(expected - got) <= 1e-6 * step + 1e-9 * max(abs(expected), abs(got))
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(_close(a, b, step) for a, b in zip(expected, got, strict=True))
    return bool(expected == got)


def difference(scenario: Scenario, run: Run, got: Played) -> Difference | None:
    """The first difference between a run of ours and the reference's record, None when there is none."""
    expected_calls = [_CODES.get(c.rc, c.rc) if isinstance(c.rc, str) else c.rc for c in run.calls]
    if run.calls and expected_calls != got.calls:
        return Difference("calls", expected_calls, got.calls)
    tick, lot = scenario.tick_size, scenario.lot_size
    # several own orders hit by one event come in random order in the reference
    theirs = sorted(run.fills, key=lambda f: (f.local_seen_ms, f.exch_ts_ms, f.order_id))
    ours = sorted(got.fills, key=lambda f: (f.seen_ns, f.exch_ns, f.order_id))
    for n, (a, b) in enumerate(zip(theirs, ours, strict=False)):
        pairs = (
            ("order_id", a.order_id, b.order_id, 1.0),
            ("side", _SIDES[a.side], b.side, 1.0),
            ("status", a.status, b.status, 1.0),
            ("price", a.price, b.price_ticks * tick, tick),
            ("qty", a.qty, b.lots * lot, lot),
            ("leaves_after", a.leaves_after, b.leaves_lots * lot, lot),
            ("maker", a.maker, b.maker, 1.0),
            ("exch_ts_ms", a.exch_ts_ms, b.exch_ns / 1e6, 1.0),
            ("local_seen_ms", a.local_seen_ms, b.seen_ns / 1e6, 1.0),
            ("position_after", a.position_after, b.position, lot),
        )
        for name, expected, have, step in pairs:
            if not _close(expected, have, step):
                return Difference(f"fills[{n}].{name}", expected, have)
    if len(theirs) != len(ours):
        first = len(ours) if len(theirs) > len(ours) else len(theirs)
        return Difference(
            f"fills[{first}]",
            msgspec.to_builtins(theirs[first]) if first < len(theirs) else None,
            msgspec.to_builtins(ours[first]) if first < len(ours) else None,
        )
    for name, final in (run.final or {}).items():
        # the reference's ticks of a side without levels lie beyond all prices
        none = name.startswith("best_") and (final is None or abs(final) >= _NEVER)
        if not _close(0 if none else final, got.final.get(name), 1e-3):
            return Difference(f"final.{name}", final, got.final.get(name))
    return None


def _whole(lots: float) -> bool:
    return abs(lots - round(lots)) <= 1e-6


def _reason_to_skip(scenario: Scenario, run: Run) -> str | None:
    if not run.stable:
        return "the reference itself differs between repetitions of this run"
    if run.queue_model == "L3FIFO":
        return "a book of single orders (L3): this engine matches against a book of levels"
    if run.queue_model.partition("(")[0] not in _MODELS:
        return f"queue model {run.queue_model} is not known; known are {', '.join(_MODELS)}"
    if run.error is not None:
        return f"the reference aborted this run with {run.error}: its record ends early"
    for fill in run.fills:
        if not _whole(fill.qty / scenario.lot_size) or not _whole(fill.leaves_after / scenario.lot_size):
            return f"the reference filled {fill.qty} of order {fill.order_id}, no whole number of lots of {scenario.lot_size}; this engine trades whole lots"
    for event in scenario.events:
        if event.kind not in _KINDS:
            return f"row kind {event.kind} is not part of a book of levels"
    for action in scenario.schedule:
        if action.op != "cancel" and not _whole(action.qty / scenario.lot_size):
            return f"order {action.order_id} of {action.qty} is no whole number of lots of {scenario.lot_size}; this engine trades whole lots"
    return None


def _fraction_of_a_lot(scenario: Scenario) -> float | None:
    """A level that holds no whole number of lots, if there is one."""
    quantities = (e.qty for e in scenario.events if e.kind in ("depth", "snapshot") and e.qty is not None)
    return next((qty for qty in quantities if not _whole(qty / scenario.lot_size)), None)


def judge(scenario: Scenario) -> dict[str, Any]:
    """Play all runs of a scenario; the line that is printed for it, without the file's name."""
    line: dict[str, Any] = {"runs": len(scenario.runs), "equal": 0, "differing": [], "deviations": [], "skipped": []}
    for n, run in enumerate(scenario.runs):
        what = {"run": n, "queue_model": run.queue_model, "exchange": run.exchange, "latency_ms": run.entry_latency_ms + run.resp_latency_ms}
        if (reason := _reason_to_skip(scenario, run)) is not None:
            line["skipped"].append({**what, "reason": reason})
            continue
        base = [LAST_CHUNK_ONLY] if run.exchange == "PartialFill" else []
        first = difference(scenario, run, play(scenario, run, base))
        if first is None:
            line["equal"] += 1
            continue
        shown = {**what, "field": first.field, "expected": first.expected, "got": first.got}
        for defects in (list(some) for n_defects in range(1, len(_CLIENT_DEFECTS) + 1) for some in combinations(_CLIENT_DEFECTS, n_defects)):
            if difference(scenario, run, play(scenario, run, base + defects)) is None:
                # the venue did the same in every fill; only what the reference's client made of it differs
                counted_as = "equal" if defects == [FILL_BOOKED_TWICE] else "deviation"
                line["equal"] += counted_as == "equal"
                line["deviations"].append({**shown, "counted_as": counted_as, "reference_defects": defects})
                break
        else:
            if run.exchange == "PartialFill" and (level := _fraction_of_a_lot(scenario)) is not None:
                reason = f"it differs in {first.field}, and the reference takes fractions of lots from levels such as {level}; this engine trades whole lots"
                line["skipped"].append({**what, "reason": reason})
            else:
                line["differing"].append(shown)
    return line


def main(arguments: Sequence[str]) -> int:
    """Judge files and print a line for each: exit status 0, 1 when a run differs, 2 when a file cannot be read."""
    if not arguments:
        print("usage: python -m mm_platform.replay.conformance FILE...   (golden case files, plain or .gz)", file=sys.stderr)
        return 2
    status = 0
    for name in arguments:
        try:
            line = judge(read_scenario(Path(name)))
        except (OSError, DataError) as err:
            print(json.dumps({"file": name, "error": str(err)}), flush=True)
            status = 2
            continue
        print(json.dumps({"file": name, **line}), flush=True)
        if line["differing"]:
            status = max(status, 1)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
