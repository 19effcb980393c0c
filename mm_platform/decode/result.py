"""What a decoder gives back: messages, and the lines it could not use.

Belongs here: the vocabulary all decoders share, and the checks on times that hold for every format. Does not belong here: any format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import NS_PER_S
from mm_platform.tape.messages import Int64s, Messages

PLACE_STEP: Final = 1 << 40
BAD_LINES_KEPT: Final = 20
# 2010 to 2100: nothing was traded before, and a wrong unit lands far outside
EARLIEST_NS: Final = 1_262_304_000 * NS_PER_S
LATEST_NS: Final = 4_102_444_800 * NS_PER_S
# Receive and venue time of one message further apart than this are not a clock that is off but a wrong value.
MAX_CLOCK_DIFFERENCE_NS: Final = 3_600 * NS_PER_S

# facts of an instrument at a time (ns UTC)
Facts = Callable[[InstrumentId, int], InstrumentSpec]


class UnknownFormat(DataError):
    """A source that no decoder here reads."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was not used: its number (1 = first) and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one chunk of a source held.

    Parameters
    ----------
    messages : Messages
        In the order of the source.
    lines : int
        Lines read.
    bad_count : int
        Lines not used because something was wrong with them; `bad` has the first of them.
    """

    messages: Messages
    lines: int
    bad_count: int
    bad: tuple[BadLine, ...]


class BadLines:
    """Counts lines that cannot be used and keeps the first ones."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[BadLine] = []

    def add(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.kept) < BAD_LINES_KEPT:
            self.kept.append(BadLine(line, reason))

    def add_all(self, lines: Int64s, reason: str) -> None:
        for line in lines[: max(0, BAD_LINES_KEPT - len(self.kept))]:
            self.kept.append(BadLine(int(line), reason))
        self.count += len(lines)

    def done(self, messages: Messages, lines: int) -> Decoded:
        return Decoded(messages, lines, self.count, tuple(sorted(self.kept, key=lambda b: b.line)))


class Decoder(Protocol):
    """One source's decoder; keeps what it needs between chunks.

    `streams` names what the source can hold ("book", "trades", "ticker"): sources of one instrument with disjoint streams run side by side, others
    one after the other. `first_receive_ns` is the receive time of the first line that states one.
    """

    @property
    def instrument(self) -> InstrumentId: ...

    @property
    def streams(self) -> frozenset[str]: ...

    @property
    def first_receive_ns(self) -> int: ...

    def decode(self, chunk: bytes, first_line: int) -> Decoded:
        """Decode whole lines; `first_line` is the number of the first."""
        ...

    def finish(self) -> Decoded:
        """What was held back for a continuation that did not come."""
        ...


def unit_ns(first: int, what: str) -> int:
    """Nanoseconds per unit of a recorded time, told from its magnitude.

    Raises
    ------
    DataError
        No unit puts it between 2010 and 2100.
    """
    for scale in (1, 1_000, 1_000_000, 1_000_000_000):
        if EARLIEST_NS <= first * scale < LATEST_NS:
            return scale
    raise DataError(f"{what} {first} is no time between 2010 and 2100 in s, ms, us or ns since 1970; expected a receive time")


def to_ns(values: Int64s) -> Int64s:
    """Times in s, ms, us or ns since 1970, each told by its own magnitude, as ns; -1 (not stated) stays, what is no such time becomes -2."""
    out = np.full(len(values), -2, dtype=np.int64)
    out[values == -1] = -1
    for scale in (1, 1_000, 1_000_000, 1_000_000_000):
        fits = (values >= EARLIEST_NS // scale) & (values < LATEST_NS // scale)
        out[fits] = values[fits] * scale
    return out


class TimeCheck:
    """Refuses messages whose times cannot be true, source-wide.

    Parameters
    ----------
    unit : int
        ns per unit of the source's receive times.
    """

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self._newest_ns = -1

    def receive_ns(self, recorded: Int64s) -> Int64s:
        """Receive times in ns; outside 2010 to 2100 in the source's unit: -2."""
        plausible = (recorded >= EARLIEST_NS // self.unit) & (recorded < LATEST_NS // self.unit)
        return np.where(plausible, recorded, 0) * self.unit + np.where(plausible, 0, -2)

    def check(self, messages: Messages, bad: BadLines) -> Messages:
        """Messages in source order without those whose times are impossible; each of these becomes a bad line."""
        local, event, exch = messages.local_ns, messages.event_ns, messages.exch_ns
        keep = np.ones(len(messages), dtype=np.bool_)
        apart = np.maximum(np.where(event >= 0, np.abs(local - event), 0), np.where(exch >= 0, np.abs(local - exch), 0))
        self._refuse(keep, local < 0, messages, bad, f"receive time is no time between 2010 and 2100 in the source's unit ({_UNITS[self.unit]})")
        self._refuse(
            keep, (event == -2) | (exch == -2), messages, bad, "time at the venue is no time between 2010 and 2100 (s, ms, us or ns since 1970)"
        )
        self._refuse(keep, apart > MAX_CLOCK_DIFFERENCE_NS, messages, bad, "receive time and time at the venue are more than an hour apart")
        newest = np.maximum.accumulate(np.where(keep, local, -1)) if len(local) else local
        back = np.maximum(np.concatenate(([-1], newest[:-1])), self._newest_ns) - local if len(local) else local
        self._refuse(keep, back > MAX_CLOCK_DIFFERENCE_NS, messages, bad, "receive time lies more than an hour before that of a line above")
        if len(local):
            self._newest_ns = max(self._newest_ns, int(newest[-1]))
        return messages if keep.all() else messages.take(keep)

    @staticmethod
    def _refuse(keep: npt.NDArray[np.bool_], wrong: npt.NDArray[np.bool_], messages: Messages, bad: BadLines, reason: str) -> None:
        fresh = wrong & keep
        if fresh.any():
            bad.add_all(messages.place[fresh] % PLACE_STEP, reason)
            keep[fresh] = False


_UNITS: Final = {1: "ns", 1_000: "us", 1_000_000: "ms", 1_000_000_000: "s"}
