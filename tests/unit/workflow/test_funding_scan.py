"""Funding into the lake and out of it again: files, tapes, the table of rates, ranked trades."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import SPEC, TapeBuilder
from pydantic import ValidationError

from mm_platform.config import Funding, LegCost
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import NS_PER_S, day_start_ns
from mm_platform.decode.funding_csv import NS_PER_HOUR, history_of
from mm_platform.lake.catalog import query
from mm_platform.lake.store import Lake
from mm_platform.tape.layout import Kind
from mm_platform.workflow.funding import import_funding_history, scan_funding
from mm_platform.workflow.funding_table import Perp, cash_and_carry, cross_venue, mean_rate_per_hour, scan, summarise
from mm_platform.workflow.ingest import write_tapes

DAY = date(2023, 4, 5)
START = day_start_ns(DAY)


def perp(venue: str, rate: float, *, base: str = "BTC", interval_h: float = 8.0, days: int = 10, end_ns: int = START, **facts) -> Perp:
    """A perpetual that paid one rate all the time, last at `end_ns`."""
    n = round(days * 24 / interval_h)
    stamps = end_ns - np.arange(n - 1, -1, -1) * round(interval_h * NS_PER_HOUR)
    return Perp(InstrumentId(venue, base, "USDT", True), history_of(stamps, np.full(n, rate), np.full(n, interval_h)), **facts)


PRICED = {"price": 100.1, "spot_price": 100.0, "price_ns": START}


# -- the table ----------------------------------------------------------------------------------------------------------------------------


def test_summary_of_one_perpetual() -> None:
    row = summarise(perp("binanceusdm", 0.0001, days=40, predicted=(START + 8 * NS_PER_HOUR, 0.0002)))
    assert (row.stamps, row.interval_h, row.last_ns, row.gaps) == (120, 8.0, START, 0)
    assert (row.apr, row.rate_8h) == (pytest.approx(0.1095), 0.0001)
    assert row.apy == pytest.approx(0.115714, rel=1e-5)
    assert (row.predicted_rate, row.positive_frac) == (0.0002, 1.0)
    assert (row.mean_apr[7], row.mean_apr[30]) == (pytest.approx(0.1095), pytest.approx(0.1095))
    assert math.isnan(row.mean_apr[365])


def test_mean_weights_by_time_and_needs_the_whole_window() -> None:
    stamps = START + np.array([0, 8, 12, 16]) * NS_PER_HOUR
    history = history_of(stamps, np.array([9.0, 0.8, 0.2, 0.2]) * 1e-3, np.array([8.0, 8.0, 4.0, 4.0]))
    assert mean_rate_per_hour(history, int(stamps[-1]), 16.0) == pytest.approx(1.2e-3 / 16)
    assert mean_rate_per_hour(history, int(stamps[-1]), 24.0) == pytest.approx(10.2e-3 / 24)
    assert math.isnan(mean_rate_per_hour(history, int(stamps[-1]), 25.0))


def test_cash_and_carry_by_hand() -> None:
    trade = cash_and_carry(perp("binanceusdm", 0.0005, **PRICED), Funding())
    assert trade is not None
    assert (str(trade.long_instrument), str(trade.short_instrument)) == ("binance:BTC-USDT", "binanceusdm:BTC-USDT-PERP")
    assert trade.accepted
    assert trade.basis_frac == pytest.approx(0.001)
    assert trade.net_apr == pytest.approx((21 * 0.0005 - 0.0034) * 8760 / 168)
    assert trade.break_even_h == 56.0
    turned = cash_and_carry(perp("binanceusdm", -0.0005, **PRICED), Funding())
    assert turned is not None
    assert (str(turned.long_instrument), str(turned.short_instrument)) == ("binanceusdm:BTC-USDT-PERP", "binance:BTC-USDT")
    assert turned.net_apr == pytest.approx(trade.net_apr - 0.05)
    assert cash_and_carry(perp("dydx", 0.0005), Funding()) is None  # no spot market there


@pytest.mark.parametrize(
    ("changes", "facts", "word"),
    [
        ({}, {"price": None}, "no prices"),
        ({}, {"price": 101.0}, "basis"),
        ({}, {"days": 0.5}, "shorter than 24 h"),
        ({"min_rate_8h": 0.001}, {}, "expected rate"),
        ({"min_apr": 0.5}, {}, "net APR"),
        ({"costs": {"binance": LegCost(spot_fee=0.01)}}, {}, "net APR"),
        ({}, {"predicted": (START + NS_PER_HOUR, -0.0005)}, "paying side"),
    ],
)
def test_what_is_not_accepted_says_why(changes: dict, facts: dict, word: str) -> None:
    trade = cash_and_carry(perp("binanceusdm", 0.0005, **{**PRICED, **facts}), Funding(**changes))
    assert trade is not None
    assert not trade.accepted
    assert word in json.loads(trade.reason)["verdict"]


def test_a_spike_is_not_expected_to_stay() -> None:
    calm = perp("binanceusdm", 0.0001, **PRICED)
    spiked = dataclasses.replace(calm, history=dataclasses.replace(calm.history, rates=np.append(calm.history.rates[:-1], 0.01)))
    trade = cash_and_carry(spiked, Funding())
    assert trade is not None
    assert trade.rate_8h == pytest.approx((20 * 0.0001 + 0.01) / 21)


def test_cross_venue_by_hand() -> None:
    one = perp("binanceusdm", 3e-4, price=100.0, price_ns=START)
    other = perp("hyperliquid", 2e-5, interval_h=1.0, price=100.05, price_ns=START)
    for pair in ((one, other), (other, one)):
        trade = cross_venue(*pair, Funding())
        assert trade is not None
        assert (trade.short_instrument.venue, trade.long_instrument.venue) == ("binanceusdm", "hyperliquid")
        assert trade.apr == pytest.approx(0.1533, rel=1e-9)  # THEORY 6.3
        assert trade.cost_frac == pytest.approx(4 * 0.0006)
        assert trade.net_apr == pytest.approx((7 * 4.2e-4 - 0.0024) * 365 / 7)
        assert trade.break_even_h == 24.0 * 6  # 24 bp at 1.4 bp per 8 h: 17.1 of the slower leg's settlements
        assert trade.basis_frac == pytest.approx(-0.0005, rel=1e-3)
        assert trade.accepted == (trade.net_apr >= 0.05)


def test_pairs_need_rates_of_the_same_time_and_prices_of_the_same_minute() -> None:
    fresh, stale = perp("binanceusdm", 5e-4), perp("bybit", 1e-5, end_ns=START - 25 * NS_PER_HOUR)
    assert cross_venue(fresh, stale, Funding()) is None
    assert cross_venue(fresh, stale, Funding(max_age_h=25.0)) is not None
    one = perp("binanceusdm", 5e-4, price=100.0, price_ns=START)
    later = perp("bybit", 1e-5, price=100.0, price_ns=START + 61 * NS_PER_S)
    trade = cross_venue(one, later, Funding())
    assert trade is not None
    assert trade.basis_frac is None
    assert not trade.accepted


def test_ranking_is_by_what_is_left_after_costs() -> None:
    settings = Funding(costs={"gate": LegCost(perp_fee=0.003)})
    trades = scan([perp("binanceusdm", 4e-4), perp("gate", 5e-4), perp("bybit", 1e-5), perp("bybit", 9e-4, base="ETH"), perp("sim", 9e-4)], settings)
    nets = [t.net_apr for t in trades]
    assert nets == sorted(nets, reverse=True)
    order = [t.short_instrument.venue for t in trades if t.kind == "cash_and_carry" and t.short_instrument.base == "BTC"]
    assert order.index("binanceusdm") < order.index("gate")  # the higher raw rate leaves less
    pairs = {frozenset((t.short_instrument.venue, t.long_instrument.venue)) for t in trades if t.kind == "cross_venue"}
    assert pairs == {
        frozenset(p) for p in (("binanceusdm", "gate"), ("binanceusdm", "bybit"), ("gate", "bybit"))
    }  # never sim with real, never BTC with ETH


# -- files into the lake ------------------------------------------------------------------------------------------------------------------


def write_csv(folder: Path, venue: str, *, offset_h: int = 3, n: int = 300, rates: np.ndarray | None = None) -> Path:
    path = folder / f"BTC-USDT_{venue}_2023_funding_history.csv.gz"
    rates = np.round(np.random.default_rng(3).normal(1e-4, 5e-5, n), 8) if rates is None else rates
    start = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(hours=offset_h)
    lines = ["Symbol,Date,Funding Rate", *(f"BTC-USDT,{(start + timedelta(hours=8 * i)):%Y-%m-%d %H:%M:%S},{rates[i]:.8f}" for i in range(n))]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")
    return path


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(tmp_path / "lake")


def test_a_file_lands_in_utc_with_its_figures(lake: Lake, tmp_path: Path) -> None:
    path = write_csv(tmp_path, "binance")
    settings = Funding(utc_offset_h={"binance": 3})
    (facts,) = import_funding_history(lake, [path], settings).files
    assert (facts.rows, facts.utc_offset_h, facts.clock, facts.missing) == (300, 3.0, "told", 0)
    rows = query(
        lake.root, "SELECT venue, symbol, ts::VARCHAR, rate, interval_h, apr, rate_8h, is_predicted, source FROM funding_rates ORDER BY ts LIMIT 1"
    ).rows
    rate = rows[0][3]
    assert rows[0] == ("binanceusdm", "BTC-USDT-PERP", "2023-01-01 00:00:00", rate, 8.0, rate * 8760 / 8, rate, False, path.name)
    import_funding_history(lake, [path], settings)  # the same again changes nothing
    assert query(lake.root, "SELECT count(*) FROM funding_rates").rows == [(300,)]


def test_the_lakes_own_rates_find_the_clock(lake: Lake, tmp_path: Path) -> None:
    known = write_csv(tmp_path, "binance", offset_h=0)
    import_funding_history(lake, [known], Funding(utc_offset_h={"*": 0}))
    (tmp_path / "other").mkdir()
    local = write_csv(tmp_path / "other", "binance", offset_h=3)
    renamed = local.rename(local.with_name("BTC-USDT_binance_copy_funding_history.csv.gz"))
    (facts,) = import_funding_history(lake, [renamed]).files
    assert facts.utc_offset_h == 3
    assert "second source" in facts.clock


def test_one_file_that_cannot_be_used_keeps_all_out(lake: Lake, tmp_path: Path) -> None:
    good, unknown = write_csv(tmp_path, "binance"), write_csv(tmp_path, "bybit")
    with pytest.raises(DataError, match="state the hours ahead of UTC"):
        import_funding_history(lake, [good, unknown], Funding(utc_offset_h={"binance": 3}))
    assert lake.partitions("funding_rates") == []
    assert import_funding_history(lake, [good, unknown], Funding(utc_offset_h={"*": 3})).rows == 600


@pytest.mark.parametrize("damage", ["missing", "truncated", "not gzip", "other symbol", "other name"])
def test_damaged_files(lake: Lake, tmp_path: Path, damage: str) -> None:
    path = write_csv(tmp_path, "binance")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "not gzip":
        path.write_bytes(b"Symbol,Date,Funding Rate\n")
    elif damage == "other symbol":
        path.write_bytes(gzip.compress(gzip.decompress(content).replace(b"BTC-USDT", b"ETH-USDT")))
    else:
        path = path.rename(tmp_path / "rates.csv.gz")
    with pytest.raises((DataError, ConfigError), match=path.name):
        import_funding_history(lake, [path], Funding(utc_offset_h={"*": 3}))
    assert lake.partitions("funding_rates") == []


@pytest.mark.parametrize("wrong", [{"holding": 3}, {"holding_h": 0}, {"costs": {"binance": {"half_spread": -1}}}, {"min_apr": math.nan}])
def test_wrong_settings(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Funding(**wrong)


# -- tapes into the lake, and the scan ----------------------------------------------------------------------------------------------------


def market_day(spec_name: str, bid_ticks: int, rates: list[float]) -> TapeBuilder:
    """A day with a book and settlements every 8 h from midnight, the next one predicted after each."""
    spec = SPEC if spec_name == SPEC.instrument else spot_spec(spec_name)
    build = TapeBuilder(spec)
    build.now = START
    build.book(bid_ticks, bid_ticks + 2)
    for i, rate in enumerate(rates):
        build.now = START + i * 8 * NS_PER_HOUR + NS_PER_S
        stamp = START + i * 8 * NS_PER_HOUR
        build.row(Kind.FUNDING, 0, 0, 0, 0, stamp, rate, 500.0)
        build.row(Kind.FUNDING_PREDICTED, 0, 0, 0, 0, stamp + 8 * NS_PER_HOUR, rate * 2, 500.0)
    return build


def spot_spec(name: str) -> InstrumentSpec:
    return msgspec.structs.replace(SPEC, instrument=name, contract="spot", funding_interval_s=None)


def test_tapes_feed_the_scan(lake: Lake) -> None:
    write_tapes(
        lake,
        [(DAY, market_day("sim:BTC-USDT-PERP", 5004, [0.0004, 0.0005, 0.0006]).tape()), (DAY, market_day("sim:BTC-USDT", 4999, []).tape())],
    )
    found = scan_funding(lake, Funding(min_history_h=8.0))
    (rates,) = found.rates
    assert (str(rates.instrument), rates.stamps, rates.interval_h, rates.last_rate) == ("sim:BTC-USDT-PERP", 3, 8.0, 0.0006)
    assert (rates.predicted_rate, rates.predicted_ns) == (0.0012, START + 24 * NS_PER_HOUR)
    (trade,) = found.opportunities
    assert trade.basis_frac == pytest.approx((500.5 - 500.0) / 500.0)
    assert trade.rate_8h == pytest.approx(0.0005)  # the mean: below the prediction of 0.0012
    assert trade.accepted
    assert found.accepted == found.opportunities
    stored = query(lake.root, "SELECT ts, rate, mark_price, source FROM funding_rates ORDER BY ts").rows
    assert [(r[1], r[2], r[3]) for r in stored] == [(0.0004, 500.0, "tape"), (0.0005, 500.0, "tape"), (0.0006, 500.0, "tape")]
    rows = query(lake.root, "SELECT kind, long_instrument, short_instrument, net_apr, accepted FROM opportunities").rows
    assert rows == [("cash_and_carry", "sim:BTC-USDT", "sim:BTC-USDT-PERP", trade.net_apr, True)]
    assert scan_funding(lake, Funding(min_history_h=8.0)).opportunities == found.opportunities  # scanning again changes nothing
    assert query(lake.root, "SELECT count(*) FROM opportunities").rows == [(1,)]


def test_old_prices_are_not_todays_basis(lake: Lake, tmp_path: Path) -> None:
    write_tapes(lake, [(DAY, market_day("sim:BTC-USDT-PERP", 5004, []).tape()), (DAY, market_day("sim:BTC-USDT", 4999, []).tape())])
    path = write_csv(tmp_path, "sim", offset_h=0)
    # a venue whose grid nobody knows has to be told
    with pytest.raises(DataError, match="grid is not known"):
        import_funding_history(lake, [path])
    import_funding_history(lake, [path], Funding(utc_offset_h={"sim": 0}))
    last = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(hours=8 * 299)
    assert abs((last.date() - DAY).days) <= 5
    near, far = (scan_funding(lake, Funding(max_age_h=h)).opportunities[0].basis_frac for h in (24.0 * 6, 1.0))
    assert near == pytest.approx(0.001)
    assert far is None


def test_one_settlement_is_annualised_by_the_venues_grid(lake: Lake) -> None:
    tape = market_day("sim:BTC-USDT-PERP", 5004, [0.0004]).tape()
    write_tapes(lake, [(DAY, tape)])
    alone = scan_funding(lake)
    assert alone.rates == ()
    assert "no known interval" in alone.left_out[0]
    spec = msgspec.structs.replace(SPEC, instrument="binanceusdm:BTC-USDT-PERP")
    write_tapes(lake, [(DAY, dataclasses.replace(tape, spec=spec))])
    (rates,) = scan_funding(lake).rates
    assert (rates.stamps, rates.interval_h, rates.apr) == (1, 8.0, pytest.approx(0.438))


def test_an_empty_lake_has_an_empty_scan(lake: Lake) -> None:
    found = scan_funding(lake)
    assert (found.rates, found.opportunities, found.left_out) == ((), (), ())


@pytest.mark.shared
def test_the_real_btc_files(lake: Lake, shared: Path) -> None:
    files = sorted((shared / "data" / "funding").glob("BTC-USDT_[bg][iya]*_funding_history.csv.gz"))  # binance, bybit, gate
    done = import_funding_history(lake, files, Funding(utc_offset_h={"*": 3, "gate": 0}))
    assert done.rows == 4383 + 3285 + 4290
    assert {f.instrument.venue: f.missing for f in done.files} == {"binanceusdm": 0, "bybit": 0, "gate": 93}
    found = scan_funding(lake)
    assert [r.instrument.venue for r in found.rates] == ["binanceusdm", "bybit", "gate"]
    assert len(found.opportunities) == 3 + 3
    assert not found.accepted  # no prices: the basis is not known
    rows = query(lake.root, "SELECT rate FROM funding_rates WHERE venue = 'binanceusdm' AND ts = TIMESTAMP '2023-04-05 00:00:00'").rows
    assert rows[0][0] == pytest.approx(0.000028, abs=5e-7)  # what the recorded mark-price stream settled
