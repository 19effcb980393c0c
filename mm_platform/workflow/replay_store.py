"""Results of replays in the lake: fills, orders and samples as they come, one row per parameter set at the end, all visible at once.

Belongs here: what a run's tables hold and when they become visible. Does not belong here: running (`replay`), what a figure means
(`replay.result`), files (`lake`).

A run writes one file per table and UTC day, named by the run, so that runs neither wait for each other nor rewrite each other's rows. Rows
are encoded by a thread of the store's own while the replay goes on; at most two pieces wait for it, so memory does not grow with the run.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_DAY, utc_date
from mm_platform.kernels.orders import PURPOSES
from mm_platform.kernels.performance import win_rate
from mm_platform.lake.columns import repeated_text, table_of, table_of_rows
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Lake, Partition
from mm_platform.lake.writer import TableWriter
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.markouts import MARKOUT_HORIZONS_S
from mm_platform.replay.order_table import OrderTable
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.sample_table import SampleTable
from mm_platform.tape.book_path import MidPath
from mm_platform.tape.layout import Tape
from mm_platform.workflow.code_version import code_version

# pieces handed to the writing thread and not yet in the file
_MOST_WAITING: Final = 2
_PIECE_ROWS: Final = 131_072


def run_id(*facts: str | bytes) -> str:
    """The name of a run, 16 hexadecimal digits: a hash of everything that decides its result (parameters, settings, data), and of the code."""
    digest = hashlib.sha256()
    for fact in (*facts, code_version()):
        raw = fact.encode() if isinstance(fact, str) else fact
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One row of `replay_runs` but for what the store adds (run id, code version, time of writing). Money in `currency`; nan = not known."""

    set_no: int
    strategy: str
    status: str
    parameters: Mapping[str, Any]
    settings: Mapping[str, Any]
    assumptions_json: str
    mode: str
    queue_model: str
    entry_latency_ns: int
    response_latency_ns: int
    currency: str
    total_pnl: float
    spread_pnl: float
    hedge_pnl: float
    inventory_pnl: float
    fees: float
    funding: float
    residual_quanta: int
    max_drawdown: float
    maker_fills: int
    taker_fills: int
    filled_lots: int
    volume: float
    decisions: int
    orders: int
    cancels: int
    post_only_rejects: int
    cancel_rejects: int
    mean_abs_inventory: float
    max_abs_inventory: float
    final_inventory: float
    orders_logged: bool
    dataset_sha256: str
    from_ns: int
    through_ns: int
    hedge_instrument: str = ""
    hedge_crossing_pnl: float = math.nan
    hedge_delay_pnl: float = math.nan
    hedge_basis_pnl: float = math.nan
    hedge_fees: float = math.nan
    hedge_funding: float = math.nan
    sharpe: float = math.nan
    fill_ratio: float = math.nan
    win_rate: float = math.nan
    markouts_bps: Mapping[float, float] | None = None
    front_arrival_p50_lots: float = math.nan
    time_to_fill_p50_s: float = math.nan
    statistics: Mapping[str, Any] | None = None


