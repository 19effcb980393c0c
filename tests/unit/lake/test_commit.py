"""A commit happens or does not, whatever kills its writer, and whoever looks next sees one or the other."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.lake.catalog import connect
from mm_platform.lake.commit import recorded, recover
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Lake, LakeBusy, Partition

from .rows import BTC, DAY, ETH, GRID, NEXT_DAY, generations, rows_of, write_day

WRITING = Path(__file__).with_name("writing.py")
KILLS = int(os.environ.get("MM_TEST_KILLS", "5"))
PARTITION = Partition.of(BTC, DAY)


def leftovers(root: Path) -> list[Path]:
    return [*root.rglob("*.tmp"), *(root / ".commits").iterdir()]


@pytest.fixture
def lake(tmp_path):
    return Lake.open(tmp_path / "lake")


def test_dying_before_any_step_leaves_old_or_new(lake, tmp_path):
    steps: list[str] = []
    write_day(lake, BTC, DAY, 10, 0, step=steps.append)
    assert steps[-8:] == ["record", *(f"rename {t}" for t in ("book_state", "book_top", "tape", "trades", "data_quality")), "remove record", "close"]
    subprocess.run([sys.executable, WRITING, "die", tmp_path / "dying", *steps], check=True)
    for number, step in enumerate(steps):
        root = tmp_path / "dying" / str(number)
        assert leftovers(root), f"nothing was under way at step {step}"
        happened = number > steps.index("record")
        if number % 2:  # either way of opening repairs
            connect(root).close()
        opened = Lake.open(root)
        assert generations(opened, BTC, DAY) == {2 if happened else 1}, step
        assert leftovers(root) == [], step
        write_day(opened, BTC, DAY, 100, 3)
        assert generations(opened, BTC, DAY) == {3}


def test_files_can_be_read_before_anyone_repairs(lake, tmp_path):
    subprocess.run([sys.executable, WRITING, "die", tmp_path / "dying", "rename tape"], check=True)
    root = tmp_path / "dying" / "0"
    con = connect(lake.root)  # another lake: this one stays unrepaired
    files = f"read_parquet('{root}/tape/*/*/*/part-*.parquet')"
    assert con.sql(f"SELECT count(*), min(qty_lots), max(qty_lots) FROM {files}").fetchall() == [(100, 1, 1)]
    con.close()


def test_killed_at_random_instants(tmp_path):
    root = tmp_path / "lake"
    rng = random.Random(2026)
    last = 0
    for _ in range(KILLS):
        writer = subprocess.Popen([sys.executable, WRITING, "loop", root, str(last + 1)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.3))
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in [first, *writer.stdout.read().split()] if line]
        writer.wait()
        assert said, "the writer never committed"
        lake = Lake.open(root)
        (found,) = generations(lake, BTC, DAY)
        assert found in (said[-1], said[-1] + 1), "a commit that had returned is gone, or one came from nowhere"
        assert leftovers(root) == []
        last = found


def test_a_commit_cannot_be_torn_by_many_openers(lake, tmp_path):
    subprocess.run([sys.executable, WRITING, "die", tmp_path / "dying", "rename book_state"], check=True)
    root = tmp_path / "dying" / "0"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(recover, [root] * 16))
    assert generations(Lake(root), BTC, DAY) == {2}
    assert leftovers(root) == []


def test_a_dead_writers_record_is_finished_before_the_next_commit(lake, tmp_path):
    """The next writer must not be overwritten later by what the dead one had recorded."""
    subprocess.run([sys.executable, WRITING, "die", tmp_path / "dying", "rename trades"], check=True)
    lake = Lake(tmp_path / "dying" / "0")  # not opened: nothing repaired yet
    assert len(recorded(lake.root)) == 1
    write_day(lake, BTC, DAY, 10, 7)
    assert recorded(lake.root) == []
    Lake.open(lake.root)
    assert generations(lake, BTC, DAY) == {7}


def test_live_writers_temporaries_are_left_alone(lake):
    with lake.begin() as commit:
        writer = commit.writer("trades", PARTITION, GRID)
        writer.write(rows_of(TABLES["trades"], DAY, 10, 5))
        Lake.open(lake.root)
        assert writer.temporary.exists()
        commit.commit()
    assert lake.partitions("trades") == [PARTITION]


def test_leaving_without_commit_discards(lake):
    write_day(lake, BTC, DAY, 10, 1)
    with lake.begin() as commit:
        commit.write("trades", PARTITION, rows_of(TABLES["trades"], DAY, 10, 2), GRID)

    def fail_midway():
        with lake.begin() as commit:
            commit.write("trades", PARTITION, rows_of(TABLES["trades"], DAY, 10, 2), GRID)
            raise KeyError("the caller's own mistake")

    with pytest.raises(KeyError):
        fail_midway()
    assert generations(lake, BTC, DAY) == {1}
    assert leftovers(lake.root) == []


@pytest.mark.parametrize(
    ("table", "rows", "metadata", "message"),
    [
        ("tape", 10, {"tick_size": "0.1"}, "must say lot_size"),
        ("data_quality", 2, {}, "exactly one row, got 2"),
        ("data_quality", 0, {}, "exactly one row, got 0"),
    ],
)
def test_a_file_unfit_to_be_seen_stops_the_whole_commit(lake, table, rows, metadata, message):
    def write():
        with lake.begin() as commit:
            commit.write("trades", PARTITION, rows_of(TABLES["trades"], DAY, 10, 2), GRID)
            commit.write(table, PARTITION, rows_of(TABLES[table], DAY, rows, 2), metadata)
            commit.commit()

    write_day(lake, BTC, DAY, 10, 1)
    with pytest.raises(DataError, match=message):
        write()
    assert generations(lake, BTC, DAY) == {1}
    assert leftovers(lake.root) == []


def test_a_full_disk_leaves_nothing_behind(lake, monkeypatch):
    def write():
        with lake.begin() as commit:
            for table in ("trades", "book_top"):
                writer = commit.writer(table, PARTITION, GRID)
                writer.write(rows_of(TABLES[table], DAY, 10, 2))
                monkeypatch.setattr(writer._parquet, "close", no_space)
            commit.commit()

    def no_space():
        raise OSError(errno.ENOSPC, "No space left on device")

    write_day(lake, BTC, DAY, 10, 1)
    with pytest.raises(OSError, match="No space left"):
        write()
    assert generations(lake, BTC, DAY) == {1}
    assert leftovers(lake.root) == []
    with Lake(lake.root).lock(BTC):  # the instrument is free
        pass


def test_a_commit_is_used_once(lake):
    with lake.begin() as commit:
        commit.write("fits", PARTITION, rows_of(TABLES["fits"], DAY, 1))
        with pytest.raises(ConfigError, match="already written in this commit"):
            commit.writer("fits", PARTITION)
        commit.commit()
        with pytest.raises(ConfigError, match="begin another"):
            commit.writer("fits", Partition.of(BTC, NEXT_DAY))
        with pytest.raises(ConfigError, match="begin another"):
            commit.commit()
    assert lake.partitions("fits") == [PARTITION]


def test_second_writer_of_an_instrument_is_told_who_writes(lake):
    other = Lake.open(lake.root)
    with lake.lock(BTC):
        write_day(lake, BTC, DAY, 10, 1)  # the holder itself goes on
        with pytest.raises(LakeBusy, match=rf"sim:BTC-USDT-PERP .* is being written by process {os.getpid()}"):
            write_day(other, BTC, NEXT_DAY, 10, 1)
        with pytest.raises(LakeBusy), other.lock(BTC):
            pass
        write_day(other, ETH, DAY, 10, 1)  # another instrument
        other.upsert("live_fills", PARTITION, rows_of(TABLES["live_fills"], DAY, 1), metadata=GRID)  # results are not market data
    write_day(other, BTC, NEXT_DAY, 10, 1)
    assert lake.complete_partitions(BTC) == [PARTITION, Partition.of(BTC, NEXT_DAY)]
    assert leftovers(lake.root) == []


def test_an_open_commit_holds_its_instrument(lake):
    other = Lake.open(lake.root)
    with lake.begin() as commit:
        commit.write("trades", PARTITION, rows_of(TABLES["trades"], DAY, 1), GRID)
        with pytest.raises(LakeBusy):
            write_day(other, BTC, DAY, 10)
    write_day(other, BTC, DAY, 10)


def test_lock_of_a_killed_writer_is_free(lake):
    holder = subprocess.Popen([sys.executable, WRITING, "hold", lake.root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LakeBusy, match=f"by process {holder.pid} "), lake.lock(BTC):
        pass
    with pytest.raises(LakeBusy, match=r"waited 0\.1 s"), lake.lock(BTC, wait_s=0.1):
        pass
    holder.kill()
    holder.communicate()
    with lake.lock(BTC):
        pass


def test_unreadable_record_is_not_thrown_away(lake):
    record = lake.root / ".commits" / "0123.json"
    record.write_text("{")
    with pytest.raises(DataError, match=r"0123\.json cannot be read"):
        Lake.open(lake.root)
    record.write_text('{"schema":2,"renames":[]}')
    with pytest.raises(DataError, match="has schema 2, this version reads 1"):
        Lake.open(lake.root)
    assert record.exists()


def test_same_rows_same_bytes(lake):
    """Nothing random or dated enters a file: equal data has equal checksums."""
    write_day(lake, BTC, DAY, 1000, 1)
    before = lake.path("tape", PARTITION).read_bytes()
    write_day(lake, BTC, DAY, 1000, 1)
    assert lake.path("tape", PARTITION).read_bytes() == before


def test_row_groups_are_bounded_and_rows_in_order(lake):
    rows = rows_of(TABLES["trades"], DAY, 300_000)
    with lake.begin() as commit:
        writer = commit.writer("trades", PARTITION)
        for start in range(0, 300_000, 7_001):
            writer.write({name: values[start : start + 7_001] for name, values in rows.items()})
        writer.add_metadata(GRID)
        commit.commit()
    file = pq.ParquetFile(lake.path("trades", PARTITION))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [131_072, 131_072, 300_000 - 2 * 131_072]
    assert file.read(columns=["trade_id"]).column(0).to_pylist() == list(range(300_000))


def test_flock_is_what_keeps_the_commit_alive(lake):
    with lake.begin():
        (note,) = (lake.root / ".commits").glob("*.open")
        with note.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
