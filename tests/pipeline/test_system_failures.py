"""Full and read-only disks, memory, clocks and rights of files."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from pipeline import cli, settings
from pipeline.ingest import register
from tests.media_files import SIX_PEOPLE, pattern
from warehouse.errors import DiskError, SettingsError, system_failure
from warehouse.storage import media, tables
from warehouse.storage.home import Home

RISORIUS = [sys.executable, "-c", "from pipeline.cli import main; main()"]


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/data/disk full.mp4")


def wrapped(error: Exception) -> Exception:
    try:
        raise RuntimeError("a step failed") from error
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (os_error(errno.ENOSPC), "The disk is full: No space left on device: /data/"),
        (os_error(errno.EDQUOT), "The disk is full"),
        (sqlite3.OperationalError("database or disk is full"), "The disk is full"),
        (pl.exceptions.ComputeError("No space left on device (os error 28)"), "The disk is full"),
        (os_error(errno.EROFS), "The disk can only be read"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "The disk can only"),
        (os_error(errno.EACCES), "A file may not be read or written"),
        (os_error(errno.EMFILE), "Too many files are open"),
        (os_error(errno.EIO), "The disk reports an error"),
        (os_error(errno.ENOENT), "A file cannot be used"),
        (MemoryError(), "There is not enough memory: MemoryError"),
        (os_error(errno.ENOMEM), "There is not enough memory"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "The network failed"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
def test_main__one_sentence_and_no_bug(
    error: Exception,
    sentence: str,
    wrap: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise wrap(error)  # type: ignore[operator]

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith(f"risorius: {sentence}")
    assert len(said.splitlines()) == 1
    assert "a bug" not in said


def test_system_failure__other_errors_are_bugs() -> None:
    assert system_failure(KeyError("the name of a column: disk is not in it")) is None
    assert system_failure(wrapped(ValueError("x"))) is None


def test_find_faces__full_disk_condemns_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.at(tmp_path / "home")
    (home.inbox / "day").mkdir(parents=True)
    (home.inbox / "day" / "six.jpg").write_bytes(SIX_PEOPLE.read_bytes())
    register.register(home, "day", workers=1)
    find = partial(register.find_faces, home, "day", register.FaceOptions(), workers=1)

    def full(home: Home, kind: str, image: object) -> str:
        raise os_error(errno.ENOSPC)

    with monkeypatch.context() as patch:
        patch.setattr(media, "store", full)
        with pytest.raises(DiskError, match="The disk is full"):
            find()
    assert tables.read(home, "videos")["verdict"].to_list() == ["kept"]
    assert find().done == 1
    assert tables.read(home, "faces").height > 0


def test_find_faces__row_erased_meanwhile(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    row = {"video_id": "gone", "batch": "day", "uri": str(SIX_PEOPLE), "subject_id": None}
    assert register._extract_one(row, home=home, options=register.FaceOptions()) == "erased"
    assert not home.media.exists()


def test_ingest__files_are_for_their_owner(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), pattern(0))
    done = subprocess.run(
        [*RISORIUS, "ingest", str(tmp_path / "in"), "--home", str(tmp_path / "home")],
        capture_output=True, text=True, timeout=240, check=False, umask=0o022,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    assert len(files) > 10
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_umask__is_a_setting() -> None:
    before = os.umask(0o022)
    try:
        settings.load(umask="027").apply_umask()
        assert os.umask(0o022) == 0o027
    finally:
        os.umask(before)
    with pytest.raises(SettingsError, match="umask"):
        settings.load(umask="everyone")


def test_clock__set_back(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    assert home.clock_warning() is None
    (home.tables / "faces").mkdir(parents=True)
    assert home.clock_warning() is None
    later = time.time() + 86_400
    os.utime(home.tables / "faces", (later, later))
    done = subprocess.run(
        [*RISORIUS, "sql", "select 1", "--home", str(home.root)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("The clock of this machine is behind: it says ")
