"""How results look in the Dagster UI: columns with units, tables, pictures, links."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from mm_platform.config import Settings
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.parameters import ParameterSet
from mm_platform.lake.fields import TABLES, TableSchema
from mm_platform.workflow.progress import Progress
from mm_platform.workflow.publish import Published


def table_definition(name: str, *also: str) -> dict[str, Any]:
    """What is known of an asset before it was ever made: its lake table with columns and units, and the tables written beside it."""
    schema = TABLES[name]
    found: dict[str, Any] = {"dagster/table_name": name, "dagster/column_schema": column_schema(schema), "one row is": schema.meaning}
    if also:
        found["written with it"] = markdown_table(("table", "one row is"), [(other, TABLES[other].meaning) for other in also])
    return found


def column_schema(schema: TableSchema) -> dg.TableSchema:
    """The field registry's columns for Dagster's column view; the unit leads each description."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(f.name, str(f.type), f"[{f.unit}] {f.meaning}", constraints=dg.TableColumnConstraints(nullable=f.nullable))
            for f in schema.fields
        ]
    )


def picture(file: Path) -> dg.MarkdownMetadataValue:
    """A PNG shown in the asset's metadata."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()})")


def pictures(folder: Path, names: Mapping[str, str]) -> dict[str, dg.MarkdownMetadataValue]:
    """Those of a folder's PNG files that are there; `names` is label to file name."""
    return {label: picture(folder / name) for label, name in names.items() if (folder / name).is_file()}


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A Markdown table; None is an empty cell."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def parameter_table(parameters: ParameterSet) -> dg.MarkdownMetadataValue:
    """A parameter set: value, unit, standard error, and where each came from."""
    rows = []
    for name in sorted(parameters.values):
        v = parameters.values[name]
        shown = "never" if v.value is None else f"{v.value:.6g}" if isinstance(v.value, float) and abs(v.value) < 1e12 else f"{v.value}"
        rows.append((name, shown, v.unit, "" if v.stderr is None else f"{v.stderr:.2g}", v.source))
    return markdown_table(("parameter", "value", "unit", "standard error", "from"), rows)


def mlflow_links(settings: Settings, published: Published) -> dict[str, dg.UrlMetadataValue]:
    """MLflow's pages of a model version and of its run (the page that `make ui` starts, or the registry's own); none without a version."""
    if published.version is None:
        return {}
    base = settings.registry_uri if settings.registry_uri.startswith("http") else f"http://localhost:{settings.mlflow.port}"
    model = InstrumentId.parse(settings.instrument).model_name
    return {
        "model version": dg.MetadataValue.url(f"{base}/#/models/{model}/versions/{published.version}"),
        "run": dg.MetadataValue.url(f"{base}/#/runs/{published.run_id}"),
    }


def logged(context: dg.AssetExecutionContext) -> Progress:
    """Progress of long work as log lines, one per tenth."""
    shown: dict[str, int] = {}

    def progress(what: str, done: float, total: float | None) -> None:
        if not total:
            return
        tenth = int(10.0 * done / total)
        if shown.get(what) != tenth:
            shown[what] = tenth
            context.log.info("%s: %g of %g", what, done, total)

    return progress
