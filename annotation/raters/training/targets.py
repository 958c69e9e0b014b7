"""What the network is taught: the crowd's votes, and AU proxies out of rig weights.

The AU proxies stand on the blendshapes of MediaPipe's landmarker, which are weights of an
animation rig: useful to rank faces by an action, never FACS codes.
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
"""The mean of these shapes stands for the unit; a mirrored face therefore keeps its targets.

Left out: 24 (mouthPress is read as 23 by others), 27 (the same shape as 26, only more of it),
11 and 23 (no shape). 25 is made of several shapes, see ``au_proxies``.
"""

UNRELIABLE = (5, 9, 34)
"""Units whose shapes MediaPipe hardly ever moves; reported apart, never in a mean."""

SILENT = 1e-3
"""A unit whose robust maximum stays below this has no signal to learn and is left out."""

_ROBUST = 0.99


def vote_shares(votes: np.ndarray) -> np.ndarray:
    """Counts [n, 10] in the order of ``vocabulary.ANSWERS`` to float32[n, 10], rows sum to 1.

    Raises:
        TableError: a row without any vote.
    """
    totals = votes.sum(axis=1, keepdims=True, dtype=np.float32)
    if len(votes) and not totals.min() > 0:
        raise TableError("a vote in every row", got="a row of zeros", hint="leave such rows out")
    return votes.astype(np.float32) / totals


def au_proxies(shapes: np.ndarray, names: list[str]) -> tuple[list[int], np.ndarray]:
    """Raw AU proxies from blendshape scores.

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
    # Lips part when any opening shape is on and the corrective "lips together" is off.
    opening = np.stack([raw[26], raw[16], raw[10], raw[22]]).max(axis=0)
    raw[25] = np.clip(opening - shapes[:, column["mouthClose"]], 0, 1)
    units = sorted(raw)
    return units, np.stack([raw[unit] for unit in units], axis=1).astype(np.float32)


def robust_scale(units: list[int], proxies: np.ndarray) -> dict[int, float]:
    """The 99th percentile of each unit over the training set; units below ``SILENT`` go missing."""
    known = proxies[np.isfinite(proxies).all(axis=1)]
    if not len(known):
        return {}
    tops = np.quantile(known, _ROBUST, axis=0)
    return {unit: float(top) for unit, top in zip(units, tops, strict=True) if top > SILENT}


def rescale(units: list[int], proxies: np.ndarray, scale: dict[int, float]) -> np.ndarray:
    """float32[n, len(scale)] in [0, 1]: the units of ``scale``, each over its own maximum."""
    kept = [units.index(unit) for unit in scale]
    tops = np.array(list(scale.values()), dtype=np.float32)
    return np.clip(proxies[:, kept] / tops, 0, 1).astype(np.float32)
