"""Every Python block of the user's guide runs as written, against a small local market.

A block is known by a line of it. Only these things are changed or supplied: `from X import` reads `from mm_platform.X import`; the guide's
literal `(...)` becomes `(**market)`; names the guide leaves open (an exchange, keys, a position, data) are put into the block's namespace.
The exchanges are the real, unmodified ccxt client talking to a local REST venue.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from contract.rest_fixture import API_KEY, API_PASSPHRASE, API_SECRET, Running, serve

from mm_platform.exchange_connectors import cex_connector

SYMBOL = "BTC/USDT"
GUIDE = "spec/GUIDE.md"
Names = dict[str, Any]


@dataclass
class Market:
    """Two local venues and what a block did on them."""

    binance: Running
    other: Running
    orders: list[tuple[str, float, float]] = field(default_factory=list)
    hedges: list[dict[str, Any]] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)

    def connector(self, running: Running) -> cex_connector.CEXConnector:
        return cex_connector.CEXConnector("binancefutures", API_KEY, API_SECRET, urls=running.binance_urls)

    def connected(self) -> cex_connector.CEXConnector:
        made = self.connector(self.binance)
        made.connect()
        return made


class Rounds:
    """True a number of times: the guide's `while trading`."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left >= 0


def bars(rows: int = 240) -> pd.DataFrame:
    """A market that swings around 50,000: falling, it trades down to the bids, rising, up to the asks; funding every 60 rows."""
    i = np.arange(rows)
    mid = 50_000.0 + 60.0 * np.sin(i / 5.0)
    rising = np.cos(i / 5.0) > 0.0
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2026-01-05", periods=rows, freq="60s", tz="UTC"),
            "bid": mid - 2.5,
            "ask": mid + 2.5,
            "volume": np.full(rows, 50.0),
            "volatility": np.full(rows, 0.5),
            "funding_rate": np.where(i % 60 == 59, 0.0001, np.nan),
            "trade_low": np.where(rising, mid - 2.5, mid - 40.0),
            "trade_high": np.where(rising, mid + 40.0, mid + 2.5),
        }
    )


# -- one entry per block: what it is known by, the names it needs, what must be true afterwards ---------------------------------------------


@dataclass(frozen=True)
class Block:
    known_by: str
    needs: Callable[[Market], Names]
    check: Callable[[Market, Names], None]


def nothing(_: Market) -> Names:
    return {}


def check_market_maker(_: Market, names: Names) -> None:
    bid, ask = names["bid_price"], names["ask_price"]
    assert 0.0 < bid < ask
    assert 0.0001 - 1e-9 <= (ask - bid) / 50_000.0 <= 0.01 + 1e-9
    assert (bid + ask) / 2 < 49_999.5  # long, so both quotes are skewed down


def check_signals(_: Market, names: Names) -> None:
    signals = names["signals"]
    assert 49_999.9 < signals["microprice"] < 50_000.1
    assert -1.0 <= signals["queue_imbalance"] <= 1.0
    assert signals["spread_bps"] == pytest.approx(0.2 / 50_000.0 * 1e4)
    assert {"kyle_lambda", "short_horizon_volatility"} <= set(signals)


def signal_names(market: Market) -> Names:
    exchange = market.connected()
    return {"current_orderbook": exchange.get_orderbook(SYMBOL), "recent_trades": exchange.get_recent_trades(SYMBOL), "volume_usd": 1e9}


def check_hedge(_: Market, names: Names) -> None:
    rec = names["rec"]
    assert rec["side"] == "sell"
    assert rec["hedge_size"] == pytest.approx(0.8 * 13.0)  # of the whole deviation from the target
    assert {"urgency", "strategy", "limit_price"} <= set(rec)


def check_funding(_: Market, names: Names) -> None:
    assert names["opp"].basis_frac == 0.002
    assert names["arb"].calculate_funding_apr(0.0005) == pytest.approx(0.5475)
    (position,) = names["arb"].get_positions()
    assert (position.position_id, position.notional) == (names["pos_id"], 10_000.0)


def quick_start_names(market: Market) -> Names:
    exchange = market.connected()

    def place_limit_order(side: str, price: float, size: float) -> None:
        order = exchange.place_order(SYMBOL, side, size, price, "post_only", f"guide-{len(market.orders)}")
        market.orders.append((side, float(order["price"]), float(order["amount"])))

    class Clock:
        sleep = staticmethod(market.slept_s.append)

    return {
        "trading": Rounds(2),
        "exchange": exchange,
        "symbol": SYMBOL,
        "mid_price": 50_000.0,
        "volatility": 0.5,
        "current_position": 8.0,
        "size": 0.01,
        "place_limit_order": place_limit_order,
        "execute_hedge": market.hedges.append,
        "time": Clock,
        "update_interval": 1.0,
    }


