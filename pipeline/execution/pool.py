"""Worker pool with one item per worker, for processes and Ray actors.

With one item per worker, a dead worker identifies its item, and at most one result per worker
waits to be read. Libraries tested in place of this pool lost or hung items, see
``docs/decisions/worker_pool.md``.
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
"""Return the seconds an item may take; None: no limit."""

_MAX_TRIES = 10
"""Upper bound of tries per item, node failures included."""


@dataclass
class Task:
    """An item, how often it was started, and how many workers died of it."""

    item: Any
    tries: int = 0
    deaths: int = 0


@dataclass(frozen=True)
class WorkerFailure:
    """A worker ended before its item was done.

    Attributes:
        error: outcome of the item if it is not retried.
        node_lost: the whole node failed; the item is retried and its death count stays.
        timeout: the item exceeded its limit; it is not retried.
    """

    error: Exception
    node_lost: bool = False
    timeout: bool = False


class Worker(ABC):
    """A worker with at most one task; subclasses implement the transport."""

    task: Task | None = None
    deadline: float = float("inf")

    def start(self, task: Task, limit_s: float | None) -> None:
        task.tries += 1
        self.task = task
        self.deadline = float("inf") if limit_s is None else time.monotonic() + limit_s
        self.send(task.item)

    @abstractmethod
    def send(self, item: Any) -> None: ...

    @abstractmethod
    def receive(self) -> Any:
        """Return an outcome or a WorkerFailure; any value once started."""

    @abstractmethod
    def kill(self) -> None: ...


Wait = Callable[[list[Any], float | None], Iterable[Any]]
"""Wait until some of the workers have a message or the seconds have passed; return those."""


def run(
    items: Iterable[Any],
    *,
    spawn: Callable[[], Worker],
    wait: Wait,
    count: int,
    limit_of: Limit,
    max_deaths: int,
) -> Iterator[tuple[Any, Any]]:
    """Yield every item once with its outcome, in the order of completion.

    Args:
        spawn: starts one worker.
        count: workers at a time.
        max_deaths: workers that may die of an item before the item fails.
    """
    waiting = deque(Task(item) for item in items)
    workers: list[Worker] = []
    try:
        workers += (spawn() for _ in range(count))
        while waiting or any(worker.task for worker in workers):
            ready = list(wait(workers, _seconds_to_deadline(workers)))
            now = time.monotonic()
            late = [one for one in workers if one.deadline <= now and one not in ready]
            for worker in [*ready, *late]:
                outcome = worker.receive() if worker in ready else _time_out(worker)
                task, worker.task, worker.deadline = worker.task, None, float("inf")
                failure = outcome if isinstance(outcome, WorkerFailure) else None
                if failure and task and _should_retry(task, failure, max_deaths=max_deaths):
                    waiting.append(task)
                elif task is not None:
                    yield task.item, failure.error if failure else outcome
                if waiting and not failure:
                    following = waiting.popleft()
                    worker.start(following, limit_of(following.item))
                    continue
                workers.remove(worker)
                worker.kill()
                if waiting:
                    workers.append(spawn())
    finally:
        # Also on Ctrl-C and when the caller closes the iterator: leave no orphan workers.
        for worker in workers:
            worker.kill()


def run_item(function: Callable[[Any], Any], item: Any) -> bytes:
    """Return the pickled result of ``function(item)``, or its exception."""
    try:
        return pickle.dumps(function(item))
    except Exception as error:
        return pickle.dumps(_picklable(error))


def unpack(message: bytes) -> Any:
    """Return what ``run_item`` packed; the error if it cannot be unpickled."""
    try:
        return pickle.loads(message)
    except Exception as error:
        return error


def _seconds_to_deadline(workers: list[Worker]) -> float | None:
    first = min(worker.deadline for worker in workers)
    return None if first == float("inf") else max(0.0, first - time.monotonic())


def _time_out(worker: Worker) -> WorkerFailure:
    worker.kill()
    error = RisoriusError(
        "The item was not done within its time limit",
        got="timeout: its worker was killed",
        hint="process this item alone, or raise the limit",
    )
    return WorkerFailure(error, timeout=True)


def _should_retry(task: Task, failure: WorkerFailure, *, max_deaths: int) -> bool:
    if failure.timeout:
        return False
    task.deaths += not failure.node_lost
    return task.deaths < max_deaths and task.tries < _MAX_TRIES


def _picklable(error: Exception) -> Exception:
    """Return ``error``, or a RuntimeError with its text if unpicklable."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
