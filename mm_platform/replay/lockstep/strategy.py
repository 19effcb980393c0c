"""Strategies of the lockstep loop: what decides the quotes of all parameter sets at a step.

Belongs here: the two forms a strategy can have, the places they read and write, their declaration. Does not belong here: a strategy itself
(`lockstep.glft`), what becomes of its quotes (`lockstep.loop`).

A set quotes `slots_per_side` bids and as many asks. At every step the strategy states, per slot, at which tick it wants an order; the loop cancels
and places what that takes (post-only, the set's order size), and leaves an order at its tick where it stands. A slot with a request in flight stays
as it is, whatever the strategy says.

For one set at a time, the form to begin with:

    def quote(view, params, state, position_lots, targets): ...          ->  QuoteStrategy(quote, ...)

| argument | what it is |
|---|---|
| view, float64 (VIEW_SIZE + k,) | what is known now, at the places below; the caller's `features` of this step follow |
| params, float64 (n,) | the set's parameters |
| state, float64 (n,) | the set's memory, 0 at the start, kept between steps |
| position_lots, float64 | the set's position as far as its fills are known here |
| targets, float64 (2 * slots_per_side,) | to be filled in: bids, then asks, in whole ticks; 0 = no quote. Zero at the call |

For all sets at once, several times faster, since the compiler can work on eight sets at a time:

    def decide(view, sets, n): ...                                       ->  SetsStrategy(decide, ...)

`sets` is a matrix with a column per set, of which the first `n` (a multiple of `BLOCK`) are to be computed. Its rows are `TARGETS + k` (to be filled
in), `POSITION`, `PARAMS + j` and `STATE + j`. Columns beyond the last set repeat it; what is written for them is ignored.

A target that is not finite, not a whole tick, negative or beyond the book's window stops the set with a message; so does an exception in `quote`. The
set's orders are cancelled then, and the other sets' results are what they would have been without it. An exception in `decide` cannot be laid at
one set's door and ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mm_platform.core.errors import ConfigError
from mm_platform.kernels.jit import fixed_signature, kernel, signature_of

# view
NOW_S: Final = 0  # seconds since the run's first step
BID_TICKS: Final = 1  # the touch as known here
ASK_TICKS: Final = 2
STEP_S: Final = 3  # seconds between two steps
VIEW_SIZE: Final = 4

BLOCK: Final = 8  # sets that the compiler puts in one register
MOST_SETS: Final = 256  # of one group; more sets are several groups
MOST_SLOTS: Final = 32  # bids and asks together
MOST_PARAMS: Final = 32
MOST_STATE: Final = 32
# Columns of the matrix of sets. Known to the compiler, so that it sees that rows do not overlap; not a power of two, so that rows do not fall on one
# another in the processor's cache.
COLUMNS: Final = MOST_SETS + 8

# rows of the matrix of sets
TARGETS: Final = 0
QUOTED: Final = TARGETS + MOST_SLOTS + 1  # tick of the order that the trader believes to have, per slot; 0 none, `GOING` none but in flight
STEP_SENT: Final = QUOTED + MOST_SLOTS + 1  # step at which the slot's live order was sent, -1 = none at the venue
ORDER_ID: Final = STEP_SENT + MOST_SLOTS + 1  # the slot's newest order
READY: Final = ORDER_ID + MOST_SLOTS + 1  # step from which on the slot's last request is answered
LAST_ID: Final = READY + MOST_SLOTS + 1
POSITION: Final = LAST_ID + 1
PARAMS: Final = POSITION + 1
STATE: Final = PARAMS + MOST_PARAMS
SET_ROWS: Final = STATE + MOST_STATE

GOING: Final = -(2.0**52)  # no price anybody asks for


@kernel
def no_decide(view: Any, sets: Any, n: int) -> float:
    """What a run of a `QuoteStrategy` passes for all sets: never called."""
    return 0.0


@kernel
def no_quote(view: Any, params: Any, state: Any, position_lots: float, targets: Any) -> float:
    """What a run of a `SetsStrategy` passes for one set: never called."""
    return 0.0


@dataclass(frozen=True, slots=True)
class QuoteStrategy:
    """A strategy for one set at a time; `quote` as in the module docstring, it returns a number that is not read.

    Parameters
    ----------
    quote : function
        Plain Python that numba compiles.
    n_params, state_size : int
        Numbers per set.
    slots_per_side : int
        Bids per set, and as many asks.
    name : str
        For results and messages; the function's own unless given.
    """

    quote: Callable[..., float]
    n_params: int
    state_size: int = 0
    slots_per_side: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        _check(self, self.quote)


@dataclass(frozen=True, slots=True)
class SetsStrategy:
    """A strategy for all sets at once; `decide` as in the module docstring, fields as in `QuoteStrategy`."""

    decide: Callable[..., float]
    n_params: int
    state_size: int = 0
    slots_per_side: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        _check(self, self.decide)


Strategy = QuoteStrategy | SetsStrategy


def _check(strategy: Strategy, function: Callable[..., float]) -> None:
    for name, value, least, most in (
        ("n_params", strategy.n_params, 0, MOST_PARAMS),
        ("state_size", strategy.state_size, 0, MOST_STATE),
        ("slots_per_side", strategy.slots_per_side, 1, MOST_SLOTS // 2),
    ):
        if not least <= value <= most:
            raise ConfigError(f"strategy {function!r}: {name} is {value}, expected {least} to {most}")
    if not strategy.name:
        object.__setattr__(strategy, "name", getattr(function, "__name__", repr(function)))


@dataclass(frozen=True, slots=True)
class Functions:
    """What the loop calls: one of the two is the strategy's, the other is never called."""

    decide: Any
    quote: Any
    by_set: bool


def compiled_functions(strategy: Strategy) -> Functions:
    """The strategy at the signatures of the loop; raises `ConfigError` with place and reason when it does not compile."""
    row, table = np.zeros(1), np.zeros((1, COLUMNS))
    decide_signature = signature_of(0.0, row, table, 0)
    quote_signature = signature_of(0.0, row, row, row, 0.0, row)
    by_set = isinstance(strategy, QuoteStrategy)
    return Functions(
        fixed_signature(no_decide if isinstance(strategy, QuoteStrategy) else strategy.decide, decide_signature),
        fixed_signature(strategy.quote if isinstance(strategy, QuoteStrategy) else no_quote, quote_signature),
        by_set,
    )


def python_functions(strategy: Strategy) -> Functions:
    """The same uncompiled, for the loop's Python twin."""
    if isinstance(strategy, QuoteStrategy):
        return Functions(no_decide, getattr(strategy.quote, "py_func", strategy.quote), True)
    return Functions(getattr(strategy.decide, "py_func", strategy.decide), no_quote, False)
