"""All fits a parameter set needs, from one tape and one window, with one stamp of how far they looked.

Belongs here: which rows may be used and in which order the estimators run. Does not belong here: the estimators, or when to refit
(`walk_forward`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mm_platform.calibration.fit import Fit
from mm_platform.calibration.intensity import IntensityFit, IntensitySettings, fit_intensity
from mm_platform.calibration.order_depth import DecisionGrid, MarketOrders, market_orders
from mm_platform.calibration.volatility import VolatilitySettings, fit_sigma
from mm_platform.core.errors import CalibrationError
from mm_platform.tape.layout import NOT_MARKET, Kind, Tape


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Settings of the estimators."""

    intensity: IntensitySettings = field(default_factory=IntensitySettings)
    volatility: VolatilitySettings = field(default_factory=VolatilitySettings)


@dataclass(frozen=True, slots=True)
class FitSet:
    """sigma [1/sqrt(year)], A [1/s] and k [1/relative distance] per side, and the intensity fits they came from.

    `fitted_through_ns` is the last local time any of them used; no row at or before it may be judged with these fits.
    """

    sigma: Fit
    A_bid: Fit
    A_ask: Fit
    k_bid: Fit
    k_ask: Fit
    intensity_bid: IntensityFit
    intensity_ask: IntensityFit
    fitted_from_ns: int
    fitted_through_ns: int

    @property
    def fits(self) -> tuple[Fit, ...]:
        return (self.sigma, self.A_bid, self.A_ask, self.k_bid, self.k_ask)

    @property
    def accepted(self) -> bool:
        return all(fit.accepted for fit in self.fits)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it may not be used, each reason once; empty when accepted."""
        return tuple(dict.fromkeys(fit.reason for fit in self.fits if not fit.accepted))


def orders_known(tape: Tape, from_ns: int, through_ns: int) -> MarketOrders:
    """Market orders from prints with from_ns <= local_ts <= through_ns; prints that fill nobody (liquidations' fund, ADL) left out."""
    rows = (tape.kind == Kind.TRADE) & ((tape.flags & NOT_MARKET) == 0) & (tape.local_ts >= from_ns) & (tape.local_ts <= through_ns)
    return market_orders(tape.exch_ts[rows], tape.local_ts[rows], tape.side[rows], tape.price_ticks[rows], tape.qty_lots[rows])


def fit_all(tape: Tape, grid: DecisionGrid, from_ns: int, through_ns: int, rng: np.random.Generator, settings: FitSettings | None = None) -> FitSet:
    """Fit sigma, A and k from what was known in [from_ns, through_ns] of local time.

    Parameters
    ----------
    tape : Tape
        Rows later than `through_ns` are not read.
    grid : DecisionGrid
        Decisions with the touch they saw, computed from rows known at each decision (`tape.features`).
    from_ns, through_ns : int
        Window of local time, both ends included.
    rng : numpy.random.Generator
        For the bootstraps; equal states give equal errors.
    settings : FitSettings, optional

    Returns
    -------
    FitSet
        Fits that could not be made are refused with a reason, not left out.

    Raises
    ------
    CalibrationError
        When the window is empty by its own ends.
    """
    if through_ns <= from_ns:
        raise CalibrationError(f"fit window from {from_ns} through {through_ns} ns is empty; expected from < through")
    settings = settings or FitSettings()
    tick_size = float(tape.spec.tick)
    orders = orders_known(tape, from_ns, through_ns)
    window = grid.through(from_ns, through_ns)
    # one generator per estimator: how many draws one needs does not change the others' errors
    streams = rng.spawn(3)
    sigma = fit_sigma(window.ts_ns, window.mid_ticks() * tick_size, from_ns, through_ns, streams[0], settings.volatility)
    bid = fit_intensity(orders, window, "bid", tick_size, from_ns, through_ns, streams[1], settings.intensity)
    ask = fit_intensity(orders, window, "ask", tick_size, from_ns, through_ns, streams[2], settings.intensity)
    fits = (sigma, bid.a, bid.k, ask.a, ask.k)
    return FitSet(
        sigma=sigma,
        A_bid=bid.a,
        A_ask=ask.a,
        k_bid=bid.k,
        k_ask=ask.k,
        intensity_bid=bid,
        intensity_ask=ask,
        fitted_from_ns=min(fit.fitted_from_ns for fit in fits),
        fitted_through_ns=max(fit.fitted_through_ns for fit in fits),
    )
