"""One video gives rows, verdicts and images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from pipeline.faces import detect, quality
from pipeline.faces.extract import Extraction, extract
from pipeline.video.reader import sample
from tests import media_files
from warehouse.storage.schema import TABLES

CLIPS = media_files.CARPHONE.parent


@lru_cache
def detector() -> detect.Detector:
    return detect.load()


class SavedImages:
    """Store images in memory under readable keys."""

    def __init__(self) -> None:
        self.pictures: dict[str, np.ndarray] = {}

    def __call__(self, kind: str, image: np.ndarray) -> str:
        key = f"{kind}/{len(self.pictures)}"
        self.pictures[key] = image
        return key


def run(path: Path, **given: object) -> tuple[Extraction, SavedImages]:
    saved = SavedImages()
    settings = {"gate": quality.Gate(), "fps": 5.0, "subject_id": None, **given}
    found = extract(
        str(path), video_id="v" * 16, batch="b", detector=detector(), save=saved, **settings
    )
    return found, saved


def codes(found: Extraction) -> dict[str | None, int]:
    code = found.faces["reason"].str.split(":").list.first()
    return dict(code.value_counts().iter_rows())


def test_extract__clean_video() -> None:
    found, saved = run(media_files.CARPHONE, subject_id="ada")
    assert (found.verdict, found.reason) == ("kept", None)
    assert found.faces.schema == TABLES["faces"].schema
    assert found.tracks.schema == TABLES["tracks"].schema
    assert found.faces["frame"].to_list() == list(range(0, 120, 6))
    assert codes(found) == {None: 20}
    assert found.faces["face_id"].to_list() == [f"{'v' * 16}-0000-{n}" for n in range(0, 120, 6)]
    (track,) = found.tracks.iter_rows(named=True)
    worth = pl.col("sharpness") * pl.col("detector_score")
    best = found.faces.sort(worth, descending=True)["face_id"][0]
    assert track == {
        "track_id": "v" * 16 + "-0000", "video_id": "v" * 16, "batch": "b", "start_s": 0.0,
        "end_s": pytest.approx(3.8, abs=0.01), "n_frames": 20, "best_face_id": best,
        "subject_id": "ada", "is_main": True,
    }  # fmt: skip
    assert {saved.pictures[key].shape for key in found.faces["crop"]} == {(224, 224, 3)}
    assert set(found.faces["crop"]) | set(found.faces["context"]) == set(saved.pictures)
    assert found.faces["phash"].str.contains("^[0-9a-f]{16}$").all()
    assert found.faces["yaw"].abs().max() < 20


def test_extract__compressed_video() -> None:
    found, saved = run(CLIPS / "carphone_distorted.mp4")
    assert found.verdict == "dropped"
    assert found.reason is not None
    assert found.reason.startswith(f"no_usable_face: {found.faces.height} faces, all dropped (")
    assert "kept" not in found.faces["verdict"]
    assert set(codes(found)) <= {"blurred", "low_score"}
    assert found.tracks["best_face_id"].to_list() == [None] * found.tracks.height
    assert all(key in saved.pictures for key in found.faces["crop"])


def test_extract__small_and_dark_faces() -> None:
    found, _ = run(CLIPS / "bikes.mp4")
    kept = found.faces.filter(pl.col("verdict") == "kept")
    # A runner close by, at a fifth of the light, while he is in focus.
    assert kept["frame"].to_list() == [30]
    assert kept["brightness"].item() < 60
    dropped = found.faces.filter(pl.col("verdict") == "dropped")
    assert dropped.height > 5
    assert set(dropped["reason"]) <= {"too_small", "blurred", "low_score"}


def test_extract__photo() -> None:
    found, _ = run(media_files.SIX_PEOPLE)
    assert found.verdict == "kept"
    assert found.faces.height == found.tracks.height == 6
    assert found.faces["frame"].unique().to_list() == [0]
    assert found.faces["time_s"].unique().to_list() == [0.0]
    x, y, w, h = found.faces["bbox"].to_numpy().T
    assert (w > 0).all()
    assert (h > 0).all()
    points = found.faces["keypoints"].to_numpy()
    assert ((points[:, :, 0] > x[:, None]) & (points[:, :, 0] < (x + w)[:, None])).all()
    assert ((points[:, :, 1] > y[:, None]) & (points[:, :, 1] < (y + h)[:, None])).all()


def test_extract__no_face(tmp_path: Path) -> None:
    found, saved = run(media_files.video(tmp_path / "a.mp4", frames=20, fps=10))
    assert (found.verdict, found.reason) == ("dropped", "no_face: no face in 10 sampled frames")
    assert found.faces.height == found.tracks.height == len(saved.pictures) == 0
    assert found.faces.schema == TABLES["faces"].schema
    assert found.tracks.schema == TABLES["tracks"].schema


def test_extract__truncated_video(tmp_path: Path) -> None:
    whole, _ = run(media_files.CARPHONE)
    path = tmp_path / "cut.mkv"
    remux(media_files.CARPHONE, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, _ = run(path)
    assert found.verdict == "kept"
    assert found.reason is not None
    assert found.reason.startswith("truncated: ")
    assert 0 < found.faces.height < whole.faces.height
    same = found.faces.height
    assert found.faces["frame"].to_list() == whole.faces["frame"].to_list()[:same]


def test_extract__not_media(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    found, _ = run(tmp_path / "text.mp4")
    assert found.verdict == "failed"
    assert found.reason is not None
    assert found.reason.startswith("not_media: ")


def test_extract__deterministic() -> None:
    (first, one), (second, two) = (run(media_files.CARPHONE, fps=2.0) for _ in range(2))
    assert first.faces.equals(second.faces)
    assert first.tracks.equals(second.tracks)
    assert all(np.array_equal(one.pictures[key], two.pictures[key]) for key in one.pictures)


def remux(source: Path, target: Path) -> None:
    """The same packets in another container, one that can be cut anywhere."""
    import av

    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        for packet in reading.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                writing.mux(packet)


def shots(path: Path) -> Path:
    """A face at the left, cut to another at the same place, cut to both."""
    photo = next(sample(str(media_files.SIX_PEOPLE))).image
    boxes, _ = detector().detect(photo, max_num=2)
    people = []
    for box in boxes:
        x, y = int(box[[0, 2]].mean()), int(box[[1, 3]].mean())
        part = photo[max(0, y - 120) : y + 120, max(0, x - 120) : x + 120]
        people.append(cv2.resize(part, (240, 240), interpolation=cv2.INTER_AREA))
    empty = np.full((240, 240, 3), 90, np.uint8)
    small = cv2.copyMakeBorder(
        cv2.resize(people[1], (160, 160)), 40, 40, 40, 40, cv2.BORDER_CONSTANT
    )
    scenes = [(people[0], empty), (people[1], empty), (people[0], small)]
    frames = [np.hstack(scene) for scene in scenes for _ in range(20)]
    return media_files.coded(path, frames, fps=10, options={"crf": "16"})


def test_extract__cut_and_main_track(tmp_path: Path) -> None:
    found, _ = run(shots(tmp_path / "shots.mp4"))
    tracks = found.tracks.filter(pl.col("n_frames") > 5)
    spans = [(round(a, 1), round(b, 1)) for a, b in tracks.select("start_s", "end_s").rows()]
    assert sorted(spans) == [(0.0, 1.8), (2.0, 3.8), (4.0, 5.8), (4.0, 5.8)]
    (main,) = found.tracks.filter("is_main").iter_rows(named=True)
    sizes = found.faces.filter(pl.col("verdict") == "kept").group_by("track_id").agg(
        pl.col("size_px").sum()
    )  # fmt: skip
    assert main["track_id"] == sizes.sort("size_px", descending=True)["track_id"][0]
