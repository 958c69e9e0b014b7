"""Files of erased subjects, ingested again: a verdict, no face, no id."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import polars as pl
import pytest

from pipeline.ingest import batches, blocklist
from pipeline.ingest import register as stage
from tests.warehouse.conftest import drawn_face
from tests.warehouse.people_home import people_home, video_id
from warehouse.ids import file_sha256
from warehouse.privacy import erase, tombstones
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def clips(tmp_path: Path, **subjects: str | None) -> Path:
    """A folder of still pictures, ``<name>.png`` of the subject given."""
    folder = tmp_path / "clips"
    folder.mkdir(exist_ok=True)
    lines = ["file_name,subject_id"]
    for number, (name, subject) in enumerate(sorted(subjects.items())):
        cv2.imwrite(str(folder / f"{name}.png"), drawn_face(number))
        lines.append(f"{name}.png,{subject or ''}")
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")
    return folder


def taken_in(home: Home, folder: Path, *, batch: str = "one") -> dict[str, dict]:
    """Do what the asset raw_videos does; return file name to row."""
    batches.create(home, [str(folder)], batch=batch)
    blocklist.readmit(home, batch)
    stage.register(home, batch, workers=1)
    blocklist.refuse(home, batch)
    rows = tables.read(home, "videos", batch=batch).to_dicts()
    assert len({row["uri"] for row in rows}) == len(rows)
    return {Path(row["uri"]).name: row for row in rows}


def test_ingest__erased_subject_refused(home: Home, tmp_path: Path) -> None:
    folder = clips(tmp_path, mine="ann", silent="ann", other="bob")
    before = taken_in(home, folder)
    assert {row["verdict"] for row in before.values()} == {"kept"}
    erase.forget(home, "subject", "ann")
    # One of the two no longer declares its subject; its bytes identify it.
    (folder / "videos.csv").write_text("file_name,subject_id\nmine.png,ann\nother.png,bob\n")
    for batch in ("one", "two"):
        again = taken_in(home, folder, batch=batch)
        for name in ("mine.png", "silent.png"):
            row = again[name]
            assert (row["verdict"], row["reason"].split(":")[0]) == ("dropped", "forgotten")
            assert (row["subject_id"], row["sha256"]) == (None, None)
            assert row["video_id"] != before[name]["video_id"]
            assert before[name]["video_id"] not in json.dumps(row)
    assert stage.find_faces(home, "two", stage.FaceOptions()).done == 0
    assert tables.read(home, "faces").is_empty()
    stages = [row for row in batches.summary(home, "two").stages if row[0] == "videos"]
    assert ("videos", "dropped", "forgotten", 2) in stages
    assert sum(row[3] for row in stages) == 3


def test_ingest__erased_subject_returns(home: Home, tmp_path: Path) -> None:
    folder = clips(tmp_path, mine="ann", other="bob")
    digest = file_sha256(str(folder / "mine.png"))
    taken_in(home, folder)
    erase.forget(home, "subject", "ann")
    refused = taken_in(home, folder)
    assert taken_in(home, folder) == refused
    assert blocklist.refuse(home, "one") == 0
    tombstones.lift(home, "subject", "ann")
    back = taken_in(home, folder)["mine.png"]
    assert (back["verdict"], back["sha256"], back["subject_id"]) == ("kept", digest, "ann")


def test_ingest__killed_between_rows(home: Home, tmp_path: Path) -> None:
    folder = clips(tmp_path, mine="ann", other="bob")
    taken_in(home, folder)
    (kept,) = (row for row in tables.read(home, "videos").to_dicts() if "mine" in row["uri"])
    erase.forget(home, "subject", "ann")
    taken_in(home, folder)
    frame = pl.DataFrame([kept], schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part=kept["video_id"], batch="one")
    assert blocklist.refuse(home, "one") == 1
    assert len(taken_in(home, folder)) == 2


def test_ingest__file_of_another_subject(home: Home, tmp_path: Path) -> None:
    folder = clips(tmp_path, mine="ann", wrong="bob")
    taken_in(home, folder)
    erase.forget(home, "subject", "ann")
    (folder / "videos.csv").write_text("file_name,subject_id\nwrong.png,ann\n")
    (folder / "mine.png").unlink()
    assert taken_in(home, folder, batch="two")["wrong.png"]["verdict"] == "dropped"
    (folder / "videos.csv").write_text("file_name,subject_id\nwrong.png,bob\n")
    rows = taken_in(home, folder, batch="two")
    assert rows["wrong.png"]["reason"] is None or "duplicate" in rows["wrong.png"]["reason"]


def test_ingest__shared_video(home: Home) -> None:
    people_home(home)
    video = video_id("mix-e")
    rows = tables.read(home, "videos").filter(pl.col("video_id") == video)
    place = {"part": video, "batch": "day"}
    tables.write(home, "videos", rows, **place, metadata={"stamp": "s", "registered": "kept"})
    erase.forget(home, "subject", "ann")
    others = tables.read(home, "faces").filter(pl.col("video_id") == video)
    assert others.height > 0
    assert blocklist.refuse(home, "day") == 0
    # Other settings would detect faces again, and find the erased subject.
    changed = stage.FaceOptions(sample_fps=1.0)
    assert stage.find_faces(home, "day", changed).done == 0
    now = tables.read(home, "faces").filter(pl.col("video_id") == video)
    assert now.equals(others)
    for name in ("faces", "tracks"):
        tables.remove(home, name, **place)
    assert blocklist.refuse(home, "day") == 1
