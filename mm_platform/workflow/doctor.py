"""`mm doctor`: look at the installation and say what is wrong and what to do. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mm_platform.config import Section, Settings, settings_file
from mm_platform.core.errors import ConfigError, ConnectivityError, RegistryError
from mm_platform.core.instrument import InstrumentId

BASE: Final = ("ccxt", "cryptography", "msgspec", "numpy", "pyarrow", "pydantic", "structlog", "typer")
RESEARCH: Final = ("dagster", "duckdb", "matplotlib", "mlflow", "numba", "pandas", "plotly", "scipy")
_ENOUGH_DISK_BYTES: Final = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `state` is ok, note (works, but) or wrong."""

    name: str
    state: str
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings; healthy when none is wrong."""

    findings: tuple[Finding, ...]
    healthy: bool

    def text(self) -> str:
        lines = [f"{f.state:5s}  {f.name}: {f.seen}" + (f"\n       -> {f.advice}" if f.advice else "") for f in self.findings]
        lines.append("healthy" if self.healthy else "something is wrong; see the lines above")
        return "\n".join(lines)


def examine(settings: Settings, config_path: Path | None = None) -> Diagnosis:
    """Look at everything once. `config_path`: the settings file that was named, None for the one that is found."""
    findings = [
        _python(),
        *_packages(),
        _settings(settings, config_path),
        _lake(settings),
        _disk(settings),
        _registry(settings),
        _keys(settings),
        _dagster(settings),
    ]
    return Diagnosis(tuple(findings), all(f.state != "wrong" for f in findings))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Finding("python", "ok" if good else "wrong", version, "" if good else "install Python 3.11 or newer")


def _packages() -> list[Finding]:
    findings = []
    for extra, names in (("base", BASE), ("research", RESEARCH)):
        missing = []
        for name in names:
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                missing.append(name)
        if not missing:
            findings.append(Finding(f"packages ({extra})", "ok", f"{len(names)} found"))
        elif extra == "base":
            findings.append(Finding("packages (base)", "wrong", f"missing: {', '.join(missing)}", "pip install -c constraints.txt -e ."))
        else:
            findings.append(
                Finding(
                    "packages (research)",
                    "note",
                    f"missing: {', '.join(missing)}",
                    "the live runner works without; for research: pip install -e '.[research]'",
                )
            )
    return findings


def _settings(settings: Settings, config_path: Path | None) -> Finding:
    """Which file was read, and every value that is not the default."""
    file = settings_file(config_path, os.environ, Path.cwd())
    given = [
        f"{where}{name} = {getattr(section, name)!r}"
        for where, section in _sections(settings)
        for name, info in type(section).model_fields.items()
        # where things lie is said by the findings about them
        if not isinstance(getattr(section, name), Section | Path) and name not in ("registry_uri", "instruments")
        if getattr(section, name) != info.default
    ]
    if settings.instruments:
        given.append(f"instruments: facts of {', '.join(sorted({s.instrument for s in settings.instruments}))}")
    read = f"from {file}" if file is not None else f"no mm.toml in {Path.cwd()}"
    return Finding("settings", "ok", f"{read}; {'; '.join(given) or 'all defaults'}")


def _sections(settings: Settings) -> Iterator[tuple[str, Section]]:
    """The settings and every table in them, each with the start of its keys."""
    yield "", settings
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Section):
            yield f"{name}.", value


def _lake(settings: Settings) -> Finding:
    root = settings.lake
    if not root.exists():
        return Finding("lake", "note", f"{root} is not there yet", "mm demo, or mm ingest FILES")
    from mm_platform.lake.store import Lake

    lake = Lake.open(root)
    days = lake.partitions("data_quality")
    return Finding("lake", "ok", f"{root}: {len(days)} instrument-days")


def _disk(settings: Settings) -> Finding:
    place = settings.state_dir if settings.state_dir.exists() else settings.state_dir.absolute().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    good = free >= _ENOUGH_DISK_BYTES
    return Finding(
        "disk", "ok" if good else "note", f"{free / 1024**3:.1f} GiB free", "" if good else "a day of BTC ticks takes about 0.3 GiB; make room"
    )


def _registry(settings: Settings) -> Finding:
    from mm_platform.registry.source import open_source

    model = InstrumentId.parse(settings.instrument).model_name
    try:
        published = open_source(settings.registry_uri).fetch(model, "champion")
    except RegistryError as err:
        return Finding("registry", "note", str(err), "mm demo, or mm sweep, mm publish and mm promote")
    except (ConnectivityError, ConfigError) as err:
        server = settings.registry_uri.startswith("http")
        return Finding(
            "registry", "wrong" if server else "note", str(err), "start the MLflow server" if server else "it is made by the first mm publish"
        )
    return Finding("registry", "ok", f"champion of {settings.instrument} is version {published.version}")


def _keys(settings: Settings) -> Finding:
    folder = settings.state_dir / "keys"
    if not folder.exists():
        return Finding("signing key", "note", "not made yet", "it is made by the first mm promote")
    loose = [path.name for path in folder.iterdir() if path.suffix == ".key" and stat.S_IMODE(path.stat().st_mode) & 0o077]
    if loose:
        return Finding(
            "signing key", "wrong", f"readable by others: {', '.join(loose)}", f"chmod 600 {folder}/*.key; consider the key known and make another"
        )
    return Finding("signing key", "ok", str(folder))


def _dagster(settings: Settings) -> Finding:
    there = Path("dagster.yaml").exists() and Path("workspace.yaml").exists()
    return Finding(
        "dagster",
        "ok" if there else "note",
        "dagster.yaml and workspace.yaml found" if there else "not in this folder",
        "" if there else "run make ui in the project's root",
    )
