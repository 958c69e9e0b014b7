"""Sources of a batch folder, their sidecar values, and a row for each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.ingest.manifest import Source, describe, list_origins, list_sources
from tests import media_files
from warehouse.errors import SettingsError
from warehouse.ids import file_sha256, unreadable_video_id
from warehouse.storage import downloads
from warehouse.storage.downloads import Download
from warehouse.storage.schema import TABLES


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def listing(*lines: dict[str, object]) -> str:
    return "\n".join(json.dumps(line) for line in lines) + "\n"


def test_sources__order_and_own_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        b__mp4="b",
        a__jpg="a",
        notes__txt="n",
        videos__csv="file_name,licence\na.jpg,CC0-1.0\ngone.mp4,\n",
        sources__jsonl="\n",
        half__mp4__part="copying",
    )
    (tmp_path / ".draft-1234").touch()
    (tmp_path / ".hidden.mp4").touch()
    (tmp_path / "folder").mkdir()
    found = list_sources(tmp_path)
    assert [(source.file_name, source.missing) for source in found] == [
        ("a.jpg", False),
        ("b.mp4", False),
        ("gone.mp4", True),
        ("notes.txt", False),
    ]
    assert [source.licence for source in found] == ["CC0-1.0", None, None, None]
    assert found[0].uri == str(tmp_path / "a.jpg")


def test_sources__references(tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    (away / "x.mp4").touch()
    batch = tmp_path / "batch"
    batch.mkdir()
    write(
        batch,
        sources__jsonl=listing(
            {"uri": str(away / "x.mp4"), "file_name": "x.mp4", "subject_id": 7, "source": "lab"},
            {"uri": "../away/y.mp4"},
        ),
        videos__csv="file_name,subject_id\nx.mp4,ada\n",
    )
    x, y = list_sources(batch)
    assert x == Source("x.mp4", str(away / "x.mp4"), subject_id="ada", source="lab")
    assert y == Source("y.mp4", str(away / "y.mp4"), missing=True)


def test_sources__same_name_twice(tmp_path: Path) -> None:
    lines = [{"uri": f"/no/{side}/x.mp4", "file_name": "x.mp4"} for side in ("left", "right")]
    write(tmp_path, sources__jsonl=listing(*lines))
    assert [source.uri for source in list_sources(tmp_path)] == [
        "/no/left/x.mp4",
        "/no/right/x.mp4",
    ]


def test_sources__empty_folder(tmp_path: Path) -> None:
    assert list_sources(tmp_path) == []
    assert list_sources(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("videos.csv", b"nom,licence\na,b\n", "lacks a column file_name: .*'nom'"),
        ("videos.csv", b"", "no column of ours"),
        ("videos.csv", b"file_name;licence\na;b;c\n", "line 2: 3 cells, 2 columns"),
        ("videos.csv", "file_name\nä.mp4\n".encode("latin-1"), "UTF-8"),
        ("videos.csv", b"file_name,licence\na,x\na,y\n", "two different rows for a"),
        ("sources.jsonl", b'{"uri": "/a"}\n\n{"uri": \n', "line 3"),
        ("sources.jsonl", b'["/a"]\n', "line 1"),
        ("sources.jsonl", b'{"file_name": "a"}\n', "line 1"),
        ("sources.jsonl", b'{"uri": ""}\n', "line 1"),
        ("sources.jsonl", b"\xff\xfe{}", "UTF-8"),
    ],
)
def test_sidecar__invalid(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        list_sources(tmp_path)


def test_row__good_file(tmp_path: Path) -> None:
    path = media_files.video(tmp_path / "clip.mp4", frames=20, fps=10)
    row = describe(Source("clip.mp4", str(path), subject_id="ada", consent="written"), batch="b")
    digest = file_sha256(str(path))
    assert row == {
        "video_id": digest[:16], "uri": str(path), "batch": "b", "sha256": digest,
        "bytes": path.stat().st_size, "duration_s": 2.0, "fps": 10.0, "width": 160,
        "height": 120, "rotation": 0, "codec": "mpeg4", "has_audio": False, "subject_id": "ada",
        "consent": "written", "licence": "unknown", "source": "local", "verdict": "kept",
        "reason": None,
    }  # fmt: skip
    assert set(row) == set(TABLES["videos"].columns)


def test_row__failures(tmp_path: Path) -> None:
    expected = media_files.damaged_batch(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    rows = {source.file_name: describe(source, batch="b") for source in list_sources(tmp_path)}
    assert all(set(row) == set(TABLES["videos"].columns) for row in rows.values())
    failed = {name: row for name, row in rows.items() if row["verdict"] == "failed"}
    assert {name: row["reason"].split(": ")[0] for name, row in failed.items()} == {
        **{name: code for name, code in expected.items() if code != "no_face"},
        "pipe.mp4": "unreadable",
    }
    for name in ("unreadable.mp4", "absent.mp4", "empty.mp4", "pipe.mp4"):
        assert rows[name]["video_id"] == unreadable_video_id(rows[name]["uri"])
    assert rows["absent.mp4"]["subject_id"] == "ada"
    assert len({row["video_id"] for row in rows.values()}) == len(rows)


def test_sources__subfolders_and_transcripts(tmp_path: Path) -> None:
    inner = tmp_path / "day" / "one"
    inner.mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    sidecar = "file_name,licence\nday/one/b.mp4,CC0-1.0\n"
    write(tmp_path, top__mp4="t", top__srt="said", lone__vtt="said", videos__csv=sidecar)
    write(
        inner, b__mp4="b", c__mp4="c", c__mp4__json="{}", videos__csv="file_name,source\nc.mp4,lab"
    )
    write(tmp_path / ".cache", x__mp4="x")
    found = {source.file_name: source for source in list_sources(tmp_path)}
    assert list(found) == ["day/one/b.mp4", "day/one/c.mp4", "lone.vtt", "top.mp4"]
    assert found["day/one/b.mp4"].licence == "CC0-1.0"
    assert found["day/one/c.mp4"].source == "lab"
    assert [source.file_name for source in list_origins(tmp_path, deep=False)] == [
        "day/one/b.mp4", "lone.vtt", "top.mp4",
    ]  # fmt: skip


def test_sources__no_local_paths(tmp_path: Path) -> None:
    (tmp_path / "mine.mp4").touch()
    batch = tmp_path / "batch"
    folder = downloads.folder_of(batch, "/x.zip")
    folder.mkdir(parents=True)
    downloads.write(batch, Download("/x.zip", "x.zip", single=False))
    write(
        folder,
        good__mp4="g",
        sources__jsonl=listing({"uri": str(tmp_path / "mine.mp4")}),
        videos__csv=f"file_name,licence\n{tmp_path}/mine.mp4,\n../../../../mine.mp4,\ngood.mp4,CC0-1.0\n",
    )
    (good,) = list_sources(batch)
    assert (good.file_name, good.licence, good.source) == ("x.zip/good.mp4", "CC0-1.0", "/x.zip")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\udce9.mp4", "unreadable_name: a\\xe9.mp4 is not UTF-8 text; rename the file"),
        ("a\ud800.mp4", "unreadable_name: a\\xed\\xa0\\x80.mp4 is not UTF-8 text; rename the file"),
        ("a\0.mp4", "unreadable_name: it holds a NUL ("),
    ],
)
def test_sources__name_that_is_no_text(tmp_path: Path, name: str, reason: str) -> None:
    write(tmp_path, good__mp4="good", sources__jsonl=listing({"uri": name, "subject_id": name}))
    bad, good = list_sources(tmp_path)
    assert good == Source("good.mp4", str(tmp_path / "good.mp4"))
    row = describe(bad, batch="b")
    assert row["verdict"] == "failed"
    assert row["reason"].startswith(reason)
    for text in (bad.file_name, bad.uri, bad.subject_id or "", row["reason"]):
        assert "\0" not in text.encode().decode()


def test_sources__bytes_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path, good__mp4="good")
    for folder in (os.fsencode(tmp_path), os.fsencode(tmp_path) + b"/caf\xe9"):
        os.makedirs(folder, exist_ok=True)
        Path(os.fsdecode(folder + b"/\xff.mp4")).write_bytes(b"x")
    found = {source.file_name: source.failure for source in list_sources(tmp_path)}
    assert sorted(found) == ["\\xff.mp4", "caf\\xe9/\\xff.mp4", "good.mp4"]
    said = [failure and failure.split(";")[0] for _, failure in sorted(found.items())]
    assert said == [
        "unreadable_name: \\xff.mp4 is not UTF-8 text",
        "unreadable_name: caf\\xe9/\\xff.mp4 is not UTF-8 text",
        None,
    ]


def test_sources__linked_folder_is_not_followed(tmp_path: Path) -> None:
    deep = tmp_path / "away" / "deep"
    deep.mkdir(parents=True)
    write(deep.parent, a__mp4="a")
    write(deep, b__mp4="b")
    batch = tmp_path / "batch"
    (batch / "inside").mkdir(parents=True)
    write(batch, c__mp4="c")
    (batch / "away").symlink_to(deep.parent)
    (batch / "inside" / "loop").symlink_to(batch)
    (batch / "d.mp4").symlink_to(deep / "b.mp4")
    found = {source.file_name: source.failure for source in list_sources(batch)}
    assert sorted(found) == ["away", "c.mp4", "d.mp4", "inside/loop"]
    for name in ("away", "inside/loop"):
        assert (found[name] or "").startswith("linked_folder: a link to another folder")
    assert found["c.mp4"] is found["d.mp4"] is None
    # The batch itself may be a link.
    (tmp_path / "link").symlink_to(deep.parent)
    assert [source.file_name for source in list_sources(tmp_path / "link")] == [
        "a.mp4",
        "deep/b.mp4",
    ]


def test_sources__unicode_separators_in_a_listing(tmp_path: Path) -> None:
    line = json.dumps({"uri": "a.mp4", "source": "one\u2028two\x85"}, ensure_ascii=False)
    write(tmp_path, a__mp4="a", sources__jsonl=line + "\r\n\n")
    (source,) = list_sources(tmp_path)
    assert source.source == "one\u2028two\x85"
