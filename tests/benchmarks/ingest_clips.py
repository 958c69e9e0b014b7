"""Make the benchmark's videos from sample clips inside packages."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from tests.benchmarks.ingest_cuts import sequence, write, zoom
from tests.media_files import CARPHONE, SIX_PEOPLE, coded

BIKES = CARPHONE.parent / "bikes.mp4"


def clips(folder: Path, *, quick: bool) -> dict[str, Path]:
    """Return the benchmark videos by name."""
    with av.open(str(CARPHONE)) as container:
        call = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    call = call[: 60 if quick else 120]
    large = [_padded(frame, width=1920, height=1080) for frame in call]
    photo = cv2.imread(str(SIX_PEOPLE))[:, :, ::-1]
    people = [cv2.resize(frame, (1280, 720)) for frame in _glide(photo, 75 if quick else 200)]
    usual = {"crf": "20", "preset": "medium"}
    return {
        "call, 176 x 144": CARPHONE,
        "call, 1920 x 1080": coded(folder / "call.mp4", large, fps=30, options=usual),
        "six people, 1280 x 720": coded(folder / "people.mp4", people, fps=25, options=usual),
        "cyclists, 640 x 272": BIKES,
    }


def short_videos(folder: Path, n: int) -> Path:
    """A folder of ``n`` videos of half a second, no two of the same bytes."""
    folder.mkdir(parents=True)
    with av.open(str(CARPHONE)) as container:
        call = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number in range(n):
        first = number % (len(call) - 15)
        frames = call[first : first + 15]
        frames[0] = frames[0].copy()
        frames[0][:2, :64] = np.unpackbits(np.array([number], ">u8").view(np.uint8))[:, None] * 255
        coded(folder / f"{number:05}.mp4", frames, codec="mpeg4", fps=30)
    return folder


def long_video(path: Path, *, minutes: float) -> tuple[Path, int]:
    """Join shots repeatedly; return the video and its number of cuts."""
    frames, cuts = sequence(7, 60)
    once = write(path.with_name("once.mp4"), frames)
    turns = max(1, round(minutes * 60 / (len(frames) / 25)))
    with av.open(str(path), "w") as writing:
        copy = None
        for turn in range(turns):
            with av.open(str(once)) as reading:
                stream = reading.streams.video[0]
                copy = copy or writing.add_stream_from_template(stream)
                shift = int(turn * Fraction(len(frames), 25) / stream.time_base)
                for packet in reading.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = copy
                        writing.mux(packet)
    return path, turns * (len(cuts) + 1) - 1


def _padded(image: np.ndarray, *, width: int, height: int) -> np.ndarray:
    scale = height / image.shape[0]
    large = cv2.resize(image, (round(image.shape[1] * scale), height), interpolation=2)
    side = width - large.shape[1]
    return cv2.copyMakeBorder(large, 0, 0, side // 2, side - side // 2, cv2.BORDER_REFLECT)


def _glide(photo: np.ndarray, n: int) -> list[np.ndarray]:
    return list(zoom(photo, np.random.default_rng(3), n))
