"""A published parameter set as something that answers: market state in, quote out.

Belongs here: loading by alias and the thin call into the quoting kernel. Does not belong here: formulas (`kernels.quoting`), the
runner's own loading with its limits and its last good set (`live`). Built from the JSON; no pickle, no MLflow package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.parameters import ParameterSet
from mm_platform.core.ports import ParameterSource
from mm_platform.kernels.from_parameters import quote_params
from mm_platform.kernels.quoting import OK, STATUS_NAMES, Market, Quote, quote_step
from mm_platform.registry.signing import load_public_key
from mm_platform.registry.source import DEFAULT_REGISTRY_URI, checked_parameters, open_source, verify_published


@dataclass(frozen=True, slots=True)
class MarketState:
    """What a quote depends on.

    Parameters
    ----------
    mid : float
        Quote per base.
    maker_fee : float
        The account's fee, fraction of notional, negative = rebate. It has no default: it is a fact of the account, not of the model.
    inventory_base : float
        Signed inventory, base.
    microprice : float
        Quote per base; nan: use the mid.
    order_flow_imbalance : float
        In [-1, 1]; nan: unknown.
    kyle_lambda : float
        Quote/base per base; nan: unknown.
    short_volatility : float
        Relative per sqrt(year); nan: unknown.
    elapsed_years : float
        Since the start; acts under a fixed horizon only.
    """

    mid: float
    maker_fee: float
    inventory_base: float = 0.0
    microprice: float = math.nan
    order_flow_imbalance: float = math.nan
    kyle_lambda: float = math.nan
    short_volatility: float = math.nan
    elapsed_years: float = 0.0


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A parameter set of the registry, with its name and version."""

    model_name: str
    version: str
    alias: str
    approved: bool
    parameters: ParameterSet

    def predict(self, market_state: MarketState) -> Quote:
        """The quote of the shared quoting step, before post-only and rounding to ticks.

        Raises
        ------
        DataError
            The market state cannot be quoted on (mid not positive, inventory not finite, ...).
        """
        market = Market(
            market_state.mid,
            market_state.microprice,
            market_state.order_flow_imbalance,
            market_state.kyle_lambda,
            market_state.short_volatility,
            market_state.elapsed_years,
        )
        quote = quote_step(quote_params(self.parameters, maker_fee=market_state.maker_fee), market, market_state.inventory_base)
        if quote.status != OK:
            raise DataError(f"{self.model_name} version {self.version} cannot quote: {STATUS_NAMES[quote.status]}; market state {market_state}")
        return quote


def load(
    instrument: InstrumentId | str,
    alias: str = "champion",
    *,
    registry_uri: str = DEFAULT_REGISTRY_URI,
    source: ParameterSource | None = None,
    public_key: Path | None = None,
    timeout_s: float = 5.0,
) -> PublishedModel:
    """Load the parameters under an alias.

    Parameters
    ----------
    instrument : InstrumentId or str
        Whose model.
    alias : str
        "champion", "challenger" or "previous".
    registry_uri : str
        `sqlite:///…` or `http(s)://…`; default the database of the default state folder below the working directory.
    source : ParameterSource, optional
        Where to read instead of `registry_uri`.
    public_key : Path, optional
        With it, a set that no holder of the private key approved is refused. Without it the hash alone is checked and `approved` is
        False: good for analysis, not for trading.
    timeout_s : float
        Limit of the read, s.

    Returns
    -------
    PublishedModel

    Raises
    ------
    RegistryError
        No such model or alias, altered, or not approved by this key.
    ConnectivityError
        The registry is away.
    """
    iid = InstrumentId.parse(instrument) if isinstance(instrument, str) else instrument
    published = (source or open_source(registry_uri, timeout_s=timeout_s)).fetch(iid.model_name, alias)
    if public_key is None:
        return PublishedModel(published.model_name, published.version, alias, False, checked_parameters(published))
    parameters = verify_published(published, load_public_key(public_key), iid.model_name)
    return PublishedModel(published.model_name, published.version, alias, True, parameters)
