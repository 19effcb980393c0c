"""The columnar tick tape: one row layout from decode to replay.

Belongs here: row kinds, flags, the column dtypes, the `Tape` container with its checks and the local-time order. Does not belong here:
decoding (`decode`), files (`lake`), or anything that interprets prices (`kernels`, `replay`).

Order. Rows stand in venue order: `exch_ts` never decreases, and at one `exch_ts` a trade stands before the depth rows that reflect it.
`local_ts` may run out of order between rows (streams overtake each other); `local_order()` is the stable permutation by `local_ts` in
which a trader saw them. Each row therefore exists once and carries both clocks.

| kind | side | price_ticks | qty_lots | seq | value | aux |
|---|---|---|---|---|---|---|
| DEPTH, SNAPSHOT | +1 bid, -1 ask | level | new absolute quantity, 0 = gone | venue update id | nan | nan |
| CLEAR | +1, -1, 0 = both | 0 | 0 | update id | nan | nan |
| TOP (bookTicker) | +1 bid, -1 ask (two rows) | best | its quantity | update id | nan | nan |
| TRADE | aggressor: +1 bought, -1 sold | price | size | trade id | nan | nan |
| MARK | 0 | 0 | 0 | -1 | mark price | index price |
| FUNDING_PREDICTED | 0 | 0 | 0 | next stamp, ns | rate per interval | mark price |
| FUNDING | 0 | 0 | 0 | the stamp, ns | settled rate | mark price at the stamp |
| STATUS | 0 | 0 | 0 | status code | nan | nan |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentSpec


class Kind(IntEnum):
    """What a row reports. The first four numbers are the field's (hftbacktest)."""

    DEPTH = 1
    TRADE = 2
    CLEAR = 3
    SNAPSHOT = 4
    TOP = 5
    MARK = 6
    FUNDING_PREDICTED = 7
    FUNDING = 8
    STATUS = 9


__all__ = ["BookState", "COLUMNS", "ESTIMATED_EXCH", "Kind", "LAST", "NOT_MARKET", "REPAIRED", "Tape", "cast_columns"]

# Flags, a bit mask.
LAST: Final = 1  # last row of one venue message: the book is consistent after it
NOT_MARKET: Final = 2  # a print that never fills anyone (INSURANCE_FUND, ADL, RPI)
REPAIRED: Final = 4  # local_ts was moved by the clock repair
ESTIMATED_EXCH: Final = 8  # the venue gave no transaction time; exch_ts is an estimate

COLUMNS: Final[dict[str, npt.DTypeLike]] = {
    "exch_ts": np.dtype(np.int64),
    "local_ts": np.dtype(np.int64),
    "kind": np.dtype(np.int8),
    "side": np.dtype(np.int8),
    "flags": np.dtype(np.int16),
    "price_ticks": np.dtype(np.int64),
    "qty_lots": np.dtype(np.int64),
    "seq": np.dtype(np.int64),
    "value": np.dtype(np.float64),
    "aux": np.dtype(np.float64),
}


@dataclass(frozen=True, slots=True)
class Tape:
    """Equal-length columns of `COLUMNS`, the instrument's facts, and the book before the first row.

    `sha256` identifies the content (set by whoever wrote or made it); `clock_repaired` says whether local times were corrected, in
    which case results on it must carry the latency sensitivity (CONTRACTS, Tape).
    """

    spec: InstrumentSpec
    exch_ts: npt.NDArray[np.int64]
    local_ts: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]
    side: npt.NDArray[np.int8]
    flags: npt.NDArray[np.int16]
    price_ticks: npt.NDArray[np.int64]
    qty_lots: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    aux: npt.NDArray[np.float64]
    initial_book: BookState
    sha256: str = ""
    clock_repaired: bool = False

    def __len__(self) -> int:
        return len(self.exch_ts)

    @classmethod
    def from_columns(
        cls,
        spec: InstrumentSpec,
        columns: dict[str, npt.NDArray[np.generic]],
        *,
        initial_book: BookState | None = None,
        sha256: str = "",
        clock_repaired: bool = False,
    ) -> Tape:
        """Build and validate; raises `DataError` naming the first offending row."""
        missing = COLUMNS.keys() - columns.keys()
        if missing:
            raise DataError(f"tape of {spec.instrument}: columns missing: {', '.join(sorted(missing))}")
        cast = cast_columns(columns)
        tape = cls(spec=spec, initial_book=initial_book or BookState.empty(), sha256=sha256, clock_repaired=clock_repaired, **cast)
        tape.validate()
        return tape

    def columns(self) -> dict[str, npt.NDArray[np.generic]]:
        return {name: getattr(self, name) for name in COLUMNS}

    def validate(self) -> None:
        """Check lengths, order and ranges; raises `DataError`."""
        n = len(self.exch_ts)
        for name in COLUMNS:
            if len(getattr(self, name)) != n:
                raise DataError(f"tape of {self.spec.instrument}: column {name} has {len(getattr(self, name))} rows, exch_ts has {n}")
        if n == 0:
            return
        back = np.flatnonzero(np.diff(self.exch_ts) < 0)
        if len(back):
            i = int(back[0]) + 1
            raise DataError(f"tape of {self.spec.instrument}: row {i}: exch_ts {self.exch_ts[i]} lies before the row above ({self.exch_ts[i - 1]})")
        early = np.flatnonzero(self.local_ts < self.exch_ts)
        if len(early):
            i = int(early[0])
            raise DataError(
                f"tape of {self.spec.instrument}: row {i}: local_ts {self.local_ts[i]} lies before exch_ts {self.exch_ts[i]}; repair the clock first"
            )
        priced = np.isin(self.kind, (Kind.DEPTH, Kind.SNAPSHOT, Kind.TRADE))
        wrong = np.flatnonzero(priced & ((self.price_ticks <= 0) | (self.qty_lots < 0)))
        if len(wrong):
            i = int(wrong[0])
            raise DataError(
                f"tape of {self.spec.instrument}: row {i}: price {self.price_ticks[i]} ticks, quantity {self.qty_lots[i]} lots; expected > 0 and >= 0"
            )

    def local_order(self) -> npt.NDArray[np.int64]:
        """Row numbers in the order a trader saw them (stable by `local_ts`)."""
        return np.argsort(self.local_ts, kind="stable")

    def slice_exch(self, start_ns: int, end_ns: int, initial_book: BookState) -> Tape:
        """Rows with start <= exch_ts < end, given the book at `start_ns` (see `kernels.book`)."""
        lo, hi = np.searchsorted(self.exch_ts, (start_ns, end_ns), side="left")
        cut = {name: column[lo:hi] for name, column in self.columns().items()}
        return Tape(spec=self.spec, initial_book=initial_book, sha256=self.sha256, clock_repaired=self.clock_repaired, **cast_columns(cut))


def cast_columns(columns: dict[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[Any]]:
    """Contiguous arrays of the declared dtypes, copying only where needed."""
    return {name: np.ascontiguousarray(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()}
