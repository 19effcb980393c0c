"""What turns ticks and lots into money: the constants of a contract and the arithmetic of one execution.

Belongs here: scalars in, scalars out, for linear, spot and inverse contracts. Does not belong here: ledgers (`kernels.accounting`).
The registry's reader comes here by way of the hedging step, so nothing here imports numpy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mm_platform.kernels.jit import kernel


class Money(NamedTuple):
    """What turns integers into money.

    Parameters
    ----------
    lot_base : float
        Base per lot of a linear or spot contract; 0 for an inverse one.
    tick_size : float
        Quote per base per tick.
    maker_fee, taker_fee : float
        Fraction of notional; negative = rebate.
    lot_quote : float
        Quote per lot of an inverse contract; 0 says that the contract is not inverse.
    quantum_base : float
        Base per quantum of an inverse contract.
    """

    lot_base: float
    tick_size: float
    maker_fee: float
    taker_fee: float
    lot_quote: float = 0.0
    quantum_base: float = 0.0


@kernel
def worth_quanta(money: Money, half_ticks: int) -> int:
    """Worth of one lot at a price in half ticks (> 0), quanta; rises with the price for every contract."""
    if money.lot_quote > 0.0:
        return -int(math.floor(money.lot_quote / (0.5 * half_ticks * money.tick_size * money.quantum_base) + 0.5))
    return half_ticks


@kernel
def lots_to_base(money: Money, lots: int, price: float) -> float:
    """Signed base exposure of signed lots; `price` (quote per base) matters for inverse contracts only."""
    if money.lot_quote > 0.0:
        return lots * money.lot_quote / price
    return lots * money.lot_base


@kernel
def base_per_lot(money: Money, price: float) -> float:
    """Base exposure of one lot at a price (quote per base)."""
    return money.lot_quote / price if money.lot_quote > 0.0 else money.lot_base


@kernel
def notional_quote(money: Money, lots: int, price: float) -> float:
    """Quote notional of lots at a price (quote per base)."""
    return lots * money.lot_quote if money.lot_quote > 0.0 else price * lots * money.lot_base


@kernel
def fee_nano(money: Money, price_ticks: int, lots: int, maker: int) -> int:
    """Fee of one execution, nano of the currency that the contract pays in (quote; base for an inverse one), + = paid."""
    rate = money.maker_fee if maker == 1 else money.taker_fee
    price = price_ticks * money.tick_size
    amount = lots * money.lot_quote / price if money.lot_quote > 0.0 else price * lots * money.lot_base
    return int(math.floor(amount * rate * 1e9 + 0.5))
