"""Front door of the guide: quotes from market state and inventory.

Belongs here: `AvellanedaStoikovMarketMaker`, checks of what a caller hands in, warnings about numbers that cannot work. Does not belong
here: formulas (`kernels.quoting`, which replay and runner call too).
"""

from __future__ import annotations

import math
import warnings
from decimal import Decimal
from typing import Final, Literal

from mm_platform.core.clock import Clock, monotonic_ns
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import BPS, NS_PER_YEAR
from mm_platform.kernels.quoting import (
    CLAMP_INVENTORY_ASK,
    CLAMP_INVENTORY_BID,
    CLAMP_NAMES,
    CLAMP_SKEW,
    HORIZONS,
    OK,
    RELAXATION,
    STATUS_NAMES,
    Market,
    Quote,
    QuoteParams,
    indicative_prices,
    quote_step,
    rest_at_mid,
    round_step,
    ticks_above,
    ticks_below,
)

# what a spread must leave beyond both maker fees (the guide's example: fee 2 bp, spread 5 bp)
SAFETY_MARGIN: Final = 1.0 * BPS
# a microprice lies between the best quotes; one this far from the mid is a mistake, not a signal
MAX_MICROPRICE_DEVIATION_FRAC: Final = 0.1
# volatility assumed when a warning needs one and none was given
_TYPICAL_SIGMA: Final = 0.5
_TYPICAL_HORIZON_YEARS: Final = 1.0 / 365.0


class QuoteWarning(UserWarning):
    """Parameters that can be computed with but cannot pay for themselves."""