def check_quick_start(market: Market, names: Names) -> None:
    assert market.slept_s == [1.0, 1.0]
    assert [side for side, _, _ in market.orders] == ["buy", "sell"] * 2
    for (_, bid, _), (_, ask, _) in zip(market.orders[::2], market.orders[1::2], strict=True):
        assert bid < 50_000.0 <= ask  # long 8 of 10: the bid is far away, the ask at the mid
    assert len(market.binance.venue.orders) == 4
    assert {order.status for order in market.binance.venue.orders.values()} == {"NEW"}
    assert [hedge["side"] for hedge in market.hedges] == ["sell", "sell"]


def funding_capture_names(market: Market) -> Names:
    return {
        "exchange": market.connected(),
        "symbol": SYMBOL,
        "size": 10_000.0,
        "market": {"perp_price": 50_050.0, "spot_price": 50_000.0, "funding_rate": 0.0005},
    }


def check_funding_capture(_: Market, names: Names) -> None:
    assert names["funding_apr"] == pytest.approx(0.5475)
    assert [p.position_id for p in names["arb"].get_positions()] == [names["pos_id"]]


def cross_venue_names(market: Market) -> Names:
    market.other.venue.taker_fee = "0.0001"
    return {"binance_connector": market.connector(market.binance), "okx_connector": market.connector(market.other)}


def check_cross_venue(market: Market, names: Names) -> None:
    plan, results = names["routing_plan"], names["results"]
    assert [leg.venue for leg in plan.legs] == ["okx"]  # the same books, the lower fee
    assert results.complete
    assert results.filled == 1.0
    assert [order.status for order in market.other.venue.orders.values()] == ["FILLED"]
    assert market.binance.venue.orders == {}


def key_names(_: Market) -> Names:
    return {"API_KEY": API_KEY, "API_SECRET": API_SECRET, "API_PASSPHRASE": API_PASSPHRASE}


def check_connectors(_: Market, names: Names) -> None:
    for name, venue in (("binance", "binanceusdm"), ("kucoin", "kucoinfutures")):
        assert (names[name].venue, names[name].connected) == (venue, True)
        assert names[name].get_orderbook(SYMBOL)["asks"][0] == [50_000.1, 1.0]


def backtest_names(_: Market) -> Names:
    from mm_platform.delta_hedger import DeltaHedger

    return {"historical_df": bars(), "hedger": DeltaHedger(hedge_threshold=5.0, hedge_ratio=0.8)}


def check_results(results: dict[str, Any], rows: int) -> None:
    promised = {"total_pnl", "sharpe_ratio", "max_drawdown", "maker_fills", "taker_fills", "win_rate", "total_fees_paid", "total_funding_paid"}
    assert promised | {"equity_curve", "inventory_curve", "pnl_attribution"} <= set(results)
    assert len(results["equity_curve"]) == len(results["inventory_curve"]) == rows
    assert results["equity_curve"][-1] - 100_000.0 == pytest.approx(results["total_pnl"], abs=1e-6)
    assert math.isfinite(results["total_pnl"])


def check_backtest(_: Market, names: Names) -> None:
    check_results(names["results"], 240)
    assert names["results"]["maker_fills"] > 0
    assert names["results"]["total_fees_paid"] > 0.0
    assert names["results"]["total_funding_paid"] != 0.0
    assert names["results"]["fill_model"] == "bar"


def frame_names(_: Market) -> Names:
    data = bars()
    rows = len(data)
    books = [{"bids": [[bid, 1.0]], "asks": [[ask, 1.0]]} for bid, ask in zip(data["bid"], data["ask"], strict=True)]
    return {
        "pd": pd,
        "timestamps": list(data["timestamp"]),
        "bid_prices": list(data["bid"]),
        "ask_prices": list(data["ask"]),
        "volumes": list(data["volume"]),
        "volatilities": list(data["volatility"]),
        "orderbooks": books,
        "microprices": list((data["bid"] + data["ask"]) / 2),
        "order_flow_imbalances": [0.0] * rows,
        "kyle_lambdas": [0.0] * rows,
        "short_volatilities": [0.5] * rows,
    }


