"""Back up, restore and verify a data directory.

A backup is one tar file and can be taken while other processes write. Every file of a data
directory is replaced atomically, so each can be copied at any time. References are copied before
their targets: tables first, then Label Studio's database, then images and releases. So no row of
the copy lacks its image, and a pull from the copy finds all votes of its tables. SQLite's online
backup copies its databases.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import polars as pl

from warehouse.errors import MediaError, ReleaseError, TableError
from warehouse.ids import file_sha256
from warehouse.storage import atomic, checksums, media, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

LISTING = "BACKUP.json"
_ORDER = ("tables", "forgetting", "label-studio", "dagster", "salt", "media", "releases", "inbox")
_SQLITE = b"SQLite format 3\x00"
_EXCLUDED = (".draft-", ".salt-", ".lock", "server.json", "server.log", "hint")
_IMAGE_COLUMNS = (("faces", "crop"), ("faces", "context"), ("synthetic_faces", "crop"))


class Backup(NamedTuple):
    """Number and size of the files in a backup."""

    files: int
    bytes: int


class Verified(NamedTuple):
    """Number of files checked of a kind, and one sentence per problem."""

    kind: str
    checked: int
    wrong: list[str]


def backup(home: Home, target: Path) -> Backup:
    """Write a data directory atomically to a tar file with mode 0600.

    It holds accounts and the salt of pseudonyms. It excludes ``cache``, model packs (each user
    accepts their terms), drafts, logs and locks.

    Raises:
        TableError: the home does not exist or is on an object store, or ``target`` is inside it.
    """
    if (url := mirror.url_of(home.root)) is not None:
        raise TableError(
            "The home is on an object store",
            got=url,
            hint="copy the bucket with the store's own tools: versioning, replication, sync",
        )
    if not home.root.is_dir():
        raise TableError(
            "The home does not exist", got=str(home.root), hint="name another one with --home"
        )
    if target.absolute().is_relative_to(home.root):
        raise TableError(
            "The backup file is inside the home", got=str(target), hint="name a file outside it"
        )
    with (
        atomic.replace_file(target) as draft,
        open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out,
        tarfile.open(fileobj=out, mode="w") as tar,
    ):
        listing = _add_all(tar, home)
    return Backup(len(listing), sum(int(str(one["bytes"])) for one in listing.values()))


def restore(source: Path, home: Home) -> Backup:
    """Create a data directory from a backup after all checksums were verified.

    Raises:
        TableError: the home exists, or the backup is truncated, damaged or of a newer schema.
            Nothing is written then.
    """
    if home.root.exists() and any(home.root.iterdir()):
        raise TableError(
            "The home is not empty", got=f"{home.root}", hint="restore into another folder"
        )
    home.root.parent.mkdir(parents=True, exist_ok=True)
    draft = home.root.parent / f".restore-{uuid.uuid4().hex}"
    try:
        draft.mkdir(mode=0o700)
        _unpack(source, draft)
        done = _check(source, draft)
        tables.schema_version(draft / "tables")
        if home.root.exists():
            home.root.rmdir()
        os.rename(draft, home.root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return done


def verify(home: Home, *, progress: Callable[[str], None] | None = None) -> list[Verified]:
    """Read every table, image and release; compare checksums; change nothing.

    An image's name is its checksum, and a release lists those of its files. A table is sound if
    all its columns decode, all its images exist, and its files are those that were written last.
    """
    found = []
    for check in (_verify_tables, _verify_images, _verify_releases):
        found.append(check(home))
        if progress:
            one = found[-1]
            progress(f"{one.kind}: {one.checked} checked, {len(one.wrong)} wrong")
    return found


def _verify_tables(home: Home) -> Verified:
    checked, wrong = 0, []
    for name in TABLES:
        damaged = tables.damaged(home, name)
        checked += len(tables.paths(home, name))
        wrong += [f"{path.relative_to(home.root)} cannot be read" for path in damaged]
    files = [path for name in TABLES for path in tables.paths(home, name)]
    stamped = tables.schema_version(home.tables) >= tables.CHECKSUMS_SINCE
    for problem in checksums.problems(home.tables, files, stamped=stamped):
        if not any(one.startswith(problem.partition(" ")[0] + " ") for one in wrong):
            wrong.append(problem)
    for name, column in _IMAGE_COLUMNS:
        try:
            keys = tables.scan(home, name).select(pl.col(column).unique().drop_nulls()).collect()
        except (TableError, pl.exceptions.PolarsError):
            continue  # the damaged file is in the list
        missing = [key for key in keys[column].sort() if not _exists(home, key)]
        wrong += [f"{name} refers to the image {key}, which is missing" for key in missing]
    return Verified("tables", checked, wrong)


def _verify_images(home: Home) -> Verified:
    checked, wrong = 0, []
    for kind, suffix in media.KINDS.items():
        for path in sorted((home.media / kind).glob(f"??/*{suffix}")):
            checked += 1
            if file_sha256(str(path))[: len(path.stem)] != path.stem:
                wrong.append(f"{path.relative_to(home.root)} does not match its checksum")
    return Verified("pictures", checked, wrong)


def _verify_releases(home: Home) -> Verified:
    from warehouse import releases
    from warehouse.releases import versions

    checked, wrong = 0, []
    for folder in sorted(home.releases.glob("*")) if home.releases.is_dir() else []:
        for number in versions.numbers(folder) if folder.is_dir() else []:
            checked += 1
            try:
                problems = releases.verify(folder / str(number))
            except ReleaseError as error:
                problems = [error.got]
            wrong += [f"{folder.name} {number}: {problem}" for problem in problems]
    return Verified("releases", checked, wrong)


def _exists(home: Home, key: str) -> bool:
    try:
        return media.path_of(home, key).is_file()
    except MediaError:
        return False


def _add_all(tar: tarfile.TarFile, home: Home) -> dict[str, dict[str, object]]:
    listing = {}
    for path in _files(home.root):
        name = str(path.relative_to(home.root))
        try:
            listing[name] = _add(tar, path, name=name)
        except FileNotFoundError:
            continue  # deleted meanwhile
    manifest = {
        "schema": tables.schema_version(home.tables),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": listing,
    }
    text = json.dumps(manifest, indent=1).encode()
    tar.addfile(_entry(LISTING, len(text), mtime=time.time()), io.BytesIO(text))
    return listing


def _files(root: Path) -> Iterator[Path]:
    for name in _ORDER:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            skipped = path.name.startswith(_EXCLUDED) or path.name.endswith(("-wal", "-shm"))
            if path.is_file() and not path.is_symlink() and not skipped:
                yield path


def _add(tar: tarfile.TarFile, path: Path, *, name: str) -> dict[str, object]:
    with path.open("rb") as handle:
        if handle.read(len(_SQLITE)) == _SQLITE:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "copy"
                _copy_database(path, copy)
                with copy.open("rb") as whole:
                    return _stream(tar, whole, name=name, mtime=path.stat().st_mtime)
        handle.seek(0)
        return _stream(tar, handle, name=name, mtime=os.fstat(handle.fileno()).st_mtime)


def _stream(
    tar: tarfile.TarFile, handle: io.BufferedReader, *, name: str, mtime: float
) -> dict[str, object]:
    size = os.fstat(handle.fileno()).st_size
    reader = _HashingReader(handle)
    tar.addfile(_entry(name, size, mtime=mtime), reader)
    return {"bytes": size, "sha256": reader.digest.hexdigest()}


class _HashingReader:
    """Reader that hashes what it reads, to read each file only once."""

    def __init__(self, handle: io.BufferedReader) -> None:
        self.handle, self.digest = handle, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.handle.read(size)
        self.digest.update(data)
        return data


def _entry(name: str, size: int, *, mtime: float) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, int(mtime), 0o600
    return entry


def _copy_database(path: Path, copy: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as original,
        closing(sqlite3.connect(copy)) as target,
    ):
        original.backup(target)


def _unpack(source: Path, folder: Path) -> None:
    try:
        with tarfile.open(source) as tar:
            for entry in tar:
                if not entry.isreg():
                    raise _unusable(source, f"{entry.name} is not a regular file")
                tar.extract(entry, folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise _unusable(source, str(error)) from error
    except OSError as error:
        raise _unusable(source, error.strerror or str(error)) from error


def _check(source: Path, folder: Path) -> Backup:
    listing = folder / LISTING
    if not listing.is_file():
        raise _unusable(source, f"it is truncated: {LISTING} is missing")
    files = json.loads(listing.read_text())["files"]
    listing.unlink()
    unpacked = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if different := sorted(unpacked ^ files.keys()):
        raise _unusable(source, f"missing or unlisted files: {', '.join(different[:3])}")
    for name, entry in files.items():
        if file_sha256(str(folder / name)) != entry["sha256"]:
            raise _unusable(source, f"{name} does not match its checksum")
    return Backup(len(files), sum(entry["bytes"] for entry in files.values()))


def _unusable(source: Path, reason: str) -> TableError:
    return TableError(
        f"The backup {source} cannot be restored", got=reason, hint="use another copy of it"
    )
