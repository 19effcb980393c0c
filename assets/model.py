"""The model side: fits, sweep, backtest, and what is published of them.

A backfill over many days is one run per instrument and day (Dagster's default): each day has its own verdict.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.market import market__signals, market__tape
from assets.metadata import logged, markdown_table, mlflow_links, parameter_table, pictures, table_definition
from assets.outcomes import outcomes
from assets.partitions import INSTRUMENT_DAY, instrument_day
from assets.resources import SettingsResource
from mm_platform.core.parameters import decode_parameter_set
from mm_platform.workflow.fits import fit_day
from mm_platform.workflow.judge import judge_chosen
from mm_platform.workflow.publish import challenge, register_candidate
from mm_platform.workflow.record import RecordedGate, folder, load_chosen, load_record
from mm_platform.workflow.sweep import choose

Steps = Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]


@dg.asset(
    group_name="model",
    partitions_def=INSTRUMENT_DAY,
    owners=["team:research"],
    deps=[market__tape, market__signals],
    kinds={"parquet"},
    metadata=table_definition("fits"),
)
def model__fits(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult[None]:
    """Volatility sigma and the fill intensities A, k of both sides with standard errors, fitted on data up to the end of the day."""
    with outcomes():
        instrument, day = instrument_day(context.partition_key)
        fitted = fit_day(settings.load(instrument), day)
        rows = fitted.rows()
        refused = [(name, reason) for name, *_, reason in rows if reason]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(fitted.fits),
                "accepted": fitted.accepted,
                **({"refused": markdown_table(("name", "because"), refused)} if refused else {}),
                "fits": markdown_table(("name", "value", "standard error", "unit", "n"), [row[:5] for row in rows]),
                "methods": markdown_table(("name", "method"), [(name, method) for name, *_, method, _ in rows]),
                # as numbers too: Dagster plots them over the days
                **{f"{f.name} [{f.unit}]": float(f.value) for f in fitted.fits if f.accepted},
            }
        )


@dg.asset(
    group_name="model",
    partitions_def=INSTRUMENT_DAY,
    owners=["team:research"],
    deps=[model__fits],
    kinds={"parquet"},
    pool="sweep",
    metadata=table_definition("sweep_points", "fits"),
)
def model__sweep(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult[None]:
    """Every point of risk aversion x hedge threshold on the complete days up to this one: chosen on the earlier part, judged on the later part.

    Points already computed with the same parameters, data and code are not computed again.
    """
    with outcomes():
        instrument, day = instrument_day(context.partition_key)
        loaded = settings.load(instrument)
        swept = choose(loaded, through=day, progress=logged(context))
        chosen = swept.chosen
        metadata: dict[str, Any] = {
            "points": swept.points,
            "replays computed": swept.computed,
            "sweep id": swept.sweep_id,
            "chosen because": chosen.why,
        }
        if chosen.risk_aversion is not None:
            metadata["risk aversion [1]"] = chosen.risk_aversion
            metadata["hedge threshold [inventory units]"] = "never hedge" if chosen.hedge_threshold is None else chosen.hedge_threshold
        if chosen.reasons:
            metadata["fits refused because"] = "; ".join(chosen.reasons)
        if chosen.chosen is not None:
            metadata |= pictures(folder(loaded, day), {"P&L over the grid": "sweep.png"})
        return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name="model",
    partitions_def=INSTRUMENT_DAY,
    owners=["team:research"],
    deps=[model__sweep],
    kinds={"parquet"},
    metadata=table_definition("backtests", "fills"),
    check_specs=[
        dg.AssetCheckSpec(
            "pnl_identity",
            asset="model__backtest",
            blocking=True,
            partitions_def=INSTRUMENT_DAY,
            description="Spread, hedge, inventory, fees and funding sum to the change of equity exactly.",
        )
    ],
)
def model__backtest(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """The chosen point on the later part, which nobody chose or fitted on: fills, equity, P&L attribution, mark-outs, the gate's evidence, the report page."""
    with outcomes():
        instrument, day = instrument_day(context.partition_key)
        loaded = settings.load(instrument)
        judged = judge_chosen(loaded, day, logged(context))
        metadata: dict[str, Any] = {"gate": judged.verdict.replace("_", " "), "report": dg.MetadataValue.path(str(judged.report))}
        if judged.equity is None:
            metadata["not replayed because"] = "; ".join(load_chosen(loaded, day).reasons)
        else:
            marks = [(f"{s:g}", f"{bps:+.3f}") for s, bps in judged.markouts_bps.items()]
            metadata = {
                "total P&L [quote]": round(judged.total_pnl, 6),
                "maker fills": judged.maker_fills,
                "taker fills": judged.taker_fills,
                "P&L attribution": markdown_table(("part", "quote"), judged.attribution_rows()),
                "mark-outs of maker fills": markdown_table(("after, s", "mean, bps"), marks),
                **metadata,
                **pictures(folder(loaded, day), {"equity and inventory": "equity.png", "where the P&L came from": "attribution.png"}),
            }
    yield dg.MaterializeResult(metadata=metadata)
    yield dg.AssetCheckResult(
        check_name="pnl_identity",
        passed=judged.residual_quanta == 0,
        description="the parts sum to the total exactly" if judged.residual_quanta == 0 else "the parts do not sum to the total",
        metadata={"residual [quanta]": judged.residual_quanta},
    )


