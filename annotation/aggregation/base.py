"""Base class of the aggregation methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np

from annotation.aggregation.votes import FloatArray, VoteTable
from warehouse.vocabulary import EXPRESSIONS

_CLOSED = len(EXPRESSIONS)


class Aggregator(ABC):
    """One method that turns votes into distributions over the expressions.

    ``fit`` sets ``probabilities_`` and whatever else the method learns.

    Attributes:
        probabilities_: float64[n_faces, 8] in the order of ``votes.face_ids``; rows sum to 1, NaN
            rows for faces without a closed vote.
    """

    probabilities_: FloatArray

    @property
    @abstractmethod
    def method(self) -> str:
        """Value of the ``method`` column: name and settings."""

    @abstractmethod
    def fit(self, votes: VoteTable) -> Self:
        """Fit the method to the votes."""

    def fit_predict_proba(self, votes: VoteTable) -> FloatArray:
        """Fit and return ``probabilities_``."""
        return self.fit(votes).probabilities_


def normalize(counts: FloatArray) -> FloatArray:
    """Scale rows of float64[n, 8] to sum to 1; NaN rows without counts."""
    total = counts.sum(axis=1, keepdims=True)
    shares: FloatArray = np.full_like(counts, np.nan)
    np.divide(counts, total, out=shares, where=total > 0)
    return shares


def closed_share(answers: FloatArray, votes: VoteTable) -> FloatArray:
    """Scale the closed part of distributions over all ten answers to sum to 1.

    Args:
        answers: float64[n_faces, 10].

    Returns:
        float64[n_faces, 8]. NaN rows for faces without a closed vote: a prior alone is no label.
    """
    # The floor keeps a posterior that is entirely open-set divisible.
    closed = np.maximum(answers[:, :_CLOSED], 1e-12)
    total = closed.sum(axis=1, keepdims=True)
    voted = votes.closed_counts().sum(axis=1, keepdims=True) > 0
    shares: FloatArray = np.full_like(closed, np.nan)
    np.divide(closed, total, out=shares, where=voted)
    return shares


def entropy_bits(shares: FloatArray) -> FloatArray:
    """Return the entropy of each row of shares in bits; NaN for NaN rows."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    # NaN rows stay NaN. Adding 0 turns -0.0 into 0.0.
    entropy: FloatArray = -(shares * logs).sum(axis=1) + 0.0
    return entropy
