"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and specifications beside the project; skips where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("../shared is not beside the project: no real market data to test on")
    return SHARED


# A test never asserts a time: the first call of a compiled kernel may take seconds.
hypothesis.settings.register_profile("mm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("mm")
