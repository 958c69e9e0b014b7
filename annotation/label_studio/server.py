"""The local Label Studio: up, down, status. The real server, on loopback, over SQLite."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from annotation.label_studio import database, installation, processes
from annotation.label_studio.address import EMAIL, Address, credentials, external
from annotation.label_studio.served import refuse_links
from warehouse.errors import StudioError
from warehouse.masking import mask
from warehouse.storage import atomic
from warehouse.storage.locks import file_lock

__all__ = ["EMAIL", "Address", "Status", "down", "external", "running", "status", "up"]

_POLL_S = 0.2
_GONE_S = 1.0
_DOING = "starting or stopping Label Studio"
_TAIL_LINES = 12


@dataclass(frozen=True)
class Status:
    """``state`` is up, starting or down."""

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
    say: Callable[[str], None] | None = None,
) -> Address:
    """Start the server of this folder, or find it running; two callers at once start one.

    Args:
        studio_dir: database, log, address and accounts; ``Home.studio``.
        media_dir: the only folder it may serve; ``Home.media``.
        port: insist on this port. Without it the last one is taken again, else any free one.
        postgres: URL of the database to use in place of SQLite in ``studio_dir``.
        wait_s: how long the first start may take once everything is installed.

    Raises:
        StudioError: it cannot be installed, the port is taken, it ended or hung while starting, or
            the media folder holds links.
    """
    studio_dir, media_dir, say = studio_dir.resolve(), media_dir.resolve(), say or _silent
    for folder in (studio_dir / "data", media_dir):
        folder.mkdir(parents=True, exist_ok=True)
    os.chmod(studio_dir, 0o700)
    refuse_links(media_dir)
    with file_lock(studio_dir / ".lock", purpose=_DOING, timeout_s=wait_s):
        running = processes.of_server(studio_dir / "data")
        if running and _serves(running, media_dir):
            say("Label Studio is running or starting; waiting for its answer")
            if (found := _wait(studio_dir, wait_s=wait_s)) is not None:
                return _remember(studio_dir, found, started=False)
        processes.stop(running)
        command = installation.ensure_installed(say)
        wanted = port or _free_port(_record(studio_dir).get("port"))
        if not _is_free(wanted):
            raise _port_taken(wanted)
        _launch(studio_dir, media_dir, command=command, port=wanted, postgres=postgres)
        say("starting Label Studio (about 30 s the first time, 8 s after)")
        found = _wait(studio_dir, wait_s=wait_s)
        if found is None or (port is not None and found.url != _url(port)):
            reason = _why(studio_dir, wait_s=wait_s) if found is None else _port_taken(wanted)
            processes.stop(processes.of_server(studio_dir / "data"))
            raise reason
        return _remember(studio_dir, found, started=True)


def down(studio_dir: Path) -> bool:
    """Stop the server of this folder; False when none ran. What it holds stays on disk."""
    studio_dir = studio_dir.resolve()
    if not studio_dir.is_dir():
        return False
    with file_lock(studio_dir / ".lock", purpose=_DOING, timeout_s=60):
        running = processes.of_server(studio_dir / "data")
        processes.stop(running)
        return bool(running)


def status(studio_dir: Path) -> Status:
    """Whether the server of this folder runs, and where; starts and changes nothing."""
    running = processes.of_server(studio_dir.resolve() / "data")
    if not running:
        return Status("down")
    found = _answering(studio_dir.resolve(), running)
    if found is None:
        return Status("starting", pid=running[0].pid)
    return Status("up", url=found.url, pid=found.pid)


def running(studio_dir: Path) -> Address | None:
    """The server of this folder if it is up, else None; starts nothing."""
    studio_dir = studio_dir.resolve()
    return _answering(studio_dir, processes.of_server(studio_dir / "data"))


def _launch(
    studio_dir: Path, media_dir: Path, *, command: list[str], port: int, postgres: str | None
) -> None:
    if postgres is None:
        database.prepare(studio_dir)
    account, log = credentials(studio_dir), studio_dir / "server.log"
    if log.exists():
        os.replace(log, studio_dir / "server.log.1")
    processes.launch(
        [*command, "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1",
         "--port", str(port)],
        env=installation.environment(
            os.environ, data_dir=studio_dir / "data", media_dir=media_dir,
            email=account.email, password=account.password, token=account.token,
            postgres=postgres,
        ),
        cwd=studio_dir,
        log=log,
    )  # fmt: skip


def _wait(studio_dir: Path, *, wait_s: float) -> Address | None:
    """Poll until the server answers us; None when it is gone or ``wait_s`` have passed."""
    deadline, missed = time.monotonic() + wait_s, 0
    while time.monotonic() < deadline:
        alive = processes.of_server(studio_dir / "data")
        # For a blink, while it becomes another program, a process shows no environment.
        missed = 0 if alive else missed + 1
        if missed * _POLL_S > _GONE_S:
            return None
        if alive and (found := _answering(studio_dir, alive)) is not None:
            return found
        time.sleep(_POLL_S)
    return None


def _answering(studio_dir: Path, alive: list[psutil.Process]) -> Address | None:
    import httpx

    port = processes.listening_port(alive)
    if port is None:
        return None
    account = credentials(studio_dir)
    try:
        with httpx.Client(base_url=_url(port), timeout=10, trust_env=False) as http:
            if http.get("/health").status_code != 200:
                return None
            who = http.get(
                "/api/current-user/whoami", headers={"Authorization": f"Token {account.token}"}
            )
    except httpx.TransportError:
        return None
    if who.status_code in (401, 403):
        raise StudioError(
            f"the account in {studio_dir / 'credentials.json'} to open the database beside it",
            got=f"HTTP {who.status_code}",
            hint="put back the credentials.json that was there when the database was made",
        )
    if who.status_code != 200 or who.json().get("email") != account.email:
        return None
    return Address(url=_url(port), token=account.token, pid=alive[0].pid)


def _serves(running: list[psutil.Process], media_dir: Path) -> bool:
    root = processes.environment_of(running[0]).get("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT")
    return root == str(media_dir)


def _remember(studio_dir: Path, found: Address, *, started: bool) -> Address:
    database.first_start_ended(studio_dir)
    port = int(found.url.rsplit(":", 1)[1])
    written = {"url": found.url, "port": port, "pid": found.pid, "version": installation.VERSION}
    if _record(studio_dir) != written:
        atomic.write_text(studio_dir / "server.json", json.dumps(written, indent=1))
    return Address(url=found.url, token=found.token, pid=found.pid, started=started)


def _record(studio_dir: Path) -> dict[str, object]:
    try:
        record = json.loads((studio_dir / "server.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _why(studio_dir: Path, *, wait_s: float) -> StudioError:
    account = credentials(studio_dir)
    alive = processes.of_server(studio_dir / "data")
    log = (studio_dir / "server.log").read_text(errors="replace").strip().splitlines()
    tail = mask("\n".join(log[-_TAIL_LINES:]) or "(nothing)", account.token, account.password)
    return StudioError(
        "Label Studio to start",
        got=f"no answer after {wait_s:g} s"
        if alive
        else f"its end, with these last words:\n{tail}",
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
        # Without this a port whose last server has just ended counts as taken for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _port_taken(port: int) -> StudioError:
    return StudioError(
        f"port {port} of this machine to be free",
        got="another program that listens there",
        hint="stop it, or name another port with RISORIUS_STUDIO_PORT (or none: any free one)",
    )


def _silent(_: str) -> None:
    return None
