"""Ingest of a batch: a verdict per file, and no repeated work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.ingest import batches
from pipeline.ingest import register as stage
from tests.media_files import CARPHONE, SIX_PEOPLE, damaged_batch, video
from warehouse.errors import SettingsError
from warehouse.storage import media, tables, views
from warehouse.storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def verdicts(home: Home) -> dict[str, tuple[str, str | None]]:
    rows = views.query(
        home, "SELECT split_part(uri, '/', -1), verdict, split_part(reason, ':', 1) FROM videos"
    ).rows()
    return {name: (verdict, reason) for name, verdict, reason in rows}


def ingest(home: Home, batch: str, **given: object) -> tuple[stage.StageCount, stage.StageCount]:
    return (
        stage.register(home, batch, workers=1),
        stage.find_faces(home, batch, stage.FaceOptions(**given), workers=1),
    )


def test_ingest__bad_files_get_verdicts(home: Home, tmp_path: Path) -> None:
    expected = damaged_batch(tmp_path / "mixed")
    name = batches.create(home, [str(tmp_path / "mixed")])
    assert name == "mixed"
    ingest(home, name)
    found = verdicts(home)
    assert found.pop("good.jpg") == ("kept", None)
    assert {file: reason for file, (_, reason) in found.items()} == expected
    assert {verdict for file, (verdict, _) in found.items() if file != "no_face.mp4"} == {"failed"}
    summary = batches.summary(home, name)
    assert {file for file, _, _ in summary.problems} == set(expected)
    for _, _, reason in summary.problems:
        assert len(reason.split(": ", 1)[1]) > 15, reason
    assert tables.read(home, "faces")["verdict"].to_list().count("kept") == 6


def test_ingest__second_run_reads_nothing(home: Home, tmp_path: Path) -> None:
    damaged_batch(tmp_path / "mixed")
    name = batches.create(home, [str(tmp_path / "mixed")])
    first = ingest(home, name)
    before = {path: path.stat().st_mtime_ns for path in home.root.rglob("*.parquet")}
    assert batches.create(home, [str(tmp_path / "mixed")]) == name
    second = ingest(home, name)
    assert [count.done for count in second] == [0, 0]
    assert [count.skipped for count in second] == [count.done for count in first]
    assert {path: path.stat().st_mtime_ns for path in home.root.rglob("*.parquet")} == before


def test_ingest__lost_faces_file(home: Home) -> None:
    name = batches.create(home, [str(SIX_PEOPLE)], batch="one")
    ingest(home, name)
    faces = tables.read(home, "faces")
    (part,) = tables.parts(home, "faces", batch=name)
    tables.remove(home, "faces", part=part, batch=name)
    assert ingest(home, name)[1].done == 1
    assert tables.read(home, "faces").equals(faces)


def test_ingest__other_settings(home: Home) -> None:
    name = batches.create(home, [str(CARPHONE)], batch="one")
    ingest(home, name, sample_fps=2.0)
    few = tables.read(home, "faces").height
    assert ingest(home, name, sample_fps=4.0)[1].done == 1
    assert tables.read(home, "faces").height > few


def test_ingest__same_bytes_twice(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    for file in ("a.jpg", "b.jpg"):
        (folder / file).write_bytes(SIX_PEOPLE.read_bytes())
    ingest(home, batches.create(home, [str(folder)]))
    ingest(home, batches.create(home, [str(folder / "b.jpg")], batch="other"))
    rows = views.query(home, "SELECT batch, verdict, reason FROM videos ORDER BY ALL").rows()
    same = "duplicate: the same bytes as a.jpg in batch twice"
    assert rows == [
        ("other", "dropped", same),
        ("twice", "dropped", same),
        ("twice", "kept", None),
    ]
    assert tables.read(home, "faces").height == 6


def test_ingest__changed_file(home: Home, tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", frames=10)
    name = batches.create(home, [str(path)], batch="one")
    ingest(home, name)
    video(path, frames=14)
    os.utime(path, ns=(1, 1))
    assert ingest(home, name)[0].done == 1
    assert tables.read(home, "videos")["video_id"].n_unique() == 2


def test_ingest__sidecar_values(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "declared"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(CARPHONE.read_bytes())
    (folder / "videos.csv").write_text(
        "\ufefffile_name,subject_id,licence,consent,source\nclip.mp4,ada,CC-BY-4.0,written,lab 3\n"
    )
    ingest(home, batches.create(home, [str(folder)]))
    row = tables.read(home, "videos").row(0, named=True)
    assert (row["subject_id"], row["licence"], row["consent"], row["source"]) == (
        "ada", "CC-BY-4.0", "written", "lab 3",
    )  # fmt: skip
    assert tables.read(home, "tracks")["subject_id"].unique().to_list() == ["ada"]


def test_ingest__crops_of_kept_and_dropped_faces(home: Home) -> None:
    ingest(home, batches.create(home, [str(CARPHONE)], batch="one"))
    faces = tables.read(home, "faces")
    assert faces.height == 20
    for row in faces.iter_rows(named=True):
        assert media.load(home, row["crop"]).shape == (224, 224, 3)
        assert max(media.load(home, row["context"]).shape) <= 448


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("videos.csv", "nom,subject\na.mp4,ada\n", "lacks a column file_name"),
        ("videos.csv", b"\xff\x00bad", "UTF-8"),
        ("sources.jsonl", '{"uri": "/a.mp4"}\n{broken\n', "line 2"),
        ("sources.jsonl", "[1, 2]\n", "line 1"),
    ],
)
def test_ingest__unreadable_sidecar(home: Home, file: str, text: str | bytes, said: str) -> None:
    folder = home.inbox / "bad"
    folder.mkdir(parents=True)
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=said):
        stage.register(home, "bad", workers=1)


def test_ingest__subfolders(home: Home, tmp_path: Path) -> None:
    for sub in ("left", "right"):
        (tmp_path / "top" / sub).mkdir(parents=True)
        video(tmp_path / "top" / sub / "clip.mp4", frames=4 if sub == "left" else 6)
    name = batches.create(home, [str(tmp_path / "top")])
    listing = (home.inbox / name / "sources.jsonl").read_text()
    names = [json.loads(text)["file_name"] for text in listing.splitlines()]
    assert names == ["left/clip.mp4", "right/clip.mp4"]
    stage.register(home, name, workers=1)
    assert tables.read(home, "videos").height == 2
