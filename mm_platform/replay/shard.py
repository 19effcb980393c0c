"""The arrays of one thread's sets, and the loop driven over a piece of the market.

Belongs here: building the loop's state from models and parameters, loading a piece, growing the message pool, what a user's function raised. Does not
belong here: the loop itself, pieces in order, sinks, results (`replay.session`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import iso_utc
from mm_platform.kernels.accounting import money_of, new_ledger
from mm_platform.kernels.decision import F_SIZE, I_SIZE, DecisionParams, new_local_state
from mm_platform.kernels.hedge_pnl import PAIR_SIZE, PairUnits, pair_units
from mm_platform.kernels.levels import CONSERVATIVE, LO_TICK
from mm_platform.kernels.orders import OrderPolicy
from mm_platform.kernels.queue import ExchangeParams, compiled_params
from mm_platform.kernels.venue import MID_HALF, VenueState, load_venue_book, new_venue
from mm_platform.replay import loop, strategy
from mm_platform.replay.latency import LatencyModel, pack_latencies
from mm_platform.replay.messages import FOREVER, new_fill_log, new_mailbox, new_order_log, with_nodes
from mm_platform.replay.schedule import ScheduledParameters
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.strategy import UserStrategy, compiled_decide
from mm_platform.replay.strategy_rows import pack_params
from mm_platform.tape.features import Features
from mm_platform.tape.layout import Kind, Tape

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# executions of one event: a taker walks at most so many levels (`kernels.exchange.MOST_TAKEN` and one more)
_EXECUTIONS: Final = 1100
_LOG_ROWS: Final = 1 << 16
_MOST_MESSAGES: Final = 1 << 23
_RAISED: Final = -1

# a user's strategy has no order policy
_NO_POLICY: Final = OrderPolicy(0, 0, 0, 0, 0.0, 0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class VenueModel:
    """A venue of a run without its data.

    Parameters
    ----------
    spec, settings
        The instrument's facts, and how the venue is modelled.
    window_ticks
        Lowest and highest price that the book holds, both included.
    initial_book
        The book before the first row.
    tape_sha256, clock_repaired
        Of the rows, for the result.
    """

    spec: InstrumentSpec
    settings: ReplaySettings
    window_ticks: tuple[int, int]
    initial_book: BookState = field(default_factory=BookState.empty)
    tape_sha256: str = ""
    clock_repaired: bool = False


@dataclass(frozen=True, slots=True)
class SetInput:
    """One parameter set of a run.

    Parameters
    ----------
    schedule
        Ascending by `from_ns`; the set starts at the first entry.
    latencies
        Order latency per venue, instead of that of the venue's settings.
    end_ns
        The set ends here (exclusive); None: with the run.
    """

    schedule: Sequence[ScheduledParameters]
    latencies: Sequence[LatencyModel] | None = None
    end_ns: int | None = None


@dataclass(frozen=True, slots=True)
class MarketPiece:
    """A stretch of the market, up to `until_ns` (exclusive): rows of each venue by `exch_ts`, and what was known on the decision grid.

    `extra` are features of the user's own, shape (decisions, k).
    """

    until_ns: int
    tapes: tuple[Tape, ...]
    features: tuple[Features, ...]
    extra: Float64s | None = None


def book_quantities(tape: Tape, x: ExchangeParams) -> Float64s:
    """Quantities of a tape in the venue's book units: whole lots, or base as the correctly rounded decimal that the feed showed."""
    if x.rule == CONSERVATIVE:
        return tape.qty_lots.astype(np.float64)
    lots_per_base = 1 / (tape.spec.lot * Decimal(tape.spec.multiplier))
    if lots_per_base == lots_per_base.to_integral_value():
        return np.divide(tape.qty_lots, float(lots_per_base), dtype=np.float64)
    return np.multiply(tape.qty_lots, tape.spec.lot_base, dtype=np.float64)


