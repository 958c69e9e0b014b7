"""Command ``risorius models``: terms are accepted before an install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()", "models"]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_models_command__terms_first(tmp_path: Path) -> None:
    refused = _run("add", "buffalo_l", "--home", str(tmp_path))
    assert refused.returncode == 1
    assert "InsightFace-non-commercial" in refused.stderr
    assert "--accept" in refused.stderr
    assert not (tmp_path / "models").exists()


def test_models_command__list_text_and_json(tmp_path: Path) -> None:
    people, machines = (_run("list", "--home", str(tmp_path), *more) for more in ([], ["--json"]))
    assert "finds faces" in people.stdout
    shown = {row["name"]: row for row in json.loads(machines.stdout)}
    assert shown["centerface"]["licence"] == "MIT"
    assert shown["centerface"]["damaged"] == []
