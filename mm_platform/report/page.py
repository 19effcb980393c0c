"""One self-contained HTML page per report: works offline, no server, nothing loaded from elsewhere and nothing sent anywhere.

The page's own content policy forbids the browser every connection, and plotly's button that would upload a figure is off.
"""

from __future__ import annotations

import html
import os
import re
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import plotly.graph_objects as go

from mm_platform.report import figures
from mm_platform.report.data import CheckRow, Report
from mm_platform.report.numbers import UNKNOWN

# nothing may be fetched: styles and scripts stand in the page, pictures that plotly makes are data
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
_PLOT_CONFIG: Final = {
    "displaylogo": False,
    "responsive": True,
    # plotly would offer to upload the figure, and with it the profit, to its own server
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
}
_TAGS: Final = {"pass": "pass", "fail": "fail", "insufficient": "open", "insufficient_evidence": "open"}
_LONG_INTEGER: Final = re.compile(r"-?\d{5,}")

_STYLE: Final = """
body{font-family:system-ui,-apple-system,"Segoe UI",sans-serif;color:#1f2933;margin:0;background:#f5f7fa;line-height:1.4}
main{max-width:1120px;margin:0 auto;padding:22px 28px 60px}
h1{font-size:26px;margin:8px 0 2px}h1 .tag{vertical-align:4px;margin-left:8px}h2{font-size:19px;margin:32px 0 10px}
section{background:#fff;border:1px solid #e4e7eb;border-radius:8px;padding:12px 18px;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{text-align:left;padding:6px 12px;border-bottom:1px solid #e4e7eb;vertical-align:top}
tbody tr:last-child td{border-bottom:0}
.short td{white-space:nowrap}td.long{min-width:260px}.plot{min-width:640px}.wide{min-width:860px}
th{color:#52606d;font-weight:600;white-space:nowrap}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.facts{display:flex;flex-wrap:wrap;gap:10px;margin-top:14px}
.fact{flex:1 1 auto;min-width:120px;box-sizing:border-box;max-width:100%;background:#fff;border:1px solid #e4e7eb;border-radius:8px;padding:9px 14px}
.fact b{display:block;font-size:16px;margin-top:2px;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.fact span{color:#52606d;font-size:12.5px}
.tag{display:inline-block;border-radius:12px;padding:1px 11px;font-size:13px;font-weight:600;white-space:nowrap;background:#e4e7eb;color:#323f4b}
.tag.pass{background:#c6f6d5;color:#22543d}.tag.fail{background:#fed7d7;color:#742a2a}.tag.open{background:#feebc8;color:#7b341e}
.hint{color:#52606d;font-size:13.5px;margin:4px 0 8px}
ul{margin:4px 0;padding-left:20px}
@media print{section,.fact{break-inside:avoid}body{background:#fff}}
"""


def _text(text: str) -> str:
    """Escaped, long integers in groups of three, a dash for nothing."""
    if not text:
        return UNKNOWN
    return html.escape(f"{int(text):,}" if _LONG_INTEGER.fullmatch(text) else text)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[int]) -> str:
    """A table; columns in `numeric` are right-aligned, heads included. Cells are plain text."""
    kinds = [' class="num"' if i in numeric else "" for i in range(len(header))]
    head = "".join(f"<th{kind}>{html.escape(h)}</th>" for h, kind in zip(header, kinds, strict=True))
    body = "".join("<tr>" + "".join(f"<td{kind}>{_text(c)}</td>" for c, kind in zip(row, kinds, strict=True)) + "</tr>" for row in rows)
    return f'<table class="short"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _tag(verdict: str) -> str:
    return f'<span class="tag {_TAGS.get(verdict, "")}">{html.escape(verdict.replace("_", " "))}</span>'


