from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.calibration.selection import DEFAULT_GRID, Grid, SelectionSettings, select_point
from mm_platform.core.errors import CalibrationError, ConfigError

GRID = Grid((0.1, 0.2, 0.4, 0.8), (2.0, 4.0, 8.0, None))


def blocks_of(mean: np.ndarray, sd: float = 0.1, n: int = 40, seed: int = 0) -> np.ndarray:
    """P&L with exactly these means: the same noise everywhere, so that points differ by their means only."""
    noise = np.random.default_rng(seed).standard_normal(n) * sd
    return mean[:, :, None] + (noise - noise.mean())


def test_default_grid_is_eight_by_six_with_never() -> None:
    assert DEFAULT_GRID.shape == (8, 6)
    assert len(DEFAULT_GRID.points()) == 48
    assert DEFAULT_GRID.risk_aversions[0] == 0.01
    assert DEFAULT_GRID.risk_aversions[-1] == 1.0
    assert DEFAULT_GRID.points()[5] == (0.01, None)


def test_a_plateau_is_preferred_to_a_higher_peak() -> None:
    mean = np.zeros(GRID.shape)
    mean[0, 3] = 3.0  # a lone peak
    mean[2:, :3] = 2.0  # a plateau
    chosen = select_point(blocks_of(mean), GRID)
    assert (chosen.row, chosen.column) != (0, 3)
    assert mean[chosen.row, chosen.column] == 2.0
    assert chosen.plateau_ratio > 0.7
    assert chosen.blocks == 40
    assert len(chosen.trial_sharpes) == 16


def test_ties_go_to_the_more_conservative_point() -> None:
    flat = select_point(blocks_of(np.ones(GRID.shape)), GRID)
    assert (flat.risk_aversion, flat.hedge_threshold) == (0.8, 2.0)
    assert flat.plateau_ratio == pytest.approx(1.0)
    assert "most conservative of 16 points" in flat.why
    # a difference beyond the tolerance is no tie
    mean = np.ones(GRID.shape)
    mean[:2] = 1.5
    assert select_point(blocks_of(mean), GRID, SelectionSettings(tie_frac=0.0)).row == 0


def test_uncertain_profit_is_penalised() -> None:
    grid = Grid((0.1, 1.0), (None,))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(64)
    noise -= noise.mean()
    pnl = np.stack((1.2 + 20.0 * noise, 1.0 + 0.1 * noise))[:, None, :]
    selection = select_point(pnl, grid)
    assert selection.objective[0, 0] < 0.0 < selection.objective[1, 0]
    free = select_point(pnl, grid, SelectionSettings(risk_penalty=0.0))
    assert free.objective[0, 0] == pytest.approx(1.2)


def test_objective_is_the_mean_less_its_standard_error() -> None:
    pnl = np.array([1.0, 3.0, 2.0, 6.0])[None, None, :]
    chosen = select_point(pnl, Grid((0.5,), (None,)), SelectionSettings(risk_penalty=2.0))
    assert chosen.objective[0, 0] == pytest.approx(3.0 - 2.0 * math.sqrt(14 / 3 / 4))
    assert chosen.smoothed[0, 0] == chosen.objective[0, 0]
    assert chosen.plateau_ratio == 1.0
    assert chosen.hedge_threshold is None


def test_points_without_a_result_are_left_out() -> None:
    pnl = blocks_of(np.ones(GRID.shape))
    pnl[3] = np.nan
    chosen = select_point(pnl, GRID)
    assert chosen.row == 2
    assert len(chosen.trial_sharpes) == 12
    pnl[:] = np.nan
    with pytest.raises(CalibrationError, match="none of 16 points"):
        select_point(pnl, GRID)


def test_without_blocks_the_most_conservative_point_is_taken_and_said() -> None:
    for n in (0, 1):
        chosen = select_point(np.ones((*GRID.shape, n)), GRID)
        assert (chosen.risk_aversion, chosen.hedge_threshold) == (0.8, 2.0)
        assert f"{n} whole block(s)" in chosen.why
        assert math.isnan(chosen.plateau_ratio)


def test_a_losing_grid_still_names_its_least_bad_point() -> None:
    mean = -np.ones(GRID.shape)
    mean[1:3, 1:3] = -0.5
    chosen = select_point(blocks_of(mean), GRID)
    assert mean[chosen.row, chosen.column] == -0.5
    assert math.isnan(chosen.plateau_ratio)


@pytest.mark.parametrize(
    ("gammas", "thresholds"),
    [
        ((0.1,), (1.0, 2.0)),
        ((0.1,), (None, 1.0)),
        ((0.2, 0.1), (None,)),
        ((0.1,), (2.0, 2.0, None)),
        ((-0.1,), (None,)),
        ((), (None,)),
        ((math.nan,), (None,)),
    ],
)
def test_grids_that_make_no_sense_are_refused(gammas: tuple[float, ...], thresholds: tuple[float | None, ...]) -> None:
    with pytest.raises(ConfigError):
        Grid(gammas, thresholds)


def test_shape_must_fit_the_grid() -> None:
    with pytest.raises(CalibrationError, match="expected"):
        select_point(np.ones((4, 3, 10)), GRID)
