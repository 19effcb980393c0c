"""THEORY section 9 in exact arithmetic: identities I1 to I4 on its vector and on random tapes of all three contracts, the two-venue split, and the
field's reference engine on fees, balance and position.

Everything expected here is computed with Fractions from prices and sizes, never from the ledger's own integers.
"""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.accounting import (
    CASH,
    FEES,
    FUNDING,
    HEDGE,
    INVENTORY,
    MAKER_FILLS,
    NANO,
    POSITION,
    SPREAD,
    TAKER_FILLS,
    Int64s,
    attribution,
    identity_residual_quanta,
    ledger_fill,
    ledger_funding,
    ledger_mark,
    money_of,
    new_ledger,
    quantum_of,
)
from mm_platform.kernels.hedge_pnl import (
    HedgeAttribution,
    PairUnits,
    hedge_attribution,
    matched_units,
    new_pair,
    pair_fill,
    pair_mark,
    pair_units,
)
from mm_platform.kernels.money import Money, worth_quanta

LINEAR = InstrumentSpec(
    instrument="sim:BTC-USDT-PERP",
    tick_size="0.1",
    lot_size="0.001",
    multiplier="10",
    contract="linear",
    maker_fee=-0.0002,
    taker_fee=0.0005,
)
SPOT = InstrumentSpec(instrument="sim:BTC-USDT", tick_size="0.01", lot_size="0.0001", contract="spot", maker_fee=0.001, taker_fee=0.001)
INVERSE = InstrumentSpec(
    instrument="sim:BTC-USD-PERP", tick_size="0.1", lot_size="1", multiplier="100", contract="inverse", maker_fee=-0.0001, taker_fee=0.0005
)
SPECS = {"linear": LINEAR, "spot": SPOT, "inverse": INVERSE}


def true_worth(spec: InstrumentSpec, price: Fraction) -> Fraction:
    """What one lot is worth at a price, in the currency that the contract pays in; profit is lots x change of it."""
    size = Fraction(spec.lot) * Fraction(spec.multiplier)
    return -size / price if spec.contract == "inverse" else size * price


@dataclass
class Book:
    """An account kept in Fractions: cash, position, every event with the mids around it."""

    spec: InstrumentSpec
    cash: Fraction = Fraction(0)
    lots: int = 0
    mid: Fraction = Fraction(0)
    spread: Fraction = Fraction(0)
    crossing: Fraction = Fraction(0)
    inventory: Fraction = Fraction(0)
    fills: list[tuple[int, int, Fraction]] = field(default_factory=list)

    def move(self, mid: Fraction) -> None:
        if self.mid:
            self.inventory += self.lots * (true_worth(self.spec, mid) - true_worth(self.spec, self.mid))
        self.mid = mid

    def trade(self, side: int, lots: int, price: Fraction, maker: int) -> None:
        edge = side * lots * (true_worth(self.spec, self.mid) - true_worth(self.spec, price))
        self.spread += edge if maker else 0
        self.crossing += 0 if maker else edge
        self.cash -= side * lots * true_worth(self.spec, price)
        self.lots += side * lots
        self.fills.append((side, lots, self.mid))

    @property
    def trading(self) -> Fraction:
        return self.cash + self.lots * true_worth(self.spec, self.mid)


def tolerance(spec: InstrumentSpec, lots_traded: int) -> Fraction:
    """How far the integers may be from the truth: nothing, but for an inverse lot half a quantum at either end of a move."""
    return lots_traded * quantum_of(spec) if spec.contract == "inverse" else Fraction(0)


def random_tape(spec: InstrumentSpec, seed: int, events: int) -> tuple[Int64s, Book, Fraction, Fraction, int]:
    rng = np.random.default_rng(seed)
    money, ledger, book = money_of(spec), new_ledger(), Book(spec)
    tick = Fraction(spec.tick)
    mid = int(rng.integers(200_000, 2_000_000))
    fees = funding = Fraction(0)
    turnover = 0
    for _ in range(events):
        mid += int(rng.integers(-300, 301))
        what = rng.random()
        if what < 0.45:
            ledger_mark(ledger, money, mid)
            book.move(mid * tick / 2)
        elif what < 0.95:
            side, lots, maker = int(rng.choice([1, -1])), int(rng.integers(1, 40)), int(rng.random() < 0.7)
            price = mid // 2 + int(rng.integers(-20, 21))
            book.move(mid * tick / 2)
            book.trade(side, lots, price * tick, maker)
            fees += Fraction(int(ledger_fill(ledger, money, side, price, lots, maker, mid)), NANO)
            turnover += 2 * lots
        elif book.mid:
            rate = float(rng.normal(0.0, 1e-4))
            size = book.lots * true_worth(spec, book.mid)
            got = Fraction(int(ledger_funding(ledger, money, rate, math.nan)), NANO)
            # longs pay: -q P rate in quote, -(n / P) rate in base for an inverse contract, whose worth is negative already
            expected = size * Fraction(rate) * (1 if spec.contract == "inverse" else -1)
            assert abs(got - expected) <= Fraction(1, NANO)
            funding += got
    return ledger, book, fees, funding, turnover


