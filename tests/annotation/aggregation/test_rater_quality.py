"""Rater quality: each rater against the other raters of the same faces."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotation import aggregation
from annotation.aggregation.agreement import face_agreement, overlap
from annotation.aggregation.votes import tally
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ANSWERS, EXPRESSIONS


def table(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=["face_id", "rater_id", "label"], orient="row")


TWO_FACES = table(
    ("f", "a", "happiness"), ("f", "b", "happiness"), ("f", "c", "sadness"),
    ("g", "a", "happiness"), ("g", "b", "happiness"), ("g", "c", "happiness"),
)  # fmt: skip


def test_rater_quality__excludes_own_votes() -> None:
    quality = aggregation.rater_quality(TWO_FACES, aggregation.soft_labels(TWO_FACES))
    assert quality.schema == TABLES["rater_quality"].schema
    assert quality["rater_id"].to_list() == ["a", "b", "c"]
    assert quality["n_votes"].to_list() == [2, 2, 2]
    assert quality["agreement"].to_list() == pytest.approx([0.75, 0.75, 0.5])
    happy, sad = ANSWERS.index("happiness"), ANSWERS.index("sadness")
    of_a, _, of_c = quality["confusion"].to_list()
    # On f the others of a are b and c, who tie: half a count for each answer.
    assert (of_a[happy][happy], of_a[happy][sad]) == pytest.approx((0.75, 0.25))
    assert (of_c[sad][happy], of_c[happy][happy]) == pytest.approx((1, 1))
    assert np.array(of_a).shape == (10, 10)
    assert np.array(of_a).sum() == pytest.approx(1)


def test_rater_quality__counts_only_labelled_faces() -> None:
    labels = aggregation.soft_labels(TWO_FACES).filter(pl.col("face_id") == "g")
    quality = aggregation.rater_quality(TWO_FACES, labels)
    assert quality["agreement"].to_list() == [1, 1, 1]
    assert quality["n_votes"].to_list() == [1, 1, 1]


def test_rater_quality__guesser_weighs_least() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for face in range(60):
        truth = EXPRESSIONS[face % 8]
        rows += [(f"f{face:02d}", name, truth) for name in ("careful", "steady")]
        rows.append((f"f{face:02d}", "guesser", EXPRESSIONS[rng.integers(8)]))
    rows.append(("f00", "once", "contempt"))
    quality = aggregation.rater_quality(table(*rows))
    weight = dict(quality.select("rater_id", "weight").iter_rows())
    assert weight["careful"] == weight["steady"] > weight["once"] > weight["guesser"]
    assert weight["guesser"] < 0.2


def test_rater_quality__has_no_agreement_without_shared_faces() -> None:
    quality = aggregation.rater_quality(table(("f", "a", "fear"), ("g", "b", "anger")))
    assert quality["agreement"].to_list() == [None, None]
    assert quality["weight"].to_list() == [1, 1]
    assert np.array(quality["confusion"].to_list()).sum() == 0


def test_overlap__matches_loop_over_pairs() -> None:
    rng = np.random.default_rng(1)
    rows = [
        (f"f{face}", f"r{rater}", ANSWERS[answer])
        for face in range(12)
        for rater in rng.choice(6, size=rng.integers(1, 6), replace=False)
        for answer in rng.choice(10, size=rng.integers(1, 4), replace=False)
    ]
    votes = tally(table(*rows))
    share = np.zeros((len(votes.face_ids), len(votes.rater_ids), 10))
    for face, rater, answer, part in votes.answers.drop("weight").iter_rows():
        share[face, rater, answer] = part
    for face, rater, n_others, found in overlap(votes).iter_rows():
        others = [
            np.minimum(share[face, rater], share[face, other]).sum()
            for other in range(len(votes.rater_ids))
            if other != rater and share[face, other].any()
        ]
        assert n_others == len(others)
        assert found == (pytest.approx(np.mean(others)) if others else None)
    assert face_agreement(votes).len() == len(votes.face_ids)
