"""Postgres server of this machine on loopback, for one test module."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOUND = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
INITDB = _FOUND[-1] if _FOUND else shutil.which("initdb")
# Postgres refuses to run as root.
_AS_USER = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
_ROOT = os.geteuid() == 0

ABSENT = (
    "no Postgres here (Debian: apt install postgresql)"
    if INITDB is None
    else "Postgres refuses root, and setpriv is not here to step down"
    if _ROOT and shutil.which("setpriv") is None
    else None
)
PASSWORD = "s3cret-of-postgres"


@contextmanager
def server() -> Iterator[str]:
    """``postgresql://risorius:…@127.0.0.1:<port>``, without a database name."""
    assert INITDB is not None
    folder = Path(tempfile.mkdtemp(prefix="rsr-pg-", dir="/tmp"))
    binaries, step_down = Path(INITDB).parent, _AS_USER if _ROOT else []
    if _ROOT:
        shutil.chown(folder, "nobody", "nogroup")
    password = folder / "password"
    password.write_text(PASSWORD)
    if _ROOT:
        shutil.chown(password, "nobody", "nogroup")
    data, port = folder / "data", _free_port()

    def run(program: str, *words: str) -> None:
        subprocess.run(
            [*step_down, str(binaries / program), "-D", str(data), *words],
            check=True,
            capture_output=True,
            cwd=folder,
            timeout=120,
        )

    try:
        run("initdb", "-U", "risorius", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c fsync=off -k {folder}"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://risorius:{PASSWORD}@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create(url: str, name: str) -> str:
    """Make a database; return its URL."""
    import psycopg2

    connection = psycopg2.connect(f"{url}/postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return f"{url}/{name}"


def ask(url: str, query: str) -> list[tuple]:
    import psycopg2

    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute(query)
        rows = cursor.fetchall()
    connection.close()
    return rows


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
