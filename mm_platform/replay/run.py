"""Run a strategy over a tape: tape, features and a schedule of parameters in, a result out.

Belongs here: assembling the loop's arrays, cutting the run where parameters change, refusing what a fit has seen, turning statuses into
errors. Does not belong here: the loop itself (`replay.loop`), files, choosing parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mm_platform.core.errors import DataError, InvariantError
from mm_platform.core.units import NS_PER_S, iso_utc
from mm_platform.kernels.accounting import identity_residual_quanta, ledger_equity_quote, ledger_mark, new_ledger
from mm_platform.kernels.book import book_top, load_book
from mm_platform.kernels.decision import DecisionParams, new_actions, new_local_state
from mm_platform.kernels.exchange import MOST_EXECUTIONS, new_executions, new_own_orders
from mm_platform.kernels.venue import DEPTH_SEQ, MID_HALF, VENUE_I_SIZE, VenueState
from mm_platform.replay import loop
from mm_platform.replay.messages import new_fill_log, new_queue
from mm_platform.replay.result import FillTable, ReplayResult, RunCounters
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import BOOK_CAPACITY, book_at
from mm_platform.tape.features import Features
from mm_platform.tape.layout import Kind, Tape

_ERRORS: Final = {
    loop.BOOK_FULL: f"the venue's book outgrew {BOOK_CAPACITY} levels on one side",
    loop.QUEUE_FULL: "more messages in flight than the queues hold; the latency is longer than the strategy can wait",
    loop.EXECUTIONS_FULL: "one event executed more of our orders than the buffers hold",
}


@dataclass(frozen=True, slots=True)
class ScheduledParameters:
    """Parameters in force from `from_ns` on (local time), fitted on data up to `fitted_through_ns` (-1: not fitted, e.g. set by hand)."""

    from_ns: int
    params: DecisionParams
    fitted_through_ns: int = -1


def replay(
    tape: Tape, features: Features, schedule: Sequence[ScheduledParameters], settings: ReplaySettings, *, end_ns: int | None = None
) -> ReplayResult:
    """Replay one strategy from the first scheduled time to `end_ns` (exclusive; default: past the last row and grid point).

    Parameters
    ----------
    tape, features
        Rows in venue order, and what was known on the decision grid of the same tape.
    schedule
        Ascending by `from_ns`. The run starts at the first entry; the venue's book is brought there first, without our orders.
    settings
        Venue model and latencies.

    Raises
    ------
    DataError
        Empty tape or schedule, an inverse contract, a funding stamp without a rate, a judged row that a fit has seen, an unknown model, a book
        or queue that outgrows its bound.
    """
    if len(tape) == 0 or len(features.grid_ts) == 0:
        raise DataError(f"{tape.spec.instrument}: nothing to replay: {len(tape)} rows, {len(features.grid_ts)} decisions")
    if not schedule:
        raise DataError(f"{tape.spec.instrument}: no parameters to replay with")
    if tape.spec.contract == "inverse":
        raise DataError(
            f"{tape.spec.instrument} is an inverse contract: the ledger counts linear and spot money, its P&L would be wrong; use a linear one"
        )
    for before, after in itertools.pairwise(schedule):
        if after.from_ns <= before.from_ns:
            raise DataError(f"schedule is not ascending: {after.from_ns} follows {before.from_ns}")
    for entry in schedule:
        if entry.fitted_through_ns >= entry.from_ns:
            raise DataError(
                f"{tape.spec.instrument}: parameters in force from {iso_utc(entry.from_ns)} were fitted through {iso_utc(entry.fitted_through_ns)}: "
                "replay refuses to judge rows that a fit has seen; fit on earlier data or judge later rows"
            )
    start_ns = schedule[0].from_ns
    last_ns = int(max(tape.exch_ts[-1], tape.local_ts.max(), features.grid_ts[-1])) + NS_PER_S
    stop_ns = last_ns if end_ns is None else end_ns
    if stop_ns <= start_ns:
        raise DataError(f"{tape.spec.instrument}: the run would end ({iso_utc(stop_ns)}) before it starts ({iso_utc(start_ns)})")

    stamps = np.flatnonzero((tape.kind == Kind.FUNDING) & (tape.exch_ts >= start_ns) & (tape.exch_ts < stop_ns) & ~np.isfinite(tape.value))
    if len(stamps):
        raise DataError(
            f"{tape.spec.instrument}: the funding stamp of {iso_utc(int(tape.exch_ts[stamps[0]]))} states no rate ({len(stamps)} such stamps in the run): "
            "what was paid is not known; state the rate or leave the stamp out"
        )

    capacity = 4096
    while True:
        run, status = _run_once(tape, features, schedule, settings, start_ns, stop_ns, capacity)
        if status != loop.FILL_LOG_FULL:
            break
        capacity *= 8
    if status != loop.DONE:
        raise DataError(f"{tape.spec.instrument}: {_ERRORS[status]}")
    if identity_residual_quanta(run.venue.ledger) != 0:
        raise InvariantError(
            f"{tape.spec.instrument}: the ledger's parts do not sum to its total (off by {identity_residual_quanta(run.venue.ledger)} quanta)"
        )
    return _result(tape, settings, schedule, run, start_ns, stop_ns)


def _run_once(
    tape: Tape, features: Features, schedule: Sequence[ScheduledParameters], settings: ReplaySettings, start_ns: int, stop_ns: int, capacity: int
) -> tuple[loop.Run, int]:
    first_row = int(np.searchsorted(tape.exch_ts, start_ns, side="left"))
    first_grid = int(np.searchsorted(features.grid_ts, start_ns, side="left"))
    first = schedule[0].params
    state = book_at(tape, start_ns)
    venue = VenueState(load_book(state, BOOK_CAPACITY), new_own_orders(), new_executions(), np.zeros(VENUE_I_SIZE, dtype=np.int64), new_ledger())
    venue.i[DEPTH_SEQ] = state.seq
    bid, _, ask, _ = book_top(venue.book)
    if bid > 0 and ask > bid:
        venue.i[MID_HALF] = bid + ask
    settled = (tape.kind == Kind.FUNDING) & (tape.local_ts >= start_ns)
    order = np.argsort(tape.local_ts[settled], kind="stable")
    stamps = loop.Stamps(tape.local_ts[settled][order], tape.value[settled][order], tape.aux[settled][order])
    n_samples = len(features.grid_ts) // settings.sample_every + 2
    samples = loop.Samples(
        settings.sample_every,
        np.zeros(n_samples, dtype=np.int64),
        np.zeros(n_samples),
        np.zeros(n_samples, dtype=np.int64),
        np.zeros(n_samples, dtype=np.int64),
    )
    cursor = np.zeros(loop.CURSOR_SIZE, dtype=np.int64)
    cursor[loop.ROW] = first_row
    cursor[loop.GRID] = first_grid
    run = loop.Run(
        cursor,
        np.zeros(loop.COUNTERS_SIZE, dtype=np.int64),
        venue,
        new_local_state(start_ns, first.orders),
        new_actions(),
        new_queue(),
        new_queue(4 * MOST_EXECUTIONS),
        new_fill_log(capacity),
        samples,
    )
    rows = loop.Rows(tape.exch_ts, tape.kind, tape.side, tape.flags, tape.price_ticks, tape.qty_lots, tape.seq, tape.value, tape.aux)
    grid = loop.Grid(
        features.grid_ts,
        features.valid.astype(np.int8),
        features.bid_ticks,
        features.ask_ticks,
        features.microprice,
        features.order_flow_imbalance,
        features.kyle_lambda,
        features.short_volatility,
    )
    exchange = settings.exchange_params(tape.spec.lot_base)
    latency = loop.Latency(settings.entry_latency_ns, settings.response_latency_ns)
    span = loop.replay_span.compiled
    for k, entry in enumerate(schedule):
        until = min(schedule[k + 1].from_ns, stop_ns) if k + 1 < len(schedule) else stop_ns
        status = span(entry.params, exchange, latency, rows, grid, stamps, run, until)
        if status != loop.DONE:
            return run, status
    if run.venue.i[MID_HALF] != 0:
        ledger_mark(run.venue.ledger, int(run.venue.i[MID_HALF]))
    return run, loop.DONE


def _result(
    tape: Tape, settings: ReplaySettings, schedule: Sequence[ScheduledParameters], run: loop.Run, start_ns: int, stop_ns: int
) -> ReplayResult:
    samples = int(run.cursor[loop.SAMPLE])
    final = float(ledger_equity_quote(run.venue.ledger, schedule[-1].params.money))
    end = min(stop_ns, int(tape.exch_ts[-1]))
    if samples:
        # the grid goes on until the last row has been seen, which is after it happened: samples stay in order of time
        end = max(end, int(run.samples.ts[samples - 1]))
    return ReplayResult(
        spec=tape.spec,
        settings=settings,
        tape_sha256=tape.sha256,
        clock_repaired=tape.clock_repaired,
        from_ns=start_ns,
        through_ns=end,
        ledger=run.venue.ledger.copy(),
        fills=FillTable.from_log(run.fills),
        sample_ts=np.append(run.samples.ts[:samples], end),
        sample_equity_quote=np.append(run.samples.equity_quote[:samples], final),
        sample_position_lots=np.append(run.samples.position_lots[:samples], run.venue.ledger[0]),
        sample_mid_half_ticks=np.append(run.samples.mid_half_ticks[:samples], run.venue.i[MID_HALF]),
        counters=RunCounters.from_array(run.counters),
    )
