"""The trading engine: events in, commands out, synchronous and pure.

Belongs here: the state of one strategy on one instrument (local book, signals, working orders, ledger, latches) and what each event does
to it. Does not belong here: formulas (`kernels`), time, disk, network, randomness (`live`), recorded rows (`replay`).

The market side is that of `tape.features`, the decision that of the replay loop: same kernels, plain-Python twins. What comes in is the
whole input: the same events always give the same commands, which is what makes the journal a proof.

Event to command:

| event | effect |
|---|---|
| BookSnapshot, BookDelta, BookTop, Trade | local book and signals |
| Timer `decision` | risk, hedge, quote, orders; a Note with the reasons; the next SetTimer |
| OrderAck, OrderReject, OrderUpdate, OrderUnknown, Fill, Funding | working orders and ledger; an unknown outcome is queried |
| ParametersChanged | the next decision uses the new set; orders and position stay |
| Control, Disconnected, Position | pull quotes, halt, reduce, resume |
| MarkPrice, InstrumentStatus, Balance | nothing yet |
"""

from __future__ import annotations

import math
from typing import Final, NoReturn

import numpy as np

from mm_platform.core.commands import AnyCommand, Cancel, CancelAll, Halt, Note, Place, Query, SetTimer
from mm_platform.core.errors import DataError, InvariantError
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
from mm_platform.core.parameters import decode_parameter_set
from mm_platform.core.units import NS_PER_S
from mm_platform.engine.settings import EngineSettings, decision_params
from mm_platform.kernels.accounting import FEES, NANO, POSITION, identity_residual_quanta, ledger_mark, money_of
from mm_platform.kernels.book import book_apply_top, book_clear, book_set, book_top, new_book
from mm_platform.kernels.decision import (
    ACT_PLACE,
    HALTED_LATCH,
    NEXT_ID,
    NO_VIEW,
    QUOTE_VENUE,
    DecisionParams,
    LocalState,
    MarketView,
    Trace,
    cancel_quotes,
    decide_step,
    local_on_ack,
    local_on_fill,
    local_on_funding,
    local_on_gone,
    local_on_reject,
    new_actions,
    new_local_state,
)
from mm_platform.kernels.exchange import GTC, GTX, IOC
from mm_platform.kernels.orders import PENDING_CANCEL, PURPOSES, local_find
from mm_platform.kernels.signals import ASK_TICKS, BID_TICKS, LAST_MID_HALF, new_signal_state, signal_on_top, signal_on_trade, signal_read

DECISION: Final = "decision"
BOOK_CAPACITY: Final = 65_536
_TIF: Final = {GTC: "GTC", GTX: "GTX", IOC: "IOC"}
# a reject with this code speaks of a cancel, not of the order: a fill or another answer is on its way
CANCEL_REJECTED: Final = "cancel_rejected"


