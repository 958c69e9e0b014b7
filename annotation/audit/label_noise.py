"""Label noise: which labels does a rater that never saw them contradict?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from annotation.aggregation import crowdlab
from annotation.audit import cross_validation, inputs
from annotation.audit.base import AuditResult, result_of
from annotation.audit.inputs import Values
from annotation.audit.leakage import Learned, refuse_seen
from annotation.audit.margins import Case, margins, named_again, with_class
from annotation.audit.nameless import nameless
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

_CROSSFITTED = "cross-fitted on features"


@dataclass(frozen=True)
class LabelNoise:
    """Confident learning (Northcutt et al., 2021, doi:10.1613/jair.1.12125) by cleanlab.

    The label of a face is its most voted expression. Its score is cleanlab's normalised margin
    on **out-of-sample** probabilities, (P[label] - max P[other] + 1) / 2. With the votes of
    several raters it is CROWDLAB's probability that the label is right (Goh et al., 2022,
    arXiv:2210.06812), which weighs the raters against each other and against the machine.

    - ``flag``: score under ``threshold``, so that the machine names another expression and gives
      it 0.1 more than the label. With CROWDLAB: another expression is more probable. How many
      labels confident learning counts wrong is in ``statistics["counted"]``: against people's own
      noise (FER2013's labels and ten votes) the threshold has the better F1.
    - Where the probabilities were cross-fitted on the labels themselves, what the classifier
      makes of a class at all counts too: how often it names the class where the label does, were
      all classes equally frequent (``statistics["named_again"]``). That less its mean over all
      faces, times ``class_weight`` and the share of labels it does not name again, is added to
      the margin. A class whose faces share nothing that can be learned has unreliable labels
      (FER2013's fear: seven in eight are wrong), and then a classifier that learned from them is
      no witness for one of them: such a label may be flagged though the classifier agrees. On
      8,000 FER2013 pictures this raised the average precision from 0.650 to 0.767; where noise is
      planted over clean labels, it costs 0.02. A rater from elsewhere may only be
      weak at the class, so its margins stay as they are.
    - ``by_share``: judge the whole soft label, the mean of the margins over its expressions by
      their shares, instead of its plurality: a label of 60 % anger and 40 % disgust is then not
      wrong because the machine says disgust.
    - ``detail``: the expression believed more than the label; null where there is none (and the
      label is flagged because of its class).
    - Tied labels: the score is the mean over the tied expressions; never flagged.
    - Open-set votes only: there is no label that could be wrong; score null, never flagged.

    The ranking is better than the flags: on people's own noise some four in ten flagged labels
    are good ones. Use it to choose what to look at again, not what to delete.
    """

    name = "label_noise"
    threshold: float = 0.45
    by_share: bool = False
    class_weight: float = 5.0

    def find(
        self,
        *,
        labels: Values,
        probabilities: Values | None = None,
        features: Values | None = None,
        face_ids: Sequence[str] | None = None,
        votes: pl.DataFrame | None = None,
        groups: Sequence[str] | None = None,
        learned: Learned | None = None,
        out_of_sample: bool = False,
    ) -> AuditResult:
        """Audit one label per face.

        Args:
            labels: a ``soft_labels`` frame, or an array: see ``inputs.soft``.
            probabilities: float[n, 8] from a rater, or its ``ratings`` frame.
            features: float[n, d], or a ``ratings`` frame. A small classifier is cross-fitted on
                them when no probabilities are known to be out of sample.
            face_ids: the order of the arrays; see ``inputs.ids_of``.
            votes: the long vote table, for CROWDLAB.
            groups: one per face; faces of a group (a person, a set of duplicates) are never on
                both sides of a cross-fit.
            learned: what each rater of ``probabilities`` learned from, rater id to face ids; then
                ``probabilities`` must be a frame with ``rater_id`` (a fold will do). A face rated
                by a rater that learned from it, or from one of its group, is refused.
            out_of_sample: in place of ``learned``: states that the rater of ``probabilities`` never
                saw these faces with these labels. In-sample probabilities are never used: they hide
                the very errors that the rater has learned by heart.

        Raises:
            SettingsError: nothing out of sample to judge by, or a rater saw what it rated.
            TableError: labels, probabilities, features or votes that are not.
        """
        ids = inputs.ids_of(face_ids, labels, probabilities, features)
        soft = inputs.soft(labels, ids)
        if learned is not None:
            refuse_seen(_raters(probabilities, ids), ids, learned, groups=groups)
        belief, source = _out_of_sample(
            soft,
            probabilities,
            features,
            ids=ids,
            groups=groups,
            stated=out_of_sample or learned is not None,
        )
        rows = np.flatnonzero(~np.isnan(soft[:, 0]) & ~np.isnan(belief[:, 0]))
        case = Case([ids[row] for row in rows], soft[rows], belief[rows])
        heard = None if votes is None else _heard(votes, case)
        verdict = _by_crowdlab(case, heard) if heard else self._by_margin(case, source)
        scores, flags = np.full(len(ids), np.nan), np.zeros(len(ids), dtype=bool)
        details: list[str | None] = [None] * len(ids)
        scores[rows], flags[rows] = verdict.scores, verdict.flags
        for row, better in zip(rows, case.better(verdict.best), strict=True):
            details[row] = better
        return result_of(
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
                **verdict.statistics,
            },
        )

    def _by_margin(self, case: Case, source: str) -> _Verdict:
        best = case.belief.argmax(axis=1)
        each = margins(case.belief)
        scores = (case.soft * each).sum(axis=1) if self.by_share else case.over_tops(each)
        plain = np.flatnonzero(~case.tied)
        statistics: dict[str, Any] = {"variant": "margin by share" if self.by_share else "margin"}
        witness = ~case.is_top(best)
        if source == _CROSSFITTED and len(scores):
            named = named_again(case)
            scores = with_class(scores, case, named, self.class_weight)
            witness[:] = True
            statistics["named_again"] = {EXPRESSIONS[c]: share for c, share in named.items()}
        flags = (scores < self.threshold) & ~case.tied & witness
        if len(np.unique(case.label[plain])) > 1:
            statistics |= _counted(case.label[plain], case.belief[plain])
        return _Verdict(scores, flags, best, statistics)


@dataclass(frozen=True)
class _Verdict:
    scores: np.ndarray
    flags: np.ndarray
    best: np.ndarray
    statistics: dict[str, Any]


def _raters(probabilities: Values | None, ids: list[str]) -> list[str]:
    if not isinstance(probabilities, pl.DataFrame) or "rater_id" not in probabilities.columns:
        raise SettingsError(
            "probabilities as a frame with face_id, expression and rater_id",
            got="no rater_id, so nobody knows who learned what",
            hint="pass rows of ratings, or the fold of each face as its rater_id",
        )
    told = dict(probabilities.select("face_id", "rater_id").iter_rows())
    return [str(told.get(name, "")) for name in ids]


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
        return inputs.distributions(probabilities, ids, name="probabilities"), "given"
    if features is None:
        raise SettingsError(
            "out-of-sample probabilities for label_noise",
            got="none" if probabilities is None else "some that may be in sample",
            hint="pass out_of_sample=True if the rater never saw these faces with these labels, "
            "or features= to have probabilities cross-fitted",
        )
    if probabilities is not None:
        warnings.warn(
            "label_noise sets the given probabilities aside, which are not stated to be out of "
            "sample, and cross-fits new ones on the features; pass out_of_sample=True to use them",
            stacklevel=4,
        )
    array = inputs.matrix(features, ids, name="features", column="feature")
    return cross_validation.probabilities(soft, array, groups=groups), _CROSSFITTED


def _heard(votes: pl.DataFrame, case: Case) -> crowdlab.Posterior | None:
    numbered, names = nameless(votes)
    heard = crowdlab.posterior(numbered, case.ids, case.belief)
    if heard is None:
        return None
    worth = {names[number]: weight for number, weight in heard.worth.items()}
    return replace(heard, worth=dict(sorted(worth.items())))


def _by_crowdlab(case: Case, heard: crowdlab.Posterior) -> _Verdict:
    # Where nobody gave the label as a single answer, the machine's own belief stands in.
    right = np.where(np.isnan(heard.right), case.belief, heard.right)
    usable = heard.best >= 0
    best = np.where(usable, heard.best, case.belief.argmax(axis=1))
    return _Verdict(
        scores=case.over_tops(right),
        flags=usable & ~case.is_top(best) & ~case.tied,
        best=best,
        statistics={
            "variant": "crowdlab",
            "rater_worth": heard.worth,
            "machine_worth": heard.model_worth,
        },
    )


def _counted(labels: np.ndarray, belief: np.ndarray) -> dict[str, Any]:
    """How many labels of each kind confident learning holds for wrong."""
    from cleanlab.count import (
        compute_confident_joint,
        get_confident_thresholds,
        num_label_issues,
    )

    with warnings.catch_warnings():
        # Expressions that nobody voted for are ordinary in a small set.
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
