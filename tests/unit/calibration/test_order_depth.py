from __future__ import annotations

import numpy as np
import pytest

from mm_platform.calibration.order_depth import DecisionGrid, market_orders, penetration
from mm_platform.core.errors import CalibrationError, DataError
from mm_platform.core.units import NS_PER_S

from .flow import T0, one_sided

# -- market orders --------------------------------------------------------------------------------------------------------------------


def test_prints_of_one_order_are_joined() -> None:
    ts = np.array([10, 10, 10, 10, 20], dtype=np.int64)
    local = np.array([15, 17, 16, 15, 25], dtype=np.int64)
    side = np.array([1, -1, 1, -1, 1], dtype=np.int8)
    price = np.array([101, 99, 104, 97, 102], dtype=np.int64)
    got = market_orders(ts, local, side, price, np.array([1, 2, 3, 4, 5], dtype=np.int64))
    assert got.exch_ts.tolist() == [10, 10, 20]
    assert got.side.tolist() == [-1, 1, 1]
    assert got.worst_ticks.tolist() == [97, 104, 102]
    assert got.lots.tolist() == [6, 4, 5]
    assert got.known_ns.tolist() == [17, 16, 25]


def test_no_prints_are_no_orders_and_bad_prints_are_refused() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert len(market_orders(nothing, nothing, nothing.astype(np.int8), nothing, nothing)) == 0
    one = np.ones(2, dtype=np.int64)
    with pytest.raises(DataError, match="aggressor side 0"):
        market_orders(one, one, np.array([1, 0], dtype=np.int8), one, one)
    with pytest.raises(DataError, match="lies before"):
        market_orders(np.array([2, 1]), one, np.array([1, 1], dtype=np.int8), one, one)


# -- depth from the decision -----------------------------------------------------------------------------------------------------------


def test_depth_counts_from_the_decision_that_could_have_quoted() -> None:
    grid = DecisionGrid(
        T0 + np.arange(4) * NS_PER_S, np.array([100, 105, 110, 110]), np.array([101, 106, 111, 111]), np.array([True, True, True, True])
    )
    # bought at 108: 0.9 s after the first decision, and 0.05 s after the second, whose quote needs 0.1 s to arrive
    orders = one_sided([(0.9, 1, 103), (1.05, 1, 108), (1.5, 1, 108), (1.6, 1, 105), (1.7, -1, 103)])
    through = int(grid.ts_ns[-1]) + NS_PER_S
    late = penetration(orders, grid, "ask", NS_PER_S // 10, through)
    assert late.excess_ticks.tolist() == [2, 7, 2]  # 105 did not reach the touch of its decision
    assert penetration(orders, grid, "ask", 0, through).excess_ticks.tolist() == [2, 2, 2]
    assert penetration(orders, grid, "bid", 0, through).excess_ticks.tolist() == [2]
    assert late.total_s == 3.0
    assert late.half_spread_half_ticks.tolist() == [1, 1, 1]
    assert late.mean_mid_ticks == pytest.approx((100.5 + 105.5 + 110.5) / 3)


def test_holes_and_unknown_books_are_no_exposure() -> None:
    ts = T0 + np.array([0, 1, 2, 60, 61]) * NS_PER_S
    grid = DecisionGrid(ts, np.full(5, 100), np.full(5, 102), np.array([True, False, True, True, True]))
    orders = one_sided([(0.5, 1, 103), (1.5, 1, 103), (30.0, 1, 103), (60.5, 1, 104)])
    seen = penetration(orders, grid, "ask", 0, int(ts[-1]))
    assert seen.excess_ticks.tolist() == [1, 2]
    assert seen.total_s == 2.0
    # with latency the last interval ends after what may be known
    assert penetration(orders, grid, "ask", 1_000, int(ts[-1])).total_s == 1.0
    with pytest.raises(CalibrationError, match="latency -1"):
        penetration(orders, grid, "ask", -1, int(ts[-1]))


def test_a_grid_that_contradicts_itself_is_refused() -> None:
    ts = np.array([1, 2], dtype=np.int64)
    ok = np.array([True, True])
    with pytest.raises(DataError, match="bid 5 and ask 5"):
        DecisionGrid(ts, np.array([4, 5]), np.array([5, 5]), ok)
    with pytest.raises(DataError, match="does not lie after"):
        DecisionGrid(ts[::-1], np.array([4, 4]), np.array([5, 5]), ok)
    with pytest.raises(DataError, match="lengths"):
        DecisionGrid(ts, np.array([4]), np.array([5, 5]), ok)
