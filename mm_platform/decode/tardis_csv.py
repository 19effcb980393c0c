"""Tardis CSV: `incremental_book_L2`, `trades`, `derivative_ticker`.

Belongs here: these layouts' columns. Told apart by their headers, never by file names.

Book: consecutive lines that agree in `local_timestamp`, `timestamp` and `is_snapshot` are one message. The layout has no update ids, so that a gap
cannot be seen: a snapshot replaces the book, and a line that cannot be used makes it unknown until the next snapshot. Funding: `funding_rate` is
the rate that `funding_timestamp` will settle.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.decode.csv_fields import BAD_FLAG, OTHER_SYMBOL, CsvDecoder, Fields, changes, csv_head, per_message, report_rows
from mm_platform.decode.decimal_text import NOT_POSITIVE, step_of
from mm_platform.decode.result import PLACE_STEP, BadLines, Facts, TimeCheck, UnknownFormat, to_ns, unit_ns
from mm_platform.tape.depth_chain import DAMAGED
from mm_platform.tape.layout import Kind
from mm_platform.tape.messages import Messages, concat

_COMMON: Final = ("exchange", "symbol", "timestamp", "local_timestamp")
_BOOK: Final = ("is_snapshot", "side", "price", "amount")
_TRADES: Final = ("id", "side", "price", "amount")
_TICKER: Final = ("funding_timestamp", "funding_rate", "index_price", "mark_price")


class _TardisDecoder(CsvDecoder):
    streams: frozenset[str] = frozenset()

    def __init__(
        self, names: list[str], header_line: int, instrument: InstrumentId, wire_symbol: str, facts: Facts, first_receive: int, source: int
    ) -> None:
        super().__init__(names, header_line)
        unit = unit_ns(first_receive, "local_timestamp")
        self.first_receive_ns = first_receive * unit
        spec = facts(instrument, self.first_receive_ns)
        self.instrument = instrument
        self._symbol = wire_symbol
        self._tick, self._lot = step_of(spec.tick), step_of(spec.lot)
        self._times = TimeCheck(unit)
        self._base_place = source * PLACE_STEP

    def _starts_message(self, fields: Fields) -> npt.NDArray[np.bool_]:
        return np.ones(len(fields), dtype=np.bool_)

    def _row_status(self, fields: Fields, *extra: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        status = np.zeros(len(fields), dtype=np.int8)
        for wrong in (fields.integers("timestamp")[1], fields.integers("local_timestamp")[1], *extra):
            status = np.maximum(status, wrong)
        status[(status == 0) & ~fields.equals("symbol", self._symbol)] = OTHER_SYMBOL
        return status

    def _common(self, fields: Fields, at: npt.NDArray[np.intp]) -> dict[str, Any]:
        stamp = to_ns(fields.integers("timestamp")[0][at])
        return {
            "local_ns": self._times.receive_ns(fields.integers("local_timestamp")[0][at]),
            "event_ns": stamp,
            "exch_ns": stamp,
            "place": fields.line[at] + self._base_place,
        }

    def _sides(self, fields: Fields, plus: str, minus: str, status: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        up, down = fields.equals("side", plus), fields.equals("side", minus)
        status[(status == 0) & ~up & ~down] = BAD_FLAG
        return np.where(up, 1, -1).astype(np.int8)


class TardisBookDecoder(_TardisDecoder):
    """`incremental_book_L2`; see the module's docstring and `result.Decoder`."""

    streams = frozenset({"book"})

    def _starts_message(self, fields: Fields) -> npt.NDArray[np.bool_]:
        return changes(fields.integers("local_timestamp")[0], fields.integers("timestamp")[0], fields.equals("is_snapshot", "true"))

    def _messages(self, fields: Fields, starts: npt.NDArray[np.bool_], bad: BadLines) -> Messages:
        price, wrong_price = fields.steps("price", self._tick)
        qty, wrong_qty = fields.steps("amount", self._lot)
        status = self._row_status(fields, wrong_price, wrong_qty)
        status[(status == 0) & (price == 0)] = NOT_POSITIVE
        side = self._sides(fields, "bid", "ask", status)
        report_rows(status, fields.line, bad)
        at = np.flatnonzero(starts)
        damaged = per_message(starts, status) != 0
        of_message = np.cumsum(starts) - 1
        keep = ~damaged[of_message]
        messages = Messages.of(
            len(at),
            counts=np.add.reduceat(keep.astype(np.int64), at),
            side=side[keep],
            price_ticks=price[keep],
            qty_lots=qty[keep],
            kind=np.where(fields.equals("is_snapshot", "true")[at] & ~damaged, int(Kind.SNAPSHOT), int(Kind.DEPTH)),
            seq=np.where(damaged, DAMAGED, -1),
            **self._common(fields, at),
        )
        return self._times.check(messages, bad)


