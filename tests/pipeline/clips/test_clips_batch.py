"""Find the clips of a batch: rows, sound, words, videos."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pytest

from annotation import raters
from annotation.raters.batch import rate_batch
from pipeline.clips import batch as stage
from pipeline.ingest import batches
from pipeline.ingest import register as faces
from pipeline.reporting import clip_curves
from tests.media_files import CARPHONE, pattern
from tests.pipeline.clips.videos_with_sound import beeping
from warehouse.privacy import erase
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import AU_INDEX

SRT = "1\n00:00:01,000 --> 00:00:01,400\nwell\n\n2\n00:00:03,500 --> 00:00:03,900\nlater\n"
TRACKS = ("aaaaaaaaaaaaaaaa-0000", "aaaaaaaaaaaaaaaa-0001", "aaaaaaaaaaaaaaaa-0002")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One video of 4 s with a beep at 1 s and three tracks."""
    home = Home.at(tmp_path / "home")
    path = beeping(tmp_path / "film.mp4", seconds=4, beep=(1.0, 1.5), draw=lambda now: pattern(0))
    write(home, "videos", [video(path)])
    subjects = {TRACKS[0]: "ann", TRACKS[1]: "bob", TRACKS[2]: "cid"}
    tracks = [
        {"track_id": t, "video_id": t[:16], "batch": "b", "subject_id": s, "start_s": 0.0}
        for t, s in subjects.items()
    ]
    write(home, "tracks", tracks)
    found = [face(t, n) for t in TRACKS[:2] for n in range(20)] + [
        face(TRACKS[2], n) for n in (0, 1)
    ]
    write(home, "faces", found)
    write(home, "ratings", [rating(row, smiles=row["track_id"] == TRACKS[0]) for row in found])
    return home


def write(home: Home, name: str, rows: list[dict[str, Any]]) -> None:
    whole = [{column: row.get(column) for column in TABLES[name].columns} for row in rows]
    frame = pl.DataFrame(whole, schema=TABLES[name].schema)
    tables.write(home, name, frame, part="aaaaaaaaaaaaaaaa", batch="b")


def video(path: Path) -> dict[str, Any]:
    return {
        "video_id": "aaaaaaaaaaaaaaaa", "uri": str(path), "batch": "b", "duration_s": 4.0,
        "has_audio": True, "verdict": "kept", "sha256": "a" * 64, "width": 160, "height": 120,
    }  # fmt: skip


def face(track: str, number: int) -> dict[str, Any]:
    return {
        "face_id": f"{track}-{2 * number}", "track_id": track, "video_id": track[:16],
        "batch": "b", "time_s": number / 5, "bbox": [40.0 + 30 * int(track[-1]), 40.0, 24.0, 30.0],
        "verdict": "kept",
    }  # fmt: skip


def rating(row: dict[str, Any], *, smiles: bool) -> dict[str, Any]:
    """Rate AU12 with a movement from 0.6 to 1.8 s if the face smiles."""
    au = np.full(24, 0.1)
    if smiles:
        au[AU_INDEX[12]] += np.interp(row["time_s"], [0.6, 1.2, 1.8], [0, 0.7, 0], left=0, right=0)
    shares = [0.2, 0.8] if au.max() > 0.5 else [0.8, 0.2]
    return {
        "face_id": row["face_id"], "rater_id": "machine-x", "batch": "b", "au": au.tolist(),
        "expression": shares + [0.0] * 6, "open_set": [0.0, 0.0], "feature": [0.0] * 256,
    }  # fmt: skip


def found(home: Home) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in tables.read(home, "clips").iter_rows(named=True)}


def test_find_clips__verdict_per_track_and_times(home: Home) -> None:
    assert stage.find_clips(home, "b", stage.ClipOptions()) == 1
    rows = found(home)
    assert {clip: (row["verdict"], row["reason"]) for clip, row in rows.items()} == {
        f"{TRACKS[0]}-c0": ("kept", None),
        f"{TRACKS[1]}-c0": ("dropped", "no_movement"),
        f"{TRACKS[2]}-c0": ("dropped", "too_short"),
    }
    clip = rows[f"{TRACKS[0]}-c0"]
    assert clip["apex_s"] == pytest.approx(1.2)
    assert clip["apex_face_id"] == f"{TRACKS[0]}-12"
    assert (clip["apex_au"], clip["apex_expression"]) == (12, "happiness")
    assert 0.4 <= clip["onset_s"] < clip["apex_s"] < clip["offset_s"] <= 2.0
    assert clip["start_s"] <= clip["onset_s"] - 0.3
    assert clip["end_s"] >= clip["offset_s"] + 0.3
    assert (clip["sound"], clip["words"]) == (None, None)
    assert "AU12" in svg(home)
    assert stage.find_clips(home, "b", stage.ClipOptions()) == 0


def svg(home: Home) -> str:
    markdown = clip_curves.curves(home, tables.read(home, "clips"))
    return base64.b64decode(markdown.split(",")[1][:-1]).decode()


