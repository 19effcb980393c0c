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
from mm_platform.kernels.accounting import (
    NANO,
    POSITION,
    TRAILING_VOLUME,
    identity_residual_quanta,
    ledger_fill,
    ledger_funding,
    ledger_mark,
    money_at,
    new_ledger,
)
from mm_platform.kernels.exchange import (
    EXPIRED,
    FILLED,
    GTC,
    GTX,
    ID,
    IOC,
    LEAVES_LOTS,
    LIMIT,
    NO_ROOM,
    REJECTED,
    RESTING,
    TAKEN_FULL,
)
from mm_platform.kernels.levels import CONSERVATIVE, LO_TICK, MOST_TICKS, OK
from mm_platform.kernels.money import Money
from mm_platform.kernels.venue import (
    CANCEL,
    MID_HALF,
    PLACE,
    VenueState,
    load_venue_book,
    new_venue,
    venue_after_row,
    venue_on_request,
    venue_on_row,
    widened_venue,
)
from mm_platform.replay.latency import LOST, entry_latency_ns, pack_latencies, response_latency_ns
from mm_platform.replay.market_events import EventBuilder
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.layout import Kind, Tape

_FOREVER: Final = 2**62
_TIF: Final = {"GTC": GTC, "GTX": GTX, "IOC": IOC}
_QUERY: Final = -1
_CANCEL_ALL: Final = -2
_FUNDING: Final = int(Kind.FUNDING)
# of the window of prices around what was seen so far; it grows as prices move
_FIRST_TICKS: Final = 4096

