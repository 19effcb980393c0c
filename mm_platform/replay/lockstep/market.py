"""The market as the lockstep loop reads it: one pass over a tape that checks every row and tracks the best quotes once for all sets.

Belongs here: the compact columns of a chunk, the passes that fill them, what can be wrong with a row. Does not belong here: where tapes come
from and in what pieces (`lockstep.sources`), own orders (`lockstep.loop`).

Own orders never move the book under the reference rule, so everything about the market that the sets ask for is known before any of them
decides: which rows improve the best of a side (they fill what they cross), the venue's touch when requests arrive, the touch that a trader has seen
at a decision. What is left for the loop is to store a level and to look whether an order of ours rests there.

The book holds levels over a window of ticks, as in `kernels.levels`, and only whether they are empty: quantities are the loop's. Rows beyond the
window are dropped. That cannot change a fill: such a level is never the best (a best beyond the window is refused), no order of ours may rest there
(`lockstep.loop` stops a set that wants to), and a print beyond it is moved to the window's edge, where it is still beyond all our orders.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.jit import kernel

UInt8s = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# codes of a row, twice the kind plus the side whose own orders it concerns: 0 bids, 1 asks
LEVEL: Final = 0  # the level of that side has a new quantity
IMPROVES: Final = 1  # the same, and it is the new best: it fills orders of the other side that it meets
PRINT: Final = 2  # a trade that hits that side
DROP: Final = 3  # levels of that side from `tick` to `qty` are gone (both offsets, included)
DUST: Final = 4  # the level has less than half a lot left and counts as gone

# hftbacktest's flags and kinds
EXCH_FLAG: Final = 1 << 31
LOCAL_FLAG: Final = 1 << 30
BUY_FLAG: Final = 1 << 29
SELL_FLAG: Final = 1 << 28
DEPTH: Final = 1
TRADE: Final = 2
CLEAR: Final = 3
SNAPSHOT: Final = 4
TOP: Final = 5
NOT_MARKET: Final = 2  # flag of the tape: a print that fills nobody (`tape.layout`, which this mirrors; a test keeps them equal)

# places in a side book's state; ticks are offsets in the window
BEST_BID: Final = 0  # -1 = none
BEST_ASK: Final = 1  # ticks of the window = none
LOW_BID: Final = 2  # outermost level since the side was last found empty: a search for the next best ends there
HIGH_ASK: Final = 3
BID_FROM: Final = 4  # extent of everything set since the side was cleared
BID_TO: Final = 5
ASK_FROM: Final = 6
ASK_TO: Final = 7
LAST_EXCH: Final = 8
LAST_LOCAL: Final = 9
WATCH_NS: Final = 10  # a crossed book is looked at again from here on
WATCH_ROW: Final = 11
WATCH_BID: Final = 12  # the levels that cross
WATCH_ASK: Final = 13
AT_ROW: Final = 14  # next row, or the bad one
OUTSIDE: Final = 15  # rows dropped because they lie beyond the window
CROSSINGS: Final = 16
BOOK_I_SIZE: Final = 17

# how many entries of the columns are in use
N_ROWS: Final = 0
N_VENUE: Final = 1
N_LOCAL: Final = 2

# what a pass answers
DONE: Final = 0
TWO_BOOKS: Final = 1  # from this row on the local side sees another order than the venue
ROWS_FULL: Final = 2
# what is wrong with a row
BAD_KIND: Final = 10
BAD_SIDE: Final = 11
BAD_PRICE: Final = 12
OFF_GRID: Final = 13
BAD_QTY: Final = 14
EXCH_ORDER: Final = 15
LOCAL_ORDER: Final = 16
LOCAL_EARLY: Final = 17
CROSSED_SNAPSHOT: Final = 18
CROSSED_BOOK: Final = 19
OUTSIDE_WINDOW: Final = 20
DUPLICATE: Final = 21
NO_CLOCK: Final = 22

# a price may be this far off its tick: float noise of a decimal, not another grid
GRID_TOLERANCE_TICKS: Final = 1e-4
# rows of one instant may cross, and a feed that drops updates leaves a crossed level until it is restated: after so long, and so many rows, the tape is bad
CROSSED_PATIENCE_NS: Final = 1_000_000_000
CROSSED_PATIENCE_ROWS: Final = 1_000
NEVER: Final = 2**63 - 1

_UNCHANGED: Final = 0
_CHANGED: Final = 1
_IMPROVED: Final = 3


class Grid(NamedTuple):
    """Tick and lot sizes, and the window of ticks `base .. base + ticks - 1`."""

    tick_size: float
    lot_size: float
    base: int
    ticks: int


class Market(NamedTuple):
    """Columns of one chunk; `n` says how many entries are in use (places above).

    code, tick, qty, exch_ns : rows at the venue; ticks are offsets in the window, quantities base as fed.
    venue_row, venue_bid, venue_ask : the venue's touch [ticks, 0 = none] that holds from row `venue_row` on (before that row happens).
    local_ns, local_bid, local_ask : the touch that a trader sees from `local_ns` on. Entries of earlier chunks that may still be asked for come first.
    """

    code: UInt8s
    tick: Int32s
    qty: Float64s
    exch_ns: Int64s
    venue_row: Int64s
    venue_bid: Int64s
    venue_ask: Int64s
    local_ns: Int64s
    local_bid: Int64s
    local_ask: Int64s
    n: Int64s


class FeedColumns(NamedTuple):
    """Rows in hftbacktest's layout, by column (any stride)."""

    ev: Any
    exch_ts: Any
    local_ts: Any
    px: Any
    qty: Any
    order_id: Any