def test_find_clips__sound_and_words(home: Home, tmp_path: Path) -> None:
    (tmp_path / "film.srt").write_text(SRT)
    options = stage.ClipOptions(keep_audio=True)
    assert stage.find_clips(home, "b", options) == 1
    clip = found(home)[f"{TRACKS[0]}-c0"]
    assert [one["text"] for one in clip["words"]] == ["well"]
    with av.open(str(home.media / clip["sound"])) as container:
        heard = np.concatenate([part.to_ndarray().ravel() for part in container.decode(audio=0)])
    assert len(heard) == pytest.approx(16_000 * (clip["end_s"] - clip["start_s"]), abs=2)
    loud = np.flatnonzero(np.abs(heard) > 3000)[[0, -1]] / 16_000 + clip["start_s"]
    assert loud == pytest.approx([1.0, 1.5], abs=0.03)
    # A changed transcript changes the words; without the option the sound is removed.
    (tmp_path / "film.srt").write_text(SRT.replace("well", "good"))
    assert stage.find_clips(home, "b", stage.ClipOptions()) == 1
    clip = found(home)[f"{TRACKS[0]}-c0"]
    assert [one["text"] for one in clip["words"]] == ["good"]
    assert clip["sound"] is None
    assert list((home.media / "sound").iterdir()) == []


def test_find_clips__damaged_transcript(home: Home, tmp_path: Path) -> None:
    (tmp_path / "film.json").write_text("{")
    stage.find_clips(home, "b", stage.ClipOptions())
    clip = found(home)[f"{TRACKS[0]}-c0"]
    assert (clip["verdict"], clip["words"]) == ("kept", None)
    assert clip["reason"].startswith("bad_transcript")


def hear(samples: np.ndarray, rate: int) -> list[dict[str, Any]]:
    """A recogniser: one word for what is loud."""
    loud = np.flatnonzero(np.abs(samples) > 0.1) / rate
    return [{"start": loud[0], "end": loud[-1], "text": "beep"}]


def deaf(samples: np.ndarray, rate: int) -> list[dict[str, Any]]:
    raise RuntimeError("out of memory")


def test_find_clips__recogniser(home: Home) -> None:
    stage.find_clips(home, "b", stage.ClipOptions(speech=f"{__name__}:hear"))
    (said,) = found(home)[f"{TRACKS[0]}-c0"]["words"]
    assert said["text"] == "beep"
    assert said["start_s"] == pytest.approx(1.0, abs=0.03)
    assert not (home.media / "sound").exists()
    stage.find_clips(home, "b", stage.ClipOptions(speech=f"{__name__}:deaf"))
    assert "out of memory" in found(home)[f"{TRACKS[0]}-c0"]["reason"]


def test_find_clips__videos_without_erased_subjects(home: Home) -> None:
    options = stage.ClipOptions(movies=True, keep_audio=True)
    stage.find_clips(home, "b", options)
    names = {path.name for path in (home.media / "clips").iterdir()}
    assert names == {f"{track}.webm" for track in TRACKS}
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    # The video shows her beside the others: what would show or let hear her is gone for good.
    assert not list((home.media / "clips").iterdir())
    assert not list((home.media / "sound").iterdir())
    stage.find_clips(home, "b", options)
    assert not list((home.media / "clips").iterdir())
    assert {row["track_id"] for row in found(home).values()} == set(TRACKS[1:])


def test_find_clips__dropped_video(home: Home) -> None:
    stage.find_clips(home, "b", stage.ClipOptions(movies=True, keep_audio=True))
    dropped = tables.read(home, "videos").with_columns(verdict=pl.lit("dropped"))
    tables.write(home, "videos", dropped, part="aaaaaaaaaaaaaaaa", batch="b")
    assert stage.find_clips(home, "b", stage.ClipOptions()) == 0
    assert tables.read(home, "clips").is_empty()
    assert not [path for path in home.media.rglob("*") if path.is_file()]


def test_clip_frames__kept_faces_in_order(home: Home) -> None:
    stage.find_clips(home, "b", stage.ClipOptions())
    identities = [{"face_id": f"{TRACKS[0]}-12", "subject_id": "ann", "method": "declared"}]
    frame = pl.DataFrame(
        [{c: row.get(c) for c in TABLES["identities"].columns} for row in identities],
        schema=TABLES["identities"].schema,
    )
    tables.write(home, "identities", frame, part="current")
    row = views.query(home, "SELECT * FROM clip_frames").row(0, named=True)
    assert row["times"] == sorted(row["times"])
    assert row["times"][0] == row["start_s"]
    assert row["times"][-1] == row["end_s"]
    assert len(row["face_ids"]) == len(row["crops"]) == len(row["au"]) == len(row["times"])
    assert row["subject_id"] == "ann"


def test_find_clips__real_video(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    name = batches.create(home, [str(CARPHONE)], batch="real")
    faces.register(home, name, workers=1)
    faces.find_faces(home, name, faces.FaceOptions(), workers=1)
    rate_batch(home, name, raters.load())
    stage.find_clips(home, name, stage.ClipOptions(movies=True))
    rows = tables.read(home, "clips")
    kept = rows.filter(pl.col("verdict") == "kept")
    assert kept.height >= 1
    assert kept["apex_intensity"].min() >= 0.25
    (path,) = (home.media / "clips").iterdir()
    assert path.stem == rows["track_id"][0]
