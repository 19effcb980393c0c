"""Front door of the guide: backtest a market maker on a DataFrame of bars or on a tick tape.

Belongs here: `MarketMakingBacktest`, the bar fill model, and the mapping of the guide's objects to the replay. Does not belong here: the
tick engine (`replay`), reading data (`workflow`).

Bars. The decision at row i sees rows up to i; its quotes stand during row i+1 and fill only where the opposite quote (or a recorded trade
extreme) goes *through* them, at most `fill_frac` of the bar's volume; hedges cross at row i+1's opposite quote. A bar knows nothing of queues:
results carry `fill_model="bar"` and never pass a gate.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.avellaneda_stoikov import AvellanedaStoikovMarketMaker
from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_S
from mm_platform.delta_hedger import DeltaHedger
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.hedging import HedgeParams
from mm_platform.kernels.orders import OrderPolicy
from mm_platform.kernels.performance import max_drawdown_frac, round_trip_pnls, sharpe_ratio, win_rate
from mm_platform.kernels.risk import RiskParams
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import mid_path
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import Tape

if TYPE_CHECKING:
    import pandas as pd

Float64s = npt.NDArray[np.float64]

REQUIRED_COLUMNS: Final = ("timestamp", "bid", "ask", "volume", "volatility")
OPTIONAL_COLUMNS: Final = (
    "orderbook_snapshot",
    "trades",
    "microprice",
    "ofi",
    "kyle_lambda",
    "short_vol",
    "funding_rate",
    "mark_price",
    "trade_low",
    "trade_high",
)


@dataclass(frozen=True, slots=True)
class _Bars:
    """The DataFrame's columns, checked. Missing optional numbers are nan."""

    ts_ns: npt.NDArray[np.int64]
    bid: Float64s
    ask: Float64s
    volume: Float64s
    volatility: Float64s
    microprice: Float64s
    ofi: Float64s
    kyle_lambda: Float64s
    short_vol: Float64s
    funding_rate: Float64s
    mark_price: Float64s
    trade_low: Float64s
    trade_high: Float64s


