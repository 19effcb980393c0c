"""Funding arbitrage (the guide's `FundingArbitrage`): funding, basis and costs in, an opportunity or the reason for none out.

Belongs here: the decision for one perp against one spot market, and the book of positions opened on such decisions. Does not belong here:
the arithmetic (`kernels.funding`), scans over venues (`workflow.funding`), orders.

Signs. A positive rate pays shorts: long spot, short perp. A negative rate pays longs: short spot (borrowed), long perp. Basis is
`(perp - spot) / spot`.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Any, Final, Literal

from mm_platform.core.clock import Clock, monotonic_ns
from mm_platform.core.errors import ConfigError
from mm_platform.core.units import HOURS_PER_YEAR
from mm_platform.kernels.funding import apr_step, apy_step, break_even_settlements, funding_payment, net_apr_step, rate_8h_step

Direction = Literal["long_spot_short_perp", "short_spot_long_perp"]
RefusalCode = Literal["basis", "rate", "predicted_sign", "net_apr"]
_PERP_SIDE: Final[dict[str, float]] = {"long_spot_short_perp": -1.0, "short_spot_long_perp": 1.0}


class FundingRate(float):
    """A rate per interval that knows its interval: what connectors return, and wherever a rate is taken it counts as the plain number.

    Parameters
    ----------
    rate : float
        Per interval, fraction of notional; positive = longs pay.
    interval_hours : float
        Hours between settlements.
    stamp_ns : int
        The settlement it is for, UTC ns.
    is_predicted : bool
        False once settled.
    mark_price : float or None
        Quote per base.
    """

    interval_hours: float
    stamp_ns: int
    is_predicted: bool
    mark_price: float | None

    def __new__(
        cls, rate: float, interval_hours: float = 8.0, stamp_ns: int = 0, is_predicted: bool = True, mark_price: float | None = None
    ) -> FundingRate:
        self = super().__new__(cls, rate)
        self.interval_hours = interval_hours
        self.stamp_ns = stamp_ns
        self.is_predicted = is_predicted
        self.mark_price = mark_price
        return self


@dataclass(frozen=True, slots=True)
class CarryCost:
    """Costs of a perp-spot position, each a fraction of the notional of one leg; a leg pays its fee and half spread going in and coming out.

    Parameters
    ----------
    spot_fee, perp_fee : float
        Taker fees.
    spot_half_spread, perp_half_spread : float
        Half of ask minus bid over mid.
    spot_borrow_apr : float
        Interest per year on borrowed spot, paid by a short spot leg.
    """

    spot_fee: float = 0.0010
    perp_fee: float = 0.0005
    spot_half_spread: float = 0.0001
    perp_half_spread: float = 0.0001
    spot_borrow_apr: float = 0.05

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise ConfigError(f"CarryCost.{field.name} is {value}, expected a finite fraction")
        if min(self.spot_half_spread, self.perp_half_spread, self.spot_borrow_apr) < 0.0:
            raise ConfigError(f"half spreads and borrowing interest are costs, expected >= 0, got {self}")

    @property
    def round_trip(self) -> float:
        """Fees and half spreads of both legs, in and out, on the notional of one leg."""
        return 2.0 * (self.spot_fee + self.perp_fee + self.spot_half_spread + self.perp_half_spread)


@dataclass(frozen=True, slots=True)
class Opportunity:
    """A carry trade that pays for itself; its fields also read as `opp["apr"]`.

    Parameters
    ----------
    direction : str
        Which leg is long.
    perp_price, spot_price : float
        Quote per base.
    funding_rate, predicted_funding : float
        Settled and predicted rate per interval as given.
    expected_rate : float
        Rate per interval received that the net figures assume: the smaller of the two in size, positive.
    interval_hours : float
        Hours between settlements.
    basis_frac : float
        (perp - spot) / spot.
    apr, apy, rate_8h : float
        Received at the settled rate, before costs: per year without and with compounding, per 8 hours.
    cost_frac : float
        Costs of in and out, borrowing over the holding time included, on the notional of one leg.
    break_even_settlements : int or None
        Settlements after which funding has paid the costs; None: never.
    break_even_hours : float or None
        Hours until then.
    holding_hours : float
        Hours the net figure assumes.
    net_apr : float
        Per year on the notional of one leg, after costs, over the holding time.
    evaluated_at_ns : int
        UTC ns.
    """

    direction: Direction
    perp_price: float
    spot_price: float
    funding_rate: float
    predicted_funding: float | None
    expected_rate: float
    interval_hours: float
    basis_frac: float
    apr: float
    apy: float
    rate_8h: float
    cost_frac: float
    break_even_settlements: int | None
    break_even_hours: float | None
    holding_hours: float
    net_apr: float
    evaluated_at_ns: int

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(f"an opportunity has no {name!r}; it has {', '.join(self.keys())}")
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """Names that can be read as in a dict."""
        return tuple(f.name for f in dataclasses.fields(self))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no opportunity: a word to branch on, and a sentence with the numbers."""

    code: RefusalCode
    reason: str


