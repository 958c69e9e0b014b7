"""What methods share: how shares are taken, where EM begins, goes on and ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annotation.aggregation.votes import VoteTable
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


def settled(
    belief: np.ndarray,
    one_pass: Callable[[np.ndarray], np.ndarray],
    *,
    passes: int,
    tolerance: float,
) -> tuple[np.ndarray, int]:
    """``one_pass`` of EM over float64[n, 10] until no number moves by ``tolerance``; and how often.

    Without faces there is nothing to settle: no pass is made.
    """
    for made in range(1, passes + 1 if len(belief) else 1):
        fresh = one_pass(belief)
        moved = float(np.abs(fresh - belief).max())
        belief = fresh
        if moved < tolerance:
            return belief, made
    return belief, passes if len(belief) else 0


def shares(counts: np.ndarray) -> np.ndarray:
    """Rows of float64[n, 8] scaled to sum to 1; NaN rows where nothing was counted."""
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


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
