"""The same port on a real Ray cluster of two workers on this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_platform.core.errors import ConfigError, ConnectivityError
from mm_platform.execution.in_order import WorkerLostError
from mm_platform.execution.local import LocalExecutor
from mm_platform.execution.ray import RayExecutor, local_cluster


def add(item: int, shared: int) -> int:
    return item + shared


def scaled(item: int, shared: dict[str, Any]) -> tuple[float, bool]:
    return float(item * shared["x"].sum() + shared["offset"]), bool(shared["x"].flags.writeable)


def build(arrays: dict[str, Any], rest: float) -> dict[str, Any]:
    return {**arrays, "offset": rest}


def fail_on_two(item: int, shared: object) -> int:
    if item == 2:
        raise ValueError(f"item {item} is wrong")
    return item


def killed_once(item: int, folder: Path) -> int:
    mark = folder / f"{item}"
    if item == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def always_killed_on_one(item: int, shared: object) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.fixture(scope="class")
def cluster() -> Iterator[None]:
    """One cluster for the class: starting one takes seconds. The executor uses the connection it finds."""
    with local_cluster(2, 0):
        yield


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("cluster")
class TestOnACluster:
    def test_results_are_those_of_the_local_executor_in_order(self) -> None:
        arrays = {"x": np.arange(1_000.0), "empty": np.zeros(0, np.int64)}
        expected = list(LocalExecutor(2).map_arrays(scaled, range(5), arrays, 1.5, build))
        assert list(RayExecutor(workers=2).map_arrays(scaled, range(5), arrays, 1.5, build)) == expected
        assert expected[4] == (4 * 499_500.0 + 1.5, True)
        assert list(RayExecutor(workers=2).map(add, range(5), 10)) == [10, 11, 12, 13, 14]

    def test_an_item_that_raises_is_raised_here(self) -> None:
        results = RayExecutor(workers=2).map(fail_on_two, range(4), None)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="^item 2 is wrong$") as raised:
            next(results)
        assert type(raised.value) is ValueError
        assert "fail_on_two" in str(raised.value.__cause__), "Ray's report has the traceback of the worker"

    def test_a_killed_worker_is_replaced(self, tmp_path: Path) -> None:
        assert list(RayExecutor(workers=2).map(killed_once, range(4), tmp_path)) == [0, 1, 4, 9]

    def test_an_item_that_kills_every_worker_is_named(self) -> None:
        with pytest.raises(WorkerLostError, match="2 workers died on item 1, 1"):
            list(RayExecutor(workers=2, tries=2).map(always_killed_on_one, range(3), None))


def test_nothing_to_do_starts_nothing() -> None:
    assert list(RayExecutor("192.0.2.1:1").map(add, [], 0)) == []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_no_cluster_at_the_address_is_said_at_once(address: str) -> None:
    with pytest.raises(ConnectivityError, match=f"no Ray cluster at execution.address = '{address}'"):
        list(RayExecutor(address).map(add, [1], 0))


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'execution.backend = "ray" needs Ray.*mm-platform\[ray\]'):
        list(RayExecutor().map(add, [1], 0))
