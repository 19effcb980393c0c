"""Machine code between processes: a second process compiles nothing, a change compiles what it touches, and no folder is a reason to fail."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from mm_platform.kernels import compile_cache
from mm_platform.kernels.compile_cache import UnkeyableError, find_folders, fingerprint, folder_name
from mm_platform.kernels.jit import kernel

MODULE = """
    from typing import NamedTuple
    import numba
    import numpy as np
    from mm_platform.kernels.jit import kernel
    import levels

    class State(NamedTuple):
        values: np.ndarray

    STEP = 0.5

    @numba.njit
    def helper(x):
        return x * STEP + levels.OFFSET

    @kernel
    def add(a, b):
        return a + b

    @kernel
    def drive(fn, values, n):
        total = 0.0
        for k in range(n):
            total = add(total, fn(State(values), 1.0 * k))
        return total

    def strategy(state, now_s):
        return helper(now_s) + state.values[0]

    def allocating(state, now_s):
        return np.full(2, now_s).sum()
"""
RUN = """
    import json, sys, warnings
    import numpy as np
    from numba.core import event
    compiled = event.RecordingListener()
    event.register("numba:compile", compiled)
    from mm_platform.kernels.jit import fixed_signature, signature_of
    from mm_platform.kernels.quoting import fill_premium
    import mine
    told = []
    warnings.showwarning = lambda message, *_: told.append(str(message))
    state = mine.State(np.ones(2))
    signature = signature_of(0.0, state, 0.0)
    results = [mine.drive.compiled(fixed_signature(fn, signature), state.values, 4) for fn in (mine.strategy, mine.allocating)]
    results.append(fill_premium.compiled(0.1, 1.5))
    names = [e.data["dispatcher"].py_func.__name__ for _, e in compiled.buffer if e.is_start]
    print(json.dumps({"results": results, "compiled": sorted(set(names)), "told": told}))
"""


class World:
    """A user's folder with a strategy, and a process that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.write("mine.py", MODULE)
        self.write("levels.py", "OFFSET = 1.0")
        self.write("run.py", RUN)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    def run(self, **environment: str) -> dict[str, Any]:
        given = {**os.environ, "NUMBA_CACHE_DIR": str(self.cache), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        done = subprocess.run([sys.executable, "run.py"], cwd=self.folder, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_second_process_compiles_nothing(world: World) -> None:
    first, second = world.run(), world.run()
    assert {"fill_premium", "drive", "strategy", "allocating"} <= set(first["compiled"])
    assert second["compiled"] == []
    assert first["results"] == second["results"]


def test_a_changed_function_is_compiled_and_nothing_else(world: World) -> None:
    before = world.run()["results"]
    world.replace("mine.py", "helper(now_s) + state", "helper(now_s) - state")
    after = world.run()
    assert after["compiled"] == ["helper", "strategy"], "numba compiles what the changed function calls into it; the loop stays"
    assert after["results"][0] == before[0] - 8.0
    assert world.run()["compiled"] == []


@pytest.mark.parametrize(
    ("file", "old", "new", "change"),
    [
        ("mine.py", "STEP = 0.5", "STEP = 1.5", 6.0),
        ("levels.py", "OFFSET = 1.0", "OFFSET = 2.0", 4.0),
        ("mine.py", "x * STEP", "x * STEP * 2", 3.0),
    ],
    ids=["global", "another module's constant", "callee"],
)
def test_what_a_function_reaches_is_part_of_its_key(world: World, file: str, old: str, new: str, change: float) -> None:
    before = world.run()["results"][0]
    world.replace(file, old, new)
    after = world.run()
    assert after["results"][0] == before + change
    assert "strategy" in after["compiled"]
    assert "drive" not in after["compiled"]


def test_a_comment_costs_nothing(world: World) -> None:
    world.run()
    world.write("mine.py", "# on top, so that every line moves\n" + textwrap.dedent(MODULE))
    assert world.run()["compiled"] == []


def test_bounds_checks_are_not_served_code_without_them(world: World) -> None:
    world.run()
    assert "drive" in world.run(NUMBA_BOUNDSCHECK="1")["compiled"]


def test_processes_that_start_together_agree(world: World) -> None:
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: world.run(), range(3)))
    assert runs[0]["results"] == runs[1]["results"] == runs[2]["results"]
    assert world.run()["compiled"] == []
    assert not list(world.cache.rglob("*.tmp"))


