"""Scores of published benchmarks; each names where it is defined."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from warehouse.errors import ReleaseError

_FLOOR = 1e-6
"""Least predicted probability in a cross-entropy, so that one zero does not make it infinite."""


def confusion(truth: np.ndarray, guess: np.ndarray, *, classes: int) -> np.ndarray:
    """Return int[k, k]: rows are the truth, columns the guess."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (truth.astype(int), guess.astype(int)), 1)
    return counts


def war(counts: np.ndarray) -> float:
    """Return the weighted average recall, which is the accuracy.

    Schuller et al., 2011, doi:10.1016/j.specom.2011.01.011; of DFEW and its successors.
    """
    total = counts.sum()
    return float(np.trace(counts) / total) if total else float("nan")


def uar(counts: np.ndarray) -> float:
    """Return the unweighted average recall over the classes of the truth.

    Schuller et al., 2011, doi:10.1016/j.specom.2011.01.011. It equals the balanced accuracy.
    """
    actual = counts.sum(axis=1)
    present = actual > 0
    return _mean(np.diag(counts)[present] / actual[present])


def uf1(counts: np.ndarray) -> float:
    """Return the unweighted F1 over the classes of the truth.

    See et al., MEGC 2019, doi:10.1109/FG.2019.8756611. True and false positives are summed over the
    folds of leave-one-subject-out before the score is taken, so give one matrix for all folds.
    """
    hits = np.diag(counts)
    actual, guessed = counts.sum(axis=1), counts.sum(axis=0)
    present = actual > 0
    return _mean(2 * hits[present] / (actual + guessed)[present])


def ccc(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the concordance correlation coefficient of two traces.

    Lin, 1989, doi:10.2307/2532051, with population variances, as ABAW and OMG score it. Pairs with
    NaN are left out. Two equal constants agree, two different ones do not.
    """
    known = ~(np.isnan(truth) | np.isnan(predicted))
    x, y = truth[known].astype(float), predicted[known].astype(float)
    if not len(x):
        return float("nan")
    denominator = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    if denominator == 0:
        return 1.0
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / denominator)


def auroc(is_open: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve of detecting open-set faces.

    The probability that an open-set face scores higher than a known one, ties counting half
    (Hanley & McNeil, 1982, doi:10.1148/radiology.143.1.7063747).
    """
    positive, negative = scores[is_open], scores[~is_open]
    if not len(positive) or not len(negative):
        return float("nan")
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    n = len(positive)
    return float((ranks - n * (n + 1) / 2) / (n * len(negative)))


def fpr_at_tpr(is_open: np.ndarray, scores: np.ndarray, *, tpr: float = 0.95) -> float:
    """Return the share of open-set faces taken for known ones.

    A face is accepted as known up to a threshold of its open-set score, the lowest that accepts
    ``tpr`` of the known faces (Hendrycks & Gimpel, 2017, arXiv:1610.02136, and Liang et al., 2018,
    arXiv:1706.02690, for 95 %).
    """
    known, unknown = np.sort(scores[~is_open]), scores[is_open]
    if not len(known) or not len(unknown):
        return float("nan")
    threshold = known[int(np.ceil(tpr * len(known) - 1e-9)) - 1]
    return _mean(unknown <= threshold)


def soft_cross_entropy(soft: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean cross-entropy in nats against shares.

    Barsoum et al., 2016, doi:10.1145/2993148.2993165, equation 4. Predictions are clipped to at
    least 1e-6.
    """
    return _mean(-(soft * np.log(np.maximum(predicted, _FLOOR))).sum(axis=1))


def wheel_overlap(
    truth: Sequence[Collection[str]],
    predicted: Sequence[Collection[str]],
    *,
    wheel: Mapping[str, str],
) -> dict[str, float]:
    """Return how well sets of free words agree after grouping by a wheel.

    Lian et al., 2024, arXiv:2410.01495 (OV-MER): every word is replaced by its group, and precision
    and recall of the sets are averaged over items. ``fs`` is their harmonic mean.

    Args:
        truth, predicted: words of each item. An item without any word on either side is left out.
        wheel: lower-case word to group. A word outside the wheel is a group of its own.
    """
    if len(truth) != len(predicted):
        raise ReleaseError(
            "The lists of words differ in length",
            got=f"{len(truth)} and {len(predicted)}",
            hint="give one set of words per item to each",
        )
    precision, recall = [], []
    for said, guessed in zip(truth, predicted, strict=True):
        left, right = _groups(said, wheel), _groups(guessed, wheel)
        if left and right:
            precision.append(len(left & right) / len(right))
            recall.append(len(left & right) / len(left))
    p, r = _mean(np.array(precision)), _mean(np.array(recall))
    return {"precision": p, "recall": r, "fs": 2 * p * r / (p + r) if p + r else 0.0}


def _groups(words: Collection[str], wheel: Mapping[str, str]) -> set[str]:
    clean = {word.strip().lower() for word in words}
    return {wheel.get(word, word) for word in clean if word}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
