"""Order flow and book of one simulated instrument: events in time order, written as tape rows.

Belongs here: the kernel that moves one instrument forward, its state, its random numbers. Does not belong here: the efficient price
(`simulate_path`), how a day is put together (`simulate`).

Three things happen. A **market order**: times and sides are a two-sided Hawkes process with exponential memory, drawn exactly
(Dassios and Zhao 2013: the next event is the earlier of one from the base rate and one from the decaying excitation); a spontaneous one
buys with log-odds given by what the informed know; it walks the levels within an exponential reach past the touch. A **look** of the
makers: they pull levels that their (slightly old) view of the efficient price has overtaken, fill empty cells, change a quantity. A
**mark price** on a fixed clock, with funding.

Levels live in a ring of cells per side. Both sides use the same code on mirrored prices y = direction x ticks (direction +1 asks, -1
bids), so that the best level is always the lowest y.

Random numbers come from MRG32k3a (L'Ecuyer 1999, Operations Research 47:159-164): its arithmetic stays below 2^53, so both twins of the
kernel compute the same integers.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.jit import kernel
from mm_platform.tape.layout import COLUMNS, LAST, Kind

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

# the layout's kinds as plain numbers, which is what compiled code sees
DEPTH: Final = int(Kind.DEPTH)
TRADE: Final = int(Kind.TRADE)
CLEAR: Final = int(Kind.CLEAR)
SNAPSHOT: Final = int(Kind.SNAPSHOT)
TOP: Final = int(Kind.TOP)
MARK: Final = int(Kind.MARK)
FUNDING_PREDICTED: Final = int(Kind.FUNDING_PREDICTED)
FUNDING: Final = int(Kind.FUNDING)

RING: Final = 256  # cells a side that the ring can tell apart
SPARE_CELLS: Final = 8  # levels this far beyond `levels` may linger before they are pulled
REROLL_CELLS: Final = 12  # quantities change within this many cells of the touch
CANCEL_SHARE: Final = 0.25  # share of those changes that remove the level
KEPT_CELLS: Final = 24  # a market order never digs nearer than this to the far end
LEAST_EAGER: Final = 0.2  # takers against the drift still reach this share of the mean
LEAST_LEANING: Final = 0.15  # a level's mean quantity stays between this and 2 less this

# The most rows one event can write: the snapshot, or a look that replaces both windows.
ROWS_PER_EVENT: Final = 4 * RING + 64

# integer state
STARTED: Final = 0
LAST_NS: Final = 1
SEQ: Final = 2
TRADE_ID: Final = 3
NEXT_MARK: Final = 4
NEXT_EXCITED: Final = 5
LOCAL_DEPTH_NS: Final = 6
LOCAL_TRADE_NS: Final = 7
LOCAL_TOP_NS: Final = 8
LOCAL_MARK_NS: Final = 9
BEST_ASK: Final = 10  # cells; +1 on the bid side
BEST_BID: Final = 11
FAR_ASK: Final = 12
FAR_BID: Final = 13
TOLD_ASK_TICKS: Final = 14
TOLD_BID_TICKS: Final = 15
I_SIZE: Final = 16

# float state: seconds of the day, excitation in 1/s
NEXT_ORDER_S: Final = 0
NEXT_LOOK_S: Final = 1
EXCITED_AT_S: Final = 2
EXCITED_BUY: Final = 3
EXCITED_SELL: Final = 4
F_SIZE: Final = 5


class FlowParams(NamedTuple):
    """Numbers of `FlowSettings` and `MarketSettings` as the kernel uses them; times in s, distances relative, latency in ns."""

    day_start_ns: int
    base_rate_per_s: float
    branching_same: float
    branching_cross: float
    decay_per_s: float
    reach: float
    information: float
    eagerness: float
    sniping: float
    half_gap: float
    cell_ticks: int
    levels: int
    level_lots: float
    depth_growth: float
    lean: float
    refresh_s: float
    response_s: float
    refill_frac: float
    maker_lag_s: float
    latency_min_ns: float
    latency_range_ns: float
    step_s: float
    slot_s: float
    end_s: float
    mark_every_s: int
    marks_per_minute: int
    marks_per_stamp: int


class Latent(NamedTuple):
    """What drives the flow: efficient price [ticks] and drift on the `step_s` grid, regime factors per slot; mark and index
    price at every mark and funding rates (length 0 where the instrument has none)."""

    fair_ticks: Float64s
    drift_z: Float64s
    volatility: Float64s
    activity: Float64s
    mark_price: Float64s
    index_price: Float64s
    predicted_rate: Float64s
    funding_rate: Float64s


class FlowState(NamedTuple):
    """All state of one instrument: integers, floats, the book's ring (side 0 asks, 1 bids; 0 lots = empty), the random generator."""

    i: Int64s
    f: Float64s
    ticks: npt.NDArray[np.int64]
    lots: npt.NDArray[np.int64]
    rng: Int64s


