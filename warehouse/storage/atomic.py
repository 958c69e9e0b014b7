"""Write, replace and delete files and folders atomically.

A reader sees the old state or the new one, never a part. For shared folders of a data directory
on an object store, the store changes first, see ``warehouse.storage.mirror``.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from warehouse.storage import checksums, locks, mirror


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a draft path; move it to ``path`` if the block succeeds.

    The draft's name starts with a dot and has no ``.parquet`` suffix, so no glob over a table
    matches it. ``delete_stale_drafts`` removes what a killed process leaves. A file of a table gets
    its checksum here, see ``warehouse.storage.checksums``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_path(path)
    try:
        yield draft
        is_table = checksums.tables_of(path) is not None
        sha256 = checksums.stamp(draft) if is_table else ""
        # Flush before the rename: after a power cut a renamed empty file is worse than none.
        with open(draft, "rb") as handle:
            os.fsync(handle.fileno())
        if (shared := mirror.find(path)) is not None:
            shared.upload(draft, path)
        elif is_table:
            with checksums.recording(path, sha256):
                os.replace(draft, path)
        else:
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def draft_path(path: Path) -> Path:
    """Return a name beside ``path`` for ``delete_stale_drafts`` to find."""
    return path.parent / f".draft-{locks.process_tag()}-{uuid.uuid4().hex}"


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with replace_file(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically."""
    write_bytes(path, text.encode())


def remove(path: Path) -> None:
    """Delete a file; a missing file is no error."""
    if (shared := mirror.find(path)) is not None:
        shared.delete(path)
    with checksums.forgetting(path):
        path.unlink(missing_ok=True)


def publish(draft: Path, target: Path) -> None:
    """Move a finished folder to ``target``, visible as a whole.

    Raises:
        FileExistsError: ``target`` exists; it is not changed.
        StoreError: another machine is publishing it.
    """
    if target.exists():
        raise FileExistsError(target)
    if (shared := mirror.find(target)) is not None:
        shared.publish(draft, target)
    else:
        os.rename(draft, target)


def unpublish(path: Path, hidden: Path) -> None:
    """Move a published folder to ``hidden``, so that no reader finds it."""
    if (shared := mirror.find(path)) is not None:
        shared.unpublish(path, hidden)
    else:
        os.rename(path, hidden)


def delete_stale_drafts(folder: Path, *, older_than_s: float, now: Callable[[], float]) -> int:
    """Delete drafts of killed processes below ``folder``; return how many.

    A draft is stale if its process has exited, or if it is older than ``older_than_s``. The age
    decides for drafts of other hosts and for process ids that were reused.
    """
    removed = 0
    for draft in folder.rglob(".draft-*"):
        try:
            exited = locks.has_exited(draft.name.removeprefix(".draft-"))
            if exited or now() - draft.stat().st_mtime > older_than_s:
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
