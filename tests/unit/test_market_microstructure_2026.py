"""The signals door: the guide's example on ccxt's dicts, agreement with simulated truth, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.market_microstructure_2026 import MarketMicrostructure2026

BOOK = {"bids": [[99.99, 30.0], [99.98, 10.0]], "asks": [[100.01, 10.0], [100.02, 50.0]], "timestamp": 1_700_000_000_000}


def trade(ms: int, side: str, price: float, amount: float) -> dict[str, Any]:
    return {"timestamp": 1_700_000_000_000 + ms, "side": side, "price": price, "amount": amount, "symbol": "BTC/USDT"}


TRADES = [trade(250 * k, "buy" if k % 3 else "sell", 100.0 + 0.01 * (k % 5), 0.5 + 0.1 * (k % 7)) for k in range(60)]


def test_guide_example() -> None:
    ms = MarketMicrostructure2026()
    signals = ms.get_microstructure_signals(orderbook=BOOK, trades=TRADES, volume_24h=1e9)
    assert {"microprice", "kyle_lambda", "queue_imbalance", "short_horizon_volatility", "spread_bps", "order_flow_imbalance"} <= signals.keys()
    assert all(type(value) is float and math.isfinite(value) for value in signals.values())
    assert signals["microprice"] == pytest.approx(100.005)
    assert signals["queue_imbalance"] == 0.5
    assert signals["spread_bps"] == pytest.approx(2.0)
    assert signals["daily_volume_impact_frac"] == pytest.approx(signals["kyle_lambda"] * 1e9 / 100.0**2)


def test_single_methods_agree_with_the_bundle() -> None:
    ms = MarketMicrostructure2026()
    signals = ms.get_microstructure_signals(BOOK, TRADES)
    assert ms.calculate_microprice(BOOK) == signals["microprice"]
    assert ms.calculate_queue_imbalance(BOOK) == signals["queue_imbalance"]
    spread = 100.01 - 99.99
    assert ms.calculate_kyle_lambda(TRADES, spread) == pytest.approx(signals["kyle_lambda"], rel=1e-12)
    assert ms.calculate_short_horizon_volatility(TRADES, spread) == pytest.approx(signals["short_horizon_volatility"], rel=1e-12)
    assert math.isnan(signals["daily_volume_impact_frac"])


def test_queue_imbalance_over_levels() -> None:
    assert MarketMicrostructure2026().calculate_queue_imbalance(BOOK, levels=2) == pytest.approx((40 - 60) / 100)


def test_order_flow_of_snapshots_is_the_papers_sum() -> None:
    touches = [(100, 10, 101, 12), (100, 15, 101, 12), (100, 15, 101, 7), (101, 4, 102, 9), (101, 6, 102, 9), (100, 8, 101, 5), (100, 8, 101, 5)]
    books = [{"bids": [[b, bq]], "asks": [[a, aq]]} for b, bq, a, aq in touches]
    depth = np.mean([(bq + aq) / 2 for _, bq, _, aq in touches])
    assert MarketMicrostructure2026().calculate_order_flow_imbalance(books) == pytest.approx(12 / (34 + depth))


def test_impact_and_volatility_see_through_the_bounce() -> None:
    """Trades at mid +- half a spread, a mid that moves by 0.002 per unit traded: slope and volatility are the mid's own."""
    rng = np.random.default_rng(8)
    spread, impact, mid = 0.2, 0.002, 100.0
    trades, mids = [], []
    for k in range(2000):
        side = 1 if rng.random() < 0.5 else -1
        amount = float(rng.integers(1, 10))
        mids.append(mid)
        trades.append(trade(1000 * k, "buy" if side > 0 else "sell", mid + side * spread / 2, amount))
        mid += side * amount * impact
    ms = MarketMicrostructure2026(volatility_tau_s=1e6)
    assert ms.calculate_kyle_lambda(trades, spread) == pytest.approx(impact, rel=1e-9)
    assert ms.calculate_kyle_lambda(trades) != pytest.approx(impact, rel=0.5)
    truth = math.sqrt(np.mean(np.diff(np.log(mids)) ** 2) * 31_536_000)
    assert ms.calculate_short_horizon_volatility(trades, spread) == pytest.approx(truth, rel=2e-3)
    assert ms.calculate_short_horizon_volatility(trades) > 5 * truth


