"""Keys: made once, private, and refused when they are not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mm_platform.core.errors import RegistryError
from mm_platform.registry.signing import keys_dir, load_or_create_key, load_public_key, sign, verify


def test_a_key_is_made_once_private_and_its_public_half_verifies(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path)
    folder = keys_dir(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "signing.key").stat().st_mode) == 0o600
    assert load_or_create_key(tmp_path).private_bytes_raw() == key.private_bytes_raw()
    public = load_public_key(folder / "signing.pub")
    signature = sign(key, b"message")
    assert verify(public, b"message", signature)
    assert not verify(public, b"messagf", signature)
    assert not verify(Ed25519PrivateKey.generate().public_key(), b"message", signature)
    assert not verify(public, b"message", "not base64!")
    assert not verify(public, b"message", "")
    assert sorted(p.name for p in folder.iterdir()) == ["signing.key", "signing.pub"]


def test_an_umask_that_opens_files_opens_no_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create_key(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((keys_dir(tmp_path) / "signing.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(keys_dir(tmp_path).stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_key(tmp_path)
    (keys_dir(tmp_path) / "signing.key").chmod(mode)
    with pytest.raises(RegistryError, match=rf"signing\.key has mode {mode:04o}.*chmod 600"):
        load_or_create_key(tmp_path)


def test_an_open_folder_or_a_writable_public_half_is_refused(tmp_path: Path) -> None:
    load_or_create_key(tmp_path)
    folder = keys_dir(tmp_path)
    folder.chmod(0o755)
    with pytest.raises(RegistryError, match="keys has mode 0755"):
        load_or_create_key(tmp_path)
    folder.chmod(0o700)
    (folder / "signing.pub").chmod(0o666)
    with pytest.raises(RegistryError, match=r"signing\.pub has mode 0666"):
        load_public_key(folder / "signing.pub")


def test_a_key_behind_a_link_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path)
    folder = keys_dir(tmp_path)
    (folder / "signing.key").rename(tmp_path / "elsewhere")
    (folder / "signing.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RegistryError, match="cannot read the signing key"):
        load_or_create_key(tmp_path)
    (folder / "signing.key").unlink()
    (folder / "signing.key").write_text("no key")
    (folder / "signing.key").chmod(0o600)
    with pytest.raises(RegistryError, match="does not hold an unencrypted PEM private key"):
        load_or_create_key(tmp_path)
    # a private key is no public key
    (folder / "signing.pub").write_bytes((tmp_path / "elsewhere").read_bytes())
    with pytest.raises(RegistryError, match="does not hold a PEM public key"):
        load_public_key(folder / "signing.pub")
    assert key is not None


def test_halves_of_different_keys_are_refused(tmp_path: Path) -> None:
    load_or_create_key(tmp_path / "a")
    load_or_create_key(tmp_path / "b")
    (keys_dir(tmp_path / "a") / "signing.pub").write_bytes((keys_dir(tmp_path / "b") / "signing.pub").read_bytes())
    with pytest.raises(RegistryError, match="is not the public half"):
        load_or_create_key(tmp_path / "a")


def test_without_a_public_key_the_message_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="written by the first promotion"):
        load_public_key(tmp_path / "signing.pub")


def test_concurrent_first_use_makes_one_key(tmp_path: Path) -> None:
    script = "import sys, pathlib; from mm_platform.registry.signing import load_or_create_key; print(load_or_create_key(pathlib.Path(sys.argv[1])).private_bytes_raw().hex())"
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    keys = {process.communicate(timeout=60)[0].strip() for process in running}
    assert len(keys) == 1
    assert keys == {load_or_create_key(tmp_path).private_bytes_raw().hex()}
    assert isinstance(load_public_key(keys_dir(tmp_path) / "signing.pub"), Ed25519PublicKey)
