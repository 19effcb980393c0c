"""Queue statistics, fill ratios, latencies, mark-out buckets: small cases worked out by hand, and identities on random ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import SPEC, T0, TapeBuilder

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import INVENTORY, MARK_HALF, ledger_fill, ledger_mark, money_of, new_ledger
from mm_platform.replay.execution_statistics import fill_ratios, latencies
from mm_platform.replay.fill_table import FILL_COLUMNS, FillTable
from mm_platform.replay.markouts import MARKOUT_HORIZONS_S, inventory_buckets, mean_maker_markouts_bps
from mm_platform.replay.order_table import OrderTable
from mm_platform.replay.quantiles import Quantiles
from mm_platform.replay.queue_statistics import printed_lots, queue_statistics
from mm_platform.tape.book_path import MidPath
from mm_platform.tape.layout import NOT_MARKET


def fills(**columns) -> FillTable:  # type: ignore[no-untyped-def]
    """A fill table from a few columns (seconds after T0 for times); the rest says nothing."""
    n = len(next(iter(columns.values())))
    given = {name: np.asarray(values) for name, values in columns.items()}
    for name in ("exch_ts", "local_ts", "arrived_ns"):
        if name in given:
            given[name] = T0 + np.round(given[name] * NS_PER_S).astype(np.int64)
    blank = {
        name: np.full(n, math.nan) if name.startswith("front_") else np.full(n, {"maker": 1, "lots": 1, "side": 1}.get(name, 0), dtype=np.int64)
        for name in FILL_COLUMNS
    }
    return FillTable(**(blank | given))


def orders(rows: list[tuple[int, int, int, int, int]], sent: list[float], answered: list[float]) -> OrderTable:
    """Requests from (set, order id, action, lots, purpose), sent and answered in ms after T0 (-1: never)."""
    n = len(rows)
    set_no, order_id, action, lots, purpose = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    zero = np.zeros(n, dtype=np.int64)
    sent_ns = T0 + np.array(sent, dtype=np.int64) * NS_PER_MS
    answered_ns = np.array([-1 if a < 0 else T0 + a * NS_PER_MS for a in answered], dtype=np.int64)
    return OrderTable(set_no, zero, order_id, action, zero, zero, lots, zero, zero, purpose, sent_ns, sent_ns, answered_ns, zero)


PLACE, CANCEL, MODIFY = 1, 2, 3
QUOTE, HEDGE = 0, 1


def test_columns_of_a_table_have_one_length() -> None:
    with pytest.raises(DataError, match="differ in length.*'lots': 1"):
        fills(exch_ts=[0.0, 1.0], lots=np.array([1]))


def test_a_table_is_cut_by_set_and_venue() -> None:
    table = fills(exch_ts=[0.0, 1.0, 2.0], set_no=[0, 1, 0], venue_no=[0, 0, 1])
    assert table.of_set(0).exch_ts.tolist() == [T0, T0 + 2 * NS_PER_S]
    assert len(table.of_venue(1)) == 1
    joined = FillTable.concatenate([table.of_set(1), table.of_set(0)])
    assert joined.set_no.tolist() == [1, 0, 0]
    assert len(FillTable.concatenate([])) == 0


def test_quantiles_are_values_that_occurred() -> None:
    q = Quantiles.of(np.arange(1, 101))
    assert (q.n, q.mean, q.p10, q.p50, q.p90, q.p99, q.largest) == (100, 50.5, 10, 50, 90, 99, 100)
    assert Quantiles.of(np.empty(0)).n == 0
    assert math.isnan(Quantiles.of(np.empty(0)).p50)


def test_fill_ratios_count_orders_and_lots_by_purpose() -> None:
    sent = orders(
        [
            (0, 1, PLACE, 10, QUOTE),
            (0, 1, CANCEL, 10, QUOTE),
            (0, 2, PLACE, 10, QUOTE),
            (1, 1, PLACE, 4, QUOTE),  # another set's order of the same number
            (0, 2, MODIFY, 6, QUOTE),  # now asks for 6
            (0, 3, PLACE, 5, HEDGE),
        ],
        list(range(6)),
        [-1] * 6,
    )
    done = fills(exch_ts=[1.0, 2.0, 3.0, 4.0], order_id=[2, 2, 1, 3], set_no=[0, 0, 1, 0], lots=[1, 2, 4, 5], purpose=[0, 0, 0, 1])
    quote, hedge = fill_ratios(done, sent)
    assert (quote.purpose, quote.orders, quote.filled_orders, quote.lots, quote.filled_lots) == ("quote", 3, 2, 20, 7)
    assert (quote.per_order, quote.per_lot) == (2 / 3, 7 / 20)
    assert (hedge.purpose, hedge.per_order, hedge.per_lot) == ("hedge", 1.0, 1.0)


def test_latencies_are_taken_from_messages_that_were_answered() -> None:
    sent = orders([(0, k, PLACE, 1, QUOTE) for k in range(3)], [0, 10, 20], [20, 35, -1])
    done = fills(exch_ts=[1.0, 2.0], local_ts=[1.010, 2.030])
    found = latencies(done, sent)
    assert (found.request_to_ack_ms.n, found.request_to_ack_ms.p10, found.request_to_ack_ms.largest) == (2, 20.0, 25.0)
    assert (found.fill_to_known_ms.p10, found.fill_to_known_ms.largest) == (10.0, 30.0)
    assert latencies(done, None).request_to_ack_ms.n == 0


def test_prints_are_told_from_cancels() -> None:
    build = TapeBuilder().book(1000, 1002)
    build.at(1).trade(-1, 1000, 3)  # before we came
    build.at(2).trade(-1, 1000, 4)  # at the instant we came: rows come before arriving requests
    build.at(3).trade(-1, 1000, 5)
    build.at(3.5).trade(1, 1000, 50)  # the other side's queue
    build.at(3.6).trade(-1, 999, 60)  # another price
    build.at(3.7).trade(-1, 1000, 70, NOT_MARKET)
    build.at(4).trade(-1, 1000, 6)  # the print that fills us
    build.at(5).trade(-1, 1000, 80)
    tape = build.tape()
    # behind 20 lots at 2 s; 11 lots printed until 4 s, so 9 were cancelled
    done = fills(exch_ts=[4.0, 4.0], arrived_ns=[2.0, 2.0], side=[1, -1], price_ticks=[1000, 1000], front_arrival_lots=[20.0, math.nan])
    assert printed_lots(done, tape).tolist() == [11.0, 50.0]
    found = queue_statistics(done, tape)
    assert (found.fills, found.advanced_lots, found.advanced_by_prints_lots) == (1, 20.0, 11.0)
    assert found.advanced_by_prints_frac == 11 / 20
    assert math.isnan(queue_statistics(done).advanced_by_prints_frac)
    assert printed_lots(fills(exch_ts=[4.0], arrived_ns=[1.0], price_ticks=[77]), tape).tolist() == [0.0]


def test_printed_lots_on_random_tapes_are_what_a_plain_count_gives() -> None:
    rng = np.random.default_rng(5)
    build = TapeBuilder()
    for s in np.sort(rng.integers(0, 40, 300)):
        build.at(float(s)).trade(int(rng.choice([-1, 1])), int(rng.integers(1000, 1004)), int(rng.integers(1, 9)))
    tape = build.tape()
    n = 200
    arrived = rng.integers(0, 40, n)
    done = fills(exch_ts=arrived + rng.integers(0, 20, n), arrived_ns=arrived, side=rng.choice([-1, 1], n), price_ticks=rng.integers(999, 1005, n))
    plain = [
        int(tape.qty_lots[(tape.side == -side) & (tape.price_ticks == price) & (tape.exch_ts > came) & (tape.exch_ts <= filled)].sum())
        for side, price, came, filled in zip(done.side, done.price_ticks, done.arrived_ns, done.exch_ts, strict=True)
    ]
    assert printed_lots(done, tape).tolist() == plain


def test_classes_of_queue_position_hold_every_fill_once() -> None:
    done = fills(
        exch_ts=[2.0, 3.0, 4.0, 9.0],
        arrived_ns=[1.0, 1.0, 1.0, 1.0],
        lots=[1, 2, 3, 4],
        front_arrival_lots=[0.0, 0.5, 10.0, math.nan],
        front_fill_lots=[-3.0, 0.0, 2.0, math.nan],
        maker=[1, 1, 1, 1],
    )
    found = queue_statistics(done)
    assert [(c.from_lots, c.below_lots, c.fills, c.lots, c.time_to_fill_p50_s) for c in found.by_front] == [
        (0.0, 1.0, 2, 3, 1.0),
        (10.0, 100.0, 1, 3, 3.0),
    ]
    assert sum(c.fills for c in found.by_front) == found.fills == 3
    assert found.advanced_lots == 0.0 + 0.5 + 8.0
    assert queue_statistics(fills(exch_ts=[1.0], maker=[0])).fills == 0


INVERSE = InstrumentSpec(
    instrument="okx:BTC-USD-PERP", tick_size="0.1", lot_size="1", multiplier="100", contract="inverse", maker_fee=0.0, taker_fee=0.0005
)


@pytest.mark.parametrize("spec", [SPEC, INVERSE], ids=["linear", "inverse"])
def test_inventory_buckets_sum_to_the_ledgers_inventory_profit(spec: InstrumentSpec) -> None:
    rng = np.random.default_rng(9)
    money = money_of(spec)
    for _ in range(40):
        n = int(rng.integers(1, 60))
        ts = np.unique(T0 + np.sort(rng.integers(0, 400 * NS_PER_S, n)))
        n = len(ts)
        mid = 1_000_000 + np.cumsum(rng.integers(-7, 8, n))
        mids = MidPath(ts, mid)
        traded = np.sort(rng.integers(0, n, 15))
        ledger = new_ledger()
        side, lots, maker = rng.choice([-1, 1], 15), rng.integers(1, 20, 15), rng.integers(0, 2, 15)
        for k, at in enumerate(traded.tolist()):
            ledger_fill(ledger, money, int(side[k]), int(mid[at]) // 2 - int(side[k]), int(lots[k]), int(maker[k]), int(mid[at]))
        ledger_mark(ledger, money, int(mid[-1]))
        done = fills(exch_ts=(ts[traded] - T0) / NS_PER_S, side=side, lots=lots, maker=maker, mid_half_ticks=mid[traded])
        buckets = inventory_buckets(done, mids, spec, int(ledger[MARK_HALF]))
        assert [b.from_s for b in buckets] == [0.0, *MARKOUT_HORIZONS_S]
        assert sum(b.maker_quanta + b.taker_quanta for b in buckets) == ledger[INVENTORY]


def test_inventory_buckets_by_hand() -> None:
    # bought 2 at mid 100.0; mid 100.1 after 0.5 s, 99.9 after 3 s, 100.4 after 100 s; the run ends there
    seconds, half = [0.0, 0.5, 3.0, 100.0], [2000, 2002, 1998, 2008]
    mids = MidPath(np.array([T0 + round(s * NS_PER_S) for s in seconds]), np.array(half))
    done = fills(exch_ts=[0.0], lots=[2], mid_half_ticks=[2000])
    assert [b.maker_quanta for b in inventory_buckets(done, mids, SPEC, 2008)] == [4, -8, 0, 0, 20, 0]
    assert mean_maker_markouts_bps(done, mids)[1.0] == pytest.approx(10.0)
    assert math.isnan(mean_maker_markouts_bps(done, mids)[300.0])
