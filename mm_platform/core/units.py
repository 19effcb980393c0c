"""Units of time, relative prices and annualisation (THEORY section 0). One definition each.

Crypto trades around the clock: a year is 365 days of 86,400 s.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
SECONDS_PER_DAY: Final = 86_400
SECONDS_PER_YEAR: Final = 31_536_000
NS_PER_DAY: Final = SECONDS_PER_DAY * NS_PER_S
NS_PER_YEAR: Final = SECONDS_PER_YEAR * NS_PER_S
HOURS_PER_YEAR: Final = 8_760
BPS: Final = 1e-4


def utc_date(ts_ns: int) -> date:
    """UTC calendar day of a timestamp in ns since the epoch."""
    return datetime.fromtimestamp(ts_ns // NS_PER_S, tz=UTC).date()


def day_start_ns(day: date) -> int:
    """First nanosecond (UTC, since the epoch) of a calendar day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS_PER_S


def iso_utc(ts_ns: int) -> str:
    """ISO 8601 with milliseconds and `Z`, for messages and reports."""
    return datetime.fromtimestamp(ts_ns / NS_PER_S, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
