"""Metrics of a rater on faces with about ten votes each. NumPy only.

Two protocols decide which faces have a label. ``plurality``: the answer with the most votes;
faces whose plurality is tied, ``unknown`` or ``not_a_face`` are left out. ``official``: the reader
that Barsoum et al. (2016, doi:10.1145/2993148.2993165) published sets answers with a single vote
to zero and wants more than half of the rest. It leaves out more of the hard faces, so its
accuracies are higher. Published figures on FER+ follow it.
"""

from __future__ import annotations

import numpy as np

from annotation.raters.training.targets import UNRELIABLE
from warehouse.vocabulary import EXPRESSIONS

BINS = 15
_CLASSES = len(EXPRESSIONS)


def truth(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select the rows whose sole plurality is one of the eight expressions.

    Args:
        votes: counts [n, 10].

    Returns:
        The mask bool[n] and the labels int[n], which are undefined where the mask is False.
    """
    label = votes.argmax(axis=1)
    alone = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return alone & (label < _CLASSES), label


def official_truth(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select the rows of the official protocol; see ``truth``."""
    without_single = np.where(votes > 1, votes, 0)
    label = without_single.argmax(axis=1)
    majority = 2 * without_single.max(axis=1) > without_single.sum(axis=1)
    return majority & (label < _CLASSES), label


def recall(table: np.ndarray) -> np.ndarray:
    """Return recall per class, float[8]; NaN for a class without faces."""
    with np.errstate(invalid="ignore"):
        return np.diag(table) / table.sum(axis=1)


def confusion(label: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Return int[8, 8]: rows are labels, columns the rater's first choice."""
    return np.bincount(label * _CLASSES + guess, minlength=_CLASSES**2).reshape(_CLASSES, -1)


def accuracy(table: np.ndarray) -> float:
    """Return the share on the diagonal."""
    return float(np.trace(table) / table.sum())


def f1(table: np.ndarray) -> np.ndarray:
    """Return F1 per class, float[8].

    NaN if neither the votes nor the rater ever chose the expression.
    """
    hits, chosen, real = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return 2 * hits / (chosen + real)


def entropy(shares: np.ndarray) -> np.ndarray:
    """Return float[n], in nats."""
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)


def divergence(shares: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return KL(votes || rater) per face in nats; answers are floored at 1e-6."""
    cross = -(shares * np.log(np.maximum(answers, 1e-6))).sum(axis=1)
    return cross - entropy(shares)


def calibration(
    confidence: np.ndarray, right: np.ndarray, *, bins: int = BINS
) -> list[dict[str, float]]:
    """Compare confidence with accuracy; one row per non-empty bin.

    Args:
        confidence: [n] in [0, 1].
        right: [n], 0 or 1, or the share of annotators who agree.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for index in np.unique(place):
        inside = place == index
        rows.append(
            {
                "faces": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "right": float(right[inside].mean()),
            }
        )
    return rows


def calibration_error(rows: list[dict[str, float]]) -> float:
    """Return the expected calibration error of the rows of ``calibration``."""
    faces = np.array([row["faces"] for row in rows])
    gaps = np.array([abs(row["confidence"] - row["right"]) for row in rows])
    return float((faces * gaps).sum() / faces.sum())


def correlations(units: list[int], guess: np.ndarray, target: np.ndarray) -> dict[int, float]:
    """Return Pearson r per unit over known targets.

    NaN if either side is constant.
    """
    answer = {}
    for column, unit in enumerate(units):
        known = np.isfinite(target[:, column])
        a, b = guess[known, column], target[known, column]
        varies = known.sum() > 2 and a.std() > 0 and b.std() > 0
        answer[unit] = float(np.corrcoef(a, b)[0, 1]) if varies else float("nan")
    return answer


def plurality(expression: np.ndarray, power: float) -> np.ndarray:
    """Return the probability of being the plurality of ten votes.

    float[n, 8], rows sum to 1.

    Args:
        expression: expected shares of the votes [n, 8], rows sum to 1.
        power: exponent of ``best_power``, above 1: if six of ten votes are expected to be anger,
            the plurality is almost surely anger.
    """
    sharp = expression**power
    return sharp / sharp.sum(axis=1, keepdims=True)


def figures(answers: np.ndarray, votes: np.ndarray, *, power: float = 1.0) -> dict[str, float]:
    """Compute the metrics of answers float[n, 10] against votes [n, 10].

    All but ``accuracy_official`` are by plurality. Both calibration errors are over its rows.
    ``calibration_votes`` compares the expected share of the first choice with the share of votes
    for it. ``calibration_plurality`` compares ``plurality`` of the first choice with how often it
    is the plurality.
    """
    shares = votes / votes.sum(axis=1, keepdims=True)
    rows, label = truth(votes)
    closed = answers[rows, :_CLASSES] / answers[rows, :_CLASSES].sum(axis=1, keepdims=True)
    table = confusion(label[rows], closed.argmax(axis=1))
    right = closed.argmax(axis=1) == label[rows]
    first = answers[rows].argmax(axis=1)
    official, wanted = official_truth(votes)
    guess = answers[official, :_CLASSES].argmax(axis=1)
    agree = shares[rows][np.arange(len(first)), first]
    return {
        "accuracy": accuracy(table),
        "accuracy_official": float((guess == wanted[official]).mean()),
        "macro_f1": float(np.nanmean(f1(table))),
        "divergence": float(divergence(shares, answers).mean()),
        "calibration_votes": calibration_error(calibration(answers[rows].max(axis=1), agree)),
        "calibration_plurality": calibration_error(
            calibration(plurality(closed, power).max(axis=1), right)
        ),
    }


def mean_reliable(by_unit: dict[int, float]) -> float:
    """Average r over the units that are not in ``UNRELIABLE``."""
    return float(np.nanmean([r for unit, r in by_unit.items() if unit not in UNRELIABLE]))


def best_temperature(logits: np.ndarray, shares: np.ndarray) -> float:
    """Fit the temperature that brings the logits closest to the votes.

    Temperature scaling (Guo et al., 2017, arXiv:1706.04599) against the distribution of votes
    instead of one label.
    """
    grid = np.arange(0.4, 3.0, 0.01)
    losses = [_cross_entropy(logits / temperature, shares) for temperature in grid]
    return float(grid[int(np.argmin(losses))].round(2))


def best_power(expression: np.ndarray, votes: np.ndarray) -> float:
    """Fit the exponent of ``plurality`` by maximum likelihood."""
    rows, label = truth(votes)
    logits = np.log(np.maximum(expression[rows], 1e-12))
    wanted = np.eye(_CLASSES)[label[rows]]
    grid = np.arange(0.5, 4.0, 0.01)
    return float(grid[int(np.argmin([_cross_entropy(logits * x, wanted) for x in grid]))].round(2))


def _cross_entropy(logits: np.ndarray, shares: np.ndarray) -> float:
    top = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) + top
    return float(-(shares * (logits - log_sum)).sum(axis=1).mean())