class RowBuffer(NamedTuple):
    """Rows to be filled: `ints` (capacity x 8) in the order of `INT_COLUMNS`, `values` (capacity x 2) `value` and `aux`.

    Two arrays instead of ten: compiled calls pass every array by its parts, and ten would double the compile time.
    """

    ints: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


INT_COLUMNS: Final = ("exch_ts", "local_ts", "kind", "side", "flags", "price_ticks", "qty_lots", "seq")
FLAGS: Final = 4


def new_rng(seed: np.random.SeedSequence) -> Int64s:
    """State of MRG32k3a: three integers below each modulus, not all zero."""
    words = seed.generate_state(6, np.uint64)
    return np.array([1 + int(w) % (4294967086 if k < 3 else 4294944442) for k, w in enumerate(words)], dtype=np.int64)


def new_state(seed: np.random.SeedSequence, first_seq: int, first_trade_id: int) -> FlowState:
    """State before the first event of a day."""
    state = FlowState(
        np.zeros(I_SIZE, dtype=np.int64),
        np.zeros(F_SIZE),
        np.zeros((2, RING), dtype=np.int64),
        np.zeros((2, RING), dtype=np.int64),
        new_rng(seed),
    )
    state.i[SEQ] = first_seq
    state.i[TRADE_ID] = first_trade_id
    return state


def new_row_buffer(capacity: int) -> RowBuffer:
    """Room for `capacity` rows."""
    return RowBuffer(np.empty((capacity, len(INT_COLUMNS)), np.int64), np.empty((capacity, 2)))


def row_columns(out: RowBuffer, n: int) -> dict[str, npt.NDArray[np.generic]]:
    """The first `n` rows as columns of the tape's layout, copied."""
    columns: dict[str, npt.NDArray[np.generic]] = {name: out.ints[:n, i].astype(COLUMNS[name]) for i, name in enumerate(INT_COLUMNS)}
    columns["value"] = out.values[:n, 0].copy()
    columns["aux"] = out.values[:n, 1].copy()
    return columns


@kernel
def uniform(rng: Int64s) -> float:
    """Next number of MRG32k3a, strictly between 0 and 1."""
    a = (1403580 * int(rng[1]) - 810728 * int(rng[0])) % 4294967087
    b = (527612 * int(rng[5]) - 1370589 * int(rng[3])) % 4294944443
    rng[0] = rng[1]
    rng[1] = rng[2]
    rng[2] = a
    rng[3] = rng[4]
    rng[4] = rng[5]
    rng[5] = b
    d = int(a - b)
    if d <= 0:
        d += 4294967087
    return d * 2.328306549295728e-10


@kernel
def exponential(rng: Int64s) -> float:
    """Next exponential with mean 1."""
    return -math.log(uniform(rng))


@kernel
def fair_at(p: FlowParams, fair_ticks: Float64s, t_s: float) -> float:
    """Efficient price [ticks] at a second of the day, linear between grid points."""
    x = max(t_s, 0.0) / p.step_s
    at: int = min(int(x), fair_ticks.shape[0] - 2)
    low = float(fair_ticks[at])
    return low + (float(fair_ticks[at + 1]) - low) * (x - at)


