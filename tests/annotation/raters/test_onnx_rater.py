from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotation import raters
from annotation.raters import Ratings
from annotation.raters.onnx_rater import OnnxRater, weights_of
from annotation.raters.preprocess import to_gray
from tests.annotation.raters.drawn_ferplus import drawn_face
from warehouse.errors import ModelError, SettingsError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

CROPS = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def rater() -> OnnxRater:
    loaded = raters.load()
    assert isinstance(loaded, OnnxRater)
    return loaded


def test_rate__shapes_and_sums(rater: OnnxRater) -> None:
    ratings = rater.rate(CROPS)
    assert len(ratings) == 3
    assert ratings.expression.shape == (3, 8)
    assert ratings.open_set.shape == (3, 2)
    assert ratings.au.shape == (3, len(ACTION_UNITS))
    assert ratings.feature.shape == (3, 256)
    arrays = (ratings.expression, ratings.open_set, ratings.au, ratings.feature)
    assert all(part.dtype == np.float32 for part in arrays)
    assert ratings.plurality.sum(axis=1) == pytest.approx(1)
    assert (ratings.plurality.argmax(axis=1) == ratings.expression.argmax(axis=1)).all()
    assert ratings.expression.sum(axis=1) == pytest.approx(1)
    assert ratings.answers.sum(axis=1) == pytest.approx(1)
    known = [AU_INDEX[unit] for unit in rater.card["action_units"]]
    assert np.isfinite(ratings.au[:, known]).all()
    assert np.isnan(np.delete(ratings.au, known, axis=1)).all()
    assert not hasattr(ratings, "valence")


def test_rate__independent_of_the_batch(rater: OnnxRater) -> None:
    many = np.concatenate([CROPS] * 30)
    alone, among = rater.rate(CROPS[:1]), rater.rate(many)
    assert np.allclose(alone.expression[0], among.expression[-3], atol=1e-5)
    assert np.array_equal(among.expression, rater.rate(many).expression)


def test_rate__mirrored_face(rater: OnnxRater) -> None:
    one, two = rater.rate(CROPS), rater.rate(np.ascontiguousarray(CROPS[:, :, ::-1]))
    assert np.allclose(one.expression, two.expression, atol=0.01)
    assert np.allclose(one.au, two.au, atol=0.01, equal_nan=True)


def test_rate__size_hardly_matters(rater: OnnxRater) -> None:
    gray = drawn_face(1.0, np.random.default_rng(0))
    large = np.kron(gray, np.ones((8, 8), np.uint8))
    small, big = (np.repeat(g[None, :, :, None], 3, axis=3) for g in (gray, large))
    assert to_gray(big, 64).shape == (1, 64, 64)
    assert np.allclose(rater.rate(small).expression, rater.rate(big).expression, atol=0.15)


@pytest.mark.parametrize("empty", [np.zeros((0, 224, 224, 3), np.uint8), np.zeros((0,), np.uint8)])
def test_rate__no_faces(rater: OnnxRater, empty: np.ndarray) -> None:
    ratings = rater.rate(empty)
    assert len(ratings) == 0
    assert ratings.answers.shape == (0, 10)


HOLES = np.where(CROPS > 250, np.nan, CROPS)


