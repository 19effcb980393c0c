"""Which parameter sets a runner takes."""

from __future__ import annotations

import msgspec
import pytest
from builders import SPEC
from parameter_sets import parameter_set

from mm_platform.core.units import NS_PER_S
from mm_platform.engine.settings import EngineLimits
from mm_platform.live.limits import RunnerLimits, refusal

NOW = 1_700_000_000 * NS_PER_S
DAY_S = 86_400
LIMITS = RunnerLimits(
    engine=EngineLimits(max_order_notional=2_000.0, max_position_notional=5_000.0),
    parameter_bounds={"sigma": (0.1, 1.0)},
    max_parameter_age_s=2.0 * DAY_S,
)
GOOD: dict[str, object] = {"min_spread": 0.0002, "fitted_through_ns": NOW - DAY_S * NS_PER_S}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, ""),
        ({"sigma": 1.0}, ""),
        ({"sigma": 1.01}, "sigma is 1.01"),
        ({"order_notional": 2_050.0}, "order_size is 2050"),
        ({"max_inventory_notional": 5_050.0}, "max_inventory is 5050"),
        ({"fitted_through_ns": NOW - 2 * DAY_S * NS_PER_S}, ""),
        ({"fitted_through_ns": NOW - (2 * DAY_S + 1) * NS_PER_S}, "172801 s ago"),
        ({"fitted_through_ns": NOW + 1}, "lies after now"),
        ({"valid_from_ns": NOW + 1}, "valid from"),
        ({"min_spread": 0.000199}, "cannot pay for itself"),
    ],
)
def test_refusals(changes: dict[str, object], what: str) -> None:
    reason = refusal(parameter_set(SPEC, 50_000.0, **(GOOD | changes)), SPEC, LIMITS, NOW)  # type: ignore[arg-type]
    assert (what in reason) if what else reason == ""


def test_another_instrument() -> None:
    other = msgspec.structs.replace(SPEC, instrument="sim:ETH-USDT-PERP")
    assert "this runner trades sim:BTC-USDT-PERP" in refusal(parameter_set(other, 50_000.0, **GOOD), SPEC, LIMITS, NOW)  # type: ignore[arg-type]


def test_recorded_markets_may_run_on_what_the_fit_has_seen() -> None:
    later = parameter_set(SPEC, 50_000.0, **(GOOD | {"fitted_through_ns": NOW + 1, "valid_from_ns": NOW + 1}))  # type: ignore[arg-type]
    assert refusal(later, SPEC, msgspec.structs.replace(LIMITS, allow_seen=True), NOW) == ""
