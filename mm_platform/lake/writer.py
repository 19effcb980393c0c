"""Streaming writer of one Parquet file of the lake.

Belongs here: encoding, row groups, and what must hold of every file (columns, day, grid metadata). Does not belong here: making the
file visible (`commit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_DAY, day_start_ns, iso_utc
from mm_platform.lake.columns import Columns, table_of
from mm_platform.lake.fields import TableSchema
from mm_platform.lake.layout import Partition, sync_file

# Rows per row group: bounds the writer's memory (about 10 MB of tape) and lets readers skip most of a day by its times.
ROW_GROUP_ROWS: Final = 131_072
ZSTD_LEVEL: Final = 3
# tables by run are written while a sweep runs, tens of millions of rows at a time: the fastest level costs a tenth more disk
ZSTD_LEVEL_BY_RUN: Final = 1
GRID_KEYS: Final = ("tick_size", "lot_size")


class TableWriter:
    """Writes one partition of one table to a temporary; memory is bounded by one row group plus the largest batch handed in.

    Made by `Commit.writer`. Rows become visible when the commit is committed.
    """

    def __init__(self, schema: TableSchema, partition: Partition, temporary: Path, metadata: Mapping[str, str]) -> None:
        self.schema = schema
        self.partition = partition
        self.temporary = temporary
        self.rows = 0
        self._metadata = dict(metadata)
        self._waiting: list[Any] = []
        self._waiting_rows = 0
        self._open = True
        self._parquet = pq.ParquetWriter(temporary, schema.arrow_schema, **parquet_options(schema))

    def write(self, data: Any | Columns) -> None:
        """Append rows.

        Parameters
        ----------
        data : pyarrow.Table, pyarrow.RecordBatch or Mapping[str, array_like]
            Columns as `lake.columns.table_of` takes them.

        Raises
        ------
        DataError
            Columns do not match the registry, or rows lie outside the partition's day.
        """
        table = table_of(self.schema, data)
        if not table.num_rows:
            return
        self._check_day(table)
        self.rows += table.num_rows
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._flush(whole_groups_only=True)

    def add_metadata(self, metadata: Mapping[str, str]) -> None:
        """Facts of the file known only after the rows (hashes, counts)."""
        self._metadata.update(metadata)

    def finish(self) -> None:
        """Write the rest, check the file's facts and flush it to disk; calling it again does nothing.

        Raises
        ------
        DataError
            `tick_size` or `lot_size` missing in a table that counts in ticks or lots; not exactly one quality row.
        """
        if not self._open:
            return
        absent = [key for key in GRID_KEYS if self.schema.on_grid and not self._metadata.get(key)]
        if absent:
            raise DataError(
                f"table {self.schema.name}, {self.partition}: counts in ticks or lots, so its metadata must say {' and '.join(absent)} (decimal strings)"
            )
        if self.schema.name == "data_quality" and self.rows != 1:
            raise DataError(f"table data_quality, {self.partition}: expected exactly one row, got {self.rows}")
        self._flush(whole_groups_only=False)
        self._parquet.add_key_value_metadata(self._metadata)
        self.close()
        sync_file(self.temporary)

    def close(self) -> None:
        """Close the file as it is, complete or not."""
        if self._open:
            self._open = False
            self._parquet.close()

    def _flush(self, *, whole_groups_only: bool) -> None:
        if not self._waiting_rows:
            return
        table = pa.concat_tables(self._waiting)
        cut = table.num_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS if whole_groups_only else table.num_rows
        self._parquet.write_table(table.slice(0, cut), row_group_size=ROW_GROUP_ROWS)
        rest = table.slice(cut)
        self._waiting, self._waiting_rows = ([rest], rest.num_rows) if rest.num_rows else ([], 0)

    def _check_day(self, table: Any) -> None:
        if not self.schema.day_of:
            return
        span = pc.min_max(table.column(self.schema.day_of)).as_py()
        start = day_start_ns(self.partition.date)
        if span["min"] < start or span["max"] >= start + NS_PER_DAY:
            raise DataError(
                f"table {self.schema.name}, {self.partition}: {self.schema.day_of} runs from {iso_utc(span['min'])} to {iso_utc(span['max'])}, "
                f"outside the partition's UTC day; split rows by the day of {self.schema.day_of}"
            )


def parquet_options(schema: TableSchema) -> dict[str, Any]:
    """How a table is encoded: what changes little from row to row as differences, everything else by dictionary; zstd throughout."""
    climbing = [f.name for f in schema.fields if f.climbs]
    return {
        "compression": "zstd",
        "compression_level": ZSTD_LEVEL_BY_RUN if schema.by_run else ZSTD_LEVEL,
        "use_dictionary": [f.name for f in schema.fields if not f.climbs],
        "column_encoding": dict.fromkeys(climbing, "DELTA_BINARY_PACKED") or None,
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The facts stored with a file (`tick_size`, `lot_size`, ...), without reading rows."""
    stored = pq.read_metadata(path).metadata or {}
    return {key.decode(): value.decode() for key, value in stored.items() if not key.startswith(b"ARROW:")}
