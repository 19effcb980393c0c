"""Money and inventory of a replay are conserved, to the last integer: the ledger is what the fills say, and no print is spent twice."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from builders import SPEC, decision_params, random_tape
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.core.units import NS_PER_MS
from mm_platform.kernels.accounting import (
    CASH,
    FEES,
    HEDGE,
    INVENTORY,
    MAKER_LOTS,
    MARK_WORTH,
    POSITION,
    SPREAD,
    TAKER_LOTS,
    identity_residual_quanta,
    money_of,
)
from mm_platform.kernels.money import worth_quanta
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import ScheduledParameters, SetInput, VenueInput, replay_many
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import Kind, Tape

LINEAR = msgspec.structs.replace(SPEC, maker_fee=-0.000002)
INVERSE = msgspec.structs.replace(LINEAR, instrument="sim:BTC-USD-PERP", contract="inverse", lot_size="1", multiplier="100")
SPOT = msgspec.structs.replace(LINEAR, instrument="sim:BTC-USDT", contract="spot", funding_interval_s=None)


def run(tape: Tape, run_settings: ReplaySettings, gamma: float) -> list[ReplayResult]:
    features = compute_features(tape, 250 * NS_PER_MS)
    p = decision_params(tape.spec, gamma=gamma, threshold=0.02, order_lots=8, refresh_s=0.25)
    if tape.spec.contract == "inverse":
        # base per lot of a hundred dollars
        lot = 100.0 / 50_000.0
        p = p._replace(
            quote=p.quote._replace(inventory_unit=8 * lot, max_inventory=100 * lot), hedge=p.hedge._replace(threshold=20 * lot, min_size=lot)
        )
    p = p._replace(hedge=p.hedge._replace(max_latency_s=0.5))
    start = int(features.grid_ts[2])
    sets = [SetInput([ScheduledParameters(start, q)]) for q in (p, p._replace(orders=p.orders._replace(order_lots=3)))]
    return replay_many([VenueInput(tape, features, run_settings)], sets)


def assert_conserved(result: ReplayResult) -> None:
    f, ledger, money = result.fills, result.ledger, money_of(result.spec)
    signed = f.side * f.lots
    assert int(ledger[POSITION]) == int(signed.sum())
    np.testing.assert_array_equal(f.position_lots, np.cumsum(signed))
    paid = np.array([worth_quanta(money, 2 * int(p)) for p in f.price_ticks], dtype=np.int64)
    mids = np.array([worth_quanta(money, int(m)) for m in f.mid_half_ticks], dtype=np.int64)
    cash = -int((signed * paid).sum())
    assert int(ledger[CASH]) == cash
    edge = signed * (mids - paid)
    assert int(ledger[SPREAD]) == int(edge[f.maker == 1].sum())
    assert int(ledger[HEDGE]) == int(edge[f.maker == 0].sum())
    # what the position earned between the mids of its executions, and from the last to the end
    steps = np.append(np.diff(mids), int(ledger[MARK_WORTH]) - mids[-1])
    assert int(ledger[INVENTORY]) == int((np.cumsum(signed) * steps).sum())
    assert int(ledger[FEES]) == int(f.fee_nano.sum())
    assert (int(ledger[MAKER_LOTS]), int(ledger[TAKER_LOTS])) == (int(f.lots[f.maker == 1].sum()), int(f.lots[f.maker == 0].sum()))
    assert identity_residual_quanta(ledger) == 0
    assert cash + int(ledger[POSITION]) * int(ledger[MARK_WORTH]) == int(ledger[SPREAD] + ledger[HEDGE] + ledger[INVENTORY])
    # an order's executions and what is left of it add up, whoever it met
    for order in np.unique(f.order_id):
        of = f.order_id == order
        assert (f.leaves_lots[of][:-1] - f.leaves_lots[of][1:] == f.lots[of][1:]).all()


@pytest.mark.parametrize("spec", [LINEAR, INVERSE, SPOT], ids=["linear", "inverse", "spot"])
@pytest.mark.parametrize("mode", ["conservative", "reference"])
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.005, 0.05))
def test_money_and_inventory_are_conserved(spec, mode: str, seed: int, gamma: float) -> None:  # type: ignore[no-untyped-def]
    tape = random_tape(3_000, seed, spec=spec)
    results = run(tape, ReplaySettings(mode=mode, queue_model="risk_adverse"), gamma)  # type: ignore[arg-type]
    assert any(len(r.fills) > 5 for r in results)
    for result in results:
        if len(result.fills):
            assert_conserved(result)
        assert math.isfinite(result.sample_equity_quote[-1])


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_a_set_gets_no_more_of_a_print_than_was_printed(seed: int) -> None:
    tape = random_tape(3_000, seed, spec=LINEAR)
    printed = {int(t): int(n) for t, n in zip(tape.exch_ts[tape.kind == Kind.TRADE], tape.qty_lots[tape.kind == Kind.TRADE], strict=True)}
    for result in run(tape, ReplaySettings(), 0.01):
        makers = result.fills.where(result.fills.maker == 1)
        got: dict[int, int] = {}
        for t, n in zip(makers.exch_ts.tolist(), makers.lots.tolist(), strict=True):
            got[t] = got.get(t, 0) + n
        # levels that cross our orders fill them too; on this tape they come at the instant of a print
        for t, n in got.items():
            crossing = (tape.exch_ts == t) & (tape.kind == Kind.DEPTH)
            assert n <= printed.get(t, 0) + int(tape.qty_lots[crossing].sum())
        lone = [t for t in got if t in printed and not ((tape.exch_ts == t) & (tape.kind == Kind.DEPTH) & (tape.qty_lots > 0)).any()]
        assert all(got[t] <= printed[t] for t in lone)
