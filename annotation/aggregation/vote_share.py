"""Vote share: the label is what part of the votes each expression got."""

from __future__ import annotations

import numpy as np

from annotation.aggregation.em import shares
from annotation.aggregation.votes import VoteTable


class VoteShare:
    """p(c | face) = votes for c / votes for any closed expression.

    The maximum-likelihood estimate of how people see the face, and the raw soft label of
    Barsoum et al., 2016 (doi:10.1145/2993148.2993165). Nothing is learned from other faces, so
    three unanimous votes give certainty; ``Smoothed`` does not.

    Attributes:
        probabilities_: float64[n_faces, 8], rows sum to 1; NaN rows for faces with open-set
            votes only.
    """

    probabilities_: np.ndarray

    @property
    def method(self) -> str:
        """What the ``method`` column says: the name and every setting that shaped the row."""
        return "vote_share"

    def fit(self, votes: VoteTable) -> VoteShare:
        self.probabilities_ = shares(votes.closed())
        return self

    def fit_predict_proba(self, votes: VoteTable) -> np.ndarray:
        """float64[n_faces, 8] in the order of ``votes.face_ids``."""
        return self.fit(votes).probabilities_
