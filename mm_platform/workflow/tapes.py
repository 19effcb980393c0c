"""Tapes out of the lake: complete days in a row as one tape, and the manifest that says which files it is.

Belongs here: reading and joining partitions. Does not belong here: writing them (`ingest`, `partition_sink`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise

import msgspec
import numpy as np

from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import iso_utc
from mm_platform.lake.columns import numpy_column
from mm_platform.lake.store import Lake, Partition
from mm_platform.tape.book_path import book_at
from mm_platform.tape.layout import COLUMNS, LAST, BookState, Kind, Tape
from mm_platform.tape.messages import Columns
from mm_platform.tape.venue_order import venue_order
from mm_platform.workflow.partition_sink import stored_book, stored_quality
from mm_platform.workflow.sources import SourceFile

__all__ = ["Manifest", "ManifestPartition", "load_tape", "manifest"]


class ManifestPartition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One day of a dataset: its rows, fingerprint, the stored file's checksum, and the source files it was made from."""

    date: date
    rows: int
    tape_sha256: str
    file: str
    file_sha256: str
    code_version: str
    sources: tuple[SourceFile, ...]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a dataset is made of; `sha256` is the tape's own fingerprint (`Tape.sha256` of the same days)."""

    schema: int = 1
    instrument: str
    sha256: str
    rows: int
    partitions: tuple[ManifestPartition, ...]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return msgspec.json.encode(self, order="sorted").decode()


def load_tape(
    lake: Lake, instrument: InstrumentId, dates: Sequence[date] | None = None, start_ns: int | None = None, end_ns: int | None = None
) -> Tape:
    """Complete days in a row as one tape.

    Parameters
    ----------
    lake : Lake
    instrument : InstrumentId
    dates : sequence of date, optional
        UTC days without a hole, in any order; default: all complete days, which must have no hole either.
    start_ns, end_ns : int, optional
        Only rows with start <= exch_ts < end [ns UTC]; the initial book is then the one at `start_ns`.

    Returns
    -------
    Tape
        In venue order, validated. The initial book is the closing book of the day before where the first day continues it. `sha256` names the
        days' content (and not the cut).

    Raises
    ------
    DataError
        No complete day, a day missing in between, different grids, a day that continues another than the one stored, nothing between start and end.
    """
    days = _days(lake, instrument, dates)
    partitions = [Partition.of(instrument, day) for day in days]
    spec = _one_spec(lake, partitions)
    tape = Tape.from_columns(
        spec,
        _joined([_columns(lake, partition) for partition in partitions], [_goes_on(lake, p) for p in partitions]),
        initial_book=_initial_book(lake, partitions),
        sha256=_dataset_sha256(lake, partitions),
        clock_repaired=any(lake.metadata("tape", p).get("clock_repaired") == "true" for p in partitions),
    )
    if start_ns is None and end_ns is None:
        return tape
    start = int(tape.exch_ts[0]) if start_ns is None else start_ns
    end = int(tape.exch_ts[-1]) + 1 if end_ns is None else end_ns
    cut = tape.slice_exch(start, end, book_at(tape, start))
    if not len(cut):
        raise DataError(
            f"{instrument}: no rows from {iso_utc(start)} to {iso_utc(end)}; {days[0]} to {days[-1]} have rows from {iso_utc(int(tape.exch_ts[0]))} to "
            f"{iso_utc(int(tape.exch_ts[-1]))}"
        )
    return cut


def manifest(lake: Lake, instrument: InstrumentId, dates: Sequence[date] | None = None) -> Manifest:
    """What the tape of these days is made of; raises as `load_tape`."""
    parts = []
    partitions = [Partition.of(instrument, day) for day in _days(lake, instrument, dates)]
    for partition in partitions:
        path = lake.path("tape", partition)
        quality = stored_quality(lake, partition)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        parts.append(
            ManifestPartition(
                date=partition.date,
                rows=quality.rows,
                tape_sha256=quality.tape_sha256,
                file=path.relative_to(lake.root).as_posix(),
                file_sha256=digest,
                code_version=quality.code_version,
                sources=quality.source_files,
            )
        )
    return Manifest(instrument=str(instrument), sha256=_dataset_sha256(lake, partitions), rows=sum(p.rows for p in parts), partitions=tuple(parts))


