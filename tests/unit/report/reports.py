"""A report of made-up numbers, for tests of pages and pictures."""

from __future__ import annotations

import numpy as np

from mm_platform.kernels.accounting import Attribution
from mm_platform.report.data import CheckRow, Curve, ParameterRow, Report, SweepGrid

START_NS = 1_720_000_000 * 10**9


def curve(samples: int = 300) -> Curve:
    rng = np.random.default_rng(samples)
    return Curve(
        START_NS + np.arange(samples) * 60 * 10**9,
        np.cumsum(rng.normal(0.1, 1.0, samples)),
        rng.integers(-5, 6, samples) * 0.01,
        60_000.0 + np.cumsum(rng.normal(0.0, 5.0, samples)),
    )


def empty_curve() -> Curve:
    nothing = np.empty(0)
    return Curve(np.empty(0, dtype=np.int64), nothing, nothing.copy(), nothing.copy())


def grid() -> SweepGrid:
    rng = np.random.default_rng(5)
    return SweepGrid((0.01, 0.1, 1.0), (1.0, 2.5, None), rng.normal(20.0, 40.0, (3, 3)), rng.normal(0.0, 1.0, (3, 3)), (1, 2))


PARTS = Attribution(512.3, -41.22, -230.5, 150.75, -12.4, 0)


def report(**changes: object) -> Report:
    content: dict[str, object] = {
        "title": "Calibration through 2024-07-09",
        "instrument": "binanceusdm:BTC-USDT-PERP",
        "verdict": "insufficient_evidence",
        "facts": (("maker fills", "1,234"), ("replay", "conservative, 10 + 10 ms")),
        "parameters": (ParameterRow("sigma", "0.53", "1/sqrt(year)", "0.012", "fit"), ParameterRow("risk_aversion", "0.1", "1", "", "sweep")),
        "checks": (CheckRow("blocks", "pass", "48", "30", "enough"), CheckRow("psr", "fail", "0.81", "0.95", "may be luck")),
        "quality": (("2024-07-03", "1234567", "0"), ("2024-07-04", "7654321", "")),
        "quality_header": ("date", "rows", "bad_lines"),
        "curve": curve(),
        "attribution": PARTS,
        "markouts_bps": {1.0: -0.12, 60.0: -0.39, 300.0: float("nan")},
        "sweep": grid(),
        "notes": ("chosen: the middle of the widest plateau",),
    }
    return Report(**(content | changes))  # type: ignore[arg-type]
