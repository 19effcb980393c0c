"""Columns match the registry exactly or are refused with table, column and row."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mm_platform.core.errors import DataError
from mm_platform.lake.columns import numpy_column, table_of, table_of_rows
from mm_platform.lake.fields import TABLES, Field, TableSchema

from .rows import DAY, rows_of

KINDS = TableSchema(
    "kinds",
    "All types.",
    (
        Field("i8", pa.int8(), "1", "."),
        Field("i64", pa.int64(), "1", "."),
        Field("maybe_i64", pa.int64(), "1", ".", nullable=True),
        Field("f64", pa.float64(), "1", "."),
        Field("maybe_f64", pa.float64(), "1", ".", nullable=True),
        Field("flag", pa.bool_(), "flag", "."),
        Field("text", pa.string(), "text", "."),
        Field("maybe_text", pa.string(), "text", ".", nullable=True),
    ),
    ("i64",),
)
I64 = st.integers(-(2**63), 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ROW = st.fixed_dictionaries(
    {
        "i8": st.integers(-128, 127),
        "i64": I64,
        "maybe_i64": st.none() | I64,
        "f64": FINITE,
        "maybe_f64": st.none() | FINITE,
        "flag": st.booleans(),
        "text": st.text(st.characters(codec="utf-8")),
        "maybe_text": st.none() | st.text(st.characters(codec="utf-8")),
    }
)


@given(st.lists(ROW, max_size=20))
def test_rows_come_back_as_given(rows):
    table = table_of_rows(KINDS, rows)
    table.validate(full=True)
    assert table.schema.equals(KINDS.arrow_schema)
    assert table.to_pylist() == rows


@given(arrays(np.float64, st.integers(0, 30), elements=st.floats(allow_infinity=False)))
def test_nan_is_null_in_arrow_and_nan_again_in_numpy(values):
    n = len(values)
    columns = {"i8": np.zeros(n, np.int8), "i64": np.arange(n), "maybe_i64": [None] * n, "f64": np.zeros(n), "maybe_f64": values}
    table = table_of(KINDS, columns | {"flag": np.ones(n, np.bool_), "text": ["x"] * n, "maybe_text": [None] * n})
    assert table.column("maybe_f64").null_count == np.isnan(values).sum()
    np.testing.assert_array_equal(numpy_column(table, "maybe_f64"), values)
    np.testing.assert_array_equal(numpy_column(table.slice(n // 3), "maybe_f64"), values[n // 3 :])
    np.testing.assert_array_equal(numpy_column(table.slice(n // 3), "flag"), np.ones(n - n // 3, np.bool_))


def test_nan_in_an_arrow_column_becomes_null_too():
    rows = rows_of(TABLES["signals"], DAY, 3)
    table = table_of(TABLES["signals"], rows)
    i = table.schema.get_field_index("mid")
    dirty = table.set_column(i, table.schema.field("mid"), pa.chunked_array([[1.0], [float("nan"), None]]))
    assert table_of(TABLES["signals"], dirty).column("mid").to_pylist() == [1.0, None, None]


def _trades(**change):
    return rows_of(TABLES["trades"], DAY, 3) | change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": np.array([1.0, np.nan, 2.0])}, "column price: row 1 is nan, expected a finite number"),
        ({"price": np.array([1.0, 2.0, np.inf])}, "column price: row 2 is inf"),
        ({"price": [1.0, None, 2.0]}, "column price: row 1 is null"),
        ({"price_ticks": np.array([1.0, 2.0, 3.0])}, r"column price_ticks: expected whole numbers \(tick\), got float64"),
        ({"side": np.array([1, 2, 300])}, "column side: values from 1 to 300 do not fit int8"),
        ({"trade_id": np.array([1, 2, 2**63], dtype=np.uint64)}, "do not fit int64"),
        ({"market": np.array([1, 0, 1])}, "column market: expected true or false, got int64"),
        ({"trade_id": np.array([[1], [2], [3]])}, "expected one dimension"),
        ({"trade_id": np.array([1, 2])}, "differ in length"),
        ({"trade_id": np.array(["a", "b", "c"])}, "expected whole numbers"),
        ({"px": np.zeros(3)}, "unknown: px"),
    ],
)
def test_wrong_columns_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        table_of(TABLES["trades"], _trades(**change))


def test_missing_columns_are_named():
    rows = _trades()
    del rows["qty"]
    with pytest.raises(DataError, match="columns missing: qty"):
        table_of(TABLES["trades"], rows)
    with pytest.raises(DataError, match="row 0: missing text; unknown none"):
        table_of_rows(KINDS, [{f.name: None for f in KINDS.fields if f.name != "text"}])


def test_arrow_types_must_be_the_registrys():
    table = table_of(TABLES["trades"], _trades())
    i = table.schema.get_field_index("side")
    with pytest.raises(DataError, match="column side: expected int8"):
        table_of(TABLES["trades"], table.set_column(i, "side", pa.array([1, 1, 1], pa.int64())))


def test_text_where_there_is_none_is_refused():
    rows = rows_of(TABLES["fits"], DAY, 2)
    rows["unit"] = ["1/s", None]
    with pytest.raises(DataError, match="column unit: row 1 is None, expected text"):
        table_of(TABLES["fits"], rows)


def test_callers_may_refill_their_buffers():
    rows = _trades()
    table = table_of(TABLES["trades"], rows)
    before = table.to_pylist()
    for values in rows.values():
        values[:] = 0
    assert table.to_pylist() == before


def test_nulls_do_not_hide_in_integers():
    table = table_of(TABLES["signals"], rows_of(TABLES["signals"], DAY, 2) | {"bid_ticks": [1, None]})
    with pytest.raises(DataError, match="column bid_ticks: 1 nulls"):
        numpy_column(table, "bid_ticks")


def test_writing_and_reading_load_neither_pandas_nor_duckdb(tmp_path):
    code = """
import sys, numpy as np
from pathlib import Path
from mm_platform.core.units import utc_date
from mm_platform.lake.store import Lake, Partition
from mm_platform.lake.columns import numpy_column, table_of_rows
from mm_platform.lake.fields import TABLES
lake = Lake.open(Path(sys.argv[1]))
p = Partition("sim", "BTC-USDT", utc_date(0))
def fill(i):
    values = {"int64": i, "int8": 1, "double": 1.0, "bool": True, "string": str(i)}
    return {f.name: values[str(f.type)] for f in TABLES["live_fills"].fields}
for rows in ([fill(1), fill(2)], [fill(2), fill(3)]):
    lake.upsert("live_fills", p, table_of_rows(TABLES["live_fills"], rows), metadata={"tick_size": "1", "lot_size": "1"})
table = lake.read("live_fills", instrument=p.instrument, dates=[p.date])
assert numpy_column(table, "price_ticks").tolist() == [1, 2, 3]
print([m for m in ("pandas", "duckdb", "numba", "mlflow", "dagster") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lake")], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
