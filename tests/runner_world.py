"""A small world around the runner: a registry in memory, signed sets, a log that remembers, a disk that can be cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mm_platform.core.approval import Approval, canonical_approval
from mm_platform.core.errors import MMError
from mm_platform.core.instrument import InstrumentSpec
from mm_platform.core.parameters import ParameterSet, canonical_json
from mm_platform.core.ports import PublishedParameters
from mm_platform.core.units import NS_PER_MS, NS_PER_S
from mm_platform.engine.engine import Engine
from mm_platform.engine.settings import EngineLimits, EngineSettings
from mm_platform.kernels.accounting import money_of
from mm_platform.kernels.signals import SignalParams
from mm_platform.live.clock import FastClock, RunnerClock
from mm_platform.live.disk import AppendFile, Disk, LocalDisk
from mm_platform.live.journal import JournalHeader, JournalWriter
from mm_platform.live.limits import RunnerLimits
from mm_platform.live.order_gate import OrderGate
from mm_platform.live.parameters import ParameterWatcher, PollingSchedule
from mm_platform.live.runner import Polling, Runner, RunSummary
from mm_platform.registry.signing import sign
from mm_platform.replay.settings import ReplaySettings
from mm_platform.replay.venue import SimulatedVenue, VenueStart, tape_chunks
from mm_platform.tape.layout import Tape

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))

LIMITS = RunnerLimits(engine=EngineLimits(max_order_notional=5_000.0, max_position_notional=20_000.0, max_orders_per_10s=100))


def published(pset: ParameterSet, version: str = "1", key: Ed25519PrivateKey = KEY, **changes: Any) -> PublishedParameters:
    """A version as the registry would hand it out after `mm promote`; `changes` alter it afterwards."""
    model = _model(pset)
    approval = Approval(
        model_name=model,
        version=version,
        parameters_sha256=pset.sha256(),
        gate_verdict="pass",
        checks_sha256="0" * 64,
        bounds={},
        approver="test",
        reason="test",
        approved_at_ns=0,
    )
    text = canonical_approval(approval)
    good = PublishedParameters(model, version, "champion", canonical_json(pset).decode(), pset.sha256(), text.decode(), sign(key, text))
    return replace(good, **changes)


def _model(pset: ParameterSet) -> str:
    venue, symbol = pset.instrument.split(":")
    return f"mm.{venue}.{symbol}"


@dataclass
class MemoryRegistry:
    """Answers what it was last told; an error is raised. `on_fetch` runs before every read and sees its number."""

    answer: PublishedParameters | MMError
    on_fetch: Callable[[MemoryRegistry, int], None] | None = None
    reads: int = 0

    def fetch(self, model_name: str, alias: str) -> PublishedParameters:
        self.reads += 1
        if self.on_fetch is not None:
            self.on_fetch(self, self.reads)
        if isinstance(self.answer, MMError):
            raise self.answer
        return self.answer


@dataclass
class MemoryLog:
    """Structured events, remembered."""

    lines: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [fields for _, event, fields in self.lines if event == name]


@dataclass
class MemorySink:
    """Rows of live_fills, merged by key as the lake does."""

    rows: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    writes: int = 0

    def write(self, day: object, columns: dict[str, Any]) -> None:
        self.writes += 1
        names = list(columns)
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(names, values, strict=True))
            self.rows[(row["run_id"], row["client_id"], row["trade_id"])] = row


class MemoryDisk:
    """Files in memory. `synced` holds what a power cut would leave, `files` what a killed process leaves."""

    def __init__(self) -> None:
        self.files: dict[Path, bytes] = {}
        self.synced: dict[Path, bytes] = {}

    def append(self, path: Path) -> AppendFile:
        self.files[path] = b""
        return _MemoryAppendFile(self, path)

    def read(self, path: Path) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def replace(self, path: Path, data: bytes) -> None:
        self.files[path] = self.synced[path] = data


class _MemoryAppendFile:
    def __init__(self, disk: MemoryDisk, path: Path) -> None:
        self._disk, self._path = disk, path

    def write(self, data: bytes) -> None:
        self._disk.files[self._path] += data

    def sync(self) -> None:
        self._disk.synced[self._path] = self._disk.files[self._path]

    def close(self) -> None:
        return


@dataclass
class World:
    """Everything a run needs, with defaults; change fields before `run`."""

    tape: Tape
    registry: MemoryRegistry
    folder: Path
    limits: RunnerLimits = LIMITS
    disk: Disk = field(default_factory=LocalDisk)
    sink: MemorySink = field(default_factory=MemorySink)
    log: MemoryLog = field(default_factory=MemoryLog)
    stop: threading.Event = field(default_factory=threading.Event)
    clock: RunnerClock = field(default_factory=FastClock)
    step_ns: int = NS_PER_S
    poll_s: float = 10.0
    run_id: str = "r1"
    polling: Callable[[ParameterWatcher], Polling] | None = None
    fsync: Any = "close"
    start_ns: int | None = None
    chunks: Iterable[Tape] | None = None
    venue: SimulatedVenue | None = None
    engine: Engine | None = None

    @property
    def spec(self) -> InstrumentSpec:
        return self.tape.spec

    @property
    def last_good(self) -> Path:
        return self.folder / "last_good.json"

    @property
    def journal_path(self) -> Path:
        return self.folder / f"{self.run_id}.jsonl"

    def watcher(self) -> ParameterWatcher:
        return ParameterWatcher(self.registry, KEY.public_key(), self.spec, self.limits, self.disk, self.last_good)

    def run(self, duration_s: float = 3_600.0) -> RunSummary:
        at_ns = int(self.tape.local_ts.min())
        start_ns = self.start_ns or -(-at_ns // self.step_ns) * self.step_ns
        watcher = self.watcher()
        first, trouble = watcher.first(start_ns)
        self.engine = Engine(
            EngineSettings(
                spec=self.spec,
                strategy="as",
                run_id=self.run_id,
                start_ns=start_ns,
                step_ns=self.step_ns,
                limits=self.limits.engine,
                signals=SignalParams(vol_min_samples=5, kyle_min_buckets=5),
            )
        )
        header = JournalHeader(
            run_id=self.run_id, instrument=self.spec.instrument, mode="sim", code_version="test", started_at_ns=at_ns, engine=self.engine.settings
        )
        settings = ReplaySettings(entry_latency_ns=10 * NS_PER_MS, response_latency_ns=10 * NS_PER_MS)
        end_ns = start_ns + round((duration_s + 10) * NS_PER_S)
        self.venue = SimulatedVenue(
            self.spec,
            self.chunks or tape_chunks(self.tape, 500),
            settings,
            money_of(self.spec),
            VenueStart(self.tape.initial_book, at_ns),
            end_ns=end_ns,
        )
        polling = self.polling(watcher) if self.polling else PollingSchedule(watcher, round(self.poll_s * NS_PER_S))
        runner = Runner(
            self.engine,
            self.venue,
            self.clock,
            watcher,
            polling,
            OrderGate(self.spec, self.limits),
            JournalWriter(self.disk, self.journal_path, header, fsync=self.fsync),
            self.sink,
            self.log,
            mode="sim",
            stop=self.stop,
        )
        return runner.run(first, trouble, at_ns, duration_s)


def cheap(spec: InstrumentSpec) -> InstrumentSpec:
    """The same instrument with a small rebate: quotes may stand at the touch of the hand-made markets."""
    return msgspec.structs.replace(spec, maker_fee=-0.000002)


def write_public_key(path: Path) -> None:
    """The half of `KEY` that a runner trusts, where it looks for it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    path.chmod(0o644)
