"""Label noise: natural and planted errors, and the effect on training."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from threadpoolctl import threadpool_limits

from annotation.audit.base import AuditResult
from annotation.audit.cross_validation import cross_validated_probabilities
from annotation.audit.knn import nearest
from annotation.audit.label_noise import LabelNoise
from tests.benchmarks.labels_data import Split, interval
from tests.benchmarks.labels_soft import _mixture
from warehouse.vocabulary import EXPRESSIONS

_CLASSES = 8
_BOUGHT, _VOTE = 0.2, 0.3
CHOOSING = 8000
"""Pictures used to choose settings (``--rows 8000``): training data that is not evaluated."""


def measured(
    train: Split, valid: Split, answers: np.ndarray, *, rows: int | None = None
) -> dict[str, Any]:
    """Every figure of the noise part.

    Args:
        rows: number of training pictures, sampled at random; all by default.
    """
    some = train.take(np.flatnonzero(train.label >= 0))
    counted = np.ones(len(some), dtype=bool)
    if rows is not None and rows < len(some):
        some, counted = some.take(_drawn(some, rows)), counted[:rows]
    elif len(some) > 2 * CHOOSING:
        counted[_drawn(some, CHOOSING)] = False
    one, two = (_crossfitted(some, some.label, passes=n) for n in (1, 2))
    ours = _audited(some, some.label)
    clear = counted & (some.votes[:, :_CLASSES].max(axis=1) >= 6)
    wrong = some.label != some.plurality
    scores = {
        "class alone": _by_class(some.label, one),
        "cleanlab self_confidence": _cleanlab(some.label, one, "self_confidence"),
        "cleanlab normalized_margin": _cleanlab(some.label, one, "normalized_margin"),
        "cleanlab confidence_weighted_entropy": _cleanlab(
            some.label, one, "confidence_weighted_entropy"
        ),
        "kNN agreement, k = 30": _agreement(some),
        "margin, two passes": _cleanlab(some.label, two, "normalized_margin"),
        "label_noise": ours.rows["score"].to_numpy(),
    }
    found = {
        "pictures": len(some),
        "counted": int(counted.sum()),
        "clear": int(clear.sum()),
        "prevalence": float(wrong[clear].mean()),
        "natural": _figures(scores, wrong, clear, some.groups),
        "masks": _masks(some, one, two, wrong, clear, ours.rows["flag"].to_numpy()),
        "right": _right_by_class(ours, some, wrong, clear),
        "flagged by class": _flagged_by_class(ours.rows["flag"].to_numpy(), some.label),
        "within": _within(some, {"margin": scores["margin, two passes"]}, wrong, clear),
        "bought": _bought(some, scores, wrong, clear),
        "planted": _planted(some),
    }
    return found | {
        "teacher": _teacher(valid, answers),
        "trainer": _trainer(some, valid, scores["label_noise"], ours.rows["flag"].to_numpy()),
    }


def _drawn(some: Split, n: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).choice(len(some), n, replace=False))


def _audited(some: Split, label: np.ndarray) -> AuditResult:
    ids = [f"{row:06d}" for row in range(len(some))]
    return LabelNoise().find(
        labels=label, features=some.features, face_ids=ids, groups=some.groups.tolist()
    )


def _right_by_class(
    ours: AuditResult, some: Split, wrong: np.ndarray, clear: np.ndarray
) -> dict[str, Any]:
    """Share of right labels by class: estimated without votes, and by votes."""
    matrix = ours.statistics["noise_matrix"]
    return {
        name: {
            "estimated": row[name],
            "votes": float(1 - wrong[clear & (some.label == EXPRESSIONS.index(name))].mean()),
        }
        for name, row in matrix.items()
    }


def _flagged_by_class(flags: np.ndarray, label: np.ndarray) -> dict[str, float]:
    return {EXPRESSIONS[one]: float(flags[label == one].mean()) for one in np.unique(label)}


def _within(
    some: Split, scores: dict[str, np.ndarray], wrong: np.ndarray, clear: np.ndarray
) -> dict[str, Any]:
    """Average precision within each given class."""
    found = {}
    for index in np.unique(some.label).tolist():
        rows = clear & (some.label == index)
        found[EXPRESSIONS[index]] = {"wrong": float(wrong[rows].mean())} | {
            name: float(average_precision_score(wrong[rows], -score[rows]))
            for name, score in scores.items()
        }
    return found


def _crossfitted(some: Split, label: np.ndarray, *, passes: int) -> np.ndarray:
    soft = np.eye(_CLASSES)[label]
    return cross_validated_probabilities(
        soft, some.features, groups=some.groups.tolist(), passes=passes
    )


def _cleanlab(label: np.ndarray, belief: np.ndarray, method: str) -> np.ndarray:
    from cleanlab.rank import get_label_quality_scores

    return get_label_quality_scores(label, belief, method=method)


def _by_class(label: np.ndarray, belief: np.ndarray) -> np.ndarray:
    """Mean probability of each class's labels: a baseline without faces."""
    own = belief[np.arange(len(label)), label]
    return np.array([own[label == index].mean() if (label == index).any() else 0.0
                     for index in range(_CLASSES)])[label]  # fmt: skip


