"""Tombstones block erased subjects, hold no name, and can be lifted."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from tests.warehouse.people_home import people_home, video_id
from warehouse.errors import SettingsError
from warehouse.privacy import erase, tombstones
from warehouse.storage import tables
from warehouse.storage.home import Home


@pytest.fixture
def without_ann(home: Home) -> Home:
    people_home(home)
    erase.forget(home, "subject", "ann")
    return home


def test_blocklist__subject_blocks_videos_and_flags_shared_ones(without_ann: Home) -> None:
    found = tombstones.blocklist(without_ann)
    ann = tombstones.name_of(without_ann, "subject", "ann")
    mine = tombstones.name_of(without_ann, "video", video_id("ann-b"))
    assert found.find(video="0" * 16, subject="ann") == ann
    # The video is blocked without a declared subject, by its bytes.
    assert found.find(video=video_id("ann-b"), subject=None) == mine
    assert found.find(video=video_id("bob-d"), subject="bob") is None
    assert found.find(video=video_id("mix-e"), subject=None) is None
    assert found.find_shared(video=video_id("mix-e")) is not None
    text = str(tables.read(without_ann, "tombstones").to_dicts())
    for secret in ("'ann'", video_id("ann-b"), video_id("mix-e")):
        assert secret not in text


def test_lift__unblocks_until_the_next_erasure(without_ann: Home) -> None:
    with pytest.raises(SettingsError, match="together with its subject"):
        tombstones.lift(without_ann, "video", video_id("ann-b"))
    tombstones.lift(without_ann, "subject", "ann")
    found = tombstones.blocklist(without_ann)
    assert found.find(video=video_id("ann-b"), subject="ann") is None
    assert found.find_shared(video=video_id("mix-e")) is None
    assert tombstones.erased_at(without_ann, "subject", "ann") is None
    with pytest.raises(SettingsError, match="has no tombstone"):
        tombstones.lift(without_ann, "subject", "ann")
    people = tables.read(without_ann, "tombstones")
    assert people.height == 5
    subject = erase.plan(without_ann, "subject", "bob")
    tombstones.write(without_ann, subject, part="now", why="asked to")
    assert tombstones.blocklist(without_ann).find(video=video_id("bob-d"), subject=None)


def test_lift__video_erased_by_itself(home: Home) -> None:
    people_home(home)
    erase.forget(home, "video", video_id("cid-f"))
    assert tombstones.blocklist(home).find(video=video_id("cid-f"), subject="cid")
    assert tombstones.blocklist(home).find(video="0" * 16, subject="cid") is None
    tombstones.lift(home, "video", video_id("cid-f"))
    assert tombstones.blocklist(home).find(video=video_id("cid-f"), subject="cid") is None


def test_blocklist__empty(home: Home) -> None:
    found = tombstones.blocklist(home)
    assert (found.blocked, found.shared) == (frozenset(), frozenset())
    assert found.find(video="0" * 16, subject="ann") is None


@pytest.mark.parametrize("why", ["let back in", "of subject-00000000", "asked to"])
def test_blocklist__text_of_the_reason_means_nothing(home: Home, why: str) -> None:
    people_home(home)
    erase.forget(home, "subject", "cid", why=why)
    assert tombstones.blocklist(home).find(video=video_id("cid-f"), subject="CID ")


def test_blocklist__clock_set_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    people_home(home)
    subject = erase.plan(home, "subject", "cid")
    for year, step in ((2030, "erase"), (2029, "lift"), (2028, "erase"), (2027, "lift")):
        clock = type(
            "Clock", (datetime,), {"now": lambda zone, y=year: datetime(y, 1, 1, tzinfo=zone)}
        )
        monkeypatch.setattr(tombstones, "datetime", clock)
        if step == "erase":
            tombstones.write(home, subject, part=tombstones.new_part(), why="asked to")
        else:
            tombstones.lift(home, "subject", "cid")
        found = tombstones.blocklist(home).find(video="0" * 16, subject="cid")
        assert (found is not None) == (step == "erase"), year


def test_blocklist__rows_of_earlier_versions(home: Home) -> None:
    home.salt()
    stone = tombstones.name_of(home, "subject", "cid")
    rows = [("asked to", 1), ("let back in", 2), ("asked to", 3)]
    for n, (why, day) in enumerate(rows):
        when = datetime(2026, 1, day, tzinfo=UTC)
        frame = pl.DataFrame({"what": [stone], "when": [when], "why": [why], "releases": [[]]})
        path = home.tables / "tombstones" / f"{n}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
        blocked = tombstones.blocklist(home).find(video="0" * 16, subject="cid")
        assert (blocked == stone) == (why == "asked to")
    tombstones.lift(home, "subject", "cid")
    assert tombstones.blocklist(home).find(video="0" * 16, subject="cid") is None
