"""Running `mm` as a user does: in a folder of its own, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MM = [sys.executable, "-m", "mm_platform.cli"]


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without anybody's MM_* settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MM_")} | extra


def run_mm(home: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `mm` in a folder of its own."""
    done = subprocess.run([*MM, *arguments], cwd=home, env=clean_environment(), capture_output=True, text=True, timeout=900, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"mm {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
