"""What the gate decides by: plain facts about data, fits, choice and judged profit.

Belongs here: the structure. Does not belong here: thresholds and verdicts (`gate`), producing the numbers (`workflow`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_platform.calibration.fit import Fit

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class QualityFacts:
    """Data quality summed over the partitions used; `top_of_book_match_frac` None where it could not be compared."""

    rows: int
    lines: int
    bad_lines: int
    sequence_breaks: int
    trade_id_gaps: int
    crossed_books: int
    longest_gap_s: float
    top_of_book_match_frac: float | None
    clock_repaired: bool


@dataclass(frozen=True, slots=True)
class LatencyPnl:
    """P&L of the judged part, quote, with orders and answers delayed by `latency_ms`."""

    latency_ms: float
    pnl_quote: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a fit (or the choice of the point) looked through, and the first local time judged with it; ns."""

    seen_through_ns: int
    judged_from_ns: int


@dataclass(frozen=True, slots=True)
class Bounded:
    """A value that has to lie in [low, high]."""

    name: str
    value: float
    low: float
    high: float
    unit: str

    @property
    def inside(self) -> bool:
        return self.low <= self.value <= self.high


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """Everything the gate decides by; money in quote currency.

    Parameters
    ----------
    fill_model, mode : str
        `tick` or `bar`; `conservative` or `reference` (replay modes).
    block_pnl_quote : array, shape (n,)
        P&L of the judged part per whole block, in time order.
    block_s : float
        Length of a block, s.
    inventory_life_s : float
        How long an inventory shows in results (`walk_forward.inventory_life_s`); shorter blocks are joined until they outlast it.
    total_pnl_quote : float
        Of the whole judged part, incomplete blocks included.
    in_sample_mean_quote : float
        Mean P&L per block of `block_s` of the chosen point on the choosing part.
    trials : int
        All points ever tried for this choice, failed ones included.
    trial_sharpes : tuple of float
        Sharpe ratios per block of `block_s` of the trials on the choosing part, where there is one.
    trial_blocks : int
        Blocks behind each of them.
    judged_frac : float
        Share of recorded time that is judged; turns missing blocks into days to record.
    quality : QualityFacts
    fits : tuple of Fit
        All fits used on the judged part, one group per refit.
    stretches : tuple of Stretch
        One per refit, and one for the choice of the point.
    embargo_ns : int
        Least distance of each stretch.
    identity_residual_quote : float
        Total P&L less the sum of its attribution.
    clamp_fracs : tuple of (name, share)
        Shares of quotes that each clamp bound: spread floor and ceiling, inventory, post-only. Rounding to ticks is no clamp.
    plateau_ratio : float
        Neighbours' mean P&L over the chosen point's (`selection`).
    min_spread, maker_fee : float
        Relative spread floor of the candidate; fee per side as fraction of notional, negative for a rebate.
    degraded_pnl_quote : float
        P&L of the judged part with `degraded_frac` of the maker fills' income taken away.
    degraded_frac : float
    capital_quote : float
        Equity behind the strategy.
    latency_sensitivity : tuple of LatencyPnl
        Needed where the clock was repaired.
    fitted_ranges, runner_limits : tuple of Bounded
        Values that must lie in what was fitted; parameters that must lie in the runner's own limits.
    """

    fill_model: str
    mode: str
    block_pnl_quote: Float64s
    block_s: float
    inventory_life_s: float
    total_pnl_quote: float
    in_sample_mean_quote: float
    trials: int
    trial_sharpes: tuple[float, ...]
    trial_blocks: int
    judged_frac: float
    quality: QualityFacts
    fits: tuple[Fit, ...]
    stretches: tuple[Stretch, ...]
    embargo_ns: int
    identity_residual_quote: float
    clamp_fracs: tuple[tuple[str, float], ...]
    plateau_ratio: float
    min_spread: float
    maker_fee: float
    degraded_pnl_quote: float
    degraded_frac: float
    capital_quote: float
    latency_sensitivity: tuple[LatencyPnl, ...]
    fitted_ranges: tuple[Bounded, ...]
    runner_limits: tuple[Bounded, ...]
