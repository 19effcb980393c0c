"""The book against a dictionary, near and far from the touch, in both twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.kernels.book import FULL, book_apply_top, book_clear, book_lots, book_set, book_state, book_top, load_book, new_book
from mm_platform.kernels.jit import kernel

levels = st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(1, 120), st.integers(0, 9)), max_size=300)


@kernel
def fill(book, side, price, lots):  # type: ignore[no-untyped-def]
    """Set many levels."""
    for i in range(side.shape[0]):
        book_set(book, side[i], price[i], lots[i])


@given(levels)
def test_a_book_is_a_sorted_dictionary(rows: list[tuple[int, int, int]]) -> None:
    truth: dict[int, dict[int, int]] = {1: {}, -1: {}}
    for side, price, lots in rows:
        if lots:
            truth[side][price] = lots
        else:
            truth[side].pop(price, None)
    columns = [np.array([row[i] for row in rows], dtype=np.int64) for i in range(3)]
    states = []
    for twin in (fill, fill.compiled):
        book = new_book(256)
        twin(book, *columns)
        state = book_state(book, 7)
        assert state.bid_ticks.tolist() == sorted(truth[1], reverse=True)
        assert state.ask_ticks.tolist() == sorted(truth[-1])
        assert dict(zip(state.bid_ticks.tolist(), state.bid_lots.tolist(), strict=True)) == truth[1]
        assert dict(zip(state.ask_ticks.tolist(), state.ask_lots.tolist(), strict=True)) == truth[-1]
        best_bid, best_ask = max(truth[1], default=0), min(truth[-1], default=0)
        assert book_top(book) == (best_bid, truth[1].get(best_bid, 0), best_ask, truth[-1].get(best_ask, 0))
        assert all(book_lots(book, side, price) == truth[side].get(price, 0) for side in (1, -1) for price in range(1, 121))
        again = load_book(state, 256)
        assert all(x[:k].tolist() == y[:k].tolist() for x, y, k in zip(again[:4], book[:4], np.repeat(book.n, 2), strict=True))
        states.append(book)
    assert states[0].n.tolist() == states[1].n.tolist()


def test_a_best_quote_removes_what_is_better_and_what_it_crosses() -> None:
    book = new_book(16)
    for side, price in ((1, 100), (1, 101), (-1, 103), (-1, 104)):
        book_set(book, side, price, 5)
    book_apply_top(book, 1, 100, 7)
    assert book_top(book) == (100, 7, 103, 5)
    book_apply_top(book, 1, 103, 2)
    assert book_top(book) == (103, 2, 104, 5)
    book_clear(book, -1)
    assert book_top(book) == (103, 2, 0, 0)


def test_a_full_side_says_so() -> None:
    book = new_book(2)
    assert [book_set(book, 1, price, 1) for price in (1, 2, 3)] == [0, 0, FULL]
    assert book_set(book, 1, 2, 9) == 0
    with pytest.raises(DataError, match="room for 1"):
        load_book(BookState(np.array([2, 1]), np.array([1, 1]), np.empty(0, np.int64), np.empty(0, np.int64), 1), 1)
