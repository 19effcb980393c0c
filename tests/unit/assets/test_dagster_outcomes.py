"""How errors of a step end: the input's fault is said once, what passes is tried again, a bug keeps its traceback."""

from __future__ import annotations

import dagster as dg
import pytest

from assets import outcomes as module
from assets.outcomes import outcomes
from mm_platform.core.errors import ConfigError, ConnectivityError, DataError, InvariantError
from mm_platform.lake.locks import LakeBusy


@pytest.mark.parametrize("kind", [DataError, ConfigError])
def test_wrong_input_fails_with_its_own_words(kind: type[Exception]) -> None:
    with pytest.raises(dg.Failure) as caught, outcomes():
        raise kind("seen this, expected that, do so")
    assert caught.value.description == "seen this, expected that, do so"
    assert caught.value.allow_retries is False


@pytest.mark.parametrize("kind", [LakeBusy, ConnectivityError])
def test_what_passes_by_itself_is_tried_again_with_a_limit(kind: type[Exception]) -> None:
    with pytest.raises(dg.RetryRequested) as caught, outcomes():
        raise kind("busy")
    assert (caught.value.max_retries, caught.value.seconds_to_wait) == (module.RETRIES, module.RETRY_WAIT_S)


@pytest.mark.parametrize("kind", [InvariantError, ZeroDivisionError])
def test_a_bug_stays_what_it_is(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="ours"), outcomes():
        raise kind("ours")


def run(errors: list[Exception]) -> tuple[dg.ExecuteInProcessResult, int]:
    """An asset that raises these in turn, then succeeds; and how often it was started."""
    left, starts = list(errors), []

    @dg.asset
    def step() -> None:
        starts.append(None)
        with outcomes():
            if left:
                raise left.pop(0)

    return dg.materialize([step], raise_on_error=False), len(starts)


def test_dagster_tries_a_busy_lake_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAIT_S", 0.0)
    result, starts = run([LakeBusy("busy"), LakeBusy("busy")])
    assert result.success
    assert starts == 3


def test_dagster_gives_up_on_a_lake_that_stays_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAIT_S", 0.0)
    result, starts = run([LakeBusy("busy")] * 99)
    assert not result.success
    assert starts == 1 + module.RETRIES


def test_dagster_never_tries_bad_data_again() -> None:
    result, starts = run([DataError("a gap at 12:00")])
    assert not result.success
    assert starts == 1
