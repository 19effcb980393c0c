"""What the simulated market is made of: its two instruments and every parameter with its unit.

Belongs here: facts and numbers, checked. Does not belong here: paths (`simulate_path`), order flow (`simulate_flow`), tapes (`simulate`).
docs/simulated_market.md says what the defaults give when measured.
"""

from __future__ import annotations

import math
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import SECONDS_PER_YEAR

SIM_PERP: Final = InstrumentSpec(
    instrument="sim:BTC-USDT-PERP",
    tick_size="1",
    lot_size="0.001",
    contract="linear",
    maker_fee=0.00005,
    taker_fee=0.0004,
    min_notional=5.0,
    funding_interval_s=28_800,
)
SIM_SPOT: Final = InstrumentSpec(
    instrument="sim:BTC-USDT",
    tick_size="1",
    lot_size="0.0001",
    contract="spot",
    maker_fee=0.0001,
    taker_fee=0.0005,
    min_notional=5.0,
)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Regime(_Settings):
    """One state of the market.

    Parameters
    ----------
    sigma : float
        Volatility of the efficient price, relative, annualised [1/sqrt(year)].
    share_frac : float
        Share of time spent in it.
    activity : float
        Factor on the rate of market orders.
    """

    sigma: float = Field(gt=0)
    share_frac: float = Field(gt=0, le=1)
    activity: float = Field(gt=0)


class FlowSettings(_Settings):
    """Order flow and book of one instrument.

    Parameters
    ----------
    market_orders_per_s : float
        Mean rate of market orders, both sides together, at activity 1 [1/s].
    branching_same, branching_cross : float
        Expected direct children of a market order on its own and on the other side; their sum is the branching ratio, below 1.
    excitation_decay_per_s : float
        Decay of the excitation, beta [1/s].
    reach_decay : float
        k: how far past the touch a market order is willing to pay is exponential with mean 1/k [1/relative].
    information : float
        Weight of the drift (in its standard deviations) in the log-odds that a spontaneous market order buys.
    eagerness : float
        How much further a market order reaches per standard deviation of drift in its direction (less far against it) [1].
    sniping_per_bp : float
        Weight of (efficient price - mid) in the same log-odds [1/bp].
    half_gap : float
        Makers leave this distance free on either side of their view of the efficient price, at average volatility [relative].
    cell_ticks : int
        Displayed levels stand in cells of this many ticks, one level per cell and side at a random tick of the cell.
    levels : int
        Cells a side that makers keep filled.
    level_lots : float
        Mean quantity of a level at the touch; grows by `depth_growth` of itself per cell [lots].
    depth_growth : float
        See `level_lots`.
    lean : float
        How much larger than usual new bids (smaller: asks) are per standard deviation of drift: some makers know too, so quantities foretell [1].
    refresh_s, response_s : float
        Mean time between looks of the makers at their book; the same after a market order [s].
    refill_frac : float
        Chance that an empty cell near the touch is filled at a look; half of it further out.
    maker_lag_s : float
        Age of the efficient price the makers see [s].
    """

    market_orders_per_s: float = Field(gt=0, le=20)
    branching_same: float = Field(default=0.45, ge=0)
    branching_cross: float = Field(default=0.15, ge=0)
    excitation_decay_per_s: float = Field(default=0.6, gt=0)
    reach_decay: float = Field(default=5500.0, gt=100)
    information: float = Field(default=1.4, ge=0)
    eagerness: float = Field(default=0.2, ge=0, le=1)
    sniping_per_bp: float = Field(default=0.2, ge=0)
    half_gap: float = Field(default=0.25e-4, ge=0, le=1e-2)
    cell_ticks: int = Field(default=5, ge=1)
    levels: int = Field(default=36, ge=24, le=80)
    level_lots: float = Field(gt=1)
    depth_growth: float = Field(default=0.15, ge=0)
    lean: float = Field(default=0.7, ge=0, le=1)
    refresh_s: float = Field(default=1.8, gt=0.01)
    response_s: float = Field(default=0.6, gt=0.001)
    refill_frac: float = Field(default=0.7, gt=0, le=1)
    maker_lag_s: float = Field(default=0.25, ge=0, le=60)

    @property
    def branching_ratio(self) -> float:
        """Expected direct children of a market order."""
        return self.branching_same + self.branching_cross

    @model_validator(mode="after")
    def _stationary(self) -> FlowSettings:
        if self.branching_ratio >= 1.0:
            raise ValueError(
                f"branching ratio {self.branching_ratio} must be below 1: at 1 the order flow explodes; lower branching_same or branching_cross"
            )
        return self


