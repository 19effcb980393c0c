"""The sweep step: every point of risk aversion x hedge threshold on both parts, one chosen on the earlier, all kept in the lake.

Points go to the lake as they are done, and are known by their id: a sweep that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm_platform.calibration.fit_set import FitSet
from mm_platform.calibration.selection import Grid, Selection, select_point
from mm_platform.config import Settings
from mm_platform.lake.columns import table_of_rows
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Lake, Partition
from mm_platform.report.data import SweepGrid
from mm_platform.workflow.code_version import code_version
from mm_platform.workflow.fits import fit_segments, write_fits
from mm_platform.workflow.from_settings import engine_limits, replay_settings
from mm_platform.workflow.inputs import Inputs, load_inputs
from mm_platform.workflow.points import PARTS, FittedSegment, Job, Part, Point, PointResult, evaluate_points, point_id
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.record import ChosenPoint, folder, save, write_text


@dataclass(frozen=True, slots=True)
class Swept:
    """What the sweep chose and out of how much."""

    instrument: str
    through: date
    sweep_id: str
    points: int
    computed: int
    chosen: ChosenPoint

    def grid(self) -> SweepGrid | None:
        """The two heat maps' data; None where nothing could be replayed."""
        return sweep_grid(self.chosen)


def sweep_grid(chosen: ChosenPoint) -> SweepGrid | None:
    """Profit over the grid as the report draws it."""
    if chosen.chosen is None:
        return None
    return SweepGrid(
        chosen.risk_aversions, chosen.hedge_thresholds, np.array(chosen.in_sample_pnl), np.array(chosen.out_of_sample_pnl), chosen.chosen
    )


def grid_of(settings: Settings) -> Grid:
    """The configured grid; "never hedge" is always in it."""
    return Grid(settings.sweep.risk_aversions, settings.sweep.thresholds)


def fitted_parts(settings: Settings, inputs: Inputs, progress: Progress = silent) -> dict[Part, tuple[FittedSegment, ...]]:
    """Both parts' segments with the fits made before each: at the runner's own cadence, never once over the whole tape."""
    return {
        "in_sample": fit_segments(settings, inputs.tape, inputs.features, inputs.plan.choosing, progress),
        "out_of_sample": fit_segments(settings, inputs.tape, inputs.features, inputs.plan.judging, progress),
    }


def part_ends(inputs: Inputs) -> dict[Part, int]:
    """Where each part ends (exclusive), ns."""
    return {"in_sample": inputs.plan.choose_until_ns, "out_of_sample": inputs.plan.end_ns}


def choose(settings: Settings, through: date | None = None, *, workers: int | None = None, progress: Progress = silent) -> Swept:
    """Run the grid and choose.

    Parameters
    ----------
    through
        Last day to look at; default: the newest complete one.
    workers
        Processes; default: the settings' (0 = one per core).

    Raises
    ------
    DataError
        No complete day, or too little data to divide.
    ConfigError
        `execution.backend` is "ray" and it is not installed, or has other code than this.
    ConnectivityError
        No cluster at `execution.address`.
    WorkerLostError
        Workers died on the same points again and again; what was done before is kept.
    """
    inputs = load_inputs(settings, through)
    parts = fitted_parts(settings, inputs, progress)
    lake = Lake.open(settings.lake)
    _keep_fits(lake, inputs, parts)
    grid = grid_of(settings)
    sha = inputs.tape.sha256
    run = replay_settings(settings)
    spec = inputs.tape.spec
    # a part whose first accepted fit is missing cannot be replayed at all
    usable = [part for part in PARTS if any(f.usable for f in parts[part])]
    jobs = [Job(Point(gamma, threshold), part) for part in usable for gamma, threshold in grid.points()]
    ids = {job: point_id(settings, spec, parts[job.part], job.point, sha, run) for job in jobs}
    sweep_id = hashlib.sha256("".join(ids[job] for job in jobs).encode() + sha.encode()).hexdigest()[:16]
    known = _known_points(lake, inputs, set(ids.values()))
    todo = [job for job in jobs if ids[job] not in known]
    results: dict[Job, PointResult] = {job: known[ids[job]] for job in jobs if ids[job] in known}
    progress("sweep", 0, len(todo))
    done = 0
    for batch in evaluate_points(settings, inputs.tape, inputs.features, parts, part_ends(inputs), engine_limits(settings), todo, workers):
        # kept as they come: whatever ends this process, these are not computed again
        lake.upsert("sweep_points", _partition(inputs), table_of_rows(TABLES["sweep_points"], [_row(r, sweep_id, False, inputs) for r in batch]))
        results |= {Job(result.point, result.part): result for result in batch}
        done += len(batch)
        progress("sweep", done, len(todo))
    chosen = _choose(settings, inputs, grid, parts, results, sweep_id)
    _write_points(lake, inputs, results, chosen, folder(settings, inputs.through))
    save(settings, inputs.through, chosen)
    picture = sweep_grid(chosen)
    if picture is not None:
        from mm_platform.report.thumbnails import sweep_png

        write_text(folder(settings, inputs.through) / "sweep.png", sweep_png(picture))
    return Swept(settings.instrument, inputs.through, sweep_id, len(grid.points()), len(todo), chosen)


