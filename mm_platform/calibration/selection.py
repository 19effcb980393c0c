"""Which point of a sweep to take: a plateau that pays with some certainty, not the luckiest peak.

Belongs here: the grid, the objective, the choice and its reason. Does not belong here: evaluating points (replay), judging the chosen one
(`gate`). Only the earlier part of the data may come in here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.calibration.bootstrap import long_run_variance
from mm_platform.calibration.statistics import sharpe
from mm_platform.core.errors import CalibrationError, ConfigError

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Risk aversions (rows, dimensionless per inventory unit) and hedge thresholds (columns, inventory units; None = never hedge, last).

    Raises
    ------
    ConfigError
        Values that are not positive and ascending, or "never" missing.
    """

    risk_aversions: tuple[float, ...]
    hedge_thresholds: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if not self.hedge_thresholds or self.hedge_thresholds[-1] is not None or None in self.hedge_thresholds[:-1]:
            raise ConfigError(
                f"hedge thresholds {self.hedge_thresholds}: expected ascending inventory units with None (never hedge) last, so that hedging must earn its cost"
            )
        numbers = [t for t in self.hedge_thresholds if t is not None]
        for name, values in (("risk aversions", list(self.risk_aversions)), ("hedge thresholds", numbers)):
            if any(not (math.isfinite(v) and v > 0.0) for v in values) or any(b <= a for a, b in pairwise(values)):
                raise ConfigError(f"{name} {values}: expected positive, ascending values")
        if not self.risk_aversions:
            raise ConfigError("a grid needs at least one risk aversion")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.risk_aversions), len(self.hedge_thresholds)

    def points(self) -> tuple[tuple[float, float | None], ...]:
        """All (risk aversion, hedge threshold), row by row."""
        return tuple((gamma, threshold) for gamma in self.risk_aversions for threshold in self.hedge_thresholds)


DEFAULT_GRID: Final = Grid((0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0), (2.0, 3.0, 4.0, 6.0, 8.0, None))