@dg.asset(
    group_name="model",
    partitions_def=INSTRUMENT_DAY,
    owners=["team:research"],
    deps=[model__backtest],
    kinds={"mlflow"},
    output_required=False,
    metadata=table_definition("parameter_sets"),
    check_specs=[
        dg.AssetCheckSpec(
            "gate",
            asset="model__candidate",
            blocking=True,
            partitions_def=INSTRUMENT_DAY,
            description="Evidence out of sample: pass, fail, or insufficient. Blocks the alias, not the record: the version is registered whatever it says.",
        )
    ],
)
def model__candidate(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """The judged calibration as a version in MLflow, tagged with the gate's verdict and checks.

    Nothing is registered where the fits were refused and there is no parameter set; the gate's check then says why.
    """
    with outcomes():
        instrument, day = instrument_day(context.partition_key)
        loaded = settings.load(instrument)
        record = load_record(loaded, day)
        published = register_candidate(loaded, day)
        metadata: dict[str, Any] = {"version": published.version, "verdict": published.verdict.replace("_", " "), "sha256": published.sha256}
        if published.version is not None:
            metadata["parameters"] = parameter_table(decode_parameter_set((folder(loaded, day) / "params.json").read_bytes()))
            metadata |= mlflow_links(loaded, published)
    if published.version is not None:
        yield dg.MaterializeResult(metadata=metadata)
    yield gate_result(record.gate, registered=published.version is not None)


def gate_result(gate: RecordedGate, *, registered: bool) -> dg.AssetCheckResult:
    """The gate's word as an asset check: anything but a pass, or a pass without a version, blocks what comes after."""
    said = gate.verdict.replace("_", " ")
    if gate.verdict == "insufficient_evidence":
        said += f": {gate.blocks_seen} independent blocks seen, {gate.blocks_needed} needed, {gate.days_to_record:.1f} days still to record"
    if not registered:
        said += "; no parameter set to register, since fits were refused"
    order = {"fail": 0, "insufficient": 1, "pass": 2}
    checks = sorted(gate.checks, key=lambda c: order.get(c.outcome, 0))
    return dg.AssetCheckResult(
        check_name="gate",
        passed=registered and gate.verdict == "pass",
        description=said,
        metadata={
            "verdict": gate.verdict.replace("_", " "),
            "independent blocks seen": gate.blocks_seen,
            "independent blocks needed": gate.blocks_needed,
            "days still to record": round(gate.days_to_record, 2),
            "checks": markdown_table(
                ("check", "outcome", "seen", "needed", "says"), [(c.name, c.outcome, c.seen, c.needed, c.message) for c in checks]
            ),
        },
    )


@dg.asset(
    group_name="model",
    partitions_def=INSTRUMENT_DAY,
    owners=["team:research"],
    deps=[model__candidate],
    kinds={"mlflow"},
)
def model__challenger(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult[None]:
    """The alias `challenger` moves to the day's version, if its gate passed. `champion` is a person's command: `mm promote`."""
    with outcomes():
        instrument, day = instrument_day(context.partition_key)
        loaded = settings.load(instrument)
        moved = challenge(loaded, day)
    if moved.alias is None:
        # materialised on its own, past the gate's check
        raise dg.Failure(
            f"{f'version {moved.version}' if moved.version else 'the day'} gets no alias: gate {moved.verdict.replace('_', ' ')}",
            metadata={"checks": "\n".join(moved.failing)},
            allow_retries=False,
        )
    return dg.MaterializeResult(
        metadata={
            "version": moved.version,
            "alias": moved.alias,
            "next": f"mm promote --instrument {instrument} --reason '...'",
            **mlflow_links(loaded, moved),
        }
    )
