"""Settings: the only reader of environment and configuration files.

Belongs here: what can be set, its defaults and units, where a value came from, and the secrets' way in. Does not belong here: what the
settings are used for; parameters of the model that calibration finds (`core.parameters`).

Precedence: flag, `MM_*` environment, `mm.toml`, default. `MM_LAKE` sets `lake`, `MM_RISK__MAX_ORDER_NOTIONAL` sets
`risk.max_order_notional`; lists and tables are written as in TOML. Paths in a file are relative to the file's folder, paths in a flag or
in the environment to the working directory.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec, venue_id
from mm_platform.core.parameters import REQUIRED, Horizon
from mm_platform.core.units import SECONDS_PER_DAY
from mm_platform.decode.funding_csv import perp_venue

CONFIG_FILE: Final = "mm.toml"
_ENV_PREFIX: Final = "MM_"
_SECRET_PREFIX: Final = "MM_SECRET_"
_CONFIG_VARIABLE: Final = "MM_CONFIG"
_SQLITE_PREFIX: Final = "sqlite:///"
_PATHS: Final = ("lake", "artifacts", "state_dir", "raw_dir", "live.public_key", "secrets_file")
# coefficients a set may carry besides the required values; a text is never bounded
_BOUNDABLE: Final = (*(name for name in REQUIRED if name != "horizon"), "coef_ofi", "coef_kyle", "coef_short_volatility", "adverse_selection")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _or_off(value: object) -> object:
    return None if value == "off" else value


def _or_auto(value: object) -> object:
    return None if value == "auto" else value


# a limit that can be switched off: TOML has no null, so the word is "off"
OrOff = Annotated[float | None, Field(gt=0), BeforeValidator(_or_off)]


class Section(BaseModel):
    """A table of the settings: unknown keys are refused, numbers are finite, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class Simulate(Section):
    """The simulated market."""

    days: int = Field(default=6, ge=1, le=366, description="UTC days that the demo makes")
    start: date = Field(default=date(2026, 1, 5), description="the first of them")


class Ingest(Section):
    """Market data into the lake."""

    max_sequence_break_frac: Fraction = Field(default=0.001, description="sequence breaks per depth message; a day with more is refused")
    max_crossed_book_frac: Fraction = Field(default=0.001, description="crossed books per depth message; a day with more is refused")
    max_bad_line_frac: Fraction = Field(default=0.001, description="unreadable lines per line; a day with more is refused")
    clock_floor_ms: Positive = Field(default=5.0, description="feed latency that the clock repair leaves, ms")


class Signals(Section):
    """Signals on the decision grid."""

    step_s: Positive = Field(default=1.0, description="spacing of decisions, s")
    ofi_half_life_s: Positive = Field(default=5.0, description="after this long past order flow counts half, s")
    vol_tau_s: Positive = Field(default=120.0, description="averaging time of the short-horizon variance, s")
    kyle_tau_s: Positive = Field(default=600.0, description="forgetting time of the impact regression, s")


class Calibration(Section):
    """Fits of sigma, A and k."""

    train_window_s: Positive = Field(default=float(SECONDS_PER_DAY), description="data behind each fit, s")
    refit_every_s: Positive = Field(default=float(SECONDS_PER_DAY), description="the runner's own cadence; judged stretches are refitted as often, s")
    min_trades: int = Field(default=200, ge=2, description="market orders per side below which A and k are refused")
    embargo_s: NonNegative = Field(default=300.0, description="pause between what chose and what judges, s")
    max_days: int = Field(default=7, ge=1, description="days in a row that one calibration looks at")


