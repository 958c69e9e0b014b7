"""What lists say of files: other spellings, copies, unreadable consent."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import polars as pl
import pytest

from pipeline import import_dataset, importers
from pipeline.importers import samples
from pipeline.ingest import batches, manifest, metadata, names
from tests.media_files import video
from warehouse.errors import SettingsError
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.terms_of_copies import with_strictest_terms


@pytest.mark.parametrize(
    ("listed", "file"),
    [
        ("P01.MP4", "p01.mp4"),
        (unicodedata.normalize("NFC", "Zoë.mp4"), unicodedata.normalize("NFD", "Zoë.mp4")),
        ("sub\\a.mp4", "sub/a.mp4"),
        ("./a.mp4", "a.mp4"),
        ("my%20clip.mp4", "my clip.mp4"),
    ],
)
def test_list__another_spelling_is_the_same_file(tmp_path: Path, listed: str, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    (tmp_path / "videos.csv").write_text(f"file_name,consent\n{listed},no\n", encoding="utf-8")
    (source,) = manifest.list_sources(tmp_path)
    assert (source.file_name, source.consent, source.missing) == (file, "no", False)


def test_list__two_spellings_of_one_file_take_the_strictest(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    text = "file_name,consent,licence\nA.MP4,research,CC0\n./a.mp4,no,CC-BY-NC-4.0\n"
    (tmp_path / "videos.csv").write_text(text)
    (source,) = manifest.list_sources(tmp_path)
    assert source.consent == "no"
    assert source.licence == "CC-BY-NC-4.0"


@pytest.mark.parametrize(("above", "below"), [("no", ""), ("", "no"), ("no", "yes"), ("yes", "no")])
def test_list__sidecars_of_two_folders_both_hold(tmp_path: Path, above: str, below: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.mp4").write_bytes(b"x")
    (tmp_path / "videos.csv").write_text(f"file_name,consent\nsub/a.mp4,{above}\n")
    (tmp_path / "sub" / "videos.csv").write_text(f"file_name,subject,consent\na.mp4,s,{below}\n")
    (source,) = manifest.list_sources(tmp_path)
    assert (source.subject_id, source.consent) == ("s", "no")


def test_listing__and_sidecar_both_hold(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    lines = [{"uri": "a.mp4", "consent": "no"}, {"uri": "a.mp4", "licence": "CC0"}]
    (tmp_path / "sources.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "videos.csv").write_text("file_name,consent,licence\na.mp4,yes,CC-BY-NC-4.0\n")
    (source,) = manifest.list_sources(tmp_path)
    assert (source.consent, source.licence) == ("no", "CC-BY-NC-4.0")


def test_list__other_capitals_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "Videos.CSV").write_text("file_name,consent\na.mp4,no\n")
    with pytest.raises(SettingsError, match=r"Videos\.CSV.*Rename it videos\.csv"):
        manifest.list_sources(tmp_path)


ABSENT = "missing: the list names this file, but it is not there"


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("clip-1.mp4", f"{ABSENT}; did you mean clip1.mp4?"),
        ("other.mov", f"{ABSENT}; copy it"),
        ("../out.mp4", "outside: ../out.mp4 leaves the batch; name files below its folder"),
        ("/etc/hostname", "outside: /etc/hostname leaves the batch; name files below its folder"),
    ],
)  # fmt: skip
def test_list__a_name_without_a_file(tmp_path: Path, listed: str, reason: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out.mp4").write_bytes(b"x")
    (folder / "clip1.mp4").write_bytes(b"x")
    (folder / "videos.csv").write_text(f"file_name,consent\n{listed},no\n")
    rows = {s.file_name: manifest.describe(s, batch="b") for s in manifest.list_sources(folder)}
    assert (rows[listed]["verdict"], rows[listed]["reason"]) == ("failed", reason)


@pytest.mark.parametrize("uri", ["../private.png", "/etc/hostname", "sub/../../private.png"])
def test_listing__of_a_folder_names_no_file_outside(tmp_path: Path, uri: str) -> None:
    folder = tmp_path / "from elsewhere"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"x")
    (folder / "sources.jsonl").write_text(json.dumps({"uri": uri}))
    with pytest.raises(SettingsError, match="names a file outside its folder"):
        batches.create(Home.at(tmp_path / "home"), [str(folder)])
    assert not (tmp_path / "home" / "inbox").exists()


def test_pair__ambiguous_spellings_stay_apart() -> None:
    assert names.pair(["A.mp4"], ["a.mp4", "a.MP4"]) == ({}, {"A.mp4": "a.mp4"})


def test_pipe__as_a_list_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sources.jsonl")
    with pytest.raises(SettingsError, match="no regular file"):
        manifest.list_sources(tmp_path)


def test_summary__names_what_was_not_understood(tmp_path: Path) -> None:
    home, folder = Home.at(tmp_path / "home"), tmp_path / "in"
    folder.mkdir()
    (folder / "videos.csv").write_text("file_name,consent,colour\na.mp4,maybe,red\n")
    video(folder / "a.mp4", frames=2)
    row = {"video_id": "v", "uri": str(folder / "a.mp4"), "batch": "b", "consent": "maybe",
           "verdict": "kept"}  # fmt: skip
    frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
    tables.write(home, "videos", frame, part="v", batch="b")
    notes = batches.summary(home, "b").notes
    assert "videos.csv: not read: 'colour'" in notes[0]
    assert "consent 'maybe' is not understood: a.mp4 stay out of releases" in notes[1]


def test_copies__the_strictest_terms_count(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    copies = [
        ("v1", "kept", "yes", "CC0-1.0"), ("v1", "dropped", "no", "CC-BY-NC-4.0"),
        ("v2", "kept", "yes", "CC0-1.0"), ("v2", "dropped", None, "unknown"),
        ("v3", "kept", None, "unknown"), ("v3", "dropped", "research", "CC0-1.0"),
    ]  # fmt: skip
    for number, (one, verdict, consent, licence) in enumerate(copies):
        row = {"video_id": one, "uri": f"/in/{number}.mp4", "batch": "b", "sha256": one,
               "consent": consent, "licence": licence, "verdict": verdict}  # fmt: skip
        frame = pl.DataFrame([row], schema=TABLES["videos"].schema)
        tables.write(home, "videos", frame, part=f"{one}.{number}", batch="b")
    kept = tables.read(home, "videos").filter(pl.col("verdict") == "kept").sort("video_id")
    found = with_strictest_terms(home, kept)
    assert found.select("consent", "licence").rows() == [
        ("no", "CC-BY-NC-4.0"), ("yes", "CC0-1.0"), ("research", "CC0-1.0")
    ]  # fmt: skip
    (note,) = [n for n in batches.summary(home, "b").notes if "'no' and 'yes'" in n]
    assert note.startswith("copies with other terms: 0.mp4, 1.mp4 hold the same bytes")


def test_import_report__holds_the_notes_of_the_batch_too() -> None:
    summary = batches.Summary("b", [], [], notes=["copies with other terms"])
    report = import_dataset.ImportReport(summary, {}, notes=["test-retest agreement 0.50"])
    assert report.facts["notes"] == ["copies with other terms", "test-retest agreement 0.50"]


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


def test_metadata__none_is_no_vote_for_neutral(tmp_path: Path) -> None:
    found = metadata.read(write(tmp_path, "image,emotion\na.png,None\nb.png,No-Face\n"))
    assert [vote.answers for vote in found.votes] == [("unknown",), ("not_a_face",)]


def test_metadata__asked_twice_is_two_answers_in_time(tmp_path: Path) -> None:
    rows = "a.png,r1,happy,2026-01-01\na.png,r1,sad,2026-02-01\nb.png,r1,sad,2026-01-01\n"
    text = f"file_name,annotator,label,date\n{rows}b.png,r1,sad,2026-03-01\n"
    found = metadata.read(write(tmp_path, text))
    assert [(v.file_name, v.answers, v.at and v.at.month) for v in found.votes] == [
        ("a.png", ("happiness",), 1), ("a.png", ("sadness",), 2),
        ("b.png", ("sadness",), 1), ("b.png", ("sadness",), 3),
    ]  # fmt: skip
    assert any("test-retest agreement 0.50" in note for note in found.notes)


@pytest.mark.parametrize("text", ["file_name,Usage\na.png,Training\n", "file_name,label\n"])
def test_metadata__without_a_label_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="labels no image"):
        metadata.read(write(tmp_path, text))


def test_metadata__unreadable_consent_and_other_spelling_are_noted(tmp_path: Path) -> None:
    (tmp_path / "A.PNG").write_bytes(b"x")
    found = metadata.read(write(tmp_path, "file_name,label,consent\na.png,sad,perhaps\n"))
    assert found.files["A.PNG"]["consent"] == "perhaps"
    assert any("'perhaps' is not understood: 1 images" in note for note in found.notes)
    assert any("writes 'a.png' for the file 'A.PNG'" in note for note in found.notes)


def test_metadata__copies_of_a_row_take_the_strictest_terms(tmp_path: Path) -> None:
    rows = "a.png,r1,sad,yes,CC0\na.png,r2,sad,no,CC-BY-NC-4.0\n"
    found = metadata.read(write(tmp_path, f"file_name,rater,label,consent,license\n{rows}"))
    assert found.files["a.png"]["consent"] == "no"
    assert found.files["a.png"]["licence"] == "CC-BY-NC-4.0"


def test_import__a_folder_of_the_same_name_is_another_dataset(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    for name in ("one", "two"):
        folder = write(tmp_path / name / "train", "file_name,label\na.png,sad\n")
        (folder / "a.png").write_bytes(b"x")
    first, second = tmp_path / "one/train", tmp_path / "two/train"

    def read(folder: Path) -> None:
        import_dataset.spooled(
            home, folder, importers.load("metadata"), samples.Options(), batch="train"
        )

    read(first)
    read(first)
    with pytest.raises(SettingsError, match="Another dataset was imported under this name"):
        read(second)
    first.rename(tmp_path / "one/moved")
    read(second)
