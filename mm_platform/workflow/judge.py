"""Judge the chosen point on the later part: replay, mark-outs, gate, report, and what the lake keeps of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np

from mm_platform.calibration.gate import GateReport, LatencyPnl, decide
from mm_platform.config import Settings
from mm_platform.core.parameters import ParameterSet, canonical_json
from mm_platform.core.units import iso_utc
from mm_platform.kernels.accounting import Attribution
from mm_platform.kernels.orders import PURPOSES
from mm_platform.kernels.performance import win_rate
from mm_platform.lake.columns import table_of_rows
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Lake, Partition
from mm_platform.replay.result import MARKOUT_HORIZONS_S, ReplayResult
from mm_platform.replay.run import replay
from mm_platform.report.data import CheckRow, Curve, ParameterRow, Report
from mm_platform.tape.book_path import MidPath, mid_path
from mm_platform.workflow.code_version import code_version
from mm_platform.workflow.evidence import evidence, gate_settings, quality_facts
from mm_platform.workflow.fits import fit_segments, fit_window, price_at, write_fits
from mm_platform.workflow.from_settings import engine_limits, replay_settings
from mm_platform.workflow.inputs import Inputs, load_inputs
from mm_platform.workflow.points import FittedSegment, Point, point_id, schedule
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.record import CalibrationRecord, ChosenPoint, RecordedCheck, RecordedGate, folder, load_chosen, save, write_text
from mm_platform.workflow.strategy import parameter_set
from mm_platform.workflow.sweep import sweep_grid


@dataclass(frozen=True, slots=True)
class Judged:
    """The chosen point's run on data nobody chose or fitted on, and the gate's word."""

    instrument: str
    through: str
    verdict: str
    gate: RecordedGate
    total_pnl: float
    maker_fills: int
    taker_fills: int
    residual_quanta: int
    attribution: tuple[tuple[str, float], ...]
    markouts_bps: dict[float, float]
    parameters: ParameterSet | None
    report: Path
    equity: Path | None

    def text(self) -> str:
        parts = ", ".join(f"{name} {value:+,.2f}" for name, value in self.attribution)
        profit = f"P&L {self.total_pnl:+,.2f} quote = {parts}" if self.equity is not None else "nothing was replayed, so there is no P&L"
        lines = [
            f"{self.instrument} judged through {self.through}: {profit}",
            f"gate: {self.verdict.replace('_', ' ')}",
        ]
        if self.verdict == "insufficient_evidence":
            g = self.gate
            lines[-1] += f" ({g.blocks_seen} independent blocks seen, {g.blocks_needed} needed, {g.days_to_record:.1f} days still to record)"
        lines += [f"  {c.outcome}: {c.name}: seen {c.seen}, needed {c.needed}. {c.message}" for c in self.gate.checks if c.outcome != "pass"]
        lines.append(f"report: {self.report}")
        return "\n".join(lines)

    def attribution_rows(self) -> list[tuple[str, str]]:
        return [(name, f"{value:,.4f}") for name, value in self.attribution] + [("total", f"{self.total_pnl:,.4f}")]

    def equity_png(self) -> bytes | None:
        """The still picture of equity and inventory; None when nothing was replayed."""
        return self.equity.read_bytes() if self.equity is not None else None


def run_chosen(
    settings: Settings, inputs: Inputs, segments: Sequence[FittedSegment], point: Point, latency_ms: float | None = None
) -> ReplayResult | None:
    """One point on the judging part; None when no segment's fits were accepted."""
    entries = schedule(settings, inputs.tape.spec, engine_limits(settings), segments, point, inputs.tape.sha256)
    if not entries:
        return None
    return replay(inputs.tape, inputs.features, entries, replay_settings(settings, latency_ms=latency_ms), end_ns=inputs.plan.end_ns)


def next_parameters(settings: Settings, inputs: Inputs, point: Point) -> ParameterSet | None:
    """What would run next: the chosen point with fits through the end of the data. None when those fits are refused."""
    plan = inputs.plan
    through = int(inputs.features.grid_ts[-1])
    fits = fit_window(settings, inputs.tape, inputs.features, max(plan.start_ns, through - plan.train_window_ns), through)
    write_fits(Lake.open(settings.lake), inputs.instrument, fits, inputs.tape.sha256)
    price = price_at(inputs.features, through)
    if not fits.accepted or not math.isfinite(price):
        return None
    return parameter_set(
        settings,
        inputs.tape.spec,
        fits,
        risk_aversion=point.risk_aversion,
        hedge_threshold_units=point.hedge_threshold,
        price=price,
        dataset_sha256=inputs.tape.sha256,
        valid_from_ns=fits.fitted_through_ns + 1,
    )


