"""Quoting on one venue and hedging on another: whose book, whose clock, whose money."""

from __future__ import annotations

import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from builders import SPEC, T0, TapeBuilder, decision_params, random_tape
from test_many_sets import CHEAP, assert_same

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import CASH, FEES, FUNDING, POSITION, money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.hedging import HedgeVenue
from mm_platform.kernels.orders import HEDGE
from mm_platform.replay.latency import ConstantLatency
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import RunOptions, ScheduledParameters, SetInput, VenueInput, cut, replay_many, replay_pieces
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import Kind, Tape

# the hedge venue: another tick, lots ten times as large, its own fees
ELSEWHERE = msgspec.structs.replace(SPEC, instrument="other:BTC-USDT-PERP", tick_size="0.5", lot_size="0.01", maker_fee=0.0, taker_fee=0.0003)
QUOTE = ReplaySettings(sample_every=1, order_log=True)
HEDGE_SETTINGS = ReplaySettings(entry_latency_ns=40 * NS_PER_MS, response_latency_ns=30 * NS_PER_MS, order_log=True)


def with_hedge_venue(p: DecisionParams, spec: InstrumentSpec = ELSEWHERE, **changes: int) -> DecisionParams:
    venue = HedgeVenue(1, money_of(spec), max_order_lots=1_000, max_position_lots=1_000, slippage_ticks=20)
    return p._replace(hedge_venue=venue._replace(**changes), hedge=p.hedge._replace(max_latency_s=0.0, min_size=0.0))


def both(
    quote: Tape, hedge: Tape, step_ns: int = NS_PER_S, settings: tuple[ReplaySettings, ReplaySettings] = (QUOTE, HEDGE_SETTINGS)
) -> list[VenueInput]:
    start = int(min(quote.local_ts.min(), hedge.local_ts.min()))
    end = int(max(quote.local_ts.max(), hedge.local_ts.max())) + step_ns
    return [VenueInput(t, compute_features(t, step_ns, start, end), s) for t, s in zip((quote, hedge), settings, strict=True)]


def hand_made() -> tuple[Tape, Tape]:
    """A print fills our bid at 20 s; the other venue stands at 200.5 ticks of 0.5 (100.25) and moves up at 20.8 s; funding there at 30 s, 31 s."""
    quote = TapeBuilder(CHEAP).book(1000, 1002, 10)
    hedge = TapeBuilder(ELSEWHERE).book(200, 201, 50)
    for s in range(1, 20):
        quote.at(s).level(1, 996, 14 + s % 2)
        hedge.at(s).level(1, 196, 14 + s % 2)
    quote.at(20).trade(-1, 999, 60)
    hedge.at(20.8).row(Kind.MARK, 0, 0, 0, 0, -1, 100.4, 100.3)
    hedge.at(21.02).level(1, 200, 7, last=False).level(1, 199, 50)
    hedge.at(30).funding(0.001, math.nan).at(31).funding(-0.002, 99.0)
    for s in range(32, 40):
        quote.at(s).level(1, 996, 14 + s % 2)
        hedge.at(s).level(1, 196, 14 + s % 2)
    return quote.tape(), hedge.tape()


def run_hand_made() -> ReplayResult:
    params = with_hedge_venue(decision_params(CHEAP, k=30_000.0, threshold=0.001, order_lots=100, position_lots=1_000))
    venues = both(*hand_made())
    return replay_many(venues, [SetInput([ScheduledParameters(int(venues[0].features.grid_ts[0]), params)])])[0]


