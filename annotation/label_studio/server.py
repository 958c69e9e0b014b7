"""Start, stop and find the local Label Studio of a home.

It is the real server, on loopback, over SQLite or PostgreSQL.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from annotation.label_studio import installation
from annotation.label_studio.client import Address, credentials
from warehouse.errors import StudioError
from warehouse.masking import mask
from warehouse.storage import atomic
from warehouse.storage.locks import file_lock

_POLL_S = 0.2
_EXITED_S = 1.0
_ACTIVITY = "starting or stopping Label Studio"
_TAIL_LINES = 12
_DATA_DIR = "LABEL_STUDIO_BASE_DATA_DIR"
_TERM_S, _KILL_S = 20, 5
_REPORT_S = 60
_LOG_BYTES = 1_000_000
_WORK_CPU_S = 1.0
"""CPU time that counts as work; a server that hangs while it polls uses less."""

_log = logging.getLogger(__name__)

_DETACH = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
"""Program that starts the server and ends, so that the server outlives its caller and never
becomes its zombie."""


@dataclass(frozen=True)
class Status:
    """State of the local server: up, starting or down."""

    state: str
    url: str | None = None
    pid: int | None = None


def up(
    studio_dir: Path,
    media_dir: Path,
    *,
    port: int | None = None,
    postgres: str | None = None,
    wait_s: float = 240,
    busy_s: float = 1800,
    progress: Callable[[str], None] | None = None,
) -> Address:
    """Start the server of a folder, or find it running.

    Two callers at once start one.

    Args:
        studio_dir: holds database, log, address and accounts; ``Home.studio``.
        media_dir: the only folder that the server may serve; ``Home.media``.
        port: required port. Without it the last port is used again, or any free one.
        postgres: URL of a database to use instead of SQLite in ``studio_dir``.
        wait_s, busy_s: how long a starting server may make no progress; see ``_Startup``. A
            start as a whole may take any time.
        progress: receives one line per step, and one per minute of a slow start. Without it
            they are logged.

    Raises:
        StudioError: the server cannot be installed, the port is taken, the server exited or
            did not answer, or the media folder holds links.
    """
    studio_dir, media_dir = studio_dir.resolve(), media_dir.resolve()
    for folder in (studio_dir / "data", media_dir):
        folder.mkdir(parents=True, exist_ok=True)
    os.chmod(studio_dir, 0o700)
    refuse_links(media_dir)
    say = progress or _log.info
    startup = _Startup(studio_dir, wait_s=wait_s, busy_s=busy_s, say=progress or _log.warning)
    with file_lock(
        studio_dir / ".lock", purpose=_ACTIVITY, timeout_s=max(wait_s, installation.INSTALL_S),
        keep_waiting=startup.goes_on,
    ):  # fmt: skip
        startup.begin()
        processes = find_processes(studio_dir / "data")
        if processes and _serves(processes, media_dir):
            say("Label Studio is running or starting; waiting for its answer")
            if (found := _wait(studio_dir, startup)) is not None:
                return _remember(studio_dir, found, started=False)
        _stop(processes)
        command = installation.ensure_installed(say)
        wanted = port or _free_port(_record(studio_dir).get("port"))
        if not _is_free(wanted):
            raise _port_taken(wanted)
        _launch(studio_dir, media_dir, command=command, port=wanted, postgres=postgres)
        say("starting Label Studio (about 30 s the first time, 8 s after)")
        startup.begin()
        found = _wait(studio_dir, startup)
        if found is None or (port is not None and found.url != _url(port)):
            failure = _start_error(studio_dir, startup) if found is None else None
            _stop(find_processes(studio_dir / "data"))
            raise failure or _port_taken(wanted)
        return _remember(studio_dir, found, started=True)


def down(studio_dir: Path) -> bool:
    """Stop the server of a folder.

    Return False if none ran. Its data stay on disk.
    """
    studio_dir = studio_dir.resolve()
    if not studio_dir.is_dir():
        return False
    with file_lock(studio_dir / ".lock", purpose=_ACTIVITY, timeout_s=60):
        processes = find_processes(studio_dir / "data")
        _stop(processes)
        return bool(processes)


def status(studio_dir: Path) -> Status:
    """Return the state of a folder's server; starts and changes nothing."""
    processes = find_processes(studio_dir.resolve() / "data")
    if not processes:
        return Status("down")
    found = _probe(studio_dir.resolve(), processes)
    if found is None:
        return Status("starting", pid=processes[0].pid)
    return Status("up", url=found.url, pid=found.pid)


def running(studio_dir: Path) -> Address | None:
    """Return the address of a folder's server, or None if it is not up.

    Starts nothing.
    """
    studio_dir = studio_dir.resolve()
    return _probe(studio_dir, find_processes(studio_dir / "data"))


