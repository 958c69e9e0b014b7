"""``backup``, ``restore`` and ``verify``."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from warehouse.errors import DiskError, TableError
from warehouse.storage import backup as module
from warehouse.storage import locks, media, mirror, tables
from warehouse.storage.backup import LISTING, backup, restore, verify
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def face(home: Home, number: int) -> None:
    """Write an image, then the row that refers to it, as the stages do."""
    image = np.full((8, 8, 3), number, dtype=np.uint8)
    row = {"face_id": f"f{number}", "video_id": f"v{number}", "batch": "day", "verdict": "kept"}
    row["crop"] = media.store(home, "crops", image)
    frame = pl.DataFrame([row], schema=TABLES["faces"].schema)
    tables.write(home, "faces", frame, part=f"v{number}", batch="day")


def studio_file(home: Home) -> Path:
    return home.studio / "data" / "label_studio.sqlite3"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path / "home")
    for number in range(3):
        face(home, number)
    home.salt()
    studio_file(home).parent.mkdir(parents=True)
    with closing(sqlite3.connect(studio_file(home))) as votes:
        votes.execute("PRAGMA journal_mode = WAL")
        votes.execute("CREATE TABLE votes (face TEXT)")
        votes.commit()
    (home.cache / "big").mkdir(parents=True)
    (home.cache / "big" / "copy").write_text("cached")
    (home.studio / "credentials.json").write_text("{}")
    return home


def test_restore__equals_the_original(home: Home, tmp_path: Path) -> None:
    with closing(sqlite3.connect(studio_file(home))) as votes:
        votes.execute("INSERT INTO votes VALUES ('still in the write-ahead log')")
        votes.commit()
        done = backup(home, tmp_path / "home.tar")
    assert (tmp_path / "home.tar").stat().st_mode & 0o077 == 0
    again = Home.at(tmp_path / "again")
    assert restore(tmp_path / "home.tar", again) == done
    assert tables.read(again, "faces").equals(tables.read(home, "faces"))
    assert again.salt() == home.salt()
    assert not again.cache.exists()
    with closing(sqlite3.connect(studio_file(again))) as votes:
        assert votes.execute("SELECT * FROM votes").fetchall() == [
            ("still in the write-ahead log",)
        ]
    assert [(kind, wrong) for kind, _, wrong in verify(again)] == [
        ("tables", []),
        ("pictures", []),
        ("releases", []),
    ]


def test_backup__every_file_of_the_inbox(home: Home, tmp_path: Path) -> None:
    day, outside = home.inbox / "day", tmp_path / "outside"
    names = [
        "hint_of_a_smile.png", "server.json", "server.log.mp4", ".hidden", ".lock", ".draft-1",
        "clip-wal", "deep/er/x.mp4", "SQLite.mp4", "new\nline.mp4", os.fsdecode(b"latin \xff.mp4"),
    ]  # fmt: skip
    for number, name in enumerate(names):
        path = day / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"SQLite format 3\x00 is no database %d" % number)
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    (outside / "folder").mkdir(parents=True)
    (outside / "linked.png").write_bytes(b"linked")
    (day / "linked.png").symlink_to(outside / "linked.png")
    (day / "linked folder").symlink_to(outside / "folder")
    (day / "dangling.png").symlink_to(outside / "gone.png")
    os.mkfifo(day / "pipe.mp4")
    (studio_file(home).parent / "broken.sqlite3").write_bytes(b"SQLite format 3\x00 cut")
    (home.studio / "server.log").write_text("of the server")
    (home.root / "exports").mkdir()
    (home.root / "exports" / "mine.csv").write_text("kept too")
    done = backup(home, tmp_path / "home.tar")
    again = Home.at(tmp_path / "again")
    assert restore(tmp_path / "home.tar", again) == done
    for name in [*names, "linked.png"]:
        one, two = (root.inbox / "day" / name for root in (home, again))
        assert two.read_bytes() == one.read_bytes()
        assert two.stat().st_mtime_ns == one.stat().st_mtime_ns
    assert not (again.inbox / "day" / "linked.png").is_symlink()
    assert not (again.studio / "server.log").exists()
    assert (again.root / "exports" / "mine.csv").read_text() == "kept too"
    # The order is that of the disk.
    assert sorted(line.split(" (")[0] for line in done.missing) == [
        "inbox/day/dangling.png: a dangling link",
        f"inbox/day/linked folder: a link to the folder {outside / 'folder'}",
        "inbox/day/pipe.mp4: no file",
        "label-studio/data/broken.sqlite3: SQLite cannot read it",
    ]
    assert (again.studio / "data" / "broken.sqlite3").read_bytes() == b"SQLite format 3\x00 cut"


@pytest.mark.parametrize("after", [b"", b"longer than before"])
def test_backup__file_that_changes_meanwhile(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bytes
) -> None:
    path = home.inbox / "day" / "growing.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"before")
    entry = module._entry

    def change(name: str, size: int, *, mtime: float) -> tarfile.TarInfo:
        if name.endswith("growing.mp4"):
            path.write_bytes(after)
        return entry(name, size, mtime=mtime)

    monkeypatch.setattr(module, "_entry", change)
    done = backup(home, tmp_path / "home.tar")
    assert done.missing == ["inbox/day/growing.mp4: it changed while it was copied"]
    assert restore(tmp_path / "home.tar", Home.at(tmp_path / "again")) == done


def test_restore__deletes_what_a_killed_one_left(home: Home, tmp_path: Path) -> None:
    dead, alive = (tmp_path / f".restore-{locks.host_id()}-{pid}-x" for pid in (2**22, os.getpid()))
    for folder in (dead, alive):
        (folder / "media").mkdir(parents=True)
    backup(home, tmp_path / "home.tar")
    restore(tmp_path / "home.tar", Home.at(tmp_path / "again"))
    assert (dead.exists(), alive.exists()) == (False, True)


def test_backup__consistent_while_writers_run(home: Home, tmp_path: Path) -> None:
    stop, wrote = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(studio_file(home), timeout=60)) as votes:
            for number in range(3, 250):
                votes.execute("INSERT INTO votes VALUES (?)", (f"f{number}",))
                votes.commit()
                face(home, number)
                wrote.set()
                if stop.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    wrote.wait(timeout=60)
    backup(home, tmp_path / "home.tar")
    stop.set()
    writer.join()
    again = Home.at(tmp_path / "again")
    restore(tmp_path / "home.tar", again)
    faces = set(tables.read(again, "faces")["face_id"])
    assert len(faces) > 3
    assert all(not wrong for _, _, wrong in verify(again))
    with closing(sqlite3.connect(studio_file(again))) as votes:
        assert votes.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        voted = {face for (face,) in votes.execute("SELECT face FROM votes")}
    # Each vote is written before its face, so a copy with the face has the vote.
    assert faces - {"f0", "f1", "f2"} <= voted


def test_verify__names_every_problem(home: Home) -> None:
    keys = tables.read(home, "faces").sort("face_id")["crop"]
    media.path_of(home, keys[0]).write_bytes(b"other bytes")
    media.path_of(home, keys[1]).unlink()
    (home.tables / "faces" / "batch=day" / "v9.parquet").write_bytes(b"PAR1 half")
    found = {kind: (checked, wrong) for kind, checked, wrong in verify(home)}
    assert found["pictures"] == (2, [f"media/{keys[0]} does not match its checksum"])
    assert found["tables"] == (4, ["tables/faces/batch=day/v9.parquet cannot be read"])
    (home.tables / "faces" / "batch=day" / "v9.parquet").unlink()
    found = {kind: (checked, wrong) for kind, checked, wrong in verify(home)}
    assert found["tables"] == (3, [f"faces refers to the image {keys[1]}, which is missing"])


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_listing(data: bytes) -> bytes:
    return rebuilt(data, lambda name, body: None if name == LISTING else (name, body))


def unreadable_listing(data: bytes) -> bytes:
    return rebuilt(data, lambda name, body: (name, b'{"files": 1}' if name == LISTING else body))


def altered(data: bytes) -> bytes:
    return rebuilt(data, lambda name, body: (name, body[::-1] if name == "salt" else body))


def escaping(data: bytes) -> bytes:
    return rebuilt(data, lambda name, body: ("../../salt" if name == "salt" else name, body))


def linking(data: bytes) -> bytes:
    def link(name: str, body: bytes) -> tuple[str, bytes]:
        return (name, b"/etc/passwd" if name == "salt" else body)

    return rebuilt(data, link, links={"salt"})


def rebuilt(
    data: bytes,
    change: Callable[[str, bytes], tuple[str, bytes] | None],
    *,
    links: Collection[str] = (),
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for entry in old:
            body = old.extractfile(entry).read()  # type: ignore[union-attr]
            if (changed := change(entry.name, body)) is None:
                continue
            made = tarfile.TarInfo(changed[0])
            if entry.name in links:
                made.type, made.linkname = tarfile.SYMTYPE, changed[1].decode()
            else:
                made.size = len(changed[1])
            new.addfile(made, io.BytesIO(changed[1]))
    return out.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cannot be restored"),
        (without_listing, "BACKUP.json is missing"),
        (unreadable_listing, "BACKUP.json is damaged"),
        (altered, "salt does not match"),
        (escaping, "outside the destination"),
        (linking, "not a regular file"),
        (lambda data: b"no tar at all", "cannot be restored"),
    ],
)
def test_restore__damaged_backup_writes_nothing(
    home: Home, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    file = tmp_path / "home.tar"
    backup(home, file)
    file.write_bytes(damage(file.read_bytes()))
    target = tmp_path / "below" / "again"
    with pytest.raises(TableError, match=message):
        restore(file, Home.at(target))
    assert not any(target.parent.iterdir())
    assert not (tmp_path / "salt").exists()


def test_restore__full_disk(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup(home, tmp_path / "home.tar")

    def full(*given: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    target = tmp_path / "below" / "again"
    with pytest.raises(DiskError, match="The disk is full"):
        restore(tmp_path / "home.tar", Home.at(target))
    assert not any(target.parent.iterdir())


def test_restore__existing_home(home: Home, tmp_path: Path) -> None:
    backup(home, tmp_path / "home.tar")
    with pytest.raises(TableError, match="not empty"):
        restore(tmp_path / "home.tar", home)


@pytest.mark.parametrize(
    ("place", "message"),
    [("inside", "inside the home"), ("no home", "not exist"), ("shared", "object store")],
)
def test_backup__refuses(home: Home, tmp_path: Path, place: str, message: str) -> None:
    target = tmp_path / "home.tar"
    if place == "inside":
        target = home.root / "home.tar"
    elif place == "no home":
        home = Home.at(tmp_path / "nothing")
    else:
        mark = home.root / mirror._STATE / "url"
        mark.parent.mkdir()
        mark.write_text("s3://bucket/home")
    with pytest.raises(TableError, match=message):
        backup(home, target)
    assert not target.exists()
