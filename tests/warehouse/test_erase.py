"""Erase one of three data subjects without a trace or other losses."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.warehouse.people_home import FACES, PER_TRACK, face_id, people_home, release, video_id
from warehouse import releases
from warehouse.errors import ReleaseError, SettingsError
from warehouse.privacy import data_subject, erase, verify
from warehouse.storage import media, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

ANNS = [clip for clip, people in FACES.items() if people == ("ann",)]


def everything(home: Home) -> dict[str, bytes]:
    return {
        str(path.relative_to(home.root)): path.read_bytes()
        for path in sorted(home.root.rglob("*"))
        if path.is_file() and path.name not in (".forgetting-lock", ".lock", "salt")
    }


def traces(home: Home, *words: str) -> list[str]:
    """Return files with a word in their bytes or decoded Parquet columns.

    Independent of the search under test.
    """
    pattern = re.compile(
        "|".join(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])" for word in words)
    )
    found = []
    for path in sorted(home.root.rglob("*")):
        if not path.is_file():
            continue
        text = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path, glob=False)
            texts = frame.drop("image") if "image" in frame.columns else frame
            text = path.name + texts.write_ndjson()
        elif path.suffix in (".png", ".jpg"):
            text = path.name
        if pattern.search(text) or pattern.search(path.name):
            found.append(str(path.relative_to(home.root)))
    return found


def pixels(home: Home) -> list[np.ndarray]:
    """Return every crop: media files and images in released rows."""
    found = [np.asarray(Image.open(path)) for path in home.media.rglob("*.png")]
    for path in home.releases.rglob("data/*.parquet"):
        for image in pl.read_parquet(path, glob=False)["image"]:
            found.append(np.asarray(Image.open(io.BytesIO(image["bytes"]))))
    return found


def crops_of(home: Home, who: str) -> list[np.ndarray]:
    faces = tables.read(home, "faces").join(tables.read(home, "identities"), on="face_id")
    mine = faces.filter(pl.col("subject_id") == who)
    return [media.load(home, key) for key in mine["crop"]]


def test_forget__no_trace_remains_and_releases_load(home: Home) -> None:
    people_home(home)
    release(home)
    others = crops_of(home, "bob") + crops_of(home, "cid")
    hers = [
        crop
        for crop in crops_of(home, "ann")
        if not any(np.array_equal(crop, other) for other in others)
    ]
    assert len(hers) == 3 * PER_TRACK - 1
    ids = [video_id(clip) for clip in ANNS] + [f"{video_id('mix-e')}-0000"]
    assert traces(home, *ids)
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    assert traces(home, *ids, "ann") == []
    kept = pixels(home)
    assert not any(np.array_equal(crop, other) for crop in hers for other in kept)
    for crop in others:
        assert any(np.array_equal(crop, other) for other in kept)
    # cid's first crop equals one of ann's, which is reported.
    assert done.verification.alike
    loaded = releases.load("faces", home=home)
    faces = {face for part in loaded.values() for face in part["face_id"]}
    people = {who for part in loaded.values() for who in part["subject_id"]}
    assert people == {"bob", "cid"}
    assert len(faces) == 3 * PER_TRACK
    votes = releases.load("faces", home=home, config="votes")["train"]
    assert set(votes["face_id"]) == faces
    assert releases.verify(home.releases / "faces/v1.1") == []
    assert releases.leaks(home.releases / "faces/v1.1") == []


def test_forget__keeps_rows_of_other_subjects(home: Home) -> None:
    people_home(home)
    before = {name: tables.read(home, name) for name in ("faces", "soft_labels", "annotations")}
    done = erase.forget(home, "subject", "ann")
    gone = {face_id(clip, "ann", n) for clip in [*ANNS, "mix-e"] for n in range(PER_TRACK)}
    for name, old in before.items():
        now, stay = tables.read(home, name), old.filter(~pl.col("face_id").is_in(gone))
        drop = [column for column in ("context",) if column in now.columns]
        assert now.drop(drop).equals(stay.drop(drop)), name
    assert done.removed["rows of tables"] >= 3 * len(gone)
    # Frames of the shared clip show ann too: frames of bob's faces are erased, his crops stay.
    faces = tables.read(home, "faces")
    shared = faces.filter(pl.col("video_id") == video_id("mix-e"))
    assert shared["context"].null_count() == shared.height == PER_TRACK
    assert faces.filter(pl.col("video_id") != video_id("mix-e"))["context"].null_count() == 0
    assert tables.read(home, "videos").height == 3
    footer = tables.metadata(home, "faces", part=video_id("mix-e"), batch="day")
    assert footer["fingerprint"] == "abc"
    twin = tables.read(home, "audits").filter(pl.col("audit") == "near_duplicates")
    assert (twin.height, twin["detail"].to_list()) == (1, [None])
    inbox = sorted(path.name for path in (home.inbox / "day").iterdir())
    assert inbox == ["bob-d.mp4", "cid-f.mp4", "sources.jsonl", "videos.csv"]
    assert len((home.inbox / "day" / "videos.csv").read_text().splitlines()) == 3


def test_forget__replaces_exactly_the_affected_versions(home: Home) -> None:
    people_home(home)
    release(home)
    release(home, name="bobs", only="bob")
    # v2 contains only cid, but its manifest lists the split of ann.
    release(home, only="cid")
    alone = everything(home)
    done = erase.forget(home, "subject", "ann", why="request of 3 March")
    assert done.releases == {"faces v1": "v1.1", "faces v2": "v2.1"}
    assert [(one.name, one.version) for one in releases.list_releases(home)] == [
        ("bobs", "v1"),
        ("faces", "v1.1"),
        ("faces", "v2.1"),
    ]
    untouched = {path for path in alone if path.startswith("releases/bobs/v1/")}
    now = everything(home)
    assert untouched
    assert all(now[path] == alone[path] for path in untouched)
    for version in ("v1.1", "v2.1"):
        facts = releases.show(home, name="faces", version=version)
        assert facts["problems"] == []
        assert "ann" not in facts["splits"]["members"]["subject"]
        assert facts["splits"]["members"]["subject"].keys() >= {"cid"}
        kept = next(row for row in facts["counts"] if row["reason"] is None)
        assert kept["n"] == facts["rows"]
    rows = tables.read(home, "releases").sort("name", "version", "patch")
    found = rows.select("name", "version", "patch", "replaced_by").rows()
    assert found == [
        ("bobs", 1, 0, None),
        ("faces", 1, 0, "v1.1"),
        ("faces", 1, 1, None),
        ("faces", 2, 0, "v2.1"),
        ("faces", 2, 1, None),
    ]
    assert rows["withdrawn_at"].is_not_null().to_list() == [False, True, False, True, False]
    with pytest.raises(ReleaseError, match=r"Use v1\.1, which replaced it"):
        releases.load("faces", "v1", home=home)
    (stone, *rest) = tables.read(home, "tombstones").sort("what").to_dicts()
    assert stone["what"] == done.what
    assert stone["what"].startswith("subject-")
    assert stone["why"] == "request of 3 March"
    assert {row["why"] for row in rest} == {f"of {done.what}", f"shared with {done.what}"}
    assert stone["releases"] == ["faces v1 -> v1.1", "faces v2 -> v2.1"]
    assert release(home).version == "v3"
    placed = releases.show(home, name="faces")["splits"]["members"]["subject"]
    earlier = releases.show(home, name="faces", version="v2.1")["splits"]["members"]["subject"]
    assert earlier.items() <= placed.items()


def test_forget__withdraws_a_release_of_the_subject_alone(home: Home) -> None:
    people_home(home)
    release(home, name="anns", only="ann")
    done = erase.forget(home, "subject", "ann")
    assert done.releases == {"anns v1": None}
    assert releases.list_releases(home) == []
    assert tables.read(home, "releases")["withdrawn_at"].is_not_null().all()


@pytest.mark.slow
def test_forget__one_video(home: Home) -> None:
    people_home(home)
    release(home)
    clip = video_id("ann-b")
    done = erase.forget(home, "video", clip)
    assert done.verification.complete, done.verification.traces
    assert traces(home, clip) == []
    loaded = releases.load("faces", home=home)
    assert {who for part in loaded.values() for who in part["subject_id"]} == {"ann", "bob", "cid"}
    assert tables.read(home, "videos").height == len(FACES) - 1


def test_forget__clips_of_the_subject(home: Home) -> None:
    people_home(home)
    clips = home.media / "clips"
    clips.mkdir()
    for clip, people in FACES.items():
        for who in people:
            track = face_id(clip, who, 0).rpartition("-")[0]
            (clips / f"{track}.webm").write_bytes(b"moving pictures of " + who.encode())
    assert erase.forget(home, "subject", "ann").verification.complete
    left = {path.stem.split("-")[0] for path in clips.iterdir()}
    assert left == {video_id("bob-d"), video_id("cid-f")}


def test_forget__unknown_or_already_erased(home: Home) -> None:
    people_home(home)
    with pytest.raises(SettingsError, match="There is no subject 'zoe'"):
        erase.forget(home, "subject", "zoe")
    before = everything(home)
    assert erase.plan(home, "subject", "bob").name == "bob"
    assert everything(home) == before
    erase.forget(home, "subject", "bob")
    with pytest.raises(SettingsError, match="forgotten on"):
        erase.forget(home, "subject", "bob")


def test_forget__failing_outside_system_changes_nothing(home: Home) -> None:
    people_home(home)
    release(home)
    before = everything(home)

    def refuse(subject: data_subject.DataSubject) -> dict[str, int]:
        raise SettingsError("Label Studio is down", got="no answer", hint="start it")

    with pytest.raises(SettingsError, match="Label Studio"):
        erase.forget(home, "subject", "ann", before=[refuse])
    now = everything(home)
    assert {path: now.get(path) for path in before} == before
    assert erase.pending(home) == [("subject", "ann")]
    done = erase.forget(home, "subject", "ann", before=[lambda subject: {"labelling tasks": 9}])
    assert done.removed["labelling tasks"] == 9
    assert erase.pending(home) == []
    assert done.verification.complete


@pytest.mark.slow
def test_search__finds_ids_paths_and_similar_images(home: Home) -> None:
    people_home(home)
    release(home)
    subject = data_subject.find(home, "subject", "ann")
    found = verify.search(home, subject)
    assert not found.complete
    listed = "\n".join(found.traces)
    for part in ("tables/faces", "tables/annotations", "releases/faces/v1/data", "inbox/day"):
        assert part in listed, part
    # A small JPEG of a crop has other bytes but a similar perceptual hash.
    erase.forget(home, "subject", "bob")
    copy = home.root / "left" / "thumb.jpg"
    copy.parent.mkdir()
    crop = media.load(home, subject.crops[0])
    Image.fromarray(crop).resize((112, 112)).save(copy, quality=88)
    assert any("left/thumb.jpg" in line for line in verify.search(home, subject).traces)


def test_search__path_of_a_shared_video_is_no_trace(home: Home) -> None:
    people_home(home)
    for clip in ("mix-e", "ann-b"):
        path = tables.path_of(home, "videos", part=video_id(clip), batch="day")
        # Short strings also appear uncompressed in Parquet statistics.
        pl.read_parquet(path, glob=False).write_parquet(path, compression="uncompressed")
    subject = erase.plan(home, "subject", "ann")
    traces = verify.search(home, subject).traces
    assert any("/ann-b.mp4" in trace and "tables/videos" in trace for trace in traces)
    assert not any("/mix-e.mp4" in trace and "tables/videos" in trace for trace in traces)
    assert erase.forget(home, "subject", "ann").verification.complete


def test_forget__video_without_faces(home: Home) -> None:
    people_home(home)
    place = {"part": video_id("cid-f"), "batch": "day"}
    for name in ("faces", "tracks"):
        tables.write(home, name, TABLES[name].empty(), **place)
    for name in ("identities", "soft_labels", "annotations", "audits"):
        stay = ~pl.col("face_id").str.starts_with(video_id("cid-f"))
        tables.write(home, name, tables.read(home, name).filter(stay), part="current")
    assert erase.forget(home, "subject", "cid").verification.traces == []
    assert not list(home.tables.glob(f"*/*/{video_id('cid-f')}*"))
    assert tables.read(home, "faces").height == 5 * PER_TRACK


def test_plan__reads_the_journal_of_an_earlier_version(home: Home) -> None:
    people_home(home)
    subject = erase.plan(home, "subject", "ann")
    path = erase._journal_path(home, "subject", "ann")
    path.parent.mkdir()
    entry = {"removed": {}, "releases": {}, "plan of an earlier version": subject.to_json()}
    path.write_text(json.dumps(entry))
    assert erase.plan(home, "subject", "ann") == subject
    assert erase.forget(home, "subject", "ann").verification.complete
