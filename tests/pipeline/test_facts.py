"""Facts about people and recordings that ``videos.csv`` states."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pipeline.ingest import facts, manifest
from warehouse.privacy import erase
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def home_with(tmp_path: Path, text: str) -> Home:
    """Return a home whose batch ``b`` holds the files of ``videos.csv``."""
    home = Home.at(tmp_path / "home")
    folder = home.inbox / "b"
    folder.mkdir(parents=True)
    (folder / "videos.csv").write_text(text)
    for number, name in enumerate(("one.mp4", "two.mp4")):
        (folder / name).write_bytes(name.encode())
        (source,) = [one for one in manifest.list_sources(folder) if one.file_name == name]
        row = {"video_id": f"v{number}", "batch": "b", "sha256": name, "verdict": "kept"}
        row |= {"uri": source.uri, "subject_id": source.subject_id, "consent": source.consent}
        frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
        tables.write(home, "videos", frame, part=f"v{number}", batch="b")
    facts.write_facts(home, "b")
    return home


def stored(home: Home, name: str) -> list[tuple[str, ...]]:
    return tables.read(home, name).drop("batch").sort(pl.all()).rows()


def test_facts__each_with_who_stated_it(tmp_path: Path) -> None:
    home = home_with(
        tmp_path,
        "file_name,subject_id,consent,subject_consent,Subject Gender,subject_gender_stated_by,"
        "session_place,subject_shoe\n"
        "one.mp4,p1,yes,yes,female,Self,clinic,39\n"
        "TWO.MP4,,yes,yes,male,,,\n",
    )
    assert stored(home, "subjects") == [
        ("p1", "gender", "female", "self"), ("video-v1", "gender", "male", "collector")
    ]  # fmt: skip
    assert stored(home, "sessions") == [("v0", "place", "clinic", "collector")]
    assert facts.left_out(home, "b") == []
    (note,) = manifest.notes(home.inbox / "b")
    assert note.startswith("videos.csv: not read: 'subject_shoe'")
    faces = pl.DataFrame({"subject_id": ["p1", "p1", "video-v1"], "video_id": ["v0", "v0", "v1"]})
    assert facts.groups(home, faces) == [
        {"group": "gender, stated by self", "value": "female", "subjects": 1, "faces": 2},
        {"group": "gender, stated by collector", "value": "male", "subjects": 1, "faces": 1},
        {"group": "place, stated by collector", "value": "clinic", "subjects": 1, "faces": 2},
    ]
    erase.delete_rows(home, erase.plan(home, "video", "v1"))
    assert stored(home, "subjects") == [("p1", "gender", "female", "self")]


@pytest.mark.parametrize(
    ("consent", "own", "who", "said"),
    [
        ("yes", "", "", "consent_unstated: no consent for it in the column subject_consent"),
        ("yes", "no", "", "consent_withdrawn: no consent for it in the column subject_consent"),
        ("yes", "until 2020-01-01", "", "consent_expired"),
        ("yes", "perhaps", "", "consent_unreadable"),
        ("yes", "yes", "a friend", "stated_by 'a friend' is none of self, collector, machine"),
    ],
)
def test_facts__refused(tmp_path: Path, consent: str, own: str, who: str, said: str) -> None:
    head = "file_name,subject_id,consent,subject_consent,subject_gender,stated_by\n"
    home = home_with(tmp_path, f"{head}one.mp4,p1,{consent},{own},female,{who}\ntwo.mp4,p2,,,,\n")
    assert stored(home, "subjects") == []
    (line,) = facts.left_out(home, "b")
    assert line.startswith(f"1 fact of videos.csv not stored: {said}")


def test_facts__recording_without_consent_and_contradictions(tmp_path: Path) -> None:
    home = home_with(
        tmp_path,
        "file_name,subject_id,consent,subject_consent,subject_group,session_place\n"
        "one.mp4,p1,,yes,patient,clinic\ntwo.mp4,p1,yes,yes,control,home\n",
    )
    assert stored(home, "subjects") == []
    assert stored(home, "sessions") == [("v1", "place", "home", "collector")]
    unstated, several = facts.left_out(home, "b")
    assert unstated.endswith("consent_unstated: no consent for it in the column consent")
    assert several == "2 facts of videos.csv not stored: subjects have two values for one field"
    (home.inbox / "b" / "videos.csv").write_text("file_name\none.mp4\ntwo.mp4\n")
    facts.write_facts(home, "b")
    assert stored(home, "sessions") == []
