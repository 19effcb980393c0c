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
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId, InstrumentSpec
from mm_platform.core.units import NS_PER_DAY, NS_PER_S, day_start_ns, iso_utc, utc_date
from mm_platform.decode.detect import HEAD_BYTES, decoder_of
from mm_platform.decode.result import PLACE_STEP, Decoded, UnknownFormat
from mm_platform.lake.columns import numpy_column
from mm_platform.lake.instrument_facts import InstrumentFacts, load_facts
from mm_platform.lake.store import Commit, Lake, Partition
from mm_platform.tape.book_pass import BookCounts
from mm_platform.tape.build import BuildSettings, FeedCounts, FeedState, TapeBuilder
from mm_platform.tape.layout import COLUMNS, LAST, Kind, Tape
from mm_platform.tape.messages import Columns, Messages, messages_of_rows
from mm_platform.tape.simulate import simulate_day
from mm_platform.workflow.lanes import OpenSource, chain_messages, chains, merged
from mm_platform.workflow.partition_sink import FeedFacts, PartitionQuality, PartitionSink, stored_book, stored_feed_state, stored_quality
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.sources import Source, identify, read_lines

__all__ = ["IngestResult", "IngestSettings", "ingest", "ingest_simulated", "sources_by_instrument", "write_tapes"]

_CHUNK_ROWS: Final = 131_072
_LEADING_BATCHES: Final = 4
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
            match = (
                "no best quotes to compare"
                if p.top_of_book_match_frac is None
                else f"top of book {p.top_of_book_match_frac:.2%} of {p.top_of_book_compared}"
            )
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
            for start in range(0, len(tape), _CHUNK_ROWS):
                sink.write({name: column[start : start + _CHUNK_ROWS] for name, column in columns.items()})
            crossed = sink.counts().crossed_books
            facts = FeedFacts(clock_repaired=tape.clock_repaired, reason=f"{crossed} crossed books" if crossed else "")
            written.append(sink.close(facts, sources=(), book_known=True, state=None))
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


