"""Which running processes are the server of a home: asked of the system, not of a file.

A pid in a file goes stale, is given to another program, or was never written because its writer
was killed. Every process of a server carries the server's data folder in its environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

_MARK = "LABEL_STUDIO_BASE_DATA_DIR"
_TERM_S, _KILL_S = 20, 5

# A middleman that ends at once: the server is nobody's child, so it outlives the caller and
# never becomes its zombie.
_DETACH = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"


def launch(command: list[str], *, env: dict[str, str], cwd: Path, log: Path) -> None:
    """Start ``command`` in a session of its own, its output into ``log``."""
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
        subprocess.run(
            [sys.executable, "-S", "-c", _DETACH, *command],
            env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True,
        )  # fmt: skip


def of_server(data_dir: Path) -> list[psutil.Process]:
    """The live processes of the server whose data folder this is, oldest first."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get(_MARK) == str(data_dir)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # somebody else's, or gone meanwhile
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Its environment; empty when it is gone."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def listening_port(processes: list[psutil.Process]) -> int | None:
    """The TCP port that one of them really listens on: not always the one that was asked for."""
    for process in processes:
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    return connection.laddr.port
        except (psutil.Error, OSError):
            continue
    return None


def stop(processes: list[psutil.Process]) -> None:
    """TERM to each (uv is the parent, the server its child), KILL to what is left."""
    for signalled, patience in (
        (psutil.Process.terminate, _TERM_S),
        (psutil.Process.kill, _KILL_S),
    ):
        for process in processes:
            try:
                signalled(process)
            except psutil.Error:
                continue
        _, processes = psutil.wait_procs(processes, timeout=patience)
        processes = [process for process in processes if not _is_zombie(process)]
        if not processes:
            return


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