@pytest.mark.parametrize("contract", SPECS)
@pytest.mark.parametrize("block", range(3))
def test_every_part_of_i1_on_random_tapes(contract: str, block: int) -> None:
    """75 tapes a contract, 200 events each: parts, total and balance equal an account kept in Fractions."""
    spec = SPECS[contract]
    quantum = quantum_of(spec)
    for seed in range(25 * block, 25 * block + 25):
        check_i1(spec, quantum, *random_tape(spec, seed, 200))


def check_i1(spec: InstrumentSpec, quantum: Fraction, ledger: Int64s, book: Book, fees: Fraction, funding: Fraction, turnover: int) -> None:
    near = tolerance(spec, turnover)
    assert ledger[POSITION] == book.lots
    assert identity_residual_quanta(ledger) == 0
    for place, expected in ((SPREAD, book.spread), (HEDGE, book.crossing), (INVENTORY, book.inventory), (CASH, book.cash)):
        assert abs(int(ledger[place]) * quantum - expected) <= near
    assert Fraction(int(ledger[FEES]), NANO) == fees
    assert Fraction(int(ledger[FUNDING]), NANO) == funding
    # I1 in the ledger's own integers has no tolerance; against the truth the parts sum to what cash and position say
    parts = attribution(ledger, spec)
    assert parts.residual_quanta == 0
    assert parts.total_pnl == pytest.approx(float(book.trading - fees + funding), rel=1e-9, abs=float(near) + 1e-9)
    # I2: the same inventory profit, fill by fill to the end
    by_fill = sum((s * n * (true_worth(spec, book.mid) - true_worth(spec, mid)) for s, n, mid in book.fills), Fraction(0))
    assert by_fill == book.inventory


@dataclass(frozen=True)
class Cut:
    """A horizon in events, and what the sheet says of it."""

    horizon: int
    adverse: str
    residual: str
    hedge: str


@pytest.mark.parametrize("cut", [Cut(1, "-0.04", "0.07", "-0.02"), Cut(3, "-0.09", "0.12", "-0.02"), Cut(10, "0.03", "0", "-0.02")])
def test_the_sheets_markouts_sum_to_its_inventory(cut: Cut) -> None:
    """I3 on the sheet's vector: adverse selection to the horizon, residual inventory beyond it, drift of the hedge."""
    spec = msgspec.structs.replace(SPOT, lot_size="1")
    money, ledger = money_of(spec, maker_fee=0.0, taker_fee=0.0), new_ledger()
    # events in order; `None` moves the mid, else (side, lots, price, maker)
    events: list[tuple[int, tuple[int, int, int, int] | None]] = [
        (20_000, (1, 2, 9_999, 1)),
        (19_996, None),
        (19_996, (-1, 1, 10_000, 1)),
        (19_996, None),  # the funding stamp is an event of the sheet's clock
        (20_006, None),
        (20_006, (-1, 1, 10_001, 0)),
        (20_010, None),
    ]
    mids = [mid for mid, _ in events]
    # past the end there is only the last mid
    adverse = residual = hedge = 0
    for at, (mid, fill) in enumerate(events):
        if fill is None:
            ledger_mark(ledger, money, mid)
            continue
        side, lots, price, maker = fill
        ledger_fill(ledger, money, side, price, lots, maker, mid)
        then = mids[min(at + cut.horizon, len(mids) - 1)]
        if maker:
            adverse += side * lots * (then - mid)
            residual += side * lots * (mids[-1] - then)
        else:
            hedge += side * lots * (mids[-1] - mid)
    half = Fraction(1, 200)
    assert (adverse * half, residual * half, hedge * half) == (Fraction(cut.adverse), Fraction(cut.residual), Fraction(cut.hedge))
    assert adverse + residual + hedge == ledger[INVENTORY]
    assert int(ledger[INVENTORY]) * half == Fraction("0.01")


