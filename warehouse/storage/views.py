"""DuckDB views: one per table and one per file in ``queries/``."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from warehouse.storage import mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES, Table

if TYPE_CHECKING:
    import duckdb


def connect(home: str | Home) -> duckdb.DuckDBPyConnection:
    """Open an in-memory connection with all views; it cannot change a table.

    Views are named after the tables. A table without files is an empty view with its columns.
    Each ``queries/<number>_<name>.sql`` becomes the view ``<name>``.
    """
    import duckdb

    home = Home.at(home)
    mirror.sync(home.tables)
    tables.schema_version(home.tables)
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES.values():
        _add_view(connection, home, table)
    for name, text in queries().items():
        connection.execute(f'CREATE VIEW "{name}" AS {text}')
    return connection


def query(home: str | Home, sql: str) -> pl.DataFrame:
    """Return the result of one query; empty for a statement without a result."""
    result = connect(home).sql(sql)
    frame = pl.from_arrow(result.to_arrow_table()) if result is not None else pl.DataFrame()
    assert isinstance(frame, pl.DataFrame)
    return frame


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
    # A view cannot be a prepared statement, so the path is quoted for SQL and for the glob.
    literal = re.sub(r"([\[*?])", r"[\1]", str(folder)).replace("'", "''")
    rows = (
        f"SELECT * FROM read_parquet('{literal}/{pattern}', "
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
