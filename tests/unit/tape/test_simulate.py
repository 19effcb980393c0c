"""The simulated market: same bytes however it is made, a sane book, and the statistics that docs/simulated_market.md promises."""

from __future__ import annotations

import itertools
from datetime import date, timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from mm_platform.core.book_state import BookState
from mm_platform.core.errors import ConfigError
from mm_platform.core.units import NS_PER_DAY, NS_PER_S, day_start_ns, utc_date
from mm_platform.tape import simulate_path
from mm_platform.tape.layout import COLUMNS, LAST, Kind, Tape
from mm_platform.tape.simulate import SIM_PERP, SIM_SPOT, SimulatedMarket, simulate, simulate_day, stream_market
from mm_platform.tape.simulate_flow import advance_flow, new_rng, uniform
from mm_platform.tape.simulate_path import funding_rate, latent_day, ornstein_uhlenbeck_bridge, regime_states
from mm_platform.tape.simulate_settings import FlowSettings, MarketSettings, Regime

SEED = 7
DAY = date(2026, 3, 2)
DAYS = tuple(DAY + timedelta(days=i) for i in range(3))


@pytest.fixture(scope="module")
def days() -> list[SimulatedMarket]:
    return [simulate_day(SEED, day) for day in DAYS]


def _same(a: Tape, b: Tape) -> None:
    for name in COLUMNS:
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name


def _joined(tapes: list[Tape], name: str) -> np.ndarray:
    return np.concatenate([getattr(tape, name) for tape in tapes])


def _mids(tape: Tape) -> tuple[np.ndarray, np.ndarray]:
    """Times and mids [ticks] from the best-quote rows (written whenever a best price moves)."""
    top = tape.kind == Kind.TOP
    bid, ask = tape.price_ticks[top][0::2], tape.price_ticks[top][1::2]
    return tape.exch_ts[top][0::2], (bid + ask) / 2.0


def _at(ts: np.ndarray, values: np.ndarray, when: np.ndarray) -> np.ndarray:
    return values[np.clip(np.searchsorted(ts, when, side="right") - 1, 0, None)]


def _returns(tape: Tape, step_s: int) -> np.ndarray:
    ts, mid = _mids(tape)
    grid = np.arange(tape.exch_ts[0], tape.exch_ts[-1], step_s * NS_PER_S)
    return np.diff(np.log(_at(ts, mid, grid)))


# -- the same bytes -----------------------------------------------------------------------------------------------------------------


def test_same_seed_and_day_give_the_same_bytes_others_do_not(days: list[SimulatedMarket]) -> None:
    again = simulate_day(SEED, DAY)
    _same(again.perp, days[0].perp)
    _same(again.spot, days[0].spot)
    assert again.perp.sha256 == days[0].perp.sha256
    hashes = {m.sha256 for day in days for m in (day.perp, day.spot)} | {simulate_day(SEED + 1, DAY).perp.sha256}
    assert len(hashes) == 7


def test_a_day_does_not_depend_on_the_range_asked_for(days: list[SimulatedMarket]) -> None:
    both = simulate(MarketSettings(), SEED, day_start_ns(DAYS[0]), 2 * 86_400.0)
    for tape, first, second in ((both.perp, days[0].perp, days[1].perp), (both.spot, days[0].spot, days[1].spot)):
        for name in COLUMNS:
            assert getattr(tape, name).tobytes() == np.concatenate([getattr(first, name), getattr(second, name)]).tobytes(), name


def test_a_late_start_gives_the_same_rows_and_the_book_before_them(days: list[SimulatedMarket]) -> None:
    start = day_start_ns(DAY) + 1800 * NS_PER_S
    cut = simulate(MarketSettings(), SEED, start, 600.0)
    whole = days[0].perp
    rows = (whole.exch_ts >= start) & (whole.exch_ts < start + 600 * NS_PER_S)
    for name in COLUMNS:
        assert getattr(cut.perp, name).tobytes() == getattr(whole, name)[rows].tobytes(), name
    book = {1: {}, -1: {}}
    for i in range(int(np.flatnonzero(rows)[0])):
        _apply(book, whole, i)
    state = cut.perp.initial_book
    assert dict(zip(state.bid_ticks.tolist(), state.bid_lots.tolist(), strict=True)) == book[1]
    assert dict(zip(state.ask_ticks.tolist(), state.ask_lots.tolist(), strict=True)) == book[-1]
    assert state.bid_ticks.tolist() == sorted(book[1], reverse=True)
    assert state.ask_ticks.tolist() == sorted(book[-1])
    assert state.seq == whole.seq[(whole.exch_ts < start) & (whole.kind == Kind.DEPTH)][-1]


