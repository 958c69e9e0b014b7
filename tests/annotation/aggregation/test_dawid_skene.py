"""Methods with one true answer: against plain loops and simulated raters."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotation import aggregation
from annotation.aggregation import crowdlab
from annotation.aggregation.dawid_skene import DawidSkene, OneCoinDawidSkene
from annotation.aggregation.votes import VoteTable, tally
from warehouse.vocabulary import ANSWERS, EXPRESSIONS

SKILLS = (0.9, 0.8, 0.7, 0.6, 0.35)


def simulated(n: int = 200, *, seed: int = 0, skills: tuple[float, ...] = SKILLS) -> pl.DataFrame:
    """Simulate raters of known skill; face i shows expression i mod 4."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"f{face:04d}", f"r{rater}",
         EXPRESSIONS[face % 4 if rng.random() < skill else rng.integers(4)])
        for face in range(n)
        for rater, skill in enumerate(skills)
        if rng.random() < 0.7
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=["face_id", "rater_id", "label"], orient="row")


def right(probabilities: np.ndarray, votes: VoteTable) -> float:
    truth = np.array([int(name[1:]) % 4 for name in votes.face_ids])
    return float((probabilities.argmax(axis=1) == truth).mean())


def by_loops(votes: VoteTable, n_iter: int) -> np.ndarray:
    """Dawid and Skene's EM without smoothing, one vote at a time."""
    listed = [(f, r, a) for f, r, a, *_ in votes.answers.iter_rows()]
    belief = votes.counts("share")
    belief = belief / belief.sum(axis=1, keepdims=True)
    for _ in range(n_iter):
        counts = np.zeros((len(votes.rater_ids), 10, 10))
        for face, rater, answer in listed:
            counts[rater, :, answer] += belief[face]
        counts = np.maximum(counts, 1e-10)
        confusion = counts / counts.sum(axis=2, keepdims=True)
        logs = np.tile(np.log(np.maximum(belief.mean(axis=0), 1e-10)), (len(belief), 1))
        for face, rater, answer in listed:
            logs[face] += np.log(confusion[rater, :, answer])
        belief = np.exp(logs - logs.max(axis=1, keepdims=True))
        belief /= belief.sum(axis=1, keepdims=True)
    return belief


@pytest.mark.parametrize("n_iter", [1, 7])
def test_dawid_skene__matches_plain_loops(n_iter: int) -> None:
    votes = tally(simulated(60))
    found = DawidSkene(n_iter=n_iter, tol=0, prior_votes=0).fit(votes)
    assert found.n_iter_ == n_iter
    np.testing.assert_allclose(found.answers_, by_loops(votes, n_iter), atol=1e-8)


@pytest.mark.parametrize("method", [DawidSkene, OneCoinDawidSkene])
def test_em__recovers_skills_and_beats_vote_share(method: type) -> None:
    votes = tally(simulated(400))
    found = method().fit(votes)
    share = votes.closed_counts() / votes.closed_counts().sum(axis=1, keepdims=True)
    assert right(found.probabilities_, votes) > right(share, votes) + 0.01
    if method is OneCoinDawidSkene:
        skill = found.skill_
    else:
        skill = np.array([np.diag(table)[:4].mean() for table in found.confusion_])
        np.testing.assert_allclose(found.confusion_.sum(axis=2), 1, atol=1e-6)
    # A rater of skill s is right by luck in a quarter of the rest.
    np.testing.assert_allclose(skill, [s + (1 - s) / 4 for s in SKILLS], atol=0.08)


@pytest.mark.parametrize("method", [DawidSkene, OneCoinDawidSkene])
def test_em__start_saves_iterations(method: type) -> None:
    rows = simulated(300)
    name = "dawid_skene" if method is DawidSkene else "one_coin"
    earlier = aggregation.soft_labels(rows.head(rows.height - 40), method=name)
    votes = tally(rows)
    cold = method(tol=0.01).fit(votes)
    warm = method(tol=0.01).fit(tally(rows, start=earlier))
    assert 0 < warm.n_iter_ < cold.n_iter_
    assert np.abs(warm.probabilities_ - cold.probabilities_).mean() < 0.01


