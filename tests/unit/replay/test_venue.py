"""The simulated venue by itself: grouping of rows, order of things, answers to requests and questions."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from builders import SPEC, T0, TapeBuilder, random_tape

from mm_platform.core.book_state import BookState
from mm_platform.core.commands import ArmDeadMan, Cancel, CancelAll, Halt, Place, Query, Replace, SetTimer
from mm_platform.core.errors import ConfigError, DataError, InvariantError
from mm_platform.core.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    BookTop,
    Fill,
    Funding,
    InstrumentStatus,
    MarkPrice,
    OrderAck,
    OrderReject,
    OrderUpdate,
    Position,
    Timer,
    Trade,
)
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import money_of
from mm_platform.replay.latency import LatencyTable
from mm_platform.replay.settings import ReplaySettings, SpotBalances
from mm_platform.replay.venue import CANCEL_REJECTED, POST_ONLY_WOULD_CROSS, REQUEST_LOST, SimulatedVenue, VenueStart, tape_chunks
from mm_platform.tape.layout import LAST, Kind, Tape

NAME = SPEC.instrument


def venue_of(tape: Tape, *, end_s: float | None = None, chunk: int = 3, start: BookState | None = None) -> SimulatedVenue:
    settings = ReplaySettings(entry_latency_ns=10 * NS_PER_MS, response_latency_ns=20 * NS_PER_MS)
    end = None if end_s is None else T0 + round(end_s * NS_PER_S)
    return SimulatedVenue(SPEC, tape_chunks(tape, chunk), settings, money_of(SPEC), VenueStart(start or tape.initial_book, T0), end_ns=end)


def drain(venue: SimulatedVenue) -> list[AnyEvent]:
    events = []
    while (event := venue.next_event()) is not None:
        events.append(event)
    return events


def place(number: int, side: int, ticks: int, lots: int, at_s: float, tif: str = "GTX") -> Place:
    return Place(
        instrument=NAME,
        ts=T0 + round(at_s * NS_PER_S),
        client_id=f"a-b-{number}",
        side=side,
        price_ticks=ticks,
        qty_lots=lots,
        tif=tif,  # type: ignore[arg-type]
        purpose="quote",
    )


def test_rows_become_the_events_a_trader_sees() -> None:
    b = TapeBuilder()
    b.row(Kind.CLEAR, 0, 0, 0, 0, 5)
    b.row(Kind.SNAPSHOT, 1, 0, 1000, 3, 5).row(Kind.SNAPSHOT, 1, 0, 999, 4, 5).row(Kind.SNAPSHOT, -1, LAST, 1002, 6, 5)
    b.at(1).trade(1, 1002, 2).trade(-1, 1000, 1, flags=2).row(Kind.DEPTH, -1, 0, 1002, 0, 6).row(Kind.DEPTH, -1, LAST, 1003, 9, 6)
    b.at(2).row(Kind.TOP, 1, 0, 1001, 7, 8).row(Kind.TOP, -1, LAST, 1003, 9, 8)
    b.at(3).row(Kind.MARK, 0, 0, 0, 0, -1, 100.1, 100.2).row(Kind.FUNDING_PREDICTED, 0, 0, 0, 0, T0 + 99, 0.0001, 100.3).funding(0.0002, 100.4)
    b.row(Kind.STATUS, 0, 0, 0, 0, 4)
    events = drain(venue_of(b.tape()))
    assert [type(e) for e in events] == [BookSnapshot, Trade, Trade, BookDelta, BookTop, MarkPrice, MarkPrice, Funding, InstrumentStatus]
    snapshot, bought, not_market, delta, top, mark, predicted, funding, status = events
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.bids, snapshot.asks, snapshot.seq) == (((1000, 3), (999, 4)), ((1002, 6),), 5)
    assert isinstance(bought, Trade)
    assert isinstance(not_market, Trade)
    assert (bought.market, not_market.market) == (True, False)
    assert isinstance(delta, BookDelta)
    assert delta.levels == ((-1, 1002, 0), (-1, 1003, 9))
    assert isinstance(top, BookTop)
    assert (top.bid_ticks, top.bid_lots, top.ask_ticks, top.ask_lots, top.seq) == (1001, 7, 1003, 9, 8)
    assert isinstance(mark, MarkPrice)
    assert (mark.mark_price, mark.index_price, mark.predicted_rate) == (100.1, 100.2, None)
    assert isinstance(predicted, MarkPrice)
    assert (predicted.mark_price, predicted.index_price, predicted.predicted_rate, predicted.next_funding_ts) == (100.3, 100.2, 0.0001, T0 + 99)
    assert isinstance(funding, Funding)
    assert (funding.rate, funding.mark_price) == (0.0002, 100.4)
    assert isinstance(status, InstrumentStatus)
    assert all(e.local_ts - e.exch_ts == 5 * NS_PER_MS for e in events)


def test_a_clear_of_one_side_names_the_levels_it_removes() -> None:
    """Whole, with levels of its own message; and from the touch to a price."""
    b = TapeBuilder().book(1000, 1002, 10, depth=3)
    b.at(1).row(Kind.CLEAR, 1, 0, 0, 0, 5).row(Kind.SNAPSHOT, 1, LAST, 999, 3, 5)
    b.at(2).row(Kind.CLEAR, -1, LAST, 1003, 0, 6)
    venue = venue_of(b.tape())
    venue.send(place(1, -1, 1004, 5, 0.1))
    venue.send(place(2, 1, 1001, 5, 1.5))
    events = drain(venue)
    deltas = [e.levels for e in events if isinstance(e, BookDelta)]
    assert deltas[1:] == [((1, 1000, 0), (1, 998, 0), (1, 999, 3)), ((-1, 1002, 0), (-1, 1003, 0))]
    assert [e.client_id for e in events if isinstance(e, OrderAck)] == ["a-b-1", "a-b-2"]
    assert not [e for e in events if isinstance(e, Fill)]


def test_a_taker_of_ours_first_cancels_our_quotes_it_would_match() -> None:
    venue = venue_of(TapeBuilder().book(1000, 1004, 10).at(5).trade(1, 1004, 1).tape())
    venue.send(place(1, -1, 1002, 5, 0.1))
    venue.send(place(2, 1, 1004, 4, 0.2, "IOC"))
    events = [e for e in drain(venue) if isinstance(e, OrderAck | OrderUpdate | Fill)]
    ack, cancelled, fill = events
    assert isinstance(ack, OrderAck)
    assert isinstance(cancelled, OrderUpdate)
    assert (cancelled.client_id, cancelled.status, cancelled.leaves_lots) == ("a-b-1", "cancelled", 5)
    assert isinstance(fill, Fill)
    assert (fill.client_id, fill.price_ticks, fill.qty_lots) == ("a-b-2", 1004, 4)


def test_prices_may_wander_far_beyond_where_they_began() -> None:
    """The window of the book follows them, with orders and levels kept."""
    b = TapeBuilder().book(10_000, 10_002, 10)
    b.at(1).level(1, 10_001, 0, last=False)
    for n in range(1, 60):
        b.at(n).row(Kind.CLEAR, 0, 0, 0, 0).level(1, 10_000 + 1000 * n, 7, last=False).level(-1, 10_002 + 1000 * n, 7)
    b.at(61).trade(-1, 9_000, 3)
    venue = venue_of(b.tape())
    venue.send(place(1, 1, 9_500, 5, 0.1))
    (fill,) = [e for e in drain(venue) if isinstance(e, Fill)]
    assert (fill.price_ticks, fill.qty_lots, fill.leaves_lots) == (9_500, 3, 2)


def test_a_request_that_never_arrives_comes_back_after_the_round_trip() -> None:
    lost = LatencyTable(np.array([T0 - NS_PER_S, T0 + 9 * NS_PER_S]), np.array([T0, 0]), np.array([T0 + NS_PER_S, T0 + 11 * NS_PER_S]))
    settings = ReplaySettings(latency=lost)
    tape = TapeBuilder().book(1000, 1002, 10).at(20).trade(-1, 990, 3).tape()
    venue = SimulatedVenue(SPEC, tape_chunks(tape), settings, money_of(SPEC), VenueStart(tape.initial_book, T0))
    venue.send(place(1, 1, 1000, 5, 0.1))
    events = drain(venue)
    (reject,) = [e for e in events if isinstance(e, OrderReject)]
    assert (reject.client_id, reject.code) == ("a-b-1", REQUEST_LOST)
    # the round trip is interpolated at the time of sending, 1.1 s after the first row of ten, between 2 and 2 s
    assert reject.local_ts == T0 + 2_100 * NS_PER_MS
    assert not [e for e in events if isinstance(e, Fill)]


def test_the_book_before_the_first_row_comes_first() -> None:
    tape = TapeBuilder().at(1).trade(1, 1002, 1).tape()
    start = BookState(*(__import__("numpy").array(x, dtype="int64") for x in ([1000], [3], [1002], [4])), 17)  # type: ignore[arg-type]
    first = drain(venue_of(tape, start=start))[0]
    assert isinstance(first, BookSnapshot)
    assert (first.bids, first.asks, first.seq, first.local_ts) == (((1000, 3),), ((1002, 4),), 17, T0)


def test_events_come_in_order_of_local_time_whatever_the_pieces() -> None:
    tape = random_tape(600, seed=2)
    tape.local_ts[tape.kind == Kind.TRADE] += 40 * NS_PER_MS  # a slower stream
    whole = drain(venue_of(tape, chunk=10_000))
    times = [e.local_ts for e in whole]
    assert times == sorted(times)
    for chunk in (1, 7, 100):
        assert drain(venue_of(tape, chunk=chunk)) == whole


def test_an_order_is_acknowledged_filled_and_cancelled() -> None:
    b = TapeBuilder().book(1000, 1002, 10)
    b.at(1).trade(-1, 1000, 13)
    b.at(2).trade(-1, 1000, 4)
    venue = venue_of(b.tape())
    venue.send(place(1, 1, 1000, 5, 0.1))
    venue.send(Cancel(instrument=NAME, ts=T0 + 3 * NS_PER_S // 2, client_id="a-b-1"))
    events = drain(venue)
    assert msgspec.json.encode(events), "a journal stores them: no numpy numbers"
    ack, fill, gone = (e for e in events if isinstance(e, OrderAck | Fill | OrderUpdate))
    assert isinstance(ack, OrderAck)
    assert (ack.exch_ts, ack.local_ts) == (T0 + 110 * NS_PER_MS, T0 + 130 * NS_PER_MS)
    assert isinstance(fill, Fill)
    # ten lots stood ahead in the queue: three of thirteen reach us
    assert (fill.exch_ts, fill.qty_lots, fill.leaves_lots, fill.maker, fill.mid_half_ticks) == (T0 + NS_PER_S, 3, 2, True, 2002)
    assert math.isclose(fill.fee_quote, 100.0 * 0.003 * 0.0001, rel_tol=1e-6)
    assert isinstance(gone, OrderUpdate)
    assert (gone.status, gone.leaves_lots) == ("cancelled", 2)
    assert venue.ledger()[0] == 3


def test_post_only_taker_and_late_cancel() -> None:
    venue = venue_of(TapeBuilder().book(1000, 1002, 10).at(5).trade(1, 1002, 1).tape())
    venue.send(place(1, 1, 1002, 5, 0.1))
    venue.send(place(2, 1, 1003, 25, 0.2, "IOC"))
    venue.send(Cancel(instrument=NAME, ts=T0 + NS_PER_S, client_id="a-b-2"))
    answers = [e for e in drain(venue) if isinstance(e, OrderReject | Fill | OrderUpdate)]
    reject, one, two, expired, cancel_reject = answers
    assert isinstance(reject, OrderReject)
    assert reject.code == POST_ONLY_WOULD_CROSS
    assert isinstance(one, Fill)
    assert isinstance(two, Fill)
    assert [(f.price_ticks, f.qty_lots, f.maker) for f in (one, two)] == [(1002, 10, False), (1003, 11, False)]
    assert isinstance(expired, OrderUpdate)
    assert expired.status == "expired"
    assert isinstance(cancel_reject, OrderReject)
    assert cancel_reject.code == CANCEL_REJECTED


def test_replace_cancel_all_and_questions() -> None:
    venue = venue_of(TapeBuilder().book(1000, 1002, 10).at(9).trade(1, 1002, 1).tape())
    venue.send(place(1, 1, 999, 5, 0.1))
    venue.send(
        Replace(instrument=NAME, ts=T0 + NS_PER_S, cancel_client_id="a-b-1", client_id="a-b-2", side=1, price_ticks=998, qty_lots=6, tif="GTX")
    )
    venue.send(place(3, -1, 1004, 7, 1.1))
    for at, what, who in ((2, "order", "a-b-1"), (2, "order", "a-b-2"), (2, "order", "a-b-77"), (2, "open_orders", ""), (2, "positions", "")):
        venue.send(Query(instrument=NAME, ts=T0 + at * NS_PER_S, what=what, client_id=who))  # type: ignore[arg-type]
    venue.send(CancelAll(instrument=NAME, ts=T0 + 3 * NS_PER_S, reason="test"))
    events = drain(venue)
    updates = [(e.client_id, e.status, e.leaves_lots) for e in events if isinstance(e, OrderUpdate)]
    assert updates == [
        ("a-b-1", "cancelled", 5),
        ("a-b-1", "cancelled", 5),
        ("a-b-2", "open", 6),
        ("a-b-77", "rejected", 0),
        ("a-b-2", "open", 6),
        ("a-b-3", "open", 7),
        ("a-b-2", "cancelled", 6),
        ("a-b-3", "cancelled", 7),
    ]
    assert [e.lots for e in events if isinstance(e, Position)] == [0]


def test_timers_interleave_and_do_not_keep_a_dead_market_alive() -> None:
    tape = TapeBuilder().book().at(2).trade(1, 1002, 1).tape()

    def timers(end_s: float | None) -> int:
        venue = venue_of(tape, end_s=end_s)
        venue.send(SetTimer(instrument=NAME, ts=T0, name="decision", at_ns=T0 + NS_PER_S))
        seen = 0
        while (event := venue.next_event()) is not None:
            if isinstance(event, Timer):
                seen += 1
                venue.send(SetTimer(instrument=NAME, ts=event.local_ts, name="decision", at_ns=event.local_ts + NS_PER_S))
        return seen

    assert timers(None) == 2
    assert timers(10.0) == 9


def test_what_it_does_not_have() -> None:
    tape = TapeBuilder().book().tape()
    with pytest.raises(ConfigError, match="neither spot balances nor margin"):
        SimulatedVenue(SPEC, [tape], ReplaySettings(balances=SpotBalances(1, 1.0)), money_of(SPEC), VenueStart(tape.initial_book, T0))
    venue = venue_of(tape)
    with pytest.raises(ConfigError, match="dead man"):
        venue.send(ArmDeadMan(instrument=NAME, ts=T0, timeout_ms=5))
    with pytest.raises(InvariantError, match="for the runner"):
        venue.send(Halt(instrument=NAME, ts=T0, reason=""))
    venue.send(place(1, 1, 999, 5, 0.1))
    with pytest.raises(InvariantError, match="sent twice"):
        venue.send(place(1, 1, 999, 5, 0.2))


def test_pieces_out_of_order_are_refused() -> None:
    tape = random_tape(60, seed=1)
    pieces = list(tape_chunks(tape, 20))
    venue = SimulatedVenue(SPEC, [pieces[1], pieces[0]], ReplaySettings(), money_of(SPEC), VenueStart(BookState.empty(), T0))
    with pytest.raises(DataError, match="before the end of the one above"):
        drain(venue)
