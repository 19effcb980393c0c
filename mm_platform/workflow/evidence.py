"""The gate's evidence from a judged run: each number named, none invented. Arithmetic only; running and storing is in `workflow.judge`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mm_platform.calibration.gate import Bounded, GateEvidence, GateSettings, LatencyPnl, QualityFacts, Stretch
from mm_platform.calibration.walk_forward import inventory_life_s
from mm_platform.config import Settings
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet
from mm_platform.kernels.from_parameters import quote_params
from mm_platform.kernels.quoting import Market, quote_step
from mm_platform.replay.result import ReplayResult
from mm_platform.workflow.inputs import Inputs
from mm_platform.workflow.plan import Plan
from mm_platform.workflow.points import FittedSegment
from mm_platform.workflow.record import ChosenPoint


def gate_settings(settings: Settings) -> GateSettings:
    """The gate's thresholds from the settings; the rest are its own defaults."""
    g = settings.gate
    return GateSettings(
        min_blocks=g.min_blocks,
        confidence=g.confidence,
        min_psr=g.min_psr,
        min_dsr=g.min_dsr,
        max_drawdown_frac=g.max_drawdown_frac,
        min_degraded_frac=g.fill_degradation_frac,
        sensitivity_ms=settings.latency.sensitivity_ms,
    )


def quality_facts(rows: pa.Table) -> QualityFacts:
    """Sums and worst cases over the partitions' quality rows."""
    found = rows.to_pylist()
    compared = [r for r in found if r["top_of_book_match_frac"] is not None]
    return QualityFacts(
        rows=sum(r["rows"] for r in found),
        lines=sum(r["lines"] for r in found),
        bad_lines=sum(r["bad_lines"] for r in found),
        sequence_breaks=sum(r["sequence_breaks"] for r in found),
        trade_id_gaps=sum(r["trade_id_gaps"] for r in found),
        crossed_books=sum(r["crossed_books"] for r in found),
        longest_gap_s=max((r["longest_gap_s"] for r in found), default=0.0),
        top_of_book_match_frac=min((r["top_of_book_match_frac"] for r in compared), default=None),
        clock_repaired=any(r["clock_repaired"] for r in found),
    )


def half_spreads(pset: ParameterSet, spec: InstrumentSpec) -> tuple[float, float, float]:
    """Half spreads bid and ask at flat inventory, and the shift of the reservation price per inventory unit; all relative."""
    p = quote_params(pset, spec)
    price = pset.number("inventory_unit_price")
    market = Market(price, math.nan, 0.0, 0.0, 0.0, 0.0)
    flat, one = quote_step(p, market, p.target_inventory), quote_step(p, market, p.target_inventory + p.inventory_unit)
    return flat.half_spread_bid, flat.half_spread_ask, (flat.reservation - one.reservation) / price


def relaxation_s(pset: ParameterSet, spec: InstrumentSpec) -> float:
    """How long quotes of this set take to bring an inventory back by 1/e, s: a unit of inventory moves both sides' fill rates by A exp(-k h) k slope."""
    bid, ask, slope = half_spreads(pset, spec)
    p = quote_params(pset, spec)
    rate = p.order_units * slope * (p.A_bid * math.exp(-p.k_bid * bid) * p.k_bid + p.A_ask * math.exp(-p.k_ask * ask) * p.k_ask)
    return 1.0 / rate if rate > 0.0 else math.inf


def _inventory_life_s(settings: Settings, pset: ParameterSet, spec: InstrumentSpec) -> float:
    """How long an inventory shows in results: until the quotes have brought it back, or the runner's position timeout has."""
    quoted = relaxation_s(pset, spec)
    timeout = settings.risk.position_timeout_s
    if not math.isfinite(quoted):
        return timeout if timeout is not None else settings.gate.block_s
    return inventory_life_s(quoted) if timeout is None else min(inventory_life_s(quoted), timeout)


