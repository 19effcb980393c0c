"""hftbacktest's layout: what is refused and where, events written twice, and the way out and back."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.decode.hftbacktest import (
    EVENT,
    EventOrder,
    TapeCheck,
    book_columns,
    check_rows,
    decimal_floats,
    event_rows,
    longest_climb,
    tape_columns,
)
from mm_platform.tape.layout import COLUMNS, LAST, NOT_MARKET, REPAIRED, Kind
from mm_platform.tape.messages import Columns

SPEC = InstrumentSpec(instrument="binanceusdm:BTC-USDT-PERP", tick_size="0.1", lot_size="0.001", contract="linear", maker_fee=0.0, taker_fee=0.0)
T0 = 1_700_000_000_000_000_000
MS = 1_000_000
EXCH, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28
BOTH = EXCH | LOCAL
NAN = float("nan")


def row(kind: int, side: int, exch_ms: float, local_ms: float, px: float, qty: float, *, flags: int = BOTH, order_id: int = 0) -> tuple[Any, ...]:
    ev = kind | flags | (BUY if side > 0 else SELL if side < 0 else 0)
    return ev, T0 + round(exch_ms * MS), T0 + round(local_ms * MS), px, qty, order_id, 0, 0.0


def rows_of(*rows: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    return np.array(list(rows), dtype=EVENT)


def good() -> list[tuple[Any, ...]]:
    return [
        row(3, 0, 0, 1, NAN, 0.0),
        row(4, 1, 0, 1, 100.0, 5.0),
        row(4, -1, 0, 1, 100.1, 5.0),
        row(1, 1, 2, 3, 100.0, 4.0),
        row(2, -1, 4, 5, 100.0, 1.5),
        row(1, 1, 4, 5, 100.0, 2.5),
        row(1, -1, 6, 7, 100.2, 0.001),
        row(1, -1, 8, 9, 100.1, 0.0),
    ]


def read(rows: np.ndarray[Any, Any], *, chunk_rows: int = 4, spec: InstrumentSpec = SPEC) -> tuple[TapeCheck, Columns]:
    check = check_rows(rows, spec, "t.npy", chunk_rows=chunk_rows)
    parts = list(tape_columns(rows, spec, check, chunk_rows=chunk_rows))
    return check, {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def write(columns: Columns, cuts: Sequence[int] = ()) -> np.ndarray[Any, Any]:
    order = EventOrder()
    bounds = [0, *sorted(cuts), len(columns["exch_ts"])]
    rows = event_rows(columns, SPEC)
    return np.concatenate([*(order.push(rows[a:b]) for a, b in pairwise(bounds)), order.flush()])


def test_rows_become_tape_columns() -> None:
    check, columns = read(rows_of(*good()))
    assert (check.rows, check.events, check.from_snapshot, check.repeated_trades) == (8, 8, True, 0)
    assert columns["kind"].tolist() == [3, 4, 4, 1, 2, 1, 1, 1]
    assert columns["side"].tolist() == [0, 1, -1, 1, -1, 1, -1, -1]
    assert columns["price_ticks"].tolist() == [0, 1000, 1001, 1000, 1000, 1000, 1002, 1001]
    assert columns["qty_lots"].tolist() == [0, 5000, 5000, 4000, 1500, 2500, 1, 0]
    # the clear and the snapshot of one time are one message: the book is whole after its last row only
    assert columns["flags"].tolist() == [0, 0, LAST, LAST, LAST, LAST, LAST, LAST]
    assert columns["exch_ts"].tolist() == [T0 + round(ms * MS) for ms in (0, 0, 0, 2, 4, 4, 6, 8)]
    assert columns["local_ts"].tolist() == [T0 + round(ms * MS) for ms in (1, 1, 1, 3, 5, 5, 7, 9)]
    assert {name: column.dtype for name, column in columns.items()} == COLUMNS


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 5, 100])
def test_chunks_change_nothing(chunk_rows: int) -> None:
    rows = rows_of(
        *good(), row(1, 1, 10, 11, 99.9, 1.0), row(1, -1, 10, 11, 100.3, 1.0), row(2, 1, 10, 11, 100.2, 1.0), row(1, -1, 10, 11, 100.2, 1.0)
    )
    expected_check, expected = read(rows)
    check, columns = read(rows, chunk_rows=chunk_rows)
    assert check.events == expected_check.events
    for name in COLUMNS:
        np.testing.assert_array_equal(columns[name], expected[name])
    # a trade between the rows of one update does not end it
    assert columns["flags"].tolist()[-4:] == [0, 0, LAST, LAST]


def changed(i: int, **fields: float) -> np.ndarray[Any, Any]:
    rows = rows_of(*good())
    for name, value in fields.items():
        rows[name][i] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (changed(3, ev=1 | BUY), "row 3 .*neither EXCH nor LOCAL"),
        (changed(3, ev=7 | BOTH | BUY), "row 3 .*kind 7; expected 1 DEPTH"),
        (changed(3, ev=10 | BOTH | BUY), "row 3 .*kind 10, market by order"),
        (changed(3, exch_ts=T0 // 1000), "row 3 .*no time between 2010 and 2100"),
        (changed(4, exch_ts=T0 + 1 * MS), "row 4 .*exch_ts .* before that of a row above .*EXCH must climb"),
        (changed(4, local_ts=T0 + 2 * MS, exch_ts=T0 + 2 * MS), "row 4 .*local_ts .* before that of a row above .*LOCAL must climb"),
        (changed(7, exch_ts=T0 + 10 * MS), "row 7 .*is seen at .*before it happened"),
        (changed(3, ev=1 | BOTH | BUY | SELL), "row 3 .*BUY and SELL"),
        (changed(3, ev=1 | BOTH), "row 3 .*no side"),
        (changed(3, px=100.04), "row 3 .*price of 100.04, off the tick of 0.1 .*on a grid of 0.01"),
        (changed(6, px=NAN), "row 6 .*has nan as its price"),
        (changed(4, qty=float("inf")), "row 4 .*has inf as its quantity"),
        (changed(3, qty=4.0004), "row 3 .*quantity of 4.0004, off the lot of 0.001"),
        (changed(3, px=-100.0), "row 3 .*price of -100.0; expected more than 0"),
        (changed(3, qty=-1.0), "row 3 .*quantity of -1.0; expected 0 or more"),
        (changed(4, qty=0.0), "row 4 .*trade of quantity 0"),
        (rows_of(*good()[:4], *good()[3:]), "row 4 .*repeats the row above in everything"),
    ],
)
@pytest.mark.parametrize("chunk_rows", [4, 100])
def test_refused_with_row_and_reason(rows: np.ndarray[Any, Any], expected: str, chunk_rows: int) -> None:
    with pytest.raises(DataError, match=f"t.npy: {expected}"):
        check_rows(rows, SPEC, "t.npy", chunk_rows=chunk_rows)


def test_the_first_wrong_row_is_named() -> None:
    rows = changed(6, px=NAN)
    rows["qty"][2] = -3.0
    with pytest.raises(DataError, match=r"row 2 .*quantity of -3\.0"):
        check_rows(rows, SPEC, "t.npy")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.empty(0, dtype=EVENT), "no rows"),
        (np.zeros((3, 6)), "6 float columns, the layout of hftbacktest 1"),
        (np.zeros(3), r"shape \(3,\) of float64; expected one dimension of hftbacktest's event_dtype"),
        (np.zeros(3, dtype=EVENT.descr[:-1]), "expected one dimension of hftbacktest's event_dtype"),
    ],
)
def test_another_layout(rows: np.ndarray[Any, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        check_rows(rows, SPEC, "t.npy")


def test_tape_of_another_instrument() -> None:
    fine = InstrumentSpec(instrument="binanceusdm:BTC-USDT-PERP", tick_size="0.01", lot_size="0.001", contract="linear", maker_fee=0.0, taker_fee=0.0)
    many = rows_of(*(row(1, 1, i, i, 100.0 + i / 10, 1.0) for i in range(100)))
    with pytest.raises(DataError, match=r"multiple of 10 ticks of 0\.01: the tape's own tick is 0\.1"):
        check_rows(many, fine, "t.npy", chunk_rows=7)
    # one price between, and the fine tick is the tape's
    many["px"][50] = 100.01
    assert check_rows(many, fine, "t.npy", chunk_rows=7).events == 100
    # too few prices to tell
    assert check_rows(rows_of(*good()), fine, "t.npy").events == 8


def test_repeated_trades() -> None:
    once = [row(2, 1, i, i, 100.1, 1.0) for i in range(40)]
    some = rows_of(*once, once[-1])
    assert check_rows(some, SPEC, "t.npy").repeated_trades == 1
    twice = rows_of(*(r for r in once for _ in range(2)))
    with pytest.raises(DataError, match="40 of 80 trades repeat"):
        check_rows(twice, SPEC, "t.npy", chunk_rows=7)
    # with trade ids there is no doubt
    columns = read(rows_of(*good()))[1]
    columns["seq"][:] = np.arange(8)
    rows = event_rows(columns, SPEC)
    with pytest.raises(DataError, match="row 5 .*repeats trade 4"):
        check_rows(np.insert(rows, 4, rows[4]), SPEC, "t.npy")


def test_events_written_twice() -> None:
    """Each side's clock counts on its own half; what the other half says there is not looked at."""
    rows = rows_of(
        row(1, 1, 0, 1, 100.0, 5.0),
        row(1, -1, 1, 0, 100.1, 5.0, flags=EXCH),
        row(2, 1, 2, 4, 100.1, 1.0),
        row(1, -1, 3, 0, 100.1, 5.0, flags=EXCH),
        row(1, -1, 0, 6, 100.1, 5.0, flags=LOCAL),
        row(1, -1, 0, 9, 100.1, 5.0, flags=LOCAL),
    )
    check, columns = read(rows)
    assert check.events == 4
    assert (check.exch_half.tolist(), check.local_half.tolist()) == ([1, 3], [4, 5])
    assert columns["exch_ts"].tolist() == [T0 + ms * MS for ms in (0, 1, 2, 3)]
    assert columns["local_ts"].tolist() == [T0 + ms * MS for ms in (1, 6, 4, 9)]
    # the halves may stand in any places of the file
    apart = rows[[0, 2, 4, 5, 1, 3]]
    apart["ev"][:2] &= ~np.uint64(LOCAL)
    whole = rows_of(row(1, 1, 0, 1, 100.0, 5.0, flags=LOCAL), row(2, 1, 2, 4, 100.1, 1.0, flags=LOCAL))
    by_side = np.concatenate((apart[[0, 4, 1, 5]], whole, rows[4:]))
    np.testing.assert_array_equal(read(by_side, chunk_rows=3)[1]["local_ts"], columns["local_ts"])


