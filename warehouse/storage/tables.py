"""Read and write Parquet tables: one file per video or per write.

Parquet is the truth and DuckDB only reads it. A shared DuckDB file lost committed rows when
several processes wrote it; temporary file and rename lost none.

A data directory stores its schema version in ``tables/version``, a file in its Parquet footer.
Without either the version is 1. An older data directory opens as it is: columns added later read
as null, and ``warehouse.storage.migrations`` rewrites them. A newer one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from warehouse.errors import TableError
from warehouse.ids import check_batch
from warehouse.storage import atomic, checksums, mirror
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES, Table

SCHEMA_VERSION = 3
"""1: files without a version. 2: every file has every column and its version. 3: labels name their
item, items other than faces have tables, and every file has its checksum."""

CHECKSUMS_SINCE = 3
"""Schema version since which every file carries its checksum."""

_FOOTER_KEY = "risorius.schema"
_VERSION_FILE = "version"


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
        part: file stem: the video id in tables by batch, else a name of the write.
        metadata: strings for the Parquet footer (fingerprints of inputs and settings).

    Raises:
        TableError: columns are missing, unknown or of another type, or a key repeats.
    """
    table = _table(name)
    path = path_of(home, name, part=part, batch=batch)
    fitted = _fit(table, frame)
    _prepare_version(home.tables)
    with atomic.replace_file(path) as draft:
        save(draft, fitted, footer=metadata or {})
    return path


def save(path: Path, frame: pl.DataFrame, *, footer: Mapping[str, str]) -> None:
    """Write one Parquet file with the current schema version in its footer.

    ``atomic.replace_file`` then fills in the checksum.
    """
    metadata = {**footer, _FOOTER_KEY: str(SCHEMA_VERSION), checksums.KEY: checksums.BLANK}
    frame.write_parquet(path, compression="zstd", statistics=True, metadata=metadata)


def scan(home: Home, name: str, *, batch: str | None = None) -> pl.LazyFrame:
    """Scan a table (or one batch); empty and typed without files.

    Raises:
        TableError: the data directory has a newer schema than this installation.
    """
    table = _table(name)
    files = paths(home, name, batch=batch)
    return scan_files(files, table) if files else table.empty().lazy()


def scan_files(files: list[Path], table: Table) -> pl.LazyFrame:
    """Scan files with all columns of a table; missing ones are null."""
    return pl.scan_parquet(
        files,
        glob=False,  # a path such as `a[b]` is not a pattern
        schema=table.schema,
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
    )


def read(home: Home, name: str, *, batch: str | None = None) -> pl.DataFrame:
    """Collect ``scan``.

    Raises:
        TableError: a file is damaged; names the files.
    """
    try:
        return scan(home, name, batch=batch).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(home, name, error, batch=batch) from error


def unreadable(home: Home, name: str, error: Exception, *, batch: str | None = None) -> TableError:
    """Return the error that names the damaged files of a table."""
    found = damaged(home, name, batch=batch)
    return TableError(
        f"Files of table {name} cannot be read",
        got="damaged " + ", ".join(map(str, found)) if found else str(error).splitlines()[0],
        hint="delete the damaged files and run the stage that wrote them again",
    )


def read_part(home: Home, name: str, *, part: str, batch: str | None = None) -> pl.DataFrame:
    """Read one file; return no rows if it is missing or damaged."""
    path = path_of(home, name, part=part, batch=batch)
    try:
        return scan_files([path], _table(name)).collect()
    except (pl.exceptions.PolarsError, OSError):
        return _table(name).empty()


def damaged(home: Home, name: str, *, batch: str | None = None) -> list[Path]:
    """Read every file of a table (or one batch); return those that fail."""
    found = []
    for path in paths(home, name, batch=batch):
        try:
            pl.scan_parquet(path, glob=False).collect()
        except FileNotFoundError:
            continue
        except (pl.exceptions.PolarsError, OSError):
            found.append(path)
    return found


def paths(home: Home, name: str, *, batch: str | None = None) -> list[Path]:
    """Return the files of a table (or one batch), sorted."""
    table = _table(name)
    folder = home.tables / name
    mirror.sync(folder)
    schema_version(home.tables)
    if table.by_batch:
        pattern = f"batch={check_batch(batch)}/*.parquet" if batch else "batch=*/*.parquet"
    else:
        pattern = "*.parquet"
    return sorted(folder.glob(pattern))


