"""Killing the demo at random moments and running it again ends like one clean run."""

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

KILLS = 5
SEED = 20261121


@pytest.mark.slow
@pytest.mark.studio
@pytest.mark.timeout(900)
def test_five_kills_and_a_last_run_end_like_a_clean_run(demo: DemoHome, tmp_path: Path) -> None:
    home = tmp_path / "home"
    moments = random.Random(SEED)
    killed = 0
    try:
        for _ in range(KILLS):
            killed += _killed_after(home, seconds=moments.uniform(2.0, 45.0))
        last = risorius("demo", home=home)
        assert "release" in last.stdout
        assert end_state(home) == end_state(demo.root)
    finally:
        risorius("studio", "down", home=home, check=False)
    assert killed >= 3, "the demo ended before most kills: draw earlier moments"


def _killed_after(home: Path, *, seconds: float) -> bool:
    """Start the demo in a process group of its own and SIGKILL the whole group."""
    process = subprocess.Popen(
        [*RISORIUS, "demo", "--home", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True
