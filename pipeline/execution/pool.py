"""The part that every engine shares: workers that hold one item each, and what becomes of it.

One item per worker, so who was at work when a worker died is never in doubt, and so no more than
one item per worker is ever under way or waiting to be fetched.
"""

from __future__ import annotations

import pickle
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from warehouse.errors import RisoriusError

Limit = Callable[[Any], float | None]

_MOST_TRIES = 10
"""An item may be innocent of a lost machine; ten lost machines are no accident."""


@dataclass
class Task:
    """An item, how often it was begun, and how often its worker died of it."""

    item: Any
    tries: int = 0
    deaths: int = 0


@dataclass(frozen=True)
class Death:
    """A worker's last word.

    Attributes:
        error: what to say if the item is given up.
        innocent: the whole machine went, so the item is not to blame.
    """

    error: Exception
    innocent: bool = False


class Worker(ABC):
    """At most one task at a time; the engine says how it is handed over and heard of."""

    task: Task | None = None
    deadline: float = float("inf")

    def take(self, task: Task, limit_s: float | None) -> None:
        task.tries += 1
        self.task = task
        self.deadline = float("inf") if limit_s is None else time.monotonic() + limit_s
        self.send(task.item)

    @abstractmethod
    def send(self, item: Any) -> None: ...

    @abstractmethod
    def hear(self) -> Any:
        """The outcome of its item; anything at all when it says that it has started; or Death."""

    @abstractmethod
    def kill(self) -> None: ...


Listen = Callable[[list[Any], float | None], Iterable[Any]]


def work_through(
    items: Iterable[Any],
    *,
    hire: Callable[[], Worker],
    listen: Listen,
    count: int,
    limit_of: Limit,
    deaths: int,
) -> Iterator[tuple[Any, Any]]:
    """Yield every item once with its outcome, whatever happens to the workers.

    Args:
        listen: waits until some of the given workers have spoken, or the seconds have passed.
        deaths: workers an item may cost before it is given up.
    """
    waiting = deque(Task(item) for item in items)
    crew: list[Worker] = []
    try:
        crew += (hire() for _ in range(count))
        while waiting or any(worker.task for worker in crew):
            spoke = list(listen(crew, _patience(crew)))
            for worker in [*spoke, *_overdue(crew, but=spoke)]:
                task, said = worker.task, (worker.hear() if worker in spoke else _too_long(worker))
                worker.task, worker.deadline = None, float("inf")
                if isinstance(said, Death) and _deserves_another(task, said, deaths=deaths):
                    waiting.append(task)
                elif task is not None:
                    yield task.item, said.error if isinstance(said, Death) else said
                if waiting and not isinstance(said, Death):
                    following = waiting.popleft()
                    worker.take(following, limit_of(following.item))
                    continue
                crew.remove(worker)
                worker.kill()
                if waiting:
                    crew.append(hire())
    finally:
        # Also on Ctrl-C and when the caller stops listening: nobody works on in the dark.
        for worker in crew:
            worker.kill()


def answer(function: Callable[[Any], Any], item: Any) -> bytes:
    """In the worker: ``function(item)``, or the exception it raised, ready for ``outcome``."""
    try:
        return pickle.dumps(function(item))
    except Exception as error:
        return pickle.dumps(_portable(error))


def outcome(said: bytes) -> Any:
    """Here: what ``answer`` packed; the error if it cannot be unpacked."""
    try:
        return pickle.loads(said)
    except Exception as error:
        return error


def _patience(crew: list[Worker]) -> float | None:
    first = min(worker.deadline for worker in crew)
    return None if first == float("inf") else max(0.0, first - time.monotonic())


def _overdue(crew: list[Worker], *, but: list[Worker]) -> list[Worker]:
    now = time.monotonic()
    return [worker for worker in crew if worker.deadline <= now and worker not in but]


def _too_long(worker: Worker) -> Death:
    worker.kill()
    return Death(
        RisoriusError(
            "an item that is done in its time",
            got="timeout: its worker was ended at the limit",
            hint="look at this item alone, or allow it more time",
        )
    )


def _deserves_another(task: Task | None, said: Death, *, deaths: int) -> bool:
    if task is None or str(getattr(said.error, "got", "")).startswith("timeout"):
        return False
    task.deaths += not said.innocent
    return task.deaths < deaths and task.tries < _MOST_TRIES


def _portable(error: Exception) -> Exception:
    """``error``, or a plain one that says the same if it does not survive the journey."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
