"""The funding scan's arithmetic: rates summed up per instrument, trades between them with costs in.

Belongs here: histories and prices in, summaries and scanned trades out; no lake, no files. Does not belong here: the decision on one perp
against its spot market (`funding_arbitrage`), formulas (`kernels.funding`).

What a trade is expected to earn is the smaller of the latest rate and the mean over the holding time before it (over what there is, where
the history is shorter); if their signs differ, nothing. The latest rate alone chases spikes, the mean alone trades on what is over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from mm_platform.config import Funding
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import HOURS_PER_YEAR
from mm_platform.decode.funding_csv import NS_PER_HOUR, FundingHistory
from mm_platform.funding_arbitrage import CarryCost, FundingArbitrage
from mm_platform.kernels.funding import apr_step, apy_step, break_even_settlements, rate_8h_step

MEAN_WINDOWS_D: Final = (7, 30, 365)
# perpetual venue -> where its spot market is; venues that are not here have the spot market under the same id, None: they have none
_SPOT_VENUE: Final[Mapping[str, str | None]] = {"binanceusdm": "binance", "kucoinfutures": "kucoin", "dydx": None, "hyperliquid": None}


@dataclass(frozen=True, slots=True)
class InstrumentFunding:
    """One perpetual's rates summed up.

    Parameters
    ----------
    stamps : int
        Settlements known.
    first_ns, last_ns : int
        UTC ns of the first and last.
    interval_h, last_rate, apr, apy, rate_8h
        Of the last settlement: hours, per interval, per year without and with compounding, per 8 hours.
    predicted_rate, predicted_ns : float, int or None
        The venue's prediction for a stamp after the last.
    mean_apr : dict of int to float
        Mean of what was settled in the last 7, 30, 365 days before `last_ns`, per year without compounding; NaN where the history is shorter.
    positive_frac : float
        Share of settlements that paid shorts.
    gaps, missing, largest_gap_h, irregular
        As `FundingHistory`.
    """

    instrument: InstrumentId
    stamps: int
    first_ns: int
    last_ns: int
    interval_h: float
    last_rate: float
    apr: float
    apy: float
    rate_8h: float
    predicted_rate: float | None
    predicted_ns: int | None
    mean_apr: dict[int, float]
    positive_frac: float
    gaps: int
    missing: int
    largest_gap_h: float
    irregular: int


@dataclass(frozen=True, slots=True)
class ScannedTrade:
    """One row of `opportunities`; see the field registry for units."""

    ts_ns: int
    kind: Literal["cash_and_carry", "cross_venue"]
    long_instrument: InstrumentId
    short_instrument: InstrumentId
    rate_8h: float
    apr: float
    basis_frac: float | None
    cost_frac: float
    holding_h: float
    break_even_h: float | None
    net_apr: float
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Perp:
    """What the scan knows of one perpetual.

    `predicted`: stamp (UTC ns) and rate of the venue's prediction. `price`, `spot_price`: mids at `price_ns`, None where the lake has none.
    """

    instrument: InstrumentId
    history: FundingHistory
    predicted: tuple[int, float] | None = None
    price: float | None = None
    spot_price: float | None = None
    price_ns: int | None = None


def summarise(perp: Perp) -> InstrumentFunding:
    """The rates of one perpetual in a row."""
    h = perp.history
    interval, rate, last = float(h.intervals_h[-1]), float(h.rates[-1]), int(h.stamps_ns[-1])
    return InstrumentFunding(
        instrument=perp.instrument,
        stamps=len(h),
        first_ns=int(h.stamps_ns[0]),
        last_ns=last,
        interval_h=interval,
        last_rate=rate,
        apr=apr_step(rate, interval),
        apy=apy_step(rate, interval),
        rate_8h=rate_8h_step(rate, interval),
        predicted_rate=None if perp.predicted is None else perp.predicted[1],
        predicted_ns=None if perp.predicted is None else perp.predicted[0],
        mean_apr={days: mean_rate_per_hour(h, last, days * 24.0) * HOURS_PER_YEAR for days in MEAN_WINDOWS_D},
        positive_frac=float(np.mean(h.rates > 0.0)),
        gaps=h.gaps,
        missing=h.missing,
        largest_gap_h=h.largest_gap_h,
        irregular=h.irregular,
    )


def mean_rate_per_hour(history: FundingHistory, end_ns: int, hours: float) -> float:
    """Mean of the rates settled in (end - hours, end], each over its own interval, per hour; NaN where the history begins later."""
    begin = end_ns - round(hours * NS_PER_HOUR)
    first_covered = int(history.stamps_ns[0]) - round(float(history.intervals_h[0]) * NS_PER_HOUR)
    inside = (history.stamps_ns > begin) & (history.stamps_ns <= end_ns)
    if begin < first_covered or not inside.any():
        return math.nan
    return float(history.rates[inside].sum() / history.intervals_h[inside].sum())


def _recent_mean_per_hour(history: FundingHistory, end_ns: int, settings: Funding) -> float:
    """Mean over the holding time, or over the history where that is shorter; NaN below the least history."""
    there_h = (end_ns - int(history.stamps_ns[0])) / NS_PER_HOUR + float(history.intervals_h[0])
    window_h = min(settings.holding_h, there_h)
    return math.nan if window_h < settings.min_history_h else mean_rate_per_hour(history, end_ns, window_h)


def spot_of(perp: InstrumentId) -> InstrumentId | None:
    """The spot market of a perpetual's coin at the same house; None where the venue has none."""
    venue = _SPOT_VENUE.get(perp.venue, perp.venue)
    return None if venue is None else InstrumentId(venue, perp.base, perp.quote, False)


