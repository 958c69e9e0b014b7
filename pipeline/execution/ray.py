"""Map a function over items with actors of an existing Ray cluster.

Each actor is a process that keeps its loaded models and holds one item. Ray never restarts it:
``pool`` decides about retries, by the same rules as for local processes. Plain Ray tasks do not
fit: an idle task worker keeps its model until the driver ends, and ``max_retries`` cannot tell a
lost node from an item that kills its worker. See ``docs/decisions/worker_pool.md``.
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
MAX_DEATHS = 3
START_S = 600.0
"""Seconds to wait for the first worker; an autoscaling cluster may take minutes."""
_CONNECT_S = 5.0
_POLL_S = 15.0


def map_actors(
    function: Callable[[Any], Any],
    items: list[Any],
    *,
    count: int | None,
    cpus: float,
    gpus: float,
    limit_of: pool.Limit,
) -> Iterator[tuple[Any, Any]]:
    """Run ``pool.run`` with actors that reserve ``cpus`` and ``gpus`` each.

    Args:
        count: actors; default as many as fit the cluster now. If more are requested, the rest
            wait for resources, and an autoscaling cluster adds nodes for them.

    Raises:
        SettingsError: see ``connect``; or no actor started within ``START_S``.
    """
    ray = connect()
    from ray import cloudpickle

    # cloudpickle packs definitions of __main__ by value and those of modules by reference.
    packed = cloudpickle.dumps(function)
    os.umask(umask := os.umask(0o077))  # it can only be read by setting it
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Server)
    wanted = count or _capacity(ray.cluster_resources(), cpus=cpus, gpus=gpus)
    return pool.run(
        items,
        spawn=partial(_Actor, ray, lambda: actor.remote(packed, list(sys.path), umask)),
        wait=_ResultWaiter(ray, cpus=cpus, gpus=gpus),
        count=min(wanted, len(items)),
        limit_of=limit_of,
        max_deaths=MAX_DEATHS,
    )


def connect() -> ModuleType:
    """Connect to the cluster at ``RAY_ADDRESS`` once; return ``ray``.

    Raises:
        SettingsError: Ray is not installed, no address is set, the cluster is unreachable, or
            its versions of Ray or Python differ from those here.
    """
    try:
        import ray
    except ImportError:
        raise SettingsError(
            "Ray is not installed, but RISORIUS_ENGINE is ray",
            got="no package ray",
            hint="install risorius[ray], or set RISORIUS_ENGINE=local",
        ) from None
    address = os.environ.get(ADDRESS, "")
    if not address:
        raise SettingsError(
            "The address of the Ray cluster is missing",
            got=f"no {ADDRESS}",
            hint=f"set {ADDRESS}=host:6379 (or auto on a machine of the cluster)",
        )
    if ray.is_initialized():
        by_caller = not _connected  # this process is itself a job of the cluster
        if by_caller or (_connected == [address] and _is_alive(ray)):
            return ray
        ray.shutdown()
    _connected.clear()
    _check_port(address)
    _init(ray, address)
    _connected.append(address)
    return ray


_connected: list[str] = []
"""Address that ``connect`` connected to; another address replaces it."""


def _init(ray: ModuleType, address: str) -> None:
    # ``ray.init`` replaces the SIGTERM handler, which belongs to this program or to Dagster.
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        # Output of workers stays in the cluster's logs; errors arrive with their item.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, AssertionError, TimeoutError) as error:
        raise _unreachable(address, str(error).strip().splitlines()[0]) from error
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _check_port(address: str) -> None:
    """Raise if no process listens at the address.

    Ray itself retries for a minute and then ends the whole process.
    """
    bare = address.partition("://")[2] or address
    host, _, port = bare.partition("/")[0].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error) or "no answer") from None


def _unreachable(address: str, reason: str) -> SettingsError:
    return SettingsError(
        f"The Ray cluster at {ADDRESS}={address} cannot be reached",
        got=reason,
        hint="start it (`ray start --head`), correct the address, or set RISORIUS_ENGINE=local",
    )


def _is_alive(ray: ModuleType) -> bool:
    try:
        return bool(ray.cluster_resources())
    except Exception:
        return False


def _capacity(resources: dict[str, float], *, cpus: float, gpus: float) -> int:
    """Return how many workers fit the cluster, at least 1."""
    shares = [
        resources.get(name, 0.0) / wanted
        for name, wanted in (("CPU", cpus), ("GPU", gpus))
        if wanted
    ]
    return max(1, int(min(shares, default=1.0)))


class _Server:
    """The actor on the cluster."""

    def __init__(self, packed: bytes, path: list[str], umask: int) -> None:
        from ray import cloudpickle

        os.umask(umask)
        # As in a spawned process; these folders may be missing on another machine.
        sys.path += [entry for entry in path if entry not in sys.path]
        self.function = cloudpickle.loads(packed)

    def node_id(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def run_item(self, item: Any) -> bytes:
        return pool.run_item(self.function, item)


class _Actor(pool.Worker):
    """The driver's handle of one actor."""

    def __init__(self, ray: ModuleType, start: Callable[[], Any]) -> None:
        self.ray = ray
        self.actor = start()
        self.node: str | None = None
        self.result = self.actor.node_id.remote()

    def send(self, item: Any) -> None:
        self.result = self.actor.run_item.remote(item)

    def receive(self) -> Any:
        try:
            message = self.ray.get(self.result)
        except self.ray.exceptions.RayActorError as error:
            if error.actor_init_failed:
                raise SettingsError(
                    "A Ray worker cannot import the code to run",
                    got=str(error).strip().splitlines()[-1],
                    hint="install the same risorius on every machine of the cluster",
                ) from None
            return self._failure(error)
        except self.ray.exceptions.RayError as error:  # the node was lost with the result on it
            return self._failure(error)
        if self.node is None:
            self.node = message
            return None
        return pool.unpack(message)

    def kill(self) -> None:
        self.ray.kill(self.actor, no_restart=True)

    def _failure(self, error: Exception) -> pool.WorkerFailure:
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        reason = " ".join(str(error).split())[:300]
        return pool.WorkerFailure(
            RisoriusError(
                f"{MAX_DEATHS} workers ended before the item was done",
                got=f"the last one: {reason}",
                hint="check memory use, or leave this item out",
            ),
            node_lost=self.node is not None and self.node not in alive,
        )


class _ResultWaiter:
    """Wait for results of actors; raise if no actor starts within ``START_S``."""

    def __init__(self, ray: ModuleType, *, cpus: float, gpus: float) -> None:
        self.ray, self.cpus, self.gpus = ray, cpus, gpus
        self.waited_s = 0.0

    def __call__(self, workers: list[_Actor], timeout: float | None) -> list[_Actor]:
        by_result = {worker.result: worker for worker in workers}
        timeout = min(_POLL_S, timeout if timeout is not None else _POLL_S)
        ready, rest = self.ray.wait(list(by_result), num_returns=1, timeout=timeout)
        if rest:  # all finished results: an unread one could count as late
            ready += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        if ready or any(worker.node for worker in workers):
            self.waited_s = 0.0
        else:
            self.waited_s += timeout
        if self.waited_s >= START_S:
            raise SettingsError(
                "The cluster has no free resources for a worker",
                got=f"{self.cpus:g} CPU and {self.gpus:g} GPU not free within {START_S:g} s",
                hint="free some, add machines, or ask for less (RISORIUS_WORKER_CPUS, _GPUS)",
            )
        return [by_result[result] for result in ready]
