"""What a replay assumes, as part of its result: how fills were decided, what was stated and by whom, and what was left out.

Belongs here: the record of assumptions and its two renderings, for machines (`to_dict`, `to_json`) and for people (`sentences`). Does not
belong here: the models themselves.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.units import NS_PER_MS
from mm_platform.replay.latency import ConstantLatency, DrawnLatency, LatencyModel, LatencyTable

Mode = Literal["conservative", "reference"]

_QUEUE_WORDS: Final = {
    "risk_adverse": "an order moves up only by prints at its price, and by its level becoming smaller than what stood ahead of it",
    "log_prob": "a decrease without a print happened behind the order with probability ln(1+back) / (ln(1+back) + ln(1+front))",
    "log_prob2": "a decrease without a print happened behind the order with probability ln(1+back) / ln(1+back+front)",
    "power_prob": "a decrease without a print happened behind the order with probability back^n / (back^n + front^n)",
    "power_prob2": "a decrease without a print happened behind the order with probability back^n / (back+front)^n",
    "power_prob3": "a decrease without a print happened behind the order with probability 1 - (front/(front+back))^n",
}
_Z99: Final = 2.326  # 99 % quantile of the normal distribution
_POWER_MODELS: Final = ("power_prob", "power_prob2", "power_prob3")

# true of every replay of recorded data, whatever the settings
NEVER_MODELLED: Final = (
    "our orders do not change what anyone else does: no one cancels, joins or prints because of us",
    "the venue is always up and accepts every message; rate limits, maintenance and disconnects are not replayed",
    "hidden and iceberg quantity shows only where it printed",
)


@dataclass(frozen=True, slots=True)
class LatencyAssumption:
    """One direction's latency. `kind`: the same for every message, looked up by time in a table, or drawn by seed. Times in ns.

    source : who says so: a setting, a file of measurements. low_ns and high_ns are the range over the run's messages, or of the model.
    """

    kind: Literal["constant", "table", "drawn"]
    median_ns: int
    low_ns: int
    high_ns: int
    source: str

    @classmethod
    def constant(cls, ns: int, source: str = "settings") -> LatencyAssumption:
        """The same for every message."""
        return cls("constant", ns, ns, ns, source)

    @classmethod
    def drawn(cls, median_ns: float, sigma: float, floor_ns: int, seed: int) -> LatencyAssumption:
        """Log-normal; the range is the one that 98 % of the messages lie in."""
        low, high = (max(floor_ns, round(median_ns * math.exp(z * sigma))) for z in (-_Z99, _Z99))
        return cls("drawn", max(floor_ns, round(median_ns)), low, high, f"seed {seed}, sigma {sigma:g}, floor {floor_ns / NS_PER_MS:g} ms")

    @classmethod
    def measured(cls, latency_ns: npt.NDArray[np.int64], source: str) -> LatencyAssumption:
        """A table of measured latencies."""
        return cls("table", int(np.median(latency_ns)), int(latency_ns.min()), int(latency_ns.max()), source)

    def __str__(self) -> str:
        if self.kind == "constant":
            return f"{self.median_ns / NS_PER_MS:g} ms ({self.source})"
        how = "interpolated from a table" if self.kind == "table" else "drawn by seed"
        return f"{how}, median {self.median_ns / NS_PER_MS:g} ms, from {self.low_ns / NS_PER_MS:g} to {self.high_ns / NS_PER_MS:g} ms ({self.source})"


def latency_assumptions(model: LatencyModel) -> tuple[LatencyAssumption, LatencyAssumption]:
    """What a latency model assumes to the venue and back."""
    match model:
        case ConstantLatency():
            return LatencyAssumption.constant(model.entry_ns), LatencyAssumption.constant(model.response_ns)
        case DrawnLatency():
            return (
                LatencyAssumption.drawn(model.entry_median_ns, model.entry_sigma, model.floor_ns, model.seed),
                LatencyAssumption.drawn(model.response_median_ns, model.response_sigma, model.floor_ns, model.seed),
            )
        case LatencyTable():
            reached = model.exch_ts > 0
            lost = int(np.count_nonzero(~reached))
            source = f"{len(reached)} round trips, sha256 {model.sha256[:16]}" + (f", {lost} of them lost on the way" if lost else "")
            return (
                LatencyAssumption.measured((model.exch_ts - model.req_ts)[reached], source),
                LatencyAssumption.measured((model.resp_ts - model.exch_ts)[reached], source),
            )


@dataclass(frozen=True, slots=True)
class FeeTierAssumption:
    """Fees from a traded volume on (quote); fractions of notional, rebates negative."""

    from_volume: float
    maker_fee: float
    taker_fee: float


@dataclass(frozen=True, slots=True)
class VenueAssumptions:
    """What is assumed of one venue.

    role : what it is used for. contract : linear, inverse or spot. partial_fills : whether an order may fill in parts.
    own_volume : "shared" (what one of our orders takes from a print or level is gone for the others of the set) or "repeated" (each sees all).
    tiers : fees by traded volume; one entry where they are flat. funding : where rates and marks come from, "none" for spot.
    """

    instrument: str
    role: Literal["quote", "hedge"]
    contract: str
    mode: Mode
    queue_model: str
    queue_power: float | None
    partial_fills: bool
    own_volume: Literal["shared", "repeated"]
    entry_latency: LatencyAssumption
    response_latency: LatencyAssumption
    tiers: tuple[FeeTierAssumption, ...]
    fee_source: str
    funding: str
    min_notional: float
    clock_repaired: bool
    dataset_sha256: str

    @classmethod
    def of(
        cls,
        spec: InstrumentSpec,
        *,
        mode: Mode,
        queue_model: str,
        queue_power: float,
        partial_fills: bool,
        entry_latency: LatencyAssumption,
        response_latency: LatencyAssumption,
        dataset_sha256: str,
        clock_repaired: bool,
        role: Literal["quote", "hedge"] = "quote",
        maker_fee: float | None = None,
        taker_fee: float | None = None,
        tiers: tuple[FeeTierAssumption, ...] = (),
        fee_source: str = "",
        funding_stamps: int | None = None,
    ) -> VenueAssumptions:
        """Of an instrument's facts and a run's settings. Fees default to the instrument's; `funding_stamps` is how many the run saw."""
        conservative = mode == "conservative"
        flat = FeeTierAssumption(0.0, spec.maker_fee if maker_fee is None else maker_fee, spec.taker_fee if taker_fee is None else taker_fee)
        stated = maker_fee is not None or taker_fee is not None or bool(tiers)
        if spec.contract == "spot":
            funding = "none: spot pays no funding"
        elif funding_stamps is None:
            funding = "settled rates on the tape, at their stamps, on the venue's own mark"
        elif funding_stamps == 0:
            funding = "none: the tape has no settled rate in the run, so nothing was paid or received"
        else:
            funding = f"{funding_stamps} settled rate(s) on the tape, at their stamps, on the venue's own mark"
        return cls(
            instrument=spec.instrument,
            role=role,
            contract=spec.contract,
            mode=mode,
            queue_model=queue_model,
            queue_power=queue_power if queue_model in _POWER_MODELS else None,
            partial_fills=conservative or partial_fills,
            own_volume="shared" if conservative else "repeated",
            entry_latency=entry_latency,
            response_latency=response_latency,
            tiers=tiers or (flat,),
            fee_source=fee_source or ("settings" if stated else "instrument facts"),
            funding=funding,
            min_notional=spec.min_notional,
            clock_repaired=clock_repaired,
            dataset_sha256=dataset_sha256,
        )

    def sentences(self) -> list[str]:
        """In words, one assumption each."""
        name = self.instrument
        queue = _QUEUE_WORDS.get(
            self.queue_model, "a function of the user's gives the probability that a decrease without a print happened behind us"
        )
        power = "" if self.queue_power is None else f", n = {self.queue_power:g}"
        said = []
        if self.mode == "conservative":
            said.append(
                f"{name}: conservative rule: prints and levels that reach our price fill us at most by their quantity, and our own orders share it"
            )
        else:
            parts = "in parts" if self.partial_fills else "always whole"
            said.append(
                f"{name}: reference rule, for comparing engines, not for judging a strategy: a print or level beyond our price fills us whole, "
                f"orders fill {parts}, and each of our orders sees all of a print"
            )
        said.append(f"{name}: queue model {self.queue_model}{power}: {queue}")
        said.append(f"{name}: orders reach the venue after {self.entry_latency}; answers come back after {self.response_latency}; neither overtakes")
        said.append(
            f"{name}: market data is seen when it was recorded to have arrived"
            + (", after repair of the recorder's clock: its latencies are partly estimated" if self.clock_repaired else "")
        )
        said.append(f"{name}: fees {_fees(self.tiers)} ({self.fee_source})")
        said.append(f"{name}: funding: {self.funding}")
        return said


