"""Partitions: instrument x day.

Dagster takes two dimensions at most, so venue and symbol are one key, the instrument id. Instruments become known at run time (the sensor
`known_instruments`, the job `register_instrument`); days are UTC days. Days before 2023 need an earlier start here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final

import dagster as dg

from mm_platform.core.instrument import InstrumentId

_INSTRUMENTS_NAME: Final = "instruments"
INSTRUMENTS: Final = dg.DynamicPartitionsDefinition(name=_INSTRUMENTS_NAME)
DAYS: Final = dg.DailyPartitionsDefinition(start_date="2023-01-01")
INSTRUMENT_DAY: Final = dg.MultiPartitionsDefinition({"instrument": INSTRUMENTS, "date": DAYS})


def partition_key(instrument: str, day: date) -> dg.MultiPartitionKey:
    """The key of an instrument's day: `<date>|<instrument>`."""
    return dg.MultiPartitionKey({"instrument": instrument, "date": day.isoformat()})


def instrument_day(key: str) -> tuple[str, date]:
    """Instrument id and UTC day of one partition key (Dagster joins dimensions in the order of their names: date, instrument)."""
    day, _, instrument = key.partition("|")
    return str(InstrumentId.parse(instrument)), date.fromisoformat(day)


def days_by_instrument(keys: Iterable[str]) -> dict[str, list[date]]:
    """The days of each instrument, in order, out of the keys of one run."""
    found: dict[str, list[date]] = {}
    for instrument, day in sorted(map(instrument_day, keys)):
        found.setdefault(instrument, []).append(day)
    return found


def registered(instance: dg.DagsterInstance) -> list[str]:
    """Instruments whose partitions are known."""
    return sorted(instance.get_dynamic_partitions(_INSTRUMENTS_NAME))


def register(instance: dg.DagsterInstance, instrument: str) -> bool:
    """Make an instrument's partitions known; False when they were. `ConfigError` when it is no instrument id."""
    key = str(InstrumentId.parse(instrument))
    if instance.has_dynamic_partition(_INSTRUMENTS_NAME, key):
        return False
    instance.add_dynamic_partitions(_INSTRUMENTS_NAME, [key])
    return True
