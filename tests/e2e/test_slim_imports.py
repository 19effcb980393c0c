"""A machine that trades carries only the base dependencies: the runner imports and runs without any research package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "run_sim.py"


def test_runner_loads_no_research_package(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path), "300", "slim"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["heavy"] == []
    assert result["decisions"] == 300
    assert result["fills"] > 0


BLOCKED = """
import importlib.abc, runpy, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, {tests!r})
sys.argv = ["run_sim", *{args!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def test_runner_works_where_research_packages_are_not_installed(tmp_path: Path) -> None:
    heavy = ("dagster", "pandas", "numba", "mlflow", "duckdb", "plotly", "matplotlib", "scipy", "isal")
    code = BLOCKED.format(heavy=heavy, tests=str(SCRIPT.parent), args=[str(tmp_path), "120", "bare"], script=str(SCRIPT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decisions"] == 120
