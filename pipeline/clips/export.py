"""Write short videos of tracks for annotators."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.faces.box_track import BoxTrack, box_tracks, hide_others
from pipeline.video import reader
from warehouse.errors import MediaError
from warehouse.storage import atomic

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

LONGEST_S = 8.0
"""A longer track is cut to this length."""

SIDE = 320
"""Longest side of the video in pixels."""

FPS = 25.0

_MARGIN = 1.8
"""The video shows this many times the width and height of the boxes in it."""

_TIME_BASE = Fraction(1, 1000)


@dataclass(frozen=True)
class Window:
    """The time range of a track that its video shows."""

    track_id: str
    start_s: float
    end_s: float


def window(track_id: str, times: np.ndarray, *, apex_s: float | None = None) -> Window:
    """Select the whole track, or ``LONGEST_S`` around its apex.

    Args:
        times: float[n], seconds of the track's detections, increasing.
        apex_s: None selects the middle of the track.
    """
    first, last = float(times[0]), float(times[-1])
    if last - first > LONGEST_S:
        middle = (first + last) / 2 if apex_s is None else apex_s
        first = min(max(first, middle - LONGEST_S / 2), last - LONGEST_S)
        last = first + LONGEST_S
    return Window(track_id, first, last)


def write_videos(
    path: str, windows: list[Window], faces: pl.DataFrame, folder: Path, *, blur: bool
) -> int:
    """Write ``folder/<track_id>.webm`` for every window in one pass.

    VP8 without sound, so that annotators label the face and not the voice. Files are written
    atomically.

    Args:
        faces: ``track_id, time_s, bbox`` of every face of the video, dropped ones too, so that
            ``blur`` hides every face but the subject's.

    Returns:
        number of files written. A video that breaks midway gives the windows before.
    """
    tracks = box_tracks(faces)
    waiting = sorted(windows, key=lambda one: (one.start_s, one.track_id))
    running: list[_Encoder] = []
    written = 0
    try:
        for frame in reader.sample(path, fps=FPS):
            while waiting and waiting[0].start_s <= frame.time_s + 1e-3:
                running.append(_Encoder(waiting.pop(0), tracks))
            for one in [one for one in running if one.window.end_s < frame.time_s - 1e-3]:
                running.remove(one)
                written += one.save(folder)
            if not (waiting or running):
                break
            for one in running:
                one.add(frame, tracks, blur=blur)
    except MediaError:
        # The faces come from the frames that could be decoded; so do the videos.
        pass
    return written + sum(one.save(folder) for one in running)


class _Encoder:
    """Encoder of one short video in memory; it takes less than 1 MB."""

    def __init__(self, window: Window, tracks: dict[str, BoxTrack]) -> None:
        self.window = window
        own = tracks[window.track_id]
        inside = (own.times >= window.start_s - 1e-3) & (own.times <= window.end_s + 1e-3)
        boxes = own.boxes[inside]
        low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        reach = (high - low).max() * _MARGIN / 2
        self.region = np.concatenate([(low + high) / 2 - reach, (low + high) / 2 + reach])
        self._data = io.BytesIO()
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._last = -1

    def add(self, frame: reader.Frame, tracks: dict[str, BoxTrack], *, blur: bool) -> None:
        import av
        import cv2

        height, width = frame.image.shape[:2]
        left, top = np.clip(np.floor(self.region[:2]), 0, (width - 2, height - 2)).astype(int)
        right, bottom = np.clip(np.ceil(self.region[2:]), (left + 2, top + 2), (width, height))
        part = np.ascontiguousarray(frame.image[top : int(bottom), left : int(right)])
        if blur:
            part = self._blurred(part, tracks, frame.time_s, shift=np.array([left, top] * 2))
        if self._container is None:
            self._open(part.shape[1], part.shape[0])
        assert self._container is not None
        assert self._stream is not None
        pts = round((frame.time_s - self.window.start_s) * 1000)
        if pts <= self._last:
            return
        self._last = pts
        size = (self._stream.width, self._stream.height)
        resized = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        encoded = av.VideoFrame.from_ndarray(resized, format="rgb24")
        encoded.pts, encoded.time_base = pts, _TIME_BASE
        self._container.mux(self._stream.encode(encoded))

    def save(self, folder: Path) -> bool:
        """Write the file; return False if there was no frame."""
        if self._container is None or self._stream is None:
            return False
        self._container.mux(self._stream.encode(None))
        self._container.close()
        atomic.write_bytes(folder / f"{self.window.track_id}.webm", self._data.getvalue())
        return True

    def _blurred(
        self, part: np.ndarray, tracks: dict[str, BoxTrack], now: float, *, shift: np.ndarray
    ) -> np.ndarray:
        own = {self.window.track_id}
        return hide_others(part, tracks, now, subjects=own, shift=shift)

    def _open(self, width: int, height: int) -> None:
        import av

        scale = min(1.0, SIDE / max(width, height))
        self._container = av.open(self._data, "w", format="webm")
        self._container.flags |= 0x0400  # bitexact: equal frames give equal bytes
        options = {"deadline": "good", "cpu-used": "4", "crf": "24", "threads": "1"}
        stream: Any = self._container.add_stream("libvpx", rate=round(FPS), options=options)
        stream.width = max(2, round(width * scale) // 2 * 2)
        stream.height = max(2, round(height * scale) // 2 * 2)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 600_000
        stream.codec_context.time_base = _TIME_BASE
        self._stream = stream
