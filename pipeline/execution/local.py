"""Map a function over items with processes of this machine.

Each process holds one item. ``concurrent.futures`` fails all waiting items when a process dies.
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
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from pipeline.execution import pool
from warehouse.errors import RisoriusError, SettingsError

_READY = b"ready"


def map_processes(
    function: Callable[[Any], Any], items: Iterable[Any], *, count: int, limit_of: pool.Limit
) -> Iterator[tuple[Any, Any]]:
    """Run ``pool.run`` with ``count`` processes; never retry an item."""
    pickle.dumps(function)  # raise here if it cannot be pickled, not in half a worker
    return pool.run(
        items,
        spawn=partial(_Process, function),
        wait=_wait,
        count=count,
        limit_of=limit_of,
        max_deaths=1,
    )


def cores() -> int:
    """Return the number of cores available to this process."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class _Process(pool.Worker):
    """One process and its pipe."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        # Spawn, not fork: threads of onnxruntime and FFmpeg do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, remote = context.Pipe()
        self.process = context.Process(target=_serve, args=(remote, function), daemon=True)
        self.process.start()
        remote.close()
        self.started = False

    def send(self, item: Any) -> None:
        with suppress(OSError):  # if the process has died, ``receive`` reports it
            self.pipe.send(item)

    def receive(self) -> Any:
        try:
            message = self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.process.join()
            ending = _ending(self.process.exitcode)
            if not self.started:
                raise SettingsError(
                    "A worker process ended before its first item",
                    got=ending,
                    hint="put the script's code under `if __name__ == '__main__':` or use 1 worker",
                ) from None
            error = RisoriusError(
                "The worker ended before its item was done",
                got=ending,
                hint="check memory use, or leave this item out",
            )
            return pool.WorkerFailure(error)
        self.started = True
        return None if message == _READY else pool.unpack(message)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _wait(workers: list[_Process], timeout: float | None) -> list[_Process]:
    ready = connection.wait([worker.pipe for worker in workers], timeout)
    return [worker for worker in workers if worker.pipe in ready]


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    # Ctrl-C reaches the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    pipe.send_bytes(_READY)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send_bytes(pool.run_item(function, item))


def _exit_with_parent() -> None:
    # A parent ended by SIGKILL cleans up nothing.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            return f"ended by {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"ended by signal {-exitcode}"
    return f"exited with code {exitcode}"
