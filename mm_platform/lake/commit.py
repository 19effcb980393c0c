"""Commits: several files become visible together or not at all, whatever kills the writer.

Belongs here: the commit's life, its record on disk, and what the next opener does about a writer that died. Does not belong here: the
content of files (`writer`).

How a commit goes:

1. Every file is written to a hidden temporary beside its final place. Before that its path is noted in `.commits/<id>.open`, a file
   the writer holds locked for as long as it lives.
2. All temporaries are flushed to disk.
3. The record `.commits/<id>.json` (the list of renames) appears by an atomic rename. From here on the commit has happened.
4. The renames are carried out, `data_quality` last, and the record is removed.

A writer that dies before 3 leaves temporaries that nobody sees; `recover` removes them once its lock is free. A writer that dies after
3 leaves a record; `recover` finishes its renames. Each temporary has a name of its own and can be renamed once only, so any number of
processes may carry out the same record at the same time, and the order of the list holds for all of them together.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from mm_platform.core.errors import ConfigError, DataError
from mm_platform.lake.columns import Columns
from mm_platform.lake.fields import TableSchema, table_schema
from mm_platform.lake.layout import COMMITS, Partition, data_path, make_folder, sync_folder, write_durably
from mm_platform.lake.writer import TableWriter

_OPEN: Final = ".open"
_RECORD: Final = ".json"


class Rename(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file to be put in place; paths are relative to the lake's root."""

    temporary: str
    final: str


class CommitRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a commit still has to do, in order."""

    schema: int
    renames: tuple[Rename, ...]


def _temporary_name(final_name: str, commit_id: str) -> str:
    return f".{final_name}.{commit_id}.tmp"


def _is_temporary(name: str, commit_id: str) -> bool:
    return name.startswith(".part-") and name.endswith(f".parquet.{commit_id}.tmp")


def no_step(name: str) -> None:
    """The default observer of a commit's steps: does nothing."""


class Commit:
    """Files that become visible together. Made by `Lake.begin`; a context manager: leaving it without `commit()` discards everything.

    Parameters
    ----------
    root : Path
        The lake.
    lock : callable(TableSchema, Partition)
        Makes sure this process may write the table of the partition's instrument; called before its first file.
    release : callable()
        Gives up what `lock` took.
    step : callable(str)
        Told of every step just before it is taken; tests use it to die there.
    """

    def __init__(
        self, root: Path, lock: Callable[[TableSchema, Partition], None], release: Callable[[], None], step: Callable[[str], None] = no_step
    ) -> None:
        self._root = root
        self._lock = lock
        self._release = release
        self._step = step
        self._id = uuid.uuid4().hex
        self._writers: dict[tuple[str, Partition, str], TableWriter] = {}
        self._done = False
        self._open_fd = self._start()

    def __enter__(self) -> Commit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()

    def writer(self, table: str, partition: Partition, metadata: Mapping[str, str] | None = None, *, run: str = "") -> TableWriter:
        """A new file for one partition of one table, replacing what is there when committed.

        Parameters
        ----------
        table : str
            Table name of the registry.
        partition : Partition
        metadata : Mapping[str, str], optional
            Facts stored with the file. Tables that count in ticks or lots need `tick_size` and `lot_size` (decimal strings).
        run : str
            The run whose rows these are, for tables by run; empty for all others. Runs never write each other's files, so they need no lock.

        Raises
        ------
        ConfigError
            Unknown table; the same file twice; the commit is over; a run where the table has none, or none where it has.
        LakeBusy
            Another writer holds the instrument.
        """
        schema = table_schema(table)
        if self._done:
            raise ConfigError(f"table {table}, {partition}: the commit is over; begin another")
        if (table, partition, run) in self._writers:
            raise ConfigError(f"table {table}, {partition}: already written in this commit; keep the writer and write on")
        if schema.by_run != bool(run):
            raise ConfigError(
                f"table {table} {'holds one file per run: name the run' if schema.by_run else 'is not divided by run'} (got run {run!r})"
            )
        if not schema.by_run:
            self._lock(schema, partition)
        final = data_path(self._root, table, partition, run)
        temporary = final.with_name(_temporary_name(final.name, self._id))
        self._step(f"write {table}")
        os.write(self._open_fd, f"{temporary.relative_to(self._root)}\n".encode())
        os.fsync(self._open_fd)
        make_folder(final.parent)
        writer = TableWriter(schema, partition, temporary, metadata or {})
        self._writers[table, partition, run] = writer
        return writer

    def write(self, table: str, partition: Partition, data: Any | Columns, metadata: Mapping[str, str] | None = None, *, run: str = "") -> None:
        """A whole small table at once; see `writer`."""
        self.writer(table, partition, metadata, run=run).write(data)

    def commit(self) -> None:
        """Make all files visible, `data_quality` last.

        Raises
        ------
        ConfigError
            The commit is over.
        DataError
            A file is not fit to be seen (`TableWriter.finish`); nothing has changed then.
        """
        if self._done:
            raise ConfigError("the commit is over; begin another")
        self._step("finish")
        for writer in self._writers.values():
            writer.finish()
        for folder in sorted({w.temporary.parent for w in self._writers.values()}):
            sync_folder(folder)
        if self._writers:
            self._step("record")
            record = self._commits / f"{self._id}{_RECORD}"
            write_durably(record, msgspec.json.encode(CommitRecord(1, self._renames())), self._commits / f".{self._id}.tmp")
            self._done = True  # from here on the record decides, not this object
            carry_out(self._root, record, self._step)
            self._step("close")
        self._close()

    def abort(self) -> None:
        """Discard everything not committed; after `commit()` it only frees the locks."""
        with ExitStack() as stack:  # every step is taken, also where closing a file fails (a full disk)
            stack.callback(self._close)
            if not self._done:
                for writer in self._writers.values():
                    stack.callback(writer.temporary.unlink, missing_ok=True)
                    stack.callback(writer.close)

    @property
    def _commits(self) -> Path:
        return self._root / COMMITS

    def _renames(self) -> tuple[Rename, ...]:
        order = sorted(self._writers, key=lambda key: (key[0] == "data_quality", key))
        return tuple(
            Rename(str(self._writers[key].temporary.relative_to(self._root)), str(data_path(self._root, *key).relative_to(self._root)))
            for key in order
        )

    def _start(self) -> int:
        # locked under another name first: from the moment `.open` exists its lock says that the writer lives
        hidden = self._commits / f".{self._id}.starting"
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        hidden.replace(self._commits / f"{self._id}{_OPEN}")
        sync_folder(self._commits)
        return fd

    def _close(self) -> None:
        if self._open_fd < 0:
            return
        self._done = True
        record_left = (self._commits / f"{self._id}{_RECORD}").exists()
        if not record_left:
            (self._commits / f"{self._id}{_OPEN}").unlink(missing_ok=True)
        os.close(self._open_fd)
        self._open_fd = -1
        self._release()


