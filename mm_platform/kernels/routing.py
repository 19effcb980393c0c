"""Splitting one taker order over several books (THEORY section 7).

Belongs here: marginal costs, water-filling, the search over venue subsets, all over flat arrays. Does not belong here: books as venues
send them, balances, orders (`smart_order_router`).

The cost of taking a quantity at one venue is convex and piecewise linear (its levels get dearer), and the venues' costs add up. So taking
the level with the least marginal cost next is optimal, also with a lower and an upper bound of the quantity per venue. Fixed costs and
minimum sizes break convexity only through the question which venues are used at all; that is searched exhaustively.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.units import SECONDS_PER_YEAR
from mm_platform.kernels.jit import kernel

MAX_VENUES: Final = 12
INFEASIBLE: Final = -1.0
_YEAR_S: Final = float(SECONDS_PER_YEAR)
_REL_TOL: Final = 1e-12

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Books(NamedTuple):
    """One side of every venue's book, flat: the levels of venue v are [start[v], start[v + 1]), best first.

    Parameters
    ----------
    start : array of int64, shape (V + 1,)
    price, size : array, shape (n,)
        Quote per base; base.
    fee : array, shape (V,)
        Taker fee, fraction of notional.
    penalty : array, shape (V,)
        Expected loss to latency and adverse moves, quote per base.
    fixed : array, shape (V,)
        Cost of using the venue at all, quote.
    lower, upper : array, shape (V,)
        Bounds of the quantity in base if the venue is used; an upper bound of 0 closes it.
    """

    start: Int64s
    price: Float64s
    size: Float64s
    fee: Float64s
    penalty: Float64s
    fixed: Float64s
    lower: Float64s
    upper: Float64s


class Work(NamedTuple):
    """Arrays the kernels write: per venue the next level, what was taken of it, the quantity; per level the quantity (result)."""

    cursor: Int64s
    level_taken: Float64s
    used: Float64s
    taken: Float64s


def new_work(books: Books) -> Work:
    """Working arrays of the right shapes."""
    venues, levels = len(books.start) - 1, len(books.price)
    return Work(np.zeros(venues, np.int64), np.zeros(venues), np.zeros(venues), np.zeros(levels))


@kernel
def marginal_cost(side: float, price: float, fee: float, penalty: float) -> float:
    """Cost of one more unit in quote: `side * price + price * fee + penalty`; for a sale (side -1) the negative of what is received."""
    return side * price + price * fee + penalty


@kernel
def latency_penalty(price: float, sigma: float, latency_s: float) -> float:
    """Expected adverse move while an order travels, quote per base: `sigma * S * sqrt(tau / (2 pi))`, which is E[max(dS, 0)].

    Parameters
    ----------
    price : float
        Quote per base.
    sigma : float
        Relative volatility per sqrt(year).
    latency_s : float
        Seconds.
    """
    return sigma * price * math.sqrt(latency_s / _YEAR_S / (2.0 * math.pi))


@kernel
def take_from_venue(books: Books, work: Work, venue: int, quantity: float) -> float:
    """Take up to `quantity` base from a venue's next levels; returns what was taken."""
    got = 0.0
    while got < quantity and work.cursor[venue] < books.start[venue + 1]:
        i = work.cursor[venue]
        room = books.size[i] - work.level_taken[venue]
        wanted = quantity - got
        if wanted < room:
            work.level_taken[venue] += wanted
            work.taken[i] += wanted
            got = quantity
        else:
            work.taken[i] = books.size[i]
            work.level_taken[venue] = 0.0
            work.cursor[venue] += 1
            got += room
    work.used[venue] += got
    return got


