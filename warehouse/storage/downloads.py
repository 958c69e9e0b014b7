"""What came to a batch from elsewhere: fetched from an address, or unpacked from an archive.

Each origin has a folder ``inbox/<batch>/arrived/<key>/`` with its files, and ``<key>.json`` beside
it. The files stand on their own: an archive that goes, or an address that is forgotten, does not
take them along.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from warehouse.ids import sha256_of
from warehouse.storage import atomic

TRANSCRIPTS = (".srt", ".vtt", ".json")
"""Beside a video of the same name they are words, and no source of their own."""

FOLDER = "arrived"
HIDDEN = ".fetched"
"""In the folder of a fetched archive: the archive itself."""


@dataclass(frozen=True)
class Download:
    """One origin and what became of it.

    Attributes:
        origin: the address or archive, as it was listed; None once somebody who left was in it.
        file_name: what people call it.
        single: it is one file and not a folder of them: its file bears its name.
        declared: what was said of it, which holds for each of its files that says nothing.
        marks: for every file, or for the whole (``""``), what tells whether it changed there.
        refused: entry to why it did not come in.
        failure: why nothing came, ``code: sentence``; what came earlier stays.
    """

    origin: str | None
    file_name: str
    single: bool = True
    declared: dict[str, str | None] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failure: str | None = None


def folder_of(batch: Path, origin: str) -> Path:
    """The folder for the files of an origin, in the inbox folder of a batch."""
    return batch / FOLDER / sha256_of([origin.encode()])[:16]


def read(batch: Path, origin: str) -> Download | None:
    """What became of an origin before; None when it is new."""
    return _read(folder_of(batch, origin).with_suffix(".json"))


def write(batch: Path, arrival: Download) -> None:
    """Remember an arrival; its origin must be known."""
    if arrival.origin is not None:
        _write(folder_of(batch, arrival.origin).with_suffix(".json"), arrival)


def list_all(batch: Path) -> Iterator[tuple[Path, Download]]:
    """Folder and arrival of everything that came to a batch, by key."""
    for path in sorted((batch / FOLDER).glob("*.json")):
        if found := _read(path):
            yield path.with_suffix(""), found


def redact_url(address: str) -> str:
    """An address without what may be a secret in it: user, password, query."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origins(paths: Iterable[str]) -> set[str]:
    """Where files below an ``arrived`` folder came from; files from nowhere else count for none."""
    found = set()
    for path in map(Path, paths):
        for folder in path.parents:
            if folder.parent.name == FOLDER:
                arrival = _read(folder.with_suffix(".json"))
                found |= {arrival.origin} if arrival and arrival.origin else set()
    return found


def forget(inbox: Path, gone: Iterable[str]) -> None:
    """Forget origins: files that are left stand on their own, and nothing fetches them anew."""
    wanted = set(gone)
    for path in sorted(inbox.glob(f"*/{FOLDER}/*.json")):
        arrival = _read(path)
        if arrival is None or arrival.origin not in wanted:
            continue
        folder = path.with_suffix("")
        # Halves of what was being fetched anew lie beside it.
        for item in [*(folder / HIDDEN).glob("*"), *folder.rglob(".part-*")]:
            atomic.remove(item)
        if not any(item.is_file() for item in folder.rglob("*")):
            atomic.remove(path)
            continue
        bare: dict[str, object] = {
            "origin": None,
            "file_name": path.stem,
            "marks": {},
            "refused": {},
        }
        declared = {**arrival.declared, "source": None, "subject_id": None}
        _write(path, Download(**{**asdict(arrival), **bare, "declared": declared}))


def _read(path: Path) -> Download | None:
    try:
        return Download(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, arrival: Download) -> None:
    atomic.write_text(path, json.dumps(asdict(arrival), sort_keys=True))