@dataclass(frozen=True, slots=True)
class SelectionSettings:
    """How a point is chosen.

    Parameters
    ----------
    risk_penalty : float
        Standard errors taken off the mean block P&L: 1 asks for a profit that is likely, not merely measured.
    tie_frac : float
        Points within this share of the best smoothed objective count as equal to it; the most conservative of them is taken.
    """

    risk_penalty: float = 1.0
    tie_frac: float = 0.02

    def __post_init__(self) -> None:
        if not self.risk_penalty >= 0.0 or not 0.0 <= self.tie_frac < 1.0:
            raise ConfigError(f"selection: risk penalty {self.risk_penalty}, ties within {self.tie_frac}; expected >= 0 and in [0, 1)")


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen point and what it was chosen by.

    `row`, `column` index the grid. `objective`: mean block P&L less the penalty, quote per block; nan where a point has no result.
    `smoothed`: mean of a point's objective and its neighbours'. `plateau_ratio`: neighbours' mean block P&L over the chosen point's
    (1 = flat, 0 = a lone peak; nan where the chosen one made nothing). `trial_sharpes`: per block, one per point with a result.
    """

    row: int
    column: int
    risk_aversion: float
    hedge_threshold: float | None
    objective: Float64s
    smoothed: Float64s
    plateau_ratio: float
    trial_sharpes: tuple[float, ...]
    blocks: int
    why: str


def _neighbours(row: int, column: int, shape: tuple[int, int]) -> list[tuple[int, int]]:
    around = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    return [(r, c) for r, c in around if 0 <= r < shape[0] and 0 <= c < shape[1]]


def _lower_bound(pnl: Float64s, penalty: float) -> float:
    n = len(pnl)
    if not np.all(np.isfinite(pnl)):
        return math.nan
    # the plain variance is a floor: with few blocks the long-run one may come out smaller by chance
    plain = float(np.var(pnl, ddof=1))
    variance = max(long_run_variance(pnl), plain) if n >= 8 else plain
    return float(np.mean(pnl)) - penalty * math.sqrt(variance / n)


def _threshold_text(threshold: float | None) -> str:
    return "never hedging" if threshold is None else f"hedging beyond {threshold:g} units"


def select_point(block_pnl: Float64s, grid: Grid, settings: SelectionSettings | None = None) -> Selection:
    """Choose the point whose surroundings earn most, with its uncertainty taken off.

    Parameters
    ----------
    block_pnl : array, shape (risk aversions, hedge thresholds, blocks)
        P&L per block of equal length on the choosing part, quote; nan for a point without a result.
    grid : Grid
        What the first two axes stand for.
    settings : SelectionSettings, optional

    Returns
    -------
    Selection
        With fewer than two blocks there is nothing to choose by: the most conservative point (highest risk aversion, earliest hedge) is
        taken and `why` says so; such a choice cannot pass the gate.

    Raises
    ------
    CalibrationError
        The shape does not fit the grid, or no point has a result.
    """
    settings = settings or SelectionSettings()
    pnl = np.asarray(block_pnl, dtype=np.float64)
    if pnl.ndim != 3 or pnl.shape[:2] != grid.shape:
        raise CalibrationError(f"selection: P&L of shape {pnl.shape}, expected {grid.shape} and an axis of blocks")
    rows, columns, blocks = pnl.shape
    objective = np.full(grid.shape, np.nan)
    smoothed = np.full(grid.shape, np.nan)
    if blocks < 2:
        row, column = rows - 1, 0
        why = f"{blocks} whole block(s) of P&L, 2 needed to compare points: the most conservative point was taken"
        return Selection(row, column, grid.risk_aversions[row], grid.hedge_thresholds[column], objective, smoothed, math.nan, (), blocks, why)
    for r in range(rows):
        for c in range(columns):
            objective[r, c] = _lower_bound(pnl[r, c], settings.risk_penalty)
    if not np.any(np.isfinite(objective)):
        raise CalibrationError(f"selection: none of {rows * columns} points has a result on {blocks} blocks; look at the fits' reasons")
    for r in range(rows):
        for c in range(columns):
            if math.isfinite(objective[r, c]):
                values = [objective[r, c], *(objective[i] for i in _neighbours(r, c, grid.shape))]
                smoothed[r, c] = float(np.mean([v for v in values if math.isfinite(v)]))
    best = float(np.nanmax(smoothed))
    tolerance = settings.tie_frac * abs(best)
    equal = [(r, c) for r in range(rows) for c in range(columns) if smoothed[r, c] >= best - tolerance]
    # more conservative: higher risk aversion first, then the earlier hedge
    row, column = max(equal, key=lambda rc: (rc[0], -rc[1]))
    mean = np.mean(pnl, axis=2)
    around = [float(mean[i]) for i in _neighbours(row, column, grid.shape) if math.isfinite(mean[i])]
    own = float(mean[row, column])
    plateau = math.nan
    if own > 0.0 and around:
        plateau = float(np.mean(around)) / own
    elif own > 0.0 and grid.shape == (1, 1):
        plateau = 1.0  # nothing was searched, so no peak was picked
    trials = tuple(s for r in range(rows) for c in range(columns) if math.isfinite(s := sharpe(pnl[r, c])))
    gamma, threshold = grid.risk_aversions[row], grid.hedge_thresholds[column]
    why = (
        f"risk aversion {gamma:g}, {_threshold_text(threshold)}: mean {own:.4g} quote per block over {blocks} blocks, {objective[row, column]:.4g} after "
        f"{settings.risk_penalty:g} standard error(s), {smoothed[row, column]:.4g} with its neighbours (best {best:.4g})"
    )
    if len(equal) > 1:
        why += f"; most conservative of {len(equal)} points within {settings.tie_frac:.0%} of the best"
    return Selection(row, column, gamma, threshold, objective, smoothed, plateau, trials, blocks, why)
