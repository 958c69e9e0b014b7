"""Score predicted distributions against soft labels."""

from __future__ import annotations

import numpy as np

from warehouse.errors import ReleaseError
from warehouse.vocabulary import EXPRESSIONS


def evaluate(soft: np.ndarray, predicted: np.ndarray) -> dict[str, float | int]:
    """Return hard and soft scores of predictions.

    Hard scores take the largest share as truth and leave out faces with tied shares. Soft scores
    use every labelled face. Means are over the classes that occur, because small splits lack some.

    Args:
        soft: float[n, 8], each row summing to 1; rows with NaN (no vote within the classes) are
            left out.
        predicted: float[n, 8] in [0, 1].

    Returns:
        ``macro_f1_present`` (mean F1 over the classes of the truth), ``balanced_accuracy`` (mean
        recall over them), ``accuracy``, ``cross_entropy`` (nats, against the shares, predictions
        clipped to at least 1e-6), ``n`` labelled faces, ``n_hard`` faces without ties and
        ``classes`` in them. A score without faces is NaN.

    Raises:
        ReleaseError: the shapes differ or are not [n, 8].
    """
    if soft.shape != predicted.shape or soft.ndim != 2 or soft.shape[1] != len(EXPRESSIONS):
        raise ReleaseError(
            f"The arrays are not both [n, {len(EXPRESSIONS)}]",
            got=f"{list(soft.shape)} and {list(predicted.shape)}",
            hint="give one row of eight shares per face to each",
        )
    known = ~np.isnan(soft).any(axis=1)
    soft, predicted = soft[known].astype(float), predicted[known].astype(float)
    top = np.sort(soft, axis=1)
    untied = top[:, -1] - top[:, -2] > 1e-6
    truth, guess = soft[untied].argmax(axis=1), predicted[untied].argmax(axis=1)
    present = np.unique(truth)
    hits = np.array([np.sum((truth == k) & (guess == k)) for k in present])
    actual = np.array([np.sum(truth == k) for k in present])
    guessed = np.array([np.sum(guess == k) for k in present])
    cross_entropy = -(soft * np.log(np.maximum(predicted, 1e-6))).sum(axis=1)
    return {
        "macro_f1_present": _mean(2 * hits / np.maximum(actual + guessed, 1)),
        "balanced_accuracy": _mean(hits / np.maximum(actual, 1)),
        "accuracy": _mean(truth == guess),
        "cross_entropy": _mean(cross_entropy),
        "n": len(soft),
        "n_hard": len(truth),
        "classes": len(present),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
