"""The fits step: sigma, A and k on what was known before each stretch, with errors; and what of them goes into the lake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from mm_platform.calibration.fit import Fit
from mm_platform.calibration.fit_set import FitSet, FitSettings, fit_all
from mm_platform.calibration.intensity import DecisionGrid, IntensitySettings
from mm_platform.calibration.walk_forward import Segment
from mm_platform.config import Settings
from mm_platform.core.instrument import InstrumentId
from mm_platform.core.units import NS_PER_MS, NS_PER_S, utc_date
from mm_platform.lake.columns import table_of_rows
from mm_platform.lake.fields import TABLES
from mm_platform.lake.store import Lake, Partition
from mm_platform.tape.features import Features
from mm_platform.tape.layout import Tape
from mm_platform.workflow.inputs import days_through
from mm_platform.workflow.points import FittedSegment
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.signals import SignalsBuilt, build_signals, day_features


@dataclass(frozen=True, slots=True)
class FitsDone:
    """The fits of one window."""

    instrument: str
    fitted_through: str
    accepted: bool
    fits: tuple[Fit, ...]

    def rows(self) -> list[tuple[str, str, str, str, str, str, str]]:
        """Name, value, standard error, unit, n, method, reason."""
        return [(f.name, f"{f.value:.6g}", f"{f.stderr:.3g}", f.unit, str(f.n), f.method, f.reason) for f in self.fits]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Signals and the newest fits."""

    signals: SignalsBuilt
    fits: FitsDone

    def text(self) -> str:
        lines = [
            f"{self.signals.instrument}: {self.signals.rows} decisions on {len(self.signals.days)} day(s), {self.signals.valid_frac:.1%} with a two-sided book"
        ]
        lines += [
            f"  {name:6s} {value:>12s} ± {error:<9s} {unit:14s} n={n}" + (f"  refused: {reason}" if reason else "")
            for name, value, error, unit, n, _, reason in self.fits.rows()
        ]
        return "\n".join(lines)


def decision_grid(features: Features) -> DecisionGrid:
    """The features' grid as the estimators want it."""
    return DecisionGrid(features.grid_ts, features.bid_ticks, features.ask_ticks, features.valid)


def fit_settings(settings: Settings) -> FitSettings:
    """Estimator settings from the project's."""
    return FitSettings(
        intensity=IntensitySettings(min_orders=settings.calibration.min_trades, latency_ns=round(settings.latency.entry_ms * NS_PER_MS))
    )


def fit_window(settings: Settings, tape: Tape, features: Features, from_ns: int, through_ns: int) -> FitSet:
    """Fit on local times in [from, through]. The generator is keyed by seed and window: a refit gives the same errors."""
    rng = np.random.default_rng([settings.seed, from_ns // NS_PER_S, through_ns // NS_PER_S])
    return fit_all(tape, decision_grid(features), from_ns, through_ns, rng, fit_settings(settings))


def price_at(features: Features, at_ns: int) -> float:
    """The last mid known by `at_ns`; nan when none was."""
    known = np.flatnonzero((features.grid_ts <= at_ns) & features.valid)
    return float(features.mid[known[-1]]) if len(known) else math.nan


def fit_segments(
    settings: Settings, tape: Tape, features: Features, segments: Sequence[Segment], progress: Progress = silent
) -> tuple[FittedSegment, ...]:
    """One set of fits per segment, made on data before it."""
    fitted = []
    for done, segment in enumerate(segments):
        progress("fits", done, len(segments))
        fits = fit_window(settings, tape, features, segment.train_from_ns, segment.train_through_ns)
        fitted.append(FittedSegment(segment, fits, price_at(features, segment.train_through_ns)))
    progress("fits", len(segments), len(segments))
    return tuple(fitted)


def write_fits(lake: Lake, instrument: InstrumentId, fits: FitSet, dataset_sha256: str) -> None:
    """Add the fits to the day they looked through."""
    names = ("name", "value", "unit", "stderr", "n", "method", "side", "gof", "accepted", "reason", "fitted_from_ns", "fitted_through_ns")
    rows = [{**{name: getattr(f, name) for name in names}, "dataset_sha256": dataset_sha256} for f in fits.fits]
    lake.upsert("fits", Partition(instrument.venue, instrument.symbol, utc_date(fits.fitted_through_ns)), table_of_rows(TABLES["fits"], rows))


def fit_day(settings: Settings, day: date) -> FitsDone:
    """Fit on the trailing window that ends with a day, write, and say."""
    instrument = InstrumentId.parse(settings.instrument)
    lake = Lake.open(settings.lake)
    tape, features = day_features(settings, lake, instrument, day)
    through = int(features.grid_ts[-1])
    start = max(int(features.grid_ts[0]), through - round(settings.calibration.train_window_s * NS_PER_S))
    fits = fit_window(settings, tape, features, start, through)
    write_fits(lake, instrument, fits, tape.sha256)
    return FitsDone(str(instrument), utc_date(fits.fitted_through_ns).isoformat(), fits.accepted, fits.fits)


def calibrate(settings: Settings, progress: Progress = silent) -> Calibrated:
    """Signals and fits of all days the sweep would use."""
    signals = build_signals(settings, None, progress)
    lake = Lake.open(settings.lake)
    instrument = InstrumentId.parse(settings.instrument)
    days = days_through(lake, instrument, None, settings.calibration.max_days)
    done = None
    for n, day in enumerate(days):
        progress("fits", n, len(days))
        done = fit_day(settings, day)
    progress("fits", len(days), len(days))
    assert done is not None
    return Calibrated(signals, done)
