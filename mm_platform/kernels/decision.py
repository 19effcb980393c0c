"""One decision: risk, hedge, quote, orders, in this order. The replay loop and the live engine both call this and nothing else.

Belongs here: the composition of the steps, the local state they need, and what venue answers do to that state. Does not belong here: the
formulas (`quoting`, `hedging`, `risk`, `orders`, `accounting`), time's passage and transport (`replay.loop`, `engine`).

One venue (`hedge_venue.present` 0): we quote there and hedge there by crossing the spread. Two venues: we quote on venue 0 and hedge on
venue 1, and then

- what is hedged, what skews the quotes and what a stop-loss or timeout looks at is the *net* inventory, in base, of both positions; net
  inventory of less than one lot of the hedge venue counts as flat, for nothing smaller can be hedged;
- the position limit, the order limit and the order budget of quotes count the quote venue alone, the hedge venue has its own;
- flattening flattens both legs, each on its own venue, and goes on through a cool-down until the hedge leg is flat too;
- a quote venue whose market is not known stops the quotes but not the hedges, which need the hedge venue's market only;
- a hedge venue whose market is not known stops the hedges; what quotes do then is `HedgeVenue.blind`. Nothing is hedged on the quote venue
  instead: its own limits and stops are the way out.

All state is in the arrays of `LocalState`, all wishes in `Actions`; a decision at `now_ns` uses what is in them and the market view that
the caller read from data whose local time is not later than `now_ns`.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.accounting import POSITION, ledger_equity_quote, ledger_fill, ledger_funding, ledger_mark, new_ledger
from mm_platform.kernels.exchange import GTX, IOC
from mm_platform.kernels.hedging import (
    BLIND_PULL,
    BLIND_WITHIN_THRESHOLD,
    LOT_TOLERANCE,
    NO_HEDGE_VENUE,
    HedgeParams,
    HedgeVenue,
    hedge_lots,
    hedge_step,
)
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.money import Money, base_per_lot, lots_to_base
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
    local_free,
    new_local_orders,
    open_lots,
    order_step,
    taker_in_flight,
    working_quote,
)
from mm_platform.kernels.quoting import Market, QuoteParams, quote_step, round_step
from mm_platform.kernels.risk import (
    BUDGET,
    COOLDOWN,
    HALTED,
    HEDGE_BLIND,
    LIMIT_ASK,
    LIMIT_BID,
    POSITION_TIMEOUT,
    STALE,
    STOP_LOSS,
    RiskParams,
    risk_step,
)

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
LAST_HEDGE: Final = 11  # at the hedge venue; LAST_TAKER is the quote venue's
I_SIZE: Final = 12
# places in LocalState.f
ENTRY_HALF: Final = 0
TOKENS: Final = 1
F_SIZE: Final = 2

# venues of a run
QUOTE_VENUE: Final = 0
HEDGE_VENUE: Final = 1

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
    hedge_venue: HedgeVenue = NO_HEDGE_VENUE


class MarketView(NamedTuple):
    """What the local side knows of a venue's market at the decision: touch in ticks, microprice in quote, the signals; nan = unknown.

    Of the hedge venue only validity, touch and microprice are looked at.
    """

    valid: int
    bid_ticks: int
    ask_ticks: int
    microprice: float
    order_flow_imbalance: float
    kyle_lambda: float
    short_volatility: float


# the view of a venue that is not there
NO_VIEW: Final = MarketView(0, 0, 0, math.nan, math.nan, math.nan, math.nan)


class LocalState(NamedTuple):
    """The one mutable state of a strategy run: latches, the ledgers of the quote venue and the hedge venue, working orders."""

    i: Int64s
    f: Float64s
    ledger: Int64s
    hedge_ledger: Int64s
    orders: LocalOrders


class Actions(NamedTuple):
    """What to send, in this order; the decision empties it first.

    `venue` is `QUOTE_VENUE` or `HEDGE_VENUE`; `decided_mid_half` that venue's mid at the decision in half ticks, 0 = not known (cancels).
    """

    n: Int64s
    kind: Int64s
    id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    tif: Int64s
    purpose: Int64s
    venue: Int64s
    decided_mid_half: Int64s


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
    state = LocalState(np.zeros(I_SIZE, dtype=np.int64), np.zeros(F_SIZE), new_ledger(), new_ledger(), new_local_orders())
    state.i[NEXT_ID] = 1
    state.i[LAST_BUDGET] = start_ns
    state.i[POSITION_SINCE] = start_ns
    state.i[START] = start_ns
    state.i[LAST_QUOTE] = -(2**62)
    state.i[LAST_TAKER] = -(2**62)
    state.i[LAST_HEDGE] = -(2**62)
    state.f[TOKENS] = policy.burst
    return state


def new_actions(capacity: int = 64) -> Actions:
    """Room for the actions of one decision."""
    return Actions(np.zeros(1, dtype=np.int64), *(np.zeros(capacity, dtype=np.int64) for _ in range(9)))


@kernel
def act(
    actions: Actions,
    kind: int,
    venue: int,
    order_id: int,
    side: int,
    price_ticks: int,
    lots: int,
    tif: int,
    purpose: int,
    decided_mid_half: int,
) -> None:
    """Append one action."""
    n = actions.n[0]
    actions.kind[n] = kind
    actions.venue[n] = venue
    actions.id[n] = order_id
    actions.side[n] = side
    actions.price_ticks[n] = price_ticks
    actions.lots[n] = lots
    actions.tif[n] = tif
    actions.purpose[n] = purpose
    actions.decided_mid_half[n] = decided_mid_half
    actions.n[0] = n + 1


@kernel
def cancel_quotes(state: LocalState, actions: Actions, side: int) -> None:
    """Cancel the working quotes of a side (0 = both)."""
    orders = state.orders
    for i in range(orders.used[0]):
        if (orders.status[i] == PENDING_NEW or orders.status[i] == LIVE) and orders.purpose[i] == QUOTE and (side == 0 or orders.side[i] == side):
            orders.status[i] = PENDING_CANCEL
            act(actions, ACT_CANCEL, orders.venue[i], orders.id[i], orders.side[i], orders.price_ticks[i], orders.leaves_lots[i], GTX, QUOTE, 0)


@kernel
def place(
    state: LocalState, actions: Actions, venue: int, side: int, price_ticks: int, lots: int, tif: int, purpose: int, decided_mid_half: int
) -> int:
    """Send a new order; 1 when sent. The budget is the quote venue's, and flattening is never held back by it."""
    budgeted = venue == QUOTE_VENUE
    if budgeted and purpose != FLATTEN and state.f[TOKENS] < 1.0:
        return 0
    order_id = state.i[NEXT_ID]
    if local_add(state.orders, order_id, venue, side, price_ticks, lots, purpose) < 0:
        return 0
    state.i[NEXT_ID] = order_id + 1
    if budgeted:
        state.f[TOKENS] -= 1.0
    act(actions, ACT_PLACE, venue, order_id, side, price_ticks, lots, tif, purpose, decided_mid_half)
    return 1