def _agreement(some: Split, k: int = 30) -> np.ndarray:
    neighbour = nearest(some.features, k=k).row
    # Copies with the same votes are not independent evidence.
    other = some.groups[neighbour] != some.groups[:, None]
    same = (some.label[neighbour] == some.label[:, None]) & other
    return same.sum(axis=1) / np.maximum(other.sum(axis=1), 1)


def _figures(
    scores: dict[str, np.ndarray], wrong: np.ndarray, clear: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    truth, inside = wrong[clear], groups[clear]
    found = {}
    for name, score in scores.items():
        doubt = -score[clear]
        found[name] = {
            "ap": interval(inside, _of(average_precision_score, truth, doubt), resamples=200),
            "auroc": interval(inside, _of(roc_auc_score, truth, doubt), resamples=200),
            "p1000": _precision(truth, doubt, 1000),
        }
    return found


def _of(figure: Any, truth: np.ndarray, doubt: np.ndarray) -> Any:
    return lambda rows: float(figure(truth[rows], doubt[rows]))


def _precision(truth: np.ndarray, doubt: np.ndarray, n: int) -> float:
    worst = np.argsort(-doubt, kind="stable")[: min(n, len(doubt))]
    return float(truth[worst].mean())


def _masks(
    some: Split,
    one: np.ndarray,
    two: np.ndarray,
    wrong: np.ndarray,
    clear: np.ndarray,
    flags: np.ndarray,
) -> dict[str, Any]:
    from cleanlab.filter import find_label_issues

    masks = {
        f"cleanlab {way}": find_label_issues(some.label, one, filter_by=way, n_jobs=1)
        for way in ("prune_by_noise_rate", "both", "confident_learning", "predicted_neq_given")
    }
    masks["cleanlab low_normalized_margin, two passes"] = find_label_issues(
        some.label, two, filter_by="low_normalized_margin", n_jobs=1
    )
    masks["label_noise"] = flags
    return {name: _mask(mask, wrong, clear, some.groups) for name, mask in masks.items()}


def _mask(
    mask: np.ndarray, wrong: np.ndarray, clear: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    flagged, truth = mask[clear], wrong[clear]
    hits = (flagged & truth).sum()
    f1 = _of(lambda a, b: 2 * (a & b).sum() / max(a.sum() + b.sum(), 1), flagged, truth)
    return {
        "flagged": float(mask.mean()),
        "precision": float(hits / max(flagged.sum(), 1)),
        "recall": float(hits / truth.sum()),
        "f1": interval(groups[clear], f1, resamples=200),
    }


def _bought(
    some: Split, scores: dict[str, np.ndarray], wrong: np.ndarray, clear: np.ndarray
) -> dict[str, Any]:
    """Add one vote to the worst-ranked fifth, or to every face.

    The vote is one of the ten that define the truth, which favours both.
    """
    rng = np.random.default_rng(0)
    vote = np.array([rng.choice(10, p=row / row.sum()) for row in some.votes])
    says = np.where(vote == some.label, 1.0, -1.0)
    ours = scores["label_noise"]
    asked = ours <= np.quantile(ours, _BOUGHT)
    arms = {
        "one vote on the worst 20 %": ours + np.where(asked, _VOTE * says, 0.0),
        "one vote on a random 20 %": ours + np.where(rng.permutation(asked), _VOTE * says, 0.0),
        "one vote on every face, no machine": says,
        "one vote on every face": ours + _VOTE * says,
    }
    return {
        name: interval(
            some.groups[clear], _of(average_precision_score, wrong[clear], -score[clear]),
            resamples=200,
        )
        for name, score in arms.items()
    }  # fmt: skip


def _planted(some: Split) -> dict[str, Any]:
    """Plant noise on faces with eight votes or more for one expression."""
    sure = some.take(np.flatnonzero(some.votes[:, :_CLASSES].max(axis=1) >= 8))
    truth, rng = sure.plurality, np.random.default_rng(0)
    confusion = np.zeros((_CLASSES, _CLASSES))
    np.add.at(confusion, (some.plurality, some.label), 1)
    np.fill_diagonal(confusion, 0)
    shaped = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    even = (1 - np.eye(_CLASSES)) / (_CLASSES - 1)
    found = {}
    for name, table in (("symmetric 20 %", even), ("FER2013's confusions 20 %", shaped)):
        flip = (rng.random(len(sure)) < 0.2) & (table[truth].sum(axis=1) > 0)
        label = np.array([rng.choice(_CLASSES, p=table[t]) if f else t
                          for t, f in zip(truth, flip, strict=True)])  # fmt: skip
        one, two = (_crossfitted(sure, label, passes=n) for n in (1, 2))
        scores = {
            "cleanlab normalized_margin": _cleanlab(label, one, "normalized_margin"),
            "margin, two passes": _cleanlab(label, two, "normalized_margin"),
            "label_noise": _audited(sure, label).rows["score"].to_numpy(),
        }
        found[name] = {
            way: float(average_precision_score(flip, -score)) for way, score in scores.items()
        }
    return found


def _teacher(valid: Split, answers: np.ndarray) -> dict[str, Any]:
    """Audit FER2013's labels by the packaged rater."""
    known = np.flatnonzero(valid.label >= 0)
    some, belief = valid.take(known), answers[known, :_CLASSES].astype(float)
    belief /= belief.sum(axis=1, keepdims=True)
    clear = some.votes[:, :_CLASSES].max(axis=1) >= 6
    wrong = some.label != some.plurality
    margin = _cleanlab(some.label, belief, "normalized_margin")
    return {
        "pictures": int(clear.sum()),
        "prevalence": float(wrong[clear].mean()),
        **_figures({"rater, margin": margin}, wrong, clear, some.groups),
        "masks": _masks(some, belief, belief, wrong, clear, margin < LabelNoise().threshold),
    }


def _trainer(some: Split, valid: Split, score: np.ndarray, flags: np.ndarray) -> dict[str, Any]:
    """Accuracy and recalls of a linear classifier on clear faces, by labels."""
    rng = np.random.default_rng(0)
    worst = score <= np.quantile(score, 0.3)
    asked = np.stack(
        [rng.multivariate_hypergeometric(row, min(3, row.sum())) for row in some.votes]
    )
    hard, full = np.eye(_CLASSES)[some.label], np.eye(_CLASSES)[some.plurality]
    # The original label is one more vote beside the three new ones.
    bought = asked.astype(float)
    bought[:, :_CLASSES] += hard
    likely = _mixture(bought, None)[:, :_CLASSES]
    corrected = np.where(worst[:, None], likely / likely.sum(axis=1, keepdims=True), hard)
    all_faces = np.ones(len(some), dtype=bool)
    arms = {
        "FER2013's labels": (hard, all_faces),
        "random 30 % dropped": (hard, rng.permutation(~worst)),
        "worst 30 % dropped": (hard, ~worst),
        "flagged dropped": (hard, ~flags),
        "three votes on the worst 30 %": (corrected, all_faces),
        "three votes on a random 30 %": (_instead(hard, likely, rng.permutation(worst)), all_faces),
        "plurality of ten votes": (full, all_faces),
    }
    clear = valid.votes[:, :_CLASSES].max(axis=1) >= 6
    test = valid.take(np.flatnonzero(clear))
    said = {name: _train(some, *arm, test) for name, arm in arms.items()}
    right = {name: (answer == test.plurality).astype(float) for name, answer in said.items()}
    base, classes = right["FER2013's labels"], np.unique(test.plurality)
    return {
        name: {
            **interval(test.groups, _share(value)),
            "gain": interval(test.groups, _share(value - base)),
            "macro f1": float(f1_score(test.plurality, said[name], average="macro",
                                       labels=classes, zero_division=0)),
            "recall": {EXPRESSIONS[one]: float(value[test.plurality == one].mean())
                       for one in classes.tolist()},
            "faces": {EXPRESSIONS[one]: int((test.plurality == one).sum())
                      for one in classes.tolist()},
        }
        for name, value in right.items()
    }  # fmt: skip


def _instead(hard: np.ndarray, likely: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(rows[:, None], likely / likely.sum(axis=1, keepdims=True), hard)


def _share(right: np.ndarray) -> Any:
    return lambda rows: float(right[rows].mean())


def _train(some: Split, soft: np.ndarray, rows: np.ndarray, test: Split) -> np.ndarray:
    face, expression = np.nonzero((soft > 0.02) & rows[:, None])
    with threadpool_limits(1):
        model = LogisticRegression(C=0.01, max_iter=200)
        model.fit(some.features[face], expression, sample_weight=soft[face, expression])
        return model.predict(test.features)
