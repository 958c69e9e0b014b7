"""A slow start goes on while it makes progress; a server that hangs ends.

The server is a small program that behaves as each case says.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.label_studio import installation, server
from annotation.label_studio.client import EMAIL
from warehouse.errors import StudioError

_BEGIN = """
import http.server, os, pathlib, sqlite3, sys, time
data = pathlib.Path(os.environ["LABEL_STUDIO_BASE_DATA_DIR"])

def spin(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass

def serve(code):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else code)
            self.end_headers()
            self.wfile.write(b'{"email": "EMAIL"}')
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""

_CASES = {
    "log lines": "for word in 'abcdefgh': print(word, flush=True); time.sleep(0.4)\nserve(200)",
    "migrations": """
with sqlite3.connect(data / "label_studio.sqlite3") as database:
    database.execute("CREATE TABLE django_migrations (id)")
for number in range(8):
    with sqlite3.connect(data / "label_studio.sqlite3") as database:
        database.execute("INSERT INTO django_migrations VALUES (?)", (number,))
    time.sleep(0.4)
serve(200)
""",
    "CPU time": "spin(2.5)\nserve(200)",
    "silence": "time.sleep(60)",
    "an endless loop": "spin(60)",
    "the same error again and again": """
for number in range(600): print("database is locked, try", number, flush=True); time.sleep(0.1)
""",
    "errors for every request": "serve(500)",
}


@pytest.fixture
def studio_dir(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    program = tmp_path / "program.py"
    program.write_text(_BEGIN.replace("EMAIL", EMAIL) + _CASES[request.param])
    monkeypatch.setattr(
        installation, "ensure_installed", lambda _: [sys.executable, "-S", str(program)]
    )
    monkeypatch.setattr(server, "_REPORT_S", 1)
    monkeypatch.setattr(server, "_WORK_CPU_S", 0.2)
    monkeypatch.setattr(server, "_TERM_S", 2)
    try:
        yield tmp_path / "studio"
    finally:
        server.down(tmp_path / "studio")


@pytest.mark.parametrize("studio_dir", ["log lines", "migrations", "CPU time"], indirect=True)
def test_up__slow_start_goes_on(studio_dir: Path) -> None:
    said: list[str] = []
    found = server.up(studio_dir, studio_dir / "media", wait_s=1.5, busy_s=60, progress=said.append)
    assert found.started
    assert any(line.startswith("Label Studio is still starting after 1 s") for line in said)


@pytest.mark.parametrize(
    "studio_dir",
    ["silence", "an endless loop", "the same error again and again", "errors for every request"],
    indirect=True,
)
def test_up__hanging_server_ends(studio_dir: Path) -> None:
    with pytest.raises(StudioError, match="did not start: it hangs, after") as refused:
        server.up(studio_dir, studio_dir / "media", wait_s=1.5, busy_s=3)
    assert "server.log" in refused.value.hint
    assert server.status(studio_dir) == server.Status("down")


@pytest.mark.parametrize("studio_dir", ["log lines"], indirect=True)
def test_up__second_caller_waits_as_long_as_the_first(
    studio_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "INSTALL_S", 0.1)
    found: list[bool] = []

    def up() -> None:
        address = server.up(studio_dir, studio_dir / "media", wait_s=1.5, busy_s=60)
        found.append(address.started)

    first = threading.Thread(target=up)
    first.start()
    while not (studio_dir / "server.log").exists():
        pass
    up()
    first.join()
    assert sorted(found) == [False, True]
