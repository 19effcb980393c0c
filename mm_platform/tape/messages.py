"""Venue messages as columns: what decoders produce and the tape builder consumes.

Belongs here: the `Messages` batch, its assembly, selection and expansion into tape rows. Does not belong here: reading vendor text
(`decode`), sequence checks, clocks and order (`feed`, `venue_order`).

One message is what the venue sent at once: a depth update with any number of levels (none is allowed: it still advances the sequence), a
snapshot, a trade, a best quote (two levels), a mark price. Levels of all messages stand in one flat set of columns; message `i` owns
`offset[i]:offset[i + 1]`. Kinds without a price own one level of zeros, so that every message expands to its rows in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.tape.layout import LAST, Kind

Int64s = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]

NO_TIME: Final = -1
NO_SEQ: Final = -1

_PER_MESSAGE: Final[dict[str, npt.DTypeLike]] = {
    "local_ns": np.dtype(np.int64),
    "event_ns": np.dtype(np.int64),
    "exch_ns": np.dtype(np.int64),
    "kind": np.dtype(np.int8),
    "flags": np.dtype(np.int16),
    "first_seq": np.dtype(np.int64),
    "seq": np.dtype(np.int64),
    "prev_seq": np.dtype(np.int64),
    "value": np.dtype(np.float64),
    "aux": np.dtype(np.float64),
    "place": np.dtype(np.int64),
}
_PER_LEVEL: Final[dict[str, npt.DTypeLike]] = {"side": np.dtype(np.int8), "price_ticks": np.dtype(np.int64), "qty_lots": np.dtype(np.int64)}
_DEFAULTS: Final[dict[str, float]] = {
    "event_ns": NO_TIME,
    "exch_ns": NO_TIME,
    "flags": 0,
    "first_seq": NO_SEQ,
    "seq": NO_SEQ,
    "prev_seq": NO_SEQ,
    "value": np.nan,
    "aux": np.nan,
}


@dataclass(frozen=True, slots=True)
class Messages:
    """A batch of n messages, in receive order unless said otherwise.

    Parameters
    ----------
    local_ns : ndarray of int64, shape (n,)
        Receive time; as recorded until the clock repair, repaired afterwards [ns UTC].
    event_ns : ndarray of int64, shape (n,)
        When the venue sent it, -1 where it does not say [ns UTC].
    exch_ns : ndarray of int64, shape (n,)
        When it happened at the venue, -1 where it does not say [ns UTC].
    kind, flags : ndarray, shape (n,)
        As in `tape.layout`.
    first_seq, seq, prev_seq : ndarray of int64, shape (n,)
        First and last update id the message covers and the last id of the message before it; `seq` alone is the trade id of trades and the
        next stamp [ns] of predicted funding. -1 where the venue gives none.
    value, aux : ndarray of float64, shape (n,)
        As in `tape.layout`.
    place : ndarray of int64, shape (n,)
        Source number * 2**40 + line number, for messages about the data.
    offset : ndarray of int64, shape (n + 1,)
        Levels of message i are `offset[i]:offset[i + 1]`.
    side, price_ticks, qty_lots : ndarray, shape (levels,)
        As in `tape.layout`.
    """

    local_ns: Int64s
    event_ns: Int64s
    exch_ns: Int64s
    kind: npt.NDArray[np.int8]
    flags: npt.NDArray[np.int16]
    first_seq: Int64s
    seq: Int64s
    prev_seq: Int64s
    value: npt.NDArray[np.float64]
    aux: npt.NDArray[np.float64]
    place: Int64s
    offset: Int64s
    side: npt.NDArray[np.int8]
    price_ticks: Int64s
    qty_lots: Int64s

    def __len__(self) -> int:
        return len(self.local_ns)

    @property
    def level_count(self) -> Int64s:
        """Levels per message, shape (n,)."""
        return np.diff(self.offset)

    @classmethod
    def empty(cls) -> Messages:
        return cls.of(0)

    @classmethod
    def of(cls, n: int, *, counts: Int64s | None = None, side: Any = None, price_ticks: Any = None, qty_lots: Any = None, **columns: Any) -> Messages:
        """Assemble n messages; columns left out take their "not stated" value, scalars are repeated.

        Without `counts` every message owns one level of zeros (kinds without a price).
        """
        unknown = columns.keys() - _PER_MESSAGE.keys()
        if unknown:
            raise TypeError(f"messages have no columns {sorted(unknown)}")
        per_message = {
            name: np.ascontiguousarray(np.broadcast_to(np.asarray(columns.get(name, _DEFAULTS.get(name, 0)), dtype=dtype), (n,)))
            for name, dtype in _PER_MESSAGE.items()
        }
        offset = np.zeros(n + 1, dtype=np.int64)
        if counts is None:
            offset[:] = np.arange(n + 1)
            levels: Columns = {name: np.zeros(n, dtype=dtype) for name, dtype in _PER_LEVEL.items()}
        else:
            np.cumsum(counts, out=offset[1:])
            levels = {
                "side": np.asarray(side, dtype=np.int8),
                "price_ticks": np.asarray(price_ticks, np.int64),
                "qty_lots": np.asarray(qty_lots, np.int64),
            }
        return cls(offset=offset, **per_message, **levels)

    def take(self, index: npt.NDArray[Any]) -> Messages:
        """Messages selected by positions or by a mask, with their levels."""
        at = np.flatnonzero(index) if index.dtype == np.bool_ else index
        counts = self.level_count[at]
        offset = np.zeros(len(at) + 1, dtype=np.int64)
        np.cumsum(counts, out=offset[1:])
        rows = np.repeat(self.offset[at] - offset[:-1], counts) + np.arange(offset[-1])
        return Messages(
            offset=offset, **{name: getattr(self, name)[at] for name in _PER_MESSAGE}, **{name: getattr(self, name)[rows] for name in _PER_LEVEL}
        )

    def slice(self, start: int, stop: int) -> Messages:
        """Messages start:stop without copying the columns."""
        first, last = int(self.offset[start]), int(self.offset[stop])
        return Messages(
            offset=self.offset[start : stop + 1] - first,
            **{name: getattr(self, name)[start:stop] for name in _PER_MESSAGE},
            **{name: getattr(self, name)[first:last] for name in _PER_LEVEL},
        )

    def replace(self, **columns: npt.NDArray[Any]) -> Messages:
        """The same messages with some columns exchanged."""
        return Messages(**({f.name: getattr(self, f.name) for f in fields(self)} | columns))

    def rows(self) -> Columns:
        """Tape rows, one per level, in the order of the messages; the last row of a message carries `LAST`."""
        counts = self.level_count
        of_message = np.repeat(np.arange(len(self)), counts)
        flags = self.flags[of_message]
        ends = self.offset[1:][counts > 0] - 1
        flags[ends] |= LAST
        return {
            "exch_ts": self.exch_ns[of_message],
            "local_ts": self.local_ns[of_message],
            "kind": self.kind[of_message],
            "side": self.side,
            "flags": flags,
            "price_ticks": self.price_ticks,
            "qty_lots": self.qty_lots,
            "seq": self.seq[of_message],
            "value": self.value[of_message],
            "aux": self.aux[of_message],
        }


def concat(batches: Sequence[Messages]) -> Messages:
    """One batch out of several, in their order."""
    parts = [b for b in batches if len(b)]
    if not parts:
        return batches[0] if batches else Messages.empty()
    if len(parts) == 1:
        return parts[0]
    offsets, base = [np.zeros(1, dtype=np.int64)], 0
    for part in parts:
        offsets.append(part.offset[1:] + base)
        base += int(part.offset[-1])
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in (*_PER_MESSAGE, *_PER_LEVEL)}
    return Messages(offset=np.concatenate(offsets), **columns)


def messages_of_rows(columns: Columns) -> Messages:
    """Tape rows back to messages (what `Messages.rows` made of them); depth messages without levels leave no row and do not come back."""
    n = len(columns["exch_ts"])
    if not n:
        return Messages.empty()
    kind, flags = columns["kind"], columns["flags"]
    several = (kind == Kind.DEPTH) | (kind == Kind.SNAPSHOT) | (kind == Kind.TOP)
    ends = np.flatnonzero(((flags & LAST) != 0) | ~several)
    if not len(ends) or ends[-1] != n - 1:
        ends = np.append(ends, n - 1)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return Messages.of(
        len(ends),
        counts=ends - starts + 1,
        side=columns["side"],
        price_ticks=columns["price_ticks"],
        qty_lots=columns["qty_lots"],
        local_ns=columns["local_ts"][starts],
        event_ns=columns["exch_ts"][starts],
        exch_ns=columns["exch_ts"][starts],
        kind=kind[starts],
        flags=flags[starts] & ~LAST,
        seq=columns["seq"][starts],
        value=columns["value"][starts],
        aux=columns["aux"][starts],
    )