@kernel
def arrival_ns(p: FlowParams, s: FlowState, stream: int, exch_ns: int) -> int:
    """When a message of a stream is seen: a skewed random latency, never before the stream's previous message."""
    u = uniform(s.rng)
    seen = max(exch_ns + int(p.latency_min_ns + p.latency_range_ns * u * u * u), int(s.i[stream]))
    s.i[stream] = seen
    return seen


@kernel
def put(out: RowBuffer, n: int, exch_ns: int, local_ns: int, kind: int, side: int, price_ticks: int, lots: int, seq: int) -> int:
    """Write a row without values; returns the next free place."""
    row = out.ints[n]
    row[0] = exch_ns
    row[1] = local_ns
    row[2] = kind
    row[3] = side
    row[FLAGS] = 0
    row[5] = price_ticks
    row[6] = lots
    row[7] = seq
    out.values[n, 0] = math.nan
    out.values[n, 1] = math.nan
    return n + 1


@kernel
def put_value(out: RowBuffer, n: int, exch_ns: int, local_ns: int, kind: int, seq: int, value: float, aux: float) -> int:
    """Write a row that carries values; a message of its own."""
    put(out, n, exch_ns, local_ns, kind, 0, 0, 0, seq)
    out.ints[n, FLAGS] = LAST
    out.values[n, 0] = value
    out.values[n, 1] = aux
    return n + 1


@kernel
def best_level(s: FlowState, book_side: int) -> int:
    """Tick of the best level of a side (0 asks, 1 bids); 0 when the side is empty."""
    if s.i[BEST_ASK + book_side] > s.i[FAR_ASK + book_side]:
        return 0
    return int(s.ticks[book_side, int(s.i[BEST_ASK + book_side]) % RING])


@kernel
def tighten(s: FlowState, book_side: int) -> None:
    """Move the best and far cell of a side inwards to levels that exist (best beyond far = empty)."""
    best = int(s.i[BEST_ASK + book_side])
    far = int(s.i[FAR_ASK + book_side])
    while best <= far and s.lots[book_side, best % RING] == 0:
        best += 1
    while far >= best and s.lots[book_side, far % RING] == 0:
        far -= 1
    s.i[BEST_ASK + book_side] = best
    s.i[FAR_ASK + book_side] = far


@kernel
def drift_at(p: FlowParams, drift_z: Float64s, t_s: float) -> float:
    """What the informed know at a second of the day, in standard deviations."""
    return float(drift_z[min(int(t_s / p.step_s), drift_z.shape[0] - 1)])


@kernel
def draw_lots(p: FlowParams, s: FlowState, book_side: int, distance_cells: int, drift: float) -> int:
    """Quantity of a new level: the mean of two exponentials, deeper levels larger, bids larger before a rise; at least one lot."""
    towards = 2 * book_side - 1
    leaning = min(max(1.0 + p.lean * towards * drift, LEAST_LEANING), 2.0 - LEAST_LEANING)
    mean = p.level_lots * leaning * (1.0 + p.depth_growth * distance_cells)
    return 1 + int(0.5 * mean * (exponential(s.rng) + exponential(s.rng)))


@kernel
def tell_top(p: FlowParams, s: FlowState, out: RowBuffer, n: int, exch_ns: int) -> int:
    """Best bid and ask as the venue's book ticker, when a best price moved; same update id as the depth message before it."""
    ask = best_level(s, 0)
    bid = best_level(s, 1)
    if ask == s.i[TOLD_ASK_TICKS] and bid == s.i[TOLD_BID_TICKS]:
        return n
    s.i[TOLD_ASK_TICKS] = ask
    s.i[TOLD_BID_TICKS] = bid
    if ask == 0 or bid == 0:
        return n
    local_ns = arrival_ns(p, s, LOCAL_TOP_NS, exch_ns)
    seq = int(s.i[SEQ])
    n = put(out, n, exch_ns, local_ns, TOP, 1, bid, int(s.lots[1, int(s.i[BEST_BID]) % RING]), seq)
    n = put(out, n, exch_ns, local_ns, TOP, -1, ask, int(s.lots[0, int(s.i[BEST_ASK]) % RING]), seq)
    out.ints[n - 1, FLAGS] = LAST
    return n