class TapeColumns(NamedTuple):
    """Rows of a `tape.layout.Tape`."""

    exch_ts: Int64s
    local_ts: Int64s
    kind: npt.NDArray[np.int8]
    side: npt.NDArray[np.int8]
    flags: npt.NDArray[np.int16]
    price_ticks: Int64s
    qty: Float64s
    seq: Int64s


class SideBook(NamedTuple):
    """Which levels hold something (bids, then asks), and the state named by the places above."""

    has: UInt8s
    i: Int64s


def new_side_book(ticks: int) -> SideBook:
    """An empty book over a window of `ticks`."""
    i = np.zeros(BOOK_I_SIZE, dtype=np.int64)
    book = SideBook(np.zeros(2 * ticks, dtype=np.uint8), i)
    forget_side(i, ticks, 0)
    forget_side(i, ticks, 1)
    i[LAST_EXCH] = i[LAST_LOCAL] = -(2**63)
    i[WATCH_NS] = NEVER
    return book


def new_market(rows: int, local_entries: int) -> Market:
    """Columns for `rows` rows of a source and `local_entries` entries of the local touch kept from before."""
    out = 2 * rows + 16
    return Market(
        np.empty(out, np.uint8),
        np.empty(out, np.int32),
        np.empty(out),
        np.empty(out, np.int64),
        *(np.empty(out, np.int64) for _ in range(3)),
        *(np.empty(local_entries + out, np.int64) for _ in range(3)),
        np.zeros(3, np.int64),
    )


@kernel
def forget_side(i: Int64s, ticks: int, side: int) -> None:
    """State of a side without any level."""
    if side == 0:
        i[BEST_BID] = -1
        i[LOW_BID] = ticks
        i[BID_FROM] = ticks
        i[BID_TO] = -1
    else:
        i[BEST_ASK] = ticks
        i[HIGH_ASK] = -1
        i[ASK_FROM] = ticks
        i[ASK_TO] = -1


@kernel
def next_bid(has: UInt8s, i: Int64s, start: int) -> int:
    """The nearest bid at `start` or below, -1 when there is none up to the outermost."""
    at = start
    low = i[LOW_BID]
    while at >= low:
        if has[at] != 0:
            return at
        at -= 1
    return -1


@kernel
def next_ask(has: UInt8s, i: Int64s, ticks: int, start: int) -> int:
    """The nearest ask at `start` or above, `ticks` when there is none up to the outermost."""
    at = start
    high = i[HIGH_ASK]
    while at <= high:
        if has[ticks + at] != 0:
            return at
        at += 1
    return ticks