def _ranges(pset: ParameterSet, spec: InstrumentSpec, fitted: FittedSegment) -> tuple[Bounded, ...]:
    """Quotes must stand where the intensity fits looked: no deeper than the deepest order used."""
    bid, ask, _ = half_spreads(pset, spec)
    tick = float(spec.tick)
    found = []
    for name, half, fit in (("half_spread_bid", bid, fitted.fits.intensity_bid), ("half_spread_ask", ask, fitted.fits.intensity_ask)):
        deepest = (fit.deepest_ticks * tick / fit.mean_mid) if fit.mean_mid > 0 else 0.0
        found.append(Bounded(name, half, 0.0, deepest + tick / fitted.price, "relative"))
    return tuple(found)


def _limits(settings: Settings, pset: ParameterSet) -> tuple[Bounded, ...]:
    bounds = [
        Bounded(name, pset.number(name), low, high, pset.values[name].unit)
        for name, (low, high) in settings.risk.parameter_bounds.items()
        if name in pset.values
    ]
    price = pset.number("inventory_unit_price")
    bounds.append(Bounded("order_size", pset.number("order_size") * price, 0.0, settings.risk.max_order_notional, "quote"))
    bounds.append(Bounded("max_inventory", pset.number("max_inventory") * price, 0.0, settings.risk.max_position_notional, "quote"))
    return tuple(bounds)


def _stretches(plan: Plan, segments: Sequence[FittedSegment]) -> tuple[Stretch, ...]:
    fits = [Stretch(f.segment.train_through_ns, f.segment.judge_from_ns) for f in segments]
    return (*fits, Stretch(plan.choose_until_ns - 1, plan.judge_from_ns))


def evidence(
    settings: Settings,
    inputs: Inputs,
    chosen: ChosenPoint,
    segments: Sequence[FittedSegment],
    quality: QualityFacts,
    result: ReplayResult | None,
    pset: ParameterSet | None,
    latencies: Sequence[LatencyPnl],
) -> GateEvidence:
    """What the gate decides by. Without a run or a parameter set the numbers are empty, and the gate says what is missing."""
    spec = inputs.tape.spec
    plan = inputs.plan
    degraded = settings.gate.fill_degradation_frac
    parts = result.attribution if result is not None else None
    last = segments[-1]
    return GateEvidence(
        fill_model="tick",
        mode=result.settings.mode if result is not None else "conservative",
        block_pnl_quote=result.block_pnls(settings.gate.block_s) if result is not None else np.empty(0),
        block_s=settings.gate.block_s,
        inventory_life_s=_inventory_life_s(settings, pset, spec) if pset is not None else 0.0,
        total_pnl_quote=parts.total_pnl if parts is not None else 0.0,
        in_sample_mean_quote=float(np.mean(chosen.in_sample_blocks)) if chosen.in_sample_blocks else 0.0,
        trials=max(chosen.points, len(chosen.trial_sharpes)),
        trial_sharpes=chosen.trial_sharpes,
        trial_blocks=len(chosen.in_sample_blocks),
        judged_frac=(plan.end_ns - plan.judge_from_ns) / (plan.end_ns - plan.start_ns),
        quality=quality,
        fits=tuple(fit for f in segments for fit in f.fits.fits),
        stretches=_stretches(plan, segments),
        embargo_ns=plan.embargo_ns,
        identity_residual_quote=float(parts.residual_quanta) if parts is not None else 0.0,
        clamp_fracs=tuple((n, x) for n, x in result.counters.clamp_frac.items() if not n.startswith("rounded")) if result is not None else (),
        plateau_ratio=math.nan if chosen.plateau_ratio is None else chosen.plateau_ratio,
        min_spread=pset.number("min_spread") if pset is not None else 2.0 * spec.maker_fee,
        maker_fee=spec.maker_fee,
        # a share of what the quotes earned goes, all costs and moves against us stay
        degraded_pnl_quote=parts.total_pnl - degraded * max(parts.spread_pnl, 0.0) if parts is not None else 0.0,
        degraded_frac=degraded,
        capital_quote=settings.gate.capital_quote,
        latency_sensitivity=tuple(latencies),
        fitted_ranges=_ranges(pset, spec, last) if pset is not None else (),
        runner_limits=_limits(settings, pset) if pset is not None else (),
    )
