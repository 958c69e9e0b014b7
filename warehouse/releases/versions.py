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
from typing import Any

import polars as pl

from warehouse import tables
from warehouse.errors import ReleaseError
from warehouse.home import Home
from warehouse.ids import file_sha256
from warehouse.releases.contract import check_name
from warehouse.schema import TABLES

MANIFEST = "manifest.json"
_FOLDER = re.compile(r"v([1-9][0-9]*)")
_DRAFT = ".building-"
_KEYS = {"code_version", "files", "inputs", "parent", "rows", "splits", "version"}


@dataclass(frozen=True)
class Release:
    """One version on disk.

    Attributes:
        version: ``v1``, ``v2``, …
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
        for draft in folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)
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
    if target.exists():
        raise ReleaseError(
            f"no {target.name} yet in {target.parent}",
            got="a folder of that name",
            mend="leave versions as they are and build again",
        )
    os.rename(path, target)
    _sync(target.parent)


def numbers(folder: Path) -> list[int]:
    """Every version number a folder bears, sound or not, in order."""
    if not folder.is_dir():
        return []
    found = (_FOLDER.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(int(match.group(1)) for match in found if match)


def next_number(home: Home, name: str) -> int:
    """One more than any number ever given; a deleted version's number is not given again."""
    recorded = tables.read(home, "releases").filter(pl.col("name") == name)["version"].to_list()
    return max([0, *numbers(home.releases / name), *recorded]) + 1


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
            mend="name a version that `risorius release list` shows",
        ) from error
    except (ValueError, OSError) as error:
        raise ReleaseError(
            f"a readable {MANIFEST} in {path}",
            got=f"a damaged one ({error})",
            mend="put the version back from a copy, or move its folder away",
        ) from error
    return facts


def resolve(home: Home, name: str, version: str | int = "latest") -> Path:
    """The folder of a version written as ``latest``, ``v2``, ``2`` or 2.

    Raises:
        ReleaseError: there is no such release or version; lists what there is.
    """
    folder = home.releases / check_name(name)
    there = numbers(folder)
    text = str(version).removeprefix("v")
    number = there[-1] if there and text == "latest" else int(text) if text.isdecimal() else None
    if number not in there:
        listed = ", ".join(f"v{known}" for known in there)
        raise ReleaseError(
            f"version {version} of release {name!r}",
            got=f"only {listed}" if there else f"no version in {home.releases}",
            mend="name one of those" if there else "make one with `risorius release create`",
        )
    return folder / f"v{number}"


def record(home: Home, name: str) -> None:
    """Write the rows of the table ``releases`` that versions on disk still lack.

    The row follows the rename; a build killed in between leaves a version without one, and the
    next build puts it right from the manifest.
    """
    known = tables.parts(home, "releases")
    for number in numbers(home.releases / name):
        part = f"{name}-v{number}"
        path = home.releases / name / f"v{number}"
        if part in known or not (path / MANIFEST).exists():
            continue
        facts = manifest(path)
        row = {
            "name": name,
            "version": number,
            "created_at": datetime.fromtimestamp((path / MANIFEST).stat().st_mtime, UTC),
            "parent": facts["parent"],
            "rows": facts["rows"],
            "fingerprint": file_sha256(str(path / MANIFEST)),
            "code_version": facts["code_version"],
            "inputs": json.dumps(facts["inputs"], sort_keys=True),
        }
        frame = pl.DataFrame([row], schema=TABLES["releases"].schema)
        tables.write(home, "releases", frame, part=part)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
