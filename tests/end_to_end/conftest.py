"""Run the demo once, by the command of the README, for several tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RISORIUS = [sys.executable, "-c", "from pipeline.cli import main; main()"]


@dataclass(frozen=True)
class DemoHome:
    """A home after ``risorius demo``, and what the command printed."""

    root: Path
    output: str

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return risorius(*words, home=self.root, check=check)

    def sql(self, query: str) -> list[dict[str, Any]]:
        return json.loads(self.run("sql", query, "--json").stdout)


def risorius(*words: str, home: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command as a user would, in a process of its own."""
    done = subprocess.run(
        [*RISORIUS, *words, "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )
    if check:
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoHome]:
    root = tmp_path_factory.mktemp("demo") / "home"
    try:
        done = risorius("demo", home=root)
        yield DemoHome(root=root, output=done.stdout)
    finally:
        risorius("studio", "down", home=root, check=False)
