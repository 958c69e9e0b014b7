"""Map a function over items. The only place that knows which engine runs.

A worker that dies (killed for memory, a fault in native code) takes exactly one item with it:
each worker is a process of our own holding one item, so who was at work is never in doubt. A
pool of the standard library only says that somebody died, and fails all that was waiting.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from warehouse.errors import RisoriusError, SettingsError

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = ("local",)

_READY = "ready"


def fan_out(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    engine: str = "local",
    workers: int | None = None,
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield each item with what ``function`` made of it, as they finish.

    With one worker or one item the work is done in this process, in order.

    Args:
        function: picklable, so defined at the top of a module (``functools.partial`` is fine).
        workers: processes; default one per core this process may use.

    Yields:
        The item and the result; or the exception that ``function`` raised; or a RisoriusError
        when its worker died.

    Raises:
        SettingsError: the engine is not built, ``workers`` is below 1, or no worker can start.
    """
    if engine not in ENGINES:
        raise SettingsError(
            f"an engine among {', '.join(ENGINES)}",
            got=f"{engine!r}, which is not built yet" if engine == "ray" else repr(engine),
            mend="set RISORIUS_ENGINE=local",
        )
    if workers is not None and workers < 1:
        raise SettingsError("at least 1 worker", got=str(workers), mend="set RISORIUS_WORKERS=1")
    todo = list(items)
    count = min(workers or _cores(), len(todo))
    return _here(function, todo) if count <= 1 else _processes(function, todo, count=count)


def _here(
    function: Callable[[Item], Result], items: list[Item]
) -> Iterator[tuple[Item, Result | Exception]]:
    for item in items:
        try:
            outcome: Result | Exception = function(item)
        except Exception as error:
            outcome = error
        yield item, outcome


def _processes(
    function: Callable[[Item], Result], items: list[Item], *, count: int
) -> Iterator[tuple[Item, Result | Exception]]:
    pickle.dumps(function)  # a clear error here instead of one from half a worker
    waiting = deque(items)
    crew = [_Worker(function) for _ in range(count)]
    try:
        while crew:
            for worker in _first_to_speak(crew):
                item, outcome = worker.hear()
                if outcome is not _READY:
                    yield item, outcome
                if worker.dead:
                    crew.remove(worker)
                    worker.kill()
                    if waiting:
                        crew.append(_Worker(function))
                elif waiting:
                    worker.take(waiting.popleft())
                else:
                    crew.remove(worker)
                    worker.kill()
    finally:
        # Also on Ctrl-C and when the caller stops listening: nobody works on in the dark.
        for worker in crew:
            worker.kill()


class _Worker:
    """One process, one pipe, at most one item."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        # Spawn, not fork: onnxruntime and FFmpeg hold threads that do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Any = None
        self.started = self.dead = False

    def take(self, item: Any) -> None:
        self.item = item
        with suppress(OSError):  # it died in between; ``hear`` will say so
            self.pipe.send(item)

    def hear(self) -> tuple[Any, Any]:
        """The item and its outcome; or ``_READY`` once, when the process has started."""
        try:
            kind, outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.dead = True
            self.process.join()
            if not self.started:
                raise SettingsError(
                    "worker processes that can import the main module",
                    got=f"one that {_ending(self.process.exitcode)} before its first item",
                    mend="put the script's code under `if __name__ == '__main__':` or use 1 worker",
                ) from None
            return self.item, _death(self.process.exitcode)
        except Exception as error:  # a result this process cannot unpickle
            return self.item, error
        self.started = True
        return (None, _READY) if kind == _READY else (self.item, outcome)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _first_to_speak(crew: list[_Worker]) -> list[_Worker]:
    heard = wait([worker.pipe for worker in crew])
    return [worker for worker in crew if worker.pipe in heard]


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    # Ctrl-C reaches the whole group; the parent decides, and kills.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send((_READY, None))
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer = pickle.dumps(("done", function(item)))
        except Exception as error:
            answer = pickle.dumps(("done", _portable(error)))
        pipe.send_bytes(answer)


def _end_with_parent() -> None:
    # A parent killed outright cleans up nothing; its workers must not outlive it.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """``error``, or a plain one that says the same if it does not survive the pipe."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _death(exitcode: int | None) -> RisoriusError:
    return RisoriusError(
        "a worker that finishes its item",
        got=f"one that {_ending(exitcode)}",
        mend="watch memory while it runs, or leave this item out",
    )


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            return f"was ended by {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"was ended by signal {-exitcode}"
    return f"ended itself with code {exitcode}"


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
