"""Find and align the faces of an image.

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
    """One face of an image.

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
    """Find every face of one image, best first.

    Args:
        image: uint8[h, w, 3], RGB.

    Raises:
        MediaError: ``image`` has another type or shape, or is empty.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        dtype = getattr(image, "dtype", type(image).__name__)
        raise MediaError(
            "The image is not a uint8 array", got=str(dtype), hint="scale it to 0..255 as uint8"
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise MediaError(
            "The image is not RGB of shape (h, w, 3)",
            got=f"shape {image.shape}",
            hint="convert it first",
        )
    boxes, keypoints = _detector().detect(image)
    found = []
    for box, points in zip(boxes, keypoints, strict=True):
        left, top, right, bottom, score = (float(value) for value in box)
        bbox = np.array([left, top, right - left, bottom - top], dtype=np.float32)
        found.append(FoundFace(bbox, points, score, align.align(image, points)))
    return found


@lru_cache(maxsize=1)
def _detector() -> detect.Detector:
    return detect.load()
