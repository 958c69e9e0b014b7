"""Files that are either whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft beside ``path``; move it into place when the block ends well.

    The draft's name starts with a dot and keeps no ``.parquet`` suffix, so no glob over a
    table ever sees it. What a killed process leaves behind is swept by ``sweep``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".draft-{uuid.uuid4().hex}"
    try:
        yield draft
        # Flush before the rename: after a power cut a renamed but empty file is worse than none.
        with open(draft, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` whole or not at all."""
    write_bytes(path, text.encode())


def sweep(folder: Path, *, older_than_s: float, now: Callable[[], float]) -> int:
    """Remove drafts that a killed process left below ``folder``; return how many."""
    removed = 0
    for draft in folder.rglob(".draft-*"):
        try:
            if now() - draft.stat().st_mtime > older_than_s:
                draft.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
