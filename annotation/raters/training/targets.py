"""Training targets: shares of votes, and AU proxies from blendshapes.

Blendshapes of MediaPipe's landmarker are weights of an animation rig. They rank faces by an
action; they are not FACS codes.
"""

from __future__ import annotations

import numpy as np

from warehouse.errors import TableError

AU_SHAPES: dict[int, tuple[str, ...]] = {
    1: ("browInnerUp",),
    2: ("browOuterUpLeft", "browOuterUpRight"),
    4: ("browDownLeft", "browDownRight"),
    5: ("eyeWideLeft", "eyeWideRight"),
    6: ("cheekSquintLeft", "cheekSquintRight"),
    7: ("eyeSquintLeft", "eyeSquintRight"),
    9: ("noseSneerLeft", "noseSneerRight"),
    10: ("mouthUpperUpLeft", "mouthUpperUpRight"),
    12: ("mouthSmileLeft", "mouthSmileRight"),
    14: ("mouthDimpleLeft", "mouthDimpleRight"),
    15: ("mouthFrownLeft", "mouthFrownRight"),
    16: ("mouthLowerDownLeft", "mouthLowerDownRight"),
    17: ("mouthShrugLower",),
    18: ("mouthPucker",),
    20: ("mouthStretchLeft", "mouthStretchRight"),
    22: ("mouthFunnel",),
    26: ("jawOpen",),
    28: ("mouthRollLower", "mouthRollUpper"),
    43: ("eyeBlinkLeft", "eyeBlinkRight"),
}
"""A unit's proxy is the mean of these shapes, so a mirrored face keeps its targets.

Left out: 24 (others map mouthPress to 23), 27 (a stronger 26 with the same shape), 11 and 23 (no
shape). 25 combines several shapes, see ``au_proxies``.
"""

UNRELIABLE = (5, 9, 34)
"""Units whose shapes MediaPipe hardly ever moves; excluded from means."""

SILENT = 1e-3
"""A unit whose robust maximum is below this has no signal and is left out."""

_ROBUST = 0.99


def vote_shares(votes: np.ndarray) -> np.ndarray:
    """Divide counts [n, 10] by their row sums; return float32[n, 10].

    Raises:
        TableError: a row has no vote.
    """
    totals = votes.sum(axis=1, keepdims=True, dtype=np.float32)
    if len(votes) and not totals.min() > 0:
        raise TableError("A face has no votes", got="a row of zeros", hint="leave such rows out")
    return votes.astype(np.float32) / totals


def au_proxies(shapes: np.ndarray, names: list[str]) -> tuple[list[int], np.ndarray]:
    """Compute raw AU proxies from blendshape scores.

    Args:
        shapes: float32[n, 52] in [0, 1]; NaN rows where the landmarker found no face.
        names: the 52 names, in the order of the columns.

    Returns:
        The units' FACS numbers, ascending, and float32[n, len(units)], NaN where unknown.
    """
    column = {name: index for index, name in enumerate(names)}
    raw = {
        unit: shapes[:, [column[name] for name in parts]].mean(axis=1)
        for unit, parts in AU_SHAPES.items()
    }
    # Lips part if an opening shape is active and the corrective "lips together" is not.
    opening = np.stack([raw[26], raw[16], raw[10], raw[22]]).max(axis=0)
    raw[25] = np.clip(opening - shapes[:, column["mouthClose"]], 0, 1)
    units = sorted(raw)
    return units, np.stack([raw[unit] for unit in units], axis=1).astype(np.float32)


def robust_scale(units: list[int], proxies: np.ndarray) -> dict[int, float]:
    """Return each unit's 99th percentile, without units below ``SILENT``."""
    known = proxies[np.isfinite(proxies).all(axis=1)]
    if not len(known):
        return {}
    tops = np.quantile(known, _ROBUST, axis=0)
    return {unit: float(top) for unit, top in zip(units, tops, strict=True) if top > SILENT}


def rescale(units: list[int], proxies: np.ndarray, scale: dict[int, float]) -> np.ndarray:
    """Divide the units of ``scale`` by their maximum.

    Returns float32[n, len(scale)] in [0, 1].
    """
    kept = [units.index(unit) for unit in scale]
    tops = np.array(list(scale.values()), dtype=np.float32)
    return np.clip(proxies[:, kept] / tops, 0, 1).astype(np.float32)
