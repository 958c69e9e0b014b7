"""Config ``clips``: loading, splits, and erasure of a subject."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import polars as pl
import pytest

from tests.warehouse import people_home as people
from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.privacy import erase
from warehouse.releases import clips
from warehouse.releases.clips import CLIPS
from warehouse.storage import atomic, media, tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

Inputs = Callable[..., dict[str, Any]]
WORDS = [{"start_s": 0.1, "end_s": 0.4, "text": "well"}]


def sequences(home: Home, rows: pl.DataFrame, *, sound: bool = False) -> pl.DataFrame:
    """One clip per video of ``rows``: all its faces, the apex at the second."""
    made = []
    for (video,), part in rows.sort("face_id").partition_by("video_id", as_dict=True).items():
        times = part["time_s"].sort().to_list()
        clip = f"{part['track_id'][0]}-c0"
        made.append(
            dict.fromkeys(CLIPS) | {
                "clip_id": clip, "video_id": video, "track_id": part["track_id"][0],
                "subject_id": part["subject_id"][0], "start_s": times[0], "end_s": times[-1],
                "onset_s": None, "apex_s": times[1], "offset_s": times[-1] + 0.01, "apex_au": 12,
                "apex_intensity": 0.5, "apex_expression": "surprise",
                "face_ids": part["face_id"].to_list(), "times": times,
                "crops": part["crop"].to_list(), "au": part["au"].to_list(),
                "sound": heard(home, clip) if sound and video.endswith("ann") else None,
                "words": WORDS, "source": "real", "licence": "CC-BY-4.0",
            }
        )  # fmt: skip
    return pl.DataFrame(made, schema=CLIPS)


def heard(home: Home, clip: str) -> str:
    """A tenth of a second of a rising tone as ``sound/<clip>.flac``."""
    data = io.BytesIO()
    samples = (8000 * np.sin(np.arange(1600) ** 1.5 / 90)).astype(np.int16)
    with av.open(data, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "mono")
        frame.sample_rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    atomic.write_bytes(home.media / "sound" / f"{clip}.flac", data.getvalue())
    return f"sound/{clip}.flac"


def decoded(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        return np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])


def test_clips__load(home: Home, inputs: Inputs, tmp_path: Path) -> None:
    import datasets

    given = inputs(home)
    made = sequences(home, given["rows"], sound=True)
    release = releases.build(home, **given, sequences=made, clip_flow="dis")
    faces = datasets.load_dataset(str(release.path), cache_dir=str(tmp_path / "cache"))
    moving = datasets.load_dataset(str(release.path), "clips", cache_dir=str(tmp_path / "cache"))
    where = {row["video_id"]: split for split, part in faces.items() for row in part}
    rows = {row["clip_id"]: (split, row) for split, part in moving.items() for row in part}
    assert rows.keys() == set(made["clip_id"])
    asked = {row["clip_id"]: row for row in made.to_dicts()}
    for clip, (split, row) in rows.items():
        assert split == where[row["video_id"]]
        assert [frame.size for frame in row["frames"]] == [(48, 48)] * len(row["times"])
        first = np.asarray(row["frames"][0])
        assert np.array_equal(first, media.load(home, asked[clip]["crops"][0]))
        assert row["face_ids"] == asked[clip]["face_ids"]
        assert np.shape(row["au"]) == (len(row["times"]), len(ACTION_UNITS))
        assert (row["onset"], row["apex"], row["offset"]) == (None, 1, None)
        assert EXPRESSIONS[row["apex_expression"]] == "surprise"
        assert row["words"] == WORDS
        assert len(row["flow"]) == len(row["frames"]) - 1
        assert (row["audio"] is not None) == clip.startswith("video-ann")
    sound = rows["video-ann-0000-c0"][1]["audio"]["bytes"]
    assert len(decoded(sound)) == 1600
    assert datasets.Audio(sampling_rate=16_000, decode=False) == moving["train"].features["audio"]
    assert releases.verify(release.path) == []
    assert releases.leaks(release.path) == []
    assert set(releases.load("faces", home=home, config="clips")) == set(moving)
    card = (release.path / "README.md").read_text()
    assert "has 4 clips of 20 frames" in card
    assert "16 kHz mono FLAC" in card


def test_clips__reproducible(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    made = sequences(home, given["rows"], sound=True)
    first = releases.build(home, **given, sequences=made)
    assert not releases.build(home, **given, sequences=made.reverse()).created
    other = given | {"name": "twin"}
    twin = releases.build(home, **other, sequences=made)
    for file in (first.path / "clips").iterdir():
        assert file.read_bytes() == (twin.path / "clips" / file.name).read_bytes()
    # Another sound under the same name is another input.
    atomic.write_bytes(home.media / made.filter(pl.col("sound").is_not_null())["sound"][0], b"flac")
    assert releases.build(home, **given, sequences=made).version == "v2"


@pytest.mark.parametrize("none", [None, pl.DataFrame(schema=CLIPS)])
def test_clips__none(home: Home, inputs: Inputs, none: Any) -> None:
    given = inputs(home)
    release = releases.build(home, **given, sequences=none)
    assert not (release.path / "clips").exists()
    assert "clips" not in releases.show(home, name="faces")["inputs"]
    assert not releases.build(home, **given).created
    with pytest.raises(ReleaseError, match="faces v1 has no such config"):
        releases.load("faces", home=home, config="clips")


def test_clips__subject_left_out(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    withdrawn = pl.when(pl.col("subject_id") == "bob").then(pl.lit("withdrawn"))
    given["rows"] = given["rows"].with_columns(consent=withdrawn)
    made = sequences(home, given["rows"])
    release = releases.build(home, **given, sequences=made)
    loaded = releases.load("faces", home=home, config="clips")
    assert {row["subject_id"] for part in loaded.values() for row in part} == {"ann", "cid", "dee"}
    # Data of the subject without consent does not change the release either.
    fewer = made.filter(pl.col("subject_id") != "bob")
    assert not releases.build(home, **given, sequences=fewer).created
    assert b"bob" not in (release.path / "manifest.json").read_bytes()


def test_clips__two_splits(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    made = sequences(home, given["rows"])
    split_of = {}
    releases.build(home, **given, sequences=made)
    for split, part in releases.load("faces", home=home).items():
        split_of |= dict.fromkeys(part["subject_id"], split)
    apart = [name for name, split in split_of.items() if split != split_of["ann"]]
    twin = given["rows"].filter(pl.col("subject_id") == apart[0])["face_id"][0]
    torn = given["rows"].with_columns(
        duplicate_of=pl.when(pl.col("face_id") == "ann-0000-0").then(pl.lit(twin))
    )
    releases.build(home, **given | {"rows": torn}, sequences=made)
    loaded = releases.load("faces", home=home, config="clips")
    shown = {row["subject_id"] for part in loaded.values() for row in part}
    assert len(shown) == 3
    assert not {"ann", apart[0]} <= shown


def test_clips__near_duplicates() -> None:
    names = {"a": ("train", ["g"]), "b": ("train", ["g", "h"]), "c": ("test", ["g"]),
             "d": ("test", ["h"]), "e": ("test", None), "f": ("test", [])}  # fmt: skip
    given = [
        dict.fromkeys(CLIPS) | {"clip_id": clip, "video_id": clip, "near_groups": groups}
        for clip, (_, groups) in names.items()
    ]
    rows = pl.DataFrame({"video_id": list(names), "split": [split for split, _ in names.values()]})
    conflicts = pl.DataFrame(schema={"face_id": pl.String})
    left = clips.assign_splits(pl.DataFrame(given, schema=CLIPS), rows, conflicts)
    # Of g two are in train, of h one each: the first split by name keeps it.
    assert dict(left.select("clip_id", "split").iter_rows()) == {
        "a": "train", "d": "test", "e": "test", "f": "test",
    }  # fmt: skip


@pytest.mark.parametrize("method", clips.FLOW_METHODS)
def test_flow__displacement(method: str) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (112, 112), dtype=np.uint8)
    still = cv2.GaussianBlur(noise, (0, 0), 3)
    moved = np.roll(still, (1, 2), axis=(0, 1))
    frames = [cv2.imencode(".png", image)[1].tobytes() for image in (still, moved, moved)]
    first, second = (
        clips.flow_displacement(cv2.imdecode(np.frombuffer(data, np.uint8), 1)[:, :, ::-1])
        for data in clips.flow_images(frames, method)
    )
    assert np.median(first[:, :, 0]) == pytest.approx(2, abs=0.45)
    assert np.median(first[:, :, 1]) == pytest.approx(1, abs=0.45)
    assert np.abs(second).max() <= 0.25


def test_flow__unknown_method(home: Home, inputs: Inputs) -> None:
    with pytest.raises(ReleaseError, match="not one of dis, farneback"):
        releases.build(home, **inputs(home), clip_flow="magic")


def clips_of(home: Home) -> None:
    """Write a clip with sound and words for every track of ``people_home``."""
    faces = tables.read(home, "faces").sort("face_id")
    ratings = [
        dict.fromkeys(TABLES["ratings"].columns)
        | {"face_id": face, "rater_id": "machine-1", "batch": "day", "au": [0.5] * 24,
           "expression": [1.0] + [0.0] * 7, "open_set": [0.0, 0.0], "feature": [0.0] * 256}
        for face in faces["face_id"]
    ]  # fmt: skip
    tables.write(
        home,
        "ratings",
        pl.DataFrame(ratings, schema=TABLES["ratings"].schema),
        part="r",
        batch="day",
    )
    for (video,), part in faces.partition_by("video_id", as_dict=True).items():
        rows = []
        for (track,), mine in part.partition_by("track_id", as_dict=True).items():
            rows.append(
                dict.fromkeys(TABLES["clips"].columns) | {
                    "clip_id": f"{track}-c0", "track_id": track, "video_id": video,
                    "batch": "day", "start_s": 0.0, "end_s": 2.0, "apex_s": 1.0,
                    "apex_face_id": mine["face_id"][1], "sound": heard(home, f"{track}-c0"),
                    "words": WORDS, "verdict": "kept",
                }
            )  # fmt: skip
        frame = pl.DataFrame(rows, schema=TABLES["clips"].schema)
        tables.write(home, "clips", frame, part=str(video), batch="day")


def test_forget__clips_and_sound(home: Home) -> None:
    people.people_home(home)
    clips_of(home)
    rows = views.query(home, "SELECT * FROM curated_faces")
    votes = pl.DataFrame(
        {"face_id": rows["face_id"], "rater_id": "person-1", "rater_kind": "person"}
    ).with_columns(
        expressions=pl.lit(None, pl.List(pl.String)),
        **{name: pl.lit(None) for name in ("confidence", "valence", "arousal", "lead_time_s")},
        was_cancelled=pl.lit(False), updated_at=pl.lit(None),
    )  # fmt: skip
    made = views.query(home, "SELECT * FROM clip_frames")
    assert made["face_ids"].list.len().to_list() == [people.PER_TRACK] * 6
    releases.build(
        home, name="faces", rows=rows, votes=votes, facts={}, settings={}, code_version="test",
        sequences=made,
    )  # fmt: skip
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert done.releases == {"faces v1": "v1.1"}
    left = [
        row for part in releases.load("faces", home=home, config="clips").values() for row in part
    ]
    mixed, alone = people.video_id("mix-e"), people.video_id("bob-d")
    assert {row["subject_id"] for row in left} == {"bob", "cid"}
    heard_in = {row["video_id"]: (row["audio"], row["words"] or []) for row in left}
    # Ann's voice may be in the video that shows both; Bob's own video keeps its sound.
    assert heard_in[mixed] == (None, [])
    assert heard_in[alone][0] is not None
    assert heard_in[alone][1] == WORDS
    kept = tables.read(home, "clips")
    assert set(kept.filter(pl.col("sound").is_null())["video_id"]) == {mixed}
    assert {path.stem.split("-")[0] for path in (home.media / "sound").iterdir()} == {
        alone, people.video_id("cid-f"),
    }  # fmt: skip
    assert releases.verify(home.releases / "faces" / "v1.1") == []


def test_clips__missing_sound(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    made = sequences(home, given["rows"], sound=True)
    (home.media / "sound" / "video-ann-0000-c0.flac").unlink()
    with pytest.raises(ReleaseError, match="video-ann-0000-c0"):
        releases.build(home, **given, sequences=made)
    assert releases.list_releases(home) == []
