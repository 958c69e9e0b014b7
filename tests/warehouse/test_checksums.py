"""Tables changed by another hand, which ``doctor --verify`` finds."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from warehouse.errors import TableError
from warehouse.storage import atomic, backup, checksums, migrations, tables
from warehouse.storage.home import Home


def queue(*faces: str) -> pl.DataFrame:
    columns = {"round": 0, "priority": 0.5, "reason": "coverage", "wanted_votes": 3}
    return pl.DataFrame({"face_id": list(faces), **columns})


@pytest.fixture
def home(home: Home) -> Home:
    tables.write(home, "queue", queue("a"), part="one")
    shutil.copy(file(home), home.root / "older.parquet")
    tables.write(home, "queue", queue("a", "b"), part="one")
    tables.write(home, "queue", queue("c"), part="two")
    return home


def file(home: Home, part: str = "one") -> Path:
    return tables.path_of(home, "queue", part=part)


def wrong(home: Home) -> list[str]:
    return next(one.wrong for one in backup.verify(home) if one.kind == "tables")


def by_polars(home: Home) -> None:
    pl.read_parquet(file(home)).with_columns(priority=0.9).write_parquet(file(home))


def by_pyarrow(home: Home) -> None:
    """Keep the footer, and with it the checksum of what was there."""
    footer = pq.read_metadata(file(home)).metadata
    table = pq.read_table(file(home)).slice(0, 1).replace_schema_metadata(footer)
    pq.write_table(table, file(home))


def one_byte(home: Home) -> None:
    data = bytearray(file(home).read_bytes())
    data[data.index(b"ARROW:schema")] ^= 1
    file(home).write_bytes(data)


CHANGES: dict[str, tuple[Callable[[Home], object], str]] = {
    "nothing": (lambda home: None, ""),
    "rewritten": (by_polars, "one.parquet was written by another program: it has no checksum"),
    "rewritten with its footer": (by_pyarrow, "one.parquet was changed by another program"),
    "one byte": (one_byte, "one.parquet was changed by another program"),
    "cut": (lambda home: file(home).write_bytes(file(home).read_bytes()[:-9]), "cannot be read"),
    "empty": (lambda home: file(home).write_bytes(b""), "cannot be read"),
    "removed": (lambda home: file(home).unlink(), "one.parquet is missing"),
    "older": (
        lambda home: shutil.copy(home.root / "older.parquet", file(home)),
        "one.parquet is not the file that was written last",
    ),
    "another part": (
        lambda home: shutil.copy(file(home, "two"), file(home)),
        "one.parquet is not the file that was written last",
    ),
    "added": (
        lambda home: shutil.copy(file(home), file(home, "three")),
        "three.parquet was added by another program",
    ),
    "written as it should": (lambda home: tables.write(home, "queue", queue("z"), part="one"), ""),
    "removed as it should": (lambda home: tables.remove(home, "queue", part="one"), ""),
}


@pytest.mark.parametrize("case", CHANGES)
def test_verify__tables_of_another_hand(home: Home, case: str) -> None:
    change, says = CHANGES[case]
    change(home)
    found = wrong(home)
    assert len(found) == bool(says)
    assert says in "".join(found)


def test_verify__restored_home(home: Home, tmp_path: Path) -> None:
    backup.backup(home, tmp_path / "home.tar")
    again = Home.at(tmp_path / "again")
    backup.restore(tmp_path / "home.tar", again)
    assert wrong(again) == []
    tables.write(again, "queue", queue("d"), part="three")
    assert wrong(again) == []
    by_pyarrow(again)
    assert len(wrong(again)) == 1


def test_verify__home_of_an_older_schema(home: Home) -> None:
    (home.root / checksums.RECORD).unlink()
    (home.tables / "version").unlink()
    for part in ("one", "two"):
        pl.read_parquet(file(home, part)).write_parquet(file(home, part))
    assert wrong(home) == []
    migrations.migrate(home)
    assert wrong(home) == []
    by_polars(home)
    assert len(wrong(home)) == 1


def test_record__killed_between_note_and_move(home: Home) -> None:
    before, folder = file(home).read_bytes(), home.root / "draft"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt), checksums.recording(file(home), "0" * 64):
        raise KeyboardInterrupt
    assert file(home).read_bytes() == before
    assert wrong(home) == []
    # The new file arrived, but its record was not confirmed.
    tables.write(home, "queue", queue("new"), part="three")
    with sqlite3.connect(home.root / checksums.RECORD) as database:
        database.execute("UPDATE files SET stands = 0 WHERE key = 'queue/three.parquet'")
    assert wrong(home) == []


def test_record__writers_at_once(home: Home) -> None:
    def write(number: int) -> None:
        tables.write(home, "queue", queue(*map(str, range(number + 1))), part=f"p{number % 3}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(30)))
    assert wrong(home) == []


def test_record__erased_names(home: Home) -> None:
    tables.write(home, "queue", queue("x"), part="of-a-person")
    record = home.root / checksums.RECORD
    assert b"of-a-person" in record.read_bytes()
    atomic.remove(file(home, "of-a-person"))
    assert b"of-a-person" not in record.read_bytes()
    assert [path.name for path in home.root.iterdir() if path.name.startswith(".written")] == [
        checksums.RECORD
    ]


def test_record__damaged(home: Home) -> None:
    (home.root / checksums.RECORD).write_bytes(b"no database" * 1000)
    tables.write(home, "queue", queue("x"), part="one")
    assert wrong(home) == []
    file(home).unlink()
    assert len(wrong(home)) == 1


def test_record__cannot_be_written(home: Home) -> None:
    (home.root / checksums.RECORD).unlink()
    (home.root / checksums.RECORD).mkdir()
    with pytest.raises(TableError, match="cannot be used"):
        tables.write(home, "queue", queue("x"), part="one")
    assert tables.read(home, "queue").height == 3
