"""Probabilities from which a rater supports a requested expression.

One bar for all expressions removes the rare ones: a rater trained on everyday faces hardly ever
gives fear or contempt half of its probability, even to faces that people call so. The threshold of
an expression is the lowest probability at which the rater is right often enough on real faces,
each expression counted as equally frequent, because requests are. It is never above ``UNSURE``.

    python -m pipeline.synthesis.class_thresholds --data DIR --cache FOLDER

fits them on half of the FER+ validation pictures and writes them beside this file.
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synthesis.pseudo_labels import UNSURE
from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = Path(__file__).with_suffix(".json")

PRECISION = 0.7
"""Share of right answers above a threshold, with all expressions equally frequent."""

LEAST = 5
"""Faces of an expression below which its threshold is ``UNSURE``."""

LOWEST = 0.05
"""Lowest threshold: below it an answer is not distinguished from noise."""


def fit(sure: np.ndarray, truth: np.ndarray, *, precision: float = PRECISION) -> np.ndarray:
    """Return the threshold of each expression, float64[8].

    Args:
        sure: float[n, 8], ``Reading.sure`` of real faces that the rater did not learn from.
        truth: int[n], the expression that most people see.
    """
    thresholds = np.full(len(EXPRESSIONS), UNSURE)
    for expression in range(len(EXPRESSIONS)):
        own = truth == expression
        if own.sum() < LEAST:
            continue
        bars = np.unique(sure[own, expression])[::-1]
        hits = (sure[own, expression][:, None] >= bars).mean(axis=0)
        wrong = np.zeros_like(hits)
        for other in np.unique(truth[~own]):
            wrong += (sure[truth == other, expression][:, None] >= bars).mean(axis=0)
        # The highest bars rest on one or two faces, so one that fails ends nothing.
        enough = np.flatnonzero(hits / (hits + wrong) >= precision)
        if len(enough):
            thresholds[expression] = np.clip(bars[enough[-1]], LOWEST, UNSURE)
    return thresholds


def of_raters(rater_ids: Sequence[str]) -> np.ndarray | None:
    """Return the thresholds float64[8] for the mean of raters.

    None if one of them has none: then ``UNSURE`` applies to every expression.
    """
    known = _shipped()
    if not rater_ids or any(name not in known for name in rater_ids):
        return None
    rows = [[known[name]["thresholds"][one] for one in EXPRESSIONS] for name in rater_ids]
    return np.asarray(rows, dtype=np.float64).mean(axis=0)


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


def describe(sure: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Return the entry of a rater in the file."""
    bars = fit(sure, truth)
    own = [sure[truth == column, column] for column in range(len(EXPRESSIONS))]
    named = list(zip(EXPRESSIONS, bars.tolist(), own, strict=True))
    return {
        "thresholds": {name: round(bar, 4) for name, bar, _ in named},
        "faces": {name: len(part) for name, _, part in named},
        "supported": {
            name: round(float((part >= bar).mean()), 3) if len(part) else None
            for name, bar, part in named
        },
        "supported_at_one_bar": {
            name: round(float((part >= UNSURE).mean()), 3) if len(part) else None
            for name, _, part in named
        },
        "precision": PRECISION,
        "fitted_on": "every second FER+ validation picture with a plurality and a found face",
    }


def main() -> None:
    """Fit the thresholds of the shipped rater that labels."""
    from annotation import raters
    from annotation.raters.training import ferplus

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="with ferplus-valid.parquet")
    parser.add_argument("--cache", type=Path, required=True, help="folder for aligned faces")
    options = parser.parse_args()
    read = ferplus.prepare(
        options.data / "ferplus-valid.parquet", cache=options.cache, find="pipeline.faces:find"
    )
    votes = read.votes[:, : len(EXPRESSIONS)]
    top = np.sort(votes, axis=1)
    clear = read.found & (top[:, -1] > top[:, -2]) & (np.arange(len(votes)) % 2 == 0)
    rows = np.flatnonzero(clear)
    rater = raters.load("default")
    parts = [
        rater.rate(np.repeat(read.gray[part][..., None], 3, axis=3)).plurality
        for part in np.array_split(rows, max(len(rows) // 256, 1))
    ]
    entry = describe(np.concatenate(parts), votes[rows].argmax(axis=1))
    atomic.write_text(FILE, json.dumps({rater.rater_id: entry}, indent=1) + "\n")


if __name__ == "__main__":
    main()