def _fees(tiers: tuple[FeeTierAssumption, ...]) -> str:
    def pair(tier: FeeTierAssumption) -> str:
        return f"maker {tier.maker_fee * 1e4:g} bps, taker {tier.taker_fee * 1e4:g} bps"

    if len(tiers) == 1:
        return pair(tiers[0])
    return "by traded volume: " + "; ".join(f"from {tier.from_volume:,.0f}: {pair(tier)}" for tier in tiers)


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Everything a run assumes. `not_modelled` begins with what no replay of recorded data can show.

    strategy : its name. decisions : when it may act. venues : first the one quoted on. margin : how it was treated.
    """

    strategy: str
    decisions: str
    venues: tuple[VenueAssumptions, ...]
    margin: str
    not_modelled: tuple[str, ...]

    @classmethod
    def of(
        cls,
        venues: tuple[VenueAssumptions, ...],
        *,
        strategy: str = "platform",
        decisions: str = "on an even grid of local time",
        margin: str = "not tracked: no requirement, no liquidation",
        also_not_modelled: tuple[str, ...] = (),
    ) -> Assumptions:
        """With what no replay models put first."""
        return cls(strategy, decisions, venues, margin, (*NEVER_MODELLED, *also_not_modelled))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def to_json(self) -> str:
        """One line of JSON with sorted keys: equal assumptions give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    def sentences(self) -> list[str]:
        """In words, what is assumed before what is left out."""
        said = [f"strategy {self.strategy} decides {self.decisions}"]
        for venue in self.venues:
            said += venue.sentences()
        said.append(f"margin: {self.margin}")
        return said + [f"not modelled: {text}" for text in self.not_modelled]
