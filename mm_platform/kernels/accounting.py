"""The ledger: one attribution of profit and loss for backtest and live, in integers so that its parts sum exactly (THEORY section 9).

Belongs here: ledgers, fees, funding payments, what the parts are worth, mark-outs, margin. Does not belong here: two ledgers that hedge each
other (`kernels.hedge_pnl`), when fills happen, whole runs (`replay`).

Every contract is counted as the integer *worth* of one lot at a price:

    linear, spot   the price in half ticks; a quantum is tick x lot x multiplier / 2 of the quote currency
    inverse        minus the base that one lot of quote buys; a quantum is a power of ten of the base currency

A long of an inverse contract is short base worth 1/price, so its profit in base is again lots x change of worth, and one set of identities
serves all three, to the last integer:

    equity change = spread + hedge + inventory [quanta] - fees + funding [nano]

spread    our maker fills' distance from the venue mid just before the fill
hedge     the same for taker fills (hedges, flattening): what crossing cost before fees, <= 0 as a rule
inventory what the position earned as the mid moved between marks

Fees and funding are counted in 1e-9 of the same currency, rounded once per payment.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.money import Money, fee_nano, notional_quote, worth_quanta

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# places in a ledger array
POSITION: Final = 0  # lots
MARK_HALF: Final = 1  # last mark, half ticks; 0 = none yet
SPREAD: Final = 2  # quanta
HEDGE: Final = 3  # quanta
INVENTORY: Final = 4  # quanta
FEES: Final = 5  # nano, + = paid
FUNDING: Final = 6  # nano, + = received
CASH: Final = 7  # quanta: -side x lots x worth of the price; an independent total against which the parts are checked
MAKER_FILLS: Final = 8
TAKER_FILLS: Final = 9
MAKER_LOTS: Final = 10
TAKER_LOTS: Final = 11
MARK_WORTH: Final = 12  # worth of a lot at the last mark, quanta
TRAILING_VOLUME: Final = 13  # traded notional that decides the fee tier, 1e-6 quote
LEDGER_SIZE: Final = 14

NANO: Final = 1_000_000_000
MICRO: Final = 1_000_000

# an inverse lot is worth about this many quanta at a price of a million ticks: one tick moves it by a thousand, and 1e8 lots still fit
_INVERSE_LOT_QUANTA: Final = 10**9
_INVERSE_PRICE_TICKS: Final = 10**6


class FeeTiers(NamedTuple):
    """Fees by trailing volume: from `from_micro[j]` (1e-6 quote, ascending, the first 0) on, `maker_fee[j]` and `taker_fee[j]` hold.

    No rows: the fees of `Money`.
    """

    from_micro: Int64s
    maker_fee: Float64s
    taker_fee: Float64s


def new_ledger(trailing_volume_quote: float = 0.0) -> Int64s:
    """An empty ledger, flat and unmarked; `trailing_volume_quote` is what the account has traded in the venue's tier window before the run.

    The run's own volume adds to it and nothing of the past drops out: right for runs that are short against the window (30 days as a rule).
    """
    ledger = np.zeros(LEDGER_SIZE, dtype=np.int64)
    ledger[TRAILING_VOLUME] = round(trailing_volume_quote * MICRO)
    return ledger


def fee_tiers(rows: tuple[tuple[float, float, float], ...] = ()) -> FeeTiers:
    """Tiers from rows of (volume from which they hold in quote, maker fee, taker fee), fees as fractions, negative = rebate.

    Raises
    ------
    ConfigError
        Volumes that do not start at 0 and ascend, or a number that is not finite.
    """
    volumes = [row[0] for row in rows]
    if any(not math.isfinite(x) for row in rows for x in row):
        raise ConfigError(f"fee tiers {rows}: every number must be finite; the last tier has no upper end and needs none")
    if rows and (volumes[0] != 0.0 or any(b <= a for a, b in itertools.pairwise(volumes))):
        raise ConfigError(f"fee tiers start at volumes {volumes}, expected ascending volumes from 0 on")
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    micro = np.array([round(v * MICRO) for v in volumes], dtype=np.int64)
    return FeeTiers(micro, np.ascontiguousarray(columns[:, 1]), np.ascontiguousarray(columns[:, 2]))


@kernel
def money_at(money: Money, tiers: FeeTiers, trailing_volume_micro: int) -> Money:
    """`money` with the fees of the tier that a trailing volume has reached; an execution pays the tier reached before it."""
    maker = money.maker_fee
    taker = money.taker_fee
    for j in range(tiers.from_micro.shape[0]):
        if trailing_volume_micro >= tiers.from_micro[j]:
            maker = tiers.maker_fee[j]
            taker = tiers.taker_fee[j]
    return Money(money.lot_base, money.tick_size, maker, taker, money.lot_quote, money.quantum_base)


@kernel
def worth_path(money: Money, half_ticks: Int64s, out_quanta: Int64s) -> None:
    """`worth_quanta` of every price; same shapes."""
    for j in range(half_ticks.shape[0]):
        out_quanta[j] = worth_quanta(money, half_ticks[j])


@kernel
def ledger_mark(ledger: Int64s, money: Money, mid_half_ticks: int) -> None:
    """Move the mark to a mid (half ticks, > 0); the position earns the move."""
    if mid_half_ticks == ledger[MARK_HALF]:
        return
    worth = worth_quanta(money, mid_half_ticks)
    if ledger[MARK_HALF] != 0:
        ledger[INVENTORY] += ledger[POSITION] * (worth - ledger[MARK_WORTH])
    ledger[MARK_HALF] = mid_half_ticks
    ledger[MARK_WORTH] = worth


@kernel
def ledger_fill(ledger: Int64s, money: Money, side: int, price_ticks: int, lots: int, maker: int, mid_half_ticks: int) -> int:
    """Book one execution at the venue mid just before it (half ticks); returns the fee in nano of the contract's currency."""
    ledger_mark(ledger, money, mid_half_ticks)
    paid = worth_quanta(money, 2 * price_ticks)
    edge = side * lots * (ledger[MARK_WORTH] - paid)
    ledger[POSITION] += side * lots
    ledger[CASH] -= side * lots * paid
    if maker == 1:
        ledger[SPREAD] += edge
        ledger[MAKER_FILLS] += 1
        ledger[MAKER_LOTS] += lots
    else:
        ledger[HEDGE] += edge
        ledger[TAKER_FILLS] += 1
        ledger[TAKER_LOTS] += lots
    fee = fee_nano(money, price_ticks, lots, maker)
    ledger[FEES] += fee
    ledger[TRAILING_VOLUME] += int(math.floor(notional_quote(money, lots, price_ticks * money.tick_size) * 1e6 + 0.5))
    return fee


