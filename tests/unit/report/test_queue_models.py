"""The picture of the queue models: the simulated level is what it says, and the models lie where the page puts them."""

from __future__ import annotations

import numpy as np
import pytest

from mm_platform.report.queue_models import SHOWN, filled_at, main, modelled_front, simulate_level

LEVELS = [simulate_level(seed, events=800) for seed in range(60)]


def test_a_level_shrinks_by_cancels_and_prints_only() -> None:
    for level in LEVELS:
        assert level.before[1:] == pytest.approx(level.after[:-1])
        change = level.after - level.before
        # a print takes what it prints, or all that is there
        prints = level.printed > 0.0
        assert change[prints] == pytest.approx(-np.minimum(level.printed, level.before)[prints])
        # ours is no part of the level; what is ahead never grows, and is never more than the level
        assert (np.diff(level.true_front) <= 1e-9).all()
        assert (level.true_front <= level.after + 1e-9).all()


def test_risk_adverse_is_never_sooner_than_the_truth() -> None:
    for level in LEVELS:
        model = modelled_front(level, "risk_adverse", 0.0)
        assert filled_at(model, level.printed) >= filled_at(level.true_front, level.printed)
        assert (model[: filled_at(level.true_front, level.printed)] >= level.true_front[: filled_at(level.true_front, level.printed)] - 1e-9).all()


def sooner_frac(model: str, power: float) -> float:
    found = [filled_at(modelled_front(level, model, power), level.printed) < filled_at(level.true_front, level.printed) for level in LEVELS]
    return float(np.mean(found))


def test_models_lie_where_the_page_puts_them() -> None:
    assert sooner_frac("power_prob2", 3.0) > 0.6
    assert sooner_frac("power_prob3", 3.0) < 0.2
    assert sooner_frac("log_prob2", 0.0) < 0.3


def test_the_picture_is_written(tmp_path) -> None:
    out = tmp_path / "new" / "queues.svg"
    main(["--out", str(out), "--queues", "5"])
    text = out.read_text(encoding="utf-8")
    assert text.count("<path") > 50
    assert len(SHOWN) == 6


def test_a_file_must_be_named() -> None:
    with pytest.raises(SystemExit):
        main([])
