"""How a run is modelled. A result names all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mm_platform.core.errors import DataError
from mm_platform.core.units import NS_PER_MS
from mm_platform.kernels.exchange import CONSERVATIVE, QUEUE_MODELS, REFERENCE, ExchangeParams


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How a run is modelled; a result names all of it.

    mode : "conservative" (partial fills, shared volume, stated latency) or "reference" (the field's reference rule, for conformance).
    queue_model, power : see `kernels.exchange`; risk_adverse moves up only on prints at our level.
    entry_latency_ns, response_latency_ns : to the venue and back; conservative refuses zero.
    sample_every : equity is sampled at every k-th decision.
    """

    mode: Literal["conservative", "reference"] = "conservative"
    queue_model: str = "risk_adverse"
    power: float = 2.0
    partial_fills: bool = True
    entry_latency_ns: int = 10 * NS_PER_MS
    response_latency_ns: int = 10 * NS_PER_MS
    sample_every: int = 60

    def exchange_params(self, lot_base: float) -> ExchangeParams:
        """The venue model; raises `DataError` for an unknown queue model or a conservative run without latency."""
        if self.queue_model not in QUEUE_MODELS:
            raise DataError(f"queue model {self.queue_model!r} is not known; choose one of {', '.join(QUEUE_MODELS)}")
        conservative = self.mode == "conservative"
        if conservative and (self.entry_latency_ns <= 0 or self.response_latency_ns <= 0):
            raise DataError("a conservative replay needs a latency above zero both ways; state one, or use mode 'reference'")
        return ExchangeParams(
            CONSERVATIVE if conservative else REFERENCE,
            QUEUE_MODELS[self.queue_model],
            self.power,
            1 if conservative or self.partial_fills else 0,
            lot_base,
        )
