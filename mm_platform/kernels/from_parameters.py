"""The one mapping from a parameter set to the kernels' parameters, shared by replay, engine and registry.

Belongs here: names and units of a set onto `QuoteParams` and `HedgeParams`. Does not belong here: the runner's limits (`kernels.risk`),
order policy (`kernels.orders`): a parameter set never carries those.
"""

from __future__ import annotations

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet
from mm_platform.kernels.hedging import HedgeParams
from mm_platform.kernels.quoting import HORIZONS, QuoteParams


def quote_params(pset: ParameterSet, spec: InstrumentSpec | None = None, maker_fee: float | None = None) -> QuoteParams:
    """Parameters of the quoting step.

    Parameters
    ----------
    pset : ParameterSet
        A validated set.
    spec : InstrumentSpec, optional
        Facts of the same instrument; gives the maker fee unless one is named.
    maker_fee : float, optional
        Fraction of notional, negative = rebate: the account's own tier where it differs from the instrument's facts.

    Returns
    -------
    QuoteParams
        Amounts in base; every number of the kind the compiled kernels expect.

    Raises
    ------
    ConfigError
        Facts of another instrument, or no fee from either side: a quote that ignores fees pays them.
    """
    if spec is not None and spec.instrument != pset.instrument:
        raise ConfigError(f"parameters are for {pset.instrument}, the instrument's facts for {spec.instrument}")
    if maker_fee is None:
        if spec is None:
            raise ConfigError(f"quoting {pset.instrument} needs the maker fee: give the instrument's facts or the fee itself")
        maker_fee = spec.maker_fee
    inventory_unit = pset.number("inventory_unit_notional") / pset.number("inventory_unit_price")
    return QuoteParams(
        gamma=pset.number("risk_aversion"),
        sigma=pset.number("sigma"),
        tau_years=pset.number("terminal_time"),
        horizon=HORIZONS[pset.horizon],
        A_bid=pset.number("A_bid"),
        A_ask=pset.number("A_ask"),
        k_bid=pset.number("k_bid"),
        k_ask=pset.number("k_ask"),
        inventory_unit=inventory_unit,
        target_inventory=pset.number("target_inventory"),
        max_inventory=pset.number("max_inventory"),
        order_units=pset.number("order_size") / inventory_unit,
        min_spread=pset.number("min_spread"),
        max_spread=pset.number("max_spread"),
        maker_fee=float(maker_fee),
        adverse_selection=_fitted(pset, "adverse_selection"),
        coef_ofi=_fitted(pset, "coef_ofi"),
        coef_kyle=_fitted(pset, "coef_kyle"),
        coef_short_volatility=_fitted(pset, "coef_short_volatility"),
    )


def hedge_params(pset: ParameterSet) -> HedgeParams:
    """Parameters of the hedging step, amounts in base; "never" becomes an infinite threshold."""
    return HedgeParams(
        threshold=pset.hedge_threshold_base,
        target=pset.number("target_inventory"),
        ratio=pset.number("hedge_ratio"),
        min_size=pset.number("min_hedge_size"),
        max_latency_s=pset.number("max_hedge_latency"),
        to_boundary=0,
    )


def _fitted(pset: ParameterSet, name: str) -> float:
    """A coefficient that acts only once it has been fitted."""
    return pset.number(name) if name in pset.values else 0.0
