"""Hide the faces of bystanders in an image."""

from __future__ import annotations

import numpy as np

SCALE = 1.3
"""The hidden ellipse is this many times the detected box, as in ``deface``: with hair and chin."""

_CELLS = 4
"""A hidden face is averaged to this many patches across. Blur alone can be sharpened again,
averaged colours cannot. At 6 the detector still found a face in one of six."""

_EDGE = 0.12
"""Width of the ellipse's soft edge, as a share of its size."""


def blur_others(
    image: np.ndarray, *, boxes: np.ndarray, subject: int, reach: float | None = None
) -> np.ndarray:
    """Hide every face but one under a soft ellipse.

    A face is averaged into a few blurred patches, which no sharpening restores. The subject's
    own ellipse stays clear if two overlap. Only detected faces are hidden: faces too small, too
    turned or too dark for the detector stay visible.

    Args:
        image: uint8[h, w, 3]; not changed.
        boxes: float32[n, 4 or more], ``x1 y1 x2 y2 …`` in pixels, of all detected faces.
        subject: row of ``boxes`` that stays; -1 hides all.
        reach: skip faces beyond this many sizes of the subject's box around its centre, which a
            context image does not show; in a crowd these are most faces.

    Returns:
        ``image`` itself if no face was hidden, else a copy.
    """
    corners = np.asarray(boxes, dtype=np.float64)[:, :4]
    others = [row for row in range(len(corners)) if row != subject]
    if reach is not None and subject >= 0:
        others = [row for row in others if _touches(corners[row], corners[subject], reach)]
    if not others:
        return image
    hidden = image.copy()
    for row in others:
        _hide(hidden, corners[row], protected=corners[subject] if subject >= 0 else None)
    return hidden


def _touches(box: np.ndarray, subject: np.ndarray, reach: float) -> bool:
    middle = (subject[:2] + subject[2:]) / 2
    half = reach / 2 * (subject[2:] - subject[:2]).max()
    low, high = _scaled(box)
    return bool((high > middle - half).all() and (low < middle + half).all())


def _scaled(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle, half = (box[:2] + box[2:]) / 2, SCALE * (box[2:] - box[:2]) / 2
    return middle - half, middle + half


def _hide(image: np.ndarray, box: np.ndarray, *, protected: np.ndarray | None) -> None:
    """Hide one face in place, except inside the ellipse of ``protected``."""
    import cv2

    height, width = image.shape[:2]
    low, high = _scaled(box)
    left, top = np.clip(np.floor(low), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(high), 0, (width, height)).astype(int)
    if right - left < 1 or bottom - top < 1:
        return
    part = image[top:bottom, left:right]
    cells = (min(_CELLS, right - left), min(_CELLS, bottom - top))
    patches = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(patches, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    cover = _ellipse(low, high, left=left, top=top, shape=part.shape[:2], soft=True)
    if protected is not None:
        low, high = protected[:2], protected[2:]
        cover *= 1 - _ellipse(low, high, left=left, top=top, shape=part.shape[:2])
    mixed = part + (smooth.astype(np.float32) - part) * cover[:, :, None]
    image[top:bottom, left:right] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _ellipse(
    low: np.ndarray,
    high: np.ndarray,
    *,
    left: int,
    top: int,
    shape: tuple[int, ...],
    soft: bool = False,
) -> np.ndarray:
    """Return a mask float32[h, w]: 1 inside the ellipse, fading if soft."""
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
    x = (np.arange(shape[1]) + left + 0.5 - middle[0]) / half[0]
    y = (np.arange(shape[0]) + top + 0.5 - middle[1]) / half[1]
    inside = 1 - np.hypot(x[None, :], y[:, None])
    return np.clip(inside / (_EDGE if soft else 1e-6), 0, 1).astype(np.float32)
