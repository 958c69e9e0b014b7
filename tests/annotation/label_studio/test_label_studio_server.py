"""Start, recognise and stop the local server; report why it fails."""

from __future__ import annotations

import http.server
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from annotation.label_studio import installation, server
from annotation.label_studio.client import EMAIL, connect, external
from tests.annotation.label_studio.conftest import Studio
from warehouse.errors import StudioError
from warehouse.storage.home import Home

pytestmark = pytest.mark.studio


class _Healthy(http.server.BaseHTTPRequestHandler):
    """Another program that answers as a healthy Label Studio would."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"status": "UP", "email": "user@else.org"}')

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def foreign_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            yield other.server_address[1]
        finally:
            other.shutdown()


def remember(home: Home, *, port: int, pid: int) -> None:
    record = {"url": f"http://127.0.0.1:{port}", "port": port, "pid": pid}
    (home.studio / "server.json").write_text(json.dumps(record))


def test_up__second_call_finds_the_first_server(studio: Studio) -> None:
    again = studio.up()
    assert again.url == studio.address.url
    assert again.pid == studio.address.pid
    assert not again.started
    assert server.status(studio.home.studio) == server.Status("up", again.url, again.pid)
    assert server.running(studio.home.studio) == again


def test_up__listens_on_loopback_only(studio: Studio) -> None:
    family = [psutil.Process(studio.address.pid)]
    family += family[0].children(recursive=True)
    bound = {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert bound == {"127.0.0.1"}


def test_up__ignores_variables_of_the_shell(studio: Studio) -> None:
    names = psutil.Process(studio.address.pid).environ()
    assert not {"DEBUG", "PORT", "HOST", "PASSWORD", "DJANGO_DB", "OTHER_PROGRAMS_SECRET"} & {
        *names
    }
    assert names["LABEL_STUDIO_COLLECT_ANALYTICS"] == "false"


def test_up__secrets_are_readable_by_the_owner_only(studio: Studio) -> None:
    path = studio.home.studio / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(studio.home.studio.stat().st_mode) == 0o700
    assert json.loads(path.read_text())["token"] not in repr(studio.address)


@pytest.mark.slow
def test_up__two_processes_start_one_server(fresh_home: Home) -> None:
    program = (
        "import sys; from pathlib import Path; from annotation.label_studio import server\n"
        "found = server.up(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(found.url, found.pid, found.started)"
    )
    command = [sys.executable, "-c", program, str(fresh_home.studio), str(fresh_home.media)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=200)[0].split() for process in running]
    assert answers[0][:2] == answers[1][:2]
    assert {answers[0][2], answers[1][2]} == {"True", "False"}
    # Both callers are gone; the server is not.
    assert httpx.get(f"{answers[0][0]}/health").json() == {"status": "UP"}
    assert server.down(fresh_home.studio)
    assert not psutil.pid_exists(int(answers[0][1]))
    assert not server.down(fresh_home.studio)


@pytest.mark.slow
def test_up__port_lost_to_another_program(
    fresh_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program takes the port after the check.

    The server then moves to another port without a message.
    """
    with foreign_server() as port:
        remember(fresh_home, port=port, pid=os.getpid())
        monkeypatch.setattr(server, "_is_free", lambda _: True)
        found = server.up(fresh_home.studio, fresh_home.media)
        assert found.url != f"http://127.0.0.1:{port}"
        with connect(found) as client:
            assert client.sdk.users.whoami().email == EMAIL
        server.down(fresh_home.studio)
        assert httpx.get(f"http://127.0.0.1:{port}/health").is_success


def test_up__port_in_use(fresh_home: Home) -> None:
    with foreign_server() as port:
        assert server._free_port(port) != port
        with pytest.raises(StudioError, match=f"Port {port} .* is taken") as refused:
            server.up(fresh_home.studio, fresh_home.media, port=port)
        assert "RISORIUS_STUDIO_PORT" in refused.value.hint
    assert server._free_port(port) == port
    assert server.status(fresh_home.studio) == server.Status("down")


def test_find__reused_process_id(fresh_home: Home) -> None:
    with foreign_server() as port:
        remember(fresh_home, port=port, pid=os.getpid())
        assert server.status(fresh_home.studio) == server.Status("down")
        assert server.running(fresh_home.studio) is None
        assert not server.down(fresh_home.studio)


def test_find__copied_home_has_no_server(studio: Studio, fresh_home: Home) -> None:
    port = int(studio.address.url.rsplit(":", 1)[1])
    remember(fresh_home, port=port, pid=studio.address.pid or 0)
    assert server.status(fresh_home.studio) == server.Status("down")


def test_up__reports_the_log_of_a_server_that_dies(fresh_home: Home) -> None:
    (fresh_home.studio / "data" / installation.DATABASE).write_bytes(b"no database at all" * 99)
    with pytest.raises(StudioError, match="file is not a database") as died:
        server.up(fresh_home.studio, fresh_home.media)
    account = json.loads((fresh_home.studio / "credentials.json").read_text())
    assert account["token"] not in str(died.value)
    assert "server.log" in died.value.hint
    assert server.status(fresh_home.studio) == server.Status("down")


@pytest.mark.parametrize("ended", [False, True])
def test_up__wipes_only_an_interrupted_first_start(tmp_path: Path, ended: bool) -> None:
    """A server killed in its migrations never starts again.

    After a complete first start nothing is deleted.
    """
    file = tmp_path / "data" / installation.DATABASE
    installation.prepare_sqlite(tmp_path)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE half_migrated (id)")
    if ended:
        installation.finish_first_start(tmp_path)
    installation.prepare_sqlite(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert tables == ([("half_migrated",)] if ended else [])


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [("label.example.org", "k" * 40, "Set LABEL_STUDIO_URL"), ("https://x.org", " ", "no token")],
)
def test_address__needs_url_and_key(url: str, key: str, message: str) -> None:
    with pytest.raises(StudioError, match=message) as refused:
        external(url, key)
    assert key.strip() == "" or key not in str(refused.value)


def test_address__repr_masks_secrets() -> None:
    text = f"got {'a1' * 20} and eyJhbGci.eyJzdWIi.c2ln from https://me:pw@host/x with s3cret"
    assert installation.mask(text, "s3cret") == ("got *** and *** from https://***@host/x with ***")


def test_pins__name_no_registry(tmp_path: Path) -> None:
    lines = installation.CONSTRAINTS.read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert f"label-studio=={installation.VERSION}" in pins
    assert not [line for line in pins if "==" not in line or "://" in line or " @ " in line]
