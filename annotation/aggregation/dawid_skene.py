"""Dawid-Skene: which single answer is true, given how each rater confuses them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from annotation.aggregation.em import closed_share, first_guess, normalised, settled
from annotation.aggregation.votes import VoteTable
from warehouse.vocabulary import ANSWERS

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_WIDTH = len(ANSWERS)
_FLOOR = 1e-10


class DawidSkene:
    """Maximum likelihood by EM (Dawid and Skene, 1979, doi:10.2307/2346806), in log space.

    Every face has one true answer out of ten; a rater's row of the confusion matrix says what the
    rater answers when each is the truth. Both steps are one product with the sparse table
    [faces, raters x answers], so a pass costs what the votes cost. A rater of several answers
    counts each with its share.

    The posterior says *which class is true*, not how people see the face: it sharpens. With rater
    ids that mean nothing (counts spread over columns) its skills are artefacts.

    Args:
        passes: at most so many EM passes.
        tolerance: stop when no posterior moved more.
        prior_votes: each rater's confusions begin with so many votes per true answer, spread as
            all raters together answer; 0 is the textbook and trusts a rater's only vote fully.

    Attributes:
        answers_: float64[n_faces, 10], the posterior over ``ANSWERS``.
        probabilities_: float64[n_faces, 8], its closed part, rows sum to 1; NaN rows for faces
            without a closed vote.
        confusion_: float64[n_raters, 10, 10], P(answer | truth), row = truth.
        prior_: float64[10].
        passes_: how many passes were made.
    """

    answers_: np.ndarray
    probabilities_: np.ndarray
    confusion_: np.ndarray
    prior_: np.ndarray
    passes_: int

    def __init__(
        self, passes: int = 100, tolerance: float = 1e-4, prior_votes: float = 1.0
    ) -> None:
        self.passes, self.tolerance, self.prior_votes = passes, tolerance, prior_votes

    @property
    def method(self) -> str:
        """What the ``method`` column says: the name and every setting that shaped the row."""
        return f"dawid_skene(passes={self.passes}, prior_votes={self.prior_votes:g})"

    def fit(self, votes: VoteTable) -> DawidSkene:
        """EM from the vote share, or from ``votes.start`` where yesterday's fit knows the face."""
        cells = _cells(votes)
        belief = first_guess(votes)
        belief, self.passes_ = settled(
            belief,
            partial(self._pass, cells),
            passes=self.passes,
            tolerance=self.tolerance,
        )
        if not len(belief):
            self._learn(cells, belief)
        self.answers_ = belief
        self.probabilities_ = closed_share(belief, votes)
        return self

    def _pass(self, cells: csr_array, belief: np.ndarray) -> np.ndarray:
        logs = self._learn(cells, belief)
        scores = cells @ logs
        scores += np.log(np.maximum(self.prior_, _FLOOR))
        return normalised(scores)

    def _learn(self, cells: csr_array, belief: np.ndarray) -> np.ndarray:
        """The M step; returns log P(answer | truth) as float64[n_raters * 10, 10]."""
        counts = np.asarray(cells.T @ belief).reshape(-1, _WIDTH, _WIDTH)
        pooled = counts.sum(axis=0)
        pooled = pooled / np.maximum(pooled.sum(axis=0), _FLOOR)
        counts = counts + self.prior_votes * pooled
        counts = np.maximum(counts, _FLOOR)
        table = counts / counts.sum(axis=1, keepdims=True)
        self.prior_ = belief.mean(axis=0) if len(belief) else np.full(_WIDTH, 1 / _WIDTH)
        self.confusion_ = table.transpose(0, 2, 1)
        return np.log(table).reshape(-1, _WIDTH)

    def fit_predict_proba(self, votes: VoteTable) -> np.ndarray:
        """float64[n_faces, 8] in the order of ``votes.face_ids``."""
        return self.fit(votes).probabilities_


def _cells(votes: VoteTable) -> csr_array:
    """The share of each answer as a sparse table [faces, raters x answers]."""
    from scipy.sparse import csr_array

    rows = votes.answers
    column = rows["rater"].to_numpy() * _WIDTH + rows["answer"].to_numpy()
    shape = (len(votes.face_ids), len(votes.rater_ids) * _WIDTH)
    # Answers are sorted by face, so the table is its own index: no sorting, no copies.
    starts = np.searchsorted(rows["face"].to_numpy(), np.arange(shape[0] + 1))
    # Half as wide indices are a quarter less to read, and reading is what a pass does.
    kind = np.int32 if max(rows.height, shape[1]) < 2**31 else np.int64
    index = (column.astype(kind), starts.astype(kind))
    return csr_array((rows["share"].to_numpy(), *index), shape=shape)
