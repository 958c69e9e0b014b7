"""Synthetic faces in a release: a config of their own, or train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases import domain_gap
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
    given = with_made(home, inputs(home), made(home, draw)) | {"synthetic": "train"}
    release = releases.build(home, **given)
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
    given = with_made(home, inputs(home), made(home, draw)) | {"synthetic": "train"}
    release = releases.build(home, **given)
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


@pytest.mark.parametrize("place", ["config", "train"])
def test_synthetic__repeats_test_face(
    home: Home, inputs: Inputs, draw: Callable[..., np.ndarray], place: str
) -> None:
    releases.build(home, **inputs(home))
    tested = releases.load("faces", home=home)["test"][0]["face_id"]
    given = with_made(home, inputs(home), made(home, draw, 1))
    twin = pl.when(pl.col("source") == "synthetic").then(pl.lit(tested))
    given["rows"] = given["rows"].with_columns(duplicate_of=twin.otherwise("duplicate_of"))
    release = releases.build(home, **given, synthetic=place)
    assert release.rows == 20
    assert releases.show(home, name="faces")["left_out"]["split_conflict"] == [f"syn-{0:016x}"]


def test_synthetic__config_of_its_own(
    home: Home, inputs: Inputs, draw: Callable[..., np.ndarray]
) -> None:
    plain = releases.build(home, **inputs(home) | {"name": "plain"})
    given = with_made(home, inputs(home), made(home, draw, 18))
    release = releases.build(home, **given)
    assert (release.rows, plain.rows) == (20, 20)
    real = releases.load("faces", home=home)
    assert all(row["source"] == "real" for part in real.values() for row in part)
    alone = releases.load("faces", home=home, config="synthetic")
    assert list(alone) == ["train"]
    ids = set(alone["train"]["face_id"])
    assert len(ids) == 12
    joined = releases.load("faces", home=home, synthetic=True)
    assert set(joined["train"]["face_id"]) == ids | set(real["train"]["face_id"])
    assert joined["test"]["face_id"] == real["test"]["face_id"]
    batches = [
        releases.torch_dataset("faces", home=home, synthetic=add, shuffle=False, size=32)
        for add in (False, True)
    ]
    counts = [sum(len(batch["image"]) for batch in one) for one in batches]
    assert counts == [len(real["train"]), len(joined["train"])]
    # The faces of config default are the same bytes with and without synthesis.
    sums = [releases.show(home, name=name)["checksums"] for name in ("faces", "plain")]
    assert sums[0]["default"] == sums[1]["default"]
    assert releases.leaks(release.path) == releases.verify(release.path) == []
    card, page = ((release.path / name).read_text() for name in ("README.md", "report.html"))
    assert "Config `synthetic` has 12 synthetic faces" in card
    assert "config_name: synthetic" in card.split("---")[1]
    assert "AUROC" in card
    assert "in a config of their own" in page
    made_face = next(iter(ids))
    assert releases.lineage(home, name="faces", face=made_face)["released"]["split"] == "synthetic"


def test_synthetic__moves_between_places(
    home: Home, inputs: Inputs, draw: Callable[..., np.ndarray]
) -> None:
    given = with_made(home, inputs(home), made(home, draw, 3))
    first = releases.build(home, **given, synthetic="train")
    assert releases.build(home, **given, synthetic="train").created is False
    second = releases.build(home, **given)
    assert (first.rows, second.rows) == (22, 20)
    changes = releases.diff(home, name="faces", old="v1", new="v2").facts["changes"]
    assert changes["split"] == {"moved": 2}
    assert not changes["removed"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"synthetic": "validation"}, "not one of config, train"),
        ({"rows": "synthetic only"}, "No real face can be released"),
    ],
)
def test_synthetic__invalid(
    home: Home,
    inputs: Inputs,
    draw: Callable[..., np.ndarray],
    change: dict[str, Any],
    says: str,
) -> None:
    given = with_made(home, inputs(home), made(home, draw, 3))
    if "rows" in change:
        change = {"rows": given["rows"].filter(pl.col("source") == "synthetic")}
    with pytest.raises(ReleaseError, match=says):
        releases.build(home, **given | change)


def test_domain_gap__differs_and_does_not(home: Home, draw: Callable[..., np.ndarray]) -> None:
    def rows(synthetic: Callable[[int], np.ndarray]) -> pl.DataFrame:
        crops = [draw(number) for number in range(30)] + [synthetic(n) for n in range(30, 60)]
        return pl.DataFrame(
            {
                "face_id": [f"f{number}" for number in range(60)],
                "subject_id": [f"s{number % 10}" for number in range(30)] + [None] * 30,
                "source": ["real"] * 30 + ["synthetic"] * 30,
                "crop": [media.store(home, "crops", crop) for crop in crops],
            }
        )

    def gray(number: int) -> np.ndarray:
        return cv2.cvtColor(cv2.cvtColor(draw(number), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)

    alike = domain_gap.measure(home, rows(draw))
    apart = domain_gap.measure(home, rows(gray))
    assert alike is not None
    assert apart is not None
    assert (alike["real"], alike["synthetic"]) == (30, 30)
    assert alike["views"][0]["auroc"] < 0.75
    # Color gives them away; in gray at 48 px they are what they were.
    assert apart["views"][0]["auroc"] > 0.95
    assert apart["views"][1] == alike["views"][1]
    assert domain_gap.measure(home, rows(draw).head(35)) is None


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


def test_synthetic__exported_to_train_when_asked(
    home: Home, inputs: Inputs, draw: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    plain = inputs(home)
    releases.build(home, **plain)
    with pytest.raises(ReleaseError, match="no synthetic faces"):
        releases.export(home, name="faces", to=tmp_path / "a", synthetic=True)
    release = releases.build(home, **with_made(home, plain, made(home, draw)))
    counts = releases.export(home, name="faces", to=tmp_path / "b")
    more = releases.export(home, name="faces", to=tmp_path / "c", synthetic=True)
    added = pl.concat([pl.read_parquet(f) for f in (release.path / "synthetic").iterdir()]).height
    assert more == counts | {"train": counts["train"] + added}
    said = json.loads((tmp_path / "c/source.json").read_text())
    assert (said["options"], said["notes"]) == (
        {"synthetic": True},
        [f"{added} synthetic faces were added to train"],
    )
    with pytest.raises(ReleaseError, match="every fold is a test set"):
        releases.export(home, name="faces", to=tmp_path / "d", synthetic=True, folds="2")
