"""What assets are given: the project's settings. One resource, replaced whole in tests."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from mm_platform.config import Settings, load_settings


class SettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Settings as `mm` reads them: `mm.toml` in the project's root, over it `MM_*` of the environment, over that what is given here."""

    config_path: str | None = Field(default=None, description="another mm.toml")
    lake: str | None = Field(default=None, description="folder of the lake")
    registry_uri: str | None = Field(default=None, description="MLflow: sqlite:///path or http(s)://host:port")
    raw_dir: str | None = Field(default=None, description="folder with the vendor files that market__tape decodes")

    def load(self, instrument: str | None = None) -> Settings:
        """Settings for one instrument (default: the configured one); `ConfigError` says what is wrong with them."""
        given = {"lake": self.lake, "registry_uri": self.registry_uri, "raw_dir": self.raw_dir, "instrument": instrument}
        return load_settings(Path(self.config_path) if self.config_path is not None else None, given)
