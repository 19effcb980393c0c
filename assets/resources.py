"""What assets are given: the project's settings. One resource, replaced whole in tests."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from mm_platform.config import Settings, load_settings


class SettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Settings as `mm` reads them (mm.toml, MM_* environment), with overrides for lake and registry."""

    config_path: str | None = None
    lake: str | None = None
    registry_uri: str | None = None

    def load(self, instrument: str | None = None) -> Settings:
        """Settings for one instrument (default: the configured one)."""
        given: dict[str, object] = {}
        if self.lake is not None:
            given["lake"] = self.lake
        if self.registry_uri is not None:
            given["registry_uri"] = self.registry_uri
        if instrument is not None:
            given["instrument"] = instrument
        return load_settings(Path(self.config_path) if self.config_path else None, given)
