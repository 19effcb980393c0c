"""Progress of long work: a callable that steps report to. The terminal bar is rich's; steps never print."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol


class Progress(Protocol):
    """`progress(what, done, total)`: `what` names the stage; `total` may be None while unknown."""

    def __call__(self, what: str, done: float, total: float | None) -> None: ...


def silent(what: str, done: float, total: float | None) -> None:
    """Report nothing."""


class RichProgress:
    """One line per stage on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar: Any = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            # stdout belongs to the verb's answer; stderr stays redirected, so that log lines go above the bars
            redirect_stdout=False,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> RichProgress:
        self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.__exit__(kind, value, trace)

    def __call__(self, what: str, done: float, total: float | None) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)
