"""Synthetic faces in a release: train only, no person, no vote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.storage import media, tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import ACTION_UNITS, AU_INDEX

Inputs = Callable[..., dict[str, Any]]

FEAR = [0.0] * 6 + [0.75, 0.25]


def made(home: Home, draw: Callable[..., np.ndarray], n: int = 4) -> pl.DataFrame:
    """Make ``n`` rows of ``synthetic_faces`` with alternating verdicts."""
    measured = [float("nan")] * len(ACTION_UNITS)
    measured[AU_INDEX[12]] = 0.9
    rows = [
        {
            "face_id": f"syn-{number:016x}",
            "seed": number,
            "model": "risorius-synth-test",
            "crop": media.store(home, "crops", draw(1000 + number)),
            "measured_au": measured,
            "soft_label": FEAR,
            "action": ("kept", "relabelled", "dropped")[number % 3],
            "reason": "not_a_face: the judge saw none" if number % 3 == 2 else None,
        }
        for number in range(n)
    ]
    blank = TABLES["synthetic_faces"].empty()
    return pl.concat([blank, pl.DataFrame(rows, infer_schema_length=None)], how="diagonal_relaxed")


def with_made(home: Home, given: dict[str, Any], rows: pl.DataFrame) -> dict[str, Any]:
    tables.write(
        home, "synthetic_faces", rows.select(list(TABLES["synthetic_faces"].columns)), part="x"
    )
    found = views.query(home, "SELECT * FROM curated_synthetic_faces").with_columns(
        licence=pl.lit("research-only")
    )
    return given | {"rows": pl.concat([given["rows"], found], how="diagonal_relaxed")}


def test_synthetic__train_only(home: Home, inputs: Inputs, draw: Callable[..., np.ndarray]) -> None:
    before = releases.build(home, **inputs(home))
    release = releases.build(home, **with_made(home, inputs(home), made(home, draw)))
    loaded = releases.load("faces", home=home)
    where = {row["face_id"]: name for name, part in loaded.items() for row in part}
    new = {face for face in where if face.startswith("syn-")}
    assert len(new) == 3
    assert f"syn-{2:016x}" not in new
    assert {where[face] for face in new} == {"train"}
    # Earlier subjects keep their splits.
    earlier = releases.load("faces", "v1", home=home)
    assert {row["face_id"]: name for name, part in earlier.items() for row in part} == {
        face: name for face, name in where.items() if face not in new
    }
    assert releases.leaks(release.path) == releases.verify(release.path) == []
    row = next(row for row in loaded["train"] if row["face_id"] in new)
    assert (row["subject_id"], row["video_id"], row["track_id"], row["n_votes"]) == (
        *(None,) * 3,
        0,
    )
    assert row["soft_label"] == FEAR
    assert row["entropy"] == pytest.approx(0.8112781)
    assert row["au"][AU_INDEX[12]] == pytest.approx(0.9)
    assert np.isnan(row["au"][AU_INDEX[1]])
    assert row["licence"] == "research-only"
    assert before.rows + 3 == release.rows


def test_synthetic__declared_on_pages(
    home: Home, inputs: Inputs, draw: Callable[..., np.ndarray]
) -> None:
    release = releases.build(home, **with_made(home, inputs(home), made(home, draw)))
    facts = releases.show(home, name="faces")
    card, page = ((release.path / name).read_text() for name in ("README.md", "report.html"))
    assert "3 of 23 faces are synthetic" in card
    assert "- synthetic" in card.split("---")[1]
    assert "Synthetic and real faces" in page
    assert "gaps filled by synthesis" in page.lower()
    found = {row["name"]: row for row in facts["summary"]["synthesis"]["expressions"]}
    assert found["fear"]["made"] == pytest.approx(2.25)
    units = {row["code"]: row for row in facts["summary"]["synthesis"]["units"]}
    assert units["AU12"]["made"] == 3
    assert facts["summary"]["subjects"] == 4
    # Synthetic faces are always in train. They do not count as a bad split.
    plain = releases.build(home, **inputs(home) | {"name": "plain"})
    assert (
        facts["summary"]["stratification"]
        == (releases.show(home, name=plain.name)["summary"]["stratification"])
    )


def test_synthetic__repeats_test_face(
    home: Home, inputs: Inputs, draw: Callable[..., np.ndarray]
) -> None:
    releases.build(home, **inputs(home))
    tested = releases.load("faces", home=home)["test"][0]["face_id"]
    given = with_made(home, inputs(home), made(home, draw, 1))
    twin = pl.when(pl.col("source") == "synthetic").then(pl.lit(tested))
    given["rows"] = given["rows"].with_columns(duplicate_of=twin.otherwise("duplicate_of"))
    release = releases.build(home, **given)
    assert release.rows == 20
    assert releases.show(home, name="faces")["left_out"]["split_conflict"] == [f"syn-{0:016x}"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"subject_id": "ann"}, "Synthetic faces with a subject_id"),
        ({"crop": None}, "Rows without crop"),
    ],
)
def test_synthetic__claims_subject(
    home: Home,
    inputs: Inputs,
    draw: Callable[..., np.ndarray],
    change: dict[str, Any],
    says: str,
) -> None:
    given = with_made(home, inputs(home), made(home, draw, 1))
    given["rows"] = given["rows"].with_columns(
        pl.when(pl.col("source") == "synthetic").then(pl.lit(value)).otherwise(name).alias(name)
        for name, value in change.items()
    )
    with pytest.raises(ReleaseError, match=says):
        releases.build(home, **given)
