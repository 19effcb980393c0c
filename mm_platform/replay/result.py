"""What a replay says: fills, equity, attribution, counters, mark-outs; and the guide's dict of it.

Belongs here: frozen results and their read-outs. Money comes from `kernels.accounting`, measures from `kernels.performance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import MAKER_FILLS, MAKER_LOTS, POSITION, TAKER_FILLS, TAKER_LOTS, Attribution, attribution, markouts_path
from mm_platform.kernels.performance import max_drawdown_frac, round_trip_pnls, sharpe_ratio, win_rate
from mm_platform.kernels.quoting import CLAMP_NAMES
from mm_platform.kernels.risk import REASONS
from mm_platform.replay import loop
from mm_platform.replay.messages import FillLog
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.book_path import MidPath

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

MARKOUT_HORIZONS_S: Final = (1, 5, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class FillTable:
    """Executions of ours in venue order; equal-length columns."""

    exch_ts: Int64s
    local_ts: Int64s
    order_id: Int64s
    side: Int64s
    price_ticks: Int64s
    lots: Int64s
    leaves_lots: Int64s
    maker: Int64s
    purpose: Int64s
    mid_half_ticks: Int64s
    fee_nano: Int64s
    position_lots: Int64s

    @classmethod
    def from_log(cls, log: FillLog) -> FillTable:
        n = int(log.n[0])
        return cls(*(column[:n].copy() for column in log[1:]))

    def __len__(self) -> int:
        return len(self.exch_ts)


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
    """One run. Sampled series are on the venue's truth; the last sample is the end of the run."""

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

    @property
    def attribution(self) -> Attribution:
        return attribution(self.ledger, self.spec)

    @property
    def maker_fills(self) -> int:
        return int(self.ledger[MAKER_FILLS])

    @property
    def taker_fills(self) -> int:
        return int(self.ledger[TAKER_FILLS])

    @property
    def final_position_base(self) -> float:
        return self.spec.lots_to_base(int(self.ledger[POSITION]))

    @property
    def volume_base(self) -> float:
        return self.spec.lots_to_base(int(self.ledger[MAKER_LOTS] + self.ledger[TAKER_LOTS]))

    @property
    def duration_s(self) -> float:
        return (self.through_ns - self.from_ns) / NS_PER_S

    def volume_quote(self) -> float:
        """Traded notional."""
        return float(np.sum(self.fills.price_ticks * self.fills.lots)) * float(self.spec.tick) * self.spec.lot_base

    def block_pnls(self, block_s: float) -> Float64s:
        """Profit per whole block of `block_s` seconds from the start (the last, shorter one is left out), quote."""
        edges = np.arange(self.from_ns, self.through_ns + 1, int(block_s * NS_PER_S))
        if len(edges) < 2:
            return np.empty(0)
        at = np.searchsorted(self.sample_ts, edges, side="right") - 1
        equity = np.where(at >= 0, self.sample_equity_quote[np.maximum(at, 0)], 0.0)
        return np.diff(equity)

    def markouts_frac(self, mids: MidPath, horizon_s: float) -> Float64s:
        """Per fill: relative move of the mid in our favour from just before it to `horizon_s` later (nan: beyond the tape)."""
        out = np.empty(len(self.fills))
        markouts_path.compiled(
            self.fills.exch_ts, self.fills.side, mids.exch_ts, mids.half_ticks, self.fills.mid_half_ticks, int(horizon_s * NS_PER_S), out
        )
        return out

    def mean_maker_markouts_bps(self, mids: MidPath) -> dict[float, float]:
        """Mean mark-out of maker fills by horizon [s], in bps, weighted by lots (nan: no fill with that future)."""
        maker = self.fills.maker == 1
        result: dict[float, float] = {}
        for horizon in MARKOUT_HORIZONS_S:
            values = self.markouts_frac(mids, horizon)
            known = maker & ~np.isnan(values)
            weight = self.fills.lots[known].astype(np.float64)
            result[float(horizon)] = float(np.average(values[known], weights=weight)) * 1e4 if known.any() else math.nan
        return result

    def sharpe_ratio(self, initial_capital: float) -> float:
        """Annualised, on equal-time returns of capital plus profit."""
        if len(self.sample_ts) < 4:
            return math.nan
        step_s = float(np.median(np.diff(self.sample_ts[:-1]))) / NS_PER_S
        return sharpe_ratio(initial_capital + self.sample_equity_quote[:-1], step_s)

    def max_drawdown_frac(self, initial_capital: float) -> float:
        return max_drawdown_frac(initial_capital + self.sample_equity_quote)

    def round_trips(self) -> Float64s:
        tick, lot = float(self.spec.tick), self.spec.lot_base
        return round_trip_pnls(self.fills.side, self.fills.price_ticks * tick, self.fills.lots * lot, self.fills.fee_nano * 1e-9)

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
