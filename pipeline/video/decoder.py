"""Decode a video stream packet by packet, at the true times of its frames."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from math import floor
from typing import TYPE_CHECKING

from pipeline.video import truncation
from pipeline.video.container import BARE, decode_error, frame_rate
from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_DEFAULT_FPS = 25.0
"""For streams that carry neither times nor a rate."""

_LOOKAHEAD = 40
"""Packets read ahead to know the display order; streams reorder by at most 16."""

_SKIPPING = {"h264", "hevc"}
"""Decoders that can skip unreferenced frames packet by packet."""

_FIELDS = {2, 3, 4, 5}
"""FFmpeg's field orders of interlaced streams, where two packets may make one frame."""

_STREAMING = {"mpegts", "mpeg", *BARE}


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

    Attributes:
        frames_seen: number of frames decoded or skipped so far.
        duration_s: seconds from the first frame to the end of the last frame or sound, once every
            frame was read.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        *,
        times: SampleTimes,
        path: str | None = None,
    ) -> None:
        self._container, self._stream, self._times, self._path = container, stream, times, path
        self._packets = self._damaged = 0
        self._first_error = ""
        self._ends: dict[int, float] = {}
        self._start: float | None = None
        self._pictures_s = 0.0
        self._last_dts: int | None = None
        # How often the packets' clock went back; None if they have none.
        self._restarts: int | None = None
        self._order = _DisplayOrder(container, stream)
        self.frames_seen = 0
        self.duration_s: float | None = None

    def frames(self) -> Iterator[tuple[int, float, VideoFrame]]:
        """Yield number, seconds since the first frame, and decoded frame."""
        untimed = self._container.format.name in BARE
        average = self._stream.average_rate
        rate = frame_rate(self._container, self._stream) if untimed else average and float(average)
        rate = rate or _DEFAULT_FPS
        offset_s, last, joined = 0.0, -1.0, 0
        for frame, shown in self._intact():
            index = self.frames_seen - 1
            shown_s = frame.time
            if shown is not None and shown != frame.pts and frame.time_base is not None:
                shown_s = float(shown * frame.time_base)
            if shown_s is None or untimed:
                shown_s = index / rate
            if self._start is None:
                self._start = shown_s
            time_s = shown_s - self._start + offset_s
            if time_s < last:
                if self._restarts is None or self._restarts > joined:
                    # The clock of joined recordings restarts at 0; continue from the last frame.
                    offset_s += last + 1 / rate - time_s
                    joined += 1
                # Otherwise only this frame's time is wrong: the packets' own clock went on.
                time_s = last + 1 / rate
            last = time_s
            lasts = float((frame.duration or 0) * frame.time_base) if frame.time_base else 0.0
            self._pictures_s = time_s + (1 / rate if untimed or not lasts else lasts)
            self.duration_s = self._pictures_s
            yield index, time_s, frame
        if self.duration_s is not None and not untimed and offset_s == 0:
            sound_s = max(map(self._end_of, self._container.streams.audio), default=0.0)
            self.duration_s = max(self.duration_s, sound_s - (self._start or 0.0))

    def check(self) -> None:
        """Check after the last frame that the whole stream was decoded.

        Raises:
            MediaError: ``truncated`` or ``decode_error``.
        """
        start_s = (self._container.start_time or 0) / 1_000_000
        length_s = (self._container.duration or 0) / 1_000_000
        # Other streams count too: the container's length is that of the longest, subtitles and
        # second videos included.
        all_end_s = max(self._ends.values(), default=0.0) - start_s
        if truncation.ends_early(
            self._container, self._stream, path=self._path, end_s=all_end_s, length_s=length_s
        ):
            read = [self._stream, *self._container.streams.audio]
            end_s = max(map(self._end_of, read)) - start_s
            if length_s and end_s > length_s:
                # Its last packets claim impossible times.
                end_s = self._pictures_s
            of = f" of {length_s:.1f} s" if length_s > end_s else ""
            raise MediaError(
                "The video is incomplete",
                got=f"truncated: it ends at {end_s:.1f} s{of}, frame {self.frames_seen}",
                hint="copy the file again; the frames before were used",
            )
        if self.frames_seen == 0:
            raise decode_error(self._first_error or "no frame could be decoded")
        lost = truncation.lost_packets(self._container, self._stream, found=self._packets)
        if self._damaged or lost:
            reason = self._first_error or "their place in the file holds something else"
            raise MediaError(
                "Part of the video cannot be decoded",
                got=f"decode_error: {self._damaged + lost} of {self._packets + lost} packets are "
                f"damaged ({reason})",
                hint="copy or export the file again; the decoded frames were used",
            )

    def _end_of(self, stream: Stream) -> float:
        return self._ends.get(stream.index, 0.0)

    def _intact(self) -> Iterator[tuple[VideoFrame, int | None]]:
        """Yield frames that depend on no damaged packet, with their times."""
        import av

        await_key = False
        skipped: list[int] = []
        for packet, wanted in self._packets_to_decode():
            self._stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
            if not wanted and packet.pts is not None:
                heapq.heappush(skipped, packet.pts)
            self._order.add(packet)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._add_error(error)
                self._order.drop(packet)
                # Frames that refer to a lost one are smeared: wait for the next key frame.
                await_key = True
                continue
            for frame in frames:
                shown = self._order.time_of(frame)
                while skipped and frame.pts is not None and skipped[0] <= frame.pts:
                    # Equal: FFmpeg decoded the frame anyway.
                    self.frames_seen += heapq.heappop(skipped) < frame.pts
                await_key = await_key and not frame.key_frame
                if not (await_key or frame.is_corrupt):
                    self.frames_seen += 1
                    yield frame, shown
        self.frames_seen += len(skipped)

    def _packets_to_decode(self) -> Iterator[tuple[Packet, bool]]:
        """Yield each packet and whether its frame may be sampled."""
        may_skip = self._may_skip()
        if not may_skip and not self._order.reorders:
            yield from ((packet, True) for packet in self._demux())
            return
        waiting: deque[Packet] = deque()
        shown: list[float] = []  # times of nearby packets, in display order

        def wanted(packet: Packet) -> bool:
            return not may_skip or self._may_be_sampled(packet, shown)

        for packet in self._demux():
            waiting.append(packet)
            self._order.look_at(packet)
            if packet.pts is not None:
                insort(shown, float(packet.pts * packet.time_base))
            if len(waiting) > _LOOKAHEAD:
                yield waiting[0], wanted(waiting.popleft())
                del shown[: max(0, len(shown) - 2 * _LOOKAHEAD)]
        while waiting:
            yield waiting[0], wanted(waiting.popleft())

    def _may_be_sampled(self, packet: Packet, shown: list[float]) -> bool:
        # A clock that goes back makes the display order unknown: decode all from there.
        unordered = self._order.unknown or bool(self._restarts)
        if packet.pts is None or packet.is_keyframe or self._start is None or unordered:
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
            # All streams: only the end of the longest is comparable to the container's length.
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    index = packet.stream_index
                    self._ends[index] = max(self._ends.get(index, end), end)
                if packet.stream is self._stream:
                    self._packets += packet.size > 0
                    if packet.dts is not None:
                        back = self._last_dts is not None and packet.dts < self._last_dts
                        self._restarts = (self._restarts or 0) + back
                        self._last_dts = packet.dts
                    yield packet
        except av.FFmpegError as error:
            self._add_error(error)

    def _add_error(self, error: Exception) -> None:
        self._damaged += 1
        self._first_error = self._first_error or getattr(error, "strerror", None) or str(error)