def parts(home: Home, name: str, *, batch: str | None = None) -> set[str]:
    """Return the stems of the files of a table (or one batch)."""
    return {path.stem for path in paths(home, name, batch=batch)}


def metadata(home: Home, name: str, *, part: str, batch: str | None = None) -> dict[str, str]:
    """Return the footer strings of a file; empty if missing or damaged."""
    path = path_of(home, name, part=part, batch=batch)
    mirror.sync(home.tables / name)
    try:
        return dict(pl.read_parquet_metadata(path))
    except (pl.exceptions.PolarsError, OSError):
        return {}


def remove(home: Home, name: str, *, part: str, batch: str | None = None) -> None:
    """Delete one file of a table; a missing file is no error."""
    atomic.remove(path_of(home, name, part=part, batch=batch))


def path_of(home: Home, name: str, *, part: str, batch: str | None = None) -> Path:
    """Return the path of one file: ``<table>/[batch=<batch>/]<part>.parquet``."""
    table = _table(name)
    if table.by_batch != (batch is not None):
        problem = "needs a batch" if table.by_batch else "has no batches"
        raise TableError(
            f"Table {name} {problem}", got=f"batch={batch!r}", hint="fix the call; this is a bug"
        )
    folder = home.tables / name
    if batch is not None:
        folder = folder / f"batch={check_batch(batch)}"
    if not part or "/" in part or part.startswith("."):
        raise TableError(
            "The part is not a file name", got=repr(part), hint="fix the call; this is a bug"
        )
    return folder / f"{part}.parquet"


def schema_version(tables: Path) -> int:
    """Return the schema version of ``tables``; if empty, the current one.

    Raises:
        TableError: it is newer than this installation, or unreadable.
    """
    try:
        text = (tables / _VERSION_FILE).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        holds_files = next(tables.glob("**/*.parquet"), None) is not None
        return 1 if holds_files else SCHEMA_VERSION
    if not text.isdigit():
        raise TableError(
            f"{tables / _VERSION_FILE} does not hold a number",
            got=repr(text[:20]),
            hint="restore it from a backup",
        )
    if int(text) > SCHEMA_VERSION:
        raise TableError(
            f"A newer Risorius wrote the tables in {tables}",
            got=f"schema {text}, this installation reads up to {SCHEMA_VERSION}",
            hint="update this installation: `pip install --upgrade risorius`",
        )
    return int(text)


def write_schema_version(tables: Path) -> None:
    """Record that all files in ``tables`` have the current schema."""
    atomic.write_text(tables / _VERSION_FILE, f"{SCHEMA_VERSION}\n")


def file_schema_version(footer: Mapping[str, str]) -> int:
    """Return the schema version in a Parquet footer."""
    return int(footer.get(_FOOTER_KEY, "1"))


def _prepare_version(tables: Path) -> None:
    """Refuse a newer data directory; record the version in an empty one."""
    if (tables / _VERSION_FILE).is_file():
        schema_version(tables)
        return
    mirror.sync(tables, force=True)  # another machine may have created it
    if schema_version(tables) == SCHEMA_VERSION and not (tables / _VERSION_FILE).is_file():
        write_schema_version(tables)


def _table(name: str) -> Table:
    if name not in TABLES:
        raise TableError("Unknown table", got=repr(name), hint=f"use one of {', '.join(TABLES)}")
    return TABLES[name]


def _fit(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    missing = [column for column in table.columns if column not in frame.columns]
    unknown = [column for column in frame.columns if column not in table.columns]
    if missing or unknown:
        raise TableError(
            f"Rows for table {table.name} have the wrong columns",
            got=f"missing {missing or 'none'}, unknown {unknown or 'none'}",
            hint="see warehouse/storage/schema.py",
        )
    try:
        fitted = frame.select(pl.col(name).cast(kind) for name, kind in table.columns.items())
    except pl.exceptions.PolarsError as error:
        raise TableError(
            f"Rows for table {table.name} have the wrong types",
            got=str(error).splitlines()[0],
            hint="see warehouse/storage/schema.py",
        ) from error
    if fitted.select(table.key).is_duplicated().any():
        raise TableError(
            f"Rows for table {table.name} repeat a key",
            got=f"duplicate ({', '.join(table.key)})",
            hint="keep one row per key before writing",
        )
    return fitted
