"""How days are divided: nothing overlaps, nothing is judged that a fit or the choice has seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.config import Settings
from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_DAY, NS_PER_S
from mm_platform.workflow.plan import make_plan

T0 = 20_000 * NS_PER_DAY


@given(st.integers(200, 10 * 86_400))
def test_no_part_sees_another(seconds: int) -> None:
    plan = make_plan(Settings(), T0, T0 + seconds * NS_PER_S)
    assert plan.start_ns <= plan.choosing[0].train_from_ns
    assert plan.choose_from_ns == plan.choosing[0].judge_from_ns
    assert plan.choosing[-1].judge_until_ns == plan.choose_until_ns
    assert plan.judging[0].judge_from_ns == plan.judge_from_ns >= plan.choose_until_ns + plan.embargo_ns
    assert plan.judging[-1].judge_until_ns == plan.end_ns
    for segment in (*plan.choosing, *plan.judging):
        assert segment.train_from_ns < segment.train_through_ns < segment.judge_from_ns - plan.embargo_ns
        assert segment.judge_until_ns - segment.judge_from_ns <= plan.refit_every_ns


def test_days_are_refitted_daily() -> None:
    plan = make_plan(Settings(), T0, T0 + 5 * NS_PER_DAY)
    assert plan.refit_every_ns == NS_PER_DAY
    assert plan.train_window_ns == NS_PER_DAY
    assert plan.embargo_ns == 300 * NS_PER_S
    assert len(plan.judging) == 3


def test_eight_minutes_are_divided_by_the_same_rule() -> None:
    plan = make_plan(Settings(), T0, T0 + 480 * NS_PER_S)
    assert plan.train_window_ns == 160 * NS_PER_S
    assert len(plan.judging) >= 1


def test_too_short_says_so() -> None:
    with pytest.raises(DataError, match="cannot be divided"):
        make_plan(Settings(), T0, T0 + 60 * NS_PER_S)
