"""The conformance command: its client's clockwork on hand-made cases, its verdicts, its exit status."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mm_platform.core.errors import DataError
from mm_platform.replay.conformance import FILL_BOOKED_TWICE, MODIFY_KEEPS_QUANTITY, ExpectedFill, Scenario, judge, main, play, read_scenario


def row(kind: str, side: str | None, ms: float, px: float | None, qty: float, local: float | None = None, where: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "side": side, "exch_ms": ms, "local_ms": ms + 1.0 if local is None else local, "px": px, "qty": qty, "where": where}


BOOK = [row("depth", "buy", 0, 100.0, 5.0, 0), row("depth", "sell", 0, 100.1, 5.0, 0), row("depth", "buy", 0, 99.9, 6.0, 0)]


def submit(ms: float, order: int, side: str = "buy", px: float = 100.0, qty: float = 0.5, tif: str = "GTX", kind: str = "LIMIT") -> dict[str, Any]:
    return {"at_ms": ms, "op": "submit", "order_id": order, "side": side, "px": px, "qty": qty, "tif": tif, "type": kind}


def case(events: list[dict[str, Any]], schedule: list[dict[str, Any]], latency_ms: float = 0.0, **run: Any) -> Scenario:
    """A scenario with one run whose record is what ours gives, unless `run` says otherwise."""
    made = msgspec.convert(
        {
            "name": "made",
            "tick_size": 0.1,
            "lot_size": 0.001,
            "end_ms": 60,
            "events": BOOK + events + [row("depth", "buy", 60, 90.0, 1.0)],
            "schedule": schedule,
            "config": {"maker_fee": -0.0002, "taker_fee": 0.0005, "contract_size": 10.0, "inverse": False},
            "runs": [
                {
                    "queue_model": "RiskAdverse",
                    "exchange": "NoPartialFill",
                    "entry_latency_ms": latency_ms,
                    "resp_latency_ms": latency_ms,
                    "stable": True,
                    "fills": [],
                    **run,
                }
            ],
        },
        Scenario,
    )
    got = play(made, made.runs[0])
    if "fills" not in run:
        made.runs[0].fills = msgspec.convert(
            [
                {
                    "order_id": f.order_id,
                    "side": "buy" if f.side > 0 else "sell",
                    "status": f.status,
                    "price": f.price_ticks * 0.1,
                    "qty": f.lots * 0.001,
                    "leaves_after": f.leaves_lots * 0.001,
                    "maker": f.maker,
                    "exch_ts_ms": f.exch_ns / 1e6,
                    "local_seen_ms": f.seen_ns / 1e6,
                    "position_after": f.position,
                }
                for f in got.fills
            ],
            list[ExpectedFill],
        )
        made.runs[0].final = got.final
    return made


def seen(scenario: Scenario) -> list[tuple[Any, ...]]:
    return [(f.order_id, f.lots, f.exch_ns / 1e6, f.seen_ns / 1e6, f.position) for f in play(scenario, scenario.runs[0]).fills]


def test_an_order_that_arrives_with_a_print_is_not_filled_by_it() -> None:
    """Sent at 15, at the venue at 20, when 9.0 print; the next print fills it, and the client hears of it 5 ms later."""
    events = [row("trade", "sell", 20, 100.0, 9.0), row("trade", "sell", 30, 100.0, 5.5)]
    assert seen(case(events, [submit(15, 1)], 5.0)) == [(1, 500, 30.0, 35.0, 0.5)]


def test_a_cancel_that_arrives_with_a_print_loses_to_it() -> None:
    events = [row("trade", "sell", 20, 100.0, 9.0)]
    scenario = case(events, [submit(2, 1), {"at_ms": 15, "op": "cancel", "order_id": 1}], 5.0)
    assert seen(scenario) == [(1, 500, 20.0, 25.0, 0.5)]
    assert play(scenario, scenario.runs[0]).final["position"] == 0.5


def test_what_an_order_of_a_look_causes_is_seen_at_the_next() -> None:
    scenario = case([], [submit(5, 1, px=100.1, tif="GTC")])
    assert seen(scenario) == [(1, 500, 5.0, 5.1, 0.5)]
    final = play(scenario, scenario.runs[0]).final
    # 0.5 at 100.1, ten per contract, 5 basis points
    assert final["balance"] == pytest.approx(-500.5)
    assert final["fee"] == pytest.approx(0.25025)


def test_calls_return_the_references_codes() -> None:
    schedule = [
        submit(2, 1),
        submit(2.1, 1),  # known
        {"at_ms": 3, "op": "cancel", "order_id": 1},  # its order is still on the way
        {"at_ms": 20, "op": "cancel", "order_id": 7},  # unknown
        {"at_ms": 20, "op": "modify", "order_id": 1, "px": 99.9, "qty": 0.4},
        {"at_ms": 20.5, "op": "cancel", "order_id": 1},  # its modification is still on the way
        {"at_ms": 40, "op": "cancel", "order_id": 1},
    ]
    scenario = case([], schedule, 5.0)
    assert play(scenario, scenario.runs[0]).calls == [0, 10, 11, 12, 0, 11, 0]


def test_rows_of_one_clock_only() -> None:
    """The venue sees the depth row at 18 and moves us up; the client sees it after the print."""
    events = [
        row("depth", "buy", 18, 100.0, 2.0, 24, "exch"),
        row("trade", "sell", 20, 100.0, 2.0, 21),
        row("depth", "buy", 18, 100.0, 2.0, 24, "local"),
        row("trade", "sell", 30, 100.0, 0.5),
    ]
    assert seen(case(events, [submit(2, 1)])) == [(1, 500, 30.0, 30.0, 0.5)]


def test_verdicts() -> None:
    events = [row("trade", "sell", 20, 100.0, 9.0)]
    good = case(events, [submit(2, 1)])
    assert judge(good) == {"runs": 1, "equal": 1, "differing": [], "deviations": [], "skipped": []}
    good.runs[0].fills[0].exch_ts_ms = 21.0
    (differing,) = judge(good)["differing"]
    assert (differing["run"], differing["field"], differing["expected"], differing["got"]) == (0, "fills[0].exch_ts_ms", 21.0, 20.0)
    good.runs[0].fills.clear()
    (differing,) = judge(good)["differing"]
    assert (differing["field"], differing["expected"]) == ("fills[0]", None)


def test_a_defect_is_a_deviation_only_when_it_explains_everything() -> None:
    events = [row("trade", "sell", 20, 100.0, 9.0), row("trade", "sell", 40, 100.0, 20.0)]
    twice = case(events, [submit(2, 1), {"at_ms": 30, "op": "cancel", "order_id": 1}])
    assert twice.runs[0].final is not None
    twice.runs[0].final.update(position=1.0, balance=-1000.0, fee=-0.2, num_trades=2, trading_volume=1.0, trading_value=1000.0)
    line = judge(twice)
    assert (line["equal"], len(line["deviations"])) == (1, 1)
    assert line["deviations"][0]["reference_defects"] == [FILL_BOOKED_TWICE]
    twice.runs[0].final["position"] = 1.5
    assert len(judge(twice)["differing"]) == 1

    raised = case(events, [submit(2, 1), {"at_ms": 10, "op": "modify", "order_id": 1, "px": 100.0, "qty": 0.8}])
    assert raised.runs[0].fills[0].qty == pytest.approx(0.8)
    raised.runs[0].fills[0].qty = 0.5
    raised.runs[0].fills[0].position_after = 0.5
    raised.runs[0].final = None
    line = judge(raised)
    assert (line["equal"], line["deviations"][0]["reference_defects"], line["deviations"][0]["counted_as"]) == (
        0,
        [MODIFY_KEEPS_QUANTITY],
        "deviation",
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stable": False}, "differs between repetitions"),
        ({"queue_model": "L3FIFO"}, "single orders"),
        ({"queue_model": "Mine"}, "queue model Mine is not known"),
        ({"error": "InvalidOrderStatus"}, "aborted this run with InvalidOrderStatus"),
    ],
)
def test_what_cannot_be_compared_says_why(change: dict[str, Any], reason: str) -> None:
    scenario = case([], [submit(2, 1)])
    for name, value in change.items():
        setattr(scenario.runs[0], name, value)
    line = judge(scenario)
    assert line["equal"] == 0
    assert reason in line["skipped"][0]["reason"]


def test_orders_of_half_a_lot_are_not_ours_to_judge() -> None:
    line = judge(case([], [submit(2, 1, qty=0.1005)]))
    assert "no whole number of lots" in line["skipped"][0]["reason"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = case([row("trade", "sell", 20, 100.0, 9.0)], [submit(2, 1)])
    plain, zipped, bad = tmp_path / "a.json", tmp_path / "b.json.gz", tmp_path / "c.json"
    plain.write_bytes(msgspec.json.encode(good))
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert main([str(plain), str(zipped)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(line["file"]).name, line["runs"], line["equal"]) for line in lines] == [("a.json", 1, 1), ("b.json.gz", 1, 1)]
    good.runs[0].fills.clear()
    plain.write_bytes(msgspec.json.encode(good))
    assert main([str(zipped), str(plain)]) == 1
    bad.write_text("{}")
    assert main([str(bad), str(tmp_path / "none.json"), str(zipped)]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "not a golden case" in lines[-3]["error"]
    assert lines[-1]["equal"] == 1
    assert main([]) == 2
    with pytest.raises(DataError, match="expected a JSON object with events"):
        read_scenario(bad)
