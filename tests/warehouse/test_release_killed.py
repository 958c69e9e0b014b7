"""SIGKILL during a build, and two builds at once, in real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from warehouse import releases
from warehouse.storage import tables
from warehouse.storage.home import Home

BUILDER = """
import sys
sys.path.insert(0, sys.argv[2])
from conftest import release_inputs
from warehouse import releases
from warehouse.storage.home import Home
home = Home.at(sys.argv[1])
print("ready", flush=True)
release = releases.build(home, **release_inputs(home, {"ann": 60, "bob": 9}), shard_bytes=4000)
print(release.version, release.created)
"""


def start(home: Home) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(home.root), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )


def state(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file): (file.stat().st_mtime_ns, file.read_bytes())
        for file in path.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("shards", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_build__killed(home: Home, inputs: Callable[..., dict[str, Any]], shards: int) -> None:
    first = releases.build(home, **inputs(home, {"ann": 4}))
    before = state(first.path)
    builder = start(home)
    folder = home.releases / "faces"
    deadline = time.monotonic() + 60
    while len(list(folder.glob(".building-*/data/*"))) < shards and builder.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    builder.send_signal(signal.SIGKILL)
    assert builder.wait() == -signal.SIGKILL
    assert list(folder.glob(".building-*")) != []
    assert [release.version for release in releases.list_releases(home)] == ["v1"]
    assert len(releases.load("faces", home=home)["train"]) == 4
    second = releases.build(home, **inputs(home, {"ann": 6}))
    assert (second.version, second.created) == ("v2", True)
    assert list(folder.glob(".building-*")) == []
    assert state(first.path) == before
    assert releases.verify(second.path) == []


def test_build__two_at_once(home: Home) -> None:
    builders = [start(home) for _ in range(2)]
    said = sorted((builder.communicate()[0].split("\n")[1]) for builder in builders)
    assert said == ["v1 False", "v1 True"]
    assert releases.verify(home.releases / "faces" / "v1") == []
    assert tables.read(home, "releases").height == 1
