"""Small still pictures (PNG, matplotlib) for places that show no interactive HTML: asset metadata, terminals, chat.

matplotlib comes with MLflow; plotly's own still export would need a browser on the machine.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mm_platform.kernels.accounting import Attribution
from mm_platform.report.data import Curve, SweepGrid, waterfall
from mm_platform.report.numbers import amount, money, reach_of, roomy
from mm_platform.report.palette import BLUE, GREEN, GREY, INK, LOSS_TO_PROFIT, ORANGE, RED, UNKNOWN_CELL

_LOSS_TO_PROFIT = LinearSegmentedColormap.from_list("loss to profit", list(LOSS_TO_PROFIT), N=255).with_extremes(bad=UNKNOWN_CELL)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def sweep_png(sweep: SweepGrid) -> bytes:
    """Heat maps of both parts with their numbers, the chosen point framed, points that were not replayed grey."""
    rows, columns = sweep.in_sample_pnl.shape
    figure = Figure(figsize=(max(7.0, 1.4 + 1.3 * columns), 1.3 + 0.34 * max(rows, 3)), layout="constrained")
    axes = figure.subplots(1, 2)
    parts = ((sweep.in_sample_pnl, "choosing part (in sample)"), (sweep.out_of_sample_pnl, "judging part (out of sample)"))
    row, column = sweep.chosen
    for axis, (values, title) in zip(axes, parts, strict=True):
        reach = reach_of(values)
        axis.imshow(np.ma.masked_invalid(values), aspect="auto", origin="lower", cmap=_LOSS_TO_PROFIT, vmin=-reach, vmax=reach)
        for (y, x), value in np.ndenumerate(values):
            axis.text(x, y, amount(float(value), reach), ha="center", va="center", fontsize=8, color=INK)
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, lw=2.2, clip_on=False, zorder=3))
        axis.set_xticks(range(columns), sweep.threshold_labels())
        axis.set_yticks(range(rows), [f"{g:.3g}" for g in sweep.risk_aversions])
        axis.set_xlabel("hedge threshold, inventory units", fontsize=9)
        axis.set_title(f"P&L, quote: {title}", fontsize=10)
        axis.tick_params(labelsize=8, length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("risk aversion γ", fontsize=9)
    return _png(figure)


def equity_png(curve: Curve) -> bytes:
    """Profit above inventory, time in UTC."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    if curve.is_empty:
        figure.text(0.5, 0.5, "nothing was replayed: there is no equity curve", ha="center", va="center", color=GREY)
        return _png(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    when = curve.ts_ns.astype("datetime64[ns]")
    peak = np.fmax.accumulate(np.concatenate([[0.0], curve.pnl_quote]))[1:]
    top.fill_between(when, curve.pnl_quote, peak, color=RED, alpha=0.1, lw=0, label="below the peak")
    top.plot(when, curve.pnl_quote, lw=1.3, color=BLUE)
    top.set_ylabel("P&L, quote", fontsize=9)
    bottom.step(when, curve.inventory_base, where="post", lw=0.9, color=ORANGE)
    bottom.set_ylabel("inventory, base", fontsize=9)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    bottom.set_xlabel("UTC", fontsize=9)
    for axis in (top, bottom):
        axis.axhline(0.0, color=INK, lw=0.7)
        axis.margins(x=0.01)
        _plain(axis)
    top.yaxis.set_major_formatter("{x:,g}")
    return _png(figure)


def attribution_png(parts: Attribution) -> bytes:
    """Where the profit came from, part by part, and the total."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    steps = waterfall(parts)
    values = [value for _, value in steps]
    starts = np.concatenate([[0.0], np.cumsum(values)])[:-1]
    names = [name.replace(" ", "\n") for name, _ in steps]
    colours = [GREEN if v >= 0 else RED for v in values] + [BLUE]
    bars = axis.bar([*names, "total"], [*values, parts.total_pnl], bottom=[*starts, 0.0], color=colours)
    axis.bar_label(bars, labels=[money(v) for v in (*values, parts.total_pnl)], fontsize=8, padding=2)
    axis.set_ylim(*roomy(np.cumsum([0.0, *values]), 0.12))
    axis.axhline(0.0, color=INK, lw=0.7)
    axis.set_ylabel("quote", fontsize=9)
    axis.yaxis.set_major_formatter("{x:,g}")
    _plain(axis)
    return _png(figure)
