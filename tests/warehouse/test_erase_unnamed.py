"""Erase what no row names, in moved homes, under other spellings."""

from __future__ import annotations

import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.warehouse.people_home import face_id, people_home, release, video_id
from tests.warehouse.test_erase import crops_of, traces
from warehouse.errors import SettingsError
from warehouse.privacy import erase
from warehouse.releases import versions
from warehouse.storage import atomic, downloads, media, tables
from warehouse.storage.downloads import Download
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


@pytest.fixture(autouse=True)
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    return tmp_path / "hf"


def row(name: str, **values: object) -> pl.DataFrame:
    table = TABLES[name]
    return pl.DataFrame([{key: values.get(key) for key in table.columns}], schema=table.schema)


def test_forget__files_of_killed_processes(home: Home) -> None:
    people_home(home)
    (crop,) = crops_of(home, "ann")[:1]
    data = media.encode(crop, ".png")
    left = [
        home.media / "crops" / "aa" / ("0" * 32 + ".png"),  # a picture before its row
        home.media / "clips" / f"{video_id('gone')}-0000.webm",
        atomic.draft_path(home.media / "crops" / "aa" / "x.png"),  # its process id lives on
        atomic.draft_path(home.inbox / "day" / "x.mp4"),
        home.inbox / "day" / "arrived" / ("1" * 16) / "half.mp4",  # fetched, not recorded yet
        home.releases / "new" / f"{versions._DRAFT}1" / "data" / "train.png",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    others = len(crops_of(home, "bob")) + len(crops_of(home, "cid"))
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert [path for path in left if path.exists()] == []
    assert len(list(home.media.rglob("*.png"))) == others
    assert media.orphans(home) == []


def test_forget__plans_again_when_taken_up(home: Home) -> None:
    people_home(home)
    erase._Journal.open(
        erase._journal_path(home, "subject", "ann"), erase.plan(home, "subject", "ann")
    )
    video = video_id("new")
    face = {"face_id": f"{video}-0000-0", "track_id": f"{video}-0000", "video_id": video}
    key = media.store(home, "crops", crops_of(home, "cid")[0][::-1])
    place = {"part": video, "batch": "day"}
    tables.write(home, "faces", row("faces", **face, batch="day", crop=key), **place)
    tables.write(home, "tracks", row("tracks", **face, batch="day", subject_id="ann"), **place)
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete
    assert not (home.media / key).exists()
    assert traces(home, video) == []


def test_forget__similar_picture_is_a_trace_until_it_is_deleted(home: Home) -> None:
    people_home(home)
    copy = home.root / "exports" / "no suffix"
    copy.parent.mkdir()
    small = Image.fromarray(crops_of(home, "ann")[0]).resize((112, 112))
    copy.write_bytes(media.encode(np.asarray(small), ".jpg"))
    done = erase.forget(home, "subject", "ann")
    (line,) = done.verification.traces
    assert line.startswith("exports/no suffix: ")
    assert erase.pending(home) == [("subject", "ann")]
    copy.unlink()
    assert erase.forget(home, "subject", "ann").verification.complete
    assert erase.pending(home) == []
    assert tables.read(home, "tombstones").filter(pl.col("event") == "erased").height == 1


def test_forget__keeps_the_journals_of_others(home: Home) -> None:
    people_home(home)
    erase._Journal.open(
        erase._journal_path(home, "subject", "bob"), erase.plan(home, "subject", "bob")
    )
    erase.forget(home, "subject", "ann")
    assert erase.pending(home) == [("subject", "bob")]


@pytest.mark.parametrize("through_link", [False, True])
def test_forget__in_a_moved_home(home: Home, tmp_path: Path, through_link: bool) -> None:
    people_home(home)
    day = home.inbox / "day"
    archive = day / "people.zip"
    folder = downloads.folder_of(day, str(archive))
    folder.mkdir(parents=True)
    (folder / "cid.mp4").write_bytes(b"cid-f")
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.mp4", b"ann-b")
        packed.writestr("cid.mp4", b"cid-f")
        packed.writestr("videos.csv", "file_name,subject_id\na.mp4,ann\n")
    downloads.write(day, Download(str(archive), "people.zip", single=False))
    (day / "copy under another name.mov").write_bytes(b"ann-c")
    os.rename(home.root, tmp_path / "moved")
    moved = Home.at(tmp_path / "moved")
    if through_link:
        (tmp_path / "link").symlink_to(moved.root)
        moved = Home.at(tmp_path / "link")
    done = erase.forget(moved, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    left = sorted(path.name for path in moved.inbox.rglob("*") if path.is_file())
    stay = ["bob-d.mp4", "cid-f.mp4", "cid.mp4", f"{folder.name}.json"]
    assert left == sorted([*stay, "sources.jsonl", "videos.csv"])
    assert "ann" not in (moved.inbox / "day" / "videos.csv").read_text()
    assert "ann" not in (moved.inbox / "day" / "sources.jsonl").read_text()


@pytest.mark.parametrize(
    "asked", ["ann", " ANN ", "A\u200bnn", "\uff41nn"], ids=["same", "case", "hidden", "width"]
)
def test_forget__any_spelling(home: Home, asked: str) -> None:
    people_home(home)
    release(home)
    done = erase.forget(home, "subject", asked)
    assert done.verification.complete, done.verification.traces
    assert done.releases == {"faces v1": "v1.1"}
    assert traces(home, "ann") == []


def test_forget__composed_and_decomposed_accents(home: Home) -> None:
    people_home(home)
    name = "Zo\u00eb"
    (home.inbox / "day" / "late.mp4").write_bytes(b"late")
    with open(home.inbox / "day" / "videos.csv", "a") as sidecar:
        sidecar.write(f"late.mp4,{unicodedata.normalize('NFD', name)},,,\n")
    # No row names this subject: the file was not read yet.
    done = erase.forget(home, "subject", name)
    assert done.verification.complete
    assert not (home.inbox / "day" / "late.mp4").exists()
    with pytest.raises(SettingsError, match="forgotten on"):
        erase.plan(home, "subject", unicodedata.normalize("NFD", name.upper()))


def test_forget__segments_sensors_and_their_texts(home: Home) -> None:
    people_home(home)
    for folder in ("segments", "sensors"):
        (home.media / folder).mkdir()
    for who, clip in (("ann", "mix-e"), ("bob", "bob-d"), ("ann", "ann-b")):
        video, key = video_id(clip), f"segments/{clip}.webm"
        (home.media / key).write_bytes(clip.encode())
        segment = {"segment_id": f"s-{clip}", "video_id": video, "batch": "day", "video": key}
        place = {"part": video, "batch": "day"}
        tables.write(home, "segments", row("segments", **segment, subject_ids=[who]), **place)
        text = {"item_kind": "segment", "item_id": f"s-{clip}", "kind": "transcript", "text": "hm"}
        tables.write(home, "texts", row("texts", **text), part=clip)
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert tables.read(home, "segments")["segment_id"].to_list() == ["s-bob-d"]
    assert tables.read(home, "texts")["item_id"].to_list() == ["s-bob-d"]
    left = [path.name for path in home.media.rglob("*.webm")]
    assert left == ["bob-d.webm"]


def test_forget__names_copies_out_of_reach(home: Home, tmp_path: Path, hugging_face: Path) -> None:
    people_home(home)
    for name, face in (("hers", face_id("ann-b", "ann", 0)), ("his", face_id("bob-d", "bob", 0))):
        cached = hugging_face / name / "0.0.0"
        cached.mkdir(parents=True)
        (cached / "dataset_info.json").write_text(json.dumps({"features": {"face_id": {}}}))
        (cached / "x-train.arrow").write_bytes(b"ARROW1" + face.encode())
    (tmp_path / ".restore-1").mkdir()
    (tmp_path / "outside.mp4").hardlink_to(home.inbox / "day" / "ann-b.mp4")
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete
    places = {line.split(": ")[0] for line in done.left}
    assert places == {
        str(hugging_face / "hers" / "0.0.0"),
        str(home.root.parent / ".restore-1"),
        str(home.inbox / "day" / "ann-b.mp4"),
    }


def test_forget__the_reason_may_not_name_the_person(home: Home) -> None:
    people_home(home)
    with pytest.raises(SettingsError, match="reason names the subject"):
        erase.forget(home, "subject", "ann", why="Ann asked us")
