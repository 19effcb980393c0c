"""Ed25519 signatures of approvals, and the key files behind them.

Belongs here: making, reading and guarding the keys, signing and verifying bytes. Does not belong here: what is signed
(`core.approval`), who may ask for it (`registry.promote`).

The private half never leaves `<state_dir>/keys/signing.key` (folder 0700, file 0600); the runner needs only `signing.pub`.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from mm_platform.core.errors import RegistryError

KEY_FILE = "signing.key"
PUBLIC_FILE = "signing.pub"


def keys_dir(state_dir: Path) -> Path:
    """The folder of the keys below the state folder."""
    return state_dir / "keys"


def load_or_create_key(state_dir: Path) -> Ed25519PrivateKey:
    """The private key; made on first use, safely under concurrent first use.

    Raises
    ------
    RegistryError
        The file or its folder can be read or replaced by others, belongs to someone else, or does not hold an Ed25519 key; or the
        public half beside it belongs to another key.
    """
    folder = keys_dir(state_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_open_mode(folder, folder.stat(), 0o077, "chmod 700")
    path = folder / KEY_FILE
    if not path.exists():
        _create_exclusively(path, _private_pem(Ed25519PrivateKey.generate()))
    key = _read_private(path)
    public = folder / PUBLIC_FILE
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public.exists():
        _create_exclusively(public, pem)
    if load_public_key(public).public_bytes_raw() != key.public_key().public_bytes_raw():
        raise RegistryError(
            f"{public} is not the public half of {path}; the runner would refuse everything this key signs. Move the wrong one away; "
            f"a missing {PUBLIC_FILE} is written again"
        )
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read `signing.pub`; raises `RegistryError` if it is missing, not an Ed25519 key, or writable by others."""
    try:
        with path.open("rb") as file:
            status, raw = os.fstat(file.fileno()), file.read()
    except FileNotFoundError:
        raise RegistryError(
            f"no public key at {path}: it is written by the first promotion (mm promote). On another machine, copy signing.pub there"
        ) from None
    except OSError as err:
        raise RegistryError(f"cannot read the public key {path}: {err.strerror}") from None
    # whoever can write the public half decides which signatures count
    _refuse_open_mode(path, status, 0o022, "chmod go-w")
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as err:
        raise RegistryError(f"{path} does not hold a PEM public key: {err}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise RegistryError(f"{path} holds a {type(key).__name__}, expected an Ed25519 public key")
    return key


def sign(key: Ed25519PrivateKey, message: bytes) -> str:
    """Signature of the bytes, base64."""
    return base64.b64encode(key.sign(message)).decode()


def verify(public_key: Ed25519PublicKey, message: bytes, signature: str) -> bool:
    """Whether the base64 signature of these bytes was made by the private half of `public_key`."""
    try:
        public_key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _create_exclusively(path: Path, content: bytes) -> None:
    """Let a complete 0600 file appear at `path`, unless another process was first; never a half-written one, never an overwrite."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # the other process's key is the key
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink()


def _read_private(path: Path) -> Ed25519PrivateKey:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as err:
        raise RegistryError(f"cannot read the signing key {path}: {err.strerror}; it must be a plain file of the promoting user") from None
    with os.fdopen(descriptor, "rb") as file:
        # checked on the open file, so that what was checked is what is read
        _refuse_open_mode(path, os.fstat(file.fileno()), 0o077, "chmod 600")
        raw = file.read()
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise RegistryError(f"{path} does not hold an unencrypted PEM private key: {err}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RegistryError(f"{path} holds a {type(key).__name__}, expected an Ed25519 private key")
    return key


def _refuse_open_mode(path: Path, status: os.stat_result, forbidden: int, remedy: str) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise RegistryError(
            f"{path} has mode {mode:04o}, which lets other users at it; `{remedy} {path}` and, if others could use it, make a new key"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise RegistryError(
            f"{path} belongs to user id {status.st_uid}, expected {os.geteuid()} (or root): signatures would be in another user's hands"
        )
