"""The lake: Parquet tables by venue, symbol and UTC day, and SQL over them.

`lake.connect()` is how readers get at it with SQL; `lake.store.Lake` reads partitions and writes. DuckDB is loaded only when asked for:
the live runner writes its fills without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_platform.lake.catalog import build_catalog, connect, query

__all__ = ["build_catalog", "connect", "query"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mm_platform.lake import catalog

    return getattr(catalog, name)
