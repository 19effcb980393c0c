"""Raw Binance websocket captures: one line = receive time, space, JSON frame; REST depth snapshots stand among the frames.

Belongs here: the wire format of `depth`, `bookTicker`, `trade` and `markPrice` streams, combined (`{"stream":..., "data":{...}}`) or not, for spot,
USD-M and COIN-M. Does not belong here: sequence checks and clocks (`tape`), files (`workflow`).

What tells the markets apart: futures frames carry the transaction time `T` in every stream and `pu` in depth; spot depth has only `E`, spot
bookTicker no time at all.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.decode.decimal_text import NOT_POSITIVE, STATUS_TEXT, parse_level_lists, parse_quoted, step_of
from mm_platform.decode.result import PLACE_STEP, BadLines, Decoded, Facts, TimeCheck, to_ns, unit_ns
from mm_platform.tape.layout import NOT_MARKET, Kind
from mm_platform.tape.messages import Int64s, Messages, concat

_NOTHING: Final = msgspec.Raw()


class _Payload(msgspec.Struct):
    """All fields of all streams; prices and quantities stay raw text. `b` and `a` are levels, prices or order ids by stream."""

    e: str = ""
    E: int = -1
    T: int = -1
    s: str = ""
    u: int = -1
    U: int = -1
    pu: int = -1
    t: int = -1
    b: msgspec.Raw = _NOTHING
    a: msgspec.Raw = _NOTHING
    B: msgspec.Raw = _NOTHING
    A: msgspec.Raw = _NOTHING
    p: msgspec.Raw = _NOTHING
    q: msgspec.Raw = _NOTHING
    i: msgspec.Raw = _NOTHING
    r: msgspec.Raw = _NOTHING
    X: str = "MARKET"
    m: bool | None = None
    lastUpdateId: int = -1
    bids: msgspec.Raw = _NOTHING
    asks: msgspec.Raw = _NOTHING
    ps: str = ""


class _Frame(_Payload):
    stream: str = ""
    data: _Payload | None = None


_decode_frame: Final = msgspec.json.Decoder(_Frame).decode


def _market(payload: _Payload) -> str:
    """Venue id from one frame's own shape; empty where the frame does not tell."""
    futures = payload.pu >= 0 or (payload.e in ("bookTicker", "depthUpdate") and payload.T >= 0) or payload.e == "markPriceUpdate"
    if futures:
        return "binancecoinm" if payload.ps or "_" in payload.s else "binanceusdm"
    if payload.e in ("depthUpdate", "trade") or (not payload.e and payload.u >= 0 and payload.s):
        return "binance"
    return ""


