"""Fills that would flatter, money that would be wrong without a word, and runs that would not end."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from builders import SPEC, TapeBuilder, decision_params, random_tape

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import POSITION
from mm_platform.kernels.exchange import FRONT, GTX, ID, LIMIT, NODE, RESTING
from mm_platform.kernels.levels import CONSERVATIVE
from mm_platform.kernels.queue import QUEUE_MODELS, compiled_params, exchange_params
from mm_platform.kernels.risk import RiskParams
from mm_platform.kernels.venue import CANCEL, PLACE, new_venue, venue_on_request, venue_on_row
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import LAST, Kind, Tape

SETTINGS = ReplaySettings(sample_every=1)


def run(tape: Tape, **kwargs) -> ReplayResult:  # type: ignore[no-untyped-def]
    features = compute_features(tape, NS_PER_S)
    slippage = kwargs.pop("slippage_ticks", 50)
    params = decision_params(tape.spec, **kwargs)
    params = params._replace(orders=params.orders._replace(slippage_ticks=slippage))
    return replay(tape, features, [ScheduledParameters(int(features.grid_ts[0]), params)], SETTINGS)


def quiet_market(seconds: int = 20) -> TapeBuilder:
    build = TapeBuilder().book(1000, 1002)
    for s in range(1, seconds):
        build.at(s).level(1, 996, 14 + s % 2)
    return build


@pytest.mark.parametrize("model", ["log_prob", "power_prob", "power_prob2", "power_prob3"])
def test_a_print_never_fills_more_than_it_printed(model: str) -> None:
    """Cancels can move an order beyond the front under these models; the next print, of any size, filled it by what it had been moved too far."""
    x = compiled_params(exchange_params(CONSERVATIVE, QUEUE_MODELS[model], 0.5 if model == "power_prob3" else 3.0, 1.0))
    venue = new_venue(1, 8, 900, 1100)
    row, ask = venue_on_row.compiled, venue_on_request.compiled
    overshot = 0
    rng = np.random.default_rng(5)
    for n in range(1, 400):
        front, back = int(rng.integers(2, 200)), int(rng.integers(0, 300))
        row(x, venue, Kind.DEPTH, 1, LAST, 1000, float(front), -1)
        assert ask(x, venue, n, n, 0, PLACE, n, 1, 1000, 500, GTX, LIMIT, 0) == RESTING
        row(x, venue, Kind.DEPTH, 1, LAST, 1000, float(front + back), -1)
        row(x, venue, Kind.DEPTH, 1, LAST, 1000, float(rng.integers(1, front)), -1)
        (slot,) = np.flatnonzero(venue.own.orders[ID])
        overshot += venue.own.fronts[FRONT, venue.own.orders[NODE, slot]] < -1.0
        row(x, venue, Kind.TRADE, -1, LAST, 1000, 1.0, -1)
        assert int(venue.executions.lots[: venue.executions.n[0]].sum()) <= 1
        ask(x, venue, n, n, 0, CANCEL, n, 0, 0, 0, 0, 0, 0)
    assert overshot > 0


def test_a_stamp_without_a_mark_price_is_paid_at_the_mid() -> None:
    """Compiled, the floor of nan is the lowest integer there is: minus nine billion of quote."""
    build = quiet_market()
    build.at(20).trade(-1, 999, 60).at(21).level(1, 996, 14).at(25).funding(0.001, math.nan).at(26).level(1, 996, 15)
    result = run(build.tape(), k=30_000.0)
    held = result.spec.lots_to_base(int(result.ledger[POSITION]))
    assert held > 0
    assert result.attribution.funding == pytest.approx(-held * 100.1 * 0.001, abs=1e-9)


def test_a_stamp_without_a_rate_is_refused() -> None:
    build = quiet_market()
    build.at(25).funding(math.nan, 100.1).at(26).level(1, 996, 15)
    with pytest.raises(DataError, match="states no rate"):
        run(build.tape())


def test_an_inverse_contract_is_accounted_in_base() -> None:
    spec = msgspec.structs.replace(SPEC, contract="inverse", lot_size="1", multiplier="100")
    result = run(random_tape(3_000, 1, spec=spec))
    assert result.attribution.currency == "BTC"
    assert result.attribution.residual_quanta == 0


def test_flattening_walks_as_many_levels_as_there_are() -> None:
    """Hundreds of thin levels within the slippage are no reason to end a sweep."""
    build = TapeBuilder()
    for d in range(700):
        build.row(1, 1, 0, 10_000 - d, 1)
    for d in range(700):
        build.row(1, -1, LAST if d == 699 else 0, 10_002 + d, 1)
    for s in range(1, 20):
        build.at(s).level(1, 9_000, 14 + s % 2)
    build.at(20).trade(-1, 9_900, 600).at(21)
    for d in range(60):
        build.level(1, 10_000 - d, 0, last=False)
    build.level(-1, 9_945, 10)
    for s in range(22, 60):
        build.at(s).level(1, 9_000, 14 + s % 2)
    risk = RiskParams(500, 500, 0.002, 0, 3600 * NS_PER_S, math.inf, math.inf, math.inf)
    result = run(build.tape(), k=30_000.0, order_lots=500, position_lots=500, risk=risk, slippage_ticks=600)
    assert result.taker_fills > 256
    assert int(result.ledger[POSITION]) == 0


def test_samples_stand_in_order_of_time() -> None:
    """The last decisions come after the last row happened at the venue."""
    result = run(random_tape(5_000, 11))
    assert (np.diff(result.sample_ts) >= 0).all()
    assert result.through_ns == result.sample_ts[-1]
    assert len(result.sample_ts) > 50
