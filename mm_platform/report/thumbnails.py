"""Small still pictures (PNG, matplotlib) for places that show no interactive HTML: asset metadata, terminals, chat.

matplotlib comes with MLflow; plotly's own still export would need a browser on the machine.
"""

from __future__ import annotations

import io

import matplotlib
import numpy as np

from mm_platform.kernels.accounting import Attribution
from mm_platform.report.data import Curve, SweepGrid

matplotlib.use("Agg")
from matplotlib.figure import Figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def sweep_png(sweep: SweepGrid) -> bytes:
    """Heat maps of both parts, the chosen point ringed."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, values, title in zip(axes, (sweep.in_sample_pnl, sweep.out_of_sample_pnl), ("in sample", "out of sample"), strict=True):
        reach = float(np.nanmax(np.abs(values))) or 1.0
        image = axis.imshow(values, aspect="auto", origin="lower", cmap="RdBu", vmin=-reach, vmax=reach)
        axis.set_xticks(range(len(sweep.hedge_thresholds)), sweep.threshold_labels())
        axis.set_yticks(range(len(sweep.risk_aversions)), [f"{g:.3g}" for g in sweep.risk_aversions])
        axis.set_xlabel("hedge threshold, units")
        axis.set_ylabel("risk aversion")
        axis.set_title(f"P&L {title}, quote")
        axis.plot(sweep.chosen[1], sweep.chosen[0], "o", ms=16, mfc="none", mec="black", mew=2)
        figure.colorbar(image, ax=axis)
    return _png(figure)


def equity_png(curve: Curve) -> bytes:
    """Profit above inventory."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    when = curve.ts_ns.astype("datetime64[ns]")
    top.plot(when, curve.pnl_quote, lw=1.2)
    top.set_ylabel("P&L, quote")
    top.axhline(0.0, color="grey", lw=0.7)
    bottom.step(when, curve.inventory_base, where="post", lw=0.9, color="tab:orange")
    bottom.set_ylabel("inventory, base")
    bottom.axhline(0.0, color="grey", lw=0.7)
    return _png(figure)


def attribution_png(parts: Attribution) -> bytes:
    """Where the profit came from, part by part, and the total."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    values = [parts.spread_pnl, parts.hedge_pnl, parts.inventory_pnl, -parts.fees, parts.funding]
    starts = np.concatenate([[0.0], np.cumsum(values)])[:-1]
    names = ["spread", "hedge\ncrossing", "inventory", "fees", "funding", "total"]
    colours = ["tab:green" if v >= 0 else "tab:red" for v in values] + ["tab:blue"]
    bars = axis.bar(names, [*values, parts.total_pnl], bottom=[*starts, 0.0], color=colours)
    axis.bar_label(bars, labels=[f"{v:,.2f}" for v in (*values, parts.total_pnl)], fontsize=8)
    axis.axhline(0.0, color="grey", lw=0.7)
    axis.set_ylabel("quote")
    return _png(figure)