def test_streamed_plain_python_pieces_are_the_compiled_day(days: list[SimulatedMarket]) -> None:
    """The twins agree bit for bit, and where the pieces are cut changes nothing."""
    minutes = list(itertools.islice(stream_market(SEED, DAY), 30))
    odd = list(itertools.islice(stream_market(SEED, DAY, chunk_s=7.3, advance=advance_flow.compiled), 200))
    for pieces in (minutes, odd):
        for which in ("perp", "spot"):
            tapes = [getattr(piece, which) for piece in pieces]
            whole = getattr(days[0], which)
            n = sum(len(tape) for tape in tapes)
            assert n > 2000
            for name in COLUMNS:
                assert _joined(tapes, name).tobytes() == getattr(whole, name)[:n].tobytes(), name
    # each piece continues the book of the one before
    book = {1: {}, -1: {}}
    for piece in minutes:
        state = piece.perp.initial_book
        assert dict(zip(state.bid_ticks.tolist(), state.bid_lots.tolist(), strict=True)) == book[1]
        for i in range(len(piece.perp)):
            _apply(book, piece.perp, i)


def test_the_stream_runs_into_the_next_day(days: list[SimulatedMarket]) -> None:
    pieces = list(itertools.islice(stream_market(SEED, DAYS[0], chunk_s=36_000.0, advance=advance_flow.compiled), 4))
    assert [utc_date(int(p.perp.exch_ts[0])) for p in pieces] == [DAYS[0]] * 3 + [DAYS[1]]
    n = len(pieces[3].perp)
    assert pieces[3].perp.initial_book.seq == BookState.empty().seq
    assert pieces[3].perp.price_ticks.tobytes() == days[1].perp.price_ticks[:n].tobytes()


def test_generator_reference_values() -> None:
    """MRG32k3a from six seeds of 12345 (L'Ecuyer's own first outputs)."""
    for twin in (uniform, uniform.compiled):
        state = np.full(6, 12345, dtype=np.int64)
        assert [twin(state) for _ in range(3)] == pytest.approx([0.127011122046577, 0.318527565396795, 0.309186015583270], abs=1e-14)
    drawn = new_rng(np.random.SeedSequence(1))
    assert np.all(drawn > 0)
    assert np.all(drawn[:3] < 4294967087)
    assert np.all(drawn[3:] < 4294944443)


# -- days join ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, SEED, 123_456_789])
def test_latent_state_runs_through_midnight(seed: int) -> None:
    one, two = (latent_day(seed, day, MarketSettings()) for day in DAYS[:2])
    for name in ("perp_price", "spot_price", "drift_z"):
        assert getattr(one, name)[-1] == getattr(two, name)[0], name
    assert one.premium_slow[-1] == two.premium_slow[0]
    # the last prediction before midnight is all but the rate settled there
    assert two.funding_rate[0] == pytest.approx(one.predicted_rate[-1], abs=2e-6)
    assert one.funding_rate[1] == pytest.approx(one.predicted_rate[479], abs=2e-6)


def test_mid_joins_without_a_jump(days: list[SimulatedMarket]) -> None:
    for before, after in itertools.pairwise(days):
        for which in ("perp", "spot"):
            _, close = _mids(getattr(before, which))
            _, opening = _mids(getattr(after, which))
            assert abs(opening[0] / close[-1] - 1.0) < 8e-4


