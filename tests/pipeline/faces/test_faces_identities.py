"""Persons across cuts and videos, with a tiny random network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.faces import identities
from pipeline.ingest import register as stage
from tests import media_files
from warehouse.errors import ModelError
from warehouse.storage import tables
from warehouse.storage.home import Home


def network(path: Path, *, width: int = identities.EMBEDDING_SIZE, side: int = 112) -> Path:
    """A model with ArcFace's interface: means of 64 patches, mixed at random."""
    mixed = np.random.default_rng(0).normal(size=(192, width)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[side // 8] * 2,
                         strides=[side // 8] * 2),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mixed"], ["output"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(mixed, "mixed")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def crops(*seeds: int) -> np.ndarray:
    """Pictures of 8 x 8 patches, one look per seed."""
    looks = [np.random.default_rng(seed).integers(0, 256, (8, 8, 3)) for seed in seeds]
    return np.stack([np.kron(look, np.ones((28, 28, 1))) for look in looks]).astype(np.uint8)


def test_embed__normalized_and_distinct(tmp_path: Path) -> None:
    model = identities.Recogniser(network(tmp_path / "tiny.onnx"))
    vectors = model.embed(crops(1, 2, 1))
    assert vectors.shape == (3, 512)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[2])
    assert vectors[0] @ vectors[1] < identities.MIN_COSINE
    assert model.embed(np.empty((0, 224, 224, 3), np.uint8)).shape == (0, 512)


@pytest.mark.parametrize("kind", ["missing", "damaged", "narrow", "empty pack"])
def test_recogniser__invalid_model(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.onnx"
    if kind == "damaged":
        path.write_bytes(b"no model")
    elif kind == "narrow":
        network(path, width=128)
    elif kind == "empty pack":
        path = tmp_path / "pack"
        path.mkdir()
    with pytest.raises(ModelError):
        identities.Recogniser(path).embed(crops(1))


X, Y, Z = np.eye(512, dtype=np.float32)[:3]
NEAR_X = (0.9 * X + 0.3 * Y) / np.linalg.norm(0.9 * X + 0.3 * Y)


def table(*rows: tuple[str, float, str | None, np.ndarray | None]) -> pl.DataFrame:
    """Build faces from ``(track, time_s, declared, embedding)``."""
    schema = {"face_id": pl.String, "track_id": pl.String, "video_id": pl.String,
              "time_s": pl.Float64, "subject_id": pl.String,
              "embedding": pl.Array(pl.Float16, 512)}  # fmt: skip
    made = [
        {"face_id": f"{track}-{number}", "track_id": track, "video_id": track[0],
         "time_s": time_s, "subject_id": who, "embedding": None if e is None else e.tolist()}
        for number, (track, time_s, who, e) in enumerate(rows)
    ]  # fmt: skip
    return pl.DataFrame(made, schema=schema)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([], {}, id="no rows"),
        pytest.param([("a0", 0.0, None, None)], {"a0": "video-a"}, id="no embedding"),
        pytest.param(
            [("a0", 0.0, None, X), ("a1", 2.0, None, NEAR_X), ("b0", 0.0, None, X)],
            {"a0": "person-a0", "a1": "person-a0", "b0": "person-a0"}, id="across cuts and videos",
        ),
        pytest.param(
            [("a0", 0.0, None, X), ("a1", 2.0, None, Z)],
            {"a0": "person-a0", "a1": "person-a1"}, id="two people",
        ),
        pytest.param(
            [("a0", 0.0, None, X), ("a0", 1.0, None, X), ("a1", 0.5, None, X)],
            {"a0": "person-a0", "a1": "person-a1"}, id="seen at once, so not one",
        ),
        pytest.param(
            [("a0", 0.0, "ada", X), ("b0", 0.0, None, X)], {"a0": "ada", "b0": "ada"},
            id="a declared name goes to the same face elsewhere",
        ),
        pytest.param(
            [("a0", 0.0, "ada", X), ("b0", 0.0, "bob", X)], {"a0": "ada", "b0": "bob"},
            id="declared to be two",
        ),
        pytest.param(
            [("a0", 0.0, "ada", None), ("b0", 0.0, None, X)], {"a0": "ada", "b0": "person-b0"},
            id="declared without an embedding",
        ),
    ],
)  # fmt: skip
def test_group_tracks__cases(rows: list, expected: dict[str, str]) -> None:
    found = identities.group_tracks(table(*rows))
    assert dict(zip(found["track_id"], found["subject_id"], strict=True)) == expected
    turned = identities.group_tracks(table(*rows[::-1]))
    assert turned.equals(found)


@pytest.fixture(scope="module")
def two_photos(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Six people, and the same six a little darker and further left."""
    home = Home.at(tmp_path_factory.mktemp("photos"))
    home.inbox.joinpath("b").mkdir(parents=True)
    photo = cv2.imread(str(media_files.SIX_PEOPLE))
    cv2.imwrite(str(home.inbox / "b" / "one.png"), photo)
    cv2.imwrite(str(home.inbox / "b" / "two.png"), (photo[:, 20:] * 0.9).astype(np.uint8))
    stage.register(home, "b", workers=1)
    stage.find_faces(home, "b", stage.FaceOptions(), workers=1)
    return home


def by_place(home: Home, rows: pl.DataFrame) -> list[list[str]]:
    """Subjects of each photo from left to right."""
    faces = tables.read(home, "faces").join(rows, on="face_id")
    faces = faces.sort(pl.col("bbox").arr.first())
    return [part["subject_id"].to_list() for part in faces.partition_by("video_id")]


def test_identify__six_people_in_two_photos(
    two_photos: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = network(tmp_path / "tiny.onnx")
    rows = identities.identify(two_photos, weights)
    assert rows.height == 12
    assert set(rows["method"]) == {"recognised"}
    one, two = by_place(two_photos, rows)
    assert len(set(one)) == 6
    assert one == two
    assert tables.read(two_photos, "identities").equals(rows)
    # Again: what was embedded before is not embedded again.
    monkeypatch.delattr(identities.Recogniser, "embed")
    assert identities.identify(two_photos, weights).equals(rows)
    without = identities.identify(two_photos)
    assert set(without["method"]) == {"video"}
    assert without["embedding"].null_count() == 12
    assert without["subject_id"].n_unique() == 2
