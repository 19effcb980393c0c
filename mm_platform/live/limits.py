"""The runner's own limits: they live beside the runner, and no parameter set can change them.

Belongs here: the limits, and whether a parameter set may quote under them. Does not belong here: limits on single orders
(`live.order_gate`), what the decision step does with them (`kernels.risk`).
"""

from __future__ import annotations

import math

import msgspec

from mm_platform.core.approval import bound_violations
from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet
from mm_platform.core.units import NS_PER_S, iso_utc
from mm_platform.engine.settings import EngineLimits, decision_params


class RunnerLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a runner allows.

    Parameters
    ----------
    engine : EngineLimits
        Sizes, stop-loss, timeouts, order rate, maximum loss.
    parameter_bounds : dict of str to (low, high)
        Inclusive bounds per parameter, in the parameter's unit; a bound on an absent optional parameter judges it as 0.
    max_parameter_age_s : float
        Longest time between a set's last fitted data and now, s.
    price_band_frac : float
        Farthest an order's price may lie from the mid, fraction of the mid.
    max_price_drift_frac : float
        Farthest the mid may lie from the price at which the set's amounts were fixed before no new risk is taken, fraction.
    allow_seen : bool
        Whether a set may run on a market that its fit has seen. For recorded markets only: such a run shows that everything works, its
        profit proves nothing.
    """

    engine: EngineLimits
    parameter_bounds: dict[str, tuple[float, float]] = {}
    max_parameter_age_s: float = 7 * 86_400.0
    price_band_frac: float = 0.02
    max_price_drift_frac: float = 0.3
    allow_seen: bool = False

    def __post_init__(self) -> None:
        for name in ("max_parameter_age_s", "price_band_frac", "max_price_drift_frac"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"limit {name} is {value}, expected a finite number above 0")
        for name, (low, high) in self.parameter_bounds.items():
            if math.isnan(low) or math.isnan(high) or low > high:
                raise ConfigError(f"bound on {name} is [{low}, {high}], expected low <= high")


def age_s(pset: ParameterSet, now_ns: int) -> float:
    """Seconds since the last data the set was fitted on."""
    return (now_ns - pset.fitted_through_ns) / NS_PER_S


def refusal(pset: ParameterSet, spec: InstrumentSpec, limits: RunnerLimits, now_ns: int) -> str:
    """Why this set may not quote now; empty when it may."""
    if pset.instrument != spec.instrument:
        return f"the set is for {pset.instrument}, this runner trades {spec.instrument}"
    if pset.valid_from_ns > now_ns and not limits.allow_seen:
        return f"the set is valid from {iso_utc(pset.valid_from_ns)}, it is {iso_utc(now_ns)}"
    if pset.fitted_through_ns > now_ns and not limits.allow_seen:
        return f"the set was fitted on data through {iso_utc(pset.fitted_through_ns)}, which lies after now ({iso_utc(now_ns)})"
    age = age_s(pset, now_ns)
    if age > limits.max_parameter_age_s:
        return f"the set was fitted through {iso_utc(pset.fitted_through_ns)}, {age:.0f} s ago; allowed are {limits.max_parameter_age_s:.0f} s"
    outside = bound_violations(pset, limits.parameter_bounds)
    if outside:
        return "; ".join(outside)
    price = pset.number("inventory_unit_price")
    for name, most in (("order_size", limits.engine.max_order_notional), ("max_inventory", limits.engine.max_position_notional)):
        notional = pset.number(name) * price
        if notional > most * (1 + 1e-9):
            return f"{name} is {notional:g} quote, allowed are {most:g}"
    pays = 2.0 * spec.maker_fee
    if pset.number("min_spread") < pays * (1 - 1e-9):
        return f"min_spread {pset.number('min_spread'):g} is less than two maker fees ({pays:g}): a round trip at that spread cannot pay for itself"
    try:
        decision_params(pset, spec, limits.engine)
    except ConfigError as err:
        return str(err)
    return ""
