"""The `mm` command: the composition root. Each verb reads settings, calls one workflow function and shows its result.

Belongs here: arguments, output, exit codes. Does not belong here: any step's logic (`workflow`). Heavy packages are imported inside the verbs,
so that `mm --help` answers at once.

Exit codes: 0 done; 1 the work failed or the gate refused; 2 bad arguments, bad input, nothing there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from mm_platform.core.errors import ConfigError, DataError, MMError, RegistryError

if TYPE_CHECKING:
    from mm_platform.config import Settings
    from mm_platform.workflow.progress import Progress

app = typer.Typer(
    name="mm",
    help="Market making: market data in, calibrated parameters out, a runner quoting with them.\n\n"
    "The loop: ingest, calibrate, sweep, publish, promote, live; demo does all of it on a simulated market. "
    "Settings: flag, MM_* environment, mm.toml, default. Exit codes: 0 done, 1 failed or refused by the gate, 2 wrong input.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
InstrumentOption = Annotated[
    str | None, typer.Option("--instrument", "-i", help="Instrument id, e.g. binanceusdm:BTC-USDT-PERP. Default: from the settings.")
]
# understood before the verb and after it; what stands after it wins
LakeOption = Annotated[Path | None, typer.Option("--lake", help="Folder of the lake. Default: from the settings.")]
RegistryOption = Annotated[str | None, typer.Option("--registry", help="MLflow: sqlite:///path/to/mlflow.db or http://host:port.")]

_WRONG_INPUT = (ConfigError, DataError, RegistryError)


@dataclasses.dataclass(slots=True)
class Context:
    """What the options before the verb said; a verb's own options go over them."""

    config: Path | None
    lake: Path | None
    registry: str | None

    def settings(self, **overrides: object) -> Settings:
        from mm_platform.config import load_settings

        before = {"lake": self.lake, "registry_uri": self.registry}
        given = {name: value for name, value in [*before.items(), *overrides.items()] if value is not None}
        return load_settings(self.config, given)


@app.callback()
def main_options(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file; default mm.toml in this folder if it is there.")] = None,
    lake: LakeOption = None,
    registry: RegistryOption = None,
) -> None:
    ctx.obj = Context(config, lake, registry)


def plain(value: Any) -> Any:
    """A result as JSON-ready data: dataclasses to objects, dates to text, nan and infinities to null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (date, datetime, Path)):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value


def emit(result: Any, as_json: bool, text: str) -> None:
    """The verb's one answer on stdout."""
    typer.echo(json.dumps(plain(result), allow_nan=False) if as_json else text)


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """Turn errors that are the user's or the world's into a message and an exit code; our own bugs keep their traceback."""
    try:
        yield
    except MMError as err:
        raise refused(as_json, type(err).__name__, str(err), 2 if isinstance(err, _WRONG_INPUT) else 1) from None
    except KeyboardInterrupt:
        raise refused(as_json, "Interrupted", "stopped", 1) from None
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] == "mm_platform":
            raise
        message = f"{err.name} is not installed; this verb needs the research extra: pip install -c constraints.txt -e '.[research]'"
        raise refused(as_json, "ConfigError", message, 2) from None