class AvellanedaStoikovMarketMaker:
    """Optimal bid and ask of Avellaneda and Stoikov in relative units (the guide's `AvellanedaStoikovMarketMaker`).

    Parameters
    ----------
    risk_aversion : float
        gamma per `inventory_unit`, dimensionless; 0.01 aggressive, 0.1 balanced, 1 conservative.
    terminal_time : float
        Horizon in years. The default is a day: the inventory skew per unit is gamma sigma^2 terminal_time, so a year's horizon asks for
        hundreds of times the skew; it is cut so that no quote stands further than `max_spread` from fair, with a warning.
    target_inventory, max_inventory : float
        Base: the inventory to return to, and the largest deviation from it at which its side is still quoted.
    min_spread, max_spread : float
        Bounds of (ask - bid)/fair.
    sigma : float, optional
        Volatility, relative per sqrt(year), where none has come with market data (a backtest on a tape).
    k_rel : float
        Decay of the fill rate per relative distance from the mid (5000: fills come from 2 bp on average).
    arrival_rate : float
        Fills per second and side of a quote at the mid; acts on the relaxation horizon only.
    inventory_unit : float
        Base per inventory unit, the amount that gamma refers to.
    order_size : float, optional
        Base per order; default one inventory unit.
    horizon : {"rolling", "fixed", "relaxation"}
        Constant; running down from the first market data; or the shorter of `terminal_time` and the time in which optimal quotes let an
        inventory relax.
    maker_fee, adverse_selection : float
        Fractions of notional added to each half spread.
    coef_ofi, coef_kyle, coef_short_volatility : float
        How signals act (see `kernels.quoting.QuoteParams`); 0 = not at all, until fitted.
    tick_size : float or str, optional
        Quote per tick; with it prices are rounded, bids down and asks up.
    clock : callable, optional
        Nanoseconds since the epoch, used where `now_ns` is not given.

    Raises
    ------
    ConfigError
        A parameter outside its domain.
    """

    def __init__(
        self,
        risk_aversion: float = 0.1,
        terminal_time: float = _TYPICAL_HORIZON_YEARS,
        target_inventory: float = 0.0,
        max_inventory: float = 10.0,
        min_spread: float = 0.0001,
        max_spread: float = 0.01,
        *,
        sigma: float | None = None,
        k_rel: float = 5000.0,
        arrival_rate: float = 1.0,
        inventory_unit: float = 1.0,
        order_size: float | None = None,
        horizon: Literal["rolling", "fixed", "relaxation"] = "rolling",
        maker_fee: float = 0.0,
        adverse_selection: float = 0.0,
        coef_ofi: float = 0.0,
        coef_kyle: float = 0.0,
        coef_short_volatility: float = 0.0,
        tick_size: float | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if horizon not in HORIZONS:
            raise ConfigError(f"horizon is {horizon!r}, expected one of {', '.join(HORIZONS)}")
        _require_positive("risk_aversion", risk_aversion)
        _require_positive("terminal_time", terminal_time)
        _require_positive("max_inventory", max_inventory)
        _require_positive("k_rel", k_rel)
        _require_positive("arrival_rate", arrival_rate)
        _require_positive("inventory_unit", inventory_unit)
        if order_size is not None:
            _require_positive("order_size", order_size)
        if sigma is not None:
            _require_positive("sigma", sigma)
        for name, value in (("target_inventory", target_inventory), ("coef_ofi", coef_ofi), ("coef_kyle", coef_kyle)):
            if not math.isfinite(value):
                raise ConfigError(f"{name} is {value}, expected a finite number")
        for name, value in (("maker_fee", maker_fee), ("adverse_selection", adverse_selection)):
            if not abs(value) <= 0.1:
                raise ConfigError(f"{name} is {value}, expected a fraction of notional such as 0.0002")
        if not 0.0 <= min_spread <= max_spread < 1.0:
            raise ConfigError(f"min_spread is {min_spread} and max_spread {max_spread}, expected 0 <= min_spread <= max_spread < 1 (0.0001 = 1 bp)")
        if not 0.0 <= coef_short_volatility <= 1.0:
            raise ConfigError(f"coef_short_volatility is {coef_short_volatility}, expected a weight in [0, 1]")
        self._tick = None if tick_size is None else Decimal(str(tick_size))
        if self._tick is not None and not (self._tick.is_finite() and self._tick > 0):
            raise ConfigError(f"tick_size is {tick_size}, expected a positive number")
        self.inventory_unit = float(inventory_unit)
        self.target_inventory = float(target_inventory)
        self.max_inventory = float(max_inventory)
        self.order_size = self.inventory_unit if order_size is None else float(order_size)
        self.sigma = None if sigma is None else float(sigma)
        self._clock = clock or monotonic_ns
        self._params = QuoteParams(
            gamma=float(risk_aversion),
            sigma=math.nan if sigma is None else float(sigma),
            tau_years=float(terminal_time),
            horizon=HORIZONS[horizon],
            A_bid=float(arrival_rate),
            A_ask=float(arrival_rate),
            k_bid=float(k_rel),
            k_ask=float(k_rel),
            inventory_unit=self.inventory_unit,
            target_inventory=self.target_inventory,
            max_inventory=self.max_inventory,
            order_units=1.0 if order_size is None else order_size / inventory_unit,
            min_spread=float(min_spread),
            max_spread=float(max_spread),
            maker_fee=float(maker_fee),
            adverse_selection=float(adverse_selection),
            coef_ofi=float(coef_ofi),
            coef_kyle=float(coef_kyle),
            coef_short_volatility=float(coef_short_volatility),
        )
        self._market: Market | None = None
        self._inventory = 0.0
        self._touch_ticks = (0, 0)
        self._start_ns = 0
        self._last_quote: Quote | None = None
        self._last_clamps = 0
        self._warn_about_fees()
        self._warn_about_skew()

    # -- the guide's methods -----------------------------------------------------------------------------------------------------------

    def update_market_data(
        self,
        mid_price: float,
        volatility: float,
        inventory: float,
        microprice: float | None = None,
        order_flow_imbalance: float | None = None,
        kyle_lambda: float | None = None,
        short_volatility: float | None = None,
        *,
        best_bid: float | None = None,
        best_ask: float | None = None,
        now_ns: int | None = None,
    ) -> None:
        """Take over the state of the market and of the inventory.

        Parameters
        ----------
        mid_price, microprice : float
            Quote per base; without a microprice the mid is the fair price.
        volatility, short_volatility : float
            Relative per sqrt(year) (0.5 = 50 % a year).
        inventory : float
            Base, signed.
        order_flow_imbalance : float
            -1 to 1, + is buying pressure.
        kyle_lambda : float
            Quote/base per base.
        best_bid, best_ask : float
            The touch, quote per base; needs `tick_size`. With it post-only is exact; without it quotes stay on their own side of the mid.
        now_ns : int
            UTC nanoseconds; default the clock.

        Raises
        ------
        DataError
            A number that is not finite or outside its domain; None or nan in an optional signal means unknown.
        """
        if not (math.isfinite(mid_price) and mid_price > 0.0):
            raise DataError(f"mid_price is {mid_price}, expected a positive price")
        if not (math.isfinite(volatility) and volatility >= 0.0):
            raise DataError(f"volatility is {volatility}, expected a number >= 0, relative per year (0.5 = 50 %)")
        if not math.isfinite(inventory):
            raise DataError(f"inventory is {inventory}, expected a finite amount in base")
        micro = _optional(microprice)
        if not math.isnan(micro) and not abs(micro - mid_price) <= MAX_MICROPRICE_DEVIATION_FRAC * mid_price:
            raise DataError(
                f"microprice {micro} is more than {MAX_MICROPRICE_DEVIATION_FRAC:.0%} from mid_price {mid_price}; it lies between the best quotes"
            )
        flow = _optional(order_flow_imbalance)
        if not math.isnan(flow) and not abs(flow) <= 1.0:
            raise DataError(f"order_flow_imbalance is {flow}, expected a number from -1 to 1")
        kyle = _optional(kyle_lambda)
        if math.isinf(kyle):
            raise DataError(f"kyle_lambda is {kyle}, expected a finite number")
        short = _optional(short_volatility)
        if not math.isnan(short) and not 0.0 <= short < math.inf:
            raise DataError(f"short_volatility is {short}, expected a number >= 0, relative per year")
        self._touch_ticks = self._read_touch(best_bid, best_ask)
        now = self._clock() if now_ns is None else now_ns
        if self._market is None or now < self._start_ns:
            # time before the start is another run (a backtest after live data): its horizon begins here
            self._start_ns = now
        self._market = Market(float(mid_price), micro, flow, kyle, short, (now - self._start_ns) / NS_PER_YEAR)
        self._inventory = float(inventory)
        self.sigma = float(volatility)
        self._last_quote = None

    def compute_quotes(self) -> tuple[float, float]:
        """Bid and ask, quote per base, from the last market data.

        Both are prices of the model, also on a side that the inventory limit forbids: `should_quote_side` says whether to send them. nan on a
        side where no positive price is left.

        Raises
        ------
        DataError
            No market data yet.
        """
        quote, market = self._quote()
        bid, ask = indicative_prices(quote)
        self._last_clamps = quote.clamps
        if self._touch_ticks == (0, 0):
            bid, ask, clamps = rest_at_mid(bid, ask, market.mid)
            self._last_clamps |= clamps
        if self._tick is None:
            return bid, ask
        bid_ticks, ask_ticks, self._last_clamps = round_step(
            quote._replace(bid=bid, ask=ask, clamps=self._last_clamps), float(self._tick), self._touch_ticks[0], self._touch_ticks[1]
        )
        return self._price(bid_ticks), self._price(ask_ticks)

    def should_quote_side(self, side: str) -> bool:
        """Whether the inventory limit lets 'bid' or 'ask' be quoted; raises `DataError` before the first market data."""
        if side not in ("bid", "ask"):
            raise ConfigError(f"side is {side!r}, expected 'bid' or 'ask'")
        quote, _ = self._quote()
        return quote.clamps & (CLAMP_INVENTORY_BID if side == "bid" else CLAMP_INVENTORY_ASK) == 0

    # -- beyond the guide --------------------------------------------------------------------------------------------------------------

    @property
    def last_quote(self) -> Quote:
        """Fair price, reservation price, half spreads and horizon behind the last market data's quotes."""
        return self._quote()[0]

    @property
    def clamps(self) -> tuple[str, ...]:
        """Names of what bound the prices that `compute_quotes` last returned."""
        return tuple(name for bit, name in CLAMP_NAMES.items() if self._last_clamps & bit)

    def quote_params(self, *, maker_fee: float | None = None, order_units: float | None = None, sigma: float | None = None) -> QuoteParams:
        """The kernel's parameters, as replay and sweeps use them.

        `sigma` defaults to the last volatility seen, else the constructor's; raises `ConfigError` when there is none.
        """
        volatility = self.sigma if sigma is None else sigma
        if volatility is None:
            raise ConfigError("no volatility known: pass sigma=... to AvellanedaStoikovMarketMaker, or call update_market_data first")
        changed = self._params._replace(sigma=float(volatility))
        if maker_fee is not None:
            changed = changed._replace(maker_fee=float(maker_fee))
        if order_units is not None:
            changed = changed._replace(order_units=float(order_units))
        return changed

    # -- inside ------------------------------------------------------------------------------------------------------------------------

    def _quote(self) -> tuple[Quote, Market]:
        if self._market is None:
            raise DataError("no market data yet: call update_market_data before asking for quotes")
        if self._last_quote is None:
            self._last_quote = quote_step(self.quote_params(), self._market, self._inventory)
        if self._last_quote.status != OK:
            raise DataError(f"no quote: {STATUS_NAMES[self._last_quote.status]} (market {self._market}, inventory {self._inventory})")
        return self._last_quote, self._market

    def _price(self, ticks: int) -> float:
        return float(self._tick * ticks) if self._tick is not None and ticks > 0 else math.nan

    def _read_touch(self, best_bid: float | None, best_ask: float | None) -> tuple[int, int]:
        if best_bid is None and best_ask is None:
            return 0, 0
        if best_bid is None or best_ask is None or not 0.0 < best_bid < best_ask < math.inf:
            raise DataError(f"best_bid is {best_bid} and best_ask {best_ask}, expected 0 < best_bid < best_ask or neither")
        if self._tick is None:
            raise DataError("best_bid and best_ask need tick_size: post-only means one tick away from the other side")
        tick = float(self._tick)
        return ticks_below(best_bid, tick)[0], ticks_above(best_ask, tick)[0]

    def _warn_about_fees(self) -> None:
        p = self._params
        needed = 2.0 * p.maker_fee + SAFETY_MARGIN
        if p.maker_fee > 0.0 and p.min_spread < needed:
            warnings.warn(
                f"min_spread {p.min_spread / BPS:.2f} bp is below two maker fees plus a margin ({needed / BPS:.2f} bp): a round trip at it loses money; "
                f"raise min_spread to at least {needed:g}",
                QuoteWarning,
                stacklevel=3,
            )

    def _warn_about_skew(self) -> None:
        sigma = _TYPICAL_SIGMA if self.sigma is None else self.sigma
        p = self._params._replace(sigma=sigma)
        at_unit_price = Market(1.0, math.nan, math.nan, math.nan, math.nan, 0.0)
        fullest = quote_step(p, at_unit_price, p.target_inventory + p.max_inventory)
        if fullest.clamps & CLAMP_SKEW == 0:
            return
        one_unit = quote_step(p._replace(max_spread=math.inf), at_unit_price, p.target_inventory + p.inventory_unit)
        remedy = "lower terminal_time (1/365 is a day)" if p.horizon == RELAXATION else "use terminal_time=1/365 (a day) or horizon='relaxation'"
        warnings.warn(
            f"terminal_time {p.tau_years:g} years with risk_aversion {p.gamma:g} shifts both quotes by {(1.0 - one_unit.reservation) / BPS:.4g} bp per "
            f"inventory unit at volatility {sigma:g}; at max_inventory that goes beyond max_spread ({p.max_spread / BPS:.4g} bp) and is cut: {remedy}",
            QuoteWarning,
            stacklevel=3,
        )


def _require_positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ConfigError(f"{name} is {value}, expected a positive number")


def _optional(value: float | None) -> float:
    return math.nan if value is None else float(value)
