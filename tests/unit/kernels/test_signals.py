"""Signals: the literature's vectors, the incremental state against direct sums, and its two twins."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from mm_platform.kernels.signals import (
    FLOW_NET,
    SignalParams,
    SignalState,
    ewma_step,
    kyle_regression,
    new_signal_state,
    ofi_path,
    queue_imbalance,
    realised_variance,
    short_volatility_path,
    signal_on_top,
    signal_on_trade,
    signal_read,
    squash_flow,
    weighted_mid,
)

S = 1_000_000_000
T0 = 1_700_000_000 * S
# Cont, Kukanov & Stoikov: (bid, bid size, ask, ask size)
CKS_BOOK = [(100, 10, 101, 12), (100, 15, 101, 12), (100, 15, 101, 7), (101, 4, 102, 9), (101, 6, 102, 9), (100, 8, 101, 5), (100, 8, 101, 5)]
CKS_E = [5, 5, 11, 2, -11, 0]
VOL_PRICES = [100, 100.02, 99.99, 100.03, 100.05, 100.01, 100.04, 100.02, 100.08, 100.05, 100.07]
LOOSE = SignalParams(vol_min_samples=1, kyle_min_buckets=3)


def test_microprice_and_queue_imbalance() -> None:
    assert weighted_mid(99.99, 30.0, 100.01, 10.0) == pytest.approx(100.005)
    assert queue_imbalance(30.0, 10.0) == 0.5


def test_ofi_vector() -> None:
    touch = np.array(CKS_BOOK, dtype=float).T
    out = np.empty(6)
    total = ofi_path(touch[0].copy(), touch[1].copy(), touch[2].copy(), touch[3].copy(), out)
    assert out.tolist() == CKS_E
    depth = np.mean([(b + a) / 2 for _, b, _, a in CKS_BOOK])
    assert total == pytest.approx(12 / (34 + depth))
    assert squash_flow(0.0, 0.0, 0.0) == 0.0


def test_kyle_vector() -> None:
    fit = kyle_regression(np.array([0.02, -0.01, 0.03, 0, -0.02, 0.01]), np.array([2, -1, 3, 0.5, -1.5, 0.5]))
    assert fit.intercept == pytest.approx(-0.001246459, abs=5e-10)
    assert fit.slope == pytest.approx(0.010708215, abs=5e-10)
    assert fit.stderr == pytest.approx(0.001038544, abs=5e-10)
    assert fit.t_stat == pytest.approx(10.31080, abs=5e-6)
    assert fit.n == 6


def test_kyle_says_nothing_without_variation() -> None:
    assert math.isnan(kyle_regression(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])).slope)
    assert math.isnan(kyle_regression(np.array([1.0, 2.0]), np.array([1.0, 2.0])).slope)


def test_realised_variance_vector() -> None:
    assert realised_variance(np.array(VOL_PRICES)) == pytest.approx(1.1092295588665087e-06, rel=1e-9)


def test_ewma_half_life_of_the_riskmetrics_decay() -> None:
    # lambda 0.94 forgets half in 11.20 steps
    tau = -1.0 / math.log(0.94)
    _, weight = ewma_step(0.0, 0.0, 0.0, 11.2023, tau)
    assert weight == pytest.approx(0.5, abs=1e-5)


def test_short_volatility_of_a_constant_variance() -> None:
    # +-1 bp every second is sqrt(1e-8 x 31536000) a year whatever the weights
    price = np.where(np.arange(101) % 2 == 0, 100.0, 100.01)
    ts = T0 + np.arange(101) * S
    got = short_volatility_path(ts, price, S, 20.0)
    assert got == pytest.approx(math.log(1.0001) * math.sqrt(31_536_000), rel=1e-12)
    assert math.isnan(short_volatility_path(ts[:1], price[:1], S, 20.0))
    assert short_volatility_path.compiled(ts, price, S, 20.0) == got


def test_flow_decays_with_its_half_life_and_is_normalised() -> None:
    p = LOOSE._replace(ofi_half_life_s=2.0)
    state = new_signal_state()
    for k, (bid, bid_lots, ask, ask_lots) in enumerate(CKS_BOOK):
        signal_on_top(state, p, T0 + k * S, bid, bid_lots, ask, ask_lots)
    now = 7.0  # seconds after the first touch
    weights = [0.5 ** ((now - (k + 1)) / 2.0) for k in range(6)]
    net = sum(e * w for e, w in zip(CKS_E, weights, strict=True))
    gross = sum(abs(e) * w for e, w in zip(CKS_E, weights, strict=True))
    # depth: each touch weighs the decayed time that it stood
    ends = [1, 2, 3, 4, 5, 6, 7]
    mass = [0.5 ** ((now - end) / 2) - 0.5 ** ((now - end + 1) / 2) for end in ends]
    depth = sum(m * (b + a) / 2 for m, (_, b, _, a) in zip(mass, CKS_BOOK, strict=True)) / sum(mass)
    assert signal_read(state, p, T0 + 7 * S).order_flow_imbalance == pytest.approx(net / (gross + depth), rel=1e-12)


def test_one_small_order_does_not_reach_the_end_of_the_scale() -> None:
    state = new_signal_state()
    signal_on_top(state, LOOSE, T0, 100, 1000, 101, 1000)
    signal_on_top(state, LOOSE, T0 + S, 100, 1010, 101, 1000)
    assert 0.0 < signal_read(state, LOOSE, T0 + S).order_flow_imbalance < 0.011


def test_volatility_samples_the_mid_at_fixed_times() -> None:
    state = new_signal_state()
    mids = [1000, 1001, 999, 1003]
    for k, half in enumerate(mids):
        # two moves within a second: only the one that stands at its end counts
        signal_on_top(state, LOOSE, T0 + k * S + 300_000_000, half * 10 - 1, 5, half * 10 + 1, 5)
        signal_on_top(state, LOOSE, T0 + k * S + 600_000_000, half - 1, 5, half + 1, 5)
    decay = math.exp(-1.0 / LOOSE.vol_tau_s)
    variance = weight = 0.0
    for before, after in pairwise(mids):
        variance = decay * variance + (1 - decay) * math.log(after / before) ** 2
        weight = decay * weight + (1 - decay)
    assert signal_read(state, LOOSE, T0 + 4 * S).short_volatility == pytest.approx(math.sqrt(variance / weight * 31_536_000), rel=1e-12)


def test_kyle_bucket_regression_recovers_the_slope_in_quote_per_base() -> None:
    p = LOOSE._replace(tick_size=0.1, lot_base=0.001, kyle_tau_s=1e9)
    state = new_signal_state()
    mid = 10_000
    signal_on_top(state, p, T0 - S, mid - 1, 5, mid + 1, 5)
    rng = np.random.default_rng(1)
    x, y = [], []
    for k in range(200):
        lots = int(rng.integers(1, 50))
        side = 1 if rng.random() < 0.5 else -1
        move = side * (lots // 10)
        signal_on_trade(state, p, T0 + k * S, side, mid, lots)
        mid += move
        signal_on_top(state, p, T0 + k * S + S // 2, mid - 1, 5, mid + 1, 5)
        x.append(side * lots * 0.001)
        y.append(move * 0.1)
    want = np.polyfit(x, y, 1)[0]
    assert signal_read(state, p, T0 + 201 * S).kyle_lambda == pytest.approx(want, rel=1e-6)


def test_too_little_is_nan_and_no_touch_is_invalid() -> None:
    p = SignalParams()
    state = new_signal_state()
    assert signal_read(state, p, T0).valid == 0
    signal_on_top(state, p, T0, 100, 3, 102, 1)
    s = signal_read(state, p, T0 + S)
    assert (s.valid, s.mid_half_ticks, s.queue_imbalance, s.microprice_ticks) == (1, 202, 0.5, 101.5)
    assert s.spread_bps == pytest.approx(2 / 101 * 1e4)
    assert math.isnan(s.short_volatility)
    assert math.isnan(s.kyle_lambda)
    signal_on_top(state, p, T0 + 2 * S, 103, 3, 102, 1)
    crossed = signal_read(state, p, T0 + 2 * S)
    assert crossed.valid == 0
    assert math.isnan(crossed.microprice_ticks)
    signal_on_top(state, p, T0 + 3 * S, 0, 0, 102, 1)
    assert signal_read(state, p, T0 + 3 * S).valid == 0


def test_a_lost_touch_ends_the_chain_of_flow() -> None:
    state = new_signal_state()
    signal_on_top(state, LOOSE, T0, 100, 10, 101, 10)
    signal_on_top(state, LOOSE, T0 + S, 0, 0, 0, 0)
    signal_on_top(state, LOOSE, T0 + 2 * S, 105, 500, 106, 1)
    assert state.f[FLOW_NET] == 0.0


def random_events(seed: int, n: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    out, ts, bid = [], T0, 1000
    for _ in range(n):
        ts += int(rng.exponential(0.3) * S)
        if rng.random() < 0.4:
            out.append((1, ts, int(rng.choice([-1, 1])), bid, int(rng.integers(1, 90))))
        else:
            bid += int(rng.choice([-1, 0, 0, 1]))
            width = 0 if rng.random() < 0.02 else int(rng.integers(1, 3))
            out.append((0, ts, bid, int(rng.integers(1, 99)), bid + width, int(rng.integers(1, 99))))
    return out


def feed(state: SignalState, p: SignalParams, event: tuple[int, ...], *, compiled: bool) -> None:
    if event[0] == 1:
        (signal_on_trade.compiled if compiled else signal_on_trade)(state, p, *event[1:])
    else:
        (signal_on_top.compiled if compiled else signal_on_top)(state, p, *event[1:])


def test_twins_agree_bit_for_bit() -> None:
    p = LOOSE._replace(tick_size=0.1, lot_base=0.01)
    plain, fast = new_signal_state(), new_signal_state()
    for event in random_events(4, 2000):
        feed(plain, p, event, compiled=False)
        feed(fast, p, event, compiled=True)
        np.testing.assert_array_equal(np.array(signal_read(plain, p, event[1])), np.array(signal_read.compiled(fast, p, event[1])))
    np.testing.assert_array_equal(plain.f, fast.f)
    np.testing.assert_array_equal(plain.i, fast.i)


def test_reading_changes_no_later_number() -> None:
    quiet, curious = new_signal_state(), new_signal_state()
    for event in random_events(9, 1500):
        feed(quiet, LOOSE, event, compiled=True)
        feed(curious, LOOSE, event, compiled=True)
        signal_read.compiled(curious, LOOSE, event[1])
    last = event[1] + 100 * S
    for step in range(1, 90):
        signal_read.compiled(curious, LOOSE, event[1] + step * S)
    np.testing.assert_array_equal(np.array(signal_read.compiled(quiet, LOOSE, last)), np.array(signal_read.compiled(curious, LOOSE, last)))