def carry_out(root: Path, record: Path, step: Callable[[str], None] = no_step) -> None:
    """Do what a commit record says and remove it. Safe to repeat, and safe beside others doing the same."""
    try:
        raw = record.read_bytes()
    except FileNotFoundError:
        return  # somebody else has finished it
    try:
        todo = msgspec.json.decode(raw, type=CommitRecord)
    except msgspec.MsgspecError as err:
        raise DataError(f"commit record {record} cannot be read ({err}); the files it names are complete temporaries beside their targets") from None
    if todo.schema != 1:
        raise DataError(f"commit record {record} has schema {todo.schema}, this version reads 1; open the lake with the version that wrote it")
    for rename in todo.renames:
        step(f"rename {rename.final.split('/')[0]}")
        final = root / rename.final
        try:
            (root / rename.temporary).replace(final)
        except FileNotFoundError:
            continue  # renamed before: by the writer that died, or by another opener
        sync_folder(final.parent)
    step("remove record")
    record.unlink(missing_ok=True)
    sync_folder(record.parent)


def recover(root: Path) -> None:
    """Finish commits that were recorded and remove what writers left behind that died before."""
    commits = root / COMMITS
    with os.scandir(commits) as entries:
        names = sorted(e.name for e in entries)
    for name in names:
        if name.endswith(_RECORD) and not name.startswith("."):
            carry_out(root, commits / name)
    for name in names:
        if name.endswith(_OPEN) and not name.startswith("."):
            _bury(root, commits, name.removesuffix(_OPEN))


def recorded(root: Path) -> list[Path]:
    """Commit records not yet carried out."""
    return sorted(p for p in (root / COMMITS).glob(f"*{_RECORD}") if not p.name.startswith("."))


def _bury(root: Path, commits: Path, commit_id: str) -> None:
    note = commits / f"{commit_id}{_OPEN}"
    try:
        file = note.open("rb")
    except FileNotFoundError:
        return  # its writer ended meanwhile
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # its writer lives
        # the record may have appeared after the folder was listed; the writer is dead now, so nothing more will
        carry_out(root, commits / f"{commit_id}{_RECORD}")
        for line in file.read().decode().splitlines():
            temporary = root / line
            if _is_temporary(temporary.name, commit_id):
                temporary.unlink(missing_ok=True)
        (commits / f".{commit_id}.tmp").unlink(missing_ok=True)
        note.unlink(missing_ok=True)
