"""Dated facts of instruments, read from `instrument_facts.toml` and laid under what the settings say.

Belongs here: reading and checking the file, finding an instrument by its venue's own symbol. Does not belong here: arithmetic with the facts
(`core.instrument`), facts asked from a venue (`exchange_connectors`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Literal

import msgspec

import mm_platform
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec, spec_at, venue_id
from mm_platform.core.units import day_start_ns, iso_utc, utc_date

FACTS_FILE: Final = "instrument_facts.toml"


class _Dated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    valid_from: date
    tick_size: str
    lot_size: str
    maker_fee: float
    taker_fee: float
    multiplier: str = "1"
    min_notional: float = 0.0


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    contract: Literal["spot", "linear", "inverse"]
    facts: tuple[_Dated, ...]
    wire: tuple[str, ...] = ()
    funding_interval_s: int | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instrument: tuple[_Entry, ...]


@dataclass(frozen=True)
class InstrumentFacts:
    """Facts by instrument, and the symbols that do not explain themselves.

    Parameters
    ----------
    specs : dict of str to list of InstrumentSpec
        By instrument id, oldest first.
    wire : dict of (venue id, wire symbol) to instrument id
    """

    specs: dict[str, list[InstrumentSpec]]
    wire: dict[tuple[str, str], str]

    def resolve(self, venue: str, wire_symbol: str) -> InstrumentId:
        """The instrument a venue calls `wire_symbol`.

        Raises
        ------
        DataError
            The symbol is not known and cannot be split into base and quote.
        """
        vid = venue_id(venue)
        known = self.wire.get((vid, wire_symbol.strip().upper()))
        return InstrumentId.parse(known) if known else InstrumentId.from_wire(vid, wire_symbol)

    def at(self, instrument: InstrumentId, ts_ns: int) -> InstrumentSpec:
        """The facts of an instrument valid at a time (UTC ns).

        Raises
        ------
        DataError
            None are known; the message says what to add and where.
        """
        dated = self.specs.get(str(instrument))
        if not dated:
            raise DataError(
                f'{instrument}: tick size, lot size and fees are not known; add an [[instruments]] table to mm.toml with instrument = "{instrument}", '
                f"tick_size, lot_size (decimal strings), contract (spot, linear, inverse), maker_fee, taker_fee; known: {', '.join(sorted(self.specs))}"
            )
        if ts_ns < dated[0].valid_from_ns:
            raise DataError(
                f"{instrument}: facts are known from {utc_date(dated[0].valid_from_ns)} on, the data is of {iso_utc(ts_ns)}; add an [[instruments]] table to "
                "mm.toml with an earlier valid_from_ns"
            )
        return spec_at(dated, ts_ns)

    def with_settings(self, specs: Iterable[InstrumentSpec]) -> InstrumentFacts:
        """These facts, with an instrument's list replaced where the settings state one."""
        stated: dict[str, list[InstrumentSpec]] = {}
        for spec in specs:
            stated.setdefault(spec.instrument, []).append(spec)
        merged = self.specs | {iid: sorted(dated, key=lambda s: s.valid_from_ns) for iid, dated in stated.items()}
        return InstrumentFacts(merged, self.wire)


def load_facts(path: Path | None = None) -> InstrumentFacts:
    """Read the facts that come with the package (or another file of the same form).

    Raises
    ------
    ConfigError
        The file is missing or not of the form; the entry is named.
    """
    file = path or Path(mm_platform.__file__).parent / FACTS_FILE
    try:
        parsed = msgspec.convert(tomllib.loads(file.read_text()), _File)
    except FileNotFoundError:
        raise ConfigError(f"{file} is not there; it comes with the package: install again") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as err:
        raise ConfigError(f"{file}: {err}") from None
    specs: dict[str, list[InstrumentSpec]] = {}
    wire: dict[tuple[str, str], str] = {}
    for entry in parsed.instrument:
        iid = InstrumentId.parse(entry.id)
        if entry.id in specs:
            raise ConfigError(f"{file}: {entry.id} is stated twice")
        if not entry.facts:
            raise ConfigError(f"{file}: {entry.id} has no [[instrument.facts]]")
        specs[entry.id] = sorted(
            (
                InstrumentSpec(
                    instrument=entry.id,
                    tick_size=f.tick_size,
                    lot_size=f.lot_size,
                    multiplier=f.multiplier,
                    contract=entry.contract,
                    maker_fee=f.maker_fee,
                    taker_fee=f.taker_fee,
                    min_notional=f.min_notional,
                    funding_interval_s=entry.funding_interval_s,
                    valid_from_ns=day_start_ns(f.valid_from),
                )
                for f in entry.facts
            ),
            key=lambda s: s.valid_from_ns,
        )
        for symbol in entry.wire:
            wire[iid.venue, symbol] = entry.id
    return InstrumentFacts(specs, wire)
