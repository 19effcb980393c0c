"""Parameter sets for tests of the engine and the runner."""

from __future__ import annotations

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet, Value, amount, validate


def parameter_set(
    spec: InstrumentSpec,
    price: float,
    *,
    risk_aversion: float = 0.1,
    k: float = 20_000.0,
    sigma: float = 0.5,
    order_notional: float = 1_000.0,
    max_inventory_notional: float = 5_000.0,
    hedge_threshold_notional: float | None = None,
    min_spread: float = 0.0,
    refresh_s: float = 1.0,
    fitted_through_ns: int = 0,
    valid_from_ns: int = 0,
    code_version: str = "test",
) -> ParameterSet:
    """A valid set that quotes a few basis points around the mid; amounts in quote at `price`."""

    def lots(notional: float) -> float:
        return spec.lots_to_base(spec.base_to_lots(notional / price))

    values = {
        "risk_aversion": Value(risk_aversion, "1", source="sweep"),
        "inventory_unit_notional": Value(order_notional, "quote"),
        "inventory_unit_price": Value(price, "quote/base"),
        "inventory_unit_fixed_at": Value(0, "ns"),
        "terminal_time": Value(1 / 365, "year"),
        "horizon": Value("rolling", "name"),
        "sigma": Value(sigma, "1/sqrt(year)", 0.01, "fit"),
        "A_bid": Value(0.5, "1/s", 0.01, "fit"),
        "A_ask": Value(0.5, "1/s", 0.01, "fit"),
        "k_bid": Value(k, "1/relative", 10.0, "fit"),
        "k_ask": Value(k, "1/relative", 10.0, "fit"),
        "levels": Value(1, "1"),
        "min_spread": Value(min_spread, "relative"),
        "max_spread": Value(0.01, "relative"),
        "hedge_ratio": Value(0.8, "1"),
        "max_hedge_latency": Value(10.0, "s"),
        "quote_refresh_s": Value(refresh_s, "s"),
        "refresh_tolerance": Value(0, "tick"),
        "hedge_interval_s": Value(1.0, "s"),
        "order_size": amount(lots(order_notional), price),
        "target_inventory": amount(0.0, price),
        "max_inventory": amount(lots(max_inventory_notional), price),
        "hedge_threshold": amount(None if hedge_threshold_notional is None else lots(hedge_threshold_notional), price, "sweep"),
        "min_hedge_size": amount(spec.lot_base, price),
    }
    pset = ParameterSet(
        instrument=spec.instrument,
        model="avellaneda_stoikov",
        valid_from_ns=valid_from_ns,
        fitted_through_ns=fitted_through_ns,
        code_version=code_version,
        dataset_sha256="0" * 64,
        values=values,
    )
    validate(pset)
    return pset
