"""A book at rest: what crosses module, file and day boundaries (the working book is `kernels.book.Book`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class BookState:
    """Sorted integer levels, best first, and the venue's sequence id the book stands at (-1: none)."""

    bid_ticks: npt.NDArray[np.int64]
    bid_lots: npt.NDArray[np.int64]
    ask_ticks: npt.NDArray[np.int64]
    ask_lots: npt.NDArray[np.int64]
    seq: int

    @classmethod
    def empty(cls) -> BookState:
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, nothing, nothing, -1)
