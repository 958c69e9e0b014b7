"""What a face must look like before a network sees it; training and serving share this file.

An aligned face is InsightFace's ArcFace geometry at any scale: eyes at (38.3, 51.7) and
(73.5, 51.5), mouth corners at (41.5, 92.4) and (70.7, 92.2) of a 112 px square.
"""

from __future__ import annotations

import numpy as np

from warehouse.errors import ModelError

SMALLEST_SIDE = 16
"""A face of fewer pixels says nothing a person could read either; it is refused, not guessed."""


def check_faces(crops: object) -> np.ndarray:
    """``crops`` if it is uint8[n, h, w, 3] with sides of at least 16 px; n may be 0.

    Raises:
        ModelError: it is anything else; says what came and what to do.
    """
    if not isinstance(crops, np.ndarray):
        raise _unfit(type(crops).__name__, "stack the crops with numpy.stack")
    if crops.size == 0 and len(crops) == 0:
        return np.zeros((0, SMALLEST_SIDE, SMALLEST_SIDE, 3), dtype=np.uint8)
    if crops.dtype != np.uint8:
        holes = crops.dtype.kind == "f" and not np.isfinite(crops).all()
        extent = "with NaN or infinity" if holes else f"from {crops.min()} to {crops.max()}"
        raise _unfit(
            f"{crops.dtype} values {extent}", "convert to 0..255 uint8; scaling is not guessed"
        )
    if crops.ndim == 3:
        hint = "repeat gray into three channels" if crops.shape[-1] != 3 else "add a batch axis"
        raise _unfit(f"shape {crops.shape}", f"{hint}; one face is shape (1, h, w, 3)")
    if crops.ndim != 4 or crops.shape[-1] != 3:
        raise _unfit(f"shape {crops.shape}", "give RGB with the channels last")
    if min(crops.shape[1:3]) < SMALLEST_SIDE:
        raise _unfit(
            f"faces of {crops.shape[2]} x {crops.shape[1]} px",
            f"leave out faces below {SMALLEST_SIDE} px; nobody can read them",
        )
    return crops


def to_gray(crops: np.ndarray, side: int) -> np.ndarray:
    """uint8[n, h, w, 3] RGB to uint8[n, side, side], Rec. 601 luma, area-averaged when shrinking.

    Brightness and contrast are left alone here: the network standardises each face itself.
    """
    import cv2

    gray = np.empty((len(crops), side, side), dtype=np.uint8)
    for index, crop in enumerate(crops):
        luma = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
        gray[index] = resize(luma, side)
    return gray


def resize(gray: np.ndarray, side: int) -> np.ndarray:
    """uint8[h, w] to uint8[side, side]."""
    import cv2

    shrinks = min(gray.shape) >= side
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(gray, (side, side), interpolation=method)


def _unfit(got: str, hint: str) -> ModelError:
    return ModelError("aligned faces as uint8[n, h, w, 3], RGB", got=got, hint=hint)
