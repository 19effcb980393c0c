"""From fits and a chosen point to a parameter set. The one place where a calibration's numbers are given their names and units."""

from __future__ import annotations

import math
from typing import Final

from mm_platform.calibration.fit import Fit
from mm_platform.calibration.fit_set import FitSet
from mm_platform.config import Settings
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet, Value, amount, validate
from mm_platform.core.units import BPS
from mm_platform.workflow.code_version import code_version

SPREAD_MARGIN: Final = 0.5 * BPS


def least_spread(settings: Settings, spec: InstrumentSpec) -> float:
    """The smallest spread quoted, relative: as set, else what a round trip costs in maker fees plus a margin."""
    stated = settings.strategy.min_spread
    return stated if stated is not None else 2.0 * max(spec.maker_fee, 0.0) + SPREAD_MARGIN


def parameter_set(
    settings: Settings,
    spec: InstrumentSpec,
    fits: FitSet,
    *,
    risk_aversion: float,
    hedge_threshold_units: float | None,
    price: float,
    dataset_sha256: str,
    valid_from_ns: int,
) -> ParameterSet:
    """A complete, validated set.

    Parameters
    ----------
    fits
        Accepted fits of sigma, A and k.
    risk_aversion : float
        Dimensionless, per inventory unit.
    hedge_threshold_units : float or None
        In inventory units; None = never hedge.
    price : float
        At which amounts in base are fixed, quote per base.
    valid_from_ns : int
        When it comes into force.

    Raises
    ------
    ConfigError
        A value outside its range, or an order size below one lot.
    """
    s = settings.strategy
    unit_base = s.inventory_unit_notional / price
    order_lots = max(spec.base_to_lots(s.order_size_notional / price), 0)
    order_base = spec.lots_to_base(order_lots)

    def fitted(name: str, unit: str) -> Value:
        fit: Fit = getattr(fits, name)
        return Value(fit.value, unit, fit.stderr if math.isfinite(fit.stderr) else None, "fit")

    pset = ParameterSet(
        instrument=spec.instrument,
        model="avellaneda_stoikov",
        valid_from_ns=valid_from_ns,
        fitted_through_ns=fits.fitted_through_ns,
        code_version=code_version(),
        dataset_sha256=dataset_sha256,
        values={
            "risk_aversion": Value(risk_aversion, "1", None, "sweep"),
            "inventory_unit_notional": Value(s.inventory_unit_notional, "quote"),
            "inventory_unit_price": Value(price, "quote/base"),
            "inventory_unit_fixed_at": Value(fits.fitted_through_ns, "ns"),
            "terminal_time": Value(s.terminal_time, "year"),
            "horizon": Value(s.horizon, "name"),
            "sigma": fitted("sigma", "1/sqrt(year)"),
            "A_bid": fitted("A_bid", "1/s"),
            "A_ask": fitted("A_ask", "1/s"),
            "k_bid": fitted("k_bid", "1/relative"),
            "k_ask": fitted("k_ask", "1/relative"),
            "order_size": amount(order_base, price),
            "levels": Value(s.levels, "1"),
            "min_spread": Value(least_spread(settings, spec), "relative"),
            "max_spread": Value(s.max_spread, "relative"),
            "target_inventory": amount(0.0, price),
            "max_inventory": amount(s.max_inventory_units * unit_base, price),
            "hedge_threshold": amount(None if hedge_threshold_units is None else hedge_threshold_units * unit_base, price, "sweep"),
            "min_hedge_size": amount(max(s.min_hedge_size_notional / price, spec.lot_base), price),
            "hedge_ratio": Value(s.hedge_ratio, "1"),
            "max_hedge_latency": Value(s.max_hedge_latency_s, "s"),
            "quote_refresh_s": Value(s.quote_refresh_s, "s"),
            "refresh_tolerance": Value(s.refresh_tolerance_ticks, "tick"),
            "hedge_interval_s": Value(s.hedge_interval_s, "s"),
        },
    )
    validate(pset)
    return pset
