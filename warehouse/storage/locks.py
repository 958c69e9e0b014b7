"""One process at a time, for as long as a block runs; a killed process frees its place."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warehouse.errors import StudioError

_POLL_S = 0.2


@contextmanager
def alone(path: Path, *, doing: str, wait_s: float) -> Iterator[None]:
    """Hold the lock file ``path``.

    Args:
        doing: what is done alone, for the message: "starting Label Studio".

    Raises:
        StudioError: another process has held it for ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    with open(path, "w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StudioError(
                        f"to be alone in {doing}",
                        got=f"another risorius at it for {wait_s:g} s",
                        hint="wait for it to end, or stop it",
                    ) from None
                time.sleep(_POLL_S)
        yield
