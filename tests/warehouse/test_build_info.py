"""Commit of this checkout, and hardware without host name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from warehouse import build_info


def git(folder: Path, *words: str) -> str:
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *name, *words], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own in which ``provenance`` believes to lie."""
    for name in ("warehouse/build_info.py", "tests/benchmarks/results/a.json", "other/code.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    monkeypatch.setattr(build_info, "__file__", str(tmp_path / "warehouse" / "build_info.py"))
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        pytest.param(None, "", id="as committed"),
        pytest.param("other/code.py", "+changes", id="code elsewhere"),
        pytest.param("tests/benchmarks/results/a.json", "", id="only a result"),
        pytest.param("new.txt", "", id="a file git does not know"),
    ],
)
def test_revision__commit_and_changes(checkout: Path, changed: str | None, mark: str) -> None:
    if changed:
        (checkout / changed).write_text("2")
    assert build_info.revision() == git(checkout, "rev-parse", "--short=12", "HEAD") + mark


def test_revision__no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_info, "__file__", str(tmp_path / "build_info.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert build_info.revision() == "unknown"


def test_hardware__no_host_name() -> None:
    import socket

    said = build_info.hardware()
    assert re.match(r"\d+ cores ", said)
    assert socket.gethostname() not in said
