"""Ports: what the pure rooms and the shells ask of the world, as protocols.

Belongs here: protocols only, no implementation. `VenuePort` is what the router and simple callers use; `ParameterSource` is where the
runner reads its parameters; `Executor` is where heavy work runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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
    """Run `fn(item, shared)` for every item; results in the items' order."""

    def map(self, fn: Callable[[T, Any], R], items: Iterable[T], shared: Any) -> Iterator[R]: ...
