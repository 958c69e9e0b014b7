"""Commands backup, restore, migrate, doctor --verify and serve."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from pipeline import doctor
from pipeline.cli import app
from pipeline.settings import load
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

runner = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path / "home")
    key = media.store(home, "crops", np.zeros((8, 8, 3), dtype=np.uint8))
    row = {"face_id": "f", "video_id": "v", "batch": "day", "verdict": "kept", "crop": key}
    frame = pl.DataFrame([row], schema=TABLES["faces"].schema)
    tables.write(home, "faces", frame, part="v", batch="day")
    return home


def ask(*words: str, home: Home) -> dict:
    done = runner.invoke(app, [*words, "--home", str(home.root), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_backup_command__restores(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "home.tar"
    written = ask("backup", str(file), home=home)
    again = Home.at(tmp_path / "again")
    restored = ask("restore", str(file), home=again)
    assert written["files"] == restored["files"] == 3
    assert tables.read(again, "faces").equals(tables.read(home, "faces"))


def test_migrate_command__output(home: Home) -> None:
    (home.tables / "version").unlink()
    path = tables.path_of(home, "faces", part="v", batch="day")
    pl.read_parquet(path).drop("phash").write_parquet(path)
    assert ask("migrate", home=home) == {
        "before": 1,
        "after": tables.SCHEMA_VERSION,
        "rewritten": 1,
        "current": 0,
    }
    assert ask("migrate", home=home)["rewritten"] == 0


def test_doctor__verify_option(home: Home) -> None:
    settings = load(home=home.root)

    def of(kind: str) -> list[doctor.Finding]:
        return [one for one in doctor._verified(settings.place) if one.what == kind]

    assert [one.state for one in of("pictures")] == ["ok"]
    key = tables.read(home, "faces")["crop"][0]
    media.path_of(home, key).write_bytes(b"other")
    (found,) = of("pictures")
    assert found.state == "wrong"
    assert key in found.found


def test_doctor__engine_and_run_storage(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._engine(load(home=home.root, workers=3)).found == "local, 3 processes"
    assert doctor._runs(load(home=home.root)).found == "SQLite in the home"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    found = doctor._guarded(lambda: doctor._engine(load(home=home.root, engine="ray")))
    assert found.state == "wrong"
    assert "RAY_ADDRESS" in found.found


def test_serve__server_argument(home: Home) -> None:
    done = runner.invoke(app, ["serve", "everything", "--home", str(home.root)])
    assert done.exit_code == 2
    assert "webserver or daemon" in done.output


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_serve__health_page(home: Home) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serve", "webserver", "--home", str(home.root), "--port", str(port)]
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *words]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline, found = time.monotonic() + 180, None
        while found is None and time.monotonic() < deadline and server.poll() is None:
            with suppress(httpx.TransportError):
                found = httpx.get(f"http://127.0.0.1:{port}/server_info", trust_env=False)
            time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(timeout=60)
    assert found is not None
    assert found.status_code == 200
    assert "dagster_version" in found.json()
