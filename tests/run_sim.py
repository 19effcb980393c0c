"""A runner in a process of its own: `python tests/run_sim.py ROOT DURATION_S RUN_ID`. Prints what was imported and what it did as JSON."""

from __future__ import annotations

import sys
from pathlib import Path

# the slim environment has no research package: importing one here would hide that the runner does
HEAVY = ("dagster", "pandas", "numba", "mlflow", "duckdb", "plotly", "matplotlib", "scipy", "ccxt")


def main(root: Path, duration_s: float, run_id: str) -> None:
    import json

    from parameter_sets import parameter_set
    from runner_world import MemoryRegistry, published, write_public_key

    import mm_platform.live.runner  # noqa: F401 - importing it is the point
    from mm_platform.config import load_settings
    from mm_platform.core.units import NS_PER_S, day_start_ns
    from mm_platform.tape.simulate import SIM_PERP
    from mm_platform.workflow.live import run_live

    settings = load_settings(None, {"state_dir": root / "state", "lake": root / "lake"}, environ={}, cwd=root)
    write_public_key(settings.public_key)
    start = day_start_ns(settings.simulate.start)
    pset = parameter_set(
        SIM_PERP,
        74_000.0,
        k=20_000.0,
        order_notional=500.0,
        min_spread=0.0001,
        hedge_threshold_notional=1_000.0,
        fitted_through_ns=start - 3_600 * NS_PER_S,
    )
    summary = run_live(settings, duration_s=duration_s, run_id=run_id, parameters=MemoryRegistry(published(pset)))
    heavy = sorted({name.split(".")[0] for name in sys.modules} & set(HEAVY))
    print(json.dumps({"heavy": heavy, "fills": summary.fills, "decisions": summary.decisions, "journal": summary.journal, "pnl": summary.total_pnl}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
