"""``map_items`` on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.execution import Needs, map_items
from tests.pipeline.ray_cluster import ABSENT, Cluster, cluster
from warehouse.errors import MediaError, RisoriusError, SettingsError

ROOT = Path(__file__).parents[2]

needs_ray = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(ABSENT is not None, reason=ABSENT or ""),
]


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    import ray

    with cluster(1, 1) as nodes, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        ray.shutdown()  # before the cluster stops: a driver that loses it ends its process


def work(item: int, *, folder: Path | None = None) -> int:
    """Return the square and log the try; negative items fail."""
    if folder is not None:
        (folder / f"{item}-{time.monotonic_ns()}").touch()
    match item:
        case -1:
            raise MediaError("The file is truncated", got="half of it", hint="copy it again")
        case -2:
            os.kill(os.getpid(), signal.SIGKILL)
        case -3:
            return lambda: 0  # type: ignore[return-value]
        case -4:
            time.sleep(600)
    return item * item


@lru_cache(maxsize=1)
def model(folder: Path) -> int:
    (folder / f"model-{os.getpid()}-{time.monotonic_ns()}").touch()
    return 10


def with_model(item: int, *, folder: Path) -> tuple[int, int]:
    """Multiply by ten, after a second worker has loaded the model too."""
    ten = model(folder)
    wait_for(lambda: len(list(folder.glob("model-*"))) > 1)
    return item * ten, os.getpid()


def gated(item: int, *, folder: Path) -> int:
    """Write the process id, wait for the gate file, write the result."""
    (folder / f"pid-{os.getpid()}").touch()
    wait_for(lambda: (folder / "gate").exists(), seconds=200)
    (folder / f"done-{item}").write_text(str(item * item))
    return item * item


def tries(folder: Path, item: int) -> int:
    return len(list(folder.glob(f"{item}-*")))


def comparable(found: dict[int, Any]) -> dict[int, Any]:
    return {i: (type(v), str(v)) if isinstance(v, Exception) else v for i, v in found.items()}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, "no RAY_ADDRESS"),
        ("127.0.0.1:9", "refused"),
        ("ray://127.0.0.1:9", "refused"),
        ("no-such-host.invalid:6379", "no-such-host.invalid"),
    ],
)
@pytest.mark.skipif(ABSENT is not None, reason=ABSENT or "")
def test_connect__unreachable_cluster(
    monkeypatch: pytest.MonkeyPatch, address: str | None, message: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SettingsError, match=message):
        map_items(work, [1], engine="ray")


def test_connect__ray_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"Install risorius\[ray\]"):
        map_items(work, [1], engine="ray")


class TestOnTwoNodes:
    pytestmark = needs_ray

    def test_map_items__same_outcomes_as_locally(self, two_nodes: Cluster, tmp_path: Path) -> None:
        items = [-3, -1, *range(1, 9)]
        here = dict(map_items(work, items, workers=2))
        given = partial(work, folder=tmp_path)
        remote = dict(map_items(given, [*items, -2, -4], engine="ray", limit_s=20.0))
        killer, sleeper = remote.pop(-2), remote.pop(-4)
        assert comparable(remote) == comparable(here)
        assert all(tries(tmp_path, item) == 1 for item in items)
        assert isinstance(killer, RisoriusError)
        assert killer.problem.startswith("3 workers ended")
        assert tries(tmp_path, -2) == 3
        assert sleeper.got.startswith("timeout")
        assert tries(tmp_path, -4) == 1

    def test_map_items__from_a_ray_client(self, two_nodes: Cluster) -> None:
        # In another process: Ray cannot be driver and client in one.
        code = "import math; from pipeline.execution import map_items; "
        code += "print(sorted(map_items(math.sqrt, [1, 4], engine='ray')))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": two_nodes.client_address},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert "[(1, 1.0), (4, 2.0)]" in done.stdout, done.stderr

    def test_map_items__no_items(self, two_nodes: Cluster) -> None:
        assert list(map_items(work, [], engine="ray")) == []

    def test_map_items__resources_never_free(
        self, two_nodes: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.execution.ray.START_S", 1.0)
        monkeypatch.setattr("pipeline.execution.ray._POLL_S", 0.5)
        with pytest.raises(SettingsError, match="1 CPU and 3 GPU"):
            list(map_items(work, [1], engine="ray", needs=Needs(gpus=3)))

    def test_map_items__one_model_per_worker_and_none_left(
        self, two_nodes: Cluster, tmp_path: Path
    ) -> None:
        results = map_items(partial(with_model, folder=tmp_path), range(500), engine="ray")
        found = [next(results) for _ in range(40)]
        results.close()  # type: ignore[attr-defined]
        assert all(value[0] == 10 * item for item, value in found)  # type: ignore[index]
        pids = {int(path.name.split("-")[1]) for path in tmp_path.iterdir()}
        assert len(list(tmp_path.iterdir())) == len(pids) == 2
        wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))

    def test_map_items__ctrl_c_ends_the_workers(self, two_nodes: Cluster, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(SCRIPT))
        running = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        os.killpg(running.pid, signal.SIGINT)
        assert b"KeyboardInterrupt" in running.communicate(timeout=60)[1]
        wait_for(lambda: not any(psutil.pid_exists(pid) for pid in _pids(tmp_path)))

    def test_map_items__retries_after_lost_worker_and_lost_node(
        self, two_nodes: Cluster, tmp_path: Path
    ) -> None:
        second = two_nodes.alive()[1]

        def busy() -> set[int]:
            return _pids(tmp_path) & {one.pid for one in two_nodes.workers(second)}

        def inject_failures() -> None:
            wait_for(lambda: bool(busy()))
            first = busy()
            os.kill(first.pop(), signal.SIGKILL)
            wait_for(lambda: bool(busy()))
            two_nodes.kill(second)
            (tmp_path / "gate").touch()

        injector = threading.Thread(target=inject_failures)
        injector.start()
        found = list(map_items(partial(gated, folder=tmp_path), range(12), engine="ray"))
        injector.join()
        assert len(two_nodes.alive()) == 1
        assert sorted(found) == [(item, item * item) for item in range(12)]
        done = {path.name: path.read_text() for path in tmp_path.glob("done-*")}
        assert done == {f"done-{item}": str(item * item) for item in range(12)}


def _pids(folder: Path) -> set[int]:
    return {int(path.name[4:]) for path in folder.glob("pid-*")}


SCRIPT = """
    import os, pathlib, sys, time
    from functools import partial
    from pipeline.execution import map_items

    def slow(item, folder):
        pathlib.Path(folder, f"pid-{os.getpid()}").touch()
        time.sleep(600)

    for _ in map_items(partial(slow, folder=sys.argv[1]), [1, 2], engine="ray"):
        pass
"""


def wait_for(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.1)
