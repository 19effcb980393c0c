"""Two ledgers that hedge each other: what their profit consists of, exactly.

Belongs here: the split of a quoted position and its hedge on another venue into crossing cost, delay, basis, funding and what stayed open. Does
not belong here: a single ledger (`kernels.accounting`), when hedges are sent (`kernels.hedging`, `kernels.decision`).

Let Q and H be the positions on the quote venue and on the hedge venue in one unit of size, W0 and W1 what a unit is worth at the two mids. Where Q
and H have opposite signs, min(|Q|, |H|) of each is *matched*, the rest is *open*:

    Q dW0 + H dW1  =  H_matched d(W1 - W0)  +  Q_open dW0 + H_open dW1
                      basis change             what stayed open

so the profit of both ledgers is, term by term and to the last integer,

    total = quote venue:  spread + its own takers - fees + funding
          + crossing      sum of side x size x (W1 at execution - W1 of the price paid): against the hedge venue's mid, before fees
          + delay         sum of side x size x (W1 at the decision - W1 at execution): what the mid did while the hedge was on its way
          + basis         as above
          + open          as above, less the delay, which it would otherwise hold: what the net inventory earned had hedges filled at their decision
          - fees of the hedge leg + funding of the hedge leg

The basis term needs positions and both mids at the same instants: `pair_mark` before every execution on either venue, and whenever a total is
read; `pair_fill` does it for executions. Both contracts are of a kind (linear and spot, or inverse): their profits are then sums of one currency,
or of two at a stated rate (USDT and USDC).

References
----------
Perold (1988), The implementation shortfall, for crossing and delay; THEORY section 9 for the identities of one ledger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.accounting import (
    FEES,
    FUNDING,
    HEDGE,
    INVENTORY,
    MARK_HALF,
    MARK_WORTH,
    NANO,
    POSITION,
    SPREAD,
    identity_residual_quanta,
    ledger_fill,
    ledger_mark,
    pnl_currency,
    quantum_of,
)
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.money import Money, worth_quanta

Int64s = npt.NDArray[np.int64]

# places in a pair array; sizes in common units, worths in quanta of the venue they belong to
MATCHED_QUOTE: Final = 0  # sum of the matched hedge size x change of the quote venue's worth
MATCHED_HEDGE: Final = 1  # the same x change of the hedge venue's worth
DELAY: Final = 2  # side x lots x (worth at the decision - worth at execution), quanta of the hedge venue
PAIR_SIZE: Final = 3


class PairUnits(NamedTuple):
    """How many common units of size one lot of each venue is: the greatest size that both lots are multiples of is one unit."""

    quote_lot: int
    hedge_lot: int


def new_pair() -> Int64s:
    """An empty pair."""
    return np.zeros(PAIR_SIZE, dtype=np.int64)


def pair_units(quote_spec: InstrumentSpec, hedge_spec: InstrumentSpec) -> PairUnits:
    """The common unit of two instruments' lots: base for linear and spot contracts, quote for inverse ones.

    Raises
    ------
    ConfigError
        A linear contract and an inverse one: one is sized in base and pays quote, the other the other way round, so neither sizes nor profits add
        up. Such a hedge can be traded, and each ledger be read for itself.
    """
    if (quote_spec.contract == "inverse") != (hedge_spec.contract == "inverse"):
        raise ConfigError(
            f"{quote_spec.instrument} is {quote_spec.contract} and pays in {pnl_currency(quote_spec)}, {hedge_spec.instrument} is {hedge_spec.contract} "
            f"and pays in {pnl_currency(hedge_spec)}: their profits do not add up; read the two ledgers apart"
        )
    lots = [Fraction(s.lot) * Fraction(s.multiplier) for s in (quote_spec, hedge_spec)]
    scale = math.lcm(lots[0].denominator, lots[1].denominator)
    whole = [int(lot * scale) for lot in lots]
    unit = math.gcd(*whole)
    return PairUnits(whole[0] // unit, whole[1] // unit)


@kernel
def matched_units(units: PairUnits, quote_lots: int, hedge_lots: int) -> int:
    """Signed size of the hedge position that stands against the quoted one, common units."""
    quote = quote_lots * units.quote_lot
    hedge = hedge_lots * units.hedge_lot
    if quote > 0 and hedge < 0:
        return max(hedge, -quote)
    if quote < 0 and hedge > 0:
        return min(hedge, -quote)
    return 0


@kernel
def pair_mark(
    pair: Int64s,
    units: PairUnits,
    quote_ledger: Int64s,
    quote_money: Money,
    quote_mid_half: int,
    hedge_ledger: Int64s,
    hedge_money: Money,
    hedge_mid_half: int,
) -> None:
    """Mark both ledgers at their venues' mids of one instant (half ticks; 0 = not known, that ledger stays where it is)."""
    matched = matched_units(units, quote_ledger[POSITION], hedge_ledger[POSITION])
    if quote_mid_half > 0:
        if quote_ledger[MARK_HALF] != 0 and matched != 0:
            pair[MATCHED_QUOTE] += matched * (worth_quanta(quote_money, quote_mid_half) - quote_ledger[MARK_WORTH])
        ledger_mark(quote_ledger, quote_money, quote_mid_half)
    if hedge_mid_half > 0:
        if hedge_ledger[MARK_HALF] != 0 and matched != 0:
            pair[MATCHED_HEDGE] += matched * (worth_quanta(hedge_money, hedge_mid_half) - hedge_ledger[MARK_WORTH])
        ledger_mark(hedge_ledger, hedge_money, hedge_mid_half)


