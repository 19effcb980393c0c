"""Whatever is changed after a local time, signals, fits and fills before it stay the same, byte for byte."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from builders import decision_params

from mm_platform.calibration.fit_set import fit_all
from mm_platform.calibration.order_depth import DecisionGrid
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import Features, compute_features
from mm_platform.tape.layout import Kind, Tape
from mm_platform.tape.simulate import simulate
from mm_platform.tape.simulate_settings import MarketSettings

START = 1_767_571_200 * NS_PER_S  # a UTC midnight, with a funding stamp inside the stretch
SETTINGS = ReplaySettings(sample_every=1)


@pytest.fixture(scope="module")
def tape() -> Tape:
    return simulate(MarketSettings(), 7, START + 7 * 3600 * NS_PER_S, 2 * 3600.0).perp


def perturbed(tape: Tape, cut_ns: int, rng: np.random.Generator) -> Tape:
    """Other prices, sizes, sides, marks and funding rates after the cut; times stay."""
    columns = {name: column.copy() for name, column in tape.columns().items()}
    later = columns["local_ts"] > cut_ns
    priced = later & np.isin(columns["kind"], (Kind.DEPTH, Kind.TOP, Kind.TRADE))
    columns["price_ticks"][priced] += rng.integers(-40, 41, int(priced.sum()))
    columns["qty_lots"][priced] = rng.integers(1, 500, int(priced.sum()))
    trades = later & (columns["kind"] == Kind.TRADE)
    columns["side"][trades] = rng.choice(np.array([1, -1], dtype=np.int8), int(trades.sum()))
    money = later & np.isin(columns["kind"], (Kind.MARK, Kind.FUNDING, Kind.FUNDING_PREDICTED))
    columns["value"][money] *= rng.uniform(0.5, 2.0, int(money.sum()))
    columns["aux"][money] *= rng.uniform(0.5, 2.0, int(money.sum()))
    return Tape.from_columns(tape.spec, columns, initial_book=tape.initial_book, sha256="perturbed")


def grid(features: Features) -> DecisionGrid:
    return DecisionGrid(features.grid_ts, features.bid_ticks, features.ask_ticks, features.valid)


@pytest.mark.parametrize("seed", range(4))
def test_the_future_changes_nothing_before_it(tape: Tape, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cut = int(rng.integers(tape.local_ts[len(tape) // 3], tape.local_ts[-len(tape) // 10]))
    other = perturbed(tape, cut, rng)
    assert (other.kind == Kind.FUNDING).sum() == 1
    one, two = compute_features(tape, NS_PER_S), compute_features(other, NS_PER_S)
    known = one.grid_ts <= cut
    for name, column in one.columns().items():
        assert column[known].tobytes() == two.columns()[name][known].tobytes(), name
    assert one.mid.tobytes() != two.mid.tobytes()

    first = int(one.grid_ts[0])
    through = int(one.grid_ts[known][-1])
    fits = [fit_all(t, grid(f), first, through, np.random.default_rng(1)) for t, f in ((tape, one), (other, two))]
    assert repr(fits[0]) == repr(fits[1])

    runs = [
        replay(t, f, [ScheduledParameters(first, decision_params(t.spec, gamma=0.1, k=6000.0, threshold=0.05, order_lots=8))], SETTINGS)
        for t, f in ((tape, one), (other, two))
    ]
    # the venue's rows reach us later than they happen: what happened well before the cut was known by it
    quiet = cut - 200 * NS_PER_MS
    before = [r.fills.exch_ts < quiet for r in runs]
    assert before[0].sum() > 20
    for field in fields(runs[0].fills):
        assert getattr(runs[0].fills, field.name)[before[0]].tobytes() == getattr(runs[1].fills, field.name)[before[1]].tobytes(), field.name
    decided = runs[0].sample_ts[:-1] < quiet
    for name in ("sample_position_lots", "sample_equity_quote", "sample_mid_half_ticks"):
        assert getattr(runs[0], name)[:-1][decided].tobytes() == getattr(runs[1], name)[:-1][decided].tobytes(), name
