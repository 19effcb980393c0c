"""The replay (compiled loop over precomputed features) and the engine on a simulated venue (plain Python, event by event) are one strategy:
same tape, same parameters, same latency give the same requests, the same fills, the same ledger."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import SPEC, TapeBuilder, random_tape
from parameter_sets import parameter_set

from mm_platform.core.commands import Cancel, Halt, Note, Place
from mm_platform.core.events import Fill, ParametersChanged
from mm_platform.core.parameters import ParameterSet, canonical_json
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.engine.engine import Engine
from mm_platform.engine.settings import EngineLimits, EngineSettings, decision_params
from mm_platform.kernels.accounting import FUNDING, money_of
from mm_platform.kernels.exchange import GTX, IOC
from mm_platform.kernels.orders import PURPOSES
from mm_platform.kernels.signals import SignalParams
from mm_platform.kernels.venue import PLACE
from mm_platform.lake.store import Lake
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.venue import SimulatedVenue, VenueStart, tape_chunks
from mm_platform.tape.features import Features, compute_features
from mm_platform.tape.layout import LAST, Kind, Tape
from mm_platform.tape.simulate import MarketSettings, simulate
from mm_platform.workflow.ingest import IngestSettings, ingest
from mm_platform.workflow.tapes import load_tape

# quotes carry the maker fee, which is fifty ticks on the hand-made markets: a small rebate lets them stand at the touch
CHEAP = msgspec.structs.replace(SPEC, maker_fee=-0.000002)
LIMITS = EngineLimits(
    max_order_notional=10_000.0,
    max_position_notional=8_000.0,
    stop_loss_frac=0.002,
    position_timeout_s=60.0,
    cooldown_s=5.0,
    volatility_pull=4.0,
    toxicity_pull=0.9,
    max_orders_per_10s=40,
)


# the hand-made market moves by a few ticks only
TIGHT = msgspec.structs.replace(LIMITS, stop_loss_frac=8e-6)


@dataclass
class Trail:
    """What one run did: requests and fills as plain tuples, the venue's final ledger."""

    requests: list[tuple[object, ...]]
    fills: list[tuple[object, ...]]
    ledger: list[int]


def run_engine(
    tape: Tape, grid: Features, pset: ParameterSet, settings: ReplaySettings, signals: SignalParams, limits: EngineLimits, chunk_rows: int
) -> Trail:
    step_ns = int(grid.grid_ts[1] - grid.grid_ts[0])
    start, end = int(grid.grid_ts[0]), int(grid.grid_ts[-1])
    engine = Engine(EngineSettings(spec=tape.spec, strategy="as", run_id="parity", start_ns=start, step_ns=step_ns, limits=limits, signals=signals))
    first = int(tape.local_ts.min())
    last = int(max(tape.exch_ts[-1], tape.local_ts.max(), end)) + NS_PER_S
    venue = SimulatedVenue(tape.spec, tape_chunks(tape, chunk_rows), settings, money_of(tape.spec), VenueStart(tape.initial_book, first), end_ns=last)
    trail = Trail([], [], [])

    def carry_out(commands: tuple[object, ...]) -> None:
        for command in commands:
            match command:
                case Place():
                    number = int(command.client_id.rsplit("-", 1)[1])
                    trail.requests.append(
                        (command.ts, "place", number, command.side, command.price_ticks, command.qty_lots, command.tif, command.purpose)
                    )
                case Cancel():
                    trail.requests.append((command.ts, "cancel", int(command.client_id.rsplit("-", 1)[1])))
                case Note() | Halt():
                    continue
            if getattr(command, "at_ns", 0) <= end:
                venue.send(command)  # type: ignore[arg-type]

    carry_out(
        engine.handle(
            ParametersChanged(
                instrument=tape.spec.instrument,
                exch_ts=first,
                local_ts=first,
                version="1",
                sha256=pset.sha256(),
                parameters=canonical_json(pset).decode(),
            )
        )
    )
    while (event := venue.next_event()) is not None:
        if isinstance(event, Fill):
            number = int(event.client_id.rsplit("-", 1)[1])
            trail.fills.append(
                (
                    event.exch_ts,
                    event.local_ts,
                    number,
                    event.side,
                    event.price_ticks,
                    event.qty_lots,
                    event.leaves_lots,
                    int(event.maker),
                    event.mid_half_ticks,
                    round(event.fee_quote * 1e9),
                )
            )
        carry_out(engine.handle(event))
    trail.ledger = venue.ledger().tolist()
    # once every fill has arrived, the local ledger and the venue's tell the same story
    assert engine.ledger()[0] == trail.ledger[0]
    return trail


