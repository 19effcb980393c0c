"""A picture of how the queue models differ: what each assumes about a decrease, one queue followed by all, and how soon orders fill.

Belongs here: the picture, drawn from the kernels' own formulas over a small simulated level. Run it:

    python -m mm_platform.report.queue_models --out docs/pictures/queue_models.png

The level. Orders of random size join at the back; prints take from the front; cancels hit any order with the same chance, which is what a
queue would do if nobody knew his place in it. So the true place of ours is known, and every model is told what a feed tells: the level's
quantity and the prints.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mm_platform.kernels.levels import REFERENCE
from mm_platform.kernels.queue import QUEUE_MODELS, behind_probability, exchange_params, queue_after_depth
from mm_platform.report.palette import BLUE, GREEN, GREY, INK, ORANGE, RED

Float64s = npt.NDArray[np.float64]

PURPLE: Final = "#6b46c1"

# name in the settings, exponent, colour, dash
SHOWN: Final = (
    ("risk_adverse", 0.0, RED, "-"),
    ("log_prob", 0.0, BLUE, "-"),
    ("log_prob2", 0.0, BLUE, "--"),
    ("power_prob", 3.0, GREEN, "-"),
    ("power_prob2", 3.0, ORANGE, "-"),
    ("power_prob3", 3.0, PURPLE, "--"),
)
LEVEL_BASE: Final = 20.0


@dataclass(frozen=True, slots=True)
class LevelEvents:
    """What happened at one price after we joined: the true quantity ahead of us, and what the feed told.

    before, after : the level's quantity around each event. printed : traded at it (0 for joins and cancels). true_front : ahead of us
    afterwards; below 0 when the event reached us. All in base.
    """

    before: Float64s
    after: Float64s
    printed: Float64s
    true_front: Float64s


def simulate_level(seed: int, *, events: int = 1_500, level_base: float = LEVEL_BASE) -> LevelEvents:
    """One level from our joining its back on, with joins, cancels and prints in balance; it goes on after a print has reached us."""
    rng = np.random.default_rng(seed)
    ahead = rng.exponential(level_base / 40.0, 40).tolist()
    behind: list[float] = []
    overshoot = 0.0  # by how much the print that reached us went past us
    rows: list[tuple[float, float, float, float]] = []
    for _ in range(events):
        total = sum(ahead) + sum(behind)
        size = float(rng.exponential(level_base / 40.0))
        what = rng.random()
        printed = 0.0
        if what < 0.55:
            behind.append(size)
        elif what < 0.88:
            if ahead or behind:
                place = int(rng.integers(len(ahead) + len(behind)))
                queue, at = (ahead, place) if place < len(ahead) else (behind, place - len(ahead))
                del queue[at]
        else:
            printed = 2.0 * size
            left = _take(ahead, printed)
            if left > 0.0:
                overshoot = overshoot or left
                _take(behind, left)
        rows.append((total, sum(ahead) + sum(behind), printed, sum(ahead) - overshoot))
    before, after, prints, front = np.array(rows).T
    return LevelEvents(before, after, prints, front)


def _take(queue: list[float], quantity: float) -> float:
    """Take from the front of a queue; what it could not give."""
    while quantity > 0.0 and queue:
        taken = min(quantity, queue[0])
        quantity -= taken
        queue[0] -= taken
        if queue[0] <= 0.0:
            del queue[0]
    return quantity


def modelled_front(level: LevelEvents, model: str, power: float) -> Float64s:
    """Quantity ahead of us after each event as a model has it; a print that reaches us leaves it below 0, and it stays there."""
    # lots of one base under the reference rule: every quantity here is base
    params = exchange_params(REFERENCE, QUEUE_MODELS[model], power, 1.0)
    front = float(level.before[0])
    out = np.empty(len(level.before))
    for k, (before, after, printed) in enumerate(zip(level.before.tolist(), level.after.tolist(), level.printed.tolist(), strict=True)):
        # a print comes before the depth row that reflects it
        if printed > 0.0:
            front -= printed
            if front < 0.0:
                out[k:] = front
                return out
        traded = 0.0 if model == "risk_adverse" else printed
        front = queue_after_depth(params, front, traded, before, after)
        if math.isnan(front):
            front = after
        out[k] = front
    return out


def filled_at(front: Float64s, printed: Float64s) -> int:
    """The event at which a print reached us, or the number of events when none did."""
    reached = np.flatnonzero((front < 0.0) & (printed > 0.0))
    return int(reached[0]) if len(reached) else len(front)


def queue_models_figure(*, queues: int = 300, seed: int = 4) -> Figure:
    """The picture.

    Parameters
    ----------
    queues : int
        Simulated levels behind the right panel.
    seed : int
        The level that is followed in the middle; the others count on from it.
    """
    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    chance, path, times = figure.subplots(1, 3, width_ratios=[1.0, 1.25, 0.95])
    _draw_chances(chance)
    _draw_one_level(path, seed)
    _draw_fill_times(times, queues, seed)
    for axis in (chance, path, times):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.title.set_fontsize(10)
        axis.xaxis.label.set_fontsize(9)
        axis.yaxis.label.set_fontsize(9)
    return figure


def _label(model: str, power: float) -> str:
    return f"{model}, n = {power:g}" if power else model


def _draw_chances(axis: Axes) -> None:
    share = np.linspace(0.002, 0.998, 200)
    for model, power, colour, dash in SHOWN:
        if model == "risk_adverse":
            values = np.ones(len(share))
        else:
            values = np.array([behind_probability(QUEUE_MODELS[model], power, s * LEVEL_BASE, (1.0 - s) * LEVEL_BASE) for s in share.tolist()])
        axis.plot(100.0 * share, values, color=colour, ls=dash, lw=1.6, label=_label(model, power))
    axis.plot(100.0 * share, 1.0 - share, color=INK, lw=1.2, ls=":", label="any order as likely as any other")
    axis.set_title(f"Where a cancel happened, level of {LEVEL_BASE:g} base")
    axis.set_xlabel("share of the level ahead of us, %")
    axis.set_ylabel("chance that it happened behind us")
    axis.set_ylim(0.0, 1.05)
    axis.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.02))


def _draw_one_level(axis: Axes, seed: int) -> None:
    level = simulate_level(seed)
    fronts = [(INK, ":", level.true_front)]
    fronts += [(colour, dash, modelled_front(level, model, power)) for model, power, colour, dash in SHOWN]
    last = max(filled_at(front, level.printed) for _, _, front in fronts)
    axis.plot(np.arange(1, last + 1), level.after[:last], color=GREY, lw=0.8, alpha=0.6)
    axis.annotate("whole level", (last, float(level.after[last - 1])), fontsize=8, color=GREY, ha="right", va="bottom")
    for colour, dash, front in fronts:
        end = filled_at(front, level.printed)
        axis.plot(np.arange(0, end + 1), np.concatenate(([level.before[0]], front[:end])), color=colour, ls=dash, lw=1.5)
        if end < len(front):
            axis.plot(end + 1, 0.0, marker="o", ms=6, color=colour, clip_on=False, zorder=3)
    axis.set_title("One queue: ahead of us by each model (dots: filled)")
    axis.set_xlabel("event at the level")
    axis.set_ylabel("base ahead of us")
    axis.set_ylim(bottom=0.0)
    axis.set_xlim(left=0)


def _draw_fill_times(axis: Axes, queues: int, seed: int) -> None:
    levels = [simulate_level(seed + k) for k in range(queues)]
    true = np.array([filled_at(level.true_front, level.printed) for level in levels], dtype=np.float64)
    names, medians, colours = ["truth"], [1.0], [INK]
    for model, power, colour, _ in SHOWN:
        ratio = [
            (filled_at(modelled_front(level, model, power), level.printed) + 1.0) / (t + 1.0) for level, t in zip(levels, true.tolist(), strict=True)
        ]
        names.append(_label(model, power))
        medians.append(float(np.median(ratio)))
        colours.append(colour)
    places = np.arange(len(names))[::-1]
    bars = axis.barh(places, medians, color=colours, height=0.62)
    axis.bar_label(bars, labels=[f"{m:.2f}" for m in medians], fontsize=8, padding=2)
    axis.axvline(1.0, color=INK, lw=0.7, ls=":")
    axis.set_yticks(places, names)
    axis.set_title(f"Events until filled, over the truth: median of {queues}")
    axis.set_xlabel("below 1: fills sooner than it should")
    axis.margins(x=0.12)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the picture into a file."""
    parser = argparse.ArgumentParser(prog="python -m mm_platform.report.queue_models", description="Draw how the queue models differ.")
    parser.add_argument("--out", type=Path, required=True, help="file to write; its ending decides the format (png, svg, pdf)")
    parser.add_argument("--queues", type=int, default=300, help="simulated levels behind the right panel")
    parser.add_argument("--seed", type=int, default=4, help="the level drawn in the middle")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    queue_models_figure(queues=options.queues, seed=options.seed).savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
