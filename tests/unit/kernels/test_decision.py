"""The decision with a second venue to hedge on, and that its twins agree; what a decision on one venue does is tested by replay and engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.kernels.accounting import FUNDING, HEDGE, POSITION, TAKER_FILLS, identity_residual_quanta
from mm_platform.kernels.decision import (
    ACT_CANCEL,
    ACT_PLACE,
    BREACH_SINCE,
    COOLDOWN_UNTIL,
    ENTRY_HALF,
    HALTED_LATCH,
    HEDGE_VENUE,
    NO_VIEW,
    POSITION_SINCE,
    QUOTE_VENUE,
    Actions,
    DecisionParams,
    LocalState,
    MarketView,
    Trace,
    decide_step,
    local_on_ack,
    local_on_fill,
    local_on_funding,
    local_on_gone,
    local_on_reject,
    new_actions,
    new_local_state,
)
from mm_platform.kernels.exchange import GTX, IOC
from mm_platform.kernels.hedging import (
    BLIND_KEEP,
    BLIND_PULL,
    BLIND_WITHIN_THRESHOLD,
    NO_HEDGE_VENUE,
    HedgeParams,
    HedgeVenue,
    hedge_lots,
)
from mm_platform.kernels.money import Money
from mm_platform.kernels.orders import FLATTEN, PENDING_NEW, QUOTE, OrderPolicy, taker_in_flight
from mm_platform.kernels.orders import HEDGE as HEDGE_PURPOSE
from mm_platform.kernels.quoting import ROLLING, QuoteParams
from mm_platform.kernels.risk import COOLDOWN, HALTED, HEDGE_BLIND, POSITION_TIMEOUT, STALE, STOP_LOSS, RiskParams

S = 1_000_000_000
T = 1_700_000_000 * S
# the hedge venue: ten times the lot, five times the tick
ELSEWHERE = HedgeVenue(
    present=1,
    money=Money(0.01, 0.5, 0.0, 0.0004),
    min_lots=1,
    min_notional=100.0,
    max_order_lots=50,
    max_position_lots=200,
    slippage_ticks=20,
    interval_ns=S,
)
PARAMS = DecisionParams(
    quote=QuoteParams(0.1, 0.2, 1 / 365, ROLLING, 0.5, 0.5, 2e6, 2e6, 0.02, 0.0, 10.0, 1.0, 0.0, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0),
    hedge=HedgeParams(threshold=0.1, target=0.0, ratio=1.0, min_size=0.0, max_latency_s=0.0),
    risk=RiskParams(1000, 1000, math.inf, 0, 5 * S, math.inf, math.inf, math.inf),
    orders=OrderPolicy(20, S, 0, S, 1e9, 1e9, S, 50),
    money=Money(0.001, 0.1, 0.0, 0.0004),
    hedge_venue=ELSEWHERE,
)
VIEW = MarketView(1, 500_000, 500_002, 50_000.1, 0.0, math.nan, math.nan)
# 20 above the quote venue
HEDGE_VIEW = MarketView(1, 100_040, 100_042, 50_020.5, math.nan, math.nan, math.nan)


class Maker:
    """A run of decisions with the market of both venues at hand; fills happen when a test says so."""

    def __init__(self, p: DecisionParams = PARAMS) -> None:
        self.p, self.now = p, T
        self.state, self.actions = new_local_state(T, p.orders), new_actions()
        self.view, self.hedge_view = VIEW, HEDGE_VIEW
        self.trace: Trace | None = None

    def hold(self, quote_lots: int, hedge_lots: int = 0) -> Maker:
        """Positions out of fills at the mids."""
        for venue, lots, price in ((QUOTE_VENUE, quote_lots, 500_001), (HEDGE_VENUE, hedge_lots, 100_041)):
            if lots:
                self.fill(venue, 0, 1 if lots > 0 else -1, price, abs(lots), 0)
        return self

    def fill(self, venue: int, order_id: int, side: int, price: int, lots: int, leaves: int, mid_half: int = 0) -> None:
        """An execution, at the mid unless that is given."""
        money = self.p.hedge_venue.money if venue == HEDGE_VENUE else self.p.money
        local_on_fill(self.p, self.state, money, venue, order_id, side, price, lots, leaves, 0, mid_half or 2 * price, self.now)

    def decide(self, after_s: float = 1.0) -> list[tuple[int, ...]]:
        """(kind, venue, side, price, lots, tif, purpose) of each action."""
        self.now += round(after_s * S)
        self.trace = decide_step(self.p, self.view, self.hedge_view, self.state, self.actions, self.now)
        a = self.actions
        names = (a.kind, a.venue, a.side, a.price_ticks, a.lots, a.tif, a.purpose)
        return [tuple(int(x[k]) for x in names) for k in range(int(a.n[0]))]

    def takers(self, after_s: float = 1.0) -> list[tuple[int, ...]]:
        """(venue, side, price, lots, purpose) of each taker."""
        return [(v, s, price, lots, why) for kind, v, s, price, lots, tif, why in self.decide(after_s) if kind == ACT_PLACE and tif == IOC]

    def last_id(self) -> int:
        return int(self.actions.id[self.actions.n[0] - 1])

    def order(self, venue: int) -> int:
        """Id of the taker that is out at a venue."""
        o = self.state.orders
        return next(int(o.id[i]) for i in range(int(o.used[0])) if o.status[i] and o.venue[i] == venue and o.purpose[i] != QUOTE)


def test_a_hedge_goes_to_the_other_venue_in_its_lots_and_ticks() -> None:
    """250 lots of 0.001 long: 0.25 base sell 25 lots of 0.01 there, at worst 20 of its ticks below its bid; quotes stand on both sides here."""
    maker = Maker().hold(250)
    actions = maker.decide()
    assert actions[0] == (ACT_PLACE, HEDGE_VENUE, -1, 100_020, 25, IOC, HEDGE_PURPOSE)
    assert maker.actions.decided_mid_half[0] == 200_082
    assert {(kind, venue, side, tif) for kind, venue, side, _, _, tif, _ in actions[1:]} == {
        (ACT_PLACE, QUOTE_VENUE, 1, GTX),
        (ACT_PLACE, QUOTE_VENUE, -1, GTX),
    }
    assert maker.actions.decided_mid_half[1] == 1_000_002


def test_what_counts_is_the_net() -> None:
    assert Maker().hold(250, -25).takers() == []
    assert Maker().hold(250, -10).takers() == [(HEDGE_VENUE, -1, 100_020, 15, HEDGE_PURPOSE)]
    # the quote venue is flat, the other leg is too much
    assert Maker().hold(0, -25).takers() == [(HEDGE_VENUE, 1, 100_062, 25, HEDGE_PURPOSE)]
    assert Maker().hold(100).takers() == []


def test_less_than_a_lot_there_is_kept() -> None:
    """0.257 base: 25 lots go, 0.007 stay, and stay."""
    maker = Maker(PARAMS._replace(hedge=PARAMS.hedge._replace(threshold=0.004))).hold(257)
    assert maker.takers() == [(HEDGE_VENUE, -1, 100_020, 25, HEDGE_PURPOSE)]
    maker.fill(HEDGE_VENUE, maker.order(HEDGE_VENUE), -1, 100_040, 25, 0)
    assert maker.takers() == []
    assert maker.state.hedge_ledger[POSITION] == -25
    # the breach keeps its clock: it is there
    assert maker.state.i[BREACH_SINCE] > 0


def test_one_hedge_at_a_time_no_more_often_than_the_interval_and_the_rest_follows() -> None:
    maker = Maker(PARAMS._replace(hedge_venue=ELSEWHERE._replace(interval_ns=10 * S))).hold(300)
    assert maker.takers() == [(HEDGE_VENUE, -1, 100_020, 30, HEDGE_PURPOSE)]
    order = maker.order(HEDGE_VENUE)
    # no answer yet: nothing more, whatever the interval says
    assert maker.takers(20.0) == []
    # 12 of 30 filled, the rest expired
    maker.fill(HEDGE_VENUE, order, -1, 100_039, 12, 18)
    assert taker_in_flight(maker.state.orders, HEDGE_VENUE) == -1
    local_on_gone(maker.state, order)
    assert maker.takers(1.0) == [(HEDGE_VENUE, -1, 100_020, 18, HEDGE_PURPOSE)]
    local_on_gone(maker.state, maker.order(HEDGE_VENUE))
    assert maker.takers(9.0) == []
    assert maker.takers(1.0) == [(HEDGE_VENUE, -1, 100_020, 18, HEDGE_PURPOSE)]


@pytest.mark.parametrize(
    ("venue", "base", "position", "lots"),
    [
        (ELSEWHERE, 0.25, 0, 25),
        (ELSEWHERE, -0.25, 0, -25),
        (ELSEWHERE, 0.2599, 0, 25),
        (ELSEWHERE, 9.0, 0, 50),
        (ELSEWHERE, 9.0, 180, 20),
        (ELSEWHERE, -9.0, -180, -20),
        (ELSEWHERE, 9.0, -180, 50),
        (ELSEWHERE, 9.0, 200, 0),
        (ELSEWHERE, 9.0, 250, 0),
        (ELSEWHERE._replace(min_lots=30), 0.25, 0, 0),
        (ELSEWHERE._replace(min_notional=12_500.0), 0.25, 0, 25),
        (ELSEWHERE._replace(min_notional=12_500.1), 0.25, 0, 0),
        # an inverse contract of 100 quote: 0.25 base at 50,000 are 125 of them
        (ELSEWHERE._replace(money=Money(0.0, 0.5, 0.0, 0.0, 100.0, 1e-12), max_order_lots=500), 0.25, 0, 125),
    ],
)
def test_hedge_lots(venue: HedgeVenue, base: float, position: int, lots: int) -> None:
    assert hedge_lots(venue, base, position, 50_000.0) == lots
    assert hedge_lots.compiled(venue, base, position, 50_000.0) == lots


def test_an_inverse_contract_can_be_quoted_and_hedged_by_a_linear_one() -> None:
    """125 contracts of 100 quote at 50,000.1 are 0.25 base less a whisker: 24 whole lots of 0.01 there, then less than a lot is open."""
    p = PARAMS._replace(money=Money(0.0, 0.1, 0.0, 0.0, 100.0, 1e-12))
    maker = Maker(p).hold(125)
    assert maker.takers() == [(HEDGE_VENUE, -1, 100_020, 24, HEDGE_PURPOSE)]
    maker.fill(HEDGE_VENUE, maker.order(HEDGE_VENUE), -1, 100_040, 24, 0)
    assert maker.takers() == []


# -- what one venue not known means for the other ----------------------------------------------------------------------------------------


def sides(actions: list[tuple[int, ...]]) -> set[int]:
    return {side for kind, _, side, _, _, tif, _ in actions if kind == ACT_PLACE and tif == GTX}


@pytest.mark.parametrize("broken", [NO_VIEW, HEDGE_VIEW._replace(valid=0), HEDGE_VIEW._replace(ask_ticks=100_040), HEDGE_VIEW._replace(bid_ticks=0)])
@pytest.mark.parametrize(
    ("blind", "position", "quoted", "reason"),
    [
        (BLIND_PULL, 0, set(), HEDGE_BLIND),
        (BLIND_WITHIN_THRESHOLD, 0, {1, -1}, HEDGE_BLIND),
        # 80 lots and an order of 20 are the threshold of 0.1 base; one more lot is beyond it
        (BLIND_WITHIN_THRESHOLD, 80, {1, -1}, HEDGE_BLIND),
        (BLIND_WITHIN_THRESHOLD, 81, {-1}, HEDGE_BLIND),
        (BLIND_WITHIN_THRESHOLD, 400, {-1}, HEDGE_BLIND),
        (BLIND_WITHIN_THRESHOLD, -400, {1}, HEDGE_BLIND),
        (BLIND_KEEP, 400, {1, -1}, 0),
    ],
)
def test_without_the_hedge_venue(broken: MarketView, blind: int, position: int, quoted: set[int], reason: int) -> None:
    maker = Maker(PARAMS._replace(hedge_venue=ELSEWHERE._replace(blind=blind))).hold(position)
    maker.hedge_view = broken
    actions = maker.decide()
    assert sides(actions) == quoted
    assert not [a for a in actions if a[5] == IOC]
    assert maker.trace is not None
    assert maker.trace.reasons == reason


def test_a_quote_that_stands_when_the_hedge_venue_goes_is_pulled_where_it_would_add() -> None:
    maker = Maker().hold(90)
    assert sides(maker.decide()) == {1, -1}
    maker.hedge_view = NO_VIEW
    assert [(kind, side) for kind, _, side, *_ in maker.decide(0.1)] == [(ACT_CANCEL, 1)]


def test_without_the_quote_venue_the_hedge_still_goes() -> None:
    maker = Maker().hold(250)
    maker.decide()
    local_on_gone(maker.state, maker.order(HEDGE_VENUE))
    maker.view = VIEW._replace(valid=0)
    actions = maker.decide(2.0)
    assert [(kind, venue) for kind, venue, *_ in actions] == [(ACT_CANCEL, QUOTE_VENUE)] * 2 + [(ACT_PLACE, HEDGE_VENUE)]
    assert maker.trace is not None
    assert maker.trace.reasons == STALE


def test_nothing_happens_without_either() -> None:
    maker = Maker().hold(250)
    maker.view, maker.hedge_view = NO_VIEW, NO_VIEW
    assert maker.decide() == []


# -- stops -------------------------------------------------------------------------------------------------------------------------------

STOPPED = PARAMS._replace(risk=PARAMS.risk._replace(stop_loss_frac=0.001, max_loss_quote=500.0))


def moved(view: MarketView, frac: float) -> MarketView:
    bid = round(view.bid_ticks * (1 + frac))
    return view._replace(bid_ticks=bid, ask_ticks=bid + 2, microprice=view.microprice * (1 + frac))


def test_a_stop_flattens_both_legs_each_on_its_venue() -> None:
    maker = Maker(STOPPED).hold(300, -10)
    maker.view, maker.hedge_view = moved(VIEW, -0.002), moved(HEDGE_VIEW, -0.002)
    takers = maker.takers()
    assert [(venue, side, lots, why) for venue, side, _, lots, why in takers] == [
        (QUOTE_VENUE, -1, 300, FLATTEN),
        (HEDGE_VENUE, 1, 10, FLATTEN),
    ]
    assert maker.trace is not None
    assert maker.trace.reasons & (STOP_LOSS | COOLDOWN) == STOP_LOSS | COOLDOWN


def test_a_hedged_position_is_not_stopped_by_a_move_it_is_hedged_against() -> None:
    maker = Maker(STOPPED).hold(300, -30)
    maker.view, maker.hedge_view = moved(VIEW, -0.05), moved(HEDGE_VIEW, -0.05)
    assert maker.takers() == []
    assert maker.state.i[HALTED_LATCH] == 0
    # the basis is no hedge: what both legs lost counts
    maker.hedge_view = moved(HEDGE_VIEW, 0.05)
    maker.takers()
    assert maker.state.i[HALTED_LATCH] == 1


def test_flattening_goes_on_until_the_hedge_leg_is_flat_too() -> None:
    """The quote leg fills, the other one in part: through the cool-down its rest is sold, though the net is inside the hedge threshold."""
    maker = Maker(STOPPED).hold(300, -10)
    maker.view, maker.hedge_view = moved(VIEW, -0.002), moved(HEDGE_VIEW, -0.002)
    maker.decide()
    maker.fill(QUOTE_VENUE, maker.order(QUOTE_VENUE), -1, maker.view.bid_ticks, 300, 0)
    order = maker.order(HEDGE_VENUE)
    maker.fill(HEDGE_VENUE, order, 1, maker.hedge_view.ask_ticks, 4, 6)
    local_on_gone(maker.state, order)
    assert [(venue, side, lots, why) for venue, side, _, lots, why in maker.takers()] == [(HEDGE_VENUE, 1, 6, FLATTEN)]
    maker.fill(HEDGE_VENUE, maker.order(HEDGE_VENUE), 1, maker.hedge_view.ask_ticks, 6, 0)
    assert maker.takers() == []
    assert maker.state.ledger[POSITION] == maker.state.hedge_ledger[POSITION] == 0


def test_a_halt_flattens_the_hedge_leg_of_a_flat_quote_venue() -> None:
    maker = Maker(STOPPED).hold(0, -5)
    maker.state.i[HALTED_LATCH] = 1
    assert [(venue, side, lots, why) for venue, side, _, lots, why in maker.takers()] == [(HEDGE_VENUE, 1, 5, FLATTEN)]
    assert maker.trace is not None
    assert maker.trace.reasons == HALTED
    # with the quote venue's market gone as well
    local_on_gone(maker.state, maker.order(HEDGE_VENUE))
    maker.view = NO_VIEW
    assert [(venue, lots, why) for venue, _, _, lots, why in maker.takers(2.0)] == [(HEDGE_VENUE, 5, FLATTEN)]


def test_cooling_down_hedges_only_towards_flat() -> None:
    """A target away from flat is not built while cooling down; an inventory left over is brought to flat, not beyond."""
    p = PARAMS._replace(hedge=PARAMS.hedge._replace(target=0.5))
    maker = Maker(p).hold(10)
    maker.state.i[COOLDOWN_UNTIL] = T + 100 * S
    assert maker.takers() == []
    maker = Maker(p).hold(-300)
    maker.state.i[COOLDOWN_UNTIL] = T + 100 * S
    assert maker.takers() == [(HEDGE_VENUE, 1, 100_062, 30, HEDGE_PURPOSE)]


def test_the_age_and_entry_of_the_net() -> None:
    """A quote position that is hedged to less than a lot is flat, and old age begins anew when the net leaves flat; hedges count at their own price."""
    p = PARAMS._replace(risk=PARAMS.risk._replace(position_timeout_ns=60 * S))
    maker = Maker(p)
    maker.fill(QUOTE_VENUE, 0, 1, 500_000, 100, 0)
    assert (maker.state.f[ENTRY_HALF], maker.state.i[POSITION_SINCE]) == (1_000_000.0, T)
    maker.now += 50 * S
    maker.fill(HEDGE_VENUE, 0, -1, 100_040, 10, 0)
    assert (maker.state.f[ENTRY_HALF], maker.state.i[POSITION_SINCE]) == (0.0, T + 50 * S)
    maker.now += 50 * S
    assert maker.takers(0.0) == []
    # short 0.2 by selling at 50,020 there: in half ticks of the quote venue
    maker.fill(HEDGE_VENUE, 0, -1, 100_040, 20, 0)
    assert (maker.state.f[ENTRY_HALF], maker.state.i[POSITION_SINCE]) == (1_000_400.0, T + 100 * S)
    # half as much again at 50,032 quotes of half the size
    maker.fill(QUOTE_VENUE, 0, -1, 500_320, 100, 0)
    assert maker.state.f[ENTRY_HALF] == pytest.approx((1_000_400.0 * 2 + 1_000_640.0) / 3)
    assert maker.state.i[POSITION_SINCE] == T + 100 * S
    takers = maker.takers(61.0)
    assert maker.trace is not None
    assert maker.trace.reasons & POSITION_TIMEOUT
    assert [(venue, lots, why) for venue, _, _, lots, why in takers] == [(HEDGE_VENUE, 30, FLATTEN)]


def test_a_refused_hedge_does_not_hold_back_quotes() -> None:
    maker = Maker().hold(250)
    maker.decide()
    local_on_reject(maker.state, maker.p.orders, maker.order(HEDGE_VENUE), maker.now)
    assert taker_in_flight(maker.state.orders, HEDGE_VENUE) == 0
    maker.view = moved(VIEW, 0.0001)
    assert sides(maker.decide()) == {1, -1}


def test_funding_is_paid_on_the_position_of_its_venue() -> None:
    maker = Maker().hold(250, -25)
    assert local_on_funding(maker.state, ELSEWHERE.money, HEDGE_VENUE, 0.0001, 50_000.0) == 1_250_000_000
    assert local_on_funding(maker.state, PARAMS.money, QUOTE_VENUE, 0.0001, 50_000.0) == -1_250_000_000
    assert (maker.state.ledger[FUNDING], maker.state.hedge_ledger[FUNDING]) == (-1_250_000_000, 1_250_000_000)


# -- properties --------------------------------------------------------------------------------------------------------------------------


def same(one: tuple[object, ...], two: tuple[object, ...]) -> bool:
    """Equal, nan equal to nan."""
    return all(a == b or (a != a and b != b) for a, b in zip(one, two, strict=True))


def flat_bytes(state: LocalState, actions: Actions) -> bytes:
    return b"".join(x.tobytes() for x in (state.i, state.f, state.ledger, state.hedge_ledger, *state.orders, *actions))


RISKY = PARAMS._replace(
    risk=RiskParams(40, 150, 0.001, 20 * S, 3 * S, math.inf, math.inf, 60.0), hedge=PARAMS.hedge._replace(threshold=0.03, max_latency_s=1.0)
)
VARIANTS = {
    "one venue": RISKY._replace(hedge_venue=NO_HEDGE_VENUE),
    "two venues": RISKY,
    "pull": RISKY._replace(hedge_venue=ELSEWHERE._replace(blind=BLIND_PULL, interval_ns=0, max_order_lots=3, max_position_lots=8)),
    "inverse": RISKY._replace(money=Money(0.0, 0.1, 0.0, 0.0004, 100.0, 1e-12)),
}


@pytest.mark.parametrize("name", VARIANTS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_twins_agree_and_limits_hold_on_random_runs(name: str, seed: int) -> None:
    """Random markets, answers, partial fills and outages through both twins; on the way no limit is passed and no ledger breaks."""
    p = VARIANTS[name]
    rng = np.random.default_rng(seed)
    one, two = new_local_state(T, p.orders), new_local_state(T, p.orders)
    a1, a2 = new_actions(), new_actions()
    mid, now = 500_000, T
    for _ in range(60):
        now += int(rng.integers(1, 2 * S))
        mid += int(rng.integers(-150, 151))
        view = MarketView(int(rng.random() < 0.95), mid, mid + 2, (mid + 2 * rng.random()) * 0.1, float(rng.uniform(-1, 1)), math.nan, 0.2)
        other = (mid + 200) // 5
        hedge_view = MarketView(int(rng.random() < 0.9), other, other + 2, (other + 2 * float(rng.random())) * 0.5, math.nan, math.nan, math.nan)
        before = int(one.ledger[POSITION]), int(one.hedge_ledger[POSITION])
        trace = decide_step(p, view, hedge_view, one, a1, now)
        assert same(trace, decide_step.compiled(p, view, hedge_view, two, a2, now))
        assert flat_bytes(one, a1) == flat_bytes(two, a2)
        for k in range(int(a1.n[0])):
            if a1.kind[k] != ACT_PLACE:
                continue
            if a1.venue[k] == HEDGE_VENUE:
                assert p.hedge_venue.present == 1
                assert hedge_view.valid == 1
                reach = -before[1] if a1.purpose[k] == FLATTEN else None
                if reach is not None:
                    assert a1.side[k] * a1.lots[k] == reach
                else:
                    assert p.hedge_venue.min_lots <= a1.lots[k] <= p.hedge_venue.max_order_lots
                    assert abs(before[1] + a1.side[k] * a1.lots[k]) <= max(p.hedge_venue.max_position_lots, abs(before[1]))
            elif a1.purpose[k] != FLATTEN:
                assert abs(before[0] + a1.side[k] * a1.lots[k]) <= max(p.risk.max_position_lots, abs(before[0]))
                assert a1.purpose[k] == QUOTE or p.hedge_venue.present == 0
        # answers: acknowledged, filled whole or in part, refused, gone, or not yet
        o = one.orders
        for at in range(int(o.used[0])):
            if o.status[at] == 0 or rng.random() < 0.3:
                continue
            args = (int(o.venue[at]), int(o.id[at]), int(o.side[at]), int(o.price_ticks[at]))
            leaves, taker = int(o.leaves_lots[at]), o.purpose[at] != QUOTE
            what = rng.random()
            if what < (0.7 if taker else 0.25):
                lots = int(rng.integers(1, leaves + 1))
                money = p.hedge_venue.money if args[0] == HEDGE_VENUE else p.money
                mid_half = 2 * other + 2 if args[0] == HEDGE_VENUE else 2 * mid + 2
                for state, fill in ((one, local_on_fill), (two, local_on_fill.compiled)):
                    fill(p, state, money, *args, lots, leaves - lots, 0 if taker else 1, mid_half, now)
                if taker and leaves > lots:
                    local_on_gone(one, args[1])
                    local_on_gone.compiled(two, args[1])
            elif what < 0.8:
                local_on_ack(one, args[1])
                local_on_ack.compiled(two, args[1])
            elif what < 0.9 and o.status[at] == PENDING_NEW:
                local_on_reject(one, p.orders, args[1], now)
                local_on_reject.compiled(two, p.orders, args[1], now)
            else:
                local_on_gone(one, args[1])
                local_on_gone.compiled(two, args[1])
        assert flat_bytes(one, a1) == flat_bytes(two, a2)
        assert identity_residual_quanta(one.ledger) == identity_residual_quanta(one.hedge_ledger) == 0
    if p.hedge_venue.present == 0:
        assert not one.hedge_ledger.any()


def test_the_random_runs_reach_both_venues() -> None:
    """The property above is worth nothing on runs that never trade: one of its walks, by hand, trades everywhere."""
    maker = Maker(RISKY)
    rng = np.random.default_rng(5)
    for _ in range(300):
        step = float(rng.normal(0.0, 2e-5))
        maker.view, maker.hedge_view = moved(maker.view, step), moved(maker.hedge_view, step)
        maker.decide()
        o = maker.state.orders
        for at in range(int(o.used[0])):
            if o.status[at] and (o.purpose[at] != QUOTE or rng.random() < 0.3):
                view = maker.hedge_view if o.venue[at] == HEDGE_VENUE else maker.view
                mid_half = view.bid_ticks + view.ask_ticks
                maker.fill(int(o.venue[at]), int(o.id[at]), int(o.side[at]), int(o.price_ticks[at]), int(o.leaves_lots[at]), 0, mid_half)
    assert maker.state.hedge_ledger[TAKER_FILLS] > 10
    assert maker.state.hedge_ledger[HEDGE] < 0
    assert maker.state.ledger[TAKER_FILLS] > 50