def run_replay(tape: Tape, grid: Features, pset: ParameterSet, settings: ReplaySettings, limits: EngineLimits) -> Trail:
    """The compiled loop, with its order log."""
    params = decision_params(pset, tape.spec, limits)
    result = replay(tape, grid, [ScheduledParameters(int(grid.grid_ts[0]), params)], dataclasses.replace(settings, order_log=True))
    f = result.fills
    columns = (f.exch_ts, f.local_ts, f.order_id, f.side, f.price_ticks, f.lots, f.leaves_lots, f.maker, f.mid_half_ticks, f.fee_nano)
    fills = [tuple(int(x) for x in row) for row in zip(*columns, strict=True)]
    assert result.orders is not None
    o = result.orders
    requests: list[tuple[object, ...]] = []
    tif = {GTX: "GTX", IOC: "IOC"}
    for k in range(len(o)):
        if o.action[k] == PLACE:
            what = (int(x[k]) for x in (o.order_id, o.side, o.price_ticks, o.lots))
            requests.append((int(o.sent_ns[k]), "place", *what, tif[int(o.tif[k])], PURPOSES[int(o.purpose[k])]))
        else:
            requests.append((int(o.sent_ns[k]), "cancel", int(o.order_id[k])))
    return Trail(requests, fills, result.ledger.tolist())


def hand_made() -> Tape:
    """Everything a tape can hold: depth, prints, prints that fill nobody, best quotes, a new snapshot, mark, funding, a late stream."""
    build = TapeBuilder(CHEAP)
    build.at(0.0).row(Kind.CLEAR, 0, 0, 0, 0, 1)
    for d in range(6):
        build.row(Kind.SNAPSHOT, 1, 0, 500_000 - d, 5 + d, 1)
    for d in range(6):
        build.row(Kind.SNAPSHOT, -1, LAST if d == 5 else 0, 500_004 + d, 5 + d, 1)
    seq, mid = 1, 500_002
    rng = np.random.default_rng(3)
    for second in range(1, 240):
        build.at(second + 0.05)
        seq += 1
        side = 1 if rng.random() < 0.5 else -1
        step = int(rng.integers(-4, 5)) if second % 7 == 0 else 0
        build.trade(side, mid + 8 * side, int(rng.integers(1, 60)))
        if second % 11 == 0:
            build.trade(-side, mid - 30 * side, 500, flags=2)
        build.row(Kind.DEPTH, -side, LAST, mid + 2 * side, int(rng.integers(0, 9)), seq)
        if step:
            mid += step
            seq += 1
            build.at(second + 0.3)
            build.row(Kind.CLEAR, 0, 0, 0, 0, seq)
            for d in range(6):
                build.row(Kind.SNAPSHOT, 1, 0, mid - 2 - d, 5 + d, seq)
            for d in range(6):
                build.row(Kind.SNAPSHOT, -1, LAST if d == 5 else 0, mid + 2 + d, 5 + d, seq)
        build.at(second + 0.4).row(Kind.TOP, 1, 0, mid - 2, 7, seq + (second % 2)).row(Kind.TOP, -1, LAST, mid + 2, 9, seq + (second % 2))
        seq += second % 2
        if second % 3 == 0:
            build.row(Kind.MARK, 0, 0, 0, 0, -1, mid * 0.1, mid * 0.1)
        if second in (60, 180):
            build.funding(0.0001, mid * 0.1)
    tape = build.tape("hand-made")
    # best quotes and prints travel on faster streams than depth: local order differs from venue order
    fast = np.isin(tape.kind, (Kind.TOP, Kind.TRADE))
    tape.local_ts[fast] -= 4 * NS_PER_MS
    return tape


SETTINGS = [
    ReplaySettings(entry_latency_ns=10 * NS_PER_MS, response_latency_ns=10 * NS_PER_MS),
    ReplaySettings(entry_latency_ns=1_400 * NS_PER_MS, response_latency_ns=700 * NS_PER_MS, queue_model="power_prob"),
    ReplaySettings(mode="reference", entry_latency_ns=0, response_latency_ns=0),
]


