"""The conservative venue rule: partial fills, shared volume, consumed levels, and the twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.kernels.book import Book, book_set, book_top, new_book
from mm_platform.kernels.exchange import (
    CONSERVATIVE,
    EXPIRED,
    FILLED,
    GTC,
    GTX,
    IOC,
    LOG_PROB2,
    RESTING,
    RISK_ADVERSE,
    ExchangeParams,
    Executions,
    OwnOrders,
    exchange_arrive,
    exchange_cancel,
    exchange_on_depth,
    exchange_on_trade,
    new_executions,
    new_own_orders,
)

X = ExchangeParams(CONSERVATIVE, RISK_ADVERSE, 1.0, 1, 1.0)


def market() -> tuple[Book, OwnOrders, Executions]:
    book = new_book(64)
    for side, ticks, lots in ((1, 100, 5), (1, 99, 7), (-1, 102, 5), (-1, 103, 9)):
        book_set(book, side, ticks, lots)
    return book, new_own_orders(8), new_executions(32)


def drain(e: Executions) -> list[tuple[int, int, int, int, int]]:
    got = [(int(e.id[k]), int(e.price_ticks[k]), int(e.lots[k]), int(e.leaves_lots[k]), int(e.maker[k])) for k in range(int(e.n[0]))]
    e.n[0] = 0
    return got


def test_prints_first_eat_the_queue_ahead_then_fill_us_in_part() -> None:
    book, orders, e = market()
    assert exchange_arrive(X, book, orders, e, 1, 1, 100, 4, GTX) == RESTING
    exchange_on_trade(X, orders, e, -1, 100, 3)
    assert drain(e) == []
    exchange_on_trade(X, orders, e, -1, 100, 4)  # 2 left ahead, 2 for us
    assert drain(e) == [(1, 100, 2, 2, 1)]
    exchange_on_trade(X, orders, e, -1, 100, 9)
    assert drain(e) == [(1, 100, 2, 0, 1)]
    exchange_on_trade(X, orders, e, -1, 100, 9)
    assert drain(e) == []


def test_two_own_orders_share_one_print() -> None:
    book, orders, e = market()
    exchange_arrive(X, book, orders, e, 1, 1, 101, 3, GTX)
    exchange_arrive(X, book, orders, e, 2, 1, 101, 3, GTX)
    exchange_on_trade(X, orders, e, -1, 101, 4)
    assert drain(e) == [(1, 101, 3, 0, 1), (2, 101, 1, 2, 1)]


def test_a_print_beyond_our_price_fills_us_at_most_by_its_size() -> None:
    book, orders, e = market()
    exchange_arrive(X, book, orders, e, 1, 1, 101, 10, GTX)
    exchange_on_trade(X, orders, e, -1, 100, 4)
    assert drain(e) == [(1, 101, 4, 6, 1)]


def test_a_crossing_level_fills_us_at_our_price_by_its_quantity() -> None:
    book, orders, e = market()
    exchange_arrive(X, book, orders, e, 1, 1, 101, 10, GTX)
    exchange_on_depth(X, book, orders, e, -1, 101, 6, 0)
    assert drain(e) == [(1, 101, 6, 4, 1)]
    assert book_top(book) == (100, 5, 101, 6)


def test_depth_decreases_cap_the_queue_ahead() -> None:
    book, orders, e = market()
    exchange_arrive(X, book, orders, e, 1, 1, 100, 1, GTX)
    exchange_on_depth(X, book, orders, e, 1, 100, 2, 0)
    exchange_on_trade(X, orders, e, -1, 100, 3)
    assert drain(e) == [(1, 100, 1, 0, 1)]


def test_a_best_quote_message_empties_the_better_levels_queue() -> None:
    book, orders, e = market()
    exchange_arrive(X, book, orders, e, 1, 1, 100, 1, GTX)
    exchange_on_depth(X, book, orders, e, 1, 99, 7, 1)
    assert book_top(book) == (99, 7, 102, 5)
    exchange_on_trade(X, orders, e, -1, 100, 1)
    assert drain(e) == [(1, 100, 1, 0, 1)]


def test_post_only_expires_when_it_would_cross_and_rests_inside() -> None:
    book, orders, e = market()
    assert exchange_arrive(X, book, orders, e, 1, 1, 102, 1, GTX) == EXPIRED
    assert exchange_arrive(X, book, orders, e, 2, -1, 100, 1, GTX) == EXPIRED
    assert exchange_arrive(X, book, orders, e, 3, 1, 101, 1, GTX) == RESTING
    assert drain(e) == []


def test_takers_walk_the_book_and_consume_it_until_restated() -> None:
    book, orders, e = market()
    assert exchange_arrive(X, book, orders, e, 1, 1, 103, 8, IOC) == FILLED
    assert drain(e) == [(1, 102, 5, 3, 0), (1, 103, 3, 0, 0)]
    assert book_top(book) == (100, 5, 103, 6)
    assert exchange_arrive(X, book, orders, e, 2, 1, 103, 8, IOC) == EXPIRED
    assert drain(e) == [(2, 103, 6, 2, 0)]
    assert exchange_arrive(X, book, orders, e, 3, -1, 100, 8, GTC) == RESTING
    assert drain(e) == [(3, 100, 5, 3, 0)]


def test_cancel_says_what_was_left_or_that_it_was_gone() -> None:
    book, orders, e = market()
    exchange_arrive(X, book, orders, e, 1, 1, 100, 4, GTX)
    assert exchange_cancel(orders, 1) == 4
    assert exchange_cancel(orders, 1) == -1


rows = st.lists(
    st.tuples(st.sampled_from(["depth", "top", "trade", "order", "cancel"]), st.sampled_from([1, -1]), st.integers(95, 106), st.integers(0, 9)),
    max_size=80,
)


@settings(max_examples=60)
@given(rows, st.sampled_from([RISK_ADVERSE, LOG_PROB2]))
def test_twins_agree_and_nothing_fills_beyond_what_was_there(events: list[tuple[str, int, int, int]], model: int) -> None:
    params = ExchangeParams(CONSERVATIVE, model, 1.0, 1, 1.0)
    logs = []
    for twin in (False, True):
        on_depth, on_trade, arrive, cancel = (
            f.compiled if twin else f for f in (exchange_on_depth, exchange_on_trade, exchange_arrive, exchange_cancel)
        )
        book, orders, e = market()
        log: list[tuple[int, int, int, int, int]] = []
        placed: dict[int, int] = {}
        for n, (what, side, price, lots) in enumerate(events, start=1):
            if what in ("depth", "top"):
                if what == "depth" or lots > 0:
                    on_depth(params, book, orders, e, side, price, lots, int(what == "top"))
            elif what == "trade" and lots > 0:
                on_trade(params, orders, e, side, price, lots)
                assert sum(int(e.lots[k]) for k in range(int(e.n[0]))) <= lots
            elif what == "order" and lots > 0 and len(placed) < 8:
                placed[n] = lots
                arrive(params, book, orders, e, n, side, price, lots, GTX)
            elif placed:
                cancel(orders, min(placed))
            log += drain(e)
        for order in placed:
            assert sum(f[2] for f in log if f[0] == order) <= placed[order]
        logs.append((log, book.n.tobytes(), orders.front_lots.tobytes()))
    assert logs[0] == logs[1]


@pytest.mark.parametrize("side", [1, -1])
def test_insurance_fund_prints_have_no_aggressor_and_fill_nobody(side: int) -> None:
    book, orders, e = market()
    exchange_arrive(X, book, orders, e, 1, side, 101, 1, GTX)
    exchange_on_trade(X, orders, e, 0, 101, 5)
    assert drain(e) == []
    assert np.count_nonzero(orders.id) == 1
