"""The runner's log lines: text for a person at a terminal, JSON for everything else."""

from __future__ import annotations

import io
import json
import sys

import pytest

from mm_platform.workflow.live import stderr_log


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_one_object_per_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    log = stderr_log(verbose=False)
    log.info("run_start", instrument="sim:BTC-USDT-PERP", duration_s=600.0)
    log.debug("fill", side=1)
    (line,) = pipe.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["duration_s"]) == ("run_start", "info", 600.0)


def test_a_terminal_gets_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    log = stderr_log(verbose=True)
    log.warning("risk", reason="stop_loss")
    log.debug("fill", side=1)
    first, second = terminal.getvalue().splitlines()
    assert "{" not in first
    assert "risk" in first
    assert "stop_loss" in first
    assert "fill" in second
