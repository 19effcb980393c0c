"""Instruments: ids, dated contract facts, and the only conversion between wire decimals and integer ticks and lots.

Belongs here: id parsing (`<venue>:<BASE>-<QUOTE>[-PERP]`), the mapping of the guide's and the venues' own spellings, tick/lot arithmetic.
Does not belong here: where the facts of an instrument are read from (`config`), or venue clients.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from enum import IntEnum
from typing import Final, Literal

import msgspec

from mm_platform.core.errors import ConfigError, DataError


class Side(IntEnum):
    """Direction with the sign the formulas use: buying is +1."""

    BUY = 1
    SELL = -1


# The guide's and other systems' names for what ccxt calls otherwise.
_VENUE_ALIASES: Final = {
    "binancefutures": "binanceusdm",
    "binance_futures": "binanceusdm",
    "binance-futures": "binanceusdm",
    "binance_usdm": "binanceusdm",
    "gateio": "gate",
    "dydxv4": "dydx",
    "dydx_v4": "dydx",
}
_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD", "BTC", "ETH", "EUR")
_ID: Final = re.compile(r"(?P<venue>[a-z][a-z0-9_]*):(?P<base>[A-Z0-9]+)-(?P<quote>[A-Z0-9]+)(?P<perp>-PERP)?")


def venue_id(name: str) -> str:
    """Map a venue's name as users write it to its ccxt id (`binancefutures` means `binanceusdm`)."""
    lowered = name.strip().lower()
    return _VENUE_ALIASES.get(lowered, lowered)


@dataclass(frozen=True, slots=True, order=True)
class InstrumentId:
    """`<venue>:<BASE>-<QUOTE>` (spot) or `<venue>:<BASE>-<QUOTE>-PERP`."""

    venue: str
    base: str
    quote: str
    perp: bool

    @classmethod
    def parse(cls, text: str) -> InstrumentId:
        """Parse an id; raises `ConfigError` that says what was expected."""
        match = _ID.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"instrument id {text!r} is not of the form <venue>:<BASE>-<QUOTE> or <venue>:<BASE>-<QUOTE>-PERP, e.g. binanceusdm:BTC-USDT-PERP"
            )
        return cls(match["venue"], match["base"], match["quote"], match["perp"] is not None)

    @classmethod
    def from_wire(cls, venue: str, wire_symbol: str) -> InstrumentId:
        """From a venue's own symbol (`BTCUSDT`, `BTC/USDT`, `BTC/USDT:USDT`, `TRXUSD_PERP`)."""
        vid = venue_id(venue)
        text = wire_symbol.strip().upper()
        perp = vid in ("binanceusdm", "binancecoinm", "kucoinfutures", "hyperliquid", "dydx") or ":" in text
        for suffix in ("_PERP", "-PERP", "-PERPETUAL", "-SWAP"):
            if text.endswith(suffix):
                text, perp = text[: -len(suffix)], True
        text = text.split(":")[0]
        for sep in ("/", "-", "_"):
            if sep in text:
                base, quote = text.split(sep, 1)
                return cls.parse(f"{vid}:{base}-{quote}" + ("-PERP" if perp else ""))
        for quote in _QUOTES:
            if text.endswith(quote) and len(text) > len(quote):
                return cls.parse(f"{vid}:{text[: -len(quote)]}-{quote}" + ("-PERP" if perp else ""))
        raise DataError(f"symbol {wire_symbol!r} of {vid}: cannot be split into base and quote; known quotes: {', '.join(_QUOTES)}")

    @property
    def symbol(self) -> str:
        """The part after the venue, also the Hive folder value: `BTC-USDT-PERP`."""
        return f"{self.base}-{self.quote}" + ("-PERP" if self.perp else "")

    @property
    def guide_symbol(self) -> str:
        """The guide's spelling, `BTC/USDT` (perps as ccxt writes them, `BTC/USDT:USDT`)."""
        return f"{self.base}/{self.quote}" + (f":{self.quote}" if self.perp else "")

    @property
    def model_name(self) -> str:
        """The registered model's name in MLflow: `mm.<venue>.<symbol>`."""
        return f"mm.{self.venue}.{self.symbol}"

    def __str__(self) -> str:
        return f"{self.venue}:{self.symbol}"