@kernel
def pair_fill(
    pair: Int64s,
    units: PairUnits,
    quote_ledger: Int64s,
    quote_money: Money,
    quote_mid_half: int,
    hedge_ledger: Int64s,
    hedge_money: Money,
    hedge_mid_half: int,
    on_hedge_venue: int,
    side: int,
    price_ticks: int,
    lots: int,
    maker: int,
    decided_mid_half: int,
) -> int:
    """Book an execution on either venue; returns its fee in nano.

    Parameters
    ----------
    pair, units, quote_ledger, hedge_ledger
        The pair and its ledgers, changed in place.
    quote_money, hedge_money : Money
        With the fees of the tier in force.
    quote_mid_half, hedge_mid_half : int
        Mids of both venues just before the execution, half ticks; that of the venue it happens on is known (> 0), the other may be 0.
    on_hedge_venue : int
        1 = on the hedge venue, 0 = on the quote venue.
    side, price_ticks, lots, maker : int
        The execution.
    decided_mid_half : int
        Mid of the hedge venue when the hedge was decided, half ticks; 0 = not known, then no delay is counted.
    """
    pair_mark(pair, units, quote_ledger, quote_money, quote_mid_half, hedge_ledger, hedge_money, hedge_mid_half)
    if on_hedge_venue == 0:
        return ledger_fill(quote_ledger, quote_money, side, price_ticks, lots, maker, quote_mid_half)
    if decided_mid_half > 0:
        pair[DELAY] += side * lots * (worth_quanta(hedge_money, decided_mid_half) - hedge_ledger[MARK_WORTH])
    return ledger_fill(hedge_ledger, hedge_money, side, price_ticks, lots, maker, hedge_mid_half)


