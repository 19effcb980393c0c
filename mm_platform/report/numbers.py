"""How reports write and scale numbers. Belongs here: texts of amounts, ends of axes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

UNKNOWN = "–"


def amount(value: float, reach: float | None = None) -> str:
    """An amount with thousands separators and about three significant digits of `reach` (default: of itself); a dash where not finite."""
    if not math.isfinite(value):
        return UNKNOWN
    size = abs(value if reach is None or not math.isfinite(reach) else reach)
    if size == 0.0 or size >= 1_000.0:
        return f"{value:,.0f}"
    # three digits in all: 123, 12.3, 1.23, 0.123, ...
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def money(value: float) -> str:
    """An amount of quote currency: cents, or three digits where it is smaller than that; a dash where not finite."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.2f}" if value == 0.0 or abs(value) >= 1.0 else amount(value)


def reach_of(values: npt.NDArray[np.float64] | Iterable[float]) -> float:
    """Largest finite absolute value, 1 where there is none or all are zero: the end of a scale around zero."""
    finite = np.abs(np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64))
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if len(finite) and finite.max() > 0.0 else 1.0


def roomy(values: npt.NDArray[np.float64], room_frac: float) -> tuple[float, float]:
    """Ends of an axis over `values`, with a share of their span left free at both ends for labels."""
    room = room_frac * (float(np.ptp(values)) or 1.0)
    return float(values.min()) - room, float(values.max()) + room
