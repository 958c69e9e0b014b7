"""Boxes and canvases: what the detectors have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_SIDE = 640
"""Larger pictures are scaled down to this. A face of 32 px in a 1920 px frame is 11 px then."""

THRESHOLD = 0.4
"""Lower than the gate's, so that a doubtful face is counted as dropped instead of never seen."""

NEAR_SIDE = 96
"""Side of the canvas of a look near a face; the face is about 60 px of it.

Measured on 58 faces of the sample clips with places off by a tenth: at 96 px the median distance
of keypoints from those of a whole look is .06 to .11 of that between the eyes, at 128 px and
double its time .05 to .10, at 64 px .08 to .11 with scores down by a tenth.
"""

WIDE_SIDE = 2 * NEAR_SIDE
"""Side of the canvas of a wider look at the same scale, for a face that moved further: a little
more than its own size to every side."""

_FACE_SIDE = 60
_IOU_OF_SAME = 0.3
_GROWN = 1.6

NO_BOXES = np.empty((0, 5), dtype=np.float32)
NO_KEYPOINTS = np.empty((0, 5, 2), dtype=np.float32)


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with each of several, float[n] in [0, 1]."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:4], others[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(others[:, 2:4] - others[:, :2], axis=1) + np.prod(box[2:4] - box[:2])
    return shared / np.maximum(area - shared, 1e-9)


def ranked(
    boxes: np.ndarray, keypoints: np.ndarray, *, image: np.ndarray, max_num: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut to the picture, without those that are no face, best first."""
    height, width = image.shape[:2]
    boxes = boxes.astype(np.float32)
    boxes[:, 0:4:2] = boxes[:, 0:4:2].clip(0, width)
    boxes[:, 1:4:2] = boxes[:, 1:4:2].clip(0, height)
    real = (boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1)
    # Five points in one place are no face and cannot be aligned.
    real &= np.isfinite(keypoints).all(axis=(1, 2)) & (np.ptp(keypoints, axis=1) >= 1).all(axis=1)
    boxes, keypoints = boxes[real], keypoints[real].astype(np.float32)
    order = np.argsort(-boxes[:, 4], kind="stable")[: max_num or None]
    return boxes[order], keypoints[order]


def cutout(
    image: np.ndarray, box: np.ndarray, *, canvas_side: int = NEAR_SIDE
) -> tuple[np.ndarray, float, np.ndarray]:
    """The surroundings of a box on a square canvas; the box is about 60 px of it.

    Returns:
        uint8[side, side, 3], grown at the picture's border by its edge; the scale that took; and
        the canvas' corner in pixels of ``image``.
    """
    import cv2

    around = canvas_side / _FACE_SIDE
    side = max(4.0, around * float(max(box[2] - box[0], box[3] - box[1])))
    corner = np.array([float(box[0] + box[2]), float(box[1] + box[3])]) / 2 - side / 2
    # A face cut by the picture's border is known better there than before a border drawn out.
    corner = np.minimum(corner, np.array(image.shape[1::-1]) - side).clip(0)
    scale = canvas_side / side
    # The bilinear warp alone would sample large faces with gaps; a whole factor is cheap.
    image, start, factor = _shrunk(image, corner, side, factor=int(1 / scale))
    x, y = (corner - start) / factor * (scale * factor)
    matrix = np.array([[scale * factor, 0, -x], [0, scale * factor, -y]])
    canvas = cv2.warpAffine(
        image, matrix, (canvas_side, canvas_side), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return canvas, scale, corner


def _shrunk(
    image: np.ndarray, corner: np.ndarray, side: float, *, factor: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The part of a picture around a square, smaller by a whole factor; where it begins."""
    import cv2

    height, width = image.shape[:2]
    left, top = (int(np.clip(value, 0, None)) for value in corner)
    columns = (min(width, int(corner[0] + side) + factor) - left) // max(1, factor)
    rows = (min(height, int(corner[1] + side) + factor) - top) // max(1, factor)
    if factor < 2 or columns < 1 or rows < 1:
        return image, np.zeros(2), 1
    part = image[top : top + rows * factor, left : left + columns * factor]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    return small, np.array([left, top], dtype=float), factor


def nothing_at(expected: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes and keypoints for places of several pictures, to be filled where a face is found."""
    return [
        (np.zeros((len(boxes), 5), np.float32), np.zeros((len(boxes), 5, 2), np.float32))
        for boxes in expected
    ]


def nearest(
    boxes: np.ndarray,
    keypoints: np.ndarray,
    *,
    scale: float,
    corner: np.ndarray,
    image: np.ndarray,
    expected: np.ndarray,
    moved: bool,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of what was found on a canvas of ``cutout`` the face that was expected, in ``image``.

    Args:
        moved: where none overlaps the place, the nearest of about its size will do.
    """
    boxes = boxes.copy()
    boxes[:, :4] = boxes[:, :4] / scale + np.tile(corner, 2)
    boxes, keypoints = ranked(boxes, keypoints / scale + corner, image=image)
    if not len(boxes):
        return None
    shares = overlap(expected, boxes)
    best = int(shares.argmax())
    if shares[best] < _IOU_OF_SAME:
        grown = np.sqrt(_area(boxes) / _area(expected[None]))
        apart = np.linalg.norm(_middle(boxes) - _middle(expected[None]), axis=1)
        apart[(grown > _GROWN) | (grown < 1 / _GROWN)] = np.inf
        best = int(apart.argmin())
        if not (moved and np.isfinite(apart[best])):
            return None
    return boxes[best], keypoints[best]


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1).clip(1e-6)


def _middle(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:4]) / 2
