"""Market data: raw captures or the simulated market into the lake, and signals on the decision grid."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
from mm_platform.workflow.data import ingest_day

from assets.metadata import markdown_table
from assets.partitions import INSTRUMENT_DAY, instrument_day
from assets.resources import SettingsResource
from mm_platform.workflow.signals import build_signals, look_ahead_check

Steps = Iterator[dg.MaterializeResult | dg.AssetCheckResult]


@dg.asset(
    group_name="market",
    partitions_def=INSTRUMENT_DAY,
    kinds={"parquet"},
    pool="ingest",
    check_specs=[
        dg.AssetCheckSpec(
            "quality",
            asset="market__tape",
            blocking=True,
            description="No sequence breaks beyond the limit, no crossed books, tops equal the venue's.",
        )
    ],
)
def market__tape(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """The tick tape of one instrument and UTC day, with trades, book tops and the quality row.

    `sim:` instruments are simulated; others are decoded from the files in the settings' `raw_dir`.
    """
    instrument, day = instrument_day(context.partition_key)
    quality = ingest_day(settings.load(instrument), day)
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": quality.rows,
            "sequence_breaks": quality.sequence_breaks,
            "trade_id_gaps": quality.trade_id_gaps,
            "crossed_books": quality.crossed_books,
            "top_of_book_match_frac": quality.top_of_book_match_frac,
            "clock_offset_ns": quality.clock_offset_ns,
            "bad_lines": quality.bad_lines,
        }
    )
    yield dg.AssetCheckResult(
        check_name="quality",
        passed=quality.verdict == "ok",
        metadata={"reason": quality.reason or "clean", "crossed_books": quality.crossed_books, "sequence_breaks": quality.sequence_breaks},
    )


@dg.asset(
    group_name="market",
    partitions_def=INSTRUMENT_DAY,
    deps=[market__tape],
    kinds={"parquet"},
    check_specs=[
        dg.AssetCheckSpec(
            "no_look_ahead", asset="market__signals", blocking=True, description="Recomputed without the future, the past is the same byte for byte."
        )
    ],
)
def market__signals(context: dg.AssetExecutionContext, settings: SettingsResource) -> Steps:
    """Microprice, Kyle's lambda, imbalances, short-horizon volatility and spread on the decision grid."""
    instrument, day = instrument_day(context.partition_key)
    loaded = settings.load(instrument)
    built = build_signals(loaded, [day])
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": built.rows,
            "valid_frac": built.valid_frac,
            "summary": markdown_table(("signal", "mean", "sd", "min", "max"), built.summary),
        }
    )
    proof = look_ahead_check(loaded, day)
    yield dg.AssetCheckResult(
        check_name="no_look_ahead", passed=proof.equal, metadata={"cut_at": proof.cut_at, "decisions_compared": proof.decisions}
    )