@kernel
def taker_limit(view: MarketView, side: int, slippage_ticks: int) -> int:
    """Worst price of a taker, ticks (>= 1): the touch and so many ticks beyond it."""
    return max(view.ask_ticks + slippage_ticks if side > 0 else view.bid_ticks - slippage_ticks, 1)


@kernel
def send_taker(p: DecisionParams, view: MarketView, state: LocalState, actions: Actions, now_ns: int, signed_lots: int, purpose: int) -> int:
    """Cross the quote venue's spread by at most `signed_lots`; our own quotes that it would hit are cancelled first. 1 when sent.

    A hedge keeps within the limits that a quote keeps within: size of an order, position with everything open filled, order budget.
    Flattening goes in one order whatever they say: what holds back risk must not hold back its end.
    """
    side = 1 if signed_lots > 0 else -1
    lots = abs(signed_lots)
    if purpose != FLATTEN:
        room = p.risk.max_position_lots - side * state.ledger[POSITION] - open_lots(state.orders, QUOTE_VENUE, side)
        lots = min(lots, min(p.risk.max_order_lots, room))
        # nothing is cancelled for an order that cannot go
        if lots < p.orders.min_lots or state.f[TOKENS] < 1.0:
            return 0
    cancel_quotes(state, actions, -side)
    limit = taker_limit(view, side, p.orders.slippage_ticks)
    sent = place(state, actions, QUOTE_VENUE, side, limit, lots, IOC, purpose, view.bid_ticks + view.ask_ticks)
    if sent == 1:
        state.i[LAST_TAKER] = now_ns
    return sent


