"""One decision: risk, hedge, quote, orders, in this order. The replay loop and the live engine both call this and nothing else.

Belongs here: the composition of the steps, the local state they need, and what venue answers do to that state. Does not belong here: the
formulas (`quoting`, `hedging`, `risk`, `orders`, `accounting`), time's passage and transport (`replay.loop`, `engine`).

All state is in the arrays of `LocalState`, all wishes in `Actions`; a decision at `now_ns` uses what is in them and the market view that
the caller read from data whose local time is not later than `now_ns`.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.accounting import POSITION, Money, ledger_equity_quote, ledger_fill, ledger_funding, ledger_mark, new_ledger
from mm_platform.kernels.exchange import GTX, IOC
from mm_platform.kernels.hedging import HedgeParams, hedge_step
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.orders import (
    CANCEL,
    FLATTEN,
    HEDGE,
    LIVE,
    PENDING_CANCEL,
    PENDING_NEW,
    PLACE,
    QUOTE,
    REPLACE,
    LocalOrders,
    OrderPolicy,
    budget_step,
    local_add,
    local_find,
    new_local_orders,
    open_lots,
    order_step,
    taker_in_flight,
    working_quote,
)
from mm_platform.kernels.quoting import Market, QuoteParams, quote_step, round_step
from mm_platform.kernels.risk import BUDGET, COOLDOWN, HALTED, LIMIT_ASK, LIMIT_BID, STALE, RiskParams, risk_step

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# places in LocalState.i
POSITION_SINCE: Final = 0
COOLDOWN_UNTIL: Final = 1
BREACH_SINCE: Final = 2
LAST_QUOTE: Final = 3
BACKOFF_BID: Final = 4
BACKOFF_ASK: Final = 5
LAST_TAKER: Final = 6
NEXT_ID: Final = 7
LAST_BUDGET: Final = 8
HALTED_LATCH: Final = 9
START: Final = 10
I_SIZE: Final = 11
# places in LocalState.f
ENTRY_HALF: Final = 0
TOKENS: Final = 1
F_SIZE: Final = 2

# kinds of action
ACT_PLACE: Final = 1
ACT_CANCEL: Final = 2


class DecisionParams(NamedTuple):
    """Everything a decision needs besides market and state."""

    quote: QuoteParams
    hedge: HedgeParams
    risk: RiskParams
    orders: OrderPolicy
    money: Money


class MarketView(NamedTuple):
    """What the local side knows of the market at the decision: touch in ticks, microprice in quote, the signals; nan = unknown."""

    valid: int
    bid_ticks: int
    ask_ticks: int
    microprice: float
    order_flow_imbalance: float
    kyle_lambda: float
    short_volatility: float


class LocalState(NamedTuple):
    """The one mutable state of a strategy run: latches, ledger, working orders."""

    i: Int64s
    f: Float64s
    ledger: Int64s
    orders: LocalOrders


class Actions(NamedTuple):
    """What to send, in this order; the caller empties it before the decision."""

    n: Int64s
    kind: Int64s
    id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    tif: Int64s
    purpose: Int64s


class Trace(NamedTuple):
    """Why: clamp bits of the quote, risk reasons, wanted prices (0 = none), what was quoted at which half spreads."""

    clamps: int
    reasons: int
    wanted_bid_ticks: int
    wanted_ask_ticks: int
    quoted: int
    reservation: float
    half_spread: float


def new_local_state(start_ns: int, policy: OrderPolicy) -> LocalState:
    """A flat state with a full order budget."""
    state = LocalState(np.zeros(I_SIZE, dtype=np.int64), np.zeros(F_SIZE), new_ledger(), new_local_orders())
    state.i[NEXT_ID] = 1
    state.i[LAST_BUDGET] = start_ns
    state.i[POSITION_SINCE] = start_ns
    state.i[START] = start_ns
    state.i[LAST_QUOTE] = -(2**62)
    state.i[LAST_TAKER] = -(2**62)
    state.f[TOKENS] = policy.burst
    return state


def new_actions(capacity: int = 64) -> Actions:
    """Room for the actions of one decision."""
    return Actions(np.zeros(1, dtype=np.int64), *(np.zeros(capacity, dtype=np.int64) for _ in range(7)))


@kernel
def act(actions: Actions, kind: int, order_id: int, side: int, price_ticks: int, lots: int, tif: int, purpose: int) -> None:
    """Append one action."""
    n = actions.n[0]
    actions.kind[n] = kind
    actions.id[n] = order_id
    actions.side[n] = side
    actions.price_ticks[n] = price_ticks
    actions.lots[n] = lots
    actions.tif[n] = tif
    actions.purpose[n] = purpose
    actions.n[0] = n + 1


@kernel
def cancel_quotes(state: LocalState, actions: Actions, side: int) -> None:
    """Cancel the working quotes of a side (0 = both)."""
    orders = state.orders
    for i in range(orders.id.shape[0]):
        if (orders.status[i] == PENDING_NEW or orders.status[i] == LIVE) and orders.purpose[i] == QUOTE and (side == 0 or orders.side[i] == side):
            orders.status[i] = PENDING_CANCEL
            act(actions, ACT_CANCEL, orders.id[i], orders.side[i], orders.price_ticks[i], orders.leaves_lots[i], GTX, QUOTE)


@kernel
def place(state: LocalState, actions: Actions, side: int, price_ticks: int, lots: int, tif: int, purpose: int) -> int:
    """Send a new order against the budget; 1 when sent. Flattening is never held back by the budget."""
    if purpose != FLATTEN and state.f[TOKENS] < 1.0:
        return 0
    order_id = state.i[NEXT_ID]
    if local_add(state.orders, order_id, side, price_ticks, lots, purpose) < 0:
        return 0
    state.i[NEXT_ID] = order_id + 1
    state.f[TOKENS] -= 1.0
    act(actions, ACT_PLACE, order_id, side, price_ticks, lots, tif, purpose)
    return 1


@kernel
def send_taker(p: DecisionParams, view: MarketView, state: LocalState, actions: Actions, now_ns: int, signed_lots: int, purpose: int) -> int:
    """Cross the spread by at most `signed_lots`; our own quotes that it would hit are cancelled first. 1 when sent.

    A hedge keeps within the limits that a quote keeps within: size of an order, position with everything open filled, order budget.
    Flattening goes in one order whatever they say: what holds back risk must not hold back its end.
    """
    side = 1 if signed_lots > 0 else -1
    lots = abs(signed_lots)
    if purpose != FLATTEN:
        room = p.risk.max_position_lots - side * state.ledger[POSITION] - open_lots(state.orders, side)
        lots = min(lots, min(p.risk.max_order_lots, room))
        # nothing is cancelled for an order that cannot go
        if lots < p.orders.min_lots or state.f[TOKENS] < 1.0:
            return 0
    cancel_quotes(state, actions, -side)
    limit = view.ask_ticks + p.orders.slippage_ticks if side > 0 else view.bid_ticks - p.orders.slippage_ticks
    if limit < 1:
        limit = 1
    sent = place(state, actions, side, limit, lots, IOC, purpose)
    if sent == 1:
        state.i[LAST_TAKER] = now_ns
    return sent


@kernel
def side_step(
    p: DecisionParams, state: LocalState, actions: Actions, now_ns: int, side: int, wanted_ticks: int, allowed: int, due: int
) -> tuple[int, int]:
    """Bring one side's quote to where it should be; returns (reasons, 1 when an order was sent)."""
    working = working_quote(state.orders, side)
    has_working = 1 if working >= 0 else 0
    working_ticks = state.orders.price_ticks[working] if working >= 0 else 0
    # exposure counts every order of the side that may still fill
    room = p.risk.max_position_lots - side * state.ledger[POSITION] - open_lots(state.orders, side)
    if room < 0 and has_working == 1:
        # the limit came down under a standing quote (new parameters, reduce only)
        cancel_quotes(state, actions, side)
        return LIMIT_BID if side > 0 else LIMIT_ASK, 0
    what = order_step(wanted_ticks, allowed, working_ticks, has_working, due, p.orders.tolerance_ticks)
    if what == CANCEL:
        cancel_quotes(state, actions, side)
        return 0, 0
    if what != PLACE and what != REPLACE:
        return 0, 0
    if what == REPLACE:
        # an order at a price we no longer want goes whether or not the new one may come
        cancel_quotes(state, actions, side)
    if now_ns < (state.i[BACKOFF_BID] if side > 0 else state.i[BACKOFF_ASK]):
        return 0, 0
    lots = min(p.orders.order_lots, min(p.risk.max_order_lots, room))
    if lots < p.orders.min_lots:
        return LIMIT_BID if side > 0 else LIMIT_ASK, 0
    if place(state, actions, side, wanted_ticks, lots, GTX, QUOTE) == 0:
        return BUDGET, 0
    return 0, 1


