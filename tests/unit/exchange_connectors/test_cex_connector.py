"""The ccxt connector against the local REST venue, with the real client."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterator

import pytest
from contract.rest_fixture import API_KEY, API_PASSPHRASE, API_SECRET, Running, Venue, serve

from mm_platform.core.errors import ConfigError, ConnectivityError, DataError, UnknownOutcome, VenueError, VenueRejected
from mm_platform.exchange_connectors.cex_connector import CEXConnector

SYMBOL = "BTC/USDT"
ORDER = "POST /fapi/v1/order"


def connector(running: Running, **kwargs) -> CEXConnector:
    defaults = {"api_key": API_KEY, "api_secret": API_SECRET, "urls": running.binance_urls, "sleep": lambda _: None}
    return CEXConnector("binancefutures", **{**defaults, **kwargs})


@pytest.fixture
def served() -> Iterator[Running]:
    with serve() as running:
        yield running


@pytest.fixture
def venue(served: Running) -> CEXConnector:
    made = connector(served)
    made.connect()
    return made


def test_connect_maps_the_guides_id_and_checks_the_keys(served: Running) -> None:
    made = connector(served)
    assert served.venue.calls == []  # the constructor does nothing
    made.connect()
    assert (made.venue, made.connected) == ("binanceusdm", True)
    assert "GET /fapi/v3/account" in served.venue.calls
    calls = len(served.venue.calls)
    made.connect()
    assert len(served.venue.calls) == calls
    made.close()
    assert not made.connected


@pytest.mark.parametrize(("key", "secret", "code"), [("wrong", API_SECRET, "-2015"), (API_KEY, "wrong", "-1022")])
def test_wrong_keys_show_at_connect(served: Running, key: str, secret: str, code: str) -> None:
    with pytest.raises(VenueRejected, match=code):
        connector(served, api_key=key, api_secret=secret).connect()


def test_a_clock_that_is_off_is_corrected(served: Running) -> None:
    served.venue.clock_offset_ms = -60_000
    made = connector(served)
    made.connect()
    assert made.get_balance() == {"USDT": 1_000_000.0}


def test_public_data_needs_no_key(served: Running) -> None:
    public = connector(served, api_key="", api_secret="")
    public.connect()
    assert public.get_orderbook(SYMBOL, 2)["asks"] == [[50000.1, 1.0], [50001.0, 2.0]]
    assert public.get_fees(SYMBOL)["taker"] > 0.0
    for call in (public.get_balance, lambda: public.place_order(SYMBOL, "buy", 1.0, 1.0, "limit", "x")):
        with pytest.raises(ConfigError, match="needs an API key"):
            call()


def test_reads(venue: CEXConnector) -> None:
    book = venue.get_orderbook(SYMBOL, 2)
    assert book["bids"] == [[49999.9, 1.0], [49999.0, 2.0]]
    assert book["nonce"] >= 1000
    assert venue.get_fees(SYMBOL) == {"maker": 0.0002, "taker": 0.0005}
    trades = venue.get_recent_trades(SYMBOL, 3)
    assert [t["id"] for t in trades] == ["8", "9", "10"]
    assert trades[0]["side"] == "sell"  # the buyer was the maker
    limits = venue.get_limits("binanceusdm:BTC-USDT-PERP")
    assert (limits.min_notional, limits.min_amount, float(limits.amount_step), limits.margin_rate) == (100.0, 0.001, 0.001, 1.0)


@pytest.mark.parametrize("hours", [8, 4])
def test_funding_carries_its_interval(hours: int) -> None:
    with serve(Venue(funding_hours=hours)) as running:
        made = connector(running)
        made.connect()
        rate = made.get_funding_rate(SYMBOL)
        assert (float(rate), rate.interval_hours, rate.mark_price, rate.is_predicted) == (0.0005, float(hours), 50005.0, True)
        assert rate.stamp_ns % (hours * 3_600_000_000_000) == 0


@pytest.mark.parametrize(("side", "asked", "sent"), [("buy", 49000.07, 49000.0), ("sell", 51000.01, 51000.1), ("buy", 49000.1 + 1e-11, 49000.1)])
def test_prices_never_improve_on_what_was_asked(venue: CEXConnector, side: str, asked: float, sent: float) -> None:
    order = venue.place_order(SYMBOL, side, 0.0109999, asked, "post_only", "r-1")
    assert order["price"] == sent
    assert order["amount"] == 0.01  # whole steps, down
    assert (order["status"], order["clientOrderId"], order["filled"]) == ("open", "r-1", 0.0)


def test_an_order_lives_and_dies(venue: CEXConnector) -> None:
    venue.place_order(SYMBOL, "buy", 0.5, 50000.1, "limit", "o-1")
    assert venue.get_order(SYMBOL, "o-1")["status"] == "closed"
    rest = venue.place_order(SYMBOL, "buy", 1.0, 50000.1, "limit", "o-2")
    assert (rest["filled"], rest["remaining"], rest["status"]) == (0.5, 0.5, "open")
    assert [o["clientOrderId"] for o in venue.get_open_orders(SYMBOL)] == ["o-2"]
    assert venue.cancel_order(SYMBOL, "o-2")["status"] == "canceled"
    assert venue.get_open_orders(SYMBOL) == []
    with pytest.raises(VenueRejected, match="-2011"):
        venue.cancel_order(SYMBOL, "o-2")
    gone = venue.place_order(SYMBOL, "buy", 5.0, 50001.0, "ioc", "o-3")
    assert (gone["filled"], gone["status"]) == (2.0, "expired")
    taken = venue.place_order(SYMBOL, "sell", 1.0, None, "market", "o-4")
    assert (taken["filled"], taken["average"]) == (1.0, 49999.9)


def test_post_only_never_takes(venue: CEXConnector, served: Running) -> None:
    with pytest.raises(VenueRejected, match="-5022"):
        venue.place_order(SYMBOL, "buy", 0.01, 50000.1, "post_only", "p-1")
    assert served.venue.orders == {}


def test_what_the_venue_would_refuse_is_not_sent(venue: CEXConnector, served: Running) -> None:
    calls = len(served.venue.calls)
    for amount, price, word in ((0.0004, 50000.0, "below one step"), (0.001, 50000.0, "no less than 100"), (1.0, 0.04, "below one tick")):
        with pytest.raises(VenueRejected, match=word):
            venue.place_order(SYMBOL, "buy", amount, price, "limit", "s-1")
    assert len(served.venue.calls) == calls


@pytest.mark.parametrize(
    ("fault", "error", "live"),
    [
        (("refuse", 400, -2019, "Margin is insufficient."), VenueRejected, False),
        (("refuse", 429, -1003, "Too many requests."), VenueRejected, False),
        (("refuse", 400, -4116, "ClientOrderId is duplicated."), UnknownOutcome, False),
        (("refuse", 400, -9999, "A code nobody has seen."), UnknownOutcome, False),
        (("refuse", 503, -1008, "Server is busy."), UnknownOutcome, False),
        (("lose_before",), UnknownOutcome, False),
        (("lose_after",), UnknownOutcome, True),
        (("garble",), UnknownOutcome, True),
        (("hang_up",), UnknownOutcome, True),
    ],
)
def test_a_write_is_classified_by_code_and_sent_once(venue: CEXConnector, served: Running, fault: tuple, error: type[VenueError], live: bool) -> None:
    served.venue.faults[ORDER] = [fault]
    with pytest.raises(error, match="w-1"):
        venue.place_order(SYMBOL, "buy", 0.01, 49000.0, "post_only", "w-1")
    assert served.venue.calls.count(ORDER) == 1
    assert ("w-1" in served.venue.orders) == live
    # the client id settles it
    if live:
        assert venue.get_order(SYMBOL, "w-1")["status"] == "open"
    else:
        with pytest.raises(VenueRejected, match="-2013"):
            venue.get_order(SYMBOL, "w-1")


def test_reads_are_tried_again_and_give_up(served: Running) -> None:
    waits: list[float] = []
    made = connector(served, sleep=waits.append)
    made.connect()
    served.venue.faults["GET /fapi/v1/depth"] = [("lose_before",), ("lose_before",)]
    assert made.get_orderbook(SYMBOL)["bids"]
    assert waits == [0.2, 0.4]
    served.venue.faults["GET /fapi/v1/depth"] = [("lose_before",)] * 3
    with pytest.raises(ConnectivityError, match="fetch_order_book"):
        made.get_orderbook(SYMBOL)
    served.venue.faults["GET /fapi/v1/depth"] = [("refuse", 400, -1121, "Invalid symbol.")]
    calls = len(served.venue.calls)
    with pytest.raises(VenueRejected, match="-1121"):
        made.get_orderbook(SYMBOL)
    assert len(served.venue.calls) == calls + 1
    served.venue.faults["GET /fapi/v1/premiumIndex"] = [("garble",)]
    with pytest.raises(DataError, match="no funding rate"):
        made.get_funding_rate(SYMBOL)


def test_no_secret_in_repr_messages_or_tracebacks(served: Running, capsys: pytest.CaptureFixture[str]) -> None:
    made = connector(served, api_secret="hush-hush-secret")
    with pytest.raises(VenueRejected) as refused:
        made.connect()
    good = connector(served)
    good.connect()
    served.venue.faults["GET /fapi/v3/account"] = [("hang_up",)] * 3
    with pytest.raises(ConnectivityError) as lost:
        good.get_balance()
    for err in (refused.value, lost.value):
        text = repr(err) + "".join(traceback.format_exception(err))
        assert "hush-hush" not in text
        assert API_SECRET not in text
        assert "signature=" not in text.replace("signature=***", "")
    assert API_KEY not in repr(good)
    assert API_SECRET not in repr(good)
    assert capsys.readouterr().out == ""


def test_halted_market_takes_no_orders_but_cancels(served: Running) -> None:
    made = connector(served)
    made.connect()
    made.place_order(SYMBOL, "buy", 0.01, 49000.0, "limit", "h-1")
    served.venue.status = "BREAK"
    again = connector(served)
    again.connect()
    with pytest.raises(VenueRejected, match="not open for trading"):
        again.place_order(SYMBOL, "buy", 0.01, 49000.0, "limit", "h-2")
    assert again.cancel_order(SYMBOL, "h-1")["status"] == "canceled"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((SYMBOL, "long", 1.0, 1.0, "limit", "x"), "side"),
        ((SYMBOL, "buy", 1.0, 1.0, "stop", "x"), "order type"),
        ((SYMBOL, "buy", 1.0, None, "limit", "x"), "needs price"),
        ((SYMBOL, "buy", 1.0, 1.0, "market", "x"), "takes no price"),
        ((SYMBOL, "buy", 1.0, 1.0, "limit", ""), "client id"),
        (("DOGE/USDT", "buy", 1.0, 1.0, "limit", "x"), "no market DOGE/USDT:USDT"),
    ],
)
def test_wrong_arguments(venue: CEXConnector, served: Running, arguments: tuple, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        venue.place_order(*arguments)
    assert ORDER not in served.venue.calls


def test_kucoin_futures_connects_with_passphrase_and_counts_in_base(served: Running) -> None:
    made = CEXConnector("kucoinfutures", API_KEY, API_SECRET, API_PASSPHRASE, urls=served.kucoin_urls)
    made.connect()
    assert made.get_orderbook(SYMBOL, 2)["asks"] == [[50000.1, 1.0], [50001.0, 2.0]]  # 1000 and 2000 contracts of 0.001
    assert float(made.get_limits(SYMBOL).amount_step) == 0.001
    assert made.get_balance() == {"USDT": 1_000_000.0}
    assert made.get_fees(SYMBOL) == {"maker": 0.0002, "taker": 0.0005}
    with pytest.raises(VenueRejected, match="400004"):
        CEXConnector("kucoinfutures", API_KEY, API_SECRET, "wrong", urls=served.kucoin_urls).connect()
    with pytest.raises(ConfigError, match="password"):
        CEXConnector("kucoinfutures", API_KEY, API_SECRET, urls=served.kucoin_urls).connect()


@pytest.mark.parametrize(("exchange", "word"), [("kucoinfutures", "no test venue"), ("nosuchexchange", "no exchange 'nosuchexchange'")])
def test_what_does_not_exist_is_said(exchange: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        CEXConnector(exchange, testnet=True).connect()


@pytest.mark.parametrize(("exchange", "host"), [("binancefutures", "demo-fapi.binance.com"), ("bybit", "api-testnet"), ("gate", "testnet")])
def test_the_test_venue_is_what_ccxt_reaches(exchange: str, host: str) -> None:
    import ccxt

    made = CEXConnector(exchange, testnet=True)
    client = made._new_client(ccxt)
    made._choose_test_venue(ccxt, client)
    assert host in str(client.urls["api"])


@pytest.mark.parametrize("kwargs", [{"api_key": "x"}, {"api_secret": "x"}, {"read_attempts": 0}, {"margin_rate": 0.0}, {"timeout_s": 0.0}])
def test_wrong_construction(kwargs: dict) -> None:
    with pytest.raises(ConfigError):
        CEXConnector("binance", **kwargs)


def test_nothing_works_before_connect() -> None:
    with pytest.raises(ConfigError, match="call connect"):
        CEXConnector("binance").get_orderbook(SYMBOL)


def test_importing_the_connector_loads_no_client() -> None:
    code = "import sys, mm_platform.exchange_connectors.cex_connector as c; c.CEXConnector('binance', 'k', 's'); sys.exit('ccxt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
