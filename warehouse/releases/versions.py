"""The folders ``releases/<name>/v<N>``: found, locked, published by one rename, never changed."""

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
from typing import Any, NamedTuple

import polars as pl

from warehouse.errors import ReleaseError
from warehouse.ids import file_sha256
from warehouse.releases.schema import check_name
from warehouse.storage import atomic, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

MANIFEST = "manifest.json"
_FOLDER = re.compile(r"v([1-9][0-9]*)(?:\.([1-9][0-9]*))?")
_DRAFT = ".building-"
_WITHDRAWN = ".withdrawn-"
_KEYS = {"code_version", "files", "inputs", "parent", "rows", "splits", "version"}


class Number(NamedTuple):
    """A version's number: ``v3``, or ``v3.1`` for v3 without somebody who left."""

    major: int
    patch: int = 0

    def __str__(self) -> str:
        return f"v{self.major}.{self.patch}" if self.patch else f"v{self.major}"


@dataclass(frozen=True)
class Release:
    """One version on disk.

    Attributes:
        version: ``v1``, ``v2``, …, or ``v1.1`` where somebody left v1.
        rows: faces in config ``default``; None where the manifest cannot be read.
        created: True only where the call that returned this wrote it.
        problem: why it cannot be read, or None.
    """

    name: str
    version: str
    path: Path
    rows: int | None
    created: bool = False
    problem: str | None = None


@contextmanager
def locked(home: Home, name: str) -> Iterator[Path]:
    """Hold the only right to build ``name``; yields its folder, swept of half-built versions.

    A second builder waits, and then finds what the first has made.
    """
    folder = home.releases / check_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Under the lock nobody else builds here, so every draft is of a process that died.
        for pattern in (f"{_DRAFT}*", f"{_WITHDRAWN}*"):
            for left in folder.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)
        mirror.sync_and_clean(folder)
        yield folder


def draft(folder: Path) -> Path:
    """A new empty folder beside the versions that no reader takes for one."""
    path = folder / f"{_DRAFT}{uuid.uuid4().hex}"
    path.mkdir()
    return path


def publish(path: Path, target: Path) -> None:
    """Make a finished draft a version: everything on disk first, then one rename.

    Raises:
        ReleaseError: ``target`` exists; it stays as it is.
    """
    for item in sorted(path.rglob("*")):
        _sync(item)
    _sync(path)
    try:
        atomic.publish(path, target)
    except FileExistsError:
        raise ReleaseError(
            f"no {target.name} yet in {target.parent}",
            got="a folder of that name",
            hint="leave versions as they are and build again",
        ) from None
    _sync(target.parent)


