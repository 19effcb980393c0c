"""The hedging step: band, size, waiting, and its two twins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.kernels.hedging import FORCED, NONE, OPPORTUNISTIC, HedgeParams, hedge_size, hedge_step, limit_price

GUIDE = HedgeParams(threshold=5.0, target=0.0, ratio=0.8, min_size=0.1, max_latency_s=60.0)
S = 1_000_000_000
START = 1_700_000_000 * S


@pytest.mark.parametrize(
    ("p", "inventory", "size"),
    [
        (GUIDE, 6.0, -4.8),
        (GUIDE, -6.0, 4.8),
        (GUIDE, 5.0, 0.0),
        (GUIDE._replace(target=-3.0), 2.5, -4.4),
        (GUIDE._replace(to_boundary=1), 6.0, -0.8),
        (GUIDE._replace(to_boundary=1, ratio=1.0), 6.0, -1.0),
        (GUIDE._replace(min_size=5.0), 6.0, 0.0),
        (GUIDE._replace(threshold=math.inf), 1e9, 0.0),
        (GUIDE._replace(ratio=2.0), 6.0, -6.0),
    ],
)
def test_size(p: HedgeParams, inventory: float, size: float) -> None:
    assert hedge_size(p, inventory) == pytest.approx(size)


def test_waits_for_a_favourable_moment_then_is_forced() -> None:
    wait = hedge_step(GUIDE, 6.0, 0, START, 50_000.0, 50_000.5)
    assert wait == (0.0, OPPORTUNISTIC, START)
    good = hedge_step(GUIDE, 6.0, wait[2], START + S, 50_000.0, 49_999.5)
    assert good == (pytest.approx(-4.8), OPPORTUNISTIC, START)
    before = hedge_step(GUIDE, 6.0, wait[2], START + 60 * S - 1000, 50_000.0, 50_000.5)
    assert before[0] == 0.0
    late = hedge_step(GUIDE, 6.0, wait[2], START + 60 * S, 50_000.0, 50_000.5)
    assert late == (pytest.approx(-4.8), FORCED, START)


def test_buying_is_favourable_below_the_microprice() -> None:
    assert hedge_step(GUIDE, -6.0, 0, START, 50_000.0, 50_000.5)[0] == pytest.approx(4.8)
    assert hedge_step(GUIDE, -6.0, 0, START, 50_000.0, 49_999.5)[0] == 0.0


def test_an_unknown_microprice_is_no_reason_to_cross() -> None:
    assert hedge_step(GUIDE, 6.0, 0, START, 50_000.0, math.nan) == (0.0, OPPORTUNISTIC, START)
    assert hedge_step(GUIDE, 6.0, START, START + 61 * S, 50_000.0, math.nan)[1] == FORCED


def test_returning_into_the_band_resets_the_clock() -> None:
    assert hedge_step(GUIDE, 5.0, START, START + S, 50_000.0, 50_000.0) == (0.0, NONE, 0)
    assert hedge_step(GUIDE._replace(max_latency_s=0.0), 6.0, 0, START, 50_000.0, 50_000.5)[1] == FORCED


def test_a_hedge_too_small_to_send_keeps_its_clock() -> None:
    p = GUIDE._replace(to_boundary=1, min_size=1.0)
    size, urgency, since = hedge_step(p, 5.5, 0, START, 50_000.0, 49_000.0)
    assert (size, urgency, since) == (0.0, NONE, START)
    assert hedge_step(p, 7.0, since, START + 60 * S, 50_000.0, 51_000.0) == (pytest.approx(-1.6), FORCED, START)


def test_limit_price() -> None:
    assert limit_price(1.0, 100.0, 99.0, 1, 0.001) == pytest.approx(100.1)
    assert limit_price(-1.0, 100.0, 99.0, 1, 0.001) == pytest.approx(99.9)
    assert (limit_price(1.0, 100.0, 99.0, 0, 0.001), limit_price(1.0, 100.0, 101.0, 0, 0.001)) == (99.0, 100.0)
    assert (limit_price(-1.0, 100.0, 101.0, 0, 0.001), limit_price(-1.0, 100.0, math.nan, 0, 0.001)) == (101.0, 100.0)


def test_twins_agree_and_never_flip_the_position() -> None:
    rng = np.random.default_rng(3)
    traded = 0
    for _ in range(1000):
        u = rng.random(8)
        p = HedgeParams(float(5 * u[0]), float(u[1] - 0.5), float(u[2] * 1.5), float(u[3]), float(60 * u[4]), int(u[4] > 0.5))
        inventory = float(20 * (u[5] - 0.5))
        args = (p, inventory, START if u[6] > 0.5 else 0, START + int(100 * S * u[7]), 100.0, float(99 + 2 * u[0]))
        plain = hedge_step(*args)
        assert plain == hedge_step.compiled(*args)
        after = inventory + plain[0] - p.target
        assert after * (inventory - p.target) >= -1e-12
        assert abs(after) <= abs(inventory - p.target)
        traded += plain[0] != 0.0
    assert traded > 100
