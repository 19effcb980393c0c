"""Latency models: interpolation as the reference engine does it, draws that depend on nothing but seed, direction and time, refusals."""

from __future__ import annotations

import math
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
from builders import T0, TapeBuilder, decision_params, random_tape
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.replay.latency import (
    ENTRY,
    LOST,
    RESPONSE,
    ConstantLatency,
    DrawnLatency,
    LatencyTable,
    drawn_ns,
    entry_latency_ns,
    pack_latencies,
    response_latency_ns,
    uniform,
)
from mm_platform.replay.run import ScheduledParameters, SetInput, VenueInput, replay_many
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import compute_features

TABLE = LatencyTable(
    np.array([1_000, 2_000, 3_000, 4_000]),
    np.array([1_100, 2_300, 0, 4_050]),
    np.array([1_150, 2_400, 3_500, 4_150]),
)


def test_a_table_is_interpolated_on_the_time_sent_and_the_time_answered() -> None:
    packed = pack_latencies([[TABLE]])
    entry = {ts: entry_latency_ns(packed, 0, 0, ts) for ts in (500, 1_000, 1_500, 2_000, 2_500, 3_500, 4_000, 9_000)}
    # before the first and after the last row: that row's; half way from 100 to 300; next to a lost request: lost, back after the round trip between
    # 400 at 2000 and 500 at 3000, and between 500 at 3000 and 150 at 4000
    assert entry == {
        500: (100, 150),
        1_000: (100, 0),
        1_500: (200, 0),
        2_000: (LOST, 400),
        2_500: (LOST, 450),
        3_500: (LOST, 325),
        4_000: (50, 150),
        9_000: (50, 150),
    }
    # responses stand at 1100: 50, 2300: 100, 4050: 100
    assert [response_latency_ns(packed, 0, 0, ts) for ts in (0, 1_100, 1_700, 2_300, 3_000, 5_000)] == [50, 50, 75, 100, 100, 100]
    for ts, expected in entry.items():
        assert entry_latency_ns.compiled(packed, 0, 0, ts) == expected


@given(st.integers(0, 2**63 - 1), st.integers(0, 1), st.integers(0, 2**62), st.floats(0.0, 1e9), st.floats(0.0, 3.0), st.integers(0, 10**9))
def test_draws_agree_in_python_and_compiled(seed: int, direction: int, ts: int, median: float, sigma: float, floor: int) -> None:
    drawn = drawn_ns(seed, direction, ts, median, sigma, floor)
    assert drawn == drawn_ns.compiled(seed, direction, ts, median, sigma, floor)
    assert drawn >= floor


def test_draws_are_log_normal_and_unlike_each_other() -> None:
    median, sigma = 5e6, 0.5
    for direction in (ENTRY, RESPONSE):
        logs = [math.log(drawn_ns(7, direction, T0 + k * 100 * NS_PER_MS, median, sigma, 0) / median) for k in range(20_000)]
        # four standard errors of mean and deviation
        assert abs(statistics.fmean(logs)) < 4 * sigma / math.sqrt(20_000)
        assert abs(statistics.stdev(logs) - sigma) < 4 * sigma / math.sqrt(40_000)
        assert abs(statistics.correlation(logs[:-1], logs[1:])) < 4 / math.sqrt(20_000)
    one = np.array([uniform(7, ENTRY, T0 + k, 1) for k in range(5_000)])
    for other in (
        np.array([uniform(7, RESPONSE, T0 + k, 1) for k in range(5_000)]),
        np.array([uniform(8, ENTRY, T0 + k, 1) for k in range(5_000)]),
        np.array([uniform(7, ENTRY, T0 + k, 2) for k in range(5_000)]),
    ):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(5_000)
    # no bin of twenty is off by more than four standard deviations
    counts = np.histogram(one, 20, (0.0, 1.0))[0]
    assert np.abs(counts - 250).max() < 4 * math.sqrt(250)


