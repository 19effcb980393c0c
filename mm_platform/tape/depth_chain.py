"""Sequence checks: depth updates into an unbroken chain from a snapshot on, trade ids, funding stamps.

Belongs here: which message applies, which is dropped, where a sequence breaks. Does not belong here: the book itself (`book_pass`), clocks
(`clock_repair`), order (`venue_order`).

Depth. An update links to the one before it if it says so: `prev_seq` equals the last id (USD-M and COIN-M `pu`), or `first_seq` is the
last id plus one (spot `U`). A snapshot at id L is joined by the first update with `seq > L` whose predecessor ended at or before L
(`prev_seq <= L`, or `first_seq <= L + 1`): then nothing is missing in between. On USD-M `first_seq` may lie above L + 1, because ids are shared by all
symbols. Updates that come before the snapshot they survive become known when the snapshot does. After a break, or where the join fails, the
book is not known (a CLEAR row) until the next snapshot. Snapshots that arrive while the chain holds are not needed and dropped. Feeds without
ids (`seq` -1) start anew at every snapshot and cannot be checked; their decoders mark an update that was damaged (`seq` DAMAGED).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.jit import kernel
from mm_platform.tape.layout import ESTIMATED_EXCH, Kind
from mm_platform.tape.messages import Int64s, Messages, concat

Verdicts = npt.NDArray[np.int8]

DAMAGED: Final = -2
PENDING_MESSAGES: Final = 16_384
PLACES_KEPT: Final = 20
FUNDING_MAX_AGE_NS: Final = 60 * NS_PER_S

# what becomes of a message
_KEEP: Final = 0
_DUPLICATE: Final = 1
_PENDING: Final = 2
_STALE: Final = 3
_BREAK: Final = 4

# how the book stands
_ABSENT: Final = 0
_JOINING: Final = 1
_VALID: Final = 2

_MODE: Final = 0
_LAST_SEQ: Final = 1
_BASE_SEQ: Final = 2
_IN_SNAPSHOT: Final = 3
_DEPTH_EXCH: Final = 4
_CHAIN_STATE: Final = 5

_HOLES: Final = 64

_KIND_DEPTH: Final = 1
_KIND_TRADE: Final = 2
_KIND_SNAPSHOT: Final = 4


class ChainState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the sequences stand at a partition's end."""

    depth: list[int]
    last_trade_id: int
    holes: list[list[int]]
    funding_stamp_ns: int
    funding_rate: float
    funding_mark: float
    funding_said_ns: int

    @property
    def book_known(self) -> bool:
        """Whether the book's chain was unbroken."""
        return self.depth[_MODE] != _ABSENT

    @property
    def depth_seq(self) -> int:
        """Last update id seen, -1 = none."""
        return self.depth[_LAST_SEQ]


@dataclass(frozen=True, slots=True)
class BreakPlace:
    """One place where a sequence is not continued: `what` it is, the ids, where it stands in the sources, when (receive time, ns)."""

    what: str
    expected: int
    got: int
    place: int
    local_ns: int


@kernel
def chain_depth(
    kind: npt.NDArray[np.int8],
    first_seq: Int64s,
    seq: Int64s,
    prev_seq: Int64s,
    start: int,
    counting: int,
    state: Int64s,
    verdict: Verdicts,
    expected: Int64s,
) -> int:
    """Judge messages from `start` on; stops at a snapshot (its position) or at the end (the number of messages).

    `verdict` is written for depth messages only. With `counting` 0 the stream's own last id is neither checked nor moved: the messages were
    judged before and are looked at again by a snapshot. `expected` gets the id that a breaking message should have continued.
    """
    n = kind.shape[0]
    for i in range(start, n):
        k = kind[i]
        if k == _KIND_SNAPSHOT:
            return i
        if k != _KIND_DEPTH:
            continue
        state[3] = 0
        if seq[i] < 0:
            if seq[i] == DAMAGED and state[0] != _ABSENT:
                verdict[i] = _BREAK
                state[0] = _ABSENT
            elif seq[i] == DAMAGED or state[0] != _VALID:
                verdict[i] = _PENDING
            else:
                verdict[i] = _KEEP
            continue
        linked = True
        if counting != 0:
            last = state[1]
            if last >= 0:
                if seq[i] <= last:
                    verdict[i] = _DUPLICATE
                    continue
                linked = prev_seq[i] == last if prev_seq[i] >= 0 else first_seq[i] <= last + 1
            expected[i] = last
            state[1] = seq[i]
        if state[0] == _JOINING:
            base = state[2]
            if seq[i] <= base:
                verdict[i] = _STALE
            elif (prev_seq[i] >= 0 and prev_seq[i] <= base) or (prev_seq[i] < 0 and first_seq[i] <= base + 1):
                verdict[i] = _KEEP
                state[0] = _VALID
            else:
                verdict[i] = _BREAK
                expected[i] = base
                state[0] = _ABSENT
        elif not linked:
            verdict[i] = _BREAK
            state[0] = _ABSENT
        elif state[0] == _VALID:
            verdict[i] = _KEEP
        else:
            verdict[i] = _PENDING
    return n