def test_regimes_are_one_markov_chain_whatever_day_one_starts_at() -> None:
    settings = MarketSettings()
    first = simulate_path.day_number(DAY)
    slots = simulate_path.SLOTS
    anew = simulate_path.addressed(SEED, 3, (first - 3) * slots, 13 * slots, normal=False)
    state = simulate_path.addressed(SEED, 4, (first - 3) * slots, 13 * slots, normal=False)
    chain, now = [], -1
    for a, s in zip(anew.tolist(), state.tolist(), strict=True):
        if a < 10.0 / settings.regime_minutes:
            now = 0 if s < 0.45 else 1 if s < 0.85 else 2
        chain.append(now)
    made = np.concatenate([regime_states(SEED, first + i, settings) for i in range(10)])
    assert made.tolist() == chain[3 * slots :]
    many = np.concatenate([regime_states(SEED, first + i, settings) for i in range(200)])
    assert np.bincount(many) / len(many) == pytest.approx([0.45, 0.40, 0.15], abs=0.04)
    assert np.mean(many[1:] != many[:-1]) == pytest.approx((1 / 6) * (1 - 0.45**2 - 0.40**2 - 0.15**2), abs=0.01)


def test_bridge_is_the_recursion_and_hits_its_end() -> None:
    rng = np.random.default_rng(3)
    noise, phi = rng.standard_normal(500), 0.97
    free = [0.3]
    for e in noise:
        free.append(phi * free[-1] + np.sqrt(1 - phi * phi) * e)
    theta = -np.log(phi)
    weights = np.sinh(theta * np.arange(501)) / np.sinh(theta * 500)
    expected = np.array(free) + (-1.2 - free[-1]) * weights
    assert ornstein_uhlenbeck_bridge(noise, phi, 0.3, -1.2) == pytest.approx(expected, abs=1e-12)


# -- a sane tape ----------------------------------------------------------------------------------------------------------------------


def _apply(book: dict[int, dict[int, int]], tape: Tape, i: int) -> None:
    kind = tape.kind[i]
    if kind == Kind.CLEAR:
        book[1].clear()
        book[-1].clear()
    elif kind in (Kind.DEPTH, Kind.SNAPSHOT):
        level = book[int(tape.side[i])]
        if tape.qty_lots[i] == 0:
            del level[int(tape.price_ticks[i])]  # KeyError: a level was removed that did not exist
        else:
            level[int(tape.price_ticks[i])] = int(tape.qty_lots[i])


@pytest.mark.parametrize("which", ["perp", "spot"])
def test_book_is_never_crossed_and_trades_walk_it(days: list[SimulatedMarket], which: str) -> None:
    """Replays three hours into a dict: levels, best quotes, prints and the depth rows that reflect them must fit together."""
    tape = getattr(days[0], which)
    stop = int(np.searchsorted(tape.exch_ts, tape.exch_ts[0] + 3 * 3600 * NS_PER_S))
    book: dict[int, dict[int, int]] = {1: {}, -1: {}}
    due: dict[tuple[int, int], int] = {}  # (book side, tick) -> lots it must stand at once the print is reflected
    prints: list[tuple[int, int, int]] = []
    shallowest, n_prints, n_tops = 10**9, 0, 0
    for i in range(stop):
        kind, side, price, lots = int(tape.kind[i]), int(tape.side[i]), int(tape.price_ticks[i]), int(tape.qty_lots[i])
        last = bool(tape.flags[i] & LAST)
        if kind == Kind.TRADE:
            assert not due, "a print before the rows that reflect the one before"
            assert lots > 0
            prints.append((side, price, lots))
            if last:
                taken = [p for p in prints if p[0] == side]
                assert taken == prints
                resting = book[-side]
                levels = sorted(resting, reverse=side < 0)[: len(prints)]
                assert [p for _, p, _ in prints] == levels, "prints do not take the best levels in order"
                for at, (_, tick, size) in enumerate(prints):
                    left = resting[tick] - size
                    assert left >= 0
                    assert left == 0 or at == len(prints) - 1, "a level was passed before it was used up"
                    due[(-side, tick)] = left
                n_prints += len(prints)
                traded_at = tape.exch_ts[i]
                prints = []
        elif kind == Kind.TOP:
            best = max(book[1]) if side > 0 else min(book[-1])
            assert (price, lots) == (best, book[side][best])
            n_tops += 1
        else:
            _apply(book, tape, i)
            if kind == Kind.DEPTH and due:
                assert tape.exch_ts[i] == traded_at
                assert due.pop((side, price)) == lots
                assert not due or not last, "the message after a print leaves one of its levels out"
        if book[1] and book[-1]:
            assert max(book[1]) < min(book[-1])
            if last and kind in (Kind.DEPTH, Kind.SNAPSHOT):
                shallowest = min(shallowest, len(book[1]), len(book[-1]))
    assert n_prints > 1000
    assert n_tops > 1000
    assert shallowest >= (20 if which == "perp" else 17)
    assert max(len(book[1]), len(book[-1])) < 100


