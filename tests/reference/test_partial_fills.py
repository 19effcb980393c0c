"""Partial fills, worked out by hand on the markets of the golden cases 01, 09, 10, 11, 16 and 17; both rules where they differ.

The reference engine's own record of these runs cannot be the yardstick: it loses partial executions, credits a sweep with its last level, and dies of
an order that was completed exactly. Quantities are in lots of 0.001; the market has 5.0, 5.5, 6.0, ... at 1000, 999, ... and at 1001, 1002, ...
"""

from __future__ import annotations

import pytest

from mm_platform.kernels.exchange import EXPIRED, FILLED, FOK, GTC, GTX, IOC, LIMIT, MARKET, RESTING
from mm_platform.kernels.levels import CONSERVATIVE, OK, REFERENCE
from mm_platform.kernels.queue import LOG_PROB, LOG_PROB2, POWER_PROB, POWER_PROB2, POWER_PROB3, RISK_ADVERSE, exchange_params
from mm_platform.kernels.venue import DEPTH, FLAG_LAST, PLACE, TRADE, new_venue, venue_on_request, venue_on_row

LOT = 0.001
BOTH = pytest.mark.parametrize("rule", [REFERENCE, CONSERVATIVE])
MODELS = pytest.mark.parametrize("model", [RISK_ADVERSE, LOG_PROB, LOG_PROB2, POWER_PROB, POWER_PROB2, POWER_PROB3])


class Market:
    """The golden cases' opening book. Executions are (order, tick, lots, left, maker)."""

    def __init__(self, rule: int, model: int = RISK_ADVERSE) -> None:
        self.x = exchange_params(rule, model, 3.0, LOT)
        self.venue = new_venue(1, 8, 800, 1200)
        self.per_lot = LOT if rule == REFERENCE else 1.0
        self.rows = 0
        for d in range(8):
            self.depth(1, 1000 - d, 5000 + 500 * d)
            self.depth(-1, 1001 + d, 5000 + 500 * d)

    def feed(self, kind: int, side: int, ticks: int, lots: float) -> list[tuple[int, ...]]:
        assert venue_on_row(self.x, self.venue, kind, side, FLAG_LAST, ticks, lots * self.per_lot, -1) == OK
        self.rows += 1
        return self.read()

    def depth(self, side: int, ticks: int, lots: float) -> list[tuple[int, ...]]:
        return self.feed(DEPTH, side, ticks, lots)

    def sold(self, ticks: int, lots: float) -> list[tuple[int, ...]]:
        return self.feed(TRADE, -1, ticks, lots)

    def place(self, order: int, side: int, ticks: int, lots: int, tif: int = GTX, kind: int = LIMIT) -> int:
        return int(venue_on_request(self.x, self.venue, self.rows, self.rows, 0, PLACE, order, side, ticks, lots, tif, kind, 0))

    def read(self) -> list[tuple[int, ...]]:
        e = self.venue.executions
        return [(int(e.id[k]), int(e.price_ticks[k]), int(e.lots[k]), int(e.leaves_lots[k]), int(e.maker[k])) for k in range(int(e.n[0]))]


@BOTH
@MODELS
def test_01_touch_fill(rule: int, model: int) -> None:
    """0.5 behind 5.0. Prints of 2.0, 2.0 and 1.0 take exactly what is ahead; then every print is ours."""
    m = Market(rule, model)
    assert m.place(1, 1, 1000, 500) == RESTING
    # each print with the depth row that shows it: nothing is cancelled, so all models agree
    for printed, left in ((2000, 3000), (2000, 1000), (1000, 0)):
        assert m.sold(1000, printed) == []
        m.depth(1, 1000, left)
    m.depth(1, 1000, 2000)  # others join behind us
    assert m.sold(1000, 300) == [(1, 1000, 300, 200, 1)]
    m.depth(1, 1000, 1700)
    # 0.3 printed, 0.2 left of ours: the reference's client books these 0.2 only, 0.5 is right
    assert m.sold(1000, 300) == [(1, 1000, 200, 0, 1)]
    assert m.sold(1000, 300) == []


