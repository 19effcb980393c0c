"""Reading, merging and refusing, partition by partition."""

from __future__ import annotations

import os
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_DAY, day_start_ns
from mm_platform.lake.columns import numpy_column
from mm_platform.lake.fields import TABLES
from mm_platform.lake.layout import schema_path
from mm_platform.lake.store import Lake, Partition

from .rows import BTC, DAY, ETH, GRID, NEXT_DAY, RUN, rows_of, write_day

PARTITION = Partition.of(BTC, DAY)


@pytest.fixture
def lake(tmp_path):
    return Lake.open(tmp_path / "lake")


@pytest.mark.parametrize("schema", TABLES.values(), ids=TABLES)
def test_every_table_comes_back_as_written(lake, schema):
    write_day(lake, BTC, DAY, 3)
    n = 1 if schema.name == "data_quality" else 50
    rows = rows_of(schema, DAY, n, 4)
    lake.write(schema.name, PARTITION, rows, GRID, run=RUN if schema.by_run else "")
    table = lake.read(schema.name, instrument=BTC, dates=[DAY])
    assert table.column_names == [*schema.names, "venue", "symbol", "date"]
    assert table.select(schema.names).cast(schema.arrow_schema).validate(full=True) is None
    for name in schema.names:
        assert table.column(name).to_pylist() == list(rows[name]), name
    assert table.select(["venue", "symbol", "date"]).to_pylist() == [{"venue": "sim", "symbol": "BTC-USDT-PERP", "date": DAY}] * n


def test_days_stand_in_the_order_asked_for(lake):
    write_day(lake, BTC, DAY, 5, 1)
    write_day(lake, BTC, NEXT_DAY, 5, 2)
    table = lake.read("trades", instrument=BTC, dates=[DAY, NEXT_DAY], columns=["qty_lots", "date"])
    assert table.column("date").to_pylist() == [DAY] * 5 + [NEXT_DAY] * 5
    assert numpy_column(table, "qty_lots").tolist() == [1] * 5 + [2] * 5
    assert lake.read("trades", instrument=BTC, dates=[DAY], columns=["date"]).num_rows == 5


def test_absent_and_incomplete_days_are_refused(lake):
    write_day(lake, BTC, DAY, 5)
    lake.write("trades", Partition.of(BTC, NEXT_DAY), rows_of(TABLES["trades"], NEXT_DAY, 5), GRID)
    assert lake.partitions("trades") == [PARTITION, Partition.of(BTC, NEXT_DAY)]
    assert lake.complete_partitions(BTC) == [PARTITION]
    with pytest.raises(DataError, match=r"no complete data on 2026-03-02; .* has 2026-03-01"):
        lake.read("trades", instrument=BTC, dates=[DAY, NEXT_DAY])
    with pytest.raises(DataError, match=r"okx:ETH-USDT has no data on 2026-03-01; .* no days of it"):
        lake.read("fits", instrument=ETH, dates=[DAY])
    with pytest.raises(ConfigError, match="no dates"):
        lake.read("trades", instrument=BTC, dates=[])
    with pytest.raises(ConfigError, match="no table 'ticks'"):
        lake.read("ticks", instrument=BTC, dates=[DAY])
    with pytest.raises(DataError, match="no column 'px'"):
        lake.read("trades", instrument=BTC, dates=[DAY], columns=["px"])


def test_facts_stored_with_a_file(lake):
    with lake.begin() as commit:
        writer = commit.writer("trades", PARTITION, GRID)
        writer.write(rows_of(TABLES["trades"], DAY, 3))
        writer.add_metadata({"content": "µ"})
        commit.commit()
    assert lake.metadata("trades", PARTITION) == GRID | {"content": "µ"}
    with pytest.raises(DataError, match="no partition sim:BTC-USDT-PERP 2026-03-02"):
        lake.metadata("trades", Partition.of(BTC, NEXT_DAY))


def test_tables_without_rows_can_be_said(lake):
    write_day(lake, BTC, DAY, 5, 1)
    lake.write("book_state", PARTITION, rows_of(TABLES["book_state"], DAY, 0), GRID)
    table = lake.read("book_state", instrument=BTC, dates=[DAY])
    assert table.num_rows == 0
    assert numpy_column(table, "price_ticks").dtype == np.int64


