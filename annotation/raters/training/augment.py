"""Augment training faces so that they resemble frames of a film."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from annotation.raters.preprocess import resize
from annotation.raters.training.ferplus import ENLARGED, SIDE

if TYPE_CHECKING:
    from annotation.raters.training.ferplus import Faces

_HALF = (SIDE - 1) / 2


def batch(faces: Faces, rows: np.ndarray, *, side: int, rng: np.random.Generator) -> np.ndarray:
    """Augment rows at random; return uint8[len(rows), side, side]."""
    pairs = zip(faces.gray[rows], faces.transform[rows], strict=True)
    return np.stack([resize(_degrade(_move(*pair, rng=rng), rng), side) for pair in pairs])


def as_served(faces: Faces, *, side: int) -> np.ndarray:
    """Crop faces as the pipeline does; return uint8[n, side, side].

    Pixels outside the image are black.
    """
    pairs = zip(faces.gray, faces.transform, strict=True)
    return np.stack([resize(np.where(_inside(at), gray, 0), side) for gray, at in pairs])


def _inside(transform: np.ndarray) -> np.ndarray:
    """Select a cached face's pixels inside the image: bool[112, 112]."""
    import cv2

    whole = np.full((ENLARGED, ENLARGED), 255, dtype=np.uint8)
    return cv2.warpAffine(whole, transform, (SIDE, SIDE)) > 127


def _move(gray: np.ndarray, transform: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Imitate an error of the detector and mirror half of the faces.

    In half of them, paint the pixels outside the image black.
    """
    import cv2

    if rng.random() < 0.5:
        gray = np.where(_inside(transform), gray, 0).astype(np.uint8)
    angle, scale = np.radians(rng.normal(0, 6)), np.exp(rng.normal(0, 0.07))
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        rotation = rotation @ np.diag([-1.0, 1.0])
    centre = np.array([_HALF, _HALF])
    shift = centre + rng.normal(0, 0.03 * SIDE, size=2) - rotation @ centre
    matrix = np.column_stack([rotation, shift])
    return cv2.warpAffine(gray, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def _degrade(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for chance, change in _CHANGES:
        if rng.random() < chance:
            gray = change(gray, rng)
    return gray


def _gamma(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    curve = 255 * (np.arange(256) / 255) ** np.exp(rng.normal(0, 0.3))
    return curve.astype(np.uint8)[gray]


def _side_light(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-1, 1, SIDE)
    ramp = np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None]
    return (gray * (1 + rng.uniform(0.1, 0.45) * ramp)).clip(0, 255).astype(np.uint8)


def _low_light(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add photon noise, which grows with the root of the signal, and darken."""
    photons = rng.uniform(8, 60)
    noise = rng.standard_normal(gray.shape, dtype=np.float32) * np.sqrt(gray * (255 / photons))
    return ((gray + noise) * rng.uniform(0.3, 1)).clip(0, 255).astype(np.uint8)


def _blur(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    if rng.random() < 0.5:
        return cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.6, 2.2))
    length, angle = int(rng.integers(3, 10)), rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, 2 * length)
    kernel = np.zeros((11, 11), dtype=np.float32)
    kernel[(5 + steps * np.sin(angle)).round().astype(int).clip(0, 10),
           (5 + steps * np.cos(angle)).round().astype(int).clip(0, 10)] = 1  # fmt: skip
    return cv2.filter2D(gray, -1, kernel / kernel.sum())


def _sharpen(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sharpen; faces in films are finer than the 48 px training images."""
    import cv2

    amount = rng.uniform(0.3, 1.5)
    return cv2.addWeighted(gray, 1 + amount, cv2.GaussianBlur(gray, (0, 0), 2), -amount, 0)


def _downscale(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    few = resize(gray, int(rng.integers(22, 56)))
    return cv2.resize(few, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def _compress(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 60))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def _occlude(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover a rectangle with grey or noise, as a hand or a caption would."""
    height, width = rng.integers(SIDE // 8, SIDE // 2, size=2)
    top, left = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
    patch = rng.integers(0, 256) if rng.random() < 0.5 else rng.integers(0, 256, (height, width))
    gray = gray.copy()
    gray[top : top + height, left : left + width] = patch
    return gray


_CHANGES = (
    (0.15, _sharpen),
    (0.4, _gamma),
    (0.25, _side_light),
    (0.2, _blur),
    (0.2, _downscale),
    (0.1, _low_light),
    (0.2, _compress),
    (0.3, _occlude),
)
"""Probability of each change, in the order in which a camera makes them."""
