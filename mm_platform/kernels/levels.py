"""The venue's book as two dense rows of levels over a window of ticks: one store per row, exact quantities, best prices at hand.

Belongs here: setting and clearing levels, the best prices, what happens when a price leaves the window. Does not belong here: our own
orders (`kernels.exchange`), queue positions (`kernels.queue`), the sorted book of the local side and of decoding (`kernels.book`).

A level's quantity is a float64 in *book units*: base exactly as the feed gave it under the reference rule, whole lots under the
conservative one. A level of less than half a lot counts as empty.

Afterimages. A new best that crosses the other side moves that side's best to the next level beyond it. The reference rule keeps the crossed
levels in the map, where a later search can meet them again; the conservative rule drops them, for they are stale. The search for a new
best goes no further than the outermost level since the side was last found empty, which is why that one is kept apart from the true extent.

The window. A level beyond the window that cannot be the best is counted and ignored. A best, or a print, beyond it is `OUTSIDE_WINDOW`. The row
may then be half applied: the run cannot go on, and the caller raises `DataError`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# rules of the venue; here they decide what becomes of crossed levels
REFERENCE: Final = 0
CONSERVATIVE: Final = 1

OK: Final = 0
OUTSIDE_WINDOW: Final = 1

# 2 x 8 bytes a tick for quantities and as much again for our own orders; pages that no row touches cost nothing
MOST_TICKS: Final = 2**22

# places in Levels.i
LO_TICK: Final = 0
BEST_BID: Final = 1  # 0 = none
BEST_ASK: Final = 2
OUTER_BID: Final = 3  # how far a search for the next best goes
OUTER_ASK: Final = 4
LOWEST_BID: Final = 5  # true extent of what was ever set since the side was cleared
HIGHEST_BID: Final = 6
LOWEST_ASK: Final = 7
HIGHEST_ASK: Final = 8
OUTSIDE_ROWS: Final = 9  # rows ignored because they lay beyond the window
HIDDEN_BID: Final = 10  # 1: the feed has a bid below the window that we do not hold
HIDDEN_ASK: Final = 11
LEVELS_I_SIZE: Final = 12

_FAR: Final = 2**62


class Levels(NamedTuple):
    """Quantities of both sides over the ticks `i[LO_TICK] .. i[LO_TICK] + len(bid) - 1`, and the state named by the places above."""

    bid: Float64s
    ask: Float64s
    i: Int64s


def new_levels(lo_tick: int, hi_tick: int) -> Levels:
    """An empty book over the ticks `lo_tick` to `hi_tick`, both included; raises `DataError` for a window that is empty or too wide."""
    ticks = hi_tick - lo_tick + 1
    if lo_tick < 1 or ticks < 1:
        raise DataError(f"a window from tick {lo_tick} to {hi_tick} holds no price; expected 1 <= lo <= hi")
    if ticks > MOST_TICKS:
        raise DataError(
            f"a window from tick {lo_tick} to {hi_tick} holds {ticks} ticks, at most {MOST_TICKS} are allowed; choose it around the touch"
        )
    i = np.zeros(LEVELS_I_SIZE, dtype=np.int64)
    i[LO_TICK] = lo_tick
    levels_forget_extent(i, 1)
    levels_forget_extent(i, -1)
    return Levels(np.zeros(ticks), np.zeros(ticks), i)


def widened(levels: Levels, lo_tick: int, hi_tick: int) -> Levels:
    """The same book over a window that contains the present one."""
    shift = int(levels.i[LO_TICK]) - lo_tick
    if shift < 0 or hi_tick - lo_tick + 1 < shift + len(levels.bid):
        raise DataError(f"a window from tick {lo_tick} to {hi_tick} does not contain the present one; only widening keeps every level")
    wider = new_levels(lo_tick, hi_tick)
    wider.i[:] = levels.i
    wider.i[LO_TICK] = lo_tick
    wider.bid[shift : shift + len(levels.bid)] = levels.bid
    wider.ask[shift : shift + len(levels.ask)] = levels.ask
    return wider


@kernel
def levels_forget_extent(i: Int64s, side: int) -> None:
    """State of a side that has no level at all."""
    if side > 0:
        i[BEST_BID] = 0
        i[OUTER_BID] = _FAR
        i[LOWEST_BID] = _FAR
        i[HIGHEST_BID] = 0
        i[HIDDEN_BID] = 0
    else:
        i[BEST_ASK] = 0
        i[OUTER_ASK] = 0
        i[LOWEST_ASK] = _FAR
        i[HIGHEST_ASK] = 0
        i[HIDDEN_ASK] = 0


@kernel
def level_at(levels: Levels, side: int, price_ticks: int) -> float:
    """Quantity of a level in book units; 0 where there is none and beyond the window."""
    at = price_ticks - levels.i[LO_TICK]
    if at < 0 or at >= levels.bid.shape[0]:
        return 0.0
    if side > 0:
        return levels.bid[at]
    return levels.ask[at]


@kernel
def next_level(levels: Levels, side: int, price_ticks: int) -> int:
    """Tick of the nearest level strictly worse than `price_ticks` on a side, 0 when there is none up to the outermost."""
    lo = levels.i[LO_TICK]
    if side > 0:
        at = min(price_ticks - 1 - lo, levels.bid.shape[0] - 1)
        end = levels.i[OUTER_BID] - lo
        while at >= end and at >= 0:
            if levels.bid[at] > 0.0:
                return at + lo
            at -= 1
        return 0
    at = max(price_ticks + 1 - lo, 0)
    end = min(levels.i[OUTER_ASK] - lo, levels.ask.shape[0] - 1)
    while at <= end:
        if levels.ask[at] > 0.0:
            return at + lo
        at += 1
    return 0


@kernel
def level_fits(levels: Levels, half_lot: float, side: int, price_ticks: int, qty: float) -> int:
    """Whether a row can be applied: 1 it lies in the window, 0 it is ignored (and counted), -1 it takes the best beyond the window."""
    i = levels.i
    at = price_ticks - i[LO_TICK]
    size = levels.bid.shape[0]
    if at >= 0 and at < size:
        return 1
    if qty < half_lot:
        i[OUTSIDE_ROWS] += 1
        return 0
    if side > 0:
        if at >= size or i[BEST_BID] == 0:
            return -1
        i[HIDDEN_BID] = 1
    else:
        if at < 0 or i[BEST_ASK] == 0:
            return -1
        i[HIDDEN_ASK] = 1
    i[OUTSIDE_ROWS] += 1
    return 0


@kernel
def level_set(levels: Levels, rule: int, half_lot: float, side: int, price_ticks: int, qty: float) -> int:
    """Set a level inside the window to an absolute quantity. Returns `OK` or `OUTSIDE_WINDOW` (the next best is one we do not hold).

    Keep the order of the reference: the level, the best, the other side's best if it is crossed, the outermost level.
    """
    i = levels.i
    at = price_ticks - i[LO_TICK]
    if side > 0:
        if qty < half_lot:
            if price_ticks == i[BEST_BID]:
                best = next_level(levels, 1, price_ticks)
                if best == 0:
                    if i[HIDDEN_BID] != 0:
                        return OUTSIDE_WINDOW
                    i[OUTER_BID] = _FAR
                i[BEST_BID] = best
            levels.bid[at] = 0.0
            return OK
        if price_ticks > i[BEST_BID]:
            if i[BEST_ASK] != 0 and price_ticks >= i[BEST_ASK]:
                other = next_level(levels, -1, price_ticks)
                if other == 0 and i[HIDDEN_ASK] != 0:
                    return OUTSIDE_WINDOW
                if rule == CONSERVATIVE:
                    levels_drop(levels, -1, i[BEST_ASK], price_ticks)
                i[BEST_ASK] = other
            i[BEST_BID] = price_ticks
            if price_ticks > i[HIGHEST_BID]:
                i[HIGHEST_BID] = price_ticks
        levels.bid[at] = qty
        if price_ticks < i[OUTER_BID]:
            i[OUTER_BID] = price_ticks
            if price_ticks < i[LOWEST_BID]:
                i[LOWEST_BID] = price_ticks
        return OK
    if qty < half_lot:
        if price_ticks == i[BEST_ASK]:
            best = next_level(levels, -1, price_ticks)
            if best == 0:
                if i[HIDDEN_ASK] != 0:
                    return OUTSIDE_WINDOW
                i[OUTER_ASK] = 0
            i[BEST_ASK] = best
        levels.ask[at] = 0.0
        return OK
    if i[BEST_ASK] == 0 or price_ticks < i[BEST_ASK]:
        if i[BEST_BID] >= price_ticks:
            other = next_level(levels, 1, price_ticks)
            if other == 0 and i[HIDDEN_BID] != 0:
                return OUTSIDE_WINDOW
            if rule == CONSERVATIVE:
                levels_drop(levels, 1, price_ticks, i[BEST_BID])
            i[BEST_BID] = other
        i[BEST_ASK] = price_ticks
        if price_ticks < i[LOWEST_ASK]:
            i[LOWEST_ASK] = price_ticks
    levels.ask[at] = qty
    if price_ticks > i[OUTER_ASK]:
        i[OUTER_ASK] = price_ticks
        if price_ticks > i[HIGHEST_ASK]:
            i[HIGHEST_ASK] = price_ticks
    return OK


@kernel
def level_set_top(levels: Levels, half_lot: float, side: int, price_ticks: int, qty: float) -> int:
    """A best-quote row under the conservative rule: better levels of the side are gone, then the level is set. Returns as `level_set`."""
    best = BEST_BID if side > 0 else BEST_ASK
    hold = levels.bid if side > 0 else levels.ask
    while levels.i[best] != 0 and (levels.i[best] - price_ticks) * side > 0:
        worse = next_level(levels, side, levels.i[best])
        hold[levels.i[best] - levels.i[LO_TICK]] = 0.0
        levels.i[best] = worse
    return level_set(levels, CONSERVATIVE, half_lot, side, price_ticks, qty)


@kernel
def levels_drop(levels: Levels, side: int, from_ticks: int, to_ticks: int) -> None:
    """Empty the levels of a side from one tick to another, both included; the best is the caller's to set."""
    lo = levels.i[LO_TICK]
    at = max(from_ticks - lo, 0)
    end = min(to_ticks - lo, levels.bid.shape[0] - 1)
    while at <= end:
        if side > 0:
            levels.bid[at] = 0.0
        else:
            levels.ask[at] = 0.0
        at += 1


