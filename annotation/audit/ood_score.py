"""How far a face lies outside the known classes, judged by features and a plain classifier."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotation.audit.knn import nearest_in

SCORES = ("msp", "energy", "gen", "vim", "features", "answers")
FUSED = ("energy", "vim", "features", "answers")
"""Chosen on FER+ train against valid with HOG and blendshapes, each basic class held out in turn:
mean AUROC 0.797 together, 0.746 for the best of them alone, 0.775 without ``answers``."""

_SHRINKAGE = 0.01
_POWER = 0.1
_NEAR, _NEAR_ANSWERS = 10, 50
_PRINCIPAL = 0.4
_REFERENCE = 5
"""One closed face in so many is not taught; it tells what is usual for a face not seen before."""

_STEPS = 200

_TAUGHT = 40_000
"""At most so many faces teach a closed set, or the audit of a million would cost its square."""


@dataclass(frozen=True)
class ClosedSet:
    """A linear classifier of the known classes, and how faces that belong to them look to it.

    Scores, higher = more open:

    - ``msp``: minus the largest probability (Hendrycks and Gimpel, 2017).
    - ``energy``: minus the log-sum of the logits (Liu et al., 2020, arXiv:2010.03759).
    - ``gen``: generalised entropy with power 0.1 (Liu et al., 2023, CVPR).
    - ``vim``: energy plus the scaled length of what the principal space leaves over (Wang et al.,
      2022, arXiv:2203.10807).
    - ``features``: minus the mean cosine to the ten nearest faces of the classes, which is what
      cleanlab's ``OutOfDistribution`` ranks by.
    - ``answers``: minus the mean cosine to the fifty nearest by centred logits: a closed face is
      confused as other closed faces are.

    Attributes:
        usual: float64[m, 6], sorted by column: the scores of closed faces that were not taught.
    """

    model: Any
    centre: np.ndarray
    scale: float
    bank: np.ndarray
    answers: np.ndarray
    left_over: np.ndarray
    origin: np.ndarray
    alpha: float
    usual: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> ClosedSet | None:
        """Learn from closed faces float[n, d] with labels int[n]; ``None`` if there is too little.

        Too little is under fifty faces, or fewer than two classes of ten faces.
        """
        counts = np.bincount(labels, minlength=2)
        if len(labels) < 50 or (counts >= 10).sum() < 2:
            return None
        dice = np.random.default_rng(seed)
        if len(labels) > _TAUGHT:
            drawn = np.sort(dice.choice(len(labels), _TAUGHT, replace=False))
            features, labels = features[drawn], labels[drawn]
        part = dice.permutation(len(labels)) % _REFERENCE
        taught = part != 0
        if len(np.unique(labels[taught])) < 2:
            return None
        fitted = _fitted(features[taught], labels[taught])
        usual = fitted.scores(features[~taught])
        table = np.sort(np.stack([usual[name] for name in SCORES], axis=1), axis=0)
        return cls(**{**vars(fitted), "usual": table})

    def scores(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Each of ``SCORES`` as float64[n]."""
        from scipy.special import logsumexp, softmax

        scaled = (features - self.centre) / self.scale
        logits = _logits(self.model, scaled)
        belief = softmax(logits, axis=1)
        energy = -logsumexp(logits, axis=1)
        rest = np.linalg.norm((scaled - self.origin) @ self.left_over, axis=1)
        near = nearest_in(self.bank, scaled, k=_NEAR).cosine
        alike = nearest_in(self.answers, _centred(logits), k=_NEAR_ANSWERS).cosine
        return {
            "msp": -belief.max(axis=1),
            "energy": energy,
            "gen": (belief**_POWER * (1 - belief) ** _POWER).sum(axis=1),
            "vim": self.alpha * rest + energy,
            "features": -near.mean(axis=1).astype(np.float64),
            "answers": -alike.mean(axis=1).astype(np.float64),
        }

    def fused(self, scores: dict[str, np.ndarray]) -> np.ndarray:
        """float64[n] in [0, 1]: the mean share of closed faces that look less open than this one.

        It needs no other face beside it, so the score of a face does not hang on its batch.
        """
        shares = [
            np.searchsorted(self.usual[:, SCORES.index(name)], scores[name]) / len(self.usual)
            for name in FUSED
        ]
        return np.mean(shares, axis=0)


