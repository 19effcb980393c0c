"""Water-filling against THEORY section 7, against exhaustive search, and both twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.kernels import routing as r

A = [(100.00, 3), (100.02, 5), (100.05, 10)]
B = [(100.01, 4), (100.03, 4), (100.06, 10)]
C = [(99.99, 2), (100.04, 6), (100.05, 8)]
FEES = [5e-4, 2e-4, 1e-3]


def books_of(levels, fees, *, fixed=None, lower=None, upper=None, penalty=None) -> r.Books:
    zeros = np.zeros(len(levels))
    return r.Books(
        start=np.cumsum([0, *(len(venue) for venue in levels)]).astype(np.int64),
        price=np.array([price for venue in levels for price, _ in venue], dtype=np.float64),
        size=np.array([size for venue in levels for _, size in venue], dtype=np.float64),
        fee=np.array(fees, dtype=np.float64),
        penalty=zeros if penalty is None else np.array(penalty, dtype=np.float64),
        fixed=zeros if fixed is None else np.array(fixed, dtype=np.float64),
        lower=zeros if lower is None else np.array(lower, dtype=np.float64),
        upper=np.full(len(levels), math.inf) if upper is None else np.array(upper, dtype=np.float64),
    )


def fill(books: r.Books, amount: float, *, side: float = 1.0, allowed: int | None = None) -> tuple[float, list[float], float]:
    """Unfilled, quantity per venue, cost, after checking that the compiled twin leaves the same bits."""
    mask = (1 << (len(books.start) - 1)) - 1 if allowed is None else allowed
    python, compiled = r.new_work(books), r.new_work(books)
    left = r.water_fill(side, amount, books, mask, python)
    assert r.water_fill.compiled(side, amount, books, mask, compiled) == left
    for mine, theirs in zip(python, compiled, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    cost = r.total_cost(side, books, python.taken)
    assert r.total_cost.compiled(side, books, python.taken) == cost
    return left, [float(x) for x in python.used], cost


def cost_of(books: r.Books, quantities, side: float = 1.0) -> float:
    work = r.new_work(books)
    for v, quantity in enumerate(quantities):
        work.cursor[v] = books.start[v]
        assert r.take_from_venue(books, work, v, float(quantity)) == pytest.approx(quantity)
    return r.total_cost(side, books, work.taken)


def exhaustive(books: r.Books, amount: int, side: float = 1.0) -> float:
    """Least cost over all whole quantities within the bounds of every venue."""
    venues = range(len(books.start) - 1)
    room = [int(min(books.upper[v], books.size[books.start[v] : books.start[v + 1]].sum())) for v in venues]
    options = [[q for q in range(min(room[v], amount) + 1) if q == 0 or q >= books.lower[v]] for v in venues]
    best = math.inf
    for quantities in itertools.product(*options[:-1]):
        rest = amount - sum(quantities)
        if rest in options[-1]:
            best = min(best, cost_of(books, (*quantities, rest), side))
    return best


@pytest.mark.parametrize(
    ("amount", "quantities", "cost"),
    [(5, [1, 4, 0], 500.170008), (12, [4, 8, 0], 1200.540042), (20, [8, 12, 0], 2001.140130), (30, [10, 18, 2], 3002.000232)],
)
def test_theory_case_equals_exhaustive_search(amount: int, quantities: list[float], cost: float) -> None:
    books = books_of([A, B, C], FEES)
    left, used, paid = fill(books, float(amount))
    assert left == 0.0
    assert used == pytest.approx(quantities)
    assert paid == pytest.approx(cost, abs=5e-7)
    assert paid == pytest.approx(exhaustive(books, amount), rel=1e-14)


def test_ignoring_fees_costs_more() -> None:
    _, used, _ = fill(books_of([A, B, C], [0, 0, 0]), 12.0)
    assert cost_of(books_of([A, B, C], FEES), used) == pytest.approx(1200.660018, abs=5e-7)


def test_fixed_costs_need_the_subset_search() -> None:
    books = books_of([A, B, C], FEES, fixed=[0.05, 0.05, 0.05])
    _, used, greedy = fill(books, 8.0)
    assert sum(q > 0 for q in used) == 2
    assert greedy == pytest.approx(800.420014, abs=5e-7)
    work = r.new_work(books)
    best = r.best_subset(1.0, 8.0, books, work)
    assert best == r.best_subset.compiled(1.0, 8.0, books, r.new_work(books)) == 0b010
    assert fill(books, 8.0, allowed=best)[2] == pytest.approx(800.370032, abs=5e-7)


def test_latency_penalty() -> None:
    penalty = r.latency_penalty(50_000.0, 0.5, 0.080)
    assert penalty == pytest.approx(0.5023, abs=5e-5)
    assert penalty / 50_000.0 * 1e4 == pytest.approx(0.1005, abs=5e-5)
    assert r.latency_penalty.compiled(50_000.0, 0.5, 0.080) == penalty


LEVELS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=3)


@st.composite
def markets(draw):
    """Up to three venues with whole sizes, so that whole quantities contain an optimum; side, amount, bounds and costs drawn too."""
    side = draw(st.sampled_from([1.0, -1.0]))
    venues = draw(st.integers(2, 3))
    levels = []
    for _ in range(venues):
        rows, price = [], 0
        for gap, size in draw(LEVELS):
            price += gap
            rows.append((100.0 + side * price * 0.01, float(size)))
        levels.append(rows)
    fees = [draw(st.integers(-1, 10)) * 1e-4 for _ in range(venues)]
    fixed = [draw(st.sampled_from([0.0, 0.01, 0.05])) for _ in range(venues)]
    lower = [float(draw(st.integers(0, 3))) for _ in range(venues)]
    upper = [float(draw(st.integers(0, 8))) for _ in range(venues)]
    amount = draw(st.integers(1, 10))
    return side, amount, books_of(levels, fees, fixed=fixed, lower=lower, upper=upper)


@given(markets())
def test_subset_search_equals_exhaustive_search(market) -> None:
    side, amount, books = market
    work = r.new_work(books)
    best = r.best_subset(side, float(amount), books, work)
    assert best == r.best_subset.compiled(side, float(amount), books, r.new_work(books))
    least = exhaustive(books, amount, side)
    if best == 0 or (filled := fill(books, float(amount), side=side, allowed=best))[0] > 0.0:
        assert least == math.inf  # what cannot be filled whole cannot be filled whole by search either
    else:
        assert filled[2] == pytest.approx(least, rel=1e-12, abs=1e-9)
        for v, quantity in enumerate(filled[1]):
            assert quantity == 0.0 or books.lower[v] - 1e-9 <= quantity <= books.upper[v] + 1e-9


@given(markets())
def test_nothing_is_taken_that_is_not_there(market) -> None:
    side, amount, books = market
    work = r.new_work(books)
    left = r.water_fill(side, float(amount), books._replace(lower=np.zeros_like(books.lower)), 0b111, work)
    assert (work.taken <= books.size + 1e-12).all()
    assert work.taken.sum() + left == pytest.approx(amount)
    for v in range(len(books.start) - 1):
        taken = work.taken[books.start[v] : books.start[v + 1]]
        untouched = np.flatnonzero(taken < books.size[books.start[v] : books.start[v + 1]])
        if len(untouched):
            assert not taken[untouched[0] + 1 :].any()  # no level before a better one is used up


def test_an_empty_level_is_passed() -> None:
    left, used, _ = fill(books_of([[(100.0, 0.0), (100.1, 2.0)], [(100.2, 2.0)]], [0.0, 0.0]), 3.0)
    assert left == 0.0
    assert used == [2.0, 1.0]


def test_affordable_quantity_reserves_the_limit_price() -> None:
    price, size = np.array([100.0, 200.0]), np.array([1.0, 10.0])

    def affordable(side: float, budget: float) -> float:
        got = r.affordable_quantity(side, price, size, 0, 2, 1.0, budget)
        assert got == r.affordable_quantity.compiled(side, price, size, 0, 2, 1.0, budget)
        return got

    assert affordable(1.0, 50.0) == 0.5
    assert affordable(1.0, 150.0) == 1.0  # a second unit would raise the limit of both to 200
    assert affordable(1.0, 600.0) == 3.0
    assert affordable(-1.0, 600.0) == 6.0  # a sale on margin is charged at its best level
