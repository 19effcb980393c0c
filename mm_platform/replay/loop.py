"""The replay loop: recorded rows at the venue, decisions on the local grid, requests and answers travelling between them.

Belongs here: the order in which things happen. Does not belong here: what happens (`kernels.venue`, `kernels.decision`), reading tapes or
presenting results (`replay.run`, `replay.result`).

Two clocks on one axis. A row acts at the venue at its `exch_ts`; a decision at grid time t sees rows with `local_ts <= t` (they are in the
features) and answers that arrived by t. A request sent at t arrives at t + entry latency, FIFO; an answer leaves at the venue's time and
arrives after the response latency, FIFO. At one instant: local data, answers, then the decision, then rows, then arriving requests (an order that
arrives at t is not filled by a print at t; a cancel that arrives at t loses to it).

The loop keeps all state in arrays and runs up to a given time, so a run can be cut anywhere: parameters change between cuts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.accounting import POSITION, ledger_equity_quote, ledger_mark
from mm_platform.kernels.decision import (
    ACT_PLACE,
    Actions,
    DecisionParams,
    LocalState,
    MarketView,
    decide_step,
    local_on_ack,
    local_on_fill,
    local_on_funding,
    local_on_gone,
    local_on_reject,
)
from mm_platform.kernels.exchange import EXPIRED, FILLED, GTX, NO_ROOM, RESTING, ExchangeParams
from mm_platform.kernels.jit import kernel
from mm_platform.kernels.orders import FLATTEN, HEDGE, QUOTE
from mm_platform.kernels.venue import (
    MID_HALF,
    REQUEST_CANCEL,
    REQUEST_PLACE,
    VenueState,
    venue_after_row,
    venue_book_execution,
    venue_on_request,
    venue_on_row,
    venue_reduce_only,
)
from mm_platform.replay.messages import ACK, CANCEL_REJECT, FILL, GONE, REJECT, FillLog, Queue, pop, push

Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Int16s = npt.NDArray[np.int16]
Float64s = npt.NDArray[np.float64]

FOREVER: Final = 2**62

# status of a span
DONE: Final = 0
BOOK_FULL: Final = 1
FILL_LOG_FULL: Final = 2
QUEUE_FULL: Final = 3
EXECUTIONS_FULL: Final = 4

# places in the cursor
ROW: Final = 0
GRID: Final = 1
SAMPLE: Final = 2
STAMP: Final = 3
CURSOR_SIZE: Final = 4

# counters
C_DECISIONS: Final = 0
C_VALID: Final = 1
C_QUOTED_SIDES: Final = 2  # sides with a wanted price, over all decisions
C_ORDERS: Final = 3
C_CANCELS: Final = 4
C_REJECTS: Final = 5
C_CANCEL_REJECTS: Final = 6
C_HEDGES: Final = 7
C_FLATTENS: Final = 8
C_ABS_POSITION: Final = 9  # lots, summed over valid decisions
C_QUOTES_SENT: Final = 10
C_CLAMP0: Final = 16  # one per clamp bit
C_REASON0: Final = 32  # one per risk reason bit
COUNTERS_SIZE: Final = 48


class Rows(NamedTuple):
    """The tape's columns that the venue needs, in venue order."""

    exch_ts: Int64s
    kind: Int8s
    side: Int8s
    flags: Int16s
    price_ticks: Int64s
    qty_lots: Int64s
    seq: Int64s
    value: Float64s
    aux: Float64s


class Grid(NamedTuple):
    """What is known at each decision time (built once per tape, causal)."""

    ts: Int64s
    valid: Int8s
    bid_ticks: Int64s
    ask_ticks: Int64s
    microprice: Float64s
    order_flow_imbalance: Float64s
    kyle_lambda: Float64s
    short_volatility: Float64s


class Stamps(NamedTuple):
    """Funding stamps as the local side learns of them, in order of `local_ts`."""

    local_ts: Int64s
    rate: Float64s
    price: Float64s


class Latency(NamedTuple):
    """Constant order latencies in ns: to the venue, and back."""

    entry_ns: int
    response_ns: int


class Samples(NamedTuple):
    """Equity on the venue's truth at every k-th decision: time, quote, lots, mid (half ticks)."""

    every: int
    ts: Int64s
    equity_quote: Float64s
    position_lots: Int64s
    mid_half_ticks: Int64s


class Run(NamedTuple):
    """All state of one run."""

    cursor: Int64s
    counters: Int64s
    venue: VenueState
    local: LocalState
    actions: Actions
    requests: Queue
    answers: Queue
    fills: FillLog
    samples: Samples


