"""Ctrl-C prints one line without traceback; the next run continues."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.conftest import RISORIUS, risorius
from tests.media_files import CARPHONE


@pytest.mark.slow
def test_ctrl_c_stops_with_one_line_and_the_next_run_finishes(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    whole = CARPHONE.read_bytes()
    for number in range(6):
        # Trailing bytes make six videos of one; the container ends before them.
        (videos / f"{number}.mp4").write_bytes(whole + bytes([number]))
    home = tmp_path / "home"
    process = subprocess.Popen(
        [*RISORIUS, "ingest", str(videos), "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("faces 1/6"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, rest
    assert "Traceback" not in rest
    assert "run the same command again" in rest
    done = risorius("ingest", str(videos), home=home)
    assert "kept" in done.stdout
    # What was finished before the interrupt is not done again.
    assert "faces 6/6" not in done.stderr
    assert "120" in next(row for row in done.stdout.splitlines() if row.startswith("faces"))
