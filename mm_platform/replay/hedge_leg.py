"""The second venue of a run, on which it hedged: its facts, its ledger, and the split of what hedging cost.

Belongs here: the frozen record and its read-outs. The split itself is `kernels.hedge_pnl`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.kernels.accounting import POSITION, Attribution, attribution
from mm_platform.kernels.hedge_pnl import HedgeAttribution, hedge_attribution
from mm_platform.replay.settings import ReplaySettings

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HedgeLeg:
    """What a run did on its second venue.

    spec, settings : the instrument, and how its venue was modelled. tape_sha256, clock_repaired : of the rows it was replayed on.
    ledger : of the account there. pair : the joint sums of both ledgers (`kernels.hedge_pnl`), marked at the end.
    sample_position_lots : at the result's sample times. currency_rate : what one unit of its currency is worth in the first venue's;
    None where they are the same.
    """

    spec: InstrumentSpec
    settings: ReplaySettings
    tape_sha256: str
    clock_repaired: bool
    ledger: Int64s
    pair: Int64s
    sample_position_lots: Int64s
    currency_rate: Fraction | None = None

    @property
    def attribution(self) -> Attribution:
        """The leg's own ledger, for itself."""
        return attribution(self.ledger, self.spec)

    @property
    def final_position_base(self) -> float:
        return self.spec.lots_to_base(int(self.ledger[POSITION]))

    def split(self, quote_ledger: Int64s, quote_spec: InstrumentSpec) -> HedgeAttribution:
        """Profit of both legs: crossing, delay, basis, funding and fees of the hedge, and what stayed open; sums to the total exactly."""
        return hedge_attribution(self.pair, quote_ledger, quote_spec, self.ledger, self.spec, hedge_currency_rate=self.currency_rate)
