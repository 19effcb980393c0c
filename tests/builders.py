"""Small hand-made markets for tests."""

from __future__ import annotations

import math

import numpy as np

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.hedging import HedgeParams
from mm_platform.kernels.orders import OrderPolicy
from mm_platform.kernels.quoting import QuoteParams
from mm_platform.kernels.risk import RiskParams
from mm_platform.tape.layout import COLUMNS, LAST, Kind, Tape

T0 = 1_700_000_000 * NS_PER_S
SPEC = InstrumentSpec(
    instrument="sim:BTC-USDT-PERP",
    tick_size="0.1",
    lot_size="0.001",
    contract="linear",
    maker_fee=0.0001,
    taker_fee=0.0004,
    funding_interval_s=28_800,
)
FEED_NS = 5 * NS_PER_MS


class TapeBuilder:
    """Rows appended in venue order; the trader sees each `feed_ns` later."""

    def __init__(self, spec: InstrumentSpec = SPEC, feed_ns: int = FEED_NS) -> None:
        self.spec, self.feed_ns = spec, feed_ns
        self.rows: list[tuple[float, ...]] = []
        self.now = T0

    def row(
        self, kind: Kind, side: int, flags: int, price: int, lots: int, seq: int = -1, value: float = math.nan, aux: float = math.nan
    ) -> TapeBuilder:
        self.rows.append((self.now, self.now + self.feed_ns, kind, side, flags, price, lots, seq, value, aux))
        return self

    def at(self, seconds: float) -> TapeBuilder:
        self.now = T0 + round(seconds * NS_PER_S)
        return self

    def book(self, bid: int = 1000, ask: int = 1002, lots: int = 10, depth: int = 5) -> TapeBuilder:
        for d in range(depth):
            self.row(Kind.DEPTH, 1, 0, bid - d, lots + d)
        for d in range(depth):
            self.row(Kind.DEPTH, -1, LAST if d == depth - 1 else 0, ask + d, lots + d)
        return self

    def level(self, side: int, price: int, lots: int, last: bool = True) -> TapeBuilder:
        return self.row(Kind.DEPTH, side, LAST if last else 0, price, lots)

    def trade(self, side: int, price: int, lots: int, flags: int = 0) -> TapeBuilder:
        return self.row(Kind.TRADE, side, flags, price, lots)

    def funding(self, rate: float, mark: float) -> TapeBuilder:
        return self.row(Kind.FUNDING, 0, 0, 0, 0, self.now, rate, mark)

    def tape(self, sha256: str = "test") -> Tape:
        columns = {
            name: np.array([row[i] for row in self.rows]).astype(dtype)
            if dtype == np.float64
            else np.array([int(row[i]) for row in self.rows], dtype=dtype)
            for i, (name, dtype) in enumerate(COLUMNS.items())
        }
        return Tape.from_columns(self.spec, columns, sha256=sha256)


def random_tape(rows: int, seed: int, *, spec: InstrumentSpec = SPEC, mid: int = 500_000, mean_gap_ms: float = 50.0) -> Tape:
    """A random walk with depth, prints at the touch and prints that move it; crude, but everything happens."""
    rng = np.random.default_rng(seed)
    build = TapeBuilder(spec)
    build.book(mid - 1, mid + 1, 20, 10)
    t = 0.0
    while len(build.rows) < rows:
        t += float(rng.exponential(mean_gap_ms / 1000))
        build.at(t)
        what, side = rng.random(), int(rng.choice([1, -1]))
        if what < 0.25:
            build.trade(side, mid + side, int(rng.integers(1, 40)))
            build.level(-side, mid + side, int(rng.integers(1, 30)))
        elif what < 0.35:
            build.trade(side, mid + side, int(rng.integers(1, 40)))
            build.level(-side, mid + side, 0, last=False).level(side, mid, int(rng.integers(1, 30)), last=False)
            build.level(-side, mid + 11 * side, 20, last=False).level(side, mid - 10 * side, 0)
            mid += side
        else:
            build.level(side, mid - side * int(rng.integers(1, 11)), int(rng.integers(1, 50)))
    return build.tape(f"random-{rows}-{seed}")


def decision_params(
    spec: InstrumentSpec = SPEC,
    *,
    gamma: float = 0.1,
    k: float = 2_000_000.0,
    threshold: float = math.inf,
    order_lots: int = 10,
    position_lots: int = 100,
    refresh_s: float = 1.0,
    tolerance_ticks: int = 0,
    risk: RiskParams | None = None,
    orders_per_s: float = 10.0,
) -> DecisionParams:
    """A maker near the touch with small size."""
    unit = order_lots * spec.lot_base
    return DecisionParams(
        QuoteParams(gamma, 0.2, 1 / 365, 1, 1.0, 1.0, k, k, unit, 0.0, position_lots * spec.lot_base, 1.0, 0.0, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0),
        HedgeParams(threshold, 0.0, 1.0, spec.lot_base, 60.0, 0),
        risk or RiskParams(10 * order_lots, position_lots, math.inf, 0, 0, math.inf, math.inf, math.inf),
        OrderPolicy(order_lots, round(refresh_s * NS_PER_S), tolerance_ticks, NS_PER_S, orders_per_s, 50.0, 0, 50),
        money_of(spec),
    )
