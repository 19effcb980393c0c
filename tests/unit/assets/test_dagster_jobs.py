"""Jobs, schedules and the sensor, without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from assets import jobs
from assets.definitions import defs
from assets.partitions import INSTRUMENT_DAY, partition_key, register, registered
from assets.resources import SettingsResource
from mm_platform.core.instrument import InstrumentId
from mm_platform.lake.layout import Partition, data_path

PERP = "sim:BTC-USDT-PERP"
pytestmark = pytest.mark.filterwarnings("ignore:Asset job .* materializes assets with varying BackfillPolicies")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    # schedules ask for an instance that has a place on disk
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as made:
        yield made


# -- schedules -------------------------------------------------------------------------------------------------------------------------


def asked(instance: dg.DagsterInstance, at: datetime) -> list[dg.RunRequest]:
    context = dg.build_schedule_context(instance, scheduled_execution_time=at, repository_def=defs.get_repository_def())
    data = jobs.daily_calibration.evaluate_tick(context)
    return list(data.run_requests or [])


def test_daily_calibration_asks_for_yesterday_of_every_instrument(instance: dg.DagsterInstance) -> None:
    for instrument in (PERP, "binanceusdm:ETH-USDT-PERP"):
        register(instance, instrument)
    requests = asked(instance, datetime(2026, 3, 1, 1, 15, tzinfo=UTC))
    assert [r.partition_key for r in requests] == ["2026-02-28|binanceusdm:ETH-USDT-PERP", "2026-02-28|sim:BTC-USDT-PERP"]
    assert len({r.run_key for r in requests}) == 2


def test_daily_calibration_asks_again_with_the_same_keys(instance: dg.DagsterInstance) -> None:
    register(instance, PERP)
    first, late = (asked(instance, datetime(2026, 3, 1, hour, 15, tzinfo=UTC)) for hour in (1, 22))
    assert [r.run_key for r in first] == [r.run_key for r in late]


def test_daily_calibration_goes_by_the_utc_day(instance: dg.DagsterInstance) -> None:
    register(instance, PERP)
    tokyo = timezone(timedelta(hours=9))
    [request] = asked(instance, datetime(2026, 3, 1, 1, 15, tzinfo=UTC).astimezone(tokyo))
    assert request.partition_key == "2026-02-28|sim:BTC-USDT-PERP"


def test_daily_calibration_says_why_it_does_nothing(instance: dg.DagsterInstance) -> None:
    context = dg.build_schedule_context(instance, scheduled_execution_time=datetime(2026, 3, 1, 1, 15, tzinfo=UTC))
    data = jobs.daily_calibration.evaluate_tick(context)
    assert not data.run_requests
    assert "register_instrument" in (data.skip_message or "")


@pytest.mark.parametrize(("schedule", "job"), [(jobs.hourly_funding_scan, "funding_scan"), (jobs.weekly_prune, "prune_runs")])
def test_plain_schedules_start_their_job(schedule: dg.ScheduleDefinition, job: str) -> None:
    assert schedule.job_name == job
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 3, 1, tzinfo=UTC))
    assert len(schedule.evaluate_tick(context).run_requests or []) == 1


# -- instruments -----------------------------------------------------------------------------------------------------------------------


def sensed(instance: dg.DagsterInstance, settings: SettingsResource) -> dg.SensorResult | dg.SkipReason:
    return jobs.known_instruments(dg.build_sensor_context(instance, resources={"settings": settings}))  # type: ignore[return-value]


def test_the_sensor_registers_what_is_configured_and_what_the_lake_holds(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    (tmp_path / "mm.toml").write_text('instrument = "sim:BTC-USDT-PERP"\n')
    settings = SettingsResource(config_path=str(tmp_path / "mm.toml"))
    file = data_path(settings.load().lake, "data_quality", Partition.of(InstrumentId.parse("binance:NEXO-USDT"), date(2024, 7, 23)))
    file.parent.mkdir(parents=True)
    file.touch()
    result = sensed(instance, settings)
    assert isinstance(result, dg.SensorResult)
    [request] = result.dynamic_partitions_requests or []
    assert sorted(request.partition_keys) == ["binance:NEXO-USDT", PERP]
    assert not result.run_requests


def test_the_sensor_asks_for_nothing_that_is_known(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    (tmp_path / "mm.toml").write_text("")
    register(instance, PERP)
    assert isinstance(sensed(instance, SettingsResource(config_path=str(tmp_path / "mm.toml"))), dg.SkipReason)


def test_registering_from_the_launchpad(instance: dg.DagsterInstance) -> None:
    job = defs.resolve_job_def("register_instrument")
    assert job.execute_in_process(instance=instance).success
    config = dg.RunConfig(ops={"add_instrument": jobs.RegisterConfig(instrument="binanceusdm:BTC-USDT-PERP")})
    assert job.execute_in_process(instance=instance, run_config=config).success
    assert registered(instance) == ["binanceusdm:BTC-USDT-PERP", PERP]


def test_registering_nonsense_says_what_was_expected(instance: dg.DagsterInstance) -> None:
    config = dg.RunConfig(ops={"add_instrument": jobs.RegisterConfig(instrument="BTCUSDT")})
    with pytest.raises(dg.Failure, match="binanceusdm:BTC-USDT-PERP"):
        defs.resolve_job_def("register_instrument").execute_in_process(instance=instance, run_config=config)
    assert registered(instance) == []


# -- housekeeping ----------------------------------------------------------------------------------------------------------------------


@dg.asset(partitions_def=INSTRUMENT_DAY)
def daily() -> None: ...


@dg.asset
def hourly() -> None: ...


@dg.asset
def broken() -> None:
    raise dg.Failure("always")


def prune_later(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz=UTC) + timedelta(days=days)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "datetime", Later)
        assert defs.resolve_job_def("prune_runs").execute_in_process(instance=instance).success


def test_pruning_keeps_what_made_the_standing_partitions(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    register(instance, PERP)
    keys = [partition_key(PERP, date(2026, 1, d)) for d in (5, 6)]
    redone, first, second = (dg.materialize([daily], instance=instance, partition_key=k).run_id for k in (keys[0], keys[0], keys[1]))
    old, new = (dg.materialize([hourly], instance=instance).run_id for _ in range(2))
    failed = dg.materialize([broken], instance=instance, raise_on_error=False).run_id
    prune_later(instance, monkeypatch, days=29)
    assert {redone, first, second, old, new, failed} <= {r.run_id for r in instance.get_runs()}
    prune_later(instance, monkeypatch, days=31)
    assert {redone, old, failed}.isdisjoint(r.run_id for r in instance.get_runs())
    assert {first, second, new} <= {r.run_id for r in instance.get_runs()}
    assert instance.get_materialized_partitions(daily.key) == set(keys)
    assert instance.get_latest_materialization_event(hourly.key) is not None
