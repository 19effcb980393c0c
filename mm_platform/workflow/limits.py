"""The runner's limits from the settings: the same for sweeps, gate and runner, so that what is judged is what will run."""

from __future__ import annotations

from mm_platform.config import Settings
from mm_platform.engine.settings import EngineLimits


def engine_limits(settings: Settings) -> EngineLimits:
    """Limits as the decision step takes them."""
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