def cash_and_carry(perp: Perp, settings: Funding) -> ScannedTrade | None:
    """One perpetual against its spot market, decided by the front door; None where the venue has no spot market."""
    spot = spot_of(perp.instrument)
    if spot is None:
        return None
    h = perp.history
    interval = float(h.intervals_h[-1])
    perp_cost, spot_cost = settings.cost_of(perp.instrument.venue), settings.cost_of(spot.venue)
    door = FundingArbitrage(
        min_funding_rate=settings.min_rate_8h * interval / 8.0,
        min_apr_threshold=settings.min_apr,
        max_basis_risk=settings.max_basis_frac,
        interval_hours=interval,
        holding_hours=settings.holding_h,
        cost=CarryCost(
            spot_fee=spot_cost.spot_fee,
            perp_fee=perp_cost.perp_fee,
            spot_half_spread=spot_cost.half_spread,
            perp_half_spread=perp_cost.half_spread,
            spot_borrow_apr=settings.spot_borrow_apr,
        ),
    )
    latest = perp.predicted[1] if perp.predicted is not None else float(h.rates[-1])
    mean = _recent_mean_per_hour(h, int(h.stamps_ns[-1]), settings) * interval
    now = int(h.stamps_ns[-1])
    priced = perp.price is not None and perp.spot_price is not None
    perp_price, spot_price = (perp.price, perp.spot_price) if priced else (1.0, 1.0)
    assert perp_price is not None
    assert spot_price is not None
    # without enough history the mean is not known: nothing is expected
    opp, refusal = door.assess(perp_price, spot_price, latest, 0.0 if math.isnan(mean) else mean, now_ns=now)
    short_perp = opp.direction == "long_spot_short_perp"
    why = _verdict(None if refusal is None else refusal.reason, math.isnan(mean), settings.min_history_h, priced)
    return ScannedTrade(
        ts_ns=now,
        kind="cash_and_carry",
        long_instrument=spot if short_perp else perp.instrument,
        short_instrument=perp.instrument if short_perp else spot,
        rate_8h=rate_8h_step(opp.expected_rate, interval),
        apr=apr_step(opp.expected_rate, interval),
        # the table's basis is short leg against long leg
        basis_frac=(opp.basis_frac if short_perp else (spot_price - perp_price) / perp_price) if priced else None,
        cost_frac=opp.cost_frac,
        holding_h=opp.holding_hours,
        break_even_h=opp.break_even_hours,
        net_apr=opp.net_apr,
        accepted=not why,
        reason=_reason(why, latest_rate=latest, mean_rate=None if math.isnan(mean) else mean, interval_h=interval),
    )


