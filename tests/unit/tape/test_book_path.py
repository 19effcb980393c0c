"""The window a tape needs, and the venue's book along it: against the row-by-row venue, and at the window's edge."""

from __future__ import annotations

import numpy as np
import pytest
from builders import T0, TapeBuilder, random_tape

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.levels import CONSERVATIVE, MOST_TICKS, OK
from mm_platform.kernels.queue import RISK_ADVERSE, exchange_params
from mm_platform.kernels.venue import MID_HALF, venue_after_row, venue_book, venue_on_row
from mm_platform.tape.book_path import book_at, mid_path, venue_of, window_of
from mm_platform.tape.layout import LAST, Kind, Tape

FAR = MOST_TICKS + 1_000_000


def test_a_window_holds_all_prices_with_room_beside_them() -> None:
    tape = TapeBuilder().book(5_000, 5_002, 10, depth=3).level(1, 4_000, 1).trade(1, 5_100, 1).level(-1, 9_000, 0).tape()
    assert window_of(tape, 100) == (3_900, 5_200), "a level that is taken away needs no room"
    assert window_of(tape, 100_000) == (1, 105_100)
    assert window_of(TapeBuilder().at(1).row(Kind.STATUS, 0, 0, 0, 0).tape(), 50) == (1, 101)


def test_levels_too_far_from_what_trades_are_left_out() -> None:
    tape = TapeBuilder().book(5_000, 5_002, 10, depth=3).level(-1, FAR, 1).trade(1, 5_002, 1).tape()
    lo, hi = window_of(tape)
    assert hi - lo == MOST_TICKS - 1
    assert lo == 5_000 - 2 - 1024
    assert mid_path(tape).half_ticks.tolist() == [10_002]
    assert book_at(tape, T0 + 1).ask_ticks.tolist() == [5_002, 5_003, 5_004]


def test_prints_too_far_apart_are_refused() -> None:
    with pytest.raises(DataError, match="prints and quotes from 5002 to"):
        window_of(TapeBuilder().book(5_000, 5_002).trade(1, 5_002, 1).trade(1, FAR, 1).tape())


def test_a_touch_beyond_the_window_is_refused_with_its_row() -> None:
    """All asks near the prints go; the next one stands where the window does not reach."""
    b = TapeBuilder().book(5_000, 5_002, 10, depth=1).level(-1, FAR, 1).trade(1, 5_002, 1)
    b.at(1).level(-1, 5_002, 0)
    with pytest.raises(DataError, match=f"row 4 at {T0 + NS_PER_S} ns: a level of 5002 ticks takes the touch out of the window"):
        mid_path(b.tape())


def with_quotes(tape: Tape) -> Tape:
    """The same tape with some depth rows turned into best quotes and clears between."""
    kind, flags, price = tape.kind.copy(), tape.flags.copy(), tape.price_ticks.copy()
    depth = np.flatnonzero((kind == Kind.DEPTH) & (tape.qty_lots > 0))
    kind[depth[::5]] = Kind.TOP
    kind[depth[200::400]] = Kind.CLEAR
    flags[depth[::7]] &= ~LAST
    columns = {**tape.columns(), "kind": kind, "flags": flags, "price_ticks": price}
    return Tape.from_columns(tape.spec, columns, initial_book=tape.initial_book)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_path_is_that_of_the_venue(seed: int) -> None:
    tape = with_quotes(random_tape(3_000, seed))
    x = exchange_params(CONSERVATIVE, RISK_ADVERSE, 1.0, 1.0)
    venue = venue_of(tape)
    changes: dict[int, int] = {}
    last = 0
    for r in range(len(tape)):
        row = (int(tape.kind[r]), int(tape.side[r]), int(tape.flags[r]), int(tape.price_ticks[r]), float(tape.qty_lots[r]), int(tape.seq[r]))
        assert venue_on_row(x, venue, *row) == OK
        venue_after_row(venue, row[0], row[2])
        if venue.i[MID_HALF] != last:
            last = int(venue.i[MID_HALF])
            changes[int(tape.exch_ts[r])] = last
    path = mid_path(tape)
    assert dict(zip(path.exch_ts.tolist(), path.half_ticks.tolist(), strict=True)) == changes
    assert len(changes) > 50
    ours, theirs = book_at(tape, int(tape.exch_ts[-1]) + 1), venue_book(x, venue)
    for name in ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots"):
        assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
