"""The bar fill model: a market maker and a hedger of the guide run over bars.

Belongs here: when a quote fills inside a bar, when a hedge crosses, the ledger of it. Does not belong here: reading frames
(`replay.bars`), the guide's result keys (`market_making_backtest`), ticks (`replay.loop`).

What happens at row i, in this order:

1. Quotes decided at row i-1 fill where the opposite quote of row i, or a recorded trade extreme of it, lies *beyond* them; a touch does not
   fill. They fill at their own price, as maker. One bar fills at most `fill_frac` of its volume, both sides together; when both are due more,
   they share it in proportion to their sizes, as the order of things inside a bar is not known.
2. The position is marked at row i's mid.
3. A hedge decided at row i-1 crosses at row i's opposite quote, in full, as taker.
4. A funding rate that stands in row i is settled on the position held.
5. Row i is shown to the market maker and to the hedger; their wishes stand for row i+1.

A bar knows no queue, no latency shorter than itself and no depth: it is for trying ideas, never for a gate.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import markouts_path
from mm_platform.replay.bars import Bars

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# grid points per mid on which mark-outs are counted: far finer than any tick, far from the end of int64
_MARKOUT_GRID: Final = 1_000_000_000_000


@runtime_checkable
class QuotesLikeTheGuide(Protocol):
    """What the guide's market maker answers; methods that take `now_ns` are given the row's time."""

    def update_market_data(self, *args: Any, **kwargs: Any) -> Any: ...

    def compute_quotes(self) -> tuple[float, float]: ...

    def should_quote_side(self, side: str) -> bool: ...


@runtime_checkable
class HedgesLikeTheGuide(Protocol):
    """What the guide's hedger answers; methods that take `now_ns` are given the row's time."""

    def update_inventory(self, *args: Any, **kwargs: Any) -> Any: ...

    def should_hedge(self, *args: Any, **kwargs: Any) -> bool: ...

    def get_hedge_recommendation(self, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class BarCosts:
    """Fees as fractions of notional (negative = rebate), and the largest share of a bar's volume that fills."""

    maker_fee: float
    taker_fee: float
    fill_frac: float


@dataclass(frozen=True, slots=True)
class BarFills:
    """Executions in order; equal-length columns. price, mid : quote per base; qty : base; fee : quote; mid : just before the execution."""

    ts_ns: Int64s
    side: Int64s
    price: Float64s
    qty: Float64s
    fee: Float64s
    maker: npt.NDArray[np.bool_]
    mid: Float64s


@dataclass(frozen=True, slots=True)
class BarRun:
    """A run: profit [quote] and position [base] after each row, the parts of the profit at the end [quote], executions."""

    pnl: Float64s
    position: Float64s
    spread_pnl: float
    hedge_pnl: float
    inventory_pnl: float
    fees: float
    funding: float
    fills: BarFills

    def markouts_bps(self, bars: Bars, horizons_s: tuple[int, ...]) -> dict[float, float]:
        """Mean mid move in our favour after maker fills by horizon [s], weighted by amount; nan: no fill with that future.

        From the mid before the fill to the last mid at or before fill + horizon. The move of the bar that filled us is in it.
        """
        grid = _MARKOUT_GRID / float(bars.mid[0])
        maker = self.fills.maker
        out: dict[float, float] = {}
        for horizon in horizons_s:
            moves = np.empty(int(maker.sum()))
            markouts_path(
                self.fills.ts_ns[maker],
                self.fills.side[maker],
                bars.ts_ns,
                np.rint(bars.mid * grid).astype(np.int64),
                np.rint(self.fills.mid[maker] * grid).astype(np.int64),
                horizon * NS_PER_S,
                moves,
            )
            known = ~np.isnan(moves)
            weights = self.fills.qty[maker][known]
            out[float(horizon)] = float(np.average(moves[known], weights=weights)) * 1e4 if known.any() else math.nan
        return out


