"""Clocks of the runner: how it waits for the next moment of the market.

Belongs here: the port and its two forms. Market time is the venue's own axis (for a simulated or recorded market any day at all); a real
clock lets it pass at the speed of the wall.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from mm_platform.core.errors import ConfigError
from mm_platform.core.units import NS_PER_S


class RunnerClock(Protocol):
    """`wait_until(market_ns, stop)` returns at that market time, or earlier when `stop` is set."""

    @property
    def jumps(self) -> bool:
        """True when market time runs ahead of the wall: waiting takes no time."""
        ...

    def wait_until(self, market_ns: int, stop: threading.Event) -> None: ...


class FastClock:
    """Jumps from event to event."""

    @property
    def jumps(self) -> bool:
        return True

    def wait_until(self, market_ns: int, stop: threading.Event) -> None:
        """Nothing to wait for."""


class RealClock:
    """Market time passes at wall speed from `origin_ns` on; it starts with the first wait and never runs backwards.

    Parameters
    ----------
    origin_ns : int
        Market time at the first wait, ns.
    speed : float
        Market seconds per wall second.
    """

    def __init__(self, origin_ns: int, speed: float = 1.0) -> None:
        if not 0 < speed < float("inf"):
            raise ConfigError(f"clock speed is {speed}, expected a number above 0")
        self._origin_ns = origin_ns
        self._speed = speed
        self._started: float | None = None

    @property
    def jumps(self) -> bool:
        return False

    def wait_until(self, market_ns: int, stop: threading.Event) -> None:
        """Sleep until `market_ns`, in one go; a set `stop` ends the sleep at once."""
        if self._started is None:
            self._started = time.monotonic()
        wait_s = (market_ns - self._origin_ns) / NS_PER_S / self._speed - (time.monotonic() - self._started)
        if wait_s > 0:
            stop.wait(wait_s)
