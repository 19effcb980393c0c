"""The backtest door: the guide's call, when bars fill, what is paid, what is refused; the tape path."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from bar_market import START_NS, ScriptedHedger, ScriptedMaker, bars, random_bars
from builders import SPEC, TapeBuilder, random_tape

from mm_platform.avellaneda_stoikov import AvellanedaStoikovMarketMaker
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.delta_hedger import DeltaHedger
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.market_making_backtest import (
    NEVER_HEDGE,
    BacktestWarning,
    MarketMakingBacktest,
    order_policy,
    size_limits,
)
from mm_platform.market_microstructure_2026 import MarketMicrostructure2026
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import mid_path
from mm_platform.tape.features import compute_features

GUIDE_KEYS = {
    "total_pnl",
    "sharpe_ratio",
    "max_drawdown",
    "maker_fills",
    "taker_fills",
    "win_rate",
    "total_fees_paid",
    "total_funding_paid",
    "equity_curve",
    "inventory_curve",
}
BEYOND = {"pnl_attribution", "markouts_bps", "fill_model", "warnings", "timestamps", "final_inventory", "fills"}
PARTS = {"spread_pnl", "hedge_pnl", "inventory_pnl", "fees", "funding"}

FREE = MarketMakingBacktest(10_000.0, 0.0, 0.0, order_size=2.0, fill_frac=1.0)


def run(frame: pd.DataFrame, maker: Any, hedger: Any = None, backtest: MarketMakingBacktest = FREE, apply_funding: bool = False) -> dict[str, Any]:
    return backtest.run_backtest(frame, maker, hedger, apply_funding)


# -- the guide's call ------------------------------------------------------------------------------------------------------------------


def test_the_guides_call_with_the_guides_columns() -> None:
    n = 400
    market = random_bars(n, 1)
    books = [{"bids": [[b, 2.0], [b - 5, 3.0]], "asks": [[a, 1.0], [a + 5, 4.0]]} for b, a in zip(market["bid"], market["ask"], strict=True)]
    df = pd.DataFrame(
        {
            "timestamp": market["timestamp"],
            "bid": market["bid"],
            "ask": market["ask"],
            "volume": market["volume"],
            "volatility": market["volatility"],
            "orderbook_snapshot": books,
            "microprice": market["microprice"],
            "ofi": market["ofi"],
            "kyle_lambda": market["kyle_lambda"],
            "short_vol": market["short_vol"],
        }
    )
    backtest = MarketMakingBacktest(initial_capital=100_000.0, maker_fee=0.0002, taker_fee=0.0006)
    mm = AvellanedaStoikovMarketMaker(risk_aversion=0.1, max_inventory=10.0)
    hedger = DeltaHedger(hedge_threshold=1.0, hedge_ratio=0.8)
    with pytest.warns(BacktestWarning, match="has no funding_rate: funding is 0"):
        results = backtest.run_backtest(market_data=df, market_maker=mm, hedger=hedger, apply_funding=True)
    assert results.keys() >= GUIDE_KEYS | BEYOND
    assert results["pnl_attribution"].keys() == PARTS
    assert results["fill_model"] == "bar"
    assert results["total_funding_paid"] == 0.0
    assert results["warnings"] == ["apply_funding is True but the data has no funding_rate: funding is 0"]
    assert results["maker_fills"] > 50
    assert results["taker_fills"] > 0
    assert len(results["equity_curve"]) == len(results["inventory_curve"]) == n
    assert math.fsum(results["pnl_attribution"].values()) == results["total_pnl"]
    assert results["equity_curve"][-1] == 100_000.0 + results["total_pnl"]


# -- when a bar fills ------------------------------------------------------------------------------------------------------------------


def test_a_quote_fills_in_the_next_row_and_only_when_the_ask_goes_through_it() -> None:
    # asks 101, 100 (touches our 100), 99.5 (through), 98
    frame = bars([100.0, 99.0, 98.5, 97.0], [101.0, 100.0, 99.5, 98.0])
    touched = run(frame[:2], ScriptedMaker([(100.0, None)]))
    assert touched["maker_fills"] == 0
    through = run(frame[:3], ScriptedMaker([(99.9, None), (99.9, None), (None, None)]))
    assert through["fills"]["ts_ns"].tolist() == [START_NS + 2 * 60 * NS_PER_S]
    assert through["fills"]["price"].tolist() == [99.9]
    # decided at row 1 only: the ask of row 1 itself, known at the decision, does not fill it
    late = run(frame[:2], ScriptedMaker([(None, None), (99.0, None)]))
    assert late["maker_fills"] == 0


def test_the_asks_mirror_the_bids() -> None:
    frame = bars([100.0, 101.0, 101.5], [101.0, 102.0, 102.5])
    assert run(frame[:2], ScriptedMaker([(None, 101.0)]))["maker_fills"] == 0
    sold = run(frame, ScriptedMaker([(None, 101.2)]))
    assert sold["fills"]["side"].tolist() == [-1]
    assert sold["fills"]["price"].tolist() == [101.2]
    assert sold["inventory_curve"].tolist() == [0.0, 0.0, -2.0]


def test_a_fill_takes_its_share_of_the_volume_at_most() -> None:
    frame = bars([100.0, 90.0], volume=8.0)
    backtest = MarketMakingBacktest(10_000.0, 0.0, 0.0, order_size=2.0, fill_frac=0.1)
    assert run(frame, ScriptedMaker([(99.0, None)]), backtest=backtest)["fills"]["qty"].tolist() == pytest.approx([0.8])
    assert run(bars([100.0, 90.0], volume=0.0), ScriptedMaker([(99.0, None)]), backtest=backtest)["maker_fills"] == 0
    assert run(bars([100.0, 90.0], volume=1e6), ScriptedMaker([(99.0, None)]), backtest=backtest)["fills"]["qty"].tolist() == [2.0]


def test_recorded_extremes_fill_and_both_sides_share_one_volume() -> None:
    frame = bars([100.0, 100.0], volume=6.0, trade_low=[math.nan, 99.0], trade_high=[math.nan, 102.0])
    backtest = MarketMakingBacktest(10_000.0, 0.0, 0.0, order_size=2.0, fill_frac=0.5)
    out = run(frame, ScriptedMaker([(99.5, 101.5)]), backtest=backtest)
    assert out["fills"]["side"].tolist() == [1, -1]
    assert out["fills"]["qty"].tolist() == [1.5, 1.5]
    assert out["total_pnl"] == 3.0
    assert out["win_rate"] == 1.0
    # an extreme at our price is a touch
    assert run(frame, ScriptedMaker([(99.0, 102.0)]), backtest=backtest)["maker_fills"] == 0
    # a recorded low above the ask does not shield a bid that the ask went through
    shielded = bars([100.0, 98.0], trade_low=[math.nan, 99.8])
    assert run(shielded, ScriptedMaker([(99.5, None)]))["maker_fills"] == 1


def test_a_quote_that_would_cross_is_not_sent() -> None:
    frame = bars([100.0, 90.0])
    assert run(frame, ScriptedMaker([(101.0, None)]))["maker_fills"] == 0
    with pytest.raises(DataError, match=r"row 0: the market maker quotes bid 100.5 >= ask 100.4"):
        run(frame, ScriptedMaker([(100.5, 100.4)]))


# -- hedges ----------------------------------------------------------------------------------------------------------------------------

SELL_ONE = {"side": "sell", "hedge_size": 1.0, "urgency": "forced", "strategy": "aggressive", "limit_price": 99.0}


def test_a_hedge_crosses_at_the_next_rows_opposite_quote() -> None:
    frame = bars([100.0, 98.0, 97.0, 96.0])
    hedger = ScriptedHedger([None, SELL_ONE, None, None])
    out = run(frame, ScriptedMaker([(99.5, None), (None, None)]), hedger)
    fills = out["fills"]
    assert fills["maker"].tolist() == [True, False]
    assert fills["price"].tolist() == [99.5, 97.0]
    assert fills["ts_ns"][1] == START_NS + 2 * 60 * NS_PER_S
    assert hedger.inventories == [0.0, 2.0, 1.0, 1.0]
    assert out["pnl_attribution"]["hedge_pnl"] == -0.5
    assert out["taker_fills"] == 1


def test_a_hedge_decided_in_the_last_row_never_crosses() -> None:
    out = run(bars([100.0, 98.0]), ScriptedMaker([(99.5, None)]), ScriptedHedger([None, SELL_ONE]))
    assert out["taker_fills"] == 0


def test_a_hedge_that_rests_waits_and_one_that_is_forced_crosses() -> None:
    frame = bars([100.0] + [98.0] * 9, step_s=10.0)
    maker = ScriptedMaker([(99.5, None), (None, None)])
    # no microprice: no moment is known to be favourable, so the breach of row 1 is forced at its latency, 30 s later
    out = run(frame, maker, DeltaHedger(1.0, hedge_ratio=1.0, max_hedge_latency=30.0))
    assert out["fills"]["maker"].tolist() == [True, False]
    assert out["fills"]["ts_ns"][1] == START_NS + 50 * NS_PER_S
    assert out["final_inventory"] == 0.0
    # a microprice below the mid favours selling at once
    hasty = frame.assign(microprice=98.2)
    out = run(hasty, ScriptedMaker([(99.5, None), (None, None)]), DeltaHedger(1.0, hedge_ratio=1.0, max_hedge_latency=30.0))
    assert out["fills"]["ts_ns"][1] == START_NS + 20 * NS_PER_S


def test_the_quote_a_hedge_would_hit_is_pulled_and_the_other_stands() -> None:
    frame = bars([100.0, 98.0, 96.0, 99.0])
    hedger = ScriptedHedger([None, SELL_ONE, SELL_ONE, None])
    out = run(frame, ScriptedMaker([(99.5, None), (97.9, 98.9), (None, 97.5)]), hedger)
    # row 2 would have filled the bid of row 1 (97.9 > ask 97); row 3 fills the ask of row 2
    assert out["fills"]["maker"].tolist() == [True, False, True, False]
    assert out["fills"]["side"].tolist() == [1, -1, -1, -1]


def test_a_hedgers_nonsense_is_named_with_its_row() -> None:
    with pytest.raises(DataError, match="row 0: the hedger recommends side 'up'"):
        run(bars([100.0, 99.0]), ScriptedMaker([(None, None)]), ScriptedHedger([{"side": "up", "hedge_size": 1.0, "strategy": "aggressive"}]))


# -- money -----------------------------------------------------------------------------------------------------------------------------


def test_a_hand_computed_run() -> None:
    """Buy 2 at 99.5 (mid before 100.5), mark to 98.5, pay funding on 2 at mark 98, sell 1 at 97 (mid 97.5), end at mid 96.5."""
    frame = bars([100.0, 98.0, 97.0, 96.0], funding_rate=[math.nan, 0.001, math.nan, math.nan], mark_price=[math.nan, 98.0, math.nan, math.nan])
    backtest = MarketMakingBacktest(1_000.0, 0.001, 0.002, order_size=2.0, fill_frac=1.0)
    out = backtest.run_backtest(frame, ScriptedMaker([(99.5, None), (None, None)]), ScriptedHedger([None, SELL_ONE, None, None]))
    parts = out["pnl_attribution"]
    assert parts["spread_pnl"] == pytest.approx(2.0 * 1.0)
    assert parts["inventory_pnl"] == pytest.approx(2 * -2.0 + 2 * -1.0 + 1 * -1.0)
    assert parts["hedge_pnl"] == pytest.approx(-0.5)
    assert parts["fees"] == pytest.approx(-(199.0 * 0.001 + 97.0 * 0.002))
    assert parts["funding"] == pytest.approx(-2 * 98.0 * 0.001)
    assert out["total_funding_paid"] == -parts["funding"]
    assert out["total_fees_paid"] == -parts["fees"]
    cash = -199.0 + 97.0 - 0.199 - 0.194 - 0.196
    assert out["total_pnl"] == pytest.approx(cash + 96.5)
    curve = [0.0, 2.0 - 4.0 - 0.199 - 0.196, 2.0 - 6.0 - 0.5 - 0.589, cash + 96.5]
    assert out["equity_curve"].tolist() == pytest.approx([1_000.0 + x for x in curve])
    peak = 1_000.0
    assert out["max_drawdown"] == pytest.approx(max(-x for x in curve) / peak)
    # the 60 s after the fill end at row 2: from 100.5 to 97.5
    assert out["markouts_bps"][60.0] == pytest.approx(-3.0 / 100.5 * 1e4)
    assert out["markouts_bps"][1.0] == pytest.approx(-2.0 / 100.5 * 1e4)
    assert math.isnan(out["markouts_bps"][300.0])
    assert math.isnan(out["win_rate"])


def test_cash_and_position_give_the_same_profit_as_the_parts() -> None:
    """Identity I1 against an exact recount of the executions."""
    frame = random_bars(2_000, 3, step_s=60.0)
    out = MarketMakingBacktest(order_size=0.5).run_backtest(frame, AvellanedaStoikovMarketMaker(k_rel=20_000.0), DeltaHedger(2.0), True)
    fills = out["fills"]
    assert len(fills["ts_ns"]) > 500
    cash = position = Fraction(0)
    for side, price, qty, fee in zip(fills["side"].tolist(), fills["price"].tolist(), fills["qty"].tolist(), fills["fee"].tolist(), strict=True):
        cash -= side * Fraction(price) * Fraction(qty) + Fraction(fee)
        position += side * Fraction(qty)
    mid = 0.5 * (frame["bid"].iloc[-1] + frame["ask"].iloc[-1])
    assert float(cash + position * Fraction(mid)) - out["total_funding_paid"] == pytest.approx(out["total_pnl"], rel=1e-9)
    assert float(position) == pytest.approx(out["final_inventory"], abs=1e-9)
    assert math.fsum(fills["fee"]) == pytest.approx(out["total_fees_paid"])


def test_funding_is_paid_by_longs_and_earned_by_shorts_at_the_mid_without_a_mark() -> None:
    frame = bars([100.0, 98.0, 98.0], funding_rate=[math.nan, math.nan, 0.01])
    long = run(frame, ScriptedMaker([(99.5, None), (None, None)]), apply_funding=True)
    assert long["total_funding_paid"] == pytest.approx(2.0 * 98.5 * 0.01)
    frame = bars([100.0, 102.0, 102.0], funding_rate=[math.nan, math.nan, 0.01])
    short = run(frame, ScriptedMaker([(None, 101.5), (None, None)]), apply_funding=True)
    assert short["total_funding_paid"] == pytest.approx(-2.0 * 102.5 * 0.01)
    assert run(frame, ScriptedMaker([(None, 101.5), (None, None)]))["total_funding_paid"] == 0.0


def test_a_rate_in_every_row_is_settled_and_warned_about() -> None:
    frame = bars([100.0, 98.0, 98.0], funding_rate=0.0001)
    with pytest.warns(BacktestWarning, match=r"rows 60 s apart .* leave it nan except at the venue's funding times"):
        out = run(frame, ScriptedMaker([(99.5, None), (None, None)]), apply_funding=True)
    assert out["total_funding_paid"] == pytest.approx(2 * 2.0 * 98.5 * 0.0001)
    zeros = bars([100.0, 98.0, 98.0], funding_rate=[0.0, 0.0, 0.0001])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(zeros, ScriptedMaker([(99.5, None), (None, None)]), apply_funding=True)["warnings"] == []


def test_a_lost_account_is_said_to_be_lost() -> None:
    backtest = MarketMakingBacktest(10.0, 0.0, 0.0, order_size=2.0, fill_frac=1.0)
    with pytest.warns(BacktestWarning, match="the account was lost"):
        out = run(bars([100.0, 98.0, 80.0, 90.0]), ScriptedMaker([(99.5, None), (None, None)]), backtest=backtest)
    assert math.isnan(out["sharpe_ratio"])


# -- time ------------------------------------------------------------------------------------------------------------------------------


def test_sharpe_is_annualised_by_the_step() -> None:
    frame = random_bars(500, 4, step_s=60.0)
    out = run(frame, AvellanedaStoikovMarketMaker(k_rel=20_000.0, order_size=0.1), backtest=MarketMakingBacktest(maker_fee=0.0))
    returns = np.diff(out["equity_curve"]) / out["equity_curve"][:-1]
    assert out["sharpe_ratio"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(365 * 24 * 60))
    assert out["warnings"] == []


def test_a_gap_is_carried_forward_and_named() -> None:
    frame = random_bars(500, 4, step_s=60.0)
    maker = AvellanedaStoikovMarketMaker(k_rel=20_000.0, order_size=0.1)
    gappy = frame.drop(index=range(100, 110)).reset_index(drop=True)
    with pytest.warns(BacktestWarning, match=r"1 of 489 steps are not near the median of 60 s \(first at row 100\)"):
        out = run(gappy, maker, backtest=MarketMakingBacktest(maker_fee=0.0))
    filled = np.insert(out["equity_curve"], [100] * 10, out["equity_curve"][99])
    returns = np.diff(filled) / filled[:-1]
    assert out["sharpe_ratio"] == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(365 * 24 * 60))


def test_mostly_gaps_are_refused() -> None:
    frame = bars([100.0] * 10)
    frame.loc[9, "timestamp"] += pd.Timedelta(days=30)
    with pytest.raises(DataError, match=r"timestamps are mostly gaps: 10 rows span 30\.\d+ days"):
        run(frame, ScriptedMaker([(None, None)]))


def test_one_row_says_that_nothing_can_fill() -> None:
    with pytest.warns(BacktestWarning, match="one row only"):
        out = run(bars([100.0]), ScriptedMaker([(99.0, 102.0)]))
    assert out["total_pnl"] == 0.0
    assert math.isnan(out["sharpe_ratio"])


def test_nanosecond_integers_and_zones_are_the_same_times() -> None:
    frame = bars([100.0, 98.0])
    as_int = frame.assign(timestamp=frame["timestamp"].dt.as_unit("ns").astype("int64"))
    as_tokyo = frame.assign(timestamp=frame["timestamp"].dt.tz_convert("Asia/Tokyo"))
    outs = [run(f, ScriptedMaker([(99.0, None)])) for f in (frame, as_int, as_tokyo)]
    assert all(out["timestamps"].tolist() == [START_NS, START_NS + 60 * NS_PER_S] for out in outs)


def test_the_projects_maker_and_hedger_are_told_the_rows_time() -> None:
    frame = bars([100.0, 98.0])

    def forbidden() -> int:
        raise AssertionError("the wall clock was read in a backtest")

    run(frame, AvellanedaStoikovMarketMaker(clock=forbidden), DeltaHedger(clock=forbidden))


# -- signals ---------------------------------------------------------------------------------------------------------------------------


def book(bid: float, ask: float, bid_size: float, ask_size: float, **more: Any) -> dict[str, Any]:
    return {"bids": [[bid, bid_size], [bid - 1, 5.0]], "asks": [[ask, ask_size], [ask + 1, 5.0]], **more}


def trade(row: int, offset_ms: int, side: str, price: float, amount: float) -> dict[str, Any]:
    return {"timestamp": (START_NS + row * 60 * NS_PER_S) // NS_PER_MS - offset_ms, "side": side, "price": price, "amount": amount}


def test_missing_signals_come_from_snapshots_and_trades() -> None:
    books = [book(100.0, 101.0, 3.0, 1.0), book(100.0, 101.0, 6.0, 1.0), None]
    prints = [[trade(1, 1_000 * (9 - k), "buy" if k % 3 else "sell", 100.5 + 0.1 * k, 1.0 + k) for k in range(9)] for _ in range(1)]
    frame = bars([100.0, 100.0, 100.0]).assign(orderbook_snapshot=books, trades=[[], prints[0], None])
    maker = ScriptedMaker([(None, None)])
    run(frame, maker)
    signals = MarketMicrostructure2026()
    seen = maker.seen
    assert seen[0]["microprice"] == signals.calculate_microprice(books[0])
    assert seen[0]["order_flow_imbalance"] is None
    assert seen[1]["order_flow_imbalance"] == signals.calculate_order_flow_imbalance(books[:2])
    assert seen[1]["order_flow_imbalance"] > 0.0
    assert seen[0]["kyle_lambda"] is None
    assert seen[1]["kyle_lambda"] == signals.calculate_kyle_lambda(prints[0], 1.0)
    assert seen[1]["short_volatility"] == signals.calculate_short_horizon_volatility(prints[0], 1.0)
    assert all(seen[2][name] is None for name in ("microprice", "order_flow_imbalance", "kyle_lambda", "short_volatility"))


def test_columns_that_are_given_are_used_as_they_are() -> None:
    frame = bars([100.0, 100.0], microprice=[100.6, math.nan], ofi=[0.25, 0.5], kyle_lambda=[0.01, math.nan], short_vol=[0.7, 0.8])
    maker = ScriptedMaker([(None, None)])
    run(frame.assign(orderbook_snapshot=[book(100.0, 101.0, 3.0, 1.0)] * 2), maker)
    assert maker.seen[0] == {
        "mid_price": 100.5,
        "volatility": 0.5,
        "inventory": 0.0,
        "microprice": 100.6,
        "order_flow_imbalance": 0.25,
        "kyle_lambda": 0.01,
        "short_volatility": 0.7,
    }
    assert maker.seen[1]["microprice"] is None
    assert maker.seen[1]["kyle_lambda"] is None


# -- bad input -------------------------------------------------------------------------------------------------------------------------


def changed(column: str, value: Any, row: int = 1) -> pd.DataFrame:
    frame = random_bars(4, 0)
    frame[column] = frame[column].astype(object) if isinstance(value, str) else frame[column]
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (bars([100.0]).drop(columns=["bid", "volume"]), "lacks the columns bid, volume; required: timestamp"),
        (pd.concat([bars([100.0]), bars([100.0])[["bid"]]], axis=1), "column 'bid' more than once"),
        (bars([100.0])[:0], "no rows"),
        (bars([100.0]).assign(timestamp=lambda f: f["timestamp"].dt.tz_localize(None)), "no time zone: say which"),
        (bars([100.0]).assign(timestamp="2024-07-01"), "expected tz-aware datetimes"),
        (bars([100.0]).assign(timestamp=START_NS // NS_PER_MS), "expected nanoseconds since 1970 .* multiply milliseconds"),
        (changed("timestamp", pd.NaT), "timestamp is missing at row 1"),
        (random_bars(4, 0).iloc[[0, 2, 1, 3]], "timestamp goes back at row 2"),
        (random_bars(4, 0).iloc[[0, 1, 1, 3]], "timestamp repeats at row 2"),
        (changed("bid", math.nan), "bid is nan at row 1 .*expected a positive price in every row"),
        (changed("ask", math.inf), "ask is inf at row 1"),
        (changed("bid", -1.0), "bid is -1.0 at row 1"),
        (changed("ask", 0.0), "ask is 0.0 at row 1"),
        (changed("bid", "n/a"), "bid is not a column of numbers"),
        (bars([100.0, 100.0], [101.0, 100.0]), r"row 1 is crossed: bid 100.0 >= ask 100.0 \(1 such rows\)"),
        (changed("volume", -0.5), "volume is -0.5 at row 1"),
        (changed("volume", math.nan), "volume is nan at row 1"),
        (changed("volatility", -0.5), "volatility is -0.5 at row 1"),
        (changed("microprice", 0.0), "microprice is 0.0 at row 1"),
        (changed("microprice", 1.0), "row 1: microprice 1.0 is more than 10% from mid_price"),
        (changed("ofi", 1.5), "ofi is 1.5 at row 1"),
        (changed("short_vol", -1.0), "short_vol is -1.0 at row 1"),
        (changed("kyle_lambda", math.inf), "kyle_lambda is inf at row 1"),
        (changed("funding_rate", 1.0), "funding_rate is 1.0 at row 1 .*fraction of notional"),
        (changed("mark_price", -3.0), "mark_price is -3.0 at row 1"),
        (changed("trade_low", 1e9), "row 1 has trade_low 1000000000.0 above trade_high"),
        (bars([100.0]).assign(orderbook_snapshot=[[1, 2]]), "orderbook_snapshot at row 0 is a list: expected ccxt's dict"),
        (bars([100.0]).assign(orderbook_snapshot=[{"bids": [], "asks": [[101.0, 1.0]]}]), "orderbook_snapshot at row 0: order book has no bids"),
        (bars([100.0]).assign(orderbook_snapshot=[book(101.0, 100.0, 1.0, 1.0)]), "orderbook_snapshot at row 0: order book is crossed"),
        (
            bars([100.0]).assign(orderbook_snapshot=[book(100.0, 101.0, 1.0, 1.0, timestamp=START_NS // NS_PER_MS + 1)]),
            "orderbook_snapshot at row 0 is stamped .* after its row .* stamp rows at the end of their bar",
        ),
        (bars([100.0]).assign(trades=[[trade(0, -1, "buy", 100.0, 1.0)]]), "a trade at row 0 is stamped .* would see the future"),
        (bars([100.0]).assign(trades=[[{"price": 1.0}]]), "trades at row 0: trade 0 cannot be read"),
        (bars([100.0]).assign(trades=["none"]), "trades at row 0 is a str"),
    ],
)
def test_bad_frames_are_refused_by_name_and_row(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(frame, AvellanedaStoikovMarketMaker(), DeltaHedger())


def test_things_that_are_no_market_or_strategy_are_refused() -> None:
    with pytest.raises(DataError, match="market_data is a list"):
        FREE.run_backtest([1, 2], AvellanedaStoikovMarketMaker())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="market_maker is a object: expected update_market_data"):
        FREE.run_backtest(bars([100.0]), object())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="hedger is a object: expected update_inventory"):
        FREE.run_backtest(bars([100.0]), AvellanedaStoikovMarketMaker(), object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_capital": 0.0}, "initial_capital is 0.0"),
        ({"maker_fee": math.nan}, "maker_fee is nan"),
        ({"taker_fee": 0.6}, "taker_fee is 0.6"),
        ({"fill_frac": 0.0}, "fill_frac is 0.0"),
        ({"order_size": -1.0}, "order_size is -1.0"),
    ],
)
def test_arguments_outside_their_domain_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MarketMakingBacktest(**arguments)


# -- tapes -----------------------------------------------------------------------------------------------------------------------------

SETTINGS = ReplaySettings(sample_every=1)
ON_TAPE = MarketMakingBacktest(100_000.0, 0.0001, 0.0004, replay_settings=SETTINGS)


def tape_maker(**changes: Any) -> AvellanedaStoikovMarketMaker:
    return AvellanedaStoikovMarketMaker(**{"max_inventory": 0.1, "k_rel": 2e6, "inventory_unit": 0.01, "sigma": 0.2, "min_spread": 0.0} | changes)


def test_a_tape_runs_through_the_replay_that_sweeps_use() -> None:
    tape = random_tape(10_000, 3)
    maker, hedger = tape_maker(), DeltaHedger(0.005, min_hedge_size=0.001, max_hedge_latency=5.0)
    out = ON_TAPE.run_backtest(tape, maker, hedger, apply_funding=False)
    first_mid = int(mid_path(tape).half_ticks[0]) / 2
    params = DecisionParams(
        maker.quote_params(),
        hedger.hedge_params(),
        size_limits(10, 110),
        order_policy(10, round(0.001 * first_mid)),
        money_of(SPEC, maker_fee=0.0001, taker_fee=0.0004),
    )
    features = compute_features(tape, NS_PER_S)
    direct = replay(tape, features, [ScheduledParameters(int(features.grid_ts[0]), params)], SETTINGS)
    assert out["fills"]["ts_ns"].tobytes() == direct.fills.exch_ts.tobytes()
    assert out["maker_fills"] == direct.maker_fills > 50
    assert out["taker_fills"] == direct.taker_fills > 0
    assert out["total_pnl"] == direct.attribution.total_pnl
    assert out["total_pnl"] == math.fsum(out["pnl_attribution"].values())
    assert out["equity_curve"][-1] == pytest.approx(100_000.0 + out["total_pnl"], abs=1e-6)
    assert out.keys() >= GUIDE_KEYS | BEYOND
    assert out["pnl_attribution"].keys() == PARTS
    assert out["fill_model"] == "conservative"


def test_results_of_bars_and_tapes_have_the_same_keys() -> None:
    tape = ON_TAPE.run_backtest(random_tape(3_000, 4), tape_maker(), apply_funding=False)
    on_bars = run(random_bars(50, 1), AvellanedaStoikovMarketMaker())
    model_of_tapes = {"queue_model", "entry_latency_ns", "response_latency_ns"}
    assert tape.keys() - model_of_tapes == on_bars.keys() - {"fill_frac"}
    assert tape["fills"].keys() == on_bars["fills"].keys()
    assert all(tape["fills"][name].dtype == on_bars["fills"][name].dtype for name in tape["fills"])


def funding_tape() -> Any:
    build = TapeBuilder().book(1000, 1002)
    for s in range(1, 20):
        build.at(s).level(1, 996, 14 + s % 2)
    return build.at(20).trade(-1, 999, 60).at(21).level(1, 996, 14).at(25).funding(0.001, 100.1).at(26).level(1, 996, 15).tape()


def test_settlements_on_the_tape_are_paid_unless_told_not_to() -> None:
    tape, maker = funding_tape(), tape_maker(k_rel=30_000.0, sigma=0.1)
    paid = ON_TAPE.run_backtest(tape, maker, apply_funding=True)
    free = ON_TAPE.run_backtest(tape, maker, apply_funding=False)
    assert paid["total_funding_paid"] == pytest.approx(paid["final_inventory"] * 100.1 * 0.001)
    assert paid["total_funding_paid"] > 0.0
    assert free["total_funding_paid"] == 0.0
    assert free["total_pnl"] == pytest.approx(paid["total_pnl"] + paid["total_funding_paid"])


def test_a_perp_tape_without_settlements_is_warned_about_and_spot_is_not() -> None:
    tape = random_tape(2_000, 5)
    with pytest.warns(BacktestWarning, match=r"the tape has no settlement .* funding is 0"):
        ON_TAPE.run_backtest(tape, tape_maker())
    spot = msgspec.structs.replace(SPEC, instrument="sim:BTC-USDT", contract="spot", funding_interval_s=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ON_TAPE.run_backtest(random_tape(2_000, 5, spec=spot), tape_maker())


def test_tapes_refuse_what_compiled_code_cannot_run() -> None:
    tape = random_tape(500, 6)
    with pytest.raises(DataError, match="run other strategies on bars"):
        ON_TAPE.run_backtest(tape, ScriptedMaker([(None, None)]))
    with pytest.raises(DataError, match="not AvellanedaStoikovMarketMaker and ScriptedHedger"):
        ON_TAPE.run_backtest(tape, tape_maker(), ScriptedHedger([None]))
    with pytest.raises(ConfigError, match="no volatility known"):
        ON_TAPE.run_backtest(tape, tape_maker(sigma=None))
    with pytest.raises(ConfigError, match=r"step_s is 0\.0"):
        ON_TAPE.run_backtest(tape, tape_maker(), step_s=0.0)
    with pytest.raises(DataError, match="below one lot"):
        MarketMakingBacktest(order_size=1e-6).run_backtest(tape, tape_maker())
    with pytest.raises(DataError, match="has no rows"):
        ON_TAPE.run_backtest(TapeBuilder().tape(), tape_maker())
    with pytest.raises(DataError, match="never shows both sides"):
        ON_TAPE.run_backtest(TapeBuilder().level(1, 1000, 5).at(5).level(1, 999, 5).tape(), tape_maker())
    inverse = msgspec.structs.replace(SPEC, contract="inverse")
    with pytest.raises(DataError, match="is an inverse contract"):
        ON_TAPE.run_backtest(random_tape(500, 6, spec=inverse), tape_maker())


def test_a_bare_backtest_never_hedges() -> None:
    assert math.isinf(NEVER_HEDGE.threshold)
    assert ON_TAPE.run_backtest(random_tape(5_000, 7), tape_maker(), apply_funding=False)["taker_fills"] == 0