@kernel
def deliver_executions(p: DecisionParams, latency: Latency, run: Run, now_ns: int, purpose: int) -> int:
    """Book what just executed, log it, and send the answers on their way."""
    e = run.venue.executions
    if e.n[0] > e.id.shape[0]:
        return EXECUTIONS_FULL
    for k in range(e.n[0]):
        n = run.fills.n[0]
        if n >= run.fills.id.shape[0]:
            return FILL_LOG_FULL
        mid_half = run.venue.i[MID_HALF]
        if mid_half == 0:
            mid_half = 2 * e.price_ticks[k]
        fee = venue_book_execution(p.money, run.venue, k)
        if (
            push(
                run.answers,
                now_ns + latency.response_ns,
                FILL,
                e.id[k],
                e.side[k],
                e.price_ticks[k],
                e.lots[k],
                e.leaves_lots[k],
                e.maker[k],
                mid_half,
                purpose,
            )
            != 0
        ):
            return QUEUE_FULL
        run.fills.exch_ts[n] = now_ns
        run.fills.local_ts[n] = run.answers.head[2]
        run.fills.id[n] = e.id[k]
        run.fills.side[n] = e.side[k]
        run.fills.price_ticks[n] = e.price_ticks[k]
        run.fills.lots[n] = e.lots[k]
        run.fills.leaves_lots[n] = e.leaves_lots[k]
        run.fills.maker[n] = e.maker[k]
        run.fills.purpose[n] = purpose
        run.fills.mid_half_ticks[n] = mid_half
        run.fills.fee_nano[n] = fee
        run.fills.position_lots[n] = run.venue.ledger[POSITION]
        run.fills.n[0] = n + 1
    return DONE


@kernel
def on_answer(p: DecisionParams, run: Run) -> None:
    """The oldest answer reaches the local side."""
    a = run.answers
    at = pop(a)
    kind = a.kind[at]
    if kind == ACK:
        local_on_ack(run.local, a.id[at])
    elif kind == REJECT:
        run.counters[C_REJECTS] += 1
        local_on_reject(run.local, p.orders, a.id[at], a.ts[at])
    elif kind == GONE:
        local_on_gone(run.local, a.id[at])
    elif kind == FILL:
        local_on_fill(
            run.local, p.money, a.id[at], a.side[at], a.price_ticks[at], a.lots[at], a.extra[at], a.maker[at], a.mid_half_ticks[at], a.ts[at]
        )
    else:
        run.counters[C_CANCEL_REJECTS] += 1


@kernel
def on_request(p: DecisionParams, x: ExchangeParams, latency: Latency, run: Run) -> int:
    """The oldest request reaches the venue, which answers."""
    q = run.requests
    at = pop(q)
    now = q.ts[at]
    back = now + latency.response_ns
    order_id = q.id[at]
    lots = q.lots[at]
    if q.kind[at] == REQUEST_PLACE and q.purpose[at] == FLATTEN:
        # a quote may have filled while the order travelled: flattening never builds a position
        lots = venue_reduce_only(run.venue, q.side[at], lots)
        if lots == 0:
            return QUEUE_FULL if push(run.answers, back, GONE, order_id, 0, 0, 0, 0, 0, 0, 0) != 0 else DONE
    answer = venue_on_request(x, run.venue, q.kind[at], order_id, q.side[at], q.price_ticks[at], lots, q.extra[at])
    if q.kind[at] == REQUEST_CANCEL:
        kind = GONE if answer >= 0 else CANCEL_REJECT
        return QUEUE_FULL if push(run.answers, back, kind, order_id, 0, 0, 0, 0, 0, 0, 0) != 0 else DONE
    status = deliver_executions(p, latency, run, now, q.purpose[at])
    if status != DONE:
        return status
    kind = 0
    if answer == RESTING:
        kind = ACK
    elif answer == NO_ROOM or (answer == EXPIRED and q.extra[at] == GTX):
        kind = REJECT
    elif answer == EXPIRED:
        kind = GONE
    if answer != FILLED and push(run.answers, back, kind, order_id, 0, 0, 0, 0, 0, 0, 0) != 0:
        return QUEUE_FULL
    return DONE


