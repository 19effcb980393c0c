"""Where machine code is kept between processes, and what it is keyed by.

Belongs here: the cache's folder, the key of a compiled function, reading and writing one entry. Does not belong here: compiling
(`kernels.jit`). This is the one file of the pure rooms that touches the disk; nothing it reads changes a result.

The folder is named by a hash of everything that all machine code depends on: the sources of the kernels, numba, llvmlite, numpy, Python, the
processor with its features, and numba's code-generation switches (its own key leaves out the bounds checks). An entry in it is named by a
hash of the function: its byte code and constants, the values numba freezes into it (globals, closures, defaults), the same of every function it
reaches, the compiler's options and the argument types. Entries are content-addressed and written by rename, so any number of processes may
read and write at once. numba's own cache is not used: it keys a function by its own file only (a changed callee is served stale), leaves out
the values of globals, and two processes that save different signatures of one function at once can swap their machine code.

Folders, the first that can be used: `NUMBA_CACHE_DIR`; `XDG_CACHE_HOME` or `~/.cache`, in `mm_platform`; `mm_platform-<uid>` in the temporary folder.
Entries are pickles, so a folder nobody named is used only if it belongs to this user (or root) and others cannot write to it. What can be read
but not written (a read-only image with a warm cache) is read; new entries go to the next folder. None at all: every process compiles.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import os
import pickle
import platform
import shutil
import stat
import tempfile
import types as pytypes
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_ROOMS_WITH_KERNELS: Final = ("core", "kernels", "tape", "replay", "calibration", "decode")
_KEPT_FOLDERS: Final = 6
# a strategy being written leaves an entry per edit
_KEPT_ENTRIES: Final = 1_000
# what these define is told by their versions, which name the folder
_VERSIONED: Final = frozenset({"builtins", "math", "cmath", "operator", "numpy", "numba", "llvmlite", "typing", "collections", "enum", "_operator"})
_CODE_SWITCHES: Final = ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "CPU_NAME", "CPU_FEATURES", "DEBUGINFO_DEFAULT")


# -- the folder ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folders:
    """Where entries are looked for, in order, and where new ones go (None: nowhere)."""

    read: tuple[Path, ...]
    write: Path | None


def sources() -> list[Path]:
    """The files whose change makes a new folder."""
    return [file for room in _ROOMS_WITH_KERNELS for file in sorted((_PACKAGE / room).rglob("*.py"))]


def folder_name(files: Iterable[Path]) -> str:
    """Hash of the sources, the compiler, the libraries and the processor: 16 hex digits."""
    import llvmlite
    import llvmlite.binding as llvm
    import numba

    digest = hashlib.sha256()
    told = (
        numba.__version__,
        llvmlite.__version__,
        np.__version__,
        platform.python_implementation(),
        platform.python_version(),
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        *(str(getattr(numba.config, name, None)) for name in _CODE_SWITCHES),
    )
    digest.update("\0".join(told).encode())
    for file in files:
        digest.update(f"\0{file.relative_to(_PACKAGE) if file.is_relative_to(_PACKAGE) else file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def folders() -> Folders:
    """The folders of this process; looked for once."""
    return find_folders(_roots(), folder_name(sources()))


def _roots() -> list[tuple[Path, bool]]:
    """Candidate roots, and whether somebody named them (then whose they are is their business)."""
    import numba

    named = str(numba.config.CACHE_DIR)
    roots = [(Path(named), True)] if named else []
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base and Path(base).is_absolute() else _home()
    if home is not None:
        roots.append((home / "mm_platform", False))
    roots.append((Path(tempfile.gettempdir()) / f"mm_platform-{os.geteuid()}", False))
    return roots


def _home() -> Path | None:
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # a user without an entry and without HOME
        return None


def find_folders(roots: Iterable[tuple[Path, bool]], name: str) -> Folders:
    """The first folder that can be written, and before it those that can only be read.

    Parameters
    ----------
    roots : iterable of (Path, bool)
        Candidates in order; True: named by the user.
    name : str
        `folder_name`.

    Returns
    -------
    Folders
        Says once, as a warning, when the first candidate was not writable.
    """
    read: list[Path] = []
    refused: list[str] = []
    for root, named in roots:
        folder = root / "numba" / name
        why = _unusable(root, folder, named)
        if why is None:
            _prune(folder)
            if refused:
                warnings.warn(
                    f"compiled code is kept in {folder} instead: {'; '.join(refused)}. Set NUMBA_CACHE_DIR to a folder that can be written.",
                    stacklevel=2,
                )
            return Folders((*read, folder), folder)
        refused.append(why)
        if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK) and (named or _trusted(folder)):
            read.append(folder)
    warnings.warn(f"compiled code cannot be kept, every process compiles anew: {'; '.join(refused)}. Set NUMBA_CACHE_DIR.", stacklevel=2)
    return Folders(tuple(read), None)


def _unusable(root: Path, folder: Path, named: bool) -> str | None:
    """Make the folder; why nothing can be written there, None when it can."""
    try:
        root.mkdir(mode=0o777 if named else 0o700, parents=True, exist_ok=True)
        if not named and not _trusted(root):
            return f"{root} belongs to another user or others can write to it"
        folder.mkdir(mode=0o777 if named else 0o700, parents=True, exist_ok=True)
        if not named and not (_trusted(folder) and _trusted(folder.parent)):
            return f"{folder} belongs to another user or others can write to it"
        # permission bits are not the whole story (read-only mounts, quotas): try
        with tempfile.TemporaryFile(dir=folder):
            os.utime(folder)
    except OSError as err:
        return f"{folder} cannot be written ({err.strerror or err})"
    return None


def _trusted(folder: Path) -> bool:
    seen = folder.lstat()
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid in (os.geteuid(), 0) and not seen.st_mode & 0o022


def _prune(folder: Path) -> None:
    """Drop the folders of older hashes and the oldest entries. A process that still uses one compiles again: nothing breaks."""

    def newest_first(paths: Iterable[Path]) -> list[Path]:
        stamped = []
        for path in paths:
            try:
                stamped.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:  # another process prunes too
                continue
        return [path for _, path in sorted(stamped, reverse=True)]

    hashes = [p for p in folder.parent.iterdir() if len(p.name) == 16 and not set(p.name) - set("0123456789abcdef") and p != folder]
    for stale in newest_first(hashes)[_KEPT_FOLDERS - 1 :]:
        shutil.rmtree(stale, ignore_errors=True)
    for stale in newest_first(folder.glob("*.nbc"))[_KEPT_ENTRIES:]:
        stale.unlink(missing_ok=True)


# -- the key -------------------------------------------------------------------------------------------------------------------------


class UnkeyableError(TypeError):
    """The function reaches something whose content the key cannot tell."""


def fingerprint(fn: pytypes.FunctionType, options: Mapping[str, Any]) -> str:
    """Hash of a function and all it reaches, with the values numba freezes into it: 64 hex digits.

    Parameters
    ----------
    fn : function
        Plain Python.
    options : mapping
        Compiler options it is compiled with.

    Raises
    ------
    UnkeyableError
        It reaches a jitclass.

    Notes
    -----
    Comments and line numbers are not part of it. An attribute of a module counts when any reached code names it, used or not.
    What numba cannot freeze (a dict, an open file) is told by its type: it either does not compile or is never saved.
    """
    walk = _Walk()
    walk.function(fn)
    walk.tell("options", sorted((name, repr(value)) for name, value in options.items()))
    return walk.digest.hexdigest()


class _Walk:
    """A depth-first walk in a fixed order; a function met again is told by its number."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._numbers: dict[int, int] = {}
        # ids are only unique while the objects live
        self._held: list[object] = []

    def tell(self, *parts: object) -> None:
        self.digest.update(repr(parts).encode("utf-8", "backslashreplace") + b"\0")

    def function(self, fn: pytypes.FunctionType) -> None:
        if id(fn) in self._numbers:
            self.tell("again", self._numbers[id(fn)])
            return
        self._numbers[id(fn)] = len(self._numbers)
        self._held.append(fn)
        self.tell("function", fn.__module__, fn.__qualname__)
        for label, values in (("defaults", fn.__defaults__ or ()), ("keyword defaults", tuple((fn.__kwdefaults__ or {}).items()))):
            self.tell(label, len(values))
            for value in values:
                self.value(value, ())
        self.code(fn.__code__, fn)

    def code(self, code: pytypes.CodeType, fn: pytypes.FunctionType) -> None:
        self.tell("code", code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_flags, code.co_exceptiontable)
        for constant in code.co_consts:
            if isinstance(constant, pytypes.CodeType):
                self.code(constant, fn)
            else:
                self.value(constant, ())
        cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
        for name in code.co_freevars:
            if name in cells:  # else: a variable of the enclosing code itself
                self.tell("cell", name)
                self.value(cells[name].cell_contents, code.co_names)
        names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        for name in sorted(names):
            if name in fn.__globals__:
                self.tell("global", name)
                self.value(fn.__globals__[name], code.co_names)

    def value(self, value: Any, names: tuple[str, ...]) -> None:
        """Tell a value; `names` are the attributes the code may take of it, if it is a module."""
        compiled = _python_of(value)
        if compiled is not None:
            fn, options = compiled
            self.tell("compiled", options)
            self.function(fn)
        elif isinstance(value, pytypes.FunctionType):
            self.function(value)
        elif isinstance(value, enum.Enum):
            self.tell("member", type(value).__module__, type(value).__qualname__, value.name, value.value)
        elif isinstance(value, (tuple, frozenset)):
            items = sorted(value, key=repr) if isinstance(value, frozenset) else value
            self.tell(type(value).__module__, type(value).__qualname__, len(value))
            for item in items:
                self.value(item, names)
        elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            self.tell(type(value).__name__, value)
        elif isinstance(value, (np.ndarray, np.generic)):
            array = np.asarray(value)
            self.tell("array", array.dtype.descr, array.shape, array.flags.c_contiguous, array.flags.writeable)
            self.digest.update(array.tobytes())
        elif isinstance(value, pytypes.ModuleType):
            self._module(value, names)
        elif isinstance(value, type):
            self._class(value)
        else:
            named = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
            # numba's types say all of themselves as text; anything else numba cannot freeze
            said = str(value) if type(value).__module__.partition(".")[0] in ("numba", "numpy") else None
            self.tell("other", type(value).__module__, type(value).__qualname__, getattr(value, "__module__", None), named, None if named else said)

    def _module(self, module: pytypes.ModuleType, names: tuple[str, ...]) -> None:
        self.tell("module", module.__name__)
        if module.__name__.partition(".")[0] in _VERSIONED or id(module) in self._numbers:
            return
        for name in sorted(set(names)):
            if name in vars(module):
                self.tell("attribute", name)
                inner = vars(module)[name]
                self.value(inner, () if inner is module else names)

    def _class(self, cls: type) -> None:
        if hasattr(cls, "class_type"):
            raise UnkeyableError(f"jitclass {cls.__qualname__}")
        self.tell("class", cls.__module__, cls.__qualname__, getattr(cls, "_fields", None))
        if issubclass(cls, enum.Enum):
            self.tell([(member.name, member.value) for member in cls])


