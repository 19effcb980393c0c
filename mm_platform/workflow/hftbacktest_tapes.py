"""Tapes of hftbacktest into the lake and out of it.

Belongs here: `.npy` and `.npz` files, which partitions they make or may replace, days out of the lake into one file. Does not belong here: the
layout and what a file must fulfil (`decode.hftbacktest`), the tables of a partition (`partition_sink`).

A file is looked through before anything is written, so a file that is refused leaves nothing behind. Memory is bounded by the chunk on the way in
(and 16 bytes per event written twice), by a day on the way out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.config import Settings
from mm_platform.core.book_state import BookState
from mm_platform.core.errors import ConfigError, DataError, InvariantError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import NS_PER_DAY, NS_PER_S, day_start_ns, iso_utc, utc_date
from mm_platform.decode.hftbacktest import CHUNK_ROWS, EVENT, EventOrder, TapeCheck, book_columns, check_rows, event_rows, tape_columns
from mm_platform.lake.catalog import build_catalog
from mm_platform.lake.instrument_facts import load_facts
from mm_platform.lake.store import Commit, Lake, Partition
from mm_platform.tape.layout import COLUMNS, REPAIRED, Kind, Tape
from mm_platform.tape.messages import Columns
from mm_platform.tape.venue_order import venue_order
from mm_platform.workflow.data import configured_specs, ingest_settings
from mm_platform.workflow.ingest import IngestResult, IngestSettings
from mm_platform.workflow.partition_sink import FeedFacts, PartitionQuality, PartitionSink, stored_book, stored_quality
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.sources import Source, identify
from mm_platform.workflow.tapes import load_tape

__all__ = ["ExportResult", "export_tape", "import_tapes"]

Rows = npt.NDArray[np.void]

_KEY: Final = "data"
_NPY: Final = b"\x93NUMPY"
_ZIP: Final = b"PK\x03\x04"
_COPY_BYTES: Final = 4 << 20


# -- in ----------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Checked:
    """A file whose rows were found good."""

    source: Source
    rows: Rows
    spec: InstrumentSpec
    check: TapeCheck

    @property
    def name(self) -> str:
        return self.source.file.name


def import_tapes(
    settings: Settings, files: Sequence[Path], *, tick_size: str | None = None, lot_size: str | None = None, progress: Progress = silent
) -> IngestResult:
    """Write tapes in hftbacktest's layout into the lake as days of the settings' instrument.

    Parameters
    ----------
    settings : Settings
        `instrument`, `lake`, the limits of `ingest`, and facts of instruments that the package does not know.
    files : sequence of Path
        `.npy`, or `.npz` with the key `data`; one feed, in any order, none of them overlapping. The book goes on from one file to the next, as it
        does in hftbacktest.
    tick_size, lot_size : str, optional
        The tape's own grid (decimal strings) where it differs from the instrument's facts, or where these are not known.
    progress : Progress, optional

    Returns
    -------
    IngestResult

    Raises
    ------
    DataError
        A file that is missing, damaged or refused (`decode.hftbacktest.check_rows`), files that overlap, days that the lake has from other sources, a
        book that is crossed too often. Nothing is written then, except days that were complete before the one refused for its book.
    """
    if not files:
        raise ConfigError("no files given; expected tapes in hftbacktest's layout (.npy, or .npz with the key data)")
    instrument = InstrumentId.parse(settings.instrument)
    seen: dict[str, Source] = {}
    for path in files:
        if not Path(path).is_file():
            raise DataError(f"{path}: no such file; expected a tape in hftbacktest's layout (.npy or .npz)")
        source = identify(Path(path))
        seen.setdefault(source.file.sha256, source)
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mm-import-") as scratch:
        feed = []
        for number, source in enumerate(seen.values()):
            progress(f"check {instrument}", number, len(seen))
            rows = _open_rows(source.path, Path(scratch) / f"{number}.npy")
            spec = _spec(settings, instrument, rows, source.file.name, tick_size, lot_size, warnings)
            feed.append(_Checked(source, rows, spec, check_rows(rows, spec, source.file.name)))
        progress(f"check {instrument}", len(seen), len(seen))
        feed.sort(key=lambda f: (f.check.first_exch_ns, f.check.last_exch_ns))
        _one_feed(feed)
        lake = Lake.open(settings.lake)
        with lake.lock(instrument):
            _may_write(lake, instrument, feed)
            written = _Import(lake, instrument, feed, ingest_settings(settings), progress).run()
    warnings += [f"{f.name}: {f.check.ignored} rows flagged EXCH alone that neither side processes were left out" for f in feed if f.check.ignored]
    warnings += [
        f"{f.name}: {f.check.repeated_trades} trades equal the one above in everything; the layout has no trade ids, so they are kept as prints of their own"
        for f in feed
        if f.check.repeated_trades
    ]
    if not feed[0].check.from_snapshot:
        warnings.append(f"{feed[0].name} does not begin with a snapshot: its book is not whole until every level has been stated once")
    build_catalog(settings.lake)
    return IngestResult(written, tuple(warnings))


def _open_rows(path: Path, scratch: Path) -> Rows:
    """A file's rows, memory-mapped; those of an archive are unpacked to `scratch` first."""
    with path.open("rb") as file:
        magic = file.read(6)
    try:
        if magic.startswith(_ZIP):
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                if _KEY not in names:
                    raise DataError(f"{path}: the archive holds {', '.join(names) or 'nothing'}; expected the key {_KEY}, as hftbacktest writes it")
                with archive.open(f"{_KEY}.npy") as packed, scratch.open("wb") as out:
                    shutil.copyfileobj(packed, out, _COPY_BYTES)
            path = scratch
        elif magic != _NPY:
            raise DataError(f"{path}: begins with {magic!r}, neither .npy nor .npz; expected a tape in hftbacktest's layout")
        rows: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, ValueError) as err:
        raise DataError(f"{path}: the file is truncated or damaged ({err}); make or copy it again") from None
    return np.atleast_1d(rows)