@kernel
def set_level(has: UInt8s, i: Int64s, ticks: int, side: int, x: int, empty: int) -> int:
    """Note that a level is there or gone; returns whether the touch changed, and whether the level is the side's new best.

    The rule of the reference: a new best that meets the other side moves that side's best beyond it, and the levels it passed stay where they are.
    """
    if side == 0:
        if empty != 0:
            has[x] = 0
            if x != i[BEST_BID]:
                return _UNCHANGED
            best = next_bid(has, i, x - 1)
            i[BEST_BID] = best
            if best < 0:
                i[LOW_BID] = ticks
            return _CHANGED
        has[x] = 1
        if x < i[LOW_BID]:
            i[LOW_BID] = x
        if x < i[BID_FROM]:
            i[BID_FROM] = x
        if x > i[BID_TO]:
            i[BID_TO] = x
        if x <= i[BEST_BID]:
            return _UNCHANGED
        i[BEST_BID] = x
        if x >= i[BEST_ASK]:
            note_crossing(i, x, i[BEST_ASK])
            best = next_ask(has, i, ticks, x + 1)
            i[BEST_ASK] = best
            if best == ticks:
                i[HIGH_ASK] = -1
        return _IMPROVED
    if empty != 0:
        has[ticks + x] = 0
        if x != i[BEST_ASK]:
            return _UNCHANGED
        best = next_ask(has, i, ticks, x + 1)
        i[BEST_ASK] = best
        if best == ticks:
            i[HIGH_ASK] = -1
        return _CHANGED
    has[ticks + x] = 1
    if x > i[HIGH_ASK]:
        i[HIGH_ASK] = x
    if x < i[ASK_FROM]:
        i[ASK_FROM] = x
    if x > i[ASK_TO]:
        i[ASK_TO] = x
    if x >= i[BEST_ASK]:
        return _UNCHANGED
    i[BEST_ASK] = x
    if x <= i[BEST_BID]:
        note_crossing(i, i[BEST_BID], x)
        best = next_bid(has, i, x - 1)
        i[BEST_BID] = best
        if best < 0:
            i[LOW_BID] = ticks
    return _IMPROVED


@kernel
def note_crossing(i: Int64s, bid: int, ask: int) -> None:
    """Remember levels that cross, to see later whether the feed took one of them back."""
    i[CROSSINGS] += 1
    if i[WATCH_NS] == NEVER:
        i[WATCH_NS] = i[LAST_EXCH] + CROSSED_PATIENCE_NS
        i[WATCH_ROW] = i[AT_ROW] + CROSSED_PATIENCE_ROWS
        i[WATCH_BID] = bid
        i[WATCH_ASK] = ask


@kernel
def still_crossed(has: UInt8s, i: Int64s, ticks: int, row: int) -> bool:
    """Whether both of the watched levels are there after the patience has run out; otherwise the watch ends, or goes on."""
    if has[i[WATCH_BID]] == 0 or has[ticks + i[WATCH_ASK]] == 0:
        i[WATCH_NS] = NEVER
        return False
    return row >= i[WATCH_ROW]


@kernel
def clear_side(has: UInt8s, i: Int64s, ticks: int, side: int, upto: int) -> int:
    """Empty a side from the touch to offset `upto` included, or wholly for `upto` < 0 (bids) or >= `ticks` (asks).

    Returns 0 when there was nothing to do, else 1. Which levels go, `clear_from` and `clear_to` say beforehand.
    """
    at = clear_from(i, ticks, side, upto)
    end = clear_to(i, ticks, side, upto)
    if at > end:
        return 0
    offset = ticks if side == 1 else 0
    for x in range(at, end + 1):
        has[offset + x] = 0
    if side == 0:
        if upto < 0:
            forget_side(i, ticks, 0)
        else:
            best = next_bid(has, i, upto - 1)
            i[BEST_BID] = best
            if best < 0:
                i[LOW_BID] = ticks
    elif upto >= ticks:
        forget_side(i, ticks, 1)
    else:
        best = next_ask(has, i, ticks, upto + 1)
        i[BEST_ASK] = best
        if best == ticks:
            i[HIGH_ASK] = -1
    return 1


@kernel
def clear_from(i: Int64s, ticks: int, side: int, upto: int) -> int:
    """First level that a clear takes away."""
    if side == 0:
        return i[BID_FROM] if upto < 0 else upto
    return i[ASK_FROM] if upto >= ticks else i[BEST_ASK]


