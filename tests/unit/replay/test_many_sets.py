"""Many sets in one pass: each gets what a run of its own gives, whatever else is in the run and however it is carried out."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from builders import SPEC, T0, TapeBuilder, decision_params, random_tape

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import FEES, POSITION
from mm_platform.kernels.margin import margin_params
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.latency import ConstantLatency, DrawnLatency
from mm_platform.replay.order_table import OrderTable
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import RunOptions, ScheduledParameters, SetInput, VenueInput, replay, replay_many
from mm_platform.replay.settings import ReplaySettings, SpotBalances
from mm_platform.tape.features import Features, compute_features
from mm_platform.tape.layout import Kind, Tape

# a rebate lets the quotes of the hand-made markets stand at the touch
CHEAP = msgspec.structs.replace(SPEC, maker_fee=-0.000002)


def assert_same(one: ReplayResult, two: ReplayResult, *, set_no: bool = False) -> None:
    """Byte by byte; the number of a set is where it stood in its run."""
    for name in ("ledger", "sample_ts", "sample_equity_quote", "sample_position_lots", "sample_mid_half_ticks"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes(), name
    for column in dataclasses.fields(FillTable):
        if set_no or column.name != "set_no":
            assert getattr(one.fills, column.name).tobytes() == getattr(two.fills, column.name).tobytes(), column.name
    assert (one.orders is None) == (two.orders is None)
    if one.orders is not None and two.orders is not None:
        for column in dataclasses.fields(OrderTable):
            if set_no or column.name != "set_no":
                assert getattr(one.orders, column.name).tobytes() == getattr(two.orders, column.name).tobytes(), column.name
    assert one.counters == two.counters
    assert (one.from_ns, one.through_ns, one.status) == (two.from_ns, two.through_ns, two.status)


def market(rows: int = 8_000, seed: int = 5, step_ns: int = 500 * NS_PER_MS) -> tuple[Tape, Features]:
    tape = random_tape(rows, seed, spec=CHEAP)
    return tape, compute_features(tape, step_ns)


def some_sets(start_ns: int, n: int, *, own_latency: bool) -> list[SetInput]:
    """Sets that differ in parameters, start, end, schedule and, if asked, latency."""
    sets = []
    for k in range(n):
        params = decision_params(CHEAP, gamma=0.01 + 0.001 * k, threshold=0.03 if k % 2 else math.inf, order_lots=5 + k % 7, refresh_s=0.5)
        later = params._replace(orders=params.orders._replace(order_lots=3))
        begin = start_ns + (k % 3) * 7 * NS_PER_S
        schedule = [ScheduledParameters(begin, params)]
        if k % 4 == 1:
            schedule.append(ScheduledParameters(begin + 40 * NS_PER_S + k, later))
        latency = [ConstantLatency((5 + k) * NS_PER_MS, (3 + 2 * k) * NS_PER_MS), DrawnLatency(k, 20e6, 0.7, 10e6, 0.4, NS_PER_MS)][k % 2]
        end = begin + 150 * NS_PER_S + 17 if k % 5 == 4 else None
        sets.append(SetInput(schedule, [latency] if own_latency else None, end))
    return sets


@pytest.mark.parametrize("mode", ["conservative", "reference"])
@pytest.mark.parametrize("own_latency", [False, True])
def test_a_sweep_is_its_single_runs(mode: str, own_latency: bool) -> None:
    tape, features = market()
    model = "risk_adverse" if mode == "conservative" else "power_prob"
    settings = ReplaySettings(mode=mode, queue_model=model, sample_every=7, order_log=True)  # type: ignore[arg-type]
    venue = VenueInput(tape, features, settings)
    sets = some_sets(int(features.grid_ts[0]), 35, own_latency=own_latency)
    together = replay_many([venue], sets)
    assert sum(len(r.fills) for r in together) > 1_500
    assert len({r.ledger.tobytes() for r in together}) > 30
    for k in (0, 1, 4, 13, 33, 34):
        assert_same(together[k], replay_many([venue], [sets[k]])[0])
    turned = replay_many([venue], sets[::-1])[::-1]
    for number, (one, other) in enumerate(zip(together, turned, strict=True)):
        assert one.set_no == number
        assert_same(one, other)
    for threads in (2, 3):
        for one, other in zip(together, replay_many([venue], sets, options=RunOptions(threads=threads)), strict=True):
            assert_same(one, other, set_no=True)


def test_the_python_twin_is_the_same_run() -> None:
    tape, features = market(2_500)
    venue = VenueInput(tape, features, ReplaySettings(order_log=True))
    sets = some_sets(int(features.grid_ts[0]), 6, own_latency=True)
    compiled, plain = (replay_many([venue], sets, options=RunOptions(compiled=c)) for c in (True, False))
    assert sum(len(r.fills) for r in compiled) > 50
    for one, other in zip(compiled, plain, strict=True):
        assert_same(one, other, set_no=True)


def test_sinks_get_what_results_would_hold() -> None:
    tape, features = market()
    venue = VenueInput(tape, features, ReplaySettings(order_log=True))
    sets = some_sets(int(features.grid_ts[0]), 9, own_latency=True)
    held = replay_many([venue], sets)
    fills: list[FillTable] = []
    orders: list[OrderTable] = []
    results = replay_many([venue], sets, options=RunOptions(threads=2, fill_sink=fills.append, order_sink=orders.append))
    assert all(len(r.fills) == 0 and r.orders is None for r in results)
    table = FillTable.concatenate(fills)
    for k, one in enumerate(held):
        got = table.of_set(k)
        for column in dataclasses.fields(FillTable):
            assert getattr(got, column.name).tobytes() == getattr(one.fills, column.name).tobytes(), column.name
        assert one.orders is not None
        assert sum(len(part.of_set(k)) for part in orders) == len(one.orders)


def test_a_log_that_is_full_is_drained_and_the_run_goes_on() -> None:
    """More executions than the log holds at once."""
    build = TapeBuilder(CHEAP).book(1000, 1002, 1000)
    for n in range(1, 6_000):
        build.at(n).trade(-1 if n % 2 else 1, 995 if n % 2 else 1007, 3)
    tape = build.tape()
    features = compute_features(tape, NS_PER_S)
    params = decision_params(CHEAP, order_lots=2, refresh_s=0.5, k=1e5, orders_per_s=100.0)
    sets = [SetInput([ScheduledParameters(int(features.grid_ts[0]), params)]) for _ in range(16)]
    pieces: list[int] = []
    replay_many([VenueInput(tape, features, ReplaySettings())], sets, options=RunOptions(fill_sink=lambda t: pieces.append(len(t))))
    assert len(pieces) > 1
    assert sum(pieces) == 16 * len(replay(tape, features, sets[0].schedule, ReplaySettings()).fills)


def test_requests_add_up() -> None:
    tape, features = market()
    result = replay(tape, features, some_sets(int(features.grid_ts[0]), 2, own_latency=False)[1].schedule, ReplaySettings(order_log=True))
    orders, c = result.orders, result.counters
    assert orders is not None
    assert ((orders.action == 1).sum(), (orders.action == 2).sum()) == (c.orders, c.cancels)
    assert (np.diff(orders.sent_ns) >= 0).all()
    arrived = orders.arrived_ns > 0
    assert (orders.arrived_ns[arrived] == orders.sent_ns[arrived] + 10 * NS_PER_MS).all()
    known = orders.answered_ns > 0
    assert (orders.answered_ns[known] == orders.arrived_ns[known] + 10 * NS_PER_MS).all()
    # every order that filled is one that was sent, and was at the venue when the fill says that it came
    placed = {int(i): int(t) for i, t in zip(orders.order_id[orders.action == 1], orders.arrived_ns[orders.action == 1], strict=True)}
    assert all(placed[int(i)] == int(t) for i, t in zip(result.fills.order_id, result.fills.arrived_ns, strict=True))
    assert np.isnan(result.fills.front_arrival_lots).tolist() == (result.fills.maker == 0).tolist()
    assert (result.fills.decided_mid_half_ticks > 0).all()


def test_samples_on_a_grid_of_time() -> None:
    tape, features = market()
    start = int(features.grid_ts[0])
    result = replay(tape, features, [ScheduledParameters(start, decision_params(CHEAP))], ReplaySettings(sample_step_ns=10 * NS_PER_S))
    buckets = result.sample_ts[:-1] // (10 * NS_PER_S)
    assert (np.diff(buckets) == 1).all()
    assert (result.sample_ts[1:-1] % (10 * NS_PER_S) == 0).all()


def test_fee_tiers_by_traded_volume() -> None:
    tape, features = market()
    entry = ScheduledParameters(int(features.grid_ts[0]), decision_params(CHEAP))
    flat = replay(tape, features, [entry], ReplaySettings())
    tiers = ((0.0, 0.0002, 0.0005), (20_000.0, 0.0001, 0.0004))
    tiered = replay(tape, features, [entry], ReplaySettings(tiers=tiers))
    notional = flat.fills.price_ticks * flat.fills.lots * 0.1 * 0.001
    before = np.cumsum(notional) - notional
    # an execution pays the tier that the ones before it have reached
    rate = np.where(before >= 20_000.0, 0.0001, 0.0002)
    assert 0 < (before < 20_000.0).sum() < len(before)
    np.testing.assert_array_equal(tiered.fills.fee_nano, np.floor(notional * rate * 1e9 + 0.5).astype(np.int64))
    assert int(tiered.ledger[FEES]) == int(tiered.fills.fee_nano.sum())
    assert tiered.fills.exch_ts.tobytes() == flat.fills.exch_ts.tobytes()
    ahead = replay(tape, features, [entry], ReplaySettings(tiers=tiers, trailing_volume_quote=20_000.0))
    np.testing.assert_array_equal(ahead.fills.fee_nano, np.floor(notional * 0.0001 * 1e9 + 0.5).astype(np.int64))


def test_liquidation_ends_a_set_and_no_other() -> None:
    """Long after a print at 999, the market falls by a tenth: twenty times leverage does not survive it, one does."""
    build = TapeBuilder(CHEAP).book(1000, 1002, 10)
    for s in range(1, 20):
        build.at(s).level(1, 996, 14 + s % 2)
    build.at(20).trade(-1, 999, 60)
    build.at(30).row(Kind.CLEAR, 0, 0, 0, 0).book(900, 902, 10)
    for s in range(31, 60):
        build.at(s).level(1, 896, 14 + s % 2)
    tape = build.tape()
    features = compute_features(tape, NS_PER_S)
    entry = ScheduledParameters(int(features.grid_ts[0]), decision_params(CHEAP, k=30_000.0))

    def run(collateral: float) -> ReplayResult:
        return replay(tape, features, [entry], ReplaySettings(sample_every=1, margin=margin_params(collateral, 20.0, 0.005)))

    poor, rich = run(0.06), run(10.0)
    assert poor.status.startswith("liquidated")
    assert rich.status == "done"
    assert poor.ledger[POSITION] > 0
    assert int(poor.sample_ts[-1]) < int(rich.sample_ts[-1])
    assert T0 + 30 * NS_PER_S <= int(poor.sample_ts[-2]) <= T0 + 31 * NS_PER_S
    distance = poor.sample_liquidation_distance_frac
    assert distance is not None
    assert distance[-1] <= 0.0
    held = poor.sample_position_lots[:-2] != 0
    assert np.isnan(distance[:-2][~held]).all()
    assert (distance[:-2][held] > 0.0).all()
    assert replay(tape, features, [entry], ReplaySettings()).sample_liquidation_distance_frac is None


def test_a_spot_account_buys_and_sells_what_it_has() -> None:
    spot = msgspec.structs.replace(CHEAP, instrument="sim:BTC-USDT", contract="spot", funding_interval_s=None)
    tape = random_tape(8_000, 5, spec=spot)
    features = compute_features(tape, 500 * NS_PER_MS)
    entry = ScheduledParameters(int(features.grid_ts[0]), decision_params(spot, order_lots=10))
    free = replay(tape, features, [entry], ReplaySettings())
    balances = SpotBalances(base_lots=7, quote=600.0)
    held = replay(tape, features, [entry], ReplaySettings(balances=balances, order_log=True))
    signed = free.fills.side * free.fills.lots
    assert np.cumsum(signed).min() < -7
    lots = 7 + np.cumsum(held.fills.side * held.fills.lots)
    money = [Fraction(600)]
    for side, price, n, fee in zip(held.fills.side, held.fills.price_ticks, held.fills.lots, held.fills.fee_nano, strict=True):
        money.append(money[-1] - int(side) * int(price) * int(n) * Fraction(1, 10_000) - Fraction(int(fee), 10**9))
    assert len(held.fills) > 10
    assert lots.min() >= 0
    assert min(money) >= 0
    assert held.orders is not None
    assert (held.orders.outcome == 6).sum() > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p._replace(quote=p.quote._replace(k_bid=math.nan)), r"set 1, entry 0 of its schedule: parameter quote\.k_bid is nan"),
        (lambda p: p._replace(money=p.money._replace(lot_base=math.nan)), r"set 1, entry 0 of its schedule: parameter money\.lot_base is nan"),
        (
            lambda p: p._replace(money=p.money._replace(tick_size=0.5)),
            r"set 1, entry 0 of its schedule: money\.tick_size is 0\.5.*another instrument",
        ),
        (lambda p: p._replace(orders=p.orders._replace(refresh_ns=2**60 + 1)), r"orders\.refresh_ns is \d+, more than a row"),
        (lambda p: p._replace(hedge_venue=p.hedge_venue._replace(present=1)), r"hedge_venue\.present is 1 in a run of 1 venue"),
    ],
)
def test_parameters_that_no_run_can_have(change, said: str) -> None:  # type: ignore[no-untyped-def]
    tape, features = market(1_000)
    start, good = int(features.grid_ts[0]), decision_params(CHEAP)
    sets = [SetInput([ScheduledParameters(start, good)]), SetInput([ScheduledParameters(start, change(good))])]
    with pytest.raises(DataError, match=said):
        replay_many([VenueInput(tape, features, ReplaySettings())], sets)


def test_inputs_that_no_run_can_have() -> None:
    tape, features = market(1_000)
    entry = ScheduledParameters(int(features.grid_ts[0]), decision_params(CHEAP))
    other = compute_features(random_tape(1_000, 5, spec=CHEAP, mid=400_000), 500 * NS_PER_MS)
    with pytest.raises(DataError, match=r"features are of another tape: at decision \d+"):
        replay(tape, other, [entry], ReplaySettings())
    back = {name: column.copy() for name, column in tape.columns().items()}
    back["exch_ts"][500] = back["exch_ts"][10]
    unsorted = dataclasses.replace(tape, exch_ts=back["exch_ts"])
    with pytest.raises(DataError, match=r"row 500: exch_ts \d+ lies before the row above"):
        replay(unsorted, features, [entry], ReplaySettings())
    none = dataclasses.replace(tape, **{name: column[:0] for name, column in tape.columns().items()})
    with pytest.raises(DataError, match="nothing to replay: 0 rows"):
        replay(none, features, [entry], ReplaySettings())
    with pytest.raises(DataError, match="no parameter sets"):
        replay_many([VenueInput(tape, features, ReplaySettings())], [])
    with pytest.raises(DataError, match=r"row \d+ at .*: price \d+ ticks takes the market beyond the book's window"):
        replay_many([VenueInput(tape, features, ReplaySettings(), (499_997, 500_003))], [SetInput([entry])])
