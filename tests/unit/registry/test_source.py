"""The runner's readers: what they return, what they say when there is nothing, and that they never hang or trust."""

from __future__ import annotations

import dataclasses
import http.server
import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mm_platform.core.approval import canonical_approval, decode_approval, text_sha256
from mm_platform.core.errors import ConfigError, ConnectivityError, RegistryError
from mm_platform.core.parameters import canonical_json
from mm_platform.core.ports import PublishedParameters
from mm_platform.registry.mlflow_store import MlflowStore
from mm_platform.registry.promote import Promotion
from mm_platform.registry.publish import publish
from mm_platform.registry.signing import load_or_create_key, sign
from mm_platform.registry.source import RestParameterSource, SqliteParameterSource, open_source, verify_published

from .conftest import MODEL, altered, candidate, parameter_set


@pytest.fixture
def champion(store: MlflowStore, promoted: Callable[..., Promotion], database: Path) -> PublishedParameters:
    promoted(0.1)
    return SqliteParameterSource(database).fetch(MODEL, "champion")


@pytest.fixture
def key(state_dir: Path) -> Ed25519PrivateKey:
    return load_or_create_key(state_dir)


# -- the database --------------------------------------------------------------------------------------------------------------------


def test_the_database_gives_the_champion_as_signed(champion: PublishedParameters, key: Ed25519PrivateKey) -> None:
    assert (champion.model_name, champion.version, champion.alias) == (MODEL, "1", "champion")
    assert champion.parameters_json.encode() == canonical_json(parameter_set(0.1))
    assert verify_published(champion, key.public_key(), MODEL) == parameter_set(0.1)


def test_absent_alias_and_model_say_what_there_is(store: MlflowStore, database: Path) -> None:
    source = SqliteParameterSource(database)
    with pytest.raises(RegistryError, match=rf"no model {MODEL} in the registry; it has none"):
        source.fetch(MODEL, "champion")
    publish(store, candidate())
    with pytest.raises(RegistryError, match=r"has no champion; its aliases: challenger -> version 1\. .*mm promote"):
        source.fetch(MODEL, "champion")
    with pytest.raises(RegistryError, match=rf"no model mm\.x\.Y in the registry; it has {MODEL}"):
        source.fetch("mm.x.Y", "champion")


