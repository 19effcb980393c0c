"""Run a function over many items on this machine: in process, or in spawned workers that share memory-mapped arrays.

Belongs here: `LocalExecutor` and how arrays travel. Does not belong here: what is run. Workers are spawned, never forked: pyarrow and numba
have threads by the time a sweep starts. Arrays are written once as `.npy` and mapped by every worker, so n workers hold one copy.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
R = TypeVar("R")

_SHARED: Any = None


@dataclass(frozen=True, slots=True)
class SharedArrays:
    """Named arrays in a folder, and a small picklable rest."""

    folder: Path
    names: tuple[str, ...]
    rest: Any

    @classmethod
    def save(cls, folder: Path, arrays: Mapping[str, npt.NDArray[Any]], rest: Any) -> SharedArrays:
        """Write the arrays (`<name>.npy`) into an existing folder."""
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
        return cls(folder, tuple(arrays), rest)

    def load(self) -> dict[str, npt.NDArray[Any]]:
        """Map the arrays; a write would stay private to the process.

        Copy-on-write rather than read-only: to numba a read-only array is another type, and every worker would compile the replay anew.
        """
        return {name: np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in self.names}


def _start_worker(build: Callable[[SharedArrays], Any], shared: SharedArrays) -> None:
    global _SHARED
    _SHARED = build(shared)


def _call(job: tuple[Callable[[Any, Any], Any], Any]) -> Any:
    fn, item = job
    return fn(item, _SHARED)


class LocalExecutor:
    """`core.ports.Executor` on this machine.

    Parameters
    ----------
    workers : int
        Processes; 1 runs in this process. Default: the cores this process may use.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers if workers is not None else len(os.sched_getaffinity(0))

    def map(self, fn: Callable[[T, Any], R], items: Iterable[T], shared: Any) -> Iterator[R]:
        """Results of `fn(item, shared)` in the items' order. `shared` is pickled to each worker once."""
        jobs = list(items)
        if self.workers <= 1 or len(jobs) <= 1:
            for item in jobs:
                yield fn(item, shared)
            return
        yield from self._pool(_identity, SharedArrays(Path(), (), shared), fn, jobs)

    def map_arrays(
        self,
        fn: Callable[[T, Any], R],
        items: Iterable[T],
        arrays: Mapping[str, npt.NDArray[Any]],
        rest: Any,
        build: Callable[[dict[str, npt.NDArray[Any]], Any], Any],
    ) -> Iterator[R]:
        """Like `map`, with `shared = build(arrays, rest)` made once per worker from memory-mapped arrays."""
        jobs = list(items)
        if self.workers <= 1 or len(jobs) <= 1:
            shared = build(dict(arrays), rest)
            for item in jobs:
                yield fn(item, shared)
            return
        with tempfile.TemporaryDirectory(prefix="mm-shared-") as folder:
            yield from self._pool(_build_from_arrays, SharedArrays.save(Path(folder), arrays, (build, rest)), fn, jobs)

    def _pool(self, build: Callable[[SharedArrays], Any], shared: SharedArrays, fn: Callable[[T, Any], R], jobs: list[T]) -> Iterator[R]:
        context = multiprocessing.get_context("spawn")
        workers = min(self.workers, len(jobs))
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(build, shared)) as pool:
            yield from pool.map(_call, [(fn, job) for job in jobs])


def _identity(shared: SharedArrays) -> Any:
    return shared.rest


def _build_from_arrays(shared: SharedArrays) -> Any:
    build, rest = shared.rest
    return build(shared.load(), rest)
