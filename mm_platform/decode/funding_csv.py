"""Funding history from CSV (`Symbol,Date,Funding Rate`, local times without a zone) to rates at UTC stamps.

Belongs here: lines in, rates out; finding out which clock the file was written by; intervals and gaps. Does not belong here: opening files,
the lake (`workflow.funding`).

The clock. The dates carry no zone, and an error of one settlement is a look into the future. Venues settle on a known grid, so a file's
stamps must lie on it after the shift to UTC. A grid of 8 hours leaves three or four whole-hour zones that fit (UTC+3 fits as well as UTC-5
and UTC+11); an hourly grid leaves all. What the grid leaves open, a second source of the same instrument decides: at the right offset its
rates are equal. Rates of other venues do not: some venues pay a premium one interval later than others, so the best correlation can lie one
settlement off (seen between two large venues over four years). If nothing decides, the file is refused and the zone must be stated.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.instrument import InstrumentId, venue_id
from mm_platform.core.units import NS_PER_S

NS_PER_HOUR: Final = 3600 * NS_PER_S
HEADER: Final = ("Symbol", "Date", "Funding Rate")
_MAX_RATE: Final = 0.5
_SNAP_NS: Final = 60 * NS_PER_S
_INTERVALS_H: Final = (1, 2, 4, 8)
# offsets of inhabited zones are whole hours here; half-hour zones would never fit an hourly grid's stamps
_OFFSETS_H: Final = tuple(range(-12, 15))
_ON_GRID_FRAC: Final = 0.95
_MIN_COMPARED: Final = 100
# two sources of one instrument: equal but for the last printed digit, and never by chance as often as this at a wrong offset
_SAME_RATE: Final = 1.5e-8
_MATCH_FRAC: Final = 0.95
_MATCH_LEAD: Final = 0.2
_FILE_NAME: Final = re.compile(r"(?P<base>[A-Z0-9]+)-(?P<quote>[A-Z0-9]+)_(?P<venue>[a-z0-9]+)_.*funding_history\.csv(?:\.gz)?")
# what such files call a venue -> the ccxt id of its perpetuals
_PERP_VENUES: Final = {"binance": "binanceusdm", "kucoin": "kucoinfutures", "huobi": "htx"}

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SettlementGrid:
    """When a venue settles: every `interval_h` hours, first at `phase_h` o'clock UTC."""

    interval_h: int
    phase_h: int


SETTLEMENT_GRIDS: Final[Mapping[str, SettlementGrid]] = {
    "binanceusdm": SettlementGrid(8, 0),
    "bybit": SettlementGrid(8, 0),
    "okx": SettlementGrid(8, 0),
    "gate": SettlementGrid(8, 0),
    "htx": SettlementGrid(8, 0),
    "mexc": SettlementGrid(8, 0),
    "kucoinfutures": SettlementGrid(8, 4),
    "dydx": SettlementGrid(1, 0),
    "hyperliquid": SettlementGrid(1, 0),
}


@dataclass(frozen=True, slots=True)
class RawFunding:
    """A file as written: times as if they were UTC (ns), sorted, and rates per interval; `repeated` equal rows were dropped."""

    symbol: str
    written_ns: Int64s
    rates: Float64s
    repeated: int


@dataclass(frozen=True, slots=True)
class FundingHistory:
    """Settled rates at UTC stamps.

    Parameters
    ----------
    stamps_ns : array of int64, shape (n,)
        UTC ns, strictly increasing; within a minute of a full hour they are put on it.
    rates : array, shape (n,)
        Per interval, fraction of notional; positive = longs pay.
    intervals_h : array, shape (n,)
        Hours each rate is for.
    gaps, missing : int
        Places where settlements are missing, and how many.
    largest_gap_h : float
        Longest time between two stamps where something is missing, hours; 0 without gaps.
    irregular : int
        Steps that are no whole number of intervals.
    """

    stamps_ns: Int64s
    rates: Float64s
    intervals_h: Float64s
    gaps: int
    missing: int
    largest_gap_h: float
    irregular: int

    def __len__(self) -> int:
        return len(self.stamps_ns)


@dataclass(frozen=True, slots=True)
class ClockFinding:
    """The file's hours ahead of UTC, how that is known, and what else fitted the grid."""

    offset_h: float
    how: str
    candidates: tuple[int, ...]


def perp_venue(name: str) -> str:
    """The venue id of the perpetuals of a house as funding files name it (`binance` is `binanceusdm`); ids stay as they are."""
    vid = venue_id(name)
    return _PERP_VENUES.get(vid, vid)