@kernel
def check_trade_ids(
    kind: npt.NDArray[np.int8], seq: Int64s, last_id: int, hole_low: Int64s, hole_high: Int64s, verdict: Verdicts, expected: Int64s
) -> int:
    """Judge trades by their ids: KEEP, DUPLICATE, or BREAK (kept, but ids are missing before it). Returns the highest id seen.

    Missing ids are remembered (as many holes as there is room for), so that a trade that comes late is told from one that comes twice.
    """
    for i in range(kind.shape[0]):
        if kind[i] != _KIND_TRADE or seq[i] < 0:
            continue
        trade_id = seq[i]
        if last_id < 0 or trade_id == last_id + 1:
            verdict[i] = _KEEP
            last_id = trade_id
        elif trade_id > last_id:
            verdict[i] = _BREAK
            expected[i] = last_id + 1
            slot = 0
            for h in range(hole_low.shape[0]):
                if hole_low[h] > hole_high[h]:
                    slot = h
                    break
                if hole_low[h] < hole_low[slot]:
                    slot = h
            hole_low[slot] = last_id + 1
            hole_high[slot] = trade_id - 1
            last_id = trade_id
        else:
            verdict[i] = _DUPLICATE
            for h in range(hole_low.shape[0]):
                if hole_low[h] <= trade_id and trade_id <= hole_high[h]:
                    verdict[i] = _KEEP
                    above = hole_high[h]
                    hole_high[h] = trade_id - 1
                    if above > trade_id:
                        for free in range(hole_low.shape[0]):
                            if hole_low[free] > hole_high[free]:
                                hole_low[free] = trade_id + 1
                                hole_high[free] = above
                                break
                    break
    return last_id