@kernel
def clear_to(i: Int64s, ticks: int, side: int, upto: int) -> int:
    """Last level that a clear takes away."""
    if side == 0:
        return i[BID_TO] if upto < 0 else i[BEST_BID]
    return i[ASK_TO] if upto >= ticks else upto


@kernel
def note_venue_touch(out: Market, book: SideBook, grid: Grid) -> None:
    """The venue's touch as it is from the next row on."""
    k = out.n[N_VENUE]
    i = book.i
    out.venue_row[k] = out.n[N_ROWS]
    out.venue_bid[k] = i[BEST_BID] + grid.base if i[BEST_BID] >= 0 else 0
    out.venue_ask[k] = i[BEST_ASK] + grid.base if i[BEST_ASK] < grid.ticks else 0
    out.n[N_VENUE] = k + 1


@kernel
def note_local_touch(out: Market, book: SideBook, grid: Grid, local_ns: int) -> None:
    """The touch as a trader sees it from `local_ns` on."""
    k = out.n[N_LOCAL]
    i = book.i
    out.local_ns[k] = local_ns
    out.local_bid[k] = i[BEST_BID] + grid.base if i[BEST_BID] >= 0 else 0
    out.local_ask[k] = i[BEST_ASK] + grid.base if i[BEST_ASK] < grid.ticks else 0
    out.n[N_LOCAL] = k + 1


@kernel
def is_dust(qty: float, lot_size: float) -> bool:
    """Less than half a lot: the reference rounds it to no lots, half away from zero."""
    return qty < lot_size and qty / lot_size < 0.5


@kernel
def emit_level(out: Market, book: SideBook, grid: Grid, side: int, tick: int, qty: float, exch_ns: int, snapshot: int) -> int:
    """One depth row at the venue. Returns 0 or 1 for an unchanged or changed touch, or what is wrong with the row."""
    x = tick - grid.base
    i = book.i
    empty = 1 if is_dust(qty, grid.lot_size) else 0
    if x < 0 or x >= grid.ticks:
        if empty == 0 and ((x < 0) == (side == 1) or (i[BEST_BID] < 0 if side == 0 else i[BEST_ASK] == grid.ticks)):
            return OUTSIDE_WINDOW
        i[OUTSIDE] += 1
        return _UNCHANGED
    crossings = i[CROSSINGS]
    did = set_level(book.has, i, grid.ticks, side, x, empty)
    if snapshot != 0 and i[CROSSINGS] != crossings:
        return CROSSED_SNAPSHOT
    n = out.n[N_ROWS]
    kind = LEVEL
    if did == _IMPROVED:
        kind = IMPROVES
    elif empty != 0 and qty > 0.0:
        kind = DUST
    out.code[n] = 2 * kind + side
    out.tick[n] = x
    out.qty[n] = qty
    out.exch_ns[n] = exch_ns
    out.n[N_ROWS] = n + 1
    return did & 1


@kernel
def emit_clear(out: Market, book: SideBook, grid: Grid, side: int, upto: int, exch_ns: int) -> int:
    """One side of a clear row at the venue; 1 when levels went."""
    at = clear_from(book.i, grid.ticks, side, upto)
    end = clear_to(book.i, grid.ticks, side, upto)
    if clear_side(book.has, book.i, grid.ticks, side, upto) == 0:
        return 0
    n = out.n[N_ROWS]
    out.code[n] = 2 * DROP + side
    out.tick[n] = at
    out.qty[n] = end
    out.exch_ns[n] = exch_ns
    out.n[N_ROWS] = n + 1
    return 1


@kernel
def emit_print(out: Market, grid: Grid, bought: int, tick: int, qty: float, exch_ns: int) -> None:
    """A trade at the venue; one beyond the window stands at its edge, beyond all our orders still."""
    n = out.n[N_ROWS]
    out.code[n] = 2 * PRINT + bought
    out.tick[n] = min(max(tick - grid.base, 0), grid.ticks - 1)
    out.qty[n] = qty
    out.exch_ns[n] = exch_ns
    out.n[N_ROWS] = n + 1