@kernel
def hedge_elsewhere(
    p: DecisionParams, hedge_view: MarketView, state: LocalState, actions: Actions, now_ns: int, net_base: float, reasons: int
) -> None:
    """Hedge or flatten on the hedge venue, whose view is valid; one order at a time, as its limits allow.

    What is not sent, or does not fill, stays part of the net inventory and is looked at again at the next decision.
    """
    venue = p.hedge_venue
    if taker_in_flight(state.orders, HEDGE_VENUE) != 0:
        return
    position = state.hedge_ledger[POSITION]
    mid_half = hedge_view.bid_ticks + hedge_view.ask_ticks
    mid = 0.5 * mid_half * venue.money.tick_size
    purpose = HEDGE
    if reasons & (STOP_LOSS | POSITION_TIMEOUT | HALTED) != 0 or (reasons & COOLDOWN != 0 and state.ledger[POSITION] == 0):
        purpose = FLATTEN
        lots = -position
    else:
        base, _, breach = hedge_step(p.hedge, net_base, state.i[BREACH_SINCE], now_ns, mid, hedge_view.microprice)
        state.i[BREACH_SINCE] = breach
        if base == 0.0 or now_ns - state.i[LAST_HEDGE] < venue.interval_ns:
            return
        if reasons & COOLDOWN != 0:
            # after a stop nothing builds a position, a target away from flat included
            if base * net_base >= 0.0:
                return
            if abs(base) > abs(net_base):
                base = -net_base
        lots = hedge_lots(venue, base, position, mid)
    if lots == 0:
        return
    side = 1 if lots > 0 else -1
    limit = taker_limit(hedge_view, side, venue.slippage_ticks)
    if place(state, actions, HEDGE_VENUE, side, limit, abs(lots), IOC, purpose, mid_half) == 1:
        state.i[LAST_HEDGE] = now_ns


@kernel
def keeps_net_within(p: DecisionParams, state: LocalState, side: int, net_base: float, mid: float) -> int:
    """1 when a fill of everything that stands or would stand on a side leaves the net inventory inside the hedge threshold on that side."""
    lots = max(open_lots(state.orders, QUOTE_VENUE, side), p.orders.order_lots)
    after = side * (net_base - p.hedge.target) + lots * base_per_lot(p.money, mid)
    return 1 if after <= p.hedge.threshold else 0


@kernel
def side_step(
    p: DecisionParams, state: LocalState, actions: Actions, now_ns: int, side: int, wanted_ticks: int, allowed: int, due: int, mid_half: int
) -> tuple[int, int]:
    """Bring one side's quote to where it should be; returns (reasons, 1 when an order was sent)."""
    working = working_quote(state.orders, side)
    has_working = 1 if working >= 0 else 0
    working_ticks = state.orders.price_ticks[working] if working >= 0 else 0
    # exposure counts every order of the side that may still fill
    room = p.risk.max_position_lots - side * state.ledger[POSITION] - open_lots(state.orders, QUOTE_VENUE, side)
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
    if place(state, actions, QUOTE_VENUE, side, wanted_ticks, lots, GTX, QUOTE, mid_half) == 0:
        return BUDGET, 0
    return 0, 1


@kernel
def net_inventory(p: DecisionParams, state: LocalState, price: float) -> float:
    """Base exposure of both positions; `price` (quote per base) matters for inverse contracts only."""
    base = lots_to_base(p.money, state.ledger[POSITION], price)
    if p.hedge_venue.present == 1:
        base += lots_to_base(p.hedge_venue.money, state.hedge_ledger[POSITION], price)
    return base


@kernel
def is_flat(p: DecisionParams, net_base: float, price: float) -> int:
    """1 when a net inventory is less than one lot of the hedge venue: nothing smaller can be hedged."""
    return 1 if abs(net_base) < base_per_lot(p.hedge_venue.money, price) * (1.0 - LOT_TOLERANCE) else 0


@kernel
def latched_reasons(state: LocalState, now_ns: int) -> int:
    """The reasons that hold without a look at the market: a halt, a cool-down."""
    reasons = 0
    if state.i[HALTED_LATCH] == 1:
        reasons |= HALTED
    if now_ns < state.i[COOLDOWN_UNTIL]:
        reasons |= COOLDOWN
    return reasons


