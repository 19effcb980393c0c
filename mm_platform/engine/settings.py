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
from mm_platform.core.parameters import ParameterSet, amount_lots
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.from_parameters import hedge_params, quote_params
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
    lot_notional = spec.lot_base * pset.number("inventory_unit_price")
    return RiskParams(
        max_order_lots=int(limits.max_order_notional / lot_notional + 1e-9),
        max_position_lots=int(limits.max_position_notional / lot_notional + 1e-9),
        stop_loss_frac=_or_inf(limits.stop_loss_frac),
        position_timeout_ns=0 if limits.position_timeout_s is None else round(limits.position_timeout_s * NS_PER_S),
        cooldown_ns=round(limits.cooldown_s * NS_PER_S),
        volatility_pull=_or_inf(limits.volatility_pull),
        toxicity_pull=_or_inf(limits.toxicity_pull),
        max_loss_quote=_or_inf(limits.max_loss_quote),
    )


def order_policy(pset: ParameterSet, spec: InstrumentSpec, limits: EngineLimits) -> OrderPolicy:
    """How quotes and takers are sent: sizes and refresh from the set, budget, back-off and slippage from the limits."""
    price_ticks = pset.number("inventory_unit_price") / float(spec.tick)
    return OrderPolicy(
        order_lots=amount_lots(pset, "order_size", spec),
        refresh_ns=round(pset.number("quote_refresh_s") * NS_PER_S),
        tolerance_ticks=int(pset.number("refresh_tolerance")),
        backoff_ns=round(limits.backoff_s * NS_PER_S),
        orders_per_s=0.5 * limits.max_orders_per_10s / ORDER_WINDOW_S,
        burst=float(limits.max_orders_per_10s // 2),
        hedge_interval_ns=round(pset.number("hedge_interval_s") * NS_PER_S),
        slippage_ticks=max(1, round(limits.slippage_frac * price_ticks)),
        min_lots=max(1, math.ceil(spec.min_notional / (spec.lot_base * pset.number("inventory_unit_price")) - 1e-9)),
    )


def decision_params(pset: ParameterSet, spec: InstrumentSpec, limits: EngineLimits) -> DecisionParams:
    """Everything a decision needs: a parameter set under the runner's limits.

    Parameters
    ----------
    pset : ParameterSet
        Validated; of the same instrument as `spec`.
    spec : InstrumentSpec
        Facts of the instrument.
    limits : EngineLimits
        The runner's own.

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