class Sweep(Section):
    """The grid of the calibration sweep, and its two parts."""

    risk_aversions: tuple[Positive, ...] = Field(
        default=(0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0), min_length=1, description="dimensionless per inventory unit, ascending"
    )
    hedge_thresholds_units: tuple[Positive | Literal["never"], ...] = Field(
        default=(2.0, 3.0, 4.0, 6.0, 8.0, "never"), min_length=1, description='inventory units, ascending; "never" is added where it is missing'
    )
    choose_frac: float = Field(default=0.4, gt=0, lt=1, description="earlier share of the period that chooses; the rest judges")
    workers: int = Field(default=0, ge=0, le=1024, description="processes, 0 = one per core (of the cluster, when execution.backend is ray)")

    @field_validator("risk_aversions")
    @classmethod
    def _ascending(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if any(b <= a for a, b in pairwise(grid)):
            raise ValueError("expected ascending values without repeats: neighbours in the grid are compared with each other")
        return grid

    @field_validator("hedge_thresholds_units")
    @classmethod
    def _with_never(cls, grid: tuple[float | Literal["never"], ...]) -> tuple[float | Literal["never"], ...]:
        numbers = tuple(x for x in grid if x != "never")
        if any(b <= a for a, b in pairwise(numbers)):
            raise ValueError("expected ascending values without repeats: neighbours in the grid are compared with each other")
        return (*numbers, "never")

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """Hedge thresholds in inventory units, None for never."""
        return tuple(None if x == "never" else float(x) for x in self.hedge_thresholds_units)


class Execution(Section):
    """Where sweeps run: on this machine, or on a Ray cluster (extra `ray`). The results are the same."""

    backend: Literal["local", "ray"] = Field(default="local", description='"local" or "ray"')
    address: str = Field(
        default="", description='of the Ray cluster, "host:6379" or "ray://host:10001"; empty: one is started on this machine for each sweep'
    )
    tries: int = Field(default=3, ge=1, le=100, description="how often a batch of points may be begun; a worker that dies is replaced")

    @model_validator(mode="after")
    def _address_of_a_cluster(self) -> Execution:
        if self.address and self.backend != "ray":
            raise ValueError(f'address is {self.address!r}, but backend is "{self.backend}": set backend = "ray" or leave the address out')
        return self


class Strategy(Section):
    """What is set by hand and enters every candidate's parameter set."""

    order_size_notional: Positive = Field(default=500.0, description="quote currency")
    inventory_unit_notional: Positive = Field(default=500.0, description="quote currency; risk aversion is per this much")
    max_inventory_units: Positive = Field(default=10.0, description="inventory units")
    min_spread: Annotated[float | None, Field(ge=0, le=1), BeforeValidator(_or_auto)] = Field(
        default=None, description='ask minus bid, relative; "auto": twice the maker fee and 0.5 bp, so that a round trip can pay'
    )
    max_spread: float = Field(default=0.01, gt=0, le=1, description="ask minus bid, relative")
    terminal_time: Positive = Field(default=1 / 365, description="years")
    horizon: Horizon = Field(
        default="rolling", description="fixed (runs down), rolling (constant) or relaxation (as long as inventory takes to relax)"
    )
    levels: int = Field(default=1, ge=1, le=1, description="orders per side; one so far")
    hedge_ratio: Fraction = Field(default=0.8, description="share of the excess inventory that a hedge trades")
    min_hedge_size_notional: NonNegative = Field(default=100.0, description="quote currency")
    max_hedge_latency_s: NonNegative = Field(default=60.0, description="a hedge waits at most this long for a better moment, s")
    quote_refresh_s: Positive = Field(default=1.0, description="quotes move at most this often, s")
    refresh_tolerance_ticks: int = Field(default=2, ge=0, description="a quote this close to where it should be keeps its place in the queue")
    hedge_interval_s: Positive = Field(default=10.0, description="hedges at most this often, s")

    @model_validator(mode="after")
    def _spreads(self) -> Strategy:
        if self.min_spread is not None and self.min_spread > self.max_spread:
            raise ValueError(f"min_spread {self.min_spread} exceeds max_spread {self.max_spread}")
        return self


class Latency(Section):
    """Latencies of the replay."""

    entry_ms: Positive = Field(default=10.0, description="decision to venue, ms")
    response_ms: Positive = Field(default=10.0, description="venue to us, ms")
    sensitivity_ms: tuple[Positive, ...] = Field(
        default=(5.0, 20.0, 50.0), description="both ways, beside results on a tape whose clock was repaired, ms"
    )


class Gate(Section):
    """What a candidate has to show before it may become champion."""

    capital_quote: Positive = Field(default=10_000.0, description="equity behind the strategy: base of returns and drawdown, quote currency")
    block_s: Positive = Field(default=3600.0, description="length of a block of P&L, at least the life of an inventory, s")
    min_blocks: int = Field(default=24, ge=2, description="independent blocks; fewer are insufficient evidence")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of the lower bound of the mean block P&L, which must be above 0")
    min_psr: Fraction = Field(default=0.95, description="probability that the Sharpe ratio is above 0")
    min_dsr: Fraction = Field(default=0.95, description="the same against the best of all points by luck")
    max_drawdown_frac: Fraction = Field(default=0.2, description="of the capital")
    fill_degradation_frac: Fraction = Field(default=0.2, description="share of the maker income taken away in the degraded P&L")


Bound = tuple[float, float]
_DEFAULT_BOUNDS: Final[dict[str, Bound]] = {
    "risk_aversion": (0.005, 2.0),
    "sigma": (0.01, 5.0),
    "A_bid": (1e-5, 1e3),
    "A_ask": (1e-5, 1e3),
    "k_bid": (50.0, 1e6),
    "k_ask": (50.0, 1e6),
    "terminal_time": (1e-6, 1.0),
    "min_spread": (0.0, 0.01),
    "max_spread": (0.0, 0.05),
    "hedge_ratio": (0.0, 1.0),
    "quote_refresh_s": (0.1, 60.0),
}


class Risk(Section):
    """The runner's own limits; they never come from a parameter set. "off" switches a limit off where that is allowed."""

    max_order_notional: Positive = Field(default=2_000.0, description="quote currency")
    max_position_notional: Positive = Field(default=10_000.0, description="quote currency; open orders of a side count")
    max_orders_per_10s: int = Field(default=100, ge=2, description="new orders; cancels are free, flattening is never held back")
    stop_loss_frac: OrOff = Field(default=0.02, description="adverse move of the mid against the average entry that flattens")
    position_timeout_s: OrOff = Field(default=4 * 3600.0, description="longest time without passing through flat, s")
    cooldown_s: NonNegative = Field(default=60.0, description="no quotes after a stop or timeout, s")
    volatility_pull: OrOff = Field(default=5.0, description="quotes are pulled above this multiple of the fitted sigma")
    toxicity_pull: Annotated[float | None, Field(gt=0, le=1), BeforeValidator(_or_off)] = Field(
        default=0.95, description="a side is pulled when order flow imbalance against it reaches this"
    )
    max_loss_quote: OrOff = Field(default=500.0, description="loss of a day or run that halts for good, quote currency")
    backoff_s: NonNegative = Field(default=1.0, description="wait on a side after a rejected order, s")
    slippage_frac: Positive = Field(default=0.001, description="how far beyond the touch a taker may go")
    price_band_frac: float = Field(default=0.05, gt=0, lt=1, description="no quote further from the mark (or mid) than this")
    max_book_age_s: OrOff = Field(default=10.0, description="without market data for this long quotes are pulled, s")
    max_parameter_age_s: Positive = Field(default=3.0 * SECONDS_PER_DAY, description="a set fitted longer ago is refused, s")
    max_price_drift_frac: float = Field(default=0.3, gt=0, lt=1, description="from the price at which the set's amounts were fixed")
    parameter_bounds: dict[str, Bound] = Field(
        default=_DEFAULT_BOUNDS,
        description="inclusive, in the parameter's unit; mm promote and the runner refuse a set outside; names left out keep these",
    )

    @field_validator("parameter_bounds", mode="before")
    @classmethod
    def _over_defaults(cls, given: object) -> object:
        # stating one bound must not silently drop the others; a bound that is not wanted is widened
        return {**_DEFAULT_BOUNDS, **given} if isinstance(given, dict) else given

    @field_validator("parameter_bounds")
    @classmethod
    def _known_and_ordered(cls, bounds: dict[str, Bound]) -> dict[str, Bound]:
        for name, (low, high) in bounds.items():
            if name not in _BOUNDABLE:
                raise ValueError(f"{name!r} is not a parameter{_did_you_mean(name, _BOUNDABLE)}")
            if low > high:
                raise ValueError(f"{name}: lower bound {low} exceeds upper bound {high}")
        return bounds

    @model_validator(mode="after")
    def _order_within_position(self) -> Risk:
        if self.max_order_notional > self.max_position_notional:
            raise ValueError(f"max_order_notional {self.max_order_notional} exceeds max_position_notional {self.max_position_notional}")
        return self


class Live(Section):
    """The runner."""

    poll_s: Positive = Field(default=10.0, description="how often the champion is read, s")
    registry_timeout_s: Positive = Field(default=2.0, description="limit of one read, s")
    public_key: Path | None = Field(default=None, description="half of the signing key that the runner trusts; default <state_dir>/keys/signing.pub")


class LegCost(Section):
    """Of one venue, fractions of notional per execution."""

    spot_fee: float = Field(default=0.0010, description="taker fee of its spot market")
    perp_fee: float = Field(default=0.0005, description="taker fee of its perpetual market")
    half_spread: NonNegative = Field(default=0.0001, description="half of ask minus bid over mid")


class Funding(Section):
    """The funding import and scan."""

    utc_offset_h: dict[str, float] = Field(
        default={},
        description='hours ahead of UTC of the clock that wrote a venue\'s history files, by venue, "*" for all others; a venue left out must be decided by '
        "its settlement grid and a second source, else its file is refused",
    )
    holding_h: Positive = Field(default=168.0, description="holding time the net figures assume, h")
    min_history_h: Positive = Field(default=24.0, description="history below which nothing is expected, h")
    min_rate_8h: NonNegative = Field(default=0.0001, description="smallest expected rate per 8 h")
    min_apr: float = Field(default=0.05, description="smallest net APR after costs")
    max_basis_frac: NonNegative = Field(default=0.002, description="largest price difference of the legs")
    spot_borrow_apr: NonNegative = Field(default=0.05, description="interest on a short spot leg, per year")
    max_age_h: NonNegative = Field(default=24.0, description="how far apart the latest rates of two venues may lie, h")
    costs: dict[str, LegCost] = Field(default={}, description="by venue id, defaults elsewhere")

    @field_validator("utc_offset_h")
    @classmethod
    def _perp_venues(cls, given: dict[str, float]) -> dict[str, float]:
        return {name if name == "*" else perp_venue(name): value for name, value in given.items()}

    @field_validator("costs")
    @classmethod
    def _venue_ids(cls, given: dict[str, LegCost]) -> dict[str, LegCost]:
        return {venue_id(name): value for name, value in given.items()}

    def cost_of(self, venue: str) -> LegCost:
        """Costs at a venue."""
        return self.costs.get(venue, LegCost())

    def offset_of(self, venue: str) -> float | None:
        """The stated clock of a venue's files; None: not stated."""
        return self.utc_offset_h.get(venue, self.utc_offset_h.get("*"))


class Mlflow(Section):
    """MLflow's page (make ui)."""

    port: Port = Field(default=5000, description="on the loopback address")


class Dagster(Section):
    """Dagster's page (make ui)."""

    port: Port = Field(default=3000, description="on the loopback address")


class Settings(Section):
    """Everything that can be set. Read with `load_settings`; built directly it holds the defaults with relative paths."""

    state_dir: Path = Field(
        default=Path(".mm"), description="keys, journal, audit, last good parameters; the next three live in it unless placed elsewhere"
    )
    lake: Path = Field(default=Path(".mm/lake"), description="folder of the lake")
    registry_uri: str = Field(default="sqlite:///.mm/mlflow.db", description="MLflow: sqlite:///path or http(s)://host:port")
    artifacts: Path = Field(default=Path(".mm/mlartifacts"), description="MLflow's files when the registry is a database")
    raw_dir: Path | None = Field(default=None, description="vendor files that Dagster ingests")
    secrets_file: Path | None = Field(default=None, description="venue keys, mode 0600; default <state_dir>/secrets.toml")
    seed: int = Field(default=7, ge=0, lt=2**63, description="of everything random")
    instrument: str = Field(default="sim:BTC-USDT-PERP", description="<venue>:<BASE>-<QUOTE>[-PERP]; the one a verb works on")
    simulate: Simulate = Simulate()
    ingest: Ingest = Ingest()
    signals: Signals = Signals()
    calibration: Calibration = Calibration()
    sweep: Sweep = Sweep()
    execution: Execution = Execution()
    strategy: Strategy = Strategy()
    latency: Latency = Latency()
    gate: Gate = Gate()
    risk: Risk = Risk()
    funding: Funding = Funding()
    live: Live = Live()
    mlflow: Mlflow = Mlflow()
    dagster: Dagster = Dagster()
    instruments: tuple[InstrumentSpec, ...] = ()

    @field_validator("instrument")
    @classmethod
    def _instrument_id(cls, text: str) -> str:
        try:
            return str(InstrumentId.parse(text))
        except ConfigError as err:
            raise ValueError(str(err)) from None

    @field_validator("registry_uri")
    @classmethod
    def _registry(cls, uri: str) -> str:
        if uri.startswith(_SQLITE_PREFIX):
            if len(uri) == len(_SQLITE_PREFIX) or "?" in uri:
                raise ValueError("expected sqlite:///path/to/mlflow.db")
            return uri
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected sqlite:///path/to/mlflow.db or http(s)://host:port")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a user name or password does not belong into the address: it would end up in logs")
        return uri

    @field_validator("instruments", mode="before")
    @classmethod
    def _specs(cls, given: object) -> object:
        if not isinstance(given, (list, tuple)):
            raise ValueError("expected a list of [[instruments]] tables")
        specs = []
        for number, entry in enumerate(given, start=1):
            try:
                specs.append(entry if isinstance(entry, InstrumentSpec) else msgspec.convert(entry, InstrumentSpec))
            except (msgspec.ValidationError, ConfigError) as err:
                raise ValueError(f"entry {number}: {err} (tick_size, lot_size and multiplier are decimal strings)") from None
        return tuple(specs)

    @model_validator(mode="after")
    def _one_fact_per_date(self) -> Settings:
        seen = set()
        for spec in self.instruments:
            if (spec.instrument, spec.valid_from_ns) in seen:
                raise ValueError(f"instruments: {spec.instrument} valid from {spec.valid_from_ns} is stated twice")
            seen.add((spec.instrument, spec.valid_from_ns))
        return self

    @property
    def id(self) -> InstrumentId:
        """The instrument a verb works on."""
        return InstrumentId.parse(self.instrument)

    @property
    def public_key(self) -> Path:
        """File of the public half of the signing key."""
        return self.live.public_key or self.state_dir / "keys" / "signing.pub"

    def specs_of(self, instrument: InstrumentId) -> list[InstrumentSpec]:
        """The configured facts of an instrument, oldest first; empty when the settings name none."""
        found = [spec for spec in self.instruments if spec.id == instrument]
        return sorted(found, key=lambda spec: spec.valid_from_ns)


class VenueKeys(Section):
    """Keys of one venue account; printing it shows none of them."""

    api_key: SecretStr
    api_secret: SecretStr
    api_passphrase: SecretStr | None = None


# -- reading -------------------------------------------------------------------------------------------------------------------------


def load_settings(
    config_path: Path | None, overrides: Mapping[str, object], *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Settings:
    """Read the settings once, at the start.

    Parameters
    ----------
    config_path : Path or None
        The file; None: what `MM_CONFIG` names, else `mm.toml` in the working directory if it is there, else no file.
    overrides : mapping of str to object
        Flags, by dotted name (`risk.max_order_notional`); None means not given.
    environ, cwd
        Environment and working directory; default the process's own.

    Returns
    -------
    Settings
        With absolute paths.

    Raises
    ------
    ConfigError
        Names the key, the value, what was expected and where the value came from.
    """
    environ = os.environ if environ is None else environ
    cwd = (cwd or Path.cwd()).absolute()
    file = settings_file(config_path, environ, cwd)
    base = file.parent if file is not None else cwd
    # dotted key -> (value, where it came from), later ones win
    layers: dict[str, tuple[object, str]] = {}
    if file is not None:
        for key, value in _flatten(_read_toml(file), ()):
            layers[key] = (_placed(key, value, base), str(file))
    for key, value, variable in _from_environment(environ):
        layers[key] = (_placed(key, value, cwd), variable)
    for key, value in overrides.items():
        if value is not None:
            layers[key] = (_placed(key, value, cwd), f"flag --{key.replace('_', '-')}")
    state_dir = layers.get("state_dir", (base / Settings.model_fields["state_dir"].default, ""))[0]
    if isinstance(state_dir, Path):
        for key, value in _below(state_dir).items():
            layers.setdefault(key, (value, "default"))
    raw: dict[str, Any] = {}
    for key, (value, origin) in layers.items():
        _put(raw, key, value, origin)
    try:
        return Settings.model_validate(raw)
    except ValidationError as err:
        raise ConfigError(_explain(err, layers)) from None


def load_venue_keys(settings: Settings, venue: str, *, environ: Mapping[str, str] | None = None) -> VenueKeys:
    """Keys of a venue, from `MM_SECRET_<VENUE>_API_KEY`, `..._API_SECRET`, `..._API_PASSPHRASE` or from the secrets file.

    Parameters
    ----------
    settings : Settings
        Names the secrets file: TOML with one table per venue (`[binanceusdm]` with `api_key`, `api_secret`, optionally `api_passphrase`).
    venue : str
        Venue id; aliases are understood.
    environ : mapping, optional
        Default the process's own.

    Raises
    ------
    ConfigError
        No keys, an incomplete pair, or a file that others can read. The message never holds a secret.
    """
    environ = os.environ if environ is None else environ
    vid = venue_id(venue)
    names = ("api_key", "api_secret", "api_passphrase")
    found: dict[str, Any] = {name: environ[variable] for name in names if (variable := f"{_SECRET_PREFIX}{vid.upper()}_{name.upper()}") in environ}
    file = settings.secrets_file or settings.state_dir / "secrets.toml"
    origin = f"{_SECRET_PREFIX}{vid.upper()}_*"
    if not found and file.exists():
        origin = f"{file} [{vid}]"
        table = _read_secrets(file).get(vid, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{origin}: expected a table with api_key and api_secret")
        found = table
    if not found:
        raise ConfigError(
            f"no keys for {vid}: set {_SECRET_PREFIX}{vid.upper()}_API_KEY and {_SECRET_PREFIX}{vid.upper()}_API_SECRET, or write them to {file} (mode 0600) under [{vid}]"
        )
    try:
        return VenueKeys.model_validate(found)
    except ValidationError as err:
        # the error's own text would quote the input
        wrong = ", ".join(sorted({".".join(map(str, e["loc"])) + f" ({e['type']})" for e in err.errors(include_input=False, include_url=False)}))
        raise ConfigError(f"keys for {vid} from {origin}: {wrong}; expected api_key, api_secret and optionally api_passphrase, as text") from None


def settings_file(config_path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file `load_settings` reads with the same arguments; None: there is none. `ConfigError` when one is named and not there."""
    named = config_path if config_path is not None else Path(environ[_CONFIG_VARIABLE]) if environ.get(_CONFIG_VARIABLE) else None
    if named is None:
        found = cwd / CONFIG_FILE
        return found if found.is_file() else None
    path = _absolute(named, cwd)
    if not path.is_file():
        raise ConfigError(f"no settings file {path}; write one (the sample in the documentation lists every key) or leave --config out")
    return path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} is not valid TOML: {err}") from None
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {err.strerror}") from None


def _read_secrets(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(f"{path} has mode {mode:04o}: others can read the keys; `chmod 600 {path}` and consider the keys known")
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not valid TOML (its text is not shown: it holds keys)") from None
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {err.strerror}") from None


def _flatten(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    """Leaves by dotted key; tables of values (parameter bounds) and lists are leaves."""
    for name, value in table.items():
        key = ".".join((*above, name))
        if isinstance(value, dict) and not above:
            yield from _flatten(value, (name,))
        else:
            yield key, value


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    for variable, text in sorted(environ.items()):
        if not variable.startswith(_ENV_PREFIX) or variable.startswith(_SECRET_PREFIX) or variable == _CONFIG_VARIABLE:
            continue
        key = variable.removeprefix(_ENV_PREFIX).lower().replace("__", ".")
        if key not in _keys():
            raise ConfigError(f"environment variable {variable} sets nothing: {key!r} is not a setting{_did_you_mean(key, _keys())}")
        value: object = text
        if text.lstrip().startswith(("[", "{")):
            try:
                value = tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError as err:
                raise ConfigError(f"environment variable {variable}={text!r}: not a TOML list or table: {err}") from None
        yield key, value, f"environment variable {variable}"


def _placed(key: str, value: object, base: Path) -> object:
    """Relative paths made absolute against where they were written."""
    if key in _PATHS and isinstance(value, (str, Path)):
        if not str(value):
            raise ConfigError(f"{key} is empty, expected a path")
        return _absolute(Path(value).expanduser(), base)
    if key == "registry_uri" and isinstance(value, str) and value.startswith(_SQLITE_PREFIX) and len(value) > len(_SQLITE_PREFIX):
        return f"{_SQLITE_PREFIX}{_absolute(Path(value[len(_SQLITE_PREFIX) :]), base)}"
    return value


def _absolute(path: Path, base: Path) -> Path:
    return Path(os.path.normpath(base / path))


def _below(state_dir: Path) -> dict[str, object]:
    """What lives in the state folder unless it was placed elsewhere."""
    return {
        "state_dir": state_dir,
        "lake": state_dir / "lake",
        "artifacts": state_dir / "mlartifacts",
        "registry_uri": f"{_SQLITE_PREFIX}{state_dir / 'mlflow.db'}",
    }


def _put(raw: dict[str, Any], key: str, value: object, origin: str) -> None:
    section, _, name = key.partition(".")
    if not name:
        if isinstance(raw.get(section), dict):
            raise ConfigError(f"{section} = {value!r} (from {origin}): expected a table of settings")
        raw[section] = value
        return
    table = raw.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{section} = {table!r}: expected a table of settings; {key} is set as well (from {origin})")
    table[name] = value


def _keys() -> tuple[str, ...]:
    """Every setting by its dotted key."""
    keys: list[str] = []
    for name, info in Settings.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            keys.extend(f"{name}.{inner}" for inner in kind.model_fields)
        else:
            keys.append(name)
    return tuple(keys)


def _did_you_mean(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _explain(err: ValidationError, layers: Mapping[str, tuple[object, str]]) -> str:
    lines = []
    for problem in err.errors(include_url=False):
        loc = [str(part) for part in problem["loc"]]
        keys = [".".join(loc[:n]) for n in (2, 1) if len(loc) >= n]
        key = next((k for k in keys if k in layers), keys[0] if keys else "settings")
        origin = layers[key][1] if key in layers else _origins_below(key, layers)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key} (from {origin}) is not a setting{_did_you_mean(key, _keys())}")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        if key in layers:
            lines.append(f"{key} = {_shown(layers[key][0])} (from {origin}): {message}")
        else:
            lines.append(f"{key} (from {origin}): {message}")
    return "; ".join(dict.fromkeys(lines))


def _origins_below(key: str, layers: Mapping[str, tuple[object, str]]) -> str:
    """Where the values of a section came from, when the section as a whole is wrong."""
    found = dict.fromkeys(origin for name, (_, origin) in layers.items() if name.startswith(key + ".") and origin != "default")
    return ", ".join(found) or "default"


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, Path) else re.sub(r"//[^/@]*@", "//***@", repr(value))
    return text if len(text) <= 200 else text[:200] + "..."


# -- the sample ----------------------------------------------------------------------------------------------------------------------

_SAMPLE_HEAD: Final = """\
# Settings of mm. Every key is shown with its default, commented out; uncomment what you change.
# Precedence: flag, MM_* environment (MM_LAKE, MM_RISK__MAX_ORDER_NOTIONAL), this file, default.
# Relative paths are relative to this file's folder. Keys of venues never stand here: see secrets_file.
"""
_SAMPLE_TAIL: Final = """
# Facts of instruments beside the built-in ones; dated, the latest valid_from_ns that is not later than the data counts.
# [[instruments]]
# instrument = "binanceusdm:BTC-USDT-PERP"
# tick_size = "0.1"            # quote per price step, a decimal string
# lot_size = "0.001"           # base per quantity step, a decimal string
# contract = "linear"          # spot, linear or inverse
# maker_fee = 0.0002           # fraction of notional, negative = rebate
# taker_fee = 0.0005
# min_notional = 100.0         # quote
# funding_interval_s = 28800   # s
# valid_from_ns = 0            # UTC ns since the epoch
"""


def write_default_toml() -> str:
    """A sample `mm.toml`: every key with its default, unit and meaning, all commented out."""
    lines = [_SAMPLE_HEAD]
    sections = []
    for name, info in Settings.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            sections.append((name, kind))
        elif info.description:
            lines.append(_sample_line(name, info.default, info.description))
    for name, kind in sections:
        lines.append(f"\n# {kind.__doc__}\n[{name}]")
        lines.extend(_sample_line(key, info.default, info.description or "") for key, info in kind.model_fields.items())
    return "\n".join(lines) + "\n" + _SAMPLE_TAIL


def _sample_line(key: str, default: object, description: str) -> str:
    if default is None:
        return f"# {key} = ...  # {description}"
    return f"# {key} = {_toml(default)}  # {description}"


def _toml(value: object) -> str:
    if isinstance(value, (str, Path)):
        return f'"{value}"'
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    return str(value)


def settings_markdown() -> str:
    """The documentation page: the commented sample file."""
    return f"# Settings\n\nCopy what you change into `mm.toml` in the folder you run `mm` from.\n\n```toml\n{write_default_toml().strip()}\n```\n"


if __name__ == "__main__":
    print(settings_markdown(), end="")
