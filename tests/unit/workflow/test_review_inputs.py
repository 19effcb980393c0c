"""What is judged is what will run: the same signals, the same patience with silence; and what changes a result changes its id."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from builders import SPEC, TapeBuilder, decision_params, random_tape

from mm_platform.config import Settings
from mm_platform.core.units import NS_PER_S
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.tape.features import Features, compute_features
from mm_platform.tape.layout import LAST, Kind, Tape
from mm_platform.workflow import inputs
from mm_platform.workflow.inputs import load_inputs, without_stale
from mm_platform.workflow.points import Point, point_id, replay_settings


def gap(silent_s: int = 60) -> Tape:
    """Twenty seconds of market, silence, a new snapshot 2 % lower."""
    build = TapeBuilder().book(10_000, 10_002)
    for s in range(1, 20):
        build.at(s).level(1, 9_996, 14 + s % 2)
    build.at(20 + silent_s).row(Kind.CLEAR, 0, 0, 0, 0)
    for d in range(5):
        build.row(Kind.SNAPSHOT, 1, 0, 9_800 - d, 10)
    for d in range(5):
        build.row(Kind.SNAPSHOT, -1, LAST if d == 4 else 0, 9_802 + d, 10)
    for s in range(1, 20):
        build.at(20 + silent_s + s).level(1, 9_796, 14 + s % 2)
    return build.tape()


def loaded(monkeypatch: pytest.MonkeyPatch, tape: Tape, settings: Settings) -> Features:
    monkeypatch.setattr(inputs, "days_through", lambda *_: (date(2023, 11, 14),))
    monkeypatch.setattr(inputs, "load_tape", lambda *_: tape)
    monkeypatch.setattr(inputs, "manifest", lambda *_: None)
    return load_inputs(settings).features


def test_calibration_sees_the_signals_that_the_settings_ask_for(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    tape = random_tape(12_000, 3)
    base = Settings(lake=tmp_path)  # type: ignore[arg-type]
    slow = base.model_copy(update={"signals": base.signals.model_copy(update={"ofi_half_life_s": 500.0, "vol_tau_s": 9.0})})
    one, two = loaded(monkeypatch, tape, base), loaded(monkeypatch, tape, slow)
    assert not np.array_equal(one.order_flow_imbalance, two.order_flow_imbalance, equal_nan=True)
    assert not np.array_equal(one.short_volatility, two.short_volatility, equal_nan=True)


def test_silence_beyond_the_runners_patience_is_no_market(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    tape = gap(240)
    base = Settings(lake=tmp_path)  # type: ignore[arg-type]
    features = loaded(monkeypatch, tape, base)
    last_seen = int(tape.local_ts[tape.exch_ts < tape.exch_ts[-1] - 100 * NS_PER_S].max())
    silent = (features.grid_ts > last_seen + 10 * NS_PER_S) & (features.grid_ts < last_seen + 241 * NS_PER_S)
    assert silent.sum() > 200
    assert not features.valid[silent].any()
    assert features.valid[~silent].all()
    patient = base.model_copy(update={"risk": base.risk.model_copy(update={"max_book_age_s": None})})
    assert loaded(monkeypatch, tape, patient).valid.all()


def test_no_quote_stands_through_a_hole_in_the_recording() -> None:
    """The snapshot after the hole runs through where the bid stood; the runner had pulled it long before."""
    tape = gap()
    naive = compute_features(tape, NS_PER_S)
    start = int(naive.grid_ts[0])
    fills = [
        len(replay(tape, features, [ScheduledParameters(start, decision_params(k=30_000.0))], ReplaySettings()).fills)
        for features in (naive, without_stale(tape, naive, 10.0))
    ]
    assert fills[0] > 0
    assert fills[1] == 0


@pytest.mark.parametrize("change", ["maker_fee", "taker_fee", "signals", "risk", "block_s", "capital_quote", "latency"])
def test_what_changes_a_result_changes_its_id(change: str) -> None:
    settings, spec = Settings(), SPEC
    refused = SimpleNamespace(usable=False, segment=SimpleNamespace(judge_from_ns=1, judge_until_ns=2))

    def name(s: Settings, i: object) -> str:
        return point_id(s, i, [refused], Point(0.1, None), "data", replay_settings(s))  # type: ignore[arg-type, list-item]

    before = name(settings, spec)
    if change.endswith("_fee"):
        after = name(settings, msgspec.structs.replace(spec, **{change: 0.00033}))
    else:
        section, update = {
            "signals": ("signals", {"ofi_half_life_s": 7.0}),
            "risk": ("risk", {"toxicity_pull": 0.77}),
            "block_s": ("gate", {"block_s": 1800.0}),
            "capital_quote": ("gate", {"capital_quote": 5_000.0}),
            "latency": ("latency", {"entry_ms": 33.0}),
        }[change]
        after = name(settings.model_copy(update={section: getattr(settings, section).model_copy(update=update)}), spec)
    assert before == name(settings, spec)
    assert before != after
