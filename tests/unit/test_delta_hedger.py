"""The hedging door: the guide's example, waiting and forcing, checks."""

from __future__ import annotations

import math
import warnings

import pytest

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.delta_hedger import DeltaHedger, HedgeWarning
from mm_platform.kernels.hedging import HedgeParams

S = 1_000_000_000
T0 = 1_700_000_000 * S


def guide_hedger(**kwargs: object) -> DeltaHedger:
    return DeltaHedger(hedge_threshold=5.0, target_delta=0.0, hedge_ratio=0.8, min_hedge_size=0.1, max_hedge_latency=60.0, **kwargs)  # type: ignore[arg-type]


def test_guide_example() -> None:
    hedger = guide_hedger()
    hedger.update_inventory(8.0)
    assert hedger.should_hedge()
    rec = hedger.get_hedge_recommendation(current_price=50000.0, microprice=49999.5)
    assert rec is not None
    assert {"side", "hedge_size", "urgency", "strategy", "limit_price"} <= rec.keys()
    assert (rec["side"], rec["hedge_size"], rec["urgency"]) == ("sell", pytest.approx(6.4), "opportunistic")
    # selling above the microprice: cross now, at worst 0.1 % lower
    assert (rec["strategy"], rec["limit_price"]) == ("aggressive", pytest.approx(49_950.0))


def test_waits_passively_and_is_forced_after_the_latency() -> None:
    hedger = guide_hedger()
    hedger.update_inventory(-8.0, now_ns=T0)
    waiting = hedger.get_hedge_recommendation(50_000.0, 49_999.5, now_ns=T0 + 59 * S)
    assert waiting is not None
    assert (waiting["side"], waiting["urgency"], waiting["strategy"], waiting["limit_price"]) == ("buy", "opportunistic", "passive", 49_999.5)
    assert waiting["breach_age_s"] == 59.0
    forced = hedger.get_hedge_recommendation(50_000.0, 49_999.5, now_ns=T0 + 60 * S)
    assert forced is not None
    assert (forced["urgency"], forced["strategy"], forced["limit_price"]) == ("forced", "aggressive", pytest.approx(50_050.0))


def test_without_a_microprice_it_rests_at_the_price() -> None:
    hedger = guide_hedger()
    hedger.update_inventory(8.0, now_ns=T0)
    rec = hedger.get_hedge_recommendation(50_000.0, now_ns=T0)
    assert rec is not None
    assert (rec["strategy"], rec["limit_price"]) == ("passive", 50_000.0)


def test_inside_the_band_there_is_nothing_to_do_and_the_clock_resets() -> None:
    hedger = guide_hedger()
    hedger.update_inventory(8.0, now_ns=T0)
    hedger.update_inventory(5.0, now_ns=T0 + 30 * S)
    assert not hedger.should_hedge(now_ns=T0 + 30 * S)
    assert hedger.get_hedge_recommendation(50_000.0, now_ns=T0 + 30 * S) is None
    hedger.update_inventory(8.0, now_ns=T0 + 40 * S)
    rec = hedger.get_hedge_recommendation(50_000.0, now_ns=T0 + 70 * S)
    assert rec is not None
    assert (rec["urgency"], rec["breach_age_s"]) == ("opportunistic", 30.0)


def test_an_earlier_clock_starts_the_breach_anew() -> None:
    hedger = guide_hedger()
    hedger.update_inventory(8.0, now_ns=T0)
    hedger.update_inventory(8.0, now_ns=T0 - 1000 * S)
    rec = hedger.get_hedge_recommendation(50_000.0, now_ns=T0 - 990 * S)
    assert rec is not None
    assert rec["breach_age_s"] == 10.0


def test_the_clock_is_the_one_passed_in() -> None:
    now = [T0]
    hedger = guide_hedger(clock=lambda: now[0])
    hedger.update_inventory(8.0)
    now[0] += 61 * S
    rec = hedger.get_hedge_recommendation(50_000.0, 50_001.0)
    assert rec is not None
    assert rec["urgency"] == "forced"


def test_to_boundary_target_and_venue() -> None:
    hedger = DeltaHedger(hedge_threshold=5.0, target_delta=2.0, hedge_ratio=1.0, to_boundary=True, hedge_venue="okx")
    hedger.update_inventory(8.0, now_ns=T0)
    rec = hedger.get_hedge_recommendation(100.0, 99.0, now_ns=T0)
    assert rec is not None
    assert (rec["hedge_size"], rec["target"], rec["venue"]) == (pytest.approx(1.0), 2.0, "okx")
    assert hedger.hedge_params() == HedgeParams(5.0, 2.0, 1.0, 0.1, 60.0, 1)


def test_small_hedges_are_left_alone_and_said_so() -> None:
    with pytest.warns(HedgeWarning, match=r"inventories up to 1\.25 stay unhedged"):
        hedger = DeltaHedger(hedge_threshold=0.5, hedge_ratio=0.8, min_hedge_size=1.0)
    hedger.update_inventory(1.2, now_ns=T0)
    assert not hedger.should_hedge(now_ns=T0)
    hedger.update_inventory(1.3, now_ns=T0)
    assert hedger.should_hedge(now_ns=T0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeltaHedger(hedge_threshold=math.inf)


def test_never_hedges_with_an_infinite_threshold() -> None:
    hedger = DeltaHedger(hedge_threshold=math.inf)
    hedger.update_inventory(1e12, now_ns=T0)
    assert not hedger.should_hedge(now_ns=T0)


@pytest.mark.parametrize(
    "bad",
    [
        {"hedge_threshold": -1.0},
        {"hedge_threshold": math.nan},
        {"target_delta": math.inf},
        {"hedge_ratio": 0.0},
        {"hedge_ratio": 1.1},
        {"min_hedge_size": -1.0},
        {"max_hedge_latency": math.nan},
        {"max_slippage": 1.0},
    ],
)
def test_refuses_parameters_outside_their_domain(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DeltaHedger(**bad)  # type: ignore[arg-type]


def test_refuses_bad_numbers() -> None:
    hedger = guide_hedger()
    with pytest.raises(DataError, match="inventory"):
        hedger.update_inventory(math.nan)
    with pytest.raises(DataError, match="current_price"):
        hedger.get_hedge_recommendation(0.0)
    with pytest.raises(DataError, match="microprice"):
        hedger.get_hedge_recommendation(1.0, -1.0)