def test_a_fill_is_hedged_where_the_parameters_say() -> None:
    result = run_hand_made()
    fills = result.fills
    maker, takers = fills.where(fills.venue_no == 0), fills.where(fills.venue_no == 1)
    # sixty lots were printed through our bid: 0.06 base bought, six lots of 0.01 sold elsewhere
    assert (maker.maker.tolist(), maker.lots.tolist(), maker.side.tolist()) == ([1], [60], [1])
    assert takers.maker.tolist() == [0]
    assert (takers.lots.tolist(), takers.side.tolist(), takers.price_ticks.tolist()) == ([6], [-1], [200])
    assert (takers.purpose == HEDGE).all()
    # the print is known after 10 ms, decided on at 21 s, there after 40 ms, known after 30 ms
    sent = T0 + 21 * NS_PER_S
    assert takers.exch_ts[0] == sent + 40 * NS_PER_MS
    assert takers.local_ts[0] == sent + 70 * NS_PER_MS
    assert takers.decided_mid_half_ticks[0] == 401
    assert result.hedge is not None
    assert int(result.hedge.ledger[POSITION]) == -6
    assert int(result.ledger[POSITION]) == 60
    assert result.hedge.sample_position_lots[-1] == -6
    assert int(result.hedge.ledger[FEES]) == math.floor(6 * 0.01 * 100.0 * 0.0003 * 1e9 + 0.5)
    orders = result.orders
    assert orders is not None
    there = orders.venue_no == 1
    assert (orders.outcome[there] == 2).all()


def test_funding_is_paid_there_on_its_own_mark() -> None:
    result = run_hand_made()
    assert result.hedge is not None
    # short 0.06: receives 0.1 % of the last published mark, then pays 0.2 % of the mark at the stamp
    received = math.floor(0.06 * 100.4 * 0.001 * 1e9 + 0.5) + math.floor(-0.06 * 99.0 * 0.002 * 1e9 + 0.5)
    assert int(result.hedge.ledger[FUNDING]) == received
    assert int(result.ledger[FUNDING]) == 0


def test_the_split_of_the_hedge_is_exact() -> None:
    result = run_hand_made()
    split = result.hedge_attribution
    assert split is not None
    assert result.hedge is not None
    assert split.residual_quanta == 0
    # sold at 100.0 against a mid of 100.25: six lots of 0.01
    assert split.crossing == Fraction(-25, 100) * Fraction(6, 100)
    tick = {0: Fraction(1, 10) * Fraction(1, 1000) / 2, 1: Fraction(1, 2) * Fraction(1, 100) / 2}
    total = Fraction(0)
    for v, ledger in enumerate((result.ledger, result.hedge.ledger)):
        mark = 2002 if v == 0 else 401
        total += (int(ledger[CASH]) + int(ledger[POSITION]) * mark) * tick[v] + Fraction(int(ledger[FUNDING]) - int(ledger[FEES]), 10**9)
    assert split.total == total
    assert result.sample_equity_quote[-1] == pytest.approx(float(total), abs=1e-9)


def random_pair(rows: int = 6_000) -> list[VenueInput]:
    quote = random_tape(rows, 5, spec=CHEAP)
    hedge = random_tape(rows, 6, spec=ELSEWHERE, mid=100_000)
    return both(quote, hedge, 500 * NS_PER_MS)


def hedged_sets(venues: list[VenueInput], n: int) -> list[SetInput]:
    start = int(venues[0].features.grid_ts[2])
    sets = []
    for k in range(n):
        params = with_hedge_venue(decision_params(CHEAP, gamma=0.01, threshold=0.01 + 0.005 * k, order_lots=12, position_lots=200, refresh_s=0.5))
        latencies = [ConstantLatency((5 + k) * NS_PER_MS, 7 * NS_PER_MS), ConstantLatency((90 - 3 * k) * NS_PER_MS, 20 * NS_PER_MS)]
        sets.append(SetInput([ScheduledParameters(start, params)], latencies))
    return sets


def assert_same_hedge(one: ReplayResult, two: ReplayResult) -> None:
    assert_same(one, two)
    assert one.hedge is not None
    assert two.hedge is not None
    for name in ("ledger", "pair", "sample_position_lots"):
        assert getattr(one.hedge, name).tobytes() == getattr(two.hedge, name).tobytes(), name


