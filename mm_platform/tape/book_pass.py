"""One pass over tape rows in venue order: the rebuilt book, its best quotes, and what the venue's own best quotes say about it.

Belongs here: rebuilding, counting crossed books, comparing tops, the share of trades out of place. Does not belong here: deciding which rows
there are (`depth_chain`), storing them (`workflow`).

The book is rebuilt from snapshots and depth updates alone; the venue's best-quote stream is the independent witness it is held against, at
equal update ids. A trade counts as not ordered where the quote known before it already lies past it (a buy below the best ask, a sale above
the best bid): the book had moved before the trade that moved it, or the trade met a quote the feed never showed; also where its time was
estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.kernels.book import DEFAULT_CAPACITY, Book, book_clear, book_set, book_state, book_top, load_book
from mm_platform.kernels.jit import kernel
from mm_platform.tape.layout import BookState
from mm_platform.tape.messages import Columns, Int64s

MAX_CAPACITY: Final = 1_048_576
_UNMATCHED_KEPT: Final = 65_536

_SEQ: Final = 0
_TOP_SEQ: Final = 1
_QUOTE_BID: Final = 2
_QUOTE_ASK: Final = 3
_TOP_FIELDS: Final = 4  # 4..7 bid ticks, bid lots, ask ticks, ask lots of the best-quote message at hand
_SHOWN: Final = 8  # 8..11 the depth book's last best quotes written
_OUT: Final = 12
_DEPTH_MESSAGES: Final = 13
_CROSSED: Final = 14
_TRADES: Final = 15
_UNORDERED: Final = 16
_JUDGED: Final = 17
_NOT_MARKET_TRADES: Final = 18
_SNAPSHOTS: Final = 19
_FIRST_SEQ: Final = 20
_STATE: Final = 21

SOURCE_DEPTH: Final = 0
SOURCE_TOP: Final = 1


@dataclass(frozen=True, slots=True)
class Tops:
    """Best quotes in row order.

    Parameters
    ----------
    row : ndarray of int64
        Row of the batch that completed the quote.
    source : ndarray of int8
        0 the rebuilt book, 1 the venue's best-quote stream.
    changed : ndarray of int8
        1 where the rebuilt book's best quote differs from the one before, or a best-quote message was given.
    seq, bid_ticks, bid_lots, ask_ticks, ask_lots : ndarray of int64
    """

    row: Int64s
    source: npt.NDArray[np.int8]
    changed: npt.NDArray[np.int8]
    seq: Int64s
    bid_ticks: Int64s
    bid_lots: Int64s
    ask_ticks: Int64s
    ask_lots: Int64s


@dataclass(frozen=True, slots=True)
class BookCounts:
    """What the pass saw: numbers of messages and trades; `top_of_book_compared` pairs at equal update ids, `matched` of them equal."""

    depth_messages: int
    snapshots: int
    crossed_books: int
    trades: int
    non_market_trades: int
    judged_trades: int
    unordered_trades: int
    top_of_book_compared: int
    top_of_book_matched: int
    first_seq: int
    last_seq: int


@kernel
def pass_rows(
    book: Book,
    kind: npt.NDArray[np.int8],
    side: npt.NDArray[np.int8],
    flags: npt.NDArray[np.int16],
    price_ticks: Int64s,
    qty_lots: Int64s,
    seq: Int64s,
    start: int,
    state: Int64s,
    row: Int64s,
    source: npt.NDArray[np.int8],
    changed: npt.NDArray[np.int8],
    out_seq: Int64s,
    out: Int64s,
) -> int:
    """Apply rows from `start` on. Returns the number of rows when done, or the row for which the book had no room.

    Best quotes are appended to the output arrays (`out` has one row of 4 per quote), their number stands in `state[_OUT]`.
    """
    n = kind.shape[0]
    for i in range(start, n):
        k = kind[i]
        if k == 1 or k == 4:
            if book_set(book, side[i], price_ticks[i], qty_lots[i]) != 0:
                return i
            if seq[i] > state[_SEQ]:
                state[_SEQ] = seq[i]
            if flags[i] & 1 != 0:
                if k == 1:
                    state[_DEPTH_MESSAGES] += 1
                    if state[_FIRST_SEQ] < 0:
                        state[_FIRST_SEQ] = seq[i]
                else:
                    state[_SNAPSHOTS] += 1
                bid_ticks, bid_lots, ask_ticks, ask_lots = book_top(book)
                if bid_ticks > 0 and ask_ticks > 0:
                    if bid_ticks >= ask_ticks:
                        state[_CROSSED] += 1
                    o = state[_OUT]
                    moved = (
                        bid_ticks != state[_SHOWN] or bid_lots != state[_SHOWN + 1] or ask_ticks != state[_SHOWN + 2] or ask_lots != state[_SHOWN + 3]
                    )
                    row[o] = i
                    source[o] = 0
                    changed[o] = 1 if moved else 0
                    out_seq[o] = seq[i]
                    out[o, 0] = bid_ticks
                    out[o, 1] = bid_lots
                    out[o, 2] = ask_ticks
                    out[o, 3] = ask_lots
                    state[_SHOWN] = bid_ticks
                    state[_SHOWN + 1] = bid_lots
                    state[_SHOWN + 2] = ask_ticks
                    state[_SHOWN + 3] = ask_lots
                    state[_OUT] = o + 1
                    if seq[i] < 0 or seq[i] >= state[_TOP_SEQ]:
                        state[_QUOTE_BID] = bid_ticks
                        state[_QUOTE_ASK] = ask_ticks
        elif k == 5:
            at = _TOP_FIELDS if side[i] > 0 else _TOP_FIELDS + 2
            state[at] = price_ticks[i]
            state[at + 1] = qty_lots[i]
            if flags[i] & 1 != 0:
                o = state[_OUT]
                row[o] = i
                source[o] = 1
                changed[o] = 1
                out_seq[o] = seq[i]
                for c in range(4):
                    out[o, c] = state[_TOP_FIELDS + c]
                state[_OUT] = o + 1
                if seq[i] > state[_TOP_SEQ]:
                    state[_TOP_SEQ] = seq[i]
                if seq[i] < 0 or seq[i] >= state[_SEQ]:
                    state[_QUOTE_BID] = state[_TOP_FIELDS]
                    state[_QUOTE_ASK] = state[_TOP_FIELDS + 2]
        elif k == 2:
            state[_TRADES] += 1
            if flags[i] & 2 != 0:
                state[_NOT_MARKET_TRADES] += 1
            elif state[_QUOTE_BID] > 0 and state[_QUOTE_ASK] > 0:
                state[_JUDGED] += 1
                if flags[i] & 8 != 0 or (side[i] > 0 and price_ticks[i] < state[_QUOTE_ASK]) or (side[i] < 0 and price_ticks[i] > state[_QUOTE_BID]):
                    state[_UNORDERED] += 1
        elif k == 3:
            book_clear(book, side[i])
            for c in range(4):
                state[_SHOWN + c] = 0
            if state[_TOP_SEQ] < 0:
                state[_QUOTE_BID] = 0
                state[_QUOTE_ASK] = 0
    return n


class BookPass:
    """Rebuilds one partition's book batch after batch.

    Parameters
    ----------
    initial : BookState
        The book before the first row.
    """

    def __init__(self, initial: BookState, *, compiled: bool = True) -> None:
        size = max(len(initial.bid_ticks), len(initial.ask_ticks))
        capacity = DEFAULT_CAPACITY
        while capacity < 2 * size:
            capacity *= 2
        self._book = load_book(initial, capacity)
        self._capacity = capacity
        self._run = pass_rows.compiled if compiled else pass_rows
        self._state = np.zeros(_STATE, dtype=np.int64)
        self._state[[_TOP_SEQ, _FIRST_SEQ]] = -1
        self._state[_SEQ] = initial.seq
        self._compared = self._matched = 0
        self._unmatched: dict[int, tuple[Int64s, npt.NDArray[np.int64]]] = {
            which: (np.empty(0, np.int64), np.empty((0, 4), np.int64)) for which in (SOURCE_DEPTH, SOURCE_TOP)
        }

    def apply(self, columns: Columns) -> Tops:
        """Rows in venue order, continuing those given before; returns the best quotes among them.

        Raises
        ------
        DataError
            The book outgrew `MAX_CAPACITY` levels a side.
        """
        n = len(columns["kind"])
        row, seq, out = np.empty(n, np.int64), np.empty(n, np.int64), np.empty((n, 4), np.int64)
        source, changed = np.empty(n, np.int8), np.empty(n, np.int8)
        self._state[_OUT] = 0
        at = 0
        while at < n:
            at = int(
                self._run(
                    self._book,
                    columns["kind"],
                    columns["side"],
                    columns["flags"],
                    columns["price_ticks"],
                    columns["qty_lots"],
                    columns["seq"],
                    at,
                    self._state,
                    row,
                    source,
                    changed,
                    seq,
                    out,
                )
            )
            if at < n:
                self._grow()
        count = int(self._state[_OUT])
        self._compare(source[:count], seq[:count], out[:count])
        return Tops(row[:count], source[:count], changed[:count], seq[:count], *(np.ascontiguousarray(out[:count, c]) for c in range(4)))

    def book(self) -> BookState:
        """The rebuilt book as it stands."""
        return book_state(self._book, int(self._state[_SEQ]))

    def counts(self) -> BookCounts:
        s = [int(v) for v in self._state]
        return BookCounts(
            depth_messages=s[_DEPTH_MESSAGES],
            snapshots=s[_SNAPSHOTS],
            crossed_books=s[_CROSSED],
            trades=s[_TRADES],
            non_market_trades=s[_NOT_MARKET_TRADES],
            judged_trades=s[_JUDGED],
            unordered_trades=s[_UNORDERED],
            top_of_book_compared=self._compared,
            top_of_book_matched=self._matched,
            first_seq=s[_FIRST_SEQ],
            last_seq=s[_SEQ],
        )

    def _grow(self) -> None:
        self._capacity *= 2
        if self._capacity > MAX_CAPACITY:
            raise DataError(f"the book has more than {MAX_CAPACITY // 2} levels on one side; no venue's has: the prices or the grid are wrong")
        self._book = load_book(self.book(), self._capacity)

    def _compare(self, source: npt.NDArray[np.int8], seq: Int64s, out: npt.NDArray[np.int64]) -> None:
        """Pair the two sources at equal ids; both climb, so what lies below the other's newest id can find no partner any more."""
        for which in (SOURCE_DEPTH, SOURCE_TOP):
            mine = (source == which) & (seq >= 0)
            old_seq, old_out = self._unmatched[which]
            self._unmatched[which] = np.concatenate((old_seq, seq[mine])), np.concatenate((old_out, out[mine]))
        (depth_seq, depth), (top_seq, top) = self._unmatched[SOURCE_DEPTH], self._unmatched[SOURCE_TOP]
        if len(depth_seq) and len(top_seq):
            _, i, j = np.intersect1d(depth_seq, top_seq, return_indices=True)
            self._compared += len(i)
            self._matched += int(np.sum(np.all(depth[i] == top[j], axis=1)))
            newest = min(depth_seq.max(), top_seq.max())
            depth_open, top_open = depth_seq > newest, top_seq > newest
            self._unmatched = {SOURCE_DEPTH: (depth_seq[depth_open], depth[depth_open]), SOURCE_TOP: (top_seq[top_open], top[top_open])}
        for which, (ids, quotes) in self._unmatched.items():
            self._unmatched[which] = ids[-_UNMATCHED_KEPT:], quotes[-_UNMATCHED_KEPT:]
