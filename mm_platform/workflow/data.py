"""Market data as the project's settings say: files given by hand, days of the simulated market, or one instrument-day for the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

from mm_platform.config import Settings
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.lake.catalog import build_catalog
from mm_platform.lake.store import Lake
from mm_platform.tape.build import BuildSettings
from mm_platform.workflow.ingest import IngestResult, IngestSettings, ingest, ingest_simulated, sources_by_instrument
from mm_platform.workflow.partition_sink import PartitionQuality
from mm_platform.workflow.progress import Progress, silent

_FUNDING_FILES: Final = ("_funding_history.csv", "_funding_history.csv.gz")


def ingest_settings(settings: Settings) -> IngestSettings:
    """The ingest step's limits from the project's settings."""
    i = settings.ingest
    return IngestSettings(
        build=BuildSettings(clock_floor_ms=i.clock_floor_ms),
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
    """Decode files of any instruments into the lake, and see that analysts find its catalog."""
    result = ingest(Lake.open(settings.lake), files, configured_specs(settings), ingest_settings(settings), progress)
    build_catalog(settings.lake)
    return result


def ingest_simulated_days(settings: Settings, days: int, progress: Progress = silent) -> IngestResult:
    """Write days of the simulated market, perp and spot, from the configured first day on, and see that analysts find the catalog."""
    result = ingest_simulated(Lake.open(settings.lake), days, settings.seed, settings.simulate.start, progress)
    build_catalog(settings.lake)
    return result


def ingest_days(settings: Settings, days: Sequence[date], progress: Progress = silent) -> list[PartitionQuality]:
    """Days of the settings' instrument for the scheduler: simulated for `sim`, else decoded from the files in `raw_dir`.

    All of the instrument's files are read in order, since a day's book continues the day before; days that are there already stay as they are.

    Parameters
    ----------
    settings
    days
        UTC days, without repeats.
    progress

    Returns
    -------
    list of PartitionQuality
        One per day, in the order of `days`.

    Raises
    ------
    DataError
        No raw folder, no file of the instrument, none that holds a day, or a day that is refused.
    """
    instrument = InstrumentId.parse(settings.instrument)
    lake = Lake.open(settings.lake)
    if instrument.venue == "sim":
        written = [p for day in days for p in ingest_simulated(lake, 1, settings.seed, day, progress).partitions]
    else:
        files = raw_files(settings)
        mine = sources_by_instrument(files, configured_specs(settings)).get(instrument, [])
        if not mine:
            raise DataError(f"{instrument}: none of the {len(files)} files in {settings.raw_dir} is a capture of it; put one there or set raw_dir")
        written = ingest(lake, mine, configured_specs(settings), ingest_settings(settings), progress).partitions
    found = {p.date: p for p in written if (p.venue, p.symbol) == (instrument.venue, instrument.symbol)}
    missing = [day for day in days if day not in found]
    if missing:
        have = f"days {', '.join(map(str, sorted(found)))}" if found else "no day of it"
        raise DataError(f"{instrument}: expected {', '.join(map(str, missing))}, the source holds {have}; pick one of those, or add the files")
    build_catalog(settings.lake)
    return [found[day] for day in days]


def raw_files(settings: Settings) -> list[Path]:
    """Every file below `raw_dir`, sorted; `DataError` when there is no such folder."""
    if settings.raw_dir is None or not settings.raw_dir.is_dir():
        raise DataError(
            f"{settings.instrument}: raw_dir is {settings.raw_dir or 'not set'}, expected the folder that holds the captures; set MM_RAW_DIR, or raw_dir in mm.toml"
        )
    return sorted(path for path in settings.raw_dir.rglob("*") if path.is_file() and not path.name.startswith("."))


def funding_history_files(settings: Settings) -> list[Path]:
    """Files of funding history below `raw_dir`; none when no folder is set."""
    if settings.raw_dir is None:
        return []
    return [path for path in raw_files(settings) if path.name.endswith(_FUNDING_FILES)]


def instruments_at_hand(settings: Settings) -> list[str]:
    """Ids of the configured instrument, of those the settings give facts of, and of every instrument with a day in the lake, sorted."""
    stored = {str(p.instrument) for p in Lake(settings.lake).partitions("data_quality")}
    return sorted(stored | set(configured_specs(settings)) | {settings.instrument})
