"""The register of venues, and the venues that this version only names."""

from __future__ import annotations

import pytest
from contract.rest_fixture import API_KEY, API_SECRET, serve

from mm_platform.core.errors import ConfigError, VenueError
from mm_platform.exchange_connectors.base import UnavailableConnector
from mm_platform.exchange_connectors.cex_connector import CEXConnector
from mm_platform.exchange_connectors.dydx_connector import DydxConnector
from mm_platform.exchange_connectors.hyperliquid_connector import HyperliquidConnector
from mm_platform.exchange_connectors.venue_manager import VenueManager
from mm_platform.smart_order_router import SmartOrderRouter


def test_venues_by_name() -> None:
    manager = VenueManager()
    one, two = CEXConnector("binance"), CEXConnector("kucoin")
    manager.add_venue("a", one)
    manager.add_venue("b", two)
    assert list(manager.venues()) == ["a", "b"]
    assert manager.get_venue("a") is one
    manager.remove_venue("a")
    assert dict(manager.venues()) == {"b": two}
    with pytest.raises(ConfigError, match="no venue 'a'; there are b"):
        manager.get_venue("a")
    with pytest.raises(ConfigError, match="already is a venue 'b'"):
        manager.add_venue("b", one)
    with pytest.raises(ConfigError, match="needs a name"):
        manager.add_venue("", one)
    with pytest.raises(ConfigError, match="object has no get_orderbook"):
        manager.add_venue("c", object())


def test_one_failure_does_not_keep_the_others_from_connecting() -> None:
    with serve() as running:
        good = CEXConnector("binancefutures", API_KEY, API_SECRET, urls=running.binance_urls)
        bad = CEXConnector("binancefutures", "wrong", API_SECRET, urls=running.binance_urls)
        manager = VenueManager()
        manager.add_venue("bad", bad)
        manager.add_venue("good", good)
        with pytest.raises(VenueError, match=r"1 of 2 venues did not connect: bad: VenueRejected: .*-2015"):
            manager.connect_all()
        assert (bad.connected, good.connected) == (False, True)
        manager.remove_venue("bad")
        manager.connect_all()
        manager.disconnect_all()
        assert not good.connected
    with pytest.raises(ConfigError, match="no venues"):
        VenueManager().connect_all()


def test_two_real_clients_routed_and_filled() -> None:
    with serve() as cheap, serve() as dear:
        dear.venue.taker_fee = "0.0010"
        manager = VenueManager()
        for name, running in (("dear", dear), ("cheap", cheap)):
            manager.add_venue(name, CEXConnector("binancefutures", API_KEY, API_SECRET, urls=running.binance_urls))
        manager.connect_all()
        sor = SmartOrderRouter(manager, run_id="t1")
        plan = sor.route_order("BTC/USDT", "buy", 1.5)
        assert {leg.venue: leg.amount for leg in plan.legs} == {"cheap": 1.5}  # 5 bp of fee is more than the next level
        results = sor.execute_routing_plan("BTC/USDT", "buy", plan)
        assert results.complete
        assert results.legs[0].average_price == pytest.approx((50000.1 + 0.5 * 50001.0) / 1.5)
        assert cheap.venue.orders["t1-1-1"].status == "FILLED"
        assert dear.venue.orders == {}
        # a leg of unknown outcome is really live here, and stays a single order
        cheap.venue.faults["POST /fapi/v1/order"] = [("lose_after",)]
        lost = sor.execute_routing_plan("BTC/USDT", "buy", sor.route_order("BTC/USDT", "buy", 0.5))
        assert [leg.status for leg in lost] == ["unknown"]
        assert manager.get_venue("cheap").get_order("BTC/USDT", "t1-2-1")["filled"] == 0.5
        assert len(cheap.venue.orders) == 2


@pytest.mark.parametrize(
    ("venue", "word"),
    [(HyperliquidConnector("0xabc", "0xverysecret"), "builder"), (DydxConnector("dydx1abc", "very secret words"), "streams")],
)
def test_named_venues_refuse_with_the_reason(venue: UnavailableConnector, word: str) -> None:
    assert not venue.connected
    calls = [
        venue.connect,
        venue.get_balance,
        lambda: venue.get_orderbook("BTC/USD"),
        lambda: venue.get_recent_trades("BTC/USD"),
        lambda: venue.get_funding_rate("BTC/USD"),
        lambda: venue.get_fees("BTC/USD"),
        lambda: venue.get_limits("BTC/USD"),
        lambda: venue.place_order("BTC/USD", "buy", 1.0, 1.0, "limit", "x"),
        lambda: venue.cancel_order("BTC/USD", "x"),
        lambda: venue.get_order("BTC/USD", "x"),
        lambda: venue.get_open_orders("BTC/USD"),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=word):
            call()
    assert "secret" not in repr(venue)
    assert "secret" not in str(vars(venue))
    manager = VenueManager()
    manager.add_venue("dex", venue)
    with pytest.raises(VenueError, match="not available in this version"):
        manager.connect_all()
