"""The command line's own behaviour: where answers go, what wrong arguments get, which option wins."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mm_platform import cli
from mm_platform.config import Settings
from mm_platform.workflow import fits
from mm_platform.workflow.progress import Progress, silent


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """`run(*arguments)` -> exit code, stdout, stderr of `mm` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("MM_")]:
        monkeypatch.delenv(name)

    def mm(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mm", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return mm


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("frobnicate",), "No such command"),
        (("promote",), "--reason"),
        (("live", "--duration-s", "0"), "greater than or equal to 1"),
        (("sweep", "--workers", "many"), "--workers"),
        (("demo", "--days", "3"), "No such option"),
    ],
)
def test_wrong_arguments_are_answered_as_asked(run, arguments: tuple[str, ...], word: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert word in err
    code, out, err = run(*arguments, "--json")
    answer = json.loads(out)
    assert (code, err, set(answer), out.count("\n")) == (2, "", {"error"}, 1)
    assert answer["error"]["kind"] == "UsageError"
    assert word in answer["error"]["message"]


def test_json_keeps_the_exit_code_of_the_work(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert json.loads(out)["healthy"] is True
    code, out, _ = run("calibrate", "--json")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "DataError"


def test_the_answer_comes_when_the_bars_are_gone(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    seen: list[str] = []

    @contextmanager
    def bars(as_json: bool) -> Iterator[Progress]:
        yield silent
        seen.append("bars gone")

    class Answer:
        def text(self) -> str:
            seen.append("answer")
            return "done"

    monkeypatch.setattr(cli, "progress_bar", bars)
    monkeypatch.setattr(fits, "calibrate", lambda settings, progress: Answer())
    code, out, _ = run("calibrate")
    assert (code, out) == (0, "done\n")
    # bars that are still drawn would wipe the last lines of the answer
    assert seen == ["bars gone", "answer"]


def test_options_stand_before_the_verb_or_after_it_and_the_later_one_wins(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    used: list[Path] = []

    class Answer:
        def text(self) -> str:
            return "done"

    def calibrate(settings: Settings, progress: Progress) -> Answer:
        used.append(settings.lake)
        return Answer()

    monkeypatch.setattr(fits, "calibrate", calibrate)
    run("--lake", "one", "calibrate")
    run("calibrate", "--lake", "two")
    run("--lake", "one", "calibrate", "--lake", "two")
    assert used == [tmp_path / "one", tmp_path / "two", tmp_path / "two"]


def test_two_forms_of_an_answer_are_one_too_many(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("query", "select 1", "--csv", "--json")
    assert code == 2
    assert "not both" in json.loads(out)["error"]["message"]


def test_a_lake_without_the_day_is_named(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, err = run("sweep", "--lake", "elsewhere")
    assert str(tmp_path / "elsewhere") in err
    assert "mm ingest" in err


def test_the_doctor_says_which_settings_are_used(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, out, _ = run("doctor")
    assert f"no mm.toml in {tmp_path}; all defaults" in out
    (tmp_path / "mm.toml").write_text("seed = 11\n[risk]\nmax_order_notional = 50.0\nstop_loss_frac = 0.02\n", encoding="utf-8")
    _, out, _ = run("doctor", "--json")
    (seen,) = [f["seen"] for f in json.loads(out)["findings"] if f["name"] == "settings"]
    assert seen == f"from {tmp_path / 'mm.toml'}; seed = 11; risk.max_order_notional = 50.0"
