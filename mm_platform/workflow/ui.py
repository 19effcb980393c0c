"""Start Dagster's and MLflow's user interfaces on this machine (`make ui`). Loopback only: neither has a login of its own.

Run as `python -m mm_platform.workflow.ui`; Ctrl-C stops both. Both read the same settings as `mm`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mm_platform.config import Settings, load_settings


def commands(settings: Settings, root: Path) -> dict[str, list[str]]:
    """Name to command line of the servers to start. A registry that is a server already is not started again."""
    binaries = Path(sys.executable).parent
    found = {"dagster": [str(binaries / "dagster"), "dev", "-h", "127.0.0.1", "-p", str(settings.dagster.port), "-w", str(root / "workspace.yaml")]}
    if settings.registry_uri.startswith("sqlite:"):
        found["mlflow"] = [
            str(binaries / "mlflow"),
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(settings.mlflow.port),
            "--workers",
            "1",
            "--backend-store-uri",
            settings.registry_uri,
            "--artifacts-destination",
            str(settings.artifacts),
        ]
    return found


def environment(root: Path) -> dict[str, str]:
    """The servers' environment: Dagster's home is the project's root (dagster.yaml), MLflow without its job workers and telemetry."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(root),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def serve(root: Path) -> int:
    """Start the servers and wait; returns the exit code."""
    settings = load_settings(None, {})
    if settings.registry_uri.startswith("sqlite:"):
        from mm_platform.registry.mlflow_store import open_store

        # made once before the server starts: MLflow's first use from several processes at once fails
        open_store(settings.registry_uri, settings.artifacts)
    running = {
        name: subprocess.Popen(command, cwd=root, env=environment(root), start_new_session=True, preexec_fn=_restore_interrupt)
        for name, command in commands(settings, root).items()
    }
    print(f"Dagster: http://localhost:{settings.dagster.port}", file=sys.stderr)
    print(f"MLflow:  http://localhost:{settings.mlflow.port}" if "mlflow" in running else f"MLflow:  {settings.registry_uri}", file=sys.stderr)

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.5)
        ended = next(name for name, process in running.items() if process.poll() is not None)
        print(f"{ended} ended with code {running[ended].returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _restore_interrupt() -> None:
    # dagster maps SIGTERM to whatever SIGINT does; a background shell ignores SIGINT, and the server could then not be stopped
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(serve(Path.cwd()))
