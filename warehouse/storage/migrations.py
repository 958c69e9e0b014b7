"""Migrate an older data directory to the current schema."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from warehouse.errors import TableError
from warehouse.storage import atomic, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


class Migration(NamedTuple):
    """Schema versions, and numbers of files rewritten and current."""

    before: int
    after: int
    rewritten: int
    current: int


def migrate(home: Home, *, progress: Callable[[str, int, int], None] | None = None) -> Migration:
    """Rewrite all files of older schemas, then record the current version.

    It can be stopped and run again. A file that another process replaces meanwhile is skipped,
    because it has the current schema.

    Args:
        progress: called with table, file number and file count.

    Raises:
        TableError: the data directory is newer than this installation, or files are damaged. The
            other files were migrated, and the recorded version stays old.
    """
    before = tables.schema_version(home.tables)
    files = [(name, path) for name in TABLES for path in tables.paths(home, name)]
    rewritten, damaged = 0, []
    for number, (name, path) in enumerate(files, start=1):
        try:
            rewritten += _rewrite(name, path)
        except (pl.exceptions.PolarsError, OSError):
            damaged.append(path)
        if progress:
            progress(name, number, len(files))
    if damaged:
        raise TableError(
            "Files cannot be migrated",
            got=f"damaged {', '.join(map(str, damaged))}",
            hint="delete the damaged files, run the stage that wrote them, then migrate again",
        )
    if files:
        tables.write_schema_version(home.tables)
    return Migration(before, tables.SCHEMA_VERSION, rewritten, len(files) - rewritten)


class _ReplacedError(Exception):
    """Another process replaced the file after it was read."""


def _rewrite(name: str, path: Path) -> bool:
    """Rewrite one file; return False if it is current or has changed."""
    before = _identity(path)
    if before is None:
        return False
    footer = dict(pl.read_parquet_metadata(path))
    if tables.file_schema_version(footer) >= tables.SCHEMA_VERSION:
        return False
    frame = _name_items(name, tables.scan_files([path], TABLES[name]).collect())
    own = {key: text for key, text in footer.items() if not key.startswith("ARROW:")}
    try:
        with atomic.replace_file(path) as draft:
            tables.save(draft, frame, footer=own)
            if _identity(path) != before:
                raise _ReplacedError
    except _ReplacedError:
        return False
    return True


def _name_items(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Name the item of rows that know only their face."""
    if name not in ("annotations", "soft_labels"):
        return frame
    of_face = pl.col("item_kind").is_null() & pl.col("face_id").is_not_null()
    named = {
        "item_kind": pl.when(of_face).then(pl.lit("face")).otherwise("item_kind"),
        "item_id": pl.when(of_face).then("face_id").otherwise("item_id"),
    }
    if name == "soft_labels":
        named["label_set"] = pl.when(of_face).then(pl.lit("expressions8")).otherwise("label_set")
        as_list = pl.col("expression").arr.to_list()
        named["distribution"] = pl.when(of_face).then(as_list).otherwise("distribution")
    return frame.with_columns(**named)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
