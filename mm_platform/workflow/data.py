"""Market data as the project's settings say: files given by hand, days of the simulated market, or one instrument-day for the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from mm_platform.config import Settings
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import NS_PER_MS
from mm_platform.lake.store import Lake
from mm_platform.tape.build import BuildSettings
from mm_platform.workflow.ingest import IngestResult, IngestSettings, ingest, ingest_simulated, sources_by_instrument
from mm_platform.workflow.partition_sink import PartitionQuality
from mm_platform.workflow.progress import Progress, silent


def ingest_settings(settings: Settings) -> IngestSettings:
    """The ingest step's limits from the project's settings."""
    i = settings.ingest
    return IngestSettings(
        build=BuildSettings(clock_floor_ns=round(i.clock_floor_ms * NS_PER_MS)),
        max_sequence_break_frac=i.max_sequence_break_frac,
        max_crossed_book_frac=i.max_crossed_book_frac,
        max_bad_line_frac=i.max_bad_line_frac,
    )


def configured_specs(settings: Settings) -> dict[str, list[InstrumentSpec]]:
    """Facts of instruments that the settings add, by id."""
    found: dict[str, list[InstrumentSpec]] = {}
    for spec in settings.instruments:
        found.setdefault(spec.instrument, []).append(spec)
    return found


def ingest_files(settings: Settings, files: Sequence[Path], progress: Progress = silent) -> IngestResult:
    """Decode files of any instruments into the lake."""
    return ingest(Lake.open(settings.lake), files, configured_specs(settings), ingest_settings(settings), progress)


def ingest_simulated_days(settings: Settings, days: int, progress: Progress = silent) -> IngestResult:
    """Write days of the simulated market, perp and spot, from the configured first day on."""
    return ingest_simulated(Lake.open(settings.lake), days, settings.seed, settings.simulate.start, progress)


def ingest_day(settings: Settings, day: date, progress: Progress = silent) -> PartitionQuality:
    """One instrument's day: simulated for `sim`, else decoded from the files in `raw_dir`.

    All of the instrument's files are read in order, since a day's book continues the day before; days that are there already stay as they are.

    Raises
    ------
    DataError
        No raw folder, no file of the instrument, or none that holds the day.
    """
    instrument = InstrumentId.parse(settings.instrument)
    lake = Lake.open(settings.lake)
    if instrument.venue == "sim":
        result = ingest_simulated(lake, 1, settings.seed, day, progress)
    else:
        if settings.raw_dir is None or not settings.raw_dir.is_dir():
            raise DataError(f"{instrument}: raw_dir is {settings.raw_dir}; set it (MM_RAW_DIR or mm.toml) to the folder that holds the captures")
        files = sorted(path for path in settings.raw_dir.rglob("*") if path.is_file() and not path.name.startswith("."))
        mine = sources_by_instrument(files, configured_specs(settings)).get(instrument, [])
        if not mine:
            raise DataError(f"{instrument}: none of the {len(files)} files in {settings.raw_dir} is a capture of it")
        result = ingest(lake, mine, configured_specs(settings), ingest_settings(settings), progress)
    for partition in result.partitions:
        if (partition.venue, partition.symbol, partition.date) == (instrument.venue, instrument.symbol, day):
            return partition
    have = ", ".join(str(p.date) for p in result.partitions if p.symbol == instrument.symbol)
    raise DataError(f"{instrument}: the files hold {have or 'no day'}, not {day}")
