"""Soft labels from k of ten votes, against the rest and all ten."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from annotation import aggregation
from annotation.aggregation.dirichlet_mixture import DirichletMixture
from annotation.aggregation.votes import tally
from tests.benchmarks.labels_data import Split, interval
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

_CLASSES = 9
"""Eight expressions and unknown; pictures with a vote for "not a face" are left out."""

KS, DRAWS = (1, 3, 5), 3
WANTED = {"next": (1.02, 0.97, 0.95), "ten": (0.235, 0.170, 0.122)}


def measured(train: Split, valid: Split, answers: np.ndarray) -> dict[str, Any]:
    """Measure each method at each k, and the difference to the best baseline.

    Cross-entropy against the votes left out (nats) and total variation to all ten, with intervals.
    """
    rows = (valid.votes[:, 9] == 0) & (valid.votes.sum(axis=1) == 10)
    votes, groups, belief = valid.votes[rows], valid.groups[rows], answers[rows].astype(float)
    belief /= belief.sum(axis=1, keepdims=True)
    library, times = np.unique(train.votes, axis=0, return_counts=True)
    methods: dict[str, Any] = {
        "raw share": lambda s: s / s.sum(axis=1, keepdims=True),
        "Dirichlet prior of all votes (1.2)": lambda s: _leaned(s, _common(train), 1.2),
        "vote-vector library": lambda s: _by_library(s, library, times),
        "machine alone": lambda s: belief,
        "votes + machine, Dirichlet 4": lambda s: _leaned(s, belief, 4.0),
        "CROWDLAB (seats shuffled)": lambda s: _crowdlab(s, belief),
        "pooled, no machine": lambda s: _pooled(s, None),
        "pooled": lambda s: _pooled(s, belief),
        "pooled_panel": lambda s: _pooled(s, belief, panel=10),
    }
    loss: dict[tuple[str, int, str], np.ndarray] = {}
    for k in KS:
        for draw in range(DRAWS):
            drawn = _drawn(votes, k, seed=100 * k + draw)
            for name, method in methods.items():
                if name.startswith("CROWDLAB") and k == 1:
                    continue
                for target, value in _losses(method(drawn.astype(float)), drawn, votes).items():
                    key = (name, k, target)
                    loss[key] = loss.get(key, 0) + value / DRAWS
    table = {
        name: {
            f"{target} k={k}": interval(groups, _mean(loss[name, k, target]))
            for target in WANTED
            for k in KS
            if (name, k, target) in loss
        }
        for name in methods
    }
    return {
        "faces": int(rows.sum()),
        "methods": table,
        "against": _against(loss, groups),
        "simulated": _simulated(valid),
    }


def _mean(values: np.ndarray) -> Any:
    return lambda drawn: float(values[drawn].mean())


def _against(loss: dict[tuple[str, int, str], np.ndarray], groups: np.ndarray) -> dict[str, Any]:
    """Paired difference to the best baseline; below zero is better."""
    found = {}
    for target, ours in (("next", "pooled"), ("ten", "pooled_panel")):
        for k in KS:
            rivals = {name: value for (name, at, kind), value in loss.items()
                      if (at, kind) == (k, target) and not name.startswith("pooled")}  # fmt: skip
            best = min(rivals, key=lambda name: rivals[name].mean())
            gap = loss[ours, k, target] - rivals[best]
            found[f"{target} k={k}"] = {"rival": best, **interval(groups, _mean(gap))}
    return found


def _drawn(votes: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.multivariate_hypergeometric(row, k) for row in votes])


def _losses(said: np.ndarray, drawn: np.ndarray, votes: np.ndarray) -> dict[str, np.ndarray]:
    p, left, full = (
        part[:, :_CLASSES] / part[:, :_CLASSES].sum(axis=1, keepdims=True)
        for part in (said, votes - drawn, votes)
    )
    floor = 0.999 * p + 0.001 / _CLASSES
    return {
        "next": -(left * np.log(floor)).sum(axis=1),
        "ten": 0.5 * np.abs(p - full).sum(axis=1),
    }


def _common(train: Split) -> np.ndarray:
    return train.votes.sum(axis=0) / train.votes.sum()


def _leaned(drawn: np.ndarray, towards: np.ndarray, strength: float) -> np.ndarray:
    return (drawn + strength * towards) / (drawn.sum(axis=1, keepdims=True) + strength)


def _by_library(drawn: np.ndarray, library: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Average training vote vectors by their likelihood of these votes.

    The votes are drawn without replacement.
    """
    from scipy.special import gammaln

    sums = np.zeros((len(drawn), len(ANSWERS)))
    patterns, number = np.unique(drawn, axis=0, return_inverse=True)
    found = np.zeros((len(patterns), len(ANSWERS)))
    for row, pattern in enumerate(patterns):
        rest = library - pattern
        fits = (rest >= 0).all(axis=1)
        logs = (gammaln(library[fits] + 1) - gammaln(rest[fits] + 1)).sum(axis=1)
        weight = np.exp(logs) * times[fits]
        found[row] = (weight[:, None] * library[fits]).sum(axis=0) if fits.any() else pattern
    sums[:] = found[number]
    return sums / sums.sum(axis=1, keepdims=True)


