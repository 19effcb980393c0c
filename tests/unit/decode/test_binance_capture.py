"""Raw Binance captures: every stream, both markets, and lines that cannot be used."""

from __future__ import annotations

import json
import math

import pytest
from unit.decode.captures import T0_MS, decoder, depth, facts, line, mark, snapshot, top, trade

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.decode.binance_capture import capture_decoder, sniff_capture
from mm_platform.tape.layout import NOT_MARKET, Kind

MS = 1_000_000
T0 = T0_MS * MS


def test_depth_trade_top_and_mark_become_messages_in_the_order_of_the_lines() -> None:
    capture = (
        depth(0, 5, 9, 4, [["100.0", "1.5"], ["99.9", "0"]], [["100.1", "2"]])
        + trade(1, 77, "100.1", "0.25")
        + top(2, 10, ("100.0", "1.5"), ("100.1", "1.75"))
        + mark(3, "100.07", "0.00010000", T0_MS + 28_800_000)
    )
    decoded = decoder(capture).decode(capture, 1)
    m = decoded.messages
    assert (decoded.lines, decoded.bad_count) == (4, 0)
    assert m.kind.tolist() == [Kind.DEPTH, Kind.TRADE, Kind.TOP, Kind.MARK, Kind.FUNDING_PREDICTED]
    assert m.local_ns.tolist() == [T0 + 6 * MS, T0 + 6 * MS, T0 + 7_500_000, T0 + 53 * MS, T0 + 53 * MS]
    assert m.exch_ns.tolist() == [T0, T0 + MS, T0 + 2 * MS, T0 + 3 * MS, T0 + 3 * MS]
    assert (m.first_seq[0], m.seq[0], m.prev_seq[0]) == (5, 9, 4)
    assert m.seq.tolist() == [9, 77, 10, -1, T0 + 28_800_000 * MS]
    assert m.level_count.tolist() == [3, 1, 2, 1, 1]
    assert m.side.tolist() == [1, 1, -1, 1, 1, -1, 0, 0]
    assert m.price_ticks.tolist() == [1000, 999, 1001, 1001, 1000, 1001, 0, 0]
    assert m.qty_lots.tolist() == [1500, 0, 2000, 250, 1500, 1750, 0, 0]
    assert (m.value[3], m.aux[3]) == (100.07, 100.05)
    assert (m.value[4], m.aux[4]) == (0.0001, 100.07)
    assert all(math.isnan(v) for v in m.value[:3])


def test_snapshot_line_with_blanks_and_an_empty_update() -> None:
    capture = depth(0, 5, 9, 4) + snapshot(1, 9, [["100.0", "1"]], [["100.1", "2"], ["100.2", "3"]])
    m = decoder(capture).decode(capture, 1).messages
    assert m.kind.tolist() == [Kind.DEPTH, Kind.SNAPSHOT]
    assert m.level_count.tolist() == [0, 3]
    assert (m.seq[1], m.first_seq[1], m.prev_seq[1]) == (9, -1, -1)
    assert m.exch_ns[1] == T0 + MS


