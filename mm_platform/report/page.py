"""One self-contained HTML page per report: works offline, no server, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import plotly.graph_objects as go

from mm_platform.report import figures
from mm_platform.report.data import Report

_STYLE = """
body{font-family:system-ui,-apple-system,"Segoe UI",sans-serif;color:#1f2933;margin:0;background:#f5f7fa}
main{max-width:1120px;margin:0 auto;padding:24px 28px 60px}
h1{font-size:26px;margin:8px 0 2px}h2{font-size:19px;margin:34px 0 10px}
section{background:#fff;border:1px solid #e4e7eb;border-radius:8px;padding:14px 18px;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px}th,td{text-align:left;padding:5px 10px;border-bottom:1px solid #e4e7eb;vertical-align:top}
th{color:#52606d;font-weight:600}td.num{text-align:right;font-variant-numeric:tabular-nums}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(215px,1fr));gap:10px;margin-top:14px}
.fact{background:#fff;border:1px solid #e4e7eb;border-radius:8px;padding:10px 14px}.fact b{display:block;font-size:17px;margin-top:3px;overflow-wrap:anywhere}
.fact span{color:#52606d;font-size:12.5px}
.tag{display:inline-block;border-radius:12px;padding:2px 12px;font-size:13px;font-weight:600}
.pass{background:#c6f6d5;color:#22543d}.fail{background:#fed7d7;color:#742a2a}.insufficient,.insufficient_evidence{background:#feebc8;color:#7b341e}
p.hint{color:#52606d;font-size:13.5px;margin:4px 0 10px}
"""


def _cell(text: str) -> str:
    numeric = text.replace(",", "").replace("−", "-").replace("%", "").strip()
    try:
        float(numeric)
        kind = ' class="num"'
    except ValueError:
        kind = ""
    return f"<td{kind}>{html.escape(text)}</td>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(_cell(c) for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _tag(verdict: str) -> str:
    return f'<span class="tag {html.escape(verdict)}">{html.escape(verdict.replace("_", " "))}</span>'


def render(report: Report) -> str:
    """The page as text."""
    plots: list[str] = []

    def plot(figure: go.Figure) -> str:
        # the library travels once, with the first figure
        text = figure.to_html(full_html=False, include_plotlyjs=not plots, config={"displaylogo": False, "responsive": True})
        plots.append(text)
        return str(text)

    parts = [f"<h1>{html.escape(report.title)} {_tag(report.verdict)}</h1>", f'<p class="hint">{html.escape(report.instrument)}</p>']
    facts = "".join(f'<div class="fact"><span>{html.escape(k)}</span><b>{html.escape(v)}</b></div>' for k, v in report.facts)
    parts.append(f'<div class="facts">{facts}</div>')
    parts.append("<h2>Equity, inventory and mid (judged stretch)</h2><section>" + plot(figures.equity_and_inventory(report.curve)) + "</section>")
    parts.append(
        '<h2>Where the profit came from</h2><section><p class="hint">Spread: maker fills against the mid just before them. Hedge crossing: the same for takers. '
        "Inventory: what the position earned as the mid moved. The parts sum to the total exactly.</p>"
        + plot(figures.attribution_waterfall(report.attribution))
        + "</section>"
    )
    parts.append(
        '<h2>Mark-outs of maker fills</h2><section><p class="hint">Mean move of the mid in our favour after a fill; below zero is adverse selection.</p>'
        + plot(figures.markout_curve(report.markouts_bps))
        + "</section>"
    )
    if report.sweep is not None:
        parts.append(
            '<h2>Sweep over risk aversion and hedge threshold</h2><section><p class="hint">Chosen on the left, judged on the right.</p>'
            + plot(figures.sweep_heatmaps(report.sweep))
            + "</section>"
        )
    parts.append(
        "<h2>Parameters</h2><section>"
        + _table(("name", "value", "unit", "standard error", "source"), ((p.name, p.value, p.unit, p.stderr, p.source) for p in report.parameters))
        + "</section>"
    )
    if report.checks:
        rows = "".join(
            f"<tr><td>{html.escape(c.name)}</td><td>{_tag(c.outcome)}</td><td>{html.escape(c.seen)}</td><td>{html.escape(c.needed)}</td><td>{html.escape(c.message)}</td></tr>"
            for c in report.checks
        )
        parts.append(
            "<h2>Gate</h2><section><table><thead><tr><th>check</th><th>outcome</th><th>seen</th><th>needed</th><th></th></tr></thead><tbody>"
            + rows
            + "</tbody></table></section>"
        )
    if report.quality:
        parts.append("<h2>Data</h2><section>" + _table(report.quality_header, report.quality) + "</section>")
    if report.notes:
        parts.append("<h2>Notes</h2><section><ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in report.notes) + "</ul></section>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(report.title)}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )


def write(report: Report, path: Path) -> Path:
    """Write the page; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(render(report), encoding="utf-8")
    os.replace(temporary, path)
    return path
