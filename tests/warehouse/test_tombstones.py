"""Tombstones block erased subjects, hold no name, and can be lifted."""

from __future__ import annotations

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
    tombstones.write(without_ann, subject, why="asked to", releases=[])
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