def test_seller_and_prints_that_fill_nobody() -> None:
    capture = (
        depth(0, 5, 9, 4)
        + trade(1, 1, "100.0", "1", sell=True)
        + trade(2, 2, "100.0", "1", kind="INSURANCE_FUND")
        + trade(3, 3, "0", "0", kind="NA")
        + trade(4, 4, "100.0", "1")
    )
    m = decoder(capture).decode(capture, 1).messages.slice(1, 5)
    assert m.side.tolist() == [-1, 1, 1]
    assert (m.flags & NOT_MARKET).astype(bool).tolist() == [False, True, True, False]
    # the print without price takes its id and has no level
    assert m.seq.tolist() == [1, 2, 3, 4]
    assert m.level_count.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        (b'1680652800001000 {"stream":"btcusdt@trade","data":{"e":"tra\n', "frame"),
        (b"garbage\n", "frame"),
        (b"\n", "empty line"),
        (trade(1, 1, "NaN", "1"), "not a decimal number"),
        (trade(1, 1, "-100.0", "1"), "negative number"),
        (trade(1, 1, "0", "1"), "zero"),
        (trade(1, 1, "100.0", "0"), "zero"),
        (trade(1, 1, "100.05", "1"), "tick or lot size"),
        (trade(1, 1, "100.0", "1", m=None), "side"),
        (depth(1, 5, 9, 4, [["100.0", "-1"]]), "negative number"),
        (depth(1, 5, 9, 4, [["0", "1"]]), "zero"),
        (depth(1, 5, 9, 4, [["100.0"]]), "pairs"),
        (depth(1, "x", 9, 4), "frame"),  # type: ignore[arg-type]
        (top(1, 9, ("", "1"), ("100.1", "1")), "not a decimal number"),
        (mark(1, "NaN", "0.0001", T0_MS), "mark price"),
        (mark(1, "-1", "0.0001", T0_MS), "not positive"),
        (trade(1, 1, "100.0", "1", s="ETHUSDT"), "one capture holds one instrument"),
        # 1970: times are checked
        (trade(1, 1, "100.0", "1", T=1, E=1), "time at the venue"),
        (b"1 " + trade(1, 1, "100.0", "1").split(b" ", 1)[1], "receive time is no time"),
        # another day's event, and another day's receive time, among today's
        (trade(1, 1, "100.0", "1", T=T0_MS - 86_400_000, E=T0_MS - 86_400_000), "more than an hour apart"),
        (depth(-86_400_000, 5, 9, 4), "more than an hour before"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted_with_its_number_and_reason(spoiled: bytes, reason: str) -> None:
    capture = depth(0, 1, 4, 0) + trade(0, 0, "100.0", "1") + spoiled + trade(5, 2, "100.0", "1")
    decoded = decoder(depth(0, 1, 4, 0)).decode(capture, 1)
    assert decoded.bad_count == 1
    assert decoded.bad[0].line == 3
    assert reason in decoded.bad[0].reason
    assert decoded.lines == 4
    assert decoded.messages.place.tolist() == [1, 2, 4]


def test_acknowledgements_are_neither_messages_nor_bad() -> None:
    capture = b'1680652800000000 {"result":null,"id":1}\n' + trade(1, 1, "100.0", "1")
    decoded = decoder(depth(0, 1, 4, 0)).decode(capture, 1)
    assert (len(decoded.messages), decoded.bad_count, decoded.lines) == (1, 0, 2)


def test_nanoseconds_and_frames_without_the_stream_wrapper() -> None:
    frame = {"e": "trade", "E": T0_MS, "T": T0_MS, "s": "BTCUSDT", "t": 5, "p": "100.0", "q": "1", "X": "MARKET", "m": True}
    capture = f"{T0 + 123} {json.dumps(frame)}\n".encode()
    made = decoder(capture)
    m = made.decode(capture, 1).messages
    assert made.instrument == InstrumentId.parse("binanceusdm:BTC-USDT-PERP")
    assert m.local_ns.tolist() == [T0 + 123]
    # a microsecond time in a nanosecond capture is no time
    assert made.decode(trade(1, 1, "100.0", "1"), 2).bad_count == 1


def test_spot_has_no_time_in_best_quotes_and_only_the_sent_time_in_depth() -> None:
    capture = line(T0_MS * 1000, "btcusdt@bookTicker", u=7, s="BTCUSDT", b="100.0", B="1", a="100.1", A="2") + line(
        T0_MS * 1000 + 9, "btcusdt@depth@100ms", e="depthUpdate", E=T0_MS, s="BTCUSDT", U=6, u=8, b=[["100.0", "1"]], a=[]
    )
    made = decoder(capture)
    m = made.decode(capture, 1).messages
    assert made.instrument == InstrumentId.parse("binance:BTC-USDT")
    assert m.exch_ns.tolist() == [-1, T0]
    assert m.event_ns.tolist() == [-1, T0]
    assert m.prev_seq.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("capture", "venue"),
    [
        (trade(0, 1, "1", "1"), "binanceusdm"),
        (line(T0_MS * 1000, "btcusdt@trade", e="trade", E=T0_MS, T=T0_MS, s="BTCUSDT", t=1, p="1", q="1", m=True, M=True), "binance"),
        (line(T0_MS * 1000, "x", e="trade", E=T0_MS, T=T0_MS, s="TRXUSD_PERP", t=1, p="1", q="1", X="MARKET", m=True), "binancecoinm"),
        (mark(0, "1", "0", T0_MS), "binanceusdm"),
        (snapshot(0, 1, [], []) + depth(1, 2, 3, 1), "binanceusdm"),
    ],
)
def test_the_market_is_told_from_the_frames(capture: bytes, venue: str) -> None:
    sniffed = sniff_capture(capture)
    assert sniffed is not None
    assert sniffed[0] == venue


def test_what_is_no_capture_is_left_to_other_decoders() -> None:
    assert capture_decoder(b"exchange,symbol,timestamp\n", InstrumentId.from_wire, facts, 0) is None


def test_a_capture_that_never_names_its_instrument_is_an_error() -> None:
    with pytest.raises(DataError, match="none of its first lines has a symbol"):
        capture_decoder(snapshot(0, 1, [], []), InstrumentId.from_wire, facts, 0)


def test_any_split_into_chunks_gives_the_same_messages() -> None:
    lines = [depth(i, 10 * i + 1, 10 * i + 9, 10 * i - 1, [["100.0", "1"]]) if i % 2 else trade(i, i, "100.0", "1") for i in range(20)]
    whole = decoder(b"".join(lines)).decode(b"".join(lines), 1).messages
    made = decoder(lines[1])
    parts = [made.decode(b"".join(lines[a : a + 7]), a + 1).messages for a in range(0, 20, 7)]
    assert [int(s) for p in parts for s in p.seq] == whole.seq.tolist()
    assert [int(s) for p in parts for s in p.place] == whole.place.tolist() == list(range(1, 21))
