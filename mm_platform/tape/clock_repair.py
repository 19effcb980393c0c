"""Receive times that can be used: a recorder's clock that runs behind the venue's is moved forward, from past messages only.

Belongs here: the repair of local times and the estimate of venue times that a feed does not state. Does not belong here: units of recorded
times (`decode`), order (`venue_order`).

Rule. Latency of a message = receive time - time at the venue. As long as none was negative, times stay as recorded. From the first
negative one on, times are moved forward so that the smallest latency of the trailing window is the floor. The window lets the shift follow a
clock that drifts; taking it over messages up to the present one only keeps the repair causal. Receive order never changes: a shift that
shrinks holds the next times back until the recorded ones have caught up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.jit import kernel
from mm_platform.tape.layout import ESTIMATED_EXCH, REPAIRED
from mm_platform.tape.messages import Int64s, Messages

DEFAULT_FLOOR_NS: Final = 5 * NS_PER_MS
DEFAULT_WINDOW_NS: Final = 600 * NS_PER_S
_BUCKETS: Final = 16

_BEHIND: Final = 0  # 1 once a latency was negative
_LAST_LOCAL: Final = 1
_LAST_RAW: Final = 2
_DEPTH_SEQ: Final = 3
_DEPTH_EXCH: Final = 4
_TOP_EXCH: Final = 5
_STATE: Final = 6

_TIMED: Final = 0
_NEGATIVE: Final = 1
_MAX_SHIFT: Final = 2
_MOVED: Final = 3
_SILENCES: Final = 4
_LONGEST_SILENCE: Final = 5
_BACKWARD: Final = 6
_COUNTS: Final = 7

# kinds and flags as plain numbers: kernels see ints
_DEPTH: Final = 1
_TOP: Final = 5
_REPAIRED: Final = REPAIRED
_ESTIMATED: Final = ESTIMATED_EXCH


class ClockState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the repair remembers from one partition to the next."""

    state: list[int]
    bucket_id: list[int]
    bucket_min_ns: list[int]

    @property
    def last_recorded_ns(self) -> int:
        """Receive time of the newest message as recorded, before repair [ns]; -1 before the first."""
        return self.state[_LAST_RAW]


@dataclass(frozen=True, slots=True)
class ClockCounts:
    """What the repair saw since it was last asked.

    Parameters
    ----------
    timed, negative : int
        Messages with a venue time; those of them received before it.
    max_shift_ns : int
        Largest shift applied [ns].
    moved : int
        Messages whose receive time was moved.
    silences : int
        Pauses between messages longer than the limit.
    longest_silence_ns : int
        Longest pause [ns].
    backward : int
        Messages recorded before the one above them.
    """

    timed: int
    negative: int
    max_shift_ns: int
    moved: int
    silences: int
    longest_silence_ns: int
    backward: int


@kernel
def repair_clock(
    local_ns: Int64s,
    event_ns: Int64s,
    exch_ns: Int64s,
    kind: npt.NDArray[np.int8],
    seq: Int64s,
    flags: npt.NDArray[np.int16],
    floor_ns: int,
    bucket_ns: int,
    silence_ns: int,
    state: Int64s,
    bucket_id: Int64s,
    bucket_min_ns: Int64s,
    counts: Int64s,
) -> None:
    """Repair `local_ns`, fill in `exch_ns` where it is -1, set flags; all in place. See the module's docstring for the rule.

    A venue time that is not stated (spot best quotes and snapshots) is estimated as the receive time minus the smallest latency of the
    window (the floor, once the clock was found behind): the latest time it can have happened, so that trades that a quote reflects stand
    before it. It is held between the depth updates that the message's own update id lies between.
    """
    buckets = bucket_id.shape[0]
    for i in range(local_ns.shape[0]):
        raw = local_ns[i]
        venue = event_ns[i]
        if exch_ns[i] > venue:
            venue = exch_ns[i]
        now = raw // bucket_ns
        if venue >= 0:
            latency = raw - venue
            counts[0] += 1
            if latency < 0:
                counts[1] += 1
                state[0] = 1
            slot = now % buckets
            if bucket_id[slot] != now:
                bucket_id[slot] = now
                bucket_min_ns[slot] = latency
            elif latency < bucket_min_ns[slot]:
                bucket_min_ns[slot] = latency
        smallest = floor_ns
        known = False
        for b in range(buckets):
            if bucket_id[b] > now - buckets and bucket_id[b] <= now:
                if not known or bucket_min_ns[b] < smallest:
                    smallest = bucket_min_ns[b]
                    known = True
        shift = 0
        if state[0] != 0 and smallest < floor_ns:
            shift = floor_ns - smallest
        if shift > counts[2]:
            counts[2] = shift
        repaired = raw + shift
        if state[2] >= 0:
            if raw < state[2]:
                counts[6] += 1
            pause = raw - state[2]
            if pause > silence_ns:
                counts[4] += 1
            if pause > counts[5]:
                counts[5] = pause
        if repaired < state[1]:
            repaired = state[1]
        if venue > repaired:
            repaired = venue
        state[1] = repaired
        if raw > state[2]:
            state[2] = raw
        if repaired != raw:
            counts[3] += 1
            flags[i] |= _REPAIRED
        local_ns[i] = repaired

        if exch_ns[i] < 0:
            behind = floor_ns
            if known and state[0] == 0:
                behind = smallest
            estimate = repaired - behind
            if kind[i] == _TOP:
                if seq[i] > state[3] and estimate < state[4]:
                    estimate = state[4]
                if seq[i] >= 0 and seq[i] <= state[3] and estimate > state[4]:
                    estimate = state[4]
                if estimate < state[5]:
                    estimate = state[5]
                if estimate > repaired - behind:
                    estimate = repaired - behind
                state[5] = estimate
            exch_ns[i] = estimate
            flags[i] |= _ESTIMATED
        elif kind[i] == _DEPTH and seq[i] > state[3]:
            state[3] = seq[i]
            state[4] = exch_ns[i]


