"""Memory is bounded in the length and size of a video."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import media_files

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak"
)

_RUN = """
import sys
from pathlib import Path
from pipeline.faces import detect, quality
from pipeline.faces.extract import extract
detector = detect.load(threshold=0.5)
found = extract(
    sys.argv[1], video_id="v" * 16, batch="b", subject_id=None, detector=detector,
    gate=quality.Gate(), fps=float(sys.argv[2]), save=lambda kind, image: kind,
)
# Not ru_maxrss, which on Linux begins with what the process was forked from.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(found.faces.height, status["VmHWM"].split()[0])
"""


def peak(path: Path, *, fps: float) -> tuple[int, float]:
    """Faces found, and the most memory the process held, in MB."""
    said = subprocess.run(
        [sys.executable, "-c", _RUN, str(path), str(fps)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    faces, kilobytes = said.stdout.split()[-2:]
    return int(faces), int(kilobytes) / 1024


def looped(path: Path, *, times: int) -> Path:
    """The sample call again and again, in one container, its packets copied."""
    import av

    with av.open(str(path), "w") as writing:
        copy, length = None, 0
        for turn in range(times):
            with av.open(str(media_files.CARPHONE)) as reading:
                stream = reading.streams.video[0]
                copy = copy or writing.add_stream_from_template(stream)
                length = stream.duration
                for packet in reading.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts += turn * length
                    packet.dts += turn * length
                    packet.stream = copy
                    writing.mux(packet)
    return path


@pytest.mark.slow
def test_extract__memory_independent_of_length(tmp_path: Path) -> None:
    few, short = peak(looped(tmp_path / "short.mkv", times=2), fps=1.0)
    many, long = peak(looped(tmp_path / "long.mkv", times=80), fps=1.0)
    assert many > 35 * few
    # 320 faces' rows are there in the end, and allocators are never quite even.
    assert long < short + 40


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "limit"), [(1920, 1080, 1500), (7680, 4320, 2500)])
def test_extract__memory_of_large_frames(
    tmp_path: Path, width: int, height: int, limit: int
) -> None:
    frames = media_files.patterns(12 if width > 4000 else 40, height=height, width=width)
    path = media_files.coded(tmp_path / "large.mkv", frames, codec="mpeg4")
    del frames
    _, megabytes = peak(path, fps=10.0)
    assert megabytes < limit
