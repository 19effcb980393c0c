"""How long the demo and `mm --help` take, as whole processes; prints one JSON object.

The demo runs twice in fresh folders: once with an empty compile cache, as on a new machine, and once with a warm one. Baseline of both:
starting Python and importing numpy in the same run, so that figures from different machines can be compared as ratios.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(command: list[str], home: Path, **environment: str) -> float:
    """Wall time of one run that must not fail."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MM_")} | environment
    started = time.perf_counter()
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    mm = [str(Path(sys.executable).with_name("mm"))]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        baseline = median([seconds([sys.executable, "-c", "import numpy"], root) for _ in range(5)])
        help_s = median([seconds([*mm, "--help"], root) for _ in range(5)])
        runs = {}
        for label in ("cold", "warm"):
            home = root / label
            home.mkdir()
            runs[label] = seconds([*mm, "demo", "--json"], home, NUMBA_CACHE_DIR=str(root / "compiled"))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "cores": len(os.sched_getaffinity(0)),
                "python_with_numpy_s": round(baseline, 3),
                "mm_help_s": round(help_s, 3),
                "mm_help_over_baseline": round(help_s / baseline, 2),
                "demo_cold_s": round(runs["cold"], 1),
                "demo_warm_s": round(runs["warm"], 1),
                "demo_cold_over_baseline": round(runs["cold"] / baseline),
                "largest_process_mb": round(peak_mb),
            }
        )
    )


if __name__ == "__main__":
    main()