@kernel
def decide_step(p: DecisionParams, view: MarketView, hedge_view: MarketView, state: LocalState, actions: Actions, now_ns: int) -> Trace:
    """One decision; fills `actions` and updates `state`.

    A view that is not valid (no book, crossed, stale) pulls every quote and does nothing else on that venue: neither side of it can be
    trusted. See the module's docstring for two venues.

    Parameters
    ----------
    p
        Parameters.
    view, hedge_view : MarketView
        The venue that is quoted, and the one that hedges (`NO_VIEW` where there is none).
    state, actions
        Changed in place.
    now_ns : int
        Time of the decision, not before the last one.

    Returns
    -------
    Trace
        Why it was decided so.
    """
    actions.n[0] = 0
    state.f[TOKENS] = budget_step(state.f[TOKENS], state.i[LAST_BUDGET], now_ns, p.orders.orders_per_s, p.orders.burst)
    state.i[LAST_BUDGET] = now_ns
    two_venues = p.hedge_venue.present == 1
    can_hedge = two_venues and hedge_view.valid != 0 and hedge_view.bid_ticks > 0 and hedge_view.ask_ticks > hedge_view.bid_ticks
    if can_hedge:
        ledger_mark(state.hedge_ledger, p.hedge_venue.money, hedge_view.bid_ticks + hedge_view.ask_ticks)
    if view.valid == 0 or view.bid_ticks <= 0 or view.ask_ticks <= view.bid_ticks:
        cancel_quotes(state, actions, 0)
        if can_hedge:
            net_base = net_inventory(p, state, 0.5 * (hedge_view.bid_ticks + hedge_view.ask_ticks) * p.hedge_venue.money.tick_size)
            hedge_elsewhere(p, hedge_view, state, actions, now_ns, net_base, latched_reasons(state, now_ns))
        return Trace(0, STALE, 0, 0, 0, math.nan, math.nan)
    mid_half = view.bid_ticks + view.ask_ticks
    mid = 0.5 * mid_half * p.money.tick_size
    microprice = view.microprice
    ledger_mark(state.ledger, p.money, mid_half)
    position = state.ledger[POSITION]
    short_volatility = view.short_volatility if view.short_volatility > 0.0 else 0.0
    equity_quote = ledger_equity_quote(state.ledger, p.money)
    inventory_base = lots_to_base(p.money, position, mid)
    exposure = inventory_base
    if two_venues:
        equity_quote += ledger_equity_quote(state.hedge_ledger, p.hedge_venue.money)
        inventory_base = net_inventory(p, state, mid)
        exposure = 0.0 if is_flat(p, inventory_base, mid) == 1 else inventory_base
    decision = risk_step(
        p.risk,
        now_ns,
        position,
        exposure,
        state.f[ENTRY_HALF],
        mid_half,
        state.i[POSITION_SINCE],
        short_volatility,
        p.quote.sigma,
        view.order_flow_imbalance,
        equity_quote,
        state.i[COOLDOWN_UNTIL],
        state.i[HALTED_LATCH],
    )
    reasons = decision.reasons
    state.i[COOLDOWN_UNTIL] = decision.cooldown_until_ns
    state.i[HALTED_LATCH] = decision.halted

    # the side of a taker that is out on the quote venue, 0 = none
    crossing = taker_in_flight(state.orders, QUOTE_VENUE)
    if crossing == 0:
        lots = decision.flatten_lots
        purpose = FLATTEN
        if lots == 0 and not two_venues:
            base, _, breach = hedge_step(p.hedge, inventory_base, state.i[BREACH_SINCE], now_ns, mid, microprice)
            state.i[BREACH_SINCE] = breach
            if base != 0.0 and now_ns - state.i[LAST_TAKER] >= p.orders.hedge_interval_ns:
                purpose = HEDGE
                lots = int(math.floor(abs(base) / base_per_lot(p.money, mid) + LOT_TOLERANCE))
                if reasons & (COOLDOWN | HALTED) != 0:
                    # after a stop nothing builds a position, a target away from flat included
                    lots = min(lots, abs(position)) if base * position < 0.0 else 0
                if base < 0.0:
                    lots = -lots
        if lots != 0 and send_taker(p, view, state, actions, now_ns, lots, purpose) == 1:
            crossing = 1 if lots > 0 else -1
    if can_hedge:
        hedge_elsewhere(p, hedge_view, state, actions, now_ns, inventory_base, reasons)

    market = Market(mid, microprice, view.order_flow_imbalance, view.kyle_lambda, short_volatility, (now_ns - state.i[START]) * 1e-9 / 31_536_000.0)
    quote = quote_step(p.quote, market, inventory_base)
    bid_ticks, ask_ticks, clamps = round_step(quote, p.money.tick_size, view.bid_ticks, view.ask_ticks)
    # while a taker is out, the side it would hit stays empty
    allow_bid = decision.allow_bid if crossing >= 0 else 0
    allow_ask = decision.allow_ask if crossing <= 0 else 0
    if two_venues and not can_hedge:
        if p.hedge_venue.blind == BLIND_PULL:
            reasons |= HEDGE_BLIND
            allow_bid = 0
            allow_ask = 0
        elif p.hedge_venue.blind == BLIND_WITHIN_THRESHOLD:
            reasons |= HEDGE_BLIND
            if keeps_net_within(p, state, 1, inventory_base, mid) == 0:
                allow_bid = 0
            if keeps_net_within(p, state, -1, inventory_base, mid) == 0:
                allow_ask = 0
    due = 1 if now_ns - state.i[LAST_QUOTE] >= p.orders.refresh_ns else 0
    bid_reasons, bid_sent = side_step(p, state, actions, now_ns, 1, bid_ticks, allow_bid, due, mid_half)
    ask_reasons, ask_sent = side_step(p, state, actions, now_ns, -1, ask_ticks, allow_ask, due, mid_half)
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
        local_free(state.orders, at)


