"""Reading published parameters with the standard library alone: what the runner uses instead of the MLflow package.

Belongs here: the two readers (`sqlite` file, `rest` server) behind `core.ports.ParameterSource`, and the check that what they read was
approved and not altered. Does not belong here: anything that writes (`registry.publish`, `registry.promote`).

Every read has a time limit, because a registry that hangs must not hold up a runner.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from mm_platform.core.approval import Approval, bound_violations, decode_approval, text_sha256
from mm_platform.core.errors import ConfigError, ConnectivityError, RegistryError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.parameters import ParameterSet, decode_parameter_set
from mm_platform.core.ports import ParameterSource, PublishedParameters
from mm_platform.registry import signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# Version tags. Approval and signature share one tag: one write, so no reader ever sees the one without the other.
TAG_PARAMETERS: Final = "params_json"
TAG_SHA256: Final = "sha256"
TAG_APPROVAL: Final = "signed_approval"
DEFAULT_REGISTRY_URI: Final = "sqlite:///.mm/mlflow.db"

_SQLITE_PREFIX: Final = "sqlite:///"
_MAX_ANSWER_BYTES: Final = 4 << 20
_DELETED_STAGE: Final = "Deleted_Internal"
_WORKSPACE: Final = "default"  # MLflow's only workspace unless its multi-tenant mode is switched on


def sqlite_path(registry_uri: str) -> Path:
    """The file behind `sqlite:///relative.db` or `sqlite:////absolute.db`; raises `ConfigError` for another form."""
    if not registry_uri.startswith(_SQLITE_PREFIX) or len(registry_uri) == len(_SQLITE_PREFIX) or "?" in registry_uri:
        raise ConfigError(f"registry_uri {registry_uri!r}: expected sqlite:///path/to/mlflow.db or http(s)://host:port")
    return Path(registry_uri[len(_SQLITE_PREFIX) :])


def is_server(registry_uri: str) -> bool:
    """Whether the URI names an MLflow server rather than a database file."""
    return urlsplit(registry_uri).scheme in ("http", "https")


def open_source(registry_uri: str, *, timeout_s: float = 2.0) -> ParameterSource:
    """The reader for a registry URI: `http(s)://…` a server, `sqlite:///…` a file. Connects to nothing yet."""
    if is_server(registry_uri):
        return RestParameterSource(registry_uri, timeout_s)
    return SqliteParameterSource(sqlite_path(registry_uri), timeout_s)


class SqliteParameterSource:
    """Reads MLflow's sqlite database, opened read-only for each fetch.

    Parameters
    ----------
    path : Path
        The database file.
    timeout_s : float
        Longest wait for a writer's lock, s.
    """

    def __init__(self, path: Path, timeout_s: float = 2.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def fetch(self, model_name: str, alias: str) -> PublishedParameters:
        """The version under an alias, read in one transaction.

        Raises
        ------
        RegistryError
            No such database, model or alias; the file is not an MLflow registry.
        ConnectivityError
            The file cannot be read now: locked for longer than the time limit, or the disk refuses.
        """
        if not self._path.exists():
            raise RegistryError(
                f"no registry at {self._path}: nothing was published there yet. Run the pipeline (mm demo, mm publish) or set registry_uri"
            )
        try:
            connection = sqlite3.connect(f"file:{quote(str(self._path.absolute()))}?mode=ro", uri=True, timeout=self._timeout_s, isolation_level=None)
            try:
                connection.execute("BEGIN")
                return self._read(connection, model_name, alias)
            finally:
                connection.close()
        except sqlite3.OperationalError as err:
            if str(err).startswith(("no such table", "no such column")):
                raise RegistryError(f"{self._path} is not a registry of this MLflow ({err}); expected the database that mm publish writes") from None
            raise ConnectivityError(f"cannot read the registry {self._path}: {err} (waited up to {self._timeout_s:g} s)") from err
        except sqlite3.DatabaseError as err:
            raise RegistryError(f"{self._path} is not a usable sqlite database: {err}; restore it or set registry_uri") from err

    @staticmethod
    def _read(connection: sqlite3.Connection, model_name: str, alias: str) -> PublishedParameters:
        here = (model_name, _WORKSPACE)
        aliases = dict(connection.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ? AND workspace = ?", here))
        if alias not in aliases:
            models = [name for (name,) in connection.execute("SELECT name FROM registered_models WHERE workspace = ? ORDER BY name", (_WORKSPACE,))]
            raise _absent(model_name, alias, models, aliases)
        version = aliases[alias]
        this = (*here, version)
        stage = connection.execute("SELECT current_stage FROM model_versions WHERE name = ? AND workspace = ? AND version = ?", this).fetchone()
        if stage is None or stage[0] == _DELETED_STAGE:
            raise RegistryError(f"{model_name}: alias {alias} points to version {version}, which was deleted; promote another version")
        tags = dict(connection.execute("SELECT key, value FROM model_version_tags WHERE name = ? AND workspace = ? AND version = ?", this))
        return from_tags(model_name, str(version), alias, tags)


class RestParameterSource:
    """Reads an MLflow server over its REST interface.

    Parameters
    ----------
    url : str
        `http(s)://host:port[/prefix]` of the server. Proxies are not used and redirects not followed: the runner talks to the host
        it was told, or to nobody.
    timeout_s : float
        Limit of the whole exchange, s: a server that answers drop by drop is cut off as well as one that never does.
    """

    def __init__(self, url: str, timeout_s: float = 2.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ConfigError(
                f"registry URL of scheme {parts.scheme!r} and host {parts.hostname!r}: expected http(s)://host:port without a user name"
            )
        try:
            self._port = parts.port
        except ValueError as err:
            raise ConfigError(f"registry URL {url!r}: {err}") from None
        self._host, self._tls, self._prefix = parts.hostname, parts.scheme == "https", parts.path.rstrip("/")
        self._url = url
        self._timeout_s = timeout_s

    def fetch(self, model_name: str, alias: str) -> PublishedParameters:
        """The version under an alias.

        Raises
        ------
        RegistryError
            No such model or alias, or the answer is not MLflow's.
        ConnectivityError
            Nobody answers in time, or the server is in trouble (5xx, 429).
        """
        status, answer = self._get("registered-models/alias", name=model_name, alias=alias)
        if status == 200:
            found = answer.get("model_version")
            if not isinstance(found, dict) or "version" not in found:
                raise RegistryError(f"{self._url} answered without a model_version; is it an MLflow server?")
            tags = {str(tag.get("key")): str(tag.get("value", "")) for tag in found.get("tags", [])}
            return from_tags(model_name, str(found["version"]), alias, tags)
        if answer.get("error_code") not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise RegistryError(
                f"{self._url} refused to read {model_name}@{alias}: HTTP {status} {answer.get('error_code', '')} {answer.get('message', '')}"
            )
        status, answer = self._get("registered-models/get", name=model_name)
        if status == 200:
            listed = answer.get("registered_model", {}).get("aliases", [])
            raise _absent(model_name, alias, [model_name], {str(a.get("alias")): a.get("version") for a in listed})
        status, answer = self._get("registered-models/search", max_results="100")
        raise _absent(model_name, alias, [str(m.get("name")) for m in answer.get("registered_models", [])], {})

    def _get(self, path: str, **query: str) -> tuple[int, dict[str, Any]]:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        expired = threading.Event()
        opened: list[socket.socket] = []  # kept here: http.client lets go of a socket that the answer alone still reads from

        def cut() -> None:
            # the socket's own timeout restarts with every byte; this one does not
            expired.set()
            for sock in opened:
                with contextlib.suppress(OSError):  # already closed: the exchange ended by itself
                    sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._timeout_s, cut)
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            opened.append(connection.sock)
            if expired.is_set():
                raise TimeoutError
            connection.request("GET", f"{self._prefix}/api/2.0/mlflow/{path}?{urlencode(query)}", headers={"Accept": "application/json"})
            response = connection.getresponse()
            status, raw = response.status, response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as err:
            why = f"no complete answer within {self._timeout_s:g} s" if expired.is_set() or isinstance(err, TimeoutError) else str(err)
            raise ConnectivityError(f"registry {self._url} is away: {why}") from err
        finally:
            timer.cancel()
            connection.close()
        if expired.is_set():
            raise ConnectivityError(f"registry {self._url} is away: no complete answer within {self._timeout_s:g} s")
        if status >= 500 or status in (408, 429):
            raise ConnectivityError(f"registry {self._url} is in trouble: HTTP {status}")
        if len(raw) > _MAX_ANSWER_BYTES:
            raise RegistryError(f"registry {self._url} answered more than {_MAX_ANSWER_BYTES} bytes; is it an MLflow server?")
        try:
            answer = json.loads(raw)
        except ValueError:
            raise RegistryError(f"{self._url} answered HTTP {status} with something that is not JSON; is it an MLflow server?") from None
        if not isinstance(answer, dict):
            raise RegistryError(
                f"{self._url} answered HTTP {status} with a JSON {type(answer).__name__}, expected an object; is it an MLflow server?"
            )
        return status, answer


def _absent(model_name: str, alias: str, models: list[str], aliases: Mapping[str, object]) -> RegistryError:
    if model_name not in models:
        return RegistryError(f"no model {model_name} in the registry; it has {', '.join(models) or 'none'}. Publish one first (mm publish)")
    held = ", ".join(f"{name} -> version {version}" for name, version in sorted(aliases.items())) or "none"
    todo = "promote a version (mm promote)" if alias == "champion" else "publish one that passes the gate"
    return RegistryError(f"{model_name} has no {alias}; its aliases: {held}. To get one, {todo}")


def from_tags(model_name: str, version: str, alias: str, tags: Mapping[str, str]) -> PublishedParameters:
    """What a version's tags say, without judging it; raises `RegistryError` when they hold no parameter set."""
    parameters = tags.get(TAG_PARAMETERS)
    if not parameters:
        raise RegistryError(f"{model_name} version {version} carries no parameter set (tag {TAG_PARAMETERS}); it was not published by mm publish")
    approval_json, signature = split_signed(tags.get(TAG_APPROVAL, ""))
    return PublishedParameters(model_name, version, alias, parameters, tags.get(TAG_SHA256, ""), approval_json, signature)


