"""Read videos and images as upright RGB frames at their true times.

Accepts every container that FFmpeg reads, decodes only what sampling needs, and reports what
is missing.
"""

from __future__ import annotations

import heapq
import logging
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import floor
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline.video import hwaccel as devices
from pipeline.video.container import (
    check_size,
    decode_error,
    is_still,
    open_container,
    video_stream,
)
from pipeline.video.shots import CutDetector, gray_plane
from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_log = logging.getLogger(__name__)
Item = TypeVar("Item")

_PREFETCH = 3
_PREFETCH_PIXELS = 16_000_000
"""Prefetch as many frames as fit in this, at most ``_PREFETCH`` and at least one."""

_DECODER_THREADS = 4
"""Threads inside FFmpeg. Each holds frames of its own, and several videos run at once."""

_DEFAULT_FPS = 25.0
"""For streams that carry neither times nor a rate."""

_LOOKAHEAD = 40
"""Packets read ahead to know the display order; streams reorder by at most 16."""

_SKIPPING = {"h264", "hevc"}
"""Decoders that can skip unreferenced frames packet by packet."""

_FIELDS = {2, 3, 4, 5}
"""FFmpeg's field orders of interlaced streams, where two packets may make one frame."""

_EXIF = {
    2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3),
    8: (False, 1),
}  # fmt: skip
"""EXIF orientation to ``(mirrored, counter-clockwise quarter turns)``."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video or image; sides are those of the upright frame.

    Attributes:
        duration_s: 0 for a still image.
        fps: mean over the stream; None for a still image.
        rotation: clockwise degrees from the stored to the upright frame.
    """

    duration_s: float
    fps: float | None
    width: int
    height: int
    rotation: int
    codec: str
    has_audio: bool


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
        # Measured: below 4K more threads of swscale cost more than they save.
        image = self.source.to_ndarray(
            format="rgb24",
            width=width,
            height=height,
            interpolation="AREA" if smaller else None,
            threads=1,
        )
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.turns))


