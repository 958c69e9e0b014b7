"""Decode, resize and encode pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from warehouse.errors import ReleaseError

QUALITY = 95
"""JPEG quality of every layout."""

_ALIKE = ({".jpg", ".jpeg", ".JPG"},)


def same_type(one: str, other: str) -> bool:
    """Return whether two suffixes stand for one file type."""
    return one == other or any({one, other} <= group for group in _ALIKE)


def decode(data: Any) -> np.ndarray:
    """Return the picture as uint8[h, w, 3] BGR.

    Raises:
        ReleaseError: the bytes are no picture.
    """
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ReleaseError(
            "A released picture cannot be decoded",
            got=f"{len(data)} bytes that are no image",
            hint="build a new version of the release",
        )
    return image


def encode(image: np.ndarray, suffix: str) -> bytes:
    """Encode uint8[h, w, 3] BGR or uint8[h, w]."""
    import cv2

    kind = suffix.lower()
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if kind in (".jpg", ".jpeg") else []
    return bytes(cv2.imencode(kind, image, options)[1])


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize to a square of ``size`` pixels."""
    import cv2

    if image.shape[:2] == (size, size):
        return image
    smaller = size < max(image.shape[:2])
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(image, (size, size), interpolation=method)


def convert(data: Any, suffix: str, *, size: int | None = None, gray: bool = False) -> bytes:
    """Return the bytes of a picture in another type, size or colour."""
    import cv2

    image = decode(data)
    if size is not None:
        image = resize(image, size)
    if gray:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return encode(image, suffix)