def sniff_capture(head: bytes) -> tuple[str, str, int] | None:
    """(venue id, wire symbol, receive time) of a capture's first lines, or None where the text is no capture.

    Parameters
    ----------
    head : bytes
        Whole lines from the start of a source.
    """
    first, venue, symbol, frames = -1, "", "", 0
    futures_trade = False
    for line in head.split(b"\n"):
        stamp, _, body = line.partition(b" ")
        if not stamp.isdigit() or body[:1] != b"{":
            if frames == 0 and line.strip():
                return None
            continue
        try:
            frame = _decode_frame(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        frames += 1
        first = int(stamp) if first < 0 else first
        payload = frame.data or frame
        symbol = symbol or payload.s
        # a spot trade and a futures trade differ in X only; every other frame settles it
        futures_trade = futures_trade or (payload.e == "trade" and b'"X":' in body)
        if payload.e != "trade":
            venue = venue or _market(payload)
        if venue and symbol:
            break
    if not frames:
        return None
    if not venue and symbol:
        venue = ("binancecoinm" if "_" in symbol else "binanceusdm") if futures_trade else "binance"
    return venue, symbol, first


class CaptureDecoder:
    """Decodes one capture of one instrument.

    Parameters
    ----------
    instrument : InstrumentId
    wire_symbol : str
        The venue's own symbol; frames of another are bad lines.
    facts : callable(InstrumentId, ns) -> InstrumentSpec
        Gives tick and lot size.
    first_receive : int
        First receive time as recorded; its magnitude gives the unit.
    source : int
        Number of the source, part of every message's `place`.
    """

    streams = frozenset({"book", "trades", "ticker"})

    def __init__(self, instrument: InstrumentId, wire_symbol: str, facts: Facts, first_receive: int, source: int) -> None:
        unit = unit_ns(first_receive, "receive time")
        self.first_receive_ns = first_receive * unit
        spec = facts(instrument, self.first_receive_ns)
        self.instrument = instrument
        self._symbol = wire_symbol
        self._spot = spec.contract == "spot"
        self._tick, self._lot = step_of(spec.tick), step_of(spec.lot)
        self._times = TimeCheck(unit)
        self._base_place = source * PLACE_STEP

    def decode(self, chunk: bytes, first_line: int) -> Decoded:
        """See `Decoder.decode`."""
        bad = BadLines()
        depth: list[int] = []
        depth_text: list[Any] = []
        tops: list[int] = []
        top_text: list[Any] = []
        trades: list[int] = []
        trade_text: list[Any] = []
        marks: list[tuple[int, int, _Payload]] = []
        snapshots: list[int] = []
        snapshot_text: list[Any] = []
        symbol = self._symbol
        lines = chunk.split(b"\n")
        if not lines[-1]:
            lines.pop()
        number = first_line - 1
        for line in lines:
            number += 1
            stamp, _, body = line.partition(b" ")
            try:
                received = int(stamp)
                frame = _decode_frame(body)
            except (ValueError, msgspec.MsgspecError) as err:
                bad.add(number, f"not '<receive time> <JSON frame>': {err}" if line.strip() else "empty line")
                continue
            payload = frame.data or frame
            kind = payload.e
            if payload.lastUpdateId >= 0:
                snapshots += (number, received, payload.E, payload.T, payload.lastUpdateId)
                snapshot_text += (payload.bids, payload.asks)
                continue
            if payload.s != symbol:
                if payload.s:
                    bad.add(number, f"symbol {payload.s!r} in a capture of {symbol}; one capture holds one instrument")
                continue  # acknowledgements and heartbeats
            if kind == "bookTicker" or (not kind and payload.u >= 0):
                tops += (number, received, payload.E, payload.T, payload.u)
                top_text += (payload.b, payload.B, payload.a, payload.A)
            elif kind == "depthUpdate":
                depth += (number, received, payload.E, payload.T, payload.U, payload.u, payload.pu)
                depth_text += (payload.b, payload.a)
            elif kind == "trade":
                if payload.m is None or payload.t < 0:
                    bad.add(number, "trade without id (t) or side (m)")
                    continue
                trades += (number, received, payload.E, payload.T, payload.t, -1 if payload.m else 1, 0 if payload.X == "MARKET" else int(NOT_MARKET))
                trade_text += (payload.p, payload.q)
            elif kind == "markPriceUpdate":
                marks.append((number, received, payload))
        parts = [
            self._books(depth, depth_text, 7, bad),
            self._books(snapshots, snapshot_text, 5, bad),
            self._tops(tops, top_text, bad),
            self._trades(trades, trade_text, bad),
            self._marks(marks, bad),
        ]
        messages = concat(parts)
        messages = messages.take(np.argsort(messages.place, kind="stable"))
        return bad.done(self._times.check(messages, bad), len(lines))

    def finish(self) -> Decoded:
        """Nothing is held back: every line stands alone."""
        return Decoded(Messages.empty(), 0, 0, ())

    # -- one stream each ---------------------------------------------------------------------------
    def _common(self, lines: Int64s, received: Int64s, event: Int64s, exch: Int64s) -> dict[str, Any]:
        return {
            "place": lines + self._base_place,
            "local_ns": self._times.receive_ns(received),
            "event_ns": to_ns(event),
            "exch_ns": to_ns(exch),
        }

    def _books(self, flat: list[int], text: list[Any], width: int, bad: BadLines) -> Messages:
        """Depth updates (7 numbers each) or snapshots (5)."""
        n = len(flat) // width
        if not n:
            return Messages.empty()
        table = np.array(flat, dtype=np.int64).reshape(n, width)
        joined = np.frombuffer(b"\n".join(text) + b"\n", dtype=np.uint8)
        room = int(np.count_nonzero(joined == ord("["))) + 1
        counts, status = np.empty(2 * n, np.int64), np.empty(2 * n, np.int8)
        price, qty = np.empty(room, np.int64), np.empty(room, np.int64)
        levels = parse_level_lists.compiled(joined, 2 * n, self._tick, self._lot, counts, status, price, qty)
        snapshot = width == 5
        # spot depth states only when it was sent; that is also the latest time it can speak of
        exch = np.where(table[:, 3] < 0, table[:, 2], table[:, 3])
        messages = Messages.of(
            n,
            counts=counts.reshape(n, 2).sum(axis=1),
            side=np.repeat(np.tile(np.array([1, -1], np.int8), n), counts),
            price_ticks=price[:levels],
            qty_lots=qty[:levels],
            kind=int(Kind.SNAPSHOT if snapshot else Kind.DEPTH),
            first_seq=-1 if snapshot else table[:, 4],
            seq=table[:, 4] if snapshot else table[:, 5],
            prev_seq=-1 if snapshot else table[:, 6],
            **self._common(table[:, 0], table[:, 1], table[:, 2], exch),
        )
        return _without(messages, status.reshape(n, 2).max(axis=1), bad)

    def _tops(self, flat: list[int], text: list[Any], bad: BadLines) -> Messages:
        n = len(flat) // 5
        if not n:
            return Messages.empty()
        table = np.array(flat, dtype=np.int64).reshape(n, 5)
        steps, status = self._numbers(text)
        price, qty = np.ascontiguousarray(steps[0::2]), np.ascontiguousarray(steps[1::2])
        status = status.reshape(n, 4).max(axis=1)
        status[(status == 0) & (price.reshape(n, 2).min(axis=1) == 0)] = NOT_POSITIVE
        messages = Messages.of(
            n,
            counts=np.full(n, 2),
            side=np.tile(np.array([1, -1], np.int8), n),
            price_ticks=price,
            qty_lots=qty,
            kind=int(Kind.TOP),
            seq=table[:, 4],
            **self._common(table[:, 0], table[:, 1], table[:, 2], table[:, 3]),
        )
        return _without(messages, status, bad)

    def _trades(self, flat: list[int], text: list[Any], bad: BadLines) -> Messages:
        n = len(flat) // 7
        if not n:
            return Messages.empty()
        table = np.array(flat, dtype=np.int64).reshape(n, 7)
        steps, status = self._numbers(text)
        price, qty = np.ascontiguousarray(steps[0::2]), np.ascontiguousarray(steps[1::2])
        status = status.reshape(n, 2).max(axis=1)
        # futures send prints without price and size (X = NA): they take an id and trade nothing
        void = (status == 0) & (price == 0) & (qty == 0) & (table[:, 6] != 0)
        status[(status == 0) & ~void & ((price == 0) | (qty == 0))] = NOT_POSITIVE
        messages = Messages.of(
            n,
            counts=np.where(void, 0, 1),
            side=table[~void, 5],
            price_ticks=price[~void],
            qty_lots=qty[~void],
            kind=int(Kind.TRADE),
            flags=table[:, 6],
            seq=table[:, 4],
            **self._common(table[:, 0], table[:, 1], table[:, 2], table[:, 3]),
        )
        return _without(messages, status, bad)

    def _numbers(self, text: list[Any]) -> tuple[Int64s, Any]:
        joined = np.frombuffer(b"\n".join(text) + b"\n", dtype=np.uint8)
        steps, status = np.empty(len(text), np.int64), np.empty(len(text), np.int8)
        parse_quoted.compiled(joined, len(text), self._tick, self._lot, steps, status)
        return steps, status

    def _marks(self, marks: list[tuple[int, int, _Payload]], bad: BadLines) -> Messages:
        good: list[tuple[int, int, int, int, float, float, float]] = []
        for number, received, payload in marks:
            try:
                mark, index, rate = (_float(raw) for raw in (payload.p, payload.i, payload.r))
            except (ValueError, msgspec.MsgspecError) as err:
                bad.add(number, f"mark price, index price or funding rate: {err}")
                continue
            if not mark > 0:
                bad.add(number, f"mark price {mark} is not positive")
                continue
            good.append((number, received, payload.E, payload.T, mark, index, rate))
        if not good:
            return Messages.empty()
        lines, received_, event, stamp = (np.array(column, dtype=np.int64) for column in list(zip(*good, strict=True))[:4])
        mark_, index_, rate_ = (np.array(column, dtype=np.float64) for column in list(zip(*good, strict=True))[4:])
        common = self._common(lines, received_, event, event)
        stated = Messages.of(len(good), kind=int(Kind.MARK), value=mark_, aux=index_, **common)
        # coin-margined delivery contracts state no rate and stamp 0
        funded = (stamp > 0) & ~np.isnan(rate_)
        predicted = Messages.of(len(good), kind=int(Kind.FUNDING_PREDICTED), seq=to_ns(stamp), value=rate_, aux=mark_, **common)
        return concat((stated, predicted.take(funded)))


def _float(raw: msgspec.Raw) -> float:
    """A JSON number or number string as a finite float; an empty string is NaN (not stated)."""
    value = msgspec.json.decode(raw)
    if value == "":
        return float("nan")
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{value!r} is not finite")
    return number


def _without(messages: Messages, status: Any, bad: BadLines) -> Messages:
    """Messages whose numbers could be used; the others become bad lines."""
    if not status.any():
        return messages
    for code in np.unique(status[status != 0]):
        bad.add_all(messages.place[status == code] % PLACE_STEP, STATUS_TEXT[int(code)])
    return messages.take(status == 0)


def capture_decoder(head: bytes, resolve: Any, facts: Facts, source: int) -> CaptureDecoder | None:
    """A decoder for a source that begins like `head`, or None where it is no capture.

    Parameters
    ----------
    head : bytes
        Whole lines from the start.
    resolve : callable(venue id, wire symbol) -> InstrumentId
    facts, source
        See `CaptureDecoder`.

    Raises
    ------
    DataError
        A capture, but no line in the head says of which instrument.
    """
    sniffed = sniff_capture(head)
    if sniffed is None:
        return None
    venue, symbol, first = sniffed
    if not venue or not symbol:
        raise DataError("a raw capture, but none of its first lines has a symbol; expected depth, bookTicker, trade or markPrice frames")
    return CaptureDecoder(resolve(venue, symbol), symbol, facts, first, source)
