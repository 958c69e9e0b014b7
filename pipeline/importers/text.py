"""Read the tables and lists of data sets row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.importers.samples import foreign
from warehouse.errors import SettingsError
from warehouse.sidecar import plain_name, separator_of


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of the lines that are not empty.

    Raises:
        SettingsError: the file cannot be read or is no text.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            for number, line in enumerate(handle, start=1):
                if "\0" in line:
                    raise foreign(path, got=f"a NUL in line {number}", what="text")
                if text := line.strip("\r\n \t"):
                    yield number, text
    except UnicodeDecodeError as error:
        raise foreign(path, got=str(error), what="UTF-8 text") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def header(path: Path) -> list[str]:
    """Return the plain column names of a table; empty if it is none."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            line = handle.readline(1 << 16)
    except (OSError, UnicodeDecodeError):
        return []
    if "\0" in line:
        return []
    return [plain_name(cell) for cell in next(csv.reader([line], delimiter=separator_of(line)), [])]


def rows(path: Path, needed: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by plain column name.

    Args:
        needed: columns without which it is not the file of the format.

    Raises:
        SettingsError: a column is missing, or a row has another number of cells: the file was cut
            short or is of another data set.
    """
    columns: list[str] | None = None
    for number, cells in plain_rows(path):
        if columns is None:
            columns = [plain_name(cell) for cell in cells]
            if missing := [name for name in needed if name not in columns]:
                raise foreign(
                    path,
                    got=f"no column {', '.join(missing)}; found {', '.join(columns)[:200]}",
                    what=f"a table with {', '.join(needed)}",
                )
            continue
        if len(cells) != len(columns):
            raise foreign(
                path,
                got=f"line {number}: {len(cells)} cells, {len(columns)} columns",
                what="a whole table",
            )
        yield number, dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def plain_rows(path: Path, separator: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of a table with or without a header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            first = handle.readline(1 << 16)
            handle.seek(0)
            table = csv.reader(handle, delimiter=separator or separator_of(first), strict=True)
            for cells in table:
                if any(cell.strip() for cell in cells):
                    yield table.line_num, cells
    except UnicodeDecodeError as error:
        raise foreign(path, got=str(error), what="UTF-8 text") from None
    except csv.Error as error:
        raise foreign(path, got=str(error), what="a table") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def integer(text: str, path: Path, number: int, what: str) -> int:
    """Return a whole number of a cell.

    Raises:
        SettingsError: it is none.
    """
    value = real(text, path, number, what)
    if value != int(value):
        raise foreign(path, got=f"line {number}: {what} {text!r}", what="a table of whole numbers")
    return int(value)


def real(text: str, path: Path, number: int, what: str) -> float:
    """Return a finite number of a cell.

    Raises:
        SettingsError: it is none.
    """
    try:
        value = float(text)
        if value - value == 0:
            return value
    except ValueError:
        pass
    raise foreign(path, got=f"line {number}: {what} {text!r}", what="a table of numbers") from None


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{path.name} cannot be read",
        got=error.strerror or type(error).__name__,
        hint=f"check {path} and its permissions",
    )
