"""Front door of the guide: backtest a market maker on a DataFrame of bars or on a tick tape.

Belongs here: `MarketMakingBacktest`, the mapping of the guide's objects to the replay, the guide's result keys. Does not belong here: fills on
bars (`replay.bar_run`), the tick engine (`replay`), reading files (`workflow`).

A bar knows nothing of queues: results on bars carry `fill_model="bar"` and never pass a gate. Results on tapes come from the loop that sweeps
and gate use, and name its mode, models and latencies.
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.avellaneda_stoikov import AvellanedaStoikovMarketMaker
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import NS_PER_S, SECONDS_PER_DAY, iso_utc
from mm_platform.delta_hedger import DeltaHedger
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.decision import DecisionParams
from mm_platform.kernels.hedging import HedgeParams
from mm_platform.kernels.orders import OrderPolicy
from mm_platform.kernels.performance import max_drawdown_frac, round_trip_pnls, sharpe_ratio, win_rate
from mm_platform.kernels.risk import RiskParams
from mm_platform.replay.bar_run import BarCosts, BarRun, HedgesLikeTheGuide, QuotesLikeTheGuide, run_bars
from mm_platform.replay.bars import Bars, read_bars
from mm_platform.replay.result import MARKOUT_HORIZONS_S, ReplayResult
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import MidPath, mid_path
from mm_platform.tape.features import compute_features
from mm_platform.tape.layout import Kind, Tape

if TYPE_CHECKING:
    import pandas as pd

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

NEVER_HEDGE: Final = HedgeParams(threshold=math.inf, target=0.0, ratio=0.0, min_size=0.0, max_latency_s=0.0, to_boundary=0)

# base per quote of a market maker that does not say: one unit, as in the guide
_GUIDE_ORDER_BASE: Final = 1.0
# equal-time steps per row beyond which a frame is mostly gaps
_MAX_STEPS_PER_ROW: Final = 10
# no venue settles funding more often
_SHORTEST_FUNDING_INTERVAL_NS: Final = 3600 * NS_PER_S
_DEFAULT_SLIPPAGE: Final = 0.001


class BacktestWarning(UserWarning):
    """Something in the input makes the result mean less than it seems to."""


class MarketMakingBacktest:
    """Backtest of quotes and hedges with fees and funding (the guide's `MarketMakingBacktest`).

    Parameters
    ----------
    initial_capital : float
        Quote currency.
    maker_fee, taker_fee : float
        Fraction of notional; negative = rebate.
    order_size : float, optional
        Base per quote; default the market maker's own `order_size`, or 1.
    fill_frac : float
        Largest share of a bar's volume that our quotes fill, both sides together (bars only).
    replay_settings : ReplaySettings, optional
        Venue model and latencies (tapes only).

    Raises
    ------
    ConfigError
        A parameter outside its domain.
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
        if not 0.0 < initial_capital < math.inf:
            raise ConfigError(f"initial_capital is {initial_capital}, expected a positive amount of quote currency")
        for name, fee in (("maker_fee", maker_fee), ("taker_fee", taker_fee)):
            if not abs(fee) <= 0.1:
                raise ConfigError(f"{name} is {fee}, expected a fraction of notional such as 0.0002")
        if not 0.0 < fill_frac <= 1.0:
            raise ConfigError(f"fill_frac is {fill_frac}, expected a share of the bar's volume in (0, 1]")
        if order_size is not None and not 0.0 < order_size < math.inf:
            raise ConfigError(f"order_size is {order_size}, expected a positive amount of base, or None for the market maker's own")
        self.initial_capital = float(initial_capital)
        self.maker_fee = float(maker_fee)
        self.taker_fee = float(taker_fee)
        self.order_size = order_size
        self.fill_frac = float(fill_frac)
        self.replay_settings = replay_settings or ReplaySettings()

    def run_backtest(
        self,
        market_data: pd.DataFrame | Tape,
        market_maker: QuotesLikeTheGuide,
        hedger: HedgesLikeTheGuide | None = None,
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
            DataFrame: `timestamp` (tz-aware or ns, at the end of the row's bar), `bid`, `ask`, `volume` [base], `volatility` [relative,
            annual]; optional columns and what happens without them: see `replay.bars`. Or a `Tape`.
        market_maker, hedger
            On bars any objects with the guide's methods, on tapes the project's classes. Their state moves with the run. Without a hedger
            inventory is never hedged.
        apply_funding
            Bars: settle `funding_rate` x `mark_price` (else the mid) in every row that has a rate. Tapes: the settlements on the tape.
        step_s, risk, orders
            Tapes only: decision interval in seconds; the runner's limits (default: size limits only); how orders are sent.

        Returns
        -------
        dict
            `total_pnl` [quote]; `sharpe_ratio` (annual; equal-time returns of capital plus profit x sqrt(365 d/step); bars: step = the median
            one, over gaps the equity is carried forward); `max_drawdown` (fraction of peak equity); `maker_fills`, `taker_fills`; `win_rate`
            (share of closed round trips with profit above 0); `total_fees_paid`, `total_funding_paid` [quote, negative = earned];
            `equity_curve` [quote, capital included], `inventory_curve` [base] at `timestamps` [ns]; `pnl_attribution` (its five parts sum to
            `total_pnl` exactly by `math.fsum`); `markouts_bps` (of maker fills, by horizon in s); `final_inventory` [base]; `fills` (dict of
            columns); `fill_model` ("bar", or the replay's mode) with the model's own numbers; `warnings`. nan = nothing can be said.

        Raises
        ------
        DataError
            A frame or tape that cannot be used (see `replay.bars.read_bars`), or objects that lack the guide's methods.
        ConfigError
            Arguments outside their domain; a market maker without a volatility on a tape.

        Warns
        -----
        BacktestWarning
            Each text of `warnings` in the result.
        """
        if not isinstance(market_maker, QuotesLikeTheGuide):
            raise DataError(f"market_maker is a {type(market_maker).__name__}: expected update_market_data, compute_quotes and should_quote_side")
        if hedger is not None and not isinstance(hedger, HedgesLikeTheGuide):
            raise DataError(f"hedger is a {type(hedger).__name__}: expected update_inventory, should_hedge and get_hedge_recommendation, or None")
        if isinstance(market_data, Tape):
            out = self._on_tape(market_data, market_maker, hedger, apply_funding, step_s, risk, orders)
        elif _is_frame(market_data):
            out = self._on_bars(read_bars(market_data), market_maker, hedger, apply_funding)
        else:
            raise DataError(f"market_data is a {type(market_data).__name__}: expected a pandas DataFrame of bars or a Tape")
        if np.min(out["equity_curve"]) <= 0.0:
            out["sharpe_ratio"] = math.nan
            out["warnings"].append("equity fell to zero or below: the account was lost there, and what follows means nothing")
        for text in out["warnings"]:
            warnings.warn(text, BacktestWarning, stacklevel=2)
        return out

    # -- bars ------------------------------------------------------------------------------------------------------------------------

    def _on_bars(self, bars: Bars, maker: QuotesLikeTheGuide, hedger: HedgesLikeTheGuide | None, apply_funding: bool) -> dict[str, Any]:
        notes = _step_notes(bars.ts_ns)
        if apply_funding:
            notes += _funding_notes(bars)
        costs = BarCosts(self.maker_fee, self.taker_fee, self.fill_frac)
        run = run_bars(bars, maker, hedger, self._order_base(maker), costs, apply_funding)
        return self._bar_result(bars, run, notes)

    def _bar_result(self, bars: Bars, run: BarRun, notes: list[str]) -> dict[str, Any]:
        equity = self.initial_capital + run.pnl
        fills = run.fills
        maker_fills = int(fills.maker.sum())
        step_ns, even_equity = _equal_time(bars.ts_ns, equity)
        return {
            "total_pnl": float(run.pnl[-1]),
            "sharpe_ratio": sharpe_ratio(even_equity, step_ns / NS_PER_S),
            "max_drawdown": max_drawdown_frac(equity),
            "maker_fills": maker_fills,
            "taker_fills": len(fills.ts_ns) - maker_fills,
            "win_rate": win_rate(round_trip_pnls(fills.side, fills.price, fills.qty, fills.fee)),
            "total_fees_paid": run.fees,
            "total_funding_paid": 0.0 - run.funding,
            "equity_curve": equity,
            "inventory_curve": run.position,
            "timestamps": bars.ts_ns,
            "pnl_attribution": {
                "spread_pnl": run.spread_pnl,
                "hedge_pnl": run.hedge_pnl,
                "inventory_pnl": run.inventory_pnl,
                "fees": 0.0 - run.fees,
                "funding": run.funding,
            },
            "markouts_bps": run.markouts_bps(bars, MARKOUT_HORIZONS_S),
            "final_inventory": float(run.position[-1]),
            "fills": {name: getattr(fills, name) for name in ("ts_ns", "side", "price", "qty", "fee", "maker", "mid")},
            "fill_model": "bar",
            "fill_frac": self.fill_frac,
            "warnings": notes,
        }

    # -- tick tape -------------------------------------------------------------------------------------------------------------------

    def _on_tape(
        self,
        tape: Tape,
        maker: QuotesLikeTheGuide,
        hedger: HedgesLikeTheGuide | None,
        apply_funding: bool,
        step_s: float,
        risk: RiskParams | None,
        orders: OrderPolicy | None,
    ) -> dict[str, Any]:
        if not isinstance(maker, AvellanedaStoikovMarketMaker) or not (hedger is None or isinstance(hedger, DeltaHedger)):
            raise DataError(
                f"a tape is replayed in compiled code, which knows AvellanedaStoikovMarketMaker and DeltaHedger, not {type(maker).__name__} and "
                f"{type(hedger).__name__}; run other strategies on bars"
            )
        if not 1e-3 <= step_s < math.inf:
            raise ConfigError(f"step_s is {step_s}, expected seconds between decisions, at least 0.001")
        spec = tape.spec
        if len(tape) == 0:
            raise DataError(f"{spec.instrument}: the tape has no rows: nothing to backtest")
        if spec.contract == "inverse":
            raise DataError(
                f"{spec.instrument} is an inverse contract: the ledger counts linear and spot money, its P&L would be wrong; use a linear one"
            )
        notes = _tape_funding_notes(tape, apply_funding)
        judged = tape if apply_funding else _without_funding(tape)
        features = compute_features(judged, round(step_s * NS_PER_S))
        mids = mid_path(judged)
        if len(features.grid_ts) == 0 or len(mids.half_ticks) == 0:
            raise DataError(f"{spec.instrument}: the tape never shows both sides of the book within a decision step: nothing can be quoted")
        order_base = self._order_base(maker)
        order_lots = spec.base_to_lots(order_base)
        if order_lots < 1:
            raise DataError(f"order size {order_base} is below one lot of {spec.instrument} ({spec.lot_base}); raise order_size")
        slippage = hedger.max_slippage if hedger is not None else _DEFAULT_SLIPPAGE
        params = DecisionParams(
            quote=maker.quote_params(),
            hedge=hedger.hedge_params() if hedger is not None else NEVER_HEDGE,
            risk=risk or size_limits(order_lots, spec.base_to_lots(abs(maker.target_inventory) + maker.max_inventory) + order_lots),
            orders=orders or order_policy(order_lots, max(1, round(slippage * 0.5 * int(mids.half_ticks[0])))),
            money=money_of(spec, maker_fee=self.maker_fee, taker_fee=self.taker_fee),
        )
        result = replay(judged, features, [ScheduledParameters(int(features.grid_ts[0]), params)], self.replay_settings)
        return self._tape_result(result, mids, notes)

    def _tape_result(self, result: ReplayResult, mids: MidPath, notes: list[str]) -> dict[str, Any]:
        out = result.to_guide(self.initial_capital, mids)
        tick, lot, fills = float(result.spec.tick), result.spec.lot_base, result.fills
        out["fills"] = {
            "ts_ns": fills.exch_ts,
            "side": fills.side,
            "price": fills.price_ticks * tick,
            "qty": fills.lots * lot,
            "fee": fills.fee_nano * 1e-9,
            "maker": fills.maker == 1,
            "mid": 0.5 * fills.mid_half_ticks * tick,
        }
        out["warnings"] += notes
        return out

    def _order_base(self, maker: object) -> float:
        if self.order_size is not None:
            return self.order_size
        own = getattr(maker, "order_size", None)
        return _GUIDE_ORDER_BASE if own is None else float(own)


def size_limits(order_lots: int, position_lots: int) -> RiskParams:
    """Limits that bind on size only: what a bare backtest of the guide's objects means."""
    return RiskParams(order_lots, position_lots, math.inf, 0, 0, math.inf, math.inf, math.inf)


def order_policy(order_lots: int, slippage_ticks: int) -> OrderPolicy:
    """Quotes re-priced at every decision, at most once a second, with a budget (10 orders a second, 50 at once) that seldom binds."""
    return OrderPolicy(
        order_lots=order_lots,
        refresh_ns=NS_PER_S,
        tolerance_ticks=0,
        backoff_ns=NS_PER_S,
        orders_per_s=10.0,
        burst=50.0,
        hedge_interval_ns=0,
        slippage_ticks=slippage_ticks,
    )


def _is_frame(data: object) -> bool:
    # a DataFrame can only come from a caller who has pandas loaded
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _median_step_ns(ts_ns: Int64s) -> int:
    return int(np.median(np.diff(ts_ns))) if len(ts_ns) > 1 else 0


def _equal_time(ts_ns: Int64s, equity: Float64s) -> tuple[int, Float64s]:
    """The median step, and the last equity known at each multiple of it from the first row: the curve itself where steps are equal."""
    step = _median_step_ns(ts_ns)
    if step == 0:
        return 0, equity
    at = np.arange(ts_ns[0], ts_ns[-1] + 1, step)
    return step, equity[np.searchsorted(ts_ns, at, side="right") - 1]


def _step_notes(ts_ns: Int64s) -> list[str]:
    step = _median_step_ns(ts_ns)
    if step == 0:
        return ["one row only: no quote can fill, and there is no return to measure"]
    if (ts_ns[-1] - ts_ns[0]) // step > _MAX_STEPS_PER_ROW * len(ts_ns):
        raise DataError(
            f"timestamps are mostly gaps: {len(ts_ns)} rows span {(ts_ns[-1] - ts_ns[0]) / NS_PER_S / SECONDS_PER_DAY:.4g} days at a median step of "
            f"{step / NS_PER_S:g} s; expected steps of about one length, split the data at the gaps"
        )
    uneven = np.flatnonzero(2 * np.abs(np.diff(ts_ns) - step) > step)
    if len(uneven) == 0:
        return []
    return [
        f"{len(uneven)} of {len(ts_ns) - 1} steps are not near the median of {step / NS_PER_S:g} s (first at row {uneven[0] + 1}): the Sharpe ratio is taken "
        "from equity carried forward to that step"
    ]


def _funding_notes(bars: Bars) -> list[str]:
    stamped = bars.ts_ns[~np.isnan(bars.funding_rate) & (bars.funding_rate != 0.0)]
    if np.isnan(bars.funding_rate).all():
        return ["apply_funding is True but the data has no funding_rate: funding is 0"]
    if len(stamped) > 1 and (shortest := int(np.diff(stamped).min())) < _SHORTEST_FUNDING_INTERVAL_NS:
        return [
            f"funding_rate stands in rows {shortest / NS_PER_S:g} s apart and every one of them was settled in full: leave it nan except at the "
            "venue's funding times, or funding is counted too often"
        ]
    return []


def _tape_funding_notes(tape: Tape, apply_funding: bool) -> list[str]:
    if not apply_funding or tape.spec.contract == "spot" or (tape.kind == Kind.FUNDING).any():
        return []
    return [f"apply_funding is True but the tape has no settlement from {iso_utc(int(tape.exch_ts[0]))} on: funding is 0"]


def _without_funding(tape: Tape) -> Tape:
    keep = tape.kind != Kind.FUNDING
    columns = {name: column[keep] for name, column in tape.columns().items()}
    # another content than the tape's: it no longer carries its hash
    return Tape.from_columns(tape.spec, columns, initial_book=tape.initial_book, clock_repaired=tape.clock_repaired)
