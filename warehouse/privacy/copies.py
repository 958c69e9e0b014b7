"""Name copies of a data subject's data that an erasure cannot delete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from warehouse.errors import MediaError
from warehouse.privacy.data_subject import DataSubject
from warehouse.storage import media, tables
from warehouse.storage.home import Home

_CHUNK = 1 << 22
_FACE_COLUMN = b'"face_id"'
"""Column by which a cached dataset is known as one of ours."""


def find(home: Home, subject: DataSubject) -> list[str]:
    """Return ``<where>: <why>`` for copies outside the home that can be found.

    These are what ``datasets.load_dataset`` cached of a release, what was downloaded of a
    published one, and what a killed ``restore`` left beside the home.
    """
    found = [
        f"{path}: a dataset that was loaded outside this home; delete it"
        for path in _cached(subject)
    ]
    hub = _hugging_face("HF_HUB_CACHE", "hub")
    for place in tables.read(home, "releases")["published"].explode().drop_nulls().unique():
        folder = hub / f"datasets--{place.split()[-1].replace('/', '--')}"
        if folder.is_dir():
            found.append(f"{folder}: a published release that was downloaded; delete it")
    found += [
        f"{path}: a home that `risorius restore` did not finish; delete it"
        for path in sorted(home.root.parent.glob(".restore-*"))
    ]
    return found


def linked_media(home: Home, subject: DataSubject) -> list[str]:
    """Return a line if pictures of the subject have other names (hard links).

    Call it before they are deleted.
    """
    linked = 0
    for key in {*subject.crops, *subject.contexts}:
        try:
            linked += media.path_of(home, key).stat().st_nlink > 1
        except (OSError, MediaError):
            continue
    why = "have other names (hard links) outside it, of a copy of this home"
    return [f"{home.media}: {linked} pictures {why}"] if linked else []


def _cached(subject: DataSubject) -> Iterator[Path]:
    words = [word.encode() for word in (*subject.videos, *subject.tracks)]
    folder = _hugging_face("HF_DATASETS_CACHE", "datasets")
    for info in sorted(folder.rglob("dataset_info.json")) if folder.is_dir() and words else []:
        try:
            if _FACE_COLUMN not in info.read_bytes():
                continue
            if any(_holds(path, words) for path in info.parent.glob("*.arrow")):
                yield info.parent
        except OSError:
            continue


def _holds(path: Path, words: list[bytes]) -> bool:
    tail = b""
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            window = tail + chunk
            if any(word in window for word in words):
                return True
            tail = window[-64:]
    return False


def _hugging_face(variable: str, name: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.environ.get(variable) or f"{home}/{name}").expanduser()