def test_a_sweep_is_one_observation() -> None:
    whole = [trade(0, "buy", 100.0, 3.0), trade(1000, "sell", 100.3, 1.0), trade(2000, "buy", 100.2, 2.0), trade(3000, "sell", 100.4, 1.0)]
    split = [trade(0, "buy", 100.0, 1.0), trade(0, "buy", 100.05, 2.0), *whole[1:]]
    ms = MarketMicrostructure2026()
    assert ms.calculate_kyle_lambda(split) == pytest.approx(ms.calculate_kyle_lambda(whole))


def test_trades_in_any_order_give_the_same_numbers() -> None:
    ms = MarketMicrostructure2026()
    assert ms.get_microstructure_signals(BOOK, TRADES, 1e9) == ms.get_microstructure_signals(BOOK, TRADES[::-1], 1e9)


def test_order_flow_of_trades_follows_the_taker() -> None:
    ms = MarketMicrostructure2026()
    buys = [trade(k, "buy", 100.0, 5.0) for k in range(8)]
    assert ms.get_microstructure_signals(BOOK, buys)["order_flow_imbalance"] == pytest.approx(40 / (40 + 20))
    assert ms.get_microstructure_signals(BOOK, [trade(0, "sell", 100.0, 5.0)])["order_flow_imbalance"] == pytest.approx(-5 / 25)


def test_too_few_trades_are_nan_not_zero() -> None:
    signals = MarketMicrostructure2026().get_microstructure_signals(BOOK, [])
    assert math.isnan(signals["kyle_lambda"])
    assert math.isnan(signals["short_horizon_volatility"])
    assert signals["order_flow_imbalance"] == 0.0


@pytest.mark.parametrize(
    ("book", "match"),
    [
        ({"bids": [], "asks": [[1.0, 1.0]]}, "no bids"),
        ({"bids": [[1.0, 1.0]]}, "no asks"),
        ({"bids": [[2.0, 1.0]], "asks": [[1.0, 1.0]]}, "crossed"),
        ({"bids": [[1.0, 1.0]], "asks": [[1.0, 1.0]]}, "crossed"),
        ({"bids": [[math.nan, 1.0]], "asks": [[2.0, 1.0]]}, r"bids\[0\]"),
        ({"bids": [[-1.0, 1.0]], "asks": [[2.0, 1.0]]}, r"bids\[0\]"),
        ({"bids": [[1.0, 0.0]], "asks": [[2.0, 1.0]]}, r"bids\[0\]"),
        ({"bids": [[1.0, 1.0]], "asks": [[2.0, 1.0], [1.5, 1.0]]}, r"asks\[1\]"),
        ({"bids": [[1.0, 1.0], [1.0, 2.0]], "asks": [[2.0, 1.0]]}, r"bids\[1\]"),
        ({"bids": [[1.0]], "asks": [[2.0, 1.0]]}, "pairs"),
        ({"bids": [["x", 1.0]], "asks": [[2.0, 1.0]]}, "pairs"),
    ],
)
def test_refuses_bad_books(book: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        MarketMicrostructure2026().get_microstructure_signals(book, [])


@pytest.mark.parametrize(
    "change",
    [
        {"side": None},
        {"side": "BUY"},
        {"price": -1.0},
        {"price": math.nan},
        {"amount": 0.0},
        {"timestamp": None},
        {"timestamp": math.nan},
        {"amount": "x"},
    ],
)
def test_refuses_bad_trades(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="trade 1"):
        MarketMicrostructure2026().get_microstructure_signals(BOOK, [TRADES[0], TRADES[1] | change])


def test_refuses_other_bad_numbers() -> None:
    ms = MarketMicrostructure2026()
    with pytest.raises(DataError, match="volume_24h"):
        ms.get_microstructure_signals(BOOK, [], volume_24h=-1.0)
    with pytest.raises(DataError, match="spread"):
        ms.calculate_kyle_lambda(TRADES, spread=-0.1)
    with pytest.raises(DataError, match="at least 2"):
        ms.calculate_order_flow_imbalance([BOOK])
    with pytest.raises(ConfigError, match="levels"):
        ms.calculate_queue_imbalance(BOOK, levels=0)
    with pytest.raises(ConfigError, match="volatility_tau_s"):
        MarketMicrostructure2026(volatility_tau_s=0.0)