def run_row(
    result: ReplayResult,
    *,
    parameters: Mapping[str, Any],
    capital_quote: float,
    mids: MidPath | None = None,
    tape: Tape | None = None,
) -> RunRow:
    """The row of one result.

    Parameters
    ----------
    result : ReplayResult
        Where its fills went to a sink, what needs them (mark-outs, fill ratio, queues) stays unknown: the fills themselves are in `replay_fills`.
    parameters : Mapping[str, Any]
        The set's parameters by name, for whoever reads the table.
    capital_quote : float
        What returns of the Sharpe ratio are relative to.
    mids : MidPath, optional
        The venue's mids, for mark-outs and the buckets of inventory profit.
    tape : Tape, optional
        The rows, to tell prints from cancels in the queue statistics.
    """
    parts = result.attribution
    both = result.hedge_attribution
    counters = result.counters
    settings = result.settings
    assumed = result.assumptions
    venue = assumed.venues[0]
    queues = result.queue_statistics(tape)
    statistics: dict[str, Any] = {
        "queues": asdict(queues),
        "latencies": asdict(result.latencies()),
        "fill_ratios": [asdict(ratio) | {"per_order": ratio.per_order, "per_lot": ratio.per_lot} for ratio in result.fill_ratios()],
    }
    if mids is not None and result.has_fills:
        statistics["inventory_buckets"] = [asdict(bucket) for bucket in result.inventory_buckets(mids)]
    return RunRow(
        set_no=result.set_no,
        strategy=result.strategy,
        status=result.status,
        parameters=parameters,
        settings={f.name: getattr(settings, f.name) for f in fields(settings)},
        assumptions_json=assumed.to_json(),
        mode=settings.mode,
        queue_model=venue.queue_model,
        entry_latency_ns=venue.entry_latency.median_ns,
        response_latency_ns=venue.response_latency.median_ns,
        currency=parts.currency,
        total_pnl=result.total_pnl,
        spread_pnl=parts.spread_pnl,
        hedge_pnl=parts.hedge_pnl,
        inventory_pnl=parts.inventory_pnl if both is None else float(both.open_inventory),
        fees=parts.fees,
        funding=parts.funding,
        residual_quanta=parts.residual_quanta if both is None else both.residual_quanta,
        hedge_instrument="" if result.hedge is None else result.hedge.spec.instrument,
        hedge_crossing_pnl=math.nan if both is None else float(both.crossing),
        hedge_delay_pnl=math.nan if both is None else float(both.delay),
        hedge_basis_pnl=math.nan if both is None else float(both.basis),
        hedge_fees=math.nan if both is None else float(both.hedge_fees),
        hedge_funding=math.nan if both is None else float(both.hedge_funding),
        sharpe=result.sharpe_ratio(capital_quote),
        max_drawdown=result.max_drawdown(),
        maker_fills=result.maker_fills,
        taker_fills=result.taker_fills,
        filled_lots=result.volume_lots,
        volume=result.volume_quote(),
        decisions=counters.decisions,
        orders=counters.orders,
        cancels=counters.cancels,
        post_only_rejects=counters.post_only_rejects,
        cancel_rejects=counters.cancel_rejects,
        fill_ratio=_fill_ratio(result),
        mean_abs_inventory=counters.mean_abs_position_lots * result.base_per_lot,
        max_abs_inventory=float(np.max(np.abs(result.sample_position_lots), initial=0)) * result.base_per_lot,
        final_inventory=result.final_position_base,
        win_rate=win_rate(result.round_trips()) if result.has_fills else math.nan,
        markouts_bps=None if mids is None or not result.has_fills else result.mean_maker_markouts_bps(mids),
        front_arrival_p50_lots=queues.front_arrival_lots.p50,
        time_to_fill_p50_s=queues.time_to_fill_s.p50,
        statistics=statistics,
        orders_logged=result.orders is not None,
        dataset_sha256=result.tape_sha256,
        from_ns=result.from_ns,
        through_ns=result.through_ns,
    )


