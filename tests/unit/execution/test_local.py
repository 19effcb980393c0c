"""The local executor gives the same results in one process and in many, in order, whatever happens to its workers."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_platform.execution.in_order import WorkerLostError
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
def test_nothing_to_do_and_one_thing_to_do(workers: int) -> None:
    executor = LocalExecutor(workers)
    assert list(executor.map(add, [], 10)) == []
    assert list(executor.map(add, [1], 10)) == [11]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_item_is_not_swallowed(workers: int) -> None:
    with pytest.raises(ValueError, match="item"):
        list(LocalExecutor(workers).map(fail, range(3), 0))


# -- workers that die ----------------------------------------------------------------------------------------------------------------


def note(folder: Path, item: int) -> int:
    """How often the item has been begun by now."""
    (folder / f"{item}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return begun(folder, item)


def begun(folder: Path, item: int) -> int:
    return len(list(folder.glob(f"{item}-*")))


def killed_once(item: int, folder: Path) -> int:
    if note(folder, item) == 1 and item in (1, 4):
        os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does when memory runs out
    return item * item


def always_crashes_on_two(item: int, folder: Path) -> int:
    note(folder, item)
    if item == 2:
        ctypes.string_at(0)  # a segmentation fault
    return item


def test_a_killed_worker_is_replaced_and_only_its_item_runs_again(tmp_path: Path) -> None:
    assert list(LocalExecutor(2).map(killed_once, range(6), tmp_path)) == [0, 1, 4, 9, 16, 25]
    assert [begun(tmp_path, item) for item in range(6)] == [1, 2, 1, 1, 2, 1]


def test_an_item_that_crashes_every_worker_is_named_after_so_many_tries(tmp_path: Path) -> None:
    results = LocalExecutor(2, tries=2).map(always_crashes_on_two, range(5), tmp_path)
    assert [next(results), next(results)] == [0, 1], "what came before it is delivered"
    with pytest.raises(WorkerLostError, match=r"2 workers died on item 2, 2: .*NUMBA_BOUNDSCHECK"):
        next(results)
    assert begun(tmp_path, 2) == 2
    assert not multiprocessing.active_children()


def cannot_build(arrays: dict[str, Any], rest: float) -> None:
    raise RuntimeError("the tape is gone")


def dies_building(arrays: dict[str, Any], rest: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_cannot_start_says_why() -> None:
    x = {"x": np.arange(4.0)}
    with pytest.raises(RuntimeError, match="the tape is gone"):
        list(LocalExecutor(2).map_arrays(scaled_sum, range(4), x, 1.0, cannot_build))
    with pytest.raises(WorkerLostError, match="2 workers in a row died before their first item"):
        list(LocalExecutor(2, tries=2).map_arrays(scaled_sum, range(4), x, 1.0, dies_building))
    assert not multiprocessing.active_children()


# -- streaming -----------------------------------------------------------------------------------------------------------------------


def waits_for_word(item: int, folder: Path) -> int:
    while item >= 2 and not (folder / "go").exists():
        time.sleep(0.01)
    return item


def test_a_result_leaves_before_later_ones_are_there(tmp_path: Path) -> None:
    results = LocalExecutor(2).map(waits_for_word, range(4), tmp_path)
    assert [next(results), next(results)] == [0, 1]
    (tmp_path / "go").touch()
    assert list(results) == [2, 3]


def counted(taken: list[int]) -> Iterator[int]:
    for item in range(10_000):
        taken.append(item)
        yield item


def test_items_are_taken_as_they_are_needed_and_a_caller_may_leave() -> None:
    taken: list[int] = []
    results = LocalExecutor(2).map(add, counted(taken), 0)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) < 200
    assert multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def sleep_long(item: int, folder: Path) -> int:
    note(folder, item)
    time.sleep(600)
    return item


def test_workers_leave_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from mm_platform.execution.local import LocalExecutor
        from test_local import sleep_long
        if __name__ == "__main__":
            list(LocalExecutor(2).map(sleep_long, range(2), Path({str(tmp_path)!r})))
        """)
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    until = time.monotonic() + 60
    while not (begun(tmp_path, 0) and begun(tmp_path, 1)) and time.monotonic() < until:
        time.sleep(0.05)
    workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("[01]-*")]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