class _UserFunction:
    """Stops the set whose function raised, and lets every other error through."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        s = int(self.shard.wires.run_i[loop.R_RUNNING_SET])
        if error is None or s < 0 or not isinstance(error, Exception):
            return False
        self.shard.set_raised(s, error)
        return True


class Shard:
    """The sets of one thread, with venues of their own.

    Parameters
    ----------
    first_set
        Number of the first set in the run.
    venues, sets, user
        As of the run; `sets` are those of this thread.
    hedge_rate
        What one unit of the second venue's currency is worth in the first's.
    compiled
        False runs the loop as plain Python.
    """

    def __init__(
        self,
        first_set: int,
        venues: Sequence[VenueModel],
        sets: Sequence[SetInput],
        user: UserStrategy | None,
        hedge_rate: float,
        compiled: bool,
    ) -> None:
        self.first_set, self.venues, self.n_sets, self.compiled = first_set, venues, len(sets), compiled
        self.raised: dict[int, str] = {}
        # a row fills each resting order at most once, a taker walks so many levels
        room = max(_EXECUTIONS, self.n_sets * max(v.settings.order_slots for v in venues))
        units = PairUnits(0, 0)
        if len(venues) == 2 and (venues[0].spec.contract == "inverse") == (venues[1].spec.contract == "inverse"):
            units = pair_units(venues[0].spec, venues[1].spec)
        self.facts = loop.Facts(len(venues) - 1, units, hedge_rate, room)
        self.sides = [_new_side(v, self.n_sets, room, compiled) for v in venues]
        self.wires = _new_wires(venues, sets, user, first_set, room)
        self.desk = loop.Desk(
            grid_ts=np.empty(0, dtype=np.int64),
            grid=np.empty((len(venues), 0, loop.GRID_SIZE)),
            extra=np.empty((0, 0)),
            n_actions=np.zeros(1, dtype=np.int64),
            actions=np.zeros((strategy.ACTION_ROWS, strategy.MOST_ACTIONS), dtype=np.int64),
            shown=np.zeros(strategy.EXTRA_AT),
            position_lots=np.zeros(2, dtype=np.int64),
        )
        self.samples = _new_samples(self.n_sets, np.empty(0, dtype=np.int64))
        self.custom = int(user is not None)
        self.decide: Any = None
        if user is not None:
            self.decide = compiled_decide(user.decide) if compiled else user.decide

    def load(self, piece: MarketPiece, at: Int64s) -> None:
        """Put rows, decisions and the columns of samples (-1 = none) of a piece in; the rows before it are done."""
        self.wires.venue_i[:, loop.V_ROWS_BEFORE] += self.wires.venue_i[:, loop.V_ROW]
        self.wires.venue_i[:, loop.V_ROW] = 0
        self.wires.venue_i[:, loop.V_FUNDING_ROW] = 0
        for v, (side, tape) in enumerate(zip(self.sides, piece.tapes, strict=True)):
            funding = np.flatnonzero(tape.kind == Kind.FUNDING)
            self.sides[v] = side._replace(rows=_rows(tape, side.x), funding_row=funding, funding_ns=tape.exch_ts[funding])
        n_grid = len(piece.features[0])
        extra = np.empty((n_grid, 0)) if piece.extra is None else np.ascontiguousarray(piece.extra, dtype=np.float64)
        self.desk = self.desk._replace(
            grid_ts=np.ascontiguousarray(piece.features[0].grid_ts, dtype=np.int64),
            grid=np.stack([_grid(features) for features in piece.features]),
            extra=extra,
            shown=np.zeros(strategy.EXTRA_AT + extra.shape[1]),
        )
        self.samples = _new_samples(self.n_sets, at)
        begin: Any = loop.begin_piece.compiled if self.compiled else loop.begin_piece
        begin(self.wires.sets, self.wires.box, self.desk.grid_ts)

    def advance(self, until_ns: int, drain: Callable[[Shard], None]) -> None:
        """Run to a time; logs are drained when they are full and at the end."""
        span: Any = loop.replay_span.compiled if self.compiled else loop.replay_span
        second = self.sides[1] if len(self.sides) == 2 else None
        while True:
            status = _RAISED
            with _UserFunction(self):
                status = span(self.wires, self.facts, self.sides[0], second, self.desk, self.samples, self.decide, until_ns)
            if status == loop.DONE:
                drain(self)
                return
            if status in (loop.FILL_LOG_FULL, loop.ORDER_LOG_FULL):
                drain(self)
            elif status == loop.POOL_LOW:
                nodes = len(self.wires.box.pool)
                if nodes > _MOST_MESSAGES:
                    raise DataError(
                        f"more than {nodes} messages are under way: the latency is longer than the strategy can wait; state a shorter one"
                    )
                self.wires = self.wires._replace(box=with_nodes(self.wires.box, 2 * nodes))
            elif status != _RAISED:
                raise DataError(self._why(status))

    def stop(self, s: int, now_ns: int) -> None:
        """End a set from outside the loop."""
        mids = [int(side.venue.i[MID_HALF]) for side in self.sides] + [0]
        loop.stop_set(self.wires, self.facts, s, now_ns, mids[0], mids[1], self.custom)
        for side in self.sides:
            loop.leave_venue(side.venue, s)

    def set_raised(self, s: int, error: Exception) -> None:
        """A user's function raised: the set stops with the message, the loop goes on with the next."""
        self.raised[s] = f"the strategy raised {type(error).__name__}: {error}"
        self.wires.run_i[loop.R_RUNNING_SET] = -1
        clock = self.wires.sets.ints[s]
        clock[loop.C_STATUS] = loop.RAISED
        self.stop(s, int(self.desk.grid_ts[clock[loop.C_GRID] - 1]))

    def _why(self, status: int) -> str:
        """What a run that cannot go on has met, and where."""
        if status == loop.OUTSIDE_WINDOW:
            v = int(self.wires.run_i[loop.R_BAD_VENUE])
            side, model = self.sides[v], self.venues[v]
            row = int(self.wires.venue_i[v, loop.V_ROW])
            lo = int(side.venue.levels.i[LO_TICK])
            return (
                f"{model.spec.instrument}: row {int(self.wires.venue_i[v, loop.V_ROWS_BEFORE]) + row} at {iso_utc(int(side.rows.exch_ts[row]))}: price "
                f"{int(side.rows.price_ticks[row])} ticks takes the market beyond the book's window of {lo} to {lo + len(side.venue.levels.bid) - 1} "
                "ticks; state a wider window_ticks"
            )
        if status == loop.STAMPS_FULL:
            return f"{self.venues[0].spec.instrument}: {loop.MOST_STAMPS} funding stamps came between two decisions; give features on a finer grid"
        return f"{self.venues[0].spec.instrument}: one event executed more than {self.facts.room} orders of ours"