def sources_by_instrument(files: Sequence[Path], specs: Mapping[str, list[InstrumentSpec]] | None = None) -> dict[InstrumentId, list[Path]]:
    """Which files hold which instrument, told from their first lines; files of other formats are left out.

    Parameters
    ----------
    files : sequence of Path
    specs : mapping of instrument id to list of InstrumentSpec, optional
        As in `ingest`.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    facts = load_facts().with_settings(s for dated in (specs or {}).values() for s in dated)

    def any_grid(instrument: InstrumentId, ts_ns: int) -> InstrumentSpec:
        # only the name is asked for; whether facts are known is for `ingest` to say
        return InstrumentSpec(instrument=str(instrument), tick_size="1", lot_size="1", contract="linear", maker_fee=0.0, taker_fee=0.0)

    found: dict[InstrumentId, list[Path]] = {}
    for path in files:
        try:
            instrument = decoder_of(_head(path), facts.resolve, any_grid, 0).instrument
        except UnknownFormat:
            continue
        found.setdefault(instrument, []).append(path)
    return found


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


@dataclass(frozen=True)
class _Start:
    """Where a day begins: the book before its first row, and the partition that book is the closing one of (None: none)."""

    book: BookState
    continues: Partition | None = None
    sha256: str = ""


@dataclass
class _Day:
    """The partition being built. Without a sink its rows are dropped: it is there already and stays."""

    partition: Partition
    spec: InstrumentSpec
    start: _Start
    # the book was known when the day began, whether or not this day could continue it
    known_before: bool
    commit: Commit | None = None
    sink: PartitionSink | None = None
    # the partition that is extended, or that stays
    there: PartitionQuality | None = None
    # per source: the last line that gave this day a message
    touched: dict[int, int] = field(default_factory=dict)


class _InstrumentIngest:
    """Reads one instrument's sources once, in receive order, and writes its partitions one after the other."""

    def __init__(
        self, lake: Lake, instrument: InstrumentId, sources: list[OpenSource], facts: InstrumentFacts, settings: IngestSettings, progress: Progress
    ) -> None:
        self.warnings: list[str] = []
        self._lake = lake
        self._instrument = instrument
        self._sources = {s.number: s for s in sources}
        self._shas = frozenset(s.source.file.sha256 for s in sources)
        self._facts = facts
        self._settings = settings
        self._progress = progress
        self._chains = chains(sources)
        self._there = {p.date: stored_quality(lake, p) for p in lake.complete_partitions(instrument)}
        self._read = dict.fromkeys(self._sources, 0)
        self._counted = dict.fromkeys(self._sources, 0)
        self._bad = 0
        self._bad_shown: list[str] = []
        self._day: _Day | None = None
        self._last: Partition | None = None
        self._done: list[PartitionQuality] = []
        self._builder = TapeBuilder(settings.build)
        # a partition of an earlier call that this one goes on from, and whether the update ids say that nothing is missing in between
        self._earlier: Partition | None = None
        self._linked = False
        self._known_before = False

    def run(self) -> list[PartitionQuality]:
        stream = merged([chain_messages(chain, self._on_decoded) for chain in self._chains])
        try:
            for messages in self._find_start(stream):
                self._feed(messages)
            for messages in stream:
                self._feed(messages)
            if self._day is not None:
                self._end_day(last=True)
        finally:
            if self._day is not None and self._day.commit is not None:
                self._day.commit.abort()
        if not self._done:
            names = ", ".join(s.source.file.name for s in self._sources.values())
            raise DataError(
                f"{self._instrument}: no rows from {names}: {sum(self._read.values())} lines read, {self._bad} bad{self._shown_bad()}; expected trades, "
                f"best quotes, or depth updates with a snapshot{''.join(f'; {w}' for w in self.warnings)}"
            )
        return self._done

    # -- where the call's data begins ----------------------------------------------------------------------------------------------------
    def _find_start(self, stream: Iterator[Messages]) -> list[Messages]:
        """Read until the first depth message says whether it continues a partition that is there; returns what was read."""
        leading: list[Messages] = []
        first_depth: Messages | None = None
        for messages in stream:
            leading.append(messages)
            first_depth = _first_depth(messages)
            if first_depth is not None or len(leading) >= _LEADING_BATCHES:
                break
        if not leading:
            return leading
        first_ns = int(leading[0].local_ns[0])
        today = utc_date(first_ns)
        # the clock repair may have moved the end of the day before into today, or of today into tomorrow
        for day in (today + timedelta(days=1), today, today - timedelta(days=1)):
            quality = self._there.get(day)
            if quality is None or {f.sha256 for f in quality.source_files} & self._shas:
                continue
            partition = Partition.of(self._instrument, day)
            state = stored_feed_state(self._lake, partition)
            if state is None or first_ns <= state.clock.last_recorded_ns:
                continue
            has_book = any("book" in s.decoder.streams for s in self._sources.values())
            self._linked = has_book and _links(state, first_depth, first_ns, self._settings)
            self._known_before = state.chain.book_known and today - day <= timedelta(days=1)
            if self._linked or day >= today:
                self._earlier = partition
                self._builder = TapeBuilder(self._settings.build, state)
            else:
                self._warn_anew(today, day, state, first_depth)
            break
        return leading

    # -- the stream ----------------------------------------------------------------------------------------------------------------------
    def _on_decoded(self, opened: OpenSource, decoded: Decoded) -> None:
        self._read[opened.number] += decoded.lines
        self._bad += decoded.bad_count
        for bad in decoded.bad[: max(0, _PLACES_SHOWN - len(self._bad_shown))]:
            self._bad_shown.append(f"{opened.source.file.name}:{bad.line}: {bad.reason}")
        self._progress(f"ingest {self._instrument}", sum(self._read.values()), None)

    def _feed(self, messages: Messages) -> None:
        while len(messages):
            date_, count = self._builder.day_of(messages)
            if self._day is not None and self._day.partition.date != date_:
                self._turn(self._day, date_, messages)
                continue
            part, messages = messages.slice(0, count), messages.slice(count, len(messages))
            if self._day is None:
                self._day = self._begin_day(date_, part)
            self._touch(self._day, part)
            self._write(self._day, self._builder.add(part))

    def _turn(self, day: _Day, date_: date, messages: Messages) -> None:
        """End a day. A new source that does not go on where it ended is a recording of its own, not a break within one."""
        state = self._builder.state()
        first_depth = _first_depth(messages)
        anew = int(messages.place[0] // PLACE_STEP) not in day.touched and not _links(state, first_depth, int(messages.local_ns[0]), self._settings)
        self._end_day(last=False)
        self._known_before = state.chain.book_known and date_ - day.partition.date == timedelta(days=1)
        if anew:
            self._builder = TapeBuilder(self._settings.build)
            self._last, self._linked = None, False
            self._warn_anew(date_, day.partition.date, state, first_depth)

    def _warn_anew(self, date_: date, before: date, state: FeedState, first_depth: Messages | None) -> None:
        if date_ - before == timedelta(days=1):
            self.warnings.append(
                f"{self._instrument} {date_} does not continue {before} (update ids there end at {state.chain.depth_seq}, here they go on from "
                f"{_comes_from(first_depth)}); its book begins at its own snapshot"
            )

    @staticmethod
    def _write(day: _Day, rows: Columns) -> None:
        if day.sink is not None:
            day.sink.write(rows)

    def _touch(self, day: _Day, part: Messages) -> None:
        """Note which sources the day is made of, and refuse those that may not be."""
        numbers = part.place // PLACE_STEP
        for number in np.unique(numbers):
            source = self._sources[int(number)]
            line = int(part.place[numbers == number].max() % PLACE_STEP)
            if int(number) not in day.touched:
                if day.sink is None and day.there is not None and source.source.file.sha256 not in {f.sha256 for f in day.there.source_files}:
                    raise self._overlap(day.partition, day.there, f"{source.source.file.name} would add to it")
                if self._facts.at(self._instrument, source.first_local_ns) != day.spec:
                    raise DataError(
                        f"{source.source.file.name}: tick or lot size of {self._instrument} changes between its first line and {day.partition.date}; "
                        "split the file at the day of the change"
                    )
            day.touched[int(number)] = max(line, day.touched.get(int(number), 0))

    # -- one day -------------------------------------------------------------------------------------------------------------------------
    def _begin_day(self, date_: date, first: Messages) -> _Day:
        partition = Partition.of(self._instrument, date_)
        spec = self._facts.at(self._instrument, int(first.local_ns[0]))
        if self._facts.at(self._instrument, day_start_ns(date_) + NS_PER_DAY - 1) != spec:
            raise DataError(f"{partition}: tick or lot size changes within the day; a tape holds one grid: ingest up to the change or from it on")
        known = self._builder.book_known
        there = self._there.get(date_)
        shas = frozenset(f.sha256 for f in there.source_files) if there is not None else frozenset()
        if there is None or (shas and shas <= self._shas):
            start = self._start_of_new(known)
            day = _Day(partition, spec, start, known or self._known_before)
        elif shas & self._shas:
            return _Day(partition, spec, _Start(BookState.empty()), known, there=there)
        elif self._earlier == partition and not self._done:
            day = _Day(partition, spec, self._start_of_stored(partition, spec), known, there=there)
        else:
            raise self._overlap(partition, there, "the files given are others")
        day.commit = self._lake.begin()
        try:
            day.sink = PartitionSink(day.commit, partition, spec, day.start.book, day.start.continues, day.start.sha256)
            if day.there is not None:
                for stored in _stored_messages(self._lake, partition):
                    self._write(day, self._builder.add_stored(stored))
        except BaseException:
            day.commit.abort()
            raise
        return day

    def _start_of_new(self, known: bool) -> _Start:
        """The book a new partition begins with: the closing one of the partition before, if the chain to it is unbroken."""
        before = self._last or (self._earlier if self._linked else None)
        if before is None or not known:
            return _Start(BookState.empty())
        return _Start(stored_book(self._lake, before), before, stored_quality(self._lake, before).tape_sha256)

    def _start_of_stored(self, partition: Partition, spec: InstrumentSpec) -> _Start:
        """The book that a partition to be extended began with."""
        facts = self._lake.metadata("tape", partition)
        if facts["tick_size"] != spec.tick_size or facts["lot_size"] != spec.lot_size:
            raise DataError(
                f"{partition}: stored with tick {facts['tick_size']} and lot {facts['lot_size']}, now {spec.tick_size} and {spec.lot_size}; ingest "
                "all of its sources again"
            )
        if not facts["continues"]:
            return _Start(BookState.empty())
        before = Partition.of(self._instrument, date.fromisoformat(facts["continues"]))
        return _Start(stored_book(self._lake, before), before, facts["continues_sha256"])

    def _end_day(self, *, last: bool) -> None:
        day = self._day
        assert day is not None
        rows, counts = self._builder.end_day()
        self._write(day, rows)
        lines = self._take_lines(day, last=last)
        bad, self._bad = self._bad, 0
        if day.sink is None or day.commit is None:
            assert day.there is not None
            self._done.append(day.there)
        else:
            facts = self._judge(day, day.sink.counts(), counts, lines, bad)
            if day.sink.rows:
                named = {self._sources[n].source.file for n in day.touched} | set(day.there.source_files if day.there else ())
                quality = day.sink.close(facts, sources=tuple(sorted(named)), book_known=self._builder.book_known, state=self._builder.state())
                day.commit.commit()
                self._there[day.partition.date] = quality
                self._done.append(quality)
            else:
                day.commit.abort()
                self.warnings.append(
                    f"{day.partition}: {counts.depth_messages} depth updates without a snapshot, no trades, no best quotes: nothing stored"
                )
        # a day without rows changes no book: the next one goes on from where this one would have
        self._last = day.partition if day.sink is None or day.sink.rows else day.start.continues
        self._bad_shown = []
        self._day = None

    def _take_lines(self, day: _Day, *, last: bool) -> int:
        """Lines of the sources up to the last that gave the day a message; the last day takes what is left."""
        total = 0
        for number in self._sources if last else day.touched:
            upto = self._read[number] if last else day.touched[number]
            total += max(0, upto - self._counted[number])
            self._counted[number] = max(upto, self._counted[number])
        return total

    def _judge(self, day: _Day, book: BookCounts, counts: FeedCounts, lines: int, bad: int) -> FeedFacts:
        """The feed's facts, or `DataError` where the partition cannot be trusted."""
        settings, there = self._settings, day.there
        clock = counts.clock
        negative = clock.negative / clock.timed if clock.timed else 0.0
        facts = FeedFacts(
            lines=lines,
            bad_lines=bad,
            sequence_breaks=counts.sequence_breaks,
            trade_id_gaps=counts.trade_id_gaps,
            duplicates=counts.duplicates,
            gaps=clock.silences,
            longest_gap_s=clock.longest_silence_ns / NS_PER_S,
            clock_offset_ns=clock.max_shift_ns,
            clock_floor_ns=settings.build.clock_floor_ns,
            clock_repaired=clock.moved > 0,
            negative_latency_frac=negative,
        )
        if there is not None:
            share = there.lines / (there.lines + lines) if there.lines + lines else 0.0
            facts = replace(
                facts,
                lines=lines + there.lines,
                bad_lines=bad + there.bad_lines,
                sequence_breaks=counts.sequence_breaks + there.sequence_breaks,
                trade_id_gaps=counts.trade_id_gaps + there.trade_id_gaps,
                duplicates=counts.duplicates + there.duplicates,
                gaps=clock.silences + there.gaps,
                longest_gap_s=max(facts.longest_gap_s, there.longest_gap_s),
                clock_offset_ns=max(facts.clock_offset_ns, there.clock_offset_ns),
                clock_repaired=facts.clock_repaired or there.clock_repaired,
                negative_latency_frac=negative * (1.0 - share) + there.negative_latency_frac * share,
            )
        where = self._shown_places(counts)
        if counts.depth_messages and not counts.book_ever_known and day.known_before:
            raise DataError(
                f"{day.partition} refused: its depth updates do not continue the book of the day before and no snapshot follows{where}; ingest the "
                "missing file together with this one, or one that has a snapshot"
            )
        messages = counts.depth_messages + (there.depth_messages if there else 0)
        if facts.sequence_breaks > settings.max_sequence_break_frac * messages or (
            settings.max_sequence_breaks is not None and facts.sequence_breaks > settings.max_sequence_breaks
        ):
            raise DataError(
                f"{day.partition} refused: {facts.sequence_breaks} sequence breaks in {messages} depth updates, allowed "
                f"{_limit_text(settings.max_sequence_break_frac, settings.max_sequence_breaks)}{where}"
            )
        if facts.bad_lines > settings.max_bad_line_frac * facts.lines:
            raise DataError(
                f"{day.partition} refused: {facts.bad_lines} bad lines of {facts.lines}, allowed {settings.max_bad_line_frac:.4%}{self._shown_bad()}"
            )
        if book.crossed_books > settings.max_crossed_book_frac * max(book.depth_messages, 1):
            raise DataError(
                f"{day.partition} refused: the book was crossed after {book.crossed_books} of {book.depth_messages} depth updates, allowed "
                f"{settings.max_crossed_book_frac:.4%}; updates are missing or out of order in the sources"
            )
        reasons = []
        if facts.sequence_breaks:
            reasons.append(f"{facts.sequence_breaks} sequence breaks")
        if facts.trade_id_gaps:
            reasons.append(f"{facts.trade_id_gaps} gaps in trade ids")
        if facts.bad_lines:
            reasons.append(f"{facts.bad_lines} bad lines{self._shown_bad()}")
        if book.crossed_books:
            reasons.append(f"{book.crossed_books} crossed books")
        if book.top_of_book_matched < settings.min_top_of_book_match_frac * book.top_of_book_compared:
            reasons.append(f"best quotes equal the venue's in {book.top_of_book_matched} of {book.top_of_book_compared}")
        if (facts.sequence_breaks or facts.trade_id_gaps) and where:
            self.warnings.append(f"{day.partition}{where}")
        return replace(facts, reason="; ".join(reasons))

    def _shown_bad(self) -> str:
        return f" ({'; '.join(self._bad_shown)})" if self._bad_shown else ""

    def _shown_places(self, counts: FeedCounts) -> str:
        shown = [
            f"{self._sources[p.place // PLACE_STEP].source.file.name}:{p.place % PLACE_STEP} at {iso_utc(p.local_ns)}: {p.what} continues {p.got}, expected {p.expected}"
            for p in counts.places[:_PLACES_SHOWN]
        ]
        return f": {'; '.join(shown)}" if shown else ""

    def _overlap(self, partition: Partition, there: PartitionQuality, what: str) -> DataError:
        names = ", ".join(f.name for f in there.source_files) or "the simulated market"
        return DataError(
            f"{partition} refused: the lake has it already, from {names}, up to {iso_utc(there.last_local_ts)}, and {what}; give all of its sources in "
            "one call to build it anew, or only files that begin after it"
        )


def _links(state: FeedState, first_depth: Messages | None, first_ns: int, settings: IngestSettings) -> bool:
    """Whether the first depth message of a call goes on where an earlier feed ended."""
    if first_depth is None or state.chain.depth_seq < 0:
        return first_ns - state.clock.last_recorded_ns <= settings.build.silence_s * NS_PER_S
    if first_depth.kind[0] == Kind.SNAPSHOT:
        return False
    if first_depth.prev_seq[0] >= 0:
        return int(first_depth.prev_seq[0]) == state.chain.depth_seq
    return int(first_depth.first_seq[0]) == state.chain.depth_seq + 1


def _first_depth(messages: Messages) -> Messages | None:
    """The first depth update or snapshot of a batch, as a batch of one."""
    at = np.flatnonzero((messages.kind == Kind.DEPTH) | (messages.kind == Kind.SNAPSHOT))
    return messages.slice(int(at[0]), int(at[0]) + 1) if len(at) else None


def _comes_from(first_depth: Messages | None) -> str:
    if first_depth is None:
        return "none"
    if first_depth.kind[0] == Kind.SNAPSHOT:
        return f"a snapshot at {int(first_depth.seq[0])}"
    return str(int(first_depth.prev_seq[0]) if first_depth.prev_seq[0] >= 0 else int(first_depth.first_seq[0]) - 1)


def _limit_text(frac: float, count: int | None) -> str:
    return f"{frac:.4%}" + (f" and at most {count}" if count is not None else "")


def _stored_messages(lake: Lake, partition: Partition) -> Iterator[Messages]:
    """A stored tape as messages, batch after batch."""
    rest: Columns = {name: np.empty(0, dtype=dtype) for name, dtype in COLUMNS.items()}
    with pq.ParquetFile(lake.path("tape", partition)) as file:
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS):
            table = pa.Table.from_batches([batch])
            columns = {name: np.concatenate((rest[name], numpy_column(table, name))) for name in COLUMNS}
            # a message may run on in the next batch
            whole = np.flatnonzero((columns["flags"] & LAST) != 0)
            cut = int(whole[-1]) + 1 if len(whole) else 0
            rest = {name: column[cut:] for name, column in columns.items()}
            yield messages_of_rows({name: column[:cut] for name, column in columns.items()})
    yield messages_of_rows(rest)
