"""Relate a frame, its face, the aligned crop and the context picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CROP_SIZE = 224
"""Side of an aligned crop in pixels: twice the 112 px of the ArcFace template."""

CONTEXT_SCALE = 3.0
"""A context image shows this many times the width and height of the face."""

TEMPLATE = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
) * (CROP_SIZE / 112)
"""Five keypoints of the ArcFace template in an aligned crop, in InsightFace's order."""


def crop_transforms(keypoints: np.ndarray) -> np.ndarray:
    """Return the transforms from frame pixels to pixels of the crops.

    The similarity transform of least squares onto ``TEMPLATE``, as InsightFace's ``norm_crop``
    estimates it (Umeyama, 1991, doi:10.1109/34.88573). In the plane a similarity without
    reflection is a complex factor and a shift.

    Args:
        keypoints: float[n, 5, 2] in frame pixels; NaN where unknown.

    Returns:
        float64[n, 2, 3]; NaN where the keypoints are unknown or coincide.
    """
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 5, 2)
    source = points[..., 0] + 1j * points[..., 1]
    target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    mean = source.mean(axis=1, keepdims=True)
    centred = source - mean
    spread = (np.abs(centred) ** 2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = (centred.conj() * (target - target.mean())).sum(axis=1) / spread
    factor = np.where(spread > 1e-9, factor, complex(np.nan, np.nan))
    shift = target.mean() - factor * mean[:, 0]
    found = np.empty((len(points), 2, 3))
    found[:, 0] = np.stack([factor.real, -factor.imag, shift.real], axis=1)
    found[:, 1] = np.stack([factor.imag, factor.real, shift.imag], axis=1)
    return found


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points[n, 2] moved by a transform[2, 3]."""
    moved: np.ndarray = np.asarray(points, dtype=np.float64) @ transform[:, :2].T + transform[:, 2]
    return moved


def box_in_crop(transform: np.ndarray, bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box ``x y w h`` in a crop that surrounds a box of the frame."""
    x, y, w, h = bbox
    corners = apply(transform, np.array([(x, y), (x + w, y), (x, y + h), (x + w, y + h)]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def boxes_in_crops(transforms: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return float64[n, 4]: ``box_in_crop`` of each row; NaN stays NaN.

    Args:
        transforms: float[n, 2, 3].
        boxes: float[n, 4].
    """
    x, y, w, h = np.asarray(boxes, dtype=np.float64).T
    corners = np.stack([(x, y), (x + w, y), (x, y + h), (x + w, y + h)]).transpose(2, 0, 1)
    moved = apply_each(transforms, corners)
    low, high = moved.min(axis=1), moved.max(axis=1)
    return np.concatenate([low, high - low], axis=1)


def apply_each(transforms: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points[n, k, 2], those of each row moved by its transform[2, 3]."""
    turned = np.einsum("nij,nkj->nki", transforms[:, :, :2], points)
    moved: np.ndarray = turned + transforms[:, None, :, 2]
    return moved


def context_region(bbox: Sequence[float], *, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a face's context in frame pixels.

    Args:
        bbox: ``x y w h`` in frame pixels.
        width, height: size of the frame.
    """
    x, y, w, h = (float(value) for value in bbox)
    reach = CONTEXT_SCALE / 2 * max(w, h)
    left, right = _clipped(x + w / 2 - reach, x + w / 2 + reach, limit=width)
    top, bottom = _clipped(y + h / 2 - reach, y + h / 2 + reach, limit=height)
    return left, top, right, bottom


def _clipped(low: float, high: float, *, limit: int) -> tuple[int, int]:
    first = min(max(math.floor(low), 0), limit - 1)
    return first, min(max(math.ceil(high), first + 1), limit)
