"""Figures and pictures: the bars sum, unknown numbers stay unknown, every state draws."""

from __future__ import annotations

import math
import subprocess
import sys
from io import BytesIO

import matplotlib.image
import numpy as np
import pytest
from reports import PARTS, curve, empty_curve, grid

from mm_platform.kernels.accounting import Attribution
from mm_platform.report import figures, thumbnails
from mm_platform.report.data import SweepGrid, waterfall
from mm_platform.report.numbers import amount, money, reach_of, roomy


@pytest.mark.parametrize("parts", [PARTS, Attribution(0.1, 0.2, -0.3, 1e-9, 1e9, 0), Attribution(0.0, 0.0, 0.0, 0.0, 0.0, 0)])
def test_the_waterfall_sums_to_the_total(parts: Attribution) -> None:
    assert math.fsum(value for _, value in waterfall(parts)) == parts.total_pnl
    (bars,) = figures.attribution_waterfall(parts).data
    assert math.fsum(bars.y[:-1]) == bars.y[-1] == parts.total_pnl
    assert list(bars.measure) == ["relative"] * 5 + ["total"]


def test_the_waterfall_has_room_for_every_bar_and_label() -> None:
    figure = figures.attribution_waterfall(PARTS)
    low, high = figure.layout.yaxis.range
    assert low < 0.0
    assert high > 512.3
    assert figure.data[0].text[0] == "512.30"


def test_the_equity_figure_shows_the_curve_and_its_peak() -> None:
    given = curve()
    peak, pnl, inventory, mid = figures.equity_and_inventory(given).data
    assert np.array_equal(pnl.y, given.pnl_quote)
    assert np.array_equal(inventory.y, given.inventory_base)
    assert np.array_equal(mid.y, given.mid)
    assert (peak.y >= np.maximum(pnl.y, 0.0)).all()
    assert peak.y[-1] == max(0.0, given.pnl_quote.max())
    assert pnl.x[0] == np.datetime64(int(given.ts_ns[0]), "ns")


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (figures.equity_and_inventory(empty_curve()), "nothing was replayed"),
        (figures.markout_curve({}), "there are no mark-outs"),
        (figures.markout_curve({1.0: math.nan}), "there are no mark-outs"),
    ],
)
def test_a_figure_without_data_says_so(figure, text: str) -> None:  # type: ignore[no-untyped-def]
    assert not figure.data
    assert text in figure.layout.annotations[0].text
    assert figure.layout.xaxis.visible is False


def test_unknown_horizons_are_named_and_not_drawn() -> None:
    (line,) = figures.markout_curve({1.0: -0.5, 300.0: math.nan}).data
    assert list(line.x) == ["1 s", "300 s (unknown)"]
    assert list(line.y) == [-0.5, None]


def test_the_heat_maps_frame_the_chosen_cell_and_leave_unknown_cells_grey() -> None:
    values = np.array([[1.0, math.nan, -2.0]])
    sweep = SweepGrid((0.1,), (1.0, 2.0, None), values, np.full((1, 3), math.nan), (0, 2))
    figure = figures.sweep_heatmaps(sweep)
    left, right = figure.data
    assert (left.zmin, left.zmax) == (-2.0, 2.0)
    assert list(left.text[0]) == ["1.00", "–", "-2.00"]
    assert list(right.text[0]) == ["–"] * 3
    assert list(left.x) == ["1", "2", "never"]
    assert [(s.x0, s.x1, s.y0, s.y1) for s in figure.layout.shapes] == [(1.5, 2.5, -0.5, 0.5)] * 2
    assert {s.xref for s in figure.layout.shapes} == {"x", "x2"}


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_in_cells_can_be_read_on_every_colour() -> None:
    """WCAG contrast of at least 4.5 between the text and the ends of the scale."""
    for colour in [c for _, c in figures.LOSS_TO_PROFIT] + [figures.UNKNOWN_CELL]:
        assert (luminance(colour) + 0.05) / (luminance(figures.INK) + 0.05) >= 4.5


@pytest.mark.parametrize(
    "png",
    [
        thumbnails.equity_png(curve()),
        thumbnails.equity_png(empty_curve()),
        thumbnails.sweep_png(grid()),
        thumbnails.sweep_png(SweepGrid((0.1,), (None,), np.array([[math.nan]]), np.array([[0.0]]), (0, 0))),
        thumbnails.attribution_png(PARTS),
        thumbnails.attribution_png(Attribution(0.0, 0.0, 0.0, 0.0, 0.0, 0)),
    ],
)
def test_pictures_are_pngs_with_something_on_them(png: bytes) -> None:
    pixels = matplotlib.image.imread(BytesIO(png))
    assert min(pixels.shape[:2]) > 200
    assert float(pixels[..., :3].min()) < 0.8


def test_pictures_leave_the_callers_backend_alone() -> None:
    code = (
        "import matplotlib; matplotlib.use('svg'); from mm_platform.report import thumbnails; "
        "import sys; assert matplotlib.get_backend() == 'svg'; assert 'plotly' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "reach", "text"),
    [
        (0.0, None, "0"),
        (1234.56, None, "1,235"),
        (12.34, None, "12.3"),
        (-0.01234, None, "-0.0123"),
        (3.2, 1234.0, "3"),
        (3.2, 50.0, "3.2"),
        (math.nan, None, "–"),
        (math.inf, 1.0, "–"),
    ],
)
def test_amounts_have_three_digits_of_their_reach(value: float, reach: float | None, text: str) -> None:
    assert amount(value, reach) == text


def test_money_shows_cents_and_does_not_round_small_profit_away() -> None:
    assert [money(v) for v in (1234.5, -1.0, 0.0, 0.00123, math.nan)] == ["1,234.50", "-1.00", "0.00", "0.00123", "–"]


def test_scales_have_an_end_even_where_nothing_is_known() -> None:
    assert reach_of([math.nan, -3.0, 2.0]) == 3.0
    assert reach_of([math.nan]) == reach_of([]) == reach_of([0.0]) == 1.0
    assert roomy(np.array([0.0, 10.0]), 0.1) == (-1.0, 11.0)
    assert roomy(np.array([0.0, 0.0]), 0.1) == (-0.1, 0.1)
