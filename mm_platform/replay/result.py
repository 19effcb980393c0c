"""What a replay says about one parameter set: fills, equity, attribution, counters, mark-outs; and the guide's dict of it.

Belongs here: the frozen result and its read-outs. Money comes from `kernels.accounting`, measures from `kernels.performance`, statistics of
fills and orders from the modules beside this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import (
    MAKER_FILLS,
    MAKER_LOTS,
    MARK_HALF,
    MICRO,
    POSITION,
    TAKER_FILLS,
    TAKER_LOTS,
    TRAILING_VOLUME,
    Attribution,
    attribution,
    money_of,
)
from mm_platform.kernels.hedge_pnl import HedgeAttribution
from mm_platform.kernels.money import base_per_lot
from mm_platform.kernels.performance import max_drawdown_frac, round_trip_pnls, sharpe_ratio, win_rate
from mm_platform.kernels.quoting import CLAMP_NAMES
from mm_platform.kernels.risk import REASONS
from mm_platform.replay import loop
from mm_platform.replay.assumptions import Assumptions, FeeTierAssumption, VenueAssumptions, latency_assumptions
from mm_platform.replay.execution_statistics import FillRatio, Latencies, fill_ratios, latencies
from mm_platform.replay.fill_table import FillTable
from mm_platform.replay.hedge_leg import HedgeLeg
from mm_platform.replay.markouts import MARKOUT_HORIZONS_S, InventoryBucket, inventory_buckets, markouts_frac, mean_maker_markouts_bps
from mm_platform.replay.order_table import OrderTable
from mm_platform.replay.queue_statistics import QueueStatistics, queue_statistics
from mm_platform.replay.sample_table import SampleTable
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import MidPath
from mm_platform.tape.layout import Tape

__all__ = ["MARKOUT_HORIZONS_S", "FillTable", "ReplayResult", "RunCounters"]

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RunCounters:
    """How often what happened."""

    decisions: int
    valid_decisions: int
    quoted_sides: int
    orders: int
    quotes_sent: int
    cancels: int
    post_only_rejects: int
    cancel_rejects: int
    hedges: int
    flattens: int
    mean_abs_position_lots: float
    clamp_frac: dict[str, float]
    risk_frac: dict[str, float]

    @classmethod
    def from_array(cls, c: Int64s) -> RunCounters:
        valid = max(int(c[loop.C_VALID]), 1)
        decisions = max(int(c[loop.C_DECISIONS]), 1)
        return cls(
            decisions=int(c[loop.C_DECISIONS]),
            valid_decisions=int(c[loop.C_VALID]),
            quoted_sides=int(c[loop.C_QUOTED_SIDES]),
            orders=int(c[loop.C_ORDERS]),
            quotes_sent=int(c[loop.C_QUOTES_SENT]),
            cancels=int(c[loop.C_CANCELS]),
            post_only_rejects=int(c[loop.C_REJECTS]),
            cancel_rejects=int(c[loop.C_CANCEL_REJECTS]),
            hedges=int(c[loop.C_HEDGES]),
            flattens=int(c[loop.C_FLATTENS]),
            mean_abs_position_lots=int(c[loop.C_ABS_POSITION]) / valid,
            clamp_frac={name: int(c[loop.C_CLAMP0 + bit.bit_length() - 1]) / valid for bit, name in CLAMP_NAMES.items()},
            risk_frac={name: int(c[loop.C_REASON0 + bit.bit_length() - 1]) / decisions for bit, name in REASONS.items()},
        )


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """One run of one parameter set. Sampled series are on the venue's truth; the last sample is the end of the run.

    `fills` holds the executions at all venues of the run; money and measures here are those of the instrument quoted (venue 0).
    `sample_equity_quote` is of all venues, in quote (what an inverse contract earns is valued at the mid). A run with a sink holds no `fills`. `orders` is None unless the order log was asked for, `hedge` unless the
    run had a second venue. `status` is "done", or why the set was stopped.
    """

    spec: InstrumentSpec
    settings: ReplaySettings
    tape_sha256: str
    clock_repaired: bool
    from_ns: int
    through_ns: int
    ledger: Int64s
    fills: FillTable
    sample_ts: Int64s
    sample_equity_quote: Float64s
    sample_position_lots: Int64s
    sample_mid_half_ticks: Int64s
    counters: RunCounters
    set_no: int = 0
    strategy: str = "platform"
    status: str = "done"
    orders: OrderTable | None = None
    hedge: HedgeLeg | None = None
    sample_liquidation_distance_frac: Float64s | None = None

    @property
    def attribution(self) -> Attribution:
        """Of the venue quoted on."""
        return attribution(self.ledger, self.spec)

    @property
    def hedge_attribution(self) -> HedgeAttribution | None:
        """Of both venues, exact; None for a run on one."""
        return None if self.hedge is None else self.hedge.split(self.ledger, self.spec)

    @property
    def total_pnl(self) -> float:
        """Of all venues, in the currency of the instrument quoted."""
        both = self.hedge_attribution
        return self.attribution.total_pnl if both is None else float(both.total)

    @property
    def quote_fills(self) -> FillTable:
        """Executions at the venue quoted on."""
        return self.fills if not self.fills.venue_no.any() else self.fills.of_venue(0)

    @property
    def maker_fills(self) -> int:
        return int(self.ledger[MAKER_FILLS])

    @property
    def taker_fills(self) -> int:
        return int(self.ledger[TAKER_FILLS])

    @property
    def base_per_lot(self) -> float:
        """Base that a lot stands for; of an inverse contract at the last mark (nan before the first)."""
        if self.spec.contract != "inverse":
            return self.spec.lot_base
        mark = int(self.ledger[MARK_HALF])
        return base_per_lot(money_of(self.spec), 0.5 * mark * float(self.spec.tick)) if mark else math.nan

    @property
    def final_position_base(self) -> float:
        lots = int(self.ledger[POSITION])
        return self.spec.lots_to_base(lots) if self.spec.contract != "inverse" else lots * self.base_per_lot

    @property
    def volume_base(self) -> float:
        return self.spec.lots_to_base(self.volume_lots) if self.spec.contract != "inverse" else self.volume_lots * self.base_per_lot

    @property
    def volume_lots(self) -> int:
        return int(self.ledger[MAKER_LOTS] + self.ledger[TAKER_LOTS])

    @property
    def duration_s(self) -> float:
        return (self.through_ns - self.from_ns) / NS_PER_S

    @property
    def has_fills(self) -> bool:
        """Whether the executions are at hand, not in a sink."""
        return len(self.fills) > 0 or self.volume_lots == 0

    def volume_quote(self) -> float:
        """Traded notional; from the ledger, which rounds each execution to 1e-6, where the executions are in a sink."""
        if not self.has_fills:
            return (int(self.ledger[TRAILING_VOLUME]) - round(self.settings.trailing_volume_quote * MICRO)) / MICRO
        fills = self.quote_fills
        if self.spec.contract == "inverse":
            return float(np.sum(fills.lots)) * money_of(self.spec).lot_quote
        return float(np.sum(fills.price_ticks * fills.lots)) * float(self.spec.tick) * self.spec.lot_base

    def block_pnls(self, block_s: float) -> Float64s:
        """Profit per whole block of `block_s` seconds from the start (the last, shorter one is left out), quote."""
        edges = np.arange(self.from_ns, self.through_ns + 1, int(block_s * NS_PER_S))
        if len(edges) < 2:
            return np.empty(0)
        at = np.searchsorted(self.sample_ts, edges, side="right") - 1
        equity = np.where(at >= 0, self.sample_equity_quote[np.maximum(at, 0)], 0.0)
        return np.diff(equity)

    def max_drawdown(self) -> float:
        """Largest fall of the sampled equity from its peak, quote, positive."""
        equity = self.sample_equity_quote
        return float(np.max(np.maximum.accumulate(equity) - equity)) if len(equity) else 0.0

    def samples(self) -> SampleTable:
        """The sampled series as a table."""
        return SampleTable.of_one_set(
            self.sample_ts,
            self.sample_equity_quote,
            self.sample_position_lots,
            self.sample_mid_half_ticks,
            set_no=self.set_no,
            hedge_position_lots=None if self.hedge is None else self.hedge.sample_position_lots,
            liquidation_distance_frac=self.sample_liquidation_distance_frac,
        )

    # -- fills and what came after them -----------------------------------------------------------------------------------------------------

    def markouts_frac(self, mids: MidPath, horizon_s: float) -> Float64s:
        """Per fill of the venue quoted on: relative move of the mid in our favour from just before it to `horizon_s` later (nan: beyond the tape)."""
        return markouts_frac(self.quote_fills, mids, horizon_s)

    def mean_maker_markouts_bps(self, mids: MidPath) -> dict[float, float]:
        """Mean mark-out of maker fills by horizon [s], in bps, weighted by lots (nan: no fill with that future)."""
        return mean_maker_markouts_bps(self.quote_fills, mids)

    def inventory_buckets(self, mids: MidPath) -> tuple[InventoryBucket, ...]:
        """Inventory profit by the age of the fills it comes from; the buckets sum to the ledger's inventory part."""
        return inventory_buckets(self.quote_fills, mids, self.spec, int(self.ledger[MARK_HALF]))

    def queue_statistics(self, tape: Tape | None = None) -> QueueStatistics:
        """Queue positions and times to fill of maker fills; with the tape, what moved the queues."""
        return queue_statistics(self.quote_fills, tape)

    def latencies(self) -> Latencies:
        """How long messages took; requests only where the order log was kept."""
        return latencies(self.fills, self.orders)

    def fill_ratios(self) -> tuple[FillRatio, ...]:
        """Fill ratios by purpose, per order and per lot, over all venues; empty unless the order log was kept."""
        return () if self.orders is None else fill_ratios(self.fills, self.orders)

    # -- what it rests on -------------------------------------------------------------------------------------------------------------------

    @property
    def assumptions(self) -> Assumptions:
        """What the run assumes and what it does not model."""
        venues = [_venue_assumptions(self.spec, self.settings, self.tape_sha256, self.clock_repaired, "quote")]
        if self.hedge is not None:
            leg = self.hedge
            venues.append(_venue_assumptions(leg.spec, leg.settings, leg.tape_sha256, leg.clock_repaired, "hedge"))
        balances = self.settings.balances
        funds = (
            () if balances is None else (f"deposits and withdrawals: the account starts with {balances.base_lots} lots and {balances.quote:g} quote",)
        )
        return Assumptions.of(tuple(venues), strategy=self.strategy, margin=_margin_assumption(self.settings), also_not_modelled=funds)

    # -- measures ---------------------------------------------------------------------------------------------------------------------------

    def sharpe_ratio(self, initial_capital: float) -> float:
        """Annualised, on equal-time returns of capital plus profit."""
        if len(self.sample_ts) < 4:
            return math.nan
        step_s = float(np.median(np.diff(self.sample_ts[:-1]))) / NS_PER_S
        return sharpe_ratio(initial_capital + self.sample_equity_quote[:-1], step_s)

    def max_drawdown_frac(self, initial_capital: float) -> float:
        return max_drawdown_frac(initial_capital + self.sample_equity_quote)

    def round_trips(self) -> Float64s:
        """Profit of each closed round trip, fees in, in the contract's currency."""
        fills = self.quote_fills
        price = fills.price_ticks * float(self.spec.tick)
        if self.spec.contract == "inverse":
            # a contract of n quote is short n / price of base
            return round_trip_pnls(fills.side, -1.0 / price, fills.lots * money_of(self.spec).lot_quote, fills.fee_nano * 1e-9)
        return round_trip_pnls(fills.side, price, fills.lots * self.spec.lot_base, fills.fee_nano * 1e-9)

    def to_guide(self, initial_capital: float, mids: MidPath) -> dict[str, Any]:
        """The guide's result keys, the attribution and the mark-outs, and what the run was modelled with."""
        parts = self.attribution
        return {
            "total_pnl": parts.total_pnl,
            "sharpe_ratio": self.sharpe_ratio(initial_capital),
            "max_drawdown": self.max_drawdown_frac(initial_capital),
            "maker_fills": self.maker_fills,
            "taker_fills": self.taker_fills,
            "win_rate": win_rate(self.round_trips()),
            "total_fees_paid": parts.fees,
            "total_funding_paid": 0.0 - parts.funding,
            "equity_curve": initial_capital + self.sample_equity_quote,
            "inventory_curve": self.sample_position_lots * self.spec.lot_base,
            "timestamps": self.sample_ts,
            "pnl_attribution": {
                "spread_pnl": parts.spread_pnl,
                "hedge_pnl": parts.hedge_pnl,
                "inventory_pnl": parts.inventory_pnl,
                "fees": -parts.fees,
                "funding": parts.funding,
            },
            "markouts_bps": self.mean_maker_markouts_bps(mids),
            "final_inventory": self.final_position_base,
            "fill_model": self.settings.mode,
            "queue_model": self.settings.queue_model,
            "entry_latency_ns": self.settings.entry_latency_ns,
            "response_latency_ns": self.settings.response_latency_ns,
            "warnings": [],
        }


def _venue_assumptions(
    spec: InstrumentSpec, settings: ReplaySettings, tape_sha256: str, clock_repaired: bool, role: Literal["quote", "hedge"]
) -> VenueAssumptions:
    entry, response = latency_assumptions(settings.latency_model)
    behind = settings.behind
    return VenueAssumptions.of(
        spec,
        mode=settings.mode,
        queue_model=settings.queue_model if behind is None else f"user:{getattr(behind, '__name__', 'function')}",
        queue_power=settings.power,
        partial_fills=settings.partial_fills,
        entry_latency=entry,
        response_latency=response,
        dataset_sha256=tape_sha256,
        clock_repaired=clock_repaired,
        role=role,
        tiers=tuple(FeeTierAssumption(*tier) for tier in settings.tiers),
    )


def _margin_assumption(settings: ReplaySettings) -> str:
    if settings.margin is None:
        return "not tracked: no requirement, no liquidation"
    m = settings.margin
    return (
        f"isolated: collateral {m.collateral:,.6g}, at most {m.max_leverage:g} times leverage, maintenance {m.maintenance_frac:.3%} of notional; looked at "
        "when equity is sampled, and a liquidated set ends there"
    )
