"""Where the runner's parameters come from: the registry's champion, checked, else the last good set on disk.

Belongs here: reading on a schedule, the decision accept or refuse, the copy of the last good set. Does not belong here: readers and
signatures (`registry.source`), the limits themselves (`live.limits`).

A refusal is a value: the runner goes on with what it has. An error is raised only where there is nothing to go on with.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from mm_platform.core.errors import ConnectivityError, MMError, RegistryError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet
from mm_platform.core.ports import ParameterSource, PublishedParameters
from mm_platform.live.disk import Disk
from mm_platform.live.limits import RunnerLimits, age_s, refusal
from mm_platform.registry.source import verify_published

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CHAMPION: Final = "champion"
_MAX_BACKOFF: Final = 64
_LAST_GOOD_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Accepted:
    """A set that may quote. `origin` is "registry" or "last_good"."""

    published: PublishedParameters
    pset: ParameterSet
    origin: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A published version that may not quote, and why."""

    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class Away:
    """The registry could not be read, or has no champion to read."""

    reason: str


Outcome = Accepted | Refused | Away


class _LastGood(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """File of the last good set. It is verified again when read: whoever can write the file cannot sign."""

    schema: int
    published: PublishedParameters
    accepted_at_ns: int


class ParameterWatcher:
    """Reads, checks and remembers the champion of one instrument.

    Parameters
    ----------
    source : ParameterSource
        Where the champion is read.
    public_key : Ed25519PublicKey
        The half of the signing key that this runner trusts.
    spec : InstrumentSpec
        The instrument.
    limits : RunnerLimits
        The runner's own.
    disk, last_good : Disk, Path
        Where the last good set is kept.
    """

    def __init__(
        self, source: ParameterSource, public_key: Ed25519PublicKey, spec: InstrumentSpec, limits: RunnerLimits, disk: Disk, last_good: Path
    ) -> None:
        self._source = source
        self._public_key = public_key
        self._spec = spec
        self._model_name = spec.id.model_name
        self._limits = limits
        self._disk = disk
        self._path = last_good
        self._current: tuple[str, str] = ("", "")
        self._said: Refused | Away | None = None

    def fetch(self) -> PublishedParameters:
        """Read the champion; safe to call from another thread. Raises `RegistryError` or `ConnectivityError`."""
        return self._source.fetch(self._model_name, CHAMPION)

    def first(self, now_ns: int) -> tuple[Accepted, Refused | Away | None]:
        """Parameters to start with, and what was wrong with the registry where the last good set had to help.

        The last good set stands in when the registry is away, has no champion, or has one that is refused: it was approved, its signature is
        verified again, and its age is limited. Taking a set out of force is done by promoting another one.

        Raises
        ------
        RegistryError
            There is no champion, or the champion is refused and no last good set is usable.
        ConnectivityError
            The registry is away and no last good set is usable.
        """
        trouble: Refused | Away
        error: type[MMError]
        try:
            outcome = self.judge(self.fetch(), now_ns)
        except (ConnectivityError, RegistryError) as err:
            trouble, error = Away(str(err)), type(err)
        else:
            if isinstance(outcome, Accepted):
                return outcome, None
            if outcome is None:
                raise RegistryError(f"{self._model_name}: parameters were asked for twice")
            trouble, error = outcome, RegistryError
        last = self._last_good(now_ns)
        if isinstance(last, Accepted):
            self._current = (last.published.version, last.published.sha256)
            self._said = trouble
            return last, trouble
        what = f"champion version {trouble.version} is refused: {trouble.reason}" if isinstance(trouble, Refused) else trouble.reason
        raise error(
            f"{self._spec.instrument}: no parameters to quote with. {what}. Last good set: {last.reason}. "
            "Promote a version that this runner may use (mm promote), or bring the registry back"
        )

    def judge(self, published: PublishedParameters, now_ns: int) -> Accepted | Refused | None:
        """Whether a set that was read may quote; None when it is the one in force, or a refusal that was said already."""
        key = (published.version, published.sha256)
        if key == self._current:
            self._said = None
            return None
        checked = self._check(published, now_ns)
        if isinstance(checked, Refused):
            return None if self._repeats(checked) else checked
        self._disk.replace(self._path, msgspec.json.encode(_LastGood(_LAST_GOOD_SCHEMA, published, now_ns)))
        self._current = key
        self._said = None
        return Accepted(published, checked, "registry")

    def away(self, reason: str) -> Away | None:
        """The registry could not be read; None when that was said already."""
        outcome = Away(reason)
        return None if self._repeats(outcome) else outcome

    def look(self, now_ns: int) -> Outcome | None:
        """Read and judge now, waiting as long as the source waits; None when nothing changed."""
        try:
            published = self.fetch()
        except (ConnectivityError, RegistryError) as err:
            return self.away(str(err))
        return self.judge(published, now_ns)

    @property
    def unwell(self) -> bool:
        """Whether the last reading could not be used."""
        return self._said is not None

    def too_old(self, pset: ParameterSet, now_ns: int) -> str:
        """Why a set in force may not go on; empty while it is young enough."""
        age = age_s(pset, now_ns)
        return (
            f"parameters were fitted {age:.0f} s ago, allowed are {self._limits.max_parameter_age_s:.0f} s"
            if age > self._limits.max_parameter_age_s
            else ""
        )

    def _repeats(self, outcome: Refused | Away) -> bool:
        same = (
            self._said is not None
            and type(self._said) is type(outcome)
            and (not isinstance(outcome, Refused) or not isinstance(self._said, Refused) or outcome.version == self._said.version)
        )
        self._said = outcome
        return same

    def _check(self, published: PublishedParameters, now_ns: int) -> ParameterSet | Refused:
        try:
            pset = verify_published(published, self._public_key, self._model_name)
        except RegistryError as err:
            return Refused(published.version, str(err))
        reason = refusal(pset, self._spec, self._limits, now_ns)
        return Refused(published.version, reason) if reason else pset

    def _last_good(self, now_ns: int) -> Accepted | Away:
        try:
            raw = self._disk.read(self._path)
        except FileNotFoundError:
            return Away("none was kept")
        try:
            kept = msgspec.json.decode(raw, type=_LastGood)
        except msgspec.MsgspecError as err:
            return Away(f"{self._path} is not readable ({err})")
        if kept.schema != _LAST_GOOD_SCHEMA:
            return Away(f"{self._path} has schema {kept.schema}, this version reads {_LAST_GOOD_SCHEMA}")
        checked = self._check(kept.published, now_ns)
        if isinstance(checked, Refused):
            return Away(f"version {checked.version} is refused: {checked.reason}")
        return Accepted(kept.published, checked, "last_good")


class PollingSchedule:
    """Looks in the runner's own thread, for a clock that jumps: at most every `poll_ns` of market time, more rarely while the registry is unwell
    (each failed look may cost the source's whole time limit)."""

    def __init__(self, watcher: ParameterWatcher, poll_ns: int) -> None:
        self._watcher = watcher
        self._poll_ns = poll_ns
        self._next_ns = 0
        self._factor = 1

    def start(self, now_ns: int) -> None:
        self._next_ns = now_ns + self._poll_ns

    def poll(self, now_ns: int) -> Outcome | None:
        """An outcome that is news, or None."""
        if now_ns < self._next_ns:
            return None
        outcome = self._watcher.look(now_ns)
        self._factor = min(2 * self._factor, _MAX_BACKOFF) if self._watcher.unwell else 1
        self._next_ns = now_ns + self._factor * self._poll_ns
        return outcome

    def stop(self) -> None:
        """Nothing runs in the background."""


class BackgroundPolling:
    """Looks from a thread of its own, for a clock that follows the wall: whatever the registry does, the market is never kept waiting.

    One read at a time; its result waits in a queue of one (a newer result replaces an unread older one). A read that does not come back at
    all is reported as away after `hang_s` seconds.
    """

    def __init__(self, watcher: ParameterWatcher, poll_s: float, hang_s: float) -> None:
        self._watcher = watcher
        self._poll_s = poll_s
        self._hang_ns = round(hang_s * 1e9)
        self._results: queue.Queue[PublishedParameters | str] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._heard_ns = 0
        self._thread = threading.Thread(target=self._run, name="parameters", daemon=True)

    def start(self, now_ns: int) -> None:
        self._heard_ns = now_ns
        self._thread.start()

    def poll(self, now_ns: int) -> Outcome | None:
        """An outcome that is news, or None. Never waits."""
        try:
            result = self._results.get_nowait()
        except queue.Empty:
            silent_ns = now_ns - self._heard_ns
            return self._watcher.away(f"the registry has not answered for {silent_ns / 1e9:.0f} s") if silent_ns > self._hang_ns else None
        self._heard_ns = now_ns
        return self._watcher.away(result) if isinstance(result, str) else self._watcher.judge(result, now_ns)

    def stop(self) -> None:
        """Ask the thread to end; a read under way ends by itself, nobody waits for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            result: PublishedParameters | str
            try:
                result = self._watcher.fetch()
            except (ConnectivityError, RegistryError) as err:
                result = str(err)
            try:
                self._results.put_nowait(result)
            except queue.Full:
                # the runner has not looked since: only the newest reading matters
                self._replace(result)

    def _replace(self, result: PublishedParameters | str) -> None:
        # empty: the runner took it in between, which makes the room
        with contextlib.suppress(queue.Empty):
            self._results.get_nowait()
        self._results.put_nowait(result)
