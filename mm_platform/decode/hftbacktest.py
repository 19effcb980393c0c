"""hftbacktest's tape layout, both ways: checked rows into tape columns, tape columns into rows that stand in order on both clocks.

Belongs here: the layout, what a file in it must fulfil, pairing events that were written twice, and writing events twice where one order does
not hold on both clocks. Does not belong here: files and the lake (`workflow.hftbacktest_tapes`).

Layout: 64 bytes a row, `ev` = kind in the low byte, flags above: EXCH (the venue processes the row at `exch_ts`), LOCAL (the trader sees it at
`local_ts`), BUY and SELL. Rows with EXCH climb in `exch_ts` and rows with LOCAL in `local_ts`, in file order; an event that fits into one of the
orders only is written twice, once with each flag. Our tape has every event once with both clocks, in venue order.

What the layout can say and ours cannot is refused, with its row: market-by-order rows, events that only one of the two sides ever saw (except
those that the venue ignores anyway: best quotes and trades without a side, which need no venue half), quantities off the lot. A trade without
a side fills nobody there; here it is a print flagged `NOT_MARKET`. The order of events that the trader saw at the same nanosecond is that of the
venue here.

What ours can say and the layout cannot rides along: `order_id` holds the sequence number, the high half of `ival` marks rows of ours, its low half
has flags and side, so that export and import give back the same tape. Mark prices, funding and status have kinds (6 to 9) that hftbacktest passes
over; `px` and `fval` are then `value` and `aux`. Rows of other origin have no such marks: then rows of one pair of times are one venue message.

References
----------
hftbacktest 2.4, https://hftbacktest.readthedocs.io/en/latest/data.html: event flags, rows written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import iso_utc
from mm_platform.decode.result import EARLIEST_NS, LATEST_NS
from mm_platform.kernels.jit import kernel
from mm_platform.tape.layout import COLUMNS, ESTIMATED_EXCH, LAST, NOT_MARKET, REPAIRED, Kind
from mm_platform.tape.messages import Columns, Int64s

__all__ = ["EVENT", "EventOrder", "TapeCheck", "book_columns", "check_rows", "decimal_floats", "event_rows", "tape_columns"]

Rows = npt.NDArray[np.void]
Mask = npt.NDArray[np.bool_]

EVENT: Final = np.dtype(
    [
        ("ev", "<u8"),
        ("exch_ts", "<i8"),
        ("local_ts", "<i8"),
        ("px", "<f8"),
        ("qty", "<f8"),
        ("order_id", "<u8"),
        ("ival", "<i8"),
        ("fval", "<f8"),
    ]
)
EXCH: Final = np.uint64(1 << 31)
LOCAL: Final = np.uint64(1 << 30)
BUY: Final = np.uint64(1 << 29)
SELL: Final = np.uint64(1 << 28)
_BOTH: Final = EXCH | LOCAL
_KIND: Final = np.uint64(0xFF)
_BY_ORDER: Final = range(10, 14)

_OURS: Final = 0x6D6D7461  # "mmta" in the high half of ival
_OWN_FLAGS: Final = LAST | NOT_MARKET | REPAIRED | ESTIMATED_EXCH
_ON_GRID: Final = (Kind.DEPTH, Kind.TRADE, Kind.SNAPSHOT, Kind.TOP)
_VALUED: Final = (Kind.MARK, Kind.FUNDING_PREDICTED, Kind.FUNDING, Kind.STATUS)

CHUNK_ROWS: Final = 262_144
# a price this far from a step, in steps, is float noise of whoever made the tape; further away it is another grid
_GRID_TOLERANCE: Final = 1e-6
_LARGEST_EXACT: Final = 1 << 53
# so many different prices that all lie on a coarser grid are no accident
_PRICES_FOR_GRID: Final = 64
_TRADES_FOR_REPEATS: Final = 20


@dataclass(frozen=True, slots=True)
class TapeCheck:
    """A file's rows, found good.

    Parameters
    ----------
    rows, events : int
        Rows in the file, and rows of the tape they make.
    first_exch_ns, last_exch_ns, first_local_ns, last_local_ns : int
        Ends of the two orders [ns UTC].
    exch_half, local_half : ndarray of int64
        Positions of events written twice: row with EXCH (ascending) and its partner with LOCAL.
    only_local : ndarray of int64
        Positions of rows that have LOCAL alone and need no venue half, by their `exch_ts`.
    ignored : int
        Rows with EXCH alone that neither side processes.
    repeated_trades : int
        Trades equal to the row above in everything, and without an id that could tell whether they are the same.
    from_snapshot : bool
        Whether the first row of the book is a snapshot or a clear.
    """

    rows: int
    events: int
    first_exch_ns: int
    last_exch_ns: int
    first_local_ns: int
    last_local_ns: int
    exch_half: Int64s
    local_half: Int64s
    only_local: Int64s
    ignored: int
    repeated_trades: int
    from_snapshot: bool


# -- numbers -----------------------------------------------------------------------------------------------------------------------------


def decimal_floats(steps: Int64s, size: Decimal) -> npt.NDArray[np.float64]:
    """Whole steps times a decimal size, as the floats nearest to those decimals (what a parser makes of the venue's text).

    Parameters
    ----------
    steps : ndarray of int64, shape (n,)
    size : Decimal
        Price per tick or quantity per lot.

    Notes
    -----
    Steps times the digits of the size, and its power of ten, are exact in a float up to 2**53 and 10**22; one division then rounds once.
    """
    _, digits, exponent = size.normalize().as_tuple()
    assert isinstance(exponent, int)
    factor, places = int("".join(map(str, digits))) * 10 ** max(exponent, 0), max(-exponent, 0)
    largest = max(abs(int(steps.max())), abs(int(steps.min()))) if len(steps) else 0
    if largest * factor > _LARGEST_EXACT or places > 22:
        return np.array([float(size * int(step)) for step in steps], dtype=np.float64)
    exact: npt.NDArray[np.float64] = (steps * factor).astype(np.float64) / float(10**places)
    return exact


def _steps(values: npt.NDArray[np.float64], size: Decimal) -> tuple[Int64s, Mask]:
    """Nearest whole steps, and where a value is not one (or not finite)."""
    with np.errstate(invalid="ignore", over="ignore"):
        exact = values / float(size)
        nearest = np.rint(exact)
        off = ~(np.abs(exact - nearest) <= np.maximum(_GRID_TOLERANCE, np.abs(nearest) * 1e-15)) | (np.abs(nearest) > float(_LARGEST_EXACT))
    return np.where(off, 0.0, nearest).astype(np.int64), off


def _grid_of(values: npt.NDArray[np.float64]) -> str:
    """The coarsest of the usual steps (1, 5 or 2.5 times a power of ten) that all values lie on, as text for a message."""
    for exponent in range(6, -13, -1):
        for digits in ("5", "2.5", "1"):
            size = Decimal(digits).scaleb(exponent)
            if not _steps(values, size)[1].any():
                return f"{size:f}"
    return "no decimal step"


# -- reading -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """Some rows of a file, taken apart once."""

    rows: Rows
    kind: npt.NDArray[np.int64]
    side: npt.NDArray[np.int8]
    two_sided: Mask
    exch: Mask
    local: Mask
    ours: Mask
    # off the grid or not a number where a grid value is needed
    ticks: Int64s
    off_tick: Mask
    lots: Int64s
    off_lot: Mask

    @classmethod
    def of(cls, rows: Rows, spec: InstrumentSpec) -> _Parts:
        ev = rows["ev"]
        buy, sell = (ev & BUY) != 0, (ev & SELL) != 0
        kind = (ev & _KIND).astype(np.int64)
        ival = rows["ival"]
        ours = (ival >> 32) == _OURS
        stated = np.where(ours, ((ival >> 16) & 0x3) - 1, 0)
        side = np.where(ours, stated, buy.astype(np.int8) - sell.astype(np.int8)).astype(np.int8)
        priced, counted = _needs_price(kind, side, rows["px"]), np.isin(kind, _ON_GRID)
        ticks, off_tick = _steps(rows["px"], spec.tick)
        lots, off_lot = _steps(rows["qty"], spec.lot)
        return cls(
            rows=rows,
            kind=kind,
            side=side,
            two_sided=buy & sell,
            exch=(ev & EXCH) != 0,
            local=(ev & LOCAL) != 0,
            ours=ours,
            ticks=np.where(priced, ticks, 0),
            off_tick=off_tick & priced,
            lots=np.where(counted, lots, 0),
            off_lot=off_lot & counted,
        )


def _needs_price(kind: npt.NDArray[np.int64], side: npt.NDArray[np.int8], px: npt.NDArray[np.float64]) -> Mask:
    """Rows whose `px` is a price; a clear of one side with a finite price reaches from the touch to that price only."""
    return np.isin(kind, _ON_GRID) | ((kind == Kind.CLEAR) & (side != 0) & np.isfinite(px))


def _ignored_by_venue(kind: npt.NDArray[np.int64], side: npt.NDArray[np.int8], ours: Mask) -> Mask:
    """Rows that no exchange simulation of hftbacktest reacts to."""
    return ~ours & ((kind == Kind.TOP) | ((kind == Kind.TRADE) & (side == 0)))


def check_rows(rows: Rows, spec: InstrumentSpec, name: str, *, chunk_rows: int = CHUNK_ROWS) -> TapeCheck:
    """Look through all rows of a file before anything is made of them.

    Parameters
    ----------
    rows : ndarray of `EVENT`, shape (n,)
        May be memory-mapped; read in chunks. What is kept is 16 bytes per event written twice.
    spec : InstrumentSpec
        Tick and lot of the instrument that the rows are said to be of.
    name : str
        For messages.
    chunk_rows : int

    Returns
    -------
    TapeCheck

    Raises
    ------
    DataError
        Another dtype; no rows; the first row that is out of order on a clock it has, seen before it happened, of an unknown kind, off the grid,
        not a number, repeated, or only half there; prices that all lie on a coarser grid than the tick.
    """
    _check_dtype(rows, name)
    checker = _Checker(spec, name)
    for start in range(0, len(rows), chunk_rows):
        checker.add(np.asarray(rows[start : start + chunk_rows]), start)
    return checker.finish(rows)


def _check_dtype(rows: Rows, name: str) -> None:
    if rows.ndim == 2 and rows.dtype.kind == "f":
        raise DataError(f"{name}: a table of {rows.shape[1]} float columns, the layout of hftbacktest 1; convert it with hftbacktest 2 first")
    fields = rows.dtype.fields
    if rows.ndim != 1 or fields is None or [(n, *fields[n]) for n in fields] != [(n, *EVENT.fields[n]) for n in EVENT.names]:  # type: ignore[index, union-attr]
        raise DataError(f"{name}: shape {rows.shape} of {rows.dtype}; expected one dimension of hftbacktest's event_dtype: {EVENT}")
    if not len(rows):
        raise DataError(f"{name}: no rows; expected events in hftbacktest's layout")


class _Checker:
    """The one pass of `check_rows`."""

    def __init__(self, spec: InstrumentSpec, name: str) -> None:
        self._spec = spec
        self._name = name
        self._newest = {"exch_ts": -1, "local_ts": -1}
        self._first = {"exch_ts": -1, "local_ts": -1}
        self._halves: list[tuple[Int64s, Rows]] = []
        self._above: Rows | None = None
        self._events = self._trades = self._repeated = 0
        self._from_snapshot: bool | None = None
        self._divisor = 0
        self._prices: set[int] = set()

    def add(self, rows: Rows, start: int) -> None:
        p = _Parts.of(rows, self._spec)
        known = np.isin(p.kind, (*_ON_GRID, Kind.CLEAR)) | (np.isin(p.kind, _VALUED) & p.ours)
        book = np.isin(p.kind, (Kind.DEPTH, Kind.SNAPSHOT, Kind.CLEAR))
        trade = p.kind == Kind.TRADE
        sided = np.isin(p.kind, (Kind.DEPTH, Kind.SNAPSHOT, Kind.TOP))
        priced = _needs_price(p.kind, p.side, rows["px"])
        same = self._same_as_above(rows)
        repeats = same & trade & (~p.ours | (rows["order_id"].view(np.int64) < 0))
        whole = p.exch & p.local
        self._refuse(
            p,
            start,
            (~(p.exch | p.local), lambda i: "is flagged neither EXCH nor LOCAL, so that neither side would process it; set both flags"),
            (~known, lambda i: _unknown(int(p.kind[i]))),
            *(self._clock(rows, column, has) for column, has in (("exch_ts", p.exch), ("local_ts", p.local))),
            *(self._order(rows, column, has) for column, has in (("exch_ts", p.exch), ("local_ts", p.local))),
            (
                whole & (rows["local_ts"] < rows["exch_ts"]),
                lambda i: (
                    f"is seen at {rows['local_ts'][i]}, before it happened at {rows['exch_ts'][i]}; shift the local clock first "
                    "(hftbacktest.data.correct_local_timestamp)"
                ),
            ),
            (p.two_sided, lambda i: "is flagged BUY and SELL; expected one of them"),
            (sided & (p.side == 0), lambda i: "has no side; expected BUY (bids) or SELL (asks)"),
            (p.off_tick, lambda i: self._off(rows["px"], float(rows["px"][i]), priced, "price", "tick", self._spec.tick_size)),
            (p.off_lot, lambda i: self._off(rows["qty"], float(rows["qty"][i]), sided | trade, "quantity", "lot", self._spec.lot_size)),
            (priced & (p.ticks <= 0) & (p.kind != Kind.TOP) & ~p.off_tick, lambda i: f"has a price of {rows['px'][i]}; expected more than 0"),
            ((p.kind == Kind.TOP) & (p.ticks < 0), lambda i: f"has a price of {rows['px'][i]}; expected 0 (no quote) or more"),
            (p.lots < 0, lambda i: f"has a quantity of {rows['qty'][i]}; expected 0 or more"),
            (trade & (p.lots == 0) & ~p.off_lot & ~p.ours, lambda i: "is a trade of quantity 0; expected more, or the row left out"),
            (same & book, lambda i: "repeats the row above in everything; a venue states a level once: make the file again without the repetition"),
            (
                same & trade & ~repeats,
                lambda i: f"repeats trade {rows['order_id'][i]} of the row above; make the file again without the repetition",
            ),
        )
        for column, has in (("exch_ts", p.exch), ("local_ts", p.local)):
            at = np.flatnonzero(has)
            if len(at):
                if self._first[column] < 0:
                    self._first[column] = int(rows[column][at[0]])
                self._newest[column] = int(rows[column][at[-1]])
        self._events += int(np.count_nonzero(whole))
        self._trades += int(np.count_nonzero(trade & p.exch))
        self._repeated += int(np.count_nonzero(repeats & p.exch))
        halves = np.flatnonzero(p.exch != p.local)
        if len(halves):
            self._halves.append((halves + start, rows[halves].copy()))
        if self._from_snapshot is None and np.any(book & p.exch):
            self._from_snapshot = bool(p.kind[np.flatnonzero(book & p.exch)[0]] != Kind.DEPTH)
        self._look_at_grid(p.ticks[priced & (p.ticks > 0)])
        self._above = rows[-1:].copy()

    def finish(self, rows: Rows) -> TapeCheck:
        exch_half, local_half, only_local, ignored = self._paired(rows)
        spec, name = self._spec, self._name
        if self._divisor > 1 and len(self._prices) >= _PRICES_FOR_GRID:
            raise DataError(
                f"{name}: every price is a multiple of {self._divisor} ticks of {spec.tick_size}: the tape's own tick is "
                f"{(spec.tick * self._divisor).normalize():f}, so it is of another instrument or another time than {spec.instrument} with that tick"
            )
        if self._repeated >= _TRADES_FOR_REPEATS and 2 * self._repeated >= self._trades:
            raise DataError(
                f"{name}: {self._repeated} of {self._trades} trades repeat the trade above in everything: the file holds its trades twice; make it "
                "again from one copy"
            )
        events = self._events + len(exch_half) + len(only_local)
        if not events:
            raise DataError(
                f"{name}: none of {len(rows)} rows is one that both the venue and the trader process; expected events with EXCH and LOCAL"
            )
        return TapeCheck(
            rows=len(rows),
            events=events,
            first_exch_ns=self._first["exch_ts"],
            last_exch_ns=self._newest["exch_ts"],
            first_local_ns=self._first["local_ts"],
            last_local_ns=self._newest["local_ts"],
            exch_half=exch_half,
            local_half=local_half,
            only_local=only_local,
            ignored=ignored,
            repeated_trades=self._repeated,
            from_snapshot=bool(self._from_snapshot),
        )

    # -- refusals ------------------------------------------------------------------------------------------------------------------------
    def _refuse(self, p: _Parts, start: int, *rules: tuple[Mask, Callable[[int], str]]) -> None:
        """Name the first row that breaks a rule; of several rules, the one that stands first here."""
        first, why = len(p.rows), None
        for broken, reason in rules:
            i = int(broken.argmax())
            if broken[i] and i < first:
                first, why = i, reason
        if why is not None:
            raise DataError(f"{self._name}: row {start + first} ({_shown(p, first)}) {why(first)}")

    @staticmethod
    def _clock(rows: Rows, column: str, has: Mask) -> tuple[Mask, Callable[[int], str]]:
        wrong = has & ((rows[column] < EARLIEST_NS) | (rows[column] >= LATEST_NS))
        return wrong, lambda i: f"has {column} {rows[column][i]}, no time between 2010 and 2100 in ns since 1970; expected nanoseconds"

    def _order(self, rows: Rows, column: str, has: Mask) -> tuple[Mask, Callable[[int], str]]:
        """Rows that lie before one above them on the same clock."""
        newest = np.maximum.accumulate(np.where(has, rows[column], -1))
        before = np.maximum(np.concatenate(([-1], newest[:-1])), self._newest[column])
        flag = "EXCH" if column == "exch_ts" else "LOCAL"
        return (
            has & (rows[column] < before),
            lambda i: (
                f"has {column} {rows[column][i]}, before that of a row above ({before[i]}); rows flagged {flag} must climb in it: sort the events, and "
                "write those twice that fit into one of the orders only (hftbacktest.data.correct_event_order)"
            ),
        )

    def _off(self, values: npt.NDArray[np.float64], value: float, needed: Mask, what: str, step: str, size: str) -> str:
        if not np.isfinite(value):
            return f"has {value} as its {what}; expected a number"
        seen = values[needed & np.isfinite(values)]
        return (
            f"has a {what} of {value}, off the {step} of {size} of {self._spec.instrument}; the {'prices' if what == 'price' else 'quantities'} around it lie "
            f"on a grid of {_grid_of(seen)}: the tape is of another instrument or time, or give its own --{step}"
        )

    def _same_as_above(self, rows: Rows) -> Mask:
        words = np.ascontiguousarray(rows).view(np.uint64).reshape(-1, 8)
        same = np.empty(len(rows), dtype=np.bool_)
        same[0] = self._above is not None and bool((words[0] == self._above.view(np.uint64)).all())
        # times first: they nearly always differ
        near = np.flatnonzero((words[1:, 1] == words[:-1, 1]) & (words[1:, 3] == words[:-1, 3])) + 1
        same[1:] = False
        same[near] = (words[near] == words[near - 1]).all(axis=1)
        return same

    def _look_at_grid(self, ticks: Int64s) -> None:
        if self._divisor == 1 or not len(ticks):
            return
        self._divisor = int(np.gcd(self._divisor, np.gcd.reduce(ticks)))
        if self._divisor > 1 and len(self._prices) < _PRICES_FOR_GRID:
            self._prices.update(np.unique(ticks)[:_PRICES_FOR_GRID].tolist())

    # -- events written twice ------------------------------------------------------------------------------------------------------------
    def _paired(self, rows: Rows) -> tuple[Int64s, Int64s, Int64s, int]:
        """Match rows with EXCH alone to rows with LOCAL alone: of equal content, the first with the first.

        Which of two equal events gets which partner changes nothing that either side sees. Rows of ours state both clocks on both halves, so there they
        are part of the content.
        """
        none = np.empty(0, dtype=np.int64)
        if not self._halves:
            return none, none, none, 0
        at = np.concatenate([where for where, _ in self._halves])
        half = np.concatenate([part for _, part in self._halves])
        is_exch = (half["ev"] & EXCH) != 0
        ours = (half["ival"] >> 32) == _OURS
        content = (
            half["ev"] & ~_BOTH,
            half["px"].view(np.int64),
            half["qty"].view(np.int64),
            half["order_id"],
            half["ival"],
            np.where(ours, half["exch_ts"], 0),
            np.where(ours, half["local_ts"], 0),
        )
        order = np.lexsort(content)
        fresh = np.ones(len(order), dtype=np.bool_)
        fresh[1:] = np.any([column[order][1:] != column[order][:-1] for column in content], axis=0)
        group = np.empty(len(order), dtype=np.int64)
        group[order] = np.cumsum(fresh)
        exch, local = np.flatnonzero(is_exch), np.flatnonzero(~is_exch)
        exch_key, local_key = _numbered(group[exch]), _numbered(group[local])
        _, i, j = np.intersect1d(exch_key, local_key, assume_unique=True, return_indices=True)
        paired = np.zeros(len(half), dtype=np.bool_)
        paired[exch[i]] = paired[local[j]] = True
        self._refuse_alone(half, at, ~paired)
        early = np.flatnonzero(half["local_ts"][local[j]] < half["exch_ts"][exch[i]])
        if len(early):
            a, b = int(exch[i[early[0]]]), int(local[j[early[0]]])
            raise DataError(
                f"{self._name}: row {at[b]} is seen at {half['local_ts'][b]}, before the venue has it in row {at[a]} at {half['exch_ts'][a]}; shift the local "
                "clock first (hftbacktest.data.correct_local_timestamp)"
            )
        by_place = np.argsort(at[exch[i]], kind="stable")
        alone = np.flatnonzero(~paired & ~is_exch)
        alone = alone[np.argsort(half["exch_ts"][alone], kind="stable")]
        ignored = int(np.count_nonzero(~paired & is_exch))
        return at[exch[i]][by_place], at[local[j]][by_place], at[alone], ignored

    def _refuse_alone(self, half: Rows, at: Int64s, alone: Mask) -> None:
        p = _Parts.of(half, self._spec)
        passed_over = _ignored_by_venue(p.kind, p.side, p.ours)
        wrong = np.flatnonzero(alone & ~passed_over)
        if len(wrong):
            i = int(wrong[0])
            has, lacks = ("EXCH", "LOCAL") if p.exch[i] else ("LOCAL", "EXCH")
            saw = "the trader never saw" if p.exch[i] else "the venue never had"
            raise DataError(
                f"{self._name}: row {at[i]} ({_shown(p, i)}) is flagged {has} alone and no row of equal kind, side, price and quantity is flagged {lacks} alone: "
                f"an event that {saw}, which our tape cannot express; add the other half, or flag the row with both"
            )
        own = alone & passed_over & p.local
        bad = np.flatnonzero(own & ((half["exch_ts"] < EARLIEST_NS) | (half["exch_ts"] > half["local_ts"])))
        if len(bad):
            i = int(bad[0])
            raise DataError(
                f"{self._name}: row {at[i]} ({_shown(p, i)}) is flagged LOCAL alone, and its exch_ts {half['exch_ts'][i]} is no time up to its local_ts "
                f"{half['local_ts'][i]}; expected when it happened at the venue"
            )


def _numbered(group: Int64s) -> Int64s:
    """A key per entry: its group, and how many of that group stand before it."""
    order = np.argsort(group, kind="stable")
    climbing = group[order]
    starts = np.flatnonzero(np.concatenate(([True], climbing[1:] != climbing[:-1]))) if len(group) else np.empty(0, dtype=np.int64)
    counts = np.diff(np.concatenate((starts, [len(group)])))
    within = np.empty(len(group), dtype=np.int64)
    within[order] = np.arange(len(group)) - np.repeat(starts, counts)
    return (group << 32) | within


def _unknown(kind: int) -> str:
    if kind in _BY_ORDER:
        return f"is of kind {kind}, market by order (L3); the tape holds levels (L2): convert it to DEPTH rows"
    return f"is of kind {kind}; expected 1 DEPTH, 2 TRADE, 3 CLEAR, 4 SNAPSHOT or 5 BBO"


def _shown(p: _Parts, i: int) -> str:
    row = p.rows[i]
    kind = Kind(p.kind[i]).name if p.kind[i] in Kind.__members__.values() else f"kind {p.kind[i]}"
    side = {1: " buy", -1: " sell"}.get(int(p.side[i]), "")
    stamp = int(row["exch_ts"] if p.exch[i] else row["local_ts"])
    when = iso_utc(stamp) if EARLIEST_NS <= stamp < LATEST_NS else f"time {stamp}"
    return f"{kind}{side} {row['qty']} at {row['px']}, {when}"


def tape_columns(rows: Rows, spec: InstrumentSpec, check: TapeCheck, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[Columns]:
    """Tape columns of checked rows, batch after batch in venue order.

    Parameters
    ----------
    rows : ndarray of `EVENT`
        The rows that `check` is of.
    spec : InstrumentSpec
    check : TapeCheck
    chunk_rows : int

    Yields
    ------
    dict of str to ndarray
        The columns of `tape.layout.COLUMNS`. A venue message (rows with one pair of times) is never cut between batches.
    """
    alone = np.asarray(rows[check.only_local]) if len(check.only_local) else np.empty(0, dtype=EVENT)
    held = np.empty(0, dtype=EVENT)
    for start in range(0, len(rows), chunk_rows):
        chunk = np.array(rows[start : start + chunk_rows])
        lo, hi = np.searchsorted(check.exch_half, (start, start + len(chunk)))
        halves = check.exch_half[lo:hi] - start
        chunk["local_ts"][halves] = rows["local_ts"][check.local_half[lo:hi]]
        flags = chunk["ev"] & _BOTH
        keep = flags == _BOTH
        keep[halves] = True
        held = np.concatenate((held, chunk[keep]))
        if not len(held):
            continue
        newest = held["exch_ts"][-1]
        cut = int(np.searchsorted(held["exch_ts"], newest, side="left"))
        now = int(np.searchsorted(alone["exch_ts"], newest, side="left"))
        yield _columns(_merged(held[:cut], alone[:now]), spec)
        held, alone = held[cut:], alone[now:]
    yield _columns(_merged(held, alone), spec)


def _merged(events: Rows, alone: Rows) -> Rows:
    """Both in venue order; at one time, those that only the trader saw come last."""
    if not len(alone):
        return events
    return np.insert(events, np.searchsorted(events["exch_ts"], alone["exch_ts"], side="right"), alone)


def _columns(rows: Rows, spec: InstrumentSpec) -> Columns:
    p = _Parts.of(rows, spec)
    valued = np.isin(p.kind, _VALUED)
    flags = np.where(p.ours, rows["ival"] & _OWN_FLAGS, _message_ends(p))
    flags |= np.where(~p.ours & (p.kind == Kind.TRADE) & (p.side == 0), NOT_MARKET, 0)
    columns: Columns = {
        "exch_ts": rows["exch_ts"],
        "local_ts": rows["local_ts"],
        "kind": p.kind,
        "side": p.side,
        "flags": flags,
        "price_ticks": p.ticks,
        "qty_lots": p.lots,
        "seq": np.where(p.ours, rows["order_id"].view(np.int64), -1),
        "value": np.where(valued, rows["px"], np.nan),
        "aux": np.where(valued, rows["fval"], np.nan),
    }
    return {name: np.ascontiguousarray(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()}


def _message_ends(p: _Parts) -> npt.NDArray[np.int64]:
    """`LAST` where rows of other origin end a venue message.

    A message is what has one pair of times: the book is not looked at in between, where it may be crossed. Depth rows and snapshot rows (with the
    clears among them) are messages of their own; trades in between do not end them.
    """
    flags = np.full(len(p.rows), LAST, dtype=np.int64)
    for kinds in ((Kind.DEPTH,), (Kind.SNAPSHOT, Kind.CLEAR), (Kind.TOP,)):
        at = np.flatnonzero(np.isin(p.kind, kinds))
        if len(at) > 1:
            exch, local = p.rows["exch_ts"][at], p.rows["local_ts"][at]
            goes_on = (exch[1:] == exch[:-1]) & (local[1:] == local[:-1])
            flags[at[:-1][goes_on]] = 0
    return flags


# -- writing -----------------------------------------------------------------------------------------------------------------------------


def event_rows(columns: Columns, spec: InstrumentSpec) -> Rows:
    """Tape columns as rows of the layout, one each, flagged for both sides; `EventOrder` puts them in order.

    Parameters
    ----------
    columns : dict of str to ndarray, shape (n,)
        The columns of `tape.layout.COLUMNS`.
    spec : InstrumentSpec

    Returns
    -------
    ndarray of `EVENT`, shape (n,)
        Prices and quantities are the floats nearest to the venue's decimals. Prints that fill nobody (`NOT_MARKET`) carry no side: hftbacktest's
        exchange passes over them and its trader still sees them.
    """
    kind, side, flags = columns["kind"].astype(np.int64), columns["side"].astype(np.int64), columns["flags"].astype(np.int64)
    silent = (kind == Kind.TRADE) & ((flags & NOT_MARKET) != 0)
    valued = np.isin(kind, _VALUED)
    cleared = (kind == Kind.CLEAR) & ((side == 0) | (columns["price_ticks"] <= 0))
    rows = np.zeros(len(kind), dtype=EVENT)
    rows["ev"] = kind.astype(np.uint64) | _BOTH | np.where((side > 0) & ~silent, BUY, 0) | np.where((side < 0) & ~silent, SELL, 0)
    rows["exch_ts"], rows["local_ts"] = columns["exch_ts"], columns["local_ts"]
    prices = decimal_floats(columns["price_ticks"], spec.tick)
    rows["px"] = np.where(valued, columns["value"], np.where(cleared, np.nan, prices))
    rows["qty"] = decimal_floats(columns["qty_lots"], spec.lot)
    rows["order_id"] = columns["seq"].view(np.uint64)
    rows["ival"] = (_OURS << 32) | ((side + 1) << 16) | (flags & _OWN_FLAGS)
    rows["fval"] = np.where(valued, columns["aux"], 0.0)
    return rows


def book_columns(book: BookState, at_ns: int) -> Columns:
    """A known book as tape columns: a clear and a snapshot that happen, and are seen, at `at_ns`.

    hftbacktest begins with an empty book; the levels that a tape starts from must stand in it.
    """
    n = len(book.bid_ticks) + len(book.ask_ticks) + 1
    columns: Columns = {name: np.zeros(n, dtype=dtype) for name, dtype in COLUMNS.items()}
    columns["exch_ts"][:] = columns["local_ts"][:] = at_ns
    columns["kind"][:] = Kind.SNAPSHOT
    columns["kind"][0] = Kind.CLEAR
    columns["side"][1:] = np.repeat((1, -1), (len(book.bid_ticks), len(book.ask_ticks)))
    columns["price_ticks"][1:] = np.concatenate((book.bid_ticks, book.ask_ticks))
    columns["qty_lots"][1:] = np.concatenate((book.bid_lots, book.ask_lots))
    columns["flags"][[0, -1]] = LAST
    columns["seq"][:] = book.seq
    columns["value"][:] = columns["aux"][:] = np.nan
    return columns


class EventOrder:
    """Puts rows in venue order into an order that holds on both clocks, batch after batch.

    Rows that stand in order on both clocks together (a longest such set) are written once, all others twice: with EXCH where the venue has them,
    with LOCAL where the trader sees them. Holds back only what a later row may still be seen before.
    """

    def __init__(self) -> None:
        self._held = np.empty(0, dtype=EVENT)

    def push(self, rows: Rows) -> Rows:
        """Rows from `event_rows`, none before those given earlier in venue time; returns rows that are final."""
        held = np.concatenate((self._held, rows))
        if not len(held):
            return held
        local = held["local_ts"]
        # whatever comes later happens at the venue no earlier than the last row, and is seen later still
        bound = held["exch_ts"][-1]
        above = np.maximum.accumulate(local)
        below = np.minimum(np.minimum.accumulate(local[::-1])[::-1], bound)
        closed = np.flatnonzero(above[:-1] <= below[1:])
        cut = int(closed[-1]) + 1 if len(closed) else 0
        self._held = held[cut:]
        return _in_both_orders(held[:cut])

    def flush(self) -> Rows:
        """What is still held."""
        rest, self._held = self._held, np.empty(0, dtype=EVENT)
        return _in_both_orders(rest)


def _in_both_orders(rows: Rows) -> Rows:
    n = len(rows)
    local = np.ascontiguousarray(rows["local_ts"])
    if n < 2 or bool(np.all(local[1:] >= local[:-1])):
        return rows
    once = np.zeros(n, dtype=np.bool_)
    climb: Any = longest_climb.compiled
    climb(local, np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), once)
    seen = np.argsort(local, kind="stable")
    # between two rows written once: first the venue's halves, then the trader's
    venue_gap = np.cumsum(once)
    local_gap = np.cumsum(once[seen])
    kept, exch_only, local_only = np.flatnonzero(once), np.flatnonzero(~once), seen[~once[seen]]
    at = np.concatenate((kept, exch_only, local_only))
    place = np.concatenate((3 * np.arange(len(kept)) + 2, 3 * venue_gap[exch_only], 3 * local_gap[~once[seen]] + 1))
    flag = np.repeat(np.array([_BOTH, EXCH, LOCAL]), (len(kept), len(exch_only), len(local_only)))
    order = np.argsort(place, kind="stable")
    out = rows[at[order]]
    out["ev"] = (out["ev"] & ~_BOTH) | flag[order]
    return out


@kernel
def longest_climb(values: Int64s, tail: Int64s, tail_at: Int64s, before: Int64s, chosen: Mask) -> int:
    """Mark a longest non-decreasing subsequence; returns its length.

    Parameters
    ----------
    values : ndarray of int64, shape (n,)
    tail, tail_at, before : ndarray of int64, shape (n,)
        Working memory.
    chosen : ndarray of bool, shape (n,)
        All false; set for the elements of the subsequence.

    References
    ----------
    Fredman (1975), "On computing the length of longest increasing subsequences", Discrete Mathematics 11.
    """
    length = 0
    for i in range(values.shape[0]):
        value = values[i]
        lo = length
        if length > 0 and tail[length - 1] > value:
            # the first tail beyond the value is replaced
            lo = 0
            hi = length - 1
            while lo < hi:
                mid = (lo + hi) // 2
                if tail[mid] > value:
                    hi = mid
                else:
                    lo = mid + 1
        tail[lo] = value
        tail_at[lo] = i
        before[i] = tail_at[lo - 1] if lo > 0 else -1
        if lo == length:
            length += 1
    i = tail_at[length - 1] if length > 0 else -1
    while i >= 0:
        chosen[i] = True
        i = before[i]
    return length
