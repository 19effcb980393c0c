"""Funding CSV: lines, clocks, intervals, gaps."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.decode.funding_csv import (
    NS_PER_HOUR,
    SETTLEMENT_GRIDS,
    SettlementGrid,
    find_clock,
    fitting_offsets,
    history_of,
    instrument_of_file,
    match_frac,
    parse_funding_csv,
    snap_to_hour,
    to_history,
)

HEADER = "Symbol,Date,Funding Rate"
EIGHT = SettlementGrid(8, 0)


def written(hours: list[float], rates: list[float] | None = None, *, start: datetime = datetime(2023, 1, 1, tzinfo=UTC)) -> list[str]:
    """Lines with local times `hours` after the start."""
    rates = rates or [0.0001 * (i % 7) for i in range(len(hours))]
    stamps = [datetime.fromtimestamp(start.timestamp() + h * 3600, tz=UTC).strftime("%Y-%m-%d %H:%M:%S") for h in hours]
    return [HEADER, *(f"BTC-USDT,{stamp},{rate:.8f}" for stamp, rate in zip(stamps, rates, strict=True))]


def test_lines_become_sorted_rates() -> None:
    raw = parse_funding_csv(
        [HEADER, "BTC-USDT,2023-01-01 11:00:00.007,0.0002", "BTC-USDT,2023-01-01 03:00:00,-0.0001", "", "BTC-USDT,2023-01-01 03:00:00,-0.0001"]
    )
    assert raw.symbol == "BTC-USDT"
    assert raw.rates.tolist() == [-0.0001, 0.0002]
    assert raw.written_ns.tolist()[1] - raw.written_ns.tolist()[0] == 8 * NS_PER_HOUR + 7_000_000
    assert raw.repeated == 1


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([], "header is empty"),
        (["time,rate"], "expected Symbol,Date,Funding Rate"),
        ([HEADER], "no rows"),
        ([HEADER, "BTC-USDT,2023-01-01 03:00:00"], "line 2 has 2 fields"),
        ([HEADER, "BTC-USDT,yesterday,0.1"], "line 2"),
        ([HEADER, "BTC-USDT,2023-01-01 03:00:00,much"], "line 2"),
        ([HEADER, "BTC-USDT,2023-01-01 03:00:00,nan"], "line 2: rate nan"),
        ([HEADER, "BTC-USDT,2023-01-01 03:00:00,0.6"], "at most 0.5"),
        ([HEADER, "BTC-USDT,2023-01-01 03:00:00+00:00,0.1"], "states a zone"),
        ([HEADER, "BTC-USDT,2023-01-01 03:00:00,0.1", "BTC-USDT,2023-01-01 03:00:00,0.2"], "line 3: rate 0.2"),
        ([HEADER, "BTC-USDT,2023-01-01 03:00:00,0.1", "ETH-USDT,2023-01-01 11:00:00,0.2"], "symbols BTC-USDT, ETH-USDT"),
    ],
)
def test_bad_lines_are_named(lines: list[str], word: str) -> None:
    with pytest.raises(DataError, match=word):
        parse_funding_csv(lines, name="f.csv")


@pytest.mark.parametrize(
    ("name", "instrument"),
    [
        ("BTC-USDT_binance_2020-01-01_2024-01-01_funding_history.csv.gz", "binanceusdm:BTC-USDT-PERP"),
        ("ETH-USDT_kucoin_2021-01-01_2024-01-01_funding_history.csv", "kucoinfutures:ETH-USDT-PERP"),
        ("BTC-USDT_dydx_2022-01-01_2024-01-01_funding_history.csv.gz", "dydx:BTC-USDT-PERP"),
    ],
)
def test_file_names_say_the_instrument(name: str, instrument: str) -> None:
    assert str(instrument_of_file(name)) == instrument
    with pytest.raises(ConfigError, match=r"notes\.csv"):
        instrument_of_file("notes.csv")


def test_the_grid_leaves_zones_a_settlement_apart() -> None:
    raw = parse_funding_csv(written([3 + 8 * i for i in range(200)]))
    assert fitting_offsets(raw, EIGHT) == (-5, 3, 11)
    assert fitting_offsets(raw, SettlementGrid(8, 4)) == (-9, -1, 7)
    assert len(fitting_offsets(raw, SettlementGrid(1, 0))) == 27
    with pytest.raises(DataError, match=r"-5 h, \+3 h, \+11 h all put the stamps on the venue's grid.*no second source"):
        find_clock(raw, EIGHT)


def test_a_stated_clock_is_checked_against_the_grid() -> None:
    raw = parse_funding_csv(written([3 + 8 * i for i in range(50)]))
    assert find_clock(raw, EIGHT, told_h=3.0).offset_h == 3.0
    with pytest.raises(DataError, match=r"stated offset of \+0 h .* offsets that fit: -5 h, \+3 h, \+11 h"):
        find_clock(raw, EIGHT, told_h=0.0)
    with pytest.raises(DataError, match="grid is not known"):
        find_clock(raw, None)
    assert find_clock(raw, None, told_h=3.0).offset_h == 3.0
    scattered = parse_funding_csv(written([3 + 7.3 * i for i in range(50)]))
    with pytest.raises(DataError, match="no whole-hour time zone"):
        find_clock(scattered, EIGHT)


def test_a_grid_of_a_day_needs_no_second_source() -> None:
    raw = parse_funding_csv(written([3 + 24 * i for i in range(50)]))
    assert find_clock(raw, SettlementGrid(24, 0)).offset_h == 3
    assert find_clock(raw, SettlementGrid(24, 0)).how == "grid"


@pytest.mark.parametrize("true_offset", [-5, 3, 11])
def test_a_second_source_decides_or_refuses(true_offset: int) -> None:
    rng = np.random.default_rng(5)
    rates = np.round(rng.normal(1e-4, 5e-5, 300), 8).tolist()
    raw = parse_funding_csv(written([3 + 8 * i for i in range(300)], rates))
    truth = to_history(raw, true_offset)
    found = find_clock(raw, EIGHT, second_source=truth)
    assert found.offset_h == true_offset
    assert "second source" in found.how
    flat = parse_funding_csv(written([3 + 8 * i for i in range(300)], [0.0001] * 300))
    with pytest.raises(DataError, match="does not decide"):
        find_clock(flat, EIGHT, second_source=to_history(flat, true_offset))  # equal everywhere: any shift fits
    with pytest.raises(DataError, match="does not decide"):
        find_clock(raw, EIGHT, second_source=history_of(truth.stamps_ns[:50], truth.rates[:50], truth.intervals_h[:50]))
    other = history_of(truth.stamps_ns, truth.rates + 1e-6, truth.intervals_h)
    with pytest.raises(DataError, match="does not decide"):
        find_clock(raw, EIGHT, second_source=other)


def test_intervals_come_from_the_stamps_and_follow_a_change() -> None:
    hours = [8.0 * i for i in range(6)] + [40.0 + 4.0 * i for i in range(1, 6)]
    history = to_history(parse_funding_csv(written(hours)), 0)
    assert history.intervals_h.tolist() == [8.0] * 6 + [4.0] * 5
    assert to_history(parse_funding_csv(written([float(i) for i in range(30)])), 0).intervals_h.tolist() == [1.0] * 30


def test_gaps_are_found_and_counted() -> None:
    hours = [8.0 * i for i in range(10)] + [72.0 + 752.0 + 8.0 * i for i in range(10)]
    history = to_history(parse_funding_csv(written(hours)), 0)
    assert (history.gaps, history.missing, history.largest_gap_h, history.irregular) == (1, 93, 752.0, 0)
    stray = to_history(parse_funding_csv(written([0.0, 8.0, 16.0, 26.0, 32.0, 40.0])), 0)
    assert (stray.gaps, stray.irregular) == (0, 2)
    assert stray.intervals_h.tolist() == [8.0] * 6
    with pytest.raises(DataError, match="fewer than 2"):
        to_history(parse_funding_csv(written([0.0])), 0)


def test_late_stamps_are_put_on_the_hour_and_stray_ones_left() -> None:
    hour = 480_000 * NS_PER_HOUR
    given = np.array([hour + 47_000_000, hour - 59 * 10**9, hour + 61 * 10**9], dtype=np.int64)
    assert snap_to_hour(given).tolist() == [hour, hour, hour + 61 * 10**9]


# -- the real files -----------------------------------------------------------------------------------------------------------------------


def raw_of(shared: Path, base: str, venue: str):
    (path,) = (shared / "data" / "funding").glob(f"{base}-USDT_{venue}_*.csv.gz")
    with gzip.open(path, "rt") as lines:
        return instrument_of_file(path.name), parse_funding_csv(lines, name=path.name)


def second_source(shared: Path, base: str, venue: str):
    table = pq.read_table(
        shared / "data" / "funding" / "spot_perp_funding_8h_2023.parquet",
        columns=["ts_ms", "funding_rate"],
        filters=[("exchange", "==", venue), ("pair", "==", f"{base}USDT"), ("contract", "==", "perpetual")],
    ).sort_by("ts_ms")
    return history_of(table["ts_ms"].to_numpy() * 1_000_000, table["funding_rate"].to_numpy(), np.full(table.num_rows, 8.0))


@pytest.mark.shared
def test_binance_equals_the_second_source_in_every_row(shared: Path) -> None:
    equal = compared = 0
    for base in ("BTC", "ETH"):
        _, raw = raw_of(shared, base, "binance")
        source = second_source(shared, base, "binance")
        found = find_clock(raw, SETTLEMENT_GRIDS["binanceusdm"], second_source=source)
        assert found.offset_h == 3
        assert found.candidates == (-5, 3, 11)
        frac, n = match_frac(to_history(raw, found.offset_h), source)
        equal, compared = equal + round(frac * n), compared + n
    assert (equal, compared) == (2190, 2190)


@pytest.mark.shared
@pytest.mark.parametrize(("venue", "offset"), [("binance", 3), ("bybit", 3)])
def test_a_wrong_clock_is_seen(shared: Path, venue: str, offset: int) -> None:
    _, raw = raw_of(shared, "BTC", venue)
    source = second_source(shared, "BTC", venue)
    assert match_frac(to_history(raw, offset), source)[0] == 1.0
    for wrong in (offset - 8, offset + 8):
        assert match_frac(to_history(raw, wrong), source)[0] < 0.5


@pytest.mark.shared
@pytest.mark.parametrize(
    ("venue", "offset", "interval", "gaps", "missing", "largest", "irregular"),
    [
        ("binance", 3, 8.0, 0, 0, 0.0, 0),
        ("bybit", 3, 8.0, 0, 0, 0.0, 0),
        ("kucoin", 3, 8.0, 0, 0, 0.0, 0),
        ("mexc", 3, 8.0, 0, 0, 0.0, 0),
        ("htx", 3, 8.0, 1, 2, 24.0, 14),
        ("gate", 0, 8.0, 1, 93, 752.0, 0),
        ("dydx", 0, 1.0, 0, 0, 0.0, 0),
    ],
)
def test_what_is_in_the_files(
    shared: Path, venue: str, offset: int, interval: float, gaps: int, missing: int, largest: float, irregular: int
) -> None:
    for base in ("BTC", "ETH"):
        instrument, raw = raw_of(shared, base, venue)
        history = to_history(raw, find_clock(raw, SETTLEMENT_GRIDS[instrument.venue], told_h=offset).offset_h)
        assert set(history.intervals_h) == {interval}
        assert (history.gaps, history.missing, history.largest_gap_h, history.irregular) == (gaps, missing, largest, irregular)
        if venue in ("gate", "binance"):  # a clock wrongly taken for the other kind is refused by the grid
            with pytest.raises(DataError, match="do not lie on the venue's grid"):
                find_clock(raw, SETTLEMENT_GRIDS[instrument.venue], told_h=3 - offset)