class ReplayStore:
    """Writes one run: tables in pieces while it goes on, rows of `replay_runs` at its end. A context manager: nothing is seen unless `finish` was
    called, whatever ends the run before.

    Parameters
    ----------
    lake : Lake
    spec : InstrumentSpec
        The instrument quoted: its folders, its tick and lot.
    run : str
        The run's name; see `run_id`. A run of the same name replaces what it wrote before on the same days.

    Notes
    -----
    Bounded memory: two pieces waiting, one row group per table and day. A piece may be cut anywhere and may cross midnight; its columns may be
    views of buffers the caller fills again.
    """

    def __init__(self, lake: Lake, spec: InstrumentSpec, run: str) -> None:
        self.run = run
        self._spec = spec
        self._lake = lake
        self._commit = lake.begin()
        self._facts = {"tick_size": spec.tick_size, "lot_size": spec.lot_size, "instrument": spec.instrument}
        self._writers: dict[tuple[str, int], TableWriter] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="replay-store")
        self._waiting: deque[Future[None]] = deque()
        self._requests: dict[int, int] = {}
        self.fills = 0

    def __enter__(self) -> ReplayStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._commit.abort()

    def write_fills(self, fills: FillTable) -> None:
        """Append executions, in venue order within a set."""
        self.fills += len(fills)
        maker = fills.maker == 1
        queued = {name: np.where(maker, getattr(fills, name), math.nan) for name in ("front_arrival_lots", "front_fill_lots")}
        self._write("replay_fills", {**fills.columns(), **queued, "qty_lots": fills.lots, "maker": maker})

    def write_orders(self, orders: OrderTable) -> None:
        """Append requests; they are numbered within their set as they come."""
        numbers = np.empty(len(orders), dtype=np.int64)
        for set_no in np.unique(orders.set_no).tolist():
            mine = orders.set_no == set_no
            n, before = int(np.count_nonzero(mine)), self._requests.get(set_no, 0)
            numbers[mine] = np.arange(before, before + n)
            self._requests[set_no] = before + n
        columns = {**orders.columns(), "qty_lots": orders.lots, "time_in_force": orders.tif, "request_no": numbers}
        self._write("replay_orders", columns)

    def write_samples(self, samples: SampleTable) -> None:
        """Append samples of accounts, ascending in time within a set."""
        distance = np.where(np.isfinite(samples.liquidation_distance_frac), samples.liquidation_distance_frac, math.nan)
        self._write("replay_equity", samples.columns() | {"liquidation_distance_frac": distance})

    def finish(self, rows: Sequence[RunRow]) -> tuple[Path, ...]:
        """Write the run's rows and make everything visible together; returns the files.

        Raises
        ------
        ConfigError
            No rows, or two of one set.
        """
        sets = [row.set_no for row in rows]
        if not rows or len(set(sets)) < len(sets):
            raise ConfigError(f"run {self.run}: expected one row per parameter set, got {len(rows)} row(s) of {len(set(sets))} set(s)")
        now_ns = time.time_ns()
        by_day: dict[int, list[dict[str, object]]] = {}
        for row in rows:
            by_day.setdefault(_days(row.through_ns), []).append(_stored(row, self.run, now_ns))
        for day, of_day in by_day.items():
            self._writer("replay_runs", day).write(table_of_rows(TABLES["replay_runs"], of_day))
        while self._waiting:
            self._waiting.popleft().result()
        self._commit.commit()
        return tuple(sorted(self._lake.path(table, self._partition(day), self.run) for table, day in self._writers))

    # -- inside ------------------------------------------------------------------------------------------------------------------------------

    def _write(self, table: str, columns: dict[str, npt.NDArray[Any]]) -> None:
        schema = TABLES[table]
        stored = {name: columns[name] for name in schema.names if name != "run_id"}
        ts = columns[schema.day_of]
        for lo in range(0, len(ts), _PIECE_ROWS):
            piece = {name: column[lo : lo + _PIECE_ROWS] for name, column in stored.items()}
            days = piece[schema.day_of] // NS_PER_DAY
            if days[0] == days[-1] and (days == days[0]).all():
                self._encode(table, int(days[0]), piece)
            else:
                for day in np.unique(days).tolist():
                    self._encode(table, day, {name: column[days == day] for name, column in piece.items()})

    def _encode(self, table: str, day: int, columns: dict[str, npt.NDArray[Any]]) -> None:
        rows = len(next(iter(columns.values())))
        ready = table_of(TABLES[table], {**columns, "run_id": repeated_text(self.run, rows)})  # a copy: the caller may refill its buffers
        while len(self._waiting) >= _MOST_WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._writer(table, day).write, ready))

    def _writer(self, table: str, day: int) -> TableWriter:
        if (table, day) not in self._writers:
            self._writers[table, day] = self._commit.writer(table, self._partition(day), self._facts, run=self.run)
        return self._writers[table, day]

    def _partition(self, day: int) -> Partition:
        return Partition.of(self._spec.id, utc_date(day * NS_PER_DAY))


def keep_sweep(store: ReplayStore, results: Sequence[ReplayResult], rows: Sequence[RunRow]) -> tuple[Path, ...]:
    """Finish a run of many sets whose fills and requests went to the store as they came: adds the samples and the rows; returns the files."""
    for result in results:
        store.write_samples(result.samples())
    return store.finish(rows)


def keep_run(lake: Lake, result: ReplayResult, row: RunRow, run: str) -> tuple[Path, ...]:
    """Write one finished result whole: its fills, samples, orders where they were kept, and its row."""
    with ReplayStore(lake, result.spec, run) as store:
        store.write_fills(result.fills)
        store.write_samples(result.samples())
        if result.orders is not None:
            store.write_orders(result.orders)
        return store.finish([row])


def _fill_ratio(result: ReplayResult) -> float:
    """Quotes with at least one execution per quote sent; nan when none was sent or the fills are in a sink."""
    counts = result.counters
    sent = counts.orders - counts.hedges - counts.flattens
    if not sent or not result.has_fills:
        return math.nan
    fills = result.quote_fills
    return len(np.unique(fills.order_id[fills.purpose == PURPOSES.index("quote")])) / sent


def _days(ts_ns: int) -> int:
    return ts_ns // NS_PER_DAY


def _stored(row: RunRow, run: str, now_ns: int) -> dict[str, object]:
    marks = row.markouts_bps or {}
    values: dict[str, object] = {f.name: getattr(row, f.name) for f in fields(row) if f.name in TABLES["replay_runs"].names}
    return {
        **values,
        "run_id": run,
        "parameters_json": _json(row.parameters),
        "settings_json": _json(row.settings),
        "statistics_json": _json(row.statistics or {}),
        **{f"markout_{h}s_bps": marks.get(float(h), math.nan) for h in MARKOUT_HORIZONS_S},
        "code_version": code_version(),
        "run_at_ns": now_ns,
    }


def _json(value: Any) -> str:
    return json.dumps(_finite(value), sort_keys=True, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON has no nan and no infinity: null says that a figure is not known, or has no end."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)  # a repr would name an address of this process
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
