"""Market data as the settings say: one instrument's days for the scheduler, and what is at hand."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from mm_platform.config import Settings, load_settings
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.lake.layout import Partition, data_path
from mm_platform.lake.store import Lake
from mm_platform.workflow.data import funding_history_files, ingest_days, instruments_at_hand, raw_files

PERP = "binanceusdm:BTC-USDT-PERP"


def settings(tmp_path: Path, **given: object) -> Settings:
    return load_settings(None, given, environ={}, cwd=tmp_path)


def test_a_simulated_day_comes_with_its_spot_market(tmp_path: Path) -> None:
    made = settings(tmp_path)
    [quality] = ingest_days(made, [date(2026, 1, 5)])
    assert (quality.venue, quality.symbol, quality.date, quality.verdict) == ("sim", "BTC-USDT-PERP", date(2026, 1, 5), "ok")
    assert instruments_at_hand(made) == ["sim:BTC-USDT", "sim:BTC-USDT-PERP"]


def test_captures_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raw_dir is not set.*MM_RAW_DIR"):
        ingest_days(settings(tmp_path, instrument=PERP), [date(2024, 7, 19)])
    with pytest.raises(DataError, match="nowhere"):
        ingest_days(settings(tmp_path, instrument=PERP, raw_dir="nowhere"), [date(2024, 7, 19)])


def test_a_folder_without_a_capture_of_the_instrument_says_so(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").write_text("nothing to decode here\n")
    with pytest.raises(DataError, match="none of the 1 files"):
        ingest_days(settings(tmp_path, instrument=PERP, raw_dir="raw"), [date(2024, 7, 19)])
    assert Lake(settings(tmp_path).lake).partitions("tape") == []


def test_real_days_are_read_once_and_given_in_the_order_asked(tmp_path: Path, shared: Path) -> None:
    made = settings(tmp_path, instrument=PERP, raw_dir=str(shared / "data" / "binance_ws" / "usdm"))
    days = [date(2024, 7, 19), date(2024, 7, 18)]
    found = ingest_days(made, days)
    assert [q.date for q in found] == days
    assert all((q.bad_lines, q.sequence_breaks, q.crossed_books, q.top_of_book_match_frac, q.verdict) == (0, 0, 0, 1.0, "ok") for q in found)
    with pytest.raises(DataError, match=r"expected 2024-07-20, the source holds days .*2024-07-18, 2024-07-19"):
        ingest_days(made, [date(2024, 7, 20)])


def test_hidden_files_are_not_read_and_funding_histories_are_told_apart(tmp_path: Path) -> None:
    for name in (".partial.gz", "a.gz", "deep/BTC-USDT_gate_2023_funding_history.csv.gz"):
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    made = settings(tmp_path, raw_dir="raw")
    assert [p.name for p in raw_files(made)] == ["a.gz", "BTC-USDT_gate_2023_funding_history.csv.gz"]
    assert [p.name for p in funding_history_files(made)] == ["BTC-USDT_gate_2023_funding_history.csv.gz"]
    assert funding_history_files(settings(tmp_path)) == []


def test_at_hand_is_what_is_configured_or_stored(tmp_path: Path) -> None:
    made = settings(tmp_path)
    assert instruments_at_hand(made) == ["sim:BTC-USDT-PERP"]
    file = data_path(made.lake, "data_quality", Partition.of(InstrumentId.parse("binance:NEXO-USDT"), date(2024, 7, 23)))
    file.parent.mkdir(parents=True)
    file.touch()
    assert instruments_at_hand(made) == ["binance:NEXO-USDT", "sim:BTC-USDT-PERP"]
