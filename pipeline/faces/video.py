"""Any container FFmpeg reads as upright RGB pictures with their true times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from pipeline.faces.opening import check_size, is_still, opened, picture_stream, undecodable
from warehouse.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_RATE = 25.0
"""For streams that carry neither times nor a rate."""

_EXIF = {
    2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3),
    8: (False, 1),
}  # fmt: skip
"""EXIF orientation to: mirrored?, then counter-clockwise quarter turns."""


@dataclass(frozen=True)
class VideoFacts:
    """What a container says of its picture; sides are those of the upright picture, as shown.

    Attributes:
        duration_s: 0 for a still image.
        fps: mean over the stream; None for a still image.
        rotation: clockwise degrees the stored picture is turned by to stand upright.
    """

    duration_s: float
    fps: float | None
    width: int
    height: int
    rotation: int
    codec: str
    has_audio: bool


@dataclass(frozen=True)
class Frame:
    """One sampled picture.

    Attributes:
        index: number of the frame in the decoded video, from 0.
        time_s: its presentation time, from the first picture.
        image: uint8[h, w, 3], RGB, upright, with square pixels.
    """

    index: int
    time_s: float
    image: np.ndarray


def probe(path: str) -> VideoFacts:
    """Facts about a file, after decoding its first picture.

    Raises:
        MediaError: with ``got`` = ``code: sentence``; codes are ``unreadable``, ``not_media``,
            ``no_video_stream``, ``truncated``, ``decode_error``, ``too_small``, ``too_large``.
    """
    with opened(path) as container:
        stream = picture_stream(container)
        first = next(container.decode(stream), None)
        if first is None:
            raise undecodable("no picture could be decoded")
        still = is_still(container)
        mirrored, turns = _orientation(first, path, still=still)
        image = _upright(first, stream, mirrored=mirrored, turns=turns)
        rate = stream.average_rate or stream.guessed_rate
        return VideoFacts(
            duration_s=0.0 if still else (container.duration or 0) / 1_000_000,
            fps=None if still or not rate else float(rate),
            width=image.shape[1],
            height=image.shape[0],
            rotation=-90 * turns % 360,
            codec=stream.codec_context.name,
            has_audio=bool(container.streams.audio),
        )


def sample(path: str, *, fps: float = 5.0) -> Iterator[Frame]:
    """Frames at or after each tick of ``1 / fps`` seconds, with the times they really have.

    One frame is held at a time, whatever the length. A still image is one frame at 0 s.

    Raises:
        MediaError: as ``probe``; also after the last frame, when part of the video could not be
            decoded (``decode_error``) or is not there (``truncated``).
    """
    with opened(path) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        still = is_still(container)
        watch = _Watch()
        rate = float(stream.average_rate or _RATE)
        start: float | None = None
        due, index = 0.0, -1
        for frame in watch.frames(container, stream):
            index += 1
            moment = frame.time if frame.time is not None else index / rate
            start = moment if start is None else start
            time_s = moment - start
            # A hair early still counts: time stamps are rounded to the stream's clock.
            if time_s < due - 1e-4:
                continue
            due = (floor(time_s * fps + 1e-3) + 1) / fps
            mirrored, turns = _orientation(frame, path, still=still)
            image = _upright(frame, stream, mirrored=mirrored, turns=turns)
            yield Frame(index=index, time_s=time_s, image=image)
            if still:
                return
        watch.check(container, stream, frames=index + 1)


class _Watch:
    """Decodes packet by packet and keeps account of what was missing.

    FFmpeg says nothing when a file ends early, and stops for good at the first damaged packet
    if it is asked for frames only.
    """

    def __init__(self) -> None:
        self.packets = 0
        self.damaged = 0
        self.said = ""
        self.reach_s = 0.0

    def frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        import av

        await_key = False
        for packet in self._packets(container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._note(error)
                # What refers to a lost picture comes out smeared: wait for the next whole one.
                await_key = True
                continue
            for frame in frames:
                await_key = await_key and not frame.key_frame
                if not (await_key or frame.is_corrupt):
                    yield frame

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
        import av

        try:
            for packet in container.demux([stream, *container.streams.audio]):
                if packet.pts is not None and packet.time_base is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self.reach_s = max(self.reach_s, float(end))
                if packet.stream is stream:
                    self.packets += packet.size > 0
                    yield packet
        except av.FFmpegError as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        self.damaged += 1
        self.said = self.said or getattr(error, "strerror", None) or str(error)

    def check(self, container: InputContainer, stream: VideoStream, *, frames: int) -> None:
        length_s = (container.duration or 0) / 1_000_000
        reach_s = self.reach_s - (container.start_time or 0) / 1_000_000
        if reach_s < length_s - max(0.5, 0.05 * length_s) or self.packets < 0.9 * stream.frames:
            raise MediaError(
                "a whole video",
                got=f"truncated: it ends at {reach_s:.1f} s of {length_s:.1f} s, frame {frames}",
                mend="copy the file again; what is there was used",
            )
        if frames == 0:
            raise undecodable(self.said or "no picture could be decoded")
        if self.damaged:
            raise MediaError(
                "a video that decodes throughout",
                got=f"decode_error: {self.damaged} of {self.packets} packets are damaged "
                f"({self.said})",
                mend="copy or export the file again; what could be decoded was used",
            )


def _orientation(frame: VideoFrame, path: str, *, still: bool) -> tuple[bool, int]:
    """Mirrored first?, then counter-clockwise quarter turns."""
    if still:
        # FFmpeg passes on the turn of the EXIF tag, but not the mirroring of selfies.
        return _EXIF.get(_exif_orientation(path), (False, 0))
    return False, round((frame.rotation or 0) / 90) % 4


def _upright(frame: VideoFrame, stream: VideoStream, *, mirrored: bool, turns: int) -> np.ndarray:
    check_size(frame.width, frame.height)
    ratio = float(stream.sample_aspect_ratio or 1)
    if 0.25 <= ratio <= 4 and abs(ratio - 1) > 0.02:
        # Pixels that are not square (DV, video calls) would make every face too narrow or wide.
        image = frame.to_ndarray(format="rgb24", width=round(frame.width * ratio))
    else:
        image = frame.to_ndarray(format="rgb24")
    if mirrored:
        image = image[:, ::-1]
    return np.ascontiguousarray(np.rot90(image, turns))


def _exif_orientation(path: str) -> int:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(0x0112, 1))
    except Exception:  # Pillow's readers raise what they like; FFmpeg could read the picture
        return 1