def _pooled(drawn: np.ndarray, belief: np.ndarray | None, panel: int | None = None) -> np.ndarray:
    method = DirichletMixture(panel=panel)
    said = np.zeros_like(drawn)
    for rows, posterior in method.posteriors(drawn, belief):
        said[rows] = method.predict_answers(posterior, drawn[rows])
    return said


def _crowdlab(drawn: np.ndarray, belief: np.ndarray) -> np.ndarray:
    votes = _anonymous_votes(drawn)
    machine = pl.DataFrame(
        {
            "face_id": [f"{row:06d}" for row in range(len(drawn))],
            "expression": belief[:, :8] / belief[:, :8].sum(axis=1, keepdims=True),
            "open_set": belief[:, 8:],
        },
        schema={
            key: TABLES["ratings"].schema[key] for key in ("face_id", "expression", "open_set")
        },
    )
    labels = aggregation.soft_labels(votes, method="crowdlab", machine=machine)
    closed = np.zeros((len(drawn), len(EXPRESSIONS)))
    known = labels.filter(pl.col("expression").is_not_null())
    rows = known["face_id"].cast(pl.Int64).to_numpy()
    closed[rows] = np.array(known["expression"].to_list())
    opened = drawn[:, 8:9] / drawn.sum(axis=1, keepdims=True)
    return np.hstack([closed * (1 - opened), opened, np.zeros_like(opened)])


def _anonymous_votes(drawn: np.ndarray) -> pl.DataFrame:
    """Convert counts to vote rows with shuffled anonymous raters."""
    rng, rows = np.random.default_rng(0), []
    for face, counts in enumerate(drawn.astype(int)):
        given = rng.permutation(np.repeat(np.arange(len(ANSWERS)), counts))
        rows += [(f"{face:06d}", f"s{seat}", ANSWERS[a]) for seat, a in enumerate(given)]
    return pl.DataFrame(rows, schema=["face_id", "rater_id", "label"], orient="row")


def _simulated(valid: Split, *, n: int = 2000, each: int = 3) -> dict[str, float]:
    """Accuracy with twenty simulated raters of known skill, three per face.

    The truth is FER+'s plurality. FER+ has no rater ids, so raters must be simulated.
    """
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(valid.majority)[:n]
    truth, skill = valid.plurality[rows], np.linspace(0.35, 0.95, 20)
    votes = pl.DataFrame(
        [
            (f"{face:06d}", f"r{rater:02d}",
             EXPRESSIONS[truth[face] if rng.random() < skill[rater] else rng.integers(8)])
            for face in range(len(rows))
            for rater in rng.choice(20, each, replace=False)
        ],
        schema=["face_id", "rater_id", "label"], orient="row",
    )  # fmt: skip
    found = {}
    for method in ("vote_share", "one_coin", "dawid_skene", "pooled"):
        labels = aggregation.soft_labels(votes, method=method)["expression"].to_list()
        found[method] = float((np.array(labels).argmax(axis=1) == truth).mean())
    weighted = aggregation.weighted(votes, aggregation.rater_quality(votes))
    labels = aggregation.soft_labels(weighted)["expression"].to_list()
    found["vote_share weighted by rater_quality"] = float(
        (np.array(labels).argmax(axis=1) == truth).mean()
    )
    assert tally(votes).n_raters().max() == each
    return found
