"""Posterior: raters' reliabilities, and the prior that each face gets."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotation import aggregation
from annotation.aggregation.posterior import Posterior
from annotation.aggregation.votes import tally
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

FEAR, HAPPY = EXPRESSIONS.index("fear"), EXPRESSIONS.index("happiness")


def table(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=["face_id", "rater_id", "label"], orient="row")


def sure_of(label: str, *face_ids: str) -> pl.DataFrame:
    row = np.full(8, 0.02)
    row[EXPRESSIONS.index(label)] = 0.86
    schema = {name: TABLES["ratings"].schema[name] for name in ("face_id", "expression")}
    frame = pl.DataFrame(
        {"face_id": face_ids, "expression": [row.tolist()] * len(face_ids)}, schema
    )
    return frame.with_columns(open_set=pl.Series([[0.0, 0.0]] * len(face_ids)))


def careless() -> pl.DataFrame:
    """Three raters agree about thirty faces; a fourth always answers fear."""
    rng = np.random.default_rng(0)
    truth = rng.choice(["neutral", "happiness", "sadness"], 30)
    rows = [(f"f{face:02d}", rater, str(label)) for face, label in enumerate(truth)
            for rater in "abc"]  # fmt: skip
    return table(*rows, *((f"f{face:02d}", "d", "fear") for face in range(30)))


def label_of(labels: pl.DataFrame, face_id: str) -> np.ndarray:
    return np.array(labels.filter(pl.col("face_id") == face_id)["expression"].item())


def test_posterior__equal_raters_without_machine_give_the_smoothed_share() -> None:
    votes = table(("f", "a", "fear"), ("f", "b", "fear"), ("f", "c", "anger"),
                  ("g", "a", "neutral"), ("g", "b", "neutral"), ("g", "c", "anger"))  # fmt: skip
    # Of three raters c is alone with its answers; so many prior votes make all skills equal.
    skilled = Posterior(prior_votes=1e9).fit(tally(votes))
    assert skilled.weight_.tolist() == [1, 1, 1]
    smoothed = aggregation.soft_labels(votes, method="smoothed")
    assert skilled.probabilities_ == pytest.approx(np.array(smoothed["expression"].to_list()))
    # (2 + 1.2 * 3/14) / (3 + 1.2): 6 votes and 8 of the prior, two of them and one for fear.
    assert skilled.probabilities_[0, FEAR] == pytest.approx((2 + 1.2 * 3 / 14) / 4.2)


def test_posterior__one_rater_gives_the_dirichlet_mixture() -> None:
    votes = table(("f", "a", "fear"), ("g", "a", "happiness"))
    machine = sure_of("happiness", "f", "g")
    ours = aggregation.soft_labels(votes, method="posterior", machine=machine)
    plain = aggregation.soft_labels(votes, method="dirichlet_mixture", machine=machine)
    assert ours["expression"].to_list() == plain["expression"].to_list()


@pytest.mark.parametrize("rated", [False, True])
def test_posterior__careless_rater_counts_less(rated: bool) -> None:
    votes = careless()
    machine = sure_of("happiness", "f00") if rated else None
    found = Posterior().fit(tally(votes, machine=machine))
    good, bad = found.weight_[:3], found.weight_[3]
    assert bad < 0.5 < good.min()
    assert good == pytest.approx(good[0])
    assert found.weight_.mean() == pytest.approx(1, abs=1e-3)  # all gave as many votes
    labels = aggregation.soft_labels(votes, method="posterior", machine=machine)
    equal = aggregation.soft_labels(votes, method="smoothed")
    assert label_of(labels, "f07")[FEAR] < label_of(equal, "f07")[FEAR]


def test_posterior__each_face_has_its_own_prior() -> None:
    votes = table(*((face, rater, "neutral") for face in "fg" for rater in "ab"))
    labels = aggregation.soft_labels(votes, method="posterior", machine=sure_of("fear", "f"))
    assert label_of(labels, "f")[FEAR] > 0.15
    assert label_of(labels, "g")[FEAR] < 0.1


def test_posterior__smoothing_never_overrules_the_only_vote() -> None:
    votes = table(("f", "a", "fear"), *((f"g{face}", "a", "happiness") for face in range(60)))
    assert label_of(aggregation.soft_labels(votes, method="smoothed"), "f").argmax() == HAPPY
    assert label_of(aggregation.soft_labels(votes, method="posterior"), "f").argmax() == FEAR


def test_posterior__names_and_order_of_raters_do_not_matter() -> None:
    votes = careless()
    other = votes.with_columns(pl.col("rater_id").replace({"a": "z", "c": "b", "b": "c"}))
    one, two = (
        aggregation.soft_labels(rows, method="posterior", machine=sure_of("fear", "f03"))
        for rows in (votes, other.reverse())
    )
    assert one.equals(two)


@pytest.mark.parametrize("method", ["vote_share", "smoothed", "posterior", "dirichlet_mixture"])
def test_soft_labels__last_bit_independent_of_the_raters_order(method: str) -> None:
    """Pseudonyms are random per home; equal votes must give equal bytes."""
    rng = np.random.default_rng(0)
    votes = table(*(
        (f"f{face}", f"r{rater}", EXPRESSIONS[answer])
        for face in range(12) for rater in range(7)
        for answer in rng.choice(4, rng.integers(1, 4), replace=False)
    ))  # fmt: skip
    names = [f"r{rater}" for rater in range(7)]
    machine = sure_of("fear", "f3")
    seen = {
        aggregation.soft_labels(renamed, method=method, machine=machine).write_json()
        for renamed in (
            votes.with_columns(pl.col("rater_id").replace(dict(zip(names, new, strict=True))))
            for new in (rng.permutation(names) for _ in range(8))
        )
    }
    assert len(seen) == 1


def test_posterior__right_labels_by_raters_of_known_skill() -> None:
    rng = np.random.default_rng(1)
    truth, skill = rng.integers(0, 8, 400), np.linspace(0.3, 0.95, 12)
    votes = table(*(
        (f"f{face:03d}", f"r{rater:02d}",
         EXPRESSIONS[truth[face] if rng.random() < skill[rater] else rng.integers(8)])
        for face in range(400) for rater in rng.choice(12, 3, replace=False)
    ))  # fmt: skip
    right = {
        method: float((np.array(aggregation.soft_labels(votes, method=method)["expression"]
                                .to_list()).argmax(axis=1) == truth).mean())
        for method in ("vote_share", "posterior")
    }  # fmt: skip
    assert right["posterior"] > right["vote_share"] + 0.02
    weight = Posterior().fit(tally(votes)).weight_
    assert np.corrcoef(weight, skill)[0, 1] > 0.8


@pytest.mark.parametrize(("earlier", "name"), aggregation.EARLIER_NAMES.items())
def test_soft_labels__names_of_earlier_versions(earlier: str, name: str) -> None:
    votes = careless()
    assert aggregation.soft_labels(votes, method=earlier).equals(
        aggregation.soft_labels(votes, method=name)
    )
