"""Features on a decision grid: causality, the local view of the book, and equality with event-by-event calls."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.book import book_apply_top, book_set, book_top, new_book
from mm_platform.kernels.signals import SignalParams, new_signal_state, signal_on_top, signal_on_trade, signal_read
from mm_platform.tape.features import compute_features, decision_grid
from mm_platform.tape.layout import LAST, NOT_MARKET, Kind, Tape

S = 1_000_000_000
T0 = 1_700_000_000 * S
SPEC = InstrumentSpec(instrument="sim:BTC-USDT-PERP", tick_size="0.1", lot_size="0.001", contract="linear", maker_fee=0.0002, taker_fee=0.0005)
QUICK = SignalParams(vol_min_samples=5, kyle_min_buckets=5)


def tape_of(rows: list[tuple[int, int, Kind, int, int, int, int, int]], initial_book: BookState | None = None) -> Tape:
    """Rows (exch ns, local ns, kind, side, flags, ticks, lots, seq) after T0."""
    columns = np.array([(T0 + e, T0 + loc, *rest) for e, loc, *rest in rows], dtype=np.int64).reshape(-1, 8).T
    names = ("exch_ts", "local_ts", "kind", "side", "flags", "price_ticks", "qty_lots", "seq")
    unknown = np.full(columns.shape[1], np.nan)
    return Tape.from_columns(SPEC, dict(zip(names, columns, strict=True)) | {"value": unknown, "aux": unknown}, initial_book=initial_book)


def random_tape(seed: int, n: int) -> Tape:
    """A random walk of the touch with deeper levels, trades and best-quote rows; local times overtake each other."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, Kind, int, int, int, int, int]] = []
    ts, mid = 0, 500_000
    for k in range(n):
        ts += int(rng.integers(0, 40_000_000))
        late = ts + int(rng.integers(1_000_000, 90_000_000))
        u = rng.random()
        lots = int(rng.integers(1, 500))
        side = 1 if rng.random() < 0.5 else -1
        if k < 20:
            rows.append((ts, late, Kind.DEPTH, side, LAST, mid - side * (1 + k // 2), lots, k))
        elif u < 0.1:
            mid += side
            rows.append((ts, late, Kind.DEPTH, -side, 0, mid, 0, k))
            rows.append((ts, late, Kind.DEPTH, side, LAST, mid - side, lots, k))
        elif u < 0.3:
            rows.append((ts, late, Kind.TRADE, side, NOT_MARKET if rng.random() < 0.1 else 0, mid + side, lots, k))
        elif u < 0.4:
            rows.append((ts, late, Kind.TOP, 1, 0, mid - 1, lots, k))
            rows.append((ts, late, Kind.TOP, -1, LAST, mid + 1, lots + 3, k))
        else:
            rows.append((ts, late, Kind.DEPTH, side, LAST, mid - side * int(1 + rng.integers(0, 6)), lots, k))
    return tape_of(rows)


def test_equals_event_by_event_calls_as_the_engine_makes_them() -> None:
    tape = random_tape(1, 3000)
    features = compute_features(tape, S // 4, params=QUICK)
    p = QUICK._replace(tick_size=0.1, lot_base=0.001)
    book, state, seq, at = new_book(), new_signal_state(), -1, 0
    order = tape.local_order()
    for g, now in enumerate(features.grid_ts):
        while at < len(order) and tape.local_ts[order[at]] <= now:
            r = order[at]
            side, price, lots = int(tape.side[r]), int(tape.price_ticks[r]), int(tape.qty_lots[r])
            if tape.kind[r] == Kind.TRADE:
                if not tape.flags[r] & NOT_MARKET:
                    signal_on_trade(state, p, int(tape.local_ts[r]), side, price, lots)
            else:
                if tape.kind[r] == Kind.DEPTH:
                    seq = max(seq, int(tape.seq[r]))
                    book_set(book, side, price, lots)
                elif tape.seq[r] > seq:
                    book_apply_top(book, side, price, lots)
                if tape.flags[r] & LAST:
                    signal_on_top(state, p, int(tape.local_ts[r]), *book_top(book))
            at += 1
        s = signal_read(state, p, int(now))
        got = (
            features.microprice[g],
            features.queue_imbalance[g],
            features.order_flow_imbalance[g],
            features.kyle_lambda[g],
            features.short_volatility[g],
        )
        want = (s.microprice_ticks * 0.1, s.queue_imbalance, s.order_flow_imbalance, s.kyle_lambda, s.short_volatility)
        np.testing.assert_array_equal(got, want)
    assert features.valid.mean() > 0.5
    assert np.isfinite(features.kyle_lambda).mean() > 0.5
    assert np.isfinite(features.short_volatility).mean() > 0.5


@pytest.mark.parametrize("seed", [2, 3])
def test_rows_that_come_later_change_nothing_before_them(seed: int) -> None:
    tape = random_tape(seed, 3000)
    before = compute_features(tape, S // 4, params=QUICK)
    cut = int(np.quantile(tape.local_ts, 0.6))
    rng = np.random.default_rng(seed)
    future = tape.local_ts > cut
    columns = {name: column.copy() for name, column in tape.columns().items()}
    columns["qty_lots"][future] = rng.integers(1, 10_000, int(future.sum()))
    columns["price_ticks"][future] += rng.integers(-50, 50, int(future.sum()))
    columns["side"][future] *= -1
    columns["local_ts"][future] += rng.integers(0, S, int(future.sum()))
    after = compute_features(Tape.from_columns(SPEC, columns), S // 4, end_ns=int(before.grid_ts[-1]) + 1, params=QUICK)
    past = before.grid_ts <= cut
    assert 0 < past.sum() < len(past)
    changed = False
    for name, column in before.columns().items():
        assert column[past].tobytes() == after.columns()[name][past].tobytes(), name
        changed = changed or column[~past].tobytes() != after.columns()[name][~past].tobytes()
    assert changed


def test_a_row_counts_from_its_local_time_on_and_with_its_message() -> None:
    tape = tape_of(
        [
            (0, S, Kind.DEPTH, 1, LAST, 1000, 5, 1),
            (1, S, Kind.DEPTH, -1, LAST, 1002, 5, 2),
            (2, 3 * S, Kind.DEPTH, -1, 0, 1001, 7, 3),
            (2, 3 * S + 1, Kind.DEPTH, -1, LAST, 1003, 7, 3),
        ]
    )
    features = compute_features(tape, S, start_ns=T0, end_ns=T0 + 5 * S)
    assert features.grid_ts.tolist() == [T0 + k * S for k in range(5)]
    assert features.valid.tolist() == [False, True, True, True, True]
    # at 3 s the message is not complete yet
    assert features.ask_ticks.tolist() == [0, 1002, 1002, 1002, 1001]
    assert features.mid[1] == pytest.approx(100.1)
    assert math.isnan(features.mid[0])


def test_best_quotes_are_fused_unless_older_than_the_depth() -> None:
    rows = [
        (0, S, Kind.DEPTH, 1, LAST, 1000, 5, 10),
        (1, S, Kind.DEPTH, -1, LAST, 1002, 5, 10),
        (2, 2 * S, Kind.TOP, 1, 0, 990, 1, 9),
        (2, 2 * S, Kind.TOP, -1, LAST, 992, 1, 9),
        (3, 3 * S, Kind.TOP, 1, 0, 1003, 4, 11),
        (3, 3 * S, Kind.TOP, -1, LAST, 1004, 6, 11),
        (4, 4 * S, Kind.CLEAR, 0, LAST, 0, 0, 12),
    ]
    features = compute_features(tape_of(rows), S, end_ns=T0 + 5 * S)
    assert features.bid_ticks.tolist() == [1000, 1000, 1003, 0]
    assert features.ask_ticks.tolist() == [1002, 1002, 1004, 0]
    assert features.valid.tolist() == [True, True, True, False]


def test_prints_that_fill_nobody_do_not_count() -> None:
    rows = [(0, 1, Kind.DEPTH, 1, LAST, 1000, 5, 1), (0, 1, Kind.DEPTH, -1, LAST, 1002, 5, 1)]
    for k in range(1, 12):
        side = 1 if k % 2 else -1
        rows.append((k * S, k * S + 1, Kind.TRADE, side, NOT_MARKET, 1001, k, k))
        rows.append((k * S + 5, k * S + 6, Kind.DEPTH, 1, LAST, 1000, 5 + k, k + 1))
    assert np.isnan(compute_features(tape_of(rows), S, params=QUICK).kyle_lambda).all()
    counted = [(*row[:4], 0 if row[2] == Kind.TRADE else row[4], *row[5:]) for row in rows]
    assert np.isfinite(compute_features(tape_of(counted), S, params=QUICK).kyle_lambda[-1])


def test_the_initial_book_is_known_from_the_first_row_on() -> None:
    book = BookState(np.array([1000]), np.array([3]), np.array([1004]), np.array([1]), 7)
    features = compute_features(tape_of([(0, 1, Kind.TRADE, 1, 0, 1004, 1, 1)], book), S, end_ns=T0 + 3 * S)
    assert features.valid.all()
    assert features.microprice[0] == pytest.approx((1000 * 1 + 1004 * 3) / 4 * 0.1)


def test_grid_is_aligned_and_bounds_are_checked() -> None:
    tape = tape_of([(5, S + 7, Kind.TRADE, 1, 0, 10, 1, 1), (2 * S, 3 * S + 7, Kind.TRADE, 1, 0, 10, 1, 2)])
    assert (decision_grid(tape, S) - T0).tolist() == [2 * S, 3 * S, 4 * S]
    assert (decision_grid(tape, S, T0, T0 + 2 * S) - T0).tolist() == [0, S]
    assert len(compute_features(tape_of([]), S)) == 0
    with pytest.raises(ConfigError, match="decision step is 0"):
        decision_grid(tape, 0)
    with pytest.raises(ConfigError, match="vol_tau_s"):
        compute_features(tape, S, params=SignalParams(vol_tau_s=0.0))


def test_between_cuts_all_columns() -> None:
    features = compute_features(random_tape(5, 300), S // 4)
    part = features.between(int(features.grid_ts[3]), int(features.grid_ts[7]))
    assert len(part) == 4
    assert part.bid_ticks.tolist() == features.bid_ticks[3:7].tolist()
