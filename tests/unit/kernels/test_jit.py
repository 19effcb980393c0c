"""Kernels and users' functions as their arguments: same results as Python, errors that reach the caller, refusals that say why."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from mm_platform.core.errors import ConfigError
from mm_platform.kernels.jit import fixed_signature, kernel, signature_of


class State(NamedTuple):
    counts: np.ndarray
    values: np.ndarray


@kernel
def drive(fn, counts, values, n):
    total = 0.0
    for s in range(counts.shape[0]):
        for k in range(n):
            total += fn(State(counts[s], values[s]), 1.0 * k)
            counts[s, 0] += 1
    return total


@kernel
def drive_on(fn, counts, values, n, stopped):
    total = 0.0
    for s in range(counts.shape[0]):
        for k in range(n):
            if stopped[s] < 0:
                try:
                    total += fn(State(counts[s], values[s]), 1.0 * k)
                except Exception:  # noqa: BLE001 numba can catch nothing finer
                    stopped[s] = k
    return total


def accumulate(state, now_s):
    state.values[0] += now_s
    return state.values[0]


def allocate(state, now_s):
    drawn = np.full(3, now_s)
    return drawn.sum() + state.values[0]


def refuse_late(state, now_s):
    if now_s > 2.0 and state.values[1] > 0.0:
        raise ValueError("too late for this set")
    return now_s


def states(n: int) -> State:
    return State(np.zeros((n, 2), np.int64), np.zeros((n, 2)))


def fixed(fn: Callable[..., Any], **how: bool) -> Any:
    one = states(1)
    return fixed_signature(fn, signature_of(0.0, State(one.counts[0], one.values[0]), 0.0), **how)


@pytest.mark.parametrize("fn", [accumulate, allocate])
def test_a_users_function_gives_what_python_gives(fn: Callable[..., float]) -> None:
    a, b = states(3), states(3)
    assert drive.compiled(fixed(fn), *a, 5) == drive(fn, *b, 5)
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(a.counts, b.counts)


def test_one_compiled_loop_serves_every_function() -> None:
    for fn in (accumulate, allocate, refuse_late):
        drive.compiled(fixed(fn), *states(1), 1)
    assert len(drive.compiled.signatures) == 1  # type: ignore[attr-defined]


def test_a_kernel_and_a_jitted_function_are_taken_too() -> None:
    expected = drive(accumulate, *states(2), 4)
    assert drive.compiled(fixed(kernel(accumulate)), *states(2), 4) == expected
    assert drive.compiled(fixed(numba.njit(accumulate)), *states(2), 4) == expected


class Model(NamedTuple):
    power: float
    weigh: Callable[[float, float], float]


@kernel
def weighed(model, n):
    total = 0.0
    for k in range(n):
        total += model.weigh(1.0 * k, model.power)
    return total


def test_a_function_may_travel_in_a_named_tuple() -> None:
    def product(x, y):
        return x * y

    def quotient(x, y):
        return x / y

    for fn, expected in ((product, 12.0), (quotient, 3.0)):
        assert weighed.compiled(Model(2.0, fixed_signature(fn, signature_of(0.0, 0.0, 0.0))), 4) == expected
        assert weighed(Model(2.0, fn), 4) == expected
    assert len(weighed.compiled.signatures) == 1  # type: ignore[attr-defined]


def test_an_exception_reaches_the_caller_with_its_message() -> None:
    mine = states(2)
    mine.values[1, 1] = 1.0
    with pytest.raises(ValueError, match="too late for this set"):
        drive.compiled(fixed(refuse_late), *mine, 5)
    assert mine.counts[:, 0].tolist() == [5, 3]


def test_a_loop_can_stop_the_set_that_raised_and_go_on() -> None:
    mine, stopped = states(3), np.full(3, -1)
    mine.values[1, 1] = 1.0
    assert drive_on.compiled(fixed(refuse_late), *mine, 5, stopped) == 10.0 + 3.0 + 10.0
    assert stopped.tolist() == [-1, 3, -1]


def test_only_a_function_that_allocates_is_reference_counted() -> None:
    assert fixed(accumulate).targetoptions.get("_nrt") is False
    assert "_nrt" not in fixed(allocate).targetoptions


def test_division_by_zero_is_numpys_as_in_every_kernel() -> None:
    def divide(state, now_s):
        return 1.0 / state.values[0] + now_s

    assert np.isinf(fixed(divide)(State(np.zeros(2, np.int64), np.zeros(2)), 1.0))


def test_the_same_function_is_compiled_once_and_let_go_when_unused() -> None:
    first = fixed(accumulate)
    assert fixed(accumulate) is first
    watched = weakref.ref(first)
    del first
    gc.collect()
    assert watched() is None, "machine code of dropped functions would pile up in a notebook"


FACTOR = 2.0


def scaled(state, now_s):
    return FACTOR * now_s


def test_a_changed_global_is_seen_by_the_next_fixed_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fixed(scaled)
    assert drive.compiled(before, *states(1), 3) == 6.0
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 10.0)
    assert drive.compiled(fixed(scaled), *states(1), 3) == 30.0
    assert drive.compiled(before, *states(1), 3) == 6.0, "frozen when it was compiled"


def test_a_closure_is_told_by_its_values() -> None:
    def times(factor: float) -> Callable[..., float]:
        def inner(state, now_s):
            return factor * now_s

        return inner

    assert [drive.compiled(fixed(times(f)), *states(1), 3) for f in (1.0, 5.0, 1.0)] == [3.0, 15.0, 3.0]


def too_few(state):
    return 0.0


def returns_nothing(state, now_s):
    state.values[0] = now_s


def unknown_field(state, now_s):
    return state.vlaues[0]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (too_few, r"too_few \(.*test_jit.py, line \d+\) takes 1 arguments, and is called with 2"),
        (returns_nothing, r"returns_nothing .* does not compile"),
        (unknown_field, r"unknown_field .* does not compile.*vlaues"),
        (np.sin, "is no Python function"),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_place(fn: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        fixed(fn)


def test_a_function_that_returns_an_array_is_refused() -> None:
    one = State(np.zeros(2, np.int64), np.zeros(2))
    with pytest.raises(ConfigError, match="returns a number or a bool"):
        fixed_signature(accumulate, signature_of(np.zeros(1), one, 0.0))


def test_without_the_cache_nothing_is_written(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fixed(lambda state, now_s: now_s + 0.125, cache=False)
    assert made(State(np.zeros(2, np.int64), np.zeros(2)), 1.0) == 1.125
    assert made.stats.cache_path is None
