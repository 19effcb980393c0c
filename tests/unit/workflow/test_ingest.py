"""Ingest: what continues, extends, replaces or refuses what the lake has; damaged sources; nothing half-written."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from unit.decode.captures import T0_MS, depth, line, mark, snapshot, top, trade

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import day_start_ns
from mm_platform.lake.store import Lake, Partition
from mm_platform.tape.layout import Kind
from mm_platform.workflow.ingest import IngestResult, IngestSettings, ingest, ingest_simulated, sources_by_instrument
from mm_platform.workflow.partition_sink import scaled, stored_book, stored_quality
from mm_platform.workflow.tapes import load_tape, manifest

BTC = InstrumentId.parse("binanceusdm:BTC-USDT-PERP")
DAY, NEXT = date(2023, 4, 5), date(2023, 4, 6)
H = 3_600_000
MIDNIGHT = 24 * H  # T0 is 2023-04-05 00:00; milliseconds from there


def opening(ms: int = 0) -> bytes:
    return depth(ms, 1, 10, 0, [["100.0", "1"]]) + snapshot(ms + 5, 10, [["100.0", "1"], ["99.0", "5"]], [["100.1", "2"], ["101.0", "5"]])


def updates(start: int, count: int, first_id: int, *, step: int = 100) -> bytes:
    """Linked updates, trades and quotes from `start` ms on; update i covers ids first_id + 10 i + 1 to first_id + 10 i + 10."""
    out = b""
    for i in range(count):
        at, last = start + i * step, first_id + 10 * i
        out += depth(at, last + 1, last + 10, last, [["100.0", f"{1 + i % 5}"]])
        out += trade(at + 10, first_id // 10 + i, "100.1", "0.5")
        out += top(at + 20, last + 10, ("100.0", f"{1 + i % 5}"), ("100.1", "2"))
    return out


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(tmp_path / "lake")


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *parts: bytes) -> Path:
        path = tmp_path / name
        raw = b"".join(parts)
        path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
        return path

    return write


def run(lake: Lake, *paths: Path, **changed: float) -> IngestResult:
    return ingest(lake, list(paths), None, IngestSettings(**changed))  # type: ignore[arg-type]


def shas(lake: Lake) -> dict[date, str]:
    return {p.date: stored_quality(lake, p).tape_sha256 for p in lake.complete_partitions(BTC)}


def test_tables_of_one_day(lake: Lake, put: Callable[..., Path]) -> None:
    result = run(lake, put("a.gz", opening(), updates(100, 5, 10), mark(700, "100.07", "0.0001", T0_MS + 8 * H)))
    (quality,) = result.partitions
    assert (quality.venue, quality.symbol, quality.date) == ("binanceusdm", "BTC-USDT-PERP", DAY)
    assert (quality.lines, quality.bad_lines, quality.trades, quality.depth_messages, quality.crossed_books) == (18, 0, 5, 5, 0)
    assert (quality.top_of_book_compared, quality.top_of_book_match_frac, quality.book, quality.verdict) == (5, 1.0, "full", "ok")
    assert (quality.first_seq, quality.last_seq, quality.tick_size, quality.lot_size) == (20, 60, "0.1", "0.001")
    assert [f.name for f in quality.source_files] == ["a.gz"]
    assert quality == stored_quality(lake, Partition.of(BTC, DAY))

    trades = lake.read("trades", instrument=BTC, dates=[DAY]).to_pydict()
    assert trades["trade_id"] == [1, 2, 3, 4, 5]
    assert trades["price"] == [100.1] * 5
    assert trades["qty"] == [0.5] * 5
    assert trades["price_ticks"] == [1001] * 5
    tops = lake.read("book_top", instrument=BTC, dates=[DAY]).to_pydict()
    assert set(tops["source"]) == {"depth", "top"}
    assert tops["bid_qty"][-1] == 5.0
    assert tops["ask_price"][-1] == 100.1
    book = stored_book(lake, Partition.of(BTC, DAY))
    assert (book.bid_ticks.tolist(), book.bid_lots.tolist(), book.ask_ticks.tolist(), book.seq) == ([1000, 990], [5000, 5000], [1001, 1010], 60)
    assert lake.read("instruments", instrument=BTC, dates=[date(2022, 1, 1)]).to_pydict()["tick_size"] == ["0.1"]
    tape = load_tape(lake, BTC)
    assert np.bincount(tape.kind, minlength=10).tolist() == [0, 5, 5, 1, 4, 10, 1, 1, 0, 0]
    assert len(tape) == quality.rows


def test_the_same_sources_again_give_the_same_rows_and_leave_one_partition(lake: Lake, put: Callable[..., Path]) -> None:
    path = put("a.gz", opening(), updates(100, 5, 10))
    first = run(lake, path).partitions[0]
    again = run(lake, path).partitions[0]
    assert again.tape_sha256 == first.tape_sha256
    assert len(lake.complete_partitions(BTC)) == 1


def halves(put: Callable[..., Path]) -> tuple[Path, Path]:
    return put("z_first.gz", opening(), updates(100, 7, 10)), put("a_second", updates(1000, 8, 80))


def test_files_are_chained_by_time_whatever_they_are_called_and_in_whatever_order(lake: Lake, put: Callable[..., Path], tmp_path: Path) -> None:
    first, second = halves(put)
    together = run(lake, second, first).partitions[0]
    other = Lake.open(tmp_path / "other")
    run(other, first)
    extended = run(other, second).partitions[0]
    assert together.tape_sha256 == extended.tape_sha256
    assert (together.lines, together.trades, together.top_of_book_compared) == (extended.lines, extended.trades, extended.top_of_book_compared)
    assert together.source_files == extended.source_files
    assert extended.sequence_breaks == extended.trade_id_gaps == 0


def test_a_part_of_a_partitions_sources_leaves_it_as_it_is(lake: Lake, put: Callable[..., Path]) -> None:
    first, second = halves(put)
    whole = run(lake, first, second).partitions[0]
    assert run(lake, second).partitions == [whole]
    assert run(lake, first).partitions == [whole]


def test_a_file_that_overlaps_what_is_there_is_refused_and_nothing_changes(lake: Lake, put: Callable[..., Path]) -> None:
    first, second = halves(put)
    run(lake, second)
    before = shas(lake)
    with pytest.raises(DataError, match=r"has it already, from a_second.*give all of its sources"):
        run(lake, first)
    assert shas(lake) == before
    both = run(lake, first, second).partitions[0]
    assert both.book == "full"


def test_adding_to_a_partition_while_naming_only_some_of_its_sources_is_refused(lake: Lake, put: Callable[..., Path]) -> None:
    first, second = halves(put)
    run(lake, first, second)
    third = put("third", updates(2000, 3, 160))
    with pytest.raises(DataError, match="third would add to it"):
        run(lake, second, third)
    assert run(lake, third).partitions[0].sequence_breaks == 0


def test_the_same_stretch_recorded_twice_is_refused(lake: Lake, put: Callable[..., Path]) -> None:
    first = put("one", opening(), updates(100, 7, 10))
    second = put("two", updates(300, 8, 30))
    with pytest.raises(DataError, match="two recordings of the same stretch"):
        run(lake, first, second)
    assert shas(lake) == {}


def two_days(put: Callable[..., Path]) -> tuple[Path, Path]:
    # 100 ms steps: the last update of the first file is received 6 ms after it happened, 94 ms before midnight
    return put("d1", opening(MIDNIGHT - 5000), updates(MIDNIGHT - 1000, 10, 10)), put("d2.gz", updates(MIDNIGHT, 10, 110))


def test_a_day_continues_the_book_of_the_day_before_in_one_call_and_in_two(lake: Lake, put: Callable[..., Path], tmp_path: Path) -> None:
    d1, d2 = two_days(put)
    one = run(lake, d1, d2).partitions
    assert [(p.date, p.chained, p.book, p.sequence_breaks) for p in one] == [(DAY, False, "full", 0), (NEXT, True, "full", 0)]
    other = Lake.open(tmp_path / "other")
    run(other, d1)
    (second,) = run(other, d2).partitions
    assert second.tape_sha256 == one[1].tape_sha256
    assert second.chained
    tape = load_tape(other, BTC, [NEXT])
    assert tape.initial_book.seq == 110
    assert tape.initial_book.bid_ticks.tolist() == [1000, 990]
    both = load_tape(other, BTC, [NEXT, DAY])
    assert len(both) == one[0].rows + one[1].rows
    assert both.initial_book.seq == -1
    assert both.sha256 == load_tape(lake, BTC).sha256 == manifest(lake, BTC).sha256


def test_a_day_that_does_not_continue_and_has_no_snapshot_is_refused_with_the_reason(lake: Lake, put: Callable[..., Path]) -> None:
    d1, _ = two_days(put)
    run(lake, d1)
    gap = put("gap", updates(MIDNIGHT, 10, 130))
    with pytest.raises(DataError, match="do not continue the book of the day before and no snapshot follows"):
        run(lake, gap)
    assert set(shas(lake)) == {DAY}


def test_a_day_with_a_snapshot_of_its_own_need_not_continue(lake: Lake, put: Callable[..., Path]) -> None:
    d1, _ = two_days(put)
    run(lake, d1)
    own = put(
        "own", depth(MIDNIGHT, 501, 510, 500), snapshot(MIDNIGHT + 5, 510, [["100.0", "1"]], [["100.1", "2"]]), updates(MIDNIGHT + 100, 10, 510)
    )
    result = run(lake, own)
    assert (result.partitions[0].chained, result.partitions[0].sequence_breaks, result.partitions[0].book) == (False, 0, "full")
    assert "does not continue 2023-04-05" in result.warnings[0]
    joined = load_tape(lake, BTC)
    assert np.flatnonzero(joined.kind == Kind.CLEAR).size == 2


def test_joining_a_day_without_a_book_empties_the_one_before(lake: Lake, put: Callable[..., Path]) -> None:
    d1, _ = two_days(put)
    run(lake, d1)
    run(lake, put("trades", *(trade(MIDNIGHT + 61_000 + 50 * i, 900 + i, "100.1", "1") for i in range(5))))
    joined = load_tape(lake, BTC)
    rows = np.flatnonzero(joined.local_ts >= day_start_ns(NEXT))
    assert joined.kind[rows].tolist() == [Kind.CLEAR] + [Kind.TRADE] * 5


def test_a_day_that_continues_another_than_the_one_stored_is_not_loaded(lake: Lake, put: Callable[..., Path]) -> None:
    d1, d2 = two_days(put)
    run(lake, d1, d2)
    run(lake, put("d1b", updates(MIDNIGHT - 50, 1, 110)))
    with pytest.raises(DataError, match="that day has changed since: ingest 2023-04-06 again"):
        load_tape(lake, BTC, [NEXT])


def test_two_recordings_in_one_call_with_days_in_between_are_no_break(lake: Lake, put: Callable[..., Path]) -> None:
    later = MIDNIGHT * 30
    result = run(lake, put("a", opening(), updates(100, 5, 10)), put("b", opening(later), updates(later + 100, 5, 10)))
    assert [(p.sequence_breaks, p.trade_id_gaps, p.duplicates, p.verdict) for p in result.partitions] == [(0, 0, 0, "ok")] * 2
    assert result.warnings == ()
    with pytest.raises(DataError, match="a tape has no hole"):
        load_tape(lake, BTC)


def broken(put: Callable[..., Path]) -> Path:
    return put("broken", opening(), updates(100, 5, 10), updates(1000, 5, 100))


def test_a_sequence_break_above_the_limit_refuses_the_partition_and_says_where(lake: Lake, put: Callable[..., Path]) -> None:
    with pytest.raises(
        DataError,
        match=r"1 sequence breaks in 11 depth updates, allowed 0\.1000%: broken:18 at 2023-04-05T00:00:01\.006Z: depth update continues 100, expected 60",
    ):
        run(lake, broken(put))
    assert shas(lake) == {}
    assert list(lake.root.rglob("*.tmp")) == []


def test_below_the_limit_it_is_kept_as_suspect_with_a_book_that_is_not_known(lake: Lake, put: Callable[..., Path]) -> None:
    result = run(lake, broken(put), max_sequence_break_frac=0.5)
    quality = result.partitions[0]
    assert (quality.verdict, quality.sequence_breaks, quality.trade_id_gaps) == ("suspect", 1, 1)
    assert quality.reason == "1 sequence breaks; 1 gaps in trade ids"
    assert "broken:18" in result.warnings[0]
    assert stored_book(lake, Partition.of(BTC, DAY)).bid_ticks.size == 0
    with pytest.raises(DataError, match="and at most 0"):
        run(lake, broken(put), max_sequence_break_frac=0.5, max_sequence_breaks=0)


def test_bad_lines_above_the_limit_refuse_with_the_first_places(lake: Lake, put: Callable[..., Path]) -> None:
    path = put("bad", opening(), b"garbage\n", trade(50, 5, "NaN", "1"), updates(100, 5, 10))
    with pytest.raises(DataError, match=r"2 bad lines of 19, allowed 0\.1000% \(bad:3: .*; bad:4: not a decimal number"):
        run(lake, path)
    quality = run(lake, path, max_bad_line_frac=0.5).partitions[0]
    assert (quality.bad_lines, quality.verdict) == (2, "suspect")
    # a bad line can neither be lost nor counted twice
    assert quality.lines == 19


def test_a_crossed_book_refuses(lake: Lake, put: Callable[..., Path]) -> None:
    path = put("crossed", opening(), depth(50, 11, 20, 10, [["100.1", "1"]]), updates(100, 3, 20))
    with pytest.raises(DataError, match="crossed after 4 of 4 depth updates"):
        run(lake, path)


def test_best_quotes_that_differ_from_the_book_make_it_suspect(lake: Lake, put: Callable[..., Path]) -> None:
    path = put("other", opening(), updates(100, 3, 10), depth(500, 41, 50, 40, [["99.0", "6"]]), top(501, 50, ("99.0", "5"), ("100.1", "2")))
    quality = run(lake, path).partitions[0]
    assert (quality.top_of_book_compared, quality.top_of_book_match_frac) == (4, 0.75)
    assert quality.reason == "best quotes equal the venue's in 3 of 4"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("nothing", b"", "the file is empty"),
        ("text", b"hello world\n", "unknown format"),
        ("acks", b'1680652800000000 {"result":null,"id":1}\n', "none of its first lines has a symbol"),
        ("depth", depth(0, 1, 10, 0) + depth(1, 11, 20, 10), "2 depth updates without a snapshot"),
        (
            "unknown",
            line(T0_MS * 1000, "x", e="trade", E=T0_MS, T=T0_MS, s="FOOUSDT", t=1, p="1", q="1", X="MARKET", m=True),
            r"add an \[\[instruments\]\] table",
        ),
        ("grid", trade(0, 1, "100.05", "1"), "not a multiple of the tick or lot size"),
        (
            "early",
            line(1_500_000_000_000_000, "x", e="trade", E=1, T=1, s="BTCUSDT", t=1, p="1", q="1", X="MARKET", m=True),
            "facts are known from 2019-09-08 on",
        ),
    ],
)
def test_sources_that_give_nothing_are_errors_that_say_why(lake: Lake, put: Callable[..., Path], name: str, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        run(lake, put(name, content))
    assert lake.partitions("tape") == []


def test_a_missing_file_and_a_folder_are_named_before_anything_is_written(lake: Lake, put: Callable[..., Path], tmp_path: Path) -> None:
    good = put("a", opening(), updates(100, 5, 10))
    for wrong, what in ((tmp_path / "absent.gz", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=what):
            run(lake, good, wrong)
    with pytest.raises(DataError, match="no files given"):
        run(lake)
    assert lake.partitions("tape") == []


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_gzip_stream_leaves_the_old_partition(lake: Lake, put: Callable[..., Path], damage: str) -> None:
    whole = put("a.gz", opening(), updates(100, 200, 10))
    before = run(lake, whole).partitions[0]
    raw = bytearray(whole.read_bytes())
    if damage == "cut":
        raw = raw[: len(raw) // 2]
    else:
        raw[len(raw) // 2] ^= 0xFF
        raw[-6] ^= 0xFF
    hurt = put("hurt", bytes(raw))
    other = Lake.open(lake.root.parent / "other")
    with pytest.raises(DataError, match="truncated or damaged after"):
        run(other, hurt)
    assert other.partitions("tape") == []
    with pytest.raises(DataError):
        run(lake, whole, hurt)
    assert stored_quality(lake, Partition.of(BTC, DAY)) == before


def test_two_grids_in_one_day_are_refused(lake: Lake, put: Callable[..., Path]) -> None:
    noon = day_start_ns(DAY) + 12 * 3_600 * 10**9
    specs = [
        InstrumentSpec(instrument=str(BTC), tick_size=t, lot_size="0.001", contract="linear", maker_fee=0.0, taker_fee=0.0, valid_from_ns=since)
        for t, since in (("0.1", 0), ("0.5", noon))
    ]
    with pytest.raises(DataError, match="changes within the day"):
        ingest(lake, [put("a", opening(), updates(100, 5, 10))], {str(BTC): specs})


def test_sources_are_sorted_by_instrument_and_others_left_out(put: Callable[..., Path]) -> None:
    eth = put("e", trade(0, 1, "100.0", "1").replace(b"BTCUSDT", b"ETHUSDT"))
    btc, note = put("b.gz", opening()), put("readme", b"notes\n")
    unknown = put("u", trade(0, 1, "100.0", "1").replace(b"BTCUSDT", b"FOOUSDT"))
    found = sources_by_instrument([note, eth, btc, unknown])
    assert {str(k): v for k, v in found.items()} == {
        "binanceusdm:ETH-USDT-PERP": [eth],
        "binanceusdm:BTC-USDT-PERP": [btc],
        "binanceusdm:FOO-USDT-PERP": [unknown],
    }


def test_loading_says_what_is_missing(lake: Lake, put: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="no complete day"):
        load_tape(lake, BTC)
    run(lake, put("a", opening(), updates(100, 5, 10)))
    with pytest.raises(DataError, match="no complete data on 2023-04-06; complete days: 2023-04-05"):
        load_tape(lake, BTC, [DAY, NEXT])
    with pytest.raises(DataError, match="no rows from"):
        load_tape(lake, BTC, [DAY], start_ns=day_start_ns(NEXT))


def test_a_cut_tape_begins_with_the_book_at_its_start(lake: Lake, put: Callable[..., Path]) -> None:
    run(lake, put("a", opening(), updates(100, 5, 10)))
    whole = load_tape(lake, BTC)
    start = (T0_MS + 300) * 10**6
    cut = load_tape(lake, BTC, start_ns=start, end_ns=start + 10**8)
    assert np.all((cut.exch_ts >= start) & (cut.exch_ts < start + 10**8))
    assert len(cut) == int(np.sum((whole.exch_ts >= start) & (whole.exch_ts < start + 10**8))) > 0
    assert (cut.initial_book.bid_ticks[0], cut.initial_book.bid_lots[0], cut.initial_book.seq) == (1000, 2000, 30)


def test_simulated_days_are_stored_by_the_same_code(lake: Lake) -> None:
    from mm_platform.tape.simulate import simulate_day

    result = ingest_simulated(lake, 1, 3, date(2026, 1, 5))
    assert [(p.symbol, p.verdict, p.book, p.sources) for p in result.partitions] == [
        ("BTC-USDT", "ok", "full", "[]"),
        ("BTC-USDT-PERP", "ok", "full", "[]"),
    ]
    assert all(p.top_of_book_match_frac == 1.0 and p.top_of_book_compared > 1000 for p in result.partitions)
    perp = simulate_day(3, date(2026, 1, 5)).perp
    stored = load_tape(lake, InstrumentId.parse("sim:BTC-USDT-PERP"))
    for name, column in perp.columns().items():
        assert np.array_equal(column, getattr(stored, name), equal_nan=name in ("value", "aux")), name


def test_prices_in_tables_are_the_floats_nearest_to_the_venues_decimals() -> None:
    from decimal import Decimal

    rng = np.random.default_rng(1)
    for size in ("0.1", "0.01", "0.00001", "0.5", "10", "1"):
        steps = rng.integers(0, 10**9, 2000)
        assert scaled(steps, Decimal(size)).tolist() == [float(Decimal(size) * int(s)) for s in steps]
    huge = np.array([2**60 + 1])
    assert scaled(huge, Decimal("0.001")).tolist() == [float(Decimal("0.001") * (2**60 + 1))]
