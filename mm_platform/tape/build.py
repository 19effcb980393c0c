"""From received messages to tape rows: clock, sequences, venue order, one UTC day after the other.

Belongs here: the composition of the steps and what is counted on the way. Does not belong here: the steps (`clock_repair`, `depth_chain`,
`venue_order`), vendor formats (`decode`), files (`workflow`).

    builder = TapeBuilder(settings)
    day, count = builder.day_of(messages)           # messages in receive order, batch after batch
    rows = builder.add(messages.slice(0, count))
    rows, counts = builder.end_day()                # when the day has changed, and at the end

Memory is bounded by the batches handed in and the two buffers (`DepthChain`, `VenueOrder`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mm_platform.core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, utc_date
from mm_platform.tape.clock_repair import ClockCounts, ClockRepair, ClockState
from mm_platform.tape.depth_chain import BreakPlace, ChainState, DepthChain
from mm_platform.tape.layout import Kind
from mm_platform.tape.messages import Columns, Messages
from mm_platform.tape.venue_order import VenueOrder

__all__ = ["BuildSettings", "FeedCounts", "FeedState", "TapeBuilder"]

FEED_SCHEMA: Final = 1


class BuildSettings(BaseModel):
    """How received messages become a tape.

    Parameters
    ----------
    clock_floor_ms : float
        Feed latency that the clock repair leaves at least [ms].
    clock_window_s : float
        Trailing window over which the repair takes the smallest latency [s].
    reorder_s : float
        How far streams of one instrument may lag each other in venue time [s].
    silence_s : float
        Pauses longer than this are counted as gaps of the feed [s].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    clock_floor_ms: float = Field(default=5.0, ge=0, le=1_000)
    clock_window_s: float = Field(default=600.0, ge=1, le=86_400)
    reorder_s: float = Field(default=10.0, ge=0, le=600)
    silence_s: float = Field(default=60.0, gt=0)

    @property
    def clock_floor_ns(self) -> int:
        return round(self.clock_floor_ms * NS_PER_MS)


class FeedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the next day, or the next file, continues from (the book itself is stored as levels)."""

    schema: int
    clock: ClockState
    chain: ChainState


@dataclass(frozen=True, slots=True)
class FeedCounts:
    """What one partition's messages were like before they became rows.

    Parameters
    ----------
    clock : ClockCounts
    sequence_breaks, trade_id_gaps, duplicates, depth_messages, snapshots_used, snapshots_dropped, late : int
        See `DepthChain` and `VenueOrder`.
    places : tuple of BreakPlace
        The first sequence breaks and trade-id gaps.
    book_ever_known : bool
        Whether any depth update or snapshot was applied.
    """

    clock: ClockCounts
    sequence_breaks: int
    trade_id_gaps: int
    duplicates: int
    depth_messages: int
    snapshots_used: int
    snapshots_dropped: int
    late: int
    places: tuple[BreakPlace, ...]
    book_ever_known: bool


class TapeBuilder:
    """Builds one instrument's rows from its messages; see the module's docstring.

    Parameters
    ----------
    settings : BuildSettings
    state : FeedState, optional
        Where the partition before ended.
    """

    def __init__(self, settings: BuildSettings, state: FeedState | None = None, *, compiled: bool = True) -> None:
        self._clock = ClockRepair(
            settings.clock_floor_ns,
            round(settings.clock_window_s * NS_PER_S),
            round(settings.silence_s * NS_PER_S),
            state.clock if state else None,
            compiled=compiled,
        )
        self._chain = DepthChain(state.chain if state else None, compiled=compiled)
        self._order = VenueOrder(round(settings.reorder_s * NS_PER_S))
        self._ever_known = False

    @property
    def last_local_ns(self) -> int:
        """Repaired receive time of the newest message, -1 before the first [ns]."""
        return self._clock.last_local_ns

    @property
    def book_known(self) -> bool:
        """Whether the depth chain is unbroken from a snapshot on."""
        return self._chain.book_known

    def day_of(self, messages: Messages) -> tuple[date, int]:
        """UTC day of the first message's receive time once repaired, and how many messages from there on lie on it; changes nothing."""
        mark = self._clock.mark()
        local_ns = self._clock.repair(messages).local_ns
        self._clock.reset(mark)
        first = int(local_ns[0]) // NS_PER_DAY
        return utc_date(first * NS_PER_DAY), int(np.searchsorted(local_ns, (first + 1) * NS_PER_DAY, side="left"))

    def add(self, messages: Messages) -> Columns:
        """Messages of the day at hand, in receive order; returns the rows that are final, in venue order."""
        applied = self._chain.apply(self._clock.repair(messages))
        if not self._ever_known and len(applied):
            self._ever_known = bool(np.any((applied.kind == Kind.DEPTH) | (applied.kind == Kind.SNAPSHOT)))
        return self._order.push(applied).rows()

    def add_stored(self, messages: Messages) -> Columns:
        """Messages of the day at hand that an earlier call has already judged and repaired: they are only put in order."""
        if len(messages):
            self._ever_known = self._ever_known or bool(np.any((messages.kind == Kind.DEPTH) | (messages.kind == Kind.SNAPSHOT)))
        return self._order.push(messages).rows()

    def end_day(self) -> tuple[Columns, FeedCounts]:
        """The day's last rows, and what was counted since it began."""
        rows = self._order.flush().rows()
        chain = self._chain
        counts = FeedCounts(
            clock=self._clock.take_counts(),
            sequence_breaks=chain.sequence_breaks,
            trade_id_gaps=max(0, chain.trade_id_gaps),
            duplicates=chain.duplicates,
            depth_messages=chain.depth_messages,
            snapshots_used=chain.snapshots_used,
            snapshots_dropped=chain.snapshots_dropped,
            late=self._order.late,
            places=tuple(sorted(chain.places, key=lambda p: (p.local_ns, p.place, p.what))),
            book_ever_known=self._ever_known,
        )
        chain.reset_counts()
        self._order.late = 0
        self._ever_known = False
        return rows, counts

    def state(self) -> FeedState:
        """Where the feed stands; meaningful at the end of a day."""
        return FeedState(FEED_SCHEMA, self._clock.state(), self._chain.state())
