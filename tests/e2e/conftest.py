"""One run of the whole demo, shared by the tests that look at what it left. They stay in one worker (`xdist_group("demo")`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_mm import run_mm


@dataclass(frozen=True)
class Demo:
    """Where the demo ran, what it printed, and what that said."""

    home: Path
    stdout: str
    answer: dict[str, Any]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`mm demo --json` in an empty folder."""
    home = tmp_path_factory.mktemp("demo")
    done = run_mm(home, "demo", "--json")
    return Demo(home, done.stdout, json.loads(done.stdout))
