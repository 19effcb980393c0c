"""A market reflected around a constant price gives reflected fills: nothing in the venue or the loop prefers a side."""

from __future__ import annotations

import numpy as np
import pytest
from builders import SPEC, random_tape
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.core.units import NS_PER_MS
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.run import ScheduledParameters, SetInput, VenueInput, replay_many
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.strategy import UserStrategy
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import Tape

MIRROR = 1_000_000


def both_sides(view, params, state, position_lots, orders, actions):  # type: ignore[no-untyped-def]
    """A quote per side, further from the touch on the side that would add to the position; a taker flattens beyond a limit.

    params: the side looked at first (which mirrors the order of actions and ids), distance, lots, limit.
    """
    if view[3] == 0.0:
        return 0
    n = 0
    for k in range(2):
        side = int(params[0]) if k == 0 else -int(params[0])
        touch = int(view[4]) if side > 0 else int(view[5])
        want = touch - side * (int(params[1]) + max(int(side * position_lots[0] / 5), 0))
        standing = 0
        for j in range(int(view[2])):
            if orders[4, j] != 0 and orders[1, j] == side and orders[5, j] == 0:
                standing = 1
                if orders[2, j] != want and orders[4, j] == 2:
                    actions[0, n] = 3 if want % 2 == 0 else 2
                    actions[1, n] = orders[0, j]
                    actions[3, n] = want
                    actions[4, n] = orders[3, j]
                    n += 1
        if standing == 0:
            actions[0, n] = 1
            actions[2, n] = side
            actions[3, n] = want
            actions[4, n] = int(params[2])
            actions[5, n] = 1
            n += 1
    if abs(position_lots[0]) >= params[3]:
        side = -1 if position_lots[0] > 0 else 1
        actions[0, n] = 1
        actions[2, n] = side
        actions[3, n] = (int(view[4]) - 3) if side < 0 else (int(view[5]) + 3)
        actions[4, n] = abs(position_lots[0])
        actions[5, n] = 2
        actions[6, n] = 2
        n += 1
    return n


def mirrored(tape: Tape) -> Tape:
    columns = {name: column.copy() for name, column in tape.columns().items()}
    columns["price_ticks"] = MIRROR - columns["price_ticks"]
    columns["side"] = -columns["side"]
    return Tape.from_columns(tape.spec, columns, sha256="mirrored")


def fills(tape: Tape, first: float, run: ReplaySettings, distance: int, lots: int, limit: int) -> FillTable:
    features = compute_features(tape, 200 * NS_PER_MS)
    entry = ScheduledParameters(int(features.grid_ts[5]), [first, distance, lots, limit])
    return replay_many([VenueInput(tape, features, run)], [SetInput([entry])], strategy=UserStrategy(both_sides))[0].fills


@pytest.mark.parametrize(
    "run",
    [
        ReplaySettings(order_slots=32),
        ReplaySettings(order_slots=32, queue_model="log_prob", entry_latency_ns=310 * NS_PER_MS, response_latency_ns=90 * NS_PER_MS),
        ReplaySettings(order_slots=32, mode="reference", queue_model="power_prob3", partial_fills=False),
        ReplaySettings(order_slots=32, mode="reference", queue_model="power_prob", partial_fills=True, entry_latency_ns=0, response_latency_ns=0),
    ],
    ids=["conservative", "slow", "whole", "partial"],
)
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), distance=st.integers(0, 2), lots=st.integers(1, 30), limit=st.integers(5, 60))
def test_a_mirrored_market_gives_mirrored_fills(run: ReplaySettings, seed: int, distance: int, lots: int, limit: int) -> None:
    tape = random_tape(1_500, seed, spec=SPEC)
    one = fills(tape, 1.0, run, distance, lots, limit)
    two = fills(mirrored(tape), -1.0, run, distance, lots, limit)
    assert len(one) == len(two)
    if distance == 0:
        assert len(one) > 0
    changed = {
        "side": -one.side,
        "price_ticks": MIRROR - one.price_ticks,
        "mid_half_ticks": 2 * MIRROR - one.mid_half_ticks,
        "decided_mid_half_ticks": 2 * MIRROR - one.decided_mid_half_ticks,
        "position_lots": -one.position_lots,
    }
    for name, column in one.columns().items():
        if name != "fee_nano":  # a fraction of the price
            np.testing.assert_array_equal(changed.get(name, column), two.columns()[name], err_msg=name)
