"""Run strategies over tapes: tapes, features and parameters in, results out.

Belongs here: checks of whole inputs before a run starts, windows of prices, cutting tapes into pieces. Does not belong here: the run itself
(`replay.session`, `replay.loop`), files, choosing parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_S, iso_utc
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.money import Money
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.schedule import ScheduledParameters, check_schedule
from mm_platform.replay.session import ReplaySession, RunOptions
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.shard import MarketPiece, SetInput, VenueModel
from mm_platform.replay.strategy import UserStrategy
from mm_platform.tape.book_path import window_of
from mm_platform.tape.features import Features
from mm_platform.tape.layout import Kind, Tape

__all__ = [
    "MarketPiece",
    "ReplaySession",
    "RunOptions",
    "ScheduledParameters",
    "SetInput",
    "VenueInput",
    "VenueModel",
    "cut",
    "replay",
    "replay_many",
    "replay_pieces",
]


@dataclass(frozen=True, slots=True)
class VenueInput:
    """A venue of a run with its data.

    tape, features : rows in venue order, and what was known on the decision grid of the same tape. settings : how the venue is modelled.
    window_ticks : prices the book holds, from the tape unless given.
    """

    tape: Tape
    features: Features
    settings: ReplaySettings
    window_ticks: tuple[int, int] | None = None

    def model(self) -> VenueModel:
        """The venue without its data."""
        return VenueModel(
            spec=self.tape.spec,
            settings=self.settings,
            window_ticks=window_of(self.tape) if self.window_ticks is None else self.window_ticks,
            initial_book=self.tape.initial_book,
            tape_sha256=self.tape.sha256,
            clock_repaired=self.tape.clock_repaired,
        )


def replay(
    tape: Tape, features: Features, schedule: Sequence[ScheduledParameters], settings: ReplaySettings, *, end_ns: int | None = None
) -> ReplayResult:
    """Replay one set on one venue from the first scheduled time to `end_ns` (exclusive; default: past the last row and grid point).

    Parameters
    ----------
    tape, features
        Rows in venue order, and what was known on the decision grid of the same tape.
    schedule
        Ascending by `from_ns`. The set starts at the first entry; the venue's book is brought there first, without our orders.
    settings
        Venue model and latencies.

    Raises
    ------
    DataError
        As `replay_many`.
    """
    return replay_many([VenueInput(tape, features, settings)], [SetInput(schedule)], end_ns=end_ns)[0]


def replay_many(
    venues: Sequence[VenueInput],
    sets: Sequence[SetInput],
    *,
    strategy: UserStrategy | None = None,
    options: RunOptions = RunOptions(),  # noqa: B008 - immutable
    end_ns: int | None = None,
    currency_rate: Fraction | None = None,
    extra: npt.NDArray[np.float64] | None = None,
) -> list[ReplayResult]:
    """Replay many sets in one pass over the rows; each set's result is that of a run of its own, bit for bit.

    Parameters
    ----------
    venues
        The venue that is quoted, and at most one to hedge on.
    sets
        Parameter sets with their schedules; latencies and ends of their own where they have any.
    strategy
        A user's strategy instead of the platform's; the schedules' parameters are then its numbers.
    options
        Threads and sinks.
    end_ns
        End of the run (exclusive; default: a second past the last row and decision).
    currency_rate
        What one unit of the second venue's currency is worth in the first's.
    extra : float64, shape (decisions, k)
        Features of the user's own for its strategy.

    Raises
    ------
    DataError
        Before the run starts: an empty or unsorted tape, features of another tape, a set without parameters or with parameters of another
        instrument, a nan among them, a row that a fit has seen, an unknown model, a crossed book to start from, a funding stamp without a rate.
        During the run: a market that leaves the book's window, or a run that outgrows its bounds.
    """
    if not 1 <= len(venues) <= 2:
        raise DataError(f"a run has one venue or two, got {len(venues)}")
    for venue in venues:
        _check_venue(venue)
    starts = _check_sets(venues, sets, strategy)
    name = venues[0].tape.spec.instrument
    last = max(max(int(v.tape.exch_ts[-1]), int(v.tape.local_ts.max()), int(v.features.grid_ts[-1])) for v in venues) + NS_PER_S
    stop = last if end_ns is None else end_ns
    for number, (one, start) in enumerate(zip(sets, starts, strict=True)):
        ends = stop if one.end_ns is None else min(one.end_ns, stop)
        if ends <= start:
            raise DataError(f"{name}: set {number} would end ({iso_utc(ends)}) before it starts ({iso_utc(start)})")
    for venue in venues:
        _check_funding(venue.tape, min(starts), stop)
    session = ReplaySession([v.model() for v in venues], sets, strategy=strategy, options=options, currency_rate=currency_rate)
    session.advance(_until(MarketPiece(last, tuple(v.tape for v in venues), tuple(v.features for v in venues), extra), stop))
    return session.finish()


def replay_pieces(
    pieces: Iterable[MarketPiece],
    venues: Sequence[VenueModel],
    sets: Sequence[SetInput],
    *,
    strategy: UserStrategy | None = None,
    options: RunOptions = RunOptions(),  # noqa: B008 - immutable
    currency_rate: Fraction | None = None,
) -> list[ReplayResult]:
    """The same over a market that comes in pieces: memory holds one piece, and the results.

    Each piece is checked when it comes. A set that has no end of its own ends with the last piece.
    """
    for number, one in enumerate(sets):
        check_schedule(f"{venues[0].spec.instrument}, set {number}", one.schedule)
    session = ReplaySession(venues, sets, strategy=strategy, options=options, currency_rate=currency_rate)
    for piece in pieces:
        for tape in piece.tapes:
            tape.validate()
            _check_funding(tape, min(one.schedule[0].from_ns for one in sets), piece.until_ns)
        session.advance(piece)
    if not session.has_begun:
        raise DataError(f"{venues[0].spec.instrument}: nothing to replay: no piece of the market came")
    return session.finish()


def cut(venues: Sequence[VenueInput], at_ns: Sequence[int], until_ns: int, extra: npt.NDArray[np.float64] | None = None) -> Iterator[MarketPiece]:
    """Pieces of whole tapes, cut at ascending times and ended at `until_ns` (views, no copies)."""
    edges = [-(2**62), *at_ns, until_ns]
    for start, end in itertools.pairwise(edges):
        lo, hi = np.searchsorted(venues[0].features.grid_ts, (start, end), side="left")
        yield MarketPiece(
            end,
            tuple(v.tape.slice_exch(start, end, v.tape.initial_book) for v in venues),
            tuple(v.features.between(start, end) for v in venues),
            None if extra is None else extra[lo:hi],
        )


def _until(piece: MarketPiece, stop_ns: int) -> MarketPiece:
    """A piece without what happens from `stop_ns` on."""
    if all(len(t) == 0 or t.exch_ts[-1] < stop_ns for t in piece.tapes) and all(len(f) == 0 or f.grid_ts[-1] < stop_ns for f in piece.features):
        return MarketPiece(stop_ns, piece.tapes, piece.features, piece.extra)
    n = int(np.searchsorted(piece.features[0].grid_ts, stop_ns, side="left"))
    return MarketPiece(
        stop_ns,
        tuple(t.slice_exch(-(2**62), stop_ns, t.initial_book) for t in piece.tapes),
        tuple(f.between(-(2**62), stop_ns) for f in piece.features),
        None if piece.extra is None else piece.extra[:n],
    )


def _check_venue(venue: VenueInput) -> None:
    tape, features = venue.tape, venue.features
    name = tape.spec.instrument
    if len(tape) == 0 or len(features.grid_ts) == 0:
        raise DataError(f"{name}: nothing to replay: {len(tape)} rows, {len(features.grid_ts)} decisions")
    tape.validate()
    back = np.flatnonzero(np.diff(features.grid_ts) <= 0)
    if len(back):
        i = int(back[0]) + 1
        raise DataError(f"{name}: decision {i}: grid time {features.grid_ts[i]} does not come after the one before it ({features.grid_ts[i - 1]})")
    # the touch is made of the tape's own prices, but for levels that stood before a cut and were not restated: a few may be strange, not most
    book = tape.initial_book
    ends = [int(side[k]) for side in (book.bid_ticks, book.ask_ticks) if len(side) for k in (0, -1)]
    low = min([int(np.min(tape.price_ticks, where=tape.price_ticks > 0, initial=2**62)), *ends])
    high = max([int(tape.price_ticks.max()), *ends])
    known = features.valid & (features.grid_ts >= tape.local_ts[0])
    strange = np.flatnonzero(known & ((features.bid_ticks < low) | (features.ask_ticks > high)))
    if len(strange) and len(strange) > np.count_nonzero(known) // 2:
        g = int(strange[0])
        raise DataError(
            f"{name}: features are of another tape: at decision {g} ({iso_utc(int(features.grid_ts[g]))}) the touch is {features.bid_ticks[g]} to "
            f"{features.ask_ticks[g]} ticks, the tape's prices lie from {low} to {high}; compute the features from this tape"
        )


def _check_sets(venues: Sequence[VenueInput], sets: Sequence[SetInput], strategy: UserStrategy | None) -> list[int]:
    """Refuse what no run can start with; the sets' starts."""
    name = venues[0].tape.spec.instrument
    if not sets:
        raise DataError(f"{name}: no parameter sets to replay")
    for number, one in enumerate(sets):
        check_schedule(f"{name}, set {number}", one.schedule)
        if one.latencies is not None:
            if len(one.latencies) != len(venues):
                raise DataError(f"{name}, set {number}: {len(one.latencies)} latencies for {len(venues)} venue(s)")
            for venue, latency in zip(venues, one.latencies, strict=True):
                venue.settings.check_latency(latency)
        if strategy is not None:
            continue
        for k, entry in enumerate(one.schedule):
            where = f"{name}, set {number}, entry {k} of its schedule"
            if not isinstance(entry.params, DecisionParams):
                raise DataError(f"{where}: parameters are {type(entry.params).__name__}, expected DecisionParams; a user's own go with a strategy")
            _check_instrument(where, "money", entry.params.money, venues[0].tape)
            if (entry.params.hedge_venue.present == 1) != (len(venues) == 2):
                raise DataError(
                    f"{where}: hedge_venue.present is {entry.params.hedge_venue.present} in a run of {len(venues)} venue(s); "
                    "give a second venue exactly where the parameters hedge on one"
                )
            if len(venues) == 2:
                _check_instrument(where, "hedge_venue.money", entry.params.hedge_venue.money, venues[1].tape)
    return [one.schedule[0].from_ns for one in sets]


def _check_instrument(where: str, what: str, money: Money, tape: Tape) -> None:
    own = money_of(tape.spec)
    for name in ("lot_base", "tick_size", "lot_quote"):
        # nan is not another instrument: it is refused by name when the parameters are packed
        seen, expected = getattr(money, name), getattr(own, name)
        if seen == seen and seen != expected:
            raise DataError(
                f"{where}: {what}.{name} is {seen}, the tape's instrument {tape.spec.instrument} has {expected}; "
                "the parameters are of another instrument"
            )


def _check_funding(tape: Tape, start_ns: int, stop_ns: int) -> None:
    stamps = np.flatnonzero((tape.kind == Kind.FUNDING) & (tape.exch_ts >= start_ns) & (tape.exch_ts < stop_ns) & ~np.isfinite(tape.value))
    if len(stamps):
        raise DataError(
            f"{tape.spec.instrument}: the funding stamp of {iso_utc(int(tape.exch_ts[stamps[0]]))} states no rate ({len(stamps)} such stamps in the run): "
            "what was paid is not known; state the rate or leave the stamp out"
        )
