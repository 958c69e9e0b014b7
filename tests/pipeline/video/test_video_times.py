"""Frames of streams without presentation times get true ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video.reader import Outcome, probe, sample
from tests import media_files

RATE = Fraction(30000, 1001)
N = 90
B_FRAMES = {"b_strategy": "0", "bf": "3"}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return media_files.patterns(N, height=64, width=80)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory, images: list[np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("timed") / "timed.mp4"
    return media_files.coded(path, images, fps=RATE, options=B_FRAMES)


def without_presentation_times(path: Path, source: Path) -> Path:
    """Copy packets with their decoding times alone, as careless muxers do."""
    with av.open(str(source)) as original, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                packet.pts = packet.dts = packet.dts + 5 * 512
                container.mux(packet)
    return path


def check(path: Path, timed: Path) -> None:
    """Compare with the same frames at their written times."""
    expected = list(sample(str(timed), fps=100.0))
    assert [frame.time_s for frame in expected] == pytest.approx(np.arange(N) / float(RATE))
    outcome = Outcome()
    frames = list(sample(str(path), fps=100.0, outcome=outcome))
    assert [frame.index for frame in frames] == list(range(N))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(N) / RATE, abs=2e-3)
    assert outcome.duration_s == pytest.approx(N / RATE, abs=2e-3)
    for fps in (5.0, 1.0):
        few = [frame.index for frame in sample(str(path), fps=fps)]
        assert few == [frame.index for frame in sample(str(timed), fps=fps)]
    for one, other in zip(frames, expected, strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 12


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "libx264"), ("a.h264", "libx264"), ("a.hevc", "libx265"), ("a.m4v", "mpeg4"),
     ("b.avi", "mpeg4"), ("laced.avi", "libx264")],
)  # fmt: skip
def test_sample__container_without_times(
    tmp_path: Path, images: list[np.ndarray], timed: Path, name: str, codec: str
) -> None:
    laced = {"x264-params": "tff=1:bframes=2:b-adapt=0"}
    options = {"libx264": B_FRAMES, "libx265": {}, "mpeg4": {"bf": "2"}}[codec]
    options = laced if name == "laced.avi" else options
    path = media_files.coded(tmp_path / name, images, codec=codec, fps=RATE, options=options)
    check(path, timed)
    assert probe(str(path)).fps == pytest.approx(float(RATE))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
def test_sample__decoding_times_only(tmp_path: Path, timed: Path, suffix: str) -> None:
    check(without_presentation_times(tmp_path / f"a.{suffix}", timed), timed)


def test_sample__avi_with_dropped_frames(tmp_path: Path, images: list[np.ndarray]) -> None:
    """Ten frames, then a gap of twenty, three times; B-frames within each ten."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        stream.options = {"b_strategy": "0", "bf": "2"}
        for index, image in enumerate(images):
            if index % 30 < 10:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info, frames = probe(str(path)), list(sample(str(path)))
    assert info.duration_s is not None
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)
    assert max(times) < info.duration_s < 3.0
    assert len(times) == 6