def probe(path: str) -> VideoInfo:
    """Read the properties of a file and decode its first frame.

    Raises:
        MediaError: with ``got`` = ``code: sentence``; codes are ``unreadable``, ``not_media``,
            ``no_video_stream``, ``truncated``, ``decode_error``, ``too_small``, ``too_large``.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        first = next(container.decode(stream), None)
        if first is None:
            raise decode_error("no frame could be decoded")
        still = is_still(container)
        frame = _frame(0, 0.0, first, stream, path=path, still=still)
        rate = stream.average_rate or stream.guessed_rate
        width, height = frame.size
        return VideoInfo(
            duration_s=0.0 if still else (container.duration or 0) / 1_000_000,
            fps=None if still or not rate else float(rate),
            width=width,
            height=height,
            rotation=-90 * frame.turns % 360,
            codec=stream.codec_context.name,
            has_audio=bool(container.streams.audio),
        )


def sample(path: str, *, fps: float = 5.0, hardware: bool = False) -> Iterator[Frame]:
    """Yield the first frame at or after each multiple of ``1 / fps`` seconds.

    A thread decodes a few frames ahead; memory does not grow with the length of the video. A
    still image gives one frame at 0 s.

    Args:
        hardware: decode on a device if one is available; software decodes the rest.

    Raises:
        MediaError: as ``probe``; also after the last frame, if part of the video could not be
            decoded (``decode_error``) or is missing (``truncated``).
    """
    accelerator = devices.accelerator() if hardware else None
    frames = (
        _sampled(path, fps=fps)
        if accelerator is None
        else _with_fallback(path, fps=fps, accelerator=accelerator)
    )
    first = next(frames, None)
    if first is None:
        return
    width, height = first.size
    yield first
    depth = min(_PREFETCH, max(1, _PREFETCH_PIXELS // (width * height)))
    yield from prefetch(frames, depth=depth)


def _with_fallback(path: str, *, fps: float, accelerator: HWAccel) -> Generator[Frame]:
    """Yield frames from a device; if it fails, continue in software.

    A device may run out of memory or refuse a profile, so only software decides about a file.
    """
    last = -1
    try:
        for frame in _sampled(path, fps=fps, hwaccel=accelerator):
            last = frame.index
            yield frame
        return
    except MediaError as error:
        _log.info("Hardware decoding failed, continuing in software: %s", error.got)
    yield from (frame for frame in _sampled(path, fps=fps) if frame.index > last)


def _sampled(path: str, *, fps: float, hwaccel: HWAccel | None = None) -> Generator[Frame]:
    with open_container(path, hwaccel=hwaccel) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _DECODER_THREADS
        still = is_still(container)
        times, cut = SampleTimes(fps), False
        decoder = StreamDecoder(container, stream, times=times)
        for index, time_s, source, begins in CutDetector().detect(decoder.frames()):
            cut = cut or begins
            if not times.take(time_s):
                continue
            yield _frame(index, time_s, source, stream, path=path, still=still, cut=cut)
            cut = False
            if still:
                return
        decoder.check()


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


class SampleTimes:
    """The sampled times: the first at or after each multiple of ``1 / fps`` s."""

    def __init__(self, fps: float) -> None:
        self._fps, self._next_s = fps, 0.0

    def take(self, time_s: float) -> bool:
        """Return whether to sample the next frame, shown at ``time_s``."""
        # Allow a small error: time stamps are rounded to the stream's clock.
        if time_s < self._next_s - 1e-4:
            return False
        self._next_s = (floor(time_s * self._fps + 1e-3) + 1) / self._fps
        return True

    def may_fall_between(self, low_s: float, high_s: float) -> bool:
        """Return False only if no sampled time can lie between two times."""
        return floor((high_s + 2e-3) * self._fps + 1e-3) > floor((low_s - 2e-3) * self._fps)


class StreamDecoder:
    """One pass over a video stream, packet by packet.

    FFmpeg does not report a file that ends early, and its frame iterator stops at the first
    damaged packet. This class decodes single packets and counts both.

    Frames that no other frame refers to and that will not be sampled are skipped; in H.264 with
    its usual B-frames that is every second one. Decoded pixels do not change, and skipped frames
    are counted, so every frame has its true number.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, times: SampleTimes
    ) -> None:
        self._container, self._stream, self._times = container, stream, times
        self._packets = self._damaged = 0
        self._first_error = ""
        self._end_s = 0.0
        self._start: float | None = None
        self._monotonic = True
        self.frames_seen = 0

    def frames(self) -> Iterator[tuple[int, float, VideoFrame]]:
        """Yield number, seconds since the first frame, and decoded frame."""
        rate = float(self._stream.average_rate or _DEFAULT_FPS)
        offset_s, last = 0.0, -1.0
        for frame in self._intact():
            index = self.frames_seen - 1
            shown_s = frame.time if frame.time is not None else index / rate
            if self._start is None:
                self._start = shown_s
            time_s = shown_s - self._start + offset_s
            if time_s < last:
                # The clock of joined recordings restarts at 0; continue from the last frame.
                offset_s += last + 1 / rate - time_s
                time_s = last + 1 / rate
            last = time_s
            yield index, time_s, frame

    def check(self) -> None:
        """Check after the last frame that the whole stream was decoded.

        Raises:
            MediaError: ``truncated`` or ``decode_error``.
        """
        length_s = (self._container.duration or 0) / 1_000_000
        end_s = self._end_s - (self._container.start_time or 0) / 1_000_000
        short = end_s < length_s - max(0.5, 0.05 * length_s)
        if short or self._packets < 0.9 * self._stream.frames:
            where = (
                f"it ends at {end_s:.1f} s of {length_s:.1f} s, frame {self.frames_seen}"
                if end_s <= length_s
                else f"it has {self._packets} of {self._stream.frames} frames"
            )
            raise MediaError(
                "The video is incomplete",
                got=f"truncated: {where}",
                hint="copy the file again; the frames before were used",
            )
        if self.frames_seen == 0:
            raise decode_error(self._first_error or "no frame could be decoded")
        if self._damaged:
            raise MediaError(
                "Part of the video cannot be decoded",
                got=f"decode_error: {self._damaged} of {self._packets} packets are damaged "
                f"({self._first_error})",
                hint="copy or export the file again; the decoded frames were used",
            )

    def _intact(self) -> Iterator[VideoFrame]:
        """Yield decoded frames that do not depend on damaged packets."""
        import av

        await_key = False
        skipped: list[int] = []
        for packet, wanted in self._packets_to_decode():
            self._stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
            if not wanted and packet.pts is not None:
                heapq.heappush(skipped, packet.pts)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._add_error(error)
                # Frames that refer to a lost one are smeared: wait for the next key frame.
                await_key = True
                continue
            for frame in frames:
                while skipped and frame.pts is not None and skipped[0] <= frame.pts:
                    # Equal: FFmpeg decoded the frame anyway.
                    self.frames_seen += heapq.heappop(skipped) < frame.pts
                await_key = await_key and not frame.key_frame
                if not (await_key or frame.is_corrupt):
                    self.frames_seen += 1
                    yield frame
        self.frames_seen += len(skipped)

    def _packets_to_decode(self) -> Iterator[tuple[Packet, bool]]:
        """Yield each packet and whether its frame may be sampled."""
        if not self._may_skip():
            yield from ((packet, True) for packet in self._demux())
            return
        waiting: deque[Packet] = deque()
        shown: list[float] = []  # times of nearby packets, in display order
        decoded: int | None = None
        for packet in self._demux():
            waiting.append(packet)
            if packet.pts is not None:
                insort(shown, float(packet.pts * packet.time_base))
            if packet.dts is not None:
                # A clock that goes back makes the display order unknown: decode all from here.
                self._monotonic &= decoded is None or packet.dts >= decoded
                decoded = packet.dts
            if len(waiting) > _LOOKAHEAD:
                yield waiting[0], self._may_be_sampled(waiting.popleft(), shown)
                del shown[: max(0, len(shown) - 2 * _LOOKAHEAD)]
        while waiting:
            yield waiting[0], self._may_be_sampled(waiting.popleft(), shown)

    def _may_be_sampled(self, packet: Packet, shown: list[float]) -> bool:
        if packet.pts is None or packet.is_keyframe or self._start is None or not self._monotonic:
            return True
        time_s = float(packet.pts * packet.time_base)
        place = bisect_left(shown, time_s)
        # Without a predecessor, or with a second packet of the same time, decode it.
        if place == 0 or (place + 1 < len(shown) and shown[place + 1] == time_s):
            return True
        return self._times.may_fall_between(shown[place - 1] - self._start, time_s - self._start)

    def _may_skip(self) -> bool:
        context = self._stream.codec_context
        return context.name in _SKIPPING and context.field_order not in _FIELDS

    def _demux(self) -> Iterator[Packet]:
        import av

        try:
            for packet in self._container.demux([self._stream, *self._container.streams.audio]):
                if packet.pts is not None and packet.time_base is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._end_s = max(self._end_s, float(end))
                if packet.stream is self._stream:
                    self._packets += packet.size > 0
                    yield packet
        except av.FFmpegError as error:
            self._add_error(error)

    def _add_error(self, error: Exception) -> None:
        self._damaged += 1
        self._first_error = self._first_error or getattr(error, "strerror", None) or str(error)


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
