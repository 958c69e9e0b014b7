"""The label queue: which faces still need votes, in which order, and why."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from annotation.sampling.active_learning import activelab_scores
from annotation.sampling.queue import next_faces
from warehouse.errors import SettingsError, TableError
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

CERTAIN = {"happy": [0, 1, 0, 0, 0, 0, 0, 0], "afraid": [0, 0, 0, 0, 0, 0, 1, 0]}
UNSURE = [0.5, 0.5, 0, 0, 0, 0, 0, 0]


def faces(ids: str, verdict: str = "kept") -> pl.DataFrame:
    return pl.DataFrame({"face_id": list(ids), "verdict": [verdict] * len(ids)}, schema={
        "face_id": pl.String, "verdict": pl.String,
    })  # fmt: skip


def ratings(**rows: list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        [(face_id, "machine", expression) for face_id, expression in rows.items()],
        orient="row",
        schema={
            "face_id": pl.String,
            "rater_id": pl.String,
            "expression": TABLES["ratings"].schema["expression"],
        },
    )


def votes(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        list(rows),
        schema={"face_id": pl.String, "rater_id": pl.String, "label": pl.String},
        orient="row",
    )


def duplicates(**pairs: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"face_id": list(pairs), "audit": "near_duplicates", "score": 0.0, "flag": True,
         "detail": list(pairs.values())},
    ).cast(TABLES["audits"].schema)  # fmt: skip


def test_next_faces__priority_is_mean_of_three_terms() -> None:
    queued = next_faces(
        faces("abcde"),
        ratings(
            a=CERTAIN["happy"],
            b=CERTAIN["happy"],
            c=CERTAIN["afraid"],
            d=UNSURE,
            e=CERTAIN["happy"],
        ),
        votes=votes(("e", "x", "anger"), ("e", "y", "fear")),
        wanted_votes=3,
    )
    # Expected counts: happiness 3.5, neutral 0.5, fear 1; rarity is 1 - count / 3.5.
    rare_fear, rare_neutral, unsure = 1 - 1 / 3.5, 1 - 0.5 / 3.5, 1 / math.log2(8)
    expected = {
        "e": (1 / 3, "uncertain"),
        "d": ((unsure + rare_neutral / 2) / 3, "coverage"),
        "c": (rare_fear / 3, "coverage"),
        "a": (0, "uncertain"),
        "b": (0, "uncertain"),
    }
    assert queued["face_id"].to_list() == list(expected)
    assert queued["priority"].to_list() == pytest.approx([p for p, _ in expected.values()])
    assert queued["reason"].to_list() == [reason for _, reason in expected.values()]
    assert queued.schema == TABLES["queue"].schema
    assert queued["wanted_votes"].unique().to_list() == [3]
    assert queued["round"].unique().to_list() == [1]


def test_next_faces__leaves_out_finished_dropped_and_unknown_faces() -> None:
    queued = next_faces(
        pl.concat([faces("ab"), faces("c", "dropped"), faces("d", "failed")]),
        ratings(),
        votes=votes(
            ("a", "x", "fear"), ("a", "y", "fear"),
            ("b", "x", "fear"), ("b", "x", "anger"),
            ("unknown", "x", "fear"),
        ),
        wanted_votes=2,
    )  # fmt: skip
    # One rater with two answers is one voter.
    assert queued["face_id"].to_list() == ["b"]


def test_next_faces__duplicates_share_votes() -> None:
    same = duplicates(b="a", c="gone")
    queued = next_faces(
        faces("abc"), ratings(), votes=votes(), near_duplicates=same, wanted_votes=2
    )
    # c repeats a missing face, so its picture would not be shown otherwise.
    assert queued["face_id"].to_list() == ["a", "c"]
    answered = votes(("b", "x", "fear"), ("b", "y", "anger"))
    queued = next_faces(
        faces("abc"), ratings(), votes=answered, near_duplicates=same, wanted_votes=2
    )
    assert queued["face_id"].to_list() == ["c"]
    queued = next_faces(
        faces("abc"), ratings(), votes=answered, near_duplicates=same, wanted_votes=3
    )
    assert dict(queued.select("face_id", "reason").iter_rows())["a"] == "uncertain"
    assert queued["priority"].to_list() == pytest.approx([2 / 3, 1 / 3])


def test_next_faces__averages_valid_machine_raters() -> None:
    two = pl.concat([ratings(a=CERTAIN["happy"]), ratings(a=CERTAIN["afraid"])])
    (row,) = next_faces(faces("a"), two, votes=votes(), wanted_votes=1).iter_rows(named=True)
    assert row["priority"] == pytest.approx(1 / math.log2(8) / 3)
    broken = ratings(a=[math.nan] * 8)
    (row,) = next_faces(faces("a"), broken, votes=votes(), wanted_votes=1).iter_rows(named=True)
    assert (row["priority"], row["reason"]) == (pytest.approx(1 / 3), "uncertain")


def test_next_faces__limit_round_and_order() -> None:
    rows = {f"f{number}": CERTAIN["happy"] for number in range(9)}
    table = pl.DataFrame({"face_id": list(rows)})
    given = {"votes": votes(), "wanted_votes": 1, "round": 4}
    queued = next_faces(table.reverse(), ratings(**rows), limit=3, **given)
    assert queued["face_id"].to_list() == ["f0", "f1", "f2"]
    assert queued["round"].to_list() == [4, 4, 4]
    assert next_faces(table, ratings(**rows), limit=0, **given).is_empty()


def test_next_faces__is_empty_without_faces() -> None:
    empty = next_faces(faces(""), ratings(), votes=votes(), wanted_votes=1)
    assert (empty.height, empty.schema) == (0, TABLES["queue"].schema)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"wanted_votes": 0}, SettingsError, "wanted_votes=0"),
        ({"limit": -1}, SettingsError, "limit=-1"),
        ({"ratings": pl.DataFrame({"face_id": ["a"]})}, TableError, "expression"),
        ({"faces": pl.DataFrame({"id": ["a"]})}, TableError, "face_id"),
        ({"votes": votes(("a", "x", "bored"))}, TableError, "'bored'"),
    ],
)
def test_next_faces__rejects_invalid_input(
    change: dict, error: type[Exception], message: str
) -> None:
    given = {"faces": faces("a"), "ratings": ratings(), "votes": votes(), "wanted_votes": 1}
    given |= change
    with pytest.raises(error) as caught:
        next_faces(given.pop("faces"), given.pop("ratings"), **given)
    assert message in str(caught.value)


def test_next_faces__reannotates_flagged_faces() -> None:
    answered = votes(
        ("a", "x", "fear"), ("a", "y", "anger"), ("b", "x", "fear"), ("b", "y", "fear")
    )
    flagged = pl.DataFrame({"face_id": ["a", "b", "new"], "n_answers": [2, 4, 0]})
    given = {"votes": answered, "wanted_votes": 2, "flagged": flagged}
    rated = ratings(a=UNSURE, b=CERTAIN["happy"])
    assert next_faces(faces("ab"), rated, **given).is_empty()
    (row,) = next_faces(faces("ab"), rated, reask_votes=2, **given).iter_rows(named=True)
    # b has its two additional answers; "new" has no first annotation.
    assert (row["face_id"], row["reason"], row["wanted_votes"]) == ("a", "audit", 4)
    assert 0 <= row["priority"] <= 1


def test_next_faces__budget_goes_to_most_valuable_votes() -> None:
    rated = ratings(a=CERTAIN["happy"], b=UNSURE, c=[1 / 8] * 8)
    given = {"votes": votes(), "wanted_votes": 3}
    # The machine counts 2: value is variance / (2 + k + 1)^2; variance 0, 1/2, 7/8.
    # c: .097 .055 .035, b: .056 .031 .02, a: 0.
    granted = {
        budget: dict(
            next_faces(faces("abc"), rated, budget=budget, **given)
            .select("face_id", "wanted_votes").iter_rows()
        )
        for budget in range(8)
    }  # fmt: skip
    assert granted[0] == {}
    assert granted[1] == {"c": 1}
    assert granted[2] == {"c": 1, "b": 1}
    assert granted[3] == {"c": 2, "b": 1}
    assert granted[6] == {"c": 3, "b": 3}
    assert granted[7] == {"c": 3, "b": 3, "a": 1}
    everything = next_faces(faces("abc"), rated, budget=99, **given)
    assert everything["wanted_votes"].to_list() == [3, 3, 3]


def test_next_faces__votes_lower_value_of_next() -> None:
    rated = ratings(a=UNSURE, b=UNSURE)
    queued = next_faces(
        faces("ab"), rated, votes=votes(("a", "x", "neutral")), wanted_votes=3, budget=1
    )
    assert queued.select("face_id", "wanted_votes").rows() == [("b", 1)]


def test_next_faces__rare_faces_first() -> None:
    table = faces("abcd").with_columns(
        yaw=pl.Series([0.0, 1.0, 2.0, 60.0]), subject_id=pl.Series(["s", "s", "s", "t"])
    )
    alike = ratings(**dict.fromkeys("abcd", CERTAIN["happy"]))
    au = [[0.0] * len(ACTION_UNITS) for _ in range(4)]
    for row, unit in zip(au, (12, 12, 4, 12), strict=True):
        row[AU_INDEX[unit]] = 1.0
    alike = alike.with_columns(au=pl.Series(au, dtype=TABLES["ratings"].schema["au"]))
    queued = next_faces(table, alike, votes=votes(), wanted_votes=1)
    # Rarity is the mean of four: expression 0; unit 0 or 2/3; pose and subject 0 or 2/3.
    found = dict(queued.select("face_id", "priority").iter_rows())
    assert found == pytest.approx({"d": 4 / 3 / 4 / 3, "c": 2 / 3 / 4 / 3, "a": 0, "b": 0})


def test_activelab_scores__uncertain_faces_are_lowest() -> None:
    counts = np.array([[5, 0, 0], [3, 2, 0], [0, 0, 0], [1, 0, 0]], float)
    machine = np.array([[0.9, 0.05, 0.05], [0.4, 0.4, 0.2], [0.34, 0.33, 0.33], [0.9, 0.05, 0.05]])
    scores = activelab_scores(counts, machine)
    assert scores.argmin() == 2
    assert scores[1] < scores[0]
    assert np.array_equal(scores, activelab_scores(counts, machine))
    assert activelab_scores(counts * 0, machine).argmin() == 2
