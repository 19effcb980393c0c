"""Tape rows to market events: what a trader connected to the venue would have received.

Belongs here: grouping the rows of one venue message (they end with `LAST`) into one event. Does not belong here: when events are handed
out (`replay.venue`), vendor formats (`decode`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.core.events import AnyEvent, BookDelta, BookSnapshot, BookTop, Funding, InstrumentStatus, MarkPrice, Trade
from mm_platform.tape.layout import LAST, NOT_MARKET, Kind

_DEPTH: Final = int(Kind.DEPTH)
_TRADE: Final = int(Kind.TRADE)
_CLEAR: Final = int(Kind.CLEAR)
_SNAPSHOT: Final = int(Kind.SNAPSHOT)
_TOP: Final = int(Kind.TOP)
_MARK: Final = int(Kind.MARK)
_FUNDING_PREDICTED: Final = int(Kind.FUNDING_PREDICTED)
_FUNDING: Final = int(Kind.FUNDING)
_STATUS: Final = int(Kind.STATUS)
_BOOK: Final = 1


class EventBuilder:
    """Turns rows, handed in piece by piece, into (local_ts, number, event) with ascending numbers; keeps an unfinished message.

    instrument : the id that events carry. book : the book before the first row.
    """

    def __init__(self, instrument: str, book: BookState | None = None) -> None:
        self._instrument = instrument
        self._count = 0
        # the message being collected: what it is (0 = nothing), when, its levels, which sides were cleared
        self._what = 0
        self._exch_ts = 0
        self._local_ts = 0
        self._seq = -1
        self._levels: list[tuple[int, int, int]] = []
        self._cleared: set[int] = set()
        # the book as of the rows read so far: what a clear of one side removes must be named level by level
        self._book: dict[int, dict[int, int]] = {1: {}, -1: {}}
        self._removed: dict[int, list[int]] = {1: [], -1: []}
        if book is not None:
            self._book[1].update(zip(book.bid_ticks.tolist(), book.bid_lots.tolist(), strict=True))
            self._book[-1].update(zip(book.ask_ticks.tolist(), book.ask_lots.tolist(), strict=True))
        self._index_price = math.nan
        self._mark_price = math.nan

    def build(
        self,
        local_ts: Sequence[int],
        exch_ts: Sequence[int],
        kind: Sequence[int],
        side: Sequence[int],
        flags: Sequence[int],
        price_ticks: Sequence[int],
        qty_lots: Sequence[int],
        seq: Sequence[int],
        value: Sequence[float],
        aux: Sequence[float],
    ) -> Iterator[tuple[int, int, AnyEvent]]:
        """Events of these rows (columns of the tape as plain lists), in row order.

        A clear of the whole book with its levels is a snapshot. A clear of one side, or down to a price, is a delta that removes its levels.
        """
        instrument = self._instrument
        for lt, et, k, s, f, p, q, n, v, a in zip(local_ts, exch_ts, kind, side, flags, price_ticks, qty_lots, seq, value, aux, strict=True):
            if k in (_DEPTH, _SNAPSHOT, _CLEAR, _TOP):
                what = _TOP if k == _TOP else _BOOK
                if self._what != 0 and (self._what != what or self._local_ts != lt or self._exch_ts != et):
                    yield self._close()
                self._what, self._exch_ts, self._local_ts = what, et, lt
                if n > self._seq:
                    self._seq = n
                if k == _CLEAR:
                    self._clear(s, p)
                else:
                    self._levels.append((s, p, q))
                    if k != _TOP:
                        self._keep(s, p, q)
                if f & LAST:
                    yield self._close()
                continue
            if self._what != 0:
                yield self._close()
            event: AnyEvent
            if k == _TRADE:
                event = Trade(
                    instrument=instrument, exch_ts=et, local_ts=lt, price_ticks=p, qty_lots=q, side=s, trade_id=n, market=not f & NOT_MARKET
                )
            elif k == _MARK:
                self._mark_price, self._index_price = v, v if math.isnan(a) else a
                event = MarkPrice(instrument=instrument, exch_ts=et, local_ts=lt, mark_price=v, index_price=self._index_price)
            elif k == _FUNDING_PREDICTED:
                # a prediction restates the mark; the index is the last one said, or the mark before any was
                mark = self._mark_price if math.isnan(a) else a
                if math.isnan(mark):
                    raise DataError(f"{instrument}: a funding prediction at {et} ns states no mark price and none came before it")
                index = mark if math.isnan(self._index_price) else self._index_price
                event = MarkPrice(
                    instrument=instrument,
                    exch_ts=et,
                    local_ts=lt,
                    mark_price=mark,
                    index_price=index,
                    predicted_rate=v,
                    next_funding_ts=n if n > 0 else None,
                )
            elif k == _FUNDING:
                event = Funding(instrument=instrument, exch_ts=et, local_ts=lt, rate=v, mark_price=a)
            elif k == _STATUS:
                event = InstrumentStatus(instrument=instrument, exch_ts=et, local_ts=lt, status=str(n))
            else:
                raise DataError(f"{instrument}: row kind {k} at {et} ns is not known to this version")
            yield self._numbered(lt, event)

    def finish(self) -> Iterator[tuple[int, int, AnyEvent]]:
        """The message left when the rows end, if any."""
        if self._what != 0:
            yield self._close()

    def _numbered(self, local_ts: int, event: AnyEvent) -> tuple[int, int, AnyEvent]:
        self._count += 1
        return local_ts, self._count, event

    def _keep(self, side: int, price_ticks: int, lots: int) -> None:
        if lots > 0:
            self._book[side][price_ticks] = lots
        else:
            self._book[side].pop(price_ticks, None)

    def _clear(self, side: int, price_ticks: int) -> None:
        if side != 0 and price_ticks != 0:
            gone = [p for p in self._book[side] if (p - price_ticks) * side >= 0]
            self._levels = [level for level in self._levels if level[0] != side or level[1] not in gone]
            self._levels.extend((side, p, 0) for p in gone)
            for p in gone:
                del self._book[side][p]
            return
        sides = {1, -1} if side == 0 else {side}
        for s in sides:
            self._removed[s] += self._book[s]
            self._book[s].clear()
        self._cleared |= sides
        self._levels = [level for level in self._levels if level[0] not in sides]

    def _close(self) -> tuple[int, int, AnyEvent]:
        instrument, et, lt = self._instrument, self._exch_ts, self._local_ts
        event: AnyEvent
        if self._what == _TOP:
            best = {s: (p, q) for s, p, q in self._levels}
            bid, ask = best.get(1, (0, 0)), best.get(-1, (0, 0))
            event = BookTop(
                instrument=instrument, exch_ts=et, local_ts=lt, bid_ticks=bid[0], bid_lots=bid[1], ask_ticks=ask[0], ask_lots=ask[1], seq=self._seq
            )
        elif not self._cleared:
            event = BookDelta(instrument=instrument, exch_ts=et, local_ts=lt, levels=tuple(self._levels), seq=self._seq)
        elif len(self._cleared) == 2:
            bids = {p: q for s, p, q in self._levels if s > 0 and q > 0}
            asks = {p: q for s, p, q in self._levels if s < 0 and q > 0}
            event = BookSnapshot(
                instrument=instrument,
                exch_ts=et,
                local_ts=lt,
                bids=tuple(sorted(bids.items(), reverse=True)),
                asks=tuple(sorted(asks.items())),
                seq=self._seq,
            )
        else:
            (side,) = self._cleared
            restated = {p for s, p, _ in self._levels if s == side}
            gone = tuple((side, p, 0) for p in dict.fromkeys(self._removed[side]) if p not in restated)
            event = BookDelta(instrument=instrument, exch_ts=et, local_ts=lt, levels=gone + tuple(self._levels), seq=self._seq)
        self._what = 0
        self._seq = -1
        self._levels = []
        self._cleared = set()
        self._removed = {1: [], -1: []}
        return self._numbered(lt, event)