def test_messages_ids_and_times(days: list[SimulatedMarket]) -> None:
    for market, day in zip(days, DAYS, strict=True):
        for tape in (market.perp, market.spot):
            tape.validate()
            assert tape.initial_book.seq == -1
            assert tape.kind[0] == Kind.CLEAR
            assert tape.exch_ts[0] == day_start_ns(day)
            # every row is seen on its own UTC day, within the stated latency of its message (a queued message waits for the one before)
            latency = tape.local_ts - tape.exch_ts
            assert latency.min() >= 2_000_000
            assert latency.max() <= 20_000_000
            assert tape.local_ts[-1] < day_start_ns(day) + NS_PER_DAY
            for stream in ((Kind.DEPTH, Kind.SNAPSHOT, Kind.CLEAR), (Kind.TRADE,), (Kind.TOP,), (Kind.MARK, Kind.FUNDING, Kind.FUNDING_PREDICTED)):
                assert np.all(np.diff(tape.local_ts[np.isin(tape.kind, stream)]) >= 0)
            # one update id per depth message, closed by LAST
            depth = np.isin(tape.kind, (Kind.DEPTH, Kind.SNAPSHOT))
            seq, last = tape.seq[depth], (tape.flags[depth] & LAST) != 0
            step = np.diff(seq)
            assert np.all((step == 0) | (step == 1))
            assert np.array_equal(np.append(step != 0, True), last)
            ids = tape.seq[tape.kind == Kind.TRADE]
            assert np.all(np.diff(ids) == 1)
            assert len(np.unique(latency)) > 1000
    for before, after in itertools.pairwise(days):
        assert after.perp.seq[0] > before.perp.seq[before.perp.kind == Kind.DEPTH][-1]
        assert after.perp.seq[after.perp.kind == Kind.TRADE][0] > before.perp.seq[before.perp.kind == Kind.TRADE][-1]


def test_rows_per_day_are_as_documented(days: list[SimulatedMarket]) -> None:
    assert np.mean([len(m.perp) for m in days]) == pytest.approx(590_000, rel=0.15)
    assert np.mean([len(m.spot) for m in days]) == pytest.approx(230_000, rel=0.15)


def test_funding_at_stamps_only(days: list[SimulatedMarket]) -> None:
    for market, day in zip(days, DAYS, strict=True):
        tape = market.perp
        rows = tape.kind == Kind.FUNDING
        stamps = day_start_ns(day) + np.arange(3) * 8 * 3600 * NS_PER_S
        assert np.array_equal(tape.exch_ts[rows], stamps)
        assert np.array_equal(tape.seq[rows], stamps)
        assert SIM_PERP.funding_interval_s == 8 * 3600
        marks = tape.kind == Kind.MARK
        assert np.all(np.diff(tape.exch_ts[marks]) == 3 * NS_PER_S)
        basis = tape.value[marks] / tape.aux[marks] - 1.0
        assert np.abs(basis).max() < 5e-3
        predicted = tape.kind == Kind.FUNDING_PREDICTED
        ahead = tape.seq[predicted] - tape.exch_ts[predicted]
        assert ahead.min() > 0
        assert ahead.max() == 8 * 3600 * NS_PER_S
        # what was predicted a minute before a stamp is what the stamp settles
        for stamp, rate in zip(stamps[1:], tape.value[rows][1:], strict=True):
            before = np.flatnonzero(predicted & (tape.exch_ts < stamp))[-1]
            assert tape.seq[before] == stamp
            assert tape.value[before] == pytest.approx(rate, abs=2e-6)
        # the mark is the market's price
        ts, mid = _mids(tape)
        near = _at(ts, mid, tape.exch_ts[marks]) / tape.value[marks] - 1.0
        assert np.sqrt(np.mean(near**2)) < 4e-4
        assert not np.any(np.isin(market.spot.kind, (Kind.FUNDING, Kind.MARK, Kind.FUNDING_PREDICTED)))


