"""Back up, restore and verify a data directory.

A backup is one tar file and can be taken while other processes write. Every file of a data
directory is replaced atomically, so each can be copied at any time. References are copied before
their targets: tables first, then Label Studio's database, then images and releases. So no row of
the copy lacks its image, and a pull from the copy finds all votes of its tables. SQLite's online
backup copies the databases of the home.

The inbox belongs to its user: every file in it is kept, whatever its name or content, a linked file
as a file. What cannot be kept is listed with the reason. No file stops a backup.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import polars as pl

from warehouse.errors import DiskError, MediaError, ReleaseError, TableError, system_failure
from warehouse.ids import file_sha256
from warehouse.storage import atomic, checksums, locks, media, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

LISTING = "BACKUP.json"
_DRAFT = ".restore-"
_ORDER = ("tables", "forgetting", "label-studio", "dagster", "salt", "media", "releases", "inbox")
_SQLITE = b"SQLite format 3\x00"
_NOT_KEPT = ("cache", "models")
_DATABASES = ("tables", "label-studio", "dagster")
"""Folders in which a SQLite file is one of ours."""

_PASSING = (".draft-", ".salt-", ".lock", ".building-", ".withdrawn-")
"""First letters of files and folders that a process needs while it runs, outside the inbox."""

_OF_SERVER = ("server.json", "server.log", "hint")
"""First letters of files in ``label-studio`` that its server writes when it starts."""

_IMAGE_COLUMNS = (("faces", "crop"), ("faces", "context"), ("synthetic_faces", "crop"))


class Backup(NamedTuple):
    """Number and size of the files in a backup.

    ``missing`` lists ``<file>: <why>`` for what the backup lacks.
    """

    files: int
    bytes: int
    missing: list[str]


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
        locks.writing(home.root),  # never half of an erasure
    ):
        return _add_all(tar, home)


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
    for stale in home.root.parent.glob(f"{_DRAFT}*"):
        if locks.has_exited(stale.name.removeprefix(_DRAFT)):
            shutil.rmtree(stale, ignore_errors=True)
    draft = home.root.parent / f"{_DRAFT}{locks.process_tag()}-{uuid.uuid4().hex}"
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


def _add_all(tar: tarfile.TarFile, home: Home) -> Backup:
    listing: dict[str, dict[str, object]] = {}
    missing: list[str] = []
    for path in _files(home.root, missing):
        name = str(path.relative_to(home.root))
        try:
            listing[name], problem = _add(tar, path, name=name, home=home)
            missing += [f"{name}: {problem}"] if problem else []
        except FileNotFoundError:
            continue  # deleted meanwhile
        except OSError as error:
            missing.append(f"{name}: it cannot be read ({error.strerror})")
    manifest = {
        "schema": tables.schema_version(home.tables),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": listing,
        "missing": missing,
    }
    text = json.dumps(manifest, indent=1).encode()
    tar.addfile(_entry(LISTING, len(text), mtime=time.time()), io.BytesIO(text))
    return Backup(len(listing), sum(int(str(one["bytes"])) for one in listing.values()), missing)


def _files(root: Path, missing: list[str]) -> Iterator[Path]:
    """Yield the files to keep; add the others to ``missing``."""
    more = sorted({path.name for path in root.iterdir()} - {*_ORDER, *_NOT_KEPT})
    for name in (*_ORDER, *(name for name in more if not name.startswith("."))):
        if (root / name).is_file():
            yield root / name
            continue
        unreadable: list[OSError] = []
        for folder, folders, names in os.walk(root / name, onerror=unreadable.append):
            here = Path(folder).relative_to(root)
            folders[:] = sorted(one for one in folders if not _is_passing(here / one))
            links = [one for one in folders if (root / here / one).is_symlink()]
            for one in sorted([*names, *links]):
                if _is_passing(here / one):
                    continue
                if (why := _reason_not_to_keep(root / here / one)) is not None:
                    missing.append(f"{here / one}: {why}")
                else:
                    yield root / here / one
        missing += [
            f"{Path(error.filename).relative_to(root)}: {error.strerror}"
            for error in unreadable
            if not isinstance(error, FileNotFoundError)
        ]


def _is_passing(path: Path) -> bool:
    """Return whether a path below the home is of a running process."""
    top, name = path.parts[0], path.name
    if top == "inbox":
        return False
    return (
        name.startswith(_PASSING)
        or (top == "label-studio" and name.startswith(_OF_SERVER))
        or (top in _DATABASES and name.endswith(("-wal", "-shm")))
    )


def _reason_not_to_keep(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"a dangling link ({error.strerror})" if path.is_symlink() else None
    if stat.S_ISDIR(mode):
        return f"a link to the folder {os.readlink(path)}"
    return None if stat.S_ISREG(mode) else "no file"


def _add(
    tar: tarfile.TarFile, path: Path, *, name: str, home: Home
) -> tuple[dict[str, object], str | None]:
    """Add a file; return its entry of the list and a problem or None."""
    with path.open("rb") as handle:
        ours = path.relative_to(home.root).parts[0] in _DATABASES
        if ours and handle.read(len(_SQLITE)) == _SQLITE:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "copy"
                try:
                    _copy_database(path, copy)
                    with copy.open("rb") as whole:
                        return _stream(tar, whole, name=name, like=path)
                except sqlite3.DatabaseError as error:
                    problem = f"SQLite cannot read it ({error}); its bytes are kept"
                handle.seek(0)
                return _stream(tar, handle, name=name, like=path)[0], problem
        handle.seek(0)
        return _stream(tar, handle, name=name, like=path)


def _stream(
    tar: tarfile.TarFile, handle: io.BufferedReader, *, name: str, like: Path
) -> tuple[dict[str, object], str | None]:
    own, times = os.fstat(handle.fileno()), like.stat()
    reader = _HashingReader(handle)
    tar.addfile(_entry(name, own.st_size, mtime=times.st_mtime), reader)
    entry = {
        "bytes": own.st_size,
        "sha256": reader.digest.hexdigest(),
        "mtime_ns": times.st_mtime_ns,
    }
    changed = os.fstat(handle.fileno()).st_size != own.st_size
    return entry, "it changed while it was copied" if reader.short or changed else None


class _HashingReader:
    """Reader that hashes what it reads, to read each file only once.

    A file that became shorter is filled up with zeros, because its size is in the archive already.
    """

    def __init__(self, handle: io.BufferedReader) -> None:
        self.handle, self.digest, self.short = handle, hashlib.sha256(), False

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self.handle.read(size)
        except OSError:
            data = b""
        if len(data) < size:
            self.short, data = True, data + bytes(size - len(data))
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
        failure = system_failure(error)
        if isinstance(failure, DiskError):
            raise failure from error
        raise _unusable(source, error.strerror or str(error)) from error


def _check(source: Path, folder: Path) -> Backup:
    listing = folder / LISTING
    if not listing.is_file():
        raise _unusable(source, f"it is truncated: {LISTING} is missing")
    try:
        manifest = json.loads(listing.read_bytes())
        files = {name: (one["sha256"], one["bytes"], one.get("mtime_ns"))
                 for name, one in manifest["files"].items()}  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(source, f"{LISTING} is damaged: {error}") from None
    listing.unlink()
    unpacked = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if different := sorted(unpacked ^ files.keys()):
        raise _unusable(source, f"missing or unlisted files: {', '.join(different[:3])}")
    for name, (sha256, _, when) in files.items():
        if file_sha256(str(folder / name)) != sha256:
            raise _unusable(source, f"{name} does not match its checksum")
        if when:  # not in the archive to the nanosecond
            os.utime(folder / name, ns=(when, when))
    sizes = sum(size for _, size, _ in files.values())
    return Backup(len(files), sizes, manifest.get("missing", []))


def _unusable(source: Path, reason: str) -> TableError:
    return TableError(
        f"The backup {source} cannot be restored", got=reason, hint="use another copy of it"
    )