def _fitted(features: np.ndarray, labels: np.ndarray) -> ClosedSet:
    centre, scale = features.mean(axis=0), max(float(features.std(axis=0).mean()), 1e-9)
    scaled = (features - centre) / scale
    model = _classifier(scaled, labels)
    logits = _logits(model, scaled)
    weight, offset = _coefficients(model)
    # Where all logits would be zero (ViM).
    origin = -np.linalg.pinv(weight) @ offset
    _, axes = np.linalg.eigh(np.cov((scaled - origin).T))
    left_over = axes[:, : axes.shape[1] - max(1, int(_PRINCIPAL * axes.shape[1]))]
    rest = np.linalg.norm((scaled - origin) @ left_over, axis=1).mean()
    return ClosedSet(
        model=model,
        centre=centre,
        scale=scale,
        bank=scaled,
        answers=_centred(logits),
        left_over=left_over,
        origin=origin,
        alpha=float(logits.max(axis=1).mean() / max(rest, 1e-9)),
        usual=np.empty((0, len(SCORES))),
    )


def _classifier(features: np.ndarray, labels: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        # Not fully converged is good enough: the shrinkage decides, not the last digits.
        warnings.simplefilter("ignore")
        return LogisticRegression(C=_SHRINKAGE, max_iter=_STEPS).fit(features, labels)


def _coefficients(model: Any) -> tuple[np.ndarray, np.ndarray]:
    weight, offset = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weight) == 1:
        # Of two classes scikit-learn keeps one row; the other is its mirror image.
        return np.vstack([-weight, weight]) / 2, np.concatenate([-offset, offset]) / 2
    return weight, offset


def _logits(model: Any, features: np.ndarray) -> np.ndarray:
    weight, offset = _coefficients(model)
    return features @ weight.T + offset


def _centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(axis=1, keepdims=True)


def cycled(
    closed: np.ndarray,
    labels: np.ndarray,
    pool: np.ndarray,
    first: np.ndarray,
    *,
    mirrored: np.ndarray | None = None,
    share: float = 0.05,
    rounds: int = 2,
    seed: int = 0,
) -> np.ndarray:
    """Scores of a pool that is known whole: what is open in one half teaches the other.

    After the cycle training of Zhang et al. (AAAI 2024, arXiv:2401.12507), on features instead of
    a large network. Their open faces are noisy pseudo labels that two networks sort out for each
    other; here the most open ``share`` of each half, by the scores so far, is a class of its own
    beside the closed classes for a classifier that then scores the other half. Retraining on
    pseudo labels alone, their first idea, was worse than no retraining on the same features
    (mean AUROC 0.695 against 0.797; this: 0.835, and 0.830 with 5 % open faces).

    Args:
        closed, labels: float[m, d] and int[m], faces of the known classes.
        pool: float[n, d], closed and open faces, unlabelled.
        first: float[n], scores to begin from, higher = more open.
        mirrored: float[n, d], the features of the mirrored faces: both views must be open.

    Returns:
        float64[n] in [0, 1]: mean rank of ``first`` and of the last round, higher = more open.
    """
    half = np.random.default_rng(seed).permutation(len(pool)) % 2
    views = [pool] if mirrored is None else [pool, mirrored]
    centre, scale = closed.mean(axis=0), max(float(closed.std(axis=0).mean()), 1e-9)
    closed, views = (closed - centre) / scale, [(view - centre) / scale for view in views]
    start = score = _ranks(first)
    for _ in range(rounds if len(pool) >= 40 else 0):
        fresh = np.zeros(len(pool))
        for side in (0, 1):
            mine, other = np.flatnonzero(half == side), np.flatnonzero(half != side)
            top = mine[np.argsort(-score[mine], kind="stable")][: max(10, int(share * len(mine)))]
            known = np.vstack([closed, *(view[top] for view in views)])
            answer = np.concatenate([labels, np.full(len(top) * len(views), labels.max() + 1)])
            model = _classifier(known, answer)
            told = [model.predict_proba(view[other])[:, -1] for view in views]
            fresh[other] = np.min(told, axis=0)
        score = (start + _ranks(fresh)) / 2
    return score


def _ranks(scores: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return (rankdata(scores) - 0.5) / max(len(scores), 1)