@dataclass(frozen=True, slots=True)
class FundingPosition:
    """An open carry position: equal base amounts on both legs.

    Parameters
    ----------
    notional : float
        Quote, of one leg at the entry's spot price.
    qty : float
        Base per leg.
    funding_received : float
        Quote received at the stamps so far (negative = paid).
    last_funding_ns : int or None
        Stamp of the last settlement booked.
    """

    position_id: str
    opportunity: Opportunity
    notional: float
    qty: float
    opened_at_ns: int
    funding_received: float = 0.0
    settlements: int = 0
    last_funding_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ClosedPosition:
    """What a position earned, in quote: `total_pnl = basis_pnl + funding_received - costs`."""

    position: FundingPosition
    closed_at_ns: int
    perp_price: float
    spot_price: float
    basis_pnl: float
    funding_received: float
    costs: float

    @property
    def total_pnl(self) -> float:
        return math.fsum((self.basis_pnl, self.funding_received, -self.costs))


class FundingArbitrage:
    """Decide on perp-spot carry and keep the positions opened on it. No I/O.

    Parameters
    ----------
    min_funding_rate : float
        Smallest expected rate per interval, in size, as a fraction of notional (0.0001 = 0.01 %).
    min_apr_threshold : float
        Smallest net APR: per year, after costs, over `holding_hours`.
    max_basis_risk : float
        Largest size of (perp - spot) / spot. All three bounds are inclusive.
    interval_hours : float
        Hours between settlements of the perp.
    cost : CarryCost
        Fees and half spreads per leg; the defaults are ordinary taker fees (spot 10 bp, perp 5 bp) and 1 bp half spreads: 34 bp in and out.
    holding_hours : float
        Holding time over which the costs are spread.
    clock : Clock
        UTC ns; stamps opportunities and positions.

    Attributes
    ----------
    last_refusal : Refusal or None
        Why the latest evaluation gave nothing; None when it gave an opportunity.
    """

    def __init__(
        self,
        min_funding_rate: float = 0.0001,
        min_apr_threshold: float = 0.05,
        max_basis_risk: float = 0.002,
        *,
        interval_hours: float = 8.0,
        cost: CarryCost | None = None,
        holding_hours: float = 168.0,
        clock: Clock | None = None,
    ) -> None:
        _check("min_funding_rate", min_funding_rate, low=0.0)
        _check("min_apr_threshold", min_apr_threshold)
        _check("max_basis_risk", max_basis_risk, low=0.0)
        _check("interval_hours", interval_hours, low=0.0, strict=True)
        _check("holding_hours", holding_hours, low=0.0, strict=True)
        if holding_hours < interval_hours:
            raise ConfigError(f"holding_hours is {holding_hours}, shorter than one interval of {interval_hours} h: no settlement would be met")
        if min_apr_threshold > 1.0 or min_funding_rate > 0.01:
            warnings.warn(
                f"min_apr_threshold {min_apr_threshold:g} and min_funding_rate {min_funding_rate:g} are fractions: 5 % per year is 0.05, "
                "0.01 % per interval is 0.0001; such bounds refuse nearly everything",
                stacklevel=2,
            )
        self.min_funding_rate = min_funding_rate
        self.min_apr_threshold = min_apr_threshold
        self.max_basis_risk = max_basis_risk
        self.interval_hours = interval_hours
        self.holding_hours = holding_hours
        self.cost = cost if cost is not None else CarryCost()
        self.last_refusal: Refusal | None = None
        self._clock = clock or monotonic_ns
        self._positions: dict[str, FundingPosition] = {}
        self._opened = 0

    def calculate_funding_apr(self, rate: float, interval_hours: float | None = None) -> float:
        """Rate per year without compounding, before costs: `rate * 8760 / interval_hours`.

        Parameters
        ----------
        rate : float
            Per interval, fraction of notional (0.0005 = 0.05 %).
        interval_hours : float, optional
            Hours of an interval; default what a `FundingRate` says, else the constructor's.

        Returns
        -------
        float
            Per year; 0.0005 per 8 h is 0.5475.
        """
        hours = self._hours(rate, interval_hours)
        _check("funding rate", rate)
        _check("interval_hours", hours, low=0.0, strict=True)
        return apr_step(float(rate), hours)

    def evaluate_perp_spot_opportunity(
        self,
        perp_price: float,
        spot_price: float,
        funding_rate: float,
        predicted_funding: float | None = None,
        *,
        interval_hours: float | None = None,
        now_ns: int | None = None,
    ) -> Opportunity | None:
        """Judge one perp against its spot market.

        Parameters
        ----------
        perp_price, spot_price : float
            Mid prices, quote per base, of the same moment.
        funding_rate : float
            Current rate per interval, fraction of notional; positive = longs pay.
        predicted_funding : float, optional
            Predicted next rate. The figures assume the smaller of the two in size; a prediction of the other sign is refused.
        interval_hours : float, optional
            Hours of an interval; default what a `FundingRate` says, else the constructor's.
        now_ns : int, optional
            UTC ns; default the clock's.

        Returns
        -------
        Opportunity or None
            None when a bound is missed; the reason is in `last_refusal`.

        Raises
        ------
        ConfigError
            A price that is not positive, a rate that is not finite.
        """
        opportunity, self.last_refusal = self.assess(
            perp_price, spot_price, funding_rate, predicted_funding, interval_hours=interval_hours, now_ns=now_ns
        )
        return opportunity if self.last_refusal is None else None

    def assess(
        self,
        perp_price: float,
        spot_price: float,
        funding_rate: float,
        predicted_funding: float | None = None,
        *,
        interval_hours: float | None = None,
        now_ns: int | None = None,
    ) -> tuple[Opportunity, Refusal | None]:
        """The numbers of a trade whether or not it is worth taking, and the first bound it misses (None: it passes).

        Parameters and errors as `evaluate_perp_spot_opportunity`, which keeps only what passes.
        """
        for name, price in (("perp_price", perp_price), ("spot_price", spot_price)):
            _check(name, price, low=0.0, strict=True)
        _check("funding_rate", funding_rate)
        hours = self._hours(funding_rate, interval_hours)
        _check("interval_hours", hours, low=0.0, strict=True)
        rate = abs(funding_rate)
        turns = False
        if predicted_funding is not None:
            _check("predicted_funding", predicted_funding)
            turns = predicted_funding * funding_rate < 0.0
            rate = 0.0 if turns else min(rate, abs(predicted_funding))
        short_perp = funding_rate >= 0.0
        borrow = 0.0 if short_perp else self.cost.spot_borrow_apr
        # borrowing accrues with time, so for the break-even it lowers what each settlement leaves rather than adding to the fixed cost
        settlements = break_even_settlements(self.cost.round_trip, rate - borrow * hours / HOURS_PER_YEAR)
        whole = math.ceil(settlements - 1e-9) if math.isfinite(settlements) else None
        cost = self.cost.round_trip + borrow * self.holding_hours / HOURS_PER_YEAR
        opp = Opportunity(
            direction="long_spot_short_perp" if short_perp else "short_spot_long_perp",
            perp_price=float(perp_price),
            spot_price=float(spot_price),
            funding_rate=float(funding_rate),
            predicted_funding=None if predicted_funding is None else float(predicted_funding),
            expected_rate=rate,
            interval_hours=hours,
            basis_frac=(perp_price - spot_price) / spot_price,
            apr=apr_step(abs(funding_rate), hours),
            apy=apy_step(abs(funding_rate), hours),
            rate_8h=rate_8h_step(abs(funding_rate), hours),
            cost_frac=cost,
            break_even_settlements=whole,
            break_even_hours=None if whole is None else whole * hours,
            holding_hours=self.holding_hours,
            net_apr=net_apr_step(rate, hours, cost, self.holding_hours),
            evaluated_at_ns=self._clock() if now_ns is None else now_ns,
        )
        return opp, self._refusal(opp, turns)

    def _refusal(self, opp: Opportunity, turns: bool) -> Refusal | None:
        if turns:
            return Refusal(
                "predicted_sign", f"the rate is {opp.funding_rate:g} but {opp.predicted_funding:g} is predicted: the paying side would change"
            )
        if abs(opp.basis_frac) > self.max_basis_risk:
            return Refusal(
                "basis",
                f"basis (perp - spot) / spot is {opp.basis_frac:.6g}, allowed is {self.max_basis_risk:g} in size "
                f"(perp {opp.perp_price:g}, spot {opp.spot_price:g})",
            )
        if opp.expected_rate < self.min_funding_rate or opp.expected_rate == 0.0:
            return Refusal(
                "rate", f"expected rate is {opp.expected_rate:g} per {opp.interval_hours:g} h in size, wanted at least {self.min_funding_rate:g}"
            )
        if opp.net_apr < self.min_apr_threshold:
            return Refusal(
                "net_apr",
                f"net APR is {opp.net_apr:.4g} over {opp.holding_hours:g} h: {opp.expected_rate:g} per {opp.interval_hours:g} h against costs of "
                f"{opp.cost_frac:.6g}; wanted at least {self.min_apr_threshold:g}",
            )
        return None

    def open_position(self, opp: Opportunity, position_size: float, *, now_ns: int | None = None) -> str:
        """Book a position on an opportunity; sends nothing.

        Parameters
        ----------
        opp : Opportunity
        position_size : float
            Notional of one leg in quote, > 0.
        now_ns : int, optional
            UTC ns; default the clock's.

        Returns
        -------
        str
            Position id, counted from 1 per object.
        """
        if not isinstance(opp, Opportunity):
            raise ConfigError(f"open_position wants what evaluate_perp_spot_opportunity returned, got {opp!r}")
        _check("position_size", position_size, low=0.0, strict=True)
        self._opened += 1
        position_id = f"FA-{self._opened:06d}"
        self._positions[position_id] = FundingPosition(
            position_id=position_id,
            opportunity=opp,
            notional=float(position_size),
            qty=position_size / opp.spot_price,
            opened_at_ns=self._clock() if now_ns is None else now_ns,
        )
        return position_id

    def get_positions(self) -> tuple[FundingPosition, ...]:
        """Open positions, oldest first."""
        return tuple(self._positions.values())

    def apply_funding(self, position_id: str, rate: float, mark_price: float, stamp_ns: int) -> float:
        """Book a settlement on the perp leg; returns the quote received (negative = paid).

        A position opened after the stamp gets nothing; a stamp is booked once, so repeated or older ones give 0.
        """
        position = self._open(position_id)
        _check("funding rate", rate)
        _check("mark_price", mark_price, low=0.0, strict=True)
        if stamp_ns < position.opened_at_ns or (position.last_funding_ns is not None and stamp_ns <= position.last_funding_ns):
            return 0.0
        received = funding_payment(_PERP_SIDE[position.opportunity.direction], position.qty, mark_price, rate)
        self._positions[position_id] = dataclasses.replace(
            position,
            funding_received=position.funding_received + received,
            settlements=position.settlements + 1,
            last_funding_ns=stamp_ns,
        )
        return received

    def close_position(self, position_id: str, perp_price: float, spot_price: float, *, now_ns: int | None = None) -> ClosedPosition:
        """Take a position off the books at the given mid prices; costs are those stated to the constructor.

        Parameters
        ----------
        position_id : str
        perp_price, spot_price : float
            Mids at the exit, quote per base.
        now_ns : int, optional
            UTC ns; default the clock's.

        Returns
        -------
        ClosedPosition
            Basis P&L of both legs, funding booked by `apply_funding`, fees, half spreads and borrowing.

        Raises
        ------
        ConfigError
            No such open position; a price that is not positive.
        """
        position = self._open(position_id)
        for name, price in (("perp_price", perp_price), ("spot_price", spot_price)):
            _check(name, price, low=0.0, strict=True)
        now = self._clock() if now_ns is None else now_ns
        opp = position.opportunity
        side = _PERP_SIDE[opp.direction]
        basis_pnl = side * position.qty * ((perp_price - opp.perp_price) - (spot_price - opp.spot_price))
        c = self.cost
        costs = position.qty * (
            (c.perp_fee + c.perp_half_spread) * (opp.perp_price + perp_price) + (c.spot_fee + c.spot_half_spread) * (opp.spot_price + spot_price)
        )
        if side > 0.0:
            hours_held = max(0, now - position.opened_at_ns) / 3.6e12
            costs += position.notional * c.spot_borrow_apr * hours_held / HOURS_PER_YEAR
        del self._positions[position_id]
        return ClosedPosition(position, now, perp_price, spot_price, basis_pnl, position.funding_received, costs)

    def _hours(self, rate: float, interval_hours: float | None) -> float:
        if interval_hours is not None:
            return interval_hours
        return rate.interval_hours if isinstance(rate, FundingRate) else self.interval_hours

    def _open(self, position_id: str) -> FundingPosition:
        if position_id not in self._positions:
            raise ConfigError(f"there is no open position {position_id!r}; open are {', '.join(self._positions) or 'none'}")
        return self._positions[position_id]


def _check(name: str, value: float, *, low: float = -math.inf, strict: bool = False) -> None:
    if not math.isfinite(value) or value < low or (strict and value == low):
        bound = "" if low == -math.inf else f" {'>' if strict else '>='} {low:g}"
        raise ConfigError(f"{name} is {value}, expected a finite number{bound}")
