"""SQL over the lake: what views show and hide, the plan trap, readers beside writers, and the guard on `query`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest

from mm_platform import lake as lake_package
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import day_start_ns
from mm_platform.lake.catalog import build_catalog, connect, query
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Lake, Partition

from .rows import BTC, DAY, ETH, GRID, NEXT_DAY, RUN, rows_of, write_day

WRITING = Path(__file__).with_name("writing.py")


@pytest.fixture
def lake(tmp_path):
    return Lake.open(tmp_path / "it's a lake")  # a quote in the path must not end a string


@pytest.mark.parametrize("opened", ["connection", "catalog file"])
@pytest.mark.parametrize("filled", [False, True])
def test_schema_files_are_never_seen(lake, opened, filled):
    if filled:
        write_day(lake, ETH, DAY, 3)
        write_day(lake, BTC, DAY, 3)
        for table in TABLES:
            if not lake.partitions(table):
                lake.write(table, Partition.of(BTC, DAY), rows_of(TABLES[table], DAY, 3), GRID, run=RUN if TABLES[table].by_run else "")
    con = connect(lake.root) if opened == "connection" else duckdb.connect(str(build_catalog(lake.root)), read_only=True)
    for table in TABLES:
        venues, last, rows = con.sql(f"SELECT list_sort(list(DISTINCT venue)), max(date), count(*) FROM {table}").fetchall()[0]
        if not filled:
            assert (venues, last, rows) == (None, None, 0)
        else:
            assert venues in (["okx", "sim"], ["sim"])
            assert last == DAY
            assert con.sql(f"FROM {table} WHERE venue > 'sim' OR date > '2026-03-01' OR symbol LIKE '~%'").fetchall() == []
    con.close()


def test_columns_are_the_registrys_with_units(lake):
    con = connect(lake.root)
    for schema in TABLES.values():
        shown = dict(con.sql("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ?", params=[schema.name]).fetchall())
        assert list(shown) == ["venue", "symbol", "date", *(["ts"] if schema.ts else []), *schema.names]
        for f in schema.fields:
            assert shown[f.name] == f"{f.meaning} [{f.unit}]"
    assert con.sql("SELECT comment FROM duckdb_views() WHERE view_name = 'fits'").fetchall() == [(TABLES["fits"].meaning,)]
    con.close()


def test_ts_is_the_integer_time_in_utc(lake):
    write_day(lake, BTC, DAY, 3)
    con = connect(lake.root)
    assert con.sql("SELECT ts, exch_ts FROM trades ORDER BY ts").fetchall() == [
        (datetime(2026, 3, 1) + timedelta(milliseconds=i), day_start_ns(DAY) + i * 1_000_000)  # noqa: DTZ001 - DuckDB gives naive UTC
        for i in range(3)
    ]
    con.close()


def test_incomplete_days_are_hidden_until_their_quality_row(lake):
    partition = Partition.of(BTC, NEXT_DAY)
    write_day(lake, BTC, DAY, 5)
    con = connect(lake.root)
    for table in ("tape", "trades", "book_top", "book_state"):
        lake.write(table, partition, rows_of(TABLES[table], NEXT_DAY, 7), GRID)
        assert con.sql(f"SELECT date, count(*) FROM {table} GROUP BY date").fetchall() == [(DAY, 5)]
    lake.write("data_quality", partition, rows_of(TABLES["data_quality"], NEXT_DAY, 1))
    for table in ("tape", "trades", "book_top", "book_state"):  # a connection sees what came after it
        assert con.sql(f"SELECT date, count(*) FROM {table} GROUP BY date ORDER BY date").fetchall() == [(DAY, 5), (NEXT_DAY, 7)]
    con.close()


def _plan(con, sql):
    return con.sql(f"EXPLAIN {sql}").fetchall()[0][1]


def test_asof_joins_are_never_nested_loops(lake):
    """DuckDB believes a day behind a small first file to be small, and would compare 60,000 trades with 60,000 quotes one by one."""
    days = [date(2026, 3, 1) + timedelta(days=i) for i in range(3)]
    for day, n in zip(days, (2, 60_000, 60_000), strict=True):
        partition = Partition.of(BTC, day)
        for table in ("trades", "book_top", "data_quality"):
            rows = rows_of(TABLES[table], day, 1 if table == "data_quality" else n)
            lake.write(table, partition, rows, GRID)
    sql = """
        SELECT count(*), min(t.exch_ts - b.exch_ts), max(t.exch_ts - b.exch_ts)
        FROM (FROM trades WHERE date = '2026-03-02') t ASOF JOIN (FROM book_top WHERE date = '2026-03-02') b
        ON t.venue = b.venue AND t.symbol = b.symbol AND t.exch_ts >= b.exch_ts
    """
    con = connect(lake.root)
    assert con.sql("SELECT current_setting('asof_loop_join_threshold')").fetchall() == [(0,)]
    assert re.search("asof.join", _plan(con, sql), re.IGNORECASE)
    assert not re.search("nested|blockwise|loop", _plan(con, sql), re.IGNORECASE)
    start = time.process_time()
    assert con.sql(sql).fetchall() == [(60_000, 0, 0)]
    assert time.process_time() - start < 20, "the nested loop needs minutes, the ASOF join milliseconds"
    # the later half of the days: the first file of the glob is pruned
    later = sql.replace("date = '2026-03-02'", "date >= '2026-03-02'")
    assert not re.search("nested|blockwise|loop", _plan(con, later), re.IGNORECASE)
    assert con.sql(later).fetchall() == [(120_000, 0, 0)]
    con.close()
    # an analyst with the catalog file: the statement it advises is the one that helps
    con = duckdb.connect(str(build_catalog(lake.root)), read_only=True)
    assert re.search("nested", _plan(con, sql), re.IGNORECASE), "DuckDB no longer falls into this trap: the setting and its advice can go"
    con.execute(con.sql("SELECT value FROM meta WHERE name = 'first_statement'").fetchall()[0][0])
    assert not re.search("nested|blockwise|loop", _plan(con, sql), re.IGNORECASE)
    con.close()


def test_readers_never_see_a_torn_or_missing_day_while_it_is_replaced(lake):
    write_day(lake, BTC, DAY, 20_000, 0)
    catalog = duckdb.connect(str(build_catalog(lake.root)), read_only=True)
    con = connect(lake.root)
    writer = subprocess.Popen([sys.executable, WRITING, "loop", lake.root], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        writer.stdout.readline()
        seen: dict[str, set[int]] = {"tape": set(), "trades": set()}
        deadline = time.monotonic() + 20
        while min(map(len, seen.values())) < 5 and time.monotonic() < deadline:
            for reader in (con, catalog):
                for table, found in seen.items():
                    rows, low, high = reader.sql(f"SELECT count(*), min(qty_lots), max(qty_lots) FROM {table}").fetchall()[0]
                    assert (rows, low) == (20_000, high), "rows of two generations, or not all rows"
                    found.add(low)
        assert min(map(len, seen.values())) >= 5, f"the writer did not replace the day often enough: {seen}"
        build_catalog(lake.root)  # while both read and the writer writes
    finally:
        writer.kill()
        writer.communicate()
        con.close()
        catalog.close()


def test_catalog_file_opens_anywhere_and_says_what_it_is(lake, tmp_path, monkeypatch):
    write_day(lake, BTC, DAY, 5)
    path = build_catalog(lake.root)
    assert path == lake.root / "catalog.duckdb"
    assert not list(lake.root.glob(".catalog*"))
    monkeypatch.chdir(tmp_path)  # views hold absolute paths
    con = duckdb.connect(str(path), read_only=True)
    assert con.sql("SELECT count(*) FROM trades").fetchall() == [(5,)]
    meta = dict(con.sql("SELECT name, value FROM meta").fetchall())
    assert meta["lake"] == str(lake.root)
    write_day(lake, BTC, NEXT_DAY, 6)
    assert con.sql("SELECT count(*) FROM trades").fetchall() == [(11,)]
    other = duckdb.connect()
    other.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS lake (READ_ONLY)")
    assert other.sql("SELECT count(*) FROM lake.trades").fetchall() == [(11,)]
    other.close()
    con.close()
    assert path.read_bytes()[8:12] == b"DUCK"
    assert int.from_bytes(path.read_bytes()[12:20], "little") < 69, "DuckDB before 2.0 cannot open format 69"


def test_catalog_is_built_in_spite_of_a_dead_builders_leftover(lake):
    (lake.root / ".catalog.duckdb.tmp").write_text("half a database")
    con = duckdb.connect(str(build_catalog(lake.root)), read_only=True)
    assert con.sql("SELECT count(*) FROM trades").fetchall() == [(0,)]
    con.close()
    assert not list(lake.root.glob(".catalog*"))


def test_query_answers(lake):
    write_day(lake, BTC, DAY, 5, 2)
    result = query(lake.root, "SELECT symbol, sum(qty_lots) AS lots FROM trades GROUP BY symbol; ")
    assert result.columns == ("symbol", "lots")
    assert result.types == ("VARCHAR", "HUGEINT")
    assert result.rows == [("BTC-USDT-PERP", 10)]
    assert query(lake.root, "FROM trades", max_rows=2).rows == query(lake.root, "FROM trades").rows[:2]
    assert query(lake.root, "WITH t AS (FROM trades) SELECT count(*) FROM t").rows == [(5,)]
    assert {name for (name,) in query(lake.root, "SHOW TABLES").rows} == set(TABLES)
    assert query(lake.root, "DESCRIBE fits").rows[4][0] == "name"
    assert query(lake.root, "SUMMARIZE trades").columns[0] == "column_name"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "got nothing"),
        ("SELEC 1", "not valid SQL: Parser Error"),
        ("SELECT 1; SELECT 2", "got SELECT, SELECT"),
        ("COPY trades TO 'x.csv'", "got COPY"),
        ("CREATE TABLE t AS SELECT 1", "got CREATE"),
        ("SET threads = 1", "got SET"),
        ("EXPLAIN ANALYZE COPY trades TO 'x.csv'", "got EXPLAIN"),
        ("ATTACH 'x.duckdb'", "got ATTACH"),
        ("SELECT px FROM trades", "Referenced column"),
        ("FROM tradez", "does not exist"),
        ("FROM read_text('{file}')", "Permission Error"),
        ("FROM glob('{file}')", "Permission Error"),
    ],
)
def test_query_only_reads_the_lake(lake, tmp_path, monkeypatch, sql, message):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "secret"
    file.write_text("secret")
    before = sorted(lake.root.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        query(lake.root, sql.replace("{file}", str(file)))
    assert sorted(lake.root.rglob("*")) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [lake.root.name, "secret"]


def test_no_lake_is_said(tmp_path):
    for ask in (lambda: connect(tmp_path / "nowhere"), lambda: build_catalog(tmp_path / "nowhere"), lambda: query(tmp_path / "nowhere", "SELECT 1")):
        with pytest.raises(ConfigError, match=r"no lake at .*nowhere; ingest data first"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_settings_reach_duckdb(lake):
    con = connect(lake.root, threads=1, memory_limit="200MB")
    assert con.sql("SELECT current_setting('threads'), current_setting('memory_limit'), current_setting('TimeZone')").fetchall() == [
        (1, "190.7 MiB", "UTC")
    ]
    con.close()
    with pytest.raises(ConfigError, match="Memory must have a number"):
        connect(lake.root, memory_limit="much")


def test_readers_without_write_access(lake, monkeypatch):
    write_day(lake, BTC, DAY, 5)
    monkeypatch.setattr("mm_platform.lake.catalog.os.access", lambda path, mode: False)
    con = connect(lake.root)
    assert con.sql("SELECT count(*) FROM trades").fetchall() == [(5,)]
    con.close()
    with pytest.raises(ConfigError, match="may not write to the lake"):
        build_catalog(lake.root)
    (lake.root / ".commits" / "0123.json").write_text('{"schema":1,"renames":[]}')
    with pytest.raises(DataError, match="has a commit whose writer died and this account may not write there"):
        connect(lake.root)


def test_the_package_is_the_way_in(lake):
    assert (lake_package.connect, lake_package.build_catalog, lake_package.query) == (connect, build_catalog, query)
    with pytest.raises(AttributeError):
        _ = lake_package.nothing


def test_nulls_and_nan_are_null_for_analysts(lake):
    rows = rows_of(TABLES["tape"], DAY, 3)
    rows["value"] = np.array([1.0, np.nan, 3.0])
    write_day(lake, BTC, DAY, 3)
    lake.write("tape", Partition.of(BTC, DAY), rows, GRID)
    assert query(lake.root, "SELECT avg(value), count(value) FROM tape").rows == [(2.0, 2)]
