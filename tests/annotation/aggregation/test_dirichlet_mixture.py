"""Dirichlet mixture against enumeration and sampling; uncertainty."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import polars as pl
import pytest

from annotation import aggregation
from annotation.aggregation.dirichlet_mixture import (
    DirichletMixture,
    Mixture,
    Prior,
    default_prior,
    refit_weights,
)
from annotation.aggregation.fit_dirichlet_mixture import fit_mixture, fit_prior, to_json
from annotation.aggregation.votes import tally
from warehouse.errors import SettingsError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

HAPPY = EXPRESSIONS.index("happiness")


def votes_of(counts: np.ndarray) -> pl.DataFrame:
    rows = [
        (f"f{face:05d}", f"r{rater:02d}", ANSWERS[answer])
        for face, row in enumerate(counts)
        for rater, answer in enumerate(np.repeat(np.arange(10), row))
    ]
    return pl.DataFrame(rows, schema=["face_id", "rater_id", "label"], orient="row")


def unanimous(*numbers: int, answer: int = HAPPY) -> pl.DataFrame:
    counts = np.zeros((len(numbers), 10), dtype=int)
    counts[:, answer] = numbers
    return votes_of(counts)


def ratings_of(face_ids: list[str], expression: np.ndarray) -> pl.DataFrame:
    schema = TABLES["ratings"].schema
    return pl.DataFrame(
        {"face_id": face_ids, "expression": expression.tolist(),
         "open_set": [[0.0, 0.0]] * len(face_ids)},
        schema={name: schema[name] for name in ("face_id", "expression", "open_set")},
    )  # fmt: skip


def sample(n: int, k: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sample truths from the default prior, and k votes of each."""
    rng = np.random.default_rng(seed)
    prior = default_prior()
    component = rng.choice(len(prior.weight), size=n, p=prior.weight / prior.weight.sum())
    truth = np.stack([rng.dirichlet(prior.alpha[j]) for j in component])
    return truth, np.stack([rng.multinomial(k, p) for p in truth])


def cross_entropy(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(-(truth * np.log(np.maximum(predicted, 1e-3))).sum(axis=1).mean())


def test_mixture__matches_sampling() -> None:
    mixture = Mixture(np.log([[0.3, 0.7]]), np.array([[[2.0, 0.5, 1.0], [0.2, 3.0, 0.4]]]))
    # Evidence of two votes is the product of the probabilities of each in turn.
    first, one = mixture.posterior(np.array([[1.0, 0, 0]]))
    second, two = first.posterior(np.array([[0, 1.0, 0]]))
    both, evidence = mixture.posterior(np.array([[1.0, 1.0, 0]]))
    assert evidence == pytest.approx(one + two)
    np.testing.assert_allclose(both.mean(), second.mean())
    assert np.exp(one) == pytest.approx(mixture.mean()[:, 0])
    rng = np.random.default_rng(0)
    chosen = rng.random(200_000) < 0.3
    shares = np.where(chosen[:, None], rng.dirichlet([2, 0.5, 1], 200_000),
                      rng.dirichlet([0.2, 3, 0.4], 200_000))  # fmt: skip
    np.testing.assert_allclose(mixture.variance()[0], shares.var(axis=0), rtol=0.02)
    bits = -(shares * np.log2(np.maximum(shares, 1e-300))).sum(axis=1).mean()
    assert mixture.entropy()[0] == pytest.approx(bits, rel=0.01)


def test_median_counts__match_enumerated_sequences() -> None:
    mixture = Mixture(np.log([[0.5, 0.5]]), np.array([[[4.0, 0.5], [0.5, 2.0]]]))
    probability = np.zeros(4)
    for sequence in product(range(2), repeat=3):
        counts = np.bincount(sequence, minlength=2).astype(float)[None]
        probability[int(counts[0, 0])] += float(np.exp(mixture.posterior(counts)[1][0]))
    assert probability.sum() == pytest.approx(1)
    assert mixture.median_counts(3)[0, 0] == np.argmax(probability.cumsum() >= 0.5)


def test_fit_mixture__recovers_two_components() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(rng.random((3000, 1)) < 0.25, rng.dirichlet([12, 1, 1], 3000),
                     rng.dirichlet([1, 3, 3], 3000))  # fmt: skip
    counts, times = np.unique([rng.multinomial(8, p) for p in truth], axis=0, return_counts=True)
    weight, alpha = fit_mixture(counts.astype(float), times.astype(float), components=2)
    order = np.argsort(weight)
    np.testing.assert_allclose(weight[order], [0.25, 0.75], atol=0.04)
    sharp = alpha[order[0]] / alpha[order[0]].sum()
    np.testing.assert_allclose(sharp, [12 / 14, 1 / 14, 1 / 14], atol=0.03)
    np.testing.assert_allclose(alpha[order[1]], [1, 3, 3], rtol=0.25)


def test_refit_weights__follow_the_data() -> None:
    prior = default_prior()
    smiles = np.zeros((4000, 10))
    smiles[:, HAPPY] = 3
    fresh = refit_weights(prior.weight, prior.alpha, smiles, 500.0)
    happiest = int((prior.alpha[:, HAPPY] / prior.alpha.sum(axis=1)).argmax())
    assert fresh[happiest] > 0.6 > prior.weight[happiest]
    assert fresh.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        refit_weights(prior.weight, prior.alpha, smiles[:2], 500.0), prior.weight, atol=5e-3
    )


