"""Which code made a result: the package's version and a digest of its sources (a checkout may be ahead of its version)."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import mm_platform


@functools.cache
def code_version() -> str:
    """`<version>+<12 hex digits of the sources>`: the same text for the same code, in a checkout or installed."""
    import importlib.metadata

    root = Path(mm_platform.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode())
        digest.update(file.read_bytes())
    return f"{importlib.metadata.version('mm-platform')}+{digest.hexdigest()[:12]}"