def test_the_sheets_average_cost_vector() -> None:
    """I4: buys 2 at 100 and 1 at 103, sells 2 at 105 and 2 at 99, buys 1 at 98: 7 in hand, flat; no cost convention enters the ledger."""
    spec = msgspec.structs.replace(SPOT, lot_size="1")
    money, ledger = money_of(spec, maker_fee=0.0), new_ledger()
    for side, lots, price in ((1, 2, 10_000), (1, 1, 10_300), (-1, 2, 10_500), (-1, 2, 9_900), (1, 1, 9_800)):
        ledger_fill(ledger, money, side, price, lots, 1, 2 * price)
    assert ledger[POSITION] == 0
    assert attribution(ledger, spec).total_pnl == 7.0


# -- two venues --------------------------------------------------------------------------------------------------------------------------


def pair_tape(quote_spec: InstrumentSpec, hedge_spec: InstrumentSpec, seed: int, events: int, *, compiled: bool = False) -> tuple[Any, ...]:
    """A quoted position and its hedge through the pair kernels, and beside them a split made from the definitions, in Fractions."""
    rng = np.random.default_rng(seed)
    mark, fill = (pair_mark.compiled, pair_fill.compiled) if compiled else (pair_mark, pair_fill)
    specs, moneys = (quote_spec, hedge_spec), (money_of(quote_spec), money_of(hedge_spec))
    units, pair, ledgers, books = pair_units(*specs), new_pair(), (new_ledger(), new_ledger()), (Book(quote_spec), Book(hedge_spec))
    ticks = [Fraction(s.tick) for s in specs]
    size = [Fraction(s.lot) * Fraction(s.multiplier) for s in specs]
    per_unit = [lambda price, s=s, z=z: true_worth(s, price) / z for s, z in zip(specs, size, strict=True)]
    centre = int(rng.integers(30_000, 60_000))
    mids = [int(2 * centre / t) for t in ticks]
    basis = delay = Fraction(0)

    def move_to(new: list[int]) -> None:
        nonlocal basis
        old = [b.mid for b in books]
        q, h = (b.lots * z for b, z in zip(books, size, strict=True))
        matched = Fraction(0)
        if q * h < 0:
            matched = min(abs(q), abs(h)) * (1 if h > 0 else -1)
        now = [n * t / 2 for n, t in zip(new, ticks, strict=True)]
        if all(old):
            basis += matched * ((per_unit[1](now[1]) - per_unit[1](old[1])) - (per_unit[0](now[0]) - per_unit[0](old[0])))
        for book, mid in zip(books, now, strict=True):
            book.move(mid)

    turnover = [0, 0]
    for _ in range(events):
        step = int(rng.integers(-40, 41))
        mids = [max(m + int(step / t) + int(rng.integers(-9, 10)), 1000) for m, t in zip(mids, ticks, strict=True)]
        what = rng.random()
        if what < 0.4:
            move_to(mids)
            mark(pair, units, ledgers[0], moneys[0], mids[0], ledgers[1], moneys[1], mids[1])
        elif what < 0.95:
            where = int(rng.random() < 0.4)
            maker = 1 - where
            # hedges lean against the net, quotes go either way
            net = sum(b.lots * z for b, z in zip(books, size, strict=True))
            side = int(rng.choice([1, -1])) if where == 0 or net == 0 else (-1 if net > 0 else 1)
            lots = int(rng.integers(1, 30))
            price = mids[where] // 2 + int(rng.integers(-20, 21))
            decided = mids[where] + int(rng.integers(-60, 61))
            move_to(mids)
            books[where].trade(side, lots, price * ticks[where], maker)
            turnover[where] += 2 * lots
            if where == 1:
                delay += side * lots * size[1] * (per_unit[1](decided * ticks[1] / 2) - per_unit[1](mids[1] * ticks[1] / 2))
            fill(
                pair, units, ledgers[0], moneys[0], mids[0], ledgers[1], moneys[1], mids[1], where, side, price, lots, maker, decided if where else 0
            )
        else:
            where = int(rng.random() < 0.5)
            ledger_funding(ledgers[where], moneys[where], float(rng.normal(0.0, 1e-4)), math.nan)
    return pair, ledgers, books, basis, delay, turnover


