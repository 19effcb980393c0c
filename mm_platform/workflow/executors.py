"""Which executor the settings name. The results do not depend on it."""

from __future__ import annotations

from mm_platform.config import Settings
from mm_platform.core.ports import Executor
from mm_platform.execution.local import LocalExecutor
from mm_platform.execution.ray import RayExecutor


def executor(settings: Settings, workers: int | None = None) -> Executor:
    """The executor of `[execution]`.

    Parameters
    ----------
    settings
        `execution.backend`, `execution.address`, `execution.tries`; `sweep.workers`.
    workers
        In place of `sweep.workers`.
    """
    count = workers if workers is not None else (settings.sweep.workers or None)
    chosen = settings.execution
    if chosen.backend == "ray":
        return RayExecutor(chosen.address, count, tries=chosen.tries)
    return LocalExecutor(count, tries=chosen.tries)
