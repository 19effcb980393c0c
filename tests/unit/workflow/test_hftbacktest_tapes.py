"""Tapes of hftbacktest into the lake and out: days, what is there already, files, the whole way round."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mm_platform.cli import app
from mm_platform.config import Settings, load_settings
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import NS_PER_MS, NS_PER_S, day_start_ns
from mm_platform.decode.hftbacktest import EVENT
from mm_platform.lake.store import Lake, Partition
from mm_platform.workflow.hftbacktest_tapes import export_tape, import_tapes
from mm_platform.workflow.ingest import ingest
from mm_platform.workflow.partition_sink import stored_book, stored_quality
from mm_platform.workflow.tapes import load_tape

BTC = "binanceusdm:BTC-USDT-PERP"
DAY, NEXT = date(2024, 3, 5), date(2024, 3, 6)
BOTH, BUY, SELL = 3 << 30, 1 << 29, 1 << 28
MIDNIGHT = day_start_ns(NEXT)


def market(begin_ns: int, seconds: int, *, seed: int = 1, snapshot: bool = True, latency_ms: int = 40) -> np.ndarray[Any, Any]:
    """A quote that walks, ten updates a second, each with a trade before it; feed latency up to `latency_ms`."""
    rng = np.random.default_rng(seed)
    n = seconds * 10
    at = begin_ns + np.arange(n) * (NS_PER_S // 10)
    rows = np.zeros(2 * n, dtype=EVENT)
    rows["exch_ts"] = np.repeat(at, 2)
    rows["local_ts"] = np.repeat(np.maximum.accumulate(at + rng.integers(1, latency_ms, n) * NS_PER_MS), 2)
    side = np.repeat(rng.choice([1, -1], n), 2)
    level = np.where(side > 0, 650_000 - rng.integers(0, 5, 2 * n), 650_001 + rng.integers(0, 5, 2 * n))
    rows["px"] = level / 10
    rows["qty"] = rng.integers(1, 9_000, 2 * n) / 1000
    rows["ev"][0::2] = 2 | BOTH | np.where(side[0::2] > 0, SELL, BUY)
    rows["ev"][1::2] = 1 | BOTH | np.where(side[1::2] > 0, BUY, SELL)
    if snapshot:
        rows["ev"][0] = 3 | BOTH
        rows["px"][0] = np.nan
    return rows


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return load_settings(None, {"instrument": BTC, "lake": tmp_path / "lake"})


def other(settings: Settings, name: str) -> Settings:
    return load_settings(None, {"instrument": BTC, "lake": settings.lake.parent / name})


def put(folder: Path, name: str, rows: np.ndarray[Any, Any], **arrays: Any) -> Path:
    path = folder / name
    if path.suffix == ".npz":
        np.savez_compressed(path, **(arrays or {"data": rows}))
    else:
        np.save(path, rows)
    return path


def shas(settings: Settings) -> dict[date, str]:
    lake = Lake(settings.lake)
    return {p.date: stored_quality(lake, p).tape_sha256 for p in lake.complete_partitions(InstrumentId.parse(BTC))}


def test_days_around_midnight(settings: Settings, tmp_path: Path) -> None:
    rows = market(MIDNIGHT - 30 * NS_PER_S, 60)
    result = import_tapes(settings, [put(tmp_path, "a.npy", rows)])
    assert [(p.date, p.verdict, p.chained) for p in result.partitions] == [(DAY, "ok", False), (NEXT, "ok", True)]
    assert result.rows == len(rows)
    assert result.warnings == ()
    lake, instrument = Lake(settings.lake), InstrumentId.parse(BTC)
    # a row belongs to the day on which it was seen
    before = rows["local_ts"] < MIDNIGHT
    assert [p.rows for p in result.partitions] == [before.sum(), (~before).sum()]
    tape = load_tape(lake, instrument)
    np.testing.assert_array_equal(tape.local_ts, rows["local_ts"])
    np.testing.assert_array_equal(tape.price_ticks[1:], np.rint(rows["px"][1:] * 10))
    # the second day begins with the book that the first one ended with
    first = stored_book(lake, Partition.of(instrument, DAY))
    np.testing.assert_array_equal(load_tape(lake, instrument, [NEXT]).initial_book.bid_ticks, first.bid_ticks)
    assert len(first.bid_ticks) > 0


def test_files_of_one_feed_equal_one_file(settings: Settings, tmp_path: Path) -> None:
    rows = market(MIDNIGHT - 30 * NS_PER_S, 60)
    import_tapes(settings, [put(tmp_path, "whole.npy", rows)])
    # an archive and a plain file, in the wrong order
    apart = other(settings, "apart")
    import_tapes(apart, [put(tmp_path, "b.npy", rows[500:]), put(tmp_path, "a.npz", rows[:500])])
    assert shas(apart) == shas(settings)
    with pytest.raises(DataError, match=r"b\.npy begins at exch_ts .* before whole\.npy ends"):
        import_tapes(other(settings, "third"), [tmp_path / "whole.npy", tmp_path / "b.npy"])


def test_what_is_there_already(settings: Settings, tmp_path: Path) -> None:
    path = put(tmp_path, "a.npy", market(MIDNIGHT, 10))
    first = import_tapes(settings, [path])
    assert import_tapes(settings, [path]).rows == first.rows
    with pytest.raises(DataError, match=r"2024-03-06 refused: the lake has it already, from a\.npy"):
        import_tapes(settings, [put(tmp_path, "b.npy", market(MIDNIGHT + 20 * NS_PER_S, 10))])


def test_refused_file_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    rows = market(MIDNIGHT - 30 * NS_PER_S, 60)
    rows["px"][-1] += 0.03
    with pytest.raises(DataError, match=r"a\.npy: row 1199 .*off the tick"):
        import_tapes(settings, [put(tmp_path, "a.npy", rows)])
    assert not settings.lake.exists() or not Lake(settings.lake).partitions("tape")


def test_crossed_book_is_refused(settings: Settings, tmp_path: Path) -> None:
    rows = market(MIDNIGHT, 10)
    bids = np.flatnonzero((rows["ev"] & 0xFF == 1) & (rows["ev"] & BUY != 0))
    rows["px"][bids[3:]] = 65_001.0
    with pytest.raises(DataError, match="the book was crossed after"):
        import_tapes(settings, [put(tmp_path, "a.npy", rows)])
    assert not Lake(settings.lake).partitions("tape")


def test_tape_without_snapshot_is_suspect(settings: Settings, tmp_path: Path) -> None:
    (quality,) = import_tapes(settings, [put(tmp_path, "a.npy", market(MIDNIGHT, 10, snapshot=False))]).partitions
    assert (quality.verdict, quality.reason) == ("suspect", "the book does not begin with a snapshot")


def test_files_that_are_no_tapes(settings: Settings, tmp_path: Path) -> None:
    rows = market(MIDNIGHT, 10)
    whole = put(tmp_path, "a.npz", rows)
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-50])
    (tmp_path / "text.npy").write_text("exch_ts,local_ts\n")
    plain = put(tmp_path, "b.npy", rows)
    (tmp_path / "cut.npy").write_bytes(plain.read_bytes()[:-50])
    put(tmp_path, "key.npz", rows, events=rows)
    for name, expected in (
        ("cut.npz", "truncated or damaged"),
        ("cut.npy", "truncated or damaged"),
        ("text.npy", r"neither \.npy nor \.npz"),
        ("key.npz", "holds events; expected the key data"),
        ("absent.npy", "no such file"),
    ):
        with pytest.raises(DataError, match=expected):
            import_tapes(settings, [tmp_path / name])
    with pytest.raises(ConfigError, match="no files given"):
        import_tapes(settings, [])


def test_stated_grid(settings: Settings, tmp_path: Path) -> None:
    rows = market(MIDNIGHT, 10)
    path = put(tmp_path, "a.npy", rows)
    unknown = load_settings(None, {"instrument": "someplace:AAA-BBB", "lake": settings.lake})
    with pytest.raises(DataError, match="are not known"):
        import_tapes(unknown, [path])
    result = import_tapes(unknown, [path], tick_size="0.1", lot_size="0.001")
    assert [p.tick_size for p in result.partitions] == ["0.1"]
    assert "stored as spot without fees" in result.warnings[0]
    with pytest.raises(DataError, match=r"off the tick of 0\.5"):
        import_tapes(settings, [path], tick_size="0.5")
    import_tapes(settings, [path], tick_size="0.05")
    assert load_tape(Lake(settings.lake), InstrumentId.parse(BTC)).spec.maker_fee == 0.0002


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_round_trip(settings: Settings, tmp_path: Path, suffix: str) -> None:
    import_tapes(settings, [put(tmp_path, "a.npy", market(MIDNIGHT - 30 * NS_PER_S, 60, latency_ms=400))])
    out = tmp_path / f"out{suffix}"
    result = export_tape(settings, out)
    assert (result.events, result.dates) == (1200, (DAY, NEXT))
    rows = np.load(out)["data"] if suffix == ".npz" else np.load(out)
    assert (rows.dtype, len(rows)) == (EVENT, result.rows)
    back = other(settings, "back")
    import_tapes(back, [out])
    assert shas(back) == shas(settings)
    assert result.tape_sha256 == tuple(shas(settings).values())
    # a day in the middle of a feed begins with the book it began with
    second = export_tape(settings, out, NEXT, NEXT)
    assert second.events > stored_quality(Lake(settings.lake), Partition.of(InstrumentId.parse(BTC), NEXT)).rows


def test_export_refuses(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ingest data first"):
        export_tape(settings, tmp_path / "a.npy")
    import_tapes(settings, [put(tmp_path, "a.npy", market(MIDNIGHT, 10))])
    with pytest.raises(ConfigError, match=r"ends in \.csv"):
        export_tape(settings, tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="there is no folder"):
        export_tape(settings, tmp_path / "absent" / "a.npy")
    with pytest.raises(DataError, match="no complete data on 2024-03-05"):
        export_tape(settings, tmp_path / "b.npy", DAY)
    import_tapes(settings, [put(tmp_path, "c.npy", market(MIDNIGHT + 3 * 86_400 * NS_PER_S, 10))])
    with pytest.raises(DataError, match="2024-03-06 is followed by 2024-03-09"):
        export_tape(settings, tmp_path / "b.npy")
    assert not (tmp_path / "b.npy").exists()


@pytest.mark.shared
def test_recorded_days_go_round(settings: Settings, tmp_path: Path, shared: Path) -> None:
    """Streams that overtake each other, marks, funding, best quotes, a clock that was repaired: all come back."""
    ingest(Lake.open(settings.lake), sorted((shared / "data/binance_ws/usdm").glob("btcusdt_2023040[45].dat.gz")), None)
    result = export_tape(settings, tmp_path / "out.npz")
    assert result.rows > result.events
    back = other(settings, "back")
    quality = import_tapes(back, [tmp_path / "out.npz"]).partitions
    assert shas(back) == shas(settings)
    assert all(p.clock_repaired for p in quality)


def test_verbs(settings: Settings, tmp_path: Path) -> None:
    path = put(tmp_path, "a.npy", market(MIDNIGHT, 10))
    at = ["--instrument", BTC, "--lake", str(settings.lake), "--json"]
    runner = CliRunner()
    got = runner.invoke(app, ["import-hftbacktest", str(path), *at])
    assert got.exit_code == 0, got.output
    assert [p["rows"] for p in json.loads(got.stdout)["partitions"]] == [200]
    got = runner.invoke(app, ["export-hftbacktest", str(tmp_path / "b.npy"), "--from", "2024-03-06", "--to", "2024-03-06", *at])
    assert got.exit_code == 0, got.output
    assert json.loads(got.stdout)["events"] == 200
    got = runner.invoke(app, ["import-hftbacktest", str(tmp_path / "b.npy"), *at])
    assert got.exit_code == 2
    assert json.loads(got.stdout)["error"]["kind"] == "DataError"
