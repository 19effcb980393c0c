"""Give items to workers that may die, and hand their results back in the items' order.

Belongs here: what the executors do alike (who gets which item, what is tried again, in which order results leave). Does not belong here: how a
worker is started and spoken to.

A worker holds one item at a time, so when it dies it is known which item it was at; only that one runs again, in a new worker. An item that raises
is not tried again: it would raise again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from mm_platform.core.errors import MMError

T = TypeVar("T")
W = TypeVar("W")

# finished results that wait for an earlier one, per worker; beyond that no new items are given out
_WAITING_PER_WORKER: Final = 16
_SHOWN_CHARACTERS: Final = 500


class WorkerLostError(MMError):
    """Workers died on the same item as often as it may be tried, or before they had any."""


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


class Workers(Protocol[W]):
    """Workers as `in_order` drives them; whoever calls it ends them."""

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        """Exceptions of a future that mean: the worker is gone."""

    def start(self) -> tuple[W, Future[Any]]:
        """Start one; the future is done when it can take an item, and raises what kept it from that."""

    def give(self, worker: W, item: Any) -> Future[Any]:
        """Have it run one item."""


def in_order(workers: Workers[W], items: Iterable[T], count: int, tries: int) -> Iterator[Any]:
    """Results in the items' order, each as soon as all earlier ones are there.

    Parameters
    ----------
    workers
        Started here as needed; ended by the caller.
    items
        Taken as workers become free, never many more than are worked on. Their `repr` names them in an error.
    count : int
        Workers alive at the same time; fewer where there are fewer items.
    tries : int
        How often an item may be begun.

    Raises
    ------
    WorkerLostError
        Names the item on which workers died, or says that none came up.
    Exception
        What an item's function, or the start of a worker, raised.
    """
    source = enumerate(items)
    exhausted = False
    todo: deque[tuple[int, T]] = deque()
    begun: dict[int, int] = {}
    idle: list[W] = []
    # what is waited for: a worker, and its item (None: it is starting)
    pending: dict[Future[Any], tuple[W, tuple[int, T] | None]] = {}
    results: dict[int, Any] = {}
    next_out = 0
    failed_starts = 0
    while True:
        while not exhausted and len(todo) < count and len(results) < _WAITING_PER_WORKER * count:
            found = next(source, None)
            if found is None:
                exhausted = True
            else:
                todo.append(found)
        while todo and idle:
            worker, job = idle.pop(), todo.popleft()
            begun[job[0]] = begun.get(job[0], 0) + 1
            pending[workers.give(worker, job[1])] = worker, job
        starting = sum(job is None for _, job in pending.values())
        for _ in range(min(len(todo) - starting, count - len(pending))):
            worker, coming_up = workers.start()
            pending[coming_up] = worker, None
        # only now that the workers have work: the caller may take its time with a result
        while next_out in results:
            result = results.pop(next_out)
            if isinstance(result, _Failed):
                raise result.error
            yield result
            next_out += 1
        if not pending:
            if exhausted and not todo:
                return
            continue
        finished, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            worker, done = pending.pop(future)
            error = future.exception()
            if isinstance(error, workers.lost):
                if done is None:
                    failed_starts += 1
                    if failed_starts >= tries:
                        raise WorkerLostError(
                            f"{failed_starts} workers in a row died before their first item: {error}. If this is a script, put what it runs"
                            ' below `if __name__ == "__main__":`; if memory ran out, use fewer workers'
                        ) from error
                elif begun[done[0]] >= tries:
                    lost = WorkerLostError(
                        f"{begun[done[0]]} workers died on item {done[0]}, {repr(done[1])[:_SHOWN_CHARACTERS]}: {error}. Most often memory ran out"
                        " (use fewer workers) or compiled code crashed (run the item alone with NUMBA_BOUNDSCHECK=1)"
                    )
                    lost.__cause__ = error
                    results[done[0]] = _Failed(lost)
                else:
                    todo.appendleft(done)
            elif done is None:
                if error is not None:
                    raise error
                failed_starts = 0
                idle.append(worker)
            else:
                # in its turn: what came before a failure is delivered, however the workers' timing was
                results[done[0]] = future.result() if error is None else _Failed(error)
                idle.append(worker)
