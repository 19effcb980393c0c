"""Ports: what the pure rooms and the shells ask of the world, as protocols.

Belongs here: protocols only, no implementation. `VenuePort` is what the router and simple callers use; `ParameterSource` is where the
runner reads its parameters; `Executor` is where heavy work runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    # the slim readers of the registry import this module and load no numpy
    import numpy.typing as npt

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class PublishedParameters:
    """What a registry holds under an alias. `approval` and `signature` are empty for versions nobody promoted."""

    model_name: str
    version: str
    alias: str
    parameters_json: str
    sha256: str
    approval_json: str
    signature: str


class VenuePort(Protocol):
    """Synchronous venue access as the guide's router and loop use it. Raises `VenueError` subclasses."""

    def get_orderbook(self, symbol: str, limit: int = 20) -> dict[str, Any]: ...

    def get_fees(self, symbol: str) -> dict[str, float]: ...

    def get_balance(self) -> dict[str, float]: ...

    def place_order(self, symbol: str, side: str, amount: float, price: float | None, order_type: str, client_id: str) -> dict[str, Any]: ...


class ParameterSource(Protocol):
    """Read the published parameters under an alias; raises `RegistryError` (absent, altered) or `ConnectivityError` (away)."""

    def fetch(self, model_name: str, alias: str) -> PublishedParameters: ...


class Executor(Protocol):
    """Where heavy work runs. Both calls give the results of `fn(item, shared)` in the items' order, each as soon as all earlier ones are there.

    A worker that dies is replaced and its item run again, a limited number of times; an exception of `fn` is raised where the results are read.
    `fn`, `build` and the items must be picklable; functions travel by name.
    """

    @property
    def workers(self) -> int:
        """How many items are worked on at a time; for a cluster that is not connected yet, a guess."""

    def map(self, fn: Callable[[T, Any], R], items: Iterable[T], shared: Any) -> Iterator[R]:
        """`shared` is small: it is pickled to each worker."""

    def map_arrays(
        self,
        fn: Callable[[T, Any], R],
        items: Iterable[T],
        arrays: Mapping[str, npt.NDArray[Any]],
        rest: Any,
        build: Callable[[dict[str, npt.NDArray[Any]], Any], Any],
    ) -> Iterator[R]:
        """`shared = build(arrays, rest)`, made once per worker; the arrays travel once per machine."""