class Engine:
    """One strategy on one instrument.

    Parameters
    ----------
    settings : EngineSettings
        Everything fixed for the run. Parameters come with the first `ParametersChanged`, before the first decision.
    """

    def __init__(self, settings: EngineSettings) -> None:
        spec = settings.spec
        self._settings = settings
        self._instrument = spec.instrument
        self._tick = float(spec.tick)
        self._signal_params = settings.signals._replace(tick_size=self._tick, lot_base=spec.lot_base)
        self._signals = new_signal_state()
        self._book = new_book(BOOK_CAPACITY)
        self._depth_seq = -1
        self._params: DecisionParams | None = None
        self._version = ""
        self._state: LocalState | None = None
        self._actions = new_actions()
        self._now_ns = -1
        self._market_ns = -1
        self._down = False
        self._position_doubted = False
        self._reduce_only = False

    # -- what the runner may read --------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> EngineSettings:
        return self._settings

    @property
    def parameter_version(self) -> str:
        """Registry version of the parameters in force, empty before the first."""
        return self._version

    @property
    def state(self) -> LocalState:
        """The state of the run (orders, ledger, latches); raises `InvariantError` before the first parameters."""
        if self._state is None:
            self._illegal("the state was read before parameters came")
        return self._state

    @property
    def position_lots(self) -> int:
        """Position from our own fills, lots; 0 before the first parameters."""
        return 0 if self._state is None else int(self._state.ledger[POSITION])

    @property
    def mid_half_ticks(self) -> int:
        """Last two-sided, uncrossed mid the local side saw, half ticks; 0 = none yet."""
        return int(self._signals.i[LAST_MID_HALF])

    @property
    def orders_working(self) -> int:
        """Orders not known to be gone."""
        return 0 if self._state is None else int(np.count_nonzero(self._state.orders.status))

    def ledger(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """A copy of the ledger, marked at the local mid; raises `InvariantError` when its parts do not sum."""
        ledger = self.state.ledger.copy()
        if self.mid_half_ticks > 0:
            ledger_mark(ledger, money_of(self._settings.spec), self.mid_half_ticks)
        residual = identity_residual_quanta(ledger)
        if residual != 0:
            self._illegal(f"the ledger's parts do not sum to its total (off by {residual} quanta)")
        return ledger

    # -- the one entry -------------------------------------------------------------------------------------------------------------------

    def handle(self, event: AnyEvent) -> tuple[AnyCommand, ...]:
        """Take one event, in order of `local_ts`; return what to do, in this order.

        Raises
        ------
        InvariantError
            An event that cannot be: of another instrument, from before the last one, about an order that was never sent, a decision
            before parameters.
        ConfigError
            Parameters that do not fit the instrument or the limits (the runner checks first).
        DataError
            A book that outgrows its bound.
        """
        if event.instrument != self._instrument:
            self._illegal(f"an event of {event.instrument} reached this engine")
        if event.local_ts < self._now_ns:
            self._illegal(f"{type(event).__name__} at {event.local_ts} ns came after an event at {self._now_ns} ns")
        self._now_ns = event.local_ts
        match event:
            case BookDelta() | BookTop() | BookSnapshot():
                return self._on_book(event)
            case Trade():
                self._market_ns = event.local_ts
                if event.market:
                    signal_on_trade(self._signals, self._signal_params, event.local_ts, event.side, event.price_ticks, event.qty_lots)
                return ()
            case Timer():
                if event.name != DECISION:
                    self._illegal(f"timer {event.name!r} was never asked for")
                return self._decide(event.local_ts)
            case OrderAck() | OrderReject() | OrderUpdate() | OrderUnknown():
                return self._on_answer(event)
            case Fill():
                self._on_fill(event)
                return ()
            case Funding():
                if self._state is not None and self._params is not None:
                    local_on_funding(self._state, self._params.money, QUOTE_VENUE, event.rate, event.mark_price)
                return ()
            case ParametersChanged():
                return self._on_parameters(event)
            case Control():
                return self._on_control(event)
            case Disconnected():
                self._down = True
                return self._pull(event.local_ts, f"{event.stream}: {event.reason}")
            case Position():
                return self._on_position(event)
            case MarkPrice() | InstrumentStatus() | Balance():
                return ()

    # -- market --------------------------------------------------------------------------------------------------------------------------

    def _on_book(self, event: BookSnapshot | BookDelta | BookTop) -> tuple[AnyCommand, ...]:
        book = self._book
        full = 0
        match event:
            case BookSnapshot():
                book_clear(book, 0)
                for ticks, lots in reversed(event.bids):
                    full |= book_set(book, 1, ticks, lots)
                for ticks, lots in reversed(event.asks):
                    full |= book_set(book, -1, ticks, lots)
                self._depth_seq = max(self._depth_seq, event.seq)
                self._down = False
            case BookDelta():
                if self._down:
                    # without the snapshot that must come first, changes say nothing
                    return ()
                for side, ticks, lots in event.levels:
                    full |= book_set(book, side, ticks, lots)
                self._depth_seq = max(self._depth_seq, event.seq)
            case BookTop():
                if not self._down and (event.seq < 0 or event.seq > self._depth_seq):
                    if event.bid_ticks > 0:
                        full |= book_apply_top(book, 1, event.bid_ticks, event.bid_lots)
                    if event.ask_ticks > 0:
                        full |= book_apply_top(book, -1, event.ask_ticks, event.ask_lots)
        if full != 0:
            raise DataError(f"{self._instrument}: the local book outgrew {BOOK_CAPACITY} levels on one side at {event.local_ts} ns")
        self._market_ns = event.local_ts
        bid, bid_lots, ask, ask_lots = book_top(book)
        signal_on_top(self._signals, self._signal_params, event.local_ts, bid, bid_lots, ask, ask_lots)
        return ()

    # -- decisions -----------------------------------------------------------------------------------------------------------------------

    def _view(self, now_ns: int) -> MarketView:
        s = signal_read(self._signals, self._signal_params, now_ns)
        age = self._settings.limits.max_book_age_s
        stale = age is not None and now_ns - self._market_ns > age * NS_PER_S
        valid = 0 if self._down or self._position_doubted or stale else int(s.valid)
        return MarketView(
            valid,
            int(self._signals.i[BID_TICKS]),
            int(self._signals.i[ASK_TICKS]),
            float(s.microprice_ticks * self._tick),
            float(s.order_flow_imbalance),
            float(s.kyle_lambda),
            float(s.short_volatility),
        )

    def _decide(self, now_ns: int) -> tuple[AnyCommand, ...]:
        if self._params is None or self._state is None:
            self._illegal("a decision was due before parameters came")
        params = self._params
        if self._reduce_only:
            # no room beyond flat: quotes can only bring the position back
            params = params._replace(risk=params.risk._replace(max_position_lots=0))
        view = self._view(now_ns)
        trace = decide_step(params, view, NO_VIEW, self._state, self._actions, now_ns)
        return (*self._commands(now_ns), self._note(now_ns, view, trace), self._timer(now_ns + self._settings.step_ns))

    def _commands(self, now_ns: int) -> list[AnyCommand]:
        a = self._actions
        out: list[AnyCommand] = []
        for k in range(int(a.n[0])):
            client_id = self._settings.client_id(int(a.id[k]))
            if a.kind[k] == ACT_PLACE:
                purpose = int(a.purpose[k])
                out.append(
                    Place(
                        instrument=self._instrument,
                        ts=now_ns,
                        client_id=client_id,
                        side=int(a.side[k]),
                        price_ticks=int(a.price_ticks[k]),
                        qty_lots=int(a.lots[k]),
                        tif=_TIF[int(a.tif[k])],  # type: ignore[arg-type]
                        purpose=PURPOSES[purpose],
                        # flattening may never build a position, whatever the local side believes
                        reduce_only=PURPOSES[purpose] == "flatten",
                    )
                )
            else:
                out.append(Cancel(instrument=self._instrument, ts=now_ns, client_id=client_id))
        a.n[0] = 0
        return out

    def _note(self, now_ns: int, view: MarketView, trace: Trace) -> Note:
        return Note(
            instrument=self._instrument,
            ts=now_ns,
            name=DECISION,
            data={
                "valid": view.valid,
                "mid_half_ticks": view.bid_ticks + view.ask_ticks,
                "position_lots": self.position_lots,
                "reservation_price": _finite(trace.reservation),
                "half_spread_frac": _finite(trace.half_spread),
                "wanted_bid_ticks": int(trace.wanted_bid_ticks),
                "wanted_ask_ticks": int(trace.wanted_ask_ticks),
                "clamps": int(trace.clamps),
                "reasons": int(trace.reasons),
                "order_flow_imbalance": _finite(view.order_flow_imbalance),
                "short_volatility": _finite(view.short_volatility),
                "parameter_version": self._version,
            },
        )

    def _timer(self, at_ns: int) -> SetTimer:
        return SetTimer(instrument=self._instrument, ts=self._now_ns, name=DECISION, at_ns=at_ns)

    def _pull(self, now_ns: int, reason: str) -> tuple[AnyCommand, ...]:
        """Cancel working quotes at once."""
        if self._state is None:
            return ()
        self._actions.n[0] = 0
        cancel_quotes(self._state, self._actions, 0)
        note = Note(instrument=self._instrument, ts=now_ns, name="pull", data={"reason": reason, "cancels": int(self._actions.n[0])})
        return (*self._commands(now_ns), note)

    # -- our orders ----------------------------------------------------------------------------------------------------------------------

    def _order(self, client_id: str, what: str) -> int:
        """The number of an order of ours that was sent; anything else means that the venue and we do not speak of the same run."""
        number = self._settings.order_number(client_id)
        if self._state is None or number < 1 or number >= self._state.i[NEXT_ID]:
            self._illegal(f"{what} for order {client_id!r}, which this run never sent")
        return number

    def _on_answer(self, event: OrderAck | OrderReject | OrderUpdate | OrderUnknown) -> tuple[AnyCommand, ...]:
        number = self._order(event.client_id, type(event).__name__)
        state, params = self.state, self._params
        if params is None:
            self._illegal("an answer came before parameters")
        match event:
            case OrderAck():
                local_on_ack(state, number)
            case OrderReject():
                if event.code != CANCEL_REJECTED:
                    local_on_reject(state, params.orders, number, event.local_ts)
            case OrderUpdate():
                at = local_find(state.orders, number)
                if event.status == "open":
                    if at >= 0 and event.leaves_lots > state.orders.leaves_lots[at]:
                        self._illegal(
                            f"order {event.client_id} is open with {event.leaves_lots} lots, we know of {int(state.orders.leaves_lots[at])}"
                        )
                    local_on_ack(state, number)
                elif event.status == "filled":
                    # the fills themselves move the ledger and free the place; until they came, the lots still count as exposure
                    if at >= 0:
                        return (self._query("fills", event.client_id),)
                elif event.status == "rejected":
                    local_on_reject(state, params.orders, number, event.local_ts)
                else:
                    local_on_gone(state, number)
            case OrderUnknown():
                # the place stays taken and counts towards exposure until the venue says what became of it
                return (self._query("order", event.client_id),)
        return ()

    def _query(self, what: str, client_id: str) -> Query:
        return Query(instrument=self._instrument, ts=self._now_ns, what=what, client_id=client_id)  # type: ignore[arg-type]

    def _on_fill(self, event: Fill) -> None:
        number = self._order(event.client_id, "fill")
        state, params = self.state, self._params
        if params is None:
            self._illegal("a fill came before parameters")
        at = local_find(state.orders, number)
        if event.qty_lots < 1 or event.side not in (1, -1):
            self._illegal(f"fill {event.trade_id} of {event.client_id}: {event.qty_lots} lots on side {event.side}")
        if at >= 0 and (int(state.orders.side[at]) != event.side or event.qty_lots + event.leaves_lots > state.orders.leaves_lots[at]):
            self._illegal(
                f"fill {event.trade_id} of {event.client_id}: side {event.side}, {event.qty_lots} lots and {event.leaves_lots} left do not fit "
                f"side {int(state.orders.side[at])} with {int(state.orders.leaves_lots[at])} lots"
            )
        if at < 0:
            self._illegal(f"fill {event.trade_id} of {event.client_id}, an order that the venue had called gone")
        mid_half = event.mid_half_ticks or self.mid_half_ticks or 2 * event.price_ticks
        fee = local_on_fill(
            params,
            state,
            params.money,
            QUOTE_VENUE,
            number,
            event.side,
            event.price_ticks,
            event.qty_lots,
            event.leaves_lots,
            1 if event.maker else 0,
            mid_half,
            event.local_ts,
        )
        # what the venue charged is the truth, the fee schedule an expectation
        state.ledger[FEES] += round(event.fee_quote * NANO) - int(fee)

    # -- parameters and control ----------------------------------------------------------------------------------------------------------

    def _on_parameters(self, event: ParametersChanged) -> tuple[AnyCommand, ...]:
        pset = decode_parameter_set(event.parameters)
        if pset.sha256() != event.sha256:
            self._illegal(f"parameters of version {event.version} have sha256 {pset.sha256()}, the event says {event.sha256}")
        params = decision_params(pset, self._settings.spec, self._settings.limits)
        first = self._state is None
        self._params = params
        self._version = event.version
        note = Note(
            instrument=self._instrument, ts=event.local_ts, name="parameters", data={"version": event.version, "sha256": event.sha256, "first": first}
        )
        if not first:
            return (note,)
        self._state = new_local_state(self._settings.start_ns, params.orders)
        return note, self._timer(max(self._settings.start_ns, event.local_ts))

    def _on_control(self, event: Control) -> tuple[AnyCommand, ...]:
        state = self.state
        match event.action:
            case "halt":
                state.i[HALTED_LATCH] = 1
                for i in range(state.orders.id.shape[0]):
                    if state.orders.status[i] != 0:
                        state.orders.status[i] = PENDING_CANCEL
                return (
                    CancelAll(instrument=self._instrument, ts=event.local_ts, reason=event.reason),
                    Halt(instrument=self._instrument, ts=event.local_ts, reason=event.reason),
                )
            case "reduce":
                self._reduce_only = True
                return self._pull(event.local_ts, f"reduce: {event.reason}")
            case "resume":
                state.i[HALTED_LATCH] = 0
                self._reduce_only = False
                self._position_doubted = False
                return (Note(instrument=self._instrument, ts=event.local_ts, name="resume", data={"reason": event.reason}),)

    def _on_position(self, event: Position) -> tuple[AnyCommand, ...]:
        """The venue's word on the position: while it differs from our fills with nothing in flight, we neither quote nor trade."""
        if event.lots == self.position_lots:
            self._position_doubted = False
            return ()
        if self.orders_working > 0:
            # a fill may be on its way: ask again once things are quiet
            return ()
        self._position_doubted = True
        reason = f"the venue reports {event.lots} lots, our fills sum to {self.position_lots}"
        return (*self._pull(event.local_ts, reason), Halt(instrument=self._instrument, ts=event.local_ts, reason=reason))

    def _illegal(self, what: str) -> NoReturn:
        raise InvariantError(f"{self._instrument}: {what}; this is a fault of ours or of the connector: cancel everything and stop")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
