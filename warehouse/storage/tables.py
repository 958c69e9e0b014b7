"""Plain Parquet tables: one file per video or per write, replaced whole, never edited.

Parquet is the truth and DuckDB the lens: a shared DuckDB file lost committed rows when
several processes wrote it, while temp file plus rename lost none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from warehouse.errors import TableError
from warehouse.ids import check_batch
from warehouse.storage import atomic, mirror, schema_version
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES, Table


def write(
    home: Home,
    name: str,
    frame: pl.DataFrame,
    *,
    part: str,
    batch: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Replace exactly one file of a table.

    Args:
        part: file stem: the video id for tables by batch, else what names the write.
        metadata: strings kept in the Parquet footer (fingerprints of inputs and settings).

    Raises:
        TableError: columns are missing, unknown, of another type, or a key repeats.
    """
    table = _table(name)
    path = path_of(home, name, part=part, batch=batch)
    fitted = _fit(table, frame)
    schema_version.settle(home.tables)
    with atomic.replace_file(path) as draft:
        save(draft, fitted, footer=metadata or {})
    return path


def save(path: Path, frame: pl.DataFrame, *, footer: Mapping[str, str]) -> None:
    """One file in the house's form, with the mark of the present schema."""
    frame.write_parquet(
        path, compression="zstd", statistics=True, metadata=schema_version.marked(footer)
    )


def scan(home: Home, name: str, *, batch: str | None = None) -> pl.LazyFrame:
    """Every row of a table (or of one batch), lazily; empty and typed when there is none.

    Raises:
        TableError: the home is of a newer schema than this installation.
    """
    table = _table(name)
    files = _files(home, table, batch)
    return _scan(files, table) if files else table.empty().lazy()


def _scan(files: list[Path], table: Table) -> pl.LazyFrame:
    return pl.scan_parquet(
        files,
        glob=False,  # else a home named `a[b]` reads as no file at all
        schema=table.schema,
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
    )


def read(home: Home, name: str, *, batch: str | None = None) -> pl.DataFrame:
    """``scan`` collected.

    Raises:
        TableError: a file is damaged; names the table and what the reader said.
    """
    try:
        return scan(home, name, batch=batch).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        found = damaged(home, name, batch=batch)
        raise TableError(
            f"readable Parquet files under {home.tables / name}",
            got="damaged " + ", ".join(map(str, found)) if found else str(error).splitlines()[0],
            hint="delete what is damaged and run the stage that wrote it again",
        ) from error


def read_part(home: Home, name: str, *, part: str, batch: str | None = None) -> pl.DataFrame:
    """The rows of one file; none when it is not there or is damaged."""
    path = path_of(home, name, part=part, batch=batch)
    try:
        return _scan([path], _table(name)).collect()
    except (pl.exceptions.PolarsError, OSError):
        return _table(name).empty()


def damaged(home: Home, name: str, *, batch: str | None = None) -> list[Path]:
    """The files of a table (of one batch) that cannot be read; reads every one of them."""
    found = []
    for path in _files(home, _table(name), batch):
        try:
            pl.scan_parquet(path, glob=False).collect()
        except FileNotFoundError:
            continue
        except (pl.exceptions.PolarsError, OSError):
            found.append(path)
    return found


def paths(home: Home, name: str, *, batch: str | None = None) -> list[Path]:
    """The files of a table (of one batch), sorted."""
    return _files(home, _table(name), batch)


def parts(home: Home, name: str, *, batch: str | None = None) -> set[str]:
    """Stems of the files of a table (of one batch)."""
    return {path.stem for path in _files(home, _table(name), batch)}


def metadata(home: Home, name: str, *, part: str, batch: str | None = None) -> dict[str, str]:
    """The strings kept with one file; empty when the file is not there or is damaged."""
    path = path_of(home, name, part=part, batch=batch)
    mirror.sync(home.tables / name)
    try:
        return dict(pl.read_parquet_metadata(path))
    except (pl.exceptions.PolarsError, OSError):
        return {}


def remove(home: Home, name: str, *, part: str, batch: str | None = None) -> None:
    """Remove one file of a table, if it is there."""
    atomic.remove(path_of(home, name, part=part, batch=batch))


def path_of(home: Home, name: str, *, part: str, batch: str | None = None) -> Path:
    """Where one file of a table lies: ``<table>/[batch=<batch>/]<part>.parquet``."""
    table = _table(name)
    if table.by_batch != (batch is not None):
        wanted = "a batch" if table.by_batch else "no batch"
        raise TableError(
            f"{wanted} for {name}", got=f"batch={batch!r}", hint="fix the call; this is a bug"
        )
    folder = home.tables / name
    if batch is not None:
        folder = folder / f"batch={check_batch(batch)}"
    if not part or "/" in part or part.startswith("."):
        raise TableError(
            "a part that names a file", got=repr(part), hint="fix the call; this is a bug"
        )
    return folder / f"{part}.parquet"


def _files(home: Home, table: Table, batch: str | None) -> list[Path]:
    folder = home.tables / table.name
    mirror.sync(folder)
    schema_version.of_home(home.tables)
    if table.by_batch:
        pattern = f"batch={check_batch(batch)}/*.parquet" if batch else "batch=*/*.parquet"
    else:
        pattern = "*.parquet"
    return sorted(folder.glob(pattern))


def _table(name: str) -> Table:
    if name not in TABLES:
        raise TableError(
            f"one of the tables {', '.join(TABLES)}", got=repr(name), hint="check the name"
        )
    return TABLES[name]


def _fit(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    missing = [column for column in table.columns if column not in frame.columns]
    unknown = [column for column in frame.columns if column not in table.columns]
    if missing or unknown:
        raise TableError(
            f"the columns of {table.name}",
            got=f"missing {missing or 'none'}, unknown {unknown or 'none'}",
            hint="fit the rows to warehouse/storage/schema.py",
        )
    try:
        fitted = frame.select(pl.col(name).cast(kind) for name, kind in table.columns.items())
    except pl.exceptions.PolarsError as error:
        raise TableError(
            f"rows that fit the types of {table.name}",
            got=str(error).splitlines()[0],
            hint="fit the rows to warehouse/storage/schema.py",
        ) from error
    if fitted.select(table.key).is_duplicated().any():
        raise TableError(
            f"each ({', '.join(table.key)}) once in a file of {table.name}",
            got="a key that repeats",
            hint="keep one row per key before writing",
        )
    return fitted