def _choose(
    settings: Settings, inputs: Inputs, grid: Grid, parts: dict[Part, tuple[FittedSegment, ...]], results: dict[Job, PointResult], sweep_id: str
) -> ChosenPoint:
    points = [Point(gamma, threshold) for gamma, threshold in grid.points()]
    reasons = tuple(dict.fromkeys(r for part in PARTS for f in parts[part] for r in f.refused))
    replayed = all(Job(p, part) in results for part in PARTS for p in points)
    selection: Selection | None = None
    if replayed:
        blocks = [results[Job(p, "in_sample")].block_pnls for p in points]
        selection = select_point(np.array(blocks, dtype=np.float64).reshape(*grid.shape, len(blocks[0])), grid)

    def profit(part: Part) -> tuple[tuple[float, ...], ...]:
        values = [results[Job(p, part)].total_pnl if Job(p, part) in results else 0.0 for p in points]
        return tuple(tuple(row) for row in np.array(values).reshape(grid.shape).tolist()) if replayed else ()

    chosen_blocks: tuple[float, ...] = ()
    if selection is not None:
        chosen_blocks = results[Job(Point(selection.risk_aversion, selection.hedge_threshold), "in_sample")].block_pnls
    return ChosenPoint(
        instrument=settings.instrument,
        through=inputs.through.isoformat(),
        sweep_id=sweep_id,
        points=len(points),
        risk_aversions=grid.risk_aversions,
        hedge_thresholds=grid.hedge_thresholds,
        chosen=None if selection is None else (selection.row, selection.column),
        why="no part could be replayed: the fits were refused" if selection is None else selection.why,
        plateau_ratio=None if selection is None or not math.isfinite(selection.plateau_ratio) else selection.plateau_ratio,
        in_sample_pnl=profit("in_sample"),
        out_of_sample_pnl=profit("out_of_sample"),
        in_sample_blocks=chosen_blocks,
        trial_sharpes=() if selection is None else selection.trial_sharpes,
        reasons=reasons,
        dataset_sha256=inputs.tape.sha256,
        code_version=code_version(),
    )


def _keep_fits(lake: Lake, inputs: Inputs, parts: dict[Part, tuple[FittedSegment, ...]]) -> None:
    kept: dict[int, FitSet] = {f.fits.fitted_through_ns: f.fits for part in PARTS for f in parts[part]}
    for fits in kept.values():
        write_fits(lake, inputs.instrument, fits, inputs.tape.sha256)


def _partition(inputs: Inputs) -> Partition:
    return Partition(inputs.instrument.venue, inputs.instrument.symbol, inputs.through)


def _known_points(lake: Lake, inputs: Inputs, wanted: set[str]) -> dict[str, PointResult]:
    """Points already computed: same parameters, data, venue model and code."""
    if _partition(inputs) not in lake.partitions("sweep_points"):
        return {}
    rows = lake.read("sweep_points", instrument=inputs.instrument, dates=[inputs.through]).to_pylist()
    return {row["point_id"]: _from_row(row) for row in rows if row["point_id"] in wanted}


# columns that a row of `sweep_points` and a `PointResult` share by name
_SHARED = tuple(f.name for f in fields(PointResult) if f.name not in ("point", "part", "block_pnls"))


def _row(result: PointResult, sweep_id: str, chosen: bool, inputs: Inputs) -> dict[str, object]:
    return {
        **{name: getattr(result, name) for name in _SHARED},
        "sweep_id": sweep_id,
        "segment": result.part,
        "risk_aversion": result.point.risk_aversion,
        "hedge_threshold_units": result.point.hedge_threshold,
        "fill_ratio": result.fill_ratio,
        "block_pnls_json": json.dumps(result.block_pnls),
        "chosen": chosen,
        "mode": "conservative",
        "dataset_sha256": inputs.tape.sha256,
        "code_version": code_version(),
    }


def _from_row(row: dict[str, Any]) -> PointResult:
    # the lake says null where a float is not known
    shared: dict[str, Any] = {name: math.nan if row[name] is None else row[name] for name in _SHARED}
    point = Point(row["risk_aversion"], row["hedge_threshold_units"])
    return PointResult(point=point, part=row["segment"], block_pnls=tuple(json.loads(row["block_pnls_json"])), **shared)


def _write_points(lake: Lake, inputs: Inputs, results: dict[Job, PointResult], chosen: ChosenPoint, place: Path) -> None:
    if not results:
        return
    winner = Point(chosen.risk_aversion, chosen.hedge_threshold) if chosen.risk_aversion is not None else None
    rows = [_row(result, chosen.sweep_id, result.point == winner, inputs) for result in results.values()]
    table = table_of_rows(TABLES["sweep_points"], rows)
    lake.upsert("sweep_points", _partition(inputs), table)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    # the sweep's own points travel with the model version
    write_text(place / "sweep.parquet", sink.getvalue().to_pybytes())
