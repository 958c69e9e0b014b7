"""Map a function over items. The only place that knows which engine runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pipeline.execution import local
from warehouse.errors import SettingsError

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Needs:
    """What one worker of a cluster holds while it works; a local worker is a process, no more."""

    cpus: float = 1.0
    gpus: float = 0.0


def map_items(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    engine: str = "local",
    workers: int | None = None,
    needs: Needs | None = None,
    limit_s: float | Callable[[Item], float | None] | None = None,
    over: Literal["cores", "machines"] = "cores",
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield each item with what ``function`` made of it, as they finish.

    Locally, with one worker or one item and no limit, the work is done in this process, in order.
    A local worker that dies takes its item with it. On a cluster the item is tried again
    elsewhere, until it has cost three workers; machines that went as a whole do not count.

    Args:
        function: picklable, so defined at the top of a module (``functools.partial`` is fine).
            What it loads once (``lru_cache``) is loaded once per worker. It may be run twice on
            an item when a machine is lost, so what it writes must be the same both times.
        workers: how many at once; default one per core this process may use, or per share of
            the cluster that fits ``needs``.
        needs: of one worker on a cluster.
        limit_s: seconds an item may take, or a function that says so for each; None: no limit.
            The worker at an item that takes longer is killed.
        over: ``machines`` for a function that uses every core by itself: more processes on one
            machine would be in each other's way, so locally it runs in this process.

    Yields:
        The item and the result; or the exception that ``function`` raised; or a RisoriusError
        when its worker died, whose ``got`` starts with ``timeout`` when it took too long.

    Raises:
        SettingsError: no such engine, ``workers`` is below 1, no worker can start; for Ray: it is
            not installed, no address is set, or nobody answers there.
    """
    if engine not in ENGINES:
        raise SettingsError(
            f"an engine among {', '.join(ENGINES)}", got=repr(engine), hint="set RISORIUS_ENGINE"
        )
    if workers is not None and workers < 1:
        raise SettingsError("at least 1 worker", got=str(workers), hint="set RISORIUS_WORKERS=1")
    todo = list(items)

    def limit_of(item: Any) -> float | None:
        return limit_s(item) if callable(limit_s) else limit_s

    if engine == "ray":
        from pipeline.execution import ray

        needs = needs or Needs()
        if not todo:
            return iter(())
        return ray.actors(
            function, todo, count=workers, cpus=needs.cpus, gpus=needs.gpus, limit_of=limit_of
        )
    count = 1 if over == "machines" else min(workers or local.cores(), len(todo))
    if count <= 1 and (limit_s is None or not todo):
        return _here(function, todo)
    return local.processes(function, todo, count=count, limit_of=limit_of)


def _here(
    function: Callable[[Item], Result], items: list[Item]
) -> Iterator[tuple[Item, Result | Exception]]:
    for item in items:
        try:
            outcome: Result | Exception = function(item)
        except Exception as error:
            outcome = error
        yield item, outcome