class _BarLedger:
    """The attribution of THEORY section 9 in floats (the guide's bars have no tick and no lot); the total is the fsum of its parts."""

    def __init__(self, costs: BarCosts) -> None:
        self._costs = costs
        self.position = self.spread = self.hedge = self.inventory = self.fees = self.funding = 0.0
        self.fills: list[tuple[int, int, float, float, float, bool, float]] = []

    @property
    def total(self) -> float:
        return math.fsum((self.spread, self.hedge, self.inventory, -self.fees, self.funding))

    def mark(self, before: float, after: float) -> None:
        self.inventory += self.position * (after - before)

    def fill(self, ts_ns: int, side: int, price: float, qty: float, maker: bool, mid: float) -> None:
        edge = side * qty * (mid - price)
        fee = qty * price * (self._costs.maker_fee if maker else self._costs.taker_fee)
        if maker:
            self.spread += edge
        else:
            self.hedge += edge
        self.fees += fee
        self.position += side * qty
        self.fills.append((ts_ns, side, price, qty, fee, maker, mid))

    def settle_funding(self, rate: float, price: float) -> None:
        self.funding -= self.position * price * rate

    def table(self) -> BarFills:
        ts_ns, side, price, qty, fee, maker, mid = zip(*self.fills, strict=True) if self.fills else ((),) * 7
        return BarFills(
            np.array(ts_ns, dtype=np.int64),
            np.array(side, dtype=np.int64),
            np.array(price, dtype=np.float64),
            np.array(qty, dtype=np.float64),
            np.array(fee, dtype=np.float64),
            np.array(maker, dtype=np.bool_),
            np.array(mid, dtype=np.float64),
        )


def run_bars(
    bars: Bars, market_maker: QuotesLikeTheGuide, hedger: HedgesLikeTheGuide | None, order_base: float, costs: BarCosts, apply_funding: bool
) -> BarRun:
    """Run over all rows, see the module.

    Parameters
    ----------
    bars
        Checked columns.
    market_maker, hedger
        Objects with the guide's methods; their state moves with the run.
    order_base : float
        Base per quote.

    Raises
    ------
    DataError
        An answer of theirs that cannot be used, with the row.
    """
    n = len(bars)
    mids = bars.mid.tolist()
    bid, ask, times = bars.bid.tolist(), bars.ask.tolist(), bars.ts_ns.tolist()
    # fmin and fmax ignore nan: without a recorded extreme the touch speaks alone
    low = np.fmin(bars.ask, bars.trade_low).tolist()
    high = np.fmax(bars.bid, bars.trade_high).tolist()
    most = (costs.fill_frac * bars.volume).tolist()
    rate = bars.funding_rate.tolist()
    funding_price = np.where(np.isnan(bars.mark_price), bars.mid, bars.mark_price).tolist()
    ask_maker = _Maker(market_maker, bars)
    ask_hedger = _Hedger(hedger, bars) if hedger is not None else None
    ledger = _BarLedger(costs)
    pnl, position = np.empty(n), np.empty(n)
    hedge_base = 0.0
    bid_quote = ask_quote = math.nan
    for i in range(n):
        if i > 0:
            # a comparison with nan, a side that is not quoted, is false
            bought = order_base if low[i] < bid_quote else 0.0
            sold = order_base if high[i] > ask_quote else 0.0
            due = bought + sold
            if due > 0.0 and most[i] > 0.0:
                share = min(1.0, most[i] / due)
                if bought > 0.0:
                    ledger.fill(times[i], 1, bid_quote, share * bought, True, mids[i - 1])
                if sold > 0.0:
                    ledger.fill(times[i], -1, ask_quote, share * sold, True, mids[i - 1])
            ledger.mark(mids[i - 1], mids[i])
            if hedge_base != 0.0:
                side = 1 if hedge_base > 0.0 else -1
                ledger.fill(times[i], side, ask[i] if side > 0 else bid[i], abs(hedge_base), False, mids[i])
            if apply_funding and not math.isnan(rate[i]):
                ledger.settle_funding(rate[i], funding_price[i])
        bid_quote, ask_quote = ask_maker.quotes(i, mids[i], ledger.position)
        # post-only: the venue would refuse a quote at or beyond the other side
        if bid_quote >= ask[i]:
            bid_quote = math.nan
        if ask_quote <= bid[i]:
            ask_quote = math.nan
        hedge_base = ask_hedger.size(i, mids[i], ledger.position) if ask_hedger is not None else 0.0
        # while a hedge is out, the quote of ours that it would hit is not
        if hedge_base > 0.0:
            ask_quote = math.nan
        elif hedge_base < 0.0:
            bid_quote = math.nan
        pnl[i] = ledger.total
        position[i] = ledger.position
    return BarRun(pnl, position, ledger.spread, ledger.hedge, ledger.inventory, ledger.fees, ledger.funding, ledger.table())


