"""The way from a picture to aligned faces.

from pipeline.faces import find
for face in find(image):
    face.crop  # uint8[224, 224, 3]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.faces import align, detect
from warehouse.errors import MediaError


@dataclass(frozen=True)
class FoundFace:
    """One face of a picture.

    Attributes:
        bbox: float32[4], ``x y w h`` in pixels.
        keypoints: float32[5, 2] in pixels, InsightFace's order.
        score: of the detector, 0..1.
        crop: uint8[224, 224, 3], RGB, aligned.
    """

    bbox: np.ndarray
    keypoints: np.ndarray
    score: float
    crop: np.ndarray


def find(image: np.ndarray) -> list[FoundFace]:
    """Every face of one picture, best first.

    Args:
        image: uint8[h, w, 3], RGB.

    Raises:
        MediaError: ``image`` is of another type or shape, or empty.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        came = getattr(image, "dtype", type(image).__name__)
        raise MediaError("a uint8 picture", got=str(came), hint="scale it to 0..255 as uint8")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise MediaError(
            "a picture of shape (h, w, 3), RGB", got=f"shape {image.shape}", hint="convert it first"
        )
    boxes, keypoints = _detector().detect(image)
    found = []
    for box, points in zip(boxes, keypoints, strict=True):
        left, top, right, bottom, score = (float(value) for value in box)
        found.append(
            FoundFace(
                bbox=np.array([left, top, right - left, bottom - top], dtype=np.float32),
                keypoints=points,
                score=score,
                crop=align.align(image, points),
            )
        )
    return found


@lru_cache(maxsize=1)
def _detector() -> detect.Detector:
    return detect.load()
