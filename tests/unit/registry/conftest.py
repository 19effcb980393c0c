"""A candidate, and real MLflow databases: one is made per session and copied, because making one takes seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mm_platform.core.instrument import InstrumentId
from mm_platform.core.parameters import ParameterSet, Value, amount
from mm_platform.registry.mlflow_store import MlflowStore, open_store
from mm_platform.registry.publish import Candidate

PERP = InstrumentId.parse("sim:BTC-USDT-PERP")
MODEL = PERP.model_name
NOW_NS = 1_767_744_000_000_000_000
BOUNDS = {"risk_aversion": (0.005, 2.0), "sigma": (0.01, 5.0)}
CHECKS = json.dumps(
    [
        {"name": "pnl_lower_bound", "outcome": "pass", "seen": "3.1", "needed": "> 0", "message": "mean block P&L"},
        {"name": "psr", "outcome": "pass", "seen": "0.99", "needed": ">= 0.95", "message": ""},
    ]
)
FAILED_CHECKS = json.dumps(
    [
        {"name": "pnl_lower_bound", "outcome": "fail", "seen": "-3.1", "needed": "> 0", "message": "mean block P&L"},
        {"name": "psr", "outcome": "pass", "seen": "0.99", "needed": ">= 0.95", "message": ""},
    ]
)


def parameter_set(risk_aversion: float = 0.1, instrument: str = str(PERP), **changed: Value) -> ParameterSet:
    price = 50_000.0
    values: dict[str, Value] = {
        "risk_aversion": Value(risk_aversion, "1", None, "sweep"),
        "inventory_unit_notional": Value(500.0, "quote"),
        "inventory_unit_price": Value(price, "quote/base"),
        "inventory_unit_fixed_at": Value(NOW_NS - 10**12, "ns"),
        "terminal_time": Value(1 / 365, "year"),
        "horizon": Value("rolling", "name"),
        "sigma": Value(0.5, "1/sqrt(year)", 0.01, "fit"),
        "A_bid": Value(0.8, "1/s", 0.02, "fit"),
        "A_ask": Value(0.9, "1/s", 0.02, "fit"),
        "k_bid": Value(5000.0, "1/relative", 100.0, "fit"),
        "k_ask": Value(5100.0, "1/relative", 100.0, "fit"),
        "order_size": amount(0.01, price),
        "levels": Value(1, "1"),
        "min_spread": Value(0.0001, "relative"),
        "max_spread": Value(0.01, "relative"),
        "target_inventory": amount(0.0, price),
        "max_inventory": amount(0.1, price),
        "hedge_threshold": amount(0.04, price, "sweep"),
        "min_hedge_size": amount(0.002, price),
        "hedge_ratio": Value(0.8, "1"),
        "max_hedge_latency": Value(60.0, "s"),
        "quote_refresh_s": Value(1.0, "s"),
        "refresh_tolerance": Value(2, "tick"),
        "hedge_interval_s": Value(10.0, "s"),
    }
    return ParameterSet(
        instrument=instrument,
        model="avellaneda_stoikov",
        valid_from_ns=NOW_NS,
        fitted_through_ns=NOW_NS - 10**12,
        code_version="0.1.0",
        dataset_sha256="ab" * 32,
        values={**values, **changed},
    )


def candidate(risk_aversion: float = 0.1, verdict: Any = "pass", checks: str | None = None, **changed: Any) -> Candidate:
    arguments: dict[str, Any] = {
        "parameters": parameter_set(risk_aversion),
        "gate_verdict": verdict,
        "checks_json": checks or (CHECKS if verdict == "pass" else FAILED_CHECKS),
        "manifest_json": json.dumps({"files": [{"path": "tape", "sha256": "ab" * 32}]}),
        "metrics": {"in_sample.sharpe": 3.0, "out_of_sample.net_quote": 12.5, "out_of_sample.sharpe": float("inf")},
        "run_params": {"grid": "8 x 6", "seed": "7"},
    }
    return Candidate(**{**arguments, **changed})


def altered(text: str, **changed: object) -> str:
    """The same JSON object with some members replaced, still in canonical order."""
    return msgspec.json.encode({**msgspec.json.decode(text), **changed}, order="sorted").decode()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow-template")
    open_store(f"sqlite:///{folder}/mlflow.db", folder / "artifacts")
    return folder / "mlflow.db"


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.db"
    shutil.copy(template, path)
    return path


@pytest.fixture
def store(database: Path, tmp_path: Path) -> MlflowStore:
    return open_store(f"sqlite:///{database}", tmp_path / "artifacts")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def promoted(store: MlflowStore, state_dir: Path) -> Callable[..., Any]:
    """Publish a candidate and promote it; returns the promotion."""
    from mm_platform.registry.promote import promote
    from mm_platform.registry.publish import publish

    def _promoted(risk_aversion: float = 0.1, now_ns: int = NOW_NS) -> Any:
        version = publish(store, candidate(risk_aversion)).version
        return promote(store, PERP, version, approver="ada", reason="test", now_ns=now_ns, state_dir=state_dir, bounds=BOUNDS)

    return _promoted