def test_no_message_overtakes_another() -> None:
    tape = random_tape(4_000, 3)
    features = compute_features(tape, 200 * NS_PER_MS)
    settings = ReplaySettings(latency=DrawnLatency(1, 300e6, 1.0, 200e6, 1.0, NS_PER_MS), order_log=True, order_slots=32)
    entry = ScheduledParameters(int(features.grid_ts[0]), decision_params(refresh_s=0.2))
    result = replay_many([VenueInput(tape, features, settings)], [SetInput([entry])])[0]
    orders = result.orders
    assert orders is not None
    arrived = orders.arrived_ns[orders.arrived_ns > 0]
    assert len(arrived) > 200
    assert (np.diff(arrived) >= 0).all()
    assert len(np.unique(arrived - orders.sent_ns[orders.arrived_ns > 0])) > 50
    assert (np.diff(result.fills.local_ts) >= 0).all()


def test_what_is_lost_is_sent_again() -> None:
    """Requests are lost around 3 s and around 9 s: first orders, then, under parameters that quote nothing, cancels."""
    build = TapeBuilder().book(1000, 1002, 10)
    for s in range(1, 16):
        build.at(s).level(1, 996, 14 + s % 2)
    tape = build.tape()
    features = compute_features(tape, NS_PER_S)
    seconds = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    req = T0 + seconds * NS_PER_S + NS_PER_S // 2
    reached = ~np.isin(seconds, (2, 3, 8, 9))
    table = LatencyTable(req, np.where(reached, req + 5 * NS_PER_MS, 0), req + 9 * NS_PER_MS)
    quotes = decision_params(k=30_000.0)
    silent = quotes._replace(quote=quotes.quote._replace(sigma=math.nan))
    schedule = [ScheduledParameters(T0 + 2 * NS_PER_S, quotes), ScheduledParameters(T0 + 9 * NS_PER_S, silent)]
    settings = ReplaySettings(latency=table, order_log=True)
    result = replay_many([VenueInput(tape, features, settings)], [SetInput(schedule)])[0]
    orders = result.orders
    assert orders is not None
    log = [
        (round((int(o.sent_ns) - T0) / NS_PER_S), int(o.action), int(o.side), int(o.arrived_ns) > 0)
        for o in (SimpleNamespace(**{name: c[k] for name, c in orders.columns().items()}) for k in range(len(orders)))
    ]
    expected = [(at, 1, side, at == 5) for at in (2, 3, 4, 5) for side in (1, -1)]
    expected += [(at, 2, side, at == 11) for at in (9, 10, 11) for side in (1, -1)]
    assert log == expected
    assert set(orders.outcome[orders.arrived_ns < 0].tolist()) == {7}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([], [], []), "at least one row"),
        (([1, 2], [3], [4, 5]), "equal length"),
        (([1, 2], [0, 0], [4, 5]), "no request ever reached"),
        (([1, 1], [2, 3], [4, 5]), "row 1: req_ts does not ascend"),
        (([1, 2], [9, 8], [10, 11]), "row 1: exch_ts does not ascend"),
        (([1, 5], [2, 4], [4, 6]), "row 1: times of a round trip are out of order"),
        (([1, 5], [2, 6], [1, 7]), "row 0: times of a round trip are out of order"),
    ],
)
def test_tables_that_cannot_be(columns: tuple[list[int], ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        LatencyTable(*(np.array(c, dtype=np.int64) for c in columns))


def test_models_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="expected numbers >= 0"):
        ConstantLatency(-1, 0)
    with pytest.raises(ConfigError, match="finite medians"):
        DrawnLatency(1, math.nan, 0.5, 1.0, 0.5)
    with pytest.raises(DataError, match="latency above zero"):
        ReplaySettings(latency=DrawnLatency(1, 1e6, 0.5, 1e6, 0.5)).exchange_params(0.001)
    ReplaySettings(latency=DrawnLatency(1, 1e6, 0.5, 1e6, 0.5, floor_ns=1)).exchange_params(0.001)


def test_settings_with_equal_tables_are_equal() -> None:
    again = LatencyTable(TABLE.req_ts.copy(), TABLE.exch_ts.copy(), TABLE.resp_ts.copy())
    other = LatencyTable(TABLE.req_ts, TABLE.exch_ts, TABLE.resp_ts + 1)
    assert hash(ReplaySettings(latency=TABLE)) == hash(ReplaySettings(latency=again))
    assert ReplaySettings(latency=TABLE) == ReplaySettings(latency=again)
    assert repr(ReplaySettings(latency=TABLE)) != repr(ReplaySettings(latency=other))