def numbers(folder: Path) -> list[Number]:
    """Every version number a folder bears, sound or not, in order."""
    mirror.sync(folder)
    if not folder.is_dir():
        return []
    found = (_FOLDER.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(Number(int(match[1]), int(match[2] or 0)) for match in found if match)


def next_number(home: Home, name: str) -> Number:
    """One more than any number ever given; a deleted version's number is not given again."""
    recorded = tables.read(home, "releases").filter(pl.col("name") == name)["version"].to_list()
    there = [number.major for number in numbers(home.releases / name)]
    return Number(max([0, *there, *recorded]) + 1)


def next_patch(home: Home, name: str, major: int) -> Number:
    """The next number for ``v<major>`` without somebody who left; none is given twice."""
    known = tables.read(home, "releases").filter(pl.col("name") == name, version=major)
    recorded = known["patch"].fill_null(0).to_list()
    there = [n.patch for n in numbers(home.releases / name) if n.major == major]
    return Number(major, max([0, *there, *recorded]) + 1)


def withdraw(path: Path) -> None:
    """Take a version off the disk. Half done when killed, ``locked`` does the other half.

    Call under ``locked``.
    """
    hidden = path.parent / f"{_WITHDRAWN}{uuid.uuid4().hex}"
    atomic.unpublish(path, hidden)
    _sync(path.parent)
    shutil.rmtree(hidden)


def manifest(path: Path) -> dict[str, Any]:
    """What a version says about itself.

    Raises:
        ReleaseError: there is no version at ``path``, or its manifest is damaged.
    """
    file = path / MANIFEST
    try:
        facts = json.loads(file.read_text())
        if not isinstance(facts, dict) or not facts.keys() >= _KEYS:
            raise ValueError("keys are missing")
    except FileNotFoundError as error:
        raise ReleaseError(
            f"a release at {path}",
            got="no folder" if not path.exists() else f"a folder without {MANIFEST}",
            hint="name a version that `risorius release list` shows",
        ) from error
    except (ValueError, OSError) as error:
        raise ReleaseError(
            f"a readable {MANIFEST} in {path}",
            got=f"a damaged one ({error})",
            hint="put the version back from a copy, or move its folder away",
        ) from error
    return facts


def resolve(home: Home, name: str, version: str | int = "latest") -> Path:
    """The folder of a version written as ``latest``, ``v2``, ``2`` or 2.

    Raises:
        ReleaseError: there is no such release or version; lists what there is.
    """
    folder = home.releases / check_name(name)
    there = numbers(folder)
    match = _FOLDER.fullmatch("v" + str(version).removeprefix("v"))
    asked = Number(int(match[1]), int(match[2] or 0)) if match else None
    if there and str(version) == "latest":
        asked = there[-1]
    if asked not in there:
        listed = ", ".join(map(str, there))
        later = [number for number in there if asked and number.major == asked.major]
        raise ReleaseError(
            f"version {version} of release {name!r}",
            got=f"only {listed}" if there else f"no version in {home.releases}",
            hint=f"take {later[-1]}, which replaced it when somebody left"
            if later
            else "name one of those"
            if there
            else "make one with `risorius release create`",
        )
    return folder / str(asked)


def record(home: Home, name: str) -> None:
    """Write the rows of the table ``releases`` that versions on disk still lack.

    The row follows the rename; a build killed in between leaves a version without one, and the
    next build puts it right from the manifest.
    """
    known = tables.parts(home, "releases")
    for number in numbers(home.releases / name):
        part = part_of(name, str(number))
        path = home.releases / name / str(number)
        if part in known or not (path / MANIFEST).exists():
            continue
        facts = manifest(path)
        row = {
            "name": name,
            "version": number.major,
            "patch": number.patch,
            "created_at": datetime.fromtimestamp((path / MANIFEST).stat().st_mtime, UTC),
            "parent": facts["parent"],
            "rows": facts["rows"],
            "fingerprint": file_sha256(str(path / MANIFEST)),
            "code_version": facts["code_version"],
            "inputs": json.dumps(facts["inputs"], sort_keys=True),
            "published": [],
        }
        frame = pl.DataFrame([row], schema_overrides=TABLES["releases"].schema).with_columns(
            withdrawn_at=None, replaced_by=None
        )
        tables.write(home, "releases", frame, part=part)


def note(home: Home, name: str, version: str, **changes: object) -> None:
    """Change columns of a version's row in ``releases``: where it was published, its withdrawal.

    Call under ``locked``. Nothing happens for a version that has no row.
    """
    major, patch = _FOLDER.fullmatch(version).groups(default="0")  # type: ignore[union-attr]
    mine = (pl.col("name") == name) & (pl.col("version") == int(major))
    row = tables.read(home, "releases").filter(mine, pl.col("patch").fill_null(0) == int(patch))
    if row.height:
        kinds = TABLES["releases"].schema
        changed = [pl.lit(value, dtype=kinds[key]).alias(key) for key, value in changes.items()]
        tables.write(home, "releases", row.with_columns(changed), part=part_of(name, version))


def part_of(name: str, version: str) -> str:
    """The file of the table ``releases`` that holds a version's row."""
    return f"{name}-{version}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
