"""An older home brought up to date: every file gets every column and the mark of its schema."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from warehouse.errors import TableError
from warehouse.storage import atomic, schema_version, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


class Migration(NamedTuple):
    """What was done: from which schema to which, files rewritten and found up to date."""

    before: int
    after: int
    rewritten: int
    current: int


def migrate(home: Home, *, say: Callable[[str, int, int], None] | None = None) -> Migration:
    """Rewrite the files of older schemas; the home counts as migrated when all are.

    May be stopped and run again. A file that somebody rewrites meanwhile is left to them: what
    is written today is of the present schema anyway.

    Raises:
        TableError: the home is newer than this installation, or files are damaged; those are
            named, the others were migrated, and the home still counts as old.
    """
    before = schema_version.of_home(home.tables)
    files = [(name, path) for name in TABLES for path in tables.paths(home, name)]
    rewritten, damaged = 0, []
    for number, (name, path) in enumerate(files, start=1):
        try:
            rewritten += _bring_up(name, path)
        except (pl.exceptions.PolarsError, OSError):
            damaged.append(path)
        if say:
            say(name, number, len(files))
    if damaged:
        raise TableError(
            "readable Parquet files",
            got=f"damaged {', '.join(map(str, damaged))}",
            hint="delete what is damaged, run the stage that wrote it, then migrate again",
        )
    if files:
        schema_version.mark_home(home.tables)
    return Migration(before, schema_version.SCHEMA, rewritten, len(files) - rewritten)


def _bring_up(name: str, path: Path) -> bool:
    seen = _look(path)
    if seen is None:
        return False  # removed meanwhile
    footer = dict(pl.read_parquet_metadata(path))
    if schema_version.of_file(footer) >= schema_version.SCHEMA:
        return False
    frame = pl.scan_parquet(
        path,
        glob=False,
        schema=TABLES[name].schema,
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
    ).collect()
    own = {key: text for key, text in footer.items() if not key.startswith("ARROW:")}
    try:
        with atomic.replace_file(path) as draft:
            tables.save(draft, frame, footer=own)
            if _look(path) != seen:
                raise _MovedError
    except _MovedError:
        return False
    return True


class _MovedError(Exception):
    """Somebody else wrote the file meanwhile, and newer than what was read."""


def _look(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
