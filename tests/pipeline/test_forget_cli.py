"""``risorius forget`` and ``release diff`` on a home without servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warehouse.people_home import people_home, release
from warehouse import releases
from warehouse.storage.home import Home

RISORIUS = [sys.executable, "-c", "from pipeline.cli import main; main()"]


def run(home: Home, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RISORIUS, *words, "--home", str(home.root)],
        capture_output=True, text=True, timeout=120, check=False, input=stdin,
    )  # fmt: skip


@pytest.mark.parametrize("words", [(), ("--subject", "ann", "--video", "x")])
def test_forget__needs_subject_or_video(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(Home.at(tmp_path), "forget", *words)
    assert done.returncode == 2
    assert "either --subject or --video" in done.stderr


def test_forget__confirms_erases_and_verifies(tmp_path: Path) -> None:
    home = people_home(Home.at(tmp_path / "home"))
    release(home)
    planned = json.loads(run(home, "forget", "--subject", "ann", "--dry-run", "--json").stdout)
    assert (planned["faces"], len(planned["videos"])) == (9, 2)
    refused = run(home, "forget", "--subject", "ann", stdin="n\n")
    assert refused.returncode == 1
    assert [one.version for one in releases.list_releases(home)] == ["v1"]
    done = run(home, "forget", "--subject", "ann", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["proved"] is True
    assert report["releases"] == {"faces v1": "v1.1"}
    again = run(home, "forget", "--subject", "ann", "--yes")
    assert (again.returncode, "forgotten on" in again.stderr) == (1, True)
    compared = run(home, "release", "diff", "v1", "v1.1")
    assert "v1.1, which replaced it" in compared.stderr