def _new_side(model: VenueModel, n_sets: int, executions: int, compiled: bool) -> loop.VenueSide:
    x = model.settings.exchange_params(model.spec.lot_base)
    venue: VenueState = new_venue(n_sets, model.settings.order_slots, *model.window_ticks, executions)
    load_venue_book(x, venue, model.initial_book, model.spec.lot_base)
    none = np.empty(0, dtype=np.int64)
    return loop.VenueSide(compiled_params(x) if compiled else x, venue, _no_rows(), none, none)


def _new_wires(venues: Sequence[VenueModel], sets: Sequence[SetInput], user: UserStrategy | None, first_set: int, room: int) -> loop.Wires:
    n = len(sets)
    models = [[s.latencies[v] if s.latencies is not None else venue.settings.latency_model for s in sets] for v, venue in enumerate(venues)]
    tiers = [venue.settings.fee_tiers for venue in venues]
    most = max(len(tier.from_micro) for tier in tiers)
    tiers_i = np.full((2, most), FOREVER, dtype=np.int64)
    tiers_f = np.zeros((2, 2, most))
    venue_i = np.zeros((2, loop.VENUE_I_SIZE), dtype=np.int64)
    venue_f = np.zeros((2, loop.VENUE_F_SIZE))
    for v, (venue, tier) in enumerate(zip(venues, tiers, strict=True)):
        count = len(tier.from_micro)
        tiers_i[v, :count], tiers_f[v, 0, :count], tiers_f[v, 1, :count] = tier.from_micro, tier.maker_fee, tier.taker_fee
        balances, margin = venue.settings.balances, venue.settings.margin
        venue_i[v, loop.V_BALANCE_LOTS] = -1 if balances is None else balances.base_lots
        venue_f[v, loop.V_MARK_PRICE] = np.nan
        venue_f[v, loop.V_BALANCE_QUOTE] = 0.0 if balances is None else balances.quote
        if margin is not None:
            venue_f[v, loop.V_COLLATERAL :] = margin
    nodes = 2 * (room + strategy.MOST_ACTIONS + strategy.MOST_ORDERS) + 16 * n
    return loop.Wires(
        sets=_new_sets(venues, sets, user, first_set),
        box=new_mailbox(n, nodes),
        latencies=pack_latencies(models if len(models) == 2 else models * 2),
        fills=new_fill_log(max(_LOG_ROWS, 4 * room)),
        requests=new_order_log(_LOG_ROWS if any(v.settings.order_log for v in venues) else 0),
        venue_i=venue_i,
        venue_f=venue_f,
        stamp_ns=np.zeros((2, loop.MOST_STAMPS), dtype=np.int64),
        stamps=np.zeros((2, 2, loop.MOST_STAMPS)),
        tiers_i=tiers_i,
        tiers_f=tiers_f,
        run_i=np.array([-1, 0], dtype=np.int64),
    )


