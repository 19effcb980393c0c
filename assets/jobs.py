"""Jobs, schedules, and the sensor that keeps the list of instruments.

Heavy work runs inside one asset, so the in-process executor is the default (a process per step costs seconds). Schedules are off until
someone switches them on: they spend the machine's time. The sensor is on: it only adds names to choose from.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from assets.outcomes import outcomes
from assets.partitions import INSTRUMENTS, partition_key, register, registered
from assets.resources import SettingsResource
from mm_platform.workflow.data import instruments_at_hand

ingest_and_signal = dg.define_asset_job(
    "ingest_and_signal",
    selection=dg.AssetSelection.groups("market"),
    description="Tape and signals of an instrument's days; a backfill over many days is one run.",
)
calibrate_and_publish = dg.define_asset_job(
    "calibrate_and_publish",
    selection=dg.AssetSelection.groups("market", "model"),
    description="One instrument and day: tape, signals, fits, sweep, backtest, a version in MLflow, and the challenger alias if the gate lets it.",
)
funding_scan = dg.define_asset_job(
    "funding_scan", selection=dg.AssetSelection.assets("funding__opportunities"), description="Rates with APR, and what is left of them after costs."
)


# -- instruments ---------------------------------------------------------------------------------------------------------------------


class RegisterConfig(dg.Config):
    """Which instrument's partitions to make known."""

    instrument: str = Field(description="<venue>:<BASE>-<QUOTE>[-PERP], e.g. binanceusdm:BTC-USDT-PERP")


@dg.op
def add_instrument(context: dg.OpExecutionContext, config: RegisterConfig) -> None:
    """Add an instrument to the partitions."""
    with outcomes():
        added = register(context.instance, config.instrument)
    context.log.info("%s %s; registered: %s", config.instrument, "added" if added else "was known", ", ".join(registered(context.instance)))


# given as the job's default, the launchpad opens with it filled in
@dg.job(
    description="Make an instrument's partitions known, so that it can be picked for materialisation. Edit the instrument id and launch.",
    config=dg.RunConfig(ops={"add_instrument": RegisterConfig(instrument="sim:BTC-USDT-PERP")}),
)
def register_instrument() -> None:
    add_instrument()


@dg.sensor(
    name="known_instruments",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes the configured instrument and every instrument in the lake known as partitions. Starts no runs.",
)
def known_instruments(context: dg.SensorEvaluationContext, settings: SettingsResource) -> dg.SensorResult | dg.SkipReason:
    """Add what is at hand and not yet registered."""
    known = set(registered(context.instance))
    new = [instrument for instrument in instruments_at_hand(settings.load()) if instrument not in known]
    if not new:
        return dg.SkipReason(f"all known: {', '.join(sorted(known))}")
    return dg.SensorResult(skip_reason=f"registered {', '.join(new)}", dynamic_partitions_requests=[INSTRUMENTS.build_add_request(new)])


# -- schedules -----------------------------------------------------------------------------------------------------------------------


@dg.schedule(
    job=calibrate_and_publish,
    cron_schedule="15 1 * * *",
    execution_timezone="UTC",
    description="Yesterday's partition of every registered instrument, at 01:15 UTC.",
)
def daily_calibration(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run per instrument; asked twice for the same day it runs once."""
    yesterday = (context.scheduled_execution_time.astimezone(UTC) - timedelta(days=1)).date()
    instruments = registered(context.instance)
    if not instruments:
        yield dg.SkipReason("no instrument is registered: run the job register_instrument, or switch on the sensor known_instruments")
    for instrument in instruments:
        yield dg.RunRequest(run_key=f"{instrument}|{yesterday}", partition_key=partition_key(instrument, yesterday))


hourly_funding_scan = dg.ScheduleDefinition(
    name="hourly_funding_scan", job=funding_scan, cron_schedule="5 * * * *", execution_timezone="UTC", description="At five past every hour."
)


# -- housekeeping --------------------------------------------------------------------------------------------------------------------


class PruneConfig(dg.Config):
    """What is old."""

    keep_days: int = Field(default=30, ge=1, description="finished runs younger than this stay, days")


@dg.op
def drop_old_runs(context: dg.OpExecutionContext, config: PruneConfig) -> None:
    """Delete old finished runs with their event logs: Dagster itself never does."""
    limit = datetime.now(tz=UTC) - timedelta(days=config.keep_days)
    finished = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    dropped = kept = 0
    for record in context.instance.get_run_records(filters=dg.RunsFilter(statuses=finished, created_before=limit)):
        run_id = record.dagster_run.run_id
        if _made_what_stands(context.instance, run_id):
            kept += 1
        else:
            context.instance.delete_run(run_id)
            dropped += 1
    context.log.info(
        "deleted %d runs older than %d days; kept %d whose materialisations are the newest of their partition", dropped, config.keep_days, kept
    )


def _made_what_stands(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a partition's newest materialisation is this run's: without its events Dagster would call the partition missing."""
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records:
        event = record.event_log_entry.dagster_event
        if event is None or event.asset_key is None:
            continue
        partitions = [event.partition] if event.partition is not None else None
        newest = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=event.asset_key, asset_partitions=partitions), limit=1).records
        if newest and newest[0].run_id == run_id:
            return True
    return False


@dg.job(description="Housekeeping: old finished runs go, except those that made what the assets' partitions hold now.")
def prune_runs() -> None:
    drop_old_runs()


weekly_prune = dg.ScheduleDefinition(
    name="weekly_prune", job=prune_runs, cron_schedule="30 3 * * 0", execution_timezone="UTC", description="Sundays at 03:30 UTC."
)
