"""How good predictions are on a split: by classes that are there, and against the shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warehouse.errors import ReleaseError
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    import numpy as np


def evaluate(soft: np.ndarray, predicted: np.ndarray) -> dict[str, float | int]:
    """Scores of predicted distributions against soft labels.

    The hard view takes the largest share as truth and leaves out faces whose largest shares tie;
    the soft view keeps every face that has a label. Classes are far from balanced, and a small
    split lacks some of them: means are over the classes that are there.

    Args:
        soft: float[n, 8], each row summing to 1; NaN rows (no vote within the classes) are
            left out.
        predicted: float[n, 8] in [0, 1].

    Returns:
        ``macro_f1_present`` (mean F1 over the classes of the truth), ``balanced_accuracy``
        (mean recall over them), ``accuracy``, ``cross_entropy`` (nats, against the shares; the
        predictions floored at 1e-6), ``n`` faces of the soft view, ``n_hard`` of the hard one
        and ``classes`` in it. A score without faces is NaN.

    Raises:
        ReleaseError: the two do not fit each other.
    """
    import numpy as np

    if soft.shape != predicted.shape or soft.ndim != 2 or soft.shape[1] != len(EXPRESSIONS):
        raise ReleaseError(
            f"two arrays [n, {len(EXPRESSIONS)}]",
            got=f"{list(soft.shape)} and {list(predicted.shape)}",
            hint="give one row of eight shares per face to each",
        )
    known = ~np.isnan(soft).any(axis=1)
    soft, predicted = soft[known].astype(float), predicted[known].astype(float)
    top = np.sort(soft, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-6
    truth, guess = soft[clear].argmax(axis=1), predicted[clear].argmax(axis=1)
    present = np.unique(truth)
    hit = np.array([np.sum((truth == k) & (guess == k)) for k in present])
    real = np.array([np.sum(truth == k) for k in present])
    said = np.array([np.sum(guess == k) for k in present])
    cross = -(soft * np.log(np.maximum(predicted, 1e-6))).sum(axis=1)
    return {
        "macro_f1_present": _mean(2 * hit / np.maximum(real + said, 1)),
        "balanced_accuracy": _mean(hit / np.maximum(real, 1)),
        "accuracy": _mean(truth == guess),
        "cross_entropy": _mean(cross),
        "n": len(soft),
        "n_hard": len(truth),
        "classes": len(present),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
