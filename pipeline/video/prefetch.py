"""Work done in a thread ahead of whoever uses it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item], *, depth: int) -> Iterator[Item]:
    """The same items in the same order, made in a thread while earlier ones are used.

    At most ``depth`` items wait. An error of ``items`` is raised here, after the items before
    it. When the caller stops early the thread ends too, and closes ``items`` itself.
    """
    line: SimpleQueue[tuple[bool, Item | BaseException | None]] = SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        try:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    return
                line.put((True, item))
            line.put((False, None))
        except BaseException as error:
            line.put((False, error))
        finally:
            items.close()

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, entry = line.get()
            if not more:
                if isinstance(entry, BaseException):
                    raise entry
                return
            room.release()
            yield entry  # type: ignore[misc]
            del entry
    finally:
        stopped.set()
        room.release()
        thread.join()
