"""Optical flow between the frames of a clip, as small pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from warehouse.errors import ReleaseError

METHODS = ("dis", "farneback")
"""Dense inverse search (Kroeger et al., 2016, doi:10.1007/978-3-319-46493-0_29) and polynomial
expansion (Farneback, 2003, doi:10.1007/3-540-45103-X_50), both as OpenCV has them."""

SIDE = 112
STEPS = 16
"""A picture of ``SIDE`` px; its red and green are ``128 + STEPS * d`` for a displacement of ``d``
pixels of that picture to the right and down, cut at 0 and 255: eighths of a pixel and finer, up to
8 px."""


def pictures(frames: Sequence[bytes], method: str) -> list[bytes]:
    """Flow from each frame to the next as PNG files; one less than there are frames.

    Args:
        frames: encoded pictures of one face.
        method: one of ``METHODS``.
    """
    gray = [_gray(data) for data in frames]
    flow = _method(method)
    return [_encoded(flow(before, after)) for before, after in pairwise(gray)]


def displacement(picture: np.ndarray) -> np.ndarray:
    """float32[h, w, 2], pixels to the right and down, of one flow picture uint8[h, w, 3], RGB."""
    return (np.asarray(picture)[:, :, :2].astype(np.float32) - 128) / STEPS


def check(method: str | None) -> None:
    """Refuse a method nobody has.

    Raises:
        ReleaseError: ``method`` is none of ``METHODS``.
    """
    if method is not None and method not in METHODS:
        raise ReleaseError(
            f"a method of optical flow among {', '.join(METHODS)}",
            got=repr(method),
            hint="change RISORIUS_CLIP_FLOW",
        )


def _method(name: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    import cv2

    if name == "dis":
        dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda before, after: dense.calc(before, after, None)  # type: ignore[call-overload]

    def spread(before: np.ndarray, after: np.ndarray) -> Any:
        start = np.zeros((*before.shape, 2), dtype=np.float32)
        return cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0)

    return spread


def _gray(data: bytes) -> np.ndarray:
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ReleaseError(
            "frames that are pictures", got="bytes that are none", hint="ingest their batch again"
        )
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _encoded(flow: np.ndarray) -> bytes:
    import cv2

    shown = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    # OpenCV writes blue first.
    shown[:, :, 2:0:-1] = np.clip(np.rint(128 + STEPS * flow), 0, 255).astype(np.uint8)
    return cv2.imencode(".png", shown)[1].tobytes()