def _spec(
    settings: Settings, instrument: InstrumentId, rows: Rows, name: str, tick_size: str | None, lot_size: str | None, warnings: list[str]
) -> InstrumentSpec:
    """The instrument's facts at the file's first row, with the grid that was stated."""
    facts = load_facts().with_settings(s for dated in configured_specs(settings).values() for s in dated)
    # what is wrong with the rows, the check says later
    times = rows["exch_ts"] if rows.dtype.names and "exch_ts" in rows.dtype.names and len(rows) else np.zeros(1, dtype=np.int64)
    first_ns, last_ns = int(times[0]), int(times[-1])
    known = bool(facts.specs.get(str(instrument)))
    if not known and tick_size is not None and lot_size is not None:
        text = f"{instrument}: no facts but the stated grid; stored as {'linear perpetual' if instrument.perp else 'spot'} without fees: add it to [[instruments]]"
        if text not in warnings:
            warnings.append(text)
        contract: Any = "linear" if instrument.perp else "spot"
        return InstrumentSpec(
            instrument=str(instrument), tick_size=tick_size, lot_size=lot_size, contract=contract, maker_fee=0.0, taker_fee=0.0, valid_from_ns=0
        )
    spec = facts.at(instrument, first_ns)
    last = facts.at(instrument, max(first_ns, last_ns))
    for which, stated in (("tick_size", tick_size), ("lot_size", lot_size)):
        if stated is None and getattr(spec, which) != getattr(last, which):
            raise DataError(
                f"{name}: the {which} of {instrument} changes from {getattr(spec, which)} to {getattr(last, which)} between its first row ({iso_utc(first_ns)}) and "
                f"its last ({iso_utc(last_ns)}); split the file there, or state the one it has"
            )
    changed = {which: stated for which, stated in (("tick_size", tick_size), ("lot_size", lot_size)) if stated is not None}
    return InstrumentSpec(**({f: getattr(spec, f) for f in spec.__struct_fields__} | changed))


def _one_feed(feed: Sequence[_Checked]) -> None:
    """Refuse files that do not follow each other on both clocks, or count in different steps."""
    for a, b in pairwise(feed):
        for clock in ("exch", "local"):
            ends, begins = getattr(a.check, f"last_{clock}_ns"), getattr(b.check, f"first_{clock}_ns")
            if begins < ends:
                raise DataError(
                    f"{b.name} begins at {clock}_ts {begins} ({iso_utc(begins)}), before {a.name} ends at {ends} ({iso_utc(ends)}): files of one feed follow "
                    "each other; give one of them, or cut them at one time"
                )
        if (a.spec.tick_size, a.spec.lot_size) != (b.spec.tick_size, b.spec.lot_size):
            raise DataError(
                f"{a.name} counts in ticks of {a.spec.tick_size} and lots of {a.spec.lot_size}, {b.name} in {b.spec.tick_size} and {b.spec.lot_size}; import "
                "them one after the other"
            )


