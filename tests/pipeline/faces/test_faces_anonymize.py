"""Faces of bystanders are hidden beyond sharpening."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.faces import align, detect, find
from pipeline.faces.anonymize import blur_others
from pipeline.video import reader
from tests.media_files import SIX_PEOPLE
from warehouse.geometry import CONTEXT_SCALE


def noise(height: int = 200, width: int = 300) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)


BOXES = np.array([[20, 40, 80, 120, 0.9], [180, 60, 240, 140, 0.9], [285, 180, 320, 230, 0.9]])


def inside(box: np.ndarray) -> tuple[slice, slice]:
    """The middle half of a box, within the picture."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
    return slice(int(y - h), int(y + h)), slice(int(x - w), int(x + w))


@pytest.mark.parametrize("subject", [0, 1, -1])
def test_blur_others__subject_unchanged(subject: int) -> None:
    image = noise()
    before = image.copy()
    hidden = blur_others(image, boxes=BOXES, subject=subject)
    assert np.array_equal(image, before)
    for row, box in enumerate(BOXES[:2]):
        part = inside(box)
        if row == subject:
            assert np.array_equal(hidden[part], image[part])
        else:
            assert hidden[part].std() < 0.2 * image[part].std()
    assert np.array_equal(hidden[:20], image[:20])


def test_blur_others__nothing_to_hide() -> None:
    image = noise()
    assert blur_others(image, boxes=BOXES[:1], subject=0) is image
    assert blur_others(image, boxes=np.empty((0, 5)), subject=-1) is image
    assert blur_others(image, boxes=BOXES[[0, 2]], subject=0, reach=3.0) is image
    assert blur_others(image, boxes=BOXES[[0, 1]], subject=0, reach=9.0) is not image


def test_blur_others__overlap() -> None:
    image = noise()
    boxes = np.array([[50, 50, 150, 170], [110, 50, 210, 170]], dtype=float)
    hidden = blur_others(image, boxes=boxes, subject=0)
    assert np.array_equal(hidden[80:140, 80:130], image[80:140, 80:130])
    assert hidden[90:130, 165:195].std() < 0.2 * image[90:130, 165:195].std()


@pytest.mark.parametrize(
    "box", [[-50, -50, 20, 20], [290, 190, 400, 300], [500, 500, 600, 600], [5, 5, 5.5, 5.5]]
)
def test_blur_others__boxes_at_border(box: list[float]) -> None:
    hidden = blur_others(noise(), boxes=np.array([box, [100, 100, 140, 150]]), subject=1)
    assert hidden.shape == (200, 300, 3)
    assert hidden.dtype == np.uint8


def test_blur_others__context_shows_one_face() -> None:
    image = next(iter(reader.sample(str(SIX_PEOPLE)))).image
    boxes, _ = detect.load("centerface", threshold=0.5).detect(image)
    assert len(boxes) == 6
    crowd = 0
    for subject, box in enumerate(boxes):
        seen = blur_others(image, boxes=boxes, subject=subject, reach=CONTEXT_SCALE)
        around = np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]])
        open_to_all = align.context(image, around)
        hidden = align.context(seen, around)
        crowd += len(find(open_to_all))
        assert len(find(hidden)) == 1, subject
        # Sharpening does not restore a face.
        soft = cv2.GaussianBlur(hidden, (0, 0), 3)
        assert len(find(cv2.addWeighted(hidden, 3.0, soft, -2.0, 0))) <= 1, subject
    assert crowd > 6
