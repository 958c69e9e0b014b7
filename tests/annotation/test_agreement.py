"""Krippendorff's alpha against values worked out by hand and in his textbook."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotation.agreement import alpha_from_counts, krippendorff_alpha

NAMES = {"1": "neutral", "2": "happiness", "3": "surprise", "4": "sadness", "5": "anger"}


def table(*raters: str) -> pl.DataFrame:
    """One text per rater, one character per face; a dot where the rater said nothing."""
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
        pytest.param(("12", "12"), 1, id="always together"),
        # N = 4, two of each: 1 - 3 * (2 + 2) / (16 - 8).
        pytest.param(("11", "22"), -0.5, id="never together"),
        # (1,1), (1,2): D = 0 + 2, N = 4, N_c = 3, 1: 1 - 3 * 2 / (16 - 10).
        pytest.param(("11", "12"), 0, id="as chance"),
        pytest.param(("11", "11"), None, id="one answer only"),
        pytest.param(("1.", ".2"), None, id="nobody shares a face"),
        pytest.param(("123",), None, id="one rater"),
    ],
)
def test_alpha(raters: tuple[str, ...], alpha: float | None) -> None:
    found = krippendorff_alpha(table(*raters))
    assert found == (None if alpha is None else pytest.approx(alpha, abs=5e-4))


def test_counts_give_what_votes_give() -> None:
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


def test_several_answers_of_one_rater_do_not_disagree_with_themselves() -> None:
    votes = pl.DataFrame(
        [("f", "a", "happy"), ("f", "b", "anger"), ("f", "c", "anger"), ("f", "c", "disgust")],
        schema=["face_id", "rater_id", "label"],
        orient="row",
    )
    # n = 3; counts 1, 1.5, 0.5; within 1 + 1 + 0.5: 1 - 2 * (9 - 3.5 - 3 + 2.5) / 2 / (9 - 3.5).
    assert krippendorff_alpha(votes) == pytest.approx(1 - 5 / 5.5)


def test_no_votes_have_no_alpha() -> None:
    assert krippendorff_alpha(table()) is None
    assert alpha_from_counts(np.zeros((0, 10))) is None
