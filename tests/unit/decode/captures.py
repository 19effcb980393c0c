"""Hand-made captures and the facts they are decoded with."""

from __future__ import annotations

import json
from typing import Any

from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.decode.binance_capture import CaptureDecoder, capture_decoder

T0_MS = 1_680_652_800_000


def facts(instrument: InstrumentId, ts_ns: int) -> InstrumentSpec:
    return InstrumentSpec(
        instrument=str(instrument), tick_size="0.1", lot_size="0.001", contract="linear" if instrument.perp else "spot", maker_fee=0.0, taker_fee=0.0
    )


def line(received_us: int, stream: str, **data: Any) -> bytes:
    return f"{received_us} ".encode() + json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode() + b"\n"


def depth(ms: int, first: int, last: int, prev: int, bids: Any = (), asks: Any = (), *, received_us: int | None = None, **more: Any) -> bytes:
    """USD-M depth update at T0 + ms."""
    return line(
        (T0_MS + ms) * 1000 + 6000 if received_us is None else received_us,
        "btcusdt@depth@0ms",
        **{"e": "depthUpdate", "E": T0_MS + ms, "T": T0_MS + ms, "s": "BTCUSDT", "U": first, "u": last, "pu": prev, "b": list(bids), "a": list(asks)}
        | more,
    )


def trade(ms: int, trade_id: int, price: str, qty: str, *, sell: bool = False, kind: str = "MARKET", **more: Any) -> bytes:
    """USD-M trade at T0 + ms."""
    return line(
        (T0_MS + ms) * 1000 + 5000,
        "btcusdt@trade",
        **{"e": "trade", "E": T0_MS + ms, "T": T0_MS + ms, "s": "BTCUSDT", "t": trade_id, "p": price, "q": qty, "X": kind, "m": sell} | more,
    )


def top(ms: int, update: int, bid: tuple[str, str], ask: tuple[str, str]) -> bytes:
    """USD-M best quote at T0 + ms."""
    return line(
        (T0_MS + ms) * 1000 + 5500,
        "btcusdt@bookTicker",
        e="bookTicker",
        u=update,
        s="BTCUSDT",
        b=bid[0],
        B=bid[1],
        a=ask[0],
        A=ask[1],
        T=T0_MS + ms,
        E=T0_MS + ms,
    )


def mark(ms: int, price: str, rate: str, stamp_ms: int) -> bytes:
    """USD-M mark price at T0 + ms."""
    return line(
        (T0_MS + ms) * 1000 + 50_000,
        "btcusdt@markPrice@1s",
        e="markPriceUpdate",
        E=T0_MS + ms,
        s="BTCUSDT",
        p=price,
        P=price,
        i="100.05",
        r=rate,
        T=stamp_ms,
    )


def snapshot(ms: int, last: int, bids: Any, asks: Any, *, received_ms: int | None = None) -> bytes:
    """USD-M REST snapshot of T0 + ms."""
    body = json.dumps({"lastUpdateId": last, "E": T0_MS + ms, "T": T0_MS + ms, "bids": bids, "asks": asks})
    return f"{(T0_MS + (ms + 20 if received_ms is None else received_ms)) * 1000} {body}\n".encode()


def decoder(capture: bytes) -> CaptureDecoder:
    made = capture_decoder(capture, InstrumentId.from_wire, facts, 0)
    assert made is not None
    return made
