"""The L2 book as sorted integer levels: exact for any price, constant memory, cheap near the touch.

Belongs here: level updates and look-ups. Does not belong here: our own orders and queue positions (`kernels.exchange`), sequence
checking (`decode`). Each side is a pair of arrays sorted so that the *best level is last*: a change `d` levels away from the touch
moves `d` entries. Status codes: 0 done, `FULL` when a side has no room (the caller raises `DataError`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]

FULL: Final = 1
DEFAULT_CAPACITY: Final = 16_384


class Book(NamedTuple):
    """Mutable arrays of one book; `n[0]` bids and `n[1]` asks are in use. Bids ascend, asks descend: the best is last."""

    bid_ticks: Int64s
    bid_lots: Int64s
    ask_ticks: Int64s
    ask_lots: Int64s
    n: Int64s


def new_book(capacity: int = DEFAULT_CAPACITY) -> Book:
    """An empty book with room for `capacity` levels a side."""
    bid_ticks, bid_lots, ask_ticks, ask_lots = (np.zeros(capacity, dtype=np.int64) for _ in range(4))
    return Book(bid_ticks, bid_lots, ask_ticks, ask_lots, np.zeros(2, dtype=np.int64))


def load_book(state: BookState, capacity: int = DEFAULT_CAPACITY) -> Book:
    """A working book from a state at rest (best first); raises `DataError` when it does not fit."""
    book = new_book(capacity)
    for side, (ticks, lots) in enumerate(((state.bid_ticks, state.bid_lots), (state.ask_ticks, state.ask_lots))):
        if len(ticks) > capacity:
            raise DataError(f"book has {len(ticks)} levels on one side, room for {capacity}")
        book[2 * side][: len(ticks)] = ticks[::-1]
        book[2 * side + 1][: len(ticks)] = lots[::-1]
        book.n[side] = len(ticks)
    return book


def book_state(book: Book, seq: int) -> BookState:
    """The state at rest of a working book: copies, best first."""
    bids, asks = int(book.n[0]), int(book.n[1])
    return BookState(
        book.bid_ticks[:bids][::-1].copy(),
        book.bid_lots[:bids][::-1].copy(),
        book.ask_ticks[:asks][::-1].copy(),
        book.ask_lots[:asks][::-1].copy(),
        seq,
    )


@kernel
def level_index(ticks: Int64s, n: int, price_ticks: int, direction: int) -> int:
    """Position of a price in a side's array, or where it would be inserted; `direction` +1 bids (ascending), -1 asks (descending)."""
    # The touch is where the action is: look at the last entries before bisecting.
    lo = 0
    hi = n
    steps = 0
    while hi > 0 and steps < 8:
        if (ticks[hi - 1] - price_ticks) * direction < 0:
            return hi
        hi -= 1
        steps += 1
    while lo < hi:
        mid = (lo + hi) // 2
        if (ticks[mid] - price_ticks) * direction < 0:
            lo = mid + 1
        else:
            hi = mid
    return lo


@kernel
def side_set(ticks: Int64s, lots: Int64s, n: Int64s, side_index: int, direction: int, price_ticks: int, qty_lots: int) -> int:
    """Set a level of one side to an absolute quantity; 0 removes it. Returns 0 or `FULL`."""
    size = n[side_index]
    at = level_index(ticks, size, price_ticks, direction)
    found = at < size and ticks[at] == price_ticks
    if qty_lots > 0:
        if found:
            lots[at] = qty_lots
            return 0
        if size >= ticks.shape[0]:
            return 1
        i = size
        while i > at:
            ticks[i] = ticks[i - 1]
            lots[i] = lots[i - 1]
            i -= 1
        ticks[at] = price_ticks
        lots[at] = qty_lots
        n[side_index] = size + 1
    elif found:
        i = at
        while i < size - 1:
            ticks[i] = ticks[i + 1]
            lots[i] = lots[i + 1]
            i += 1
        n[side_index] = size - 1
    return 0


@kernel
def book_set(book: Book, side: int, price_ticks: int, qty_lots: int) -> int:
    """Set one level (side +1 bid, -1 ask) to an absolute quantity; 0 removes it. Returns 0 or `FULL`."""
    if side > 0:
        return side_set(book.bid_ticks, book.bid_lots, book.n, 0, 1, price_ticks, qty_lots)
    return side_set(book.ask_ticks, book.ask_lots, book.n, 1, -1, price_ticks, qty_lots)


@kernel
def book_clear(book: Book, side: int) -> None:
    """Remove all levels of a side; 0 = both."""
    if side >= 0:
        book.n[0] = 0
    if side <= 0:
        book.n[1] = 0


@kernel
def book_top(book: Book) -> tuple[int, int, int, int]:
    """(bid ticks, bid lots, ask ticks, ask lots); a side without levels gives zeros."""
    bids = book.n[0]
    asks = book.n[1]
    bid_ticks = 0
    bid_lots = 0
    ask_ticks = 0
    ask_lots = 0
    if bids > 0:
        bid_ticks = book.bid_ticks[bids - 1]
        bid_lots = book.bid_lots[bids - 1]
    if asks > 0:
        ask_ticks = book.ask_ticks[asks - 1]
        ask_lots = book.ask_lots[asks - 1]
    return bid_ticks, bid_lots, ask_ticks, ask_lots


@kernel
def book_lots(book: Book, side: int, price_ticks: int) -> int:
    """Quantity at a price, 0 where there is no level."""
    if side > 0:
        at = level_index(book.bid_ticks, book.n[0], price_ticks, 1)
        if at < book.n[0] and book.bid_ticks[at] == price_ticks:
            return book.bid_lots[at]
        return 0
    at = level_index(book.ask_ticks, book.n[1], price_ticks, -1)
    if at < book.n[1] and book.ask_ticks[at] == price_ticks:
        return book.ask_lots[at]
    return 0


@kernel
def book_apply_top(book: Book, side: int, price_ticks: int, qty_lots: int) -> int:
    """Fuse a venue's best-quote message: better levels of that side are gone, levels of the other side it crosses too. 0 or `FULL`.

    A price of 0 is how venues say that a side has no quote; it says nothing about the levels we know.
    """
    if price_ticks <= 0:
        return 0
    if side > 0:
        while book.n[0] > 0 and book.bid_ticks[book.n[0] - 1] > price_ticks:
            book.n[0] -= 1
        while book.n[1] > 0 and book.ask_ticks[book.n[1] - 1] <= price_ticks:
            book.n[1] -= 1
    else:
        while book.n[1] > 0 and book.ask_ticks[book.n[1] - 1] < price_ticks:
            book.n[1] -= 1
        while book.n[0] > 0 and book.bid_ticks[book.n[0] - 1] >= price_ticks:
            book.n[0] -= 1
    return book_set(book, side, price_ticks, qty_lots)
