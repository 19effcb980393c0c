"""CSV layouts: Binance day files and Tardis; groups of lines across chunks; every kind of damage the `negative` samples stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.decode.detect import decoder_of
from mm_platform.decode.result import Decoded, UnknownFormat
from mm_platform.tape.depth_chain import DAMAGED
from mm_platform.tape.layout import NOT_MARKET, Kind
from mm_platform.tape.messages import Messages, concat

R = 1_741_046_400_000  # ms
MS = 1_000_000

DEPTH = "TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,FirstUpdateId,FinalUpdateId,FinalUpdateIdInLastStream,IsAsk,Price,Quantity\n"
TRADE = "TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,TradeId,Price,Quantity,IsBuyerMarketMaker,XUnknownParameter\n"
SNAPSHOT = "TimestampOfReceive,TimestampOfRequest,LastUpdateId,IsAsk,Price,Quantity\n"
MERGED = (
    "TimestampOfReceiveUS,TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,FirstUpdateId,FinalUpdateId,FinalUpdateIdInLastStream,IsAsk,"
    "Price,Quantity,PSUnknownField,TradeId,IsBuyerMarketMaker,XUnknownParameter,TimestampOfRequest,MessageOutputTime,LastUpdateId,StreamType,Market,IsLast,ServiceId\n"
)
BOOK = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n"


def facts(instrument: InstrumentId, ts_ns: int) -> InstrumentSpec:
    return InstrumentSpec(instrument=str(instrument), tick_size="0.00001", lot_size="1", contract="linear", maker_fee=0.0, taker_fee=0.0)


def resolve(venue: str, symbol: str) -> InstrumentId:
    return InstrumentId.parse("deribit:BTC-USD-PERP") if symbol == "BTC-PERPETUAL" else InstrumentId.from_wire(venue, symbol)


def read(text: str, chunk_bytes: int = 1 << 20) -> tuple[InstrumentId, Messages, list[Decoded]]:
    raw = text.encode()
    decoder = decoder_of(raw, resolve, facts, 0)
    done, line, at = [], 1, 0
    while at < len(raw):
        end = raw.rfind(b"\n", at, at + chunk_bytes) + 1 or raw.find(b"\n", at) + 1 or len(raw)
        done.append(decoder.decode(raw[at:end], line))
        line += raw.count(b"\n", at, end)
        at = end
    done.append(decoder.finish())
    return decoder.instrument, concat([d.messages for d in done]), done


def depth_row(
    ms: int, first: int, last: int, prev: int, ask: int | str, price: str, qty: str, *, received: int | None = None, event: int | None = None
) -> str:
    return f"{R + ms + 2 if received is None else received},trxusdt@depth@100ms,depthUpdate,{R + ms if event is None else event},{R + ms},TRXUSDT,{first},{last},{prev},{ask},{price},{qty}\n"


def trade_row(
    ms: int, trade_id: int, price: str, qty: str, maker: int = 0, x: str = "MARKET", *, received: int | None = None, event: int | None = None
) -> str:
    e = R + ms if event is None else event
    return f"{R + ms + 2 if received is None else received},trxusdt@trade,trade,{e},{e},TRXUSDT,{trade_id},{price},{qty},{maker},{x}\n"


def test_lines_of_one_update_become_one_message() -> None:
    text = (
        DEPTH
        + depth_row(0, 1, 5, 0, 0, "0.23098", "17739.0")
        + depth_row(0, 1, 5, 0, 1, "0.23104", "0.0")
        + depth_row(100, 6, 9, 5, 1, "0.2311", "14.0")
    )
    instrument, m, _ = read(text)
    assert str(instrument) == "binanceusdm:TRX-USDT-PERP"
    assert m.level_count.tolist() == [2, 1]
    assert m.side.tolist() == [1, -1, -1]
    assert m.price_ticks.tolist() == [23098, 23104, 23110]
    assert m.qty_lots.tolist() == [17739, 0, 14]
    assert (m.first_seq.tolist(), m.seq.tolist(), m.prev_seq.tolist()) == ([1, 6], [5, 9], [0, 5])
    assert m.local_ns.tolist() == [(R + 2) * MS, (R + 102) * MS]
    assert m.exch_ns.tolist() == [R * MS, (R + 100) * MS]


@pytest.mark.parametrize("chunk_bytes", [1, 130, 300, 1000])
def test_an_update_is_not_torn_by_the_end_of_a_chunk(chunk_bytes: int) -> None:
    text = DEPTH + "".join(
        depth_row(100 * k, 10 * k + 1, 10 * k + 9, 10 * k - 1, i % 2, f"0.2{i}", f"{i}.0") for k in range(1, 7) for i in range(1, 6)
    )
    _, whole, _ = read(text)
    _, parts, done = read(text, chunk_bytes)
    assert parts.level_count.tolist() == whole.level_count.tolist() == [5] * 6
    assert np.array_equal(parts.price_ticks, whole.price_ticks)
    assert np.array_equal(parts.place, whole.place)
    assert sum(d.lines for d in done) == 31


def test_spot_and_coin_margined_are_told_from_columns_and_symbol() -> None:
    spot = "TimestampOfReceive,Stream,EventType,EventTime,Symbol,FirstUpdateId,FinalUpdateId,IsAsk,Price,Quantity\n"
    instrument, m, _ = read(
        f"{spot}{R}062959,trxusdt@depth@100ms,depthUpdate,{R}062507,TRXUSDT,1,5,0,0.2311,804627.0\n".replace(f"{R}", f"{R // 1000 * 1000}"[:-3])
    )
    assert str(instrument) == "binance:TRX-USDT"
    assert m.local_ns.tolist() == [R * MS + 62_959_000]
    assert m.prev_seq.tolist() == [-1]
    text = TRADE + trade_row(0, 1, "0.23", "32.0").replace("TRXUSDT", "TRXUSD_PERP")
    assert str(read(text)[0]) == "binancecoinm:TRX-USD-PERP"
    text = TRADE.replace("XUnknown", "MUnknown") + trade_row(0, 1, "0.23", "32.0", x="True")
    instrument, m, _ = read(text)
    assert str(instrument) == "binance:TRX-USDT"
    assert m.flags.tolist() == [0]


def test_trades_with_sides_and_prints_that_fill_nobody() -> None:
    text = (
        TRADE
        + trade_row(0, 1, "0.23", "5.0", 1)
        + trade_row(1, 2, "0.23", "5.0", 0, "INSURANCE_FUND")
        + trade_row(2, 3, "0", "0", 0, "NA")
        + trade_row(3, 4, "0.24", "1")
    )
    _, m, done = read(text)
    assert m.side.tolist() == [-1, 1, 1]
    assert m.level_count.tolist() == [1, 1, 0, 1]
    assert (m.flags & NOT_MARKET).tolist() == [0, NOT_MARKET, NOT_MARKET, 0]
    assert sum(d.bad_count for d in done) == 0


def test_a_snapshot_file_needs_the_instrument_from_its_report() -> None:
    rows = f"{R + 80},{R},900,0,83.5,2.0\n{R + 80},{R},900,1,83.6,3.0\n{R + 90},{R},900,1,83.6,4.0\n"
    report = "####\n# Data Quality Report for: \n# DEPTH_SNAPSHOT SPOT BTCUSDT 14-04-2025\n####\n"
    instrument, m, _ = read(report + SNAPSHOT + rows)
    assert str(instrument) == "binance:BTC-USDT"
    assert m.kind.tolist() == [Kind.SNAPSHOT] * 2
    assert m.level_count.tolist() == [2, 1]
    assert m.seq.tolist() == [900, 900]
    assert m.place.tolist() == [6, 8]
    assert m.exch_ns.tolist() == [-1, -1]
    with pytest.raises(DataError, match="without a Symbol column"):
        read(SNAPSHOT + rows)


def test_the_merged_layout_leaves_out_the_authors_own_closing_book() -> None:
    common = "USD_M_FUTURES,1,0\n"
    text = (
        "# TRADE_STREAM USD_M_FUTURES TRXUSDT 14-04-2025\n"
        + MERGED
        + f"{R}000,{R},s,depthUpdate,{R - 9000},{R - 9000},TRXUSDT,1,2,0,0,0.25,9.0,,,,,,,,FINAL_DEPTH_SNAPSHOT,{common}"
        + f"{R + 9}000,{R + 9},s,depthUpdate,{R + 6},{R + 5},TRXUSDT,3,4,2,0,0.25,9.0,,,,,,,,DIFFERENCE_DEPTH_STREAM,{common}"
        + f"{R + 20}000,{R + 11},,,,{R + 5},TRXUSDT,,,,0,0.25,9.0,,,,,{R + 8},{R + 7},4,DEPTH_SNAPSHOT,{common}"
        + f"{R + 20}000,{R + 11},,,,{R + 5},TRXUSDT,,,,1,0.26,8.0,,,,,{R + 8},{R + 7},4,DEPTH_SNAPSHOT,{common}"
        + f"{R + 30}000,{R + 30},t,trade,{R + 29},{R + 28},TRXUSDT,,,,,0.26,2.0,,77,0,MARKET,,,,TRADE_STREAM,{common}"
    )
    instrument, m, done = read(text)
    assert str(instrument) == "binanceusdm:TRX-USDT-PERP"
    assert m.kind.tolist() == [Kind.DEPTH, Kind.SNAPSHOT, Kind.TRADE]
    assert m.seq.tolist() == [4, 4, 77]
    assert m.local_ns.tolist() == [(R + 9) * MS, (R + 20) * MS, (R + 30) * MS]
    assert m.exch_ns.tolist() == [(R + 5) * MS, (R + 5) * MS, (R + 28) * MS]
    assert sum(d.bad_count for d in done) == 0


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [
        (trade_row(1, 2, "-1", "5.0"), "negative"),
        (trade_row(1, 2, "NaN", "5.0"), "not a decimal number"),
        (trade_row(1, 2, "", "5.0"), "not a decimal number"),
        (trade_row(1, 2, "0.23", "NaN"), "not a decimal number"),
        (trade_row(1, 2, "0", "5.0"), "zero"),
        (trade_row(1, 2, "0.230001", "5.0"), "tick or lot size"),
        (trade_row(1, 2, "0.23", "5.0", 7), "side"),
        (trade_row(1, 2, "0.23", "5.0").replace("TRXUSDT", "BTCUSDT"), "another symbol"),
        (trade_row(1, 2, "0.23", "5.0").replace(",MARKET", ""), "expected 11 fields"),
        # epoch 1970 and another day's times, as in the negative samples
        (trade_row(1, 2, "0.23", "5.0", received=1), "receive time is no time"),
        (trade_row(1, 2, "0.23", "5.0", event=0), "time at the venue is no time"),
        (trade_row(1, 2, "0.23", "5.0", event=R - 86_400_000), "more than an hour apart"),
        (trade_row(-86_400_000, 2, "0.23", "5.0"), "more than an hour before"),
        (trade_row(1, 2, "0.23", "5.0", event=-1), "negative"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted_with_its_line_and_reason(spoiled: str, reason: str) -> None:
    _, m, done = read(TRADE + trade_row(0, 1, "0.23", "5.0") + spoiled + trade_row(5, 3, "0.23", "5.0"))
    bad = [b for d in done for b in d.bad]
    assert [b.line for b in bad] == [3]
    assert reason in bad[0].reason
    assert sum(d.bad_count for d in done) == 1
    assert m.seq.tolist() == [1, 3]


def test_a_bad_level_takes_its_whole_update_along() -> None:
    text = (
        DEPTH
        + depth_row(0, 1, 5, 0, 0, "0.23", "1")
        + depth_row(9, 6, 9, 5, 0, "0.23", "NaN")
        + depth_row(9, 6, 9, 5, 1, "0.24", "1")
        + depth_row(20, 10, 12, 9, 0, "0.23", "1")
    )
    _, m, done = read(text)
    assert m.seq.tolist() == [5, 12]  # the chain shows the hole
    assert sum(d.bad_count for d in done) == 1


def test_a_level_dated_unlike_its_update_is_no_part_of_it() -> None:
    text = DEPTH + depth_row(0, 1, 5, 0, 0, "0.23", "1") + depth_row(0, 1, 5, 0, 1, "0.24", "1", received=R + 500)
    _, m, done = read(text)
    assert len(m) == 0
    assert "times differ" in done[-1].bad[0].reason


def test_tardis_book_groups_rows_and_marks_damage() -> None:
    rows = [
        ("true", 0, "ask", "6421.5", "18640"),
        ("true", 0, "bid", "6421.0", "10000"),
        ("false", 7, "bid", "6420", "5"),
        ("false", 9, "bid", "6420", "NaN"),
        ("false", 9, "ask", "6422", "1"),
    ]
    text = BOOK + "".join(f"deribit,BTC-PERPETUAL,{R + ms}000,{R + ms + 3}000,{snap},{side},{p},{q}\n" for snap, ms, side, p, q in rows)
    instrument, m, done = read(text, 200)
    assert str(instrument) == "deribit:BTC-USD-PERP"
    assert m.kind.tolist() == [Kind.SNAPSHOT, Kind.DEPTH, Kind.DEPTH]
    assert m.level_count.tolist() == [2, 1, 0]
    assert m.seq.tolist() == [-1, -1, DAMAGED]
    assert m.side.tolist() == [-1, 1, 1]
    assert [(b.line, b.reason[:20]) for d in done for b in d.bad] == [(5, "not a decimal number")]


@pytest.mark.parametrize("scale", [1_000, 1_000_000])
def test_tardis_trades_in_us_and_in_ns_with_ids_that_are_numbers_or_not(scale: int) -> None:
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    text = (
        head
        + f"binance-futures,BTCUSDT,{R * scale},{(R + 5) * scale},ccc3c1fa-212c,sell,8531.5,2152\n"
        + f"binance-futures,BTCUSDT,{(R + 1) * scale},{(R + 6) * scale},17,buy,8531.5,1\n"
    )
    instrument, m, _ = read(text)
    assert str(instrument) == "binanceusdm:BTC-USDT-PERP"
    assert m.local_ns.tolist() == [(R + 5) * MS, (R + 6) * MS]
    assert m.exch_ns.tolist() == [R * MS, (R + 1) * MS]
    assert m.seq.tolist() == [-1, 17]
    assert m.side.tolist() == [-1, 1]


def test_tardis_ticker_gives_marks_and_announced_funding() -> None:
    head = "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,index_price,mark_price\n"
    rows = [
        f"{R + 28_800_000}000,0.0001,0.00012,1,9500.5,9500.0,9500.25",
        ",,,1,9500.5,9500.0,9501.0",
        f"{R}000,0.0001,0,1,1,1,-5",
        f"{R}000,x,0,1,1,1,5",
    ]
    text = head + "".join(f"binance-futures,BTCUSDT,{R + i}000,{R + i + 5}000,{row}\n" for i, row in enumerate(rows))
    _, m, done = read(text)
    assert m.kind.tolist() == [Kind.MARK, Kind.FUNDING_PREDICTED, Kind.MARK]
    assert m.value.tolist() == [9500.25, 0.0001, 9501.0]
    assert m.aux.tolist() == [9500.0, 9500.25, 9500.0]
    assert m.seq[1] == (R + 28_800_000) * MS
    assert [b.line for d in done for b in d.bad] == [4, 5]
    assert not any(math.isnan(v) for v in m.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("hello\nworld\n", "unknown format, first line 'hello'"),
        ("Symbol,Date,Funding Rate\nBTC,2020,1\n", "unknown format"),
    ],
)
def test_unknown_formats_are_named(text: str, what: str) -> None:
    with pytest.raises(UnknownFormat, match=what):
        read(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "exchange,symbol,timestamp,local_timestamp,asks[0].price\nbinance,BTCUSDT,1,1,1\n",
            "expected incremental_book_L2, trades or derivative_ticker",
        ),
        (BOOK, "no rows"),
        (BOOK + "deribit,BTC-PERPETUAL,1,x,true,ask,1,1\n", "no whole number"),
        (BOOK + "deribit,BTC-PERPETUAL,1,5,true,ask,1,1\n", "no time between 2010 and 2100"),
        (TRADE, "no rows"),
        (DEPTH.replace(",Quantity", "") + "1,2\n", "columns missing: Quantity"),
    ],
)
def test_known_formats_that_lack_something_say_what(text: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read(text)
