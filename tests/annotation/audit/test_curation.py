"""Curation: decisions with their reasons, and the effect of thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from annotation.audit import curation
from warehouse.errors import TableError
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

SMILE = [0.0, 1.0, 0, 0, 0, 0, 0, 0]


def home_of(folder: Path, *faces: dict[str, Any]) -> Home:
    """One video whose faces have the given label and audits."""
    home = Home.at(folder)
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("videos", "faces", "soft_labels", "identities", "audits")
    }
    rows["videos"].append({"video_id": "v", "batch": "b", "verdict": "kept", "licence": "CC0-1.0"})
    for face in faces:
        name = face["face_id"]
        rows["faces"].append({"face_id": name, "video_id": "v", "batch": "b", "verdict": "kept"})
        rows["identities"].append({"face_id": name, "subject_id": "s"})
        rows["soft_labels"].append(
            {
                "face_id": name,
                "expression": face.get("expression", SMILE),
                "open_set_share": face.get("open", 0.0),
                "n_votes": face.get("n", 5),
            }
        )
        for audit, (score, flag, detail) in face.get("audits", {}).items():
            found = {"score": score, "flag": flag, "detail": detail}
            rows["audits"].append({"face_id": name, "audit": audit, **found})
    for name, listed in rows.items():
        place = {"part": "v", "batch": "b"} if name in ("videos", "faces") else {"part": "x"}
        tables.write(home, name, pl.DataFrame(listed, schema=TABLES[name].schema), **place)
    return home


FACES = (
    ({"face_id": "a good"}, "keep", []),
    (
        {"face_id": "b mislabelled", "audits": {"label_noise": (0.2, True, "fear")}},
        "review",
        ["label_noise"],
    ),
    (
        {
            "face_id": "c doubly odd",
            "audits": {"label_noise": (0.3, True, "fear"), "open_set": (0.1, True, "x")},
        },
        "review",
        ["label_noise", "open_set"],
    ),
    (
        {"face_id": "d twin", "audits": {"near_duplicates": (0.1, True, "a good")}},
        "drop",
        ["near_duplicate"],
    ),
    (
        {
            "face_id": "e a wall",
            "expression": None,
            "open": 1.0,
            "n": 4,
            "audits": {"open_set": (0.0, True, "people")},
        },
        "drop",
        ["open_set by votes", "open_set"],
    ),
    ({"face_id": "f one shrug", "expression": None, "open": 1.0, "n": 1}, "review",
     ["no closed vote"]),
    ({"face_id": "g divided", "open": 0.5, "n": 2}, "keep", []),
    ({"face_id": "h sure enough", "audits": {"label_noise": (0.9, False, None)}}, "keep", []),
)  # fmt: skip


@pytest.fixture
def decided(tmp_path: Path) -> pl.DataFrame:
    home = home_of(tmp_path, *(face for face, *_ in FACES))
    return views.query(home, "SELECT * FROM decided_faces")


def test_decided_faces__decision_and_reasons(decided: pl.DataFrame) -> None:
    found = decided.select("face_id", "decision", "reasons").rows()
    assert found == [(face["face_id"], decision, reasons) for face, decision, reasons in FACES]


def test_review__worst_first_and_unscored_last(decided: pl.DataFrame) -> None:
    again = curation.review(decided)
    assert again["face_id"].to_list() == ["c doubly odd", "b mislabelled", "f one shrug"]
    assert again["score"].to_list() == [0.1, 0.2, None]


def test_effects__counts_faces_under_each_threshold(decided: pl.DataFrame) -> None:
    table = curation.effects(decided, thresholds=(0.25, 0.95))
    assert table.rows() == [
        ("label_noise", 0.25, 1, 1 / 3, 0),
        ("label_noise", 0.95, 3, 1.0, 1),
        ("open_set", 0.25, 2, 1.0, 0),
        ("open_set", 0.95, 2, 1.0, 0),
    ]


def test_curation__empty_home(tmp_path: Path) -> None:
    empty = views.query(Home.at(tmp_path), "SELECT * FROM decided_faces")
    assert curation.review(empty).is_empty()
    assert set(curation.effects(empty)["under"]) == {0}
    with pytest.raises(TableError, match="decision"):
        curation.effects(empty.drop("decision"))
