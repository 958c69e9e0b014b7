"""Erasing a subject from everything about segments, clips, videos."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from tests.warehouse.people_home import FACES, people_home, video_id
from tests.warehouse.test_erase import traces
from warehouse.privacy import data_subject, erase
from warehouse.storage import atomic, tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

ANSWERS = {"label": ["fear"], "words": ["uneasy"], "rationale": "", "turns": []}


def item_home(home: Home) -> dict[str, list[str]]:
    """Fill every table and folder about items; return clip to its items.

    What is of a clip holds the word ``secret-<clip>``.
    """
    people_home(home)
    found: dict[str, list[str]] = {}
    for clip, people in FACES.items():
        video, secret = video_id(clip), f"secret-{clip}"
        segments = [f"{video}-s{number}" for number in range(len(people))]
        clips = [f"{video}-{number:04d}-c0" for number in range(len(people))]
        found[clip] = [*segments, *clips, f"{video}-d-talk", video]
        place = {"part": video, "batch": "day"}
        for key in (f"segments/{segments[0]}.mp4", f"segments/{segments[0]}.flac",
                    f"sound/{video}-0000.flac", f"clips/{video}-0000.webm",
                    f"pictures/{video}.jpg", f"videos/{video}.mp4"):  # fmt: skip
            atomic.write_bytes(home.media / key, secret.encode())
        sensor = home.media / f"sensors/{video}-xeda.parquet"
        sensor.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"time_s": [0.0], secret: [1.0]}).write_parquet(sensor)
        common = {"video_id": video, "batch": "day", "verdict": "kept"}
        _write(home, "segments", [
            common | {"segment_id": segment, "subject_ids": [who], "speaker": who.title(),
                      "dialogue_id": "talk", "transcript": secret, "start_s": 0.0, "end_s": 1.0,
                      "video": f"segments/{segments[0]}.mp4",
                      "sound": f"segments/{segments[0]}.flac"}
            for segment, who in zip(segments, people, strict=True)
        ], **place)  # fmt: skip
        _write(home, "clips", [
            common | {"clip_id": one, "track_id": one.removesuffix("-c0"),
                      "sound": f"sound/{video}-0000.flac",
                      "words": [{"start_s": 0.0, "end_s": 1.0, "text": secret}]}
            for one in clips
        ], **place)  # fmt: skip
        _write(home, "sensors", [
            common | {"sensor_id": f"{video}-xeda", "kind": "eda",
                      "media": f"sensors/{video}-xeda.parquet"}
        ], **place)  # fmt: skip
        (home.inbox / "day" / f"{clip}.eda.csv").write_text(f"time,{secret}\n0,1\n")
        (home.inbox / "day" / f"{clip}.segments.csv").write_text(f"start,end,text\n0,1,{secret}\n")
    listed = [f"{clip},0,1,secret-{clip}\n" for clip in FACES]
    (home.inbox / "day" / "segments.csv").write_text("video,start,end,text\n" + "".join(listed))
    items = [(clip, item) for clip, every in found.items() for item in every]
    _write_answers(home, items)
    return found


def _write_answers(home: Home, items: list[tuple[str, str]]) -> None:
    about = [{"item_kind": "segment", "item_id": item, "rater_id": "person-1"} for _, item in items]
    votes, texts = [], []
    for number, (clip, _) in enumerate(items):
        said = json.dumps(ANSWERS | {"rationale": f"secret-{clip}"})
        votes.append(about[number] | {"annotation_id": 1000 + number, "project_id": 9,
                                      "event": "created", "answers": said})  # fmt: skip
        texts.append(about[number] | {"kind": "rationale", "text": f"secret-{clip}",
                                      "author_kind": "person", "position": 0})  # fmt: skip
    for name in ("spans", "soft_labels", "traces"):
        _write(home, name, about, part="items")
    _write(home, "texts", texts, part="items")
    _write(home, "annotations", votes, part="items")


def _write(home: Home, name: str, rows: list[dict[str, Any]], **place: Any) -> None:
    whole = [dict.fromkeys(TABLES[name].columns) | row for row in rows]
    tables.write(home, name, pl.DataFrame(whole, schema=TABLES[name].schema), **place)


def items_in(home: Home, name: str) -> set[str]:
    return set(tables.read(home, name)["item_id"].drop_nulls())


def test_forget__nothing_is_left_in_items_of_any_kind(home: Home) -> None:
    found = item_home(home)
    done = erase.forget(home, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    hers = [video_id("ann-b"), video_id("ann-c")]
    shared = [f"{video_id('mix-e')}-s0", f"{video_id('mix-e')}-0000-c0"]
    secrets = ["secret-ann-b", "secret-ann-c", "secret-mix-e"]
    assert traces(home, *hers, *shared, *secrets, "ann", "Ann") == []
    # Of the shared video the other's segment and clip stay, without sound, picture and words.
    bobs = {f"{video_id('mix-e')}-s1", f"{video_id('mix-e')}-0001-c0"}
    stay = {*found["bob-d"], *found["cid-f"], *bobs}
    for name in ("spans", "traces", "soft_labels", "annotations"):
        assert items_in(home, name) == stay, name
    assert items_in(home, "texts") == stay - bobs
    kept = tables.read(home, "annotations").filter(pl.col("item_id").is_in(list(bobs)))
    assert [json.loads(answers) for answers in kept["answers"]] == [
        {"label": ["fear"], "turns": []}
    ] * 2  # fmt: skip
    files = {path.name for folder in ("segments", "sound", "clips", "pictures", "videos", "sensors")
             for path in (home.media / folder).iterdir()}  # fmt: skip
    assert {name.partition("-")[0].partition(".")[0] for name in files} == {
        video_id("bob-d"), video_id("cid-f")
    }  # fmt: skip
    assert len(files) == 2 * 7
    lists = sorted(path.name for path in (home.inbox / "day").glob("*.csv"))
    assert lists == ["bob-d.eda.csv", "bob-d.segments.csv", "cid-f.eda.csv", "cid-f.segments.csv",
                     "segments.csv", "videos.csv"]  # fmt: skip
    assert len((home.inbox / "day" / "segments.csv").read_text().splitlines()) == 3


def test_find__a_person_whom_only_segments_name(home: Home) -> None:
    people_home(home)
    video = video_id("bob-d")
    named: list[tuple[str | None, list[str]]] = [("Dee", []), ("Bob", ["bob"]), (None, ["Eve"])]
    rows = [
        {"segment_id": f"{video}-s{number}", "video_id": video, "speaker": who, "subject_ids": ids}
        for number, (who, ids) in enumerate(named)
    ]
    _write(home, "segments", rows, part=video, batch="day")
    for name, number in (("dee", 0), ("eve", 2)):
        found = data_subject.find(home, "subject", name)
        # Others are in the video too, so that it is not theirs alone.
        assert (found.videos, found.shared) == ((), (video,))
        assert found.items == (f"{video}-s{number}",)