@pytest.mark.parametrize("shift_ns", [-1, NS_PER_DAY])
def test_rows_of_another_day_are_refused(lake, shift_ns):
    rows = rows_of(TABLES["trades"], DAY, 1)
    rows["local_ts"] = np.array([day_start_ns(DAY) + shift_ns])
    with pytest.raises(DataError, match="outside the partition's UTC day"):
        lake.write("trades", PARTITION, rows, GRID)
    assert lake.partitions("trades") == []


@pytest.mark.parametrize(
    ("venue", "symbol"),
    [("..", "BTC-USDT"), ("sim", "../../x"), ("sim/x", "BTC-USDT"), ("", "BTC-USDT"), ("sim", "BTC-USDT\n"), ("~schema", "~schema")],
)
def test_only_instruments_become_folders(venue, symbol):
    with pytest.raises(ConfigError, match="instrument id"):
        Partition(venue, symbol, DAY)


def test_partition_days_are_days():
    with pytest.raises(ConfigError, match=r"must be a datetime\.date"):
        Partition("sim", "BTC-USDT", datetime(2026, 3, 1))  # noqa: DTZ001 - the point is the wrong type
    assert Partition.at(BTC, day_start_ns(NEXT_DAY) - 1) == PARTITION
    assert Partition.at(BTC, day_start_ns(NEXT_DAY)) == Partition.of(BTC, NEXT_DAY)


def test_foreign_folders_are_named(lake):
    folder = lake.path("fits", PARTITION).parent.with_name("date=2026-02-30")
    folder.mkdir(parents=True)
    assert lake.partitions("fits") == []  # nothing in it yet
    (folder / "part-0.parquet").touch()
    with pytest.raises(DataError, match=r"date=2026-02-30: not a partition"):
        lake.partitions("fits")


def _fills(ids, generation=0):
    rows = rows_of(TABLES["live_fills"], DAY, len(ids), generation)
    return rows | {"run_id": ["r"] * len(ids), "client_id": ["c"] * len(ids), "trade_id": list(ids)}


def test_upsert_replaces_by_key_and_adds(lake):
    lake.upsert("live_fills", PARTITION, _fills("db", 1), metadata=GRID)
    lake.upsert("live_fills", PARTITION, _fills("abe", 2))
    table = lake.read("live_fills", instrument=BTC, dates=[DAY])
    assert table.select(["trade_id", "qty"]).to_pylist() == [{"trade_id": t, "qty": q} for t, q in (("a", 2.0), ("b", 2.0), ("d", 1.0), ("e", 2.0))]
    assert lake.metadata("live_fills", PARTITION) == GRID
    lake.upsert("live_fills", PARTITION, _fills("z", 3), key=("run_id",))
    assert lake.read("live_fills", instrument=BTC, dates=[DAY], columns=["trade_id"]).column(0).to_pylist() == ["z"]


def test_upsert_refuses_what_it_cannot_merge(lake):
    lake.upsert("live_fills", PARTITION, _fills("ab", 1), metadata=GRID)
    with pytest.raises(DataError, match=r"1 of the new rows repeat a key \(run_id, client_id, trade_id\)"):
        lake.upsert("live_fills", PARTITION, _fills("cc"))
    with pytest.raises(DataError, match=r"count in tick_size 0\.1, the new ones in 0\.5"):
        lake.upsert("live_fills", PARTITION, _fills("c"), metadata={"tick_size": "0.5"})
    with pytest.raises(DataError, match="key column mid has nulls"):
        lake.upsert("live_fills", PARTITION, _fills("c") | {"mid": [None]}, key=("mid",))
    assert lake.read("live_fills", instrument=BTC, dates=[DAY], columns=["trade_id"]).column(0).to_pylist() == ["a", "b"]