class TardisTradesDecoder(_TardisDecoder):
    """`trades`; see the module's docstring and `result.Decoder`. Ids that are no whole numbers cannot be checked."""

    streams = frozenset({"trades"})

    def _messages(self, fields: Fields, starts: npt.NDArray[np.bool_], bad: BadLines) -> Messages:
        price, wrong_price = fields.steps("price", self._tick)
        qty, wrong_qty = fields.steps("amount", self._lot)
        status = self._row_status(fields, wrong_price, wrong_qty)
        status[(status == 0) & ((price == 0) | (qty == 0))] = NOT_POSITIVE
        side = self._sides(fields, "buy", "sell", status)
        report_rows(status, fields.line, bad)
        ids, wrong_id = fields.integers("id")
        ids[wrong_id != 0] = -1
        n = len(fields)
        messages = Messages.of(
            n,
            counts=np.ones(n, dtype=np.int64),
            side=side,
            price_ticks=price,
            qty_lots=qty,
            kind=int(Kind.TRADE),
            seq=ids,
            **self._common(fields, np.arange(n)),
        )
        return self._times.check(messages.take(status == 0), bad)


class TardisTickerDecoder(_TardisDecoder):
    """`derivative_ticker`: mark and index price, and the funding rate of the next stamp; see the module's docstring and `result.Decoder`."""

    streams = frozenset({"ticker"})

    def _messages(self, fields: Fields, starts: npt.NDArray[np.bool_], bad: BadLines) -> Messages:
        status = self._row_status(fields, fields.integers("funding_timestamp")[1])
        report_rows(status, fields.line, bad)
        n = len(fields)
        numbers = {name: np.full(n, math.nan) for name in ("mark_price", "index_price", "funding_rate")}
        for row in np.flatnonzero(status == 0):
            for name, column in numbers.items():
                text = fields.text(name, int(row))
                try:
                    column[row] = float(text) if text else math.nan
                except ValueError:
                    status[row] = 1
                    bad.add(int(fields.line[row]), f"{name} {text!r} is not a number")
                    break
                if text and (not math.isfinite(column[row]) or (name != "funding_rate" and column[row] <= 0)):
                    status[row] = 1
                    bad.add(int(fields.line[row]), f"{name} {text!r} is not a {'finite' if name == 'funding_rate' else 'positive'} number")
                    break
        every = np.arange(n)
        stamps = to_ns(fields.integers("funding_timestamp")[0])
        marked = (status == 0) & ~np.isnan(numbers["mark_price"])
        funded = marked & (stamps > 0) & ~np.isnan(numbers["funding_rate"])
        common = self._common(fields, every)
        marks = Messages.of(n, kind=int(Kind.MARK), value=numbers["mark_price"], aux=numbers["index_price"], **common)
        predicted = Messages.of(n, kind=int(Kind.FUNDING_PREDICTED), seq=stamps, value=numbers["funding_rate"], aux=numbers["mark_price"], **common)
        both = concat((marks.take(marked), predicted.take(funded)))
        return self._times.check(both.take(np.argsort(both.place, kind="stable")), bad)


def tardis_csv_decoder(head: bytes, resolve: Any, facts: Facts, source: int) -> _TardisDecoder | None:
    """A decoder for a source that begins like `head`, or None where the header is not Tardis's; arguments as `capture_decoder`.

    Raises
    ------
    DataError
        Tardis, but a data type that is not read here, or no rows.
    """
    header_line, names, row, _ = csv_head(head)
    if tuple(names[:4]) != _COMMON:
        return None
    layouts: tuple[tuple[tuple[str, ...], type[_TardisDecoder]], ...] = (
        (_BOOK, TardisBookDecoder),
        (_TRADES, TardisTradesDecoder),
        (_TICKER, TardisTickerDecoder),
    )
    found = next(((columns, decoder) for columns, decoder in layouts if all(name in names for name in columns)), None)
    if found is None:
        raise UnknownFormat(f"Tardis CSV with columns {', '.join(names[4:12])}: expected incremental_book_L2, trades or derivative_ticker")
    if row is None:
        raise DataError("Tardis CSV with a header and no rows; nothing to ingest")
    first = dict(zip(names, row, strict=False))
    received = first.get("local_timestamp", "")
    if not received.isdigit():
        raise DataError(f"line {header_line + 1}: local_timestamp {received!r} is no whole number of us or ns")
    symbol = first["symbol"]
    return found[1](names, header_line, resolve(first["exchange"], symbol), symbol, facts, int(received), source)
