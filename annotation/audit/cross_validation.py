"""Out-of-sample probabilities when no rater brings them: every face judged by the others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from warehouse.vocabulary import EXPRESSIONS

_FOLDS = 5
_SHRINKAGE = 0.01
"""Of 0.001, 0.01, 0.1 and 1 this found the most label errors on MediaPipe blendshapes of 4,000
FER2013 pictures (average precision 0.632, 0.634, 0.618, 0.605) and little less on pixels; less
shrinkage is certain of everything when forty faces have 256 features."""

_DOUBTED = -0.15
"""Margin P[label] - max P[other] under which a face teaches nobody in the second pass. Against
FER2013's own noise (8,000 pictures, HOG and blendshapes) the second pass raised the average
precision from 0.631 to 0.646, a third one to 0.651; dropping everything below 0 did no better."""

_FEWEST = 10
"""Labelled faces below which folds are too small to teach anything."""


def probabilities(
    soft: np.ndarray,
    features: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    passes: int = 2,
    seed: int = 0,
) -> np.ndarray:
    """Cross-fitted probabilities of a linear classifier on the features.

    In later passes the labels that the earlier ones contradict clearly are not taught any more,
    or the classifier would believe the errors it is to find; the answer is the mean of all
    passes. The label of a face is never taught to what judges it; it only helps to choose which
    others are taught.

    Args:
        soft: float[n, 8], NaN rows for faces without a label; a face teaches each of its
            expressions with that share as its weight.
        features: float[n, d].
        groups: one per face; a group is never on both sides of a fold.
        passes: at least 1.

    Returns:
        float[n, 8], rows sum to 1. NaN rows: without a label, or everywhere when there are fewer
        than ten labelled faces, one class or one group, from which nothing can be learned.
    """
    found = np.full((len(soft), len(EXPRESSIONS)), np.nan)
    rows, folds = split(soft, groups, n_splits=_FOLDS, seed=seed)
    if not folds:
        return found
    label = soft.argmax(axis=1)
    taught, sums = np.ones(len(rows), dtype=bool), np.zeros((len(rows), len(EXPRESSIONS)))
    for number in range(passes):
        for train, test in folds:
            known = train[taught[train]]
            if len(np.unique(label[rows[known]])) < 2:
                known = train
            sums[test] += _fit(soft[rows[known]], features[rows[known]], features[rows[test]])
        taught = _margin(sums / (number + 1), label[rows]) >= _DOUBTED
    found[rows] = sums / passes
    return found


def split(
    soft: np.ndarray, groups: Sequence[str] | None, *, n_splits: int, seed: int
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Rows with a label, and folds of them: pairs of positions within these rows.

    Folds hold the classes alike and part no group. No folds when there are fewer than ten
    labelled faces, one class or one group, from which nothing can be learned.
    """
    rows = np.flatnonzero(~np.isnan(soft[:, 0]))
    label = np.nan_to_num(soft).argmax(axis=1)[rows]
    names = None if groups is None else np.asarray(groups, dtype=str)[rows]
    n_groups = len(rows) if names is None else len(np.unique(names))
    if len(rows) < _FEWEST or len(np.unique(label)) < 2 or n_groups < 2:
        return rows, []
    return rows, _folds(label, names, n_splits=min(n_splits, n_groups), seed=seed)


def _margin(belief: np.ndarray, label: np.ndarray) -> np.ndarray:
    own = belief[np.arange(len(label)), label]
    others = belief.copy()
    others[np.arange(len(label)), label] = -np.inf
    return own - others.max(axis=1)


def _folds(
    label: np.ndarray, groups: np.ndarray | None, *, n_splits: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    options = {"n_splits": n_splits, "shuffle": True, "random_state": seed}
    empty = np.zeros((len(label), 1))
    with warnings.catch_warnings():
        # A class rarer than the folds is missing from some of them, which is fine here.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        if groups is not None:
            return list(StratifiedGroupKFold(**options).split(empty, label, groups))
        if np.bincount(label).max() < n_splits:
            return list(KFold(**options).split(empty))
        return list(StratifiedKFold(**options).split(empty, label))


def _fit(soft: np.ndarray, features: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    face, expression = np.nonzero(soft > 0)
    proba = np.zeros((len(unseen), len(EXPRESSIONS)))
    classes = np.unique(expression)
    if len(classes) == 1:
        proba[:, classes[0]] = 1.0
        return proba
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_SHRINKAGE, max_iter=500))
    weight = soft[face, expression]
    # Problems this small lose a hundredfold when BLAS threads fight over two busy cores.
    with threadpool_limits(1):
        model.fit(features[face], expression, logisticregression__sample_weight=weight)
        proba[:, classes] = model.predict_proba(unseen)
    return proba