def judge_chosen(settings: Settings, through: date, progress: Progress = silent) -> Judged:
    """Judge what `mm sweep` chose for a day and write record, parameters, report, and lake rows.

    Raises
    ------
    DataError
        No sweep was run for the day.
    """
    chosen = load_chosen(settings, through)
    inputs = load_inputs(settings, through)
    segments = fit_segments(settings, inputs.tape, inputs.features, inputs.plan.judging, progress)
    point = Point(chosen.risk_aversion, chosen.hedge_threshold) if chosen.risk_aversion is not None else None
    result = pset = None
    latencies: list[LatencyPnl] = []
    if point is not None:
        progress("judge", 0, 1 + len(settings.latency.sensitivity_ms))
        result = run_chosen(settings, inputs, segments, point)
        pset = next_parameters(settings, inputs, point)
        for done, ms in enumerate(settings.latency.sensitivity_ms, 1):
            progress("judge", done, 1 + len(settings.latency.sensitivity_ms))
            other = run_chosen(settings, inputs, segments, point, ms)
            if other is not None:
                latencies.append(LatencyPnl(ms, other.attribution.total_pnl))
        progress("judge", 1 + len(settings.latency.sensitivity_ms), 1 + len(settings.latency.sensitivity_ms))
    lake = Lake.open(settings.lake)
    quality = lake.read("data_quality", instrument=inputs.instrument, dates=inputs.days)
    rng = np.random.default_rng([settings.seed, 1])
    gate = decide(evidence(settings, inputs, chosen, segments, quality_facts(quality), result, pset, latencies), rng, gate_settings(settings))
    recorded = _recorded(gate)
    mids = mid_path(inputs.tape)
    place = folder(settings, through)
    if pset is not None:
        write_text(place / "params.json", canonical_json(pset))
    if result is not None and point is not None:
        _keep(lake, settings, inputs, segments, point, result, mids, pset)
    page = report_of(settings, inputs, chosen, recorded, result, mids, pset, quality.to_pylist())
    _write_pictures(place, page)
    save(settings, through, _record(settings, inputs, chosen, recorded, result, latencies, pset))
    parts = page.attribution
    return Judged(
        instrument=settings.instrument,
        through=through.isoformat(),
        verdict=gate.verdict,
        gate=recorded,
        total_pnl=parts.total_pnl,
        maker_fills=result.maker_fills if result is not None else 0,
        taker_fills=result.taker_fills if result is not None else 0,
        residual_quanta=parts.residual_quanta,
        attribution=(
            ("spread", parts.spread_pnl),
            ("hedge crossing", parts.hedge_pnl),
            ("inventory", parts.inventory_pnl),
            ("fees", -parts.fees),
            ("funding", parts.funding),
        ),
        markouts_bps=page.markouts_bps,
        parameters=pset,
        report=place / "report.html",
        equity=place / "equity.png" if result is not None else None,
    )


def _recorded(gate: GateReport) -> RecordedGate:
    checks = tuple(RecordedCheck(name=c.name, outcome=c.outcome, seen=c.seen, needed=c.needed, message=c.message) for c in gate.checks)
    return RecordedGate(
        verdict=gate.verdict, checks=checks, blocks_seen=gate.blocks_seen, blocks_needed=gate.blocks_needed, days_to_record=gate.days_to_record
    )


