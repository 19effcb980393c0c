"""Files that are whole or not there, and clocks that wake when they should."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mm_platform.core.errors import ConfigError
from mm_platform.core.units import NS_PER_S
from mm_platform.live.clock import FastClock, RealClock
from mm_platform.live.disk import LocalDisk, sole_runner


def test_append_is_for_new_files(tmp_path: Path) -> None:
    disk = LocalDisk()
    file = disk.append(tmp_path / "a" / "j")
    file.write(b"one\n")
    file.write(b"two\n")
    assert disk.read(tmp_path / "a" / "j") == b"one\ntwo\n"
    file.sync()
    file.close()
    file.close()
    assert (tmp_path / "a" / "j").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="used once"):
        disk.append(tmp_path / "a" / "j")


def test_replace_leaves_no_temporary(tmp_path: Path) -> None:
    disk = LocalDisk()
    disk.replace(tmp_path / "x", b"1")
    disk.replace(tmp_path / "x", b"22")
    assert disk.read(tmp_path / "x") == b"22"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with pytest.raises(FileNotFoundError):
        disk.read(tmp_path / "y")


def test_lock_dies_with_its_holder(tmp_path: Path) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom mm_platform.live.disk import sole_runner\nwith sole_runner(Path(sys.argv[1]), 'x'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {process.pid}"), sole_runner(tmp_path / "lock", "x"):
            pytest.fail("two holders of one lock")
    finally:
        process.kill()
        process.communicate()
    with sole_runner(tmp_path / "lock", "x"):
        assert (tmp_path / "lock").exists()


def test_real_clock_sleeps_and_wakes_on_stop() -> None:
    clock, stop = RealClock(0, speed=10.0), threading.Event()
    began = time.monotonic()
    clock.wait_until(0, stop)
    clock.wait_until(NS_PER_S, stop)
    assert time.monotonic() - began >= 0.099
    clock.wait_until(NS_PER_S // 2, stop)  # in the past: at once
    threading.Timer(0.05, stop.set).start()
    clock.wait_until(10_000 * NS_PER_S, stop)
    assert stop.is_set()
    assert not clock.jumps
    assert FastClock().jumps


def test_a_clock_needs_a_speed() -> None:
    with pytest.raises(ConfigError):
        RealClock(0, speed=0.0)
