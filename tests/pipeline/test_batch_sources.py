"""Ingest of archives, URLs, folders, and files that change."""

from __future__ import annotations

import base64
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from pipeline.ingest import batches
from pipeline.ingest import register as batch
from pipeline.ingest.download import FetchLimits
from tests.benchmarks.faults_secrets import held_by
from tests.media_files import SIX_PEOPLE, video
from tests.pipeline.faces.file_server import Served, serving
from warehouse.errors import SettingsError
from warehouse.masking import mask
from warehouse.privacy import erase
from warehouse.storage import downloads, tables
from warehouse.storage.home import Home

QUICK = partial(FetchLimits, attempts=2, pause_s=0.01, timeout_s=5.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


@pytest.fixture
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.ingest.batches.FetchLimits", QUICK)


def clip(path: Path, frames: int = 4) -> bytes:
    """The bytes of a video without a face; their number makes it another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return video(path, frames=frames).read_bytes()


def rows(home: Home, name: str) -> dict[str, tuple[str, str | None]]:
    found = tables.read(home, "videos", batch=name)
    return {
        row["uri"].rsplit("/", 1)[-1]: (row["verdict"], (row["reason"] or "").split(":")[0] or None)
        for row in found.iter_rows(named=True)
    }


def register(home: Home, name: str) -> batch.StageCount:
    return batch.register(home, name, workers=1)


def test_ingest__archive_folder_and_urls(home: Home, server: Served, tmp_path: Path) -> None:
    one, two, three = (clip(tmp_path / "made" / f"{n}.mp4", n) for n in (3, 4, 5))
    pack = tmp_path / "pack.zip"
    with zipfile.ZipFile(pack, "w") as archive:
        archive.writestr("day/one.mp4", one)
        archive.writestr("day/videos.csv", "file_name,subject_id,licence\none.mp4,ada,CC0-1.0\n")
        archive.writestr("day/copy.mp4", one)
        archive.writestr("../out.mp4", one)
    server.files = {"/two.mp4": two, "/more.zip": pack.read_bytes()}
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "folder" / "in" / "three.mp4").write_bytes(three)
    (tmp_path / "folder" / "in" / "three.srt").write_text("words")
    given = [
        str(pack), f"{server.url}/two.mp4?key=secret", f"{server.url}/gone.mp4",
        str(tmp_path / "folder"),
    ]  # fmt: skip
    name = batches.create(home, given, batch="all")
    register(home, name)
    assert rows(home, name) == {
        "one.mp4": ("dropped", "duplicate"),
        "copy.mp4": ("kept", None),
        "out.mp4": ("failed", "unsafe_name"),
        "two.mp4": ("kept", None),
        "gone.mp4": ("failed", "gone"),
        "three.mp4": ("kept", None),
    }
    found = tables.read(home, "videos", batch=name)
    assert not found.filter(pl.col("source").str.contains("secret")).height
    assert set(found.filter(pl.col("uri").str.contains("arrived/"))["source"]) == {
        str(pack), f"{server.url}/two.mp4",
    }  # fmt: skip
    ada = found.filter(pl.col("subject_id") == "ada")
    assert ada["licence"].to_list() == ["CC0-1.0"]
    # Nothing new: nothing is sent, unpacked or read again; what failed is tried again.
    server.asked.clear()
    assert register(home, name).done == 0
    assert sorted((path, status) for path, _, status in server.asked) == [
        ("/gone.mp4", 404), ("/two.mp4", 304),
    ]  # fmt: skip
    server.files["/gone.mp4"] = clip(tmp_path / "made" / "g.mp4", 7)
    register(home, name)
    assert rows(home, name)["gone.mp4"] == ("kept", None)
    assert tables.read(home, "videos", batch=name).height == 6


def test_ingest__inbox_filled_by_hand(home: Home, server: Served, tmp_path: Path) -> None:
    body = clip(tmp_path / "x.mp4")
    server.files["/x.mp4"] = body
    folder = home.inbox / "day"
    (folder / "sub").mkdir(parents=True)
    with zipfile.ZipFile(folder / "sub" / "p.zip", "w") as archive:
        archive.writestr("y.mp4", clip(tmp_path / "y.mp4", 6))
    (folder / "sources.jsonl").write_text(
        json.dumps({"uri": f"{server.url}/x.mp4", "subject_id": "bob", "source": "the lab"}) + "\n"
    )
    register(home, "day")
    assert rows(home, "day") == {"x.mp4": ("kept", None), "y.mp4": ("kept", None)}
    bob = tables.read(home, "videos", batch="day").filter(pl.col("subject_id") == "bob")
    assert bob["source"].to_list() == ["the lab"]


def with_words(home: Home, *words: str) -> list[str]:
    """Files of the home that hold one of the words, in their bytes or rows."""
    return sorted(
        str(path.relative_to(home.root))
        for path in home.root.rglob("*")
        if path.is_file() and any(word.encode() in held_by(path) for word in words)
    )


def test_ingest__login_and_token_are_used_but_not_stored(
    home: Home, server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_logins", {})
    server.files["/x.mp4"] = clip(tmp_path / "x.mp4")
    host = server.url.removeprefix("http://")
    secret = f"http://me:swordfish-1@{host}/x.mp4?token=swordfish-2&id=5"
    name = batches.create(home, [secret], batch="web")
    register(home, name)
    login = "Basic " + base64.b64encode(b"me:swordfish-1").decode()
    assert server.given == [("token=swordfish-2&id=5", login)]
    assert rows(home, name) == {"x.mp4": ("kept", None)}
    assert with_words(home, "swordfish", login.removeprefix("Basic ")) == []
    assert f"http://{host}/x.mp4?id=5" in (home.inbox / name / "sources.jsonl").read_text()
    assert "swordfish" not in mask("a message with swordfish-1")
    # A new token is the same source; without one the video stays, and the reason says why.
    batches.create(home, [secret.replace("fish-2", "fish-3")], batch="web")
    register(home, name)
    assert server.given[-1][0] == "token=swordfish-3&id=5"
    downloads._logins.clear()
    server.faults = [("status", 403)]
    register(home, name)
    found = tables.read(home, "videos", batch=name).sort("verdict")
    assert found["verdict"].to_list() == ["failed", "kept"]
    assert "HTTP 403" in found["reason"][0]
    assert "with its login or token" in found["reason"][0]


def test_ingest__addresses_that_differ_in_the_token_alone(home: Home) -> None:
    given = [f"https://host/x.mp4?token={number}" for number in (1, 2)]
    with pytest.raises(SettingsError, match="2 times https://host/x"):
        batches.create(home, given, batch="web")
    assert not home.inbox.exists()


def test_ingest__secrets_in_files_of_the_user(home: Home, server: Served, tmp_path: Path) -> None:
    """The listing is the user's own; what is derived from it holds no secret."""
    server.files["/x.mp4"] = clip(tmp_path / "x.mp4")
    folder = home.inbox / "day"
    folder.mkdir(parents=True)
    address = f"{server.url}/x.mp4?token=swordfish-4"
    (folder / "sources.jsonl").write_text(json.dumps({"uri": address}) + "\n")
    (folder / "y.mp4").write_bytes(clip(tmp_path / "y.mp4", 6))
    (folder / "videos.csv").write_text(
        "file_name,source\ny.mp4,from https://me:swordfish-5@host/y?token=swordfish-6 today\n"
    )
    register(home, "day")
    register(home, "day")
    assert server.asked[-1][2] == 304
    own = ["inbox/day/sources.jsonl", "inbox/day/videos.csv"]
    assert with_words(home, "swordfish") == own
    found = tables.read(home, "videos", batch="day")
    assert "from https://host/y today" in found["source"].to_list()
    erase.forget(home, "video", found.filter(pl.col("uri").str.ends_with("x.mp4"))["video_id"][0])
    assert with_words(home, "swordfish-4") == []


def test_ingest__unavailable_source_keeps_videos(
    home: Home, server: Served, tmp_path: Path
) -> None:
    server.files["/x.mp4"] = clip(tmp_path / "x.mp4")
    name = batches.create(home, [f"{server.url}/x.mp4"], batch="b")
    register(home, name)
    server.faults = [("status", 500)] * 2
    register(home, name)
    found = tables.read(home, "videos", batch=name).sort("verdict")
    assert found["verdict"].to_list() == ["failed", "kept"]
    assert found["reason"][0].startswith("unreachable: HTTP 500")
    register(home, name)
    assert rows(home, name) == {"x.mp4": ("kept", None)}


def test_download__parallel_and_once_per_url(home: Home, server: Served, tmp_path: Path) -> None:
    server.files = {f"/{n}.mp4": clip(tmp_path / "made" / f"{n}.mp4", n) for n in (3, 4, 5)}
    server.together = threading.Barrier(3, timeout=20)
    addresses = [f"{server.url}/{n}.mp4" for n in (3, 4, 5)]
    name = batches.create(home, addresses, batch="net")
    register(home, name)
    assert len(rows(home, name)) == 3
    server.together = None
    seen = []
    (home.inbox / "net" / "videos.csv").write_text(
        "file_name\n" + "\n".join([*addresses, *addresses]) + "\n"
    )
    batches.materialize(home.inbox / "net", progress=lambda *seen_: seen.append(seen_))
    assert seen[-1][1] == seen[-1][2] == len(seen)
    assert {status for _, _, status in server.asked[3:]} == {304}


def test_download__interrupted_and_resumed(home: Home, server: Served, tmp_path: Path) -> None:
    server.files = {f"/{n}.mp4": clip(tmp_path / "made" / f"{n}.mp4", n) for n in (3, 4, 5, 6)}
    name = batches.create(home, [f"{server.url}{path}" for path in server.files], batch="net")

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    limits = QUICK(at_once=1)
    with pytest.raises(KeyboardInterrupt):
        batches.materialize(home.inbox / name, fetch=limits, progress=stop)
    assert limits.stopped.is_set()
    asked = len(server.asked)
    assert asked < 4
    register(home, name)
    assert len(rows(home, name)) == 4
    assert {verdict for verdict, _ in rows(home, name).values()} == {"kept"}


def test_ingest__changed_file_retires_old_video(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    first = clip(folder / "a.mp4", 4)
    (folder / "copy.mp4").write_bytes(first)
    (folder / "people.jpg").write_bytes(SIX_PEOPLE.read_bytes())
    name = batches.create(home, [str(folder)], batch="b")
    register(home, name)
    batch.find_faces(home, name, batch.FaceOptions(), workers=1)
    assert rows(home, name) == {
        "a.mp4": ("dropped", "no_face"), "copy.mp4": ("dropped", "duplicate"),
        "people.jpg": ("kept", None),
    }  # fmt: skip
    old = tables.read(home, "videos", batch=name).filter(pl.col("uri").str.ends_with(".jpg"))
    faces = tables.read(home, "faces", batch=name)
    assert set(faces["video_id"]) == set(old["video_id"])
    clip(folder / "a.mp4", 9)
    os.replace(folder / "a.mp4", folder / "people.jpg")
    (folder / "a.mp4").write_bytes(first)
    register(home, name)
    batch.find_faces(home, name, batch.FaceOptions(), workers=1)
    found = tables.read(home, "videos", batch=name).sort("uri", "verdict", "reason")
    verdicts = [
        (row["uri"].rsplit("/", 1)[1], row["verdict"], row["reason"].split(":")[0])
        for row in found.iter_rows(named=True)
    ]
    assert verdicts == [
        ("a.mp4", "dropped", "no_face"), ("copy.mp4", "dropped", "duplicate"),
        ("people.jpg", "dropped", "no_face"), ("people.jpg", "dropped", "replaced"),
    ]  # fmt: skip
    gone = tables.read(home, "faces", batch=name)
    assert gone.height == faces.height
    assert set(gone["verdict"]) == {"dropped"}
    # The old bytes return: so do their faces, without duplicate rows.
    (folder / "people.jpg").write_bytes(SIX_PEOPLE.read_bytes())
    register(home, name)
    batch.find_faces(home, name, batch.FaceOptions(), workers=1)
    assert rows(home, name)["people.jpg"] == ("kept", None) or len(found) == 4
    back = tables.read(home, "faces", batch=name)
    assert back.sort("face_id").drop("batch").equals(faces.sort("face_id").drop("batch"))


def test_ingest__copy_replaces_retired_video(home: Home, tmp_path: Path) -> None:
    first = clip(tmp_path / "one" / "a.mp4", 4)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "b.mp4").write_bytes(first)
    for name in ("one", "two"):
        register(home, batches.create(home, [str(tmp_path / name)], batch=name))
    assert rows(home, "two") == {"b.mp4": ("dropped", "duplicate")}
    clip(tmp_path / "one" / "a.mp4", 8)
    register(home, "one")
    register(home, "two")
    assert rows(home, "two") == {"b.mp4": ("kept", None)}
    assert tables.read(home, "faces", batch="one").is_empty()


def test_ingest__changed_sidecar_keeps_verdict(home: Home, tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    name = batches.create(home, [str(tmp_path / "a.mp4")], batch="b")
    register(home, name)
    batch.find_faces(home, name, batch.FaceOptions(), workers=1)
    (tmp_path / "videos.csv").write_text("file_name,licence\na.mp4,CC0-1.0\n")
    register(home, batches.create(home, [str(tmp_path / "a.mp4")], batch="b"))
    found = tables.read(home, "videos", batch=name).row(0, named=True)
    assert (found["licence"], found["verdict"]) == ("CC0-1.0", "dropped")
    assert found["reason"].startswith("no_face")


def test_forget__downloads_of_one_subject(home: Home, tmp_path: Path) -> None:
    folder = home.inbox / "day"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "p.zip", "w") as archive:
        archive.writestr("ann.mp4", clip(tmp_path / "a.mp4", 4))
        archive.writestr("bob.mp4", clip(tmp_path / "b.mp4", 6))
        archive.writestr("videos.csv", "file_name,subject_id\nann.mp4,ann-lee\nbob.mp4,bob-lee\n")
    register(home, "day")
    batch.find_faces(home, "day", batch.FaceOptions(), workers=1)
    done = erase.forget(home, "subject", "ann-lee")
    assert done.verification.complete, done.verification.traces
    assert done.left == []
    assert not (folder / "p.zip").exists()
    assert [path.name for path in folder.rglob("*.mp4")] == ["bob.mp4"]
    register(home, "day")
    assert rows(home, "day") == {"bob.mp4": ("dropped", "no_face")}
    assert [one.origin for _, one in downloads.list_all(folder)] == [None]
    assert batches.materialize(folder) == 0
