"""Skipping unused frames does not change the sampled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.video import reader
from pipeline.video.reader import Frame, sample
from tests import media_files

CODINGS = {
    "b-frames": ("libx264", {"b_strategy": "0", "bf": "3"}),
    "b-pyramid": ("libx264", {"x264-params": "bframes=8:b-pyramid=normal:b-adapt=0"}),
    "no b-frames": ("libx264", {"bf": "0"}),
    "open groups": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0"}),
    "hevc": ("libx265", {}),
    "mpeg4": ("mpeg4", {"bf": "2"}),
}


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("coded")
    images = media_files.patterns(70, height=64, width=80)
    made = {
        name: media_files.coded(folder / f"{number}.mkv", images, codec=codec, options=options)
        for number, (name, (codec, options)) in enumerate(CODINGS.items())
    }
    images = media_files.patterns(12, height=64, width=80)
    times = [0, 40, 80, 120, 900, 940, 980, 2000, 2040, 2700, 2701, 2740]
    made["uneven times"] = media_files.coded(folder / "vfr.mkv", images, times=times)
    made["time goes back"] = media_files.joined(folder / "back.ts", [images, images, images])
    return made


def read(path: Path, fps: float) -> list[Frame]:
    return list(sample(str(path), fps=fps))


@pytest.mark.parametrize("name", [*CODINGS, "uneven times", "time goes back"])
@pytest.mark.parametrize("fps", [0.7, 2.0, 3.3, 100.0])
def test_sample__equals_decoding_every_frame(
    coded: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, fps: float
) -> None:
    some = read(coded[name], fps)
    monkeypatch.setattr(reader.StreamDecoder, "_may_skip", lambda self: False)
    everything = read(coded[name], fps)
    assert [frame.index for frame in some] == [frame.index for frame in everything]
    assert [frame.time_s for frame in some] == [frame.time_s for frame in everything]
    for one, other in zip(some, everything, strict=True):
        assert np.array_equal(one.image, other.image)


def test_stream_decoder__skips_b_frames(coded: dict[str, Path]) -> None:
    from pipeline.video.container import open_container, video_stream

    with open_container(str(coded["b-frames"])) as container:
        ticks = reader.SampleTimes(1.0)
        frames = reader.StreamDecoder(container, video_stream(container), times=ticks)
        came = 0
        for _, time_s, _ in frames.frames():
            came += 1
            ticks.take(time_s)
        assert frames.frames_seen == 70
    assert came < 50


def test_sample__clock_that_restarts(coded: dict[str, Path]) -> None:
    frames = read(coded["time goes back"], 5.0)
    # Three recordings of twelve frames, ten a second.
    assert [frame.index for frame in frames] == list(range(0, 36, 2))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(18) * 0.2, abs=2e-3)


@pytest.mark.parametrize(
    ("fps", "times", "taken"),
    [
        (5.0, [0.0, 0.1, 0.2, 0.3, 0.4], [0, 2, 4]),
        (5.0, [0.0, 0.19995, 0.39991], [0, 1, 2]),
        (5.0, [0.0, 0.1, 1.05, 1.1, 1.2], [0, 2, 4]),
        (1.0, [0.0, 5.0, 5.5, 6.1], [0, 1, 3]),
        (5.0, [0.0, 0.4, 0.1, 0.5, 0.6], [0, 1, 4]),
    ],
)
def test_sample_times__take(fps: float, times: list[float], taken: list[int]) -> None:
    ticks = reader.SampleTimes(fps)
    assert [n for n, time_s in enumerate(times) if ticks.take(time_s)] == taken