def check_pair(quote_spec: InstrumentSpec, hedge_spec: InstrumentSpec, tape: tuple[Any, ...]) -> HedgeAttribution:
    pair, ledgers, books, basis, delay, turnover = tape
    parts = hedge_attribution(pair, ledgers[0], quote_spec, ledgers[1], hedge_spec)
    near = tolerance(quote_spec, 20 * turnover[0]) + tolerance(hedge_spec, 20 * turnover[1])
    assert parts.residual_quanta == 0
    assert abs(parts.spread - books[0].spread) <= near
    assert abs(parts.crossing - books[1].crossing) <= near
    assert abs(parts.delay - delay) <= near
    assert abs(parts.basis - basis) <= near
    assert abs(parts.open_inventory - (books[0].inventory + books[1].inventory - basis - delay)) <= near
    # the identity is exact for every contract: the split sums to what the two ledgers hold
    held = Fraction(0)
    for ledger, spec in zip(ledgers, (quote_spec, hedge_spec), strict=True):
        held += (int(ledger[SPREAD]) + int(ledger[HEDGE]) + int(ledger[INVENTORY])) * quantum_of(spec)
        held += Fraction(int(ledger[FUNDING]) - int(ledger[FEES]), NANO)
    assert parts.total == held
    assert abs(parts.total - sum(b.trading for b in books) + parts.quote_fees + parts.hedge_fees - parts.quote_funding - parts.hedge_funding) <= near
    return parts


OTHER_INVERSE = msgspec.structs.replace(INVERSE, instrument="other:BTC-USD-PERP", multiplier="30", tick_size="0.5")
PAIRS = {
    "linear by spot": (LINEAR, SPOT),
    "spot by linear": (SPOT, LINEAR),
    "odd lots": (LINEAR, msgspec.structs.replace(SPOT, lot_size="0.00015")),
    "inverse by inverse": (INVERSE, OTHER_INVERSE),
}


@pytest.mark.parametrize("which", PAIRS)
def test_the_two_venue_split_on_random_tapes(which: str) -> None:
    """60 tapes of 150 events a pair: crossing, delay, basis and what stayed open equal the definitions, and sum exactly."""
    quote_spec, hedge_spec = PAIRS[which]
    seen = [Fraction(0)] * 4
    for seed in range(60):
        parts = check_pair(quote_spec, hedge_spec, pair_tape(quote_spec, hedge_spec, seed, 150))
        seen = [s + abs(x) for s, x in zip(seen, (parts.crossing, parts.delay, parts.basis, parts.open_inventory), strict=True)]
    assert all(seen)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), events=st.integers(0, 60), which=st.sampled_from(list(PAIRS)))
def test_the_two_venue_split_holds_at_any_cut(seed: int, events: int, which: str) -> None:
    quote_spec, hedge_spec = PAIRS[which]
    tape = pair_tape(quote_spec, hedge_spec, seed, events)
    check_pair(quote_spec, hedge_spec, tape)
    twin = pair_tape(quote_spec, hedge_spec, seed, events, compiled=True)
    assert tape[0].tobytes() == twin[0].tobytes()
    assert [x.tobytes() for x in tape[1]] == [x.tobytes() for x in twin[1]]


def test_a_hedge_by_hand() -> None:
    """Long 1 at mid 100; decided to sell at a mid of 101, sold at 100.4 with the mid at 100.5; then basis widens by 0.3 and the market falls by 2.

    Crossing -0.1, delay -0.5, basis: short 1 x (+0.3). Open: while unhedged the quote venue's mid went 100 -> 100.6 (+0.6), less the delay: +1.1.
    """
    spec = msgspec.structs.replace(SPOT, lot_size="1", tick_size="0.1")
    other = msgspec.structs.replace(spec, instrument="other:BTC-USDT")
    money, units = money_of(spec, maker_fee=0.0, taker_fee=0.0), pair_units(spec, other)
    pair, quote, hedge = new_pair(), new_ledger(), new_ledger()
    pair_fill(pair, units, quote, money, 2_000, hedge, money, 2_000, 0, 1, 999, 1, 1, 0)
    pair_fill(pair, units, quote, money, 2_012, hedge, money, 2_010, 1, -1, 1_004, 1, 0, 2_020)
    pair_mark(pair, units, quote, money, 1_972, hedge, money, 1_976)
    parts = hedge_attribution(pair, quote, spec, hedge, other)
    tenth = Fraction(1, 10)
    assert (parts.spread, parts.crossing, parts.delay, parts.basis, parts.open_inventory) == (
        tenth,
        -tenth,
        -5 * tenth,
        -3 * tenth,
        11 * tenth,
    )
    # bought at 99.9, sold at 100.4; the legs stand at 98.6 and 98.8
    assert parts.total == Fraction("0.5") - Fraction("0.2")
    assert parts.hedge_leg == -9 * tenth


