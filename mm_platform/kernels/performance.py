"""Measures of an equity curve and of fills: one definition each for backtest, sweep, gate and live.

Belongs here: Sharpe on equal-time returns, drawdown, round trips. Does not belong here: statistics about many trials (`calibration`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mm_platform.core.units import SECONDS_PER_YEAR

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


def sharpe_ratio(equity_quote: Float64s, step_s: float) -> float:
    """Annualised Sharpe ratio of equal-time simple returns of total equity (capital included): mean / sd x sqrt(365 d / step).

    nan with fewer than two returns or no variation: nothing can be said.
    """
    if len(equity_quote) < 3:
        return math.nan
    returns = np.diff(equity_quote) / equity_quote[:-1]
    deviation = float(np.std(returns, ddof=1))
    return float(np.mean(returns)) / deviation * math.sqrt(SECONDS_PER_YEAR / step_s) if deviation > 0.0 else math.nan


def max_drawdown_frac(equity_quote: Float64s) -> float:
    """Largest fall from a running peak, as a fraction of that peak (>= 0)."""
    if len(equity_quote) == 0:
        return 0.0
    peak = np.maximum.accumulate(equity_quote)
    return float(np.max((peak - equity_quote) / peak))


def round_trip_pnls(side: Int64s, price: npt.NDArray[Any], qty: npt.NDArray[Any], fee: npt.NDArray[Any]) -> Float64s:
    """Profit of each closed round trip (position from flat or through flat back to flat), fees included, in quote.

    A fill that flips the position is split at flat, its fee pro rata.
    """
    trips: list[float] = []
    position = cash = 0.0
    tiny = 1e-12 * float(np.sum(qty)) if len(qty) else 0.0
    for s, p, q, f in zip(side.tolist(), price.tolist(), qty.tolist(), fee.tolist(), strict=True):
        closing = min(q, abs(position)) if position * s < 0 else 0.0
        if closing > 0.0:
            cash -= s * closing * p + f * closing / q
            position += s * closing
            if abs(position) <= tiny:
                trips.append(cash)
                position = cash = 0.0
        opening = q - closing
        if opening > tiny:
            cash -= s * opening * p + f * opening / q
            position += s * opening
    return np.asarray(trips)


def win_rate(trips: Float64s) -> float:
    """Share of closed round trips with profit above 0; nan when none closed."""
    return float(np.mean(trips > 0.0)) if len(trips) else math.nan
