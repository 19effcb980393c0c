"""Quantiles of a sample, named once so that every result states the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Size, mean and quantiles of a sample in the sample's own unit; nan where it is empty. Quantiles are values that occurred."""

    n: int
    mean: float
    p10: float
    p50: float
    p90: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> Quantiles:
        """Of a sample without nans."""
        if not len(values):
            return cls(0, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)
        # inverted_cdf: a sample's quantile is a member of it, so that a latency of 10 ms reads 10 ms and not 10.0000001
        p10, p50, p90, p99 = np.quantile(values, (0.1, 0.5, 0.9, 0.99), method="inverted_cdf").tolist()
        return cls(len(values), float(np.mean(values)), float(p10), float(p50), float(p90), float(p99), float(np.max(values)))
