"""The local executor gives the same results in one process and in many, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mm_platform.execution.local import LocalExecutor


def scaled_sum(item: int, shared: dict[str, Any]) -> float:
    return float(item * shared["x"].sum() + shared["offset"])


def build(arrays: dict[str, Any], rest: float) -> dict[str, Any]:
    return {**arrays, "offset": rest}


def add(item: int, shared: int) -> int:
    return item + shared


def fail(item: int, shared: int) -> int:
    raise ValueError(f"item {item}")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    executor = LocalExecutor(workers)
    assert list(executor.map(add, range(5), 10)) == [10, 11, 12, 13, 14]
    got = list(executor.map_arrays(scaled_sum, range(4), {"x": np.arange(4.0)}, 1.0, build))
    assert got == [1.0, 7.0, 13.0, 19.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_item_is_not_swallowed(workers: int) -> None:
    with pytest.raises(ValueError, match="item"):
        list(LocalExecutor(workers).map(fail, range(3), 0))