def instrument_of_file(name: str) -> InstrumentId:
    """The perpetual a file is about, from `<BASE>-<QUOTE>_<venue>_<from>_<to>_funding_history.csv[.gz]`; `ConfigError` for other names."""
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"{name}: the name does not say which instrument it is; expected <BASE>-<QUOTE>_<venue>_..._funding_history.csv[.gz], or state it"
        )
    return InstrumentId.parse(f"{perp_venue(match['venue'])}:{match['base']}-{match['quote']}-PERP")


def parse_funding_csv(lines: Iterable[str], *, name: str = "funding csv") -> RawFunding:
    """Read the lines of one file.

    Parameters
    ----------
    lines : iterable of str
        With the header; dates `YYYY-MM-DD HH:MM:SS[.fff]`, no zone; rates as fractions per interval.
    name : str
        For messages.

    Returns
    -------
    RawFunding
        Sorted by time.

    Raises
    ------
    DataError
        Wrong header, a line that cannot be read (its number is named), a rate beyond 50 %, two rates for one time, two symbols, no rows.
    """
    reader = csv.reader(lines)
    header = tuple(cell.strip() for cell in next(reader, []))
    if header != HEADER:
        raise DataError(f"{name}: header is {','.join(header) or 'empty'}, expected {','.join(HEADER)}")
    rows: dict[int, float] = {}
    symbols: dict[str, None] = {}
    repeated = 0
    for number, cells in enumerate(reader, start=2):
        if not cells:
            continue
        written, rate = _row(name, number, cells)
        symbols[cells[0].strip()] = None
        if written in rows:
            if rows[written] != rate:
                raise DataError(f"{name}: line {number}: rate {rate} at {cells[1]}, an earlier line says {rows[written]}; one of them is wrong")
            repeated += 1
        rows[written] = rate
    if not rows:
        raise DataError(f"{name}: no rows after the header")
    if len(symbols) > 1:
        raise DataError(f"{name}: symbols {', '.join(symbols)} in one file, expected one")
    stamps = np.array(sorted(rows), dtype=np.int64)
    return RawFunding(next(iter(symbols)), stamps, np.array([rows[int(t)] for t in stamps]), repeated)


def _row(name: str, number: int, cells: Sequence[str]) -> tuple[int, float]:
    if len(cells) != 3:
        raise DataError(f"{name}: line {number} has {len(cells)} fields, expected 3 ({','.join(HEADER)})")
    try:
        when = datetime.fromisoformat(cells[1].strip())
        rate = float(cells[2])
    except ValueError as err:
        raise DataError(f"{name}: line {number}: {err}; expected a date like 2023-01-31 08:00:00 and a rate like 0.0001") from None
    if when.tzinfo is not None:
        raise DataError(f"{name}: line {number}: {cells[1]} states a zone; this layout has local times without one")
    if not math.isfinite(rate) or abs(rate) > _MAX_RATE:
        raise DataError(f"{name}: line {number}: rate {cells[2]} per interval, expected a fraction of at most {_MAX_RATE} in size")
    whole = when.replace(microsecond=0, tzinfo=UTC)
    return int(whole.timestamp()) * NS_PER_S + when.microsecond * 1000, rate


