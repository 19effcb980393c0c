"""SQL over the lake: DuckDB views with units, for readers of this package and for analysts with any DuckDB client.

Belongs here: connections, views, the catalog file, and the guarded `query` behind `mm query`. Does not belong here: writing data. No
native DuckDB table holds anything: DuckDB locks its own files against readers, Parquet files that are only ever renamed into place do not.

DuckDB 2.0 plans an ASOF join as a nested loop where it believes one side to be small, and it believes so wherever a filter on the
folders (`venue`, `symbol`, `date`) leaves only files other than the first one, or the first file is small: hours instead of a tenth of a
second. `connect` switches that plan off; analysts who open the catalog file on their own must `SET asof_loop_join_threshold = 0` (table
`meta` says so too). Filter both sides of an ASOF join in sub-queries: a `WHERE` on the right side applies after the match.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import duckdb

from mm_platform.core.clock import monotonic_ns
from mm_platform.core.errors import ConfigError, DataError
from mm_platform.core.units import iso_utc
from mm_platform.lake.commit import recorded
from mm_platform.lake.fields import PARTITION_FIELDS, TABLES, TableSchema
from mm_platform.lake.layout import DATA_FILE, GLOB, LOCKS, schema_path, sync_file, sync_folder
from mm_platform.lake.locks import WriterLock
from mm_platform.lake.store import SHORT_WAIT_S, Lake

CATALOG_FILE: Final = "catalog.duckdb"
# DuckDB 1.2 and later can open a catalog written in this format; 2.0's own format only 2.0 can
_STORAGE_VERSION: Final = "v1.2.0"
_HIVE: Final = "hive_partitioning = true, hive_types = {'venue': 'VARCHAR', 'symbol': 'VARCHAR', 'date': 'DATE'}"
_TS_MEANING: Final = "UTC timestamp in microseconds"


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query returned: column names, DuckDB type names, rows as Python values."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def connect(lake_root: Path, *, threads: int | None = None, memory_limit: str = "2GB") -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with one view per table of the lake.

    Commits whose writer died are finished first, so that a query never sees half of one. Views read the files that are there when a query
    starts; a long-lived connection sees new partitions.

    Parameters
    ----------
    lake_root : Path
        The lake's folder; must exist.
    threads : int, optional
        Threads DuckDB uses; default one per core.
    memory_limit : str
        DuckDB's memory limit of this process (its own default is 80 % of the machine).

    Returns
    -------
    duckdb.DuckDBPyConnection

    Raises
    ------
    ConfigError
        No such folder; a setting DuckDB refuses.
    DataError
        The lake needs repair and this account may not write to it.
    """
    root = _prepare(Path(lake_root).absolute())
    con = duckdb.connect()
    try:
        con.execute("SET asof_loop_join_threshold = 0")
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET enable_progress_bar = false")
        con.execute("SET memory_limit = " + _text(memory_limit))
        if threads is not None:
            con.execute(f"SET threads = {int(threads)}")
        _create_views(con, root)
    except duckdb.Error as err:
        con.close()
        raise ConfigError(f"cannot open the lake {root} with DuckDB: {err}") from None
    return con


def build_catalog(lake_root: Path) -> Path:
    """Write `catalog.duckdb` into the lake: the views, the columns' meanings and units, and a table `meta`.

    Analysts open it with `duckdb.connect("catalog.duckdb", read_only=True)`, also while data is written. It holds absolute paths: build it
    anew after moving the lake. Written to a temporary and renamed, so whoever has the old one open keeps it.

    Returns
    -------
    Path
        The catalog file.

    Raises
    ------
    ConfigError
        As `connect`; this account may not write to the lake.
    DataError
        As `connect`.
    LakeBusy
        Another process has been building it for more than 30 s.
    """
    root = _prepare(Path(lake_root).absolute())
    if not os.access(root, os.W_OK):
        raise ConfigError(f"this account may not write to the lake {root}; build the catalog with one that may")
    final = root / CATALOG_FILE
    temporary = root / f".{CATALOG_FILE}.tmp"
    lock = WriterLock(root / LOCKS / "catalog", f"{CATALOG_FILE} of the lake {root}", SHORT_WAIT_S)
    con = duckdb.connect()
    try:
        _remove_database(temporary)  # of a builder that died
        con.execute(f"ATTACH {_text(str(temporary))} AS catalog_file (STORAGE_VERSION {_text(_STORAGE_VERSION)})")
        con.execute("USE catalog_file")
        _create_views(con, root)
        con.execute("CREATE TABLE meta (name VARCHAR, value VARCHAR)")
        facts = {
            "lake": str(root),
            "built_at": iso_utc(monotonic_ns()),
            "code_version": version("mm-platform"),
            "duckdb_version": duckdb.__version__,
            "first_statement": "SET asof_loop_join_threshold = 0",
            "first_statement_why": "without it DuckDB 2.0 may run an ASOF join on filtered days as a nested loop (hours instead of a tenth of a second)",
        }
        con.execute("INSERT INTO meta VALUES " + ", ".join(f"({_text(k)}, {_text(v)})" for k, v in facts.items()))
        con.execute("COMMENT ON TABLE meta IS 'Facts about this catalog file.'")
        con.execute("USE memory")
        con.execute("DETACH catalog_file")  # flushes and closes it
        sync_file(temporary)
        temporary.replace(final)
        sync_folder(root)
    finally:
        con.close()
        _remove_database(temporary)
        lock.release()
    return final


