"""Which schema a home and each of its files were written with.

A home says so in ``tables/version``, a file in its Parquet footer; without either it is the
first. An older home opens as it is: columns added since read as null.
``warehouse.storage.migrations`` brings
it up to date. A newer one is refused, because what it holds may mean something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from warehouse.errors import TableError
from warehouse.storage import atomic, mirror

SCHEMA = 2
"""1: until files carried a mark. 2: every file has every column and carries the mark."""

MARK = "risorius.schema"
_FILE = "version"


def of_home(tables: Path) -> int:
    """The schema of the home whose tables lie in ``tables``; the present one while it is empty.

    Raises:
        TableError: it is newer than this installation, or its mark cannot be read.
    """
    try:
        text = (tables / _FILE).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return 1 if _holds_rows(tables) else SCHEMA
    if not text.isdigit():
        raise TableError(
            f"a number in {tables / _FILE}", got=repr(text[:20]), hint="restore it from a backup"
        )
    return _checked(int(text), what=str(tables))


def mark_home(tables: Path) -> None:
    """Say that everything in ``tables`` is of the present schema."""
    atomic.write_text(tables / _FILE, f"{SCHEMA}\n")


def settle(tables: Path) -> None:
    """Before a write: refuse a newer home, and mark one that holds nothing yet."""
    if (tables / _FILE).is_file():
        of_home(tables)
        return
    mirror.sync(tables, force=True)  # another machine may have begun this home
    if of_home(tables) == SCHEMA and not (tables / _FILE).is_file():
        mark_home(tables)


def marked(footer: Mapping[str, str]) -> dict[str, str]:
    """``footer`` with the mark of the present schema."""
    return {**footer, MARK: str(SCHEMA)}


def of_file(footer: Mapping[str, str]) -> int:
    """The schema a file was written with."""
    return int(footer.get(MARK, "1"))


def _checked(found: int, *, what: str) -> int:
    if found > SCHEMA:
        raise TableError(
            f"tables of schema {SCHEMA} or older in {what}",
            got=f"schema {found}, written by a newer Risorius",
            hint="update this installation: `pip install --upgrade risorius`",
        )
    return found


def _holds_rows(tables: Path) -> bool:
    return next(tables.glob("**/*.parquet"), None) is not None