class MarketMakingBacktest:
    """Backtest of quotes and hedges with fees and funding (the guide's `MarketMakingBacktest`).

    Parameters
    ----------
    initial_capital : float
        Quote currency.
    maker_fee, taker_fee : float
        Fraction of notional; negative = rebate.
    order_size : float, optional
        Base amount per quote; default `inventory_unit` of the market maker.
    fill_frac : float
        Largest share of a bar's volume that one side may fill (bars only).
    replay_settings : ReplaySettings, optional
        Venue model and latencies (tapes only).
    """

    def __init__(
        self,
        initial_capital: float = 100_000.0,
        maker_fee: float = 0.0002,
        taker_fee: float = 0.0006,
        *,
        order_size: float | None = None,
        fill_frac: float = 0.1,
        replay_settings: ReplaySettings | None = None,
    ) -> None:
        if not math.isfinite(initial_capital) or initial_capital <= 0.0:
            raise DataError(f"initial_capital is {initial_capital}, expected a positive amount of quote currency")
        for name, fee in (("maker_fee", maker_fee), ("taker_fee", taker_fee)):
            if not math.isfinite(fee) or abs(fee) > 0.1:
                raise DataError(f"{name} is {fee}, expected a fraction of notional such as 0.0002")
        if not 0.0 < fill_frac <= 1.0:
            raise DataError(f"fill_frac is {fill_frac}, expected a share of the bar's volume in (0, 1]")
        self.initial_capital = initial_capital
        self.maker_fee = maker_fee
        self.taker_fee = taker_fee
        self.order_size = order_size
        self.fill_frac = fill_frac
        self.replay_settings = replay_settings or ReplaySettings()

    def run_backtest(
        self,
        market_data: pd.DataFrame | Tape,
        market_maker: AvellanedaStoikovMarketMaker,
        hedger: DeltaHedger | None = None,
        apply_funding: bool = True,
        *,
        step_s: float = 1.0,
        risk: RiskParams | None = None,
        orders: OrderPolicy | None = None,
    ) -> dict[str, Any]:
        """Run over bars (a DataFrame with the guide's columns) or over a tick tape.

        Parameters
        ----------
        market_data
            DataFrame: `timestamp` (tz-aware or ns), `bid`, `ask`, `volume` [base], `volatility` [relative, annual]; optional columns as in
            `OPTIONAL_COLUMNS`. Or a `Tape`.
        market_maker, hedger
            The guide's objects; without a hedger inventory is never hedged.
        apply_funding
            Bars: pay `funding_rate` x `mark_price` where a rate stands. Tapes: the settled stamps on the tape.
        step_s, risk, orders
            Tapes only: decision interval in seconds, the runner's limits, how orders are sent.

        Returns
        -------
        dict
            The guide's keys (`total_pnl`, `sharpe_ratio`, `max_drawdown` [fraction of peak equity], `maker_fills`, `taker_fills`, `win_rate`,
            `total_fees_paid`, `total_funding_paid`, `equity_curve`, `inventory_curve`) and `pnl_attribution`, `markouts_bps`, `fill_model`,
            `warnings`. The attribution's parts sum to `total_pnl` exactly (`math.fsum`).

        Raises
        ------
        DataError
            Missing columns, unsorted or naive timestamps, NaN, non-positive or crossed quotes, negative volume, an empty frame.
        """
        if isinstance(market_data, Tape):
            return self._run_tape(market_data, market_maker, hedger, apply_funding, step_s, risk, orders)
        return self._run_bars(_read_bars(market_data), market_maker, hedger, apply_funding)

    # -- tick tape -------------------------------------------------------------------------------------------------------------------

    def _run_tape(
        self,
        tape: Tape,
        market_maker: AvellanedaStoikovMarketMaker,
        hedger: DeltaHedger | None,
        apply_funding: bool,
        step_s: float,
        risk: RiskParams | None,
        orders: OrderPolicy | None,
    ) -> dict[str, Any]:
        spec = tape.spec
        order_base = self.order_size if self.order_size is not None else market_maker.inventory_unit
        order_lots = spec.base_to_lots(order_base)
        if order_lots < 1:
            raise DataError(f"order size {order_base} is below one lot of {spec.instrument} ({spec.lot_base})")
        params = DecisionParams(
            quote=market_maker.quote_params(maker_fee=self.maker_fee, order_units=order_base / market_maker.inventory_unit),
            hedge=hedger.hedge_params() if hedger is not None else NEVER_HEDGE,
            risk=risk or no_limits(order_lots, spec.base_to_lots(market_maker.max_inventory) + order_lots),
            orders=orders
            or OrderPolicy(order_lots, NS_PER_S, 0, NS_PER_S, 10.0, 50.0, 0, max(1, round(float(0.001 * _mid(tape) / float(spec.tick))))),
            money=money_of(spec, maker_fee=self.maker_fee, taker_fee=self.taker_fee),
        )
        judged = tape if apply_funding else _without_funding(tape)
        features = compute_features(judged, int(step_s * NS_PER_S))
        result = replay(judged, features, [ScheduledParameters(int(features.grid_ts[0]), params)], self.replay_settings)
        out = result.to_guide(self.initial_capital, mid_path(judged))
        if not apply_funding:
            out["warnings"].append("apply_funding is False: funding stamps on the tape were not paid")
        return out

    # -- bars ------------------------------------------------------------------------------------------------------------------------

    def _run_bars(self, bars: _Bars, market_maker: AvellanedaStoikovMarketMaker, hedger: DeltaHedger | None, apply_funding: bool) -> dict[str, Any]:
        n = len(bars.ts_ns)
        mid = 0.5 * (bars.bid + bars.ask)
        size = self.order_size if self.order_size is not None else market_maker.inventory_unit
        notes: list[str] = []
        has_rate = bool(np.isfinite(bars.funding_rate).any())
        if apply_funding and not has_rate:
            notes.append("apply_funding is True but the data has no funding_rate: funding is 0")
        book = _BarLedger(self.maker_fee, self.taker_fee)
        equity = np.empty(n)
        inventory = np.empty(n)
        pending_hedge = 0.0
        bid_quote = ask_quote = math.nan
        for i in range(n):
            if i > 0:
                book.mark(mid[i - 1], mid[i])
                low = bars.trade_low[i] if math.isfinite(bars.trade_low[i]) else bars.ask[i]
                high = bars.trade_high[i] if math.isfinite(bars.trade_high[i]) else bars.bid[i]
                most = self.fill_frac * bars.volume[i]
                # quotes of row i-1 stand during row i and fill only where the market went through them
                if low < bid_quote:
                    book.fill(int(bars.ts_ns[i]), 1, bid_quote, min(size, most), True, mid[i])
                if high > ask_quote:
                    book.fill(int(bars.ts_ns[i]), -1, ask_quote, min(size, most), True, mid[i])
                if pending_hedge != 0.0:
                    side = 1 if pending_hedge > 0 else -1
                    book.fill(int(bars.ts_ns[i]), side, bars.ask[i] if side > 0 else bars.bid[i], abs(pending_hedge), False, mid[i])
                    pending_hedge = 0.0
                if apply_funding and math.isfinite(bars.funding_rate[i]):
                    book.pay_funding(bars.funding_rate[i], bars.mark_price[i] if math.isfinite(bars.mark_price[i]) else mid[i])
            now = int(bars.ts_ns[i])
            market_maker.update_market_data(
                mid_price=float(mid[i]),
                volatility=float(bars.volatility[i]),
                inventory=book.position,
                microprice=_known(bars.microprice[i]),
                order_flow_imbalance=_known(bars.ofi[i]),
                kyle_lambda=_known(bars.kyle_lambda[i]),
                short_volatility=_known(bars.short_vol[i]),
                now_ns=now,
            )
            bid, ask = market_maker.compute_quotes()
            bid_quote = float(bid) if market_maker.should_quote_side("bid") else math.nan
            ask_quote = float(ask) if market_maker.should_quote_side("ask") else math.nan
            # post-only: a quote beyond the touch would have been refused
            if bid_quote >= bars.ask[i]:
                bid_quote = math.nan
            if ask_quote <= bars.bid[i]:
                ask_quote = math.nan
            if hedger is not None:
                hedger.update_inventory(book.position, now_ns=now)
                if hedger.should_hedge(now_ns=now):
                    advice = hedger.get_hedge_recommendation(current_price=float(mid[i]), microprice=_known(bars.microprice[i]), now_ns=now)
                    if advice is not None and advice["hedge_size"] > 0.0:
                        pending_hedge = advice["hedge_size"] if advice["side"] == "buy" else -advice["hedge_size"]
            equity[i] = book.total
            inventory[i] = book.position
        return self._bar_result(bars, mid, equity, inventory, book, notes)

    def _bar_result(self, bars: _Bars, mid: Float64s, equity: Float64s, inventory: Float64s, book: _BarLedger, notes: list[str]) -> dict[str, Any]:
        step_s = float(np.median(np.diff(bars.ts_ns))) / NS_PER_S if len(bars.ts_ns) > 1 else math.nan
        capital_curve = self.initial_capital + equity
        fills = book.fills
        trips = round_trip_pnls(
            np.array([f.side for f in fills], dtype=np.int64),
            np.array([f.price for f in fills]),
            np.array([f.qty for f in fills]),
            np.array([f.fee for f in fills]),
        )
        for note in notes:
            warnings.warn(note, stacklevel=3)
        return {
            "total_pnl": book.total,
            "sharpe_ratio": sharpe_ratio(capital_curve, step_s),
            "max_drawdown": max_drawdown_frac(capital_curve),
            "maker_fills": sum(f.maker for f in fills),
            "taker_fills": sum(not f.maker for f in fills),
            "win_rate": win_rate(trips),
            "total_fees_paid": book.fees,
            "total_funding_paid": -book.funding,
            "equity_curve": capital_curve,
            "inventory_curve": inventory,
            "timestamps": bars.ts_ns,
            "pnl_attribution": {
                "spread_pnl": book.spread,
                "hedge_pnl": book.hedge,
                "inventory_pnl": book.inventory,
                "fees": -book.fees,
                "funding": book.funding,
            },
            "markouts_bps": _bar_markouts(bars.ts_ns, mid, fills),
            "final_inventory": book.position,
            "fill_model": "bar",
            "fill_frac": self.fill_frac,
            "warnings": notes,
        }