def join_signed(approval_json: str, signature: str) -> str:
    """One text of signature and approval: `<base64> <json>`."""
    return f"{signature} {approval_json}"


def split_signed(text: str) -> tuple[str, str]:
    """(approval JSON, signature) of `join_signed`; two empty texts for a version nobody promoted."""
    signature, _, approval_json = text.partition(" ")
    return approval_json, signature


def checked_parameters(published: PublishedParameters) -> ParameterSet:
    """Decode a published set after checking its hash and its instrument; raises `RegistryError`. Says nothing about approval."""
    what = f"{published.model_name} version {published.version}"
    actual = text_sha256(published.parameters_json)
    if actual != published.sha256:
        raise RegistryError(f"{what}: the parameters were altered: their sha256 is {actual}, the registry recorded {published.sha256 or 'none'}")
    try:
        pset = decode_parameter_set(published.parameters_json)
    except ConfigError as err:
        raise RegistryError(f"{what}: {err}") from None
    if pset.sha256() != actual:
        raise RegistryError(f"{what}: the parameters are not in canonical form; publish the set again")
    if InstrumentId.parse(pset.instrument).model_name != published.model_name:
        raise RegistryError(f"{what} holds parameters for {pset.instrument}; refused, parameters of one instrument never quote another")
    return pset


