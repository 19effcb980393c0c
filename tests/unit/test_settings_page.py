"""The settings page is what the code would write."""

from __future__ import annotations

from pathlib import Path

from mm_platform.config import settings_markdown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_the_page_is_made_from_the_settings() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_markdown(), "write it anew: python -m mm_platform.config > docs/settings.md"