@pytest.mark.parametrize(
    ("crops", "said"),
    [
        (CROPS.astype(np.float32) / 255, "float32 values from 0.0 to 1.0"),
        (HOLES, "with NaN or infinity"),
        (CROPS.astype(np.int64), "int64 values"),
        (CROPS[0], r"one face is shape \(1, h, w, 3\)"),
        (CROPS[..., 0], "Repeat gray into three channels"),
        (CROPS[..., :1], r"shape \(3, 224, 224, 1\)"),
        (np.concatenate([CROPS, CROPS[..., :1]], axis=3), r"shape \(3, 224, 224, 4\)"),
        (CROPS[:, :5, :5], "faces of 5 x 5 px"),
        ([CROPS[0]], "numpy.stack"),
        (None, "NoneType"),
    ],
)
def test_rate__malformed_crops(rater: OnnxRater, crops: np.ndarray, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        rater.rate(crops)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for suffix in (".onnx", ".json"):
        shutil.copy(weights_of("default").with_suffix(suffix), tmp_path / f"copy{suffix}")
    return tmp_path / "copy.onnx"


def test_load__copied_weights_are_the_same_rater(copied: Path, rater: OnnxRater) -> None:
    assert raters.load(str(copied)).rater_id == rater.rater_id


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def unsigned(path: Path) -> None:
    path.with_suffix(".json").write_text("{}")


def garbage_with_a_matching_card(path: Path) -> None:
    from warehouse.ids import file_sha256

    path.write_bytes(b"no onnx")
    card = json.loads(path.with_suffix(".json").read_text())
    card["sha256"] = file_sha256(str(path))
    path.with_suffix(".json").write_text(json.dumps(card))


def edited(**changes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        card = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**card, **changes}))

    return edit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edited(side=48), "'gray': 64.* instead of .*'gray': 48"),
        (edited(action_units=[12]), "'au': 18.* instead of .*'au': 1"),
        (edited(action_units=[99]), "does not describe a rater: KeyError"),
        (edited(side=None), "does not describe a rater: TypeError"),
        (Path.unlink, "no such file"),
        (lambda path: path.with_suffix(".json").unlink(), "no such file"),
        (cut, "in 1000 bytes"),
        (flip, "does not have the SHA-256"),
        (unsigned, "copy.json cannot be read"),
        (garbage_with_a_matching_card, "weights in copy.onnx cannot be read"),
    ],
)
def test_load__damaged_weights_are_refused(copied: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    damage(copied)
    with pytest.raises(ModelError, match=said):
        raters.load(str(copied))


def test_rate__failing_device(rater: OnnxRater, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def run(self, *given: object) -> None:
            raise RuntimeError("CUDA error 209: no kernel image\nmore")

    monkeypatch.setattr(rater, "_session", Failing())
    monkeypatch.setattr(rater, "provider", "CUDAExecutionProvider")
    with pytest.raises(ModelError, match=r"failed on CUDA.*no kernel image.*CUDA_VISIBLE_DEVICES"):
        rater.rate(CROPS)


def test_import__loads_no_heavy_module() -> None:
    heavy = "torch", "onnxruntime", "cv2", "annotation.raters.onnx_rater"
    code = f"import sys, annotation.raters; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


GOOD = Ratings(
    expression=np.full((3, 8), 1 / 8, np.float32),
    open_set=np.full((3, 2), 0.1, np.float32),
    au=np.full((3, len(ACTION_UNITS)), np.nan, np.float32),
    feature=np.ones((3, 4), np.float32),
)
ANSWERS: dict[str, object] = {}


def plugged(faces: np.ndarray) -> object:
    """Return what the test put into ``ANSWERS``."""
    assert faces.dtype == np.uint8
    return ANSWERS["now"]


PLUGGED = f"{__name__}:plugged"


def test_load__callable() -> None:
    ANSWERS["now"] = GOOD
    loaded = raters.load(PLUGGED)
    ratings = loaded.rate(CROPS)
    assert ratings.feature.shape == (3, 256)
    assert ratings.feature[0].tolist() == [1] * 4 + [0] * 252
    assert loaded.rater_id.startswith("machine-")
    assert loaded.rater_id == raters.load(PLUGGED).rater_id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expression": np.full((3, 7), 1 / 7)}, r"shape \(3, 7\)"),
        ({"expression": np.full((2, 8), 1 / 8)}, r"shape \(2, 8\)"),
        ({"expression": np.full((3, 8), 0.2)}, "do not sum to 1"),
        ({"expression": np.full((3, 8), np.nan)}, "NaN or infinity"),
        ({"expression": np.eye(8)[:3] * 3 - 1}, "not within 0 and 1"),
        ({"expression": "neutral"}, "array of numbers"),
        ({"open_set": np.full((3, 2), 0.8)}, "at most 1"),
        ({"au": np.full((3, len(ACTION_UNITS)), 5.0)}, "not within 0 and 1"),
        ({"au": np.full((3, len(ACTION_UNITS)), np.inf)}, "NaN or infinity"),
        ({"feature": np.full((3, 256), np.nan)}, "NaN or infinity"),
        ({"feature": np.ones((3, 300))}, r"shape \(3, 300\)"),
        ({"feature": None}, "`feature`"),
    ],
)
def test_callable_rater__malformed_ratings(changes: dict[str, object], said: str) -> None:
    ANSWERS["now"] = replace(GOOD, **changes)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=said):
        raters.load(PLUGGED).rate(CROPS)


def test_callable_rater__not_ratings() -> None:
    ANSWERS["now"] = {"expression": 1}
    with pytest.raises(ModelError, match="array of numbers"):
        raters.load(PLUGGED).rate(CROPS)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("best", SettingsError, "RISORIUS_RATER"),
        ("no_such_module:rate", ModelError, "cannot be imported"),
        ("json:no_such", ModelError, "cannot be imported"),
        ("annotation.raters:FEATURES", ModelError, "not callable: int"),
        ("missing.onnx", ModelError, "no such file"),
    ],
)
def test_load__unknown_name(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        raters.load(name)
