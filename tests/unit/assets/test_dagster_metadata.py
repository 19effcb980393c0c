"""Tables, pictures and links as Dagster shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg

from assets.metadata import column_schema, logged, markdown_table, mlflow_links, parameter_table, pictures, table_definition
from mm_platform.config import load_settings
from mm_platform.core.parameters import ParameterSet, Value
from mm_platform.lake.fields import TABLES
from mm_platform.workflow.publish import Published


def test_a_table_keeps_its_columns_whatever_a_cell_holds() -> None:
    shown = markdown_table(("a", "b"), [("x|y", None), ("two\nlines", 0)]).value
    assert shown is not None
    assert shown.split("\n") == ["| a | b |", "|---|---|", "| x\\|y |  |", "| two lines | 0 |"]


def test_columns_carry_unit_type_and_whether_they_may_be_missing() -> None:
    columns = {c.name: c for c in column_schema(TABLES["signals"]).columns}
    assert columns["spread_bps"].description == "[bps] Best ask minus best bid in basis points of mid."
    assert (columns["grid_ts"].type, columns["grid_ts"].constraints.nullable) == ("int64", False)
    assert columns["mid"].constraints.nullable


def test_tables_written_beside_are_named_with_their_meaning() -> None:
    beside = table_definition("tape", "trades")["written with it"].value
    assert "trades" in beside
    assert TABLES["trades"].meaning in beside


def test_only_pictures_that_are_there_are_shown(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    shown = pictures(tmp_path, {"first": "a.png", "second": "b.png"})
    assert {name: value.value for name, value in shown.items()} == {"first": "![plot](data:image/png;base64,iVBORw==)"}


def test_links_go_to_the_local_page_or_to_the_server(tmp_path: Path) -> None:
    local = load_settings(None, {"mlflow.port": 5999}, environ={}, cwd=tmp_path)
    server = load_settings(None, {"registry_uri": "https://mlflow.example:8443"}, environ={}, cwd=tmp_path)
    made = Published("sim:BTC-USDT-PERP", "3", "pass", None, "abc", "f00", ())
    assert mlflow_links(local, made)["model version"].value == "http://localhost:5999/#/models/mm.sim.BTC-USDT-PERP/versions/3"
    assert mlflow_links(server, made)["run"].value == "https://mlflow.example:8443/#/runs/abc"
    assert mlflow_links(local, replace(made, version=None, run_id=None, sha256=None)) == {}


def test_parameters_show_value_unit_error_and_origin() -> None:
    values = {
        "sigma": Value(0.379568123, "1/sqrt(year)", 0.0267, "fit"),
        "hedge_threshold": Value(None, "base", None, "sweep"),
        "inventory_unit_fixed_at": Value(1767657601000000000, "ns"),
    }
    made = ParameterSet(
        instrument="sim:BTC-USDT-PERP", model="x", valid_from_ns=1, fitted_through_ns=0, code_version="1", dataset_sha256="a", values=values
    )
    rows = (parameter_table(made).value or "").split("\n")
    assert "| sigma | 0.379568 | 1/sqrt(year) | 0.027 | fit |" in rows
    assert "| hedge_threshold | never | base |  | sweep |" in rows
    assert "| inventory_unit_fixed_at | 1767657601000000000 | ns |  | default |" in rows


def test_progress_is_logged_once_per_tenth() -> None:
    lines: list[str] = []
    context = dg.build_asset_context()
    context.log.info = lambda *args: lines.append(args[0] % args[1:])  # type: ignore[method-assign]
    progress = logged(context)
    for done in range(96):
        progress("sweep", done, 95)
    progress("unknown", 1, None)
    assert lines[0] == "sweep: 0 of 95"
    assert lines[-1] == "sweep: 95 of 95"
    assert len(lines) == 11
