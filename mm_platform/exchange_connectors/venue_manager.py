"""Venue manager: names for connectors, and connecting them together (the guide's `VenueManager`).

Belongs here: the register of venues. Does not belong here: choosing among them (`smart_order_router`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from mm_platform.core.errors import ConfigError, MMError, VenueError
from mm_platform.core.ports import VenuePort

_PORT: Final = ("get_orderbook", "get_fees", "get_balance", "place_order")


class VenueManager:
    """Venues by name, in the order they were added. The router reads them through `venues()`."""

    def __init__(self) -> None:
        self._venues: dict[str, VenuePort] = {}

    def add_venue(self, name: str, connector: VenuePort) -> None:
        """Register a connector (anything that keeps `core.ports.VenuePort`) under a name of your own.

        Raises
        ------
        ConfigError
            The name is empty or taken; the connector lacks a method of the port.
        """
        if not name:
            raise ConfigError("a venue needs a name")
        if name in self._venues:
            raise ConfigError(f"there already is a venue {name!r}; remove it first, or add this one under another name")
        missing = [method for method in _PORT if not callable(getattr(connector, method, None))]
        if missing:
            raise ConfigError(f"venue {name!r}: {type(connector).__name__} has no {', '.join(missing)}; expected a connector (core.ports.VenuePort)")
        self._venues[name] = connector

    def remove_venue(self, name: str) -> None:
        """Forget a venue; its connection and orders stay as they are."""
        self.get_venue(name)
        del self._venues[name]

    def get_venue(self, name: str) -> VenuePort:
        """A venue by name; raises `ConfigError` naming those there are."""
        if name not in self._venues:
            raise ConfigError(f"there is no venue {name!r}; there are {', '.join(self._venues) or 'none'}")
        return self._venues[name]

    def venues(self) -> Mapping[str, VenuePort]:
        """All venues by name, read-only."""
        return MappingProxyType(self._venues)

    def connect_all(self) -> None:
        """Connect every venue that can be connected; one failure does not keep the others from being tried.

        Raises
        ------
        ConfigError
            There are no venues.
        VenueError
            Some did not connect: each is named with its reason. The others are connected and stay so.
        """
        if not self._venues:
            raise ConfigError("there are no venues to connect; add one with add_venue")
        failed = self._each("connect")
        if failed:
            raise VenueError(f"{len(failed)} of {len(self._venues)} venues did not connect: " + "; ".join(f"{n}: {why}" for n, why in failed.items()))

    def disconnect_all(self) -> None:
        """Close every venue that can be closed; raises `VenueError` naming those that failed."""
        failed = self._each("close")
        if failed:
            raise VenueError("venues that did not close: " + "; ".join(f"{n}: {why}" for n, why in failed.items()))

    def _each(self, method: str) -> dict[str, str]:
        failed = {}
        for name, connector in self._venues.items():
            act: Callable[[], None] | None = getattr(connector, method, None)
            if act is None:  # a local market in a test has nothing to connect
                continue
            try:
                act()
            except MMError as err:
                failed[name] = f"{type(err).__name__}: {err}"
        return failed