class _DisplayOrder:
    """Times of the frames of streams whose packets carry none of their own.

    AVI, bare streams and careless muxers count packets in decoding order: time stamps advance
    with every packet, although the decoder shows B-frames in another order. A stream whose
    presentation times were written has a packet that is shown before one decoded earlier. Without
    such a packet the n-th frame that the decoder returns has the n-th time.

    Attributes:
        reorders: whether the decoder returns frames in another order than their packets.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        context = stream.codec_context
        # Transport streams may give each field a packet; other containers keep frames whole.
        in_fields = context.field_order in _FIELDS and container.format.name in _STREAMING
        self.reorders = bool(context.has_b_frames) and not in_fields
        self._last: int | None = None
        self._written = False
        self._waiting: deque[int] = deque()

    @property
    def unknown(self) -> bool:
        """Whether no packet so far had a presentation time of its own."""
        return self.reorders and not self._written

    def look_at(self, packet: Packet) -> None:
        """Learn from a packet that is not decoded yet."""
        if packet.pts is not None:
            self._written |= self._last is not None and packet.pts < self._last
            self._last = packet.pts

    def add(self, packet: Packet) -> None:
        """Record the time of a packet that is decoded next."""
        if self.unknown and packet.size and (stamp := _stamp(packet)) is not None:
            self._waiting.append(stamp)

    def drop(self, packet: Packet) -> None:
        """Forget the time of a packet that gave no frame."""
        if self.unknown and self._waiting and self._waiting[-1] == _stamp(packet):
            self._waiting.pop()

    def time_of(self, frame: VideoFrame) -> int | None:
        """Return the time of the next frame, in units of its time base."""
        if self.unknown and self._waiting:
            return self._waiting.popleft()
        return frame.pts


def _stamp(packet: Packet) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts
