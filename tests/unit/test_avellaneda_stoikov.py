"""The quoting door: the guide's example and its meaning, warnings, checks."""

from __future__ import annotations

import math
import warnings

import pytest

from mm_platform.avellaneda_stoikov import AvellanedaStoikovMarketMaker, QuoteWarning
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.delta_hedger import DeltaHedger
from mm_platform.kernels.quoting import Market, quote_step
from mm_platform.market_microstructure_2026 import MarketMicrostructure2026

S = 1_000_000_000
T0 = 1_700_000_000 * S


def maker(**kwargs: object) -> AvellanedaStoikovMarketMaker:
    return AvellanedaStoikovMarketMaker(**kwargs)  # type: ignore[arg-type]


def quotes(mm: AvellanedaStoikovMarketMaker, inventory: float = 0.0, **kwargs: object) -> tuple[float, float]:
    data: dict[str, object] = {"mid_price": 50_000.0, "volatility": 0.5, "now_ns": T0} | kwargs
    mm.update_market_data(inventory=inventory, **data)  # type: ignore[arg-type]
    return mm.compute_quotes()


@pytest.mark.parametrize("current_position", [0.0, 3.0, -3.0, 10.0, -10.0, 25.0])
def test_guide_example(current_position: float) -> None:
    with pytest.warns(QuoteWarning, match="terminal_time 1 years"):
        mm = AvellanedaStoikovMarketMaker(
            risk_aversion=0.1, terminal_time=1.0, target_inventory=0.0, max_inventory=10.0, min_spread=0.0001, max_spread=0.01
        )
    mm.update_market_data(
        mid_price=50000.0,
        volatility=0.5,
        inventory=current_position,
        microprice=49999.5,
        order_flow_imbalance=0.3,
        kyle_lambda=0.001,
        short_volatility=0.6,
    )
    bid, ask = mm.compute_quotes()
    assert bid < 50_000.0 < ask
    assert 0.0001 <= (ask - bid) / 49_999.5 <= 0.01 * (1 + 1e-12)
    assert bid * (1 + 1e-12) >= 49_999.5 * 0.99
    assert ask <= 49_999.5 * 1.01 * (1 + 1e-12)
    assert mm.should_quote_side("bid") == (current_position < 10.0)
    assert mm.should_quote_side("ask") == (current_position > -10.0)


def test_defaults_are_a_day_and_give_theorys_numbers() -> None:
    bid, ask = quotes(maker(max_inventory=100.0), 3.0)
    # 0.1 x 0.25/365 = 0.6849 bp skew per unit; 4.6849 bp spread
    assert (0.5 * (bid + ask) / 50_000.0 - 1.0) * 1e4 == pytest.approx(-2.054794521, abs=1e-8)
    assert (ask - bid) / 50_000.0 * 1e4 == pytest.approx(4.684891507, abs=1e-8)


def test_risk_aversion_means_what_the_guide_says() -> None:
    at_zero = [quotes(maker(risk_aversion=g)) for g in (0.01, 0.1, 1.0)]
    spreads = [ask - bid for bid, ask in at_zero]
    assert spreads[0] < spreads[1] < spreads[2]
    centres = [sum(quotes(maker(risk_aversion=g), 2.0)) / 2 for g in (0.01, 0.1, 1.0)]
    assert 50_000.0 > centres[0] > centres[1] > centres[2]


def test_inventory_moves_both_quotes_against_it() -> None:
    flat, long, short = quotes(maker()), quotes(maker(), 2.0), quotes(maker(), -2.0)
    assert long[0] < flat[0] < short[0]
    assert long[1] < flat[1] < short[1]


def test_fixed_horizon_runs_down_and_starts_again_with_an_earlier_clock() -> None:
    mm = maker(horizon="fixed", terminal_time=1.0 / 365.0)
    first = quotes(mm, 3.0)
    last = quotes(mm, 3.0, now_ns=T0 + 86_400 * S)
    assert sum(last) / 2 == pytest.approx(50_000.0)
    assert quotes(mm, 3.0, now_ns=T0 - S) == first


def test_relaxation_horizon_tames_a_year() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mm = maker(terminal_time=1.0, horizon="relaxation")
    quotes(mm, 1.0)
    assert mm.last_quote.tau_years * 31_536_000 == pytest.approx(585.6, abs=0.1)


def test_signals_act_only_with_coefficients() -> None:
    loud = {"order_flow_imbalance": 0.5, "kyle_lambda": 5.0, "short_volatility": 2.0}
    assert quotes(maker(), **loud) == quotes(maker())
    # nan is how a signal says that it does not know
    unknown = {"microprice": math.nan, "order_flow_imbalance": math.nan, "kyle_lambda": math.nan, "short_volatility": math.nan}
    assert quotes(maker(coef_ofi=1e-4, coef_kyle=1.0, coef_short_volatility=0.5), **unknown) == quotes(maker())
    assert quotes(maker(coef_ofi=1e-4), **loud)[0] > quotes(maker())[0]
    assert quotes(maker(coef_kyle=1.0), **loud)[0] < quotes(maker())[0]


def test_ticks_and_touch() -> None:
    mm = maker(tick_size="0.1", max_inventory=100.0)
    bid, ask = quotes(mm, 0.3)
    assert (bid, ask) == (49987.2, 50010.7)
    assert mm.clamps == ("rounded_bid", "rounded_ask")
    # far above target the ask stops one tick above the best bid
    bid, ask = quotes(mm, 60.0, best_bid=49_999.9, best_ask=50_000.1)
    assert ask == 50_000.0
    assert "post_only_ask" in mm.clamps


def test_without_a_touch_no_quote_crosses_the_mid() -> None:
    bid, ask = quotes(maker(max_inventory=100.0), 60.0)
    assert ask == 50_000.0
    assert bid < 50_000.0 * (1 - 0.003)


def test_warns_where_the_spread_cannot_pay_the_fees() -> None:
    with pytest.warns(QuoteWarning, match=r"min_spread 1\.00 bp is below two maker fees plus a margin \(5\.00 bp\)"):
        maker(maker_fee=0.0002)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maker(maker_fee=0.0002, min_spread=0.0005)
        maker()
        maker(risk_aversion=1.0)


def test_quote_params_are_what_compute_quotes_uses() -> None:
    mm = maker(sigma=0.7, inventory_unit=0.01, order_size=0.02, max_inventory=0.1)
    assert mm.quote_params().sigma == 0.7
    assert mm.quote_params().order_units == 2.0
    assert mm.quote_params(maker_fee=1e-4, order_units=3.0).order_units == 3.0
    bid, ask = quotes(mm, 0.03)
    assert mm.quote_params().sigma == 0.5
    q = quote_step(mm.quote_params(), Market(50_000.0, math.nan, math.nan, math.nan, math.nan, 0.0), 0.03)
    assert (bid, ask) == (pytest.approx(q.bid, rel=1e-12), pytest.approx(q.ask, rel=1e-12))
    with pytest.raises(ConfigError, match="no volatility known"):
        maker().quote_params()


@pytest.mark.parametrize(
    "bad",
    [
        {"risk_aversion": 0.0},
        {"risk_aversion": math.nan},
        {"terminal_time": -1.0},
        {"max_inventory": 0.0},
        {"min_spread": 0.02},
        {"max_spread": 1.5},
        {"min_spread": -0.1},
        {"k_rel": math.inf},
        {"horizon": "daily"},
        {"maker_fee": 2.0},
        {"coef_short_volatility": 1.5},
        {"tick_size": 0},
        {"target_inventory": math.nan},
        {"sigma": -0.5},
    ],
)
def test_refuses_parameters_outside_their_domain(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        maker(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"mid_price": 0.0},
        {"mid_price": math.nan},
        {"mid_price": -5.0},
        {"volatility": -0.1},
        {"volatility": math.inf},
        {"inventory": math.nan},
        {"microprice": 5_000.0},
        {"microprice": -1.0},
        {"order_flow_imbalance": 1.5},
        {"kyle_lambda": math.inf},
        {"short_volatility": -1.0},
        {"best_bid": 50_001.0, "best_ask": 50_000.0},
        {"best_bid": 50_001.0},
        {"best_bid": 49_999.0, "best_ask": 50_001.0},
    ],
)
def test_refuses_bad_market_data(bad: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(bad))):
        quotes(maker(), **bad)


def test_refuses_to_answer_before_market_data_and_other_sides() -> None:
    with pytest.raises(DataError, match="update_market_data"):
        maker().compute_quotes()
    with pytest.raises(DataError, match="update_market_data"):
        maker().should_quote_side("bid")
    with pytest.raises(ConfigError, match="'bid' or 'ask'"):
        maker().should_quote_side("buy")


def test_guide_quick_start_loop() -> None:
    """The guide's main loop on a small market: fills push the inventory, the three doors bring it back."""
    mm = AvellanedaStoikovMarketMaker(risk_aversion=0.1, max_inventory=10.0)
    hedger = DeltaHedger(hedge_threshold=5.0, hedge_ratio=0.8)
    ms = MarketMicrostructure2026()
    current_position, mid_price, placed, hedges = 0.0, 50_000.0, [], []
    for k in range(40):
        orderbook = {"bids": [[mid_price - 0.5, 3.0]], "asks": [[mid_price + 0.5, 1.0]]}
        # no trade yet at first: unknown signals must not stop the loop
        trades = [{"timestamp": 1_700_000_000_000 + 500 * j, "side": "sell", "price": mid_price - 0.5, "amount": 1.0} for j in range(k)]
        signals = ms.get_microstructure_signals(orderbook, trades)
        mm.update_market_data(
            mid_price=mid_price,
            volatility=0.5,
            inventory=current_position,
            microprice=signals["microprice"],
            order_flow_imbalance=signals["queue_imbalance"],
            kyle_lambda=signals["kyle_lambda"],
        )
        bid, ask = mm.compute_quotes()
        if mm.should_quote_side("bid"):
            placed.append(("buy", bid))
            current_position += 1.0
        if mm.should_quote_side("ask"):
            placed.append(("sell", ask))
        hedger.update_inventory(current_position)
        if hedger.should_hedge():
            rec = hedger.get_hedge_recommendation(mid_price)
            assert rec is not None
            hedges.append(rec)
            current_position += rec["hedge_size"] if rec["side"] == "buy" else -rec["hedge_size"]
    assert all(bid <= mid_price for side, bid in placed if side == "buy")
    assert all(ask >= mid_price for side, ask in placed if side == "sell")
    assert len(hedges) >= 5
    assert {rec["side"] for rec in hedges} == {"sell"}
    assert abs(current_position) <= 6.0
