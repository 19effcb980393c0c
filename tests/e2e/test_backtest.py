"""`mm backtest` leaves its run in the lake, and the tables agree with each other and with what was printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2e_mm import run_mm

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]


def rows(demo, sql: str) -> list[list[Any]]:  # type: ignore[no-untyped-def]
    found: list[list[Any]] = json.loads(run_mm(demo.home, "query", sql, "--json").stdout)["rows"]
    return found


def test_a_backtest_is_a_run_in_the_lake(demo) -> None:  # type: ignore[no-untyped-def]
    answer = json.loads(run_mm(demo.home, "backtest", "--risk-aversion", "0.1", "--json").stdout)
    run = answer["run_id"]
    told = rows(
        demo,
        f"select total_pnl, spread_pnl + hedge_pnl + inventory_pnl - fees + funding, maker_fills + taker_fills, filled_lots, final_inventory, assumptions_json "
        f"from replay_runs where run_id = '{run}'",
    )
    assert len(told) == 1
    total, parts, fills, lots, inventory, assumptions = told[0]
    assert total == pytest.approx(answer["total_pnl"])
    assert total == pytest.approx(parts, abs=1e-6)
    counted, summed, position = rows(demo, f"select count(*), sum(qty_lots), sum(side * qty_lots) from replay_fills where run_id = '{run}'")[0]
    assert counted == fills == answer["maker_fills"] + answer["taker_fills"] > 0
    assert summed == lots
    assert position * 0.001 == pytest.approx(inventory, abs=1e-9)
    (equity,) = rows(demo, f"select arg_max(equity, ts_ns) from replay_equity where run_id = '{run}'")[0]
    assert equity == pytest.approx(total, abs=1e-6)
    assert json.loads(assumptions)["venues"][0]["mode"] == "conservative"
    assert any("not modelled" in line for line in answer["assumptions"])
    # the same question again is the same run: it replaces its rows
    again = json.loads(run_mm(demo.home, "backtest", "--risk-aversion", "0.1", "--json").stdout)
    assert again == answer
    assert rows(demo, f"select count(*) from replay_runs where run_id = '{run}'") == [[1]]