@pytest.mark.parametrize(
    ("quote", "hedge", "matched"), [(3, -5, -3), (5, -3, -3), (-5, 3, 3), (-3, 5, 3), (4, 4, 0), (0, 4, 0), (-4, 0, 0), (-4, -4, 0)]
)
def test_matched_is_what_stands_against_each_other(quote: int, hedge: int, matched: int) -> None:
    assert matched_units(PairUnits(1, 1), quote, hedge) == matched
    assert matched_units(PairUnits(2, 3), 3 * quote, 2 * hedge) == 6 * matched
    assert matched_units.compiled(PairUnits(1, 1), quote, hedge) == matched


def test_units_and_currencies() -> None:
    # 0.01 base a lot against 0.0001, and against 0.00015
    assert pair_units(LINEAR, SPOT) == PairUnits(100, 1)
    assert pair_units(LINEAR, msgspec.structs.replace(SPOT, lot_size="0.00015")) == PairUnits(200, 3)
    with pytest.raises(ConfigError, match="pays in USDT.*inverse and pays in BTC"):
        pair_units(LINEAR, INVERSE)
    usdc = msgspec.structs.replace(LINEAR, instrument="other:BTC-USDC-PERP")
    pair, one, two = new_pair(), new_ledger(), new_ledger()
    pair_fill(pair, pair_units(LINEAR, usdc), one, money_of(LINEAR), 1_000_000, two, money_of(usdc), 1_000_000, 1, 1, 500_010, 7, 0, 999_000)
    with pytest.raises(ConfigError, match="what one USDC is worth in USDT"):
        hedge_attribution(pair, one, LINEAR, two, usdc)
    par = hedge_attribution(pair, one, LINEAR, two, usdc, hedge_currency_rate=Fraction(1))
    rich = hedge_attribution(pair, one, LINEAR, two, usdc, hedge_currency_rate=Fraction(101, 100))
    assert par.crossing == -Fraction("0.07")
    assert (rich.crossing, rich.delay, rich.hedge_fees, rich.currency) == (
        par.crossing * Fraction(101, 100),
        par.delay * Fraction(101, 100),
        par.hedge_fees * Fraction(101, 100),
        "USDT",
    )
    assert rich.total == par.total * Fraction(101, 100)


# -- the field's reference engine --------------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("name", ["23_fees_linear", "24_fees_inverse"])
def test_fees_balance_and_position_of_the_golden_cases(shared: Path, name: str) -> None:
    """Every recorded run's fills through the ledger give its fee, balance and position; its balance of an inverse contract has the other sign."""
    path = shared / "golden" / f"{name}.json"
    case = json.loads(path.read_text() if path.is_file() else gzip.decompress((path.parent / f"{name}.json.gz").read_bytes()))
    config = case["config"]
    spec = InstrumentSpec(
        instrument="golden:BTC-USD-PERP",
        tick_size=str(case["tick_size"]),
        lot_size=str(case["lot_size"]),
        multiplier=str(config["contract_size"]),
        contract="inverse" if config["inverse"] else "linear",
        maker_fee=config["maker_fee"],
        taker_fee=config["taker_fee"],
    )
    compared = 0
    for run in case["runs"]:
        if not run["stable"] or run["exchange"] != "NoPartialFill":
            continue
        ledger, paid = golden_ledger(spec, run["fills"])
        balance = int(ledger[CASH]) * quantum_of(spec) * (-1 if config["inverse"] else 1)
        final = run["final"]
        assert float(balance) == pytest.approx(final["balance"], rel=1e-12)
        assert float(Fraction(int(ledger[FEES]), NANO)) == pytest.approx(final["fee"], abs=1e-12)
        assert float(spec.lots_to_decimal(int(ledger[POSITION]))) == pytest.approx(final["position"], rel=1e-12)
        assert ledger[MAKER_FILLS] + ledger[TAKER_FILLS] == final["num_trades"]
        # the fees are not zero apart, whatever they sum to
        assert [paid[0] < 0, paid[1] > 0] == [True, True]
        compared += 1
    assert compared == 12


def golden_ledger(spec: InstrumentSpec, fills: list[dict[str, Any]]) -> tuple[Int64s, list[int]]:
    money: Money = money_of(spec)
    ledger = new_ledger()
    paid = []
    for f in fills:
        price = spec.price_to_ticks(str(f["price"]))
        side = 1 if f["side"] == "buy" else -1
        paid.append(int(ledger_fill(ledger, money, side, price, spec.qty_to_lots(str(f["qty"])), int(f["maker"]), 2 * price)))
    assert worth_quanta(money, 2_000) != 0
    return ledger, paid
