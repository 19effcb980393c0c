"""Which rows may be fitted and which may be judged: windows of local time that never overlap.

Belongs here: arithmetic of windows, embargoes, and the refusal to judge what was seen. Does not belong here: fits and replays; whoever runs
them asks here first. Times are ns since the epoch; a training window includes both its ends, a judged stretch excludes its end.

References
----------
Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 7, for purging and embargo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_S, iso_utc

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """A judged stretch [judge_from, judge_until) and the window [train_from, train_through] its fits may look at."""

    train_from_ns: int
    train_through_ns: int
    judge_from_ns: int
    judge_until_ns: int


def segments(start_ns: int, end_ns: int, judge_from_ns: int, refit_every_ns: int, train_window_ns: int, embargo_ns: int) -> tuple[Segment, ...]:
    """Cut [judge_from, end) at the runner's refit cadence, each piece with a training window that ends an embargo before it.

    Parameters
    ----------
    start_ns, end_ns : int
        Data at hand: [start, end).
    judge_from_ns : int
        First judged time.
    refit_every_ns : int
        Cadence at which the runner refits; pieces are this long, the last one may be shorter.
    train_window_ns : int
        Longest training window; shorter where the data begin later.
    embargo_ns : int
        Least time between the last row a fit may see and the first row judged with it.

    Returns
    -------
    tuple of Segment
        In order, without holes between judged stretches.

    Raises
    ------
    ConfigError
        A length that is not positive (embargo: negative).
    DataError
        Nothing to judge, or nothing to train on before the first judged time.
    """
    if refit_every_ns <= 0 or train_window_ns <= 0 or embargo_ns < 0:
        raise ConfigError(f"refit every {refit_every_ns} ns, train on {train_window_ns} ns, embargo {embargo_ns} ns; expected > 0, > 0, >= 0")
    if judge_from_ns >= end_ns:
        raise DataError(
            f"nothing to judge: judging starts at {iso_utc(judge_from_ns)}, data end at {iso_utc(end_ns)}; record longer or judge from earlier"
        )
    if judge_from_ns - embargo_ns <= start_ns:
        raise DataError(
            f"nothing to train on: data start at {iso_utc(start_ns)}, judging at {iso_utc(judge_from_ns)} with an embargo of {embargo_ns / NS_PER_S:g} s; "
            "judge from later or record longer"
        )
    found = []
    for judge_from in range(judge_from_ns, end_ns, refit_every_ns):
        # strictly before: a row at the very end of the embargo has not been seen
        through = judge_from - embargo_ns - 1
        found.append(Segment(max(start_ns, through - train_window_ns + 1), through, judge_from, min(judge_from + refit_every_ns, end_ns)))
    return tuple(found)


def inventory_life_s(relaxation_s: float) -> float:
    """How long an inventory shows in results, s: three relaxation times 1/omega, after which 5 % of it is left."""
    if not relaxation_s >= 0.0:
        raise ConfigError(f"relaxation time {relaxation_s} s, expected >= 0")
    return 3.0 * relaxation_s


def purged_train_rows(n: int, test_first: int, test_last: int, label_horizon: int, embargo: int) -> Int64s:
    """Rows that may train when [test_first, test_last] is held out and a row's label reaches `label_horizon` rows ahead.

    A row before the test is dropped when its label reaches into it; a row after it when the test's labels, plus `embargo` rows, reach it.
    """
    if not 0 <= test_first <= test_last < n or label_horizon < 0 or embargo < 0:
        raise ConfigError(
            f"purge: test rows {test_first} to {test_last} of {n}, horizon {label_horizon}, embargo {embargo}; expected an inner range and >= 0"
        )
    rows = np.arange(n)
    return rows[(rows + label_horizon < test_first) | (rows > test_last + label_horizon + embargo)]
