"""Soft labels, on tables small enough to check by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import polars as pl
import pytest

from annotation import aggregation
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

Rows = list[tuple[str, str]]


def of_one_face(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        [("f", rater, label) for rater, label in rows],
        schema=["face_id", "rater_id", "label"],
        orient="row",
    )


def shares(**named: float) -> list[float]:
    return [named.get(name, 0.0) for name in EXPRESSIONS]


@pytest.mark.parametrize(
    ("rows", "expression", "open_set_share", "n_votes", "entropy", "agreement"),
    [
        pytest.param(
            [("a", "happiness"), ("b", "happiness"), ("c", "happiness")],
            shares(happiness=1), 0, 3, 0, 1, id="unanimous",
        ),
        pytest.param(
            [("a", "anger"), ("b", "fear")],
            shares(anger=0.5, fear=0.5), 0, 2, 1, 0, id="a tie stays a tie",
        ),
        pytest.param(
            [("a", "sadness")], shares(sadness=1), 0, 1, 0, None, id="one rater has no pair",
        ),
        pytest.param(
            [("a", "happiness"), ("b", "happiness"), ("c", "unknown"), ("d", "not_a_face")],
            shares(happiness=1), 0.5, 4, 0, 1 / 6, id="open-set votes beside closed ones",
        ),
        pytest.param(
            [("a", "unknown"), ("b", "not_a_face")], None, 1, 2, None, 0, id="open-set votes only",
        ),
        pytest.param(
            [("a", "unknown"), ("b", "unknown")], None, 1, 2, None, 1, id="agreed to be unknown",
        ),
        pytest.param(
            [("a", "anger"), ("a", "disgust"), ("b", "anger")],
            shares(anger=0.75, disgust=0.25), 0, 2,
            -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25), 0.5, id="two answers count half each",
        ),
        pytest.param(
            [("a", "anger"), ("a", "unknown")],
            shares(anger=1), 0.5, 1, 0, None, id="half a vote for unknown",
        ),
        pytest.param(
            [("a", "happy"), ("a", "happiness"), ("a", "Happy "), ("b", "sad")],
            shares(happiness=0.5, sadness=0.5), 0, 2, 1, 0, id="synonyms and repeated rows",
        ),
    ],
)  # fmt: skip
def test_soft_labels__vote_share(
    rows: Rows,
    expression: list[float] | None,
    open_set_share: float,
    n_votes: int,
    entropy: float | None,
    agreement: float | None,
) -> None:
    (row,) = aggregation.soft_labels(of_one_face(*rows)).iter_rows(named=True)
    assert row["expression"] == (expression and pytest.approx(expression))
    assert row["open_set_share"] == pytest.approx(open_set_share)
    assert row["n_votes"] == n_votes
    assert row["entropy"] == (entropy if entropy is None else pytest.approx(entropy))
    assert row["agreement"] == (agreement if agreement is None else pytest.approx(agreement))
    assert (row["au"], row["valence"], row["method"]) == (None, None, "vote_share")


def test_soft_labels__has_table_schema_and_order() -> None:
    votes = pl.DataFrame(
        {"face_id": ["z", "a", "m"], "rater_id": ["r"] * 3, "label": ["fear", "unknown", "anger"]}
    )
    labels = aggregation.soft_labels(votes)
    assert labels.schema == TABLES["soft_labels"].schema
    assert labels["face_id"].to_list() == ["a", "m", "z"]
    assert aggregation.soft_labels(votes.reverse()).equals(labels)


def test_soft_labels__weights_affect_label_not_agreement() -> None:
    votes = of_one_face(("a", "happiness"), ("b", "sadness"), ("c", "fear")).with_columns(
        weight=pl.Series([3.0, 1.0, 0.0])
    )
    (row,) = aggregation.soft_labels(votes).iter_rows(named=True)
    assert row["expression"] == pytest.approx(shares(happiness=0.75, sadness=0.25))
    assert (row["n_votes"], row["agreement"]) == (2, 0)


def test_soft_labels__valence_counts_once_per_rater() -> None:
    votes = of_one_face(("a", "anger"), ("a", "fear"), ("b", "anger"), ("c", "anger")).with_columns(
        valence=pl.Series([-1.0, -1.0, 0.5, None]),
        arousal=pl.Series([0.2, 0.2, math.nan, None]),
    )
    (row,) = aggregation.soft_labels(votes).iter_rows(named=True)
    assert row["valence"] == pytest.approx((-1 + 0.5) / 2)
    assert row["arousal"] == pytest.approx(0.2)


def test_soft_labels__smoothed_uses_overall_shares() -> None:
    votes = pl.DataFrame(
        {
            "face_id": ["f", "g", "g", "h"],
            "rater_id": ["a", "a", "b", "a"],
            "label": ["fear", "happiness", "happiness", "unknown"],
        }
    )
    labels = aggregation.soft_labels(votes, method="smoothed")
    fear = dict(zip(EXPRESSIONS, labels["expression"][0], strict=True))
    # Prior: (votes + 1) / (3 votes + 8 expressions); one vote beside a prior worth 1.2.
    assert fear["fear"] == pytest.approx((1 + 1.2 * 2 / 11) / 2.2)
    assert fear["happiness"] == pytest.approx(1.2 * 3 / 11 / 2.2)
    assert fear["contempt"] == pytest.approx(1.2 * 1 / 11 / 2.2)
    assert sum(fear.values()) == pytest.approx(1)
    assert labels["expression"][2] is None
    assert labels["method"].unique().to_list() == ["smoothed(strength=1.2)"]
    raw = aggregation.soft_labels(votes)
    assert (labels["entropy"].drop_nulls() > raw["entropy"].drop_nulls()).all()
    same = ["open_set_share", "n_votes", "agreement"]
    assert labels.select(same).equals(raw.select(same))


def test_import__loads_no_heavy_module() -> None:
    probe = (
        "import sys\n"
        "import annotation.aggregation, annotation.aggregation.agreement, annotation.audit\n"
        "import annotation.sampling.queue\n"
        "heavy = {'cleanlab', 'sklearn', 'scipy', 'pandas', 'torch', 'cv2', 'dagster'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