@kernel
def local_on_reject(state: LocalState, policy: OrderPolicy, order_id: int, now_ns: int) -> None:
    """The venue refused the order (post-only would cross): free the place and, on the quote venue, wait on that side."""
    at = local_find(state.orders, order_id)
    if at < 0:
        return
    if state.orders.venue[at] == QUOTE_VENUE:
        if state.orders.side[at] > 0:
            state.i[BACKOFF_BID] = now_ns + policy.backoff_ns
        else:
            state.i[BACKOFF_ASK] = now_ns + policy.backoff_ns
    local_free(state.orders, at)


@kernel
def entry_after_fill(
    p: DecisionParams, state: LocalState, venue: int, side: int, price_ticks: int, lots: int, before_lots: int, after_lots: int, now_ns: int
) -> None:
    """Average entry and age of the position that risk limits look at: the quote venue's, or with two venues the net of both."""
    before = float(before_lots)
    after = float(after_lots)
    size = float(lots)
    half = 2.0 * price_ticks
    if p.hedge_venue.present == 1:
        money = p.hedge_venue.money if venue == HEDGE_VENUE else p.money
        price = price_ticks * money.tick_size
        half = 2.0 * price / p.money.tick_size
        after = net_inventory(p, state, price)
        size = lots_to_base(money, lots, price)
        before = after - side * size
        if is_flat(p, after, price) == 1:
            after = 0.0
        if is_flat(p, before, price) == 1:
            before = 0.0
    if after == 0.0:
        state.f[ENTRY_HALF] = 0.0
        state.i[POSITION_SINCE] = now_ns
    elif before == 0.0 or (before > 0.0) != (after > 0.0):
        state.f[ENTRY_HALF] = half
        state.i[POSITION_SINCE] = now_ns
    elif abs(after) > abs(before):
        state.f[ENTRY_HALF] = (state.f[ENTRY_HALF] * abs(before) + half * size) / abs(after)


@kernel
def local_on_fill(
    p: DecisionParams,
    state: LocalState,
    money: Money,
    venue: int,
    order_id: int,
    side: int,
    price_ticks: int,
    lots: int,
    leaves_lots: int,
    maker: int,
    mid_half_ticks: int,
    now_ns: int,
) -> int:
    """An execution of ours: ledger, average entry, age of the position, working order.

    Parameters
    ----------
    p
        Parameters.
    state
        Changed in place.
    money : Money
        The venue's, with the fees of the tier it charges (`accounting.money_at`).
    venue : int
        `QUOTE_VENUE` or `HEDGE_VENUE`.
    order_id, side, price_ticks, lots, leaves_lots, maker : int
        The execution.
    mid_half_ticks : int
        That venue's mid just before it, half ticks (> 0).
    now_ns : int
        When the local side learns of it.

    Returns
    -------
    int
        Fee in nano of the contract's currency.
    """
    ledger = state.hedge_ledger if venue == HEDGE_VENUE else state.ledger
    before = ledger[POSITION]
    fee = ledger_fill(ledger, money, side, price_ticks, lots, maker, mid_half_ticks)
    entry_after_fill(p, state, venue, side, price_ticks, lots, before, ledger[POSITION], now_ns)
    at = local_find(state.orders, order_id)
    if at >= 0:
        state.orders.leaves_lots[at] = leaves_lots
        if leaves_lots <= 0:
            local_free(state.orders, at)
    return fee


@kernel
def local_on_funding(state: LocalState, money: Money, venue: int, rate: float, price: float) -> int:
    """A funding stamp of a venue on the position held there; returns nano received of the contract's currency."""
    return ledger_funding(state.hedge_ledger if venue == HEDGE_VENUE else state.ledger, money, rate, price)
