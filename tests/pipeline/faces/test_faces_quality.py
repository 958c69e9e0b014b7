"""Quality measures of a face, and reasons for dropping it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.faces import align, detect
from pipeline.faces.align import Pose
from pipeline.faces.quality import Gate, Measures, blockiness, measure, sharpness
from pipeline.video.reader import sample
from tests import media_files

GOOD = Measures(
    score=0.9,
    size_px=80.0,
    sharpness=3.0,
    brightness=120.0,
    pose=Pose(5.0, -5.0, 0.0),
    cut=0.0,
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"cut": 0.2}, "border: part of the face is outside the image"),
        ({"size_px": 23.4}, "too_small: 23 px, at least 32 wanted"),
        ({"size_px": 32.0}, None),
        ({"score": 0.55}, "low_score: detector 0.55, at least 0.60 wanted"),
        ({"brightness": 12.0}, "too_dark: 12, at least 40 wanted"),
        ({"brightness": 250.0}, "too_bright: 250, at most 225 wanted"),
        ({"sharpness": 0.8}, "blurred: 0.80, at least 1.25 wanted"),
        ({"clipped": 0.6}, "clipped: 60% of it is black or white, at most 40% wanted"),
        ({"blockiness": 3.14}, "blocky: 3.1, at most 2.5 wanted"),
        ({"blockiness": 1.2}, None),
        ({"pose": Pose(-75.0, 3.0, 0.0)}, "turned_away: yaw -75, pitch 3 degrees"),
        ({"pose": Pose(0.0, 70.0, 0.0)}, "turned_away: yaw 0, pitch 70 degrees"),
        # The alignment removes roll.
        ({"pose": Pose(0.0, 0.0, 80.0)}, None),
        # The first reason in the list counts.
        ({"size_px": 10.0, "sharpness": 0.1}, "too_small: 10 px, at least 32 wanted"),
    ],
)
def test_gate__reasons(change: dict, reason: str | None) -> None:
    verdict = ("dropped", reason) if reason else ("kept", None)
    assert Gate().check(replace(GOOD, **change)) == verdict


def test_gate__thresholds() -> None:
    assert Gate(min_size_px=100.0).check(GOOD)[0] == "dropped"
    assert Gate(min_sharpness=0.0).check(replace(GOOD, sharpness=0.1))[0] == "kept"


def best_face(image: np.ndarray) -> Measures:
    boxes, keypoints = detect.load().detect(image, max_num=1)
    return measured(image, box=boxes[0], keypoints=keypoints[0])


def measured(image: np.ndarray, *, box: np.ndarray, keypoints: np.ndarray) -> Measures:
    crop = align.align(image, keypoints)
    return measure(image, crop, box=box, keypoints=keypoints)


def test_gate__degraded_face() -> None:
    image = next(sample(str(media_files.SIX_PEOPLE))).image
    (box,), (points,) = detect.load().detect(image, max_num=1)
    spoilt = {
        None: image,
        "blurred": cv2.GaussianBlur(image, (0, 0), 4),
        "too_dark": (image * 0.1).astype(np.uint8),
        "too_bright": np.clip(image * 0.2 + 215, 0, 255).astype(np.uint8),
    }
    for code, picture in spoilt.items():
        found = measured(picture, box=box, keypoints=points)
        _, reason = Gate().check(found)
        assert (reason and reason.split(":")[0]) == code


def test_sharpness__independent_of_size() -> None:
    image = next(sample(str(media_files.SIX_PEOPLE))).image
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    large, small = best_face(image), best_face(half)
    assert small.size_px == pytest.approx(large.size_px / 2, rel=0.15)
    assert small.sharpness == pytest.approx(large.sharpness, rel=0.4)


def in_light(image: np.ndarray, share: float, *, noise: float = 0.0) -> np.ndarray:
    """Darken an image to ``share`` of the light and add sensor noise."""
    grains = np.random.default_rng(0).normal(0, noise, (*image.shape[:2], 1)) if noise else 0.0
    return np.clip(np.round(image * share + grains), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("share", [0.6, 0.4, 0.25])
def test_sharpness__independent_of_light(share: float) -> None:
    image = next(sample(str(media_files.SIX_PEOPLE))).image
    dark, least = in_light(image, share), Gate().min_sharpness
    soft = in_light(cv2.GaussianBlur(image, (0, 0), 3), share)
    for box, points in zip(*detect.load().detect(image), strict=True):
        full, dim, blurred = (
            measured(one, box=box, keypoints=points).sharpness for one in (image, dark, soft)
        )
        assert dim == pytest.approx(full, rel=0.35)
        assert blurred < least < dim


@pytest.mark.parametrize(("share", "noise"), [(1.0, 4.0), (0.4, 2.0), (0.25, 2.0), (0.25, 4.0)])
def test_sharpness__noise(share: float, noise: float) -> None:
    image = next(sample(str(media_files.SIX_PEOPLE))).image
    boxes, keypoints = detect.load().detect(image)
    soft = in_light(cv2.GaussianBlur(image, (0, 0), 3), share, noise=noise)
    found = [
        measured(soft, box=box, keypoints=points).sharpness
        for box, points in zip(boxes, keypoints, strict=True)
    ]
    # The noise estimate uses a thousand pixels; one of six may pass.
    assert sum(value >= Gate().min_sharpness for value in found) <= 1
    assert np.median(found) < 0.7 * Gate().min_sharpness


def test_sharpness__synthetic_images() -> None:
    flat, noise = np.full((48, 48), 90), np.random.default_rng(0).normal(90, 12, (48, 48))
    assert sharpness(flat.astype(np.uint8)) == 0.0
    # All noise: nothing is left once its share is taken off.
    assert sharpness(noise.astype(np.uint8)) < 1.0
    lines = np.full((48, 48), 60, np.uint8)
    lines[:, ::12] = lines[::12] = 200
    assert sharpness(lines) > 10.0
    # Half the light and half the contrast, from there on.
    assert sharpness(lines // 2, margin=8) == pytest.approx(sharpness(lines, margin=8), rel=0.03)
    assert sharpness(lines // 2 + 100) == pytest.approx(sharpness(lines // 2))


def test_measure__face_at_border() -> None:
    image = next(sample(str(media_files.SIX_PEOPLE))).image
    (box,), (points,) = detect.load().detect(image, max_num=1)
    cut = int((points[0, 0] + points[1, 0]) / 2)
    moved = points - [cut, 0]
    part = np.ascontiguousarray(image[:, cut:])
    found = measured(part, box=box - [cut, 0, cut, 0, 0], keypoints=moved)
    assert found.cut == pytest.approx(0.4, abs=0.21)
    assert Gate().check(found)[1] == "border: part of the face is outside the image"


def test_measure__brightness_and_size() -> None:
    points = np.array([(40, 40), (60, 40), (50, 50), (42, 60), (58, 60)], np.float32)
    image = np.full((100, 100, 3), 77, np.uint8)
    found = measured(image, box=np.array([30, 20, 70, 80, 0.75]), keypoints=points)
    assert found.brightness == pytest.approx(77, abs=1)
    assert found.size_px == pytest.approx(np.sqrt(40 * 60))
    assert found.sharpness == 0.0
    assert (found.score, found.cut) == (0.75, 0.0)


def ramp(height: int = 32, width: int = 32) -> np.ndarray:
    """Gray that rises evenly, uint8."""
    y, x = np.mgrid[0:height, 0:width]
    return (3 * x + 2 * y).astype(np.uint8)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (3, 6)])
def test_blockiness__synthetic_blocks(left: int, top: int) -> None:
    y, x = np.mgrid[top : top + 32, left : left + 32]
    blocky = (20 * (x // 8) + 20 * (y // 8)).astype(np.uint8)
    # Steps of 20 at the edges, none elsewhere; half a level is added to both.
    assert blockiness(blocky, left=left, top=top) == pytest.approx(20.5 / 0.5)
    assert blockiness(blocky, left=left + 4, top=top + 4) < 1
    assert blockiness(ramp(), left=left, top=top) == pytest.approx(1.0)
    assert blockiness(ramp(15, 40), left=0, top=0) is None


@pytest.mark.parametrize(("codec", "level"), [("mpeg4", "24"), ("mjpeg", "24")])
def test_blockiness__compressed_face(tmp_path, codec: str, level: str) -> None:  # type: ignore[no-untyped-def]
    image = next(sample(str(media_files.SIX_PEOPLE))).image[:-1]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {"qmin": level, "qmax": level}
    path = media_files.coded(
        tmp_path / "a.mkv", [image] * 2, codec=codec, pix_fmt=pix_fmt, options=options
    )
    boxes, keypoints = detect.load().detect(image, max_num=3)
    for clean in (True, False):
        frame = next(sample(str(media_files.SIX_PEOPLE if clean else path)))
        for box, points in zip(boxes, keypoints, strict=True):
            crop, stored = align.align(frame.image, points), frame.stored(box)
            found = measure(frame.image, crop, box=box, keypoints=points, stored=stored)
            assert (found.blockiness < 1.6) if clean else (found.blockiness > 2.5)
