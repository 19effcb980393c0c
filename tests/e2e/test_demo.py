"""The demo closes the loop, and what it leaves answers an analyst's questions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pytest
from e2e_mm import run_mm

from mm_platform.config import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

README = Path(__file__).resolve().parents[2] / "README.md"
QUERIES = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_demo_says_what_came_out_and_nothing_else(demo) -> None:  # type: ignore[no-untyped-def]
    answer = demo.answer
    for key in ("tape_rows", "sweep_points", "parameters", "model_version", "alias", "live_fills", "report"):
        assert key in answer
    assert demo.stdout.count("\n") == 1
    assert answer["tape_rows"] > 1_000_000
    assert answer["sweep_points"] == 48
    assert answer["alias"] == "champion"
    assert answer["live_fills"] > 0
    assert Path(answer["report"]).stat().st_size > 100_000
    fitted = {p["name"]: p for p in answer["parameters"] if p["source"] == "fit"}
    assert set(fitted) == {"sigma", "A_bid", "A_ask", "k_bid", "k_ask"}
    assert all(p["stderr"] > 0 and p["unit"] for p in fitted.values())


def test_five_questions_of_the_readme_are_answered(demo) -> None:  # type: ignore[no-untyped-def]
    assert len(QUERIES) == 5
    for sql in QUERIES:
        answer = json.loads(run_mm(demo.home, "query", sql, "--json").stdout)
        assert answer["rows"], sql


def test_every_view_answers_and_those_the_loop_fills_have_rows(demo) -> None:  # type: ignore[no-untyped-def]
    views = [
        "trades",
        "book_top",
        "signals",
        "data_quality",
        "fits",
        "sweep_points",
        "backtests",
        "fills",
        "funding_rates",
        "opportunities",
        "parameter_sets",
        "live_fills",
    ]
    empty = []
    for view in views:
        count = json.loads(run_mm(demo.home, "query", f"select count(*) as n from {view}", "--json").stdout)["rows"][0][0]
        if count == 0:
            empty.append(view)
    assert set(empty) <= {"funding_rates", "opportunities"}


def test_analysts_open_the_catalog_read_only(demo) -> None:  # type: ignore[no-untyped-def]
    with duckdb.connect(demo.answer["catalog"], read_only=True) as con:
        rows = con.sql("select alias, verdict from parameter_sets where version = ?", params=[demo.answer["model_version"]]).fetchall()
    assert rows == [("champion", "pass")]


def test_sweep_rows_sum_and_keep_their_clamps(demo) -> None:  # type: ignore[no-untyped-def]
    sql = (
        "select max(abs(total_pnl - (spread_pnl + hedge_pnl + inventory_pnl - fees + funding))), count(*), count(distinct point_id) from sweep_points"
    )
    off, rows, points = json.loads(run_mm(demo.home, "query", sql, "--json").stdout)["rows"][0]
    assert off < 1e-9
    assert (rows, points) == (96, 96)
    never = json.loads(run_mm(demo.home, "query", "select count(*) from sweep_points where hedge_threshold_units is null", "--json").stdout)["rows"][
        0
    ][0]
    assert never == 16


def test_a_second_demo_computes_no_point_again_and_keeps_the_version(demo) -> None:  # type: ignore[no-untyped-def]
    again = json.loads(run_mm(demo.home, "sweep", "--json").stdout)
    assert again["computed"] == 0
    published = json.loads(run_mm(demo.home, "publish", "--json").stdout)
    assert published["version"] == demo.answer["model_version"]


def test_verbs_refuse_with_two_and_say_what_to_do(demo) -> None:  # type: ignore[no-untyped-def]
    for arguments, words in (
        (("backtest", "--instrument", "binanceusdm:BTC-USDT-PERP"), "mm ingest"),
        (("calibrate", "--instrument", "nonsense"), "instrument"),
        (("ingest", "nowhere.gz"), "no such file"),
        (("ingest",), "nothing to ingest"),
        (("query", "drop table tape"), "SELECT"),
        (("query", "select nothing from nowhere"), "nowhere"),
        (("backtest", "--risk-aversion", "-1"), "positive"),
        (("live", "--mode", "live"), "sim"),
        (("promote", "--reason", "x", "--version", "99"), "99"),
        (("live", "--instrument", "sim:BTC-USDT"), "mm publish"),
        (("live", "--instrument", "binanceusdm:BTC-USDT-PERP"), "not in the simulated market"),
    ):
        done = run_mm(demo.home, *arguments, check=False)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert words in done.stderr, (arguments, done.stderr)
        as_json = run_mm(demo.home, *arguments, "--json", check=False)
        assert as_json.returncode == 2
        assert set(json.loads(as_json.stdout)) == {"error"}


def test_settings_are_where_the_demo_put_them(demo) -> None:  # type: ignore[no-untyped-def]
    settings = load_settings(None, {}, cwd=demo.home, environ={})
    assert Path(demo.answer["lake"]) == settings.lake
    key = settings.state_dir / "keys" / "signing.key"
    assert key.stat().st_mode & 0o777 == 0o600
