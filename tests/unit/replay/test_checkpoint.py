"""Pieces and saved states: however a market is cut, whenever a run is stopped and taken up again, the results are those of the whole."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from builders import T0, TapeBuilder, decision_params
from test_many_sets import CHEAP, assert_same, market, some_sets

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_S
from mm_platform.replay.checkpoint import Arrays
from mm_platform.replay.run import (
    MarketPiece,
    ReplaySession,
    RunOptions,
    ScheduledParameters,
    SetInput,
    VenueInput,
    cut,
    replay_many,
    replay_pieces,
)
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import book_at
from mm_platform.tape.features import compute_features

SETTINGS = ReplaySettings(sample_every=7, order_log=True)


def whole_and_cuts() -> tuple[VenueInput, list[SetInput], list[int], int]:
    tape, features = market()
    sets = some_sets(int(features.grid_ts[0]), 10, own_latency=True)
    until = int(max(tape.exch_ts[-1], tape.local_ts.max(), features.grid_ts[-1])) + NS_PER_S
    rng = np.random.default_rng(0)
    # anywhere: between rows, at a row, at a decision, in quick succession
    cuts = sorted(
        {int(tape.exch_ts[2_000]), int(features.grid_ts[100]), int(features.grid_ts[100]) + 1, *(T0 + rng.integers(1, 200, 8) * 999_999_937)}
    )
    return VenueInput(tape, features, SETTINGS), sets, [int(c) for c in cuts], until


@pytest.mark.parametrize("threads", [1, 2])
def test_pieces_are_the_whole(threads: int) -> None:
    venue, sets, cuts, until = whole_and_cuts()
    whole = replay_many([venue], sets)
    pieces = list(cut([venue], cuts, until))
    assert len(pieces) > 8
    assert sum(len(p.tapes[0]) for p in pieces) == len(venue.tape)
    for one, other in zip(whole, replay_pieces(pieces, [venue.model()], sets, options=RunOptions(threads=threads)), strict=True):
        assert_same(one, other, set_no=True)


def through_a_file(state: Arrays) -> Arrays:
    file = io.BytesIO()
    np.savez(file, **state)  # type: ignore[arg-type]
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_resumed_run_is_the_whole(threads: int) -> None:
    venue, sets, cuts, until = whole_and_cuts()
    whole = replay_many([venue], sets)
    options = RunOptions(threads=threads)
    session = ReplaySession([venue.model()], sets, options=options)
    for number, piece in enumerate(cut([venue], cuts, until)):
        session.advance(piece)
        if number % 3 == 1:
            state = through_a_file(session.save_state())
            session = ReplaySession([venue.model()], sets, options=options)
            session.load_state(state)
    for one, other in zip(whole, session.finish(), strict=True):
        assert_same(one, other, set_no=True)


def test_a_state_of_another_run_is_refused() -> None:
    venue, sets, cuts, until = whole_and_cuts()
    session = ReplaySession([venue.model()], sets)
    session.advance(next(cut([venue], cuts, until)))
    state = session.save_state()
    with pytest.raises(DataError, match="saved state is of another run"):
        ReplaySession([venue.model()], sets[:-1]).load_state(state)
    del state["shard0.box.pool"]
    with pytest.raises(DataError, match=r"shard0\.box\.pool is missing"):
        ReplaySession([venue.model()], sets).load_state(state)


def test_a_run_starts_at_a_given_time_with_the_book_of_that_time() -> None:
    venue, sets, _, _ = whole_and_cuts()
    start = int(venue.features.grid_ts[300]) - 1
    late = SetInput([ScheduledParameters(start, sets[0].schedule[0].params)])
    result = replay_many([venue], [late])[0]
    assert result.from_ns == start
    assert result.sample_ts[0] >= start
    assert (result.fills.exch_ts > start).all()
    assert len(result.fills) > 20
    # the rows before the start, as a book to start from, give the same run
    rest = venue.tape.slice_exch(start, 2**62, book_at(venue.tape, start))
    after = replay_many([VenueInput(rest, venue.features, SETTINGS, venue.model().window_ticks)], [late])[0]
    assert_same(result, after)


def test_pieces_that_do_not_follow_are_refused() -> None:
    venue, sets, cuts, until = whole_and_cuts()
    one, two, *_ = cut([venue], cuts, until)
    session = ReplaySession([venue.model()], sets)
    session.advance(two)
    with pytest.raises(DataError, match="pieces ascend"):
        session.advance(one)
    with pytest.raises(DataError, match="expected all of them inside"):
        session.advance(MarketPiece(until, (venue.tape,), (venue.features,)))
    with pytest.raises(DataError, match="no piece of the market came"):
        replay_pieces([], [venue.model()], sets)


def test_a_sink_and_pieces_hold_nothing_back() -> None:
    """What a session keeps does not grow with the pieces: fills go to the sink as each piece ends."""
    venue, sets, cuts, until = whole_and_cuts()
    got: list[int] = []
    session = ReplaySession([venue.model()], sets, options=RunOptions(fill_sink=lambda t: got.append(len(t)), order_sink=lambda t: None))
    sizes = []
    for piece in cut([venue], cuts, until):
        session.advance(piece)
        sizes.append(sum(a.nbytes for name, a in session.save_state().items() if not name.startswith("samples.")))
    assert len(got) > 3
    assert len(set(sizes)) == 1


def test_funding_that_is_known_in_the_next_piece() -> None:
    """The stamp happens before the cut and is learned after it: the venue pays at once, the local side learns later, as without the cut."""
    build = TapeBuilder(CHEAP, feed_ns=3 * NS_PER_S).book(1000, 1002, 10)
    for s in range(1, 20):
        build.at(s).level(1, 996, 14 + s % 2)
    build.at(20).trade(-1, 999, 60).at(25).funding(0.01, math.nan).at(26).level(1, 996, 15).at(40).level(1, 996, 14)
    tape = build.tape()
    features = compute_features(tape, NS_PER_S)
    sets = [SetInput([ScheduledParameters(int(features.grid_ts[0]), decision_params(CHEAP, k=30_000.0))])]
    venue = VenueInput(tape, features, SETTINGS)
    whole = replay_many([venue], sets)[0]
    held = whole.spec.lots_to_base(int(whole.sample_position_lots[-1]))
    # no mark was published: the stamp is paid at the mid
    assert whole.attribution.funding == pytest.approx(-held * 100.1 * 0.01, abs=1e-9)
    until = int(tape.local_ts[-1]) + NS_PER_S
    pieces = replay_pieces(cut([venue], [T0 + 27 * NS_PER_S], until), [venue.model()], sets)[0]
    assert_same(whole, pieces)
