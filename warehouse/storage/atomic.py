"""Files that are either whole or not there; in a home on an object store, there and here."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from warehouse.storage import mirror, version_upload, writers


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft beside ``path``; move it into place when the block ends well.

    The draft's name starts with a dot and keeps no ``.parquet`` suffix, so no glob over a
    table ever sees it. What a killed process leaves behind is swept by ``sweep``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_beside(path)
    try:
        yield draft
        # Flush before the rename: after a power cut a renamed but empty file is worse than none.
        with open(draft, "rb") as handle:
            os.fsync(handle.fileno())
        if (shared := mirror.of(path)) is not None:
            shared.put(draft, path)
        else:
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def draft_beside(path: Path) -> Path:
    """A name beside ``path`` for a file or folder still being written; ``sweep`` knows it."""
    return path.parent / f".draft-{writers.own_mark()}-{uuid.uuid4().hex}"


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` whole or not at all."""
    write_bytes(path, text.encode())


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    if (shared := mirror.of(path)) is not None:
        shared.remove(path)
    path.unlink(missing_ok=True)


def publish(draft: Path, target: Path) -> None:
    """Move a finished folder into place; all of it is seen at once, or nothing.

    Raises:
        FileExistsError: ``target`` is there already; it stays as it is.
        StoreError: another machine is publishing it now.
    """
    if target.exists():
        raise FileExistsError(target)
    if (shared := mirror.of(target)) is not None:
        version_upload.publish(shared, draft, target)
    else:
        os.rename(draft, target)


def withdraw(path: Path, hidden: Path) -> None:
    """Take a folder out of everybody's sight; its files stay in ``hidden`` until that goes."""
    if (shared := mirror.of(path)) is not None:
        version_upload.withdraw(shared, path, hidden)
    else:
        os.rename(path, hidden)


def sweep(folder: Path, *, older_than_s: float, now: Callable[[], float]) -> int:
    """Remove drafts that a killed process left below ``folder``; return how many.

    A draft is left over when its process is gone, or, where that cannot be told (another host's,
    or a number another program has by now), when it is older than ``older_than_s``.
    """
    removed = 0
    for draft in folder.rglob(".draft-*"):
        try:
            if (
                writers.is_gone(draft.name.removeprefix(".draft-"))
                or now() - draft.stat().st_mtime > older_than_s
            ):
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
