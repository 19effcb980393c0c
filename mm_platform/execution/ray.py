"""Run a function over many items on a Ray cluster.

Belongs here: `RayExecutor`, all of it. Does not belong here: what is run. Ray is imported only when something is run (extra `ray`). Arrays are put
into Ray's object store once and travel to a machine once; each worker copies them, because Ray's are read-only: to numba that is another type, for
which every replay would be compiled anew. A machine needs the memory for one copy per worker and one more.

The code must be installed on every machine, in the same version as here; functions travel by name.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from itertools import chain, islice
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError, ConnectivityError
from mm_platform.execution.in_order import in_order

T = TypeVar("T")
R = TypeVar("R")

# what Ray keeps beside the arrays: items and results on their way, its own minimum
_STORE_MARGIN_BYTES: Final = 128 * 2**20
_KNOCK_S: Final = 5.0
_GUESSED_CORES: Final = 64
_QUIET: Final[dict[str, Any]] = {"log_to_driver": False, "configure_logging": False}


class _Worker:
    """An actor: what it was built from, and items one at a time."""

    def start(self, build: Callable[[dict[str, npt.NDArray[Any]], Any], Any], arrays: dict[str, npt.NDArray[Any]], rest: Any) -> None:
        self._shared = build({name: np.array(array) for name, array in arrays.items()}, rest)

    def call(self, fn: Callable[[Any, Any], Any], item: Any) -> Any:
        return fn(item, self._shared)


class _Actors:
    """Actors as `in_order` drives them. They are never restarted by Ray: a new one is started for the item."""

    def __init__(self, ray: Any, fn: Callable[[Any, Any], Any], build: Callable[..., Any], arrays: Mapping[str, npt.NDArray[Any]], rest: Any) -> None:
        self._ray = ray
        self._fn, self._build = ray.put(fn), build
        self._arrays, self._rest = ray.put(dict(arrays)), ray.put(rest)
        self._class = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self._started: list[Any] = []

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        from ray import exceptions

        return (
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        )

    def start(self) -> tuple[Any, Future[Any]]:
        actor = self._class.remote()
        self._started.append(actor)
        return actor, _plain(actor.start.remote(self._build, self._arrays, self._rest).future())

    def give(self, worker: Any, item: Any) -> Future[Any]:
        return _plain(worker.call.remote(self._fn, item).future())

    def end(self) -> None:
        for actor in self._started:
            self._ray.kill(actor, no_restart=True)


def _plain(wrapped: Future[Any]) -> Future[Any]:
    """The future with the exception that was raised, as the local executor has it, and not Ray's report of it (kept as the cause)."""
    plain: Future[Any] = Future()

    def copy(done: Future[Any]) -> None:
        error = done.exception()
        cause = getattr(error, "cause", None)
        if error is None:
            plain.set_result(done.result())
        elif isinstance(cause, BaseException):
            cause.__cause__ = error
            plain.set_exception(cause)
        else:
            plain.set_exception(error)

    wrapped.add_done_callback(copy)
    return plain


class RayExecutor:
    """`core.ports.Executor` on Ray: the same results as `LocalExecutor`, bit for bit where the processors are alike.

    A worker that dies, alone or with its machine, is replaced and its item run again.

    Parameters
    ----------
    address : str
        Of the cluster (`host:6379` on one of its machines, `ray://host:10001` from outside). Empty: one is started on this machine for each call and
        ended with it. Where the process is connected already, that connection is used and kept.
    workers : int or None
        Actors at work at the same time, one core each; None: as many as the cluster has cores.
    tries : int
        How often an item may be begun before its death of workers is an error (`WorkerLostError`).
    """

    def __init__(self, address: str = "", workers: int | None = None, *, tries: int = 3) -> None:
        self._address, self._workers, self._tries = address, workers, tries

    @property
    def workers(self) -> int:
        """As given; else the cores of this machine, or a guess for a cluster, which is not asked before there is something to do."""
        return self._workers or (_GUESSED_CORES if self._address else len(os.sched_getaffinity(0)))

    def map(self, fn: Callable[[T, Any], R], items: Iterable[T], shared: Any) -> Iterator[R]:
        """Results of `fn(item, shared)` in the items' order.

        Raises
        ------
        ConfigError
            Ray is not installed.
        ConnectivityError
            No cluster at the address.
        """
        return self.map_arrays(fn, items, {}, shared, _rest_alone)

    def map_arrays(
        self,
        fn: Callable[[T, Any], R],
        items: Iterable[T],
        arrays: Mapping[str, npt.NDArray[Any]],
        rest: Any,
        build: Callable[[dict[str, npt.NDArray[Any]], Any], Any],
    ) -> Iterator[R]:
        """Like `map`, with `shared = build(arrays, rest)` made once per worker."""
        source = iter(items)
        first = list(islice(source, 1))
        if not first:
            return
        with self._connected(sum(array.nbytes for array in arrays.values())) as ray:
            actors = _Actors(ray, fn, build, arrays, rest)
            try:
                count = self._workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
                yield from in_order(actors, chain(first, source), count, self._tries)
            finally:
                actors.end()

    @contextlib.contextmanager
    def _connected(self, array_bytes: int) -> Iterator[Any]:
        ray = _imported()
        if ray.is_initialized():
            yield ray
        elif not self._address:
            with local_cluster(self.workers, array_bytes):
                yield ray
        else:
            _knock(self._address)
            try:
                ray.init(address=self._address, **_QUIET)
            except (ConnectionError, ValueError) as err:
                raise ConnectivityError(f"no Ray cluster at execution.address = {self._address!r}: {err}. Is it up (`ray status` there)?") from err
            try:
                yield ray
            finally:
                ray.shutdown()


@contextlib.contextmanager
def local_cluster(cores: int, array_bytes: int) -> Iterator[None]:
    """A Ray cluster on this machine for as long as the block runs; executors inside use it. Starting one takes some seconds.

    Parameters
    ----------
    cores : int
        Workers it can have at a time.
    array_bytes : int
        Size of the arrays that will be shared.
    """
    ray = _imported()
    # its workers find the modules that this process finds, as spawned ones do; and it tells nobody that it was started
    given = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "RAY_USAGE_STATS_ENABLED": "0"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=array_bytes + _STORE_MARGIN_BYTES, **_QUIET)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    try:
        yield
    finally:
        ray.shutdown()


def _imported() -> Any:
    try:
        import ray
    except ImportError as err:
        raise ConfigError(
            f'execution.backend = "ray" needs Ray, which is not installed ({err}): pip install "mm-platform[ray]", or set execution.backend = "local"'
        ) from None
    return ray


def _knock(address: str) -> None:
    """Ask the port itself first: Ray tries a closed one for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # "auto" and the like
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, ValueError) as err:
        raise ConnectivityError(
            f"no Ray cluster at execution.address = {address!r}: {err}. Is it up (`ray status` there), is the port that of its head (6379) or of"
            " its client server (ray://, 10001), and not behind a firewall?"
        ) from err


def _rest_alone(arrays: dict[str, npt.NDArray[Any]], rest: Any) -> Any:
    return rest