NEVER_HEDGE: Final = HedgeParams(threshold=math.inf, target=0.0, ratio=0.0, min_size=0.0, max_latency_s=0.0, to_boundary=0)


def no_limits(order_lots: int, position_lots: int) -> RiskParams:
    """Limits that bind on size only: what a bare backtest of the guide's objects means."""
    return RiskParams(order_lots, position_lots, math.inf, 0, 0, math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _BarFill:
    ts_ns: int
    side: int
    price: float
    qty: float
    fee: float
    maker: bool
    mid: float


class _BarLedger:
    """The attribution of THEORY section 9 on bars: floats (the guide's bars have no tick or lot), total = fsum of the parts."""

    def __init__(self, maker_fee: float, taker_fee: float) -> None:
        self._maker_fee, self._taker_fee = maker_fee, taker_fee
        self.position = self.spread = self.hedge = self.inventory = self.fees = self.funding = 0.0
        self.fills: list[_BarFill] = []

    @property
    def total(self) -> float:
        return math.fsum((self.spread, self.hedge, self.inventory, -self.fees, self.funding))

    def mark(self, before: float, after: float) -> None:
        self.inventory += self.position * (after - before)

    def fill(self, ts_ns: int, side: int, price: float, qty: float, maker: bool, mid: float) -> None:
        if qty <= 0.0:
            return
        edge = side * qty * (mid - price)
        fee = qty * price * (self._maker_fee if maker else self._taker_fee)
        if maker:
            self.spread += edge
        else:
            self.hedge += edge
        self.fees += fee
        self.position += side * qty
        self.fills.append(_BarFill(ts_ns, side, price, qty, fee, maker, mid))

    def pay_funding(self, rate: float, price: float) -> None:
        self.funding -= self.position * price * rate


def _bar_markouts(ts_ns: npt.NDArray[np.int64], mid: Float64s, fills: list[_BarFill]) -> dict[float, float]:
    from mm_platform.replay.result import MARKOUT_HORIZONS_S

    out: dict[float, float] = {}
    for horizon in MARKOUT_HORIZONS_S:
        moves = []
        for fill in fills:
            at = fill.ts_ns + int(horizon * NS_PER_S)
            if fill.maker and at <= ts_ns[-1]:
                later = mid[int(np.searchsorted(ts_ns, at, side="right")) - 1]
                moves.append((fill.side * (later - fill.mid) / fill.mid, fill.qty))
        out[float(horizon)] = float(np.average([m for m, _ in moves], weights=[q for _, q in moves])) * 1e4 if moves else math.nan
    return out


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mid(tape: Tape) -> float:
    priced = tape.price_ticks[tape.price_ticks > 0]
    if len(priced) == 0:
        raise DataError(f"{tape.spec.instrument}: the tape has no prices")
    return float(np.median(priced)) * float(tape.spec.tick)


def _without_funding(tape: Tape) -> Tape:
    from mm_platform.tape.layout import Kind

    keep = tape.kind != Kind.FUNDING
    return Tape.from_columns(
        tape.spec,
        {name: column[keep] for name, column in tape.columns().items()},
        initial_book=tape.initial_book,
        sha256=tape.sha256,
        clock_repaired=tape.clock_repaired,
    )


def _read_bars(frame: pd.DataFrame) -> _Bars:
    import pandas as pd

    missing = [name for name in REQUIRED_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"market_data lacks the columns {', '.join(missing)}; required: {', '.join(REQUIRED_COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}"
        )
    if len(frame) == 0:
        raise DataError("market_data has no rows")
    stamp = frame["timestamp"]
    if isinstance(stamp.dtype, pd.DatetimeTZDtype):
        ts_ns = stamp.dt.tz_convert("UTC").dt.as_unit("ns").astype("int64").to_numpy()
    elif pd.api.types.is_integer_dtype(stamp.dtype):
        ts_ns = stamp.to_numpy(dtype=np.int64)
        if len(ts_ns) and not 10**17 < int(ts_ns[0]) < 10**19:
            raise DataError(f"timestamp {ts_ns[0]} is not in nanoseconds since 1970")
    else:
        raise DataError(f"timestamp has type {stamp.dtype}: expected tz-aware datetimes or integer nanoseconds since 1970 (UTC)")
    back = np.flatnonzero(np.diff(ts_ns) <= 0)
    if len(back):
        raise DataError(
            f"timestamp does not increase at row {int(back[0]) + 1}: {ts_ns[back[0] + 1]} follows {ts_ns[back[0]]}; sort the rows and drop duplicates"
        )

    def column(name: str) -> Float64s:
        if name not in frame.columns:
            return np.full(len(frame), np.nan)
        return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)

    bars = _Bars(
        np.asarray(ts_ns, dtype=np.int64),
        *(column(n) for n in ("bid", "ask", "volume", "volatility", "microprice", "ofi", "kyle_lambda", "short_vol")),
        *(column(n) for n in ("funding_rate", "mark_price", "trade_low", "trade_high")),
    )
    for name in ("bid", "ask", "volume", "volatility"):
        values = getattr(bars, name)
        wrong = np.flatnonzero(~np.isfinite(values) | (values < 0) | ((values == 0) & (name in ("bid", "ask"))))
        if len(wrong):
            raise DataError(
                f"{name} is {values[wrong[0]]} at row {int(wrong[0])}: expected a finite number {'> 0' if name in ('bid', 'ask') else '>= 0'}"
            )
    crossed = np.flatnonzero(bars.ask <= bars.bid)
    if len(crossed):
        i = int(crossed[0])
        raise DataError(f"row {i} is crossed: bid {bars.bid[i]} >= ask {bars.ask[i]}")
    return bars