def snap_to_hour(stamps_ns: Int64s) -> Int64s:
    """Stamps within a minute of a full hour put on it: venues write settlements some milliseconds late."""
    nearest = (stamps_ns + NS_PER_HOUR // 2) // NS_PER_HOUR * NS_PER_HOUR
    return np.where(np.abs(stamps_ns - nearest) <= _SNAP_NS, nearest, stamps_ns)


def fitting_offsets(raw: RawFunding, grid: SettlementGrid) -> tuple[int, ...]:
    """Whole hours ahead of UTC with which nearly all (95 %) of the stamps lie on the venue's grid."""
    hours = snap_to_hour(raw.written_ns) / NS_PER_HOUR
    return tuple(h for h in _OFFSETS_H if float(np.mean((hours - h - grid.phase_h) % grid.interval_h == 0.0)) >= _ON_GRID_FRAC)


def find_clock(
    raw: RawFunding,
    grid: SettlementGrid | None,
    *,
    told_h: float | None = None,
    second_source: FundingHistory | None = None,
    name: str = "funding csv",
) -> ClockFinding:
    """How many hours the file's clock is ahead of UTC.

    Parameters
    ----------
    raw : RawFunding
    grid : SettlementGrid or None
        The venue's settlement grid; None where it is not known, then the offset must be told.
    told_h : float, optional
        The offset as stated by whoever knows; checked against the grid.
    second_source : FundingHistory, optional
        Rates of the same instrument from elsewhere, at UTC stamps.
    name : str
        For messages.

    Raises
    ------
    DataError
        The stated offset contradicts the grid, or no offset fits, or several do and no second source decides.
    """
    if grid is None:
        if told_h is None:
            raise DataError(
                f"{name}: the venue's settlement grid is not known, so the file's time zone cannot be found; state its hours ahead of UTC (setting funding.utc_offset_h)"
            )
        return ClockFinding(told_h, "told", ())
    fitting = fitting_offsets(raw, grid)
    where = f"every {grid.interval_h} h from {grid.phase_h:02d}:00 UTC"
    if told_h is not None:
        if told_h not in fitting:
            raise DataError(
                f"{name}: with the stated offset of {told_h:+g} h the stamps do not lie on the venue's grid, {where}; offsets that fit: {_list(fitting)}"
            )
        return ClockFinding(told_h, "told", fitting)
    if not fitting:
        raise DataError(f"{name}: no whole-hour time zone puts the stamps on the venue's grid, {where}; state the offset, or check the file")
    if len(fitting) == 1:
        return ClockFinding(fitting[0], "grid", fitting)
    why = "there is no second source of the instrument to compare with"
    if second_source is not None:
        compared = {offset: match_frac(to_history(raw, offset), second_source) for offset in fitting}
        shares = ", ".join(f"{offset:+d} h {equal:.1%} of {n}" for offset, (equal, n) in compared.items())
        ranked = sorted(fitting, key=lambda offset: compared[offset][0], reverse=True)
        best, lead = ranked[0], compared[ranked[0]][0] - compared[ranked[1]][0]
        if compared[best][0] >= _MATCH_FRAC and lead >= _MATCH_LEAD and min(n for _, n in compared.values()) >= _MIN_COMPARED:
            return ClockFinding(best, f"grid and a second source (equal rates: {shares})", fitting)
        why = f"a second source of the instrument does not decide (equal rates: {shares})"
    raise DataError(
        f"{name}: time zones {_list(fitting)} all put the stamps on the venue's grid, {where}, and {why}; state the hours ahead of UTC (setting funding.utc_offset_h)"
    )


def match_frac(one: FundingHistory, other: FundingHistory) -> tuple[float, int]:
    """Share of equal rates among the stamps that both have, and how many those are."""
    _, i, j = np.intersect1d(one.stamps_ns, other.stamps_ns, return_indices=True)
    if len(i) == 0:
        return 0.0, 0
    return float(np.mean(np.abs(one.rates[i] - other.rates[j]) <= _SAME_RATE)), len(i)


def to_history(raw: RawFunding, offset_h: float) -> FundingHistory:
    """Shift to UTC, find each rate's interval, count gaps.

    The interval of a rate is the step before it where that is a usual one (1, 2, 4, 8 h) and a neighbouring step is the same, else the
    file's most frequent step: a venue that changes its interval is followed, a stray stamp is not.
    """
    stamps = snap_to_hour(raw.written_ns - round(offset_h * NS_PER_HOUR))
    if len(stamps) < 2:
        raise DataError(f"{raw.symbol}: {len(stamps)} funding stamp(s); the interval cannot be read from fewer than 2")
    steps = np.diff(stamps) / NS_PER_HOUR
    values, counts = np.unique(np.round(steps, 6), return_counts=True)
    usual = float(values[np.argmax(counts)])
    intervals = np.full(len(stamps), usual)
    for i, step in enumerate(steps):
        neighbours = (steps[i - 1] if i > 0 else None, steps[i + 1] if i + 1 < len(steps) else None)
        if step in _INTERVALS_H and step in neighbours:
            intervals[i + 1] = step
    intervals[0] = intervals[1]
    return history_of(stamps, raw.rates, intervals)


def history_of(stamps_ns: Int64s, rates: Float64s, intervals_h: Float64s) -> FundingHistory:
    """Rates at sorted UTC stamps with their intervals (hours), gaps counted."""
    steps = np.diff(stamps_ns) / NS_PER_HOUR
    ratio = steps / intervals_h[1:]
    whole = np.round(ratio)
    off = np.abs(ratio - whole) > 1e-6
    holes = ~off & (whole > 1)
    return FundingHistory(
        stamps_ns=stamps_ns,
        rates=rates,
        intervals_h=intervals_h,
        gaps=int(holes.sum()),
        missing=int((whole[holes] - 1).sum()),
        largest_gap_h=float(steps[holes].max()) if holes.any() else 0.0,
        irregular=int(off.sum()),
    )


def _list(offsets: Sequence[int]) -> str:
    return ", ".join(f"{offset:+d} h" for offset in offsets) or "none"
