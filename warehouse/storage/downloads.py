"""Record files of a batch that were downloaded or unpacked.

Each origin has a folder ``inbox/<batch>/arrived/<key>/`` and a record ``<key>.json`` beside it.
The files stay if the archive is deleted or the origin is forgotten.

Logins and secret parameters of a URL are never stored. The process that was given them remembers
them; another one needs them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from warehouse.ids import sha256_of
from warehouse.masking import public_url, remember, secrets_in
from warehouse.storage import atomic

TRANSCRIPTS = (".srt", ".vtt", ".json")
"""Suffixes of transcripts; beside a video of the same name they are no source."""

FOLDER = "arrived"
HIDDEN = ".fetched"
"""Folder with a downloaded archive, inside the folder of its files."""


@dataclass(frozen=True)
class Download:
    """Record of one origin.

    Attributes:
        origin: URL, as ``public_url`` returns it, or archive; None after an erasure of something
            in it.
        file_name: display name.
        single: one file, not a folder; the file has the name ``file_name``.
        declared: declared facts, for each file without its own.
        marks: per file, or for the whole (``""``), a string that changes with the source.
        refused: entry to the reason why it was not imported.
        failure: ``code: sentence`` if the download failed; earlier files stay.
    """

    origin: str | None
    file_name: str
    single: bool = True
    declared: dict[str, str | None] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failure: str | None = None


_logins: dict[str, str] = {}


def keep_login(address: str) -> str:
    """Remember a URL in this process; return it as it may be stored."""
    public = public_url(address)
    if public != address:
        _logins[public] = address
        for secret in secrets_in({"URL": address}):
            remember(secret)
    return public


def with_login(address: str) -> str:
    """Return a stored URL with the login that this process was given."""
    return _logins.get(address, address)


def folder_of(batch: Path, origin: str) -> Path:
    """Return the folder for the files of an origin."""
    return batch / FOLDER / sha256_of([origin.encode()])[:16]


def read(batch: Path, origin: str) -> Download | None:
    """Return the record of an origin; None if there is none."""
    return _load(folder_of(batch, origin).with_suffix(".json"))


def write(batch: Path, download: Download) -> None:
    """Store a record; does nothing if its origin is forgotten."""
    if download.origin is not None:
        public = replace(download, origin=public_url(download.origin))
        _save(folder_of(batch, download.origin).with_suffix(".json"), public)


def list_all(batch: Path) -> Iterator[tuple[Path, Download]]:
    """Yield folder and record of every origin of a batch, by key."""
    for path in sorted((batch / FOLDER).glob("*.json")):
        if found := _load(path):
            yield path.with_suffix(""), found


def redact_url(address: str) -> str:
    """Return a URL without user, password and query, which may be secret."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origins(paths: Iterable[str]) -> set[str]:
    """Return the origins of downloaded files; other files are ignored."""
    found = set()
    for path in map(Path, paths):
        for folder in path.parents:
            if folder.parent.name == FOLDER:
                download = _load(folder.with_suffix(".json"))
                found |= {download.origin} if download and download.origin else set()
    return found


def forget(inbox: Path, origins: Iterable[str]) -> None:
    """Remove origins from their records; ingest then never refetches them.

    Files that remain in the folder of an origin keep a record without origin.
    """
    wanted = set(origins)
    for path in sorted(inbox.glob(f"*/{FOLDER}/*.json")):
        download = _load(path)
        if download is None or download.origin not in wanted:
            continue
        folder = path.with_suffix("")
        # Partial downloads of a newer version lie beside the files.
        for item in [*(folder / HIDDEN).glob("*"), *folder.rglob(".part-*")]:
            atomic.remove(item)
        if not any(item.is_file() for item in folder.rglob("*")):
            atomic.remove(path)
            continue
        anonymous: dict[str, object] = {
            "origin": None,
            "file_name": path.stem,
            "marks": {},
            "refused": {},
            "declared": {**download.declared, "source": None, "subject_id": None},
        }
        _save(path, Download(**{**asdict(download), **anonymous}))


def _load(path: Path) -> Download | None:
    try:
        found = Download(**json.loads(path.read_text()))
        # Earlier versions stored the login.
        return replace(found, origin=found.origin and public_url(found.origin))
    except (OSError, ValueError, TypeError):
        return None


def _save(path: Path, download: Download) -> None:
    atomic.write_text(path, json.dumps(asdict(download), sort_keys=True))
