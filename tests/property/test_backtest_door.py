"""Properties of the backtest on bars that hold for every market: the future is not seen, fills are possible, money adds up."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
from bar_market import random_bars
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.avellaneda_stoikov import AvellanedaStoikovMarketMaker
from mm_platform.delta_hedger import DeltaHedger
from mm_platform.market_making_backtest import BacktestWarning, MarketMakingBacktest

ROWS = 160


def backtest(frame: pd.DataFrame, threshold: float, fill_frac: float = 0.3) -> dict[str, Any]:
    maker = AvellanedaStoikovMarketMaker(
        k_rel=20_000.0, max_inventory=3.0, coef_ofi=1e-5, coef_kyle=0.1, coef_short_volatility=0.3, horizon="relaxation", order_size=0.7
    )
    hedger = DeltaHedger(threshold, hedge_ratio=0.8, max_hedge_latency=3.0)
    with warnings.catch_warnings():
        # rates stand closer than a venue's here
        warnings.simplefilter("ignore", BacktestWarning)
        return MarketMakingBacktest(maker_fee=-0.00005, taker_fee=0.0004, fill_frac=fill_frac).run_backtest(frame, maker, hedger)


def perturbed_after(frame: pd.DataFrame, row: int, seed: int) -> pd.DataFrame:
    """The same rows up to `row`, another market after it."""
    other = random_bars(len(frame), seed + 1_000_000, price=float(frame["bid"].iloc[row]))
    other["timestamp"] = frame["timestamp"]
    return pd.concat([frame.iloc[: row + 1], other.iloc[row + 1 :]], ignore_index=True)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), row=st.integers(5, ROWS - 2), threshold=st.sampled_from([0.5, 1.5, math.inf]))
def test_rows_after_a_decision_change_nothing_before_it(seed: int, row: int, threshold: float) -> None:
    frame = random_bars(ROWS, seed)
    one, two = backtest(frame, threshold), backtest(perturbed_after(frame, row, seed), threshold)
    for curve in ("equity_curve", "inventory_curve"):
        assert one[curve][: row + 1].tobytes() == two[curve][: row + 1].tobytes()
    last = one["timestamps"][row]
    for name in one["fills"]:
        first, second = (out["fills"][name][out["fills"]["ts_ns"] <= last] for out in (one, two))
        assert first.tobytes() == second.tobytes(), name
    # the markets do part: the test would notice a run that sees nothing at all
    assert one["equity_curve"][row + 1 :].tobytes() != two["equity_curve"][row + 1 :].tobytes()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.5, 1.5, math.inf]), fill_frac=st.floats(0.01, 1.0))
def test_fills_were_possible_and_money_adds_up(seed: int, threshold: float, fill_frac: float) -> None:
    frame = random_bars(ROWS, seed)
    out = backtest(frame, threshold, fill_frac)
    fills = out["fills"]
    row = np.searchsorted(out["timestamps"], fills["ts_ns"])
    side, price, maker = fills["side"], fills["price"], fills["maker"]
    low = np.fmin(frame["ask"], frame["trade_low"]).to_numpy()[row]
    high = np.fmax(frame["bid"], frame["trade_high"]).to_numpy()[row]
    assert (row >= 1).all()
    assert (low < price)[maker & (side > 0)].all()
    assert (high > price)[maker & (side < 0)].all()
    crossed = np.where(side > 0, frame["ask"].to_numpy()[row], frame["bid"].to_numpy()[row])
    assert (price == crossed)[~maker].all()
    filled = np.bincount(row[maker], weights=fills["qty"][maker], minlength=ROWS)
    assert (filled <= fill_frac * frame["volume"].to_numpy() * (1 + 1e-12)).all()
    assert (fills["qty"] > 0).all()

    parts = out["pnl_attribution"]
    assert math.fsum(parts.values()) == out["total_pnl"]
    assert out["equity_curve"][-1] == 100_000.0 + out["total_pnl"]
    held = np.bincount(row, weights=side * fills["qty"], minlength=ROWS).cumsum()
    assert np.allclose(out["inventory_curve"], held, atol=1e-12)
    # cash and position, counted without the ledger's parts
    paid = np.bincount(row, weights=side * fills["qty"] * price + fills["fee"], minlength=ROWS).cumsum()
    rate = frame["funding_rate"].fillna(0.0).to_numpy()
    funding = np.cumsum(held * frame["mark_price"].to_numpy() * rate)
    mid = 0.5 * (frame["bid"] + frame["ask"]).to_numpy()
    assert np.allclose(out["equity_curve"] - 100_000.0, held * mid - paid - funding, atol=1e-6)
    assert out["maker_fills"] == maker.sum()
    assert out["taker_fills"] == (~maker).sum()


def test_the_examples_fill_and_hedge() -> None:
    """The properties above speak of something."""
    out = backtest(random_bars(ROWS, 0), 0.5)
    assert out["maker_fills"] > 20
    assert out["taker_fills"] > 3


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_run_again_is_the_same_run(seed: int) -> None:
    """The objects keep state between runs; a second run starts like the first."""
    frame = random_bars(ROWS, seed)
    maker, hedger = AvellanedaStoikovMarketMaker(k_rel=20_000.0, horizon="fixed", order_size=0.7), DeltaHedger(0.5, max_hedge_latency=3.0)
    door = MarketMakingBacktest(fill_frac=0.5)
    one, two = (door.run_backtest(frame, maker, hedger, apply_funding=False) for _ in range(2))
    assert one["equity_curve"].tobytes() == two["equity_curve"].tobytes()
    assert one["maker_fills"] > 0
