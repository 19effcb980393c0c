"""The journal: every event that reached the engine and every command it gave, in order, append-only.

Belongs here: writing, reading, and replaying a journal through a fresh engine. One JSON object per line: first the header, then
`{"e":<event>}` and `{"c":<command>}`. The header holds the engine's settings and parameters travel as events, so that a journal alone
rebuilds every state and every command, byte for byte.

Durability. Lines are collected and handed to the operating system before an order leaves (and at `flush_bytes`): a killed process loses
nothing that the venue knows of. `fsync="orders"` also waits for the disk at that point, so the same holds for a power cut: for real venues.
`fsync="close"` waits for the disk only at the end: for simulated ones. A line cut short by a crash is dropped when reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from mm_platform.core.commands import AnyCommand
from mm_platform.core.errors import DataError
from mm_platform.core.events import JOURNAL_SCHEMA, AnyEvent
from mm_platform.engine.engine import Engine
from mm_platform.engine.settings import EngineSettings
from mm_platform.live.disk import AppendFile, Disk, LocalDisk

FLUSH_BYTES: Final = 1 << 18


class JournalHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """First line. `mode` says how real the run is; `started_at_ns` is market time, ns."""

    schema: int = JOURNAL_SCHEMA
    run_id: str
    instrument: str
    mode: str
    code_version: str
    started_at_ns: int
    engine: EngineSettings


class _EventLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    e: AnyEvent


class _CommandLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    c: AnyCommand


class JournalWriter:
    """Appends to one journal file; made by one run, closed by it.

    Parameters
    ----------
    disk, path
        Where; the file must not exist.
    header : JournalHeader
        Written and synced at once.
    fsync : {"orders", "close"}
        See the module docstring.
    """

    def __init__(self, disk: Disk, path: Path, header: JournalHeader, *, fsync: Literal["orders", "close"] = "orders") -> None:
        self.path = path
        self._encoder = msgspec.json.Encoder()
        self._fsync = fsync
        self._buffer = bytearray(self._encoder.encode(header) + b"\n")
        self._file: AppendFile = disk.append(path)
        self._write_out()
        self._file.sync()

    def event(self, event: AnyEvent) -> None:
        """Note an event, before the engine sees it."""
        self._buffer += b'{"e":'
        self._buffer += self._encoder.encode(event)
        self._buffer += b"}\n"

    def commands(self, commands: Iterable[AnyCommand]) -> None:
        """Note what the engine answered to the last event."""
        for command in commands:
            self._buffer += b'{"c":'
            self._buffer += self._encoder.encode(command)
            self._buffer += b"}\n"
        if len(self._buffer) >= FLUSH_BYTES:
            self._write_out()

    def commit(self) -> None:
        """To be called before anything leaves for the venue."""
        self._write_out()
        if self._fsync == "orders":
            self._file.sync()

    def close(self) -> None:
        self._write_out()
        self._file.sync()
        self._file.close()

    def _write_out(self) -> None:
        if self._buffer:
            self._file.write(bytes(self._buffer))
            self._buffer.clear()


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal read back: each event with the commands that were noted after it, as encoded bytes.

    `torn_bytes` is the length of an unfinished last line, which was dropped.
    """

    header: JournalHeader
    steps: tuple[tuple[AnyEvent, tuple[bytes, ...]], ...]
    torn_bytes: int

    @property
    def commands(self) -> tuple[AnyCommand, ...]:
        """All commands, decoded."""
        return tuple(msgspec.json.decode(raw, type=_CommandLine).c for _, noted in self.steps for raw in noted)


def read_journal(path: Path, disk: Disk | None = None) -> Journal:
    """Read a journal, finished or cut short.

    Raises
    ------
    DataError
        No journal, a header of another schema, or a line inside that is not what this version writes: that is damage, not a crash.
    """
    try:
        raw = (disk or LocalDisk()).read(path)
    except FileNotFoundError:
        raise DataError(f"no journal at {path}") from None
    whole, _, torn = raw.rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    if not lines:
        raise DataError(f"journal {path}: not even the header is complete; the run never started")
    try:
        header = msgspec.json.decode(lines[0], type=JournalHeader)
    except msgspec.MsgspecError as err:
        raise DataError(f"journal {path}: the first line is not a header: {err}") from None
    if header.schema != JOURNAL_SCHEMA:
        raise DataError(f"journal {path} has schema {header.schema}, this version reads {JOURNAL_SCHEMA}; read it with version {header.code_version}")
    events = msgspec.json.Decoder(_EventLine)
    commands = msgspec.json.Decoder(_CommandLine)
    steps: list[tuple[AnyEvent, list[bytes]]] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            if line.startswith(b'{"e":'):
                steps.append((events.decode(line).e, []))
                continue
            commands.decode(line)
        except msgspec.MsgspecError as err:
            raise DataError(f"journal {path}: line {number} is damaged: {err}") from None
        if not steps:
            raise DataError(f"journal {path}: line {number} is a command before any event")
        steps[-1][1].append(line)
    return Journal(header, tuple((event, tuple(noted)) for event, noted in steps), len(torn))


@dataclass(frozen=True, slots=True)
class JournalReplay:
    """What a fresh engine made of a journal's events. `differs_at` is the number of the first event whose commands differ, -1 for none.

    The last event of a torn journal may have lost commands; what is there of them must still agree.
    """

    engine: Engine
    events: int
    commands: int
    differs_at: int


def replay_journal(path: Path, disk: Disk | None = None) -> JournalReplay:
    """Feed a journal's events to a fresh engine and compare its commands with the noted ones, byte for byte.

    Raises
    ------
    DataError
        See `read_journal`.
    """
    journal = read_journal(path, disk)
    engine = Engine(journal.header.engine)
    encoder = msgspec.json.Encoder()
    differs_at = -1
    count = 0
    for number, (event, noted) in enumerate(journal.steps):
        given = tuple(b'{"c":' + encoder.encode(command) + b"}" for command in engine.handle(event))
        count += len(given)
        last = number == len(journal.steps) - 1
        same = given[: len(noted)] == noted if last else given == noted
        if not same and differs_at < 0:
            differs_at = number
    return JournalReplay(engine, len(journal.steps), count, differs_at)
