"""Commands: what to do. The engine returns these; the runner carries them out; the journal stores them."""

from __future__ import annotations

from typing import Literal

import msgspec


class Command(msgspec.Struct, frozen=True, tag=True, kw_only=True, forbid_unknown_fields=True):
    """Root: which instrument and at which time (ns) it was decided."""

    instrument: str
    ts: int


class Place(Command, frozen=True):
    """A new order. `purpose` says which step asked for it; `tif` GTX is post-only, IOC crosses now."""

    client_id: str
    side: int
    price_ticks: int
    qty_lots: int
    tif: Literal["GTX", "GTC", "IOC"]
    purpose: Literal["quote", "hedge", "flatten"]
    reduce_only: bool = False


class Replace(Command, frozen=True):
    """Cancel one order and place another in its slot, in this order."""

    cancel_client_id: str
    client_id: str
    side: int
    price_ticks: int
    qty_lots: int
    tif: Literal["GTX", "GTC"]


class Cancel(Command, frozen=True):
    client_id: str


class CancelAll(Command, frozen=True):
    reason: str


class ArmDeadMan(Command, frozen=True):
    """Ask the venue to cancel everything unless re-armed within `timeout_ms`."""

    timeout_ms: int


class Query(Command, frozen=True):
    """Ask the venue for the truth about orders, positions or fills."""

    what: Literal["order", "open_orders", "positions", "fills"]
    client_id: str = ""


class SetTimer(Command, frozen=True):
    name: str
    at_ns: int


class Halt(Command, frozen=True):
    reason: str


class Note(Command, frozen=True):
    """A decision worth journaling: name and numbers with units in their keys."""

    name: str
    data: dict[str, float | int | str | bool | None]


AnyCommand = Place | Replace | Cancel | CancelAll | ArmDeadMan | Query | SetTimer | Halt | Note
