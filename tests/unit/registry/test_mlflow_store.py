"""Opening MLflow: concurrent first use, errors in our words, and one round trip through a real server."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_platform.core.errors import ConfigError, ConnectivityError, RegistryError
from mm_platform.registry.mlflow_store import open_store
from mm_platform.registry.model import MarketState, load
from mm_platform.registry.promote import Promotion, promote
from mm_platform.registry.publish import publish
from mm_platform.registry.signing import keys_dir, load_public_key
from mm_platform.registry.source import RestParameterSource, SqliteParameterSource, verify_published

from .conftest import BOUNDS, MODEL, NOW_NS, PERP, candidate


def test_three_processes_may_be_first_at_once(tmp_path: Path) -> None:
    script = "import sys, pathlib; from mm_platform.registry.mlflow_store import open_store; d = pathlib.Path(sys.argv[1]); open_store(f'sqlite:///{d}/m.db', d / 'a')"
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    failures = [process.communicate(timeout=120)[1] for process in running if process.wait(120) != 0]
    assert failures == []
    with sqlite3.connect(tmp_path / "m.db") as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m.db").write_bytes(b"no database " * 100)
    with pytest.raises(RegistryError, match=r"m\.db"):
        open_store(f"sqlite:///{tmp_path}/m.db", tmp_path / "a")
    assert (tmp_path / "m.db").read_bytes() == b"no database " * 100


def test_a_database_of_another_mlflow_is_refused(database: Path, tmp_path: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'fromthefuture'")
    with pytest.raises(RegistryError):
        open_store(f"sqlite:///{database}", tmp_path / "a")


def test_another_kind_of_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected sqlite:///path"):
        open_store("mysql://host/db", tmp_path)


def test_a_server_that_is_away_is_said_so_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectivityError, match="is away"):
        open_store(f"http://127.0.0.1:{port}", tmp_path)


@pytest.fixture
def server(database: Path, tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(tmp_path / "served")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)


@pytest.mark.slow
def test_a_round_trip_through_a_server(server: str, database: Path, tmp_path: Path) -> None:
    store = open_store(server, tmp_path / "unused")
    picture = tmp_path / "equity.png"
    picture.write_bytes(b"png")
    published = publish(store, candidate(artifacts={"plots/equity.png": picture}))
    assert (published.version, published.alias) == ("1", "challenger")
    source = RestParameterSource(server, timeout_s=10)
    with pytest.raises(RegistryError, match="has no champion; its aliases: challenger -> version 1"):
        source.fetch(MODEL, "champion")
    done = promote(store, PERP, "challenger", approver="ada", reason="r", now_ns=NOW_NS, state_dir=tmp_path / "state", bounds=BOUNDS)
    assert isinstance(done, Promotion)
    public = load_public_key(keys_dir(tmp_path / "state") / "signing.pub")
    champion = source.fetch(MODEL, "champion")
    assert verify_published(champion, public, MODEL) == candidate().parameters
    # one store behind both readers
    assert SqliteParameterSource(database, timeout_s=10).fetch(MODEL, "champion") == champion
    downloaded = Path(store.client.download_artifacts(published.run_id, "plots/equity.png", str(tmp_path)))
    assert downloaded.read_bytes() == b"png"
    assert not (tmp_path / "unused").exists()
    quote = load(PERP, registry_uri=server, public_key=keys_dir(tmp_path / "state") / "signing.pub").predict(MarketState(50_000.0, 0.0002))
    assert quote.bid < 50_000.0 < quote.ask
    with pytest.raises(RegistryError, match=r"no model mm\.sim\.ETH-USDT"):
        source.fetch("mm.sim.ETH-USDT", "champion")