def _may_write(lake: Lake, instrument: InstrumentId, feed: Sequence[_Checked]) -> None:
    """Refuse days that the lake has from other sources; those made of these files alone are made anew."""
    shas = {f.source.file.sha256 for f in feed}
    first, last = utc_date(min(f.check.first_local_ns for f in feed)), utc_date(max(f.check.last_local_ns for f in feed))
    for partition in lake.complete_partitions(instrument):
        if not first <= partition.date <= last:
            continue
        sources = stored_quality(lake, partition).source_files
        if not sources or not {f.sha256 for f in sources} <= shas:
            names = ", ".join(f.name for f in sources) or "the simulated market"
            raise DataError(
                f"{partition} refused: the lake has it already, from {names}; give all of its files in one call, or import into another lake (--lake)"
            )


class _Import:
    """Writes one feed's partitions one after the other.

    Rows come in venue order and partitions are days of receive time: around midnight both days' rows arrive mixed. What belongs to a later day waits
    until the venue's clock has left the day at hand, after which no row of it can follow.
    """

    def __init__(self, lake: Lake, instrument: InstrumentId, feed: Sequence[_Checked], settings: IngestSettings, progress: Progress) -> None:
        self._lake = lake
        self._instrument = instrument
        self._feed = feed
        self._settings = settings
        self._progress = progress
        self._sources = tuple(sorted(f.source.file for f in feed))
        self._done: list[PartitionQuality] = []
        self._waiting: list[Columns] = []
        self._day = utc_date(feed[0].check.first_exch_ns)
        self._commit: Commit | None = None
        self._sink: PartitionSink | None = None
        self._last_local_ns = -1
        self._gaps = 0
        self._longest_gap_ns = 0
        self._repaired = False

    def run(self) -> list[PartitionQuality]:
        total, done = sum(f.check.events for f in self._feed), 0
        try:
            for file in self._feed:
                for columns in tape_columns(file.rows, file.spec, file.check):
                    if len(columns["exch_ts"]):
                        self._add(columns, int(columns["exch_ts"][-1]), file.spec)
                        done += len(columns["exch_ts"])
                        self._progress(f"import {self._instrument}", done, total)
            spec = self._feed[-1].spec
            self._end_day()
            while self._waiting:
                columns = _concat(self._waiting)
                self._waiting = []
                self._day = utc_date(int(columns["local_ts"].min()))
                self._add(columns, -1, spec)
                self._end_day()
        finally:
            if self._commit is not None:
                self._commit.abort()
        return self._done

    def _add(self, columns: Columns, venue_ns: int, spec: InstrumentSpec) -> None:
        while True:
            end_ns = day_start_ns(self._day) + NS_PER_DAY
            mine = columns["local_ts"] < end_ns
            if mine.all():
                self._write(columns, spec)
            else:
                self._write({name: column[mine] for name, column in columns.items()}, spec)
                self._waiting.append({name: column[~mine] for name, column in columns.items()})
            if venue_ns < end_ns:
                return
            self._end_day()
            if not self._waiting:
                self._day = utc_date(venue_ns)
                return
            columns = _concat(self._waiting)
            self._waiting = []
            self._day = utc_date(int(columns["local_ts"].min()))

    def _write(self, columns: Columns, spec: InstrumentSpec) -> None:
        if not len(columns["exch_ts"]):
            return
        if self._sink is None:
            before = Partition(self._done[-1].venue, self._done[-1].symbol, self._done[-1].date) if self._done else None
            book, sha256 = (stored_book(self._lake, before), self._done[-1].tape_sha256) if before else (BookState.empty(), "")
            self._commit = self._lake.begin()
            self._sink = PartitionSink(self._commit, Partition.of(self._instrument, self._day), spec, book, before, sha256)
        self._sink.write(columns)
        # a tape that was ours says which of its local times were corrected; what is computed from it has to go on saying so
        self._repaired = self._repaired or bool(np.any(columns["flags"] & REPAIRED))
        seen = np.maximum.accumulate(np.concatenate(([self._last_local_ns], columns["local_ts"])))
        pauses = np.diff(seen[1:] if self._last_local_ns < 0 else seen)
        if len(pauses):
            self._gaps += int(np.count_nonzero(pauses > self._settings.build.silence_s * NS_PER_S))
            self._longest_gap_ns = max(self._longest_gap_ns, int(pauses.max()))
        self._last_local_ns = int(seen[-1])

    def _end_day(self) -> None:
        if self._sink is None or self._commit is None:
            return
        sink, counts = self._sink, self._sink.counts()
        allowed = self._settings.max_crossed_book_frac
        if counts.crossed_books > allowed * max(counts.depth_messages, 1):
            raise DataError(
                f"{sink.partition} refused: the book was crossed after {counts.crossed_books} of {counts.depth_messages} depth messages, allowed "
                f"{allowed:.4%}; rows are missing or out of order in {', '.join(f.name for f in self._feed)}"
            )
        reasons = [f"{counts.crossed_books} crossed books"] if counts.crossed_books else []
        if not self._done and not self._feed[0].check.from_snapshot:
            reasons.append("the book does not begin with a snapshot")
        facts = FeedFacts(
            lines=sink.rows, gaps=self._gaps, longest_gap_s=self._longest_gap_ns / NS_PER_S, clock_repaired=self._repaired, reason="; ".join(reasons)
        )
        quality = sink.close(facts, sources=self._sources, book_known=True, state=None)
        self._commit.commit()
        self._commit = self._sink = None
        self._done.append(quality)
        self._gaps = self._longest_gap_ns = 0
        self._repaired = False


