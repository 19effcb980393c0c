"""Settings in the words of the rooms that use them. One mapping each, so that what is swept and judged is what will run.

Imports no more than the runner's base dependencies: the live wiring uses it too.
"""

from __future__ import annotations

from mm_platform.config import Settings
from mm_platform.core.units import NS_PER_MS
from mm_platform.engine.settings import EngineLimits
from mm_platform.kernels.signals import SignalParams
from mm_platform.replay.settings import ReplaySettings


def engine_limits(settings: Settings) -> EngineLimits:
    """The runner's limits as the decision step takes them."""
    r = settings.risk
    return EngineLimits(
        max_order_notional=r.max_order_notional,
        max_position_notional=r.max_position_notional,
        stop_loss_frac=r.stop_loss_frac,
        position_timeout_s=r.position_timeout_s,
        cooldown_s=r.cooldown_s,
        volatility_pull=r.volatility_pull,
        toxicity_pull=r.toxicity_pull,
        max_loss_quote=r.max_loss_quote,
        backoff_s=r.backoff_s,
        max_orders_per_10s=r.max_orders_per_10s,
        slippage_frac=r.slippage_frac,
        max_book_age_s=r.max_book_age_s,
    )


def signal_params(settings: Settings) -> SignalParams:
    """Time constants of the signals."""
    s = settings.signals
    return SignalParams(ofi_half_life_s=s.ofi_half_life_s, vol_tau_s=s.vol_tau_s, kyle_tau_s=s.kyle_tau_s)


def replay_settings(settings: Settings, *, latency_ms: float | None = None) -> ReplaySettings:
    """The sweep's venue model: conservative, stated latency (or `latency_ms` both ways), equity sampled about once a minute."""
    entry = settings.latency.entry_ms if latency_ms is None else latency_ms
    back = settings.latency.response_ms if latency_ms is None else latency_ms
    step_s = settings.signals.step_s
    return ReplaySettings(
        mode="conservative",
        entry_latency_ns=round(entry * NS_PER_MS),
        response_latency_ns=round(back * NS_PER_MS),
        sample_every=max(1, min(round(60.0 / step_s), round(settings.gate.block_s / step_s / 5))),
    )
