"""The page: loads nothing, sends nothing, escapes what it is given, and says what is missing."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from builders import decision_params, random_tape
from reports import empty_curve, report

from mm_platform.core.units import NS_PER_S
from mm_platform.kernels.accounting import Attribution
from mm_platform.replay.run import ScheduledParameters, replay
from mm_platform.replay.settings import ReplaySettings
from mm_platform.report import page
from mm_platform.report.data import CheckRow, Curve, ParameterRow
from mm_platform.tape.book_path import mid_path
from mm_platform.tape.features import compute_features

LOADING = {"src", "href", "srcset", "data", "poster", "action", "background"}


class Seen(HTMLParser):
    """Tags with their attributes, and the text a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def whole() -> Seen:
    return Seen(page.render(report()))


def test_nothing_is_loaded_from_elsewhere(whole: Seen) -> None:
    loads = [(tag, value) for tag, attributes in whole.tags for name, value in attributes.items() if name in LOADING]
    assert loads == [("link", "data:,")]
    assert not any(tag in ("iframe", "object", "embed", "img", "base") for tag, _ in whole.tags)


def test_the_policy_forbids_the_browser_every_connection(whole: Seen) -> None:
    policies = [a["content"] for tag, a in whole.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    rules = dict(part.strip().split(" ", 1) for part in str(policies[0]).split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "style-src", "script-src", "img-src"}
    assert not any("http" in rule or "*" in rule for rule in rules.values())


def test_no_figure_can_be_uploaded(whole: Seen) -> None:
    drawing = [s for s in whole.scripts if "Plotly.newPlot" in s and len(s) < 1_000_000]
    assert len(drawing) == 4
    assert all('"showSendToCloud": false' in s and '"sendChartToCloud"' in s for s in drawing)


def test_the_library_travels_once(whole: Seen) -> None:
    assert sum(len(s) > 1_000_000 for s in whole.scripts) == 1


def test_the_reader_finds_the_verdict_first_and_then_why(whole: Seen) -> None:
    order = [
        "insufficient evidence",
        "maker fills",
        "may be luck",
        "enough",
        "Equity, inventory and mid",
        "Where the profit came from",
        "Parameters",
        "Notes",
    ]
    at = [whole.words.index(text) for text in order]
    assert at == sorted(at)
    assert "1,234,567" in whole.words


def test_text_is_escaped_everywhere() -> None:
    bad = "<script>alert(1)</script>"
    text = page.render(
        report(
            title=bad,
            instrument=bad,
            verdict=bad,
            facts=((bad, bad),),
            parameters=(ParameterRow(bad, bad, bad, bad, bad),),
            checks=(CheckRow(bad, bad, bad, bad, bad),),
            quality=((bad, bad),),
            quality_header=(bad, bad),
            notes=(bad,),
        )
    )
    seen = Seen(text)
    assert bad not in text
    assert not any("alert(1)" in s for s in seen.scripts)
    # title (head and page), instrument, verdict, 2 facts, 5 parameter cells, 5 of the check, 2 heads, 2 cells, note
    assert seen.words.count(bad) == 21


def test_nothing_replayed_is_said_in_words_and_not_drawn() -> None:
    text = page.render(report(curve=empty_curve(), attribution=Attribution(0.0, 0.0, 0.0, 0.0, 0.0, 0), markouts_bps={}, sweep=None))
    seen = Seen(text)
    assert "Nothing was replayed" in seen.words
    assert "Where the profit came from" not in seen.words
    assert "Plotly.newPlot" not in text
    assert len(text) < 20_000
    unknown = dataclasses.replace(report().curve, pnl_quote=np.full(300, np.nan))
    assert "Nothing was replayed" in page.render(report(curve=unknown, sweep=None))


def test_a_sweep_without_a_curve_is_still_drawn_with_its_library() -> None:
    seen = Seen(page.render(report(curve=empty_curve())))
    assert "Nothing was replayed" in seen.words
    assert sum("Plotly.newPlot" in s and len(s) < 1_000_000 for s in seen.scripts) == 1
    assert sum(len(s) > 1_000_000 for s in seen.scripts) == 1


def test_parts_that_are_missing_leave_no_empty_section() -> None:
    words = Seen(page.render(report(checks=(), parameters=(), quality=(), notes=(), sweep=None))).words
    assert not any(title in words for title in ("Gate", "Parameters", "Data", "Notes", "Sweep"))


def test_a_small_replay_becomes_a_page() -> None:
    tape = random_tape(5_000, 5)
    features = compute_features(tape, NS_PER_S)
    result = replay(tape, features, [ScheduledParameters(int(features.grid_ts[0]), decision_params())], ReplaySettings(sample_every=1))
    assert result.maker_fills > 0
    curve = Curve(
        result.sample_ts,
        result.sample_equity_quote,
        result.sample_position_lots * tape.spec.lot_base,
        0.5 * result.sample_mid_half_ticks * float(tape.spec.tick),
    )
    drawn = report(curve=curve, attribution=result.attribution, markouts_bps=result.mean_maker_markouts_bps(mid_path(tape)), sweep=None)
    seen = Seen(page.render(drawn))
    assert sum("Plotly.newPlot" in s and len(s) < 1_000_000 for s in seen.scripts) == 3


def test_write_replaces_the_page_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "report.html"
    assert page.write(report(title="first", curve=empty_curve(), sweep=None), place) == place
    page.write(report(title="second", curve=empty_curve(), sweep=None), place)
    assert "second" in place.read_text(encoding="utf-8")
    assert [p.name for p in place.parent.iterdir()] == ["report.html"]