class _Maker:
    """Asks a market maker of the guide for its quotes at a row."""

    def __init__(self, maker: QuotesLikeTheGuide, bars: Bars) -> None:
        self._maker = maker
        self._times = bars.ts_ns.tolist()
        self._volatility = bars.volatility.tolist()
        self._signals = tuple(_known(column) for column in (bars.microprice, bars.ofi, bars.kyle_lambda, bars.short_vol))
        self._timed = _takes_time(maker.update_market_data)

    def quotes(self, i: int, mid: float, position: float) -> tuple[float, float]:
        """Bid and ask to send, quote per base; nan on a side that is not quoted."""
        microprice, ofi, kyle, short = self._signals
        when = {"now_ns": self._times[i]} if self._timed else {}
        try:
            self._maker.update_market_data(
                mid_price=mid,
                volatility=self._volatility[i],
                inventory=position,
                microprice=microprice[i],
                order_flow_imbalance=ofi[i],
                kyle_lambda=kyle[i],
                short_volatility=short[i],
                **when,
            )
            bid, ask = self._maker.compute_quotes()
            quoted_bid = float(bid) if self._maker.should_quote_side("bid") else math.nan
            quoted_ask = float(ask) if self._maker.should_quote_side("ask") else math.nan
        except DataError as err:
            raise DataError(f"row {i}: {err}") from err
        if quoted_bid >= quoted_ask:
            raise DataError(f"row {i}: the market maker quotes bid {quoted_bid} >= ask {quoted_ask}; it would trade with itself")
        return quoted_bid, quoted_ask


class _Hedger:
    """Asks a hedger of the guide for what to cross at a row."""

    def __init__(self, hedger: HedgesLikeTheGuide, bars: Bars) -> None:
        self._hedger = hedger
        self._times = bars.ts_ns.tolist()
        self._microprice = _known(bars.microprice)
        self._timed = tuple(_takes_time(m) for m in (hedger.update_inventory, hedger.should_hedge, hedger.get_hedge_recommendation))

    def size(self, i: int, mid: float, position: float) -> float:
        """Signed base to cross at the next row, 0 = none. A recommendation to rest ('passive') waits, as in the tick replay."""
        when = {"now_ns": self._times[i]}
        update, should, recommend = (when if timed else {} for timed in self._timed)
        try:
            self._hedger.update_inventory(position, **update)
            if not self._hedger.should_hedge(**should):
                return 0.0
            advice = self._hedger.get_hedge_recommendation(current_price=mid, microprice=self._microprice[i], **recommend)
        except DataError as err:
            raise DataError(f"row {i}: {err}") from err
        if advice is None or advice.get("strategy") == "passive":
            return 0.0
        side, size = advice["side"], float(advice["hedge_size"])
        if side not in ("buy", "sell") or not 0.0 <= size < math.inf:
            raise DataError(
                f"row {i}: the hedger recommends side {side!r} and hedge_size {size}, expected 'buy' or 'sell' and an amount >= 0 in base"
            )
        return size if side == "buy" else -size


def _known(column: Float64s) -> list[float | None]:
    """The guide's signals are optional: None where a row does not know one."""
    return [None if math.isnan(value) else value for value in column.tolist()]


def _takes_time(method: Callable[..., Any]) -> bool:
    """Whether a method takes `now_ns`; the guide's own signatures do not name it."""
    parameters = inspect.signature(method).parameters
    return "now_ns" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
