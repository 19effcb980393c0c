"""Synthetic order flow and mids of known intensity and volatility for the tests of the estimators."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mm_platform.calibration.order_depth import DecisionGrid, MarketOrders, market_orders
from mm_platform.core.units import NS_PER_S, SECONDS_PER_YEAR

T0 = 1_700_000_000 * NS_PER_S
MID_HALF = 20_001  # mid 10,000.5 ticks: half spreads are half-odd ticks


def poisson_times(rate: float, seconds: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))


def hawkes_times(rate: float, branching: float, decay: float, seconds: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Self-exciting arrivals of mean `rate` as a cluster process; a run-in makes it stationary."""
    run_in = 20.0 / decay / (1.0 - branching)
    generation = rng.uniform(-run_in, seconds, rng.poisson(rate * (1.0 - branching) * (seconds + run_in)))
    everyone = [generation]
    while len(generation):
        children = rng.poisson(branching, len(generation))
        generation = np.repeat(generation, children) + rng.exponential(1.0 / decay, int(np.sum(children)))
        everyone.append(generation)
    times = np.concatenate(everyone)
    return np.sort(times[(times >= 0.0) & (times < seconds)])


def grid_of(seconds: int, rng: np.random.Generator, *, wide_frac: float = 0.0) -> DecisionGrid:
    """One decision a second, still mid; the spread is 1 tick, or 3 in `wide_frac` of the decisions (in stretches of 20 s)."""
    ts = T0 + np.arange(seconds + 2) * NS_PER_S
    wide = np.repeat(rng.random(seconds // 20 + 1) < wide_frac, 20)[: len(ts)]
    wide = np.concatenate((wide, np.zeros(len(ts) - len(wide), dtype=bool)))
    half = np.where(wide, 3, 1)  # half ticks
    return DecisionGrid(ts, (MID_HALF - half) // 2, (MID_HALF + half) // 2, np.ones(len(ts), dtype=bool))


def orders_of(times_s: npt.NDArray[np.float64], k_tick: float, grid: DecisionGrid, rng: np.random.Generator, side: int = 1) -> MarketOrders:
    """Orders with exponential depth from the mid; each prints at the touch and at the last tick it reaches, if it reaches the touch."""
    ts = T0 + (times_s * NS_PER_S).astype(np.int64)
    at = np.searchsorted(grid.ts_ns, ts, side="right") - 1
    depth = rng.exponential(1.0 / k_tick, len(ts))
    touch = grid.ask_ticks[at] if side > 0 else grid.bid_ticks[at]
    worst = np.floor(MID_HALF / 2 + depth).astype(np.int64) if side > 0 else np.ceil(MID_HALF / 2 - depth).astype(np.int64)
    reached = side * (worst - touch) >= 0
    exch = np.repeat(ts[reached], 2)
    price = np.stack((touch[reached], worst[reached]), axis=1).ravel()
    return market_orders(exch, exch, np.full(len(exch), side, dtype=np.int8), price, np.ones(len(exch), dtype=np.int64))


def noisy_log_mids(sigma: float, step_s: float, n: int, noise_sd: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    steps = rng.standard_normal(n) * sigma * math.sqrt(step_s / SECONDS_PER_YEAR)
    return math.log(100.0) + np.concatenate(([0.0], np.cumsum(steps))) + noise_sd * rng.standard_normal(n + 1)


def one_sided(prints: list[tuple[float, int, int]]) -> MarketOrders:
    """Orders from (seconds, side, price ticks)."""
    ts = np.array([T0 + round(t * NS_PER_S) for t, _, _ in prints], dtype=np.int64)
    sides = np.array([s for _, s, _ in prints], dtype=np.int8)
    return market_orders(ts, ts + 1_000_000, sides, np.array([p for _, _, p in prints]), np.ones(len(prints), dtype=np.int64))
