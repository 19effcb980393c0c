"""How a run is modelled. A result names all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_MS
from mm_platform.kernels.accounting import FeeTiers, fee_tiers
from mm_platform.kernels.levels import CONSERVATIVE, REFERENCE
from mm_platform.kernels.margin import MarginParams
from mm_platform.kernels.queue import QUEUE_MODELS, USER_MODEL, ExchangeParams, exchange_params, no_user_model
from mm_platform.replay.latency import ConstantLatency, LatencyModel


@dataclass(frozen=True, slots=True)
class SpotBalances:
    """What a spot account holds when the run starts: base in lots, quote as an amount. Orders that these do not cover are rejected by the venue."""

    base_lots: int
    quote: float

    def __post_init__(self) -> None:
        if self.base_lots < 0 or not (math.isfinite(self.quote) and self.quote >= 0.0):
            raise DataError(f"{self}: expected balances >= 0")


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How one venue of a run is modelled, and what the run keeps; a result names all of it.

    Parameters
    ----------
    mode
        "conservative" (partial fills, shared volume, stated latency) or "reference" (the field's reference rule, for conformance).
    queue_model, power
        See `kernels.queue`; risk_adverse moves up only on prints at our level. "user" takes `behind`.
    partial_fills
        Read in reference mode only; conservative fills are always partial.
    entry_latency_ns, response_latency_ns
        To the venue and back, unless `latency` says otherwise; conservative refuses zero.
    sample_every
        Equity is sampled at every k-th decision, unless `sample_step_ns` says otherwise.
    latency
        Another latency model: a table, drawn by seed.
    behind
        The user's queue model: (ahead, behind) in base -> chance that a decrease happened behind us.
    sample_step_ns
        Equity is sampled at the first decision at or after each multiple of this.
    order_log
        Keep every request and what became of it.
    order_slots
        Orders a set can have resting at the venue; one more is refused.
    tiers, trailing_volume_quote
        Fees by traded volume, rows of (from volume in quote, maker fee, taker fee), and the volume the account starts with; empty: the fees of the
        parameters.
    margin
        Collateral and requirements; a set whose account is liquidated at a sample ends there. None: not tracked.
    balances
        Of a spot account. None: not limited.
    """

    mode: Literal["conservative", "reference"] = "conservative"
    queue_model: str = "risk_adverse"
    power: float = 2.0
    partial_fills: bool = True
    entry_latency_ns: int = 10 * NS_PER_MS
    response_latency_ns: int = 10 * NS_PER_MS
    sample_every: int = 60
    latency: LatencyModel | None = None
    behind: Callable[[float, float], float] | None = field(default=None, repr=False)
    sample_step_ns: int | None = None
    order_log: bool = False
    order_slots: int = 8
    tiers: tuple[tuple[float, float, float], ...] = ()
    trailing_volume_quote: float = 0.0
    margin: MarginParams | None = None
    balances: SpotBalances | None = None

    @property
    def latency_model(self) -> LatencyModel:
        """The model in force."""
        return ConstantLatency(self.entry_latency_ns, self.response_latency_ns) if self.latency is None else self.latency

    @property
    def fee_tiers(self) -> FeeTiers:
        """The tiers for kernels; no rows where the fees are those of the parameters."""
        return fee_tiers(self.tiers)

    def check_latency(self, model: LatencyModel) -> None:
        """Raises `DataError` for a conservative run in which a message can arrive in no time."""
        if self.mode == "conservative" and min(model.shortest_ns) <= 0:
            raise DataError(
                f"a conservative replay needs a latency above zero both ways, {model} can be shorter; state one (drawn: a floor), or use mode 'reference'"
            )

    def exchange_params(self, lot_base: float) -> ExchangeParams:
        """The venue model; raises `DataError` for an unknown queue model or settings that no run can have."""
        if (self.queue_model == "user") != (self.behind is not None):
            raise DataError(f"queue model {self.queue_model!r}: 'user' and a function `behind` go together")
        if self.queue_model != "user" and self.queue_model not in QUEUE_MODELS:
            raise DataError(f"queue model {self.queue_model!r} is not known; choose one of {', '.join(QUEUE_MODELS)}, or 'user' with a function")
        if not (math.isfinite(self.power) and self.power > 0.0):
            raise DataError(f"exponent of the queue model is {self.power}, expected a finite number above 0")
        if self.sample_every < 1 or (self.sample_step_ns is not None and self.sample_step_ns < 1) or self.order_slots < 1:
            raise DataError(
                f"sample_every {self.sample_every}, sample_step_ns {self.sample_step_ns}, order_slots {self.order_slots}: expected numbers above 0"
            )
        self.check_latency(self.latency_model)
        conservative = self.mode == "conservative"
        return exchange_params(
            CONSERVATIVE if conservative else REFERENCE,
            USER_MODEL if self.behind is not None else QUEUE_MODELS[self.queue_model],
            self.power,
            lot_base,
            partial=conservative or self.partial_fills,
            behind=no_user_model if self.behind is None else self.behind,
        )
