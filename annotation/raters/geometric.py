"""Read action units from 68 landmarks, without a trained network.

Distances between landmarks, in units of the distance between the outer corners of the eyes, after
the head's roll is taken out. A person's face at rest differs from another's, so the readings are
relative to a neutral face of the same person, or to the median of the person's faces.

The points are in the order of iBUG 300-W (Sagonas et al., 2013, doi:10.1109/ICCVW.2013.59): jaw 0
to 16, brows 17 to 26, nose 27 to 35, eyes 36 to 47, outer lips 48 to 59, inner lips 60 to 67.
"""

from __future__ import annotations

import numpy as np

from warehouse.errors import ModelError
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

POINTS = 68
FULL = {
    1: 0.10, 2: 0.10, 4: 0.07, 5: 0.05, 7: 0.04, 10: 0.06, 12: 0.12, 15: 0.06, 17: 0.06,
    18: 0.15, 20: 0.10, 25: 0.12, 26: 0.20, 43: 0.08,
}  # fmt: skip
"""Displacement that counts as intensity 1, per unit. A convention of this project: only order and
correlation of the readings are meant to be used."""


def displacements(points: np.ndarray) -> np.ndarray:
    """Return float64[n, K] of raw measures; NaN where landmarks show none.

    Larger means more of the unit. Comparable only between faces of one person.

    Args:
        points: float[n, 68, 2] in pixels, y downwards; NaN rows where no face was found.

    Raises:
        ModelError: another shape.
    """
    if points.ndim != 3 or points.shape[1:] != (POINTS, 2):
        raise ModelError(
            "Landmarks are not 68 points per face",
            got=f"shape {points.shape}",
            hint="return float[n, 68, 2] in the order of iBUG 300-W",
        )
    p = _upright(points.astype(float))
    x, y = p[..., 0], p[..., 1]

    def gap(upper: list[int], lower: list[int]) -> np.ndarray:
        distance: np.ndarray = y[:, lower].mean(axis=1) - y[:, upper].mean(axis=1)
        return distance

    eye_centre = list(range(36, 48))
    aperture = (gap([37, 38], [41, 40]) + gap([43, 44], [47, 46])) / 2
    lip_middle = gap([51], [57]) / 2 + y[:, 51]
    corners = (y[:, 48] + y[:, 54]) / 2
    width = x[:, 54] - x[:, 48]
    inner_brow, outer_brow = gap([21, 22], eye_centre), gap([17, 18, 25, 26], eye_centre)
    measures = {
        1: inner_brow,
        2: outer_brow,
        4: -inner_brow - (x[:, 22] - x[:, 21]),
        5: aperture,
        7: -aperture,
        10: -gap([33], [51]),
        12: lip_middle - corners + width / 2,
        15: corners - lip_middle,
        17: -gap([33], [8]) + gap([62], [66]),
        18: -width,
        20: width - (lip_middle - corners),
        25: gap([61, 62, 63], [67, 66, 65]),
        26: gap([33], [8]),
        43: -aperture,
    }
    raw = np.full((len(points), len(ACTION_UNITS)), np.nan)
    for unit, values in measures.items():
        raw[:, AU_INDEX[unit]] = values
    return raw


def read(
    points: np.ndarray, subject: np.ndarray, *, neutral: np.ndarray | None = None
) -> np.ndarray:
    """Return intensities float32[n, K] in 0..1 relative to each person's rest.

    Args:
        points: float[n, 68, 2].
        subject: whose face it is, [n].
        neutral: bool[n], faces at rest; without them, or for a person without one, the median of
            the person's faces stands for rest.
    """
    raw = displacements(points)
    out = np.full(raw.shape, np.nan, dtype=np.float32)
    scale = np.array([FULL.get(unit.number, np.nan) for unit in ACTION_UNITS])
    for name in np.unique(subject):
        own = subject == name
        rest = own & neutral if neutral is not None and (own & neutral).any() else own
        base = _median(raw[rest])
        out[own] = np.clip((raw[own] - base) / scale, 0, 1)
    return out


def _median(raw: np.ndarray) -> np.ndarray:
    """Return the median per column; NaN for columns without a number."""
    base = np.full(raw.shape[1], np.nan)
    known = np.isfinite(raw).any(axis=0)
    base[known] = np.nanmedian(raw[:, known], axis=0)
    return base


def _upright(points: np.ndarray) -> np.ndarray:
    """Turn the line between the outer eye corners level, and scale it to 1."""
    left, right = points[:, 36], points[:, 45]
    across = right - left
    length = np.linalg.norm(across, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        cos, sin = (across / length).T
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1)
    level: np.ndarray = (points - (left + right)[:, None] / 2) @ turn.transpose(0, 2, 1)
    return level / length[:, None]
