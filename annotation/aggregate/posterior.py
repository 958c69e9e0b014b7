"""What methods that believe in one true answer share: where they begin and how they end."""

from __future__ import annotations

import numpy as np

from annotation.aggregate.votes import VoteTable
from warehouse.vocabulary import EXPRESSIONS

_CLOSED = len(EXPRESSIONS)


def first_guess(votes: VoteTable) -> np.ndarray:
    """float64[n_faces, 10]: the share of each answer; ``votes.start`` where it knows the face."""
    counts = votes.counts("share")
    guess = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    if votes.start is not None:
        known = ~np.isnan(votes.start).any(axis=1)
        closed = guess[known, :_CLOSED].sum(axis=1, keepdims=True)
        guess[known, :_CLOSED] = votes.start[known] * closed
    return guess


def normalised(logs: np.ndarray) -> np.ndarray:
    """Rows of log weights as probabilities."""
    logs = logs - logs.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(logs)
    return weights / weights.sum(axis=1, keepdims=True)


def closed_share(answers: np.ndarray, votes: VoteTable) -> np.ndarray:
    """float64[n, 8]: the closed part of float64[n, 10] scaled to sum to 1.

    NaN rows for faces that nobody gave a closed answer: a model alone is nobody's label.
    """
    # A floor: a posterior that is all open set still has to spread over the closed answers.
    closed = np.maximum(answers[:, :_CLOSED], 1e-12)
    total = closed.sum(axis=1, keepdims=True)
    heard = votes.closed().sum(axis=1, keepdims=True) > 0
    return np.divide(closed, total, out=np.full_like(closed, np.nan), where=heard)