def _python_of(value: Any) -> tuple[pytypes.FunctionType, list[tuple[str, str]]] | None:
    """The Python function and options behind a kernel, a numba dispatcher or an intrinsic."""
    from numba.core.dispatcher import Dispatcher
    from numba.extending import _Intrinsic

    inner = getattr(value, "numba_options", None)
    if inner is not None and isinstance(getattr(value, "py", None), pytypes.FunctionType):
        return value.py, sorted((name, repr(option)) for name, option in inner.items())
    if isinstance(value, Dispatcher):
        return value.py_func, sorted((name, repr(option)) for name, option in value.targetoptions.items())
    if isinstance(value, _Intrinsic):
        return value._defn, []
    return None


def describe_types(signature: Any) -> str:
    """A signature, or argument types, as a text that tells any two apart in every process.

    numba's own names leave out which class a named tuple is of.
    """
    from numba.core.types.containers import BaseNamedTuple, BaseTuple
    from numba.core.types.function_type import FunctionType
    from numba.core.typing.templates import Signature

    def told(kind: Any) -> str:
        if isinstance(kind, Signature):
            return f"{told(kind.return_type)}({','.join(map(told, kind.args))})"
        if isinstance(kind, (tuple, list)):
            return f"({','.join(map(told, kind))})"
        if isinstance(kind, BaseNamedTuple):
            cls = kind.instance_class
            return f"{cls.__module__}.{cls.__qualname__}{cls._fields}({','.join(map(told, kind.types))})"
        if isinstance(kind, BaseTuple):
            return f"tuple({','.join(map(told, kind))})"
        if isinstance(kind, FunctionType):
            return f"function[{told(kind.signature)}]"
        return str(kind)

    return told(signature)