def test_dawid_skene__prior_limits_single_votes() -> None:
    rows = pl.concat([
        simulated(100),
        pl.DataFrame([("lonely", "once", "contempt")], schema=["face_id", "rater_id", "label"],
                     orient="row"),
    ])  # fmt: skip
    votes = tally(rows)
    textbook, pooled = (
        DawidSkene(prior_votes=prior).fit(votes).confusion_[votes.rater_ids.index("once")]
        for prior in (0, 1)
    )
    contempt = ANSWERS.index("contempt")
    assert textbook[contempt, contempt] == pytest.approx(1)
    # No other rater answers contempt. For other truths the rater counts as an average one.
    assert pooled[0, 0] > 0.4
    assert textbook[0, 0] < 0.01


def test_soft_labels__keeps_ties_between_equal_raters() -> None:
    rows = [
        row
        for pair in range(10)
        for row in ((f"x{pair}", "a", "anger"), (f"x{pair}", "b", "fear"),
                    (f"y{pair}", "a", "fear"), (f"y{pair}", "b", "anger"))
    ]  # fmt: skip
    votes = pl.DataFrame(rows, schema=["face_id", "rater_id", "label"], orient="row")
    for method in ("vote_share", "all_inclusive", "one_coin", "smoothed"):
        (anger, fear) = (EXPRESSIONS.index(name) for name in ("anger", "fear"))
        for label in aggregation.soft_labels(votes, method=method)["expression"].to_list():
            assert label[anger] == pytest.approx(label[fear], abs=1e-6)


def test_crowdlab__extends_posterior_to_unvoted_expressions() -> None:
    votes = tally(simulated(80))
    rng = np.random.default_rng(1)
    belief = rng.dirichlet(np.ones(8), size=len(votes.face_ids))
    found = crowdlab.posterior(votes, votes.face_ids, belief)
    assert found is not None
    counts = np.zeros_like(belief)
    weight = np.zeros(len(belief))
    for face, rater, answer, *_ in votes.answers.iter_rows():
        worth = found.rater_weight[votes.rater_ids[rater]]
        counts[face, answer] += worth
        weight[face] += worth
    # Goh et al.: the mean of the machine and each rater by weight. A rater is right with one common
    # probability and otherwise gives any other answer equally. It is solved for from one cell.
    face, answer = np.argwhere(counts > 0)[0]
    total = found.machine_weight + weight
    value = found.voted[face, answer] * total[face] - found.machine_weight * belief[face, answer]
    wrong = weight[face] - counts[face, answer]
    common = (value - wrong / 7) / (counts[face, answer] - wrong / 7)
    expected = found.machine_weight * belief + counts * common
    expected += (weight[:, None] - counts) * (1 - common) / 7
    np.testing.assert_allclose(found.probabilities, expected / total[:, None], atol=1e-8)


def test_weighted__applies_rater_weights() -> None:
    rows = simulated(200)
    labels = aggregation.soft_labels(rows)
    quality = aggregation.rater_quality(rows, labels)
    reweighted = aggregation.soft_labels(aggregation.weighted(rows, quality))
    votes = tally(rows)
    plain, better = (
        frame.select(pl.col("expression").arr.to_list())["expression"].to_list()
        for frame in (labels, reweighted)
    )
    assert right(np.array(better), votes) > right(np.array(plain), votes)
    assert reweighted.select("face_id", "n_votes", "agreement").equals(
        labels.select("face_id", "n_votes", "agreement")
    )
    twice = pl.DataFrame([("f", "a", "anger"), ("f", "a", "fear"), ("f", "new", "fear")],
                         schema=["face_id", "rater_id", "label"], orient="row")  # fmt: skip
    worth = pl.DataFrame({"rater_id": ["a"], "weight": [0.5]})
    assert aggregation.weighted(twice, worth)["weight"].to_list() == [0.25, 0.25, 1.0]
