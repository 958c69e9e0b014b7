"""Soft labels from k of ten votes, against the rest and all ten."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from annotation import aggregation
from annotation.aggregation import crowdlab
from annotation.aggregation.dirichlet_mixture import DirichletMixture
from annotation.aggregation.fit_dirichlet_mixture import is_fitted
from tests.benchmarks.labels_data import SetAside, Split, interval
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

_CLASSES = 9
"""Eight expressions and unknown; pictures with a vote for "not a face" are left out."""

KS, DRAWS = (1, 3, 5), 3
TARGETS = ("next", "left", "ten")
STRENGTHS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24)
OURS = {"next": "dirichlet_mixture", "left": "dirichlet_mixture", "ten": "panel"}
MIXTURES = ("dirichlet_mixture", "dirichlet_mixture, no machine", "panel")


def measured(train: Split, valid: Split, answers: np.ndarray, aside: SetAside) -> dict[str, Any]:
    """Measure each method at each k on valid and on a train-like split.

    Cross-entropy (nats) and total variation against the votes left out, and total variation to all
    ten, with intervals. The rivals' strength is chosen where the prior was fitted: on the fitted
    half of the faces that the rater set aside. The other half of them is the train-like split.
    """
    fitted = is_fitted(aside.groups.tolist())
    strength = {k: _best_strength(aside.take(fitted), k) for k in KS}
    held = SetAside(valid.votes, valid.groups, answers)
    parts = {"on valid": held, "on faces set aside": aside.take(~fitted)}
    return {
        "strength": strength,
        **{name: _compared(train, part, strength) for name, part in parts.items()},
        "simulated": _simulated(held),
    }


def _compared(train: Split, part: SetAside, strength: dict[int, int]) -> dict[str, Any]:
    some = part.take((part.votes[:, 9] == 0) & (part.votes.sum(axis=1) == 10))
    votes, groups, belief = some.votes, some.groups, some.shares()
    library, times = np.unique(train.votes, axis=0, return_counts=True)
    methods: dict[str, Any] = {
        "share of votes": lambda s, k: s / s.sum(axis=1, keepdims=True),
        "majority": lambda s, k: _majority(s),
        "smoothed share (1.2)": lambda s, k: _leaned(s, _common(train), 1.2),
        "vote-vector library": lambda s, k: _by_library(s, library, times),
        "machine alone": lambda s, k: belief,
        "votes + machine, Dirichlet, tuned": lambda s, k: _leaned(s, belief, strength[k]),
        "CROWDLAB, nine classes": lambda s, k: _crowdlab(s, belief),
        "dirichlet_mixture, no machine": lambda s, k: _mixture(s, None),
        "dirichlet_mixture": lambda s, k: _mixture(s, belief),
        "panel": lambda s, k: _mixture(s, belief, panel=10),
    }
    loss: dict[tuple[str, int, str], np.ndarray] = {}
    for k in KS:
        for draw in range(DRAWS):
            drawn = _drawn(votes, k, seed=100 * k + draw)
            for name, method in methods.items():
                if name.startswith("CROWDLAB") and k == 1:
                    continue
                said = method(drawn.astype(float), k)
                for target, value in _losses(said, drawn, votes).items():
                    key = (name, k, target)
                    loss[key] = loss.get(key, 0) + value / DRAWS
    entropy = -(votes / 10 * np.log(np.maximum(votes / 10, 1e-12))).sum(axis=1)
    return {
        "faces": len(votes),
        "entropy": float(entropy.mean()),
        "methods": {
            name: {
                f"{target} k={k}": interval(groups, _mean(loss[name, k, target]), resamples=200)
                for target in TARGETS
                for k in KS
                if (name, k, target) in loss
            }
            for name in methods
        },
        "against": _against(loss, groups),
    }


def _best_strength(some: SetAside, k: int) -> int:
    some = some.take((some.votes[:, 9] == 0) & (some.votes.sum(axis=1) == 10))
    belief, loss = some.shares(), dict.fromkeys(STRENGTHS, 0.0)
    for draw in range(DRAWS):
        drawn = _drawn(some.votes, k, seed=draw)
        for one in STRENGTHS:
            said = _leaned(drawn.astype(float), belief, one)
            loss[one] += _losses(said, drawn, some.votes)["next"].mean()
    return min(STRENGTHS, key=lambda one: loss[one])


def _mean(values: np.ndarray) -> Any:
    return lambda drawn: float(values[drawn].mean())


def _against(loss: dict[tuple[str, int, str], np.ndarray], groups: np.ndarray) -> dict[str, Any]:
    """Paired difference to the best baseline; below zero is better."""
    found = {}
    for target, ours in OURS.items():
        for k in KS:
            rivals = {name: value for (name, at, kind), value in loss.items()
                      if (at, kind) == (k, target) and name not in MIXTURES}  # fmt: skip
            best = min(rivals, key=lambda name: rivals[name].mean())
            gap = loss[ours, k, target] - rivals[best]
            found[f"{target} k={k}"] = {
                "rival": best,
                **interval(groups, _mean(gap), resamples=200),
            }
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
        "left": 0.5 * np.abs(p - left).sum(axis=1),
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


def _mixture(drawn: np.ndarray, belief: np.ndarray | None, panel: int | None = None) -> np.ndarray:
    method = DirichletMixture(panel=panel)
    said = np.zeros_like(drawn)
    for rows, posterior in method.posteriors(drawn, belief):
        said[rows] = method.predict_answers(posterior, drawn[rows])
    return said


def _majority(drawn: np.ndarray) -> np.ndarray:
    first = drawn == drawn.max(axis=1, keepdims=True)
    return first / first.sum(axis=1, keepdims=True)


def _crowdlab(drawn: np.ndarray, belief: np.ndarray) -> np.ndarray:
    """Return CROWDLAB's posterior over nine classes, float[n, 10].

    Raters are seats to which the votes are shuffled. Classes without a vote get what the method
    leaves, as in ``annotation.aggregation.crowdlab``.
    """
    rng, k = np.random.default_rng(0), int(drawn.sum(axis=1).max())
    seats = np.full((len(drawn), k), np.nan)
    for row, counts in zip(seats, drawn[:, :_CLASSES].astype(int), strict=True):
        given = rng.permutation(np.repeat(np.arange(_CLASSES), counts))
        row[: len(given)] = given
    machine = belief[:, :_CLASSES] / belief[:, :_CLASSES].sum(axis=1, keepdims=True)
    info = crowdlab._run_cleanlab(seats, machine)
    assert info is not None
    voted = np.full(machine.shape, np.nan)
    row, seat = np.nonzero(~np.isnan(seats))
    quality = info["detailed_label_quality"].to_numpy()
    voted[row, seats[row, seat].astype(int)] = np.clip(quality[row, seat], 0, 1)
    weight, own = np.asarray(info["annotator_weight"], float), float(info["model_weight"])
    share = own / (own + (~np.isnan(seats) * weight).sum(axis=1))
    return np.hstack([crowdlab._all_expressions(voted, machine, share), np.zeros((len(drawn), 1))])


def _simulated(some: SetAside, *, n: int = 2000, each: int = 3) -> dict[str, Any]:
    """Measure methods that weigh raters, by twenty simulated ones.

    FER+ has counts without rater ids, so raters must be simulated. *right*: the truth is FER+'s
    majority, a rater of skill 0.35 to 0.95 errs evenly, and the share of right labels counts.
    *next*: raters give real votes, but three of twenty answer at random and three do so half of the
    time; the cross-entropy against the real votes left out counts.
    """
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(2 * some.votes[:, :8].max(axis=1) > some.votes.sum(axis=1))[:n]
    one = some.take(rows)
    truth, skill = one.votes[:, :8].argmax(axis=1), np.linspace(0.35, 0.95, 20)
    right_votes = _votes(
        (face, rater, truth[face] if rng.random() < skill[rater] else int(rng.integers(8)))
        for face in range(len(rows))
        for rater in rng.choice(20, each, replace=False)
    )
    real = some.take(np.flatnonzero(some.votes[:, 9] == 0)[:n])
    drawn = _drawn(real.votes, each, seed=0)
    honest = np.concatenate([np.ones(14), np.full(3, 0.5), np.zeros(3)])
    next_votes = _votes(
        (face, rater, answer if rng.random() < honest[rater] else int(rng.integers(8)))
        for face, counts in enumerate(drawn)
        for rater, answer in zip(
            rng.choice(20, each, replace=False),
            rng.permutation(np.repeat(np.arange(10), counts)),
            strict=True,
        )
    )
    left = (real.votes - drawn)[:, :8]
    found: dict[str, Any] = {}
    for name in ("vote_share", "smoothed", "one_coin", "dawid_skene", "dirichlet_mixture",
                 "posterior", *(f"{name} + machine" for name in
                                ("crowdlab", "dirichlet_mixture", "posterior"))):  # fmt: skip
        method, _, machine = name.partition(" + ")
        labels = [
            _closed(aggregation.soft_labels(
                votes, method=method, machine=part.ratings() if machine else None
            ), len(part.votes))
            for votes, part in ((right_votes, one), (next_votes, real))
        ]  # fmt: skip
        hits = (labels[0].argmax(axis=1) == truth).astype(float)
        known = ~np.isnan(labels[1][:, 0]) & (left.sum(axis=1) > 0)
        share = left[known] / left[known].sum(axis=1, keepdims=True)
        loss = -(share * np.log(0.999 * labels[1][known] + 0.001 / 8)).sum(axis=1)
        found[name] = {
            "right": interval(one.groups, _mean(hits)),
            "next": interval(real.groups[known], _mean(loss)),
        }
    return found


def _votes(rows: Any) -> pl.DataFrame:
    named = [(f"{face:06d}", f"r{rater:02d}", ANSWERS[answer]) for face, rater, answer in rows]
    return pl.DataFrame(named, schema=["face_id", "rater_id", "label"], orient="row")


def _closed(labels: pl.DataFrame, n: int) -> np.ndarray:
    closed = np.full((n, len(EXPRESSIONS)), np.nan)
    known = labels.filter(pl.col("expression").is_not_null())
    closed[known["face_id"].cast(pl.Int64).to_numpy()] = np.array(known["expression"].to_list())
    return closed
