"""Label noise: which labels does a rater that never saw them contradict?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from annotation.audit import crossfit, inputs
from annotation.audit.result import AuditResult, result_of
from warehouse.errors import SettingsError
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    from annotation.audit.inputs import Values

_TIE = 1e-6
_SURE = 0.1
"""Below this margin score a single class, where noise cannot be estimated, is flagged: the rater
gives another expression at least 0.8 more than the label's."""


@dataclass(frozen=True)
class LabelNoise:
    """Confident learning (Northcutt et al., 2021, doi:10.1613/jair.1.12125) by cleanlab.

    The label of a face is the most voted expression. Its score is cleanlab's normalised margin
    on **out-of-sample** probabilities, (P[label] - max P[other] + 1) / 2; with the votes of two
    raters or more it is CROWDLAB's probability that the label is right (Goh et al., 2022,
    arXiv:2210.06812), which weighs the voters against each other and against the machine.

    - ``flag``: as many of the lowest scores as confident learning counts wrong labels, where the
      rater also names another expression; with CROWDLAB, where another expression is more
      probable than the label.
    - ``detail``: the expression that is more probable than the label, null where there is none.
    - Tied labels claim nothing single: their score is the mean over the tied expressions, they
      are never flagged, and ``detail`` is an untied expression the rater prefers to all of them.
    - Faces with open-set votes only have no label that could be wrong: score null, no flag.
    - One class only: noise cannot be estimated from the set, so only flat contradictions
      (margin score under 0.1) are flagged.

    The ranking is better than the flags: on natural noise, people's labels, about four in ten
    flags are good labels. Use it to choose what to look at again, not what to delete.
    """

    name = "label_noise"

    def find(
        self,
        *,
        labels: Values,
        probabilities: Values | None = None,
        features: Values | None = None,
        face_ids: Sequence[str] | None = None,
        votes: pl.DataFrame | None = None,
        groups: Sequence[str] | None = None,
        out_of_sample: bool | None = None,
    ) -> AuditResult:
        """Audit one label per face.

        Args:
            labels: see ``inputs.soft``.
            probabilities: float[n, 8] from a rater, or a ``ratings`` frame.
            features: float[n, d], or a ``ratings`` frame. Used when the probabilities are not
                known to be out of sample: a small classifier is cross-fitted on them.
            face_ids: the order of the arrays; see ``inputs.ids_of``.
            votes: the long vote table, for CROWDLAB.
            groups: one per face; faces of a group (a person, a set of duplicates) are never on
                both sides of a cross-fit.
            out_of_sample: ``True`` states that the rater of ``probabilities`` never saw these
                faces with these labels. There is no way to allow in-sample probabilities: they
                hide the errors the rater has learned.

        Raises:
            SettingsError: in-sample probabilities, or nothing to judge by.
            TableError: labels, probabilities, features or votes that are not.
        """
        ids = inputs.ids_of(face_ids, labels, probabilities, features)
        soft = inputs.soft(labels, ids)
        belief, source = _out_of_sample(
            soft, probabilities, features, ids=ids, groups=groups, stated=out_of_sample
        )
        judged = ~np.isnan(soft[:, 0]) & ~np.isnan(belief).any(axis=1)
        scores, flags = np.full(len(ids), np.nan), np.zeros(len(ids), dtype=bool)
        details: list[str | None] = [None] * len(ids)
        here = np.flatnonzero(judged)
        case = _Case([ids[row] for row in here], soft[here], belief[here])
        verdict = _judge(case, votes)
        scores[here], flags[here] = verdict.scores, verdict.flags & ~case.tied
        for row, better in zip(here, _better(case, verdict.belief), strict=True):
            details[row] = better
        statistics = {
            "probabilities": source,
            "variant": verdict.variant,
            "judged": len(here),
            "without_label": int(np.isnan(soft[:, 0]).sum()),
            "not_judged": int(len(ids) - len(here)),
            "tied": int(case.tied.sum()),
            "flagged": int(flags.sum()),
            "labels_per_class": dict(
                zip(EXPRESSIONS, np.bincount(case.label, minlength=8).tolist(), strict=True)
            ),
            **verdict.statistics,
        }
        return result_of(
            self.name,
            face_ids=ids,
            scores=scores,
            flags=flags,
            details=details,
            statistics=statistics,
        )


class _Case:
    """Faces that have a label and a belief: ``tops`` bool[n, 8] marks the most voted."""

    def __init__(self, ids: list[str], soft: np.ndarray, belief: np.ndarray) -> None:
        self.ids, self.belief = ids, belief
        self.tops = soft > soft.max(axis=1, keepdims=True) - _TIE
        self.tied = self.tops.sum(axis=1) > 1
        self.label = self.tops.argmax(axis=1)


@dataclass(frozen=True)
class _Verdict:
    variant: str
    scores: np.ndarray
    flags: np.ndarray
    belief: np.ndarray
    statistics: dict[str, Any]


def _out_of_sample(
    soft: np.ndarray,
    probabilities: Values | None,
    features: Values | None,
    *,
    ids: list[str],
    groups: Sequence[str] | None,
    stated: bool | None,
) -> tuple[np.ndarray, str]:
    if stated is False and probabilities is not None and features is None:
        raise _refusal("in-sample ones (out_of_sample=False)")
    if probabilities is not None:
        given = inputs.distributions(probabilities, ids, name="probabilities")
        if stated:
            return given, "given, stated out of sample"
    if features is None:
        raise _refusal("no word on where they come from" if probabilities is not None else "none")
    if probabilities is not None:
        warnings.warn(
            "label_noise: these probabilities are not stated out of sample and were set aside; "
            "new ones are cross-fitted on the features",
            stacklevel=4,
        )
    array = inputs.matrix(features, ids, name="features", column="feature")
    return crossfit.probabilities(soft, array, groups=groups), "cross-fitted on features"


def _refusal(got: str) -> SettingsError:
    return SettingsError(
        "out-of-sample probabilities for label_noise",
        got=got,
        mend="pass out_of_sample=True if the rater never saw these faces with these labels, "
        "or pass features= to have probabilities cross-fitted",
    )


def _judge(case: _Case, votes: pl.DataFrame | None) -> _Verdict:
    if votes is not None and case.ids:
        from annotation.audit import crowdlab

        posterior = crowdlab.posterior(votes, case.ids, case.tops, case.belief)
        if posterior is not None:
            return _by_crowdlab(case, posterior)
    return _by_confident_learning(case)
