"""Folders of a bucket that count as a whole: a version is there when its seal is, the last file up.

A machine claims a number before it uploads, so that two never mix their files under one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.storage import writers
from warehouse.storage.object_store import Bucket, StoreError, mark_of

if TYPE_CHECKING:
    from warehouse.storage.mirror import Store

SEAL = "manifest.json"
"""The last file of a release to go up and the first to go: with it a version is whole."""

_CLAIM_S = 3600.0
_AT_ONCE = 8


def found(keys: Iterable[str]) -> tuple[set[str], set[str]]:
    """Folders ``releases/<name>/<version>`` that are whole, and those without their seal."""
    there = set(keys)
    split = [key.split("/") for key in there if key.startswith("releases/")]
    folders = {"/".join(parts[:3]) for parts in split if len(parts) > 3}
    whole = {folder for folder in folders if f"{folder}/{SEAL}" in there}
    return whole, folders - whole


def within(key: str, folder: str) -> bool:
    return key.startswith(f"{folder}/")


def publish(store: Store, draft: Path, target: Path) -> None:
    """Upload a finished folder, its seal last, then move it into place.

    Raises:
        StoreError: another machine is publishing that very folder now.
        FileExistsError: it is there already.
    """
    prefix, bucket = store.key(target), store.bucket
    if bucket.has(f"{prefix}/{SEAL}"):
        raise FileExistsError(target)
    with _claimed(bucket, prefix):
        for left in bucket.list(prefix):  # by somebody who died on the way
            bucket.delete(left)
        files = sorted(item for item in draft.rglob("*") if item.is_file())
        files.sort(key=lambda file: file == draft / SEAL)
        marks = {}
        for file in files:
            key = f"{prefix}/{file.relative_to(draft).as_posix()}"
            marks[key] = mark_of(file)
            bucket.put(file, key)
        with store.held() as held:
            os.rename(draft, target)
            for key, mark in marks.items():
                held.note(key, mark)


def withdraw(store: Store, path: Path, hidden: Path) -> None:
    """Take a folder away there, its seal first, then rename it here to ``hidden``."""
    prefix = store.key(path)
    for key in sorted(store.bucket.list(prefix), key=lambda key: key != f"{prefix}/{SEAL}"):
        store.bucket.delete(key)
    with store.held() as held:
        os.rename(path, hidden)
        held.forget(prefix)


def tidy(store: Store, path: Path) -> None:
    """Delete versions without their seal that nobody is publishing now."""
    there = store.bucket.list(store.key(path))
    for part in sorted(found(there)[1]):
        claim = _claim_of(part)
        if claim not in there or not _is_held(store.bucket, claim):
            for key in sorted(key for key in there if within(key, part)):
                store.bucket.delete(key)


def fetch(store: Store, version: str, marks: Mapping[str, str]) -> dict[str, str]:
    """All files of a version aside, then one rename; returns what is held of it now.

    Args:
        marks: keys of the bucket, those of the version among them, as they were listed.
    """
    draft, target = store.draft(), store.root / version
    wanted = {key: mark for key, mark in marks.items() if within(key, version)}

    def get(key: str) -> bool:
        place = draft / Path(key).relative_to(version)
        place.parent.mkdir(parents=True, exist_ok=True)
        return store.bucket.get(key, place)

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            if not all(pool.map(get, wanted)):
                return {}  # withdrawn meanwhile
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.held() as held:
            if not target.exists():
                os.rename(draft, target)
                for key, mark in wanted.items():
                    held.note(key, mark)
            return held.below(version)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _claimed(bucket: Bucket, version: str) -> Iterator[None]:
    claim = _claim_of(version)
    own = json.dumps({"who": writers.own_mark(), "at": time.time()}).encode()
    if not _is_held(bucket, claim):
        bucket.delete(claim)  # of somebody who died
    if not bucket.create(claim, own):
        raise StoreError(
            f"to be alone in publishing {version.removeprefix('releases/')}",
            got="another machine at it",
            hint="run the same command again in a minute",
        )
    try:
        yield
    finally:
        bucket.delete(claim)


def _is_held(bucket: Bucket, claim: str) -> bool:
    told = json.loads(bucket.read(claim) or "null")
    if told is None:
        return False
    return not writers.is_gone(told["who"]) and time.time() - told["at"] < _CLAIM_S


def _claim_of(version: str) -> str:
    folder, _, name = version.rpartition("/")
    return f"{folder}/.claim-{name}"