def _new_sets(venues: Sequence[VenueModel], sets: Sequence[SetInput], user: UserStrategy | None, first_set: int) -> loop.Sets:
    n = len(sets)
    ints = np.zeros((n, loop.INTS_SIZE), dtype=np.int64)
    floats = np.zeros((n, loop.FLOATS_SIZE))
    rows: list[Float64s] = []
    entry_ns: list[int] = []
    ledgers = [new_ledger(v.settings.trailing_volume_quote) for v in venues]
    ledgers += [new_ledger()] * (2 - len(ledgers))
    ledger = np.ascontiguousarray(np.repeat(np.stack(ledgers)[:, None, :], n, axis=1))
    for s, one in enumerate(sets):
        row = ints[s]
        row[loop.C_ENTRY] = -1
        row[loop.C_NEXT_ENTRY] = len(rows)
        for k, entry in enumerate(one.schedule):
            where = f"{venues[0].spec.instrument}, set {first_set + s}, entry {k} of its schedule"
            rows.append(_entry_row(entry.params, user, where))
            entry_ns.append(entry.from_ns)
        start = one.schedule[0]
        row[loop.C_LAST_ENTRY] = len(rows)
        row[loop.C_END_NS] = FOREVER if one.end_ns is None else one.end_ns
        row[loop.C_START_NS] = start.from_ns
        policy = start.params.orders if isinstance(start.params, DecisionParams) else _NO_POLICY
        fresh = new_local_state(start.from_ns, policy)
        row[loop.LATCHES_AT : loop.LATCHES_AT + I_SIZE] = fresh.i
        floats[s, loop.MEMORY_AT : loop.MEMORY_AT + F_SIZE] = fresh.f
        for v, venue in enumerate(venues):
            loop.put_money(floats[s], loop.MONEY_AT + v * loop.MONEY_SIZE, money_of(venue.spec))
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise DataError(f"parameters of the sets differ in length: {sorted(widths)}; a user's strategy takes one number of parameters")
    return loop.Sets(
        ints=ints,
        floats=floats,
        local=ledger.copy(),
        truth=ledger.copy(),
        pair=np.zeros((n, PAIR_SIZE), dtype=np.int64),
        orders=np.zeros((n, strategy.ORDER_ROWS, strategy.MOST_ORDERS), dtype=np.int64),
        due=np.full(n, FOREVER, dtype=np.int64),
        block_due=np.full(-(-n // loop.BLOCK), FOREVER, dtype=np.int64),
        params=np.ascontiguousarray(np.stack(rows)),
        entry_ns=np.array(entry_ns, dtype=np.int64),
        memory=np.zeros((n, 0 if user is None else user.state_size)),
    )


def _entry_row(params: DecisionParams | Sequence[float], user: UserStrategy | None, where: str) -> Float64s:
    if user is None:
        if not isinstance(params, DecisionParams):
            raise DataError(f"{where}: parameters are {type(params).__name__}, expected DecisionParams; a user's own go with a strategy")
        return pack_params(params, where)
    if isinstance(params, DecisionParams):
        raise DataError(f"{where}: parameters are DecisionParams, but the strategy is {user.name}; expected its own numbers")
    row = np.asarray(params, dtype=np.float64).ravel()
    bad = np.flatnonzero(np.isnan(row))
    if len(bad):
        raise DataError(f"{where}: parameter {int(bad[0])} is nan; state a number")
    return row


def _rows(tape: Tape, x: ExchangeParams) -> loop.Rows:
    return loop.Rows(
        tape.exch_ts,
        tape.local_ts,
        tape.kind,
        tape.side,
        tape.flags,
        tape.price_ticks,
        book_quantities(tape, x),
        tape.seq,
        tape.value,
        tape.aux,
    )


def _no_rows() -> loop.Rows:
    ints, floats = np.empty(0, dtype=np.int64), np.empty(0)
    kinds, flags = np.empty(0, dtype=np.int8), np.empty(0, dtype=np.int16)
    return loop.Rows(ints, ints, kinds, kinds, flags, ints, floats, ints, floats, floats)


def _grid(features: Features) -> Float64s:
    """One decision per row: what a decision looks at lies together."""
    columns = (
        features.valid,
        features.bid_ticks,
        features.ask_ticks,
        features.microprice,
        features.order_flow_imbalance,
        features.kyle_lambda,
        features.short_volatility,
    )
    out = np.empty((len(features), loop.GRID_SIZE))
    for k, column in enumerate(columns):
        out[:, k] = column
    return out


def _new_samples(n_sets: int, at: Int64s) -> loop.Samples:
    columns = int(at.max()) + 1 if len(at) else 0
    ints = np.zeros((3, n_sets, columns), dtype=np.int64)
    # a set that was not running has no sample there
    ints[2] = -1
    return loop.Samples(at, ints, np.full((2, n_sets, columns), np.nan))