@kernel
def on_decision(p: DecisionParams, latency: Latency, grid: Grid, run: Run) -> int:
    """The local side decides at the next grid time and sends its requests."""
    g = run.cursor[GRID]
    now = grid.ts[g]
    run.cursor[GRID] = g + 1
    view = MarketView(
        int(grid.valid[g]),
        grid.bid_ticks[g],
        grid.ask_ticks[g],
        grid.microprice[g],
        grid.order_flow_imbalance[g],
        grid.kyle_lambda[g],
        grid.short_volatility[g],
    )
    trace = decide_step(p, view, run.local, run.actions, now)
    c = run.counters
    c[C_DECISIONS] += 1
    for bit in range(16):
        if trace.clamps >> bit & 1:
            c[C_CLAMP0 + bit] += 1
        if trace.reasons >> bit & 1:
            c[C_REASON0 + bit] += 1
    if view.valid != 0:
        c[C_VALID] += 1
        c[C_ABS_POSITION] += abs(run.local.ledger[POSITION])
        c[C_QUOTES_SENT] += trace.quoted
        if trace.wanted_bid_ticks > 0:
            c[C_QUOTED_SIDES] += 1
        if trace.wanted_ask_ticks > 0:
            c[C_QUOTED_SIDES] += 1
    a = run.actions
    for k in range(a.n[0]):
        kind = REQUEST_CANCEL
        if a.kind[k] == ACT_PLACE:
            kind = REQUEST_PLACE
            c[C_ORDERS] += 1
            if a.purpose[k] == HEDGE:
                c[C_HEDGES] += 1
            elif a.purpose[k] == FLATTEN:
                c[C_FLATTENS] += 1
        else:
            c[C_CANCELS] += 1
        if push(run.requests, now + latency.entry_ns, kind, a.id[k], a.side[k], a.price_ticks[k], a.lots[k], a.tif[k], 0, 0, a.purpose[k]) != 0:
            return QUEUE_FULL
    if g % run.samples.every == 0:
        s = run.cursor[SAMPLE]
        if run.venue.i[MID_HALF] != 0:
            ledger_mark(run.venue.ledger, run.venue.i[MID_HALF])
        run.samples.ts[s] = now
        run.samples.equity_quote[s] = ledger_equity_quote(run.venue.ledger, p.money)
        run.samples.position_lots[s] = run.venue.ledger[POSITION]
        run.samples.mid_half_ticks[s] = run.venue.i[MID_HALF]
        run.cursor[SAMPLE] = s + 1
    return DONE


@kernel
def replay_span(p: DecisionParams, x: ExchangeParams, latency: Latency, rows: Rows, grid: Grid, stamps: Stamps, run: Run, until_ns: int) -> int:
    """Everything that happens before `until_ns` (exclusive); returns a status."""
    n_rows = rows.exch_ts.shape[0]
    n_grid = grid.ts.shape[0]
    while True:
        # strict comparisons: at equal times the earlier line wins (local data, answers, decision, rows, requests)
        t = FOREVER
        what = 0
        f = run.cursor[STAMP]
        if f < stamps.local_ts.shape[0]:
            t = stamps.local_ts[f]
            what = 5
        if run.answers.head[1] > 0 and run.answers.ts[run.answers.head[0]] < t:
            t = run.answers.ts[run.answers.head[0]]
            what = 1
        g = run.cursor[GRID]
        if g < n_grid and grid.ts[g] < t:
            t = grid.ts[g]
            what = 2
        i = run.cursor[ROW]
        if i < n_rows and rows.exch_ts[i] < t:
            t = rows.exch_ts[i]
            what = 3
        if run.requests.head[1] > 0 and run.requests.ts[run.requests.head[0]] < t:
            t = run.requests.ts[run.requests.head[0]]
            what = 4
        if what == 0 or t >= until_ns:
            return DONE
        status = DONE
        if what == 3:
            kind = int(rows.kind[i])
            flags = int(rows.flags[i])
            status = venue_on_row(
                x, p.money, run.venue, kind, int(rows.side[i]), flags, rows.price_ticks[i], rows.qty_lots[i], rows.seq[i], rows.value[i], rows.aux[i]
            )
            if status != DONE:
                return BOOK_FULL
            if run.venue.executions.n[0] > 0:
                status = deliver_executions(p, latency, run, t, QUOTE)
            venue_after_row(run.venue, kind, flags)
            run.cursor[ROW] = i + 1
        elif what == 1:
            on_answer(p, run)
        elif what == 2:
            status = on_decision(p, latency, grid, run)
        elif what == 5:
            local_on_funding(run.local, p.money, stamps.rate[f], stamps.price[f])
            run.cursor[STAMP] = f + 1
        else:
            status = on_request(p, x, latency, run)
        if status != DONE:
            return status
