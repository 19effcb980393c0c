"""Market data: raw captures or the simulated market into the lake, and signals on the decision grid.

A backfill over many days is one run: the files of an instrument are then read once. Dagster has one evaluation per check and run, so the checks
are not partitioned: they speak of all the run's days together, name them, and one bad day stops the run.
"""

from collections.abc import Iterator

import dagster as dg

from assets.metadata import logged, markdown_table, table_definition
from assets.outcomes import outcomes
from assets.partitions import INSTRUMENT_DAY, days_by_instrument, partition_key
from assets.resources import SettingsResource
from mm_platform.core.instrument import InstrumentId
from mm_platform.lake.store import Lake, Partition
from mm_platform.workflow.data import ingest_days
from mm_platform.workflow.signals import build_signals, look_ahead_check

Steps = Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]


@dg.asset(
    group_name="market",
    partitions_def=INSTRUMENT_DAY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    owners=["team:market-data"],
    kinds={"parquet"},
    pool="ingest",
    metadata=table_definition("tape", "trades", "book_top", "book_state", "data_quality", "instruments"),
    check_specs=[
        dg.AssetCheckSpec(
            "quality",
            asset="market__tape",
            blocking=True,
            description="The day's quality row says 'ok': no sequence breaks or crossed books beyond the limits, rebuilt tops equal the venue's.",
        )
    ],
)
def market__tape(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """The tick tape of one instrument and UTC day, with trades, best quotes, closing book and the quality row.

    `sim:` instruments are simulated, any day. Others are decoded from the captures and CSV files in the setting `raw_dir` (`MM_RAW_DIR`);
    all files of the instrument are read, since a day's book continues the day before.
    """
    seen = []
    with outcomes():
        for instrument, days in days_by_instrument(context.partition_keys).items():
            loaded = settings.load(instrument)
            lake = Lake(loaded.lake)
            for q in ingest_days(loaded, days, logged(context)):
                file = lake.path("tape", Partition.of(InstrumentId.parse(instrument), q.date))
                context.add_asset_metadata(
                    {
                        "dagster/row_count": q.rows,
                        "trades": q.trades,
                        "lines read": q.lines,
                        "bad lines": q.bad_lines,
                        "sequence breaks": q.sequence_breaks,
                        "trade id gaps": q.trade_id_gaps,
                        "crossed books": q.crossed_books,
                        "top of book compared": q.top_of_book_compared,
                        **({} if q.top_of_book_match_frac is None else {"top of book equal, frac": q.top_of_book_match_frac}),
                        "clock moved by, ms": q.clock_offset_ns / 1e6,
                        "longest gap, s": q.longest_gap_s,
                        "book": q.book,
                        "file": dg.MetadataValue.path(str(file)),
                        "sources": markdown_table(("file", "bytes", "sha256"), [(s.name, s.bytes, s.sha256[:16]) for s in q.source_files])
                        if q.source_files
                        else f"simulated market, seed {loaded.seed}",
                    },
                    partition_key=partition_key(instrument, q.date),
                )
                seen.append((instrument, q.date, q.verdict, q.rows, q.sequence_breaks, q.crossed_books, q.bad_lines, q.reason))
    yield dg.MaterializeResult()
    header = ("instrument", "day", "verdict", "rows", "sequence breaks", "crossed books", "bad lines", "reason")
    bad = [f"{instrument} {day}: {verdict} ({reason})" for instrument, day, verdict, *_, reason in seen if verdict != "ok"]
    yield dg.AssetCheckResult(
        check_name="quality",
        passed=not bad,
        description="; ".join(bad) or f"ok: {_days(context)}",
        metadata={"days": markdown_table(header, seen), "suspect days": len(bad)},
    )


def _days(context: dg.AssetExecutionContext) -> str:
    """Which days a run is about, in few words."""
    found = days_by_instrument(context.partition_keys)
    return ", ".join(f"{instrument} {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "") for instrument, days in found.items())


@dg.asset(
    group_name="market",
    partitions_def=INSTRUMENT_DAY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    owners=["team:market-data"],
    deps=[market__tape],
    kinds={"parquet"},
    metadata=table_definition("signals"),
    check_specs=[
        dg.AssetCheckSpec(
            "no_look_ahead",
            asset="market__signals",
            blocking=True,
            description="Computed again without anything known later than a cut, the decisions before it are the same byte for byte.",
        )
    ],
)
def market__signals(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """Microprice, Kyle's lambda, imbalances, short-horizon volatility and spread on the decision grid, from what was known at each decision."""
    proofs = []
    with outcomes():
        for instrument, days in days_by_instrument(context.partition_keys).items():
            loaded = settings.load(instrument)
            lake = Lake(loaded.lake)
            for day in days:
                built = build_signals(loaded, [day], logged(context))
                file = lake.path("signals", Partition.of(InstrumentId.parse(instrument), day))
                context.add_asset_metadata(
                    {
                        "dagster/row_count": built.rows,
                        "valid, frac": built.valid_frac,
                        "summary": markdown_table(("signal", "mean", "sd", "least", "greatest"), built.summary),
                        "file": dg.MetadataValue.path(str(file)),
                    },
                    partition_key=partition_key(instrument, day),
                )
                proof = look_ahead_check(loaded, day)
                proofs.append((instrument, day, proof.equal, proof.cut_at, proof.decisions))
    yield dg.MaterializeResult()
    different = [f"{instrument} {day}: decisions before {cut} change with what came later" for instrument, day, equal, cut, _ in proofs if not equal]
    yield dg.AssetCheckResult(
        check_name="no_look_ahead",
        passed=not different,
        description="; ".join(different) or f"equal: {_days(context)}",
        metadata={"days": markdown_table(("instrument", "day", "equal", "cut at", "decisions compared"), proofs)},
    )
