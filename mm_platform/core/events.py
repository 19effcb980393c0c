"""Events: what happened. All frozen, tagged by their class name; the journal stores exactly these.

Times are ns since the epoch, UTC: `exch_ts` when it happened at the venue, `local_ts` when we could know it. Prices are integer ticks,
quantities integer lots of the instrument.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

JOURNAL_SCHEMA: Final = 1


class Event(msgspec.Struct, frozen=True, tag=True, kw_only=True, forbid_unknown_fields=True):
    """Root: which instrument, and both clocks."""

    instrument: str
    exch_ts: int
    local_ts: int


class BookSnapshot(Event, frozen=True):
    """The whole known book, best first: pairs (ticks, lots)."""

    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]
    seq: int


class BookDelta(Event, frozen=True):
    """New absolute quantities of levels: triples (side +1 bid / -1 ask, ticks, lots)."""

    levels: tuple[tuple[int, int, int], ...]
    seq: int
    prev_seq: int = -1


class BookTop(Event, frozen=True):
    """Best bid and ask as the venue states them."""

    bid_ticks: int
    bid_lots: int
    ask_ticks: int
    ask_lots: int
    seq: int = -1


class Trade(Event, frozen=True):
    """A print; `side` is the taker's (+1 bought). `market` is false for prints that fill nobody (insurance fund, ADL)."""

    price_ticks: int
    qty_lots: int
    side: int
    trade_id: int = -1
    market: bool = True


class MarkPrice(Event, frozen=True):
    """Mark and index price, and the funding rate the venue predicts for the next stamp (None where it does not say)."""

    mark_price: float
    index_price: float
    predicted_rate: float | None = None
    next_funding_ts: int | None = None


class Funding(Event, frozen=True):
    """A settled funding stamp: rate per interval; longs pay shorts when positive, on `mark_price`."""

    rate: float
    mark_price: float


class InstrumentStatus(Event, frozen=True):
    """Trading status as the venue states it."""

    status: str


class OrderAck(Event, frozen=True):
    client_id: str
    venue_id: str = ""


class OrderReject(Event, frozen=True):
    client_id: str
    code: str
    reason: str


class OrderUnknown(Event, frozen=True):
    """A write whose outcome is not known; reconcile before acting on the slot."""

    client_id: str
    reason: str


class OrderUpdate(Event, frozen=True):
    client_id: str
    status: Literal["open", "cancelled", "filled", "expired", "rejected"]
    leaves_lots: int


class Fill(Event, frozen=True):
    """Ours. `side` is our side; `fee_quote` positive = paid; `mid_half_ticks` the venue mid just before it (twice the mid in ticks)."""

    client_id: str
    trade_id: str
    side: int
    price_ticks: int
    qty_lots: int
    maker: bool
    fee_quote: float
    leaves_lots: int
    mid_half_ticks: int = 0


class Position(Event, frozen=True):
    """What the venue reports, signed lots."""

    lots: int


class Balance(Event, frozen=True):
    asset: str
    total: float


class Timer(Event, frozen=True):
    """A moment asked for by SetTimer, or the decision grid."""

    name: str


class ParametersChanged(Event, frozen=True):
    """The runner accepted another parameter set; `parameters` is its canonical JSON, so that the journal alone reproduces state."""

    version: str
    sha256: str
    parameters: str


class Control(Event, frozen=True):
    """An operator's word: halt, resume, reduce."""

    action: Literal["halt", "resume", "reduce"]
    reason: str


class Disconnected(Event, frozen=True):
    stream: str
    reason: str


AnyEvent = (
    BookSnapshot
    | BookDelta
    | BookTop
    | Trade
    | MarkPrice
    | Funding
    | InstrumentStatus
    | OrderAck
    | OrderReject
    | OrderUnknown
    | OrderUpdate
    | Fill
    | Position
    | Balance
    | Timer
    | ParametersChanged
    | Control
    | Disconnected
)