@BOTH
def test_09_market_orders(rule: int) -> None:
    m = Market(rule)
    assert m.place(1, 1, 1, 500, GTC, MARKET) == FILLED
    assert m.read() == [(1, 1001, 500, 0, 0)]
    assert m.place(2, -1, 1, 500, GTC, MARKET) == FILLED
    assert m.read() == [(2, 1000, 500, 0, 0)]
    assert m.place(3, 1, 1, 20_000, GTC, MARKET) == FILLED
    if rule == REFERENCE:
        # 5.0 + 5.5 + 6.0 = 16.5 at 1001 to 1003, 3.5 at 1004; the reference's client books 3.5
        assert m.read() == [(3, 1001, 5000, 15_000, 0), (3, 1002, 5500, 9500, 0), (3, 1003, 6000, 3500, 0), (3, 1004, 3500, 0, 0)]
    else:
        # order 1 ate 0.5 at 1001 and nothing has restated it: 4.5, 5.5, 6.0, and 4.0 at 1004
        assert m.read() == [(3, 1001, 4500, 15_500, 0), (3, 1002, 5500, 10_000, 0), (3, 1003, 6000, 4000, 0), (3, 1004, 4000, 0, 0)]
    # all eight levels hold 5.0 + 5.5 + ... + 8.5 = 54.0
    assert m.place(4, 1, 1, 60_000, GTC, MARKET) == EXPIRED
    taken = sum(e[2] for e in m.read())
    assert taken == (54_000 if rule == REFERENCE else 54_000 - 500 - 20_000)


@BOTH
def test_10_crossing_limits(rule: int) -> None:
    """Orders 1 to 8 of the golden case, one after another, no row between them."""
    m = Market(rule)
    own = rule == CONSERVATIVE  # what we took stays taken
    assert m.place(1, 1, 1003, 500, GTC) == FILLED
    assert m.read() == [(1, 1001, 500, 0, 0)]
    assert m.place(2, -1, 998, 500, GTC) == FILLED
    assert m.read() == [(2, 1000, 500, 0, 0)]
    assert m.place(3, 1, 1001, 400, IOC) == FILLED
    assert m.read() == [(3, 1001, 400, 0, 0)]
    assert m.place(4, 1, 1000, 400, IOC) == EXPIRED
    assert m.read() == []
    # 9.0 up to 1002: 5.0 and 4.0 of 5.5. Ours found 0.9 gone: 4.1 and 4.9
    assert m.place(5, 1, 1002, 9000, FOK) == FILLED
    assert m.read() == ([(5, 1001, 4100, 4900, 0), (5, 1002, 4900, 0, 0)] if own else [(5, 1001, 5000, 4000, 0), (5, 1002, 4000, 0, 0)])
    # 9.0 up to 1001: there are 5.0, or nothing any more
    assert m.place(6, 1, 1001, 9000, FOK) == EXPIRED
    assert m.read() == []
    assert m.place(7, 1, 1001, 9000, IOC) == EXPIRED
    assert m.read() == ([] if own else [(7, 1001, 5000, 4000, 0)])
    if own:
        # nothing is left at 1001 for us, so the order rests there; when the feed restates the level we are filled by what it shows
        assert m.place(8, 1, 1001, 9000, GTC) == RESTING
        assert m.read() == []
        assert m.depth(-1, 1001, 5000) == [(8, 1001, 5000, 4000, 1)]
    else:
        # the reference fills at the limit whatever the levels before it did not give
        assert m.place(8, 1, 1001, 9000, GTC) == FILLED
        assert m.read() == [(8, 1001, 9000, 0, 0)]
        assert m.place(9, -1, 999, 12_000, GTC) == FILLED
        assert m.read() == [(9, 1000, 5000, 7000, 0), (9, 999, 5500, 1500, 0), (9, 999, 1500, 0, 0)]