def _remove_database(path: Path) -> None:
    for name in (path.name, f"{path.name}.wal"):
        path.with_name(name).unlink(missing_ok=True)


def query(lake_root: Path, sql: str, *, max_rows: int | None = None) -> QueryResult:
    """Run one reading statement over the lake's views.

    The statement may read the lake and nothing else of the machine, and may change nothing.

    Parameters
    ----------
    lake_root : Path
    sql : str
        One SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW or SUMMARIZE.
    max_rows : int, optional
        Fetch at most so many rows; default all.

    Returns
    -------
    QueryResult

    Raises
    ------
    ConfigError
        Not exactly one reading statement, or DuckDB refuses it (its message is included).
    DataError
        As `connect`.
    """
    statement = _one_reading_statement(sql)
    con = connect(lake_root)
    try:
        con.execute(f"SET allowed_directories = [{_text(str(Path(lake_root).absolute()))}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        result = con.sql(statement)
        rows = (result if max_rows is None else result.limit(max_rows)).fetchall()
        return QueryResult(tuple(result.columns), tuple(str(t) for t in result.types), rows)
    except duckdb.Error as err:
        raise ConfigError(f"query refused: {err}") from None
    finally:
        con.close()


def _one_reading_statement(sql: str) -> str:
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as err:
        raise ConfigError(f"query is not valid SQL: {err}") from None
    kinds = [s.type.name for s in statements]
    if kinds != ["SELECT"]:
        raise ConfigError(
            f"expected one reading statement (SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW or SUMMARIZE), got {', '.join(kinds) or 'nothing'}; "
            "to write, open lake.connect() or the catalog file in a DuckDB client of your own"
        )
    text: str = statements[0].query
    return text.strip().rstrip(";")


def _prepare(root: Path) -> Path:
    if not root.is_dir():
        raise ConfigError(f"no lake at {root}; ingest data first (mm ingest, or mm demo), or name another with --lake")
    if os.access(root, os.W_OK):
        Lake.open(root)
        return root
    bare = [name for name in TABLES if not schema_path(root, name).exists()]
    if bare or recorded(root):
        what = f"has no schema files for {', '.join(bare)}" if bare else "has a commit whose writer died"
        raise DataError(f"the lake {root} {what} and this account may not write there; open it once with an account that may")
    return root


def _create_views(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    for schema in TABLES.values():
        con.execute(f"CREATE VIEW {schema.name} AS {_view_sql(root, schema)}")
        con.execute(f"COMMENT ON VIEW {schema.name} IS {_text(schema.meaning)}")
        for name, comment in _comments(schema).items():
            con.execute(f'COMMENT ON COLUMN {schema.name}."{name}" IS {_text(comment)}')


def _view_sql(root: Path, schema: TableSchema) -> str:
    ts = [f"make_timestamp(f.{schema.ts} // 1000) AS ts"] if schema.ts else []
    columns = ", ".join([*(f"f.{f.name}" for f in PARTITION_FIELDS), *ts, *(f'f."{name}"' for name in schema.names)])
    files = f"read_parquet({_text(f'{root}/{schema.name}/{GLOB}')}, {_HIVE})"
    if not schema.raw:
        return f"SELECT {columns} FROM {files} AS f"
    # the quality file is the last of a commit to be put in place: its existence is completeness, and listing folders is cheaper than reading them
    quality = _text(f"{root}/data_quality/*/*/*/{DATA_FILE}")
    complete = (
        "SELECT split_part(split_part(file, '/venue=', -1), '/', 1) AS venue, split_part(split_part(file, '/symbol=', -1), '/', 1) AS symbol, "
        f"CAST(split_part(split_part(file, '/date=', -1), '/', 1) AS DATE) AS date FROM glob({quality})"
    )
    return f"SELECT {columns} FROM {files} AS f SEMI JOIN ({complete}) AS q ON f.venue = q.venue AND f.symbol = q.symbol AND f.date = q.date"


def _comments(schema: TableSchema) -> dict[str, str]:
    comments = {f.name: f"{f.meaning} [{f.unit}]" for f in (*PARTITION_FIELDS, *schema.fields)}
    if schema.ts:
        comments["ts"] = f"{schema.ts} as {_TS_MEANING}, for reading and time functions; filter on date first, it skips files."
    return comments


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
