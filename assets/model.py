"""The model side: fits, sweep, backtest, and what is published of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.market import market__signals, market__tape
from assets.metadata import markdown_table, picture
from assets.partitions import INSTRUMENT_DAY, instrument_day
from assets.resources import SettingsResource
from mm_platform.report.thumbnails import sweep_png
from mm_platform.workflow.fits import fit_day
from mm_platform.workflow.judge import judge_chosen
from mm_platform.workflow.publish import challenge, register_candidate
from mm_platform.workflow.record import load_record
from mm_platform.workflow.sweep import choose

Steps = Iterator[dg.MaterializeResult | dg.AssetCheckResult]


@dg.asset(group_name="model", partitions_def=INSTRUMENT_DAY, deps=[market__tape, market__signals], kinds={"parquet"})
def model__fits(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult:
    """sigma, A and k with standard errors, fitted on data up to the end of the day."""
    instrument, day = instrument_day(context.partition_key)
    fitted = fit_day(settings.load(instrument), day)
    return dg.MaterializeResult(
        metadata={
            "accepted": fitted.accepted,
            "fits": markdown_table(("name", "value", "standard error", "unit", "n", "method", "reason"), fitted.rows()),
        }
    )


@dg.asset(group_name="model", partitions_def=INSTRUMENT_DAY, deps=[model__fits], kinds={"parquet"}, pool="sweep")
def model__sweep(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult:
    """Risk aversion x hedge threshold over the days up to this one: chosen on the earlier part, judged on the later part."""
    instrument, day = instrument_day(context.partition_key)
    swept = choose(settings.load(instrument), through=day)
    metadata: dict[str, Any] = {"sweep_id": swept.sweep_id, "points": swept.points, "replays": swept.computed, "chosen": swept.chosen.why}
    grid = swept.grid()
    if grid is not None:
        metadata["heat_map"] = picture(sweep_png(grid))
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    group_name="model",
    partitions_def=INSTRUMENT_DAY,
    deps=[model__sweep],
    kinds={"parquet", "html"},
    check_specs=[
        dg.AssetCheckSpec("pnl_identity", asset="model__backtest", blocking=True, description="The attribution's parts sum to the total exactly.")
    ],
)
def model__backtest(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """The chosen point over the judged stretch: fills, equity, attribution, mark-outs, the report page."""
    instrument, day = instrument_day(context.partition_key)
    judged = judge_chosen(settings.load(instrument), day)
    metadata: dict[str, Any] = {
        "total_pnl": judged.total_pnl,
        "attribution": markdown_table(("part", "quote"), judged.attribution_rows()),
        "maker_fills": judged.maker_fills,
        "taker_fills": judged.taker_fills,
        "report": dg.MetadataValue.path(str(judged.report)),
    }
    equity = judged.equity_png()
    if equity is not None:
        metadata["equity"] = picture(equity)
    yield dg.MaterializeResult(metadata=metadata)
    yield dg.AssetCheckResult(check_name="pnl_identity", passed=judged.residual_quanta == 0, metadata={"residual_quanta": judged.residual_quanta})


@dg.asset(
    group_name="model",
    partitions_def=INSTRUMENT_DAY,
    deps=[model__backtest],
    kinds={"mlflow"},
    check_specs=[
        dg.AssetCheckSpec("gate", asset="model__candidate", blocking=True, description="Evidence out of sample; blocks the alias, not the record.")
    ],
)
def model__candidate(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """Every candidate becomes a version in MLflow, tagged with its verdict."""
    instrument, day = instrument_day(context.partition_key)
    loaded = settings.load(instrument)
    version = register_candidate(loaded, day)
    yield dg.MaterializeResult(metadata={"version": version.version, "verdict": version.verdict, "run_id": version.run_id})
    record = load_record(loaded, day)
    yield dg.AssetCheckResult(
        check_name="gate",
        passed=record.gate.verdict == "pass",
        metadata={"verdict": record.gate.verdict, "checks": markdown_table(("check", "outcome", "seen", "needed"), record.check_rows())},
    )


@dg.asset(group_name="model", partitions_def=INSTRUMENT_DAY, deps=[model__candidate], kinds={"mlflow"})
def model__challenger(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult:
    """The alias `challenger` moves to the day's version. `champion` is a person's command: `mm promote`."""
    instrument, day = instrument_day(context.partition_key)
    moved = challenge(settings.load(instrument), day)
    return dg.MaterializeResult(metadata={"version": moved.version, "alias": moved.alias or "none"})
