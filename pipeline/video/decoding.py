"""Frames of a stream, decoded no more than sampling needs, with an account of what was missing."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from math import floor
from typing import TYPE_CHECKING

from pipeline.video.container import undecodable
from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

RATE = 25.0
"""For streams that carry neither times nor a rate."""

_LOOKAHEAD = 40
"""Packets read ahead to know the order of showing; streams reorder by at most 16."""

_SKIPPING = {"h264", "hevc"}
"""Decoders that leave out frames no other frame refers to, when told to, packet by packet."""

_FIELDS = {2, 3, 4, 5}
"""FFmpeg's numbers for interlaced streams, where two packets may make one frame."""


class Ticks:
    """Which times are sampled: the first at or after each multiple of ``1 / fps`` seconds."""

    def __init__(self, fps: float) -> None:
        self._fps, self._due = fps, 0.0

    def take(self, time_s: float) -> bool:
        """Whether the next frame, shown at ``time_s``, is one to sample."""
        # A hair early still counts: time stamps are rounded to the stream's clock.
        if time_s < self._due - 1e-4:
            return False
        self._due = (floor(time_s * self._fps + 1e-3) + 1) / self._fps
        return True

    def between(self, low_s: float, high_s: float) -> bool:
        """Whether a tick may lie between two times; says yes when in doubt."""
        return floor((high_s + 2e-3) * self._fps + 1e-3) > floor((low_s - 2e-3) * self._fps)


class Decoding:
    """One pass over a stream.

    FFmpeg says nothing when a file ends early, and stops for good at the first damaged packet
    if it is asked for frames only; so this goes packet by packet and keeps count.

    A frame that no other frame refers to and that no tick will sample need not be decoded: in
    H.264 with its usual B-frames that is every other one. What is decoded is the same to the
    bit, and skipped frames are counted, so a frame keeps its number.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, ticks: Ticks) -> None:
        self._container, self._stream, self._ticks = container, stream, ticks
        self._packets = self._damaged = 0
        self._said = ""
        self._reach_s = 0.0
        self._start: float | None = None
        self._steady = True
        self.frames_seen = 0

    def frames(self) -> Iterator[tuple[int, float, VideoFrame]]:
        """Number, seconds since the first picture, and frame; skipped frames do not come."""
        rate = float(self._stream.average_rate or RATE)
        ahead_s, last = 0.0, -1.0
        for frame in self._whole():
            index = self.frames_seen - 1
            moment = frame.time if frame.time is not None else index / rate
            if self._start is None:
                self._start = moment
            time_s = moment - self._start + ahead_s
            if time_s < last:
                # Recordings put one after another begin again at nought; ours goes on.
                ahead_s += last + 1 / rate - time_s
                time_s = last + 1 / rate
            last = time_s
            yield index, time_s, frame

    def check(self) -> None:
        """Say what was missing.

        Raises:
            MediaError: ``truncated`` or ``decode_error``.
        """
        length_s = (self._container.duration or 0) / 1_000_000
        reach_s = self._reach_s - (self._container.start_time or 0) / 1_000_000
        short = reach_s < length_s - max(0.5, 0.05 * length_s)
        if short or self._packets < 0.9 * self._stream.frames:
            where = (
                f"it ends at {reach_s:.1f} s of {length_s:.1f} s, frame {self.frames_seen}"
                if reach_s <= length_s
                else f"{self._packets} of {self._stream.frames} pictures are there"
            )
            raise MediaError(
                "a whole video",
                got=f"truncated: {where}",
                hint="copy the file again; what is there was used",
            )
        if self.frames_seen == 0:
            raise undecodable(self._said or "no picture could be decoded")
        if self._damaged:
            raise MediaError(
                "a video that decodes throughout",
                got=f"decode_error: {self._damaged} of {self._packets} packets are damaged "
                f"({self._said})",
                hint="copy or export the file again; what could be decoded was used",
            )

    def _whole(self) -> Iterator[VideoFrame]:
        import av

        await_key = False
        skipped: list[int] = []
        for packet, wanted in self._judged():
            self._stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
            if not wanted and packet.pts is not None:
                heapq.heappush(skipped, packet.pts)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._note(error)
                # What refers to a lost picture comes out smeared: wait for the next whole one.
                await_key = True
                continue
            for frame in frames:
                while skipped and frame.pts is not None and skipped[0] <= frame.pts:
                    # Equal: FFmpeg had to decode it after all.
                    self.frames_seen += heapq.heappop(skipped) < frame.pts
                await_key = await_key and not frame.key_frame
                if not (await_key or frame.is_corrupt):
                    self.frames_seen += 1
                    yield frame
        self.frames_seen += len(skipped)

    def _judged(self) -> Iterator[tuple[Packet, bool]]:
        """Each packet, and whether its frame may be wanted."""
        if not self._may_skip():
            yield from ((packet, True) for packet in self._demuxed())
            return
        waiting: deque[Packet] = deque()
        shown: list[float] = []  # times of the packets around, in the order of showing
        decoded: int | None = None
        for packet in self._demuxed():
            waiting.append(packet)
            if packet.pts is not None:
                insort(shown, float(packet.pts * packet.time_base))
            if packet.dts is not None:
                # Time that goes back mixes up what is shown when: decode everything from there.
                self._steady &= decoded is None or packet.dts >= decoded
                decoded = packet.dts
            if len(waiting) > _LOOKAHEAD:
                yield waiting[0], self._may_be_wanted(waiting.popleft(), shown)
                del shown[: max(0, len(shown) - 2 * _LOOKAHEAD)]
        while waiting:
            yield waiting[0], self._may_be_wanted(waiting.popleft(), shown)

    def _may_be_wanted(self, packet: Packet, shown: list[float]) -> bool:
        if packet.pts is None or packet.is_keyframe or self._start is None or not self._steady:
            return True
        time_s = float(packet.pts * packet.time_base)
        place = bisect_left(shown, time_s)
        # Without a neighbour before it, or with a twin, nothing is sure.
        if place == 0 or (place + 1 < len(shown) and shown[place + 1] == time_s):
            return True
        return self._ticks.between(shown[place - 1] - self._start, time_s - self._start)

    def _may_skip(self) -> bool:
        context = self._stream.codec_context
        return context.name in _SKIPPING and context.field_order not in _FIELDS

    def _demuxed(self) -> Iterator[Packet]:
        import av

        wanted = [self._stream, *self._container.streams.audio]
        try:
            for packet in self._container.demux(wanted):
                if packet.pts is not None and packet.time_base is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._reach_s = max(self._reach_s, float(end))
                if packet.stream is self._stream:
                    self._packets += packet.size > 0
                    yield packet
        except av.FFmpegError as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        self._damaged += 1
        self._said = self._said or getattr(error, "strerror", None) or str(error)
