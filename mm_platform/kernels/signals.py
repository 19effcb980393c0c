"""Signals from the touch and from trades: one incremental state for the runner and for a path over a tape, and functions of single snapshots.

Belongs here: microprice, queue imbalance, order flow imbalance, Kyle's lambda, short-horizon volatility. Does not belong here: what a signal
does to a quote (`kernels.quoting`), fitted volatilities (`calibration`), reading tapes (`tape.features`).

All signs: + is buying pressure. The state learns only from the events it is given; `signal_read` at a time uses exactly the events before
the call, and reading never changes what a later read returns: samples and buckets are closed at fixed times (multiples of their spacing),
whether an event or a read comes first.

- Order flow imbalance: the contributions e_n of the best quotes (Cont, Kukanov & Stoikov 2014, eq. 4) decay with a half-life to E, their
  absolute values to G; with the time-average depth of the touch D the signal is E / (G + D). Small flow gives CKS's flow in units of depth,
  heavy flow the net share of it, always inside (-1, 1), and one small order on a deep touch cannot reach the ends.
- Kyle's lambda: slope of the mid's change over a time bucket on the signed volume traded in it (buckets without trades say nothing),
  least squares with intercept and exponentially forgotten observations; quote/base per base.
- Short-horizon volatility: v <- L v + (1 - L) r^2/dt with L = exp(-dt/tau) on log mids sampled at fixed times, divided by the weight of the
  observations so far, annualised over 31,536,000 s. The spacing keeps quote noise out (a signature plot says how large it must be).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.units import NS_PER_S, SECONDS_PER_YEAR
from mm_platform.kernels.jit import kernel

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

LN2: Final = math.log(2.0)

# places in SignalState.i
BID_TICKS: Final = 0
BID_LOTS: Final = 1
ASK_TICKS: Final = 2
ASK_LOTS: Final = 3
LAST_MID_HALF: Final = 4  # last mid of an uncrossed two-sided touch, half ticks; 0 = none yet
FLOW_TS: Final = 5  # time the decayed flow stands at; -1 = no touch yet
VOL_SLOT: Final = 6  # last closed sample time, in spacings; -1 = none
VOL_MID_HALF: Final = 7
VOL_COUNT: Final = 8
KYLE_SLOT: Final = 9  # bucket being filled; -1 = none
KYLE_MID_HALF: Final = 10  # mid at its start
KYLE_LOTS: Final = 11  # signed lots traded in it
KYLE_TRADES: Final = 12
KYLE_COUNT: Final = 13  # buckets that entered
KYLE_LAST: Final = 14  # last bucket that entered
I_SIZE: Final = 15
# places in SignalState.f
FLOW_NET: Final = 0
FLOW_GROSS: Final = 1
DEPTH: Final = 2  # decayed time average of the touch's depth (lots), times its weight
DEPTH_WEIGHT: Final = 3
VARIANCE: Final = 4  # per second, times its weight
VARIANCE_WEIGHT: Final = 5
KYLE_N: Final = 6
KYLE_X: Final = 7
KYLE_Y: Final = 8
KYLE_XX: Final = 9
KYLE_XY: Final = 10
F_SIZE: Final = 11


class SignalParams(NamedTuple):
    """Time constants and scales of the signals.

    tick_size : quote/base per tick; lot_base : base per lot (1 and 1: everything in ticks and lots).
    ofi_half_life_s : seconds after which past order flow counts half.
    vol_spacing_ns : time between the mids whose returns are used; vol_tau_s : averaging time of the variance; vol_min_samples : fewer
    samples give nan. kyle_bucket_ns : length of a bucket; kyle_tau_s : forgetting time; kyle_min_buckets : fewer buckets give nan.
    """

    tick_size: float = 1.0
    lot_base: float = 1.0
    ofi_half_life_s: float = 5.0
    vol_spacing_ns: int = NS_PER_S
    vol_tau_s: float = 120.0
    vol_min_samples: int = 30
    kyle_bucket_ns: int = NS_PER_S
    kyle_tau_s: float = 600.0
    kyle_min_buckets: int = 50


class SignalState(NamedTuple):
    """Mutable arrays; the names of their places stand above."""

    f: Float64s
    i: Int64s


class Signals(NamedTuple):
    """What is known at one time; nan = unknown.

    mid_half_ticks : bid + ask. microprice_ticks : weighted mid in ticks. queue_imbalance, order_flow_imbalance : -1 to 1.
    kyle_lambda : quote/base per base. short_volatility : relative per sqrt(year). spread_bps : of the mid. valid : 1 for a two-sided,
    uncrossed touch; with 0 the touch's own values are 0 or nan.
    """

    mid_half_ticks: int
    microprice_ticks: float
    queue_imbalance: float
    order_flow_imbalance: float
    kyle_lambda: float
    short_volatility: float
    spread_bps: float
    valid: int


def new_signal_state() -> SignalState:
    """A state that has seen nothing."""
    state = SignalState(np.zeros(F_SIZE), np.zeros(I_SIZE, dtype=np.int64))
    state.i[FLOW_TS] = -1
    state.i[VOL_SLOT] = -1
    state.i[KYLE_SLOT] = -1
    return state


# -- functions of snapshots ----------------------------------------------------------------------------------------------------------


@kernel
def weighted_mid(bid: float, bid_size: float, ask: float, ask_size: float) -> float:
    """Microprice of the touch: (bid x ask size + ask x bid size) / (bid size + ask size), in the unit of the prices."""
    return (bid * ask_size + ask * bid_size) / (bid_size + ask_size)


@kernel
def queue_imbalance(bid_size: float, ask_size: float) -> float:
    """(bid size - ask size) / (bid size + ask size), -1 to 1."""
    return (bid_size - ask_size) / (bid_size + ask_size)


@kernel
def ofi_contribution(
    bid: float, bid_size: float, ask: float, ask_size: float, next_bid: float, next_bid_size: float, next_ask: float, next_ask_size: float
) -> float:
    """e_n of one change of the touch, in the unit of the sizes (Cont, Kukanov & Stoikov 2014, eq. 4)."""
    e = 0.0
    if next_bid >= bid:
        e += next_bid_size
    if next_bid <= bid:
        e -= bid_size
    if next_ask <= ask:
        e -= next_ask_size
    if next_ask >= ask:
        e += ask_size
    return e


@kernel
def squash_flow(net: float, gross: float, depth: float) -> float:
    """Flow in (-1, 1): net / (gross + depth); 0 where there is neither flow nor depth."""
    total = gross + depth
    return net / total if total > 0.0 else 0.0


@kernel
def ofi_path(bid: Float64s, bid_size: Float64s, ask: Float64s, ask_size: Float64s, out: Float64s) -> float:
    """e_n of consecutive touches into `out` (n - 1 values) and the normalised imbalance of the whole stretch (undecayed)."""
    net = 0.0
    gross = 0.0
    depth = 0.0
    n = bid.shape[0]
    for k in range(n):
        depth += 0.5 * (bid_size[k] + ask_size[k])
        if k > 0:
            e = ofi_contribution(bid[k - 1], bid_size[k - 1], ask[k - 1], ask_size[k - 1], bid[k], bid_size[k], ask[k], ask_size[k])
            out[k - 1] = e
            net += e
            gross += abs(e)
    return squash_flow(net, gross, depth / n)


class KyleFit(NamedTuple):
    """Least-squares line of price changes on signed volume: intercept, slope (Kyle's lambda), classical standard error, t, observations."""

    intercept: float
    slope: float
    stderr: float
    t_stat: float
    n: int


@kernel
def kyle_regression(change: Float64s, signed_volume: Float64s) -> KyleFit:
    """Fit change = c + lambda x signed_volume + e; nan where fewer than 3 observations or no variation of the volume can say nothing.

    Parameters
    ----------
    change, signed_volume
        Shape (n,): price change [quote/base] and signed volume [base, + bought]; the slope is quote/base per base.
    """
    n = change.shape[0]
    if n < 3:
        return KyleFit(math.nan, math.nan, math.nan, math.nan, n)
    mean_x = 0.0
    mean_y = 0.0
    for k in range(n):
        mean_x += signed_volume[k]
        mean_y += change[k]
    mean_x /= n
    mean_y /= n
    sxx = 0.0
    sxy = 0.0
    size = 0.0
    for k in range(n):
        x = signed_volume[k] - mean_x
        sxx += x * x
        sxy += x * (change[k] - mean_y)
        size += signed_volume[k] * signed_volume[k]
    if sxx <= 1e-12 * size:
        return KyleFit(math.nan, math.nan, math.nan, math.nan, n)
    slope = sxy / sxx
    intercept = mean_y - slope * mean_x
    residual = 0.0
    for k in range(n):
        e = change[k] - intercept - slope * signed_volume[k]
        residual += e * e
    stderr = math.sqrt(residual / (n - 2) / sxx)
    t_stat = slope / stderr if stderr > 0.0 else math.nan
    return KyleFit(intercept, slope, stderr, t_stat, n)


@kernel
def realised_variance(price: Float64s) -> float:
    """Sum of squared log returns (not annualised)."""
    total = 0.0
    for k in range(1, price.shape[0]):
        r = math.log(price[k] / price[k - 1])
        total += r * r
    return total


@kernel
def ewma_step(variance: float, weight: float, squared_return: float, dt_s: float, tau_s: float) -> tuple[float, float]:
    """One observation of the exponentially weighted variance; (weighted variance per second, weight). Their ratio is the estimate."""
    decay = math.exp(-dt_s / tau_s)
    return decay * variance + (1.0 - decay) * squared_return / dt_s, decay * weight + (1.0 - decay)


@kernel
def annual_volatility(variance: float, weight: float) -> float:
    """Relative per sqrt(year) from a weighted variance per second; nan without weight."""
    if weight <= 0.0:
        return math.nan
    return math.sqrt(variance / weight * SECONDS_PER_YEAR)


@kernel
def short_volatility_path(ts_ns: Int64s, price: Float64s, spacing_ns: int, tau_s: float) -> float:
    """Exponentially weighted volatility of irregular prices, sampled every `spacing_ns` from the first one on (the last price at or before).

    Relative per sqrt(year); nan where the stretch is shorter than one spacing. `ts_ns` does not decrease.
    """
    n = ts_ns.shape[0]
    variance = 0.0
    weight = 0.0
    if n < 2:
        return math.nan
    at = 0
    last = price[0]
    sample_ts = ts_ns[0] + spacing_ns
    while sample_ts <= ts_ns[n - 1]:
        while at + 1 < n and ts_ns[at + 1] <= sample_ts:
            at += 1
        r = math.log(price[at] / last)
        variance, weight = ewma_step(variance, weight, r * r, spacing_ns * 1e-9, tau_s)
        last = price[at]
        sample_ts += spacing_ns
    return annual_volatility(variance, weight)


# -- the incremental state -----------------------------------------------------------------------------------------------------------


@kernel
def close_samples(state: SignalState, p: SignalParams, ts_ns: int) -> None:
    """Close the volatility samples and the Kyle bucket that ended at or before `ts_ns`, with the mid that held until now."""
    i = state.i
    f = state.f
    mid = i[LAST_MID_HALF]
    if mid == 0:
        return
    slot = ts_ns // p.vol_spacing_ns
    if i[VOL_SLOT] < 0:
        # first mid known: samples start at the next multiple
        i[VOL_SLOT] = slot
    elif slot > i[VOL_SLOT]:
        dt = p.vol_spacing_ns * 1e-9
        skipped = slot - i[VOL_SLOT] - 1
        if i[VOL_MID_HALF] > 0:
            r = math.log(mid / i[VOL_MID_HALF])
            f[VARIANCE], f[VARIANCE_WEIGHT] = ewma_step(f[VARIANCE], f[VARIANCE_WEIGHT], r * r, dt, p.vol_tau_s)
            i[VOL_COUNT] += 1
        # the mid stood still at the remaining sample times; step by step, so that an extra read in between changes no bit
        for _ in range(skipped):
            f[VARIANCE], f[VARIANCE_WEIGHT] = ewma_step(f[VARIANCE], f[VARIANCE_WEIGHT], 0.0, dt, p.vol_tau_s)
            i[VOL_COUNT] += 1
        i[VOL_SLOT] = slot
        i[VOL_MID_HALF] = mid
    bucket = ts_ns // p.kyle_bucket_ns
    if bucket > i[KYLE_SLOT]:
        if i[KYLE_TRADES] > 0:
            if i[KYLE_MID_HALF] > 0:
                decay = math.exp(-((i[KYLE_SLOT] - i[KYLE_LAST]) * (p.kyle_bucket_ns * 1e-9)) / p.kyle_tau_s) if i[KYLE_COUNT] > 0 else 0.0
                x = float(i[KYLE_LOTS])
                y = 0.5 * (mid - i[KYLE_MID_HALF])
                f[KYLE_N] = decay * f[KYLE_N] + 1.0
                f[KYLE_X] = decay * f[KYLE_X] + x
                f[KYLE_Y] = decay * f[KYLE_Y] + y
                f[KYLE_XX] = decay * f[KYLE_XX] + x * x
                f[KYLE_XY] = decay * f[KYLE_XY] + x * y
                i[KYLE_COUNT] += 1
                i[KYLE_LAST] = i[KYLE_SLOT]
            i[KYLE_TRADES] = 0
            i[KYLE_LOTS] = 0
        i[KYLE_SLOT] = bucket
        i[KYLE_MID_HALF] = mid


@kernel
def decay_flow(state: SignalState, p: SignalParams, ts_ns: int) -> None:
    """Bring the decayed flow and the time average of the depth to `ts_ns`."""
    i = state.i
    f = state.f
    if ts_ns > i[FLOW_TS]:
        decay = math.exp(-((ts_ns - i[FLOW_TS]) * 1e-9) * (LN2 / p.ofi_half_life_s))
        f[FLOW_NET] *= decay
        f[FLOW_GROSS] *= decay
        f[DEPTH] = decay * f[DEPTH] + (1.0 - decay) * (0.5 * (i[BID_LOTS] + i[ASK_LOTS]))
        f[DEPTH_WEIGHT] = decay * f[DEPTH_WEIGHT] + (1.0 - decay)
        i[FLOW_TS] = ts_ns


@kernel
def signal_on_top(state: SignalState, p: SignalParams, ts_ns: int, bid_ticks: int, bid_lots: int, ask_ticks: int, ask_lots: int) -> None:
    """The touch is now this (0 ticks = that side is empty). Repeating an unchanged touch changes nothing.

    A touch that is one-sided or crossed ends the chain of flow contributions: the next good one starts a new chain.
    """
    i = state.i
    if bid_ticks == i[BID_TICKS] and bid_lots == i[BID_LOTS] and ask_ticks == i[ASK_TICKS] and ask_lots == i[ASK_LOTS]:
        return
    close_samples(state, p, ts_ns)
    good = bid_ticks > 0 and ask_ticks > bid_ticks
    had = i[BID_TICKS] > 0 and i[ASK_TICKS] > i[BID_TICKS]
    if had:
        decay_flow(state, p, ts_ns)
        if good:
            e = ofi_contribution(
                float(i[BID_TICKS]),
                float(i[BID_LOTS]),
                float(i[ASK_TICKS]),
                float(i[ASK_LOTS]),
                float(bid_ticks),
                float(bid_lots),
                float(ask_ticks),
                float(ask_lots),
            )
            state.f[FLOW_NET] += e
            state.f[FLOW_GROSS] += abs(e)
    i[BID_TICKS] = bid_ticks
    i[BID_LOTS] = bid_lots
    i[ASK_TICKS] = ask_ticks
    i[ASK_LOTS] = ask_lots
    if good:
        if not had:
            # nothing is known about flow while there was no touch: older flow keeps its value, time starts again
            i[FLOW_TS] = ts_ns
        first = i[LAST_MID_HALF] == 0
        i[LAST_MID_HALF] = bid_ticks + ask_ticks
        if first:
            close_samples(state, p, ts_ns)


@kernel
def signal_on_trade(state: SignalState, p: SignalParams, ts_ns: int, side: int, price_ticks: int, lots: int) -> None:
    """A print of `lots`; `side` is the taker's (+1 bought). Prints that fill nobody are not to be passed. The price does not enter."""
    close_samples(state, p, ts_ns)
    i = state.i
    if i[LAST_MID_HALF] > 0:
        i[KYLE_LOTS] += side * lots
        i[KYLE_TRADES] += 1


@kernel
def kyle_slope(f: Float64s) -> float:
    """Slope of the decayed regression in ticks per lot; nan where the volume does not vary."""
    n = f[KYLE_N]
    if n <= 0.0:
        return math.nan
    sxx = f[KYLE_XX] - f[KYLE_X] * f[KYLE_X] / n
    if sxx <= 1e-12 * f[KYLE_XX]:
        return math.nan
    return float((f[KYLE_XY] - f[KYLE_X] * f[KYLE_Y] / n) / sxx)


@kernel
def signal_read(state: SignalState, p: SignalParams, now_ns: int) -> Signals:
    """The signals at `now_ns` (not before the last event given)."""
    close_samples(state, p, now_ns)
    i = state.i
    f = state.f
    volatility = annual_volatility(f[VARIANCE], f[VARIANCE_WEIGHT]) if i[VOL_COUNT] >= p.vol_min_samples else math.nan
    kyle = kyle_slope(f) * p.tick_size / p.lot_base if i[KYLE_COUNT] >= p.kyle_min_buckets else math.nan
    bid = i[BID_TICKS]
    ask = i[ASK_TICKS]
    if not (bid > 0 and ask > bid):
        return Signals(0, math.nan, math.nan, math.nan, kyle, volatility, math.nan, 0)
    bid_lots = float(i[BID_LOTS])
    ask_lots = float(i[ASK_LOTS])
    # the read does not move the decayed flow: two reads a step apart and one read give the same later numbers
    decay = math.exp(-((now_ns - i[FLOW_TS]) * 1e-9) * (LN2 / p.ofi_half_life_s))
    weight = decay * f[DEPTH_WEIGHT] + (1.0 - decay)
    here = 0.5 * (i[BID_LOTS] + i[ASK_LOTS])
    depth = (decay * f[DEPTH] + (1.0 - decay) * here) / weight if weight > 0.0 else here
    flow = squash_flow(decay * f[FLOW_NET], decay * f[FLOW_GROSS], depth)
    return Signals(
        int(bid + ask),
        weighted_mid(float(bid), bid_lots, float(ask), ask_lots),
        queue_imbalance(bid_lots, ask_lots),
        flow,
        kyle,
        volatility,
        2e4 * float(ask - bid) / float(bid + ask),
        1,
    )