@kernel
def pull_overtaken(p: FlowParams, s: FlowState, out: RowBuffer, n: int, exch_ns: int, local_ns: int, book_side: int, first_y: int) -> int:
    """Remove levels nearer than `first_y` (mirrored ticks) and those too far out."""
    direction = 1 - 2 * book_side
    seq = int(s.i[SEQ])
    best = int(s.i[BEST_ASK + book_side])
    far = int(s.i[FAR_ASK + book_side])
    cell = best
    while cell <= far:
        slot = cell % RING
        if s.lots[book_side, slot] > 0:
            if direction * int(s.ticks[book_side, slot]) >= first_y:
                break
            s.lots[book_side, slot] = 0
            n = put(out, n, exch_ns, local_ns, DEPTH, -direction, int(s.ticks[book_side, slot]), 0, seq)
        cell += 1
    limit = first_y // p.cell_ticks + p.levels + SPARE_CELLS
    cell = far
    while cell > limit and cell >= best:
        slot = cell % RING
        if s.lots[book_side, slot] > 0:
            s.lots[book_side, slot] = 0
            n = put(out, n, exch_ns, local_ns, DEPTH, -direction, int(s.ticks[book_side, slot]), 0, seq)
        cell -= 1
    tighten(s, book_side)
    return n


@kernel
def fill_cells(
    p: FlowParams, s: FlowState, out: RowBuffer, n: int, exch_ns: int, local_ns: int, kind: int, book_side: int, first_y: int, drift: float
) -> int:
    """Put levels into empty cells from `first_y` (mirrored ticks) outwards; a snapshot fills all of them."""
    direction = 1 - 2 * book_side
    seq = int(s.i[SEQ])
    first = first_y // p.cell_ticks
    if s.i[BEST_ASK + book_side] > s.i[FAR_ASK + book_side]:
        s.i[BEST_ASK + book_side] = first + p.levels
        s.i[FAR_ASK + book_side] = first - 1
    for j in range(p.levels):
        slot = (first + j) % RING
        if kind == DEPTH:
            if s.lots[book_side, slot] > 0:
                continue
            # the last cell is filled for certain: a side is never left empty
            chance = p.refill_frac if 2 * j < p.levels else 0.5 * p.refill_frac
            if j + 1 < p.levels and uniform(s.rng) >= chance:
                continue
        low = max(first_y, (first + j) * p.cell_ticks)
        y = low + int(uniform(s.rng) * ((first + j + 1) * p.cell_ticks - low))
        s.ticks[book_side, slot] = direction * y
        s.lots[book_side, slot] = draw_lots(p, s, book_side, j, drift)
        n = put(out, n, exch_ns, local_ns, kind, -direction, direction * y, int(s.lots[book_side, slot]), seq)
        s.i[BEST_ASK + book_side] = min(int(s.i[BEST_ASK + book_side]), first + j)
        s.i[FAR_ASK + book_side] = max(int(s.i[FAR_ASK + book_side]), first + j)
    return n


@kernel
def change_a_level(p: FlowParams, s: FlowState, out: RowBuffer, n: int, exch_ns: int, local_ns: int, drift: float) -> int:
    """One level near the touch changes its quantity or leaves."""
    u = uniform(s.rng)
    book_side = 0 if u < 0.5 else 1
    v = uniform(s.rng)
    cell = int(s.i[BEST_ASK + book_side]) + int(REROLL_CELLS * v * v)
    w = uniform(s.rng)
    slot = cell % RING
    if cell >= s.i[FAR_ASK + book_side] or s.lots[book_side, slot] == 0:
        return n
    lots = draw_lots(p, s, book_side, cell - int(s.i[BEST_ASK + book_side]), drift) if w >= CANCEL_SHARE else 0
    s.lots[book_side, slot] = lots
    tighten(s, book_side)
    return put(out, n, exch_ns, local_ns, DEPTH, 2 * book_side - 1, int(s.ticks[book_side, slot]), lots, int(s.i[SEQ]))


