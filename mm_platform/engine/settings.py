"""What an engine is told once, before its first event: instrument, ids, decision step, limits. All of it stands in the journal's header.

Belongs here: the frozen, serialisable settings, and the mapping of a parameter set under these limits to what a decision needs; backtests
of a parameter set use the same mapping. Does not belong here: parameters (they come as `ParametersChanged`), anything that changes.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.parameters import ParameterSet
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.from_parameters import hedge_params, quote_params
from mm_platform.kernels.hedging import BLIND_NAMES, LOT_TOLERANCE, NO_HEDGE_VENUE, HedgeVenue
from mm_platform.kernels.money import base_per_lot, notional_quote
from mm_platform.kernels.orders import OrderPolicy
from mm_platform.kernels.risk import RiskParams
from mm_platform.kernels.signals import SignalParams

MAX_CLIENT_ID: Final = 36
# the budget of new orders is stated per window; half may go at once, half flows in evenly, so no window sees more than the whole
ORDER_WINDOW_S: Final = 10.0


class EngineLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The runner's own limits as the decision step needs them; None = off. They never come from a parameter set.

    Parameters
    ----------
    max_order_notional, max_position_notional : float
        Quote, at the parameter set's `inventory_unit_price`.
    stop_loss_frac : float or None
        Adverse move of the mid against the average entry price that flattens.
    position_timeout_s : float or None
        Longest time without passing through flat, s.
    cooldown_s : float
        No quotes for this long after a stop-loss or timeout, s.
    volatility_pull : float or None
        Quotes are pulled while short-horizon volatility exceeds this multiple of the fitted sigma.
    toxicity_pull : float or None
        A side is pulled while |order flow imbalance| against it reaches this, in (0, 1].
    max_loss_quote : float or None
        Loss since the start of the run that halts for good, quote.
    backoff_s : float
        Wait on a side after a rejected order, s.
    max_orders_per_10s : int
        Budget of new orders in any window of 10 s; cancels are free, flattening is never held back.
    slippage_frac : float
        How far beyond the touch a taker may go, fraction of the price.
    max_book_age_s : float or None
        Quotes are pulled when no market data arrived for this long, s.
    """

    max_order_notional: float
    max_position_notional: float
    stop_loss_frac: float | None = None
    position_timeout_s: float | None = None
    cooldown_s: float = 0.0
    volatility_pull: float | None = None
    toxicity_pull: float | None = None
    max_loss_quote: float | None = None
    backoff_s: float = 1.0
    max_orders_per_10s: int = 100
    slippage_frac: float = 0.001
    max_book_age_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_order_notional", "max_position_notional", "slippage_frac"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"limit {name} is {value}, expected a finite number above 0")
        for name in ("stop_loss_frac", "position_timeout_s", "volatility_pull", "toxicity_pull", "max_loss_quote", "max_book_age_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"limit {name} is {value}, expected a finite number above 0, or none to switch it off")
        for name in ("cooldown_s", "backoff_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"limit {name} is {value} s, expected a finite number >= 0")
        if self.max_orders_per_10s < 2:
            raise ConfigError(f"limit max_orders_per_10s is {self.max_orders_per_10s}, expected at least 2 (one quote a side)")


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of one strategy on one instrument.

    Parameters
    ----------
    spec : InstrumentSpec
        Facts of the instrument, its fees included.
    strategy, run_id : str
        Parts of every client id `<strategy>-<run_id>-<number>`; letters, digits and underscores.
    start_ns : int
        Time of the first decision, ns; also where a fixed horizon starts to run down.
    step_ns : int
        Spacing of decisions, ns.
    limits : EngineLimits
        The runner's own.
    signals : SignalParams
        Time constants of the signals.
    """

    spec: InstrumentSpec
    strategy: str
    run_id: str
    start_ns: int
    step_ns: int
    limits: EngineLimits
    signals: SignalParams

    def __post_init__(self) -> None:
        for name in ("strategy", "run_id"):
            text = getattr(self, name)
            if not text or not text.replace("_", "").isalnum() or not text.isascii():
                raise ConfigError(f"{name} {text!r} must be letters, digits and underscores: it is part of every client id")
        if len(self.client_id(10**9)) > MAX_CLIENT_ID:
            raise ConfigError(f"strategy {self.strategy!r} and run id {self.run_id!r} leave no room for order numbers in {MAX_CLIENT_ID} characters")
        if self.step_ns <= 0:
            raise ConfigError(f"decision step is {self.step_ns} ns, expected above 0")

    def client_id(self, number: int) -> str:
        """The client id of an order number of this run."""
        return f"{self.strategy}-{self.run_id}-{number}"

    def order_number(self, client_id: str) -> int:
        """The number behind a client id of this run, or -1 for a foreign one."""
        prefix = f"{self.strategy}-{self.run_id}-"
        number = client_id[len(prefix) :]
        return int(number) if client_id.startswith(prefix) and number.isascii() and number.isdigit() else -1


def risk_params(pset: ParameterSet, spec: InstrumentSpec, limits: EngineLimits) -> RiskParams:
    """The limits in the units of the risk step; notionals become lots at the set's own price, so no price move changes them silently."""
    lot_notional = _lot_notional(pset, spec)
    return RiskParams(
        max_order_lots=int(limits.max_order_notional / lot_notional + LOT_TOLERANCE),
        max_position_lots=int(limits.max_position_notional / lot_notional + LOT_TOLERANCE),
        stop_loss_frac=_or_inf(limits.stop_loss_frac),
        position_timeout_ns=0 if limits.position_timeout_s is None else round(limits.position_timeout_s * NS_PER_S),
        cooldown_ns=round(limits.cooldown_s * NS_PER_S),
        volatility_pull=_or_inf(limits.volatility_pull),
        toxicity_pull=_or_inf(limits.toxicity_pull),
        max_loss_quote=_or_inf(limits.max_loss_quote),
    )


def order_policy(pset: ParameterSet, spec: InstrumentSpec, limits: EngineLimits) -> OrderPolicy:
    """How quotes and takers are sent: sizes and refresh from the set, budget, back-off and slippage from the limits."""
    return OrderPolicy(
        order_lots=_order_lots(pset, spec),
        refresh_ns=round(pset.number("quote_refresh_s") * NS_PER_S),
        tolerance_ticks=int(pset.number("refresh_tolerance")),
        backoff_ns=round(limits.backoff_s * NS_PER_S),
        orders_per_s=0.5 * limits.max_orders_per_10s / ORDER_WINDOW_S,
        burst=float(limits.max_orders_per_10s // 2),
        hedge_interval_ns=round(pset.number("hedge_interval_s") * NS_PER_S),
        slippage_ticks=_slippage_ticks(pset, spec, limits),
        min_lots=_min_lots(pset, spec),
    )


def hedge_venue_params(pset: ParameterSet, spec: InstrumentSpec, limits: EngineLimits, *, blind: str = "within_threshold") -> HedgeVenue:
    """A second venue where the inventory of a parameter set is hedged.

    Parameters
    ----------
    pset : ParameterSet
        Gives the price at which notionals become lots, and the hedge interval.
    spec : InstrumentSpec
        Facts of the instrument that hedges; its own venue, lot, tick, smallest notional and fees.
    limits : EngineLimits
        The runner's limits there: order and position notional, slippage. The others are the quote venue's business.
    blind : {"pull", "within_threshold", "keep"}
        What quotes do while the hedge venue's market is not known, see `kernels.hedging.HedgeVenue`.

    Raises
    ------
    ConfigError
        An unknown name, or limits that do not allow the smallest order there.
    """
    if blind not in BLIND_NAMES:
        raise ConfigError(f"what quotes do without the hedge venue's market is {blind!r}, expected one of {', '.join(BLIND_NAMES)}")
    lot_notional = _lot_notional(pset, spec)
    venue = HedgeVenue(
        present=1,
        money=money_of(spec),
        min_lots=1,
        min_notional=float(spec.min_notional),
        max_order_lots=int(limits.max_order_notional / lot_notional + LOT_TOLERANCE),
        max_position_lots=int(limits.max_position_notional / lot_notional + LOT_TOLERANCE),
        slippage_ticks=_slippage_ticks(pset, spec, limits),
        interval_ns=round(pset.number("hedge_interval_s") * NS_PER_S),
        blind=BLIND_NAMES[blind],
    )
    smallest = _min_lots(pset, spec)
    if min(venue.max_order_lots, venue.max_position_lots) < smallest:
        raise ConfigError(
            f"{spec.instrument}: the limits (order {limits.max_order_notional:g}, position {limits.max_position_notional:g} quote) do not allow the "
            f"smallest hedge, {smallest} lots of {spec.lot_size} at {pset.number('inventory_unit_price'):g}"
        )
    return venue


def _lot_notional(pset: ParameterSet, spec: InstrumentSpec) -> float:
    return notional_quote(money_of(spec), 1, pset.number("inventory_unit_price"))


def _order_lots(pset: ParameterSet, spec: InstrumentSpec) -> int:
    """`order_size` in whole lots, at the set's own price where a lot is worth quote."""
    lots = pset.number("order_size") / base_per_lot(money_of(spec), pset.number("inventory_unit_price"))
    nearest = round(lots)
    return nearest if abs(lots - nearest) < 1e-6 else int(lots)


def _min_lots(pset: ParameterSet, spec: InstrumentSpec) -> int:
    return max(1, math.ceil(spec.min_notional / _lot_notional(pset, spec) - LOT_TOLERANCE))


def _slippage_ticks(pset: ParameterSet, spec: InstrumentSpec, limits: EngineLimits) -> int:
    return max(1, round(limits.slippage_frac * (pset.number("inventory_unit_price") / float(spec.tick))))


def decision_params(pset: ParameterSet, spec: InstrumentSpec, limits: EngineLimits, hedge_venue: HedgeVenue = NO_HEDGE_VENUE) -> DecisionParams:
    """Everything a decision needs: a parameter set under the runner's limits.

    Parameters
    ----------
    pset : ParameterSet
        Validated; of the same instrument as `spec`.
    spec : InstrumentSpec
        Facts of the instrument.
    limits : EngineLimits
        The runner's own.
    hedge_venue : HedgeVenue
        From `hedge_venue_params`; none: hedges cross on the venue that is quoted.

    Raises
    ------
    ConfigError
        The set is of another instrument, or its order size or the limits do not make one lot.
    """
    if InstrumentId.parse(pset.instrument) != spec.id:
        raise ConfigError(f"parameters are for {pset.instrument}, the engine trades {spec.instrument}")
    params = DecisionParams(
        quote=quote_params(pset, spec, spec.maker_fee),
        hedge=hedge_params(pset),
        risk=risk_params(pset, spec, limits),
        orders=order_policy(pset, spec, limits),
        money=money_of(spec),
        hedge_venue=hedge_venue,
    )
    if params.orders.order_lots < params.orders.min_lots:
        raise ConfigError(
            f"{spec.instrument}: order_size {pset.number('order_size')} base is less than the venue takes: at least {params.orders.min_lots} lots of {spec.lot_size}"
        )
    if params.orders.order_lots < 1:
        raise ConfigError(f"{spec.instrument}: order_size {pset.number('order_size')} base is less than one lot of {spec.lot_size}")
    if params.risk.max_order_lots < 1 or params.risk.max_position_lots < 1:
        raise ConfigError(
            f"{spec.instrument}: the limits (order {limits.max_order_notional:g}, position {limits.max_position_notional:g} quote) do not allow one lot "
            f"at {pset.number('inventory_unit_price'):g}"
        )
    return params


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
