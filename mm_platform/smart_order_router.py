"""Smart order router: one parent order, several venues (the guide's `SmartOrderRouter`).

Belongs here: reading books, fees and balances through the ports it was given, the plan, sending the plan's legs once. Does not belong
here: venue clients (`exchange_connectors`), the arithmetic of the split (`kernels.routing`), retries: an order whose outcome is not known
is reported, never sent again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, Protocol, cast, get_args, runtime_checkable

import numpy as np

from mm_platform.core.errors import ConfigError, DataError, VenueError, VenueRejected
from mm_platform.core.ports import VenuePort
from mm_platform.kernels.routing import (
    INFEASIBLE,
    MAX_VENUES,
    Books,
    Work,
    affordable_quantity,
    best_subset,
    latency_penalty,
    new_work,
    take_from_venue,
    total_cost,
    water_fill,
)

Strategy = Literal["min_cost", "best_price", "split"]
OrderSide = Literal["buy", "sell"]
LegStatus = Literal["filled", "partial", "open", "rejected", "unknown"]

_SIGN: Final = {"buy": 1.0, "sell": -1.0}
_ORDER_TYPES: Final = ("limit", "ioc", "market")
# quantities are compared in steps; below this share of a step a difference is float noise
_STEP_TOL: Final = 1e-6


class VenueLimits(NamedTuple):
    """What a venue takes: smallest order in quote and base, largest and step in base (step 0 = any), and how it is paid.

    On margin both sides reserve `margin_rate` of the notional from the settlement currency; on spot (`margin_rate` None) a purchase
    pays quote and a sale delivers base.
    """

    min_notional: float = 0.0
    min_amount: float = 0.0
    max_amount: float = math.inf
    amount_step: str = "0"
    margin_rate: float | None = None


@runtime_checkable
class LimitedVenue(Protocol):
    """A venue port that states its limits; without them any size goes and payment is as on spot."""

    def get_limits(self, symbol: str) -> VenueLimits: ...


class VenueSource(Protocol):
    """Where the router finds its venues (the guide's venue manager)."""

    def venues(self) -> Mapping[str, VenuePort]: ...


@dataclass(frozen=True, slots=True)
class RouteLeg:
    """One venue's part of a plan.

    Parameters
    ----------
    venue : str
        Name in the venue manager.
    amount : float
        Base.
    limit_price : float
        Worst level touched, quote per base: the leg's limit.
    average_price : float
        Quote per base before fees.
    fee_frac, fee_quote : float
        Taker fee, as a fraction of notional and in quote.
    penalty_quote, fixed_quote : float
        Expected loss to latency; cost of using the venue.
    levels : int
        Book levels touched.
    """

    venue: str
    amount: float
    limit_price: float
    average_price: float
    fee_frac: float
    fee_quote: float
    penalty_quote: float
    fixed_quote: float
    levels: int


@dataclass(frozen=True, slots=True)
class SkippedVenue:
    """A venue that got nothing, and why."""

    venue: str
    reason: str


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """What the router would send. Amounts in base, money in quote.

    Parameters
    ----------
    plan_id : int
        Running number of the router that made it; a plan is sent at most once.
    amount, planned, unfilled : float
        Asked for; in the legs; the rest, for the reason in `unfilled_reason`.
    cost_quote : float
        All in: paid for a purchase (positive), negative of what is received for a sale; fees, latency and fixed costs included.
    """

    plan_id: int
    symbol: str
    side: OrderSide
    strategy: Strategy
    amount: float
    planned: float
    unfilled: float
    unfilled_reason: str
    cost_quote: float
    legs: tuple[RouteLeg, ...]
    skipped: tuple[SkippedVenue, ...]

    @property
    def complete(self) -> bool:
        return self.unfilled == 0.0

    @property
    def fees_quote(self) -> float:
        return math.fsum(leg.fee_quote for leg in self.legs)

    @property
    def average_price(self) -> float:
        """Before fees, quote per base; NaN for an empty plan."""
        return math.fsum(leg.amount * leg.average_price for leg in self.legs) / self.planned if self.planned else math.nan

    @property
    def effective_price(self) -> float:
        """All costs in, quote per base; NaN for an empty plan."""
        return abs(self.cost_quote) / self.planned if self.planned else math.nan

    def explain(self) -> str:
        """The plan in words, one line per venue."""
        head = f"{self.side} {self.amount:g} {self.symbol} by {self.strategy}: {self.planned:g} planned"
        lines = [head + (f" at {self.effective_price:.8g} all in, {self.average_price:.8g} before costs" if self.legs else "")]
        lines += [
            f"  {leg.venue}: {leg.amount:g} at {leg.average_price:.8g} on average, limit {leg.limit_price:.8g}, {leg.levels} level(s), "
            f"fee {leg.fee_quote:.6g} ({leg.fee_frac * 1e4:g} bp), latency {leg.penalty_quote:.6g}, fixed {leg.fixed_quote:.6g} quote"
            for leg in self.legs
        ]
        lines += [f"  {s.venue}: nothing, {s.reason}" for s in self.skipped]
        if self.unfilled:
            lines.append(f"  unfilled {self.unfilled:g}: {self.unfilled_reason}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class LegResult:
    """What became of a leg. `filled` is None where the venue did not say; `unknown` means reconcile by `client_id` before acting."""

    venue: str
    client_id: str
    status: LegStatus
    amount: float
    filled: float | None
    average_price: float | None
    order_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """The legs' outcomes, in the plan's order; iterating gives the legs."""

    plan: RoutingPlan
    legs: tuple[LegResult, ...]

    def __iter__(self) -> Iterator[LegResult]:
        return iter(self.legs)

    def __len__(self) -> int:
        return len(self.legs)

    @property
    def filled(self) -> float:
        """Base known to be filled; what venues did not say is not in it."""
        return math.fsum(leg.filled for leg in self.legs if leg.filled is not None)

    @property
    def unresolved(self) -> tuple[LegResult, ...]:
        """Legs whose state must be asked for before anything else is done."""
        return tuple(leg for leg in self.legs if leg.status == "unknown" or leg.filled is None)

    @property
    def complete(self) -> bool:
        return self.plan.complete and all(leg.status == "filled" for leg in self.legs)


class SmartOrderRouter:
    """Plan and send taker orders over several venues.

    Parameters
    ----------
    venue_manager : VenueSource
        Names and ports of the venues.
    latency_s : mapping of str to float
        Seconds an order travels to a venue; with `sigma` it becomes an expected loss per unit.
    sigma : float
        Relative volatility per sqrt(year) for that loss.
    fixed_cost : mapping of str to float
        Cost in quote of using a venue at all.
    limits : mapping of str to VenueLimits
        Limits of venues that do not state theirs; over those a venue states.
    check_balances : bool
        Cap each leg by the free balance. Off only for planning without an account.
    run_id : str
        Prefix of client ids. Ids are `<run_id>-<plan>-<leg>`: give every process its own, so that ids of two runs never meet.
    """

    def __init__(
        self,
        venue_manager: VenueSource,
        *,
        latency_s: Mapping[str, float] | None = None,
        sigma: float = 0.0,
        fixed_cost: Mapping[str, float] | None = None,
        limits: Mapping[str, VenueLimits] | None = None,
        check_balances: bool = True,
        run_id: str = "sor",
    ) -> None:
        for name, value in {"sigma": sigma, **(latency_s or {}), **(fixed_cost or {})}.items():
            if not (math.isfinite(value) and value >= 0.0):
                raise ConfigError(f"router: {name} is {value}, expected a finite number >= 0")
        self._venue_manager = venue_manager
        self._latency_s = dict(latency_s or {})
        self._sigma = sigma
        self._fixed_cost = dict(fixed_cost or {})
        self._limits = dict(limits or {})
        self._check_balances = check_balances
        self._run_id = run_id
        self._plans = 0
        self._sent: set[int] = set()

    def route_order(self, symbol: str, side: str, amount: float, strategy: str = "min_cost", *, depth: int = 100) -> RoutingPlan:
        """Plan an order; nothing is sent.

        Parameters
        ----------
        symbol : str
            As the venues take it, `BTC/USDT`.
        side : str
            `buy` or `sell`.
        amount : float
            Base, > 0.
        strategy : str
            `min_cost`: least total cost, fees, latency, fixed costs and minimum sizes included. `best_price`: displayed prices only, best
            first, whatever the fees. `split`: in proportion to the depth each venue shows, so that every book is moved alike.
        depth : int
            Levels to read per book.

        Returns
        -------
        RoutingPlan
            What cannot be filled is in `unfilled`, with the reason.

        Raises
        ------
        ConfigError
            Wrong argument; no venues; more venues than the exhaustive search takes.
        """
        sign = _sign(side)
        if strategy not in get_args(Strategy):
            raise ConfigError(f"routing strategy {strategy!r} is unknown; expected one of {', '.join(get_args(Strategy))}")
        if not (math.isfinite(amount) and amount > 0.0):
            raise ConfigError(f"amount to route is {amount}, expected a finite number of base > 0")
        ports = dict(self._venue_manager.venues())
        if not ports:
            raise ConfigError("there are no venues to route to; add one with VenueManager.add_venue")
        if len(ports) > MAX_VENUES:
            raise ConfigError(f"{len(ports)} venues; the exhaustive search over subsets takes at most {MAX_VENUES}: route over fewer")
        quoted: list[_VenueQuote] = []
        skipped: list[SkippedVenue] = []
        for name, port in ports.items():
            seen = self._read_venue(name, port, symbol, sign, amount, depth)
            if isinstance(seen, SkippedVenue):
                skipped.append(seen)
            else:
                quoted.append(seen)
        self._plans += 1
        return _plan(self._plans, symbol, cast(OrderSide, side), cast(Strategy, strategy), amount, quoted, skipped)

    def execute_routing_plan(self, symbol: str, side: str, routing_plan: RoutingPlan, order_type: str = "limit") -> RoutingResult:
        """Send every leg of a plan once.

        Parameters
        ----------
        symbol, side : str
            Must be the plan's own: a guard against sending the wrong plan.
        routing_plan : RoutingPlan
            Of this router, not sent before.
        order_type : str
            `limit` at the worst planned price (the rest of a leg stays in the book), `ioc` the same without a rest, `market` without a limit.

        Returns
        -------
        RoutingResult
            A leg that a venue refused is `rejected` with its words. A leg whose outcome is not known is `unknown` and is not sent again.

        Raises
        ------
        ConfigError
            The plan is empty, was sent before, or is for another symbol or side.
        """
        _sign(side)
        if order_type not in _ORDER_TYPES:
            raise ConfigError(f"order type {order_type!r} is unknown; expected one of {', '.join(_ORDER_TYPES)}")
        if (routing_plan.symbol, routing_plan.side) != (symbol, side):
            raise ConfigError(f"asked to {side} {symbol}, but the plan is to {routing_plan.side} {routing_plan.symbol}; route again")
        if not routing_plan.legs:
            raise ConfigError(f"the plan has no legs: {routing_plan.explain()}")
        if routing_plan.plan_id in self._sent:
            raise ConfigError(f"plan {routing_plan.plan_id} was sent before; sending it again would trade twice: route again")
        if not 0 < routing_plan.plan_id <= self._plans:
            raise ConfigError(f"plan {routing_plan.plan_id} is not of this router; route again")
        ports = dict(self._venue_manager.venues())
        gone = [leg.venue for leg in routing_plan.legs if leg.venue not in ports]
        if gone:
            raise ConfigError(f"the plan uses {', '.join(gone)}, which the venue manager no longer has; route again")
        self._sent.add(routing_plan.plan_id)
        legs = tuple(
            _send(ports[leg.venue], symbol, side, leg, order_type, f"{self._run_id}-{routing_plan.plan_id}-{number}")
            for number, leg in enumerate(routing_plan.legs, start=1)
        )
        return RoutingResult(routing_plan, legs)

    def _read_venue(self, name: str, port: VenuePort, symbol: str, sign: float, amount: float, depth: int) -> _VenueQuote | SkippedVenue:
        try:
            book = port.get_orderbook(symbol, depth)
            fee = float(port.get_fees(symbol)["taker"])
            stated = port.get_limits(symbol) if isinstance(port, LimitedVenue) else VenueLimits()
            free = port.get_balance() if self._check_balances else {}
            limits = self._limits.get(name, stated)
            levels = _levels(book, sign)
        except (VenueError, DataError) as err:
            return SkippedVenue(name, f"{type(err).__name__}: {err}")
        if not levels:
            return SkippedVenue(name, f"no {'asks' if sign > 0 else 'bids'} in its book")
        price = np.array([p for p, _ in levels])
        size = np.array([s for _, s in levels])
        upper, capped_by = float(limits.max_amount), "its largest order"
        if self._check_balances:
            affordable, asset = _affordable(symbol, sign, price, size, fee, limits, free)
            if affordable < upper:
                upper, capped_by = affordable, f"the free {asset}"
        step = float(limits.amount_step)
        upper = _floor_to(upper, step)
        lower = _ceil_to(max(limits.min_amount, limits.min_notional / _notional_price(price, size, sign, amount)), step)
        if upper <= 0.0 or upper < lower:
            return SkippedVenue(name, f"{capped_by} covers {upper:g} base, its smallest order is {lower:g}")
        return _VenueQuote(
            name,
            price,
            size,
            fee,
            latency_penalty(float(price[0]), self._sigma, self._latency_s.get(name, 0.0)),
            self._fixed_cost.get(name, 0.0),
            lower,
            upper,
            limits.amount_step,
            capped_by,
        )


@dataclass(frozen=True, slots=True)
class _VenueQuote:
    """One venue's side of the book and bounds, as planned with."""

    name: str
    price: np.typing.NDArray[np.float64]
    size: np.typing.NDArray[np.float64]
    fee: float
    penalty: float
    fixed: float
    lower: float
    upper: float
    step: str
    capped_by: str


def _sign(side: str) -> float:
    if side not in _SIGN:
        raise ConfigError(f"side {side!r} is unknown; expected buy or sell")
    return _SIGN[side]


def _levels(book: Mapping[str, Any], sign: float) -> list[tuple[float, float]]:
    """The opposite side's levels, best first; `DataError` for a book nobody should trade on."""
    sides: dict[str, list[tuple[float, float]]] = {}
    for key, direction in (("bids", -1.0), ("asks", 1.0)):
        if key not in book:
            raise DataError(f"book has no {key}; expected ccxt's layout with bids and asks")
        rows = [(float(row[0]), float(row[1])) for row in book[key]]
        for price, size in rows:
            if not (math.isfinite(price) and price > 0.0 and math.isfinite(size) and size >= 0.0):
                raise DataError(f"book has a level of price {price} and size {size} among the {key}")
        for (near, _), (far, _) in pairwise(rows):
            if direction * (far - near) <= 0.0:
                raise DataError(f"book is not sorted: {near} before {far} among the {key}")
        sides[key] = [row for row in rows if row[1] > 0.0]
    if sides["bids"] and sides["asks"] and sides["bids"][0][0] >= sides["asks"][0][0]:
        raise DataError(f"book is crossed: best bid {sides['bids'][0][0]}, best ask {sides['asks'][0][0]}")
    return sides["asks" if sign > 0 else "bids"]


def _affordable(symbol: str, sign: float, price: Any, size: Any, fee: float, limits: VenueLimits, free: Mapping[str, float]) -> tuple[float, str]:
    """Largest quantity (base) the balance covers, and the asset that limits it."""
    pair, _, settle = symbol.partition(":")
    base, _, quote = pair.partition("/")
    if not quote:
        raise DataError(f"symbol {symbol!r} is not of the form BASE/QUOTE; balances cannot be checked")
    if limits.margin_rate is None and sign < 0:
        return max(0.0, float(free.get(base, 0.0))), base
    asset = settle or quote
    outlay = (1.0 if limits.margin_rate is None else limits.margin_rate) + max(fee, 0.0)
    return affordable_quantity(sign, price, size, 0, len(price), outlay, max(0.0, float(free.get(asset, 0.0)))), asset


def _notional_price(price: Any, size: Any, sign: float, amount: float) -> float:
    """Lowest limit price a leg of up to `amount` can get: what a minimum notional is judged at."""
    if sign > 0:
        return float(price[0])
    reached = int(np.searchsorted(np.cumsum(size), amount))
    return float(price[min(reached, len(price) - 1)])


def _floor_to(quantity: float, step: float) -> float:
    if step <= 0.0 or math.isinf(quantity):
        return quantity
    return _steps(math.floor(quantity / step + _STEP_TOL), step)


def _ceil_to(quantity: float, step: float) -> float:
    return quantity if step <= 0.0 else _steps(math.ceil(quantity / step - _STEP_TOL), step)


def _steps(count: int, step: float) -> float:
    # by decimal, so that three steps of 0.1 are 0.3
    return float(Decimal(repr(step)) * count)


def _books(quoted: Sequence[_VenueQuote], *, displayed_only: bool) -> Books:
    none = np.zeros(len(quoted))
    return Books(
        start=np.cumsum([0, *(len(q.price) for q in quoted)]).astype(np.int64),
        price=np.concatenate([q.price for q in quoted]),
        size=np.concatenate([q.size for q in quoted]),
        fee=none if displayed_only else np.array([q.fee for q in quoted]),
        penalty=none if displayed_only else np.array([q.penalty for q in quoted]),
        fixed=none if displayed_only else np.array([q.fixed for q in quoted]),
        lower=np.array([q.lower for q in quoted]),
        upper=np.array([q.upper for q in quoted]),
    )


def _plan(
    plan_id: int, symbol: str, side: OrderSide, strategy: Strategy, amount: float, quoted: Sequence[_VenueQuote], skipped: Sequence[SkippedVenue]
) -> RoutingPlan:
    if not quoted:
        return RoutingPlan(plan_id, symbol, side, strategy, amount, 0.0, amount, "no venue can take any of it", 0.0, (), tuple(skipped))
    sign = _SIGN[side]
    books = _books(quoted, displayed_only=False)
    work = new_work(books)
    if strategy == "split":
        quantities = _split_by_depth(amount, books)
    else:
        ranked = _books(quoted, displayed_only=strategy == "best_price")
        quantities = _cheapest(sign, amount, ranked, work)
    quantities = _whole_steps(sign, amount, books, quantities, quoted)
    _take(books, work, quantities)
    legs = tuple(_leg(quantities[v], quoted[v], work.taken[books.start[v] : books.start[v + 1]]) for v in range(len(quoted)) if quantities[v] > 0.0)
    planned = math.fsum(leg.amount for leg in legs)
    # Decimal of repr: 1.0 - 0.7 is 0.3 to whoever reads the plan
    unfilled = float(max(Decimal(0), Decimal(repr(amount)) - Decimal(repr(planned))))
    unfilled = unfilled if unfilled > amount * 1e-12 else 0.0
    used = {leg.venue for leg in legs}
    untouched = [
        SkippedVenue(q.name, f"dearer than the venues used, or below its smallest order of {q.lower:g}") for q in quoted if q.name not in used
    ]
    return RoutingPlan(
        plan_id,
        symbol,
        side,
        strategy,
        amount,
        planned,
        unfilled,
        _unfilled_reason(unfilled, quantities, quoted) if unfilled else "",
        total_cost(sign, books, work.taken),
        legs,
        (*skipped, *untouched),
    )


def _cheapest(sign: float, amount: float, books: Books, work: Work) -> list[float]:
    """Quantities per venue of the cheapest fill.

    One water-filling is the optimum unless a fixed cost or a violated minimum asks which venues to use at all.
    """
    everything = (1 << (len(books.start) - 1)) - 1
    water_fill(sign, amount, books._replace(lower=np.zeros_like(books.lower)), everything, work)
    if not books.fixed.any() and bool(np.all((work.used == 0.0) | (work.used >= books.lower * (1.0 - 1e-12)))):
        return [float(x) for x in work.used]
    allowed = best_subset(sign, amount, books, work)
    if allowed == 0 or water_fill(sign, amount, books, allowed, work) == INFEASIBLE:
        return [0.0] * (len(books.start) - 1)
    return [float(x) for x in work.used]


def _split_by_depth(amount: float, books: Books) -> list[float]:
    """In proportion to the depth shown, within the bounds; a venue whose share is below its minimum is dropped and the rest shared anew."""
    venues = len(books.start) - 1
    room = [min(float(books.size[books.start[v] : books.start[v + 1]].sum()), float(books.upper[v])) for v in range(venues)]
    open_ = [v for v in range(venues) if room[v] >= books.lower[v] and room[v] > 0.0]
    while open_:
        depth = math.fsum(room[v] for v in open_)
        share = {v: min(room[v], amount * room[v] / depth) for v in open_}
        small = [v for v in open_ if share[v] < books.lower[v] * (1.0 - 1e-12)]
        if not small:
            return [share.get(v, 0.0) for v in range(venues)]
        open_.remove(min(small, key=lambda v: share[v]))
    return [0.0] * venues


def _whole_steps(sign: float, amount: float, books: Books, quantities: Sequence[float], quoted: Sequence[_VenueQuote]) -> list[float]:
    """Quantities in whole steps; what rounding down freed goes, step by step, to the used venue with the cheapest next level."""
    steps = [float(q.step) for q in quoted]
    whole = [_floor_to(x, s) for x, s in zip(quantities, steps, strict=True)]
    shown = [float(books.size[books.start[v] : books.start[v + 1]].sum()) for v in range(len(quoted))]
    left = math.fsum(quantities) - math.fsum(whole)
    while left > 0.0:
        best, best_cost = -1, math.inf
        for v, step in enumerate(steps):
            grown = whole[v] + step
            if whole[v] > 0.0 and 0.0 < step <= left * (1.0 + _STEP_TOL) and grown <= min(shown[v], books.upper[v]) * (1.0 + 1e-12):
                at = int(np.searchsorted(np.cumsum(books.size[books.start[v] : books.start[v + 1]]), grown * (1.0 - 1e-12)))
                price = float(books.price[books.start[v] + at])
                cost = sign * price + price * float(books.fee[v]) + float(books.penalty[v])
                if cost < best_cost:
                    best, best_cost = v, cost
        if best < 0:
            break
        whole[best] = _floor_to(whole[best] + steps[best], steps[best])
        left = math.fsum(quantities) - math.fsum(whole)
    return whole


def _take(books: Books, work: Work, quantities: Sequence[float]) -> None:
    work.taken[:] = 0.0
    for v, quantity in enumerate(quantities):
        work.cursor[v] = books.start[v]
        work.level_taken[v] = 0.0
        work.used[v] = 0.0
        take_from_venue(books, work, v, quantity)


def _leg(amount: float, quote: _VenueQuote, taken: np.typing.NDArray[np.float64]) -> RouteLeg:
    touched = np.flatnonzero(taken > 0.0)
    notional = math.fsum(float(q) * float(p) for q, p in zip(taken, quote.price, strict=True))
    return RouteLeg(
        venue=quote.name,
        amount=amount,
        limit_price=float(quote.price[touched[-1]]),
        average_price=notional / amount,
        fee_frac=quote.fee,
        fee_quote=notional * quote.fee,
        penalty_quote=amount * quote.penalty,
        fixed_quote=quote.fixed,
        levels=len(touched),
    )


def _unfilled_reason(unfilled: float, quantities: Sequence[float], quoted: Sequence[_VenueQuote]) -> str:
    """Per venue, what stopped it."""
    words = []
    for quantity, quote in zip(quantities, quoted, strict=True):
        shown = float(quote.size.sum())
        if quantity >= shown * (1.0 - 1e-9):
            words.append(f"{quote.name} shows {shown:g}")
        elif quantity + max(float(quote.step), unfilled * 1e-9) > quote.upper:
            words.append(f"{quote.name}: {quote.capped_by} covers {quote.upper:g}")
        elif unfilled < float(quote.step):
            words.append(f"{quote.name} takes steps of {quote.step}")
        else:
            words.append(f"{quote.name} takes no less than {quote.lower:g}")
    return "; ".join(words)


def _send(port: VenuePort, symbol: str, side: str, leg: RouteLeg, order_type: str, client_id: str) -> LegResult:
    price = None if order_type == "market" else leg.limit_price
    try:
        order = port.place_order(symbol, side, leg.amount, price, order_type, client_id)
    except (VenueRejected, ConfigError, DataError) as err:
        # the last two: refused on our side of the wire, nothing was sent
        return LegResult(leg.venue, client_id, "rejected", leg.amount, 0.0, None, None, str(err))
    except VenueError as err:
        # whatever went wrong on the way, a write may have arrived
        return LegResult(leg.venue, client_id, "unknown", leg.amount, None, None, None, f"{err}; look up {client_id} at {leg.venue} before acting")
    order_id = order.get("id")
    if not order_id:
        return LegResult(
            leg.venue, client_id, "unknown", leg.amount, None, None, None, f"answer without an order id; look up {client_id} at {leg.venue}"
        )
    filled = None if order.get("filled") is None else float(order["filled"])
    average = None if order.get("average") is None else float(order["average"])
    status, reason = _leg_status(leg.amount, filled, order.get("status"))
    return LegResult(leg.venue, client_id, status, leg.amount, filled, average, str(order_id), reason)


def _leg_status(amount: float, filled: float | None, stated: object) -> tuple[LegStatus, str]:
    if filled is not None and filled >= amount * (1.0 - 1e-9):
        return "filled", ""
    if stated == "rejected":
        return "rejected", "the venue took the order and rejected it"
    if stated in ("canceled", "cancelled", "expired", "closed") and filled is not None:
        return "partial", f"{filled:g} of {amount:g} filled, the rest is gone ({stated})"
    if stated in ("open", None) and filled is not None:
        return "open", f"{filled:g} of {amount:g} filled, the rest is in the book"
    return "open", f"the venue says {stated!r} and not how much was filled"
