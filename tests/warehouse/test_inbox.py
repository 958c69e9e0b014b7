"""Erase a data subject's files from the inbox and no others."""

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
"""Bytes of the videos that show ann, the shared one included."""


@pytest.fixture
def day(home: Home) -> Path:
    people_home(home)
    return home.inbox / "day"


def moved(home: Home, clip: str, path: Path | str) -> Path:
    """Move a clip's file, update its row, and drop it from the listings."""
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


def videos_in(folder: Path) -> set[bytes]:
    """Return which of ann's videos are below a folder, archives included."""
    bodies = []
    for path in folder.rglob("*"):
        if path.is_file():
            bodies.append(path.read_bytes())
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    bodies += [archive.read(name) for name in archive.namelist()]
    return {body for body in bodies if body in ANNS}


def test_clear__file_with_transcripts_line_and_folder(home: Home, day: Path) -> None:
    clip = moved(home, "ann-b", day / "ann" / "clip.mp4")
    clip.with_suffix(".srt").write_text("words of ann")
    clip.with_name("clip.mp4.json").write_text("more")
    other = moved(home, "cid-f", day / "cid" / "clip.mp4")
    other.with_suffix(".srt").write_text("words of cid")
    for folder in (clip.parent, other.parent):
        (folder / "videos.csv").write_text("file_name,licence\nclip.mp4,CC0-1.0\n")
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert videos_in(home.inbox) == set()
    assert not clip.parent.exists()
    assert (other.parent / "videos.csv").read_text().endswith("clip.mp4,CC0-1.0\n")
    assert other.exists()
    assert other.with_suffix(".srt").exists()


def test_clear__keeps_an_ambiguous_transcript(home: Home, day: Path) -> None:
    (day / "ann-b.mov").write_bytes(b"another")
    (day / "ann-b.srt").write_text("whose?")
    erase.forget(home, "subject", "ann")
    assert (day / "ann-b.srt").exists()
    assert videos_in(home.inbox) == set()


def test_clear__keeps_a_file_that_changed(home: Home, day: Path) -> None:
    one, two = (moved(home, clip, day / name / f"{name}.mp4")
                for clip, name in (("ann-b", "one"), ("ann-c", "two")))  # fmt: skip
    one.write_bytes(b"bob-d")  # bob's, ingested under this name too
    two.write_bytes(b"changed")
    done = erase.forget(home, "subject", "ann")
    assert one.read_bytes() == b"bob-d"
    assert two.exists()
    (line,) = done.verification.traces
    assert line.startswith(f"{two}: it changed after it was ingested")


def packed(home: Home, day: Path, *, refused: dict[str, str]) -> Path:
    """Create an archive of ann's and cid's videos and its unpacked files."""
    path, folder = day / "p.zip", downloads.folder_of(day, str(day / "p.zip"))
    folder.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for clip in ("ann-b", "cid-f"):
            archive.writestr(f"{clip}.mp4", clip.encode())
            moved(home, clip, folder / f"{clip}.mp4")
    stat = path.stat()
    download = Download(
        str(path), "p.zip", single=False, refused=refused,
        marks={"": f"{stat.st_size} {stat.st_mtime_ns}"},
    )  # fmt: skip
    downloads.write(day, download)
    return path


def test_clear__archive_but_not_files_of_others(home: Home, day: Path) -> None:
    path = packed(home, day, refused={})
    (day / "p.json").write_text("no words: an archive has none")
    assert b"ann-b" in videos_in(home.inbox)
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert videos_in(home.inbox) == set()
    assert (downloads.folder_of(day, str(path)) / "cid-f.mp4").exists()
    assert (day / "p.json").exists()


@pytest.mark.parametrize("refused", [{"eve.mp4": "encrypted: it needs a password"}, {}])
def test_clear__keeps_and_names_an_archive_with_more(
    home: Home, day: Path, refused: dict[str, str]
) -> None:
    why = "this archive holds their data and 1 entries that were not imported (eve.mp4)"
    path = packed(home, day, refused=refused)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("eve.mp4", b"eve")
    done = erase.forget(home, "subject", "ann")
    assert not done.verification.complete
    (line,) = done.verification.traces
    assert line.startswith(f"{path}: {why}")
    assert path.exists()
    # Its record stays, so that ingest does not unpack it again.
    assert downloads.read(day, str(path)) is not None
    assert not (downloads.folder_of(day, str(path)) / "ann-b.mp4").exists()


