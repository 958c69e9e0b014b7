"""Open set: held-out classes, unknown faces, and non-faces."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from annotation.audit.open_set import ClosedSet, cycle_training
from tests.benchmarks.labels_data import Split, interval
from warehouse.vocabulary import EXPRESSIONS

_BASIC = 7
_PREVALENCE = (None, 0.05)


def measured(
    train: Split, valid: Split, answers: np.ndarray, found: np.ndarray, *, rows: int | None = None
) -> dict[str, Any]:
    """AUROC by held-out class, and of unknown and not a face.

    Args:
        rows: number of closed training faces, sampled at random; all by default.
    """
    closed = train.take(np.flatnonzero(train.majority))
    if rows is not None and rows < len(closed):
        chosen = np.random.default_rng(0).choice(len(closed), rows, replace=False)
        closed = closed.take(np.sort(chosen))
    pool = valid.take(np.flatnonzero(valid.majority))
    classes = {EXPRESSIONS[index]: _held_out(closed, pool, index) for index in range(_BASIC)}
    names = list(next(iter(classes.values()))["auroc"])
    means = {name: float(np.mean([one["auroc"][name]["value"] for one in classes.values()]))
             for name in names}  # fmt: skip
    return {"classes": classes, "mean": means, "people": _by_people(valid, answers, found)}


def _held_out(closed: Split, pool: Split, held: int) -> dict[str, Any]:
    training = closed.take(np.flatnonzero(closed.plurality != held))
    known = ClosedSet.fit(training.features, training.plurality)
    assert known is not None
    is_open = pool.plurality == held
    scores = known.scores(pool.features)
    scores["fused"] = known.fused(scores)
    predicted = known.model.classes_[_first(known, pool.features)]
    figures = {name: _auroc(pool.groups, is_open, score) for name, score in scores.items()}
    for share in _PREVALENCE:
        rows = _at(is_open, share)
        start = scores["fused"][rows]
        cycle = cycle_training(training.features, training.plurality, pool.features[rows], start)
        name = "cycled" if share is None else f"cycled, {share:.0%} open"
        figures[name] = _auroc(pool.groups[rows], is_open[rows], cycle)
    return {
        "open": int(is_open.sum()),
        "closed accuracy": float((predicted == pool.plurality)[~is_open].mean()),
        "auroc": figures,
    }


def _first(known: ClosedSet, features: np.ndarray) -> np.ndarray:
    return known.model.decision_function((features - known.center) / known.scale).argmax(axis=1)


def _at(is_open: np.ndarray, share: float | None) -> np.ndarray:
    if share is None:
        return np.arange(len(is_open))
    rows = np.flatnonzero(is_open)
    wanted = int(share / (1 - share) * (~is_open).sum())
    drawn = np.random.default_rng(0).choice(rows, min(wanted, len(rows)), replace=False)
    return np.sort(np.concatenate([np.flatnonzero(~is_open), drawn]))


def _auroc(groups: np.ndarray, is_open: np.ndarray, score: np.ndarray) -> dict[str, float]:
    def of(rows: np.ndarray) -> float:
        truth = is_open[rows]
        return float(roc_auc_score(truth, score[rows])) if 0 < truth.sum() < len(truth) else np.nan

    return interval(groups, of, resamples=200)


def _by_people(valid: Split, answers: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    closed = answers[:, :8] / answers[:, :8].sum(axis=1, keepdims=True)
    entropy = -(closed * np.log(np.maximum(closed, 1e-12))).sum(axis=1)
    unknown, not_a_face = valid.votes[:, 8], valid.votes[:, 9]
    cases = {
        "unknown is the plurality": unknown == valid.votes.max(axis=1),
        "3 votes or more for unknown": unknown >= 3,
        "a vote for not a face": not_a_face >= 1,
    }
    scores = {
        "rater, mass on unknown and not a face": answers[:, 8:].sum(axis=1),
        "rater, entropy of the expressions": entropy,
        "rater, not a face": answers[:, 9],
        "no face found": (~found).astype(float) + 1e-3 * answers[:, 9],
    }
    return {
        case: {"open": int(truth.sum())}
        | {name: _auroc(valid.groups, truth, score) for name, score in scores.items()}
        for case, truth in cases.items()
        if truth.sum() >= 3
    }
