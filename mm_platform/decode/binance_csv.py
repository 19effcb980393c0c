"""Day files of Binance streams as CSV: difference depth, trades, depth snapshots, and all three merged; spot, USD-M and COIN-M.

Belongs here: these layouts' columns. One depth update or snapshot takes many lines, one per level. Comment lines (`#`) carry the author's quality
report; it is not trusted, but where the columns do not say the instrument (snapshots) it does.

`FINAL_DEPTH_SNAPSHOT` lines of the merged layout are the author's own closing book of the day before; they state no update id that the chain could
be checked against and are not used: the venue's `DEPTH_SNAPSHOT` is.
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.decode.csv_fields import BAD_FLAG, MIXED_TIMES, OTHER_SYMBOL, CsvDecoder, Fields, changes, csv_head, need, per_message, report_rows
from mm_platform.decode.decimal_text import NOT_POSITIVE, step_of
from mm_platform.decode.result import PLACE_STEP, BadLines, Facts, TimeCheck, to_ns, unit_ns
from mm_platform.tape.layout import NOT_MARKET, Kind
from mm_platform.tape.messages import Messages

_RECEIVED: Final = "TimestampOfReceive"
# in the merged layout this one orders the lines
_RECEIVED_MERGED: Final = "TimestampOfReceiveUS"
_MARKETS: Final = {"SPOT": "binance", "USD_M_FUTURES": "binanceusdm", "COIN_M_FUTURES": "binancecoinm"}
_REPORT: Final = re.compile(r"#[# ]*(?:TRADE_STREAM|DIFFERENCE_DEPTH_STREAM|DEPTH_SNAPSHOT) (SPOT|USD_M_FUTURES|COIN_M_FUTURES) (\w+)")


class BinanceCsvDecoder(CsvDecoder):
    """Decodes one such file; see the module's docstring and `result.Decoder`."""

    def __init__(
        self, names: list[str], header_line: int, instrument: InstrumentId, wire_symbol: str, facts: Facts, first_receive: int, source: int
    ) -> None:
        super().__init__(names, header_line)
        self._received = _RECEIVED_MERGED if _RECEIVED_MERGED in names else _RECEIVED
        unit = unit_ns(first_receive, self._received)
        self.first_receive_ns = first_receive * unit
        spec = facts(instrument, self.first_receive_ns)
        self.instrument = instrument
        self._symbol = wire_symbol
        self._tick, self._lot = step_of(spec.tick), step_of(spec.lot)
        self._times = TimeCheck(unit)
        self._base_place = source * PLACE_STEP
        self._merged = "StreamType" in names
        self._layout = Kind.TRADE if "TradeId" in names else Kind.DEPTH if "FirstUpdateId" in names else Kind.SNAPSHOT
        book, trades = frozenset({"book"}), frozenset({"trades"})
        # snapshots stand in files of their own and run beside the updates they are for
        self.streams = (
            book | trades if self._merged else {Kind.TRADE: trades, Kind.DEPTH: book, Kind.SNAPSHOT: frozenset({"snapshots"})}[self._layout]
        )

    def _kinds(self, fields: Fields) -> npt.NDArray[np.int8]:
        """Kind per row, 0 where it is not used."""
        if not self._merged:
            return np.full(len(fields), int(self._layout), dtype=np.int8)
        kinds = np.zeros(len(fields), dtype=np.int8)
        for word, kind in (("DIFFERENCE_DEPTH_STREAM", Kind.DEPTH), ("TRADE_STREAM", Kind.TRADE), ("DEPTH_SNAPSHOT", Kind.SNAPSHOT)):
            kinds[fields.equals("StreamType", word)] = int(kind)
        return kinds

    def _starts_message(self, fields: Fields) -> npt.NDArray[np.bool_]:
        kinds = self._kinds(fields)
        ids = [fields.integers(name)[0] for name in ("FirstUpdateId", "FinalUpdateId", "LastUpdateId", "TradeId")]
        received, _ = fields.integers(self._received)
        # snapshots repeat an id when nothing happened in between; an update is one however its lines are dated
        return changes(kinds, *ids, np.where(kinds == Kind.SNAPSHOT, received, 0)) | (kinds == Kind.TRADE)

    def _messages(self, fields: Fields, starts: npt.NDArray[np.bool_], bad: BadLines) -> Messages:
        kinds = self._kinds(fields)
        columns: dict[str, Any] = {}
        status = np.zeros(len(fields), dtype=np.int8)
        for name in (
            self._received, "EventTime", "TransactionTime", "FirstUpdateId", "FinalUpdateId", "FinalUpdateIdInLastStream",
            "LastUpdateId", "TradeId", "IsAsk", "IsBuyerMarketMaker", "MessageOutputTime",
        ):  # fmt: skip
            columns[name], wrong = fields.integers(name)
            status = np.maximum(status, wrong)
        price, wrong_price = fields.steps("Price", self._tick)
        qty, wrong_qty = fields.steps("Quantity", self._lot)
        status = np.maximum(status, np.maximum(wrong_price, wrong_qty))
        trade = kinds == Kind.TRADE
        market = fields.equals("XUnknownParameter", "MARKET") if "XUnknownParameter" in fields else np.ones(len(fields), dtype=np.bool_)
        void = trade & (status == 0) & (price == 0) & (qty == 0) & ~market
        status[(status == 0) & ~void & ((price == 0) | (trade & (qty == 0)))] = NOT_POSITIVE
        side_flag = np.where(trade, columns["IsBuyerMarketMaker"], columns["IsAsk"])
        status[(status == 0) & (kinds != 0) & (side_flag != 0) & (side_flag != 1)] = BAD_FLAG
        if self._merged or "Symbol" in fields:
            status[(status == 0) & (kinds != 0) & ~fields.equals("Symbol", self._symbol)] = OTHER_SYMBOL
        # the lines of one message are dated alike
        apart = changes(columns[self._received], columns["EventTime"], columns["TransactionTime"]) & ~starts
        status[(status == 0) & apart & (kinds != 0)] = MIXED_TIMES
        status[kinds == 0] = 0
        report_rows(status, fields.line, bad)

        at = np.flatnonzero(starts)
        kind, good = kinds[at], (per_message(starts, status) == 0) & (kinds[at] != 0)
        snapshot, first_row = kind == Kind.SNAPSHOT, {name: column[at] for name, column in columns.items()}
        event = np.where(first_row["EventTime"] >= 0, first_row["EventTime"], first_row["MessageOutputTime"])
        exch = np.where(first_row["TransactionTime"] >= 0, first_row["TransactionTime"], np.where(snapshot, -1, event))
        counts = np.diff(np.append(at, len(fields)))
        keep_levels = ~void
        messages = Messages.of(
            len(at),
            counts=np.add.reduceat(keep_levels.astype(np.int64), at) if not keep_levels.all() else counts,
            side=np.where(side_flag == 1, -1, 1)[keep_levels],
            price_ticks=price[keep_levels],
            qty_lots=qty[keep_levels],
            local_ns=self._times.receive_ns(first_row[self._received]),
            event_ns=to_ns(event),
            exch_ns=to_ns(exch),
            kind=kind,
            flags=np.where((kind == Kind.TRADE) & ~market[at], int(NOT_MARKET), 0),
            first_seq=np.where(kind == Kind.DEPTH, first_row["FirstUpdateId"], -1),
            seq=np.where(kind == Kind.TRADE, first_row["TradeId"], np.where(snapshot, first_row["LastUpdateId"], first_row["FinalUpdateId"])),
            prev_seq=np.where(kind == Kind.DEPTH, first_row["FinalUpdateIdInLastStream"], -1),
            place=fields.line[at] + self._base_place,
        )
        return self._times.check(messages.take(good), bad)


