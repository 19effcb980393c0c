"""`mm backtest`: one point over the judging stretch, with a report. It judges nothing: the gate only sees what a sweep chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mm_platform.config import Settings
from mm_platform.core.errors import CalibrationError, ConfigError, DataError
from mm_platform.lake.store import Lake
from mm_platform.replay.result import ReplayResult
from mm_platform.report.page import write
from mm_platform.tape.book_path import mid_path
from mm_platform.workflow.fits import fit_segments
from mm_platform.workflow.inputs import Inputs, load_inputs
from mm_platform.workflow.judge import report_of, run_chosen
from mm_platform.workflow.points import FittedSegment, Point, point_id, point_parameters
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.record import ChosenPoint, RecordedGate, load_chosen
from mm_platform.workflow.replay_store import keep_run, run_row


@dataclass(frozen=True, slots=True)
class Backtested:
    """One point's run; money in quote, mark-outs of maker fills in bps by horizon in s. `run_id` names it in the lake's replay tables."""

    instrument: str
    risk_aversion: float
    hedge_threshold: float | None
    total_pnl: float
    sharpe_ratio: float
    max_drawdown_frac: float
    maker_fills: int
    taker_fills: int
    attribution: dict[str, float]
    markouts_bps: dict[float, float]
    report: Path
    run_id: str
    assumptions: tuple[str, ...]

    def text(self) -> str:
        threshold = "never hedging" if self.hedge_threshold is None else f"hedging beyond {self.hedge_threshold:g} units"
        parts = ", ".join(f"{name} {value:+,.2f}" for name, value in self.attribution.items())
        marks = ", ".join(f"{h:g} s {v:+.2f}" for h, v in self.markouts_bps.items())
        return (
            f"{self.instrument}: risk aversion {self.risk_aversion:g}, {threshold}\n"
            f"P&L {self.total_pnl:+,.2f} quote = {parts}\n"
            f"annualised Sharpe {self.sharpe_ratio:.1f}, drawdown {self.max_drawdown_frac:.2%}, {self.maker_fills} maker and {self.taker_fills} taker fills\n"
            f"mark-outs of maker fills, bps: {marks}\n"
            f"lake: run {self.run_id} in replay_runs, replay_fills and replay_equity\nreport: {self.report}"
        )


def run_backtest(settings: Settings, risk_aversion: float | None, hedge_threshold: float | None, progress: Progress = silent) -> Backtested:
    """Replay one point over the judging stretch of the newest days; the lake keeps the run, a page shows it.

    Parameters
    ----------
    risk_aversion, hedge_threshold
        Dimensionless, and inventory units. Risk aversion None: the point the last sweep chose, or 0.1; then a threshold of None means that
        point's, otherwise never hedge.

    Raises
    ------
    ConfigError
        A value that is not positive.
    CalibrationError
        No fit of the stretch was accepted: there is nothing to quote with.
    """
    for name, value in (("risk aversion", risk_aversion), ("hedge threshold", hedge_threshold)):
        if value is not None and not value > 0.0:
            raise ConfigError(f"{name} is {value}, expected a positive number")
    inputs = load_inputs(settings)
    point = _point(settings, inputs.through, risk_aversion, hedge_threshold)
    segments = fit_segments(settings, inputs.tape, inputs.features, inputs.plan.judging, progress)
    result = run_chosen(settings, inputs, segments, point)
    if result is None:
        reasons = "; ".join(dict.fromkeys(r for s in segments for r in s.refused))
        raise CalibrationError(f"{settings.instrument}: every fit of the stretch was refused, nothing can be quoted: {reasons}")
    mids = mid_path(inputs.tape)
    lake = Lake.open(settings.lake)
    run = point_id(settings, inputs.tape.spec, segments, point, inputs.tape.sha256, result.settings)
    told = _parameters(settings, inputs, segments, point)
    keep_run(lake, result, run_row(result, parameters=told, capital_quote=settings.gate.capital_quote, mids=mids, tape=inputs.tape), run)
    place = settings.state_dir / "backtests" / inputs.instrument.venue / inputs.instrument.symbol
    label = f"gamma-{point.risk_aversion:g}-hedge-{'never' if point.hedge_threshold is None else f'{point.hedge_threshold:g}'}"
    quality = lake.read("data_quality", instrument=inputs.instrument, dates=inputs.days).to_pylist()
    page = report_of(settings, inputs, _stand_in(settings, point, inputs.tape.sha256), _NOT_JUDGED, result, mids, None, quality)
    notes = (*page.notes, *result.assumptions.sentences())
    path = write(replace(page, title=f"Backtest {label}", notes=notes), place / f"{inputs.through}-{label}.html")
    return _answer(settings, point, result, page.markouts_bps, path, run)


_NOT_JUDGED = RecordedGate(verdict="not judged", checks=(), blocks_seen=0, blocks_needed=0, days_to_record=0.0)


def _point(settings: Settings, through: object, risk_aversion: float | None, hedge_threshold: float | None) -> Point:
    if risk_aversion is not None:
        return Point(risk_aversion, hedge_threshold)
    try:
        chosen = load_chosen(settings, through)  # type: ignore[arg-type]
    except DataError:
        return Point(0.1, hedge_threshold)
    if chosen.risk_aversion is None:
        return Point(0.1, hedge_threshold)
    return Point(chosen.risk_aversion, hedge_threshold if hedge_threshold is not None else chosen.hedge_threshold)


def _stand_in(settings: Settings, point: Point, sha256: str) -> ChosenPoint:
    """A grid of one point, so that the page needs no second form."""
    return ChosenPoint(
        instrument=settings.instrument,
        through="",
        sweep_id="",
        points=1,
        risk_aversions=(point.risk_aversion,),
        hedge_thresholds=(point.hedge_threshold,),
        chosen=None,
        why="one point, set by hand: nothing was chosen and nothing is judged",
        plateau_ratio=None,
        in_sample_pnl=(),
        out_of_sample_pnl=(),
        in_sample_blocks=(),
        trial_sharpes=(),
        reasons=(),
        dataset_sha256=sha256,
        code_version="",
    )


def _parameters(settings: Settings, inputs: Inputs, segments: Sequence[FittedSegment], point: Point) -> dict[str, object]:
    """What the run quoted with, as the table of runs tells it: the point, and the values of every stretch."""
    stretches = []
    for fitted in segments:
        values: dict[str, object] = {}
        if fitted.usable:
            pset = point_parameters(settings, inputs.tape.spec, fitted, point, inputs.tape.sha256)
            values = {name: value.value for name, value in pset.values.items()}
        stretches.append({"from_ns": fitted.segment.judge_from_ns, "fitted_through_ns": fitted.fits.fitted_through_ns, "values": values})
    return {"risk_aversion": point.risk_aversion, "hedge_threshold_units": point.hedge_threshold, "stretches": stretches}


def _answer(settings: Settings, point: Point, result: ReplayResult, markouts: dict[float, float], path: Path, run: str) -> Backtested:
    parts = result.attribution
    capital = settings.gate.capital_quote
    return Backtested(
        instrument=settings.instrument,
        risk_aversion=point.risk_aversion,
        hedge_threshold=point.hedge_threshold,
        total_pnl=parts.total_pnl,
        sharpe_ratio=result.sharpe_ratio(capital),
        max_drawdown_frac=result.max_drawdown_frac(capital),
        maker_fills=result.maker_fills,
        taker_fills=result.taker_fills,
        attribution={
            "spread": parts.spread_pnl,
            "hedge crossing": parts.hedge_pnl,
            "inventory": parts.inventory_pnl,
            "fees": -parts.fees,
            "funding": parts.funding,
        },
        markouts_bps=markouts,
        report=path,
        run_id=run,
        assumptions=tuple(result.assumptions.sentences()),
    )
