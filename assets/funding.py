"""Funding: rates with APR, and what a scan over them finds."""

import json
import math
from typing import Final

import dagster as dg

from assets.market import market__tape
from assets.metadata import logged, markdown_table, table_definition
from assets.outcomes import outcomes
from assets.resources import SettingsResource
from mm_platform.core.units import iso_utc
from mm_platform.lake.store import Lake
from mm_platform.workflow.data import funding_history_files
from mm_platform.workflow.funding import import_funding_history, scan_funding
from mm_platform.workflow.funding_table import MEAN_WINDOWS_D

_TRADES_SHOWN: Final = 20


@dg.asset(group_name="funding", owners=["team:research"], kinds={"parquet"}, pool="funding", metadata=table_definition("funding_rates"))
def funding__history(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult[None]:
    """Settled rates out of the funding history files (`..._funding_history.csv`, plain or gz) below `raw_dir`, times brought to UTC.

    Without such files there is nothing to do: the scan also takes the rates that tapes in the lake have settled.
    """
    with outcomes():
        loaded = settings.load()
        imported = import_funding_history(Lake.open(loaded.lake), funding_history_files(loaded), loaded.funding, logged(context))
    header = ("file", "instrument", "rates", "file's clock, h ahead of UTC", "known by", "missing", "longest gap, h")
    rows = [(f.file, f.instrument, f.rows, f"{f.utc_offset_h:g}", f.clock, f.missing, f"{f.largest_gap_h:g}") for f in imported.files]
    return dg.MaterializeResult(metadata={"dagster/row_count": imported.rows, "files": markdown_table(header, rows)})


@dg.asset(
    group_name="funding",
    owners=["team:research"],
    deps=[funding__history, market__tape],
    kinds={"parquet"},
    pool="funding",
    metadata=table_definition("opportunities", "funding_rates"),
)
def funding__opportunities(context: dg.AssetExecutionContext, settings: SettingsResource) -> dg.MaterializeResult[None]:
    """Current and historical rates of every perpetual in the lake with APR, and the trades between them with costs in, best net APR first."""
    with outcomes():
        loaded = settings.load()
        found = scan_funding(Lake.open(loaded.lake), loaded.funding, logged(context))
    windows = [f"APR {days} d" for days in MEAN_WINDOWS_D]
    header = ("instrument", "settlements", "last", "every, h", "rate", "per 8 h", "APR", "APY", *windows, "predicted", "paid shorts", "missing")
    rates = [
        (
            r.instrument,
            r.stamps,
            iso_utc(r.last_ns)[:16],
            f"{r.interval_h:g}",
            f"{r.last_rate:.6f}",
            f"{r.rate_8h:.6f}",
            f"{r.apr:+.2%}",
            f"{r.apy:+.2%}",
            *(None if math.isnan(r.mean_apr[days]) else f"{r.mean_apr[days]:+.2%}" for days in MEAN_WINDOWS_D),
            None if r.predicted_rate is None else f"{r.predicted_rate:.6f}",
            f"{r.positive_frac:.0%}",
            r.missing,
        )
        for r in found.rates
    ]
    trades = [
        (
            t.kind.replace("_", " "),
            t.long_instrument,
            t.short_instrument,
            f"{t.apr:+.2%}",
            f"{t.cost_frac:.3%}",
            None if t.break_even_h is None else f"{t.break_even_h:.0f}",
            f"{t.net_apr:+.2%}",
            "yes" if t.accepted else "no",
            # the lake keeps the numbers behind it too
            json.loads(t.reason)["verdict"],
        )
        for t in found.opportunities[:_TRADES_SHOWN]
    ]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found.opportunities),
            "perpetuals": len(found.rates),
            "accepted": len(found.accepted),
            "rates": markdown_table(header, rates),
            f"best {len(trades)} trades": markdown_table(
                ("kind", "long", "short", "APR before costs", "costs", "pays after, h", "net APR", "accepted", "says"), trades
            ),
            **({"left out": "; ".join(found.left_out)} if found.left_out else {}),
            **({} if found.rates else {"note": "the lake has no settled rates: ingest perpetuals with funding, or put history files below raw_dir"}),
        }
    )
