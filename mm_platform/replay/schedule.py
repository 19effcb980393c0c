"""Which parameters hold when: walk-forward schedules of a run's sets.

Belongs here: the entries of a schedule and their checks. Does not belong here: fitting (`calibration`), applying them (`replay.loop`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mm_platform.core.errors import DataError
from mm_platform.core.units import iso_utc
from mm_platform.kernels.decision import DecisionParams


@dataclass(frozen=True, slots=True)
class ScheduledParameters:
    """Parameters in force from `from_ns` on (local time), fitted on data up to `fitted_through_ns` (-1: not fitted, e.g. set by hand).

    `params` are the platform's, or the numbers of a user's strategy.
    """

    from_ns: int
    params: DecisionParams | Sequence[float]
    fitted_through_ns: int = -1


def check_schedule(name: str, schedule: Sequence[ScheduledParameters]) -> None:
    """Refuse a schedule that is empty, does not ascend, or judges rows that a fit has seen; `name` says whose it is."""
    if not schedule:
        raise DataError(f"{name}: no parameters to replay with")
    for before, after in itertools.pairwise(schedule):
        if after.from_ns <= before.from_ns:
            raise DataError(f"{name}: schedule is not ascending: {after.from_ns} follows {before.from_ns}")
    for entry in schedule:
        if entry.fitted_through_ns >= entry.from_ns:
            raise DataError(
                f"{name}: parameters in force from {iso_utc(entry.from_ns)} were fitted through {iso_utc(entry.fitted_through_ns)}: "
                "replay refuses to judge rows that a fit has seen; fit on earlier data or judge later rows"
            )
