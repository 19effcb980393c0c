"""Jobs and schedules. Heavy work runs inside one asset, so the in-process executor is the default (a process per step costs seconds)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from assets.partitions import INSTRUMENTS, register
from assets.resources import SettingsResource

ingest_and_signal = dg.define_asset_job(
    "ingest_and_signal", selection=dg.AssetSelection.groups("market"), description="One instrument and day: tape and signals."
)
calibrate_and_publish = dg.define_asset_job(
    "calibrate_and_publish",
    selection=dg.AssetSelection.groups("market", "model"),
    description="One instrument and day: tape, signals, fits, sweep, backtest, a version in MLflow, and the challenger alias if the gate lets it.",
)
funding_scan = dg.define_asset_job("funding_scan", selection=dg.AssetSelection.groups("funding"))


class RegisterConfig(dg.Config):
    """Which instrument's partitions to make known."""

    instrument: str


@dg.op
def add_instrument(context: dg.OpExecutionContext, config: RegisterConfig) -> None:
    """Add an instrument to the dynamic partitions."""
    register(context.instance, config.instrument)


@dg.job(description="Make an instrument's partitions known, so that it can be picked in the UI.")
def register_instrument() -> None:
    add_instrument()


@dg.op
def drop_old_runs(context: dg.OpExecutionContext) -> None:
    """Delete finished runs older than 30 days with their event logs: Dagster itself never does."""
    limit = datetime.now(tz=UTC) - timedelta(days=30)
    records = context.instance.get_run_records(
        filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE], created_before=limit)
    )
    for record in records:
        context.instance.delete_run(record.dagster_run.run_id)
    context.log.info("deleted %d runs", len(records))


@dg.job(description="Housekeeping: finished runs older than 30 days go.")
def prune_runs() -> None:
    drop_old_runs()


@dg.schedule(job=calibrate_and_publish, cron_schedule="15 1 * * *", execution_timezone="UTC")
def daily_calibration(context: dg.ScheduleEvaluationContext, settings: SettingsResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Yesterday's partition of every known instrument, at 01:15 UTC."""
    yesterday = (context.scheduled_execution_time - timedelta(days=1)).date().isoformat()
    instruments = context.instance.get_dynamic_partitions(str(INSTRUMENTS.name))
    if not instruments:
        yield dg.SkipReason("no instrument is registered: run the job register_instrument")
        return
    for instrument in instruments:
        key = dg.MultiPartitionKey({"instrument": instrument, "date": yesterday})
        yield dg.RunRequest(run_key=f"{instrument}|{yesterday}", partition_key=key)


hourly_funding_scan = dg.ScheduleDefinition(job=funding_scan, cron_schedule="5 * * * *", execution_timezone="UTC")
weekly_prune = dg.ScheduleDefinition(job=prune_runs, cron_schedule="30 3 * * 0", execution_timezone="UTC")
