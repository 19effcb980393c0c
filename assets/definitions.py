"""Everything Dagster is shown. `build_defs(overrides)` lets tests swap the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets import funding, jobs, market, model
from assets.resources import SettingsResource


def build_defs(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Definitions with the given resources in place of the defaults."""
    return dg.Definitions(
        assets=dg.load_assets_from_modules([market, model, funding]),
        jobs=[jobs.ingest_and_signal, jobs.calibrate_and_publish, jobs.funding_scan, jobs.register_instrument, jobs.prune_runs],
        schedules=[jobs.daily_calibration, jobs.hourly_funding_scan, jobs.weekly_prune],
        sensors=[jobs.known_instruments],
        resources={"settings": SettingsResource(), **(overrides or {})},
        executor=dg.in_process_executor,
    )


defs = build_defs()
