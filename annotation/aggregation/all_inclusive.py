"""All-inclusive share: every answer counts as one, however many a rater gave."""

from __future__ import annotations

import numpy as np

from annotation.aggregation.em import shares
from annotation.aggregation.votes import VoteTable
from warehouse.vocabulary import EXPRESSIONS


class AllInclusive:
    """p(c | face) = answers c / all closed answers; nothing is dropped and nothing is shared out.

    The rule of Chou and Lee (2024, doi:10.1109/TAFFC.2024.3411290): a rater who sees anger and
    disgust says both, fully. ``VoteShare`` gives such a rater half a vote for each, so that every
    rater has one say; here a rater who sees more has more to say. No face is left out for want of
    a majority. Weights of the votes do not count, only whether an answer was given.

    Attributes:
        probabilities_: float64[n_faces, 8], rows sum to 1; NaN rows for faces with open-set
            votes only.
    """

    probabilities_: np.ndarray

    @property
    def method(self) -> str:
        """What the ``method`` column says: the name and every setting that shaped the row."""
        return "all_inclusive"

    def fit(self, votes: VoteTable) -> AllInclusive:
        said = np.zeros((len(votes.face_ids), len(EXPRESSIONS)))
        face, answer = votes.answers["face"].to_numpy(), votes.answers["answer"].to_numpy()
        closed = answer < len(EXPRESSIONS)
        np.add.at(said, (face[closed], answer[closed]), 1.0)
        self.probabilities_ = shares(said)
        return self

    def fit_predict_proba(self, votes: VoteTable) -> np.ndarray:
        """float64[n_faces, 8] in the order of ``votes.face_ids``."""
        return self.fit(votes).probabilities_
