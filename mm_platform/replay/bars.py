"""Bars: one row per step with the touch, the volume and the signals known at its end; read from the guide's DataFrame.

Belongs here: `Bars`, the checks of a frame (each names the row, what was seen and what was expected), signals out of snapshots where their
columns are missing. Does not belong here: fills and money (`replay.bar_run`), ticks (`tape`).

A row is stamped when it ends: everything in it was known at its timestamp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_MS
from mm_platform.market_microstructure_2026 import MarketMicrostructure2026

if TYPE_CHECKING:
    import pandas as pd

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

REQUIRED_COLUMNS: Final = ("timestamp", "bid", "ask", "volume", "volatility")
SNAPSHOT_COLUMNS: Final = ("orderbook_snapshot", "trades")
OPTIONAL_COLUMNS: Final = (
    *SNAPSHOT_COLUMNS,
    "microprice",
    "ofi",
    "kyle_lambda",
    "short_vol",
    "funding_rate",
    "mark_price",
    "trade_low",
    "trade_high",
)

# ns since 1970 between 1973 and 2262: a timestamp outside is in other units
_FIRST_NS: Final = 10**17


@dataclass(frozen=True, slots=True)
class Bars:
    """Equal-length checked columns; nan in an optional one = not known in that row.

    ts_ns : UTC ns, ascending. bid, ask, microprice, mark_price, trade_low, trade_high : quote per base. volume : base.
    volatility, short_vol : relative per sqrt(year). ofi : -1 to 1. kyle_lambda : quote/base per base. funding_rate : fraction of notional
    settled at the row, nan where nothing is settled.
    """

    ts_ns: Int64s
    bid: Float64s
    ask: Float64s
    volume: Float64s
    volatility: Float64s
    microprice: Float64s
    ofi: Float64s
    kyle_lambda: Float64s
    short_vol: Float64s
    funding_rate: Float64s
    mark_price: Float64s
    trade_low: Float64s
    trade_high: Float64s

    def __len__(self) -> int:
        return len(self.ts_ns)

    @property
    def mid(self) -> Float64s:
        return 0.5 * (self.bid + self.ask)


def read_bars(frame: pd.DataFrame) -> Bars:
    """Check a frame and take its columns.

    Columns `microprice` and `ofi` that are missing are computed from `orderbook_snapshot` (the weighted mid of the row; the order flow between
    the row before and this one), `kyle_lambda` and `short_vol` from `trades`. A row whose snapshot is None, or whose trades are too few, leaves
    the signal unknown.

    Raises
    ------
    DataError
        Missing or doubled columns, no rows, naive or unsorted timestamps, numbers outside their domain, a crossed touch, a snapshot or trade
        that cannot be read or lies after its row.
    """
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        raise DataError(f"market_data has the column {doubled[0]!r} more than once; keep one")
    missing = [name for name in REQUIRED_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"market_data lacks the columns {', '.join(missing)}; required: {', '.join(REQUIRED_COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}"
        )
    if len(frame) == 0:
        raise DataError("market_data has no rows: nothing to backtest; load a period with data")
    ts_ns = _timestamps(frame["timestamp"])
    columns = {f.name: _numbers(frame, f.name) for f in fields(Bars) if f.name != "ts_ns"}
    _check_numbers(columns)
    columns |= _derived_signals(frame, ts_ns, columns["ask"] - columns["bid"])
    return Bars(ts_ns, **columns)


def _timestamps(stamp: pd.Series[Any]) -> Int64s:
    import pandas as pd

    unknown = np.flatnonzero(stamp.isna().to_numpy())
    if len(unknown):
        raise DataError(f"timestamp is missing at row {unknown[0]}: expected a time in every row; drop such rows")
    if isinstance(stamp.dtype, pd.DatetimeTZDtype):
        ts_ns = stamp.dt.as_unit("ns").astype("int64").to_numpy()
    elif pd.api.types.is_integer_dtype(stamp.dtype):
        ts_ns = stamp.to_numpy(dtype=np.int64)
        small = np.flatnonzero(ts_ns < _FIRST_NS)
        if len(small):
            raise DataError(
                f"timestamp is {ts_ns[small[0]]} at row {small[0]}: expected nanoseconds since 1970 (UTC); multiply milliseconds by {NS_PER_MS}"
            )
    elif pd.api.types.is_datetime64_dtype(stamp.dtype):
        raise DataError(
            "timestamp has no time zone: say which with df['timestamp'].dt.tz_localize('UTC'), or pass integer nanoseconds since 1970 (UTC)"
        )
    else:
        raise DataError(f"timestamp has type {stamp.dtype}: expected tz-aware datetimes (pd.to_datetime(..., utc=True)) or integer nanoseconds (UTC)")
    back = np.flatnonzero(np.diff(ts_ns) <= 0)
    if len(back):
        i = int(back[0]) + 1
        what = "repeats" if ts_ns[i] == ts_ns[i - 1] else "goes back"
        raise DataError(f"timestamp {what} at row {i}: {ts_ns[i]} follows {ts_ns[i - 1]}; sort the rows by time and keep each time once")
    return np.ascontiguousarray(ts_ns, dtype=np.int64)


def _numbers(frame: pd.DataFrame, name: str) -> Float64s:
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    try:
        return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as err:
        raise DataError(f"{name} is not a column of numbers ({err}); convert it, for instance with pd.to_numeric") from None


def _refuse(name: str, values: Float64s, wrong: npt.NDArray[np.bool_], expected: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise DataError(f"{name} is {values[rows[0]]} at row {rows[0]} ({len(rows)} such rows): expected {expected}")


def _check_numbers(columns: Mapping[str, Float64s]) -> None:
    for name in ("bid", "ask"):
        _refuse(name, columns[name], ~(np.isfinite(columns[name]) & (columns[name] > 0.0)), "a positive price in every row; drop or repair the rows")
    for name, unit in (("volume", "base traded during the row"), ("volatility", "relative per year, 0.5 = 50 %")):
        _refuse(name, columns[name], ~(np.isfinite(columns[name]) & (columns[name] >= 0.0)), f"a number >= 0 in every row ({unit})")
    bid, ask = columns["bid"], columns["ask"]
    crossed = np.flatnonzero(ask <= bid)
    if len(crossed):
        i = crossed[0]
        raise DataError(f"row {i} is crossed: bid {bid[i]} >= ask {ask[i]} ({len(crossed)} such rows); expected bid < ask, resynchronise the book")
    # nan compares false: an unknown value passes
    for name in ("microprice", "mark_price", "trade_low", "trade_high"):
        _refuse(name, columns[name], (columns[name] <= 0.0) | np.isinf(columns[name]), "a positive price, or nan where it is not known")
    _refuse("ofi", columns["ofi"], np.abs(columns["ofi"]) > 1.0, "a number from -1 to 1, or nan where it is not known")
    _refuse(
        "short_vol",
        columns["short_vol"],
        (columns["short_vol"] < 0.0) | np.isinf(columns["short_vol"]),
        "a number >= 0, or nan where it is not known",
    )
    _refuse("kyle_lambda", columns["kyle_lambda"], np.isinf(columns["kyle_lambda"]), "a finite number, or nan where it is not known")
    _refuse(
        "funding_rate",
        columns["funding_rate"],
        np.abs(columns["funding_rate"]) >= 1.0,
        "a fraction of notional such as 0.0001, or nan where none is settled",
    )
    low, high = columns["trade_low"], columns["trade_high"]
    swapped = np.flatnonzero(low > high)
    if len(swapped):
        i = swapped[0]
        raise DataError(f"row {i} has trade_low {low[i]} above trade_high {high[i]}; expected low <= high")


def _derived_signals(frame: pd.DataFrame, ts_ns: Int64s, spread: Float64s) -> dict[str, Float64s]:
    """Signal columns that the frame lacks, from its snapshots and trades."""
    found: dict[str, Float64s] = {}
    signals = MarketMicrostructure2026()
    book_wanted = [name for name in ("microprice", "ofi") if name not in frame.columns]
    if book_wanted and "orderbook_snapshot" in frame.columns:
        microprice, ofi = _signals_of_books(signals, frame["orderbook_snapshot"].tolist(), ts_ns)
        found |= {name: values for name, values in (("microprice", microprice), ("ofi", ofi)) if name in book_wanted}
    trades_wanted = [name for name in ("kyle_lambda", "short_vol") if name not in frame.columns]
    if trades_wanted and "trades" in frame.columns:
        kyle, volatility = _signals_of_trades(signals, frame["trades"].tolist(), ts_ns, spread)
        found |= {name: values for name, values in (("kyle_lambda", kyle), ("short_vol", volatility)) if name in trades_wanted}
    return found


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _signals_of_books(signals: MarketMicrostructure2026, cells: Sequence[Any], ts_ns: Int64s) -> tuple[Float64s, Float64s]:
    microprice = np.full(len(cells), np.nan)
    ofi = np.full(len(cells), np.nan)
    before: dict[str, Any] | None = None
    for i, cell in enumerate(cells):
        touch: dict[str, Any] | None = None
        if not _is_missing(cell):
            if not isinstance(cell, Mapping):
                raise DataError(f"orderbook_snapshot at row {i} is a {type(cell).__name__}: expected ccxt's dict with bids and asks, or None")
            _check_known(f"orderbook_snapshot at row {i}", cell.get("timestamp"), int(ts_ns[i]))
            # both signals look at the touch only
            touch = {side: cell[side][:1] if isinstance(cell.get(side), Sequence) else None for side in ("bids", "asks")}
            try:
                microprice[i] = signals.calculate_microprice(touch)
                if before is not None:
                    ofi[i] = signals.calculate_order_flow_imbalance((before, touch))
            except DataError as err:
                raise DataError(f"orderbook_snapshot at row {i}: {err}") from None
        before = touch
    return microprice, ofi


def _signals_of_trades(signals: MarketMicrostructure2026, cells: Sequence[Any], ts_ns: Int64s, spread: Float64s) -> tuple[Float64s, Float64s]:
    kyle = np.full(len(cells), np.nan)
    volatility = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        if _is_missing(cell):
            continue
        if not isinstance(cell, Sequence) or isinstance(cell, str) or not all(isinstance(trade, Mapping) for trade in cell):
            raise DataError(f"trades at row {i} is a {type(cell).__name__}: expected a list of ccxt's trade dicts, or None")
        for trade in cell:
            _check_known(f"a trade at row {i}", trade.get("timestamp"), int(ts_ns[i]))
        try:
            kyle[i] = signals.calculate_kyle_lambda(cell, float(spread[i]))
            volatility[i] = signals.calculate_short_horizon_volatility(cell, float(spread[i]))
        except DataError as err:
            raise DataError(f"trades at row {i}: {err}") from None
    return kyle, volatility


def _check_known(what: str, stamp_ms: object, row_ns: int) -> None:
    """Whatever a row carries must have been known when it was decided on."""
    if isinstance(stamp_ms, (int, float)) and stamp_ms * NS_PER_MS > row_ns:
        raise DataError(
            f"{what} is stamped {stamp_ms} ms, after its row ({row_ns} ns): a decision would see the future; stamp rows at the end of their bar"
        )
