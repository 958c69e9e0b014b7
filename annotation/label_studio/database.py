"""The local server's database: SQLite, whole or begun anew and quick to write; or Postgres."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from warehouse.errors import StudioError
from warehouse.masking import mask

FILE = "label_studio.sqlite3"
_MARKER = "first-start-unfinished"


def prepare(studio_dir: Path) -> None:
    """Ready ``data/`` for a start; begin anew if the very first start never ended.

    Not every migration of the server is atomic: killed among them, it never starts again. The
    marker is gone once the server has answered, so no vote can be lost here.

    The journal becomes a write-ahead log, a mode that stays in the file. Measured on one machine:
    a vote took 180 ms, most of it waiting for the disk, and takes 80 ms so. It survives a crash as
    before, and readers no longer lock out writers.
    """
    data, marker = studio_dir / "data", studio_dir / _MARKER
    if marker.exists():
        shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, exist_ok=True)
    if not (data / FILE).exists():
        marker.touch()
    try:
        with closing(sqlite3.connect(data / FILE)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.DatabaseError:
        return  # a damaged file, or a disk that cannot: the server says so in its own words


def of_postgres(url: str) -> dict[str, str]:
    """The server's variables for ``postgresql://user:password@host:port/name``.

    Raises:
        StudioError: it is no such URL; the password is never shown.
    """
    found = urlsplit(url)
    try:
        port = found.port or 5432
    except ValueError:
        port = 0
    name = unquote(found.path.strip("/"))
    if found.scheme not in ("postgresql", "postgres") or not (found.hostname and name and port):
        raise StudioError(
            "an address postgresql://host:5432/name, with user:password@ before the host",
            got=mask(url),
            hint="change RISORIUS_STUDIO_POSTGRES",
        )
    return {
        "DJANGO_DB": "default",
        "POSTGRE_NAME": name,
        "POSTGRE_USER": unquote(found.username or ""),
        "POSTGRE_PASSWORD": unquote(found.password or ""),
        "POSTGRE_HOST": found.hostname,
        "POSTGRE_PORT": str(port),
    }


def first_start_ended(studio_dir: Path) -> None:
    """The server has answered: from now on its database is never thrown away."""
    (studio_dir / _MARKER).unlink(missing_ok=True)
