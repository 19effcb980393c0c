"""The runner's disk behind a port, so that a test can cut it anywhere.

Belongs here: appending, reading whole files, replacing a file atomically, the per-instrument lock. Does not belong here: formats
(`live.journal`, `live.parameters`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mm_platform.core.errors import ConfigError


class AppendFile(Protocol):
    """A file that only grows."""

    def write(self, data: bytes) -> None:
        """Hand the bytes to the operating system: they survive the death of this process."""
        ...

    def sync(self) -> None:
        """Make everything written survive a power cut."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """What the runner needs of a disk."""

    def append(self, path: Path) -> AppendFile:
        """A new file; raises `ConfigError` when it exists: a run never writes into another run's journal."""
        ...

    def read(self, path: Path) -> bytes:
        """The whole file; raises `FileNotFoundError`."""
        ...

    def replace(self, path: Path, data: bytes) -> None:
        """Old content or new, never half; readable by the owner only."""
        ...


class LocalDisk:
    """The machine's own file system."""

    def append(self, path: Path) -> AppendFile:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise ConfigError(f"journal {path} exists already; a run id is used once, start with another one") from None
        _sync_folder(path.parent)
        return _LocalAppendFile(descriptor)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def replace(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


class _LocalAppendFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def sole_runner(path: Path, instrument: str) -> Iterator[None]:
    """Hold the lock of an instrument: two runners of one account would trade against each other's idea of the position.

    The system drops the lock when its holder dies, however it dies.

    Raises
    ------
    ConfigError
        Another runner holds it; the message names its process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"a runner of {instrument} is already at work (process {holder}); stop it first, two would fight over one position"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
