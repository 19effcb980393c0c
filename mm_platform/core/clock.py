"""Clocks. The one place in the pure rooms that may read the machine's time.

`monotonic_ns` is the default clock of the front doors (CONTRACTS, Doors); the engine and the replay always pass `now_ns`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]

_WALL_AT_IMPORT_NS = time.time_ns() - time.monotonic_ns()


def monotonic_ns() -> int:
    """Nanoseconds since the epoch that never run backwards within a process.

    Returns
    -------
    int
        UTC nanoseconds: the wall clock read once at import, advanced by the monotonic clock.
    """
    return _WALL_AT_IMPORT_NS + time.monotonic_ns()