@kernel
def water_fill(side: float, amount: float, books: Books, allowed: int, work: Work) -> float:
    """Fill `amount` base at least cost over the allowed venues (bit mask); every allowed venue gets at least its lower bound.

    Returns
    -------
    float
        Base that stays unfilled for want of depth or room under the upper bounds; `INFEASIBLE` where the lower bounds cannot be met.
        The quantities per level are in `work.taken`.
    """
    venues = books.start.shape[0] - 1
    for v in range(venues):
        work.cursor[v] = books.start[v]
        work.level_taken[v] = 0.0
        work.used[v] = 0.0
    for i in range(work.taken.shape[0]):
        work.taken[i] = 0.0
    left = amount
    for v in range(venues):
        if allowed >> v & 1:
            if books.lower[v] > books.upper[v] or books.lower[v] > left * (1.0 + _REL_TOL):
                return INFEASIBLE
            if books.lower[v] > 0.0:
                got = take_from_venue(books, work, v, books.lower[v])
                if got < books.lower[v] * (1.0 - _REL_TOL):
                    return INFEASIBLE
                left -= got
    while left > amount * _REL_TOL:
        best = -1
        best_cost = math.inf
        for v in range(venues):
            if allowed >> v & 1 and work.cursor[v] < books.start[v + 1] and work.used[v] < books.upper[v] * (1.0 - _REL_TOL):
                cost = marginal_cost(side, books.price[work.cursor[v]], books.fee[v], books.penalty[v])
                if cost < best_cost:
                    best = v
                    best_cost = cost
        if best < 0:
            break
        # one level at a time: the next level may be dearer than another venue's
        step = books.size[work.cursor[best]] - work.level_taken[best]
        room = books.upper[best] - work.used[best]
        if room < step:
            step = room
        if left < step:
            step = left
        if step <= 0.0:  # an empty level
            work.cursor[best] += 1
            work.level_taken[best] = 0.0
            continue
        left -= take_from_venue(books, work, best, step)
    return left if left > amount * _REL_TOL else 0.0


@kernel
def total_cost(side: float, books: Books, taken: Float64s) -> float:
    """Cost in quote of quantities per level: prices (signed), fees, penalties, and the fixed cost of every venue used."""
    total = 0.0
    for v in range(books.start.shape[0] - 1):
        used = False
        for i in range(books.start[v], books.start[v + 1]):
            if taken[i] > 0.0:
                used = True
                total += taken[i] * marginal_cost(side, books.price[i], books.fee[v], books.penalty[v])
        if used:
            total += books.fixed[v]
    return total


@kernel
def best_subset(side: float, amount: float, books: Books, work: Work) -> int:
    """The set of venues (bit mask) whose water-filling fills most and, at equal fill, costs least; 0 when nothing can be filled.

    Exact: all 2^V sets are tried, V at most `MAX_VENUES`. The quantities are in `work.taken` of a further `water_fill` over the set.
    """
    venues = books.start.shape[0] - 1
    best = 0
    best_left = amount
    best_cost = math.inf
    for allowed in range(1, 1 << venues):
        closed = False
        for v in range(venues):
            if allowed >> v & 1 and books.upper[v] <= 0.0:
                closed = True
        if closed:
            continue
        left = water_fill(side, amount, books, allowed, work)
        if left == INFEASIBLE:
            continue
        cost = total_cost(side, books, work.taken)
        if left < best_left - amount * _REL_TOL or (left <= best_left + amount * _REL_TOL and cost < best_cost and left < amount):
            best = allowed
            best_left = left
            best_cost = cost
    return best


@kernel
def affordable_quantity(side: float, price: Float64s, size: Float64s, first: int, end: int, outlay_frac: float, budget: float) -> float:
    """The largest quantity in base of one venue's levels [first, end) whose limit order a budget in quote covers.

    A venue reserves the limit price, not the average one: a purchase is charged at its dearest level, a sale on margin at its best.

    Parameters
    ----------
    outlay_frac : float
        What a unit of notional reserves: 1 + fee on spot, initial margin rate + fee on margin.
    budget : float
        Free quote.
    """
    quantity = 0.0
    for i in range(first, end):
        reserved_price = price[i] if side > 0.0 else price[first]
        most = budget / (reserved_price * outlay_frac)
        if most <= quantity:
            break
        quantity = min(most, quantity + size[i])
    return quantity
