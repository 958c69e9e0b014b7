"""Votes in the views, from tables of this and an older version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from annotation.label_studio import progress
from pipeline.settings import Settings
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

START = datetime(2024, 5, 7, tzinfo=UTC)
NEW = ("label_set", "labels", "compounds", "free_label", "au", "edited_by")


def later(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def event(
    number: int, rater: str, label: str | None, minute: int = 0, **more: Any
) -> dict[str, Any]:
    answer = {"validity": "face", "expressions": [label] if label else [], "confidence": None,
              "valence": None, "arousal": None, "note": None}  # fmt: skip
    return {
        "annotation_id": number, "task_id": 1, "project_id": 1, "face_id": "f",
        "rater_id": rater, "rater_kind": rater.split("-")[0], "event": "created", "answer": answer,
        "was_cancelled": False, "saw_prediction": False, "created_at": START,
        "updated_at": START + timedelta(minutes=minute), "pulled_at": START, **more,
    }  # fmt: skip


def home_with(root: Path, *events: dict[str, Any]) -> Home:
    home = Home.at(root / "home")
    frame = pl.DataFrame(list(events), schema=TABLES["annotations"].schema, strict=False)
    tables.write(home, "annotations", frame, part="one")
    return home


def labels(home: Home) -> list[tuple[str, str]]:
    return views.query(home, "SELECT rater_id, label FROM votes ORDER BY ALL").rows()


@pytest.mark.parametrize(
    ("events", "votes"),
    [
        pytest.param([event(1, "person-a", "fear")], [("person-a", "fear")], id="one vote"),
        pytest.param(
            [event(1, "person-a", "fear"), event(1, "person-a", "anger", 1, event="updated")],
            [("person-a", "anger")], id="edited by its rater",
        ),
        pytest.param(
            [event(1, "person-a", "fear"),
             event(1, "person-a", "anger", 1, event="updated", edited_by="person-b")],
            [("person-a", "fear")], id="edited by another account",
        ),
        pytest.param(
            [event(1, "person-a", "fear"),
             event(1, "person-a", "anger", 1, event="updated", edited_by="person-b"),
             event(1, "person-a", "anger", 1, event="deleted", edited_by="person-b")],
            [], id="edited by another account, then deleted",
        ),
        pytest.param(
            [event(1, "person-a", "anger", edited_by="person-b")], [], id="created by another"
        ),
        pytest.param(
            [event(1, "person-a", "fear"), event(2, "person-a", "anger", 5)],
            [("person-a", "anger")], id="annotated twice",
        ),
        pytest.param(
            [event(1, "person-a", "fear"), event(2, "self-a", "anger")],
            [("person-a", "fear")], id="a self-report is no vote",
        ),
        pytest.param(
            [event(1, "person-a", None, label_set="coarse", labels=["negative"]),
             event(2, "person-a", "fear")],
            [("person-a", "fear")], id="a coarse label is no expression",
        ),
        pytest.param([event(1, "person-a", None, was_cancelled=True)], [], id="a skip"),
        pytest.param(
            [event(1, "person-a", "fear"), event(1, "person-a", "fear", event="deleted"),
             event(1, "person-b", "anger", created_at=later(9))],
            [("person-b", "anger")], id="the number belongs to another vote",
        ),
        pytest.param(
            [event(1, "person-a", "fear"),
             event(1, "person-b", "anger", event="updated", created_at=later(9))],
            [("person-a", "fear"), ("person-b", "anger")],
            id="so it does in an older table, without a deletion",
        ),
        pytest.param(
            [event(1, "person-a", "fear"), event(1, "person-a", "fear", event="deleted"),
             event(1, "person-b", "anger", created_at=later(9), edited_by="person-c")],
            [], id="the other vote is by another account",
        ),
        pytest.param(
            [event(1, "person-a", "fear"),
             event(1, "person-a", "anger", 5, event="updated", pulled_at=later(6)),
             event(1, "person-a", "anger", 5, event="deleted", pulled_at=later(7)),
             event(1, "person-a", "fear", pulled_at=later(8))],
            [("person-a", "fear")], id="went back to an older answer",
        ),
        pytest.param(
            [event(1, "person-a", "fear"),
             event(1, "person-a", "fear", event="deleted", pulled_at=later(7)),
             event(1, "person-b", "fear", 5, pulled_at=later(8), edited_by="person-c")],
            [], id="put in another name by a third account",
        ),
        pytest.param(
            [event(1, "person-a", "fear", project_id=-7, created_at=None),
             event(1, "person-a", "fear", event="updated", project_id=-7)],
            [("person-a", "fear")], id="an import that got times",
        ),
    ],
)  # fmt: skip
def test_votes__events(tmp_path: Path, events: list, votes: list) -> None:
    assert labels(home_with(tmp_path, *events)) == votes


def test_answers_given__per_label_set(tmp_path: Path) -> None:
    home = home_with(
        tmp_path,
        event(1, "person-a", "fear"), event(2, "person-a", "anger", 5),
        event(3, "person-b", "fear"),
        event(4, "person-a", None, label_set="coarse", labels=["negative"]),
        event(5, "self-c", "fear"), event(6, "person-d", None),
    )  # fmt: skip
    found = views.query(
        home, "SELECT label_set, n_answers, n_raters FROM answers_given ORDER BY ALL"
    )
    assert found.rows() == [("coarse", 1, 1), ("expressions", 3, 2)]
    for reason, missing in (("coverage", 2), ("audit", 1)):
        queue = [("f", 1, 0.5, reason, 4)]
        frame = pl.DataFrame(queue, schema=TABLES["queue"].schema, orient="row")
        tables.write(home, "queue", frame, part="current")
        assert views.query(home, "SELECT missing FROM votes_missing").rows() == [(missing,)]


def test_views__read_tables_of_older_version(tmp_path: Path) -> None:
    home = home_with(tmp_path, event(1, "person-a", "fear"), event(2, "person-b", "anger"))
    path = tables.path_of(home, "annotations", part="one")
    pl.read_parquet(path).drop(NEW).write_parquet(path)
    assert labels(home) == [("person-a", "fear"), ("person-b", "anger")]
    assert tables.read(home, "annotations").select(NEW).null_count().row(0) == (2,) * len(NEW)
    assert progress.summary(Settings(home=home.root).label_studio)["votes"] == 2
    # Files with and without the new columns are read together.
    newer = pl.DataFrame(
        [event(3, "person-c", "fear", au=[{"unit": 12, "intensity": 0.5}])],
        schema=TABLES["annotations"].schema, strict=False,
    )  # fmt: skip
    tables.write(home, "annotations", newer, part="two")
    assert len(labels(home)) == 3
    assert views.query(home, "SELECT rater_id, unit, intensity FROM au_votes").rows() == [
        ("person-c", 12, 0.5)
    ]


def test_prior_ratings__not_of_a_dataset_s_only_label(tmp_path: Path) -> None:
    home = home_with(
        tmp_path,
        event(1, "person-a", "fear", face_id="asked"),
        event(2, "person-a", "fear", face_id="stated", project_id=-7),
        event(3, "person-a", "fear", face_id="counted", project_id=-7),
        event(4, "person-b", "anger", face_id="counted", project_id=-7),
    )
    schema = TABLES["ratings"].schema
    rated = pl.DataFrame(
        {
            "face_id": ["asked", "asked", "stated", "counted", "without votes"],
            "rater_id": ["machine-a", "machine-b", *["machine-a"] * 3],
            "expression": [[1.0] + [0.0] * 7] * 5,
            "open_set": [[0.0, 0.0]] * 5,
        },
        schema={name: schema[name] for name in ("face_id", "rater_id", "expression", "open_set")},
    )
    frame = pl.concat([pl.DataFrame(schema=schema), rated], how="diagonal")
    tables.write(home, "ratings", frame.select(schema.names()), batch="b", part="one")
    found = views.query(home, "SELECT face_id, rater_id FROM prior_ratings ORDER BY ALL")
    assert found.rows() == [("asked", "machine-b"), ("counted", "machine-a")]