@kernel
def ticks_of(px: float, tick_size: float) -> int:
    """Whole ticks of a price; 0 when it is no price, -1 when it lies between two ticks."""
    if not (px > 0.0 and px < math.inf):
        return 0
    ratio = px / tick_size
    if not ratio < 1e15:
        return -1
    tick = int(math.floor(ratio + 0.5))
    if abs(ratio - tick) > GRID_TOLERANCE_TICKS:
        return -1
    return tick


@kernel
def clear_limit(grid: Grid, side: int, px: float) -> int:
    """Offset up to which a clear row goes: its price, or everything where it has none."""
    if px != px:
        return -1 if side == 0 else grid.ticks
    x = int(math.floor(px / grid.tick_size + 0.5)) - grid.base
    # beyond the window on the outer side nothing is left; on the inner side nothing is taken
    return max(x, 0) if side == 0 else min(x, grid.ticks - 1)


@kernel
def prepare_feed(f: FeedColumns, begin: int, end: int, grid: Grid, book: SideBook, two_books: int, out: Market) -> int:
    """Rows `begin` to `end` of hftbacktest's layout into `out`; `book.i[AT_ROW]` is the row it stopped at.

    With `two_books` = 0 every row must be seen by both sides in one order; the local touch then changes with the venue's, and both logs are written.
    With 1 rows of one clock are allowed, and the local log is `local_feed`'s business.
    """
    i = book.i
    ticks = grid.ticks
    room = out.code.shape[0] - 2
    last_exch = i[LAST_EXCH]
    last_local = i[LAST_LOCAL]
    for r in range(begin, end):
        ev = int(f.ev[r])
        i[AT_ROW] = r
        if (ev >> 30) & 3 != 3:
            if two_books == 0:
                return TWO_BOOKS
            if (ev >> 30) & 3 == 0:
                return NO_CLOCK
        exch = int(f.exch_ts[r])
        local = int(f.local_ts[r])
        if ev & LOCAL_FLAG != 0:
            if local < last_local:
                return LOCAL_ORDER
            last_local = local
            i[LAST_LOCAL] = local
        if ev & EXCH_FLAG == 0:
            continue
        if exch < last_exch:
            return EXCH_ORDER
        if ev & LOCAL_FLAG != 0 and local < exch:
            return LOCAL_EARLY
        if out.n[N_ROWS] >= room:
            return ROWS_FULL
        if exch > i[WATCH_NS] and still_crossed(book.has, i, ticks, r):
            return CROSSED_BOOK
        kind = ev & 0xFF
        changed = 0
        if kind == DEPTH or kind == SNAPSHOT or kind == TRADE:
            px = float(f.px[r])
            qty = float(f.qty[r])
            tick = ticks_of(px, grid.tick_size)
            if tick <= 0:
                return BAD_PRICE if tick == 0 else OFF_GRID
            if not (qty >= 0.0 and qty < math.inf):
                return BAD_QTY
            # the same row twice: a depth row says nothing new, a print may be two of equal size, unless it has an id
            if exch == last_exch and r > 0:
                if same_row(f, r) and (kind != TRADE or f.order_id[r] != 0):
                    return DUPLICATE
            last_exch = exch
            i[LAST_EXCH] = exch
            sides = (ev >> 28) & 3
            if kind == TRADE:
                if sides == 3:
                    return BAD_SIDE
                if sides != 0 and qty > 0.0:
                    emit_print(out, grid, 1 if sides == 2 else 0, tick, qty, exch)
                continue
            if sides == 0 or sides == 3:
                return BAD_SIDE
            did = emit_level(out, book, grid, 0 if sides == 2 else 1, tick, qty, exch, 1 if kind == SNAPSHOT else 0)
            if did > 1:
                return did
            changed = did
        elif kind == CLEAR:
            last_exch = exch
            i[LAST_EXCH] = exch
            px = float(f.px[r])
            sides = (ev >> 28) & 3
            if sides == 0 or sides == 3:
                px = math.nan
            if sides != 1:
                changed |= emit_clear(out, book, grid, 0, clear_limit(grid, 0, px), exch)
            if sides != 2:
                changed |= emit_clear(out, book, grid, 1, clear_limit(grid, 1, px), exch)
        elif kind == TOP:
            last_exch = exch
            i[LAST_EXCH] = exch
        else:
            return BAD_KIND
        if changed != 0:
            note_venue_touch(out, book, grid)
            if two_books == 0:
                note_local_touch(out, book, grid, local)
    i[AT_ROW] = end
    return DONE


