"""Somebody is forgotten: none of their videos stays in the inbox, and none of others goes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.object_store import BUCKET, KEYS, s3_server
from tests.warehouse.people_home import people_home, video_id
from warehouse.privacy import erase
from warehouse.storage import downloads, mirror, tables
from warehouse.storage.downloads import Download
from warehouse.storage.home import Home

ANNS = (b"ann-b", b"ann-c", b"mix-e")
"""Bytes of the videos that show her, the shared one too."""


@pytest.fixture
def day(home: Home) -> Path:
    people_home(home)
    return home.inbox / "day"


def moved(home: Home, clip: str, path: Path | str) -> Path:
    """Have a clip's row name another file, and move the file there; its lists never knew it."""
    for listed in (home.inbox / "day" / name for name in ("sources.jsonl", "videos.csv")):
        lines = listed.read_text().splitlines(keepends=True)
        listed.write_text("".join(line for line in lines if f"{clip}.mp4" not in line))
    place = {"part": video_id(clip), "batch": "day"}
    row = tables.read(home, "videos", batch="day").filter(pl.col("video_id") == video_id(clip))
    tables.write(home, "videos", row.with_columns(uri=pl.lit(str(path))), **place)
    path = Path(path)
    if path.parent.parent.exists():
        path.parent.mkdir(exist_ok=True)
        os.replace(home.inbox / "day" / f"{clip}.mp4", path)
    return path


def held(folder: Path) -> set[bytes]:
    """Which of her videos lie below a folder, as files or inside archives."""
    bodies = []
    for path in folder.rglob("*"):
        if path.is_file():
            bodies.append(path.read_bytes())
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    bodies += [archive.read(name) for name in archive.namelist()]
    return {body for body in bodies if body in ANNS}


def test_a_file_in_a_folder_goes_with_its_words_its_line_and_the_folder(
    home: Home, day: Path
) -> None:
    clip = moved(home, "ann-b", day / "ann" / "clip.mp4")
    clip.with_suffix(".srt").write_text("words of hers")
    clip.with_name("clip.mp4.json").write_text("more")
    other = moved(home, "cid-f", day / "cid" / "clip.mp4")
    other.with_suffix(".srt").write_text("words of his")
    for folder in (clip.parent, other.parent):
        (folder / "videos.csv").write_text("file_name,licence\nclip.mp4,CC0-1.0\n")
    done = erase.forget(home, "subject", "ann")
    assert done.absence.proved, done.absence.traces
    assert held(home.inbox) == set()
    assert (clip.parent / "videos.csv").read_text() == "file_name,licence\n"
    assert (other.parent / "videos.csv").read_text().endswith("clip.mp4,CC0-1.0\n")
    assert sorted(path.name for path in clip.parent.iterdir()) == ["videos.csv"]
    assert other.exists()
    assert other.with_suffix(".srt").exists()


def test_words_beside_two_videos_of_one_name_stay(home: Home, day: Path) -> None:
    (day / "ann-b.mov").write_bytes(b"another")
    (day / "ann-b.srt").write_text("whose?")
    erase.forget(home, "subject", "ann")
    assert (day / "ann-b.srt").exists()
    assert held(home.inbox) == set()


def test_a_file_that_holds_something_else_by_now_stays(home: Home, day: Path) -> None:
    one, two = (moved(home, clip, day / name / f"{name}.mp4")
                for clip, name in (("ann-b", "one"), ("ann-c", "two")))  # fmt: skip
    one.write_bytes(b"bob-d")  # his, and ingested as such under this name too
    two.write_bytes(b"nobody knows")
    done = erase.forget(home, "subject", "ann")
    assert one.read_bytes() == b"bob-d"
    assert two.exists()
    (told,) = done.absence.traces
    assert told.startswith(f"{two}: it changed since it was ingested")


def packed(home: Home, day: Path, *, refused: dict[str, str]) -> Path:
    """An archive of ann's and cid's videos, as if unpacked."""
    path, folder = day / "p.zip", downloads.folder_of(day, str(day / "p.zip"))
    folder.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for clip in ("ann-b", "cid-f"):
            archive.writestr(f"{clip}.mp4", clip.encode())
            moved(home, clip, folder / f"{clip}.mp4")
    stat = path.stat()
    arrival = Download(
        str(path), "p.zip", single=False, refused=refused,
        marks={"": f"{stat.st_size} {stat.st_mtime_ns}"},
    )  # fmt: skip
    downloads.write(day, arrival)
    return path


def test_an_archive_goes_and_what_it_held_of_others_stands_on_its_own(
    home: Home, day: Path
) -> None:
    path = packed(home, day, refused={})
    (day / "p.json").write_text("no words: an archive has none")
    assert b"ann-b" in held(home.inbox)
    done = erase.forget(home, "subject", "ann")
    assert done.absence.proved, done.absence.traces
    assert held(home.inbox) == set()
    assert (downloads.folder_of(day, str(path)) / "cid-f.mp4").exists()
    assert (day / "p.json").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("refused", "this archive holds theirs, and what never came in (eve.mp4, of 1)"),
        ("touched", "this archive changed since it was unpacked"),
    ],
)
def test_an_archive_that_holds_more_is_named_and_stays(
    home: Home, day: Path, change: str, why: str
) -> None:
    refused = {"eve.mp4": "encrypted: it needs a password"} if change == "refused" else {}
    path = packed(home, day, refused=refused)
    if change == "touched":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("eve.mp4", b"eve")
    done = erase.forget(home, "subject", "ann")
    assert not done.absence.proved
    (told,) = done.absence.traces
    assert told.startswith(f"{path}: {why}")
    assert path.exists()
    # Its arrival is remembered, so that nothing unpacks it again.
    assert downloads.read(day, str(path)) is not None
    assert not (downloads.folder_of(day, str(path)) / "ann-b.mp4").exists()


