"""The runner on small markets: parameters coming and going, the journal as a proof, stopping, limits."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import SPEC, random_tape
from parameter_sets import parameter_set
from runner_world import LIMITS, OTHER_KEY, MemoryDisk, MemoryRegistry, World, cheap, published

from mm_platform.core.commands import Place
from mm_platform.core.errors import ConfigError, ConnectivityError, DataError, InvariantError, RegistryError
from mm_platform.core.events import Control, Fill, OrderReject, ParametersChanged
from mm_platform.core.parameters import ParameterSet
from mm_platform.core.units import NS_PER_S
from mm_platform.live.clock import RealClock
from mm_platform.live.disk import sole_runner
from mm_platform.live.journal import read_journal, replay_journal
from mm_platform.live.limits import RunnerLimits
from mm_platform.live.order_gate import REFUSED_BY_RUNNER
from mm_platform.live.parameters import BackgroundPolling, Refused
from mm_platform.tape.book_path import mid_path
from mm_platform.tape.layout import Tape

CHEAP = cheap(SPEC)
PRICE = 50_000.0


@pytest.fixture(scope="module")
def tape() -> Tape:
    """Some four minutes."""
    return random_tape(8_000, seed=5, spec=CHEAP)


def maker(**changes: object) -> ParameterSet:
    """Quotes at the touch, hedges from four orders on."""
    defaults: dict[str, object] = {
        "k": 2_000_000.0,
        "sigma": 0.2,
        "hedge_threshold_notional": 800.0,
        "max_inventory_notional": 10_000.0,
        "fitted_through_ns": 1_699_990_000 * NS_PER_S,
    }
    return parameter_set(CHEAP, PRICE, **(defaults | changes))  # type: ignore[arg-type]


def world(tape: Tape, folder: Path, pset: ParameterSet | None = None, **changes: object) -> World:
    return World(tape, MemoryRegistry(published(pset or maker())), folder, **changes)  # type: ignore[arg-type]


# -- a whole run -------------------------------------------------------------------------------------------------------------------------


def test_a_run_quotes_fills_hedges_and_its_books_agree(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)
    s = w.run(200.0)
    assert s.stopped == "duration"
    assert s.decisions == 200
    assert s.maker_fills > 30
    assert s.taker_fills > 0
    assert s.orders_left == 0
    assert s.order_refusals == 0
    assert s.parameter_versions == ("1",)
    assert len(w.sink.rows) == s.fills
    # the venue's ledger of our account is an independent book
    assert w.venue is not None
    truth = w.venue.ledger()
    assert truth[0] == s.position_lots
    assert truth[5] * 1e-9 == pytest.approx(s.pnl.fees, abs=1e-12)
    assert s.pnl.residual_quanta == 0
    assert math.fsum((s.pnl.spread_pnl, s.pnl.hedge_pnl, s.pnl.inventory_pnl, -s.pnl.fees, s.pnl.funding)) == s.total_pnl


def test_the_same_world_gives_the_same_journal(tape: Tape, tmp_path: Path) -> None:
    a, b = world(tape, tmp_path / "a"), world(tape, tmp_path / "b")
    a.run(60.0)
    b.run(60.0)
    assert a.journal_path.read_bytes() == b.journal_path.read_bytes()


def test_markouts_are_those_of_the_kernel_over_the_venues_mids(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)
    w.run(200.0)
    path = mid_path(tape)
    rows = list(w.sink.rows.values())
    assert len(rows) > 30
    known = 0
    for row in rows:
        for h in (1, 5, 30, 60, 300):
            at = row["exch_ts"] + h * NS_PER_S
            j = int(np.searchsorted(path.exch_ts, at, side="right")) - 1
            expected = row["side"] * (0.5 * path.half_ticks[j] * 0.1 - row["mid"]) / row["mid"] * 1e4
            got = row[f"markout_{h}s_bps"]
            if not math.isnan(got):
                known += 1
                assert got == pytest.approx(expected, abs=1e-9)
        assert math.isnan(row["markout_300s_bps"])
    assert known > 60


def test_fills_carry_purpose_and_version(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)
    w.run(200.0)
    assert {r["purpose"] for r in w.sink.rows.values()} == {"quote", "hedge"}
    assert all(r["maker"] == (r["purpose"] == "quote") for r in w.sink.rows.values())
    assert {r["parameter_version"] for r in w.sink.rows.values()} == {"1"}


# -- the journal -------------------------------------------------------------------------------------------------------------------------


def test_replaying_the_journal_gives_the_same_commands_and_state(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)
    s = w.run(120.0)
    replayed = replay_journal(w.journal_path)
    assert replayed.differs_at == -1
    assert replayed.commands > 300
    assert w.engine is not None
    assert replayed.engine.ledger().tolist() == w.engine.ledger().tolist()
    assert replayed.engine.position_lots == s.position_lots
    for ours, theirs in zip(replayed.engine.state.orders, w.engine.state.orders, strict=True):
        assert ours.tolist() == theirs.tolist()


def test_a_journal_cut_anywhere_is_read_and_agrees(tape: Tape, tmp_path: Path) -> None:
    disk = MemoryDisk()
    w = world(tape, tmp_path, disk=disk)
    w.run(40.0)
    whole = disk.files[w.journal_path]
    header_end = whole.index(b"\n") + 1
    cuts = np.random.default_rng(1).integers(header_end, len(whole), 25).tolist()
    last_line = whole.rstrip(b"\n").rindex(b"\n")
    for cut in [*cuts, header_end, last_line, last_line + 1, last_line + 2, len(whole) - 1]:
        disk.files[w.journal_path] = whole[:cut]
        assert replay_journal(w.journal_path, disk).differs_at == -1
    disk.files[w.journal_path] = whole[: header_end - 1]
    with pytest.raises(DataError, match="not even the header"):
        read_journal(w.journal_path, disk)


def test_a_tampered_journal_is_noticed(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)
    w.run(40.0)
    lines = w.journal_path.read_bytes().split(b"\n")
    at = next(n for n, line in enumerate(lines) if line.startswith(b'{"c":{"type":"Place"'))
    lines[at] = lines[at].replace(b'"qty_lots":', b'"qty_lots":9')
    w.journal_path.write_bytes(b"\n".join(lines))
    assert replay_journal(w.journal_path).differs_at >= 0
    lines[at] = lines[at][:-3]
    w.journal_path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=f"line {at + 1} is damaged"):
        read_journal(w.journal_path)


def test_orders_are_on_disk_before_they_leave(tape: Tape, tmp_path: Path) -> None:
    """With fsync "orders" a power cut at any moment leaves every order that the venue ever saw in the journal."""
    disk = MemoryDisk()
    w = world(tape, tmp_path, disk=disk, fsync="orders")
    seen: list[str] = []
    real_run = w.run

    from mm_platform.replay.venue import SimulatedVenue

    original = SimulatedVenue.send

    def send(self: SimulatedVenue, command: object) -> None:
        if isinstance(command, Place):
            assert command.client_id.encode() in disk.synced[w.journal_path]
            seen.append(command.client_id)
        original(self, command)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedVenue, "send", send)
        real_run(30.0)
    assert len(seen) > 30


# -- parameters --------------------------------------------------------------------------------------------------------------------------


def test_alias_moves_mid_run_and_the_next_tick_uses_it(tape: Tape, tmp_path: Path) -> None:
    second = maker(order_notional=2_000.0)

    def move(registry: MemoryRegistry, number: int) -> None:
        if number == 5:
            registry.answer = published(second, "2")

    w = world(tape, tmp_path)
    w.registry.on_fetch = move
    s = w.run(120.0)
    assert s.parameter_versions == ("1", "2")
    assert s.swaps == 1
    steps = read_journal(w.journal_path).steps
    changes = [n for n, (event, _) in enumerate(steps) if isinstance(event, ParametersChanged)]
    assert len(changes) == 2
    version, sizes = "", {}
    for event, noted in steps:
        if isinstance(event, ParametersChanged):
            version = event.version
        for raw in noted:
            if b'"type":"Place"' in raw and b'"purpose":"quote"' in raw:
                sizes.setdefault(version, set()).add(msgspec.json.decode(raw)["c"]["qty_lots"])
            if b'"type":"Note"' in raw and b'"name":"decision"' in raw:
                assert msgspec.json.decode(raw)["c"]["data"]["parameter_version"] == version
    assert max(sizes["1"]) == 20
    assert max(sizes["2"]) == 40
    # position and working orders are carried over: the books still agree at the end
    assert w.venue is not None
    assert w.venue.ledger()[0] == s.position_lots
    assert {r["parameter_version"] for r in w.sink.rows.values()} == {"1", "2"}


def test_registry_away_mid_run_keeps_the_set(tape: Tape, tmp_path: Path) -> None:
    def leave(registry: MemoryRegistry, number: int) -> None:
        registry.answer = ConnectivityError("no route") if number > 2 else registry.answer

    w = world(tape, tmp_path)
    w.registry.on_fetch = leave
    s = w.run(200.0)
    assert s.decisions == 200
    assert s.parameter_versions == ("1",)
    assert len(w.log.events("registry_away")) == 1
    # an absent registry is asked less and less often: each look may cost its whole time limit
    assert w.registry.reads < 10


def test_registry_away_at_start_uses_the_last_good_set(tape: Tape, tmp_path: Path) -> None:
    world(tape, tmp_path).run(5.0)
    for trouble in (ConnectivityError("connection refused"), RegistryError("no champion")):
        w = World(tape, MemoryRegistry(trouble), tmp_path, run_id=f"again{type(trouble).__name__}")
        s = w.run(20.0)
        assert s.decisions == 20
        assert s.parameter_versions == ("1",)
        assert w.log.events("registry_away")
    assert (tmp_path / "last_good.json").stat().st_mode & 0o777 == 0o600


def test_no_champion_and_nothing_kept_is_an_error_that_says_what_to_do(tape: Tape, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"has no champion.*none was kept.*mm promote"):
        World(tape, MemoryRegistry(RegistryError("mm.sim.X has no champion")), tmp_path).run()
    with pytest.raises(ConnectivityError, match=r"refused.*none was kept"):
        World(tape, MemoryRegistry(ConnectivityError("connection refused")), tmp_path).run()


def test_a_last_good_set_that_was_altered_or_aged_does_not_quote(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)
    w.run(5.0)
    kept = w.last_good.read_bytes()
    w.last_good.write_bytes(kept.replace(b"0.1", b"0.2"))
    with pytest.raises(ConnectivityError, match="altered"):
        World(tape, MemoryRegistry(ConnectivityError("away")), tmp_path, run_id="r2").run(5.0)
    w.last_good.write_bytes(kept)
    old = msgspec.structs.replace(LIMITS, max_parameter_age_s=3_600.0)
    with pytest.raises(ConnectivityError, match="s ago; allowed are 3600 s"):
        World(tape, MemoryRegistry(ConnectivityError("away")), tmp_path, limits=old, run_id="r3").run(5.0)
    w.last_good.write_bytes(kept[:50])
    with pytest.raises(ConnectivityError, match="not readable"):
        World(tape, MemoryRegistry(ConnectivityError("away")), tmp_path, run_id="r4").run(5.0)


BAD = {
    "unsigned": lambda: published(maker(risk_aversion=0.2), "2", approval_json="", signature=""),
    "wrong key": lambda: published(maker(risk_aversion=0.2), "2", key=OTHER_KEY),
    "altered": lambda: dataclasses.replace(published(maker(), "2"), parameters_json=published(maker(risk_aversion=0.2), "2").parameters_json),
    "approval of another version": lambda: dataclasses.replace(published(maker(risk_aversion=0.2), "3"), version="2"),
    "too large an order": lambda: published(maker(order_notional=6_000.0), "2"),
    "outside the runner's bounds": lambda: published(maker(risk_aversion=900.0), "2"),
    "too old": lambda: published(maker(fitted_through_ns=1_600_000_000 * NS_PER_S), "2"),
    "from the future": lambda: published(maker(fitted_through_ns=1_800_000_000 * NS_PER_S), "2"),
    "not yet valid": lambda: published(maker(valid_from_ns=1_800_000_000 * NS_PER_S), "2"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_set_is_refused_and_the_good_one_goes_on(kind: str, tape: Tape, tmp_path: Path) -> None:
    def move(registry: MemoryRegistry, number: int) -> None:
        if number == 3:
            registry.answer = BAD[kind]()

    limits = msgspec.structs.replace(LIMITS, parameter_bounds={"risk_aversion": (0.01, 1.0)})
    w = world(tape, tmp_path, limits=limits)
    w.registry.on_fetch = move
    s = w.run(100.0)
    assert s.decisions == 100
    assert s.parameter_versions == ("1",)
    assert len(s.refusals) == 1
    assert s.refusals[0].version == "2"
    assert s.refusals[0].reason
    assert msgspec.json.decode(w.last_good.read_bytes())["published"]["version"] == "1"


def test_a_bad_champion_at_start_falls_back_or_fails(tape: Tape, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"version 2 is refused.*not signed"):
        World(tape, MemoryRegistry(BAD["unsigned"]()), tmp_path).run()
    world(tape, tmp_path).run(5.0)
    s = World(tape, MemoryRegistry(BAD["unsigned"]()), tmp_path, run_id="r2").run(10.0)
    assert s.parameter_versions == ("1",)
    assert s.refusals == (Refused("2", s.refusals[0].reason),)


def test_parameters_that_grow_too_old_mid_run_only_reduce(tape: Tape, tmp_path: Path) -> None:
    start = int(tape.local_ts.min())
    young = maker(fitted_through_ns=start - 100 * NS_PER_S)
    w = world(tape, tmp_path, young, limits=msgspec.structs.replace(LIMITS, max_parameter_age_s=160.0))
    w.run(200.0)
    steps = read_journal(w.journal_path).steps
    at = next(n for n, (event, _) in enumerate(steps) if isinstance(event, Control))
    assert isinstance(steps[at][0], Control)
    assert steps[at][0].action == "reduce"
    position = sum(e.side * e.qty_lots for e, _ in steps[:at] if isinstance(e, Fill))
    for event, noted in steps[at:]:
        if isinstance(event, Fill):
            position += event.side * event.qty_lots
        for raw in noted:
            if b'"type":"Place"' in raw:
                order = msgspec.json.decode(raw)["c"]
                assert order["side"] * position < 0
                assert order["qty_lots"] <= abs(position)


# -- limits, locks, stopping -------------------------------------------------------------------------------------------------------------


def test_the_last_look_holds_back_what_the_engine_should_not_have_asked_for(tape: Tape, tmp_path: Path) -> None:
    """A band tighter than the quotes: nothing leaves, and the engine learns of each refusal as of a reject."""
    wide = maker(k=2_000.0)
    w = world(tape, tmp_path, wide, limits=msgspec.structs.replace(LIMITS, price_band_frac=1e-6))
    s = w.run(20.0)
    assert s.order_refusals == s.orders > 0
    assert s.fills == 0
    assert w.venue is not None
    assert w.venue.ledger()[0] == 0
    rejects = [e for e, _ in read_journal(w.journal_path).steps if isinstance(e, OrderReject)]
    assert {e.code for e in rejects} == {REFUSED_BY_RUNNER}
    assert replay_journal(w.journal_path).differs_at == -1


def test_a_second_runner_of_an_instrument_refuses(tmp_path: Path) -> None:
    with sole_runner(tmp_path / "x.lock", "sim:BTC-USDT-PERP"):
        with (
            pytest.raises(ConfigError, match=r"sim:BTC-USDT-PERP is already at work \(process \d+\)"),
            sole_runner(tmp_path / "x.lock", "sim:BTC-USDT-PERP"),
        ):
            pytest.fail("two runners held one lock")
        with sole_runner(tmp_path / "y.lock", "sim:ETH-USDT-PERP"):
            pass
    with sole_runner(tmp_path / "x.lock", "sim:BTC-USDT-PERP"):
        pass


def test_a_run_id_is_used_once(tape: Tape, tmp_path: Path) -> None:
    world(tape, tmp_path).run(3.0)
    with pytest.raises(ConfigError, match="exists already"):
        world(tape, tmp_path).run(3.0)


def test_stop_cancels_everything_and_keeps_the_books(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)

    def stop_later(registry: MemoryRegistry, number: int) -> None:
        if number == 6:
            w.stop.set()

    w.registry.on_fetch = stop_later
    s = w.run(1_000.0)
    assert s.stopped == "interrupted"
    assert 40 < s.decisions < 60
    assert s.orders_left == 0
    assert w.venue is not None
    assert w.venue.ledger()[0] == s.position_lots
    last = [event for event, _ in read_journal(w.journal_path).steps if isinstance(event, Control)]
    assert [c.action for c in last] == ["halt"]
    assert len(w.sink.rows) == s.fills > 0
    assert replay_journal(w.journal_path).differs_at == -1


def test_the_market_ending_ends_the_run(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)
    s = w.run(10_000.0)
    # timers go on for as long as was asked; decisions on a market that says nothing more are still decisions
    assert s.stopped == "duration"
    assert s.decisions == 10_000


def test_stale_market_pulls_quotes(tape: Tape, tmp_path: Path) -> None:
    limits = RunnerLimits(engine=msgspec.structs.replace(LIMITS.engine, max_book_age_s=5.0))
    w = world(tape, tmp_path, limits=limits)
    s = w.run(600.0)
    assert s.risk_decisions["stale_or_crossed_book"] > 100
    steps = read_journal(w.journal_path).steps
    last_row = int(tape.local_ts.max())
    late = [raw for event, noted in steps if event.local_ts > last_row + 6 * NS_PER_S for raw in noted if b'"type":"Place"' in raw]
    assert late == []


def test_broken_invariant_pulls_everything_and_fails(tape: Tape, tmp_path: Path) -> None:
    w = world(tape, tmp_path)

    def foreign(registry: MemoryRegistry, number: int) -> None:
        if number == 4 and w.venue is not None:
            # an answer about an order that this run never sent
            at = w.venue._answer_at(int(tape.local_ts.min()))
            w.venue._answers.append(OrderReject(instrument=CHEAP.instrument, exch_ts=at, local_ts=at, client_id="as-other-1", code="x", reason=""))

    w.registry.on_fetch = foreign
    with pytest.raises(InvariantError, match="never sent"):
        w.run(200.0)
    assert w.log.events("invariant_broken")
    journal = read_journal(w.journal_path)
    assert b'"type":"CancelAll"' in journal.steps[-1][1][-1]


# -- a clock that follows the wall -------------------------------------------------------------------------------------------------------


def test_a_hanging_registry_never_holds_up_a_real_clock(tape: Tape, tmp_path: Path) -> None:
    release = threading.Event()

    def hang(registry: MemoryRegistry, number: int) -> None:
        if number > 1:
            release.wait(30.0)

    w = world(tape, tmp_path)
    w.registry.on_fetch = hang
    at = int(tape.local_ts.min())
    w.clock = RealClock(at, speed=60.0)
    w.polling = lambda watcher: BackgroundPolling(watcher, poll_s=0.05, hang_s=30.0)
    began = time.monotonic()
    try:
        s = w.run(120.0)
    finally:
        release.set()
    assert s.decisions == 120
    assert time.monotonic() - began < 20.0
    assert w.log.events("registry_away")
    assert w.registry.reads == 2


def test_swap_under_a_real_clock(tape: Tape, tmp_path: Path) -> None:
    def move(registry: MemoryRegistry, number: int) -> None:
        if number == 4:
            registry.answer = published(maker(order_notional=2_000.0), "2")

    w = world(tape, tmp_path)
    w.registry.on_fetch = move
    w.clock = RealClock(int(tape.local_ts.min()), speed=60.0)
    w.polling = lambda watcher: BackgroundPolling(watcher, poll_s=0.1, hang_s=1e6)
    s = w.run(120.0)
    assert s.parameter_versions == ("1", "2")
    assert replay_journal(w.journal_path).differs_at == -1
