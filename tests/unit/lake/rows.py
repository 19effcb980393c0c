"""Small tables for the lake's tests: every number says which generation and which row it belongs to."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import day_start_ns
from mm_platform.lake.fields import TABLES, TableSchema
from mm_platform.lake.store import Lake, Partition

BTC = InstrumentId.parse("sim:BTC-USDT-PERP")
ETH = InstrumentId.parse("okx:ETH-USDT")
DAY = date(2026, 3, 1)
NEXT_DAY = date(2026, 3, 2)
GRID = {"tick_size": "0.1", "lot_size": "0.001"}
RUN = "0123456789abcdef"


def rows_of(schema: TableSchema, day: date, n: int, generation: int = 0) -> dict[str, Any]:
    """`n` rows of any table: times climb through `day`, other numbers are the generation."""
    start = day_start_ns(day)
    columns: dict[str, Any] = {}
    for f in schema.fields:
        if f.unit == "ns":
            columns[f.name] = start + np.arange(n, dtype=np.int64) * 1_000_000
        elif f.name in schema.key and f.type == pa.int64():
            columns[f.name] = np.arange(n, dtype=np.int64)
        elif f.type == pa.string():
            columns[f.name] = [str(i) if f.name in schema.key else str(generation) for i in range(n)]
        elif f.type == pa.bool_():
            columns[f.name] = np.zeros(n, dtype=np.bool_)
        elif f.type == pa.float64():
            columns[f.name] = np.full(n, float(generation))
        else:
            columns[f.name] = np.full(n, generation % 100, dtype=np.int64)
    return columns


def write_day(lake: Lake, instrument: InstrumentId, day: date, n: int, generation: int = 0, **begin: Any) -> None:
    """A whole day of market data of one generation in one commit, as an ingest writes it."""
    partition = Partition.of(instrument, day)
    with lake.begin(**begin) as commit:
        for table in ("tape", "trades", "book_top", "book_state", "data_quality"):
            rows = rows_of(TABLES[table], day, 1 if table == "data_quality" else n, generation)
            if table != "data_quality":
                rows["qty_lots" if table != "book_top" else "bid_lots"] = np.full(n, generation, dtype=np.int64)
            else:
                rows["rows"] = np.full(1, generation, dtype=np.int64)
            commit.write(table, partition, rows, GRID)
        commit.commit()


def generations(lake: Lake, instrument: InstrumentId, day: date) -> set[int]:
    """Every generation found in any row of any table of the day."""
    found: set[int] = set()
    for table in ("tape", "trades", "book_top", "book_state"):
        column = "qty_lots" if table != "book_top" else "bid_lots"
        found |= set(lake.read(table, instrument=instrument, dates=[day], columns=[column]).column(column).to_pylist())
    return found | set(lake.read("data_quality", instrument=instrument, dates=[day]).column("rows").to_pylist())
