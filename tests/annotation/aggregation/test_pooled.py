"""What votes, machine and common patterns say together, and how sure that is."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import polars as pl
import pytest

from annotation import aggregation
from annotation.aggregation import fit_dirichlet_mixture as fitting
from annotation.aggregation import patterns
from annotation.aggregation.dirichlet_mixture import Pooled, Prior, shipped
from annotation.aggregation.patterns import Mixture
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


def reading(face_ids: list[str], expression: np.ndarray) -> pl.DataFrame:
    schema = TABLES["ratings"].schema
    return pl.DataFrame(
        {"face_id": face_ids, "expression": expression.tolist(),
         "open_set": [[0.0, 0.0]] * len(face_ids)},
        schema={name: schema[name] for name in ("face_id", "expression", "open_set")},
    )  # fmt: skip


def drawn(n: int, k: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truths from the shipped patterns, and k votes of each."""
    rng = np.random.default_rng(seed)
    prior = shipped()
    component = rng.choice(len(prior.weight), size=n, p=prior.weight / prior.weight.sum())
    truth = np.stack([rng.dirichlet(prior.alpha[j]) for j in component])
    return truth, np.stack([rng.multinomial(k, p) for p in truth])


def cross_entropy(truth: np.ndarray, said: np.ndarray) -> float:
    return float(-(truth * np.log(np.maximum(said, 1e-3))).sum(axis=1).mean())


def test_mixture_is_what_enumeration_gives() -> None:
    mixture = Mixture(np.log([[0.3, 0.7]]), np.array([[[2.0, 0.5, 1.0], [0.2, 3.0, 0.4]]]))
    # Evidence of two votes: the chance of the first times that of the second, vote by vote.
    first, one = mixture.given(np.array([[1.0, 0, 0]]))
    second, two = first.given(np.array([[0, 1.0, 0]]))
    both, evidence = mixture.given(np.array([[1.0, 1.0, 0]]))
    assert evidence == pytest.approx(one + two)
    np.testing.assert_allclose(both.mean(), second.mean())
    assert np.exp(one) == pytest.approx(mixture.mean()[:, 0])
    draws = np.random.default_rng(0)
    chosen = draws.random(200_000) < 0.3
    shares = np.where(chosen[:, None], draws.dirichlet([2, 0.5, 1], 200_000),
                      draws.dirichlet([0.2, 3, 0.4], 200_000))  # fmt: skip
    np.testing.assert_allclose(mixture.variance()[0], shares.var(axis=0), rtol=0.02)
    bits = -(shares * np.log2(np.maximum(shares, 1e-300))).sum(axis=1).mean()
    assert mixture.entropy()[0] == pytest.approx(bits, rel=0.01)


def test_median_of_further_votes_is_that_of_all_sequences() -> None:
    mixture = Mixture(np.log([[0.5, 0.5]]), np.array([[[4.0, 0.5], [0.5, 2.0]]]))
    chance = np.zeros(4)
    for sequence in product(range(2), repeat=3):
        counts = np.bincount(sequence, minlength=2).astype(float)[None]
        chance[int(counts[0, 0])] += float(np.exp(mixture.given(counts)[1][0]))
    assert chance.sum() == pytest.approx(1)
    assert mixture.median_of(3)[0, 0] == np.argmax(chance.cumsum() >= 0.5)


def test_em_finds_the_two_ways_that_faces_are_seen() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(rng.random((3000, 1)) < 0.25, rng.dirichlet([12, 1, 1], 3000),
                     rng.dirichlet([1, 3, 3], 3000))  # fmt: skip
    counts, times = np.unique([rng.multinomial(8, p) for p in truth], axis=0, return_counts=True)
    weight, alpha = patterns.fit(counts.astype(float), times.astype(float), components=2)
    order = np.argsort(weight)
    np.testing.assert_allclose(weight[order], [0.25, 0.75], atol=0.04)
    sharp = alpha[order[0]] / alpha[order[0]].sum()
    np.testing.assert_allclose(sharp, [12 / 14, 1 / 14, 1 / 14], atol=0.03)
    np.testing.assert_allclose(alpha[order[1]], [1, 3, 3], rtol=0.25)


def test_patterns_learn_what_is_common_here() -> None:
    prior = shipped()
    smiles = np.zeros((4000, 10))
    smiles[:, HAPPY] = 3
    fresh = patterns.adapted(prior.weight, prior.alpha, smiles, 500.0)
    happiest = int((prior.alpha[:, HAPPY] / prior.alpha.sum(axis=1)).argmax())
    assert fresh[happiest] > 0.6 > prior.weight[happiest]
    assert fresh.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        patterns.adapted(prior.weight, prior.alpha, smiles[:2], 500.0), prior.weight, atol=5e-3
    )


