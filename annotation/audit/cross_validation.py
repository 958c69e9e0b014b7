"""Out-of-sample probabilities: cross-validate, or check given ones."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import polars as pl

from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

TrainedOn = Mapping[str, Collection[str]]
"""Rater id (or fold) to the ids of the faces that it was trained on."""

_FOLDS = 5
_REGULARIZATION = 0.01
"""C of the logistic regression. Average precision of label errors on MediaPipe blendshapes of 4,000
FER2013 pictures: 0.632, 0.634, 0.618, 0.605 at 0.001, 0.01, 0.1, 1, with little less on pixels. A
larger C overfits forty faces with 256 features."""

_MIN_MARGIN = -0.15
"""Margin P[label] - max P[other] below which a face is left out of the second pass. Against the
noise of FER2013 (8,000 pictures, HOG and blendshapes) the second pass raised the average
precision from 0.631 to 0.646, a third one to 0.651. Leaving out all faces below 0 was no better."""

_MIN_FACES = 10
"""Labelled faces below which folds are too small for training."""


def cross_validated_probabilities(
    soft: np.ndarray,
    features: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    passes: int = 2,
    seed: int = 0,
) -> np.ndarray:
    """Cross-validate a linear classifier on features.

    Later passes leave labels out of the training that earlier passes clearly contradict; otherwise
    the classifier would learn the errors it is to find. The result is the mean of all passes. A
    face is never judged by a classifier trained on its own label; its label only affects which
    other faces are used.

    Args:
        soft: float[n, 8], NaN rows for faces without a label. A face is a training example of each
            of its expressions, weighted by its share.
        features: float[n, d].
        groups: one per face; a group is never on both sides of a fold.
        passes: at least 1.

    Returns:
        float[n, 8], rows sum to 1. NaN rows for faces without a label, and everywhere if there are
        fewer than ten labelled faces, one class or one group.
    """
    found = np.full((len(soft), len(EXPRESSIONS)), np.nan)
    rows, folds = split(soft, groups, n_splits=_FOLDS, seed=seed)
    if not folds:
        return found
    label = soft.argmax(axis=1)
    used, sums = np.ones(len(rows), dtype=bool), np.zeros((len(rows), len(EXPRESSIONS)))
    for number in range(passes):
        for train, test in folds:
            kept = train[used[train]]
            if len(np.unique(label[rows[kept]])) < 2:
                kept = train
            sums[test] += _fit_predict(soft[rows[kept]], features[rows[kept]], features[rows[test]])
        used = _margin(sums / (number + 1), label[rows]) >= _MIN_MARGIN
    found[rows] = sums / passes
    return found


def split(
    soft: np.ndarray, groups: Sequence[str] | None, *, n_splits: int, seed: int
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Split labelled rows into stratified folds that keep groups together.

    Returns:
        The labelled rows, and pairs (train, test) of positions within them. No pairs if there are
        fewer than ten labelled faces, one class or one group.
    """
    rows = np.flatnonzero(~np.isnan(soft[:, 0]))
    label = np.nan_to_num(soft).argmax(axis=1)[rows]
    names = None if groups is None else np.asarray(groups, dtype=str)[rows]
    n_groups = len(rows) if names is None else len(np.unique(names))
    if len(rows) < _MIN_FACES or len(np.unique(label)) < 2 or n_groups < 2:
        return rows, []
    return rows, _folds(label, names, n_splits=min(n_splits, n_groups), seed=seed)


def check_out_of_sample(
    rater_of: Sequence[str],
    face_ids: Sequence[str],
    trained_on: TrainedOn,
    *,
    groups: Sequence[str] | None = None,
) -> None:
    """Check that no rater rated a face or group that it was trained on.

    Args:
        rater_of: the rater of each face; several raters are joined by ``+``.
        face_ids: in the same order.
        trained_on: of every rater in ``rater_of``; empty if it was trained on other faces.
        groups: one per face: near duplicates, or a person.

    Raises:
        SettingsError: a rater is missing in ``trained_on``, or rated a face it was trained on.
    """
    frame = pl.DataFrame(
        {
            "face": list(face_ids),
            "rater": [name.split("+") for name in rater_of],
            "group": list(face_ids if groups is None else groups),
        },
        schema={"face": pl.String, "rater": pl.List(pl.String), "group": pl.String},
    ).explode("rater")
    missing = sorted(set(frame["rater"].drop_nulls()) - trained_on.keys())
    if missing or frame["rater"].null_count():
        raise SettingsError(
            "The training faces of a rater are unknown",
            got=f"nothing about {', '.join(missing[:3]) or 'faces without a rater'}",
            hint="add the rater to trained_on=, with an empty set if it was trained elsewhere",
        )
    training = pl.DataFrame(
        [(rater, face) for rater in sorted(set(frame["rater"])) for face in trained_on[rater]],
        schema={"rater": pl.String, "face": pl.String},
        orient="row",
    )
    group_of = frame.select("face", "group").unique()
    # A training face that is not rated here is its own group.
    seen = training.join(group_of, on="face", how="left").with_columns(
        group=pl.coalesce("group", "face")
    )
    both = frame.join(seen.select("rater", "group").unique(), on=["rater", "group"], how="semi")
    if both.height:
        first = both.sort("face").row(0, named=True)
        raise SettingsError(
            "Probabilities are in sample",
            got=f"{both['face'].n_unique()} faces rated by a rater that was trained on them or "
            f"their group, the first {first['face']!r} by {first['rater']}",
            hint="rate each face with the fold that left it out, as "
            "annotation.raters.training.out_of_sample does",
        )


def _margin(probabilities: np.ndarray, label: np.ndarray) -> np.ndarray:
    own = probabilities[np.arange(len(label)), label]
    others = probabilities.copy()
    others[np.arange(len(label)), label] = -np.inf
    return own - others.max(axis=1)


def _folds(
    label: np.ndarray, groups: np.ndarray | None, *, n_splits: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    options = {"n_splits": n_splits, "shuffle": True, "random_state": seed}
    empty = np.zeros((len(label), 1))
    with warnings.catch_warnings():
        # A class with fewer faces than folds is missing from some folds, which is fine here.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        if groups is not None:
            return list(StratifiedGroupKFold(**options).split(empty, label, groups))
        if np.bincount(label).max() < n_splits:
            return list(KFold(**options).split(empty))
        return list(StratifiedKFold(**options).split(empty, label))


def _fit_predict(soft: np.ndarray, features: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    face, expression = np.nonzero(soft > 0)
    probabilities = np.zeros((len(unseen), len(EXPRESSIONS)))
    classes = np.unique(expression)
    if len(classes) == 1:
        probabilities[:, classes[0]] = 1.0
        return probabilities
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_REGULARIZATION, max_iter=500))
    weight = soft[face, expression]
    # With several BLAS threads, problems this small are a hundred times slower on two busy cores.
    with threadpool_limits(1):
        model.fit(features[face], expression, logisticregression__sample_weight=weight)
        probabilities[:, classes] = model.predict_proba(unseen)
    return probabilities
