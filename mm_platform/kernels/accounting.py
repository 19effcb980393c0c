"""The ledger: one attribution of profit and loss for backtest and live, in integers so that its parts sum exactly (THEORY section 9).

Trading profit is counted in *quanta* of tick x lot x multiplier / 2 (half-ticks times lots), fees and funding in 1e-9 of the quote
currency, rounded once per payment. Identity I1 then holds to the last integer:

    equity change = spread + hedge + inventory [quanta] - fees + funding [nano]

spread    our maker fills' distance from the venue mid just before the fill
hedge     the same for taker fills (hedges, flattening): what crossing cost before fees, <= 0 as a rule
inventory what the position earned as the mid moved between marks
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.jit import kernel

Int64s = npt.NDArray[np.int64]

# places in a ledger array
POSITION: Final = 0  # lots
MARK_HALF: Final = 1  # last mark, half ticks; 0 = none yet
SPREAD: Final = 2  # quanta
HEDGE: Final = 3  # quanta
INVENTORY: Final = 4  # quanta
FEES: Final = 5  # nano quote, + = paid
FUNDING: Final = 6  # nano quote, + = received
CASH: Final = 7  # quanta: -side x lots x price; an independent total against which the parts are checked
MAKER_FILLS: Final = 8
TAKER_FILLS: Final = 9
MAKER_LOTS: Final = 10
TAKER_LOTS: Final = 11
LEDGER_SIZE: Final = 12

NANO: Final = 1_000_000_000


class Money(NamedTuple):
    """What turns integers into quote: base per lot, quote per tick, and the fee fractions (negative = rebate)."""

    lot_base: float
    tick_size: float
    maker_fee: float
    taker_fee: float


def new_ledger() -> Int64s:
    """An empty ledger, flat and unmarked."""
    return np.zeros(LEDGER_SIZE, dtype=np.int64)


@kernel
def ledger_mark(ledger: Int64s, mid_half_ticks: int) -> None:
    """Move the mark to a mid (half ticks, > 0); the position earns the move."""
    if ledger[MARK_HALF] != 0:
        ledger[INVENTORY] += ledger[POSITION] * (mid_half_ticks - ledger[MARK_HALF])
    ledger[MARK_HALF] = mid_half_ticks


@kernel
def ledger_fill(ledger: Int64s, money: Money, side: int, price_ticks: int, lots: int, maker: int, mid_half_ticks: int) -> int:
    """Book one execution at the venue mid just before it (half ticks); returns the fee in nano quote."""
    ledger_mark(ledger, mid_half_ticks)
    edge = side * lots * (mid_half_ticks - 2 * price_ticks)
    ledger[POSITION] += side * lots
    ledger[CASH] -= side * lots * 2 * price_ticks
    notional = price_ticks * money.tick_size * lots * money.lot_base
    if maker == 1:
        ledger[SPREAD] += edge
        ledger[MAKER_FILLS] += 1
        ledger[MAKER_LOTS] += lots
        fee = int(math.floor(notional * money.maker_fee * 1e9 + 0.5))
    else:
        ledger[HEDGE] += edge
        ledger[TAKER_FILLS] += 1
        ledger[TAKER_LOTS] += lots
        fee = int(math.floor(notional * money.taker_fee * 1e9 + 0.5))
    ledger[FEES] += fee
    return fee


@kernel
def ledger_funding(ledger: Int64s, money: Money, rate: float, price: float) -> int:
    """Pay or receive a funding stamp on the position held (longs pay positive rates); returns nano quote received.

    A stamp recorded without a mark `price` (nan) is paid at the ledger's own last mark.
    """
    if not price > 0.0:
        price = 0.5 * ledger[MARK_HALF] * money.tick_size
    paid = int(math.floor(-ledger[POSITION] * money.lot_base * price * rate * 1e9 + 0.5))
    ledger[FUNDING] += paid
    return paid


@kernel
def ledger_equity_quanta(ledger: Int64s) -> int:
    """Trading equity from the parts, quanta."""
    return ledger[SPREAD] + ledger[HEDGE] + ledger[INVENTORY]


@kernel
def ledger_equity_quote(ledger: Int64s, money: Money) -> float:
    """Equity change since the start in quote, fees and funding included, at the last mark."""
    quantum = 0.5 * money.tick_size * money.lot_base
    return (ledger[SPREAD] + ledger[HEDGE] + ledger[INVENTORY]) * quantum + (ledger[FUNDING] - ledger[FEES]) * 1e-9


def identity_residual_quanta(ledger: Int64s) -> int:
    """Cash plus position at the mark, less the sum of the parts: 0 unless the ledger is broken."""
    independent = int(ledger[CASH]) + int(ledger[POSITION]) * int(ledger[MARK_HALF])
    return independent - int(ledger[SPREAD] + ledger[HEDGE] + ledger[INVENTORY])


@dataclass(frozen=True, slots=True)
class Attribution:
    """Profit and loss in quote by where it came from; `total_pnl` is the correctly rounded sum of the parts.

    fees : paid (negative = rebates earned). funding : received (negative = paid).
    residual_quanta : cash and position against the parts, in integers: 0, or the ledger is broken.
    """

    spread_pnl: float
    hedge_pnl: float
    inventory_pnl: float
    fees: float
    funding: float
    residual_quanta: int

    @property
    def total_pnl(self) -> float:
        return math.fsum((self.spread_pnl, self.hedge_pnl, self.inventory_pnl, -self.fees, self.funding))


def attribution(ledger: Int64s, spec: InstrumentSpec) -> Attribution:
    """Read a ledger out in quote. The integers are turned into quote exactly and rounded once each."""
    quantum = Fraction(spec.tick) * Fraction(spec.lot) * Fraction(spec.multiplier) / 2

    def quote(place: int) -> float:
        return float(int(ledger[place]) * quantum)

    def nano(place: int) -> float:
        return float(Fraction(int(ledger[place]), NANO))

    return Attribution(quote(SPREAD), quote(HEDGE), quote(INVENTORY), nano(FEES), nano(FUNDING), identity_residual_quanta(ledger))


def money_of(spec: InstrumentSpec, *, maker_fee: float | None = None, taker_fee: float | None = None) -> Money:
    """The ledger's constants of an instrument, with its own fees unless others are given."""
    return Money(
        spec.lot_base, float(spec.tick), spec.maker_fee if maker_fee is None else maker_fee, spec.taker_fee if taker_fee is None else taker_fee
    )


@kernel
def markouts_path(
    fill_ts: Int64s,
    fill_side: Int64s,
    mid_ts: Int64s,
    mid_half_ticks: Int64s,
    fill_mid_half: Int64s,
    horizon_ns: int,
    out_frac: npt.NDArray[np.float64],
) -> None:
    """Mark-outs: relative mid move in our favour from just before the fill to `horizon_ns` later, at the mid at or before that time.

    `fill_ts` and `mid_ts` ascend. A horizon beyond the last mid gives nan: nobody knows yet.
    """
    j = 0
    n = mid_ts.shape[0]
    for i in range(fill_ts.shape[0]):
        at = fill_ts[i] + horizon_ns
        while j < n and mid_ts[j] <= at:
            j += 1
        if n == 0 or at > mid_ts[n - 1] or j == 0 or fill_mid_half[i] <= 0:
            out_frac[i] = math.nan
        else:
            out_frac[i] = fill_side[i] * (mid_half_ticks[j - 1] - fill_mid_half[i]) / fill_mid_half[i]
