"""What calibration works on: one instrument's tape up to a day, its features, and the plan that divides it. Loaded the same way by every step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from mm_platform.config import Settings
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import NS_PER_S
from mm_platform.lake.store import Lake
from mm_platform.tape.features import Features, compute_features
from mm_platform.tape.layout import Kind, Tape
from mm_platform.workflow.from_settings import signal_params
from mm_platform.workflow.plan import Plan, make_plan
from mm_platform.workflow.tapes import Manifest, load_tape, manifest


@dataclass(frozen=True, slots=True)
class Inputs:
    """One instrument's data for one calibration."""

    instrument: InstrumentId
    days: tuple[date, ...]
    tape: Tape
    features: Features
    plan: Plan
    manifest: Manifest

    @property
    def through(self) -> date:
        return self.days[-1]


def days_through(lake: Lake, instrument: InstrumentId, through: date | None, most: int) -> tuple[date, ...]:
    """The last `most` complete days in a row up to `through` (default: the newest); a missing day ends the row.

    Raises
    ------
    DataError
        No complete day there.
    """
    complete = sorted(p.date for p in lake.complete_partitions(instrument))
    known = [d for d in complete if through is None or d <= through]
    if not known or (through is not None and known[-1] != through):
        wanted = f"day {through} is not complete" if through is not None else "no complete day"
        have = f"complete days: {complete[0]} to {complete[-1]}" if complete else "complete days: none"
        raise DataError(f"{instrument}: {wanted} in the lake {lake.root} ({have}); run mm ingest first, or name another lake with --lake")
    row = [known[-1]]
    for day in reversed(known[:-1]):
        if (row[-1] - day).days != 1 or len(row) >= most:
            break
        row.append(day)
    return tuple(reversed(row))


def without_stale(tape: Tape, features: Features, max_age_s: float | None) -> Features:
    """Decisions to which no market data had come for longer than `max_age_s` count as not valid, as the runner's do; None = off.

    Without this a hole in a recording would be a quiet market in which quotes stand undisturbed.
    """
    if max_age_s is None:
        return features
    market = np.isin(tape.kind, (Kind.DEPTH, Kind.SNAPSHOT, Kind.CLEAR, Kind.TOP, Kind.TRADE))
    seen = np.sort(tape.local_ts[market], kind="stable")
    at = np.searchsorted(seen, features.grid_ts, side="right") - 1
    # before the first message there is no book, and nothing is valid anyway
    age_ns = features.grid_ts - seen[np.maximum(at, 0)] if len(seen) else np.zeros_like(features.grid_ts)
    return replace(features, valid=features.valid & (age_ns <= max_age_s * NS_PER_S))


def load_inputs(settings: Settings, through: date | None = None) -> Inputs:
    """Tape, features on the decision grid, and plan."""
    instrument = InstrumentId.parse(settings.instrument)
    lake = Lake.open(settings.lake)
    days = days_through(lake, instrument, through, settings.calibration.max_days)
    tape = load_tape(lake, instrument, days)
    features = compute_features(tape, round(settings.signals.step_s * NS_PER_S), params=signal_params(settings))
    features = without_stale(tape, features, settings.risk.max_book_age_s)
    if len(features) == 0 or not features.valid.any():
        raise DataError(f"{instrument} {days[0]} to {days[-1]}: no decision with a two-sided book; there is nothing to calibrate on")
    first, last = int(features.grid_ts[0]), int(features.grid_ts[-1]) + 1
    return Inputs(instrument, days, tape, features, make_plan(settings, first, last), manifest(lake, instrument, days))
