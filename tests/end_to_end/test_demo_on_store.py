"""The demo with its home in a bucket ends as with a local home."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import DemoHome, risorius
from tests.end_to_end.state import end_state
from tests.object_store import BUCKET, KEYS, s3_server
from warehouse.storage.home import Home
from warehouse.storage.object_store import ObjectStore

URL = f"s3://{BUCKET}/demo"

pytestmark = [pytest.mark.studio, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectStore]:
    with s3_server() as server:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": server}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / "machine"))
        yield ObjectStore(URL)


def released(home: Path) -> dict[str, str]:
    manifest = json.loads((home / "releases" / "faces" / "v1" / "manifest.json").read_text())
    return {
        name: facts["sha256"]
        for name, facts in manifest["files"].items()
        if name.startswith("data/")
    }


def test_the_demo_in_a_bucket_ends_as_in_a_folder(
    demo: DemoHome, bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(URL)
    try:
        done = risorius("demo", home=home)
        assert "release" in done.stdout
        here = Home.at(URL)
        assert end_state(here.root) == end_state(demo.root)
        assert released(here.root) == released(demo.root)
        keys = bucket.list()
        assert not [key for key in keys if key.startswith(("label-studio", "dagster", "cache"))]
        monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / "another machine"))
        (seen,) = json.loads(risorius("release", "list", "--json", home=home).stdout)
        assert seen["version"] == "v1"
        shown = json.loads(risorius("release", "show", "faces", "--json", home=home).stdout)
        assert shown["problems"] == []
    finally:
        monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / "machine"))
        risorius("studio", "down", home=home, check=False)