def _record(
    settings: Settings,
    inputs: Inputs,
    chosen: ChosenPoint,
    gate: RecordedGate,
    result: ReplayResult | None,
    latencies: Sequence[LatencyPnl],
    pset: ParameterSet | None,
) -> CalibrationRecord:
    metrics = {"in_sample.mean_block_pnl": float(np.mean(chosen.in_sample_blocks))} if chosen.in_sample_blocks else {}
    if result is not None:
        capital = settings.gate.capital_quote
        parts = result.attribution
        numbers = {
            "total_pnl": parts.total_pnl,
            "spread_pnl": parts.spread_pnl,
            "hedge_pnl": parts.hedge_pnl,
            "inventory_pnl": parts.inventory_pnl,
            "fees": parts.fees,
            "funding": parts.funding,
            "sharpe": result.sharpe_ratio(capital),
            "max_drawdown_frac": result.max_drawdown_frac(capital),
            "maker_fills": float(result.maker_fills),
            "taker_fills": float(result.taker_fills),
            "volume_quote": result.volume_quote(),
        }
        metrics |= {f"out_of_sample.{name}": value for name, value in numbers.items() if math.isfinite(value)}
        metrics |= {f"out_of_sample.pnl_at_{p.latency_ms:g}_ms": p.pnl_quote for p in latencies}
    metrics |= {
        "gate.blocks_seen": float(gate.blocks_seen),
        "gate.blocks_needed": float(gate.blocks_needed),
        "gate.days_to_record": gate.days_to_record,
    }
    plan = inputs.plan
    run_params = {
        "risk_aversions": ", ".join(f"{g:g}" for g in chosen.risk_aversions),
        "hedge_thresholds_units": ", ".join("never" if t is None else f"{t:g}" for t in chosen.hedge_thresholds),
        "points": str(chosen.points),
        "chosen": chosen.why,
        "train_window_s": f"{plan.train_window_ns / 1e9:g}",
        "refit_every_s": f"{plan.refit_every_ns / 1e9:g}",
        "embargo_s": f"{plan.embargo_ns / 1e9:g}",
        "choose_from": iso_utc(plan.choose_from_ns),
        "choose_until": iso_utc(plan.choose_until_ns),
        "judge_from": iso_utc(plan.judge_from_ns),
        "judge_until": iso_utc(plan.end_ns),
        "queue_model": replay_settings(settings).queue_model,
        "entry_latency_ms": f"{settings.latency.entry_ms:g}",
        "response_latency_ms": f"{settings.latency.response_ms:g}",
        "seed": str(settings.seed),
        "sweep_id": chosen.sweep_id,
    }
    return CalibrationRecord(
        instrument=settings.instrument,
        through=inputs.through.isoformat(),
        sweep_id=chosen.sweep_id,
        gate=gate,
        metrics=metrics,
        run_params=run_params,
        manifest_json=inputs.manifest.to_json(),
        has_parameters=pset is not None,
    )


def _keep(
    lake: Lake,
    settings: Settings,
    inputs: Inputs,
    segments: Sequence[FittedSegment],
    point: Point,
    result: ReplayResult,
    mids: MidPath,
    pset: ParameterSet | None,
) -> None:
    """The run as rows of `backtests` and `fills`."""
    run = replay_settings(settings)
    backtest_id = point_id(settings, inputs.tape.spec, segments, point, inputs.tape.sha256, run)
    partition = Partition(inputs.instrument.venue, inputs.instrument.symbol, inputs.through)
    parts = result.attribution
    spec = inputs.tape.spec
    marks = result.mean_maker_markouts_bps(mids)
    row: dict[str, object] = {
        "backtest_id": backtest_id,
        **{name: getattr(parts, name) for name in ("total_pnl", "spread_pnl", "hedge_pnl", "inventory_pnl", "fees", "funding")},
        "sharpe": result.sharpe_ratio(settings.gate.capital_quote),
        "max_drawdown": float(np.max(np.maximum.accumulate(result.sample_equity_quote) - result.sample_equity_quote)),
        "maker_fills": result.maker_fills,
        "taker_fills": result.taker_fills,
        "volume": result.volume_quote(),
        "quotes": result.counters.quotes_sent,
        "mean_abs_inventory": result.counters.mean_abs_position_lots * spec.lot_base,
        "fill_ratio": result.maker_fills / result.counters.orders if result.counters.orders else math.nan,
        "max_abs_inventory": float(np.max(np.abs(result.sample_position_lots))) * spec.lot_base,
        "final_inventory": result.final_position_base,
        "win_rate": win_rate(result.round_trips()),
        **{f"markout_{h}s_bps": marks[float(h)] for h in MARKOUT_HORIZONS_S},
        "fill_model": "tick",
        "mode": run.mode,
        "entry_latency_ns": run.entry_latency_ns,
        "response_latency_ns": run.response_latency_ns,
        "clock_repaired": result.clock_repaired,
        "parameters_sha256": pset.sha256() if pset is not None else "",
        "settings_json": json.dumps({f.name: getattr(run, f.name) for f in fields(run)}),
        "warnings_json": "[]",
        "dataset_sha256": inputs.tape.sha256,
        "code_version": code_version(),
        "from_ns": result.from_ns,
        "through_ns": result.through_ns,
        "run_at_ns": time.time_ns(),
    }
    lake.upsert("backtests", partition, table_of_rows(TABLES["backtests"], [row]))
    fills = result.fills
    tick = float(spec.tick)
    columns: dict[str, object] = {
        "backtest_id": [backtest_id] * len(fills),
        "fill_no": np.arange(len(fills)),
        "exch_ts": fills.exch_ts,
        "local_ts": fills.local_ts,
        "side": fills.side.astype(np.int8),
        "price_ticks": fills.price_ticks,
        "qty_lots": fills.lots,
        "price": fills.price_ticks * tick,
        "qty": fills.lots * spec.lot_base,
        "maker": fills.maker == 1,
        "fee_quote": fills.fee_nano * 1e-9,
        "mid": 0.5 * fills.mid_half_ticks * tick,
        **{f"markout_{h}s_bps": result.markouts_frac(mids, h) * 1e4 for h in MARKOUT_HORIZONS_S},
        "purpose": [PURPOSES[p] for p in fills.purpose.tolist()],
    }
    lake.write("fills", partition, columns, {"tick_size": spec.tick_size, "lot_size": spec.lot_size})