@kernel
def decide_step(p: DecisionParams, view: MarketView, state: LocalState, actions: Actions, now_ns: int) -> Trace:
    """One decision; fills `actions` and updates `state`.

    A view that is not valid (no book, crossed, stale) pulls every quote and does nothing else: neither side of it can be trusted.
    """
    actions.n[0] = 0
    state.f[TOKENS] = budget_step(state.f[TOKENS], state.i[LAST_BUDGET], now_ns, p.orders.orders_per_s, p.orders.burst)
    state.i[LAST_BUDGET] = now_ns
    if view.valid == 0 or view.bid_ticks <= 0 or view.ask_ticks <= view.bid_ticks:
        cancel_quotes(state, actions, 0)
        return Trace(0, STALE, 0, 0, 0, math.nan, math.nan)
    mid_half = view.bid_ticks + view.ask_ticks
    mid = 0.5 * mid_half * p.money.tick_size
    microprice = view.microprice
    ledger_mark(state.ledger, mid_half)
    position = state.ledger[POSITION]
    short_volatility = view.short_volatility if view.short_volatility > 0.0 else 0.0
    decision = risk_step(
        p.risk,
        now_ns,
        position,
        state.f[ENTRY_HALF],
        mid_half,
        state.i[POSITION_SINCE],
        short_volatility,
        p.quote.sigma,
        view.order_flow_imbalance,
        ledger_equity_quote(state.ledger, p.money),
        state.i[COOLDOWN_UNTIL],
        state.i[HALTED_LATCH],
    )
    reasons = decision.reasons
    state.i[COOLDOWN_UNTIL] = decision.cooldown_until_ns
    state.i[HALTED_LATCH] = decision.halted
    inventory_base = position * p.money.lot_base

    crossing = 0
    if taker_in_flight(state.orders) == 1:
        crossing = 1
    elif decision.flatten_lots != 0:
        crossing = send_taker(p, view, state, actions, now_ns, decision.flatten_lots, FLATTEN)
    else:
        base, _, breach = hedge_step(p.hedge, inventory_base, state.i[BREACH_SINCE], now_ns, mid, microprice)
        state.i[BREACH_SINCE] = breach
        lots = int(math.floor(abs(base) / p.money.lot_base + 1e-9))
        if reasons & (COOLDOWN | HALTED) != 0:
            # after a stop nothing builds a position, a target away from flat included
            lots = min(lots, abs(position)) if base * position < 0.0 else 0
        if lots > 0 and now_ns - state.i[LAST_TAKER] >= p.orders.hedge_interval_ns:
            crossing = send_taker(p, view, state, actions, now_ns, lots if base > 0.0 else -lots, HEDGE)

    market = Market(mid, microprice, view.order_flow_imbalance, view.kyle_lambda, short_volatility, (now_ns - state.i[START]) * 1e-9 / 31_536_000.0)
    quote = quote_step(p.quote, market, inventory_base)
    bid_ticks, ask_ticks, clamps = round_step(quote, p.money.tick_size, view.bid_ticks, view.ask_ticks)
    allow_bid = decision.allow_bid
    allow_ask = decision.allow_ask
    if crossing == 1:
        # while a taker is out, the side it would hit stays empty
        for i in range(state.orders.id.shape[0]):
            if state.orders.status[i] != 0 and state.orders.purpose[i] != QUOTE:
                if state.orders.side[i] > 0:
                    allow_ask = 0
                else:
                    allow_bid = 0
    due = 1 if now_ns - state.i[LAST_QUOTE] >= p.orders.refresh_ns else 0
    bid_reasons, bid_sent = side_step(p, state, actions, now_ns, 1, bid_ticks, allow_bid, due)
    ask_reasons, ask_sent = side_step(p, state, actions, now_ns, -1, ask_ticks, allow_ask, due)
    if due == 1:
        state.i[LAST_QUOTE] = now_ns
    reasons |= bid_reasons | ask_reasons
    return Trace(clamps, reasons, bid_ticks, ask_ticks, bid_sent + ask_sent, quote.reservation, 0.5 * (quote.half_spread_bid + quote.half_spread_ask))


