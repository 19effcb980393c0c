"""Tapes for the lockstep loop, in chunks: rows in hftbacktest's layout or the platform's own tape.

Belongs here: what a source is, the refusal of a bad one with row and reason, the stream of prepared chunks. Does not belong here: files
(`lake`, `decode`), the passes themselves (`lockstep.market`).

A source is read once, front to back, a chunk at a time. Only where local and venue order differ (rows of one clock only, streams that overtook
each other) a second reader follows for the local side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import iso_utc
from mm_platform.kernels.accounting import Money, money_of
from mm_platform.replay.checkpoint import Arrays, arrays_of, with_arrays
from mm_platform.replay.lockstep import market
from mm_platform.replay.lockstep.market import (
    DEPTH,
    EXCH_FLAG,
    LOCAL_FLAG,
    N_LOCAL,
    N_ROWS,
    N_VENUE,
    SNAPSHOT,
    TRADE,
    FeedColumns,
    Grid,
    Market,
    SideBook,
    TapeColumns,
)
from mm_platform.tape.layout import Tape

WINDOW_TICKS: Final = 2**22
_PROBE_ROWS: Final = 4096
_FIELDS: Final = {"ev": "u8", "exch_ts": "i8", "local_ts": "i8", "px": "f8", "qty": "f8", "order_id": "u8"}

_REASONS: Final = {
    market.BAD_KIND: "event kind {kind} is none of depth (1), trade (2), clear (3), snapshot (4), best quote (5); rows of single orders cannot be replayed here",
    market.BAD_SIDE: "the row's side flags are {sides}; expected bought or sold, not both, and one of them for depth",
    market.BAD_PRICE: "price {px} is no positive number",
    market.OFF_GRID: "price {px} is not a multiple of the tick {tick}: another instrument's tape, or another tick",
    market.BAD_QTY: "quantity {qty} is no number >= 0",
    market.EXCH_ORDER: "exchange time {exch} lies before that of an earlier row ({last_exch}); sort the rows by exchange time",
    market.LOCAL_ORDER: "local time {local} lies before that of an earlier row ({last_local}); sort them, or write rows of one clock each where both orders cannot hold",
    market.LOCAL_EARLY: "local time {local} lies before exchange time {exch}: nobody knows before it happens; repair the clock first",
    market.CROSSED_SNAPSHOT: "a snapshot whose level at {px} crosses the book; a snapshot is the book of one instant, clear the old one before it",
    market.CROSSED_BOOK: "the book is crossed for more than a second and a thousand rows: bid {watch_bid} and ask {watch_ask} ticks stand at once; updates are missing",
    market.OUTSIDE_WINDOW: "price {px} would be the best of its side, but lies outside the window of {lo} to {hi} ticks; take a larger window, or another tick",
    market.DUPLICATE: "the row is there twice, equal in every column; remove it",
    market.NO_CLOCK: "the row has neither the exchange's nor the local flag",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to replay, and the facts of their instrument.

    Made by `feed_source` or `tape_source`. `blocks` opens the rows anew each time it is called; all blocks have one layout. `money` turns lots into
    money at no fees of its own. `description` is for messages.
    """

    blocks: Callable[[], Iterator[Any]]
    tick_size: float
    lot_base: float
    money: Money
    description: str
    tape: Tape | None = None


def feed_source(
    rows: npt.NDArray[Any] | Callable[[], Iterator[npt.NDArray[Any]]],
    *,
    tick_size: float,
    lot_size: float,
    spec: InstrumentSpec | None = None,
) -> Source:
    """Rows in hftbacktest's layout.

    Parameters
    ----------
    rows : structured array, or function
        With the fields ev, exch_ts, local_ts, px, qty, order_id; or a function that opens such arrays one after the other, for days that do not fit
        into memory.
    tick_size, lot_size : float
        Quote per base, and base.
    spec : InstrumentSpec
        For other than linear contracts.

    Raises
    ------
    ConfigError
        Sizes that are not positive, or not those of `spec`.
    DataError
        An array without these fields, or without rows.
    """
    for name, value in (("tick_size", tick_size), ("lot_size", lot_size)):
        if not 0.0 < value < np.inf:
            raise ConfigError(f"{name} is {value}, expected a positive number")
    money = Money(lot_size, tick_size, 0.0, 0.0) if spec is None else money_of(spec, maker_fee=0.0, taker_fee=0.0)
    if spec is not None and (float(spec.tick) != tick_size or float(spec.lot) != lot_size):
        raise ConfigError(
            f"{spec.instrument} has a tick of {spec.tick_size} and a lot of {spec.lot_size}; the tape is said to have {tick_size} and {lot_size}"
        )
    if isinstance(rows, np.ndarray):
        _check_feed(rows)
        if len(rows) == 0:
            raise DataError("the tape has no rows; nothing can be replayed")
        array = rows
        return Source(lambda: iter((array,)), tick_size, lot_size, money, "the tape")
    return Source(rows, tick_size, lot_size, money, "the tape")


