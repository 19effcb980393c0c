"""Our fills as the lake keeps them, with their mark-outs, and the means that a run's summary shows.

Belongs here: collecting fills and mids, mark-outs by the kernel that the backtest uses, rows of the table `live_fills`. Does not belong here:
profit and loss (`kernels.accounting`), Parquet (`lake.store`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Protocol

import numpy as np

from mm_platform.core.events import Fill
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_S, utc_date
from mm_platform.kernels.accounting import markouts_path

MARKOUT_HORIZONS_S: Final = (1, 5, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class FillRow:
    """One fill and what is known of the order behind it."""

    fill: Fill
    purpose: str
    parameter_version: str


class FillSink(Protocol):
    """Where rows go, by UTC day of the fill's local time; a row with the same run, order and trade replaces the one before."""

    def write(self, day: date, columns: dict[str, Sequence[Any]]) -> None: ...


class FillBook:
    """The fills of one run. Rows go to the sink with what mark-outs are known by then, and once more when all are known.

    Parameters
    ----------
    spec : InstrumentSpec
        Turns ticks and lots into prices and base.
    run_id, mode : str
        Columns of every row.
    sink : FillSink
        Takes the rows.
    """

    def __init__(self, spec: InstrumentSpec, run_id: str, mode: str, sink: FillSink) -> None:
        self._spec = spec
        self._run_id = run_id
        self._mode = mode
        self._sink = sink
        self._pending: list[FillRow] = []
        self._unwritten = 0
        self._mid_ts: list[int] = []
        self._mid_half: list[int] = []
        self._weighted = dict.fromkeys(MARKOUT_HORIZONS_S, 0.0)
        self._weights = dict.fromkeys(MARKOUT_HORIZONS_S, 0)

    def mid(self, exch_ts: int, half_ticks: int) -> None:
        """The mid from now on; times out of order (streams overtake each other) count as the latest seen."""
        if self._mid_half and self._mid_half[-1] == half_ticks:
            return
        ts = max(exch_ts, self._mid_ts[-1]) if self._mid_ts else exch_ts
        if self._mid_ts and self._mid_ts[-1] == ts:
            self._mid_half[-1] = half_ticks
            return
        self._mid_ts.append(ts)
        self._mid_half.append(half_ticks)

    def add(self, row: FillRow) -> None:
        """A fill, in order of venue time."""
        self._pending.append(row)
        self._unwritten += 1

    def flush(self, now_ns: int, *, last: bool = False) -> None:
        """Write what is new or became complete by venue time `now_ns`; `last` closes the run: horizons beyond now stay unknown."""
        # a mid holds until the next one: at the time of asking it is the last one seen
        settled_ns = now_ns - MARKOUT_HORIZONS_S[-1] * NS_PER_S
        settled = sum(1 for row in self._pending if row.fill.exch_ts <= settled_ns)
        done = len(self._pending) if last else settled
        if self._unwritten == 0 and done == 0:
            return
        marks = self._markouts(now_ns)
        by_day: dict[date, list[int]] = {}
        for n, row in enumerate(self._pending):
            by_day.setdefault(utc_date(row.fill.local_ts), []).append(n)
        for day, numbers in by_day.items():
            self._sink.write(day, self._columns(numbers, marks))
        for n in range(done):
            fill = self._pending[n].fill
            for h in MARKOUT_HORIZONS_S:
                if fill.maker and not math.isnan(marks[h][n]):
                    self._weighted[h] += fill.qty_lots * marks[h][n]
                    self._weights[h] += fill.qty_lots
        del self._pending[:done]
        self._unwritten = 0
        self._forget(settled_ns)

    def mean_maker_markouts_bps(self) -> dict[int, float | None]:
        """Mean mark-out of maker fills by horizon [s] in bps, weighted by lots, over fills whose future was seen; None: no such fill."""
        return {h: self._weighted[h] / self._weights[h] if self._weights[h] else None for h in MARKOUT_HORIZONS_S}

    def _markouts(self, now_ns: int) -> dict[int, list[float]]:
        """Mark-outs of the pending fills in bps by horizon; nan where unknown yet."""
        fills = [row.fill for row in self._pending]
        fill_ts = np.array([f.exch_ts for f in fills], dtype=np.int64)
        side = np.array([f.side for f in fills], dtype=np.int64)
        at_fill = np.array([f.mid_half_ticks for f in fills], dtype=np.int64)
        # the last mid still stands now, which the path shows by repeating it
        repeat = bool(self._mid_ts) and now_ns > self._mid_ts[-1]
        mid_ts = np.array(self._mid_ts + ([now_ns] if repeat else []), dtype=np.int64)
        mid_half = np.array(self._mid_half + (self._mid_half[-1:] if repeat else []), dtype=np.int64)
        result: dict[int, list[float]] = {}
        for h in MARKOUT_HORIZONS_S:
            out = np.empty(len(fills))
            markouts_path(fill_ts, side, mid_ts, mid_half, at_fill, h * NS_PER_S, out)
            result[h] = (out * 1e4).tolist()
        return result

    def _columns(self, numbers: list[int], marks: dict[int, list[float]]) -> dict[str, Sequence[Any]]:
        rows = [self._pending[n] for n in numbers]
        tick, lot = float(self._spec.tick), self._spec.lot_base
        columns: dict[str, Sequence[Any]] = {
            "run_id": [self._run_id] * len(rows),
            "client_id": [row.fill.client_id for row in rows],
            "trade_id": [row.fill.trade_id for row in rows],
            "exch_ts": [row.fill.exch_ts for row in rows],
            "local_ts": [row.fill.local_ts for row in rows],
            "side": [row.fill.side for row in rows],
            "price_ticks": [row.fill.price_ticks for row in rows],
            "qty_lots": [row.fill.qty_lots for row in rows],
            "price": [row.fill.price_ticks * tick for row in rows],
            "qty": [row.fill.qty_lots * lot for row in rows],
            "maker": [row.fill.maker for row in rows],
            "fee_quote": [row.fill.fee_quote for row in rows],
            "mid": [0.5 * row.fill.mid_half_ticks * tick if row.fill.mid_half_ticks > 0 else math.nan for row in rows],
        }
        for h in MARKOUT_HORIZONS_S:
            columns[f"markout_{h}s_bps"] = [marks[h][n] for n in numbers]
        columns["purpose"] = [row.purpose for row in rows]
        columns["parameter_version"] = [row.parameter_version for row in rows]
        columns["mode"] = [self._mode] * len(rows)
        return columns

    def _forget(self, before_ns: int) -> None:
        """Drop mids that no pending fill can ask for; the one in force at that time stays."""
        oldest = min((row.fill.exch_ts for row in self._pending), default=before_ns)
        keep = 0
        while keep + 1 < len(self._mid_ts) and self._mid_ts[keep + 1] <= oldest:
            keep += 1
        del self._mid_ts[:keep]
        del self._mid_half[:keep]
