"""A run in progress: fed with pieces of the market, drained, saved, taken up again, read out.

Belongs here: pieces in order, dealing sets to threads, sinks, saved states, results. Does not belong here: the arrays and the loop (`replay.shard`,
`replay.loop`), files, choosing parameters, checks of whole inputs (`replay.run`).
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError, InvariantError
from mm_platform.core.units import iso_utc
from mm_platform.kernels.accounting import POSITION, identity_residual_quanta
from mm_platform.replay import loop
from mm_platform.replay.checkpoint import Arrays, array_text, arrays_of, text_array, with_arrays
from mm_platform.replay.fill_table import FILL_COLUMNS, FillTable
from mm_platform.replay.hedge_leg import HedgeLeg
from mm_platform.replay.messages import FOREVER, fill_table, new_order_log, order_table, pending_requests
from mm_platform.replay.order_table import NEVER_NS, ORDER_COLUMNS, OrderTable
from mm_platform.replay.result import ReplayResult, RunCounters
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.shard import MarketPiece, SetInput, Shard, VenueModel
from mm_platform.replay.strategy import UserStrategy

Int64s = npt.NDArray[np.int64]
FillSink = Callable[[FillTable], None]
OrderSink = Callable[[OrderTable], None]

# logs are empty between pieces: no part of a saved state
_LOGS: Final = ("fills", "requests")

STATUS_NAMES: Final = {
    loop.WAITING: "done",
    loop.RUNNING: "running",
    loop.ENDED: "done",
    loop.NOT_A_NUMBER: "the strategy returned nan instead of a number of actions",
    loop.BAD_ACTION: "the strategy asked for an action that makes no sense (kind, venue, side, price, lots, time in force, type or purpose)",
    loop.WAS_LIQUIDATED: "liquidated: equity fell to the maintenance requirement",
    loop.TAKEN_TOO_MUCH: "takers consumed more levels than the venue keeps track of",
}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; none of it changes a result.

    threads : sets are dealt to so many. fill_sink, order_sink : get executions and requests in pieces, and the results hold none; one call at a
    time, a set's own in order. compiled : False runs the loop as plain Python.
    """

    threads: int = 1
    fill_sink: FillSink | None = None
    order_sink: OrderSink | None = None
    compiled: bool = True


