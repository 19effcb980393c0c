"""docs/replay.md runs as it stands: its blocks one after the other in one Python, and the examples beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_pages_blocks_run_in_their_order(tmp_path: Path) -> None:
    assert len(BLOCKS) >= 5
    # a file, so that an error names the line; user functions are compiled from files in life too
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(BLOCKS), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3_000:]


def test_everything_the_page_points_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"`(examples/[a-z_]+\.py)`", PAGE):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("example", ["grid_maker", "alpha_quotes"])
def test_examples_run_and_say_what_came_out(example: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{example}.py")], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    fills = re.search(r"([\d,]+) fills", done.stdout)
    assert fills is not None, done.stdout
    assert int(fills[1].replace(",", "")) > 10
