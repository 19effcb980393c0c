"""The recorded captures and day files beside the project, read into a lake and held against what an independent check found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import NS_PER_MS
from mm_platform.lake.store import Lake, Partition
from mm_platform.tape.layout import LAST, NOT_MARKET, REPAIRED, Kind
from mm_platform.workflow.ingest import IngestResult, IngestSettings, ingest, sources_by_instrument
from mm_platform.workflow.partition_sink import PartitionQuality, stored_book, stored_quality
from mm_platform.workflow.tapes import load_tape

pytestmark = pytest.mark.shared

BTC, ETH, NEXO = (InstrumentId.parse(i) for i in ("binanceusdm:BTC-USDT-PERP", "binanceusdm:ETH-USDT-PERP", "binance:NEXO-USDT"))
D2023, D2024, DNEXO = (date(2023, 4, 4), date(2023, 4, 5)), (date(2024, 7, 18), date(2024, 7, 19)), (date(2024, 7, 23), date(2024, 7, 24))


@pytest.fixture(scope="module")
def ingested(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, IngestResult]:
    """All captures in one call."""
    lake = Lake.open(tmp_path_factory.mktemp("real") / "lake")
    files = sorted((shared / "data/binance_ws").rglob("*.gz"))
    return lake, ingest(lake, files, None)


def parts(result: IngestResult, instrument: InstrumentId, days: Sequence[date]) -> list[PartitionQuality]:
    return [p for p in result.partitions if (p.venue, p.symbol) == (instrument.venue, instrument.symbol) and p.date in days]


def test_nothing_is_bad_broken_missing_or_crossed(ingested: tuple[Lake, IngestResult]) -> None:
    _, result = ingested
    assert sum(p.lines for p in result.partitions) == 215_662 + 15_088 + 1_804 + 112_274
    for p in result.partitions:
        assert (p.bad_lines, p.sequence_breaks, p.trade_id_gaps, p.crossed_books, p.duplicates) == (0, 0, 0, 0, 0), p
        assert (p.verdict, p.reason) == ("ok", "")
    assert result.warnings == ()


@pytest.mark.parametrize(("instrument", "days", "pairs"), [(BTC, D2023, 1_565), (BTC, D2024, 625), (ETH, D2024, 834), (NEXO, DNEXO, 12_198)])
def test_the_rebuilt_top_of_book_is_the_venues_own(
    ingested: tuple[Lake, IngestResult], instrument: InstrumentId, days: Sequence[date], pairs: int
) -> None:
    found = parts(ingested[1], instrument, days)
    compared = sum(p.top_of_book_compared for p in found)
    equal = sum(round((p.top_of_book_match_frac or 0.0) * p.top_of_book_compared) for p in found)
    print(f"{instrument} {days[0]} to {days[1]}: {equal} of {compared} best quotes equal at the same update id")
    assert (compared, equal) == (pairs, pairs)


@pytest.mark.parametrize(("instrument", "days"), [(BTC, D2023), (BTC, D2024), (ETH, D2024), (NEXO, DNEXO)])
def test_the_second_day_continues_the_first(ingested: tuple[Lake, IngestResult], instrument: InstrumentId, days: Sequence[date]) -> None:
    lake, result = ingested
    first, second = parts(result, instrument, days)
    assert (first.chained, second.chained, first.book, second.book) == (False, True, "full", "full")
    closing = stored_book(lake, Partition.of(instrument, days[0]))
    assert closing.seq == first.last_seq
    assert load_tape(lake, instrument, [days[1]]).initial_book.seq == closing.seq
    whole = load_tape(lake, instrument, days)
    assert len(whole) == first.rows + second.rows
    assert np.all(np.diff(whole.exch_ts) >= 0)


def test_a_stream_without_a_snapshot_yields_trades_and_best_quotes(ingested: tuple[Lake, IngestResult]) -> None:
    lake, result = ingested
    btc_spot = InstrumentId.parse("binance:BTC-USDT")
    (quality,) = parts(result, btc_spot, D2023)
    assert (quality.book, quality.trades, quality.depth_messages, quality.clock_repaired) == ("absent", 3_144, 0, False)
    tape = load_tape(lake, btc_spot)
    assert set(np.unique(tape.kind)) == {int(Kind.TRADE), int(Kind.TOP)}
    assert stored_book(lake, Partition.of(btc_spot, D2023[1])).bid_ticks.size == 0


def test_the_recorders_clock_is_repaired_with_a_floor_and_said_to_be(ingested: tuple[Lake, IngestResult]) -> None:
    lake, result = ingested
    for instrument, days in ((BTC, D2024), (ETH, D2024)):
        for p in parts(result, instrument, days):
            assert p.clock_repaired
            assert 1_500 * NS_PER_MS < p.clock_offset_ns < 1_550 * NS_PER_MS
            assert p.negative_latency_frac == 1.0
        tape = load_tape(lake, instrument, days)
        assert tape.clock_repaired
        assert np.all(tape.flags & REPAIRED)
        latency = tape.local_ts - tape.exch_ts
        assert int(latency.min()) >= 5 * NS_PER_MS
        assert 5 * NS_PER_MS <= int(np.median(latency)) < 20 * NS_PER_MS


def test_trades_are_in_order_with_the_quotes_they_met(ingested: tuple[Lake, IngestResult]) -> None:
    for p in ingested[1].partitions:
        assert p.unordered_trade_frac is not None
        print(f"{p.venue}:{p.symbol} {p.date}: {p.unordered_trade_frac:.3%} of trades past the quote known before them")
        # perps carry the venue's time in every stream; spot quotes carry none and are estimated
        assert p.unordered_trade_frac < (0.002 if p.venue == "binanceusdm" else 0.06)


def test_the_funding_stamp_is_settled_at_the_rate_that_was_in_force(ingested: tuple[Lake, IngestResult]) -> None:
    lake, _ = ingested
    tape = load_tape(lake, BTC, D2023)
    (i,) = np.flatnonzero(tape.kind == Kind.FUNDING)
    midnight = 1_680_652_800_000 * NS_PER_MS
    assert (tape.exch_ts[i], tape.seq[i]) == (midnight, midnight)
    # the history rounds the stream's 0.00002760 to 0.000028
    assert tape.value[i] == 0.0000276
    assert round(float(tape.value[i]), 6) == 0.000028
    assert tape.aux[i] == 28_155.1
    # known when the next stamp was announced, a second later
    assert 1_000 * NS_PER_MS < tape.local_ts[i] - midnight < 1_200 * NS_PER_MS


def test_the_insurance_funds_print_is_no_market_trade(ingested: tuple[Lake, IngestResult]) -> None:
    lake, result = ingested
    tape = load_tape(lake, BTC, D2023)
    (i,) = np.flatnonzero(tape.flags & NOT_MARKET)
    assert (tape.kind[i], tape.price_ticks[i], tape.qty_lots[i]) == (Kind.TRADE, 287_225, 1)
    assert sum(p.non_market_trades for p in parts(result, BTC, D2023)) == 1


def test_every_message_ends_once(ingested: tuple[Lake, IngestResult]) -> None:
    lake, result = ingested
    tape = load_tape(lake, ETH, D2024)
    depth_ends = int(np.sum((tape.kind == Kind.DEPTH) & ((tape.flags & LAST) != 0)))
    assert depth_ends == sum(p.depth_messages for p in parts(result, ETH, D2024)) == 8_923
    top = tape.kind == Kind.TOP
    assert int(np.sum(top & ((tape.flags & LAST) != 0))) * 2 == int(np.sum(top))


def test_days_ingested_one_by_one_are_the_same_as_together(ingested: tuple[Lake, IngestResult], shared: Path, tmp_path: Path) -> None:
    _, result = ingested
    other = Lake.open(tmp_path / "lake")
    for day in ("20240718", "20240719"):
        ingest(other, [shared / f"data/binance_ws/usdm/ethusdt_{day}.gz"], None)
    for p in parts(result, ETH, D2024):
        apart = stored_quality(other, Partition.of(ETH, p.date))
        assert apart.tape_sha256 == p.tape_sha256
        assert (apart.rows, apart.lines, apart.top_of_book_compared) == (p.rows, p.lines, p.top_of_book_compared)
    again = ingest(other, [shared / "data/binance_ws/usdm/ethusdt_20240719.gz"], None)
    assert [p.tape_sha256 for p in again.partitions] == [p.tape_sha256 for p in parts(result, ETH, D2024)[1:]]


def test_the_second_day_alone_has_no_book(shared: Path, tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    (quality,) = ingest(lake, [shared / "data/binance_ws/usdm/ethusdt_20240719.gz"], None).partitions
    assert (quality.book, quality.sequence_breaks) == ("absent", 0)


# -- day files as CSV --------------------------------------------------------------------------------------------------------------------


def quality_file(shared: Path, name: str) -> Path:
    (path,) = (shared / "data/quality").glob(f"*{name}*")
    return path


def test_updates_trades_and_snapshot_of_one_merged_file(shared: Path, tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    (p,) = ingest(lake, [quality_file(shared, "merged")], None).partitions
    assert (p.venue, p.symbol, p.book, p.verdict) == ("binanceusdm", "TRX-USDT-PERP", "full", "ok")
    assert (p.lines, p.bad_lines, p.sequence_breaks, p.trade_id_gaps, p.crossed_books) == (10_000, 0, 0, 0, 0)


def test_updates_and_trades_in_files_of_their_own_run_side_by_side(shared: Path, tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    files = [quality_file(shared, f"positive_binance_{stream}_stream_usd_m") for stream in ("trade", "difference_depth")]
    (p,) = ingest(lake, files, None).partitions
    assert (p.trades, p.depth_messages, p.book, p.lines) == (9_999, 0, "absent", 20_002)
    assert (p.sequence_breaks, p.trade_id_gaps, p.bad_lines) == (0, 0, 0)
    assert len(p.source_files) == 2


@pytest.mark.parametrize(
    ("name", "instrument", "trades"),
    [
        ("positive_binance_trade_stream_spot", "binance:TRX-USDT", 10_000),
        ("positive_binance_trade_stream_coin_m", "binancecoinm:TRX-USD-PERP", 10_000),
    ],
)
def test_trades_of_spot_and_coin_margined(shared: Path, tmp_path: Path, name: str, instrument: str, trades: int) -> None:
    (p,) = ingest(Lake.open(tmp_path / "lake"), [quality_file(shared, name)], None).partitions
    assert (f"{p.venue}:{p.symbol}", p.trades, p.bad_lines, p.trade_id_gaps) == (instrument, trades, 0, 0)


def test_a_negative_price_is_counted_with_its_line(shared: Path, tmp_path: Path) -> None:
    (p,) = ingest(Lake.open(tmp_path / "lake"), [quality_file(shared, "negative_binance_trade")], None).partitions
    assert (p.bad_lines, p.verdict) == (1, "suspect")
    assert p.reason.endswith("_04-03-2025.csv.gz:2: negative number)")


def edited(shared: Path, tmp_path: Path, name: str, edit: object) -> Path:
    import gzip

    lines = gzip.decompress(quality_file(shared, name).read_bytes()).decode().splitlines(keepends=True)
    assert callable(edit)
    path = tmp_path / f"edited_{name}.csv"
    path.write_text("".join(edit(lines)))
    return path


def set_field(column: int, value: str, rows: range) -> object:
    def edit(lines: list[str]) -> list[str]:
        for i in rows:
            cells = lines[i].rstrip("\n").split(",")
            cells[column] = value
            lines[i] = ",".join(cells) + "\n"
        return lines

    return edit


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (7, "NaN", "not a decimal number"),
        (7, "-0.23", "negative number"),
        (8, "nan", "not a decimal number"),
        (0, "0", "receive time is no time"),
        (4, "0", "time at the venue is no time"),
        (3, "1741132800001", "more than an hour apart"),
        (0, "1741219200000", "more than an hour apart"),
    ],
)
def test_each_kind_of_damage_in_trades_is_counted_and_refused_beyond_the_limit(
    shared: Path, tmp_path: Path, column: int, value: str, reason: str
) -> None:
    path = edited(shared, tmp_path, "positive_binance_trade_stream_usd_m", set_field(column, value, range(50, 90)))
    lake = Lake.open(tmp_path / "lake")
    with pytest.raises(DataError, match=rf"40 bad lines of 10001.*:51: .*{reason}"):
        ingest(lake, [path], None)
    assert lake.partitions("tape") == []
    (p,) = ingest(lake, [path], None, IngestSettings(max_bad_line_frac=0.01)).partitions
    # what could not be read leaves a gap in the ids
    assert (p.bad_lines, p.trade_id_gaps, p.trades) == (40, 1, 9_959)


def test_a_sequence_break_in_updates_is_refused_with_its_place(shared: Path, tmp_path: Path) -> None:
    path = edited(shared, tmp_path, "positive_binance_difference_depth_stream_usd_m", lambda lines: lines[:2] + lines[800:])
    with pytest.raises(DataError, match=r"1 sequence breaks in \d+ depth updates.*:\d+ at 2025-03-04T00:0"):
        ingest(Lake.open(tmp_path / "lake"), [path], None)


def test_gaps_in_trade_ids_are_counted(shared: Path, tmp_path: Path) -> None:
    path = edited(shared, tmp_path, "positive_binance_trade_stream_usd_m", lambda lines: lines[:100] + lines[110:200] + lines[205:])
    result = ingest(Lake.open(tmp_path / "lake"), [path], None)
    assert result.partitions[0].trade_id_gaps == 2
    assert result.partitions[0].verdict == "suspect"
    assert "trade id continues" in result.warnings[0]


def test_updates_alone_give_nothing_and_say_so(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="600 depth updates without a snapshot"):
        ingest(Lake.open(tmp_path / "lake"), [quality_file(shared, "negative_binance_difference")], None)


def test_a_file_cut_off_in_the_middle_of_its_compression(shared: Path, tmp_path: Path) -> None:
    whole = (shared / "data/binance_ws/usdm/btcusdt_20240718.gz").read_bytes()
    cut = tmp_path / "cut.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    lake = Lake.open(tmp_path / "lake")
    with pytest.raises(DataError, match=r"cut\.gz: the gzip stream is truncated"):
        ingest(lake, [cut], None)
    assert lake.partitions("tape") == []


# -- Tardis ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "instrument", "rows", "book"),
    [
        ("deltas_with_snapshot.csv", "binanceusdm:BTC-USDT-PERP", 11, "full"),
        ("deltas_1.csv", "deribit:BTC-USD-PERP", 3, "full"),
        ("deribit_incremental_book_L2_BTC-PERPETUAL.csv", "deribit:BTC-USD-PERP", 16, "full"),
        ("trades_1.csv", "bitmex:BTC-USD-PERP", 2, "absent"),
        ("bitmex_trades_XBTUSD.csv", "bitmex:BTC-USD-PERP", 10, "absent"),
        ("derivative_ticker_1.csv", "bitmex:BTC-USD-PERP", 5, "absent"),
    ],
)
def test_tardis_samples_in_us_and_ns(shared: Path, tmp_path: Path, name: str, instrument: str, rows: int, book: str) -> None:
    lake = Lake.open(tmp_path / "lake")
    (p,) = ingest(lake, [shared / "data/tardis_csv" / name], None).partitions
    assert (f"{p.venue}:{p.symbol}", p.rows, p.bad_lines, p.book) == (instrument, rows, 0, book)
    assert p.date in (date(2020, 3, 1), date(2020, 4, 1), date(2022, 1, 1))
    assert len(load_tape(lake, InstrumentId.parse(instrument))) == rows


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("tardis_csv/binance-futures_book_snapshot_25_BTCUSDT.csv", "expected incremental_book_L2, trades or derivative_ticker"),
        ("bitmex_snapshots/orderbook10_20200303.csv.gz", "unknown format"),
        ("README.md", "unknown format"),
    ],
)
def test_formats_that_are_not_read_are_named(shared: Path, tmp_path: Path, path: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        ingest(Lake.open(tmp_path / "lake"), [shared / "data" / path], None)


def test_a_whole_tree_is_sorted_by_instrument_and_foreign_files_are_left_out(shared: Path) -> None:
    found = sources_by_instrument(sorted(p for p in (shared / "data").rglob("*") if p.is_file()))
    names = {str(instrument) for instrument in found}
    assert {"binanceusdm:BTC-USDT-PERP", "binanceusdm:ETH-USDT-PERP", "binance:NEXO-USDT", "binanceusdm:TRX-USDT-PERP"} <= names
    assert not any("funding" in path.name or "snapshot_25" in path.name for paths in found.values() for path in paths)