def test_an_alias_to_a_deleted_version_is_refused(store: MlflowStore, champion: PublishedParameters, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal'")
    with pytest.raises(RegistryError, match="version 1, which was deleted"):
        SqliteParameterSource(database).fetch(MODEL, "champion")


def test_no_database_is_told_apart_from_a_locked_one(store: MlflowStore, database: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nothing was published there yet"):
        SqliteParameterSource(tmp_path / "absent.db").fetch(MODEL, "champion")
    assert not (tmp_path / "absent.db").exists()
    publish(store, candidate())
    writer = sqlite3.connect(database, isolation_level=None)
    try:
        writer.execute("PRAGMA locking_mode = EXCLUSIVE")
        writer.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(ConnectivityError, match="locked"):
            SqliteParameterSource(database, timeout_s=0.3).fetch(MODEL, "champion")
        assert time.monotonic() - started < 5
    finally:
        writer.close()


def test_other_files_are_no_registry(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but it is long enough to look at" * 50)
    with pytest.raises(RegistryError, match="not a usable sqlite database"):
        SqliteParameterSource(tmp_path / "text.db").fetch(MODEL, "champion")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (x)").connection.commit()
    with pytest.raises(RegistryError, match="not a registry of this MLflow"):
        SqliteParameterSource(tmp_path / "other.db").fetch(MODEL, "champion")


def test_reading_changes_nothing(champion: PublishedParameters, database: Path) -> None:
    before = database.read_bytes()
    database.chmod(0o400)
    SqliteParameterSource(database).fetch(MODEL, "champion")
    assert database.read_bytes() == before


def test_a_version_that_was_not_published_by_us_is_refused(store: MlflowStore, database: Path) -> None:
    store.client.create_registered_model(MODEL)
    store.client.create_model_version(MODEL, source="runs:/x/y", await_creation_for=None)
    store.client.set_registered_model_alias(MODEL, "champion", "1")
    with pytest.raises(RegistryError, match="carries no parameter set"):
        SqliteParameterSource(database).fetch(MODEL, "champion")


@pytest.mark.parametrize("uri", ["mlflow.db", "sqlite://", "sqlite:///", "postgresql://host/db", "http://", "http://user:pw@host:1"])
def test_other_addresses_are_refused_without_showing_a_password(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(uri)
    assert "pw" not in str(caught.value)


# -- verification --------------------------------------------------------------------------------------------------------------------


def _resigned(published: PublishedParameters, key: Ed25519PrivateKey, **changed: object) -> PublishedParameters:
    """The same version with another approval, properly signed."""
    approval_json = altered(published.approval_json, **changed)
    return dataclasses.replace(published, approval_json=approval_json, signature=sign(key, approval_json.encode()))


def test_unsigned_sets_are_refused(store: MlflowStore, database: Path, key: Ed25519PrivateKey) -> None:
    publish(store, candidate())
    challenger = SqliteParameterSource(database).fetch(MODEL, "challenger")
    assert (challenger.approval_json, challenger.signature) == ("", "")
    with pytest.raises(RegistryError, match="not signed: nobody promoted it"):
        verify_published(challenger, key.public_key(), MODEL)


OTHER_JSON = canonical_json(parameter_set(0.3)).decode()


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda p: {"parameters_json": OTHER_JSON}, "parameters were altered"),
        (lambda p: {"parameters_json": OTHER_JSON, "sha256": text_sha256(OTHER_JSON)}, "approved were parameters"),
        (lambda p: {"sha256": "0" * 64}, "parameters were altered"),
        (lambda p: {"approval_json": altered(p.approval_json, approver="eve")}, "signature does not fit"),
        (lambda p: {"signature": ("B" if p.signature[0] == "A" else "A") + p.signature[1:]}, "signature does not fit"),
        (lambda p: {"signature": ""}, "not signed"),
        (lambda p: {"version": "2"}, "carries the approval of"),
        (lambda p: {"model_name": "mm.sim.ETH-USDT-PERP"}, "the registry answered mm"),
    ],
    ids=["parameters", "parameters and hash", "hash", "approval", "signature", "no signature", "version", "model"],
)
def test_every_alteration_is_refused(
    champion: PublishedParameters, key: Ed25519PrivateKey, alter: Callable[[PublishedParameters], dict[str, str]], says: str
) -> None:
    with pytest.raises(RegistryError, match=says):
        verify_published(dataclasses.replace(champion, **alter(champion)), key.public_key(), MODEL)


def test_the_wrong_key_is_refused(champion: PublishedParameters) -> None:
    with pytest.raises(RegistryError, match="does not fit the approval and this public key"):
        verify_published(champion, Ed25519PrivateKey.generate().public_key(), MODEL)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"version": "2"}, "carries the approval of .* version 2"),
        ({"model_name": "mm.sim.ETH-USDT-PERP"}, "carries the approval of mm.sim.ETH-USDT-PERP"),
        ({"parameters_sha256": "0" * 64}, "approved were parameters 0000"),
        ({"gate_verdict": "fail"}, "approval is not readable.*gate_verdict"),
        ({"schema": 2}, "approval has schema 2"),
        ({"extra": 1}, "approval is not readable.*extra"),
        ({"bounds": {"risk_aversion": [0.5, 1.0]}}, "outside the bounds it was approved under: risk_aversion is 0.1"),
    ],
)
def test_an_approval_of_something_else_is_refused_even_if_signed(
    champion: PublishedParameters, key: Ed25519PrivateKey, changed: dict[str, object], says: str
) -> None:
    with pytest.raises(RegistryError, match=says):
        verify_published(_resigned(champion, key, **changed), key.public_key(), MODEL)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda text: text.replace('"unit":"1/sqrt(year)"', '"unit":"1/year"'), "sigma has unit '1/year'"),
        (lambda text: text.replace('"value":0.5}', '"value":-0.5}'), "sigma is -0.5"),
        (lambda text: text.replace('"schema":1', '"schema":9'), "schema 9"),
        (lambda text: text[:-1] + ',"zz":1}', "unknown field `zz`"),
        (lambda text: text[: len(text) // 2], "not valid"),
        (lambda text: text.replace(",", ", ", 1), "not in canonical form"),
    ],
)
def test_a_bad_set_is_refused_even_if_signed(champion: PublishedParameters, key: Ed25519PrivateKey, edit: Callable[[str], str], says: str) -> None:
    bad = edit(champion.parameters_json)
    assert bad != champion.parameters_json
    published = dataclasses.replace(champion, parameters_json=bad, sha256=text_sha256(bad))
    with pytest.raises(RegistryError, match=says):
        verify_published(_resigned(published, key, parameters_sha256=text_sha256(bad)), key.public_key(), MODEL)


