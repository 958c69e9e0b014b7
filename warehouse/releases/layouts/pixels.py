"""Decode, resize and encode pictures."""

from __future__ import annotations

import io
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


def has_size(data: Any, size: int) -> bool:
    """Return whether a picture is a square of ``size`` pixels, by its header."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data)).size == (size, size)
    except OSError:
        return False


def convert(
    data: Any, source: str, suffix: str, *, size: int | None = None, gray: bool = False
) -> Any:
    """Return the bytes of a picture in a type, size and colour.

    The bytes stay as they are if they are of that type and size already.

    Args:
        source: suffix of ``data``.
        suffix: suffix of the result.
    """
    import cv2

    if same_type(source, suffix) and not gray and (size is None or has_size(data, size)):
        return data
    image = decode(data)
    if size is not None:
        image = resize(image, size)
    if gray:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return encode(image, suffix)
