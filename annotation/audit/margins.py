"""Labels beside a rater's belief: margins, ties, and what a learner makes of whole classes."""

from __future__ import annotations

import numpy as np

from warehouse.vocabulary import EXPRESSIONS

_TIE = 1e-6

_SHRINKING = 50
"""Faces of the overall share that each class's share begins with: a class of few faces is hard to
learn, which is no reason to doubt its labels."""


class Case:
    """The faces that can be judged: ``tops`` bool[n, 8] marks the most voted expressions."""

    def __init__(self, ids: list[str], soft: np.ndarray, belief: np.ndarray) -> None:
        self.ids, self.soft, self.belief = ids, soft, belief
        self.tops = soft > soft.max(axis=1, initial=0.0, keepdims=True) - _TIE
        self.tied = self.tops.sum(axis=1) > 1
        self.label = self.tops.argmax(axis=1)

    def is_top(self, best: np.ndarray) -> np.ndarray:
        return self.tops[np.arange(len(best)), best]

    def better(self, best: np.ndarray) -> list[str | None]:
        named = zip(best, self.is_top(best), strict=True)
        return [None if is_top else EXPRESSIONS[index] for index, is_top in named]

    def over_tops(self, values: np.ndarray) -> np.ndarray:
        """Mean of float[n, 8] over the most voted expressions of each face."""
        return np.where(self.tops, values, 0).sum(axis=1) / np.maximum(self.tops.sum(axis=1), 1)


def named_again(case: Case) -> dict[int, float]:
    """Per class, the share of its faces that the classifier gives to it, shrunk to that of all.

    Of rare classes a classifier says little only because they are rare, so each belief is divided
    by the frequency of the class.
    """
    often = np.bincount(case.label, minlength=len(EXPRESSIONS)) / len(case.label)
    evened = np.where(often > 0, case.belief / np.maximum(often, 1e-9), 0)
    again = case.is_top(evened.argmax(axis=1))
    found = {}
    for index in np.unique(case.label).tolist():
        rows = case.label == index
        shrunk = again[rows].sum() + _SHRINKING * again.mean()
        found[index] = float(shrunk / (rows.sum() + _SHRINKING))
    return found


def with_class(
    scores: np.ndarray, case: Case, named: dict[int, float], weight: float
) -> np.ndarray:
    """Scores float[n] in [0, 1] with what is known of each label's class: ``weight`` times the
    share of labels not named again, times how much oftener than most the class is named again, is
    added to the margin."""
    share = np.array([named[label] for label in case.label.tolist()])
    # A classifier that errs little knows more of each face than of its class.
    weight *= 1 - share.mean()
    raw = 2 * scores - 1 + weight * (share - share.mean())
    # The middle stays a margin, so that the threshold keeps its meaning; the ends make room.
    rest = (np.abs(raw) - 0.5) / (0.5 + weight)
    return 0.5 + np.sign(raw) * np.where(np.abs(raw) <= 0.5, np.abs(raw) / 2, 0.25 + rest / 4)


def margins(belief: np.ndarray) -> np.ndarray:
    """float[n, 8]: cleanlab's normalised margin had each expression been the label."""
    from cleanlab.rank import get_label_quality_scores

    found = np.zeros(belief.shape)
    for index in range(belief.shape[1] if len(belief) else 0):
        labels = np.full(len(belief), index)
        found[:, index] = get_label_quality_scores(labels, belief, method="normalized_margin")
    return found
