"""How a step's errors end in Dagster.

What the input or the settings cause ends the step with the error's own words, and is not tried again: the same input gives the same error.
What passes by itself (another process writes the same instrument, the registry is away) is tried again, with a limit. Everything else is a
bug and keeps its traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import dagster as dg

from mm_platform.core.errors import CalibrationError, ConfigError, ConnectivityError, DataError, RegistryError
from mm_platform.lake.locks import LakeBusy

RETRIES: Final = 3
RETRY_WAIT_S: Final = 20.0


@contextlib.contextmanager
def outcomes() -> Iterator[None]:
    """Translate the errors of a step that runs inside."""
    try:
        yield
    except (LakeBusy, ConnectivityError) as err:
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_WAIT_S) from err
    except (ConfigError, DataError, CalibrationError, RegistryError) as err:
        raise dg.Failure(str(err), metadata={"kind": type(err).__name__}, allow_retries=False) from None