def find_processes(data_dir: Path) -> list[psutil.Process]:
    """Return the live server processes of this data folder, oldest first.

    A process id in a file may be stale, reused, or never written. Every process of a server
    has the data folder in its environment.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get(_DATA_DIR) == str(data_dir)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # Another user's process, or it has exited.
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def refuse_links(media_dir: Path) -> None:
    """Raise if the media folder holds a link, which the server would follow.

    Only names are read: about one second for a million pictures.

    Raises:
        StudioError: names the first link.
    """
    for link in _links(media_dir):
        raise StudioError(
            f"The media folder {media_dir} holds a link, which Label Studio would follow",
            got=link,
            hint="put the file itself there; only the media folder as a whole may be a link",
        )


def _links(folder: str | Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield entry.path
            elif entry.is_dir(follow_symlinks=False):
                yield from _links(entry.path)


def _launch(
    studio_dir: Path, media_dir: Path, *, command: list[str], port: int, postgres: str | None
) -> None:
    """Start the server in a session of its own, its output in ``server.log``."""
    if postgres is None:
        installation.prepare_sqlite(studio_dir)
    account, log = credentials(studio_dir), studio_dir / "server.log"
    if log.exists():
        os.replace(log, studio_dir / "server.log.1")
    environment = installation.environment(
        os.environ, data_dir=studio_dir / "data", media_dir=media_dir, email=account.email,
        password=account.password, token=account.token, postgres=postgres,
    )  # fmt: skip
    arguments = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
        subprocess.run(
            [sys.executable, "-S", "-c", _DETACH, *command, "label-studio", *arguments],
            env=environment, cwd=studio_dir, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            check=True,
        )  # fmt: skip


class _Startup:
    """Follow a starting server to tell a slow one from one that hangs.

    Steps are a migration applied to the SQLite database, or a log line of a new kind. Work is CPU
    time, or a longer log. Work without a step is enough for ``busy_s`` only: a long migration
    looks like an endless loop. Once the server listens, only steps count. Without steps and work
    the server hangs after ``wait_s``.

    Args:
        say: receives a line per minute.
    """

    def __init__(
        self, studio_dir: Path, *, wait_s: float, busy_s: float, say: Callable[[str], None]
    ) -> None:
        self._studio_dir, self._wait_s, self._busy_s = studio_dir, wait_s, busy_s
        self._say = say
        self.begin()

    def begin(self) -> None:
        """Start counting again."""
        self._begun = self._step_at = self._work_at = time.monotonic()
        self._reported = 0
        self._lines, self._log_size, self._migrations, self._cpu_s = set[str](), 0, 0, 0.0

    def goes_on(self) -> bool:
        """Return whether the server lives and makes progress; to be asked often."""
        processes = find_processes(self._studio_dir / "data")
        return bool(processes) and not self.hangs(processes)

    def hangs(self, processes: list[psutil.Process]) -> bool:
        """Return whether a living server makes no progress; to be asked often."""
        now, (step, work) = time.monotonic(), self._look(processes)
        if step:
            self._step_at = self._work_at = now
        elif work and _listening_port(processes) is None:
            self._work_at = now
        minutes = int((now - self._begun) // _REPORT_S)
        if minutes > self._reported:
            self._reported = minutes
            self._say(f"Label Studio is still starting after {self}")
        return now - self._work_at > self._wait_s or now - self._step_at > self._busy_s

    def __str__(self) -> str:
        now = time.monotonic()
        applied = f", {self._migrations} migrations applied" if self._migrations else ""
        return (
            f"{now - self._begun:.0f} s ({self._cpu_s:.0f} s of CPU time{applied}; last progress "
            f"{now - self._step_at:.0f} s ago, last sign of work {now - self._work_at:.0f} s ago)"
        )

    def _look(self, processes: list[psutil.Process]) -> tuple[bool, bool]:
        """Return whether there was a step, and whether there was work."""
        lines, size = self._new_lines()
        migrations, cpu_s = self._applied(), sum(_cpu_s(process) for process in processes)
        step = not lines <= self._lines or migrations > self._migrations
        work = size > self._log_size or cpu_s > self._cpu_s + _WORK_CPU_S
        self._lines |= lines
        self._log_size, self._migrations = size, max(migrations, self._migrations)
        if work or cpu_s < self._cpu_s:  # less, when one of two processes has ended
            self._cpu_s = cpu_s
        return step, work

    def _new_lines(self) -> tuple[set[str], int]:
        """Return new log lines without numbers, and the place reached."""
        with suppress(OSError), open(self._studio_dir / "server.log", "rb") as log:
            begin = self._log_size if log.seek(0, os.SEEK_END) >= self._log_size else 0
            log.seek(begin)
            text = log.read(_LOG_BYTES)
            lines = text.decode(errors="replace").splitlines()
            return {re.sub(r"\S*\d\S*", "", line) for line in lines}, begin + len(text)
        return set(), self._log_size

    def _applied(self) -> int:
        path = self._studio_dir / "data" / installation.DATABASE
        # Missing, locked, or without the table yet. With PostgreSQL log and CPU time must do.
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as database,
        ):
            (count,) = database.execute("SELECT count(*) FROM django_migrations").fetchone()
            return int(count)
        return 0


def _cpu_s(process: psutil.Process) -> float:
    try:
        used = process.cpu_times()
    except psutil.Error:
        return 0.0
    return used.user + used.system


def _wait(studio_dir: Path, startup: _Startup) -> Address | None:
    """Poll until the server answers.

    Return None if it exits or makes no more progress.
    """
    missed = 0
    while True:
        processes = find_processes(studio_dir / "data")
        if processes and (found := _probe(studio_dir, processes)) is not None:
            return found
        # During exec a process shows no environment for a moment.
        missed = 0 if processes else missed + 1
        if missed * _POLL_S > _EXITED_S or (processes and startup.hangs(processes)):
            return None
        time.sleep(_POLL_S)


def _probe(studio_dir: Path, processes: list[psutil.Process]) -> Address | None:
    """Return the address of this folder's server if it is ready, else None."""
    port = _listening_port(processes)
    if port is None:
        return None
    account = credentials(studio_dir)
    address = Address(url=_url(port), token=account.token, pid=processes[0].pid)
    sign_in = {"Authorization": f"Token {account.token}"}
    try:
        # Without the SDK, whose import takes 2 s.
        with httpx.Client(base_url=address.url, timeout=10, trust_env=False) as http:
            if http.get("/health").status_code != 200:
                return None
            who = http.get("/api/current-user/whoami", headers=sign_in)
    except httpx.TransportError:
        return None
    if who.status_code in (401, 403):
        raise StudioError(
            f"The account in {studio_dir / 'credentials.json'} does not fit the database beside it",
            got=f"HTTP {who.status_code}",
            hint="put back the credentials.json from when the database was made",
        )
    if who.status_code != 200 or who.json().get("email") != account.email:
        return None
    return address


