"""Inputs that a build refuses, and versions that were changed by hand."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.releases import splits
from warehouse.storage import media
from warehouse.storage.home import Home

Inputs = Callable[..., dict[str, Any]]


def sums(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def with_column(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        kind = given["rows"].schema[name]
        first = pl.int_range(pl.len()) == 0
        spoilt = pl.when(first).then(pl.lit(value, dtype=kind)).otherwise(name).alias(name)
        given["rows"] = given["rows"].with_columns(spoilt)

    return change


def with_vote(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        given["votes"] = given["votes"].with_columns(pl.lit(value).alias(name))

    return change


def empty(given: dict[str, Any]) -> None:
    given["rows"] = given["rows"].clear()


def unvoted(given: dict[str, Any]) -> None:
    given["rows"] = given["rows"].with_columns(n_votes=0)
    given["votes"] = given["votes"].clear()


BAD = {
    "empty selection": (empty, "No face can be released"),
    "no votes at all": (unvoted, "none of 20, 20 no_votes"),
    "name with a slash": (lambda given: given.update(name="a/b"), "Invalid release name"),
    "name with a space": (lambda given: given.update(name="a b"), "Invalid release name"),
    "name that climbs": (lambda given: given.update(name=".."), "Invalid release name"),
    "name of nothing": (lambda given: given.update(name=""), "Invalid release name"),
    "subject missing": (with_column("subject_id", None), "Rows without subject_id"),
    "sum is not one": (with_column("soft_label", [0.5] + [0.0] * 7), "sum to 1"),
    "not a number": (with_column("soft_label", [float("nan")] + [0.0] * 7), "sum to 1"),
    "negative share": (with_column("soft_label", [1.5, -0.5] + [0.0] * 6), "sum to 1"),
    "seven classes": (with_column("soft_label", [1.0] + [0.0] * 6), "types of the rows"),
    "source unknown": (with_column("source", "dreamt"), "source other than real"),
    "score beyond": (with_column("label_quality", 1.5), "label_quality outside"),
    "score is NaN": (with_column("open_set_score", float("nan")), "open_set_score outside"),
    "face twice": (with_column("face_id", "ann-0000-1"), "repeated face_id"),
    "crop elsewhere": (with_column("crop", "../../etc/passwd"), "media key"),
    "crop missing": (with_column("crop", "crops/aa/missing.png"), "1 missing"),
    "column missing": (
        lambda given: given.update(rows=given["rows"].drop("au")),
        "missing \\['au'\\]",
    ),
    "column unknown": (with_vote("email", "x"), "unknown \\['email'\\]"),
    "account as rater": (with_vote("rater_id", "ann@example.org"), "e-mail address as rater_id"),
    "rater kind unknown": (with_vote("rater_kind", "robot"), "rater kind other than"),
    "answer unknown": (with_vote("expressions", ["bored"]), "answer other than"),
    "facts with a time": (
        lambda given: given.update(facts={"when": Path("x")}),
        "facts cannot be written as JSON",
    ),
    "facts with NaN": (
        lambda given: given.update(facts={"x": float("nan")}),
        "facts cannot be written as JSON",
    ),
    "facts misshapen": (
        lambda given: given.update(facts={"audits": ["x"]}),
        "not a list of mappings",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_build__bad_input(home: Home, inputs: Inputs, case: str) -> None:
    from warehouse.errors import RisoriusError

    spoil, says = BAD[case]
    given = inputs(home)
    spoil(given)
    with pytest.raises(RisoriusError, match=says):
        releases.build(home, **given)
    assert [
        path for path in home.releases.rglob("*") if path.name != ".lock" and path.is_file()
    ] == []
    assert releases.list_releases(home) == []


def test_build__changed_crop(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    media.path_of(home, given["rows"]["crop"][3]).write_bytes(b"other")
    with pytest.raises(ReleaseError, match="was changed"):
        releases.build(home, **given)


def test_build__split_leak(home: Home, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    assign = splits.assign

    def leaking(rows: pl.DataFrame, **options: Any) -> splits.Assignment:
        """Put every second face into test regardless of its subject."""
        found = assign(rows, **options)
        odd = pl.int_range(pl.len()) % 2 == 1
        split = pl.when(odd).then(pl.lit("test")).otherwise(pl.lit("train")).alias("split")
        return replace(found, rows=found.rows.with_columns(split))

    with monkeypatch.context() as patch:
        patch.setattr(splits, "assign", leaking)
        with pytest.raises(ReleaseError, match=r"is in two splits: .*subject ann is in test and"):
            releases.build(home, **inputs(home, {"ann": 4, "bob": 4}))
    assert releases.list_releases(home) == []
    assert not [path for path in home.releases.rglob("*") if path.suffix == ".parquet"]


def damage_nothing(path: Path) -> None:
    (path / "extra.txt").write_text("")


def flip(path: Path) -> None:
    file = next((path / "data").iterdir())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


DAMAGE = {
    "one bit": (flip, "was changed", True),
    "cut short": (lambda p: (p / "README.md").write_text("x"), "instead of", False),
    "file gone": (lambda p: next((p / "votes").iterdir()).unlink(), "is missing", False),
    "file added": (damage_nothing, "was added", True),
}


@pytest.mark.parametrize("case", DAMAGE, ids=list(DAMAGE))
def test_verify__changed_files(home: Home, inputs: Inputs, case: str) -> None:
    hurt, says, loads = DAMAGE[case]
    given = inputs(home, {"ann": 3})
    release = releases.build(home, **given)
    assert releases.verify(release.path) == []
    hurt(release.path)
    assert any(says in problem for problem in releases.verify(release.path))
    assert releases.show(home, name="faces")["problems"]
    with pytest.raises(ReleaseError, match="was changed after it was built"):
        releases.build(home, **given)
    if not loads:
        with pytest.raises(ReleaseError, match="was changed after it was built"):
            releases.load("faces", home=home)


def test_manifest__damaged(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 3})
    release = releases.build(home, **given)
    (release.path / "manifest.json").write_text('{"files"')
    for act in (
        lambda: releases.verify(release.path),
        lambda: releases.load("faces", home=home),
        lambda: releases.build(home, **given),
    ):
        with pytest.raises(ReleaseError, match=r"manifest\.json in .* cannot be read"):
            act()
    assert releases.list_releases(home)[0].problem is not None


@pytest.mark.parametrize(
    ("name", "version", "says"),
    [
        ("faces", "v9", "only v1"),
        ("faces", "newest", "only v1"),
        ("other", "latest", "no version in"),
        ("a/b", "latest", "Invalid release name"),
    ],
)
def test_load__missing_version(
    home: Home, inputs: Inputs, name: str, version: str, says: str
) -> None:
    releases.build(home, **inputs(home, {"ann": 2}))
    with pytest.raises(ReleaseError, match=says):
        releases.load(name, version, home=home)
    with pytest.raises(ReleaseError, match="config"):
        releases.load("faces", home=home, config="nonsense")


def test_build__full_disk(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    first = releases.build(home, **given)
    before = sums(first.path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ReleaseError, match="earlier versions are untouched"):
            releases.build(home, **given, drop_flagged=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sums(first.path) == before
    assert sorted(p.name for p in first.path.parent.iterdir()) == [".lock", "v1"]
    assert releases.build(home, **given, drop_flagged=True).version == "v2"
