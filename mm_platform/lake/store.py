"""The lake: Parquet tables by venue, symbol and UTC day.

Belongs here: opening a lake, reading partitions, beginning commits, merging rows by key. Does not belong here: SQL (`catalog`), the
meaning of columns (`fields`), or what a step of the loop writes (`workflow`). Imports neither DuckDB nor pandas: the live runner writes
its fills through here.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.lake.columns import Columns, constant_column, mask_column, table_of
from mm_platform.lake.commit import Commit, no_step, recover
from mm_platform.lake.fields import PARTITION_FIELDS, TABLES, TableSchema, table_schema
from mm_platform.lake.layout import (
    COMMITS,
    LOCKS,
    Partition,
    data_path,
    data_paths,
    list_partitions,
    make_folder,
    schema_path,
    sync_file,
    sync_folder,
)
from mm_platform.lake.locks import LakeBusy, WriterLock
from mm_platform.lake.writer import GRID_KEYS, TableWriter, parquet_options, read_metadata

__all__ = ["Commit", "Lake", "LakeBusy", "Partition", "TableWriter"]

MARKET_DATA: Final = "market_data"
SHORT_WAIT_S: Final = 30.0
_EPOCH: Final = date(1970, 1, 1)


class Lake:
    """A folder of Parquet tables. Making the object touches no disk; `open` prepares the folder for reading and writing.

    One object serves one writer: locks are shared among the commits of one object, so that a long ingest can hold its instrument over
    many commits. Threads that write independently of each other each open their own.

    Parameters
    ----------
    root : Path
        The lake's folder, on a local file system.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._mutex = threading.RLock()
        self._locks: dict[str, tuple[WriterLock, int]] = {}

    @classmethod
    def open(cls, root: Path) -> Lake:
        """Create what is missing, finish commits whose writer died, remove leftovers of writers that died before they committed.

        Raises
        ------
        ConfigError
            The path is a file.
        DataError
            The lake holds partitions with other columns than this version's registry, or a commit record that cannot be read.
        """
        lake = cls(root)
        if lake.root.exists() and not lake.root.is_dir():
            raise ConfigError(f"{lake.root} is a file; a lake is a folder (created when absent)")
        for folder in (lake.root, lake.root / COMMITS, lake.root / LOCKS):
            make_folder(folder)
        recover(lake.root)
        for schema in TABLES.values():
            lake._write_schema_file(schema)
        return lake

    # -- reading -----------------------------------------------------------------------------------
    def partitions(self, table: str) -> list[Partition]:
        """Partitions of a table that have a file, complete or not, sorted."""
        return list_partitions(self.root, table_schema(table).name)

    def complete_partitions(self, instrument: InstrumentId) -> list[Partition]:
        """Days of an instrument's market data that were ingested to the end (those with a quality row), sorted."""
        return [p for p in self.partitions("data_quality") if p.instrument == instrument]

    def path(self, table: str, partition: Partition, run: str = "") -> Path:
        """The file of one partition (of one run, for tables by run), whether or not it exists."""
        return data_path(self.root, table_schema(table).name, partition, run)

    def read(self, table: str, *, instrument: InstrumentId, dates: Sequence[date], columns: Sequence[str] | None = None) -> Any:
        """Rows of one instrument over some days, in the order of `dates`, each day as written (tables by run: run after run).

        Parameters
        ----------
        table : str
        instrument : InstrumentId
        dates : sequence of date
            UTC days; at least one.
        columns : sequence of str, optional
            Columns wanted, among them `venue`, `symbol`, `date`; default all.

        Returns
        -------
        pyarrow.Table
            The registry's columns, then `venue`, `symbol`, `date` (dictionary-encoded: constant within a day).

        Raises
        ------
        DataError
            A day is absent (or, for market data, not complete), an unknown column, or a file that is not what the registry says.
        ConfigError
            Unknown table; no dates.
        """
        schema = table_schema(table)
        if not dates:
            raise ConfigError(f"table {table}, {instrument}: no dates asked for")
        wanted = list(columns) if columns is not None else [*schema.names, *(f.name for f in PARTITION_FIELDS)]
        stored = [name for name in wanted if name not in {f.name for f in PARTITION_FIELDS}]
        for name in stored:
            schema.field(name)
        partitions = [Partition.of(instrument, day) for day in dates]
        marker = "data_quality" if schema.raw else table
        absent = [p for p in partitions if not (data_paths(self.root, marker, p) and data_paths(self.root, table, p))]
        if absent:
            there = [p.date.isoformat() for p in self.partitions(marker) if p.instrument == instrument]
            raise DataError(
                f"table {table}: {instrument} has no {'complete ' if schema.raw else ''}data on {', '.join(p.date.isoformat() for p in absent)}; "
                f"the lake {self.root} has {', '.join(there) or 'no days of it'}"
            )
        return pa.concat_tables([self._read_one(schema, p, path, stored, wanted) for p in partitions for path in data_paths(self.root, table, p)])

    def metadata(self, table: str, partition: Partition, run: str = "") -> dict[str, str]:
        """Facts stored with a file (`tick_size`, `lot_size`, ...).

        Raises
        ------
        DataError
            The partition is absent.
        """
        try:
            return read_metadata(self.path(table, partition, run))
        except FileNotFoundError:
            raise DataError(f"table {table}: no partition {partition} in the lake {self.root}") from None

    # -- writing -----------------------------------------------------------------------------------
    def begin(self, *, step: Callable[[str], None] = no_step) -> Commit:
        """A new commit; see `Commit`. `step` is told of every step (tests die there)."""
        taken: list[str] = []

        def lock(schema: TableSchema, partition: Partition) -> None:
            key = _lock_key(schema, partition.instrument)
            if key not in taken:
                self._take(key, 0.0 if key.startswith(MARKET_DATA) else SHORT_WAIT_S)
                taken.append(key)

        def release() -> None:
            while taken:
                self._give(taken.pop())

        return Commit(self.root, lock, release, step)

    def write(self, table: str, partition: Partition, data: Any | Columns, metadata: Mapping[str, str] | None = None, *, run: str = "") -> None:
        """Replace one partition of one table (of one run, for tables by run) in a commit of its own; see `Commit.writer`."""
        with self.begin() as commit:
            commit.write(table, partition, data, metadata, run=run)
            commit.commit()

    def upsert(
        self,
        table: str,
        partition: Partition,
        rows: Any | Columns,
        key: tuple[str, ...] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Merge rows into one partition: a row whose key is there replaces the old one, others are added; sorted by key.

        For small tables (fills, rates, results): the partition is read and written whole. Not for tables by run, whose files are replaced whole.

        Parameters
        ----------
        table : str
        partition : Partition
        rows : pyarrow.Table or Mapping[str, array_like]
            Columns as `lake.columns.table_of` takes them.
        key : tuple of str, optional
            Columns that identify a row; default the registry's key.
        metadata : Mapping[str, str], optional
            Facts of the file, laid over those stored.

        Raises
        ------
        DataError
            Two of the new rows have one key; a null in the key; another tick or lot size than the rows already there.
        LakeBusy
            Somebody else has been writing the table of this instrument for more than 30 s.
        """
        schema = table_schema(table)
        by = key or schema.key
        new = table_of(schema, rows)
        for name in by:
            if new.column(schema.field(name).name).null_count:
                raise DataError(f"table {table}, {partition}: key column {name} has nulls")
        new_keys = set(_keys(new, by))
        repeated = new.num_rows - len(new_keys)
        if repeated:
            raise DataError(f"table {table}, {partition}: {repeated} of the new rows repeat a key ({', '.join(by)}) of another new row")
        lock = _lock_key(schema, partition.instrument)
        with self._mutex:
            self._take(lock, SHORT_WAIT_S)
            try:
                facts = dict(metadata or {})
                if self.path(table, partition).exists():
                    facts = self._merged_facts(table, partition, facts)
                    old = self._read_one(schema, partition, self.path(table, partition), list(schema.names), list(schema.names))
                    kept = old.filter(mask_column([key not in new_keys for key in _keys(old, by)]))
                    new = pa.concat_tables([kept.cast(schema.arrow_schema), new])
                self.write(table, partition, new.sort_by([(name, "ascending") for name in by]), facts)
            finally:
                self._give(lock)

    @contextmanager
    def lock(self, instrument: InstrumentId, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold an instrument's market data for writing over several commits of this object.

        Parameters
        ----------
        instrument : InstrumentId
        wait_s : float
            How long to wait for another writer, in seconds.

        Raises
        ------
        LakeBusy
            Another process (or another `Lake` object) writes it.
        """
        key = _lock_key(TABLES["tape"], instrument)
        self._take(key, wait_s)
        try:
            yield
        finally:
            self._give(key)

    # -- inside ------------------------------------------------------------------------------------
    def _take(self, key: str, wait_s: float) -> None:
        with self._mutex:
            held = self._locks.get(key)
            if held is not None:
                self._locks[key] = (held[0], held[1] + 1)
                return
            group, venue, symbol = key.split("/")
            self._locks[key] = (
                WriterLock(self.root / LOCKS / f"{group}.{venue}.{symbol}", f"{group} of {venue}:{symbol} in the lake {self.root}", wait_s),
                1,
            )
        try:
            # whoever held the lock before may have died after its record: finish that before building on it
            recover(self.root)
        except BaseException:
            self._give(key)
            raise

    def _give(self, key: str) -> None:
        with self._mutex:
            held, count = self._locks.pop(key)
            if count > 1:
                self._locks[key] = (held, count - 1)
            else:
                held.release()

    def _read_one(self, schema: TableSchema, partition: Partition, path: Path, stored: list[str], wanted: list[str]) -> Any:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema.arrow_schema):
                raise DataError(f"{path}: columns are {_columns_text(file.schema_arrow)}; the registry says {_columns_text(schema.arrow_schema)}")
            table = file.read(columns=stored)
        facts: dict[str, str | int] = {"venue": partition.venue, "symbol": partition.symbol, "date": (partition.date - _EPOCH).days}
        types = {f.name: f.type for f in PARTITION_FIELDS}
        arrays = [constant_column(facts[name], types[name], table.num_rows) if name in facts else table.column(name) for name in wanted]
        return pa.Table.from_arrays(arrays, names=wanted)

    def _merged_facts(self, table: str, partition: Partition, facts: dict[str, str]) -> dict[str, str]:
        there = self.metadata(table, partition)
        for name in GRID_KEYS:
            if name in facts and facts[name] != there.get(name, facts[name]):
                raise DataError(
                    f"table {table}, {partition}: rows there count in {name} {there[name]}, the new ones in {facts[name]}; convert them first"
                )
        return there | facts

    def _write_schema_file(self, schema: TableSchema) -> None:
        path = schema_path(self.root, schema.name)
        if path.exists():
            with pq.ParquetFile(path) as file:
                if file.schema_arrow.equals(schema.arrow_schema):
                    return
                found = file.schema_arrow
            if self.partitions(schema.name):
                raise DataError(
                    f"table {schema.name} of the lake {self.root} was written with other columns than this version's: there {_columns_text(found)}, "
                    f"here {_columns_text(schema.arrow_schema)}; read it with the version that wrote it, or build a new lake from the sources"
                )
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        pq.ParquetWriter(temporary, schema.arrow_schema, **parquet_options(schema)).close()
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)


def _lock_key(schema: TableSchema, instrument: InstrumentId) -> str:
    group = MARKET_DATA if schema.raw or schema.name == "data_quality" else schema.name
    return f"{group}/{instrument.venue}/{instrument.symbol}"


def _keys(table: Any, by: tuple[str, ...]) -> list[tuple[object, ...]]:
    # in Python: Arrow's joins load pyarrow.dataset, and that loads pandas
    return list(zip(*(table.column(name).to_pylist() for name in by), strict=True))


def _columns_text(schema: Any) -> str:
    return ", ".join(f"{f.name} {f.type}{'' if f.nullable else ' not null'}" for f in schema)
