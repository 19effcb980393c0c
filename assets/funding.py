"""Funding: rates with APR, and what a scan over them finds."""

from __future__ import annotations

import dagster as dg
from mm_platform.workflow.funding import scan_funding

from assets.metadata import markdown_table
from assets.resources import SettingsResource
from mm_platform.lake.store import Lake


@dg.asset(group_name="funding", kinds={"parquet"}, pool="funding")
def funding__opportunities(settings: SettingsResource) -> dg.MaterializeResult:
    """Current and historical rates by venue and symbol with APR, and the opportunities left after costs."""
    scan = scan_funding(Lake.open(settings.load().lake))
    return dg.MaterializeResult(
        metadata={"dagster/row_count": len(scan.rates), "opportunities": len(scan.opportunities), "rates": markdown_table(scan.header(), scan.rows())}
    )
