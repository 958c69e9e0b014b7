"""Open set: find faces that show none of the known expressions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from annotation.audit import base
from annotation.audit.base import AuditResult, Values, audit_result
from annotation.audit.knn import Neighbours, nearest, nearest_in
from warehouse.errors import SettingsError, TableError

_NEIGHBOURS = 10
_MIN_FACES = 10
"""Faces below which a distance to the others has no meaning."""

_FOLDS = 5

_MIN_DISTANCE = 1e-6
"""Median neighbour distance below which most faces are copies and all others look far away."""

_SLOPE = math.log(2) / 1.7
"""Halves the evidence at 2.7 median distances; 0.2 % of FER+'s faces are farther away."""

_DETAILS = {
    "people": "people say unknown or not a face",
    "rater": "the machine rater finds no known expression",
    "probability": "the machine rater cannot choose",
    "features": "unlike the other faces",
    "classes": "unlike the faces of every class",
}

SCORES = ("msp", "energy", "gen", "vim", "features", "answers")
FUSED = ("energy", "vim", "features", "answers")
"""Chosen on FER+ train against valid with HOG and blendshapes, each basic class held out in turn:
mean AUROC 0.797 together, 0.746 for the best single score, 0.775 without ``answers``."""

_REGULARIZATION, _MAX_ITER = 0.01, 200
_GEN_POWER = 0.1
_NEAREST_FEATURES, _NEAREST_ANSWERS = 10, 50
_PRINCIPAL_SHARE = 0.4
_REFERENCE = 5
"""One closed face in so many is not used for training but as reference for unseen faces."""

_MAX_TRAINING = 40_000
"""Training faces per closed set. More would make an audit of a million faces cost their square."""


@dataclass(frozen=True)
class OpenSet:
    """Combine open-set votes of people with out-of-distribution scores.

    Evidence that a face is *closed* (shows a known expression), each in [0, 1]:

    - *rater*: 1 - the machine rater's mass on ``unknown`` and ``not_a_face``.
    - *probability*: cleanlab's ``OutOfDistribution`` on the probabilities, 1 - half the normalised
      entropy. Ambiguous faces are common and mostly closed, so this ranks and never flags alone.
    - *features*: cleanlab's ``OutOfDistribution`` on the features, from the mean cosine distance
      to the nearest k: 1 for the nearer half of the faces, 1/2 at 2.7 times the median distance,
      1/4 at 4.4 times. k = sqrt(n), at most 10. Not used with fewer than ten faces, or if most
      faces are copies of each other.
    - *classes*: 1 - half of ``ClosedSet.fused``, fitted on the labels of the other faces in five
      folds. It is in [1/2, 1], so it ranks and never flags alone. It needs fifty labelled faces of
      two classes.

    The machine's score is *rater* times the geometric mean of the other evidence. With n votes, of
    which the share s is open-set, ``score = (2 * machine + n * (1 - s)) / (2 + n)``: the machine
    counts as two voters, because a single ``unknown`` vote is close to noise (kappa 0.05 on FER+).
    ``flag``: score below ``threshold``. ``detail``: the weakest evidence of a flagged face.

    Distances are scaled by the set's own median, so scores of different sets are only roughly
    comparable. Machine evidence ranks faces for review but is no filter: on 12,000 FER+ faces,
    2.9 % of them with three open-set votes or more, *probability* of a linear rater had an AUROC of
    0.65 and *features* (MediaPipe blendshapes) 0.56.
    """

    name = "open_set"
    threshold: float = 0.5
    machine_votes: float = 2.0

    def find(
        self,
        *,
        labels: Values | None = None,
        probabilities: Values | None = None,
        features: Values | None = None,
        open_set: Values | None = None,
        face_ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        neighbours: Neighbours | None = None,
    ) -> AuditResult:
        """Audit faces by the evidence given; at least one of the first four.

        Args:
            labels: a ``soft_labels`` frame (``open_set_share`` and ``n_votes`` count), or one
                answer per face as text (one vote each). Other arrays have no open-set evidence.
            probabilities: float[n, 8], or a ``ratings`` frame.
            features: float[n, d], or a ``ratings`` frame.
            open_set: float[n, 2], the rater's mass on the open-set answers, or a ``ratings``
                frame.
            face_ids: the order of the arrays; see ``base.ids_of``.
            groups: one per face; a face is not judged by faces of its group.
            neighbours: at least ten nearest faces by ``features``, to skip the search.

        Raises:
            SettingsError: there is no evidence.
            TableError: an array has another shape or NaN, or the neighbours are of other faces.
        """
        given = (labels, probabilities, features, open_set)
        if all(value is None for value in given):
            raise SettingsError(
                "The open_set audit has no evidence",
                got="none of labels, probabilities, features or open_set",
                hint="pass the soft labels, or the ratings of a machine rater",
            )
        ids = base.ids_of(face_ids, *given)
        machine: dict[str, np.ndarray] = {}
        statistics: dict[str, float] = {}
        if open_set is not None:
            mass = base.matrix(open_set, ids, name="open_set", column="open_set", width=2)
            machine["rater"] = np.clip(1 - mass.sum(axis=1), 0, 1)
        if probabilities is not None:
            belief = base.distributions(probabilities, ids, name="probabilities")
            machine["probability"] = _by_entropy(belief)
        if features is not None:
            array = base.matrix(features, ids, name="features", column="feature")
            typical, statistics = _by_distance(array, neighbours)
            if typical is not None:
                machine["features"] = typical
        if labels is not None and features is not None:
            machine |= _by_classes(labels, array, ids=ids, groups=groups)
        share, n_votes = np.zeros(len(ids)), np.zeros(len(ids))
        if labels is not None:
            share, n_votes = base.open_set_votes(labels, ids)
        scores = self._combine(machine, share, n_votes)
        # Faces without evidence are not flagged.
        flags = np.nan_to_num(scores, nan=1.0) < self.threshold
        people = np.where(n_votes > 0, 1 - share, np.nan)
        return audit_result(
            self.name,
            face_ids=ids,
            scores=scores,
            flags=flags,
            details=_details(flags, {"people": people, **machine}),
            statistics={
                "flagged": int(flags.sum()),
                "evidence": ", ".join(["people"] * bool(n_votes.any()) + list(machine)) or "none",
                "with_open_votes": int((share > 0).sum()),
                **statistics,
            },
        )

    def _combine(
        self, machine: dict[str, np.ndarray], share: np.ndarray, n_votes: np.ndarray
    ) -> np.ndarray:
        closed, weight = np.zeros(len(share)), np.zeros(len(share))
        if machine:
            typical = [values for name, values in machine.items() if name != "rater"]
            closed = machine.get("rater", np.ones(len(share)))
            if typical:
                closed = closed * np.prod(typical, axis=0) ** (1 / len(typical))
            weight += self.machine_votes
        total = weight + n_votes
        sums = weight * closed + n_votes * (1 - share)
        return np.divide(sums, total, out=np.full(len(share), np.nan), where=total > 0)