def test_upserts_of_many_threads_all_arrive(lake):
    from concurrent.futures import ThreadPoolExecutor

    def add(i):
        (lake if i % 2 else Lake(lake.root)).upsert("live_fills", PARTITION, _fills([str(i)]), metadata=GRID)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert set(lake.read("live_fills", instrument=BTC, dates=[DAY], columns=["trade_id"]).column(0).to_pylist()) == {str(i) for i in range(12)}


def test_making_the_object_touches_nothing(tmp_path):
    Lake(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; a lake is a folder"):
        Lake.open(tmp_path / "file")


def test_opening_twice_changes_nothing(lake):
    write_day(lake, BTC, DAY, 5)
    before = {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")}
    Lake.open(lake.root)
    assert {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")} == before


def test_a_lake_of_other_columns_is_refused_once_it_holds_rows(lake):
    old = pa.schema([pa.field("value", pa.float64())])
    pq.write_table(old.empty_table(), schema_path(lake.root, "fits"))
    Lake.open(lake.root)  # no rows yet: the schema file is simply written anew
    lake.write("fits", PARTITION, rows_of(TABLES["fits"], DAY, 1))
    pq.write_table(old.empty_table(), schema_path(lake.root, "fits"))
    with pytest.raises(DataError, match=r"table fits of the lake .* was written with other columns"):
        Lake.open(lake.root)


def test_a_file_of_other_columns_is_refused(lake):
    lake.write("fits", PARTITION, rows_of(TABLES["fits"], DAY, 1))
    pq.write_table(pa.table({"value": [1.0]}), lake.path("fits", PARTITION))
    with pytest.raises(DataError, match=r"part-0\.parquet: columns are value double; the registry says name string"):
        lake.read("fits", instrument=BTC, dates=[DAY])


def test_dates_before_1970_and_far_away(lake):
    for day in (date(1969, 12, 31), date(2100, 1, 1)):
        lake.write("fits", Partition.of(BTC, day), rows_of(TABLES["fits"], day, 1))
        assert lake.read("fits", instrument=BTC, dates=[day]).column("date").to_pylist() == [day]


def test_runs_lie_side_by_side_and_each_replaces_only_itself(lake):
    other = "fedcba9876543210"
    with lake.begin() as first, lake.begin() as second:  # no run waits for another's lock
        first.write("replay_orders", PARTITION, rows_of(TABLES["replay_orders"], DAY, 3, 1), GRID, run=RUN)
        second.write("replay_orders", PARTITION, rows_of(TABLES["replay_orders"], DAY, 4, 2), GRID, run=other)
        second.commit()
        first.commit()
    read = lake.read("replay_orders", instrument=BTC, dates=[DAY], columns=["qty_lots"])
    assert numpy_column(read, "qty_lots").tolist() == [1] * 3 + [2] * 4
    assert lake.metadata("replay_orders", PARTITION, other)["tick_size"] == "0.1"
    lake.write("replay_orders", PARTITION, rows_of(TABLES["replay_orders"], DAY, 2, 3), GRID, run=RUN)
    read = lake.read("replay_orders", instrument=BTC, dates=[DAY], columns=["qty_lots"])
    assert numpy_column(read, "qty_lots").tolist() == [3] * 2 + [2] * 4


@pytest.mark.parametrize(
    ("table", "run", "message"),
    [
        ("replay_fills", "", "holds one file per run: name the run"),
        ("trades", RUN, "is not divided by run"),
        ("replay_fills", "../../escape", "run id '../../escape' is not 8 to 64 hexadecimal digits"),
    ],
)
def test_a_run_is_named_where_and_only_where_the_table_has_runs(lake, table, run, message):
    with lake.begin() as commit, pytest.raises(ConfigError, match=message):
        commit.writer(table, PARTITION, GRID, run=run)


def test_a_run_whose_writer_died_leaves_nothing(lake):
    commit = lake.begin()
    writer = commit.writer("replay_fills", PARTITION, GRID, run=RUN)
    temporary = writer.temporary
    assert temporary.exists()
    os.close(commit._open_fd)  # as the kernel does for a process that dies
    Lake.open(lake.root)
    assert not temporary.exists()
    assert lake.partitions("replay_fills") == []