class DepthChain:
    """Turns received messages into those that apply, batch after batch of one instrument.

    Parameters
    ----------
    state : ChainState, optional
        Where an earlier partition ended; its book must be the one the caller continues with.
    """

    def __init__(self, state: ChainState | None = None, *, compiled: bool = True) -> None:
        self._chain = chain_depth.compiled if compiled else chain_depth
        self._ids = check_trade_ids.compiled if compiled else check_trade_ids
        self._depth = np.array([_ABSENT, -1, -1, 0, -1], dtype=np.int64)
        self._hole_low = np.ones(_HOLES, dtype=np.int64)
        self._hole_high = np.zeros(_HOLES, dtype=np.int64)
        self._last_trade_id = -1
        self._stamp_ns, self._rate, self._mark, self._said_ns = -1, 0.0, 0.0, -1
        if state is not None:
            self._depth[:] = state.depth
            self._last_trade_id = state.last_trade_id
            for h, (low, high) in enumerate(state.holes):
                self._hole_low[h], self._hole_high[h] = low, high
            self._stamp_ns, self._rate, self._mark, self._said_ns = (
                state.funding_stamp_ns,
                state.funding_rate,
                state.funding_mark,
                state.funding_said_ns,
            )
        self._pending: deque[Messages] = deque()
        self._pending_count = 0
        self.sequence_breaks = 0
        self.trade_id_gaps = 0
        self.duplicates = 0
        self.depth_messages = 0
        self.snapshots_dropped = 0
        self.snapshots_used = 0
        self.places: list[BreakPlace] = []

    @property
    def book_known(self) -> bool:
        """Whether a snapshot is in force and the chain from it unbroken (or not yet begun)."""
        return int(self._depth[_MODE]) != _ABSENT

    def state(self) -> ChainState:
        """Where the sequences stand, for the next partition. Updates that wait for a snapshot are not part of it."""
        holes = [[int(lo), int(hi)] for lo, hi in zip(self._hole_low, self._hole_high, strict=True) if lo <= hi]
        return ChainState(self._depth.tolist(), self._last_trade_id, holes, self._stamp_ns, self._rate, self._mark, self._said_ns)

    def reset_counts(self) -> None:
        """Start counting anew (a new partition begins)."""
        self.sequence_breaks = self.trade_id_gaps = self.duplicates = self.depth_messages = self.snapshots_dropped = self.snapshots_used = 0
        self.places = []

    def apply(self, messages: Messages) -> Messages:
        """Messages that apply, in receive order, with CLEAR before a snapshot and after a break, and FUNDING where a stamp has passed.

        Parameters
        ----------
        messages : Messages
            Received since the last call, with repaired local times and venue times filled in.
        """
        n = len(messages)
        verdict = np.zeros(n, dtype=np.int8)
        expected = np.full(n, -1, dtype=np.int64)
        self._check_trades(messages, verdict, expected)
        out: list[Messages] = []
        start = 0
        while start < n:
            stop = self._chain(messages.kind, messages.first_seq, messages.seq, messages.prev_seq, start, 1, self._depth, verdict, expected)
            if stop > start:
                self._collect(messages.slice(start, stop), verdict[start:stop], expected[start:stop], out, counting=True)
            if stop < n:
                self._snapshot(messages.slice(stop, stop + 1), out)
            start = stop + 1
        stamps = self._funding(messages)
        if not out:
            return Messages.empty()
        applied = self._in_stream_order(concat(out))
        if stamps:
            applied = concat([applied, *stamps])
            applied = applied.take(np.argsort(applied.local_ns, kind="stable"))
        return applied

    # -- inside ------------------------------------------------------------------------------------
    def _check_trades(self, messages: Messages, verdict: Verdicts, expected: Int64s) -> None:
        holes = int(np.sum(self._hole_low <= self._hole_high))
        self._last_trade_id = int(self._ids(messages.kind, messages.seq, self._last_trade_id, self._hole_low, self._hole_high, verdict, expected))
        gaps = np.flatnonzero((messages.kind == Kind.TRADE) & (verdict == _BREAK))
        # trades that came late have closed their holes; beyond the room for holes every jump counts
        closed = holes + len(gaps) - int(np.sum(self._hole_low <= self._hole_high))
        self.trade_id_gaps += len(gaps) - (closed if holes + len(gaps) <= _HOLES else 0)
        self._note("trade id", messages, gaps, expected)
        verdict[gaps] = _KEEP

    def _note(self, what: str, messages: Messages, at: npt.NDArray[np.intp], expected: Int64s) -> None:
        room = PLACES_KEPT - sum(place.what == what for place in self.places)
        for i in at[: max(0, room)]:
            got = int(messages.seq[i])
            if what == "depth update":
                got = int(messages.prev_seq[i]) if messages.prev_seq[i] >= 0 else int(messages.first_seq[i])
            self.places.append(BreakPlace(what, int(expected[i]), got, int(messages.place[i]), int(messages.local_ns[i])))

    def _collect(self, part: Messages, verdict: Verdicts, expected: Int64s, out: list[Messages], *, counting: bool) -> None:
        depth = part.kind == Kind.DEPTH
        breaks = np.flatnonzero(depth & (verdict == _BREAK))
        if counting:
            self.depth_messages += int(np.sum(depth))
            self.duplicates += int(np.sum(verdict == _DUPLICATE))
            self.sequence_breaks += len(breaks)
            self._note("depth update", part, breaks, expected)
        last = 0
        for i in breaks:
            self._keep(part.slice(last, int(i)), verdict[last:i], out)
            out.append(_clear(part, int(i), int(expected[i])))
            self._wait(part.slice(int(i), int(i) + 1))
            last = int(i) + 1
        self._keep(part.slice(last, len(part)), verdict[last:], out)

    def _keep(self, part: Messages, verdict: Verdicts, out: list[Messages]) -> None:
        waiting = verdict == _PENDING
        if waiting.any():
            self._wait(part.take(waiting))
        kept = verdict == _KEEP
        out.append(part if kept.all() else part.take(kept))

    def _wait(self, messages: Messages) -> None:
        if messages.seq[0] < 0:
            return  # a feed without ids never joins backwards
        self._pending.append(messages)
        self._pending_count += len(messages)
        while self._pending_count - len(self._pending[0]) >= PENDING_MESSAGES:
            self._pending_count -= len(self._pending.popleft())

    def _snapshot(self, snapshot: Messages, out: list[Messages]) -> None:
        base = int(snapshot.seq[0])
        if base < 0:
            if not self._depth[_IN_SNAPSHOT]:
                out.append(_clear(snapshot, 0, -1))
                self.snapshots_used += 1
            self._depth[_MODE], self._depth[_IN_SNAPSHOT] = _VALID, 1
            out.append(snapshot)
            return
        if self._depth[_MODE] == _VALID or (self._depth[_MODE] == _JOINING and base <= self._depth[_BASE_SEQ]):
            self.snapshots_dropped += 1
            return
        waited = concat(tuple(self._pending))
        self._pending.clear()
        self._pending_count = 0
        survivors = waited.take(waited.seq > base)
        self._depth[_MODE], self._depth[_BASE_SEQ] = _JOINING, base
        n = len(survivors)
        verdict, expected = np.zeros(n, dtype=np.int8), np.full(n, -1, dtype=np.int64)
        if n:
            # known with the snapshot, not before; happened after it
            survivors = survivors.replace(local_ns=np.maximum(survivors.local_ns, snapshot.local_ns[0]))
            if survivors.exch_ns[0] < snapshot.exch_ns[0]:
                snapshot = snapshot.replace(exch_ns=survivors.exch_ns[:1].copy(), flags=snapshot.flags | np.int16(ESTIMATED_EXCH))
            self._chain(survivors.kind, survivors.first_seq, survivors.seq, survivors.prev_seq, 0, 0, self._depth, verdict, expected)
        self.snapshots_used += 1
        out += [_clear(snapshot, 0, base), snapshot]
        if n:
            self._collect(survivors, verdict, expected, out, counting=False)

    def _funding(self, messages: Messages) -> list[Messages]:
        """A stamp has passed when the next one is announced: it settled at the rate announced for it last, on the mark price said with it."""
        out = []
        for i in np.flatnonzero(messages.kind == Kind.FUNDING_PREDICTED):
            stamp, said = int(messages.seq[i]), int(messages.exch_ns[i])
            passed = 0 <= self._stamp_ns < stamp and self._stamp_ns <= said
            # a rate announced long before its stamp is not the one that was settled
            if passed and self._said_ns >= self._stamp_ns - FUNDING_MAX_AGE_NS:
                out.append(
                    Messages.of(
                        1,
                        local_ns=messages.local_ns[i],
                        exch_ns=self._stamp_ns,
                        kind=int(Kind.FUNDING),
                        flags=messages.flags[i] & ~np.int16(ESTIMATED_EXCH),
                        seq=self._stamp_ns,
                        value=self._rate,
                        aux=self._mark,
                        place=messages.place[i],
                    )
                )
            self._stamp_ns, self._said_ns = stamp, said
            self._rate, self._mark = float(messages.value[i]), float(messages.aux[i])
        return out

    def _in_stream_order(self, messages: Messages) -> Messages:
        """The ids order the depth stream; a venue time that runs backwards within it is held (and marked as an estimate)."""
        depth = np.flatnonzero((messages.kind == Kind.DEPTH) | (messages.kind == Kind.SNAPSHOT) | (messages.kind == Kind.CLEAR))
        if not len(depth):
            return messages
        stated = messages.exch_ns[depth]
        held = np.maximum.accumulate(np.maximum(stated, self._depth[_DEPTH_EXCH]))
        self._depth[_DEPTH_EXCH] = held[-1]
        late = depth[held > stated]
        if not len(late):
            return messages
        exch, flags = messages.exch_ns.copy(), messages.flags.copy()
        exch[depth] = held
        flags[late] |= ESTIMATED_EXCH
        # a held time may not overtake the receive time
        return messages.replace(exch_ns=np.minimum(exch, messages.local_ns), flags=flags)


def _clear(messages: Messages, i: int, seq: int) -> Messages:
    return Messages.of(
        1,
        local_ns=messages.local_ns[i],
        event_ns=messages.event_ns[i],
        exch_ns=messages.exch_ns[i],
        kind=int(Kind.CLEAR),
        flags=messages.flags[i],
        seq=seq,
        place=messages.place[i],
    )