@pytest.mark.parametrize(
    ("alone", "expected"),
    [
        (row(1, -1, 10, 11, 100.1, 5.0, flags=EXCH), "row 8 .*flagged EXCH alone .*the trader never saw"),
        (row(1, -1, 10, 11, 100.1, 5.0, flags=LOCAL), "row 8 .*flagged LOCAL alone .*the venue never had"),
        (row(2, 1, 10, 11, 100.1, 5.0, flags=LOCAL), "row 8 .*flagged LOCAL alone"),
        (row(2, 0, 12, 11, 100.1, 5.0, flags=LOCAL), "row 8 .*LOCAL alone, and its exch_ts .* is no time up to"),
    ],
)
def test_half_an_event(alone: tuple[Any, ...], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        check_rows(rows_of(*good(), alone), SPEC, "t.npy")


def test_halves_that_cross_in_time() -> None:
    rows = rows_of(row(1, 1, 5, 0, 100.0, 5.0, flags=EXCH), row(1, 1, 0, 4, 100.0, 5.0, flags=LOCAL))
    with pytest.raises(DataError, match="row 1 is seen at .* before the venue has it in row 0"):
        check_rows(rows, SPEC, "t.npy")


def test_what_the_venue_ignores_needs_no_venue_half() -> None:
    rows = rows_of(
        row(1, 1, 0, 1, 100.0, 5.0),
        row(1, 1, 6, 8, 100.0, 4.0),
        row(5, 1, 3, 9, 100.0, 5.0, flags=LOCAL),
        row(2, 0, 2, 9, 100.0, 5.0, flags=LOCAL),
        row(5, -1, 7, 9, 100.1, 5.0, flags=EXCH),
        row(2, 0, 8, 9, 100.1, 1.0),
    )
    check, columns = read(rows, chunk_rows=2)
    assert (check.events, check.ignored, check.only_local.tolist()) == (5, 1, [3, 2])
    assert columns["kind"].tolist() == [1, 2, 5, 1, 2]
    assert columns["exch_ts"].tolist() == [T0 + ms * MS for ms in (0, 2, 3, 6, 8)]
    # a print without a side fills nobody
    assert columns["flags"].tolist() == [LAST, LAST | NOT_MARKET, LAST, LAST, LAST | NOT_MARKET]


def test_clear_of_a_part_of_a_side() -> None:
    rows = rows_of(*good(), row(3, 1, 10, 11, 99.5, 0.0), row(3, -1, 10, 11, NAN, 0.0), row(3, 0, 10, 11, 99.5, 0.0))
    columns = read(rows)[1]
    assert columns["price_ticks"].tolist()[-3:] == [995, 0, 0]
    assert columns["side"].tolist()[-3:] == [1, -1, 0]
    back = write(columns)
    np.testing.assert_array_equal(back["px"][-3:], [99.5, NAN, NAN])


def test_known_book_stands_first() -> None:
    book = BookState(np.array([999, 1000]), np.array([7, 8]), np.array([1001]), np.array([9]), 55)
    columns = book_columns(book, T0)
    assert columns["kind"].tolist() == [3, 4, 4, 4]
    rows = write(columns)
    assert rows["px"].tolist()[1:] == [99.9, 100.0, 100.1]
    assert rows["qty"].tolist() == [0.0, 0.007, 0.008, 0.009]
    _, back = read(rows)
    for name in COLUMNS:
        np.testing.assert_array_equal(back[name], columns[name])


def test_prints_that_fill_nobody_have_no_side_outside() -> None:
    columns = read(rows_of(*good()))[1]
    columns["flags"][4] |= NOT_MARKET
    rows = write(columns)
    assert int(rows["ev"][4]) == Kind.TRADE | BOTH
    assert read(rows)[1]["side"].tolist()[4] == -1


@given(
    st.lists(st.integers(min_value=0, max_value=10**14), min_size=1, max_size=20),
    st.sampled_from(["0.1", "0.001", "0.05", "2.5", "10", "1E-8", "0.00000001"]),
)
def test_floats_are_the_nearest_to_the_decimals(steps: list[int], size: str) -> None:
    got = decimal_floats(np.array(steps, dtype=np.int64), Decimal(size))
    assert got.tolist() == [float(Decimal(size) * step) for step in steps]


@given(st.lists(st.integers(min_value=0, max_value=12), max_size=40))
def test_longest_climb(values: list[int]) -> None:
    n = len(values)
    best: list[int] = []
    for i in range(n):
        best.append(1 + max((best[j] for j in range(i) if values[j] <= values[i]), default=0))
    array = np.array(values, dtype=np.int64)
    for climb in (longest_climb, longest_climb.compiled):
        chosen = np.zeros(n, dtype=np.bool_)
        work = [np.empty(n, dtype=np.int64) for _ in range(3)]
        assert climb(array, *work, chosen) == max(best, default=0) == chosen.sum()
        assert np.all(np.diff(array[chosen]) >= 0)


@st.composite
def tapes(draw: st.DrawFn) -> Columns:
    """Any rows our layout allows: times that tie, overtake and stand still, every kind, flags, riders."""
    n = draw(st.integers(min_value=1, max_value=30))
    seed = draw(st.integers(min_value=0, max_value=2**32 - 1))
    rng = np.random.default_rng(seed)
    kind = rng.choice([int(k) for k in Kind], n)
    exch = T0 + np.cumsum(rng.integers(0, 3, n)) * draw(st.sampled_from([1, MS]))
    local = exch + rng.integers(0, draw(st.sampled_from([1, 3, 20])), n) * draw(st.sampled_from([1, MS]))
    priced = np.isin(kind, (Kind.DEPTH, Kind.TRADE, Kind.SNAPSHOT, Kind.TOP))
    valued = kind >= Kind.MARK
    side = np.where(priced, rng.choice([-1, 1], n), np.where(kind == Kind.CLEAR, rng.integers(-1, 2, n), 0))
    value = np.where(valued, rng.choice([0.0001, -0.5, 100.07, NAN], n), NAN)
    return {
        "exch_ts": exch,
        "local_ts": local,
        "kind": kind.astype(np.int8),
        "side": side.astype(np.int8),
        "flags": (rng.integers(0, 2, n) * LAST | rng.integers(0, 2, n) * REPAIRED | (kind == Kind.TRADE) * rng.integers(0, 2, n) * NOT_MARKET).astype(
            np.int16
        ),
        "price_ticks": np.where(priced, rng.integers(900, 1100, n), 0),
        "qty_lots": np.where(priced, rng.integers(0, 5000, n), 0),
        # unique: rows equal in everything are refused
        "seq": np.arange(n, dtype=np.int64) - 1,
        "value": value,
        "aux": np.where(valued, rng.random(n), NAN),
    }


@given(tapes(), st.lists(st.integers(min_value=0, max_value=30), max_size=4), st.integers(min_value=1, max_value=40))
def test_out_and_back(columns: Columns, cuts: list[int], chunk_rows: int) -> None:
    rows = write(columns, [min(cut, len(columns["exch_ts"])) for cut in cuts])
    venue, trader = (rows["ev"] & EXCH) != 0, (rows["ev"] & LOCAL) != 0
    # each side sees every event once, in its own order
    by_local = np.argsort(columns["local_ts"], kind="stable")
    assert rows["order_id"][venue].view(np.int64).tolist() == columns["seq"].tolist()
    assert rows["order_id"][trader].view(np.int64).tolist() == columns["seq"][by_local].tolist()
    check, back = read(rows, chunk_rows=chunk_rows)
    assert check.events == len(columns["exch_ts"])
    for name in COLUMNS:
        np.testing.assert_array_equal(back[name], columns[name], err_msg=name)
