"""Fit the prior of ``DirichletMixture``.

Usage: ``python -m annotation.aggregation.fit_dirichlet_mixture``. The vote patterns are fitted on
all votes of the training file, the trust in the machine rater on every second group of faces that
it was not trained on; benchmarks read the other groups. The validation file is not used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from annotation.aggregation.dirichlet_mixture import DEFAULT_PRIOR, Mixture, Prior
from annotation.aggregation.votes import FloatArray
from warehouse.errors import TableError
from warehouse.ids import sha256_of
from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS

_ANSWER_COLUMNS = (*EXPRESSIONS, "unknown", "NF")
_GATE = 2 + len(_ANSWER_COLUMNS)
_START = np.concatenate(
    [np.log([3.0, 30.0]), np.full(len(_ANSWER_COLUMNS), np.log(0.05)), [1, -1, -1.5, 1]]
)
_MIN_ALPHA, _MAX_ALPHA = 1e-3, 500.0


def fit_prior(
    votes: npt.NDArray[np.int64],
    *,
    panels: FloatArray | npt.NDArray[np.int64],
    machine: FloatArray,
    components: int = 16,
    steps: int = 60,
) -> tuple[Prior, float]:
    """Fit the prior. Returns it and its log evidence per face.

    Args:
        votes: int[n, 10], any number per face; for the vote patterns.
        panels: int[m, 10], votes on the faces of ``machine``; for the trust in the machine.
        machine: float[m, 10] over ``ANSWERS``, by raters that were not trained on these faces.
        components: number of vote patterns.
        steps: maximum number of L-BFGS iterations.
    """
    from scipy.optimize import minimize

    vectors, times = np.unique(votes, axis=0, return_counts=True)
    weight, alpha = fit_mixture(vectors.astype(float), times.astype(float), components=components)

    def loss(parameters: FloatArray) -> float:
        before = _to_prior(parameters, weight, alpha).mixture(machine, len(machine))
        # A slight pull to the start, for answers too rare to be estimated.
        penalty = 1e-4 * ((parameters - _START) ** 2).sum()
        return float(-before.posterior(panels)[1].mean() + penalty)

    best = minimize(loss, _START, method="L-BFGS-B", options={"maxiter": steps})
    return _to_prior(best.x, weight, alpha), -float(best.fun)


def fit_mixture(
    counts: FloatArray, times: FloatArray, *, components: int, n_iter: int = 150, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Fit a mixture of Dirichlet-multinomials to vote vectors by EM.

    The M step is Minka's fixed point (Minka, 2000, Estimating a Dirichlet distribution).

    Args:
        counts: float64[n, K], distinct vote vectors.
        times: float64[n], how often each occurs.

    Returns:
        weight float64[J] and alpha float64[J, K].
    """
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(counts), components, replace=False, p=times / times.sum())
    alpha = 4 * counts[rows] / counts[rows].sum(axis=1, keepdims=True) + 0.1
    weight = np.full(components, 1 / components)
    for _ in range(n_iter):
        prior = Mixture(np.log(weight)[None], alpha[None])
        posterior, _evidence = prior.posterior(counts)
        credit = posterior.weight * times[:, None]
        weight = (credit.sum(axis=0) + 1e-2) / (credit.sum() + 1e-2 * components)
        for _ in range(2):
            alpha = _update_alpha(alpha, counts, credit)
    return weight, alpha


def _update_alpha(alpha: FloatArray, counts: FloatArray, credit: FloatArray) -> FloatArray:
    from scipy.special import digamma

    totals, sums = counts.sum(axis=1), alpha.sum(axis=1)
    numerator = np.stack(
        [
            (credit * (digamma(column[:, None] + shape) - digamma(shape))).sum(axis=0)
            for column, shape in zip(counts.T, alpha.T, strict=True)
        ],
        axis=1,
    )
    denominator = (credit * (digamma(totals[:, None] + sums) - digamma(sums))).sum(axis=0)
    updated: FloatArray = alpha * numerator / np.maximum(denominator, 1e-12)[:, None]
    return np.clip(updated, _MIN_ALPHA, _MAX_ALPHA)


