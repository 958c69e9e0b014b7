"""Tables as Parquet files, with concurrent and killed writers."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from warehouse.errors import SettingsError, TableError
from warehouse.storage import tables
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES

WRITER = """
import sys, polars as pl
from warehouse.storage import tables
from warehouse.storage.home import Home
home, who, times = Home.at(sys.argv[1]), sys.argv[2], int(sys.argv[3])
queue = pl.DataFrame({"face_id": [f"{who}-{i}" for i in range(20000)], "round": 0, "priority": 0.5,
                      "reason": "coverage", "wanted_votes": 3})
print("ready", flush=True)
for turn in range(times):
    tables.write(home, "queue", queue.with_columns(round=turn % 4), part=f"{who}-{turn % 4}")
    tables.write(home, "queue", queue.with_columns(round=4), part=f"{who}-last")
"""


def queue(*faces: str, number: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "face_id": list(faces),
            "round": number,
            "priority": 0.5,
            "reason": "coverage",
            "wanted_votes": 3,
        }
    )


def tracks(batch: str, *names: str) -> pl.DataFrame:
    kinds = TABLES["tracks"].schema
    rows = [{"track_id": name, "video_id": name, "batch": batch} for name in names]
    return pl.DataFrame([row | dict.fromkeys(kinds.keys() - row.keys()) for row in rows]).cast(
        dict(kinds)
    )


def test_read__table_without_files(home: Home) -> None:
    for name, table in TABLES.items():
        assert tables.read(home, name).schema == table.schema
    assert tables.parts(home, "faces") == set()


def test_write__replaces_only_its_part(home: Home) -> None:
    tables.write(home, "queue", queue("a", "b"), part="one")
    tables.write(home, "queue", queue("c"), part="two")
    tables.write(home, "queue", queue("a"), part="one", metadata={"fingerprint": "9"})
    assert sorted(tables.read(home, "queue")["face_id"]) == ["a", "c"]
    assert tables.parts(home, "queue") == {"one", "two"}
    assert tables.metadata(home, "queue", part="one")["fingerprint"] == "9"
    assert tables.metadata(home, "queue", part="absent") == {}
    tables.remove(home, "queue", part="one")
    tables.remove(home, "queue", part="one")
    assert tables.read(home, "queue")["face_id"].to_list() == ["c"]


def test_read__numeric_batch_names_stay_text(home: Home) -> None:
    for batch in ("0012", "12", "1e3"):
        tables.write(home, "tracks", tracks(batch, f"t-{batch}"), part="v", batch=batch)
    everything = tables.read(home, "tracks")
    assert everything.schema["batch"] == pl.String
    assert sorted(everything["batch"]) == ["0012", "12", "1e3"]
    assert tables.read(home, "tracks", batch="0012")["track_id"].to_list() == ["t-0012"]


@pytest.mark.parametrize("folder", ["we[ir]d", "star*", "what?", "o'quote", "a b"])
def test_read__odd_folder_names(tmp_path: Path, folder: str) -> None:
    home = Home.at(tmp_path / folder)
    tables.write(home, "queue", queue("a"), part="one")
    tables.write(home, "tracks", tracks("b", "t"), part="v", batch="b")
    assert tables.read(home, "queue").height == tables.read(home, "tracks").height == 1


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (queue("a").drop("reason"), "missing \\['reason'\\]"),
        (queue("a").with_columns(extra=1), "unknown \\['extra'\\]"),
        (queue("a").with_columns(wanted_votes=pl.lit("three")), "queue have the wrong types"),
        (queue("a", "a"), "repeat a key"),
    ],
)
def test_write__refuses_wrong_rows(home: Home, frame: pl.DataFrame, says: str) -> None:
    tables.write(home, "queue", queue("old"), part="one")
    with pytest.raises(TableError, match=says):
        tables.write(home, "queue", frame, part="one")
    assert tables.read(home, "queue")["face_id"].to_list() == ["old"]


def test_read_write__refuse_wrong_arguments(home: Home) -> None:
    with pytest.raises(TableError, match="Unknown table"):
        tables.read(home, "nonsense")
    with pytest.raises(TableError, match="queue has no batches"):
        tables.write(home, "queue", queue("a"), part="one", batch="b")
    with pytest.raises(TableError, match="tracks needs a batch"):
        tables.write(home, "tracks", tracks("b", "t"), part="v")
    with pytest.raises(SettingsError, match="batch name"):
        tables.read(home, "tracks", batch="../x")
    for part in ("", "../x", ".hidden"):
        with pytest.raises(TableError, match="not a file name"):
            tables.write(home, "queue", queue("a"), part=part)


@pytest.mark.parametrize("keep", [0, 40, -30])
def test_read__names_the_damaged_file(home: Home, keep: int) -> None:
    tables.write(home, "queue", queue("a"), part="sound")
    path = tables.write(home, "queue", queue("b"), part="hurt")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TableError, match=r"damaged .*hurt\.parquet") as caught:
        tables.read(home, "queue")
    assert "sound" not in str(caught.value)
    assert tables.damaged(home, "queue") == [path]
    assert tables.metadata(home, "queue", part="hurt") == {}


def test_read__file_without_a_newer_column(home: Home) -> None:
    path = tables.write(home, "queue", queue("a"), part="one")
    pl.read_parquet(path).drop("wanted_votes").with_columns(gone=1).write_parquet(path)
    row = tables.read(home, "queue").row(0, named=True)
    assert (row["face_id"], row["wanted_votes"]) == ("a", None)


def start(home: Home, who: str, times: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home.root), who, str(times)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_write__two_processes(home: Home) -> None:
    writers = [start(home, who, 8) for who in ("left", "right")]
    # A reader meanwhile never sees a partial file.
    while any(writer.poll() is None for writer in writers):
        assert tables.read(home, "queue").height % 20000 == 0
    assert [writer.wait() for writer in writers] == [0, 0]
    found = tables.read(home, "queue")
    assert found.height == 2 * 5 * 20000
    assert not found.select("face_id", "round").is_duplicated().any()


def test_write__killed_process(home: Home) -> None:
    chance = random.Random(7)
    for _ in range(4):
        writer = start(home, "victim", 10_000)
        time.sleep(chance.uniform(0.01, 0.15))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        assert tables.read(home, "queue").height % 20000 == 0
        assert tables.damaged(home, "queue") == []
    tables.write(home, "queue", queue("after"), part="after")
    assert "after" in tables.parts(home, "queue")
