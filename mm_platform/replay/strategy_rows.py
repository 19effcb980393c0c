"""Parameters of decisions as rows of numbers: a sweep holds thousands of sets, and a compiled loop wants them in one array.

Belongs here: the layout of a row, there and back. Does not belong here: what the numbers mean (`kernels.decision` and the steps below it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError, InvariantError
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.hedging import HedgeParams, HedgeVenue
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.money import Money
from mm_platform.kernels.orders import OrderPolicy
from mm_platform.kernels.quoting import QuoteParams
from mm_platform.kernels.risk import RiskParams

Float64s = npt.NDArray[np.float64]

# a row holds the fields of `DecisionParams` in order, nested tuples flattened
HEDGE_AT: Final = 19
RISK_AT: Final = HEDGE_AT + 6
ORDERS_AT: Final = RISK_AT + 8
MONEY_AT: Final = ORDERS_AT + 9
HEDGE_VENUE_AT: Final = MONEY_AT + 6
PARAMS_SIZE: Final = HEDGE_VENUE_AT + 14

# an unknown sigma quotes nothing and still hedges: how a refused fit is replayed; everything else must be a number
_MAY_BE_NAN: Final = ("quote.sigma",)


def named_numbers(params: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Fields of nested tuples with their dotted names, in order."""
    for name, value in zip(params._fields, params, strict=True):
        if isinstance(value, tuple):
            yield from named_numbers(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def pack_params(params: DecisionParams, where: str) -> Float64s:
    """A row of `PARAMS_SIZE` numbers.

    Parameters
    ----------
    params
        Of one set.
    where : str
        How messages name the set and the entry of its schedule.

    Raises
    ------
    DataError
        A number that is nan (an unknown `quote.sigma` aside: it quotes nothing), or an integer that a float64 does not hold exactly.
    """
    names, values = zip(*named_numbers(params), strict=True)
    if len(values) != PARAMS_SIZE:
        raise InvariantError(f"decision parameters have {len(values)} numbers, a row holds {PARAMS_SIZE}: unpack_params is out of step with them")
    row = np.array([float(value) for value in values])
    for name, value, number in zip(names, values, row.tolist(), strict=True):
        if number != number and name not in _MAY_BE_NAN:
            raise DataError(f"{where}: parameter {name} is nan; state a number")
        if isinstance(value, int) and int(number) != value:
            raise DataError(f"{where}: parameter {name} is {value}, more than a row of float64 holds exactly; expected at most 2**53")
    return row


@kernel
def unpack_money(row: Float64s, at: int) -> Money:
    """The six numbers of a `Money`."""
    return Money(row[at], row[at + 1], row[at + 2], row[at + 3], row[at + 4], row[at + 5])


@kernel
def unpack_params(row: Float64s) -> DecisionParams:
    """What `pack_params` packed."""
    h = HEDGE_AT
    r = RISK_AT
    o = ORDERS_AT
    v = HEDGE_VENUE_AT
    return DecisionParams(
        QuoteParams(
            row[0],
            row[1],
            row[2],
            int(row[3]),
            row[4],
            row[5],
            row[6],
            row[7],
            row[8],
            row[9],
            row[10],
            row[11],
            row[12],
            row[13],
            row[14],
            row[15],
            row[16],
            row[17],
            row[18],
        ),
        HedgeParams(row[h], row[h + 1], row[h + 2], row[h + 3], row[h + 4], int(row[h + 5])),
        RiskParams(int(row[r]), int(row[r + 1]), row[r + 2], int(row[r + 3]), int(row[r + 4]), row[r + 5], row[r + 6], row[r + 7]),
        OrderPolicy(
            int(row[o]),
            int(row[o + 1]),
            int(row[o + 2]),
            int(row[o + 3]),
            row[o + 4],
            row[o + 5],
            int(row[o + 6]),
            int(row[o + 7]),
            int(row[o + 8]),
        ),
        unpack_money(row, MONEY_AT),
        HedgeVenue(
            int(row[v]),
            unpack_money(row, v + 1),
            int(row[v + 7]),
            row[v + 8],
            int(row[v + 9]),
            int(row[v + 10]),
            int(row[v + 11]),
            int(row[v + 12]),
            int(row[v + 13]),
        ),
    )
