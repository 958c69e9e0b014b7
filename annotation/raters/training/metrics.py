"""How good a rater is, on faces for which ten people voted. NumPy only, no network.

The protocol is that of Barsoum et al. (2016, doi:10.1145/2993148.2993165): the truth is the
plurality of the votes; images whose plurality is tied, unknown or not a face are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from annotation.raters.training.targets import UNRELIABLE
from warehouse.vocabulary import EXPRESSIONS

BINS = 15
_CLASSES = len(EXPRESSIONS)


def truth(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have one of the eight expressions as sole plurality, and which one it is.

    Args:
        votes: counts [n, 10].

    Returns:
        bool[n] and int[n]; the label means nothing where the mask is False.
    """
    label = votes.argmax(axis=1)
    alone = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return alone & (label < _CLASSES), label


def confusion(label: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """int[8, 8]: rows are the truth, columns the rater's first choice."""
    return np.bincount(label * _CLASSES + guess, minlength=_CLASSES**2).reshape(_CLASSES, -1)


def accuracy(table: np.ndarray) -> float:
    """Share on the diagonal."""
    return float(np.trace(table) / table.sum())


def f1(table: np.ndarray) -> np.ndarray:
    """float[8]; NaN for an expression that neither the people nor the rater ever chose."""
    hits, chosen, real = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return 2 * hits / (chosen + real)


def entropy(shares: np.ndarray) -> np.ndarray:
    """float[n], nats."""
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)


def divergence(shares: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """KL(votes || rater) per face in nats; the rater's answers are floored at 1e-6."""
    cross = -(shares * np.log(np.maximum(answers, 1e-6))).sum(axis=1)
    return cross - entropy(shares)


def calibration(confidence: np.ndarray, right: np.ndarray, *, bins: int = BINS) -> list[dict]:
    """One row per equal-width bin that holds a face: how sure the rater was, how often right.

    Args:
        confidence: [n] in [0, 1].
        right: [n], 0 or 1, or the share of people who agree.
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


def calibration_error(rows: list[dict]) -> float:
    """Expected calibration error: the mean gap of ``calibration``, weighted by faces."""
    faces = np.array([row["faces"] for row in rows])
    gaps = np.array([abs(row["confidence"] - row["right"]) for row in rows])
    return float((faces * gaps).sum() / faces.sum())


def correlations(units: list[int], guess: np.ndarray, target: np.ndarray) -> dict[int, float]:
    """Pearson r per unit over the faces with a known target; NaN where either is constant."""
    answer = {}
    for column, unit in enumerate(units):
        known = np.isfinite(target[:, column])
        a, b = guess[known, column], target[known, column]
        varies = known.sum() > 2 and a.std() > 0 and b.std() > 0
        answer[unit] = float(np.corrcoef(a, b)[0, 1]) if varies else float("nan")
    return answer


def plurality(expression: np.ndarray, power: float) -> np.ndarray:
    """Probabilities float[n, 8] that each expression is the plurality of ten people's votes.

    Args:
        expression: expected shares of the votes [n, 8], rows sum to 1.
        power: the exponent of ``best_power``. When six of ten are expected to say anger, the
            plurality is almost surely anger: above 1, it sharpens.
    """
    sharp = expression**power
    return sharp / sharp.sum(axis=1, keepdims=True)


def figures(answers: np.ndarray, votes: np.ndarray, *, power: float = 1.0) -> dict[str, float]:
    """The headline numbers of answers float[n, 10] against counts [n, 10].

    Both calibration errors are over the rows of the protocol. ``calibration_votes`` compares the
    expected share of the first choice with the share of people who chose it;
    ``calibration_plurality`` compares ``plurality`` of the first choice with how often it is one.
    They are answers to two questions and need two numbers: what imitates shares is too modest
    about the plurality.
    """
    shares = votes / votes.sum(axis=1, keepdims=True)
    rows, label = truth(votes)
    closed = answers[rows, :_CLASSES] / answers[rows, :_CLASSES].sum(axis=1, keepdims=True)
    table = confusion(label[rows], closed.argmax(axis=1))
    right = closed.argmax(axis=1) == label[rows]
    first = answers[rows].argmax(axis=1)
    agree = shares[rows][np.arange(len(first)), first]
    return {
        "accuracy": accuracy(table),
        "macro_f1": float(np.nanmean(f1(table))),
        "divergence": float(divergence(shares, answers).mean()),
        "calibration_votes": calibration_error(calibration(answers[rows].max(axis=1), agree)),
        "calibration_plurality": calibration_error(
            calibration(plurality(closed, power).max(axis=1), right)
        ),
    }


def mean_reliable(by_unit: dict[int, float]) -> float:
    """Mean r over the units that are not marked unreliable."""
    return float(np.nanmean([r for unit, r in by_unit.items() if unit not in UNRELIABLE]))


def best_temperature(logits: np.ndarray, shares: np.ndarray) -> float:
    """The one number that, dividing the logits, brings them closest to the votes.

    Temperature scaling of Guo et al. (2017, arXiv:1706.04599), against the whole distribution
    of votes instead of one label.
    """
    grid = np.arange(0.4, 3.0, 0.01)
    losses = [_cross_entropy(logits / temperature, shares) for temperature in grid]
    return float(grid[int(np.argmin(losses))].round(2))


def best_power(expression: np.ndarray, votes: np.ndarray) -> float:
    """The exponent for ``plurality`` under which the pluralities of these votes are likeliest."""
    rows, label = truth(votes)
    logits = np.log(np.maximum(expression[rows], 1e-12))
    wanted = np.eye(_CLASSES)[label[rows]]
    grid = np.arange(0.5, 4.0, 0.01)
    return float(grid[int(np.argmin([_cross_entropy(logits * x, wanted) for x in grid]))].round(2))


def _cross_entropy(logits: np.ndarray, shares: np.ndarray) -> float:
    top = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) + top
    return float(-(shares * (logits - log_sum)).sum(axis=1).mean())


def summary(figure: dict[str, Any]) -> str:
    """One line for a log."""
    return "  ".join(f"{name} {value:.3f}" for name, value in figure.items())
