"""Limits hold for takers as for quotes, whatever comes together; what is not allowed costs no place in a queue."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import T0, decision_params, random_tape

from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import POSITION
from mm_platform.kernels.decision import (
    ACT_CANCEL,
    ACT_PLACE,
    COOLDOWN_UNTIL,
    HALTED_LATCH,
    NO_VIEW,
    TOKENS,
    Actions,
    DecisionParams,
    LocalState,
    MarketView,
    decide_step,
    new_actions,
    new_local_state,
)
from mm_platform.kernels.orders import FLATTEN, HEDGE, LIVE, QUOTE, local_add
from mm_platform.kernels.risk import LIMIT_BID, RiskParams
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import compute_features

VIEW = MarketView(1, 500_000, 500_004, 50_000.2, 0.0, math.nan, math.nan)
OFF = (math.inf, 0, 0, math.inf, math.inf, math.inf)


def params(threshold: float = 0.003, target: float = 0.0, position_lots: int = 100, order_lots: int = 10, **kwargs: float) -> DecisionParams:
    """Hedges at once and in whole; a rebate lets the quotes stand at the touch."""
    p = decision_params(threshold=threshold, order_lots=order_lots, position_lots=position_lots, **kwargs)  # type: ignore[arg-type]
    return p._replace(
        hedge=p.hedge._replace(target=target, max_latency_s=0.0), quote=p.quote._replace(maker_fee=-2e-6), money=p.money._replace(maker_fee=-2e-6)
    )


def state_at(p: DecisionParams, position: int) -> LocalState:
    state = new_local_state(T0, p.orders)
    state.ledger[POSITION] = position
    return state


def placed(actions: Actions, purpose: int) -> list[int]:
    """Signed lots of the orders sent."""
    return [int(actions.side[k] * actions.lots[k]) for k in range(actions.n[0]) if actions.kind[k] == ACT_PLACE and actions.purpose[k] == purpose]


def decide(p: DecisionParams, state: LocalState) -> Actions:
    actions = new_actions()
    decide_step.compiled(p, VIEW, NO_VIEW, state, actions, T0 + 10 * NS_PER_S)
    return actions


def run(p: DecisionParams, seed: int) -> ReplayResult:
    tape = random_tape(8_000, seed)
    features = compute_features(tape, 500 * NS_PER_MS)
    settings = ReplaySettings(entry_latency_ns=300 * NS_PER_MS, response_latency_ns=300 * NS_PER_MS)
    return replay(tape, features, [ScheduledParameters(int(features.grid_ts[0]), p)], settings)


def test_a_hedge_is_no_larger_than_an_order_may_be() -> None:
    """The live order gate refuses larger ones: a replay that fills them judges what cannot run."""
    p = params(risk=RiskParams(7, 100, *OFF))  # type: ignore[arg-type]
    assert placed(decide(p, state_at(p, 50)), HEDGE) == [-7]
    assert placed(decide(p, state_at(p, -3_000)), HEDGE) == [7]


def test_flattening_goes_in_one_order() -> None:
    p = params(threshold=math.inf, risk=RiskParams(7, 100, *OFF))  # type: ignore[arg-type]
    state = state_at(p, 50)
    state.i[HALTED_LATCH] = 1
    assert placed(decide(p, state), FLATTEN) == [-50]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_flattening_never_builds_a_position(seed: int) -> None:
    """A quote of the same side fills while the order travels: the rest of it expires at the venue, as a reduce-only order does."""
    fills = run(params(threshold=math.inf, position_lots=15, order_lots=40, risk=RiskParams(40, 15, 1e-6, *OFF[1:])), seed).fills  # type: ignore[arg-type]
    flat = fills.purpose == FLATTEN
    before = fills.position_lots - fills.side * fills.lots
    assert flat.sum() > 5
    assert (before[flat] * fills.side[flat] < 0).all()
    assert (before[flat] * fills.position_lots[flat] >= 0).all()
    assert np.abs(fills.position_lots).max() <= 15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hedging_towards_a_target_keeps_the_position_limit(seed: int) -> None:
    result = run(params(target=0.02, position_lots=5, order_lots=1), seed)
    assert result.counters.hedges > 0
    assert np.abs(result.fills.position_lots).max() <= 5


def test_a_hedge_leaves_room_for_the_quote_that_stands_beside_it() -> None:
    """Long 12 of 15 with an ask of 25: a hedge of 12 besides would end 25 short."""
    p = params(position_lots=15, order_lots=25, risk=RiskParams(40, 15, *OFF))  # type: ignore[arg-type]
    state = state_at(p, 12)
    state.orders.status[local_add(state.orders, 1, 0, -1, 500_010, 25, QUOTE)] = LIVE
    assert placed(decide(p, state), HEDGE) == [-2]


@pytest.mark.parametrize("latch", ["halted", "cooldown"])
def test_after_a_stop_nothing_builds_a_position(latch: str) -> None:
    p = params(target=0.02)
    state = state_at(p, 0)
    assert placed(decide(p, state), HEDGE) == [20]
    state = state_at(p, 0)
    if latch == "halted":
        state.i[HALTED_LATCH] = 1
    else:
        state.i[COOLDOWN_UNTIL] = T0 + 60 * NS_PER_S
    assert decide(p, state).n[0] == 0


def test_cooling_down_still_hedges_what_came_late() -> None:
    p = params(target=-0.02)
    state = state_at(p, 12)
    state.i[COOLDOWN_UNTIL] = T0 + 60 * NS_PER_S
    assert placed(decide(p, state), HEDGE) == [-12]


def test_a_hedge_that_the_budget_holds_back_cancels_nothing() -> None:
    p = params(orders_per_s=0.0)
    state = state_at(p, 50)
    state.f[TOKENS] = 0.5
    # the bid that the hedge would hit stands where it is wanted
    wanted = int(decide_step(p, VIEW, NO_VIEW, state_at(p, 50), new_actions(), T0 + 10 * NS_PER_S).wanted_bid_ticks)
    state.orders.status[local_add(state.orders, 1, 0, 1, wanted, 10, QUOTE)] = LIVE
    actions = decide(p, state)
    assert wanted > 0
    assert actions.n[0] == 0
    assert state.orders.status[0] == LIVE


def test_a_limit_that_comes_down_pulls_the_quote_that_stands_beyond_it() -> None:
    """New parameters at a higher price make fewer lots of the same notional."""
    p = params(threshold=math.inf, risk=RiskParams(10, 95, *OFF))  # type: ignore[arg-type]
    state = state_at(p, 90)
    wanted = int(decide_step(p, VIEW, NO_VIEW, state_at(p, 90), new_actions(), T0 + 10 * NS_PER_S).wanted_bid_ticks)
    state.orders.status[local_add(state.orders, 1, 0, 1, wanted, 10, QUOTE)] = LIVE
    actions = new_actions()
    trace = decide_step.compiled(p, VIEW, NO_VIEW, state, actions, T0 + 10 * NS_PER_S)
    assert wanted > 0
    assert (int(actions.kind[0]), int(actions.side[0])) == (ACT_CANCEL, 1)
    assert trace.reasons & LIMIT_BID
