"""Partitions: instrument x day.

Dagster takes two dimensions at most, so venue and symbol are one key, the instrument id. Instruments are added at run time (`register`,
or the job `register_instrument`); days are UTC days.
"""

from __future__ import annotations

from datetime import date

import dagster as dg

from mm_platform.core.instrument import InstrumentId

INSTRUMENTS = dg.DynamicPartitionsDefinition(name="instruments")
DAYS = dg.DailyPartitionsDefinition(start_date="2023-01-01", end_offset=0)
INSTRUMENT_DAY = dg.MultiPartitionsDefinition({"instrument": INSTRUMENTS, "date": DAYS})


def instrument_day(partition_key: str) -> tuple[str, date]:
    """Instrument id and UTC day of one partition key (dimensions are joined in the order of their names: date, instrument)."""
    day, _, instrument = partition_key.partition("|")
    InstrumentId.parse(instrument)
    return instrument, date.fromisoformat(day)


def register(instance: dg.DagsterInstance, instrument: str) -> None:
    """Make an instrument's partitions known."""
    InstrumentId.parse(instrument)
    if not instance.has_dynamic_partition("instruments", instrument):
        instance.add_dynamic_partitions("instruments", [instrument])
