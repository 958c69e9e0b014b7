"""Lineage of a released row, and chains of near duplicates."""

from __future__ import annotations

import polars as pl
import pytest

from tests.warehouse.people_home import face_id, people_home, release, video_id
from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES


def test_lineage__video_time_and_votes(home: Home) -> None:
    people_home(home)
    release(home)
    face = face_id("mix-e", "bob", 2)
    found = releases.lineage(home, name="faces", face=face)
    assert found["released"]["subject_id"] == "bob"
    assert found["released"]["expression"] == "surprise"
    assert found["origin"]["uri"].endswith("inbox/day/mix-e.mp4")
    assert found["origin"]["time_s"] == 2.0
    assert [vote["rater_id"] for vote in found["votes"]] == ["person-00000000"]
    assert [audit["audit"] for audit in found["audits"]] == ["label_noise"]
    assert found["made"] is None
    with pytest.raises(ReleaseError, match="faces v1 has no face 'missing'"):
        releases.lineage(home, name="faces", face="missing")


@pytest.mark.parametrize(
    ("repeats", "ends"),
    [
        ({0: 1, 1: 2}, {0: 2, 1: 2}),
        # The face in the middle has no label and is not released. The chain stays one group.
        ({0: "unlabelled", "unlabelled": 2}, {0: 2}),
        ({0: 1, 2: 1}, {0: 1, 2: 1}),
    ],
)
def test_duplicates__chain(home: Home, repeats: dict, ends: dict) -> None:
    people_home(home)
    faces = {
        0: face_id("ann-b", "ann", 0),
        1: face_id("bob-d", "bob", 0),
        2: face_id("cid-f", "cid", 0),
        "unlabelled": "f" * 16 + "-0000-0",
    }
    rows = [
        {"face_id": faces[one], "audit": "near_duplicates", "score": 0.1, "flag": True,
         "detail": faces[other]}
        for one, other in repeats.items()
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=TABLES["audits"].schema)
    tables.write(home, "audits", frame, part="current")
    curated = views.query(home, "SELECT face_id, duplicate_of FROM curated_faces")
    groups = dict(curated.filter(pl.col("duplicate_of").is_not_null()).iter_rows())
    assert groups == {faces[one]: faces[other] for one, other in ends.items()}
    release(home)
    where = {
        face: name
        for name, part in releases.load("faces", home=home).items()
        for face in part["face_id"]
    }
    assert len({where[faces[one]] for one in [*ends, *ends.values()]}) == 1
    assert video_id("ann-b") in faces[0]


def test_duplicates__cycle(home: Home) -> None:
    people_home(home)
    one, other = face_id("ann-b", "ann", 0), face_id("bob-d", "bob", 0)
    rows = [
        {"face_id": a, "audit": "near_duplicates", "score": 0.1, "flag": True, "detail": b}
        for a, b in ((one, other), (other, one))
    ]
    frame = pl.DataFrame(rows, schema=TABLES["audits"].schema)
    tables.write(home, "audits", frame, part="current")
    curated = views.query(home, "SELECT * FROM curated_faces")
    assert curated.height == curated["face_id"].n_unique()
    assert releases.leaks(release(home).path) == []
