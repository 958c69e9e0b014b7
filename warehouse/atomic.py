"""Files that are either whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_HOST = f"{uuid.getnode():012x}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft beside ``path``; move it into place when the block ends well.

    The draft's name starts with a dot and keeps no ``.parquet`` suffix, so no glob over a
    table ever sees it. What a killed process leaves behind is swept by ``sweep``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".draft-{_HOST}-{os.getpid()}-{uuid.uuid4().hex}"
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
    """Remove drafts that a killed process left below ``folder``; return how many.

    A draft is left over when its process is gone, or, where that cannot be told (another host's,
    or a number another program has by now), when it is older than ``older_than_s``.
    """
    removed = 0
    for draft in folder.rglob(".draft-*"):
        try:
            if _writer_is_gone(draft.name) or now() - draft.stat().st_mtime > older_than_s:
                draft.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed


def _writer_is_gone(name: str) -> bool:
    host, _, rest = name.removeprefix(".draft-").partition("-")
    pid = rest.partition("-")[0]
    if host != _HOST or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
