from __future__ import annotations

import hashlib

import pytest

from warehouse import ids
from warehouse.errors import SettingsError


@pytest.mark.parametrize("name", ["0012", "a", "A.b_c-9", "x" * 100])
def test_batch_name__valid(name: str) -> None:
    assert ids.check_batch(name) == name


@pytest.mark.parametrize(
    "name", ["", "a/b", "a b", "a,b", "a..b", "..", ".hidden", "x" * 101, "a\n", "ä", "a=b"]
)
def test_batch_name__invalid(name: str) -> None:
    with pytest.raises(SettingsError, match="Invalid batch name"):
        ids.check_batch(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("holiday clips", "holiday-clips"),
        ("a/b\\c", "a-b-c"),
        ("...", "batch"),
        ("", "batch"),
        ("v1..2", "v1.2"),
        ("été", "t"),
        ("y" * 300, "y" * 100),
    ],
)
def test_batch_name__from_text(text: str, name: str) -> None:
    assert ids.batch_from(text) == name
    assert ids.check_batch(ids.batch_from(text))


def test_sha256__all_bytes(tmp_path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    assert ids.file_sha256(str(tmp_path / "file")) == digest
    assert ids.sha256_of([data[:7], data[7:]]) == digest
    assert ids.video_id(digest) == digest[:16]


def test_ids__nested() -> None:
    track = ids.track_id("0123456789abcdef", 3)
    assert track == "0123456789abcdef-0003"
    assert ids.face_id(track, 75) == "0123456789abcdef-0003-75"
    assert len(ids.unreadable_video_id("file:///a.mp4")) == 16
    assert ids.unreadable_video_id("a") != ids.unreadable_video_id("b")


def test_pseudonym__salted() -> None:
    one = ids.pseudonym("person", "salt", "Ann@example.org")
    assert one.startswith("person-")
    assert "ann" not in one.lower().removeprefix("person")
    assert one == ids.pseudonym("person", "salt", "ann@example.org")
    assert one != ids.pseudonym("person", "other", "ann@example.org")
