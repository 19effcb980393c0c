"""Where things lie in the lake: partitions, file names, durable writes.

Belongs here: the mapping between (table, partition) and paths, its validation, and the two file-system steps everything else relies on
(flush a file or folder to disk, make folders durably). Does not belong here: what is in the files.

```
<lake>/<table>/venue=<venue>/symbol=<symbol>/date=<YYYY-MM-DD>/part-0.parquet
<lake>/<table>/venue=<venue>/symbol=<symbol>/date=<YYYY-MM-DD>/part-<run>.parquet    tables by run: one file per run, part-0 never exists
<lake>/<table>/venue=~schema/symbol=~schema/date=9999-12-31/part-schema.parquet    no rows; the last file of any glob over the table
<lake>/.commits/    commit records and the lists of temporaries of open commits
<lake>/.locks/      one file per writer lock
```

The schema file has the shape of a partition because DuckDB wants the same Hive keys in every file of a glob, and no glob may be empty;
`~` sorts behind every venue, so that plans are estimated from a file with rows where there is one.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import utc_date

DATA_FILE: Final = "part-0.parquet"
FILES: Final = "part-*.parquet"
SCHEMA_FILE: Final = "part-schema.parquet"
GLOB: Final = "*/*/*/part-*.parquet"
COMMITS: Final = ".commits"
LOCKS: Final = ".locks"
_SCHEMA_FOLDERS: Final = ("venue=~schema", "symbol=~schema", "date=9999-12-31")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_RUN: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One instrument's UTC day.

    Raises
    ------
    ConfigError
        Venue and symbol do not form an instrument id (nothing else may become a folder name).
    """

    venue: str
    symbol: str
    date: datetime.date

    def __post_init__(self) -> None:
        InstrumentId.parse(f"{self.venue}:{self.symbol}")
        if type(self.date) is not datetime.date:
            raise ConfigError(f"partition date of {self.venue}:{self.symbol} must be a datetime.date, got {self.date!r}")

    @classmethod
    def of(cls, instrument: InstrumentId, day: datetime.date) -> Partition:
        return cls(instrument.venue, instrument.symbol, day)

    @classmethod
    def at(cls, instrument: InstrumentId, ts_ns: int) -> Partition:
        """The partition a local time (UTC ns) belongs to."""
        return cls.of(instrument, utc_date(ts_ns))

    @property
    def instrument(self) -> InstrumentId:
        return InstrumentId.parse(f"{self.venue}:{self.symbol}")

    @property
    def folder(self) -> Path:
        """Path below the table's folder."""
        return Path(f"venue={self.venue}", f"symbol={self.symbol}", f"date={self.date.isoformat()}")

    def __str__(self) -> str:
        return f"{self.venue}:{self.symbol} {self.date.isoformat()}"


def data_path(root: Path, table: str, partition: Partition, run: str = "") -> Path:
    """The file that holds one partition of one table; of a table by run, the rows of one run (hexadecimal digits).

    Raises
    ------
    ConfigError
        A run id that is not 8 to 64 lower-case hexadecimal digits (it becomes a file name).
    """
    if run and not _RUN.fullmatch(run):
        raise ConfigError(f"table {table}: run id {run!r} is not 8 to 64 hexadecimal digits in lower case; use a hash of what was run")
    return root / table / partition.folder / (f"part-{run}.parquet" if run else DATA_FILE)


def data_paths(root: Path, table: str, partition: Partition) -> list[Path]:
    """The files of one partition that are there, sorted: one, or one per run."""
    return sorted((root / table / partition.folder).glob(FILES))


def schema_path(root: Path, table: str) -> Path:
    """The table's file without rows."""
    return root.joinpath(table, *_SCHEMA_FOLDERS, SCHEMA_FILE)


def list_partitions(root: Path, table: str) -> list[Partition]:
    """Partitions that have a file, sorted.

    Raises
    ------
    DataError
        A folder of Hive form whose value is no venue, symbol or day.
    """
    found = []
    for venue_dir in _hive_folders(root / table, "venue"):
        if venue_dir.name == _SCHEMA_FOLDERS[0]:
            continue
        for symbol_dir in _hive_folders(venue_dir, "symbol"):
            for date_dir in _hive_folders(symbol_dir, "date"):
                if any(date_dir.glob(FILES)):
                    found.append(_partition_of(date_dir))
    return sorted(found)


def _hive_folders(folder: Path, key: str) -> Iterator[Path]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name.startswith(f"{key}=") and e.is_dir())
    for name in names:
        yield folder / name


def _partition_of(date_dir: Path) -> Partition:
    day, symbol, venue = (part.name.partition("=")[2] for part in (date_dir, date_dir.parent, date_dir.parent.parent))
    if not _DAY.fullmatch(day):
        raise DataError(f"{date_dir}: {day!r} is not a day of the form YYYY-MM-DD; move the folder out of the lake")
    try:
        return Partition(venue, symbol, datetime.date.fromisoformat(day))
    except (ConfigError, ValueError) as err:
        raise DataError(f"{date_dir}: not a partition ({err}); move the folder out of the lake") from None


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    _fsync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries (renames, new files) to the disk."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Create a folder and its parents so that they survive a power cut."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_durably(path: Path, content: bytes, temporary: Path) -> None:
    """Write a small file by way of a temporary in the same folder: afterwards the path holds all of the content, or what it held before."""
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
