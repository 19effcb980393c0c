"""The record of one calibration on disk: what the sweep chose, what the judge saw, what will be published. One folder per instrument and day.

`<state_dir>/calibrations/<venue>/<symbol>/<day>/`: `sweep.json` after the sweep; `record.json`, `params.json`, `report.html` and pictures after
the judgement. Files are replaced atomically; a later step refuses a record that an earlier step has not written.
"""

from __future__ import annotations

import os
import uuid
from datetime import date
from pathlib import Path
from typing import TypeVar

import msgspec

from mm_platform.config import Settings
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId


class ChosenPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the sweep chose and out of what. Thresholds in inventory units, None = never hedge; profit in quote.

    `judged`: the chosen point could be replayed on the judging part; without it there is nothing to judge, for `reasons`.
    """

    instrument: str
    through: str
    sweep_id: str
    points: int
    risk_aversions: tuple[float, ...]
    hedge_thresholds: tuple[float | None, ...]
    chosen: tuple[int, int] | None
    why: str
    plateau_ratio: float | None
    in_sample_pnl: tuple[tuple[float, ...], ...]
    out_of_sample_pnl: tuple[tuple[float, ...], ...]
    in_sample_blocks: tuple[float, ...]
    trial_sharpes: tuple[float, ...]
    reasons: tuple[str, ...]
    dataset_sha256: str
    code_version: str

    @property
    def risk_aversion(self) -> float | None:
        return None if self.chosen is None else self.risk_aversions[self.chosen[0]]

    @property
    def hedge_threshold(self) -> float | None:
        return None if self.chosen is None else self.hedge_thresholds[self.chosen[1]]


class RecordedCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    outcome: str
    seen: str
    needed: str
    message: str


class RecordedGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The gate's word, as it is published."""

    verdict: str
    checks: tuple[RecordedCheck, ...]
    blocks_seen: int
    blocks_needed: int
    days_to_record: float


class CalibrationRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a candidate needs besides its files."""

    instrument: str
    through: str
    sweep_id: str
    gate: RecordedGate
    metrics: dict[str, float]
    run_params: dict[str, str]
    manifest_json: str
    has_parameters: bool

    def check_rows(self) -> list[tuple[str, str, str, str]]:
        return [(c.name, c.outcome, c.seen, c.needed) for c in self.gate.checks]


T = TypeVar("T", ChosenPoint, CalibrationRecord)


def folder(settings: Settings, day: date) -> Path:
    """Where one calibration's files are."""
    iid = InstrumentId.parse(settings.instrument)
    return settings.state_dir / "calibrations" / iid.venue / iid.symbol / day.isoformat()


def newest_day(settings: Settings) -> date:
    """The newest day a sweep was run for; `DataError` when there is none."""
    iid = InstrumentId.parse(settings.instrument)
    root = settings.state_dir / "calibrations" / iid.venue / iid.symbol
    days = sorted(path.parent.name for path in root.glob("*/sweep.json"))
    if not days:
        raise DataError(f"{iid}: no sweep was run yet; run mm sweep first")
    return date.fromisoformat(days[-1])


def write_text(path: Path, text: str | bytes) -> None:
    """Replace a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(text.encode() if isinstance(text, str) else text)
    os.replace(temporary, path)


def save(settings: Settings, day: date, record: ChosenPoint | CalibrationRecord) -> None:
    """Write a step's record."""
    name = "sweep.json" if isinstance(record, ChosenPoint) else "record.json"
    write_text(folder(settings, day) / name, msgspec.json.format(msgspec.json.encode(record), indent=1))


def load_chosen(settings: Settings, day: date) -> ChosenPoint:
    """What the sweep chose; `DataError` when it was not run."""
    return _load(settings, day, "sweep.json", ChosenPoint, "mm sweep")


def load_record(settings: Settings, day: date) -> CalibrationRecord:
    """What the judge saw; `DataError` when there was no judgement."""
    return _load(settings, day, "record.json", CalibrationRecord, "mm sweep")


def _load(settings: Settings, day: date, name: str, kind: type[T], verb: str) -> T:
    path = folder(settings, day) / name
    if not path.exists():
        raise DataError(f"{settings.instrument} {day}: no {name}; run {verb} first")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as err:
        raise DataError(f"{path} cannot be read ({err}); run {verb} again") from None
