"""Media source of Label Studio by settings; URLs of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from annotation.label_studio.media import (
    FOLDER,
    Bucket,
    Folder,
    Source,
    guide_for,
    key_of,
    new_addresses,
    prefix_changes,
)
from pipeline import settings
from pipeline.settings import Settings
from tests.object_store import KEYS
from warehouse.errors import SettingsError
from warehouse.storage import mirror

ENDPOINT = "http://127.0.0.1:9"
ELSEWHERE = {"LABEL_STUDIO_URL": "https://labels.example.org", "LABEL_STUDIO_API_KEY": "k" * 40}
PAIR = {"studio_s3_key": "READER", "studio_s3_secret": "reads-media-only"}
CROP = "crops/ab/0123.png"


def source_of(given: Settings) -> Source:
    return given.label_studio.media_source()


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": ENDPOINT}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / "work"))
    yield
    mirror._open.cache_clear()


@pytest.mark.parametrize(
    ("home", "given", "kind"),
    [
        ("home", {}, Folder),
        ("home", ELSEWHERE, Folder),
        ("s3://faces/home", {}, Folder),
        ("s3://faces/home", ELSEWHERE, Bucket),
        ("s3://faces/home", {"media_from": "store"}, Bucket),
        ("s3://faces/home", ELSEWHERE | {"media_from": "folder"}, Folder),
        ("memory://faces/home", ELSEWHERE, Folder),
    ],
)
def test_media_source__bucket_or_files(home: str, given: dict[str, Any], kind: type) -> None:
    assert isinstance(source_of(settings.load(home=home, **given)), kind)


@pytest.mark.parametrize(
    ("url", "given", "wanted"),
    [
        ("s3://faces/a/b", {}, Bucket("faces", "a/b/media/", ENDPOINT, "us-east-1")),
        ("s3://faces", {}, Bucket("faces", "media/", ENDPOINT, "us-east-1")),
        (
            "s3://faces/a",
            PAIR | {"studio_s3_endpoint": "https://s3.example.org", "studio_s3_presign": False},
            Bucket(
                "faces", "a/media/", "https://s3.example.org", "us-east-1", "READER",
                "reads-media-only", presign=False,
            ),
        ),
        (
            "s3://faces/a",
            {"studio_s3_endpoint": "server"},
            Bucket("faces", "a/media/", None, "us-east-1"),
        ),
    ],
)  # fmt: skip
def test_media_source__bucket_options(url: str, given: dict[str, Any], wanted: Bucket) -> None:
    assert source_of(settings.load(home=url, **ELSEWHERE, **given)) == wanted


def test_media_source__aws_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    found = source_of(settings.load(home="s3://faces/a", **ELSEWHERE))
    assert found == Bucket("faces", "a/media/", None, "eu-central-1")


def test_media_source__pipeline_keys_not_sent() -> None:
    found = source_of(settings.load(home="s3://faces/a", **ELSEWHERE))
    assert isinstance(found, Bucket)
    assert (found.key, found.secret) == ("", "")


@pytest.mark.parametrize(
    ("home", "given", "named"),
    [
        ("home", {"media_from": "store"}, "RISORIUS_MEDIA_FROM"),
        ("memory://faces/home", {"media_from": "store"}, "RISORIUS_MEDIA_FROM"),
        ("s3://faces/home", ELSEWHERE | {"studio_s3_key": "READER"}, "RISORIUS_STUDIO_S3_SECRET"),
        ("s3://faces/home", ELSEWHERE | {"studio_s3_secret": "x"}, "RISORIUS_STUDIO_S3_KEY"),
    ],
)
def test_media_source__invalid_settings(home: str, given: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        source_of(settings.load(home=home, **given))


def test_media_source__keys_hidden() -> None:
    found = settings.load(home="s3://faces/a", **ELSEWHERE, **PAIR)
    assert "reads-media-only" not in f"{found!r} {found.model_dump()} {source_of(found)!r}"


HERE, THERE = Bucket("faces", "a/media/"), Bucket("other", "media/")


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (FOLDER.address(CROP), CROP),
        (HERE.address(CROP), CROP),
        (THERE.address("clips/v-0001.webm"), "clips/v-0001.webm"),
        (Bucket("b", "x/media/y/media/").address(CROP), CROP),
        (FOLDER.address("clips/a b%c.webm"), "clips/a b%c.webm"),
        ("", None),
        ("https://example.org/crops/a.png", None),
        ("s3://faces/a/tables/x.parquet", None),
    ],
)
def test_media_key__from_url(address: str, key: str | None) -> None:
    assert key_of(address) == key


def test_media_urls__only_outdated_change() -> None:
    rest = {"face_id": "f", "reason": "coverage", "context": "", "order_1": 5}
    old = rest | {"crop": FOLDER.address(CROP), "clip": HERE.address("clips/v.webm")}
    assert new_addresses(old, HERE) == {"crop": HERE.address(CROP)}
    assert new_addresses(old | new_addresses(old, THERE), THERE) == {}
    assert new_addresses(old | new_addresses(old, THERE), FOLDER) == {
        "crop": FOLDER.address(CROP),
        "clip": FOLDER.address("clips/v.webm"),
    }
    assert prefix_changes(old, THERE) == {
        ("crop", FOLDER.address(""), THERE.address("")),
        ("clip", HERE.address(""), THERE.address("")),
    }
    assert prefix_changes({"clip": FOLDER.address("clips/a b.webm")}, THERE) == set()
    assert new_addresses(old | {"crop": "https://example.org/x.png"}, HERE) == {}


def test_media_urls__guide_images() -> None:
    local = '<b>d=guide/x</b><img src="/data/local-files/?d=guide/fear.svg" alt=""/> no hats'
    there = guide_for(local, HERE, 7)
    assert f'src="{HERE.page_address("guide/fear.svg", 7)}"' in there
    assert guide_for(there, HERE, 7) == there
    assert guide_for(guide_for(there, THERE, 7), FOLDER, 7) == local
