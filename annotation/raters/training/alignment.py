"""Where the face of a training image lies, in the geometry that the pipeline cuts faces in.

Every image is enlarged to 192 px and handed to the pipeline's own face finder; its five points
are laid on ArcFace's the way the pipeline does it, so that training and use see one geometry.
Where no face is found, the places where eyes, nose and mouth usually stand in these images (the
medians in ``_USUAL_POINTS``) are laid there instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SIDE = 112
"""Side of the cached faces: twice what is needed, so that augmentation can turn and shift."""

ENLARGED = 192
"""Side to which images are enlarged before a face is looked for."""

_USUAL_POINTS = ((14.8, 19.4), (32.4, 18.6), (23.7, 28.7), (17.0, 36.2), (31.3, 35.5))
"""Medians over 300 training images, in pixels of the 48 px frame."""

_ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
            (70.7299, 92.2041))  # fmt: skip
"""InsightFace's template in a 112 px square."""


def align(image: np.ndarray, find: Callable[[np.ndarray], list[Any]]) -> tuple[np.ndarray, bool]:
    """Where the face of a gray square uint8[h, h] lies, and whether one was found.

    Returns:
        float32[2, 3]: the turn, scale and shift from pixels of the image enlarged to 192 px to
        the cached face; the usual place where the finder sees nothing.
    """
    import cv2

    large = cv2.resize(image, (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC)
    found = find(np.repeat(large[:, :, None], 3, axis=2))
    if not found:
        return usual_place(), False
    best = max(found, key=lambda face: face.score)
    return _similarity(np.asarray(best.keypoints), np.array(_ARCFACE)), True


def usual_place() -> np.ndarray:
    """The transform that lays a full frame as if a face stood where these images have one."""
    return _similarity(np.array(_USUAL_POINTS) * ENLARGED / 48, np.array(_ARCFACE))


def lay(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The face of a gray square image as uint8[112, 112], the edge pixels repeated outside it.

    The pipeline paints black there. Repeating keeps the choice open: augmentation paints some
    faces black, because those of a film seldom touch the edge of the picture.
    """
    import cv2

    large = cv2.resize(image, (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC)
    return cv2.warpAffine(large, place, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least-squares turn, scale and shift float32[2, 3] (Umeyama, 1991)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, d, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (d * np.diag(sign)).sum() / (a**2).sum()
    turn = scale * u @ sign @ vt
    shift = target.mean(axis=0) - turn @ source.mean(axis=0)
    return np.column_stack([turn, shift]).astype(np.float32)