def report_of(
    settings: Settings,
    inputs: Inputs,
    chosen: ChosenPoint,
    gate: RecordedGate,
    result: ReplayResult | None,
    mids: MidPath,
    pset: ParameterSet | None,
    quality: Sequence[dict[str, object]],
) -> Report:
    """The page's data."""
    spec = inputs.tape.spec
    plan = inputs.plan
    parts = result.attribution if result is not None else Attribution(0.0, 0.0, 0.0, 0.0, 0.0, 0)
    if result is not None:
        curve = Curve(
            result.sample_ts,
            result.sample_equity_quote,
            result.sample_position_lots.astype(np.float64) * spec.lot_base,
            result.sample_mid_half_ticks.astype(np.float64) * 0.5 * float(spec.tick),
        )
    else:
        curve = Curve(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0), np.empty(0))
    facts = [
        ("judged", f"{iso_utc(plan.judge_from_ns)[:16]} to {iso_utc(plan.end_ns)[:16]}"),
        ("P&L out of sample, quote", f"{parts.total_pnl:,.2f}"),
        ("maker fills", f"{result.maker_fills if result is not None else 0:,}"),
        ("taker fills", f"{result.taker_fills if result is not None else 0:,}"),
        ("risk aversion", "none" if chosen.risk_aversion is None else f"{chosen.risk_aversion:g}"),
        ("hedge threshold, units", "never" if chosen.hedge_threshold is None else f"{chosen.hedge_threshold:g}"),
        ("points tried", str(chosen.points)),
        ("independent blocks", f"{gate.blocks_seen} of {gate.blocks_needed} needed"),
        ("tape rows", f"{len(inputs.tape):,}"),
        ("replay", f"{replay_settings(settings).mode}, {settings.latency.entry_ms:g} + {settings.latency.response_ms:g} ms"),
    ]
    shown = ("date", "rows", "bad_lines", "sequence_breaks", "trade_id_gaps", "crossed_books", "clock_offset_ns")
    notes = [chosen.why, *chosen.reasons]
    if result is not None and result.clock_repaired:
        notes.append("local times of the tape were repaired; the gate asks for profit at every latency of the sensitivity")
    return Report(
        title=f"Calibration through {inputs.through}",
        instrument=settings.instrument,
        verdict=gate.verdict,
        facts=tuple(facts),
        parameters=tuple(_parameter_row(name, pset) for name in sorted(pset.values)) if pset is not None else (),
        checks=tuple(CheckRow(c.name, c.outcome, c.seen, c.needed, c.message) for c in gate.checks),
        quality=tuple(tuple("" if row.get(name) is None else str(row[name]) for name in shown) for row in quality),
        quality_header=shown,
        curve=curve,
        attribution=parts,
        markouts_bps=result.mean_maker_markouts_bps(mids) if result is not None else {},
        sweep=sweep_grid(chosen),
        notes=tuple(notes),
    )


def _parameter_row(name: str, pset: ParameterSet) -> ParameterRow:
    v = pset.values[name]
    value = "never" if v.value is None else v.value if isinstance(v.value, str) else f"{v.value:,d}" if isinstance(v.value, int) else f"{v.value:.6g}"
    return ParameterRow(name, value, v.unit, "" if v.stderr is None else f"{v.stderr:.2g}", v.source)


def _write_pictures(place: Path, page: Report) -> None:
    """The page, and still pictures for MLflow and Dagster."""
    from mm_platform.report.page import write
    from mm_platform.report.thumbnails import attribution_png, equity_png, sweep_png

    write(page, place / "report.html")
    if len(page.curve.ts_ns):
        write_text(place / "equity.png", equity_png(page.curve))
        write_text(place / "attribution.png", attribution_png(page.attribution))
    if page.sweep is not None:
        write_text(place / "sweep.png", sweep_png(page.sweep))