def test_a_cut_entry_is_compiled_again_and_mended(world: World) -> None:
    expected = world.run()["results"]
    for entry in world.cache.rglob("*.nbc"):
        entry.write_bytes(entry.read_bytes()[:-100])
    again = world.run()
    assert again["results"] == expected
    assert "strategy" in again["compiled"]
    assert world.run()["compiled"] == []


def test_an_unwritable_home_falls_back_to_the_temporary_folder_and_says_so_once(world: World) -> None:
    blocker = world.folder / "file"
    blocker.write_text("a file where a folder should be refuses whoever asks, root included")
    (world.folder / "tmp").mkdir()
    places = {"NUMBA_CACHE_DIR": str(blocker), "XDG_CACHE_HOME": str(blocker), "TMPDIR": str(world.folder / "tmp")}
    first = world.run(**places)
    assert len(first["told"]) == 1
    assert f"instead: {blocker}" in first["told"][0]
    assert str(world.folder / "tmp") in first["told"][0]
    second = world.run(**places)
    assert second["compiled"] == []
    assert second["results"] == first["results"]


REPLAY = """
    import json
    from numba.core import event
    compiled = event.RecordingListener()
    event.register("numba:compile", compiled)
    from builders import SPEC, decision_params, random_tape
    from mm_platform.replay.run import ScheduledParameters, replay
    from mm_platform.replay.settings import ReplaySettings
    from mm_platform.tape.features import compute_features
    tape = random_tape(3_000, 5)
    features = compute_features(tape, 1_000_000_000)
    result = replay(tape, features, [ScheduledParameters(int(features.grid_ts[5]), decision_params())], ReplaySettings())
    names = [e.data["dispatcher"].py_func.__name__ for _, e in compiled.buffer if e.is_start]
    print(json.dumps({"orders": result.counters.orders, "compiled": sorted(set(names))}))
"""


@pytest.mark.slow
def test_a_second_process_replays_without_compiling(tmp_path: Path) -> None:
    """In the suite's own cache: the first of the two compiles what no other test has asked for yet."""
    script = tmp_path / "replayed.py"
    script.write_text(textwrap.dedent(REPLAY))
    tests = Path(__file__).parents[2]
    told = []
    for _ in range(2):
        done = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": str(tests)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert told[1]["compiled"] == []
    assert told[0]["orders"] == told[1]["orders"] > 0


# -- folders -------------------------------------------------------------------------------------------------------------------------

NAME = "0123456789abcdef"


def blocked(tmp_path: Path, name: str) -> Path:
    """A root under which nothing can be made, whoever asks (root may write anywhere that permission bits forbid)."""
    (tmp_path / name).write_text("")
    return tmp_path / name / "cache"


def test_the_first_root_is_taken_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_folders([(tmp_path / "a", True), (tmp_path / "b", False)], NAME)
    assert found.write == tmp_path / "a" / "numba" / NAME
    assert found.read == (found.write,)
    assert not (tmp_path / "b").exists()


def test_an_unwritable_root_falls_back_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="is kept in .* instead.*NUMBA_CACHE_DIR"):
        found = find_folders([(blocked(tmp_path, "ro"), True), (tmp_path / "b", False)], NAME)
    assert found.write == tmp_path / "b" / "numba" / NAME
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700


def test_no_root_at_all_is_no_error(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="cannot be kept"):
        found = find_folders([(blocked(tmp_path, "a"), True), (blocked(tmp_path, "b"), False)], NAME)
    assert found.write is None
    assert found.read == ()


def test_a_warm_cache_that_is_read_only_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm = find_folders([(tmp_path / "image", True)], NAME).write
    assert warm is not None

    def read_only(path: Path) -> None:
        if path == warm:
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr(compile_cache.os, "utime", read_only)
    with pytest.warns(UserWarning, match="Read-only file system"):
        found = find_folders([(tmp_path / "image", True), (tmp_path / "own", False)], NAME)
    assert found.read == (warm, tmp_path / "own" / "numba" / NAME)
    assert found.write == tmp_path / "own" / "numba" / NAME


