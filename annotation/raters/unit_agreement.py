"""Compare a rater's action units with those of FACS coders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from annotation.raters.coded_frames import INTENSITY_TOP
from warehouse.releases.metrics import auroc
from warehouse.vocabulary import ACTION_UNITS

FOLDS = 3
"""Subject folds, as results on DISFA and BP4D are usually given."""

_GRID = np.round(np.arange(0.05, 1.0, 0.05), 2)
_DRAWS = 1000


@dataclass(frozen=True)
class CodedReadings:
    """Readings beside codes of the same frames, of all recordings.

    Attributes:
        subject: str[n].
        read: float32[n, K] in 0..1, NaN where the rater reads no such unit or found no face.
        intensity: float32[n, K], 0 to 5, NaN if not coded.
        present: float32[n, K]: 1, 0 or NaN.
    """

    subject: np.ndarray
    read: np.ndarray
    intensity: np.ndarray
    present: np.ndarray


def compare(readings: CodedReadings) -> dict[str, dict[str, Any]]:
    """Return the figures of every unit that is both read and coded.

    Per unit: ``n`` frames, ``subjects``, ``base_rate``; ``f1`` with the threshold that is best on
    the other subjects' folds and ``f1_half`` at 0.5; ``auroc``; ``icc`` (ICC(3,1), consistency)
    and ``pearson`` where intensities were coded. ``f1``, ``icc`` and ``pearson`` come with a 95 %
    interval, a bootstrap over subjects, or None with fewer than two subjects. Undefined figures
    are None.
    """
    found = {}
    fold = _folds(readings.subject)
    for column, unit in enumerate(ACTION_UNITS):
        read, coded = readings.read[:, column], readings.present[:, column]
        rows = np.isfinite(read) & np.isfinite(coded)
        if not rows.any():
            continue
        found[unit.code] = _of_unit(
            readings.subject[rows],
            fold[rows],
            read[rows],
            coded[rows] > 0,
            readings.intensity[rows, column],
        )
    return found


def _of_unit(
    subject: np.ndarray,
    fold: np.ndarray,
    read: np.ndarray,
    coded: np.ndarray,
    intensity: np.ndarray,
) -> dict[str, Any]:
    guess = _held_out(read, coded, fold)
    strong = np.isfinite(intensity)

    def pair(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept = rows[strong[rows]]
        return read[kept] * INTENSITY_TOP, intensity[kept]

    figures = {
        "f1": lambda rows: f1(coded[rows], guess[rows]),
        "icc": lambda rows: icc(*pair(rows)),
        "pearson": lambda rows: pearson(*pair(rows)),
    }
    if len(np.unique(fold)) < 2:
        figures.pop("f1")
    return {
        "n": len(read),
        "subjects": len(np.unique(subject)),
        "base_rate": float(coded.mean()),
        "f1_half": _known(f1(coded, read >= 0.5)),
        "auroc": _known(auroc(coded, read)),
        "f1": None,
        **{name: _with_interval(measure, subject) for name, measure in figures.items()},
    }


def _folds(subject: np.ndarray) -> np.ndarray:
    """Return int[n]: the fold of each row's subject, by order of name."""
    names, of_row = np.unique(subject, return_inverse=True)
    fold: np.ndarray = of_row % max(1, min(FOLDS, len(names)))
    return fold


def _held_out(read: np.ndarray, coded: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return presence by the threshold that is best on the other folds."""
    guess = read >= 0.5
    for part in np.unique(fold):
        others = fold != part
        if others.any():
            scores = [f1(coded[others], read[others] >= limit) for limit in _GRID]
            best = _GRID[int(np.nanargmax(scores))] if not np.isnan(scores).all() else 0.5
            guess[fold == part] = read[fold == part] >= best
    return guess


def f1(coded: np.ndarray, guess: np.ndarray) -> float:
    """Return F1 of presence; NaN if the unit is neither coded nor guessed."""
    hits = int((coded & guess).sum())
    total = int(coded.sum() + guess.sum())
    return 2 * hits / total if total else float("nan")


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's r; NaN if a side does not vary."""
    if len(first) < 2 or not (np.ptp(first) and np.ptp(second)):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def icc(first: np.ndarray, second: np.ndarray) -> float:
    """Return ICC(3,1) of two raters, consistency.

    Shrout & Fleiss, 1979, doi:10.1037/0033-2909.86.2.420: (BMS - EMS) / (BMS + EMS).
    """
    n = len(first)
    if n < 2:
        return float("nan")
    table = np.stack([first, second], axis=1).astype(float)
    mean = table.mean()
    between = 2 * ((table.mean(axis=1) - mean) ** 2).sum() / (n - 1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    error = (rest**2).sum() / (n - 1)
    return float((between - error) / (between + error)) if between + error else float("nan")


def _with_interval(measure: Any, subject: np.ndarray) -> Any:
    value = _known(measure(np.arange(len(subject))))
    if value is None:
        return None
    names = np.unique(subject)
    if len(names) < 2:
        return {"value": value, "low": None, "high": None}
    rows = {name: np.flatnonzero(subject == name) for name in names}
    rng = np.random.default_rng(0)
    drawn = [
        measure(np.concatenate([rows[name] for name in rng.choice(names, len(names))]))
        for _ in range(_DRAWS)
    ]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return {"value": value, "low": float(low), "high": float(high)}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
