"""DuckDB over the Parquet: a view per table, and a view per question asked more than once."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from warehouse.errors import TableError
from warehouse.storage import mirror, schema_version, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES, Table

if TYPE_CHECKING:
    import duckdb


def connect(home: str | Home) -> duckdb.DuckDBPyConnection:
    """An in-memory connection; nothing it does can change a table.

    Views are named after the tables; a table without files is an empty view with its columns.
    Each ``warehouse/storage/queries/<name>.sql`` becomes the view ``<name>``.
    """
    import duckdb

    place = Home.at(home)
    mirror.sync(place.tables)
    schema_version.of_home(place.tables)
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES.values():
        _add_view(connection, place, table)
    for name, text in queries().items():
        connection.execute(f'CREATE VIEW "{name}" AS {text}')
    return connection


def queries() -> dict[str, str]:
    """Name to SQL text of every named question, in an order that respects their dependencies."""
    folder = resources.files("warehouse.storage") / "queries"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {
        name.removesuffix(".sql").split("_", 1)[1]: (folder / name).read_text() for name in files
    }


def _add_view(connection: duckdb.DuckDBPyConnection, home: Home, table: Table) -> None:
    import duckdb

    folder = home.tables / table.name
    pattern = "batch=*/*.parquet" if table.by_batch else "*.parquet"
    if any(folder.glob(pattern)):
        # A view cannot be a prepared statement, so the path is quoted: for SQL, and for the glob.
        literal = re.sub(r"([\[*?])", r"[\1]", str(folder)).replace("'", "''")
        rows = (
            f"SELECT * FROM read_parquet('{literal}/{pattern}', "
            "union_by_name = true, hive_partitioning = false)"
        )
        try:
            connection.execute(f'CREATE VIEW "{table.name}" AS {rows}')
            _add_younger_columns(connection, table, rows)
        except duckdb.Error as error:
            found = ", ".join(map(str, tables.damaged(home, table.name)))
            raise TableError(
                f"readable Parquet files under {folder}",
                got=f"damaged {found}" if found else str(error).splitlines()[0],
                hint="delete what is damaged and run the stage that wrote it again",
            ) from error
    else:
        connection.register(f"_{table.name}", _empty(table))
        connection.execute(f'CREATE VIEW "{table.name}" AS SELECT * FROM "_{table.name}"')


def _add_younger_columns(connection: duckdb.DuckDBPyConnection, table: Table, rows: str) -> None:
    """Give the view the columns that no file of an older home has yet."""
    there = {name for name, *_ in connection.execute(f'DESCRIBE "{table.name}"').fetchall()}
    if table.columns.keys() - there:
        connection.register(f"_{table.name}", _empty(table))
        connection.execute(
            f'CREATE OR REPLACE VIEW "{table.name}" AS '
            f'{rows} UNION ALL BY NAME SELECT * FROM "_{table.name}"'
        )


def _empty(table: Table) -> Any:
    wide = table.empty().cast({name: _widened(kind) for name, kind in table.columns.items()})
    return wide.to_arrow()


def _widened(kind: pl.DataType | type[pl.DataType]) -> pl.DataType | type[pl.DataType]:
    """The type DuckDB gives the column when it reads a file: lists for arrays, no half floats."""
    if isinstance(kind, pl.Array):
        # Polars types `inner` more loosely than what it returns: the array one dimension down.
        return pl.List(_widened(cast("pl.DataType", kind.inner)))
    return pl.Float32 if kind == pl.Float16 else kind


def query(home: str | Home, sql: str) -> pl.DataFrame:
    """The answer to one query as a Polars frame."""
    answer = connect(home).sql(sql)
    # A statement that is no query (SET, CREATE TEMP …) has no answer.
    frame = pl.from_arrow(answer.to_arrow_table()) if answer is not None else pl.DataFrame()
    assert isinstance(frame, pl.DataFrame)
    return frame
