"""A home on an object store, mirrored in two folders as on two machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.object_store import BUCKET, KEYS, failing, s3_server
from tests.warehouse.conftest import drawn_face, release_inputs
from tests.warehouse.people_home import people_home, release, video_id
from warehouse import releases
from warehouse.errors import SettingsError
from warehouse.privacy import erase
from warehouse.storage import atomic, locks, media, mirror, tables, views
from warehouse.storage.home import Home
from warehouse.storage.object_store import ObjectStore, StoreError, url_of
from warehouse.storage.schema import TABLES


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def machine(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Home]]:
    """Return a function that opens the home as a named machine."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": server}).items():
        monkeypatch.setenv(name, value)
    prefix = f"{request.node.name[:40]}-{time.time_ns()}"

    def at(name: str) -> Home:
        monkeypatch.setenv("RISORIUS_WORK", str(tmp_path / name))
        return Home.at(f"s3://{BUCKET}/{prefix}")

    yield at
    mirror._open.cache_clear()


def bucket_of(home: Home) -> ObjectStore:
    return ObjectStore((home.root / ".store" / "url").read_text())


def sync(*homes: Home) -> None:
    for home in homes:
        for folder in (home.root, home.media):
            mirror.sync(folder, force=True)


def tombstone(number: int) -> pl.DataFrame:
    rows = [{"what": f"subject-{number}", "why": "test"}]
    table = TABLES["tombstones"]
    whole = [{column: row.get(column) for column in table.columns} for row in rows]
    return pl.DataFrame(whole, schema=table.schema)


def files(home: Home) -> dict[str, bytes]:
    return {
        str(path.relative_to(home.root)): path.read_bytes()
        for name in (*mirror.FOLDERS, mirror.SALT)
        for path in (home.root / name, *(home.root / name).rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://faces/a", "s3://faces/a"),
        ("s3:/faces/a/", "s3://faces/a"),
        ("gs://faces", "gs://faces"),
        ("/data/home", None),
        ("./s3/home", None),
        ("C:/home", None),
    ],
)
def test_url_of__accepts_one_slash(text: str, url: str | None) -> None:
    assert url_of(text) == url


def test_sync__rows_images_and_salt_on_another_machine(machine) -> None:
    a, b = machine("a"), machine("b")
    assert a.root != b.root
    assert a.salt() == b.salt()
    assert (b.root / "salt").stat().st_mode & 0o077 == 0
    tables.write(a, "tombstones", tombstone(1), part="one")
    key = media.store(a, "crops", drawn_face(1))
    assert tables.read(b, "tombstones")["what"].to_list() == ["subject-1"]
    assert (media.load(b, key) == media.load(a, key)).all()
    tables.write(b, "tombstones", tombstone(2), part="one")
    sync(a)
    assert views.query(a, "SELECT what FROM tombstones").item() == "subject-2"
    tables.remove(a, "tombstones", part="one")
    sync(b)
    assert tables.read(b, "tombstones").is_empty()
    assert not list(b.tables.rglob("*.parquet"))


def test_ensure_local__downloads_images(machine) -> None:
    a, b = machine("a"), machine("b")
    keys = [media.store(a, "crops", drawn_face(number)) for number in range(3)]
    media.ensure_local(b, [*keys, None, "crops/aa/missing.png"])
    assert all((b.media / key).is_file() for key in keys)
    assert len([path for path in b.media.rglob("*") if path.is_file()]) == 3


def test_find__local_folders_are_not_shared(machine) -> None:
    a = machine("a")
    for place in (a.studio / "credentials.json", a.dagster / "x.yaml", a.cache / "copy"):
        atomic.write_text(place, "local")
    assert bucket_of(a).list() == {}


def test_sync__restores_a_lost_folder(machine) -> None:
    a, b = machine("a"), machine("b")
    people_home(a)
    for path in (a.inbox / "day").glob("*.mp4"):  # as a user would upload them
        bucket_of(a).upload(path, str(path.relative_to(a.root)))
    sync(a, b)
    assert files(b) == files(a)
    assert len(files(b)) > 30


WRITER = """
import sys
import polars as pl
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
home, who = Home.at(sys.argv[1]), int(sys.argv[2])
table = TABLES["tombstones"]
for number in range(int(sys.argv[3])):
    row = dict.fromkeys(table.columns) | {"what": f"{who}-{number}", "why": home.salt()}
    frame = pl.DataFrame([row], schema=table.schema)
    tables.write(home, "tombstones", frame, part=f"{who}-{number}")
    mine = tables.read(home, "tombstones")["what"].to_list()
    assert f"{who}-{number}" in mine, "a process does not see its own write"
"""


@pytest.mark.slow
def test_write__processes_on_two_machines(machine, tmp_path: Path, server: str) -> None:
    a = machine("a")
    url = bucket_of(a).url
    workers = []
    for number in range(4):
        env = os.environ | {"RISORIUS_WORK": str(tmp_path / "ab"[number % 2])}
        words = [sys.executable, "-c", WRITER, url, str(number), "8"]
        workers.append(subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True))
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    for home in (a, machine("b"), machine("new")):
        sync(home)
        rows = tables.read(home, "tombstones")
        assert sorted(rows["what"]) == sorted(f"{w}-{n}" for w in range(4) for n in range(8))
        assert rows["why"].unique().to_list() == [home.salt()]


def test_upload__killed_before_the_local_rename(machine) -> None:
    a = machine("a")
    tables.write(a, "tombstones", tombstone(1), part="one")
    path = tables.path_of(a, "tombstones", part="one")
    newer = a.root / "newer"
    tombstone(2).write_parquet(newer)
    bucket_of(a).upload(newer, str(path.relative_to(a.root)))  # and then the process died
    sync(a)
    assert tables.read(a, "tombstones")["what"].to_list() == ["subject-2"]


