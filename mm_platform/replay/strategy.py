"""A strategy of the user's own with full control: one compiled function decides for a set, over the state that the platform keeps.

    decide(view, params, state, position_lots, orders, actions) -> number of actions

| argument | what it is |
|---|---|
| view, float64 (n,) | what is known now, at the places `NOW_S` .. below; features of the caller's own follow from `EXTRA_AT` |
| params, float64 (n,) | the set's parameters that hold now |
| state, float64 (n,) | the strategy's memory, 0 at the start, kept between calls |
| position_lots, int64 (2,) | position at each venue, as far as fills are known here |
| orders, int64 (7, 32) | the set's orders that are not known to be gone, one per column; rows `ORDER_ID` .. below, `STATUS` 0 marks a free column |
| actions, int64 (10, 64) | to be filled in, one action per column, rows `KIND` .. below; zero at the call where no more columns are written than returned |

An action of kind `PLACE` reads venue, side, price, lots, time in force, order type and purpose; the platform gives the order its id, which stands in
`orders` at the next call. `CANCEL` reads the id; `MODIFY` reads id, price and lots. Purpose `FLATTEN` is reduce-only at the venue.
The number of actions is returned as a float (an int will do): nan stops the set, as does an exception or an action that makes no sense. A set that
stops leaves the others' results untouched.

Belongs here: the places, and the function's declaration. Does not belong here: what becomes of actions (`replay.loop`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mm_platform.core.errors import ConfigError
from mm_platform.kernels.jit import fixed_signature, kernel, signature_of

# view
NOW_S: Final = 0  # seconds since the set started
EQUITY_QUOTE: Final = 1  # profit as far as known here, both venues
ORDERS_USED: Final = 2  # columns of `orders` beyond this many are free
VENUE_AT: Final = 3  # first place of venue 0; venue 1 begins VENUE_SIZE later
VENUE_SIZE: Final = 7
# places within a venue
VALID: Final = 0  # 1 = two-sided and uncrossed
BID_TICKS: Final = 1
ASK_TICKS: Final = 2
MICROPRICE: Final = 3  # quote per base
ORDER_FLOW_IMBALANCE: Final = 4
KYLE_LAMBDA: Final = 5
SHORT_VOLATILITY: Final = 6
EXTRA_AT: Final = VENUE_AT + 2 * VENUE_SIZE

# rows of orders
ORDER_ID: Final = 0
ORDER_SIDE: Final = 1
ORDER_PRICE_TICKS: Final = 2
LEAVES_LOTS: Final = 3
STATUS: Final = 4  # `kernels.orders`: PENDING_NEW, LIVE, PENDING_CANCEL; PENDING_MODIFY here
ORDER_PURPOSE: Final = 5
ORDER_VENUE: Final = 6
ORDER_ROWS: Final = 7
MOST_ORDERS: Final = 32
PENDING_MODIFY: Final = 4

# rows of actions
KIND: Final = 0  # PLACE, CANCEL, MODIFY of `kernels.venue`
ID: Final = 1
SIDE: Final = 2
PRICE_TICKS: Final = 3
LOTS: Final = 4
TIF: Final = 5
PURPOSE: Final = 6
VENUE: Final = 7
DECIDED_MID_HALF: Final = 8  # the platform's
ORDER_TYPE: Final = 9
ACTION_ROWS: Final = 10
MOST_ACTIONS: Final = 64

Decide = Callable[..., float]


@kernel
def platform_decides(view: Any, params: Any, state: Any, position_lots: Any, orders: Any, actions: Any) -> float:
    """What a run of the platform's own strategy passes as the user's: never called."""
    return 0.0


@dataclass(frozen=True, slots=True)
class UserStrategy:
    """A user's strategy: its function, and how many numbers it remembers between calls.

    name : how results name it; the function's own unless given.
    """

    decide: Decide
    state_size: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.state_size < 0:
            raise ConfigError(f"state_size is {self.state_size}, expected a number of float64 values >= 0")
        if not self.name:
            object.__setattr__(self, "name", getattr(self.decide, "__name__", repr(self.decide)))


def compiled_decide(decide: Decide) -> Any:
    """The function at the one signature that the loop calls; raises `ConfigError` with the place and the reason when it does not compile."""
    floats, ints = np.zeros(1), np.zeros(1, dtype=np.int64)
    table = np.zeros((1, 1), dtype=np.int64)
    return fixed_signature(decide, signature_of(0.0, floats, floats, floats, ints, table, table))
