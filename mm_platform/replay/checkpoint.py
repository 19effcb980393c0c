"""State of a run as named arrays, there and back: what `numpy.savez` takes and gives.

Belongs here: walking nested named tuples of arrays, packing tables. Does not belong here: which part of a run is state (`replay.session`).
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError

Arrays = dict[str, npt.NDArray[Any]]
T = TypeVar("T")


def arrays_of(state: Any, prefix: str, leave_out: tuple[str, ...] = ()) -> Arrays:
    """Copies of all arrays in a named tuple and in those inside it, by dotted path; fields of `leave_out` are no part of it."""
    found: Arrays = {}
    for name, value in zip(state._fields, state, strict=True):
        if name in leave_out:
            continue
        if isinstance(value, np.ndarray):
            found[f"{prefix}.{name}"] = value.copy()
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            found |= arrays_of(value, f"{prefix}.{name}")
    return found


def with_arrays(state: T, arrays: Arrays, prefix: str, leave_out: tuple[str, ...] = ()) -> T:
    """The same tuple with every array replaced by the saved one of its path, copied; fields of `leave_out` stay.

    Raises
    ------
    DataError
        A path that is missing, or an array of another type or number of dimensions: saved by another version, or of another run.
    """
    changed: dict[str, Any] = {}
    for name, value in zip(state._fields, state, strict=True):  # type: ignore[attr-defined, call-overload]
        if name in leave_out:
            continue
        path = f"{prefix}.{name}"
        if isinstance(value, np.ndarray):
            saved = arrays.get(path)
            if saved is None or saved.dtype != value.dtype or saved.ndim != value.ndim:
                seen = "missing" if saved is None else f"{saved.dtype} with {saved.ndim} dimensions"
                raise DataError(f"saved state: {path} is {seen}, expected {value.dtype} with {value.ndim}; it was saved by another version or run")
            changed[name] = np.ascontiguousarray(saved).copy()
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            changed[name] = with_arrays(value, arrays, path)
    return state._replace(**changed)  # type: ignore[attr-defined]


def text_array(text: str) -> npt.NDArray[np.uint8]:
    """A text as bytes, so that it is stored without pickling."""
    return np.frombuffer(text.encode(), dtype=np.uint8).copy()


def array_text(array: npt.NDArray[Any]) -> str:
    """The text of `text_array`."""
    return bytes(array.tobytes()).decode()
