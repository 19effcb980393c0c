"""The risk step: what the runner's own limits allow, shared by replay and engine. Limits never come from a parameter set.

Belongs here: pulling sides, flattening, cooling down, halting. Does not belong here: where quotes stand (`kernels.quoting`), how
orders are sent (`kernels.orders`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mm_platform.kernels.jit import kernel

# reasons, a bit mask
STOP_LOSS: Final = 1
POSITION_TIMEOUT: Final = 2
VOLATILITY: Final = 4
TOXIC_BID: Final = 8
TOXIC_ASK: Final = 16
COOLDOWN: Final = 32
HALTED: Final = 64
LIMIT_BID: Final = 128
LIMIT_ASK: Final = 256
BUDGET: Final = 512
STALE: Final = 1024
HEDGE_BLIND: Final = 2048
REASONS: Final = {
    STOP_LOSS: "stop_loss",
    POSITION_TIMEOUT: "position_timeout",
    VOLATILITY: "volatility",
    TOXIC_BID: "toxic_bid",
    TOXIC_ASK: "toxic_ask",
    COOLDOWN: "cooldown",
    HALTED: "halted",
    LIMIT_BID: "position_limit_bid",
    LIMIT_ASK: "position_limit_ask",
    BUDGET: "order_budget",
    STALE: "stale_or_crossed_book",
    HEDGE_BLIND: "hedge_venue_not_known",
}


class RiskParams(NamedTuple):
    """The runner's limits.

    max_order_lots, max_position_lots : venue lots; the position limit counts every open order of a side.
    stop_loss_frac : adverse move of the mid against the average entry price that flattens (inf = off).
    position_timeout_ns : longest time a position may go without passing through flat (0 = off).
    cooldown_ns : no quotes for this long after a stop-loss or timeout.
    volatility_pull : quotes are pulled while short-horizon volatility exceeds this multiple of sigma (inf = off).
    toxicity_pull : the side that order flow runs into is pulled while |order flow imbalance| reaches this (inf = off).
    max_loss_quote : loss since the start of the run or day that halts for good (inf = off).
    """

    max_order_lots: int
    max_position_lots: int
    stop_loss_frac: float
    position_timeout_ns: int
    cooldown_ns: int
    volatility_pull: float
    toxicity_pull: float
    max_loss_quote: float


class RiskDecision(NamedTuple):
    """What is allowed now: sides (1 or 0), lots to trade at once to flatten (signed, 0 = none), reasons, and the new latches."""

    allow_bid: int
    allow_ask: int
    flatten_lots: int
    reasons: int
    cooldown_until_ns: int
    halted: int


@kernel
def risk_step(
    p: RiskParams,
    now_ns: int,
    position_lots: int,
    exposure: float,
    entry_half_ticks: float,
    mid_half_ticks: int,
    position_since_ns: int,
    short_volatility: float,
    sigma: float,
    order_flow_imbalance: float,
    equity_quote: float,
    cooldown_until_ns: int,
    halted: int,
) -> RiskDecision:
    """One look at the limits. A stop, timeout or halt flattens the whole position and pulls both sides.

    Parameters
    ----------
    p
        The limits.
    now_ns : int
        Time of the decision.
    position_lots : int
        Position at the venue that is quoted: what there is to flatten there.
    exposure : float
        Signed inventory that stop-loss and timeout look at, 0 = flat: the same position, or the net of two venues; its size does not matter.
    entry_half_ticks : float
        Average entry price of the exposure, half ticks; 0 = none.
    mid_half_ticks : int
        Mid, half ticks.
    position_since_ns : int
        When the exposure was last flat or turned.
    short_volatility, sigma : float
        Relative per sqrt(year): measured over the last minutes, and fitted.
    order_flow_imbalance : float
        -1 to 1, nan = unknown.
    equity_quote : float
        Profit since the start of the run, all venues, quote.
    cooldown_until_ns, halted : int
        The latches, from the last decision.
    """
    reasons = 0
    flatten = 0
    if equity_quote <= -p.max_loss_quote:
        halted = 1
    if exposure != 0.0:
        adverse = (entry_half_ticks - mid_half_ticks) / entry_half_ticks if entry_half_ticks > 0.0 else 0.0
        if exposure < 0.0:
            adverse = -adverse
        if adverse >= p.stop_loss_frac:
            reasons |= STOP_LOSS
        if p.position_timeout_ns > 0 and now_ns - position_since_ns >= p.position_timeout_ns:
            reasons |= POSITION_TIMEOUT
    if reasons != 0:
        cooldown_until_ns = now_ns + p.cooldown_ns
    if halted == 1:
        reasons |= HALTED
    if reasons != 0:
        flatten = -position_lots
    allow_bid = 1
    allow_ask = 1
    if now_ns < cooldown_until_ns:
        reasons |= COOLDOWN
    if short_volatility > p.volatility_pull * sigma:
        reasons |= VOLATILITY
    if reasons != 0:
        allow_bid = 0
        allow_ask = 0
    # flow that buys runs into our ask, flow that sells into our bid
    if order_flow_imbalance >= p.toxicity_pull:
        reasons |= TOXIC_ASK
        allow_ask = 0
    elif order_flow_imbalance <= -p.toxicity_pull:
        reasons |= TOXIC_BID
        allow_bid = 0
    return RiskDecision(allow_bid, allow_ask, flatten, reasons, cooldown_until_ns, halted)
