"""The signals step: features of a day's tape on the decision grid, into the lake; and the proof that they look at nothing later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from mm_platform.config import Settings
from mm_platform.core.errors import DataError
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import NS_PER_S, iso_utc
from mm_platform.lake.store import Lake, Partition
from mm_platform.tape.features import Features, compute_features
from mm_platform.tape.layout import Tape
from mm_platform.workflow.from_settings import signal_params
from mm_platform.workflow.inputs import days_through
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.tapes import load_tape

_SHOWN = ("spread_bps", "microprice", "queue_imbalance", "order_flow_imbalance", "kyle_lambda", "short_volatility")


@dataclass(frozen=True, slots=True)
class SignalsBuilt:
    """Rows written, share of decisions with a two-sided book, and mean, sd, least and greatest of each signal."""

    instrument: str
    days: tuple[str, ...]
    rows: int
    valid_frac: float
    summary: tuple[tuple[str, str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class LookAheadProof:
    """Recomputed without anything known later than `cut_at`, the decisions up to it are the same bytes."""

    cut_at: str
    decisions: int
    equal: bool


def day_features(settings: Settings, lake: Lake, instrument: InstrumentId, day: date) -> tuple[Tape, Features]:
    """One day's tape and its features."""
    tape = load_tape(lake, instrument, [day])
    return tape, compute_features(tape, round(settings.signals.step_s * NS_PER_S), params=signal_params(settings))


def build_signals(settings: Settings, days: Sequence[date] | None = None, progress: Progress = silent) -> SignalsBuilt:
    """Compute and write the signals of complete days (default: all the calibration would use).

    Raises
    ------
    DataError
        No complete day in the lake.
    """
    instrument = InstrumentId.parse(settings.instrument)
    lake = Lake.open(settings.lake)
    wanted = tuple(days) if days is not None else days_through(lake, instrument, None, settings.calibration.max_days)
    built: list[Features] = []
    for done, day in enumerate(wanted):
        progress("signals", done, len(wanted))
        tape, features = day_features(settings, lake, instrument, day)
        facts = {"tick_size": tape.spec.tick_size, "lot_size": tape.spec.lot_size, "tape_sha256": tape.sha256}
        lake.write("signals", Partition(instrument.venue, instrument.symbol, day), features.columns(), facts)
        built.append(features)
    progress("signals", len(wanted), len(wanted))
    rows = sum(len(f) for f in built)
    if rows == 0:
        raise DataError(f"{instrument}: the days {wanted[0]} to {wanted[-1]} hold no decision")
    return SignalsBuilt(
        str(instrument),
        tuple(d.isoformat() for d in wanted),
        rows,
        sum(int(f.valid.sum()) for f in built) / rows,
        tuple(_summary(name, np.concatenate([getattr(f, name)[f.valid] for f in built])) for name in _SHOWN),
    )


def look_ahead_check(settings: Settings, day: date, cut_frac: float = 0.5) -> LookAheadProof:
    """Drop every row with a local time after a cut and compute the features again."""
    instrument = InstrumentId.parse(settings.instrument)
    tape, features = day_features(settings, Lake.open(settings.lake), instrument, day)
    cut = int(features.grid_ts[int(len(features) * cut_frac)])
    known = tape.local_ts <= cut
    past = Tape.from_columns(tape.spec, {name: column[known] for name, column in tape.columns().items()}, initial_book=tape.initial_book)
    again = compute_features(past, round(settings.signals.step_s * NS_PER_S), int(features.grid_ts[0]), cut + 1, signal_params(settings))
    before = features.between(int(features.grid_ts[0]), cut + 1)
    equal = all(before.columns()[name].tobytes() == column.tobytes() for name, column in again.columns().items())
    return LookAheadProof(iso_utc(cut), len(again), equal)


def _summary(name: str, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[str, str, str, str, str]:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return name, "", "", "", ""
    numbers = (known.mean(), known.std(), known.min(), known.max())
    return name, *(f"{float(n):.6g}" for n in numbers)  # type: ignore[return-value]