def test_two_venues_in_one_pass_in_pieces_on_threads_and_in_python() -> None:
    venues = random_pair()
    sets = hedged_sets(venues, 6)
    together = replay_many(venues, sets)
    assert sum(r.counters.hedges for r in together) > 100
    until = int(max(max(v.tape.local_ts.max(), v.features.grid_ts[-1]) for v in venues)) + NS_PER_S
    pieces = list(cut(venues, [T0 + k * 37 * NS_PER_S + 11 for k in (1, 2, 4)], until))
    for other in (
        [replay_many(venues, [one])[0] for one in sets],
        replay_pieces(pieces, [v.model() for v in venues], sets),
        replay_many(venues, sets, options=RunOptions(threads=2)),
    ):
        for a, b in zip(together, other, strict=True):
            assert_same_hedge(a, b)
    assert_same_hedge(together[1], replay_many(venues, [sets[1]], options=RunOptions(compiled=False))[0])


def test_the_split_is_exact_on_random_markets() -> None:
    for result in replay_many(venues := random_pair(), hedged_sets(venues, 4)):
        split = result.hedge_attribution
        assert split is not None
        assert result.hedge is not None
        assert split.residual_quanta == 0
        parts = (result.attribution, result.hedge.attribution)
        assert float(split.total) == pytest.approx(sum(p.total_pnl for p in parts), abs=1e-9)
        assert split.crossing < 0
        # the net stays near the threshold while each leg goes further
        net = result.sample_position_lots * 0.001 + result.hedge.sample_position_lots * 0.01
        assert np.abs(result.sample_position_lots * 0.001).max() > np.abs(net).max()


def test_the_other_venue_decides_nothing_before_it_is_known() -> None:
    """Other prices on the hedge venue after a time change nothing before it, on either venue."""
    venues = random_pair()
    sets = hedged_sets(venues, 3)
    tape = venues[1].tape
    cut_ns = int(tape.local_ts[len(tape) // 2])
    columns = {name: column.copy() for name, column in tape.columns().items()}
    later = columns["local_ts"] > cut_ns
    columns["price_ticks"][later] += np.random.default_rng(1).integers(-3, 4, later.sum())
    other = both(venues[0].tape, Tape.from_columns(tape.spec, columns), 500 * NS_PER_MS)
    for one, two in zip(replay_many(venues, sets), replay_many(other, sets), strict=True):
        before = one.fills.exch_ts < cut_ns - 100 * NS_PER_MS
        assert before.sum() > 30
        for name, column in one.fills.columns().items():
            assert column[before].tobytes() == two.fills.columns()[name][: before.sum()].tobytes(), name
        assert one.fills.price_ticks.tobytes() != two.fills.price_ticks.tobytes()


def test_inputs_of_two_venues_that_no_run_can_have() -> None:
    venues = random_pair(600)
    sets = hedged_sets(venues, 1)
    grid = VenueInput(venues[1].tape, compute_features(venues[1].tape, NS_PER_S), HEDGE_SETTINGS)
    with pytest.raises(DataError, match="another decision grid"):
        replay_many([venues[0], grid], sets)
    params = with_hedge_venue(decision_params(CHEAP), SPEC)
    with pytest.raises(DataError, match=r"hedge_venue\.money\.lot_base is 0\.001.*other:BTC-USDT-PERP has 0\.01"):
        replay_many(venues, [SetInput([ScheduledParameters(sets[0].schedule[0].from_ns, params)])])
    with pytest.raises(DataError, match=r"hedge_venue\.present is 0 in a run of 2 venue"):
        replay_many(venues, [SetInput([ScheduledParameters(sets[0].schedule[0].from_ns, decision_params(CHEAP))])])
    with pytest.raises(DataError, match="one venue or two, got 3"):
        replay_many([*venues, venues[1]], sets)
