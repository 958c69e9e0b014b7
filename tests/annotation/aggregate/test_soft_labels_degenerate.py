"""Vote tables at the edge: each gives a sensible table or a clear refusal."""

from __future__ import annotations

import polars as pl
import pytest

from annotation import aggregate
from warehouse.errors import SettingsError, TableError
from warehouse.schema import TABLES

COLUMNS = {"face_id": pl.String, "rater_id": pl.String, "label": pl.String}


def table(*rows: tuple[str | None, str | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=COLUMNS, orient="row")


@pytest.mark.parametrize("method", sorted(aggregate.METHODS))
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
def test_nothing_gives_empty_typed_tables(votes: pl.DataFrame, method: str) -> None:
    labels = aggregate.soft_labels(votes, method=method)
    quality = aggregate.rater_quality(votes, labels)
    assert (labels.height, labels.schema) == (0, TABLES["soft_labels"].schema)
    assert (quality.height, quality.schema) == (0, TABLES["rater_quality"].schema)


@pytest.mark.parametrize("method", sorted(aggregate.METHODS))
@pytest.mark.parametrize("label", ["neutral", "unknown"])
def test_one_answer_for_everything(label: str, method: str) -> None:
    votes = table(*((f"f{face}", f"r{rater}", label) for face in range(3) for rater in range(3)))
    labels = aggregate.soft_labels(votes, method=method)
    assert labels["agreement"].to_list() == [1, 1, 1]
    assert labels["expression"].null_count() == (3 if label == "unknown" else 0)
    quality = aggregate.rater_quality(votes, labels)
    assert quality["agreement"].to_list() == [1, 1, 1]
    # Agreement beyond chance does not exist here; nothing speaks against anybody.
    assert quality["weight"].to_list() == [1, 1, 1]


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        pytest.param(table(("f", "r", "bored")), "'bored'", id="unknown label"),
        pytest.param(table(("f", "r", "")), "''", id="empty label"),
        pytest.param(table(("f", "r", None)), "nulls in label", id="no label"),
        pytest.param(table((None, "r", "fear")), "nulls in face_id", id="no face"),
        pytest.param(table(("f", None, "fear")), "nulls in rater_id", id="no rater"),
        pytest.param(table(("f", "r", "fear")).drop("rater_id"), "without rater_id", id="column"),
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
    ],
)
def test_what_is_no_vote_is_refused(votes: pl.DataFrame, said: str) -> None:
    with pytest.raises(TableError, match="expected") as caught:
        aggregate.soft_labels(votes)
    assert said in str(caught.value)


def test_many_unknown_labels_are_summed_up() -> None:
    votes = table(*(("f", f"r{number}", f"mood-{number}") for number in range(9)))
    with pytest.raises(TableError, match="and 4 more"):
        aggregate.soft_labels(votes)


def test_unknown_method_lists_the_known() -> None:
    with pytest.raises(SettingsError, match="vote_share, smoothed"):
        aggregate.soft_labels(table(), method="majority")