class ReplaySession:
    """A run in progress.

    Parameters
    ----------
    venues
        The venue that is quoted, and at most one to hedge on.
    sets
        Parameter sets, at least one.
    strategy
        A user's strategy instead of the platform's.
    options
        Threads and sinks.
    currency_rate
        What one unit of the second venue's currency is worth in the first's; None where they are the same.
    """

    def __init__(
        self,
        venues: Sequence[VenueModel],
        sets: Sequence[SetInput],
        *,
        strategy: UserStrategy | None = None,
        options: RunOptions = RunOptions(),
        currency_rate: Fraction | None = None,
    ) -> None:
        if not 1 <= len(venues) <= 2:
            raise DataError(f"a run has one venue or two, got {len(venues)}")
        if not sets:
            raise DataError(f"{venues[0].spec.instrument}: no parameter sets to replay")
        self.venues, self.sets, self.strategy, self.options, self.currency_rate = tuple(venues), tuple(sets), strategy, options, currency_rate
        edges = np.linspace(0, len(sets), max(1, min(options.threads, len(sets))) + 1).astype(int).tolist()
        rate = 1.0 if currency_rate is None else float(currency_rate)
        self._shards = [Shard(lo, self.venues, self.sets[lo:hi], strategy, rate, options.compiled) for lo, hi in itertools.pairwise(edges)]
        self._identity = self._identify()
        self._lock = threading.Lock()
        self._fills: list[FillTable] = []
        self._orders: list[OrderTable] = []
        self._samples: list[tuple[Int64s, Int64s, npt.NDArray[np.float64]]] = []
        self.at_ns = -FOREVER
        self._last_row_ns = -FOREVER
        self._decisions = 0
        self._sample_bucket = -FOREVER

    def advance(self, piece: MarketPiece) -> None:
        """Replay a stretch of the market.

        Raises
        ------
        DataError
            A piece that does not follow the one before it, a market that leaves the book's window, or a run that outgrows its bounds.
        """
        self._check(piece)
        at = self._sampled(piece.features[0].grid_ts)
        for shard in self._shards:
            shard.load(piece, at)
        if len(self._shards) == 1:
            self._shards[0].advance(piece.until_ns, self._drain)
        else:
            with ThreadPoolExecutor(len(self._shards)) as pool:
                for done in [pool.submit(shard.advance, piece.until_ns, self._drain) for shard in self._shards]:
                    done.result()
        n = int(at.max()) + 1 if len(at) else 0
        ts = piece.features[0].grid_ts[at >= 0]
        self._samples.append(
            (
                ts,
                np.concatenate([shard.samples.i[:, :, :n] for shard in self._shards], axis=1),
                np.concatenate([shard.samples.f[:, :, :n] for shard in self._shards], axis=1),
            )
        )
        self.at_ns = piece.until_ns
        self._decisions += len(at)
        if len(piece.tapes[0]):
            self._last_row_ns = int(piece.tapes[0].exch_ts[-1])

    @property
    def has_begun(self) -> bool:
        """A piece has come."""
        return self.at_ns > -FOREVER

    def _check(self, piece: MarketPiece) -> None:
        name = self.venues[0].spec.instrument
        if len(piece.tapes) != len(self.venues) or len(piece.features) != len(self.venues):
            raise DataError(f"{name}: {len(self.venues)} venue(s), but a piece with {len(piece.tapes)} tapes and {len(piece.features)} features")
        if piece.until_ns <= self.at_ns:
            raise DataError(f"{name}: a piece until {iso_utc(piece.until_ns)} follows one until {iso_utc(self.at_ns)}; pieces ascend")
        for model, tape, features in zip(self.venues, piece.tapes, piece.features, strict=True):
            if tape.spec != model.spec:
                raise DataError(
                    f"a piece of {tape.spec.instrument} (its facts of {iso_utc(tape.spec.valid_from_ns)}) in a run of {model.spec.instrument}"
                )
            for what, ts in (("row", tape.exch_ts), ("decision", features.grid_ts)):
                if len(ts) and (ts[0] < self.at_ns or ts[-1] >= piece.until_ns):
                    raise DataError(
                        f"{model.spec.instrument}: a {what} from {iso_utc(int(ts[0]))} to {iso_utc(int(ts[-1]))} in a piece from {self.at_ns} to "
                        f"{piece.until_ns} ns; expected all of them inside"
                    )
        grid = piece.features[0].grid_ts
        for model, features in zip(self.venues[1:], piece.features[1:], strict=True):
            if not np.array_equal(features.grid_ts, grid):
                raise DataError(f"{model.spec.instrument}: its features stand on another decision grid than those of {name}; compute both on one")
        if piece.extra is not None and (piece.extra.ndim != 2 or len(piece.extra) != len(grid)):
            raise DataError(f"{name}: extra features of shape {piece.extra.shape} for {len(grid)} decisions; expected (decisions, columns)")

    def _sampled(self, grid_ts: Int64s) -> Int64s:
        """Column of each decision that is sampled, -1 for the others."""
        settings = self.venues[0].settings
        if settings.sample_step_ns is None:
            chosen = (np.arange(len(grid_ts)) + self._decisions) % settings.sample_every == 0
        else:
            bucket = grid_ts // settings.sample_step_ns
            chosen = np.diff(bucket, prepend=self._sample_bucket) != 0
            if len(bucket):
                self._sample_bucket = int(bucket[-1])
        return np.where(chosen, np.cumsum(chosen) - 1, -1).astype(np.int64)

    def _drain(self, shard: Shard) -> None:
        log, requests = shard.wires.fills, shard.wires.requests
        with self._lock:
            if log.n[0]:
                fills = fill_table(log, shard.first_set)
                self._fills.append(fills) if self.options.fill_sink is None else self.options.fill_sink(fills)
                log.n[0] = 0
            if requests.n[0]:
                orders = order_table(requests, shard.first_set)
                self._orders.append(orders) if self.options.order_sink is None else self.options.order_sink(orders)
                requests.n[0] = 0

    # -- checkpoints ---------------------------------------------------------------------------------------------------------------------------

    def save_state(self) -> Arrays:
        """Everything the run needs to go on from `at_ns`, as named arrays (what `numpy.savez` takes); what sinks got is theirs."""
        state: Arrays = {
            "identity": text_array(self._identity),
            "session": np.array([self.at_ns, self._last_row_ns, self._decisions, self._sample_bucket, len(self._shards)], dtype=np.int64),
        }
        for k, shard in enumerate(self._shards):
            state |= arrays_of(shard.wires, f"shard{k}", _LOGS)
            for v, side in enumerate(shard.sides):
                state |= arrays_of(side.venue, f"shard{k}.venue{v}")
            for s, why in shard.raised.items():
                state[f"shard{k}.raised.{s}"] = text_array(why)
        for name, column in FillTable.concatenate(self._fills).columns().items():
            state[f"fills.{name}"] = column
        for name, column in _concatenated(self._orders).columns().items():
            state[f"orders.{name}"] = column
        ts, ints, floats = self._sampled_so_far()
        return state | {"samples.ts": ts, "samples.i": ints, "samples.f": floats}

    def load_state(self, state: Arrays) -> None:
        """Go on from a saved state; this session has the venues, sets, strategy and threads that it was saved with, else `DataError`."""
        if "identity" not in state or array_text(state["identity"]) != self._identity:
            raise DataError(
                f"{self.venues[0].spec.instrument}: the saved state is of another run; resume with the venues, sets, strategy and threads it had"
            )
        at_ns, last_row_ns, decisions, bucket, _ = state["session"].tolist()
        self.at_ns, self._last_row_ns, self._decisions, self._sample_bucket = at_ns, last_row_ns, decisions, bucket
        for k, shard in enumerate(self._shards):
            shard.wires = with_arrays(shard.wires, state, f"shard{k}", _LOGS)
            shard.sides = [side._replace(venue=with_arrays(side.venue, state, f"shard{k}.venue{v}")) for v, side in enumerate(shard.sides)]
            raised = f"shard{k}.raised."
            shard.raised = {int(name.removeprefix(raised)): array_text(why) for name, why in state.items() if name.startswith(raised)}
        self._fills = [FillTable(**{name: state[f"fills.{name}"] for name in FILL_COLUMNS})]
        self._orders = [OrderTable(**{name: state[f"orders.{name}"] for name in ORDER_COLUMNS})]
        self._samples = [(state["samples.ts"], state["samples.i"], state["samples.f"])]

    def _identify(self) -> str:
        """What a saved state must fit, hashed. A strategy counts by its name: its text is the caller's to keep."""
        digest = hashlib.sha256()
        for venue in self.venues:
            digest.update(repr(replace(venue, initial_book=BookState.empty())).encode())
        digest.update(repr((None if self.strategy is None else (self.strategy.name, self.strategy.state_size), self.currency_rate)).encode())
        for shard in self._shards:
            sets = shard.wires.sets
            for array in (sets.ints, sets.entry_ns, sets.params, *shard.wires.latencies):
                digest.update(f"{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def _sampled_so_far(self) -> tuple[Int64s, Int64s, npt.NDArray[np.float64]]:
        if not self._samples:
            n = len(self.sets)
            return np.empty(0, dtype=np.int64), np.empty((3, n, 0), dtype=np.int64), np.empty((2, n, 0))
        ts, ints, floats = zip(*self._samples, strict=True)
        return np.concatenate(ts), np.concatenate(ints, axis=2), np.concatenate(floats, axis=2)

    # -- results -------------------------------------------------------------------------------------------------------------------------------

    def finish(self) -> list[ReplayResult]:
        """End every set that still runs, and read out the results in the sets' order."""
        ts, ints, floats = self._sampled_so_far()
        fills = _by_set(FillTable.concatenate(self._fills), len(self.sets)) if self.options.fill_sink is None else None
        keep_orders = self.options.order_sink is None and self.venues[0].settings.order_log
        results = []
        for shard in self._shards:
            for s in range(shard.n_sets):
                if shard.wires.sets.ints[s, loop.C_STATUS] <= loop.RUNNING:
                    shard.stop(s, self.at_ns - 1)
        self._log_pending()
        orders = _orders_by_set(self._orders, len(self.sets)) if keep_orders else None
        for shard in self._shards:
            for s in range(shard.n_sets):
                n = shard.first_set + s
                results.append(
                    self._result(
                        shard, s, ts, ints[:, n], floats[:, n], FillTable.empty() if fills is None else fills[n], orders[n] if orders else None
                    )
                )
        return results

    def _settings(self, number: int, v: int) -> ReplaySettings:
        """A venue's settings as they held for a set: a latency of its own is named in its result."""
        latencies = self.sets[number].latencies
        settings = self.venues[v].settings
        return settings if latencies is None else replace(settings, latency=latencies[v])

    def _log_pending(self) -> None:
        if not any(venue.settings.order_log for venue in self.venues):
            return
        for shard in self._shards:
            rows = [row for s in range(shard.n_sets) for row in pending_requests(shard.wires.box, s)]
            if rows:
                log = new_order_log(len(rows))
                log.i[:] = np.array(rows, dtype=np.int64).T
                log.n[0] = len(rows)
                table = order_table(log, shard.first_set)
                self._orders.append(table) if self.options.order_sink is None else self.options.order_sink(table)

    def _result(
        self,
        shard: Shard,
        s: int,
        ts: Int64s,
        ints: Int64s,
        floats: npt.NDArray[np.float64],
        fills: FillTable,
        orders: OrderTable | None,
    ) -> ReplayResult:
        sets, number = shard.wires.sets, shard.first_set + s
        model, clock = self.venues[0], sets.ints[s]
        ledgers = [sets.truth[v, s].copy() for v in range(len(self.venues))]
        for venue, ledger in zip(self.venues, ledgers, strict=True):
            residual = identity_residual_quanta(ledger)
            if residual != 0:
                raise InvariantError(f"{venue.spec.instrument}, set {number}: the ledger's parts do not sum to its total (off by {residual} quanta)")
        had = ints[2] >= 0
        stopped = int(clock[loop.C_STOPPED_NS]) + 1
        end = min(stopped, self._last_row_ns)
        sample_ts = ts[had]
        if len(sample_ts):
            # the grid goes on until the last row has been seen, which is after it happened: samples stay in order of time
            end = max(end, int(sample_ts[-1]))
        equity, distance = float(sets.floats[s, loop.LAST_EQUITY]), float(sets.floats[s, loop.LAST_DISTANCE])
        position = ledgers[0][POSITION]
        hedge = None
        if len(self.venues) == 2:
            second = self.venues[1]
            hedge = HedgeLeg(
                spec=second.spec,
                settings=self._settings(number, 1),
                tape_sha256=second.tape_sha256,
                clock_repaired=second.clock_repaired,
                ledger=ledgers[1],
                pair=sets.pair[s].copy(),
                sample_position_lots=np.append(ints[1][had], ledgers[1][POSITION]),
                currency_rate=self.currency_rate,
            )
        if orders is not None:
            # an answer that was still on its way when the set ended was not known
            late = orders.answered_ns >= stopped
            orders.answered_ns[late] = NEVER_NS
        tracked = any(venue.settings.margin is not None for venue in self.venues)
        status = int(clock[loop.C_STATUS])
        return ReplayResult(
            spec=model.spec,
            settings=self._settings(number, 0),
            tape_sha256=model.tape_sha256,
            clock_repaired=model.clock_repaired,
            from_ns=int(clock[loop.C_START_NS]),
            through_ns=end,
            ledger=ledgers[0],
            fills=fills,
            sample_ts=np.append(sample_ts, end),
            sample_equity_quote=np.append(floats[0][had], equity),
            sample_position_lots=np.append(ints[0][had], position),
            sample_mid_half_ticks=np.append(ints[2][had], clock[loop.C_LAST_MID]),
            counters=RunCounters.from_array(clock[loop.COUNTERS_AT :]),
            set_no=number,
            status=shard.raised[s] if status == loop.RAISED else STATUS_NAMES[status],
            orders=orders,
            hedge=hedge,
            sample_liquidation_distance_frac=np.append(floats[1][had], distance) if tracked else None,
        )


def _by_set(fills: FillTable, n_sets: int) -> list[FillTable]:
    if n_sets == 1:
        return [fills]
    order = np.argsort(fills.set_no, kind="stable")
    edges = np.searchsorted(fills.set_no[order], np.arange(n_sets + 1))
    return [fills.where(order[edges[s] : edges[s + 1]]) for s in range(n_sets)]  # type: ignore[arg-type]


def _concatenated(parts: list[OrderTable]) -> OrderTable:
    if not parts:
        return OrderTable.empty()
    return OrderTable(**{name: np.concatenate([part.columns()[name] for part in parts]) for name in ORDER_COLUMNS})


def _orders_by_set(parts: list[OrderTable], n_sets: int) -> list[OrderTable]:
    """Each set's requests in the order they were sent."""
    columns = _concatenated(parts).columns()
    order = np.lexsort((columns["sent_ns"], columns["set_no"]))
    edges = np.searchsorted(columns["set_no"][order], np.arange(n_sets + 1))
    return [OrderTable(**{name: c[order[edges[s] : edges[s + 1]]] for name, c in columns.items()}) for s in range(n_sets)]
