"""Diffs of versions with known changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.storage.home import Home

Inputs = Callable[..., dict[str, Any]]

HAPPY = [0.0, 1.0, *[0.0] * 6]


def without(given: dict[str, Any], *faces: str) -> dict[str, Any]:
    return given | {"rows": given["rows"].filter(~pl.col("face_id").is_in(faces))}


def changed(given: dict[str, Any], face: str, **values: Any) -> dict[str, Any]:
    rows = given["rows"]
    return given | {
        "rows": rows.with_columns(
            pl.when(pl.col("face_id") == face)
            .then(pl.lit(value, dtype=pl.String if isinstance(value, str) else rows.schema[name]))
            .otherwise(name)
            .alias(name)
            for name, value in values.items()
        )
    }


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], list[tuple[str, ...]]]] = {
    "nothing but a fact": (lambda given: given | {"facts": {}}, []),
    "more votes say otherwise": (
        lambda given: changed(given, "ann-0000-0", n_votes=5, soft_label=HAPPY),
        [("label", "more_votes", "ann-0000-0", "neutral", "happiness")],
    ),
    "votes were taken back": (
        lambda given: changed(given, "ann-0000-0", n_votes=1, soft_label=HAPPY),
        [("label", "fewer_votes", "ann-0000-0", "neutral", "happiness")],
    ),
    "as many votes, others": (
        lambda given: changed(given, "ann-0000-0", soft_label=[0.5, 0.5, *[0.0] * 6]),
        [("label", "other_votes", "ann-0000-0", "neutral", "tied")],
    ),
    "a face lost its votes": (
        lambda given: changed(given, "ann-0000-2", n_votes=0),
        [("removed", "no_votes", "ann-0000-2", "surprise", "")],
    ),
    "a face is curated no more": (
        lambda given: without(given, "ann-0000-2"),
        [("removed", "no_longer_curated", "ann-0000-2", "surprise", "")],
    ),
    "an audit changed its mind": (
        lambda given: changed(given, "ann-0000-0", is_label_issue=True),
        [("flag", "is_label_issue", "ann-0000-0", "false", "true")],
    ),
    "it repeats another": (
        lambda given: changed(given, "ann-0000-2", duplicate_of="ann-0000-0"),
        [("flag", "duplicate_of", "ann-0000-2", "", "ann-0000-0")],
    ),
}


@pytest.mark.parametrize("case", CHANGES, ids=list(CHANGES))
def test_diff__reasons(home: Home, inputs: Inputs, case: str) -> None:
    change, expected = CHANGES[case]
    given = inputs(home, {"ann": 6, "bob": 3})
    releases.build(home, **given)
    releases.build(home, **change(given))
    found = releases.diff(home, name="faces", old="v1", new="v2").changes.fill_null("")
    assert found.select("change", "reason", "face_id", "before", "after").rows() == expected


def test_diff__added_and_removed(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 4, "bob": 3})
    new_video = pl.when(pl.col("face_id") == "ann-0000-3")
    given["rows"] = given["rows"].with_columns(
        video_id=new_video.then(pl.lit("video-second")).otherwise("video_id")
    )
    releases.build(home, **without(given, "ann-0000-3", "ann-0000-1"))
    later = inputs(home, {"ann": 4, "bob": 3, "cid": 2})
    later["rows"] = pl.concat([given["rows"], later["rows"].filter(pl.col("subject_id") == "cid")])
    releases.build(home, **later)
    found = releases.diff(home, name="faces", old=1)
    assert found.facts["changes"]["added"] == {
        "new_subject": 2,
        "new_video": 1,
        "newly_released": 1,
    }
    assert found.facts["changes"]["split"] == {}
    assert found.facts["rows"] == [5, 9]
    back = releases.diff(home, name="faces", old="v2", new="v1").facts["changes"]
    assert (sum(back["removed"].values()), back["added"]) == (4, {})
    json.dumps(found.document)


def test_diff__same_in_all_outputs(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 6, "bob": 3})
    releases.build(home, **given)
    second = releases.build(home, **changed(given, "ann-0000-0", n_votes=5, soft_label=HAPPY))
    found = releases.diff(home, name="faces", old="v1", new="v2")
    moved = {row["name"]: row["after"] - row["before"] for row in found.facts["classes"]}
    assert moved["happiness"] == pytest.approx(1 / 9, abs=1e-5)
    assert moved["neutral"] == pytest.approx(-1 / 9, abs=1e-5)
    assert found.facts["relabelled"] == [{"before": "neutral", "after": "happiness", "n": 1}]
    assert releases.show(home, name="faces")["since"] == found.facts
    assert "changed label" in found.text()
    assert "more votes 1" in found.text()
    for file in ("README.md", "report.html"):
        page = (second.path / file).read_text()
        assert "Since v1" in page
        assert "more votes" in page
    assert "Since v" not in (home.releases / "faces/v1/README.md").read_text()


def test_diff__missing_version(home: Home, inputs: Inputs) -> None:
    releases.build(home, **inputs(home, {"ann": 2}))
    with pytest.raises(ReleaseError, match="only v1"):
        releases.diff(home, name="faces", old="v1", new="v9")