# codes of OrderReject
POST_ONLY_WOULD_CROSS: Final = "post_only_would_cross"
NO_FREE_SLOT: Final = "no_free_slot"
CANCEL_REJECTED: Final = "cancel_rejected"
PRICE_REFUSED: Final = "price_refused"
REQUEST_LOST: Final = "request_lost"

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
    ConfigError
        Settings with balances or margin: the replay loop has them, this venue does not.
    DataError
        From `next_event`: rows out of venue order, a price beyond the widest window.
    """

    def __init__(
        self, spec: InstrumentSpec, chunks: Iterable[Tape], settings: ReplaySettings, money: Money, start: VenueStart, *, end_ns: int | None = None
    ) -> None:
        if settings.balances is not None or settings.margin is not None:
            raise ConfigError("the simulated venue tracks neither spot balances nor margin; leave them out of its settings")
        self._spec = spec
        self._instrument = spec.instrument
        self._chunks = iter(chunks)
        self._params = settings.exchange_params(spec.lot_base)
        self._book_units_per_lot = 1.0 if self._params.rule == CONSERVATIVE else spec.lot_base
        self._latencies = pack_latencies([[settings.latency_model]])
        self._money = money
        self._tiers = settings.fee_tiers
        self._end_ns = _FOREVER if end_ns is None else end_ns
        self._ledger = new_ledger(settings.trailing_volume_quote)
        self._slots = settings.order_slots
        self._venue: VenueState | None = None
        if len(start.book.bid_ticks) or len(start.book.ask_ticks):
            load_venue_book(self._params, self._holding(*_extent(start.book)), start.book, spec.lot_base)
        self._builder = EventBuilder(spec.instrument, start.book)
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
                self._request(_Request(command.ts, CANCEL, command.client_id, 0, 0, 0, 0, ""))
            case Replace():
                self._request(_Request(command.ts, CANCEL, command.cancel_client_id, 0, 0, 0, 0, ""))
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
        if self._mid_half() != 0:
            ledger_mark(self._ledger, self._money, self._mid_half())
        residual = identity_residual_quanta(self._ledger)
        if residual != 0:
            raise InvariantError(f"{self._instrument}: the venue's ledger is off by {residual} quanta")
        return self._ledger.copy()

    # -- inside --------------------------------------------------------------------------------------------------------------------------

    def _mid_half(self) -> int:
        return 0 if self._venue is None else int(self._venue.i[MID_HALF])

    def _holding(self, lo_tick: int, hi_tick: int) -> VenueState:
        """The venue with a window that holds these prices, as far as the widest window does."""
        if self._venue is None:
            lo = max(lo_tick - _FIRST_TICKS, 1)
            self._venue = new_venue(1, self._slots, lo, min(hi_tick + _FIRST_TICKS, lo + MOST_TICKS - 1))
            return self._venue
        lo = int(self._venue.levels.i[LO_TICK])
        size = len(self._venue.levels.bid)
        if lo_tick >= lo and hi_tick < lo + size:
            return self._venue
        # as much again beyond the new price: a trend is followed in a few steps
        wider_lo = max(lo_tick - size, 1) if lo_tick < lo else lo
        wider_hi = hi_tick + size if hi_tick >= lo + size else lo + size - 1
        if wider_hi - wider_lo >= MOST_TICKS:
            wider_lo, wider_hi = min(lo, lo_tick), max(lo + size - 1, hi_tick)
        # a level further away than the widest window is one that the venue leaves out; a touch there it refuses
        if wider_hi - wider_lo < MOST_TICKS:
            self._venue = widened_venue(self._venue, wider_lo, wider_hi)
        return self._venue

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
        if price_ticks > 0 or self._venue is not None:
            venue = self._holding(price_ticks, price_ticks) if price_ticks > 0 else self._held()
            if venue_on_row(self._params, venue, kind, side, flags, price_ticks, lots * self._book_units_per_lot, seq) != OK:
                lo = int(venue.levels.i[LO_TICK])
                raise DataError(
                    f"{self._instrument}: a row of {price_ticks} ticks at {ts} ns takes the touch out of the window {lo} to "
                    f"{lo + len(venue.levels.bid) - 1}, the widest there is; look for a misprint"
                )
            if venue.executions.n[0] > 0:
                self._deliver(ts)
            venue_after_row(venue, kind, flags)
        if kind == _FUNDING and self._ledger[POSITION] != 0:
            if self._mid_half() != 0:
                # the newest mark, should the stamp bring none
                ledger_mark(self._ledger, self._money, self._mid_half())
            ledger_funding(self._ledger, self._money, value, aux)
        self._rows_seen += 1
        self._advance()

    def _send_place(self, ts: int, client_id: str, side: int, price_ticks: int, lots: int, tif: str, *, reduce_only: bool = False) -> None:
        if client_id in self._ids or client_id in self._ended:
            raise InvariantError(f"client id {client_id} was sent twice; every order needs its own")
        self._order_count += 1
        self._ids[client_id] = self._order_count
        self._client[self._order_count] = client_id
        self._request(_Request(ts, PLACE, client_id, side, price_ticks, lots, _TIF[tif], "", reduce_only))

    def _request(self, request: _Request) -> None:
        # plain integers: these times end up in events, which are encoded
        latency, round_trip = (int(ns) for ns in entry_latency_ns(self._latencies, 0, 0, request.ts))
        if latency == LOST:
            self._lose(request, request.ts + round_trip)
            return
        arrival = max(request.ts + latency, self._last_request_ns)
        self._last_request_ns = arrival
        self._requests.append(request._replace(ts=arrival))

    def _lose(self, request: _Request, back_ns: int) -> None:
        """A request that never reaches the venue: of an order or a cancel that comes back after the round trip, a question stays without answer."""
        if request.what not in (PLACE, CANCEL):
            return
        self._last_answer_ns = max(back_ns, self._last_answer_ns)
        placing = request.what == PLACE
        self._answers.append(
            OrderReject(
                instrument=self._instrument,
                exch_ts=self._last_answer_ns,
                local_ts=self._last_answer_ns,
                client_id=request.client_id,
                code=REQUEST_LOST if placing else CANCEL_REJECTED,
                reason="the request never reached the venue",
            )
        )
        if placing:
            self._end(request.client_id, self._ended_as(request.ts, request.client_id, "rejected"))

    def _answer_at(self, now_ns: int) -> int:
        self._last_answer_ns = max(now_ns + int(response_latency_ns(self._latencies, 0, 0, now_ns)), self._last_answer_ns)
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

    def _held(self) -> VenueState:
        if self._venue is None:
            raise InvariantError("the venue has not seen a price yet")
        return self._venue

    def _deliver(self, now_ns: int) -> None:
        """Book what just executed and send the fills on their way, after what self-trade prevention cancelled before."""
        venue = self._held()
        cancels, e = venue.cancels, venue.executions
        for k in range(int(cancels.n[0])):
            client_id = self._client[int(cancels.id[k])]
            update = self._update(now_ns, client_id, "cancelled", int(cancels.leaves_lots[k]))
            self._answers.append(update)
            self._end(client_id, update)
        if e.n[0] > e.id.shape[0]:
            raise DataError(f"{self._instrument}: one event executed more of our orders ({int(e.n[0])}) than the buffers hold ({e.id.shape[0]})")
        for k in range(int(e.n[0])):
            side, price_ticks, lots, maker = int(e.side[k]), int(e.price_ticks[k]), int(e.lots[k]), int(e.maker[k])
            mid_half = self._mid_half() or 2 * price_ticks
            money = money_at(self._money, self._tiers, int(self._ledger[TRAILING_VOLUME]))
            fee_nano = int(ledger_fill(self._ledger, money, side, price_ticks, lots, maker, mid_half))
            # an inverse contract charges base
            in_quote = price_ticks * money.tick_size if money.lot_quote > 0.0 else 1.0
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
                    side=side,
                    price_ticks=price_ticks,
                    qty_lots=lots,
                    maker=bool(maker),
                    fee_quote=fee_nano / NANO * in_quote,
                    leaves_lots=leaves,
                    mid_half_ticks=mid_half,
                )
            )
            if leaves <= 0:
                self._end(client_id, self._ended_as(now_ns, client_id, "filled"))

    def _ended_as(self, now_ns: int, client_id: str, status: str) -> OrderUpdate:
        """How an order ended, for later questions; not sent."""
        return OrderUpdate(
            instrument=self._instrument,
            exch_ts=now_ns,
            local_ts=now_ns,
            client_id=client_id,
            status=status,  # type: ignore[arg-type]
            leaves_lots=0,
        )

    def _resting(self) -> dict[int, int]:
        """Lots left of our orders at the venue, by order number, oldest first."""
        if self._venue is None:
            return {}
        own = self._venue.own.orders
        return {int(own[ID, k]): int(own[LEAVES_LOTS, k]) for k in sorted(range(own.shape[1]), key=lambda k: own[ID, k]) if own[ID, k] != 0}

    def _on_request(self, r: _Request) -> None:
        if r.what == _QUERY:
            self._on_query(r)
        elif r.what == _CANCEL_ALL:
            for order_id in self._resting():
                self._cancel(r.ts, self._client[order_id])
        elif r.what == CANCEL:
            self._cancel(r.ts, r.client_id)
        else:
            self._place(r)

    def _cancel(self, now_ns: int, client_id: str) -> None:
        order_id = self._ids.get(client_id, -1)
        left = -1
        if self._venue is not None:
            left = int(venue_on_request(self._params, self._venue, now_ns, self._rows_seen, 0, CANCEL, order_id, 0, 0, 0, 0, 0, 0))
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
        lots = min(r.lots, max(-r.side * int(self._ledger[POSITION]), 0)) if r.reduce_only else r.lots
        if lots == 0:
            # flattening never builds a position: a quote filled while the order travelled
            update = self._update(r.ts, r.client_id, "expired", 0)
            self._answers.append(update)
            self._end(r.client_id, update)
            return
        venue = self._holding(r.price_ticks, r.price_ticks)
        answer = venue_on_request(self._params, venue, r.ts, self._rows_seen, 0, PLACE, order_id, r.side, r.price_ticks, lots, r.tif, LIMIT, 0)
        self._deliver(r.ts)
        if answer == FILLED:
            return
        if answer == RESTING:
            self._answers.append(
                OrderAck(instrument=self._instrument, exch_ts=r.ts, local_ts=self._answer_at(r.ts), client_id=r.client_id, venue_id=str(order_id))
            )
            return
        if answer == TAKEN_FULL:
            raise DataError(f"{self._instrument}: orders of ours consumed more levels than are remembered until the feed restates them, at {r.ts} ns")
        refused = {
            NO_ROOM: (NO_FREE_SLOT, f"the simulated venue holds {self._slots} orders of ours and no more; raise order_slots of the settings"),
            REJECTED: (PRICE_REFUSED, "the venue takes no order of this price and quantity"),
        }
        if answer == EXPIRED and r.tif == GTX:
            refused[EXPIRED] = (POST_ONLY_WOULD_CROSS, "a post-only order at this price would have traded at once")
        if answer in refused:
            self._reject(r.ts, r.client_id, *refused[answer])
            update = self._ended_as(r.ts, r.client_id, "rejected")
        else:
            update = self._update(r.ts, r.client_id, "expired", 0)
            self._answers.append(update)
        self._end(r.client_id, update)

    def _on_query(self, r: _Request) -> None:
        if r.query == "positions":
            lots = int(self._ledger[POSITION])
            self._answers.append(Position(instrument=self._instrument, exch_ts=r.ts, local_ts=self._answer_at(r.ts), lots=lots))
            return
        if r.query == "fills":
            raise ConfigError("the simulated venue delivers every fill once and keeps no list of them; query orders or positions")
        resting = {self._client[order_id]: leaves for order_id, leaves in self._resting().items()}
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


def _extent(book: BookState) -> tuple[int, int]:
    """First and last tick of a book's levels, no wider around the touch than the widest window."""
    ticks = np.concatenate((book.bid_ticks, book.ask_ticks))
    touch = int((book.bid_ticks if len(book.bid_ticks) else book.ask_ticks)[0])
    half = MOST_TICKS // 2 - 2 * _FIRST_TICKS
    return max(int(ticks.min()), touch - half, 1), min(int(ticks.max()), touch + half)


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
