"""`mm demo`: the whole loop on the simulated market, by the same steps as everything else, without Dagster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mm_platform.config import Settings
from mm_platform.lake.catalog import CATALOG_FILE
from mm_platform.workflow.data import ingest_simulated_days
from mm_platform.workflow.fits import calibrate
from mm_platform.workflow.judge import judge_chosen
from mm_platform.workflow.live import run_live
from mm_platform.workflow.progress import Progress, silent
from mm_platform.workflow.publish import promote_version, publish_last_sweep
from mm_platform.workflow.sweep import choose

LIVE_S = 3600.0


@dataclass(frozen=True, slots=True)
class DemoParameter:
    name: str
    value: float | str | None
    unit: str
    stderr: float | None
    source: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came out at each station. `alias` is None when the gate held the version back; then nothing quotes."""

    tape_rows: int
    days: int
    sweep_points: int
    parameters: tuple[DemoParameter, ...]
    verdict: str
    failing: tuple[str, ...]
    model_version: str | None
    alias: str | None
    out_of_sample_pnl: float
    live_fills: int
    live_pnl: float | None
    report: Path
    lake: Path
    catalog: Path

    def text(self) -> str:
        shown = ("risk_aversion", "hedge_threshold", "sigma", "A_bid", "A_ask", "k_bid", "k_ask")
        lines = [
            f"tape          {self.tape_rows:,} rows on {self.days} day(s) of the simulated perp and spot",
            f"sweep         {self.sweep_points} points; judged out of sample: {self.out_of_sample_pnl:+,.2f} quote",
        ]
        for p in self.parameters:
            if p.name in shown:
                value = f"{p.value:.5g}" if isinstance(p.value, float) else str(p.value)
                error = f" ± {p.stderr:.2g}" if p.stderr is not None else ""
                lines.append(f"  {p.name:15s} {'never' if p.value is None else f'{value}{error} [{p.unit}]'} ({p.source})")
        lines.append(f"gate          {self.verdict.replace('_', ' ')}")
        lines += [f"  {line}" for line in self.failing]
        lines.append(f"model         version {self.model_version or 'none'}, alias {self.alias or 'none: the gate held it back'}")
        if self.live_pnl is not None:
            lines.append(f"runner        {self.live_fills} fills on {LIVE_S / 60:.0f} minutes it had not seen, {self.live_pnl:+,.2f} quote")
        lines += [f"report        {self.report}", f"lake          {self.lake} (catalog for DuckDB: {self.catalog})"]
        if self.alias is None and self.verdict == "insufficient_evidence":
            lines.append(
                f"next          more days: {self.days} did not carry enough evidence; mm demo without --small makes what the settings say (simulate.days)"
            )
        return "\n".join(lines)


def run_demo(settings: Settings, *, small: bool = False, progress: Progress = silent) -> DemoResult:
    """Run every step once. `small`: one day, which is too little evidence for the gate."""
    settings = settings.model_copy(update={"instrument": "sim:BTC-USDT-PERP"})
    days = 1 if small else settings.simulate.days
    ingested = ingest_simulated_days(settings, days, progress)
    calibrate(settings, progress)
    swept = choose(settings, progress=progress)
    through = swept.through
    judged = judge_chosen(settings, through, progress=progress)
    published = publish_last_sweep(settings)
    alias = published.alias
    live_fills, live_pnl = 0, None
    if published.alias is not None:
        promoted = promote_version(settings, published.version, "mm demo", "the demo's own promotion: its gate passed")
        alias = promoted.alias
        summary = run_live(settings, mode="sim", source="simulated", duration_s=LIVE_S, clock="fast")
        live_fills, live_pnl = summary.maker_fills + summary.taker_fills, summary.total_pnl
    pset = judged.parameters
    return DemoResult(
        tape_rows=sum(p.rows for p in ingested.partitions),
        days=days,
        sweep_points=swept.points,
        parameters=tuple(DemoParameter(name, v.value, v.unit, v.stderr, v.source) for name, v in (pset.values.items() if pset is not None else ())),
        verdict=published.verdict,
        failing=published.failing,
        model_version=published.version,
        alias=alias,
        out_of_sample_pnl=judged.total_pnl,
        live_fills=live_fills,
        live_pnl=live_pnl,
        report=judged.report,
        lake=settings.lake,
        catalog=settings.lake / CATALOG_FILE,
    )
