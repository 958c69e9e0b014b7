"""Krippendorff's alpha against values by hand and from the textbook."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from annotation.aggregation.agreement import (
    alpha_by_expression,
    alpha_by_rater,
    alpha_by_unit,
    alpha_from_counts,
    alpha_of_numbers,
    alpha_over_time,
    krippendorff_alpha,
)
from warehouse.errors import TableError

NAMES = {"1": "neutral", "2": "happiness", "3": "surprise", "4": "sadness", "5": "anger"}


def table(*raters: str) -> pl.DataFrame:
    """One text per rater, one character per face; a dot without an answer."""
    rows = [
        (f"f{face:02d}", f"r{rater}", NAMES[code])
        for rater, codes in enumerate(raters)
        for face, code in enumerate(codes)
        if code != "."
    ]
    return pl.DataFrame(rows, schema=["face_id", "rater_id", "label"], orient="row")


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [
        # Krippendorff, "Computing Krippendorff's alpha-reliability", 2011: nominal, missing data.
        pytest.param(
            ("123321412...", "1233224125.3", ".3332342251.", "12332441251."),
            0.743,
            id="textbook, four observers",
        ),
        pytest.param(("12", "12"), 1, id="always equal"),
        # N = 4, two of each: 1 - 3 * (2 + 2) / (16 - 8).
        pytest.param(("11", "22"), -0.5, id="never equal"),
        # (1,1), (1,2): D = 0 + 2, N = 4, N_c = 3, 1: 1 - 3 * 2 / (16 - 10).
        pytest.param(("11", "12"), 0, id="as chance"),
        pytest.param(("11", "11"), None, id="one answer only"),
        pytest.param(("1.", ".2"), None, id="no shared face"),
        pytest.param(("123",), None, id="one rater"),
    ],
)
def test_krippendorff_alpha(raters: tuple[str, ...], alpha: float | None) -> None:
    found = krippendorff_alpha(table(*raters))
    assert found == (None if alpha is None else pytest.approx(alpha, abs=5e-4))


def test_alpha_from_counts__matches_votes() -> None:
    counts = np.array([[3, 0, 0], [1, 2, 0], [0, 0, 1], [1, 1, 1]])
    votes = pl.DataFrame(
        [
            (f"f{face}", f"r{face}-{answer}-{copy}", NAMES[str(answer + 1)])
            for (face, answer), n in np.ndenumerate(counts)
            for copy in range(n)
        ],
        schema=["face_id", "rater_id", "label"],
        orient="row",
    )
    assert alpha_from_counts(counts) == pytest.approx(krippendorff_alpha(votes))


def test_krippendorff_alpha__several_answers_of_one_rater() -> None:
    votes = pl.DataFrame(
        [("f", "a", "happy"), ("f", "b", "anger"), ("f", "c", "anger"), ("f", "c", "disgust")],
        schema=["face_id", "rater_id", "label"],
        orient="row",
    )
    # n = 3; counts 1, 1.5, 0.5; within 1 + 1 + 0.5: 1 - 2 * (9 - 3.5 - 3 + 2.5) / 2 / (9 - 3.5).
    assert krippendorff_alpha(votes) == pytest.approx(1 - 5 / 5.5)


def test_krippendorff_alpha__is_none_without_votes() -> None:
    assert krippendorff_alpha(table()) is None
    assert alpha_from_counts(np.zeros((0, 10))) is None


def numbers(*raters: str) -> pl.DataFrame:
    rows = [
        (f"f{face:02d}", f"r{rater}", float(code))
        for rater, codes in enumerate(raters)
        for face, code in enumerate(codes)
        if code != "."
    ]
    return pl.DataFrame(rows, schema=["face_id", "rater_id", "value"], orient="row")


TEXTBOOK = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


@pytest.mark.parametrize(
    ("raters", "ordinal", "interval"),
    [
        # Krippendorff, 2011, the same data with the other metrics.
        pytest.param(TEXTBOOK, 0.815, 0.849, id="textbook, four observers"),
        pytest.param(("15", "15"), 1, 1, id="always equal"),
        pytest.param(("33", "33"), None, None, id="one value only"),
        pytest.param(("1.", ".2"), None, None, id="no shared face"),
        # Values 1 and 2 for one face: within 1 * 2 / 1 / ... = across, so alpha is 0.
        pytest.param(("1", "2"), 0, 0, id="one face, two values"),
    ],
)
def test_alpha_of_numbers__textbook(raters, ordinal, interval) -> None:
    for metric, wanted in (("ordinal", ordinal), ("interval", interval)):
        found = alpha_of_numbers(numbers(*raters), metric=metric)
        assert found == (None if wanted is None else pytest.approx(wanted, abs=5e-4)), metric


def test_alpha_of_numbers__ordinal_ignores_monotone_scaling() -> None:
    bent = numbers(*TEXTBOOK).with_columns(pl.col("value") ** 3)
    assert alpha_of_numbers(bent) == pytest.approx(alpha_of_numbers(numbers(*TEXTBOOK)))


def test_alpha_of_numbers__ignores_missing_and_rejects_repeated() -> None:
    holes = numbers(*TEXTBOOK).vstack(
        pl.DataFrame({"face_id": ["f00", "f01"], "rater_id": ["x", "x"], "value": [None, np.nan]},
                     schema={"face_id": pl.String, "rater_id": pl.String, "value": pl.Float64})
    )  # fmt: skip
    assert alpha_of_numbers(holes) == pytest.approx(alpha_of_numbers(numbers(*TEXTBOOK)))
    with pytest.raises(TableError, match="several values for one face"):
        alpha_of_numbers(pl.concat([numbers("1", "2"), numbers("3")]))
    with pytest.raises(TableError, match="missing in the ratings: value"):
        alpha_of_numbers(holes.drop("value"))


def test_alpha_by_expression__is_one_against_rest() -> None:
    votes = table(*TEXTBOOK)
    found = {row["label"]: row for row in alpha_by_expression(votes).iter_rows(named=True)}
    for code, name in NAMES.items():
        binary = votes.with_columns(
            label=pl.when(pl.col("label") == name).then(pl.lit("fear")).otherwise(pl.lit("disgust"))
        )
        wanted = krippendorff_alpha(binary)
        assert found[name]["alpha"] == pytest.approx(wanted), code
    assert found["happiness"]["n_faces"] == 5
    assert (found["contempt"]["alpha"], found["contempt"]["n_faces"]) == (None, 0)


def test_alpha_by_rater__is_lower_for_outlier() -> None:
    votes = table("1212", "1212", "1221")
    found = {row["rater_id"]: row for row in alpha_by_rater(votes).iter_rows(named=True)}
    # Chance: 12 votes, six of each: 2 * 36 / (12 * 11). r2 disagrees on two of four faces, the
    # others with one of two on those.
    chance = 72 / 132
    assert found["r2"]["alpha"] == pytest.approx(1 - 0.5 / chance)
    assert found["r0"]["alpha"] == found["r1"]["alpha"] == pytest.approx(1 - 0.25 / chance)
    assert [row["n_faces"] for row in found.values()] == [4, 4, 4]
    alone = alpha_by_rater(table("12.", "..1"))
    assert alone.rows() == [("r0", None, 0), ("r1", None, 0)]
    assert alpha_by_rater(table()).is_empty()


def test_alpha_over_time__is_per_week() -> None:
    early, late = table("12", "12"), table("12", "21")
    votes = pl.concat(
        [
            early.with_columns(updated_at=datetime(2024, 5, 7, 9, tzinfo=UTC)),
            late.with_columns(updated_at=datetime(2024, 5, 15, 9, tzinfo=UTC)),
        ]
    )
    found = alpha_over_time(votes)
    assert found["since"].to_list() == [
        datetime(2024, 5, 6, tzinfo=UTC), datetime(2024, 5, 13, tzinfo=UTC),
    ]  # fmt: skip
    assert found["alpha"].to_list() == [krippendorff_alpha(early), krippendorff_alpha(late)]
    assert found["n_votes"].to_list() == [4, 4]


def test_alpha_by_unit__is_per_unit() -> None:
    coded = pl.DataFrame(
        [("f", "a", 12, 0.5), ("f", "b", 12, 0.5), ("g", "a", 12, 0.1), ("g", "b", 12, 0.1),
         ("f", "a", 4, 1.0)],
        schema=["face_id", "rater_id", "unit", "intensity"], orient="row",
    )  # fmt: skip
    assert alpha_by_unit(coded).rows() == [(4, None), (12, pytest.approx(1.0))]
