"""The one place that opens MLflow.

Belongs here: opening the tracking and registry store by one URI, initialising a new database safely, translating MLflow's errors, and
small reads that `publish` and `promote` share. Does not belong here: what is published or who may promote; the runner's reader
(`registry.source`), which never imports MLflow.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_platform.core.errors import ConnectivityError, RegistryError
from mm_platform.core.ports import PublishedParameters
from mm_platform.registry.source import from_tags, is_server, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported or asked; a value that the user has set stands. Its own defaults would hang for many minutes on
# a server that is away (120 s a try, 7 retries).
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True, slots=True)
class MlflowStore:
    """An opened store: the client, where it points, and where artifacts of a database store go (None: the server decides)."""

    client: MlflowClient
    registry_uri: str
    artifacts: Path | None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A registered version as stored: number, tags, and the run behind it."""

    model_name: str
    version: str
    tags: Mapping[str, str]
    run_id: str

    def published(self, alias: str) -> PublishedParameters:
        """The same, in the form the runner reads; raises `RegistryError` without a parameter set."""
        return from_tags(self.model_name, self.version, alias, self.tags)


def open_store(registry_uri: str, artifacts: Path) -> MlflowStore:
    """Open MLflow at a database (`sqlite:///…`) or a server (`http(s)://…`).

    Parameters
    ----------
    registry_uri : str
        One URI for tracking and registry.
    artifacts : Path
        Folder of artifacts; used with a database only.

    Raises
    ------
    ConfigError
        The URI is of another form.
    RegistryError, ConnectivityError
        The store cannot be read (another MLflow's schema, damaged), or is away.
    """
    for name, value in _MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if is_server(registry_uri):
        _import_quietly()
        with translated(registry_uri):
            client = _client(registry_uri)
            client.search_experiments(max_results=1)
        return MlflowStore(client, registry_uri, None)
    path = sqlite_path(registry_uri).absolute()
    artifacts = artifacts.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        artifacts.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise RegistryError(f"cannot make the registry's folders {path.parent} and {artifacts}: {err.strerror}") from None
    uri = f"sqlite:///{path}"
    _import_quietly()  # seconds: not while others wait for the lock
    # the first use creates the tables, in the client's constructor already; two processes doing so at once break each other's migration
    with locked(path.with_name(path.name + ".lock")), translated(uri):
        client = _client(uri)
        client.search_experiments(max_results=1)
    return MlflowStore(client, uri, artifacts)


def _import_quietly() -> None:
    import mlflow  # noqa: F401

    # MLflow logs table creation and every new version at INFO on stderr; progress is ours to show
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a file (made if absent) against other processes of this machine; it ends with the process at the latest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as err:
        raise RegistryError(f"cannot make the lock file {path}: {err.strerror}; its folder must be writable") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def translated(registry_uri: str) -> Iterator[None]:
    """Turn MLflow's, its HTTP client's and its database layer's errors into ours."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except RestException as err:
        if err.get_http_status_code() >= 500:
            raise ConnectivityError(f"registry {registry_uri} is in trouble: {_first_line(err)}") from err
        raise RegistryError(f"registry {registry_uri} refused: {_first_line(err)}") from err
    except MlflowException as err:
        text = _first_line(err)
        if text.startswith("API request to") or "database is locked" in str(err):
            raise ConnectivityError(f"registry {registry_uri} is away: {text}") from err
        raise RegistryError(f"registry {registry_uri}: {text}") from err
    except requests.exceptions.RequestException as err:
        raise ConnectivityError(f"registry {registry_uri} is away: {err}") from err
    except sqlalchemy.exc.OperationalError as err:
        raise ConnectivityError(f"registry {registry_uri} cannot be used now: {_first_line(err)}") from err
    except sqlalchemy.exc.DatabaseError as err:
        raise RegistryError(f"registry {registry_uri} is not a usable MLflow database: {_first_line(err)}") from err


def _first_line(err: BaseException) -> str:
    return str(err).split("\n", 1)[0]


def _missing(err: Any) -> bool:
    # MLflow says INVALID_PARAMETER_VALUE for an absent alias
    return err.error_code == "RESOURCE_DOES_NOT_EXIST" or (err.error_code == "INVALID_PARAMETER_VALUE" and "not found" in str(err))


def alias_version(store: MlflowStore, model_name: str, alias: str) -> VersionRecord | None:
    """The version under an alias, None when the model or the alias does not exist."""
    from mlflow.exceptions import MlflowException

    with translated(store.registry_uri):
        try:
            found = store.client.get_model_version_by_alias(model_name, alias)
        except MlflowException as err:
            if _missing(err):
                return None
            raise
    return _record(found)


def get_version(store: MlflowStore, model_name: str, version: str) -> VersionRecord | None:
    """A version by its number, None when there is no such version."""
    from mlflow.exceptions import MlflowException

    with translated(store.registry_uri):
        try:
            found = store.client.get_model_version(model_name, version)
        except MlflowException as err:
            if _missing(err):
                return None
            raise
    return _record(found)


def versions(store: MlflowStore, model_name: str, *, tag: tuple[str, str] | None = None) -> list[VersionRecord]:
    """Versions of a model, newest first, all or those with a tag of this (name, value); empty when the model does not exist."""
    which = f"name = '{model_name}'" + ("" if tag is None else f" and tags.{tag[0]} = '{tag[1]}'")
    found: list[VersionRecord] = []
    token: str | None = None
    with translated(store.registry_uri):
        while True:
            page = store.client.search_model_versions(which, max_results=100, page_token=token)
            found.extend(_record(v) for v in page)
            token = page.token
            if not token:
                break
    return sorted(found, key=lambda v: int(v.version), reverse=True)


def _record(found: Any) -> VersionRecord:
    return VersionRecord(found.name, str(found.version), dict(found.tags), found.run_id or "")
