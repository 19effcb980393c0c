"""The venue's kernels under the reference rule against the field's reference engine, fill by fill (../shared/golden).

Every stable run of a book of levels is equal, under all queue models, exchange models and latencies, but for the reference's documented defects;
for those it is shown what the reference did, that the defect explains it, and what ours does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mm_platform.replay.conformance import (
    CLEAR_ONE_TOO_FAR,
    FILL_BOOKED_TWICE,
    LAST_CHUNK_ONLY,
    MODIFY_KEEPS_QUANTITY,
    judge,
    play,
    read_scenario,
)

# what the reference does wrong, by scenario; None: nothing
DEFECTS = {"08": MODIFY_KEEPS_QUANTITY, "21": FILL_BOOKED_TWICE, "26": CLEAR_ONE_TOO_FAR, "27": FILL_BOOKED_TWICE, "28": FILL_BOOKED_TWICE}


def files(shared: Path) -> list[Path]:
    return sorted((shared / "golden").glob("[0-9][0-9]_*.json*"))


def scenario_file(shared: Path, number: str) -> Path:
    return next(f for f in files(shared) if f.name.startswith(number))


def test_every_stable_run_of_a_book_of_levels_is_equal_or_a_known_defect(shared: Path) -> None:
    judged: dict[str, dict[str, Any]] = {f.name[:2]: judge(read_scenario(f)) for f in files(shared)}
    assert len(judged) >= 25
    for number, line in judged.items():
        assert line["differing"] == [], number
        # single-order books are compared elsewhere; runs that the reference aborts or does not repeat cannot be
        assert line["runs"] == line["equal"] + len(line["skipped"]) + sum(d["counted_as"] == "deviation" for d in line["deviations"]), number
        if number not in DEFECTS:
            assert line["deviations"] == [], number
        for deviation in line["deviations"]:
            assert deviation["reference_defects"] == [DEFECTS[number]], number
        whole = [s for s in line["skipped"] if s["exchange"] == "NoPartialFill" and s["queue_model"] != "L3FIFO"]
        assert whole == [], number
    assert sum(line["equal"] for line in judged.values()) >= 470


def test_a_modified_order_executes_its_new_quantity(shared: Path) -> None:
    """Scenario 08, order 2: raised from 0.5 to 0.8. The reference executes 0.5 of it."""
    scenario = read_scenario(scenario_file(shared, "08"))
    for run in scenario.runs:
        theirs = {f.order_id: f.qty for f in run.fills}
        ours = {f.order_id: f.lots for f in play(scenario, run).fills}
        assert theirs[2] == 0.5
        assert ours == {1: 300, 2: 800, 3: 500, 4: 500}


def test_a_cancel_that_comes_too_late_books_nothing(shared: Path) -> None:
    """Scenario 21: the reference's client ends with 1.0 after one fill of 0.5."""
    scenario = read_scenario(scenario_file(shared, "21"))
    for run in scenario.runs:
        assert run.final is not None
        assert run.final["position"] == 1.0
        assert play(scenario, run).final["position"] == 0.5


def test_a_clear_down_to_a_price_leaves_the_next_level_as_the_best(shared: Path) -> None:
    """Scenario 26: asks cleared up to 1002 leave 1003; the reference finds 1004."""
    scenario = read_scenario(scenario_file(shared, "26"))
    for run in scenario.runs:
        assert run.final is not None
        assert run.final["best_ask_tick"] == 1004
        final = play(scenario, run).final
        assert (final["best_bid_tick"], final["best_ask_tick"]) == (998, 1003)


@pytest.mark.parametrize(("number", "position"), [("01", 0.5), ("09", 20.0), ("11", 0.1)])
def test_partial_executions_reach_the_account(shared: Path, number: str, position: float) -> None:
    """The reference's client learns of the last chunk only: 0.2, 3.5 and nothing."""
    scenario = read_scenario(scenario_file(shared, number))
    runs = [run for run in scenario.runs if run.exchange == "PartialFill" and run.stable]
    assert len(runs) >= 12
    for run in runs:
        assert run.final is not None
        right = play(scenario, run).final["position"]
        assert right == pytest.approx(position)
        assert play(scenario, run, [LAST_CHUNK_ONLY]).final["position"] == pytest.approx(run.final["position"])
        assert run.final["position"] != pytest.approx(position)
