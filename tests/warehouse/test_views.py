"""DuckDB views over real Parquet files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import warehouse
from warehouse.errors import TableError
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

START = datetime(2026, 1, 1, tzinfo=UTC)


def rating(face: str, batch: str) -> pl.DataFrame:
    table = TABLES["ratings"]
    row = {
        "face_id": face, "rater_id": "machine", "batch": batch, "expression": [0.125] * 8,
        "open_set": [0.0, 0.0], "au": [0.0] * len(action_units()), "feature": [0.5] * 256,
    }  # fmt: skip
    return pl.DataFrame([row]).cast(dict(table.schema))


def action_units() -> tuple[Any, ...]:
    from warehouse.vocabulary import ACTION_UNITS

    return ACTION_UNITS


def event(
    number: int,
    kind: str,
    minute: int | None,
    *,
    rater: str = "r1",
    says: str | None = "anger",
    skipped: bool | None = False,
    face: str | None = "f1",
    pulled: int = 60,
) -> dict[str, Any]:
    answer = None if says is None else {"validity": "face", "expressions": says.split("+")}
    return {
        "annotation_id": number, "task_id": 1, "project_id": 1, "face_id": face, "rater_id": rater,
        "rater_kind": "simulated", "event": kind, "answer": answer, "lead_time_s": 1.0,
        "was_cancelled": skipped, "saw_prediction": False, "created_at": START,
        "updated_at": None if minute is None else START + timedelta(minutes=minute),
        "pulled_at": START + timedelta(minutes=pulled),
    }  # fmt: skip


def votes_after(home: Home, events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    frame = pl.DataFrame(events, schema=TABLES["annotations"].schema, strict=False)
    for index in range(len(frame)):
        tables.write(home, "annotations", frame[index], part=f"pull-{index}")
    found = views.query(
        home, "SELECT face_id, rater_id, answer.expressions AS e FROM current_votes"
    )
    return sorted(
        (face, rater, "+".join(answers or [])) for face, rater, answers in found.iter_rows()
    )


@pytest.mark.parametrize(
    ("events", "stand"),
    [
        ([event(1, "created", 0)], ["anger"]),
        ([event(1, "created", 0), event(1, "updated", 5, says="fear")], ["fear"]),
        # Pulled out of order: the newer answer wins.
        ([event(1, "updated", 5, says="fear"), event(1, "created", 0)], ["fear"]),
        # Two events with the same time.
        ([event(1, "updated", 5, says="fear"), event(1, "created", 5)], ["fear"]),
        ([event(1, "created", 0), event(1, "deleted", 0)], []),
        ([event(1, "created", 0), event(1, "deleted", None, pulled=90)], []),
        ([event(1, "created", 0, skipped=True, says=None)], []),
        ([event(1, "created", 0), event(1, "updated", 3, skipped=True)], []),
        ([event(1, "created", 0, skipped=None)], ["anger"]),
        # Two answers of one rater: the newer one.
        ([event(1, "created", 0), event(2, "created", 9, says="fear")], ["fear"]),
        # The newer one is deleted: the older one.
        (
            [event(1, "created", 0), event(2, "created", 9, says="fear"), event(2, "deleted", 10)],
            ["anger"],
        ),
        ([event(1, "created", 0, face=None)], []),
        ([event(1, "created", 0), event(1, "created", 0, pulled=70)], ["anger"]),
        (
            [event(1, "created", 0), event(2, "created", 0, rater="r2", says="fear+disgust")],
            ["anger", "fear+disgust"],
        ),
        ([], []),
    ],
)
def test_current_votes__newest_answer_per_rater(
    home: Home, events: list[dict[str, Any]], stand: list[str]
) -> None:
    assert [answer for _, _, answer in votes_after(home, events)] == stand


def test_votes__weights_of_one_rater_sum_to_one(home: Home) -> None:
    votes_after(home, [event(1, "created", 0, says="fear+disgust")])
    found = views.query(home, "SELECT label, weight FROM votes ORDER BY label")
    assert found.rows() == [("disgust", 0.5), ("fear", 0.5)]


def test_connect__every_view_of_an_empty_home(home: Home) -> None:
    connection = warehouse.connect(home)
    for name in [*TABLES, *views.queries()]:
        assert connection.execute(f'SELECT * FROM "{name}"').fetchall() == []
    assert not home.root.exists()


def test_connect__same_types_with_and_without_files(home: Home) -> None:
    before = dict(views.query(home, "DESCRIBE ratings").select("column_name", "column_type").rows())
    tables.write(home, "ratings", rating("f", "0012"), part="v", batch="0012")
    after = dict(views.query(home, "DESCRIBE ratings").select("column_name", "column_type").rows())
    assert before == after


@pytest.mark.parametrize("folder", ["plain", "we[ir]d", "st*r", "wh?t", "o'quote", "a b"])
def test_query__odd_folder_names_and_numeric_batches(tmp_path: Path, folder: str) -> None:
    home = Home.at(tmp_path / folder)
    for batch in ("0012", "b"):
        tables.write(home, "ratings", rating(f"f-{batch}", batch), part="v", batch=batch)
    found = views.query(home, "SELECT batch, face_id, feature[1] AS x FROM ratings ORDER BY ALL")
    assert found.rows() == [("0012", "f-0012", 0.5), ("b", "f-b", 0.5)]


def test_connect__names_the_damaged_file(home: Home) -> None:
    path = tables.write(home, "ratings", rating("f", "b"), part="hurt", batch="b")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TableError, match=r"damaged .*hurt\.parquet"):
        views.connect(home)


def test_query__statement_without_result(home: Home) -> None:
    assert views.query(home, "SET threads = 1").is_empty()