@kernel
def ledger_funding(ledger: Int64s, money: Money, rate: float, price: float) -> int:
    """Pay or receive a funding stamp on the position held (longs pay positive rates); returns nano received of the contract's currency.

    A stamp recorded without a mark `price` (nan) is paid at the ledger's own last mark; without that either, nothing is known to pay on.
    """
    if not price > 0.0:
        price = 0.5 * ledger[MARK_HALF] * money.tick_size
    if ledger[POSITION] == 0 or not price > 0.0:
        return 0
    amount = ledger[POSITION] * money.lot_quote / price if money.lot_quote > 0.0 else ledger[POSITION] * money.lot_base * price
    paid = int(math.floor(-amount * rate * 1e9 + 0.5))
    ledger[FUNDING] += paid
    return paid


@kernel
def ledger_equity_quanta(ledger: Int64s) -> int:
    """Trading equity from the parts, quanta."""
    return ledger[SPREAD] + ledger[HEDGE] + ledger[INVENTORY]


@kernel
def ledger_equity(ledger: Int64s, money: Money) -> float:
    """Equity change since the start at the last mark, fees and funding included, in the contract's own currency (base for an inverse one)."""
    quantum = money.quantum_base if money.lot_quote > 0.0 else 0.5 * money.tick_size * money.lot_base
    return (ledger[SPREAD] + ledger[HEDGE] + ledger[INVENTORY]) * quantum + (ledger[FUNDING] - ledger[FEES]) * 1e-9


@kernel
def ledger_equity_quote(ledger: Int64s, money: Money) -> float:
    """The same in quote; an inverse contract's base is valued at the last mark."""
    equity = ledger_equity(ledger, money)
    if money.lot_quote > 0.0:
        equity *= 0.5 * ledger[MARK_HALF] * money.tick_size
    return equity


def identity_residual_quanta(ledger: Int64s) -> int:
    """Cash plus position at the mark, less the sum of the parts: 0 unless the ledger is broken."""
    independent = int(ledger[CASH]) + int(ledger[POSITION]) * int(ledger[MARK_WORTH])
    return independent - int(ledger[SPREAD] + ledger[HEDGE] + ledger[INVENTORY])


