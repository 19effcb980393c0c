"""From messages to tape rows: joining snapshots, breaks, trade ids, clock, order; the same rows however the feed is cut, twins alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, day_start_ns
from mm_platform.tape.book_pass import BookPass
from mm_platform.tape.build import BuildSettings, FeedCounts, TapeBuilder
from mm_platform.tape.depth_chain import DAMAGED
from mm_platform.tape.layout import COLUMNS, ESTIMATED_EXCH, LAST, NOT_MARKET, REPAIRED, BookState, Kind
from mm_platform.tape.messages import Columns, Messages, concat, messages_of_rows

MS = NS_PER_MS
T0 = 1_680_652_800_000 * MS + 3_600 * NS_PER_S


def message(kind: Kind, at_ms: float, levels: Sequence[tuple[int, int, int]] = ((0, 0, 0),), *, latency_ms: float = 6.0, **columns: Any) -> Messages:
    """One message that happened at T0 + at_ms and was received `latency_ms` later."""
    exch = T0 + round(at_ms * MS)
    side, ticks, lots = (np.array([level[i] for level in levels], dtype=np.int64) for i in range(3))
    return Messages.of(
        1,
        counts=np.array([len(levels)]),
        side=side,
        price_ticks=ticks,
        qty_lots=lots,
        **({"kind": int(kind), "local_ns": exch + round(latency_ms * MS), "event_ns": exch, "exch_ns": exch} | columns),
    )


def depth(at_ms: float, first: int, last: int, prev: int, *levels: tuple[int, int, int], **more: Any) -> Messages:
    return message(Kind.DEPTH, at_ms, levels, first_seq=first, seq=last, prev_seq=prev, **more)


def snapshot(at_ms: float, last: int, *levels: tuple[int, int, int], **more: Any) -> Messages:
    return message(Kind.SNAPSHOT, at_ms, levels, **({"seq": last, "latency_ms": 20.0} | more))


def trade(at_ms: float, trade_id: int, side: int = 1, ticks: int = 1001, **more: Any) -> Messages:
    return message(Kind.TRADE, at_ms, ((side, ticks, 5),), seq=trade_id, **more)


def top(at_ms: float, update: int, bid: int = 1000, ask: int = 1001, **more: Any) -> Messages:
    return message(Kind.TOP, at_ms, ((1, bid, 7), (-1, ask, 8)), seq=update, **more)


def build(
    messages: Sequence[Messages], *, batches: Sequence[int] | None = None, compiled: bool = True, **changed: Any
) -> tuple[Columns, FeedCounts, TapeBuilder]:
    """All rows of one day, fed in batches of the given sizes."""
    builder = TapeBuilder(BuildSettings(**changed), compiled=compiled)
    feed, rows, at = concat(list(messages)), [], 0
    for size in [*(batches or []), len(feed)]:
        part = feed.slice(at, min(at + size, len(feed)))
        at += len(part)
        if len(part):
            day, count = builder.day_of(part)
            assert count == len(part), f"the test's messages must lie on one day ({day})"
            rows.append(builder.add(part))
    last, counts = builder.end_day()
    rows.append(last)
    return {name: np.concatenate([r[name] for r in rows]) for name in COLUMNS}, counts, builder


def shown(rows: Columns) -> list[tuple[str, int, int, int]]:
    return [
        (Kind(k).name, int(s), int(p), int(q)) for k, s, p, q in zip(rows["kind"], rows["side"], rows["price_ticks"], rows["qty_lots"], strict=True)
    ]


USDM = [
    depth(0, 10, 20, 9, (1, 1000, 5)),
    depth(10, 25, 40, 20, (1, 1000, 7)),
    snapshot(5, 22, (1, 1000, 6), (-1, 1001, 4)),
    depth(30, 41, 50, 40, (-1, 1001, 0), (-1, 1002, 3)),
]


def test_a_usdm_snapshot_after_the_first_updates_is_joined_by_the_chain_although_ids_are_missing() -> None:
    # first surviving update: ids 25..40, above 22 + 1, but the one before it ended at 20
    rows, counts, builder = build(USDM)
    assert shown(rows) == [
        ("CLEAR", 0, 0, 0),
        ("SNAPSHOT", 1, 1000, 6),
        ("SNAPSHOT", -1, 1001, 4),
        ("DEPTH", 1, 1000, 7),
        ("DEPTH", -1, 1001, 0),
        ("DEPTH", -1, 1002, 3),
    ]
    assert (counts.sequence_breaks, counts.depth_messages, counts.snapshots_used, counts.book_ever_known) == (0, 3, 1, True)
    assert builder.book_known
    assert (rows["flags"] & LAST).astype(bool).tolist() == [True, False, True, True, False, True]


def test_updates_that_wait_for_the_snapshot_become_known_with_it() -> None:
    rows, _, _ = build(USDM)
    received = T0 + 25 * MS
    assert rows["local_ts"][:4].tolist() == [received] * 4
    assert rows["exch_ts"].tolist() == [T0 + 5 * MS] * 3 + [T0 + 10 * MS] + [T0 + 30 * MS] * 2


def test_a_usdm_snapshot_that_no_update_joins_leaves_no_book() -> None:
    rows, counts, builder = build([snapshot(0, 22, (1, 1000, 6)), depth(30, 41, 50, 40, (1, 1000, 7))])
    # the update that follows came after one that ended at 40 > 22: something is missing
    assert shown(rows) == [("CLEAR", 0, 0, 0), ("SNAPSHOT", 1, 1000, 6), ("CLEAR", 0, 0, 0)]
    assert counts.sequence_breaks == 1
    assert not builder.book_known
    assert (counts.places[0].expected, counts.places[0].got) == (22, 40)


def test_a_spot_snapshot_is_joined_by_the_update_that_spans_it() -> None:
    feed = [
        depth(0, 10, 20, -1, (1, 1000, 5)),
        depth(10, 21, 30, -1, (1, 1000, 7)),
        snapshot(5, 24, (1, 1000, 6), exch_ns=-1, event_ns=-1),
        depth(30, 31, 31, -1, (1, 1000, 8)),
    ]
    rows, counts, builder = build(feed)
    assert shown(rows) == [("CLEAR", 0, 0, 0), ("SNAPSHOT", 1, 1000, 6), ("DEPTH", 1, 1000, 7), ("DEPTH", 1, 1000, 8)]
    assert builder.book_known
    assert counts.sequence_breaks == 0
    # its own time is not stated: estimated, and not after the first update it is joined by
    assert rows["flags"][1] & ESTIMATED_EXCH
    assert rows["exch_ts"][1] <= T0 + 10 * MS


def test_a_spot_snapshot_older_than_the_updates_leaves_no_book() -> None:
    _, counts, builder = build([snapshot(0, 5, (1, 1000, 6)), depth(30, 10, 12, -1, (1, 1000, 7))])
    assert not builder.book_known
    assert counts.sequence_breaks == 1


def test_without_a_snapshot_there_are_trades_and_best_quotes_but_no_depth() -> None:
    rows, counts, _ = build([depth(0, 1, 5, 0, (1, 1000, 5)), trade(1, 7), top(2, 6), depth(3, 6, 9, 5, (1, 1000, 6))])
    assert shown(rows) == [("TRADE", 1, 1001, 5), ("TOP", 1, 1000, 7), ("TOP", -1, 1001, 8)]
    assert (counts.depth_messages, counts.book_ever_known) == (2, False)


def test_after_a_break_the_book_is_not_known_until_the_next_snapshot() -> None:
    feed = [
        snapshot(0, 10, (1, 1000, 6), (-1, 1001, 4)),
        depth(30, 11, 20, 10, (1, 1000, 7)),
        depth(40, 31, 40, 30, (1, 999, 1), place=4),
        trade(45, 1),
        depth(50, 41, 50, 40, (1, 998, 1)),
        snapshot(55, 45, (1, 997, 2), (-1, 1003, 2)),
        depth(80, 51, 60, 50, (-1, 1003, 9)),
    ]
    rows, counts, builder = build(feed)
    assert shown(rows) == [
        ("CLEAR", 0, 0, 0),
        ("SNAPSHOT", 1, 1000, 6),
        ("SNAPSHOT", -1, 1001, 4),
        ("DEPTH", 1, 1000, 7),
        ("CLEAR", 0, 0, 0),
        ("TRADE", 1, 1001, 5),
        ("CLEAR", 0, 0, 0),
        ("SNAPSHOT", 1, 997, 2),
        ("SNAPSHOT", -1, 1003, 2),
        ("DEPTH", 1, 998, 1),
        ("DEPTH", -1, 1003, 9),
    ]
    assert counts.sequence_breaks == 1
    place = counts.places[0]
    assert (place.what, place.expected, place.got, place.place) == ("depth update", 20, 30, 4)
    assert builder.book_known


def test_updates_seen_before_are_dropped_and_empty_ones_carry_the_chain_on() -> None:
    feed = [
        snapshot(0, 10, (1, 1000, 6)),
        depth(30, 11, 20, 10, (1, 1000, 7)),
        depth(31, 11, 20, 10, (1, 1000, 7)),
        depth(40, 21, 30, 20),
        depth(50, 31, 40, 30, (1, 1000, 8)),
    ]
    rows, counts, _ = build(feed)
    assert [r for r in shown(rows) if r[0] == "DEPTH"] == [("DEPTH", 1, 1000, 7), ("DEPTH", 1, 1000, 8)]
    assert (counts.duplicates, counts.sequence_breaks) == (1, 0)


def test_a_snapshot_while_the_chain_holds_is_not_needed() -> None:
    rows, counts, _ = build([snapshot(0, 10, (1, 1000, 6)), depth(30, 11, 20, 10, (1, 1000, 7)), snapshot(40, 20, (1, 1000, 7))])
    assert len(rows["kind"]) == 3
    assert (counts.snapshots_used, counts.snapshots_dropped) == (1, 1)


def test_feeds_without_ids_start_anew_at_each_snapshot_and_stop_at_damage() -> None:
    feed = [
        depth(0, -1, -1, -1, (1, 990, 1)),
        snapshot(10, -1, (1, 1000, 6)),
        snapshot(11, -1, (-1, 1001, 6)),
        depth(20, -1, -1, -1, (1, 1000, 7)),
        depth(30, -1, DAMAGED, -1),
        depth(40, -1, -1, -1, (1, 1000, 8)),
        snapshot(50, -1, (1, 995, 1)),
    ]
    rows, counts, _ = build(feed)
    assert shown(rows) == [
        ("CLEAR", 0, 0, 0),
        ("SNAPSHOT", 1, 1000, 6),
        ("SNAPSHOT", -1, 1001, 6),
        ("DEPTH", 1, 1000, 7),
        ("CLEAR", 0, 0, 0),
        ("CLEAR", 0, 0, 0),
        ("SNAPSHOT", 1, 995, 1),
    ]
    assert counts.sequence_breaks == 1


def test_trade_ids_missing_late_and_repeated() -> None:
    rows, counts, _ = build([trade(0, 1), trade(1, 2), trade(2, 5, place=33), trade(3, 4), trade(4, 4), trade(5, 6), trade(6, 9)])
    # 3 never comes, 4 comes late, 4 comes again, 7 and 8 never come
    assert rows["seq"].tolist() == [1, 2, 5, 4, 6, 9]
    assert (counts.trade_id_gaps, counts.duplicates) == (2, 1)
    assert (counts.places[0].what, counts.places[0].expected, counts.places[0].got, counts.places[0].place) == ("trade id", 3, 5, 33)


def test_a_trade_that_closes_its_gap_leaves_none() -> None:
    _, counts, _ = build([trade(0, 1), trade(1, 3), trade(2, 2), trade(3, 4)])
    assert (counts.trade_id_gaps, counts.duplicates) == (0, 0)


def predicted(at_ms: float, stamp_ns: int, rate: float, price: float) -> Messages:
    return message(Kind.FUNDING_PREDICTED, at_ms, seq=stamp_ns, value=rate, aux=price)


def test_a_stamp_settles_at_the_rate_announced_last_when_the_next_is_announced() -> None:
    stamp, following = T0 + 1_000 * MS, T0 + 28_800 * NS_PER_S
    rows, _, _ = build(
        [
            predicted(0, stamp, 0.0001, 100.0),
            predicted(1_010, stamp, 0.0002, 101.0),
            trade(1_000, 1, latency_ms=20.0),
            predicted(2_000, following, 0.0003, 102.0),
        ]
    )
    at = np.flatnonzero(rows["kind"] == Kind.FUNDING)
    assert len(at) == 1
    i = int(at[0])
    assert (rows["exch_ts"][i], rows["seq"][i], rows["value"][i], rows["aux"][i]) == (stamp, stamp, 0.0002, 101.0)
    # nobody could know before the next stamp was announced
    assert rows["local_ts"][i] == T0 + 2_006 * MS
    # positions at the stamp: before the trade of the same instant
    assert rows["kind"][i + 1] == Kind.TRADE


def test_a_rate_announced_long_before_its_stamp_is_not_settled() -> None:
    rows, _, _ = build([predicted(0, T0 + 120 * NS_PER_S, 0.0001, 100.0), predicted(121_000, T0 + 28_800 * NS_PER_S, 0.0003, 102.0)])
    assert Kind.FUNDING not in rows["kind"]


def test_a_trade_stands_before_the_depth_that_reflects_it_and_quotes_by_update_id() -> None:
    feed = [
        snapshot(0, 10, (1, 1000, 6), (-1, 1001, 5)),
        top(50, 15, latency_ms=2.0),
        depth(50, 11, 20, 10, (-1, 1001, 0), latency_ms=3.0),
        top(50, 25, ask=1002, latency_ms=4.0),
        trade(50, 1, latency_ms=40.0),
    ]
    rows, _, _ = build(feed, clock_floor_ms=0.0)
    assert [(Kind(k).name, int(s)) for k, s in zip(rows["kind"], rows["seq"], strict=True)][3:] == [
        ("TRADE", 1),
        ("TOP", 15),
        ("TOP", 15),
        ("DEPTH", 20),
        ("TOP", 25),
        ("TOP", 25),
    ]


def test_streams_that_lag_each_other_beyond_reach_are_placed_late_and_marked() -> None:
    feed = [trade(0, 1), trade(30_000, 2), trade(31_000, 3), trade(1_000, 4, latency_ms=31_000.0)]
    rows, counts, _ = build(feed, reorder_s=10.0)
    assert counts.late == 1
    late = rows["seq"] == 4
    assert rows["flags"][late][0] & ESTIMATED_EXCH
    assert np.all(np.diff(rows["exch_ts"]) >= 0)
    assert np.all(rows["local_ts"] >= rows["exch_ts"])
    within, counts, _ = build(feed, reorder_s=60.0)
    assert within["seq"].tolist() == [1, 4, 2, 3]
    assert counts.late == 0


def test_a_clock_that_is_right_is_left_alone() -> None:
    rows, counts, _ = build([trade(i, i, latency_ms=0.5) for i in range(5)])
    assert (counts.clock.max_shift_ns, counts.clock.moved, counts.clock.negative) == (0, 0, 0)
    assert not np.any(rows["flags"] & REPAIRED)


def test_a_clock_behind_the_venue_is_moved_from_the_first_negative_latency_on() -> None:
    latencies = [2.0, -1_500.0, -1_490.0, -1_510.0, -1_400.0, -1_505.0]
    rows, counts, _ = build([trade(100.0 * i, i, latency_ms=x) for i, x in enumerate(latencies)])
    seen = (rows["local_ts"] - rows["exch_ts"]) / MS
    # the last would be seen before the one above it: it waits until the same moment
    assert seen.tolist() == [2.0, 5.0, 15.0, 5.0, 115.0, 15.0]
    assert (rows["flags"] & REPAIRED).astype(bool).tolist() == [False, True, True, True, True, True]
    assert (counts.clock.negative, counts.clock.max_shift_ns) == (5, 1_515 * MS)


def test_the_repair_follows_a_drifting_clock_within_its_window() -> None:
    feed = [trade(1_000.0 * i, i, latency_ms=-100.0 if i < 30 else 50.0) for i in range(120)]
    rows, _, _ = build(feed, clock_window_s=32.0)
    seen = (rows["local_ts"] - rows["exch_ts"]) / MS
    assert seen[:30].tolist() == [5.0] * 30
    assert seen[40] == 155.0  # the window still holds the slow clock
    assert seen[-1] == 50.0  # and forgets it
    assert np.all(np.diff(rows["local_ts"]) >= 0)


@given(st.lists(st.tuples(st.floats(-300, 300), st.floats(0, 50)), min_size=2, max_size=60), st.integers(1, 59))
def test_the_repair_looks_back_only_and_keeps_the_order_of_receipt(steps: list[tuple[float, float]], cut: int) -> None:
    at, feed = 0.0, []
    for i, (latency, pause) in enumerate(steps):
        at += pause
        feed.append(trade(at, i, latency_ms=latency))
    feed.sort(key=lambda m: int(m.local_ns[0]))
    together = concat(feed)
    whole = TapeBuilder(BuildSettings())._clock.repair(together)
    # whatever comes later, the past stays what it was
    past = TapeBuilder(BuildSettings())._clock.repair(together.slice(0, min(cut, len(together))))
    assert np.array_equal(past.local_ns, whole.local_ns[: len(past)])
    assert np.all(np.diff(whole.local_ns) >= 0)
    assert np.all(whole.local_ns >= whole.exch_ns)
    moved = (whole.flags & REPAIRED) != 0
    assert np.all((whole.local_ns - whole.exch_ns)[moved] >= 5 * MS - 1)


def spot_top(at_ms: float, update: int) -> Messages:
    return top(at_ms, update, event_ns=-1, exch_ns=-1)


def test_a_quote_without_a_time_is_estimated_between_its_neighbours_and_never_after_its_receipt() -> None:
    feed = [
        trade(0, 1, latency_ms=3.0),
        depth(10, 1, 20, -1, (1, 1000, 1), latency_ms=8.0),
        # contained in the update received before: not after it
        spot_top(30, 15),
        # follows it
        spot_top(32, 21),
    ]
    rows, _, _ = build(feed)
    tops = np.flatnonzero(rows["kind"] == Kind.TOP)[::2]
    assert np.all(rows["flags"][tops] & ESTIMATED_EXCH)
    # the clock is right: receive time less the smallest latency seen; the first is held at its update
    assert rows["exch_ts"][tops].tolist() == [T0 + 10 * MS, T0 + 35 * MS]
    assert rows["local_ts"][tops].tolist() == [T0 + 36 * MS, T0 + 38 * MS]


def test_pauses_of_the_feed_are_counted() -> None:
    _, counts, _ = build([trade(0, 1), trade(100, 2), trade(61_100, 3), trade(300_000, 4)])
    assert (counts.clock.silences, counts.clock.longest_silence_ns) == (2, 238_900 * MS)


def test_days_are_divided_by_repaired_receive_time_and_the_state_ends_where_the_day_does() -> None:
    midnight = day_start_ns(__import__("datetime").date(2023, 4, 6))
    ms = (midnight - T0) / MS
    feed = concat(
        [
            trade(ms - 100, 1, latency_ms=-50.0),
            trade(ms - 60, 2, latency_ms=-50.0),
            trade(ms - 20, 3, latency_ms=-35.0),
            trade(ms + 5, 4, latency_ms=-50.0),
        ]
    )
    builder = TapeBuilder(BuildSettings())
    day, count = builder.day_of(feed)
    # received before midnight by the recorder's clock, after it by the repaired one: -20 - 35 + 55 = 0
    assert (day.isoformat(), count) == ("2023-04-05", 2)
    builder.add(feed.slice(0, 2))
    rows, _ = builder.end_day()
    assert rows["seq"].tolist() == [1, 2]
    assert builder.state().clock.last_recorded_ns == feed.local_ns[1]
    day, count = builder.day_of(feed.slice(2, 4))
    assert (day.isoformat(), count) == ("2023-04-06", 2)
    rest = builder.add(feed.slice(2, 4))
    last, _ = builder.end_day()
    assert int(np.concatenate((rest["local_ts"], last["local_ts"])).min()) // NS_PER_DAY * NS_PER_DAY == midnight


def random_feed(seed: int) -> list[Messages]:
    """A feed with everything in it: a late snapshot, updates with gaps now and then, repeats, trades, quotes, marks, a clock that drifts."""
    rng = np.random.default_rng(seed)
    feed, at, last, trade_id = [], 0.0, 10, 0
    for i in range(120):
        at += float(rng.exponential(5.0))
        latency = float(rng.normal(-20.0 + 0.2 * i, 8.0))
        pick = rng.random()
        if i in (7, 60, 90):
            feed.append(snapshot(at, last, (1, 1000 - i % 3, 9), (-1, 1003, 9), latency_ms=latency))
        elif pick < 0.4:
            prev = last + (5 if rng.random() < 0.05 else 0)
            last = prev + int(rng.integers(1, 9))
            levels = [(int(rng.choice([1, -1])), int(rng.integers(990, 1012)), int(rng.integers(0, 4))) for _ in range(int(rng.integers(0, 4)))]
            feed.append(depth(at, prev + 1, last, prev, *levels, latency_ms=latency))
            if rng.random() < 0.1:
                feed.append(depth(at, prev + 1, last, prev, *levels, latency_ms=latency))
        elif pick < 0.7:
            trade_id += 1 if rng.random() < 0.95 else 3
            feed.append(trade(at, trade_id, latency_ms=latency, flags=int(NOT_MARKET) if rng.random() < 0.1 else 0))
        elif pick < 0.9:
            feed.append(top(at, last, latency_ms=latency))
        else:
            feed.append(message(Kind.MARK, at, value=100.0, aux=99.0, latency_ms=latency))
    return sorted(feed, key=lambda m: int(m.local_ns[0]))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), max_size=8))
def test_any_cut_of_the_feed_into_batches_gives_the_same_rows(seed: int, sizes: list[int]) -> None:
    feed = random_feed(seed)
    whole, counts, _ = build(feed)
    parts, part_counts, _ = build(feed, batches=sizes)
    for name in COLUMNS:
        assert np.array_equal(whole[name], parts[name], equal_nan=name in ("value", "aux")), name
    assert counts == part_counts
    assert np.all(np.diff(whole["exch_ts"]) >= 0)
    assert np.all(whole["local_ts"] >= whole["exch_ts"])


@pytest.mark.parametrize("seed", range(5))
def test_both_twins_give_the_same_rows_and_the_same_book(seed: int) -> None:
    feed = random_feed(seed)
    fast, counts, _ = build(feed, compiled=True)
    plain, plain_counts, _ = build(feed, compiled=False)
    for name in COLUMNS:
        assert np.array_equal(fast[name], plain[name], equal_nan=name in ("value", "aux")), name
    assert counts == plain_counts
    passes = [BookPass(BookState.empty(), compiled=c) for c in (True, False)]
    tops = [p.apply(fast) for p in passes]
    assert passes[0].counts() == passes[1].counts()
    assert all(np.array_equal(getattr(tops[0], f), getattr(tops[1], f)) for f in ("row", "source", "changed", "seq", "bid_ticks", "ask_lots"))


@pytest.mark.parametrize("seed", range(5))
def test_the_rebuilt_book_is_the_one_a_dictionary_gives(seed: int) -> None:
    rows, _, _ = build(random_feed(seed))
    book: dict[int, dict[int, int]] = {1: {}, -1: {}}
    crossed = 0
    for k, s, p, q, f in zip(rows["kind"], rows["side"], rows["price_ticks"], rows["qty_lots"], rows["flags"], strict=True):
        if k == Kind.CLEAR:
            book = {1: {}, -1: {}}
        elif k in (Kind.DEPTH, Kind.SNAPSHOT):
            book[int(s)].pop(int(p), None)
            if q:
                book[int(s)][int(p)] = int(q)
            if f & LAST and book[1] and book[-1] and max(book[1]) >= min(book[-1]):
                crossed += 1
    whole = BookPass(BookState.empty())
    whole.apply(rows)
    state = whole.book()
    assert dict(zip(state.bid_ticks.tolist(), state.bid_lots.tolist(), strict=True)) == book[1]
    assert dict(zip(state.ask_ticks.tolist(), state.ask_lots.tolist(), strict=True)) == book[-1]
    assert state.bid_ticks.tolist() == sorted(book[1], reverse=True)
    assert state.ask_ticks.tolist() == sorted(book[-1])
    assert whole.counts().crossed_books == crossed


def test_rows_and_messages_are_the_same_thing_twice() -> None:
    rows, _, _ = build(random_feed(3))
    again = messages_of_rows(rows).rows()
    for name in COLUMNS:
        assert np.array_equal(rows[name], again[name], equal_nan=name in ("value", "aux")), name


def compared(feed: Sequence[Messages]) -> tuple[int, int]:
    rows, _, _ = build(feed)
    book = BookPass(BookState.empty())
    for start in range(0, len(rows["kind"]), 3):
        book.apply({name: column[start : start + 3] for name, column in rows.items()})
    counts = book.counts()
    return counts.top_of_book_compared, counts.top_of_book_matched


def test_best_quotes_are_compared_at_equal_ids_whichever_comes_first() -> None:
    feed = [
        snapshot(0, 10, (1, 1000, 7), (-1, 1001, 5)),
        depth(50, 11, 20, 10, (-1, 1001, 8)),
        top(60, 20),  # equal
        top(70, 30),  # equal, before its update
        depth(80, 21, 30, 20, (1, 990, 1)),
        top(90, 35),  # no update ends at 35
        depth(100, 31, 40, 30, (1, 1000, 6)),
        top(110, 40),  # the venue says 7
    ]
    assert compared(feed) == (3, 2)


def test_trades_past_the_quote_known_before_them_count_as_not_ordered() -> None:
    feed = [
        snapshot(0, 10, (1, 1000, 7), (-1, 1001, 5)),
        trade(50, 1, 1, 1001),
        trade(60, 2, -1, 1000),
        trade(70, 3, 1, 1000),  # bought below the best ask
        trade(80, 4, -1, 1001),  # sold above the best bid
        trade(90, 5, 1, 1000, flags=int(NOT_MARKET)),
    ]
    rows, _, _ = build(feed)
    book = BookPass(BookState.empty())
    book.apply(rows)
    counts = book.counts()
    assert (counts.trades, counts.non_market_trades, counts.judged_trades, counts.unordered_trades) == (5, 1, 4, 2)


def test_a_deep_book_grows_and_a_crossed_one_is_counted() -> None:
    levels = [(1, 100_000 - i, 1) for i in range(20_000)]
    rows, _, _ = build([snapshot(0, 1, *levels, (-1, 100_001, 1)), depth(50, 2, 3, 1, (1, 100_001, 1))])
    book = BookPass(BookState.empty())
    book.apply(rows)
    assert len(book.book().bid_ticks) == 20_001
    assert book.counts().crossed_books == 1
