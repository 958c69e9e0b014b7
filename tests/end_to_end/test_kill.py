"""A demo killed at random points and run again ends like a clean run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import RISORIUS, DemoHome, risorius
from tests.end_to_end.state import end_state

SEED = 20261121

MOMENTS = (
    # the line that begins a phase, and the seconds after it among which one is drawn
    ("1 video into rated faces", 7.0),
    ("2 faces into Label Studio", 15.0),
    ("3 simulated raters vote", 3.0),
    ("3 simulated raters vote", 3.0),
    ("4 votes into soft labels", 4.0),
)


@pytest.mark.slow
@pytest.mark.studio
@pytest.mark.timeout(900)
def test_five_kills_and_a_last_run_end_like_a_clean_run(demo: DemoHome, tmp_path: Path) -> None:
    home = tmp_path / "home"
    chance = random.Random(SEED)
    try:
        killed = [
            _killed(home, line=line, seconds=chance.uniform(0.0, span)) for line, span in MOMENTS
        ]
        last = risorius("demo", home=home)
        assert "release" in last.stdout
        assert end_state(home) == end_state(demo.root)
    finally:
        risorius("studio", "down", home=home, check=False)
    assert all(killed), f"a run ended before its kill: {killed}"


def _killed(home: Path, *, line: str, seconds: float) -> bool:
    """Start the demo; SIGKILL its process group ``seconds`` after ``line``."""
    process = subprocess.Popen(
        [*RISORIUS, "demo", "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert any(text.startswith(line) for text in process.stdout), f"no line {line!r}"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True
