"""The replay on hand-made and random tapes: order of things, refusals, cuts, identities, no look-ahead."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from builders import SPEC, T0, TapeBuilder, decision_params, random_tape

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import POSITION
from mm_platform.kernels.risk import RiskParams
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import mid_path
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import NOT_MARKET, Tape

SETTINGS = ReplaySettings(sample_every=1)


def run(tape: Tape, settings: ReplaySettings = SETTINGS, start: int | None = None, **kwargs):  # type: ignore[no-untyped-def]
    features = compute_features(tape, NS_PER_S)
    params = decision_params(tape.spec, **kwargs)
    return replay(tape, features, [ScheduledParameters(int(features.grid_ts[0]) if start is None else start, params)], settings)


def quiet_market(seconds: int = 20) -> TapeBuilder:
    build = TapeBuilder().book(1000, 1002)
    for s in range(1, seconds):
        build.at(s).level(1, 996, 14 + s % 2)
    return build


def test_a_quote_fills_as_maker_after_latency_and_queue() -> None:
    build = quiet_market()
    # our bid joins at 1000 behind 10 lots; nothing before it is there counts
    build.at(20).trade(-1, 1000, 8).at(21).trade(-1, 1000, 7).at(22).level(1, 996, 14)
    result = run(build.tape(), order_lots=10, k=30_000.0)
    assert (result.fills.side == 1).all()
    assert len(result.fills) >= 1
    assert (result.fills.maker == 1).all()
    assert (result.fills.local_ts == result.fills.exch_ts + SETTINGS.response_latency_ns).all()
    assert result.attribution.residual_quanta == 0


def test_prints_that_are_no_market_trades_fill_nobody() -> None:
    build = quiet_market()
    build.at(20).trade(-1, 990, 500, NOT_MARKET).at(21).level(1, 996, 14)
    assert len(run(build.tape(), k=30_000.0).fills) == 0


def test_funding_is_paid_on_the_position_held_at_the_stamp() -> None:
    build = quiet_market()
    build.at(20).trade(-1, 999, 60).at(21).level(1, 996, 14).at(25).funding(0.001, 100.1).at(26).level(1, 996, 15)
    result = run(build.tape(), k=30_000.0)
    held = result.spec.lots_to_base(int(result.ledger[POSITION]))
    assert held > 0
    assert result.attribution.funding == pytest.approx(-held * 100.1 * 0.001, abs=1e-9)


def test_a_breach_is_hedged_by_a_taker_that_crosses() -> None:
    build = quiet_market()
    build.at(20).trade(-1, 999, 60)
    for s in range(21, 90):
        build.at(s).level(1, 996, 14 + s % 2)
    result = run(build.tape(), k=30_000.0, threshold=0.001)
    assert result.taker_fills >= 1
    assert result.attribution.hedge_pnl < 0
    assert abs(int(result.ledger[POSITION])) <= 1


def test_stop_loss_flattens_and_cools_down() -> None:
    build = quiet_market()
    build.at(20).trade(-1, 999, 60).at(21)
    for side, price in ((1, 1000), (1, 999), (1, 998), (1, 997)):
        build.level(side, price, 0, last=False)
    build.level(-1, 998, 10)
    for s in range(22, 60):
        build.at(s).level(1, 996, 100 + s % 2)
    risk = RiskParams(100, 100, 0.002, 0, 3600 * NS_PER_S, math.inf, math.inf, math.inf)
    result = run(build.tape(), k=30_000.0, risk=risk)
    assert result.counters.flattens >= 1
    assert int(result.ledger[POSITION]) == 0
    assert result.counters.risk_frac["stop_loss"] > 0
    assert result.counters.risk_frac["cooldown"] > 0.3


def test_the_order_budget_holds() -> None:
    tape = random_tape(20_000, 3)
    result = run(tape, orders_per_s=0.1)
    seconds = (int(tape.exch_ts[-1]) - T0) / NS_PER_S
    assert result.counters.orders <= 50 + 0.1 * seconds + 1
    assert result.counters.risk_frac["order_budget"] > 0


def test_position_counts_every_open_order() -> None:
    result = run(random_tape(30_000, 4), order_lots=10, position_lots=15)
    assert np.abs(result.fills.position_lots).max() <= 15


def test_cut_anywhere_is_the_same_run() -> None:
    tape = random_tape(20_000, 5)
    features = compute_features(tape, NS_PER_S)
    params = decision_params(threshold=0.03)
    first = int(features.grid_ts[0])
    whole = replay(tape, features, [ScheduledParameters(first, params)], SETTINGS)
    cuts = [ScheduledParameters(int(t), params) for t in features.grid_ts[[0, 7, 50, 51, 400]]]
    pieces = replay(tape, features, cuts, SETTINGS)
    assert whole.ledger.tobytes() == pieces.ledger.tobytes()
    assert all(getattr(whole.fills, f.name).tobytes() == getattr(pieces.fills, f.name).tobytes() for f in dataclasses.fields(whole.fills))
    assert len(whole.fills) > 100


def test_the_future_changes_nothing_before_it() -> None:
    tape = random_tape(20_000, 6)
    cut = int(tape.local_ts[12_000])
    rng = np.random.default_rng(0)
    columns = {name: column.copy() for name, column in tape.columns().items()}
    later = columns["local_ts"] > cut
    columns["price_ticks"][later] += rng.integers(-3, 4, later.sum())
    columns["qty_lots"][later] = rng.integers(1, 60, later.sum())
    other = Tape.from_columns(tape.spec, columns, sha256="perturbed")
    one, two = run(tape, threshold=0.03), run(other, threshold=0.03)
    before = lambda r: r.fills.exch_ts < cut - 10 * NS_PER_MS  # noqa: E731
    assert before(one).sum() > 50
    for field in dataclasses.fields(one.fills):
        assert getattr(one.fills, field.name)[before(one)].tobytes() == getattr(two.fills, field.name)[before(two)].tobytes(), field.name
    assert one.fills.price_ticks.tobytes() != two.fills.price_ticks.tobytes()


def test_rows_that_a_fit_has_seen_are_refused() -> None:
    tape = random_tape(2_000, 7)
    features = compute_features(tape, NS_PER_S)
    start = int(features.grid_ts[5])
    with pytest.raises(DataError, match="refuses to judge rows that a fit has seen"):
        replay(tape, features, [ScheduledParameters(start, decision_params(), fitted_through_ns=start)], SETTINGS)
    replay(tape, features, [ScheduledParameters(start, decision_params(), fitted_through_ns=start - 1)], SETTINGS)


def test_bad_runs_are_refused_with_reasons() -> None:
    tape = random_tape(2_000, 8)
    features = compute_features(tape, NS_PER_S)
    start = int(features.grid_ts[0])
    entry = ScheduledParameters(start, decision_params())
    with pytest.raises(DataError, match="no parameters"):
        replay(tape, features, [], SETTINGS)
    with pytest.raises(DataError, match="not ascending"):
        replay(tape, features, [entry, entry], SETTINGS)
    with pytest.raises(DataError, match="latency above zero"):
        replay(tape, features, [entry], ReplaySettings(entry_latency_ns=0))
    with pytest.raises(DataError, match="is not known"):
        replay(tape, features, [entry], ReplaySettings(queue_model="hope"))
    with pytest.raises(DataError, match="before it starts"):
        replay(tape, features, [entry], SETTINGS, end_ns=start)


def test_the_result_reads_out_the_guides_keys_and_exact_parts() -> None:
    tape = random_tape(20_000, 9)
    out = run(tape, threshold=0.03).to_guide(100_000.0, mid_path(tape))
    for key in ("total_pnl", "sharpe_ratio", "max_drawdown", "maker_fills", "taker_fills", "win_rate", "total_fees_paid", "total_funding_paid"):
        assert key in out
    assert math.fsum(out["pnl_attribution"].values()) == out["total_pnl"]
    assert out["equity_curve"][-1] == pytest.approx(100_000.0 + out["total_pnl"], abs=1e-6)
    assert out["fill_model"] == "conservative"


def test_longer_latency_is_not_the_same_run() -> None:
    tape = random_tape(20_000, 10)
    fast, slow = run(tape), run(tape, ReplaySettings(entry_latency_ns=300 * NS_PER_MS, response_latency_ns=300 * NS_PER_MS, sample_every=1))
    assert len(fast.fills) != len(slow.fills) or fast.fills.exch_ts.tobytes() != slow.fills.exch_ts.tobytes()


def test_the_log_grows_when_it_must() -> None:
    """More executions than the first guess: the run is repeated with room, not cut."""
    build = TapeBuilder().book(1000, 1002, 1000)
    for n in range(1, 6000):
        build.at(n).trade(-1 if n % 2 else 1, 995 if n % 2 else 1007, 3)
    result = run(build.tape(), order_lots=2, refresh_s=0.5, k=1e5, orders_per_s=100.0)
    assert len(result.fills) > 4096
    assert SPEC.lot_base == 0.001


def test_nothing_smaller_than_the_venue_takes_is_sent() -> None:
    """Near the position limit a remnant below the least order stays unsent, as it would be refused live."""
    tape = random_tape(30_000, 4)
    features = compute_features(tape, NS_PER_S)
    params = decision_params(order_lots=10, position_lots=15)
    least = params._replace(orders=params.orders._replace(min_lots=8))
    result = replay(tape, features, [ScheduledParameters(int(features.grid_ts[0]), least)], SETTINGS)
    sizes = result.fills.lots + result.fills.leaves_lots
    first = {int(i): int(s) for i, s in reversed(list(zip(result.fills.order_id, sizes, strict=True)))}
    assert len(first) > 20
    assert min(first.values()) >= 8
