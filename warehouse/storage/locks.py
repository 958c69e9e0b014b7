"""File locks between processes of a machine, and process identifiers."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warehouse.errors import StudioError

_HOST = f"{uuid.getnode():012x}"
_POLL_S = 0.2


@contextmanager
def file_lock(path: Path, *, purpose: str, timeout_s: float) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process.

    Args:
        purpose: what the lock protects, for the error message: "starting Label Studio".
        timeout_s: seconds to wait for another process.

    Raises:
        StudioError: another process held the lock for ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    with open(path, "w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StudioError(
                        f"Another risorius process is {purpose}",
                        got=f"its lock was not free within {timeout_s:g} s",
                        hint="wait until that process ends, or stop it",
                    ) from None
                time.sleep(_POLL_S)
        yield


def host_id() -> str:
    """Return the hardware address of this machine, 12 hex digits."""
    return _HOST


def process_tag() -> str:
    """Return ``<host>-<pid>`` of this process."""
    return f"{_HOST}-{os.getpid()}"


def has_exited(tag: str) -> bool:
    """Return whether the process of a tag has ended; False if unknown."""
    host, _, rest = tag.partition("-")
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