@BOTH
@MODELS
def test_11_level_deleted_and_recreated(rule: int, model: int) -> None:
    """The queue ahead is cancelled to nothing; who comes later stands behind us."""
    m = Market(rule, model)
    m.place(1, 1, 1000, 300)
    m.depth(1, 1000, 0)
    m.depth(1, 1000, 3000)
    # 0.1 printed: 0.1 ours and 0.2 left; the reference's client never hears of it
    assert m.sold(1000, 100) == [(1, 1000, 100, 200, 1)]
    m.depth(1, 1000, 2900)
    assert m.sold(1000, 500) == [(1, 1000, 200, 0, 1)]


@BOTH
def test_16_an_order_filled_in_chunks_and_by_a_level(rule: int) -> None:
    """0.5 behind 5.0, filled by an overshooting print, another, and a crossing ask."""
    m = Market(rule)
    m.place(1, 1, 1000, 500)
    assert m.sold(1000, 5100) == [(1, 1000, 100, 400, 1)]  # 5.0 ahead, 0.1 reaches us
    m.depth(1, 1000, 0)
    assert m.sold(1000, 150) == [(1, 1000, 150, 250, 1)]
    # an ask of 0.2 comes down onto our bid: under the reference's rule that fills all of what is left, under the conservative one 0.2
    assert m.depth(-1, 1000, 200) == ([(1, 1000, 250, 0, 1)] if rule == REFERENCE else [(1, 1000, 200, 50, 1)])
    # and a print of 0.03 below our price fills all of the rest, or 0.03
    m.place(2, 1, 999, 500)
    through = m.sold(998, 30)
    assert through == ([(2, 999, 500, 0, 1)] if rule == REFERENCE else [(1, 1000, 30, 20, 1)])


@BOTH
@MODELS
def test_17_exact_completion_ends_the_order(rule: int, model: int) -> None:
    """5.0 ahead, 0.5 ours, 5.5 printed. In the reference the completed order stays, and the next print aborts the run."""
    m = Market(rule, model)
    m.place(1, 1, 1000, 500)
    assert m.sold(1000, 5500) == [(1, 1000, 500, 0, 1)]
    m.depth(1, 1000, 1000)
    assert m.sold(1000, 1000) == []
    # its id is free again
    assert m.place(1, 1, 999, 500) == RESTING


def test_overshoot_of_less_than_half_a_lot_fills_nothing_under_the_reference_rule() -> None:
    m = Market(REFERENCE)
    m.place(1, 1, 1000, 500)
    assert m.sold(1000, 5000.4) == []
    assert m.sold(1000, 0.2) == [(1, 1000, 1, 499, 1)]


@pytest.mark.parametrize(("model", "power", "ahead"), [(LOG_PROB, 0.0, 10_000), (POWER_PROB2, 3.0, 20_000), (POWER_PROB3, 0.5, 20_000)])
def test_an_order_moved_beyond_the_front_gets_no_more_than_the_print(model: int, power: float, ahead: int) -> None:
    """10 or 20 ahead of us, 50 join behind, then all but one lot are cancelled: these models move us to far below zero.

    The reference counts what we were moved too far as executed, thousands of lots on a print of one; the conservative rule gives the one.
    """
    filled = {}
    for rule in (REFERENCE, CONSERVATIVE):
        m = Market(rule)
        m.x = exchange_params(rule, model, power, LOT)
        m.depth(1, 1000, ahead)
        m.place(1, 1, 1000, 90_000)
        m.depth(1, 1000, ahead + 50_000)
        m.depth(1, 1000, 1)
        filled[rule] = sum(f[2] for f in m.sold(1000, 1))
    assert filled[REFERENCE] > 10_000
    assert filled[CONSERVATIVE] == 1