@kernel
def same_row(f: FeedColumns, r: int) -> bool:
    """Whether a row equals the one before it in every column."""
    return (
        f.local_ts[r] == f.local_ts[r - 1]
        and f.px[r] == f.px[r - 1]
        and f.qty[r] == f.qty[r - 1]
        and f.ev[r] == f.ev[r - 1]
        and f.exch_ts[r] == f.exch_ts[r - 1]
        and f.order_id[r] == f.order_id[r - 1]
    )


@kernel
def local_level(book: SideBook, grid: Grid, side: int, tick: int, qty: float) -> int:
    """A depth row at the local side; 1 when the touch changed. Levels beyond the window are dropped, as at the venue."""
    x = tick - grid.base
    if x < 0 or x >= grid.ticks:
        return 0
    return set_level(book.has, book.i, grid.ticks, side, x, 1 if is_dust(qty, grid.lot_size) else 0) & 1


@kernel
def local_feed(f: FeedColumns, begin: int, end: int, grid: Grid, book: SideBook, before_ns: int, out: Market) -> int:
    """The local side of rows that it sees in an order of its own: those before local time `before_ns` go into the local log.

    `book` is the local side's. Stops at the first row that is too late, or at `end`; `book.i[AT_ROW]` says where. Prices were checked by `prepare_feed`
    or will be; a price that is none is an error here too, so that a row of the local clock alone is checked.
    """
    i = book.i
    room = out.local_ns.shape[0] - 1
    for r in range(begin, end):
        ev = int(f.ev[r])
        i[AT_ROW] = r
        if ev & LOCAL_FLAG == 0:
            continue
        local = int(f.local_ts[r])
        if local >= before_ns:
            return DONE
        if out.n[N_LOCAL] >= room:
            return ROWS_FULL
        if local < i[LAST_LOCAL]:
            return LOCAL_ORDER
        i[LAST_LOCAL] = local
        kind = ev & 0xFF
        sides = (ev >> 28) & 3
        px = float(f.px[r])
        changed = 0
        if kind == DEPTH or kind == SNAPSHOT or kind == TRADE:
            qty = float(f.qty[r])
            tick = ticks_of(px, grid.tick_size)
            if tick <= 0:
                return BAD_PRICE if tick == 0 else OFF_GRID
            if not (qty >= 0.0 and qty < math.inf):
                return BAD_QTY
            if kind == TRADE:
                continue
            if sides == 0 or sides == 3:
                return BAD_SIDE
            changed = local_level(book, grid, 0 if sides == 2 else 1, tick, qty)
        elif kind == CLEAR:
            if sides == 0 or sides == 3:
                px = math.nan
            if sides != 1:
                changed |= clear_side(book.has, i, grid.ticks, 0, clear_limit(grid, 0, px))
            if sides != 2:
                changed |= clear_side(book.has, i, grid.ticks, 1, clear_limit(grid, 1, px))
        elif kind != TOP:
            return BAD_KIND
        if changed != 0:
            note_local_touch(out, book, grid, local)
    i[AT_ROW] = end
    return DONE


