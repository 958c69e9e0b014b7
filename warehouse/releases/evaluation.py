"""Score predicted distributions against soft labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from warehouse.errors import ReleaseError
from warehouse.releases import metrics
from warehouse.vocabulary import EXPRESSIONS


def evaluate(
    soft: np.ndarray,
    predicted: np.ndarray,
    *,
    is_open: np.ndarray | None = None,
    open_scores: np.ndarray | None = None,
    mood: np.ndarray | None = None,
    predicted_mood: np.ndarray | None = None,
    words: Sequence[Collection[str]] | None = None,
    predicted_words: Sequence[Collection[str]] | None = None,
    wheel: Mapping[str, str] | None = None,
) -> dict[str, float | int]:
    """Return hard and soft scores of predictions.

    Hard scores take the largest share as truth and leave out faces with tied shares. Soft scores
    use every labelled face. Means are over the classes that occur, because small splits lack some.
    ``warehouse.releases.metrics`` names the source of each score. For leave-one-subject-out give
    the predictions of all folds at once.

    Args:
        soft: float[n, k], each row summing to 1; rows with NaN (no vote within the classes) are
            left out. k is 8 for config ``default``.
        predicted: float[n, k] in [0, 1].
        is_open: bool[n], faces outside the known classes, with ``open_scores`` float[n], higher for
            open: adds ``auroc`` and ``fpr_at_95_tpr``.
        mood: float[n, 2] valence and arousal, with ``predicted_mood``: adds ``ccc_valence`` and
            ``ccc_arousal``.
        words: free words of each face, with ``predicted_words`` and a ``wheel``: adds
            ``wheel_precision, wheel_recall, wheel_fs``.

    Returns:
        ``macro_f1_present`` (mean F1 over the classes of the truth; ``uf1`` is the same score),
        ``balanced_accuracy`` (mean recall over them; ``uar``), ``accuracy`` (``war``),
        ``cross_entropy`` (nats, against the shares, predictions clipped to at least 1e-6), ``n``
        labelled faces, ``n_hard`` faces without ties and ``classes`` in them. A score without faces
        is NaN.

    Raises:
        ReleaseError: the shapes differ.
    """
    if soft.shape != predicted.shape or soft.ndim != 2 or soft.shape[1] < 2:
        raise ReleaseError(
            f"The arrays are not both [n, {len(EXPRESSIONS)}]",
            got=f"{list(soft.shape)} and {list(predicted.shape)}",
            hint="give one row of shares per face to each",
        )
    pairs = {"open_scores": (is_open, open_scores), "predicted_mood": (mood, predicted_mood),
             "predicted_words": (words, predicted_words)}  # fmt: skip
    for name, (truth, guess) in pairs.items():
        if (truth is None) != (guess is None) or (
            truth is not None and guess is not None and len(truth) != len(guess)
        ):
            raise ReleaseError(
                f"The truth and {name} do not belong together",
                got="one of them is missing, or their lengths differ",
                hint="give one value per face to each",
            )
    found = _closed(soft, predicted)
    if is_open is not None and open_scores is not None:
        known = np.asarray(is_open, dtype=bool), np.asarray(open_scores, dtype=float)
        found |= {"auroc": metrics.auroc(*known), "fpr_at_95_tpr": metrics.fpr_at_tpr(*known)}
    if mood is not None and predicted_mood is not None:
        for column, name in enumerate(("valence", "arousal")):
            found[f"ccc_{name}"] = metrics.ccc(mood[:, column], predicted_mood[:, column])
    if words is not None and predicted_words is not None:
        overlap = metrics.wheel_overlap(words, predicted_words, wheel=wheel or {})
        found |= {f"wheel_{name}": value for name, value in overlap.items()}
    return found


def _closed(soft: np.ndarray, predicted: np.ndarray) -> dict[str, float | int]:
    known = ~np.isnan(soft).any(axis=1)
    soft, predicted = soft[known].astype(float), predicted[known].astype(float)
    top = np.sort(soft, axis=1)
    untied = top[:, -1] - top[:, -2] > 1e-6
    truth, guess = soft[untied].argmax(axis=1), predicted[untied].argmax(axis=1)
    counts = metrics.confusion(truth, guess, classes=soft.shape[1])
    f1, recall, accuracy = metrics.uf1(counts), metrics.uar(counts), metrics.war(counts)
    return {
        "macro_f1_present": f1,
        "balanced_accuracy": recall,
        "accuracy": accuracy,
        "uf1": f1,
        "uar": recall,
        "war": accuracy,
        "cross_entropy": metrics.soft_cross_entropy(soft, predicted),
        "n": len(soft),
        "n_hard": len(truth),
        "classes": len(np.unique(truth)),
    }
