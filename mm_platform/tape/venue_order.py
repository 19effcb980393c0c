"""Messages into venue order with bounded memory.

Belongs here: the order of rows and the buffer that streams overtaking each other need. Does not belong here: what a message means.

Order: `exch_ns`; at one instant funding stamps, then trades by id, then the book (depth, snapshots, best quotes) by update id, then mark
prices. So a trade stands before the depth rows that reflect it. What arrives later than the buffer reaches back is placed at the earliest
place still open, marked as an estimate.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from mm_platform.core.units import NS_PER_S
from mm_platform.tape.layout import ESTIMATED_EXCH, Kind
from mm_platform.tape.messages import Int64s, Messages, concat

DEFAULT_REACH_NS: Final = 10 * NS_PER_S
MAX_HELD_MESSAGES: Final = 262_144
_RANK: Final = np.zeros(16, dtype=np.int64)
_RANK[[Kind.TRADE]] = 1
_RANK[[Kind.DEPTH, Kind.SNAPSHOT, Kind.CLEAR, Kind.TOP]] = 2
_RANK[[Kind.MARK, Kind.FUNDING_PREDICTED, Kind.STATUS]] = 3


def venue_order(exch_ns: Int64s, kind: np.ndarray[tuple[int, ...], np.dtype[np.int8]], seq: Int64s) -> Int64s:
    """Positions in venue order; what the rule does not tell apart keeps its place."""
    rank = _RANK[kind]
    return np.lexsort((np.where((rank == 1) | (rank == 2), seq, 0), rank, exch_ns))


class VenueOrder:
    """Holds messages until nothing can come before them any more.

    Parameters
    ----------
    reach_ns : int
        How far streams may lag each other in venue time [ns].
    """

    def __init__(self, reach_ns: int = DEFAULT_REACH_NS) -> None:
        self._reach_ns = reach_ns
        self._held = Messages.empty()
        self._newest_ns = -1
        self._given_ns = -1
        self.late = 0

    def push(self, messages: Messages) -> Messages:
        """Add messages in receive order; returns those that are final, in venue order.

        What counts as late depends on what was received before it only, not on how the feed is cut into batches.
        """
        if not len(messages):
            return messages
        newest = np.maximum.accumulate(np.maximum(messages.exch_ns, self._newest_ns))
        reached_ns = np.concatenate(([self._newest_ns], newest[:-1])) - self._reach_ns
        late = messages.exch_ns < np.maximum(reached_ns, self._given_ns)
        if late.any():
            self.late += int(late.sum())
            exch = np.where(late, np.maximum(reached_ns, self._given_ns), messages.exch_ns)
            flags = np.where(late, messages.flags | np.int16(ESTIMATED_EXCH), messages.flags)
            messages = messages.replace(exch_ns=exch, flags=flags)
        self._newest_ns = int(newest[-1])
        held = concat((self._held, messages))
        held = held.take(venue_order(held.exch_ns, held.kind, held.seq))
        final = int(np.searchsorted(held.exch_ns, self._newest_ns - self._reach_ns, side="left"))
        final = max(final, len(held) - MAX_HELD_MESSAGES)
        self._held = held.slice(final, len(held))
        if final:
            self._given_ns = int(held.exch_ns[final - 1])
        return held.slice(0, final)

    def flush(self) -> Messages:
        """Everything still held, in venue order; the buffer starts anew."""
        rest, self._held = self._held, Messages.empty()
        self._newest_ns = self._given_ns = -1
        return rest