def test_dirichlet_mixture__unanimous_votes_are_not_certain() -> None:
    labels = aggregation.soft_labels(unanimous(1, 3, 10), method="dirichlet_mixture")
    shares = [row[HAPPY] for row in labels["expression"].to_list()]
    assert 0.5 < shares[0] < shares[1] < shares[2] < 1
    known = aggregation.uncertainty(unanimous(1, 3, 10))
    assert known["n_votes"].to_list() == [1, 3, 10]
    for column in ("entropy", "disagreement", "error", "more_votes"):
        assert known[column].is_sorted(descending=True), column
        assert known[column][0] > known[column][2], column
    assert (known["entropy"] > 0).all()


def test_dirichlet_mixture__has_lower_cross_entropy_with_few_votes() -> None:
    truth, counts = sample(1500, 3)
    rows = votes_of(counts)
    closed = truth[:, :8] / truth[:, :8].sum(axis=1, keepdims=True)
    loss = {}
    for method in ("vote_share", "smoothed", "dirichlet_mixture"):
        labels = aggregation.soft_labels(rows, method=method)
        known = labels["expression"].is_not_null().to_numpy()
        expression = np.array(labels["expression"].drop_nulls().to_list())
        loss[method] = cross_entropy(closed[known], expression)
    assert loss["dirichlet_mixture"] < loss["smoothed"] - 0.02 < loss["vote_share"]


def test_dirichlet_mixture__machine_outweighs_one_vote_not_ten() -> None:
    fear = np.full(8, 0.02)
    fear[EXPRESSIONS.index("fear")] = 0.86
    ids = ["f00000", "f00001"]
    machine = ratings_of(ids, np.tile(fear, (2, 1)))
    rated = aggregation.soft_labels(unanimous(1, 10), method="dirichlet_mixture", machine=machine)
    alone = aggregation.soft_labels(unanimous(1, 10), method="dirichlet_mixture")
    with_machine = [row[EXPRESSIONS.index("fear")] for row in rated["expression"].to_list()]
    without = [row[EXPRESSIONS.index("fear")] for row in alone["expression"].to_list()]
    assert with_machine[0] > without[0] + 0.3
    assert with_machine[1] < 0.2


def test_panel__completes_partial_panels() -> None:
    counts = np.zeros((2, 10), dtype=int)
    counts[0, :2] = (6, 4)
    counts[1, HAPPY] = 5
    labels = aggregation.soft_labels(votes_of(counts), method="panel")
    full, part = labels["expression"].to_list()
    assert full[:2] == pytest.approx([0.6, 0.4])
    assert part[HAPPY] == pytest.approx(1)
    assert labels["method"][0].startswith("panel(of=10, ")


def test_uncertainty__error_matches_actual_error() -> None:
    for k in (1, 3, 8):
        truth, counts = sample(1500, k, seed=k)
        table = tally(votes_of(counts))
        actual = 0.5 * np.abs(DirichletMixture().fit(table).answers_ - truth).sum(axis=1).mean()
        expected = aggregation.uncertainty(votes_of(counts))["error"].mean()
        assert expected == pytest.approx(actual, rel=0.15)


def test_uncertainty__more_votes_reach_tolerance() -> None:
    truth, counts = sample(1500, 2, seed=5)
    needed = aggregation.uncertainty(votes_of(counts), tolerance=0.2, max_votes=20)[
        "more_votes"
    ].to_numpy()
    assert 0 < needed.mean() < 20
    rng = np.random.default_rng(0)
    more = [rng.multinomial(n, p) for n, p in zip(needed, truth, strict=True)]
    error = aggregation.uncertainty(votes_of(counts + np.stack(more)))["error"].mean()
    assert error == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("given", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"max_votes": -1}])
def test_uncertainty__rejects_settings_out_of_range(given: dict) -> None:
    with pytest.raises(SettingsError, match="tolerance"):
        aggregation.uncertainty(unanimous(1), **given)


def test_uncertainty__is_empty_without_votes() -> None:
    empty = aggregation.uncertainty(unanimous(1).clear())
    assert (empty.height, empty.columns[0]) == (0, "face_id")


def test_fit_prior__trusts_accurate_machine_and_round_trips(tmp_path) -> None:
    truth, counts = sample(120, 6)
    rng = np.random.default_rng(0)
    precise = np.stack([rng.dirichlet(40 * p + 0.05) for p in truth])
    useless = rng.permutation(precise)
    good, better = fit_prior(counts, panels=counts, machine=precise, components=2, steps=12)
    bad, worse = fit_prior(counts, panels=counts, machine=useless, components=2, steps=12)
    assert better > worse
    assert bad.patterns > 0.5 > good.patterns
    path = tmp_path / "prior.json"
    path.write_text(to_json(good, fitted_on="a sample"))
    again = Prior.read(path)
    np.testing.assert_allclose(again.alpha, good.alpha, rtol=1e-3)
    assert again.version == json.loads(path.read_text())["version"]
    assert again.version in DirichletMixture(prior=again).method
