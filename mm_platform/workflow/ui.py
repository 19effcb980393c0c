"""Start Dagster's and MLflow's user interfaces on this machine (`make ui`). Loopback only: neither has a login of its own.

Run as `python -m mm_platform.workflow.ui`; Ctrl-C stops both. Both read the same settings as `mm` run in the project's root. Dagster needs
the checkout (workspace.yaml, assets/): it is looked for from the working directory upwards, then where this package lies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mm_platform.config import Settings, load_settings
from mm_platform.core.errors import ConfigError, MMError

_HOST: Final = "127.0.0.1"
_WORKSPACE: Final = "workspace.yaml"
_STOP_S: Final = 20.0


def project_root(start: Path) -> Path:
    """The checkout: the nearest folder from `start` upwards with workspace.yaml and dagster.yaml, else the one this package lies in.

    Raises
    ------
    ConfigError
        Neither is a checkout.
    """
    for folder in (start, *start.parents, Path(__file__).resolve().parents[2]):
        if (folder / _WORKSPACE).is_file() and (folder / "dagster.yaml").is_file():
            return folder
    raise ConfigError(f"no {_WORKSPACE} in {start} or above; run this in a checkout of the project")


def commands(settings: Settings, root: Path) -> dict[str, list[str]]:
    """Name to command line of the servers to start. A registry that is a server already is not started again."""
    module = [sys.executable, "-m"]
    found = {"Dagster": [*module, "dagster", "dev", "-h", _HOST, "-p", str(settings.dagster.port), "-w", str(root / _WORKSPACE)]}
    if settings.registry_uri.startswith("sqlite:"):
        where = ["--backend-store-uri", settings.registry_uri, "--artifacts-destination", str(settings.artifacts)]
        # one worker: the default of four takes gigabytes
        found["MLflow"] = [*module, "mlflow", "server", "--host", _HOST, "--port", str(settings.mlflow.port), "--workers", "1", *where]
    return found


def addresses(settings: Settings) -> dict[str, str]:
    """Name to page of every user interface, started here or not."""
    mlflow = f"http://localhost:{settings.mlflow.port}" if settings.registry_uri.startswith("sqlite:") else settings.registry_uri
    return {"Dagster": f"http://localhost:{settings.dagster.port}", "MLflow": mlflow}


def environment(root: Path) -> dict[str, str]:
    """The servers' environment: Dagster's home is the project's root (dagster.yaml), MLflow without its job workers and telemetry."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(root),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def check_ports(ports: dict[str, int]) -> None:
    """Raise `ConfigError` naming the port and its setting where another program listens already."""
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError as err:
                variable = f"MM_{name.upper()}__PORT"
                raise ConfigError(
                    f"{name} cannot listen on port {port} ({err.strerror}); stop what uses it, or set {variable} to a free one"
                ) from None


def serve(start: Path) -> int:
    """Start the servers, say when they answer, and wait.

    Parameters
    ----------
    start
        Where to look for the checkout.

    Returns
    -------
    int
        0 after Ctrl-C or SIGTERM, 1 when a server ended by itself.
    """
    root = project_root(start)
    settings = load_settings(None, {}, cwd=root)
    todo = commands(settings, root)
    ports = {"Dagster": settings.dagster.port, "MLflow": settings.mlflow.port}
    check_ports({name: ports[name] for name in todo})
    if "MLflow" in todo:
        from mm_platform.registry.mlflow_store import open_store

        # made once before the server starts: MLflow's first use from several processes at once fails
        open_store(settings.registry_uri, settings.artifacts)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
    with _running(todo, root) as running:
        try:
            waiting = dict(ports)
            while all(process.poll() is None for process in running.values()):
                for name in [n for n in waiting if n in running and _answers(waiting[n])]:
                    del waiting[name]
                    print(f"{name} is ready: {addresses(settings)[name]}", file=sys.stderr, flush=True)
                time.sleep(0.5)
            ended = next(name for name, process in running.items() if process.poll() is not None)
            print(f"{ended} ended by itself with code {running[ended].returncode}; its messages are above", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)
            return 0


@contextlib.contextmanager
def _running(todo: dict[str, list[str]], root: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start the servers, each the head of its own process group; on leaving the whole groups end."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in todo.items():
            processes[name] = subprocess.Popen(command, cwd=root, env=environment(root), start_new_session=True, preexec_fn=_restore_interrupt)
        yield processes
    finally:
        # a second Ctrl-C would leave half of them behind
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            # what its own shutdown left behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((_HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def _restore_interrupt() -> None:
    # dagster maps SIGTERM to whatever SIGINT does; where SIGINT is ignored the server could not be stopped
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    """`python -m mm_platform.workflow.ui`."""
    try:
        return serve(Path.cwd())
    except MMError as err:
        print(err, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
