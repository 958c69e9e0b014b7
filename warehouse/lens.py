"""DuckDB over the Parquet: a view per table, and a view per question asked more than once."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import polars as pl

from warehouse.home import Home
from warehouse.schema import TABLES, Table

if TYPE_CHECKING:
    import duckdb


def connect(home: str | Home) -> duckdb.DuckDBPyConnection:
    """An in-memory connection; nothing it does can change a table.

    Views are named after the tables; a table without files is an empty view with its columns.
    Each ``warehouse/queries/<name>.sql`` becomes the view ``<name>``.
    """
    import duckdb

    place = Home.at(home)
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES.values():
        _add_view(connection, place, table)
    for name, text in queries().items():
        connection.execute(f'CREATE VIEW "{name}" AS {text}')
    return connection


def queries() -> dict[str, str]:
    """Name to SQL text of every named question, in an order that respects their dependencies."""
    folder = resources.files("warehouse") / "queries"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {
        name.removesuffix(".sql").split("_", 1)[1]: (folder / name).read_text() for name in files
    }


def _add_view(connection: duckdb.DuckDBPyConnection, home: Home, table: Table) -> None:
    folder = home.tables / table.name
    pattern = folder / ("batch=*/*.parquet" if table.by_batch else "*.parquet")
    if any(folder.glob("batch=*/*.parquet" if table.by_batch else "*.parquet")):
        quoted = str(pattern).replace("'", "''")
        connection.execute(
            f'CREATE VIEW "{table.name}" AS SELECT * FROM read_parquet('
            f"'{quoted}', union_by_name = true, hive_partitioning = false)"
        )
    else:
        # DuckDB has no half float in Arrow; an empty column loses nothing by being wider.
        empty = table.empty().cast({pl.Float16: pl.Float32})
        wide = empty.select(
            pl.col(name).cast(pl.List(pl.Float32)) if isinstance(kind, pl.Array) else pl.col(name)
            for name, kind in table.columns.items()
        )
        connection.register(f"_{table.name}", wide.to_arrow())
        connection.execute(f'CREATE VIEW "{table.name}" AS SELECT * FROM "_{table.name}"')


def ask(home: str | Home, sql: str) -> pl.DataFrame:
    """The answer to one query as a Polars frame."""
    frame = pl.from_arrow(connect(home).execute(sql).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame
