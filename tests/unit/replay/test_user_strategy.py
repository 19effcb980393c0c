"""Strategies of the user's own: what they see and may ask for, and that a broken one harms nobody else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from builders import T0, TapeBuilder, random_tape
from test_many_sets import CHEAP, assert_same

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import POSITION
from mm_platform.replay import strategy as at
from mm_platform.replay.order_table import ACTIONS, OUTCOMES
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import RunOptions, ScheduledParameters, SetInput, VenueInput, replay_many
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.strategy import UserStrategy
from mm_platform.tape.features import compute_features

SETTINGS = ReplaySettings(sample_every=10, order_log=True, order_slots=32)


def one_by_one(view, params, state, position_lots, orders, actions):  # type: ignore[no-untyped-def]
    """Keeps one bid a number of ticks below the touch, one lot; a market order sells what it holds beyond three lots."""
    n = 0
    bid = int(view[3 + 1]) - int(params[0])
    if view[3] == 0.0:
        return 0.0
    standing = 0
    for k in range(int(view[2])):
        if orders[4, k] == 2 and orders[1, k] > 0 and orders[2, k] != bid:
            actions[0, n] = 3  # modify
            actions[1, n] = orders[0, k]
            actions[3, n] = bid
            actions[4, n] = orders[3, k]
            n += 1
        if orders[4, k] != 0:
            standing += 1
    state[0] += 1.0
    if standing == 0:
        actions[0, n] = 1
        actions[2, n] = 1
        actions[3, n] = bid
        actions[4, n] = 1
        actions[5, n] = 1
        n += 1
    if position_lots[0] > 3:
        actions[0, n] = 1
        actions[2, n] = -1
        actions[4, n] = position_lots[0]
        actions[5, n] = 2
        actions[6, n] = 2
        actions[9, n] = 1
        n += 1
    return n


def breaks(view, params, state, position_lots, orders, actions):  # type: ignore[no-untyped-def]
    """As above, until the time that the second parameter says; then it breaks in the way that the third says."""
    if view[0] >= params[1]:
        if params[2] == 1.0:
            raise ValueError("no more")
        if params[2] == 2.0:
            return view[0] * float("nan")
        if params[2] == 3.0:
            actions[0, 0] = 1
            actions[2, 0] = 5
            return 1.0
        if params[2] == 4.0:
            return 65.0
    n = 0
    if view[3] == 1.0 and view[2] == 0.0:
        actions[0, 0] = 1
        actions[2, 0] = 1
        actions[3, 0] = int(view[4])
        actions[4, 0] = 1
        n = 1
    return n


def run(decide, rows: list[list[float]], state_size: int = 1, options: RunOptions = RunOptions(), extra=None) -> list[ReplayResult]:  # type: ignore[no-untyped-def]  # noqa: B008
    tape = random_tape(5_000, 5, spec=CHEAP)
    features = compute_features(tape, 500 * NS_PER_MS)
    sets = [SetInput([ScheduledParameters(int(features.grid_ts[4]), row)]) for row in rows]
    return replay_many([VenueInput(tape, features, SETTINGS)], sets, strategy=UserStrategy(decide, state_size), options=options, extra=extra)


def test_a_strategy_places_modifies_and_takes() -> None:
    results = run(one_by_one, [[0.0], [1.0], [2.0]])
    for result in results:
        orders = result.orders
        assert result.status == "done"
        assert orders is not None
        words = {ACTIONS[a] for a in orders.action.tolist()}
        assert words == {"place", "modify"}
        assert "modified" in {OUTCOMES[o] for o in orders.outcome[orders.action == 3].tolist()}
        assert set(result.fills.maker.tolist()) == {0, 1}
        assert result.fills.position_lots.max() <= 5
        assert (result.fills.purpose[result.fills.maker == 0] == 2).all()
        assert result.attribution.residual_quanta == 0
    # further away fills less
    makers = [r.maker_fills for r in results]
    assert makers[0] > makers[1] > makers[2] > 0


def test_a_modified_order_fills_at_its_new_price() -> None:
    """Our bid at 1000 follows the touch to 1001, and is hit there."""
    build = TapeBuilder(CHEAP).book(1000, 1003, 10)
    build.at(2.2).level(1, 1001, 4).at(4.5).trade(-1, 1001, 9).at(8).level(1, 996, 9)
    tape = build.tape()
    features = compute_features(tape, NS_PER_S)
    entry = ScheduledParameters(int(features.grid_ts[0]), [0.0])
    result = replay_many([VenueInput(tape, features, SETTINGS)], [SetInput([entry])], strategy=UserStrategy(one_by_one, 1))[0]
    assert result.fills.price_ticks.tolist() == [1001]
    assert result.fills.order_id.tolist() == [1]
    # the place in the queue is that of the new price: four lots stood there when it came
    assert result.fills.front_arrival_lots.tolist() == [4.0]
    assert result.fills.arrived_ns.tolist() == [T0 + 3 * NS_PER_S + 10 * NS_PER_MS]
    assert int(result.ledger[POSITION]) == 1


def test_compiled_python_threads_and_company_make_no_difference() -> None:
    rows = [[float(k % 3)] for k in range(7)]
    together = run(one_by_one, rows)
    for other in (run(one_by_one, rows, options=RunOptions(threads=2)), run(one_by_one, rows, options=RunOptions(compiled=False))):
        for a, b in zip(together, other, strict=True):
            assert_same(a, b)
    assert_same(together[2], run(one_by_one, [rows[2]])[0])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("how", "said"),
    [(1.0, "raised ValueError: no more"), (2.0, "returned nan"), (3.0, "makes no sense"), (4.0, "makes no sense")],
)
def test_a_set_that_breaks_stops_and_leaves_the_others(how: float, said: str, compiled: bool) -> None:
    good = [0.0, 1e9, 0.0]
    bad = [0.0, 60.0, how]
    options = RunOptions(compiled=compiled)
    alone = run(breaks, [good], options=options)[0]
    results = run(breaks, [bad, good, bad, good], options=options)
    for k in (1, 3):
        assert results[k].status == "done"
        assert_same(results[k], alone)
    for k in (0, 2):
        broken = results[k]
        assert said in broken.status
        stop = broken.from_ns + 60 * NS_PER_S
        assert (broken.fills.exch_ts <= stop).all()
        assert abs(broken.counters.decisions - 121) <= 1
        # until then it did what the others did, and its account stays as it was
        n = len(broken.fills)
        assert n > 0
        for column in dataclasses.fields(alone.fills):
            if column.name != "set_no":
                assert getattr(broken.fills, column.name).tobytes() == getattr(alone.fills, column.name)[:n].tobytes(), column.name
        assert int(broken.ledger[POSITION]) == int(broken.fills.position_lots[-1])
        assert broken.sample_ts[-2] <= stop


def takes_the_hint(view, params, state, position_lots, orders, actions):  # type: ignore[no-untyped-def]
    """Buys a lot at the market when the first extra feature says so."""
    if view[17] > 0.5:
        actions[0, 0] = 1
        actions[2, 0] = 1
        actions[4, 0] = 1
        actions[9, 0] = 1
        return 1
    return 0


def test_features_of_the_users_own() -> None:
    assert at.EXTRA_AT == 17
    tape = random_tape(5_000, 5, spec=CHEAP)
    features = compute_features(tape, 500 * NS_PER_MS)
    hints = np.zeros((len(features), 2))
    hints[[50, 51, 90], 0] = 1.0
    hints[:, 1] = 9.0
    entry = ScheduledParameters(int(features.grid_ts[4]), [])
    result = replay_many([VenueInput(tape, features, SETTINGS)], [SetInput([entry])], strategy=UserStrategy(takes_the_hint), extra=hints)[0]
    orders = result.orders
    assert orders is not None
    assert orders.sent_ns.tolist() == features.grid_ts[[50, 51, 90]].tolist()
    assert result.fills.maker.tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="extra features of shape"):
        replay_many([VenueInput(tape, features, SETTINGS)], [SetInput([entry])], strategy=UserStrategy(takes_the_hint), extra=hints[1:])


def test_strategies_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="6 arguments|is called with 6"):
        run(lambda view: 0.0, [[0.0]])
    with pytest.raises(DataError, match="parameter 0 is nan"):
        run(one_by_one, [[float("nan")]])
    with pytest.raises(DataError, match="differ in length"):
        run(one_by_one, [[0.0], [0.0, 1.0]])
    with pytest.raises(ConfigError, match="state_size is -1"):
        UserStrategy(one_by_one, -1)