def test_funding_rule_examples() -> None:
    """F = P + clamp(I - P, -0.05 %, 0.05 %), I = 0.01 % (THEORY 6.1)."""
    assert funding_rate(np.array([2e-4, 8e-4, -1e-3, 6e-4])) == pytest.approx([1e-4, 3e-4, -5e-4, 1e-4], abs=1e-12)
    rates = np.concatenate([latent_day(SEED, DAY + timedelta(days=i), MarketSettings()).funding_rate for i in range(40)])
    assert 0.3 < np.mean(np.isclose(rates, 1e-4)) < 0.95
    assert np.std(rates) > 1e-5


# -- the statistics --------------------------------------------------------------------------------------------------------------------


def _orders(tapes: list[Tape]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Market orders: time, side, deepest price [ticks]."""
    ts, side, price = ([getattr(t, name)[t.kind == Kind.TRADE] for t in tapes] for name in ("exch_ts", "side", "price_ticks"))
    when, first, count = np.unique(np.concatenate(ts), return_index=True, return_counts=True)
    sides = np.concatenate(side)[first]
    deepest = np.concatenate(price)[first + count - 1]
    return when, sides, deepest


def _fano(when: np.ndarray, window_s: int) -> float:
    counts = np.bincount(((when - when[0]) // (window_s * NS_PER_S)).astype(int))[:-1]
    return float(np.var(counts) / np.mean(counts))


def test_order_flow_clusters_by_its_branching(days: list[SimulatedMarket]) -> None:
    when, side, _ = _orders([d.perp for d in days])
    assert 2.5 < _fano(when, 10) < 8.0
    assert np.mean(side[1:] == side[:-1]) > 0.6
    # the same market without self-excitation and regimes is a Poisson stream: nothing else clusters
    plain = MarketSettings(
        regimes=(Regime(sigma=0.5, share_frac=1.0, activity=1.0),),
        perp=FlowSettings(market_orders_per_s=0.36, level_lots=250.0, branching_same=0.0, branching_cross=0.0),
    )
    when, _, _ = _orders([simulate_day(SEED, DAY, plain).perp])
    assert _fano(when, 10) == pytest.approx(1.0, abs=0.08)
    assert len(when) == pytest.approx(0.36 * 86_400, rel=0.03)


def test_reach_past_the_mid_is_exponential(days: list[SimulatedMarket]) -> None:
    tapes = [d.perp for d in days]
    when, side, deepest = _orders(tapes)
    ts, mid = (np.concatenate(x) for x in zip(*[_mids(t) for t in tapes], strict=True))
    before = mid[np.searchsorted(ts, when, side="left") - 1]
    depth = side * (deepest / before - 1.0)
    seconds = 86_400 * len(tapes)
    for least in (1e-4, 2e-4):
        beyond = depth[depth > least]
        k = 1.0 / np.mean(beyond - least)
        a = len(beyond) / seconds / 2 * np.exp(k * least)
        assert 4_300 < k < 5_500
        assert 0.15 < a < 0.30
        # goodness: the share beyond three depths is what the fit says
        for further in (1e-4, 2e-4, 4e-4):
            assert np.mean(beyond > least + further) == pytest.approx(np.exp(-k * further), abs=0.03)


def test_realised_sigma_and_regimes(days: list[SimulatedMarket]) -> None:
    settings = MarketSettings()
    assert settings.sigma == pytest.approx(0.512, abs=1e-3)
    # against what each stretch was drawn with: the tape's own 1-minute variance, by regime
    states = np.concatenate([regime_states(SEED, simulate_path.day_number(day), settings) for day in DAYS])
    squares = np.concatenate([np.concatenate((_returns(d.perp, 60), [np.nan]))[:1440] ** 2 for d in days])
    by_slot = np.nanmean(squares.reshape(-1, 10), axis=1) * 365 * 1440
    measured = [np.sqrt(np.mean(by_slot[states == s])) for s in range(3)]
    assert measured == pytest.approx([r.sigma for r in settings.regimes], rel=0.12)
    true = np.sqrt(np.mean(np.array([r.sigma for r in settings.regimes])[states] ** 2))
    five = np.concatenate([_returns(d.perp, 300) for d in days])
    assert np.sqrt(np.mean(five**2) * 365 * 288) == pytest.approx(true, rel=0.1)
    assert 0.35 < true < 0.65
    # fat tails from the regimes
    assert np.mean((five - five.mean()) ** 4) / np.var(five) ** 2 > 3.6


def test_long_run_level_stays_and_volatility_is_as_stated() -> None:
    settings = MarketSettings()
    latent = [latent_day(11, DAY + timedelta(days=i), settings) for i in range(30)]
    log = np.concatenate([np.log(d.perp_price[:-1:1200]) for d in latent])
    true = np.sqrt(np.mean([np.mean(d.volatility**2) for d in latent])) * settings.sigma
    assert np.sqrt(np.mean(np.diff(log) ** 2) * 365 * 288) == pytest.approx(true, rel=0.05)
    opens = np.array([latent_day(11, date(2020, 1, 1) + timedelta(days=60 * i), settings).perp_price[0] for i in range(30)])
    assert 20_000 < opens.min() < opens.max() < 180_000


def test_spot_follows_the_perp(days: list[SimulatedMarket]) -> None:
    assert SIM_SPOT.contract == "spot"
    for day in days:
        perp, spot = _returns(day.perp, 300), _returns(day.spot, 300)
        assert np.corrcoef(perp, spot)[0, 1] > 0.97
        grid = np.arange(day.perp.exch_ts[0] + NS_PER_S, day.perp.exch_ts[-1], 60 * NS_PER_S)
        basis = _at(*_mids(day.perp), grid) / _at(*_mids(day.spot), grid) - 1.0
        assert 1e-4 < np.std(basis) < 6e-4


def _maker(tapes: list[Tape], half: float, skew: float) -> dict[str, np.ndarray]:
    """A crude maker: once a second, post-only quotes of 10 lots around the mid it saw, in force 30 ms later.

    Filled by prints strictly through the quote (worse than standing behind the displayed quantity) and by a book that moves onto it.
    Returns per fill: time, side, price, mid before it; and the hourly profit after the maker fee [quote].
    """
    lots, fee, lot = 10, SIM_PERP.maker_fee, SIM_PERP.lot_base
    out: dict[str, list[float]] = {"ts": [], "side": [], "price": [], "mid": [], "hour": []}
    for tape in tapes:
        rows = np.isin(tape.kind, (Kind.TRADE, Kind.TOP))
        columns = [getattr(tape, name)[rows].tolist() for name in ("exch_ts", "kind", "side", "price_ticks", "flags")]
        position, cash, mid, worth, active_at = 0, 0.0, 0.0, 0.0, 0
        quotes, wanted, best = {1: 0, -1: 0}, {1: 0, -1: 0}, {1: 0, -1: 0}
        decide = int(tape.exch_ts[0]) + NS_PER_S
        hour = int(tape.exch_ts[0]) + 3600 * NS_PER_S
        for ts, kind, side, price, flags in zip(*columns, strict=True):
            while ts >= hour:
                equity = cash + position * lot * mid
                out["hour"].append(equity - worth)
                worth, hour = equity, hour + 3600 * NS_PER_S
            if ts >= decide:
                # nothing happened since the decision was due, so the mid is the one it saw
                centre = mid * (1.0 - skew * position / lots)
                wanted[1] = int(np.floor(centre - half * mid)) if position < 40 * lots else 0
                wanted[-1] = int(np.ceil(centre + half * mid)) if position > -40 * lots else 0
                active_at, decide = decide + 30_000_000, ts - ts % NS_PER_S + NS_PER_S
            if active_at and ts >= active_at:
                for s in (1, -1):
                    quotes[s] = wanted[s] if (best[-s] - wanted[s]) * s > 0 else 0
                active_at = 0
            if kind == Kind.TOP:
                best[side] = price
                if not flags & LAST:
                    continue
                hit = [s for s in (1, -1) if quotes[s] and (quotes[s] - best[-s]) * s >= 0]
            else:
                hit = [-side] if quotes[-side] and (quotes[-side] - price) * -side > 0 else []
            for s in hit:
                position += s * lots
                cash -= s * lots * lot * quotes[s] + fee * lots * lot * quotes[s]
                for name, value in (("ts", ts), ("side", s), ("price", quotes[s]), ("mid", mid)):
                    out[name].append(value)
                quotes[s] = 0
            if kind == Kind.TOP:
                mid = (best[1] + best[-1]) / 2.0
        out["hour"].append(cash + position * lot * mid - worth)
    return {name: np.array(values) for name, values in out.items()}


def _t(blocks: np.ndarray) -> float:
    return float(np.mean(blocks) / np.std(blocks, ddof=1) * np.sqrt(len(blocks)))


def test_a_sane_maker_earns_more_than_fees_and_adverse_selection(days: list[SimulatedMarket]) -> None:
    """The documented edge, and what it is not: mark-outs are negative, and a quote inside the costs loses."""
    tapes = [d.perp for d in days]
    sane = _maker(tapes, half=2.5e-4, skew=0.1e-4)
    notional = np.sum(sane["price"]) * 10 * SIM_PERP.lot_base
    assert len(sane["hour"]) == 72
    assert 2_000 < len(sane["ts"]) / 3 < 15_000
    assert _t(sane["hour"]) > 4.0
    assert 0.3e-4 < np.sum(sane["hour"]) / notional < 1.5e-4

    ts, mid = (np.concatenate(x) for x in zip(*[_mids(t) for t in tapes], strict=True))
    hour = (sane["ts"] // (3600 * NS_PER_S)).astype(int)
    for horizon_s, least in ((1, 0.2e-4), (5, 0.2e-4), (30, 0.4e-4)):
        markout = sane["side"] * (_at(ts, mid, sane["ts"] + horizon_s * NS_PER_S) / sane["mid"] - 1.0)
        assert np.mean(markout) < -least
        blocks = np.array([np.mean(markout[hour == h]) for h in np.unique(hour)])
        assert _t(blocks) < -4.0

    tight = _maker(tapes, half=0.5e-4, skew=0.1e-4)
    assert _t(tight["hour"]) < -4.0
    # risk aversion matters: without skew the inventory makes the hours far noisier, with too much of it the edge is given away
    careless = _maker(tapes, half=2.5e-4, skew=0.0)
    timid = _maker(tapes, half=2.5e-4, skew=2.0e-4)
    assert np.std(careless["hour"]) > 2.0 * np.std(sane["hour"])
    assert _t(careless["hour"]) < _t(sane["hour"])
    assert np.sum(timid["hour"]) < 0.7 * np.sum(sane["hour"])


# -- refusals --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"perp": {"market_orders_per_s": 1.0, "level_lots": 10.0, "branching_same": 0.7, "branching_cross": 0.4}}, "branching ratio"),
        ({"regimes": [{"sigma": 0.5, "share_frac": 0.5, "activity": 1.0}]}, "sum to 0.5"),
        ({"drift": 5e-4}, "variance"),
        ({"mark_every_s": 7}, "must divide 60"),
        ({"latency_min_ms": 30.0}, "lies below"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_market_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MarketSettings.model_validate(values)


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        simulate_day(-1, DAY)
    with pytest.raises(ConfigError, match="1972"):
        simulate_day(1, date(1971, 5, 1))
    with pytest.raises(ConfigError, match="chunk_s is 0"):
        stream_market(1, DAY, chunk_s=0)
    with pytest.raises(ConfigError, match="duration_s is nan"):
        simulate(MarketSettings(), 1, day_start_ns(DAY), float("nan"))
