"""Cut the video and sound of segments, exact to the frame."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.clips import audio
from pipeline.faces.box_track import BoxTrack, hide_others
from pipeline.video import reader
from warehouse.errors import MediaError
from warehouse.storage import atomic

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

_TIME_BASE = Fraction(1, 90_000)
_ALL_FRAMES = 1000.0
"""Sampling rate that no video reaches: every frame is taken."""


@dataclass(frozen=True)
class Cut:
    """A file to write.

    Attributes:
        start_s, end_s: the frames with ``start_s <= t < end_s`` are in it.
        subjects: tracks whose faces stay visible if bystanders are hidden.
    """

    path: Path
    start_s: float
    end_s: float
    subjects: frozenset[str]


def cut_videos(
    source: str,
    cuts: Collection[Cut],
    *,
    tracks: Mapping[str, BoxTrack],
    blur: bool,
    samples: np.ndarray | None = None,
) -> dict[Path, str]:
    """Write an H.264 mp4 per cut in one pass over the video.

    Frames keep their own times, from 0. Memory holds the encoded bytes of the cuts that are open.

    Args:
        tracks: faces of the video, for hiding bystanders.
        blur: hide every face that is not of the cut's subjects.
        samples: int16[n] at ``audio.RATE`` from the first frame; None writes no sound.

    Returns:
        Path to error of the cuts that could not be written wholly.
    """
    waiting = sorted(cuts, key=lambda one: (one.start_s, one.end_s, one.path))
    running: list[_Encoder] = []
    failed: dict[Path, str] = {}

    def close(one: _Encoder) -> None:
        if not one.save():
            failed[one.cut.path] = "no_frame: no frame lies in it"

    try:
        for frame in reader.sample(source, fps=_ALL_FRAMES):
            while waiting and waiting[0].start_s <= frame.time_s + 1e-6:
                running.append(_Encoder(waiting.pop(0), samples))
            for one in [one for one in running if one.cut.end_s <= frame.time_s + 1e-6]:
                running.remove(one)
                close(one)
            if not (waiting or running):
                break
            for one in running:
                one.add(frame, tracks, blur=blur)
    except MediaError as error:
        # What was decoded before is written; a cut that had not begun has nothing to show.
        failed |= {one.path: f"{error.got}" for one in waiting}
        waiting = []
    for one in running:
        close(one)
    return failed | {one.path: "no_frame: no frame lies in it" for one in waiting}


def cut_sound(path: Path, samples: np.ndarray, *, start_s: float, end_s: float) -> bool:
    """Write 16 kHz mono FLAC; return False if there is no sound in that time."""
    part = audio.cut(samples, start_s=start_s, end_s=end_s)
    if not len(part):
        return False
    audio.write(path, part)
    return True


class _Encoder:
    """One mp4 being encoded in memory."""

    def __init__(self, cut: Cut, samples: np.ndarray | None) -> None:
        self.cut, self._samples = cut, samples
        self._data = io.BytesIO()
        self._container: OutputContainer | None = None
        self._video: VideoStream | None = None
        self._sound: Any = None
        self._first: float | None = None
        self._last = -1

    def add(self, frame: reader.Frame, tracks: Mapping[str, BoxTrack], *, blur: bool) -> None:
        import av

        if self._container is None:
            self._open(*frame.size)
        assert self._container is not None
        assert self._video is not None
        if self._first is None:
            self._first = frame.time_s
        pts = round((frame.time_s - self._first) / _TIME_BASE)
        if pts <= self._last:
            return
        self._last = pts
        image = frame.image
        if blur:
            image = hide_others(image, tracks, frame.time_s, subjects=self.cut.subjects)
        image = np.ascontiguousarray(image[: self._video.height, : self._video.width])
        encoded = av.VideoFrame.from_ndarray(image, format="rgb24")
        encoded.pts, encoded.time_base = pts, _TIME_BASE
        self._container.mux(self._video.encode(encoded))

    def save(self) -> bool:
        """Write the file; return False if there was no frame."""
        if self._container is None or self._video is None:
            return False
        self._container.mux(self._video.encode(None))
        if self._samples is not None and self._first is not None:
            # From the first frame, so that lips and voice stay together.
            part = audio.cut(self._samples, start_s=self._first, end_s=self.cut.end_s)
            self._add_sound(part)
        self._container.close()
        atomic.write_bytes(self.cut.path, self._data.getvalue())
        return True

    def _open(self, width: int, height: int) -> None:
        import av

        self._container = av.open(self._data, "w", format="mp4")
        self._container.flags |= 0x0400  # bitexact: equal frames give equal bytes
        options = {"preset": "superfast", "crf": "18", "threads": "1"}
        stream: Any = self._container.add_stream("libx264", rate=25, options=options)
        # H.264 in yuv420p has even sides; an odd last row or column is cut off.
        stream.width, stream.height = max(2, width // 2 * 2), max(2, height // 2 * 2)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = _TIME_BASE
        self._video = stream
        if self._samples is not None:
            self._sound = self._container.add_stream("aac", rate=audio.RATE, layout="mono")

    def _add_sound(self, samples: np.ndarray) -> None:
        import av

        assert self._container is not None
        size = 1024
        for start in range(0, len(samples), size):
            part = samples[start : start + size].astype(np.float32)[None] / 32768
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", "mono")
            frame.sample_rate, frame.pts = audio.RATE, start
            self._container.mux(self._sound.encode(frame))
        self._container.mux(self._sound.encode(None))
