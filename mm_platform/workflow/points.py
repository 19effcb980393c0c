"""Evaluate points of a sweep: batches of them, each replayed in one of the executor's workers over shared arrays.

Belongs here: building a point's schedule from the segments' fits, cutting the grid into batches, running one, reading the numbers out. Does not
belong here: choosing (`calibration.selection`), storing (`workflow.sweep`), where workers live (`execution`).
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
from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet, canonical_json
from mm_platform.core.units import NS_PER_S
from mm_platform.engine.settings import EngineLimits, decision_params
from mm_platform.kernels.decision import DecisionParams
from mm_platform.replay.result import ReplayResult
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import Features
from mm_platform.tape.layout import COLUMNS, BookState, Tape
from mm_platform.workflow.code_version import code_version
from mm_platform.workflow.executors import executor
from mm_platform.workflow.from_settings import replay_settings
from mm_platform.workflow.strategy import parameter_set

Part = Literal["in_sample", "out_of_sample"]
PARTS: Final[tuple[Part, Part]] = ("in_sample", "out_of_sample")
_BATCHES_PER_WORKER: Final = 4
# a batch's logs are in memory together
_MOST_POINTS: Final = 128


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
class Batch:
    """Points of one part that a worker replays together."""

    part: Part
    points: tuple[Point, ...]


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
    params: DecisionParams | None = None
    for fitted in segments:
        if fitted.usable:
            params = decision_params(point_parameters(settings, spec, fitted, point, dataset_sha256), spec, limits)
            entries.append(ScheduledParameters(fitted.segment.judge_from_ns, params, fitted.fits.fitted_through_ns))
        elif params is not None:
            params = params._replace(quote=params.quote._replace(sigma=math.nan))
            entries.append(ScheduledParameters(fitted.segment.judge_from_ns, params))
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


def batches(jobs: Sequence[Job], workers: int) -> list[Batch]:
    """Cut jobs into batches: several per worker, so that none waits long for the last one and a killed sweep has lost little.

    Parameters
    ----------
    jobs
        In the order the results are wanted in, as far as parts are not mixed.
    workers : int
        How many batches are worked on at a time.
    """
    size = min(_MOST_POINTS, max(1, -(-len(jobs) // (_BATCHES_PER_WORKER * workers))))
    cut: list[Batch] = []
    for part in dict.fromkeys(job.part for job in jobs):
        points = [job.point for job in jobs if job.part == part]
        cut += [Batch(part, tuple(points[i : i + size])) for i in range(0, len(points), size)]
    return cut


def _replays(shared: _Shared, batch: Batch, end_ns: int) -> list[ReplayResult]:
    """The batch's replays, in its order."""
    segments = shared.parts[batch.part]
    return [
        replay(
            shared.tape,
            shared.features,
            schedule(shared.settings, shared.tape.spec, shared.limits, segments, point, shared.tape.sha256),
            shared.replay,
            end_ns=end_ns,
        )
        for point in batch.points
    ]


def evaluate(batch: Batch, shared: _Shared) -> list[PointResult]:
    """What a worker does with a batch; the results do not depend on how the points were batched."""
    results = _replays(shared, batch, shared.ends[batch.part])
    return [_numbers(shared, Job(point, batch.part), result) for point, result in zip(batch.points, results, strict=True)]


def _numbers(shared: _Shared, job: Job, result: ReplayResult) -> PointResult:
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
    spec, seq, sha256, repaired, feature_names, parts, ends, settings, limits, run, code = rest
    if code != code_version():
        raise ConfigError(
            f"a worker has the code {code_version()}, the sweep was started with {code}: install the same version on every machine, and do not change"
            " it while a sweep runs"
        )
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
) -> Iterator[list[PointResult]]:
    """Results batch by batch, in the jobs' order within a part, each batch as soon as those before it are done.

    Parameters
    ----------
    settings
        `[execution]` says where they run.
    ends
        Where each part ends (exclusive), ns.
    jobs
        None twice.
    workers
        In place of `sweep.workers`.
    """
    if not jobs:
        return
    arrays: dict[str, npt.NDArray[Any]] = dict(tape.columns())
    book = tape.initial_book
    arrays |= {"bid_ticks_0": book.bid_ticks, "bid_lots_0": book.bid_lots, "ask_ticks_0": book.ask_ticks, "ask_lots_0": book.ask_lots}
    columns = features.columns()
    arrays |= {f"feature_{name}": column for name, column in columns.items()}
    run = replay_settings(settings)
    rest = (tape.spec, book.seq, tape.sha256, tape.clock_repaired, tuple(columns), parts, ends, settings, limits, run, code_version())
    where = executor(settings, workers)
    cut = batches(jobs, where.workers)
    if len(cut) > 1 and where.workers > 1 and not settings.execution.address:
        _compile(_build(arrays, rest), cut[0])
    yield from where.map_arrays(evaluate, cut, arrays, rest, _build)


def _compile(shared: _Shared, batch: Batch) -> None:
    """Have the machine code on this machine's disk before the workers ask for it: else each of them compiles the replay at the same time."""
    first = next(f.segment.judge_from_ns for f in shared.parts[batch.part] if f.usable)
    _replays(shared, Batch(batch.part, batch.points[:1]), first + 2 * round(shared.settings.signals.step_s * NS_PER_S))
