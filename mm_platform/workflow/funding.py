"""Funding: history files into the lake, and the scan over all rates the lake has.

Belongs here: files, the lake's tables, putting the pure parts together. Does not belong here: reading a line (`decode.funding_csv`),
arithmetic of the table (`workflow.funding_table`).

Rates come a few times a day, so `funding_rates` has one partition per instrument and month: `date` is the first day of the stamp's month.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np

from mm_platform.config import Funding
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import utc_date
from mm_platform.decode.funding_csv import (
    NS_PER_HOUR,
    SETTLEMENT_GRIDS,
    FundingHistory,
    find_clock,
    history_of,
    instrument_of_file,
    parse_funding_csv,
    to_history,
)
from mm_platform.kernels.funding import apr_step, apy_step, rate_8h_step
from mm_platform.lake.catalog import connect
from mm_platform.lake.columns import numpy_column
from mm_platform.lake.layout import Partition
from mm_platform.lake.store import Lake
from mm_platform.tape.layout import Kind
from mm_platform.workflow.funding_table import InstrumentFunding, Perp, ScannedTrade, scan, spot_of, summarise
from mm_platform.workflow.progress import Progress, silent

__all__ = ["FundingImport", "FundingScanResult", "Funding", "ImportedFile", "import_funding_history", "scan_funding"]

_TAPE_SOURCE: Final = "tape"
_LAST_TOP: Final = "SELECT max(local_ts) FROM book_top WHERE venue = ? AND symbol = ? AND date = ?"
_MID_AT: Final = "SELECT arg_max((bid_price + ask_price) / 2, local_ts) FROM book_top WHERE venue = ? AND symbol = ? AND date = ? AND local_ts <= ?"


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """One file of an import: whose rates, by which clock (hours ahead of UTC and how that is known), what is missing."""

    file: str
    instrument: InstrumentId
    rows: int
    repeated: int
    utc_offset_h: float
    clock: str
    gaps: int
    missing: int
    largest_gap_h: float
    irregular: int


@dataclass(frozen=True, slots=True)
class FundingImport:
    """What was imported; `rows` over all files."""

    files: tuple[ImportedFile, ...]

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)


@dataclass(frozen=True, slots=True)
class FundingScanResult:
    """The table of rates per instrument, the trades between them (best net APR first), and what was left out with the reason.

    All empty where the lake has no funding rates: a few minutes of tape may have met no settlement.
    """

    rates: tuple[InstrumentFunding, ...]
    opportunities: tuple[ScannedTrade, ...]
    left_out: tuple[str, ...]

    @property
    def accepted(self) -> tuple[ScannedTrade, ...]:
        return tuple(t for t in self.opportunities if t.accepted)


def import_funding_history(lake: Lake, files: Sequence[Path], settings: Funding | None = None, progress: Progress | None = None) -> FundingImport:
    """Read funding CSV files and put their rates into `funding_rates`. All files are read and checked before anything is written.

    Parameters
    ----------
    lake : Lake
    files : sequence of Path
        `<BASE>-<QUOTE>_<venue>_..._funding_history.csv`, also gzipped.
    settings : Funding, optional
        States the files' clocks by venue.
    progress : Progress, optional

    Raises
    ------
    ConfigError
        A file name that does not say which instrument it is.
    DataError
        A file that is missing, truncated or cannot be read; a time zone that is not known.
    """
    settings = settings or Funding()
    read: list[tuple[ImportedFile, FundingHistory]] = []
    for path in files:
        instrument = instrument_of_file(path.name)
        raw = parse_funding_csv(_lines(path), name=path.name)
        if raw.symbol != f"{instrument.base}-{instrument.quote}":
            raise DataError(f"{path.name}: the rows are about {raw.symbol}, the name says {instrument.base}-{instrument.quote}")
        clock = find_clock(
            raw,
            SETTLEMENT_GRIDS.get(instrument.venue),
            told_h=settings.offset_of(instrument.venue),
            second_source=_stored_history(lake, instrument, but_not=path.name),
            name=path.name,
        )
        history = to_history(raw, clock.offset_h)
        facts = ImportedFile(
            file=path.name,
            instrument=instrument,
            rows=len(history),
            repeated=raw.repeated,
            utc_offset_h=clock.offset_h,
            clock=clock.how,
            gaps=history.gaps,
            missing=history.missing,
            largest_gap_h=history.largest_gap_h,
            irregular=history.irregular,
        )
        read.append((facts, history))
    report = progress or silent
    for number, (facts, history) in enumerate(read):
        report("import funding history", number, len(read))
        _store(lake, facts.instrument, history, source=facts.file)
    report("import funding history", len(read), len(read))
    return FundingImport(tuple(facts for facts, _ in read))


def scan_funding(lake: Lake, settings: Funding | None = None, progress: Progress | None = None) -> FundingScanResult:
    """Take the settled and predicted rates of the lake's tapes into `funding_rates`, sum up all rates, rank the trades between them.

    Writes `funding_rates` (what tapes add) and `opportunities`; returns both as values.

    Parameters
    ----------
    lake : Lake
    settings : Funding, optional
        Costs and bounds.
    progress : Progress, optional
    """
    settings = settings or Funding()
    predicted, left_out = _from_tapes(lake)
    perps: list[Perp] = []
    report = progress or silent
    instruments = sorted({p.instrument for p in lake.partitions("funding_rates")})
    for number, instrument in enumerate(instruments):
        report("scan funding", number, len(instruments))
        history = _stored_history(lake, instrument)
        if history is None:
            left_out.append(f"{instrument}: no settled rates, only predictions")
            continue
        forecast = predicted.get(instrument)
        if forecast is not None and forecast[0] <= int(history.stamps_ns[-1]):
            forecast = None
        perps.append(_with_prices(lake, Perp(instrument, history, forecast), settings.max_age_h))
    report("scan funding", len(instruments), len(instruments))
    trades = scan(perps, settings)
    _store_trades(lake, trades)
    return FundingScanResult(tuple(summarise(perp) for perp in perps), trades, tuple(left_out))


# -- files -----------------------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[str]:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            yield from file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as err:
        raise DataError(f"{path}: truncated or not what its name says ({err}); fetch it again") from None


# -- lake: rates -----------------------------------------------------------------------------------------------------------------------


def _month(ts_ns: int) -> date:
    return utc_date(ts_ns).replace(day=1)


def _store(lake: Lake, instrument: InstrumentId, history: FundingHistory, *, source: str, predicted: bool = False, marks: Any = None) -> None:
    months = np.array([_month(int(t)).toordinal() for t in history.stamps_ns])
    marks = np.full(len(history), np.nan) if marks is None else marks
    for month in np.unique(months):
        rows = np.flatnonzero(months == month)
        rates, hours = history.rates[rows], history.intervals_h[rows]
        pairs = [(float(r), float(h)) for r, h in zip(rates, hours, strict=True)]
        lake.upsert(
            "funding_rates",
            Partition.of(instrument, date.fromordinal(int(month))),
            {
                "ts_ns": history.stamps_ns[rows],
                "rate": rates,
                "interval_h": hours,
                "is_predicted": np.full(len(rows), predicted),
                "mark_price": marks[rows],
                "apr": np.array([apr_step(r, h) for r, h in pairs]),
                "apy": np.array([apy_step(r, h) for r, h in pairs]),
                "rate_8h": np.array([rate_8h_step(r, h) for r, h in pairs]),
                "source": [source] * len(rows),
            },
        )


def _stored_history(lake: Lake, instrument: InstrumentId, *, but_not: str = "") -> FundingHistory | None:
    """Settled rates in the lake, one per stamp (the alphabetically first source where several say one); None without any."""
    dates = [p.date for p in lake.partitions("funding_rates") if p.instrument == instrument]
    if not dates:
        return None
    table = lake.read("funding_rates", instrument=instrument, dates=dates, columns=["ts_ns", "rate", "interval_h", "is_predicted", "source"])
    stamps, rates, hours = (numpy_column(table, name) for name in ("ts_ns", "rate", "interval_h"))
    sources = np.array(table.column("source").to_pylist())
    keep = np.flatnonzero(~numpy_column(table, "is_predicted") & (sources != but_not))
    keep = keep[np.lexsort((sources[keep], stamps[keep]))]
    _, first = np.unique(stamps[keep], return_index=True)
    keep = keep[first]
    return history_of(stamps[keep], rates[keep], hours[keep]) if len(keep) else None


def _from_tapes(lake: Lake) -> tuple[dict[InstrumentId, tuple[int, float]], list[str]]:
    """Store the funding rows of all complete tapes; returns the latest prediction per instrument (stamp, rate), and what could not be used."""
    with connect(lake.root) as con:
        rows = con.execute(
            "SELECT venue, symbol, seq, any_value(value ORDER BY local_ts), any_value(aux ORDER BY local_ts) FROM tape WHERE kind = ? GROUP BY ALL ORDER BY ALL",
            [int(Kind.FUNDING)],
        ).fetchall()
        forecasts = con.execute(
            "SELECT venue, symbol, arg_max(seq, local_ts), arg_max(value, local_ts) FROM tape WHERE kind = ? AND value IS NOT NULL GROUP BY ALL",
            [int(Kind.FUNDING_PREDICTED)],
        ).fetchall()
    settled: dict[InstrumentId, list[tuple[int, float, float]]] = {}
    unusable: list[str] = []
    for venue, symbol, stamp, rate, mark in rows:
        settled.setdefault(InstrumentId.parse(f"{venue}:{symbol}"), []).append((stamp, rate, np.nan if mark is None else mark))
    for instrument, stamps in settled.items():
        columns = [np.array(column) for column in zip(*stamps, strict=True)]
        hours = _intervals(lake, instrument, columns[0])
        if hours is None:
            unusable.append(f"{instrument}: one settlement on its tapes and no known interval, so its rate cannot be annualised")
        else:
            _store(lake, instrument, history_of(columns[0], columns[1], hours), source=_TAPE_SOURCE, marks=columns[2])
    return {InstrumentId.parse(f"{venue}:{symbol}"): (stamp, rate) for venue, symbol, stamp, rate in forecasts}, unusable


def _intervals(lake: Lake, instrument: InstrumentId, stamps_ns: Any) -> Any:
    """Hours each stamp is for: the most frequent step between stamps; a single stamp takes what is known of the instrument, None if nothing."""
    if len(stamps_ns) >= 2:
        values, counts = np.unique(np.diff(stamps_ns), return_counts=True)
        return np.full(len(stamps_ns), float(values[np.argmax(counts)]) / NS_PER_HOUR)
    stored = _stored_history(lake, instrument)
    if stored is not None:
        return np.full(len(stamps_ns), float(stored.intervals_h[-1]))
    grid = SETTLEMENT_GRIDS.get(instrument.venue)
    return None if grid is None else np.full(len(stamps_ns), float(grid.interval_h))


# -- lake: prices and trades -----------------------------------------------------------------------------------------------------------


def _with_prices(lake: Lake, perp: Perp, max_age_h: float) -> Perp:
    """Add the mids of the perpetual and of its spot market at the last moment both are known, unless that is too far from the last rate."""
    spot = spot_of(perp.instrument)
    days = {p.date for p in lake.complete_partitions(perp.instrument)}
    if not days:
        return perp
    common = days & {p.date for p in lake.complete_partitions(spot)} if spot is not None else set()
    markets = [perp.instrument, spot] if spot is not None and common else [perp.instrument]
    day = max(common or days)
    with connect(lake.root) as con:
        last = [con.execute(_LAST_TOP, [m.venue, m.symbol, day]).fetchone() for m in markets]
        known = [int(row[0]) for row in last if row is not None and row[0] is not None]
        if len(known) < len(markets) or abs(min(known) - int(perp.history.stamps_ns[-1])) > max_age_h * NS_PER_HOUR:
            return perp
        mids = [con.execute(_MID_AT, [m.venue, m.symbol, day, min(known)]).fetchone() for m in markets]
    prices = [None if row is None or row[0] is None else float(row[0]) for row in mids]
    return replace(perp, price=prices[0], spot_price=prices[1] if len(prices) > 1 else None, price_ns=min(known))


def _store_trades(lake: Lake, trades: Sequence[ScannedTrade]) -> None:
    by_partition: dict[Partition, list[ScannedTrade]] = {}
    for trade in trades:
        by_partition.setdefault(Partition.at(trade.short_instrument, trade.ts_ns), []).append(trade)
    for partition, rows in by_partition.items():
        lake.upsert(
            "opportunities",
            partition,
            {
                "ts_ns": np.array([t.ts_ns for t in rows], dtype=np.int64),
                "kind": [t.kind for t in rows],
                "long_instrument": [str(t.long_instrument) for t in rows],
                "short_instrument": [str(t.short_instrument) for t in rows],
                **{
                    name: np.array([getattr(t, name) for t in rows], dtype=np.float64)
                    for name in ("rate_8h", "apr", "cost_frac", "holding_h", "net_apr")
                },
                "basis_frac": np.array([np.nan if t.basis_frac is None else t.basis_frac for t in rows], dtype=np.float64),
                "break_even_h": np.array([np.nan if t.break_even_h is None else t.break_even_h for t in rows], dtype=np.float64),
                "accepted": np.array([t.accepted for t in rows], dtype=np.bool_),
                "reason": [t.reason for t in rows],
            },
        )
