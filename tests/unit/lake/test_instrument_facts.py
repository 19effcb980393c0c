"""Instrument facts: the file that comes with the package, and what the settings lay over it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import day_start_ns
from mm_platform.lake.instrument_facts import load_facts

BTC = InstrumentId.parse("binanceusdm:BTC-USDT-PERP")


def spec(instrument: str, tick: str, since: int = 0) -> InstrumentSpec:
    return InstrumentSpec(instrument=instrument, tick_size=tick, lot_size="1", contract="linear", maker_fee=0.0, taker_fee=0.0, valid_from_ns=since)


def test_the_grid_of_a_date() -> None:
    facts = load_facts()
    assert facts.at(BTC, day_start_ns(date(2020, 9, 1))).tick_size == "0.01"
    assert facts.at(BTC, day_start_ns(date(2023, 4, 5))).tick_size == "0.1"
    with pytest.raises(DataError, match="known from 2019-09-08 on, the data is of 2018"):
        facts.at(BTC, day_start_ns(date(2018, 1, 1)))


def test_every_entry_is_an_instrument_with_facts_in_order_of_date() -> None:
    facts = load_facts()
    assert len(facts.specs) >= 9
    for iid, dated in facts.specs.items():
        assert all(s.instrument == iid for s in dated)
        assert [s.valid_from_ns for s in dated] == sorted({s.valid_from_ns for s in dated})
        assert (dated[0].contract == "spot") == (not InstrumentId.parse(iid).perp)
        assert (dated[0].funding_interval_s is None) == (dated[0].contract == "spot")


@pytest.mark.parametrize(
    ("venue", "wire", "instrument"),
    [
        ("bitmex", "XBTUSD", "bitmex:BTC-USD-PERP"),
        ("deribit", "BTC-PERPETUAL", "deribit:BTC-USD-PERP"),
        ("binance-futures", "BTCUSDT", "binanceusdm:BTC-USDT-PERP"),
        ("binancecoinm", "TRXUSD_PERP", "binancecoinm:TRX-USD-PERP"),
        ("binance", "NEXOUSDT", "binance:NEXO-USDT"),
    ],
)
def test_wire_symbols(venue: str, wire: str, instrument: str) -> None:
    assert str(load_facts().resolve(venue, wire)) == instrument


def test_an_unknown_instrument_says_what_to_add_and_where() -> None:
    with pytest.raises(DataError, match=r"binance:FOO-USDT.*\[\[instruments\]\] table to mm.toml.*tick_size"):
        load_facts().at(InstrumentId.parse("binance:FOO-USDT"), 0)


def test_settings_replace_an_instruments_whole_list() -> None:
    facts = load_facts().with_settings([spec(str(BTC), "0.5", 10), spec(str(BTC), "0.2"), spec("binance:FOO-USDT", "1")])
    assert [s.tick_size for s in facts.specs[str(BTC)]] == ["0.2", "0.5"]
    assert facts.at(InstrumentId.parse("binance:FOO-USDT"), 5).tick_size == "1"
    assert "binanceusdm:ETH-USDT-PERP" in facts.specs


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("instrument = 5", "Expected"),
        ("[[instrument]]\nid = 'binance:A-USDT'\ncontract = 'spot'\nfacts = []\n", "no .*facts"),
        ("[[instrument]]\nid = 'binance:A-USDT'\ncontract = 'spot'\ncolour = 1\nfacts = []\n", "colour"),
        ("= broken", "Invalid"),
        (
            "[[instrument]]\nid = 'binance:A-USDT'\ncontract = 'spot'\n[[instrument.facts]]\nvalid_from = 2020-01-01\ntick_size = '0'\nlot_size = '1'\nmaker_fee = 0.0\ntaker_fee = 0.0\n",
            "tick_size must be a positive number",
        ),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "facts.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what):
        load_facts(path)
    with pytest.raises(ConfigError, match="is not there"):
        load_facts(tmp_path / "absent.toml")
