"""Configs about segments: loading, splits, terms, erasure of a subject."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.warehouse import people_home as people
from warehouse import releases
from warehouse.errors import ReleaseError
from warehouse.privacy import erase
from warehouse.releases import items, manifest, splits
from warehouse.releases.publication import terms_of
from warehouse.storage import atomic
from warehouse.storage.home import Home

Inputs = Callable[..., dict[str, Any]]
NAMES = ("segments", "segment_votes", "texts", "spans")
PEOPLE = ("ann", "bob", "cid", "dee", "eve")
SHARES = [0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0, 0]


def segment(home: Home, name: str, video: str, *subjects: str, **more: Any) -> dict[str, Any]:
    """A row of config ``segments`` whose files hold its name."""
    for suffix in ("mp4", "flac"):
        atomic.write_bytes(
            home.media / "segments" / f"{name}.{suffix}", f"{name}.{suffix}".encode()
        )
    return dict.fromkeys(items.SEGMENTS) | {
        "segment_id": name, "video_id": video, "subject_ids": list(subjects), "kind": "utterance",
        "start_s": 0.0, "end_s": 2.0, "transcript": f"words of {name}",
        "video": f"segments/{name}.mp4", "sound": f"segments/{name}.flac",
        "label_set": "mafw11", "distribution": SHARES, "open_set_share": 0.0, "n_votes": 3,
        "source": "real", "licence": "CC-BY-4.0", "consent": "yes", "answered": True,
    } | more  # fmt: skip


def about(rows: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    """Segments with a vote, a text and a span each, as ``build`` takes them."""
    ids = list({row["segment_id"]: row["video_id"] for row in rows}.items())
    common = [{"item_kind": "segment", "item_id": one, "video_id": video, "rater_id": "person-1"}
              for one, video in ids]  # fmt: skip
    votes = [dict.fromkeys(items.VOTES) | {"segment_id": one, "video_id": video,
             "rater_id": "person-1", "rater_kind": "person", "label_set": "mafw11",
             "labels": ["fear"]} for one, video in ids]  # fmt: skip
    texts = [dict.fromkeys(items.TEXTS) | row | {"kind": "rationale", "author_kind": "person",
             "text": f"brows of {row['item_id']}"} for row in common]  # fmt: skip
    spans = [dict.fromkeys(items.SPANS) | row | {"label_set": "ambivalence", "label": "present",
             "start_s": 0.5, "end_s": 1.0, "cues": ["voice"]} for row in common]  # fmt: skip
    found = {"segments": rows, "segment_votes": votes, "texts": texts, "spans": spans}
    columns = (items.SEGMENTS, items.VOTES, items.TEXTS, items.SPANS)
    return {
        name: pl.DataFrame(part, schema=dict(kinds))
        for (name, part), kinds in zip(found.items(), columns, strict=True)
    }


def of_everyone(home: Home) -> list[dict[str, Any]]:
    """A segment per video of ``inputs``, and one of a video without a face."""
    return [segment(home, f"{one}-s1", f"video-{one}", one) for one in PEOPLE]


def loaded(release: releases.Release | Path, config: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Id of each released item to its split and row."""
    folder = (release if isinstance(release, Path) else release.path) / config
    key = "segment_id" if config.startswith("segment") else "item_id"
    return {
        row[key]: (file.name.partition("-")[0], row)
        for file in folder.glob("*.parquet")
        for row in pl.read_parquet(file, glob=False).iter_rows(named=True)
    }


def test_items__load(home: Home, inputs: Inputs, tmp_path: Path) -> None:
    import datasets

    given = inputs(home)
    rows = of_everyone(home)
    release = releases.build(home, **given, segment_items=about(rows))
    cache = str(tmp_path / "cache")
    found = datasets.load_dataset(str(release.path), "segments", cache_dir=cache)
    faces = datasets.load_dataset(str(release.path), cache_dir=cache)
    split_of = {row["video_id"]: split for split, part in faces.items() for row in part}
    named = {row["segment_id"]: (split, row) for split, part in found.items() for row in part}
    assert named.keys() == {row["segment_id"] for row in rows}
    for name, (split, row) in named.items():
        assert split == split_of.get(row["video_id"], split)
        assert row["video"] == {"bytes": f"{name}.mp4".encode(), "path": f"{name}.mp4"}
        assert row["audio"]["bytes"] == f"{name}.flac".encode()
        assert (row["subject_id"], row["subject_ids"]) == (name[:3], [name[:3]])
        assert (row["label_set"], row["distribution"]) == ("mafw11", SHARES)
        assert not {"consent", "answered"} & row.keys()
        for config in NAMES[1:]:
            assert loaded(release, config)[name][0] == split
    assert loaded(release, "texts")["eve-s1"][1]["author_kind"] == "person"
    assert loaded(release, "spans")["eve-s1"][1]["cues"] == ["voice"]
    assert releases.verify(release.path) == []
    assert releases.leaks(release.path) == []
    card = (release.path / "README.md").read_text()
    assert "| `segments` | mafw11 | 5 | anger, disgust, fear, happiness, neutral" in card
    assert "| `spans` | ambivalence | 5 |" in card
    assert "none were carried over" in card
    assert "5 by person" in card


