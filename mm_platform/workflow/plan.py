"""How the days at hand are divided: where fits learn, where a point is chosen, where it is judged, and when it is fitted again.

Belongs here: arithmetic of times. Does not belong here: fitting or replaying. Short tapes get a shorter window and cadence by one rule, so
that the same code runs on minutes and on months; the gate, not this plan, says whether that is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mm_platform.calibration.walk_forward import Segment, segments
from mm_platform.config import Settings
from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_S

# no part of a plan is shorter than this: below it there is not one decision to choose or judge by
_SHORTEST_NS: Final = 30 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in ns (local). Fits learn on `train_window_ns` before each segment; segments never overlap their own fit."""

    start_ns: int
    end_ns: int
    choose_from_ns: int
    choose_until_ns: int
    judge_from_ns: int
    train_window_ns: int
    refit_every_ns: int
    embargo_ns: int
    choosing: tuple[Segment, ...]
    judging: tuple[Segment, ...]


def make_plan(settings: Settings, start_ns: int, end_ns: int) -> Plan:
    """Divide [start, end): a training window, the choosing part, an embargo, the judging part.

    Raises
    ------
    DataError
        The period is too short to hold them.
    """
    span = end_ns - start_ns
    c = settings.calibration
    train = min(round(c.train_window_s * NS_PER_S), span // 3)
    refit = min(round(c.refit_every_s * NS_PER_S), max(train, _SHORTEST_NS))
    embargo = min(round(c.embargo_s * NS_PER_S), span // 50)
    choose_from = start_ns + train + embargo
    rest = end_ns - choose_from
    choose_until = choose_from + int(rest * settings.sweep.choose_frac)
    judge_from = choose_until + embargo
    if choose_until - choose_from < _SHORTEST_NS or end_ns - judge_from < _SHORTEST_NS:
        raise DataError(
            f"{span / NS_PER_S:.0f} s of data cannot be divided into training, choosing and judging parts of at least "
            f"{_SHORTEST_NS // NS_PER_S} s each; ingest more"
        )
    return Plan(
        start_ns,
        end_ns,
        choose_from,
        choose_until,
        judge_from,
        train,
        refit,
        embargo,
        segments(start_ns, choose_until, choose_from, refit, train, embargo),
        segments(start_ns, end_ns, judge_from, refit, train, embargo),
    )
