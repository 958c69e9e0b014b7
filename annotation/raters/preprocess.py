"""Check and convert aligned faces; training and inference share this file.

An aligned face has InsightFace's ArcFace geometry at any scale: eyes at (38.3, 51.7) and
(73.5, 51.5), mouth corners at (41.5, 92.4) and (70.7, 92.2) of a 112 px square.
"""

from __future__ import annotations

import numpy as np

from warehouse.errors import ModelError

SMALLEST_SIDE = 16
"""Pixels below which a face shows no readable expression; such faces are refused."""


def check_faces(crops: object) -> np.ndarray:
    """Return ``crops`` if it is uint8[n, h, w, 3], sides at least 16 px.

    ``n`` may be 0.

    Raises:
        ModelError: it is anything else.
    """
    if not isinstance(crops, np.ndarray):
        raise _unfit(type(crops).__name__, "stack the crops with numpy.stack")
    if crops.size == 0 and len(crops) == 0:
        return np.zeros((0, SMALLEST_SIDE, SMALLEST_SIDE, 3), dtype=np.uint8)
    if crops.dtype != np.uint8:
        not_finite = crops.dtype.kind == "f" and not np.isfinite(crops).all()
        extent = "with NaN or infinity" if not_finite else f"from {crops.min()} to {crops.max()}"
        raise _unfit(f"{crops.dtype} values {extent}", "convert them to uint8 in 0..255")
    if crops.ndim == 3:
        hint = "repeat gray into three channels" if crops.shape[-1] != 3 else "add a batch axis"
        raise _unfit(f"shape {crops.shape}", f"{hint}; one face is shape (1, h, w, 3)")
    if crops.ndim != 4 or crops.shape[-1] != 3:
        raise _unfit(f"shape {crops.shape}", "give RGB, channels last")
    if min(crops.shape[1:3]) < SMALLEST_SIDE:
        raise _unfit(
            f"faces of {crops.shape[2]} x {crops.shape[1]} px",
            f"leave out faces below {SMALLEST_SIDE} px",
        )
    return crops


def to_gray(crops: np.ndarray, side: int) -> np.ndarray:
    """Convert uint8[n, h, w, 3] RGB to uint8[n, side, side], Rec. 601 luma.

    Brightness and contrast are unchanged; the network standardises each face itself.
    """
    import cv2

    gray = np.empty((len(crops), side, side), dtype=np.uint8)
    for index, crop in enumerate(crops):
        luma = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
        gray[index] = resize(luma, side)
    return gray


def resize(gray: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8[h, w] to uint8[side, side].

    Shrinking averages over areas; enlarging is linear.
    """
    import cv2

    shrinks = min(gray.shape) >= side
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(gray, (side, side), interpolation=method)


def _unfit(got: str, hint: str) -> ModelError:
    return ModelError("The crops are not aligned faces uint8[n, h, w, 3], RGB", got=got, hint=hint)
