"""Checksum table files: inside each file, and in a record of writes.

The footer of a file holds the SHA-256 of all its bytes, with zeros in its own place: a file that
another program wrote, or that was cut or damaged, does not match. A record beside the tables,
``.written.sqlite``, holds the checksum of every file that stands, so that a file that is missing,
was added or is an older version is found too. ``risorius doctor --verify`` compares both.

The record belongs to one machine. A mirror of an object store has none, because other machines
write its files too. A user who may write to a home can forge both: this finds mistakes,
not attackers.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from warehouse.errors import TableError
from warehouse.ids import file_sha256

KEY = "risorius.sha256"
BLANK = "0" * 64
RECORD = ".written.sqlite"

_FIELD = re.compile(re.escape(KEY).encode() + rb".{1,4}?([0-9a-f]{64})", re.DOTALL)
_TAIL = 8
_MAGIC = b"PAR1"
_CHUNK = 1 << 20
_TIMEOUT_S = 60.0


class Checked(NamedTuple):
    """Checksum of a file as it is, and whether its footer agrees.

    Attributes:
        sha256: of all bytes, with zeros in the place of the checksum.
        sound: it is the one in the footer; None if the footer has none.
    """

    sha256: str
    sound: bool | None


def stamp(path: Path) -> str:
    """Write the checksum of a finished Parquet file into its footer.

    Returns:
        the checksum. A file without a place for it is not changed.
    """
    place = _place(path)
    if place is None:
        return file_sha256(str(path))
    digest = _digest(path, place)
    with open(path, "r+b") as handle:
        handle.seek(place)
        handle.write(digest.encode())
    return digest


def check(path: Path) -> Checked:
    """Compare a file with the checksum in its footer."""
    place = _place(path)
    if place is None:
        return Checked(file_sha256(str(path)), None)
    with open(path, "rb") as handle:
        handle.seek(place)
        stated = handle.read(len(BLANK)).decode()
    digest = _digest(path, place)
    return Checked(digest, digest == stated)


def tables_of(path: Path) -> Path | None:
    """Return the folder ``tables`` if ``path`` is a file of a table."""
    if path.suffix != ".parquet":
        return None
    folder = path.parent.parent if path.parent.name.startswith("batch=") else path.parent
    return folder.parent if folder.parent.name == "tables" else None


@contextmanager
def recording(path: Path, sha256: str) -> Iterator[None]:
    """Record a file of a table; the block moves it to ``path``.

    The checksum is noted before and confirmed after the move: a process that is killed in between
    leaves a record that accepts either file. Moves wait for each other, so that the last one and
    the last record are of the same file.

    Raises:
        TableError: the record cannot be written.
    """
    with _opened(path) as (database, key):
        database.execute("INSERT OR IGNORE INTO files VALUES (?, ?, 0)", (key, sha256))
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute(
            "DELETE FROM files WHERE key = ? AND (stands OR sha256 = ?)", (key, sha256)
        )
        database.execute("INSERT INTO files VALUES (?, ?, 1)", (key, sha256))
        database.execute("COMMIT")


@contextmanager
def forgetting(path: Path) -> Iterator[None]:
    """Remove a file of a table from the record; the block deletes it."""
    folder = tables_of(path)
    if folder is None or not (folder.parent / RECORD).exists():
        yield
        return
    with _opened(path) as (database, key):
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("DELETE FROM files WHERE key = ?", (key,))
        database.execute("COMMIT")


class Record(NamedTuple):
    """The record of a home.

    Attributes:
        files: path below ``tables`` to the checksums that the file may have.
        standing: paths of files that must be there.
        complete: every file that was ever written is in it.
    """

    files: dict[str, set[str]]
    standing: set[str]
    complete: bool


def read_record(tables: Path) -> Record:
    """Return the record of a home; empty if there is none."""
    path = tables.parent / RECORD
    if not path.exists():
        return Record({}, set(), False)
    files: dict[str, set[str]] = {}
    standing = set()
    with _errors(path), closing(_connect(path)) as database:
        for key, sha256, stands in database.execute("SELECT key, sha256, stands FROM files"):
            files.setdefault(key, set()).add(sha256)
            if stands:
                standing.add(key)
        complete = bool(database.execute("SELECT count(*) FROM complete").fetchone()[0])
    return Record(files, standing, complete)


def problem(path: Path, tables: Path, record: Record, *, stamped: bool) -> str | None:
    """Say what is wrong with a file of a table, or None.

    Args:
        stamped: every file of this home carries a checksum.
    """
    found, key = check(path), str(path.relative_to(tables))
    if found.sound is False:
        return "was changed by another program: its checksum does not match"
    if found.sound is None and stamped:
        return "was written by another program: it has no checksum"
    known = record.files.get(key)
    if known is not None and found.sha256 not in known:
        return "is not the file that was written last"
    if known is None and record.complete:
        return "was added by another program"
    return None


def problems(tables: Path, files: Iterable[Path], *, stamped: bool) -> list[str]:
    """Return one sentence per file of a table that another program touched."""
    record = read_record(tables)
    found = {}
    for path in files:
        try:
            if wrong := problem(path, tables, record, stamped=stamped):
                found[path] = wrong
        except FileNotFoundError:
            continue
    gone = {tables / key for key in record.standing if not (tables / key).exists()}
    if found or gone:
        # Another process may write meanwhile: look at these again with the record of now.
        record = read_record(tables)
        found = {
            path: wrong
            for path in found
            if path.exists() and (wrong := problem(path, tables, record, stamped=stamped))
        }
        gone = {path for path in gone if str(path.relative_to(tables)) in record.standing}
        found |= {path: "is missing" for path in gone if not path.exists()}
    return [f"{path.relative_to(tables.parent)} {wrong}" for path, wrong in sorted(found.items())]


def _place(path: Path) -> int | None:
    """Return where the checksum stands in a Parquet file."""
    with open(path, "rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(0, size - _TAIL))
        tail = handle.read(_TAIL)
        length = int.from_bytes(tail[:4], "little")
        if not tail.endswith(_MAGIC) or length > size - _TAIL:
            return None
        start = size - _TAIL - length
        handle.seek(start)
        footer = handle.read(length)
    found = _FIELD.search(footer)
    return start + found.start(1) if found else None


def _digest(path: Path, place: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        left = place
        while left and (chunk := handle.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        digest.update(BLANK.encode())
        handle.seek(place + len(BLANK))
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[sqlite3.Connection, str]]:
    folder = tables_of(path)
    assert folder is not None, path
    file = folder.parent / RECORD
    with _errors(file), closing(_connect(file)) as database:
        yield database, str(path.relative_to(folder))


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return _prepared(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        # A power cut damaged it. A new one knows less, but no table is lost with it.
        path.unlink(missing_ok=True)
        return _prepared(path)


def _prepared(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None)
    # A name that was erased must not stay in an unused page.
    database.execute("PRAGMA secure_delete = ON")
    # A killed process loses nothing; two waits for the disk would make a write ten times slower.
    database.execute("PRAGMA synchronous = OFF")
    made = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'complete'")
    if made.fetchone() == (0,):
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "CREATE TABLE IF NOT EXISTS files "
            "(key TEXT, sha256 TEXT, stands INTEGER, PRIMARY KEY (key, sha256))"
        )
        database.execute("CREATE TABLE IF NOT EXISTS complete (yes INTEGER PRIMARY KEY)")
        empty = database.execute("SELECT count(*) FROM files").fetchone() == (0,)
        if empty and next((path.parent / "tables").glob("**/*.parquet"), None) is None:
            database.execute("INSERT OR IGNORE INTO complete VALUES (1)")
        database.execute("COMMIT")
    return database


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TableError(
            f"The record of table checksums {path} cannot be used",
            got=str(error),
            hint="free space and check the permissions, then run the same command again",
        ) from error
