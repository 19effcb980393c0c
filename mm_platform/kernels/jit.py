"""One source, two twins: every kernel is plain Python and, on request, the same function compiled by numba.

Belongs here: the `kernel` decorator, and functions of the user's as arguments of kernels (`fixed_signature`). Where machine code is kept between
processes: `kernels.compile_cache`. Calling a kernel runs plain Python (what the live runner does; importing kernels never imports numba).
`kernel.compiled` is the numba dispatcher (what the replay and the fits use). Inside compiled code, other kernels are seen compiled: numba reads
`_numba_type_` of the global it meets.

Kernels allocate nothing, so they are compiled without numba's reference counting: passing tuples of arrays between steps costs nothing
then (twenty times on the replay loop). A kernel that allocates (`np.empty`, slices kept, array expressions) does not compile that way and says
"NRT required but not enabled"; declare it `@allocating_kernel` if it is a path called once, or take the array as an argument.

Functions as arguments
----------------------
A dispatcher (`@njit`) passed to a compiled function is a type of its own in every process, so the callee is compiled anew in each, minutes for a
replay loop. `fixed_signature` gives a function whose type is its signature only:

>>> def quote(state, now_s):                                    # the user's plain Python
...     return state.alpha[0] * now_s
>>> fn = fixed_signature(quote, signature_of(0.0, state, 0.0))  # float64(State(...), float64), by example values  # doctest: +SKIP
>>> loop.compiled(fn, states, n)                                # served from the disk for every user's function    # doctest: +SKIP

Inside the kernel `fn(State(i2[s], f2[s]), t)` is a call through an address, 2 to 3 ns more than a call that was compiled in. Arguments are
positional, and of the stated types or safely convertible.

What was found with numba 0.68, and is tested:

- The same loop serves any function of that signature: one entry on the disk, no compilation for another user's function. It may also be a field of
  a named tuple that is passed.
- An exception of the user's function passes through the call and the loop to Python, with its type and message; arrays keep what was written
  until then. A kernel may also catch it (`try: ... except Exception: ...` around the call), though not tell which one it was; it may still count it.
- A C callback (`numba.cfunc`) must not be used instead: an exception in it is printed, swallowed, and its result is garbage.
- What the function reads from globals and closures is frozen when it is compiled. The key holds the values, so the same text over other values is
  compiled anew; a global that changes later needs a new `fixed_signature`.
- From a file, a script or a notebook, functions are kept alike: they are keyed by content. In `__main__` a named tuple among the arguments is another
  type in every process and misses; the engine's states live in modules.
- The function is compiled like a kernel (no reference counting) if it can be, else with it, at a few ns more per array it is handed.
"""

from __future__ import annotations

import functools
import types as pytypes
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from mm_platform.core.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

# error_model numpy: divisions give inf/nan as in numpy, never raise; fastmath stays off so both twins agree bit for bit. forceinline: the steps
# take tuples of many arrays, and LLVM stops inlining them on its own once the state has grown (ten times slower decisions)
_OPTIONS: Final[dict[str, Any]] = {"nopython": True, "error_model": "numpy", "nogil": True, "forceinline": True}
_NO_REFERENCE_COUNTING: Final[dict[str, Any]] = {**_OPTIONS, "_nrt": False}