def binance_csv_decoder(head: bytes, resolve: Any, facts: Facts, source: int) -> BinanceCsvDecoder | None:
    """A decoder for a source that begins like `head`, or None where the header is not of these layouts; arguments as `capture_decoder`.

    Raises
    ------
    DataError
        The layout is one of these, but columns are missing or the instrument cannot be told.
    """
    header_line, names, row, comments = csv_head(head)
    if _RECEIVED not in names or "Price" not in names:
        return None
    need(names, ("IsBuyerMarketMaker",) if "TradeId" in names and "FirstUpdateId" not in names else ("IsAsk",), "Binance day file")
    need(names, ("Quantity",), "Binance day file")
    if row is None:
        raise DataError("a Binance day file with a header and no rows; nothing to ingest")
    first = dict(zip(names, row, strict=False))
    reported = _REPORT.search(comments)
    symbol = first.get("Symbol") or (reported[2] if reported else "")
    if not symbol:
        raise DataError(
            "a Binance depth snapshot without a Symbol column and without a report line '# DEPTH_SNAPSHOT <market> <symbol> ...' above it; add either"
        )
    if "Market" in first:
        venue = _MARKETS.get(first["Market"], "")
    elif reported:
        venue = _MARKETS[reported[1]]
    elif "_" in symbol:
        venue = "binancecoinm"
    else:
        venue = "binanceusdm" if "TransactionTime" in names and "MUnknownParameter" not in names else "binance"
    if not venue:
        raise DataError(f"market {first['Market']!r} is none of {', '.join(_MARKETS)}")
    received = first[_RECEIVED_MERGED if _RECEIVED_MERGED in names else _RECEIVED]
    if not received.isdigit():
        raise DataError(f"line {header_line + 1}: receive time {received!r} is no whole number")
    return BinanceCsvDecoder(names, header_line, resolve(venue, symbol), symbol, facts, int(received), source)
