"""Keys of instrument x day, and the list of instruments."""

from __future__ import annotations

from datetime import date

import dagster as dg
import pytest

from assets.partitions import INSTRUMENT_DAY, days_by_instrument, instrument_day, partition_key, register, registered
from mm_platform.core.errors import ConfigError

DAY = date(2026, 1, 5)
PERP = "sim:BTC-USDT-PERP"


def test_a_key_says_its_instrument_and_day() -> None:
    key = partition_key(PERP, DAY)
    assert str(key) == "2026-01-05|sim:BTC-USDT-PERP"
    assert instrument_day(key) == (PERP, DAY)


def test_keys_are_those_dagster_lists() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert register(instance, PERP)
        assert str(partition_key(PERP, DAY)) in INSTRUMENT_DAY.get_partition_keys(dynamic_partitions_store=instance)


def test_days_are_grouped_by_instrument_in_order() -> None:
    keys = [partition_key("sim:BTC-USDT", date(2026, 1, 6)), partition_key(PERP, date(2026, 1, 7)), partition_key(PERP, DAY)]
    assert days_by_instrument(keys) == {"sim:BTC-USDT": [date(2026, 1, 6)], PERP: [DAY, date(2026, 1, 7)]}


def test_registering_twice_is_once() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert register(instance, PERP)
        assert not register(instance, PERP)
        assert registered(instance) == [PERP]


@pytest.mark.parametrize("text", ["BTCUSDT", "sim:BTC|USDT", "", "binance_futures BTC"])
def test_what_is_no_instrument_id_is_refused(text: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(ConfigError, match="instrument id"):
            register(instance, text)
        assert registered(instance) == []