class Kernel(Generic[P, R]):
    """A plain-Python function with a compiled twin."""

    def __init__(self, fn: Callable[P, R], *, allocates: bool) -> None:
        self.py = fn
        self.numba_options = _OPTIONS if allocates else _NO_REFERENCE_COUNTING
        self._dispatcher: Any = None
        functools.update_wrapper(self, fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.py(*args, **kwargs)

    @property
    def compiled(self) -> Callable[P, R]:
        """The numba twin (compiled at its first call, then from the disk cache). Needs the `research` extra."""
        if self._dispatcher is None:
            self._dispatcher = _dispatcher(cast("pytypes.FunctionType", self.py), self.numba_options)
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


def _dispatcher(fn: pytypes.FunctionType, options: dict[str, Any]) -> Any:
    import numba

    from mm_platform.kernels.compile_cache import CodeCache

    made = numba.njit(**{name: value for name, value in options.items() if name != "nopython"})(fn)
    if not numba.config.DISABLE_JIT:
        made._cache = CodeCache(fn, made.targetoptions)
    return made


def signature_of(result: Any, *arguments: Any) -> Any:
    """A numba signature by example values.

    Parameters
    ----------
    result : scalar
        A value of the type the function returns: `0.0` for float64, `0` for int64, `False` for boolean.
    *arguments
        Values of the argument types; arrays and named tuples of arrays of the right dtype and layout, any size.

    Returns
    -------
    numba signature
        For `fixed_signature`.
    """
    import numba

    return numba.typeof(result)(*(numba.typeof(argument) for argument in arguments))


def fixed_signature(fn: Callable[..., Any], signature: Any, *, cache: bool = True) -> Any:
    """Compile a user's function once, at one signature, as an argument for kernels; see the module docstring.

    Parameters
    ----------
    fn : function
        Plain Python, a `Kernel`, or a numba-jitted function (its options are replaced by the kernels': no fastmath, numpy's division).
        All it calls must compile too.
    signature : numba signature
        From `signature_of`, or `numba.types` put together; the result is a scalar.
    cache : bool
        Keep the machine code on the disk.

    Returns
    -------
    callable
        To be passed where a kernel calls its argument. Called from Python it runs compiled; `.py_func` is the Python function. The same function
        over the same globals gives the same object while one is alive.

    Raises
    ------
    ConfigError
        It is no Python function, takes another number of arguments, or does not compile; the message has its place and numba's reason.
    """
    import numba
    from numba.core.errors import NumbaError

    from mm_platform.kernels.compile_cache import UnkeyableError, describe_types, fingerprint

    plain = fn.py if isinstance(fn, Kernel) else getattr(fn, "py_func", fn)
    if not isinstance(plain, pytypes.FunctionType):
        raise ConfigError(f"{fn!r} is no Python function: expected a def (a method or an object cannot be compiled)")
    place = f"{plain.__qualname__} ({plain.__code__.co_filename}, line {plain.__code__.co_firstlineno})"
    if numba.config.DISABLE_JIT:
        return plain
    told = describe_types(signature)
    if not isinstance(signature.return_type, (numba.types.Number, numba.types.Boolean)):
        raise ConfigError(f"{place} would return {signature.return_type}; a function passed to a kernel returns a number or a bool")
    low, high = _argument_count(plain)
    if not low <= len(signature.args) <= high:
        raise ConfigError(
            f"{place} takes {low if low == high else f'{low} to {high}'} arguments, and is called with {len(signature.args)}: {signature}"
        )
    try:
        key = f"{fingerprint(plain, _OPTIONS)} {told} {cache}"
    except UnkeyableError:
        key = None
    if key is not None and (known := _FIXED.get(key)) is not None:
        return known
    try:
        made = _compile_fixed(plain, signature, cache)
    except NumbaError as err:
        raise ConfigError(f"{place} does not compile for {signature}: {err}") from err
    if key is not None:
        _FIXED[key] = made
    return made


# by content: a notebook that runs a hundred replays loads its function once
_FIXED: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def _argument_count(fn: pytypes.FunctionType) -> tuple[float, float]:
    code = fn.__code__
    most = float("inf") if code.co_flags & 0x04 else code.co_argcount  # CO_VARARGS
    return code.co_argcount - len(fn.__defaults__ or ()), most


@functools.cache
def _fixed_class() -> Any:
    """A dispatcher whose numba type is its signature alone. It stays a dispatcher: only then do exceptions pass through calls by address."""
    from numba.core import types
    from numba.core.registry import CPUDispatcher

    class FixedDispatcher(CPUDispatcher):  # type: ignore[misc]
        signature: Any

        @property
        def _numba_type_(self) -> Any:
            return types.FunctionType(self.signature)

    return FixedDispatcher


def _compile_fixed(fn: pytypes.FunctionType, signature: Any, cache: bool) -> Any:
    from numba.core.errors import NumbaError

    from mm_platform.kernels.compile_cache import CodeCache

    def empty(options: dict[str, Any]) -> Any:
        made = _fixed_class()(fn, targetoptions=dict(options))
        made.signature = signature
        if cache:
            made._cache = CodeCache(fn, made.targetoptions)
        return made

    variants = [empty(_NO_REFERENCE_COUNTING), empty(_OPTIONS)]
    # both are looked for before any is compiled: a function that allocates is not tried without reference counting in every process
    for made in variants:
        if cache and _load(made, signature):
            made.disable_compile()
            return made
    lean, counted = variants
    try:
        lean.compile(signature)
    except NumbaError:
        # most often an allocation, which numba words in many ways; whatever it is, the second attempt says it
        counted.compile(signature)
        counted.disable_compile()
        return counted
    lean.disable_compile()
    return lean


def _load(made: Any, signature: Any) -> bool:
    if made._cache.load_overload(signature, made.targetctx) is None:
        return False
    made.compile(signature)
    return True