class MarketSettings(_Settings):
    """The simulated market; the defaults are the documented one.

    Parameters
    ----------
    price : float
        Level that the efficient price reverts to over months [quote/base].
    price_reversion_days : float
        Time constant of that reversion [day].
    regimes : tuple of Regime
        Volatility states; shares sum to 1.
    regime_minutes : float
        Mean time until the state is drawn anew [min].
    drift : float
        Standard deviation of what the informed know: the expected remaining move of the efficient price, at average volatility [relative].
    drift_s : float
        Time constant with which that knowledge enters the price [s].
    premium_mean, premium_slow, premium_fast : float
        Basis (perp - spot)/spot: mean, standard deviation of the part that lasts days and of the part that lasts minutes [relative].
    premium_slow_hours, premium_fast_s : float
        Time constants of the two parts.
    mark_every_s : int
        Seconds between mark prices; divides 60.
    latency_min_ms, latency_max_ms : float
        Range of the feed latency of a message [ms].
    perp, spot : FlowSettings
    """

    price: float = Field(default=60_000.0, gt=100)
    price_reversion_days: float = Field(default=60.0, gt=1, le=100)
    regimes: tuple[Regime, ...] = (
        Regime(sigma=0.30, share_frac=0.45, activity=0.8),
        Regime(sigma=0.50, share_frac=0.40, activity=1.0),
        Regime(sigma=0.90, share_frac=0.15, activity=1.5),
    )
    regime_minutes: float = Field(default=60.0, ge=10)
    drift: float = Field(default=1.3e-4, ge=0)
    drift_s: float = Field(default=12.0, gt=0.5)
    premium_mean: float = 2e-4
    premium_slow: float = Field(default=5e-4, ge=0)
    premium_slow_hours: float = Field(default=48.0, gt=8, le=2000)
    premium_fast: float = Field(default=1.5e-4, ge=0)
    premium_fast_s: float = Field(default=600.0, gt=1)
    mark_every_s: int = Field(default=3, ge=1, le=60)
    latency_min_ms: float = Field(default=2.0, ge=0)
    latency_max_ms: float = Field(default=20.0, le=50.0)
    perp: FlowSettings = FlowSettings(market_orders_per_s=0.36, level_lots=250.0)
    spot: FlowSettings = FlowSettings(market_orders_per_s=0.15, level_lots=1500.0, cell_ticks=8, levels=30, refresh_s=3.0, response_s=1.0)

    @property
    def sigma(self) -> float:
        """True long-run volatility of the efficient price, root of the mean variance [1/sqrt(year)]."""
        return math.sqrt(sum(r.share_frac * r.sigma**2 for r in self.regimes))

    @property
    def drift_variance_frac(self) -> float:
        """Share of the long-run variance that enters through the drift: 2 drift^2 / drift_s over sigma^2."""
        return 2.0 * self.drift**2 / self.drift_s / (self.sigma**2 / SECONDS_PER_YEAR)

    @field_validator("regimes")
    @classmethod
    def _shares(cls, regimes: tuple[Regime, ...]) -> tuple[Regime, ...]:
        total = sum(r.share_frac for r in regimes)
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"shares of the regimes sum to {total}, expected 1")
        return regimes

    @model_validator(mode="after")
    def _consistent(self) -> MarketSettings:
        if self.drift_variance_frac >= 0.9:
            raise ValueError(
                f"the drift would be {self.drift_variance_frac:.2f} of the price's variance, expected below 0.9; lower drift or raise drift_s or the sigmas"
            )
        if 60 % self.mark_every_s:
            raise ValueError(f"mark_every_s {self.mark_every_s} must divide 60")
        if self.latency_max_ms < self.latency_min_ms:
            raise ValueError(f"latency_max_ms {self.latency_max_ms} lies below latency_min_ms {self.latency_min_ms}")
        return self