def cross_venue(one: Perp, other: Perp, settings: Funding) -> ScannedTrade | None:
    """Two perpetuals of one coin: short the one that pays more. None where their latest rates do not belong to the same time."""
    end = min(int(one.history.stamps_ns[-1]), int(other.history.stamps_ns[-1]))
    if max(int(one.history.stamps_ns[-1]), int(other.history.stamps_ns[-1])) - end > settings.max_age_h * NS_PER_HOUR:
        return None
    last = _latest_per_hour(one) - _latest_per_hour(other)
    short, long_ = (one, other) if last >= 0.0 else (other, one)
    mean = _recent_mean_per_hour(short.history, end, settings) - _recent_mean_per_hour(long_.history, end, settings)
    expected = 0.0 if math.isnan(mean) else max(0.0, min(abs(last), mean))
    cost = 2.0 * sum(c.perp_fee + c.half_spread for c in (settings.cost_of(short.instrument.venue), settings.cost_of(long_.instrument.venue)))
    # whole settlements of the slower leg, met by both
    step = max(float(short.history.intervals_h[-1]), float(long_.history.intervals_h[-1]))
    paid_h = math.floor(settings.holding_h / step + 1e-9) * step
    net_apr = (expected * paid_h - cost) * HOURS_PER_YEAR / settings.holding_h
    settlements = break_even_settlements(cost, expected * step)
    basis = _basis_between(short, long_)
    refused = None
    if basis is not None and abs(basis) > settings.max_basis_frac:
        refused = f"basis between the legs is {basis:.6g}, allowed is {settings.max_basis_frac:g} in size"
    elif expected * 8.0 < settings.min_rate_8h:
        refused = f"expected net rate is {expected * 8.0:g} per 8 h, wanted at least {settings.min_rate_8h:g}"
    elif net_apr < settings.min_apr:
        refused = f"net APR is {net_apr:.4g} over {settings.holding_h:g} h against costs of {cost:.6g}; wanted at least {settings.min_apr:g}"
    why = _verdict(refused, math.isnan(mean), settings.min_history_h, basis is not None)
    return ScannedTrade(
        ts_ns=end,
        kind="cross_venue",
        long_instrument=long_.instrument,
        short_instrument=short.instrument,
        rate_8h=expected * 8.0,
        apr=expected * HOURS_PER_YEAR,
        basis_frac=basis,
        cost_frac=cost,
        holding_h=settings.holding_h,
        break_even_h=math.ceil(settlements - 1e-9) * step if math.isfinite(settlements) else None,
        net_apr=net_apr,
        accepted=not why,
        reason=_reason(
            why,
            short_rate_per_hour=_latest_per_hour(short),
            long_rate_per_hour=_latest_per_hour(long_),
            mean_spread_per_hour=None if math.isnan(mean) else mean,
        ),
    )


def scan(perps: Sequence[Perp], settings: Funding) -> tuple[ScannedTrade, ...]:
    """All trades among the perpetuals, best net APR first. Simulated rates never meet real ones."""
    found = [cash_and_carry(perp, settings) for perp in perps]
    for i, one in enumerate(perps):
        for other in perps[i + 1 :]:
            same_world = (one.instrument.venue == "sim") == (other.instrument.venue == "sim")
            if same_world and one.instrument.base == other.instrument.base and one.instrument.venue != other.instrument.venue:
                found.append(cross_venue(one, other, settings))
    return tuple(sorted((t for t in found if t is not None), key=lambda t: (-t.net_apr, str(t.short_instrument), str(t.long_instrument))))


def _basis_between(short: Perp, long_: Perp) -> float | None:
    """(short - long) / long, where both prices are of the same minute."""
    if short.price is None or long_.price is None or short.price_ns is None or long_.price_ns is None:
        return None
    if abs(short.price_ns - long_.price_ns) > NS_PER_HOUR // 60:
        return None
    return (short.price - long_.price) / long_.price


def _latest_per_hour(perp: Perp) -> float:
    rate = perp.predicted[1] if perp.predicted is not None else float(perp.history.rates[-1])
    return rate / float(perp.history.intervals_h[-1])


def _verdict(refused: str | None, no_mean: bool, min_history_h: float, priced: bool) -> str:
    """Why a trade is not accepted; empty when it is."""
    if no_mean:
        return f"the history is shorter than {min_history_h:g} h: nothing is expected"
    if refused is not None:
        return refused
    return "" if priced else "the lake has no prices of both legs, so the basis is not known"


def _reason(why: str, **facts: float | None) -> str:
    return json.dumps({"verdict": why or "passes all bounds", **facts}, sort_keys=True)
