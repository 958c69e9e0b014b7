"""Rater drift: changed raters, and raters who only saw harder faces."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from annotation import audit
from warehouse.errors import TableError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import EXPRESSIONS

START = datetime(2025, 1, 1, tzinfo=UTC)
STEADY = ("a", "b", "c")


def table(*rows: tuple[int, str, str]) -> pl.DataFrame:
    """Rows of (face, rater, label); face i is answered at minute i."""
    timed = [
        (f"f{face:03d}", rater, label, START + timedelta(minutes=face))
        for face, rater, label in rows
    ]
    return pl.DataFrame(
        timed,
        schema={
            "face_id": pl.String,
            "rater_id": pl.String,
            "label": pl.String,
            "updated_at": pl.Datetime("us", "UTC"),
        },
        orient="row",
    )


def faces(n: int, *, tired_after: int) -> list[tuple[int, str, str]]:
    rows = [(face, name, EXPRESSIONS[face % 5]) for face in range(n) for name in STEADY]
    return rows + [
        (face, "tired", EXPRESSIONS[face % 5] if face < tired_after else "contempt")
        for face in range(n)
    ]


def test_rater_drift__finds_changed_rater() -> None:
    result = audit.run("rater_drift", votes=table(*faces(20, tired_after=10)))
    assert result.statistics["drift"] == pytest.approx(
        # Late, each steady rater shares an answer with 2 of 3 others, who share 1 pair of 3.
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3, "tired": -1}
    )
    tired = result.statistics["raters"][3]
    assert (tired["first"], tired["last"], tired["z"]) == (0, -1, -math.inf)
    assert tired["most_frequent_share"] == pytest.approx(10 / 20)
    assert "tired" in result.statistics["drifting"]
    assert result.rows.equals(TABLES["audits"].empty())


def test_rater_drift__harder_faces_are_not_drift() -> None:
    rows = [(face, name, EXPRESSIONS[face % 5]) for face in range(10) for name in "abcd"]
    rows += [
        (face, name, EXPRESSIONS[(face + shift) % 8])
        for face in range(10, 20)
        for shift, name in enumerate("abcd")
    ]
    result = audit.run("rater_drift", votes=table(*rows))
    assert set(result.statistics["drift"].values()) == {0.0}
    assert (result.statistics["drifting"], result.score) == ([], 1.0)


def test_rater_drift__two_raters() -> None:
    rows = [(face, "a", "fear") for face in range(8)]
    rows += [(face, "b", "fear" if face < 4 else "anger") for face in range(8)]
    result = audit.run("rater_drift", votes=table(*rows))
    assert result.statistics["drift"] == {"a": -1, "b": -1}


def test_rater_drift__orders_by_time() -> None:
    votes = table(*faces(20, tired_after=10))
    shuffled = votes.sample(votes.height, shuffle=True, seed=0)
    assert (
        audit.run("rater_drift", votes=shuffled).statistics
        == audit.run("rater_drift", votes=votes).statistics
    )


@pytest.mark.parametrize(
    "votes",
    [
        pytest.param(table(), id="no votes"),
        pytest.param(table(*faces(1, tired_after=1)), id="one face"),
        pytest.param(table(*((face, "a", "fear") for face in range(20))), id="one rater"),
        pytest.param(table(*faces(20, tired_after=10)).drop("updated_at"), id="no times"),
        pytest.param(
            table(*faces(20, tired_after=10)).with_columns(
                updated_at=pl.lit(None, pl.Datetime("us", "UTC"))
            ),
            id="null times",
        ),
    ],
)
def test_rater_drift__too_few_votes(votes: pl.DataFrame) -> None:
    result = audit.run("rater_drift", votes=votes)
    assert set(result.statistics["drift"].values()) <= {None}
    assert set(result.statistics["drift"]) == set(votes["rater_id"])
    assert (result.score, result.statistics["judged"]) == (1.0, 0)


def test_rater_drift__rejects_text_times() -> None:
    votes = table(*faces(4, tired_after=4)).with_columns(updated_at=pl.lit("yesterday"))
    with pytest.raises(TableError, match="the type String"):
        audit.run("rater_drift", votes=votes)


def timed(rows: list[tuple[int, str, str]], **seconds: float) -> pl.DataFrame:
    lead = pl.col("rater_id").replace_strict(seconds, default=4.0, return_dtype=pl.Float64)
    return table(*rows).with_columns(lead_time_s=lead)


def test_rater_drift__hasty() -> None:
    rows = faces(20, tired_after=20)
    result = audit.run("rater_drift", votes=timed(rows, a=0.4, b=1.5))
    assert result.statistics["hasty"] == ["a"]
    weight = result.statistics["weight"]
    assert weight["a"] == 0 < weight["b"] == weight["tired"]
    # If all raters are fast, none is hasty: the task is quick.
    quick = audit.run("rater_drift", votes=timed(rows, a=0.4, b=0.4, c=0.4, tired=0.4))
    assert quick.statistics["hasty"] == []
    assert audit.run("rater_drift", votes=table(*rows)).statistics["hasty"] == []


def test_rater_drift__monotone() -> None:
    rows = faces(30, tired_after=0)
    result = audit.run("rater_drift", votes=table(*rows))
    assert result.statistics["monotone"] == ["tired"]
    assert result.statistics["drifting"] == []
    assert result.score == pytest.approx(3 / 4)
    smiles = [(face, name, "happiness") for face in range(30) for name in (*STEADY, "d")]
    assert audit.run("rater_drift", votes=table(*smiles)).statistics["monotone"] == []
    few = audit.run("rater_drift", votes=table(*faces(6, tired_after=0)))
    assert (few.statistics["monotone"], few.score) == ([], 1.0)


def test_rater_drift__lowers_weight() -> None:
    weight = audit.run("rater_drift", votes=table(*faces(40, tired_after=20))).statistics["weight"]
    assert weight["tired"] == 0
    assert weight["a"] > 0.5


def test_rater_drift__peers_of_changed_rater_do_not_drift() -> None:
    rng = np.random.default_rng(1)
    rows = []
    for face in range(400):
        truth = EXPRESSIONS[rng.integers(8)]
        for rater in [*rng.choice(9, size=4, replace=False), "tired"]:
            guesses = rater == "tired" and face >= 200
            sure = 0.0 if guesses else 0.8
            label = truth if rng.random() < sure else EXPRESSIONS[rng.integers(8)]
            rows.append((f"f{face:03d}", f"r{rater}" if rater != "tired" else "tired", label, face))
    names = ("face_id", "rater_id", "label", "updated_at")
    votes = pl.DataFrame(rows, schema=names, orient="row")
    found = audit.run("rater_drift", votes=votes).statistics
    assert found["drifting"] == ["tired"]
