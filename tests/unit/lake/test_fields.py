"""The registry is complete, in the project's words, and its page of documentation is up to date."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.lake.fields import TABLES, table_schema, tables_markdown
from mm_platform.tape.layout import COLUMNS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "tables.md"


def test_tables_of_the_contract_are_there():
    assert set(TABLES) == {
        "tape",
        "trades",
        "book_top",
        "book_state",
        "data_quality",
        "signals",
        "fits",
        "sweep_points",
        "backtests",
        "fills",
        "replay_runs",
        "replay_fills",
        "replay_orders",
        "replay_equity",
        "funding_rates",
        "opportunities",
        "parameter_sets",
        "live_fills",
        "instruments",
    }


def test_tape_has_exactly_the_layouts_columns():
    schema = TABLES["tape"]
    assert schema.names == tuple(COLUMNS)
    assert [f.type for f in schema.fields] == [pa.from_numpy_dtype(dtype) for dtype in COLUMNS.values()]


@pytest.mark.parametrize("schema", TABLES.values(), ids=TABLES)
def test_every_field_says_what_it_is(schema):
    assert len(set(schema.names)) == len(schema.names)
    assert set(schema.key) <= set(schema.names)
    assert schema.ts == "" or schema.field(schema.ts).unit == "ns"
    assert schema.day_of == "" or schema.field(schema.day_of).unit == "ns"
    assert not {"venue", "symbol", "date", "ts"} & set(schema.names), "taken by the partition folders and the views"
    for f in schema.fields:
        assert f.unit
        assert f.meaning.endswith(".")
        assert f.type in (pa.int8(), pa.int16(), pa.int64(), pa.float64(), pa.bool_(), pa.string())
        if f.name.endswith(("_ns", "_ts")):
            assert (f.unit, f.type) == ("ns", pa.int64())
        if f.name.endswith("_half_ticks"):
            assert f.unit == "half tick"
            continue
        for suffix, unit in (("_ticks", "tick"), ("_lots", "lot"), ("_bps", "bps"), ("_s", "s"), ("_h", "h")):
            if f.name.endswith(suffix):
                assert f.unit == unit
    for name in schema.key:
        assert not schema.field(name).nullable


def test_page_is_made_from_the_registry():
    assert DOCS.read_text(encoding="utf-8") == tables_markdown(), "write it anew: python -m mm_platform.lake.fields > docs/tables.md"


def test_page_names_every_column():
    page = tables_markdown()
    for schema in TABLES.values():
        section = page.split(f"\n## {schema.name}\n")[1].split("\n## ")[0]
        for f in schema.fields:
            assert f"| `{f.name}` |" in section


def test_unknown_names_say_what_there_is():
    with pytest.raises(ConfigError, match=r"no table 'tapes'.*trades"):
        table_schema("tapes")
    with pytest.raises(DataError, match=r"no column 'px'.*price_ticks"):
        TABLES["tape"].field("px")