def _to_prior(parameters: FloatArray, weight: FloatArray, alpha: FloatArray) -> Prior:
    return Prior(
        weight=weight,
        alpha=alpha,
        patterns=float(1 / (1 + np.exp(-parameters[_GATE + 2]))),
        sharpness=float(np.exp(parameters[_GATE + 3])),
        trust=np.exp(parameters[:2]),
        floor=np.exp(parameters[2:_GATE]),
        gate=(float(parameters[_GATE]), float(parameters[_GATE + 1])),
    )


def to_json(prior: Prior, *, fitted_on: str) -> str:
    """Serialize a prior, rounded to four digits; ``version`` is a hash."""
    names = ("weight", "alpha", "trust", "floor", "patterns", "sharpness", "gate")
    values = {"fitted_on": fitted_on, **{name: _rounded(getattr(prior, name)) for name in names}}
    values["version"] = sha256_of([json.dumps(values, sort_keys=True).encode()])[:8]
    return json.dumps(values) + "\n"


def _rounded(values: FloatArray | tuple[float, float] | float) -> object:
    array = np.asarray(values)
    return (
        np.array([float(f"{value:.4g}") for value in array.ravel()]).reshape(array.shape).tolist()
    )


def is_fitted(groups: list[str]) -> npt.NDArray[np.bool_]:
    """Select every second group of near duplicates, by its hash."""
    return np.array([int(group[:8], 16) % 2 == 0 for group in groups], dtype=bool)


def training_data(
    votes: pl.DataFrame, ratings: pl.DataFrame
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """Join votes and ratings into the arguments of ``fit_prior``.

    Args:
        votes: ``name`` and a count per answer, as in the FER+ files.
        ratings: ``name, group, expression, open_set``, written by
            ``annotation.raters.training.out_of_sample``; see ``is_fitted``.

    Raises:
        TableError: no rated face has votes.
    """
    ratings = ratings.filter(pl.Series(is_fitted(ratings["group"].to_list())))
    both = votes.join(ratings.select("name", "expression", "open_set"), on="name").sort("name")
    if both.is_empty():
        raise TableError(
            "No rated face has votes", got="no name in common", hint="rate the file of the votes"
        )
    closed, open_set = (np.array(both[name].to_list()) for name in ("expression", "open_set"))
    machine = np.hstack([closed * (1 - open_set.sum(axis=1, keepdims=True)), open_set])
    machine = machine / machine.sum(axis=1, keepdims=True)
    return (
        votes.select(_ANSWER_COLUMNS).to_numpy(),
        both.select(_ANSWER_COLUMNS).to_numpy(),
        machine,
    )


def main(arguments: list[str] | None = None) -> None:
    """Fit the prior and write it to ``--out``."""
    parser = argparse.ArgumentParser(
        prog="python -m annotation.aggregation.fit_dirichlet_mixture", description=__doc__
    )
    add = parser.add_argument
    add("--votes", type=Path, required=True, help="ferplus-train.parquet")
    add("--ratings", type=Path, required=True, help="of annotation.raters.training.out_of_sample")
    add("--rater", required=True, help="name of the rater in `fitted_on`")
    add("--out", type=Path, default=DEFAULT_PRIOR, help="JSON file to write")
    options = parser.parse_args(arguments)
    counts = pl.read_parquet(options.votes, columns=["name", *_ANSWER_COLUMNS])
    votes, panels, machine = training_data(counts, pl.read_parquet(options.ratings))
    prior, evidence = fit_prior(votes, panels=panels, machine=machine)
    fitted_on = (
        f"patterns: {len(votes)} faces of {options.votes.name}; machine: "
        f"{len(machine)} of them, out of sample for {options.rater}"
    )
    atomic.write_text(options.out, to_json(prior, fitted_on=fitted_on))
    print(f"{fitted_on}; log evidence {evidence:.4f} per face")


if __name__ == "__main__":
    main()
