"""DuckDB views: one per table and one per file in ``queries/``.

A query can read the tables and nothing else. DuckDB has no file system but ``TableFiles``, which
opens table files for reading; external access is off and the configuration is locked. A list of
forbidden statements would not do: ``COPY`` also hides in a common table expression, in ``EXPLAIN
ANALYZE`` and in a prepared statement.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from warehouse.errors import SettingsError
from warehouse.storage import mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES, Table

if TYPE_CHECKING:
    import duckdb

_SCHEME = "tables"

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # Secrets and extensions that the user's own DuckDB keeps in the home folder.
    "allow_persistent_secrets": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Otherwise a name that is no table is looked up among the variables of Python.
    "python_enable_replacements": "false",
    # A query may write to the temporary directory. The default is a folder where it runs.
    "temp_directory": "",
}

_LOCK = (
    f"SET allowed_directories = ['{_SCHEME}://']",
    "SET disabled_filesystems = 'LocalFileSystem'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def connect(home: str | Home) -> duckdb.DuckDBPyConnection:
    """Open an in-memory connection with all views.

    It reads the tables and no other file. Views are named after the tables. A table without files
    is an empty view with its columns. Each ``queries/<number>_<name>.sql`` becomes the view
    ``<name>``.
    """
    import duckdb

    from warehouse.storage.table_files import TableFiles

    home = Home.at(home)
    mirror.sync(home.tables)
    tables.schema_version(home.tables)
    connection = duckdb.connect(":memory:", config=_CONFIG)
    connection.register_filesystem(TableFiles(home.tables))
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES.values():
        _add_view(connection, home, table)
    for name, text in queries().items():
        connection.execute(f'CREATE VIEW "{name}" AS {text}')
    for setting in _LOCK:
        connection.execute(setting)
    return connection


def query(home: str | Home, sql: str) -> pl.DataFrame:
    """Return the result of one query.

    Raises:
        SettingsError: ``sql`` is not one statement that reads.
        duckdb.Error: DuckDB rejects it; ``reason`` gives the sentence for the user.
    """
    connection = connect(home)
    _check_reads(connection, sql)
    frame = pl.from_arrow(connection.sql(sql).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def reason(error: duckdb.Error) -> str:
    """Return the line of an error that says what is wrong."""
    lines = str(error).strip().splitlines()
    # An error raised by ``TableFiles`` arrives with its traceback.
    raised = [line for line in lines if line.startswith("PermissionError: ")]
    if raised:
        return raised[-1].removeprefix("PermissionError: ")
    outside = "LocalFileSystem" in lines[0] or lines[0].startswith("Permission Error")
    return "a query reads the tables and no other file" if outside else lines[0]


def _check_reads(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    from duckdb import StatementType

    # DuckDB parses PIVOT into several statements.
    reads = (StatementType.SELECT, StatementType.EXPLAIN, StatementType.MULTI)
    found = [statement.type for statement in connection.extract_statements(sql)]
    if len(found) == 1 and found[0] in reads:
        return
    raise SettingsError(
        "The tables can only be read",
        got=", then ".join(kind.name for kind in found) or "no statement",
        hint="give one statement that reads: SELECT, FROM, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN",
    )


def queries() -> dict[str, str]:
    """Return name to SQL of all ``queries/``, dependencies first."""
    folder = resources.files("warehouse.storage") / "queries"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {
        name.removesuffix(".sql").split("_", 1)[1]: (folder / name).read_text() for name in files
    }


def _add_view(connection: duckdb.DuckDBPyConnection, home: Home, table: Table) -> None:
    import duckdb

    folder = home.tables / table.name
    pattern = "batch=*/*.parquet" if table.by_batch else "*.parquet"
    if not any(folder.glob(pattern)):
        connection.register(f"_{table.name}", _empty(table))
        connection.execute(f'CREATE VIEW "{table.name}" AS SELECT * FROM "_{table.name}"')
        return
    rows = (
        f"SELECT * FROM read_parquet('{_SCHEME}://{table.name}/{pattern}', "
        "union_by_name = true, hive_partitioning = false)"
    )
    try:
        connection.execute(f'CREATE VIEW "{table.name}" AS {rows}')
        found = {name for name, *_ in connection.execute(f'DESCRIBE "{table.name}"').fetchall()}
        if table.columns.keys() - found:  # columns that no file of an older schema has
            connection.register(f"_{table.name}", _empty(table))
            connection.execute(
                f'CREATE OR REPLACE VIEW "{table.name}" AS '
                f'{rows} UNION ALL BY NAME SELECT * FROM "_{table.name}"'
            )
    except duckdb.Error as error:
        raise tables.unreadable(home, table.name, error) from error


def _empty(table: Table) -> Any:
    types = {name: _duckdb_type(kind) for name, kind in table.columns.items()}
    return pl.DataFrame(schema=types).to_arrow()


def _duckdb_type(kind: pl.DataType | type[pl.DataType]) -> pl.DataType | type[pl.DataType]:
    """Return the type DuckDB reads: lists for arrays, no half floats."""
    if isinstance(kind, pl.Array):
        # Polars declares `inner` more loosely than what it returns.
        return pl.List(_duckdb_type(cast("pl.DataType", kind.inner)))
    return pl.Float32 if kind == pl.Float16 else kind
