"""Rate a batch with the shipped rater."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotation import raters
from annotation.raters.batch import rate_batch
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path)


@pytest.fixture(scope="module")
def rater() -> raters.Rater:
    return raters.load("default")


def write_faces(home: Home, video: str, verdicts: list[str], *, shade: int = 0) -> None:
    noise = np.random.default_rng(shade)
    rows = []
    for number, verdict in enumerate(verdicts):
        picture = noise.integers(0, 255, (224, 224, 3), dtype=np.uint8)
        face = dict.fromkeys(TABLES["faces"].columns) | {
            "face_id": f"{video}-0000-{number}",
            "track_id": f"{video}-0000",
            "video_id": video,
            "batch": "one",
            "crop": media.store(home, "crops", picture),
            "verdict": verdict,
        }
        rows.append(face)
    frame = pl.DataFrame(rows, schema=TABLES["faces"].schema)
    tables.write(home, "faces", frame, part=video, batch="one")


def test_rate_batch__kept_faces_are_rated_once(home: Home, rater: raters.Rater) -> None:
    write_faces(home, "a", ["kept", "dropped", "kept"])
    write_faces(home, "b", ["dropped"], shade=1)
    assert rate_batch(home, "one", rater) == 2
    rated = tables.read(home, "ratings")
    assert rated["face_id"].to_list() == ["a-0000-0", "a-0000-2"]
    assert rated["expression"].arr.sum().to_list() == pytest.approx([1, 1], abs=1e-5)
    assert rated["rater_id"].unique().to_list() == [rater.rater_id]


def test_rate_batch__second_call_rates_nothing(home: Home, rater: raters.Rater) -> None:
    write_faces(home, "a", ["kept"] * 3)
    rate_batch(home, "one", rater)
    before = tables.read(home, "ratings")
    assert rate_batch(home, "one", rater) == 0
    assert tables.read(home, "ratings").equals(before)


def test_rate_batch__changed_crops_are_rated_again(home: Home, rater: raters.Rater) -> None:
    write_faces(home, "a", ["kept"])
    rate_batch(home, "one", rater)
    before = tables.read(home, "ratings")
    write_faces(home, "a", ["kept"], shade=7)
    assert rate_batch(home, "one", rater) == 1
    assert not tables.read(home, "ratings").equals(before)


def test_rate_batch__no_kept_faces_removes_ratings(home: Home, rater: raters.Rater) -> None:
    write_faces(home, "a", ["kept"])
    rate_batch(home, "one", rater)
    write_faces(home, "a", ["dropped"])
    assert rate_batch(home, "one", rater) == 0
    assert tables.read(home, "ratings").is_empty()


def test_rate_batch__missing_crop_stays_unrated(home: Home, rater: raters.Rater) -> None:
    write_faces(home, "a", ["kept"] * 3)
    lost = tables.read(home, "faces").row(1, named=True)
    media.path_of(home, lost["crop"]).unlink()
    assert rate_batch(home, "one", rater) == 2
    assert lost["face_id"] not in tables.read(home, "ratings")["face_id"].to_list()
