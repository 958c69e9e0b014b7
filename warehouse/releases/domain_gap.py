"""Measure how well a classifier separates synthetic faces from real ones.

A linear classifier reads colors, the spectrum and the coarse layout of a picture. Its AUROC, on
faces it did not learn from, is the domain gap: 0.5 if the two look alike to it, 1 if one glance is
enough. A network that trains on both can use whatever this classifier uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from warehouse.ids import sha256_of
from warehouse.storage import media
from warehouse.storage.home import Home

MOST = 500
"""Faces of each kind that are measured, the first by a hash of their ids."""

LEAST = 10
"""Faces of each kind below which nothing is measured."""

_FOLDS = 5
_BOOTSTRAPS = 200
_SIDE = 96
_SMALL = 48
_BANDS = 12


def measure(home: Home, rows: pl.DataFrame) -> dict[str, Any] | None:
    """Return the domain gap of released faces, or None if there are too few.

    Args:
        rows: released faces: ``face_id, subject_id, source, crop``.

    Returns:
        ``real`` and ``synthetic`` (numbers of faces measured) and ``views``: ``name, auroc, low,
        high`` of the crops as released, and of both in gray at 48 px. The second is what remains
        when size and color are the same. The interval is 95 %, by bootstrap over faces.
    """
    made = pl.col("source") == "synthetic"
    parts = [_sample(rows.filter(~made)), _sample(rows.filter(made))]
    if min(part.height for part in parts) < LEAST:
        return None
    chosen = pl.concat(parts)
    synthetic = np.repeat([False, True], [part.height for part in parts])
    crops = [media.load(home, key) for key in chosen["crop"]]
    groups = chosen["subject_id"].fill_null(chosen["face_id"]).to_numpy()
    return {
        "real": parts[0].height,
        "synthetic": parts[1].height,
        "views": [
            {"name": name} | auroc(np.stack([view(crop) for crop in crops]), synthetic, groups)
            for name, view in (("as released", _as_released), ("both gray at 48 px", _gray_48))
        ],
    }


def auroc(features: np.ndarray, positive: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Return the out-of-fold AUROC of a logistic regression.

    Args:
        features: float[n, d].
        positive: bool[n].
        groups: [n]; rows of one group are in one fold.
    """
    scores = _out_of_fold(features, positive, groups)
    rng = np.random.default_rng(0)
    ones, zeros = np.flatnonzero(positive), np.flatnonzero(~positive)
    drawn = [
        _area(scores[rng.choice(zeros, len(zeros))], scores[rng.choice(ones, len(ones))])
        for _ in range(_BOOTSTRAPS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = _area(scores[zeros], scores[ones])
    return {"auroc": round(value, 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _sample(rows: pl.DataFrame) -> pl.DataFrame:
    order = [sha256_of([face.encode()]) for face in rows["face_id"]]
    return rows.select("face_id", "subject_id", "crop")[np.argsort(order)[:MOST]]


def _out_of_fold(features: np.ndarray, positive: np.ndarray, groups: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros(len(features))
    fold = _folds(positive, groups)
    for number in np.unique(fold):
        test = fold == number
        if len(np.unique(positive[~test])) < 2:
            continue  # a single group has all faces of one kind: nothing to learn from
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
        )
        model.fit(features[~test], positive[~test])
        scores[test] = model.decision_function(features[test])
    return scores


def _folds(positive: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Divide the groups of each kind evenly; the larger ones first."""
    fold = np.zeros(len(groups), dtype=int)
    for kind in (False, True):
        names, sizes = np.unique(groups[positive == kind], return_counts=True)
        filled = np.zeros(_FOLDS, dtype=int)
        for at in np.argsort(-sizes, kind="stable"):
            smallest = int(filled.argmin())
            fold[(groups == names[at]) & (positive == kind)] = smallest
            filled[smallest] += sizes[at]
    return fold


def _area(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve; a tie counts half."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left")
    up_to = np.searchsorted(order, positive, side="right")
    return float((below + up_to).mean() / (2 * len(negative)))


def _as_released(crop: np.ndarray) -> np.ndarray:
    import cv2

    color = crop.reshape(-1, 3).astype(float) / 255
    tint = color.max(axis=1) - color.min(axis=1)
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    moments = [*color.mean(axis=0), *color.std(axis=0), tint.mean(), tint.std()]
    return np.concatenate([moments, _layout(gray, _SIDE)])


def _gray_48(crop: np.ndarray) -> np.ndarray:
    import cv2

    return _layout(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), _SMALL)


def _layout(gray: np.ndarray, side: int) -> np.ndarray:
    """Return the radial power spectrum and an 8 x 8 thumbnail of a gray image."""
    import cv2

    small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA).astype(float) / 255
    power = np.abs(np.fft.fftshift(np.fft.fft2(small - small.mean()))) ** 2
    radius = np.hypot(*np.meshgrid(*[np.arange(side) - side // 2] * 2))
    band = np.minimum((radius / (side / 2) * _BANDS).astype(int), _BANDS - 1)
    spectrum = np.log(np.bincount(band.ravel(), power.ravel(), _BANDS) + 1e-6)
    thumbnail = cv2.resize(small, (8, 8), interpolation=cv2.INTER_AREA)
    deviation = thumbnail.std() + 1e-6
    coarse = (thumbnail - thumbnail.mean()) / deviation
    return np.concatenate([spectrum, [small.mean(), small.std()], coarse.ravel()])
