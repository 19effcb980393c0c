"""The one tree of errors.

Belongs here: exception classes that cross module boundaries. Does not belong here: refusals that are expected (a gate's verdict,
a risk refusal); those are values. A message says what was seen, what was expected, and what to do.
"""

from __future__ import annotations


class MMError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(MMError):
    """A setting or argument is wrong. Fix the input; retrying does not help."""


class DataError(MMError):
    """Market data cannot be used: wrong schema, a gap, stale, empty, out of order."""


class CalibrationError(MMError):
    """A fit did not converge or has too little data to say anything."""


class RegistryError(MMError):
    """The model registry has no such version or alias, or its content was altered."""


class VenueError(MMError):
    """Root of what a venue or the way to it can do to us."""


class ConnectivityError(VenueError):
    """The venue could not be reached; a read may be retried."""


class VenueRejected(VenueError):
    """The venue refused for a stated reason; fix the request."""


class UnknownOutcome(VenueError):
    """A write may or may not have happened; reconcile before acting."""


class InvariantError(MMError):
    """Our own bug: cancel all, stop, report."""
