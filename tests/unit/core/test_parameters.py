"""The parameter set: units, ranges, canonical form, and amounts that no price move changes."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import pytest

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import (
    REQUIRED,
    ParameterSet,
    Value,
    amount,
    amount_lots,
    canonical_json,
    decode_parameter_set,
    notional_drift,
    validate,
)

PRICE = 50_000.0
SPEC = InstrumentSpec(instrument="sim:BTC-USDT-PERP", tick_size="0.1", lot_size="0.001", contract="linear", maker_fee=0.0, taker_fee=0.0)


def good(**changes: Value | None) -> ParameterSet:
    values: dict[str, Value] = {
        "risk_aversion": Value(0.1, "1", None, "sweep"),
        "inventory_unit_notional": Value(500.0, "quote"),
        "inventory_unit_price": Value(PRICE, "quote/base"),
        "inventory_unit_fixed_at": Value(1, "ns"),
        "terminal_time": Value(1 / 365, "year"),
        "horizon": Value("rolling", "name"),
        "sigma": Value(0.5, "1/sqrt(year)", 0.02, "fit"),
        "A_bid": Value(0.5, "1/s", 0.05, "fit"),
        "A_ask": Value(0.5, "1/s", 0.05, "fit"),
        "k_bid": Value(5000.0, "1/relative", 100.0, "fit"),
        "k_ask": Value(5000.0, "1/relative", 100.0, "fit"),
        "order_size": amount(0.01, PRICE),
        "levels": Value(1, "1"),
        "min_spread": Value(0.0001, "relative"),
        "max_spread": Value(0.01, "relative"),
        "target_inventory": amount(0.0, PRICE),
        "max_inventory": amount(0.2, PRICE),
        "hedge_threshold": amount(0.05, PRICE, "sweep"),
        "min_hedge_size": amount(0.001, PRICE),
        "hedge_ratio": Value(1.0, "1"),
        "max_hedge_latency": Value(60.0, "s"),
        "quote_refresh_s": Value(1.0, "s"),
        "refresh_tolerance": Value(1, "tick"),
        "hedge_interval_s": Value(5.0, "s"),
    }
    for name, value in changes.items():
        if value is None:
            del values[name]
        else:
            values[name] = value
    return ParameterSet(
        instrument="sim:BTC-USDT-PERP",
        model="avellaneda_stoikov",
        valid_from_ns=2,
        fitted_through_ns=1,
        code_version="t",
        dataset_sha256="d",
        values=values,
    )


def test_a_good_set_survives_the_round_trip_with_one_hash() -> None:
    pset = good()
    validate(pset)
    raw = canonical_json(pset)
    again = decode_parameter_set(raw)
    assert canonical_json(again) == raw
    assert again.sha256() == pset.sha256()
    shuffled = dict(reversed(json.loads(raw).items()))
    assert decode_parameter_set(json.dumps(shuffled)).sha256() == pset.sha256()


@pytest.mark.parametrize("name", REQUIRED)
def test_every_required_value_is_missed(name: str) -> None:
    with pytest.raises(ConfigError, match=f"missing {name}"):
        validate(good(**{name: None}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sigma", Value(0.5, "1/sqrt(day)"), "unit"),
        ("sigma", Value(0.5, ""), "unit"),
        ("sigma", Value(float("nan"), "1/sqrt(year)"), "expected a number"),
        ("sigma", Value("0.5", "1/sqrt(year)"), "expected a number"),
        ("sigma", Value(True, "1/sqrt(year)"), "expected a number"),
        ("sigma", Value(0.5, "1/sqrt(year)", -1.0), "standard error"),
        ("k_bid", Value(-1.0, "1/relative"), "expected a number in"),
        ("horizon", Value("forever", "name"), "horizon"),
        ("order_size", Value(0.01, "quote", notional=500.0), "unit"),
        ("order_size", Value(0.01, "base", notional=700.0), "notional"),
        ("order_size", Value(0.01, "base"), "notional"),
        ("max_inventory", amount(-1.0, PRICE), ">= 0"),
        ("min_spread", Value(0.5, "relative"), "exceeds max_spread"),
    ],
)
def test_bad_values_are_named(name: str, value: Value, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(good(**{name: value}))


def test_unknown_names_keys_and_schemas_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown names gamma"):
        validate(good(gamma=Value(1.0, "1")))
    data = json.loads(canonical_json(good()))
    with pytest.raises(ConfigError, match="not valid"):
        decode_parameter_set(json.dumps(data | {"comment": "hi"}))
    with pytest.raises(ConfigError, match="schema 2"):
        decode_parameter_set(json.dumps(data | {"schema": 2}))
    with pytest.raises(ConfigError, match="not valid"):
        decode_parameter_set(canonical_json(good())[:-20])
    del data["values"]["sigma"]["unit"]
    with pytest.raises(ConfigError, match="unit"):
        decode_parameter_set(json.dumps(data))


def test_never_hedge_is_a_value() -> None:
    pset = good(hedge_threshold=amount(None, PRICE, "sweep"))
    validate(pset)
    assert pset.hedge_threshold_base == float("inf")
    assert good().hedge_threshold_base == 0.05


def test_a_price_move_changes_no_amount_silently() -> None:
    """Lots come from the stored base amount; what moved is visible as drift of the notional."""
    pset = good()
    assert {name: amount_lots(pset, name, SPEC) for name in ("order_size", "max_inventory", "hedge_threshold", "min_hedge_size")} == {
        "order_size": 10,
        "max_inventory": 200,
        "hedge_threshold": 50,
        "min_hedge_size": 1,
    }
    assert notional_drift(pset, PRICE * 1.3) == pytest.approx(0.3)
    with pytest.raises(ConfigError, match="not an amount"):
        amount_lots(pset, "sigma", SPEC)


def test_sets_are_frozen() -> None:
    with pytest.raises(AttributeError):
        good().instrument = "x"
    assert not dataclasses.is_dataclass(ParameterSet)
    assert issubclass(ParameterSet, msgspec.Struct)
