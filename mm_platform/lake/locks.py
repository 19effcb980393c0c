"""Writer locks: two writers of one instrument's data never interleave.

Belongs here: locks between processes (and between `Lake` objects of one process) by `flock`. The kernel drops a lock when its holder
dies, however it dies. Does not belong here: what is written under the lock. The lake must lie on a local file system.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from mm_platform.core.errors import MMError

_POLL_S: Final = 0.05


class LakeBusy(MMError):
    """Another process writes the same instrument's data; wait for it or stop it."""


class WriterLock:
    """An exclusive lock on a file, held from construction to `release`.

    Parameters
    ----------
    path : Path
        Lock file; created when absent, never deleted (a deleted lock file could be locked twice).
    what : str
        What is locked, for the message.
    wait_s : float
        How long to wait for another holder, in seconds.

    Raises
    ------
    LakeBusy
        Somebody else still holds the lock after `wait_s`.
    """

    def __init__(self, path: Path, what: str, wait_s: float) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(self._fd, 64, 0).decode(errors="replace").strip() or "unknown"
                    os.close(self._fd)
                    raise LakeBusy(f"{what} is being written by process {holder} (waited {wait_s:g} s); wait until it is done, or stop it") from None
            time.sleep(_POLL_S)
        os.pwrite(self._fd, f"{os.getpid():<20}\n".encode(), 0)  # of one length, so that it never needs truncating: nobody reads half

    def release(self) -> None:
        """Let the next writer in; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
