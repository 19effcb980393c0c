"""One source, two twins: every kernel is plain Python and, on request, the same function compiled by numba.

Belongs here: the `kernel` decorator and the compile cache's location. Calling a kernel runs plain Python (what the live runner
does; importing kernels never imports numba). `kernel.compiled` is the numba dispatcher (what the replay and the fits use). Inside
compiled code, other kernels are seen compiled: numba reads `_numba_type_` of the global it meets.

Kernels allocate nothing, so they are compiled without numba's reference counting: passing tuples of arrays between steps costs nothing
then (twenty times on the replay loop). A kernel that allocates (`np.empty`, slices kept, array expressions) does not compile that way and says
"NRT required but not enabled"; declare it `@allocating_kernel` if it is a path called once, or take the array as an argument.

numba's on-disk cache keys a function by its own file only, so a changed callee in another file would be served stale; the cache
directory is therefore named by a hash of all files that hold kernels.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOMS_WITH_KERNELS = ("core", "kernels", "tape", "replay", "calibration", "decode")


@functools.cache
def _numba() -> Any:
    import numba

    digest = hashlib.sha256(numba.__version__.encode())
    for room in _ROOMS_WITH_KERNELS:
        for file in sorted((_PACKAGE / room).rglob("*.py")):
            digest.update(file.read_bytes())
    root = Path(numba.config.CACHE_DIR) if numba.config.CACHE_DIR else Path.home() / ".cache" / "mm_platform"
    numba.config.CACHE_DIR = str(root / "numba" / digest.hexdigest()[:16])
    return numba


class Kernel(Generic[P, R]):
    """A plain-Python function with a compiled twin."""

    def __init__(self, fn: Callable[P, R], *, allocates: bool) -> None:
        self.py = fn
        self._allocates = allocates
        self._dispatcher: Any = None
        functools.update_wrapper(self, fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.py(*args, **kwargs)

    @property
    def compiled(self) -> Callable[P, R]:
        """The numba twin (compiled at its first call, then from the disk cache). Needs the `research` extra."""
        if self._dispatcher is None:
            # error_model numpy: divisions give inf/nan as in numpy, never raise; fastmath stays off so both twins agree bit for bit
            options: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}
            if not self._allocates:
                options["_nrt"] = False
            self._dispatcher = _numba().njit(**options)(self.py)
        return cast("Callable[P, R]", self._dispatcher)

    @property
    def _numba_type_(self) -> Any:
        return cast(Any, self.compiled)._numba_type_


def kernel(fn: Callable[P, R]) -> Kernel[P, R]:
    """Declare a kernel; see the module docstring."""
    return Kernel(fn, allocates=False)


def allocating_kernel(fn: Callable[P, R]) -> Kernel[P, R]:
    """Declare a kernel that makes arrays of its own: slower to call with many arrays, never a step."""
    return Kernel(fn, allocates=True)
