"""Who writes: a mark that says which process of which machine, and whether it is gone."""

from __future__ import annotations

import os
import uuid

_HOST = f"{uuid.getnode():012x}"


def own_host() -> str:
    """What tells this machine from others."""
    return _HOST


def own_mark() -> str:
    """``<host>-<pid>`` of this process."""
    return f"{_HOST}-{os.getpid()}"


def is_gone(mark: str) -> bool:
    """Whether the process of a mark has ended; False where that cannot be told."""
    host, _, rest = mark.partition("-")
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
