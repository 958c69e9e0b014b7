"""Read videos and images as upright RGB frames at their true times.

Accepts every container that FFmpeg reads, decodes only what sampling needs, and reports what
is missing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline.video import heif, tone_mapping
from pipeline.video import hwaccel as devices
from pipeline.video.container import (
    check_size,
    decode_error,
    frame_rate,
    is_still,
    open_container,
    own_duration_s,
    stream_note,
    video_stream,
)
from pipeline.video.decoder import SampleTimes, StreamDecoder
from pipeline.video.shots import CutDetector, gray_plane
from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_log = logging.getLogger(__name__)
Item = TypeVar("Item")

_PREFETCH = 3
_PREFETCH_PIXELS = 16_000_000
"""Prefetch as many frames as fit in this, at most ``_PREFETCH`` and at least one."""

_DECODER_THREADS = 4
"""Threads inside FFmpeg. Each holds frames of its own, and several videos run at once."""

_EXIF = {
    2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3),
    8: (False, 1),
}  # fmt: skip
"""EXIF orientation to ``(mirrored, counter-clockwise quarter turns)``."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video or image; sides are those of the upright frame.

    Attributes:
        duration_s: 0 for a still image; None if the file does not say.
        fps: mean over the stream; None for a still image.
        rotation: clockwise degrees from the stored to the upright frame.
        note: a remark about how the file is read, ``code: sentence``.
    """

    duration_s: float | None
    fps: float | None
    width: int
    height: int
    rotation: int
    codec: str
    has_audio: bool
    note: str | None = None


@dataclass
class Outcome:
    """What a pass over a whole video measured.

    Attributes:
        duration_s: seconds to the end of the last frame or sound.
        note: a remark about how the file was read, ``code: sentence``.
    """

    duration_s: float | None = None
    note: str | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One sampled frame; pixels are converted on first use.

    Attributes:
        index: number of the frame in the video, from 0.
        time_s: presentation time in seconds from the first frame.
        source: the frame as FFmpeg decoded it.
        mirrored: swap left and right before turning.
        turns: counter-clockwise quarter turns that make the frame upright.
        ratio: width of a stored pixel over its height.
        cut: whether a new shot began since the previous sample.
    """

    index: int
    time_s: float
    source: VideoFrame
    mirrored: bool = False
    turns: int = 0
    ratio: float = 1.0
    cut: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright frame in pixels."""
        width = round(self.source.width * self.ratio)
        return (self.source.height, width) if self.turns % 2 else (width, self.source.height)

    @cached_property
    def image(self) -> np.ndarray:
        """uint8[h, w, 3], RGB, upright, with square pixels."""
        return self._rgb(round(self.source.width * self.ratio), self.source.height)

    def small(self, side: int) -> np.ndarray:
        """Return ``image`` with its longest side at most ``side`` pixels."""
        width, height = round(self.source.width * self.ratio), self.source.height
        scale = side / max(width, height)
        if scale >= 1:
            return self.image
        # FFmpeg scales before it converts colours, which is cheaper than resizing ``image``.
        return self._rgb(max(1, round(width * scale)), max(1, round(height * scale)))

    def stored(self, box: np.ndarray) -> tuple[np.ndarray, int, int] | None:
        """Return a part of the frame as the codec stored it.

        Args:
            box: ``x1 y1 x2 y2 …`` in pixels of ``image``.

        Returns:
            gray uint8[h, w], neither turned nor scaled, and the column and row where it begins;
            None if the format has no 8-bit gray plane.
        """
        gray = gray_plane(self.source)
        if gray is None:
            return None
        low, high = self._stored_point(box[:2]), self._stored_point(box[2:4])
        x1, x2 = sorted((int(low[0]), int(high[0])))
        y1, y2 = sorted((int(low[1]), int(high[1])))
        x1, y1 = max(0, x1), max(0, y1)
        return gray[y1 : max(y1, y2), x1 : max(x1, x2)], x1, y1

    def _stored_point(self, point: np.ndarray) -> tuple[float, float]:
        x, y = float(point[0]), float(point[1])
        width, height = self.source.width * self.ratio, self.source.height
        x, y = {0: (x, y), 1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[
            self.turns % 4
        ]
        return (width - x if self.mirrored else x) / self.ratio, y

    def _rgb(self, width: int, height: int) -> np.ndarray:
        smaller = width * height < self.source.width * self.source.height
        transfer = tone_mapping.transfer_of(self.source)
        # Measured: below 4K more threads of swscale cost more than they save.
        image = self.source.to_ndarray(
            format="rgb48le" if transfer else "rgb24",
            width=width,
            height=height,
            interpolation="AREA" if smaller else None,
            threads=1,
        )
        if transfer:
            wide = tone_mapping.is_wide(self.source)
            image = tone_mapping.to_sdr(image, transfer=transfer, wide=wide)
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.turns))


def probe(path: str) -> VideoInfo:
    """Read the properties of a file and decode its first frame.

    Raises:
        MediaError: with ``got`` = ``code: sentence``; codes are ``unreadable``, ``not_media``,
            ``no_video_stream``, ``truncated``, ``decode_error``, ``too_small``, ``too_large``.
    """
    if heif.holds_picture(path):
        still_frame, codec = _picture(path)
        width, height = still_frame.size
        note = _note(None, still_frame)
        return VideoInfo(0.0, None, width, height, 0, codec, has_audio=False, note=note)
    with open_container(path) as container:
        stream = video_stream(container)
        first = next(container.decode(stream), None)
        if first is None:
            raise decode_error("no frame could be decoded")
        still = is_still(container)
        frame = _frame(0, 0.0, first, stream, path=path, still=still)
        width, height = frame.size
        return VideoInfo(
            duration_s=0.0 if still else own_duration_s(container),
            fps=None if still else frame_rate(container, stream),
            width=width,
            height=height,
            rotation=-90 * frame.turns % 360,
            codec=stream.codec_context.name,
            has_audio=bool(container.streams.audio),
            note=_note(stream_note(container), frame),
        )


def sample(
    path: str, *, fps: float = 5.0, hardware: bool = False, outcome: Outcome | None = None
) -> Iterator[Frame]:
    """Yield the first frame at or after each multiple of ``1 / fps`` seconds.

    A thread decodes a few frames ahead; memory does not grow with the length of the video. A
    still image gives one frame at 0 s.

    Args:
        hardware: decode on a device if one is available; software decodes the rest.
        outcome: filled in when the last frame was read.

    Raises:
        MediaError: as ``probe``; also after the last frame, if part of the video could not be
            decoded (``decode_error``) or is missing (``truncated``).
    """
    accelerator = devices.accelerator() if hardware else None
    outcome = outcome or Outcome()
    frames = (
        _sampled(path, fps=fps, outcome=outcome)
        if accelerator is None
        else _with_fallback(path, fps=fps, accelerator=accelerator, outcome=outcome)
    )
    first = next(frames, None)
    if first is None:
        return
    width, height = first.size
    yield first
    depth = min(_PREFETCH, max(1, _PREFETCH_PIXELS // (width * height)))
    yield from prefetch(frames, depth=depth)


def _with_fallback(
    path: str, *, fps: float, accelerator: HWAccel, outcome: Outcome | None = None
) -> Generator[Frame]:
    """Yield frames from a device; if it fails, continue in software.

    A device may run out of memory or refuse a profile, so only software decides about a file.
    """
    last = -1
    try:
        for frame in _sampled(path, fps=fps, hwaccel=accelerator, outcome=outcome):
            last = frame.index
            yield frame
        return
    except MediaError as error:
        _log.info("Hardware decoding failed, continuing in software: %s", error.got)
    rest = _sampled(path, fps=fps, outcome=outcome)
    yield from (frame for frame in rest if frame.index > last)


def _sampled(
    path: str, *, fps: float, hwaccel: HWAccel | None = None, outcome: Outcome | None = None
) -> Generator[Frame]:
    outcome = outcome or Outcome()
    if heif.holds_picture(path):
        picture, _ = _picture(path)
        outcome.duration_s, outcome.note = 0.0, _note(None, picture)
        yield picture
        return
    with open_container(path, hwaccel=hwaccel) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _DECODER_THREADS
        still = is_still(container)
        times, cut = SampleTimes(fps), False
        decoder = StreamDecoder(container, stream, times=times, path=path)
        for index, time_s, source, begins in CutDetector().detect(decoder.frames()):
            cut = cut or begins
            if not times.take(time_s):
                continue
            frame = _frame(index, time_s, source, stream, path=path, still=still, cut=cut)
            if index == 0:
                outcome.note = _note(stream_note(container), frame)
                outcome.duration_s = 0.0 if still else None
            yield frame
            cut = False
            if still:
                return
        outcome.duration_s = decoder.duration_s
        decoder.check()


def _picture(path: str) -> tuple[Frame, str]:
    """Return the frame of an HEIC or AVIF picture, and its codec."""
    import av

    picture = heif.read(path, check_size=check_size)
    source = av.VideoFrame.from_ndarray(picture.image, format="rgb24")
    source.color_trc = picture.transfer
    return Frame(0, 0.0, source), picture.codec


def _note(streams: str | None, frame: Frame) -> str | None:
    """Join the remarks about a file."""
    transfer = tone_mapping.transfer_of(frame.source)
    mapped = transfer and (
        f"tone_mapped: it is HDR ({tone_mapping.NAMES[transfer]}), its frames were converted to SDR"
    )
    return "; ".join(note for note in (streams, mapped) if note) or None


def _frame(
    index: int, time_s: float, source: VideoFrame, stream: VideoStream, *,
    path: str, still: bool, cut: bool = False,
) -> Frame:  # fmt: skip
    """Describe how a decoded frame becomes upright, with square pixels.

    Raises:
        MediaError: it is too small or too large; a stream may change its size midway.
    """
    check_size(source.width, source.height)
    ratio = float(stream.sample_aspect_ratio or 1)
    # DV and video calls have pixels that are not square, which would distort every face.
    if not (0.25 <= ratio <= 4 and abs(ratio - 1) > 0.02):
        ratio = 1.0
    # FFmpeg applies the rotation of the EXIF tag, but not the mirroring of selfies.
    mirrored, turns = (
        _EXIF.get(_exif_orientation(path), (False, 0))
        if still
        else (False, round((source.rotation or 0) / 90) % 4)
    )
    return Frame(index, time_s, source, mirrored=mirrored, turns=turns, ratio=ratio, cut=cut)


def _exif_orientation(path: str) -> int:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # Pillow's readers raise many types; FFmpeg could read the image
        return 1


def prefetch(items: Generator[Item], *, depth: int) -> Iterator[Item]:
    """Yield the same items in order, produced ahead by a thread.

    At most ``depth`` items wait. An error of ``items`` is raised after the items before it. When
    the caller stops early, the thread closes ``items`` and ends.
    """
    queue: SimpleQueue[tuple[bool, Item | BaseException | None]] = SimpleQueue()
    slots, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        try:
            for item in items:
                slots.acquire()
                if stopped.is_set():
                    return
                queue.put((True, item))
            queue.put((False, None))
        except BaseException as error:
            queue.put((False, error))
        finally:
            items.close()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, entry = queue.get()
            if not more:
                if isinstance(entry, BaseException):
                    raise entry
                return
            slots.release()
            yield entry  # type: ignore[misc]
            del entry
    finally:
        stopped.set()
        slots.release()
        thread.join()
