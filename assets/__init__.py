"""The Dagster shell around mm_platform: each asset loads settings, calls one workflow function, attaches metadata.

Asset names say layer and subject: `market__tape`, `model__sweep`. Science and storage live in `mm_platform`; nothing there imports Dagster.
Modules with decorated functions do not postpone annotations (`from __future__ import annotations`): Dagster reads them when it decorates.
"""

import warnings

import dagster as dg

# backfill policies and partitioned checks: in use on purpose, their tests run with every Dagster that is installed
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
# market data is backfilled in one run, models day by day; in a job with both, one run per day is what is wanted
warnings.filterwarnings("ignore", message=r"Asset job \w+ materializes assets with varying BackfillPolicies", category=UserWarning)
