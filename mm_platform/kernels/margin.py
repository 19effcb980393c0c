"""Margin of one account: equity, requirements, and how far the price is from liquidation.

Belongs here: the formulas for linear and inverse contracts. Does not belong here: the ledger that equity comes from (`kernels.accounting`), what a
liquidation does to a run (`replay.loop`). Spot accounts have no margin.

Isolated margin, one contract per account, one maintenance rate: venues' tables by position size and their liquidation fees are on top of this.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError
from mm_platform.kernels.accounting import MARK_HALF, POSITION, ledger_equity
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.money import Money

Int64s = npt.NDArray[np.int64]

# status of an account
ENOUGH: Final = 0
BELOW_INITIAL: Final = 1  # may keep and reduce its position, a venue takes no order that adds to it
LIQUIDATED: Final = 2


class MarginParams(NamedTuple):
    """What an account started with and what the venue asks of it.

    Parameters
    ----------
    collateral : float
        In the contract's own currency: quote for a linear contract, base for an inverse one.
    max_leverage : float
        The initial requirement is notional / max_leverage.
    maintenance_frac : float
        The maintenance requirement is this fraction of the notional.
    """

    collateral: float
    max_leverage: float
    maintenance_frac: float


class Margin(NamedTuple):
    """An account at one mark; amounts in the contract's own currency.

    Parameters
    ----------
    equity : float
        Collateral plus everything earned since the start.
    initial, maintenance : float
        Requirements on the position at the mark.
    liquidation_price : float
        Quote per base at which equity falls to the maintenance requirement; nan when flat or when no price does that.
    distance_frac : float
        How far the price may move against the position until then, fraction of the mark; inf when flat or never, <= 0 when liquidated.
    status : int
        `ENOUGH`, `BELOW_INITIAL` or `LIQUIDATED`.
    """

    equity: float
    initial: float
    maintenance: float
    liquidation_price: float
    distance_frac: float
    status: int


def margin_params(collateral: float, max_leverage: float, maintenance_frac: float) -> MarginParams:
    """Checked parameters.

    Raises
    ------
    ConfigError
        Collateral or leverage not positive, a maintenance rate outside [0, 1), or one that asks for more than the initial requirement.
    """
    if not 0.0 < collateral < math.inf:
        raise ConfigError(f"collateral is {collateral}, expected a positive amount in the currency that the contract pays in")
    if not 0.0 < max_leverage < math.inf:
        raise ConfigError(f"max_leverage is {max_leverage}, expected a positive number, e.g. 20")
    if not 0.0 <= maintenance_frac < 1.0:
        raise ConfigError(f"maintenance_frac is {maintenance_frac}, expected a fraction in [0, 1), e.g. 0.005")
    if maintenance_frac * max_leverage > 1.0:
        raise ConfigError(
            f"maintenance_frac {maintenance_frac} is more than the initial requirement 1/{max_leverage:g}: a new position would be liquidated at once; "
            "lower one of them"
        )
    return MarginParams(float(collateral), float(max_leverage), float(maintenance_frac))


@kernel
def liquidation_price(money: Money, maintenance_frac: float, position_lots: int, equity: float, price: float) -> float:
    """Price at which `equity` (at `price`) has shrunk to the maintenance requirement; nan when flat or when no positive price does that.

    Linear, signed base q:  equity + q (x - price) = m |q| x.  Inverse, signed quote n:  equity + n (1/price - 1/x) = m |n| / x.
    """
    if position_lots == 0:
        return math.nan
    side = 1.0 if position_lots > 0 else -1.0
    if money.lot_quote > 0.0:
        n = position_lots * money.lot_quote
        left = equity + n / price
        # 1/x = left / (n (1 + side m)): a short whose equity covers all it owes at any price is never liquidated
        x = n * (1.0 + side * maintenance_frac) / left if left != 0.0 else math.inf
    else:
        q = position_lots * money.lot_base
        x = (q * price - equity) / (q * (1.0 - side * maintenance_frac))
    return x if 0.0 < x < math.inf else math.nan


@kernel
def margin_step(p: MarginParams, money: Money, position_lots: int, equity: float, price: float) -> Margin:
    """An account with a position at a mark.

    Parameters
    ----------
    p
        Parameters; `collateral` is not looked at, it is in `equity`.
    money
        The contract.
    position_lots : int
        Signed.
    equity : float
        Collateral and profit at `price`, in the contract's own currency.
    price : float
        The mark, quote per base (> 0).

    References
    ----------
    THEORY section 6.3.
    """
    size = abs(position_lots) * money.lot_quote / price if money.lot_quote > 0.0 else abs(position_lots) * money.lot_base * price
    initial = size / p.max_leverage
    maintenance = size * p.maintenance_frac
    at = liquidation_price(money, p.maintenance_frac, position_lots, equity, price)
    distance = math.inf
    if position_lots != 0 and (equity <= maintenance or not math.isnan(at)):
        distance = (price - at) / price if position_lots > 0 else (at - price) / price
    status = ENOUGH
    if position_lots != 0 and equity <= maintenance:
        status = LIQUIDATED
        # where no price is named, or one that rounding put on the other side, the account is liquidated all the same
        if not distance <= 0.0:
            distance = 0.0
    elif equity < initial:
        status = BELOW_INITIAL
    return Margin(equity, initial, maintenance, at, distance, status)


@kernel
def ledger_margin(p: MarginParams, money: Money, ledger: Int64s) -> Margin:
    """The account of a ledger at its last mark; a ledger without a mark is flat."""
    equity = p.collateral + ledger_equity(ledger, money)
    if ledger[MARK_HALF] == 0:
        return Margin(equity, 0.0, 0.0, math.nan, math.inf, ENOUGH)
    return margin_step(p, money, ledger[POSITION], equity, 0.5 * ledger[MARK_HALF] * money.tick_size)
