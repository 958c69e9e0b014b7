"""Arguments sent to a worker: small when pickled, loaded there."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotation import raters
from annotation.raters.batch import rate_batch
from pipeline.execution import map_items
from pipeline.synthesis.service import FaceGenerator
from warehouse.storage import media, mirror, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def sent(thing: object) -> object:
    data = pickle.dumps(thing)
    assert len(data) < 2000
    return pickle.loads(data)


def test_pickle__local_home(tmp_path: Path) -> None:
    assert sent(Home.at(tmp_path)) == Home.at(tmp_path)


def test_pickle__shared_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(url: Path) -> Home:
        return Home(tmp_path / "there" / str(url).replace("/", "-"))

    home = Home(tmp_path / "here")
    (home.root / mirror._STATE).mkdir(parents=True)
    (home.root / mirror._STATE / "url").write_text("s3://bucket/home")
    assert home.__reduce__() == (Home.at, ("s3://bucket/home",))
    monkeypatch.setattr(Home, "at", at)
    assert home.__reduce__()[0](*home.__reduce__()[1]).root.parent == tmp_path / "there"


@pytest.mark.parametrize("name", ["default", "judge", "tests.pipeline.test_worker_arguments:grey"])
def test_pickle__rater(name: str) -> None:
    rater = raters.load(name)
    there = sent(rater)
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    assert there.rater_id == rater.rater_id  # type: ignore[attr-defined]
    mine, theirs = rater.rate(crops), there.rate(crops)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(mine.expression, theirs.expression)
    np.testing.assert_array_equal(mine.feature, theirs.feature)


def grey(faces: np.ndarray) -> raters.Ratings:
    n = len(faces)
    return raters.Ratings(
        expression=np.full((n, 8), 1 / 8, dtype=np.float32),
        open_set=np.zeros((n, 2), dtype=np.float32),
        au=np.full((n, len(raters.ACTION_UNITS)), np.nan, dtype=np.float32),
        feature=faces.reshape(n, -1)[:, :256].astype(np.float32),
    )


def test_pickle__generator_without_networks(tmp_path: Path) -> None:
    maker = FaceGenerator(name=str(tmp_path), num_inference_steps=2, guidance_scale=3.5)
    maker._loaded["pipeline"] = bytes(10_000)
    there = sent(maker)
    assert there == maker
    assert there._loaded == {}  # type: ignore[attr-defined]


def broken(video: pl.DataFrame, **_: object) -> int:
    raise ValueError("no")


def test_rate__workers_match_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    for name, each in (("here", None), ("workers", partial(map_items, workers=2))):
        home = Home.at(tmp_path / name)
        for number in range(3):
            image = np.random.default_rng(number).integers(0, 256, (224, 224, 3), dtype=np.uint8)
            row = {"face_id": f"f{number}", "video_id": f"v{number}", "batch": "b"}
            row |= {"verdict": "kept", "crop": media.store(home, "crops", image)}
            frame = pl.DataFrame([row], schema=TABLES["faces"].schema)
            tables.write(home, "faces", frame, part=f"v{number}", batch="b")
        said: list[tuple[int, int]] = []
        rater = raters.load()
        count = rate_batch(
            home, "b", rater, each=each, progress=lambda *to, said=said: said.append(to)
        )
        assert count == 3
        assert said == [(1, 3), (2, 3), (3, 3)]
        assert rate_batch(home, "b", rater, each=each) == 0
        frames.append(tables.read(home, "ratings").sort("face_id"))
    assert frames[0].equals(frames[1])
    monkeypatch.setattr("annotation.raters.batch._rate_and_write", broken)
    tables.remove(home, "ratings", part="v1", batch="b")
    with pytest.raises(ValueError, match="no"):
        rate_batch(home, "b", rater)
