"""Ingest: source files or the simulated market into the lake's tape, trades, best quotes, closing books and quality, day by day.

Belongs here: reading sources in order, splitting into partitions, what may continue, replace or extend what is there, and when a partition is
refused. Does not belong here: vendor formats (`decode`), rows (`tape`), what the tables hold (`partition_sink`).

A partition is one commit: a killed ingest leaves the old one or the new one. Memory is bounded by a constant: a chunk of text, the reorder
buffer, a row group per table.

What a call does with a day that is there already:
- built from some of the call's sources: it is replaced (the same sources give the same rows);
- built from other sources that end before the call's begin: it is extended;
- built from the call's sources and others beside: it stays as it is, unless the call has more to add to it, which is refused;
- anything else overlaps and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import NS_PER_DAY, NS_PER_S, day_start_ns, iso_utc, utc_date
from mm_platform.decode.detect import HEAD_BYTES, decoder_of
from mm_platform.decode.result import PLACE_STEP, Decoded
from mm_platform.lake.columns import numpy_column
from mm_platform.lake.instrument_facts import InstrumentFacts, load_facts
from mm_platform.lake.store import Commit, Lake, Partition
from mm_platform.tape.build import BuildSettings, FeedCounts, FeedState, TapeBuilder
from mm_platform.tape.layout import COLUMNS, Kind, Tape
from mm_platform.tape.messages import Columns, Messages, messages_of_rows
from mm_platform.tape.simulate import simulate_day
from mm_platform.workflow.lanes import OpenSource, chain_messages, chains, merged
from mm_platform.workflow.partition_sink import FeedFacts, PartitionQuality, PartitionSink, stored_book, stored_feed_state, stored_quality
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.sources import Source, SourceFile, identify, read_lines

__all__ = ["IngestResult", "IngestSettings", "ingest", "ingest_simulated", "write_tapes"]

_SIMULATED_CHUNK_ROWS: Final = 262_144
_PLACES_SHOWN: Final = 5


class IngestSettings(BaseModel):
    """Limits of what is let into the lake.

    Parameters
    ----------
    build : BuildSettings
    max_sequence_break_frac : float
        Sequence breaks per depth message above which a partition is refused.
    max_sequence_breaks : int, optional
        Number of breaks above which it is refused, whatever the share.
    max_bad_line_frac : float
        Bad lines per line above which it is refused.
    max_crossed_book_frac : float
        Crossed books per depth message above which it is refused.
    min_top_of_book_match_frac : float
        Where the venue's best quotes equal the rebuilt book less often, the partition is marked suspect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    build: BuildSettings = BuildSettings()
    max_sequence_break_frac: float = Field(default=0.001, ge=0, le=1)
    max_sequence_breaks: int | None = Field(default=None, ge=0)
    max_bad_line_frac: float = Field(default=0.001, ge=0, le=1)
    max_crossed_book_frac: float = Field(default=0.001, ge=0, le=1)
    min_top_of_book_match_frac: float = Field(default=0.999, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """Partitions written (or found unchanged), in order of instrument and day, and what a reader should know about the sources."""

    partitions: list[PartitionQuality]
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(p.rows for p in self.partitions)

    def text(self) -> str:
        """One line per partition, then the warnings."""
        lines = []
        for p in self.partitions:
            match = "no best quotes to compare" if p.top_of_book_match_frac is None else f"top of book {p.top_of_book_match_frac:.2%} of {p.top_of_book_compared}"
            clock = f", clock +{p.clock_offset_ns / 1e6:.1f} ms" if p.clock_repaired else ""
            lines.append(
                f"{p.venue}:{p.symbol} {p.date}  {p.rows} rows, {p.lines} lines ({p.bad_lines} bad), {p.sequence_breaks} sequence breaks, "
                f"{p.trade_id_gaps} trade gaps, {p.crossed_books} crossed, {match}{clock}, book {p.book}: {p.verdict}{f' ({p.reason})' if p.reason else ''}"
            )
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def ingest(
    lake: Lake,
    sources: Sequence[Path],
    specs: Mapping[str, list[InstrumentSpec]] | None,
    settings: IngestSettings | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Decode files into the lake.

    Parameters
    ----------
    lake : Lake
        Opened (`Lake.open`).
    sources : sequence of Path
        Raw captures or CSV files, plain or gzip, of any instruments, in any order; formats are told from content.
    specs : mapping of instrument id to list of InstrumentSpec, optional
        Dated facts, laid over those that come with the package (`lake.instrument_facts`).
    settings : IngestSettings, optional
    progress : Progress, optional

    Returns
    -------
    IngestResult

    Raises
    ------
    DataError
        A file is missing, empty, truncated or of no known format; an instrument's facts are not known; a partition is refused (nothing of it is
        written; the message says where) or overlaps with what is there. Partitions finished before stay.
    LakeBusy
        Somebody else writes the instrument.
    """
    settings = settings or IngestSettings()
    facts = load_facts().with_settings(s for dated in (specs or {}).values() for s in dated)
    if not sources:
        raise DataError("no files given; expected raw captures or CSV files")
    seen: dict[str, Source] = {}
    for path in sources:
        source = identify(Path(path))
        seen.setdefault(source.file.sha256, source)
    opened: dict[InstrumentId, list[OpenSource]] = {}
    for number, source in enumerate(sorted(seen.values(), key=lambda s: s.file)):
        one = _open(source, number, facts)
        opened.setdefault(one.decoder.instrument, []).append(one)
    result: list[PartitionQuality] = []
    warnings: list[str] = []
    for instrument in sorted(opened):
        with lake.lock(instrument):
            job = _InstrumentIngest(lake, instrument, opened[instrument], facts, settings, progress or silent)
            result += job.run()
            warnings += job.warnings
    return IngestResult(result, tuple(warnings))


def write_tapes(lake: Lake, tapes: Sequence[tuple[date, Tape]]) -> list[PartitionQuality]:
    """Whole tapes, one UTC day each, into the lake: how simulated markets are stored.

    Parameters
    ----------
    lake : Lake
    tapes : sequence of (date, Tape)
        The rows' local times must lie on the date.

    Returns
    -------
    list of PartitionQuality
        With zeros for what only a recorded feed has.
    """
    written = []
    for day, tape in tapes:
        partition = Partition.of(tape.spec.id, day)
        with lake.begin() as commit:
            sink = PartitionSink(commit, partition, tape.spec, tape.initial_book)
            columns = tape.columns()
            for start in range(0, len(tape), _SIMULATED_CHUNK_ROWS):
                sink.write({name: column[start : start + _SIMULATED_CHUNK_ROWS] for name, column in columns.items()})
            crossed = sink.counts().crossed_books
            facts = FeedFacts(clock_repaired=tape.clock_repaired, reason=f"{crossed} crossed books" if crossed else "")
            written.append(sink.close(facts, sources=(), book_known=True, chained=False, state=None))
            commit.commit()
    return written


def ingest_simulated(lake: Lake, days: int, seed: int, start: date, progress: Progress | None = None) -> IngestResult:
    """Write days of the simulated market, perp and spot, one day at a time.

    Parameters
    ----------
    lake : Lake
    days : int
        1 or more.
    seed : int
    start : date
        First UTC day.
    progress : Progress, optional
    """
    report = progress or silent
    written: list[PartitionQuality] = []
    for i in range(days):
        report("simulate market", i, days)
        day = start + timedelta(days=i)
        market = simulate_day(seed, day)
        written += write_tapes(lake, [(day, market.perp), (day, market.spot)])
    report("simulate market", days, days)
    return IngestResult(sorted(written, key=lambda p: (p.venue, p.symbol, p.date)))


# -- opening sources ---------------------------------------------------------------------------------------------------------------------


def _head(path: Path) -> bytes:
    """The first lines of a source, at most about `HEAD_BYTES` (one line more where a line is longer)."""
    head = b""
    for chunk in read_lines(path, HEAD_BYTES):
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head


def _open(source: Source, number: int, facts: InstrumentFacts) -> OpenSource:
    """Find out format, instrument and first receive time."""
    try:
        decoder = decoder_of(_head(source.path), facts.resolve, facts.at, number)
    except DataError as err:
        raise DataError(f"{source.path}: {err}") from None
    return OpenSource(source, number, decoder, decoder.first_receive_ns)


# -- one instrument ----------------------------------------------------------------------------------------------------------------------


@dataclass
class _Day:
    """The partition being built. Without a sink its rows are dropped: it is there already and stays."""

    partition: Partition
    commit: Commit | None
    sink: PartitionSink | None
    allowed: frozenset[str]
    before: PartitionQuality | None
    chained: bool
    previous_known: bool


class _InstrumentIngest:
    """Reads one instrument's sources once, in receive order, and writes its partitions one after the other."""

    def __init__(
        self, lake: Lake, instrument: InstrumentId, sources: list[OpenSource], facts: InstrumentFacts, settings: IngestSettings, progress: Progress
    ) -> None:
        self.warnings: list[str] = []
        self._lake = lake
        self._instrument = instrument
        self._sources = {s.number: s for s in sources}
        self._shas = {s.number: s.source.file.sha256 for s in sources}
        self._facts = facts
        self._settings = settings
        self._progress = progress
        self._chains = chains(sources)
        self._complete = {p.date: stored_quality(lake, p) for p in lake.complete_partitions(instrument)}
        self._lines_read = 0
        # per source: lines read, lines already counted for a partition, the last line that gave the day at hand a message
        self._read = dict.fromkeys(self._sources, 0)
        self._counted = dict.fromkeys(self._sources, 0)
        self._touched: dict[int, int] = {}
        self._bad = 0
        self._bad_places: list[str] = []
        self._day: _Day | None = None
        self._done: list[PartitionQuality] = []
        self._builder = TapeBuilder(settings.build)
        self._continues: Partition | None = None

    def run(self) -> list[PartitionQuality]:
        stream = merged([chain_messages(chain, self._on_decoded) for chain in self._chains])
        try:
            self._begin_feed(stream)
        except StopIteration:
            self._refuse_nothing()
        try:
            for messages in self._leading:
                self._feed(messages)
            for messages in stream:
                self._feed(messages)
            self._end_day(last=True)
        finally:
            if self._day is not None and self._day.commit is not None:
                self._day.commit.abort()
        return self._done
