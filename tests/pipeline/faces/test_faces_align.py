"""Aligned crops, context images and head poses."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces import align
from warehouse.errors import MediaError
from warehouse.geometry import box_in_crop, crop_transforms

TEMPLATE = 2 * np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
     (70.7299, 92.2041)]
)  # fmt: skip
"""InsightFace's five points in a crop of 224 px."""


def dotted(points: np.ndarray, *, height: int, width: int, radius: int) -> np.ndarray:
    """A gray picture with a white disc at every point."""
    import cv2

    image = np.full((height, width, 3), 90, np.uint8)
    for x, y in points:
        cv2.circle(image, (round(x), round(y)), radius, (255, 255, 255), thickness=-1)
    return image


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 9.0])
@pytest.mark.parametrize("degrees", [0, -40, 120])
def test_align__points_on_template(scale: float, degrees: float) -> None:
    turn = np.radians(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (TEMPLATE - 112) @ matrix.T * scale + 1200
    image = dotted(points, height=2400, width=2400, radius=max(2, round(6 * scale)))
    crop = align.align(image, points)
    assert crop.shape == (224, 224, 3)
    assert crop.dtype == np.uint8
    for x, y in TEMPLATE.round().astype(int):
        assert crop[y, x].mean() > 225
    assert crop[112, 20].mean() == pytest.approx(90, abs=3)


def test_align__equals_norm_crop() -> None:
    from insightface.utils.face_align import norm_crop

    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (300, 300, 3), dtype=np.uint8)
    points = (TEMPLATE * 0.8 + 30 + rng.normal(0, 3, (5, 2))).astype(np.float32)
    with pytest.warns(FutureWarning):
        wanted = norm_crop(image, points, image_size=224)
    assert np.array_equal(align.align(image, points), wanted)


def test_align__large_face() -> None:
    # Stripes of 4 px on a face of 2,000 px: shrunk properly they are an even gray.
    image = np.zeros((2400, 2400, 3), np.uint8)
    image[:, (np.arange(2400) // 4) % 2 == 0] = 255
    crop = align.align(image, TEMPLATE * 9 + 100)
    # Sampled with gaps they stay stripes, with a deviation above 100.
    assert crop[60:160, 60:160].std() < 20


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 7.0),
        np.full((5, 2), np.nan),
        np.zeros((4, 2)),
        np.zeros(10),
    ],
)
def test_align__degenerate_keypoints(points: np.ndarray) -> None:
    with pytest.raises(MediaError, match="not five distinct"):
        align.align(np.zeros((50, 50, 3), np.uint8), points)
    with pytest.raises(MediaError, match="not five distinct"):
        align.pose(points)


@pytest.mark.parametrize(
    "bbox",
    [(300, 200, 60, 80), (0, 0, 60, 80), (600, 440, 40, 40), (-20, -20, 60, 60), (0, 0, 640, 480),
     (10, 10, 1, 1)],
)  # fmt: skip
def test_context__plain_pixels(bbox: tuple[int, int, int, int]) -> None:
    image = np.full((480, 640, 3), 50, np.uint8)
    before = image.copy()
    picture = align.context(image, np.array(bbox, np.float32))
    assert max(picture.shape[:2]) == align.CONTEXT_SIZE
    assert picture.dtype == np.uint8
    assert (picture == 50).all()  # no box is painted
    assert np.array_equal(image, before)


def test_context__scale() -> None:
    image = np.zeros((900, 900, 3), np.uint8)
    image[400:500, 400:500] = 200
    picture = align.context(image, np.array((400, 400, 100, 100), np.float32), size=300)
    assert picture.shape == (300, 300, 3)
    assert picture[150, 150].tolist() == [200, 200, 200]
    assert picture[150, 90].tolist() == [0, 0, 0]


def test_crop_transforms__equal_norm_crop() -> None:
    from insightface.utils.face_align import estimate_norm

    random = np.random.default_rng(1)
    points = TEMPLATE + random.normal(0, 6, (4, 5, 2))
    found = crop_transforms(points)
    for one, transform in zip(points, found, strict=True):
        assert transform == pytest.approx(estimate_norm(one, 224), abs=1e-3)
    assert np.isnan(crop_transforms(np.ones((1, 5, 2)))).all()


def test_box_in_crop__template() -> None:
    transform = crop_transforms(TEMPLATE[None] * 2 + 10)[0]
    assert box_in_crop(transform, (10, 10, 448, 448)) == pytest.approx((0, 0, 224, 224), abs=1e-6)


def seen(*, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Project five points of a rotated head orthographically."""
    head = np.array(
        [(-0.5, -0.57, 0), (0.5, -0.57, 0), (0, 0, 0.7), (-0.415, 0.58, 0.1), (0.415, 0.58, 0.1)]
    )
    y, p, r = np.radians((yaw, pitch, roll))
    about_y = np.array([(np.cos(y), 0, np.sin(y)), (0, 1, 0), (-np.sin(y), 0, np.cos(y))])
    about_x = np.array([(1, 0, 0), (0, np.cos(p), -np.sin(p)), (0, np.sin(p), np.cos(p))])
    about_z = np.array([(np.cos(r), -np.sin(r), 0), (np.sin(r), np.cos(r), 0), (0, 0, 1)])
    return (head @ (about_z @ about_x @ about_y).T)[:, :2] * 40 + 100


@pytest.mark.parametrize(
    "turn",
    [(0, 0, 0), (30, 0, 0), (-50, 0, 0), (0, 20, 0), (0, -25, 0), (0, 0, 35), (0, 0, -90),
     (25, 0, 40), (0, 15, -60)],
)  # fmt: skip
def test_pose__rotated_head(turn: tuple[float, float, float]) -> None:
    yaw, pitch, roll = turn
    assert align.pose(seen(yaw=yaw, pitch=pitch, roll=roll)) == pytest.approx(turn, abs=1.0)


def test_pose__signs() -> None:
    straight = seen(yaw=0, pitch=0, roll=0)
    nose_right, nose_up = straight.copy(), straight.copy()
    nose_right[2, 0] += 10
    nose_up[2, 1] -= 10
    clockwise = straight.copy()
    clockwise[1, 1] += 15
    clockwise[4, 1] += 15
    assert align.pose(nose_right).yaw > 5
    assert align.pose(nose_up).pitch > 5
    assert align.pose(clockwise).roll > 5
