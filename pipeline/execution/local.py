"""Processes of this machine.

Each is a process of our own holding one item. A pool of the standard library only says that
somebody died, and fails all that was waiting.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from pipeline.execution import pool
from warehouse.errors import RisoriusError, SettingsError

_READY = b"ready"


def processes(
    function: Callable[[Any], Any], items: Iterable[Any], *, count: int, limit_of: pool.Limit
) -> Iterator[tuple[Any, Any]]:
    """``pool.work_through`` with ``count`` processes; an item whose process dies is given up."""
    pickle.dumps(function)  # a clear error here instead of one from half a worker
    hire = partial(_Process, function)
    return pool.work_through(
        items, hire=hire, listen=_first_to_speak, count=count, limit_of=limit_of, deaths=1
    )


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class _Process(pool.Worker):
    """One process, one pipe."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        # Spawn, not fork: onnxruntime and FFmpeg hold threads that do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.started = False

    def send(self, item: Any) -> None:
        with suppress(OSError):  # it died in between; ``hear`` will say so
            self.pipe.send(item)

    def hear(self) -> Any:
        try:
            said = self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.process.join()
            if not self.started:
                raise SettingsError(
                    "worker processes that can import the main module",
                    got=f"one that {_ending(self.process.exitcode)} before its first item",
                    hint="put the script's code under `if __name__ == '__main__':` or use 1 worker",
                ) from None
            return pool.Death(_death(self.process.exitcode))
        self.started = True
        return None if said == _READY else pool.outcome(said)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _first_to_speak(workers: list[_Process], patience: float | None) -> list[_Process]:
    heard = wait([worker.pipe for worker in workers], patience)
    return [worker for worker in workers if worker.pipe in heard]


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    # Ctrl-C reaches the whole group; the parent decides, and kills.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send_bytes(_READY)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send_bytes(pool.answer(function, item))


def _end_with_parent() -> None:
    # A parent killed outright cleans up nothing; its workers must not outlive it.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _death(exitcode: int | None) -> RisoriusError:
    return RisoriusError(
        "a worker that finishes its item",
        got=f"one that {_ending(exitcode)}",
        hint="watch memory while it runs, or leave this item out",
    )


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            return f"was ended by {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"was ended by signal {-exitcode}"
    return f"ended itself with code {exitcode}"