@kernel
def prepare_tape(t: TapeColumns, begin: int, end: int, grid: Grid, book: SideBook, two_books: int, out: Market) -> int:
    """The same as `prepare_feed` for rows of the platform's tape, whose checks of `Tape.validate` are repeated here row by row."""
    i = book.i
    ticks = grid.ticks
    room = out.code.shape[0] - 2
    for r in range(begin, end):
        i[AT_ROW] = r
        exch = t.exch_ts[r]
        local = t.local_ts[r]
        if exch < i[LAST_EXCH]:
            return EXCH_ORDER
        if local < exch:
            return LOCAL_EARLY
        if local < i[LAST_LOCAL] and two_books == 0:
            return TWO_BOOKS
        if out.n[N_ROWS] >= room:
            return ROWS_FULL
        if exch > i[WATCH_NS] and still_crossed(book.has, i, ticks, r):
            return CROSSED_BOOK
        kind = t.kind[r]
        side = t.side[r]
        changed = 0
        if kind == DEPTH or kind == SNAPSHOT or kind == TRADE:
            if t.price_ticks[r] <= 0:
                return BAD_PRICE
            if not (t.qty[r] >= 0.0 and t.qty[r] < math.inf):
                return BAD_QTY
            if r > 0 and exch == i[LAST_EXCH] and same_tape_row(t, r) and (kind != TRADE or t.seq[r] >= 0):
                return DUPLICATE
        i[LAST_EXCH] = exch
        if local > i[LAST_LOCAL]:
            i[LAST_LOCAL] = local
        if kind == DEPTH or kind == SNAPSHOT:
            if side == 0:
                return BAD_SIDE
            did = emit_level(out, book, grid, 0 if side > 0 else 1, t.price_ticks[r], t.qty[r], exch, 1 if kind == SNAPSHOT else 0)
            if did > 1:
                return did
            changed = did
        elif kind == TRADE:
            if side != 0 and t.flags[r] & NOT_MARKET == 0 and t.qty[r] > 0.0:
                emit_print(out, grid, 1 if side > 0 else 0, t.price_ticks[r], t.qty[r], exch)
        elif kind == CLEAR:
            if side >= 0:
                changed |= emit_clear(out, book, grid, 0, tape_clear_limit(grid, 0, side, t.price_ticks[r]), exch)
            if side <= 0:
                changed |= emit_clear(out, book, grid, 1, tape_clear_limit(grid, 1, side, t.price_ticks[r]), exch)
        if changed != 0:
            note_venue_touch(out, book, grid)
            if two_books == 0:
                note_local_touch(out, book, grid, local)
    i[AT_ROW] = end
    return DONE


@kernel
def same_tape_row(t: TapeColumns, r: int) -> bool:
    """Whether a row equals the one before it in every column that says something."""
    return (
        t.local_ts[r] == t.local_ts[r - 1]
        and t.kind[r] == t.kind[r - 1]
        and t.side[r] == t.side[r - 1]
        and t.price_ticks[r] == t.price_ticks[r - 1]
        and t.qty[r] == t.qty[r - 1]
        and t.seq[r] == t.seq[r - 1]
        and t.exch_ts[r] == t.exch_ts[r - 1]
    )


@kernel
def tape_clear_limit(grid: Grid, side: int, row_side: int, price_ticks: int) -> int:
    """Offset up to which a clear row of the tape goes: its price, or everything for a price of 0 or a row of both sides."""
    if row_side == 0 or price_ticks == 0:
        return -1 if side == 0 else grid.ticks
    x = price_ticks - grid.base
    return max(x, 0) if side == 0 else min(x, grid.ticks - 1)


@kernel
def local_tape(t: TapeColumns, order: Int64s, begin: int, grid: Grid, book: SideBook, before_ns: int, out: Market) -> int:
    """The same as `local_feed` for a tape, whose rows a trader saw in the order `order`."""
    i = book.i
    room = out.local_ns.shape[0] - 1
    for k in range(begin, order.shape[0]):
        i[AT_ROW] = k
        r = order[k]
        local = t.local_ts[r]
        if local >= before_ns:
            return DONE
        if out.n[N_LOCAL] >= room:
            return ROWS_FULL
        kind = t.kind[r]
        side = t.side[r]
        changed = 0
        if kind == DEPTH or kind == SNAPSHOT:
            changed = local_level(book, grid, 0 if side > 0 else 1, t.price_ticks[r], t.qty[r])
        elif kind == CLEAR:
            if side >= 0:
                changed |= clear_side(book.has, i, grid.ticks, 0, tape_clear_limit(grid, 0, side, t.price_ticks[r]))
            if side <= 0:
                changed |= clear_side(book.has, i, grid.ticks, 1, tape_clear_limit(grid, 1, side, t.price_ticks[r]))
        if changed != 0:
            note_local_touch(out, book, grid, local)
    i[AT_ROW] = order.shape[0]
    return DONE