# -- what venue answers do to the local state ----------------------------------------------------------------------------------------


@kernel
def local_on_ack(state: LocalState, order_id: int) -> None:
    """The venue took the order."""
    at = local_find(state.orders, order_id)
    if at >= 0 and state.orders.status[at] == PENDING_NEW:
        state.orders.status[at] = LIVE


@kernel
def local_on_gone(state: LocalState, order_id: int) -> None:
    """The venue says that the order is cancelled or expired."""
    at = local_find(state.orders, order_id)
    if at >= 0:
        state.orders.status[at] = 0


@kernel
def local_on_reject(state: LocalState, policy: OrderPolicy, order_id: int, now_ns: int) -> None:
    """The venue refused the order (post-only would cross): free the place and wait on that side."""
    at = local_find(state.orders, order_id)
    if at < 0:
        return
    if state.orders.side[at] > 0:
        state.i[BACKOFF_BID] = now_ns + policy.backoff_ns
    else:
        state.i[BACKOFF_ASK] = now_ns + policy.backoff_ns
    state.orders.status[at] = 0


@kernel
def local_on_fill(
    state: LocalState,
    money: Money,
    order_id: int,
    side: int,
    price_ticks: int,
    lots: int,
    leaves_lots: int,
    maker: int,
    mid_half_ticks: int,
    now_ns: int,
) -> int:
    """An execution of ours: ledger, average entry, age of the position, working order. Returns the fee in nano quote."""
    before = state.ledger[POSITION]
    fee = ledger_fill(state.ledger, money, side, price_ticks, lots, maker, mid_half_ticks)
    after = state.ledger[POSITION]
    if after == 0:
        state.f[ENTRY_HALF] = 0.0
        state.i[POSITION_SINCE] = now_ns
    elif before == 0 or (before > 0) != (after > 0):
        state.f[ENTRY_HALF] = 2.0 * price_ticks
        state.i[POSITION_SINCE] = now_ns
    elif abs(after) > abs(before):
        state.f[ENTRY_HALF] = (state.f[ENTRY_HALF] * abs(before) + 2.0 * price_ticks * lots) / abs(after)
    at = local_find(state.orders, order_id)
    if at >= 0:
        state.orders.leaves_lots[at] = leaves_lots
        if leaves_lots <= 0:
            state.orders.status[at] = 0
    return fee


@kernel
def local_on_funding(state: LocalState, money: Money, rate: float, price: float) -> int:
    """A funding stamp on the position held; returns nano quote received."""
    return ledger_funding(state.ledger, money, rate, price)
