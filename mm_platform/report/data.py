"""What a report shows, as plain frozen data. Belongs here: the structure only; drawing is in `figures`, `thumbnails` and `page`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm_platform.kernels.accounting import Attribution


@dataclass(frozen=True, slots=True)
class SweepGrid:
    """Results over risk aversion (rows) and hedge threshold (columns, `None` = never hedge), profit in quote; `chosen` = (row, column)."""

    risk_aversions: tuple[float, ...]
    hedge_thresholds: tuple[float | None, ...]
    in_sample_pnl: npt.NDArray[np.float64]
    out_of_sample_pnl: npt.NDArray[np.float64]
    chosen: tuple[int, int]

    def threshold_labels(self) -> list[str]:
        return ["never" if t is None else f"{t:g}" for t in self.hedge_thresholds]


@dataclass(frozen=True, slots=True)
class Curve:
    """Sampled path of a run: time [ns], profit since the start [quote], inventory [base], mid [quote]."""

    ts_ns: npt.NDArray[np.int64]
    pnl_quote: npt.NDArray[np.float64]
    inventory_base: npt.NDArray[np.float64]
    mid: npt.NDArray[np.float64]

    @property
    def is_empty(self) -> bool:
        """Whether there is no profit to draw: no samples, or none that is a number."""
        return not np.isfinite(self.pnl_quote).any()


@dataclass(frozen=True, slots=True)
class ParameterRow:
    name: str
    value: str
    unit: str
    stderr: str
    source: str


@dataclass(frozen=True, slots=True)
class CheckRow:
    name: str
    outcome: str
    seen: str
    needed: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """One calibration or backtest, ready to draw. `facts` are label and value pairs for the head of the page."""

    title: str
    instrument: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    parameters: tuple[ParameterRow, ...]
    checks: tuple[CheckRow, ...]
    quality: tuple[tuple[str, ...], ...]
    quality_header: tuple[str, ...]
    curve: Curve
    attribution: Attribution
    markouts_bps: dict[float, float]
    sweep: SweepGrid | None
    notes: tuple[str, ...] = ()


def waterfall(parts: Attribution) -> tuple[tuple[str, float], ...]:
    """The parts of the total as they are drawn, in quote, costs negative; their `math.fsum` is the total."""
    return (
        ("spread", parts.spread_pnl),
        ("hedge crossing", parts.hedge_pnl),
        ("inventory", parts.inventory_pnl),
        ("fees", -parts.fees),
        ("funding", parts.funding),
    )