def check_frame(_: Market, names: Names) -> None:
    from mm_platform.avellaneda_stoikov import AvellanedaStoikovMarketMaker
    from mm_platform.market_making_backtest import MarketMakingBacktest

    frame = names["df"]
    assert list(frame["orderbook_snapshot"].iloc[0]) == ["bids", "asks"]
    results = MarketMakingBacktest(initial_capital=100_000.0).run_backtest(frame, AvellanedaStoikovMarketMaker(), apply_funding=False)
    check_results(results, len(frame))


def fee_names(_: Market) -> Names:
    return {"min_spread": 0.0005, "maker_fee": 0.0002, "safety_margin": 0.0001}


def check_fee_rule(_: Market, names: Names) -> None:
    # the guide's comment: a maker fee of 0.02 % wants a spread of at least 0.05 %
    assert eval(names["source"], names.copy()) is True
    assert eval(names["source"], names | {"min_spread": 0.0004}) is False


def bounds_are(**wanted: float) -> Callable[[Market, Names], None]:
    def check(_: Market, names: Names) -> None:
        from mm_platform.avellaneda_stoikov import AvellanedaStoikovMarketMaker

        assert {name: names[name] for name in wanted} == wanted
        AvellanedaStoikovMarketMaker(**wanted)  # the door takes the guide's numbers

    return check


BLOCKS = {
    "market maker": Block("short_volatility=0.6", lambda _: {"current_position": 2.0}, check_market_maker),
    "microstructure signals": Block("volume_24h=volume_usd", signal_names, check_signals),
    "delta hedger": Block("max_hedge_latency=60.0", lambda _: {"current_position": 13.0}, check_hedge),
    "funding arbitrage": Block("predicted_funding=0.0004", nothing, check_funding),
    "quick start": Block("while trading:", quick_start_names, check_quick_start),
    "inventory limit": Block("max_inventory = 10.0", nothing, bounds_are(max_inventory=10.0)),
    "spread bounds": Block("min_spread = 0.0001", nothing, bounds_are(min_spread=0.0001, max_spread=0.01)),
    "funding rate capture": Block("arb.calculate_funding_apr(funding_rate)", funding_capture_names, check_funding_capture),
    "cross-venue trading": Block("sor.route_order(", cross_venue_names, check_cross_venue),
    "cex connector": Block("exchange_id='kucoinfutures'", key_names, check_connectors),
    "backtest": Block("backtest.run_backtest(", backtest_names, check_backtest),
    "market data frame": Block("'orderbook_snapshot': orderbooks", frame_names, check_frame),
    "small start": Block("risk_aversion = 0.5", nothing, bounds_are(max_inventory=1.0, risk_aversion=0.5)),
    "fee awareness": Block("min_spread >= 2 * maker_fee + safety_margin", fee_names, check_fee_rule),
}


@pytest.fixture(scope="session")
def guide(shared: Path) -> list[str]:
    # `shared` skips where the folder is missing; a folder without the guide is an error
    return re.findall(r"^```python\n(.*?)^```", (shared / GUIDE).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[Market]:
    with serve() as binance, serve() as other:
        made = Market(binance, other)

        class Local(cex_connector.CEXConnector):
            """The connector as the guide constructs it, pointed at the local venue where the block gives no address."""

            def __init__(self, exchange_id: str, *args: Any, **kwargs: Any) -> None:
                local = binance.kucoin_urls if exchange_id == "kucoinfutures" else binance.binance_urls
                super().__init__(exchange_id, *args, **{"urls": local} | kwargs)

        monkeypatch.setattr(cex_connector, "CEXConnector", Local)
        yield made


@pytest.mark.shared
def test_every_block_has_exactly_one_entry(guide: list[str]) -> None:
    assert len(guide) == len(BLOCKS) == 14
    owners = [[name for name, block in BLOCKS.items() if block.known_by in source] for source in guide]
    assert [len(names) for names in owners] == [1] * len(guide), owners
    assert {names[0] for names in owners} == set(BLOCKS)


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore::UserWarning")  # doors warn that the guide's spreads are below two maker fees
@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs(name: str, guide: list[str], market: Market) -> None:
    block = BLOCKS[name]
    (source,) = [text for text in guide if block.known_by in text]
    source = re.sub(r"^from (?!mm_platform)([\w.]+) import", r"from mm_platform.\1 import", source, flags=re.MULTILINE)
    names: Names = {**block.needs(market), "source": source}
    exec(compile(source.replace("(...)", "(**market)"), f"<guide: {name}>", "exec"), names)
    block.check(market, names)
