"""Mirror a data directory that lies on an object store in a local folder.

The object store is the truth. A write is uploaded before it replaces the local file, a deletion
happens on the store first, and changes by other machines are fetched before a read. A listing is
compared with an index of ETags to find them. Every reader (Polars, DuckDB, ``datasets``, Label
Studio) therefore works on local files, and a lost local folder costs one download. The reasons
and measurements are in ``docs/decisions/object_store_mirror.md``.

Shared: ``tables media releases inbox forgetting people`` and the salt. Local to each machine:
``label-studio`` and ``dagster`` (SQLite), ``cache``, locks and drafts.

A release version is one unit: it exists when its manifest, the last file uploaded, exists. A
machine creates a lock object before it uploads a version, so two machines never mix their files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from warehouse.storage import locks
from warehouse.storage.object_store import ObjectStore, StoreError, expected_etag

PEOPLE = "people"
"""Folder with the pseudonyms of annotators, see ``annotation.label_studio.users``."""

FOLDERS = ("tables", "media", "releases", "inbox", "forgetting", PEOPLE)
SALT = "salt"
MAX_STALENESS_S = 2.0
"""A change by another machine is seen after at most this many seconds."""

MANIFEST = "manifest.json"
"""Last file of a release version to be uploaded and first to be deleted."""

_STATE = ".store"
_PARALLEL = 8
_LOCK_TTL_S = 3600.0


def working_folder(url: str) -> Path:
    """Return the local folder that mirrors ``url``; create it if missing.

    It lies below ``RISORIUS_WORK``, by default ``~/.local/share/risorius``.
    """
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    parent = Path(os.environ.get("RISORIUS_WORK") or f"{data}/risorius").expanduser().absolute()
    name = "".join(letter if letter.isalnum() else "-" for letter in url.split("://")[1])[-60:]
    root = parent / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    if not (root / _STATE / "url").exists():
        (root / _STATE).mkdir(parents=True, exist_ok=True)
        ObjectStore(url)  # raises on an unusable URL before the folder is marked as a mirror
        draft = root / _STATE / f"url-{uuid.uuid4().hex}"
        draft.write_text(url)
        os.replace(draft, root / _STATE / "url")
    return root


def url_of(root: Path) -> str | None:
    """Return the URL that ``root`` mirrors; None if it is no mirror."""
    file = root / _STATE / "url"
    return file.read_text() if file.is_file() else None


def find(path: Path) -> Mirror | None:
    """Return the mirror that shares ``path``; None if it is not shared."""
    for root in path.parents:
        if (root / _STATE / "url").is_file():
            top = path.relative_to(root).parts[0]
            return _open(root) if top in FOLDERS or top == SALT else None
    return None


def sync(path: Path, *, force: bool = False) -> None:
    """Fetch what other machines changed below ``path``.

    For the root of a data directory this covers all shared folders except ``media``, whose files
    are fetched one by one when they are read. Does nothing for a local data directory.
    """
    if (path / _STATE / "url").is_file():
        mirror = _open(path)
        for name in FOLDERS:
            if name != "media":
                mirror.sync(path / name, force=force)
    elif (found := find(path)) is not None:
        found.sync(path, force=force)


def sync_and_clean(path: Path) -> None:
    """Fetch changes now and delete incomplete release versions."""
    if (mirror := find(path)) is not None:
        mirror.sync(path, force=True)
        mirror.delete_incomplete(path)


def ensure_local(path: Path) -> Path:
    """Return ``path``, downloaded first if it is shared and missing here."""
    if not path.exists() and (mirror := find(path)) is not None:
        mirror.download(path)
    return path


def delete_stale_fetches(root: Path, *, older_than_s: float) -> None:
    """Delete downloads of killed processes from the local folder of a mirror."""
    for path in (root / _STATE / "fetching").glob("*"):
        if time.time() - path.stat().st_mtime > older_than_s:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class Index:
    """One transaction on the index of a local folder: object key to ETag.

    Other processes of this machine wait until the transaction ends.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def etag(self, key: str) -> str | None:
        """Return the ETag of the object that the local file equals."""
        row = self._database.execute("SELECT mark FROM objects WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def entries(self, folder: str) -> dict[str, str]:
        """Return key to ETag of one file, or of all files below a folder."""
        rows = self._database.execute(
            "SELECT key, mark FROM objects WHERE key = ? OR key GLOB ?",
            (folder, f"{_escape_glob(folder)}/*"),
        )
        return dict(rows.fetchall())

    def set(self, key: str, etag: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?)", (key, etag))

    def remove(self, folder: str) -> None:
        """Drop the entry of a key and of all keys below it."""
        self._database.execute(
            "DELETE FROM objects WHERE key = ? OR key GLOB ?",
            (folder, f"{_escape_glob(folder)}/*"),
        )


class Mirror:
    """A local folder and the object store it mirrors."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = ObjectStore((root / _STATE / "url").read_text())
        self._synced_at: dict[str, float] = {}

    def upload(self, draft: Path, path: Path) -> None:
        """Upload a finished draft, then move it to ``path``."""
        key, etag = self.key(path), expected_etag(draft)
        self.objects.upload(draft, key)
        with self.index() as index:
            os.replace(draft, path)
            index.set(key, etag)

    def delete(self, path: Path) -> None:
        """Delete a file from the store, then locally; a missing file is no error."""
        key = self.key(path)
        self.objects.delete(key)
        self._delete_local(key)

    def create_once(self, path: Path, data: bytes) -> None:
        """Create a constant file; the first machine wins, all read its bytes."""
        self.objects.create(self.key(path), data)
        self.download(path)

    def download(self, path: Path) -> None:
        """Fetch one file if the store has it."""
        self._fetch(self.key(path), None, etag=None)

    def sync(self, path: Path, *, force: bool = False) -> None:
        """Make the local files below ``path`` equal to the objects on the store."""
        prefix, now = self.key(path), time.monotonic()
        covering = [*_parents(prefix), prefix]
        if not force and any(
            now - self._synced_at.get(one, -MAX_STALENESS_S) < MAX_STALENESS_S for one in covering
        ):
            return
        listed = {key: etag for key, etag in self.objects.list(prefix).items() if _is_safe(key)}
        with self.index() as index:
            known = index.entries(prefix)
        complete, incomplete = _versions(listed)
        for version in sorted(complete):
            if not (self.root / version).exists():
                known |= self._fetch_version(version, listed)
        changed = [
            (key, known.get(key), etag)
            for key, etag in listed.items()
            if _folder_of(key, incomplete) is None
            and (known.get(key) != etag or not (self.root / key).exists())
        ]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda one: self._fetch(one[0], one[1], etag=one[2]), changed))
        expected = {key for key in listed if _folder_of(key, incomplete) is None}
        for key in known.keys() - expected:
            # Ask again before deleting: the object may be newer than the listing. A version
            # without its manifest is being uploaded or deleted.
            folder = _folder_of(key, incomplete)
            if not self.objects.exists(f"{folder}/{MANIFEST}" if folder else key):
                self._delete_local(key)
        self._synced_at[prefix] = now
        if any(key.startswith("tables/tombstones/") for key, _, _ in changed):
            self._apply_erasure()

    def publish(self, draft: Path, target: Path) -> None:
        """Upload a version, manifest last, then move it to ``target``.

        Raises:
            StoreError: another machine is publishing the same version.
            FileExistsError: the version exists.
        """
        version = self.key(target)
        if self.objects.exists(f"{version}/{MANIFEST}"):
            raise FileExistsError(target)
        with self._version_lock(version):
            for stale in self.objects.list(version):  # of a publisher that was killed
                self.objects.delete(stale)
            files = sorted(item for item in draft.rglob("*") if item.is_file())
            files.sort(key=lambda file: file == draft / MANIFEST)
            etags = {}
            for file in files:
                key = f"{version}/{file.relative_to(draft).as_posix()}"
                etags[key] = expected_etag(file)
                self.objects.upload(file, key)
            with self.index() as index:
                os.rename(draft, target)
                for key, etag in etags.items():
                    index.set(key, etag)

    def unpublish(self, path: Path, hidden: Path) -> None:
        """Delete a version on the store, then rename it to ``hidden``."""
        version = self.key(path)
        manifest = f"{version}/{MANIFEST}"
        for key in sorted(self.objects.list(version), key=lambda key: key != manifest):
            self.objects.delete(key)
        with self.index() as index:
            os.rename(path, hidden)
            index.remove(version)

    def delete_incomplete(self, path: Path) -> None:
        """Delete versions without a manifest that no machine is publishing."""
        listed = self.objects.list(self.key(path))
        for version in sorted(_versions(listed)[1]):
            lock = _lock_key(version)
            if lock not in listed or not self._is_locked(lock):
                for key in sorted(key for key in listed if key.startswith(f"{version}/")):
                    self.objects.delete(key)

    def draft_path(self) -> Path:
        """Return a new path on the local disk that no reader looks at."""
        folder = self.root / _STATE / "fetching"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def key(self, path: Path) -> str:
        """Return the object key of a local file or folder."""
        return path.relative_to(self.root).as_posix()

    @contextmanager
    def index(self) -> Iterator[Index]:
        """Open a transaction on the index; commit if the block succeeds."""
        path = self.root / _STATE / "index.sqlite"
        with closing(sqlite3.connect(path, timeout=120, isolation_level=None)) as database:
            # A lost index only costs downloads; keys of erased files must not stay in its pages.
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA secure_delete = ON")
            database.execute("BEGIN IMMEDIATE")
            # Column `mark` holds the ETag; the index of an existing folder has that name.
            database.execute("CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, mark TEXT)")
            yield Index(database)
            database.execute("COMMIT")

    def _apply_erasure(self) -> None:
        """Remove local copies after an erasure on another machine."""
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        self.sync(self.root / "media", force=True)

    def _fetch(self, key: str, known_etag: str | None, *, etag: str | None) -> None:
        if not _is_safe(key):
            return
        draft, path = self.draft_path(), self.root / key
        try:
            if not self.objects.download(key, draft):
                return
            if key == SALT:
                draft.chmod(0o600)
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.index() as index:
                # If another process of this machine wrote the file meanwhile, that is newer.
                if index.etag(key) == known_etag or not path.exists():
                    os.replace(draft, path)
                    index.set(key, etag or expected_etag(path))
        finally:
            draft.unlink(missing_ok=True)

    def _fetch_version(self, version: str, listed: Mapping[str, str]) -> dict[str, str]:
        """Download a version, then rename it; return its index entries."""
        draft, target = self.draft_path(), self.root / version
        wanted = {key: etag for key, etag in listed.items() if key.startswith(f"{version}/")}

        def download(key: str) -> bool:
            path = draft / Path(key).relative_to(version)
            path.parent.mkdir(parents=True, exist_ok=True)
            return self.objects.download(key, path)

        try:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                if not all(pool.map(download, wanted)):
                    return {}  # unpublished meanwhile
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.index() as index:
                if not target.exists():
                    os.rename(draft, target)
                    for key, etag in wanted.items():
                        index.set(key, etag)
                return index.entries(version)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _delete_local(self, key: str) -> None:
        path = self.root / key
        with self.index() as index:
            path.unlink(missing_ok=True)
            index.remove(key)
        # Delete the empty folders of a version that another machine unpublished.
        for folder in path.parents:
            shallow = len(folder.relative_to(self.root).parts) < 3
            if shallow or not folder.is_dir() or any(folder.iterdir()):
                return
            folder.rmdir()

    @contextmanager
    def _version_lock(self, version: str) -> Iterator[None]:
        lock = _lock_key(version)
        own = json.dumps({"who": locks.process_tag(), "at": time.time()}).encode()
        if not self._is_locked(lock):
            self.objects.delete(lock)  # of a publisher that was killed
        if not self.objects.create(lock, own):
            raise StoreError(
                "Another machine is publishing this release version",
                got=version.removeprefix("releases/"),
                hint="run the same command again in a minute",
            )
        try:
            yield
        finally:
            self.objects.delete(lock)

    def _is_locked(self, lock: str) -> bool:
        owner = json.loads(self.objects.read(lock) or "null")
        if owner is None:
            return False
        return not locks.has_exited(owner["who"]) and time.time() - owner["at"] < _LOCK_TTL_S


@cache
def _open(root: Path) -> Mirror:
    return Mirror(root)


def _is_safe(key: str) -> bool:
    """Return whether a key may become a local file below the root."""
    parts = key.split("/")
    plain = all(part and not part.startswith(".") and "\\" not in part for part in parts)
    return plain and "\0" not in key and (parts[0] in FOLDERS or key == SALT)


def _versions(keys: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the version folders with and those without a manifest."""
    listed = set(keys)
    split = [key.split("/") for key in listed if key.startswith("releases/")]
    folders = {"/".join(parts[:3]) for parts in split if len(parts) > 3}
    complete = {folder for folder in folders if f"{folder}/{MANIFEST}" in listed}
    return complete, folders - complete


def _folder_of(key: str, folders: Iterable[str]) -> str | None:
    return next((folder for folder in folders if key.startswith(f"{folder}/")), None)


def _lock_key(version: str) -> str:
    folder, _, name = version.rpartition("/")
    return f"{folder}/.claim-{name}"


def _parents(prefix: str) -> list[str]:
    parts = prefix.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _escape_glob(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in text)