@kernel
def makers_look(p: FlowParams, latent: Latent, s: FlowState, out: RowBuffer, n: int, t_s: float, exch_ns: int) -> int:
    """The makers bring their book in line with the efficient price as they see it; one depth message."""
    fair = fair_at(p, latent.fair_ticks, t_s - p.maker_lag_s)
    slot = min(int(t_s / p.slot_s), latent.volatility.shape[0] - 1)
    gap = fair * p.half_gap * float(latent.volatility[slot])
    ask_y = int(math.ceil(fair + gap))
    # strictly beyond the bids even where both sides round to the same tick
    bid_y = -min(int(math.floor(fair - gap)), ask_y - 1)
    drift = drift_at(p, latent.drift_z, t_s)
    first = n
    local_ns = arrival_ns(p, s, LOCAL_DEPTH_NS, exch_ns)
    s.i[SEQ] += 1
    # pull on both sides before filling either: the book is uncrossed after every single row
    for book_side in range(2):
        n = pull_overtaken(p, s, out, n, exch_ns, local_ns, book_side, ask_y if book_side == 0 else bid_y)
    for book_side in range(2):
        n = fill_cells(p, s, out, n, exch_ns, local_ns, DEPTH, book_side, ask_y if book_side == 0 else bid_y, drift)
    n = change_a_level(p, s, out, n, exch_ns, local_ns, drift)
    if n == first:
        s.i[SEQ] -= 1
        return n
    out.ints[n - 1, FLAGS] = LAST
    return tell_top(p, s, out, n, exch_ns)


@kernel
def market_order(p: FlowParams, s: FlowState, out: RowBuffer, n: int, exch_ns: int, direction: int, reach_ticks: float) -> int:
    """A taker of `direction` (+1 buys) walks the levels from the touch to `reach_ticks` past it; the last one it takes in part."""
    book_side = 0 if direction > 0 else 1
    best = int(s.i[BEST_ASK + book_side])
    if best > s.i[FAR_ASK + book_side]:
        return n
    limit_y = direction * int(s.ticks[book_side, best % RING]) + reach_ticks
    deepest = max(best, int(s.i[FAR_ASK + book_side]) - KEPT_CELLS)
    end = best
    for cell in range(best + 1, deepest + 1):
        slot = cell % RING
        if s.lots[book_side, slot] > 0:
            if direction * int(s.ticks[book_side, slot]) > limit_y:
                break
            end = cell
    u = uniform(s.rng)
    left = int(s.lots[book_side, end % RING])
    taken = min(1 + int(u * left), left)
    local_ns = arrival_ns(p, s, LOCAL_TRADE_NS, exch_ns)
    for cell in range(best, end + 1):
        slot = cell % RING
        lots = int(s.lots[book_side, slot])
        if lots > 0:
            s.i[TRADE_ID] += 1
            n = put(out, n, exch_ns, local_ns, TRADE, direction, int(s.ticks[book_side, slot]), lots if cell < end else taken, int(s.i[TRADE_ID]))
    out.ints[n - 1, FLAGS] = LAST
    local_ns = arrival_ns(p, s, LOCAL_DEPTH_NS, exch_ns)
    s.i[SEQ] += 1
    for cell in range(best, end + 1):
        slot = cell % RING
        lots = int(s.lots[book_side, slot])
        if lots > 0:
            s.lots[book_side, slot] = 0 if cell < end else lots - taken
            n = put(out, n, exch_ns, local_ns, DEPTH, -direction, int(s.ticks[book_side, slot]), int(s.lots[book_side, slot]), int(s.i[SEQ]))
    out.ints[n - 1, FLAGS] = LAST
    tighten(s, book_side)
    return tell_top(p, s, out, n, exch_ns)


