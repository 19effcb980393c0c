from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mm_platform.calibration.fit_set import FitSet, FitSettings, fit_all, orders_known
from mm_platform.calibration.intensity import IntensitySettings
from mm_platform.calibration.order_depth import DecisionGrid
from mm_platform.core.errors import CalibrationError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_S, SECONDS_PER_YEAR
from mm_platform.tape.layout import NOT_MARKET, Kind, Tape

from .flow import T0

SPEC = InstrumentSpec(instrument="sim:BTC-USDT-PERP", tick_size="0.1", lot_size="0.001", contract="linear", maker_fee=0.0, taker_fee=0.0004)
SETTINGS = FitSettings(intensity=IntensitySettings(latency_ns=10_000_000, replicates=100))
SIGMA, A_BID, A_ASK, K = 0.5, 0.8, 1.6, 0.05


def market(seconds: int, seed: int) -> tuple[Tape, DecisionGrid]:
    """A walking mid with a spread of one tick, and prints on both sides with known intensities."""
    rng = np.random.default_rng(seed)
    ts = T0 + np.arange(seconds + 1) * NS_PER_S
    mid = 500_000.0 * np.exp(np.cumsum(rng.standard_normal(seconds + 1)) * SIGMA * math.sqrt(1.0 / SECONDS_PER_YEAR))
    bid = np.floor(mid).astype(np.int64)
    grid = DecisionGrid(ts, bid, bid + 1, np.ones(seconds + 1, dtype=bool))
    rows = []
    for side, rate in ((1, A_ASK), (-1, A_BID)):
        at = np.sort(rng.uniform(0.0, seconds - 0.1, rng.poisson(rate * seconds)))
        depth = rng.exponential(1.0 / K, len(at))
        exch = T0 + (at * NS_PER_S).astype(np.int64)
        i = np.searchsorted(ts + SETTINGS.intensity.latency_ns, exch, side="right") - 1
        centre = bid[np.maximum(i, 0)] + 0.5
        price = np.floor(centre + depth) if side > 0 else np.ceil(centre - depth)
        keep = depth >= 0.5
        rows.append((exch[keep], np.full(int(keep.sum()), side), price[keep].astype(np.int64)))
    exch, side, price = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(exch, kind="stable")
    n = len(order)
    tape = Tape.from_columns(
        SPEC,
        {
            "exch_ts": exch[order],
            "local_ts": exch[order] + rng.integers(1_000_000, 50_000_000, n),
            "kind": np.full(n, Kind.TRADE),
            "side": side[order],
            "flags": np.zeros(n),
            "price_ticks": price[order],
            "qty_lots": np.ones(n),
            "seq": np.arange(n),
            "value": np.full(n, np.nan),
            "aux": np.full(n, np.nan),
        },
    )
    return tape, grid


def fitted(tape: Tape, grid: DecisionGrid, from_ns: int, through_ns: int) -> FitSet:
    return fit_all(tape, grid, from_ns, through_ns, np.random.default_rng(7), SETTINGS)


def test_all_five_are_recovered_within_their_errors() -> None:
    tape, grid = market(7200, 1)
    fits = fitted(tape, grid, T0, int(grid.ts_ns[-1]))
    assert fits.accepted
    assert fits.reasons == ()
    mid_ticks = 500_000.0
    truth = {"sigma": SIGMA, "A_bid": A_BID, "A_ask": A_ASK, "k_bid": K * mid_ticks, "k_ask": K * mid_ticks}
    for fit in fits.fits:
        assert fit.value == pytest.approx(truth[fit.name], abs=3.5 * fit.stderr + 0.01 * truth[fit.name])
        assert 0.0 < fit.relative_stderr < 0.1
    assert [f.unit for f in fits.fits] == ["1/sqrt(year)", "1/s", "1/s", "1/relative", "1/relative"]
    assert [f.side for f in fits.fits] == ["both", "bid", "ask", "bid", "ask"]


