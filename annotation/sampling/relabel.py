"""ActiveLab: which faces one more label would help a classifier most."""

from __future__ import annotations

import contextlib
import io

import numpy as np

_FLOOR = 1e-6


def activelab_scores(counts: np.ndarray, machine: np.ndarray) -> np.ndarray:
    """float[n] in [0, 1], low = ask next: Goh and Mueller, 2023 (arXiv:2301.11856), as cleanlab
    computes it for voted and unvoted faces together.

    Who gave which answer is spread over anonymous annotators by a fixed shuffle per face: counted
    in the order of the classes they would be annotators who each know one class only.

    Args:
        counts: float[n, classes]: votes so far; fractions are rounded.
        machine: float[n, classes]: a classifier's distribution, rows sum to 1.
    """
    voted = counts.sum(axis=1) > 0
    believed = np.clip(machine, _FLOOR, None)
    believed = believed / believed.sum(axis=1, keepdims=True)
    scores = np.zeros(len(counts))
    if not voted.any():
        # Nobody has voted: what the classifier is least sure of, as ActiveLab starts.
        return believed.max(axis=1)
    from cleanlab.multiannotator import get_active_learning_scores

    # It prints warnings about labels that few gave; they are the point here.
    with contextlib.redirect_stdout(io.StringIO()):
        old, new = get_active_learning_scores(
            labels_multiannotator=_wide(counts[voted]),
            pred_probs=believed[voted],
            pred_probs_unlabeled=believed[~voted] if (~voted).any() else None,
        )
    scores[voted] = old
    if (~voted).any():
        scores[~voted] = new
    return scores


def _wide(counts: np.ndarray) -> np.ndarray:
    """float[n, m]: one column per annotator, NaN where they did not answer."""
    whole = np.rint(counts).astype(int)
    width = int(whole.sum(axis=1).max())
    wide = np.full((len(whole), width), np.nan)
    rng = np.random.default_rng(0)
    for row, votes in enumerate(whole):
        answers = np.repeat(np.arange(whole.shape[1]), votes)
        wide[row, rng.permutation(width)[: len(answers)]] = rng.permutation(answers)
    return wide[:, ~np.isnan(wide).all(axis=0)]