@kernel
def schedule_order(p: FlowParams, latent: Latent, s: FlowState, t_s: float) -> None:
    """Draw the next market order's time and whether the base rate or the excitation brings it (Dassios and Zhao 2013, algorithm 3.1)."""
    slot = min(int(t_s / p.slot_s), latent.activity.shape[0] - 1)
    base = exponential(s.rng) / (p.base_rate_per_s * float(latent.activity[slot]))
    excited = float(s.f[EXCITED_BUY]) + float(s.f[EXCITED_SELL])
    e = exponential(s.rng)
    s.i[NEXT_EXCITED] = 0
    s.f[NEXT_ORDER_S] = t_s + base
    if excited > 0.0:
        d = 1.0 - p.decay_per_s * e / excited
        # d <= 0: the excitation dies out before it brings another
        if d > 0.0:
            wait = -math.log(d) / p.decay_per_s
            if wait < base:
                s.i[NEXT_EXCITED] = 1
                s.f[NEXT_ORDER_S] = t_s + wait


@kernel
def order_direction(p: FlowParams, latent: Latent, s: FlowState, t_s: float) -> int:
    """Side of the market order at hand: the informed choose for a spontaneous one, the side that excited it for the others."""
    u = uniform(s.rng)
    if s.i[NEXT_EXCITED] == 1:
        buy = float(s.f[EXCITED_BUY])
        return 1 if u * (buy + float(s.f[EXCITED_SELL])) < buy else -1
    odds = p.information * drift_at(p, latent.drift_z, t_s)
    ask = best_level(s, 0)
    bid = best_level(s, 1)
    if ask > 0 and bid > 0:
        mid = 0.5 * (ask + bid)
        odds += p.sniping * (fair_at(p, latent.fair_ticks, t_s) - mid) / mid
    # bounded so that exp cannot overflow
    odds = min(max(odds, -30.0), 30.0)
    return 1 if u * (1.0 + math.exp(-odds)) < 1.0 else -1


@kernel
def next_order(p: FlowParams, latent: Latent, s: FlowState, out: RowBuffer, n: int, t_s: float, exch_ns: int) -> int:
    """The market order that is due: choose its side, carry it out, excite the flow, draw the next."""
    keep = math.exp(-p.decay_per_s * (t_s - float(s.f[EXCITED_AT_S])))
    s.f[EXCITED_BUY] *= keep
    s.f[EXCITED_SELL] *= keep
    s.f[EXCITED_AT_S] = t_s
    direction = order_direction(p, latent, s, t_s)
    eager = max(1.0 + p.eagerness * direction * drift_at(p, latent.drift_z, t_s), LEAST_EAGER)
    reach = p.reach * eager * exponential(s.rng) * fair_at(p, latent.fair_ticks, t_s)
    n = market_order(p, s, out, n, exch_ns, direction, reach)
    same = EXCITED_BUY if direction > 0 else EXCITED_SELL
    cross = EXCITED_SELL if direction > 0 else EXCITED_BUY
    s.f[same] += p.branching_same * p.decay_per_s
    s.f[cross] += p.branching_cross * p.decay_per_s
    schedule_order(p, latent, s, t_s)
    s.f[NEXT_LOOK_S] = min(float(s.f[NEXT_LOOK_S]), t_s + p.response_s * exponential(s.rng))
    return n


