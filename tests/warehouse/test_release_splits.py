"""Splits of small tables, and of generated chains of versions."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.releases import splits

KINDS = {
    "face_id": pl.String,
    "subject_id": pl.String,
    "video_id": pl.String,
    "duplicate_of": pl.String,
}


def rows(*faces: tuple[str, str, str] | tuple[str, str, str, str]) -> pl.DataFrame:
    """Faces written as ``(face, subject, video[, duplicate_of])``."""
    return pl.DataFrame([(*face, None)[:4] for face in faces], schema=KINDS, orient="row")


def people(**counts: int) -> pl.DataFrame:
    """Make ``counts[name]`` faces of each person, one video per person."""
    return rows(
        *((f"{name}{i}", name, f"v-{name}") for name, n in counts.items() for i in range(n))
    )


def sizes(assigned: splits.Assignment) -> dict[str, int]:
    return dict(assigned.rows.group_by("split").len().sort("split").iter_rows())


def test_assign__shares() -> None:
    found = splits.assign(people(**{f"p{i}": 5 + i % 7 for i in range(120)}), earlier={})
    total = found.rows.height
    for split, share in splits.SHARES.items():
        assert abs(sizes(found)[split] / total - share) < 0.02
    assert splits.check(found.rows) == []


@pytest.mark.parametrize(
    ("frame", "held"),
    [
        (people(only=7), {"train": 7}),
        # The small one goes to test, whichever hash comes first.
        (people(big=30, small=6), {"train": 30, "test": 6}),
        (people(a=5, b=5), {"train": 10}),
        (people(a=20, b=3, c=2), {"train": 20, "test": 2, "validation": 3}),
        # Ten people in one video are one group.
        (rows(*((f"f{i}", f"s{i}", "crowd") for i in range(10))), {"train": 10}),
    ],
)
def test_assign__few_subjects(frame: pl.DataFrame, held: dict) -> None:
    assert sizes(splits.assign(frame, earlier={})) == held


def test_assign__row_order() -> None:
    frame = people(**{f"p{i}": 1 + i % 5 for i in range(30)})
    one = splits.assign(frame, earlier={})
    two = splits.assign(frame.sample(fraction=1, shuffle=True, seed=1), earlier={})
    assert one.members == two.members


def test_assign__groups() -> None:
    frame = pl.concat(
        [
            people(**{f"p{i}": 4 for i in range(20)}),
            rows(("x1", "p1", "v-p2"), ("x2", "p3", "v-p3", "p40"), ("x3", "p5", "v-p5", "gone")),
            rows(("x4", "p6", "v-p6", "gone")),
        ]
    )
    found = splits.assign(frame, earlier={})
    assert found.conflicts.is_empty()
    assert splits.check(found.rows) == []
    split = dict(found.rows.select("face_id", "split").iter_rows())
    assert split["p10"] == split["p20"] == split["x1"]
    assert split["p30"] == split["p40"] == split["x2"]
    assert split["x3"] == split["x4"]


def test_assign__earlier_splits() -> None:
    first = splits.assign(people(**{f"p{i}": 4 for i in range(20)}), earlier={})
    grown = people(**{f"p{i}": 9 for i in range(5, 40)})
    second = splits.assign(grown, earlier=first.members)
    for kind, names in first.members.items():
        assert {name: second.members[kind][name] for name in names} == names
    assert splits.check(second.rows) == []


def test_assign__conflict() -> None:
    earlier = {
        "subject": {"ann": "train", "bob": "test"},
        "video": {"v-ann": "train", "v-bob": "test"},
    }
    frame = pl.concat(
        [
            people(ann=3, bob=3),
            # A new video with more of ann than of bob, and one of them repeats a face of ann's.
            rows(("n1", "ann", "both"), ("n2", "ann", "both"), ("n3", "bob", "both")),
            rows(("n4", "bob", "v-bob", "ann0"), ("n5", "cid", "both")),
        ]
    )
    found = splits.assign(frame, earlier=earlier)
    assert sorted(found.conflicts["face_id"]) == ["n3", "n4"]
    split = dict(found.rows.select("face_id", "split").iter_rows())
    assert (split["n1"], split["n5"], split["bob0"]) == ("train", "train", "test")
    assert splits.check(found.rows) == []


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (rows(("a", "s", "v"), ("b", "s", "w")), "subject s is in test and train"),
        (rows(("a", "s", "v"), ("b", "t", "v")), "video v is in test and train"),
        (rows(("a", "s", "v"), ("b", "t", "w", "a")), "near duplicates of face a"),
        (rows(("a", "s", "v", "gone"), ("b", "t", "w", "gone")), "near duplicates of face gone"),
    ],
)
def test_check__leaks(frame: pl.DataFrame, says: str) -> None:
    leaking = frame.with_columns(split=pl.Series(["train", "test"]))
    assert any(says in leak for leak in splits.check(leaking))
    assert splits.check(frame.with_columns(split=pl.lit("train"))) == []


FACE = st.tuples(st.integers(0, 8), st.integers(0, 8), st.none() | st.integers(0, 40))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FACE, min_size=1, max_size=25), min_size=2, max_size=3))
def test_assign__generated_versions(versions: list[list[tuple]]) -> None:
    members: dict[str, dict[str, str]] = {}
    for version in versions:
        frame = rows(
            *(
                (f"f{i}", f"s{s}", f"v{v}", None if twin is None or twin == i else f"f{twin}")
                for i, (s, v, twin) in enumerate(version)
            )
        )
        found = splits.assign(frame, earlier=members)
        assert splits.check(found.rows) == []
        assert found.rows.height + found.conflicts.height == frame.height
        for kind, names in members.items():
            assert {name: found.members[kind][name] for name in names} == names
        members = found.members