def test_the_stamp_is_the_last_local_time_used() -> None:
    tape, grid = market(1800, 2)
    through = T0 + 900 * NS_PER_S + 1
    fits = fitted(tape, grid, T0, through)
    assert fits.fitted_through_ns <= through
    last_print = int(tape.local_ts[tape.local_ts <= through].max())
    assert fits.fitted_through_ns == max(T0 + 900 * NS_PER_S, last_print)
    assert fits.fitted_from_ns == T0


def test_later_rows_change_nothing_byte_for_byte() -> None:
    tape, grid = market(1800, 3)
    through = T0 + 1200 * NS_PER_S + 123_456_789
    before = repr(fitted(tape, grid, T0, through))
    rng = np.random.default_rng(0)
    later = tape.local_ts > through
    assert 0 < later.sum() < len(tape)
    columns = {name: column.copy() for name, column in tape.columns().items()}
    columns["price_ticks"][later] += rng.integers(-400, 400, later.sum())
    columns["side"][later] *= -1
    columns["qty_lots"][later] *= 50
    columns["kind"][later] = np.where(rng.random(later.sum()) < 0.5, Kind.TRADE, Kind.MARK)
    columns["local_ts"][later] += rng.integers(0, 10**9, later.sum())
    future = grid.ts_ns > through
    bent = DecisionGrid(grid.ts_ns, grid.bid_ticks + np.where(future, 777, 0), grid.ask_ticks + np.where(future, 999, 0), grid.valid & ~future)
    assert repr(fitted(Tape.from_columns(SPEC, columns), bent, T0, through)) == before
    cut = Tape.from_columns(SPEC, {name: column[~later] for name, column in tape.columns().items()})
    assert repr(fitted(cut, grid, T0, through)) == before
    # and the same perturbation of rows before it does change the fits
    early = ~later
    columns = {name: column.copy() for name, column in tape.columns().items()}
    columns["price_ticks"][early] += np.where(columns["side"][early] > 0, 3, -3)
    assert repr(fitted(Tape.from_columns(SPEC, columns), grid, T0, through)) != before


def test_the_window_starts_where_it_says() -> None:
    tape, grid = market(1800, 4)
    start = T0 + 600 * NS_PER_S
    fits = fitted(tape, grid, start, int(grid.ts_ns[-1]))
    assert fits.fitted_from_ns == start
    assert fits.A_ask.n < fitted(tape, grid, T0, int(grid.ts_ns[-1])).A_ask.n


def test_prints_that_fill_nobody_do_not_count() -> None:
    tape, grid = market(1800, 5)
    flags = tape.flags.copy()
    flags[::2] |= NOT_MARKET
    marked = replace(tape, flags=flags)
    assert len(orders_known(marked, T0, int(grid.ts_ns[-1]))) < 0.6 * len(orders_known(tape, T0, int(grid.ts_ns[-1])))
    halved = fitted(marked, grid, T0, int(grid.ts_ns[-1]))
    assert halved.A_ask.value == pytest.approx(A_ASK / 2, abs=3.5 * halved.A_ask.stderr)


def test_what_cannot_be_fitted_is_said_and_what_can_is_still_there() -> None:
    tape, grid = market(600, 6)
    quiet = replace(tape, side=np.where(tape.side < 0, 1, 1).astype(np.int8))
    fits = fitted(quiet, grid, T0, int(grid.ts_ns[-1]))
    assert not fits.accepted
    assert fits.sigma.accepted
    assert fits.A_ask.accepted
    assert not fits.A_bid.accepted
    assert len(fits.reasons) == 1
    assert fits.reasons[0].startswith("bid: 0 market orders reached the touch")
    nothing = fitted(tape, grid, T0 - 100 * NS_PER_S, T0 - 50 * NS_PER_S)
    assert not any(f.accepted for f in nothing.fits)
    assert all(f.short_of_data for f in nothing.fits)
    assert nothing.fitted_through_ns <= T0 - 50 * NS_PER_S
    with pytest.raises(CalibrationError, match="is empty"):
        fitted(tape, grid, T0, T0)


def test_equal_seeds_give_equal_fits() -> None:
    tape, grid = market(900, 8)
    assert repr(fitted(tape, grid, T0, int(grid.ts_ns[-1]))) == repr(fitted(tape, grid, T0, int(grid.ts_ns[-1])))
