"""Training faces made to look like frames of a film: moved, blurred, dim, compressed, covered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from annotation.raters.preprocess import resize
from annotation.raters.training.alignment import ENLARGED, SIDE

if TYPE_CHECKING:
    from annotation.raters.training.ferplus import Faces

_HALF = (SIDE - 1) / 2


def batch(faces: Faces, rows: np.ndarray, *, side: int, rng: np.random.Generator) -> np.ndarray:
    """The rows, each changed at random, as uint8[len(rows), side, side]. Half are mirrored."""
    pairs = zip(faces.gray[rows], faces.place[rows], strict=True)
    return np.stack([resize(_filmed(_moved(*pair, rng=rng), rng), side) for pair in pairs])


def as_served(faces: Faces, *, side: int) -> np.ndarray:
    """Unchanged faces as the pipeline hands them over, black outside the picture."""
    pairs = zip(faces.gray, faces.place, strict=True)
    return np.stack([resize(np.where(_inside(place), gray, 0), side) for gray, place in pairs])


def _inside(place: np.ndarray) -> np.ndarray:
    """bool[112, 112]: which pixels of the cached face come from the picture itself."""
    import cv2

    whole = np.full((ENLARGED, ENLARGED), 255, dtype=np.uint8)
    return cv2.warpAffine(whole, place, (SIDE, SIDE)) > 127


def _moved(gray: np.ndarray, place: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """A small error of the detector, a mirror, and sometimes the black edge of the picture."""
    import cv2

    if rng.random() < 0.5:
        gray = np.where(_inside(place), gray, 0).astype(np.uint8)
    angle, scale = np.radians(rng.normal(0, 6)), np.exp(rng.normal(0, 0.07))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn = turn @ np.diag([-1.0, 1.0])
    centre = np.array([_HALF, _HALF])
    shift = centre + rng.normal(0, 0.03 * SIDE, size=2) - turn @ centre
    matrix = np.column_stack([turn, shift])
    return cv2.warpAffine(gray, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def _filmed(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for chance, change in _CHANGES:
        if rng.random() < chance:
            gray = change(gray, rng)
    return gray


def _toned(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    curve = 255 * (np.arange(256) / 255) ** np.exp(rng.normal(0, 0.3))
    return curve.astype(np.uint8)[gray]


def _lit_from_one_side(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-1, 1, SIDE)
    ramp = np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None]
    return (gray * (1 + rng.uniform(0.1, 0.45) * ramp)).clip(0, 255).astype(np.uint8)


def _dim(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Low light: few photons, so the noise grows with the root of the signal."""
    photons = rng.uniform(8, 60)
    noise = rng.standard_normal(gray.shape, dtype=np.float32) * np.sqrt(gray * (255 / photons))
    return ((gray + noise) * rng.uniform(0.3, 1)).clip(0, 255).astype(np.uint8)


def _blurred(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    if rng.random() < 0.5:
        return cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.6, 2.2))
    length, angle = int(rng.integers(3, 10)), rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, 2 * length)
    kernel = np.zeros((11, 11), dtype=np.float32)
    kernel[(5 + steps * np.sin(angle)).round().astype(int).clip(0, 10),
           (5 + steps * np.cos(angle)).round().astype(int).clip(0, 10)] = 1  # fmt: skip
    return cv2.filter2D(gray, -1, kernel / kernel.sum())


def _sharpened(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The training images are 48 px; a film's faces are finer than that."""
    import cv2

    amount = rng.uniform(0.3, 1.5)
    return cv2.addWeighted(gray, 1 + amount, cv2.GaussianBlur(gray, (0, 0), 2), -amount, 0)


def _small(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    few = resize(gray, int(rng.integers(22, 56)))
    return cv2.resize(few, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def _compressed(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 60))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def _covered(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A hand, a cup, a caption: one rectangle of flat grey or noise."""
    height, width = rng.integers(SIDE // 8, SIDE // 2, size=2)
    top, left = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
    patch = rng.integers(0, 256) if rng.random() < 0.5 else rng.integers(0, 256, (height, width))
    gray = gray.copy()
    gray[top : top + height, left : left + width] = patch
    return gray


_CHANGES = (
    (0.15, _sharpened),
    (0.4, _toned),
    (0.25, _lit_from_one_side),
    (0.2, _blurred),
    (0.2, _small),
    (0.1, _dim),
    (0.2, _compressed),
    (0.3, _covered),
)
"""How often each change is made, in the order in which a camera makes them."""
