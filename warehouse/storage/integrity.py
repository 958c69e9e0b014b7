"""Does a home still hold what was written? Every checksum that it carries, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from warehouse import releases
from warehouse.errors import MediaError, ReleaseError, TableError
from warehouse.ids import file_sha256
from warehouse.releases import versions
from warehouse.storage import media, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

_POINTING = (("faces", "crop"), ("faces", "context"), ("synthetic_faces", "crop"))


class Verified(NamedTuple):
    """How many files of a kind were read, and what is wrong with which, one sentence each."""

    kind: str
    checked: int
    wrong: list[str]


def verify(home: Home, *, say: Callable[[str], None] | None = None) -> list[Verified]:
    """Read every table, picture and release of a home; changes nothing.

    A picture's name is its checksum, a release lists its files' checksums, and a table is sound
    when every column of it can be decoded and every picture it names is there.
    """
    found = []
    for check in (_tables, _pictures, _releases):
        found.append(check(home))
        if say:
            say(f"{found[-1].kind}: {found[-1].checked} checked, {len(found[-1].wrong)} wrong")
    return found


def _tables(home: Home) -> Verified:
    checked, wrong = 0, []
    for name in TABLES:
        damaged = tables.damaged(home, name)
        checked += len(tables.paths(home, name))
        wrong += [f"{path.relative_to(home.root)} cannot be read" for path in damaged]
    for name, column in _POINTING:
        try:
            keys = tables.scan(home, name).select(pl.col(column).unique().drop_nulls()).collect()
        except (TableError, pl.exceptions.PolarsError):
            continue  # the damaged file is named already
        gone = [key for key in keys[column].sort() if not _is_there(home, key)]
        wrong += [f"{name} names the picture {key}, which is gone" for key in gone]
    return Verified("tables", checked, wrong)


def _pictures(home: Home) -> Verified:
    checked, wrong = 0, []
    for path in _stored(home):
        checked += 1
        if file_sha256(str(path))[: len(path.stem)] != path.stem:
            wrong.append(f"{path.relative_to(home.root)} holds other bytes than were written")
    return Verified("pictures", checked, wrong)


def _releases(home: Home) -> Verified:
    checked, wrong = 0, []
    for folder in sorted(home.releases.glob("*")) if home.releases.is_dir() else []:
        for number in versions.numbers(folder) if folder.is_dir() else []:
            path = folder / str(number)
            checked += 1
            try:
                wrong += [f"{folder.name} {number}: {said}" for said in releases.verify(path)]
            except ReleaseError as error:
                wrong.append(f"{folder.name} {number}: {error.got}")
    return Verified("releases", checked, wrong)


def _stored(home: Home) -> Iterator[Path]:
    for kind, suffix in media.KINDS.items():
        yield from sorted((home.media / kind).glob(f"??/*{suffix}"))


def _is_there(home: Home, key: str) -> bool:
    try:
        return mirror.ensure_local(media.path_of(home, key)).is_file()
    except MediaError:
        return False
