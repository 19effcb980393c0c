"""The runner against the real registry: MLflow on a database file, versions that were really signed, the alias moved while it runs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from parameter_sets import parameter_set
from runner_world import MemoryLog

from mm_platform.config import Settings, load_settings
from mm_platform.core.errors import RegistryError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.ports import ParameterSource, PublishedParameters
from mm_platform.core.units import NS_PER_S, day_start_ns
from mm_platform.registry.mlflow_store import open_store
from mm_platform.registry.promote import Promotion, promote
from mm_platform.registry.publish import Candidate, publish
from mm_platform.registry.source import open_source
from mm_platform.tape.simulate import SIM_PERP
from mm_platform.workflow.live import run_live

PERP = InstrumentId.parse(SIM_PERP.instrument)
CHECKS = json.dumps([{"name": "pnl", "outcome": "pass", "seen": "1", "needed": "> 0", "message": ""}])


def promoted(settings: Settings, risk_aversion: float) -> str:
    """Publish a version and make it champion; returns its number."""
    start = day_start_ns(settings.simulate.start)
    pset = parameter_set(
        SIM_PERP, 74_000.0, k=20_000.0, order_notional=500.0, min_spread=0.0001, risk_aversion=risk_aversion, fitted_through_ns=start - 60 * NS_PER_S
    )
    store = open_store(settings.registry_uri, settings.artifacts)
    candidate = Candidate(parameters=pset, gate_verdict="pass", checks_json=CHECKS, manifest_json="{}", metrics={}, run_params={}, artifacts={})
    version = publish(store, candidate).version
    outcome = promote(
        store, PERP, version, approver="test", reason="test", now_ns=start, state_dir=settings.state_dir, bounds=settings.risk.parameter_bounds
    )
    assert isinstance(outcome, Promotion)
    return version


class PromotesWhileRead:
    """The registry's own reader; before the third read somebody promotes another version."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source: ParameterSource = open_source(settings.registry_uri)
        self._reads = 0
        self.second = ""

    def fetch(self, model_name: str, alias: str) -> PublishedParameters:
        self._reads += 1
        if self._reads == 3:
            self.second = promoted(self._settings, 0.3)
        return self._source.fetch(model_name, alias)


def test_champion_is_read_swapped_kept_and_guarded(tmp_path: Path) -> None:
    settings = load_settings(None, {"state_dir": tmp_path / "state", "lake": tmp_path / "lake"}, environ={}, cwd=tmp_path)
    with pytest.raises(RegistryError, match="nothing was published"):
        run_live(settings, duration_s=5.0, log=MemoryLog())
    first = promoted(settings, 0.1)

    source = PromotesWhileRead(settings)
    swapped = run_live(settings, duration_s=120.0, run_id="swap", parameters=source, log=MemoryLog())
    assert swapped.parameter_versions == (first, source.second)
    assert swapped.refusals == ()

    # somebody edits the database: the signature no longer fits, the last good set goes on
    database = tmp_path / "state" / "mlflow.db"
    assert settings.registry_uri.endswith(str(database))
    with sqlite3.connect(database) as db:
        changed = db.execute(
            "UPDATE model_version_tags SET value = replace(value, '0.3', '0.9') WHERE key = 'params_json' AND version = ?", (source.second,)
        )
        assert changed.rowcount == 1
    guarded = run_live(settings, duration_s=20.0, run_id="altered", log=MemoryLog())
    assert guarded.parameter_versions == (source.second,)
    assert "altered" in guarded.refusals[0].reason

    # the registry is gone altogether
    database.rename(tmp_path / "elsewhere.db")
    log = MemoryLog()
    alone = run_live(settings, duration_s=20.0, run_id="alone", log=log)
    assert alone.parameter_versions == (source.second,)
    assert log.events("registry_away")
