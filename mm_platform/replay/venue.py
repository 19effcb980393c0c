"""The simulated venue: the replay's exchange step in plain Python, fed with tape rows and commands, answering with core events.

Belongs here: what the replay loop does between two decisions, one event at a time, so that a runner can sit on the other side: both
clocks, both message queues, and the grouping of rows into the events a trader would see. Does not belong here: matching
(`kernels.exchange`), decisions (`kernels.decision`), sleeping (`live`).

The order of things is that of `replay.loop`: at one instant local market data, then answers, then timers, then recorded rows at the
venue, then arriving requests. A parity test holds both to the same fills.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from mm_platform.core.book_state import BookState
from mm_platform.core.commands import AnyCommand, ArmDeadMan, Cancel, CancelAll, Halt, Note, Place, Query, Replace, SetTimer
from mm_platform.core.errors import ConfigError, DataError, InvariantError
from mm_platform.core.events import AnyEvent, BookSnapshot, Fill, OrderAck, OrderReject, OrderUpdate, Position, Timer
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.accounting import NANO, POSITION, Money, identity_residual_quanta, ledger_mark, new_ledger
from mm_platform.kernels.book import book_top, load_book
from mm_platform.kernels.exchange import EXPIRED, FILLED, GTC, GTX, IOC, NO_ROOM, RESTING, new_executions, new_own_orders
from mm_platform.kernels.venue import (
    DEPTH_SEQ,
    MID_HALF,
    REQUEST_CANCEL,
    REQUEST_PLACE,
    VENUE_I_SIZE,
    VenueState,
    venue_after_row,
    venue_book_execution,
    venue_on_request,
    venue_on_row,
    venue_reduce_only,
)
from mm_platform.replay.market_events import EventBuilder
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import BOOK_CAPACITY
from mm_platform.tape.layout import Tape

_FOREVER: Final = 2**62
_TIF: Final = {"GTC": GTC, "GTX": GTX, "IOC": IOC}
_QUERY: Final = -1
_CANCEL_ALL: Final = -2

# codes of OrderReject
POST_ONLY_WOULD_CROSS: Final = "post_only_would_cross"
NO_FREE_SLOT: Final = "no_free_slot"
CANCEL_REJECTED: Final = "cancel_rejected"

_REMEMBERED_ORDERS: Final = 4096


class _Request(NamedTuple):
    ts: int
    what: int
    client_id: str
    side: int
    price_ticks: int
    lots: int
    tif: int
    query: str
    reduce_only: bool = False


@dataclass(frozen=True, slots=True)
class VenueStart:
    """Where a simulated run begins.

    book : the book before the first row (venue and local side alike). at_ns : a time not later than the first row's, ns.
    """

    book: BookState
    at_ns: int


def tape_chunks(tape: Tape, rows: int = 8192) -> Iterator[Tape]:
    """A tape in pieces of `rows` rows, for `SimulatedVenue`; only the first piece carries the initial book."""
    for lo in range(0, len(tape), rows):
        hi = lo + rows
        columns = {name: column[lo:hi] for name, column in tape.columns().items()}
        yield Tape(tape.spec, **columns, initial_book=tape.initial_book if lo == 0 else BookState.empty(), sha256=tape.sha256)  # type: ignore[arg-type]


class SimulatedVenue:
    """A venue made of recorded rows: takes commands, gives events in local-time order.

    Parameters
    ----------
    spec : InstrumentSpec
        The instrument the rows are of.
    chunks : iterable of Tape
        Rows in venue order, in pieces of any size; read only as far as simulated time has come.
    settings : ReplaySettings
        Venue model and the two order latencies.
    money : Money
        Fees and the size of a tick and a lot.
    start : VenueStart
        The book before the first row.
    end_ns : int, optional
        Nothing that happens at or after this time is returned. Without it the venue ends with its rows; timers alone do not keep it alive.

    Raises
    ------
    DataError
        From `next_event`: rows out of venue order, a book that outgrows its bound, a one-sided clear.
    """

    def __init__(
        self, spec: InstrumentSpec, chunks: Iterable[Tape], settings: ReplaySettings, money: Money, start: VenueStart, *, end_ns: int | None = None
    ) -> None:
        self._spec = spec
        self._instrument = spec.instrument
        self._chunks = iter(chunks)
        self._params = settings.exchange_params(spec.lot_base)
        self._entry_ns = settings.entry_latency_ns
        self._response_ns = settings.response_latency_ns
        self._money = money
        self._end_ns = _FOREVER if end_ns is None else end_ns
        self._venue = VenueState(
            load_book(start.book, BOOK_CAPACITY), new_own_orders(), new_executions(), np.zeros(VENUE_I_SIZE, dtype=np.int64), new_ledger()
        )
        self._venue.i[DEPTH_SEQ] = start.book.seq
        bid, _, ask, _ = book_top(self._venue.book)
        if bid > 0 and ask > bid:
            self._venue.i[MID_HALF] = bid + ask
        self._builder = EventBuilder(spec.instrument)
        # rows that are read but have not happened at the venue yet, as plain lists (scalar access of numpy arrays is slow)
        self._rows: deque[Iterator[tuple[int, int, int, int, int, int, int, float, float]]] = deque()
        self._row: tuple[int, int, int, int, int, int, int, float, float] | None = None
        self._last_read_ns = -1
        self._drained = False
        self._local: list[tuple[int, int, AnyEvent]] = []
        self._answers: deque[AnyEvent] = deque()
        self._last_answer_ns = -1
        self._requests: deque[_Request] = deque()
        self._last_request_ns = -1
        self._timers: list[tuple[int, int, str]] = []
        self._timer_count = 0
        self._ids: dict[str, int] = {}
        self._client: dict[int, str] = {}
        self._order_count = 0
        self._ended: dict[str, OrderUpdate] = {}
        self._fill_count = 0
        self._rows_seen = 0
        if len(start.book.bid_ticks) or len(start.book.ask_ticks):
            heapq.heappush(self._local, (start.at_ns, -1, _snapshot(spec.instrument, start)))

    # -- the port ------------------------------------------------------------------------------------------------------------------------

    def send(self, command: AnyCommand) -> None:
        """Carry out a command decided at `command.ts`; what becomes of it comes back as events.

        Raises `ConfigError` for what this venue does not have, `InvariantError` for a client id sent twice.
        """
        match command:
            case Place():
                self._send_place(
                    command.ts, command.client_id, command.side, command.price_ticks, command.qty_lots, command.tif, reduce_only=command.reduce_only
                )
            case Cancel():
                self._request(_Request(command.ts, REQUEST_CANCEL, command.client_id, 0, 0, 0, 0, ""))
            case Replace():
                self._request(_Request(command.ts, REQUEST_CANCEL, command.cancel_client_id, 0, 0, 0, 0, ""))
                self._send_place(command.ts, command.client_id, command.side, command.price_ticks, command.qty_lots, command.tif)
            case CancelAll():
                self._request(_Request(command.ts, _CANCEL_ALL, "", 0, 0, 0, 0, ""))
            case Query():
                self._request(_Request(command.ts, _QUERY, command.client_id, 0, 0, 0, 0, command.what))
            case SetTimer():
                self._timer_count += 1
                heapq.heappush(self._timers, (command.at_ns, self._timer_count, command.name))
            case ArmDeadMan():
                raise ConfigError("the simulated venue has no dead man's switch; do not arm one in mode sim")
            case Halt() | Note():
                raise InvariantError(f"{type(command).__name__} is for the runner, not for a venue")

    def next_event(self) -> AnyEvent | None:
        """The next thing the local side learns, or None when the run is over."""
        while True:
            # strict comparisons: at equal times the earlier line wins, as in replay.loop
            t = _FOREVER
            what = 0
            if self._local:
                t = self._local[0][0]
                what = 5
            if self._answers and self._answers[0].local_ts < t:
                t = self._answers[0].local_ts
                what = 1
            if self._timers and self._timers[0][0] < t:
                t = self._timers[0][0]
                what = 2
            if self._row is not None and self._row[0] < t:
                t = self._row[0]
                what = 3
            if self._requests and self._requests[0].ts < t:
                t = self._requests[0].ts
                what = 4
            if not self._drained and self._last_read_ns <= t:
                # a row may be seen at its venue time: everything up to t must be known before anything at t is handed out
                self._read_chunk()
                continue
            if t >= self._end_ns or (self._end_ns == _FOREVER and not self._alive()):
                return None
            if what == 3:
                self._on_row()
            elif what == 4:
                self._on_request(self._requests.popleft())
            elif what == 5:
                return heapq.heappop(self._local)[2]
            elif what == 1:
                return self._answers.popleft()
            else:
                at, _, name = heapq.heappop(self._timers)
                return Timer(instrument=self._instrument, exch_ts=at, local_ts=at, name=name)

    # -- the truth, for summaries and tests ----------------------------------------------------------------------------------------------

    @property
    def rows_seen(self) -> int:
        """Rows that have happened at the venue."""
        return self._rows_seen

    def ledger(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """A copy of the venue's own ledger of our account, marked at its mid; raises `InvariantError` when its parts do not sum."""
        if self._venue.i[MID_HALF] != 0:
            ledger_mark(self._venue.ledger, int(self._venue.i[MID_HALF]))
        residual = identity_residual_quanta(self._venue.ledger)
        if residual != 0:
            raise InvariantError(f"{self._instrument}: the venue's ledger is off by {residual} quanta")
        return self._venue.ledger.copy()

    # -- inside --------------------------------------------------------------------------------------------------------------------------

    def _alive(self) -> bool:
        return self._row is not None or bool(self._local or self._answers or self._requests)

    def _read_chunk(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            self._drained = True
            for at, n, event in self._builder.finish():
                heapq.heappush(self._local, (at, n, event))
            return
        if len(chunk) == 0:
            return
        if chunk.spec.instrument != self._instrument:
            raise DataError(f"rows of {chunk.spec.instrument} were fed to the venue of {self._instrument}")
        first = int(chunk.exch_ts[0])
        if first < self._last_read_ns:
            raise DataError(f"{self._instrument}: a piece of tape starts at {first} ns, before the end of the one above ({self._last_read_ns} ns)")
        self._last_read_ns = int(chunk.exch_ts[-1])
        columns = [
            column.tolist()
            for column in (
                chunk.exch_ts,
                chunk.kind,
                chunk.side,
                chunk.flags,
                chunk.price_ticks,
                chunk.qty_lots,
                chunk.seq,
                chunk.value,
                chunk.aux,
            )
        ]
        for at, n, event in self._builder.build(chunk.local_ts.tolist(), *columns):
            heapq.heappush(self._local, (at, n, event))
        self._rows.append(zip(*columns, strict=True))
        if self._row is None:
            self._advance()

    def _advance(self) -> None:
        while self._rows:
            self._row = next(self._rows[0], None)
            if self._row is not None:
                return
            self._rows.popleft()
        self._row = None

    def _on_row(self) -> None:
        row = self._row
        if row is None:
            raise InvariantError("no row is waiting")
        ts, kind, side, flags, price_ticks, lots, seq, value, aux = row
        if venue_on_row(self._params, self._money, self._venue, kind, side, flags, price_ticks, lots, seq, value, aux) != 0:
            raise DataError(f"{self._instrument}: the venue's book outgrew {BOOK_CAPACITY} levels on one side at {ts} ns")
        if self._venue.executions.n[0] > 0:
            self._deliver(ts)
        venue_after_row(self._venue, kind, flags)
        self._rows_seen += 1
        self._advance()

    def _send_place(self, ts: int, client_id: str, side: int, price_ticks: int, lots: int, tif: str, *, reduce_only: bool = False) -> None:
        if client_id in self._ids or client_id in self._ended:
            raise InvariantError(f"client id {client_id} was sent twice; every order needs its own")
        self._order_count += 1
        self._ids[client_id] = self._order_count
        self._client[self._order_count] = client_id
        self._request(_Request(ts, REQUEST_PLACE, client_id, side, price_ticks, lots, _TIF[tif], "", reduce_only))

    def _request(self, request: _Request) -> None:
        arrival = max(request.ts + self._entry_ns, self._last_request_ns)
        self._last_request_ns = arrival
        self._requests.append(request._replace(ts=arrival))

    def _answer_at(self, now_ns: int) -> int:
        self._last_answer_ns = max(now_ns + self._response_ns, self._last_answer_ns)
        return self._last_answer_ns

    def _end(self, client_id: str, update: OrderUpdate) -> None:
        self._client.pop(self._ids.pop(client_id, -1), None)
        self._ended[client_id] = update
        if len(self._ended) > _REMEMBERED_ORDERS:
            del self._ended[next(iter(self._ended))]

    def _update(self, now_ns: int, client_id: str, status: str, leaves_lots: int) -> OrderUpdate:
        return OrderUpdate(
            instrument=self._instrument,
            exch_ts=now_ns,
            local_ts=self._answer_at(now_ns),
            client_id=client_id,
            status=status,  # type: ignore[arg-type]
            leaves_lots=leaves_lots,
        )

    def _deliver(self, now_ns: int) -> None:
        """Book what just executed and send the fills on their way."""
        e = self._venue.executions
        if e.n[0] > e.id.shape[0]:
            raise DataError(f"{self._instrument}: one event executed more of our orders ({int(e.n[0])}) than the buffers hold")
        for k in range(int(e.n[0])):
            mid_half = int(self._venue.i[MID_HALF]) or 2 * int(e.price_ticks[k])
            fee_nano = int(venue_book_execution(self._money, self._venue, k))
            client_id = self._client[int(e.id[k])]
            leaves = int(e.leaves_lots[k])
            self._fill_count += 1
            self._answers.append(
                Fill(
                    instrument=self._instrument,
                    exch_ts=now_ns,
                    local_ts=self._answer_at(now_ns),
                    client_id=client_id,
                    trade_id=str(self._fill_count),
                    side=int(e.side[k]),
                    price_ticks=int(e.price_ticks[k]),
                    qty_lots=int(e.lots[k]),
                    maker=bool(e.maker[k]),
                    fee_quote=fee_nano / NANO,
                    leaves_lots=leaves,
                    mid_half_ticks=mid_half,
                )
            )
            if leaves <= 0:
                self._end(
                    client_id,
                    OrderUpdate(instrument=self._instrument, exch_ts=now_ns, local_ts=now_ns, client_id=client_id, status="filled", leaves_lots=0),
                )

    def _on_request(self, r: _Request) -> None:
        if r.what == _QUERY:
            self._on_query(r)
        elif r.what == _CANCEL_ALL:
            resting = self._venue.orders.id
            for order_id in sorted(int(i) for i in resting if i != 0):
                self._cancel(r.ts, self._client[order_id])
        elif r.what == REQUEST_CANCEL:
            self._cancel(r.ts, r.client_id)
        else:
            self._place(r)

    def _cancel(self, now_ns: int, client_id: str) -> None:
        order_id = self._ids.get(client_id, -1)
        left = int(venue_on_request(self._params, self._venue, REQUEST_CANCEL, order_id, 0, 0, 0, 0))
        if left >= 0:
            update = self._update(now_ns, client_id, "cancelled", left)
            self._answers.append(update)
            self._end(client_id, update)
        else:
            self._reject(now_ns, client_id, CANCEL_REJECTED, "nothing to cancel: the order is not at the venue")

    def _reject(self, now_ns: int, client_id: str, code: str, reason: str) -> None:
        self._answers.append(
            OrderReject(instrument=self._instrument, exch_ts=now_ns, local_ts=self._answer_at(now_ns), client_id=client_id, code=code, reason=reason)
        )

    def _place(self, r: _Request) -> None:
        order_id = self._ids[r.client_id]
        lots = int(venue_reduce_only(self._venue, r.side, r.lots)) if r.reduce_only else r.lots
        if lots == 0:
            update = self._update(r.ts, r.client_id, "expired", 0)
            self._answers.append(update)
            self._end(r.client_id, update)
            return
        answer = venue_on_request(self._params, self._venue, REQUEST_PLACE, order_id, r.side, r.price_ticks, lots, r.tif)
        self._deliver(r.ts)
        if answer == FILLED:
            return
        if answer == RESTING:
            self._answers.append(
                OrderAck(instrument=self._instrument, exch_ts=r.ts, local_ts=self._answer_at(r.ts), client_id=r.client_id, venue_id=str(order_id))
            )
            return
        if answer == NO_ROOM:
            self._reject(r.ts, r.client_id, NO_FREE_SLOT, "the simulated venue holds no more orders of ours")
            update = OrderUpdate(instrument=self._instrument, exch_ts=r.ts, local_ts=r.ts, client_id=r.client_id, status="rejected", leaves_lots=0)
        elif answer == EXPIRED and r.tif == GTX:
            self._reject(r.ts, r.client_id, POST_ONLY_WOULD_CROSS, "a post-only order at this price would have traded at once")
            update = OrderUpdate(instrument=self._instrument, exch_ts=r.ts, local_ts=r.ts, client_id=r.client_id, status="rejected", leaves_lots=0)
        else:
            update = self._update(r.ts, r.client_id, "expired", 0)
            self._answers.append(update)
        self._end(r.client_id, update)

    def _on_query(self, r: _Request) -> None:
        orders = self._venue.orders
        if r.query == "positions":
            lots = int(self._venue.ledger[POSITION])
            self._answers.append(Position(instrument=self._instrument, exch_ts=r.ts, local_ts=self._answer_at(r.ts), lots=lots))
            return
        if r.query == "fills":
            raise ConfigError("the simulated venue delivers every fill once and keeps no list of them; query orders or positions")
        resting = {self._client[int(orders.id[i])]: int(orders.leaves_lots[i]) for i in range(orders.id.shape[0]) if orders.id[i] != 0}
        if r.query == "open_orders":
            for client_id, leaves in sorted(resting.items()):
                self._answers.append(self._update(r.ts, client_id, "open", leaves))
        elif r.client_id in resting:
            self._answers.append(self._update(r.ts, r.client_id, "open", resting[r.client_id]))
        elif r.client_id in self._ended:
            ended = self._ended[r.client_id]
            self._answers.append(self._update(r.ts, r.client_id, ended.status, ended.leaves_lots))
        else:
            # requests are FIFO: an order that is neither resting nor ended by now never arrived
            self._answers.append(self._update(r.ts, r.client_id, "rejected", 0))


def _snapshot(instrument: str, start: VenueStart) -> BookSnapshot:
    book = start.book
    return BookSnapshot(
        instrument=instrument,
        exch_ts=start.at_ns,
        local_ts=start.at_ns,
        bids=tuple(zip(book.bid_ticks.tolist(), book.bid_lots.tolist(), strict=True)),
        asks=tuple(zip(book.ask_ticks.tolist(), book.ask_lots.tolist(), strict=True)),
        seq=book.seq,
    )
