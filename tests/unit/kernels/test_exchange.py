"""Matching of our orders: both rules, every order type, many sets over one book, and the compiled twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.kernels import venue as venue_numbers
from mm_platform.kernels.exchange import (
    ASKS,
    BIDS,
    EXPIRED,
    FILLED,
    FIRST_ASK,
    FIRST_BID,
    FIRST_ORDER,
    FOK,
    FRONT,
    GTC,
    GTX,
    ID,
    IOC,
    LIMIT,
    MARKET,
    MOST_TAKEN,
    NEXT,
    NEXT_NODE,
    NO_ROOM,
    NODE,
    PRICE_TICKS,
    REJECTED,
    RESTING,
    RESTING_ORDERS,
    SIDE,
    TAKEN,
    TAKEN_FULL,
    TAKEN_N,
)
from mm_platform.kernels.levels import BEST_ASK, BEST_BID, CONSERVATIVE, LO_TICK, OK, OUTSIDE_WINDOW, REFERENCE
from mm_platform.kernels.queue import LOG_PROB2, POWER_PROB, RISK_ADVERSE, ExchangeParams, compiled_params, exchange_params
from mm_platform.kernels.venue import (
    CANCEL,
    CLEAR,
    DEPTH,
    FLAG_LAST,
    FLAG_NOT_MARKET,
    MID_HALF,
    MODIFY,
    PLACE,
    SNAPSHOT,
    STATUS,
    TOP,
    TRADE,
    VenueState,
    load_venue_book,
    new_venue,
    venue_after_row,
    venue_book,
    venue_on_request,
    venue_on_row,
    venue_on_rows,
    widened_venue,
)
from mm_platform.tape.layout import LAST, NOT_MARKET, Kind

LOT = 0.001


class World:
    """A venue in whole lots (conservative) or base (reference), spoken to in lots; `twin` runs the compiled kernels."""

    def __init__(
        self, rule: int = CONSERVATIVE, model: int = RISK_ADVERSE, *, partial: bool = True, n_sets: int = 1, slots: int = 8, twin: bool = False
    ) -> None:
        self.x: ExchangeParams = exchange_params(rule, model, 3.0, LOT, partial=partial)
        self.row, self.ask = venue_on_row, venue_on_request
        if twin:
            self.x, self.row, self.ask = compiled_params(self.x), venue_on_row.compiled, venue_on_request.compiled  # type: ignore[assignment]
        self.venue: VenueState = new_venue(n_sets, slots, 50, 150, 256)
        self.per_lot = 1.0 if rule == CONSERVATIVE else LOT
        self.rows = 0

    def feed(self, kind: int, side: int, ticks: int, lots: float, *, seq: int = -1, flags: int = FLAG_LAST) -> list[tuple[int, ...]]:
        assert self.row(self.x, self.venue, kind, side, flags, ticks, lots * self.per_lot, seq) == OK
        out = self.read()
        venue_after_row(self.venue, kind, flags)
        self.rows += 1
        return out

    def depth(self, side: int, ticks: int, lots: float) -> list[tuple[int, ...]]:
        return self.feed(DEPTH, side, ticks, lots)

    def trade(self, side: int, ticks: int, lots: float) -> list[tuple[int, ...]]:
        return self.feed(TRADE, side, ticks, lots)

    def book(self) -> World:
        for side, ticks, lots in ((1, 100, 5), (1, 99, 7), (-1, 102, 5), (-1, 103, 9)):
            self.depth(side, ticks, lots)
        return self

    def place(self, order: int, side: int, ticks: int, lots: int, tif: int = GTX, kind: int = LIMIT, s: int = 0) -> int:
        return int(self.ask(self.x, self.venue, 10 * self.rows, self.rows, s, PLACE, order, side, ticks, lots, tif, kind, 0))

    def modify(self, order: int, ticks: int, lots: int, s: int = 0) -> int:
        return int(self.ask(self.x, self.venue, 10 * self.rows, self.rows, s, MODIFY, order, 0, ticks, lots, 0, 0, 0))

    def cancel(self, order: int, s: int = 0) -> int:
        return int(self.ask(self.x, self.venue, 10 * self.rows, self.rows, s, CANCEL, order, 0, 0, 0, 0, 0, 0))

    def read(self) -> list[tuple[int, ...]]:
        """(order, ticks, lots, leaves, maker) of the event at hand."""
        e = self.venue.executions
        return [(int(e.id[k]), int(e.price_ticks[k]), int(e.lots[k]), int(e.leaves_lots[k]), int(e.maker[k])) for k in range(int(e.n[0]))]

    def cancelled(self) -> list[tuple[int, int]]:
        c = self.venue.cancels
        return [(int(c.id[k]), int(c.leaves_lots[k])) for k in range(int(c.n[0]))]

    def top(self) -> tuple[int, int]:
        return int(self.venue.levels.i[BEST_BID]), int(self.venue.levels.i[BEST_ASK])


def test_numbers_are_those_of_the_tape() -> None:
    for kind in (Kind.DEPTH, Kind.TRADE, Kind.CLEAR, Kind.SNAPSHOT, Kind.TOP):
        assert getattr(venue_numbers, kind.name) == kind
    assert (FLAG_LAST, FLAG_NOT_MARKET) == (LAST, NOT_MARKET)
    assert max(DEPTH, TRADE, CLEAR, SNAPSHOT, TOP) < min(Kind.MARK, Kind.FUNDING_PREDICTED, Kind.FUNDING, Kind.STATUS)


# -- conservative ----------------------------------------------------------------------------------------------------------------------------


def test_prints_first_eat_the_queue_ahead_then_fill_us_in_part() -> None:
    w = World().book()
    assert w.place(1, 1, 100, 4) == RESTING
    assert w.trade(-1, 100, 3) == []
    assert w.trade(-1, 100, 4) == [(1, 100, 2, 2, 1)]  # 2 of them ahead, 2 for us
    e = w.venue.executions
    assert (e.front_arrival[0], e.front_fill[0], e.arrived_ns[0]) == (5.0, 2.0, 40)
    assert w.trade(-1, 100, 9) == [(1, 100, 2, 0, 1)]
    assert w.trade(-1, 100, 9) == []


def test_two_own_orders_share_one_print() -> None:
    w = World().book()
    w.place(1, 1, 101, 3)
    w.place(2, 1, 101, 3)
    assert w.trade(-1, 101, 4) == [(1, 101, 3, 0, 1), (2, 101, 1, 2, 1)]


def test_a_print_beyond_our_price_fills_us_at_most_by_its_size() -> None:
    w = World().book()
    w.place(1, 1, 101, 10)
    assert w.trade(-1, 100, 4) == [(1, 101, 4, 6, 1)]


def test_a_crossing_level_fills_us_at_our_price_by_its_quantity() -> None:
    w = World().book()
    w.place(1, 1, 101, 10)
    assert w.depth(-1, 101, 6) == [(1, 101, 6, 4, 1)]
    assert w.top() == (100, 101)
    assert w.depth(-1, 101, 8) == [], "the level is restated, not new"


def test_depth_decreases_cap_the_queue_ahead() -> None:
    w = World().book()
    w.place(1, 1, 100, 1)
    w.depth(1, 100, 2)
    assert w.trade(-1, 100, 3) == [(1, 100, 1, 0, 1)]


def test_a_best_quote_message_empties_the_better_levels_queue() -> None:
    w = World().book()
    w.place(1, 1, 100, 1)
    w.feed(TOP, 1, 99, 7)
    assert w.top() == (99, 102)
    assert w.trade(-1, 100, 1) == [(1, 100, 1, 0, 1)]


def test_an_older_best_quote_says_nothing_and_a_price_of_nought_is_no_quote() -> None:
    w = World().book()
    w.feed(DEPTH, 1, 98, 4, seq=7)
    w.feed(TOP, 1, 99, 7, seq=6)
    w.feed(TOP, -1, 0, 0, seq=8)
    assert w.top() == (100, 102)
    w.feed(TOP, 1, 99, 7, seq=8)
    assert w.top() == (99, 102)


def test_post_only_expires_when_it_would_cross_and_rests_inside() -> None:
    w = World().book()
    assert w.place(1, 1, 102, 1) == EXPIRED
    assert w.place(2, -1, 100, 1) == EXPIRED
    assert w.place(3, 1, 101, 1) == RESTING
    assert w.read() == []


def test_takers_walk_the_book_and_consume_it_until_restated() -> None:
    w = World().book()
    assert w.place(1, 1, 103, 8, IOC) == FILLED
    assert w.read() == [(1, 102, 5, 3, 0), (1, 103, 3, 0, 0)]
    assert w.top() == (100, 102), "the book is everybody's"
    assert w.place(2, 1, 103, 8, IOC) == EXPIRED
    assert w.read() == [(2, 103, 6, 2, 0)]
    assert w.place(3, 1, 103, 1, IOC) == EXPIRED
    assert w.read() == []
    w.depth(-1, 103, 2)
    assert w.place(4, 1, 103, 8, IOC) == EXPIRED
    assert w.read() == [(4, 103, 2, 6, 0)]


def test_a_remainder_that_rests_fills_when_the_level_it_consumed_is_restated() -> None:
    w = World().book()
    assert w.place(3, -1, 100, 8, GTC) == RESTING
    assert w.read() == [(3, 100, 5, 3, 0)]
    assert w.depth(1, 100, 2) == [(3, 100, 2, 1, 1)]
    assert w.depth(1, 99, 4) == []
    assert w.depth(1, 100, 9) == [], "what was restated once is there for it as well"


def test_a_new_level_between_consumed_ones_crosses_for_that_set_only() -> None:
    w = World(n_sets=2)
    w.depth(1, 100, 2)
    w.depth(1, 97, 9)
    w.depth(-1, 105, 9)
    w.place(1, -1, 100, 2, IOC)  # set 0 ate the best bid
    assert w.place(2, -1, 99, 3, GTX) == RESTING
    assert w.place(2, -1, 99, 3, GTX, s=1) == EXPIRED
    assert w.depth(1, 98, 2) == []
    assert w.depth(1, 99, 2) == [(2, 99, 2, 1, 1)]


def test_fill_or_kill_counts_what_this_set_left() -> None:
    w = World().book()
    assert w.place(1, 1, 103, 15, FOK) == EXPIRED
    assert w.place(2, 1, 103, 4, FOK) == FILLED
    assert w.place(3, 1, 103, 11, FOK) == EXPIRED
    assert w.place(4, 1, 103, 10, FOK) == FILLED
    assert w.read() == [(4, 102, 1, 9, 0), (4, 103, 9, 0, 0)]
    assert w.place(5, -1, 101, 1, FOK) == EXPIRED


def test_market_orders_walk_the_whole_book_and_expire_with_the_rest() -> None:
    w = World().book()
    assert w.place(1, -1, 0, 3, GTC, MARKET) == FILLED
    assert w.place(2, -1, 0, 12, GTC, MARKET) == EXPIRED
    assert w.read() == [(2, 100, 2, 10, 0), (2, 99, 7, 3, 0)]
    assert w.place(3, -1, 0, 1, GTC, MARKET) == EXPIRED
    assert w.read() == []


@pytest.mark.parametrize("side", [1, -1])
def test_own_quotes_that_a_taker_would_match_are_cancelled_first(side: int) -> None:
    w = World().book()
    inside, touch, far = (101, 102, 103) if side > 0 else (101, 100, 99)
    w.place(1, -side, inside, 2)
    w.place(2, -side, touch, 3)  # five lots ahead of it
    w.place(3, -side, far, 4)
    assert w.place(4, side, touch, 4, IOC) == FILLED
    # four lots stop within the five that stand ahead of ours at the touch
    assert w.cancelled() == [(1, 2)]
    assert w.read() == [(4, touch, 4, 0, 0)]
    w.depth(-side, touch, 5)
    assert w.place(5, side, far, 7, IOC) == FILLED
    assert w.cancelled() == [(2, 3)]
    assert w.cancel(3) == 4


def test_post_only_expires_on_an_own_order_and_fill_or_kill_cancels_nothing_when_it_fails() -> None:
    w = World().book()
    w.place(1, -1, 101, 2)
    assert w.place(2, 1, 101, 1, GTX) == EXPIRED
    assert w.place(3, 1, 102, 50, FOK) == EXPIRED
    assert w.cancelled() == []
    assert w.place(4, 1, 101, 1, GTC) == RESTING
    assert w.cancelled() == [(1, 2)]
    assert w.trade(-1, 101, 1) == [(4, 101, 1, 0, 1)]


def test_the_reference_knows_no_self_trade_prevention() -> None:
    w = World(REFERENCE, partial=False).book()
    w.place(1, -1, 101, 2)
    assert w.place(2, 1, 101, 1, GTX) == RESTING
    assert w.cancelled() == []


def test_clears_forget_what_was_consumed_and_leave_queues_alone() -> None:
    w = World().book()
    w.place(1, 1, 99, 1)
    w.place(2, 1, 103, 14, IOC)
    assert w.venue.own.i[TAKEN] == 2
    w.feed(CLEAR, -1, 102, 0)
    assert w.venue.own.i[TAKEN] == 1
    assert w.top() == (100, 103)
    w.feed(CLEAR, 0, 0, 0)
    assert w.venue.own.i[TAKEN] == 0
    assert w.top() == (0, 0)
    assert w.trade(-1, 99, 7) == []
    assert w.trade(-1, 99, 1) == [(1, 99, 1, 0, 1)]


def test_the_list_of_consumed_levels_is_bounded_and_says_so() -> None:
    venue = new_venue(1, 2, 10, 10 + 2 * MOST_TAKEN, 4 * MOST_TAKEN)
    w = World()
    w.venue = venue
    for d in range(MOST_TAKEN + 1):
        w.depth(-1, 100 + d, 1)
    assert w.place(1, 1, 0, MOST_TAKEN, GTC, MARKET) == FILLED
    assert w.place(2, 1, 0, 1, GTC, MARKET) == TAKEN_FULL


# -- both rules ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [REFERENCE, CONSERVATIVE])
def test_modifying(rule: int) -> None:
    w = World(rule).book()
    w.place(1, 1, 100, 5)
    w.place(2, 1, 100, 5)
    w.depth(1, 100, 9)
    assert w.modify(1, 100, 3) == RESTING  # fewer keep the place: five ahead
    assert w.modify(2, 100, 8) == RESTING  # more lose it: nine ahead
    assert w.modify(9, 100, 8) == REJECTED
    assert w.modify(2, 100, 0) == REJECTED
    # 10 printed: five ahead of the first, then its three; the second stood at nine, so one reaches it (of it, under the conservative rule, less
    # what the first took)
    expected = [(1, 100, 3, 0, 1), (2, 100, 1, 7, 1)] if rule == REFERENCE else [(1, 100, 3, 0, 1)]
    assert w.trade(-1, 100, 10) == expected
    assert w.modify(2, 102, 4) == EXPIRED, "post-only stays post-only"
    assert w.cancel(2) == -1
    w.place(3, -1, 104, 2, GTC)
    assert w.modify(3, 100, 4) == FILLED
    assert [f[1:3] for f in w.read()] == [(100, 4)]


def test_ids_quantities_and_room() -> None:
    w = World(slots=2).book()
    assert w.place(1, 1, 99, 1) == RESTING
    assert w.place(1, 1, 98, 1) == REJECTED
    assert w.place(2, 1, 98, 0) == REJECTED
    assert w.place(0, 1, 98, 1) == REJECTED
    assert w.place(2, 1, 98, 1) == RESTING
    assert w.place(3, 1, 97, 1) == NO_ROOM
    assert w.cancel(0) == -1
    assert w.cancel(1) == 1
    assert w.place(3, 1, 97, 1) == RESTING


def test_orders_beyond_the_window() -> None:
    """On the far side an order rests where nothing reaches it; on the near side it could not be held."""
    w = World().book()
    assert w.place(1, 1, 20, 1, GTC) == RESTING
    assert w.place(2, 1, 200, 30, GTC) == REJECTED
    assert w.place(3, 1, 200, 30, IOC) == EXPIRED
    assert [f[1:3] for f in w.read()] == [(102, 5), (103, 9)]
    assert w.modify(1, 21, 1) == RESTING
    assert w.modify(1, 200, 1) == REJECTED
    assert w.trade(-1, 60, 100) == []
    assert w.cancel(1) == 1
    assert w.row(w.x, w.venue, TRADE, -1, 0, 49, 1.0, -1) == OUTSIDE_WINDOW
    assert w.row(w.x, w.venue, DEPTH, -1, 0, 49, 1.0, -1) == OUTSIDE_WINDOW
    assert w.row(w.x, w.venue, DEPTH, -1, 0, 151, 1.0, -1) == OK


@pytest.mark.parametrize("rule", [REFERENCE, CONSERVATIVE])
def test_prints_without_a_side_or_not_of_the_market_fill_nobody(rule: int) -> None:
    w = World(rule).book()
    w.place(1, 1, 101, 1)
    assert w.trade(0, 101, 5) == []
    assert w.feed(TRADE, -1, 101, 5, flags=FLAG_NOT_MARKET) == []
    assert w.trade(-1, 101, 5) == [(1, 101, 1, 0, 1)]


def test_the_reference_fills_whole_orders_of_every_own_order() -> None:
    w = World(REFERENCE, partial=False).book()
    w.place(1, 1, 101, 30)
    w.place(2, 1, 101, 40)
    assert w.trade(-1, 101, 1) == [(1, 101, 30, 0, 1), (2, 101, 40, 0, 1)]
    w.place(3, 1, 101, 30)
    assert w.depth(-1, 101, 1) == [(3, 101, 30, 0, 1)]
    assert w.place(4, 1, 105, 70, IOC) == FILLED
    assert w.read() == [(4, 101, 70, 0, 0)], "any size at the best price"
    assert w.place(5, -1, 0, 70, GTC, MARKET) == FILLED
    assert w.read() == [(5, 100, 70, 0, 0)]
    w.feed(CLEAR, 1, 0, 0)
    assert w.place(6, -1, 0, 70, GTC, MARKET) == EXPIRED, "the reference fills it at 2**63 - 1"


def test_a_venue_needs_sets_slots_and_a_book_that_fits() -> None:
    with pytest.raises(DataError, match="0 sets"):
        new_venue(0, 1, 10, 20)
    x = exchange_params(CONSERVATIVE, RISK_ADVERSE, 1.0, LOT)

    def state(bids: list[int], asks: list[int]) -> BookState:
        one = [np.ones(len(t), dtype=np.int64) for t in (bids, asks)]
        return BookState(np.array(bids), one[0], np.array(asks), one[1], 5)

    with pytest.raises(DataError, match="crossed: best bid 12 ticks, best ask 11"):
        load_venue_book(x, new_venue(1, 1, 10, 20), state([12], [11]), LOT)
    with pytest.raises(DataError, match="25 ticks as its best, outside the window 10 to 20"):
        load_venue_book(x, new_venue(1, 1, 10, 20), state([12], [25]), LOT)
    venue = new_venue(1, 1, 10, 20)
    load_venue_book(x, venue, state([12, 11, 3], [15, 25]), LOT)
    kept = venue_book(x, venue)
    assert (kept.bid_ticks.tolist(), kept.ask_ticks.tolist(), kept.seq, int(venue.i[MID_HALF])) == ([12, 11], [15], 5, 27)


# -- many sets, twins, and the row loop ------------------------------------------------------------------------------------------------------

PRICES = st.integers(94, 107)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("depth"), st.sampled_from([1, -1]), PRICES, st.integers(0, 9)),
        st.tuples(st.just("top"), st.sampled_from([1, -1]), PRICES, st.integers(1, 9)),
        st.tuples(st.just("trade"), st.sampled_from([1, -1]), PRICES, st.integers(1, 9)),
        st.tuples(st.just("clear"), st.sampled_from([1, -1, 0]), st.sampled_from([0, 99, 101]), st.just(0)),
        st.tuples(st.just("place"), st.sampled_from([1, -1]), PRICES, st.integers(1, 9), st.sampled_from([GTC, GTX, IOC, FOK]), st.integers(0, 2)),
        st.tuples(st.just("market"), st.sampled_from([1, -1]), st.just(0), st.integers(1, 9), st.just(GTC), st.integers(0, 2)),
        st.tuples(st.just("modify"), st.integers(1, 6), PRICES, st.integers(1, 9), st.just(0), st.integers(0, 2)),
        st.tuples(st.just("cancel"), st.integers(1, 6), st.just(0), st.just(0), st.just(0), st.integers(0, 2)),
    ),
    max_size=70,
)
RULES = st.sampled_from([(REFERENCE, False), (REFERENCE, True), (CONSERVATIVE, True)])
MODELS = st.sampled_from([RISK_ADVERSE, LOG_PROB2, POWER_PROB])


def run_events(events: list[tuple[Any, ...]], w: World, only: int | None = None) -> list[list[tuple[int, ...]]]:
    """What happens to each set; `only`: this set alone is in the run, as set 0."""
    logs: list[list[tuple[int, ...]]] = [[], [], []]
    kinds = {"depth": DEPTH, "top": TOP, "trade": TRADE, "clear": CLEAR}
    given = [0, 0, 0]
    for n, (what, side, ticks, lots, *rest) in enumerate(events):
        if what in kinds:
            w.feed(kinds[what], side, ticks, lots)
        else:
            owner = rest[1]
            if only is not None and owner != only:
                continue
            s = owner if only is None else 0
            if what in ("place", "market"):
                given[owner] += 1
                got = w.place(given[owner], side, ticks, lots, rest[0], MARKET if what == "market" else LIMIT, s)
            elif what == "modify":
                got = w.modify(side, ticks, lots, s)
            else:
                got = w.cancel(side, s)
            logs[owner].append((n, got))
            logs[owner] += [(n, -1, *c) for c in w.cancelled()]
        e = w.venue.executions
        if what == "trade" and w.x.rule == CONSERVATIVE:
            for s in range(3):
                assert sum(int(e.lots[k]) for k in range(int(e.n[0])) if e.set[k] == s) <= lots
        for k in range(int(e.n[0])):
            owner = int(e.set[k]) if only is None else only
            logs[owner].append((n, *(int(c[k]) for c in (e.id, e.side, e.price_ticks, e.lots, e.leaves_lots, e.maker)), *e.front_fill[k : k + 1]))
        check_lists(w.venue)
    return logs


def check_lists(venue: VenueState) -> None:
    """Every resting order stands in exactly one queue, at its price, and the counts agree."""
    own, lo = venue.own, int(venue.levels.i[LO_TICK])
    seen = []
    for row, side, count in ((FIRST_BID, 1, BIDS), (FIRST_ASK, -1, ASKS)):
        before = len(seen)
        for at in np.flatnonzero(own.ticks[row]):
            node = int(own.ticks[row, at]) - 1
            while node >= 0:
                slot = int(own.nodes[FIRST_ORDER, node])
                assert slot >= 0, "no queue without an order"
                while slot >= 0:
                    assert (own.orders[SIDE, slot], own.orders[PRICE_TICKS, slot] - lo, own.orders[NODE, slot]) == (side, at, node)
                    seen.append(slot)
                    slot = int(own.orders[NEXT, slot])
                node = int(own.nodes[NEXT_NODE, node])
        assert own.i[count] == len(seen) - before
    assert sorted(seen) == np.flatnonzero(own.orders[ID]).tolist()
    assert own.sets[RESTING_ORDERS].sum() == len(seen)
    assert own.sets[TAKEN_N].sum() == own.i[TAKEN]


@settings(max_examples=150)
@given(EVENTS, RULES, MODELS)
def test_a_set_does_not_feel_the_others(events: list[tuple[Any, ...]], rule: tuple[int, bool], model: int) -> None:
    together = run_events(events, World(rule[0], model, partial=rule[1], n_sets=3).book())
    for s in range(3):
        assert run_events(events, World(rule[0], model, partial=rule[1]).book(), only=s)[s] == together[s]


@settings(max_examples=40)
@given(EVENTS, RULES, MODELS)
def test_twins_agree(events: list[tuple[Any, ...]], rule: tuple[int, bool], model: int) -> None:
    worlds = [World(rule[0], model, partial=rule[1], n_sets=3, twin=twin).book() for twin in (False, True)]
    logs = [run_events(events, w) for w in worlds]
    assert logs[0] == logs[1]
    for part in ("orders", "nodes", "fronts", "ticks", "sets", "i"):
        assert getattr(worlds[0].venue.own, part).tobytes() == getattr(worlds[1].venue.own, part).tobytes(), part
    for part in ("bid", "ask", "i"):
        assert getattr(worlds[0].venue.levels, part).tobytes() == getattr(worlds[1].venue.levels, part).tobytes(), part


@settings(max_examples=60)
@given(EVENTS, RULES, st.booleans(), st.integers(1, 4))
def test_rows_in_a_loop_are_rows_one_by_one(events: list[tuple[Any, ...]], rule: tuple[int, bool], twin: bool, every: int) -> None:
    """The fast path of the row loop against the row step: same book, same queues, same fills, same mid."""
    one, many = (World(rule[0], LOG_PROB2, partial=rule[1], n_sets=3, twin=twin).book() for _ in range(2))
    loop = venue_on_rows.compiled if twin else venue_on_rows
    kinds = {"depth": DEPTH, "top": TOP, "trade": TRADE, "clear": CLEAR}
    rows = [(kinds[e[0]], *e[1:4]) for e in events if e[0] in kinds]
    requests = [e for e in events if e[0] in ("place", "market")]
    columns = [np.array(c) for c in zip(*rows, strict=True)] if rows else [np.zeros(0, dtype=np.int64)] * 4
    kind, side, ticks = columns[0].astype(np.int8), columns[1].astype(np.int8), columns[2].astype(np.int64)
    qty = columns[3].astype(np.float64) * one.per_lot
    flags = np.where(np.arange(len(rows)) % 3 == 0, 0, FLAG_LAST).astype(np.int16)
    seq = np.arange(len(rows)) - 2
    fills: list[list[tuple[int, ...]]] = [[], []]
    for begin in range(0, len(rows), every):
        end = min(begin + every, len(rows))
        if requests:
            what, s, price, lots, tif, owner = requests.pop()
            for w in (one, many):
                w.rows = begin
                w.place(begin + 1, s, price, lots, tif, MARKET if what == "market" else LIMIT, owner)
        for r in range(begin, end):
            fills[0] += [(r, *f) for f in one.feed(int(kind[r]), int(side[r]), int(ticks[r]), rows[r][3], seq=int(seq[r]), flags=int(flags[r]))]
        at = begin
        while at < end:
            stopped = loop(many.x, many.venue, kind, side, flags, ticks, qty, seq, at, end)
            assert many.venue.i[STATUS] == OK
            if stopped < end:
                fills[1] += [(stopped, *f) for f in many.read()]
                venue_after_row(many.venue, int(kind[stopped]), int(flags[stopped]))
            at = stopped + 1
    assert fills[0] == fills[1]
    a, b = one.venue, many.venue
    a.i[STATUS] = b.i[STATUS]
    # rows that no order saw do not count as events of ours
    for x, y in ((a.levels.bid, b.levels.bid), (a.levels.ask, b.levels.ask), (a.levels.i, b.levels.i), (a.i, b.i)):
        assert x.tolist() == y.tolist()
    assert a.own.fronts[FRONT].tolist() == b.own.fronts[FRONT].tolist()
    assert a.own.orders.tolist() == b.own.orders.tolist()


def test_the_row_loop_stops_at_rows_that_are_the_callers_and_at_the_windows_edge() -> None:
    w = World().book()
    kind = np.array([DEPTH, Kind.FUNDING, DEPTH, TRADE], dtype=np.int8)
    side = np.array([1, 0, 1, -1], dtype=np.int8)
    flags = np.ones(4, dtype=np.int16)
    ticks = np.array([98, 0, 97, 20])
    qty, seq = np.ones(4), np.full(4, -1)
    assert venue_on_rows(w.x, w.venue, kind, side, flags, ticks, qty, seq, 0, 4) == 1
    assert w.venue.i[STATUS] == OK
    assert venue_on_rows(w.x, w.venue, kind, side, flags, ticks, qty, seq, 2, 4) == 3
    assert w.venue.i[STATUS] == OUTSIDE_WINDOW


def test_a_wider_window_keeps_everything() -> None:
    w = World().book()
    w.place(1, 1, 100, 4)
    w.place(2, -1, 104, 4)
    w.place(3, 1, 102, 2, IOC)
    before = venue_book(w.x, w.venue)
    w.venue = widened_venue(w.venue, 10, 400)
    after = venue_book(w.x, w.venue)
    assert after.bid_ticks.tolist() == before.bid_ticks.tolist()
    assert after.ask_ticks.tolist() == before.ask_ticks.tolist()
    check_lists(w.venue)
    assert w.place(4, 1, 102, 5, IOC) == EXPIRED
    assert w.read() == [(4, 102, 3, 2, 0)]
    assert w.trade(-1, 100, 9) == [(1, 100, 4, 0, 1)]
    assert w.trade(1, 300, 9) == [(2, 104, 4, 0, 1)]
    with pytest.raises(DataError, match="does not contain the present one"):
        widened_venue(w.venue, 11, 400)
