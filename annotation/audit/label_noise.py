"""Label noise: find labels that out-of-sample probabilities contradict."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from annotation.aggregation import crowdlab
from annotation.aggregation.votes import tally
from annotation.audit import base, noise_matrix
from annotation.audit.base import AuditResult, Values, audit_result
from annotation.audit.cross_validation import (
    TrainedOn,
    check_out_of_sample,
    cross_validated_probabilities,
)
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

_CROSS_VALIDATED = "cross-fitted on features"
_TIE = 1e-6


@dataclass(frozen=True)
class LabelNoise:
    """Rank and flag labels by confident learning or CROWDLAB, by cleanlab.

    Confident learning: Northcutt et al., 2021, doi:10.1613/jair.1.12125. The label of a face is its
    most voted expression. Its score is cleanlab's normalised margin on
    **out-of-sample** probabilities, (P[label] - max P[other] + 1) / 2. With the votes of several
    raters it is CROWDLAB's probability that the label is right (Goh et al., 2022,
    arXiv:2210.06812).

    - ``flag``: score below ``threshold``: another expression has a probability that is 0.1 higher
      than the label's. With CROWDLAB: another expression is more probable. For comparison,
      ``statistics["counted"]`` is the number of errors that confident learning estimates; on
      FER2013's labels and ten votes the threshold has the better F1.
    - If the probabilities are cross-validated on the labels themselves, the score is the
      probability that the label is right, given the face and the label's class. ``noise_matrix``
      estimates which true classes the labels of a class stand for
      (``statistics["noise_matrix"]``), and the labels of a class whose faces look like those of
      other classes get low scores (seven in eight of FER2013's fear labels are wrong). Such a label
      may be flagged although the classifier agrees with it. At most ``max_class_share`` of the
      labels of a class, or one, are flagged, the worst ones: dropping all flagged faces must not
      remove a rare class.
    - ``by_share``: judge the whole soft label, by the mean of the margins over its expressions
      weighted by their shares. A label of 60 % anger and 40 % disgust is then not wrong if the
      machine predicts disgust.
    - ``detail``: the expression that is more probable than the label, or null (if the label is
      flagged because of its class).
    - Tied labels: the score is the mean over the tied expressions; never flagged.
    - Open-set votes only: score null, never flagged.

    The ranking is better than the flags: with natural noise about four in ten flagged labels are
    right. Use it to choose what to review, not what to delete.
    """

    name = "label_noise"
    threshold: float = 0.45
    by_share: bool = False
    max_class_share: float = 0.3

    def find(
        self,
        *,
        labels: Values,
        probabilities: Values | None = None,
        features: Values | None = None,
        face_ids: Sequence[str] | None = None,
        votes: pl.DataFrame | None = None,
        groups: Sequence[str] | None = None,
        trained_on: TrainedOn | None = None,
        out_of_sample: bool = False,
    ) -> AuditResult:
        """Audit one label per face.

        Args:
            labels: a ``soft_labels`` frame, or an array: see ``base.soft_label_matrix``.
            probabilities: float[n, 8] of a rater, or its ``ratings`` frame.
            features: float[n, d], or a ``ratings`` frame. A linear classifier is cross-validated on
                them if no out-of-sample probabilities are given.
            face_ids: the order of the arrays; see ``base.ids_of``.
            votes: the long vote table, for CROWDLAB.
            groups: one per face. Faces of a group (a person, a set of duplicates) are never on
                both sides of a fold.
            trained_on: rater id to the face ids that it was trained on. ``probabilities`` must then
                be a frame with ``rater_id`` (or the fold).
            out_of_sample: instead of ``trained_on``, states that the rater of ``probabilities`` was
                not trained on these labels. In-sample probabilities are never used, because they
                hide the errors that the rater has memorised.

        Raises:
            SettingsError: there is no out-of-sample evidence, or a rater rated a face that it was
                trained on.
            TableError: labels, probabilities, features or votes are invalid.
        """
        ids = base.ids_of(face_ids, labels, probabilities, features)
        soft = base.soft_label_matrix(labels, ids)
        if trained_on is not None:
            check_out_of_sample(_raters(probabilities, ids), ids, trained_on, groups=groups)
        belief, source = _out_of_sample(
            soft,
            probabilities,
            features,
            ids=ids,
            groups=groups,
            stated=out_of_sample or trained_on is not None,
        )
        rows = np.flatnonzero(~np.isnan(soft[:, 0]) & ~np.isnan(belief[:, 0]))
        case = _Case([ids[row] for row in rows], soft[rows], belief[rows])
        consensus = None if votes is None else _consensus(votes, case)
        judged = _by_crowdlab(case, consensus) if consensus else self._by_margin(case, source)
        scores, flags = np.full(len(ids), np.nan), np.zeros(len(ids), dtype=bool)
        details: list[str | None] = [None] * len(ids)
        scores[rows], flags[rows] = judged.scores, judged.flags
        for row, better in zip(rows, case.better(judged.best), strict=True):
            details[row] = better
        return audit_result(
            self.name,
            face_ids=ids,
            scores=scores,
            flags=flags,
            details=details,
            statistics={
                "probabilities": source,
                "judged": len(rows),
                "without_label": int(np.isnan(soft[:, 0]).sum()),
                "tied": int(case.tied.sum()),
                "flagged": int(flags.sum()),
                **judged.statistics,
            },
        )

    def _by_margin(self, case: _Case, source: str) -> _Judged:
        statistics: dict[str, Any] = {"variant": "margin by share" if self.by_share else "margin"}
        evidence, best = _margins(case.belief), case.belief.argmax(axis=1)
        own = source == _CROSS_VALIDATED and len(case.ids) > 0
        if own:
            matrix = noise_matrix.estimate(case.label, case.belief)
            evidence = noise_matrix.right(case.belief, matrix)
            statistics["noise_matrix"] = _by_name(matrix, np.unique(case.label))
        scores = (case.soft * evidence).sum(axis=1) if self.by_share else case.over_tops(evidence)
        flags = (scores < self.threshold) & ~case.tied & (own | ~case.is_top(best))
        if own:
            flags = _worst_of_each_class(flags, scores, case.label, self.max_class_share)
        plain = np.flatnonzero(~case.tied)
        if len(np.unique(case.label[plain])) > 1:
            statistics |= _confident_learning(case.label[plain], case.belief[plain])
        return _Judged(scores, flags, best, statistics)


class _Case:
    """Faces that can be judged; ``tops`` bool[n, 8]: the most voted classes."""

    def __init__(self, ids: list[str], soft: np.ndarray, belief: np.ndarray) -> None:
        self.ids, self.soft, self.belief = ids, soft, belief
        self.tops = soft > soft.max(axis=1, initial=0.0, keepdims=True) - _TIE
        self.tied = self.tops.sum(axis=1) > 1
        self.label = self.tops.argmax(axis=1)

    def is_top(self, best: np.ndarray) -> np.ndarray:
        return self.tops[np.arange(len(best)), best]

    def better(self, best: np.ndarray) -> list[str | None]:
        pairs = zip(best, self.is_top(best), strict=True)
        return [None if is_top else EXPRESSIONS[index] for index, is_top in pairs]

    def over_tops(self, values: np.ndarray) -> np.ndarray:
        """Mean of float[n, 8] over the most voted expressions of each face."""
        return np.where(self.tops, values, 0).sum(axis=1) / np.maximum(self.tops.sum(axis=1), 1)


@dataclass(frozen=True)
class _Judged:
    scores: np.ndarray
    flags: np.ndarray
    best: np.ndarray
    statistics: dict[str, Any]


def canonical_rater_order(votes: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Renumber raters by their answers. Returns votes and number to id.

    A pseudonym depends on the salt of a home, and the last bit of a float sum on the order of
    raters. With this order, equal votes give equal bytes in every home. Raters with exactly the
    same answers may swap numbers, which changes nothing.

    Args:
        votes: the long vote table. One with a missing column or nulls is returned unchanged;
            ``tally`` rejects it.
    """
    required = ("face_id", "rater_id", "label")
    if any(name not in votes.columns or votes[name].null_count() for name in required):
        return votes, {}
    answers = (
        votes.select(pl.col(required).cast(pl.String))
        .sort("face_id", "label")
        .group_by("rater_id", maintain_order=True)
        .agg("face_id", "label")
    )
    order = sorted(answers.iter_rows(), key=lambda row: row[1:])
    numbers = {rater: f"{number:08d}" for number, (rater, *_) in enumerate(order)}
    ids = pl.col("rater_id").cast(pl.String)
    numbered = votes.with_columns(ids.replace_strict(numbers, return_dtype=pl.String))
    return numbered, {number: rater for rater, number in numbers.items()}


def _raters(probabilities: Values | None, ids: list[str]) -> list[str]:
    if not isinstance(probabilities, pl.DataFrame) or "rater_id" not in probabilities.columns:
        raise SettingsError(
            "The rater of each probability is unknown",
            got="no rater_id",
            hint="pass rows of ratings, or a frame with the fold of each face as rater_id",
        )
    rater_of = dict(probabilities.select("face_id", "rater_id").iter_rows())
    return [str(rater_of.get(name, "")) for name in ids]


def _out_of_sample(
    soft: np.ndarray,
    probabilities: Values | None,
    features: Values | None,
    *,
    ids: list[str],
    groups: Sequence[str] | None,
    stated: bool,
) -> tuple[np.ndarray, str]:
    if probabilities is not None and stated:
        return base.distributions(probabilities, ids, name="probabilities"), "given"
    if features is None:
        raise SettingsError(
            "label_noise has no out-of-sample probabilities",
            got="none" if probabilities is None else "some that may be in sample",
            hint="pass out_of_sample=True if the rater was not trained on these labels, or "
            "features= to cross-validate a classifier",
        )
    if probabilities is not None:
        warnings.warn(
            "label_noise ignores the given probabilities because they may be in sample, and "
            "cross-validates new ones on the features; pass out_of_sample=True to use them",
            stacklevel=4,
        )
    array = base.matrix(features, ids, name="features", column="feature")
    return cross_validated_probabilities(soft, array, groups=groups), _CROSS_VALIDATED


def _margins(belief: np.ndarray) -> np.ndarray:
    """cleanlab's normalised margin if each class were the label: float[n, 8]."""
    from cleanlab.rank import get_label_quality_scores

    margins = np.zeros(belief.shape)
    for index in range(belief.shape[1] if len(belief) else 0):
        labels = np.full(len(belief), index)
        margins[:, index] = get_label_quality_scores(labels, belief, method="normalized_margin")
    return margins


def _by_name(matrix: np.ndarray, given: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        EXPRESSIONS[row]: {EXPRESSIONS[column]: float(matrix[row, column]) for column in given}
        for row in given.tolist()
    }


def _worst_of_each_class(
    flags: np.ndarray, scores: np.ndarray, label: np.ndarray, share: float
) -> np.ndarray:
    """Keep the flags of the lowest scores of each class."""
    kept = np.zeros_like(flags)
    for one in np.unique(label[flags]).tolist():
        own = label == one
        flagged = np.flatnonzero(flags & own)
        most = max(int(share * own.sum()), 1)
        kept[flagged[np.argsort(scores[flagged], kind="stable")[:most]]] = True
    return kept


def _consensus(votes: pl.DataFrame, case: _Case) -> crowdlab.Posterior | None:
    numbered, names = canonical_rater_order(votes)
    posterior = crowdlab.posterior(tally(numbered), case.ids, case.belief)
    if posterior is None:
        return None
    weight = {names[number]: value for number, value in posterior.rater_weight.items()}
    return replace(posterior, rater_weight=dict(sorted(weight.items())))


def _by_crowdlab(case: _Case, posterior: crowdlab.Posterior) -> _Judged:
    # If no rater gave the label as a single answer, the machine's probability replaces it.
    correct = np.where(np.isnan(posterior.voted), case.belief, posterior.voted)
    usable = posterior.consensus >= 0
    best = np.where(usable, posterior.consensus, case.belief.argmax(axis=1))
    return _Judged(
        scores=case.over_tops(correct),
        flags=usable & ~case.is_top(best) & ~case.tied,
        best=best,
        statistics={
            "variant": "crowdlab",
            "rater_weight": posterior.rater_weight,
            "machine_weight": posterior.machine_weight,
        },
    )


def _confident_learning(labels: np.ndarray, belief: np.ndarray) -> dict[str, Any]:
    """Count the label errors of each kind by confident learning."""
    from cleanlab.count import (
        compute_confident_joint,
        get_confident_thresholds,
        num_label_issues,
    )

    with warnings.catch_warnings():
        # Expressions without votes are normal in a small set.
        warnings.simplefilter("ignore")
        counted = num_label_issues(labels, belief)
        joint = compute_confident_joint(labels, belief)
        thresholds = get_confident_thresholds(labels, belief)
    present = np.unique(labels).tolist()
    return {
        "counted": int(counted),
        "confident_joint": joint.tolist(),
        "thresholds": {EXPRESSIONS[index]: float(thresholds[index]) for index in present},
    }