def test_three_unanimous_votes_are_not_certainty() -> None:
    labels = aggregation.soft_labels(unanimous(1, 3, 10), method="pooled")
    shares = [row[HAPPY] for row in labels["expression"].to_list()]
    assert 0.5 < shares[0] < shares[1] < shares[2] < 1
    known = aggregation.uncertainty(unanimous(1, 3, 10))
    assert known["n_votes"].to_list() == [1, 3, 10]
    for column in ("entropy", "disagreement", "error", "more_votes"):
        assert known[column].is_sorted(descending=True), column
        assert known[column][0] > known[column][2], column
    assert (known["entropy"] > 0).all()


def test_few_votes_are_better_labels_with_what_is_common() -> None:
    truth, counts = drawn(1500, 3)
    rows = votes_of(counts)
    closed = truth[:, :8] / truth[:, :8].sum(axis=1, keepdims=True)
    said = {}
    for method in ("vote_share", "smoothed", "pooled"):
        labels = aggregation.soft_labels(rows, method=method)
        heard = labels["expression"].is_not_null().to_numpy()
        expression = np.array(labels["expression"].drop_nulls().to_list())
        said[method] = cross_entropy(closed[heard], expression)
    assert said["pooled"] < said["smoothed"] - 0.02 < said["vote_share"]


def test_the_machine_tips_a_single_vote_and_hardly_ten() -> None:
    fear = np.full(8, 0.02)
    fear[EXPRESSIONS.index("fear")] = 0.86
    ids = ["f00000", "f00001"]
    machine = reading(ids, np.tile(fear, (2, 1)))
    with_it = aggregation.soft_labels(unanimous(1, 10), method="pooled", machine=machine)
    alone = aggregation.soft_labels(unanimous(1, 10), method="pooled")
    for_it = [row[EXPRESSIONS.index("fear")] for row in with_it["expression"].to_list()]
    against = [row[EXPRESSIONS.index("fear")] for row in alone["expression"].to_list()]
    assert for_it[0] > against[0] + 0.3
    assert for_it[1] < 0.2


def test_a_full_panel_needs_no_guess_and_a_part_of_one_is_completed() -> None:
    counts = np.zeros((2, 10), dtype=int)
    counts[0, :2] = (6, 4)
    counts[1, HAPPY] = 5
    labels = aggregation.soft_labels(votes_of(counts), method="pooled_panel")
    full, part = labels["expression"].to_list()
    assert full[:2] == pytest.approx([0.6, 0.4])
    assert part[HAPPY] == pytest.approx(1)
    assert labels["method"][0].startswith("pooled(says=panel of 10")


def test_the_error_it_tells_is_the_error_it_makes() -> None:
    for k in (1, 3, 8):
        truth, counts = drawn(1500, k, seed=k)
        table = tally(votes_of(counts))
        made = 0.5 * np.abs(Pooled().fit(table).answers_ - truth).sum(axis=1).mean()
        told = aggregation.uncertainty(votes_of(counts))["error"].mean()
        assert told == pytest.approx(made, rel=0.15)


def test_more_votes_reach_the_tolerance_they_were_asked_for() -> None:
    truth, counts = drawn(1500, 2, seed=5)
    asked = aggregation.uncertainty(votes_of(counts), tolerance=0.2, most=20)[
        "more_votes"
    ].to_numpy()
    assert 0 < asked.mean() < 20
    rng = np.random.default_rng(0)
    more = [rng.multinomial(n, p) for n, p in zip(asked, truth, strict=True)]
    error = aggregation.uncertainty(votes_of(counts + np.stack(more)))["error"].mean()
    assert error == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("given", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"most": -1}])
def test_senseless_settings_are_refused(given: dict) -> None:
    with pytest.raises(SettingsError, match="tolerance"):
        aggregation.uncertainty(unanimous(1), **given)


def test_nothing_is_known_of_no_votes() -> None:
    empty = aggregation.uncertainty(unanimous(1).clear())
    assert (empty.height, empty.columns[0]) == (0, "face_id")


def test_the_fit_trusts_a_good_machine_and_reads_back(tmp_path) -> None:
    truth, counts = drawn(120, 6)
    rng = np.random.default_rng(0)
    precise = np.stack([rng.dirichlet(40 * p + 0.05) for p in truth])
    useless = rng.permutation(precise)
    good, better = fitting.fit(counts, panels=counts, machine=precise, components=2, steps=12)
    bad, worse = fitting.fit(counts, panels=counts, machine=useless, components=2, steps=12)
    assert better > worse
    assert bad.patterns > 0.5 > good.patterns
    path = tmp_path / "prior.json"
    path.write_text(fitting.text_of(good, fitted_on="a drawn set"))
    again = Prior.read(path)
    np.testing.assert_allclose(again.alpha, good.alpha, rtol=1e-3)
    assert again.version == json.loads(path.read_text())["version"]
    assert again.version in Pooled(prior=again).method
