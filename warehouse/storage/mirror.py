"""A home on an object store: a working folder on this machine that mirrors what is shared.

The bucket is the truth. A write is uploaded before it takes its place here, a deletion happens
there first, and what others wrote is fetched before it is read, by comparing a listing with an
index of what this folder holds. So every reader (Polars, DuckDB, ``datasets``, Label Studio) works
on plain local files, and a working folder that is lost costs a download.

What is shared: ``tables media releases inbox forgetting people`` and the salt. What stays on the
machine says so: ``label-studio`` and ``dagster`` (SQLite), ``cache``, locks and drafts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from warehouse.storage import version_upload
from warehouse.storage.mirror_index import Held, holding
from warehouse.storage.object_store import Bucket, mark_of

PEOPLE = "people"
"""Pseudonyms of those who label, see ``pipeline.studio.roster``."""

FOLDERS = ("tables", "media", "releases", "inbox", "forgetting", PEOPLE)
SALT = "salt"
FRESH_S = 2.0
"""What another machine wrote is seen at the latest so much later."""

_OWN = ".store"
_AT_ONCE = 8


def working_folder(url: str) -> Path:
    """The folder on this machine for the home at ``url``, made and marked when missing.

    It lies below ``RISORIUS_WORK``, by default ``~/.local/share/risorius``.
    """
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    above = Path(os.environ.get("RISORIUS_WORK") or f"{data}/risorius").expanduser().absolute()
    name = "".join(letter if letter.isalnum() else "-" for letter in url.split("://")[1])[-60:]
    root = above / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    if not (root / _OWN / "url").exists():
        (root / _OWN).mkdir(parents=True, exist_ok=True)
        Bucket(url)  # refuse what cannot work before leaving a folder that says it does
        draft = root / _OWN / f"url-{uuid.uuid4().hex}"
        draft.write_text(url)
        os.replace(draft, root / _OWN / "url")
    return root


def url_of(root: Path) -> str | None:
    """The URL that ``root`` is the working folder of; None for a home on this machine alone."""
    mark = root / _OWN / "url"
    return mark.read_text() if mark.is_file() else None


def of(path: Path) -> Store | None:
    """The store that ``path`` is shared through; None for what stays on this machine."""
    for root in path.parents:
        if (root / _OWN / "url").is_file():
            top = path.relative_to(root).parts[0]
            return _opened(root) if top in FOLDERS or top == SALT else None
    return None


def refresh(path: Path, *, force: bool = False) -> None:
    """Fetch what others changed below a folder of a home, or of the home itself without its
    pictures: those are fetched one by one as they are needed. Nothing to do for a local home."""
    if (path / _OWN / "url").is_file():
        shared = _opened(path)
        for name in FOLDERS:
            if name != "media":
                shared.refresh(path / name, force=force)
    elif (found := of(path)) is not None:
        found.refresh(path, force=force)


def settle_folder(path: Path) -> None:
    """``refresh`` at once, and remove what publishers and withdrawals that died left half done."""
    if (shared := of(path)) is not None:
        shared.refresh(path, force=True)
        version_upload.tidy(shared, path)


def bring(path: Path) -> Path:
    """``path``, fetched when it is shared and not here yet."""
    if not path.exists() and (shared := of(path)) is not None:
        shared.bring(path)
    return path


class Store:
    """One working folder and its bucket."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = Bucket((root / _OWN / "url").read_text())
        self._looked: dict[str, float] = {}

    def put(self, draft: Path, path: Path) -> None:
        """Upload a finished draft, then move it into place."""
        key, mark = self.key(path), mark_of(draft)
        self.bucket.put(draft, key)
        with self.held() as held:
            os.replace(draft, path)
            held.note(key, mark)

    def remove(self, path: Path) -> None:
        """Delete a file there, then here; nothing happens when it is nowhere."""
        key = self.key(path)
        self.bucket.delete(key)
        self._drop(key)

    def settle(self, path: Path, data: bytes) -> None:
        """Make a file that is made once: of all machines the first wins, and all have its bytes."""
        self.bucket.create(self.key(path), data)
        self.bring(path)

    def refresh(self, path: Path, *, force: bool = False) -> None:
        """Make the files below ``path`` what the bucket holds now."""
        prefix, now = self.key(path), time.monotonic()
        fresh = [*_parents(prefix), prefix]
        if not force and any(now - self._looked.get(one, -FRESH_S) < FRESH_S for one in fresh):
            return
        there = {key: mark for key, mark in self.bucket.list(prefix).items() if _is_ours(key)}
        with self.held() as held:
            known = held.below(prefix)
        whole, parts = version_upload.found(there)
        for version in sorted(whole):
            if not (self.root / version).exists():
                known |= version_upload.fetch(self, version, there)
        wanted = [
            (key, known.get(key), mark)
            for key, mark in there.items()
            if not any(version_upload.within(key, part) for part in parts)
            and (known.get(key) != mark or not (self.root / key).exists())
        ]
        self._fetch_all(wanted)
        for key in known.keys() - {key for key in there if not _in_any(key, parts)}:
            # Written since the listing, perhaps; a version without its seal is going or coming.
            part = next((part for part in parts if version_upload.within(key, part)), None)
            if not self.bucket.has(f"{part}/{version_upload.SEAL}" if part else key):
                self._drop(key)
        self._looked[prefix] = now
        if any(key.startswith("tables/tombstones/") for key, _, _ in wanted):
            self._forget()

    def bring(self, path: Path) -> None:
        """Fetch one file, if the bucket has it."""
        self._fetch(self.key(path), None, mark=None)

    def _forget(self) -> None:
        """Somebody left on another machine: nothing of theirs may stay on this one."""
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        self.refresh(self.root / "media", force=True)

    def _fetch_all(self, wanted: Iterable[tuple[str, str | None, str]]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda one: self._fetch(one[0], one[1], mark=one[2]), wanted):
                pass

    def _fetch(self, key: str, seen: str | None, *, mark: str | None) -> None:
        if not _is_ours(key):
            return
        draft, path = self.draft(), self.root / key
        try:
            if not self.bucket.get(key, draft):
                return
            if key == SALT:
                draft.chmod(0o600)
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.held() as held:
                # Another process of this machine may have written it meanwhile: that is newer.
                if held.mark(key) == seen or not path.exists():
                    os.replace(draft, path)
                    held.note(key, mark or mark_of(path))
        finally:
            draft.unlink(missing_ok=True)

    def _drop(self, key: str) -> None:
        path = self.root / key
        with self.held() as held:
            path.unlink(missing_ok=True)
            held.forget(key)
        # Of a version that was withdrawn elsewhere no empty folder stays.
        for folder in path.parents:
            if len(folder.relative_to(self.root).parts) < 3 or not _is_empty(folder):
                return
            folder.rmdir()

    def draft(self) -> Path:
        """A new path on this disk that nobody looks at."""
        folder = self.root / _OWN / "fetching"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def key(self, path: Path) -> str:
        """The name of a file or folder in the bucket."""
        return path.relative_to(self.root).as_posix()

    def held(self) -> AbstractContextManager[Held]:
        """What this folder holds, for as long as a block runs; nobody else here changes it then."""
        return holding(self.root / _OWN / "index.sqlite")


@cache
def _opened(root: Path) -> Store:
    return Store(root)


def _is_ours(key: str) -> bool:
    """Whether a key may become a file here: nothing hidden, nothing that leaves the folder."""
    parts = key.split("/")
    plain = all(part and not part.startswith(".") and "\\" not in part for part in parts)
    return plain and "\0" not in key and (parts[0] in FOLDERS or key == SALT)


def _in_any(key: str, folders: Iterable[str]) -> bool:
    return any(version_upload.within(key, folder) for folder in folders)


def _parents(prefix: str) -> list[str]:
    parts = prefix.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())