@dataclass(frozen=True)
class ClosedSet:
    """A linear classifier of the known classes, with open-set scores.

    Scores, higher = more open:

    - ``msp``: minus the largest probability (Hendrycks and Gimpel, 2017).
    - ``energy``: minus the log-sum of the logits (Liu et al., 2020, arXiv:2010.03759).
    - ``gen``: generalised entropy with power 0.1 (Liu et al., 2023, CVPR).
    - ``vim``: energy plus the scaled norm of the residual outside the principal space (Wang et al.,
      2022, arXiv:2203.10807).
    - ``features``: minus the mean cosine to the ten nearest training faces, which has the ranking
      of cleanlab's ``OutOfDistribution``.
    - ``answers``: minus the mean cosine to the fifty nearest by centred logits. Closed faces are
      confused like other closed faces.

    Attributes:
        reference: float64[m, 6], sorted by column: scores of closed faces not used for training.
    """

    model: Any
    center: np.ndarray
    scale: float
    bank: np.ndarray
    answers: np.ndarray
    residual_axes: np.ndarray
    origin: np.ndarray
    alpha: float
    reference: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> ClosedSet | None:
        """Fit on closed faces float[n, d] with labels int[n].

        Returns:
            ``None`` with fewer than fifty faces, or fewer than two classes of ten faces.
        """
        counts = np.bincount(labels, minlength=2)
        if len(labels) < 50 or (counts >= 10).sum() < 2:
            return None
        rng = np.random.default_rng(seed)
        if len(labels) > _MAX_TRAINING:
            sample = np.sort(rng.choice(len(labels), _MAX_TRAINING, replace=False))
            features, labels = features[sample], labels[sample]
        training = rng.permutation(len(labels)) % _REFERENCE != 0
        if len(np.unique(labels[training])) < 2:
            return None
        fitted = cls._fit_model(features[training], labels[training])
        scores = fitted.scores(features[~training])
        table = np.sort(np.stack([scores[name] for name in SCORES], axis=1), axis=0)
        return replace(fitted, reference=table)

    @classmethod
    def _fit_model(cls, features: np.ndarray, labels: np.ndarray) -> ClosedSet:
        center, scale = features.mean(axis=0), max(float(features.std(axis=0).mean()), 1e-9)
        scaled = (features - center) / scale
        model = _fit_classifier(scaled, labels)
        logits = _logits(model, scaled)
        weight, offset = _coefficients(model)
        # The point where all logits are zero (ViM).
        origin = -np.linalg.pinv(weight) @ offset
        _, axes = np.linalg.eigh(np.cov((scaled - origin).T))
        residual_axes = axes[:, : axes.shape[1] - max(1, int(_PRINCIPAL_SHARE * axes.shape[1]))]
        residual = np.linalg.norm((scaled - origin) @ residual_axes, axis=1).mean()
        return cls(
            model=model,
            center=center,
            scale=scale,
            bank=scaled,
            answers=_centered(logits),
            residual_axes=residual_axes,
            origin=origin,
            alpha=float(logits.max(axis=1).mean() / max(residual, 1e-9)),
            reference=np.empty((0, len(SCORES))),
        )

    def scores(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Compute each of ``SCORES`` as float64[n]."""
        from scipy.special import logsumexp, softmax

        scaled = (features - self.center) / self.scale
        logits = _logits(self.model, scaled)
        belief = softmax(logits, axis=1)
        energy = -logsumexp(logits, axis=1)
        residual = np.linalg.norm((scaled - self.origin) @ self.residual_axes, axis=1)
        near = nearest_in(self.bank, scaled, k=_NEAREST_FEATURES).cosine
        alike = nearest_in(self.answers, _centered(logits), k=_NEAREST_ANSWERS).cosine
        return {
            "msp": -belief.max(axis=1),
            "energy": energy,
            "gen": (belief**_GEN_POWER * (1 - belief) ** _GEN_POWER).sum(axis=1),
            "vim": self.alpha * residual + energy,
            "features": -near.mean(axis=1).astype(np.float64),
            "answers": -alike.mean(axis=1).astype(np.float64),
        }

    def fused(self, scores: dict[str, np.ndarray]) -> np.ndarray:
        """Mean share of less open reference faces over ``FUSED``: float64[n].

        The score of a face does not depend on the other faces of its batch.
        """
        shares = [
            np.searchsorted(self.reference[:, SCORES.index(name)], scores[name])
            / len(self.reference)
            for name in FUSED
        ]
        return np.mean(shares, axis=0)


def cycle_training(
    closed: np.ndarray,
    labels: np.ndarray,
    pool: np.ndarray,
    initial: np.ndarray,
    *,
    mirrored: np.ndarray | None = None,
    share: float = 0.05,
    rounds: int = 2,
    seed: int = 0,
) -> np.ndarray:
    """Score a complete pool by training on the open faces of each half.

    After the cycle training of Zhang et al. (AAAI 2024, arXiv:2401.12507), on features instead of a
    large network. They use noisy pseudo labels that two networks filter for each other. Here the
    most open ``share`` of each half, by the scores so far, is an additional class beside the closed
    classes of a classifier that scores the other half. Retraining on pseudo labels alone was worse
    than no retraining on the same features (mean AUROC 0.695 against 0.797; this: 0.835, and 0.830
    with 5 % open faces).

    Args:
        closed, labels: float[m, d] and int[m], faces of the known classes.
        pool: float[n, d], closed and open faces, unlabelled.
        initial: float[n], scores to start from, higher = more open.
        mirrored: float[n, d], features of the mirrored faces; both views must be open.

    Returns:
        float64[n] in [0, 1]: mean rank of ``initial`` and the last round, higher = more open.
    """
    half = np.random.default_rng(seed).permutation(len(pool)) % 2
    views = [pool] if mirrored is None else [pool, mirrored]
    center, scale = closed.mean(axis=0), max(float(closed.std(axis=0).mean()), 1e-9)
    closed, views = (closed - center) / scale, [(view - center) / scale for view in views]
    start = score = _ranks(initial)
    for _ in range(rounds if len(pool) >= 40 else 0):
        updated = np.zeros(len(pool))
        for side in (0, 1):
            mine, other = np.flatnonzero(half == side), np.flatnonzero(half != side)
            top = mine[np.argsort(-score[mine], kind="stable")][: max(10, int(share * len(mine)))]
            training = np.vstack([closed, *(view[top] for view in views)])
            answer = np.concatenate([labels, np.full(len(top) * len(views), labels.max() + 1)])
            model = _fit_classifier(training, answer)
            probabilities = [model.predict_proba(view[other])[:, -1] for view in views]
            updated[other] = np.min(probabilities, axis=0)
        score = (start + _ranks(updated)) / 2
    return score


def _by_classes(
    labels: Values, features: np.ndarray, *, ids: list[str], groups: Sequence[str] | None
) -> dict[str, np.ndarray]:
    soft = base.soft_label_matrix(labels, ids)
    share, _ = base.open_set_votes(labels, ids)
    label = np.nan_to_num(soft).argmax(axis=1)
    # Faces with open-set votes are not training data of the closed classes.
    closed = ~np.isnan(soft[:, 0]) & (share < 0.5)
    names = np.asarray(ids if groups is None else groups, dtype=str)
    _, group = np.unique(names, return_inverse=True)
    fold_of = np.random.default_rng(0).permutation(group.max(initial=0) + 1)[group] % _FOLDS
    evidence = np.full(len(ids), np.nan)
    for fold in range(_FOLDS):
        training, test = closed & (fold_of != fold), fold_of == fold
        closed_set = ClosedSet.fit(features[training], label[training])
        if closed_set is None:
            return {}
        if test.any():
            evidence[test] = 1 - closed_set.fused(closed_set.scores(features[test])) / 2
    return {"classes": evidence}


def _by_entropy(belief: np.ndarray) -> np.ndarray:
    from cleanlab.outlier import OutOfDistribution

    if not len(belief):
        return np.empty(0)
    scorer = OutOfDistribution(params={"adjust_pred_probs": False, "method": "entropy"})
    return (1 + np.clip(scorer.score(pred_probs=belief), 0, 1)) / 2


def _by_distance(
    features: np.ndarray, near: Neighbours | None
) -> tuple[np.ndarray | None, dict[str, float]]:
    from cleanlab.outlier import OutOfDistribution

    if near is not None and len(near) != len(features):
        raise TableError(
            f"The given neighbours are not neighbours of {len(features)} faces",
            got=f"neighbours of {len(near)}",
            hint="search among these faces, or leave neighbours out",
        )
    if len(features) < _MIN_FACES:
        return None, {}
    k = min(_NEIGHBOURS, math.isqrt(len(features)))
    knn = _PrecomputedNeighbours(nearest(features, k=k) if near is None else near.first(k))
    scorer = OutOfDistribution(params={"k": k, "t": _SLOPE, "knn": knn})
    scores = scorer.score(features=features)
    median = float(scorer.params["scaling_factor"])
    if median < _MIN_DISTANCE:
        return None, {"median_distance": median, "k": k}
    return np.clip(scores * math.exp(_SLOPE), 0, 1), {"median_distance": median, "k": k}


class _PrecomputedNeighbours:
    """Neighbours with the interface of the estimator cleanlab queries."""

    metric = "cosine"

    def __init__(self, near: Neighbours) -> None:
        self.n_neighbors = near.row.shape[1]
        self._found = (1 - near.cosine.astype(np.float64), near.row)

    def kneighbors(self, _features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._found


def _details(flags: np.ndarray, evidence: dict[str, np.ndarray]) -> list[str | None]:
    if not len(flags):
        return []
    table = np.stack(list(evidence.values()))
    weakest = np.where(np.isnan(table), np.inf, table).argmin(axis=0)
    details = [_DETAILS[name] for name in evidence]
    return [details[row] if flag else None for flag, row in zip(flags, weakest, strict=True)]


def _fit_classifier(features: np.ndarray, labels: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        # Full convergence is not needed: the regularization decides, not the last digits.
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=_REGULARIZATION, max_iter=_MAX_ITER)
        return model.fit(features, labels)


def _coefficients(model: Any) -> tuple[np.ndarray, np.ndarray]:
    weight, offset = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weight) == 1:
        # With two classes scikit-learn stores one row; the other is its negative.
        return np.vstack([-weight, weight]) / 2, np.concatenate([-offset, offset]) / 2
    return weight, offset


def _logits(model: Any, features: np.ndarray) -> np.ndarray:
    weight, offset = _coefficients(model)
    return features @ weight.T + offset


def _centered(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(axis=1, keepdims=True)


def _ranks(scores: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return (rankdata(scores) - 0.5) / max(len(scores), 1)
