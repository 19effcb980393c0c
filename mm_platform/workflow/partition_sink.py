"""One partition of market data into the lake: tape, trades, best quotes, closing book, instrument facts, quality.

Belongs here: what the tables of one instrument's day hold and how they follow from its tape rows. Does not belong here: where rows come from
(`ingest`), how files become visible (`lake`).

Recorded and simulated markets are written by this same code: rows in, in venue order, any number at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mm_platform.core.clock import monotonic_ns
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import utc_date
from mm_platform.lake.columns import table_of
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Commit, Lake, Partition
from mm_platform.tape.book_pass import BookCounts, BookPass, Tops
from mm_platform.tape.build import FeedState
from mm_platform.tape.layout import COLUMNS, NOT_MARKET, BookState, Kind
from mm_platform.tape.messages import Columns, Int64s
from mm_platform.workflow.code_version import code_version
from mm_platform.workflow.sources import SourceFile

__all__ = ["PartitionQuality", "PartitionSink", "stored_book", "stored_feed_state", "stored_quality"]

Float64s = npt.NDArray[np.float64]
_LARGEST_EXACT: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class PartitionQuality:
    """What is known of one partition; the columns of the `data_quality` table, whose field registry has the meanings."""

    venue: str
    symbol: str
    date: date
    rows: int
    lines: int
    bad_lines: int
    trades: int
    depth_messages: int
    sequence_breaks: int
    trade_id_gaps: int
    crossed_books: int
    top_of_book_match_frac: float | None
    top_of_book_compared: int
    clock_offset_ns: int
    clock_floor_ns: int
    clock_repaired: bool
    negative_latency_frac: float
    unordered_trade_frac: float | None
    gaps: int
    longest_gap_s: float
    duplicates: int
    non_market_trades: int
    book: str
    chained: bool
    first_exch_ts: int
    last_exch_ts: int
    first_local_ts: int
    last_local_ts: int
    first_seq: int
    last_seq: int
    tick_size: str
    lot_size: str
    sources: str
    tape_sha256: str
    built_at_ns: int
    code_version: str
    verdict: str
    reason: str

    @property
    def source_files(self) -> tuple[SourceFile, ...]:
        """The source files, parsed from `sources`."""
        return msgspec.json.decode(self.sources, type=tuple[SourceFile, ...])


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """What only the feed can say about a partition (a simulated market says zeros)."""

    lines: int = 0
    bad_lines: int = 0
    sequence_breaks: int = 0
    trade_id_gaps: int = 0
    duplicates: int = 0
    gaps: int = 0
    longest_gap_s: float = 0.0
    clock_offset_ns: int = 0
    clock_floor_ns: int = 0
    clock_repaired: bool = False
    negative_latency_frac: float = 0.0
    reason: str = ""


class PartitionSink:
    """Writes one partition within a commit.

    Parameters
    ----------
    commit : Commit
        Open; the caller commits it after `close`.
    partition : Partition
    spec : InstrumentSpec
    initial : BookState
        The book before the first row.
    continues : Partition, optional
        The partition whose closing book `initial` is.
    continues_sha256 : str
        Its tape's fingerprint.
    """

    def __init__(
        self,
        commit: Commit,
        partition: Partition,
        spec: InstrumentSpec,
        initial: BookState,
        continues: Partition | None = None,
        continues_sha256: str = "",
    ) -> None:
        self.partition = partition
        self.spec = spec
        self._continues = continues
        self._continues_sha256 = continues_sha256
        self._commit = commit
        self._grid = {"tick_size": spec.tick_size, "lot_size": spec.lot_size, "instrument": spec.instrument}
        self._tape = commit.writer("tape", partition, self._grid)
        self._trades = commit.writer("trades", partition, self._grid)
        self._tops = commit.writer("book_top", partition, self._grid)
        self._book = BookPass(initial)
        self._hashes = {name: hashlib.sha256() for name in COLUMNS}
        self._rows = 0
        self._first_exch = self._last_exch = self._first_local = self._last_local = -1

    @property
    def rows(self) -> int:
        return self._rows

    def write(self, columns: Columns) -> None:
        """Append tape rows, in venue order.

        Raises
        ------
        DataError
            Rows run back in venue time, lie before they happened, or outside the partition's day.
        """
        n = len(columns["exch_ts"])
        if not n:
            return
        exch, local = columns["exch_ts"], columns["local_ts"]
        if int(exch[0]) < self._last_exch or np.any(np.diff(exch) < 0):
            raise DataError(f"{self.partition}: exch_ts runs back after row {self._rows}; rows must be in venue order")
        if np.any(local < exch):
            i = int(np.flatnonzero(local < exch)[0])
            raise DataError(f"{self.partition}: row {self._rows + i}: seen at {local[i]}, before it happened at {exch[i]}; repair the clock first")
        for name, digest in self._hashes.items():
            digest.update(np.ascontiguousarray(columns[name]).data)
        self._tape.write(columns)
        self._write_trades(columns)
        self._write_tops(columns, self._book.apply(columns))
        if not self._rows:
            self._first_exch, self._first_local = int(exch[0]), int(local.min())
        self._rows += n
        self._last_exch = int(exch[-1])
        self._first_local = min(self._first_local, int(local.min()))
        self._last_local = max(self._last_local, int(local.max()))

    def counts(self) -> BookCounts:
        """What the rows written so far say about book and trades."""
        return self._book.counts()

    def close(
        self, facts: FeedFacts, *, sources: tuple[SourceFile, ...], book_known: bool, state: FeedState | None, now_ns: int | None = None
    ) -> PartitionQuality:
        """Write the closing book, the instrument's facts and the quality row.

        Parameters
        ----------
        facts : FeedFacts
        sources : tuple of SourceFile
        book_known : bool
            Whether the book's chain is unbroken at the end; if not, no levels are stored and the next day cannot continue from here.
        state : FeedState, optional
            What a later file or day needs to continue the feed.
        now_ns : int, optional
            Time of building [ns UTC].

        Raises
        ------
        DataError
            No rows.
        """
        if not self._rows:
            raise DataError(f"{self.partition}: no rows; nothing to store")
        counts = self._book.counts()
        chained = self._continues is not None
        sha256 = self._sha256()
        self._tape.add_metadata(
            {
                "spec": msgspec.json.encode(self.spec).decode(),
                "tape_sha256": sha256,
                "clock_repaired": str(facts.clock_repaired).lower(),
                "continues": self._continues.date.isoformat() if self._continues else "",
                "continues_sha256": self._continues_sha256,
            }
        )
        self._write_book(book_known, sha256, state)
        self._write_instrument()
        match = counts.top_of_book_matched / counts.top_of_book_compared if counts.top_of_book_compared else None
        quality = PartitionQuality(
            venue=self.partition.venue,
            symbol=self.partition.symbol,
            date=self.partition.date,
            rows=self._rows,
            lines=facts.lines,
            bad_lines=facts.bad_lines,
            trades=counts.trades,
            depth_messages=counts.depth_messages,
            sequence_breaks=facts.sequence_breaks,
            trade_id_gaps=facts.trade_id_gaps,
            crossed_books=counts.crossed_books,
            top_of_book_match_frac=match,
            top_of_book_compared=counts.top_of_book_compared,
            clock_offset_ns=facts.clock_offset_ns,
            clock_floor_ns=facts.clock_floor_ns,
            clock_repaired=facts.clock_repaired,
            negative_latency_frac=facts.negative_latency_frac,
            unordered_trade_frac=counts.unordered_trades / counts.judged_trades if counts.judged_trades else None,
            gaps=facts.gaps,
            longest_gap_s=facts.longest_gap_s,
            duplicates=facts.duplicates,
            non_market_trades=counts.non_market_trades,
            book="full" if chained or counts.snapshots or counts.depth_messages else "absent",
            chained=chained,
            first_exch_ts=self._first_exch,
            last_exch_ts=self._last_exch,
            first_local_ts=self._first_local,
            last_local_ts=self._last_local,
            first_seq=counts.first_seq,
            last_seq=counts.last_seq if counts.first_seq >= 0 else -1,
            tick_size=self.spec.tick_size,
            lot_size=self.spec.lot_size,
            sources=msgspec.json.encode(sources).decode(),
            tape_sha256=sha256,
            built_at_ns=monotonic_ns() if now_ns is None else now_ns,
            code_version=code_version(),
            verdict="suspect" if facts.reason else "ok",
            reason=facts.reason,
        )
        row = {name: [getattr(quality, name)] for name in TABLES["data_quality"].names}
        self._commit.write("data_quality", self.partition, row, self._grid)
        return quality

    # -- inside ------------------------------------------------------------------------------------
    def _sha256(self) -> str:
        """Over all columns, whole: the same for the same rows however they were handed in."""
        total = hashlib.sha256(self.spec.instrument.encode())
        for name, digest in self._hashes.items():
            total.update(name.encode() + digest.digest())
        return total.hexdigest()

    def _write_trades(self, columns: Columns) -> None:
        at = np.flatnonzero(columns["kind"] == Kind.TRADE)
        if not len(at):
            return
        ticks, lots = columns["price_ticks"][at], columns["qty_lots"][at]
        self._trades.write(
            {
                "exch_ts": columns["exch_ts"][at],
                "local_ts": columns["local_ts"][at],
                "trade_id": columns["seq"][at],
                "side": columns["side"][at],
                "price_ticks": ticks,
                "qty_lots": lots,
                "price": scaled(ticks, self.spec.tick),
                "qty": scaled(lots, self.spec.lot),
                "market": (columns["flags"][at] & NOT_MARKET) == 0,
            }
        )

    def _write_tops(self, columns: Columns, tops: Tops) -> None:
        shown = np.flatnonzero(tops.changed)
        if not len(shown):
            return
        row = tops.row[shown]
        values: Mapping[str, Any] = {
            "exch_ts": columns["exch_ts"][row],
            "local_ts": columns["local_ts"][row],
            "bid_ticks": tops.bid_ticks[shown],
            "bid_lots": tops.bid_lots[shown],
            "ask_ticks": tops.ask_ticks[shown],
            "ask_lots": tops.ask_lots[shown],
            "bid_price": scaled(tops.bid_ticks[shown], self.spec.tick),
            "ask_price": scaled(tops.ask_ticks[shown], self.spec.tick),
            "bid_qty": scaled(tops.bid_lots[shown], self.spec.lot),
            "ask_qty": scaled(tops.ask_lots[shown], self.spec.lot),
            "seq": tops.seq[shown],
        }
        schema = TABLES["book_top"].arrow_schema
        arrays = [_words(tops.source[shown]) if f.name == "source" else pa.array(values[f.name], type=f.type, from_pandas=False) for f in schema]
        self._tops.write(table_of(TABLES["book_top"], pa.Table.from_arrays(arrays, schema=schema)))

    def _write_book(self, known: bool, tape_sha256: str, state: FeedState | None) -> None:
        book = self._book.book() if known else BookState.empty()
        sides = np.repeat(np.array([1, -1], dtype=np.int8), (len(book.bid_ticks), len(book.ask_ticks)))
        facts = self._grid | {"tape_sha256": tape_sha256, "seq": str(book.seq), "book": "full" if known else "absent"}
        if state is not None:
            facts["feed_state"] = msgspec.json.encode(state).decode()
        self._commit.write(
            "book_state",
            self.partition,
            {
                "side": sides,
                "price_ticks": np.concatenate((book.bid_ticks, book.ask_ticks)),
                "qty_lots": np.concatenate((book.bid_lots, book.ask_lots)),
                "seq": np.full(len(sides), book.seq, dtype=np.int64),
            },
            facts,
        )

    def _write_instrument(self) -> None:
        spec = self.spec
        since = Partition(self.partition.venue, self.partition.symbol, utc_date(spec.valid_from_ns))
        row: dict[str, list[Any]] = {name: [getattr(spec, name)] for name in TABLES["instruments"].names}
        self._commit.write("instruments", since, row, self._grid)


def scaled(steps: Int64s, size: Decimal) -> Float64s:
    """Whole steps times a decimal size, each rounded once: the float nearest to the venue's decimal.

    Steps times the size's digits and its power of ten are both exact in a float up to 2**53, and one division rounds once.
    """
    _, digits, exponent = size.normalize().as_tuple()
    mantissa = int("".join(map(str, digits)))
    assert isinstance(exponent, int)
    numerator = steps * (mantissa * 10 ** max(exponent, 0))
    if len(steps) and int(np.abs(numerator).max()) > _LARGEST_EXACT:
        return np.array([float(size * int(step)) for step in steps], dtype=np.float64)
    exact: Float64s = numerator.astype(np.float64) / float(10 ** max(-exponent, 0))
    return exact


def _words(source: npt.NDArray[np.int8]) -> Any:
    """`depth` and `top` as an Arrow column of text."""
    return pa.DictionaryArray.from_arrays(pa.array(source, type=pa.int8()), pa.array(["depth", "top"], type=pa.string())).cast(pa.string())


def stored_quality(lake: Lake, partition: Partition) -> PartitionQuality:
    """The quality row of a complete partition; raises `DataError` when there is none."""
    row = lake.read("data_quality", instrument=partition.instrument, dates=[partition.date]).to_pylist()[0]
    return PartitionQuality(**{f.name: row[f.name] for f in fields(PartitionQuality)})


def stored_book(lake: Lake, partition: Partition) -> BookState:
    """The closing book of a complete partition, empty (seq -1) where it was not known."""
    table = lake.read("book_state", instrument=partition.instrument, dates=[partition.date], columns=["side", "price_ticks", "qty_lots"])
    side, ticks, lots = (table.column(name).to_numpy() for name in ("side", "price_ticks", "qty_lots"))
    seq = int(lake.metadata("book_state", partition).get("seq", "-1"))
    return BookState(ticks[side > 0], lots[side > 0], ticks[side < 0], lots[side < 0], seq)


def stored_feed_state(lake: Lake, partition: Partition) -> FeedState | None:
    """Where the feed of a partition ended; None where it cannot be continued (a simulated market)."""
    text = lake.metadata("book_state", partition).get("feed_state")
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=FeedState)
    except msgspec.MsgspecError as err:
        raise DataError(f"{partition}: the feed's state cannot be read ({err}); ingest the day again with this version") from None
