"""Degenerate vote tables: each gives a valid result or a clear error."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pytest

from annotation import aggregation
from warehouse.errors import SettingsError, TableError
from warehouse.storage.schema import TABLES

COLUMNS = {"face_id": pl.String, "rater_id": pl.String, "label": pl.String}


def table(*rows: tuple[str | None, str | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=COLUMNS, orient="row")


@pytest.mark.parametrize("method", sorted(aggregation.METHODS))
@pytest.mark.parametrize(
    "votes",
    [
        pytest.param(table(), id="no votes"),
        pytest.param(pl.DataFrame({"face_id": [], "rater_id": [], "label": []}), id="untyped"),
        pytest.param(
            table(("f", "r", "fear")).with_columns(weight=pl.lit(0.0)), id="nothing counts"
        ),
    ],
)
def test_soft_labels__is_empty_without_votes(votes: pl.DataFrame, method: str) -> None:
    labels = aggregation.soft_labels(votes, method=method)
    quality = aggregation.rater_quality(votes, labels)
    assert (labels.height, labels.schema) == (0, TABLES["soft_labels"].schema)
    assert (quality.height, quality.schema) == (0, TABLES["rater_quality"].schema)


ALONE = sorted(set(aggregation.METHODS) - {"crowdlab"})


@pytest.mark.parametrize("method", ALONE)
@pytest.mark.parametrize("label", ["neutral", "unknown"])
def test_soft_labels__single_answer(label: str, method: str) -> None:
    votes = table(*((f"f{face}", f"r{rater}", label) for face in range(3) for rater in range(3)))
    labels = aggregation.soft_labels(votes, method=method)
    assert labels["agreement"].to_list() == [1, 1, 1]
    assert labels["expression"].null_count() == (3 if label == "unknown" else 0)
    quality = aggregation.rater_quality(votes, labels)
    assert quality["agreement"].to_list() == [1, 1, 1]
    # Agreement beyond chance is undefined here, so no rater loses weight.
    assert quality["weight"].to_list() == [1, 1, 1]


def rated(*face_ids: str, expression: list[float] | None = None) -> pl.DataFrame:
    schema = TABLES["ratings"].schema
    return pl.DataFrame(
        {
            "face_id": list(face_ids),
            "expression": [expression or [0.3] + [0.1] * 7] * len(face_ids),
            "open_set": [[0.05, 0.0]] * len(face_ids),
        },
        schema={name: schema[name] for name in ("face_id", "expression", "open_set")},
    )


@pytest.mark.parametrize("method", sorted(aggregation.METHODS))
@pytest.mark.parametrize(
    "votes",
    [
        pytest.param([("a", "r", "fear"), ("a", "s", "fear"), ("b", "once", "anger")], id="once"),
        pytest.param([("a", "r", "fear"), ("a", "r", "anger"), ("a", "s", "fear"),
                      ("a", "t", "fear"), ("b", "r", "unknown")], id="several and open"),
        pytest.param([("a", "r", "fear"), ("a", "s", "anger"), ("b", "r", "fear"),
                      ("b", "s", "fear")] * 2, id="a tie, repeated"),
    ],
)  # fmt: skip
def test_soft_labels__null_only_without_closed_vote(
    votes: list[tuple[str, str, str]], method: str
) -> None:
    labels = aggregation.soft_labels(table(*votes), method=method, machine=rated("a", "b", "gone"))
    missing = labels["expression"].is_null()
    assert missing.to_list() == (labels["open_set_share"] == 1).to_list()
    sums = labels.filter(~missing)["expression"].arr.sum().to_list()
    assert sums == pytest.approx([1.0] * len(sums), abs=1e-5)
    assert labels["method"].str.starts_with(method).all()


@pytest.mark.parametrize(
    ("votes", "machine", "message"),
    [
        pytest.param([("a", "r", "fear"), ("a", "s", "fear")], None, "no machine rated", id="none"),
        pytest.param(
            [("a", "r", "fear"), ("b", "s", "fear")], rated("a"), "no machine rated", id="one face"
        ),
        pytest.param(
            [("a", "r", "fear"), ("b", "s", "fear")],
            rated("a", "b"),
            "two raters",
            id="none shared",
        ),
        pytest.param([("a", "r", "fear")], rated("a"), "two raters", id="one rater"),
        pytest.param(
            [("a", "r", "fear"), ("a", "s", "anger")], rated("a"), "two raters", id="no agreement"
        ),
    ],
)
def test_crowdlab__rejects_missing_evidence(
    votes: list[tuple[str, str, str]], machine: pl.DataFrame | None, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        aggregation.soft_labels(table(*votes), method="crowdlab", machine=machine)


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param([0.5] * 8, id="sums to four"),
        pytest.param([float("nan")] + [0.1] * 7, id="NaN"),
        pytest.param([1.5, -0.5] + [0.0] * 6, id="negative"),
    ],
)
def test_soft_labels__ignores_ratings_that_are_no_distribution(expression: list[float]) -> None:
    votes = table(("a", "r", "fear"), ("b", "r", "fear"))
    broken = rated("a", "b", expression=expression)
    alone = aggregation.soft_labels(votes, method="dirichlet_mixture")
    rated_labels = aggregation.soft_labels(votes, method="dirichlet_mixture", machine=broken)
    assert rated_labels["expression"].to_list() == alone["expression"].to_list()


def test_soft_labels__rejects_machine_and_start_without_columns() -> None:
    votes = table(("a", "r", "fear"))
    for given in ({"machine": rated("a").drop("open_set")}, {"start": rated("a").drop("face_id")}):
        with pytest.raises(TableError, match="Columns are missing"):
            aggregation.soft_labels(votes, **given)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        pytest.param(table(("f", "r", "bored")), "'bored'", id="unknown label"),
        pytest.param(table(("f", "r", "")), "''", id="empty label"),
        pytest.param(table(("f", "r", None)), "nulls in label", id="no label"),
        pytest.param(table((None, "r", "fear")), "nulls in face_id", id="no face"),
        pytest.param(table(("f", None, "fear")), "nulls in rater_id", id="no rater"),
        pytest.param(
            table(("f", "r", "fear")).drop("rater_id"),
            "missing in the vote table: rater_id",
            id="column",
        ),
        pytest.param(
            table(("f", "r", "fear")).with_columns(weight=pl.lit(-1.0)), "-1.0", id="negative"
        ),
        pytest.param(
            table(("f", "r", "fear")).with_columns(weight=pl.lit(float("nan"))), "nan", id="NaN"
        ),
        pytest.param(
            table(("f", "r", "fear")).with_columns(weight=pl.lit(None, pl.Float64)),
            "None",
            id="null weight",
        ),
        pytest.param(None, "not a table: NoneType", id="nothing"),
        pytest.param("votes.csv", "not a table: str", id="path"),
        pytest.param([1, 2], "missing in the vote table: face_id", id="list"),
        pytest.param(
            table(("f", "r", "fear")).with_columns(face_id=pl.lit(1.5)), "Float64", id="fractions"
        ),
    ],
)
def test_soft_labels__rejects_invalid_votes(votes: pl.DataFrame, message: str) -> None:
    with pytest.raises(TableError, match=re.escape(message)):
        aggregation.soft_labels(votes)


@pytest.mark.parametrize(
    "convert",
    [pl.DataFrame.lazy, pl.DataFrame.to_pandas, pl.DataFrame.to_arrow, pl.DataFrame.to_dict],
)
def test_soft_labels__tables_of_other_libraries_and_integer_ids(convert: Any) -> None:
    votes = table(("10", "7", "fear"), ("10", "8", "anger"), ("9", "7", "fear"))
    numbers = votes.with_columns(pl.col("face_id", "rater_id").cast(pl.Int64))
    for given in (votes, numbers):
        assert aggregation.soft_labels(convert(given)).equals(aggregation.soft_labels(votes))
        assert aggregation.rater_quality(convert(given))["rater_id"].to_list() == ["7", "8"]


def test_soft_labels__summarizes_many_unknown_labels() -> None:
    votes = table(*(("f", f"r{number}", f"mood-{number}") for number in range(9)))
    with pytest.raises(TableError, match="and 4 more"):
        aggregation.soft_labels(votes)


def test_soft_labels__unknown_method_lists_known_ones() -> None:
    with pytest.raises(SettingsError, match="vote_share, smoothed"):
        aggregation.soft_labels(table(), method="majority")