def test_items__reproducible_and_immutable(home: Home, inputs: Inputs) -> None:
    given, rows = inputs(home), of_everyone(home)
    first = releases.build(home, **given, segment_items=about(rows))
    assert not releases.build(home, **given, segment_items=about(rows[::-1])).created
    twin = releases.build(home, **given | {"name": "twin"}, segment_items=about(rows))
    for name in NAMES:
        for file in (first.path / name).iterdir():
            assert file.read_bytes() == (twin.path / name / file.name).read_bytes()
    atomic.write_bytes(home.media / "segments" / "ann-s1.mp4", b"cut again")
    assert releases.build(home, **given, segment_items=about(rows)).version == "v2"
    (home.media / "segments" / "bob-s1.flac").unlink()
    with pytest.raises(ReleaseError, match=r"bob-s1\.flac cannot be read"):
        releases.build(home, **given, segment_items=about(rows))


def test_items__none(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    plain = releases.build(home, **given)
    assert not releases.build(home, **given, segment_items={}).created
    unanswered = [segment(home, "ann-s1", "video-ann", "ann", answered=False)]
    held = about(unanswered) | {"texts": None, "spans": None}
    assert not releases.build(home, **given, segment_items=held).created
    assert "items" not in manifest.read(plain.path)
    with pytest.raises(ReleaseError, match="no such config"):
        releases.load("faces", home=home, config="segments")


LEFT_OUT = {
    "consent_withdrawn": {"consent": "withdrawn"},
    "consent_expired": {"consent": "until 2020-01-01"},
    "no_votes": {"answered": False},
    "licence_forbids": {"licence": "CC-BY-NC-4.0"},
}


def test_items__left_out_by_reason(home: Home, inputs: Inputs) -> None:
    bad = [
        segment(home, f"{reason}-s1", f"video-{reason}", reason, **more)
        for reason, more in LEFT_OUT.items()
    ]
    given = inputs(home) | {"use": "commercial", "drop_forbidden": True}
    rows = about([*of_everyone(home), *bad])
    release = releases.build(home, **given, segment_items=rows, today=date(2026, 1, 1))
    for name in NAMES:
        assert loaded(release, name).keys() == {f"{one}-s1" for one in PEOPLE}
    text = (release.path / "manifest.json").read_text()
    assert manifest.read(release.path)["segments_left_out"] == dict.fromkeys(LEFT_OUT, 1)
    assert not [
        reason for reason in LEFT_OUT if f"{reason}-s1" in text or f"video-{reason}" in text
    ]
    assert r"1 consent\_withdrawn, 1 licence\_forbids" in (release.path / "README.md").read_text()


def test_items__a_forbidden_licence_is_refused(home: Home, inputs: Inputs) -> None:
    rows = of_everyone(home)
    rows[1]["licence"] = "CC-BY-NC-4.0"
    with pytest.raises(ReleaseError, match=r"1 real segments under CC-BY-NC-4\.0"):
        releases.build(home, **inputs(home), segment_items=about(rows), use="commercial")
    # Without a declared use the card states the terms, and publication is barred.
    release = releases.build(home, **inputs(home), segment_items=about(rows))
    assert manifest.read(release.path)["summary"]["licence"]["name"] == "CC-BY-NC-4.0"
    rows[1]["licence"] = "all rights reserved"
    release = releases.build(home, **inputs(home), segment_items=about(rows))
    assert any("segments (bob-s1)" in one for one in terms_of(home, release.path).barriers)


def test_items__two_splits(home: Home, inputs: Inputs) -> None:
    given = inputs(home)
    first = releases.build(home, **given, segment_items=about(of_everyone(home)))
    split_of = manifest.read(first.path)["splits"]["members"]["subject"]
    other = next(one for one in ("bob", "cid", "dee") if split_of[one] != split_of["ann"])
    both = segment(home, "ann-s2", "video-ann", "ann", other)
    again = releases.build(home, **given, segment_items=about([*of_everyone(home), both]))
    assert "ann-s2" not in loaded(again, "segments")
    assert manifest.read(again.path)["segments_left_out"] == {splits.CONFLICT: 1}
    unchanged = releases.build(home, **given, segment_items=about([*of_everyone(home), both]))
    assert (unchanged.created, unchanged.path) == (False, again.path)
    # Faces and those who were there before keep their splits.
    assert manifest.read(again.path)["splits"]["members"]["subject"] == split_of


def test_items__bad_columns(home: Home, inputs: Inputs) -> None:
    bad = {"spans": pl.DataFrame({"item_id": ["a"]})}
    with pytest.raises(ReleaseError, match="The rows of spans do not fit"):
        releases.build(home, **inputs(home), segment_items=bad)


def test_forget__segments_texts_spans(home: Home) -> None:
    people.people_home(home)
    videos = {clip: people.video_id(clip) for clip in people.FACES}
    rows = [
        segment(home, f"{videos[clip]}-s{number}", videos[clip], *who)
        for clip, subjects in people.FACES.items()
        for number, who in enumerate([(one,) for one in subjects])
    ]
    people.release(home, segment_items=about(rows))
    done = erase.forget(home, "subject", "ann")
    assert done.releases == {"faces v1": "v1.1"}
    mixed, alone = f"{videos['mix-e']}-s1", f"{videos['bob-d']}-s0"
    left = {name: loaded(home.releases / "faces" / "v1.1", name) for name in NAMES}
    assert left["segments"].keys() == {mixed, alone, f"{videos['cid-f']}-s0"}
    assert left["spans"].keys() == left["segment_votes"].keys() == left["segments"].keys()
    # Ann may be seen, heard and described in the video that shows both.
    shown = left["segments"][mixed][1]
    assert (shown["video"], shown["audio"], shown["transcript"]) == (None, None, None)
    assert left["segments"][alone][1]["video"]["bytes"] == f"{alone}.mp4".encode()
    assert left["texts"].keys() == left["segments"].keys() - {mixed}
    assert releases.verify(home.releases / "faces" / "v1.1") == []
