"""Tombstones bar who left, hold no name, and let a person come back."""

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


def test_a_person_bars_their_videos_and_marks_shared_ones(without_ann: Home) -> None:
    found = tombstones.blocklist(without_ann)
    ann = tombstones.name_of(without_ann, "subject", "ann")
    mine = tombstones.name_of(without_ann, "video", video_id("ann-b"))
    assert found.find(video="0" * 16, subject="ann") == ann
    # Nobody need say who is in it: the very bytes are known.
    assert found.find(video=video_id("ann-b"), subject=None) == mine
    assert found.find(video=video_id("bob-d"), subject="bob") is None
    assert found.find(video=video_id("mix-e"), subject=None) is None
    assert found.find_shared(video=video_id("mix-e")) is not None
    text = str(tables.read(without_ann, "tombstones").to_dicts())
    for secret in ("'ann'", video_id("ann-b"), video_id("mix-e")):
        assert secret not in text


def test_who_comes_back_is_barred_no_more_until_they_leave_again(without_ann: Home) -> None:
    with pytest.raises(SettingsError, match="went with a person"):
        tombstones.lift(without_ann, "video", video_id("ann-b"))
    tombstones.lift(without_ann, "subject", "ann")
    found = tombstones.blocklist(without_ann)
    assert found.find(video=video_id("ann-b"), subject="ann") is None
    assert found.find_shared(video=video_id("mix-e")) is None
    assert tombstones.last(without_ann, "subject", "ann") is None
    with pytest.raises(SettingsError, match="a subject that was forgotten"):
        tombstones.lift(without_ann, "subject", "ann")
    people = tables.read(without_ann, "tombstones")
    assert people.height == 5
    leaver = erase.plan(without_ann, "subject", "bob")
    tombstones.write(without_ann, leaver, why="asked to", releases=[])
    assert tombstones.blocklist(without_ann).find(video=video_id("bob-d"), subject=None)


def test_a_video_forgotten_for_itself_comes_back_by_itself(home: Home) -> None:
    people_home(home)
    erase.forget(home, "video", video_id("cid-f"))
    assert tombstones.blocklist(home).find(video=video_id("cid-f"), subject="cid")
    assert tombstones.blocklist(home).find(video="0" * 16, subject="cid") is None
    tombstones.lift(home, "video", video_id("cid-f"))
    assert tombstones.blocklist(home).find(video=video_id("cid-f"), subject="cid") is None


def test_a_home_without_tombstones_bars_nobody(home: Home) -> None:
    found = tombstones.blocklist(home)
    assert (found.blocked, found.shared) == (frozenset(), frozenset())
    assert found.find(video="0" * 16, subject="ann") is None