def verify_published(published: PublishedParameters, public_key: Ed25519PublicKey, model_name: str) -> ParameterSet:
    """The parameter set, if a holder of the private key approved exactly this set for exactly this version.

    Parameters
    ----------
    published : PublishedParameters
        As a `ParameterSource` returned it.
    public_key : Ed25519PublicKey
        The runner's half of the signing key (`signing.load_public_key`).
    model_name : str
        The model the caller asked for.

    Raises
    ------
    RegistryError
        Unsigned, signed by another key, altered, approved for another version or model, invalid, or outside the approved bounds.
    """
    verified_approval(published, public_key, model_name)
    return checked_parameters(published)


def verified_approval(published: PublishedParameters, public_key: Ed25519PublicKey, model_name: str) -> Approval:
    """The approval behind a published version after every check of `verify_published`; raises `RegistryError`."""
    what = f"{published.model_name} version {published.version}"
    if published.model_name != model_name:
        raise RegistryError(f"asked for {model_name}, the registry answered {published.model_name}")
    if not published.approval_json or not published.signature:
        raise RegistryError(f"{what} is not signed: nobody promoted it. Promote it with mm promote")
    if not signing.verify(public_key, published.approval_json.encode(), published.signature):
        raise RegistryError(f"{what}: the signature does not fit the approval and this public key: altered, or promoted with another key")
    approval = decode_approval(published.approval_json)
    if (approval.model_name, approval.version) != (model_name, published.version):
        raise RegistryError(f"{what} carries the approval of {approval.model_name} version {approval.version}")
    pset = checked_parameters(published)
    if approval.parameters_sha256 != published.sha256:
        raise RegistryError(f"{what}: approved were parameters {approval.parameters_sha256}, published are {published.sha256}")
    outside = bound_violations(pset, approval.bounds)
    if outside:
        raise RegistryError(f"{what} is outside the bounds it was approved under: {'; '.join(outside)}")
    return approval