# -- one function's entries ----------------------------------------------------------------------------------------------------------


class CodeCache:
    """What numba asks of a dispatcher's cache, kept in our folders.

    Parameters
    ----------
    py_func : function
        The Python source of the dispatcher.
    options : mapping
        Its compiler options.
    """

    def __init__(self, py_func: pytypes.FunctionType, options: Mapping[str, Any]) -> None:
        self._py_func = py_func
        self._options = dict(options)
        # the entry that was looked for and is about to be compiled; globals are frozen between the two
        self._names: dict[str, str] = {}

    @property
    def cache_path(self) -> str | None:
        """Folder that new entries go to."""
        write = folders().write
        return None if write is None else str(write)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compile result for the argument types; None: compile it."""
        from numba.core.compiler import CompileResult

        target_context.refresh()
        name = self._name(signature)
        if name is None:
            return None
        for folder in folders().read:
            payload = _read(folder / name)
            if payload is not None:
                return CompileResult._rebuild(target_context, *pickle.loads(payload))
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compile result, unless it holds addresses of this process."""
        from numba.core.serialize import dumps

        folder = folders().write
        name = self._names.pop(describe_types(signature), None)
        if folder is None or name is None:
            return
        if result.library.has_dynamic_globals or any(not lifted.can_cache for lifted in result.lifted):
            warnings.warn(
                f"{self._py_func.__qualname__} is compiled in every process: it holds an address (a ctypes function, a C callback or a large global"
                " array); take it as an argument",
                stacklevel=2,
            )
            return
        try:
            _write(folder, name, dumps(result._reduce()))
        except OSError as err:
            warnings.warn(f"compiled code of {self._py_func.__qualname__} was not kept in {folder}: {err.strerror or err}", stacklevel=2)

    def _name(self, signature: Any) -> str | None:
        told = describe_types(signature)
        try:
            key = hashlib.sha256(f"{fingerprint(self._py_func, self._options)}\0{told}".encode()).hexdigest()[:40]
        except UnkeyableError as err:
            warnings.warn(f"{self._py_func.__qualname__} is compiled in every process: its content cannot be keyed ({err})", stacklevel=2)
            return None
        readable = "".join(c if c.isalnum() or c in "._" else "_" for c in f"{self._py_func.__module__}.{self._py_func.__qualname__}")
        name = f"{readable[-100:]}-{key}.nbc"
        self._names[told] = name
        return name

    # numba's cache port has these too
    def enable(self) -> None:
        """Nothing: the cache is on."""

    def disable(self) -> None:
        """Nothing: make a dispatcher without it instead."""

    def flush(self) -> None:
        """Nothing: an entry is never stale."""


def _read(file: Path) -> bytes | None:
    """An entry's payload; None when it is absent or was cut short (a full disk, a lost machine)."""
    try:
        data = file.read_bytes()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None
    digest, payload = data[:32], data[32:]
    return payload if hashlib.sha256(payload).digest() == digest else None


def _write(folder: Path, name: str, payload: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)  # pruned by a process with newer kernels
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_bytes(hashlib.sha256(payload).digest() + payload)
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
