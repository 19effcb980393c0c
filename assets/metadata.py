"""How results look in the Dagster UI: pictures and tables as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import dagster as dg


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG shown in the asset's metadata."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))
