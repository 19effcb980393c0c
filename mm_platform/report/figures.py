"""Interactive figures (plotly). Each function takes report data and returns a figure; no files.

plotly was chosen because the figures work offline inside one HTML file and MLflow shows them as they are.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mm_platform.kernels.accounting import Attribution
from mm_platform.report.data import Curve, SweepGrid

INK = "#1f2933"
BLUE = "#2b6cb0"
ORANGE = "#c05621"
GREY = "#7b8794"
GREEN = "#2f855a"
RED = "#c53030"


def _finish(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 30, "t": 40, "b": 55},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    )
    return figure


def sweep_heatmaps(sweep: SweepGrid) -> go.Figure:
    """Profit over the grid, choosing part beside judging part, each on its own scale around zero; the chosen point is ringed."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=("Choosing part (in sample)", "Judging part (out of sample)"), horizontal_spacing=0.16)
    labels = sweep.threshold_labels()
    gammas = [f"{g:.3g}" for g in sweep.risk_aversions]
    for column, values in ((1, sweep.in_sample_pnl), (2, sweep.out_of_sample_pnl)):
        reach = float(np.nanmax(np.abs(values))) or 1.0
        figure.add_trace(
            go.Heatmap(
                z=values,
                x=labels,
                y=gammas,
                zmin=-reach,
                zmax=reach,
                colorscale="RdBu",
                text=[[f"{v:,.1f}" for v in row] for row in values],
                texttemplate="%{text}",
                textfont={"size": 11},
                colorbar={"title": {"text": "P&L, quote"}, "x": 0.42 if column == 1 else 1.0, "thickness": 12},
                hovertemplate="risk aversion %{y}<br>hedge threshold %{x}<br>P&L %{z:,.2f} quote<extra></extra>",
            ),
            row=1,
            col=column,
        )
        figure.add_trace(
            go.Scatter(
                x=[labels[sweep.chosen[1]]],
                y=[gammas[sweep.chosen[0]]],
                mode="markers",
                marker={"size": 30, "color": "rgba(0,0,0,0)", "line": {"color": INK, "width": 3}},
                name="chosen",
                showlegend=column == 1,
                hoverinfo="skip",
            ),
            row=1,
            col=column,
        )
    figure.update_xaxes(title_text="hedge threshold, inventory units", type="category")
    figure.update_yaxes(title_text="risk aversion γ", type="category")
    return _finish(figure, 430)


def equity_and_inventory(curve: Curve) -> go.Figure:
    """Profit, inventory and mid over time, one above the other on a shared time axis."""
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.5, 0.25, 0.25])
    when = curve.ts_ns.astype("datetime64[ns]")
    figure.add_trace(go.Scatter(x=when, y=curve.pnl_quote, name="P&L", line={"color": BLUE, "width": 1.6}), row=1, col=1)
    figure.add_trace(go.Scatter(x=when, y=curve.inventory_base, name="inventory", line={"color": ORANGE, "width": 1.1, "shape": "hv"}), row=2, col=1)
    figure.add_trace(go.Scatter(x=when, y=curve.mid, name="mid", line={"color": GREY, "width": 1.1}), row=3, col=1)
    figure.update_yaxes(title_text="P&L, quote", row=1, col=1)
    figure.update_yaxes(title_text="inventory, base", row=2, col=1)
    figure.update_yaxes(title_text="mid, quote", row=3, col=1)
    figure.update_xaxes(title_text="UTC", row=3, col=1)
    return _finish(figure, 620)


def attribution_waterfall(parts: Attribution) -> go.Figure:
    """Where the profit came from; the bars sum to the total."""
    names = ["spread", "hedge crossing", "inventory", "fees", "funding", "total"]
    values = [parts.spread_pnl, parts.hedge_pnl, parts.inventory_pnl, -parts.fees, parts.funding, parts.total_pnl]
    figure = go.Figure(
        go.Waterfall(
            x=names,
            y=values,
            measure=["relative"] * 5 + ["total"],
            text=[f"{v:,.2f}" for v in values],
            textposition="outside",
            increasing={"marker": {"color": GREEN}},
            decreasing={"marker": {"color": RED}},
            totals={"marker": {"color": BLUE}},
            connector={"line": {"color": GREY, "width": 1}},
        )
    )
    figure.update_yaxes(title_text="quote")
    return _finish(figure, 380)


def markout_curve(markouts_bps: dict[float, float]) -> go.Figure:
    """Mean mid move in our favour after maker fills; below zero is adverse selection."""
    horizons = [h for h, v in markouts_bps.items() if np.isfinite(v)]
    figure = go.Figure(
        go.Scatter(
            x=[f"{h:g} s" for h in horizons], y=[markouts_bps[h] for h in horizons], mode="lines+markers", line={"color": BLUE}, name="mark-out"
        )
    )
    figure.add_hline(y=0.0, line={"color": GREY, "width": 1})
    figure.update_yaxes(title_text="bps of mid")
    figure.update_xaxes(title_text="time after the fill", type="category")
    return _finish(figure, 340)