def tape_source(tape: Tape) -> Source:
    """A tape of the platform; raises `DataError` when it has no rows."""
    if len(tape) == 0:
        raise DataError(f"tape of {tape.spec.instrument} has no rows; nothing can be replayed")
    spec = tape.spec
    lot = spec.lot * Decimal(spec.multiplier)
    columns = TapeColumns(
        tape.exch_ts, tape.local_ts, tape.kind, tape.side, tape.flags, tape.price_ticks, quantities_base(tape.qty_lots, lot), tape.seq
    )
    return Source(
        lambda: iter((columns,)), float(spec.tick), float(lot), money_of(spec, maker_fee=0.0, taker_fee=0.0), f"tape of {spec.instrument}", tape
    )


def quantities_base(lots: npt.NDArray[np.int64], lot: Decimal) -> npt.NDArray[np.float64]:
    """Whole lots as base, each the correctly rounded decimal where the lot is a fraction like 0.001, as a feed prints it."""
    per_base = 1 / lot
    if per_base == per_base.to_integral_value():
        return np.divide(lots, float(per_base), dtype=np.float64)
    return np.multiply(lots, float(lot), dtype=np.float64)


def _check_feed(rows: npt.NDArray[Any]) -> None:
    names = rows.dtype.names or ()
    for name, kind in _FIELDS.items():
        if name not in names or rows.dtype[name] != np.dtype(kind):
            seen = f"{rows.dtype[name]}" if name in names else "missing"
            raise DataError(f"the tape's field {name} is {seen}, expected {kind}; expected hftbacktest's layout: {', '.join(_FIELDS)}")
    if rows.ndim != 1:
        raise DataError(f"the tape has {rows.ndim} dimensions, expected 1")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prepared rows, and what the loop must know of them.

    local_first : number of the first local entry, counted from the tape's first. horizon_ns : requests that arrive before it find all their rows in
    this chunk or an earlier one. last : no chunk follows. end_ns : time of the last event so far.
    """

    market: Market
    local_first: int
    horizon_ns: int
    end_ns: int
    last: bool
    rows_read: int


class Preparer:
    """The stream of prepared chunks of a source.

    Parameters
    ----------
    source : Source
    chunk_rows : int
        Rows of a chunk.
    lookback_ns : int
        How far before a chunk's horizon a decision may still be due: the largest way to the venue.
    window_ticks : int
        Width of the book's window.
    compiled : bool
        False runs the Python twins.
    """

    def __init__(self, source: Source, *, chunk_rows: int, lookback_ns: int, window_ticks: int = WINDOW_TICKS, compiled: bool = True) -> None:
        self.source = source
        self.chunk_rows = chunk_rows
        self.lookback_ns = lookback_ns
        self.compiled = compiled
        self.rows_read = 0  # of the source, all blocks
        self.local_entries = 0  # of the local touch, of all chunks
        self.two_books = False
        self._reader = _Reader(source)
        self.grid = self._window(window_ticks)
        self.first_ns = self._reader.first_ns()
        self.book = market.new_side_book(self.grid.ticks)
        self._local = _LocalReader(source, self.grid)
        self._kept: tuple[npt.NDArray[np.int64], ...] = tuple(np.empty(0, np.int64) for _ in range(3))
        if source.tape is not None:
            self._load_book(source.tape)

    @property
    def finished(self) -> bool:
        return self._reader.finished

    def state(self) -> Arrays:
        """What `resume` needs, at a chunk's end."""
        numbers = np.array([self.rows_read, self.local_entries, int(self.two_books)], dtype=np.int64)
        kept = dict(zip(("kept_ns", "kept_bid", "kept_ask"), (column.copy() for column in self._kept), strict=True))
        return (
            {"market.numbers": numbers} | {f"market.{k}": v for k, v in kept.items()} | _book_arrays(self.book, "market.venue") | self._local.state()
        )

    def resume(self, saved: Arrays) -> None:
        """Go on where a run over the same source stopped."""
        self.rows_read, self.local_entries, two_books = (int(x) for x in saved["market.numbers"])
        self.two_books = bool(two_books)
        self._kept = tuple(saved[f"market.{name}"].copy() for name in ("kept_ns", "kept_bid", "kept_ask"))
        _load_book_arrays(self.book, saved, "market.venue")
        self._reader.skip(self.rows_read)
        self._local.resume(saved)

    def next_chunk(self, spare: Market | None) -> tuple[Chunk, Market]:
        """The next rows, in the columns of `spare` where they are large enough.

        Raises
        ------
        DataError
            With the row and the reason.
        """
        columns, begin, end = self._reader.next_rows(self.chunk_rows)
        kept = len(self._kept[0])
        if spare is None or len(spare.local_ns) < kept + 2 * self.chunk_rows + 16:
            spare = market.new_market(self.chunk_rows, 2 * kept + 1024)
        out = spare
        out.n[:] = 0
        for column, old in zip((out.local_ns, out.local_bid, out.local_ask), self._kept, strict=True):
            column[:kept] = old
        out.n[N_LOCAL] = kept
        local_first = self.local_entries - kept
        market.note_venue_touch(out, self.book, self.grid)
        status = self._pass(columns, begin, end, out)
        if status == market.TWO_BOOKS:
            self.two_books = True
            status = self._pass(columns, int(self.book.i[market.AT_ROW]), end, out)
        if status not in (market.DONE, market.ROWS_FULL):
            raise self._refused(status, columns, int(self.book.i[market.AT_ROW]))
        stopped = int(self.book.i[market.AT_ROW])
        self._reader.give_back(end - stopped)
        self.rows_read += stopped - begin
        last = self._reader.finished
        horizon = market.NEVER if last else int(self.book.i[market.LAST_EXCH])
        if self.two_books:
            out = self._local_side(out, horizon)
        n = int(out.n[N_LOCAL])
        self.local_entries = local_first + n
        self._keep(out, n, horizon)
        end_ns = int(max(self.book.i[market.LAST_EXCH], self.book.i[market.LAST_LOCAL], self._local.book.i[market.LAST_LOCAL]))
        return Chunk(out, local_first, horizon, end_ns, last, self.rows_read), out

    def _pass(self, columns: Any, begin: int, end: int, out: Market) -> int:
        kernel = market.prepare_tape if isinstance(columns, TapeColumns) else market.prepare_feed
        call = kernel.compiled if self.compiled else kernel
        return int(call(columns, begin, end, self.grid, self.book, int(self.two_books), out))  # type: ignore[arg-type]

    def _local_side(self, out: Market, horizon_ns: int) -> Market:
        """Bring the local side's own book up to the horizon, and its touches into the log."""
        # the local reader starts at the tape's first row, whenever it is first needed; what the log holds already is not repeated
        known_ns = int(out.local_ns[out.n[N_LOCAL] - 1]) if out.n[N_LOCAL] else -(2**63)
        while True:
            before = int(out.n[N_LOCAL])
            status, columns = self._local.advance(horizon_ns, out, self.compiled)
            if known_ns != -(2**63):
                _drop_known(out, before, known_ns)
            if status == market.DONE:
                return out
            if status != market.ROWS_FULL:
                raise self._refused(status, columns, int(self._local.book.i[market.AT_ROW]), self._local.book)
            if int(out.n[N_LOCAL]) == before:
                continue
            wider = market.new_market(self.chunk_rows, 2 * len(out.local_ns))
            for new, old in zip(wider, out, strict=True):
                new[: len(old)] = old
            out = wider

    def _keep(self, out: Market, n: int, horizon_ns: int) -> None:
        """Entries that a later decision may need: the last one that holds at the lookback, and all after it."""
        if n == 0:
            return
        first = max(int(np.searchsorted(out.local_ns[:n], horizon_ns - self.lookback_ns, side="right")) - 1, 0) if horizon_ns != market.NEVER else n
        self._kept = tuple(column[first:n].copy() for column in (out.local_ns, out.local_bid, out.local_ask))

    def _window(self, window_ticks: int) -> Grid:
        tick = self.source.tick_size
        middle = self._reader.middle_ticks(tick)
        base = max(middle - window_ticks // 2, 1)
        return Grid(tick, self.source.lot_base, base, window_ticks)

    def _load_book(self, tape: Tape) -> None:
        """The book before the first row, known to both sides: level rows of a time before all others."""
        book = tape.initial_book
        lot = tape.spec.lot * Decimal(tape.spec.multiplier)
        self.initial: list[tuple[int, int, float]] = []
        for side, ticks, lots in ((0, book.bid_ticks, book.bid_lots), (1, book.ask_ticks, book.ask_lots)):
            for tick, qty in zip(ticks.tolist(), quantities_base(lots, lot).tolist(), strict=True):
                x = tick - self.grid.base
                if 0 <= x < self.grid.ticks:
                    self.initial.append((side, x, qty))
                    for has, i in (self.book, self._local.book):
                        market.set_level(has, i, self.grid.ticks, side, x, int(market.is_dust(qty, self.grid.lot_size)))
        if self.book.i[market.CROSSINGS]:
            raise DataError(
                f"{self.source.description}: the book to start from is crossed: bids to {book.bid_ticks[0]}, asks from {book.ask_ticks[0]} ticks"
            )
        self._kept = (
            np.array([-(2**63)]),
            np.array([self.book.i[market.BEST_BID] + self.grid.base if self.book.i[market.BEST_BID] >= 0 else 0]),
            np.array([self.book.i[market.BEST_ASK] + self.grid.base if self.book.i[market.BEST_ASK] < self.grid.ticks else 0]),
        )
        self.local_entries = 1

    def initial_levels(self) -> list[tuple[int, int, float]]:
        """(side, offset, quantity) of the levels that stand before the first row."""
        return getattr(self, "initial", [])

    def _refused(self, status: int, columns: Any, row: int, book: SideBook | None = None) -> DataError:
        i = (book or self.book).i
        facts: dict[str, Any] = {
            "last_exch": int(i[market.LAST_EXCH]),
            "last_local": int(i[market.LAST_LOCAL]),
            "watch_bid": int(i[market.WATCH_BID]) + self.grid.base,
            "watch_ask": int(i[market.WATCH_ASK]) + self.grid.base,
            "tick": self.grid.tick_size,
            "lo": self.grid.base,
            "hi": self.grid.base + self.grid.ticks - 1,
        }
        if isinstance(columns, TapeColumns):
            facts |= {"kind": int(columns.kind[row]), "sides": int(columns.side[row]), "px": f"{int(columns.price_ticks[row])} ticks"}
        else:
            ev = int(columns.ev[row])
            facts |= {"kind": ev & 0xFF, "sides": f"{(ev >> 28) & 3:#04b} (bought, sold)", "px": float(columns.px[row])}
        facts |= {"exch": int(columns.exch_ts[row]), "local": int(columns.local_ts[row]), "qty": float(columns.qty[row])}
        at = f"{self.source.description}: row {self._reader.row_number(row)} ({iso_utc(facts['exch'])})"
        return DataError(f"{at}: {_REASONS[status].format(**facts)}")


def _drop_known(out: Market, begin: int, known_ns: int) -> None:
    """Remove entries from `begin` on that the log holds already, being no later than `known_ns`, but for the last of that very time."""
    n = int(out.n[N_LOCAL])
    fresh = begin + int(np.searchsorted(out.local_ns[begin:n], known_ns, side="right"))
    if fresh == begin:
        return
    # rows of one time are one change to a trader; what is newly added of it replaces what was known
    begin_at = begin
    if begin > 0 and int(out.local_ns[fresh - 1]) == known_ns:
        out.local_bid[begin - 1] = out.local_bid[fresh - 1]
        out.local_ask[begin - 1] = out.local_ask[fresh - 1]
    for column in (out.local_ns, out.local_bid, out.local_ask):
        column[begin_at : begin_at + n - fresh] = column[fresh:n].copy()
    out.n[N_LOCAL] = begin_at + n - fresh