def test_of_what_was_fetched_nothing_stays_and_its_address_is_told(home: Home, day: Path) -> None:
    address = "https://example.org/ann.mp4?key=secret"
    folder = downloads.folder_of(day, address)
    folder.mkdir(parents=True)
    clip = moved(home, "ann-b", folder / "ann.mp4")
    (folder / ".part-ann.mp4").write_bytes(b"ann-b")  # half of a newer one
    (folder / ".fetched").mkdir()
    (folder / ".fetched" / "whole.zip").write_bytes(b"ann-b")
    downloads.write(day, Download(address, "ann.mp4", marks={"ann.mp4": "1"}))
    done = erase.forget(home, "subject", "ann")
    assert done.absence.proved, done.absence.traces
    assert held(home.inbox) == set()
    assert not clip.exists()
    assert downloads.read(day, address) is None
    (told,) = done.left
    assert told.startswith("https://example.org/ann.mp4: what came from there is deleted here")


def test_what_lies_outside_is_told_and_left_alone(home: Home, day: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    clip = moved(home, "ann-b", films / "in" / "ann.mp4")
    clip.with_suffix(".srt").write_text("words")
    (films / "linked.mp4").write_bytes((day / "ann-c.mp4").read_bytes())
    (day / "ann-c.mp4").unlink()
    (day / "ann-c.mp4").symlink_to(films / "linked.mp4")
    done = erase.forget(home, "subject", "ann")
    assert done.absence.proved, done.absence.traces
    assert held(home.inbox) == set()
    assert sorted(done.left) == [
        f"{path}: it lies outside this home"
        for path in sorted((clip, clip.with_suffix(".srt"), films / "linked.mp4"))
    ]
    assert clip.exists()


def test_a_video_declared_theirs_and_never_ingested_goes_too(home: Home, day: Path) -> None:
    (day / "late.mp4").write_bytes(b"never read")
    (day / "listed.mp4").write_bytes(b"never read either")
    with open(day / "videos.csv", "a") as sidecar:
        sidecar.write("late.mp4,ann,CC-BY-4.0,yes,\ngone.mp4,ann,,,\nbob-d.mp4,ann,,,\n")
    with open(day / "sources.jsonl", "a") as listing:
        listing.write('\n{"uri": "listed.mp4", "subject_id": "ann"}\nno json\n')
    done = erase.forget(home, "subject", "ann")
    assert done.absence.proved, done.absence.traces
    assert not (day / "late.mp4").exists()
    assert not (day / "listed.mp4").exists()
    assert (day / "bob-d.mp4").exists()
    assert done.left == [
        f"{day / 'bob-d.mp4'}: videos.csv called it theirs, and it was ingested as another's"
    ]
    assert (day / "sources.jsonl").read_text().endswith("no json\n")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with s3_server() as url:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": url}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / "here"))
        yield Home.at(f"s3://{BUCKET}/clearing")
        mirror._open.cache_clear()


def test_rows_of_another_machine_lead_to_the_files_of_this_one(shared: Home) -> None:
    """Nested, unpacked, and with a folder called inbox above the other machine's home."""
    people_home(shared)
    day, there = shared.inbox / "day", "/mnt/inbox/work/inbox/day"
    folder = downloads.folder_of(day, f"{there}/p.zip")
    for clip, path in (("ann-b", day / "sub" / "in" / "ann.mp4"), ("ann-c", folder / "ann.mp4")):
        path.parent.mkdir(parents=True)
        mirror.find(day).upload(day / f"{clip}.mp4", path)
        moved(shared, clip, f"{there}/{path.relative_to(day)}")
    (day / "p.zip").write_bytes(b"ann-c")
    mirror.find(day).upload(day / "p.zip", day / "p.zip")
    downloads.write(day, Download(f"{there}/p.zip", "p.zip", single=False))
    # A file of others that lies where her row's other machine had a file of its own.
    moved(shared, "mix-e", "/mnt/inbox/day/bob-d.mp4")
    done = erase.forget(shared, "subject", "ann")
    left = [
        path.relative_to(day).as_posix()
        for path in sorted(day.rglob("*.*"))
        if path.is_file() and path.suffix in (".mp4", ".zip")
    ]
    assert left == ["bob-d.mp4", "cid-f.mp4", "mix-e.mp4"]
    keys = mirror.find(day).objects.list("inbox")
    assert not [key for key in keys if "ann" in key or "p.zip" in key]
    assert hashlib.sha256((day / "bob-d.mp4").read_bytes()).hexdigest()[:16] == video_id("bob-d")
    assert done.absence.proved, done.absence.traces