def _positive_decimal(name: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ConfigError(f"{name} {text!r} is not a decimal number") from None
    if not value.is_finite() or value <= 0:
        raise ConfigError(f"{name} must be a positive number, got {text!r}")
    return value


class InstrumentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Dated facts of one instrument; a tape never mixes two.

    Parameters
    ----------
    instrument : str
        Instrument id.
    tick_size, lot_size, multiplier : str
        Decimal strings: quote per price step; base (or contracts) per quantity step; base per contract.
    contract : {"spot", "linear", "inverse"}
    maker_fee, taker_fee : float
        Fraction of notional; negative = rebate.
    min_notional : float
        Smallest order the venue takes, in quote.
    funding_interval_s : int or None
        Seconds between funding stamps; None for spot.
    valid_from_ns : int
        These facts hold from here on (UTC ns).
    """

    instrument: str
    tick_size: str
    lot_size: str
    contract: Literal["spot", "linear", "inverse"]
    maker_fee: float
    taker_fee: float
    multiplier: str = "1"
    min_notional: float = 0.0
    funding_interval_s: int | None = None
    valid_from_ns: int = 0

    def __post_init__(self) -> None:
        InstrumentId.parse(self.instrument)
        _positive_decimal(f"{self.instrument}: tick_size", self.tick_size)
        _positive_decimal(f"{self.instrument}: lot_size", self.lot_size)
        _positive_decimal(f"{self.instrument}: multiplier", self.multiplier)

    @property
    def id(self) -> InstrumentId:
        return InstrumentId.parse(self.instrument)

    @property
    def tick(self) -> Decimal:
        return Decimal(self.tick_size)

    @property
    def lot(self) -> Decimal:
        return Decimal(self.lot_size)

    @property
    def lot_base(self) -> float:
        """Base currency per lot (lot size times contract multiplier)."""
        return float(self.lot * Decimal(self.multiplier))

    # -- wire decimals -> integers -----------------------------------------------------------------
    def price_to_ticks(self, price: str | Decimal, side: Side | None = None) -> int:
        """Decimal price to integer ticks.

        With `side` the result never improves on what was asked (a bid rounds down, an ask rounds up); without it the price must lie
        on the grid, else `DataError`.
        """
        return _to_steps(
            price, self.tick, None if side is None else (ROUND_FLOOR if side == Side.BUY else ROUND_CEILING), f"{self.instrument}: price"
        )

    def qty_to_lots(self, qty: str | Decimal, *, down: bool = False) -> int:
        """Decimal quantity to integer lots; off the grid raises `DataError` unless `down`."""
        return _to_steps(qty, self.lot, ROUND_FLOOR if down else None, f"{self.instrument}: quantity")

    def base_to_lots(self, base: float) -> int:
        """Base amount (model side, float) to whole lots, towards zero, tolerant of float noise below 1e-6 lots."""
        lots = base / self.lot_base
        nearest = round(lots)
        return int(nearest) if abs(lots - nearest) < 1e-6 else int(lots)

    # -- integers -> decimals ----------------------------------------------------------------------
    def ticks_to_price(self, ticks: int) -> float:
        return float(self.tick * int(ticks))

    def ticks_to_decimal(self, ticks: int) -> Decimal:
        return self.tick * int(ticks)

    def lots_to_decimal(self, lots: int) -> Decimal:
        return self.lot * int(lots)

    def lots_to_base(self, lots: int) -> float:
        return float(self.lot * Decimal(self.multiplier) * int(lots))


def _to_steps(value: str | Decimal, step: Decimal, rounding: str | None, what: str) -> int:
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise DataError(f"{what} {value!r} is not a decimal number") from None
    if not number.is_finite():
        raise DataError(f"{what} {value!r} is not finite")
    steps = number / step
    whole = steps.to_integral_value(rounding=rounding) if rounding is not None else steps.to_integral_value()
    if rounding is None and whole != steps:
        raise DataError(f"{what} {value} is not a multiple of {step}; the instrument's grid is wrong or changed")
    return int(whole)


def spec_at(specs: list[InstrumentSpec], ts_ns: int) -> InstrumentSpec:
    """The facts valid at a time, out of one instrument's dated list (any order)."""
    valid = [s for s in specs if s.valid_from_ns <= ts_ns]
    if not valid:
        raise DataError(f"no facts (tick, lot, fees) for {specs[0].instrument if specs else 'the instrument'} at {ts_ns} ns")
    return max(valid, key=lambda s: s.valid_from_ns)