@dataclass(frozen=True, slots=True)
class Attribution:
    """Profit and loss by where it came from; `total_pnl` is the correctly rounded sum of the parts.

    Amounts are in `currency`: the quote currency, the base currency for an inverse contract.

    fees : paid (negative = rebates earned). funding : received (negative = paid).
    residual_quanta : cash and position against the parts, in integers: 0, or the ledger is broken.
    mark_price : quote per base at the last mark, nan before the first; it turns an inverse contract's base into quote for display.
    """

    spread_pnl: float
    hedge_pnl: float
    inventory_pnl: float
    fees: float
    funding: float
    residual_quanta: int
    currency: str = "quote"
    mark_price: float = math.nan

    @property
    def total_pnl(self) -> float:
        return math.fsum((self.spread_pnl, self.hedge_pnl, self.inventory_pnl, -self.fees, self.funding))


def quantum_of(spec: InstrumentSpec) -> Fraction:
    """What one quantum of an instrument's ledger is worth, exactly, in the currency that the contract pays in (`pnl_currency`).

    tick x lot x multiplier / 2 for linear and spot contracts. For inverse ones a power of ten chosen from tick and contract size alone, so
    that it never depends on a run: fine enough that one tick of the price is many quanta, coarse enough for 64-bit sums.
    """
    tick, lot = Fraction(spec.tick), Fraction(spec.lot) * Fraction(spec.multiplier)
    if spec.contract != "inverse":
        return tick * lot / 2
    lot_base = lot / (tick * _INVERSE_PRICE_TICKS)
    wanted = lot_base / _INVERSE_LOT_QUANTA
    exponent = (Decimal(wanted.numerator) / Decimal(wanted.denominator)).log10().to_integral_value(ROUND_FLOOR)
    return Fraction(10) ** int(exponent)


def pnl_currency(spec: InstrumentSpec) -> str:
    """The currency in which the contract pays profit, fees and funding: base for inverse contracts, else quote."""
    return spec.id.base if spec.contract == "inverse" else spec.id.quote


def attribution(ledger: Int64s, spec: InstrumentSpec) -> Attribution:
    """Read a ledger out in the contract's own currency. The integers are turned into amounts exactly and rounded once each."""
    quantum = quantum_of(spec)

    def amount(place: int) -> float:
        return float(int(ledger[place]) * quantum)

    def nano(place: int) -> float:
        return float(Fraction(int(ledger[place]), NANO))

    return Attribution(
        spread_pnl=amount(SPREAD),
        hedge_pnl=amount(HEDGE),
        inventory_pnl=amount(INVENTORY),
        fees=nano(FEES),
        funding=nano(FUNDING),
        residual_quanta=identity_residual_quanta(ledger),
        currency=pnl_currency(spec),
        mark_price=float(Fraction(int(ledger[MARK_HALF])) * Fraction(spec.tick) / 2) if ledger[MARK_HALF] != 0 else math.nan,
    )


def in_quote(parts: Attribution, spec: InstrumentSpec) -> Attribution:
    """The same parts in quote, an inverse contract's at the last mark. For display: it says what selling all profit at that price would bring."""
    if spec.contract != "inverse":
        return parts
    return Attribution(
        spread_pnl=parts.spread_pnl * parts.mark_price,
        hedge_pnl=parts.hedge_pnl * parts.mark_price,
        inventory_pnl=parts.inventory_pnl * parts.mark_price,
        fees=parts.fees * parts.mark_price,
        funding=parts.funding * parts.mark_price,
        residual_quanta=parts.residual_quanta,
        currency=spec.id.quote,
        mark_price=parts.mark_price,
    )


def money_of(spec: InstrumentSpec, *, maker_fee: float | None = None, taker_fee: float | None = None) -> Money:
    """The ledger's constants of an instrument, with its own fees unless others are given.

    A lot of an inverse contract is `lot_size` contracts of `multiplier` quote each; of a linear one `lot_size` contracts of `multiplier` base.
    """
    maker = spec.maker_fee if maker_fee is None else maker_fee
    taker = spec.taker_fee if taker_fee is None else taker_fee
    lot = float(spec.lot * Decimal(spec.multiplier))
    if spec.contract == "inverse":
        return Money(0.0, float(spec.tick), maker, taker, lot, float(quantum_of(spec)))
    return Money(lot, float(spec.tick), maker, taker)


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
