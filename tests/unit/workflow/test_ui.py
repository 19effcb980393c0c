"""`make ui`: what it starts and where, what it refuses, and that stopping it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from e2e_mm import clean_environment

from mm_platform.config import load_settings
from mm_platform.core.errors import ConfigError
from mm_platform.workflow import ui

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_checkout_is_found_from_a_folder_below_and_from_elsewhere(tmp_path: Path) -> None:
    assert ui.project_root(ROOT / "tests" / "unit") == ROOT
    assert ui.project_root(tmp_path) == ROOT
    for name in ("workspace.yaml", "dagster.yaml"):
        (tmp_path / name).touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert ui.project_root(below) == tmp_path


def test_both_listen_on_the_loopback_address_only(tmp_path: Path) -> None:
    settings = load_settings(None, {"dagster.port": 3917, "mlflow.port": 5917}, environ={}, cwd=tmp_path)
    started = ui.commands(settings, tmp_path)
    assert {name: [a for a in command if a == "127.0.0.1"] for name, command in started.items()} == {
        "Dagster": ["127.0.0.1"],
        "MLflow": ["127.0.0.1"],
    }
    assert settings.registry_uri in started["MLflow"]
    assert ui.addresses(settings) == {"Dagster": "http://localhost:3917", "MLflow": "http://localhost:5917"}


def test_a_registry_that_is_a_server_is_not_started_again(tmp_path: Path) -> None:
    settings = load_settings(None, {"registry_uri": "https://mlflow.example"}, environ={}, cwd=tmp_path)
    assert list(ui.commands(settings, tmp_path)) == ["Dagster"]
    assert ui.addresses(settings)["MLflow"] == "https://mlflow.example"


def test_a_port_in_use_is_named_with_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} .*MM_DAGSTER__PORT"):
            ui.check_ports({"Dagster": port})
    ui.check_ports({"Dagster": port})


def group(leader: int) -> list[str]:
    """Command lines of the processes whose ancestor is `leader`."""
    rows = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    parsed = [(int(pid), int(parent), args) for pid, parent, args in (row.split(maxsplit=2) for row in rows)]
    found, seen = [], {leader}
    while more := [(pid, args) for pid, parent, args in parsed if parent in seen and pid not in seen]:
        seen |= {pid for pid, _ in more}
        found += [args for _, args in more]
    return found


@pytest.mark.slow
def test_pages_answer_from_any_folder_and_stopping_leaves_no_process(tmp_path: Path) -> None:
    ports = {"Dagster": free_port(), "MLflow": free_port()}
    for name in ("workspace.yaml", "dagster.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    below = tmp_path / "below"
    below.mkdir()
    log = (tmp_path / "log").open("w+")
    environment = clean_environment(MM_DAGSTER__PORT=str(ports["Dagster"]), MM_MLFLOW__PORT=str(ports["MLflow"]), PYTHONPATH=str(ROOT))
    # as a background shell starts it: SIGINT ignored
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "mm_platform.workflow.ui"]
    process = subprocess.Popen(command, cwd=below, env=environment, stderr=log, stdout=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180.0
        while not all(f"{name} is ready" in (tmp_path / "log").read_text() for name in ports):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
        for port in ports.values():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                assert page.status == 200
        servers = group(process.pid)
        assert any("dagster" in args for args in servers)
        assert any("mlflow" in args for args in servers)
        # everything Dagster and MLflow write lies in the project's folder
        assert (tmp_path / ".dagster").is_dir()
        assert (tmp_path / ".mm" / "mlflow.db").is_file()
        assert list(below.iterdir()) == []
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        time.sleep(0.5)
        left = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
        assert str(tmp_path) not in left
        assert not any(f"--port {port}" in left or f"-p {port}" in left for port in ports.values())
    finally:
        if process.poll() is None:
            process.kill()
        log.close()
