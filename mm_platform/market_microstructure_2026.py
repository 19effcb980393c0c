"""Front door of the guide: signals of one order book snapshot and the recent trades, in ccxt's dict layout.

Belongs here: `MarketMicrostructure2026`, reading and checking ccxt's dicts. Does not belong here: formulas (`kernels.signals`), signals along
a tape or a feed (`tape.features`, `engine`), which see every change of the touch where a snapshot sees only one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import BPS, NS_PER_MS, NS_PER_S
from mm_platform.kernels.signals import kyle_regression, ofi_path, queue_imbalance, short_volatility_path, squash_flow, weighted_mid

Float64s = npt.NDArray[np.float64]

# a stretch of trades shorter than this many spacings is sampled finer
_MIN_SAMPLES: Final = 10


@dataclass(frozen=True, slots=True)
class _Levels:
    """Both sides of a checked snapshot, best first: prices [quote per base], sizes [base]."""

    bid: Float64s
    bid_size: Float64s
    ask: Float64s
    ask_size: Float64s

    @property
    def spread(self) -> float:
        return float(self.ask[0] - self.bid[0])

    @property
    def mid(self) -> float:
        return float(0.5 * (self.ask[0] + self.bid[0]))


@dataclass(frozen=True, slots=True)
class _Prints:
    """Checked trades in order of time: ns, price [quote per base], signed amount [base, + bought]."""

    ts_ns: npt.NDArray[np.int64]
    price: Float64s
    signed: Float64s

    def mids(self, spread: float) -> Float64s:
        """The mid that each trade met, if the spread was this wide: buys printed half of it above, sells below."""
        return self.price - np.sign(self.signed) * 0.5 * spread


class MarketMicrostructure2026:
    """Microprice, imbalances, price impact and short-horizon volatility (the guide's `MarketMicrostructure2026`).

    Parameters
    ----------
    volatility_spacing_s : float
        Seconds between the prices whose returns make up the volatility; long enough to step over quote noise.
    volatility_tau_s : float
        Averaging time of the variance in seconds.

    Notes
    -----
    Order books are ccxt's: ``{"bids": [[price, amount], ...], "asks": [...]}``, best first. Trades are ccxt's: dicts with `timestamp` [ms],
    `side` ('buy' or 'sell', the taker's), `price` and `amount`. Every method raises `DataError` on an empty or one-sided book, a crossed or
    unsorted one, numbers that are not finite or not positive, and trades without time or side.
    """

    def __init__(self, *, volatility_spacing_s: float = 1.0, volatility_tau_s: float = 120.0) -> None:
        for name, value in (("volatility_spacing_s", volatility_spacing_s), ("volatility_tau_s", volatility_tau_s)):
            if not 0.0 < value < math.inf:
                raise ConfigError(f"{name} is {value}, expected a positive number of seconds")
        self._spacing_ns = max(1, round(volatility_spacing_s * NS_PER_S))
        self._tau_s = float(volatility_tau_s)

    def calculate_microprice(self, orderbook: Mapping[str, Any]) -> float:
        """Mid weighted by the opposite queues, quote per base."""
        return _microprice(_read_book(orderbook))

    def calculate_queue_imbalance(self, orderbook: Mapping[str, Any], levels: int = 1) -> float:
        """(bid size - ask size)/(bid size + ask size) over the first `levels` levels, -1 to 1."""
        if levels < 1:
            raise ConfigError(f"levels is {levels}, expected at least 1")
        book = _read_book(orderbook)
        return float(queue_imbalance(float(book.bid_size[:levels].sum()), float(book.ask_size[:levels].sum())))

    def calculate_order_flow_imbalance(self, orderbooks: Sequence[Mapping[str, Any]]) -> float:
        """Order flow imbalance of consecutive snapshots, -1 to 1.

        Net flow at the best quotes over its absolute sum plus the mean depth of the touch. Raises `DataError` with fewer than two snapshots.

        References: Cont, Kukanov & Stoikov (2014), eq. 4.
        """
        if len(orderbooks) < 2:
            raise DataError(f"order flow needs at least 2 consecutive order books, got {len(orderbooks)}")
        books = [_read_book(book) for book in orderbooks]
        touch = np.array([(b.bid[0], b.bid_size[0], b.ask[0], b.ask_size[0]) for b in books]).T
        return float(ofi_path(touch[0], touch[1], touch[2], touch[3], np.empty(len(books) - 1)))

    def calculate_kyle_lambda(self, trades: Sequence[Mapping[str, Any]], spread: float = 0.0) -> float:
        """Price impact: slope of the mid's change on the signed amount traded, quote/base per base.

        One observation per sweep (consecutive trades of one side at one time): its amount, and the change from the mid it met to the mid the
        next one met. `spread` [quote per base] takes the bounce between bid and ask out of the trade prices. nan with fewer than 3
        observations or equal amounts.

        References: Kyle (1985).
        """
        return self._kyle(_read_trades(trades), _checked_spread(spread))

    def calculate_short_horizon_volatility(self, trades: Sequence[Mapping[str, Any]], spread: float = 0.0) -> float:
        """Exponentially weighted volatility of the recent mids, relative per sqrt(year).

        Mids are taken as in `calculate_kyle_lambda`, sampled every `volatility_spacing_s`, or ten times over the stretch if that is shorter. nan
        with fewer than two trade times.
        """
        return self._volatility(_read_trades(trades), _checked_spread(spread))

    def get_microstructure_signals(
        self, orderbook: Mapping[str, Any], trades: Sequence[Mapping[str, Any]], volume_24h: float | None = None
    ) -> dict[str, float]:
        """All signals at once.

        Parameters
        ----------
        orderbook, trades
            See the class.
        volume_24h : float, optional
            Quote traded in the last 24 hours; puts the impact on a scale that compares markets.

        Returns
        -------
        dict
            `microprice`, `mid_price` (quote per base); `kyle_lambda` (quote/base per base); `queue_imbalance` (-1 to 1);
            `order_flow_imbalance` (-1 to 1; of the trades: net amount over gross amount plus the touch's depth, since a single snapshot shows
            no limit order flow); `short_horizon_volatility` (relative per sqrt(year)); `spread_bps`; `daily_volume_impact_frac` (relative
            move that a net flow of one day's volume would make at this lambda). nan where the trades are too few to tell.
        """
        book = _read_book(orderbook)
        prints = _read_trades(trades)
        if volume_24h is not None and not 0.0 <= volume_24h < math.inf:
            raise DataError(f"volume_24h is {volume_24h}, expected an amount >= 0 in quote")
        kyle = self._kyle(prints, book.spread)
        depth = 0.5 * float(book.bid_size[0] + book.ask_size[0])
        return {
            "microprice": _microprice(book),
            "mid_price": book.mid,
            "kyle_lambda": kyle,
            "queue_imbalance": float(queue_imbalance(float(book.bid_size[0]), float(book.ask_size[0]))),
            "order_flow_imbalance": float(squash_flow(float(prints.signed.sum()), float(np.abs(prints.signed).sum()), depth)),
            "short_horizon_volatility": self._volatility(prints, book.spread),
            "spread_bps": book.spread / book.mid / BPS,
            "daily_volume_impact_frac": math.nan if volume_24h is None else kyle * (volume_24h / book.mid) / book.mid,
        }

    def _kyle(self, prints: _Prints, spread: float) -> float:
        n = len(prints.ts_ns)
        if n < 2:
            return math.nan
        side = np.sign(prints.signed)
        starts = np.flatnonzero(np.r_[True, (np.diff(prints.ts_ns) != 0) | (np.diff(side) != 0)])
        amounts = np.add.reduceat(prints.signed, starts)
        changes = np.diff(prints.mids(spread)[starts])
        return float(kyle_regression(changes, amounts[:-1]).slope)

    def _volatility(self, prints: _Prints, spread: float) -> float:
        if len(prints.ts_ns) < 2 or prints.ts_ns[-1] == prints.ts_ns[0]:
            return math.nan
        spacing = max(1, min(self._spacing_ns, int(prints.ts_ns[-1] - prints.ts_ns[0]) // _MIN_SAMPLES))
        return float(short_volatility_path(prints.ts_ns, prints.mids(spread), spacing, self._tau_s))


def _microprice(book: _Levels) -> float:
    return float(weighted_mid(float(book.bid[0]), float(book.bid_size[0]), float(book.ask[0]), float(book.ask_size[0])))


def _read_side(orderbook: Mapping[str, Any], name: str, direction: int) -> tuple[Float64s, Float64s]:
    levels = orderbook.get(name)
    if levels is None or len(levels) == 0:
        raise DataError(f"order book has no {name}; expected a list of [price, amount], best first")
    try:
        prices = np.array([float(level[0]) for level in levels])
        sizes = np.array([float(level[1]) for level in levels])
    except (TypeError, ValueError, IndexError, KeyError) as err:
        raise DataError(f"order book {name} are not [price, amount] pairs: {err}") from None
    wrong = np.flatnonzero(~(np.isfinite(prices) & (prices > 0.0) & np.isfinite(sizes) & (sizes > 0.0)))
    if len(wrong):
        i = int(wrong[0])
        raise DataError(f"order book {name}[{i}] is [{prices[i]}, {sizes[i]}], expected positive finite numbers")
    unsorted = np.flatnonzero(np.diff(prices) * direction >= 0.0)
    if len(unsorted):
        i = int(unsorted[0]) + 1
        raise DataError(f"order book {name}[{i}] at {prices[i]} follows {prices[i - 1]}; expected the best first and each price once")
    return prices, sizes


def _read_book(orderbook: Mapping[str, Any]) -> _Levels:
    bid, bid_size = _read_side(orderbook, "bids", 1)
    ask, ask_size = _read_side(orderbook, "asks", -1)
    if bid[0] >= ask[0]:
        raise DataError(f"order book is crossed: best bid {bid[0]} >= best ask {ask[0]}; resynchronise it before computing signals")
    return _Levels(bid, bid_size, ask, ask_size)


def _read_trades(trades: Sequence[Mapping[str, Any]]) -> _Prints:
    n = len(trades)
    ts_ns = np.empty(n, dtype=np.int64)
    price = np.empty(n)
    signed = np.empty(n)
    for i, trade in enumerate(trades):
        try:
            stamp, side, at, amount = trade["timestamp"], trade["side"], float(trade["price"]), float(trade["amount"])
            # an int stays exact; a float of milliseconds is good to 0.3 us
            ts_ns[i] = stamp * NS_PER_MS if isinstance(stamp, int) else round(float(stamp) * NS_PER_MS)
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise DataError(f"trade {i} cannot be read ({err!r}); expected timestamp [ms], side, price and amount") from None
        if side not in ("buy", "sell"):
            raise DataError(f"trade {i} has side {side!r}, expected the taker's 'buy' or 'sell'")
        if not (0.0 < at < math.inf and 0.0 < amount < math.inf):
            raise DataError(f"trade {i} has price {at} and amount {amount}, expected positive finite numbers")
        price[i] = at
        signed[i] = amount if side == "buy" else -amount
    order = np.argsort(ts_ns, kind="stable")
    return _Prints(ts_ns[order], price[order], signed[order])


def _checked_spread(spread: float) -> float:
    if not 0.0 <= spread < math.inf:
        raise DataError(f"spread is {spread}, expected a number >= 0 in quote per base")
    return float(spread)
