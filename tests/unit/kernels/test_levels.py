"""The dense book: best prices, crossed levels under both rules, clears, the window's edges; against a map that knows no window."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.core.errors import DataError
from mm_platform.kernels.levels import (
    BEST_ASK,
    BEST_BID,
    CONSERVATIVE,
    HIDDEN_BID,
    MOST_TICKS,
    OK,
    OUTSIDE_ROWS,
    OUTSIDE_WINDOW,
    REFERENCE,
    Levels,
    level_at,
    level_fits,
    level_set,
    level_set_top,
    levels_clear,
    new_levels,
    widened,
)


def best(levels: Levels) -> tuple[int, int]:
    return int(levels.i[BEST_BID]), int(levels.i[BEST_ASK])


def book(rule: int = REFERENCE) -> Levels:
    levels = new_levels(90, 120)
    for side, ticks, qty in ((1, 100, 5.0), (1, 99, 4.0), (1, 97, 3.0), (-1, 101, 5.0), (-1, 102, 4.0), (-1, 105, 3.0)):
        assert level_set(levels, rule, 0.5, side, ticks, qty) == OK
    return levels


def test_levels_come_and_go() -> None:
    levels = book()
    assert best(levels) == (100, 101)
    level_set(levels, REFERENCE, 0.5, 1, 100, 0.0)
    level_set(levels, REFERENCE, 0.5, -1, 101, 0.4)  # less than half a lot
    assert best(levels) == (99, 102)
    assert level_at(levels, -1, 101) == 0.0
    level_set(levels, REFERENCE, 0.5, 1, 99, 0.5)
    assert level_at(levels, 1, 99) == 0.5
    assert level_at(levels, 1, 89) == level_at(levels, 1, 121) == 0.0


@pytest.mark.parametrize("rule", [REFERENCE, CONSERVATIVE])
def test_a_crossing_bid_moves_the_best_ask_beyond_it(rule: int) -> None:
    """The reference keeps the crossed levels and can meet them again; the conservative rule drops them."""
    levels = book(rule)
    level_set(levels, rule, 0.5, 1, 103, 2.0)
    assert best(levels) == (103, 105)
    assert [level_at(levels, -1, t) for t in (101, 102)] == ([5.0, 4.0] if rule == REFERENCE else [0.0, 0.0])
    level_set(levels, rule, 0.5, 1, 103, 0.0)
    # a new ask at 101 is better than 105 and finds itself before the level that was kept at 102
    level_set(levels, rule, 0.5, -1, 101, 1.0)
    level_set(levels, rule, 0.5, -1, 101, 0.0)
    assert best(levels) == (100, 102 if rule == REFERENCE else 105)


def test_a_search_ends_at_the_outermost_level_since_the_side_was_empty() -> None:
    """The reference forgets how far out its levels lie when it finds a side empty, though crossed ones may stand there."""
    levels = new_levels(90, 120)
    for ticks in (100, 101):
        level_set(levels, REFERENCE, 0.5, 1, ticks, 1.0)
    level_set(levels, REFERENCE, 0.5, -1, 100, 1.0)  # both bids are crossed and kept
    assert best(levels) == (0, 100)
    level_set(levels, REFERENCE, 0.5, 1, 99, 1.0)
    level_set(levels, REFERENCE, 0.5, 1, 99, 0.0)
    level_set(levels, REFERENCE, 0.5, -1, 100, 0.0)
    level_set(levels, REFERENCE, 0.5, 1, 105, 1.0)
    level_set(levels, REFERENCE, 0.5, 1, 105, 0.0)
    assert best(levels) == (0, 0)
    assert level_at(levels, 1, 101) == 1.0


def test_clears_of_a_side() -> None:
    levels = book()
    assert levels_clear(levels, 1, 98) == OK
    assert best(levels) == (97, 101)
    levels_clear(levels, 1, 98)
    assert best(levels) == (97, 101), "nothing stands between the touch and 98"
    levels_clear(levels, -1, 102)
    assert best(levels) == (97, 105)
    levels_clear(levels, -1, 119)
    assert best(levels) == (97, 0)
    levels_clear(levels, 0, 0)
    assert best(levels) == (0, 0)
    assert not levels.bid.any()
    assert not levels.ask.any()


def test_a_whole_clear_takes_levels_that_were_crossed_too() -> None:
    levels = book()
    level_set(levels, REFERENCE, 0.5, -1, 95, 1.0)
    level_set(levels, REFERENCE, 0.5, 1, 94, 1.0)
    level_set(levels, REFERENCE, 0.5, 1, 94, 0.0)
    assert level_at(levels, 1, 100) == 5.0
    levels_clear(levels, 1, 0)
    assert not levels.bid.any()


def test_a_best_quote_removes_what_is_better() -> None:
    levels = book(CONSERVATIVE)
    assert level_set_top(levels, 0.5, 1, 98, 9.0) == OK
    assert best(levels) == (98, 101)
    assert level_set_top(levels, 0.5, 1, 104, 9.0) == OK
    assert best(levels) == (104, 105)
    assert level_set_top(levels, 0.5, -1, 110, 9.0) == OK
    assert best(levels) == (104, 110)


def test_beyond_the_window() -> None:
    levels = book()
    assert level_fits(levels, 0.5, 1, 100, 1.0) == 1
    assert level_fits(levels, 0.5, 1, 121, 1.0) == -1, "a bid above the window is the best"
    assert level_fits(levels, 0.5, 1, 121, 0.0) == 0
    assert level_fits(levels, 0.5, -1, 89, 1.0) == -1
    assert levels.i[HIDDEN_BID] == 0
    assert level_fits(levels, 0.5, 1, 89, 1.0) == 0
    assert (levels.i[OUTSIDE_ROWS], levels.i[HIDDEN_BID]) == (2, 1)
    # once the bids we hold are gone the touch is one we do not know
    for ticks in (100, 99):
        assert level_set(levels, REFERENCE, 0.5, 1, ticks, 0.0) == OK
    assert level_set(levels, REFERENCE, 0.5, 1, 97, 0.0) == OUTSIDE_WINDOW
    assert levels_clear(levels, 1, 95) == OUTSIDE_WINDOW
    assert level_set(levels, REFERENCE, 0.5, -1, 96, 1.0) == OUTSIDE_WINDOW
    levels_clear(levels, 1, 0)
    assert levels.i[HIDDEN_BID] == 0
    assert level_fits(levels, 0.5, 1, 89, 1.0) == -1


def test_windows() -> None:
    for lo, hi in ((0, 10), (10, 9)):
        with pytest.raises(DataError, match="holds no price"):
            new_levels(lo, hi)
    with pytest.raises(DataError, match=f"at most {MOST_TICKS}"):
        new_levels(1, MOST_TICKS + 1)
    wider = widened(book(), 50, 200)
    assert best(wider) == (100, 101)
    level_set(wider, REFERENCE, 0.5, 1, 100, 0.0)
    level_set(wider, REFERENCE, 0.5, 1, 60, 1.0)
    assert (best(wider), level_at(wider, 1, 97)) == ((99, 101), 3.0)
    with pytest.raises(DataError, match="only widening"):
        widened(wider, 51, 200)


ROWS = st.lists(
    st.tuples(st.sampled_from([1, -1]), st.integers(91, 119), st.sampled_from([0.0, 0.3, 0.5, 1.0, 7.25]), st.booleans()), min_size=1, max_size=80
)


class Map:
    """The same book as two dicts, written from the rules: what is crossed is dropped."""

    def __init__(self) -> None:
        self.sides: dict[int, dict[int, float]] = {1: {}, -1: {}}

    def best(self) -> tuple[int, int]:
        return max(self.sides[1], default=0), min(self.sides[-1], default=0)

    def set(self, side: int, ticks: int, qty: float) -> None:
        if qty < 0.5:
            self.sides[side].pop(ticks, None)
            return
        self.sides[side][ticks] = qty
        for other in [t for t in self.sides[-side] if (ticks - t) * side >= 0]:
            del self.sides[-side][other]

    def clear(self, side: int, ticks: int) -> None:
        for t in [t for t in self.sides[side] if (t - ticks) * side >= 0]:
            del self.sides[side][t]


@settings(max_examples=150)
@given(ROWS, st.booleans())
def test_against_a_map(rows: list[tuple[int, int, float, bool]], twin: bool) -> None:
    levels, model = new_levels(90, 120), Map()
    set_level, clear = (level_set.compiled, levels_clear.compiled) if twin else (level_set, levels_clear)
    for side, ticks, qty, clears in rows:
        if clears and qty == 0.3:
            assert clear(levels, side, ticks) == OK
            model.clear(side, ticks)
        else:
            assert set_level(levels, CONSERVATIVE, 0.5, side, ticks, qty) == OK
            model.set(side, ticks, qty)
        assert best(levels) == model.best()
        for s in (1, -1):
            assert {t: level_at(levels, s, t) for t in range(90, 121) if level_at(levels, s, t) > 0} == model.sides[s]