def test_a_folder_that_others_can_write_is_not_trusted_unless_named(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.warns(UserWarning, match="others can write"):
        found = find_folders([(tmp_path / "open", False)], NAME)
    assert found.write is None
    assert find_folders([(tmp_path / "open", True)], NAME).write is not None


def test_a_link_in_the_temporary_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert find_folders([(tmp_path / "link", False)], NAME).write is None


def test_folders_of_older_kernels_are_dropped_and_other_files_are_not(tmp_path: Path) -> None:
    numba_root = tmp_path / "numba"
    for age in range(10):
        old = numba_root / f"{age:016x}"
        old.mkdir(parents=True)
        (old / "f.nbc").write_bytes(b"x")
        os.utime(old, (1_000 - age, 1_000 - age))
    (numba_root / "notes").mkdir()
    found = find_folders([(tmp_path, True)], "f" * 16)
    kept = sorted(p.name for p in numba_root.iterdir())
    assert kept == [*(f"{age:016x}" for age in range(5)), "f" * 16, "notes"]
    assert found.write == numba_root / ("f" * 16)


def test_changed_sources_are_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "kernel.py"
    source.write_text("a = 1")
    before = folder_name([source])
    assert folder_name([source]) == before
    source.write_text("a = 2")
    assert folder_name([source]) != before


def test_every_file_that_declares_a_kernel_names_the_folder() -> None:
    package = Path(compile_cache.__file__).parents[1]
    declaring = {f for f in package.rglob("*.py") if "@kernel" in f.read_text() or "@allocating_kernel" in f.read_text()}
    assert declaring
    assert declaring <= set(compile_cache.sources())


# -- keys ----------------------------------------------------------------------------------------------------------------------------


def made(text: str, name: str = "f", **names: Any) -> FunctionType:
    space: dict[str, Any] = {"__name__": "a_module", **names}
    exec(compile(textwrap.dedent(text), "a_file.py", "exec"), space)
    found = space[name]
    assert isinstance(found, FunctionType)
    return found


BASE = "def f(x):\n    return x + 1"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f(x):\n    return x + 2", {}),
        ("def f(x):\n    return x - 1", {}),
        ("def f(x, y=1):\n    return x + 1", {}),
        ("def f(x, y=2):\n    return x + 1", {}),
        ("def f(x):\n    return x + K", {"K": 1}),
        ("def f(x):\n    return x + K", {"K": 1.0}),
        ("def f(x):\n    return x + K", {"K": True}),
        ("def f(x):\n    return x + K", {"K": (1, 2)}),
        ("def f(x):\n    return x + K", {"K": (1, 3)}),
        ("def f(x):\n    return x + K", {"K": np.array([1, 2])}),
        ("def f(x):\n    return x + K", {"K": np.array([1, 3])}),
        ("def f(x):\n    return x + K", {"K": np.array([1.0, 3.0])}),
        ("def f(x):\n    try:\n        return x + 1\n    except Exception:\n        return 0", {}),
    ],
)
def test_any_difference_that_matters_is_another_key(text: str, names: dict[str, Any]) -> None:
    keys = [fingerprint(made(t, **n), {}) for t, n in ((BASE, {}), (text, names))]
    assert keys[0] != keys[1]
    others = {fingerprint(made(t, **n), {}) for t, n in OTHERS if (t, repr(n)) != (text, repr(names))}
    assert keys[1] not in others


OTHERS = [("def f(x):\n    return x + K", {"K": value}) for value in (1, 1.0, True, (1, 2), (1, 3), np.array([1, 2]), np.array([1, 3]))]


def test_options_are_part_of_the_key() -> None:
    assert fingerprint(made(BASE), {"fastmath": True}) != fingerprint(made(BASE), {"fastmath": False})


def test_swapped_callees_and_recursion_are_told_apart() -> None:
    one, two = kernel(made(BASE)), kernel(made("def f(x):\n    return x * 3"))
    text = "def f(x):\n    return a(x) - b(x)"
    assert fingerprint(made(text, a=one, b=two), {}) != fingerprint(made(text, a=two, b=one), {})
    looping = made("def f(x):\n    return f(x - 1) if x else 0")
    assert fingerprint(looping, {}) == fingerprint(made("def f(x):\n    return f(x - 1) if x else 0"), {})


def test_a_jitclass_cannot_be_keyed() -> None:
    import numba
    from numba.experimental import jitclass

    class Box:
        def __init__(self, x: float) -> None:
            self.x = x

    box = jitclass([("x", numba.float64)])(Box)
    with pytest.raises(UnkeyableError, match="Box"):
        fingerprint(made("def f(x):\n    return B(x).x", B=box), {})
