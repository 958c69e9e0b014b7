"""Releases on disk: files, versions, and inputs that build refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases.schema import VOTES
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

Inputs = Callable[..., dict[str, Any]]

COLUMNS = [
    *("image", "face_id", "video_id", "track_id", "subject_id", "time_s", "expression"),
    *("soft_label", "open_set_share", "n_votes", "entropy", "au", "valence", "arousal"),
    *("label_quality", "is_label_issue", "open_set_score", "is_open_set", "duplicate_of"),
    *("source", "licence", "bbox", "keypoints", "yaw", "pitch", "roll", "frame", "frame_size"),
    *("transform", "difficulty"),
]


def sums(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def test_build__loads_with_datasets_alone(home: Home, inputs: Inputs, tmp_path: Path) -> None:
    import datasets

    given = inputs(home)
    release = releases.build(home, **given)
    assert (release.version, release.created, release.rows) == ("v1", True, 20)
    loaded = datasets.load_dataset(str(release.path), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) <= {"train", "validation", "test"}
    kinds = loaded["train"].features
    assert list(kinds) == COLUMNS
    assert isinstance(kinds["image"], datasets.Image)
    assert kinds["expression"] == datasets.ClassLabel(names=list(EXPRESSIONS))
    assert kinds["soft_label"] == datasets.List(datasets.Value("float32"), length=8)
    assert kinds["au"] == datasets.List(datasets.Value("float32"), length=len(ACTION_UNITS))
    given_rows = {row["face_id"]: row for row in given["rows"].to_dicts()}
    seen = [row for split in loaded.values() for row in split]
    assert {row["face_id"] for row in seen} == given_rows.keys()
    for row in seen:
        asked = given_rows[row["face_id"]]
        assert sum(row["soft_label"]) == pytest.approx(1, abs=1e-6)
        assert row["soft_label"] == pytest.approx(asked["soft_label"])
        assert np.array_equal(np.asarray(row["image"]), media.load(home, asked["crop"]))
        top = sorted(asked["soft_label"])[-2:]
        tied = top[0] == top[1]
        best = None if tied else int(np.argmax(asked["soft_label"]))
        assert row["expression"] == best
        for name in ("subject_id", "n_votes", "time_s", "is_label_issue", "licence", "arousal"):
            assert row[name] == asked[name]


def test_build__votes(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    skip = (
        given["votes"]
        .head(1)
        .with_columns(
            was_cancelled=True,
            rater_id=pl.lit("simulated-skip"),
            expressions=pl.lit(None, dtype=pl.List(pl.String)),
        )
    )
    elsewhere = given["votes"].head(1).with_columns(face_id=pl.lit("not-released"))
    given["votes"] = pl.concat([given["votes"], skip, elsewhere])
    release = releases.build(home, **given)
    loaded = releases.load("faces", home=home, config="votes")["train"]
    key = ("face_id", "rater_id")
    asked = sorted(given["votes"].to_dicts(), key=lambda vote: [vote[name] for name in key])
    assert len(loaded) == len(asked) == 62
    for got, vote in zip(loaded, asked, strict=True):
        assert got.keys() == VOTES.keys()
        assert {name: got[name] for name in vote} == vote
        assert got["note"] is None
    summary = releases.show(home, name=release.name)["summary"]
    assert (summary["votes"], summary["skips"]) == (61, 1)


def test_build__reproducible(tmp_path: Path, inputs: Inputs) -> None:
    paths = []
    for name in ("one", "two"):
        home = Home.at(tmp_path / name)
        given = inputs(home)
        if name == "two":
            # Neither the order of the rows nor that of the columns is an input.
            given["rows"] = given["rows"].reverse().select(sorted(given["rows"].columns))
            given["votes"] = given["votes"].sample(fraction=1, shuffle=True, seed=3)
        paths.append(releases.build(home, **given).path)
    assert sums(paths[0]) == sums(paths[1])
    assert str(tmp_path) not in (paths[0] / "report.html").read_text()


def test_build__checksum_per_config(tmp_path: Path, inputs: Inputs) -> None:
    changes = {
        "as it is": {},
        "voted later, in another home": {
            "votes": lambda votes: votes.with_columns(
                rater_id="pseudonym-" + pl.col("rater_id"),
                created_at=pl.lit(datetime(2026, 11, 24, tzinfo=UTC)),
            )
        },
        "another label": {
            "rows": lambda rows: rows.with_columns(entropy=pl.col("entropy").fill_null(0) + 0.5)
        },
    }
    seen = {}
    for name, change in changes.items():
        home = Home.at(tmp_path / name)
        given = inputs(home)
        releases.build(home, **given | {key: make(given[key]) for key, make in change.items()})
        seen[name] = releases.show(home, name="faces")["checksums"]
    assert seen["voted later, in another home"]["default"] == seen["as it is"]["default"]
    assert seen["voted later, in another home"]["votes"] != seen["as it is"]["votes"]
    assert seen["another label"]["default"] != seen["as it is"]["default"]


def test_build__new_version_on_change(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    first = releases.build(home, **given)
    before = sums(first.path)
    again = releases.build(home, **given | {"code_version": "later"})
    assert (again.version, again.created, again.path) == ("v1", False, first.path)
    assert [path.name for path in first.path.parent.glob("v*")] == ["v1"]
    changed = given["votes"].with_columns(
        confidence=pl.when(pl.int_range(pl.len()) == 0)
        .then(pl.lit("unsure"))
        .otherwise("confidence")
    )
    second = releases.build(home, **given | {"votes": changed})
    assert (second.version, second.created) == ("v2", True)
    assert releases.show(home, name="faces")["parent"] == 1
    assert sums(first.path) == before
    recorded = tables.read(home, "releases").sort("version")
    assert recorded.select("name", "version", "parent", "rows").rows() == [
        ("faces", 1, None, 20),
        ("faces", 2, 1, 20),
    ]
    assert [(r.name, r.version, r.rows, r.problem) for r in releases.list_releases(home)] == [
        ("faces", "v1", 20, None),
        ("faces", "v2", 20, None),
    ]


def test_build__splits_stay(home: Home, inputs: Inputs) -> None:
    places = []
    for people in ({"ann": 9, "bob": 5, "cid": 2}, {"ann": 2, "bob": 5, "cid": 9, "dee": 6}):
        release = releases.build(home, **inputs(home, people))
        assert releases.leaks(release.path) == []
        loaded = releases.load("faces", release.version, home=home)
        places.append({who: name for name, part in loaded.items() for who in part["subject_id"]})
    assert places[0].items() <= places[1].items()
    assert len(set(places[0].values())) == 3


def test_build__shards(home: Home, inputs: Inputs) -> None:
    release = releases.build(home, **inputs(home), shard_bytes=20_000)
    shards = sorted(path.name for path in (release.path / "data").glob("train-*"))
    assert len(shards) > 2
    assert shards[-1] == f"train-{len(shards) - 1:05d}-of-{len(shards):05d}.parquet"
    assert sum(len(part) for part in releases.load("faces", home=home).values()) == 20


def test_build__counts(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    face = pl.col("face_id")
    made = face.is_in(["ann-0000-0", "ann-0000-1"])
    only_open = face == "bob-0000-0"
    bare = (face == "ann-0000-2") | only_open
    given["rows"] = given["rows"].with_columns(
        *(pl.when(~made).then(name).alias(name) for name in ("video_id", "track_id", "subject_id")),
        n_votes=pl.when(made | (face == "ann-0000-2")).then(0).otherwise("n_votes"),
        source=pl.when(made).then(pl.lit("synthetic")).otherwise("source"),
        soft_label=pl.when(bare).then(None).otherwise("soft_label"),
        open_set_share=pl.when(only_open).then(1.0).otherwise("open_set_share"),
    )
    release = releases.build(home, **given)
    facts = releases.show(home, name="faces")
    own = [row for row in facts["counts"] if row["stage"] == "release"]
    assert [(row["verdict"], row["reason"], row["n"]) for row in own] == [
        ("kept", None, 19),
        ("dropped", "no_votes", 1),
    ]
    loaded = {r["face_id"]: r for part in releases.load("faces", home=home).values() for r in part}
    assert "ann-0000-2" not in loaded
    assert loaded["bob-0000-0"]["soft_label"] is loaded["bob-0000-0"]["expression"] is None
    assert facts["summary"]["sources"] == {"real": 17}
    assert facts["synthetic"]["rows"] == 2
    assert "Config `synthetic` has 2 synthetic faces" in (release.path / "README.md").read_text()


def test_build__drop_flagged(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    kept = releases.build(home, **given)
    strict = releases.build(home, **given, drop_flagged=True)
    assert (kept.version, strict.version) == ("v1", "v2")
    flagged = given["rows"].filter(pl.col("is_label_issue") | pl.col("is_open_set"))
    loaded = releases.load("faces", 2, home=home)
    left = {face for part in loaded.values() for face in part["face_id"]}
    assert left == set(given["rows"]["face_id"]) - set(flagged["face_id"])
    reasons = {
        row["reason"]: row["n"]
        for row in releases.show(home, name="faces")["counts"]
        if row["stage"] == "release" and row["reason"]
    }
    assert sum(reasons.values()) == flagged.height


def test_build__one_subject(home: Home, inputs: Inputs) -> None:
    release = releases.build(home, **inputs(home, {"ann": 5}))
    assert set(releases.load("faces", home=home)) == {"train"}
    assert "Too few subjects" in (release.path / "README.md").read_text()


def test_build__lost_table_row(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    releases.build(home, **given)
    before = tables.read(home, "releases")
    tables.remove(home, "releases", part="faces-v1")
    assert not releases.build(home, **given).created
    assert tables.read(home, "releases").equals(before)


def test_build__version_numbers_unique(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    shutil.rmtree(releases.build(home, **given).path)
    assert releases.build(home, **given).version == "v2"
    # A folder made by hand is not replaced either.
    (home.releases / "faces" / "v7").mkdir()
    (home.releases / "faces" / "v7" / "mine").write_text("")
    with pytest.raises(ReleaseError, match=r"folder has no manifest\.json"):
        releases.build(home, **given, drop_flagged=True)
    assert (home.releases / "faces" / "v7" / "mine").exists()
    assert [r.problem is None for r in releases.list_releases(home)] == [True, False]


def test_build__stored_image_bytes(home: Home, inputs: Inputs) -> None:
    import pyarrow.parquet as pq
    from PIL import Image

    given = inputs(home, {"ann": 2})
    release = releases.build(home, **given)
    table = pq.read_table(next((release.path / "data").iterdir()))
    for row, crop in zip(table.to_pylist(), given["rows"]["crop"], strict=True):
        assert row["image"]["bytes"] == media.path_of(home, crop).read_bytes()
        assert Image.open(BytesIO(row["image"]["bytes"])).size == (48, 48)
    facts = json.loads((release.path / "manifest.json").read_text())
    assert facts["summary"]["licence"]["name"] == "CC-BY-4.0"