def _checks(checks: Sequence[CheckRow]) -> str:
    """The gate's checks, those that hold it back first."""
    rows = "".join(
        f"<tr><td>{html.escape(c.name.replace('_', ' '))}</td><td>{_tag(c.outcome)}</td><td>{_text(c.seen)}</td><td>{_text(c.needed)}</td>"
        f'<td class="long">{html.escape(c.message)}</td></tr>'
        for c in sorted(checks, key=lambda c: c.outcome == "pass")
    )
    head = "".join(f"<th>{name}</th>" for name in ("check", "outcome", "seen", "needed", "what it means"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _section(title: str, body: str, hint: str = "") -> str:
    lead = f'<p class="hint">{html.escape(hint)}</p>' if hint else ""
    return f"<h2>{html.escape(title)}</h2><section>{lead}{body}</section>"


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )


def _plot(figure: go.Figure, with_library: bool) -> str:
    """A figure for a section; on a narrow screen the section scrolls instead of pressing axis titles into each other."""
    drawing = figure.to_html(full_html=False, include_plotlyjs=with_library, config=_PLOT_CONFIG)
    side_by_side = "xaxis2" in figure.layout and figure.layout.xaxis2.domain[0] > 0.0
    width = "wide" if side_by_side else "plot"
    return f'<div class="{width}">{drawing}</div>'


def _plots(report: Report) -> list[str]:
    """The sections with figures; plotly's library travels once, with the first of them."""
    curve = report.curve
    drawn: list[tuple[str, str, go.Figure | None]]
    if curve.is_empty:
        drawn = [
            (
                "Equity, inventory and mid",
                "Nothing was replayed, so there is no profit, no inventory and no fill to show: see the gate and the notes.",
                None,
            )
        ]
    else:
        drawn = [
            (
                "Equity, inventory and mid",
                "Profit after fees and funding, capital left out; shaded: below the last peak. Sampled, so short excursions may be missing.",
                figures.equity_and_inventory(curve),
            ),
            (
                "Where the profit came from",
                "Spread: maker fills against the mid just before them. Hedge crossing: the same for takers. Inventory: what the position earned as the "
                "mid moved. The parts sum to the total.",
                figures.attribution_waterfall(report.attribution),
            ),
            (
                "Mark-outs of maker fills",
                "Mean move of the mid in our favour after a fill, weighted by amount; below zero is adverse selection.",
                figures.markout_curve(report.markouts_bps),
            ),
        ]
    if report.sweep is not None:
        drawn.append(
            (
                "Sweep over risk aversion and hedge threshold",
                "Profit in quote. Chosen on the left part, judged on the right; the frame marks the chosen point. Red loses, blue earns, each part on its "
                "own scale; grey was not replayed.",
                figures.sweep_heatmaps(report.sweep),
            )
        )
    sections, with_library = [], True
    for title, hint, figure in drawn:
        body = ""
        if figure is not None:
            body, with_library = _plot(figure, with_library), False
        sections.append(_section(title, body, hint))
    return sections


def render(report: Report) -> str:
    """The page as text."""
    facts = "".join(f'<div class="fact"><span>{html.escape(k)}</span><b>{html.escape(v)}</b></div>' for k, v in report.facts)
    parts = [
        f'<h1>{html.escape(report.title)}{_tag(report.verdict)}</h1><p class="hint">{html.escape(report.instrument)}</p><div class="facts">{facts}</div>'
    ]
    if report.checks:
        parts.append(_section("Gate", _checks(report.checks)))
    parts += _plots(report)
    if report.parameters:
        rows = [(p.name, p.value, p.unit, p.stderr, p.source) for p in report.parameters]
        parts.append(_section("Parameters", _table(("name", "value", "unit", "standard error", "source"), rows, {1, 3})))
    if report.quality:
        header = [name.replace("_", " ") for name in report.quality_header]
        parts.append(_section("Data", _table(header, report.quality, range(1, len(header)))))
    if report.notes:
        parts.append(_section("Notes", "<ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in report.notes) + "</ul>"))
    return _document(report.title, "".join(parts))


def write(report: Report, path: Path) -> Path:
    """Write the page; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(render(report), encoding="utf-8")
    os.replace(temporary, path)
    return path