def _concat(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


# -- out ---------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A tape written in hftbacktest's layout: `rows` in the file for `events` of the tape; the difference was written twice."""

    path: str
    instrument: str
    dates: tuple[date, ...]
    rows: int
    events: int
    tick_size: str
    lot_size: str
    tape_sha256: tuple[str, ...]

    def text(self) -> str:
        days = f"{self.dates[0]}" + (f" to {self.dates[-1]}" if len(self.dates) > 1 else "")
        return (
            f"{self.path}: {self.instrument} {days}, {self.events} events in {self.rows} rows ({self.rows - self.events} written twice); "
            f"tick_size({self.tick_size}), lot_size({self.lot_size})"
        )


def export_tape(settings: Settings, out: Path, first: date | None = None, last: date | None = None, progress: Progress = silent) -> ExportResult:
    """Write days of the settings' instrument as one tape in hftbacktest's layout.

    Parameters
    ----------
    settings : Settings
        `instrument` and `lake`.
    out : Path
        `.npy`, or `.npz` (key `data`); replaced when it is there, and only by a complete file.
    first, last : date, optional
        UTC days, both included; default: all complete days.
    progress : Progress, optional

    Returns
    -------
    ExportResult

    Raises
    ------
    DataError
        As `workflow.tapes.load_tape`; two grids among the days.
    ConfigError
        `out` ends in neither `.npy` nor `.npz`, or its folder is not there.
    """
    if out.suffix not in (".npy", ".npz"):
        raise ConfigError(f"{out}: ends in {out.suffix or 'nothing'}; expected .npy, or .npz (packed, with the key {_KEY})")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.absolute().parent}; make it first")
    lake, instrument = Lake.open(settings.lake), InstrumentId.parse(settings.instrument)
    days = _days(lake, instrument, first, last)
    specs: list[InstrumentSpec] = []
    order, events = EventOrder(), 0
    with tempfile.TemporaryDirectory(prefix=".mm-export-", dir=out.absolute().parent) as folder:
        plain = Path(folder) / "data.npy"
        with plain.open("wb") as file:
            writer = _RowWriter(file)
            for number, (tape, columns) in enumerate(_in_venue_order(lake, instrument, days)):
                progress(f"export {instrument}", number, len(days))
                if specs and (tape.spec.tick_size, tape.spec.lot_size) != (specs[0].tick_size, specs[0].lot_size):
                    raise DataError(
                        f"{instrument}: {days[number]} counts in ticks of {tape.spec.tick_size} and lots of {tape.spec.lot_size}, {days[0]} in "
                        f"{specs[0].tick_size} and {specs[0].lot_size}; export the days of one grid (--from, --to)"
                    )
                specs.append(tape.spec)
                for start in range(0, len(columns["exch_ts"]), CHUNK_ROWS):
                    part = {name: column[start : start + CHUNK_ROWS] for name, column in columns.items()}
                    events += len(part["exch_ts"])
                    writer.write(order.push(event_rows(part, tape.spec)))
            writer.write(order.flush())
            writer.finish()
        finished = plain
        if out.suffix == ".npz":
            finished = Path(folder) / "data.npz"
            with zipfile.ZipFile(finished, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
                archive.write(plain, f"{_KEY}.npy")
        os.replace(finished, out)
    progress(f"export {instrument}", len(days), len(days))
    return ExportResult(
        path=str(out),
        instrument=str(instrument),
        dates=tuple(days),
        rows=writer.rows,
        events=events,
        tick_size=specs[0].tick_size,
        lot_size=specs[0].lot_size,
        tape_sha256=tuple(stored_quality(lake, Partition.of(instrument, day)).tape_sha256 for day in days),
    )


def _days(lake: Lake, instrument: InstrumentId, first: date | None, last: date | None) -> list[date]:
    complete = [p.date for p in lake.complete_partitions(instrument)]
    days = [d for d in complete if (first is None or d >= first) and (last is None or d <= last)]
    if not days:
        have = f"complete days: {complete[0]} to {complete[-1]}" if complete else "it has no complete day of it; ingest data first"
        raise DataError(f"{instrument}: the lake {lake.root} has no day from {first or 'the first'} to {last or 'the last'}; {have}")
    for wanted in (first, last):
        if wanted is not None and wanted not in days:
            raise DataError(f"{instrument}: no complete data on {wanted}; complete days: {', '.join(d.isoformat() for d in complete)}")
    for a, b in pairwise(days):
        if (b - a).days != 1:
            raise DataError(f"{instrument}: {a} is followed by {b}; a tape has no hole: export the days before or after it (--from, --to)")
    return days


def _in_venue_order(lake: Lake, instrument: InstrumentId, days: Sequence[date]) -> Iterator[tuple[Tape, Columns]]:
    """Day after day, with the rows of each that are final: days are divided by receive time, so that their rows mix in venue time at midnight."""
    held: Columns | None = None
    for number, day in enumerate(days):
        tape = load_tape(lake, instrument, [day])
        columns: Columns = dict(tape.columns())
        first_ns = int(columns["exch_ts"][0])
        if number == 0 and (len(tape.initial_book.bid_ticks) or len(tape.initial_book.ask_ticks)):
            columns = _concat((book_columns(tape.initial_book, first_ns), columns))
        if number > 0 and not lake.metadata("tape", Partition.of(instrument, day)).get("continues") and columns["kind"][0] != Kind.CLEAR:
            # a day that does not go on from the one before leaves nothing of its book
            columns = _concat((book_columns(BookState.empty(), first_ns), columns))
        if held is not None and len(held["exch_ts"]):
            seam = int(np.searchsorted(columns["exch_ts"], held["exch_ts"][-1], side="right"))
            mixed = _concat((held, {name: column[:seam] for name, column in columns.items()}))
            by_venue = venue_order(mixed["exch_ts"], mixed["kind"], mixed["seq"])
            columns = _concat(({name: column[by_venue] for name, column in mixed.items()}, {name: column[seam:] for name, column in columns.items()}))
        final = len(columns["exch_ts"])
        if number + 1 < len(days):
            following_ns = stored_quality(lake, Partition.of(instrument, days[number + 1])).first_exch_ts
            final = int(np.searchsorted(columns["exch_ts"], following_ns, side="left"))
        held = {name: column[final:] for name, column in columns.items()}
        yield tape, {name: column[:final] for name, column in columns.items()}


class _RowWriter:
    """Rows appended to a `.npy` file whose length is known only at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self.rows = 0
        self._file = file
        self._write_header()
        self._begin = file.tell()

    def write(self, rows: Rows) -> None:
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self.rows += len(rows)

    def finish(self) -> None:
        """Put the number of rows into the header (numpy leaves room for any number there)."""
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._begin:
            raise InvariantError(f"the .npy header grew from {self._begin} to {self._file.tell()} bytes; it overwrites the first rows")

    def _write_header(self) -> None:
        described = {"descr": np.lib.format.dtype_to_descr(EVENT), "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(self._file, described)
