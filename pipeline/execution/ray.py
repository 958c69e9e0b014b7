"""Actors of an existing Ray cluster, over as many machines as it has.

Each actor is a process that keeps what it loaded, holds one item, and is never restarted by Ray:
who died, and of what, is decided in ``crew``, by the same rules as for local processes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.execution import pool
from warehouse.errors import RisoriusError, SettingsError

if TYPE_CHECKING:
    from types import ModuleType

ADDRESS = "RAY_ADDRESS"
DEATHS = 3
START_S = 600.0
"""A cluster that grows on demand may take minutes until the first machine is there."""
_KNOCK_S = 5.0
_LOOK_S = 15.0


def actors(
    function: Callable[[Any], Any],
    items: list[Any],
    *,
    count: int | None,
    cpus: float,
    gpus: float,
    limit_of: pool.Limit,
) -> Iterator[tuple[Any, Any]]:
    """``pool.work_through`` with actors that hold ``cpus`` and ``gpus`` each.

    Args:
        count: actors wanted; default as many as fit the cluster now. More than fit wait for
            room, which a cluster that grows on demand takes as the wish to grow.

    Raises:
        SettingsError: see ``connect``; or no actor could start within ``START_S``.
    """
    ray = connect()
    from ray import cloudpickle

    # By value what a script defines in __main__, by reference what a module holds.
    packed = cloudpickle.dumps(function)
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Server)
    hire = partial(_Actor, ray, lambda: actor.remote(packed, list(sys.path)))
    wanted = count or _room(ray.cluster_resources(), cpus=cpus, gpus=gpus)
    return pool.work_through(
        items,
        hire=hire,
        listen=_Ear(ray, cpus=cpus, gpus=gpus),
        count=min(wanted, len(items)),
        limit_of=limit_of,
        deaths=DEATHS,
    )


def connect() -> ModuleType:
    """Ray, connected to the cluster that ``RAY_ADDRESS`` names; once per process.

    Raises:
        SettingsError: Ray is not installed, no address is set, nobody answers there, or its
            versions of Ray or Python are others than ours.
    """
    try:
        import ray
    except ImportError:
        raise SettingsError(
            "Ray, for RISORIUS_ENGINE=ray",
            got="no such package",
            hint="install risorius[ray], or set RISORIUS_ENGINE=local",
        ) from None
    address = os.environ.get(ADDRESS, "")
    if not address:
        raise SettingsError(
            "the address of a Ray cluster",
            got=f"no {ADDRESS}",
            hint=f"set {ADDRESS}=host:6379 (or auto on a machine of the cluster)",
        )
    if ray.is_initialized():
        by_others = not _joined  # a run that is itself a job of the cluster
        if by_others or (_joined == [address] and _answers(ray)):
            return ray
        ray.shutdown()
    _joined.clear()
    _knock(address)
    _join(ray, address)
    _joined.append(address)
    return ray


_joined: list[str] = []
"""The address this process joined by itself; a second cluster replaces the first."""


def _join(ray: ModuleType, address: str) -> None:
    # Joining replaces the handler of SIGTERM, which is ours or Dagster's to keep.
    main = threading.current_thread() is threading.main_thread()
    kept = signal.getsignal(signal.SIGTERM) if main else None
    try:
        # What workers print stays in the cluster's own logs; what went wrong comes with the item.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, AssertionError, TimeoutError) as error:
        raise _unreachable(address, str(error).strip().splitlines()[0]) from error
    finally:
        if main and kept is not None:
            signal.signal(signal.SIGTERM, kept)


def _knock(address: str) -> None:
    """Ray itself tries for a minute and ends the whole process when nobody opens."""
    bare = address.partition("://")[2] or address
    host, _, port = bare.partition("/")[0].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error) or "no answer") from None


def _unreachable(address: str, said: str) -> SettingsError:
    return SettingsError(
        f"a Ray cluster at {ADDRESS}={address}",
        got=said,
        hint="start it (`ray start --head`), mend the address, or set RISORIUS_ENGINE=local",
    )


def _answers(ray: ModuleType) -> bool:
    try:
        return bool(ray.cluster_resources())
    except Exception:
        return False


def _room(resources: dict[str, float], *, cpus: float, gpus: float) -> int:
    shares = [
        resources.get(name, 0.0) / wanted
        for name, wanted in (("CPU", cpus), ("GPU", gpus))
        if wanted
    ]
    return max(1, int(min(shares, default=1.0)))


class _Server:
    """What runs on the cluster."""

    def __init__(self, packed: bytes, path: list[str]) -> None:
        from ray import cloudpickle

        # As a spawned process would have it; on other machines these folders may not exist.
        sys.path += [entry for entry in path if entry not in sys.path]
        self.function = cloudpickle.loads(packed)

    def where(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def work(self, item: Any) -> bytes:
        return pool.answer(self.function, item)


class _Actor(pool.Worker):
    """Our end of one actor."""

    def __init__(self, ray: ModuleType, start: Callable[[], Any]) -> None:
        self.ray = ray
        self.actor = start()
        self.node: str | None = None
        self.answer = self.actor.where.remote()

    def send(self, item: Any) -> None:
        self.answer = self.actor.work.remote(item)

    def hear(self) -> Any:
        try:
            said = self.ray.get(self.answer)
        except self.ray.exceptions.RayActorError as error:
            if error.actor_init_failed:
                raise SettingsError(
                    "Ray workers that can import the code they are to run",
                    got=str(error).strip().splitlines()[-1],
                    hint="install the same risorius on every machine of the cluster",
                ) from None
            return self._death(error)
        except self.ray.exceptions.RayError as error:  # its machine went with the answer in it
            return self._death(error)
        if self.node is None:
            self.node = said
            return None
        return pool.outcome(said)

    def kill(self) -> None:
        self.ray.kill(self.actor, no_restart=True)

    def _death(self, error: Exception) -> pool.Death:
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        said = " ".join(str(error).split())
        return pool.Death(
            _given_up(said), innocent=self.node is not None and self.node not in alive
        )


class _Ear:
    """Waits for actors to speak; loses patience when there is none to speak for too long."""

    def __init__(self, ray: ModuleType, *, cpus: float, gpus: float) -> None:
        self.ray, self.cpus, self.gpus = ray, cpus, gpus
        self.silent_s = 0.0

    def __call__(self, workers: list[_Actor], patience: float | None) -> list[_Actor]:
        by_answer = {worker.answer: worker for worker in workers}
        timeout = min(_LOOK_S, patience if patience is not None else _LOOK_S)
        ready, rest = self.ray.wait(list(by_answer), num_returns=1, timeout=timeout)
        if rest:  # all that have spoken: who is not heard may count as too late
            ready += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        if ready or any(worker.node for worker in workers):
            self.silent_s = 0.0
        else:
            self.silent_s += timeout
        if self.silent_s >= START_S:
            raise SettingsError(
                f"room for a worker with {self.cpus:g} CPU and {self.gpus:g} GPU in the cluster",
                got=f"none in {START_S:g} s",
                hint="free some, add machines, or ask for less (RISORIUS_WORKER_CPUS, _GPUS)",
            )
        return [by_answer[answer] for answer in ready]


def _given_up(said: str) -> RisoriusError:
    return RisoriusError(
        "a worker that finishes its item",
        got=f"{DEATHS} that ended over it; the last one: {said[:300]}",
        hint="watch memory while it runs, or leave this item out",
    )