@kernel
def side_clear(levels: Levels, side: int, price_ticks: int) -> int:
    """Remove the levels of one side from the touch to `price_ticks` included, or all of them for a price of 0."""
    i = levels.i
    if side > 0:
        if price_ticks == 0:
            levels_drop(levels, 1, i[LOWEST_BID], i[HIGHEST_BID])
            levels_forget_extent(i, 1)
        elif i[BEST_BID] >= price_ticks:
            best = next_level(levels, 1, price_ticks)
            if best == 0:
                if i[HIDDEN_BID] != 0:
                    return OUTSIDE_WINDOW
                i[OUTER_BID] = _FAR
            levels_drop(levels, 1, price_ticks, i[BEST_BID])
            i[BEST_BID] = best
        return OK
    if price_ticks == 0:
        levels_drop(levels, -1, i[LOWEST_ASK], i[HIGHEST_ASK])
        levels_forget_extent(i, -1)
    elif i[BEST_ASK] != 0 and i[BEST_ASK] <= price_ticks:
        best = next_level(levels, -1, price_ticks)
        if best == 0:
            if i[HIDDEN_ASK] != 0:
                return OUTSIDE_WINDOW
            i[OUTER_ASK] = 0
        levels_drop(levels, -1, i[BEST_ASK], price_ticks)
        i[BEST_ASK] = best
    return OK


@kernel
def levels_clear(levels: Levels, side: int, price_ticks: int) -> int:
    """A clear row: one side as `side_clear` does, or the whole book for a side of 0. Returns `OK` or `OUTSIDE_WINDOW`."""
    if side != 0:
        return side_clear(levels, side, price_ticks)
    side_clear(levels, 1, 0)
    return side_clear(levels, -1, 0)
