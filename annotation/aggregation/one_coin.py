"""One-coin Dawid-Skene: each rater is right with one probability, whatever the face shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annotation.aggregation.em import closed_share, first_guess, normalised, settled
from annotation.aggregation.votes import VoteTable
from warehouse.vocabulary import ANSWERS

_WIDTH = len(ANSWERS)
_EDGE = 1e-6


class OneCoin:
    """EM with a single skill per rater; a wrong answer is any of the nine others alike.

    A hundredth of the parameters of ``DawidSkene``, so it stands on far fewer votes per rater
    (the homogeneous model of Zhang et al., 2016, JMLR 17(102)). Like it, it says which class is
    true, not how people see the face.

    Args:
        passes, tolerance: as for ``DawidSkene``.
        prior_votes: so many votes of average skill are added to each rater's own.

    Attributes:
        answers_: float64[n_faces, 10].
        probabilities_: float64[n_faces, 8]; NaN rows for faces without a closed vote.
        skill_: float64[n_raters] in (0, 1).
        passes_: how many passes were made.
    """

    answers_: np.ndarray
    probabilities_: np.ndarray
    skill_: np.ndarray
    passes_: int

    def __init__(
        self, passes: int = 100, tolerance: float = 1e-4, prior_votes: float = 1.0
    ) -> None:
        self.passes, self.tolerance, self.prior_votes = passes, tolerance, prior_votes

    @property
    def method(self) -> str:
        """What the ``method`` column says: the name and every setting that shaped the row."""
        return f"one_coin(passes={self.passes}, prior_votes={self.prior_votes:g})"

    def fit(self, votes: VoteTable) -> OneCoin:
        """EM from the vote share, or from ``votes.start`` where yesterday's fit knows the face."""
        self.skill_ = np.full(len(votes.rater_ids), 0.5)
        belief, self.passes_ = settled(
            first_guess(votes),
            self._passing(votes),
            passes=self.passes,
            tolerance=self.tolerance,
        )
        self.answers_ = belief
        self.probabilities_ = closed_share(belief, votes)
        return self

    def _passing(self, votes: VoteTable) -> Callable[[np.ndarray], np.ndarray]:
        face, rater, answer, share = (
            votes.answers[name].to_numpy() for name in ("face", "rater", "answer", "share")
        )
        cell, size = face * _WIDTH + answer, len(votes.rater_ids)
        given = np.bincount(rater, weights=share, minlength=size)

        def one_pass(belief: np.ndarray) -> np.ndarray:
            right = np.bincount(rater, weights=share * belief[face, answer], minlength=size)
            mean = right.sum() / given.sum()
            skill = (right + self.prior_votes * mean) / (given + self.prior_votes)
            self.skill_ = np.clip(skill, _EDGE, 1 - _EDGE)
            worth = np.log(self.skill_) - np.log((1 - self.skill_) / (_WIDTH - 1))
            scores = np.bincount(cell, weights=share * worth[rater], minlength=belief.size)
            prior = np.log(np.maximum(belief.mean(axis=0), _EDGE))
            return normalised(scores.reshape(belief.shape) + prior)

        return one_pass

    def fit_predict_proba(self, votes: VoteTable) -> np.ndarray:
        """float64[n_faces, 8] in the order of ``votes.face_ids``."""
        return self.fit(votes).probabilities_
