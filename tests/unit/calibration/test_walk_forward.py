from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.calibration.walk_forward import inventory_life_s, purged_train_rows, segments
from mm_platform.core.errors import ConfigError, DataError


def test_every_piece_is_judged_by_an_earlier_fit() -> None:
    found = segments(0, 100, 40, 25, 30, 5)
    assert [(s.judge_from_ns, s.judge_until_ns) for s in found] == [(40, 65), (65, 90), (90, 100)]
    assert [(s.train_from_ns, s.train_through_ns) for s in found] == [(5, 34), (30, 59), (55, 84)]


def test_the_first_window_is_as_long_as_the_data_allow() -> None:
    assert segments(10, 100, 40, 60, 1_000, 0)[0].train_from_ns == 10


@given(
    start=st.integers(0, 10**6), lead=st.integers(2, 10**5), judged=st.integers(1, 10**5), refit=st.integers(100, 10**5),
    train=st.integers(1, 10**5), embargo=st.integers(0, 10**5),
)  # fmt: skip
def test_judged_time_is_covered_once_and_never_seen(start: int, lead: int, judged: int, refit: int, train: int, embargo: int) -> None:
    judge_from = start + lead + embargo
    end = judge_from + judged
    found = segments(start, end, judge_from, refit, train, embargo)
    assert found[0].judge_from_ns == judge_from
    assert found[-1].judge_until_ns == end
    for before, after in pairwise(found):
        assert before.judge_until_ns == after.judge_from_ns
    for s in found:
        assert start <= s.train_from_ns <= s.train_through_ns < s.judge_from_ns - embargo
        assert s.train_through_ns - s.train_from_ns < train
        assert 0 < s.judge_until_ns - s.judge_from_ns <= refit
        assert s.train_through_ns < s.judge_from_ns


def test_windows_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to judge"):
        segments(0, 100, 100, 10, 10, 0)
    with pytest.raises(DataError, match="nothing to train on"):
        segments(0, 100, 5, 10, 10, 5)
    with pytest.raises(ConfigError, match="refit every 0"):
        segments(0, 100, 50, 0, 10, 0)


def test_an_inventory_shows_for_three_relaxation_times() -> None:
    assert inventory_life_s(586.0) == pytest.approx(1758.0)


def test_purge_sizes_of_five_folds() -> None:
    sizes = [len(purged_train_rows(100, f * 20, f * 20 + 19, 4, 3)) for f in range(5)]
    assert sizes == [73, 69, 69, 69, 76]
    with pytest.raises(ConfigError):
        purged_train_rows(10, 5, 10, 1, 1)
