"""Open set: votes of people combined with out-of-distribution scores."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from annotation import aggregation, audit


def votes(*answers: str) -> pl.DataFrame:
    return pl.DataFrame(
        [("f", f"r{number}", answer) for number, answer in enumerate(answers)],
        schema=["face_id", "rater_id", "label"],
        orient="row",
    )


CERTAIN = [[1.0, 0, 0, 0, 0, 0, 0, 0]]
UNIFORM = [[0.125] * 8]


@pytest.mark.parametrize(
    ("answers", "machine", "score", "detail"),
    [
        pytest.param(["fear"] * 3, {}, 1, None, id="people alone, closed"),
        pytest.param(
            ["unknown", "not_a_face"], {}, 0, "people say unknown or not a face", id="people alone"
        ),
        pytest.param(["unknown", "fear"], {}, 0.5, None, id="half and half is no flag"),
        # The machine is worth two votes: (2 * 0.7 + 4 * 0.5) / 6.
        pytest.param(
            ["unknown", "unknown", "fear", "fear"],
            {"open_set": [[0.2, 0.1]]},
            (2 * 0.7 + 4 * 0.5) / 6,
            None,
            id="people and rater",
        ),
        pytest.param(
            ["unknown"], {"open_set": [[0.0, 0.0]]}, 2 / 3, None, id="one unknown is nearly noise"
        ),
        pytest.param(
            ["unknown"] * 3,
            {"open_set": [[0.0, 0.0]]},
            2 / 5,
            "people say unknown or not a face",
            id="people outvote the rater",
        ),
        pytest.param(
            ["fear"] * 3, {"open_set": [[1, 0]]}, 3 / 5, None, id="people who agree are believed"
        ),
        pytest.param([], {"probabilities": CERTAIN}, 1, None, id="a certain rater"),
        pytest.param([], {"probabilities": UNIFORM}, 0.5, None, id="indecision alone is no flag"),
        pytest.param(
            [],
            {"open_set": [[0.06, 0.04]], "probabilities": UNIFORM},
            0.9 * 0.5,
            "the machine rater cannot choose",
            id="indecision and a little mass",
        ),
        pytest.param(
            [],
            {"open_set": [[0.1, 0.8]]},
            0.1,
            "the machine rater finds no known expression",
            id="rater alone",
        ),
    ],
)
def test_open_set__combines_evidence(
    answers: list[str], machine: dict, score: float, detail: str | None
) -> None:
    given = {name: np.array(value) for name, value in machine.items()}
    if answers:
        given["labels"] = aggregation.soft_labels(votes(*answers))
    result = audit.run("open_set", face_ids=["f"], **given)
    (row,) = result.rows.iter_rows(named=True)
    assert row["score"] == pytest.approx(score, abs=1e-5)
    assert (row["flag"], row["detail"]) == (detail is not None, detail)


def features(n: int = 40, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cloud = np.hstack([np.ones((n, 4)), np.zeros((n, 4))]) + rng.normal(size=(n, 8)) * 0.1
    cloud[5] = [0, 0, 0, 0, 1, -1, 1, -1]
    return cloud


def test_open_set__flags_outlier() -> None:
    result = audit.run("open_set", features=features())
    flagged = result.rows.filter("flag")
    assert flagged.select("face_id", "detail").rows() == [("5", "unlike the other faces")]
    assert result.statistics["k"] == 6
    kept = result.rows.filter(~pl.col("flag"))["score"]
    # Half the faces are no farther than the median and so as typical as can be.
    assert (kept == 1).sum() >= 19


def test_open_set__copies_have_no_outlier() -> None:
    cloud = np.ones((40, 8))
    cloud[5] = [1, 1, 1, 1, 1, 1, 1, 0.9]
    result = audit.run("open_set", features=cloud)
    assert result.rows["score"].null_count() == 40
    assert not result.rows["flag"].any()


def test_open_set__ambiguous_faces_rank_lower() -> None:
    rng = np.random.default_rng(0)
    closed = rng.dirichlet([8] + [0.3] * 7, size=30)
    scattered = rng.dirichlet([1.0] * 8, size=10)
    result = audit.run("open_set", probabilities=np.vstack([closed, scattered]))
    order = result.rows.with_columns(pl.col("face_id").cast(pl.Int64)).sort("score")["face_id"]
    assert set(order.head(8)) <= set(range(30, 40))


def test_open_set__threshold() -> None:
    given = {"open_set": np.array([[0.3, 0.0]]), "face_ids": ["f"]}
    assert not audit.run("open_set", **given).rows["flag"][0]
    assert audit.run("open_set", threshold=0.8, **given).rows["flag"][0]
