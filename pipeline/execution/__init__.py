"""Map a function over items, on local processes or on a Ray cluster."""

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
    """CPUs and GPUs that one Ray worker reserves; ignored locally."""

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
    """Apply ``function`` to every item; yield item and result as they finish.

    With one worker or one item and no limit, the local engine runs in this process, in order.
    An item whose local worker dies fails. On Ray it is retried on another worker until three
    workers have died of it; workers lost with their node do not count.

    Args:
        function: picklable, so defined at module level (``functools.partial`` works). Use
            ``lru_cache`` to load a model once per worker. A lost node can make the function run
            twice on an item, so both runs must write the same output.
        workers: parallel workers; default one per core available to this process, or as many as
            fit the cluster.
        needs: resources of one Ray worker.
        limit_s: seconds per item, or a function of the item that returns them; None: no limit.
            If an item takes longer, its worker is killed.
        over: ``machines`` if the function uses all cores itself. The local engine then runs in
            this process.

    Yields:
        The item, with its result; the exception that ``function`` raised; or a RisoriusError if
        its worker died. ``got`` of that error starts with ``timeout`` after a timeout.

    Raises:
        SettingsError: unknown engine, ``workers`` below 1, or no worker starts. With Ray also:
            it is not installed, no address is set, or the cluster is unreachable.
    """
    if engine not in ENGINES:
        raise SettingsError(
            "Unknown engine",
            got=repr(engine),
            hint=f"set RISORIUS_ENGINE to one of {', '.join(ENGINES)}",
        )
    if workers is not None and workers < 1:
        raise SettingsError(
            "Fewer than one worker", got=str(workers), hint="set RISORIUS_WORKERS=1 or more"
        )
    pending = list(items)

    def limit_of(item: Any) -> float | None:
        return limit_s(item) if callable(limit_s) else limit_s

    if engine == "ray":
        from pipeline.execution import ray

        needs = needs or Needs()
        if not pending:
            return iter(())
        return ray.map_actors(
            function, pending, count=workers, cpus=needs.cpus, gpus=needs.gpus, limit_of=limit_of
        )
    count = 1 if over == "machines" else min(workers or local.cores(), len(pending))
    if count <= 1 and (limit_s is None or not pending):
        return _map_here(function, pending)
    return local.map_processes(function, pending, count=count, limit_of=limit_of)


def _map_here(
    function: Callable[[Item], Result], items: list[Item]
) -> Iterator[tuple[Item, Result | Exception]]:
    for item in items:
        try:
            result: Result | Exception = function(item)
        except Exception as error:
            result = error
        yield item, result