def _days(lake: Lake, instrument: InstrumentId, dates: Sequence[date] | None) -> list[date]:
    complete = [p.date for p in lake.complete_partitions(instrument)]
    if not complete:
        raise DataError(f"{instrument}: the lake {lake.root} has no complete day of it; ingest data first (mm ingest FILES)")
    days = sorted(set(dates)) if dates is not None else complete
    if not days:
        raise DataError(f"{instrument}: no days asked for; complete days: {complete[0]} to {complete[-1]}")
    absent = [d.isoformat() for d in days if d not in complete]
    if absent:
        raise DataError(f"{instrument}: no complete data on {', '.join(absent)}; complete days: {', '.join(d.isoformat() for d in complete)}")
    for a, b in pairwise(days):
        if b - a != timedelta(days=1):
            raise DataError(f"{instrument}: {a} is followed by {b}; a tape has no hole: name days in a row, or ingest those in between")
    return days


def _one_spec(lake: Lake, partitions: Sequence[Partition]) -> InstrumentSpec:
    """The instrument's facts as stored; a tape never mixes two grids, and takes costs and dates from its last day."""
    specs = [msgspec.json.decode(lake.metadata("tape", p)["spec"], type=InstrumentSpec) for p in partitions]
    for spec, partition in zip(specs, partitions, strict=True):
        last = specs[-1]
        if (spec.tick_size, spec.lot_size, spec.multiplier) != (last.tick_size, last.lot_size, last.multiplier):
            raise DataError(
                f"{partition} counts in ticks of {spec.tick_size} and lots of {spec.lot_size}, {partitions[-1].date} in {last.tick_size} and {last.lot_size}; "
                "a tape never mixes two: load the days of one grid"
            )
    return specs[-1]


def _columns(lake: Lake, partition: Partition) -> Columns:
    table = lake.read("tape", instrument=partition.instrument, dates=[partition.date], columns=list(COLUMNS))
    return {name: numpy_column(table, name) for name in COLUMNS}


def _goes_on(lake: Lake, partition: Partition) -> bool:
    return bool(lake.metadata("tape", partition).get("continues"))


def _joined(days: list[Columns], goes_on: list[bool]) -> Columns:
    """Days end to end. They are divided by receive time: around midnight, rows of both days are brought into venue order together.

    A day that does not go on from the one before leaves no book over: it begins with a CLEAR row, unless it has one of its own.
    """
    joined = days[0]
    for following, linked in zip(days[1:], goes_on[1:], strict=True):
        if not len(following["exch_ts"]):
            continue
        head, tail = joined, following
        if not linked and tail["kind"][0] != Kind.CLEAR:
            tail = {name: np.concatenate((_clear(tail)[name], tail[name])) for name in COLUMNS}
        a = int(np.searchsorted(head["exch_ts"], tail["exch_ts"][0], side="left"))
        b = int(np.searchsorted(tail["exch_ts"], head["exch_ts"][-1], side="right")) if len(head["exch_ts"]) else 0
        seam = {name: np.concatenate((head[name][a:], tail[name][:b])) for name in COLUMNS}
        order = venue_order(seam["exch_ts"], seam["kind"], seam["seq"])
        joined = {name: np.concatenate((head[name][:a], seam[name][order], tail[name][b:])) for name in COLUMNS}
    return joined


def _clear(columns: Columns) -> Columns:
    """One row that empties both sides of the book, at the time of the first row of `columns`."""
    row = {name: np.zeros(1, dtype=dtype) for name, dtype in COLUMNS.items()}
    row["exch_ts"][0], row["local_ts"][0] = columns["exch_ts"][0], columns["local_ts"][0]
    row["kind"][0], row["flags"][0], row["seq"][0] = Kind.CLEAR, LAST, -1
    row["value"][0] = row["aux"][0] = np.nan
    return row


def _initial_book(lake: Lake, partitions: Sequence[Partition]) -> BookState:
    """The closing book the first day continues; the days themselves continue each other, or begin with a snapshot."""
    first = BookState.empty()
    for i, partition in enumerate(partitions):
        facts = lake.metadata("tape", partition)
        continues = facts.get("continues", "")
        if not continues:
            continue
        before = Partition.of(partition.instrument, date.fromisoformat(continues))
        there = lake.metadata("tape", before).get("tape_sha256") if lake.path("tape", before).exists() else None
        if there != facts["continues_sha256"]:
            raise DataError(
                f"{partition} continues the book of {before.date} as it was when it was built; {'that day is gone' if there is None else 'that day has changed'} "
                f"since: ingest {partition.date} again"
            )
        if i == 0:
            first = stored_book(lake, before)
    return first


def _dataset_sha256(lake: Lake, partitions: Sequence[Partition]) -> str:
    digest = hashlib.sha256(str(partitions[0].instrument).encode())
    for partition in partitions:
        facts = lake.metadata("tape", partition)
        digest.update(f"{partition.date.isoformat()} {facts['tape_sha256']} {facts.get('continues_sha256', '')}\n".encode())
    return digest.hexdigest()
