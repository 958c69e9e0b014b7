"""SIGKILL during an erasure: the next run ends like an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.warehouse.people_home import people_home, release
from warehouse import releases
from warehouse.privacy import erase
from warehouse.storage import tables
from warehouse.storage.home import Home

KILLED = """
import os, signal, sys
from warehouse.privacy import erase
from warehouse.storage.home import Home

left = int(sys.argv[2])
def watch(event, arguments):
    global left
    if event in ("os.rename", "os.remove"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
erase.forget(Home.at(sys.argv[1]), "subject", "ann")
"""


def everything(home: Home) -> dict[str, bytes]:
    return {
        str(path.relative_to(home.root)): path.read_bytes()
        for path in sorted(home.root.rglob("*"))
        if path.is_file() and path.name not in (".forgetting-lock", ".lock", "salt")
    }


@pytest.mark.parametrize(
    "step", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 9, 14, 20, 26, 32))]
)
def test_forget__resumes_after_sigkill(home: Home, tmp_path: Path, step: int) -> None:
    people_home(home)
    release(home)
    other = people_home(Home.at(tmp_path / "other"))
    release(other)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(home.root), str(step)], check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    # Meanwhile readers find complete versions only.
    assert all(not releases.verify(one.path) for one in releases.list_releases(home))
    assert erase.forget(home, "subject", "ann").verification.complete
    erase.forget(other, "subject", "ann")
    names = ("faces", "tracks", "videos", "soft_labels", "annotations", "identities", "audits")
    for name in names:
        mine, theirs = (tables.read(one, name) for one in (home, other))
        assert mine.drop("uri", strict=False).equals(theirs.drop("uri", strict=False)), name
    assert [one.version for one in releases.list_releases(home)] == ["v1.1"]
    mine, theirs = everything(home), everything(other)
    stones = {path for path in mine | theirs if path.startswith("tables/tombstones/")}
    assert mine.keys() - stones == theirs.keys() - stones
    for path in theirs:
        if path.startswith("releases/"):
            assert mine[path] == theirs[path], path
    people = pl.col("what").str.starts_with("subject-")
    assert tables.read(home, "tombstones").filter(people).height == 1