def test_fetch__late_download_keeps_a_newer_write(machine) -> None:
    a = machine("a")
    tables.write(a, "tombstones", tombstone(1), part="one")
    path = tables.path_of(a, "tombstones", part="one")
    key, shared = str(path.relative_to(a.root)), mirror.find(path)
    assert shared is not None
    before = path.read_bytes()
    with shared.index() as index:
        seen = index.etag(key)
    atomic.write_bytes(path, b"newer, written after the listing")
    shared.objects.upload(_aside(a, before), key)
    shared._fetch(key, seen, etag="of an older listing")
    assert path.read_bytes() == b"newer, written after the listing"
    sync(a)  # the store is the truth
    assert path.read_bytes() == before


def _aside(home: Home, data: bytes) -> Path:
    path = home.root / "aside"
    path.write_bytes(data)
    return path


def test_sync__ignores_keys_outside_the_folder(machine, tmp_path: Path) -> None:
    a = machine("a")
    evil = _aside(a, b"evil")
    bucket = bucket_of(a)
    for name in ("tables/../../../evil", "media//etc/evil", "tables/.draft-x", "dagster/x.yaml"):
        bucket.upload(evil, name)
    bucket.upload(evil, "media/crops/aa/good.png")
    sync(a)
    written = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"
    ]
    assert sorted(written) == sorted([evil, a.media / "crops/aa/good.png"])


def test_publish__version_is_complete_or_missing(machine) -> None:
    a, b = machine("a"), machine("b")
    built = releases.build(a, **release_inputs(a))
    again = releases.build(b, **release_inputs(b))
    assert (built.version, built.created) == ("v1", True)
    assert (again.version, again.created) == ("v1", False)
    assert releases.verify(again.path) == []
    bucket, half = bucket_of(a), "releases/faces/v2/data/train-00000-of-00001.parquet"
    bucket.upload(_aside(a, b"half"), half)
    sync(b)
    assert [found.version for found in releases.list_releases(b)] == ["v1"]
    with releases.versions.locked(b, "faces") as folder:
        # It has no lock, so its publisher was killed.
        assert half not in bucket.list()
        releases.versions.delete(folder / "v1")
    sync(a)
    assert releases.list_releases(a) == []
    assert not any("/v1/" in key for key in bucket.list("releases"))


def test_publish__locked_by_another_publisher(machine) -> None:
    a = machine("a")
    bucket, claim = bucket_of(a), "releases/faces/.claim-v1"
    host = locks.process_tag().split("-")[0]
    for who in ("ffffffffffff-1", f"{host}-1"):
        bucket.create(claim, json.dumps({"who": who, "at": time.time()}).encode())
        with pytest.raises(StoreError, match="again in a minute"):
            releases.build(a, **release_inputs(a))
        bucket.delete(claim)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = ((f"{host}-{gone.pid}", time.time()), ("ffffffffffff-1", time.time() - 7200))
    for number, (who, at) in enumerate(dead, start=1):
        bucket.create(
            claim.replace("v1", f"v{number}"), json.dumps({"who": who, "at": at}).encode()
        )
        built = releases.build(a, **release_inputs(a) | {"settings": {"round": number}})
        assert built.version == f"v{number}"
        assert not [key for key in bucket.list() if ".claim" in key]


def test_forget__deletes_from_the_store_and_other_machines(machine) -> None:
    a, b = machine("a"), machine("b")
    people_home(a)
    for path in (a.inbox / "day").glob("*.mp4"):
        bucket_of(a).upload(path, str(path.relative_to(a.root)))
    release(a)
    sync(a, b)
    atomic.write_text(b.cache / "copy", "of ann")
    done = erase.forget(b, "subject", "ann")
    assert done.verification.complete, done.verification.traces
    sync(a)
    gone = (video_id("ann-b"), "ann-b.mp4")
    assert not [key for key in bucket_of(a).list() if any(word in key for word in gone)]
    assert not [name for name in files(a) if any(word in name for word in gone)]
    assert [found.version for found in releases.list_releases(a)] == ["v1.1"]
    index = (a.root / ".store" / "index.sqlite").read_bytes()
    assert video_id("ann-b").encode() not in index
    mirror.Mirror(b.root)._apply_erasure()
    assert not (b.cache / "copy").exists()


def test_sync__ten_percent_failing_calls(machine, server: str, monkeypatch) -> None:
    with failing(server, share=0.1, seed=3) as (url, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        a, b = machine("a"), machine("b")
        people_home(a)
        sync(b)
        mirror._open.cache_clear()
        assert files(b).keys() >= {name for name in files(a) if not name.endswith(".mp4")}
        tables.remove(a, "soft_labels", part="current")
        sync(b)
        assert tables.read(b, "soft_labels").is_empty()
    assert faults.total > 5
    assert len(faults.failed) > 2


def test_write__unreachable_store_or_missing_bucket(machine, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("warehouse.storage.object_store._ATTEMPTS", 2)
    machine("a")
    missing = Home.at("s3://no-such-bucket/home")
    with pytest.raises(StoreError, match="Create it, or name another"):
        tables.write(missing, "tombstones", tombstone(1), part="one")
    mirror._open.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = Home.at(f"s3://{BUCKET}/away")
    with pytest.raises(StoreError, match="run the same command") as refused:
        tables.write(away, "tombstones", tombstone(1), part="one")
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(refused.value)
    # A failed upload leaves no local file.
    assert not tables.path_of(away, "tombstones", part="one").exists()
    with pytest.raises(SettingsError):
        Home.at("s3://user:word@bucket/home")
