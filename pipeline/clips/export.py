"""Short moving pictures of a track for people who judge it: ``media/clips/<track_id>.webm``."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.faces import anonymize
from pipeline.video import reader
from warehouse.errors import MediaError
from warehouse.storage import atomic

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

LONGEST_S = 8.0
"""Of a longer track, this much is shown."""

SIDE = 320
"""Longest side of the picture in pixels."""

FPS = 25.0

_MARGIN = 1.8
"""The picture shows this many times the width and height of the boxes in it."""

_BRIDGE_S = 1.0
"""Between two sights of a face this far apart it is taken to be on the way from one to the other;
after its last one it is still hidden where it was for half of that."""

_CLOCK = Fraction(1, 1000)


@dataclass(frozen=True)
class Window:
    """What is shown of a track: from when to when."""

    track_id: str
    start_s: float
    end_s: float


def window(track_id: str, times: np.ndarray, *, apex_s: float | None = None) -> Window:
    """The whole track, or ``LONGEST_S`` around its apex (its middle, where nothing moved).

    Args:
        times: float[n], seconds at which the track was seen, growing.
    """
    first, last = float(times[0]), float(times[-1])
    if last - first > LONGEST_S:
        middle = (first + last) / 2 if apex_s is None else apex_s
        first = min(max(first, middle - LONGEST_S / 2), last - LONGEST_S)
        last = first + LONGEST_S
    return Window(track_id, first, last)


def cut(path: str, windows: list[Window], faces: pl.DataFrame, folder: Path, *, blur: bool) -> int:
    """Write ``folder/<track_id>.webm`` for every window, in one pass through the video.

    VP8 without sound: people judge a face, not a voice. Each file is whole or not there.

    Args:
        faces: ``track_id, time_s, bbox`` of every face of the video, dropped ones too, so that
            ``blur`` hides everybody but the subject.

    Returns:
        how many were written: a video that breaks midway gives those that end before.
    """
    paths = {
        track: _Path.of(rows)
        for (track,), rows in faces.sort("time_s").partition_by("track_id", as_dict=True).items()
    }
    waiting = sorted(windows, key=lambda one: (one.start_s, one.track_id))
    running: list[_Cut] = []
    written = 0
    try:
        for frame in reader.sample(path, fps=FPS):
            while waiting and waiting[0].start_s <= frame.time_s + 1e-3:
                running.append(_Cut(waiting.pop(0), paths))
            for one in [one for one in running if one.window.end_s < frame.time_s - 1e-3]:
                running.remove(one)
                written += one.save(folder)
            if not (waiting or running):
                break
            for one in running:
                one.add(frame, paths, blur=blur)
    except MediaError:
        # Its faces came from what could be decoded, and so do its clips.
        pass
    return written + sum(one.save(folder) for one in running)


@dataclass(frozen=True)
class _Path:
    """Where a face is over time: float[n] seconds, float[n, 4] ``x1 y1 x2 y2``."""

    times: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Path:
        found = rows["bbox"].to_numpy().astype(float).reshape(-1, 4)
        return cls(
            rows["time_s"].to_numpy(), np.hstack([found[:, :2], found[:, :2] + found[:, 2:]])
        )

    def around(self, now: float) -> np.ndarray | None:
        """Box that holds the sights before and after; None while the face is not there."""
        after = int(np.searchsorted(self.times, now - 1e-3))
        near = [row for row in (after - 1, after) if 0 <= row < len(self.times)]
        near = [row for row in near if abs(self.times[row] - now) <= _BRIDGE_S / 2] or (
            near if len(near) == 2 and np.diff(self.times[near])[0] <= _BRIDGE_S else []
        )
        if not near:
            return None
        return np.concatenate([self.boxes[near, :2].min(axis=0), self.boxes[near, 2:].max(axis=0)])


class _Cut:
    """One clip being encoded, in memory: of bounded length it takes less than a megabyte."""

    def __init__(self, window: Window, paths: dict[str, _Path]) -> None:
        self.window = window
        own = paths[window.track_id]
        inside = (own.times >= window.start_s - 1e-3) & (own.times <= window.end_s + 1e-3)
        boxes = own.boxes[inside]
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        reach = (high - low).max() * _MARGIN / 2
        self.region = np.concatenate([(low + high) / 2 - reach, (low + high) / 2 + reach])
        self._data = io.BytesIO()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._last = -1

    def add(self, frame: reader.Frame, paths: dict[str, _Path], *, blur: bool) -> None:
        import av
        import cv2

        height, width = frame.image.shape[:2]
        left, top = np.clip(np.floor(self.region[:2]), 0, (width - 2, height - 2)).astype(int)
        right, bottom = np.clip(np.ceil(self.region[2:]), (left + 2, top + 2), (width, height))
        part = np.ascontiguousarray(frame.image[top : int(bottom), left : int(right)])
        if blur:
            part = self._hidden(part, paths, frame.time_s, shift=np.array([left, top] * 2))
        if self._container is None:
            self._open(part.shape[1], part.shape[0])
        assert self._container is not None
        assert self._stream is not None
        moment = round((frame.time_s - self.window.start_s) * 1000)
        if moment <= self._last:
            return
        self._last = moment
        size = (self._stream.width, self._stream.height)
        shown = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        picture = av.VideoFrame.from_ndarray(shown, format="rgb24")
        picture.pts, picture.time_base = moment, _CLOCK
        self._container.mux(self._stream.encode(picture))

    def save(self, folder: Path) -> bool:
        """Put the file in its place; False when there was nothing to show."""
        if self._container is None or self._stream is None:
            return False
        self._container.mux(self._stream.encode(None))
        self._container.close()
        atomic.write_bytes(folder / f"{self.window.track_id}.webm", self._data.getvalue())
        return True

    def _hidden(
        self, part: np.ndarray, paths: dict[str, _Path], now: float, *, shift: np.ndarray
    ) -> np.ndarray:
        own = paths[self.window.track_id].around(now)
        others = [
            box
            for track, path in paths.items()
            if track != self.window.track_id and (box := path.around(now)) is not None
        ]
        boxes = np.array([*others, *([own] if own is not None else [])], dtype=float)
        if not others:
            return part
        subject = len(others) if own is not None else -1
        return anonymize.blur_others(part, boxes=boxes - shift, subject=subject)

    def _open(self, width: int, height: int) -> None:
        import av

        scale = min(1.0, SIDE / max(width, height))
        self._container = av.open(self._data, "w", format="webm")
        self._container.flags |= 0x0400  # bitexact: the same pictures give the same bytes
        options = {"deadline": "good", "cpu-used": "4", "crf": "24", "threads": "1"}
        stream: Any = self._container.add_stream("libvpx", rate=round(FPS), options=options)
        stream.width = max(2, round(width * scale) // 2 * 2)
        stream.height = max(2, round(height * scale) // 2 * 2)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 600_000
        stream.codec_context.time_base = _CLOCK
        self._stream = stream