@dataclass(frozen=True, slots=True)
class HedgeAttribution:
    """Profit and loss of a quoted position and its hedge on another venue, exact, in `currency`.

    Parameters
    ----------
    spread, quote_takers : Fraction
        The quote venue: makers' edge; takers' (flattening), before fees.
    quote_fees, quote_funding : Fraction
        There paid, there received.
    crossing : Fraction
        The hedge venue: distance of hedges' prices from its mid at execution, <= 0 as a rule.
    delay : Fraction
        Its mid at the decision against that at execution; negative = it ran away from us.
    basis : Fraction
        Matched size x change of the difference of the mids.
    open_inventory : Fraction
        What the net inventory earned, less `delay`.
    hedge_fees, hedge_funding : Fraction
        Of the hedge leg: paid, received.
    residual_quanta : int
        Both ledgers' cash and positions against their parts: 0, or one is broken.
    currency : str
        What both contracts pay in.
    """

    spread: Fraction
    quote_takers: Fraction
    quote_fees: Fraction
    quote_funding: Fraction
    crossing: Fraction
    delay: Fraction
    basis: Fraction
    open_inventory: Fraction
    hedge_fees: Fraction
    hedge_funding: Fraction
    residual_quanta: int
    currency: str

    @property
    def hedge_leg(self) -> Fraction:
        """What hedging cost or brought: crossing, delay, basis, fees and funding of the hedge leg."""
        return self.crossing + self.delay + self.basis - self.hedge_fees + self.hedge_funding

    @property
    def total(self) -> Fraction:
        """Profit of both ledgers."""
        return self.spread + self.quote_takers - self.quote_fees + self.quote_funding + self.open_inventory + self.hedge_leg


def hedge_attribution(
    pair: Int64s,
    quote_ledger: Int64s,
    quote_spec: InstrumentSpec,
    hedge_ledger: Int64s,
    hedge_spec: InstrumentSpec,
    *,
    hedge_currency_rate: Fraction | None = None,
) -> HedgeAttribution:
    """Read a pair out; it has been marked (`pair_mark`) at the time that is read.

    Parameters
    ----------
    pair, quote_ledger, hedge_ledger
        As the kernels left them.
    quote_spec, hedge_spec : InstrumentSpec
        Facts of both instruments.
    hedge_currency_rate : Fraction, optional
        What one unit of the hedge venue's currency is worth in the quote venue's, one number for the run; 1 unless they differ.

    Raises
    ------
    ConfigError
        A linear contract with an inverse one, or two currencies and no rate.
    """
    units = pair_units(quote_spec, hedge_spec)
    one, two = pnl_currency(quote_spec), pnl_currency(hedge_spec)
    if hedge_currency_rate is None:
        if one != two:
            raise ConfigError(
                f"{quote_spec.instrument} pays in {one}, {hedge_spec.instrument} in {two}: give hedge_currency_rate, what one {two} is worth in {one}"
            )
        hedge_currency_rate = Fraction(1)
    quote_quantum, hedge_quantum = quantum_of(quote_spec), quantum_of(hedge_spec) * hedge_currency_rate
    hedge_nano = hedge_currency_rate / NANO
    matched_hedge = int(pair[MATCHED_HEDGE]) * hedge_quantum / units.hedge_lot
    matched_quote = int(pair[MATCHED_QUOTE]) * quote_quantum / units.quote_lot
    basis = matched_hedge - matched_quote
    delay = int(pair[DELAY]) * hedge_quantum
    inventory = int(quote_ledger[INVENTORY]) * quote_quantum + int(hedge_ledger[INVENTORY]) * hedge_quantum
    return HedgeAttribution(
        spread=int(quote_ledger[SPREAD]) * quote_quantum,
        quote_takers=int(quote_ledger[HEDGE]) * quote_quantum,
        quote_fees=Fraction(int(quote_ledger[FEES]), NANO),
        quote_funding=Fraction(int(quote_ledger[FUNDING]), NANO),
        crossing=int(hedge_ledger[HEDGE] + hedge_ledger[SPREAD]) * hedge_quantum,
        delay=delay,
        basis=basis,
        open_inventory=inventory - basis - delay,
        hedge_fees=int(hedge_ledger[FEES]) * hedge_nano,
        hedge_funding=int(hedge_ledger[FUNDING]) * hedge_nano,
        residual_quanta=abs(identity_residual_quanta(quote_ledger)) + abs(identity_residual_quanta(hedge_ledger)),
        currency=one,
    )
