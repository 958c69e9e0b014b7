"""Damaged files get one verdict each and do not affect others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.faces import quality
from pipeline.faces.extract import extract
from pipeline.ingest import register as stage
from tests import media_files
from warehouse.storage import tables
from warehouse.storage.home import Home

EXPECTED = {
    "picture.mp4": ("kept", None),
    "plain.mkv": ("dropped", "no_face"),
    # Its bytes are those of plain.mkv.
    "video.jpg": ("dropped", "duplicate"),
    "noise.mp4": ("failed", "not_media"),
    "zeros.mkv": ("failed", "not_media"),
    "sound.mp4": ("failed", "no_video_stream"),
    "no-frames.mkv": ("failed", "not_media"),
    "back.ts": ("dropped", "no_face"),
    "sizes.ts": ("dropped", "no_face"),
    "tilted.mp4": ("dropped", "no_face"),
    "flat.mp4": ("dropped", "no_face"),
    "laced.mkv": ("dropped", "no_face"),
    "laced.ts": ("dropped", "no_face"),
    "deep.mkv": ("dropped", "no_face"),
    "alpha.mkv": ("dropped", "no_face"),
    "hevc.mkv": ("dropped", "no_face"),
    "minutes.mkv": ("dropped", "no_face"),
    "8k.mkv": ("dropped", "no_face"),
    "deep.png": ("dropped", "no_face"),
    "fonts.png": ("dropped", "no_face"),
    "ten-hours.mkv": ("failed", "truncated"),
}
"""What must come of the files whose end is certain; of the others only that there is one."""


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, str]]:
    home = Home.at(tmp_path_factory.mktemp("damaged"))
    made = media_files.corpus(home.inbox / "odd")
    stage.register(home, "odd", workers=1)
    stage.find_faces(home, "odd", stage.FaceOptions(sample_fps=2.0), workers=1)
    return home, made


def test_find_faces__verdict_per_damaged_file(ingested: tuple[Home, dict[str, str]]) -> None:
    home, made = ingested
    rows = tables.read(home, "videos")
    names = [Path(uri).name for uri in rows["uri"]]
    assert sorted(names) == sorted(made)
    assert set(rows["verdict"]) <= {"kept", "dropped", "failed"}
    for name, verdict, reason in zip(names, rows["verdict"], rows["reason"], strict=True):
        if verdict != "kept":
            code, _, sentence = reason.partition(": ")
            assert code.isidentifier(), name
            assert len(sentence) > 10, name
            assert code not in ("crashed", "timeout"), (name, reason)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_find_faces__reason_per_damaged_file(
    ingested: tuple[Home, dict[str, str]], name: str
) -> None:
    rows = tables.read(ingested[0], "videos")
    (row,) = [row for row in rows.iter_rows(named=True) if Path(row["uri"]).name == name]
    verdict, code = EXPECTED[name]
    found = (row["reason"] or "").split(":")[0] or None
    assert (row["verdict"], found) == (verdict, code), row["reason"]


def test_find_faces__damaged_video_keeps_faces(ingested: tuple[Home, dict[str, str]]) -> None:
    home, _ = ingested
    rows = tables.read(home, "videos").with_columns(name=pl.col("uri").str.split("/").list.last())
    bodies = rows.filter(pl.col("name").str.starts_with("body-"))
    assert bodies.height == 4
    # The first third of the pictures is whole.
    assert set(bodies["verdict"]) == {"kept"}
    cuts = rows.filter(pl.col("name").str.starts_with("cut-"))
    assert cuts.height == 10
    assert not cuts.filter(pl.col("verdict") == "kept").height


def test_find_faces__crowd_and_half_faces(ingested: tuple[Home, dict[str, str]]) -> None:
    home, _ = ingested
    faces = tables.read(home, "faces")
    names = tables.read(home, "videos").select(
        "video_id", name=pl.col("uri").str.split("/").list.last()
    )
    count = Counter(faces.join(names, on="video_id")["name"])
    assert count["crowd.jpg"] >= 30
    assert count["half-faces.png"] >= 1
    assert faces["face_id"].is_unique().all()
    assert faces.filter((pl.col("verdict") != "kept") & pl.col("reason").is_null()).is_empty()


class Crowd:
    """Detector that returns 300 faces in a grid for every image."""

    name = "crowd"

    def detect(self, image: np.ndarray, max_num: int = 0) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        x, y = (part.ravel() for part in np.meshgrid(np.arange(20), np.arange(15)))
        step = np.array([width / 20, height / 15])
        corner = np.stack([x, y], axis=1) * step
        score = np.full((300, 1), 0.9)
        boxes = np.hstack([corner, corner + 0.8 * step, score]).astype(np.float32)
        five = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])
        points = corner[:, None] + five[None] * 0.8 * step
        return boxes, points.astype(np.float32)

    def detect_near(self, *asked: object, **how: object) -> list[tuple[np.ndarray, np.ndarray]]:
        raise AssertionError("a look at the whole picture costs less than 300 looks")


def test_extract__three_hundred_faces(tmp_path: Path) -> None:
    path = media_files.coded(
        tmp_path / "crowd.mkv", media_files.patterns(3, height=480, width=640), codec="mpeg4"
    )
    found = extract(
        str(path), video_id="v" * 16, batch="b", subject_id=None, detector=Crowd(),
        gate=quality.Gate(), fps=10.0, save=lambda kind, image: kind, blur_bystanders=False,
    )  # fmt: skip
    assert found.faces.height == 900
    assert found.tracks.height == 300
    assert set(found.tracks["n_frames"]) == {3}
