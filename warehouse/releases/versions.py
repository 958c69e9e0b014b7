"""Find, lock, create and delete the folders ``releases/<name>/v<N>``."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256
from warehouse.releases import manifest
from warehouse.releases.schema import check_name
from warehouse.storage import atomic, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

_FOLDER = re.compile(r"v([1-9][0-9]*)(?:\.([1-9][0-9]*))?")
_DRAFT = ".building-"
_DELETED = ".withdrawn-"


class VersionNumber(NamedTuple):
    """Number of a version, such as ``v3`` or its patch ``v3.1``."""

    major: int
    patch: int = 0

    def __str__(self) -> str:
        return f"v{self.major}.{self.patch}" if self.patch else f"v{self.major}"


@dataclass(frozen=True)
class Release:
    """One version on disk.

    Attributes:
        version: ``v1``, ``v2``, …, or ``v1.1`` for v1 without an erased data subject.
        rows: faces in config ``default``; None if the manifest cannot be read.
        created: True only if the call that returned this object wrote the version.
        problem: why the version cannot be read, or None.
    """

    name: str
    version: str
    path: Path
    rows: int | None
    created: bool = False
    problem: str | None = None


@contextmanager
def locked(home: Home, name: str) -> Iterator[Path]:
    """Lock release ``name`` for building and yield its folder without drafts.

    A second builder waits, and then finds what the first has made.
    """
    folder = home.releases / check_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # No other process builds under the lock, so every draft belongs to a dead process.
        for stale in drafts(folder):
            shutil.rmtree(stale, ignore_errors=True)
        mirror.sync_and_clean(folder)
        yield folder


def drafts(folder: Path) -> list[Path]:
    """Return the folders of versions that are being written or deleted."""
    return [path for mark in (_DRAFT, _DELETED) for path in folder.glob(f"{mark}*")]


def new_draft(folder: Path) -> Path:
    """Create an empty draft folder beside the versions."""
    path = folder / f"{_DRAFT}{uuid.uuid4().hex}"
    path.mkdir()
    return path


def commit(draft: Path, target: Path) -> None:
    """Make a finished draft a version: sync all files, then rename once.

    Raises:
        ReleaseError: ``target`` exists; it is not changed.
    """
    for item in sorted(draft.rglob("*")):
        _sync(item)
    _sync(draft)
    try:
        atomic.publish(draft, target)
    except FileExistsError:
        raise ReleaseError(
            f"Version {target.name} already exists in {target.parent}",
            got="a folder has that name",
            hint="do not edit versions by hand; build again",
        ) from None
    _sync(target.parent)


def delete(path: Path) -> None:
    """Delete a version; after a kill, ``locked`` completes it.

    Call it under ``locked``.
    """
    hidden = path.parent / f"{_DELETED}{uuid.uuid4().hex}"
    atomic.unpublish(path, hidden)
    _sync(path.parent)
    shutil.rmtree(hidden)


def numbers(folder: Path) -> list[VersionNumber]:
    """Return the sorted numbers of all version folders, damaged ones too."""
    mirror.sync(folder)
    if not folder.is_dir():
        return []
    found = (_FOLDER.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(VersionNumber(int(match[1]), int(match[2] or 0)) for match in found if match)


def next_number(home: Home, name: str) -> VersionNumber:
    """Return one more than any number ever used, deleted ones included."""
    recorded = tables.read(home, "releases").filter(pl.col("name") == name)["version"].to_list()
    on_disk = [number.major for number in numbers(home.releases / name)]
    return VersionNumber(max([0, *on_disk, *recorded]) + 1)


def next_patch(home: Home, name: str, major: int) -> VersionNumber:
    """Return the next patch number of ``v<major>``; none is used twice."""
    known = tables.read(home, "releases").filter(pl.col("name") == name, version=major)
    recorded = known["patch"].fill_null(0).to_list()
    on_disk = [n.patch for n in numbers(home.releases / name) if n.major == major]
    return VersionNumber(major, max([0, *on_disk, *recorded]) + 1)


def resolve(home: Home, name: str, version: str | int = "latest") -> Path:
    """Return the folder of version ``latest``, ``v2``, ``2`` or 2.

    Raises:
        ReleaseError: there is no such release or version; the message lists the existing ones.
    """
    folder = home.releases / check_name(name)
    existing = numbers(folder)
    match = _FOLDER.fullmatch("v" + str(version).removeprefix("v"))
    wanted = VersionNumber(int(match[1]), int(match[2] or 0)) if match else None
    if existing and str(version) == "latest":
        wanted = existing[-1]
    if wanted not in existing:
        patches = [number for number in existing if wanted and number.major == wanted.major]
        if patches:
            hint = f"use {patches[-1]}, which replaced it after an erasure"
        else:
            hint = "name one of those" if existing else "make one with `risorius release create`"
        listed = ", ".join(map(str, existing))
        raise ReleaseError(
            f"Release {name!r} has no version {version}",
            got=f"only {listed}" if existing else f"no version in {home.releases}",
            hint=hint,
        )
    return folder / str(wanted)


def record_rows(home: Home, name: str) -> None:
    """Write missing rows of the table ``releases`` for versions on disk.

    A row is written after the rename. If a build is killed in between, the next build writes the
    row from the manifest.
    """
    known = tables.parts(home, "releases")
    for number in numbers(home.releases / name):
        part = _part(name, str(number))
        path = home.releases / name / str(number)
        if part in known or not (path / manifest.FILE).exists():
            continue
        contents = manifest.read(path)
        row = {
            "name": name,
            "version": number.major,
            "patch": number.patch,
            "created_at": datetime.fromtimestamp((path / manifest.FILE).stat().st_mtime, UTC),
            "parent": contents["parent"],
            "rows": contents["rows"],
            "fingerprint": file_sha256(str(path / manifest.FILE)),
            "code_version": contents["code_version"],
            "inputs": json.dumps(contents["inputs"], sort_keys=True),
            "published": [],
        }
        frame = pl.DataFrame([row], schema_overrides=TABLES["releases"].schema).with_columns(
            withdrawn_at=None, replaced_by=None
        )
        tables.write(home, "releases", frame, part=part)


def update_row(home: Home, name: str, version: str, **changes: object) -> None:
    """Change columns of a version's row in ``releases``, if it has one.

    Call it under ``locked``.
    """
    row = _rows_of(home, name, version)
    if row.height:
        kinds = TABLES["releases"].schema
        changed = [pl.lit(value, dtype=kinds[key]).alias(key) for key, value in changes.items()]
        tables.write(home, "releases", row.with_columns(changed), part=_part(name, version))


def add_published(home: Home, name: str, version: str, location: str) -> None:
    """Add a Hub repository to a version's column ``published``.

    Call it under ``locked``.
    """
    known = _rows_of(home, name, version)["published"].explode().drop_nulls().to_list()
    update_row(home, name, version, published=sorted({*known, location}))


def _rows_of(home: Home, name: str, version: str) -> pl.DataFrame:
    match = _FOLDER.fullmatch(version)
    assert match, version
    major, patch = (int(part) for part in match.groups(default="0"))
    rows = tables.read(home, "releases").filter(pl.col("name") == name, version=major)
    return rows.filter(pl.col("patch").fill_null(0) == patch)


def _part(name: str, version: str) -> str:
    return f"{name}-{version}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
