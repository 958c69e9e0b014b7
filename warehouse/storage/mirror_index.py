"""What a working folder holds of its bucket: key and mark of every file that was in step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


class Held:
    """One transaction over the list of a working folder; other processes here wait for its end."""

    def __init__(self, index: sqlite3.Connection) -> None:
        self._index = index

    def mark(self, key: str) -> str | None:
        """What the object was when the file here was the same."""
        row = self._index.execute("SELECT mark FROM objects WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def below(self, folder: str) -> dict[str, str]:
        """Key to mark of a file, or of all below a folder."""
        rows = self._index.execute(
            "SELECT key, mark FROM objects WHERE key = ? OR key GLOB ?",
            (folder, f"{_literal(folder)}/*"),
        )
        return dict(rows.fetchall())

    def note(self, key: str, mark: str) -> None:
        self._index.execute("INSERT OR REPLACE INTO objects VALUES (?, ?)", (key, mark))

    def forget(self, folder: str) -> None:
        """No file of that key is held any more, nor any below it."""
        self._index.execute(
            "DELETE FROM objects WHERE key = ? OR key GLOB ?", (folder, f"{_literal(folder)}/*")
        )


@contextmanager
def holding(path: Path) -> Iterator[Held]:
    """The list in the SQLite file ``path``, made when missing; kept when the block ends well."""
    with closing(sqlite3.connect(path, timeout=120, isolation_level=None)) as index:
        # It may be lost (all is fetched again) but must not keep names of who was forgotten.
        index.execute("PRAGMA synchronous = OFF")
        index.execute("PRAGMA secure_delete = ON")
        index.execute("BEGIN IMMEDIATE")
        index.execute("CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, mark TEXT)")
        yield Held(index)
        index.execute("COMMIT")


def _literal(text: str) -> str:
    """``text`` for GLOB, which would read brackets and stars as patterns."""
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in text)