def both(
    tape: Tape, pset: ParameterSet, settings: ReplaySettings, step_ns: int, chunk_rows: int = 777, limits: EngineLimits = LIMITS
) -> tuple[Trail, Trail]:
    signals = SignalParams(vol_min_samples=5, kyle_min_buckets=5)
    grid = compute_features(tape, step_ns, params=signals)
    return run_replay(tape, grid, pset, settings, limits), run_engine(tape, grid, pset, settings, signals, limits, chunk_rows)


def assert_same(a: Trail, b: Trail) -> None:
    assert a.requests == b.requests
    assert a.fills == b.fills
    assert a.ledger == b.ledger


@pytest.mark.parametrize("settings", SETTINGS, ids=["10ms", "slow", "reference"])
@pytest.mark.parametrize("chunk_rows", [1, 50, 100_000])
def test_hand_made_tape(settings: ReplaySettings, chunk_rows: int) -> None:
    pset = parameter_set(CHEAP, 50_000.0, k=2_000_000.0, sigma=0.2, hedge_threshold_notional=1_500.0)
    replayed, engined = both(hand_made(), pset, settings, NS_PER_S, chunk_rows, TIGHT)
    assert len(replayed.requests) > 100
    # the tape reaches what there is to reach: all purposes, makers and takers, funding paid
    assert {r[7] for r in replayed.requests if r[1] == "place"} == {"quote", "hedge", "flatten"}
    assert {f[7] for f in replayed.fills} == {0, 1}
    assert replayed.ledger[FUNDING] != 0
    assert_same(replayed, engined)


@pytest.mark.parametrize("settings", SETTINGS, ids=["10ms", "slow", "reference"])
def test_random_tape(settings: ReplaySettings) -> None:
    tape = random_tape(6_000, seed=11, spec=CHEAP)
    pset = parameter_set(CHEAP, 50_000.0, k=2_000_000.0, sigma=0.2, hedge_threshold_notional=2_000.0)
    replayed, engined = both(tape, pset, settings, 500 * NS_PER_MS)
    assert len(replayed.fills) > 20
    assert_same(replayed, engined)


def test_an_hour_of_the_simulated_market() -> None:
    start = 1_735_689_600 * NS_PER_S
    assert date(2025, 1, 1).toordinal() * 86_400 == start // NS_PER_S + date(1970, 1, 1).toordinal() * 86_400
    tape = simulate(MarketSettings(), 7, start, 3_600.0).perp
    price = float(tape.spec.tick) * int(tape.price_ticks[tape.kind == Kind.TRADE][0])
    pset = parameter_set(tape.spec, price, k=20_000.0, order_notional=1_000.0, max_inventory_notional=6_000.0, hedge_threshold_notional=4_000.0)
    replayed, engined = both(tape, pset, ReplaySettings(), NS_PER_S, 4_000)
    assert len(replayed.fills) > 300
    assert_same(replayed, engined)


@pytest.mark.shared
def test_a_real_capture(shared: Path, tmp_path: Path) -> None:
    """Some twenty thousand rows of BTCUSDT with its thousand levels, best quotes that run ahead of the depth, and streams that overtake each other."""
    lake = Lake.open(tmp_path)
    ingest(lake, [shared / "data" / "binance_ws" / "usdm" / "btcusdt_20240718.gz"], {}, IngestSettings())
    partition = lake.partitions("tape")[0]
    whole = load_tape(lake, partition.instrument, [partition.date])
    assert {int(Kind.TOP), int(Kind.TRADE), int(Kind.DEPTH)} <= set(np.unique(whole.kind).tolist())
    spec = msgspec.structs.replace(whole.spec, maker_fee=-0.00001)
    tape = dataclasses.replace(whole.slice_exch(int(whole.exch_ts[0]), int(whole.exch_ts[24_000]), whole.initial_book), spec=spec)
    price = float(spec.tick) * int(tape.price_ticks[tape.kind == Kind.TRADE][0])
    pset = parameter_set(
        spec, price, k=2_000_000.0, sigma=0.2, order_notional=1_000.0, max_inventory_notional=6_000.0, hedge_threshold_notional=900.0
    )
    replayed, engined = both(tape, pset, ReplaySettings(), 100 * NS_PER_MS, 4_000)
    assert len(replayed.fills) > 5
    assert_same(replayed, engined)