class ClockRepair:
    """Repairs batch after batch of one instrument's messages, in receive order.

    Parameters
    ----------
    floor_ns : int
        Feed latency that a repaired clock leaves at least [ns].
    window_ns : int
        Trailing window of the smallest latency [ns].
    silence_ns : int
        Pauses longer than this are counted [ns].
    state : ClockState, optional
        Where an earlier run ended.
    """

    def __init__(
        self,
        floor_ns: int = DEFAULT_FLOOR_NS,
        window_ns: int = DEFAULT_WINDOW_NS,
        silence_ns: int = 60 * NS_PER_S,
        state: ClockState | None = None,
        *,
        compiled: bool = True,
    ) -> None:
        self.floor_ns = floor_ns
        self._bucket_ns = max(window_ns // _BUCKETS, 1)
        self._silence_ns = silence_ns
        self._run = repair_clock.compiled if compiled else repair_clock
        if state is None:
            self._state = np.full(_STATE, -1, dtype=np.int64)
            self._state[_BEHIND] = 0
            self._bucket_id = np.full(_BUCKETS, -1, dtype=np.int64)
            self._bucket_min_ns = np.zeros(_BUCKETS, dtype=np.int64)
        else:
            self._state = np.array(state.state, dtype=np.int64)
            self._bucket_id = np.array(state.bucket_id, dtype=np.int64)
            self._bucket_min_ns = np.array(state.bucket_min_ns, dtype=np.int64)
        self._counts = np.zeros(_COUNTS, dtype=np.int64)

    @property
    def last_local_ns(self) -> int:
        """Repaired receive time of the last message, -1 before the first [ns]."""
        return int(self._state[_LAST_LOCAL])

    def repair(self, messages: Messages) -> Messages:
        """The same messages with local times that can be used and every venue time filled in."""
        local, exch, flags = messages.local_ns.copy(), messages.exch_ns.copy(), messages.flags.copy()
        self._run(
            local,
            messages.event_ns,
            exch,
            messages.kind,
            messages.seq,
            flags,
            self.floor_ns,
            self._bucket_ns,
            self._silence_ns,
            self._state,
            self._bucket_id,
            self._bucket_min_ns,
            self._counts,
        )
        return messages.replace(local_ns=local, exch_ns=exch, flags=flags)

    def mark(self) -> tuple[Int64s, ...]:
        """A copy of everything the repair remembers, for `reset`."""
        return self._state.copy(), self._bucket_id.copy(), self._bucket_min_ns.copy(), self._counts.copy()

    def reset(self, mark: tuple[Int64s, ...]) -> None:
        """Forget what was repaired since `mark`."""
        for mine, then in zip((self._state, self._bucket_id, self._bucket_min_ns, self._counts), mark, strict=True):
            mine[:] = then

    def take_counts(self) -> ClockCounts:
        """Counts since the last call."""
        c = self._counts
        counts = ClockCounts(
            int(c[_TIMED]), int(c[_NEGATIVE]), int(c[_MAX_SHIFT]), int(c[_MOVED]), int(c[_SILENCES]), int(c[_LONGEST_SILENCE]), int(c[_BACKWARD])
        )
        c[:] = 0
        return counts

    def state(self) -> ClockState:
        """Where the repair stands, for the next partition."""
        return ClockState(self._state.tolist(), self._bucket_id.tolist(), self._bucket_min_ns.tolist())
