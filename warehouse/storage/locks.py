"""File locks between processes of a machine, and process identifiers."""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from warehouse.errors import StudioError

_HOST = f"{uuid.getnode():012x}"
_POLL_S = 0.2


@contextmanager
def file_lock(
    path: Path,
    *,
    purpose: str,
    timeout_s: float,
    keep_waiting: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process.

    Args:
        purpose: what the lock protects, for the error message: "starting Label Studio".
        timeout_s: seconds to wait for another process.
        keep_waiting: asked at every look; while it returns True the wait goes on after those
            seconds.

    Raises:
        StudioError: another process held the lock too long.
    """
    deadline = time.monotonic() + timeout_s
    with open(path, "w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not keep_waiting() and time.monotonic() > deadline:
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


_WRITERS, _TURN = ".forgetting-lock", ".forgetting-turn"


class _Held:
    """The shared lock of this process on one home, and how often it is held."""

    def __init__(self, handle: IO[str]) -> None:
        self.handle, self.depth = handle, 1


_held: dict[str, _Held] = {}
_guard = threading.Lock()

Waiting = Callable[[str], None]
"""Called once with what is waited for."""


@contextmanager
def writing(root: Path, *, waiting: Waiting | None = None, join: bool = False) -> Iterator[None]:
    """Keep erasures of a data directory out while the block writes to it.

    An erasure must see everything that a writer derived from what it read. Any number of writers
    hold this lock at once; an erasure holds it alone, see ``erasing``. The lock ends with the
    process. A process that holds it takes it again at once.

    Args:
        waiting: called if an erasure runs or waits.
        join: a worker of a process that holds the lock. It does not wait behind an erasure that
            waits for that process.
    """
    key = os.path.realpath(root)
    with _guard:
        held = _held.get(key)
        if held is not None:
            held.depth += 1
        elif (handle := _take_shared(root, waiting=waiting, join=join)) is not None:
            held = _held[key] = _Held(handle)
    try:
        yield
    finally:
        if held is not None:
            _release(key, held)


def hold_until_exit(root: Path) -> None:
    """Hold the lock of ``writing`` until the process ends or erases.

    For a step whose caller stores its results after it has returned.
    """
    key = os.path.realpath(root)
    if key not in _held and (handle := _take_shared(root)) is not None:
        _held[key] = _Held(handle)
        _until_exit.add(key)


_until_exit: set[str] = set()


@contextmanager
def erasing(root: Path, *, waiting: Waiting | None = None) -> Iterator[None]:
    """Hold a data directory alone: no process of ``writing`` runs.

    New writers wait from the moment of this call, so it is served after the current ones.

    Raises:
        StudioError: this process writes to the directory itself.
    """
    root.mkdir(parents=True, exist_ok=True)
    key = os.path.realpath(root)
    if key in _until_exit:
        _until_exit.discard(key)
        _release(key, _held[key])
    if key in _held:
        raise StudioError(
            "An erasure cannot start inside a step", got=str(root), hint="call it after the step"
        )
    with open(root / _TURN, "a") as turn, open(root / _WRITERS, "a") as writers:
        for handle in (turn, writers):
            _lock(handle, fcntl.LOCK_EX, waiting, "the commands that write to this home have")
        yield


def _take_shared(
    root: Path, *, waiting: Waiting | None = None, join: bool = False
) -> IO[str] | None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = open(root / _WRITERS, "a")  # noqa: SIM115
        turn = open(root / _TURN, "a")  # noqa: SIM115
    except OSError:
        return None  # a home that cannot be written to has no writers
    with turn:
        if not join:
            _lock(turn, fcntl.LOCK_SH, waiting, "an erasure has")
        # Not released but closed: a forked child shares the lock and keeps it.
        _lock(handle, fcntl.LOCK_SH, waiting, "an erasure has")
    return handle


def _release(key: str, held: _Held) -> None:
    with _guard:
        held.depth -= 1
        if held.depth == 0:
            held.handle.close()
            _held.pop(key, None)


def _lock(handle: IO[str], kind: int, waiting: Waiting | None, what: str) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is not None:
            waiting(what)
        fcntl.flock(handle, kind)
