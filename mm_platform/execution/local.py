"""Run a function over many items on this machine: in process, or in spawned workers that share memory-mapped arrays.

Belongs here: `LocalExecutor` and how arrays travel. Does not belong here: what is run. Workers are spawned, never forked: pyarrow and numba
have threads by the time a sweep starts. Arrays are written once as `.npy` and mapped by every worker, so n workers hold one copy.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mm_platform.execution.in_order import in_order

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


def _start_worker(build: Callable[[SharedArrays], Any], shared: SharedArrays) -> int:
    """The first call in a worker. Its process id."""
    global _SHARED
    # Ctrl-C reaches the whole process group; the parent ends the workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _SHARED = build(shared)
    return os.getpid()


def _leave_with_parent() -> None:
    """End this process when the parent does: a killed parent tells nobody, and its workers would stay with their memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _call(fn: Callable[[Any, Any], Any], item: Any) -> Any:
    return fn(item, _SHARED)


class _Processes:
    """One pool of one process per worker: the pool notices a death, and it is the death of one worker only."""

    def __init__(self, fn: Callable[[Any, Any], Any], build: Callable[[SharedArrays], Any], shared: SharedArrays) -> None:
        self._fn, self._build, self._shared = fn, build, shared
        self._started: list[tuple[ProcessPoolExecutor, Future[int]]] = []

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        return (BrokenExecutor,)

    def start(self) -> tuple[ProcessPoolExecutor, Future[Any]]:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        coming_up = pool.submit(_start_worker, self._build, self._shared)
        self._started.append((pool, coming_up))
        return pool, coming_up

    def give(self, worker: ProcessPoolExecutor, item: Any) -> Future[Any]:
        try:
            return worker.submit(_call, self._fn, item)
        except BrokenExecutor as err:  # it died while it had nothing to do
            failed: Future[Any] = Future()
            failed.set_exception(err)
            return failed

    def end(self, *, at_once: bool) -> None:
        """Let the workers go; `at_once`: without waiting for what they are doing."""
        # by the children that live: the id of one that died may be another process's by now
        alive = {child.pid: child for child in multiprocessing.active_children()} if at_once else {}
        for _, coming_up in self._started:
            if coming_up.done() and coming_up.exception() is None and coming_up.result() in alive:
                alive[coming_up.result()].terminate()
        for pool, _ in self._started:
            pool.shutdown(cancel_futures=True)


class LocalExecutor:
    """`core.ports.Executor` on this machine.

    A worker that dies (out of memory, a crash) is replaced and its item run again; the others are not disturbed.

    Parameters
    ----------
    workers : int
        Processes; 1 runs in this process. Default: the cores this process may use.
    tries : int
        How often an item may be begun before its death of workers is an error (`WorkerLostError`).
    """

    def __init__(self, workers: int | None = None, *, tries: int = 3) -> None:
        self.workers = workers if workers is not None else len(os.sched_getaffinity(0))
        self._tries = tries

    def map(self, fn: Callable[[T, Any], R], items: Iterable[T], shared: Any) -> Iterator[R]:
        """Results of `fn(item, shared)` in the items' order. `shared` is pickled to each worker once."""
        source, several = self._several(items)
        if several:
            yield from self._spread(fn, source, _identity, SharedArrays(Path(), (), shared))
            return
        for item in source:
            yield fn(item, shared)

    def map_arrays(
        self,
        fn: Callable[[T, Any], R],
        items: Iterable[T],
        arrays: Mapping[str, npt.NDArray[Any]],
        rest: Any,
        build: Callable[[dict[str, npt.NDArray[Any]], Any], Any],
    ) -> Iterator[R]:
        """Like `map`, with `shared = build(arrays, rest)` made once per worker from memory-mapped arrays."""
        source, several = self._several(items)
        if several:
            with tempfile.TemporaryDirectory(prefix="mm-shared-") as folder:
                yield from self._spread(fn, source, _build_from_arrays, SharedArrays.save(Path(folder), arrays, (build, rest)))
            return
        shared = build(dict(arrays), rest)
        for item in source:
            yield fn(item, shared)

    def _several(self, items: Iterable[T]) -> tuple[Iterator[T], bool]:
        """The items, and whether workers are worth their start."""
        source = iter(items)
        first = list(islice(source, 2))
        return chain(first, source), self.workers > 1 and len(first) > 1

    def _spread(self, fn: Callable[[T, Any], R], items: Iterable[T], build: Callable[[SharedArrays], Any], shared: SharedArrays) -> Iterator[R]:
        processes = _Processes(fn, build, shared)
        finished = False
        try:
            yield from in_order(processes, items, self.workers, self._tries)
            finished = True
        finally:
            processes.end(at_once=not finished)


def _identity(shared: SharedArrays) -> Any:
    return shared.rest


def _build_from_arrays(shared: SharedArrays) -> Any:
    build, rest = shared.rest
    return build(shared.load(), rest)
