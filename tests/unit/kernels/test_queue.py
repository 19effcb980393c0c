"""Queue positions: numbers worked out by hand, the models' properties, a user's own model in both twins."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError
from mm_platform.kernels.exchange import GTX, LIMIT, RESTING, UNDEFINED
from mm_platform.kernels.levels import CONSERVATIVE, OK, REFERENCE
from mm_platform.kernels.queue import (
    LOG_PROB,
    LOG_PROB2,
    POWER_PROB,
    POWER_PROB2,
    POWER_PROB3,
    QUEUE_MODELS,
    RISK_ADVERSE,
    USER_MODEL,
    behind_probability,
    compiled_params,
    exchange_params,
    queue_after_depth,
    round_half_away,
)
from mm_platform.kernels.venue import DEPTH, FLAG_LAST, PLACE, TRADE, new_venue, venue_on_request, venue_on_row

QUANTITY = st.floats(0.001, 1000.0)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # 3 ahead, 1 behind, n = 2
        (LOG_PROB, math.log(2) / (math.log(2) + math.log(4))),  # 1/3
        (LOG_PROB2, math.log(2) / math.log(5)),
        (POWER_PROB, 1 / 10),
        (POWER_PROB2, 1 / 16),
        (POWER_PROB3, 1 - 9 / 16),
    ],
)
def test_chance_that_a_decrease_happened_behind_us(model: int, expected: float) -> None:
    assert behind_probability(model, 2.0, 3.0, 1.0) == pytest.approx(expected, rel=1e-15)


def test_a_decrease_worked_out_by_hand() -> None:
    """10 at the level, 6 ahead of us; it falls to 5, of which 2 were printed: 3 were cancelled."""
    x = exchange_params(REFERENCE, POWER_PROB, 1.0, 0.001)
    # p = 4 / (4 + 6) = 0.4 behind: 1.8 of the 3 were ahead of us, and 1.2 behind leave 2.8 there; no more than 5 can be ahead
    assert queue_after_depth(x, 6.0, 2.0, 10.0, 5.0) == pytest.approx(4.2)
    # nothing was cancelled when the prints explain it all, or more
    assert queue_after_depth(x, 4.0, 6.0, 10.0, 5.0) == 4.0
    assert queue_after_depth(x, 6.0, 6.0, 10.0, 5.0) == 5.0
    # p * 8 = 3.2 would have left behind us, where only 0 stood: what is missing came from the front
    assert queue_after_depth(x._replace(queue_model=POWER_PROB3, power=0.5), 10.0, 0.0, 10.0, 2.0) == pytest.approx(2.0)
    assert queue_after_depth(x._replace(queue_model=RISK_ADVERSE), 6.0, 2.0, 10.0, 5.0) == 5.0


def test_where_nothing_is_defined() -> None:
    x = exchange_params(REFERENCE, LOG_PROB, 1.0, 0.001)
    assert math.isnan(queue_after_depth(x, 0.0, 0.0, 0.0, 0.0))
    assert math.isnan(behind_probability(POWER_PROB3, 2.0, 1.0, -1.0))
    assert math.isnan(behind_probability(POWER_PROB, 0.5, -1.0, 1.0))
    assert behind_probability(LOG_PROB2, 0.0, -1.0, 1.0) == 1.0, "an infinite chance is certainty"


@given(st.sampled_from(sorted(QUEUE_MODELS.values())), st.floats(0.5, 4.0), QUANTITY, QUANTITY, QUANTITY, st.floats(0.0, 10.0))
def test_a_depth_row_never_puts_more_ahead_of_us(model: int, power: float, front: float, more: float, after: float, traded: float) -> None:
    x = exchange_params(REFERENCE, model, power, 0.001)
    moved = queue_after_depth(x, front, traded, front + more, after)
    assert moved <= min(front, after) + 1e-9 * front
    assert queue_after_depth.compiled(compiled_params(x), front, traded, front + more, after) == moved


@given(QUANTITY, QUANTITY, st.floats(0.0, 1.0), st.sampled_from([(LOG_PROB2, 1.0), (POWER_PROB3, 1.0), (POWER_PROB3, 3.0), (POWER_PROB, 1.0)]))
def test_models_that_never_move_us_beyond_the_front(front: float, more: float, left: float, model: tuple[int, float]) -> None:
    before = front + more
    assert queue_after_depth(exchange_params(REFERENCE, *model, 0.001), front, 0.0, before, before * left) >= -1e-9 * before


@given(QUANTITY, QUANTITY, st.floats(0.0, 1.0), st.sampled_from([LOG_PROB, LOG_PROB2, POWER_PROB]))
def test_lots_and_base_give_the_same_place(front: float, more: float, left: float, model: int) -> None:
    """Logarithms depend on the unit: whichever the book counts in, the model means base."""
    before = front + more
    base = queue_after_depth(exchange_params(REFERENCE, model, 2.0, 0.001), front, 0.0, before, before * left)
    lots = queue_after_depth(exchange_params(CONSERVATIVE, model, 2.0, 0.001), 1000 * front, 0.0, 1000 * before, 1000 * before * left)
    assert lots == pytest.approx(1000 * base, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize(
    ("x", "expected"), [(0.5, 1), (-0.5, -1), (0.49999999999999994, 0), (2.5, 3), (-2.4, -2), (4503599627370497.5, 4503599627370498)]
)
def test_rounding_away_from_nought(x: float, expected: float) -> None:
    assert round_half_away(x) == round_half_away.compiled(x) == expected


def half(front: float, back: float) -> float:
    return 0.5


def quarter(front: float, back: float) -> float:
    return 0.25


def unknown(front: float, back: float) -> float:
    return math.nan


@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize(("model", "ahead"), [(half, 4.0), (quarter, 3.0), (unknown, 8.0)])
def test_a_model_of_the_users(twin: bool, model, ahead: float) -> None:  # type: ignore[no-untyped-def]
    """6 ahead of us, 6 join behind, then 4 are cancelled: two or three of them ahead of us; unknown: all 8 that are left are ahead."""
    x = exchange_params(CONSERVATIVE, USER_MODEL, 0.0, 0.001, behind=model)
    row, ask = venue_on_row, venue_on_request
    if twin:
        x, row, ask = compiled_params(x), venue_on_row.compiled, venue_on_request.compiled  # type: ignore[assignment]
    venue = new_venue(1, 4, 90, 110)
    assert row(x, venue, DEPTH, 1, FLAG_LAST, 100, 6.0, -1) == OK
    assert ask(x, venue, 0, 1, 0, PLACE, 1, 1, 100, 5, GTX, LIMIT, 0) == RESTING
    row(x, venue, DEPTH, 1, FLAG_LAST, 100, 12.0, -1)
    row(x, venue, DEPTH, 1, FLAG_LAST, 100, 8.0, -1)
    assert venue.own.i[UNDEFINED] == (model is unknown)
    row(x, venue, TRADE, -1, FLAG_LAST, 100, ahead, -1)
    assert venue.executions.n[0] == 0
    row(x, venue, TRADE, -1, FLAG_LAST, 100, 1.0, -1)
    assert venue.executions.lots[: venue.executions.n[0]].tolist() == [1]


def text(front: float, back: float) -> str:
    return str(front)


def test_a_model_that_does_not_compile_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"text .* does not compile"):
        compiled_params(exchange_params(CONSERVATIVE, USER_MODEL, 0.0, 0.001, behind=text))  # type: ignore[arg-type]
