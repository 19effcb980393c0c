"""Interactive figures (plotly). Each function takes report data and returns a figure; no files.

plotly was chosen because the figures work offline inside one HTML file and MLflow shows them as they are. Every function draws whatever it is
given; where there is nothing to draw, the figure says so.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mm_platform.kernels.accounting import Attribution
from mm_platform.report.data import Curve, SweepGrid, waterfall
from mm_platform.report.numbers import UNKNOWN, amount, money, reach_of, roomy
from mm_platform.report.palette import BLUE, GREEN, GREY, INK, LOSS_TO_PROFIT, ORANGE, RED, UNKNOWN_CELL


def _finish(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 78, "r": 24, "t": 30, "b": 58},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        showlegend=False,
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
    return figure


def _empty(text: str, height: int) -> go.Figure:
    """A figure without data says why instead of showing bare axes."""
    figure = go.Figure()
    figure.add_annotation(text=text, showarrow=False, font={"size": 15, "color": GREY}, xref="paper", yref="paper", x=0.5, y=0.5)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return _finish(figure, height)


def sweep_heatmaps(sweep: SweepGrid) -> go.Figure:
    """Profit over the grid, choosing part beside judging part, each on its own scale around zero; the chosen point is framed.

    A point that was not replayed is grey. The numbers stand in the cells, so that no colour bar is needed.
    """
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("<b>choosing part</b> (in sample)", "<b>judging part</b> (out of sample)"), horizontal_spacing=0.09
    )
    labels = sweep.threshold_labels()
    gammas = [f"{g:.3g}" for g in sweep.risk_aversions]
    row, column = sweep.chosen
    for part, values in ((1, sweep.in_sample_pnl), (2, sweep.out_of_sample_pnl)):
        reach = reach_of(values)
        figure.add_trace(
            go.Heatmap(
                z=values,
                x=labels,
                y=gammas,
                zmin=-reach,
                zmax=reach,
                colorscale=LOSS_TO_PROFIT,
                showscale=False,
                xgap=2,
                ygap=2,
                text=[[amount(v, reach) for v in line] for line in values],
                texttemplate="%{text}",
                textfont={"size": 12, "color": INK},
                hovertemplate="risk aversion %{y}<br>hedge threshold %{x}<br>P&amp;L %{z:,.4g} quote<extra></extra>",
            ),
            row=1,
            col=part,
        )
        # cells of a category axis are one wide, centred on their number
        figure.add_shape(type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5, line={"color": INK, "width": 3}, row=1, col=part)
    figure.update_xaxes(title_text="hedge threshold, inventory units", type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, ticksuffix=" ")
    figure.update_yaxes(title_text="risk aversion γ", row=1, col=1)
    _finish(figure, max(280, 150 + 36 * len(gammas)))
    # the titles stand below plotly's buttons
    figure.update_layout(plot_bgcolor=UNKNOWN_CELL, margin_t=66)
    return figure


def equity_and_inventory(curve: Curve) -> go.Figure:
    """Profit with its drawdown from the last peak, inventory and mid over time, on one time axis (UTC)."""
    if curve.is_empty:
        return _empty("nothing was replayed: there is no equity curve", 220)
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.5, 0.25, 0.25])
    when = curve.ts_ns.astype("datetime64[ns]")
    peak = np.fmax.accumulate(np.concatenate([[0.0], curve.pnl_quote]))[1:]
    figure.add_trace(
        go.Scatter(x=when, y=peak, name="peak", line={"color": GREY, "width": 0.8, "dash": "dot"}, hovertemplate="peak %{y:,.2f}<extra></extra>"),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=when,
            y=curve.pnl_quote,
            name="P&amp;L",
            line={"color": BLUE, "width": 1.7},
            fill="tonexty",
            fillcolor="rgba(197,48,48,0.10)",
            hovertemplate="P&amp;L %{y:,.2f} quote<extra></extra>",
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=when,
            y=curve.inventory_base,
            name="inventory",
            line={"color": ORANGE, "width": 1.1, "shape": "hv"},
            hovertemplate="inventory %{y:,.6g} base<extra></extra>",
        ),
        row=2,
        col=1,
    )
    figure.add_trace(
        go.Scatter(x=when, y=curve.mid, name="mid", line={"color": GREY, "width": 1.1}, hovertemplate="mid %{y:,.8g}<extra></extra>"), row=3, col=1
    )
    for row in (1, 2):
        figure.add_hline(y=0.0, line={"color": INK, "width": 0.8}, row=row, col=1)
    figure.update_yaxes(title_text="P&amp;L, quote", tickformat=",", row=1, col=1)
    figure.update_yaxes(title_text="inventory, base", row=2, col=1)
    figure.update_yaxes(title_text="mid, quote/base", tickformat=",", row=3, col=1)
    figure.update_xaxes(title_text="UTC", row=3, col=1)
    figure.update_layout(hovermode="x unified")
    return _finish(figure, 640)


def attribution_waterfall(parts: Attribution) -> go.Figure:
    """Where the profit came from; the bars sum to the total."""
    steps = waterfall(parts)
    names, values = [name for name, _ in steps], [value for _, value in steps]
    figure = go.Figure(
        go.Waterfall(
            x=[*names, "total"],
            y=[*values, parts.total_pnl],
            measure=["relative"] * len(steps) + ["total"],
            text=[money(v) for v in (*values, parts.total_pnl)],
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": GREEN}},
            decreasing={"marker": {"color": RED}},
            totals={"marker": {"color": BLUE}},
            connector={"line": {"color": GREY, "width": 1}},
            hovertemplate="%{x}: %{delta:,.4f} quote<br>sum so far %{final:,.4f}<extra></extra>",
        )
    )
    figure.update_yaxes(title_text="quote", tickformat=",", range=roomy(np.cumsum([0.0, *values]), 0.12), zerolinecolor=INK)
    return _finish(figure, 380)


def markout_curve(markouts_bps: dict[float, float]) -> go.Figure:
    """Mean mid move in our favour after maker fills; below zero is adverse selection. Horizons that nothing is known of are named."""
    known = {h: v for h, v in markouts_bps.items() if np.isfinite(v)}
    if not known:
        return _empty("no maker fill has a known future: there are no mark-outs", 220)
    labels = [f"{h:g} s" if h in known else f"{h:g} s (unknown)" for h in markouts_bps]
    figure = go.Figure(
        go.Scatter(
            x=labels,
            y=[known.get(h) for h in markouts_bps],
            mode="lines+markers+text",
            text=[f"{known[h]:+.3g}" if h in known else UNKNOWN for h in markouts_bps],
            textposition="top center",
            cliponaxis=False,
            line={"color": BLUE},
            marker={"size": 8},
            hovertemplate="%{x} after the fill: %{y:+.4f} bps<extra></extra>",
        )
    )
    figure.add_hline(y=0.0, line={"color": INK, "width": 0.8})
    figure.update_yaxes(title_text="bps of the mid", range=roomy(np.array([0.0, *known.values()]), 0.18), zeroline=False)
    figure.update_xaxes(
        title_text="time after the fill", type="category", categoryorder="array", categoryarray=labels, range=[-0.4, len(labels) - 0.6]
    )
    return _finish(figure, 320)
