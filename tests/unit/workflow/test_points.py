"""Batches of points, and which executor the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_platform.config import Settings, load_settings
from mm_platform.core.errors import ConfigError
from mm_platform.execution.local import LocalExecutor
from mm_platform.execution.ray import RayExecutor
from mm_platform.workflow.executors import executor
from mm_platform.workflow.points import PARTS, Batch, Job, Point, batches


def jobs(per_part: tuple[int, int]) -> list[Job]:
    return [Job(Point(0.01 * (i + 1), None), part) for part, n in zip(PARTS, per_part, strict=True) for i in range(n)]


@given(st.tuples(st.integers(0, 400), st.integers(0, 400)), st.integers(1, 64))
def test_batches_hold_every_point_once_in_order_and_never_mix_parts(per_part: tuple[int, int], workers: int) -> None:
    todo = jobs(per_part)
    cut = batches(todo, workers)
    assert [Job(point, batch.part) for batch in cut for point in batch.points] == todo
    assert all(1 <= len(batch.points) <= 128 for batch in cut)
    if len(todo) >= workers:
        assert len(cut) >= workers, "nobody stands idle"


def test_a_small_grid_is_cut_finely_and_a_large_one_is_not_cut_to_pieces() -> None:
    assert [len(b.points) for b in batches(jobs((4, 4)), 2)] == [1] * 8
    assert len(batches(jobs((1000, 1000)), 2)) == 16
    assert batches([], 2) == []


def test_a_batch_names_its_points_where_workers_die_on_it() -> None:
    assert repr(Batch("in_sample", (Point(0.1, 2.0),))) == "Batch(part='in_sample', points=(Point(risk_aversion=0.1, hedge_threshold=2.0),))"


def settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "mm.toml"
    file.write_text(text)
    return load_settings(file, {}, environ={})


def test_the_executor_is_a_matter_of_configuration_alone(tmp_path: Path) -> None:
    local = executor(settings(tmp_path, "[sweep]\nworkers = 3"))
    assert isinstance(local, LocalExecutor)
    assert local.workers == 3
    ray = executor(settings(tmp_path, '[sweep]\nworkers = 3\n[execution]\nbackend = "ray"\naddress = "head:6379"'))
    assert isinstance(ray, RayExecutor)
    assert ray.workers == 3
    assert executor(settings(tmp_path, "[sweep]\nworkers = 3"), 1).workers == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[execution]\nbackend = "spark"', "execution.backend = 'spark'.*'local' or 'ray'"),
        ('[execution]\naddress = "head:6379"', 'address is .*head:6379.*but backend is "local"'),
        ("[execution]\ntries = 0", "execution.tries = 0.*greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, text)
