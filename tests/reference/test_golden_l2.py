"""The exchange step in REFERENCE rule against the field's reference engine, fill by fill (../shared/golden).

In scope here: L2 scenarios without order modification, whole fills ("NoPartialFill") under every queue model and latency. Left to the
replay issue: modify, L3, partial fills (the reference's local side loses them), half-lot quantities and sided clears.
"""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_platform.kernels.accounting import Money, new_ledger
from mm_platform.kernels.book import new_book
from mm_platform.kernels.exchange import FOK, GTC, GTX, IOC, QUEUE_MODELS, REFERENCE, ExchangeParams, new_executions, new_own_orders
from mm_platform.kernels.venue import REQUEST_CANCEL, REQUEST_PLACE, VENUE_I_SIZE, VenueState, venue_after_row, venue_on_request, venue_on_row
from mm_platform.tape.layout import LAST, Kind

SCENARIOS = [
    "01_touch_fill",
    "02_trade_through",
    "03_queue_advance_by_trades",
    "04_queue_advance_by_cancels",
    "05_trade_then_depth_vs_depth_then_trade",
    "06_post_only_reject",
    "07_cancel_races_fill",
    "10_crossing_limits",
    "11_level_deleted_and_recreated",
    "12_inside_spread",
    "14_crossed_by_depth",
    "17_partial_exact_fill",
    "19_power_over_advance",
    "22_split_exch_local_flags",
    "23_fees_linear",
    "24_fees_inverse",
    "27_session_seed11",
    "28_session_seed12",
]
MODELS = {
    "RiskAdverse": "risk_adverse",
    "LogProb": "log_prob",
    "LogProb2": "log_prob2",
    "PowerProb": "power_prob",
    "PowerProb2": "power_prob2",
    "PowerProb3": "power_prob3",
}
TIFS = {"GTC": GTC, "GTX": GTX, "IOC": IOC, "FOK": FOK}
KINDS = {"depth": Kind.DEPTH, "snapshot": Kind.SNAPSHOT, "trade": Kind.TRADE, "clear": Kind.CLEAR}
SIDES = {"buy": 1, "sell": -1, None: 0}


def load(shared: Path, name: str) -> dict[str, Any]:
    path = shared / "golden" / f"{name}.json"
    raw = path.read_bytes() if path.exists() else gzip.decompress(path.with_suffix(".json.gz").read_bytes())
    return json.loads(raw)


def us(ms: float) -> int:
    return round(ms * 1000)


def steps(value: float, step: float) -> int:
    return int(Decimal(str(value)) / Decimal(str(step)))


def play(scenario: dict[str, Any], run: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Executions at the venue: (order id, side, price ticks, lots, leaves, maker, time in us)."""
    tick, lot = scenario["tick_size"], scenario["lot_size"]
    model, _, exponent = run["queue_model"].partition("(n=")
    x = ExchangeParams(REFERENCE, QUEUE_MODELS[MODELS[model]], float(exponent.rstrip(")") or 0.0), 0, lot)
    money = Money(lot, tick, 0.0, 0.0)
    venue = VenueState(new_book(256), new_own_orders(), new_executions(), np.zeros(VENUE_I_SIZE, dtype=np.int64), new_ledger())
    timeline: list[tuple[int, int, int, Any]] = []
    for n, event in enumerate(scenario["events"]):
        if event.get("where") != "local":
            timeline.append((us(event["exch_ms"]), 0, n, event))
    sent = {(c["at_ms"], c["op"], c["order_id"]) for c in run["calls"] if c["rc"] == "OK"}
    last = 0
    for n, action in enumerate(sorted(scenario["schedule"], key=lambda a: a["at_ms"])):
        if (action["at_ms"], action["op"], action["order_id"]) in sent:
            last = max(us(action["at_ms"] + run["entry_latency_ms"]), last)
            timeline.append((last, 1, n, action))
    out: list[tuple[Any, ...]] = []

    def collect(at: int) -> None:
        e = venue.executions
        out.extend(
            (int(e.id[k]), int(e.side[k]), int(e.price_ticks[k]), int(e.lots[k]), int(e.leaves_lots[k]), bool(e.maker[k]), at)
            for k in range(int(e.n[0]))
        )

    for at, what, _, item in sorted(timeline, key=lambda entry: entry[:3]):
        if what == 0:
            kind = int(KINDS[item["kind"]])
            assert venue_on_row(x, money, venue, kind, SIDES[item["side"]], LAST, steps(item["px"], tick), steps(item["qty"], lot), -1, 0.0, 0.0) == 0
            collect(at)
            venue_after_row(venue, kind, LAST)
        elif item["op"] == "submit":
            price = steps(item["px"], tick)
            venue_on_request(x, venue, REQUEST_PLACE, item["order_id"], SIDES[item["side"]], price, steps(item["qty"], lot), TIFS[item["tif"]])
            collect(at)
        else:
            assert item["op"] == "cancel"
            venue_on_request(x, venue, REQUEST_CANCEL, item["order_id"], 0, 0, 0, 0)
    return out


@pytest.mark.parametrize("name", SCENARIOS)
def test_fills_equal_the_reference(shared: Path, name: str) -> None:
    scenario = load(shared, name)
    tick, lot = scenario["tick_size"], scenario["lot_size"]
    compared = 0
    for run in scenario["runs"]:
        if run["exchange"] != "NoPartialFill" or not run["stable"] or run["error"] is not None:
            continue
        expected = [
            (
                f["order_id"],
                SIDES[f["side"]],
                steps(f["price"], tick),
                steps(f["leaves_after"], lot),
                f["maker"],
                us(f["exch_ts_ms"]),
            )
            for f in run["fills"]
        ]
        got = [(i, side, price, leaves, maker, at) for i, side, price, _, leaves, maker, at in play(scenario, run)]
        # several own orders hit by one event come in random order in the reference
        assert sorted(got, key=lambda f: (f[5], f[0])) == sorted(expected, key=lambda f: (f[5], f[0])), (
            name,
            run["queue_model"],
            run["entry_latency_ms"],
        )
        compared += 1
    assert compared >= 6
