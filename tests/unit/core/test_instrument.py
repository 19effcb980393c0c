"""Ids and the one conversion between decimals and integers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec, Side, spec_at, venue_id

SPEC = InstrumentSpec(
    instrument="binanceusdm:BTC-USDT-PERP", tick_size="0.1", lot_size="0.001", contract="linear", maker_fee=0.0002, taker_fee=0.0005
)


@pytest.mark.parametrize(
    ("venue", "wire", "expected"),
    [
        ("binancefutures", "BTCUSDT", "binanceusdm:BTC-USDT-PERP"),
        ("binance", "BTCUSDT", "binance:BTC-USDT"),
        ("binance", "NEXOUSDT", "binance:NEXO-USDT"),
        ("binancecoinm", "TRXUSD_PERP", "binancecoinm:TRX-USD-PERP"),
        ("okx", "BTC/USDT:USDT", "okx:BTC-USDT-PERP"),
        ("okx", "BTC/USDT", "okx:BTC-USDT"),
        ("deribit", "BTC-PERPETUAL", None),
    ],
)
def test_wire_symbols(venue: str, wire: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(DataError, match="cannot be split"):
            InstrumentId.from_wire(venue, wire)
    else:
        assert str(InstrumentId.from_wire(venue, wire)) == expected


def test_ids_round_trip_and_name_things() -> None:
    iid = InstrumentId.parse("sim:BTC-USDT-PERP")
    assert (iid.symbol, iid.model_name, iid.guide_symbol) == ("BTC-USDT-PERP", "mm.sim.BTC-USDT-PERP", "BTC/USDT:USDT")
    assert InstrumentId.parse(str(iid)) == iid
    assert venue_id("gateio") == "gate"


@pytest.mark.parametrize("text", ["", "BTC-USDT", "sim:BTCUSDT", "sim:../etc-USDT", "Sim:BTC-USDT", "sim:BTC-USDT-PERP "])
def test_bad_ids_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="instrument id"):
        InstrumentId.parse(text)


def test_conversion_is_exact_and_side_aware() -> None:
    assert SPEC.price_to_ticks("28155.1") == 281_551
    assert SPEC.price_to_ticks("28155.17", Side.BUY) == 281_551
    assert SPEC.price_to_ticks("28155.11", Side.SELL) == 281_552
    assert SPEC.qty_to_lots("0.0029", down=True) == 2
    with pytest.raises(DataError, match="not a multiple of 0.1"):
        SPEC.price_to_ticks("28155.17")
    for bad in ("NaN", "inf", "1e", ""):
        with pytest.raises(DataError):
            SPEC.price_to_ticks(bad)


@given(st.integers(1, 10**12))
def test_every_tick_survives_the_round_trip(ticks: int) -> None:
    assert SPEC.price_to_ticks(SPEC.ticks_to_decimal(ticks)) == ticks
    assert SPEC.price_to_ticks(str(SPEC.ticks_to_decimal(ticks)), Side.BUY) == ticks


@given(st.integers(0, 10**9))
def test_base_amounts_become_the_lots_they_are(lots: int) -> None:
    assert SPEC.base_to_lots(lots * 0.001) == lots
    assert SPEC.base_to_lots(float(Decimal(lots) * SPEC.lot)) == lots


def test_dated_facts() -> None:
    old, new = SPEC, InstrumentSpec(**{f: getattr(SPEC, f) for f in SPEC.__struct_fields__} | {"tick_size": "0.01", "valid_from_ns": 100})
    assert spec_at([new, old], 99) is old
    assert spec_at([old, new], 100) is new
    with pytest.raises(DataError, match="no facts"):
        spec_at([new], 99)


def test_facts_must_make_sense() -> None:
    with pytest.raises(ConfigError, match="tick_size"):
        InstrumentSpec(instrument="sim:BTC-USDT", tick_size="0", lot_size="1", contract="spot", maker_fee=0, taker_fee=0)
    with pytest.raises(ConfigError, match="not a decimal"):
        InstrumentSpec(instrument="sim:BTC-USDT", tick_size="x", lot_size="1", contract="spot", maker_fee=0, taker_fee=0)
