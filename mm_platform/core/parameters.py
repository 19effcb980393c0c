"""The parameter set v1: what calibration hands to the runner (CONTRACTS, Parameter set).

Belongs here: the struct, its canonical JSON and hash, validation of names, units and ranges, and the one conversion of amounts between
notional, base and lots. Does not belong here: signing and storing (`registry`), the runner's own limits (`live`).
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, Literal

import msgspec

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec

SCHEMA: Final = 1
Horizon = Literal["fixed", "rolling", "relaxation"]
Source = Literal["fit", "sweep", "default"]

# name -> (unit, lowest, highest); bounds are sanity of the quantity itself, not a trader's limits
_FLOATS: Final[dict[str, tuple[str, float, float]]] = {
    "risk_aversion": ("1", 1e-6, 1e3),
    "inventory_unit_notional": ("quote", 1e-12, 1e12),
    "inventory_unit_price": ("quote/base", 1e-15, 1e15),
    "inventory_unit_fixed_at": ("ns", 0, 2**63 - 1),
    "terminal_time": ("year", 1e-9, 10),
    "sigma": ("1/sqrt(year)", 1e-6, 1e3),
    "A_bid": ("1/s", 1e-12, 1e6),
    "A_ask": ("1/s", 1e-12, 1e6),
    "k_bid": ("1/relative", 1e-3, 1e9),
    "k_ask": ("1/relative", 1e-3, 1e9),
    "levels": ("1", 1, 32),
    "min_spread": ("relative", 0, 1),
    "max_spread": ("relative", 0, 1),
    "hedge_ratio": ("1", 0, 1),
    "max_hedge_latency": ("s", 0, 1e7),
    "quote_refresh_s": ("s", 1e-3, 1e5),
    "refresh_tolerance": ("tick", 0, 1e9),
    "hedge_interval_s": ("s", 1e-3, 1e5),
}
# amounts: value in base, `notional` in quote at inventory_unit_price
_AMOUNTS: Final = ("order_size", "target_inventory", "max_inventory", "hedge_threshold", "min_hedge_size")
_OPTIONAL_FLOATS: Final[dict[str, tuple[str, float, float]]] = {
    "coef_ofi": ("relative", -1, 1),
    "coef_kyle": ("1", -1e6, 1e6),
    "coef_short_volatility": ("1", 0, 1),
    "adverse_selection": ("relative", -1, 1),
}
REQUIRED: Final = (*_FLOATS, *_AMOUNTS, "horizon")


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One value with its unit, standard error (None: not estimated) and where it came from.

    Amounts carry both `value` [base] and `notional` [quote at `inventory_unit_price`]. `hedge_threshold` may be None: never hedge.
    """

    value: float | int | str | None
    unit: str
    stderr: float | None = None
    source: Source = "default"
    notional: float | None = None


class ParameterSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A complete, validated set of quoting and hedging parameters for one instrument."""

    schema: int = SCHEMA
    instrument: str
    model: str
    valid_from_ns: int
    fitted_through_ns: int
    code_version: str
    dataset_sha256: str
    values: dict[str, Value]

    def number(self, name: str) -> float:
        """A float value by name; `ConfigError` if absent or not a number."""
        entry = self.values.get(name)
        if entry is None or isinstance(entry.value, str) or entry.value is None:
            raise ConfigError(
                f"parameter set for {self.instrument}: {name} is {'missing' if entry is None else repr(entry.value)}, expected a number"
            )
        return float(entry.value)

    @property
    def horizon(self) -> Horizon:
        return self.values["horizon"].value  # type: ignore[return-value]

    @property
    def hedge_threshold_base(self) -> float:
        """Hedge trigger in base; `inf` when the set says never hedge."""
        value = self.values["hedge_threshold"].value
        return math.inf if value is None else float(value)

    def sha256(self) -> str:
        return hashlib.sha256(canonical_json(self)).hexdigest()


def canonical_json(pset: ParameterSet) -> bytes:
    """Sorted keys, no spaces, UTF-8: the same set always gives the same bytes."""
    return msgspec.json.encode(msgspec.to_builtins(pset), order="sorted")


def decode_parameter_set(raw: bytes | str) -> ParameterSet:
    """Strictly parse and validate; raises `ConfigError` naming the field. Unknown keys are refused."""
    try:
        pset = msgspec.json.decode(raw, type=ParameterSet)
    except msgspec.MsgspecError as err:
        raise ConfigError(f"parameter set is not valid: {err}") from None
    validate(pset)
    return pset


def validate(pset: ParameterSet) -> None:
    """Names, units, ranges and relations; raises `ConfigError` naming the first offender."""
    if pset.schema != SCHEMA:
        raise ConfigError(f"parameter set has schema {pset.schema}, this version reads {SCHEMA}; migrate it with the version that wrote it")
    InstrumentId.parse(pset.instrument)
    missing = [name for name in REQUIRED if name not in pset.values]
    if missing:
        raise ConfigError(f"parameter set for {pset.instrument}: missing {', '.join(missing)}")
    unknown = pset.values.keys() - set(REQUIRED) - set(_OPTIONAL_FLOATS)
    if unknown:
        raise ConfigError(f"parameter set for {pset.instrument}: unknown names {', '.join(sorted(unknown))}")
    for name, (unit, low, high) in (_FLOATS | _OPTIONAL_FLOATS).items():
        if name not in pset.values:
            continue
        entry = pset.values[name]
        if entry.unit != unit:
            raise ConfigError(f"parameter set for {pset.instrument}: {name} has unit {entry.unit!r}, expected {unit!r}")
        if (
            isinstance(entry.value, bool)
            or not isinstance(entry.value, (int, float))
            or not math.isfinite(entry.value)
            or not low <= entry.value <= high
        ):
            raise ConfigError(f"parameter set for {pset.instrument}: {name} is {entry.value!r}, expected a number in [{low}, {high}] {unit}")
        _check_stderr(pset, name, entry)
    price = pset.number("inventory_unit_price")
    for name in _AMOUNTS:
        entry = pset.values[name]
        if entry.unit != "base":
            raise ConfigError(f"parameter set for {pset.instrument}: {name} has unit {entry.unit!r}, expected 'base'")
        if entry.value is None and name == "hedge_threshold":
            continue
        if isinstance(entry.value, bool) or not isinstance(entry.value, (int, float)) or not math.isfinite(entry.value):
            raise ConfigError(f"parameter set for {pset.instrument}: {name} is {entry.value!r}, expected a finite amount in base")
        if entry.value < 0 and name != "target_inventory":
            raise ConfigError(f"parameter set for {pset.instrument}: {name} is {entry.value}, expected >= 0")
        if entry.notional is None or not math.isclose(entry.notional, entry.value * price, rel_tol=1e-9, abs_tol=1e-9):
            raise ConfigError(
                f"parameter set for {pset.instrument}: {name} says {entry.value} base and notional {entry.notional}; at inventory_unit_price {price} that is {entry.value * price}"
            )
        _check_stderr(pset, name, entry)
    horizon = pset.values["horizon"]
    if horizon.unit != "name" or horizon.value not in ("fixed", "rolling", "relaxation"):
        raise ConfigError(
            f"parameter set for {pset.instrument}: horizon is {horizon.value!r} [{horizon.unit}], expected fixed, rolling or relaxation [name]"
        )
    if pset.number("min_spread") > pset.number("max_spread"):
        raise ConfigError(
            f"parameter set for {pset.instrument}: min_spread {pset.number('min_spread')} exceeds max_spread {pset.number('max_spread')}"
        )
    if pset.number("max_inventory") <= 0 or pset.number("order_size") <= 0:
        raise ConfigError(f"parameter set for {pset.instrument}: max_inventory and order_size must be positive")


def _check_stderr(pset: ParameterSet, name: str, entry: Value) -> None:
    if entry.stderr is not None and not (math.isfinite(entry.stderr) and entry.stderr >= 0):
        raise ConfigError(f"parameter set for {pset.instrument}: {name} has standard error {entry.stderr}, expected null or >= 0")


def amount(base: float | None, price: float, source: Source = "default") -> Value:
    """An amount stored as base and as notional at `price`; `None` means never (hedge threshold)."""
    return Value(value=base, unit="base", source=source, notional=None if base is None else base * price)


def amount_lots(pset: ParameterSet, name: str, spec: InstrumentSpec) -> int:
    """An amount in whole venue lots, from the stored base amount: today's price does not enter, so no price move changes it."""
    if name not in _AMOUNTS:
        raise ConfigError(f"{name} is not an amount; amounts are {', '.join(_AMOUNTS)}")
    return spec.base_to_lots(pset.number(name))


def notional_drift(pset: ParameterSet, price_now: float) -> float:
    """Relative change of the price since the amounts were fixed; callers warn or refuse beyond their own bound."""
    return price_now / pset.number("inventory_unit_price") - 1.0
