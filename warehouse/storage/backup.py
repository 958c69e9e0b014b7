"""A home in one file, taken while others write, and a home made from it again.

Every file of a home is whole or not there, so each can be copied at any moment. What points is
copied before what it points to: tables first, then Label Studio's database, then pictures and
releases. So no row of the copy lacks its picture, and no pull from the copy finds fewer votes
than its tables hold. SQLite files are taken by SQLite's own online backup.
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
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from warehouse.errors import TableError
from warehouse.ids import file_sha256
from warehouse.storage import atomic, mirror, schema_version
from warehouse.storage.home import Home

LISTING = "BACKUP.json"
_ORDER = ("tables", "forgetting", "label-studio", "dagster", "salt", "media", "releases", "inbox")
_SQLITE = b"SQLite format 3\x00"
_LEFT_OUT = (".draft-", ".salt-", ".lock", "server.json", "server.log", "hint")


class Backup(NamedTuple):
    """What a backup holds."""

    files: int
    bytes: int


def backup(home: Home, target: Path) -> Backup:
    """Write a home into the tar file ``target``, whole or not at all, for its owner's eyes only.

    It holds accounts and the salt of pseudonyms. Left out: ``cache``, model packs (each user
    accepts their terms), drafts, logs and locks.

    Raises:
        TableError: there is no home, it is on an object store, or ``target`` lies inside it.
    """
    if (url := mirror.url_of(home.root)) is not None:
        raise TableError(
            "a home on this machine",
            got=url,
            hint="copy the bucket with the store's own means: versioning, replication, sync",
        )
    if not home.root.is_dir() or target.absolute().is_relative_to(home.root):
        raise TableError(
            f"a home at {home.root} and a file outside it",
            got="no folder" if not home.root.is_dir() else str(target),
            hint="name another file, or the home with --home",
        )
    with (
        atomic.replace_file(target) as draft,
        open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out,
        tarfile.open(fileobj=out, mode="w") as tar,
    ):
        listing = _add_all(tar, home)
    return Backup(len(listing), sum(int(str(one["bytes"])) for one in listing.values()))


def restore(source: Path, home: Home) -> Backup:
    """Make a home from a backup; every checksum is compared before anything is in place.

    Raises:
        TableError: the home is there already, or the backup is cut off, damaged or of a newer
            schema. Nothing is left behind then.
    """
    if home.root.exists() and any(home.root.iterdir()):
        raise TableError(
            "a home that is not there yet", got=f"{home.root}", hint="restore into another folder"
        )
    home.root.parent.mkdir(parents=True, exist_ok=True)
    draft = home.root.parent / f".restore-{uuid.uuid4().hex}"
    try:
        draft.mkdir(mode=0o700)
        _unpack(source, draft)
        done = _check(source, draft)
        schema_version.of_home(draft / "tables")
        if home.root.exists():
            home.root.rmdir()
        os.rename(draft, home.root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return done


def _add_all(tar: tarfile.TarFile, home: Home) -> dict[str, dict[str, object]]:
    listing = {}
    for path in _files(home.root):
        name = str(path.relative_to(home.root))
        try:
            listing[name] = _add(tar, path, name=name)
        except FileNotFoundError:
            continue  # replaced or erased meanwhile
    facts = {
        "schema": schema_version.of_home(home.tables),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": listing,
    }
    text = json.dumps(facts, indent=1).encode()
    tar.addfile(_entry(LISTING, len(text), mtime=time.time()), io.BytesIO(text))
    return listing


def _files(root: Path) -> Iterator[Path]:
    for name in _ORDER:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            skipped = path.name.startswith(_LEFT_OUT) or path.name.endswith(("-wal", "-shm"))
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
    reader = _Summing(handle)
    tar.addfile(_entry(name, size, mtime=mtime), reader)
    return {"bytes": size, "sha256": reader.digest.hexdigest()}


class _Summing:
    """Reads on and keeps the sum of what was read: one pass over a file, not two."""

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
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as here,
        closing(sqlite3.connect(copy)) as there,
    ):
        here.backup(there)


def _unpack(source: Path, folder: Path) -> None:
    try:
        with tarfile.open(source) as tar:
            for entry in tar:
                if not entry.isreg():
                    raise _unfit(source, f"{entry.name}, which is no plain file")
                tar.extract(entry, folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise _unfit(source, str(error)) from error
    except OSError as error:
        raise _unfit(source, error.strerror or str(error)) from error


def _check(source: Path, folder: Path) -> Backup:
    listing = folder / LISTING
    if not listing.is_file():
        raise _unfit(source, "one that was cut off: its listing is missing")
    files = json.loads(listing.read_text())["files"]
    listing.unlink()
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if odd := sorted(there ^ files.keys()):
        raise _unfit(source, f"other files than were written: {', '.join(odd[:3])}")
    for name, known in files.items():
        if file_sha256(str(folder / name)) != known["sha256"]:
            raise _unfit(source, f"{name} with other bytes than were written")
    return Backup(len(files), sum(known["bytes"] for known in files.values()))


def _unfit(source: Path, got: str) -> TableError:
    return TableError(f"a backup in {source}", got=got, hint="take another copy of the backup")