@kernel
def next_mark(p: FlowParams, latent: Latent, s: FlowState, out: RowBuffer, n: int, exch_ns: int) -> int:
    """The mark price that is due, before it the funding settled at this stamp, after it once a minute the predicted rate."""
    m = int(s.i[NEXT_MARK])
    s.i[NEXT_MARK] = m + 1
    local_ns = arrival_ns(p, s, LOCAL_MARK_NS, exch_ns)
    mark = float(latent.mark_price[m])
    if m % p.marks_per_stamp == 0:
        n = put_value(out, n, exch_ns, local_ns, FUNDING, exch_ns, float(latent.funding_rate[m // p.marks_per_stamp]), mark)
    n = put_value(out, n, exch_ns, local_ns, MARK, -1, mark, float(latent.index_price[m]))
    if m % p.marks_per_minute == 0:
        stamp_ns = p.day_start_ns + (m // p.marks_per_stamp + 1) * p.marks_per_stamp * p.mark_every_s * 1_000_000_000
        n = put_value(out, n, exch_ns, local_ns, FUNDING_PREDICTED, stamp_ns, float(latent.predicted_rate[m // p.marks_per_minute]), mark)
    return n


@kernel
def open_day(p: FlowParams, latent: Latent, s: FlowState, out: RowBuffer) -> int:
    """Midnight: the whole book as a snapshot (after a clear), excitation at its mean, the first events drawn."""
    fair = fair_at(p, latent.fair_ticks, 0.0)
    gap = fair * p.half_gap * float(latent.volatility[0])
    ask_y = int(math.ceil(fair + gap))
    bid_y = -min(int(math.floor(fair - gap)), ask_y - 1)
    drift = drift_at(p, latent.drift_z, 0.0)
    exch_ns = p.day_start_ns
    local_ns = arrival_ns(p, s, LOCAL_DEPTH_NS, exch_ns)
    s.i[SEQ] += 1
    n = put(out, 0, exch_ns, local_ns, CLEAR, 0, 0, 0, int(s.i[SEQ]))
    for book_side in range(2):
        # best beyond far: empty
        s.i[BEST_ASK + book_side] = 1
        s.i[FAR_ASK + book_side] = 0
        n = fill_cells(p, s, out, n, exch_ns, local_ns, SNAPSHOT, book_side, ask_y if book_side == 0 else bid_y, drift)
    out.ints[n - 1, FLAGS] = LAST
    n = tell_top(p, s, out, n, exch_ns)
    branching = p.branching_same + p.branching_cross
    mean = 0.5 * branching * p.base_rate_per_s * float(latent.activity[0]) / (1.0 - branching)
    s.f[EXCITED_BUY] = mean
    s.f[EXCITED_SELL] = mean
    schedule_order(p, latent, s, 0.0)
    s.f[NEXT_LOOK_S] = p.refresh_s * exponential(s.rng)
    s.i[LAST_NS] = exch_ns
    s.i[STARTED] = 1
    return n


@kernel
def advance_flow(p: FlowParams, latent: Latent, s: FlowState, out: RowBuffer, until_s: float) -> int:
    """All events before `until_s` (second of the day), or as many as surely fit into `out`.

    Returns the number of rows written; call again while it is above 0. Where a caller cuts does not change what happens.
    """
    n = 0
    room = out.ints.shape[0] - ROWS_PER_EVENT
    if s.i[STARTED] == 0 and until_s > 0.0:
        n = open_day(p, latent, s, out)
    stop = min(until_s, p.end_s)
    while n < room:
        order_s = float(s.f[NEXT_ORDER_S])
        look_s = float(s.f[NEXT_LOOK_S])
        mark_s = float(s.i[NEXT_MARK] * p.mark_every_s)
        if s.i[NEXT_MARK] >= latent.mark_price.shape[0]:
            mark_s = math.inf
        t_s = min(order_s, look_s, mark_s)
        if t_s >= stop:
            break
        exch_ns = max(p.day_start_ns + int(t_s * 1e9), int(s.i[LAST_NS]))
        s.i[LAST_NS] = exch_ns
        if mark_s <= t_s:
            n = next_mark(p, latent, s, out, n, exch_ns)
        elif order_s <= t_s:
            n = next_order(p, latent, s, out, n, t_s, exch_ns)
        else:
            n = makers_look(p, latent, s, out, n, t_s, exch_ns)
            s.f[NEXT_LOOK_S] = t_s + p.refresh_s * exponential(s.rng)
    return n