def refused(as_json: bool, kind: str, message: str, code: int) -> typer.Exit:
    """Say why it did not work, in the form that was asked for; gives the exit to raise."""
    if as_json:
        typer.echo(json.dumps({"error": {"kind": kind, "message": message}}))
    else:
        typer.echo(f"mm: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def progress_bar(as_json: bool) -> Iterator[Progress]:
    """Progress on stderr for long work; silent with --json or when stderr is not a terminal."""
    from mm_platform.workflow.progress import RichProgress, silent

    if as_json or not sys.stderr.isatty():
        yield silent
        return
    with RichProgress() as bar:
        yield bar


def table(header: list[str], rows: list[list[str]]) -> str:
    """Plain aligned columns: readable, greppable, the same in a pipe."""
    cells = [header, *rows]
    widths = [max(len(row[c]) for row in cells) for c in range(len(header))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


@app.command()
def demo(
    ctx: typer.Context,
    small: Annotated[
        bool, typer.Option("--small", help="One day: seconds. Too little for the gate, so nothing is promoted or run, and the exit code is 1.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulated market. Default: from the settings (7).")] = None,
    lake: LakeOption = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The whole loop on the simulated market: ingest, signals, fits, sweep, gate, publish, promote, a runner quoting."""
    with answering(as_json):
        from mm_platform.workflow.demo import run_demo

        with progress_bar(as_json) as progress:
            result = run_demo(ctx.obj.settings(seed=seed, lake=lake, registry_uri=registry), small=small, progress=progress)
        emit(result, as_json, result.text())
        if result.alias is None:
            raise typer.Exit(1)


@app.command()
def ingest(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Raw Binance captures, Tardis CSV or Binance day files as CSV, plain or gz; told by content.")
    ] = None,
    simulate: Annotated[int | None, typer.Option("--simulate", min=1, help="Write this many days of the simulated market instead of files.")] = None,
    lake: LakeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Decode market data into the lake: tape, trades, book tops, quality."""
    with answering(as_json):
        from mm_platform.workflow.data import ingest_files, ingest_simulated_days

        settings = ctx.obj.settings(lake=lake)
        if simulate is None and not files:
            raise ConfigError("nothing to ingest: give files, or --simulate DAYS")
        if simulate is not None and files:
            raise ConfigError("give files or --simulate, not both")
        with progress_bar(as_json) as progress:
            result = ingest_simulated_days(settings, simulate, progress) if simulate is not None else ingest_files(settings, files or [], progress)
        emit(result, as_json, result.text())


@app.command("import-hftbacktest")
def import_hftbacktest(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Tapes of one feed in hftbacktest's layout: .npy, or .npz with the key data.")],
    instrument: InstrumentOption = None,
    tick: Annotated[str | None, typer.Option("--tick", help="Tick size of the tape, e.g. 0.1. Default: the instrument's facts.")] = None,
    lot: Annotated[str | None, typer.Option("--lot", help="Lot size of the tape, e.g. 0.001. Default: the instrument's facts.")] = None,
    lake: LakeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take tapes of hftbacktest into the lake, checked row by row."""
    with answering(as_json):
        from mm_platform.workflow.hftbacktest_tapes import import_tapes

        with progress_bar(as_json) as progress:
            result = import_tapes(ctx.obj.settings(instrument=instrument, lake=lake), files, tick_size=tick, lot_size=lot, progress=progress)
        emit(result, as_json, result.text())


@app.command("export-hftbacktest")
def export_hftbacktest(
    ctx: typer.Context,
    out: Annotated[Path, typer.Argument(help="File to write: .npy, or .npz (packed, key data).")],
    instrument: InstrumentOption = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day. Default: the lake's first.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day, included. Default: the lake's last.")] = None,
    lake: LakeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write days of the lake as a tape that hftbacktest reads."""
    with answering(as_json):
        from mm_platform.workflow.hftbacktest_tapes import export_tape

        since, until = (day.date() if day is not None else None for day in (first, last))
        with progress_bar(as_json) as progress:
            result = export_tape(ctx.obj.settings(instrument=instrument, lake=lake), out, since, until, progress=progress)
        emit(result, as_json, result.text())


@app.command()
def calibrate(ctx: typer.Context, instrument: InstrumentOption = None, lake: LakeOption = None, as_json: JsonFlag = False) -> None:
    """Signals on the decision grid, then fits of sigma, A and k with standard errors."""
    with answering(as_json):
        from mm_platform.workflow.fits import calibrate as run

        with progress_bar(as_json) as progress:
            result = run(ctx.obj.settings(instrument=instrument, lake=lake), progress=progress)
        emit(result, as_json, result.text())


@app.command()
def sweep(
    ctx: typer.Context,
    instrument: InstrumentOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    lake: LakeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Sweep risk aversion x hedge threshold, choose on the earlier part, judge on the later part, pass the gate."""
    with answering(as_json):
        from mm_platform.workflow.judge import judge_chosen
        from mm_platform.workflow.sweep import choose

        settings = ctx.obj.settings(instrument=instrument, lake=lake)
        with progress_bar(as_json) as progress:
            swept = choose(settings, workers=workers, progress=progress)
            judged = judge_chosen(settings, swept.through, progress=progress)
        answer = {"sweep_id": swept.sweep_id, "points": swept.points, "computed": swept.computed, "chosen": swept.chosen.why, "judged": judged}
        emit(answer, as_json, f"{swept.points} points ({swept.computed} replays); {swept.chosen.why}\n{judged.text()}")


@app.command()
def backtest(
    ctx: typer.Context,
    instrument: InstrumentOption = None,
    risk_aversion: Annotated[float | None, typer.Option(help="Risk aversion; default: the last chosen, else 0.1.")] = None,
    hedge_threshold: Annotated[float | None, typer.Option(help="Hedge threshold in inventory units; default: the last chosen, else never.")] = None,
    lake: LakeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Replay one point over the judged stretch and write a report with pictures."""
    with answering(as_json):
        from mm_platform.workflow.backtest import run_backtest

        with progress_bar(as_json) as progress:
            result = run_backtest(ctx.obj.settings(instrument=instrument, lake=lake), risk_aversion, hedge_threshold, progress=progress)
        emit(result, as_json, result.text())


@app.command()
def publish(
    ctx: typer.Context,
    instrument: InstrumentOption = None,
    lake: LakeOption = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Register the last sweep's parameter set in MLflow; the gate decides whether it becomes challenger."""
    with answering(as_json):
        from mm_platform.workflow.publish import publish_last_sweep

        result = publish_last_sweep(ctx.obj.settings(instrument=instrument, lake=lake, registry_uri=registry))
        emit(result, as_json, result.text())
        if result.alias is None:
            raise typer.Exit(1)


@app.command()
def promote(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; recorded with the version.")],
    instrument: InstrumentOption = None,
    version: Annotated[str | None, typer.Option(help="Version to promote; default: the challenger.")] = None,
    approver: Annotated[str | None, typer.Option(help="Who; default: the user name.")] = None,
    lake: LakeOption = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Sign a version that passed the gate and make it champion."""
    with answering(as_json):
        from mm_platform.workflow.publish import promote_version

        result = promote_version(ctx.obj.settings(instrument=instrument, lake=lake, registry_uri=registry), version, approver, reason)
        emit(result, as_json, result.text())
        if result.alias is None:
            raise typer.Exit(1)


@app.command()
def live(
    ctx: typer.Context,
    mode: Annotated[str, typer.Option(help="sim: the simulated or a replayed market, no keys. Other modes come with the venues.")] = "sim",
    instrument: InstrumentOption = None,
    duration_s: Annotated[float, typer.Option(min=1.0, help="Seconds of market time to run.")] = 1800.0,
    source: Annotated[str, typer.Option(help="simulated (an unseen day) or tape (the lake's last hours).")] = "simulated",
    clock: Annotated[str, typer.Option(help="fast (jump from event to event) or real (wall speed; Ctrl-C stops cleanly).")] = "fast",
    lake: LakeOption = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the champion: quote, hedge, journal every decision and fill."""
    with answering(as_json):
        from mm_platform.workflow.live import run_live

        settings = ctx.obj.settings(instrument=instrument, lake=lake, registry_uri=registry)
        result = run_live(settings, mode=mode, source=source, duration_s=duration_s, clock=clock)
        emit(result, as_json, result.text())


@app.command()
def query(
    ctx: typer.Context,
    sql: Annotated[str, typer.Argument(help="One statement that reads, in quotes.")],
    lake: LakeOption = None,
    as_json: JsonFlag = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values instead of a table.")] = False,
) -> None:
    """Ask the lake in SQL (DuckDB): `show tables`, `describe fits`, `select ...`. Columns and units: docs/tables.md."""
    with answering(as_json):
        from mm_platform.lake.catalog import query as run

        if csv and as_json:
            raise ConfigError("give --json or --csv, not both")
        result = run(ctx.obj.settings(lake=lake).lake, sql)
        if csv:
            import csv as csv_module

            writer = csv_module.writer(sys.stdout)
            writer.writerow(result.columns)
            writer.writerows(result.rows)
            return
        rows = [["" if cell is None else f"{cell:.10g}" if isinstance(cell, float) else str(cell) for cell in row] for row in result.rows]
        emit(result, as_json, table(list(result.columns), rows) if rows else table(list(result.columns), []) + "\n(no rows)")


@app.command()
def doctor(
    ctx: typer.Context,
    instrument: InstrumentOption = None,
    lake: LakeOption = None,
    registry: RegistryOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at the installation: packages, settings, lake, registry, keys, disk; say what is wrong and what to do."""
    with answering(as_json):
        from mm_platform.workflow.doctor import examine

        result = examine(ctx.obj.settings(instrument=instrument, lake=lake, registry_uri=registry), ctx.obj.config)
        emit(result, as_json, result.text())
        if not result.healthy:
            raise typer.Exit(1)


# typer shows the root of its argument errors only as the base of this one
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Entry point of the `mm` script. With --json wrong arguments are answered with an object as well."""
    if "--json" not in sys.argv[1:]:
        app()
        return
    try:
        code = app(standalone_mode=False)
    except _UsageError as err:
        message = " ".join(str(getattr(err, "format_message", err.__str__)()).split())
        typer.echo(json.dumps({"error": {"kind": "UsageError", "message": f"{message.rstrip('.')}; see mm --help, or mm VERB --help"}}))
        sys.exit(2)
    sys.exit(code)


if __name__ == "__main__":
    main()
