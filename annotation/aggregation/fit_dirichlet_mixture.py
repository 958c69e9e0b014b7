"""Fit what ``Pooled`` knows beforehand: ``python -m annotation.aggregation.fit_dirichlet_mixture``.

The vote patterns are learned from all votes of the training file, the trust in the machine from
faces that the machine did not learn from. Nothing of the validation file is looked at.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

from annotation.aggregation import patterns
from annotation.aggregation.dirichlet_mixture import FITTED, Prior
from warehouse.errors import TableError
from warehouse.ids import sha256_of
from warehouse.storage import atomic
from warehouse.vocabulary import EXPRESSIONS

_VOTES = (*EXPRESSIONS, "unknown", "NF")
_SHAPE = 2 + len(_VOTES)


def fit(
    votes: np.ndarray,
    *,
    panels: np.ndarray,
    machine: np.ndarray,
    components: int = 16,
    steps: int = 60,
) -> tuple[Prior, float]:
    """The prior under which votes are likeliest, and the log evidence per face it reaches.

    Args:
        votes: int[n, 10], any number per face: teaches the patterns.
        panels: int[m, 10]: votes on the faces of ``machine``, which teach how far to trust it.
        machine: float[m, 10] over ``ANSWERS``, by raters that never saw these faces.
        components: how many vote patterns.
        steps: of L-BFGS, at most.
    """
    from scipy.optimize import minimize

    vectors, times = np.unique(votes, axis=0, return_counts=True)
    learned = patterns.fit(vectors.astype(float), times.astype(float), components=components)

    def loss(numbers: np.ndarray) -> float:
        before = _prior(numbers, *learned).of(machine, len(machine))
        # A slight pull to where it began, for answers too rare to say anything.
        return float(-before.given(panels)[1].mean() + 1e-4 * ((numbers - _START) ** 2).sum())

    best = minimize(loss, _START, method="L-BFGS-B", options={"maxiter": steps})
    return _prior(best.x, *learned), -float(best.fun)


_START = np.concatenate([np.log([3.0, 30.0]), np.full(len(_VOTES), np.log(0.05)), [1, -1, -1.5, 1]])


def _prior(numbers: np.ndarray, weight: np.ndarray, alpha: np.ndarray) -> Prior:
    gate = numbers[_SHAPE : _SHAPE + 2]
    return Prior(
        weight=weight,
        alpha=alpha,
        patterns=float(1 / (1 + np.exp(-numbers[_SHAPE + 2]))),
        sharpness=float(np.exp(numbers[_SHAPE + 3])),
        trust=np.exp(numbers[:2]),
        floor=np.exp(numbers[2:_SHAPE]),
        gate=(float(gate[0]), float(gate[1])),
    )


def text_of(prior: Prior, *, fitted_on: str) -> str:
    """The numbers as JSON, rounded to four digits; ``version`` is a hash of them."""
    said = {
        "fitted_on": fitted_on,
        **{name: _short(getattr(prior, name)) for name in ("weight", "alpha", "trust", "floor")},
        **{name: _short(getattr(prior, name)) for name in ("patterns", "sharpness", "gate")},
    }
    said["version"] = sha256_of([json.dumps(said, sort_keys=True).encode()])[:8]
    return json.dumps(said) + "\n"


def _short(values: np.ndarray | tuple[float, float] | float) -> object:
    array = np.asarray(values)
    short = np.array([float(f"{value:.4g}") for value in array.ravel()]).reshape(array.shape)
    return short.tolist()


def joined(votes: pl.DataFrame, ratings: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All votes, then votes and machine answers of the rated faces.

    Args:
        votes: ``name`` and a count per answer, as in the FER+ files.
        ratings: ``name, expression, open_set``, as ``annotation.raters.training.out_of_sample``
        writes.

    Raises:
        TableError: no rated face has votes.
    """
    both = votes.join(ratings.select("name", "expression", "open_set"), on="name").sort("name")
    if both.is_empty():
        raise TableError(
            "ratings of faces with votes", got="no name in common", hint="rate the same file"
        )
    closed, opened = (np.array(both[name].to_list()) for name in ("expression", "open_set"))
    answers = np.hstack([closed * (1 - opened.sum(axis=1, keepdims=True)), opened])
    answers = answers / answers.sum(axis=1, keepdims=True)
    return votes.select(_VOTES).to_numpy(), both.select(_VOTES).to_numpy(), answers


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m annotation.aggregation.fit_dirichlet_mixture", description=__doc__
    )
    add = parser.add_argument
    add("--votes", type=Path, required=True, help="ferplus-train.parquet")
    add("--ratings", type=Path, required=True, help="of annotation.raters.training.out_of_sample")
    add("--rater", required=True, help="what to call the rater in `fitted_on`")
    add("--out", type=Path, default=FITTED)
    options = parser.parse_args(arguments)
    votes = pl.read_parquet(options.votes, columns=["name", *_VOTES])
    everything, panels, machine = joined(votes, pl.read_parquet(options.ratings))
    prior, evidence = fit(everything, panels=panels, machine=machine)
    said = (
        f"patterns: {len(everything)} faces of {options.votes.name}; machine: "
        f"{len(machine)} of them, out of sample for {options.rater}"
    )
    atomic.write_text(options.out, text_of(prior, fitted_on=said))
    print(f"{said}; log evidence {evidence:.4f} per face")


if __name__ == "__main__":
    main()