def test_an_approval_survives_its_own_round_trip(champion: PublishedParameters) -> None:
    assert canonical_approval(decode_approval(champion.approval_json)).decode() == champion.approval_json


# -- the server ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def _socket_that(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listening socket whose connections `answer` handles, each in its own thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def _drip(connection: socket.socket) -> None:
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)
    except OSError:
        connection.close()


@pytest.mark.parametrize("answer", [lambda connection: time.sleep(30), _drip], ids=["silent", "drop by drop"])
def test_a_server_that_hangs_is_away_within_the_time_limit(answer: Callable[[socket.socket], None]) -> None:
    with _socket_that(answer) as url:
        started = time.monotonic()
        with pytest.raises(ConnectivityError, match=r"is away: no complete answer within 0\.3 s"):
            RestParameterSource(url, timeout_s=0.3).fetch(MODEL, "champion")
        assert time.monotonic() - started < 3


def test_a_server_that_is_not_there_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectivityError, match="is away"):
        open_source(f"http://127.0.0.1:{port}", timeout_s=0.5).fetch(MODEL, "champion")


@contextmanager
def _http(replies: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = replies.get(self.path.split("?")[0].rsplit("/mlflow/")[-1], (404, b"{}"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/prefix/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (503, b"{}", ConnectivityError, "HTTP 503"),
        (429, b"{}", ConnectivityError, "HTTP 429"),
        (200, b"<html>welcome</html>", RegistryError, "not JSON"),
        (200, b"[]", RegistryError, "JSON list"),
        (200, b"{}", RegistryError, "without a model_version"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', RegistryError, "HTTP 403 PERMISSION_DENIED no"),
        (200, b'{"model_version": {"version": "1", "tags": []}}', RegistryError, "carries no parameter set"),
    ],
)
def test_answers_that_are_not_a_published_set(status: int, body: bytes, error: type[Exception], says: str) -> None:
    with _http({"registered-models/alias": (status, body)}) as url, pytest.raises(error, match=says):
        RestParameterSource(url).fetch(MODEL, "champion")


def test_an_absent_alias_on_a_server_says_what_there_is() -> None:
    absent = (400, json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias champion not found."}).encode())
    model = (200, json.dumps({"registered_model": {"name": MODEL, "aliases": [{"alias": "challenger", "version": "3"}]}}).encode())
    with (
        _http({"registered-models/alias": absent, "registered-models/get": model}) as url,
        pytest.raises(RegistryError, match="challenger -> version 3"),
    ):
        RestParameterSource(url).fetch(MODEL, "champion")
    listed = (200, json.dumps({"registered_models": [{"name": "mm.sim.X-Y"}]}).encode())
    none = (404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "x"}).encode())
    with (
        _http({"registered-models/alias": none, "registered-models/get": none, "registered-models/search": listed}) as url,
        pytest.raises(RegistryError, match=r"it has mm\.sim\.X-Y"),
    ):
        RestParameterSource(url).fetch(MODEL, "champion")


# -- weight --------------------------------------------------------------------------------------------------------------------------


def test_the_reader_loads_nothing_heavy() -> None:
    script = (
        "import sys, mm_platform.registry.source as s; s.open_source('http://127.0.0.1:1'); s.open_source('sqlite:///x.db');"
        "print([m for m in ('mlflow', 'pandas', 'numpy', 'numba', 'pydantic', 'requests', 'sqlalchemy', 'dagster') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
