"""`registry.load(...).predict(...)` and the one mapping from a parameter set to the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_platform import registry
from mm_platform.config import Settings
from mm_platform.core.errors import ConfigError, DataError, RegistryError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import Value, amount
from mm_platform.kernels.from_parameters import hedge_params, quote_params
from mm_platform.kernels.quoting import RELAXATION, ROLLING, Market, quote_step
from mm_platform.registry.mlflow_store import MlflowStore
from mm_platform.registry.publish import publish
from mm_platform.registry.signing import keys_dir
from mm_platform.registry.source import DEFAULT_REGISTRY_URI

from .conftest import PERP, candidate, parameter_set

SPEC = InstrumentSpec(instrument=str(PERP), tick_size="0.1", lot_size="0.001", contract="linear", maker_fee=0.0002, taker_fee=0.0005)


def test_a_published_model_quotes_as_the_kernel_does(store: MlflowStore, promoted: Callable[..., Any], state_dir: Path) -> None:
    promoted(0.1)
    model = registry.load(str(PERP), registry_uri=store.registry_uri, public_key=keys_dir(state_dir) / "signing.pub")
    assert (model.version, model.alias, model.approved) == ("1", "champion", True)
    state = registry.MarketState(mid=50_000.0, maker_fee=0.0002, inventory_base=0.03, microprice=50_001.0)
    quote = model.predict(state)
    market = Market(50_000.0, 50_001.0, math.nan, math.nan, math.nan, 0.0)
    assert quote == quote_step(quote_params(parameter_set(0.1), SPEC), market, 0.03)
    # THEORY 0.1: q = 3 units of 500 quote, gamma 0.1, sigma 0.5, one day: the shift is -2.054794521 bp of the fair price
    assert (quote.reservation - quote.fair) / quote.fair == pytest.approx(-2.054794521e-4, abs=1e-13)
    assert quote.bid < quote.reservation < quote.ask


def test_the_default_address_is_the_settings_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings().registry_uri == DEFAULT_REGISTRY_URI
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match=r"no registry at \.mm/mlflow\.db"):
        registry.load(PERP, "champion")


def test_without_a_key_a_challenger_can_be_looked_at_but_is_not_approved(store: MlflowStore, state_dir: Path, promoted: Callable[..., Any]) -> None:
    promoted(0.1)
    publish(store, candidate(0.2))
    model = registry.load(PERP, "challenger", registry_uri=store.registry_uri)
    assert not model.approved
    assert model.parameters.number("risk_aversion") == 0.2
    with pytest.raises(RegistryError, match="not signed"):
        registry.load(PERP, "challenger", registry_uri=store.registry_uri, public_key=keys_dir(state_dir) / "signing.pub")


def test_a_market_state_that_cannot_be_quoted_on_is_refused(store: MlflowStore) -> None:
    publish(store, candidate())
    model = registry.load(PERP, "challenger", registry_uri=store.registry_uri)
    with pytest.raises(DataError, match="mid is not a positive number"):
        model.predict(registry.MarketState(mid=math.nan, maker_fee=0.0))


def test_every_value_of_a_set_reaches_its_place() -> None:
    pset = parameter_set(0.25, horizon=Value("relaxation", "name"), coef_ofi=Value(1e-5, "relative"), adverse_selection=Value(2e-5, "relative"))
    q = quote_params(pset, SPEC)
    assert (q.gamma, q.sigma, q.tau_years, q.horizon) == (0.25, 0.5, 1 / 365, RELAXATION)
    assert (q.A_bid, q.A_ask, q.k_bid, q.k_ask) == (0.8, 0.9, 5000.0, 5100.0)
    assert (q.inventory_unit, q.target_inventory, q.max_inventory, q.order_units) == (0.01, 0.0, 0.1, 1.0)
    assert (q.min_spread, q.max_spread, q.maker_fee) == (0.0001, 0.01, 0.0002)
    assert (q.coef_ofi, q.coef_kyle, q.coef_short_volatility, q.adverse_selection) == (1e-5, 0.0, 0.0, 2e-5)
    assert quote_params(pset, SPEC, 0.0001).maker_fee == 0.0001
    h = hedge_params(pset)
    assert (h.threshold, h.target, h.ratio, h.min_size, h.max_latency_s, h.to_boundary) == (0.04, 0.0, 0.8, 0.002, 60.0, 0)


def test_never_hedge_is_an_infinite_threshold() -> None:
    assert hedge_params(parameter_set(hedge_threshold=amount(None, 50_000.0, "sweep"))).threshold == math.inf


def test_numbers_are_floats_so_that_the_compiled_kernels_are_compiled_once() -> None:
    pset = parameter_set(risk_aversion=1, sigma=Value(1, "1/sqrt(year)"), max_hedge_latency=Value(60, "s"))  # type: ignore[arg-type]
    q, h = quote_params(pset, SPEC, 0), hedge_params(pset)
    assert {type(v) for name, v in q._asdict().items() if name != "horizon"} == {float}
    assert type(q.horizon) is int
    assert {type(v) for name, v in h._asdict().items() if name != "to_boundary"} == {float}
    assert quote_params(parameter_set(), SPEC).horizon == ROLLING


def test_facts_of_another_instrument_or_no_fee_are_refused() -> None:
    spot = InstrumentSpec(instrument="sim:BTC-USDT", tick_size="1", lot_size="0.001", contract="spot", maker_fee=0.0, taker_fee=0.0)
    with pytest.raises(ConfigError, match="facts for sim:BTC-USDT"):
        quote_params(parameter_set(), spot)
    with pytest.raises(ConfigError, match="needs the maker fee"):
        quote_params(parameter_set())
