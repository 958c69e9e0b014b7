"""Near-duplicate groups of a release, and the runs behind a row."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline import release_inputs, runs
from pipeline.dagster_instance.instance import open_instance
from pipeline.defs.release import release_terms_allow_its_use
from pipeline.defs.resources import Workplace
from pipeline.lineage import trace
from pipeline.settings import Settings
from tests.warehouse.people_home import face_id, people_home, release, video_id
from warehouse import releases
from warehouse.licences import LICENCES
from warehouse.storage import tables
from warehouse.storage.home import Home

ANN, BOB, CID = (face_id(clip, clip[:3], 0) for clip in ("ann-b", "bob-d", "cid-f"))
HASHES = {ANN: "0" * 16, BOB: "000000000000000f", CID: "00000000000000ff"}
"""ann and bob are 4 bits apart, bob and cid too, ann and cid 8: near only through bob."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return people_home(Home.at(tmp_path / "home"))


def hashed(home: Home, hashes: dict[str, str]) -> None:
    for clip in ("ann-b", "bob-d", "cid-f"):
        place = {"part": video_id(clip), "batch": "day"}
        rows = tables.read(home, "faces").filter(pl.col("video_id") == video_id(clip))
        phash = pl.col("face_id").replace_strict(hashes, default=None, return_dtype=pl.String)
        tables.write(home, "faces", rows.with_columns(phash=phash), **place)


def unlabelled(home: Home, face: str) -> None:
    rows = tables.read(home, "soft_labels").filter(pl.col("face_id") != face)
    tables.write(home, "soft_labels", rows, part="current")


def test_groups__linked_by_unreleased_face(home: Home) -> None:
    hashed(home, HASHES)
    unlabelled(home, BOB)
    rows = release_inputs.rows(home)
    groups = dict(rows.select("face_id", "near_group").drop_nulls().iter_rows())
    assert groups == dict.fromkeys((ANN, CID), min(ANN, CID))
    made = release_inputs.create(Settings(home=home.root))
    split = {
        row["face_id"]: name
        for name, part in releases.load("faces", home=home).items()
        for row in part.select_columns("face_id")
    }
    assert split[ANN] == split[CID]
    assert BOB not in split
    assert "near_group" not in (made.path / "README.md").read_text()


def test_groups__no_released_neighbour(home: Home) -> None:
    hashed(home, {ANN: HASHES[ANN], BOB: HASHES[BOB]})
    unlabelled(home, BOB)
    assert release_inputs.rows(home)["near_group"].null_count() == release_inputs.rows(home).height


def test_trace__run_of_version(home: Home) -> None:
    settings = Settings(home=home.root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = runs.materialize(home, "release_create")["release"]
        again = runs.materialize(home, "release_create")["release"]
        assert (first["created"], again["created"]) == (True, False)
        traced = trace(settings, version="latest", face=ANN)
        instance = open_instance(home)
        unchanged, made = instance.get_runs()
    assert made.run_id != unchanged.run_id
    assert traced["runs"] == {"release": made.run_id}
    assert [model["name"] for model in traced["models"]] == ["centerface"]
    # Made by a script, without a run.
    release(home, name="other")
    assert (
        trace(settings.model_copy(update={"release": "other"}), version="v1", face=ANN)["runs"]
        == {}
    )


def test_terms_check__licence_changed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    release_inputs.create(Settings(home=home.root, release_use="commercial"))
    monkeypatch.setenv("RISORIUS_HOME", str(home.root))
    assert release_terms_allow_its_use(Workplace()).passed
    stricter = replace(LICENCES["mit"], commercial=False)
    monkeypatch.setitem(LICENCES, "mit", stricter)
    result = release_terms_allow_its_use(Workplace())
    assert not result.passed
    assert "MIT of 18 by centerface" in result.metadata["breaches"].value
