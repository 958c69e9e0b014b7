"""Start a real Ray cluster on 127.0.0.1, one ``ray start`` per node."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil

ABSENT = None if find_spec("ray") else "Ray is not installed (extra risorius[ray])"
_PORTS_PER_NODE = 100
_START_S = 120


class Cluster:
    """A head node and the nodes that joined it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def client_address(self) -> str:
        """Return the address for clients outside the cluster."""
        return f"ray://127.0.0.1:{self.port - 5}"

    def add(self, *, cpus: int = 1) -> subprocess.Popen[bytes]:
        """Start a node and wait until it has joined; the first one is the head."""
        first = not self.nodes
        base = _free_ports(_PORTS_PER_NODE)
        self.port = self.port or base + 7
        role = (
            ["--head", f"--port={self.port}", "--include-dashboard=false"]
            if first
            else [f"--address={self.address}"]
        )
        place = [f"--temp-dir={self.folder}"] if first else []
        node = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *role, *place,
                "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", "--num-gpus=0",
                "--disable-usage-stats",
                "--object-store-memory=80000000", f"--plasma-directory={self.folder}",
                f"--node-manager-port={base}", f"--object-manager-port={base + 1}",
                f"--ray-client-server-port={base + 2}", f"--dashboard-agent-listen-port={base + 3}",
                f"--dashboard-agent-grpc-port={base + 4}", f"--runtime-env-agent-port={base + 5}",
                f"--metrics-export-port={base + 6}",
                f"--min-worker-port={base + 10}", f"--max-worker-port={base + 90}",
            ],
            # By default Ray lowers the priority of its workers, below that of the tests.
            env={
                **os.environ,
                "RAY_ADDRESS": "",
                "RAY_enable_open_telemetry": "0",
                "RAY_worker_niceness": "0",
            },
            stdout=(self.folder / f"node-{len(self.nodes)}.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self.nodes.append(node)
        self._wait_for(len(self.alive()))
        return node

    def alive(self) -> list[subprocess.Popen[bytes]]:
        return [node for node in self.nodes if node.poll() is None]

    def workers(self, node: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Return the actor processes of a node, busy or idle."""
        return [
            process
            for process in _family(node.pid)
            if any("ray::" in word for word in _words(process))
        ]

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kill every process of the node at once, as a power cut would."""
        for process in _family(node.pid):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        node.wait()

    def _wait_for(self, count: int) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self.nodes[-1].poll() is not None:
                log = (self.folder / f"node-{len(self.nodes) - 1}.log").read_text()
                raise RuntimeError(f"a Ray node ended while starting:\n{log[-2000:]}")
            if self._joined() >= count:
                return
            time.sleep(0.3)
        raise RuntimeError(f"a Ray node did not join within {_START_S} s")

    def _joined(self) -> int:
        from ray._raylet import GcsClient

        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            nodes = GcsClient(address=self.address).get_all_node_info(timeout=5)
        except Exception:
            return 0
        return sum(1 for info in nodes.values() if info.state == 0)


@contextmanager
def cluster(*cpus: int) -> Iterator[Cluster]:
    """Run a cluster with one node per argument; delete its files at the end."""
    # Not in pytest's folder: the path of a Unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="rsr-ray-", dir="/tmp"))
    made = Cluster(folder)
    try:
        for count in cpus:
            made.add(cpus=count)
        yield made
    finally:
        for node in made.alive():
            made.kill(node)
        shutil.rmtree(folder, ignore_errors=True)


def _family(pid: int) -> list[psutil.Process]:
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _free_ports(count: int) -> int:
    """Return the first of ``count`` consecutive free ports."""
    for base in range(21000 + os.getpid() % 97 * 100, 32000, count):
        try:
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports in a row")