def test_clear__names_archives_of_other_kinds(home: Home, day: Path) -> None:
    slides, tar = day / "slides.pptx", day / "old.tar.gz"
    with zipfile.ZipFile(slides, "w") as archive:
        archive.writestr("media/image1.mp4", b"ann-b")
        archive.writestr("slide.xml", b"<p/>")
    tar.write_bytes(b"not searched")
    done = erase.forget(home, "subject", "ann")
    (line,) = done.verification.traces
    assert line.startswith(f"{slides}: this archive holds their data")
    assert f"{tar}: this archive is not searched; check it" in done.left


def test_clear__downloads_and_reports_the_url(home: Home, day: Path) -> None:
    address = "https://example.org/ann.mp4?key=secret"
    folder = downloads.folder_of(day, address)
    folder.mkdir(parents=True)
    clip = moved(home, "ann-b", folder / "ann.mp4")
    (folder / ".part-ann.mp4").write_bytes(b"ann-b")  # half of a newer one
    (folder / ".fetched").mkdir()
    (folder / ".fetched" / "whole.zip").write_bytes(b"ann-b")
    downloads.write(day, Download(address, "ann.mp4", marks={"ann.mp4": "1"}))
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert videos_in(home.inbox) == set()
    assert not clip.exists()
    assert downloads.read(day, address) is None
    (line,) = done.left
    assert line.startswith("https://example.org/ann.mp4: the download was deleted here")


def test_clear__reports_files_outside_the_home(home: Home, day: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    clip = moved(home, "ann-b", films / "in" / "ann.mp4")
    clip.with_suffix(".srt").write_text("words")
    (films / "linked.mp4").write_bytes((day / "ann-c.mp4").read_bytes())
    (day / "ann-c.mp4").unlink()
    (day / "ann-c.mp4").symlink_to(films / "linked.mp4")
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert videos_in(home.inbox) == set()
    assert sorted(done.left) == [
        f"{path}: it is outside this home"
        for path in sorted((clip, clip.with_suffix(".srt"), films / "linked.mp4"))
    ]
    assert clip.exists()


def test_clear__declared_but_never_ingested(home: Home, day: Path) -> None:
    (day / "late.mp4").write_bytes(b"never read")
    (day / "listed.mp4").write_bytes(b"never read either")
    with open(day / "videos.csv", "a") as sidecar:
        sidecar.write("late.mp4,ann,CC-BY-4.0,yes,\ngone.mp4,ann,,,\nbob-d.mp4,ann,,,\n")
    with open(day / "sources.jsonl", "a") as listing:
        listing.write('\n{"uri": "listed.mp4", "subject_id": "ann"}\nno json\n')
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert not (day / "late.mp4").exists()
    assert not (day / "listed.mp4").exists()
    assert (day / "bob-d.mp4").exists()
    assert done.left == [
        f"{day / 'bob-d.mp4'}: videos.csv declares it as theirs, "
        "but it was ingested as another subject's"
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


@pytest.mark.slow
def test_clear__rows_written_on_another_machine(shared: Home) -> None:
    """Nested and unpacked files; the other home is below a folder ``inbox``."""
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
    # A file of another subject at the path that the row names on the other machine.
    moved(shared, "mix-e", "/mnt/inbox/day/bob-d.mp4")
    done = erase.forget(shared, "subject", "ann")
    left = [
        path.relative_to(day).as_posix()
        for path in sorted(day.rglob("*.*"))
        if path.is_file() and path.suffix in (".mp4", ".zip")
    ]
    assert left == ["bob-d.mp4", "cid-f.mp4"]  # mix-e.mp4 too goes by its bytes
    keys = mirror.find(day).objects.list("inbox")
    assert not [key for key in keys if "ann" in key or "p.zip" in key]
    assert hashlib.sha256((day / "bob-d.mp4").read_bytes()).hexdigest()[:16] == video_id("bob-d")
    assert done.verification.complete, done.verification.traces