def _listening_port(processes: list[psutil.Process]) -> int | None:
    """Return the TCP port that is listened on.

    It may differ from the requested one.
    """
    for process in processes:
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    return connection.laddr.port
        except (psutil.Error, OSError):
            continue
    return None


def _serves(processes: list[psutil.Process], media_dir: Path) -> bool:
    try:
        environment = processes[0].environ()
    except (psutil.Error, OSError):
        return False
    return environment.get("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT") == str(media_dir)


def _stop(processes: list[psutil.Process]) -> None:
    """Send TERM to each process, then KILL to those that remain.

    uv and its child, the server, are processes of their own.
    """
    for send, wait_s in ((psutil.Process.terminate, _TERM_S), (psutil.Process.kill, _KILL_S)):
        for process in processes:
            try:
                send(process)
            except psutil.Error:
                continue
        _, processes = psutil.wait_procs(processes, timeout=wait_s)
        processes = [process for process in processes if not _is_zombie(process)]
        if not processes:
            return


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _remember(studio_dir: Path, found: Address, *, started: bool) -> Address:
    installation.finish_first_start(studio_dir)
    port = int(found.url.rsplit(":", 1)[1])
    record = {"url": found.url, "port": port, "pid": found.pid, "version": installation.VERSION}
    if _record(studio_dir) != record:
        atomic.write_text(studio_dir / "server.json", json.dumps(record, indent=1))
    return replace(found, started=started)


def _record(studio_dir: Path) -> dict[str, object]:
    try:
        record = json.loads((studio_dir / "server.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _start_error(studio_dir: Path, startup: _Startup) -> StudioError:
    account = credentials(studio_dir)
    log = (studio_dir / "server.log").read_text(errors="replace").strip().splitlines()
    tail = mask("\n".join(log[-_TAIL_LINES:]) or "(empty)", account.token, account.password)
    alive = find_processes(studio_dir / "data")
    happened = f"it hangs, after {startup}" if alive else "it exited"
    return StudioError(
        "Label Studio did not start",
        got=f"{happened}; end of its log:\n{tail}",
        hint=f"read {studio_dir / 'server.log'} and try again",
    )


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _free_port(last: object) -> int:
    if isinstance(last, int) and _is_free(last):
        return last
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Without this option a port counts as taken for a minute after its server exited.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _port_taken(port: int) -> StudioError:
    return StudioError(
        f"Port {port} of this machine is taken",
        got="another program listens there",
        hint="stop it, or set RISORIUS_STUDIO_PORT to another port (unset: any free one)",
    )
