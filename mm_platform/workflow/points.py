"""Evaluate points of a sweep: one replay per point and part, in worker processes over shared arrays.

Belongs here: building a point's schedule from the segments' fits, running it, reading the numbers out. Does not belong here: choosing
(`calibration.selection`), storing (`workflow.sweep`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from mm_platform.calibration.fit_set import FitSet
from mm_platform.calibration.walk_forward import Segment
from mm_platform.config import Settings
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet, canonical_json
from mm_platform.engine.settings import EngineLimits, decision_params
from mm_platform.execution.local import LocalExecutor
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import Features
from mm_platform.tape.layout import COLUMNS, BookState, Tape
from mm_platform.workflow.code_version import code_version
from mm_platform.workflow.from_settings import replay_settings
from mm_platform.workflow.strategy import parameter_set

Part = Literal["in_sample", "out_of_sample"]
PARTS: Final[tuple[Part, Part]] = ("in_sample", "out_of_sample")


@dataclass(frozen=True, slots=True)
class FittedSegment:
    """A stretch to replay with parameters fitted before it; `price` fixes the amounts (nan: no mid was known)."""

    segment: Segment
    fits: FitSet
    price: float

    @property
    def usable(self) -> bool:
        """Whether anything may be quoted on the stretch."""
        return self.fits.accepted and math.isfinite(self.price)

    @property
    def refused(self) -> tuple[str, ...]:
        """Why not; empty when usable."""
        return self.fits.reasons if not self.fits.accepted else () if math.isfinite(self.price) else ("no mid was known before the stretch",)


@dataclass(frozen=True, slots=True)
class Point:
    """One cell of the grid; threshold in inventory units, None = never hedge."""

    risk_aversion: float
    hedge_threshold: float | None


@dataclass(frozen=True, slots=True)
class Job:
    point: Point
    part: Part


@dataclass(frozen=True, slots=True)
class PointResult:
    """What one replay said, in quote unless named; shares are of decisions; `block_pnls` per whole block of `block_s`."""

    point: Point
    part: Part
    point_id: str
    from_ns: int
    through_ns: int
    total_pnl: float
    spread_pnl: float
    hedge_pnl: float
    inventory_pnl: float
    fees: float
    funding: float
    sharpe: float
    max_drawdown: float
    maker_fills: int
    taker_fills: int
    volume: float
    quotes: int
    orders: int
    mean_abs_inventory: float
    clamp_min_spread_frac: float
    clamp_max_spread_frac: float
    clamp_inventory_frac: float
    clamp_post_only_frac: float
    rounding_frac: float
    block_s: float
    block_pnls: tuple[float, ...]

    @property
    def fill_ratio(self) -> float:
        return self.maker_fills / self.orders if self.orders else math.nan


@dataclass(frozen=True, slots=True)
class _Shared:
    """What every worker holds."""

    tape: Tape
    features: Features
    parts: dict[Part, tuple[FittedSegment, ...]]
    ends: dict[Part, int]
    settings: Settings
    limits: EngineLimits
    replay: ReplaySettings


def point_parameters(settings: Settings, spec: InstrumentSpec, fitted: FittedSegment, point: Point, dataset_sha256: str) -> ParameterSet:
    """The parameter set of a point on one usable segment."""
    return parameter_set(
        settings,
        spec,
        fitted.fits,
        risk_aversion=point.risk_aversion,
        hedge_threshold_units=point.hedge_threshold,
        price=fitted.price,
        dataset_sha256=dataset_sha256,
        valid_from_ns=fitted.segment.judge_from_ns,
    )


def schedule(
    settings: Settings, spec: InstrumentSpec, limits: EngineLimits, segments: Sequence[FittedSegment], point: Point, dataset_sha256: str
) -> list[ScheduledParameters]:
    """Parameters segment by segment. Where a fit was refused the last accepted set stands with an unknown sigma: it quotes nothing, still hedges."""
    entries: list[ScheduledParameters] = []
    for fitted in segments:
        if fitted.usable:
            params = decision_params(point_parameters(settings, spec, fitted, point, dataset_sha256), spec, limits)
            entries.append(ScheduledParameters(fitted.segment.judge_from_ns, params, fitted.fits.fitted_through_ns))
        elif entries:
            silent = entries[-1].params._replace(quote=entries[-1].params.quote._replace(sigma=math.nan))
            entries.append(ScheduledParameters(fitted.segment.judge_from_ns, silent))
    return entries


def point_id(
    settings: Settings, spec: InstrumentSpec, segments: Sequence[FittedSegment], point: Point, dataset_sha256: str, run: ReplaySettings
) -> str:
    """Hash of parameters, instrument facts, limits, data, venue model and code: equal ids mean equal results, and need not be computed twice."""
    digest = hashlib.sha256()
    for fitted in segments:
        text = b"refused" if not fitted.usable else canonical_json(point_parameters(settings, spec, fitted, point, dataset_sha256))
        digest.update(f"{fitted.segment.judge_from_ns}:{fitted.segment.judge_until_ns}:".encode() + text)
    # facts of the instrument carry the fees, signals and risk what every decision saw and was allowed
    told = (run, settings.risk, settings.signals, settings.gate.block_s, settings.gate.capital_quote)
    digest.update(msgspec.json.encode(spec, order="sorted") + repr(told).encode() + dataset_sha256.encode() + code_version().encode())
    return digest.hexdigest()[:32]


def run_point(shared: _Shared, job: Job) -> ReplayResult:
    """One replay."""
    entries = schedule(shared.settings, shared.tape.spec, shared.limits, shared.parts[job.part], job.point, shared.tape.sha256)
    return replay(shared.tape, shared.features, entries, shared.replay, end_ns=shared.ends[job.part])


def _evaluate(job: Job, shared: _Shared) -> PointResult:
    result = run_point(shared, job)
    capital = shared.settings.gate.capital_quote
    parts = result.attribution
    c = result.counters
    clamps = c.clamp_frac
    block_s = shared.settings.gate.block_s
    return PointResult(
        point=job.point,
        part=job.part,
        point_id=point_id(shared.settings, shared.tape.spec, shared.parts[job.part], job.point, shared.tape.sha256, shared.replay),
        from_ns=result.from_ns,
        through_ns=result.through_ns,
        total_pnl=parts.total_pnl,
        spread_pnl=parts.spread_pnl,
        hedge_pnl=parts.hedge_pnl,
        inventory_pnl=parts.inventory_pnl,
        fees=parts.fees,
        funding=parts.funding,
        sharpe=result.sharpe_ratio(capital),
        max_drawdown=_drawdown_quote(result.sample_equity_quote),
        maker_fills=result.maker_fills,
        taker_fills=result.taker_fills,
        volume=result.volume_quote(),
        quotes=c.quotes_sent,
        orders=c.orders,
        mean_abs_inventory=c.mean_abs_position_lots * result.spec.lot_base,
        clamp_min_spread_frac=clamps["min_spread"],
        clamp_max_spread_frac=clamps["max_spread"],
        clamp_inventory_frac=min(1.0, clamps["inventory_bid"] + clamps["inventory_ask"]),
        clamp_post_only_frac=max(clamps["post_only_bid"], clamps["post_only_ask"]),
        rounding_frac=max(clamps["rounded_bid"], clamps["rounded_ask"]),
        block_s=block_s,
        block_pnls=tuple(result.block_pnls(block_s).tolist()),
    )


def _drawdown_quote(equity: npt.NDArray[np.float64]) -> float:
    return float(np.max(np.maximum.accumulate(equity) - equity)) if len(equity) else 0.0


def _build(arrays: dict[str, npt.NDArray[Any]], rest: tuple[Any, ...]) -> _Shared:
    spec, seq, sha256, repaired, feature_names, parts, ends, settings, limits, run = rest
    book = BookState(arrays["bid_ticks_0"], arrays["bid_lots_0"], arrays["ask_ticks_0"], arrays["ask_lots_0"], seq)
    tape = Tape(spec=spec, initial_book=book, sha256=sha256, clock_repaired=repaired, **{name: arrays[name] for name in COLUMNS})
    features = Features(**{name: arrays[f"feature_{name}"] for name in feature_names})
    return _Shared(tape, features, parts, ends, settings, limits, run)


def evaluate_points(
    settings: Settings,
    tape: Tape,
    features: Features,
    parts: dict[Part, tuple[FittedSegment, ...]],
    ends: dict[Part, int],
    limits: EngineLimits,
    jobs: Sequence[Job],
    workers: int | None,
) -> Iterator[PointResult]:
    """Results in the jobs' order. Compiles once in this process first, so that workers find the machine code on disk."""
    arrays: dict[str, npt.NDArray[Any]] = dict(tape.columns())
    book = tape.initial_book
    arrays |= {"bid_ticks_0": book.bid_ticks, "bid_lots_0": book.bid_lots, "ask_ticks_0": book.ask_ticks, "ask_lots_0": book.ask_lots}
    columns = features.columns()
    arrays |= {f"feature_{name}": column for name, column in columns.items()}
    rest = (tape.spec, book.seq, tape.sha256, tape.clock_repaired, tuple(columns), parts, ends, settings, limits, replay_settings(settings))
    executor = LocalExecutor(workers)
    if not jobs:
        return
    first = _evaluate(jobs[0], _build(arrays, rest))
    yield first
    yield from executor.map_arrays(_evaluate, jobs[1:], arrays, rest, _build)
