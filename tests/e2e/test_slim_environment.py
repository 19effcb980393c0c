"""A machine that only trades: base dependencies, no Dagster, pandas, numba, full MLflow; the runner quotes with the champion all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_mm import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

ROOT = Path(__file__).resolve().parents[2]
RESEARCH = ("dagster", "pandas", "numba", "mlflow", "duckdb", "plotly", "scipy", "matplotlib")


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment made as the README says for a trading machine; gives its `bin`."""
    where = tmp_path_factory.mktemp("slim") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(where)], check=True)
    pip = [str(where / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "-e", str(ROOT)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return where / "bin"


def test_research_packages_are_not_there(slim: Path) -> None:
    code = f"import importlib.util; print([n for n in {RESEARCH!r} if importlib.util.find_spec(n)])"
    assert subprocess.run([str(slim / "python"), "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_runner_quotes_with_the_champion(slim: Path, demo) -> None:  # type: ignore[no-untyped-def]
    arguments = ["live", "--mode", "sim", "--duration-s", "300", "--json"]
    done = subprocess.run(
        [str(slim / "mm"), *arguments], cwd=demo.home, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["decisions"] >= 299
    assert answer["maker_fills"] > 0
    assert answer["parameter_versions"] == [demo.answer["model_version"]]


def test_a_research_verb_says_what_is_missing(slim: Path, demo) -> None:  # type: ignore[no-untyped-def]
    done = subprocess.run(
        [str(slim / "mm"), "query", "select 1"], cwd=demo.home, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "research" in done.stderr
    assert "Traceback" not in done.stderr
